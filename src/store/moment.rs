//! The keyspace as it was at one moment, for a snapshot that is written while clients go on.
//!
//! ```text
//! Moment::begin   the exclusive lock, for some microseconds: the moment
//! next, next, …   the exclusive lock each time, for some tens of microseconds: some hundred copies.
//!                 What whoever takes them does with them, such as writing, is done without a lock
//! drop            the exclusive lock again: nothing is put aside any more
//! ```
//!
//! For the copies the shared lock would do. But std's lock lets no reader in while a writer waits, so a snapshot beside clients
//! that run long scripts would never end. For the same reason it copies for longer if it has waited for long.
//!
//! What a change meanwhile owes to the moment is told in keys.rs. Between two commands of a transaction, or of a
//! script, nobody else gets the exclusive lock. So no moment is in the middle of one.
//!
//! **How Redis does it**: a fork is the moment.

use super::keys::Step;
use super::{Db, Keyspace, Origin, Store};
use crate::lazyfree::Garbage;
use crate::types::Copies;
use std::sync::MutexGuard;
use std::time::{Duration, Instant};

/// If it has waited this many times as long for the lock, it may hold it for so long; at most for [`LONGEST`].
const SHARE: u32 = 4;
const LONGEST: Duration = Duration::from_millis(1);

/// There is one at a time.
pub struct Moment<'a> {
    store: &'a Store,
    _alone: MutexGuard<'a, ()>,
    /// How much had been changed, what the keys took, how many there were, and where the data was in the history of a primary.
    pub changes: u64,
    pub bytes: usize,
    pub keys: usize,
    pub origin: Option<Origin>,
    /// Databases of which not all was taken, the next one last.
    left: Vec<Size>,
    /// The most bytes that were put aside at once.
    pub peak: usize,
}

/// A database as it was at that moment.
#[derive(Clone, Copy)]
pub struct Size {
    pub db: usize,
    pub keys: usize,
    pub deadlines: usize,
}

impl<'a> Moment<'a> {
    pub fn begin(store: &'a Store) -> Moment<'a> {
        let _alone = store.turn_for_moment();
        let mut keyspace = store.write_when_free();
        let mut left = Vec::new();
        for (number, db) in keyspace.dbs.iter_mut().enumerate().filter(|(_, db)| db.keys.len() > 0)
        {
            left.push(Size { db: number, keys: db.keys.len(), deadlines: db.deadlines.len() });
            db.keys.begin_snapshot(number);
        }
        left.reverse();
        let (memory, origin) = (keyspace.memory(), keyspace.origin().cloned());
        let (bytes, keys, changes) = (memory.bytes(), memory.keys, keyspace.changes);
        drop(keyspace);
        Moment { store, _alone, changes, bytes, keys, origin, left, peak: 0 }
    }

    /// Some entries of a database. The databases come in the order of their numbers. None behind the last.
    pub fn next(&mut self) -> Option<(Size, Copies)> {
        loop {
            let size = *self.left.last()?;
            // A script that is busy has lent the lock. It may have changed keys, but not what was put aside.
            let began = Instant::now();
            let mut keyspace = self.store.write_anyway();
            let most = (began.elapsed() / SHARE).min(LONGEST);
            let mut dbs = keyspace.dbs.with_retired();
            let next = dbs.find_map(|db| db.keys.next_of_snapshot(size.db, most));
            drop(dbs);
            drop(keyspace);
            // Were the database gone, keys would be missing, and the snapshot would fail.
            let Step { copies, put_aside, is_over } =
                next.unwrap_or_else(|| Step { is_over: true, ..Step::default() });
            if is_over {
                self.left.pop();
            }
            self.peak = self.peak.max(put_aside);
            if copies.len() > 0 {
                return Some((size, copies));
            }
        }
    }
}

impl Drop for Moment<'_> {
    fn drop(&mut self) {
        let mut keyspace = self.store.write_anyway();
        let asides: Vec<_> = keyspace.dbs.iter_mut().map(|db| db.keys.end_snapshot()).collect();
        let retired = keyspace.dbs.end_retirement();
        drop(keyspace);
        // Without the lock, because it may take long.
        drop((asides, retired));
    }
}

impl Keyspace {
    /// Frees a database that nobody can reach any more; if a snapshot is made of it, when that is over.
    pub(super) fn retire(&mut self, db: Db) {
        match db.keys.are_in_snapshot() {
            true => self.dbs.retire(db),
            false => self.free_later(Garbage::new(0, db)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::key::Key;
    use crate::propagate::{Records, Source};
    use crate::resp::Arg;
    use crate::store::{Report, Time, Ttl, ViewMut};
    use crate::types::table::random_below;
    use crate::types::{
        Edit, Entry, Hash, Limits, List, Member, NodeLimits, Packed, Part, Set, Side, Str, Zset,
    };
    use std::collections::BTreeMap;

    const DBS: usize = 3;
    const KEYS: usize = 2_000;

    /// What is at a key: its deadline, and its value as commands that make it.
    type State = BTreeMap<(usize, Vec<u8>), (Option<u64>, Vec<Vec<u8>>)>;

    fn describe(entry: Entry) -> (Option<u64>, Vec<Vec<u8>>) {
        let mut parts = Vec::new();
        entry.value().parts(&mut |part| {
            parts.push(match part {
                Part::InOrder(bytes) | Part::Alone(bytes) => bytes.to_vec(),
                Part::Pair(name, value) => [name, b"=", value].concat(),
            });
        });
        if !matches!(entry.value().type_name(), "list") {
            parts.sort();
        }
        (entry.deadline(), parts)
    }

    fn state(keyspace: &Keyspace) -> State {
        let of = |db| {
            keyspace.entries(db).map(move |entry| ((db, entry.key().to_vec()), describe(entry)))
        };
        (0..DBS).flat_map(of).collect()
    }

    fn text(length: usize) -> Vec<u8> {
        vec![b'a' + random_below(26) as u8; length]
    }

    /// Changes something, by any of the ways in which it can be changed.
    fn change(keyspace: &mut Keyspace, flushes: bool) {
        let limits = Limits {
            string: 1 << 20,
            list: NodeLimits { bytes: 200, count: 8 },
            hash: Packed { entries: 4, value: 20 },
            set: Packed { entries: 4, value: 20 },
            zset: Packed { entries: 4, value: 20 },
            ..Limits::NOTHING
        };
        let time = Time { now: 1_000, source: Source::Client };
        let (mut records, report) = (Records::default(), Report::default());
        let (db, name) = (random_below(DBS), random_below(KEYS).to_string());
        let key = Key::of(name.as_bytes());
        let mut view = ViewMut::new(keyspace, db, time, &limits, &mut records, &report);
        let word = text(1 + random_below(30));
        let long = if random_below(20) == 0 { text(70_000) } else { word.clone() };
        let other = Key { bytes: b"other", ..Key::of(b"other") };
        let ttl = if random_below(4) == 0 {
            Ttl::Until(900 + random_below(200) as u64)
        } else {
            Ttl::Gone
        };
        let fill = |hash: &mut Edit<Hash>| Ok(hash.set(&word, &long));
        let add = |set: &mut Edit<Set>| Ok(set.add(Member::Bytes(&word)));
        let push = |list: &mut Edit<List>| {
            list.push(Side::Right, &word);
            Ok(())
        };
        let put = |zset: &mut Edit<Zset>| {
            zset.put(&word, |_| Some(1.5));
            Ok(())
        };
        let append = |string: &mut Edit<Str>| string.append(Arg::Small(&word));
        let patch = |string: &mut Edit<Str>| string.patch(1, &word).map(drop);
        match random_below(if flushes { 1_000 } else { 990 }) {
            0..300 => view.set_string(key, Arg::Small(&long), ttl),
            300..400 => drop(view.delete(key)),
            400..450 => drop(view.edit(key, "append", append)),
            450..500 => drop(view.edit_if_there(key, "setrange", patch)),
            500..600 => drop(view.edit(key, "hset", fill)),
            600..700 => drop(view.edit(key, "sadd", add)),
            700..780 => drop(view.edit(key, "rpush", push)),
            780..850 => drop(view.edit(key, "zadd", put)),
            850..870 if view.peek(key).is_some() => view.set_deadline(key, Some(950)),
            870..900 if view.peek(key).is_some() => view.set_deadline(key, None),
            900..950 => view.rename(key, random_below(DBS), other, ["rename_from", "rename_to"]),
            950..980 => drop(view.look().peek(key)),
            995..998 => view.swap(0, random_below(DBS)),
            998.. => view.flush(db),
            _ => {}
        }
        view.end(&crate::resp::Args::default());
        drop(keyspace.garbage());
    }

    #[test]
    fn a_moment_has_what_was_there_whatever_changes_meanwhile() {
        for round in 0..10 {
            let store = Store::new(Keyspace::new(DBS));
            for _ in 0..4_000 {
                change(&mut store.write_anyway(), false);
            }
            let before = state(&store.read_anyway());
            let mut moment = Moment::begin(&store);
            assert_eq!(moment.keys, before.len());
            let mut found = State::new();
            loop {
                // From none to many between two steps.
                for _ in 0..random_below(1 << round) {
                    change(&mut store.write_anyway(), true);
                }
                let Some((size, copies)) = moment.next() else {
                    break;
                };
                for entry in copies.iter() {
                    let twice = found.insert((size.db, entry.key().to_vec()), describe(entry));
                    assert!(twice.is_none());
                }
            }
            assert!(found == before, "round {round}: {} of {}", found.len(), before.len());
            drop(moment);
            let mut keyspace = store.write_anyway();
            assert!(keyspace.dbs.with_retired().all(|db| !db.keys.are_in_snapshot()));
            assert_eq!(keyspace.dbs.with_retired().count(), keyspace.dbs.iter().count());
        }
    }

    #[test]
    fn while_a_moment_is_taken_others_write_and_the_next_one_waits() {
        let store = Store::new(Keyspace::new(DBS));
        change(&mut store.write_anyway(), false);
        let moment = Moment::begin(&store);
        assert!(store.try_write(false).is_some());
        std::thread::scope(|scope| {
            let next = scope.spawn(|| Moment::begin(&store).keys);
            std::thread::yield_now();
            assert!(!next.is_finished());
            drop(moment);
            next.join().unwrap();
        });
    }
}
