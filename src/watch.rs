//! WATCH: the table of watched keys and the clients that watch them.
//!
//! A client that watches keys has a flag. Whoever changes a key raises the flags of all its watchers. EXEC
//! runs only if the client's flag is down. The table belongs to the keyspace. A writer has the keyspace
//! for itself, so it needs no other lock, and nearly always finds the table empty. WATCH runs under the
//! shared lock, so it takes the table's mutex too.
//!
//! A key also changes when it expires. Nobody may have deleted it yet, so EXEC asks for each watched key
//! whether it has expired since WATCH. If a key had expired before WATCH, its deletion raises no flag,
//! because for the client nothing changes.
//!
//! Ten thousand clients may each watch the same sixty thousand keys. So nothing here walks through all keys
//! of a client or all watchers of a key, unless it must tell each of them.
//!
//! **How Redis does it**: multi.c, `touchWatchedKey` and `isWatchedKeyExpired`, with the same table per
//! database. There WATCH searches the list of the keys that the client watches already.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

/// A client's flag: up when a key that it watches has changed.
pub type WatchFlag = Arc<AtomicBool>;

struct Watcher {
    flag: WatchFlag,
    /// The key was in memory but expired when the client began to watch it.
    expired: bool,
}

/// What a watched key is after a change.
#[derive(Clone, Copy, PartialEq)]
pub enum Now {
    Gone,
    /// In memory, but expired. Only SWAPDB can cause this.
    Expired,
    Alive,
}

/// The watchers of one key, each under its [`name`].
type OfKey = BTreeMap<usize, Watcher>;

/// The watched keys of each database, and the watchers of each key.
#[derive(Default)]
pub struct Watchers {
    dbs: HashMap<usize, HashMap<Vec<u8>, OfKey>>,
}

/// The name of a watcher: the address of its flag. Each client has its own flag.
fn name(flag: &WatchFlag) -> usize {
    Arc::as_ptr(flag).addr()
}

impl Watchers {
    /// Whether nobody watches anything. This is nearly always so.
    pub fn is_empty(&self) -> bool {
        self.dbs.is_empty()
    }

    /// Adds a new watcher. `expired`: the key is in memory but has expired.
    pub fn watch(&mut self, db: usize, key: &[u8], flag: &WatchFlag, expired: bool) {
        let watchers = self.dbs.entry(db).or_default();
        let watchers = watchers.entry(key.to_vec()).or_default();
        let flag = flag.clone();
        watchers.insert(name(&flag), Watcher { flag, expired });
    }

    /// Removes the watcher with this flag from the key.
    pub fn unwatch(&mut self, db: usize, key: &[u8], flag: &WatchFlag) {
        let Some(keys) = self.dbs.get_mut(&db) else {
            return;
        };
        if let Some(watchers) = keys.get_mut(key) {
            watchers.remove(&name(flag));
            if watchers.is_empty() {
                keys.remove(key);
            }
        }
        if keys.is_empty() {
            self.dbs.remove(&db);
        }
    }

    /// Whether the key had expired before this client began to watch it, and has not been written since.
    pub fn was_expired(&self, db: usize, key: &[u8], flag: &WatchFlag) -> bool {
        let watchers = self.dbs.get(&db).and_then(|keys| keys.get(key));
        let own = watchers.and_then(|watchers| watchers.get(&name(flag)));
        own.is_some_and(|watcher| watcher.expired)
    }

    /// Raises the flags of the watchers of a key that was there or is there now, and has changed.
    pub fn touch(&mut self, db: usize, key: &[u8], now: Now) {
        self.touch_swapped(db, key, true, now);
    }

    /// The same for a key whose database was exchanged for another. `existed`: whether it was there before.
    /// For a client an expired key is the same as none.
    pub fn touch_swapped(&mut self, db: usize, key: &[u8], existed: bool, now: Now) {
        let watchers = self.dbs.get_mut(&db).and_then(|keys| keys.get_mut(key));
        for watcher in watchers.into_iter().flat_map(OfKey::values_mut) {
            match now {
                Now::Gone if watcher.expired => watcher.expired = false,
                Now::Expired if watcher.expired => {}
                Now::Expired if !existed => watcher.expired = true,
                _ => watcher.flag.store(true, Ordering::Relaxed),
            }
        }
    }

    pub fn touch_all(&self) {
        let watchers = self.dbs.values().flat_map(HashMap::values);
        let watchers = watchers.flat_map(OfKey::values);
        watchers.for_each(|watcher| watcher.flag.store(true, Ordering::Relaxed));
    }

    pub fn keys_of(&self, db: usize) -> Vec<Vec<u8>> {
        let keys = self.dbs.get(&db).into_iter().flat_map(HashMap::keys);
        keys.cloned().collect()
    }
}
