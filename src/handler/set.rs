//! Sets: members without an order, and what several sets have in common.
//!
//! A set has three forms (types/set.rs), and no command here knows which one it has before it. The three
//! questions about several sets are asked in two ways. SINTER, SUNION and SDIFF answer with the members;
//! SINTERSTORE, SUNIONSTORE and SDIFFSTORE make a set of them, or take the destination away if there are
//! none:
//!
//! ```text
//! a: 1 2 3    b: 2 3 4    c: 3
//!
//! SINTER a b c    3         walks the smallest, c; asks the others: do you have 3?
//! SUNION a b c    1 2 3 4   walks a; walks b, and asks a; walks c, and asks a and b
//! SDIFF a b c     1         walks a; asks the others
//! ```
//!
//! So the members are found where they lie, and nothing is copied. Questions are asked for about sixty members
//! at once ([`Set::keep`]). Of many sets SUNION and SDIFF would ask too often. Then they make a set of one, and
//! add the others to it, or remove them from it. The sizes tell which way is shorter. SUNIONSTORE needs a set in
//! any case, and begins with a copy of the largest.
//!
//! Measured with two sets of 100,000: SUNION takes a third of the time that it takes with a set of all members,
//! the others half of what they take with questions for one member.
//!
//! Who asks about many members gives the lock back first, and waits for others who ask (call/long.rs).
//!
//! SPOP is logged as the SREM of what it has drawn, because a replay would draw something else.
//!
//! **How Redis does it**: t_set.c. `sinterGenericCommand` and `sunionDiffGenericCommand` hold everybody up
//! for as long as they take.

use crate::error::Error;
use crate::handler::args::{Cursor, at_least, integer};
use crate::handler::draw;
use crate::handler::long::is_short;
use crate::handler::scan;
use crate::handler::{
    ALL_KEYS, COUNTED_KEYS, Command, Flag, ONE_KEY, Rest, Run, TWO_KEYS, TimeSlice, command,
};
use crate::key::Key;
use crate::resp::{Args, Reply};
use crate::store::{View, ViewMut};
use crate::types::{Edit, Entry, Loose, Member, Set};
use std::cmp::Reverse;
use std::ops::Range;

#[rustfmt::skip]
pub const COMMANDS: &[Command] = &[
    command("sadd",        -3, Run::Write(sadd),        ONE_KEY,      "1.0.0", "key member [member ...]", "Add one or more members to a set").with(&[Flag::DenyOom, Flag::Quick, Flag::ThenField]).uses("RW insert"),
    command("scard",        2, Run::Read(scard),        ONE_KEY,      "1.0.0", "key", "Get the number of members in a set").with(&[Flag::Quick]).uses("RO"),
    command("sdiff",       -2, Run::Long(sdiff),        ALL_KEYS,     "1.0.0", "key [key ...]", "Subtract multiple sets"),
    command("sdiffstore",  -3, Run::Write(sdiffstore),  ALL_KEYS,     "1.0.0", "destination key [key ...]", "Subtract multiple sets and store the resulting set in a key").uses("OW update, RO access").with(&[Flag::DenyOom]),
    command("sinter",      -2, Run::Long(sinter),       ALL_KEYS,     "1.0.0", "key [key ...]", "Intersect multiple sets"),
    command("sintercard",  -3, Run::Long(sintercard),   COUNTED_KEYS, "7.0.0", "numkeys key [key ...] [LIMIT limit]", "Intersect multiple sets and return the cardinality of the result"),
    command("sinterstore", -3, Run::Write(sinterstore), ALL_KEYS,     "1.0.0", "destination key [key ...]", "Intersect multiple sets and store the resulting set in a key").uses("RW update, RO access").with(&[Flag::DenyOom]),
    command("sismember",    3, Run::Read(sismember),    ONE_KEY,      "1.0.0", "key member", "Determine if a given value is a member of a set").with(&[Flag::ThenField, Flag::Quick]).uses("RO"),
    command("smembers",     2, Run::Read(smembers),     ONE_KEY,      "1.0.0", "key", "Get all the members in a set").with(&[Flag::Quick]),
    command("smismember",  -3, Run::Read(smismember),   ONE_KEY,      "6.2.0", "key member [member ...]", "Returns the membership associated with the given elements for a set").with(&[Flag::ThenField]),
    command("smove",        4, Run::Write(smove),       TWO_KEYS,     "1.0.0", "source destination member", "Move a member from one set to another").uses("RW access delete, RW insert"),
    command("spop",        -2, Run::Write(spop),        ONE_KEY,      "1.0.0", "key [count]", "Remove and return one or multiple random members from a set").with(&[Flag::Quick]).uses("RW access delete"),
    command("srandmember", -2, Run::Read(srandmember),  ONE_KEY,      "1.0.0", "key [count]", "Get one or multiple random members from a set"),
    command("srem",        -3, Run::Write(srem),        ONE_KEY,      "1.0.0", "key member [member ...]", "Remove one or more members from a set").with(&[Flag::Quick, Flag::ThenField]).uses("RW delete"),
    command("sscan",       -3, Run::Long(sscan),        ONE_KEY,      "2.8.0", "key cursor [MATCH pattern] [COUNT count]", "Incrementally iterate Set elements"),
    command("sunion",      -2, Run::Long(sunion),       ALL_KEYS,     "1.0.0", "key [key ...]", "Add multiple sets"),
    command("sunionstore", -3, Run::Write(sunionstore), ALL_KEYS,     "1.0.0", "destination key [key ...]", "Add multiple sets and store the resulting set in a key").uses("OW update, RO access").with(&[Flag::DenyOom]),
];

// One set.

fn sadd(view: &mut ViewMut, args: &Args, reply: &mut Reply) -> Result<(), Error> {
    let members = Cursor::at(args, 2).rest().map(Member::Bytes);
    let added = view.edit::<Set, _>(args.key(1), "sadd", |set| {
        Ok(members.filter(|member| set.add(*member)).count())
    })?;
    reply.count(added);
    Ok(())
}

fn srem(view: &mut ViewMut, args: &Args, reply: &mut Reply) -> Result<(), Error> {
    let members = Cursor::at(args, 2).rest().map(Member::Bytes);
    let removed = view.edit_if_there::<Set, _>(args.key(1), "srem", |set| {
        Ok(members.filter(|member| set.remove(*member)).count())
    })?;
    reply.count(removed.unwrap_or(0));
    Ok(())
}

fn scard(view: &View, args: &Args, reply: &mut Reply) -> Result<(), Error> {
    reply.count(view.get::<Set>(args.key(1))?.map_or(0, Set::len));
    Ok(())
}

fn sismember(view: &View, args: &Args, reply: &mut Reply) -> Result<(), Error> {
    let set = view.get::<Set>(args.key(1))?;
    reply.integer(set.is_some_and(|set| set.contains(Member::Bytes(&args[2]))).into());
    Ok(())
}

fn smismember(view: &View, args: &Args, reply: &mut Reply) -> Result<(), Error> {
    let set = view.get::<Set>(args.key(1))?;
    let members = Cursor::at(args, 2).rest();
    reply.array(members.len());
    reply.each(members, |reply, member| {
        reply.integer(set.is_some_and(|set| set.contains(Member::Bytes(member))).into());
    });
    Ok(())
}

fn smembers(view: &View, args: &Args, reply: &mut Reply) -> Result<(), Error> {
    reply_with(view.get::<Set>(args.key(1))?, reply);
    Ok(())
}

fn sscan<'a>(
    view: &View,
    args: &'a Args,
    slice: &TimeSlice,
    reply: &mut Reply,
) -> Result<Option<Rest<'a>>, Error> {
    scan::collection::<Set>(view, args, slice, reply, |set, cursor, walk| {
        set.scan(cursor, |member| {
            member.read(|bytes| {
                if walk.wants(bytes) {
                    walk.keep(bytes);
                }
            });
        })
    })
}

fn smove(view: &mut ViewMut, args: &Args, reply: &mut Reply) -> Result<(), Error> {
    let (source, destination, member) = (args.key(1), args.key(2), Member::Bytes(&args[3]));
    let from = view.peek_value::<Set>(source).map(|set| set.map(|set| set.contains(member)));
    // Looked up whatever the source is: an expired destination goes.
    let to = view.peek_value::<Set>(destination).map(|_| ());
    // To a source that is missing, Redis does not mind what the destination is.
    let Some(moves) = from? else {
        reply.integer(0);
        return Ok(());
    };
    to?;
    if moves && *source != *destination {
        view.edit_if_there::<Set, _>(source, "srem", |set| Ok(set.remove(member)))?;
        view.edit::<Set, _>(destination, "sadd", |set| Ok(set.add(member)))?;
    }
    reply.integer(moves.into());
    Ok(())
}

// Chance.

fn srandmember(view: &View, args: &Args, reply: &mut Reply) -> Result<(), Error> {
    if args.len() == 2 {
        match view.get::<Set>(args.key(1))?.and_then(Set::random) {
            Some(member) => member.read(|bytes| reply.bulk(bytes)),
            None => reply.nil(),
        }
        return Ok(());
    }
    if args.len() > 3 {
        return Err(Error::Syntax);
    }
    let (count, may_repeat) = draw::parse_count(&args[2])?;
    let Some(set) = view.get::<Set>(args.key(1))?.filter(|_| count > 0) else {
        reply.array(0);
        return Ok(());
    };
    if may_repeat {
        if draw::can_be_sent(count, reply) {
            reply.array(count);
            // One by one into the reply: the count may be far larger than the set.
            reply.each((0..count).filter_map(|_| set.random()), bulk);
        }
    } else {
        let drawn = draw::distinct(count, set.len(), set.iter(), || set.random());
        reply.array(drawn.len());
        reply.each(drawn, bulk);
    }
    Ok(())
}

fn spop(view: &mut ViewMut, args: &Args, reply: &mut Reply) -> Result<(), Error> {
    let key = args.key(1);
    if args.len() == 2 {
        match view.edit_if_there::<Set, _>(key, "spop", |set| Ok(pop(set)))?.flatten() {
            Some(member) => {
                view.propagate([b"SREM", &key, &member]);
                reply.bulk(&member);
            }
            None => reply.nil(),
        }
        return Ok(());
    }
    if args.len() > 3 {
        return Err(Error::Syntax);
    }
    let count = integer(&args[2]).ok();
    let count = count.and_then(|count| usize::try_from(count).ok()).ok_or(Error::NotPositive)?;
    let len = view.peek_value::<Set>(key)?.map_or(0, Set::len);
    if count.min(len) == 0 {
        reply.set(0);
    } else if count >= len {
        reply_with(view.look().get::<Set>(key)?, reply);
        view.say::<Set>(key, "spop");
        view.delete(key);
        view.propagate([b"DEL", &key]);
    } else {
        let popped: Option<Vec<_>> = view.edit_if_there::<Set, _>(key, "spop", |set| {
            Ok((0..count).filter_map(|_| pop(set)).collect())
        })?;
        let popped = popped.unwrap_or_default();
        popped.iter().for_each(|member| view.propagate([b"SREM", &key, member]));
        reply.set(popped.len());
        reply.each(popped, |reply, member| reply.bulk(&member));
    }
    Ok(())
}

/// Takes a member out, each with the same chance.
fn pop(set: &mut Edit<Set>) -> Option<Vec<u8>> {
    let drawn = set.look().random()?;
    let digest = drawn.key().map(|key| key.digest);
    let member = drawn.read(<[u8]>::to_vec);
    set.remove(match digest {
        Some(digest) => Member::Key(Key { bytes: &member, digest }),
        None => Member::Bytes(&member),
    });
    Some(member)
}

// Several sets.

/// What is asked about several sets. A key that is missing is an empty set.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Question {
    Inter,
    Union,
    Diff,
}

fn sinter<'a>(
    view: &View,
    args: &'a Args,
    _: &TimeSlice,
    reply: &mut Reply,
) -> Result<Option<Rest<'a>>, Error> {
    answer(Question::Inter, view, args, reply)
}

fn sintercard<'a>(
    view: &View,
    args: &'a Args,
    _: &TimeSlice,
    reply: &mut Reply,
) -> Result<Option<Rest<'a>>, Error> {
    let mut words = Cursor::new(args);
    let numkeys = at_least(1, words.next(), "ERR numkeys should be greater than 0")?;
    if numkeys > words.left() {
        return Err(Error::text("ERR Number of keys can't be greater than number of args"));
    }
    let mut words = Cursor::at(args, 2 + numkeys);
    let mut limit = 0;
    while let Some(option) = words.option() {
        match &option[..] {
            b"LIMIT" => limit = at_least(0, words.operand()?, "ERR LIMIT can't be negative")?,
            _ => return Err(Error::Syntax),
        }
    }
    let limit = if limit == 0 { usize::MAX } else { limit };
    ask(Question::Inter, 2..2 + numkeys, view, args, reply, move |sets, reply| {
        let mut count = 0;
        for group in intersection(sets) {
            count += group.len();
            if count >= limit {
                break;
            }
        }
        reply.count(count.min(limit));
    })
}

fn sunion<'a>(
    view: &View,
    args: &'a Args,
    _: &TimeSlice,
    reply: &mut Reply,
) -> Result<Option<Rest<'a>>, Error> {
    answer(Question::Union, view, args, reply)
}

fn sdiff<'a>(
    view: &View,
    args: &'a Args,
    _: &TimeSlice,
    reply: &mut Reply,
) -> Result<Option<Rest<'a>>, Error> {
    answer(Question::Diff, view, args, reply)
}

fn answer<'a>(
    question: Question,
    view: &View,
    args: &'a Args,
    reply: &mut Reply,
) -> Result<Option<Rest<'a>>, Error> {
    let limits = *view.limits;
    ask(question, 1..args.len(), view, args, reply, move |sets, reply| {
        let members = question.members(sets);
        let count = members.iter().flatten().map(Vec::len).sum();
        if question == Question::Inter || limits.is_table(count) {
            reply.set(count);
            return reply.each(members.into_iter().flatten().flatten(), bulk);
        }
        // Redis sends the members of a set that it makes. If that is small, they have an order.
        let made = Loose::filled::<Set>(b"", &limits, |set| question.fill(members, sets, set));
        reply_with(made.as_ref().and_then(|made| made.look().read::<Set>()), reply);
    })
}

/// Looks at the sets that these arguments name, at once or later: if it may take long, others go first.
fn ask<'a>(
    question: Question,
    keys: Range<usize>,
    view: &View,
    args: &'a Args,
    reply: &mut Reply,
    answer: impl Fn(&[Option<Set>], &mut Reply) + 'a,
) -> Result<Option<Rest<'a>>, Error> {
    let sets = sets(view, keys.clone().map(|i| args.key(i)))?;
    if is_short(question.work(&sets), question.copies(&sets)) {
        answer(&sets, reply);
        return Ok(None);
    }
    Ok(Some(Rest::Look(Box::new(move |view, _, reply| {
        // What is a set no more has no more members.
        let look = |i| view.peek(args.key(i)).and_then(Entry::read::<Set>);
        answer(&keys.clone().map(look).collect::<Vec<_>>(), reply);
        true
    }))))
}

fn sets<'v, 'a>(
    view: &View<'v>,
    keys: impl Iterator<Item = Key<'a>>,
) -> Result<Vec<Option<Set<'v>>>, Error> {
    keys.map(|key| view.get::<Set>(key)).collect()
}

fn sinterstore(view: &mut ViewMut, args: &Args, reply: &mut Reply) -> Result<(), Error> {
    store(Question::Inter, view, args, reply)
}

fn sunionstore(view: &mut ViewMut, args: &Args, reply: &mut Reply) -> Result<(), Error> {
    store(Question::Union, view, args, reply)
}

fn sdiffstore(view: &mut ViewMut, args: &Args, reply: &mut Reply) -> Result<(), Error> {
    store(Question::Diff, view, args, reply)
}

fn store(
    question: Question,
    view: &mut ViewMut,
    args: &Args,
    reply: &mut Reply,
) -> Result<(), Error> {
    let destination = args.key(1);
    let look = view.look();
    let sets = sets(&look, args.keys(2))?;
    // All sets of a union are added to the largest.
    let members = if question == Question::Union { None } else { question.members(&sets) };
    let made = Loose::filled::<Set>(&destination, look.limits, |set| {
        question.fill(members, &sets, set);
    });
    let made_set = made.as_ref().and_then(|made| made.look().read::<Set>());
    reply.count(made_set.map_or(0, Set::len));
    view.replace::<Set>(destination, question.event(), made);
    Ok(())
}

impl Question {
    /// What is told of the destination.
    fn event(self) -> &'static str {
        match self {
            Question::Inter => "sinterstore",
            Question::Union => "sunionstore",
            Question::Diff => "sdiffstore",
        }
    }

    /// How many bytes of members it may put into a new set. An intersection needs none.
    fn copies(self, sets: &[Option<Set>]) -> usize {
        match self {
            Question::Inter => 0,
            Question::Union | Question::Diff => sets.iter().flatten().map(|set| set.memory()).sum(),
        }
    }

    /// About how many members will be looked at.
    fn work(self, sets: &[Option<Set>]) -> usize {
        let lengths = sets.iter().map(|set| set.map_or(0, Set::len));
        match self {
            Question::Inter => lengths.min().unwrap_or(0).saturating_mul(sets.len()),
            Question::Union | Question::Diff => lengths.sum(),
        }
    }

    /// The members that are asked for, in groups. None if it is shorter to make a set of all members. For an
    /// intersection it never is.
    fn members<'a>(self, sets: &[Option<Set<'a>>]) -> Option<Vec<Vec<Member<'a>>>> {
        match self {
            Question::Inter => Some(intersection(sets).collect()),
            Question::Union => {
                // To add one takes as long as to ask two.
                let asked = sets.iter().enumerate().map(|(i, set)| i * set.map_or(0, Set::len));
                let is_shorter = asked.sum::<usize>() <= 2 * self.work(sets);
                let new = |i| difference(sets[i], &sets[..i]);
                is_shorter.then(|| (0..sets.len()).flat_map(new).collect())
            }
            Question::Diff => {
                let (first, others) = sets.split_first()?;
                let mut others = others.to_vec();
                // The largest is the one that most probably has a member.
                others.sort_by_key(|set| Reverse(set.map_or(0, Set::len)));
                // Redis's formula.
                let asked = first.map_or(0, Set::len).saturating_mul(sets.iter().flatten().count());
                (asked / 2 <= self.work(sets)).then(|| difference(*first, &others).collect())
            }
        }
    }

    /// Puts these members into a set that is empty; or finds them by adding sets to it and removing them.
    fn fill(self, members: Option<Vec<Vec<Member>>>, sets: &[Option<Set>], set: &mut Edit<Set>) {
        if let Some(members) = members {
            set.expect(members.iter().map(Vec::len).sum());
            return members.iter().for_each(|group| set.add_all(group));
        }
        let length = |i: &usize| sets[*i].map_or(0, Set::len);
        // A small union has the order in which its members come. A large one has none.
        let largest = (0..sets.len()).max_by_key(length).unwrap_or(0);
        let copies_largest = self == Question::Union && set.limits.is_table(length(&largest));
        let first = if copies_largest { largest } else { 0 };
        sets[first].into_iter().for_each(|first| set.begin_with(first));
        for (_, other) in sets.iter().enumerate().filter(|(i, _)| *i != first) {
            for group in other.iter().flat_map(|other| other.groups()) {
                match self {
                    Question::Diff => group.into_iter().for_each(|member| _ = set.remove(member)),
                    _ => set.add_all(&group),
                }
            }
        }
    }
}

/// The members that all sets have, in groups, in the order of the smallest.
fn intersection<'a>(sets: &[Option<Set<'a>>]) -> impl Iterator<Item = Vec<Member<'a>>> + use<'a> {
    let all: Option<Vec<Set>> = sets.iter().copied().collect();
    let mut others = all.unwrap_or_default();
    others.sort_by_key(|set| set.len());
    let smallest = others.drain(..others.len().min(1)).next();
    smallest.into_iter().flat_map(Set::groups).map(move |mut group| {
        others.iter().for_each(|other| other.keep(true, &mut group));
        group
    })
}

/// The members of a set that none of the others has, in groups.
fn difference<'a>(
    set: Option<Set<'a>>,
    others: &[Option<Set<'a>>],
) -> impl Iterator<Item = Vec<Member<'a>>> {
    set.into_iter().flat_map(Set::groups).map(|mut group| {
        others.iter().flatten().for_each(|other| other.keep(false, &mut group));
        group
    })
}

fn reply_with(set: Option<Set>, reply: &mut Reply) {
    reply.set(set.map_or(0, Set::len));
    reply.each(set.into_iter().flat_map(Set::iter), bulk);
}

fn bulk(reply: &mut Reply, member: Member) {
    member.read(|bytes| reply.bulk(bytes));
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::types::table::random_below;
    use crate::types::{Limits, Packed};
    use std::collections::BTreeSet;

    fn read(made: &Option<Loose>) -> Option<Set<'_>> {
        made.as_ref().and_then(|made| made.look().read::<Set>())
    }

    /// Sets of any form, few or many, with members in common.
    #[test]
    fn what_is_found_and_what_is_made_is_what_ordered_sets_answer() {
        let packed = Packed { entries: 10, value: 9 };
        let limits = Limits { intset: 20, set: packed, ..Limits::NOTHING };
        let texts = |set: Option<Set>| -> Vec<Vec<u8>> {
            let members = set.into_iter().flat_map(Set::iter);
            let mut texts: Vec<_> = members.map(|member| member.read(<[u8]>::to_vec)).collect();
            texts.sort();
            texts
        };
        for _ in 0..2_000 {
            let models: Vec<BTreeSet<Vec<u8>>> = (0..1 + random_below(7))
                .map(|_| {
                    let letter = ["", "m"][random_below(2)];
                    let (size, bound) =
                        ([0, 3, 30, 400][random_below(4)], [30, 500][random_below(2)]);
                    let member = |_| format!("{letter}{}", random_below(bound)).into_bytes();
                    (0..size).map(member).collect()
                })
                .collect();
            let made = |model: &BTreeSet<Vec<u8>>| {
                let members: Vec<Member> = model.iter().map(|text| Member::Bytes(text)).collect();
                Loose::filled::<Set>(b"", &limits, |set| set.add_all(&members))
            };
            let made: Vec<Option<Loose>> = models.iter().map(made).collect();
            let sets: Vec<Option<Set>> = made.iter().map(read).collect();
            for question in [Question::Inter, Question::Union, Question::Diff] {
                let join = |all: BTreeSet<Vec<u8>>, other| match question {
                    Question::Inter => &all & other,
                    Question::Union => &all | other,
                    Question::Diff => &all - other,
                };
                let model = models[1..].iter().fold(models[0].clone(), join);
                let model: Vec<Vec<u8>> = model.into_iter().collect();
                let found = question.members(&sets);
                if let Some(found) = &found {
                    let found = found.iter().flatten().map(|member| member.read(<[u8]>::to_vec));
                    let mut found: Vec<_> = found.collect();
                    found.sort();
                    assert_eq!(found, model);
                }
                let without = (question != Question::Inter).then_some(None);
                for members in [Some(found), without].into_iter().flatten() {
                    let made = Loose::filled::<Set>(b"", &limits, |set| {
                        question.fill(members, &sets, set);
                    });
                    assert_eq!(texts(read(&made)), model);
                }
            }
        }
    }
}
