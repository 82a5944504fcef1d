//! A sorted set: members, each with a score, in the order of the scores.
//!
//! It is asked in two ways: what is the score of this member, and which members are at these ranks or between
//! these scores? A large one keeps an index for each question (zset/sorted.rs).
//!
//! A small one is a listpack of members and scores, in order. A score is the bytes of the double, the
//! most significant first, without the zeros at the end: 1 takes two bytes, a Unix time five.
//!
//! **How Redis does it**: t_zset.c. In a listpack it keeps scores as integers or text, which loses the sign of
//! -0; so do we.

mod sorted;

pub use sorted::{Accumulator, Sorted};

use super::bulk::{Scores, Twice, in_order};
use super::edit::{Edit, Place};
use super::entry::{Form, Kind, LargeValue};
use super::hash::{MOST_PACKED, find};
use super::listpack::{self, Element, Gathered, Listpack, ListpackMut};
use super::set::Member;
use super::shared::Shared;
use super::table;
use super::{ELEMENTS_PER_COMMAND, Limits, Packed, Part, Type, Value, rewrite_elements};
use crate::key::Key;
use crate::notify::Class;
use crate::resp::print_double;
pub(super) use sorted::Scored;
use std::cmp::Ordering;
use std::ops::Range;

/// A sorted set to be read, in either form.
#[derive(Clone, Copy)]
pub enum Zset<'a> {
    Packed(Listpack<'a>),
    Sorted(&'a Sorted),
}

/// A member and its score.
pub type Scoring<'a> = (&'a [u8], f64);

/// Which of two comes first. No score is NaN.
pub fn by_score(a: Scoring, b: Scoring) -> Ordering {
    a.1.partial_cmp(&b.1).unwrap_or(Ordering::Equal).then_with(|| a.0.cmp(b.0))
}

impl<'a> Zset<'a> {
    /// How many members there are.
    pub fn len(self) -> usize {
        match self {
            Zset::Packed(listpack) => listpack.len() / 2,
            Zset::Sorted(sorted) => sorted.order.len(),
        }
    }

    pub fn score(self, member: Member) -> Option<f64> {
        match self {
            Zset::Packed(listpack) => {
                member.read(|bytes| find(listpack, bytes).map(|(_, score)| unpacked(score)))
            }
            Zset::Sorted(sorted) => member.read_key(|key| sorted.score(key)),
        }
    }

    /// Has in the processor's caches what the scores of members with these digests need.
    pub fn look_ahead(self, digests: impl Iterator<Item = u64>) {
        if let Zset::Sorted(sorted) = self {
            sorted.scores.look_ahead(digests);
        }
    }

    /// The members with their scores, in no order.
    pub fn members(self) -> Box<dyn Iterator<Item = (Member<'a>, f64)> + 'a> {
        match self {
            Zset::Packed(listpack) => {
                Box::new(scorings(listpack).map(|(member, score)| (Member::Bytes(member), score)))
            }
            Zset::Sorted(sorted) => Box::new(sorted.scores.with_digests().map(|(digest, held)| {
                let (bytes, score) = held.scoring();
                (Member::Key(Key { bytes, digest }), score)
            })),
        }
    }

    /// The rank of a member, and its score.
    pub fn rank(self, member: &[u8]) -> Option<(usize, f64)> {
        match self {
            Zset::Packed(listpack) => {
                let mut pairs = listpack.pairs().enumerate();
                let (rank, (_, score)) = pairs.find(|(_, (name, _))| name.bytes == member)?;
                Some((rank, unpacked(score)))
            }
            Zset::Sorted(sorted) => {
                let score = sorted.score(Key::of(member))?;
                Some((sorted.rank_of((member, score)), score))
            }
        }
    }

    /// The members at these ranks with their scores; backwards if `reverse`.
    pub fn iter(
        self,
        ranks: Range<usize>,
        reverse: bool,
    ) -> Box<dyn Iterator<Item = Scoring<'a>> + 'a> {
        match (self, reverse) {
            (Zset::Packed(listpack), false) => {
                Box::new(scorings(listpack).skip(ranks.start).take(ranks.len()))
            }
            (Zset::Packed(listpack), true) => {
                let found = scorings(listpack).skip(ranks.start).take(ranks.len());
                Box::new(found.collect::<Vec<_>>().into_iter().rev())
            }
            (Zset::Sorted(sorted), false) => {
                Box::new(sorted.order.iter(ranks).map(|ordered| sorted.scoring(ordered)))
            }
            (Zset::Sorted(sorted), true) => {
                Box::new(sorted.order.iter_back(ranks).map(|ordered| sorted.scoring(ordered)))
            }
        }
    }

    /// All members with their scores, in order.
    pub fn all(self) -> Box<dyn Iterator<Item = Scoring<'a>> + 'a> {
        self.iter(0..self.len(), false)
    }

    /// How many members stand before the place that is looked for: those for which `is_before` holds.
    pub fn place(self, is_before: impl Fn(Scoring) -> bool) -> usize {
        match self {
            Zset::Packed(listpack) => {
                scorings(listpack).take_while(|scoring| is_before(*scoring)).count()
            }
            Zset::Sorted(sorted) => sorted.order.rank(|ordered| is_before(sorted.scoring(ordered))),
        }
    }

    /// A member, each with the same chance. A sorted set is never empty: the key goes with its last member.
    pub fn random(self) -> Option<Scoring<'a>> {
        let rank = table::random_below(self.len());
        match self {
            Zset::Packed(listpack) => scorings(listpack).nth(rank),
            Zset::Sorted(sorted) => sorted.order.get(rank).map(|ordered| sorted.scoring(ordered)),
        }
    }

    /// Visits the members of one slot of the table, or all of a packed set; returns the cursor of the next.
    pub fn scan(self, cursor: u64, mut visit: impl FnMut(Scoring<'a>)) -> u64 {
        match self {
            Zset::Packed(listpack) => {
                scorings(listpack).for_each(visit);
                0
            }
            Zset::Sorted(sorted) => sorted.scores.scan(cursor, |held| visit(held.scoring())),
        }
    }

    /// Whether it is small, so that ZSCAN shows it whole.
    pub fn is_packed(self) -> bool {
        matches!(self, Zset::Packed(_))
    }

    /// Puts a score behind its member.
    pub fn push_score(score: f64, members: &mut Gathered) {
        let (bytes, length) = packed(score);
        members.push(&bytes[..length]);
    }

    /// How a sorted set is stored that has come whole, as these members and scores. Most come in order.
    pub fn whole(members: &'a mut Gathered, limits: &Limits) -> Result<Form<'a>, Twice> {
        let all = members.end();
        let names = in_order(all.pairs().map(|(member, _)| member.bytes))?;
        let Packed { entries, value } = limits.zset;
        let is_small = names.len() <= entries && all.0.len() <= MOST_PACKED;
        let is_short = names.iter().all(|member| member.len() <= value);
        if is_small && is_short && scorings(all).is_sorted_by(|a, b| by_score(*a, *b).is_lt()) {
            return Ok(Form::Small(Kind::Zset, members.end().0));
        }
        let mut scores = Scores::expecting(names.len() as u64);
        scorings(all).try_for_each(|(member, score)| scores.add(member, score))?;
        scores.end(members, limits)
    }

    pub(super) fn encoding(self) -> &'static str {
        if self.is_packed() { "listpack" } else { "skiplist" }
    }

    /// Bytes that it has beside its entry, which are few unless it is large.
    pub fn memory(self) -> usize {
        match self {
            Zset::Packed(_) => 0,
            Zset::Sorted(sorted) => {
                table::alone::<Scored>() + sorted.scores.memory() + sorted.order.memory()
            }
        }
    }

    pub(super) fn recount(self) -> usize {
        let Zset::Sorted(sorted) = self else { return 0 };
        table::alone::<Scored>() + sorted.scores.recount() + sorted.order.recount()
    }

    pub(super) fn rewrite(self, key: &[u8], emit: &mut dyn FnMut(&[&[u8]])) {
        let mut all = self.all().peekable();
        while all.peek().is_some() {
            let some = all.by_ref().take(ELEMENTS_PER_COMMAND).map(|(member, score)| {
                let mut text = Vec::new();
                print_double(score, &mut text);
                (text, member)
            });
            let some: Vec<_> = some.collect();
            let elements = some.iter().map(|(score, member)| [&score[..], *member]);
            rewrite_elements([b"ZADD", key], elements, emit);
        }
    }

    pub(super) fn parts(self, take: &mut dyn FnMut(Part)) {
        for (member, score) in self.all() {
            let mut text = Vec::new();
            print_double(score, &mut text);
            take(Part::Pair(member, &text));
        }
    }
}

fn scorings(listpack: Listpack<'_>) -> impl Iterator<Item = Scoring<'_>> {
    listpack.pairs().map(|(member, score)| (member.bytes, unpacked(score)))
}

/// The score that an element of a listpack is.
fn unpacked(element: Element) -> f64 {
    let mut bytes = [0; 8];
    bytes[..element.bytes.len()].copy_from_slice(element.bytes);
    f64::from_be_bytes(bytes)
}

/// The bytes of a score, of which only the first so many are to be kept.
fn packed(score: f64) -> ([u8; 8], usize) {
    // The sum of -0 and 0 is 0.
    let bytes = (score + 0.0).to_be_bytes();
    let length = bytes.iter().rposition(|byte| *byte != 0).map_or(0, |last| last + 1);
    (bytes, length)
}

impl Type for Zset<'_> {
    const NAME: &'static str = "zset";
    const NUMBER: u32 = 3;
    const CLASS: Class = Class::Zset;
    const NEW: (Kind, &'static [u8]) = (Kind::Zset, &listpack::EMPTY);
    type Look<'a> = Zset<'a>;
    type Large = Shared<Sorted>;

    fn of(value: Value<'_>) -> Option<Zset<'_>> {
        if let Value::Zset(zset) = value { Some(zset) } else { None }
    }

    fn is(kind: Kind) -> bool {
        kind == Kind::Zset
    }

    fn large(value: &mut LargeValue) -> Option<&mut Shared<Sorted>> {
        if let LargeValue::Zset(sorted) = value { Some(sorted) } else { None }
    }

    fn is_nothing(edit: &Edit<Self>) -> bool {
        edit.look().len() == 0
    }
}

impl From<Shared<Sorted>> for LargeValue {
    fn from(sorted: Shared<Sorted>) -> LargeValue {
        LargeValue::Zset(sorted)
    }
}

impl Edit<'_, Zset<'_>> {
    pub fn look(&self) -> Zset<'_> {
        match self.place() {
            Place::Small(small) => Zset::Packed(Listpack(small.payload())),
            Place::Large(sorted) => Zset::Sorted(sorted),
        }
    }

    /// Gives a member the score that `decide` makes of its present one, if there is one; `None` leaves all as
    /// it is. A packed set that passes a limit is unpacked.
    pub fn put(&mut self, member: &[u8], decide: impl FnOnce(Option<f64>) -> Option<f64>) {
        if self.place().is_shared() {
            let old = self.look().score(Member::Bytes(member));
            if let Some(score) = decide(old).filter(|score| old != Some(*score))
                && let Place::Large(sorted) = self.place_mut()
            {
                sorted.put(member, |_| Some(score));
            }
            return;
        }
        let old = match self.place() {
            Place::Small(small) => find(Listpack(small.payload()), member),
            Place::Large(_) => {
                return self.attempt(|place| match place {
                    Place::Large(sorted) => ((), sorted.put(member, decide)),
                    Place::Small(_) => ((), false),
                });
            }
        };
        let old = old.map(|(name, score)| (name.at, unpacked(score)));
        let is_other = |score: &f64| old.is_none_or(|(_, old)| old != *score);
        let Some(score) = decide(old.map(|(_, score)| score)).filter(is_other) else {
            return;
        };
        if old.is_none() && !self.has_room_for(member) {
            self.unpack();
        }
        match self.place_mut() {
            Place::Small(small) => small.edit(|bytes, start| {
                put_packed(ListpackMut { bytes, start }, old.map(|(at, _)| at), (member, score));
            }),
            Place::Large(sorted) => drop(sorted.put(member, |_| Some(score))),
        }
    }

    /// Whether another member may be added to a packed set.
    fn has_room_for(&self, member: &[u8]) -> bool {
        let Packed { entries, value } = self.limits.zset;
        match self.place() {
            Place::Small(small) => {
                let bytes = small.payload().len() + member.len();
                self.look().len() < entries && member.len() <= value && bytes <= MOST_PACKED
            }
            Place::Large(_) => true,
        }
    }

    /// Turns a packed set into a large one, for good.
    fn unpack(&mut self) {
        let sorted = Sorted::of(self.look().all(), self.look().len());
        self.place_mut().grow(Shared::new(sorted));
    }

    /// Unpacks a new sorted set at once, if so many members are too many for a packed one.
    pub fn expect(&mut self, count: usize) {
        if count > self.limits.zset.entries {
            self.unpack();
        }
    }

    /// Fills a new sorted set with what was gathered.
    pub fn fill(&mut self, gathered: Sorted) {
        let limits = self.limits;
        match (gathered.stored(&mut Gathered::default(), limits), self.place_mut()) {
            (Form::Small(kind, payload), Place::Small(small)) => small.set(kind, payload),
            (Form::Small(..), Place::Large(_)) => {}
            (Form::Large(sorted), place) => place.grow(sorted),
        }
    }

    /// Removes a member; returns whether it was there.
    pub fn remove(&mut self, member: &[u8]) -> bool {
        if self.place().is_shared() && self.look().score(Member::Bytes(member)).is_none() {
            return false;
        }
        self.attempt(|place| {
            let removed = match place {
                Place::Large(sorted) => sorted.remove(member),
                Place::Small(small) => {
                    let at = find(Listpack(small.payload()), member).map(|(name, _)| name.at);
                    if let Some(at) = at {
                        small.edit(|bytes, start| ListpackMut { bytes, start }.splice(at, 2, &[]));
                    }
                    at.is_some()
                }
            };
            (removed, removed)
        })
    }

    /// Removes the members at these ranks, from the first to the last, or backwards; each is told.
    pub fn remove_ranks(
        &mut self,
        ranks: Range<usize>,
        reverse: bool,
        mut removed: impl FnMut(Scoring),
    ) {
        if ranks.is_empty() {
            return;
        }
        match self.place_mut() {
            Place::Small(small) => {
                let listpack = Listpack(small.payload());
                Zset::Packed(listpack).iter(ranks.clone(), reverse).for_each(removed);
                let first = listpack.pairs().nth(ranks.start).map(|(member, _)| member.at);
                if let Some(at) = first {
                    let count = 2 * ranks.len();
                    small.edit(|bytes, start| ListpackMut { bytes, start }.splice(at, count, &[]));
                }
            }
            Place::Large(sorted) => sorted.remove_ranks(ranks, reverse, &mut removed),
        }
    }
}

impl Sorted {
    /// How it is stored. A small one is put into `room`.
    pub(super) fn stored<'a, L: From<Shared<Sorted>>>(
        self,
        room: &'a mut Gathered,
        limits: &Limits,
    ) -> Form<'a, L> {
        let Packed { entries, value } = limits.zset;
        let all = || Zset::Sorted(&self).all();
        let size: usize = all().map(|(member, _)| member.len()).sum();
        let is_short = all().all(|(member, _)| member.len() <= value);
        if self.order.len() > entries || size > MOST_PACKED || !is_short {
            return Form::Large(Shared::new(self).into());
        }
        room.clear();
        for (member, score) in all() {
            room.push(member);
            Zset::push_score(score, room);
        }
        Form::Small(Kind::Zset, room.end().0)
    }
}

/// Puts a member in its place; it has been at the place `old` before, if anywhere.
fn put_packed(mut listpack: ListpackMut, old: Option<usize>, scoring: Scoring) {
    if let Some(at) = old {
        listpack.splice(at, 2, &[]);
    }
    let there = Listpack(&listpack.bytes[listpack.start..]);
    let is_behind = |(member, score): &(Element, Element)| {
        by_score((member.bytes, unpacked(*score)), scoring) == Ordering::Greater
    };
    let at = there.pairs().find(is_behind).map_or(there.0.len(), |(member, _)| member.at);
    let (member, score) = scoring;
    let (score, length) = packed(score);
    listpack.splice(at, 0, &[member, &score[..length]]);
}

#[cfg(test)]
mod tests;
