//! DUMP and RESTORE: a value as bytes, to be made again elsewhere. MIGRATE sends another server the RESTOREs.
//!
//! The bytes are those of a snapshot (src/rdb.rs) with the version and a checksum behind them, so any Redis makes
//! them again. RESTORE checks them before anything changes.
//!
//! **How Redis does it**: cluster.c, because a cluster moves its keys in this way.

pub mod migrate;

use super::args::{Cursor, integer};
use super::{Command, Flag, Keys, NO_KEY, ONE_KEY, Run, command};
use crate::error::Error;
use crate::rdb;
use crate::resp::{Args, Digits, Reply};
use crate::store::{View, ViewMut};
use crate::types::Entry;

/// One key, or those behind a word.
const THIRD: Keys = Keys { first: 3, last: 3, step: 1, ..NO_KEY };

#[rustfmt::skip]
pub const COMMANDS: &[Command] = &[
    command("dump",               2, Run::Read(dump),     ONE_KEY, "2.6.0", "key",                                                                                    "Return a serialized version of the value stored at the specified key.").uses("RO access"),
    command("migrate",           -6, Run::Migrate,        THIRD,   "2.6.0", "host port key|\"\" destination-db timeout [COPY] [REPLACE] [[AUTH password]|[AUTH2 username password]] [KEYS key [key ...]]", "Atomically transfer a key from a Redis instance to another one.").uses_by("RW access delete, ?KEYS RW access delete incomplete", migrate::keys),
    command("restore",           -4, Run::Write(restore), ONE_KEY, "2.6.0", "key ttl serialized-value [REPLACE] [ABSTTL] [IDLETIME seconds] [FREQ frequency]", "Create a key using the provided serialized value, previously obtained using DUMP.").with(&[Flag::DenyOom]).uses("OW update"),
];

/// In Redis's documentation it is one of the server's. Nodes of a cluster send it instead of RESTORE, if they run MIGRATE.
#[rustfmt::skip]
pub const OF_CLUSTERS: &[Command] = &[
    command("restore-asking", -4, Run::Write(restore), ONE_KEY, "3.0.0", "key ttl serialized-value [REPLACE] [ABSTTL] [IDLETIME seconds] [FREQ frequency]", "An internal command for migrating keys in a cluster").with(&[Flag::DenyOom]).uses("OW update"),
];

fn dump(view: &View, args: &Args, reply: &mut Reply) -> Result<(), Error> {
    let Some(entry) = view.entry(args.key(1)) else {
        reply.nil();
        return Ok(());
    };
    reply.bulk(&payload(view, entry));
    Ok(())
}

fn payload(view: &View, entry: Entry) -> Vec<u8> {
    let (packs, list) = (view.limits.packs, view.limits.list);
    let how = rdb::How { packs, checks: true, list, is_base: false, tells: None };
    // Nothing fails that is written to memory.
    rdb::dump(entry.value(), how).unwrap_or_default()
}

/// How many bytes the value has in a snapshot: without its form in front, and the version and the CRC behind.
pub fn length(view: &View, entry: Entry) -> usize {
    payload(view, entry).len() - 1 - rdb::BEHIND
}

struct Options {
    replace: bool,
    /// Whether the time to live is a moment, and no duration.
    is_moment: bool,
    /// In seconds.
    idle_time: Option<i64>,
    frequency: Option<u8>,
}

fn restore(view: &mut ViewMut, args: &Args, reply: &mut Reply) -> Result<(), Error> {
    let options = options(args)?;
    let key = args.key(1);
    if !options.replace && view.peek(key).is_some() {
        return Err(Error::Fixed("BUSYKEY Target key name already exists."));
    }
    let ttl = integer(&args[2])?;
    if ttl < 0 {
        return Err(Error::text("ERR Invalid TTL value, must be >= 0"));
    }
    let mut entry = rdb::restore(&args[3], &key, view.limits)?;
    let deadline = match (ttl, options.is_moment) {
        (0, _) => None,
        (ttl, true) => Some(ttl),
        (ttl, false) => Some(ttl.wrapping_add(view.time.now as i64)),
    };
    if deadline.is_some_and(|deadline| view.time.has_come(deadline)) {
        if view.delete(key) {
            view.propagate([b"DEL", &key]);
        }
        return reply.ok();
    }
    entry.edit().set_deadline(deadline.map(|deadline| deadline as u64));
    view.insert(key, "restore", entry);
    view.set_usage(key, options.idle_time, options.frequency);
    if let Some(deadline) = deadline.filter(|_| !options.is_moment) {
        let digits = Digits::new(deadline);
        let mut words: Vec<&[u8]> = args.iter().collect();
        words[2] = digits.as_bytes();
        words.push(b"ABSTTL");
        view.propagate_args(words.into_iter());
    }
    reply.ok()
}

/// Of IDLETIME and FREQ the one has an effect that fits `maxmemory-policy`.
fn options(args: &Args) -> Result<Options, Error> {
    let mut options =
        Options { replace: false, is_moment: false, idle_time: None, frequency: None };
    let mut cursor = Cursor::at(args, 4);
    while let Some(option) = cursor.option() {
        match option.as_slice() {
            b"REPLACE" => options.replace = true,
            b"ABSTTL" => options.is_moment = true,
            b"IDLETIME" if options.frequency.is_none() => {
                let idle_time = integer(cursor.operand()?)?;
                if idle_time < 0 {
                    return Err(Error::text("ERR Invalid IDLETIME value, must be >= 0"));
                }
                options.idle_time = Some(idle_time);
            }
            b"FREQ" if options.idle_time.is_none() => {
                let frequency = u8::try_from(integer(cursor.operand()?)?);
                options.frequency =
                    Some(frequency.map_err(|_| {
                        Error::text("ERR Invalid FREQ value, must be >= 0 and <= 255")
                    })?);
            }
            _ => return Err(Error::Syntax),
        }
    }
    Ok(options)
}
