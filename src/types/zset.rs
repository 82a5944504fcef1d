//! A sorted set: members, each with a score, in the order of the scores.
//!
//! It is asked in two ways: what is the score of this member, and which members are at these ranks or between
//! these scores? A large one keeps an index for each question, and the members once:
//!
//! ```text
//! ZADD z 2 Ada 1 Bob 2 Carl
//!
//! scores, a table              the table's heap            order, a tree that knows ranks (ranked.rs)
//! digest of Ada  → 2, piece ──▶ A d a ◀── piece, 2 ──┐
//! digest of Carl → 2, piece ──▶ C a r l ◀──────────┐ │     rank 0    1 Bob
//! digest of Bob  → 1, piece ──▶ B o b              │ └──── rank 1    2 Ada       equal scores: by their bytes
//!                                                  └────── rank 2    2 Carl
//! ```
//!
//! So ZSCORE is a look into the table, and ZRANK is that and a search in the tree. Since the tree knows
//! where the bytes of a member are, they may not be moved without it. So it is this file, and not the
//! table, that moves them when a block of the heap is to be left ([`Sorted::leave_some`]).
//!
//! A small one is a listpack of members and scores, in order. A score is the bytes of the double, the
//! most significant first, without the zeros at the end: 1 takes two bytes, a Unix time five.
//!
//! **How Redis does it**: t_zset.c: a dict and a skip list that share their strings. In a listpack it keeps
//! scores as integers or text, which loses the sign of -0; so do we. With a million members of 16 bytes, each
//! takes 129 bytes there and 105 here, and a search waits for memory less often (ranked.rs).

use super::edit::{Edit, Place};
use super::entry::{Kind, LargeValue};
use super::hash::{Field, MOST_PACKED, find};
use super::heap::{Heap, Piece};
use super::listpack::{self, Element, Listpack, ListpackMut};
use super::ranked::Ranked;
use super::set::Member;
use super::table::{self, Held, Keyed, Table, WARM, groups};
use super::{ELEMENTS_PER_COMMAND, Packed, Part, Type, Value, rewrite_elements};
use crate::key::{Key, digest_of};
use crate::notify::Class;
use crate::resp::print_double;
use std::cmp::Ordering;
use std::ops::Range;

/// A sorted set to be read, in either form.
#[derive(Clone, Copy)]
pub enum Zset<'a> {
    Packed(Listpack<'a>),
    Sorted(&'a Sorted),
}

/// A large sorted set.
pub struct Sorted {
    scores: Table<Scored>,
    order: Ranked<Ordered>,
    /// The rank of the next member that is moved if blocks are to be left.
    leaving: usize,
}

/// A member in the table.
pub struct Scored {
    piece: Piece,
    score: f64,
}

/// A member in the order. The double is in two halves, because whole it would take room to be aligned.
#[derive(Clone)]
struct Ordered {
    score: [u32; 2],
    /// The table's piece. It is freed there.
    piece: Piece,
}

/// Members and their scores as they are gathered, in no order yet.
pub struct Accumulator(Table<Scored>);

/// A member and its score.
pub type Scoring<'a> = (&'a [u8], f64);

impl Keyed for Scored {
    /// Because the order has the same pieces.
    const IS_MOVED: bool = false;

    fn key<'a>(&'a self, heap: &'a Heap) -> &'a [u8] {
        heap.bytes(&self.piece)
    }

    fn piece_mut(&mut self) -> Option<&mut Piece> {
        None
    }

    fn outside(&self) -> usize {
        0
    }

    fn recount(&self) -> usize {
        self.piece.size()
    }
}

impl Ordered {
    fn new(score: f64, piece: Piece) -> Ordered {
        let bits = score.to_bits();
        Ordered { score: [bits as u32, (bits >> 32) as u32], piece }
    }

    fn score(&self) -> f64 {
        f64::from_bits(u64::from(self.score[0]) | u64::from(self.score[1]) << 32)
    }
}

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
                (Member::Key(Key { bytes: held.key(), digest }), held.entry.score)
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
            Zset::Sorted(sorted) => {
                sorted.scores.scan(cursor, |held| visit((held.key(), held.entry.score)))
            }
        }
    }

    /// Whether it is small, so that ZSCAN shows it whole.
    pub fn is_packed(self) -> bool {
        matches!(self, Zset::Packed(_))
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

    pub(super) fn fields(self) -> Option<&'a Table<Field>> {
        None
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

impl Sorted {
    /// A sorted set of so many members, which come in order.
    fn of<'a>(members: impl Iterator<Item = Scoring<'a>>, count: usize) -> Sorted {
        let mut scores = Table::with_room(count);
        let ordered = members.map(|(member, score)| {
            let make = |heap: &mut Heap| Scored { piece: heap.add(&[member]), score };
            let (held, _) = scores.get_or_insert(digest_of(member), member, make);
            Ordered::new(score, held.entry.piece.clone())
        });
        let order = ordered.collect();
        Sorted { scores, order, leaving: 0 }
    }

    fn scoring<'a>(&'a self, ordered: &'a Ordered) -> Scoring<'a> {
        (self.scores.heap.bytes(&ordered.piece), ordered.score())
    }

    fn score(&self, member: Key) -> Option<f64> {
        self.scores.get(member.digest, &member).map(|held| held.entry.score)
    }

    /// How many come before this one. Most are told apart by their scores, without looking at the members.
    fn rank_of(&self, (member, score): Scoring) -> usize {
        self.order.rank(|ordered| {
            let other = ordered.score();
            other < score || other == score && self.scores.heap.bytes(&ordered.piece) < member
        })
    }

    /// Gives a member the score that `decide` makes of its present one, if there is one; `None` leaves all as it
    /// is. Returns whether something has changed.
    fn put(&mut self, member: &[u8], decide: impl FnOnce(Option<f64>) -> Option<f64>) -> bool {
        self.leave_some();
        let digest = digest_of(member);
        let Some(held) = self.scores.get_mut(digest, member) else {
            let Some(score) = decide(None) else {
                return false;
            };
            let rank = self.rank_of((member, score));
            self.leaving += usize::from(rank < self.leaving);
            let make = |heap: &mut Heap| Scored { piece: heap.add(&[member]), score };
            let (held, _) = self.scores.get_or_insert(digest, member, make);
            let piece = held.entry.piece.clone();
            self.order.insert(rank, Ordered::new(score, piece));
            return true;
        };
        let old = held.entry.score;
        let Some(score) = decide(Some(old)).filter(|score| *score != old) else {
            return false;
        };
        held.entry.score = score;
        let ordered = Ordered::new(score, held.entry.piece.clone());
        let rank = self.rank_of((member, old));
        if self.stays(rank, (member, score)) {
            self.order.set(rank, ordered);
        } else {
            self.order.remove(rank);
            self.order.insert(self.rank_of((member, score)), ordered);
        }
        true
    }

    /// Whether the member at this rank stays there with this score, as with small increments it mostly does.
    fn stays(&self, rank: usize, scoring: Scoring) -> bool {
        let is = |rank: Option<usize>, ordering: Ordering| {
            let other = rank.and_then(|rank| self.order.get(rank));
            other.is_none_or(|other| by_score(self.scoring(other), scoring) == ordering)
        };
        is(rank.checked_sub(1), Ordering::Less) && is(Some(rank + 1), Ordering::Greater)
    }

    fn remove(&mut self, member: &[u8]) -> bool {
        self.leave_some();
        let member = Key::of(member);
        let Some(score) = self.score(member) else {
            return false;
        };
        let rank = self.rank_of((&member, score));
        self.leaving -= usize::from(rank < self.leaving);
        self.order.remove(rank);
        self.scores.remove(member.digest, &member, |scored, heap| heap.free(scored.piece));
        true
    }

    /// Removes the members at these ranks, from the first to the last, or backwards; each is told.
    fn remove_ranks(
        &mut self,
        ranks: Range<usize>,
        reverse: bool,
        removed: &mut dyn FnMut(Scoring),
    ) {
        let len = self.order.len();
        if ranks.len() == 1 {
            // ZPOPMIN. To look ahead would be in vain.
            if let Some((member, score)) = self.remove_rank(ranks.start) {
                removed((&member, score));
            }
            return;
        }
        if ranks.len() > len / 2 {
            // What stays is less, so it goes into a new set. That waits for memory less often.
            let all = Zset::Sorted(self);
            all.iter(ranks.clone(), reverse).for_each(removed);
            let stays = all.iter(0..ranks.start, false).chain(all.iter(ranks.end..len, false));
            *self = Sorted::of(stays, len - ranks.len());
            return;
        }
        let mut left = ranks;
        while !left.is_empty() {
            let count = left.len().min(WARM);
            let some =
                if reverse { left.end - count..left.end } else { left.start..left.start + count };
            self.remove_some(some.clone(), reverse, removed);
            // Behind those that go all move up.
            left = if reverse { left.start..some.start } else { left.start..left.end - count };
        }
    }

    /// Removes so few that the table can look ahead to all of them at once.
    fn remove_some(
        &mut self,
        ranks: Range<usize>,
        reverse: bool,
        removed: &mut dyn FnMut(Scoring),
    ) {
        ranks.clone().for_each(|_| self.leave_some());
        let mut all: Vec<Ordered> = self.order.iter(ranks.clone()).cloned().collect();
        if reverse {
            all.reverse();
        }
        let Sorted { scores, order, leaving } = self;
        let digest = |ordered: &Ordered| digest_of(scores.heap.bytes(&ordered.piece));
        let digests: Vec<u64> = all.iter().map(digest).collect();
        scores.look_ahead(digests.iter().copied());
        let mut member = Vec::new();
        for (ordered, digest) in all.iter().zip(digests) {
            member.clear();
            member.extend_from_slice(scores.heap.bytes(&ordered.piece));
            removed((&member, ordered.score()));
            scores.remove(digest, &member, |scored, heap| heap.free(scored.piece));
        }
        *leaving -= ranks.len().min(leaving.saturating_sub(ranks.start));
        for _ in ranks.clone() {
            order.remove(ranks.start);
        }
    }

    /// Removes the member at a rank; returns it.
    fn remove_rank(&mut self, rank: usize) -> Option<(Vec<u8>, f64)> {
        self.leave_some();
        let ordered = self.order.remove(rank)?;
        self.leaving -= usize::from(rank < self.leaving);
        let (member, score) = self.scoring(&ordered);
        let member = member.to_vec();
        self.scores.remove(digest_of(&member), &member, |scored, heap| heap.free(scored.piece));
        Some((member, score))
    }

    /// With each change, if the heap has blocks that are to be left (heap.rs): moves a few members, in the
    /// table and in the order.
    fn leave_some(&mut self) {
        let heap = &mut self.scores.heap;
        if !heap.is_leaving() && !heap.begin_leaving() {
            return;
        }
        for _ in 0..MOVED_AT_ONCE {
            let Some(ordered) = self.order.get(self.leaving) else {
                self.leaving = 0;
                return;
            };
            if self.scores.heap.is_to_move(&ordered.piece) {
                let (member, score) = self.scoring(ordered);
                let member = member.to_vec();
                if let Some(held) = self.scores.get_mut(digest_of(&member), &member) {
                    held.heap.relocate(&mut held.entry.piece);
                    let moved = Ordered::new(score, held.entry.piece.clone());
                    self.order.set(self.leaving, moved);
                }
            }
            self.leaving += 1;
        }
    }
}

/// Few, because each member that is moved waits for memory. So a set that loses two thirds of its members
/// has left its blocks.
const MOVED_AT_ONCE: usize = 2;

impl Type for Zset<'_> {
    const NAME: &'static str = "zset";
    const NUMBER: u32 = 3;
    const CLASS: Class = Class::Zset;
    const NEW: (Kind, &'static [u8]) = (Kind::Zset, &listpack::EMPTY);
    type Look<'a> = Zset<'a>;
    type Large = Box<Sorted>;

    fn of(value: Value<'_>) -> Option<Zset<'_>> {
        if let Value::Zset(zset) = value { Some(zset) } else { None }
    }

    fn is(kind: Kind) -> bool {
        kind == Kind::Zset
    }

    fn large(value: &mut LargeValue) -> Option<&mut Box<Sorted>> {
        if let LargeValue::Zset(sorted) = value { Some(sorted) } else { None }
    }

    fn is_nothing(edit: &Edit<Self>) -> bool {
        edit.look().len() == 0
    }
}

impl From<Box<Sorted>> for LargeValue {
    fn from(sorted: Box<Sorted>) -> LargeValue {
        LargeValue::Zset(sorted)
    }
}

impl Clone for Sorted {
    fn clone(&self) -> Sorted {
        Sorted::of(Zset::Sorted(self).all(), self.order.len())
    }
}

impl Accumulator {
    /// With room for so many members.
    pub fn with_room(len: usize) -> Accumulator {
        Accumulator(Table::with_room(len))
    }

    /// Adds members. If one is there already, `join` makes one score of its old one and the new.
    pub fn add_all<'a>(
        &mut self,
        members: impl Iterator<Item = (Member<'a>, f64)>,
        join: impl Fn(f64, f64) -> f64,
    ) {
        for group in groups(members) {
            let keys = group.iter().filter_map(|(member, _)| member.key());
            self.0.look_ahead(keys.map(|key| key.digest));
            for (member, score) in group {
                member.read_key(|key| {
                    let make = |heap: &mut Heap| Scored { piece: heap.add(&[&key]), score };
                    let (held, is_new) = self.0.get_or_insert(key.digest, &key, make);
                    if !is_new {
                        held.entry.score = join(held.entry.score, score);
                    }
                });
            }
        }
    }

    /// Puts them in order.
    pub fn sorted(self) -> Sorted {
        let Accumulator(scores) = self;
        let ordered = |held: Held<Scored>| Ordered::new(held.entry.score, held.entry.piece.clone());
        let mut order: Vec<Ordered> = scores.iter().map(ordered).collect();
        let scoring = |ordered: &'_ Ordered| (scores.heap.bytes(&ordered.piece), ordered.score());
        order.sort_unstable_by(|a, b| by_score(scoring(a), scoring(b)));
        Sorted { order: order.into_iter().collect(), scores, leaving: 0 }
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
        self.place_mut().grow(Box::new(sorted));
    }

    /// Unpacks a new sorted set at once, if so many members are too many for a packed one.
    pub fn expect(&mut self, count: usize) {
        if count > self.limits.zset.entries {
            self.unpack();
        }
    }

    /// Fills a new sorted set with what was gathered.
    pub fn fill(&mut self, gathered: Sorted) {
        let all = || Zset::Sorted(&gathered).all();
        let longest = all().map(|(member, _)| member.len()).max();
        let size: usize = all().map(|(member, _)| member.len()).sum();
        let Packed { entries, value } = self.limits.zset;
        let is_small = gathered.order.len() <= entries && size <= MOST_PACKED;
        match (longest, self.place_mut()) {
            (None, _) => {}
            (Some(longest), Place::Small(small)) if is_small && longest <= value => {
                small.edit(|bytes, start| {
                    for (member, score) in all() {
                        let (score, length) = packed(score);
                        ListpackMut { bytes, start }.push(&[member, &score[..length]]);
                    }
                });
            }
            (_, place) => place.grow(Box::new(gathered)),
        }
    }

    /// Removes a member; returns whether it was there.
    pub fn remove(&mut self, member: &[u8]) -> bool {
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
