//! The keys of one database. A snapshot is made of them while they change.
//!
//! A snapshot is of one moment, and it takes seconds. It walks through the table in the order of the cursor
//! (types/table/walk.rs), and copies some hundred entries at a time under the lock. Whoever is about to change a
//! key that the walk has not come to first puts a copy of what is there aside:
//!
//! ```text
//!                  a        d          point        m             x          in the order of the cursor
//! the snapshot     written, written      │          not yet       not yet
//! SET a                                  │                                   changes at once
//! SET m, DEL m                           │          1. a copy is put aside, and the digest is kept
//!                                        │          2. changes
//! the walk                               └───────▶  skips m                  ───────▶ copies x
//! ```
//!
//! A key that was not there is kept by its digest alone, so that the walk skips it.
//!
//! **This cannot be forgotten.** The table is private to this file. Whoever looks gets it by `Deref`. It can be changed
//! only by the functions below, and each of them puts aside what is there. (A change of a value is one too, because it begins with
//! [`Keys::get_mut`].) A whole database that goes is kept until the snapshot has it (databases.rs).
//!
//! **What it costs.** Without a snapshot, one comparison for each change. With one, the first change of each key copies that
//! key, at most once. A string of more than 64 KiB is shared and not copied, until it is changed in place. A collection that is not
//! small is copied whole before its first change, and all wait for that: a tenth of a second for a million fields or
//! members. The walk itself shares it.
//!
//! **How Redis does it**: a fork. The kernel copies each page that changes meanwhile, at the first change, and the fork
//! itself takes some milliseconds for each gigabyte.

use crate::types::table::Table;
use crate::types::{Copies, Entry, EntryMut, Heap, Stored};
use std::collections::BTreeSet;
use std::mem;
use std::ops::Deref;
use std::time::{Duration, Instant};

pub(super) struct Keys {
    table: Table<Stored>,
    /// While a snapshot is made of them. In a box, because that is seldom.
    aside: Option<Box<Aside>>,
}

/// What a snapshot has of the keys, and what it needs.
pub(super) struct Aside {
    /// The number of the database at the moment of the snapshot. SWAPDB may have changed it since.
    db: usize,
    /// The walk has come to this point; None: to the end.
    point: Option<u64>,
    /// Digests of keys that the walk skips: what they were is put aside already. (A tree grows without a pause.)
    changed: BTreeSet<u64>,
    copies: Copies,
    /// How many slots the next step visits.
    slots: usize,
}

/// What a snapshot is given at once.
#[derive(Default)]
pub(super) struct Step {
    pub copies: Copies,
    /// Bytes of those that had been put aside.
    pub put_aside: usize,
    /// Whether these are the last ones.
    pub is_over: bool,
}

/// The most that the walk does under one lock: some tens of microseconds. In tests it is little, so that much can change
/// between two steps.
const STEPS_AT_ONCE: usize = if cfg!(test) { 1 } else { 4 };
const BYTES_AT_ONCE: usize = 64 * 1024;

/// So many slots are visited together. Where strings are long, one is.
const SLOTS: usize = 8;

impl Keys {
    pub fn of(table: Table<Stored>) -> Keys {
        Keys { table, aside: None }
    }

    pub fn get_mut(&mut self, digest: u64, key: &[u8]) -> Option<EntryMut<'_>> {
        self.put_aside(digest);
        self.table.get_mut(digest, key)
    }

    pub fn get_or_insert(
        &mut self,
        digest: u64,
        key: &[u8],
        make: impl FnOnce(&mut Heap) -> Stored,
    ) -> (EntryMut<'_>, bool) {
        self.put_aside(digest);
        self.table.get_or_insert(digest, key, make)
    }

    pub fn remove<T>(
        &mut self,
        digest: u64,
        key: &[u8],
        free: impl FnOnce(Stored, &mut Heap) -> T,
    ) -> Option<T> {
        self.put_aside(digest);
        self.table.remove(digest, key, free)
    }

    /// Moves entries and changes none ([`Table::empty_blocks`]).
    pub fn empty_blocks(&mut self) -> Option<usize> {
        self.table.empty_blocks()
    }

    /// The table of a database that is being loaded.
    pub fn into_table(self) -> Table<Stored> {
        self.table
    }

    #[inline(always)]
    fn put_aside(&mut self, digest: u64) {
        if let Some(aside) = &mut self.aside {
            aside.keep(&self.table, digest);
        }
    }

    /// Begins a snapshot of the keys of this database.
    pub fn begin_snapshot(&mut self, db: usize) {
        let (point, changed, copies) = (Some(0), BTreeSet::new(), Copies::default());
        self.aside = Some(Box::new(Aside { db, point, changed, copies, slots: 1 }));
    }

    /// Ends it. What is returned may take long to free.
    pub fn end_snapshot(&mut self) -> Option<Box<Aside>> {
        self.aside.take()
    }

    pub fn are_in_snapshot(&self) -> bool {
        self.aside.is_some()
    }

    /// The next entries of the snapshot. None if no snapshot is made of them, or of another database. It copies little, or what
    /// can be copied in `most`.
    pub fn next_of_snapshot(&mut self, db: usize, most: Duration) -> Option<Step> {
        let aside = self.aside.as_mut().filter(|aside| aside.db == db)?;
        Some(aside.next(&self.table, most))
    }
}

impl Deref for Keys {
    type Target = Table<Stored>;

    fn deref(&self) -> &Table<Stored> {
        &self.table
    }
}

impl Aside {
    /// Keys with this digest may change now.
    #[cold]
    #[inline(never)]
    fn keep(&mut self, table: &Table<Stored>, digest: u64) {
        let is_to_come = self.point.is_some_and(|point| !table.has_passed(point, digest));
        if is_to_come && self.changed.insert(digest) {
            table.with_digest(digest).for_each(|entry| self.copies.add(entry));
        }
    }

    fn next(&mut self, table: &Table<Stored>, most: Duration) -> Step {
        let began = Instant::now();
        let mut copies = mem::take(&mut self.copies);
        let put_aside = copies.bytes();
        for step in 0.. {
            let is_little = step < STEPS_AT_ONCE && copies.bytes() - put_aside < BYTES_AT_ONCE;
            let Some(point) = self.point.filter(|_| is_little || began.elapsed() < most) else {
                break;
            };
            let before = copies.bytes();
            self.point = table.walk(point, self.slots, |digest, entry: Entry| {
                if !self.changed.contains(&digest) {
                    copies.add(entry);
                }
            });
            self.slots = if copies.bytes() - before > BYTES_AT_ONCE / SLOTS { 1 } else { SLOTS };
        }
        Step { copies, put_aside, is_over: self.point.is_none() }
    }
}
