//! Commands that wait: BLPOP and the others take an element as LPOP, LMOVE, LMPOP, ZPOPMIN or ZMPOP do, and
//! if there is none, they wait for it.
//!
//! A handler does not wait. It says what it waits for, and answers as if its time were over. Outside of a
//! transaction that answer is taken back, and the client joins a queue (batch/serving.rs):
//!
//! ```text
//! BLPOP a b 0   pop_or_wait: is there a list? ── a, b: no ─▶ view.wait(Wait { keys, serve: left, … })
//!                                            └─ b: yes ──▶ left(b) ─▶ [b, element]; logged as LPOP b
//! ```
//!
//! The same function serves a command at once and later. What is logged is never the command that waits:
//! a log that is replayed finds the element there.
//!
//! **How Redis does it**: `blockingPopGenericCommand` in t_list.c, its twin in t_zset.c, and
//! `serveClientBlockedOnList` beside them, which pops and logs a second time over.

use super::list;
use super::zset;
use super::{COUNTED_KEYS, Command, Flag, Keys, ONE_KEY, Run, TWO_KEYS, command};
use crate::error::Error;
use crate::key::Key;
use crate::resp::{Args, Reply};
use crate::store::{Serve, ViewMut, Wait};
use crate::types::float::Float;
use crate::types::{List, Side, Type, Zset};
use std::ops::Range;
use std::time::Duration;

/// All arguments are keys but the last, the timeout.
const KEYS_THEN_TIMEOUT: Keys = Keys { last: -2, ..ONE_KEY };

/// The timeout goes before the number of keys.
const TIMEOUT_THEN_KEYS: Keys = Keys { counted_by: 2, ..COUNTED_KEYS };

#[rustfmt::skip]
pub const LISTS: &[Command] = &[
    command("blmove",     6,  Run::Write(blmove),     TWO_KEYS,          "6.2.0", "source destination LEFT|RIGHT LEFT|RIGHT timeout", "Pop an element from a list, push it to another list and return it; or block until one is available").with(&[Flag::DenyOom, Flag::NoScript, Flag::Blocks, Flag::ComesAfterOthers]).uses("RW access delete, RW insert"),
    command("blmpop",     -5, Run::Write(blmpop),     TIMEOUT_THEN_KEYS, "7.0.0", "timeout numkeys key [key ...] LEFT|RIGHT [COUNT count]", "Pop elements from a list, or block until one is available").with(&[Flag::Blocks, Flag::ComesAfterOthers]).uses("RW access delete"),
    command("blpop",      -3, Run::Write(blpop),      KEYS_THEN_TIMEOUT, "2.0.0", "key [key ...] timeout", "Remove and get the first element in a list, or block until one is available").with(&[Flag::NoScript, Flag::Blocks, Flag::ComesAfterOthers]).uses("RW access delete"),
    command("brpop",      -3, Run::Write(brpop),      KEYS_THEN_TIMEOUT, "2.0.0", "key [key ...] timeout", "Remove and get the last element in a list, or block until one is available").with(&[Flag::NoScript, Flag::Blocks, Flag::ComesAfterOthers]).uses("RW access delete"),
    command("brpoplpush", 4,  Run::Write(brpoplpush), TWO_KEYS,          "2.2.0", "source destination timeout", "Pop an element from a list, push it to another list and return it; or block until one is available").with(&[Flag::DenyOom, Flag::NoScript, Flag::Blocks, Flag::ComesAfterOthers]).uses("RW access delete, RW insert"),
];

#[rustfmt::skip]
pub const SORTED_SETS: &[Command] = &[
    command("bzmpop",   -5, Run::Write(bzmpop),   TIMEOUT_THEN_KEYS, "7.0.0", "timeout numkeys key [key ...] MIN|MAX [COUNT count]", "Remove and return members with scores in a sorted set or block until one is available").with(&[Flag::Blocks, Flag::ComesAfterOthers]).uses("RW access delete"),
    command("bzpopmax", -3, Run::Write(bzpopmax), KEYS_THEN_TIMEOUT, "5.0.0", "key [key ...] timeout", "Remove and return the member with the highest score from one or more sorted sets, or block until one is available").with(&[Flag::NoScript, Flag::Blocks, Flag::ComesAfterOthers]).uses("RW access delete"),
    command("bzpopmin", -3, Run::Write(bzpopmin), KEYS_THEN_TIMEOUT, "5.0.0", "key [key ...] timeout", "Remove and return the member with the lowest score from one or more sorted sets, or block until one is available").with(&[Flag::NoScript, Flag::Blocks, Flag::ComesAfterOthers]).uses("RW access delete"),
];

/// Serves the command with the first of its keys that has a value of this type, or says that it waits for
/// one. Returns whether it was served. WRONGTYPE if one before that has another type.
fn pop_or_wait<T: Type>(
    view: &mut ViewMut,
    args: &Args,
    keys: Range<usize>,
    timeout: Option<Duration>,
    serve: Serve,
    reply: &mut Reply,
) -> Result<bool, Error> {
    for key in keys.clone().map(|i| args.key(i)) {
        if view.peek_value::<T>(key)?.is_some() {
            serve(view, key, args, reply)?;
            return Ok(true);
        }
    }
    view.wait(Wait { keys, wanted: T::NAME, serve, timeout });
    Ok(false)
}

/// The same for commands with keys and then a timeout.
fn pop_one<T: Type>(
    view: &mut ViewMut,
    args: &Args,
    serve: Serve,
    reply: &mut Reply,
) -> Result<(), Error> {
    let last = args.len() - 1;
    let timeout = timeout(&args[last])?;
    if !pop_or_wait::<T>(view, args, 1..last, timeout, serve, reply)? {
        reply.nil_array();
    }
    Ok(())
}

/// How long to wait: seconds, with a fraction that is rounded up to milliseconds. None waits for ever.
fn timeout(text: &[u8]) -> Result<Option<Duration>, Error> {
    let seconds = Float::parse(text)
        .ok_or_else(|| Error::text("ERR timeout is not a float or out of range"))?;
    match seconds.thousandfold_rounded_up() {
        // Redis takes what is too large for a negative number too.
        None | Some(..0) => Err(Error::text("ERR timeout is negative")),
        Some(0) => Ok(None),
        Some(ms @ 1..) => Ok(Some(Duration::from_millis(ms as u64))),
    }
}

// Lists.

fn blpop(view: &mut ViewMut, args: &Args, reply: &mut Reply) -> Result<(), Error> {
    pop_one::<List>(view, args, left, reply)
}

fn brpop(view: &mut ViewMut, args: &Args, reply: &mut Reply) -> Result<(), Error> {
    pop_one::<List>(view, args, right, reply)
}

fn left(view: &mut ViewMut, key: Key, _: &Args, reply: &mut Reply) -> Result<(), Error> {
    pop(view, key, Side::Left, reply)
}

fn right(view: &mut ViewMut, key: Key, _: &Args, reply: &mut Reply) -> Result<(), Error> {
    pop(view, key, Side::Right, reply)
}

fn pop(view: &mut ViewMut, key: Key, side: Side, reply: &mut Reply) -> Result<(), Error> {
    reply.array(2);
    reply.bulk(&key);
    list::pop(view, key, side, 1, |element| reply.bulk(element))?;
    view.propagate([list::pop_name(side), &key]);
    Ok(())
}

fn blmpop(view: &mut ViewMut, args: &Args, reply: &mut Reply) -> Result<(), Error> {
    let keys = list::parse_pop(args, 2)?.keys;
    let timeout = timeout(&args[1])?;
    if !pop_or_wait::<List>(view, args, keys, timeout, pop_many, reply)? {
        reply.nil_array();
    }
    Ok(())
}

fn pop_many(view: &mut ViewMut, key: Key, args: &Args, reply: &mut Reply) -> Result<(), Error> {
    list::pop_many(view, key, &list::parse_pop(args, 2)?, reply).map(|_| ())
}

fn blmove(view: &mut ViewMut, args: &Args, reply: &mut Reply) -> Result<(), Error> {
    sides(args)?;
    let timeout = timeout(&args[5])?;
    let source = args.key(1);
    if view.peek_value::<List>(source)?.is_some() {
        // The sides as the client has written them.
        move_element(view, source, args, reply)?;
        view.propagate([b"LMOVE", &args[1], &args[2], &args[3], &args[4]]);
    } else {
        reply.nil();
        view.wait(Wait { keys: 1..2, wanted: List::NAME, serve: move_later, timeout });
    }
    Ok(())
}

fn sides(args: &Args) -> Result<(Side, Side), Error> {
    Ok((list::side(&args[3])?, list::side(&args[4])?))
}

fn move_element(view: &mut ViewMut, key: Key, args: &Args, reply: &mut Reply) -> Result<(), Error> {
    let moved = list::transfer(view, key, args.key(2), sides(args)?)?;
    reply.bulk_or_nil(moved.as_deref());
    Ok(())
}

fn move_later(view: &mut ViewMut, key: Key, args: &Args, reply: &mut Reply) -> Result<(), Error> {
    move_element(view, key, args, reply)?;
    let [from, to] = [3, 4].map(|i| args[i].to_ascii_lowercase());
    view.propagate([b"LMOVE", &key, &args[2], &from, &to]);
    Ok(())
}

fn brpoplpush(view: &mut ViewMut, args: &Args, reply: &mut Reply) -> Result<(), Error> {
    let timeout = timeout(&args[3])?;
    if !pop_or_wait::<List>(view, args, 1..2, timeout, right_to_left, reply)? {
        reply.nil();
    }
    Ok(())
}

fn right_to_left(
    view: &mut ViewMut,
    key: Key,
    args: &Args,
    reply: &mut Reply,
) -> Result<(), Error> {
    let moved = list::transfer(view, key, args.key(2), (Side::Right, Side::Left))?;
    reply.bulk_or_nil(moved.as_deref());
    view.propagate([b"RPOPLPUSH", &key, &args[2]]);
    Ok(())
}

// Sorted sets.

fn bzpopmin(view: &mut ViewMut, args: &Args, reply: &mut Reply) -> Result<(), Error> {
    pop_one::<Zset>(view, args, lowest, reply)
}

fn bzpopmax(view: &mut ViewMut, args: &Args, reply: &mut Reply) -> Result<(), Error> {
    pop_one::<Zset>(view, args, highest, reply)
}

fn lowest(view: &mut ViewMut, key: Key, _: &Args, reply: &mut Reply) -> Result<(), Error> {
    pop_member(view, key, zset::Side::Min, reply)
}

fn highest(view: &mut ViewMut, key: Key, _: &Args, reply: &mut Reply) -> Result<(), Error> {
    pop_member(view, key, zset::Side::Max, reply)
}

fn pop_member(
    view: &mut ViewMut,
    key: Key,
    side: zset::Side,
    reply: &mut Reply,
) -> Result<(), Error> {
    for (member, score) in zset::pop(view, key, side, 1)?.unwrap_or_default() {
        reply.array(3);
        reply.bulk(&key);
        reply.bulk(&member);
        reply.double(score);
    }
    view.propagate([zset::pop_name(side), &key]);
    Ok(())
}

fn bzmpop(view: &mut ViewMut, args: &Args, reply: &mut Reply) -> Result<(), Error> {
    let keys = zset::parse_pop(args, 2)?.keys;
    let timeout = timeout(&args[1])?;
    if !pop_or_wait::<Zset>(view, args, keys, timeout, pop_members, reply)? {
        reply.nil_array();
    }
    Ok(())
}

fn pop_members(view: &mut ViewMut, key: Key, args: &Args, reply: &mut Reply) -> Result<(), Error> {
    zset::pop_many(view, key, &zset::parse_pop(args, 2)?, reply).map(|_| ())
}
