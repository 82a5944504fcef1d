//! A key and its value, in one piece of memory where they are small.
//!
//! A million small strings are a million times what one entry costs, so an entry has no field that
//! most keys do not use. Key and value lie side by side in one piece of the table's heap (heap.rs);
//! a deadline takes its eight bytes between them only if there is one:
//!
//! ```text
//! Small { piece, key_len, kind, expires }           24 bytes, in a slot of the table
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
//! A [`Stored`] means nothing without the heap that has its piece, so whoever looks at one is given both,
//! as an [`Entry`], and whoever changes one an [`EntryMut`]. One that is in no table has a heap of
//! its own: [`Loose`].
//!
//! **How Redis does it**: object.c: an `robj` header of 16 bytes with an access time, and key, header,
//! value and deadline apart: four allocations where a small entry has one. It copies a string for
//! COPY and into each reply, and so can always change it where it lies.

use crate::types::hash::{self, Field, Hash};
use crate::types::heap::{Heap, Piece};
use crate::key::digest_of;
use crate::resp::{Arg, Digits, parse_integer};
use crate::types::table::{self, Held, HeldMut, Keyed, Table};
use std::sync::Arc;

#[path = "edit.rs"]
mod edit;

pub use edit::{HashMut, StringMut};

/// A key, its value, and its deadline if it has one, as the table holds them.
pub enum Stored {
    Small { piece: Piece, key_len: u32, kind: Kind, expires: bool },
    Large(Box<Large>),
}

/// An entry of the keyspace to look at.
pub type Entry<'a> = Held<'a, Stored>;

/// An entry of the keyspace to be changed.
pub type EntryMut<'a> = HeldMut<'a, Stored>;

/// An entry that is in no table: a new one that must be filled first, or one that moves.
pub struct Loose {
    entry: Stored,
    heap: Heap,
}

/// Strings up to this many bytes lie in their entry's piece. A longer one has an allocation of its own
/// that is so large that the allocator gives it back to the system when it is freed.
const LARGE: usize = 64 * 1024;

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
    Hash(Box<Table<Field>>),
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

impl Keyed for Stored {
    fn key<'a>(&'a self, heap: &'a Heap) -> &'a [u8] {
        match self {
            Stored::Small { piece, key_len, .. } => &heap.bytes(piece)[..*key_len as usize],
            Stored::Large(large) => &large.key,
        }
    }

    fn piece_mut(&mut self) -> Option<&mut Piece> {
        match self {
            Stored::Small { piece, .. } => Some(piece),
            Stored::Large(_) => None,
        }
    }

    fn outside(&self) -> usize {
        match self {
            Stored::Small { .. } => 0,
            Stored::Large(large) => {
                let value = match &large.value {
                    LargeValue::String(string) => allocated(40) + allocated(string.capacity()),
                    LargeValue::Hash(table) => {
                        allocated(size_of::<Table<Field>>()) + table.memory()
                    }
                };
                allocated(size_of::<Large>()) + allocated(large.key.len()) + value
            }
        }
    }

    fn touch(&self, heap: &Heap) -> u8 {
        match self {
            Stored::Small { piece, .. } => match heap.bytes(piece) {
                [first, .., last] => first ^ last,
                short => short.len() as u8,
            },
            Stored::Large(large) => large.key.first().copied().unwrap_or_default(),
        }
    }
}

impl Stored {
    fn small(key: &[u8], kind: Kind, payload: &[u8], heap: &mut Heap) -> Stored {
        Stored::Small {
            piece: heap.add(&[key, payload]),
            key_len: key.len() as u32,
            kind,
            expires: false,
        }
    }

    fn large(key: &[u8], value: LargeValue) -> Stored {
        Stored::Large(Box::new(Large { key: key.into(), deadline: None, value }))
    }

    /// A key with a string, stored as a number if it is one. A large argument is shared.
    pub fn new_string(key: &[u8], value: Arg, heap: &mut Heap) -> Stored {
        match (value, number(&value)) {
            (Arg::Large(large), _) if large.len() > LARGE => {
                Stored::large(key, LargeValue::String(large.clone()))
            }
            (_, Some(number)) => Stored::small(key, Kind::Int, &number.to_le_bytes(), heap),
            (_, None) => Stored::new_plain_string(key, &value, heap),
        }
    }

    fn new_plain_string(key: &[u8], value: &[u8], heap: &mut Heap) -> Stored {
        match plain_kind(value) {
            Some(kind) => Stored::small(key, kind, value, heap),
            None => Stored::large(key, LargeValue::String(value.to_vec().into())),
        }
    }

    /// Frees the piece. Returns what is not small, to be freed later.
    pub fn free(self, heap: &mut Heap) -> Option<Box<Large>> {
        match self {
            Stored::Small { piece, .. } => {
                heap.free(piece);
                None
            }
            Stored::Large(large) => Some(large),
        }
    }

    /// Takes the entry out of its heap.
    pub fn loosen(self, heap: &mut Heap) -> Loose {
        match self {
            Stored::Small { piece, key_len, kind, expires } => {
                let mut own = Heap::default();
                let moved = own.add(&[heap.bytes(&piece)]);
                heap.free(piece);
                let entry = Stored::Small { piece: moved, key_len, kind, expires };
                Loose { entry, heap: own }
            }
            large => Loose { entry: large, heap: Heap::default() },
        }
    }

    /// Where in the bytes of a small entry the payload begins.
    fn payload_start(key_len: u32, expires: bool) -> usize {
        key_len as usize + if expires { DEADLINE } else { 0 }
    }
}

impl Loose {
    /// A key with a string that is stored as the bytes it is, as Redis does with the result of
    /// INCRBYFLOAT.
    pub fn new_plain_string(key: &[u8], value: &[u8]) -> Loose {
        let mut heap = Heap::default();
        let entry = Stored::new_plain_string(key, value, &mut heap);
        Loose { entry, heap }
    }

    /// A key with an empty string that SETRANGE is about to fill.
    pub fn new_raw_string(key: &[u8]) -> Loose {
        let mut heap = Heap::default();
        let entry = Stored::small(key, Kind::Raw, b"", &mut heap);
        Loose { entry, heap }
    }

    /// A key with a hash that has no field yet.
    pub fn new_hash(key: &[u8]) -> Loose {
        let mut heap = Heap::default();
        let entry = Stored::small(key, Kind::Listpack, &hash::EMPTY, &mut heap);
        Loose { entry, heap }
    }

    pub fn look(&self) -> Entry<'_> {
        Entry { entry: &self.entry, heap: &self.heap }
    }

    pub fn edit(&mut self) -> EntryMut<'_> {
        EntryMut { entry: &mut self.entry, heap: &mut self.heap }
    }

    /// Puts it into the heap of a table.
    pub fn fasten(self, heap: &mut Heap) -> Stored {
        match self.entry {
            Stored::Small { piece, key_len, kind, expires } => Stored::Small {
                piece: heap.add(&[self.heap.bytes(&piece)]),
                key_len,
                kind,
                expires,
            },
            large => large,
        }
    }

    /// The same value and deadline under another key; a large value is moved.
    pub fn renamed(self, key: &[u8]) -> Loose {
        let deadline = self.look().deadline();
        let mut loose = match self.entry {
            Stored::Large(mut large) => {
                large.key = key.into();
                Loose { entry: Stored::Large(large), heap: self.heap }
            }
            small => Entry { entry: &small, heap: &self.heap }.copy_to(key),
        };
        loose.edit().set_deadline(deadline);
        loose
    }
}

impl<'a> Entry<'a> {
    /// The same value under another key, without a deadline.
    pub fn copy_to(self, key: &[u8]) -> Loose {
        let mut heap = Heap::default();
        let entry = match self.entry {
            Stored::Small { kind, .. } => Stored::small(key, *kind, self.payload(), &mut heap),
            Stored::Large(large) => {
                let value = match &large.value {
                    LargeValue::String(string) => LargeValue::String(string.clone()),
                    LargeValue::Hash(table) => {
                        let mut copy = Table::new();
                        for field in table.iter() {
                            copy.insert(digest_of(field.name()), |heap| {
                                Field::new(field.name(), field.value(), heap)
                            });
                        }
                        LargeValue::Hash(Box::new(copy))
                    }
                };
                Stored::large(key, value)
            }
        };
        Loose { entry, heap }
    }

    /// The payload of a small entry, with which a large one is never asked.
    fn payload(self) -> &'a [u8] {
        match self.entry {
            Stored::Small { piece, key_len, expires, .. } => {
                &self.heap.bytes(piece)[Stored::payload_start(*key_len, *expires)..]
            }
            Stored::Large(_) => &[],
        }
    }

    /// When the key dies, in milliseconds of Unix time.
    pub fn deadline(self) -> Option<u64> {
        match self.entry {
            Stored::Small { expires: false, .. } => None,
            Stored::Small { piece, key_len, .. } => {
                let start = *key_len as usize;
                self.heap.bytes(piece)[start..]
                    .first_chunk()
                    .map(|bytes| u64::from_le_bytes(*bytes))
            }
            Stored::Large(large) => large.deadline,
        }
    }

    /// The value, whatever its type and form.
    pub fn value(self) -> Value<'a> {
        match self.entry {
            Stored::Small { kind, .. } => match kind {
                Kind::Int => Value::String(Str::Digits(Digits::new(self.stored_number()))),
                Kind::Embstr | Kind::Raw => Value::String(Str::Bytes(self.payload())),
                Kind::Listpack => Value::Hash(Hash::Packed(self.payload())),
            },
            Stored::Large(large) => match &large.value {
                LargeValue::String(string) => Value::String(Str::Shared(string)),
                LargeValue::Hash(table) => Value::Hash(Hash::Table(table)),
            },
        }
    }

    fn stored_number(self) -> i64 {
        self.payload().first_chunk().map_or(0, |bytes| i64::from_le_bytes(*bytes))
    }

    /// The string, if this is one.
    pub fn string(self) -> Option<Str<'a>> {
        match self.value() {
            Value::String(string) => Some(string),
            Value::Hash(_) => None,
        }
    }

    /// The hash, if this is one.
    pub fn hash(self) -> Option<Hash<'a>> {
        match self.value() {
            Value::Hash(hash) => Some(hash),
            Value::String(_) => None,
        }
    }

    /// The number that the string is.
    pub fn number(self) -> Option<i64> {
        match self.entry {
            Stored::Small { kind: Kind::Int, .. } => Some(self.stored_number()),
            _ => self.string().and_then(|string| parse_integer(&string)),
        }
    }

    /// As `TYPE` answers.
    pub fn type_name(self) -> &'static str {
        match self.value() {
            Value::String(_) => "string",
            Value::Hash(_) => "hash",
        }
    }

    /// As `OBJECT ENCODING` answers.
    pub fn encoding(self) -> &'static str {
        match self.entry {
            Stored::Small { kind, .. } => match kind {
                Kind::Int => "int",
                Kind::Embstr => "embstr",
                Kind::Raw => "raw",
                Kind::Listpack => "listpack",
            },
            Stored::Large(large) => match large.value {
                LargeValue::String(_) => "raw",
                LargeValue::Hash(_) => "hashtable",
            },
        }
    }

    /// Bytes that the entry takes, with its share of the table.
    pub fn memory(self) -> usize {
        table::share::<Stored>()
            + match self.entry {
                Stored::Small { piece, .. } => piece.size(),
                Stored::Large(_) => self.entry.outside(),
            }
    }
}

/// The number as which Redis would store this string: up to twenty characters, written the one
/// way in which it would print it.
fn number(value: &[u8]) -> Option<i64> {
    if value.len() <= 20 { parse_integer(value) } else { None }
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
    use std::collections::HashMap;

    #[test]
    fn an_entry_takes_24_bytes_in_its_slot() {
        assert_eq!(size_of::<Stored>(), 24);
    }

    #[test]
    fn a_value_and_a_deadline_do_not_disturb_each_other() {
        for value in [&b"7"[..], b"text", &[b'x'; 100], &vec![b'y'; LARGE + 1]] {
            let mut loose = Loose::new_raw_string(b"key");
            loose.edit().set_string(Arg::Small(value));
            loose.edit().set_deadline(Some(99));
            assert_eq!(&*loose.look().string().unwrap(), value);
            for next in [&b"12"[..], &vec![b'z'; LARGE + 5], b"short"] {
                loose.edit().set_string(Arg::Small(next));
                assert_eq!(
                    (&*loose.look().string().unwrap(), loose.look().deadline()),
                    (next, Some(99))
                );
            }
            loose.edit().set_deadline(None);
            let loose = loose.renamed(b"other");
            assert_eq!(
                (&*loose.look().string().unwrap(), loose.look().deadline()),
                (&b"short"[..], None)
            );
            assert_eq!(loose.look().key(), b"other");
        }
    }

    /// What a table of entries should hold: strings, and hashes by field.
    #[derive(Default)]
    struct Model {
        strings: HashMap<u32, Vec<u8>>,
        hashes: HashMap<u32, HashMap<u32, Vec<u8>>>,
    }

    impl Model {
        fn check(&self, table: &Table<Stored>) {
            let counted = table.iter().map(Entry::memory).sum::<usize>();
            assert_eq!(counted, table.memory());
            assert_eq!(table.len(), self.strings.len() + self.hashes.len());
            for entry in table.iter() {
                let key = u32::from_be_bytes(entry.key().try_into().unwrap());
                match entry.value() {
                    Value::String(string) => assert_eq!(&*string, &self.strings[&key][..]),
                    Value::Hash(hash) => {
                        assert_eq!(hash.len(), self.hashes[&key].len());
                        for (name, value) in hash.iter() {
                            let name = u32::from_be_bytes(name.try_into().unwrap());
                            assert_eq!(value, self.hashes[&key][&name]);
                        }
                    }
                }
            }
        }
    }

    fn set(table: &mut Table<Stored>, key: u32, value: &[u8]) {
        let name = key.to_be_bytes();
        let hash = digest_of(&name);
        match table.get_mut(hash, &name) {
            Some(mut entry) => drop(entry.set_string(Arg::Small(value))),
            None => table.insert(hash, |heap| Stored::new_string(&name, Arg::Small(value), heap)),
        }
    }

    fn delete(table: &mut Table<Stored>, key: u32) {
        let name = key.to_be_bytes();
        table.remove(digest_of(&name), &name, Stored::free);
    }

    fn mixed_value() -> Vec<u8> {
        let magnitude = 1 << table::random_below(14);
        vec![b'a' + table::random_below(26) as u8; magnitude + table::random_below(magnitude)]
    }

    #[test]
    fn what_is_used_is_what_a_count_finds_and_nothing_is_lost_in_moving() {
        let mut table = Table::new();
        let mut model = Model::default();
        for round in 0..60_000 {
            let key = table::random_below(600) as u32;
            // Times of growth and times of leaving blocks.
            let goes = if round / 10_000 % 2 == 0 { 2 } else { 8 };
            if table::random_below(10) < goes {
                delete(&mut table, key);
                model.strings.remove(&key);
                model.hashes.remove(&key);
            } else if !key.is_multiple_of(20) {
                let value = mixed_value();
                set(&mut table, key, &value);
                model.strings.insert(key, value);
                if key.is_multiple_of(3) {
                    let (name, patch) = (key.to_be_bytes(), mixed_value());
                    let entry = table.get_mut(digest_of(&name), &name).unwrap();
                    let mut string = entry.string_mut().unwrap();
                    let at = string.len() / 2;
                    string.patch(at, &patch);
                    let string = model.strings.get_mut(&key).unwrap();
                    string.resize(string.len().max(at + patch.len()), 0);
                    string[at..at + patch.len()].copy_from_slice(&patch);
                }
            } else {
                let name = key.to_be_bytes();
                let hash = digest_of(&name);
                if table.get(hash, &name).is_none() {
                    table.insert(hash, |heap| Loose::new_hash(&name).fasten(heap));
                }
                let limits = hash::Limits { entries: 100, value: 2_000 };
                let (field, value) = (table::random_below(200) as u32, mixed_value());
                let entry = table.get_mut(hash, &name).unwrap();
                let mut fields = entry.hash_mut().unwrap();
                fields.set(&field.to_be_bytes(), &value, limits);
                let fields = model.hashes.entry(key).or_default();
                fields.insert(field, value);
            }
            if round % 5_000 == 4_999 {
                model.check(&table);
            }
        }
        while table.leave_blocks().is_some() {}
        model.check(&table);
        for key in 0..600 {
            delete(&mut table, key);
        }
        assert_eq!(table.memory(), 0);
    }
}
