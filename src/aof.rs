//! The append-only file: what was acknowledged is there after the process dies.
//!
//! ```text
//! under the exclusive lock        before replies leave          once a second, or sooner
//!   append ──▶ [ buffer ] ──────────▶ commit ──▶ file ──────────▶ sync ──▶ disk
//!              `appended`                        `written`                 `durable`
//! ```
//!
//! Three *positions* count bytes since the start. A record is appended while its writer still holds the
//! keyspace, so the log has the order in which things happened. Before a batch's replies leave, everything
//! appended up to the moment when its guard dropped is written: its own records, and those whose effect
//! its reads may have seen. So `kill -9` takes back nothing that any client was told. A power cut takes at
//! most what `appendfsync` allows. Under `everysec` an fsync begins a second after the one before it began,
//! or when that one ends, so a cut takes what was written during an fsync and a second, or two fsyncs.
//!
//! **Group commit.** A thread that commits writes all that is in the buffer with one call. Whoever waited
//! for the file meanwhile finds `written` past its own position and goes. `always` shares one fsync in
//! the same way, by a turn that one thread has at a time ([`Turn`]). fsync runs with no mutex held, so a
//! slow disk delays no writer, and a thread that needs an fsync waits for one, not for two.
//!
//! **Lock order**: the turn, then file, then buffer; and buffer alone under the keyspace's lock.
//!
//! **Which orderings matter.** Bytes pass between threads only under mutexes. So an ordering matters only
//! where a thread acts on an atomic without one:
//! - `written` is stored with Release after the `write` has returned. `commit` loads it with Acquire, so
//!   a reply leaves after the write that it needs.
//! - `durable` is the same for fsync (`always`, WAITAOF). Before a thread sleeps it loads `durable` under
//!   the mutex of the turn, and turns end under that mutex, so no thread misses an end.
//! - `appended` is raised with the keyspace held, and loaded then or later. The keyspace's lock orders
//!   these, so a position covers all that its reader has seen.
//! - `enabled` is loaded with Relaxed, as a hint. `append` loads it again under the buffer's mutex, under
//!   which it is cleared. It is set before a start or a rewrite lets writers have the keyspace.
//!
//! For all others a late value harms nothing.
//!
//! What happens if the disk fails: aof/failure.rs. How a flipped bit is seen: aof/checksum.rs. What is cut
//! from a broken log: aof/repair.rs.
//!
//! **How Redis does it**: aof.c, `flushAppendOnlyFile`, from its one thread before it sleeps. Its
//! everysec acknowledges the first write that fails; ours does not.

mod checksum;
mod disk;
mod failure;
pub mod load;
pub mod manifest;
#[cfg(test)]
mod power_cuts;
pub mod repair;
pub mod rewrite;
pub mod start;

use crate::config::{Config, Fsync};
use crate::propagate::{KEPT, Records, Stream};
use checksum::Stretch;
use disk::{Directory, File};
use failure::Failures;
use manifest::Manifest;
use std::io::{self, Write};
use std::ops::Range;
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, OnceLock, Weak};
use std::thread::Thread;
use std::time::{Duration, Instant};

/// During a rewrite one fsync covers at most so many bytes of the base, and of the log. Redis does this with
/// a base, every 4 MB (`aof-rewrite-incremental-fsync`).
///
/// A `write` to a file that is being fsynced may wait half as long as the fsync takes. An fsync of 30 MB,
/// which half a second of work leaves, takes 25 ms, and longer while a rewrite keeps the disk busy. So
/// under `everysec` the sync thread then calls fsync more often, and fsync and write both take a few
/// milliseconds. At other times one fsync a second is better: the wait is longer, but fewer clients meet
/// it (the 99th percentile of SET at pipeline 64 was 0.4 to 0.8 of Redis's with one a second, 1.0 to 1.2
/// with one every 8 MB).
const SYNC_EVERY: u64 = 8 * 1024 * 1024;

/// Under `everysec`, from one fsync's beginning to the next one's. One that takes longer is told.
const SYNC_WITHIN: Duration = Duration::from_secs(1);

/// How often the sync thread looks around: a disk that has room again is noticed within this.
const TICK: Duration = Duration::from_millis(100);

/// How often it looks whether the log's files are where they were.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// A place in the log: bytes appended since the server started, over all its files.
pub type Position = u64;

pub struct Aof {
    config: Arc<Config>,
    /// Whether what is appended is kept.
    enabled: AtomicBool,
    buffer: Mutex<Stream>,
    target: Mutex<Option<Target>>,
    /// Whether somebody has the turn to call fsync.
    syncing: Mutex<bool>,
    /// A turn has ended: `durable` may have moved.
    synced: Condvar,
    /// How much is in the buffer, or was; in the kernel; on the disk.
    appended: AtomicU64,
    written: AtomicU64,
    durable: AtomicU64,
    /// What to add to a position to have its offset in the present file.
    origin: AtomicI64,
    /// Why writes are refused, if they are.
    failures: Failures,
    /// The lock of the directory, while anybody holds it.
    directory_lock: Mutex<Weak<Directory>>,
    /// The sync thread, which sleeps between its rounds.
    syncer: OnceLock<Thread>,
    /// Whether the log is not left alone for a second, but fsynced every [`SYNC_EVERY`] bytes.
    little_at_a_time: AtomicBool,
    /// Whether somebody waits for an fsync and does not want to wait for the next second.
    hurry: AtomicBool,
    pub status: Status,
    pub rewriter: rewrite::Requests,
}

/// What INFO tells of the log.
#[derive(Default)]
pub struct Status {
    /// Bytes in all live files.
    pub size: AtomicU64,
    /// The same after the last rewrite, or at the start.
    pub base_size: AtomicU64,
    pub syncs_pending: AtomicU64,
    /// Clients in WAIT and WAITAOF.
    pub waiting: AtomicU64,
    pub loading: AtomicBool,
    /// Unix time in seconds.
    pub load_start: AtomicU64,
    pub load_total: AtomicU64,
    pub load_done: AtomicU64,
    pub rewriting: AtomicBool,
    pub rewrites: AtomicU64,
    /// Since the last rewrite that worked.
    pub rewrite_failures: AtomicU64,
    /// Unix time in seconds at which the present rewrite began.
    pub rewrite_start: AtomicU64,
    pub last_rewrite_failed: AtomicBool,
    /// Duration of the last rewrite in seconds, -1 before the first.
    pub last_rewrite_seconds: AtomicI64,
}

/// The file that is written to.
struct Target {
    manifest: Manifest,
    /// Shared, so that fsync needs no lock.
    file: Arc<File>,
    /// Bytes in the file up to the last record that was written whole.
    length: u64,
    /// Taken from the buffer and not yet written, for a write failed.
    pending: Vec<u8>,
    /// Where the position will be when `pending` is written.
    pending_end: Position,
    /// Whether a failed write may have left half a record behind `length`.
    torn: bool,
    /// What no annotation covers yet, up to the end of `pending` (aof/checksum.rs).
    open: Stretch,
    /// Keeps a second server out of the directory. A rewrite that is running holds it too.
    lock: Arc<Directory>,
}

impl Aof {
    pub fn new(config: Arc<Config>) -> Aof {
        let status = Status { last_rewrite_seconds: AtomicI64::new(-1), ..Status::default() };
        Aof {
            config,
            enabled: AtomicBool::new(false),
            buffer: Mutex::default(),
            target: Mutex::default(),
            syncing: Mutex::default(),
            synced: Condvar::new(),
            appended: AtomicU64::new(0),
            written: AtomicU64::new(0),
            durable: AtomicU64::new(0),
            origin: AtomicI64::new(0),
            failures: Failures::default(),
            directory_lock: Mutex::default(),
            syncer: OnceLock::new(),
            little_at_a_time: AtomicBool::new(false),
            hurry: AtomicBool::new(false),
            status,
            rewriter: rewrite::Requests::default(),
        }
    }

    pub fn is_enabled(&self) -> bool {
        self.enabled.load(Ordering::Relaxed)
    }

    /// Appends what a batch has changed. The caller still holds the keyspace exclusively, which
    /// is what makes the order of the log the order of the changes.
    /// Returns where in the present file the records are, for those who watch; `records` is empty then.
    pub fn append(&self, records: &mut Records) -> Range<i64> {
        let mut at = 0..0;
        if self.is_enabled() && !records.bytes.is_empty() {
            let mut buffer = self.buffer.lock().unwrap();
            // Asked again under the mutex: what is appended to a log that is off nobody writes out.
            if self.is_enabled() {
                let added = buffer.append(records) as u64;
                let start = self.appended.fetch_add(added, Ordering::Release) as i64;
                let start = start + self.origin.load(Ordering::Relaxed);
                at = start..start + added as i64;
            }
        }
        records.clear();
        at
    }

    /// Everything appended so far. Read it while holding the keyspace, or right after: what the
    /// holder has seen is not behind it.
    pub fn position(&self) -> Position {
        self.appended.load(Ordering::Acquire)
    }

    /// Bytes that are appended and not yet written to the file.
    pub fn unwritten(&self) -> u64 {
        let written = self.written.load(Ordering::Acquire);
        self.position().saturating_sub(written)
    }

    /// Returns when everything up to `position` is in the kernel, and under `appendfsync always`
    /// on the disk. The error is the cause in the operating system's words. It waits for the file, so
    /// nobody calls it with the keyspace's lock but SHUTDOWN, which wants everybody to wait, and CONFIG SET
    /// inside an EXEC.
    pub fn commit(&self, position: Position) -> Result<(), String> {
        if self.written.load(Ordering::Acquire) < position {
            let mut target = self.target.lock().unwrap();
            if self.written.load(Ordering::Acquire) < position {
                self.write(&mut target, Seal::IfMuch)?;
            }
        }
        if self.config.appendfsync.get() == Fsync::Always
            && self.durable.load(Ordering::Acquire) < position
        {
            self.sync_to(position)?;
        }
        Ok(())
    }

    /// Why writes are refused at the moment, if they are.
    pub fn refusal(&self) -> Option<String> {
        self.failures.refusal()
    }

    /// Takes what is in the buffer and writes it, after what an earlier failure left.
    fn write(&self, target: &mut MutexGuard<Option<Target>>, seal: Seal) -> Result<(), String> {
        // Without a file there is nothing to wait for: the log was switched off meanwhile.
        let Some(target) = target.as_mut() else {
            return Ok(());
        };
        let taken = self.take(target, &mut self.buffer.lock().unwrap(), seal);
        target.annotate(taken);
        self.write_pending(target)
    }

    /// Takes what is in the buffer, and says whether an annotation is to follow it. That is decided here,
    /// for what is appended when the buffer is free again stands behind the annotation.
    fn take(&self, target: &mut Target, buffer: &mut Stream, seal: Seal) -> Taken {
        let from = target.pending.len();
        if from == 0 {
            std::mem::swap(&mut target.pending, &mut buffer.bytes);
        } else {
            target.pending.append(&mut buffer.bytes);
        }
        target.pending_end = self.position();
        let added = (target.pending.len() - from) as u64;
        let length = target.open.length + added;
        let is_due = length > 0 && (seal == Seal::Now || length >= checksum::EVERY);
        let annotate = is_due && self.config.aof_checksum.get();
        if annotate {
            let size = checksum::size_of_annotation(length);
            self.origin.fetch_add(size as i64, Ordering::Relaxed);
        }
        Taken { from, annotate }
    }

    fn write_pending(&self, target: &mut Target) -> Result<(), String> {
        match target.write_pending() {
            Ok(count) => {
                self.status.size.fetch_add(count, Ordering::Relaxed);
                self.written.store(target.pending_end, Ordering::Release);
                self.failures.write_worked();
                if self.has_much_to_sync() {
                    self.wake_syncer();
                }
                Ok(())
            }
            Err(error) => Err(self.failures.write_failed(&error)),
        }
    }

    /// Returns when everything up to `position` is on the disk; one fsync serves all who wait.
    fn sync_to(&self, position: Position) -> Result<(), String> {
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

    /// Waits for the turn to call fsync; None if it is no longer needed, since `position` is on
    /// the disk.
    fn turn_for(&self, position: Position) -> Option<Turn<'_>> {
        let mut syncing = self.syncing.lock().unwrap();
        while !self.is_durable(position) {
            if !*syncing {
                *syncing = true;
                return Some(Turn(self));
            }
            syncing = self.synced.wait(syncing).unwrap();
        }
        None
    }

    /// Waits for the turn to exchange the file, during which nobody calls fsync.
    fn turn(&self) -> Turn<'_> {
        let syncing = self.syncing.lock().unwrap();
        let mut syncing = self.synced.wait_while(syncing, |syncing| *syncing).unwrap();
        *syncing = true;
        Turn(self)
    }

    /// Calls fsync; then everything up to `written` is durable.
    fn sync_file(&self, file: &File, written: Position, _: &Turn) -> Result<(), String> {
        // What an earlier failed fsync may have lost, ours would not notice.
        if let Some(cause) = self.failures.damage() {
            return Err(cause);
        }
        self.status.syncs_pending.store(1, Ordering::Relaxed);
        self.failures.fsync_begins();
        let result = file.sync_data();
        self.failures.fsync_ends();
        self.status.syncs_pending.store(0, Ordering::Relaxed);
        match result {
            Ok(()) => {
                self.durable.fetch_max(written, Ordering::AcqRel);
                Ok(())
            }
            Err(error) => Err(self.failures.fsync_failed(&error)),
        }
    }

    /// Whether everything up to `position` is on the disk.
    pub fn is_durable(&self, position: Position) -> bool {
        self.durable.load(Ordering::Acquire) >= position
    }

    /// Waits until everything up to `position` is on the disk, whatever `appendfsync` says, but
    /// not longer than `most`; returns whether it is.
    pub fn wait_durable(&self, position: Position, most: Duration) -> bool {
        let syncing = self.syncing.lock().unwrap();
        self.hurry.store(true, Ordering::Relaxed);
        self.wake_syncer();
        let absent = |_: &mut bool| !self.is_durable(position);
        let woken = self.synced.wait_timeout_while(syncing, most, absent);
        !woken.unwrap().1.timed_out()
    }

    /// Whether so much is written and not on the disk that, in a rewrite, one should not wait for the
    /// next second.
    fn has_much_to_sync(&self) -> bool {
        if !self.little_at_a_time.load(Ordering::Relaxed) {
            return false;
        }
        let written = self.written.load(Ordering::Acquire);
        let durable = self.durable.load(Ordering::Acquire);
        self.config.appendfsync.get() == Fsync::Everysec
            && written.saturating_sub(durable) > SYNC_EVERY
    }

    /// Begins the next round of the sync thread at once.
    fn wake_syncer(&self) {
        if let Some(syncer) = self.syncer.get() {
            syncer.unpark();
        }
    }

    /// The sync thread: writes what nobody waited for, tries again what failed, and calls fsync
    /// once a second, or at once if somebody waits in WAITAOF or a rewrite runs and there is much.
    pub fn sync_every_second(&self) -> ! {
        let _ = self.syncer.set(std::thread::current());
        let mut last_round = Instant::now();
        let mut last_look = Instant::now();
        loop {
            // After an fsync that took long the next one begins at once.
            let rest = SYNC_WITHIN.saturating_sub(last_round.elapsed());
            std::thread::park_timeout(rest.min(TICK));
            if last_look.elapsed() >= LOOK_EVERY {
                self.look_for_files();
                last_look = Instant::now();
            }
            let is_due = last_round.elapsed() >= SYNC_WITHIN;
            let is_behind = self.written.load(Ordering::Acquire) < self.position();
            // An annotation that could not be written is no record, and nobody waits for it.
            if is_due || is_behind || self.refusal().is_some() {
                let mut target = self.target.lock().unwrap();
                // The operator has been told, and writers will be.
                let _ = self.write(&mut target, Seal::when(is_due));
            }
            if is_due {
                // Not when the fsync ends, or the next would be late by as much as this one takes.
                last_round = Instant::now();
            }
            let hurry = self.hurry.swap(false, Ordering::Relaxed);
            let is_due = is_due && self.config.appendfsync.get() == Fsync::Everysec;
            let written = self.written.load(Ordering::Acquire);
            let now = is_due || hurry || self.has_much_to_sync();
            if now && self.durable.load(Ordering::Acquire) < written {
                let _ = self.sync_to(written);
            }
        }
    }

    /// How many fsyncs took longer than a second, since CONFIG RESETSTAT.
    pub fn delayed_syncs(&self) -> &AtomicU64 {
        &self.failures.delayed_syncs
    }

    /// Tells the operator what there is to tell. For a thread that may wait for whoever reads what we print.
    pub fn tell_news(&self) {
        self.failures.tell_news();
        disk::news().for_each(|text| crate::log::warning(format_args!("{text}")));
    }

    /// Writes and fsyncs everything, for SHUTDOWN. The error says what could not be saved.
    pub fn finish(&self) -> Result<(), String> {
        if !self.is_enabled() {
            // Who switched it on was told OK.
            let will_be = self.config.appendonly.get();
            return match will_be && !self.status.loading.load(Ordering::Relaxed) {
                true => Err("the first file of the log is not written yet".into()),
                false => Ok(()),
            };
        }
        let position = {
            let mut target = self.target.lock().unwrap();
            self.write(&mut target, Seal::Now)?;
            self.written.load(Ordering::Acquire)
        };
        self.sync_to(position)?;
        // The list of files may be what is not on disk, or the files where no start looks for them.
        self.look_for_files();
        self.failures.refusal().map_or(Ok(()), Err)
    }

    /// The end of the log, for `CONFIG SET appendonly no`. Whoever has appended up to here and waits in
    /// `commit` waits for the file until all is written, and under `always` also for the turn, which does
    /// not end before all is on the disk.
    fn let_go(&self) {
        // No fsync may fail any more, for it would count against a log that is off.
        let turn = self.turn();
        let mut guard = self.target.lock().unwrap();
        let Some(mut target) = guard.take() else {
            return self.failures.forget();
        };
        {
            let mut buffer = self.buffer.lock().unwrap();
            self.enabled.store(false, Ordering::Release);
            let taken = self.take(&mut target, &mut buffer, Seal::Now);
            *buffer = Stream::default();
            drop(buffer);
            target.annotate(taken);
        }
        let written = self.write_pending(&mut target);
        let end = self.position();
        self.written.store(end, Ordering::Release);
        drop(guard);
        if written.is_ok() && !self.is_durable(end) {
            let _ = self.sync_file(&target.file, end, &turn);
        }
        self.failures.forget();
    }
}

/// The right to call fsync, or to exchange the file. It is no mutex, for those who wait are many,
/// and when it ends most of them find that nothing is left to do: they must all be free to look at
/// once, while the next turn has already begun.
struct Turn<'a>(&'a Aof);

impl Drop for Turn<'_> {
    fn drop(&mut self) {
        *self.0.syncing.lock().unwrap() = false;
        self.0.synced.notify_all();
    }
}

/// Whether an annotation follows what is taken from the buffer.
#[derive(Clone, Copy, PartialEq)]
enum Seal {
    /// If there is anything that none covers.
    Now,
    /// If that is much.
    IfMuch,
}

impl Seal {
    fn when(now: bool) -> Seal {
        if now { Seal::Now } else { Seal::IfMuch }
    }
}

/// What was taken from the buffer and has no digest yet: `pending` from here on.
struct Taken {
    from: usize,
    annotate: bool,
}

impl Target {
    /// Adds what was taken to the open stretch, and closes that if it is to be. Here and not in
    /// [`Aof::take`], for it takes a while, and who holds the keyspace waits for the buffer.
    fn annotate(&mut self, taken: Taken) {
        self.open.add(&self.pending[taken.from..]);
        if taken.annotate {
            checksum::close(&mut self.open, &mut self.pending);
        }
    }

    /// Writes `pending`, whole or not at all; returns how many bytes that was.
    fn write_pending(&mut self) -> io::Result<u64> {
        if self.torn {
            self.file.set_len(self.length)?;
            self.torn = false;
        }
        if let Err(error) = (&*self.file).write_all(&self.pending) {
            // If this fails too, it is tried again before the next write.
            self.torn = self.file.set_len(self.length).is_err();
            return Err(error);
        }
        let count = self.pending.len() as u64;
        self.length += count;
        self.pending.clear();
        self.pending.shrink_to(KEPT);
        Ok(count)
    }
}
