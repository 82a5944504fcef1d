//! Memory is exceeded, so keys are evicted (store/evict.rs) before a command runs that may take more.
//!
//! ```text
//! SET k v    the exclusive lock ─▶ is `maxmemory` exceeded? ─▶ evict, for half a millisecond at most ─▶ SET
//!                                    ▲ if it still is,             │
//!                                    └── the lock is given back ◀──┘    so that others may come in
//! ```
//!
//! Asked before each command, so at most the last one has exceeded the limit. Who comes then evicts for it. Nobody who
//! does not need memory waits: that is what the lock is given back for. If a tenth of a second is not enough, the thread of
//! src/evict.rs does the rest (server/eviction.rs).
//!
//! Nothing is evicted inside of an EXEC or a script, nor while CLIENT PAUSE keeps the data as it is, nor by a replay, nor by a
//! replica, whose primary evicts for it (unless `replica-ignore-maxmemory` is `no`).
//!
//! **How Redis does it**: `performEvictions` in evict.c, before any command, also one that reads. Its time is no part of
//! the command's, and so not in the slow log; here it is.

use super::Batch;
use crate::store::{Busy, Data};
use std::sync::atomic::Ordering::Relaxed;
use std::thread;
use std::time::{Duration, Instant};

/// What has become of an attempt to get below the limit.
#[derive(Clone, Copy, PartialEq)]
pub enum Room {
    Enough,
    /// The time is up, and there are more keys to evict.
    NotYet,
    /// No key may be evicted.
    Nothing,
}

/// After so many keys the clock is read.
const KEYS: usize = 16;

/// One part in so many of `maxmemory` may be in memory though it is gone.
const UNFREED: usize = 8;

/// How long a command waits until no more than that is left.
const PATIENCE: Duration = Duration::from_millis(100);

/// Time for others, between two evictions of one command.
const PAUSE: Duration = Duration::from_micros(200);

impl Batch<'_> {
    /// Takes the exclusive lock, and evicts until memory is not exceeded. Returns false if it still is, and nothing can be
    /// evicted.
    pub fn make_room(&mut self) -> Result<bool, Busy> {
        self.exclude()?;
        loop {
            self.let_lazyfree_follow()?;
            match self.evict_some() {
                Room::Enough => return Ok(true),
                Room::Nothing => return Ok(false),
                Room::NotYet if self.used() <= self.server.eviction.ceiling.load(Relaxed) => {
                    return Ok(true);
                }
                Room::NotYet => {
                    self.give_back();
                    thread::sleep(PAUSE);
                    self.exclude()?;
                }
            }
        }
    }

    /// Large values that are gone do not count any more, and are in memory until lazyfree has freed them. If these are
    /// many, whoever makes room waits for it without a lock.
    fn let_lazyfree_follow(&mut self) -> Result<(), Busy> {
        let most = self.server.config.maxmemory.get() / UNFREED;
        let to_be_freed = || self.server.stats.bytes_to_be_freed.load(Relaxed);
        if to_be_freed() + self.keyspace().garbage_bytes <= most {
            return Ok(());
        }
        self.give_back();
        let begin = Instant::now();
        while to_be_freed() > most && begin.elapsed() < PATIENCE {
            thread::sleep(PAUSE);
        }
        self.exclude()
    }

    /// Evicts under the exclusive lock, for as long as one may hold it.
    pub fn evict_some(&mut self) -> Room {
        let config = &self.server.config;
        let limit = config.maxmemory.get();
        // CLIENT PAUSE, or REPLICAOF, may have come while this thread waited for the lock.
        let stays = || self.server.pause.is_on() || self.server.primary.evicts_for_us(config);
        if limit == 0 || self.used() <= limit || stays() {
            self.server.eviction.note(true);
            return Room::Enough;
        }
        // Half of a cache is better than none, if a client holds so much that no eviction is enough.
        if self.server.memory(Data::default()).is_held_by_clients(limit) {
            self.server.eviction.note(false);
            return Room::Nothing;
        }
        let (policy, samples) = (config.maxmemory_policy.get(), config.maxmemory_samples.get());
        let longest = longest(config.maxmemory_eviction_tenacity.get());
        let begin = Instant::now();
        let mut evicted = 0;
        let room = loop {
            if !self.view_mut(0).evict(policy, samples) {
                break Room::Nothing;
            }
            evicted += 1;
            if self.used() <= limit {
                break Room::Enough;
            }
            if evicted % KEYS == 0 && begin.elapsed() >= longest {
                break Room::NotYet;
            }
        };
        config.latency.note("eviction-cycle", begin.elapsed());
        self.server.eviction.note(room == Room::Enough);
        room
    }

    /// Whether there would be room if clients held nothing.
    pub fn has_room_without_clients(&self) -> bool {
        let held = self.server.config.clients.bytes();
        self.used().saturating_sub(held) <= self.server.config.maxmemory.get()
    }

    /// Bytes in use that count, under the lock that is held.
    pub fn used(&self) -> usize {
        self.server.memory(self.keyspace().memory()).limited()
    }
}

/// How long one eviction may hold the lock: Redis's numbers.
fn longest(tenacity: usize) -> Duration {
    match tenacity {
        0..=10 => Duration::from_micros(50 * tenacity as u64),
        11..100 => Duration::from_micros((500.0 * 1.15f64.powi(tenacity as i32 - 10)) as u64),
        _ => Duration::MAX,
    }
}
