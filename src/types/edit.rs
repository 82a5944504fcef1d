//! Changing a value where it lies: the bytes of a string, the fields of a hash.
//!
//! A writer that wants to do so has [`StringMut`] or [`HashMut`], and so has looked at the type: there is
//! no way to patch a hash, or to set a field of a string.
//!
//! ```text
//! APPEND      Small, Int ──▶ Small, Raw ──▶ Large      past 16 KiB; never back
//! HSET        Small, Listpack ──▶ Large                past hash-max-listpack-…; never back
//! ```
//!
//! **How Redis does it**: t_string.c and t_hash.c change an `robj`, whose type each command checks
//! (`checkType`), and assert that it is what they take it for.

use super::{DEADLINE, Entry, EntryMut, Kind, LARGE, LargeValue, Stored, Str, number, plain_kind};
use crate::types::hash::{self, Field, Hash, Limits};
use crate::types::heap::{Heap, Piece};
use crate::key::digest_of;
use crate::resp::Arg;
use crate::types::table::{Keyed, Table};
use std::sync::Arc;

/// Bytes that the fields of a packed hash may take, whatever the configuration says (Redis's number): a
/// piece counts its bytes with 32 bits. (Tests have less memory.)
const MOST_PACKED: usize = if cfg!(test) { 1 << 20 } else { 1 << 30 };

/// An entry that is a string, to be changed.
pub struct StringMut<'a>(EntryMut<'a>);

/// An entry that is a hash, to be changed.
pub struct HashMut<'a>(EntryMut<'a>);

/// A value where it lies: the piece of a small entry and where in it the value begins, or a large one.
enum InPlace<'a> {
    Small(&'a mut Heap, &'a mut Piece, usize),
    Large(&'a mut LargeValue),
}

impl<'a> EntryMut<'a> {
    /// The string to be changed, if this is one.
    pub fn string_mut(self) -> Option<StringMut<'a>> {
        self.look().string().is_some().then_some(StringMut(self))
    }

    /// The hash to be changed, if this is one.
    pub fn hash_mut(self) -> Option<HashMut<'a>> {
        self.look().hash().is_some().then_some(HashMut(self))
    }

    /// Replaces the value by a string; the deadline stays. Returns what is worth freeing later.
    pub fn set_string(&mut self, value: Arg) -> Option<LargeValue> {
        match (value, number(&value)) {
            (Arg::Large(large), _) if large.len() > LARGE => {
                self.set_large(LargeValue::String(large.clone()))
            }
            (_, Some(number)) => self.set_payload(Kind::Int, &number.to_le_bytes()),
            (_, None) => self.set_plain_string(&value),
        }
    }

    /// Replaces the value by a string that is stored as the bytes it is.
    fn set_plain_string(&mut self, value: &[u8]) -> Option<LargeValue> {
        match plain_kind(value) {
            Some(kind) => self.set_payload(kind, value),
            None => self.set_large(LargeValue::String(value.to_vec().into())),
        }
    }

    fn set_large(&mut self, value: LargeValue) -> Option<LargeValue> {
        self.counted(|entry, heap| match entry {
            Stored::Large(large) => Some(std::mem::replace(&mut large.value, value)),
            Stored::Small { .. } => {
                let look = Entry { entry, heap };
                let deadline = look.deadline();
                let mut new = Stored::large(look.key(), value);
                if let Stored::Large(large) = &mut new {
                    large.deadline = deadline;
                }
                std::mem::replace(entry, new).free(heap);
                None
            }
        })
    }

    fn set_payload(&mut self, new_kind: Kind, payload: &[u8]) -> Option<LargeValue> {
        if let Stored::Small { piece, key_len, kind, expires } = self.entry {
            let start = Stored::payload_start(*key_len, *expires);
            *kind = new_kind;
            let old = &mut self.heap.bytes_mut(piece)[start..];
            if old.len() == payload.len() {
                old.copy_from_slice(payload);
            } else if self.heap.fit(piece, start + payload.len()) {
                self.heap.bytes_mut(piece)[start..].copy_from_slice(payload);
            } else {
                self.heap.edit(piece, |bytes| {
                    bytes.truncate(start);
                    bytes.extend_from_slice(payload);
                });
            }
            return None;
        }
        let deadline = self.look().deadline();
        let old = self.counted(|entry, heap| {
            let Stored::Large(large) = &*entry else {
                return None;
            };
            let small = Stored::small(&large.key, new_kind, payload, heap);
            match std::mem::replace(entry, small) {
                Stored::Large(large) => Some(large.value),
                Stored::Small { .. } => None,
            }
        });
        self.set_deadline(deadline);
        old
    }

    /// Sets the deadline or takes it away. The store's index of them is the caller's to follow.
    pub fn set_deadline(&mut self, deadline: Option<u64>) {
        match self.entry {
            Stored::Small { piece, key_len, expires, .. } => {
                let old = *key_len as usize..Stored::payload_start(*key_len, *expires);
                let new = deadline.map(u64::to_le_bytes);
                let new: &[u8] = new.as_ref().map_or(&[], |bytes: &[u8; DEADLINE]| bytes);
                if old.len() == new.len() {
                    self.heap.bytes_mut(piece)[old].copy_from_slice(new);
                } else {
                    self.heap.edit(piece, |bytes| {
                        bytes.splice(old, new.iter().copied());
                    });
                    *expires = deadline.is_some();
                }
            }
            Stored::Large(large) => large.deadline = deadline,
        }
    }

    /// Makes a change that may change what the entry has outside of its piece, and counts that.
    fn counted<T>(&mut self, change: impl FnOnce(&mut Stored, &mut Heap) -> T) -> T {
        let before = self.entry.outside();
        let result = change(self.entry, self.heap);
        self.heap.count_outside(before, self.entry.outside());
        result
    }

    /// Changes the value where it lies, whatever its form.
    fn in_place<T>(&mut self, change: impl FnOnce(InPlace) -> T) -> T {
        self.counted(|entry, heap| match entry {
            Stored::Small { piece, key_len, expires, .. } => {
                let start = Stored::payload_start(*key_len, *expires);
                change(InPlace::Small(heap, piece, start))
            }
            Stored::Large(large) => change(InPlace::Large(&mut large.value)),
        })
    }
}

impl<'a> StringMut<'a> {
    /// The string, to be looked at.
    pub fn read(self) -> Option<Str<'a>> {
        let EntryMut { entry, heap } = self.0;
        Entry { entry, heap }.string()
    }

    /// Bytes in it.
    pub fn len(&self) -> usize {
        self.0.look().string().map_or(0, |string| string.len())
    }

    /// The number that it is.
    pub fn number(&self) -> Option<i64> {
        self.0.look().number()
    }

    /// Replaces it by a number. The memory of a number is used again.
    pub fn set_number(&mut self, number: i64) {
        self.0.set_payload(Kind::Int, &number.to_le_bytes());
    }

    /// Replaces it by a string that is stored as the bytes it is.
    pub fn set_plain(&mut self, value: &[u8]) {
        self.0.set_plain_string(value);
    }

    /// Writes `patch` at `offset`, after zero bytes if the string was shorter; APPEND is a patch at the
    /// end. Returns the new length.
    pub fn patch(&mut self, offset: usize, patch: &[u8]) -> usize {
        let entry = &mut self.0;
        if let Some(Str::Digits(digits)) = entry.look().string() {
            entry.set_payload(Kind::Raw, digits.as_bytes());
        }
        if let Stored::Small { kind, .. } = entry.entry {
            *kind = Kind::Raw;
            let payload = entry.look().payload();
            if payload.len().max(offset + patch.len()) > LARGE {
                let string = payload.to_vec();
                entry.set_large(LargeValue::String(string.into()));
            }
        }
        entry.in_place(|value| match value {
            InPlace::Small(heap, piece, start) => {
                let (len, at) = (heap.bytes(piece).len(), start + offset);
                let end = at + patch.len();
                if end <= len || heap.fit(piece, end) {
                    let bytes = heap.bytes_mut(piece);
                    bytes[len.min(at)..at].fill(0);
                    bytes[at..end].copy_from_slice(patch);
                } else {
                    heap.edit(piece, |bytes| write_at(bytes, start, offset, patch));
                }
                heap.bytes(piece).len() - start
            }
            InPlace::Large(LargeValue::String(string)) => {
                write_at(Arc::make_mut(string), 0, offset, patch);
                string.len()
            }
            InPlace::Large(LargeValue::Hash(_)) => unreachable!("a string"),
        })
    }
}

impl HashMut<'_> {
    /// The value of a field.
    pub fn get(&self, name: &[u8]) -> Option<&[u8]> {
        self.0.look().hash().and_then(|hash| hash.get(name))
    }

    /// How many fields there are.
    pub fn len(&self) -> usize {
        self.0.look().hash().map_or(0, Hash::len)
    }

    /// Sets a field, and turns a packed hash into a table when it passes a limit. Returns whether the
    /// field is new.
    pub fn set(&mut self, name: &[u8], value: &[u8], limits: Limits) -> bool {
        let packed = self.0.look().payload().len() + name.len() + value.len();
        if name.len() > limits.value || value.len() > limits.value || packed > MOST_PACKED {
            self.unpack();
        }
        let (is_new, count) = self.0.in_place(|hash| match hash {
            InPlace::Small(heap, piece, start) => {
                let found = hash::find(&heap.bytes(piece)[start..], name);
                match &found {
                    Some(found) if found.value.len() == value.len() => {
                        let at = start + found.value.start..start + found.value.end;
                        heap.bytes_mut(piece)[at].copy_from_slice(value);
                    }
                    Some(found) => heap.edit(piece, |b| hash::replace(b, start, found, value)),
                    None => heap.edit(piece, |bytes| hash::push(bytes, start, name, value)),
                }
                (found.is_none(), hash::count(&heap.bytes(piece)[start..]))
            }
            InPlace::Large(LargeValue::Hash(table)) => (set_table_field(table, name, value), 0),
            InPlace::Large(LargeValue::String(_)) => unreachable!("a hash"),
        });
        if count > limits.entries {
            self.unpack();
        }
        is_new
    }

    /// Removes a field; returns whether it was there.
    pub fn remove(&mut self, name: &[u8]) -> bool {
        self.0.in_place(|hash| match hash {
            InPlace::Small(heap, piece, start) => {
                let found = hash::find(&heap.bytes(piece)[start..], name);
                if let Some(found) = &found {
                    heap.edit(piece, |bytes| hash::remove(bytes, start, found));
                }
                found.is_some()
            }
            InPlace::Large(LargeValue::Hash(table)) => {
                table.remove(digest_of(name), name, Field::free).is_some()
            }
            InPlace::Large(LargeValue::String(_)) => unreachable!("a hash"),
        })
    }

    /// Turns a packed hash into a table, for good.
    fn unpack(&mut self) {
        if let Stored::Small { kind: Kind::Listpack, .. } = self.0.entry {
            let mut table = Table::new();
            for (name, value) in Hash::Packed(self.0.look().payload()).iter() {
                table.insert(digest_of(name), |heap| Field::new(name, value, heap));
            }
            self.0.set_large(LargeValue::Hash(Box::new(table)));
        }
    }
}

fn set_table_field(table: &mut Table<Field>, name: &[u8], value: &[u8]) -> bool {
    let hash = digest_of(name);
    match table.get_mut(hash, name) {
        Some(field) => {
            field.set_value(value);
            false
        }
        None => {
            table.insert(hash, |heap| Field::new(name, value, heap));
            true
        }
    }
}

/// Writes `patch` at `start + offset`, growing `bytes` with zeros as far as that needs.
fn write_at(bytes: &mut Vec<u8>, start: usize, offset: usize, patch: &[u8]) {
    let at = start + offset;
    if bytes.len() < at {
        bytes.resize(at, 0);
    }
    let overlap = patch.len().min(bytes.len() - at);
    bytes[at..at + overlap].copy_from_slice(&patch[..overlap]);
    bytes.extend_from_slice(&patch[overlap..]);
}

#[cfg(test)]
mod tests {
    use super::super::Loose;
    use super::*;

    const LIMITS: Limits = Limits { entries: 2, value: 8 };

    #[test]
    fn a_patch_past_the_end_fills_the_gap_with_zeros() {
        let mut entry = Loose::new_plain_string(b"key", b"12");
        let mut patch = |offset, patch| entry.edit().string_mut().unwrap().patch(offset, patch);
        assert_eq!(patch(4, b"ab"), 6);
        assert_eq!(patch(LARGE, b"ab"), LARGE + 2);
        assert_eq!(patch(0, b"34"), LARGE + 2);
        assert_eq!(entry.look().string().unwrap()[..6], *b"34\0\0ab");
        assert_eq!(entry.look().encoding(), "raw");
    }

    #[test]
    fn a_hash_is_unpacked_before_its_bytes_are_more_than_a_piece_can_count() {
        let mut entry = Loose::new_hash(b"key");
        let limits = Limits { entries: usize::MAX, value: usize::MAX };
        let value = vec![b'v'; MOST_PACKED / 3];
        for (name, encoding) in [(b"a", "listpack"), (b"b", "listpack"), (b"c", "hashtable")] {
            entry.edit().hash_mut().unwrap().set(name, &value, limits);
            assert_eq!(entry.look().encoding(), encoding);
        }
        let hash = entry.look().hash().unwrap();
        assert_eq!((hash.len(), hash.get(b"b")), (3, Some(&value[..])));
    }

    #[test]
    fn a_hash_is_unpacked_past_either_limit_and_keeps_its_fields_and_deadline() {
        for (name, value) in [("c", "3"), ("long field name", "3"), ("c", "long value")] {
            let mut entry = Loose::new_hash(b"key");
            entry.edit().set_deadline(Some(5));
            let mut hash = entry.edit().hash_mut().unwrap();
            assert!(hash.set(b"a", b"1", LIMITS));
            assert!(!hash.set(b"a", b"11", LIMITS));
            assert!(hash.set(b"b", b"2", LIMITS));
            assert_eq!(entry.look().encoding(), "listpack");
            let mut hash = entry.edit().hash_mut().unwrap();
            assert!(hash.set(name.as_bytes(), value.as_bytes(), LIMITS));
            assert!(hash.remove(b"b") && !hash.remove(b"b"));
            assert_eq!((entry.look().encoding(), entry.look().deadline()), ("hashtable", Some(5)));
            let hash = entry.look().hash().unwrap();
            assert_eq!((hash.len(), hash.get(b"a")), (2, Some(&b"11"[..])));
            assert_eq!(hash.get(name.as_bytes()), Some(value.as_bytes()));
        }
    }
}
