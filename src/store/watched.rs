//! Watched keys (watch.rs): what WATCH and EXEC ask of the keyspace, and what a change tells them.
//!
//! **How Redis does it**: multi.c, `watchForKey`, `isWatchedKeyExpired` and `touchWatchedKey`.

use super::{Keyspace, View, ViewMut};
use crate::key::Key;
use crate::watch::{Now, WatchFlag};

impl View<'_> {
    /// Begins to watch a key of the view's database for the client with this flag.
    pub fn watch(&self, key: &[u8], flag: &WatchFlag) {
        let expired = self.has_expired(key);
        let mut watchers = self.keyspace.watchers.lock().unwrap();
        watchers.watch(self.db, key, flag, expired);
    }

    /// Ends what [`View::watch`] began, in the same database.
    pub fn unwatch(&self, key: &[u8], flag: &WatchFlag) {
        let mut watchers = self.keyspace.watchers.lock().unwrap();
        watchers.unwatch(self.db, key, flag);
    }

    /// Whether a watched key has expired since the client with this flag began to watch it.
    pub fn has_expired_watched(&self, key: &[u8], flag: &WatchFlag) -> bool {
        let watchers = self.keyspace.watchers.lock().unwrap();
        self.has_expired(key) && !watchers.was_expired(self.db, key, flag)
    }

    /// Whether a key is there but expired.
    fn has_expired(&self, key: &[u8]) -> bool {
        let found = self.db().find(key);
        found.is_some_and(|entry| self.time.has_expired(entry))
    }
}

impl ViewMut<'_> {
    /// Says to those who WATCH the key that it has changed. (Redis does that in an LTRIM that takes nothing
    /// away.)
    #[inline]
    pub fn touch_watched(&mut self, key: Key) {
        if !self.keyspace.watchers.get_mut().unwrap().is_empty() {
            self.touch_if_watched(key);
        }
    }

    #[cold]
    fn touch_if_watched(&mut self, key: Key) {
        let Keyspace { dbs, watchers, .. } = &mut *self.keyspace;
        let exists = dbs[self.db].find(&key).is_some();
        let now = if exists { Now::Alive } else { Now::Gone };
        watchers.get_mut().unwrap().touch(self.db, &key, now);
    }
}
