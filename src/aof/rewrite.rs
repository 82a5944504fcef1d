//! The rewrite: making the log as short as the data, without a fork and without a lock.
//!
//! A log grows with every write. A counter that was raised a million times has a million records. The
//! rewrite replaces the past by a *base*, a file that holds each key once:
//!
//! ```text
//!     before     base 1   incr 1   incr 2 ◀── writers
//!     (a)        base 1   incr 1   incr 2 ◀── writers   incr 3
//!     (b)        base 1   incr 1   incr 2 (sealed)      incr 3 ◀── writers  both in the manifest
//!     (c) (d)    replayed into a keyspace of our own, which is written as base 2
//!     (e)        base 2                                 incr 3 ◀── writers  a new manifest
//!     (f)        the history is deleted
//! ```
//!
//! (a) Create the next incr file. Write the manifest that names it too, under a temporary name.
//! (b) *Seal* the old file: under its mutex write all that is in the buffer, and fsync. Then rename the
//!     manifest, and go on in the new file. Writers wait for this fsync, so two others come before it, and
//!     it covers only what was written during the second. Fsync the directory; for this no writer waits.
//! (c) Replay the sealed files into a private keyspace, with the code that replays at a start.
//! (d) Write that as a base under a temporary name, with an fsync now and then, and rename it.
//! (e) Replace the manifest. It names the new base and the new incr file, and all others as history.
//! (f) Delete the history.
//!
//! A kill between any two steps leaves a manifest whose files say the same. Only the last of them that
//! holds anything may be torn, as redis-server demands. A power cut leaves the same, because whatever a
//! manifest names is on the disk before the manifest is, and a file is deleted only when the manifest that
//! no longer names it is on the disk. The price is a second copy of the data in memory.
//!
//! **From memory.** Sometimes there is no log that could be replayed: when `CONFIG SET appendonly yes`
//! has just come, when an fsync has failed, when a file was deleted, or when step (c) finds damage. Then
//! the rewrite writes the live keyspace, under the shared lock, and the manifest names the new base and
//! incr file before anybody writes to the latter. Readers go on until a client wants to write. Then all
//! wait, about half a second for each million of small keys.
//!
//! **How Redis does it**: aof.c, `rewriteAppendOnlyFileBackground`: a fork writes the base, and the
//! kernel copies every page that changes meanwhile.

pub mod base;
mod reload;
mod requests;

use super::checksum::Annotate;
use super::disk::{self, Directory, File};
use super::load::{self, Replay};
use super::manifest::{LogFile, Manifest, TEMPORARY_BASE};
use super::start::{self, cannot_write, total_size};
use super::{Aof, Kind, Target};
use crate::log;
use crate::propagate::Stream;
use crate::store::{Keyspace, Store};
pub use requests::Requests;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::thread;
use std::time::Duration;

/// Why a rewrite ends early.
const OFF: &str = "the log was switched off";

impl Aof {
    /// One rewrite. If `enable` is given the log is off, and on afterwards; it is the directory's lock.
    pub(super) fn rewrite(
        &self,
        enable: Option<Arc<Directory>>,
        store: &Store,
        replay_all: &dyn Fn(&Manifest) -> Result<Keyspace, String>,
    ) -> Result<(), String> {
        match enable.is_some() || self.failures.is(Kind::Fsync) || self.lost().is_some() {
            true => self.rewrite_from_memory(store, enable),
            false => self.rewrite_from_log(store, replay_all),
        }
    }

    fn rewrite_from_log(
        &self,
        store: &Store,
        replay_all: &dyn Fn(&Manifest) -> Result<Keyspace, String>,
    ) -> Result<(), String> {
        // (a)
        let (old, _lock) = self.in_use().ok_or(OFF)?;
        let error = cannot_write(&old.directory);
        let incr = old.next_incr();
        let mut both = old.clone();
        both.incrs.push(incr.clone());
        let file = start::create(&old.path_of(&incr)).map_err(&error)?;
        // Opened before the switch: if no descriptor is left, nothing has happened yet.
        let prepare = || {
            both.prepare()?;
            Directory::open(&old.directory)
        };
        // (b)
        let switched = prepare().map_err(&error).and_then(|directory| {
            self.switch(file, &both, &directory)?;
            Ok(directory)
        });
        let directory = switched.inspect_err(|_| discard(&both, &incr))?;
        self.syncs.during_rewrite.store(true, Ordering::Relaxed);

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
        let temporary = self.write_base(&old, &keyspace).map_err(&error)?;
        // (e)
        let mut new = old.after_rewrite(self.config.aof_use_rdb_preamble.get());
        new.incrs.push(incr);
        publish(&temporary, &new).map_err(&error)?;
        if let Some(target) = self.target.lock().unwrap().as_mut() {
            // Nobody may miss a file that is history now.
            target.manifest = new.clone();
        }
        directory.sync().map_err(&error)?;
        self.delete_history(new);
        Ok(())
    }

    /// Step (b). After an error nothing is switched, unless only the fsync of the directory has failed:
    /// then the new file is in use, and [`discard`] keeps it.
    fn switch(&self, file: File, both: &Manifest, directory: &Directory) -> Result<(), String> {
        for _ in 0..2 {
            self.sync_to(self.written.load(Ordering::Acquire))?;
        }
        // While it lasts nobody can call anything durable: the manifest is not on the disk.
        let turn = self.turn();
        let mut guard = self.target.lock().unwrap();
        self.write(&mut guard, Annotate::IfMuch)?;
        let target = guard.as_mut().ok_or(OFF)?;
        // The last records of the old file are taken, and the SELECT is forgotten, under one mutex: the
        // next record goes to the new file, which must begin with a SELECT of its own.
        let from = {
            let mut buffer = self.buffer.lock().unwrap();
            let from = self.take(target, &mut buffer);
            *buffer = Stream::default();
            from
        };
        self.write_taken(target, from, Annotate::Now)?;
        // Before the manifest. Otherwise a power cut could leave the manifest and the new file, but not
        // the end of the old file.
        self.sync_file(&target.file, target.pending_end, &turn)?;
        both.put_in_place().map_err(cannot_write(&both.path()))?;
        let begin = target.pending_end;
        *target = Target::new(both.clone(), file, target.lock.clone());
        self.backlog.goes_on_in(both, begin);
        // For the fsync of the directory no writer waits.
        drop(guard);
        directory.sync().map_err(|error| self.failures.failed(Kind::Fsync, &error))
    }

    /// Replaces the whole log, whatever is left of it.
    fn rewrite_from_memory(
        &self,
        store: &Store,
        enable: Option<Arc<Directory>>,
    ) -> Result<(), String> {
        let (old, lock) = match (self.in_use(), enable) {
            (Some(in_use), _) => in_use,
            (None, Some(lock)) => (start::find_files(&self.config, &self.directory())?, lock),
            (None, None) => return Err(OFF.into()),
        };
        let write = |new: &Manifest| {
            // Nobody appends under the shared lock, so the base holds what was appended before the switch.
            // The log's mutexes are taken under the keyspace here, at SHUTDOWN, and by CONFIG SET in an EXEC.
            // Whoever holds one of them never waits for the keyspace.
            let keyspace = store.read_when_free();
            Ok((self.write_base(new, &keyspace)?, keyspace))
        };
        self.begin_anew(old, lock, write, drop)
    }

    /// Begins a log, which is empty or not there, with these data.
    pub(super) fn begin_with_base(
        &self,
        keyspace: &Keyspace,
        lock: Arc<Directory>,
    ) -> Result<(), String> {
        let old = start::find_files(&self.config, &self.directory())?;
        self.begin_anew(old, lock, |new| Ok((self.write_base(new, keyspace)?, ())), drop)
    }

    /// Puts other data in the place of the store's, in memory and in the log: in both or, if this fails, in neither.
    /// `may` is asked under the exclusive lock: while it is false, it is asked again, and an error says why not at all.
    pub fn exchange(
        &self,
        store: &Store,
        other: Keyspace,
        may: &dyn Fn() -> Result<bool, String>,
    ) -> Result<(), String> {
        let _alone = self.rewriter.alone.lock().unwrap();
        let lock_if_wanted = || -> Result<_, String> {
            loop {
                let keyspace = store.write_when_free();
                if may()? {
                    return Ok(keyspace);
                }
                drop(keyspace);
                thread::sleep(Duration::from_millis(10));
            }
        };
        let Some((old, lock)) = self.in_use() else {
            lock_if_wanted()?.take_over(other);
            return Ok(());
        };
        let mut is_done = false;
        let write = |new: &Manifest| {
            let temporary = self.write_base(new, &other)?;
            match lock_if_wanted() {
                Ok(keyspace) => Ok((temporary, (keyspace, other))),
                Err(reason) => {
                    let _ = disk::remove_file(&temporary);
                    Err(io::Error::other(reason))
                }
            }
        };
        let result = self.begin_anew(old, lock, write, |(mut keyspace, other)| {
            keyspace.take_over(other);
            is_done = true;
        });
        // What fails behind that is the log's affair, which tells the operator.
        if is_done { Ok(()) } else { result }
    }

    /// Replaces the log by a base and an empty incr file. `write` writes the base; it returns the base's path, and the
    /// lock under which nothing is appended. When the new log counts, `release` gives the lock back.
    fn begin_anew<G>(
        &self,
        old: Manifest,
        lock: Arc<Directory>,
        write: impl FnOnce(&Manifest) -> io::Result<(PathBuf, G)>,
        release: impl FnOnce(G),
    ) -> Result<(), String> {
        let error = cannot_write(&old.directory);
        // It may have been deleted.
        disk::create_dir_all(&old.directory).map_err(|error| {
            format!(
                "cannot make the directory {}: {error}. Move away what is in its place, then BGREWRITEAOF",
                old.directory.display()
            )
        })?;
        disk::sync_directory(&self.directory()).map_err(cannot_write(&self.directory()))?;
        let incr = old.next_incr();
        let mut new = old.after_rewrite(self.config.aof_use_rdb_preamble.get());
        if !old.is_in_place() {
            // Somebody has put another log there. Files with the names of ours are not ours to delete.
            new.history.clear();
        }
        new.incrs.push(incr.clone());
        let file = start::create(&new.path_of(&incr)).map_err(&error)?;
        // Opened early, as above.
        let directory = Directory::open(&new.directory).map_err(&error);
        let directory = directory.inspect_err(|_| discard(&new, &incr))?;
        let written = write(&new).and_then(|(temporary, guard)| {
            publish(&temporary, &new)?;
            Ok(guard)
        });
        let guard = written.map_err(error).inspect_err(|_| discard(&new, &incr))?;
        // Whether this works or not, the new manifest counts, and records must go to its file.
        let synced = directory.sync();
        let switched = self.go_on_in(file, new.clone(), lock.clone(), synced);
        release(guard);
        switched?;
        self.delete_history(new);
        Ok(())
    }

    /// Writes to the new incr file from now on. All that was appended is in its base. `synced` is the
    /// result of the fsync that brings the manifest to the disk.
    fn go_on_in(
        &self,
        file: File,
        manifest: Manifest,
        lock: Arc<Directory>,
        synced: io::Result<()>,
    ) -> Result<(), String> {
        // While it lasts no fsync of the old file can fail and count against the new one.
        let _turn = self.turn();
        let mut target = self.target.lock().unwrap();
        if !self.config.appendonly.get() {
            return Err(OFF.into());
        }
        let position = self.position();
        self.backlog.end_history(&manifest);
        *target = Some(Target::new(manifest, file, lock));
        *self.buffer.lock().unwrap() = Stream::default();
        self.written.store(position, Ordering::Release);
        self.failures.forget();
        self.enabled.store(true, Ordering::Release);
        synced.map_err(|error| self.failures.failed(Kind::Fsync, &error))?;
        self.durable.store(position, Ordering::Release);
        Ok(())
    }

    /// Step (f), and the new sizes for INFO. If it fails the rewrite has worked all the same.
    fn delete_history(&self, mut manifest: Manifest) {
        manifest.clean();
        // Nobody writes while the mutex is held, so the sizes of all files are those of one moment.
        if let Some(target) = self.target.lock().unwrap().as_mut() {
            let size = total_size(&manifest);
            self.status.size.store(size, Ordering::Relaxed);
            self.status.base_size.store(size, Ordering::Relaxed);
            target.manifest = manifest;
        }
    }

    /// The manifest and the directory's lock, if the log is on.
    fn in_use(&self) -> Option<(Manifest, Arc<Directory>)> {
        let target = self.target.lock().unwrap();
        let target = target.as_ref()?;
        Some((target.manifest.clone(), target.lock.clone()))
    }

    /// Writes the keyspace to a temporary file and fsyncs it; returns its path.
    fn write_base(&self, manifest: &Manifest, keyspace: &Keyspace) -> io::Result<PathBuf> {
        let name = format!("{TEMPORARY_BASE}{}.aof", std::process::id());
        let path = manifest.directory.join(name);
        let progress = self.status.writing.begin(keyspace.memory().keys);
        let mut progress = |done| progress.tell(done);
        let written = base::write(&path, keyspace, &self.config, &mut progress);
        // On a full disk the log needs its room.
        written.inspect_err(|_| drop(disk::remove_file(&path)))?;
        Ok(path)
    }
}

/// Renames the base, and replaces the manifest: the new one counts from now on. It is durable when the
/// caller has fsynced the directory.
fn publish(temporary: &Path, manifest: &Manifest) -> io::Result<()> {
    let base = manifest.base.as_ref().expect("a rewrite makes a base");
    let replace = || {
        disk::rename(temporary, manifest.path_of(base))?;
        manifest.prepare()?;
        manifest.put_in_place()
    };
    replace().inspect_err(|_| {
        // On a full disk the log needs its room, whichever name it has now.
        let _ = disk::remove_file(temporary);
        discard(manifest, base);
    })
}

/// Deletes a new manifest that is not in use, and this file, which is new too. The file stays if the
/// manifest on the disk names it, or cannot be read.
fn discard(unused: &Manifest, file: &LogFile) {
    let _ = disk::remove_file(unused.temporary());
    let counts = Manifest::load(unused.directory.clone(), &unused.prefix);
    if let Ok(counts) = counts
        && !counts.is_some_and(|counts| counts.live().any(|entry| entry == file))
    {
        let _ = disk::remove_file(unused.path_of(file));
    }
}

/// Replays files to which nobody writes any more. The error says where and why it stopped.
pub fn replay_sealed(manifest: &Manifest, replay: &mut Replay) -> Result<(), String> {
    for path in manifest.paths() {
        let (_, result) = load::replay(&path, true, replay, &mut |_| {});
        result.map_err(|stop| stop.of(&path))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests;
