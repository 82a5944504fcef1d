//! Deleting the dead: what a batch's readers have met, and what the sweep looks for.
//!
//! A reader that meets a dead key answers as if it were gone and makes a note, for it cannot
//! delete. The batch deletes what is noted as soon as it holds the exclusive lock: before its next
//! write, or when it ends. Either way the DEL is in the log before the reply leaves.
//!
//! What one command has met is one unit of the log (propagate.rs), as in Redis: an MGET of two dead
//! keys leaves `MULTI, DEL a, DEL b, EXEC`. Inside EXEC it belongs to the unit of the EXEC.
//!
//! **How Redis does it**: `expireIfNeeded` in db.c deletes at once, for every command has the data
//! to itself; `propagateDeletion` logs it.

use super::Batch;
use super::lock::Guard;
use crate::key::Key;
use crate::store::Expired;

impl Batch<'_> {
    /// After a read under a lock that is exclusive already, as in EXEC, there is nothing to wait for.
    pub fn delete_noted_if_exclusive(&mut self) {
        if matches!(self.guard, Guard::Exclusive(_)) {
            self.delete_noted();
        }
    }

    /// Deletes what readers found dead, if it still is. The exclusive lock is held.
    pub(super) fn delete_noted(&mut self) {
        let noted = self.notes.take();
        if noted.is_empty() {
            return;
        }
        for unit in noted.chunk_by(|a, b| a.unit == b.unit) {
            self.delete_expired(unit);
        }
    }

    /// Deletes keys as one unit if they are dead; returns how many were. The exclusive lock is
    /// held.
    fn delete_expired(&mut self, keys: &[Expired]) -> usize {
        self.records.begin();
        let mut view = self.view_mut(0);
        let mut deleted = 0;
        for Expired { db, key, .. } in keys {
            deleted += usize::from(view.in_db(*db, |view| view.delete_if_expired(Key::of(key))));
        }
        self.records.end();
        deleted
    }

    /// Looks for keys of database `db` that are dead, and deletes up to `most` of them; returns how
    /// many. It looks under the shared lock: who waits for the exclusive one keeps all readers waiting,
    /// and there is mostly nothing to delete.
    pub fn sweep(&mut self, db: usize, most: usize) -> usize {
        self.share();
        let dead = self.keyspace().dead(db, self.time, most);
        if dead.is_empty() {
            return 0;
        }
        self.exclude();
        let dead = dead.into_iter().map(|key| [Expired { unit: 0, db, key }]);
        dead.map(|key| self.delete_expired(&key)).sum()
    }
}
