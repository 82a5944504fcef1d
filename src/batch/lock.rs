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
//! Both are refused while a script is busy that has held the lock for too long (store/shared.rs).
//!
//! **How Redis does it**: it has one thread, and this file has no counterpart.

use super::Batch;
use crate::propagate::Source;
use crate::store::{Busy, Keyspace};
use std::sync::atomic::Ordering;
use std::sync::{RwLockReadGuard, RwLockWriteGuard};

/// The lock that a batch holds.
pub(super) enum Guard<'a> {
    None,
    Shared(RwLockReadGuard<'a, Keyspace>),
    Exclusive(RwLockWriteGuard<'a, Keyspace>),
    /// A script of this batch has lent the lock (batch/lending.rs).
    Lent {
        exclusive: bool,
    },
}

impl<'a> Batch<'a> {
    /// Makes sure that the keyspace can be read.
    pub fn share(&mut self) -> Result<(), Busy> {
        match self.guard {
            Guard::Shared(_) | Guard::Exclusive(_) => {}
            Guard::Lent { .. } => self.take_again(),
            Guard::None => {
                self.clock.ask_for_lock();
                self.guard = Guard::Shared(self.store.read()?);
                self.start_clock();
            }
        }
        Ok(())
    }

    /// Makes sure that the keyspace can be written. A shared lock is given back first, so others may write
    /// between a read and the write that follows it.
    pub fn exclude(&mut self) -> Result<(), Busy> {
        match self.guard {
            Guard::Exclusive(_) => {}
            Guard::Lent { .. } => self.take_again(),
            Guard::None | Guard::Shared(_) => {
                self.release();
                self.clock.ask_for_lock();
                // To spin gains nothing with the log on: threads sleep at the file then, whether they do so here or
                // not. And with one core, the thread that holds the lock cannot go on while this one spins.
                let may_spin = self.server.may_spin && !self.server.aof.is_enabled();
                let guard = self.store.try_write(may_spin);
                let guard = guard.unwrap_or_else(|| self.wait_for_lock())?;
                self.begin_writing(guard);
            }
        }
        Ok(())
    }

    pub(super) fn begin_writing(&mut self, mut guard: RwLockWriteGuard<'a, Keyspace>) {
        // The keyspace has one large empty buffer, for the records of whoever holds the exclusive lock.
        std::mem::swap(&mut self.records.bytes, &mut guard.records);
        self.guard = Guard::Exclusive(guard);
        self.start_clock();
        // Asked once. Nobody switches the log on meanwhile, because whoever does so holds the shared lock
        // (aof/rewrite.rs). If somebody switches it off, `append` keeps nothing.
        self.records.wanted = self.time.source != Source::Log && self.server.aof.is_enabled();
        // Keys that the batch's reads found expired go before what its writes change.
        self.delete_noted();
    }

    /// Sleeps until the exclusive lock is free. By these counts a command that takes long learns that writers
    /// wait, and that one has come in (call/long.rs).
    fn wait_for_lock(&self) -> Result<RwLockWriteGuard<'a, Keyspace>, Busy> {
        let gates = &self.server.clients.gates;
        gates.writers.fetch_add(1, Ordering::Relaxed);
        let guard = self.store.write();
        gates.writers.fetch_sub(1, Ordering::Relaxed);
        gates.let_in.fetch_add(1, Ordering::Relaxed);
        guard
    }

    /// Reads the time, under the lock. If it were read before, the second of two changes could have the earlier
    /// time.
    pub(super) fn start_clock(&mut self) {
        self.clock.lock_taken();
        self.time.now = self.clock.now / 1000;
    }

    /// Hands what changed to the log and to the hub, remembers how far the log must be written, and gives the
    /// lock back.
    fn release(&mut self) {
        if let Guard::Exclusive(keyspace) = &mut self.guard {
            // Whatever `append` does with the buffer of the records, it leaves an empty one there, which the
            // keyspace keeps for the next writer.
            self.server.aof.append(&mut self.records);
            std::mem::swap(&mut self.records.bytes, &mut keyspace.records);
            for garbage in keyspace.garbage() {
                self.server.free_later(garbage);
            }
            if self.server.config.maxmemory.get() > 0 && self.time.source == Source::Client {
                self.server.note_memory(keyspace.memory());
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
            // The lock is shared. `exclude` calls `delete_noted` again. While a script is busy the keys stay.
            if self.exclude().is_err() {
                self.report.forget_notes_if(|| true);
            }
        }
        self.release();
    }

    /// What the lock that is held is called in the trace.
    pub fn lock_name(&self) -> &'static str {
        match self.guard {
            Guard::None | Guard::Lent { .. } => "no lock",
            Guard::Shared(_) => "shared lock",
            Guard::Exclusive(_) => "exclusive lock",
        }
    }

    /// Frees what a replay has deleted, at once: a replay keeps its lock, and nobody waits for that lock.
    pub fn free_garbage(&mut self) {
        if let Guard::Exclusive(keyspace) = &mut self.guard {
            drop(keyspace.garbage());
        }
    }
}
