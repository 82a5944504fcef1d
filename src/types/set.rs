//! A set: members without an order, none twice. It has one of three forms, and no command knows which.
//!
//! ```text
//! SADD s 3 1 2      Intset   numbers in ascending order (intset.rs)    up to set-max-intset-entries
//! SADD s red        Packed   a listpack: 1, 2, 3, red (listpack.rs)    up to set-max-listpack-entries,
//!                                                                      none longer than …-value
//! SADD s <long>     Table    a table of members (table.rs)             for good
//! ```
//!
//! A set goes down this list and never up. While it is small, a table would cost more than its members. An
//! intset of 512 numbers takes one or four kilobytes, where a table takes twenty; in a listpack of 128 members
//! a search walks past all of them, so it ends there.
//!
//! An entry of the table is a piece of its heap, and in that is the member and nothing else.
//!
//! **Questions about several sets.** SINTER walks the smallest set, and asks the others whether they have what
//! it finds. So it takes as long as the smallest, times the number of sets:
//!
//! ```text
//! SINTER large small other        small: a b c ──▶ does other have a? does large? …
//! ```
//!
//! A [`Member`] is a number or bytes, as it is stored. So two intsets are compared number by number,
//! and nothing is printed that nobody asked for. What comes from a table has its digest with it. Whoever walks a
//! large set does so in groups, and looks ahead to the places of a group in the other tables ([`groups`]).
//!
//! **How Redis does it**: t_set.c, with the same three forms since 7.2 and two before; a `dict` without values
//! where there is a table here. Each function has a branch for each form.

use super::bulk::{SetMembers, Twice, in_order};
use super::edit::{Edit, Place};
use super::entry::{Form, Kind, LargeValue};
use super::hash::MOST_PACKED;
use super::heap::{Heap, Piece};
use super::intset::{self, Intset};
use super::listpack::{self, Gathered, Listpack, ListpackMut};
use super::shared::Shared;
use super::table::{self, Held, Keyed, Table, groups};
use super::{Limits, Packed, Part, Type, Value, rewrite_elements};
use crate::key::Key;
use crate::notify::Class;
use crate::resp::{Digits, parse_integer};
use std::hint::black_box;

/// A set to be read, in any form.
#[derive(Clone, Copy)]
pub enum Set<'a> {
    Intset(Intset<'a>),
    Packed(Listpack<'a>),
    Table(&'a Table<Piece>),
}

/// What a large set is stored as.
#[derive(Clone)]
pub struct Members(pub Table<Piece>);

/// A member as it is stored. The bytes may be those of a number too.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub enum Member<'a> {
    Number(i64),
    Bytes(&'a [u8]),
    /// From a table. Another one can be asked for it without computing the digest anew.
    Key(Key<'a>),
}

impl<'a> Member<'a> {
    /// Hands its bytes to `look`.
    pub fn read<R>(self, look: impl FnOnce(&[u8]) -> R) -> R {
        match self {
            Member::Number(number) => look(Digits::new(number).as_bytes()),
            Member::Bytes(bytes) => look(bytes),
            Member::Key(key) => look(key.bytes),
        }
    }

    /// The same with the digest.
    pub fn read_key<R>(self, look: impl FnOnce(Key) -> R) -> R {
        match self {
            Member::Key(key) => look(key),
            _ => self.read(|bytes| look(Key::of(bytes))),
        }
    }

    /// Itself with its digest, if it came with that.
    pub fn key(&self) -> Option<Key<'a>> {
        if let Member::Key(key) = self { Some(*key) } else { None }
    }

    fn number(self) -> Option<i64> {
        match self {
            Member::Number(number) => Some(number),
            _ => self.read(parse_integer),
        }
    }
}

/// A member in the table.
impl Keyed for Piece {
    fn key<'a>(&'a self, heap: &'a Heap) -> &'a [u8] {
        heap.bytes(self)
    }

    fn piece_mut(&mut self) -> Option<&mut Piece> {
        Some(self)
    }

    fn recount(&self, heap: &Heap) -> usize {
        heap.size(self)
    }
}

impl<'a> Set<'a> {
    /// How many members there are.
    pub fn len(self) -> usize {
        match self {
            Set::Intset(intset) => intset.len(),
            Set::Packed(listpack) => listpack.len(),
            Set::Table(table) => table.len(),
        }
    }

    pub fn contains(self, member: Member) -> bool {
        match self {
            Set::Intset(intset) => member.number().is_some_and(|number| intset.contains(number)),
            Set::Packed(listpack) => member.read(|bytes| find(listpack, bytes).is_some()),
            Set::Table(table) => member.read_key(|key| table.get(key.digest, &key).is_some()),
        }
    }

    /// Keeps of these members those that it has, or with `has` as false, those that it has not.
    pub fn keep(self, has: bool, members: &mut Vec<Member>) {
        let Set::Table(table) = self else {
            return members.retain(|member| self.contains(*member) == has);
        };
        let digests = members.iter().filter_map(Member::key).map(|key| key.digest);
        let mut found = table.look_ahead(digests).into_iter();
        members.retain(|member| match member.key() {
            Some(key) => table.has(key, found.next()) == has,
            None => self.contains(*member) == has,
        });
    }

    /// Has in the processor's caches what questions about members with these digests need.
    pub fn look_ahead(self, digests: impl Iterator<Item = u64>) {
        if let Set::Table(table) = self {
            table.look_ahead(digests);
        }
    }

    /// The members in groups, of which each may be given to [`Set::keep`]: it waits for memory once for a group.
    pub fn groups(self) -> Box<dyn Iterator<Item = Vec<Member<'a>>> + 'a> {
        match self {
            Set::Table(table) => Box::new(table.groups(keyed)),
            _ => Box::new(groups(self.iter())),
        }
    }

    /// The members: of an intset in ascending order, of a listpack in the order in which they came.
    pub fn iter(self) -> Box<dyn Iterator<Item = Member<'a>> + 'a> {
        match self {
            Set::Intset(intset) => Box::new(intset.iter().map(Member::Number)),
            Set::Packed(listpack) => {
                Box::new(listpack.iter().map(|element| Member::Bytes(element.bytes)))
            }
            Set::Table(table) => Box::new(table.groups(keyed).flatten()),
        }
    }

    /// A member, each with the same chance. A set is never empty: the key goes with its last member.
    pub fn random(self) -> Option<Member<'a>> {
        match self {
            Set::Table(table) => table.random().map(|(digest, held)| keyed(digest, held)),
            Set::Intset(intset) => intset.get(table::random_below(self.len())).map(Member::Number),
            Set::Packed(_) => self.iter().nth(table::random_below(self.len())),
        }
    }

    /// Visits the members of one slot of the table, or all members of another form; returns the cursor of
    /// the next.
    pub fn scan(self, cursor: u64, mut visit: impl FnMut(Member<'a>)) -> u64 {
        match self {
            Set::Table(table) => table.scan(cursor, |held| visit(Member::Bytes(held.key()))),
            _ => {
                self.iter().for_each(visit);
                0
            }
        }
    }

    /// How a set is stored that has come whole, as these members.
    pub fn whole(members: &'a mut Gathered, limits: &Limits) -> Result<Form<'a>, Twice> {
        let Packed { entries, value } = limits.set;
        if members.len() <= limits.intset
            && let Some(numbers) = numbers_of(members.end())
        {
            members.bytes = intset::of(&in_order(numbers.into_iter())?, 2);
            return Ok(Form::Small(Kind::Intset, &members.bytes));
        }
        let listpack = members.end();
        let is_short = listpack.iter().all(|member| member.bytes.len() <= value);
        if is_short && listpack.len() <= entries && listpack.0.len() <= MOST_PACKED {
            in_order(listpack.iter().map(|member| member.bytes))?;
            return Ok(Form::Small(Kind::Set, listpack.0));
        }
        let mut table = SetMembers::expecting(listpack.len() as u64);
        listpack.iter().try_for_each(|member| table.add(member.bytes))?;
        table.end()
    }

    /// The same of numbers: this is an intset. `None` if they are not in order.
    pub fn numbers(bytes: &'a [u8], limits: &Limits) -> Option<Form<'a>> {
        let intset = Intset(bytes);
        if !intset.iter().is_sorted_by(|a, b| a < b) {
            return None;
        }
        if intset.len() <= limits.intset && bytes.len() <= MOST_PACKED {
            return Some(Form::Small(Kind::Intset, bytes));
        }
        let mut table = SetMembers::expecting(intset.len() as u64);
        for number in intset.iter() {
            table.add(Digits::new(number).as_bytes()).ok()?;
        }
        table.end().ok()
    }

    pub(super) fn encoding(self) -> &'static str {
        match self {
            Set::Intset(_) => "intset",
            Set::Packed(_) => "listpack",
            Set::Table(_) => "hashtable",
        }
    }

    /// Bytes that it has beside its entry, which are few unless it is large.
    pub fn memory(self) -> usize {
        match self {
            Set::Table(table) => table::alone::<Piece>() + table.memory(),
            _ => 0,
        }
    }

    pub(super) fn recount(self) -> usize {
        let Set::Table(table) = self else { return 0 };
        table::alone::<Piece>() + table.recount()
    }

    pub(super) fn rewrite(self, key: &[u8], emit: &mut dyn FnMut(&[&[u8]])) {
        let begin = [b"SADD", key];
        match self {
            Set::Intset(intset) => {
                let all: Vec<Digits> = intset.iter().map(Digits::new).collect();
                rewrite_elements(begin, all.iter().map(|digits| [digits.as_bytes()]), emit);
            }
            Set::Packed(listpack) => {
                rewrite_elements(begin, listpack.iter().map(|element| [element.bytes]), emit);
            }
            Set::Table(table) => {
                rewrite_elements(begin, table.iter().map(|held| [held.key()]), emit);
            }
        }
    }

    pub(super) fn parts(self, take: &mut dyn FnMut(Part)) {
        self.iter().for_each(|member| member.read(|bytes| take(Part::Alone(bytes))));
    }
}

/// The members as numbers, if all are some.
fn numbers_of(listpack: Listpack) -> Option<Vec<i64>> {
    listpack.iter().map(|member| parse_integer(member.bytes)).collect()
}

fn keyed(digest: u64, held: Held<'_, Piece>) -> Member<'_> {
    Member::Key(Key { bytes: held.key(), digest })
}

/// Looks for a member, from the first to the last; returns its place.
fn find(listpack: Listpack, member: &[u8]) -> Option<usize> {
    listpack.iter().find(|element| element.bytes == member).map(|element| element.at)
}

impl Type for Set<'_> {
    const NAME: &'static str = "set";
    const NUMBER: u32 = 2;
    const CLASS: Class = Class::Set;
    const NEW: (Kind, &'static [u8]) = (Kind::Intset, &intset::EMPTY);
    type Look<'a> = Set<'a>;
    type Large = Shared<Members>;

    fn of(value: Value<'_>) -> Option<Set<'_>> {
        if let Value::Set(set) = value { Some(set) } else { None }
    }

    fn is(kind: Kind) -> bool {
        matches!(kind, Kind::Intset | Kind::Set)
    }

    fn large(value: &mut LargeValue) -> Option<&mut Shared<Members>> {
        if let LargeValue::Set(members) = value { Some(members) } else { None }
    }

    fn is_nothing(edit: &Edit<Self>) -> bool {
        edit.look().len() == 0
    }
}

impl From<Shared<Members>> for LargeValue {
    fn from(members: Shared<Members>) -> LargeValue {
        LargeValue::Set(members)
    }
}

impl Edit<'_, Set<'_>> {
    pub fn look(&self) -> Set<'_> {
        match self.place() {
            Place::Small(small) if small.kind() == Kind::Intset => {
                Set::Intset(Intset(small.payload()))
            }
            Place::Small(small) => Set::Packed(Listpack(small.payload())),
            Place::Large(members) => Set::Table(&members.0),
        }
    }

    /// Adds a member, and gives the set another form when it passes a limit. Returns whether the member is
    /// new.
    pub fn add(&mut self, member: Member) -> bool {
        let (number, fits) = match self.look() {
            set if self.place().is_shared() && set.contains(member) => return false,
            Set::Table(_) => (None, true),
            Set::Intset(_) => {
                let number = member.number();
                (number, number.is_some())
            }
            set if set.contains(member) => return false,
            _ => (None, member.read(|bytes| self.may_pack(bytes))),
        };
        if !fits {
            member.read(|bytes| self.make_room_for(bytes));
        }
        let is_new = self.attempt(|place| {
            let is_new = match (place, number) {
                (Place::Small(small), Some(number)) => intset::add(small, number),
                (Place::Small(small), None) => member.read(|bytes| {
                    small.edit(|all, start| ListpackMut { bytes: all, start }.push(&[bytes]));
                    true
                }),
                (Place::Large(members), _) => member.read_key(|key| add_to(&mut members.0, key)),
            };
            (is_new, is_new)
        });
        if is_new
            && let Set::Intset(intset) = self.look()
            && (intset.len() > self.limits.intset || intset.0.len() > MOST_PACKED)
        {
            self.unpack(0);
        }
        is_new
    }

    /// Adds the members of a group.
    pub fn add_all(&mut self, members: &[Member]) {
        let keys = members.iter().filter_map(Member::key);
        self.look().look_ahead(keys.clone().map(|key| key.digest));
        // They may have been read long ago.
        black_box(keys.filter_map(|key| key.bytes.first()).fold(0, |all, byte| all ^ byte));
        for member in members {
            self.add(*member);
        }
    }

    /// Puts all members of another set into one that is empty. If these are many, it begins as a copy of it.
    pub fn begin_with(&mut self, set: Set) {
        match set {
            Set::Table(table) if self.limits.is_table(table.len()) => {
                self.place_mut().grow(Shared::new(Members(table.clone())));
            }
            _ => set.groups().for_each(|group| self.add_all(&group)),
        }
    }

    /// Says that a new set will have so many members at least: if these need a table, it has room for them.
    pub fn expect(&mut self, least: usize) {
        if self.limits.is_table(least) {
            self.unpack(least);
        }
    }

    /// Removes a member; returns whether it was there.
    pub fn remove(&mut self, member: Member) -> bool {
        if self.place().is_shared() && !self.look().contains(member) {
            return false;
        }
        self.attempt(|place| {
            let removed = match place {
                Place::Small(small) if small.kind() == Kind::Intset => {
                    member.number().is_some_and(|number| intset::remove(small, number))
                }
                Place::Small(small) => {
                    let at = member.read(|bytes| find(Listpack(small.payload()), bytes));
                    if let Some(at) = at {
                        small.edit(|bytes, start| ListpackMut { bytes, start }.splice(at, 1, &[]));
                    }
                    at.is_some()
                }
                Place::Large(members) => {
                    member.read_key(|key| members.0.remove(key.digest, &key, free).is_some())
                }
            };
            (removed, removed)
        })
    }

    /// Whether a listpack may have this member beside those that are there.
    fn may_pack(&self, member: &[u8]) -> bool {
        let limits = self.limits.set;
        let (set, mut longest, mut size) = (self.look(), member.len(), member.len());
        match set {
            // The longest numbers are at the ends.
            Set::Intset(intset) => {
                let last = set.len().checked_sub(1).and_then(|last| intset.get(last));
                for number in intset.get(0).into_iter().chain(last) {
                    longest = longest.max(Digits::new(number).as_bytes().len());
                }
            }
            Set::Packed(listpack) => size += listpack.0.len(),
            Set::Table(_) => return false,
        }
        set.len() < limits.entries && longest <= limits.value && size <= MOST_PACKED
    }

    /// Gives the set a form that can take this member: an intset may become a listpack.
    fn make_room_for(&mut self, member: &[u8]) {
        let mut listpack = listpack::EMPTY.to_vec();
        let mut packed = ListpackMut { bytes: &mut listpack, start: 0 };
        match self.look() {
            Set::Intset(intset) if self.may_pack(member) => {
                intset.iter().for_each(|number| packed.push(&[Digits::new(number).as_bytes()]));
            }
            _ => return self.unpack(0),
        }
        if let Place::Small(small) = self.place_mut() {
            small.set(Kind::Set, &listpack);
        }
    }

    /// Turns the set into a table, for good. It has room for so many members.
    fn unpack(&mut self, room: usize) {
        let mut table = Table::with_room(room.max(self.look().len()));
        for member in self.look().iter() {
            member.read_key(|key| add_to(&mut table, key));
        }
        self.place_mut().grow(Shared::new(Members(table)));
    }
}

fn add_to(table: &mut Table<Piece>, member: Key) -> bool {
    table.get_or_insert(member.digest, &member, |heap| heap.add(&[&member])).1
}

fn free(member: Piece, heap: &mut Heap) {
    heap.free(member);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::types::table::random_below;
    use crate::types::{Limits, Loose, Packed};
    use std::collections::BTreeSet;

    const LIMITS: Limits =
        Limits { intset: 4, set: Packed { entries: 3, value: 5 }, ..Limits::NOTHING };

    fn with(members: &[&str]) -> Loose {
        let mut entry = Loose::new::<Set>(b"key");
        entry.change(&LIMITS, |set: &mut Edit<Set>| {
            assert!(members.iter().all(|member| set.add(Member::Bytes(member.as_bytes()))));
        });
        entry
    }

    fn members(entry: &Loose) -> Vec<String> {
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        entry.look().read::<Set>().unwrap().iter().map(|member| member.read(text)).collect()
    }

    #[test]
    fn a_set_has_the_form_that_its_members_allow_and_never_goes_back() {
        for (of, encoding) in [
            (&["3", "-1", "2", "70000"][..], "intset"),
            (&["3", "1", "2", "4", "5"], "hashtable"),
            (&["3", "1", "red"], "listpack"),
            (&["3", "1", "04"], "listpack"),
            (&["red", "3", "1"], "listpack"),
            (&["red", "3", "1", "2"], "hashtable"),
            (&["3", "1", "2", "red"], "hashtable"),
            (&["violet"], "hashtable"),
            // A number is longer in a listpack.
            (&["-12345", "red"], "hashtable"),
        ] {
            let mut entry = with(of);
            assert_eq!(entry.look().value().encoding(), encoding, "{of:?}");
            entry.change(&LIMITS, |set: &mut Edit<Set>| {
                assert!(of.iter().all(|member| !set.add(Member::Bytes(member.as_bytes()))));
                assert!(of[1..].iter().all(|member| set.remove(Member::Bytes(member.as_bytes()))));
            });
            assert_eq!(members(&entry), of[..1]);
            assert_eq!(entry.look().value().encoding(), encoding, "{of:?}");
        }
        assert_eq!(members(&with(&["3", "1", "red"])), ["1", "3", "red"]);
        assert_eq!(members(&with(&["red", "3", "1"])), ["red", "3", "1"]);
    }

    fn has(model: &BTreeSet<String>, member: &[u8]) -> bool {
        model.iter().any(|other| other.as_bytes() == member)
    }

    #[test]
    fn a_set_holds_what_an_ordered_set_holds_after_any_changes() {
        for (intset, entries) in [(4, 0), (4, 9), (100, 100), (0, 0)] {
            let set = Packed { entries, value: 5 };
            let limits = Limits { intset, set, ..Limits::NOTHING };
            for kinds in 1..4 {
                let mut entry = Loose::new::<Set>(b"key");
                entry.edit().set_deadline(Some(7));
                let mut model = BTreeSet::new();
                for _ in 0..2_000 {
                    let number = random_below(40);
                    let member = match random_below(kinds) {
                        0 => number.to_string(),
                        1 => format!("m{number}"),
                        _ => format!("member {number}"),
                    };
                    entry.change(&limits, |set: &mut Edit<Set>| {
                        if random_below(2) == 0 {
                            assert_eq!(
                                set.add(Member::Bytes(member.as_bytes())),
                                model.insert(member.clone())
                            );
                        } else {
                            assert_eq!(
                                set.remove(Member::Bytes(member.as_bytes())),
                                model.remove(&member)
                            );
                        }
                    });
                    let set = entry.look().read::<Set>().unwrap();
                    let bytes = Member::Bytes(member.as_bytes());
                    assert_eq!(set.contains(bytes), model.contains(&member));
                    let number = Member::Number(number as i64);
                    assert_eq!(set.contains(number), number.read(|bytes| has(&model, bytes)));
                    assert_eq!(set.len(), model.len());
                }
                assert!(members(&entry).into_iter().collect::<BTreeSet<_>>() == model);
                assert_eq!(entry.look().deadline(), Some(7));
            }
        }
    }

    #[test]
    fn a_member_is_drawn_as_often_as_any_other_in_each_form() {
        for (intset, entries) in [(99, 0), (0, 99), (0, 0)] {
            let limits = Limits { intset, set: Packed { entries, value: 9 }, ..Limits::NOTHING };
            let mut entry = Loose::new::<Set>(b"key");
            let name = |i: usize| if intset > 0 { i.to_string() } else { format!("m{i}") };
            entry.change(&limits, |set: &mut Edit<Set>| {
                (0..30).for_each(|i| assert!(set.add(Member::Bytes(name(i).as_bytes()))));
            });
            let set = entry.look().read::<Set>().unwrap();
            let mut times = std::collections::HashMap::new();
            (0..30_000).for_each(|_| *times.entry(set.random()).or_insert(0) += 1);
            assert!(times.len() == 30 && times.values().all(|n| (850..1150).contains(n)));
        }
    }
}
