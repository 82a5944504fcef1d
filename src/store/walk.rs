//! Readers that meet keys which no command has named: SCAN, RANDOMKEY, KEYS.
//!
//! An expired key that SCAN or RANDOMKEY meets is noted *alone*: its DEL is a unit of its own in the log. (MGET names
//! its keys. Those that it finds expired are one unit.)
//!
//! **How Redis does it**: db.c, `scanGenericCommand` and `dbRandomKey`. Each deletes such a key at once, with a DEL
//! of its own.

use super::View;
use crate::types::Entry;

impl<'a> View<'a> {
    /// All keys that are alive. Expired ones are passed over without a note, as KEYS does in Redis.
    pub fn living(&self) -> impl Iterator<Item = Entry<'a>> {
        let entries = self.db().keys.iter();
        entries.filter(|entry| !self.time.has_expired(*entry))
    }

    /// Calls `visit` for each entry of one slot that is alive and whose key is wanted. Returns the cursor of the
    /// next slot (see table.rs). With `counts`, each entry counts as a hit or a miss, as in Redis if SCAN asks for
    /// a type. Each expired key that it meets is noted alone.
    pub fn scan(
        &self,
        cursor: u64,
        counts: bool,
        wanted: impl Fn(&[u8]) -> bool,
        mut visit: impl FnMut(Entry<'a>),
    ) -> u64 {
        self.db().keys.scan(cursor, |entry| {
            if wanted(entry.key()) {
                let was_noted = self.report.has_noted(self.db, entry.key());
                let is_alive = !self.note_alone_if_expired(entry);
                // An expired key that was noted before is no miss: Redis would have deleted it then.
                if counts && (is_alive || !was_noted) {
                    self.report.count(self.db, entry.key(), is_alive);
                }
                if is_alive {
                    visit(entry);
                }
            }
        })
    }

    /// A key that is alive, at random. Each has the same chance, unless nearly all keys are expired.
    pub fn random_key(&self) -> Option<&'a [u8]> {
        let keys = &self.db().keys;
        for _ in 0..100 {
            let (_, entry) = keys.random()?;
            if !self.note_alone_if_expired(entry) {
                return Some(entry.key());
            }
        }
        // Nearly all are expired, so the first that is alive will do.
        self.living().next().map(Entry::key)
    }
}
