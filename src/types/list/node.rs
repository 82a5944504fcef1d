//! A node of a list: some elements one after another, from which either end can be taken.
//!
//! ```text
//! RPUSH l one two                                  three more by LPUSH come into the gap, from its end
//!
//!   gap                one          two
//! ┌───────────────────┬────────────┬────────────┐  an element has its length before it and behind it,
//! │                   │3 o n e 3   │3 t w o 3   │  the second one mirrored: a byte for each seven bits
//! └───────────────────┴────────────┴────────────┘
//! 0                   start        an element's place is the range of its bytes from `start` on
//! ```
//!
//! A list is used from both ends, and read from both. A hash's listpack (listpack.rs) has a length only
//! before each element, so its last one is found by walking past all others: of a node of 8 KiB a thousand
//! of them, for each RPOP. A table of places would have to be kept up to date with each change. The second
//! length costs a byte per element, as in Redis, and needs nothing.
//!
//! The gap makes LPUSH as cheap as RPUSH: nothing moves until it is used up. It is a quarter of the node,
//! and so is the room behind the end, so in a growing node a byte is copied about four times.
//!
//! **How Redis does it**: a listpack (listpack.c), whose elements have their length behind them too. A push
//! at the head moves all of its bytes, and each push asks the allocator for a few bytes more. Redis keeps
//! numbers in binary, which takes less memory than their digits.

use crate::types::allocated;
use std::ops::Range;

/// Elements to be read.
#[derive(Clone, Copy, Default)]
pub struct Elements<'a> {
    pub bytes: &'a [u8],
    pub count: usize,
}

/// An element, and its place.
#[derive(Clone)]
pub struct Element<'a> {
    pub place: Range<usize>,
    pub bytes: &'a [u8],
}

/// A node, to be changed.
#[derive(Default)]
pub struct Node {
    /// The gap, and from `start` on the elements.
    bytes: Vec<u8>,
    start: u32,
    count: u32,
}

/// An end of a list. Redis's commands call them LEFT and RIGHT.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Side {
    Left,
    Right,
}

/// How much one node holds.
#[derive(Clone, Copy)]
pub struct NodeLimits {
    pub bytes: usize,
    pub count: usize,
}

/// Bytes by which the memory of a node grows, at least.
const LEAST: usize = 64;

/// What an allocator adds to a node's bytes, so that the sum is a power of two.
const HEADER: usize = 8;

/// A walk over elements, from both ends.
#[derive(Clone, Default)]
pub struct Walk<'a> {
    bytes: &'a [u8],
    left: Range<usize>,
}

impl NodeLimits {
    /// The limits that `list-max-listpack-size` names: so many elements, or from -1 to -5 a size in bytes.
    pub fn of(option: i64) -> NodeLimits {
        let bytes = match option {
            ..=-5 => 64 * 1024,
            -4 => 32 * 1024,
            -3 => 16 * 1024,
            -1 => 4 * 1024,
            _ => 8 * 1024,
        };
        let count = match option {
            ..=-1 => usize::MAX,
            count => count.max(1) as usize,
        };
        NodeLimits { bytes: bytes - HEADER, count }
    }
}

impl<'a> Elements<'a> {
    pub fn iter(self) -> Walk<'a> {
        Walk { bytes: self.bytes, left: 0..self.bytes.len() }
    }

    /// The elements after the first `count`. The walk to them begins at the nearer end.
    pub fn after(self, count: usize) -> Walk<'a> {
        let mut walk = self.iter();
        if count <= self.count / 2 {
            for _ in 0..count {
                walk.next();
            }
            return walk;
        }
        for _ in count..self.count {
            walk.next_back();
        }
        Walk { bytes: self.bytes, left: walk.left.end..self.bytes.len() }
    }

    /// Whether there is room for another element. A node that is empty takes any.
    pub fn fits(self, element: &[u8], limits: NodeLimits) -> bool {
        let bytes = self.bytes.len() + size(element);
        self.count == 0 || (self.count < limits.count && bytes <= limits.bytes)
    }

    /// The bytes of these elements without some that are taken from an end.
    pub fn without(self, side: Side, count: usize) -> Range<usize> {
        let end = self.bytes.len();
        match side {
            Side::Left => self.after(count).left.start..end,
            Side::Right => 0..self.after(self.count - count).left.start,
        }
    }
}

impl<'a> Iterator for Walk<'a> {
    type Item = Element<'a>;

    #[inline]
    fn next(&mut self) -> Option<Element<'a>> {
        if self.left.is_empty() {
            return None;
        }
        let at = self.left.start;
        let (length, digits) = match self.bytes[at] {
            // Most are short.
            length @ ..0x80 => (usize::from(length), 1),
            _ => read_length(self.bytes[at..].iter()),
        };
        let end = at + length + 2 * digits;
        self.left.start = end;
        Some(Element { place: at..end, bytes: &self.bytes[at + digits..end - digits] })
    }
}

impl<'a> DoubleEndedIterator for Walk<'a> {
    #[inline]
    fn next_back(&mut self) -> Option<Element<'a>> {
        if self.left.is_empty() {
            return None;
        }
        let end = self.left.end;
        let (length, digits) = match self.bytes[end - 1] {
            length @ ..0x80 => (usize::from(length), 1),
            _ => read_length(self.bytes[..end].iter().rev()),
        };
        let at = end - length - 2 * digits;
        self.left.end = at;
        Some(Element { place: at..end, bytes: &self.bytes[at + digits..end - digits] })
    }
}

impl Node {
    /// A node of these elements, which takes no more memory than they need.
    pub fn of(elements: Elements) -> Node {
        Node { bytes: elements.bytes.to_vec(), start: 0, count: elements.count as u32 }
    }

    pub fn look(&self) -> Elements<'_> {
        Elements { bytes: &self.bytes[self.start as usize..], count: self.len() }
    }

    pub fn len(&self) -> usize {
        self.count as usize
    }

    /// Bytes of memory outside of the node itself.
    pub fn memory(&self) -> usize {
        if self.bytes.capacity() == 0 { 0 } else { allocated(self.bytes.capacity()) }
    }

    pub fn push(&mut self, side: Side, element: &[u8]) {
        let size = size(element);
        match side {
            Side::Left => {
                if (self.start as usize) < size {
                    self.make_room(side, size);
                }
                self.start -= size as u32;
                let start = self.start as usize;
                write(&mut self.bytes[start..start + size], element);
            }
            Side::Right => {
                if self.bytes.capacity() - self.bytes.len() < size {
                    self.make_room(side, size);
                }
                let end = self.bytes.len();
                self.bytes.resize(end + size, 0);
                write(&mut self.bytes[end..], element);
            }
        }
        self.count += 1;
    }

    /// Takes elements away at one end.
    pub fn drop_from(&mut self, side: Side, count: usize) {
        let left = self.look().without(side, count);
        self.bytes.truncate(self.start as usize + left.end);
        self.start += left.start as u32;
        self.count -= count as u32;
        let live = self.look().bytes.len();
        if live < self.bytes.capacity() / 4 {
            self.lay_out(0, live);
        }
    }

    /// Puts an element, or nothing, in the place of these bytes. `old` is how many elements they are.
    pub fn replace(&mut self, place: Range<usize>, old: u32, new: Option<&[u8]>) {
        let start = self.start as usize;
        replace(&mut self.bytes, start + place.start..start + place.end, new);
        self.count = self.count + u32::from(new.is_some()) - old;
    }

    /// Takes the elements at these places away, which stand in order.
    pub fn cut(&mut self, places: &[Range<usize>]) {
        let live = self.look().bytes;
        let mut bytes = Vec::with_capacity(live.len());
        let mut from = 0;
        for place in places {
            bytes.extend_from_slice(&live[from..place.start]);
            from = place.end;
        }
        bytes.extend_from_slice(&live[from..]);
        bytes.shrink_to_fit();
        *self = Node { bytes, start: 0, count: self.count - places.len() as u32 };
    }

    /// Splits the elements from this place on off.
    pub fn split_off(&mut self, place: usize) -> Node {
        let Elements { bytes, count } = self.look();
        let behind = Elements { bytes: &bytes[place..], count: 0 };
        let moved = behind.iter().count();
        let behind = Node::of(Elements { count: moved, ..behind });
        *self = Node::of(Elements { bytes: &bytes[..place], count: count - moved });
        behind
    }

    /// Gives memory back that is not used: the node is no end of its list any more.
    pub fn settle(&mut self) {
        if self.start > 0 {
            self.lay_out(0, 0);
        }
        self.bytes.shrink_to_fit();
    }

    /// Makes room for more elements at one end. At the other end as much stays as is there, but no more.
    #[cold]
    pub fn make_room(&mut self, side: Side, size: usize) {
        let (gap, spare) = (self.start as usize, self.bytes.capacity() - self.bytes.len());
        let quarter = (self.look().bytes.len() / 4).max(size).max(LEAST);
        match side {
            Side::Left => self.lay_out(quarter, spare.min(quarter)),
            Side::Right => self.lay_out(gap.min(quarter), quarter),
        }
    }

    /// Moves the elements into memory with a gap before them and room behind them.
    fn lay_out(&mut self, gap: usize, room: usize) {
        let live = self.look().bytes;
        let mut bytes = Vec::with_capacity(gap + live.len() + room);
        bytes.resize(gap, 0);
        bytes.extend_from_slice(live);
        self.bytes = bytes;
        self.start = gap as u32;
    }
}

impl Clone for Node {
    fn clone(&self) -> Node {
        Node::of(self.look())
    }
}

/// Puts an element, or nothing, in the place of these bytes.
pub fn replace(bytes: &mut Vec<u8>, old: Range<usize>, new: Option<&[u8]>) {
    let (length, end) = (bytes.len(), old.start + new.map_or(0, size));
    if end > old.end {
        bytes.resize(length + end - old.end, 0);
    }
    bytes.copy_within(old.end..length, end);
    bytes.truncate(end + length - old.end);
    if let Some(element) = new {
        write(&mut bytes[old.start..end], element);
    }
}

/// Bytes that an element takes, with its lengths.
pub fn size(element: &[u8]) -> usize {
    element.len() + 2 * size_of_length(element.len())
}

fn size_of_length(length: usize) -> usize {
    (length.max(1).ilog2() / 7) as usize + 1
}

/// Writes an element, which fills `to`.
pub fn write(to: &mut [u8], element: &[u8]) {
    if let [first, bytes @ .., last] = &mut *to
        && element.len() < 0x80
    {
        // Most are short.
        (*first, *last) = (element.len() as u8, element.len() as u8);
        bytes.copy_from_slice(element);
        return;
    }
    let digits = size_of_length(element.len());
    let last = to.len() - 1;
    let mut length = element.len();
    for i in 0..digits {
        let more = if i + 1 < digits { 0x80 } else { 0 };
        let byte = (length & 0x7f) as u8 | more;
        (to[i], to[last - i]) = (byte, byte);
        length >>= 7;
    }
    to[digits..=last - digits].copy_from_slice(element);
}

/// A length of several bytes, and how many it has.
#[cold]
fn read_length<'a>(bytes: impl Iterator<Item = &'a u8>) -> (usize, usize) {
    let mut length = 0;
    for (i, byte) in bytes.enumerate() {
        length |= usize::from(byte & 0x7f) << (7 * i);
        if *byte < 0x80 {
            return (length, i + 1);
        }
    }
    (length, 0)
}
