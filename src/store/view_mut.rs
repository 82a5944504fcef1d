//! The keyspace under the exclusive lock: what a handler that writes is given.
//!
//! The view counts and logs every change that is made through it. A handler owes two things, and nobody
//! can do them for it:
//!
//! 1. If a replay could come to another result (because of time, chance or rounding), or if Redis logs another
//!    command (for GETDEL a DEL), it says what is to be logged ([`ViewMut::propagate`]).
//! 2. If it answers with the value itself, as GETDEL does, it counts a hit or a miss ([`ViewMut::get`]). A
//!    length or a sum is not the value ([`ViewMut::peek_value`]).
//!
//! (Debug builds look after a third: what can fail in an [`ViewMut::edit`] comes before the first change.)
//!
//! ```text
//! APPEND k x      edit(k, "append", append)                              logged as it was sent
//! GETDEL k        get(k) ──▶ delete(k) ──▶ propagate(DEL k)              logged as DEL
//! SET k v EX 9    set_string(k) ──▶ propagate(SET … PXAT …)
//! ```
//!
//! Each method that changes a key reports an event (notify.rs). Some know its name, others get it from the
//! handler. So no change is without an event.
//!
//! Expired keys are no concern of handlers (store/expire.rs): what a lookup finds expired is deleted, and
//! its DEL stands before whatever the command logs.
//!
//! **How Redis does it**: with `setKey`, `dbDelete`, `signalModifiedKey`, `notifyKeyspaceEvent` and
//! `server.dirty++`. Each command must remember all that it needs of these.

use super::{Db, Keyspace, Limits, Report, Time, View};
use crate::error::Error;
use crate::key::Key;
use crate::lazyfree::Garbage;
use crate::notify::Class;
use crate::propagate::Records;
use crate::resp::{Arg, Args};
use crate::types::{Change, Edit, Entry, EntryMut, Large, Loose, NewStr, Stored, Type, Usage};

/// What becomes of a key's deadline when it is given a string.
#[derive(Clone, Copy)]
pub enum Ttl {
    Gone,
    Kept,
    /// Unix time in milliseconds.
    Until(u64),
}

/// The keyspace under the exclusive lock, for one command.
pub struct ViewMut<'a> {
    pub(super) keyspace: &'a mut Keyspace,
    pub db: usize,
    pub time: Time,
    pub limits: &'a Limits,
    pub(super) records: &'a mut Records,
    pub report: &'a Report,
    /// How much the command has changed. If it stays 0, the command is not logged.
    pub(super) dirty: u64,
    /// Whether the handler has logged something in place of the command.
    propagated: bool,
}

impl<'a> ViewMut<'a> {
    pub fn new(
        keyspace: &'a mut Keyspace,
        db: usize,
        time: Time,
        limits: &'a Limits,
        records: &'a mut Records,
        report: &'a Report,
    ) -> ViewMut<'a> {
        records.begin_command();
        ViewMut { keyspace, db, time, limits, records, report, dirty: 0, propagated: false }
    }

    /// Ends the command, of which these are the arguments: logs it, if it has changed something and nothing was
    /// logged in its place. Returns how much it has changed.
    // Inlined, because a call copies the view: two instructions in a hundred of a SET.
    #[inline(always)]
    pub fn end(mut self, args: &Args) -> u64 {
        // Keys that the command found expired through `look()`. Their DELs go in front of its records.
        if self.report.has_notes() {
            self.delete_noted();
        }
        if self.dirty > 0 && !self.propagated {
            self.records.push_command(self.db, args);
        }
        self.keyspace.changes += self.dirty;
        self.dirty
    }

    /// Logs this command in place of the one that was sent.
    pub fn propagate<const N: usize>(&mut self, args: [&[u8]; N]) {
        self.propagate_args(args.into_iter());
    }

    /// Logs these arguments in place of the ones that were sent.
    pub fn propagate_args<'w>(&mut self, args: impl ExactSizeIterator<Item = &'w [u8]>) {
        self.records.push(self.db, args);
        self.propagated = true;
    }

    /// The keyspace as readers see it: to look at several keys at once.
    pub fn look(&self) -> View<'_> {
        let ViewMut { db, time, limits, report, .. } = *self;
        View { keyspace: self.keyspace, db, time, limits, report }
    }

    /// The key's entry if it is alive. Not counted.
    pub fn peek(&mut self, key: Key) -> Option<Entry<'_>> {
        self.find(key).map(|EntryMut { entry, heap }| Entry { entry, heap })
    }

    /// The key's value, not counted. WRONGTYPE if it has another type than this.
    pub fn peek_value<T: Type>(&mut self, key: Key) -> Result<Option<T::Look<'_>>, Error> {
        match self.peek(key) {
            Some(entry) => entry.read::<T>().map(Some).ok_or(Error::WrongType),
            None => Ok(None),
        }
    }

    /// The same, counted as a hit or a miss.
    pub fn get<T: Type>(&mut self, key: Key) -> Result<Option<T::Look<'_>>, Error> {
        let (report, db) = (self.report, self.db);
        let found = self.peek_value::<T>(key);
        report.count(db, &key, !matches!(found, Ok(None)));
        found
    }

    /// Changes the key's value, or makes one if the key is missing. WRONGTYPE if it has another type than
    /// this.
    ///
    /// If `change` changes something, subscribers are told the event, the command is logged, and WATCH sees it.
    /// If nothing is left of a collection, the key goes. If `change` fails, a missing key stays missing. In a
    /// value that is there, `change` must check all that can fail before it alters anything.
    pub fn edit<T: Type, R>(
        &mut self,
        key: Key,
        event: &'static str,
        change: impl FnOnce(&mut Edit<T>) -> Result<R, Error>,
    ) -> Result<R, Error> {
        let limits = self.limits;
        let Some(mut entry) = self.find(key) else {
            return self.edit_new(key, event, change);
        };
        let edited = entry.edit(limits, change);
        self.end_edit::<T, R>(key, event, edited)
    }

    /// The same, but if the key is missing nothing is done.
    pub fn edit_if_there<T: Type, R>(
        &mut self,
        key: Key,
        event: &'static str,
        change: impl FnOnce(&mut Edit<T>) -> Result<R, Error>,
    ) -> Result<Option<R>, Error> {
        let limits = self.limits;
        let Some(mut entry) = self.find(key) else {
            return Ok(None);
        };
        let edited = entry.edit(limits, change);
        self.end_edit::<T, R>(key, event, edited).map(Some)
    }

    fn edit_new<T: Type, R>(
        &mut self,
        key: Key,
        event: &'static str,
        change: impl FnOnce(&mut Edit<T>) -> Result<R, Error>,
    ) -> Result<R, Error> {
        let (limits, usage) = (self.limits, self.new_usage());
        let keys = &mut self.db_mut().keys;
        let make = |heap: &mut _| Stored::empty::<T>(&key, usage, heap);
        let (mut new, _is_new) = keys.get_or_insert(key.digest, &key, make);
        let (result, outcome) = new.fill(limits, change);
        if result.is_ok() && outcome == Change::Changed {
            self.announce_new(key);
            self.changed(key, T::CLASS, event);
        } else {
            let large = keys.remove(key.digest, &key, Stored::free).flatten();
            self.discard(large);
        }
        result
    }

    fn end_edit<T: Type, R>(
        &mut self,
        key: Key,
        event: &'static str,
        (result, outcome): (Result<R, Error>, Change),
    ) -> Result<R, Error> {
        debug_assert!(result.is_ok() || outcome == Change::Unchanged, "what can fail comes first");
        match outcome {
            Change::Unchanged => {}
            Change::Changed => self.changed(key, T::CLASS, event),
            Change::Emptied => {
                self.say::<T>(key, event);
                self.delete(key);
            }
        }
        result
    }

    /// Gives `key` a string, whatever it was before.
    pub fn set_string(&mut self, key: Key, value: Arg, ttl: Ttl) {
        let string = NewStr::new(&value);
        match self.find(key) {
            Some(mut entry) => {
                let old = entry.set(string.form());
                let has_deadline = entry.look().has_deadline();
                // What was large in the old value.
                if let Some(old) = old.filter(|old| !old.goes_at_once()) {
                    self.free_later(old.memory(), old);
                }
                if has_deadline && matches!(ttl, Ttl::Gone) {
                    self.exchange_deadline(key, None);
                }
            }
            None => {
                let usage = self.new_usage();
                let make = |heap: &mut _| Stored::new(&key, None, string.form(), usage, heap);
                self.db_mut().keys.get_or_insert(key.digest, &key, make);
                // Without `announce_new`, because no client waits for a string.
                self.report.say(self.db, &key, Class::New, "new");
            }
        }
        self.changed(key, Class::String, "set");
        if let Ttl::Until(deadline) = ttl {
            self.exchange_deadline(key, Some(deadline));
            self.report.say(self.db, &key, Class::Generic, "expire");
        }
    }

    /// Puts this entry, whose key is `key`, into the database, in place of the one that may be there.
    pub fn insert(&mut self, key: Key, event: &'static str, entry: Loose) {
        self.put(key, entry, self.new_usage());
        self.announce_new(key);
        self.changed(key, Class::Generic, event);
    }

    /// That of a key which was not there.
    fn new_usage(&self) -> Usage {
        Usage::new(self.limits.remember, self.time.now)
    }

    fn put(&mut self, key: Key, entry: Loose, usage: Usage) {
        // If an expired entry is in its place, this logs the DEL.
        self.find(key);
        let db = self.db_mut();
        let old = db.delete(key.digest, &key).flatten();
        if let Some(deadline) = entry.look().deadline() {
            db.deadlines.insert((deadline, key.digest));
        }
        db.keys.get_or_insert(key.digest, &key, |heap| entry.fasten(usage, heap));
        self.discard(old);
    }

    /// For ZUNIONSTORE, SORT and their kind: stores what the command has computed, of this type, under `key`. If
    /// that is nothing, deletes the key.
    pub fn replace<T: Type>(&mut self, key: Key, event: &'static str, entry: Option<Loose>) {
        // What the command has read and found expired is deleted first, with DELs: they stand in the order of Redis.
        self.delete_noted();
        let Some(entry) = entry else {
            // If `key` itself was read and expired, it is gone now. If it is expired and was not read, it goes as if
            // it were alive, as in Redis: the command is logged, and no DEL.
            self.delete_what_is_there(key);
            return;
        };
        // As in Redis, a key that is overwritten is not new: it was used as often as before, and clients that wait for it
        // go on waiting.
        let usage = self.find(key).map(|found| found.look().usage().clone());
        let was_there = usage.is_some();
        self.put(key, entry, usage.unwrap_or_else(|| self.new_usage()));
        if !was_there {
            self.announce_new(key);
        }
        self.changed(key, T::CLASS, event);
    }

    /// Moves the entry of `key` to `newkey` of database `db`, over what was there. The events are `from` for `key`
    /// and `to` for `newkey`.
    pub fn rename(&mut self, key: Key, db: usize, newkey: Key, [from, to]: [&'static str; 2]) {
        if self.find(key).is_some()
            && let Some(entry) = self.db_mut().remove(key.digest, &key)
        {
            let usage = entry.look().usage().clone();
            self.in_db(db, |view| {
                view.put(newkey, entry.renamed(&newkey), usage);
                view.announce_new(newkey);
            });
            // In the order in which Redis tells the events.
            self.changed(key, Class::Generic, from);
            self.in_db(db, |view| view.changed(newkey, Class::Generic, to));
        }
    }

    /// Deletes the key; returns whether it was there and alive.
    pub fn delete(&mut self, key: Key) -> bool {
        self.find(key).is_some() && self.delete_what_is_there(key)
    }

    /// The same, though it may be expired.
    fn delete_what_is_there(&mut self, key: Key) -> bool {
        let Some(large) = self.db_mut().delete(key.digest, &key) else {
            return false;
        };
        self.discard(large);
        self.changed(key, Class::Generic, "del");
        true
    }

    /// Tells that a key is there which was not. Clients may wait for it.
    fn announce_new(&mut self, key: Key) {
        self.report.say(self.db, &key, Class::New, "new");
        self.mark_ready(&key);
    }

    /// The command has changed the key: it will be logged, and clients that WATCH the key, or have subscribed
    /// to the event, are told.
    pub(super) fn changed(&mut self, key: Key, class: Class, event: &'static str) {
        self.dirty += 1;
        self.touch_watched(key);
        self.report.say(self.db, &key, class, event);
    }

    /// Tells subscribers an event of this type. The change is counted elsewhere.
    pub fn say<T: Type>(&self, key: Key, event: &'static str) {
        self.report.say(self.db, &key, T::CLASS, event);
    }

    /// Runs `work` in another database of the same keyspace, as the same command.
    pub fn in_db<T>(&mut self, db: usize, work: impl FnOnce(&mut Self) -> T) -> T {
        let home = std::mem::replace(&mut self.db, db);
        let result = work(self);
        self.db = home;
        result
    }

    /// Frees later what was large in an entry that is gone, if anything was.
    pub(super) fn discard(&mut self, large: Option<Box<Large>>) {
        if let Some(large) = large {
            self.free_later(large.memory(), large);
        }
    }

    /// Leaves this, which has so many bytes, to be freed by another thread, after the lock is released.
    pub fn free_later(&mut self, bytes: usize, what: impl Send + Sync + 'static) {
        self.keyspace.free_later(Garbage::new(bytes, what));
    }

    /// The entry if it is alive. If it is expired, it is deleted.
    fn find(&mut self, key: Key) -> Option<EntryMut<'_>> {
        // Most databases have no deadlines. Without one, the key is looked up once.
        let is_expired = !self.db().deadlines.is_empty()
            && self.time.has_expired(self.db().keys.get(key.digest, &key)?);
        if is_expired {
            self.expire(key);
            return None;
        }
        let ViewMut { report, time, limits, .. } = *self;
        let found = self.db_mut().keys.get_mut(key.digest, &key)?;
        report.note_use(found.look().usage(), key.digest, time, limits);
        Some(found)
    }

    pub(super) fn db(&self) -> &Db {
        &self.keyspace.dbs[self.db]
    }

    pub(super) fn db_mut(&mut self) -> &mut Db {
        &mut self.keyspace.dbs[self.db]
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::propagate::Source;
    use crate::types::{Hash, Limits, Packed, Str};

    /// What a command changes, how much it says that it has changed, and whether the key is there then.
    fn run<R>(
        keyspace: &mut Keyspace,
        key: &[u8],
        command: impl FnOnce(&mut ViewMut, Key) -> Result<R, Error>,
    ) -> (Result<R, Error>, u64, bool) {
        let limits = Limits { hash: Packed { entries: 9, value: 9 }, string: 9, ..Limits::NOTHING };
        let time = Time { now: 0, source: Source::Client };
        let (mut records, report) = (Records::default(), Report::default());
        let mut view = ViewMut::new(keyspace, 0, time, &limits, &mut records, &report);
        let key = Key::of(key);
        let result = command(&mut view, key);
        let exists = view.look().peek(key).is_some();
        (result, view.end(&Args::default()), exists)
    }

    #[test]
    fn an_edit_says_by_itself_what_it_has_changed_and_leaves_nothing_empty() {
        let mut keyspace = Keyspace::new(1);
        let mut edit = |change: fn(&mut Edit<Hash>) -> Result<bool, Error>| {
            run(&mut keyspace, b"h", |view, key| view.edit(key, "hset", change))
        };
        // Nothing is done, something fails, and what was done is undone: no key, and nothing to log.
        assert_eq!(edit(|_| Ok(true)), (Ok(true), 0, false));
        assert_eq!(
            edit(|hash| {
                hash.set(b"f", b"v");
                Err(Error::Syntax)
            }),
            (Err(Error::Syntax), 0, false)
        );
        assert_eq!(
            edit(|hash| Ok(hash.set(b"f", b"v") && hash.remove(b"f"))),
            (Ok(true), 0, false)
        );
        assert_eq!(edit(|hash| Ok(hash.set(b"f", b"v"))), (Ok(true), 1, true));
        // To set what is there is a change, to remove what is not there is none.
        assert_eq!(edit(|hash| Ok(hash.set(b"f", b"v"))), (Ok(false), 1, true));
        assert_eq!(edit(|hash| Ok(hash.remove(b"g"))), (Ok(false), 0, true));
        assert_eq!(edit(|_| Err(Error::Syntax)), (Err(Error::Syntax), 0, true));
        assert_eq!(edit(|hash| Ok(hash.remove(b"f"))), (Ok(true), 1, false));
    }

    /// Two keys with the same 48 bits are rare. Here their digests are set.
    #[test]
    fn keys_with_the_same_digest_and_deadline_expire_each_by_itself() {
        let mut keyspace = Keyspace::new(1);
        let twin = |bytes| Key { bytes, digest: 7 };
        let _ = run(&mut keyspace, b"", |view, _| {
            for bytes in [b"a", b"b", b"c"] {
                view.set_string(twin(bytes), Arg::Small(b"v"), Ttl::Until(5_000));
            }
            view.delete(twin(b"a"));
            view.set_deadline(twin(b"b"), None);
            Ok(())
        });
        assert_eq!(keyspace.dbs[0].deadlines.iter().collect::<Vec<_>>(), [&(5_000, 7)]);
        let _ = run(&mut keyspace, b"", |view, _| {
            view.delete(twin(b"c"));
            Ok(())
        });
        assert!(keyspace.dbs[0].deadlines.is_empty());
    }

    #[test]
    fn a_missing_key_is_made_only_by_an_edit_that_may_and_another_type_is_refused() {
        let mut keyspace = Keyspace::new(1);
        let append = |string: &mut Edit<Str>| string.append(Arg::Small(b""));
        let remove = |hash: &mut Edit<Hash>| Ok(hash.remove(b"f"));
        assert_eq!(
            run(&mut keyspace, b"k", |v, k| v.edit_if_there(k, "hdel", remove)),
            (Ok(None), 0, false)
        );
        // A string may be empty.
        assert_eq!(run(&mut keyspace, b"k", |v, k| v.edit(k, "append", append)), (Ok(0), 1, true));
        assert_eq!(
            run(&mut keyspace, b"k", |v, k| v.edit_if_there(k, "append", append)),
            (Ok(Some(0)), 1, true)
        );
        let refused = run(&mut keyspace, b"k", |v, k| v.edit(k, "hdel", remove));
        assert_eq!(refused, (Err(Error::WrongType), 0, true));
        let refused = run(&mut keyspace, b"k", |v, k| v.edit_if_there(k, "hdel", remove));
        assert_eq!(refused, (Err(Error::WrongType), 0, true));
    }
}
