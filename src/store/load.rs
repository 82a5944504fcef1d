//! Data that comes whole, key by key from a snapshot or all of it: no command has made it, so nothing is told or logged.

use super::{Garbage, Keyspace};
use crate::key::Key;
use crate::types::{Loose, Usage};

impl Keyspace {
    /// How many keys a database has, and how many of them have a deadline.
    pub fn size(&self, db: usize) -> (usize, usize) {
        (self.dbs[db].keys.len(), self.dbs[db].deadlines.len())
    }

    /// Takes the data of another, which the log or a snapshot has filled. Any key may have changed, so all watches
    /// fail.
    pub fn take_over(&mut self, loaded: Keyspace) {
        let origin = loaded.origin().cloned();
        let old = std::mem::replace(&mut self.dbs, loaded.dbs);
        // At a start the old data is empty, and nobody has to free it.
        if old.iter().any(|db| db.keys.len() > 0) {
            self.free_later(Garbage::new(0, old));
        }
        self.changes += loaded.changes;
        self.origin = origin.map(|origin| (origin, self.changes));
        self.watchers.get_mut().unwrap().touch_all();
    }

    /// Adds a key; returns whether it is new.
    pub fn add(
        &mut self,
        db: usize,
        key: Key,
        mut entry: Loose,
        deadline: Option<u64>,
        usage: Usage,
    ) -> bool {
        let db = &mut self.dbs[db];
        if let Some(deadline) = deadline {
            entry.edit().set_deadline(Some(deadline));
            db.deadlines.insert((deadline, key.digest));
        }
        db.keys.get_or_insert(key.digest, &key, |heap| entry.fasten(usage, heap)).1
    }
}
