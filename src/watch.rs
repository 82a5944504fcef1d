//! WATCH: which clients want to know that a key has changed.
//!
//! A client that watches a key has a flag. Whoever changes the key raises the flags of all who
//! watch it, and EXEC runs only if its client's flag is down. The table of watchers belongs to the
//! keyspace: a writer, who has the keyspace for itself, reaches it without a further lock, and
//! finds it empty nearly always; WATCH itself comes under the shared lock and takes the table's
//! mutex.
//!
//! Time changes keys too. A key that expires between WATCH and EXEC may not have been deleted by
//! anyone yet, so EXEC asks for each key whether it has expired since. A key that was already expired
//! when it was watched may be deleted without a flag going up: for the client nothing changes.
//!
//! Nothing here looks at all that a client watches, nor at all who watch a key, but for what must be
//! told to all of them: ten thousand clients may each watch the same sixty thousand keys.
//!
//! **How Redis does it**: multi.c, `touchWatchedKey` and `isWatchedKeyExpired`, with the same
//! table per database. There WATCH looks through the list of what the client watches already.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

/// A client's flag: up when a key that it watches has changed.
pub type Flag = Arc<AtomicBool>;

/// Whoever watches a key.
struct Watcher {
    flag: Flag,
    /// Whether the key was there, but expired, when the client began to watch it.
    expired: bool,
}

/// What a watched key is after a change.
#[derive(Clone, Copy, PartialEq)]
pub enum Now {
    Gone,
    /// There, but past its deadline; only SWAPDB brings that about.
    Expired,
    Alive,
}

/// All who watch one key, each under its [`name`].
type OfKey = BTreeMap<usize, Watcher>;

/// Who watches what: the keys of each database, and all who watch each.
#[derive(Default)]
pub struct Watchers {
    dbs: HashMap<usize, HashMap<Vec<u8>, OfKey>>,
}

/// What a client is found by: where its flag lies, for each has a flag of its own.
fn name(flag: &Flag) -> usize {
    Arc::as_ptr(flag).addr()
}

impl Watchers {
    /// Whether nobody watches anything, as nearly always.
    pub fn is_empty(&self) -> bool {
        self.dbs.is_empty()
    }

    /// Adds a watcher that is not there yet; `expired` if the key is there, but expired.
    pub fn watch(&mut self, db: usize, key: &[u8], flag: &Flag, expired: bool) {
        let watchers = self.dbs.entry(db).or_default();
        let watchers = watchers.entry(key.to_vec()).or_default();
        let flag = flag.clone();
        watchers.insert(name(&flag), Watcher { flag, expired });
    }

    /// Takes the client with this flag off the key.
    pub fn unwatch(&mut self, db: usize, key: &[u8], flag: &Flag) {
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

    /// Whether the key was there, but expired, all the time that this client has watched it.
    pub fn was_expired(&self, db: usize, key: &[u8], flag: &Flag) -> bool {
        let watchers = self.dbs.get(&db).and_then(|keys| keys.get(key));
        let own = watchers.and_then(|watchers| watchers.get(&name(flag)));
        own.is_some_and(|watcher| watcher.expired)
    }

    /// Raises the flags of those who watch a key that has just changed: whether it `existed`, and
    /// what it is `now`. To be expired and to be gone are the same to a client.
    pub fn touch(&mut self, db: usize, key: &[u8], existed: bool, now: Now) {
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

    /// Raises the flags of all.
    pub fn touch_all(&self) {
        let watchers = self.dbs.values().flat_map(HashMap::values);
        let watchers = watchers.flat_map(OfKey::values);
        watchers.for_each(|watcher| watcher.flag.store(true, Ordering::Relaxed));
    }

    /// The watched keys of a database.
    pub fn keys_of(&self, db: usize) -> Vec<Vec<u8>> {
        let keys = self.dbs.get(&db).into_iter().flat_map(HashMap::keys);
        keys.cloned().collect()
    }
}
