//! fsync: one thread calls it at a time, and it serves all that wait.
//!
//! ```text
//! A   turn ── fsync of all that is written ──┐ `durable` rises
//! B   waits ─────────────────────────────────┴─ its position is durable: it goes on
//! C   has written meanwhile, waits ──────────┴─ turn ── fsync ──┐
//! D                                    waits ───────────────────┴─ goes on
//! ```
//!
//! The right to call fsync is a [`Turn`]. A turn is no mutex, because most of the threads that wait for
//! one find afterwards that they need none. They must all be able to see this at once, while the next turn
//! has already begun. A thread that needs an fsync waits for the one that is running and for one more.
//!
//! Before a thread sleeps it loads `durable` under the mutex of the turn. Turns end under that mutex, so
//! no thread misses an end. A thread that exchanges the file takes a turn too: then no fsync of the old file
//! can fail and count against the new one.
//!
//! Three kinds of callers:
//! - under `appendfsync always` each commit that finds its position not durable;
//! - the sync thread, once a second under `everysec` (aof.rs);
//! - the sync thread at once, if a client in WAITAOF asks for it, or if a rewrite runs and [`MUCH`] is
//!   not durable.
//!
//! **How Redis does it**: bio.c, a background thread for everysec. `always` calls fsync in the only thread
//! that runs commands.

use super::{Aof, File, Kind, Position};
use crate::config::Fsync;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Condvar, Mutex, OnceLock};
use std::thread::Thread;
use std::time::{Duration, Instant};

/// During a rewrite one fsync covers about as many bytes, of the base and of the log. Redis does this with
/// a base, every 4 MB (`aof-rewrite-incremental-fsync`).
///
/// A `write` to a file that is being fsynced may wait half as long as the fsync takes. An fsync of 30 MB,
/// which half a second of work leaves, takes 25 ms, and longer while a rewrite keeps the disk busy. With
/// 8 MB, fsync and write both take a few milliseconds. At other times one fsync a second is better: the
/// wait is longer, but fewer clients meet it. (The 99th percentile of SET at pipeline 64 was 0.4 to 0.8 of
/// Redis's with one a second, 1.0 to 1.2 with one every 8 MB.)
pub const MUCH: u64 = 8 * 1024 * 1024;

#[derive(Default)]
pub struct Syncs {
    /// Whether a thread has the turn.
    pub turn: Mutex<bool>,
    /// A turn has ended: `durable` may have risen.
    ended: Condvar,
    /// The sync thread, which sleeps between its rounds.
    pub thread: OnceLock<Thread>,
    /// Whether a client waits in WAITAOF for the next fsync.
    pub asked_for: AtomicBool,
    /// Whether a rewrite runs, so that an fsync is due whenever there is [`MUCH`].
    pub during_rewrite: AtomicBool,
}

/// The right to call fsync, or to exchange the file. It ends when it is dropped.
pub(super) struct Turn<'a>(&'a Syncs);

impl Drop for Turn<'_> {
    fn drop(&mut self) {
        *self.0.turn.lock().unwrap() = false;
        self.0.ended.notify_all();
    }
}

impl Syncs {
    /// Begins the next round of the sync thread at once.
    pub fn wake(&self) {
        if let Some(thread) = self.thread.get() {
            thread.unpark();
        }
    }
}

impl Aof {
    /// Returns when everything up to `position` is on the disk.
    pub(super) fn sync_to(&self, position: Position) -> Result<(), String> {
        let Some(turn) = self.turn_for(position) else {
            return Ok(());
        };
        let (file, written) = {
            let target = self.target.lock().unwrap();
            let Some(target) = target.as_ref() else {
                return Ok(());
            };
            (target.file.clone(), self.written.load(Ordering::Acquire))
        };
        self.sync_file(&file, written, &turn)
    }

    /// Waits for the turn to call fsync; none if `position` is durable, so that no fsync is needed.
    fn turn_for(&self, position: Position) -> Option<Turn<'_>> {
        let must_wait = |is_taken: &mut bool| *is_taken && !self.is_durable(position);
        let turn = self.syncs.turn.lock().unwrap();
        let mut turn = self.syncs.ended.wait_while(turn, must_wait).unwrap();
        (!self.is_durable(position)).then(|| {
            *turn = true;
            Turn(&self.syncs)
        })
    }

    /// Waits for the turn to exchange the file. While it lasts nobody calls fsync.
    pub(super) fn turn(&self) -> Turn<'_> {
        self.turn_for(Position::MAX).expect("so much is never written")
    }

    /// Calls fsync. Then everything up to `written` is durable.
    pub(super) fn sync_file(&self, file: &File, written: Position, _: &Turn) -> Result<(), String> {
        // An earlier fsync that failed may have lost pages, and this one would not notice.
        if self.failures.is(Kind::Fsync)
            && let Some(cause) = self.failures.cause()
        {
            return Err(cause);
        }
        self.status.syncs_pending.store(1, Ordering::Relaxed);
        self.failures.note_fsync(Some(Instant::now()));
        let result = match self.config.appendfsync.get() {
            Fsync::Always => self.config.latency.time("aof-fsync-always", || file.sync_data()),
            _ => file.sync_data(),
        };
        self.failures.note_fsync(None);
        self.status.syncs_pending.store(0, Ordering::Relaxed);
        result.map_err(|error| self.failures.failed(Kind::Fsync, &error))?;
        self.durable.fetch_max(written, Ordering::AcqRel);
        self.backlog.wake();
        Ok(())
    }

    /// Whether everything up to `position` is on the disk.
    pub fn is_durable(&self, position: Position) -> bool {
        self.durable.load(Ordering::Acquire) >= position
    }

    /// WAITAOF: waits until everything up to `position` is on the disk, whatever `appendfsync` says, but
    /// not longer than `most`; returns whether it is.
    pub fn wait_durable(&self, position: Position, most: Duration) -> bool {
        let turn = self.syncs.turn.lock().unwrap();
        self.syncs.asked_for.store(true, Ordering::Relaxed);
        self.syncs.wake();
        let is_missing = |_: &mut bool| !self.is_durable(position);
        let waited = self.syncs.ended.wait_timeout_while(turn, most, is_missing);
        !waited.unwrap().1.timed_out()
    }

    /// Whether a rewrite runs, and so much is not durable that the next second is too late.
    pub(super) fn has_much_to_sync(&self) -> bool {
        self.syncs.during_rewrite.load(Ordering::Relaxed)
            && self.config.appendfsync.get() == Fsync::Everysec
            && !self.is_durable(self.written.load(Ordering::Acquire).saturating_sub(MUCH))
    }
}
