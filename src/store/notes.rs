//! What readers leave behind, who may not change anything: notes; and what a batch counts.
//!
//! A `View` that meets a dead key answers as if it were gone, but under the shared lock it cannot
//! delete it. It writes it down here, and the batch deletes what is written down as soon as it
//! holds the exclusive lock (batch/dead.rs), before its replies leave. Hits, misses and what was
//! deleted are counted here too, by readers and writers, so that nobody has to touch what others count
//! in.
//!
//! The notes belong to one batch, so they need no lock of their own; but a view is shared by
//! reference, and that is what the cells are for: they may be changed through a `&`.
//!
//! **How Redis does it**: `expireIfNeeded` in db.c deletes at once, since a reader there is alone.

use std::cell::{Cell, RefCell};
use std::collections::{HashMap, HashSet};

/// What the readers of one batch leave behind.
#[derive(Default)]
pub struct Notes {
    /// What was found dead, and not yet deleted.
    pub expired: RefCell<Vec<Expired>>,
    /// The same by database, for a key that is read again is noted once, and DBSIZE asks how many
    /// there are.
    known: RefCell<HashMap<usize, HashSet<Vec<u8>>>>,
    /// Counts units (propagate.rs): what one command found is deleted as one.
    pub unit: Cell<u64>,
    pub hits: Cell<u64>,
    pub misses: Cell<u64>,
    /// How many dead keys were deleted, by whomever.
    pub deleted: Cell<u64>,
}

impl Notes {
    /// Notes a dead key.
    pub(super) fn note(&self, db: usize, key: &[u8]) {
        let mut known = self.known.borrow_mut();
        if known.entry(db).or_default().insert(key.to_vec()) {
            let (unit, key) = (self.unit.get(), key.to_vec());
            self.expired.borrow_mut().push(Expired { unit, db, key });
        }
    }

    /// How many keys of a database are noted.
    pub(super) fn noted_in(&self, db: usize) -> usize {
        self.known.borrow().get(&db).map_or(0, HashSet::len)
    }

    /// Counts a lookup, as Redis's `lookupKeyRead` does: those of a command that answers with what is
    /// there, and of no other that writes.
    pub fn count(&self, is_there: bool) {
        let counter = if is_there { &self.hits } else { &self.misses };
        counter.set(counter.get() + 1);
    }

    /// Hands over what was noted, to be deleted.
    pub fn take(&self) -> Vec<Expired> {
        self.known.take();
        self.expired.take()
    }
}

/// A key that a reader found dead.
pub struct Expired {
    /// Those with the same number were found by one command.
    pub unit: u64,
    pub db: usize,
    pub key: Vec<u8>,
}
