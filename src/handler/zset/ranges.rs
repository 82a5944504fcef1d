//! Ranges of sorted sets: by rank, by score, by the bytes of the members.
//!
//! ```text
//! by rank     0 -1            from the first to the last; negative: from the end
//! by score    1 (2.5          `(` leaves the bound itself out; -inf and +inf are bounds too
//! by lex      [a (b           `[` with the bound, `(` without it; - and + are below and above everything
//! ```
//!
//! The seven commands that reply with a range, and ZRANGESTORE, are one function ([`range`]): the older
//! ones are ZRANGE with some options fixed. Bounds become ranks by two searches, and from there on
//! all is done by rank. So LIMIT with a large offset costs no more than with a small one.
//!
//! A range by lex makes sense if all scores are the same. If not, Redis's answer follows from how it searches. For a
//! listpack it is the same here. For a skiplist it depends on chance in Redis, and is open here too.
//!
//! **How Redis does it**: t_zset.c finds the first node of a range in the skip list and walks on from there,
//! past the offset and up to the other end; ZCOUNT compares the ranks of both ends, as here.

use crate::error::Error;
use crate::handler::args::{Cursor, integer};
use crate::handler::{Command, Flag, ONE_KEY, Run, TWO_KEYS, command};
use crate::resp::{Args, Reply, parse_bound};
use crate::store::{View, ViewMut};
use crate::types::{Loose, Scoring, Zset};
use std::ops::Range;

#[rustfmt::skip]
pub const COMMANDS: &[Command] = &[
    command("zcount",            4, Run::Read(zcount),            ONE_KEY, "2.0.0", "key min max", "Count the members in a sorted set with scores within the given values"),
    command("zlexcount",         4, Run::Read(zlexcount),         ONE_KEY, "2.8.9", "key min max", "Count the number of members in a sorted set between a given lexicographical range"),
    command("zrange",           -4, Run::Read(zrange),            ONE_KEY, "1.2.0", "key start stop [BYSCORE|BYLEX] [REV] [LIMIT offset count] [WITHSCORES]", "Return a range of members in a sorted set"),
    command("zrangebylex",      -4, Run::Read(zrangebylex),       ONE_KEY, "2.8.9", "key min max [LIMIT offset count]", "Return a range of members in a sorted set, by lexicographical range"),
    command("zrangebyscore",    -4, Run::Read(zrangebyscore),     ONE_KEY, "1.0.5", "key min max [WITHSCORES] [LIMIT offset count]", "Return a range of members in a sorted set, by score"),
    command("zrangestore",      -5, Run::Write(zrangestore),      TWO_KEYS, "6.2.0", "dst src min max [BYSCORE|BYLEX] [REV] [LIMIT offset count]", "Store a range of members from sorted set into another key").uses("OW update, RO access").with(&[Flag::DenyOom]),
    command("zremrangebylex",    4, Run::Write(zremrangebylex),   ONE_KEY, "2.8.9", "key min max", "Remove all members in a sorted set between the given lexicographical range").uses("RW delete"),
    command("zremrangebyrank",   4, Run::Write(zremrangebyrank),  ONE_KEY, "2.0.0", "key start stop", "Remove all members in a sorted set within the given indexes").uses("RW delete"),
    command("zremrangebyscore",  4, Run::Write(zremrangebyscore), ONE_KEY, "1.2.0", "key min max", "Remove all members in a sorted set within the given scores").uses("RW delete"),
    command("zrevrange",        -4, Run::Read(zrevrange),         ONE_KEY, "1.2.0", "key start stop [WITHSCORES]", "Return a range of members in a sorted set, by index, with scores ordered from high to low"),
    command("zrevrangebylex",   -4, Run::Read(zrevrangebylex),    ONE_KEY, "2.8.9", "key max min [LIMIT offset count]", "Return a range of members in a sorted set, by lexicographical range, ordered from higher to lower strings"),
    command("zrevrangebyscore", -4, Run::Read(zrevrangebyscore),  ONE_KEY, "2.2.0", "key max min [WITHSCORES] [LIMIT offset count]", "Return a range of members in a sorted set, by score, with scores ordered from high to low"),
];

/// What a range is measured by.
#[derive(Clone, Copy, PartialEq, Eq)]
enum By {
    Rank,
    Score,
    Lex,
}

/// A range, as it was asked for.
enum Bounds<'a> {
    Ranks(i64, i64),
    Scores([ScoreBound; 2]),
    Lex([LexBound<'a>; 2]),
}

struct ScoreBound {
    score: f64,
    /// Whether the bound itself is left out.
    is_open: bool,
}

enum LexBound<'a> {
    BelowAll,
    AboveAll,
    /// The bytes, and whether they themselves are left out.
    At(&'a [u8], bool),
}

impl<'a> Bounds<'a> {
    fn parse(by: By, min: &'a [u8], max: &'a [u8]) -> Result<Bounds<'a>, Error> {
        Ok(match by {
            By::Rank => Bounds::Ranks(integer(min)?, integer(max)?),
            By::Score => Bounds::Scores([ScoreBound::parse(min)?, ScoreBound::parse(max)?]),
            By::Lex => Bounds::Lex([LexBound::parse(min)?, LexBound::parse(max)?]),
        })
    }

    /// The ranks in the range, without the first `skip` of them. In `reverse` the last is the first, and ranks are
    /// counted from there, too.
    fn ranks(&self, zset: Zset, reverse: bool, skip: usize) -> Range<usize> {
        let range = match self {
            Bounds::Ranks(start, stop) => ranks_between(*start, *stop, zset.len(), reverse),
            Bounds::Scores([min, max]) => {
                zset.place(|scoring| !min.begins(scoring))..zset.place(|s| max.goes_on(s))
            }
            Bounds::Lex([min, max]) if zset.is_packed() => {
                let members: Vec<Scoring> = zset.all().collect();
                return match reverse {
                    false => lex_run(&members, |m| min.begins(m), |m| max.goes_on(m), skip),
                    true => {
                        let members: Vec<Scoring> = members.into_iter().rev().collect();
                        let length = members.len();
                        let run = lex_run(&members, |m| max.goes_on(m), |m| min.begins(m), skip);
                        length - run.end..length - run.start
                    }
                };
            }
            Bounds::Lex([min, max]) => {
                zset.place(|scoring| !min.begins(scoring))..zset.place(|s| max.goes_on(s))
            }
        };
        let (start, end) = (range.start, range.end.max(range.start));
        let skip = skip.min(end - start);
        if reverse { start..end - skip } else { start + skip..end }
    }
}

/// The range of a listpack by lex, as Redis searches it, whether or not the members are in that order. There is none if
/// the first member is behind its end, or the last one before its begin. Else it goes from the first that is in it to
/// the first that is not. What LIMIT skips is not looked at.
fn lex_run(
    members: &[Scoring],
    begins: impl Fn(Scoring) -> bool,
    goes_on: impl Fn(Scoring) -> bool,
    skip: usize,
) -> Range<usize> {
    let (Some(first), Some(last)) = (members.first(), members.last()) else {
        return 0..0;
    };
    let found = members.iter().position(|member| begins(*member));
    let Some(found) = found.filter(|at| goes_on(*first) && begins(*last) && goes_on(members[*at]))
    else {
        return 0..0;
    };
    let start = found.saturating_add(skip).min(members.len());
    start..start + members[start..].iter().take_while(|member| goes_on(**member)).count()
}

fn ranks_between(start: i64, stop: i64, length: usize, reverse: bool) -> Range<usize> {
    // A number may be far outside, but a length is not.
    let length = length as i64;
    let from_end = |rank: i64| if rank < 0 { length.saturating_add(rank) } else { rank };
    let (start, end) = (from_end(start).max(0), from_end(stop).min(length - 1) + 1);
    if start >= end {
        return 0..0;
    }
    let (start, end) = if reverse { (length - end, length - start) } else { (start, end) };
    start as usize..end as usize
}

impl ScoreBound {
    fn parse(text: &[u8]) -> Result<ScoreBound, Error> {
        let (is_open, text) = match text {
            [b'(', text @ ..] => (true, text),
            text => (false, text),
        };
        let error = || Error::text("ERR min or max is not a float");
        Ok(ScoreBound { score: parse_bound(text).ok_or_else(error)?, is_open })
    }

    fn begins(&self, (_, score): Scoring) -> bool {
        score > self.score || (score == self.score && !self.is_open)
    }

    fn goes_on(&self, (_, score): Scoring) -> bool {
        score < self.score || (score == self.score && !self.is_open)
    }
}

impl LexBound<'_> {
    fn parse(text: &[u8]) -> Result<LexBound<'_>, Error> {
        match text {
            // Redis looks for the end of a C string here.
            [b'-'] | [b'-', 0, ..] => Ok(LexBound::BelowAll),
            [b'+'] | [b'+', 0, ..] => Ok(LexBound::AboveAll),
            [b'[', bytes @ ..] => Ok(LexBound::At(bytes, false)),
            [b'(', bytes @ ..] => Ok(LexBound::At(bytes, true)),
            _ => Err(Error::text("ERR min or max not valid string range item")),
        }
    }

    fn begins(&self, (member, _): Scoring) -> bool {
        match self {
            LexBound::BelowAll => true,
            LexBound::AboveAll => false,
            LexBound::At(bytes, is_open) => member > bytes || (member == *bytes && !is_open),
        }
    }

    fn goes_on(&self, (member, _): Scoring) -> bool {
        match self {
            LexBound::BelowAll => false,
            LexBound::AboveAll => true,
            LexBound::At(bytes, is_open) => member < bytes || (member == *bytes && !is_open),
        }
    }
}

// Replying with a range.

fn zrange(view: &View, args: &Args, reply: &mut Reply) -> Result<(), Error> {
    range(view, args, None, None, reply)
}

fn zrevrange(view: &View, args: &Args, reply: &mut Reply) -> Result<(), Error> {
    range(view, args, Some(By::Rank), Some(true), reply)
}

fn zrangebyscore(view: &View, args: &Args, reply: &mut Reply) -> Result<(), Error> {
    range(view, args, Some(By::Score), Some(false), reply)
}

fn zrevrangebyscore(view: &View, args: &Args, reply: &mut Reply) -> Result<(), Error> {
    range(view, args, Some(By::Score), Some(true), reply)
}

fn zrangebylex(view: &View, args: &Args, reply: &mut Reply) -> Result<(), Error> {
    range(view, args, Some(By::Lex), Some(false), reply)
}

fn zrevrangebylex(view: &View, args: &Args, reply: &mut Reply) -> Result<(), Error> {
    range(view, args, Some(By::Lex), Some(true), reply)
}

fn range(
    view: &View,
    args: &Args,
    by: Option<By>,
    reverse: Option<bool>,
    reply: &mut Reply,
) -> Result<(), Error> {
    let wanted = Wanted::parse(args, 2, by, reverse, false)?;
    let Some(zset) = view.get::<Zset>(args.key(1))? else {
        reply.array(0);
        return Ok(());
    };
    let ranks = wanted.ranks(zset);
    let members = zset.iter(ranks.clone(), wanted.reverse);
    reply.pairs(ranks.len(), members, wanted.with_scores, Reply::double);
    Ok(())
}

fn zrangestore(view: &mut ViewMut, args: &Args, reply: &mut Reply) -> Result<(), Error> {
    let wanted = Wanted::parse(args, 3, None, None, true)?;
    let key = args.key(1);
    let look = view.look();
    let zset = look.get::<Zset>(args.key(2))?;
    let found = zset.into_iter().flat_map(|zset| zset.iter(wanted.ranks(zset), wanted.reverse));
    let found: Vec<Scoring> = found.collect();
    reply.count(found.len());
    // One by one and in this order, as Redis does it: a zero that was in the listpack has no sign. By rank it
    // knows the number before.
    let stored = Loose::filled::<Zset>(&key, look.limits, |zset| {
        if let Bounds::Ranks(..) = wanted.bounds {
            zset.expect(found.len());
        }
        found.iter().for_each(|(member, score)| zset.put(member, |_| Some(*score)));
    });
    view.replace::<Zset>(key, "zrangestore", stored);
    Ok(())
}

/// What is to be replied or stored.
struct Wanted<'a> {
    bounds: Bounds<'a>,
    reverse: bool,
    with_scores: bool,
    offset: i64,
    /// Negative: all.
    limit: i64,
}

impl<'a> Wanted<'a> {
    /// Reads the bounds, which begin at an argument, and the options behind them. The older commands say
    /// themselves what ZRANGE has options for.
    fn parse(
        args: &'a Args,
        at: usize,
        by: Option<By>,
        reverse: Option<bool>,
        stores: bool,
    ) -> Result<Wanted<'a>, Error> {
        let (mut chosen_by, mut chosen_reverse) = (by, reverse);
        let (mut with_scores, mut offset, mut limit) = (false, 0, -1);
        let mut cursor = Cursor::at(args, at + 2);
        while let Some(option) = cursor.option() {
            match &option[..] {
                b"WITHSCORES" if !stores => with_scores = true,
                b"LIMIT" if cursor.left() >= 2 => {
                    (offset, limit) = (cursor.integer()?, cursor.integer()?);
                }
                b"REV" if chosen_reverse.is_none() => chosen_reverse = Some(true),
                b"BYLEX" if chosen_by.is_none() => chosen_by = Some(By::Lex),
                b"BYSCORE" if chosen_by.is_none() => chosen_by = Some(By::Score),
                _ => return Err(Error::Syntax),
            }
        }
        let (by, reverse) = (chosen_by.unwrap_or(By::Rank), chosen_reverse.unwrap_or(false));
        if limit != -1 && by == By::Rank {
            return Err(Error::text(
                "ERR syntax error, LIMIT is only supported in combination with either BYSCORE or \
                 BYLEX",
            ));
        }
        if with_scores && by == By::Lex {
            return Err(Error::text(
                "ERR syntax error, WITHSCORES not supported in combination with BYLEX",
            ));
        }
        // Backwards, the greater bound comes first.
        let (min, max) = if reverse && by != By::Rank { (at + 1, at) } else { (at, at + 1) };
        let bounds = Bounds::parse(by, &args[min], &args[max])?;
        Ok(Wanted { bounds, reverse, with_scores, offset, limit })
    }

    /// The ranks that are wanted. A negative offset leaves nothing, as in Redis, and one of ranks is ignored.
    fn ranks(&self, zset: Zset) -> Range<usize> {
        if matches!(self.bounds, Bounds::Ranks(..)) {
            return self.bounds.ranks(zset, self.reverse, 0);
        }
        let skip = usize::try_from(self.offset).unwrap_or(usize::MAX);
        let Range { start, end } = self.bounds.ranks(zset, self.reverse, skip);
        let left = end - start;
        let take = usize::try_from(self.limit).map_or(left, |limit| limit.min(left));
        if self.reverse { end - take..end } else { start..start + take }
    }
}

// Counting.

fn zcount(view: &View, args: &Args, reply: &mut Reply) -> Result<(), Error> {
    count(view, args, By::Score, reply)
}

fn zlexcount(view: &View, args: &Args, reply: &mut Reply) -> Result<(), Error> {
    count(view, args, By::Lex, reply)
}

fn count(view: &View, args: &Args, by: By, reply: &mut Reply) -> Result<(), Error> {
    let bounds = Bounds::parse(by, &args[2], &args[3])?;
    let zset = view.get::<Zset>(args.key(1))?;
    reply.count(zset.map_or(0, |zset| bounds.ranks(zset, false, 0).len()));
    Ok(())
}

// Removing.

fn zremrangebyrank(view: &mut ViewMut, args: &Args, reply: &mut Reply) -> Result<(), Error> {
    remove(view, args, By::Rank, "zremrangebyrank", reply)
}

fn zremrangebyscore(view: &mut ViewMut, args: &Args, reply: &mut Reply) -> Result<(), Error> {
    remove(view, args, By::Score, "zremrangebyscore", reply)
}

fn zremrangebylex(view: &mut ViewMut, args: &Args, reply: &mut Reply) -> Result<(), Error> {
    remove(view, args, By::Lex, "zremrangebylex", reply)
}

fn remove(
    view: &mut ViewMut,
    args: &Args,
    by: By,
    event: &'static str,
    reply: &mut Reply,
) -> Result<(), Error> {
    let bounds = Bounds::parse(by, &args[2], &args[3])?;
    let key = args.key(1);
    let Some(zset) = view.peek_value::<Zset>(key)? else {
        reply.count(0);
        return Ok(());
    };
    let (ranks, length) = (bounds.ranks(zset, false, 0), zset.len());
    reply.count(ranks.len());
    if ranks.len() == length {
        // Freed whole, by another thread.
        view.say::<Zset>(key, event);
        view.delete(key);
    } else {
        view.edit_if_there::<Zset, _>(key, event, |zset| {
            zset.remove_ranks(ranks, false, |_| {});
            Ok(())
        })?;
    }
    Ok(())
}
