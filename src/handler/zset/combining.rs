//! Unions, intersections and differences of sorted sets.
//!
//! ```text
//! a: x 1  y 2      ZUNION 2 a b WITHSCORES                                x 1  z 4  y 12
//! b: y 10 z 4      ZINTER 2 a b WEIGHTS 2 1 AGGREGATE MAX WITHSCORES      y 10
//!                  ZDIFF  2 a b WITHSCORES                                x 1
//! ```
//!
//! The result is the same for all of a kind ([`Combination::combine`]); one command replies with it, one
//! stores it, and ZINTERCARD counts it. An intersection walks the smallest operand and asks the others.
//! Members and scores are gathered in the table that the result will have, and sorted once.
//!
//! Large ones take long. Those that only read give the lock back first, and go through a gate one by one
//! (call/long.rs).
//!
//! **How Redis does it**: `zunionInterDiffGenericCommand`, which inserts each member of the result into a skip
//! list, to reply with it too. Where infinities of both signs meet, or one meets a weight of 0, the sum or
//! product is no number. It takes 0 for it, and so do we. Sums are made in the same order, since another one
//! rounds otherwise.

use crate::error::Error;
use crate::handler::args::{Cursor, integer};
use crate::handler::long::is_short;
use crate::handler::{
    COUNTED_KEYS, Command, Flag, Keys, Left, ONE_KEY, Rest, Run, TimeSlice, command,
};
use crate::resp::{Args, Reply, parse_double, parse_integer};
use crate::store::{View, ViewMut};
use crate::types::table::groups;
use crate::types::{Accumulator, Entry, Loose, Member, Set, Sorted, Value, Zset};

const DESTINATION: Keys = Keys { counted_by: 2, ..ONE_KEY };

#[rustfmt::skip]
pub const COMMANDS: &[Command] = &[
    command("zdiff",       -3, Run::Long(zdiff),        COUNTED_KEYS, "6.2.0", "numkeys key [key ...] [WITHSCORES]", "Subtract multiple sorted sets"),
    command("zdiffstore",  -4, Run::Write(zdiffstore),  DESTINATION,  "6.2.0", "destination numkeys key [key ...]", "Subtract multiple sorted sets and store the resulting sorted set in a new key").uses("OW update, RO access").with(&[Flag::DenyOom]),
    command("zinter",      -3, Run::Long(zinter),       COUNTED_KEYS, "6.2.0", "numkeys key [key ...] [WEIGHTS weight [weight ...]] [AGGREGATE SUM|MIN|MAX] [WITHSCORES]", "Intersect multiple sorted sets"),
    command("zintercard",  -3, Run::Long(zintercard),   COUNTED_KEYS, "7.0.0", "numkeys key [key ...] [LIMIT limit]", "Intersect multiple sorted sets and return the cardinality of the result"),
    command("zinterstore", -4, Run::Write(zinterstore), DESTINATION,  "2.0.0", "destination numkeys key [key ...] [WEIGHTS weight [weight ...]] [AGGREGATE SUM|MIN|MAX]", "Intersect multiple sorted sets and store the resulting sorted set in a new key").uses("OW update, RO access").with(&[Flag::DenyOom]),
    command("zunion",      -3, Run::Long(zunion),       COUNTED_KEYS, "6.2.0", "numkeys key [key ...] [WEIGHTS weight [weight ...]] [AGGREGATE SUM|MIN|MAX] [WITHSCORES]", "Add multiple sorted sets"),
    command("zunionstore", -4, Run::Write(zunionstore), DESTINATION,  "2.0.0", "destination numkeys key [key ...] [WEIGHTS weight [weight ...]] [AGGREGATE SUM|MIN|MAX]", "Add multiple sorted sets and store the resulting sorted set in a new key").uses("OW update, RO access").with(&[Flag::DenyOom]),
];

/// A command's name, what it makes of its operands, and what it does with the result.
#[derive(Clone, Copy)]
struct Form {
    name: &'static str,
    kind: Kind,
    result: Then,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    Union,
    Inter,
    Diff,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Then {
    Reply,
    Store,
    Count,
}

fn zdiff<'a>(view: &View, args: &'a Args, _: &TimeSlice, reply: &mut Reply) -> Left<'a> {
    answer(view, args, Form { name: "zdiff", kind: Kind::Diff, result: Then::Reply }, reply)
}

fn zinter<'a>(view: &View, args: &'a Args, _: &TimeSlice, reply: &mut Reply) -> Left<'a> {
    answer(view, args, Form { name: "zinter", kind: Kind::Inter, result: Then::Reply }, reply)
}

fn zintercard<'a>(view: &View, args: &'a Args, _: &TimeSlice, reply: &mut Reply) -> Left<'a> {
    answer(view, args, Form { name: "zintercard", kind: Kind::Inter, result: Then::Count }, reply)
}

fn zunion<'a>(view: &View, args: &'a Args, _: &TimeSlice, reply: &mut Reply) -> Left<'a> {
    answer(view, args, Form { name: "zunion", kind: Kind::Union, result: Then::Reply }, reply)
}

fn zdiffstore(view: &mut ViewMut, args: &Args, reply: &mut Reply) -> Result<(), Error> {
    store(view, args, Form { name: "zdiffstore", kind: Kind::Diff, result: Then::Store }, reply)
}

fn zinterstore(view: &mut ViewMut, args: &Args, reply: &mut Reply) -> Result<(), Error> {
    store(view, args, Form { name: "zinterstore", kind: Kind::Inter, result: Then::Store }, reply)
}

fn zunionstore(view: &mut ViewMut, args: &Args, reply: &mut Reply) -> Result<(), Error> {
    store(view, args, Form { name: "zunionstore", kind: Kind::Union, result: Then::Store }, reply)
}

/// Replies with the result, or with how many members it has.
fn answer<'a>(view: &View, args: &'a Args, form: Form, reply: &mut Reply) -> Left<'a> {
    let combination = Combination::parse(args, form, |i| view.entry(args.key(i)))?;
    if is_short(combination.work(), combination.copies()) {
        combination.answer(form, reply);
        return Ok(None);
    }
    let look = move |view: &View, _: &TimeSlice, reply: &mut Reply| {
        // The keys may hold something else by now.
        match Combination::parse(args, form, |i| view.peek(args.key(i))) {
            Ok(combination) => combination.answer(form, reply),
            Err(error) => reply.error(&error),
        }
        true
    };
    Ok(Some(Rest::Look(Box::new(look))))
}

fn store(view: &mut ViewMut, args: &Args, form: Form, reply: &mut Reply) -> Result<(), Error> {
    let key = args.key(1);
    let look = view.look();
    let combination = Combination::parse(args, form, |i| look.entry(args.key(i)))?;
    let result = combination.combine(form.kind);
    reply.count(Zset::Sorted(&result).len());
    let stored = Loose::filled::<Zset>(&key, look.limits, |zset| zset.fill(result));
    // Redis calls the event as the command.
    view.replace::<Zset>(key, form.name, stored);
    Ok(())
}

/// What is combined: a sorted set, or a set, whose members have the score 1.
#[derive(Clone, Copy)]
enum Operand<'a> {
    Missing,
    Set(Set<'a>),
    Zset(Zset<'a>),
}

/// A member of an operand or of the result, and its score.
type Combined<'a> = (Member<'a>, f64);

impl<'a> Operand<'a> {
    fn of(entry: Option<Entry<'a>>) -> Result<Operand<'a>, Error> {
        match entry.map(Entry::value) {
            None => Ok(Operand::Missing),
            Some(Value::Set(set)) => Ok(Operand::Set(set)),
            Some(Value::Zset(zset)) => Ok(Operand::Zset(zset)),
            Some(_) => Err(Error::WrongType),
        }
    }

    fn len(self) -> usize {
        match self {
            Operand::Missing => 0,
            Operand::Set(set) => set.len(),
            Operand::Zset(zset) => zset.len(),
        }
    }

    fn memory(self) -> usize {
        match self {
            Operand::Missing => 0,
            Operand::Set(set) => set.memory(),
            Operand::Zset(zset) => zset.memory(),
        }
    }

    fn score(self, member: Member) -> Option<f64> {
        match self {
            Operand::Missing => None,
            Operand::Set(set) => set.contains(member).then_some(1.0),
            Operand::Zset(zset) => zset.score(member),
        }
    }

    fn look_ahead(self, digests: impl Iterator<Item = u64>) {
        match self {
            Operand::Missing => {}
            Operand::Set(set) => set.look_ahead(digests),
            Operand::Zset(zset) => zset.look_ahead(digests),
        }
    }

    fn all(self) -> Box<dyn Iterator<Item = Combined<'a>> + 'a> {
        match self {
            Operand::Missing => Box::new(std::iter::empty()),
            Operand::Set(set) => Box::new(set.iter().map(|member| (member, 1.0))),
            Operand::Zset(zset) => zset.members(),
        }
    }
}

/// Operands with their weights, and what the options say.
struct Combination<'a> {
    operands: Vec<(Operand<'a>, f64)>,
    aggregate: Aggregate,
    with_scores: bool,
    /// ZINTERCARD counts no further.
    limit: usize,
}

#[derive(Clone, Copy)]
enum Aggregate {
    Sum,
    Min,
    Max,
}

impl Aggregate {
    fn of(self, a: f64, b: f64) -> f64 {
        match self {
            Aggregate::Sum => number_or_zero(a + b),
            Aggregate::Min => {
                if b < a {
                    b
                } else {
                    a
                }
            }
            Aggregate::Max => {
                if b > a {
                    b
                } else {
                    a
                }
            }
        }
    }
}

fn number_or_zero(number: f64) -> f64 {
    if number.is_nan() { 0.0 } else { number }
}

impl<'a> Combination<'a> {
    /// Reads the command, and finds its operands by `find`.
    fn parse(
        args: &Args,
        form: Form,
        find: impl Fn(usize) -> Option<Entry<'a>>,
    ) -> Result<Combination<'a>, Error> {
        let at = if form.result == Then::Store { 2 } else { 1 };
        let count = integer(&args[at])?;
        if count < 1 {
            let name = form.name;
            let text = format!("ERR at least 1 input key is needed for '{name}' command");
            return Err(Error::text(text));
        }
        let end = usize::try_from(count).unwrap_or(usize::MAX).saturating_add(at + 1);
        if end > args.len() {
            return Err(Error::Syntax);
        }
        let operands = (at + 1..end).map(|i| Ok((Operand::of(find(i))?, 1.0)));
        let operands: Vec<_> = operands.collect::<Result<_, Error>>()?;
        let mut combination = Combination {
            operands,
            aggregate: Aggregate::Sum,
            with_scores: false,
            limit: usize::MAX,
        };
        combination.parse_options(Cursor::at(args, end), form)?;
        Ok(combination)
    }

    fn parse_options(&mut self, mut cursor: Cursor, form: Form) -> Result<(), Error> {
        let has_weights = form.kind != Kind::Diff && form.result != Then::Count;
        while let Some(option) = cursor.option() {
            match &option[..] {
                b"WEIGHTS" if has_weights && cursor.left() >= self.operands.len() => {
                    for (_, weight) in &mut self.operands {
                        let error = || Error::text("ERR weight value is not a float");
                        *weight = parse_double(cursor.next()).ok_or_else(error)?;
                    }
                }
                b"AGGREGATE" if has_weights => {
                    self.aggregate = match cursor.operand()?.to_ascii_uppercase().as_slice() {
                        b"SUM" => Aggregate::Sum,
                        b"MIN" => Aggregate::Min,
                        b"MAX" => Aggregate::Max,
                        _ => return Err(Error::Syntax),
                    };
                }
                b"WITHSCORES" if form.result == Then::Reply => self.with_scores = true,
                b"LIMIT" if form.result == Then::Count => {
                    let limit = parse_integer(cursor.operand()?);
                    let limit = limit.and_then(|limit| usize::try_from(limit).ok());
                    let limit = limit.ok_or_else(|| Error::text("ERR LIMIT can't be negative"))?;
                    self.limit = if limit == 0 { usize::MAX } else { limit };
                }
                _ => return Err(Error::Syntax),
            }
        }
        if form.kind != Kind::Diff {
            self.operands.sort_by_key(|(operand, _)| operand.len());
        }
        Ok(())
    }

    /// How many bytes of members it may put into the result.
    fn copies(&self) -> usize {
        self.operands.iter().map(|(operand, _)| operand.memory()).sum()
    }

    /// How many members have to be looked at, at most.
    fn work(&self) -> usize {
        self.operands.iter().map(|(operand, _)| operand.len()).sum()
    }

    fn answer(&self, form: Form, reply: &mut Reply) {
        if form.result == Then::Count {
            return reply.count(self.intersection().take(self.limit).count());
        }
        let result = self.combine(form.kind);
        let result = Zset::Sorted(&result);
        reply.pairs(result.len(), result.all(), self.with_scores, Reply::double);
    }

    fn combine(&self, kind: Kind) -> Sorted {
        let all: Box<dyn Iterator<Item = Combined>> = match kind {
            Kind::Union => Box::new(self.union()),
            Kind::Inter => Box::new(self.intersection()),
            Kind::Diff => Box::new(self.difference()),
        };
        // The operands of a union stand in the order of their lengths.
        let last = self.operands.last().filter(|_| kind == Kind::Union);
        let mut gathered = Accumulator::with_room(last.map_or(0, |(operand, _)| operand.len()));
        gathered.add_all(all, |a, b| self.aggregate.of(a, b));
        gathered.sorted()
    }

    /// All members of all operands. One that several have comes from each.
    fn union(&self) -> impl Iterator<Item = Combined<'a>> {
        self.operands.iter().flat_map(|(operand, weight)| {
            operand.all().map(move |(member, score)| (member, number_or_zero(weight * score)))
        })
    }

    fn intersection(&self) -> impl Iterator<Item = Combined<'a>> {
        self.first_ahead().filter_map(|(member, score)| {
            let others = self.operands.iter().skip(1);
            let score = others
                .map(|(operand, weight)| Some(weight * operand.score(member)?))
                .try_fold(score, |joined, score| Some(self.aggregate.of(joined, score?)));
            Some((member, score?))
        })
    }

    fn difference(&self) -> impl Iterator<Item = Combined<'a>> {
        self.first_ahead().filter(|(member, _)| {
            let mut others = self.operands.iter().skip(1);
            others.all(|(operand, _)| operand.score(*member).is_none())
        })
    }

    /// The members of the first operand with their weighted scores. What questions to the others need is
    /// fetched for many of them at once.
    fn first_ahead(&self) -> impl Iterator<Item = Combined<'a>> {
        let all = self.operands.first().into_iter().flat_map(|(operand, weight)| {
            operand.all().map(move |(member, score)| (member, number_or_zero(weight * score)))
        });
        let groups = groups(all).inspect(|group| {
            let digests = group.iter().filter_map(|(member, _)| Some(member.key()?.digest));
            let others = self.operands.iter().skip(1);
            others.for_each(|(operand, _)| operand.look_ahead(digests.clone()));
        });
        groups.flatten()
    }
}
