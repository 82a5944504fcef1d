//! Hashes: fields with values under one key.
//!
//! A hash has two forms, packed and table (types/hash.rs), and no command here knows which one it has
//! before it. Readers get a [`crate::types::Hash`], which looks the same in both. Writers change it in
//! [`ViewMut::edit`], which makes a hash that is missing, and takes the key away with its last field.
//!
//! Two rules hold for every writer:
//! 1. **All or nothing.** `HSET k a 1 b` changes nothing, not even `a`: what can be wrong is looked
//!    at first.
//! 2. **The log gets outcomes** where replaying could differ: HINCRBYFLOAT becomes HSET.
//!
//! **How Redis does it**: t_hash.c.

use crate::error::Error;
use crate::handler::args::{Cursor, integer};
use crate::handler::draw;
use crate::handler::scan;
use crate::handler::{Command, Flag, Left, ONE_KEY, Run, TimeSlice, command};
use crate::resp::{Args, Digits, Reply, parse_integer};
use crate::store::{View, ViewMut};
use crate::types::Hash;
use crate::types::float::Float;

#[rustfmt::skip]
pub const COMMANDS: &[Command] = &[
    command("hdel",         -3, Run::Write(hdel),         ONE_KEY, "2.0.0", "key field [field ...]", "Delete one or more hash fields").with(&[Flag::ThenField]).uses("RW delete"),
    command("hexists",       3, Run::Read(hexists),       ONE_KEY, "2.0.0", "key field", "Determine if a hash field exists").with(&[Flag::ThenField, Flag::Quick]).uses("RO"),
    command("hget",          3, Run::Read(hget),          ONE_KEY, "2.0.0", "key field", "Get the value of a hash field").with(&[Flag::ThenField, Flag::Quick]),
    command("hgetall",       2, Run::Read(hgetall),       ONE_KEY, "2.0.0", "key", "Get all the fields and values in a hash").with(&[Flag::Quick]),
    command("hincrby",       4, Run::Write(hincrby),      ONE_KEY, "2.0.0", "key field increment", "Increment the integer value of a hash field by the given number").with(&[Flag::DenyOom, Flag::ThenField, Flag::Quick]).uses("RW access update"),
    command("hincrbyfloat",  4, Run::Write(hincrbyfloat), ONE_KEY, "2.6.0", "key field increment", "Increment the float value of a hash field by the given amount").with(&[Flag::DenyOom, Flag::ThenField]).uses("RW access update"),
    command("hkeys",         2, Run::Read(hkeys),         ONE_KEY, "2.0.0", "key", "Get all the fields in a hash").with(&[Flag::Quick]),
    command("hlen",          2, Run::Read(hlen),          ONE_KEY, "2.0.0", "key", "Get the number of fields in a hash").with(&[Flag::Quick]).uses("RO"),
    command("hmget",        -3, Run::Read(hmget),         ONE_KEY, "2.0.0", "key field [field ...]", "Get the values of all the given hash fields").with(&[Flag::ThenField]),
    command("hmset",        -4, Run::Write(hmset),        ONE_KEY, "2.0.0", "key field value [field value ...]", "Set multiple hash fields to multiple values").with(&[Flag::DenyOom, Flag::ThenField]).uses("RW update"),
    command("hrandfield",   -2, Run::Read(hrandfield),    ONE_KEY, "6.2.0", "key [count [WITHVALUES]]", "Get one or multiple random fields from a hash"),
    command("hscan",        -3, Run::Long(hscan),         ONE_KEY, "2.8.0", "key cursor [MATCH pattern] [COUNT count]", "Incrementally iterate hash fields and associated values"),
    command("hset",         -4, Run::Write(hset),         ONE_KEY, "2.0.0", "key field value [field value ...]", "Set the string value of a hash field").with(&[Flag::DenyOom, Flag::Quick, Flag::ThenField]).uses("RW update"),
    command("hsetnx",        4, Run::Write(hsetnx),       ONE_KEY, "2.0.0", "key field value", "Set the value of a hash field, only if the field does not exist").with(&[Flag::DenyOom, Flag::ThenField]).uses("RW insert"),
    command("hstrlen",       3, Run::Read(hstrlen),       ONE_KEY, "3.2.0", "key field", "Get the length of the value of a hash field").with(&[Flag::ThenField]).uses("RO"),
    command("hvals",         2, Run::Read(hvals),         ONE_KEY, "2.0.0", "key", "Get all the values in a hash").with(&[Flag::Quick]),
];

/// A field's name and its value.
type Pair<'a> = (&'a [u8], &'a [u8]);

// Looking at fields.

fn hget(view: &View, args: &Args, reply: &mut Reply) -> Result<(), Error> {
    reply.bulk_or_nil(field(view, args)?);
    Ok(())
}

fn hexists(view: &View, args: &Args, reply: &mut Reply) -> Result<(), Error> {
    reply.integer(field(view, args)?.is_some().into());
    Ok(())
}

fn hstrlen(view: &View, args: &Args, reply: &mut Reply) -> Result<(), Error> {
    reply.count(field(view, args)?.map_or(0, <[u8]>::len));
    Ok(())
}

/// The value of the field that the command names.
fn field<'a>(view: &View<'a>, args: &Args) -> Result<Option<&'a [u8]>, Error> {
    let hash = view.get::<Hash>(args.key(1))?;
    Ok(hash.and_then(|hash| hash.get(&args[2])))
}

fn hmget(view: &View, args: &Args, reply: &mut Reply) -> Result<(), Error> {
    let hash = view.get::<Hash>(args.key(1))?;
    let fields = Cursor::at(args, 2).rest();
    reply.array(fields.len());
    reply.each(fields, |reply, field| {
        reply.bulk_or_nil(hash.and_then(|hash| hash.get(field)));
    });
    Ok(())
}

// Looking at all of it.

fn hlen(view: &View, args: &Args, reply: &mut Reply) -> Result<(), Error> {
    reply.count(view.get::<Hash>(args.key(1))?.map_or(0, Hash::len));
    Ok(())
}

fn hgetall(view: &View, args: &Args, reply: &mut Reply) -> Result<(), Error> {
    let hash = view.get::<Hash>(args.key(1))?;
    reply.map(hash.map_or(0, Hash::len));
    reply.each(hash.into_iter().flat_map(Hash::iter), reply_with_pair);
    Ok(())
}

fn hkeys(view: &View, args: &Args, reply: &mut Reply) -> Result<(), Error> {
    let hash = view.get::<Hash>(args.key(1))?;
    reply.array(hash.map_or(0, Hash::len));
    let fields = hash.into_iter().flat_map(Hash::iter);
    reply.each(fields, |reply, (name, _)| reply.bulk(name));
    Ok(())
}

fn hvals(view: &View, args: &Args, reply: &mut Reply) -> Result<(), Error> {
    let hash = view.get::<Hash>(args.key(1))?;
    reply.array(hash.map_or(0, Hash::len));
    let fields = hash.into_iter().flat_map(Hash::iter);
    reply.each(fields, |reply, (_, value)| reply.bulk(value));
    Ok(())
}

fn hscan<'a>(view: &View, args: &'a Args, slice: &TimeSlice, reply: &mut Reply) -> Left<'a> {
    scan::collection::<Hash>(view, args, slice, reply, |hash, cursor, walk| {
        hash.scan(cursor, |(name, value)| {
            if walk.wants(name) {
                walk.keep(name);
                walk.keep(value);
            }
        })
    })
}

fn reply_with_pair(reply: &mut Reply, (name, value): Pair) {
    reply.bulk(name);
    reply.bulk(value);
}

// Chance.

fn hrandfield(view: &View, args: &Args, reply: &mut Reply) -> Result<(), Error> {
    if args.len() == 2 {
        let drawn = view.get::<Hash>(args.key(1))?.and_then(Hash::random);
        reply.bulk_or_nil(drawn.map(|(name, _)| name));
        return Ok(());
    }
    let (count, may_repeat, with_values) = draw::parse(args, b"WITHVALUES")?;
    let Some(hash) = view.get::<Hash>(args.key(1))?.filter(|_| count > 0) else {
        reply.array(0);
        return Ok(());
    };
    if may_repeat {
        if !draw::can_be_sent(count, reply) {
            return Ok(());
        }
        // One by one into the reply: the count may be far larger than the hash.
        let drawn = (0..count).filter_map(|_| hash.random());
        reply.pairs(count, drawn, with_values, Reply::bulk);
    } else {
        let drawn = draw::distinct(count, hash.len(), hash.iter(), || hash.random());
        reply.pairs(drawn.len(), drawn.into_iter(), with_values, Reply::bulk);
    }
    Ok(())
}

// Changing.

fn hset(view: &mut ViewMut, args: &Args, reply: &mut Reply) -> Result<(), Error> {
    let added = set_fields(view, args, "hset")?;
    reply.count(added);
    Ok(())
}

fn hmset(view: &mut ViewMut, args: &Args, reply: &mut Reply) -> Result<(), Error> {
    set_fields(view, args, "hmset")?;
    reply.ok()
}

/// Sets fields; returns how many of them are new.
fn set_fields(view: &mut ViewMut, args: &Args, command: &'static str) -> Result<usize, Error> {
    let pairs = Cursor::at(args, 2).pairs();
    let pairs = pairs.ok_or(Error::WrongArity(command))?;
    view.edit::<Hash, _>(args.key(1), "hset", |hash| {
        Ok(pairs.filter(|(name, value)| hash.set(name, value)).count())
    })
}

fn hsetnx(view: &mut ViewMut, args: &Args, reply: &mut Reply) -> Result<(), Error> {
    let is_new = view.edit::<Hash, _>(args.key(1), "hset", |hash| {
        Ok(hash.get(&args[2]).is_none() && hash.set(&args[2], &args[3]))
    })?;
    reply.integer(is_new.into());
    Ok(())
}

fn hdel(view: &mut ViewMut, args: &Args, reply: &mut Reply) -> Result<(), Error> {
    let fields = Cursor::at(args, 2).rest();
    let removed = view.edit_if_there::<Hash, _>(args.key(1), "hdel", |hash| {
        Ok(fields.filter(|name| hash.remove(name)).count())
    })?;
    reply.count(removed.unwrap_or(0));
    Ok(())
}

fn hincrby(view: &mut ViewMut, args: &Args, reply: &mut Reply) -> Result<(), Error> {
    let (name, change) = (&args[2], integer(&args[3])?);
    let sum = view.edit::<Hash, _>(args.key(1), "hincrby", |hash| {
        let number = match hash.get(name) {
            Some(value) => parse_integer(value).ok_or(Error::HashValueNotInteger)?,
            None => 0,
        };
        let sum = number.checked_add(change).ok_or(Error::Overflow)?;
        hash.set(name, Digits::new(sum).as_bytes());
        Ok(sum)
    })?;
    reply.integer(sum);
    Ok(())
}

fn hincrbyfloat(view: &mut ViewMut, args: &Args, reply: &mut Reply) -> Result<(), Error> {
    let (key, name) = (args.key(1), &args[2]);
    let change = Float::parse(&args[3]).ok_or(Error::NotFloat)?;
    if !change.is_finite() {
        return Err(Error::IncrementNanOrInfinity);
    }
    let sum = view.edit::<Hash, _>(key, "hincrbyfloat", |hash| {
        let number = match hash.get(name) {
            Some(value) => Float::parse(value).ok_or(Error::HashValueNotFloat)?,
            None => Float::ZERO,
        };
        let sum = number.add(change);
        if !sum.is_finite() {
            return Err(Error::NanOrInfinity);
        }
        let sum = sum.print();
        hash.set(name, &sum);
        Ok(sum)
    })?;
    view.propagate([b"HSET", &key, name, &sum]);
    reply.bulk(&sum);
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::types::{Limits, Loose, Packed};
    use std::collections::HashSet;

    #[test]
    fn a_scan_of_a_table_returns_every_field_once() {
        let mut entry = Loose::new::<Hash>(b"key");
        let limits = Limits { hash: Packed { entries: 0, value: 64 }, ..Limits::NOTHING };
        entry.change::<Hash, _>(&limits, |hash| {
            assert!((0..1000u32).all(|i| hash.set(&i.to_be_bytes(), b"")));
        });
        let hash = entry.look().read::<Hash>().unwrap();
        let (mut cursor, mut seen, mut calls) = (0, Vec::new(), 0);
        loop {
            let mut walk = scan::Walk::new(cursor, 100, 1_000, &Reply::new());
            let done = walk.go_on(&TimeSlice::begin(true), |cursor, found| {
                hash.scan(cursor, |field| {
                    found.looked_at += 1;
                    seen.push(field);
                })
            });
            assert!(done);
            calls += 1;
            cursor = walk.cursor;
            if cursor == 0 {
                break;
            }
        }
        assert_eq!(seen.len(), 1000);
        assert_eq!(seen.iter().collect::<HashSet<_>>().len(), 1000);
        assert!((5..=10).contains(&calls), "{calls} calls");
    }
}
