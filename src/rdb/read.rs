//! Reading a snapshot: all of it, or nothing and why.

use super::source::Source;
use super::value::Values;
use super::{Error, NEWEST, NEWEST_OF_VALKEY, OLDEST, opcode};
use crate::key::Key;
use crate::resp::{LONGEST, parse_integer};
use crate::stats::unix_microseconds;
use crate::store::{Keyspace, Origin};
use crate::types::{Limits, NodeLimits, Packed, Remember, Usage};
use std::io::BufRead;

/// What was found beside the keys.
#[derive(Default)]
pub struct Found {
    /// Bytes that the snapshot has.
    pub bytes: u64,
    pub keys: u64,
    /// Keys that were expired, and were left out.
    pub expired: u64,
    /// For the operator: what was passed over.
    pub warnings: Vec<String>,
    /// Where a replica that has written the snapshot was in its primary's history.
    id: Vec<u8>,
    offset: Vec<u8>,
    stream_db: usize,
}

/// No configuration has more.
const MANY_DATABASES: usize = 1 << 16;

/// More warnings than this are not kept.
const MOST_WARNINGS: usize = 20;

/// Calls the function for progress each time so many keys have been read.
const PROGRESS: u64 = 1_000;

/// Reads a snapshot into an empty keyspace, of which nothing may be used if this fails. What stands behind the
/// snapshot is not taken from `inner`. From time to time `progress` is told how many bytes were read.
///
/// Keys that are expired at `now`, in milliseconds of Unix time, are left out. Without it no key is.
pub fn read(
    inner: &mut dyn BufRead,
    keyspace: &mut Keyspace,
    limits: &Limits,
    now: Option<u64>,
    progress: &mut dyn FnMut(u64),
) -> Result<Found, Error> {
    let mut source = Source::new(inner);
    check_version(&mut source)?;
    let (mut found, mut values) = (Found::default(), Values::default());
    let (clock, mut db, mut deadline, mut name) = (unix_microseconds() / 1000, 0, None, Vec::new());
    loop {
        let start = source.offset;
        let form = match source.byte()? {
            opcode::EOF => break,
            opcode @ opcode::FIRST.. => {
                match opcode {
                    opcode::SELECT_DB => db = database(&mut source, keyspace)?,
                    opcode::EXPIRES_MS => deadline = Some(milliseconds(&mut source)?),
                    opcode::EXPIRES => deadline = Some(seconds(&mut source)? * 1000),
                    _ => skip(&mut source, opcode, &mut found)?,
                }
                continue;
            }
            form => form,
        };
        source.string(&mut name)?;
        let key = Key::of(&name);
        let deadline = deadline.take();
        let value = values.read(&mut source, form, &key, limits);
        let is_past = deadline.zip(now).is_some_and(|(deadline, now)| deadline < now);
        let of_key = |error: Error| error.of_key(db, &key, start);
        match value.map_err(of_key)? {
            None => found.warn(format!("the key '{}' is empty", key.escape_ascii())),
            Some(_) if is_past => found.expired += 1,
            Some(value) => {
                found.keys += 1;
                let usage = Usage::new(limits.remember, clock);
                if !keyspace.add(db, key, value, deadline, usage) {
                    return Err(of_key(source.error("the key is there twice")));
                }
            }
        }
        if found.keys % PROGRESS == 0 {
            progress(source.offset);
        }
    }
    found.bytes = check_crc(&mut source)?;
    Ok(found.with_origin(keyspace))
}

/// Whether a file that begins so is a snapshot.
pub fn is_snapshot(begin: &[u8]) -> bool {
    begin.starts_with(b"REDIS") || begin.starts_with(b"VALKEY")
}

/// Reads a snapshot only to see whether it can be read.
pub fn check(inner: &mut dyn BufRead) -> Result<Found, Error> {
    let packed = Packed { entries: 128, value: 64 };
    let (list, intset) = (NodeLimits::of(-2), 512);
    let ([set, hash, zset], remember) = ([packed; 3], Remember::LastUse);
    let limits = Limits { string: LONGEST, list, intset, set, hash, zset, packs: false, remember };
    read(inner, &mut Keyspace::new(MANY_DATABASES), &limits, None, &mut |_| {})
}

impl Found {
    /// Tells the keyspace where it is.
    fn with_origin(self, keyspace: &mut Keyspace) -> Found {
        if let Some(origin) = Origin::named(&self.id, &self.offset, self.stream_db) {
            keyspace.set_origin(origin);
        }
        self
    }

    fn note(&mut self, name: &[u8], value: &[u8]) {
        match name {
            b"repl-id" => self.id = value.into(),
            b"repl-offset" => self.offset = value.into(),
            b"repl-stream-db" => {
                let db = parse_integer(value).and_then(|db| usize::try_from(db).ok());
                self.stream_db = db.unwrap_or(0);
            }
            _ => {}
        }
    }

    fn warn(&mut self, warning: String) {
        if self.warnings.len() < MOST_WARNINGS {
            self.warnings.push(warning);
        }
    }
}

impl Error {
    /// Says in which key it is.
    fn of_key(self, db: usize, name: &[u8], start: u64) -> Error {
        let (reason, name) = (self.reason, name.escape_ascii());
        let reason = format!("{reason} (database {db}, key '{name}', which begins at {start})");
        Error { reason, ..self }
    }
}

fn check_version(source: &mut Source) -> Result<(), Error> {
    let begin: [u8; 9] = source.array()?;
    let text = std::str::from_utf8(&begin).unwrap_or_default();
    let version = |name| text.strip_prefix(name).and_then(|digits: &str| digits.parse().ok());
    let (version, newest): (Option<u16>, _) = match version("REDIS") {
        Some(version) => (Some(version), NEWEST),
        None => (version("VALKEY"), NEWEST_OF_VALKEY),
    };
    match version {
        Some(version) if (OLDEST..=newest).contains(&version) => Ok(()),
        Some(version) => Err(source.not_here(format!("version {version} is not known here"))),
        None => Err(source.error("it is no RDB file")),
    }
}

/// What was before 1970 is as long ago as that.
fn milliseconds(source: &mut Source) -> Result<u64, Error> {
    Ok(u64::try_from(i64::from_le_bytes(source.array()?)).unwrap_or(0))
}

fn seconds(source: &mut Source) -> Result<u64, Error> {
    Ok(u64::try_from(i32::from_le_bytes(source.array()?)).unwrap_or(0))
}

fn database(source: &mut Source, keyspace: &Keyspace) -> Result<usize, Error> {
    let (number, databases) = (source.length()?, keyspace.databases());
    match usize::try_from(number) {
        Ok(db) if db < databases => Ok(db),
        _ => {
            Err(source
                .not_here(format!("`--databases {databases}` is too few for database {number}")))
        }
    }
}

/// Passes over what is not for us.
fn skip(source: &mut Source, opcode: u8, found: &mut Found) -> Result<(), Error> {
    let mut string = Vec::new();
    match opcode {
        opcode::AUX => {
            let mut name = Vec::new();
            source.string(&mut name)?;
            source.string(&mut string)?;
            found.note(&name, &string);
        }
        opcode::RESIZE_DB => {
            source.length()?;
            source.length()?;
        }
        opcode::SLOT_INFO => {
            source.length()?;
            source.length()?;
            source.length()?;
        }
        opcode::FREQUENCY => drop(source.byte()?),
        opcode::IDLE => drop(source.length()?),
        opcode::FUNCTION => {
            source.string(&mut string)?;
            found.warn("there are no functions here, and the file has a library of them".into());
        }
        opcode::MODULE_AUX => {
            skip_module(source)?;
            found.warn("there are no modules here, and the file has data of one".into());
        }
        _ => return Err(source.error(format!("the unknown opcode {opcode}"))),
    }
    Ok(())
}

/// The module, and then values with their types, to a zero.
fn skip_module(source: &mut Source) -> Result<(), Error> {
    source.length()?;
    loop {
        match source.length()? {
            0 => return Ok(()),
            1 | 2 => drop(source.length()?),
            3 => drop(source.array::<4>()?),
            4 => drop(source.array::<8>()?),
            5 => source.string(&mut Vec::new())?,
            kind => {
                return Err(source.error(format!("data of a module of the unknown kind {kind}")));
            }
        }
    }
}

/// The checksum is zero if there is none. Returns how many bytes there are.
fn check_crc(source: &mut Source) -> Result<u64, Error> {
    let crc = source.crc()?;
    let written = u64::from_le_bytes(source.array()?);
    // So that all of it is taken from where it came.
    source.crc()?;
    match written {
        _ if written == 0 || written == crc => Ok(source.offset),
        _ => Err(source.error("the checksum is wrong: the bytes are not those that were written")),
    }
}
