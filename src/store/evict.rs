//! Eviction: which key goes when `maxmemory` is reached, and what is told of it.
//!
//! The key that was not used for longest would be the best to go, but to know it one would have to keep all keys in the
//! order of their use, and to change that order under the exclusive lock with each GET. So a few keys are drawn, and of
//! these the best goes. The better ones of those that stay are kept as *candidates* for the next time: so the choice is
//! soon as good as if many were drawn.
//!
//! ```text
//! maxmemory-samples 5                       candidates, up to 24, the best at the end
//!   slots of the table, at random ──────▶ [ 3 s   8 s   40 s   52 s   97 s ] ──▶ is it still there, and was it not
//!   (fourteen keys each, or so)             idle times; or frequencies          used meanwhile? then it is evicted
//! ```
//!
//! To see when the keys of a slot were used is to read the slot, and none of their values (types/usage.rs). Each key
//! has the same chance to be drawn, because each slot has, and is seen whole. The slots are seldom in the processor's
//! caches, so those for several evictions are read at once, and then the keys that will go ([`AT_ONCE`]).
//!
//! | policy              | the first to go is                                                           |
//! |---------------------|------------------------------------------------------------------------------|
//! | `…-lru`, `…-lfu`    | the candidate that was not used for longest, or least often                  |
//! | `…-random`          | any                                                                          |
//! | `volatile-ttl`      | the one with the nearest deadline: exactly that, because they have an order  |
//! | `noeviction`        | none                                                                         |
//!
//! For `volatile-…` only keys with a deadline are drawn. If few have one, they are not looked for in the table: the walk
//! through the index of deadlines goes on where it stopped the last time.
//!
//! An evicted key is deleted with a DEL in the log, a unit of its own; those who WATCH it see it, and subscribers hear
//! `evicted`. When that happens, and for how long: batch/evicting.rs and src/evict.rs.
//!
//! **How Redis does it**: evict.c, with sixteen candidates (`EvictionPoolLRU`). It evicts a candidate even if it was
//! used since it was drawn, and draws for volatile-ttl too.

use super::{Db, Deadlines, Keyspace, ViewMut};
use crate::config::policy::{First, Policy};
use crate::key::Key;
use crate::notify::Class;
use crate::types::{Entry, Remember, Usage, table};
use std::collections::HashMap;
use std::ops::Bound::{Excluded, Unbounded};

/// What is remembered from one eviction to the next.
#[derive(Default)]
pub(super) struct Evictor {
    /// The best, which goes first, is the last.
    candidates: Vec<Candidate>,
    /// How many are to go before keys are drawn again.
    to_go: usize,
    /// Under which policy they are candidates.
    policy: Option<Policy>,
    random: Random,
    /// The database from which a random key was taken last.
    last_db: usize,
    /// Where in the order of the deadlines of each database the walk has stopped.
    walked_to: HashMap<usize, (u64, u64)>,
}

/// Who stands in the order of eviction where: the smaller the number, the sooner it goes.
struct Candidate {
    rank: u64,
    db: usize,
    digest: u64,
}

/// When those that go at once have gone, there are as many as in Redis.
const CANDIDATES: usize = 16 + AT_ONCE;

/// Keys are drawn for so many evictions at once: the processor waits for all of their slots together (types/table.rs). With
/// 50 clients that SET new keys at `maxmemory`, in pipelines of 16, that takes a third off the time of a command, and three
/// quarters off the 99th percentile, because the lock is held for a shorter time.
const AT_ONCE: usize = 8;

/// So many more than `maxmemory-samples` are drawn for each eviction: they are cheap, because a slot has a dozen.
const MORE: usize = 3;

/// So many slots are visited at once, at most.
const SLOTS: usize = 16;

/// With fewer keys with a deadline than one in so many, they are looked for in the index of deadlines.
const FEW: usize = 32;

/// So many times the candidates may all be gone before it is given up.
const ROUNDS: usize = 100;

/// Numbers from a simple generator (Knuth's constants).
#[derive(Default)]
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 =
            self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        // The low bits of such a generator are bad, so the high ones are mixed in.
        self.0 ^ self.0.rotate_left(32)
    }
}

/// By what keys are ranked.
#[derive(Clone, Copy)]
struct Ranking {
    policy: Policy,
    remember: Remember,
    samples: usize,
    now: u64,
}

impl Ranking {
    /// Where in the order of eviction an entry stands. It does not change while the key is not used.
    fn rank(self, entry: Entry) -> u64 {
        let usage = entry.usage();
        match self.remember {
            Remember::LastUse => usage.last_use(self.now),
            // Of two that were used as often, the one that was counted earlier goes.
            Remember::Frequency(counting) => {
                usage.frequency(counting, self.now) << 8 | (255 - usage.minutes(self.now))
            }
        }
    }

    fn may_go(self, entry: Entry) -> bool {
        !self.policy.is_volatile || entry.has_deadline()
    }

    /// How many keys of a database may go.
    fn count(self, db: &Db) -> usize {
        if self.policy.is_volatile { db.deadlines.len() } else { db.keys.len() }
    }
}

impl Evictor {
    fn offer(&mut self, rank: u64, db: usize, digest: u64) {
        let all = &mut self.candidates;
        if all.len() == CANDIDATES && rank >= all[0].rank {
            return;
        }
        if let Some(known) = all.iter().position(|other| other.digest == digest && other.db == db) {
            all.remove(known);
        }
        if all.len() == CANDIDATES {
            all.remove(0);
        }
        let at = all.partition_point(|other| other.rank > rank);
        all.insert(at, Candidate { rank, db, digest });
    }

    /// Calls `visit` for some keys of a database that may go; if there are any, for one at least.
    fn draw<'a>(
        &mut self,
        number: usize,
        db: &'a Db,
        ranking: Ranking,
        mut visit: impl FnMut(&mut Self, u64, Entry<'a>),
    ) {
        let Db { keys, deadlines } = db;
        let samples = ranking.samples.min(ranking.count(db));
        let mut seen = 0;
        if !ranking.policy.is_volatile || deadlines.len() * FEW >= keys.len() {
            // Slots may be empty, or have no key that may go.
            let mut slots = 0;
            while slots < samples * FEW {
                let numbers: [u64; SLOTS] = std::array::from_fn(|_| self.random.next());
                let count = (samples - seen).div_ceil(table::FILL).min(SLOTS);
                keys.visit_slots(&numbers[..count], |digest, entry| {
                    if ranking.may_go(entry) {
                        visit(self, digest, entry);
                        seen += 1;
                    }
                });
                if seen >= samples {
                    return;
                }
                slots += count;
            }
        }
        for (_, digest) in self.walk(number, deadlines, samples.saturating_sub(seen)) {
            let mut found = keys.with_digest(digest);
            if let Some(entry) = found.find(|entry| entry.has_deadline()) {
                visit(self, digest, entry);
            }
        }
    }

    /// The next deadlines in their order; after the last comes the first.
    fn walk(&mut self, db: usize, deadlines: &Deadlines, count: usize) -> Vec<(u64, u64)> {
        let walked_to = self.walked_to.entry(db).or_default();
        let behind = deadlines.range((Excluded(*walked_to), Unbounded));
        let next: Vec<_> =
            behind.chain(deadlines).take(count.min(deadlines.len())).copied().collect();
        *walked_to = next.last().copied().unwrap_or(*walked_to);
        next
    }
}

impl Keyspace {
    /// The key that is to go next: its database, its digest, and itself. None if none may go.
    fn victim(&mut self, ranking: Ranking) -> Option<(usize, u64, Vec<u8>)> {
        match ranking.policy.first {
            First::Nothing => None,
            First::NearestDeadline => self.nearest_deadline(),
            First::Random => self.random_victim(ranking),
            First::LeastRecent | First::LeastFrequent => self.best_candidate(ranking),
        }
    }

    fn best_candidate(&mut self, ranking: Ranking) -> Option<(usize, u64, Vec<u8>)> {
        let Keyspace { dbs, evictor, .. } = self;
        if evictor.policy.replace(ranking.policy) != Some(ranking.policy) {
            evictor.candidates.clear();
            evictor.to_go = 0;
        }
        for _ in 0..ROUNDS {
            if evictor.to_go == 0 {
                let mut are_there = false;
                let samples = (ranking.samples + MORE) * AT_ONCE;
                let many = Ranking { samples, ..ranking };
                for (number, db) in dbs.iter().enumerate().filter(|(_, db)| ranking.count(db) > 0) {
                    are_there = true;
                    evictor.draw(number, db, many, |evictor, digest, entry| {
                        evictor.offer(ranking.rank(entry), number, digest);
                    });
                }
                if !are_there {
                    return None;
                }
                evictor.to_go = AT_ONCE;
                let next = evictor.candidates.iter().rev().take(AT_ONCE);
                table::warm(next.map(|next| (&*dbs[next.db].keys, next.digest)));
            }
            evictor.to_go -= 1;
            while let Some(Candidate { rank, db, digest }) = evictor.candidates.pop() {
                let mut found = dbs[db].keys.with_digest(digest);
                let Some(entry) = found.find(|entry| ranking.may_go(*entry)) else {
                    continue;
                };
                let rank_now = ranking.rank(entry);
                if rank_now <= rank {
                    return Some((db, digest, entry.key().to_vec()));
                }
                // It was used since it was drawn. If all were, others are to be drawn.
                evictor.offer(rank_now, db, digest);
                break;
            }
            evictor.to_go = 0;
        }
        None
    }

    /// Any key, of each database in turn.
    fn random_victim(&mut self, ranking: Ranking) -> Option<(usize, u64, Vec<u8>)> {
        let Keyspace { dbs, evictor, .. } = self;
        let used = dbs.iter().count();
        let mut turn = (1..=used).map(|step| (evictor.last_db + step) % used);
        let number = turn.find(|number| ranking.count(&dbs[*number]) > 0)?;
        evictor.last_db = number;
        let db = &dbs[number];
        let (digest, entry) = match ranking.policy.is_volatile {
            false => db.keys.random()?,
            true => {
                let mut drawn = Vec::new();
                let one = Ranking { samples: 1, ..ranking };
                evictor.draw(number, db, one, |_, digest, entry| drawn.push((digest, entry)));
                let at = evictor.random.next() as usize % drawn.len().max(1);
                *drawn.get(at)?
            }
        };
        Some((number, digest, entry.key().to_vec()))
    }

    fn nearest_deadline(&self) -> Option<(usize, u64, Vec<u8>)> {
        let firsts = self.dbs.iter().enumerate().filter_map(|(number, db)| {
            let (deadline, digest) = db.deadlines.first()?;
            Some((*deadline, number, *digest))
        });
        let (deadline, number, digest) = firsts.min()?;
        let mut found = self.dbs[number].keys.with_digest(digest);
        let entry = found.find(|entry| entry.deadline() == Some(deadline))?;
        Some((number, digest, entry.key().to_vec()))
    }

    /// Visits what the entries of some slots remember of their use, from this cursor on (types/usage.rs). Returns where to
    /// go on; 0: all were visited.
    pub fn visit_usages(&self, db: usize, cursor: u64, visit: impl Fn(&Usage)) -> u64 {
        let mut next = cursor;
        for _ in 0..SLOTS_AT_ONCE {
            next = self.dbs[db].keys.scan(next, |entry| visit(entry.usage()));
            if next == 0 {
                break;
            }
        }
        next
    }
}

/// Some tenths of a millisecond.
const SLOTS_AT_ONCE: usize = 2_000;

impl ViewMut<'_> {
    /// Evicts the key that is to go next. Returns false if none may go.
    pub fn evict(&mut self, policy: Policy, samples: usize) -> bool {
        let ranking =
            Ranking { policy, samples, remember: self.limits.remember, now: self.time.now };
        let Some((db, digest, bytes)) = self.keyspace.victim(ranking) else {
            return false;
        };
        self.in_db(db, |view| view.evict_key(Key { bytes: &bytes, digest }));
        true
    }

    fn evict_key(&mut self, key: Key) {
        self.records.begin();
        let large = self.db_mut().delete(key.digest, &key).flatten();
        self.discard(large);
        self.records.push(self.db, [&b"DEL"[..], &key].into_iter());
        self.records.end();
        self.touch_watched(key);
        self.report.say(self.db, &key, Class::Evicted, "evicted");
        self.report.evicted.set(self.report.evicted.get() + 1);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::propagate::{Records, Source};
    use crate::resp::Arg;
    use crate::store::{Report, Time, Ttl};
    use crate::types::Limits;

    const BEGIN: u64 = 1_764_300_000_000;

    /// Runs `work` on a view of database 0 at this time.
    fn at<R>(keyspace: &mut Keyspace, now: u64, work: impl FnOnce(&mut ViewMut) -> R) -> R {
        let limits = Limits { string: 9, ..Limits::NOTHING };
        let time = Time { now, source: Source::Client };
        let (mut records, report) = (Records::default(), Report::default());
        work(&mut ViewMut::new(keyspace, 0, time, &limits, &mut records, &report))
    }

    fn set(view: &mut ViewMut, key: u64, ttl: Ttl) {
        view.set_string(Key::of(&key.to_be_bytes()), Arg::Small(b"v"), ttl);
    }

    fn policy(name: &str) -> Policy {
        Policy::named(name)
    }

    fn keys(keyspace: &Keyspace) -> Vec<u64> {
        let numbers = keyspace.entries(0).map(|entry| entry.key().try_into().unwrap());
        numbers.map(u64::from_be_bytes).collect()
    }

    #[test]
    fn of_many_keys_those_that_were_not_used_for_longest_go() {
        const KEYS: u64 = 20_000;
        let mut keyspace = Keyspace::new(1);
        for key in 0..KEYS {
            at(&mut keyspace, BEGIN + 10 * key, |view| set(view, key, Ttl::Gone));
        }
        at(&mut keyspace, BEGIN + 10 * KEYS, |view| {
            (0..KEYS / 2).for_each(|_| assert!(view.evict(policy("allkeys-lru"), 5)));
        });
        let left = keys(&keyspace);
        let young = left.iter().filter(|key| **key >= KEYS / 2).count();
        assert_eq!(left.len() as u64, KEYS / 2);
        assert!(young as f64 > 0.95 * left.len() as f64, "{young} of {}", left.len());
    }

    #[test]
    fn a_candidate_that_was_used_since_it_was_drawn_stays() {
        const KEYS: u64 = 20_000;
        let mut keyspace = Keyspace::new(1);
        at(&mut keyspace, BEGIN, |view| (0..KEYS).for_each(|key| set(view, key, Ttl::Gone)));
        let drawn = at(&mut keyspace, BEGIN + 10_000, |view| {
            (0..20).for_each(|_| assert!(view.evict(policy("allkeys-lru"), 5)));
            view.keyspace.evictor.candidates.iter().map(|known| known.digest).collect::<Vec<_>>()
        });
        assert!(drawn.len() > 8);
        let are_there = |keyspace: &Keyspace| {
            drawn
                .iter()
                .filter(|digest| keyspace.dbs[0].keys.with_digest(**digest).count() > 0)
                .count()
        };
        at(&mut keyspace, BEGIN + 20_000, |view| {
            for digest in &drawn {
                let found = view.keyspace.dbs[0].keys.with_digest(*digest).next();
                let key = found.map(|entry| entry.key().to_vec());
                key.inspect(|key| assert!(view.peek(Key::of(key)).is_some()));
            }
            (0..200).for_each(|_| assert!(view.evict(policy("allkeys-lru"), 5)));
        });
        assert_eq!(are_there(&keyspace), drawn.len());
    }

    #[test]
    fn under_a_volatile_policy_only_keys_with_a_deadline_go_however_few_they_are() {
        for name in ["volatile-lru", "volatile-lfu", "volatile-random", "volatile-ttl"] {
            for with_deadline in [1u64, 3, 5_000] {
                let mut keyspace = Keyspace::new(3);
                at(&mut keyspace, BEGIN, |view| {
                    (0..10_000).for_each(|key| set(view, key, Ttl::Gone));
                    let later =
                        (0..with_deadline).map(|key| (key, Ttl::Until(BEGIN + 9_000 + key)));
                    later.for_each(|(key, ttl)| set(view, key, ttl));
                    (0..with_deadline).for_each(|_| assert!(view.evict(policy(name), 5), "{name}"));
                    assert!(!view.evict(policy(name), 5), "{name}");
                });
                let left = keys(&keyspace);
                assert_eq!(left.len() as u64, 10_000 - with_deadline);
                assert!(left.iter().all(|key| *key >= with_deadline));
            }
        }
    }

    /// In each database the walk goes on where it stopped there. If it went on where it stopped in the other one, it would
    /// begin anew each time where all deadlines are nearer.
    #[test]
    fn of_few_keys_with_a_deadline_each_is_seen_in_each_database() {
        const FEW: u64 = 100;
        let mut keyspace = Keyspace::new(2);
        at(&mut keyspace, BEGIN, |view| {
            for db in 0..2 {
                view.in_db(db as usize, |view| {
                    (0..10_000).for_each(|key| set(view, key, Ttl::Gone));
                    let later = |key| Ttl::Until(BEGIN + (1 + db) * 1_000_000 + key);
                    (0..FEW).for_each(|key| set(view, key, later(key)));
                });
            }
        });
        at(&mut keyspace, BEGIN + 100_000, |view| {
            for (db, last) in [(0, FEW - 1), (1, FEW)] {
                view.in_db(db, |view| {
                    (0..last)
                        .for_each(|key| assert!(view.peek(Key::of(&key.to_be_bytes())).is_some()));
                });
            }
            (0..FEW / 5).for_each(|_| assert!(view.evict(policy("volatile-lru"), 5)));
        });
        assert!(!keys(&keyspace).contains(&(FEW - 1)), "that was not used for longest");
    }

    /// A rank that went up while nobody uses the key would be lower for whichever key was drawn earlier.
    #[test]
    fn the_rank_of_a_key_stays_while_it_is_not_used() {
        let mut keyspace = Keyspace::new(1);
        at(&mut keyspace, BEGIN, |view| set(view, 1, Ttl::Gone));
        let mut ranks = Vec::new();
        for minutes in (0..3 * 24 * 60).step_by(4) {
            let (now, last_use) = (BEGIN + minutes * 60_000, Remember::LastUse);
            while keyspace.visit_usages(0, 0, |usage| usage.keep_up(last_use, now)) > 0 {}
            let rank = |now| {
                let policy = policy("allkeys-lru");
                let ranking = Ranking { policy, remember: last_use, samples: 5, now };
                ranking.rank(keyspace.entries(0).next().unwrap())
            };
            ranks.push(rank(now));
            (0..100).for_each(|i| assert_eq!(rank(now + 777 * i), rank(now), "{minutes} {i}"));
        }
        assert!(ranks.is_sorted_by(|earlier, later| later <= earlier));
    }

    #[test]
    fn the_nearest_deadline_is_the_first() {
        let mut keyspace = Keyspace::new(2);
        at(&mut keyspace, BEGIN, |view| {
            (0..1_000).for_each(|key| {
                let ttl = Ttl::Until(BEGIN + 1_000 + 7 * key % 1_000);
                view.in_db(key as usize % 2, |view| set(view, key, ttl));
            });
            for step in 0..1_000 {
                let firsts = view.keyspace.dbs.iter().filter_map(|db| db.deadlines.first());
                assert_eq!(firsts.min().map(|(deadline, _)| *deadline), Some(BEGIN + 1_000 + step));
                assert!(view.evict(policy("volatile-ttl"), 5));
            }
        });
    }

    #[test]
    fn an_eviction_goes_on_from_database_to_database_until_there_is_no_key() {
        for name in ["allkeys-random", "allkeys-lru", "allkeys-lfu"] {
            let mut keyspace = Keyspace::new(9);
            at(&mut keyspace, BEGIN, |view| {
                for db in [1, 4, 8] {
                    view.in_db(db, |view| (0..50).for_each(|key| set(view, key, Ttl::Gone)));
                }
                (0..150).for_each(|_| assert!(view.evict(policy(name), 3), "{name}"));
                assert!(!view.evict(policy(name), 3));
                assert!(!view.evict(policy("noeviction"), 3));
            });
            assert_eq!(keyspace.memory().keys, 0);
        }
    }
}
