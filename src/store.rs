//! The keyspace: databases of keys, and every rule about keys in one place.
//!
//! A handler reaches keys only through a *view*, which borrows from the lock:
//!
//! ```text
//! RwLock<Keyspace> ── read()  ──▶ View      many at once; looks, cannot change
//!  (in a Store)    └─ write() ──▶ ViewMut   one alone; changes, and says so
//! ```
//!
//! A handler that is given a `&View` cannot write: the compiler refuses it.
//!
//! The rules:
//! 1. **A key holds one type.** [`View::get`] and [`ViewMut::edit`] answer WRONGTYPE for another one.
//! 2. **An expired key is gone.** No view returns it, and whoever meets it has it deleted (store/expire.rs). A thread
//!    looks for the others, and deletes 64 at a time (src/expire.rs).
//! 3. **A collection is never empty.** The key goes with its last element ([`ViewMut::edit`]).
//! 4. **A change is counted**: the count decides whether the command is logged, and clients that WATCH the
//!    key are told.
//!
//! An [`Entry`] is a key with its value and deadline, in a table. `EntryMut` is the same, to be changed. A
//! [`Loose`] is an entry that is in no table. A [`Stored`] is what the table keeps for an entry, and a [`Large`]
//! the part of a long value that has memory of its own (types/entry.rs).
//!
//! Large values and whole databases are not freed under the lock. They are collected as
//! [`Garbage`], and another thread frees them.
//!
//! **How Redis does it**: db.c. There a second table maps keys to deadlines; here the deadline is in the
//! entry.

mod ahead;
mod blocking;
mod blocks;
mod databases;
mod evict;
mod expire;
mod keys;
mod limits;
pub mod load;
mod memory;
mod moment;
mod origin;
mod shared;
mod usage;
mod view_mut;
mod walk;
mod watched;

use crate::error::Error;
use crate::key::{Key, digest_of};
use crate::lazyfree::{self, Garbage};
use crate::types::table::Table;
use crate::types::{Entry, Large, Limits, Loose, Stored, Type};
use crate::watch::Watchers;
use databases::Databases;
use evict::Evictor;
use expire::Deadlines;
use keys::Keys;
use std::sync::Mutex;

pub use blocking::{Blocking, Serve, Wait, Waiter};
pub use expire::{Report, Time};
pub use memory::Data;
pub use moment::{Moment, Size};
pub use origin::Origin;
pub use shared::{Busy, Store};
pub use view_mut::{Ttl, ViewMut};

/// All databases. It lives in an `RwLock`, in an `Arc<Store>` (store/shared.rs). These lock it: batches; a rewrite that writes its
/// base from memory (aof/rewrite.rs); one that makes a snapshot (moment.rs); DEBUG RELOAD (serve/reload.rs); the thread that gives memory back
/// (src/expire.rs); main.rs once, to put what was replayed into its place. No handler can.
pub struct Keyspace {
    dbs: Databases,
    /// Readers share it, so it has a mutex: a leaf of the lock order.
    pub watchers: Mutex<Watchers>,
    /// Clients that wait for a key. A leaf too.
    pub blocking: Mutex<Blocking>,
    /// What is to be freed after the lock is released, and how many bytes of it are waited for.
    garbage: Vec<Garbage>,
    pub garbage_bytes: usize,
    /// Empty memory for the records of whoever holds the exclusive lock. There is one for all, so that
    /// it may be large (propagate.rs).
    pub records: Vec<u8>,
    /// How much has been changed, for INFO; what was replayed counts too, as in Redis.
    pub changes: u64,
    /// Where it is in a primary's history, and how much had been changed by then.
    origin: Option<(Origin, u64)>,
    evictor: Evictor,
}

struct Db {
    keys: Keys,
    /// For active expiry: the deadlines in their order, each with the digest of its key. Two keys with the same deadline and
    /// the same digest have one place.
    deadlines: Deadlines,
}

impl Db {
    fn new() -> Db {
        Db { keys: Keys::of(Table::new()), deadlines: Deadlines::new() }
    }

    fn find(&self, key: &[u8]) -> Option<Entry<'_>> {
        self.keys.get(digest_of(key), key)
    }

    /// Takes an entry out that is to live on elsewhere.
    fn remove(&mut self, digest: u64, key: &[u8]) -> Option<Loose> {
        let loose = self.keys.remove(digest, key, Stored::loosen)?;
        if let Some(deadline) = loose.look().deadline() {
            self.forget_deadline(deadline, digest);
        }
        Some(loose)
    }

    /// For a key that is gone or has this deadline no more. Another key with the same digest may have it.
    fn forget_deadline(&mut self, deadline: u64, digest: u64) {
        let mut others = self.keys.with_digest(digest);
        if !others.any(|other| other.deadline() == Some(deadline)) {
            self.deadlines.remove(&(deadline, digest));
        }
    }

    /// Frees an entry. Returns None if there is no such key, and else what is large in the entry, if anything is:
    /// that is to be freed later.
    fn delete(&mut self, digest: u64, key: &[u8]) -> Option<Option<Box<Large>>> {
        let deadline = match self.deadlines.is_empty() {
            true => None,
            false => self.keys.get(digest, key)?.deadline(),
        };
        let removed = self.keys.remove(digest, key, Stored::free);
        if let Some(deadline) = deadline {
            self.forget_deadline(deadline, digest);
        }
        removed
    }
}

impl Keyspace {
    pub fn new(databases: usize) -> Keyspace {
        Keyspace {
            dbs: Databases::new(databases),
            watchers: Mutex::default(),
            blocking: Mutex::default(),
            garbage: Vec::with_capacity(lazyfree::ROOM),
            garbage_bytes: 0,
            records: Vec::new(),
            changes: 0,
            origin: None,
            evictor: Evictor::default(),
        }
    }

    fn free_later(&mut self, garbage: Garbage) {
        self.garbage_bytes += garbage.bytes;
        self.garbage.push(garbage);
    }

    /// What is to be freed.
    pub fn garbage(&mut self) -> impl Iterator<Item = Garbage> {
        self.garbage_bytes = 0;
        self.garbage.drain(..)
    }

    pub fn databases(&self) -> usize {
        self.dbs.count
    }

    /// Every key of a database: for a base of the log. Expired ones are included, because their DELs are not
    /// logged yet. In groups that are in the processor's caches: SAVE takes two thirds of the time that it takes entry by
    /// entry.
    pub fn entries(&self, db: usize) -> impl Iterator<Item = Entry<'_>> {
        self.dbs[db].keys.with_digests().map(|(_, entry)| entry)
    }
}

/// The keyspace under the shared lock, as one client sees it at one time.
pub struct View<'a> {
    keyspace: &'a Keyspace,
    pub db: usize,
    pub time: Time,
    pub limits: &'a Limits,
    report: &'a Report,
}

impl<'a> View<'a> {
    pub fn new(
        keyspace: &'a Keyspace,
        db: usize,
        time: Time,
        limits: &'a Limits,
        report: &'a Report,
    ) -> View<'a> {
        View { keyspace, db, time, limits, report }
    }

    /// The key's value, counted as a hit or a miss. WRONGTYPE if it has another type than this.
    pub fn get<T: Type>(&self, key: Key) -> Result<Option<T::Look<'a>>, Error> {
        let value = |entry: Entry<'a>| entry.read::<T>().ok_or(Error::WrongType);
        self.entry(key).map(value).transpose()
    }

    /// The key's entry if it is alive, counted as a hit or a miss, and as a use of the key.
    pub fn entry(&self, key: Key) -> Option<Entry<'a>> {
        let found = self.peek(key);
        self.report.count(self.db, &key, found.is_some());
        if let Some(entry) = found {
            self.report.note_use(entry.usage(), key.digest, self.time, self.limits);
        }
        found
    }

    /// The same, but it is no use of the key: TTL and its kind.
    pub fn entry_unused(&self, key: Key) -> Option<Entry<'a>> {
        let found = self.peek(key);
        self.report.count(self.db, &key, found.is_some());
        found
    }

    /// The same, not counted. An expired key is noted, and the batch will delete it.
    #[inline]
    pub fn peek(&self, key: Key) -> Option<Entry<'a>> {
        let found = self.db().keys.get(key.digest, &key);
        found.filter(|entry| !self.note_if_expired(*entry))
    }

    /// How many keys the database has. As in Redis, expired keys that nobody has met yet count. What this
    /// batch has met is as good as deleted.
    pub fn len(&self) -> usize {
        self.db().keys.len() - self.report.noted_in(self.db)
    }

    pub fn databases(&self) -> usize {
        self.keyspace.databases()
    }

    /// How much has been changed since the start.
    pub fn changes(&self) -> u64 {
        self.keyspace.changes
    }

    /// The same keyspace seen from another database.
    pub fn in_db(&self, db: usize) -> View<'a> {
        View { db, ..*self }
    }

    fn db(&self) -> &'a Db {
        &self.keyspace.dbs[self.db]
    }
}
