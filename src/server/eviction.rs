//! What all threads know of `maxmemory`: whether it is exceeded, since when, and how far clients may go meanwhile.
//!
//! Mostly memory is exceeded by one command, and the next one evicts a key or two before it runs. It may be exceeded by
//! much: CONFIG SET has lowered the limit, or subscribers have stopped reading. Then the thread of src/evict.rs evicts
//! for a while, and clients need not wait for it, but they may not make it worse:
//!
//! ```text
//! bytes  ▲                          the thread begins        ceiling: what was in use then. Whoever would be above
//!        │             ┌──────┐◀── here                      it waits for its own eviction.
//!        │   clients ──┘      └──────┐  the ceiling comes down with what is in use
//! ───────┼───────────────────────────└──────────────────── maxmemory: from now on it is the ceiling
//! ```
//!
//! **How Redis does it**: `evictionTimeProc` in evict.c goes on evicting between other events. Meanwhile each command evicts for half a
//! millisecond and then runs, however much memory is exceeded.

use super::Server;
use crate::store::Data;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering::Relaxed};
use std::thread::Thread;
use std::time::{Duration, Instant};

pub struct Eviction {
    /// Whether memory is exceeded, as far as is known without the lock. Whoever gives the exclusive lock back says so.
    pub is_exceeded: AtomicBool,
    /// CONFIG SET has changed the limit. The thread warns the operator if memory exceeds it.
    pub limit_is_new: AtomicBool,
    /// How many times CONFIG SET has changed what keys remember of their use, and how many of these the thread has
    /// told all keys.
    pub turns: AtomicUsize,
    pub turned: AtomicUsize,
    /// While the thread evicts: how much may be in use. Else 0.
    pub ceiling: AtomicUsize,
    /// When eviction has not been enough, in microseconds since `begin`; 0: it was enough. And how long that was so
    /// before, in total.
    since: AtomicU64,
    total: AtomicU64,
    begin: Instant,
    thread: OnceLock<Thread>,
}

/// How long CONFIG SET waits, and how long it sleeps meanwhile.
const PATIENCE: Duration = Duration::from_millis(100);
const PAUSE: Duration = Duration::from_millis(1);

impl Default for Eviction {
    fn default() -> Eviction {
        Eviction {
            is_exceeded: AtomicBool::default(),
            limit_is_new: AtomicBool::default(),
            turns: AtomicUsize::default(),
            turned: AtomicUsize::default(),
            ceiling: AtomicUsize::default(),
            since: AtomicU64::default(),
            total: AtomicU64::default(),
            begin: Instant::now(),
            thread: OnceLock::default(),
        }
    }
}

impl Server {
    /// Notes whether memory is exceeded, before the lock is given back. Returns how much is in use that counts.
    pub fn note_memory(&self, data: Data) -> usize {
        let used = self.memory(data).limited();
        let is_exceeded = used > self.config.maxmemory.get();
        if is_exceeded != self.eviction.is_exceeded.load(Relaxed) {
            self.eviction.is_exceeded.store(is_exceeded, Relaxed);
        }
        used
    }
}

impl Eviction {
    /// From now on the calling thread is woken if there may be something to evict.
    pub fn wake_me(&self) {
        let _ = self.thread.set(std::thread::current());
    }

    /// Options have changed, and perhaps the limit. Until somebody has looked, memory may be exceeded.
    pub fn look_again(&self, limit_is_new: bool) {
        self.is_exceeded.store(true, Relaxed);
        self.limit_is_new.fetch_or(limit_is_new, Relaxed);
        if let Some(thread) = self.thread.get() {
            thread.unpark();
        }
    }

    /// Waits until all keys remember what the new policy wants, for a tenth of a second at most. So a frequency that a client
    /// sets next (RESTORE) is not taken for one of before.
    pub fn wait_for_turn(&self) {
        let begin = Instant::now();
        while self.turned.load(Relaxed) < self.turns.load(Relaxed) && begin.elapsed() < PATIENCE {
            std::thread::sleep(PAUSE);
        }
    }

    /// Notes whether what was evicted is enough.
    pub fn note(&self, is_enough: bool) {
        let since = self.since.load(Relaxed);
        let now = || self.begin.elapsed().as_micros() as u64;
        if is_enough && since > 0 {
            self.since.store(0, Relaxed);
            self.total.fetch_add(now() - since, Relaxed);
        } else if !is_enough && since == 0 {
            self.since.store(now().max(1), Relaxed);
        }
    }

    /// For how many milliseconds eviction was not enough, in total and this time.
    pub fn exceeded(&self) -> [u64; 2] {
        let since = self.since.load(Relaxed);
        let current = match since {
            0 => 0,
            since => self.begin.elapsed().as_micros() as u64 - since,
        };
        [self.total.load(Relaxed) + current, current].map(|time| time / 1000)
    }

    /// CONFIG RESETSTAT.
    pub fn reset(&self) {
        self.since.store(0, Relaxed);
        self.total.store(0, Relaxed);
    }
}
