//! WATCH: which clients want to know that a key has changed.
//!
//! A client that watches a key has a flag. Whoever changes the key raises the flags of all who
//! watch it, and EXEC runs only if its client's flag is down. The table of watchers belongs to the
//! keyspace: a writer, who has the keyspace for itself, reaches it without a further lock, and
//! finds it empty nearly always; WATCH itself comes under the shared lock and takes the table's
//! mutex.
//!
//! Time changes keys too. A key that dies between WATCH and EXEC may not have been deleted by
//! anyone yet, so EXEC asks for each key whether it has expired since. A key that was already dead
//! when it was watched may be deleted without a flag going up: for the client nothing changes.
//!
//! **How Redis does it**: multi.c, `touchWatchedKey` and `isWatchedKeyExpired`, with the same
//! table per database.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

/// A client's flag: up when a key that it watches has changed.
pub type Flag = Arc<AtomicBool>;

/// Whoever watches a key.
struct Watcher {
    flag: Flag,
    /// Whether the key was there, but dead, when the client began to watch it.
    expired: bool,
}

/// What a watched key is after a change.
#[derive(Clone, Copy, PartialEq)]
pub enum Now {
    Gone,
    /// There, but past its deadline; only SWAPDB brings that about.
    Dead,
    Alive,
}

/// Who watches what: database and key, and all who watch it.
#[derive(Default)]
pub struct Watchers {
    keys: HashMap<(usize, Vec<u8>), Vec<Watcher>>,
}

impl Watchers {
    /// Whether nobody watches anything, as nearly always.
    pub fn is_empty(&self) -> bool {
        self.keys.is_empty()
    }

    /// Adds a watcher that is not there yet; `expired` if the key is there, but dead.
    pub fn watch(&mut self, db: usize, key: &[u8], flag: &Flag, expired: bool) {
        let watchers = self.keys.entry((db, key.to_vec())).or_default();
        watchers.push(Watcher {
            flag: flag.clone(),
            expired,
        });
    }

    /// Takes the client with this flag off the key.
    pub fn unwatch(&mut self, db: usize, key: &[u8], flag: &Flag) {
        let place = (db, key.to_vec());
        if let Some(watchers) = self.keys.get_mut(&place) {
            watchers.retain(|watcher| !Arc::ptr_eq(&watcher.flag, flag));
            if watchers.is_empty() {
                self.keys.remove(&place);
            }
        }
    }

    /// Whether the key was there, but dead, all the time that this client has watched it.
    pub fn was_dead(&self, db: usize, key: &[u8], flag: &Flag) -> bool {
        let watchers = self.keys.get(&(db, key.to_vec())).into_iter().flatten();
        let mut own = watchers.filter(|watcher| Arc::ptr_eq(&watcher.flag, flag));
        own.any(|watcher| watcher.expired)
    }

    /// Raises the flags of those who watch a key that has just changed: whether it `existed`, and
    /// what it is `now`. To be dead and to be gone are the same to a client.
    pub fn touch(&mut self, db: usize, key: &[u8], existed: bool, now: Now) {
        if self.keys.is_empty() {
            return;
        }
        for watcher in self.keys.get_mut(&(db, key.to_vec())).into_iter().flatten() {
            match now {
                Now::Gone if watcher.expired => watcher.expired = false,
                Now::Dead if watcher.expired => {}
                Now::Dead if !existed => watcher.expired = true,
                _ => watcher.flag.store(true, Ordering::Relaxed),
            }
        }
    }

    /// Raises the flags of all.
    pub fn touch_all(&self) {
        let watchers = self.keys.values().flatten();
        watchers.for_each(|watcher| watcher.flag.store(true, Ordering::Relaxed));
    }

    /// The watched keys of a database.
    pub fn keys_of(&self, db: usize) -> Vec<Vec<u8>> {
        let here = self.keys.keys().filter(|place| place.0 == db);
        here.map(|(_, key)| key.clone()).collect()
    }
}
