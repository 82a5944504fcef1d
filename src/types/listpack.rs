//! A listpack: elements one after another in a run of bytes, each with its length before it.
//!
//! It is how a collection is stored while it is small: an allocation for each of five elements would
//! cost more than they do. To find an element is to walk past those before it. A hash puts in two
//! elements for each field, a list or a set one for each of theirs.
//!
//! ```text
//! HSET user name Ada age 36
//!
//! count    name        Ada       age       36
//! ┌───────┬──────────┬─────────┬─────────┬───────┐   the count has four bytes,
//! │4·0·0·0│4 n a m e │3 A d a  │3 a g e  │2 3 6  │   a length one for each seven of its bits
//! └───────┴──────────┴─────────┴─────────┴───────┘
//! 0       4          9         13        17      20  an element's place is the offset of its length
//! ```
//!
//! There is one way to change it ([`ListpackMut::splice`]): some elements go, others come in their place.
//!
//! **How Redis does it**: listpack.c. There an element has its length behind it too, so that the
//! walk may also go backwards, and a number is kept in binary. Here a walk goes forwards only, which saves a
//! byte per element. `OBJECT ENCODING` says `listpack` all the same: for a client it is one.

use std::ops::Range;

/// A listpack to be read.
#[derive(Clone, Copy)]
pub struct Listpack<'a>(pub &'a [u8]);

/// A listpack that begins at `start` in `bytes`, and ends where they end.
pub struct ListpackMut<'a> {
    pub bytes: &'a mut Vec<u8>,
    pub start: usize,
}

/// A listpack that is gathered element by element, in memory that is used again.
pub struct Gathered {
    pub(super) bytes: Vec<u8>,
    count: usize,
}

/// An element, and its place.
#[derive(Clone, Copy)]
pub struct Element<'a> {
    pub at: usize,
    pub bytes: &'a [u8],
}

/// A listpack without an element.
pub const EMPTY: [u8; 4] = [0; 4];

impl<'a> Listpack<'a> {
    /// How many elements there are.
    pub fn len(self) -> usize {
        u32::from_le_bytes([self.0[0], self.0[1], self.0[2], self.0[3]]) as usize
    }

    /// The elements, from the first to the last.
    pub fn iter(self) -> impl Iterator<Item = Element<'a>> {
        let mut next = EMPTY.len();
        std::iter::from_fn(move || {
            (next < self.0.len()).then(|| {
                let at = next;
                let bytes = self.bytes_at(at);
                next = bytes.end;
                Element { at, bytes: &self.0[bytes] }
            })
        })
    }

    /// The elements two by two, as a hash has them.
    pub fn pairs(self) -> impl Iterator<Item = (Element<'a>, Element<'a>)> {
        let mut elements = self.iter();
        std::iter::from_fn(move || Some((elements.next()?, elements.next()?)))
    }

    /// Where the bytes of the element at this place are.
    #[inline]
    pub fn bytes_at(self, at: usize) -> Range<usize> {
        match self.0[at] {
            // Most are short.
            length @ ..0x80 => at + 1..at + 1 + usize::from(length),
            _ => self.long_bytes_at(at),
        }
    }

    fn long_bytes_at(self, mut at: usize) -> Range<usize> {
        let (mut length, mut shift) = (0, 0);
        loop {
            let byte = self.0[at];
            at += 1;
            length |= usize::from(byte & 0x7f) << shift;
            if byte < 0x80 {
                return at..at + length;
            }
            shift += 7;
        }
    }
}

impl ListpackMut<'_> {
    /// Puts elements behind the last.
    pub fn push(&mut self, elements: &[&[u8]]) {
        self.splice(self.bytes.len() - self.start, 0, elements);
    }

    /// From the place `at` on, takes so many elements away and puts these there.
    pub fn splice(&mut self, at: usize, removed: usize, added: &[&[u8]]) {
        let listpack = Listpack(&self.bytes[self.start..]);
        let count = (listpack.len() + added.len() - removed) as u32;
        let old_end = self.start + (0..removed).fold(at, |at, _| listpack.bytes_at(at).end);
        let added_size = added.iter().map(|e| size_of_length(e.len()) + e.len()).sum::<usize>();
        let mut at = self.start + at;
        let new_end = at + added_size;
        let length = self.bytes.len();
        if new_end > old_end {
            // No more than is needed: memory is counted in these bytes.
            self.bytes.reserve_exact(new_end - old_end);
            self.bytes.resize(length + new_end - old_end, 0);
        }
        self.bytes.copy_within(old_end..length, new_end);
        self.bytes.truncate(length + new_end - old_end);
        for element in added {
            at = write(self.bytes, at, element);
        }
        self.bytes[self.start..self.start + EMPTY.len()].copy_from_slice(&count.to_le_bytes());
    }
}

impl Gathered {
    /// How many elements there are.
    pub fn len(&self) -> usize {
        self.count
    }

    pub fn push(&mut self, element: &[u8]) {
        let mut length = element.len();
        while length >= 0x80 {
            self.bytes.push((length & 0x7f) as u8 | 0x80);
            length >>= 7;
        }
        self.bytes.push(length as u8);
        self.bytes.extend_from_slice(element);
        self.count += 1;
    }

    /// What was gathered.
    pub fn end(&mut self) -> Listpack<'_> {
        self.bytes[..EMPTY.len()].copy_from_slice(&(self.count as u32).to_le_bytes());
        Listpack(&self.bytes)
    }

    /// Makes it empty, and keeps the memory.
    pub fn clear(&mut self) {
        self.bytes.clear();
        self.bytes.extend(EMPTY);
        self.count = 0;
    }
}

impl Default for Gathered {
    fn default() -> Gathered {
        Gathered { bytes: EMPTY.to_vec(), count: 0 }
    }
}

/// Writes an element to its place; returns where it ends.
fn write(bytes: &mut [u8], mut at: usize, element: &[u8]) -> usize {
    let mut length = element.len();
    while length >= 0x80 {
        bytes[at] = (length & 0x7f) as u8 | 0x80;
        length >>= 7;
        at += 1;
    }
    bytes[at] = length as u8;
    let end = at + 1 + element.len();
    bytes[at + 1..end].copy_from_slice(element);
    end
}

/// How many bytes the length takes that stands before an element.
fn size_of_length(length: usize) -> usize {
    (length.max(1).ilog2() / 7) as usize + 1
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::types::table::random_below;

    #[test]
    fn a_listpack_holds_what_a_vector_holds_after_any_changes() {
        for start in [0, 5] {
            let mut bytes = vec![b'k'; start];
            bytes.extend_from_slice(&EMPTY);
            let mut model: Vec<Vec<u8>> = Vec::new();
            for _ in 0..2_000 {
                let from = random_below(model.len() + 1);
                let removed = random_below(4).min(model.len() - from);
                let element = |_| vec![b'x'; [0, 3, 127, 128, 20_000][random_below(5)]];
                // Ten or so stay.
                let most = if model.len() < 10 { 4 } else { 2 };
                let added: Vec<Vec<u8>> = (0..random_below(most)).map(element).collect();
                let listpack = Listpack(&bytes[start..]);
                let end = bytes.len() - start;
                let at = listpack.iter().nth(from).map_or(end, |element| element.at);
                let elements: Vec<&[u8]> = added.iter().map(Vec::as_slice).collect();
                ListpackMut { bytes: &mut bytes, start }.splice(at, removed, &elements);
                model.splice(from..from + removed, added);
                let listpack = Listpack(&bytes[start..]);
                assert_eq!(listpack.len(), model.len());
                assert!(listpack.iter().map(|element| element.bytes).eq(model.iter()));
                assert!(bytes[..start].iter().all(|&byte| byte == b'k'));
            }
        }
    }
}
