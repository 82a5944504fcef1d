//! Deadlines of keys: EXPIRE and its variants, TTL and its variants, PERSIST.
//!
//! A client gives the time in four ways: seconds or milliseconds, from now or since 1970. The store knows
//! one, the *deadline*: milliseconds since 1970. It is the last millisecond in which the key exists.
//!
//! ```text
//! EXPIRE k 10      ─┐
//! PEXPIRE k 10000  ─┤ deadline()                         ┌─▶ the entry, and the index (store/expire.rs)
//! EXPIREAT k 17…   ─┼───────────▶ 1735689600000 ─▶ log ──┤
//! PEXPIREAT k 17…  ─┘                                    └─▶ PEXPIREAT k 1735689600000
//! ```
//!
//! The log gets the deadline too. If `EXPIRE k 10` were replayed an hour later, the key would get ten more
//! seconds at every restart.
//!
//! If the deadline has come already, the key is deleted at once and DEL is logged. In a replay time stands
//! still, so there a past deadline is simply set. The key has expired as soon as the server looks at a
//! clock. How expired keys are found and deleted is told in store/expire.rs.
//!
//! **How Redis does it**: expire.c, `expireGenericCommand` and `ttlGenericCommand`. Texts, limits and the
//! order of checks are the same: options before the number, the number before the key.

use super::{Command, Flag, ONE_KEY, Run, args, command};
use crate::error::Error;
use crate::key::Key;
use crate::resp::{Args, Digits, Reply};
use crate::store::{View, ViewMut};
use crate::types::Entry;

#[rustfmt::skip]
pub const COMMANDS: &[Command] = &[
    command("expire",      -3, Run::Write(expire),     ONE_KEY, "1.0.0", "key seconds [NX|XX|GT|LT]",                "Set a key's time to live in seconds").uses("RW update"),
    command("pexpire",     -3, Run::Write(pexpire),    ONE_KEY, "2.6.0", "key milliseconds [NX|XX|GT|LT]",           "Set a key's time to live in milliseconds").uses("RW update"),
    command("expireat",    -3, Run::Write(expireat),   ONE_KEY, "1.2.0", "key unix-time-seconds [NX|XX|GT|LT]",      "Set the expiration for a key as a UNIX timestamp").uses("RW update"),
    command("pexpireat",   -3, Run::Write(pexpireat),  ONE_KEY, "2.6.0", "key unix-time-milliseconds [NX|XX|GT|LT]", "Set the expiration for a key as a UNIX timestamp specified in milliseconds").uses("RW update"),
    command("persist",      2, Run::Write(persist),    ONE_KEY, "2.2.0", "key",                                      "Remove the expiration from a key").uses("RW update"),
    command("ttl",          2, Run::Read(ttl),         ONE_KEY, "1.0.0", "key",                                      "Get the time to live for a key in seconds").with(&[Flag::Quick]),
    command("pttl",         2, Run::Read(pttl),        ONE_KEY, "2.6.0", "key",                                      "Get the time to live for a key in milliseconds").with(&[Flag::Quick]),
    command("expiretime",   2, Run::Read(expiretime),  ONE_KEY, "7.0.0", "key",                                      "Get the expiration Unix timestamp for a key").with(&[Flag::Quick]),
    command("pexpiretime",  2, Run::Read(pexpiretime), ONE_KEY, "7.0.0", "key",                                      "Get the expiration Unix timestamp for a key in milliseconds").with(&[Flag::Quick]),
];

fn expire(view: &mut ViewMut, args: &Args, reply: &mut Reply) -> Result<(), Error> {
    give_deadline(view, args, reply, Clock::Seconds, "expire")
}

fn pexpire(view: &mut ViewMut, args: &Args, reply: &mut Reply) -> Result<(), Error> {
    give_deadline(view, args, reply, Clock::Milliseconds, "pexpire")
}

fn expireat(view: &mut ViewMut, args: &Args, reply: &mut Reply) -> Result<(), Error> {
    give_deadline(view, args, reply, Clock::UnixSeconds, "expireat")
}

fn pexpireat(view: &mut ViewMut, args: &Args, reply: &mut Reply) -> Result<(), Error> {
    give_deadline(view, args, reply, Clock::UnixMilliseconds, "pexpireat")
}

fn persist(view: &mut ViewMut, args: &Args, reply: &mut Reply) -> Result<(), Error> {
    reply.integer(end_deadline(view, args.key(1)).into());
    Ok(())
}

/// Removes a key's deadline. Returns whether there was one.
pub fn end_deadline(view: &mut ViewMut, key: Key) -> bool {
    let had_one = view.peek(key).and_then(|entry| entry.deadline()).is_some();
    if had_one {
        view.set_deadline(key, None);
    }
    had_one
}

fn ttl(view: &View, args: &Args, reply: &mut Reply) -> Result<(), Error> {
    let now = view.time.now;
    tell_deadline(view, args, reply, |at| in_seconds(at.saturating_sub(now)))
}

fn pttl(view: &View, args: &Args, reply: &mut Reply) -> Result<(), Error> {
    let now = view.time.now;
    tell_deadline(view, args, reply, |at| at.saturating_sub(now))
}

fn expiretime(view: &View, args: &Args, reply: &mut Reply) -> Result<(), Error> {
    tell_deadline(view, args, reply, in_seconds)
}

fn pexpiretime(view: &View, args: &Args, reply: &mut Reply) -> Result<(), Error> {
    tell_deadline(view, args, reply, |at| at)
}

/// What a number means that says when a key expires.
#[derive(Clone, Copy, PartialEq)]
pub enum Clock {
    Seconds,
    Milliseconds,
    UnixSeconds,
    UnixMilliseconds,
}

impl Clock {
    /// When it is this time on this clock. It is an error if 64 bits cannot hold that; the error names the
    /// command. A negative deadline is allowed here: EXPIRE accepts it, and SET must refuse it.
    pub fn deadline(self, time: i64, now: u64, name: &'static str) -> Result<i64, Error> {
        let (unit_ms, since) = match self {
            Clock::Seconds => (1_000, now),
            Clock::Milliseconds => (1, now),
            Clock::UnixSeconds => (1_000, 0),
            Clock::UnixMilliseconds => (1, 0),
        };
        let milliseconds = time.checked_mul(unit_ms);
        let deadline = milliseconds.and_then(|time| time.checked_add_unsigned(since));
        deadline.ok_or(Error::InvalidExpire(name))
    }
}

fn give_deadline(
    view: &mut ViewMut,
    args: &Args,
    reply: &mut Reply,
    clock: Clock,
    name: &'static str,
) -> Result<(), Error> {
    let conditions = Conditions::parse(args)?;
    let new = clock.deadline(args::integer(&args[2])?, view.time.now, name)?;
    let key = args.key(1);
    let old = view.peek(key).map(|entry| entry.deadline());
    let allowed = old.is_some_and(|old| conditions.allow(old, new));
    if allowed && expire_at(view, key, new) {
        propagate_pexpireat(view, args, new);
    }
    reply.integer(allowed.into());
    Ok(())
}

/// Gives a key this deadline, and returns true; or deletes it, because that has come.
pub fn expire_at(view: &mut ViewMut, key: Key, deadline: i64) -> bool {
    if view.time.has_come(deadline) {
        view.delete(key);
        view.propagate([b"DEL", &key]);
        return false;
    }
    // It is negative only in a replay of a log that is not ours. The key has expired either way.
    view.set_deadline(key, Some(deadline.max(0) as u64));
    true
}

/// Logs the outcome. As in Redis the record keeps the conditions, which hold again in the replay. A PEXPIREAT
/// is logged as it came.
fn propagate_pexpireat(view: &mut ViewMut, args: &Args, deadline: i64) {
    let digits = Digits::new(deadline);
    if !args[0].eq_ignore_ascii_case(b"pexpireat") {
        let mut words = vec![b"PEXPIREAT", &args[1], digits.as_bytes()];
        words.extend(args.iter().skip(3));
        view.propagate_args(words.into_iter());
    }
}

/// NX: the key must have no deadline. XX: it must have one. GT: the new one must be later. LT: earlier.
#[derive(Default)]
struct Conditions {
    nx: bool,
    xx: bool,
    gt: bool,
    lt: bool,
}

impl Conditions {
    fn parse(args: &Args) -> Result<Conditions, Error> {
        let mut conditions = Conditions::default();
        for option in args.iter().skip(3) {
            match option.to_ascii_uppercase().as_slice() {
                b"NX" => conditions.nx = true,
                b"XX" => conditions.xx = true,
                b"GT" => conditions.gt = true,
                b"LT" => conditions.lt = true,
                _ => return Err(Error::quoting("ERR Unsupported option ", option, "")),
            }
        }
        let Conditions { nx, xx, gt, lt } = conditions;
        if nx && (xx || gt || lt) {
            Err(Error::NxAndOthers)
        } else if gt && lt {
            Err(Error::GtAndLt)
        } else {
            Ok(conditions)
        }
    }

    /// No deadline counts as later than any.
    fn allow(&self, old: Option<u64>, new: i64) -> bool {
        match old.map(|old| old as i64) {
            None => !self.xx && !self.gt,
            Some(old) => !self.nx && (!self.gt || new > old) && (!self.lt || new < old),
        }
    }
}

/// The four TTLs. They differ only in `answer`.
fn tell_deadline(
    view: &View,
    args: &Args,
    reply: &mut Reply,
    answer: impl FnOnce(u64) -> u64,
) -> Result<(), Error> {
    match view.entry_unused(args.key(1)).map(Entry::deadline) {
        None => reply.integer(-2),
        Some(None) => reply.integer(-1),
        Some(Some(deadline)) => reply.integer(answer(deadline) as i64),
    }
    Ok(())
}

/// Rounded to the nearest second: just after EXPIRE with 10, TTL answers 10 and not 9.
fn in_seconds(milliseconds: u64) -> u64 {
    (milliseconds + 500) / 1_000
}
