//! A key and its value, in one piece of memory where they are small.
//!
//! A million small strings are a million times what one entry costs, so an entry has no field that
//! most keys do not use. Key and value lie side by side in one piece of the table's heap (heap.rs);
//! a deadline takes its eight bytes between them only if there is one:
//!
//! ```text
//! Small { piece, kind, expires, usage }    10 bytes, in a slot of the table
//!           │
//!           └──▶ ┌────────┬─────┬──────────┬─────────┐   kind      payload
//!                │ length │ key │ deadline │ payload │   Int       8 bytes, little endian
//!                └────────┴─────┴──────────┴─────────┘   Embstr    the string, put there whole
//!                  of the key     if expires             Raw       the string, long or edited since
//!                                                        List      a count, and elements
//!                                                        Intset    numbers in order (intset.rs)
//!                                                        Set       a listpack of members
//!                                                        Hash      a listpack of names and values
//!                                                        Zset      a listpack of members and scores
//! ```
//!
//! What is too large for that is [`Large`], under a number (larges.rs): moved, not copied, and growing in place. It
//! may be shared: after COPY, with a snapshot (copies.rs), and a string with replies that have not left yet
//! (resp/reply.rs). Whoever changes a shared one copies it first, under the exclusive lock.
//!
//! A [`Stored`] means nothing without the heap that has its piece, so whoever looks at one is given both,
//! as an [`Entry`], and whoever changes one an [`EntryMut`]. One that is in no table has a heap of
//! its own: [`Loose`].
//!
//! **How Redis does it**: object.c: an `robj` header of 16 bytes with an access time, and key, header,
//! value and deadline apart: four allocations where a small entry has one. It copies a value for
//! COPY and a string into each reply, and so can always change it where it lies.

use super::hash::Field;
use super::heap::{Heap, Length, Piece};
use super::intset::Intset;
use super::larges::Number;
use super::list::Quicklist;
use super::listpack::Listpack;
use super::set::Members;
use super::shared::Shared;
use super::table::{self, Held, HeldMut, Keyed, Table};
use super::usage::Usage;
use super::zset::Sorted;
use super::{Change, Edit, Hash, Limits, List, Set, Str, Type, Value, Zset, allocated};
use crate::blob::Blob;
use crate::resp::Digits;
use std::ops::Range;
use std::sync::Arc;

/// A key, its value, and its deadline if it has one, as the table holds them.
pub enum Stored {
    Small(Small),
    Large(Number),
}

pub type Entry<'a> = Held<'a, Stored>;

pub type EntryMut<'a> = HeldMut<'a, Stored>;

/// An entry that is in no table: a new one that must be filled first, or one that moves.
pub struct Loose {
    entry: Stored,
    heap: Heap,
}

/// A key with a value that lies beside it.
pub struct Small {
    piece: Piece,
    pub(super) kind: Kind,
    expires: bool,
    usage: Usage,
}

pub struct SmallMut<'a> {
    pub small: &'a mut Small,
    pub heap: &'a mut Heap,
}

/// What the payload of a small entry is.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    Int,
    Embstr,
    Raw,
    List,
    Intset,
    Set,
    Hash,
    Zset,
}

/// A value that is large, or that will grow.
#[derive(Clone)]
pub struct Large {
    key: Box<[u8]>,
    /// Unix time in milliseconds.
    deadline: Option<u64>,
    usage: Usage,
    pub(super) value: LargeValue,
}

/// What a large value is stored as. (A clone is what COPY makes.)
#[derive(Clone)]
pub enum LargeValue {
    String(Arc<Blob>),
    List(Shared<Quicklist>),
    Set(Shared<Members>),
    Hash(Shared<Table<Field>>),
    Zset(Shared<Sorted>),
}

/// A value that is to be stored.
pub enum Form<'a, L = LargeValue> {
    Small(Kind, &'a [u8]),
    Large(L),
}

const DEADLINE: usize = size_of::<u64>();

impl Keyed for Stored {
    #[inline]
    fn key<'a>(&'a self, heap: &'a Heap) -> &'a [u8] {
        match self {
            Stored::Small(small) => {
                let bytes = heap.bytes(&small.piece);
                &bytes[key_in(bytes)]
            }
            Stored::Large(number) => &heap.larges[number].key,
        }
    }

    fn piece_mut(&mut self) -> Option<&mut Piece> {
        match self {
            Stored::Small(small) => Some(&mut small.piece),
            Stored::Large(_) => None,
        }
    }

    fn outside(&self, heap: &Heap) -> usize {
        match self {
            Stored::Small(_) => 0,
            Stored::Large(number) => heap.larges[number].memory(),
        }
    }

    fn recount(&self, heap: &Heap) -> usize {
        match self {
            Stored::Small(small) => heap.size(&small.piece),
            Stored::Large(number) => {
                let large = &heap.larges[number];
                large.own_memory() + large.value.look().recount()
            }
        }
    }

    fn touch(&self, heap: &Heap) -> u8 {
        match self {
            Stored::Small(small) => match heap.bytes(&small.piece) {
                [first, .., last] => first ^ last,
                short => short.len() as u8,
            },
            Stored::Large(_) => self.key(heap).first().copied().unwrap_or_default(),
        }
    }
}

impl Stored {
    /// A key with a value.
    pub fn new<L: Into<LargeValue>>(
        key: &[u8],
        deadline: Option<u64>,
        value: Form<L>,
        usage: Usage,
        heap: &mut Heap,
    ) -> Stored {
        match value {
            Form::Small(kind, payload) => {
                let length = Length::of(key.len());
                let length = length.bytes();
                let piece = match deadline {
                    None => heap.add(&[length, key, payload]),
                    Some(deadline) => heap.add(&[length, key, &deadline.to_le_bytes(), payload]),
                };
                Stored::Small(Small { piece, kind, expires: deadline.is_some(), usage })
            }
            Form::Large(value) => {
                let (key, value) = (key.into(), value.into());
                let large = Large { key, deadline, usage, value };
                Stored::Large(heap.larges.add(Box::new(large)))
            }
        }
    }

    /// A key with a value of this type in which there is nothing yet.
    pub fn empty<T: Type>(key: &[u8], usage: Usage, heap: &mut Heap) -> Stored {
        let (kind, payload) = T::NEW;
        Stored::new(key, None, Form::<T::Large>::Small(kind, payload), usage, heap)
    }

    /// Bytes that the value has outside of the piece: what an edit may change of [`Keyed::outside`].
    #[inline(never)]
    pub(super) fn value_memory(&self, heap: &Heap) -> usize {
        match self {
            Stored::Small(_) => 0,
            Stored::Large(number) => heap.larges[number].value.memory(),
        }
    }

    /// Frees the piece. Returns what is not small, to be freed later.
    pub fn free(self, heap: &mut Heap) -> Option<Box<Large>> {
        match self {
            Stored::Small(small) => {
                heap.free(small.piece);
                None
            }
            Stored::Large(number) => Some(heap.larges.take(number)),
        }
    }

    /// Takes the entry out of its heap.
    pub fn loosen(self, heap: &mut Heap) -> Loose {
        let mut own = Heap::default();
        let entry = self.moved(heap, &mut own);
        Loose { entry, heap: own }
    }

    /// The same in another heap.
    fn moved(self, from: &mut Heap, to: &mut Heap) -> Stored {
        match self {
            Stored::Small(small) => {
                let piece = to.add(&[from.bytes(&small.piece)]);
                from.free(small.piece);
                Stored::Small(Small { piece, ..small })
            }
            Stored::Large(number) => Stored::Large(to.larges.add(from.larges.take(number))),
        }
    }
}

/// Where in the bytes of a small entry its key is.
fn key_in(bytes: &[u8]) -> Range<usize> {
    let length = Length::before(bytes);
    length.size..length.size + length.count
}

impl Small {
    /// Where in its bytes the payload begins.
    fn start(&self, bytes: &[u8]) -> usize {
        key_in(bytes).end + if self.expires { DEADLINE } else { 0 }
    }

    fn payload<'a>(&self, heap: &'a Heap) -> &'a [u8] {
        let bytes = heap.bytes(&self.piece);
        &bytes[self.start(bytes)..]
    }

    fn deadline(&self, heap: &Heap) -> Option<u64> {
        if !self.expires {
            return None;
        }
        let bytes = heap.bytes(&self.piece);
        let deadline = bytes[key_in(bytes).end..].first_chunk();
        deadline.map(|bytes| u64::from_le_bytes(*bytes))
    }
}

impl SmallMut<'_> {
    pub fn kind(&self) -> Kind {
        self.small.kind
    }

    pub fn payload(&self) -> &[u8] {
        self.small.payload(self.heap)
    }

    /// The payload, to be changed in everything but its length.
    pub fn payload_mut(&mut self) -> &mut [u8] {
        let bytes = self.heap.bytes_mut(&self.small.piece);
        let start = self.small.start(bytes);
        &mut bytes[start..]
    }

    /// Gives the payload so many bytes where it lies, if it takes as much memory then; what new ones are must
    /// be written.
    pub fn fit(&mut self, len: usize) -> bool {
        let before = self.small.start(self.heap.bytes(&self.small.piece));
        self.heap.fit(&self.small.piece, before + len)
    }

    /// Changes the payload, which begins at the place that is given, and its length.
    pub fn edit(&mut self, change: impl FnOnce(&mut Vec<u8>, usize)) {
        let start = self.small.start(self.heap.bytes(&self.small.piece));
        self.heap.edit(&mut self.small.piece, |bytes| change(bytes, start));
    }

    /// Puts bytes at this place of the payload; in place, if it takes as much memory then.
    pub fn insert(&mut self, at: usize, bytes: &[u8]) {
        let len = self.payload().len();
        if self.fit(len + bytes.len()) {
            let payload = self.payload_mut();
            payload.copy_within(at..len, at + bytes.len());
            payload[at..at + bytes.len()].copy_from_slice(bytes);
        } else {
            self.edit(|all, start| {
                all.splice(start + at..start + at, bytes.iter().copied());
            });
        }
    }

    /// Takes these bytes of the payload away.
    pub fn remove(&mut self, bytes: Range<usize>) {
        let len = self.payload().len() - bytes.len();
        self.payload_mut().copy_within(bytes.end.., bytes.start);
        if !self.fit(len) {
            self.edit(|all, start| all.truncate(start + len));
        }
    }

    #[inline]
    pub fn set(&mut self, kind: Kind, payload: &[u8]) {
        self.small.kind = kind;
        let there = self.payload_mut();
        if there.len() == payload.len() {
            there.copy_from_slice(payload);
        } else if self.fit(payload.len()) {
            self.payload_mut().copy_from_slice(payload);
        } else {
            self.edit(|bytes, start| {
                bytes.truncate(start);
                bytes.extend_from_slice(payload);
            });
        }
    }

    fn set_deadline(&mut self, deadline: Option<u64>) {
        let SmallMut { small, heap } = self;
        let bytes = heap.bytes(&small.piece);
        let old = key_in(bytes).end..small.start(bytes);
        let new = deadline.map(u64::to_le_bytes);
        let new: &[u8] = new.as_ref().map_or(&[], |bytes: &[u8; DEADLINE]| bytes);
        if old.len() == new.len() {
            heap.bytes_mut(&small.piece)[old].copy_from_slice(new);
        } else {
            heap.edit(&mut small.piece, |bytes| {
                bytes.splice(old, new.iter().copied());
            });
            small.expires = deadline.is_some();
        }
    }
}

impl Large {
    /// Bytes that it takes.
    pub fn memory(&self) -> usize {
        self.own_memory() + self.value.memory()
    }

    /// Bytes that it and its pointer take without its value.
    fn own_memory(&self) -> usize {
        size_of::<Box<Large>>() + allocated(size_of::<Large>()) + allocated(self.key.len())
    }
}

impl LargeValue {
    pub fn memory(&self) -> usize {
        self.look().memory()
    }

    fn look(&self) -> Value<'_> {
        match self {
            LargeValue::String(string) => Value::String(Str::Shared(string)),
            LargeValue::List(list) => Value::List(List::Quick(list)),
            LargeValue::Set(members) => Value::Set(Set::Table(&members.0)),
            LargeValue::Hash(table) => Value::Hash(Hash::Table(table)),
            LargeValue::Zset(sorted) => Value::Zset(Zset::Sorted(sorted)),
        }
    }
}

impl Loose {
    /// A key with a value.
    pub fn of<L: Into<LargeValue>>(key: &[u8], deadline: Option<u64>, value: Form<L>) -> Loose {
        let mut heap = Heap::default();
        let entry = Stored::new(key, deadline, value, Usage::unknown(), &mut heap);
        Loose { entry, heap }
    }

    /// A key with a collection that `fill` fills; `None` if nothing is in it then.
    pub fn filled<T: Type>(
        key: &[u8],
        limits: &Limits,
        fill: impl FnOnce(&mut Edit<T>),
    ) -> Option<Loose> {
        let mut heap = Heap::default();
        let entry = Stored::empty::<T>(key, Usage::unknown(), &mut heap);
        let mut loose = Loose { entry, heap };
        let (_, change) = loose.edit().fill(limits, |value| {
            fill(value);
            Ok(())
        });
        (change == Change::Changed).then_some(loose)
    }

    pub fn look(&self) -> Entry<'_> {
        Entry { entry: &self.entry, heap: &self.heap }
    }

    pub fn edit(&mut self) -> EntryMut<'_> {
        EntryMut { entry: &mut self.entry, heap: &mut self.heap }
    }

    /// Puts it into the heap of a table.
    pub fn fasten(mut self, usage: Usage, heap: &mut Heap) -> Stored {
        let entry = self.entry.moved(&mut self.heap, heap);
        Entry { entry: &entry, heap }.usage().take_over(usage);
        entry
    }

    /// The same value and deadline under another key; a large value is moved.
    pub fn renamed(mut self, key: &[u8]) -> Loose {
        match &self.entry {
            Stored::Large(number) => {
                self.heap.larges[number].key = key.into();
                self
            }
            Stored::Small(_) => self.look().copy_to(key),
        }
    }
}

impl<'a> Entry<'a> {
    /// The same value and deadline under another key.
    pub fn copy_to(self, key: &[u8]) -> Loose {
        Loose::of(key, self.deadline(), self.copy())
    }

    /// The same value, to be stored elsewhere.
    pub fn copy(self) -> Form<'a> {
        match self.entry {
            Stored::Small(small) => Form::Small(small.kind, small.payload(self.heap)),
            Stored::Large(number) => Form::Large(self.heap.larges[number].value.clone()),
        }
    }

    /// When the key expires, in milliseconds of Unix time.
    pub fn deadline(self) -> Option<u64> {
        match self.entry {
            Stored::Small(small) => small.deadline(self.heap),
            Stored::Large(number) => self.heap.larges[number].deadline,
        }
    }

    /// Whether the key has a deadline. To know that, no piece is read.
    pub fn has_deadline(self) -> bool {
        match self.entry {
            Stored::Small(small) => small.expires,
            Stored::Large(_) => self.deadline().is_some(),
        }
    }

    /// When or how often the key was used.
    pub fn usage(self) -> &'a Usage {
        match self.entry {
            Stored::Small(small) => &small.usage,
            Stored::Large(number) => &self.heap.larges[number].usage,
        }
    }

    /// The value, whatever its type and form.
    #[inline]
    pub fn value(self) -> Value<'a> {
        match self.entry {
            Stored::Small(small) => {
                let payload = small.payload(self.heap);
                match small.kind {
                    Kind::Int => Value::String(Str::Digits(Digits::new(number_in(payload)))),
                    Kind::Embstr => Value::String(Str::Embstr(payload)),
                    Kind::Raw => Value::String(Str::Raw(payload)),
                    Kind::List => Value::List(List::packed(payload)),
                    Kind::Intset => Value::Set(Set::Intset(Intset(payload))),
                    Kind::Set => Value::Set(Set::Packed(Listpack(payload))),
                    Kind::Hash => Value::Hash(Hash::Packed(Listpack(payload))),
                    Kind::Zset => Value::Zset(Zset::Packed(Listpack(payload))),
                }
            }
            Stored::Large(number) => self.heap.larges[number].value.look(),
        }
    }

    #[inline]
    pub fn read<T: Type>(self) -> Option<T::Look<'a>> {
        T::of(self.value())
    }

    /// Bytes that the entry takes, with its share of the table.
    pub fn memory(self) -> usize {
        table::share::<Stored>()
            + match self.entry {
                Stored::Small(small) => self.heap.size(&small.piece),
                Stored::Large(_) => self.entry.outside(self.heap),
            }
    }
}

/// The number that a payload of the kind [`Kind::Int`] is.
pub fn number_in(payload: &[u8]) -> i64 {
    payload.first_chunk().map_or(0, |bytes| i64::from_le_bytes(*bytes))
}

impl EntryMut<'_> {
    /// Replaces the value; the deadline stays. Returns what is worth freeing later.
    #[inline]
    pub fn set<L: Into<LargeValue>>(&mut self, value: Form<L>) -> Option<LargeValue> {
        match (value, &mut *self.entry) {
            (Form::Small(kind, payload), Stored::Small(small)) => {
                SmallMut { small, heap: self.heap }.set(kind, payload);
                None
            }
            (Form::Large(value), Stored::Large(number)) => {
                let value = value.into();
                let new = value.memory();
                let old = std::mem::replace(&mut self.heap.larges[number].value, value);
                self.heap.count_outside(old.memory(), new);
                Some(old)
            }
            (value, _) => self.exchange(value),
        }
    }

    /// The same where a small value becomes a large one, or a large one small.
    #[inline(never)]
    fn exchange<L: Into<LargeValue>>(&mut self, value: Form<L>) -> Option<LargeValue> {
        let old = self.look();
        let (key, deadline, usage) = (old.key().to_vec(), old.deadline(), old.usage().clone());
        let new = Stored::new(&key, deadline, value, usage, self.heap);
        let (before, after) = (self.entry.outside(self.heap), new.outside(self.heap));
        self.heap.count_outside(before, after);
        let old = std::mem::replace(self.entry, new).free(self.heap);
        old.map(|large| large.value)
    }

    /// Sets the deadline or takes it away. The store's index of them is the caller's to follow.
    pub fn set_deadline(&mut self, deadline: Option<u64>) {
        match self.entry {
            Stored::Small(small) => {
                SmallMut { small, heap: self.heap }.set_deadline(deadline);
            }
            Stored::Large(number) => self.heap.larges[number].deadline = deadline,
        }
    }
}

#[cfg(test)]
impl Loose {
    pub fn new<T: Type>(key: &[u8]) -> Loose {
        let mut heap = Heap::default();
        let entry = Stored::empty::<T>(key, Usage::unknown(), &mut heap);
        Loose { entry, heap }
    }

    /// Changes the value, which has this type.
    pub fn change<T: Type, R>(
        &mut self,
        limits: &Limits,
        change: impl FnOnce(&mut Edit<T>) -> R,
    ) -> R {
        self.edit().edit(limits, |value| Ok(change(value))).0.unwrap()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::key::digest_of;
    use crate::resp::Arg;
    use crate::types::string::LARGE;
    use crate::types::table::random_below;
    use crate::types::u48::U48;
    use crate::types::{NewStr, Packed};
    use std::collections::HashMap;

    const LIMITS: Limits =
        Limits { string: 1 << 20, hash: Packed { entries: 100, value: 2_000 }, ..Limits::NOTHING };

    #[test]
    fn an_entry_and_its_digest_take_16_bytes_in_their_slot() {
        assert_eq!((size_of::<Stored>(), size_of::<(U48, Stored)>()), (10, 16));
    }

    #[test]
    fn what_a_large_value_is_stored_as_is_in_a_box() {
        assert!(size_of::<LargeValue>() <= 16);
    }

    #[test]
    fn a_value_and_a_deadline_do_not_disturb_each_other() {
        let store = |loose: &mut Loose, value: &[u8]| {
            loose.edit().set(NewStr::new(&Arg::Small(value)).form());
            assert_eq!(&*loose.look().read::<Str>().unwrap(), value);
        };
        for value in [&b"7"[..], b"text", &[b'x'; 100], &vec![b'y'; LARGE + 1]] {
            let mut loose = Loose::new::<Str>(b"key");
            store(&mut loose, value);
            loose.edit().set_deadline(Some(99));
            assert_eq!(&*loose.look().read::<Str>().unwrap(), value);
            for next in [&b"12"[..], &vec![b'z'; LARGE + 5], b"short"] {
                store(&mut loose, next);
                assert_eq!(loose.look().deadline(), Some(99));
            }
            loose.edit().set_deadline(None);
            let loose = loose.renamed(b"other");
            assert_eq!(&*loose.look().read::<Str>().unwrap(), b"short");
            assert_eq!((loose.look().key(), loose.look().deadline()), (&b"other"[..], None));
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
                    other => panic!("nobody has stored a {}", other.type_name()),
                }
            }
        }
    }

    fn set(table: &mut Table<Stored>, key: u32, value: &[u8]) {
        let (name, value) = (key.to_be_bytes(), Arg::Small(value));
        let (digest, string) = (digest_of(&name), NewStr::new(&value));
        match table.get_mut(digest, &name) {
            Some(mut entry) => drop(entry.set(string.form())),
            None => {
                let make = |heap: &mut Heap| {
                    Stored::new(&name, None, string.form(), Usage::unknown(), heap)
                };
                table.get_or_insert(digest, &name, make);
            }
        }
    }

    /// Changes a value that is there.
    fn change<T: Type>(table: &mut Table<Stored>, key: u32, change: impl FnOnce(&mut Edit<T>)) {
        let name = key.to_be_bytes();
        let mut entry = table.get_mut(digest_of(&name), &name).unwrap();
        let (result, _) = entry.edit(&LIMITS, |value| {
            change(value);
            Ok(())
        });
        result.unwrap();
    }

    fn delete(table: &mut Table<Stored>, key: u32) {
        let name = key.to_be_bytes();
        table.remove(digest_of(&name), &name, Stored::free);
    }

    fn mixed_value() -> Vec<u8> {
        let magnitude = 1 << random_below(14);
        vec![b'a' + random_below(26) as u8; magnitude + random_below(magnitude)]
    }

    #[test]
    fn what_is_used_is_what_a_count_finds_and_nothing_is_lost_in_moving() {
        let mut table = Table::new();
        let mut model = Model::default();
        for round in 0..60_000 {
            let key = random_below(600) as u32;
            // Times of growth and times of leaving blocks.
            let goes = if round / 10_000 % 2 == 0 { 2 } else { 8 };
            if random_below(10) < goes {
                delete(&mut table, key);
                model.strings.remove(&key);
                model.hashes.remove(&key);
            } else if !key.is_multiple_of(20) {
                let value = mixed_value();
                set(&mut table, key, &value);
                model.strings.insert(key, value);
                if key.is_multiple_of(3) {
                    let patch = mixed_value();
                    let string = model.strings.get_mut(&key).unwrap();
                    let at = string.len() / 2;
                    change(&mut table, key, |string: &mut Edit<Str>| {
                        string.patch(at, &patch).unwrap();
                    });
                    string.resize(string.len().max(at + patch.len()), 0);
                    string[at..at + patch.len()].copy_from_slice(&patch);
                }
            } else {
                let name = key.to_be_bytes();
                let digest = digest_of(&name);
                table.get_or_insert(digest, &name, |heap| {
                    Loose::new::<Hash>(&name).fasten(Usage::unknown(), heap)
                });
                let (field, value) = (random_below(200) as u32, mixed_value());
                change(&mut table, key, |hash: &mut Edit<Hash>| {
                    hash.set(&field.to_be_bytes(), &value);
                });
                let fields = model.hashes.entry(key).or_default();
                fields.insert(field, value);
            }
            if round % 5_000 == 4_999 {
                model.check(&table);
            }
        }
        while table.empty_blocks().is_some() {}
        model.check(&table);
        for key in 0..600 {
            delete(&mut table, key);
        }
        assert_eq!(table.memory(), 0);
    }
}
