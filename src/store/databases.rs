//! Whole databases: FLUSHALL, FLUSHDB and SWAPDB. No event is told of their keys (notify.rs), but clients that
//! WATCH a key, or wait for one, must know.
//!
//! **How Redis does it**: db.c, `emptyDbStructure` and `dbSwapDatabases`; `touchAllWatchedKeysInDb` in multi.c.

use super::{Db, Keyspace, ViewMut};
use crate::watch::Now;

impl ViewMut<'_> {
    /// Says that the command is to be logged though it may have changed no key, as Redis does with FLUSHALL
    /// and SWAPDB.
    pub fn log_anyway(&mut self) {
        self.dirty += 1;
    }

    /// Empties one database.
    pub fn flush(&mut self, db: usize) {
        let old = std::mem::replace(&mut self.keyspace.dbs[db], Db::new());
        let watchers = self.keyspace.watchers.get_mut().unwrap();
        for key in watchers.keys_of(db) {
            if old.find(&key).is_some() {
                watchers.touch(db, &key, Now::Gone);
            }
        }
        self.dirty += old.keys.len() as u64;
        self.keyspace.garbage.push(Box::new(old));
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
