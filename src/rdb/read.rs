//! Reading a snapshot: all of it, or nothing and why.

use super::source::Source;
use super::value::Values;
use super::{Cause, Error, NEWEST, NEWEST_OF_VALKEY, OLDEST, opcode};
use crate::key::Key;
use crate::resp::{LONGEST, parse_integer};
use crate::stats::unix_microseconds;
use crate::store::load::Loading;
use crate::store::{Keyspace, Origin};
use crate::types::{Limits, NodeLimits, Packed, Remember, Twice, Usage};
use std::io::BufRead;
use std::slice::EscapeAscii;

/// What was found beside the keys.
#[derive(Default)]
pub struct Found {
    /// Bytes that were read: in the end, all that the snapshot has.
    pub bytes: u64,
    /// Bytes of memory that its writer used.
    pub memory: u64,
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

/// A snapshot that is being read.
struct Reading<'a> {
    source: Source<'a>,
    limits: &'a Limits,
    /// When it began, in milliseconds of Unix time.
    clock: u64,
    /// Keys that are expired then are left out.
    now: Option<u64>,
    values: Values,
    loading: Loading,
    found: Found,
    /// What was told of the key that follows.
    deadline: Option<u64>,
    idle: Option<u64>,
    frequency: Option<u8>,
    /// Memory for its name.
    name: Vec<u8>,
}

/// Reads a snapshot. What stands behind it is not taken from `inner`. From time to time `progress` is told what was
/// found so far.
///
/// Keys that are expired at `now`, in milliseconds of Unix time, are left out. Without it no key is.
pub fn read(
    inner: &mut dyn BufRead,
    databases: usize,
    limits: &Limits,
    now: Option<u64>,
    progress: &mut dyn FnMut(&Found),
) -> Result<(Keyspace, Found), Error> {
    let mut reading = Reading {
        source: Source::new(inner),
        limits,
        clock: unix_microseconds() / 1000,
        now,
        values: Values::default(),
        loading: Loading::new(databases),
        found: Found::default(),
        deadline: None,
        idle: None,
        frequency: None,
        name: Vec::new(),
    };
    check_version(&mut reading.source)?;
    loop {
        let start = reading.source.offset();
        match reading.source.byte()? {
            opcode::EOF => break,
            opcode @ opcode::FIRST.. => reading.opcode(opcode, databases)?,
            form => {
                reading.key(form, start)?;
                if reading.found.keys.is_multiple_of(PROGRESS) {
                    reading.found.bytes = reading.source.offset();
                    progress(&reading.found);
                }
            }
        }
    }
    reading.end()
}

impl Reading<'_> {
    fn opcode(&mut self, opcode: u8, databases: usize) -> Result<(), Error> {
        let source = &mut self.source;
        match opcode {
            opcode::SELECT_DB => {
                let db = database(source, databases)?;
                self.loading.select(db).map_err(|twice| of_twice(self.loading.db, twice))?;
            }
            opcode::RESIZE_DB => {
                self.loading.expect(source.length()?);
                source.length()?;
            }
            opcode::EXPIRES_MS => self.deadline = Some(milliseconds(source)?),
            opcode::EXPIRES => self.deadline = Some(seconds(source)? * 1000),
            opcode::IDLE => self.idle = Some(source.length()?),
            opcode::FREQUENCY => self.frequency = Some(source.byte()?),
            _ => skip(source, opcode, &mut self.found)?,
        }
        Ok(())
    }

    /// Reads a key, which begins at `start`, and its value.
    fn key(&mut self, form: u8, start: u64) -> Result<(), Error> {
        let mut name = std::mem::take(&mut self.name);
        self.source.string(&mut name)?;
        let key = Key::of(&name);
        let (remember, clock, db) = (self.limits.remember, self.clock, self.loading.db);
        let usage = Usage::new(remember, clock);
        usage.set(remember, self.idle.take(), self.frequency.take(), clock);
        let deadline = self.deadline.take();
        let is_past = deadline.zip(self.now).is_some_and(|(deadline, now)| deadline < now);
        let value = self.values.read(&mut self.source, form, self.limits);
        match value.map_err(|error| error.of_key(db, &key, start))? {
            None => self.found.warn(format!("the key '{}' is empty", shown(&key))),
            Some(_) if is_past => self.found.expired += 1,
            Some(value) => {
                self.found.keys += 1;
                let added = self.loading.add(key, deadline, value, usage, start);
                added.map_err(|twice| of_twice(db, twice))?;
            }
        }
        self.name = name;
        Ok(())
    }

    fn end(mut self) -> Result<(Keyspace, Found), Error> {
        self.found.bytes = check_crc(&mut self.source)?;
        let (db, found) = (self.loading.db, self.found);
        let mut keyspace = self.loading.end().map_err(|twice| of_twice(db, twice))?;
        if let Some(origin) = Origin::named(&found.id, &found.offset, found.stream_db) {
            keyspace.set_origin(origin);
        }
        Ok((keyspace, found))
    }
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
    read(inner, MANY_DATABASES, &limits, None, &mut |_| {}).map(|(_, found)| found)
}

impl Found {
    fn note(&mut self, name: &[u8], value: &[u8]) {
        match name {
            b"repl-id" => self.id = value.into(),
            b"repl-offset" => self.offset = value.into(),
            b"repl-stream-db" => {
                let db = parse_integer(value).and_then(|db| usize::try_from(db).ok());
                self.stream_db = db.unwrap_or(0);
            }
            b"used-mem" => {
                self.memory = parse_integer(value).map_or(0, |bytes| bytes.max(0) as u64)
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
        let (reason, name) = (self.reason, shown(name));
        let reason = format!("{reason} (database {db}, key '{name}', which begins at {start})");
        Error { reason, ..self }
    }
}

/// The begin of a name, because it may be very long.
fn shown(name: &[u8]) -> EscapeAscii<'_> {
    name[..name.len().min(128)].escape_ascii()
}

fn of_twice(db: usize, Twice { key, note: start }: Twice) -> Error {
    let error =
        Error { offset: start, reason: "the key is there twice".into(), cause: Cause::Damaged };
    error.of_key(db, &key, start)
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

fn database(source: &mut Source, databases: usize) -> Result<usize, Error> {
    let number = source.length()?;
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
        opcode::SLOT_INFO => {
            source.length()?;
            source.length()?;
            source.length()?;
        }
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
    let crc = source.crc();
    match u64::from_le_bytes(source.array()?) {
        written if written == 0 || written == crc => Ok(source.offset()),
        _ => Err(source.error("the checksum is wrong: the bytes are not those that were written")),
    }
}
