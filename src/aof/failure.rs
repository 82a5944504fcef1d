//! A disk that fails: what is remembered of it, what clients and the operator are told.
//!
//! A *write* that fails is cut away again, so that no half record stays in the file; its records are
//! kept and written first when the disk recovers, which the sync thread tries ten times a second
//! (aof.rs). Meanwhile writes are refused before they run. A failed *fsync* is worse: the kernel may have
//! dropped the pages and will not say so twice, so the log may have holes. Writes stay refused until a
//! rewrite has written a new base from memory. Even if nothing fails, the files may be *lost*: somebody has
//! deleted, moved, replaced or truncated them, so no start would find what is written now. The sync
//! thread looks for them once a second.
//!
//! ```text
//! write fails ──▶ writes are refused ──▶ a write works ──▶ all is well
//! files lost ───▶ writes are refused ──▶ they are back, or as below ──▶ all is well
//! fsync fails ──▶ writes are refused ──▶ BGREWRITEAOF works, from memory ──▶ all is well
//! ```
//!
//! No rewrite begins by itself then: the files that are there now may be a copy that somebody is putting
//! back.
//!
//! A *slow* disk loses nothing by itself, but under `everysec` more may be lost with it (aof.rs). So an
//! fsync that takes longer than a second is counted (`aof_delayed_fsync`) and told while it still runs.
//!
//! Calls fail under locks, and nothing prints under a lock. So `cron` (main.rs) tells the operator,
//! within a tenth of a second.
//!
//! **How Redis does it**: `aof_last_write_status` and `aof_last_write_err`. Its everysec tries a failed
//! fsync again, and goes on when that works. Its `aof_delayed_fsync` counts writes that waited two seconds
//! for an fsync; here no write waits. It never looks for its files.

use super::disk;
use super::{Aof, SYNC_EVERY};
use crate::log;
use std::io;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU64, Ordering};
use std::time::Instant;

/// Why writes are refused, if they are; and why the log was not switched on.
#[derive(Default)]
pub struct Failures {
    /// The kind of the present failure, to be seen without the mutex; 0 if there is none.
    failing: AtomicU8,
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
    kind: Kind,
    /// In the operating system's words, or, if files are lost, in ours.
    cause: String,
}

/// What has failed; a worse one takes the place of another.
#[derive(Clone, Copy, PartialEq, PartialOrd)]
enum Kind {
    /// A write; over when one works.
    Write = 1,
    /// A file is not where it was; over when it is.
    Lost,
    /// An fsync; over when there is a new base from memory.
    Fsync,
}

impl Aof {
    /// Why writes are refused at the moment, if they are.
    pub fn refusal(&self) -> Option<String> {
        self.failures.refusal()
    }

    /// Tells the operator what there is to tell. Called by a thread that may wait for whoever reads what
    /// we print.
    pub fn tell_news(&self) {
        self.failures.tell_news();
        disk::news().for_each(|text| log::warning(format_args!("{text}")));
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

    /// Which file of the log is not what it was, and in what. The mutex is held, so that no rewrite exchanges
    /// the files meanwhile: a few calls that do not wait for the disk.
    pub(super) fn lost(&self) -> Option<String> {
        let target = self.target.lock().unwrap();
        let target = target.as_ref()?;
        let manifest = &target.manifest;
        let live = manifest.live().map(|entry| manifest.path_of(entry));
        let mut needed = live.chain([manifest.path()]);
        if let Some(missing) = needed.find(|path| !disk::exists(path)) {
            return Some(format!("{} was deleted or moved", missing.display()));
        }
        // Another file in its place does not grow as ours does. (Its inode would tell before anything is
        // written; but some network file systems make these up.)
        let path = manifest.path_of(manifest.incrs.last()?);
        let is_other = !target.torn && disk::length(&path) != target.length;
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

    /// Apart from the above, which is asked with each command, and so is inlined.
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

    /// Returns the cause in the words that follow `MISCONF Errors writing to the AOF file: `.
    pub fn write_failed(&self, error: &io::Error) -> String {
        self.remember(Kind::Write, in_words(error))
    }

    /// The same of a failed fsync, of a file or a directory.
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

    /// Forgets a failed write, but nothing worse.
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

    /// Forgets everything: the log is new, or off.
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

    /// Counts the fsync that is running, once, if it makes the next one late.
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

    /// Tells the operator when the log has begun to fail, or works again, or was not switched on.
    pub fn tell_news(&self) {
        let not_enabled = self.not_enabled.lock().unwrap().take();
        if let Some(reason) = not_enabled {
            log::warning(format_args!("cannot switch the append-only file on: {reason}"));
        }
        self.count_if_slow();
        if self.is_slow.swap(false, Ordering::Relaxed) {
            log::warning(format_args!(
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
            Some(Failure { kind: Kind::Fsync, cause }) => log::warning(format_args!(
                "fsync of the append-only file failed: {cause}. What was written since the last \
                 fsync may be lost in a power cut. Writes are refused until BGREWRITEAOF has \
                 written a new file from memory"
            )),
            Some(Failure { kind: Kind::Lost, cause }) => log::warning(format_args!(
                "{cause}. A start would not find what is written now. Writes are refused until the file is \
                 back, or BGREWRITEAOF has written a new one from memory"
            )),
            Some(Failure { kind: Kind::Write, cause }) => log::warning(format_args!(
                "cannot write to the append-only file: {cause}. Writes are refused until it can \
                 be written again; see whether the disk is full"
            )),
            None => log::notice(format_args!("the append-only file is being written again")),
        }
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
        failures.tell_news();
        assert_eq!(delayed(), 1);
        failures.tell_news();
        failures.fsync_ends();
        assert_eq!(delayed(), 1);
    }
}
