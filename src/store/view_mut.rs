//! The keyspace under the exclusive lock: what a handler that writes is given.
//!
//! What it does here is counted and logged here. A handler owes four things, and nobody can do them
//! for it:
//!
//! 1. It looks at its keys ([`ViewMut::get`], [`ViewMut::edit`], [`ViewMut::delete_if_expired`]) before it
//!    propagates, so that the DEL of a dead key comes first.
//! 2. After it has changed a deadline it says so ([`ViewMut::changed`]).
//! 3. If running the command twice could give two outcomes, it says what is to be logged
//!    ([`ViewMut::propagate`]).
//! 4. If it answers with what was there, as GETDEL does, it counts a hit or a miss ([`Notes::count`]).
//!
//! ```text
//! APPEND k x      edit(k, append)                                        logged as it was sent
//! GETDEL k        get(k) ──▶ delete(k) ──▶ propagate(DEL k)              logged as DEL
//! SET k v EX 9    set_string(k) ──▶ propagate(SET … PXAT …)
//! ```
//!
//! **How Redis does it**: `setKey`, `dbDelete`, `signalModifiedKey` and `server.dirty++`, of which each
//! command must remember all.

use super::{Db, Garbage, Keyspace, Limits, Notes, Time, View};
use crate::error::Error;
use crate::key::Key;
use crate::propagate::Records;
use crate::resp::{Arg, Args};
use crate::types::{Change, Edit, Entry, EntryMut, Large, Loose, NewStr, Stored, Type};
use crate::watch::Now;

/// The keyspace under the exclusive lock, for one command.
pub struct ViewMut<'a> {
    keyspace: &'a mut Keyspace,
    pub db: usize,
    pub time: Time,
    pub limits: Limits,
    records: &'a mut Records,
    pub notes: &'a Notes,
    /// How much the command has changed. If it stays 0, nothing is logged.
    dirty: u64,
    /// Whether the command has said itself what is to be logged.
    propagated: bool,
}

impl<'a> ViewMut<'a> {
    pub fn new(
        keyspace: &'a mut Keyspace,
        db: usize,
        time: Time,
        limits: Limits,
        records: &'a mut Records,
        notes: &'a Notes,
    ) -> ViewMut<'a> {
        ViewMut { keyspace, db, time, limits, records, notes, dirty: 0, propagated: false }
    }

    /// Ends the command, of which these are the words: logs it if it has changed something and has not
    /// said what else is to be logged. Returns how much it has changed.
    pub fn end(self, args: &Args) -> u64 {
        if self.dirty > 0 && !self.propagated {
            self.records.push_command(self.db, args);
        }
        self.keyspace.changes += self.dirty;
        self.dirty
    }

    /// Logs this command in place of the one that was sent.
    pub fn propagate<const N: usize>(&mut self, words: [&[u8]; N]) {
        self.propagate_words(words.into_iter());
    }

    /// Logs these words in place of the ones that were sent.
    pub fn propagate_words<'w>(&mut self, words: impl ExactSizeIterator<Item = &'w [u8]>) {
        self.records.push(self.db, words);
        self.propagated = true;
    }

    /// The keyspace as readers see it: to look at several keys at once.
    pub fn look(&self) -> View<'_> {
        let ViewMut { db, time, limits, notes, .. } = *self;
        View { keyspace: self.keyspace, db, time, limits, notes }
    }

    /// The key's entry if it is alive; a dead one is deleted and its DEL logged.
    pub fn entry(&mut self, key: Key) -> Option<Entry<'_>> {
        self.find(key).map(|EntryMut { entry, heap }| Entry { entry, heap })
    }

    /// The key's value. WRONGTYPE if it has another type than this.
    pub fn get<T: Type>(&mut self, key: Key) -> Result<Option<T::Look<'_>>, Error> {
        match self.entry(key) {
            Some(entry) => entry.read::<T>().map(Some).ok_or(Error::WrongType),
            None => Ok(None),
        }
    }

    /// Changes the key's value, or makes one if the key is missing. WRONGTYPE if it has another type than
    /// this.
    ///
    /// If `change` changes something, the command is logged, and those who WATCH the key know. If it
    /// leaves nothing of a collection, the key goes. If it fails, a missing key stays missing; in a value that
    /// is there, whatever can fail must come first.
    pub fn edit<T: Type, R>(
        &mut self,
        key: Key,
        change: impl FnOnce(&mut Edit<T>) -> Result<R, Error>,
    ) -> Result<R, Error> {
        let limits = self.limits;
        let Some(mut entry) = self.find(key) else {
            return self.edit_new(key, change);
        };
        let edited = entry.edit(&limits, false, change);
        self.end_edit(key, edited)
    }

    /// The same, but a key that is missing stays missing, and is nothing to be changed.
    pub fn edit_if_there<T: Type, R>(
        &mut self,
        key: Key,
        change: impl FnOnce(&mut Edit<T>) -> Result<R, Error>,
    ) -> Result<Option<R>, Error> {
        let limits = self.limits;
        let Some(mut entry) = self.find(key) else {
            return Ok(None);
        };
        let edited = entry.edit(&limits, false, change);
        self.end_edit(key, edited).map(Some)
    }

    fn edit_new<T: Type, R>(
        &mut self,
        key: Key,
        change: impl FnOnce(&mut Edit<T>) -> Result<R, Error>,
    ) -> Result<R, Error> {
        let limits = self.limits;
        let keys = &mut self.db_mut().keys;
        let mut new = keys.insert(key.digest, |heap| Stored::empty::<T>(&key, heap));
        let (result, change) = new.edit(&limits, true, change);
        if result.is_ok() && change == Change::Changed {
            self.changed(key);
        } else {
            let large = keys.remove(key.digest, &key, Stored::free).flatten();
            self.discard(large);
        }
        result
    }

    fn end_edit<R>(
        &mut self,
        key: Key,
        (result, change): (Result<R, Error>, Change),
    ) -> Result<R, Error> {
        debug_assert!(result.is_ok() || change == Change::Unchanged, "what can fail comes first");
        match change {
            Change::Unchanged => {}
            Change::Changed => self.changed(key),
            Change::Emptied => {
                self.delete(key);
            }
        }
        result
    }

    /// Gives `key` a string, whatever it was before. The deadline goes unless `keep_ttl`.
    pub fn set_string(&mut self, key: Key, value: Arg, keep_ttl: bool) {
        let string = NewStr::new(&value);
        match self.find(key) {
            Some(mut entry) => {
                let old = entry.set(string.form());
                let has_deadline = entry.look().deadline().is_some();
                if let Some(old) = old {
                    self.keyspace.garbage.push(Box::new(old));
                }
                if has_deadline && !keep_ttl {
                    self.set_deadline(key, None);
                }
            }
            None => {
                let make = |heap: &mut _| Stored::new(&key, string.form(), heap);
                let _ = self.db_mut().keys.insert(key.digest, make);
            }
        }
        self.changed(key);
    }

    /// Gives `key` this entry, which must carry that key, in place of the one that it may have had.
    pub fn insert(&mut self, key: Key, entry: Loose) {
        let db = self.db_mut();
        let old = db.delete(key.digest, &key).flatten();
        if let Some(deadline) = entry.look().deadline() {
            db.deadlines.insert((deadline, key.digest));
        }
        db.keys.insert(key.digest, |heap| entry.fasten(heap));
        self.discard(old);
        self.changed(key);
    }

    /// Takes the key out of the database, if it is alive.
    pub fn remove(&mut self, key: Key) -> Option<Loose> {
        self.find(key)?;
        let entry = self.db_mut().remove(key.digest, &key);
        self.changed(key);
        entry
    }

    /// Deletes the key; returns whether it was there and alive.
    pub fn delete(&mut self, key: Key) -> bool {
        if self.find(key).is_none() {
            return false;
        }
        let large = self.db_mut().delete(key.digest, &key).flatten();
        self.discard(large);
        self.changed(key);
        true
    }

    /// Deletes the key if it is dead, and logs its DEL; returns whether it was. It does not count as a
    /// change by the command.
    pub fn delete_if_expired(&mut self, key: Key) -> bool {
        // Most databases have no deadlines, and then nothing need be looked for.
        if self.db().deadlines.is_empty() {
            return false;
        }
        self.db().keys.get(key.digest, &key).is_some() && self.find(key).is_none()
    }

    /// Sets or takes away the deadline of a key that is there.
    pub fn set_deadline(&mut self, key: Key, deadline: Option<u64>) {
        let db = self.db_mut();
        let Some(mut entry) = db.keys.get_mut(key.digest, &key) else {
            return;
        };
        let old = entry.look().deadline();
        entry.set_deadline(deadline);
        if let Some(old) = old {
            db.deadlines.remove(&(old, key.digest));
        }
        if let Some(deadline) = deadline {
            db.deadlines.insert((deadline, key.digest));
        }
    }

    /// Says that the command has changed the key: it will be logged, and watchers know.
    pub fn changed(&mut self, key: Key) {
        self.dirty += 1;
        let Keyspace { dbs, watchers, .. } = &mut *self.keyspace;
        let watchers = watchers.get_mut().unwrap();
        if !watchers.is_empty() {
            let exists = dbs[self.db].find(&key).is_some();
            let now = if exists { Now::Alive } else { Now::Gone };
            watchers.touch(self.db, &key, true, now);
        }
    }

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
                watchers.touch(db, &key, true, Now::Gone);
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
                    Some(entry) if time.is_over(entry) => Now::Expired,
                    Some(_) => Now::Alive,
                };
                if existed || now != Now::Gone {
                    watchers.touch(db, &key, existed, now);
                }
            }
        }
    }

    /// Runs `work` in another database of the same keyspace, as the same command.
    pub fn in_db<T>(&mut self, db: usize, work: impl FnOnce(&mut Self) -> T) -> T {
        let home = std::mem::replace(&mut self.db, db);
        let result = work(self);
        self.db = home;
        result
    }

    /// What may take long to be freed is freed when the lock has been released.
    fn discard(&mut self, large: Option<Box<Large>>) {
        if let Some(large) = large {
            self.free_later(large);
        }
    }

    /// Frees what may take long to be freed, when the lock has been released.
    pub fn free_later(&mut self, garbage: Garbage) {
        self.keyspace.garbage.push(garbage);
    }

    /// Rule 2: the entry if it is alive; if it is dead, it goes, and its DEL into the log.
    fn find(&mut self, key: Key) -> Option<EntryMut<'_>> {
        // Most databases have no deadlines, and need not look twice.
        let is_expired = !self.db().deadlines.is_empty()
            && self.time.is_over(self.db().keys.get(key.digest, &key)?);
        if is_expired {
            debug_assert!(
                !self.propagated,
                "the DEL of a dead key belongs before what its command logs"
            );
            let large = self.db_mut().delete(key.digest, &key).flatten();
            self.discard(large);
            self.records.push(self.db, [&b"DEL"[..], &key].into_iter());
            let watchers = self.keyspace.watchers.get_mut().unwrap();
            watchers.touch(self.db, &key, true, Now::Gone);
            self.notes.deleted.set(self.notes.deleted.get() + 1);
            return None;
        }
        self.db_mut().keys.get_mut(key.digest, &key)
    }

    fn db(&self) -> &Db {
        &self.keyspace.dbs[self.db]
    }

    fn db_mut(&mut self) -> &mut Db {
        &mut self.keyspace.dbs[self.db]
    }
}
