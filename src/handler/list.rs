//! Lists: elements in a row, which are pushed and popped at both ends.
//!
//! The ends are called LEFT and RIGHT, and index 0 is at the left. Negative indexes count from the right:
//!
//! ```text
//! RPUSH l a b c       a   b   c
//! index               0   1   2
//!                    -3  -2  -1           LRANGE l 0 -1 is all of it, LTRIM l -2 -1 keeps b c
//! ```
//!
//! [`pop`] and [`transfer`] are what LPOP, LMPOP and LMOVE do to the keyspace.
//!
//! Commands are logged as they were sent, except LMPOP. It becomes what it did: LPOP or RPOP of the one key that
//! had elements, with their number.
//!
//! **How Redis does it**: t_list.c. In 7.0 each list is a quicklist; since 7.2 a small list is a listpack.

use crate::error::Error;
use crate::handler::args::{Cursor, ManyPop, at_least, integer};
use crate::handler::{
    COUNTED_KEYS, Command, Flag, Left, ONE_KEY, Rest, Run, TWO_KEYS, TimeSlice, command,
};
use crate::key::Key;
use crate::resp::{Args, Digits, Reply};
use crate::store::{View, ViewMut};
use crate::types::{Dropped, Entry, List, Side};
use std::ops::Range;

#[rustfmt::skip]
pub const COMMANDS: &[Command] = &[
    command("lindex",     3, Run::Read(lindex),     ONE_KEY,      "1.0.0", "key index", "Get an element from a list by its index"),
    command("linsert",    5, Run::Write(linsert),   ONE_KEY,      "2.2.0", "key <BEFORE | AFTER> pivot element", "Insert an element before or after another element in a list").uses("RW insert").with(&[Flag::DenyOom]),
    command("llen",       2, Run::Read(llen),       ONE_KEY,      "1.0.0", "key", "Get the length of a list").with(&[Flag::Quick]).uses("RO"),
    command("lmove",      5, Run::Write(lmove),     TWO_KEYS,     "6.2.0", "source destination <LEFT | RIGHT> <LEFT | RIGHT>", "Pop an element from a list, push it to another list and return it").uses("RW access delete, RW insert").with(&[Flag::DenyOom]),
    command("lmpop",     -4, Run::Write(lmpop),     COUNTED_KEYS, "7.0.0", "numkeys key [key ...] <LEFT | RIGHT> [COUNT count]", "Pop elements from a list").uses("RW access delete"),
    command("lpop",      -2, Run::Write(lpop),      ONE_KEY,      "1.0.0", "key [count]", "Remove and get the first elements in a list").with(&[Flag::Quick]).uses("RW access delete"),
    command("lpos",      -3, Run::Long(lpos),       ONE_KEY,      "6.0.6", "key element [RANK rank] [COUNT num-matches] [MAXLEN len]", "Return the index of matching elements on a list"),
    command("lpush",     -3, Run::Write(lpush),     ONE_KEY,      "1.0.0", "key element [element ...]", "Prepend one or multiple elements to a list").with(&[Flag::DenyOom, Flag::Quick]).uses("RW insert"),
    command("lpushx",    -3, Run::Write(lpushx),    ONE_KEY,      "2.2.0", "key element [element ...]", "Prepend an element to a list, only if the list exists").uses("RW insert").with(&[Flag::DenyOom]),
    command("lrange",     4, Run::Read(lrange),     ONE_KEY,      "1.0.0", "key start stop", "Get a range of elements from a list"),
    command("lrem",       4, Run::Write(lrem),      ONE_KEY,      "1.0.0", "key count element", "Remove elements from a list").uses("RW delete"),
    command("lset",       4, Run::Write(lset),      ONE_KEY,      "1.0.0", "key index element", "Set the value of an element in a list by its index").uses("RW update").with(&[Flag::DenyOom]),
    command("ltrim",      4, Run::Write(ltrim),     ONE_KEY,      "1.0.0", "key start stop", "Trim a list to the specified range").uses("RW delete"),
    command("rpop",      -2, Run::Write(rpop),      ONE_KEY,      "1.0.0", "key [count]", "Remove and get the last elements in a list").with(&[Flag::Quick]).uses("RW access delete"),
    command("rpoplpush",  3, Run::Write(rpoplpush), TWO_KEYS,     "1.2.0", "source destination", "Remove the last element in a list, prepend it to another list and return it").uses("RW access delete, RW insert").with(&[Flag::DenyOom]),
    command("rpush",     -3, Run::Write(rpush),     ONE_KEY,      "1.0.0", "key element [element ...]", "Append one or multiple elements to a list").with(&[Flag::DenyOom, Flag::Quick]).uses("RW insert"),
    command("rpushx",    -3, Run::Write(rpushx),    ONE_KEY,      "2.2.0", "key element [element ...]", "Append an element to a list, only if the list exists").uses("RW insert").with(&[Flag::DenyOom]),
];

// Looking.

fn llen(view: &View, args: &Args, reply: &mut Reply) -> Result<(), Error> {
    let list = view.get::<List>(args.key(1))?;
    reply.count(list.map_or(0, List::len));
    Ok(())
}

fn lindex(view: &View, args: &Args, reply: &mut Reply) -> Result<(), Error> {
    // Redis looks at the index only if there is a list.
    let element = match view.get::<List>(args.key(1))? {
        Some(list) => {
            let index = position(integer(&args[2])?, list.len());
            index.and_then(|index| list.after(index).next())
        }
        None => None,
    };
    reply.bulk_or_nil(element);
    Ok(())
}

fn lrange(view: &View, args: &Args, reply: &mut Reply) -> Result<(), Error> {
    let (start, stop) = (integer(&args[2])?, integer(&args[3])?);
    match view.get::<List>(args.key(1))? {
        Some(list) => {
            let range = range(start, stop, list.len());
            reply.array(range.len());
            let elements = list.after(range.start).take(range.len());
            reply.each(elements, |reply, element| reply.bulk(element));
        }
        None => reply.array(0),
    }
    Ok(())
}

fn lpos<'a>(view: &View, args: &'a Args, _: &TimeSlice, reply: &mut Reply) -> Left<'a> {
    let search = Search::parse(args)?;
    let list = view.get::<List>(args.key(1))?;
    if list.map_or(0, List::len) <= FEW {
        search.answer(list, &args[2], reply);
        return Ok(None);
    }
    Ok(Some(Rest::Look(Box::new(move |view, _, reply| {
        // What is a list no more has no more elements.
        let list = view.peek(args.key(1)).and_then(Entry::read::<List>);
        search.answer(list, &args[2], reply);
        true
    }))))
}

/// LPOS walks past so many elements under the lock that is held: in less than a tenth of a millisecond.
const FEW: usize = 16 * 1024;

/// The options of LPOS.
struct Search {
    rank: i64,
    /// 0: all.
    count: Option<usize>,
    /// 0: all.
    most: usize,
}

impl Search {
    fn parse(args: &Args) -> Result<Search, Error> {
        let mut search = Search { rank: 1, count: None, most: 0 };
        let mut words = Cursor::at(args, 3);
        while let Some(option) = words.option() {
            let operand = words.operand()?;
            match option.as_slice() {
                b"RANK" => search.rank = integer(operand)?,
                b"COUNT" => {
                    search.count = Some(at_least(0, operand, "ERR COUNT can't be negative")?);
                }
                b"MAXLEN" => search.most = at_least(0, operand, "ERR MAXLEN can't be negative")?,
                _ => return Err(Error::Syntax),
            }
            if search.rank == 0 {
                return Err(Error::text(
                    "ERR RANK can't be zero: use 1 to start from the first match, 2 from the second \
                     ... or use negative to start from the end of the list",
                ));
            }
        }
        Ok(search)
    }

    fn answer(&self, list: Option<List>, element: &[u8], reply: &mut Reply) {
        let found = list.map(|list| self.run(list, element)).unwrap_or_default();
        match self.count {
            Some(_) => {
                reply.array(found.len());
                reply.each(found, |reply, index| reply.count(index));
            }
            None => match found.first() {
                Some(index) => reply.count(*index),
                None => reply.nil(),
            },
        }
    }

    /// The indexes of what is found.
    fn run(&self, list: List, element: &[u8]) -> Vec<usize> {
        let or_all = |count| if count == 0 { usize::MAX } else { count };
        let (most, count) = (or_all(self.most), or_all(self.count.unwrap_or(1)));
        // The smallest number has no positive counterpart. Redis takes it for -1.
        let skipped = self.rank.checked_abs().map_or(0, |rank| rank as usize - 1);
        let is_equal = |(_, other): &(usize, &[u8])| *other == element;
        if self.rank > 0 {
            let elements = list.iter().enumerate().take(most).filter(is_equal);
            elements.map(|(index, _)| index).skip(skipped).take(count).collect()
        } else {
            let last = list.len() - 1;
            let elements = list.iter().rev().enumerate().take(most).filter(is_equal);
            elements.map(|(index, _)| last - index).skip(skipped).take(count).collect()
        }
    }
}

// Pushing and popping.

fn lpush(view: &mut ViewMut, args: &Args, reply: &mut Reply) -> Result<(), Error> {
    push(view, args, Side::Left, reply)
}

fn rpush(view: &mut ViewMut, args: &Args, reply: &mut Reply) -> Result<(), Error> {
    push(view, args, Side::Right, reply)
}

fn push(view: &mut ViewMut, args: &Args, side: Side, reply: &mut Reply) -> Result<(), Error> {
    let elements = Cursor::at(args, 2).rest();
    let len = view.edit::<List, _>(args.key(1), pushed(side), |list| {
        elements.for_each(|element| list.push(side, element));
        Ok(list.look().len())
    })?;
    reply.count(len);
    Ok(())
}

fn lpushx(view: &mut ViewMut, args: &Args, reply: &mut Reply) -> Result<(), Error> {
    push_if_there(view, args, Side::Left, reply)
}

fn rpushx(view: &mut ViewMut, args: &Args, reply: &mut Reply) -> Result<(), Error> {
    push_if_there(view, args, Side::Right, reply)
}

fn push_if_there(
    view: &mut ViewMut,
    args: &Args,
    side: Side,
    reply: &mut Reply,
) -> Result<(), Error> {
    let elements = Cursor::at(args, 2).rest();
    let len = view.edit_if_there::<List, _>(args.key(1), pushed(side), |list| {
        elements.for_each(|element| list.push(side, element));
        Ok(list.look().len())
    })?;
    reply.count(len.unwrap_or(0));
    Ok(())
}

fn lpop(view: &mut ViewMut, args: &Args, reply: &mut Reply) -> Result<(), Error> {
    pop_one_or_count(view, args, Side::Left, "lpop", reply)
}

fn rpop(view: &mut ViewMut, args: &Args, reply: &mut Reply) -> Result<(), Error> {
    pop_one_or_count(view, args, Side::Right, "rpop", reply)
}

fn pop_one_or_count(
    view: &mut ViewMut,
    args: &Args,
    side: Side,
    name: &'static str,
    reply: &mut Reply,
) -> Result<(), Error> {
    let key = args.key(1);
    if args.len() == 2 {
        if pop(view, key, side, 1, |element| reply.bulk(element))? == 0 {
            reply.nil();
        }
        return Ok(());
    }
    if args.len() > 3 {
        return Err(Error::WrongArity(name));
    }
    let count = integer(&args[2]).ok().and_then(|count| usize::try_from(count).ok());
    let count = count.ok_or(Error::NotPositive)?;
    match view.peek_value::<List>(key)?.map(List::len) {
        None => reply.nil_array(),
        Some(len) => {
            reply.array(count.min(len));
            pop(view, key, side, count, |element| reply.bulk(element))?;
        }
    }
    Ok(())
}

/// What is told of a list when something is pushed at this end.
fn pushed(side: Side) -> &'static str {
    if side == Side::Left { "lpush" } else { "rpush" }
}

/// The same when something is popped.
fn popped(side: Side) -> &'static str {
    if side == Side::Left { "lpop" } else { "rpop" }
}

/// Pops elements at one end, `count` if there are so many, and gives each to `take`. Returns how many there
/// were; none if the key is missing.
pub fn pop(
    view: &mut ViewMut,
    key: Key,
    side: Side,
    count: usize,
    take: impl FnMut(&[u8]),
) -> Result<usize, Error> {
    let popped = view.edit_if_there::<List, _>(key, popped(side), |list| {
        let elements = list.look();
        let count = count.min(elements.len());
        match side {
            // Mostly it is one, and this is the shorter way to it.
            _ if count == 1 => elements.end(side).into_iter().for_each(take),
            Side::Left => elements.iter().take(count).for_each(take),
            Side::Right => elements.iter().rev().take(count).for_each(take),
        }
        Ok((count, list.drop_from(side, count)))
    })?;
    let (count, dropped) = popped.unwrap_or_default();
    free(view, dropped);
    Ok(count)
}

/// One node is freed as fast as it is handed over.
fn free(view: &mut ViewMut, dropped: Dropped) {
    if dropped.len() > 1 {
        view.free_later(Box::new(dropped));
    }
}

fn lmpop(view: &mut ViewMut, args: &Args, reply: &mut Reply) -> Result<(), Error> {
    let pop = parse_pop(args, 1)?;
    for i in pop.keys.clone() {
        if pop_many(view, args.key(i), &pop, reply)? {
            return Ok(());
        }
    }
    reply.nil_array();
    Ok(())
}

/// Reads `numkeys key [key ...] LEFT|RIGHT [COUNT count]`, from argument `at` on.
pub fn parse_pop(args: &Args, at: usize) -> Result<ManyPop<Side>, Error> {
    ManyPop::parse(args, at, side)
}

/// Pops from this key, if it has a list, and answers. Returns whether it has.
pub fn pop_many(
    view: &mut ViewMut,
    key: Key,
    many: &ManyPop<Side>,
    reply: &mut Reply,
) -> Result<bool, Error> {
    let Some(len) = view.peek_value::<List>(key)?.map(List::len) else {
        return Ok(false);
    };
    let count = many.count.min(len);
    reply.array(2);
    reply.bulk(&key);
    reply.array(count);
    pop(view, key, many.side, count, |element| reply.bulk(element))?;
    view.propagate([pop_name(many.side), &key, Digits::new(count as i64).as_bytes()]);
    Ok(true)
}

/// The command that pops at this end.
pub fn pop_name(side: Side) -> &'static [u8] {
    if side == Side::Left { b"LPOP" } else { b"RPOP" }
}

fn lmove(view: &mut ViewMut, args: &Args, reply: &mut Reply) -> Result<(), Error> {
    let sides = (side(&args[3])?, side(&args[4])?);
    let moved = transfer(view, args.key(1), args.key(2), sides)?;
    reply.bulk_or_nil(moved.as_deref());
    Ok(())
}

fn rpoplpush(view: &mut ViewMut, args: &Args, reply: &mut Reply) -> Result<(), Error> {
    let moved = transfer(view, args.key(1), args.key(2), (Side::Right, Side::Left))?;
    reply.bulk_or_nil(moved.as_deref());
    Ok(())
}

/// Pops an element at one end of a list, and pushes it at one end of another, or of the same. None if there is
/// no such list.
pub fn transfer(
    view: &mut ViewMut,
    source: Key,
    target: Key,
    (from, to): (Side, Side),
) -> Result<Option<Vec<u8>>, Error> {
    let element =
        view.peek_value::<List>(source)?.and_then(|list| list.end(from)).map(<[u8]>::to_vec);
    let Some(element) = element else {
        return Ok(None);
    };
    // What can fail comes first.
    view.peek_value::<List>(target)?;
    if source.bytes == target.bytes {
        view.edit::<List, _>(source, pushed(to), |list| {
            list.drop_from(from, 1);
            list.push(to, &element);
            Ok(())
        })?;
        view.say::<List>(source, popped(from));
    } else {
        view.edit::<List, _>(target, pushed(to), |list| {
            list.push(to, &element);
            Ok(())
        })?;
        pop(view, source, from, 1, |_| {})?;
    }
    Ok(Some(element))
}

pub fn side(name: &[u8]) -> Result<Side, Error> {
    match name {
        _ if name.eq_ignore_ascii_case(b"left") => Ok(Side::Left),
        _ if name.eq_ignore_ascii_case(b"right") => Ok(Side::Right),
        _ => Err(Error::Syntax),
    }
}

// Changing in the middle.

fn lset(view: &mut ViewMut, args: &Args, reply: &mut Reply) -> Result<(), Error> {
    let set = view.edit_if_there::<List, _>(args.key(1), "lset", |list| {
        let index = position(integer(&args[2])?, list.look().len());
        let index = index.ok_or_else(|| Error::text("ERR index out of range"))?;
        list.set(index, &args[3]);
        Ok(())
    })?;
    set.ok_or(Error::NoSuchKey)?;
    reply.ok()
}

fn linsert(view: &mut ViewMut, args: &Args, reply: &mut Reply) -> Result<(), Error> {
    let side = match &args[2] {
        place if place.eq_ignore_ascii_case(b"before") => Side::Left,
        place if place.eq_ignore_ascii_case(b"after") => Side::Right,
        _ => return Err(Error::Syntax),
    };
    let len = view.edit_if_there::<List, _>(args.key(1), "linsert", |list| {
        let is_there = list.insert(side, &args[3], &args[4]);
        Ok(if is_there { list.look().len() as i64 } else { -1 })
    })?;
    reply.integer(len.unwrap_or(0));
    Ok(())
}

fn lrem(view: &mut ViewMut, args: &Args, reply: &mut Reply) -> Result<(), Error> {
    let count = integer(&args[2])?;
    let side = if count < 0 { Side::Right } else { Side::Left };
    let most = if count == 0 { usize::MAX } else { count.unsigned_abs() as usize };
    let removed = view.edit_if_there::<List, _>(args.key(1), "lrem", |list| {
        Ok(list.remove(side, &args[3], most))
    })?;
    reply.count(removed.unwrap_or(0));
    Ok(())
}

fn ltrim(view: &mut ViewMut, args: &Args, reply: &mut Reply) -> Result<(), Error> {
    let (start, stop) = (integer(&args[2])?, integer(&args[3])?);
    let key = args.key(1);
    let dropped = view.edit_if_there::<List, _>(key, "ltrim", |list| {
        let len = list.look().len();
        let kept = range(start, stop, len);
        let mut dropped = list.drop_from(Side::Right, len - kept.end);
        dropped.extend(list.drop_from(Side::Left, kept.start));
        Ok((dropped, kept.len() == len))
    })?;
    if let Some((dropped, keeps_all)) = dropped {
        free(view, dropped);
        if keeps_all {
            view.touch_watched(key);
            view.say::<List>(key, "ltrim");
        }
    }
    reply.ok()
}

/// The index that is meant, if there is an element.
fn position(index: i64, len: usize) -> Option<usize> {
    let index = if index < 0 { index + len as i64 } else { index };
    usize::try_from(index).ok().filter(|index| *index < len)
}

/// The indexes from `start` to `stop`, as far as there are elements. If there are none, the range stands at
/// the left end.
fn range(start: i64, stop: i64, len: usize) -> Range<usize> {
    let from_left = |index: i64| if index < 0 { index + len as i64 } else { index };
    let (start, stop) = (from_left(start).max(0), from_left(stop).min(len as i64 - 1));
    if start > stop { 0..0 } else { start as usize..stop as usize + 1 }
}
