//! Which lock a batch holds: when it is taken, and what is done before it is given back.
//!
//! ```text
//!              share()              exclude(), which
//! no lock ───────────────▶ shared ── gives it back ──▶ exclusive
//!    │                                                     ▲
//!    └───────────────────── exclude() ─────────────────────┘
//! give_back(), from either: what readers found expired is deleted, what changed goes to the log
//! ```
//!
//! Between the shared and the exclusive lock a batch holds none, and others may write. If two threads kept
//! the shared lock while they wait for the exclusive one, they would wait for each other for ever. A thread
//! that waits for the exclusive lock keeps new readers out. (std's RwLock does that, because otherwise a
//! writer might wait for ever.) So a batch asks for the exclusive lock only if it writes, or if its readers have
//! noted expired keys.
//!
//! **How Redis does it**: it has one thread, and this file has no counterpart.

use super::Batch;
use crate::propagate::Source;
use crate::stats::add;
use crate::store::Keyspace;
use std::sync::atomic::Ordering;
use std::sync::{RwLock, RwLockReadGuard, RwLockWriteGuard};

/// The lock that a batch holds.
pub(super) enum Guard<'a> {
    None,
    Shared(RwLockReadGuard<'a, Keyspace>),
    Exclusive(RwLockWriteGuard<'a, Keyspace>),
}

impl<'a> Batch<'a> {
    /// Makes sure that the keyspace can be read.
    pub fn share(&mut self) {
        if let Guard::None = self.guard {
            self.clock.ask_for_lock();
            self.guard = Guard::Shared(self.store.read().unwrap());
            self.start_clock();
        }
    }

    /// Makes sure that the keyspace can be written. A shared lock is given back first, so others may write
    /// between a read and the write that follows it.
    pub fn exclude(&mut self) {
        if !matches!(self.guard, Guard::Exclusive(_)) {
            self.release();
            self.clock.ask_for_lock();
            // With the log on, threads queue at the file anyway, so spinning here gains nothing. With one
            // core, the thread that holds the lock cannot go on while this one spins.
            let may_spin = self.server.may_spin && !self.server.aof.is_enabled();
            let tries = if may_spin { TRIES } else { 1 };
            let guard = try_lock(self.store, tries);
            let mut guard = guard.unwrap_or_else(|| self.wait_for_lock());
            // The keyspace has one large empty buffer, for the records of whoever holds the exclusive lock.
            std::mem::swap(&mut self.records.bytes, &mut guard.records);
            self.guard = Guard::Exclusive(guard);
            self.start_clock();
            // Under the exclusive lock the log cannot be switched on, because that takes the shared one
            // (aof/rewrite.rs). If it is switched off meanwhile, `append` keeps nothing.
            self.records.wanted =
                self.time.source == Source::Client && self.server.aof.is_enabled();
            // Keys that the batch's reads found expired go before what its writes change.
            self.delete_noted();
        }
    }

    /// Sleeps until the exclusive lock is free. By these counts a command that takes long learns that writers
    /// wait, and that one has come in (call/long.rs).
    fn wait_for_lock(&self) -> RwLockWriteGuard<'a, Keyspace> {
        let gates = &self.server.clients.gates;
        gates.writers.fetch_add(1, Ordering::Relaxed);
        let guard = self.store.write().unwrap();
        gates.writers.fetch_sub(1, Ordering::Relaxed);
        gates.let_in.fetch_add(1, Ordering::Relaxed);
        guard
    }

    /// Reads the time, under the lock. If it were read before, the second of two changes could have the earlier
    /// time.
    fn start_clock(&mut self) {
        self.clock.lock_taken();
        self.time.now = self.clock.now / 1000;
    }

    /// Hands what changed to the log and to the hub, remembers how far the log must be written, and gives the
    /// lock back.
    fn release(&mut self) {
        if let Guard::Exclusive(keyspace) = &mut self.guard {
            // Leaves an empty buffer, this one or another, which the keyspace gets.
            self.server.aof.append(&mut self.records);
            std::mem::swap(&mut self.records.bytes, &mut keyspace.records);
            for garbage in keyspace.garbage.drain(..) {
                add(&self.server.stats.to_be_freed, 1);
                // If lazyfree is gone, the process is ending.
                let _ = self.server.lazyfree.send(garbage);
            }
        }
        if !matches!(self.guard, Guard::None) {
            self.position = self.server.aof.position();
            // Under the lock, so that messages have the order of the changes.
            self.tell();
            self.guard = Guard::None;
            self.clock.lock_released();
        }
    }

    /// Deletes the keys that readers have noted as expired, and gives the lock back. To delete, it exchanges a
    /// shared lock for the exclusive one. In between others may have changed a key, so each is looked up again
    /// (store/expire.rs).
    pub fn give_back(&mut self) {
        self.delete_noted();
        if self.report.has_notes() {
            // The lock is shared. `exclude` calls `delete_noted` again.
            self.exclude();
        }
        self.release();
    }

    /// What the lock that is held is called in the trace.
    pub fn lock_name(&self) -> &'static str {
        match self.guard {
            Guard::None => "no lock",
            Guard::Shared(_) => "shared lock",
            Guard::Exclusive(_) => "exclusive lock",
        }
    }

    /// Frees what a replay has deleted, at once: a replay keeps its lock, and nobody waits for that lock.
    pub fn free_garbage(&mut self) {
        if let Guard::Exclusive(keyspace) = &mut self.guard {
            keyspace.garbage.clear();
        }
    }

    /// Takes the exclusive lock and keeps it, so that nothing changes any more: for SHUTDOWN.
    pub fn hold_everything(&mut self) {
        self.exclude();
        self.server.aof.append(&mut self.records);
    }
}

/// How many times the exclusive lock is tried before the thread sleeps: here 14 µs, about as long as a
/// batch of SETs holds it.
const TRIES: usize = 1000;

/// Tries the exclusive lock `tries` times before the thread goes to sleep, because to sleep and to be woken
/// takes as long as others hold the lock. (std's lock tries too, but not while a thread sleeps at it. So once one
/// thread sleeps, those that come after it would sleep too.) Measured with 50 clients, SETs without a log,
/// pipelines of 64: 1.15 times as many a second. To give the core away between two tries makes it 1.25 times as
/// many, but then the slowest hundredth takes seven times as long.
fn try_lock(store: &RwLock<Keyspace>, tries: usize) -> Option<RwLockWriteGuard<'_, Keyspace>> {
    (0..tries).find_map(|i| {
        if i > 0 {
            std::hint::spin_loop();
        }
        store.try_write().ok()
    })
}
