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
//! SUNION a b c    1 2 3 4   adds all to one set
//! SDIFF a b c     1         walks a, and asks the others; or makes a set of a, and removes b and c from it
//! ```
//!
//! SDIFF has two ways because either may be long. The first asks each other set for each member of `a`; the
//! second walks all sets, once. The sizes tell which is shorter.
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
use crate::types::table::groups;
use crate::types::{Edit, Entry, Loose, Member, Set};
use std::cmp::Reverse;
use std::mem::take;
use std::ops::Range;

#[rustfmt::skip]
pub const COMMANDS: &[Command] = &[
    command("sadd",        -3, Run::Write(sadd),        ONE_KEY,      "1.0.0", "key member [member ...]", "Add one or more members to a set").with(&[Flag::Quick, Flag::ThenField]).uses("RW insert"),
    command("scard",        2, Run::Read(scard),        ONE_KEY,      "1.0.0", "key", "Get the number of members in a set").with(&[Flag::Quick]).uses("RO"),
    command("sdiff",       -2, Run::Long(sdiff),        ALL_KEYS,     "1.0.0", "key [key ...]", "Subtract multiple sets"),
    command("sdiffstore",  -3, Run::Write(sdiffstore),  ALL_KEYS,     "1.0.0", "destination key [key ...]", "Subtract multiple sets and store the resulting set in a key").uses("OW update, RO access"),
    command("sinter",      -2, Run::Long(sinter),       ALL_KEYS,     "1.0.0", "key [key ...]", "Intersect multiple sets"),
    command("sintercard",  -3, Run::Long(sintercard),   COUNTED_KEYS, "7.0.0", "numkeys key [key ...] [LIMIT limit]", "Intersect multiple sets and return the cardinality of the result"),
    command("sinterstore", -3, Run::Write(sinterstore), ALL_KEYS,     "1.0.0", "destination key [key ...]", "Intersect multiple sets and store the resulting set in a key").uses("RW update, RO access"),
    command("sismember",    3, Run::Read(sismember),    ONE_KEY,      "1.0.0", "key member", "Determine if a given value is a member of a set").with(&[Flag::ThenField]).uses("RO"),
    command("smembers",     2, Run::Read(smembers),     ONE_KEY,      "1.0.0", "key", "Get all the members in a set").with(&[Flag::Quick]),
    command("smismember",  -3, Run::Read(smismember),   ONE_KEY,      "6.2.0", "key member [member ...]", "Returns the membership associated with the given elements for a set").with(&[Flag::ThenField]),
    command("smove",        4, Run::Write(smove),       TWO_KEYS,     "1.0.0", "source destination member", "Move a member from one set to another").uses("RW access delete, RW insert"),
    command("spop",        -2, Run::Write(spop),        ONE_KEY,      "1.0.0", "key [count]", "Remove and return one or multiple random members from a set").with(&[Flag::Quick]).uses("RW access delete"),
    command("srandmember", -2, Run::Read(srandmember),  ONE_KEY,      "1.0.0", "key [count]", "Get one or multiple random members from a set"),
    command("srem",        -3, Run::Write(srem),        ONE_KEY,      "1.0.0", "key member [member ...]", "Remove one or more members from a set").with(&[Flag::Quick, Flag::ThenField]).uses("RW delete"),
    command("sscan",       -3, Run::Long(sscan),        ONE_KEY,      "2.8.0", "key cursor [MATCH pattern] [COUNT count]", "Incrementally iterate Set elements"),
    command("sunion",      -2, Run::Long(sunion),       ALL_KEYS,     "1.0.0", "key [key ...]", "Add multiple sets"),
    command("sunionstore", -3, Run::Write(sunionstore), ALL_KEYS,     "1.0.0", "destination key [key ...]", "Add multiple sets and store the resulting set in a key").uses("OW update, RO access"),
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
    let member = set.look().random()?.read(<[u8]>::to_vec);
    set.remove(Member::Bytes(&member));
    Some(member)
}

// Several sets.

/// What is asked about several sets. A key that is missing is an empty set.
#[derive(Clone, Copy)]
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
    ask(Question::Inter, 1..args.len(), view, args, reply, |sets, reply| {
        let members: Vec<Member> = intersection(sets).collect();
        reply.set(members.len());
        reply.each(members, bulk);
    })
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
        reply.count(intersection(sets).take(limit).count());
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

/// Answers with the members of a set that is made for that, as Redis does it.
fn answer<'a>(
    question: Question,
    view: &View,
    args: &'a Args,
    reply: &mut Reply,
) -> Result<Option<Rest<'a>>, Error> {
    let limits = *view.limits;
    ask(question, 1..args.len(), view, args, reply, move |sets, reply| {
        let made = Loose::filled::<Set>(b"", &limits, |set| question.fill(sets, set));
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
    let made = Loose::filled::<Set>(&destination, look.limits, |set| question.fill(&sets, set));
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

    /// How many bytes of members it may put into a new set. An intersection is sent from where it lies.
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

    /// Puts the members that are asked for into a set that is empty.
    fn fill(self, sets: &[Option<Set>], set: &mut Edit<Set>) {
        match self {
            Question::Inter => set.add_all(intersection(sets)),
            Question::Union => {
                set.expect(sets.iter().flatten().map(|set| set.len()).max().unwrap_or(0));
                set.add_all(members(sets));
            }
            Question::Diff => subtract(sets, set),
        }
    }
}

/// Puts what the first of the sets has, and no other, into a set that is empty.
fn subtract(sets: &[Option<Set>], set: &mut Edit<Set>) {
    let (first, others) = sets.split_at(1);
    let Some(minuend) = first[0] else {
        return;
    };
    // Redis's formula.
    let asked = minuend.len().saturating_mul(sets.iter().flatten().count()) / 2;
    if asked <= Question::Diff.work(sets) {
        let mut others: Vec<Set> = others.iter().flatten().copied().collect();
        // The largest is the one that most probably has a member.
        others.sort_by_key(|set| Reverse(set.len()));
        let is_left = |member: &Member| !others.iter().any(|other| other.contains(*member));
        set.add_all(ahead(minuend, others.clone()).filter(is_left));
    } else {
        set.expect(minuend.len());
        set.add_all(minuend.iter());
        for member in members(others) {
            set.remove(member);
        }
    }
}

/// The members of these sets, one after another.
fn members<'a>(sets: &[Option<Set<'a>>]) -> impl Iterator<Item = Member<'a>> {
    sets.iter().flatten().flat_map(|set| set.iter())
}

/// The members of a set, about which the others will be asked. What that needs is fetched for many of them at
/// once, because otherwise the processor would wait for memory a few times for each.
fn ahead<'a>(set: Set<'a>, others: Vec<Set<'a>>) -> impl Iterator<Item = Member<'a>> {
    let groups = groups(set.iter()).inspect(move |group| {
        let digests = group.iter().filter_map(Member::key).map(|key| key.digest);
        others.iter().for_each(|other| other.look_ahead(digests.clone()));
    });
    groups.flatten()
}

/// The members that all sets have, in the order of the smallest.
fn intersection<'a>(sets: &[Option<Set<'a>>]) -> impl Iterator<Item = Member<'a>> + use<'a> {
    let all: Option<Vec<Set>> = sets.iter().copied().collect();
    let mut sets = all.unwrap_or_default();
    sets.sort_by_key(|set| set.len());
    let smallest = sets.drain(..sets.len().min(1)).next();
    let mut others = sets.clone();
    let members = smallest.into_iter().flat_map(move |set| ahead(set, take(&mut others)));
    members.filter(move |member| sets.iter().all(|set| set.contains(*member)))
}

fn reply_with(set: Option<Set>, reply: &mut Reply) {
    reply.set(set.map_or(0, Set::len));
    reply.each(set.into_iter().flat_map(Set::iter), bulk);
}

fn bulk(reply: &mut Reply, member: Member) {
    member.read(|bytes| reply.bulk(bytes));
}
