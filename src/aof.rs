//! The append-only file: what was acknowledged is there after the process dies.
//!
//! ```text
//! under the exclusive lock        before replies leave          once a second, or sooner
//!   append ──▶ [ buffer ] ──────────▶ commit ──▶ file ──────────▶ sync ──▶ disk
//!              `appended`                        `written`                 `durable`
//!
//! at the next start               file ──▶ replay ──▶ keyspace
//! ```
//!
//! The file holds commands in wire format. A record is appended while its writer still holds the keyspace,
//! so the log has the order in which things happened, and a start replays it (aof/load.rs). Once a second,
//! or every 4 KiB, a line `#CRC:digest length` follows, an *annotation*: a start finds damage by it, and
//! Redis skips it (aof/checksum.rs). A start cuts a last record that a crash has torn, and keeps a copy of the
//! bytes. It refuses a log that is damaged elsewhere (aof/repair.rs).
//!
//! **Three positions** count the bytes of all records since the start. A batch notes `appended` when it
//! releases its lock, and commits before its replies leave: it waits until `written` has come that far.
//! Then its own records are in the kernel, and so are those whose effect it may have read. So `kill -9`
//! takes back nothing that any client was told. A power cut takes what is not `durable`. Under `everysec` that is
//! what was written since the last finished fsync began: at most during the second until the next one begins,
//! and during that one. (If an fsync takes longer than a second, the next begins when it ends.)
//!
//! **Group commit.** A thread that commits writes all that is in the buffer with one call. Another thread
//! that waited for the file meanwhile finds `written` past its own position and goes on. `always` shares
//! one fsync in the same way (aof/sync.rs). The fsync of each second runs under no mutex, so a slow disk
//! delays no writer. (The one that seals a file in a rewrite runs under the file's mutex.)
//!
//! **A rewrite** (aof/rewrite.rs) makes the log short. Writers go on in a new file, when the old one has its last
//! fsync and the manifest names both. Until it names the new base, a start replays the old files, so nothing is lost.
//!
//! **Lock order**: the keyspace, the turn to call fsync, file, buffer (src/README.md, *All locks*).
//!
//! **Which orderings matter.** Records pass between threads only under mutexes. So an ordering matters only
//! where a thread acts on an atomic without holding a mutex: `written` is stored with Release after the `write` has
//! returned, and `commit` loads it with Acquire, so a reply leaves after the write that it needs; `durable`
//! is the same for fsync. A reader loads `appended` after it has got the keyspace, under which writers raise it. So
//! its position covers all that it sees. The other atomics are switches and counters: an old value does no harm.
//!
//! **How Redis does it**: aof.c. Under everysec the first write that fails is answered with OK.

pub mod backlog;
pub mod check;
mod checksum;
pub mod disk;
pub mod failure;
pub mod load;
pub mod manifest;
#[cfg(test)]
pub mod power_cuts;
mod repair;
pub mod rewrite;
pub mod start;
pub mod status;
mod stop;
mod sync;
mod xxh64;

use crate::config::{Config, Fsync};
use crate::propagate::{KEPT, Records, Stream};
use checksum::{Annotate, Stretch};
use disk::{Directory, File};
use failure::{Failures, Kind};
use manifest::Manifest;
use status::Status;
use std::io::{self, Write};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, Weak};
use std::thread;
use std::time::{Duration, Instant};

/// Under `everysec`, from the beginning of one fsync to the beginning of the next.
const SYNC_EVERY: Duration = Duration::from_secs(1);

/// How often the log's threads look for work. A failed write is tried again this often.
pub const TICK: Duration = Duration::from_millis(100);

/// A place in the log: bytes of records appended since the server started, over all files.
pub type Position = u64;

#[derive(Default)]
pub struct Aof {
    config: Arc<Config>,
    /// Whether what is appended is kept.
    enabled: AtomicBool,
    buffer: Mutex<Stream>,
    /// The file; none while the log is off.
    target: Mutex<Option<Target>>,
    /// Everything up to here is, or was, in the buffer.
    appended: AtomicU64,
    /// Everything up to here is in the kernel.
    written: AtomicU64,
    /// Everything up to here is on the disk.
    durable: AtomicU64,
    /// Whose turn it is to call fsync, and who needs one soon.
    syncs: sync::Syncs,
    /// Why writes are refused, if they are.
    pub failures: Failures,
    /// The lock of the directory, while the target or a rewrite holds it.
    directory_lock: Mutex<Weak<Directory>>,
    pub status: Status,
    pub backlog: backlog::Backlog,
    pub rewriter: rewrite::Requests,
}

/// The file that is written to.
struct Target {
    manifest: Manifest,
    /// Shared, so that fsync needs no lock.
    file: Arc<File>,
    /// Bytes in the file up to the last record that was written whole.
    length: u64,
    /// Taken from the buffer and not written yet: only if a write has failed.
    pending: Vec<u8>,
    /// The position at the end of `pending`.
    pending_end: Position,
    /// Whether a failed write may have left half a record after `length`.
    torn: bool,
    /// What no annotation covers yet, up to the end of `pending` (aof/checksum.rs).
    open: Stretch,
    /// Keeps a second server out of the directory. A rewrite that is running holds it too.
    lock: Arc<Directory>,
}

impl Aof {
    pub fn new(config: Arc<Config>) -> Aof {
        let aof = Aof { config, ..Aof::default() };
        aof.status.last_rewrite_seconds.store(-1, Ordering::Relaxed);
        aof
    }

    pub fn is_enabled(&self) -> bool {
        self.enabled.load(Ordering::Relaxed)
    }

    /// Appends what a batch has changed. The caller still holds the keyspace exclusively, which
    /// is what makes the order of the log the order of the changes. `records` is empty afterwards.
    pub fn append(&self, records: &mut Records) {
        if self.is_enabled() && !records.bytes.is_empty() {
            let mut buffer = self.buffer.lock().unwrap();
            // Asked again under the mutex, because nobody would write what is appended to a log that is off.
            if self.is_enabled() {
                let added = buffer.append(records) as u64;
                self.appended.fetch_add(added, Ordering::Release);
            }
        }
        records.clear();
    }

    /// Everything appended so far. If a thread asks while it holds the keyspace, or later, this covers all changes
    /// that it has seen.
    pub fn position(&self) -> Position {
        self.appended.load(Ordering::Acquire)
    }

    /// Bytes that are appended and not written to the file yet.
    pub fn unwritten(&self) -> u64 {
        let written = self.written.load(Ordering::Acquire);
        self.position().saturating_sub(written)
    }

    /// Returns when everything up to `position` is in the kernel, and under `appendfsync always` on
    /// the disk. The error is the cause in the operating system's words. It waits for the file, so a
    /// batch that calls it holds no lock.
    pub fn commit(&self, position: Position) -> Result<(), String> {
        if self.written.load(Ordering::Acquire) < position {
            let mut target = self.target.lock().unwrap();
            if self.written.load(Ordering::Acquire) < position {
                self.write(&mut target, Annotate::IfMuch)?;
            }
        }
        if self.config.appendfsync.get() == Fsync::Always && !self.is_durable(position) {
            self.sync_to(position)?;
        }
        Ok(())
    }

    /// Writes what is in the buffer, after what an earlier failure left.
    fn write(&self, target: &mut Option<Target>, annotate: Annotate) -> Result<(), String> {
        // Without a file the log is off, and there is nothing to wait for.
        let Some(target) = target else {
            return Ok(());
        };
        let from = self.take(target, &mut self.buffer.lock().unwrap());
        self.write_taken(target, from, annotate)
    }

    /// Moves what is in the buffer to the end of `pending`, and returns where that begins. The caller holds the
    /// buffer's mutex, so that `appended` is the end of what is taken. Nothing else is done under this mutex,
    /// because writers that hold the keyspace wait for it.
    fn take(&self, target: &mut Target, buffer: &mut Stream) -> usize {
        let from = target.pending.len();
        if from == 0 {
            std::mem::swap(&mut target.pending, &mut buffer.bytes);
        } else {
            target.pending.append(&mut buffer.bytes);
        }
        target.pending_end = self.position();
        from
    }

    /// Writes `pending`, which is new from `from` on.
    fn write_taken(
        &self,
        target: &mut Target,
        from: usize,
        annotate: Annotate,
    ) -> Result<(), String> {
        let annotate = if self.config.aof_checksum.get() { annotate } else { Annotate::Never };
        checksum::cover(&mut target.open, &mut target.pending, from, annotate);
        let written = self.config.latency.time("aof-write", || target.write_pending());
        let count = written.map_err(|error| self.failures.failed(Kind::Write, &error))?;
        self.status.size.fetch_add(count, Ordering::Relaxed);
        self.written.store(target.pending_end, Ordering::Release);
        self.backlog.grows_to(target.pending_end, target.length);
        self.failures.end(Kind::Write);
        // Too much for one fsync a second, if a rewrite is running (aof/sync.rs).
        if self.has_much_to_sync() {
            self.syncs.wake();
        }
        Ok(())
    }

    /// The sync thread. Once a second it closes the stretch that is open, calls fsync under `everysec`, and
    /// checks that the files are where they were. In between it writes the records of commands that still run,
    /// such as a long SCAN that has met expired keys. It tries again what has failed, and calls fsync if somebody
    /// needs it sooner (aof/sync.rs).
    pub fn sync_every_second(&self) -> ! {
        self.syncs.thread.get_or_init(thread::current);
        let mut last = Instant::now();
        loop {
            let rest = SYNC_EVERY.saturating_sub(last.elapsed());
            thread::park_timeout(rest.min(TICK));
            let is_due = last.elapsed() >= SYNC_EVERY;
            if is_due {
                // Measured from the beginning of an fsync, not from its end.
                last = Instant::now();
                self.check_files();
            }
            if is_due || self.unwritten() > 0 || self.failure().is_some() {
                let annotate = if is_due { Annotate::Now } else { Annotate::IfMuch };
                // The operator has been told of an error, and writers will be.
                let _ = self.write(&mut self.target.lock().unwrap(), annotate);
            }
            let is_asked_for = self.syncs.asked_for.swap(false, Ordering::Relaxed);
            let is_urgent = is_asked_for || self.has_much_to_sync();
            if is_urgent || is_due && self.config.appendfsync.get() == Fsync::Everysec {
                let _ = self.sync_to(self.written.load(Ordering::Acquire));
            }
        }
    }
}

impl Target {
    /// Nothing is written to the file yet.
    fn new(manifest: Manifest, file: File, lock: Arc<Directory>) -> Target {
        Target {
            manifest,
            file: Arc::new(file),
            length: 0,
            pending: Vec::new(),
            pending_end: 0,
            torn: false,
            open: Stretch::default(),
            lock,
        }
    }

    /// Writes `pending`, whole or not at all; returns how many bytes that was.
    fn write_pending(&mut self) -> io::Result<u64> {
        if self.torn {
            self.file.set_len(self.length)?;
            self.torn = false;
        }
        // The file is open for appending: after `set_len` the next write begins at the new end.
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
