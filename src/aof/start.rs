//! Opening the log: lock the directory, find the files, replay them, go on at their end.
//!
//! 1. Lock the directory, so that no second server writes to it.
//! 2. Find the files. There is a manifest; or a bare `appendonly.aof`, as servers before Redis 7 left it;
//!    or nothing, and then a manifest is made.
//! 3. Replay them in order (load.rs), and cut a torn tail (repair.rs). Move a bare file to the others: it is
//!    the base from now on.
//! 4. Delete what a rewrite has left behind, and go on at the end of the last incr file.
//!
//! If there is nothing yet, the log may begin with a snapshot (call/replay.rs).
//!
//! Clients are told LOADING until this is done. An error is one line for the operator: which file, which
//! offset, what is wrong, what to do.
//!
//! **How Redis does it**: aof.c, `loadAppendOnlyFiles` and `aofUpgradePrepare`.

use super::checksum::{self, Stretch};
use super::disk::{self, Directory, File, Opening};
use super::load::{self, Extent, Replay};
use super::manifest::{LogFile, Manifest};
use super::{Aof, Target, repair};
use crate::config::Config;
use crate::log;
use crate::stats::unix_microseconds;
use crate::store::Keyspace;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

impl Aof {
    /// Replays the log and goes on writing where it ends. The error is one line for the operator.
    pub fn start(&self, replay: &mut Replay) -> Result<(), String> {
        let dir = self.directory();
        let lock = self.lock_directory()?;
        let mut manifest = manifest(&self.config, &dir)?;
        find_bare_file(&mut manifest, &dir);
        if let Some(path) = manifest.missing() {
            return Err(format!(
                "{} names {}, which does not exist. Restore it from a copy; without it the data in it is \
                 lost",
                manifest.path().display(),
                path.display()
            ));
        }
        let mut open = self.load(&manifest, replay)?;
        move_bare_file_in(&mut manifest, &dir)?;
        let error = cannot_write(&manifest.directory);
        // The process that made the directory or renamed the manifest may have died before this.
        disk::sync_directory(&dir).map_err(cannot_write(&dir))?;
        disk::sync_directory(&manifest.directory).map_err(&error)?;
        tidy_up(&mut manifest);
        if manifest.incrs.is_empty() {
            add_incr(&mut manifest).map_err(&error)?;
            open = Stretch::default();
        }
        let size = total_size(&manifest);
        let path = manifest.path_of(manifest.incrs.last().expect("it was made if there was none"));
        let file = disk::open(&path, Opening::Append).map_err(cannot_write(&path))?;
        let length = disk::length(&path).map_err(cannot_write(&path))?;
        let target = Target { length, open, ..Target::new(manifest, file, lock) };
        self.status.size.store(size, Ordering::Relaxed);
        self.status.base_size.store(size, Ordering::Relaxed);
        self.resume_history(&target.manifest);
        let mut guard = self.target.lock().unwrap();
        // CONFIG SET works while the log loads.
        if self.config.appendonly.get() {
            *guard = Some(target);
            self.enabled.store(true, Ordering::Release);
        }
        Ok(())
    }

    /// Whether there is a log, and something in it.
    pub fn has_data(&self) -> Result<bool, String> {
        let dir = self.directory();
        let mut manifest = manifest(&self.config, &dir)?;
        find_bare_file(&mut manifest, &dir);
        // A file that is missing may have had data, so the start is to refuse the log.
        let mut paths = manifest.paths();
        Ok(manifest.base.is_some()
            || paths.any(|path| disk::length(&path).map_or(true, |length| length > 0)))
    }

    /// Begins the log with what a snapshot holds. It is durable then. A start that is killed before leaves an empty
    /// log, so the next one does it again.
    pub fn begin_with(&self, keyspace: &Keyspace) -> Result<(), String> {
        match self.begin_with_base(keyspace, self.lock_directory()?) {
            Ok(()) => {
                let size = self.status.size.load(Ordering::Relaxed);
                let dir = self.directory().join(self.config.appenddirname.text());
                let dir = dir.display();
                log::notice(format_args!(
                    "the log in {dir} begins with the data of the snapshot, {size} bytes. From now on a start reads \
                     the log"
                ));
                Ok(())
            }
            // CONFIG SET works meanwhile.
            Err(_) if !self.config.appendonly.get() => Ok(()),
            Err(reason) => Err(reason),
        }
    }

    /// The lock of the directory, which keeps a second server out. If this process has it already, it is
    /// shared. The error is for the operator.
    pub fn lock_directory(&self) -> Result<Arc<Directory>, String> {
        let mut held = self.directory_lock.lock().unwrap();
        if let Some(lock) = held.upgrade() {
            return Ok(lock);
        }
        let lock = Arc::new(Directory::lock(&self.directory())?);
        *held = Arc::downgrade(&lock);
        Ok(lock)
    }

    /// `dir`.
    pub(super) fn directory(&self) -> PathBuf {
        self.config.dir.path()
    }

    /// Replays all files; returns the stretch at the end of the last one that no annotation covers. Long
    /// because it also reports its progress.
    fn load(&self, manifest: &Manifest, replay: &mut Replay) -> Result<Stretch, String> {
        let status = &self.status;
        status.load_start.store(unix_microseconds() / 1_000_000, Ordering::Relaxed);
        status.load_total.store(total_size(manifest), Ordering::Relaxed);
        let files: Vec<PathBuf> = manifest.paths().collect();
        let first = repair::first_that_may_be_torn(&files);
        let begin = Instant::now();
        let mut last_line = begin;
        let mut done = Extent::default();
        let mut open = Stretch::default();
        for (index, path) in files.iter().enumerate() {
            let mut progress = |bytes| {
                let bytes = done.bytes + bytes;
                status.load_done.store(bytes, Ordering::Relaxed);
                if last_line.elapsed() >= Duration::from_secs(2) {
                    last_line = Instant::now();
                    let percent = bytes * 100 / status.load_total.load(Ordering::Relaxed).max(1);
                    log::notice(format_args!("loading: {percent}% of the log replayed"));
                }
            };
            let is_last = index >= first;
            let (extent, result) = load::replay(path, !is_last, replay, &mut progress);
            open = match result {
                Ok(open) => open,
                Err(stop) => {
                    self.cut_tail(path, &stop, is_last)?;
                    checksum::stretch_of(path, extent.covered)
                        .map_err(|error| format!("cannot read {}: {error}", path.display()))?
                }
            };
            // The server that wrote this may have died before its fsync. From now on it counts as durable.
            let synced = disk::open(path, Opening::Read).and_then(|file| file.sync_data());
            synced.map_err(|error| format!("cannot fsync {}: {error}", path.display()))?;
            done.commands += extent.commands;
            done.bytes += extent.bytes;
        }
        if done.commands > 0 {
            log::notice(format_args!(
                "replayed {} commands, {} bytes, in {} ms",
                done.commands,
                done.bytes,
                begin.elapsed().as_millis()
            ));
        }
        Ok(open)
    }
}

/// Deletes what earlier processes have left, and warns about files that it must not delete.
fn tidy_up(manifest: &mut Manifest) {
    manifest.clean();
    let directory = manifest.directory.display();
    for name in manifest.unlisted().unwrap_or_default() {
        log::warning(format_args!(
            "{directory}/{name} holds a part of a log, but the manifest does not name it, so it is neither \
             loaded nor deleted. If a rewrite was interrupted, you may delete it. If somebody has put back \
             an older manifest, the file holds what was written later"
        ));
    }
}

/// Finds the files of the log, or makes an empty log. It does not check that they are all there.
pub fn find_files(config: &Config, dir: &Path) -> Result<Manifest, String> {
    let mut manifest = manifest(config, dir)?;
    if manifest.is_empty() {
        add_incr(&mut manifest).map_err(cannot_write(&manifest.directory.clone()))?;
    }
    Ok(manifest)
}

/// Makes the next incr file, and the manifest that names it.
fn add_incr(manifest: &mut Manifest) -> std::io::Result<()> {
    let incr = manifest.next_incr();
    create(&manifest.path_of(&incr))?;
    manifest.incrs.push(incr);
    manifest.save()
}

/// The manifest. If there is none, the directory is made, and an empty manifest returned. Then there must be
/// no files of a log in it, because a new manifest would not name them, so no start would load them.
fn manifest(config: &Config, dir: &Path) -> Result<Manifest, String> {
    let none = Manifest::new(dir.join(config.appenddirname.text()), &config.appendfilename.text());
    if let Some(manifest) = Manifest::load(none.directory.clone(), &none.prefix)? {
        return Ok(manifest);
    }
    let error = cannot_write(&none.directory);
    disk::create_dir_all(&none.directory).map_err(&error)?;
    match none.unlisted().map_err(&error)?.first() {
        None => Ok(none),
        Some(name) => Err(format!(
            "{} does not exist, but {name} beside it holds a part of a log. Restore it from a \
             copy, or move the files elsewhere to begin with nothing",
            none.path().display()
        )),
    }
}

/// A bare `appendonly.aof` is the base of the log, if the log has no files yet. A kill in
/// [`move_bare_file_in`] leaves a manifest that names it, and the file in its old place.
fn find_bare_file(manifest: &mut Manifest, dir: &Path) {
    let name = manifest.prefix.clone();
    let (bare, inside) = (dir.join(&name), manifest.directory.join(&name));
    let is_base = manifest.base.as_ref().map_or(manifest.is_empty(), |base| base.name == name);
    if is_base && disk::exists(&bare) && !disk::exists(&inside) {
        manifest.base.get_or_insert(LogFile { name, seq: 1 });
        manifest.bare = Some(bare);
    }
}

/// Moves the bare file to the others. It has been replayed, because a file that is refused stays where its
/// own server finds it.
fn move_bare_file_in(manifest: &mut Manifest, dir: &Path) -> Result<(), String> {
    let (Some(bare), Some(base)) = (manifest.bare.take(), &manifest.base) else {
        return Ok(());
    };
    let inside = manifest.path_of(base);
    let moved = || {
        manifest.save()?;
        disk::sync_directory(dir)?;
        disk::rename(&bare, &inside)?;
        disk::sync_directory(&manifest.directory)?;
        disk::sync_directory(dir)
    };
    moved().map_err(cannot_write(dir))?;
    let (bare, inside) = (bare.display(), inside.display());
    log::notice(format_args!("{bare} is the base of the log now, and was moved to {inside}"));
    Ok(())
}

pub(super) fn cannot_write(directory: &Path) -> impl Fn(std::io::Error) -> String + use<> {
    let directory = directory.to_path_buf();
    move |error| format!("cannot write to {}: {error}", directory.display())
}

pub fn create(path: &Path) -> std::io::Result<File> {
    let file = disk::open(path, Opening::New)?;
    file.sync_all().inspect_err(|_| drop(disk::remove_file(path)))?;
    Ok(file)
}

/// Bytes in all live files.
pub fn total_size(manifest: &Manifest) -> u64 {
    manifest.paths().map(|path| disk::length(&path).unwrap_or(0)).sum()
}
