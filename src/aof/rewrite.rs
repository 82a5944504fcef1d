//! The rewrite: making the log as short as the data, without a fork and without a lock.
//!
//! A log grows with every write; a counter that was raised a million times takes a million
//! records. The rewrite replaces the past by a *base* file that holds each key once:
//!
//! ```text
//!     before     base 1   incr 1   incr 2 ◀── writers
//!     (a)        base 1   incr 1   incr 2 ◀── writers   incr 3             both in the manifest
//!     (b)        base 1   incr 1   incr 2 (sealed)      incr 3 ◀── writers
//!     (c) (d)    replayed into a keyspace of our own, which is written as base 2
//!     (e)        base 2                                 incr 3 ◀── writers  the manifest replaced
//!     (f)        the history is deleted
//! ```
//!
//! (a) Create the next incr file, fsync it, and write the manifest that lists it behind the others,
//!     under a temporary name; fsync the old file, so that little is left, and the directory.
//! (b) Under the file's mutex: write what is in the buffer, and an annotation of what is open
//!     (aof/checksum.rs), to the old file, fsync it, forget which database the log's end is in, rename the
//!     manifest, and go on in the new file. So all wait once for an fsync of what came during the one
//!     before. Then fsync the directory, for which nobody waits.
//! (c) Replay the sealed files into a private keyspace, with the code that replays at start.
//! (d) Write that as a base under a temporary name, fsync it bit by bit, rename.
//! (e) Replace the manifest: the new base, the new incr, and the rest as history.
//! (f) Delete the history.
//!
//! A kill between any two steps leaves a manifest whose files say the same, and of which only the last
//! that holds anything may be torn, as redis-server wants it. So does a power cut: whatever the list names
//! is on the disk before the list, and nothing is deleted before the list that no longer names it is
//! there. The price is a second copy of the data in memory meanwhile.
//!
//! Two rewrites have no log to replay: the first one after `CONFIG SET appendonly yes`, and one that
//! is to heal a log with holes: an fsync has failed, a file was deleted, or step (c) finds it damaged.
//! These dump the live keyspace under
//! the shared lock, and list base and incr before anybody may write to the incr: readers go on until
//! somebody wants to write, and then all wait, about half a second per million small keys.
//!
//! **How Redis does it**: aof.c, `rewriteAppendOnlyFileBackground`: a fork writes the base, and
//! the kernel copies every page that changes meanwhile.

use super::checksum::{self, Claim, Stretch};
use super::disk::{self, Directory, File, Opening};
use super::load::{self, Replay, Stop};
use super::manifest::{LogFile, Manifest, TEMPORARY_BASE};
use super::start::{self, total_size};
use super::{Aof, SYNC_EVERY, Seal, Target, Turn};
use crate::log;
use crate::propagate::Stream;
use crate::resp::{Digits, write_command};
use crate::store::Keyspace;
use crate::types::Entry;
use std::io::{self, BufWriter, Write};
use std::path::{Path, PathBuf};
use std::sync::atomic::Ordering;
use std::sync::{Arc, Condvar, Mutex, RwLock};
use std::time::{Duration, Instant, SystemTime};

/// Who wants a rewrite. The rewrite thread sleeps here.
#[derive(Default)]
pub struct Requests {
    wanted: Mutex<Wanted>,
    arrived: Condvar,
}

#[derive(Default)]
struct Wanted {
    rewrite: bool,
    /// The log is to be switched on when its first base is written; with the lock of its directory.
    enable: Option<Arc<Directory>>,
}

/// How long after it has failed the log is tried to be switched on again: who asked for it was told OK.
const RETRY_ENABLE: Duration = Duration::from_secs(10);

/// How long a rewrite that nobody has asked for waits after so many failed ones: a minute after the
/// first, and twice as long after each, up to an hour. Each may leave a file.
fn pause_after(failures: u64) -> Duration {
    match failures {
        0 => Duration::ZERO,
        _ => Duration::from_secs(60 << (failures - 1).min(6)).min(Duration::from_secs(3600)),
    }
}

impl Aof {
    /// Asks for a rewrite; false if one is running.
    pub fn request_rewrite(&self) -> bool {
        let mut wanted = self.rewriter.wanted.lock().unwrap();
        if self.status.rewriting.swap(true, Ordering::AcqRel) {
            return false;
        }
        wanted.rewrite = true;
        self.rewriter.arrived.notify_one();
        true
    }

    /// Asks for the log to be switched on, which begins with a rewrite from memory. If a rewrite
    /// is running, another one follows it at once. False if the log cannot be opened; the operator
    /// will be told why.
    pub fn request_enable(&self) -> bool {
        let find = |lock| {
            // While the log loads there may be a bare file, which no manifest names yet.
            if !self.status.loading.load(Ordering::Relaxed) {
                start::find_files(&self.config, &self.directory())?;
            }
            Ok(lock)
        };
        match self.lock_directory().and_then(find) {
            Ok(lock) => {
                let mut wanted = self.rewriter.wanted.lock().unwrap();
                wanted.enable = Some(lock);
                wanted.rewrite = true;
                self.status.rewriting.store(true, Ordering::Release);
                self.rewriter.arrived.notify_one();
                true
            }
            Err(reason) => {
                self.failures.not_enabled(reason);
                false
            }
        }
    }

    /// Switches the log off. What is written of it stays, and is loaded at the next start if the
    /// log is on then; so it is finished first, as far as the disk lets us. No promise is broken
    /// if it does not: what could not be written was not acknowledged.
    pub fn disable(&self) {
        self.rewriter.wanted.lock().unwrap().enable = None;
        // Most of it while others go on.
        let _ = self.finish();
        self.let_go();
    }

    /// The rewrite thread. `replay_all` makes an empty keyspace and calls [`replay_sealed`] with
    /// what replays a command into it.
    pub fn rewrite_when_asked(
        &self,
        store: &RwLock<Keyspace>,
        replay_all: &dyn Fn(&Manifest) -> Result<Keyspace, String>,
    ) -> ! {
        let status = &self.status;
        let mut ended = Instant::now();
        loop {
            self.wait_for_request(ended);
            let begin = Instant::now();
            let since_epoch = SystemTime::UNIX_EPOCH.elapsed().unwrap_or_default();
            status.rewrite_start.store(since_epoch.as_secs(), Ordering::Relaxed);
            let enable = self.rewriter.wanted.lock().unwrap().enable.take();
            let result = self.rewrite(enable.clone(), store, replay_all);
            self.little_at_a_time.store(false, Ordering::Relaxed);
            self.tell(&result, begin.elapsed());
            ended = Instant::now();
            let mut wanted = self.rewriter.wanted.lock().unwrap();
            // Who switched the log on was told OK, and must get it.
            if result.is_err() && wanted.enable.is_none() && self.config.appendonly.get() {
                wanted.enable = enable;
            }
            status.rewriting.store(wanted.rewrite, Ordering::Release);
        }
    }

    /// One rewrite. With `enable` the log is off, and on afterwards.
    pub(super) fn rewrite(
        &self,
        enable: Option<Arc<Directory>>,
        store: &RwLock<Keyspace>,
        replay_all: &dyn Fn(&Manifest) -> Result<Keyspace, String>,
    ) -> Result<(), String> {
        match enable.is_some() || self.failures.damage().is_some() || self.lost().is_some() {
            true => self.rewrite_from_memory(store, enable),
            false => self.rewrite_from_log(store, replay_all),
        }
    }

    /// Tells the operator, and INFO, how a rewrite has ended.
    fn tell(&self, result: &Result<(), String>, took: Duration) {
        let status = &self.status;
        let seconds = took.as_secs() as i64;
        status.last_rewrite_seconds.store(seconds, Ordering::Relaxed);
        status.last_rewrite_failed.store(result.is_err(), Ordering::Relaxed);
        match result {
            Ok(()) => {
                status.rewrites.fetch_add(1, Ordering::Relaxed);
                status.rewrite_failures.store(0, Ordering::Relaxed);
                log::notice(format_args!(
                    "the append-only file was rewritten: {} bytes, in {} ms",
                    status.base_size.load(Ordering::Relaxed),
                    took.as_millis()
                ));
            }
            Err(reason) => {
                status.rewrite_failures.fetch_add(1, Ordering::Relaxed);
                log::warning(format_args!(
                    "the rewrite of the append-only file failed: {reason}. The log goes on as it was"
                ));
            }
        }
    }

    /// Sleeps until somebody asks, or until the log has grown enough. Then `rewriting` is set.
    fn wait_for_request(&self, last: Instant) {
        let failures = self.status.rewrite_failures.load(Ordering::Relaxed);
        let may_retry = last + pause_after(failures);
        let must_retry = last + RETRY_ENABLE;
        let mut wanted = self.rewriter.wanted.lock().unwrap();
        while !std::mem::take(&mut wanted.rewrite) {
            let now = Instant::now();
            let is_promised = wanted.enable.is_some() && now >= must_retry;
            if is_promised || (now >= may_retry && self.has_grown()) {
                self.status.rewriting.store(true, Ordering::Release);
                return;
            }
            let pause = Duration::from_millis(100);
            wanted = self.rewriter.arrived.wait_timeout(wanted, pause).unwrap().0;
        }
    }

    fn has_grown(&self) -> bool {
        let percentage = self.config.auto_aof_rewrite_percentage.get() as u64;
        let least = self.config.auto_aof_rewrite_min_size.get() as u64;
        let size = self.status.size.load(Ordering::Relaxed);
        let base = self.status.base_size.load(Ordering::Relaxed).max(1);
        percentage > 0
            && self.is_enabled()
            // Who has put other files there is to say whether they may be replaced.
            && !self.failures.are_files_lost()
            && size > least
            && size.saturating_sub(base) / base.div_ceil(100).max(1) >= percentage
    }

    fn rewrite_from_log(
        &self,
        store: &RwLock<Keyspace>,
        replay_all: &dyn Fn(&Manifest) -> Result<Keyspace, String>,
    ) -> Result<(), String> {
        // (a)
        let (old, _lock) = self.listed().ok_or("it is switched off")?;
        let incr = old.next_incr();
        let mut listed = old.clone();
        listed.incrs.push(incr.clone());
        let file = start::create(&old.path_of(&incr)).map_err(in_words)?;
        // Opened before it is needed: that there are no descriptors left says nothing of the disk.
        let prepare = || {
            listed.prepare()?;
            Directory::open(&old.directory)
        };
        // (b)
        let switched = prepare().map_err(in_words).and_then(|directory| {
            self.switch(file, &listed, &directory)?;
            Ok(directory)
        });
        // If the list counts already, and only its fsync has failed, the file is kept.
        let directory = switched.inspect_err(|_| discard(&listed, &incr))?;
        self.little_at_a_time.store(true, Ordering::Relaxed);

        // (c)
        let keyspace = match replay_all(&old) {
            Ok(keyspace) => keyspace,
            Err(reason) => {
                log::warning(format_args!(
                    "the log cannot be replayed: {reason}. It is written anew from memory"
                ));
                return self.rewrite_from_memory(store, None);
            }
        };

        // (d)
        let temporary = self.write_base(&old, &keyspace).map_err(in_words)?;
        let mut new = old.after_rewrite();
        new.incrs.push(incr);
        publish(&temporary, &new).map_err(in_words)?;
        if let Some(target) = self.target.lock().unwrap().as_mut() {
            // What it names as history may be missing from now on.
            target.manifest = new.clone();
        }
        directory.sync().map_err(in_words)?;
        self.clean_up(new);
        Ok(())
    }

    /// Step (b): seals the present file and goes on in the next. If the old file cannot be written, or the
    /// list not replaced, nothing is switched.
    fn switch(&self, file: File, listed: &Manifest, directory: &Directory) -> Result<(), String> {
        // Writers will wait for the fsync of what is left. The second leaves only what came during the first.
        for _ in 0..2 {
            self.sync_to(self.written.load(Ordering::Acquire))?;
        }
        // Nobody may call anything durable before the list has been fsynced.
        let turn = self.turn();
        self.seal(file, listed, &turn)?;
        // If this fails, then so it stays: both files are listed, and the new one is in use.
        let synced = directory.sync();
        synced.map_err(|error| self.failures.fsync_failed(&error))
    }

    /// Writes the old file to its end, fsyncs it, and lists the new one behind it, in which nobody has
    /// written yet.
    fn seal(&self, file: File, listed: &Manifest, turn: &Turn) -> Result<(), String> {
        let mut guard = self.target.lock().unwrap();
        self.write(&mut guard, Seal::IfMuch)?;
        let target = guard.as_mut().ok_or("it was switched off")?;
        // What has come since that write still goes to the old file, and what comes after it to
        // the new one, which must begin with a SELECT of its own. So both in one step.
        {
            let mut buffer = self.buffer.lock().unwrap();
            let taken = self.take(target, &mut buffer, Seal::Now);
            *buffer = Stream::default();
            drop(buffer);
            target.annotate(taken);
        }
        self.write_pending(target)?;
        // Before the list. A power cut could else leave the list, and the new file, and of the old one not
        // its end: a log with a hole.
        let old = target.file.clone();
        self.sync_file(&old, target.pending_end, turn)?;
        listed.put_in_place().map_err(in_words)?;
        target.manifest = listed.clone();
        target.length = 0;
        target.open = Stretch::default();
        self.origin.store(-(target.pending_end as i64), Ordering::Relaxed);
        target.file = file.into();
        Ok(())
    }

    /// Replaces the whole log, whatever is left of it. If it is off, `enable` is the lock of its
    /// directory, and it is on afterwards.
    fn rewrite_from_memory(
        &self,
        store: &RwLock<Keyspace>,
        enable: Option<Arc<Directory>>,
    ) -> Result<(), String> {
        let (old, lock) = match (self.listed(), enable) {
            (Some(listed), _) => listed,
            (None, Some(lock)) => (start::find_files(&self.config, &self.directory())?, lock),
            (None, None) => return Err("it is switched off".into()),
        };
        // It may have been deleted.
        disk::create_directory(&old.directory).map_err(|error| {
            format!(
                "cannot make the directory {}: {error}. Move away what is in its place, then BGREWRITEAOF",
                old.directory.display()
            )
        })?;
        disk::sync_directory(&self.directory()).map_err(in_words)?;
        let incr = old.next_incr();
        let mut new = old.after_rewrite();
        if !old.is_in_place() {
            // Somebody has put another log there: what has the names of our files is not ours to delete.
            new.history.clear();
        }
        new.incrs.push(incr.clone());
        let file = start::create(&new.path_of(&incr)).map_err(in_words)?;
        // Before it is needed, as above.
        let directory = Directory::open(&new.directory).map_err(in_words)?;
        // Under the shared lock nobody appends, so base and switch see the same state. The log's
        // mutexes are taken under it here, at SHUTDOWN, and by CONFIG SET in an EXEC; who holds one
        // of them never waits for the keyspace.
        let keyspace = store.read().unwrap();
        let temporary = self.write_base(&new, &keyspace);
        let published = temporary.and_then(|temporary| publish(&temporary, &new));
        published.map_err(|error| {
            discard(&new, &incr);
            in_words(error)
        })?;
        // The new list counts, so what is written goes to its file, even if the list is not on disk.
        let synced = directory.sync();
        self.go_on_in(file, new.clone(), lock.clone(), synced)?;
        drop(keyspace);
        self.clean_up(new);
        Ok(())
    }

    /// Writes to the new incr file from now on. What was not yet written is in its base. `synced` says
    /// whether the list that names them is on the disk.
    fn go_on_in(
        &self,
        file: File,
        manifest: Manifest,
        lock: Arc<Directory>,
        synced: io::Result<()>,
    ) -> Result<(), String> {
        // No fsync of the old file may fail from now on, for it would count against the new one.
        let _turn = self.turn();
        let mut target = self.target.lock().unwrap();
        if !self.config.appendonly.get() {
            return Err("it was switched off".into());
        }
        let position = self.position();
        *target = Some(Target {
            manifest,
            file: file.into(),
            length: 0,
            pending: Vec::new(),
            pending_end: position,
            torn: false,
            open: Stretch::default(),
            lock,
        });
        *self.buffer.lock().unwrap() = Stream::default();
        self.origin.store(-(position as i64), Ordering::Relaxed);
        self.written.store(position, Ordering::Release);
        self.failures.forget();
        self.enabled.store(true, Ordering::Release);
        synced.map_err(|error| self.failures.fsync_failed(&error))?;
        self.durable.store(position, Ordering::Release);
        Ok(())
    }

    /// Step (f), and the new sizes. Nothing depends on it: what stays is deleted at the next start.
    fn clean_up(&self, mut manifest: Manifest) {
        if let Err(error) = manifest.clean() {
            log::warning(format_args!("cannot delete the files before the rewrite: {error}"));
        }
        // Writers wait for this mutex, so the size is that of a moment.
        if let Some(target) = self.target.lock().unwrap().as_mut() {
            let size = total_size(&manifest);
            self.status.size.store(size, Ordering::Relaxed);
            self.status.base_size.store(size, Ordering::Relaxed);
            target.manifest = manifest;
        }
    }

    /// The files in use and the directory's lock, if the log is on.
    fn listed(&self) -> Option<(Manifest, Arc<Directory>)> {
        let target = self.target.lock().unwrap();
        let target = target.as_ref()?;
        Some((target.manifest.clone(), target.lock.clone()))
    }

    /// Writes the keyspace to a temporary file and fsyncs it; returns its path.
    fn write_base(&self, manifest: &Manifest, keyspace: &Keyspace) -> io::Result<PathBuf> {
        let name = format!("{TEMPORARY_BASE}{}.aof", std::process::id());
        let path = manifest.directory.join(name);
        let annotate = self.config.aof_checksum.get();
        let written = write_keyspace(&path, keyspace, annotate);
        if written.is_err() {
            // On a full disk it would take what the log needs.
            let _ = disk::remove_file(&path);
        }
        written.map(|()| path)
    }
}

fn write_keyspace(path: &Path, keyspace: &Keyspace, annotate: bool) -> io::Result<()> {
    let mut out = BufWriter::with_capacity(256 * 1024, disk::open(path, Opening::Empty)?);
    let mut bytes = Vec::new();
    let mut open = Stretch::default();
    let mut unsynced = 0;
    for db in 0..keyspace.databases() {
        for (index, entry) in keyspace.entries(db).enumerate() {
            bytes.clear();
            if index == 0 {
                let digits = Digits::new(db as i64);
                write_command(&mut bytes, [b"SELECT", digits.as_bytes()].into_iter());
            }
            write_entry(&mut bytes, entry);
            open.add(&bytes);
            if annotate && open.length >= checksum::EVERY {
                checksum::close(&mut open, &mut bytes);
            }
            out.write_all(&bytes)?;
            unsynced += bytes.len() as u64;
            // Not all at the end: those who write to the log would wait for it.
            if unsynced > SYNC_EVERY {
                out.flush()?;
                out.get_ref().sync_data()?;
                unsynced = 0;
            }
        }
    }
    if annotate && open.length > 0 {
        out.write_all(&Claim::of(&open).annotation())?;
    }
    out.into_inner()?.sync_all()
}

/// Steps (d), second half, and (e): from now on the new manifest counts. It is durable when its directory
/// has been fsynced, which is the caller's to do.
fn publish(temporary: &Path, manifest: &Manifest) -> io::Result<()> {
    let base = manifest.base.as_ref().expect("a rewrite makes a base");
    let replace = || {
        disk::rename(temporary, &manifest.path_of(base))?;
        manifest.prepare()?;
        manifest.put_in_place()
    };
    let replaced = replace();
    if replaced.is_err() {
        // On a full disk the base would take what the log needs, under whichever name it is.
        let _ = disk::remove_file(temporary);
        discard(manifest, base);
    }
    replaced
}

/// Deletes a list that has not come into use, and this file of it, which nobody has used either. Only if the
/// list on disk, which can be read, does not name it.
fn discard(unused: &Manifest, file: &LogFile) {
    let _ = disk::remove_file(&unused.temporary());
    let listed = Manifest::load(unused.directory.clone(), &unused.prefix);
    if let Ok(listed) = listed
        && !listed.is_some_and(|listed| listed.live().any(|entry| entry == file))
    {
        let _ = disk::remove_file(&unused.path_of(file));
    }
}

fn in_words(error: impl std::fmt::Display) -> String {
    error.to_string()
}

/// Replays files that nobody writes to any more.
pub fn replay_sealed(manifest: &Manifest, replay: &mut Replay) -> Result<(), String> {
    for entry in manifest.live() {
        let path = manifest.path_of(entry);
        let (_, result) = load::replay(&path, true, replay, &mut |_| {});
        result.map_err(|stop| match stop {
            Stop::Torn { offset, reason, .. }
            | Stop::Corrupt { offset, reason, .. }
            | Stop::Unsupported { offset, reason } => {
                format!("{} at offset {offset}: {reason}", path.display())
            }
            Stop::Changed { from, to, reason } => {
                format!("{} from offset {from} to {to}: {reason}", path.display())
            }
            Stop::Unreadable(error) => format!("cannot read {}: {error}", path.display()),
        })?;
    }
    Ok(())
}

/// Appends the commands that make this key.
fn write_entry(out: &mut Vec<u8>, entry: Entry) {
    let key = entry.key();
    entry.value().rewrite(key, &mut |words| write_command(out, words.iter().copied()));
    if let Some(deadline) = entry.deadline() {
        let digits = Digits::new(deadline as i64);
        write_command(out, [b"PEXPIREAT", key, digits.as_bytes()].into_iter());
    }
}

#[cfg(test)]
mod tests;
