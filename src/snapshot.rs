//! The snapshot in a file, `dump.rdb`: without a log it is what a start begins with. A log that nobody has asked for, because
//! it is on by default, begins with it too (call/replay.rs).
//!
//! SAVE, BGSAVE and the save points all ask one thread, which writes under a temporary name, calls fsync, and renames.
//! So there is always a whole snapshot.
//!
//! ```text
//! with a log     the files up to now ──▶ replayed into a keyspace of its own ──▶ written     nobody waits
//! without one    the keyspace, under the shared lock ──▶ written                             writers wait
//! ```
//!
//! So with a log a snapshot needs as much memory again as the data, as a rewrite does (aof/rewrite.rs). Without one
//! writers wait until it is written: about a second for each million of small keys. Keep a log.
//!
//! The format is told in src/rdb.rs.
//!
//! **How Redis does it**: rdb.c and `loadDataFromDisk` in server.c. A fork writes it. SAVE does without one, and so
//! nobody else is served meanwhile. At a start Redis too reads the log if it is on, and else the snapshot.

use crate::aof::disk::{self, Opening};
use crate::aof::manifest::Manifest;
use crate::aof::rewrite::base::write_snapshot;
use crate::aof::status::Status;
use crate::aof::{Aof, TICK};
use crate::config::Config;
use crate::log;
use crate::propagate::Source;
use crate::rdb::{self, Found, How};
use crate::stats::unix_microseconds;
use crate::store::{Keyspace, Store};
use crate::types::Limits;
use std::io::{self, BufReader, ErrorKind};
use std::path::{Path, PathBuf};
use std::sync::atomic::Ordering::Relaxed;
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU64};
use std::sync::{Condvar, Mutex};
use std::time::{Duration, Instant};

/// Bytes that are read at once.
const ROOM: usize = 64 * 1024;

/// From one line about the progress to the next.
const TELL_EVERY: Duration = Duration::from_secs(2);

/// After a failure, the seconds until a save point counts again.
const RETRY: u64 = 5;

/// What is wanted of the thread that writes snapshots, and what it has done.
#[derive(Default)]
pub struct Snapshots {
    wanted: Mutex<Wanted>,
    changed: Condvar,
    /// Unix time in seconds of the last one that was written; at first, of the start.
    pub last_save: AtomicU64,
    /// How much had been changed by then.
    pub saved_changes: AtomicU64,
    /// The same of the last try.
    tried: AtomicU64,
    /// Unix time in seconds at which the present one began; 0 if there is none.
    pub began: AtomicU64,
    /// Seconds that the last one took; -1 before the first.
    pub last_seconds: AtomicI64,
    pub saves: AtomicU64,
    /// Whether the last one could not be written.
    pub has_failed: AtomicBool,
    /// Keys that the start has found in one.
    pub keys_loaded: AtomicU64,
    pub keys_expired: AtomicU64,
}

#[derive(Default)]
struct Wanted {
    is_asked_for: bool,
    is_running: bool,
    /// How many have ended, and whether the last of them was written.
    ended: u64,
    was_written: bool,
}

/// Makes a keyspace of the first part of a log.
pub type Replay<'a> = dyn Fn(&Manifest, u64) -> Result<Keyspace, String> + 'a;

impl Snapshots {
    pub fn new() -> Snapshots {
        let now = unix_microseconds() / 1_000_000;
        let (last_save, last_seconds) = (AtomicU64::new(now), AtomicI64::new(-1));
        Snapshots { last_save, last_seconds, ..Snapshots::default() }
    }

    /// Asks for a snapshot; false if one is asked for or being written.
    pub fn request(&self) -> bool {
        self.ask(&mut self.wanted.lock().unwrap())
    }

    /// Asks for a snapshot, and waits for it; returns whether it was written. `None` if one is asked for or being
    /// written.
    pub fn request_and_wait(&self) -> Option<bool> {
        let mut wanted = self.wanted.lock().unwrap();
        let number = wanted.ended;
        if !self.ask(&mut wanted) {
            return None;
        }
        let ended = self.changed.wait_while(wanted, |wanted| wanted.ended == number);
        Some(ended.unwrap().was_written)
    }

    fn ask(&self, wanted: &mut Wanted) -> bool {
        let is_free = !wanted.is_running && !wanted.is_asked_for;
        if is_free {
            wanted.is_asked_for = true;
            // INFO says at once that one is in progress.
            self.began.store(unix_microseconds() / 1_000_000, Relaxed);
        }
        self.changed.notify_all();
        is_free
    }

    pub fn is_running(&self) -> bool {
        self.began.load(Relaxed) > 0
    }

    /// Whether writes are refused because no snapshot can be written.
    pub fn stop_writes(&self, config: &Config) -> bool {
        self.has_failed.load(Relaxed)
            && config.stop_writes_on_bgsave_error.get()
            && !config.save.text().is_empty()
    }

    /// The thread. `replay` makes a keyspace of the log.
    pub fn save_for_ever(&self, config: &Config, aof: &Aof, store: &Store, replay: &Replay) -> ! {
        loop {
            let mut wanted = self.wanted.lock().unwrap();
            if !wanted.is_asked_for {
                wanted = self.changed.wait_timeout(wanted, TICK).unwrap().0;
            }
            let is_asked_for = std::mem::take(&mut wanted.is_asked_for);
            wanted.is_running = is_asked_for;
            drop(wanted);
            if !is_asked_for && !self.is_due(config, store) {
                continue;
            }
            self.wanted.lock().unwrap().is_running = true;
            let was_written = self.save(config, aof, store, replay);
            let mut wanted = self.wanted.lock().unwrap();
            (wanted.is_running, wanted.was_written) = (false, was_written);
            wanted.ended += 1;
            self.changed.notify_all();
        }
    }

    /// Whether a save point is reached. The operator is told.
    fn is_due(&self, config: &Config, store: &Store) -> bool {
        let points = config.save.text();
        if points.is_empty() {
            return false;
        }
        let changes = store.read_when_free().changes - self.saved_changes.load(Relaxed);
        let now = unix_microseconds() / 1_000_000;
        let seconds = now.saturating_sub(self.last_save.load(Relaxed));
        let may_retry = !self.has_failed.load(Relaxed) || now >= self.tried.load(Relaxed) + RETRY;
        let numbers: Vec<u64> = points.split(' ').filter_map(|word| word.parse().ok()).collect();
        let is_reached = |point: &&[u64]| seconds > point[0] && changes >= point[1];
        let reached = numbers.chunks_exact(2).find(is_reached).filter(|_| may_retry);
        if let Some(point) = reached {
            log::notice(format_args!("{} changes in {} seconds. Saving...", point[1], point[0]));
        }
        reached.is_some()
    }

    /// Writes one, and tells INFO and the operator how that has ended.
    fn save(&self, config: &Config, aof: &Aof, store: &Store, replay: &Replay) -> bool {
        let begin = Instant::now();
        let now = unix_microseconds() / 1_000_000;
        self.began.store(now, Relaxed);
        self.tried.store(now, Relaxed);
        // Read together, so that nothing is left out that counts as saved.
        let (changes, position) = {
            let keyspace = store.read_when_free();
            (keyspace.changes, aof.position())
        };
        let replayed = {
            let _alone = aof.rewriter.alone.lock().unwrap();
            aof.files_up_to(position).map(|(manifest, length)| replay(&manifest, length))
        };
        let result = match replayed {
            Some(Ok(keyspace)) => write(config, &keyspace),
            Some(Err(reason)) => {
                log::warning(format_args!(
                    "the log cannot be replayed: {reason}. The snapshot is made of memory"
                ));
                write(config, &store.read_when_free())
            }
            None => write(config, &store.read_when_free()),
        };
        self.last_seconds.store(begin.elapsed().as_secs() as i64, Relaxed);
        self.began.store(0, Relaxed);
        self.has_failed.store(result.is_err(), Relaxed);
        match &result {
            Ok(()) => {
                self.saved(changes);
                let took = begin.elapsed().as_millis();
                log::notice(format_args!("DB saved on disk, in {took} ms"));
            }
            Err(error) => log::warning(format_args!("cannot write a snapshot: {error}")),
        }
        result.is_ok()
    }

    /// Notes that a snapshot was written of a keyspace in which so much had been changed.
    pub fn saved(&self, changes: u64) {
        self.saved_changes.store(changes, Relaxed);
        self.last_save.store(unix_microseconds() / 1_000_000, Relaxed);
        self.saves.fetch_add(1, Relaxed);
    }
}

fn path(config: &Config) -> PathBuf {
    config.dir.path().join(config.dbfilename.path())
}

/// Writes a snapshot of the keyspace in the place of the last one.
pub fn write(config: &Config, keyspace: &Keyspace) -> Result<(), String> {
    let directory = config.dir.path();
    let temporary = directory.join(format!("temp-{}.rdb", std::process::id()));
    let result: io::Result<()> = (|| {
        write_snapshot(&temporary, keyspace, How::of(config, false), &mut |_| {})?;
        disk::rename(&temporary, path(config))?;
        disk::sync_directory(&directory)
    })();
    result.map_err(|error| {
        // On a full disk the log needs its room.
        let _ = disk::remove_file(&temporary);
        format!("{}: {error}", path(config).display())
    })
}

/// Loads the snapshot of the directory, if there is one. The error is one line for the operator. Long because most of
/// it is told to somebody.
pub fn load(
    config: &Config,
    status: &Status,
    snapshots: &Snapshots,
) -> Result<Option<Keyspace>, String> {
    let path = path(config);
    let cannot_read =
        |reason: &dyn std::fmt::Display| format!("cannot read {}: {reason}", path.display());
    let file = match disk::open(&path, Opening::Read) {
        Ok(file) => file,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(cannot_read(&error)),
    };
    let now = unix_microseconds();
    let total = disk::length(&path).unwrap_or(0).max(1);
    status.load_start.store(now / 1_000_000, Relaxed);
    status.load_total.store(total, Relaxed);
    let begin = Instant::now();
    let mut last_line = begin;
    let mut progress = |bytes| {
        status.load_done.store(bytes, Relaxed);
        if last_line.elapsed() >= TELL_EVERY {
            last_line = Instant::now();
            log::notice(format_args!("loading: {}% of the snapshot read", bytes * 100 / total));
        }
    };
    let (mut keyspace, limits) =
        (Keyspace::new(config.databases.get()), Limits::of(config, Source::Log));
    // In a replica expired keys wait for their DEL.
    let now = config.primary()?.is_none().then_some(now / 1000);
    let mut reader = BufReader::with_capacity(ROOM, file);
    let read = rdb::read(&mut reader, &mut keyspace, &limits, now, &mut progress);
    let found = read.map_err(|error| {
        format!(
            "{}. Restore the file from a copy, or move it away to begin with nothing",
            cannot_read(&error)
        )
    })?;
    tell(&path, &found, begin.elapsed());
    snapshots.keys_loaded.store(found.keys, Relaxed);
    snapshots.keys_expired.store(found.expired, Relaxed);
    Ok(Some(keyspace))
}

fn tell(path: &Path, found: &Found, took: Duration) {
    let path = path.display();
    for warning in &found.warnings {
        log::warning(format_args!("{path}: {warning}"));
    }
    let Found { keys, bytes, expired, .. } = found;
    let took = took.as_millis();
    log::notice(format_args!(
        "loaded {keys} keys from {path}, {bytes} bytes, in {took} ms; {expired} were expired"
    ));
}
