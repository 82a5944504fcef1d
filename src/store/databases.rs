//! Whole databases: FLUSHALL, FLUSHDB and SWAPDB. No event is told of their keys (notify.rs), but clients that
//! WATCH a key, or wait for one, must know.
//!
//! **How Redis does it**: db.c, `emptyDbStructure` and `dbSwapDatabases`; `touchAllWatchedKeysInDb` in multi.c.

use super::{Db, Keyspace, ViewMut};
use crate::watch::Now;
use std::ops::{Index, IndexMut};

/// All databases, by their numbers. There may be many of which few are used, so one takes memory, and is looked at by
/// whoever looks at all, from when it or one with a higher number is first changed.
pub(super) struct Databases {
    used: Vec<Db>,
    /// Those that were emptied, or given other data, while a snapshot is made of them (moment.rs).
    retired: Vec<Db>,
    /// In place of any other.
    empty: Db,
    /// How many there are.
    pub(super) count: usize,
}

impl Databases {
    pub(super) fn new(count: usize) -> Databases {
        Databases { used: Vec::new(), retired: Vec::new(), empty: Db::new(), count }
    }

    /// Those that may have keys.
    pub(super) fn iter(&self) -> impl Iterator<Item = &Db> {
        self.used.iter()
    }

    /// The same, to be changed.
    pub(super) fn iter_mut(&mut self) -> impl Iterator<Item = &mut Db> {
        self.used.iter_mut()
    }

    /// From now on this one and those below it are used.
    #[inline(never)]
    fn begin_to_use(&mut self, db: usize) {
        let used = self.used.len().max(db + 1);
        self.used.resize_with(used, Db::new);
    }

    /// The same, and those that a snapshot needs.
    pub(super) fn with_retired(&mut self) -> impl Iterator<Item = &mut Db> {
        self.used.iter_mut().chain(&mut self.retired)
    }

    /// Keeps one that nobody else can reach any more.
    pub(super) fn retire(&mut self, db: Db) {
        self.retired.push(db);
    }

    /// The snapshot needs none any more. What is returned may take long to free.
    pub(super) fn end_retirement(&mut self) -> Vec<Db> {
        std::mem::take(&mut self.retired)
    }

    /// Takes these in the place of those that are used, and returns the latter.
    pub(super) fn exchange(&mut self, others: Databases) -> Vec<Db> {
        self.count = others.count;
        std::mem::replace(&mut self.used, others.used)
    }

    /// Leaves an empty one in its place.
    fn take(&mut self, db: usize) -> Db {
        self.used.get_mut(db).map_or_else(Db::new, |db| std::mem::replace(db, Db::new()))
    }

    fn swap(&mut self, a: usize, b: usize) {
        if a.min(b) < self.used.len() {
            self.begin_to_use(a.max(b));
            self.used.swap(a, b);
        }
    }
}

impl Index<usize> for Databases {
    type Output = Db;

    fn index(&self, db: usize) -> &Db {
        self.used.get(db).unwrap_or(&self.empty)
    }
}

impl IndexMut<usize> for Databases {
    fn index_mut(&mut self, db: usize) -> &mut Db {
        if db >= self.used.len() {
            self.begin_to_use(db);
        }
        &mut self.used[db]
    }
}

impl ViewMut<'_> {
    /// Says that the command is to be logged though it may have changed no key, as Redis does with FLUSHALL
    /// and SWAPDB.
    pub fn log_anyway(&mut self) {
        self.dirty += 1;
    }

    /// Empties one database.
    pub fn flush(&mut self, db: usize) {
        let old = self.keyspace.dbs.take(db);
        let watchers = self.keyspace.watchers.get_mut().unwrap();
        for key in watchers.keys_of(db) {
            if old.find(&key).is_some() {
                watchers.touch(db, &key, Now::Gone);
            }
        }
        self.dirty += old.keys.len() as u64;
        self.keyspace.retire(old);
    }

    /// Exchanges two databases. Their watched keys change where either has them.
    pub fn swap(&mut self, a: usize, b: usize) {
        self.keyspace.dbs.swap(a, b);
        self.dirty += 1;
        let time = self.time;
        let Keyspace { dbs, watchers, .. } = &mut *self.keyspace;
        let watchers = watchers.get_mut().unwrap();
        for (db, other) in [(a, b), (b, a)] {
            for key in watchers.keys_of(db) {
                let existed = dbs[other].find(&key).is_some();
                let now = match dbs[db].find(&key) {
                    None => Now::Gone,
                    Some(entry) if time.has_expired(entry) => Now::Expired,
                    Some(_) => Now::Alive,
                };
                if existed || now != Now::Gone {
                    watchers.touch_swapped(db, &key, existed, now);
                }
            }
        }
        self.mark_all_ready([a, b]);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::key::Key;
    use crate::propagate::{Records, Source};
    use crate::resp::Arg;
    use crate::store::{Report, Time, Ttl};
    use crate::types::Limits;

    #[test]
    fn a_database_that_nobody_has_changed_is_empty_and_is_not_looked_at() {
        let mut keyspace = Keyspace::new(10_000);
        let limits = Limits { string: 1, ..Limits::NOTHING };
        let time = Time { now: 0, source: Source::Client };
        let (mut records, report) = (Records::default(), Report::default());
        let mut view = ViewMut::new(&mut keyspace, 3, time, &limits, &mut records, &report);
        view.set_string(Key::of(b"k"), Arg::Small(b"v"), Ttl::Until(8));
        assert_eq!(view.look().in_db(9_999).len(), 0);
        view.flush(7_000);
        view.swap(7_001, 7_002);
        view.swap(3, 5);
        let lengths = [3, 5].map(|db| view.look().in_db(db).len());
        assert_eq!((lengths, keyspace.dbs.used.len()), ([0, 1], 6));
        assert_eq!((keyspace.memory().keys, keyspace.databases()), (1, 10_000));
        assert_eq!([8, 9].map(|now| keyspace.with_expired(now)), [vec![], vec![5]]);
    }
}
