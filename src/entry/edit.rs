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

use super::{Entry, Kind, LargeValue, Str, edit};
use crate::hash::{self, Field, Hash, Limits};
use crate::resp::LARGE;
use crate::table::{self, Table};
use std::sync::Arc;

/// An entry that is a string, to be changed.
pub struct StringMut<'a>(&'a mut Entry);

/// An entry that is a hash, to be changed.
pub struct HashMut<'a>(&'a mut Entry);

/// A value where it lies: the bytes of a small entry and where in them it begins, or a large one.
enum InPlace<'a> {
    Small(&'a mut Box<[u8]>, usize),
    Large(&'a mut LargeValue),
}

impl Entry {
    fn in_place(&mut self) -> InPlace<'_> {
        match self {
            Entry::Small {
                bytes,
                key_len,
                expires,
                ..
            } => InPlace::Small(bytes, Entry::payload_start(*key_len, *expires)),
            Entry::Large(large) => InPlace::Large(&mut large.value),
        }
    }

    /// The string to be changed, if this is one.
    pub fn string_mut(&mut self) -> Option<StringMut<'_>> {
        self.string().is_some().then_some(StringMut(self))
    }

    /// The hash to be changed, if this is one.
    pub fn hash_mut(&mut self) -> Option<HashMut<'_>> {
        self.hash().is_some().then_some(HashMut(self))
    }
}

impl<'a> StringMut<'a> {
    /// The string, to be looked at.
    pub fn read(self) -> Option<Str<'a>> {
        self.0.string()
    }

    /// Bytes in it.
    pub fn len(&self) -> usize {
        self.0.string().map_or(0, |string| string.len())
    }

    /// The number that it is.
    pub fn number(&self) -> Option<i64> {
        self.0.number()
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
        let entry = &mut *self.0;
        if let Some(Str::Digits(digits)) = entry.string() {
            entry.set_payload(Kind::Raw, digits.as_bytes());
        }
        if !entry.is_large() && entry.payload().len().max(offset + patch.len()) > LARGE {
            entry.set_large(LargeValue::String(entry.payload().to_vec().into()));
        }
        if let Entry::Small { kind, .. } = entry {
            *kind = Kind::Raw;
        }
        match entry.in_place() {
            InPlace::Small(bytes, start) => {
                edit(bytes, |bytes| write_at(bytes, start, offset, patch));
                bytes.len() - start
            }
            InPlace::Large(LargeValue::String(string)) => {
                write_at(Arc::make_mut(string), 0, offset, patch);
                string.len()
            }
            InPlace::Large(LargeValue::Hash(_)) => unreachable!("a string"),
        }
    }
}

impl HashMut<'_> {
    /// The value of a field.
    pub fn get(&self, name: &[u8]) -> Option<&[u8]> {
        self.0.hash().and_then(|hash| hash.get(name))
    }

    /// How many fields there are.
    pub fn len(&self) -> usize {
        self.0.hash().map_or(0, Hash::len)
    }

    /// Sets a field, and turns a packed hash into a table when it passes a limit. Returns whether the
    /// field is new.
    pub fn set(&mut self, name: &[u8], value: &[u8], limits: Limits) -> bool {
        if name.len() > limits.value || value.len() > limits.value {
            self.unpack();
        }
        match self.0.in_place() {
            InPlace::Small(bytes, start) => {
                let found = hash::find(&bytes[start..], name);
                match &found {
                    Some(found) if found.value.len() == value.len() => {
                        let at = start + found.value.start..start + found.value.end;
                        bytes[at].copy_from_slice(value);
                    }
                    Some(found) => edit(bytes, |b| hash::replace(b, start, found, value)),
                    None => edit(bytes, |bytes| hash::push(bytes, start, name, value)),
                }
                if hash::count(&bytes[start..]) > limits.entries {
                    self.unpack();
                }
                found.is_none()
            }
            InPlace::Large(LargeValue::Hash(table)) => set_table_field(table, name, value),
            InPlace::Large(LargeValue::String(_)) => unreachable!("a hash"),
        }
    }

    /// Removes a field; returns whether it was there.
    pub fn remove(&mut self, name: &[u8]) -> bool {
        match self.0.in_place() {
            InPlace::Small(bytes, start) => {
                let found = hash::find(&bytes[start..], name);
                if let Some(found) = &found {
                    edit(bytes, |bytes| hash::remove(bytes, start, found));
                }
                found.is_some()
            }
            InPlace::Large(LargeValue::Hash(table)) => {
                table.remove(table::hash_of(name), name).is_some()
            }
            InPlace::Large(LargeValue::String(_)) => unreachable!("a hash"),
        }
    }

    /// Turns a packed hash into a table, for good.
    fn unpack(&mut self) {
        if let Entry::Small {
            kind: Kind::Listpack,
            ..
        } = &*self.0
        {
            let mut table = Table::new();
            for (name, value) in Hash::Packed(self.0.payload()).iter() {
                table.insert(table::hash_of(name), Field::new(name, value));
            }
            self.0.set_large(LargeValue::Hash(table));
        }
    }
}

fn set_table_field(table: &mut Table<Field>, name: &[u8], value: &[u8]) -> bool {
    let hash = table::hash_of(name);
    match table.get_mut(hash, name) {
        Some(field) => {
            field.set_value(value);
            false
        }
        None => {
            table.insert(hash, Field::new(name, value));
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
    use super::*;

    const LIMITS: Limits = Limits {
        entries: 2,
        value: 8,
    };

    #[test]
    fn a_patch_past_the_end_fills_the_gap_with_zeros() {
        let mut entry = Entry::new_string(b"key", b"12");
        let mut patch = |offset, patch| entry.string_mut().unwrap().patch(offset, patch);
        assert_eq!(patch(4, b"ab"), 6);
        assert_eq!(patch(LARGE, b"ab"), LARGE + 2);
        assert_eq!(patch(0, b"34"), LARGE + 2);
        assert_eq!(entry.string().unwrap()[..6], *b"34\0\0ab");
        assert_eq!(entry.encoding(), "raw");
    }

    #[test]
    fn a_hash_is_unpacked_past_either_limit_and_keeps_its_fields_and_deadline() {
        for (name, value) in [("c", "3"), ("long field name", "3"), ("c", "long value")] {
            let mut entry = Entry::new_hash(b"key");
            entry.set_deadline(Some(5));
            let mut hash = entry.hash_mut().unwrap();
            assert!(hash.set(b"a", b"1", LIMITS));
            assert!(!hash.set(b"a", b"11", LIMITS));
            assert!(hash.set(b"b", b"2", LIMITS));
            assert_eq!(entry.encoding(), "listpack");
            let mut hash = entry.hash_mut().unwrap();
            assert!(hash.set(name.as_bytes(), value.as_bytes(), LIMITS));
            assert!(hash.remove(b"b") && !hash.remove(b"b"));
            assert_eq!((entry.encoding(), entry.deadline()), ("hashtable", Some(5)));
            let hash = entry.hash().unwrap();
            assert_eq!((hash.len(), hash.get(b"a")), (2, Some(&b"11"[..])));
            assert_eq!(hash.get(name.as_bytes()), Some(value.as_bytes()));
        }
    }
}
