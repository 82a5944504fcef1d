//! What a snapshot needs: how many keys there are, and keys that come from one, whole: no command has made them, so nothing is told or logged.

use super::Keyspace;
use crate::key::Key;
use crate::types::{Loose, Usage};

impl Keyspace {
    /// How many keys a database has, and how many of them have a deadline.
    pub fn size(&self, db: usize) -> (usize, usize) {
        (self.dbs[db].keys.len(), self.dbs[db].deadlines.len())
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
