//! A hash: packed while it is small, a table when it is not.
//!
//! Most hashes are small objects, a user with five fields. A table for each would cost more than
//! the fields. So up to `hash-max-listpack-entries` fields, none longer than
//! `hash-max-listpack-value` bytes, lie one after another in one allocation, in the order in which
//! they came, and looking one up means walking past the others:
//!
//! ```text
//! count   name        value       name      value
//! ┌──────┬──────────┬───────────┬─────────┬────────┐   the count has four bytes,
//! │2·0·0·0│4 n a m e│3 A d a    │3 a g e  │2 3 6   │   a length one for each seven of its bits
//! └──────┴──────────┴───────────┴─────────┴────────┘
//! ```
//!
//! Past either limit the hash becomes a [`Table`] of [`Field`]s and stays one.
//!
//! This file knows the packed bytes and how to read either form. Who owns the bytes (the key's
//! [`crate::types::entry::Stored`], which holds them behind the key), and when the form changes, stands
//! there.
//!
//! **How Redis does it**: t_hash.c over listpack.c. A listpack also keeps integers in binary and
//! can be walked backwards; ours needs neither. `OBJECT ENCODING` says `listpack` all the same:
//! for a client it is one.

use crate::types::heap::{Heap, Piece};
use crate::key::digest_of;
use crate::types::table::{Held, HeldMut, Keyed, Table};
use std::ops::Range;

/// How large a packed hash may become, from the configuration.
#[derive(Clone, Copy)]
pub struct Limits {
    /// Most fields (`hash-max-listpack-entries`).
    pub entries: usize,
    /// Longest name or value, in bytes (`hash-max-listpack-value`).
    pub value: usize,
}

/// A field of a hash that is a table: name and value in one piece of its heap.
pub struct Field {
    piece: Piece,
    name_len: u32,
}

impl Field {
    pub fn new(name: &[u8], value: &[u8], heap: &mut Heap) -> Field {
        Field { piece: heap.add(&[name, value]), name_len: name.len() as u32 }
    }

    pub fn free(self, heap: &mut Heap) {
        heap.free(self.piece);
    }
}

impl<'a> Held<'a, Field> {
    pub fn name(self) -> &'a [u8] {
        self.key()
    }

    pub fn value(self) -> &'a [u8] {
        &self.heap.bytes(&self.entry.piece)[self.entry.name_len as usize..]
    }
}

impl HeldMut<'_, Field> {
    pub fn set_value(self, value: &[u8]) {
        let HeldMut { entry, heap } = self;
        let name_len = entry.name_len as usize;
        if heap.bytes(&entry.piece).len() - name_len == value.len() {
            heap.bytes_mut(&entry.piece)[name_len..].copy_from_slice(value);
        } else {
            heap.edit(&mut entry.piece, |bytes| {
                bytes.truncate(name_len);
                bytes.extend_from_slice(value);
            });
        }
    }
}

impl Keyed for Field {
    fn key<'a>(&'a self, heap: &'a Heap) -> &'a [u8] {
        &heap.bytes(&self.piece)[..self.name_len as usize]
    }

    fn piece_mut(&mut self) -> Option<&mut Piece> {
        Some(&mut self.piece)
    }

    fn outside(&self) -> usize {
        0
    }
}

/// A hash to read from, in either form.
#[derive(Clone, Copy)]
pub enum Hash<'a> {
    Packed(&'a [u8]),
    Table(&'a Table<Field>),
}

impl<'a> Hash<'a> {
    /// How many fields there are.
    pub fn len(self) -> usize {
        match self {
            Hash::Packed(packed) => count(packed),
            Hash::Table(table) => table.len(),
        }
    }

    /// The value of a field.
    pub fn get(self, name: &[u8]) -> Option<&'a [u8]> {
        match self {
            Hash::Packed(packed) => find(packed, name).map(|found| &packed[found.value]),
            Hash::Table(table) => table.get(digest_of(name), name).map(Held::<Field>::value),
        }
    }

    /// Names and values, in the order of insertion while the hash is packed.
    pub fn iter(self) -> Box<dyn Iterator<Item = (&'a [u8], &'a [u8])> + 'a> {
        match self {
            Hash::Packed(packed) => Box::new(pairs(packed)),
            Hash::Table(table) => Box::new(table.iter().map(|f| (f.name(), f.value()))),
        }
    }

    /// A field, each with the same chance. A hash is never empty: the key goes with its last field.
    pub fn random(self) -> Option<(&'a [u8], &'a [u8])> {
        match self {
            Hash::Packed(packed) => pairs(packed).nth(crate::types::table::random_below(count(packed))),
            Hash::Table(table) => table.random().map(|field| (field.name(), field.value())),
        }
    }
}

/// A packed hash without a field.
pub const EMPTY: [u8; 4] = [0; 4];

/// How many fields a packed hash has.
pub fn count(packed: &[u8]) -> usize {
    u32::from_le_bytes([packed[0], packed[1], packed[2], packed[3]]) as usize
}

/// Where a field stands in a packed hash.
pub struct Found {
    /// The whole field: both lengths, name and value.
    pub field: Range<usize>,
    /// The bytes of the value.
    pub value: Range<usize>,
}

/// Looks for a field, from the first to the last: few and short, or the hash were a table.
pub fn find(packed: &[u8], name: &[u8]) -> Option<Found> {
    let mut at = EMPTY.len();
    while at < packed.len() {
        let (candidate, after_name) = element(packed, at);
        let (value, end) = element(packed, after_name);
        if &packed[candidate] == name {
            return Some(Found { field: at..end, value });
        }
        at = end;
    }
    None
}

/// The range of the bytes whose length stands at `at`, and where they end.
fn element(packed: &[u8], mut at: usize) -> (Range<usize>, usize) {
    let mut length = 0;
    let mut shift = 0;
    loop {
        let byte = packed[at];
        at += 1;
        length |= usize::from(byte & 0x7f) << shift;
        if byte < 0x80 {
            return (at..at + length, at + length);
        }
        shift += 7;
    }
}

fn pairs(packed: &[u8]) -> impl Iterator<Item = (&[u8], &[u8])> {
    let mut at = EMPTY.len();
    std::iter::from_fn(move || {
        (at < packed.len()).then(|| {
            let (name, after_name) = element(packed, at);
            let (value, end) = element(packed, after_name);
            at = end;
            (&packed[name], &packed[value])
        })
    })
}

/// Appends a field that is not there yet to the packed hash that begins at `start` in `bytes`.
pub fn push(bytes: &mut Vec<u8>, start: usize, name: &[u8], value: &[u8]) {
    // No more than is needed: memory is counted in these bytes.
    bytes.reserve_exact(
        name.len() + value.len() + length_size(name.len()) + length_size(value.len()),
    );
    push_element(bytes, name);
    push_element(bytes, value);
    add_to_count(bytes, start, 1);
}

/// Replaces the value of a field that [`find`] found in the packed hash that begins at `start`.
pub fn replace(bytes: &mut Vec<u8>, start: usize, found: &Found, value: &[u8]) {
    let mut encoded = Vec::with_capacity(length_size(value.len()) + value.len());
    push_element(&mut encoded, value);
    // The old value's length stands before it; the field ends where the value does.
    let length_at = found.value.start - length_size(found.value.len());
    bytes.splice(start + length_at..start + found.field.end, encoded);
}

/// Takes a field out that [`find`] found in the packed hash that begins at `start`.
pub fn remove(bytes: &mut Vec<u8>, start: usize, found: &Found) {
    bytes.drain(start + found.field.start..start + found.field.end);
    add_to_count(bytes, start, -1);
}

fn add_to_count(bytes: &mut [u8], start: usize, change: isize) {
    let count = count(&bytes[start..]).wrapping_add_signed(change) as u32;
    bytes[start..start + EMPTY.len()].copy_from_slice(&count.to_le_bytes());
}

fn push_element(bytes: &mut Vec<u8>, element: &[u8]) {
    let mut length = element.len();
    while length >= 0x80 {
        bytes.push((length & 0x7f) as u8 | 0x80);
        length >>= 7;
    }
    bytes.push(length as u8);
    bytes.extend_from_slice(element);
}

/// How many bytes the length takes that stands before an element.
fn length_size(length: usize) -> usize {
    (length.max(1).ilog2() / 7) as usize + 1
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_packed_hash_keeps_the_order_of_insertion_and_any_length() {
        let mut bytes = b"key".to_vec();
        bytes.extend_from_slice(&EMPTY);
        let long = vec![b'x'; 20_000];
        for (name, value) in [("a", &b"1"[..]), ("", b""), ("c", &long)] {
            push(&mut bytes, 3, name.as_bytes(), value);
        }
        let found = find(&bytes[3..], b"a").unwrap();
        replace(&mut bytes, 3, &found, &long[..128]);
        let found = find(&bytes[3..], b"c").unwrap();
        replace(&mut bytes, 3, &found, b"short");
        let found = find(&bytes[3..], b"").unwrap();
        remove(&mut bytes, 3, &found);
        let hash = Hash::Packed(&bytes[3..]);
        assert_eq!(hash.len(), 2);
        let fields: Vec<_> = hash.iter().collect();
        assert_eq!(fields, [(&b"a"[..], &long[..128]), (b"c", b"short")]);
        assert_eq!(hash.get(b"c"), Some(&b"short"[..]));
        assert_eq!(hash.get(b""), None);
    }
}
