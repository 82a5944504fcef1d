//! A disk that fails: what is remembered of it, what clients and the operator are told.
//!
//! A *write* that fails is cut away again, so that no half record stays in the file; its records are
//! kept and written first when the disk recovers, which the sync thread tries ten times a second
//! (aof.rs). Meanwhile writes are refused before they run. A failed *fsync* is worse: the kernel may have
//! dropped the pages and will not say so twice, so the log may have holes. Writes stay refused until a
//! rewrite has written a new base from memory.
//!
//! ```text
//! write fails ──▶ writes are refused ──▶ a write works ──▶ all is well
//! fsync fails ──▶ writes are refused ──▶ BGREWRITEAOF works, from memory ──▶ all is well
//! ```
//!
//! A *slow* disk loses nothing by itself, but under `everysec` more may be lost with it (aof.rs). So an
//! fsync that takes longer than a second is counted (`aof_delayed_fsync`) and told while it still runs.
//!
//! What fails, fails under locks, and nothing prints under a lock: the operator is told by `keep_house`
//! (main.rs), within a tenth of a second.
//!
//! **How Redis does it**: `aof_last_write_status` and `aof_last_write_err`. Its everysec tries a failed
//! fsync again, and goes on when that works. It counts as delayed the writes that have waited two
//! seconds for an fsync, in the same words; here no write waits.

use super::SYNC_WITHIN;
use crate::say;
use std::io;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Instant;

/// Why writes are refused, if they are; and why the log was not switched on.
#[derive(Default)]
pub struct Failures {
    /// Whether there is a failure, to be seen without the mutex.
    failing: AtomicBool,
    /// The present one; a leaf of the lock order.
    failure: Mutex<Option<Failure>>,
    /// What the operator has been told of it last.
    told: Mutex<Option<Failure>>,
    /// Why the log could not be switched on, until the operator has been told.
    not_enabled: Mutex<Option<String>>,
    /// When the fsync began that is running, until it has been counted as slow.
    fsync_began: Mutex<Option<Instant>>,
    /// How many were slow.
    pub delayed_syncs: AtomicU64,
    /// Whether one has been since the operator was told.
    is_slow: AtomicBool,
}

#[derive(Clone, PartialEq)]
struct Failure {
    /// In the operating system's words.
    cause: String,
    /// Only a new base from memory can heal a failed fsync.
    needs_rewrite: bool,
}

impl Failures {
    /// Why writes are refused at the moment, if they are.
    pub fn refusal(&self) -> Option<String> {
        if !self.failing.load(Ordering::Relaxed) {
            return None;
        }
        let failure = self.failure.lock().unwrap();
        failure.as_ref().map(|failure| failure.cause.clone())
    }

    /// Why the log on disk may have holes, if it may.
    pub fn damage(&self) -> Option<String> {
        let failure = self.failure.lock().unwrap();
        let failure = failure.as_ref().filter(|failure| failure.needs_rewrite);
        failure.map(|failure| failure.cause.clone())
    }

    /// Returns the cause in the words that follow `MISCONF Errors writing to the AOF file: `.
    pub fn write_failed(&self, error: &io::Error) -> String {
        self.remember(error, false)
    }

    /// The same of a failed fsync, of a file or a directory.
    pub fn fsync_failed(&self, error: &io::Error) -> String {
        self.remember(error, true)
    }

    fn remember(&self, error: &io::Error, needs_rewrite: bool) -> String {
        let text = error.to_string();
        let cause = text.split(" (os error").next().unwrap_or(&text).to_string();
        let mut failure = self.failure.lock().unwrap();
        let is_worse = |old: &Failure| needs_rewrite && !old.needs_rewrite;
        if failure.as_ref().is_none_or(is_worse) {
            *failure = Some(Failure {
                cause: cause.clone(),
                needs_rewrite,
            });
            self.failing.store(true, Ordering::Release);
        }
        cause
    }

    /// Forgets a failed write, but not a failed fsync.
    pub fn write_worked(&self) {
        if !self.failing.load(Ordering::Relaxed) {
            return;
        }
        let mut failure = self.failure.lock().unwrap();
        if failure
            .as_ref()
            .is_some_and(|failure| !failure.needs_rewrite)
        {
            *failure = None;
            self.failing.store(false, Ordering::Release);
        }
    }

    /// Forgets everything: the log is new, or off.
    pub fn forget(&self) {
        let mut failure = self.failure.lock().unwrap();
        *failure = None;
        self.failing.store(false, Ordering::Release);
    }

    pub fn fsync_begins(&self) {
        *self.fsync_began.lock().unwrap() = Some(Instant::now());
    }

    pub fn fsync_ends(&self) {
        self.count_if_slow();
        *self.fsync_began.lock().unwrap() = None;
    }

    /// Counts the fsync that is running, once, if it makes the next one late.
    fn count_if_slow(&self) {
        let mut began = self.fsync_began.lock().unwrap();
        if began.is_some_and(|began| began.elapsed() > SYNC_WITHIN) {
            *began = None;
            self.delayed_syncs.fetch_add(1, Ordering::Relaxed);
            self.is_slow.store(true, Ordering::Relaxed);
        }
    }

    /// Notes why the log could not be switched on.
    pub fn not_enabled(&self, reason: String) {
        *self.not_enabled.lock().unwrap() = Some(reason);
    }

    /// Tells the operator when the log has begun to fail, or works again, or was not switched on.
    pub fn tell_news(&self) {
        let not_enabled = self.not_enabled.lock().unwrap().take();
        if let Some(reason) = not_enabled {
            say::warning(format_args!(
                "cannot switch the append-only file on: {reason}"
            ));
        }
        self.count_if_slow();
        if self.is_slow.swap(false, Ordering::Relaxed) {
            say::warning(format_args!(
                "Asynchronous AOF fsync is taking too long (disk is busy?). What was written since the \
                 fsync before it is not safe from a power cut yet"
            ));
        }
        let failure = self.failure.lock().unwrap().clone();
        let before = std::mem::replace(&mut *self.told.lock().unwrap(), failure.clone());
        if failure == before {
            return;
        }
        match &failure {
            Some(Failure {
                cause,
                needs_rewrite: true,
            }) => say::warning(format_args!(
                "fsync of the append-only file failed: {cause}. What was written since the last \
                 fsync may be lost in a power cut. Writes are refused until BGREWRITEAOF has \
                 written a new file from memory"
            )),
            Some(Failure { cause, .. }) => say::warning(format_args!(
                "cannot write to the append-only file: {cause}. Writes are refused until it can \
                 be written again; see whether the disk is full"
            )),
            None => say::notice(format_args!("the append-only file is being written again")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    fn an_fsync_that_makes_the_next_one_late_is_counted_once_while_it_runs() {
        let failures = Failures::default();
        let delayed = || failures.delayed_syncs.load(Ordering::Relaxed);
        failures.fsync_begins();
        failures.fsync_ends();
        assert_eq!(delayed(), 0);
        failures.fsync_begins();
        std::thread::sleep(SYNC_WITHIN + Duration::from_millis(1));
        failures.tell_news();
        assert_eq!(delayed(), 1);
        failures.tell_news();
        failures.fsync_ends();
        assert_eq!(delayed(), 1);
    }
}
