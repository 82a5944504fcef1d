//! Keys, whatever they hold, and whole databases.
//!
//! Few of these commands look at a value. They move *entries*, which are key, value and deadline in one
//! piece, from one name to another:
//!
//! ```text
//! RENAME a b     db 0: a ──▶ b      the entry leaves, and whatever b was goes
//! MOVE a 1       db 0: a ──▶ db 1: a, if there is none
//! COPY a b DB 1  db 0: a ──▶ db 1: b, if there is none; a stays
//! ```
//!
//! KEYS lists the keyspace at one time. SCAN lists a few keys, and returns a cursor with which the next call
//! goes on. Its work follows COUNT, not the size of the keyspace, so a call may find nothing. Any key that is
//! there from the first call to the last is returned at least once, also while the table grows (table.rs).
//!
//! **How Redis does it**: db.c and object.c. There DEL frees a value on the spot, and UNLINK and ASYNC hand it
//! to another thread. Here another thread frees every large value and every database, so DEL and UNLINK are
//! the same, and ASYNC and SYNC are only checked.

use super::args::{self, Cursor};
use super::scan;
use super::{
    ALL_KEYS, Command, Flag, Left, NO_KEY, ONE_KEY, Rest, Run, SUBCOMMAND_KEY, TWO_KEYS, TimeSlice,
    command,
};
use crate::error::Error;
use crate::glob;
use crate::key::Key;
use crate::resp::{Args, Digits, Reply, parse_integer};
use crate::store::{View, ViewMut};
use crate::types::{Entry, Remember, Str, Value};
use std::cell::Cell;

#[rustfmt::skip]
pub const COMMANDS: &[Command] = &[
    command("copy",            -3, Run::Write(copy),           TWO_KEYS,       "6.2.0", "source destination [DB destination-db] [REPLACE]", "Copy a key").uses("RO access, OW update").with(&[Flag::DenyOom]),
    command("del",             -2, Run::Write(del),            ALL_KEYS,       "1.0.0", "key [key ...]",                                    "Delete a key").uses("RM delete"),
    command("exists",          -2, Run::Read(exists),          ALL_KEYS,       "1.0.0", "key [key ...]",                                    "Determine if a key exists").uses("RO"),
    command("keys",             2, Run::Long(keys),            NO_KEY,         "1.0.0", "pattern",                                          "Find all keys matching the given pattern"),
    command("move",             3, Run::Write(r#move),         ONE_KEY,        "1.0.0", "key db",                                           "Move a key to another database").uses("RW access update"),
    command("object",          -2, Run::Container(None),       NO_KEY,         "2.2.3", "",                                                 "A container for object introspection commands"),
    command("object|encoding",  3, Run::Read(object_encoding), SUBCOMMAND_KEY, "2.2.3", "key",                                              "Inspect the internal encoding of a Redis object").uses("RO").help(" <key>\n    Return the kind of internal representation used in order to store the value\n    associated with a <key>."),
    command("object|freq",      3, Run::Read(object_freq),     SUBCOMMAND_KEY, "4.0.0", "key",                                              "Get the logarithmic access frequency counter of a Redis object").uses("RO").help(" <key>\n    Return the access frequency index of the <key>. The returned integer is\n    proportional to the logarithm of the recent access frequency of the key."),
    command("object|idletime",  3, Run::Read(object_idletime), SUBCOMMAND_KEY, "2.2.3", "key",                                              "Get the time since a Redis object was last accessed").uses("RO").help(" <key>\n    Return the idle time of the <key>, that is the approximated number of\n    seconds elapsed since the last access to the key."),
    command("object|help",      2, Run::Client(super::help),   NO_KEY,         "6.2.0", "",                                                 "Show helpful text about the different subcommands"),
    command("object|refcount",  3, Run::Read(object_refcount), SUBCOMMAND_KEY, "2.2.3", "key",                                              "Get the number of references to the value of the key").uses("RO").help(" <key>\n    Return the number of references of the value associated with the specified\n    <key>."),
    command("randomkey",        1, Run::Read(randomkey),       NO_KEY,         "1.0.0", "",                                                 "Return a random key from the keyspace"),
    command("rename",           3, Run::Write(rename),         TWO_KEYS,       "1.0.0", "key newkey",                                       "Rename a key").uses("RW access delete, OW update"),
    command("renamenx",         3, Run::Write(renamenx),       TWO_KEYS,       "1.0.0", "key newkey",                                       "Rename a key, only if the new key does not exist").uses("RW access delete, OW insert"),
    command("scan",            -2, Run::Long(scan),            NO_KEY,         "2.8.0", "cursor [MATCH pattern] [COUNT count] [TYPE type]", "Incrementally iterate the keys space"),
    command("touch",           -2, Run::Read(touch),           ALL_KEYS,       "3.2.1", "key [key ...]",                                    "Alters the last access time of a key(s). Returns the number of existing keys specified.").uses("RO"),
    command("type",             2, Run::Read(r#type),          ONE_KEY,        "1.0.0", "key",                                              "Determine the type stored at key").with(&[Flag::Quick]).uses("RO"),
    command("unlink",          -2, Run::Write(del),            ALL_KEYS,       "4.0.0", "key [key ...]",                                    "Delete a key asynchronously in another thread. Otherwise it is just as DEL, but non blocking.").uses("RM delete"),
];

/// About whole databases. In Redis too their functions are in db.c, and its documentation counts them
/// among the server's.
#[rustfmt::skip]
pub const DATABASES: &[Command] = &[
    command("dbsize",    1, Run::Read(dbsize),    NO_KEY, "1.0.0", "",               "Return the number of keys in the selected database"),
    command("flushall", -1, Run::Write(flushall), NO_KEY, "1.0.0", "[ASYNC|SYNC]",   "Remove all keys from all databases"),
    command("flushdb",  -1, Run::Write(flushdb),  NO_KEY, "1.0.0", "[ASYNC|SYNC]",   "Remove all keys from the current database"),
    command("swapdb",    3, Run::Write(swapdb),   NO_KEY, "4.0.0", "index1 index2",  "Swaps two Redis databases"),
];

fn copy(view: &mut ViewMut, args: &Args, reply: &mut Reply) -> Result<(), Error> {
    let (source, destination) = (args.key(1), args.key(2));
    let mut words = Cursor::at(args, 3);
    let (mut db, mut replace) = (view.db, false);
    while let Some(option) = words.option() {
        match option.as_slice() {
            b"REPLACE" => replace = true,
            b"DB" => db = args::database(words.operand()?, view.look().databases())?,
            _ => return Err(Error::Syntax),
        }
    }
    if db == view.db && *source == *destination {
        return Err(Error::SameObject);
    }
    let exists = view.peek(source).is_some();
    view.report.count(view.db, &source, exists);
    let copies = exists && (is_free(view, db, destination) || replace);
    if copies && let Some(entry) = view.peek(source) {
        let copy = entry.copy_to(&destination);
        view.in_db(db, |view| view.insert(destination, "copy_to", copy));
    }
    reply.integer(copies.into());
    Ok(())
}

fn r#move(view: &mut ViewMut, args: &Args, reply: &mut Reply) -> Result<(), Error> {
    let key = args.key(1);
    let db = args::database(&args[2], view.look().databases())?;
    if db == view.db {
        return Err(Error::SameObject);
    }
    let moves = view.peek(key).is_some() && is_free(view, db, key);
    if moves {
        view.rename(key, db, key, ["move_from", "move_to"]);
    }
    reply.integer(moves.into());
    Ok(())
}

const RENAMED: [&str; 2] = ["rename_from", "rename_to"];

fn rename(view: &mut ViewMut, args: &Args, reply: &mut Reply) -> Result<(), Error> {
    let (key, newkey) = (args.key(1), args.key(2));
    view.peek(key).ok_or(Error::NoSuchKey)?;
    if *key != *newkey {
        view.rename(key, view.db, newkey, RENAMED);
    }
    reply.ok()
}

fn renamenx(view: &mut ViewMut, args: &Args, reply: &mut Reply) -> Result<(), Error> {
    let (key, newkey) = (args.key(1), args.key(2));
    view.peek(key).ok_or(Error::NoSuchKey)?;
    let renames = is_free(view, view.db, newkey);
    if renames {
        view.rename(key, view.db, newkey, RENAMED);
    }
    reply.integer(renames.into());
    Ok(())
}

/// Whether a database has no such key.
fn is_free(view: &mut ViewMut, db: usize, key: Key) -> bool {
    view.in_db(db, |view| view.peek(key).is_none())
}

pub fn del(view: &mut ViewMut, args: &Args, reply: &mut Reply) -> Result<(), Error> {
    let deleted = args.keys(1).filter(|key| view.delete(*key));
    reply.count(deleted.count());
    Ok(())
}

/// A key that is named twice counts twice.
fn exists(view: &View, args: &Args, reply: &mut Reply) -> Result<(), Error> {
    let found = args.keys(1).filter(|key| view.entry_unused(*key).is_some());
    reply.count(found.count());
    Ok(())
}

/// As EXISTS, but it is a use of each key.
fn touch(view: &View, args: &Args, reply: &mut Reply) -> Result<(), Error> {
    let found = args.keys(1).filter(|key| view.touch(*key));
    reply.count(found.count());
    Ok(())
}

fn r#type(view: &View, args: &Args, reply: &mut Reply) -> Result<(), Error> {
    reply.status(view.entry_unused(args.key(1)).map_or("none", |entry| entry.value().type_name()));
    Ok(())
}

fn randomkey(view: &View, _: &Args, reply: &mut Reply) -> Result<(), Error> {
    reply.bulk_or_nil(view.random_key());
    Ok(())
}

/// Up to this many keys are listed at once, because that takes no time.
const FEW: usize = 1_000;

/// One look, however long it takes: a key that is renamed meanwhile is there once.
fn keys<'a>(view: &View, args: &'a Args, slice: &TimeSlice, reply: &mut Reply) -> Left<'a> {
    let pattern = &args[1];
    let list = move |view: &View, _: &TimeSlice, reply: &mut Reply| {
        // To the matcher a star alone does not fit the empty key.
        let fits = |key: &&[u8]| pattern == b"*" || glob::matches(pattern, key, false);
        let found: Vec<&[u8]> = view.living().map(Entry::key).filter(fits).collect();
        reply.bulks(&found);
        true
    };
    if view.len() > FEW {
        return Ok(Some(Rest::Look(Box::new(list))));
    }
    list(view, slice, reply);
    Ok(None)
}

fn scan<'a>(view: &View, args: &'a Args, slice: &TimeSlice, reply: &mut Reply) -> Left<'a> {
    let cursor = scan::parse_cursor(&args[1])?;
    let options = scan::parse_options(&mut Cursor::at(args, 2), true)?;
    // A slot nearly always has several keys. In an emptied table, COUNT limits the slots too.
    let mut walk = scan::Walk::new(cursor, options.count, options.count, reply);
    let look = move |view: &View, slice: &TimeSlice, reply: &mut Reply| {
        let done = walk.go_on(slice, |cursor, seen| {
            let looked_at = Cell::new(0);
            let wanted = |key: &[u8]| {
                looked_at.set(looked_at.get() + 1);
                let fits = |pattern| glob::matches(pattern, key, false);
                options.pattern.is_none_or(fits)
            };
            let next = view.scan(cursor, options.type_name.is_some(), wanted, |entry| {
                let type_name = entry.value().type_name().as_bytes();
                let is_it = |name: &[u8]| name.eq_ignore_ascii_case(type_name);
                if options.type_name.is_none_or(is_it) {
                    seen.keep(entry.key());
                }
            });
            seen.looked_at += looked_at.get();
            next
        });
        if done {
            walk.reply(reply);
        }
        done
    };
    Ok(Rest::look(look, view, slice, reply))
}

fn object_encoding(view: &View, args: &Args, reply: &mut Reply) -> Result<(), Error> {
    let encoding =
        view.entry_silently(args.key(2)).map(|entry| entry.value().encoding().as_bytes());
    reply.bulk_or_nil(encoding);
    Ok(())
}

fn object_freq(view: &View, args: &Args, reply: &mut Reply) -> Result<(), Error> {
    match (view.entry_silently(args.key(2)), view.limits.remember) {
        (None, _) => reply.nil(),
        (Some(entry), Remember::Frequency(counting)) => {
            reply.integer(entry.usage().frequency(counting, view.time.now) as i64);
        }
        (Some(_), Remember::LastUse) => {
            return Err(Error::text(
                "ERR An LFU maxmemory policy is not selected, access frequency not tracked. Please note \
                 that when switching between policies at runtime LRU and LFU data will take some time to \
                 adjust.",
            ));
        }
    }
    Ok(())
}

fn object_idletime(view: &View, args: &Args, reply: &mut Reply) -> Result<(), Error> {
    match (view.entry_silently(args.key(2)), view.limits.remember) {
        (None, _) => reply.nil(),
        (Some(entry), Remember::LastUse) => {
            reply.integer((entry.usage().idle(view.time.now) / 1000) as i64);
        }
        (Some(_), Remember::Frequency(_)) => {
            return Err(Error::text(
                "ERR An LFU maxmemory policy is selected, idle time not tracked. Please note that when \
                 switching between policies at runtime LRU and LFU data will take some time to adjust.",
            ));
        }
    }
    Ok(())
}

/// Redis keeps one object for each number below 10,000, which all keys share, and answers `INT_MAX` for it.
/// (A COPY of such a number is not shared there until it changes. Here it answers the same.)
fn object_refcount(view: &View, args: &Args, reply: &mut Reply) -> Result<(), Error> {
    let is_shared = |digits: &Digits| matches!(parse_integer(digits.as_bytes()), Some(0..10_000));
    match view.entry_silently(args.key(2)).map(Entry::value) {
        None => reply.nil(),
        Some(Value::String(Str::Digits(digits))) if is_shared(&digits) => {
            reply.integer(i32::MAX.into());
        }
        Some(_) => reply.integer(1),
    }
    Ok(())
}

/// Expired keys that nobody has met yet are counted too, as in Redis.
fn dbsize(view: &View, _: &Args, reply: &mut Reply) -> Result<(), Error> {
    reply.count(view.len());
    Ok(())
}

fn flushall(view: &mut ViewMut, args: &Args, reply: &mut Reply) -> Result<(), Error> {
    check_flush(args)?;
    (0..view.look().databases()).for_each(|db| view.flush(db));
    // Redis logs a FLUSH even when there was nothing to remove.
    view.log_anyway();
    reply.ok()
}

fn flushdb(view: &mut ViewMut, args: &Args, reply: &mut Reply) -> Result<(), Error> {
    check_flush(args)?;
    view.flush(view.db);
    view.log_anyway();
    reply.ok()
}

fn check_flush(args: &Args) -> Result<(), Error> {
    let mut words = Cursor::new(args);
    match words.option().as_deref() {
        None | Some(b"SYNC" | b"ASYNC") if words.left() == 0 => Ok(()),
        _ => Err(Error::Syntax),
    }
}

fn swapdb(view: &mut ViewMut, args: &Args, reply: &mut Reply) -> Result<(), Error> {
    let a = args::index(&args[1]).map_err(|_| Error::FirstDbIndex)?;
    let b = args::index(&args[2]).map_err(|_| Error::SecondDbIndex)?;
    let count = view.look().databases();
    let (a, b) = (args::within(a, count)?, args::within(b, count)?);
    if a == b {
        // Logged, though nobody's watched key has changed.
        view.log_anyway();
    } else {
        view.swap(a, b);
    }
    reply.ok()
}
