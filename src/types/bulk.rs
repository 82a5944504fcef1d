//! A table that is filled at once, from a snapshot: entries come one after another, none of them twice.
//!
//! Most of the time that it takes to fill a table is for waiting: each entry goes to a place by chance, which is far
//! away in memory. So entries are made in the table's heap at once, side by side, and wait there until they are
//! [`WARM`]. Then the places of all are looked at together (table.rs), and the entries are put there.
//!
//! A table that grows slot by slot moves each entry about twice. A snapshot says how many entries there will be. But a
//! file may lie, so it is believed little by little: the table is given room for four times as many as have come.
//!
//! ```text
//! 1,000,000 are expected     977 have come ──▶ room for 3,907     …     250,000 ──▶ room for 1,000,000
//! ```
//!
//! In that way a third of the entries moves once.
//!
//! **How Redis does it**: rdb.c makes the dict as large as the file says (`dictExpand`), and waits for each key by itself.

use super::Limits;
use super::entry::{Form, LargeValue};
use super::hash::Field;
use super::heap::{Heap, Piece};
use super::listpack::Gathered;
use super::set::Members;
use super::shared::Shared;
use super::table::{Keyed, Table, WARM};
use super::zset::{Accumulator, Scored};
use crate::key::digest_of;

/// A table that is being filled.
pub struct Bulk<E> {
    table: Table<E>,
    /// So many entries there will be in all, it is said.
    expected: u64,
    /// Entries that are in the heap and in no slot yet.
    waiting: Vec<Waiting<E>>,
}

struct Waiting<E> {
    digest: u64,
    note: u64,
    entry: E,
}

/// Something is there that may be there only once.
#[derive(Debug, Default)]
pub struct Twice {
    pub key: Vec<u8>,
    /// What [`Bulk::add`] was given with it.
    pub note: u64,
}

/// The fields of a large hash that come one after another.
pub struct Fields(Bulk<Field>);

/// The same for the members of a large set.
pub struct SetMembers(Bulk<Piece>);

/// The same for the members of a large sorted set, in any order.
pub struct Scores(Bulk<Scored>);

/// So many entries are believed at once.
const BELIEVED: usize = 1024;

impl<E: Keyed> Bulk<E> {
    /// Fills this table, which may have entries.
    pub fn of(table: Table<E>) -> Bulk<E> {
        Bulk { table, expected: 0, waiting: Vec::new() }
    }

    /// So many entries there will be in all, it is said. It is believed only of an empty table. Otherwise a file that
    /// says it again after every few entries would move all that are there each time.
    pub fn expect(&mut self, count: u64) {
        if self.table.len() + self.waiting.len() == 0 {
            self.expected = count;
        }
    }

    fn expecting(count: u64) -> Bulk<E> {
        Bulk { expected: count, ..Bulk::of(Table::new()) }
    }

    /// Adds an entry, which `make` makes in the table's heap. If the key was there already, this call or a later one
    /// says so, and the table is of no use any more.
    pub fn add(
        &mut self,
        digest: u64,
        note: u64,
        make: impl FnOnce(&mut Heap) -> E,
    ) -> Result<(), Twice> {
        let entry = make(&mut self.table.heap);
        self.waiting.push(Waiting { digest, note, entry });
        if self.waiting.len() < WARM { Ok(()) } else { self.place() }
    }

    /// The table with all that was added.
    pub fn end(mut self) -> Result<Table<E>, Twice> {
        self.place()?;
        self.table.fit();
        Ok(self.table)
    }

    /// Puts those that wait in their places.
    fn place(&mut self) -> Result<(), Twice> {
        let Bulk { table, expected, waiting } = self;
        let len = table.len() + waiting.len();
        let expected = usize::try_from(*expected).unwrap_or(usize::MAX);
        if expected > len && table.room() < len {
            let mut room = expected;
            while room > BELIEVED.max(4 * len) {
                room = room.div_ceil(4);
            }
            table.make_room(room);
        }
        table.look_ahead(waiting.iter().map(|waiting| waiting.digest));
        let mut key = Vec::new();
        for Waiting { digest, note, entry } in waiting.drain(..) {
            key.clear();
            key.extend_from_slice(entry.key(&table.heap));
            if !table.get_or_insert(digest, &key, |_| entry).1 {
                return Err(Twice { key, note });
            }
        }
        Ok(())
    }
}

impl Fields {
    /// So many there will be, it is said.
    pub fn expecting(count: u64) -> Fields {
        Fields(Bulk::expecting(count))
    }

    pub fn add(&mut self, name: &[u8], value: &[u8]) -> Result<(), Twice> {
        self.0.add(digest_of(name), 0, |heap| Field::new(name, value, heap))
    }

    pub fn end(self) -> Result<Form<'static>, Twice> {
        Ok(Form::Large(LargeValue::Hash(Shared::new(self.0.end()?))))
    }
}

impl SetMembers {
    /// So many there will be, it is said.
    pub fn expecting(count: u64) -> SetMembers {
        SetMembers(Bulk::expecting(count))
    }

    pub fn add(&mut self, member: &[u8]) -> Result<(), Twice> {
        self.0.add(digest_of(member), 0, |heap| heap.add(&[member]))
    }

    pub fn end(self) -> Result<Form<'static>, Twice> {
        Ok(Form::Large(LargeValue::Set(Shared::new(Members(self.0.end()?)))))
    }
}

impl Scores {
    /// So many there will be, it is said.
    pub fn expecting(count: u64) -> Scores {
        Scores(Bulk::expecting(count))
    }

    pub fn add(&mut self, member: &[u8], score: f64) -> Result<(), Twice> {
        self.0.add(digest_of(member), 0, |heap| Scored::new(member, score, heap))
    }

    /// How the sorted set is stored. A small one is put into `room`.
    pub fn end<'a>(self, room: &'a mut Gathered, limits: &Limits) -> Result<Form<'a>, Twice> {
        Ok(Accumulator(self.0.end()?).sorted().stored(room, limits))
    }
}

/// Puts them in order, if none is there twice.
pub fn in_order<T: Ord>(all: impl Iterator<Item = T>) -> Result<Vec<T>, Twice> {
    let mut all: Vec<T> = all.collect();
    all.sort_unstable();
    match all.is_sorted_by(|a, b| a < b) {
        true => Ok(all),
        false => Err(Twice::default()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::types::hash::Field;

    fn add(bulk: &mut Bulk<Field>, name: u32) -> Result<(), Twice> {
        let name = name.to_be_bytes();
        bulk.add(digest_of(&name), 7, |heap| Field::new(&name, b"value", heap))
    }

    /// Too many are expected, too few, and as many as come; and what was not needed is given back.
    #[test]
    fn what_a_file_claims_is_believed_little_by_little() {
        for expected in [0, 1, 5_000, 20_000, 20_001, u64::MAX] {
            for count in [0, 1, 63, 64, 65, 20_000] {
                let mut bulk = Bulk::of(Table::new());
                bulk.expect(expected);
                for name in 0..count {
                    add(&mut bulk, name).unwrap();
                    let len = bulk.table.len();
                    assert!(
                        bulk.table.room() <= (4 * len).max(BELIEVED) + 14,
                        "{len} of {expected}"
                    );
                }
                let table = bulk.end().unwrap();
                assert_eq!(table.len(), count as usize);
                assert!(table.room() <= table.len() + 21, "{}", table.room());
                assert_eq!(table.memory(), table.recount());
                assert!(
                    (0..count)
                        .map(u32::to_be_bytes)
                        .all(|name| { table.get(digest_of(&name), &name).is_some() })
                );
            }
        }
    }

    /// A file may name its database again after every few keys, and claim each time that many more come.
    #[test]
    fn nothing_is_believed_of_a_table_that_has_entries() {
        let mut bulk = Bulk::of(Table::new());
        (0..5_000).for_each(|name| add(&mut bulk, name).unwrap());
        let mut bulk = Bulk::of(bulk.end().unwrap());
        bulk.expect(u64::MAX);
        (5_000..5_064).for_each(|name| add(&mut bulk, name).unwrap());
        assert!(bulk.table.room() < 6_000, "{}", bulk.table.room());
    }

    #[test]
    fn what_is_there_twice_is_told_with_its_note() {
        for between in [0, 100, 5_000] {
            let mut bulk = Bulk::of(Table::new());
            bulk.expect(3_000);
            add(&mut bulk, 0).unwrap();
            (1..between).for_each(|name| add(&mut bulk, name).unwrap());
            let told = add(&mut bulk, 0).and_then(|()| bulk.end().map(drop)).unwrap_err();
            assert_eq!((told.key, told.note), (0u32.to_be_bytes().to_vec(), 7));
        }
    }
}
