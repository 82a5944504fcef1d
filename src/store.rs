//! The keyspace: databases of keys, and every rule about keys in one place.
//!
//! Nobody reaches a key but through a *view*, and the view is the lock:
//!
//! ```text
//! RwLock<Keyspace> ── read()  ──▶ View      many at once; looks, cannot change
//!                  └─ write() ──▶ ViewMut   one alone; changes, and says so
//! ```
//!
//! A handler that is given a `&View` cannot write, and the compiler is the one who says so.
//!
//! The rules:
//! 1. **A key holds one type.** `string` and `hash` answer WRONGTYPE for the other.
//! 2. **A dead key is gone.** No view returns a key whose deadline has passed. A `ViewMut` deletes
//!    it on the way and leaves a DEL for the log. A `View` cannot, so it makes a [`Notes`] entry,
//!    and the batch deletes what is noted before its replies leave.
//! 3. **A hash is never empty.** The key goes with its last field (handler/hash.rs sees to that).
//! 4. **A change is counted** ([`ViewMut::changed`]): the count decides whether the command is
//!    logged, and those who WATCH the key are told.
//! 5. **Deadlines have an index**, ordered by time, so that the sweep (expire.rs) finds the dead
//!    without walking the living. It holds the key's hash and not the key: a hint, whose entry is
//!    asked again for its deadline.
//! 6. **Time stands still**: one [`Time`] for a command, for all commands of an EXEC, and none at
//!    all while the log replays, for then what was alive when it was written must be alive again.
//!
//! Large values and whole databases are not freed here, under the lock, but collected as
//! [`Keyspace::garbage`], for a thread that has time.
//!
//! **How Redis does it**: db.c. There a second table maps keys to deadlines; here the deadline is
//! in the entry, and the index, whose order makes each EXPIRE a little dearer, is for the sweep.

mod ahead;
mod notes;

use crate::entry::{Entry, Str};
use crate::error::Error;
use crate::hash::{self, Hash};
use crate::propagate::Records;
use crate::resp::Args;
use crate::table::{self, Keyed, KnownHash, Table};
use crate::watch::{Flag, Now, Watchers};
use std::collections::BTreeSet;
use std::sync::Mutex;

pub use notes::{Expired, Notes};

/// All databases. It lives in an `Arc<RwLock<Keyspace>>`. While the server serves, batches lock
/// it, and a rewrite that writes its base from memory (aof/rewrite.rs); no handler can.
pub struct Keyspace {
    dbs: Vec<Db>,
    /// Shared by readers, hence the mutex; a leaf of the lock order.
    pub watchers: Mutex<Watchers>,
    /// What is to be freed after the lock is released.
    pub garbage: Vec<Garbage>,
}

/// Something that may take long to free.
pub type Garbage = Box<dyn Send + Sync>;

struct Db {
    keys: Table<Entry>,
    /// Deadline (Unix time in milliseconds) and hash of every key that has one.
    deadlines: BTreeSet<(u64, u64)>,
}

/// The time of a command.
#[derive(Clone, Copy)]
pub struct Time {
    /// Unix time in milliseconds.
    pub now: u64,
    /// Whether time kills keys; not while the log replays.
    pub kills: bool,
}

impl Time {
    /// Whether a key with this deadline is dead: it lives through its last millisecond.
    fn is_past(self, deadline: u64) -> bool {
        self.kills && self.now > deadline
    }

    /// Whether the key is there but dead.
    fn is_over(self, entry: &Entry) -> bool {
        entry.deadline().is_some_and(|at| self.is_past(at))
    }

    /// Whether a deadline that is being set has come already.
    pub fn has_come(self, deadline: i64) -> bool {
        self.kills && deadline <= self.now as i64
    }
}

/// What the configuration says about values.
#[derive(Clone, Copy)]
pub struct Limits {
    pub hash: hash::Limits,
    /// Longest string, in bytes (`proto-max-bulk-len`).
    pub string: usize,
}

impl Db {
    fn new() -> Db {
        Db {
            keys: Table::new(),
            deadlines: BTreeSet::new(),
        }
    }

    fn find(&self, key: &[u8]) -> Option<&Entry> {
        self.keys.get(table::hash_of(key), key)
    }

    fn remove(&mut self, hash: u64, key: &[u8]) -> Option<Entry> {
        let entry = self.keys.remove(hash, key)?;
        if let Some(deadline) = entry.deadline() {
            self.deadlines.remove(&(deadline, hash));
        }
        Some(entry)
    }
}

impl Keyspace {
    pub fn new(databases: usize) -> Keyspace {
        Keyspace {
            dbs: (0..databases).map(|_| Db::new()).collect(),
            watchers: Mutex::default(),
            garbage: Vec::new(),
        }
    }

    /// Takes the data of another, which the log has filled. Any key may be new, so WATCH has failed.
    pub fn take_over(&mut self, loaded: Keyspace) {
        self.dbs = loaded.dbs;
        self.watchers.get_mut().unwrap().touch_all();
    }

    pub fn databases(&self) -> usize {
        self.dbs.len()
    }

    /// Every key of a database, dead ones included: for dumps, which keep what time has not yet
    /// deleted.
    pub fn entries(&self, db: usize) -> impl Iterator<Item = &Entry> {
        self.dbs[db].keys.iter()
    }

    /// Up to `most` keys of database `db` that are dead.
    pub fn dead(&self, db: usize, time: Time, most: usize) -> Vec<Vec<u8>> {
        let db = &self.dbs[db];
        let past = db
            .deadlines
            .iter()
            .take_while(|(deadline, _)| time.is_past(*deadline));
        let hinted = past
            .take(most)
            .flat_map(|(_, hash)| db.keys.with_hash(*hash));
        let dead = hinted.filter(|entry| time.is_over(entry));
        dead.map(|entry| entry.key().to_vec()).collect()
    }
}

/// The keyspace under the shared lock, as one client sees it at one time.
pub struct View<'a> {
    keyspace: &'a Keyspace,
    known: &'a KnownHash,
    pub db: usize,
    pub time: Time,
    notes: &'a Notes,
}

impl<'a> View<'a> {
    pub fn new(
        keyspace: &'a Keyspace,
        known: &'a KnownHash,
        db: usize,
        time: Time,
        notes: &'a Notes,
    ) -> View<'a> {
        View {
            keyspace,
            known,
            db,
            time,
            notes,
        }
    }

    /// The key's entry if it is alive, counted as a hit or a miss.
    pub fn get(&self, key: &[u8]) -> Option<&'a Entry> {
        let found = self.peek(key);
        self.notes.count(found.is_some());
        found
    }

    /// The same without being counted.
    pub fn peek(&self, key: &[u8]) -> Option<&'a Entry> {
        let found = self.db().keys.get(self.known.hash(key), key);
        found.filter(|entry| self.is_alive(entry))
    }

    /// The key's string; WRONGTYPE if it is a hash.
    pub fn string(&self, key: &[u8]) -> Result<Option<Str<'a>>, Error> {
        let string = |entry: &'a Entry| entry.string().ok_or(Error::WrongType);
        self.get(key).map(string).transpose()
    }

    /// The key's hash; WRONGTYPE if it is a string.
    pub fn hash(&self, key: &[u8]) -> Result<Option<Hash<'a>>, Error> {
        let hash = |entry: &'a Entry| entry.hash().ok_or(Error::WrongType);
        self.get(key).map(hash).transpose()
    }

    /// How many keys the database has, the dead that nobody has met yet included, as in Redis.
    /// What this batch has met is as good as deleted.
    pub fn len(&self) -> usize {
        let noted = self.notes.expired.borrow();
        let noted = noted.iter().filter(|expired| expired.db == self.db);
        self.db().keys.len() - noted.count()
    }

    pub fn databases(&self) -> usize {
        self.keyspace.databases()
    }

    /// The same keyspace seen from another database.
    pub fn in_db(&self, db: usize) -> View<'a> {
        View { db, ..*self }
    }

    /// How many keys have a deadline, and how long the next of them live on average, in
    /// milliseconds. A sample of the first hundred: an average over all would walk all.
    pub fn deadlines(&self) -> (usize, u64) {
        let deadlines = &self.db().deadlines;
        let sample = deadlines.iter().take(100);
        let (sum, count) = sample.fold((0, 0), |(sum, count), (deadline, _)| {
            (
                sum + u128::from(deadline.saturating_sub(self.time.now)),
                count + 1,
            )
        });
        (deadlines.len(), (sum / count.max(1)) as u64)
    }

    /// All keys that are alive. The dead are passed over without a note, as KEYS does in Redis.
    pub fn living(&self) -> impl Iterator<Item = &'a Entry> {
        let entries = self.db().keys.iter();
        entries.filter(|entry| !self.time.is_over(entry))
    }

    /// Visits the living of one slot whose key is wanted, and returns the cursor of the next (see
    /// table.rs). Each dead one is a unit of its own.
    pub fn scan(
        &self,
        cursor: u64,
        wanted: impl Fn(&[u8]) -> bool,
        mut visit: impl FnMut(&'a Entry),
    ) -> u64 {
        self.db().keys.scan(cursor, |entry| {
            if wanted(entry.key()) && self.is_alive_alone(entry) {
                visit(entry);
            }
        })
    }

    /// Any key that is alive, each with the same chance unless hardly any is. The dead that are
    /// drawn before it are noted.
    pub fn random_key(&self) -> Option<&'a [u8]> {
        let keys = &self.db().keys;
        for _ in 0..100 {
            let entry = keys.random()?;
            if self.is_alive_alone(entry) {
                return Some(entry.key());
            }
        }
        // Hardly any is alive, so the first that is will do.
        self.living().next().map(Entry::key)
    }

    /// Begins to watch a key of the view's database for the client with this flag.
    pub fn watch(&self, key: &[u8], flag: &Flag) {
        let expired = self.has_expired(key);
        let mut watchers = self.keyspace.watchers.lock().unwrap();
        watchers.watch(self.db, key, flag, expired);
    }

    /// Ends what [`View::watch`] began, in the same database.
    pub fn unwatch(&self, key: &[u8], flag: &Flag) {
        let mut watchers = self.keyspace.watchers.lock().unwrap();
        watchers.unwatch(self.db, key, flag);
    }

    /// Whether a watched key has died since the client with this flag began to watch it.
    pub fn has_expired_watched(&self, key: &[u8], flag: &Flag) -> bool {
        let watchers = self.keyspace.watchers.lock().unwrap();
        self.has_expired(key) && !watchers.was_dead(self.db, key, flag)
    }

    /// Whether a key is there but dead.
    fn has_expired(&self, key: &[u8]) -> bool {
        let found = self.db().find(key);
        found.is_some_and(|entry| self.time.is_over(entry))
    }

    /// Notes the key if it is dead.
    fn is_alive(&self, entry: &Entry) -> bool {
        let dead = self.time.is_over(entry);
        if dead {
            self.notes.note(self.db, entry.key());
        }
        !dead
    }

    /// The same where a dead key is a unit of its own: its DEL depends on no other.
    fn is_alive_alone(&self, entry: &Entry) -> bool {
        self.notes.unit.set(self.notes.unit.get() + 1);
        self.is_alive(entry)
    }

    fn db(&self) -> &'a Db {
        &self.keyspace.dbs[self.db]
    }
}

/// The keyspace under the exclusive lock, for one command.
pub struct ViewMut<'a> {
    keyspace: &'a mut Keyspace,
    known: &'a KnownHash,
    pub db: usize,
    pub time: Time,
    pub limits: Limits,
    records: &'a mut Records,
    pub notes: &'a Notes,
    /// How much the command has changed. If it stays 0, nothing is logged.
    pub dirty: u64,
    /// Whether the command has said itself what is to be logged.
    pub propagated: bool,
}

impl<'a> ViewMut<'a> {
    pub fn new(
        keyspace: &'a mut Keyspace,
        known: &'a KnownHash,
        db: usize,
        time: Time,
        limits: Limits,
        records: &'a mut Records,
        notes: &'a Notes,
    ) -> ViewMut<'a> {
        ViewMut {
            keyspace,
            known,
            db,
            time,
            limits,
            records,
            notes,
            dirty: 0,
            propagated: false,
        }
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

    /// Logs the command itself. A handler that moves a word out of it says so before; for the others
    /// it is done at the end, if they have changed something.
    pub fn propagate_command(&mut self, args: &Args) {
        self.records.push_command(self.db, args);
        self.propagated = true;
    }

    /// The key's entry if it is alive; a dead one is deleted and its DEL logged.
    pub fn get(&mut self, key: &[u8]) -> Option<&mut Entry> {
        let hash = self.known.hash(key);
        self.find(hash, key)
    }

    /// The key's entry if it is a string; WRONGTYPE if it is a hash.
    pub fn string(&mut self, key: &[u8]) -> Result<Option<&mut Entry>, Error> {
        match self.get(key) {
            Some(entry) if entry.string().is_none() => Err(Error::WrongType),
            found => Ok(found),
        }
    }

    /// The key's entry if it is a hash; WRONGTYPE if it is a string.
    pub fn hash(&mut self, key: &[u8]) -> Result<Option<&mut Entry>, Error> {
        match self.get(key) {
            Some(entry) if entry.hash().is_none() => Err(Error::WrongType),
            found => Ok(found),
        }
    }

    /// Gives `key` a string, whatever it was before. `owned` is the value's allocation if it has
    /// one; it is taken, perhaps in exchange (see [`Entry::set_large_string`]). The deadline goes
    /// unless `keep_ttl`.
    pub fn set_string(
        &mut self,
        key: &[u8],
        value: &[u8],
        owned: Option<&mut Vec<u8>>,
        keep_ttl: bool,
    ) {
        let hash = self.known.hash(key);
        match self.find(hash, key) {
            Some(entry) => {
                let old = match owned {
                    Some(owned) => entry.set_large_string(owned),
                    None => entry.set_string(value),
                };
                let has_deadline = entry.deadline().is_some();
                if let Some(old) = old {
                    self.keyspace.garbage.push(Box::new(old));
                }
                if has_deadline && !keep_ttl {
                    self.set_deadline(key, None);
                }
            }
            None => {
                let entry = match owned {
                    Some(owned) => Entry::new_large_string(key, std::mem::take(owned)),
                    None => Entry::new_string(key, value),
                };
                self.db_mut().keys.insert(hash, entry);
            }
        }
        self.changed(key);
    }

    /// Gives `key` this entry, which must carry that key, in place of the one that it may have had.
    pub fn insert(&mut self, key: &[u8], entry: Entry) {
        let hash = self.known.hash(key);
        let db = self.db_mut();
        let old = db.remove(hash, key);
        if let Some(deadline) = entry.deadline() {
            db.deadlines.insert((deadline, hash));
        }
        db.keys.insert(hash, entry);
        if let Some(old) = old {
            self.discard(old);
        }
        self.changed(key);
    }

    /// Takes the key out of the database, if it is alive.
    pub fn remove(&mut self, key: &[u8]) -> Option<Entry> {
        let hash = self.known.hash(key);
        self.find(hash, key)?;
        let entry = self.db_mut().remove(hash, key);
        self.changed(key);
        entry
    }

    /// Deletes the key; returns whether it was there and alive.
    pub fn delete(&mut self, key: &[u8]) -> bool {
        let removed = self.remove(key);
        removed.map(|entry| self.discard(entry)).is_some()
    }

    /// Deletes the key if it is dead, and logs its DEL; returns whether it was. It does not count as a
    /// change by the command.
    pub fn delete_if_dead(&mut self, key: &[u8]) -> bool {
        // Most databases have no deadlines, and then nothing need be looked for.
        if self.db().deadlines.is_empty() {
            return false;
        }
        let hash = self.known.hash(key);
        self.db().keys.get(hash, key).is_some() && self.find(hash, key).is_none()
    }

    /// Sets or takes away the deadline of a key that is there.
    pub fn set_deadline(&mut self, key: &[u8], deadline: Option<u64>) {
        let hash = self.known.hash(key);
        let db = self.db_mut();
        let Some(entry) = db.keys.get_mut(hash, key) else {
            return;
        };
        let old = entry.deadline();
        entry.set_deadline(deadline);
        if let Some(old) = old {
            db.deadlines.remove(&(old, hash));
        }
        if let Some(deadline) = deadline {
            db.deadlines.insert((deadline, hash));
        }
    }

    /// Says that the command has changed the key: it will be logged, and watchers know.
    pub fn changed(&mut self, key: &[u8]) {
        self.dirty += 1;
        let Keyspace { dbs, watchers, .. } = &mut *self.keyspace;
        let watchers = watchers.get_mut().unwrap();
        if !watchers.is_empty() {
            let exists = dbs[self.db].find(key).is_some();
            let now = if exists { Now::Alive } else { Now::Gone };
            watchers.touch(self.db, key, true, now);
        }
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
                    Some(entry) if time.is_over(entry) => Now::Dead,
                    Some(_) => Now::Alive,
                };
                if existed || now != Now::Gone {
                    watchers.touch(db, &key, existed, now);
                }
            }
        }
    }

    pub fn databases(&self) -> usize {
        self.keyspace.databases()
    }

    /// Runs `work` in another database of the same keyspace, as the same command.
    pub fn in_db<T>(&mut self, db: usize, work: impl FnOnce(&mut Self) -> T) -> T {
        let home = std::mem::replace(&mut self.db, db);
        let result = work(self);
        self.db = home;
        result
    }

    /// Frees an entry, later if that may take long.
    pub fn discard(&mut self, entry: Entry) {
        if entry.is_large() {
            self.free_later(Box::new(entry));
        }
    }

    /// Frees what may take long to be freed, when the lock has been released.
    pub fn free_later(&mut self, garbage: Garbage) {
        self.keyspace.garbage.push(garbage);
    }

    /// Rule 2: the entry if it is alive; if it is dead, it goes, and its DEL into the log.
    fn find(&mut self, hash: u64, key: &[u8]) -> Option<&mut Entry> {
        // Most databases have no deadlines, and need not look twice.
        let is_dead =
            !self.db().deadlines.is_empty() && self.time.is_over(self.db().keys.get(hash, key)?);
        if is_dead {
            if let Some(entry) = self.db_mut().remove(hash, key) {
                self.discard(entry);
            }
            self.records.push(self.db, [&b"DEL"[..], key].into_iter());
            let watchers = self.keyspace.watchers.get_mut().unwrap();
            watchers.touch(self.db, key, true, Now::Gone);
            self.notes.deleted.set(self.notes.deleted.get() + 1);
            return None;
        }
        self.db_mut().keys.get_mut(hash, key)
    }

    fn db(&self) -> &Db {
        &self.keyspace.dbs[self.db]
    }

    fn db_mut(&mut self) -> &mut Db {
        &mut self.keyspace.dbs[self.db]
    }
}
