//! Data that comes whole, key by key from a snapshot or all of it: no command has made it, so nothing is told or logged.

use super::Keyspace;
use crate::key::Key;
use crate::types::Loose;

impl Keyspace {
    /// Takes the data of another, which the log or a snapshot has filled. Any key may have changed, so all watches
    /// fail.
    pub fn take_over(&mut self, loaded: Keyspace) {
        let origin = loaded.origin().cloned();
        self.garbage.push(Box::new(std::mem::replace(&mut self.dbs, loaded.dbs)));
        self.changes += loaded.changes;
        self.origin = origin.map(|origin| (origin, self.changes));
        self.watchers.get_mut().unwrap().touch_all();
    }

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
