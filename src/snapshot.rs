//! The snapshot in a file, `dump.rdb`: without a log it is what a start begins with. A log that nobody has asked for, because
//! it is on by default, begins with it too (call/replay.rs).
//!
//! SAVE, BGSAVE and the save points all ask one thread, which writes under a temporary name, calls fsync, and renames.
//! So there is always a whole snapshot. It holds the keyspace as it was at one moment, and clients go on meanwhile
//! (store/moment.rs).
//!
//! The format is told in src/rdb.rs.
//!
//! **How Redis does it**: rdb.c and `loadDataFromDisk` in server.c. A fork writes it. SAVE does without one, and so
//! nobody else is served meanwhile. At a start Redis too reads the log if it is on, and else the snapshot.

use crate::aof::TICK;
use crate::aof::disk::{self, Opening};
use crate::aof::rewrite::base::synced;
use crate::aof::status::{Status, Writing};
use crate::config::Config;
use crate::lazyfree;
use crate::log;
use crate::propagate::Source;
use crate::rdb::{self, Found, How};
use crate::stats::unix_microseconds;
use crate::store::{Keyspace, Moment, Store};
use crate::types::Limits;
use std::io::{self, BufReader, ErrorKind};
use std::path::{Path, PathBuf};
use std::sync::atomic::Ordering::Relaxed;
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU64, AtomicUsize};
use std::sync::{Condvar, Mutex, MutexGuard};
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
    /// The most bytes that were put aside for the last one at once.
    pub put_aside: AtomicUsize,
    /// Held by whoever puts one in the place of the last one.
    placing: Mutex<()>,
    /// Of the one that is being written.
    pub writing: Writing,
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

    /// The thread. `rewrites` is held while the log is rewritten.
    pub fn save_for_ever(&self, config: &Config, rewrites: &Mutex<()>, store: &Store) -> ! {
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
            // As in Redis, one that is scheduled begins when the rewrite has ended.
            drop(rewrites.lock().unwrap());
            let was_written = lazyfree::in_thread("save", &|| self.save(config, store));
            let mut wanted = self.wanted.lock().unwrap();
            (wanted.is_running, wanted.was_written) = (false, was_written);
            // Together, so that BGSAVE is not refused when INFO says that none is in progress.
            self.began.store(0, Relaxed);
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
    fn save(&self, config: &Config, store: &Store) -> bool {
        let begin = Instant::now();
        let now = unix_microseconds() / 1_000_000;
        self.began.store(now, Relaxed);
        self.tried.store(now, Relaxed);
        let mut moment = Moment::begin(store);
        let changes = moment.changes;
        let progress = self.writing.begin(moment.keys);
        let temporary = temporary(config, "temp-");
        let written = synced(&temporary, |out| {
            let how = How::of(config, false);
            let written = rdb::write_moment(out, &mut moment, how, &mut |done| progress.tell(done));
            self.put_aside.store(moment.peak, Relaxed);
            // The fsync needs it no more.
            drop(moment);
            written
        });
        let result = self.put_in_place(config, &temporary, written).map(drop);
        self.last_seconds.store(begin.elapsed().as_secs() as i64, Relaxed);
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

    /// For SHUTDOWN: writes one of a keyspace that nobody else can reach any more. Whoever is writing another one, which is
    /// older, cannot put it in its place before the guard is dropped.
    pub fn write_last(
        &self,
        config: &Config,
        keyspace: &Keyspace,
    ) -> Result<MutexGuard<'_, ()>, String> {
        let temporary = temporary(config, "temp-last-");
        let how = How::of(config, false);
        let written = synced(&temporary, |out| rdb::write(out, keyspace, how, &mut |_| {}));
        self.put_in_place(config, &temporary, written)
    }

    /// For SHUTDOWN: deletes what the thread has begun to write.
    pub fn discard(&self, config: &Config) {
        let _ = disk::remove_file(temporary(config, "temp-"));
    }

    /// Puts what was written there in the place of the last one.
    fn put_in_place(
        &self,
        config: &Config,
        temporary: &Path,
        written: io::Result<()>,
    ) -> Result<MutexGuard<'_, ()>, String> {
        let placing = self.placing.lock().unwrap();
        let placed = written.and_then(|()| {
            disk::rename(temporary, path(config))?;
            disk::sync_directory(&config.dir.path())
        });
        match placed {
            Ok(()) => Ok(placing),
            Err(error) => {
                // On a full disk the log needs its room.
                let _ = disk::remove_file(temporary);
                Err(format!("{}: {error}", path(config).display()))
            }
        }
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

fn temporary(config: &Config, begin: &str) -> PathBuf {
    config.dir.path().join(format!("{begin}{}.rdb", std::process::id()))
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
    let mut progress = |found: &Found| {
        let bytes = found.bytes;
        status.load_done.store(bytes, Relaxed);
        status.load_memory.store(found.memory, Relaxed);
        if last_line.elapsed() >= TELL_EVERY {
            last_line = Instant::now();
            log::notice(format_args!("loading: {}% of the snapshot read", bytes * 100 / total));
        }
    };
    let (databases, limits) = (config.databases.get(), Limits::of(config, Source::Log));
    // In a replica expired keys wait for their DEL.
    let now = config.primary()?.is_none().then_some(now / 1000);
    let mut reader = BufReader::with_capacity(ROOM, file);
    let read = rdb::read(&mut reader, databases, &limits, now, &mut progress);
    let (keyspace, found) = read.map_err(|error| {
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::aof::disk::simulated::{Call, Disk, Fate};
    use crate::aof::power_cuts::{Contents, Random, config_with, keyspace, print_nothing};
    use crate::types::Str;
    use std::cell::Cell;
    use std::rc::Rc;
    use std::sync::Arc;

    /// So a snapshot is as long as what is in it, and is written in several pieces.
    fn config_on(disk: &Disk) -> Arc<Config> {
        config_with(disk, &["--rdbcompression", "no"])
    }

    /// What a start finds on this disk.
    fn found(disk: &Disk) -> Result<Option<Contents>, String> {
        print_nothing();
        let loaded = load(&config_on(disk), &Status::default(), &Snapshots::default())?;
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        Ok(loaded.map(|keyspace| {
            let strings = keyspace
                .entries(0)
                .map(|entry| (text(entry.key()), text(&entry.read::<Str>().unwrap())));
            strings.collect()
        }))
    }

    fn contents(value: &str) -> Contents {
        (0..20).map(|key| (key.to_string(), value.repeat(9_000))).collect()
    }

    fn save(disk: &Disk, contents: &Contents) -> Result<(), String> {
        Snapshots::default().write_last(&config_on(disk), &keyspace(contents)).map(drop)
    }

    /// Before each call that writing a snapshot makes, the power fails or the process is killed: a start finds the old
    /// snapshot or the new one, and never a part.
    #[test]
    fn after_any_power_cut_a_start_finds_a_whole_snapshot() {
        let (disk, other) = (Disk::new(), Disk::new());
        let (old, new) = (contents("old"), contents("new"));
        save(&disk, &old).unwrap();
        let mut random = Random(1);
        let mut below = move |bound| random.below(bound);
        let (cuts, news) = (Rc::new(Cell::new(0)), Rc::new(Cell::new(0)));
        let (cut, left, expected) = (disk.clone(), other.clone(), [old, new.clone()]);
        let (counted, counted_new) = (cuts.clone(), news.clone());
        disk.ask(move |_, _| {
            for round in 0..20 {
                left.put(match round {
                    0 => cut.as_it_is(),
                    _ => cut.after_power_cut(&mut below, false),
                });
                let found = found(&left).unwrap().expect("a snapshot");
                assert!(expected.contains(&found));
                counted.set(counted.get() + 1);
                counted_new.set(counted_new.get() + usize::from(found == expected[1]));
            }
            Fate::Works
        });
        save(&disk, &new).unwrap();
        assert!(cuts.get() >= 20 * 10 && news.get() > 0, "{} {}", cuts.get(), news.get());
        // When it has been said that it is written, it is.
        disk.ask_nobody();
        let mut random = Random(2);
        for _ in 0..40 {
            other.put(disk.after_power_cut(&mut |bound| random.below(bound), false));
            assert_eq!(found(&other), Ok(Some(new.clone())));
        }
    }

    #[test]
    fn a_snapshot_that_cannot_be_written_leaves_a_whole_one_and_nothing_else() {
        let (old, new) = (contents("old"), contents("new"));
        for failing in 0.. {
            let disk = Disk::new();
            save(&disk, &old).unwrap();
            let (calls, is_renamed) = (Rc::new(Cell::new(0)), Rc::new(Cell::new(false)));
            let (counted, renamed) = (calls.clone(), is_renamed.clone());
            disk.ask(move |call, _| {
                counted.set(counted.get() + 1);
                if counted.get() == failing + 1 {
                    return Fate::Fails(ErrorKind::StorageFull.into());
                }
                renamed.set(renamed.get() || call == Call::Rename);
                Fate::Works
            });
            let written = save(&disk, &new);
            disk.ask_nobody();
            if calls.get() <= failing {
                assert_eq!(written, Ok(()));
                assert!(failing >= 6, "{failing}");
                break;
            }
            assert!(written.is_err(), "call {failing}");
            let left = if is_renamed.get() { &new } else { &old };
            assert_eq!(found(&disk).as_ref().map(Option::as_ref), Ok(Some(left)));
            assert_eq!(disk::list(&disk.root).unwrap().len(), 1, "call {failing}");
        }
    }
}
