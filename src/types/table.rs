//! A table that grows a slot at a time, so that nobody ever waits for it to double.
//!
//! One `HashMap` of a million keys stops every client for a fifth of a second when it doubles,
//! because all keys move at once. This table is a row of small HashMaps, the *slots*, of about
//! [`FILL`] entries each. When the average passes that, one slot is added and takes half the
//! entries of one other; when it falls below, the last slot goes back into the one it came from
//! (linear hashing, Litwin 1980). Each step moves some fourteen entries, however large the table is.
//!
//! ```text
//! 5 slots                      0      1      2      3      4
//! bits of the digest, lowest last …000   …01    …10    …11    …100
//! the next split                     …001 stays, …101 becomes slot 5
//! ```
//!
//! **The digest is the key.** A slot maps 48 bits of the SipHash of a key to its entry, so it is not computed
//! again when entries move. For the first key of a command it is computed before there is a lock to
//! be held (key.rs). SipHash with a random secret is what keeps a hostile client from filling
//! one slot. Two keys with the same digest may still meet by chance; the later one then lives among
//! the [`Table::twins`], which are searched when the digest is there and the key is not the one.
//!
//! Slots are chosen by bits [`SLOT_BITS_FROM`] and up of the digest, mixed with the table's salt. The
//! standard HashMap takes its bucket from the low ones, and sharing them would make all entries of a
//! slot begin at one bucket.
//!
//! **The cursor** of SCAN. Write the slot bits of a digest from the lowest up, as digits after a
//! point: this orders all entries, and each slot holds one interval of that order. A split cuts an
//! interval in two, a merge joins two; nothing else moves. So a cursor is a point in that order,
//! sent as the number of the slot that begins there: what lies before it has been returned, what
//! lies behind it is still to come, whatever the table does in between. After a merge the joined
//! slot is returned whole, so an entry may come twice, but none is missed.
//!
//! **The heap** (heap.rs) has the bytes of the entries, in blocks that are given back when they are left.
//! Only the table knows where entries lie, so it moves them: with each change those of one slot, in
//! the order of the cursor, so that none is missed.
//!
//! **How Redis does it**: dict.c keeps two arrays of chains while it moves entries from one to the
//! other, a bucket with every operation, and walks them with the same cursor (`dictScan`). A write
//! there may still allocate one array of half a gigabyte; here the largest step is one segment.

mod walk;

use crate::key::Key;
use crate::types::allocated;
use crate::types::heap::{Heap, Piece};
use crate::types::u48::{Identity, U48};
use std::collections::HashMap;
use std::collections::hash_map::Entry::{Occupied, Vacant};
use std::hash::{BuildHasher, BuildHasherDefault, Hasher, RandomState};
use std::hint::black_box;

/// Entries per slot above which the table gets one more slot. HashMap gives up to 14 entries 16 buckets,
/// and up to 28 entries, as in a slot that still waits to be split, 32. With 7 an entry would take four bytes
/// more. With 22 it would take one byte less, and whoever moves or draws the entries of a slot would take longer.
pub const FILL: usize = 14;

/// As many as [`warm`] looks for at once.
pub const WARM: usize = 64;

/// So many slots that wait to be split have about as many entries.
const TOGETHER: usize = 3;

const SLOT_BITS_FROM: u32 = 16;
const SLOT_BITS: u32 = 64 - SLOT_BITS_FROM;

/// Slots live in segments, so that adding one never moves the others. Their size in bytes is for
/// the allocator's sake. glibc puts freed chunks of up to 128 bytes aside, and joins all of them
/// with their neighbours at once, a sixth of a second for a million, when a chunk of 64 KiB or more
/// is freed. What is 128 KiB goes back to the kernel instead. With segments of 64 KiB that happens
/// every 29,000 entries while a table shrinks, in some milliseconds.
const SEGMENT: usize = 64 * 1024 / size_of::<Slot<()>>();

type Slot<E> = HashMap<U48, E, BuildHasherDefault<Identity>>;

/// What a table holds: an entry that carries its key, in a piece of the table's heap or elsewhere.
pub trait Keyed {
    /// Whether the table moves the pieces of its entries. If not, whoever has the table does it (zset/sorted.rs).
    const IS_MOVED: bool = true;

    fn key<'a>(&'a self, heap: &'a Heap) -> &'a [u8];

    /// The piece, if the entry has one that the table may move.
    fn piece_mut(&mut self) -> Option<&mut Piece>;

    /// Bytes that the entry has elsewhere.
    fn outside(&self, _: &Heap) -> usize {
        0
    }

    /// Bytes that the entry has in its piece and elsewhere, counted anew ([`Table::recount`]).
    fn recount(&self, heap: &Heap) -> usize;

    /// Reads a little of the memory that a reader of the entry is going to read.
    fn touch(&self, heap: &Heap) -> u8 {
        self.key(heap).first().copied().unwrap_or_default()
    }
}

/// An entry to look at, with the heap that has its bytes.
pub struct Held<'a, E> {
    pub entry: &'a E,
    pub heap: &'a Heap,
}

impl<E> Clone for Held<'_, E> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<E> Copy for Held<'_, E> {}

impl<'a, E: Keyed> Held<'a, E> {
    pub fn key(self) -> &'a [u8] {
        self.entry.key(self.heap)
    }
}

/// An entry to be changed, in everything but its key.
pub struct HeldMut<'a, E> {
    pub entry: &'a mut E,
    pub heap: &'a mut Heap,
}

impl<E> HeldMut<'_, E> {
    /// The same, only to look at.
    pub fn look(&self) -> Held<'_, E> {
        Held { entry: self.entry, heap: self.heap }
    }
}

/// Entries by their keys. Most functions take the key's [`crate::key::digest_of`] too, which the caller computes,
/// so that it is computed once for several steps.
pub struct Table<E> {
    /// None as long as there is no entry: what is empty takes no memory.
    segments: Vec<Vec<Slot<E>>>,
    slots: usize,
    len: usize,
    /// The most entries that a slot has ever had.
    longest: usize,
    /// Entries whose digest is taken by another key, with their digests. When that key goes, one of them moves to its place.
    twins: Vec<(U48, E)>,
    /// An odd number that makes the slots of this table unlike those of others. With one order for
    /// all tables, copying keys in the order of SCAN would fill one slot of the new table first. (A copy has the
    /// salt of its original, and all of its slots already.)
    salt: u64,
    pub(super) heap: Heap,
    /// The cursor of the next slot whose entries leave the blocks that are to be left (heap.rs).
    leaving: u64,
}

/// Entry by entry, COPY of a set of 100,000 takes five times as long, because each place is looked for.
impl<E: Clone> Clone for Table<E> {
    fn clone(&self) -> Table<E> {
        let segment = |segment: &Vec<Slot<E>>| {
            let mut copy = Vec::with_capacity(segment.capacity());
            copy.extend(segment.iter().cloned());
            copy
        };
        Table {
            segments: self.segments.iter().map(segment).collect(),
            twins: self.twins.clone(),
            heap: self.heap.clone(),
            ..*self
        }
    }
}

impl<E: Keyed> Table<E> {
    pub fn new() -> Table<E> {
        Table {
            segments: Vec::new(),
            slots: 1,
            len: 0,
            longest: 0,
            twins: Vec::new(),
            salt: random() | 1,
            heap: Heap::default(),
            leaving: 0,
        }
    }

    /// A table that can take so many entries without growing.
    pub fn with_room(len: usize) -> Table<E> {
        let slots = len.div_ceil(FILL).max(1);
        let slot = |index| {
            // What is not split yet has the entries of two. Rather too little room than too much: a slot that gets more
            // grows, and none gives room back.
            let share = if is_split(index, slots) { 1 } else { 2 };
            let capacity = share * len / slots.next_power_of_two();
            Slot::with_capacity_and_hasher(capacity, BuildHasherDefault::default())
        };
        let segment = |first: usize| {
            let mut segment =
                Vec::with_capacity(if first == 0 { SEGMENT.min(slots) } else { SEGMENT });
            segment.extend((first..slots.min(first + SEGMENT)).map(slot));
            segment
        };
        let segments =
            if len == 0 { Vec::new() } else { (0..slots).step_by(SEGMENT).map(segment).collect() };
        Table { segments, slots, ..Table::new() }
    }

    /// The same, still empty, with the slots of another one, so that a cursor of that one is good here.
    pub(super) fn in_order_of(self, other: &Table<E>) -> Table<E> {
        Table { salt: other.salt, ..self }
    }

    pub fn len(&self) -> usize {
        self.len
    }

    /// How many entries there may be before the table grows.
    pub(super) fn room(&self) -> usize {
        self.slots * FILL
    }

    /// Makes room for so many at once, more than there are. Every entry moves, so this is not for a table that others wait for.
    pub(super) fn make_room(&mut self, len: usize) {
        let Table { segments, slots, .. } = Table::with_room(len);
        self.slots = slots;
        for (digest, entry) in
            std::mem::replace(&mut self.segments, segments).into_iter().flatten().flatten()
        {
            let index = self.index(digest.get());
            self.slot_mut(index).insert(digest, entry);
        }
    }

    /// Takes slots away that are not needed.
    pub(super) fn fit(&mut self) {
        while self.len < self.slots.saturating_sub(2) * FILL {
            self.merge();
        }
    }

    /// Bytes that the entries and their places take. Known at any time, and what all entries by
    /// themselves take together.
    pub fn memory(&self) -> usize {
        self.len * share::<E>() + self.heap.used()
    }

    /// The same, counted anew entry by entry.
    pub fn recount(&self) -> usize {
        self.iter().map(|held| share::<E>() + held.entry.recount(held.heap)).sum()
    }

    pub fn get(&self, digest: u64, key: &[u8]) -> Option<Held<'_, E>> {
        let found = self.found(self.slot(self.index(digest))?.get(&U48::of(digest))?);
        if found.key() == key {
            return Some(found);
        }
        self.twins().map(|(_, twin)| twin).find(|twin| twin.key() == key)
    }

    /// The entry of `key`, to be changed in everything but its key.
    pub fn get_mut(&mut self, digest: u64, key: &[u8]) -> Option<HeldMut<'_, E>> {
        self.leave_some();
        let index = self.index(digest);
        let heap = &mut self.heap;
        let slot = self.segments.get_mut(index / SEGMENT)?;
        let mut entry = slot[index % SEGMENT].get_mut(&U48::of(digest))?;
        if entry.key(heap) != key {
            entry = &mut self.twins.iter_mut().find(|(_, twin)| twin.key(heap) == key)?.1;
        }
        Some(HeldMut { entry, heap })
    }

    /// Has in the processor's caches what a lookup of these digests needs ([`warm`]).
    pub fn look_ahead(&self, digests: impl Iterator<Item = u64>) -> [Option<Held<'_, E>>; WARM] {
        warm(digests.map(|digest| (self, digest)))
    }

    /// Whether a key is there, for whose digest [`Table::look_ahead`] has found this. Only its bytes must be
    /// compared then.
    pub fn has(&self, key: Key, found: Option<Option<Held<E>>>) -> bool {
        match found {
            Some(None) => false,
            Some(Some(found)) if found.key() == key.bytes => true,
            // A twin; or there were more digests than were looked for.
            _ => self.get(key.digest, &key).is_some(),
        }
    }

    /// Every entry with this digest: one, or none, or by a rare chance twins.
    pub fn with_digest(&self, digest: u64) -> impl Iterator<Item = Held<'_, E>> {
        let twins = self.twins().filter(move |(other, _)| *other == digest).map(|(_, twin)| twin);
        let found = self.slot(self.index(digest)).and_then(|slot| slot.get(&U48::of(digest)));
        found.map(|entry| self.found(entry)).into_iter().chain(twins)
    }

    /// The entry of `key`; if there is none, a new one, which `make` makes in the table's heap. Returns also
    /// whether it is new. It may be changed in everything but its key.
    pub fn get_or_insert(
        &mut self,
        digest: u64,
        key: &[u8],
        make: impl FnOnce(&mut Heap) -> E,
    ) -> (HeldMut<'_, E>, bool) {
        self.leave_some();
        if self.segments.is_empty() {
            // Else room for four.
            self.segments.reserve_exact(1);
            self.segments.push(vec![Slot::default()]);
        }
        // Before the entry is looked for, so that its slot is found once.
        if self.len >= self.slots * FILL {
            self.split();
        }
        let index = self.index(digest);
        let Table { segments, len, longest, twins, heap, .. } = self;
        let slot = &mut segments[index / SEGMENT][index % SEGMENT];
        let length = slot.len() + 1;
        let digest = U48::of(digest);
        let make = |heap: &mut Heap| {
            let entry = make(heap);
            // Now, and not when it is in its place, because the processor would wait for the memory of that place.
            let outside = entry.outside(heap);
            heap.count_outside(0, outside);
            entry
        };
        let entry = match slot.entry(digest) {
            Occupied(place) if place.get().key(heap) == key => {
                return (HeldMut { entry: place.into_mut(), heap }, false);
            }
            Occupied(_) => {
                if let Some(at) = twins.iter().position(|(_, twin)| twin.key(heap) == key) {
                    return (HeldMut { entry: &mut twins[at].1, heap }, false);
                }
                twins.push((digest, make(heap)));
                let last = twins.len() - 1;
                &mut twins[last].1
            }
            Vacant(place) => {
                *longest = length.max(*longest);
                place.insert(make(heap))
            }
        };
        *len += 1;
        (HeldMut { entry, heap }, true)
    }

    /// Takes the entry of `key` out, and a slot away when two fewer would do: at one fewer, a key that
    /// comes and goes would split and merge each time. `free` is given the entry and the heap that has its
    /// piece.
    pub fn remove<T>(
        &mut self,
        digest: u64,
        key: &[u8],
        free: impl FnOnce(E, &mut Heap) -> T,
    ) -> Option<T> {
        self.leave_some();
        let index = self.index(digest);
        let heap = &self.heap;
        let slot = self.segments.get_mut(index / SEGMENT)?;
        let slot = &mut slot[index % SEGMENT];
        let digest = U48::of(digest);
        let removed = if slot.get(&digest)?.key(heap) == key {
            let removed = match self.twins.iter().position(|(other, _)| *other == digest) {
                None => slot.remove(&digest)?,
                Some(twin) => slot.insert(digest, self.twins.swap_remove(twin).1)?,
            };
            // Or keys that come and go would leave each slot as large as it has ever been.
            if slot.len() * 5 < slot.capacity() * 2 {
                slot.shrink_to_fit();
            }
            removed
        } else {
            let at = self.twins.iter().position(|(_, twin)| twin.key(heap) == key)?;
            self.twins.swap_remove(at).1
        };
        self.heap.count_outside(removed.outside(&self.heap), 0);
        let freed = free(removed, &mut self.heap);
        self.len -= 1;
        if self.len == 0 {
            self.segments = Vec::new();
            self.slots = 1;
        } else if self.len < self.slots.saturating_sub(2) * FILL {
            self.merge();
        }
        Some(freed)
    }

    fn found<'a>(&'a self, entry: &'a E) -> Held<'a, E> {
        let heap = &self.heap;
        Held { entry, heap }
    }

    /// The twins with their digests.
    fn twins(&self) -> impl Iterator<Item = (u64, Held<'_, E>)> {
        self.twins.iter().map(|(digest, entry)| (digest.get(), self.found(entry)))
    }

    /// With each change: if the heap has blocks that are to be left, moves the entries of one slot.
    fn leave_some(&mut self) {
        if E::IS_MOVED && self.heap.has_blocks_to_empty() {
            self.empty_blocks();
        }
    }

    /// Whether there is work for [`Table::empty_blocks`].
    pub fn has_blocks_to_empty(&self) -> bool {
        self.heap.has_blocks_to_empty()
    }

    /// Moves the entries of one slot out of the blocks that are to be left. Returns how many bytes were
    /// moved, or None if there is nothing to be left.
    #[inline(never)]
    pub fn empty_blocks(&mut self) -> Option<usize> {
        if !self.heap.is_leaving() {
            self.leaving = 0;
            if !self.heap.begin_leaving() {
                return None;
            }
        }
        let mut moved = 0;
        let cursor = self.leaving;
        let index = self.index_of_bits(cursor);
        let heap = &mut self.heap;
        let mut relocate = |entry: &mut E| {
            if let Some(piece) = entry.piece_mut() {
                moved += heap.relocate(piece);
            }
        };
        if cursor == 0 {
            self.twins.iter_mut().for_each(|(_, twin)| relocate(twin));
        }
        if let Some(segment) = self.segments.get_mut(index / SEGMENT) {
            segment[index % SEGMENT].values_mut().for_each(relocate);
        }
        self.leaving = self.next_cursor(index);
        Some(moved)
    }

    /// All entries, in no order that means anything.
    pub fn iter(&self) -> impl Iterator<Item = Held<'_, E>> {
        let slots = self.segments.iter().flatten();
        let twins = self.twins.iter().map(|(_, twin)| twin);
        let entries = slots.flat_map(|slot| slot.values()).chain(twins);
        entries.map(|entry| self.found(entry))
    }

    /// What `make` makes of all entries and their digests, in groups of about [`WARM`], for whoever reads all.
    /// Their bytes are in the processor's caches, because it has waited for those of a group at once.
    pub fn groups<'a, T>(
        &'a self,
        make: impl Fn(u64, Held<'a, E>) -> T,
    ) -> impl Iterator<Item = Vec<T>> {
        let twins = self.twins().map(|(digest, twin)| make(digest, twin)).collect();
        let slots = self.segments.iter().flat_map(|segment| segment.chunks(4 * TOGETHER));
        let slots = slots.flat_map(|slots| {
            wait_for(slots.iter());
            slots.chunks(TOGETHER)
        });
        let groups = slots.map(move |slots| {
            let mut group = Vec::with_capacity(slots.iter().map(HashMap::len).sum());
            let mut touched = 0;
            for (digest, entry) in slots.iter().flatten() {
                touched ^= entry.touch(&self.heap);
                group.push(make(digest.get(), self.found(entry)));
            }
            black_box(touched);
            group
        });
        groups.chain([twins])
    }

    /// The same, one after another.
    pub fn with_digests(&self) -> impl Iterator<Item = (u64, Held<'_, E>)> {
        self.groups(|digest, found| (digest, found)).flatten()
    }

    /// Visits the entries of one slot, the one that holds the point `cursor`, and returns the
    /// point where the next one begins; 0 after the last.
    pub fn scan<'a>(&'a self, cursor: u64, mut visit: impl FnMut(Held<'a, E>)) -> u64 {
        if cursor == 0 {
            self.twins().for_each(|(_, twin)| visit(twin));
        }
        let index = self.index_of_bits(cursor);
        let entries = self.slot(index).into_iter().flat_map(|slot| slot.values());
        entries.for_each(|entry| visit(self.found(entry)));
        self.next_cursor(index)
    }

    /// The point where the interval of this slot ends.
    fn next_cursor(&self, index: usize) -> u64 {
        // The interval of slot `index` has the length of one unit in the last of the digits that
        // the slot looks at; adding it carries towards the point, that is towards lower bits.
        let top = self.slots.next_power_of_two();
        let unsplit = u32::from(!is_split(index, self.slots));
        let digits = top.trailing_zeros() - unsplit;
        if digits == 0 {
            return 0;
        }
        let point = (index as u64).reverse_bits() >> (64 - digits);
        let next = point + 1;
        if next >> digits != 0 { 0 } else { next.reverse_bits() >> (64 - digits) }
    }

    /// An entry with its digest, each with the same chance: a slot and a position in it, and both again where
    /// the slot has fewer entries than that. A few are drawn at once, because each slot is waited for.
    pub fn random(&self) -> Option<(u64, Held<'_, E>)> {
        if self.len == 0 {
            return None;
        }
        let rows = self.slots + usize::from(!self.twins.is_empty());
        let longest = self.longest.max(self.twins.len());
        let length = |row| self.slot(row).map_or(self.twins.len(), HashMap::len);
        let mut number = random();
        loop {
            let drawn: [_; 4] = std::array::from_fn(|_| {
                // The next number of a simple generator (Knuth's constants), because `random` takes longer.
                number = number.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
                random_place(number, rows, longest)
            });
            let lengths = drawn.map(|(row, _)| length(row));
            let mut found = drawn.iter().zip(lengths).filter(|((_, at), length)| at < length);
            if let Some((&(row, at), _)) = found.next() {
                return match self.slot(row) {
                    Some(slot) => {
                        let found = slot.iter().nth(at);
                        found.map(|(digest, entry)| (digest.get(), self.found(entry)))
                    }
                    None => self.twins().nth(at),
                };
            }
        }
    }

    /// Visits the entries of some slots, which these random numbers choose. So each entry has the same chance.
    pub fn visit_slots<'a>(&'a self, numbers: &[u64], mut visit: impl FnMut(u64, Held<'a, E>)) {
        let rows = self.slots + usize::from(!self.twins.is_empty());
        let chosen = numbers.iter().map(|number| self.slot(random_place(*number, rows, 1).0));
        wait_for(chosen.clone().flatten());
        for slot in chosen {
            match slot {
                Some(slot) => {
                    slot.iter().for_each(|(digest, entry)| visit(digest.get(), self.found(entry)))
                }
                None => self.twins().for_each(|(digest, twin)| visit(digest, twin)),
            }
        }
    }

    fn index(&self, digest: u64) -> usize {
        self.index_of_bits(slot_bits(digest, self.salt))
    }

    /// The slot for these slot bits: as many of the low ones as name a slot that exists.
    fn index_of_bits(&self, bits: u64) -> usize {
        let mask = self.slots.next_power_of_two() as u64 - 1;
        let index = (bits & mask) as usize;
        if index < self.slots { index } else { (bits & (mask >> 1)) as usize }
    }

    /// A slot; an empty table has none.
    fn slot(&self, index: usize) -> Option<&Slot<E>> {
        let segment = self.segments.get(index / SEGMENT)?;
        segment.get(index % SEGMENT)
    }

    fn slot_mut(&mut self, index: usize) -> &mut Slot<E> {
        &mut self.segments[index / SEGMENT][index % SEGMENT]
    }

    /// Adds slot `n`: it takes from slot `n - 2^k`, for the greatest such power, what has bit `k`.
    fn split(&mut self) {
        debug_assert!(self.slots.ilog2() < SLOT_BITS);
        let added = self.slots;
        let (bit, salt) = (1 << added.ilog2(), self.salt);
        let parent = self.slot_mut(added - bit);
        let moves = |digest: &U48| slot_bits(digest.get(), salt) & bit as u64 != 0;
        let count = parent.keys().filter(|digest| moves(digest)).count();
        let mut slot = Slot::with_capacity_and_hasher(count, BuildHasherDefault::default());
        slot.extend(parent.extract_if(|digest, _| moves(digest)));
        parent.shrink_to_fit();
        if added.is_multiple_of(SEGMENT) {
            self.segments.push(Vec::with_capacity(SEGMENT));
        }
        let segment = &mut self.segments[added / SEGMENT];
        if segment.len() == segment.capacity() {
            // The first one of a small table. A `push` would double it.
            segment.reserve_exact((segment.len() / 8).clamp(1, SEGMENT - segment.len()));
        }
        segment.push(slot);
        self.slots += 1;
    }

    /// Takes the last slot away; its entries go back to where [`Table::split`] took them from.
    fn merge(&mut self) {
        self.slots -= 1;
        let last = self.slots / SEGMENT;
        let segment = &mut self.segments[last];
        let slot = segment.pop().unwrap_or_default();
        if segment.is_empty() {
            self.segments.pop();
        } else if last == 0 && segment.len() < segment.capacity() / 2 {
            segment.shrink_to(segment.len() / 2 * 3);
        }
        let parent = self.slot_mut(self.slots - (1 << self.slots.ilog2()));
        parent.extend(slot);
        let length = parent.len();
        self.longest = self.longest.max(length);
    }
}

/// Looks for up to [`WARM`] digests, each in a table, to have in the processor's caches what a lookup of
/// them needs (store/ahead.rs). All of them go a step together: in a loop with nothing else in it, the
/// processor waits for many at once. What is found may have another key of the same digest. (Nobody wants the
/// sums; `black_box` is there because a compiler leaves out what nobody wants.)
pub fn warm<'a, E: Keyed>(
    lookups: impl Iterator<Item = (&'a Table<E>, u64)>,
) -> [Option<Held<'a, E>>; WARM] {
    let mut slots = [None; WARM];
    let (mut count, mut lengths) = (0, 0);
    for (place, (table, digest)) in slots.iter_mut().zip(lookups) {
        count += 1;
        if let Some(slot) = table.slot(table.index(digest)) {
            lengths += slot.len();
            *place = Some((table, slot, digest));
        }
    }
    black_box(lengths);
    let slots = &slots[..count];
    wait_for(slots.iter().flatten().map(|(_, slot, _)| *slot));
    let mut found = [None; WARM];
    for (found, place) in found.iter_mut().zip(slots) {
        *found =
            place.and_then(|(table, slot, digest)| Some(table.found(slot.get(&U48::of(digest))?)));
    }
    let touched = found[..count].iter().flatten();
    let touched = touched.map(|found: &Held<E>| found.entry.touch(found.heap));
    black_box(touched.fold(0, |all, byte| all ^ byte));
    found
}

/// Reads one entry of each slot. What is at the begin of a slot, and which place its first entry has, nobody
/// needs to guess, so the processor goes on to the next slot while it waits. In a search it would have to guess
/// whether the digest is there.
fn wait_for<'a, E: 'a>(slots: impl Iterator<Item = &'a Slot<E>>) {
    let first = slots.filter_map(|slot| slot.keys().next());
    black_box(first.fold(0, |all, digest| all ^ digest.get()));
}

/// The items in groups, each of which a table can look ahead to.
pub fn groups<T>(mut items: impl Iterator<Item = T>) -> impl Iterator<Item = Vec<T>> {
    std::iter::from_fn(move || {
        // It grows, because most are of a few items.
        let group: Vec<T> = items.by_ref().take(WARM).collect();
        (!group.is_empty()).then_some(group)
    })
}

/// Bytes that an entry takes in its slot on average, with its part of what is free there, of the slot itself, and of
/// what its allocator takes. (Counted are half a place beside its own, and 10 bytes.)
pub fn share<E>() -> usize {
    size_of::<(U48, E)>() * 3 / 2 + 10
}

/// Bytes that a table in a box takes beside its entries: itself, and the begin of its segments and of its heap.
pub fn alone<E>() -> usize {
    allocated(size_of::<Table<E>>()) + 3 * allocated(40)
}

/// Whether a slot of so many has been split in this round, or comes from such a split.
fn is_split(index: usize, slots: usize) -> bool {
    let half = slots.next_power_of_two() / 2;
    index >= half || index + half < slots
}

/// The bits that choose an entry's slot.
fn slot_bits(digest: u64, salt: u64) -> u64 {
    digest.wrapping_mul(salt) >> SLOT_BITS_FROM
}

/// A random number below `bound`.
pub fn random_below(bound: usize) -> usize {
    ((u128::from(random()) * bound as u128) >> 64) as usize
}

/// The row of a table and the place in it that a random number chooses.
fn random_place(number: u64, rows: usize, places: usize) -> (usize, usize) {
    let row = u128::from(number) * rows as u128;
    // What is behind the point is as random as what is before it.
    let place = u128::from(row as u64) * places as u128;
    ((row >> 64) as usize, (place >> 64) as usize)
}

/// A random number, from the standard library's only source of randomness. Good enough to choose a
/// key with; no secret should be made of it.
fn random() -> u64 {
    RandomState::new().build_hasher().finish()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::key::digest_of;
    use crate::types::hash::Field;
    use std::collections::HashSet;

    impl Keyed for Vec<u8> {
        fn key<'a>(&'a self, _: &'a Heap) -> &'a [u8] {
            self
        }

        fn piece_mut(&mut self) -> Option<&mut Piece> {
            None
        }

        fn recount(&self, _: &Heap) -> usize {
            0
        }
    }

    fn filled(keys: std::ops::Range<u32>) -> Table<Vec<u8>> {
        let mut table = Table::new();
        add(&mut table, keys);
        table
    }

    fn add(table: &mut Table<Vec<u8>>, keys: std::ops::Range<u32>) {
        for key in keys {
            let key = key.to_be_bytes();
            table.get_or_insert(digest_of(&key), &key, |_| key.to_vec());
        }
    }

    fn remove(table: &mut Table<Vec<u8>>, keys: std::ops::Range<u32>) {
        for key in keys {
            let key = key.to_be_bytes();
            assert!(table.remove(digest_of(&key), &key, |_, _| ()).is_some());
        }
    }

    #[test]
    fn every_key_is_found_while_the_table_grows_and_shrinks() {
        let mut table = filled(0..20_000);
        assert!(table.slots >= 20_000 / FILL);
        remove(&mut table, 100..20_000);
        assert!(table.slots < 40);
        for key in 0..20_000u32 {
            let key = key.to_be_bytes();
            let there = table.get(digest_of(&key), &key).is_some();
            assert_eq!(there, u32::from_be_bytes(key) < 100);
        }
        assert_eq!(table.iter().count(), table.len());
    }

    /// Not at last and all at once: see [`SEGMENT`].
    #[test]
    fn a_table_that_shrinks_gives_its_segments_back_one_by_one() {
        let mut table = filled(0..100_000);
        for rest in (0..100_000).rev() {
            remove(&mut table, rest..rest + 1);
            assert!(table.segments.len() <= table.len() / (FILL * SEGMENT) + 2);
            assert!(table.segments.last().is_none_or(|last| !last.is_empty()));
        }
    }

    #[test]
    fn keys_with_the_same_digest_live_side_by_side() {
        let mut table = Table::new();
        let (a, b, c) = (b"a".to_vec(), b"b".to_vec(), b"c".to_vec());
        for key in [&a, &b, &c] {
            assert!(table.get_or_insert(7, key, |_| key.clone()).1);
            assert!(!table.get_or_insert(7, key, |_| key.clone()).1);
        }
        assert_eq!(table.remove(7, b"a", |a, _| a), Some(a));
        assert!(!table.get_or_insert(7, &c, |_| c.clone()).1, "it is there already");
        assert_eq!(table.get(7, b"b").map(Held::key), Some(&b[..]));
        assert_eq!(table.remove(7, b"b", |b, _| b), Some(b));
        assert_eq!(table.get(7, b"c").map(Held::key), Some(&c[..]));
        assert_eq!(table.random().map(|(_, found)| found.key()), Some(&c[..]));
        assert_eq!(table.len(), 1);
    }

    /// Keys 0..1000 stay; others come and go between the calls, so that slots split and merge.
    #[test]
    fn a_scan_returns_every_key_that_stays_while_the_table_changes() {
        for stride in [1, 3, 50] {
            let mut table = filled(0..1_000);
            let mut seen = HashSet::new();
            let (mut cursor, mut calls, mut grown) = (0, 0, 1_000);
            loop {
                cursor = table.scan(cursor, |key| {
                    seen.insert(key.key().to_vec());
                });
                calls += 1;
                assert!(cursor < table.slots as u64, "a cursor is a small integer");
                if cursor == 0 {
                    break;
                }
                if calls / stride % 2 == 0 {
                    add(&mut table, grown..grown + 500);
                    grown += 500;
                } else if grown > 1_000 {
                    remove(&mut table, 1_000..grown);
                    grown = 1_000;
                }
            }
            for key in 0..1_000u32 {
                assert!(seen.contains(&key.to_be_bytes()[..]), "key {key} was missed");
            }
        }
    }

    #[test]
    fn to_look_ahead_is_to_find_in_each_table_what_is_there() {
        let (small, large) = (filled(0..10), filled(0..1_000));
        let keys = [5, 500, 5_000].map(u32::to_be_bytes);
        let lookups = keys.iter().flat_map(|key| {
            let digest = digest_of(key);
            [(&small, digest), (&large, digest)]
        });
        let found = warm(lookups).map(|found| found.map(Held::key));
        let [few, much, _] = keys.each_ref().map(|key| Some(&key[..]));
        assert_eq!(found[..7], [few, few, None, much, None, None, None]);
    }

    #[test]
    fn a_table_that_is_filled_in_the_order_of_another_has_no_long_slot() {
        let from = filled(0..30_000);
        let mut to = Table::new();
        let mut cursor = 0;
        loop {
            cursor = from.scan(cursor, |key| {
                to.get_or_insert(digest_of(key.key()), key.key(), |_| key.entry.clone());
            });
            if cursor == 0 {
                break;
            }
        }
        assert_eq!(to.len(), 30_000);
        assert!(to.longest < 100, "{}", to.longest);
    }

    /// Blocks are being left when the copy is made.
    #[test]
    fn a_copy_is_changed_and_left_without_its_original() {
        let key = |number: u32| number.to_be_bytes();
        let add = |table: &mut Table<Field>, keys: std::ops::Range<u32>| {
            for key in keys.map(key) {
                table.get_or_insert(digest_of(&key), &key, |heap| Field::new(&key, b"value", heap));
            }
        };
        let mut table = Table::new();
        add(&mut table, 0..30_000);
        let mut removed = 0;
        while !table.has_blocks_to_empty() {
            table.remove(digest_of(&key(removed)), &key(removed), Field::free);
            removed += 1;
        }
        let mut copy = table.clone();
        assert_eq!((copy.len(), copy.memory()), (table.len(), table.memory()));
        for key in (removed..30_000).map(key) {
            table.remove(digest_of(&key), &key, Field::free);
        }
        add(&mut table, 0..30_000);
        add(&mut copy, 0..1_000);
        while copy.empty_blocks().is_some() {}
        for number in 0..30_000 {
            let found = copy.get(digest_of(&key(number)), &key(number)).map(Held::<Field>::value);
            let is_there = !(1_000..removed).contains(&number);
            assert_eq!(found, is_there.then_some(&b"value"[..]), "{number}");
        }
        assert_eq!(copy.with_digests().count(), copy.len());
    }

    /// A slot has 4, 8, 16 or 32 places, so what is counted for each entry is an average.
    #[test]
    fn places_take_what_is_counted_for_them_when_keys_come_and_when_they_come_and_go() {
        const KEYS: u32 = 40_000;
        let is_near = |table: &Table<Vec<u8>>, percent: usize| {
            let taken = |slot: &Slot<Vec<u8>>| {
                let places = (slot.capacity() * 8 / 7).next_power_of_two();
                let bytes = places * (size_of::<(U48, Vec<u8>)>() + 1) + 16;
                if slot.capacity() == 0 { 0 } else { allocated(bytes) }
            };
            let slots = table.segments.iter().flatten().map(taken).sum::<usize>();
            let segments = table.segments.iter().map(Vec::capacity).sum::<usize>();
            let taken = slots + segments * size_of::<Slot<Vec<u8>>>();
            let counted = table.len() * share::<Vec<u8>>();
            let difference = taken.abs_diff(counted) * 100 / taken;
            assert!(difference <= percent, "{counted} for {taken}");
        };
        let mut table = filled(0..KEYS);
        is_near(&table, 8);
        for begin in (0..10 * KEYS).step_by(KEYS as usize / 4) {
            add(&mut table, begin + KEYS..begin + KEYS / 4 * 5);
            remove(&mut table, begin..begin + KEYS / 4);
            is_near(&table, 16);
        }
        let left = 10 * KEYS..11 * KEYS;
        remove(&mut table, left.start..left.end - KEYS / 8);
        is_near(&table, 25);
    }

    #[test]
    fn random_favours_no_key() {
        let table = filled(0..100);
        let mut drawn = HashMap::new();
        for _ in 0..100_000 {
            *drawn.entry(table.random().map(|(_, found)| found.key())).or_insert(0) += 1;
        }
        assert_eq!(drawn.len(), 100);
        assert!(drawn.values().all(|&times| (800..1_200).contains(&times)), "{drawn:?}");
    }
}
