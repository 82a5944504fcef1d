//! A large sorted set: an index for each of the two questions that it is asked, and the members once.
//!
//! ```text
//! ZADD z 2 Ada 1 Bob 2 Carl
//!
//! scores, a table           the table's heap           order, a tree that knows ranks (ranked.rs)
//! digest of Ada  → piece ──▶ A d a, 2 ◀── piece, 2 ──┐
//! digest of Carl → piece ──▶ C a r l, 2 ◀──────────┐ │     rank 0    1 Bob
//! digest of Bob  → piece ──▶ B o b, 1              │ └──── rank 1    2 Ada       equal scores: by their bytes
//!                                                  └────── rank 2    2 Carl
//! ```
//!
//! So ZSCORE is a look into the table, and ZRANK is that and a search in the tree. Since the tree knows
//! where the bytes of a member are, they may not be moved without it. So it is this file, and not the
//! table, that moves them when a block of the heap is to be left ([`Sorted::leave_some`]).
//!
//! **How Redis does it**: t_zset.c: a dict and a skip list that share their strings. With a million members of
//! 16 bytes, each takes 129 bytes there and 73 here, and a search waits for memory less often (ranked.rs).

use super::{Scoring, Zset, by_score};
use crate::key::{Key, digest_of};
use crate::types::heap::{Heap, Piece};
use crate::types::ranked::Ranked;
use crate::types::set::Member;
use crate::types::table::{Held, HeldMut, Keyed, Table, WARM, groups};
use std::cmp::Ordering;
use std::ops::Range;

/// A large sorted set. In a clone, each piece lies where it does here, so the two indexes are cloned as they are.
#[derive(Clone)]
pub struct Sorted {
    pub scores: Table<Scored>,
    pub(super) order: Ranked<Ordered>,
    /// The rank of the next member that is moved if blocks are to be left.
    leaving: usize,
}

/// A member in the table. In its piece is the member, and behind that the score.
#[derive(Clone)]
pub struct Scored {
    piece: Piece,
}

/// Bytes of a score.
const SCORE: usize = size_of::<f64>();

/// A member in the order.
#[derive(Clone)]
pub struct Ordered {
    score: f64,
    /// The table's piece. It is freed there.
    piece: Piece,
}

/// Members and their scores as they are gathered, in no order yet.
pub struct Accumulator(pub(in crate::types) Table<Scored>);

impl Scored {
    pub fn new(member: &[u8], score: f64, heap: &mut Heap) -> Scored {
        Scored { piece: heap.add(&[member, &score.to_le_bytes()]) }
    }
}

/// The member whose piece this is, and its score.
fn scoring<'a>(piece: &Piece, heap: &'a Heap) -> Scoring<'a> {
    match heap.bytes(piece).split_last_chunk::<SCORE>() {
        Some((member, score)) => (member, f64::from_le_bytes(*score)),
        None => unreachable!("each piece ends with a score"),
    }
}

impl<'a> Held<'a, Scored> {
    pub(super) fn scoring(self) -> Scoring<'a> {
        scoring(&self.entry.piece, self.heap)
    }
}

impl HeldMut<'_, Scored> {
    fn set_score(&mut self, score: f64) {
        if let Some(there) = self.heap.bytes_mut(&self.entry.piece).last_chunk_mut() {
            *there = score.to_le_bytes();
        }
    }
}

impl Keyed for Scored {
    /// Because the order has the same pieces.
    const IS_MOVED: bool = false;

    fn key<'a>(&'a self, heap: &'a Heap) -> &'a [u8] {
        scoring(&self.piece, heap).0
    }

    fn piece_mut(&mut self) -> Option<&mut Piece> {
        None
    }

    fn recount(&self, heap: &Heap) -> usize {
        heap.size(&self.piece)
    }
}

impl Sorted {
    /// A sorted set of so many members, which come in order.
    pub(super) fn of<'a>(members: impl Iterator<Item = Scoring<'a>>, count: usize) -> Sorted {
        Sorted::in_table(Table::with_room(count), members)
    }

    fn in_table<'a>(
        mut scores: Table<Scored>,
        members: impl Iterator<Item = Scoring<'a>>,
    ) -> Sorted {
        let ordered = members.map(|(member, score)| {
            let make = |heap: &mut Heap| Scored::new(member, score, heap);
            let (held, _) = scores.get_or_insert(digest_of(member), member, make);
            Ordered { score, piece: held.entry.piece.clone() }
        });
        let order = ordered.collect();
        Sorted { scores, order, leaving: 0 }
    }

    pub(super) fn scoring<'a>(&'a self, ordered: &'a Ordered) -> Scoring<'a> {
        (self.member(ordered), ordered.score)
    }

    fn member<'a>(&'a self, ordered: &Ordered) -> &'a [u8] {
        scoring(&ordered.piece, &self.scores.heap).0
    }

    pub(super) fn score(&self, member: Key) -> Option<f64> {
        self.scores.get(member.digest, &member).map(|held| held.scoring().1)
    }

    /// How many come before this one.
    pub(super) fn rank_of(&self, scoring: Scoring) -> usize {
        let place = place(&self.scores.heap, scoring);
        self.order.rank(|ordered| place(ordered).is_lt())
    }

    /// Whether this one stands before the next member that is moved. Mostly none is moved.
    fn is_behind(&self, scoring: Scoring) -> bool {
        self.leaving > 0 && self.rank_of(scoring) < self.leaving
    }

    /// Gives a member the score that `decide` makes of its present one, if there is one; `None` leaves all as it
    /// is. Returns whether something has changed.
    pub(super) fn put(
        &mut self,
        member: &[u8],
        decide: impl FnOnce(Option<f64>) -> Option<f64>,
    ) -> bool {
        self.leave_some();
        let digest = digest_of(member);
        let Some(mut held) = self.scores.get_mut(digest, member) else {
            let Some(score) = decide(None) else {
                return false;
            };
            self.leaving += usize::from(self.is_behind((member, score)));
            let make = |heap: &mut Heap| Scored::new(member, score, heap);
            let (held, _) = self.scores.get_or_insert(digest, member, make);
            let ordered = Ordered { score, piece: held.entry.piece.clone() };
            self.order.insert(ordered, &place(&self.scores.heap, (member, score)));
            return true;
        };
        let (_, old) = held.look().scoring();
        let Some(score) = decide(Some(old)).filter(|score| *score != old) else {
            return false;
        };
        held.set_score(score);
        let ordered = Ordered { score, piece: held.entry.piece.clone() };
        let [from, to] = [old, score].map(|score| place(&self.scores.heap, (member, score)));
        // With small increments it mostly stays in its leaf.
        if !self.order.shift(&ordered, &from, &to) {
            self.order.remove(&from);
            self.order.insert(ordered, &to);
        }
        true
    }

    pub(super) fn remove(&mut self, member: &[u8]) -> bool {
        self.leave_some();
        let member = Key::of(member);
        let Some(score) = self.score(member) else {
            return false;
        };
        self.leaving -= usize::from(self.is_behind((&member, score)));
        self.order.remove(&place(&self.scores.heap, (&member, score)));
        self.scores.remove(member.digest, &member, |scored, heap| heap.free(scored.piece));
        true
    }

    /// Removes the members at these ranks, from the first to the last, or backwards; each is told.
    pub(super) fn remove_ranks(
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
            // ZSCAN may be half way.
            let scores = Table::with_room(len - ranks.len()).in_order_of(&self.scores);
            *self = Sorted::in_table(scores, stays);
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
        let digest = |ordered: &Ordered| digest_of(self.member(ordered));
        let digests: Vec<u64> = all.iter().map(digest).collect();
        let Sorted { scores, order, leaving } = self;
        scores.look_ahead(digests.iter().copied());
        *leaving -= ranks.len().min(leaving.saturating_sub(ranks.start));
        let mut member = Vec::new();
        for (ordered, digest) in all.iter().zip(digests) {
            member.clear();
            member.extend_from_slice(scoring(&ordered.piece, &scores.heap).0);
            removed((&member, ordered.score));
            order.remove(&place(&scores.heap, (&member, ordered.score)));
            scores.remove(digest, &member, |scored, heap| heap.free(scored.piece));
        }
    }

    /// Removes the member at a rank; returns it.
    fn remove_rank(&mut self, rank: usize) -> Option<(Vec<u8>, f64)> {
        let (member, score) = self.scoring(self.order.get(rank)?);
        let member = member.to_vec();
        self.remove(&member);
        Some((member, score))
    }

    /// With each change, if the heap has blocks that are to be left (heap.rs): moves a few members, in the
    /// table and in the order.
    fn leave_some(&mut self) {
        let heap = &mut self.scores.heap;
        if !heap.is_leaving() && !heap.begin_leaving() {
            self.leaving = 0;
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
                self.order.remove(&place(&self.scores.heap, (&member, score)));
                if let Some(held) = self.scores.get_mut(digest_of(&member), &member) {
                    held.heap.relocate(&mut held.entry.piece);
                    let moved = Ordered { score, piece: held.entry.piece.clone() };
                    self.order.insert(moved, &place(&self.scores.heap, (&member, score)));
                }
            }
            self.leaving += 1;
        }
    }
}

/// How a member of the order stands to the place of this one. Most are told apart by their scores, without
/// looking at their bytes.
fn place<'a>(heap: &'a Heap, (member, score): Scoring<'a>) -> impl Fn(&Ordered) -> Ordering + 'a {
    move |ordered| {
        let scores = ordered.score.partial_cmp(&score).unwrap_or(Ordering::Equal);
        scores.then_with(|| scoring(&ordered.piece, heap).0.cmp(member))
    }
}

/// Few, because each member that is moved waits for memory. So a set that loses two thirds of its members
/// has left its blocks.
const MOVED_AT_ONCE: usize = 2;

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
                    let make = |heap: &mut Heap| Scored::new(&key, score, heap);
                    let (mut held, is_new) = self.0.get_or_insert(key.digest, &key, make);
                    if !is_new {
                        held.set_score(join(held.look().scoring().1, score));
                    }
                });
            }
        }
    }

    /// Puts them in order.
    pub fn sorted(self) -> Sorted {
        let Accumulator(scores) = self;
        let ordered = |_, held: Held<Scored>| Ordered {
            score: held.scoring().1,
            piece: held.entry.piece.clone(),
        };
        let mut order: Vec<Ordered> = scores.groups(ordered).flatten().collect();
        order.sort_unstable_by(|a, b| {
            let member = |ordered: &Ordered| scoring(&ordered.piece, &scores.heap).0;
            by_score((member(a), a.score), (member(b), b.score))
        });
        Sorted { order: order.into_iter().collect(), scores, leaving: 0 }
    }
}
