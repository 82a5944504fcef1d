//! When a lookup is a use of its key (types/usage.rs): whatever reads a value, and whatever writes.
//!
//! EXISTS, TYPE, TTL and OBJECT are none ([`View::entry_unused`]), nor is what a client does that has said CLIENT
//! NO-TOUCH, but for TOUCH.
//!
//! **How Redis does it**: `lookupKey` in db.c, and its flag `LOOKUP_NOTOUCH`.

use super::{Report, Time, View, ViewMut};
use crate::key::Key;
use crate::types::{Limits, Usage};

impl Report {
    /// The key with this digest is used. If its last use is remembered, that was mostly a moment ago: then nothing is
    /// written.
    #[inline(always)]
    pub(super) fn note_use(&self, usage: &Usage, digest: u64, time: Time, limits: &Limits) {
        if !usage.is_up_to_date(limits.remember, time.now) && !self.no_touch.get() {
            self.write_use(usage, digest, time, limits);
        }
    }

    #[inline(never)]
    fn write_use(&self, usage: &Usage, digest: u64, time: Time, limits: &Limits) {
        // A simple generator (Knuth's constant). Digests have a secret in them.
        let random = (self.random.get() ^ time.now).wrapping_mul(6_364_136_223_846_793_005);
        self.random.set(random.wrapping_add(digest));
        usage.note(limits.remember, time.now, self.random.get());
    }
}

impl View<'_> {
    /// TOUCH: the key is used. Returns whether it is there.
    pub fn touch(&self, key: Key) -> bool {
        let found = self.entry_unused(key);
        if let Some(entry) = found {
            self.report.write_use(entry.usage(), key.digest, self.time, self.limits);
        }
        found.is_some()
    }
}

impl ViewMut<'_> {
    /// RESTORE: says for how many seconds the key was not used, or how often it was.
    pub fn set_usage(&mut self, key: Key, idle_time: Option<i64>, frequency: Option<u8>) {
        if let Some(entry) = self.db().keys.get(key.digest, &key) {
            let idle_time = idle_time.map(i64::unsigned_abs);
            let usage = entry.usage();
            usage.set(self.limits.remember, idle_time, frequency, self.time.now);
        }
    }
}
