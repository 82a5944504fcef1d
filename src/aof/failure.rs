//! When the disk fails: commands that write are refused, and the operator is told why.
//!
//! ```text
//! a write fails     ──▶ refused until a write works
//! files are lost    ──▶ refused until they are back, or until BGREWRITEAOF has worked, from memory
//! an fsync fails    ──▶ refused until BGREWRITEAOF has worked, from memory
//! ```
//!
//! - **A write fails**: the disk is full. What it has written is cut off again, so that no half record stays
//!   in the file. The records are kept, and the sync thread tries ten times a second to write them.
//! - **Files are lost**: somebody has deleted, moved, replaced or truncated them. Writes still work, but no
//!   start would find the records. The sync thread checks the files once a second. No rewrite begins by
//!   itself then, because the files that are there now may be a copy that somebody is putting back.
//! - **An fsync fails**: the kernel may have dropped the pages, and the next fsync would not say so. So the
//!   log may have holes, and only the keyspace in memory is complete.
//!
//! A **slow fsync** loses nothing. But under `everysec` a power cut takes more then (aof.rs). So an fsync
//! that takes longer than a second is counted (`aof_delayed_fsync`), and told while it still runs.
//!
//! Calls fail under locks, and nothing is printed under a lock. So `cron` (main.rs) tells the operator,
//! within a tenth of a second.
//!
//! **How Redis does it**: `aof_last_write_status` and `aof_last_write_err`. Its everysec tries a failed
//! fsync again, and goes on if that works. Its `aof_delayed_fsync` counts writes that waited two seconds
//! for an fsync; here no write waits. It does not check its files.

use super::disk;
use super::{Aof, SYNC_EVERY};
use crate::log;
use std::io;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU64, Ordering};
use std::time::Instant;

/// What fails now, and what the operator has not been told yet.
#[derive(Default)]
pub struct Failures {
    /// The kind of the present failure, which can be read without the mutex; 0 if there is none.
    failing: AtomicU8,
    /// The present failure. This mutex is a leaf of the lock order.
    failure: Mutex<Option<Failure>>,
    /// The failure that the operator was told last.
    told: Mutex<Option<Failure>>,
    /// Why the log could not be switched on, until the operator has been told.
    not_enabled: Mutex<Option<String>>,
    /// When the fsync that is running began, until it has been counted as slow.
    fsync_began: Mutex<Option<Instant>>,
    /// Slow fsyncs since the start, or since CONFIG RESETSTAT.
    pub delayed_syncs: AtomicU64,
    /// Whether an fsync was slow since the operator was told.
    is_slow: AtomicBool,
}

#[derive(Clone, PartialEq)]
struct Failure {
    kind: Kind,
    /// In the operating system's words; if files are lost, in ours.
    cause: String,
}

/// What has failed. A later one of these is worse, and replaces an earlier one.
#[derive(Clone, Copy, PartialEq, PartialOrd)]
enum Kind {
    Write = 1,
    Lost,
    Fsync,
}

impl Aof {
    /// Why writes are refused at the moment, if they are.
    pub fn refusal(&self) -> Option<String> {
        self.failures.refusal()
    }

    /// Tells the operator that the log has begun to fail, or works again, or was not switched on.
    /// Called by a thread that may wait for whoever reads what we print.
    pub fn tell_news(&self) {
        disk::news().iter().for_each(|text| log::warning(format_args!("{text}")));
        let failures = &self.failures;
        let not_enabled = failures.not_enabled.lock().unwrap().take();
        if let Some(reason) = not_enabled {
            log::warning(format_args!("cannot switch the append-only file on: {reason}"));
        }
        failures.count_if_slow();
        if failures.is_slow.swap(false, Ordering::Relaxed) {
            log::warning(format_args!(
                "Asynchronous AOF fsync is taking too long (disk is busy?). Until it ends, a power cut \
                 takes what was written since the fsync before it"
            ));
        }
        let failure = failures.failure.lock().unwrap().clone();
        let before = std::mem::replace(&mut *failures.told.lock().unwrap(), failure.clone());
        if failure == before {
            return;
        }
        let directory = self.directory().join(self.config.appenddirname.text());
        let directory = directory.display();
        match &failure {
            Some(Failure { kind: Kind::Fsync, cause }) => log::warning(format_args!(
                "fsync of the append-only file in {directory} failed: {cause}. The log may have lost what \
                 was written since the last fsync. Writes are refused until BGREWRITEAOF has written a new \
                 file from memory"
            )),
            Some(Failure { kind: Kind::Lost, cause }) => log::warning(format_args!(
                "{cause}. A start would not find what is written now. Writes are refused until the file is \
                 back, or until BGREWRITEAOF has written a new one from memory"
            )),
            Some(Failure { kind: Kind::Write, cause }) => log::warning(format_args!(
                "cannot write to the append-only file in {directory}: {cause}. Writes are refused until it \
                 can be written again. Check whether the disk is full"
            )),
            None => log::notice(format_args!("the append-only file is being written again")),
        }
    }

    /// Checks whether the files are there and have our length, and refuses writes if not.
    pub(super) fn check_files(&self) {
        match self.lost() {
            Some(cause) => {
                self.failures.remember(Kind::Lost, cause);
            }
            None => self.failures.is_over(Kind::Lost),
        }
    }

    /// Says of a file of the log that it is gone or changed, if one is. The mutex is held, so that no rewrite
    /// exchanges the files meanwhile. These few calls do not wait for the disk.
    pub(super) fn lost(&self) -> Option<String> {
        let target = self.target.lock().unwrap();
        let target = target.as_ref()?;
        let manifest = &target.manifest;
        let live = manifest.live().map(|entry| manifest.path_of(entry));
        let mut needed = live.chain([manifest.path()]);
        if let Some(missing) = needed.find(|path| !disk::exists(path)) {
            return Some(format!("{} was deleted or moved", missing.display()));
        }
        // Another file in its place does not grow when ours does. (Its inode would tell this earlier. But
        // some network file systems invent inodes.)
        let path = manifest.path_of(manifest.incrs.last()?);
        let is_other = !target.torn && disk::length(&path).unwrap_or(0) != target.length;
        is_other.then(|| format!("{} was changed or replaced by somebody", path.display()))
    }
}

impl Failures {
    /// Why writes are refused at the moment, if they are.
    pub fn refusal(&self) -> Option<String> {
        match self.failing.load(Ordering::Relaxed) {
            0 => None,
            _ => self.cause(),
        }
    }

    /// Not a part of `refusal`, which each command calls, and which is inlined therefore.
    #[cold]
    fn cause(&self) -> Option<String> {
        let failure = self.failure.lock().unwrap();
        failure.as_ref().map(|failure| failure.cause.clone())
    }

    /// Why the log on disk may have holes, if it may.
    pub fn damage(&self) -> Option<String> {
        let failure = self.failure.lock().unwrap();
        let failure = failure.as_ref().filter(|failure| failure.kind == Kind::Fsync);
        failure.map(|failure| failure.cause.clone())
    }

    /// Returns the cause, as a client reads it behind `MISCONF Errors writing to the AOF file: `.
    pub fn write_failed(&self, error: &io::Error) -> String {
        self.remember(Kind::Write, in_words(error))
    }

    /// The same for the fsync of a file or a directory.
    pub fn fsync_failed(&self, error: &io::Error) -> String {
        self.remember(Kind::Fsync, in_words(error))
    }

    pub fn are_files_lost(&self) -> bool {
        self.failing.load(Ordering::Relaxed) == Kind::Lost as u8
    }

    fn remember(&self, kind: Kind, cause: String) -> String {
        let mut failure = self.failure.lock().unwrap();
        if failure.as_ref().is_none_or(|old| old.kind < kind) {
            let cause = cause.clone();
            self.set(&mut failure, Some(Failure { kind, cause }));
        }
        cause
    }

    fn set(&self, failure: &mut Option<Failure>, new: Option<Failure>) {
        let kind = new.as_ref().map_or(0, |failure| failure.kind as u8);
        self.failing.store(kind, Ordering::Release);
        *failure = new;
    }

    /// Forgets a failed write, and nothing worse.
    pub fn write_worked(&self) {
        self.is_over(Kind::Write);
    }

    fn is_over(&self, kind: Kind) {
        if self.failing.load(Ordering::Relaxed) == 0 {
            return;
        }
        let mut failure = self.failure.lock().unwrap();
        if failure.as_ref().is_some_and(|failure| failure.kind == kind) {
            self.set(&mut failure, None);
        }
    }

    /// Forgets the failure: the log is new, or off.
    pub fn forget(&self) {
        self.set(&mut self.failure.lock().unwrap(), None);
    }

    pub fn fsync_begins(&self) {
        *self.fsync_began.lock().unwrap() = Some(Instant::now());
    }

    pub fn fsync_ends(&self) {
        self.count_if_slow();
        *self.fsync_began.lock().unwrap() = None;
    }

    /// Counts the fsync that is running, once, if it takes longer than a second.
    fn count_if_slow(&self) {
        let mut began = self.fsync_began.lock().unwrap();
        if began.is_some_and(|began| began.elapsed() > SYNC_EVERY) {
            *began = None;
            self.delayed_syncs.fetch_add(1, Ordering::Relaxed);
            self.is_slow.store(true, Ordering::Relaxed);
        }
    }

    /// Notes why the log could not be switched on.
    pub fn not_enabled(&self, reason: String) {
        *self.not_enabled.lock().unwrap() = Some(reason);
    }
}

fn in_words(error: &io::Error) -> String {
    let text = error.to_string();
    text.split(" (os error").next().unwrap_or(&text).to_string()
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
        std::thread::sleep(SYNC_EVERY + Duration::from_millis(1));
        failures.count_if_slow();
        assert_eq!(delayed(), 1);
        failures.count_if_slow();
        failures.fsync_ends();
        assert_eq!(delayed(), 1);
    }
}
