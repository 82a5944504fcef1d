//! What keys and values take: kept as they change, so that it is known at any time without a walk.
//!
//! Each table counts its entries, the bytes of their pieces, and what they have elsewhere (types/heap.rs). So the
//! sum over the databases that are used is a few additions. DEBUG RECOUNT counts all of it anew; the fuzzer asks for that
//! (tests/differential).
//!
//! **How Redis does it**: zmalloc.c counts every allocation, and `getMemoryOverheadData` in object.c computes from the
//! number of keys what tables take.

use super::{Db, Keyspace, View};
use crate::types::Stored;
use crate::types::table::{Keyed, share};
use std::ops::Add;

/// Bytes that a deadline takes in the index: 28 if deadlines come in any order, and 36 in the order of time.
const DEADLINE: usize = 32;

/// What keys take, of one database or of several. All but the first are bytes.
#[derive(Clone, Copy, Default, PartialEq, Debug)]
pub struct Data {
    /// How many keys there are.
    pub keys: usize,
    /// Their places in tables.
    pub places: usize,
    /// Deadlines in their order.
    pub deadlines: usize,
    /// The keys themselves, and their values.
    pub contents: usize,
}

impl Data {
    pub fn bytes(&self) -> usize {
        self.places + self.deadlines + self.contents
    }
}

impl Add for Data {
    type Output = Data;

    fn add(self, other: Data) -> Data {
        Data {
            keys: self.keys + other.keys,
            places: self.places + other.places,
            deadlines: self.deadlines + other.deadlines,
            contents: self.contents + other.contents,
        }
    }
}

impl Db {
    fn memory(&self) -> Data {
        let keys = self.keys.len();
        let places = keys * share::<Stored>();
        let contents = self.keys.memory() - places;
        Data { keys, places, deadlines: self.deadlines.len() * DEADLINE, contents }
    }

    /// The same, counted anew by a walk through all keys and values.
    fn recount(&self) -> Data {
        let (mut keys, mut contents, mut deadlines) = (0, 0, 0);
        for entry in self.keys.iter() {
            keys += 1;
            contents += entry.entry.recount(entry.heap);
            deadlines += usize::from(entry.deadline().is_some());
        }
        Data { keys, places: keys * share::<Stored>(), deadlines: deadlines * DEADLINE, contents }
    }
}

impl Keyspace {
    /// What all keys take.
    pub fn memory(&self) -> Data {
        self.dbs.iter().map(Db::memory).fold(Data::default(), Data::add)
    }
}

impl View<'_> {
    /// What the keys of all databases take.
    pub fn memory(&self) -> Data {
        self.keyspace.memory()
    }

    /// The same, counted anew.
    pub fn recount(&self) -> Data {
        self.keyspace.dbs.iter().map(Db::recount).fold(Data::default(), Data::add)
    }

    /// What those of this database take.
    pub fn memory_of_db(&self) -> Data {
        self.db().memory()
    }
}
