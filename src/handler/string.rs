//! Strings: GET, SET, and what else can be done to a run of bytes.
//!
//! A string may hold anything, and commands disagree about what that is. To GET it is bytes, to
//! INCR the digits of a 64-bit integer, to INCRBYFLOAT a number with a fraction. The type does not
//! decide, the bytes do, at the time of the command:
//!
//! ```text
//! SET k 41     stored as a number of 8 bytes, because it looks like one     (types/string.rs)
//! INCR k       42, in place
//! APPEND k !   "42!", bytes from here on
//! INCR k       ERR value is not an integer or out of range
//! ```
//!
//! **What is logged.** SET and its relatives often log something else than they were sent. A time to live
//! that is relative (`EX 10`) becomes the moment that it means (`PXAT …`). Otherwise the key would get ten
//! fresh seconds with every restart.
//!
//! **How Redis does it**: t_string.c. It rewrites the arguments of the command after it has run. Reference
//! counts share a value between arguments and keyspace, as ours do for a large one.

use crate::error::Error;
use crate::handler::args::{Cursor, integer};
use crate::handler::expiry::{self, Clock};
use crate::handler::{ALL_KEYS, Command, EVERY_OTHER, Flag, ONE_KEY, Run, Used, command};
use crate::key::Key;
use crate::resp::{Args, Digits, Reply};
use crate::store::{Ttl, View, ViewMut};
use crate::types::float::Float;
use crate::types::{Entry, Str};

#[rustfmt::skip]
pub const COMMANDS: &[Command] = &[
    command("append",       3, Run::Write(append),      ONE_KEY,     "2.0.0", "key value", "Append a value to a key").uses("RW insert").with(&[Flag::DenyOom]),
    command("decr",         2, Run::Write(decr),        ONE_KEY,     "1.0.0", "key", "Decrement the integer value of a key by one").uses("RW access update").with(&[Flag::DenyOom, Flag::Quick]),
    command("decrby",       3, Run::Write(decrby),      ONE_KEY,     "1.0.0", "key decrement", "Decrement the integer value of a key by the given number").uses("RW access update").with(&[Flag::DenyOom, Flag::Quick]),
    command("get",          2, Run::Read(get),          ONE_KEY,     "1.0.0", "key", "Get the value of a key").with(&[Flag::Quick]),
    command("getdel",       2, Run::Write(getdel),      ONE_KEY,     "6.2.0", "key", "Get the value of a key and delete the key").uses("RW access delete"),
    command("getex",       -2, Run::Write(getex),       ONE_KEY,     "6.2.0", "key [EX seconds|PX milliseconds|EXAT unix-time-seconds|PXAT unix-time-milliseconds|PERSIST]", "Get the value of a key and optionally set its expiration").uses("RW access update"),
    command("getrange",     4, Run::Read(getrange),     ONE_KEY,     "2.4.0", "key start end", "Get a substring of the string stored at a key"),
    command("getset",       3, Run::Write(getset),      ONE_KEY,     "1.0.0", "key value", "Set the string value of a key and return its old value").uses("RW access update").with(&[Flag::DenyOom]),
    command("incr",         2, Run::Write(incr),        ONE_KEY,     "1.0.0", "key", "Increment the integer value of a key by one").uses("RW access update").with(&[Flag::DenyOom, Flag::Quick]),
    command("incrby",       3, Run::Write(incrby),      ONE_KEY,     "1.0.0", "key increment", "Increment the integer value of a key by the given amount").uses("RW access update").with(&[Flag::DenyOom, Flag::Quick]),
    command("incrbyfloat",  3, Run::Write(incrbyfloat), ONE_KEY,     "2.6.0", "key increment", "Increment the float value of a key by the given amount").uses("RW access update").with(&[Flag::DenyOom]),
    command("mget",        -2, Run::Read(mget),         ALL_KEYS,    "1.0.0", "key [key ...]", "Get the values of all the given keys"),
    command("mset",        -3, Run::Write(mset),        EVERY_OTHER, "1.0.1", "key value [key value ...]", "Set multiple keys to multiple values").uses("OW update").with(&[Flag::DenyOom]),
    command("msetnx",      -3, Run::Write(msetnx),      EVERY_OTHER, "1.0.1", "key value [key value ...]", "Set multiple keys to multiple values, only if none of the keys exist").uses("OW insert").with(&[Flag::DenyOom]),
    command("psetex",       4, Run::Write(psetex),      ONE_KEY,     "2.6.0", "key milliseconds value", "Set the value and expiration in milliseconds of a key").uses("OW update").with(&[Flag::DenyOom]),
    command("set",         -3, Run::Write(set),         ONE_KEY,     "1.0.0", "key value [NX|XX] [GET] [EX seconds|PX milliseconds|EXAT unix-time-seconds|PXAT unix-time-milliseconds|KEEPTTL]", "Set the string value of a key").with(&[Flag::DenyOom, Flag::Quick]).uses_by("RW access update variable_flags", set_uses),
    command("setex",        4, Run::Write(setex),       ONE_KEY,     "2.0.0", "key seconds value", "Set the value and expiration of a key").uses("OW update").with(&[Flag::DenyOom]),
    command("setnx",        3, Run::Write(setnx),       ONE_KEY,     "1.0.0", "key value", "Set the value of a key, only if the key does not exist").uses("OW insert").with(&[Flag::DenyOom]),
    command("setrange",     4, Run::Write(setrange),    ONE_KEY,     "2.2.0", "key offset value", "Overwrite part of a string at key starting at the specified offset").uses("RW update").with(&[Flag::DenyOom]),
    command("strlen",       2, Run::Read(strlen),       ONE_KEY,     "2.2.0", "key", "Get the length of the value stored in a key").with(&[Flag::Quick]).uses("RO"),
    command("substr",       4, Run::Read(getrange),     ONE_KEY,     "1.0.0", "key start end", "Get a substring of the string stored at a key"),
];

// Looking.

fn get(view: &View, args: &Args, reply: &mut Reply) -> Result<(), Error> {
    reply_with(view.get::<Str>(args.key(1))?, reply);
    Ok(())
}

fn mget(view: &View, args: &Args, reply: &mut Reply) -> Result<(), Error> {
    let keys = args.keys(1);
    reply.array(keys.len());
    reply.each(keys, |reply, key| {
        // A hash is nil here and not an error: the other keys want their answers.
        let string = view.entry(key).and_then(Entry::read::<Str>);
        reply_with(string, reply);
    });
    Ok(())
}

fn strlen(view: &View, args: &Args, reply: &mut Reply) -> Result<(), Error> {
    let string = view.get::<Str>(args.key(1))?;
    reply.count(string.map_or(0, |string| string.len()));
    Ok(())
}

fn getrange(view: &View, args: &Args, reply: &mut Reply) -> Result<(), Error> {
    let (start, end) = (integer(&args[2])?, integer(&args[3])?);
    match view.get::<Str>(args.key(1))? {
        Some(string) => reply.bulk(range(&string, start, end)),
        None => reply.bulk(b""),
    }
    Ok(())
}

/// The bytes from `start` to `end`, both included; negative ones count from the end of the string.
fn range(string: &[u8], start: i64, end: i64) -> &[u8] {
    // Both far before the beginning would otherwise become 0 and 0, the first byte.
    if start < 0 && end < 0 && start > end {
        return b"";
    }
    let length = string.len() as i64;
    let from_front = |index: i64| match index {
        0.. => index,
        _ => (length + index).max(0),
    };
    let start = from_front(start);
    let end = from_front(end).min(length - 1);
    if start > end { b"" } else { &string[start as usize..=end as usize] }
}

/// SET reads the old value if it is asked for it.
fn set_uses(args: &Args) -> Vec<Used> {
    let gets = args.iter().skip(3).any(|option| option.eq_ignore_ascii_case(b"get"));
    vec![(1, if gets { "RW access update" } else { "OW update" })]
}

// Storing.

fn set(view: &mut ViewMut, args: &Args, reply: &mut Reply) -> Result<(), Error> {
    // Most have no options. (To look for some would take a fiftieth of the instructions.)
    if args.len() == 3 {
        view.set_string(args.key(1), args.arg(2), Ttl::Gone);
        return reply.ok();
    }
    let SetOptions { if_exists, get, lifetime } = SetOptions::parse(args)?;
    let deadline = lifetime.deadline(view.time.now, "set")?;
    if get || if_exists.is_some() {
        let exists = if get {
            reply_with_value_of(view, args.key(1), reply)?
        } else {
            view.peek(args.key(1)).is_some()
        };
        if if_exists.is_some_and(|wanted| wanted != exists) {
            if !get {
                reply.nil();
            }
            return Ok(());
        }
    }
    match deadline {
        Some(deadline) => store_until(view, args, 2, deadline),
        None => {
            let ttl = if lifetime == Lifetime::Lasting { Ttl::Kept } else { Ttl::Gone };
            view.set_string(args.key(1), args.arg(2), ttl);
            if get {
                view.propagate_args(without_get(args).into_iter());
            }
        }
    }
    if get { Ok(()) } else { reply.ok() }
}

/// The options of SET.
struct SetOptions<'a> {
    /// `XX` is true, `NX` is false.
    if_exists: Option<bool>,
    get: bool,
    lifetime: Lifetime<'a>,
}

impl<'a> SetOptions<'a> {
    fn parse(args: &'a Args) -> Result<SetOptions<'a>, Error> {
        let mut options = SetOptions { if_exists: None, get: false, lifetime: Lifetime::Unsaid };
        let mut cursor = Cursor::at(args, 3);
        while let Some(option) = cursor.option() {
            match &option[..] {
                b"NX" if options.if_exists != Some(true) => options.if_exists = Some(false),
                b"XX" if options.if_exists != Some(false) => options.if_exists = Some(true),
                b"GET" => options.get = true,
                option => options.lifetime.read(option, b"KEEPTTL", &mut cursor)?,
            }
        }
        Ok(options)
    }
}

/// The words of a SET without its option GET: a log has nobody to answer.
fn without_get(args: &Args) -> Vec<&[u8]> {
    let words = args.iter().enumerate();
    let kept = words.filter(|(i, word)| *i < 3 || !word.eq_ignore_ascii_case(b"GET"));
    kept.map(|(_, word)| word).collect()
}

fn setex(view: &mut ViewMut, args: &Args, reply: &mut Reply) -> Result<(), Error> {
    let deadline = deadline(Clock::Seconds, &args[2], view.time.now, "setex")?;
    store_until(view, args, 3, deadline);
    reply.ok()
}

fn psetex(view: &mut ViewMut, args: &Args, reply: &mut Reply) -> Result<(), Error> {
    let deadline = deadline(Clock::Milliseconds, &args[2], view.time.now, "psetex")?;
    store_until(view, args, 3, deadline);
    reply.ok()
}

fn setnx(view: &mut ViewMut, args: &Args, reply: &mut Reply) -> Result<(), Error> {
    let absent = view.peek(args.key(1)).is_none();
    if absent {
        view.set_string(args.key(1), args.arg(2), Ttl::Gone);
    }
    reply.integer(absent.into());
    Ok(())
}

fn getset(view: &mut ViewMut, args: &Args, reply: &mut Reply) -> Result<(), Error> {
    reply_with_value_of(view, args.key(1), reply)?;
    view.propagate([b"SET", &args[1], &args[2]]);
    view.set_string(args.key(1), args.arg(2), Ttl::Gone);
    Ok(())
}

fn mset(view: &mut ViewMut, args: &Args, reply: &mut Reply) -> Result<(), Error> {
    let pairs = args.pairs().ok_or(Error::WrongArity("mset"))?;
    pairs.for_each(|(key, value)| view.set_string(key, value, Ttl::Gone));
    reply.ok()
}

fn msetnx(view: &mut ViewMut, args: &Args, reply: &mut Reply) -> Result<(), Error> {
    let pairs = args.pairs().ok_or(Error::WrongArity("msetnx"))?;
    let pairs: Vec<_> = pairs.collect();
    let absent = pairs.iter().all(|(key, _)| view.peek(*key).is_none());
    if absent {
        for (key, value) in pairs {
            view.set_string(key, value, Ttl::Gone);
        }
    }
    reply.integer(absent.into());
    Ok(())
}

/// The same with a deadline, logged as a SET that names the moment.
fn store_until(view: &mut ViewMut, args: &Args, at: usize, deadline: u64) {
    view.set_string(args.key(1), args.arg(at), Ttl::Until(deadline));
    let digits = Digits::new(deadline as i64);
    view.propagate([b"SET", &args[1], &args[at], b"PXAT", digits.as_bytes()]);
}

/// Answers with the string that the key holds, or nil; returns whether there is one.
fn reply_with_value_of(view: &mut ViewMut, key: Key, reply: &mut Reply) -> Result<bool, Error> {
    let string = view.get::<Str>(key)?;
    let exists = string.is_some();
    reply_with(string, reply);
    Ok(exists)
}

/// Answers with a string, or nil. A large one is shared with the reply, and not copied. (Inlined,
/// the look at which it is costs a GET one instruction in a hundred; as a call, three.)
#[inline(always)]
pub fn reply_with(string: Option<Str>, reply: &mut Reply) {
    match &string {
        Some(Str::Shared(value)) => reply.shared_bulk(value),
        string => reply.bulk_or_nil(string.as_deref()),
    }
}

// Looking, and doing something to the key.

fn getdel(view: &mut ViewMut, args: &Args, reply: &mut Reply) -> Result<(), Error> {
    if reply_with_value_of(view, args.key(1), reply)? {
        view.delete(args.key(1));
        view.propagate([b"DEL", &args[1]]);
    }
    Ok(())
}

fn getex(view: &mut ViewMut, args: &Args, reply: &mut Reply) -> Result<(), Error> {
    let key = args.key(1);
    let mut lifetime = Lifetime::Unsaid;
    let mut cursor = Cursor::at(args, 2);
    while let Some(option) = cursor.option() {
        lifetime.read(&option, b"PERSIST", &mut cursor)?;
    }
    if !reply_with_value_of(view, key, reply)? {
        return Ok(());
    }
    if let Some(deadline) = lifetime.deadline(view.time.now, "getex")? {
        if expiry::expire_at(view, key, deadline as i64) {
            view.propagate([b"PEXPIREAT", &key, Digits::new(deadline as i64).as_bytes()]);
        }
    } else if lifetime == Lifetime::Lasting && expiry::end_deadline(view, key) {
        view.propagate([b"PERSIST", &key]);
    }
    Ok(())
}

/// How long a key shall live, as the options of SET and GETEX say it.
#[derive(Clone, Copy, PartialEq)]
enum Lifetime<'a> {
    Unsaid,
    /// SET's `KEEPTTL`, GETEX's `PERSIST`.
    Lasting,
    /// Until the time in this word, on this clock.
    Until(Clock, &'a [u8]),
}

impl<'a> Lifetime<'a> {
    /// Reads an option and what follows it. Two that say different kinds of things are a syntax
    /// error; the same option twice is none, and the second counts.
    fn read(&mut self, name: &[u8], lasting: &[u8], cursor: &mut Cursor<'a>) -> Result<(), Error> {
        let clock = match name {
            b"EX" => Clock::Seconds,
            b"PX" => Clock::Milliseconds,
            b"EXAT" => Clock::UnixSeconds,
            b"PXAT" => Clock::UnixMilliseconds,
            _ if name == lasting && matches!(self, Lifetime::Unsaid | Lifetime::Lasting) => {
                *self = Lifetime::Lasting;
                return Ok(());
            }
            _ => return Err(Error::Syntax),
        };
        match *self {
            Lifetime::Unsaid => {}
            Lifetime::Until(earlier, _) if earlier == clock => {}
            _ => return Err(Error::Syntax),
        }
        *self = Lifetime::Until(clock, cursor.operand()?);
        Ok(())
    }

    /// The deadline that the options ask for, if they do.
    fn deadline(self, now: u64, command: &'static str) -> Result<Option<u64>, Error> {
        match self {
            Lifetime::Until(clock, time) => deadline(clock, time, now, command).map(Some),
            _ => Ok(None),
        }
    }
}

/// When it is that time on this clock. Zero and less are refused.
fn deadline(clock: Clock, time: &[u8], now: u64, command: &'static str) -> Result<u64, Error> {
    match integer(time)? {
        time @ 1.. => Ok(clock.deadline(time, now, command)? as u64),
        _ => Err(Error::InvalidExpire(command)),
    }
}

// Counting.

fn incr(view: &mut ViewMut, args: &Args, reply: &mut Reply) -> Result<(), Error> {
    add(view, args.key(1), 1, reply)
}

fn decr(view: &mut ViewMut, args: &Args, reply: &mut Reply) -> Result<(), Error> {
    add(view, args.key(1), -1, reply)
}

fn incrby(view: &mut ViewMut, args: &Args, reply: &mut Reply) -> Result<(), Error> {
    add(view, args.key(1), integer(&args[2])?, reply)
}

fn decrby(view: &mut ViewMut, args: &Args, reply: &mut Reply) -> Result<(), Error> {
    let change = integer(&args[2])?.checked_neg();
    add(view, args.key(1), change.ok_or(Error::DecrementOverflow)?, reply)
}

fn add(view: &mut ViewMut, key: Key, change: i64, reply: &mut Reply) -> Result<(), Error> {
    let sum = view.edit::<Str, _>(key, "incrby", |string| {
        let number = string.integer().ok_or(Error::NotInteger)?;
        let sum = number.checked_add(change).ok_or(Error::Overflow)?;
        string.set_integer(sum);
        Ok(sum)
    })?;
    reply.integer(sum);
    Ok(())
}

fn incrbyfloat(view: &mut ViewMut, args: &Args, reply: &mut Reply) -> Result<(), Error> {
    let key = args.key(1);
    let sum = view.edit::<Str, _>(key, "incrbyfloat", |string| {
        let number = string.float().ok_or(Error::NotFloat)?;
        let sum = number.add(Float::parse(&args[2]).ok_or(Error::NotFloat)?);
        if !sum.is_finite() {
            return Err(Error::NanOrInfinity);
        }
        let sum = sum.print();
        string.set_bytes(&sum);
        Ok(sum)
    })?;
    // The sum and not the summand: whoever replays this need not round as we do.
    view.propagate([b"SET", &key, &sum, b"KEEPTTL"]);
    reply.bulk(&sum);
    Ok(())
}

// Editing.

fn append(view: &mut ViewMut, args: &Args, reply: &mut Reply) -> Result<(), Error> {
    let length = view.edit::<Str, _>(args.key(1), "append", |string| string.append(args.arg(2)))?;
    reply.count(length);
    Ok(())
}

fn setrange(view: &mut ViewMut, args: &Args, reply: &mut Reply) -> Result<(), Error> {
    let (offset, value) = (integer(&args[2])?, &args[3]);
    let offset = usize::try_from(offset).map_err(|_| Error::OffsetOutOfRange)?;
    let length = view.edit::<Str, _>(args.key(1), "setrange", |string| match value.is_empty() {
        // Nothing to write: no zeros are added, no key is made.
        true => Ok(string.len()),
        false => string.patch(offset, value),
    })?;
    reply.count(length);
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_range_is_cut_to_the_string() {
        for (start, end, expected) in [
            (0, 1, "ab"),
            (-2, -1, "bc"),
            (1, 99, "bc"),
            (-99, 0, "a"),
            (-99, -98, "a"),
            (-98, -99, ""),
            (3, 3, ""),
            (i64::MIN, i64::MAX, "abc"),
        ] {
            assert_eq!(range(b"abc", start, end), expected.as_bytes());
        }
        assert_eq!(range(b"", i64::MIN, i64::MAX), b"");
    }

    #[test]
    fn a_lifetime_is_said_in_one_way() {
        let deadline = |words: &[&str]| {
            let mut args = Args::default();
            words.iter().for_each(|word| args.push(word.as_bytes()));
            let mut cursor = Cursor::at(&args, 0);
            let mut lifetime = Lifetime::Unsaid;
            while let Some(option) = cursor.option() {
                lifetime.read(&option, b"KEEPTTL", &mut cursor)?;
            }
            lifetime.deadline(7, "set")
        };
        assert_eq!(deadline(&[]), Ok(None));
        assert_eq!(deadline(&["KEEPTTL", "keepttl"]), Ok(None));
        assert_eq!(deadline(&["ex", "2", "Ex", "3"]), Ok(Some(3007)));
        assert_eq!(deadline(&["PXAT", "2"]), Ok(Some(2)));
        let invalid = Err(Error::InvalidExpire("set"));
        assert_eq!(deadline(&["PX", "0"]), invalid);
        assert_eq!(deadline(&["PX", "9223372036854775807"]), invalid);
        assert_eq!(deadline(&["EX", "2", "PX", "2"]), Err(Error::Syntax));
        assert_eq!(deadline(&["KEEPTTL", "PX", "2"]), Err(Error::Syntax));
        assert_eq!(deadline(&["PX", "2", "KEEPTTL"]), Err(Error::Syntax));
        assert_eq!(deadline(&["PERSIST"]), Err(Error::Syntax));
        assert_eq!(deadline(&["PX"]), Err(Error::Syntax));
    }
}
