//! The memory of a table's entries: large blocks, of which each entry has a piece.
//!
//! An allocator cannot move what it has handed out, and gives memory back to the system only where
//! much of it lies free in one place. So of a million allocations a few that stay, here and there,
//! keep all of it. A table's entries can be moved, because nobody but the table knows where they lie:
//!
//! ```text
//! block 0  │ k1 v1 │ k2 v2 │░░hole░░│ k4 v4 │            full; holes are filled again by pieces of their size
//! block 1  │░░░░░░░░░░░░░░│ k6 v6 │░░░░░░░░░│            leaving: nothing new, what is left moves away
//! block 2  │ k7 v7 │ k8 v8 │                             being filled; behind its end it is untouched
//! ```
//!
//! **Holes** are found by their size, block by block. Those of one size are a chain: in each stands where the one before it is, so
//! that they take no memory beside, and that the holes of a block can be forgotten at once.
//!
//! **Giving back.** When less than six sevenths of what was filled are still in use, the emptiest blocks are
//! *leaving*. With each change the table moves what one of its slots has in them ([`Heap::relocate`]),
//! and a thread does the same when nothing changes (src/expire.rs). A block without a piece is dropped at once.
//! For the blocks of a large heap an allocator asks the system directly, and gives them back directly (src/malloc.rs). Only what
//! has been written takes memory, so that a block may be larger than what is in it.
//!
//! **Lengths.** A piece begins with the number of its bytes, so that a table keeps only where it begins.
//!
//! **Counting.** Who adds, changes or frees a piece does it here, so what is in use is always known
//! ([`Heap::used`]); what an entry has outside of its piece is told to [`Heap::count_outside`].
//!
//! **How Redis does it**: jemalloc gives back single pages, and with `activedefrag` it is asked which
//! allocations to move. Neither can be done from safe Rust.

use super::larges::Larges;
use super::u48::U48;
use std::ops::Range;

/// Bytes of a large heap's blocks. A smaller one would be left sooner. But each is a mapping of its own, of which a process
/// may have 65,530.
const BLOCK: usize = 4 * 1024 * 1024;

/// A heap of no more bytes than this is one of a hash of a few fields, and there may be a million. So it
/// takes no more than it needs, and keeps no list of holes, which would be as large as the heap. The blocks of a larger one
/// have an eighth of what it has, up to [`BLOCK`].
const FIRST_BLOCK: usize = 1024;

/// A longer piece has a block of its own.
const LONG: usize = 128 * 1024;

/// Blocks are left if more than one byte is free for so many that are in use. To give one byte back, about so many are moved.
const WORTH: usize = 6;

/// If so few bytes are free, nothing is moved. In a small heap that is much, but there to move often would
/// take longer than it is worth.
const LITTLE: usize = 256;

/// Bytes that are kept to edit entries in, at most.
const SCRATCH: usize = 32 * 1024;

/// Blocks, and what of them is free. A clone has its pieces at the same places.
#[derive(Default, Clone)]
pub struct Heap {
    /// Those that were dropped are empty, until their number is used again.
    blocks: Vec<Block>,
    dropped: Vec<u32>,
    /// The block at whose end the next piece goes, if there is one.
    filling: Option<u32>,
    /// By the class of its size, in which blocks there are holes.
    with_holes: Vec<Vec<u32>>,
    /// Bytes in pieces.
    live: usize,
    /// Bytes that have been written, holes included.
    filled: usize,
    /// Bytes that the entries have outside.
    outside: usize,
    /// How many blocks are leaving.
    leaving: usize,
    /// For an entry while it is edited.
    scratch: Vec<u8>,
    /// The values that are too large for a piece.
    pub(super) larges: Larges,
}

#[derive(Default)]
struct Block {
    bytes: Vec<u8>,
    /// Bytes in pieces.
    live: usize,
    /// Whether its pieces are being moved away.
    leaving: bool,
    /// By the class of its size, where the last hole is. In a hole stands where the one before it is, or [`NONE`].
    holes: Vec<u32>,
}

/// Bytes of a heap for each class of holes that it may have: sixteen times as many as the lists of holes take.
const HOLES: usize = 16 * 28;

/// No hole begins there.
const NONE: u32 = u32::MAX;

impl Clone for Block {
    /// With as much room behind its end.
    fn clone(&self) -> Block {
        let mut bytes = Vec::with_capacity(self.bytes.capacity());
        bytes.extend_from_slice(&self.bytes);
        Block { bytes, holes: self.holes.clone(), ..*self }
    }
}

/// Where the bytes of an entry lie: the number of the block, and where it begins there, in units of four bytes. Valid in the
/// heap that made it, until it is freed there. A clone is the same piece, which is freed and moved once for all of them
/// (zset/sorted.rs).
#[derive(Clone)]
pub struct Piece(U48);

const START_BITS: u32 = 24;
const _: () = assert!(BLOCK / UNIT <= 1 << START_BITS);

impl Piece {
    #[inline(always)]
    fn new(block: u32, start: usize) -> Piece {
        Piece(U48::of(u64::from(block) << START_BITS | (start / UNIT) as u64))
    }

    #[inline(always)]
    fn block(&self) -> usize {
        (self.0.get() >> START_BITS) as usize
    }

    #[inline(always)]
    fn start(&self) -> usize {
        (self.0.get() & ((1 << START_BITS) - 1)) as usize * UNIT
    }

    /// Its bytes among those of its block.
    #[inline(always)]
    fn range(&self, block: &[u8]) -> Range<usize> {
        let start = self.start();
        let length = Length::before(&block[start..]);
        start + length.size..start + length.size + length.count
    }
}

/// The number of bytes that follow it: one byte, or five.
pub struct Length {
    pub count: usize,
    /// Bytes that the number takes.
    pub size: usize,
    bytes: [u8; 5],
}

impl Length {
    /// If the first byte is this, the number is in the four behind it.
    const LONG: u8 = u8::MAX;

    #[inline(always)]
    pub fn of(count: usize) -> Length {
        if count < Length::LONG.into() {
            return Length { count, size: 1, bytes: [count as u8, 0, 0, 0, 0] };
        }
        let [a, b, c, d] = (count as u32).to_le_bytes();
        Length { count, size: 5, bytes: [Length::LONG, a, b, c, d] }
    }

    /// The one with which these bytes begin.
    #[inline(always)]
    pub fn before(bytes: &[u8]) -> Length {
        match *bytes {
            [count, ..] if count < Length::LONG => Length::of(count.into()),
            [_, a, b, c, d, ..] => Length::of(u32::from_le_bytes([a, b, c, d]) as usize),
            _ => Length::of(0),
        }
    }

    #[inline(always)]
    pub fn bytes(&self) -> &[u8] {
        &self.bytes[..self.size]
    }

    /// Puts it where these bytes begin.
    #[inline(always)]
    fn write(&self, to: &mut [u8]) {
        match self.size {
            1 => to[0] = self.bytes[0],
            _ => to[..self.size].copy_from_slice(&self.bytes),
        }
    }
}

impl Heap {
    #[inline]
    pub fn bytes(&self, piece: &Piece) -> &[u8] {
        let block = &self.blocks[piece.block()].bytes;
        &block[piece.range(block)]
    }

    /// The bytes, to be changed in everything but their number.
    pub fn bytes_mut(&mut self, piece: &Piece) -> &mut [u8] {
        let block = &mut self.blocks[piece.block()].bytes;
        let range = piece.range(block);
        &mut block[range]
    }

    /// Bytes that a piece takes.
    pub fn size(&self, piece: &Piece) -> usize {
        size(self.bytes(piece).len())
    }

    /// A piece with these bytes, one after another.
    pub fn add(&mut self, parts: &[&[u8]]) -> Piece {
        let length = Length::of(parts.iter().map(|part| part.len()).sum());
        let size = size(length.count);
        self.live += size;
        if let Some(piece) = self.take_hole(class(size)) {
            let block = &mut self.blocks[piece.block()];
            block.live += size;
            let to = &mut block.bytes[piece.start()..];
            length.write(to);
            let mut to = &mut to[length.size..];
            for part in parts {
                let begin = to.split_off_mut(..part.len()).unwrap_or_default();
                match (&mut *begin, part) {
                    // A length, mostly. To copy what may be longer takes more time.
                    ([to], [byte]) => *to = *byte,
                    (begin, part) => begin.copy_from_slice(part),
                }
            }
            return piece;
        }
        let block = self.block_with_room(size);
        let filled = &mut self.blocks[block as usize];
        let start = filled.bytes.len();
        for part in [length.bytes()].iter().chain(parts) {
            match part {
                [byte] => filled.bytes.push(*byte),
                part => filled.bytes.extend_from_slice(part),
            }
        }
        filled.bytes.resize(start + size, 0);
        filled.live += size;
        self.filled += size;
        Piece::new(block, start)
    }

    /// Changes the bytes of a piece and how many there are; it may move.
    pub fn edit(&mut self, piece: &mut Piece, change: impl FnOnce(&mut Vec<u8>)) {
        let mut bytes = std::mem::take(&mut self.scratch);
        bytes.extend_from_slice(self.bytes(piece));
        change(&mut bytes);
        if self.fit(piece, bytes.len()) {
            self.bytes_mut(piece).copy_from_slice(&bytes);
        } else {
            // First, because the new piece may begin at the same place then.
            self.free(piece.clone());
            *piece = self.add(&[&bytes]);
        }
        bytes.clear();
        // A heap that is small may be one of a million.
        if bytes.capacity() <= SCRATCH.min(self.filled / 16) {
            self.scratch = bytes;
        }
    }

    /// Gives a piece so many bytes where it lies, if it takes as much then; what new ones are must be written.
    pub fn fit(&mut self, piece: &Piece, len: usize) -> bool {
        let (old, new) = (Length::of(self.bytes(piece).len()), Length::of(len));
        let (now, then) = (size(old.count), size(new.count));
        let fits = now == then || now < then && self.lengthen(piece, now, then - now);
        if fits {
            let bytes = &mut self.blocks[piece.block()].bytes[piece.start()..];
            if old.size != new.size {
                bytes.copy_within(old.size..old.size + old.count.min(new.count), new.size);
            }
            new.write(bytes);
        }
        fits
    }

    /// Gives a piece of this size so many bytes more, if it is the last one of the block that is filled, and there is room. So
    /// a new list, which is empty at first, takes its elements without a move.
    fn lengthen(&mut self, piece: &Piece, size: usize, more: usize) -> bool {
        let Some(bytes) = self.end_of_filling(piece, size) else {
            return false;
        };
        if !has_room(bytes, more) {
            return false;
        }
        bytes.resize(bytes.len() + more, 0);
        self.blocks[piece.block()].live += more;
        self.live += more;
        self.filled += more;
        true
    }

    /// The bytes of the block that is filled, if this is their last piece.
    fn end_of_filling(&mut self, piece: &Piece, size: usize) -> Option<&mut Vec<u8>> {
        let bytes = &mut self.blocks[piece.block()].bytes;
        let is_last = bytes.len() == piece.start() + size;
        (is_last && self.filling == Some(piece.block() as u32)).then_some(bytes)
    }

    pub fn free(&mut self, piece: Piece) {
        let size = self.size(&piece);
        self.live -= size;
        if self.live == 0 {
            let larges = std::mem::take(&mut self.larges);
            *self = Heap { outside: self.outside, larges, ..Heap::default() };
            return;
        }
        let block = &mut self.blocks[piece.block()];
        block.live -= size;
        let (is_empty, is_leaving) = (block.live == 0, block.leaving);
        if is_empty {
            self.drop_block(piece.block() as u32);
        } else if let Some(bytes) = self.end_of_filling(&piece, size) {
            // A key that comes and goes leaves nothing behind.
            bytes.truncate(piece.start());
            if bytes.capacity() <= FIRST_BLOCK && bytes.len() < bytes.capacity() / 4 {
                bytes.shrink_to_fit();
            }
            self.filled -= size;
        } else if !is_leaving && self.filled > FIRST_BLOCK.max(HOLES * class(size)) {
            self.add_hole(piece, class(size));
        }
    }

    fn add_hole(&mut self, piece: Piece, class: usize) {
        let block = &mut self.blocks[piece.block()];
        if block.holes.len() <= class {
            block.holes.resize(class + 1, NONE);
        }
        let before = std::mem::replace(&mut block.holes[class], piece.start() as u32);
        block.bytes[piece.start()..][..4].copy_from_slice(&before.to_le_bytes());
        if before == NONE {
            if self.with_holes.len() <= class {
                self.with_holes.resize_with(class + 1, Vec::new);
            }
            self.with_holes[class].push(piece.block() as u32);
        }
    }

    fn take_hole(&mut self, class: usize) -> Option<Piece> {
        let numbers = self.with_holes.get_mut(class)?;
        let number = *numbers.last()?;
        let Block { bytes, holes, .. } = &mut self.blocks[number as usize];
        let start = holes[class];
        let before = bytes[start as usize..].first_chunk()?;
        holes[class] = u32::from_le_bytes(*before);
        if holes[class] == NONE {
            numbers.pop();
        }
        Some(Piece::new(number, start as usize))
    }

    /// Bytes that the entries take, in pieces and outside.
    pub fn used(&self) -> usize {
        self.live + self.outside
    }

    /// Notes that an entry has so many bytes outside, where it had others before.
    pub fn count_outside(&mut self, before: usize, after: usize) {
        self.outside = self.outside + after - before;
    }

    pub fn is_leaving(&self) -> bool {
        self.leaving > 0
    }

    /// Whether pieces are being moved, or so much is free that it is worth it.
    pub fn has_blocks_to_empty(&self) -> bool {
        self.leaving > 0 || self.filled - self.live > self.live / WORTH + LITTLE
    }

    /// Chooses which blocks are to be left, if so much is free that it is worth it. Emptiest first, and no
    /// more than what can be moved with an eighth more memory, or one.
    pub fn begin_leaving(&mut self) -> bool {
        if !self.has_blocks_to_empty() {
            return false;
        }
        let share = |block: &Block| block.live as f64 / block.bytes.len() as f64;
        let mut blocks: Vec<&mut Block> = self.blocks.iter_mut().collect();
        // More than all blocks together have in use, so there is one.
        blocks.retain(|block| block.live > 0 && share(block) < 0.875);
        blocks.sort_by(|a, b| share(a).total_cmp(&share(b)));
        let mut moves = 0;
        for block in blocks {
            moves += block.live;
            if self.leaving > 0 && moves > self.filled / 8 {
                break;
            }
            block.leaving = true;
            block.holes = Vec::new();
            self.leaving += 1;
        }
        if let Some(filling) = self.filling
            && self.blocks[filling as usize].leaving
        {
            self.filling = None;
        }
        self.forget_holes();
        self.is_leaving()
    }

    /// Whether a piece lies in a block that is to be left.
    pub fn is_to_move(&self, piece: &Piece) -> bool {
        self.blocks[piece.block()].leaving
    }

    /// Moves a piece, if it lies in a block that is to be left. Returns how many bytes were moved.
    pub fn relocate(&mut self, piece: &mut Piece) -> usize {
        if !self.is_to_move(piece) {
            return 0;
        }
        // Out of its place for a moment, so that it can be read while others are written.
        let bytes = std::mem::take(&mut self.blocks[piece.block()].bytes);
        let range = piece.range(&bytes);
        let size = size(range.len());
        let new = self.add(&[&bytes[range]]);
        self.blocks[piece.block()].bytes = bytes;
        self.free(std::mem::replace(piece, new));
        size
    }

    /// The block at whose end there is room.
    fn block_with_room(&mut self, size: usize) -> u32 {
        if size < LONG
            && let Some(filling) = self.filling
            && has_room(&mut self.blocks[filling as usize].bytes, size)
        {
            return filling;
        }
        let capacity = match (size, self.filled) {
            (LONG.., _) | (_, ..=FIRST_BLOCK) => size,
            (_, filled) => (filled / 8).clamp(FIRST_BLOCK, BLOCK).max(size),
        };
        let number = self.dropped.pop().unwrap_or_else(|| {
            if self.blocks.len() == self.blocks.capacity() {
                // A `push` would double them, or make room for four.
                self.blocks.reserve_exact((self.blocks.len() / 4).max(1));
            }
            self.blocks.push(Block::default());
            // A heap of more has more than a terabyte.
            assert!(self.blocks.len() <= 1 << (48 - START_BITS));
            (self.blocks.len() - 1) as u32
        });
        self.blocks[number as usize].bytes = Vec::with_capacity(capacity);
        // What comes next goes where there is more room. The other block gets no new pieces.
        let room = self.filling.map_or(0, |filling| {
            let bytes = &self.blocks[filling as usize].bytes;
            bytes.capacity() - bytes.len()
        });
        if size < LONG && capacity - size >= room {
            self.filling = Some(number);
        }
        number
    }

    fn drop_block(&mut self, number: u32) {
        let block = std::mem::take(&mut self.blocks[number as usize]);
        self.filled -= block.bytes.len();
        self.dropped.push(number);
        if self.filling == Some(number) {
            self.filling = None;
        }
        if block.leaving {
            self.leaving -= 1;
        } else if !block.holes.is_empty() {
            self.forget_holes();
        }
    }

    /// Forgets where holes were in blocks that have none any more.
    fn forget_holes(&mut self) {
        for numbers in &mut self.with_holes {
            numbers.retain(|number| !self.blocks[*number as usize].holes.is_empty());
        }
    }
}

/// Whether there is room for so many bytes at the end of a block. The block of a small heap grows little by little.
fn has_room(block: &mut Vec<u8>, size: usize) -> bool {
    if size > block.capacity() - block.len() && block.len() + size <= FIRST_BLOCK {
        block.reserve_exact(size.max(block.len() / 4));
    }
    size <= block.capacity() - block.len()
}

/// The size of each piece, and so where it begins, is a multiple of this.
const UNIT: usize = 4;

/// The unit in which pieces of this size are measured: a thirty-second of the next power of two, but at least four bytes
/// and at most 128. So of a long piece at most a sixteenth is lost, and a hole fits many.
fn unit(len: usize) -> usize {
    (len.next_power_of_two() / 32).clamp(UNIT, 128)
}

/// Bytes that a piece of so many takes.
fn size(len: usize) -> usize {
    let len = len + Length::of(len).size;
    // As `next_multiple_of`, but without a division.
    (len + unit(len) - 1) & !(unit(len) - 1)
}

/// The number of a size among all sizes.
fn class(size: usize) -> usize {
    let unit = unit(size).ilog2() as usize;
    // The smallest is number 0.
    16 * unit + (size >> unit) - 33
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_comes_and_goes_in_a_small_heap_grows_where_it_lies_and_leaves_nothing() {
        let mut heap = Heap::default();
        let stays = heap.add(&[b"stays"]);
        for _ in 0..1_000 {
            let mut comes = heap.add(&[b"list"]);
            let start = comes.start();
            for len in 5..300 {
                heap.edit(&mut comes, |bytes| bytes.push(b'x'));
                assert_eq!((comes.start(), heap.bytes(&comes).len()), (start, len));
            }
            assert!(heap.bytes(&comes).starts_with(b"listxxx"));
            heap.free(comes);
            assert!(!heap.has_blocks_to_empty() && heap.filled == heap.live);
        }
        assert_eq!(heap.bytes(&stays), b"stays");
    }

    #[test]
    fn what_is_moved_goes_into_the_holes_of_other_blocks_however_many_there_are() {
        let mut heap = Heap::default();
        let mut pieces: Vec<_> = (0..700_000).map(|_| Some(heap.add(&[b"eleven byte"]))).collect();
        let full = heap.filled;
        // Many of the first half, and few of the others.
        for (at, piece) in pieces.iter_mut().enumerate() {
            if at % if at < 350_000 { 2 } else { 7 } == 0 {
                piece.take().into_iter().for_each(|piece| heap.free(piece));
            }
        }
        let live = heap.live;
        while heap.begin_leaving() {
            for piece in pieces.iter_mut().flatten() {
                heap.relocate(piece);
            }
            assert!(heap.filled <= full);
        }
        assert!(heap.live == live && heap.filled < live / 6 * 7 + LITTLE, "{}", heap.filled);
        // Nothing new is filled as long as there are holes.
        let filled = heap.filled;
        for piece in pieces.iter_mut().filter(|piece| piece.is_none()).take(50_000) {
            *piece = Some(heap.add(&[b"another one"]));
        }
        assert_eq!(heap.filled, filled);
        assert!(pieces.iter().flatten().all(|piece| heap.bytes(piece).len() == 11));
    }

    #[test]
    fn pieces_that_grow_leave_little_behind_and_are_seldom_moved() {
        let mut heap = Heap::default();
        // The same numbers each time (Knuth's constant), so that this does not fail by chance.
        let mut number = 1u64;
        let mut below = |bound: usize| {
            number = number.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            (number >> 33) as usize % bound
        };
        let mut pieces: Vec<Piece> = (0..1_000).map(|_| heap.add(&[b"begin"])).collect();
        let (mut next, mut edited, mut moved) = (0, 0, 0);
        for round in 0..100_000 {
            // As a table does it with each change, whose slots have some fourteen entries.
            if heap.is_leaving() || heap.begin_leaving() {
                for _ in 0..14 {
                    moved += heap.relocate(&mut pieces[next]);
                    next = (next + 1) % pieces.len();
                }
            }
            let piece = &mut pieces[below(1_000)];
            heap.edit(piece, |bytes| {
                let more = below(60);
                let len = if bytes.len() > 2_000 { 5 } else { bytes.len() + more };
                bytes.resize(len, b'x');
                edited += len;
            });
            let left_behind = heap.filled - heap.live;
            assert!(round < 20_000 || left_behind < heap.live / 20 * 9, "{left_behind}");
        }
        assert!(moved < edited / 5, "{moved} of {edited}");
    }

    #[test]
    fn a_number_of_bytes_is_read_as_it_was_written() {
        for count in [0, 1, 127, 254, 255, 256, 65_536, u32::MAX as usize] {
            let length = Length::of(count);
            let bytes = [length.bytes(), b"behind"].concat();
            assert_eq!(
                (Length::before(&bytes).count, Length::before(&bytes).size),
                (count, length.size)
            );
        }
    }

    #[test]
    fn a_piece_may_be_lengthened_past_the_longest_short_number() {
        let mut heap = Heap::default();
        let mut pieces = [heap.add(&[b"a"]), heap.add(&[b"b"])];
        for len in 1..2_000 {
            for piece in &mut pieces {
                heap.edit(piece, |bytes| bytes.resize(len, b'x'));
                assert_eq!(heap.bytes(piece).len(), len);
            }
            let lives = pieces.iter().map(|piece| heap.size(piece)).sum::<usize>();
            assert_eq!(heap.live, lives);
        }
        pieces.into_iter().for_each(|piece| heap.free(piece));
        assert_eq!((heap.live, heap.filled), (0, 0));
    }

    #[test]
    fn a_small_heap_from_which_much_has_gone_takes_little() {
        let mut heap = Heap::default();
        let mut pieces: Vec<Piece> = (0..60).map(|_| heap.add(&[b"fifteen bytes.."])).collect();
        while pieces.len() > 2 {
            heap.free(pieces.remove(pieces.len() - 1));
        }
        let taken: usize = heap.blocks.iter().map(|block| block.bytes.capacity()).sum();
        assert!(taken <= 8 * 16, "{taken}");
    }

    #[test]
    fn a_block_that_has_room_goes_on_being_filled_beside_longer_pieces() {
        let mut heap = Heap::default();
        let mut long = heap.add(&[&[b'x'; 60_000]]);
        for more in 0..300 {
            heap.free(long);
            long = heap.add(&[&vec![b'x'; 60_000 + 7 * more]]);
            heap.add(&[b"small"]);
        }
        let blocks = heap.blocks.iter().filter(|block| block.live > 0).count();
        assert!(blocks < 20, "{blocks} blocks");
    }
}
