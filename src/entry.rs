//! A key and its value, in one allocation where they are small.
//!
//! A million small strings are a million times what one entry costs, so an entry has no field that
//! most keys do not use. Key and value lie side by side in one box; a deadline takes its eight
//! bytes between them only if there is one:
//!
//! ```text
//! Small { bytes, key_len, kind, expires }           24 bytes, in a slot of the table
//!           │
//!           └──▶ ┌─────┬────────────┬───────────┐   kind      payload
//!                │ key │ deadline   │ payload   │   Int       8 bytes, little endian
//!                └─────┴────────────┴───────────┘   Embstr    the string, put there whole
//!                        if expires                 Raw       the string, long or edited since
//!                                                   Listpack  a packed hash (hash.rs)
//! ```
//!
//! A string over [`LARGE`] bytes and a hash that is a table are [`Large`], behind a pointer: moved,
//! not copied, and growing in place. Such a string may be shared, with replies that have not left yet
//! (resp/reply.rs) and after COPY; who changes a shared one copies it first, under the exclusive lock.
//!
//! **How Redis does it**: object.c: an `robj` header of 16 bytes with an access time, and key, header,
//! value and deadline apart: four allocations where a small entry has one. It copies a string for
//! COPY and into each reply, and so can always change it where it lies.

use crate::hash::{self, Field, Hash};
use crate::resp::{Digits, LARGE, parse_integer};
use crate::table::{self, Keyed, Table};
use std::sync::Arc;

mod edit;

pub use edit::{HashMut, StringMut};

/// A key, its value, and its deadline if it has one.
pub enum Entry {
    Small {
        bytes: Box<[u8]>,
        key_len: u32,
        kind: Kind,
        expires: bool,
    },
    Large(Box<Large>),
}

/// What the payload of a small entry is; the names are those of `OBJECT ENCODING`.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Kind {
    Int,
    Embstr,
    Raw,
    Listpack,
}

/// A value that is large, or that will grow.
pub struct Large {
    key: Box<[u8]>,
    /// Unix time in milliseconds.
    deadline: Option<u64>,
    value: LargeValue,
}

pub enum LargeValue {
    String(Arc<Vec<u8>>),
    Hash(Table<Field>),
}

/// A value to look at.
pub enum Value<'a> {
    String(Str<'a>),
    Hash(Hash<'a>),
}

/// A string to read: bytes that are stored, or the digits of a number that is.
pub enum Str<'a> {
    Bytes(&'a [u8]),
    /// A large one, which a reply may share.
    Shared(&'a Arc<Vec<u8>>),
    Digits(Digits),
}

impl std::ops::Deref for Str<'_> {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        match self {
            Str::Bytes(bytes) => bytes,
            Str::Shared(bytes) => bytes,
            Str::Digits(digits) => digits.as_bytes(),
        }
    }
}

const DEADLINE: usize = size_of::<u64>();

/// Strings up to this many bytes are `embstr` in Redis, longer ones `raw` (object.c).
const EMBSTR_LIMIT: usize = 44;

impl Keyed for Entry {
    fn key(&self) -> &[u8] {
        match self {
            Entry::Small { bytes, key_len, .. } => &bytes[..*key_len as usize],
            Entry::Large(large) => &large.key,
        }
    }

    fn touch(&self) -> u8 {
        match self {
            Entry::Small { bytes, .. } => match &**bytes {
                [first, .., last] => first ^ last,
                short => short.len() as u8,
            },
            Entry::Large(large) => large.key.first().copied().unwrap_or_default(),
        }
    }
}

impl Entry {
    fn small(key: &[u8], kind: Kind, payload: &[u8]) -> Entry {
        let bytes = [key, payload].concat().into_boxed_slice();
        Entry::Small {
            bytes,
            key_len: key.len() as u32,
            kind,
            expires: false,
        }
    }

    fn large(key: &[u8], value: LargeValue) -> Entry {
        Entry::Large(Box::new(Large {
            key: key.into(),
            deadline: None,
            value,
        }))
    }

    /// A key with a string, stored as a number if it is one.
    pub fn new_string(key: &[u8], value: &[u8]) -> Entry {
        match number(value) {
            Some(number) => Entry::small(key, Kind::Int, &number.to_le_bytes()),
            None => Entry::new_plain_string(key, value),
        }
    }

    /// A key with a string that is stored as the bytes it is, as Redis does with the result of
    /// INCRBYFLOAT.
    pub fn new_plain_string(key: &[u8], value: &[u8]) -> Entry {
        match plain_kind(value) {
            Some(kind) => Entry::small(key, kind, value),
            None => Entry::new_large_string(key, value.to_vec()),
        }
    }

    /// A key with a string that was received in an allocation of its own, which becomes the value.
    pub fn new_large_string(key: &[u8], mut value: Vec<u8>) -> Entry {
        value.shrink_to_fit();
        Entry::large(key, LargeValue::String(value.into()))
    }

    /// A key with an empty string that SETRANGE or APPEND is about to fill.
    pub fn new_raw_string(key: &[u8]) -> Entry {
        Entry::small(key, Kind::Raw, b"")
    }

    /// A key with a hash that has no field yet.
    pub fn new_hash(key: &[u8]) -> Entry {
        Entry::small(key, Kind::Listpack, &hash::EMPTY)
    }

    /// The same value under another key, without a deadline.
    pub fn copy_to(&self, key: &[u8]) -> Entry {
        match self {
            Entry::Small { kind, .. } => Entry::small(key, *kind, self.payload()),
            Entry::Large(large) => {
                let value = match &large.value {
                    LargeValue::String(string) => LargeValue::String(string.clone()),
                    LargeValue::Hash(table) => {
                        let mut copy = Table::new();
                        for field in table.iter() {
                            copy.insert(table::hash_of(field.name()), field.clone());
                        }
                        LargeValue::Hash(copy)
                    }
                };
                Entry::large(key, value)
            }
        }
    }

    /// The same value and deadline under another key; a large value is moved.
    pub fn renamed(self, key: &[u8]) -> Entry {
        let deadline = self.deadline();
        let mut entry = match self {
            Entry::Large(mut large) => {
                large.key = key.into();
                Entry::Large(large)
            }
            small => small.copy_to(key),
        };
        entry.set_deadline(deadline);
        entry
    }

    /// Where in the bytes of a small entry the payload begins.
    fn payload_start(key_len: u32, expires: bool) -> usize {
        key_len as usize + if expires { DEADLINE } else { 0 }
    }

    /// The payload of a small entry, with which a large one is never asked.
    fn payload(&self) -> &[u8] {
        match self {
            Entry::Small {
                bytes,
                key_len,
                expires,
                ..
            } => &bytes[Entry::payload_start(*key_len, *expires)..],
            Entry::Large(_) => &[],
        }
    }

    /// When the key dies, in milliseconds of Unix time.
    pub fn deadline(&self) -> Option<u64> {
        match self {
            Entry::Small { expires: false, .. } => None,
            Entry::Small { bytes, key_len, .. } => {
                let start = *key_len as usize;
                bytes[start..]
                    .first_chunk()
                    .map(|bytes| u64::from_le_bytes(*bytes))
            }
            Entry::Large(large) => large.deadline,
        }
    }

    /// Sets the deadline or takes it away. The store's index of them is the caller's to follow.
    pub fn set_deadline(&mut self, deadline: Option<u64>) {
        match self {
            Entry::Small {
                bytes,
                key_len,
                expires,
                ..
            } => {
                let old = *key_len as usize..Entry::payload_start(*key_len, *expires);
                let new = deadline.map(u64::to_le_bytes);
                let new: &[u8] = new.as_ref().map_or(&[], |bytes| bytes);
                if old.len() == new.len() {
                    bytes[old].copy_from_slice(new);
                } else {
                    *bytes = [&bytes[..old.start], new, &bytes[old.end..]]
                        .concat()
                        .into();
                    *expires = deadline.is_some();
                }
            }
            Entry::Large(large) => large.deadline = deadline,
        }
    }

    /// The value, whatever its type and form.
    pub fn value(&self) -> Value<'_> {
        match self {
            Entry::Small { kind, .. } => match kind {
                Kind::Int => Value::String(Str::Digits(Digits::new(self.stored_number()))),
                Kind::Embstr | Kind::Raw => Value::String(Str::Bytes(self.payload())),
                Kind::Listpack => Value::Hash(Hash::Packed(self.payload())),
            },
            Entry::Large(large) => match &large.value {
                LargeValue::String(string) => Value::String(Str::Shared(string)),
                LargeValue::Hash(table) => Value::Hash(Hash::Table(table)),
            },
        }
    }

    fn stored_number(&self) -> i64 {
        self.payload()
            .first_chunk()
            .map_or(0, |bytes| i64::from_le_bytes(*bytes))
    }

    /// The string, if this is one.
    pub fn string(&self) -> Option<Str<'_>> {
        match self.value() {
            Value::String(string) => Some(string),
            Value::Hash(_) => None,
        }
    }

    /// The hash, if this is one.
    pub fn hash(&self) -> Option<Hash<'_>> {
        match self.value() {
            Value::Hash(hash) => Some(hash),
            Value::String(_) => None,
        }
    }

    /// The number that the string is.
    pub fn number(&self) -> Option<i64> {
        match self {
            Entry::Small {
                kind: Kind::Int, ..
            } => Some(self.stored_number()),
            _ => self.string().and_then(|string| parse_integer(&string)),
        }
    }

    /// As `TYPE` answers.
    pub fn type_name(&self) -> &'static str {
        match self.value() {
            Value::String(_) => "string",
            Value::Hash(_) => "hash",
        }
    }

    /// As `OBJECT ENCODING` answers.
    pub fn encoding(&self) -> &'static str {
        match self {
            Entry::Small { kind, .. } => match kind {
                Kind::Int => "int",
                Kind::Embstr => "embstr",
                Kind::Raw => "raw",
                Kind::Listpack => "listpack",
            },
            Entry::Large(large) => match large.value {
                LargeValue::String(_) => "raw",
                LargeValue::Hash(_) => "hashtable",
            },
        }
    }

    /// Bytes that the entry has allocated, with its share of the table: an estimate for
    /// `MEMORY USAGE`.
    pub fn memory(&self) -> usize {
        const SHARE: usize = (size_of::<u64>() + size_of::<Entry>()) * 3 / 2;
        SHARE
            + match self {
                Entry::Small { bytes, .. } => allocated(bytes.len()),
                Entry::Large(large) => {
                    let value = match &large.value {
                        LargeValue::String(string) => allocated(40) + allocated(string.capacity()),
                        LargeValue::Hash(table) => table
                            .iter()
                            .map(|field| {
                                SHARE + allocated(field.name().len() + field.value().len())
                            })
                            .sum(),
                    };
                    size_of::<Large>() + allocated(large.key.len()) + value
                }
            }
    }

    /// Whether freeing the entry may take so long that it is not to be done under a lock.
    pub fn is_large(&self) -> bool {
        matches!(self, Entry::Large(_))
    }

    /// Replaces the value by a string; the deadline stays. Returns what is worth freeing later.
    pub fn set_string(&mut self, value: &[u8]) -> Option<LargeValue> {
        match number(value) {
            Some(number) => self.set_payload(Kind::Int, &number.to_le_bytes()),
            None => self.set_plain_string(value),
        }
    }

    /// Replaces the value by a string that is stored as the bytes it is.
    fn set_plain_string(&mut self, value: &[u8]) -> Option<LargeValue> {
        match plain_kind(value) {
            Some(kind) => self.set_payload(kind, value),
            None => self.set_large(LargeValue::String(value.to_vec().into())),
        }
    }

    /// Replaces the value by a string that was received in an allocation of its own. If the old
    /// value was about as long, and nobody shares it, `value` has its allocation in exchange, to be
    /// used again; otherwise what is worth freeing later is returned.
    pub fn set_large_string(&mut self, value: &mut Vec<u8>) -> Option<LargeValue> {
        let about_as_long = value.len() / 2..=2 * value.len();
        value.shrink_to_fit();
        if let Entry::Large(large) = self
            && let LargeValue::String(old) = &mut large.value
            && about_as_long.contains(&old.len())
            && let Some(old) = Arc::get_mut(old)
        {
            std::mem::swap(old, value);
            return None;
        }
        self.set_large(LargeValue::String(std::mem::take(value).into()))
    }

    fn set_large(&mut self, value: LargeValue) -> Option<LargeValue> {
        if let Entry::Large(large) = self {
            return Some(std::mem::replace(&mut large.value, value));
        }
        let deadline = self.deadline();
        *self = Entry::large(self.key(), value);
        self.set_deadline(deadline);
        None
    }

    fn set_payload(&mut self, new_kind: Kind, payload: &[u8]) -> Option<LargeValue> {
        match self {
            Entry::Small {
                bytes,
                key_len,
                kind,
                expires,
            } => {
                let start = Entry::payload_start(*key_len, *expires);
                *kind = new_kind;
                if bytes.len() == start + payload.len() {
                    bytes[start..].copy_from_slice(payload);
                } else {
                    edit(bytes, |bytes| {
                        bytes.truncate(start);
                        bytes.reserve_exact(payload.len());
                        bytes.extend_from_slice(payload);
                    });
                }
                None
            }
            Entry::Large(large) => {
                let deadline = large.deadline;
                let small = Entry::small(&large.key, new_kind, payload);
                let old = std::mem::replace(self, small);
                self.set_deadline(deadline);
                match old {
                    Entry::Large(large) => Some(large.value),
                    Entry::Small { .. } => None,
                }
            }
        }
    }
}

/// Changes the length of a box, which only a vector can.
fn edit(bytes: &mut Box<[u8]>, change: impl FnOnce(&mut Vec<u8>)) {
    let mut vec = std::mem::take(bytes).into_vec();
    change(&mut vec);
    *bytes = vec.into_boxed_slice();
}

/// The number as which Redis would store this string: up to twenty characters, written the one
/// way in which it would print it.
fn number(value: &[u8]) -> Option<i64> {
    if value.len() <= 20 {
        parse_integer(value)
    } else {
        None
    }
}

/// How a string is stored that is the bytes it is: in a small entry of this kind, or, if `None`,
/// in an allocation of its own.
fn plain_kind(value: &[u8]) -> Option<Kind> {
    if value.len() <= EMBSTR_LIMIT {
        Some(Kind::Embstr)
    } else if value.len() <= LARGE {
        Some(Kind::Raw)
    } else {
        None
    }
}

/// What an allocator takes for `size` bytes: a header of 8, and rounded up to 16.
fn allocated(size: usize) -> usize {
    (size + 8).next_multiple_of(16).max(32)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_entry_takes_24_bytes_in_its_slot() {
        assert_eq!(size_of::<Entry>(), 24);
    }

    #[test]
    fn a_value_and_a_deadline_do_not_disturb_each_other() {
        for value in [&b"7"[..], b"text", &[b'x'; 100], &vec![b'y'; LARGE + 1]] {
            let mut entry = Entry::new_string(b"key", value);
            entry.set_deadline(Some(99));
            assert_eq!(&*entry.string().unwrap(), value);
            for next in [&b"12"[..], &vec![b'z'; LARGE + 5], b"short"] {
                entry.set_string(next);
                assert_eq!(
                    (&*entry.string().unwrap(), entry.deadline()),
                    (next, Some(99))
                );
            }
            entry.set_deadline(None);
            let entry = entry.renamed(b"other");
            assert_eq!(
                (&*entry.string().unwrap(), entry.deadline()),
                (&b"short"[..], None)
            );
            assert_eq!(entry.key(), b"other");
        }
    }
}
