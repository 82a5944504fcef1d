//! Where the data is in a primary's history: said in the keyspace, and in the log behind the changes that lead there.

use super::{Batch, Guard};
use crate::store::Origin;

impl Batch<'_> {
    /// Ends a unit of the primary, which leads to this place.
    pub fn end_unit_at(&mut self, origin: Origin) {
        // If it has changed nothing, it may come again after a kill, and do no harm.
        origin.with_record(|words| self.records.push_behind(origin.db, words));
        self.end_unit(0..0);
        if let Guard::Exclusive(keyspace) = &mut self.guard {
            keyspace.set_origin(origin);
        }
    }

    /// The data, which a log fills, is at this place.
    pub fn set_origin(&mut self, origin: Origin) {
        // The keyspace is this batch's own.
        if self.exclude().is_ok()
            && let Guard::Exclusive(keyspace) = &mut self.guard
        {
            keyspace.set_origin(origin);
        }
    }
}
