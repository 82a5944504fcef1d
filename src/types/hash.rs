//! A hash: a listpack while it is small, a table when it is not.
//!
//! Most hashes are small objects, a user with five fields. A table for each would cost more than
//! the fields. So up to `hash-max-listpack-entries` fields, none longer than
//! `hash-max-listpack-value` bytes, lie one after another in a listpack (listpack.rs), in the order in which
//! they came, and looking one up means walking past the others. Past either limit the hash becomes a
//! [`Table`] of [`Field`]s and stays one.
//!
//! **How Redis does it**: t_hash.c, where each function asks for the encoding and has a branch for each.

use super::bulk::{Fields, Twice, in_order};
use super::edit::{Edit, Place};
use super::entry::{Form, Kind, LargeValue, SmallMut};
use super::heap::{Heap, Length, Piece};
use super::listpack::{self, Element, Gathered, Listpack, ListpackMut};
use super::shared::Shared;
use super::table::{self, Held, HeldMut, Keyed, Table};
use super::{Limits, Packed, Part, Type, Value, rewrite_elements};
use crate::key::digest_of;
use crate::notify::Class;
use crate::resp::LONGEST;
use std::ops::Range;

/// Bytes that the fields of a packed hash may take, whatever the configuration says (Redis's number): a
/// piece counts its bytes with 32 bits, and a listpack its elements. (Tests have less memory.)
pub(super) const MOST_PACKED: usize = if cfg!(test) { 1 << 20 } else { 1 << 30 };

/// A hash to be read, in either form.
#[derive(Clone, Copy)]
pub enum Hash<'a> {
    Packed(Listpack<'a>),
    Table(&'a Table<Field>),
}

/// A field of a hash that is a table: in one piece of its heap the length of its name, the name, and the value.
#[derive(Clone)]
pub struct Field {
    piece: Piece,
}

/// The heap counts a piece's bytes with 32 bits. Each of the two lengths takes five of them at most.
const _: () = assert!(2 * LONGEST + 10 <= u32::MAX as usize);

impl Field {
    pub fn new(name: &[u8], value: &[u8], heap: &mut Heap) -> Field {
        Field { piece: heap.add(&[Length::of(name.len()).bytes(), name, value]) }
    }

    /// Its piece, and where in it the name is.
    fn bytes<'a>(&self, heap: &'a Heap) -> (&'a [u8], Range<usize>) {
        let bytes = heap.bytes(&self.piece);
        let length = Length::before(bytes);
        (bytes, length.size..length.size + length.count)
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
        let (bytes, name) = self.entry.bytes(self.heap);
        &bytes[name.end..]
    }
}

impl HeldMut<'_, Field> {
    pub fn set_value(self, value: &[u8]) {
        let HeldMut { entry, heap } = self;
        let bytes = heap.bytes_mut(&entry.piece);
        let name = Length::before(bytes);
        let (_, there) = bytes.split_at_mut(name.size + name.count);
        if there.len() == value.len() {
            there.copy_from_slice(value);
        } else {
            heap.edit(&mut entry.piece, |bytes| {
                bytes.truncate(name.size + name.count);
                bytes.extend_from_slice(value);
            });
        }
    }
}

impl Keyed for Field {
    fn key<'a>(&'a self, heap: &'a Heap) -> &'a [u8] {
        let (bytes, name) = self.bytes(heap);
        &bytes[name]
    }

    fn piece_mut(&mut self) -> Option<&mut Piece> {
        Some(&mut self.piece)
    }

    fn recount(&self, heap: &Heap) -> usize {
        heap.size(&self.piece)
    }
}

impl<'a> Hash<'a> {
    /// How many fields there are.
    pub fn len(self) -> usize {
        match self {
            Hash::Packed(listpack) => listpack.len() / 2,
            Hash::Table(table) => table.len(),
        }
    }

    /// The value of a field.
    pub fn get(self, name: &[u8]) -> Option<&'a [u8]> {
        match self {
            Hash::Packed(listpack) => find(listpack, name).map(|(_, value)| value.bytes),
            Hash::Table(table) => table.get(digest_of(name), name).map(Held::<Field>::value),
        }
    }

    /// Names and values, in the order of insertion while the hash is packed.
    pub fn iter(self) -> Box<dyn Iterator<Item = (&'a [u8], &'a [u8])> + 'a> {
        match self {
            Hash::Packed(listpack) => Box::new(fields_of(listpack)),
            Hash::Table(table) => {
                Box::new(table.with_digests().map(|(_, f)| (f.name(), f.value())))
            }
        }
    }

    /// A field, each with the same chance. A hash is never empty: the key goes with its last field.
    pub fn random(self) -> Option<(&'a [u8], &'a [u8])> {
        match self {
            Hash::Packed(listpack) => fields_of(listpack).nth(table::random_below(self.len())),
            Hash::Table(table) => table.random().map(|(_, field)| (field.name(), field.value())),
        }
    }

    /// Visits the fields of one slot of the table, or all fields of a packed hash; returns the cursor of
    /// the next.
    pub fn scan(self, cursor: u64, mut visit: impl FnMut((&'a [u8], &'a [u8]))) -> u64 {
        match self {
            Hash::Packed(listpack) => {
                fields_of(listpack).for_each(visit);
                0
            }
            Hash::Table(table) => table.scan(cursor, |field| visit((field.name(), field.value()))),
        }
    }

    /// How a hash is stored that has come whole, as these names and values.
    pub fn whole(fields: &'a mut Gathered, limits: &Limits) -> Result<Form<'a>, Twice> {
        let Packed { entries, value } = limits.hash;
        let listpack = fields.end();
        let is_short = listpack.iter().all(|element| element.bytes.len() <= value);
        if is_short && listpack.len() / 2 <= entries && listpack.0.len() <= MOST_PACKED {
            in_order(listpack.pairs().map(|(name, _)| name.bytes))?;
            return Ok(Form::Small(Kind::Hash, listpack.0));
        }
        let mut table = Fields::expecting(listpack.len() as u64 / 2);
        fields_of(listpack).try_for_each(|(name, value)| table.add(name, value))?;
        table.end()
    }

    pub(super) fn encoding(self) -> &'static str {
        match self {
            Hash::Packed(_) => "listpack",
            Hash::Table(_) => "hashtable",
        }
    }

    pub(super) fn memory(self) -> usize {
        match self {
            Hash::Packed(_) => 0,
            Hash::Table(table) => table::alone::<Field>() + table.memory(),
        }
    }

    pub(super) fn recount(self) -> usize {
        let Hash::Table(table) = self else { return 0 };
        table::alone::<Field>() + table.recount()
    }

    pub(super) fn rewrite(self, key: &[u8], emit: &mut dyn FnMut(&[&[u8]])) {
        let fields = self.iter().map(|(name, value)| [name, value]);
        rewrite_elements([b"HMSET", key], fields, emit);
    }

    pub(super) fn parts(self, take: &mut dyn FnMut(Part)) {
        self.iter().for_each(|(name, value)| take(Part::Pair(name, value)));
    }
}

fn fields_of(listpack: Listpack<'_>) -> impl Iterator<Item = (&[u8], &[u8])> {
    listpack.pairs().map(|(name, value)| (name.bytes, value.bytes))
}

/// Looks for a field or a member, from the first to the last: few and short, or there were a table.
pub(super) fn find<'a>(listpack: Listpack<'a>, name: &[u8]) -> Option<(Element<'a>, Element<'a>)> {
    let mut elements = listpack.iter();
    while let (Some(candidate), Some(value)) = (elements.next(), elements.next()) {
        if candidate.bytes == name {
            return Some((candidate, value));
        }
    }
    None
}

impl Type for Hash<'_> {
    const NAME: &'static str = "hash";
    const NUMBER: u32 = 4;
    const CLASS: Class = Class::Hash;
    const NEW: (Kind, &'static [u8]) = (Kind::Hash, &listpack::EMPTY);
    type Look<'a> = Hash<'a>;
    type Large = Shared<Table<Field>>;

    fn of(value: Value<'_>) -> Option<Hash<'_>> {
        if let Value::Hash(hash) = value { Some(hash) } else { None }
    }

    fn is(kind: Kind) -> bool {
        kind == Kind::Hash
    }

    fn large(value: &mut LargeValue) -> Option<&mut Shared<Table<Field>>> {
        if let LargeValue::Hash(table) = value { Some(table) } else { None }
    }

    fn is_nothing(edit: &Edit<Self>) -> bool {
        edit.look().len() == 0
    }
}

impl From<Shared<Table<Field>>> for LargeValue {
    fn from(table: Shared<Table<Field>>) -> LargeValue {
        LargeValue::Hash(table)
    }
}

impl<'a> FromIterator<(&'a [u8], &'a [u8])> for Table<Field> {
    fn from_iter<I: IntoIterator<Item = (&'a [u8], &'a [u8])>>(fields: I) -> Table<Field> {
        let mut table = Table::new();
        for (name, value) in fields {
            table.get_or_insert(digest_of(name), name, |heap| Field::new(name, value, heap));
        }
        table
    }
}

impl Edit<'_, Hash<'_>> {
    fn look(&self) -> Hash<'_> {
        match self.place() {
            Place::Small(small) => Hash::Packed(Listpack(small.payload())),
            Place::Large(table) => Hash::Table(table),
        }
    }

    /// The value of a field.
    pub fn get(&self, name: &[u8]) -> Option<&[u8]> {
        self.look().get(name)
    }

    /// Sets a field, and turns a packed hash into a table when it passes a limit. Returns whether the
    /// field is new.
    pub fn set(&mut self, name: &[u8], value: &[u8]) -> bool {
        let limits = self.limits.hash;
        if let Place::Small(small) = self.place() {
            let packed = small.payload().len() + name.len() + value.len();
            if name.len().max(value.len()) > limits.value || packed > MOST_PACKED {
                self.unpack();
            }
        }
        match self.place_mut() {
            Place::Small(small) => {
                let is_new = set_packed(small, name, value);
                if Listpack(small.payload()).len() / 2 > limits.entries {
                    self.unpack();
                }
                is_new
            }
            Place::Large(table) => set_field(table, name, value),
        }
    }

    /// Removes a field; returns whether it was there.
    pub fn remove(&mut self, name: &[u8]) -> bool {
        let digest = digest_of(name);
        let found = match self.look() {
            Hash::Packed(listpack) => find(listpack, name).map(|(name, _)| name.at),
            Hash::Table(table) => table.get(digest, name).map(|_| 0),
        };
        let Some(at) = found else {
            return false;
        };
        match self.place_mut() {
            Place::Small(small) => {
                small.edit(|bytes, start| ListpackMut { bytes, start }.splice(at, 2, &[]));
            }
            Place::Large(table) => drop(table.remove(digest, name, Field::free)),
        }
        true
    }

    /// Turns a packed hash into a table, for good.
    fn unpack(&mut self) {
        let table: Table<Field> = self.look().iter().collect();
        self.place_mut().grow(Shared::new(table));
    }
}

fn set_packed(small: &mut SmallMut, name: &[u8], value: &[u8]) -> bool {
    let found = find(Listpack(small.payload()), name);
    let found = found.map(|(_, value)| (value.at, value.bytes.len()));
    match found {
        Some((at, len)) if len == value.len() => {
            let bytes = Listpack(small.payload()).bytes_at(at);
            small.payload_mut()[bytes].copy_from_slice(value);
        }
        Some((at, _)) => {
            small.edit(|bytes, start| ListpackMut { bytes, start }.splice(at, 1, &[value]));
        }
        None => small.edit(|bytes, start| ListpackMut { bytes, start }.push(&[name, value])),
    }
    found.is_none()
}

fn set_field(table: &mut Table<Field>, name: &[u8], value: &[u8]) -> bool {
    let make = |heap: &mut Heap| Field::new(name, value, heap);
    let (field, is_new) = table.get_or_insert(digest_of(name), name, make);
    if !is_new {
        field.set_value(value);
    }
    is_new
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::types::{Limits, Loose, Packed};

    fn set(entry: &mut Loose, limits: Packed, name: &[u8], value: &[u8]) -> bool {
        entry.change(&Limits { hash: limits, ..Limits::NOTHING }, |hash: &mut Edit<Hash>| {
            hash.set(name, value)
        })
    }

    fn fields_of(entry: &Loose) -> Vec<(&[u8], &[u8])> {
        entry.look().read::<Hash>().unwrap().iter().collect()
    }

    #[test]
    fn a_packed_hash_keeps_the_order_of_insertion_and_any_length() {
        let mut entry = Loose::new::<Hash>(b"key");
        let limits = Packed { entries: 9, value: usize::MAX };
        let long = vec![b'x'; 20_000];
        for (name, value) in [("a", &b"1"[..]), ("", b""), ("c", &long)] {
            assert!(set(&mut entry, limits, name.as_bytes(), value));
        }
        assert!(!set(&mut entry, limits, b"a", &long[..128]));
        assert!(!set(&mut entry, limits, b"c", b"short"));
        let limits = Limits { hash: limits, ..Limits::NOTHING };
        assert!(entry.change(&limits, |hash: &mut Edit<Hash>| hash.remove(b"")));
        assert_eq!(entry.look().value().encoding(), "listpack");
        assert_eq!(fields_of(&entry), [(&b"a"[..], &long[..128]), (b"c", b"short")]);
        let hash = entry.look().read::<Hash>().unwrap();
        assert_eq!((hash.get(b"c"), hash.get(b"")), (Some(&b"short"[..]), None));
    }

    #[test]
    fn a_hash_is_unpacked_before_its_bytes_are_more_than_a_piece_can_count() {
        let mut entry = Loose::new::<Hash>(b"key");
        let limits = Packed { entries: usize::MAX, value: usize::MAX };
        let value = vec![b'v'; MOST_PACKED / 3];
        for (name, encoding) in [(b"a", "listpack"), (b"b", "listpack"), (b"c", "hashtable")] {
            set(&mut entry, limits, name, &value);
            assert_eq!(entry.look().value().encoding(), encoding);
        }
        let hash = entry.look().read::<Hash>().unwrap();
        assert_eq!((hash.len(), hash.get(b"b")), (3, Some(&value[..])));
    }

    #[test]
    fn a_hash_is_unpacked_past_either_limit_and_keeps_its_fields_and_deadline() {
        let limits = Packed { entries: 2, value: 8 };
        for (name, value) in [("c", "3"), ("long field name", "3"), ("c", "long value")] {
            let mut entry = Loose::new::<Hash>(b"key");
            entry.edit().set_deadline(Some(5));
            assert!(set(&mut entry, limits, b"a", b"1"));
            assert!(!set(&mut entry, limits, b"a", b"11"));
            assert!(set(&mut entry, limits, b"b", b"2"));
            assert_eq!(entry.look().value().encoding(), "listpack");
            let all = Limits { hash: limits, ..Limits::NOTHING };
            entry.change(&all, |hash: &mut Edit<Hash>| {
                assert!(hash.set(name.as_bytes(), value.as_bytes()));
                // It is a table now, which is not in its place yet.
                assert!(hash.remove(b"b") && !hash.remove(b"b"));
            });
            let look = entry.look();
            assert_eq!((look.value().encoding(), look.deadline()), ("hashtable", Some(5)));
            let hash = look.read::<Hash>().unwrap();
            assert_eq!((hash.len(), hash.get(b"a")), (2, Some(&b"11"[..])));
            assert_eq!(hash.get(name.as_bytes()), Some(value.as_bytes()));
        }
    }
}
