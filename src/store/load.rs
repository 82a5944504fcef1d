//! Data that comes whole, key by key from a snapshot or all of it: no command has made it, so nothing is told or logged.
//!
//! Whoever fills a keyspace has it only when all of it has come ([`Loading::end`]): so nothing is ever half loaded.

use super::Keyspace;
use super::keys::Keys;
use crate::key::Key;
use crate::types::table::Table;
use crate::types::{Bulk, Form, Stored, Twice, Usage};

impl Keyspace {
    /// How many keys a database has, and how many of them have a deadline.
    pub fn size(&self, db: usize) -> (usize, usize) {
        (self.dbs[db].keys.len(), self.dbs[db].deadlines.len())
    }

    /// Takes the data of another, which the log or a snapshot has filled. Any key may have changed, so all watches
    /// fail.
    pub fn take_over(&mut self, loaded: Keyspace) {
        let origin = loaded.origin().cloned();
        // At a start the old data is empty, and nobody has to free it.
        let old = self.dbs.exchange(loaded.dbs).into_iter().filter(|db| db.keys.len() > 0);
        old.for_each(|db| self.retire(db));
        self.changes += loaded.changes;
        self.origin = origin.map(|origin| (origin, self.changes));
        self.watchers.get_mut().unwrap().touch_all();
    }
}

/// A keyspace that is being filled.
pub struct Loading {
    keyspace: Keyspace,
    /// The database whose keys come, and its table.
    pub db: usize,
    keys: Bulk<Stored>,
}

impl Loading {
    pub fn new(databases: usize) -> Loading {
        Loading { keyspace: Keyspace::new(databases), db: 0, keys: Bulk::of(Table::new()) }
    }

    /// The keys that come now are those of this database.
    pub fn select(&mut self, db: usize) -> Result<(), Twice> {
        self.put_back()?;
        self.db = db;
        // It may come a second time.
        if self.keyspace.dbs[db].keys.len() > 0 {
            let keys = &mut self.keyspace.dbs[db].keys;
            self.keys = Bulk::of(std::mem::replace(keys, Keys::of(Table::new())).into_table());
        }
        Ok(())
    }

    /// So many keys the database will have, it is said.
    pub fn expect(&mut self, count: u64) {
        self.keys.expect(count);
    }

    /// Adds a key. If it is there already, this call or a later one says so, and gives the note.
    pub fn add(
        &mut self,
        key: Key,
        deadline: Option<u64>,
        value: Form,
        usage: Usage,
        note: u64,
    ) -> Result<(), Twice> {
        if let Some(deadline) = deadline {
            self.keyspace.dbs[self.db].deadlines.insert((deadline, key.digest));
        }
        let make = |heap: &mut _| Stored::new(&key, deadline, value, usage, heap);
        self.keys.add(key.digest, note, make)
    }

    /// The keyspace with all that has come.
    pub fn end(mut self) -> Result<Keyspace, Twice> {
        self.put_back()?;
        Ok(self.keyspace)
    }

    fn put_back(&mut self) -> Result<(), Twice> {
        let keys = std::mem::replace(&mut self.keys, Bulk::of(Table::new())).end()?;
        if keys.len() > 0 {
            self.keyspace.dbs[self.db].keys = Keys::of(keys);
        }
        Ok(())
    }
}
