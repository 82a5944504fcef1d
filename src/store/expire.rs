//! Expiry: when a key is gone, who deletes it, and what the log is told.
//!
//! A key whose deadline has passed is *expired*: it is gone for everybody from the next millisecond on,
//! though it still takes memory.
//!
//! **Lazy expiry**: whoever meets the key deletes it.
//!
//! ```text
//! a writer's ViewMut   find(k) deletes k ────────────────────────────────────▶ DEL k, then its own records
//! a reader's View      answers as if k were gone, and notes k ┐
//!                      the batch takes the exclusive lock ────┴──────────────▶ DEL k
//! ```
//!
//! The batch deletes what is noted before its next write, or before its replies leave. What one command has
//! met is one unit of the log (propagate.rs): an MGET of two expired keys leaves `MULTI, DEL a, DEL b, EXEC`.
//! SCAN and RANDOMKEY meet keys that nobody has named. There each is a unit of its own, except in an EXEC.
//! What a writing command reads through a `View` is deleted when the command ends, in its unit and in front.
//!
//! **Active expiry**: perhaps nobody asks for the key again. So a thread (src/expire.rs) is a reader that
//! looks for expired keys and notes them ([`View::note_expired`]). It finds them in an index of all
//! [`Deadlines`], the earliest first, and looks at no other key.
//!
//! **Time** stands still in a command, and in an EXEC. It does not pass at all while the log replays: what was
//! there when the log was written must be there then.
//!
//! **How Redis does it**: `expireIfNeeded` in db.c deletes at once, because a reader there is alone. Beside
//! *delete* and *ignore* it has a third answer: a replica *hides* the key from its clients until its primary
//! sends the DEL. `activeExpireCycle` in expire.c has no order of deadlines. It samples keys at random while
//! many of them are expired, so up to a tenth may stay. The index costs each EXPIRE a little.

use super::{Db, Keyspace, View, ViewMut, Wait};
use crate::key::Key;
use crate::notify::{Class, Events};
use crate::propagate::Source;
use crate::types::Entry;
use crate::watch::Now;
use std::cell::{Cell, RefCell};
use std::collections::{BTreeSet, HashMap, HashSet};

/// Deadline (Unix time in milliseconds) and digest of every key of a database that has a deadline. The digest
/// is a hint, because other keys may have it too: the entry is asked again.
pub(super) type Deadlines = BTreeSet<(u64, u64)>;

/// The time of a command.
#[derive(Clone, Copy)]
pub struct Time {
    /// Unix time in milliseconds.
    pub now: u64,
    /// Who the command comes from: time does not pass for all.
    pub source: Source,
}

impl Time {
    /// Whether the key is expired: it lives through its last millisecond.
    pub(super) fn has_expired(self, entry: Entry) -> bool {
        entry.deadline().is_some_and(|deadline| self.is_past(deadline))
    }

    fn is_past(self, deadline: u64) -> bool {
        self.source == Source::Client && self.now > deadline
    }

    /// Whether a deadline that is being set has come already.
    pub fn has_come(self, deadline: i64) -> bool {
        self.source == Source::Client && deadline <= self.now as i64
    }
}

/// What the views of one batch report to it: notes of expired keys that are to be deleted, what a command waits
/// for, events, and counts. Only the batch has it. It consists of cells, because a view has it by a shared
/// reference.
#[derive(Default)]
pub struct Report {
    /// Keys that readers have met expired, in that order.
    expired: RefCell<Vec<Expired>>,
    /// The same by database, because a key is noted once, and DBSIZE asks how many there are.
    known: RefCell<HashMap<usize, HashSet<Vec<u8>>>>,
    /// The number of the present unit.
    unit: Cell<u64>,
    /// Whether EXEC runs the present command, so that another unit cannot begin.
    in_exec: Cell<bool>,
    /// Whether a script has called the command. Redis gives some replies an order then, which have none else.
    pub in_script: Cell<bool>,
    /// What the command waits for, if it does (blocking.rs). In a box, because each writer looks here.
    pub wait: Cell<Option<Box<Wait>>>,
    /// For those who have subscribed to it (notify.rs).
    pub events: Events,
    pub hits: Cell<u64>,
    pub misses: Cell<u64>,
    /// How many expired keys were deleted.
    pub deleted: Cell<u64>,
    /// How many keys were evicted.
    pub evicted: Cell<u64>,
    /// What the client does is no use of a key (CLIENT NO-TOUCH).
    pub no_touch: Cell<bool>,
    /// The last random number (store/usage.rs).
    pub(super) random: Cell<u64>,
}

struct Expired {
    /// Keys with the same number are deleted as one unit.
    unit: u64,
    db: usize,
    key: Vec<u8>,
    /// The number of its event, if that was kept.
    event: Option<usize>,
}

impl Report {
    /// Whether expired keys are noted, which are to be deleted.
    pub fn has_notes(&self) -> bool {
        !self.expired.borrow().is_empty()
    }

    /// A command begins. What it notes belongs to a unit of its own, or to that of its EXEC.
    pub fn begin_command(&self, in_exec: bool) {
        self.in_exec.set(in_exec);
        self.begin_unit();
    }

    fn begin_unit(&self) {
        self.unit.set(self.unit.get() + u64::from(!self.in_exec.get()));
    }

    /// Counts a lookup, as Redis's `lookupKeyRead` does: those of a command that answers with what is
    /// there, and of no other that writes. A miss is an event.
    #[inline(always)]
    pub fn count(&self, db: usize, key: &[u8], is_there: bool) {
        self.count_silently(is_there);
        if !is_there {
            self.say(db, key, Class::Miss, "keymiss");
        }
    }

    /// The same without the event.
    pub fn count_silently(&self, is_there: bool) {
        let counter = if is_there { &self.hits } else { &self.misses };
        counter.set(counter.get() + 1);
    }

    /// Keeps an event, if somebody wants to hear of its class.
    #[inline(always)]
    pub fn say(&self, db: usize, key: &[u8], class: Class, event: &'static str) {
        self.events.say(class, event, db, key);
    }

    fn note(&self, db: usize, key: &[u8]) {
        if self.known.borrow_mut().entry(db).or_default().insert(key.to_vec()) {
            // It has its place here, before what the command finds or does next.
            let event = self.events.say(Class::Expired, "expired", db, key);
            let (unit, key) = (self.unit.get(), key.to_vec());
            self.expired.borrow_mut().push(Expired { unit, db, key, event });
        }
    }

    /// If keys are noted and this is so, forgets the notes: the keys stay, expired and not deleted, and nobody is
    /// told of them.
    pub fn forget_notes_if(&self, is_so: impl FnOnce() -> bool) {
        if self.has_notes() && is_so() {
            let events = self.take().into_iter().filter_map(|expired| expired.event);
            events.for_each(|event| self.events.take_back(event));
        }
    }

    /// Hands over what is noted.
    fn take(&self) -> Vec<Expired> {
        self.known.take();
        self.expired.take()
    }

    /// Whether the key is noted: an earlier command of the batch, or this one, has met it expired.
    pub(super) fn has_noted(&self, db: usize, key: &[u8]) -> bool {
        self.known.borrow().get(&db).is_some_and(|known| known.contains(key))
    }

    /// How many keys of a database are noted.
    pub(super) fn noted_in(&self, db: usize) -> usize {
        self.known.borrow().get(&db).map_or(0, HashSet::len)
    }
}

impl Keyspace {
    /// The databases that have a key whose deadline was before this time.
    pub fn with_expired(&self, now: u64) -> Vec<usize> {
        let is_past = |db: &Db| db.deadlines.first().is_some_and(|(deadline, _)| *deadline < now);
        let numbered = self.dbs.iter().enumerate();
        numbered.filter(|(_, db)| is_past(db)).map(|(number, _)| number).collect()
    }
}

impl<'a> View<'a> {
    /// The key's entry if it is alive, counted as a hit or a miss; but a miss is no event. Redis's OBJECT looks so.
    pub fn entry_silently(&self, key: Key) -> Option<Entry<'a>> {
        let found = self.peek(key);
        self.report.count_silently(found.is_some());
        found
    }

    /// Whether a script looks.
    pub fn is_in_script(&self) -> bool {
        self.report.in_script.get()
    }

    /// Notes the key if it is expired. Returns whether it is.
    pub(super) fn note_if_expired(&self, entry: Entry) -> bool {
        let is_expired = self.time.has_expired(entry);
        if is_expired {
            self.report.note(self.db, entry.key());
        }
        is_expired
    }

    /// The same for a key that no command has named: its DEL is a unit of its own.
    pub(super) fn note_alone_if_expired(&self, entry: Entry) -> bool {
        self.report.begin_unit();
        self.note_if_expired(entry)
    }

    /// Notes up to `most` expired keys of the database; returns how many.
    pub fn note_expired(&self, most: usize) -> usize {
        let Db { keys, deadlines } = self.db();
        let past = deadlines.iter().take_while(|(deadline, _)| self.time.is_past(*deadline));
        let hinted = past.take(most).flat_map(|(_, digest)| keys.with_digest(*digest));
        hinted.filter(|entry| self.note_alone_if_expired(*entry)).count()
    }

    /// All keys of the database, and those that are expired too.
    pub fn with_expired(&self) -> impl Iterator<Item = Entry<'_>> {
        self.db().keys.iter()
    }

    /// Looks a key up that may be expired, and leaves it as it is.
    pub fn find_expired_too(&self, key: Key) -> Option<Entry<'_>> {
        self.db().keys.get(key.digest, &key)
    }

    /// How many keys have a deadline, and how long the next of them live on average, in
    /// milliseconds. A sample of the first hundred: an average over all would walk all.
    pub fn deadlines(&self) -> (usize, u64) {
        let deadlines = &self.db().deadlines;
        let sample = deadlines.iter().take(100);
        let (sum, count) = sample.fold((0, 0), |(sum, count), (deadline, _)| {
            (sum + u128::from(deadline.saturating_sub(self.time.now)), count + 1)
        });
        (deadlines.len(), (sum / count.max(1)) as u64)
    }
}

impl ViewMut<'_> {
    /// Sets or takes away the deadline of a key that is there.
    pub fn set_deadline(&mut self, key: Key, deadline: Option<u64>) {
        self.exchange_deadline(key, deadline);
        let event = if deadline.is_some() { "expire" } else { "persist" };
        self.changed(key, Class::Generic, event);
    }

    pub(super) fn exchange_deadline(&mut self, key: Key, deadline: Option<u64>) {
        let db = self.db_mut();
        let Some(mut entry) = db.keys.get_mut(key.digest, &key) else {
            return;
        };
        let old = entry.look().deadline();
        entry.set_deadline(deadline);
        if let Some(old) = old {
            db.forget_deadline(old, key.digest);
        }
        if let Some(deadline) = deadline {
            db.deadlines.insert((deadline, key.digest));
        }
    }

    /// Deletes an expired key that was looked for, behind those that the command has read before.
    pub(super) fn expire(&mut self, key: Key) {
        self.report.note(self.db, &key);
        self.delete_noted();
    }

    /// Deletes what is noted, if it still is expired.
    pub fn delete_noted(&mut self) {
        for unit in self.report.take().chunk_by(|a, b| a.unit == b.unit) {
            self.records.begin();
            for Expired { db, key, event, .. } in unit {
                let is_deleted = self.in_db(*db, |view| view.delete_if_expired(Key::of(key)));
                if let Some(event) = event.filter(|_| !is_deleted) {
                    self.report.events.take_back(event);
                }
            }
            self.records.end();
        }
    }

    /// The command does not count it as a change of its own. Returns whether it was deleted: another client
    /// may have done something to the key.
    fn delete_if_expired(&mut self, key: Key) -> bool {
        let found = self.db().keys.get(key.digest, &key);
        let is_expired = found.is_some_and(|entry| self.time.has_expired(entry));
        if is_expired {
            let large = self.db_mut().delete(key.digest, &key).flatten();
            self.discard(large);
            self.records.push_expired(self.db, &key);
            let watchers = self.keyspace.watchers.get_mut().unwrap();
            watchers.touch(self.db, &key, Now::Gone);
            self.report.deleted.set(self.report.deleted.get() + 1);
        }
        is_expired
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::propagate::Records;
    use crate::resp::{Arg, Args};
    use crate::store::Ttl;
    use crate::types::Limits;

    const TIME: Time = Time { now: 10, source: Source::Client };
    const LIMITS: Limits = Limits { string: 1, ..Limits::NOTHING };

    #[test]
    fn what_a_writing_command_reads_is_deleted_in_its_unit_and_before_its_records() {
        let mut keyspace = Keyspace::new(1);
        let (mut records, report) = (Records::default(), Report::default());
        let (a, b) = (Key::of(b"a"), Key::of(b"b"));
        let mut before = ViewMut::new(&mut keyspace, 0, TIME, &LIMITS, &mut records, &report);
        for key in [a, b] {
            before.set_string(key, Arg::Small(b"old"), Ttl::Gone);
            before.set_deadline(key, Some(9));
        }
        records.wanted = true;
        records.begin();
        let mut command = ViewMut::new(&mut keyspace, 0, TIME, &LIMITS, &mut records, &report);
        command.propagate([b"PING"]);
        let look = command.look();
        assert!(look.peek(a).is_none() && look.peek(b).is_none() && look.len() == 0);
        command.set_string(b, Arg::Small(b"new"), Ttl::Gone);
        assert_eq!(command.end(&Args::default()), 1);
        records.end();
        let text = String::from_utf8(records.bytes).unwrap();
        let words: Vec<_> = text.lines().filter(|line| !line.starts_with(['*', '$'])).collect();
        assert_eq!(words, ["MULTI", "DEL", "a", "DEL", "b", "PING", "EXEC"]);
        let keys: Vec<_> = keyspace.entries(0).map(|entry| entry.key()).collect();
        assert_eq!((keys, report.deleted.get()), (vec![&b"b"[..]], 2));
    }
}
