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
use std::sync::atomic::{AtomicU8, AtomicU64, Ordering};
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
    /// Other news that the operator has not been told yet.
    untold: Mutex<Vec<String>>,
    /// When the fsync that is running began, until it has been counted as slow.
    fsync_began: Mutex<Option<Instant>>,
    /// Slow fsyncs since the start, or since CONFIG RESETSTAT.
    pub delayed_syncs: AtomicU64,
}

#[derive(Clone, PartialEq)]
struct Failure {
    kind: Kind,
    /// In the operating system's words; if files are lost, in ours.
    cause: String,
}

/// What has failed. A later one of these is worse, and replaces an earlier one.
#[derive(Clone, Copy, PartialEq, PartialOrd)]
pub enum Kind {
    Write = 1,
    Lost,
    Fsync,
}

impl Aof {
    /// Why writes are refused at the moment, if they are. Each command asks, so it is small.
    pub fn failure(&self) -> Option<String> {
        match self.failures.failing.load(Ordering::Relaxed) {
            0 => None,
            _ => self.failures.cause(),
        }
    }

    /// Tells the operator that the log has begun to fail, or works again, and other news. Called by a
    /// thread that may wait for whoever reads what we print.
    pub fn tell_news(&self) {
        let failures = &self.failures;
        failures.count_if_slow();
        let untold = std::mem::take(&mut *failures.untold.lock().unwrap());
        let news = disk::news().into_iter().chain(untold);
        news.for_each(|text| log::warning(format_args!("{text}")));
        let failure = failures.failure.lock().unwrap().clone();
        let before = std::mem::replace(&mut *failures.told.lock().unwrap(), failure.clone());
        if failure == before {
            return;
        }
        let Some(Failure { kind, cause }) = failure else {
            return log::notice(format_args!("the append-only file is being written again"));
        };
        let directory = self.directory().join(self.config.appenddirname.text());
        let directory = directory.display();
        let text = match kind {
            Kind::Fsync => format!(
                "fsync of the append-only file in {directory} failed: {cause}. The log may have lost what \
                 was written since the last fsync. Writes are refused until BGREWRITEAOF has written a new \
                 file from memory"
            ),
            Kind::Lost => format!(
                "{cause}. A start would not find what is written now. Writes are refused until the file is \
                 back, or until BGREWRITEAOF has written a new one from memory"
            ),
            Kind::Write => format!(
                "cannot write to the append-only file in {directory}: {cause}. Writes are refused until it \
                 can be written again. Check whether the disk is full"
            ),
        };
        log::warning(format_args!("{text}"));
    }

    /// Checks whether the files are there and have our length, and refuses writes if not.
    pub(super) fn check_files(&self) {
        match self.lost() {
            Some(cause) => drop(self.failures.failed(Kind::Lost, &io::Error::other(cause))),
            None => self.failures.end(Kind::Lost),
        }
    }

    /// Says of a file of the log that it is gone or changed, if one is. The mutex is held, so that no rewrite
    /// exchanges the files meanwhile. These few calls do not wait for the disk.
    pub(super) fn lost(&self) -> Option<String> {
        let target = self.target.lock().unwrap();
        let target = target.as_ref()?;
        let manifest = &target.manifest;
        let own = Some(manifest.path()).filter(|path| !disk::exists(path));
        if let Some(missing) = manifest.missing().or(own) {
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
    /// Why writes are refused, if they are.
    #[cold]
    pub fn cause(&self) -> Option<String> {
        let failure = self.failure.lock().unwrap();
        failure.as_ref().map(|failure| failure.cause.clone())
    }

    /// Whether this is what fails now.
    pub fn is(&self, kind: Kind) -> bool {
        self.failing.load(Ordering::Relaxed) == kind as u8
    }

    /// Refuses writes from now on. Returns the cause, as a client reads it behind `MISCONF Errors writing to
    /// the AOF file: `.
    pub fn failed(&self, kind: Kind, error: &io::Error) -> String {
        let text = error.to_string();
        let cause = text.split(" (os error").next().unwrap_or(&text).to_string();
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

    /// Forgets a failure of this kind, and nothing worse.
    pub fn end(&self, kind: Kind) {
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

    /// Notes when the fsync began that runs now, or that none runs.
    pub fn note_fsync(&self, began: Option<Instant>) {
        self.count_if_slow();
        *self.fsync_began.lock().unwrap() = began;
    }

    /// Counts the fsync that is running, once, if it takes longer than a second.
    fn count_if_slow(&self) {
        let is_slow = |began: &mut Instant| began.elapsed() > SYNC_EVERY;
        let slow = self.fsync_began.lock().unwrap().take_if(is_slow);
        if slow.is_some() {
            self.delayed_syncs.fetch_add(1, Ordering::Relaxed);
            self.tell_later(
                "Asynchronous AOF fsync is taking too long (disk is busy?). Until it ends, a power cut \
                 takes what was written since the fsync before it"
                    .into(),
            );
        }
    }

    /// Nothing is printed under a lock.
    pub fn tell_later(&self, news: String) {
        self.untold.lock().unwrap().push(news);
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
        failures.note_fsync(Some(Instant::now()));
        failures.note_fsync(None);
        assert_eq!(delayed(), 0);
        failures.note_fsync(Some(Instant::now()));
        std::thread::sleep(SYNC_EVERY + Duration::from_millis(1));
        failures.count_if_slow();
        assert_eq!(delayed(), 1);
        failures.count_if_slow();
        failures.note_fsync(None);
        assert_eq!(delayed(), 1);
    }
}
