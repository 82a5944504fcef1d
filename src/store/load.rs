//! Keys that come from a snapshot, whole: no command has made them, so nothing is told or logged.

use super::Keyspace;
use crate::key::Key;
use crate::types::Loose;

impl Keyspace {
    /// Adds a key; returns whether it is new.
    pub fn add(&mut self, db: usize, key: Key, mut entry: Loose, deadline: Option<u64>) -> bool {
        let db = &mut self.dbs[db];
        if let Some(deadline) = deadline {
            entry.edit().set_deadline(Some(deadline));
            db.deadlines.insert((deadline, key.digest));
        }
        db.keys.get_or_insert(key.digest, &key, |heap| entry.fasten(heap)).1
    }
}
