//! Sorted sets: members with scores under one key, in the order of the scores.
//!
//! ```text
//! ZADD board 300 ann 250 bob      scores may be any double, infinities too, but not NaN
//! ZINCRBY board 100 bob           250 ─▶ 350, and bob moves behind ann
//! ZRANK board bob                 1
//! ```
//!
//! The commands that ask for a range are in zset/ranges.rs, those that combine several sorted sets in
//! zset/combining.rs. No command here knows in which form a sorted set is (types/zset.rs).
//!
//! Adding with INCR is logged as it was sent, and ZMPOP as the ZPOPMIN or ZPOPMAX that it turns out to be.
//!
//! **How Redis does it**: t_zset.c, 4,400 lines, because each command has a branch for each encoding.

mod combining;
mod ranges;

use crate::error::Error;
use crate::handler::args::{Cursor, ManyPop};
use crate::handler::{COUNTED_KEYS, Command, Flag, Left, ONE_KEY, Run, TimeSlice, command};
use crate::handler::{draw, scan};
use crate::key::Key;
use crate::resp::{
    Args, Digits, Protocol, Reply, parse_double, parse_integer, print_double, print_in_listpack,
};
use crate::store::{View, ViewMut};
use crate::types::table::random_below;
use crate::types::{Member, Scoring, Zset};

pub use combining::COMMANDS as COMBINING;
pub use ranges::COMMANDS as RANGES;

#[rustfmt::skip]
pub const COMMANDS: &[Command] = &[
    command("zadd",        -4, Run::Write(zadd),       ONE_KEY, "1.2.0", "key [NX|XX] [GT|LT] [CH] [INCR] score member [score member ...]", "Add one or more members to a sorted set, or update its score if it already exists").with(&[Flag::DenyOom, Flag::Quick, Flag::ThenScore]).uses("RW update"),
    command("zcard",        2, Run::Read(zcard),       ONE_KEY, "1.2.0", "key", "Get the number of members in a sorted set").with(&[Flag::Quick]).uses("RO"),
    command("zincrby",      4, Run::Write(zincrby),    ONE_KEY, "1.2.0", "key increment member", "Increment the score of a member in a sorted set").uses("RW access update").with(&[Flag::DenyOom, Flag::ThenScore]),
    command("zmpop",       -4, Run::Write(zmpop),      COUNTED_KEYS, "7.0.0", "numkeys key [key ...] MIN|MAX [COUNT count]", "Remove and return members with scores in a sorted set").uses("RW access delete"),
    command("zmscore",     -3, Run::Read(zmscore),     ONE_KEY, "6.2.0", "key member [member ...]", "Get the score associated with the given members in a sorted set").with(&[Flag::ThenField]),
    command("zpopmax",     -2, Run::Write(zpopmax),    ONE_KEY, "5.0.0", "key [count]", "Remove and return members with the highest scores in a sorted set").with(&[Flag::Quick]).uses("RW access delete"),
    command("zpopmin",     -2, Run::Write(zpopmin),    ONE_KEY, "5.0.0", "key [count]", "Remove and return members with the lowest scores in a sorted set").with(&[Flag::Quick]).uses("RW access delete"),
    command("zrandmember", -2, Run::Read(zrandmember), ONE_KEY, "6.2.0", "key [count [WITHSCORES]]", "Get one or multiple random elements from a sorted set"),
    command("zrank",       -3, Run::Read(zrank),       ONE_KEY, "2.0.0", "key member [WITHSCORE]", "Determine the index of a member in a sorted set").with(&[Flag::ThenField]),
    command("zrem",        -3, Run::Write(zrem),       ONE_KEY, "1.2.0", "key member [member ...]", "Remove one or more members from a sorted set").with(&[Flag::Quick, Flag::ThenField]).uses("RW delete"),
    command("zrevrank",    -3, Run::Read(zrevrank),    ONE_KEY, "2.0.0", "key member [WITHSCORE]", "Determine the index of a member in a sorted set, with scores ordered from high to low").with(&[Flag::ThenField]),
    command("zscan",       -3, Run::Long(zscan),       ONE_KEY, "2.8.0", "key cursor [MATCH pattern] [COUNT count]", "Incrementally iterate sorted sets elements and associated scores"),
    command("zscore",       3, Run::Read(zscore),      ONE_KEY, "1.2.0", "key member", "Get the score associated with the given member in a sorted set").with(&[Flag::ThenField]),
];

// Adding.

fn zadd(view: &mut ViewMut, args: &Args, reply: &mut Reply) -> Result<(), Error> {
    add(view, args, false, reply)
}

fn zincrby(view: &mut ViewMut, args: &Args, reply: &mut Reply) -> Result<(), Error> {
    add(view, args, true, reply)
}

/// What ZADD is to do with each member. Redis reads these options in ZINCRBY too.
#[derive(Default)]
struct Adding {
    nx: bool,
    xx: bool,
    gt: bool,
    lt: bool,
    ch: bool,
    incr: bool,
}

fn add(view: &mut ViewMut, args: &Args, incr: bool, reply: &mut Reply) -> Result<(), Error> {
    let mut adding = Adding { incr, ..Adding::default() };
    let begin = adding.parse(args);
    let pairs = Cursor::at(args, begin).pairs().filter(|pairs| pairs.len() > 0);
    let pairs = pairs.ok_or(Error::Syntax)?;
    adding.check(pairs.len())?;
    let parse = |(score, member)| Ok((member, parse_double(score).ok_or(Error::NotFloat)?));
    let pairs: Vec<Scoring> = pairs.map(parse).collect::<Result<_, _>>()?;
    let mut added = Added::default();
    let event = if adding.incr { "zincr" } else { "zadd" };
    view.edit::<Zset, _>(args.key(1), event, |zset| {
        for (member, score) in pairs {
            zset.put(member, |old| adding.decide(old, score, &mut added));
        }
        match added.is_nan {
            true => Err(Error::text("ERR resulting score is not a number (NaN)")),
            false => Ok(()),
        }
    })?;
    match (adding.incr, added.score) {
        (true, Some(score)) => reply.double(score),
        (true, None) => reply.nil(),
        (false, _) if adding.ch => reply.count(added.new + added.updated),
        (false, _) => reply.count(added.new),
    }
    Ok(())
}

/// What has become of the members.
#[derive(Default)]
struct Added {
    new: usize,
    updated: usize,
    /// The score of the last one that was neither refused nor passed over.
    score: Option<f64>,
    is_nan: bool,
}

impl Adding {
    /// Reads the options. Returns where the first score is.
    fn parse(&mut self, args: &Args) -> usize {
        for at in 2..args.len() {
            let mut options = [
                ("NX", &mut self.nx),
                ("XX", &mut self.xx),
                ("GT", &mut self.gt),
                ("LT", &mut self.lt),
                ("CH", &mut self.ch),
                ("INCR", &mut self.incr),
            ];
            let is_named =
                |(name, _): &&mut (&str, _)| args[at].eq_ignore_ascii_case(name.as_bytes());
            match options.iter_mut().find(is_named) {
                Some((_, option)) => **option = true,
                None => return at,
            }
        }
        args.len()
    }

    fn check(&self, pairs: usize) -> Result<(), Error> {
        let text = if self.nx && self.xx {
            "ERR XX and NX options at the same time are not compatible"
        } else if (self.nx && (self.gt || self.lt)) || (self.gt && self.lt) {
            "ERR GT, LT, and/or NX options at the same time are not compatible"
        } else if self.incr && pairs > 1 {
            "ERR INCR option supports a single increment-element pair"
        } else {
            return Ok(());
        };
        Err(Error::text(text))
    }

    /// The new score of a member, if it is to get one.
    fn decide(&self, old: Option<f64>, score: f64, added: &mut Added) -> Option<f64> {
        let Some(old) = old else {
            let score = (!self.xx).then_some(score)?;
            added.new += 1;
            added.score = Some(score);
            return Some(score);
        };
        let score = if self.incr { old + score } else { score };
        added.is_nan = score.is_nan() && !self.nx;
        let is_refused = (self.lt && score >= old) || (self.gt && score <= old);
        if self.nx || added.is_nan || is_refused {
            return None;
        }
        added.updated += usize::from(score != old);
        added.score = Some(score);
        Some(score)
    }
}

// Removing.

fn zrem(view: &mut ViewMut, args: &Args, reply: &mut Reply) -> Result<(), Error> {
    let members = Cursor::at(args, 2).rest();
    let removed = view.edit_if_there::<Zset, _>(args.key(1), "zrem", |zset| {
        Ok(members.filter(|member| zset.remove(member)).count())
    })?;
    reply.count(removed.unwrap_or(0));
    Ok(())
}

/// Which end members are popped from.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Side {
    Min,
    Max,
}

fn zpopmin(view: &mut ViewMut, args: &Args, reply: &mut Reply) -> Result<(), Error> {
    pop_and_reply(view, args, Side::Min, reply)
}

fn zpopmax(view: &mut ViewMut, args: &Args, reply: &mut Reply) -> Result<(), Error> {
    pop_and_reply(view, args, Side::Max, reply)
}

fn pop_and_reply(
    view: &mut ViewMut,
    args: &Args,
    side: Side,
    reply: &mut Reply,
) -> Result<(), Error> {
    let count = match args.len() {
        2 => None,
        3 => {
            let count = parse_integer(&args[2]).and_then(|count| usize::try_from(count).ok());
            Some(count.ok_or(Error::NotPositive)?)
        }
        _ => return Err(Error::Syntax),
    };
    let popped = pop(view, args.key(1), side, count.unwrap_or(1))?.unwrap_or_default();
    // With a count, the pairs are arrays in RESP3.
    let is_nested = count.is_some() && reply.protocol == Protocol::Resp3;
    reply.array(if is_nested { popped.len() } else { 2 * popped.len() });
    reply.each(&popped, |reply, (member, score)| {
        if is_nested {
            reply.array(2);
        }
        reply.bulk(member);
        reply.double(*score);
    });
    Ok(())
}

/// A member that has been taken out, and its score.
pub type Popped = (Vec<u8>, f64);

/// Takes up to `count` members with the lowest or the highest scores out of a sorted set. `None` if the key is
/// missing.
pub fn pop(
    view: &mut ViewMut,
    key: Key,
    side: Side,
    count: usize,
) -> Result<Option<Vec<Popped>>, Error> {
    let event = if side == Side::Min { "zpopmin" } else { "zpopmax" };
    view.edit_if_there::<Zset, _>(key, event, |zset| {
        let length = zset.look().len();
        let count = count.min(length);
        let ranks = if side == Side::Min { 0..count } else { length - count..length };
        let mut popped = Vec::with_capacity(count);
        zset.remove_ranks(ranks, side == Side::Max, |(member, score)| {
            popped.push((member.to_vec(), score));
        });
        Ok(popped)
    })
}

fn zmpop(view: &mut ViewMut, args: &Args, reply: &mut Reply) -> Result<(), Error> {
    let pop = parse_pop(args, 1)?;
    for i in pop.keys.clone() {
        if pop_many(view, args.key(i), &pop, reply)? {
            return Ok(());
        }
    }
    reply.nil_array();
    Ok(())
}

/// Pops from this key, if it has a sorted set, and answers. Returns whether it has.
pub fn pop_many(
    view: &mut ViewMut,
    key: Key,
    many: &ManyPop<Side>,
    reply: &mut Reply,
) -> Result<bool, Error> {
    let Some(popped) = pop(view, key, many.side, many.count)? else {
        return Ok(false);
    };
    let digits = Digits::new(popped.len() as i64);
    view.propagate([pop_name(many.side), &key, digits.as_bytes()]);
    reply_with_popped(&key, &popped, reply);
    Ok(true)
}

/// The command that pops from this side.
pub fn pop_name(side: Side) -> &'static [u8] {
    if side == Side::Min { b"ZPOPMIN" } else { b"ZPOPMAX" }
}

/// Reads `numkeys key [key ...] MIN|MAX [COUNT count]`, from argument `at` on.
pub fn parse_pop(args: &Args, at: usize) -> Result<ManyPop<Side>, Error> {
    ManyPop::parse(args, at, |name| match &name.to_ascii_uppercase()[..] {
        b"MIN" => Ok(Side::Min),
        b"MAX" => Ok(Side::Max),
        _ => Err(Error::Syntax),
    })
}

/// The key, and the members with their scores in pairs.
fn reply_with_popped(key: &[u8], popped: &[Popped], reply: &mut Reply) {
    reply.array(2);
    reply.bulk(key);
    reply.array(popped.len());
    reply.each(popped, |reply, (member, score)| {
        reply.array(2);
        reply.bulk(member);
        reply.double(*score);
    });
}

// Looking at members.

fn zcard(view: &View, args: &Args, reply: &mut Reply) -> Result<(), Error> {
    reply.count(view.get::<Zset>(args.key(1))?.map_or(0, Zset::len));
    Ok(())
}

fn zscore(view: &View, args: &Args, reply: &mut Reply) -> Result<(), Error> {
    let zset = view.get::<Zset>(args.key(1))?;
    reply_with_score(zset.and_then(|zset| zset.score(Member::Bytes(&args[2]))), reply);
    Ok(())
}

fn zmscore(view: &View, args: &Args, reply: &mut Reply) -> Result<(), Error> {
    let zset = view.get::<Zset>(args.key(1))?;
    let members = Cursor::at(args, 2).rest();
    reply.array(members.len());
    reply.each(members, |reply, member| {
        reply_with_score(zset.and_then(|zset| zset.score(Member::Bytes(member))), reply);
    });
    Ok(())
}

fn reply_with_score(score: Option<f64>, reply: &mut Reply) {
    match score {
        Some(score) => reply.double(score),
        None => reply.nil(),
    }
}

fn zrank(view: &View, args: &Args, reply: &mut Reply) -> Result<(), Error> {
    rank(view, args, false, reply)
}

fn zrevrank(view: &View, args: &Args, reply: &mut Reply) -> Result<(), Error> {
    rank(view, args, true, reply)
}

fn rank(view: &View, args: &Args, reverse: bool, reply: &mut Reply) -> Result<(), Error> {
    let with_score = match args.len() {
        3 => false,
        4 if args[3].eq_ignore_ascii_case(b"WITHSCORE") => true,
        4 => return Err(Error::Syntax),
        _ => return Err(Error::WrongArity(if reverse { "zrevrank" } else { "zrank" })),
    };
    let zset = view.get::<Zset>(args.key(1))?;
    let found = zset.and_then(|zset| {
        let (rank, score) = zset.rank(&args[2])?;
        Some((if reverse { zset.len() - 1 - rank } else { rank }, score))
    });
    match found {
        Some((rank, score)) if with_score => {
            reply.array(2);
            reply.count(rank);
            reply.double(score);
        }
        Some((rank, _)) => reply.count(rank),
        None if with_score => reply.nil_array(),
        None => reply.nil(),
    }
    Ok(())
}

// Iterating.

fn zscan<'a>(view: &View, args: &'a Args, slice: &TimeSlice, reply: &mut Reply) -> Left<'a> {
    scan::collection::<Zset>(view, args, slice, reply, |zset, cursor, walk| {
        let print = if zset.is_packed() { print_in_listpack } else { print_double };
        zset.scan(cursor, |(member, score)| {
            if walk.wants(member) {
                let mut text = Vec::new();
                print(score, &mut text);
                walk.keep(member);
                walk.keep(&text);
            }
        })
    })
}

// Chance.

fn zrandmember(view: &View, args: &Args, reply: &mut Reply) -> Result<(), Error> {
    if args.len() == 2 {
        let drawn = view.get::<Zset>(args.key(1))?.and_then(Zset::random);
        reply.bulk_or_nil(drawn.map(|(member, _)| member));
        return Ok(());
    }
    let (count, may_repeat, with_scores) = draw::parse(args, b"WITHSCORES")?;
    let Some(zset) = view.get::<Zset>(args.key(1))?.filter(|_| count > 0) else {
        reply.array(0);
        return Ok(());
    };
    if may_repeat {
        if draw::can_be_sent(count, reply) {
            let drawn = (0..count).filter_map(|_| zset.random());
            reply.pairs(count, drawn, with_scores, Reply::double);
        }
    } else if count >= zset.len() {
        // From the last to the first, as in Redis.
        reply.pairs(zset.len(), zset.iter(0..zset.len(), true), with_scores, Reply::double);
    } else {
        let ranks =
            draw::distinct(count, zset.len(), 0..zset.len(), || Some(random_below(zset.len())));
        let drawn = ranks.into_iter().flat_map(|rank| zset.iter(rank..rank + 1, false));
        reply.pairs(count, drawn, with_scores, Reply::double);
    }
    Ok(())
}
