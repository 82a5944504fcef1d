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
//! (a) Create the next incr file, fsync it, and list it behind the others.
//! (b) Under the file's mutex, for as long as one write takes: write what is in the buffer to the
//!     old file, forget which database the log's end is in, and go on in the new file.
//! (c) Replay the sealed files into a private keyspace, with the code that replays at start.
//! (d) Write that as a base under a temporary name, fsync, rename.
//! (e) Replace the manifest: the new base, the new incr, and the rest as history.
//! (f) Delete the history.
//!
//! A kill between any two steps leaves a manifest whose files say the same. Nobody waits, but for
//! a second copy of the data in memory meanwhile; that is the price.
//!
//! Two rewrites have no log to replay: the first one after `CONFIG SET appendonly yes`, and one
//! that is to heal a failed fsync, whose log may have holes. These dump the live keyspace under
//! the shared lock: readers go on, writers wait, about half a second per million small keys.
//!
//! **How Redis does it**: aof.c, `rewriteAppendOnlyFileBackground`: a fork writes the base, and
//! the kernel copies every page that changes meanwhile.

use super::Aof;
use super::load::{self, Replay, Stop};
use super::manifest::{self, Entry as FileEntry, Manifest};
use super::start::{self, total_size};
use crate::entry::{Entry, Value};
use crate::resp::{Digits, write_command};
use crate::say;
use crate::store::Keyspace;
use crate::table::Keyed;
use std::fs::{self, File};
use std::io::{self, BufWriter, Write};
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Condvar, Mutex, RwLock};
use std::time::{Duration, Instant};

/// Who wants a rewrite. The rewrite thread sleeps here.
#[derive(Default)]
pub struct Requests {
    wanted: Mutex<bool>,
    arrived: Condvar,
    /// The log is to be switched on when its first base is being written.
    enable: AtomicBool,
}

/// After a failed automatic rewrite the next one waits this long.
const PAUSE_AFTER_FAILURE: Duration = Duration::from_secs(60);

/// Fields in one HMSET of a base file, as in Redis.
const FIELDS_PER_COMMAND: usize = 64;

impl Aof {
    /// Asks for a rewrite; false if one is running.
    pub fn request_rewrite(&self) -> bool {
        let mut wanted = self.rewriter.wanted.lock().unwrap();
        if self.status.rewriting.swap(true, Ordering::AcqRel) {
            return false;
        }
        *wanted = true;
        self.rewriter.arrived.notify_one();
        true
    }

    /// Asks for the log to be switched on, which begins with a rewrite from memory.
    pub fn request_enable(&self) {
        self.rewriter.enable.store(true, Ordering::Release);
        self.request_rewrite();
    }

    /// Switches the log off. What is written of it stays, and is loaded at the next start if the
    /// log is on then; so it is finished first.
    pub fn disable(&self) -> Result<(), String> {
        self.rewriter.enable.store(false, Ordering::Release);
        self.finish()?;
        self.enabled.store(false, Ordering::Release);
        *self.target.lock().unwrap() = None;
        *self.buffer.lock().unwrap() = super::Buffer::default();
        *self.failure.lock().unwrap() = None;
        self.failing.store(false, Ordering::Release);
        Ok(())
    }

    /// The rewrite thread. `replay_all` makes an empty keyspace and calls [`replay_sealed`] with
    /// what replays a command into it.
    pub fn rewrite_when_asked(
        &self,
        store: &RwLock<Keyspace>,
        replay_all: &dyn Fn(&Manifest) -> Result<Keyspace, String>,
    ) -> ! {
        let mut not_before = Instant::now();
        loop {
            let automatic = !self.wait_for_request(not_before);
            let begin = Instant::now();
            let enable = self.rewriter.enable.swap(false, Ordering::AcqRel);
            let damaged = self
                .failure
                .lock()
                .unwrap()
                .as_ref()
                .is_some_and(|f| f.needs_rewrite);
            let result = match enable || damaged {
                true => self.rewrite_from_memory(store),
                false => self.rewrite_from_log(replay_all),
            };
            let status = &self.status;
            let seconds = begin.elapsed().as_secs() as i64;
            status
                .last_rewrite_seconds
                .store(seconds, Ordering::Relaxed);
            status
                .last_rewrite_failed
                .store(result.is_err(), Ordering::Relaxed);
            match result {
                Ok(()) => self.say_rewritten(begin),
                Err(reason) => {
                    not_before = Instant::now() + PAUSE_AFTER_FAILURE;
                    self.say_failed(&reason, automatic);
                }
            }
            status.rewriting.store(false, Ordering::Release);
        }
    }

    fn say_rewritten(&self, begin: Instant) {
        self.status.rewrites.fetch_add(1, Ordering::Relaxed);
        say::notice(format_args!(
            "the append-only file was rewritten: {} bytes, in {} ms",
            self.status.base_size.load(Ordering::Relaxed),
            begin.elapsed().as_millis()
        ));
    }

    fn say_failed(&self, reason: &str, automatic: bool) {
        self.status.rewrite_failures.fetch_add(1, Ordering::Relaxed);
        let again = if automatic {
            " It will be tried again in a minute."
        } else {
            ""
        };
        say::warning(format_args!(
            "the rewrite of the append-only file failed, and changed nothing: {reason}.{again}"
        ));
    }

    /// Sleeps until somebody asks (true), or until the log has grown enough (false).
    fn wait_for_request(&self, not_before: Instant) -> bool {
        let mut wanted = self.rewriter.wanted.lock().unwrap();
        loop {
            if std::mem::take(&mut *wanted) {
                return true;
            }
            let grown = self.has_grown() && Instant::now() >= not_before;
            if grown && !self.status.rewriting.swap(true, Ordering::AcqRel) {
                return false;
            }
            let pause = Duration::from_millis(100);
            wanted = self.rewriter.arrived.wait_timeout(wanted, pause).unwrap().0;
        }
    }

    fn has_grown(&self) -> bool {
        let percentage = self.config.number("auto-aof-rewrite-percentage") as u64;
        let least = self.config.number("auto-aof-rewrite-min-size") as u64;
        let size = self.status.size.load(Ordering::Relaxed);
        let base = self.status.base_size.load(Ordering::Relaxed).max(1);
        percentage > 0
            && self.is_enabled()
            && size > least
            && size.saturating_sub(base) / base.div_ceil(100).max(1) >= percentage
    }

    fn rewrite_from_log(
        &self,
        replay_all: &dyn Fn(&Manifest) -> Result<Keyspace, String>,
    ) -> Result<(), String> {
        let text = |error: io::Error| error.to_string();
        // So that little is left to be fsynced in step (b).
        let position = self.position();
        self.commit(position)?;
        self.sync_to(position)?;

        // (a)
        let old = self.manifest()?;
        let mut listed = old.clone();
        let incr = old.next_incr();
        listed.incrs.push(incr.clone());
        let _ = fs::remove_file(listed.path_of(&incr));
        let file = start::create(&listed.path_of(&incr)).map_err(text)?;
        listed.save().map_err(text)?;
        crash_point("a");

        // (b)
        if let Err(reason) = self.switch_to(file, listed.clone()) {
            old.save().map_err(text)?;
            let _ = fs::remove_file(listed.path_of(&incr));
            return Err(reason);
        }
        crash_point("b");

        // (c)
        let keyspace = replay_all(&old)?;
        crash_point("c");

        // (d)
        let base = old.next_base();
        let temporary = self.write_base(&listed, &keyspace).map_err(text)?;
        crash_point("d");
        self.publish_base(&temporary, base, old.live().cloned().collect())
    }

    /// Step (b): seals the present file and goes on in the next.
    fn switch_to(&self, file: File, manifest: Manifest) -> Result<(), String> {
        // Nobody may call the position durable before the old file has been fsynced.
        let _turn = self.syncing.lock().unwrap();
        let (sealed, end) = {
            let mut guard = self.target.lock().unwrap();
            self.write(&mut guard)?;
            let target = guard.as_mut().ok_or("the log was switched off")?;
            // A record may have come since the write: it stays in the buffer, and will be the
            // first of the new file, which must begin with its own SELECT. So both in one step.
            let mut buffer = self.buffer.lock().unwrap();
            let last = std::mem::take(&mut *buffer).bytes;
            let end = self.position();
            drop(buffer);
            target.pending = last;
            target.pending_end = end;
            let count = match target.write_pending() {
                Ok(count) => count,
                Err(error) => return Err(self.fail(&error, false)),
            };
            self.status.size.fetch_add(count, Ordering::Relaxed);
            self.written.store(end, Ordering::Release);
            target.manifest = manifest;
            target.length = 0;
            (std::mem::replace(&mut target.file, file.into()), end)
        };
        self.sync_file(&sealed, end)
    }

    /// Dumps the keyspace, for there is no log to be trusted. Long because it is one sequence: what
    /// is done under the shared lock, and in which order, is all that matters here.
    fn rewrite_from_memory(&self, store: &RwLock<Keyspace>) -> Result<(), String> {
        let text = |error: io::Error| error.to_string();
        let enabled = self.is_enabled();
        let (old, lock) = match enabled {
            true => (self.manifest()?, None),
            false => {
                let dir = PathBuf::from(self.config.text("dir"));
                let lock = start::lock_directory(&dir)?;
                (start::find_files(&self.config, &dir)?, Some(lock))
            }
        };
        let mut manifest = old.clone();
        let incr = old.next_incr();
        manifest.incrs.push(incr.clone());
        let _ = fs::remove_file(manifest.path_of(&incr));
        let file = start::create(&manifest.path_of(&incr)).map_err(text)?;
        // Under the shared lock nobody appends, so the dump and the switch see the same state. The
        // file's mutex is taken under it here, and nowhere else: who holds that never waits for
        // the keyspace.
        let keyspace = store.read().unwrap();
        let temporary = self.write_base(&manifest, &keyspace).map_err(text)?;
        {
            let mut target = self.target.lock().unwrap();
            match (target.as_mut(), lock) {
                (Some(target), _) => {
                    target.file = file.into();
                    target.manifest = manifest.clone();
                    target.pending.clear();
                    target.torn = false;
                    target.length = 0;
                }
                (None, Some(lock)) => *target = Some(start::open_target(manifest, lock)?),
                (None, None) => return Err("the log was switched off".into()),
            }
            *self.buffer.lock().unwrap() = super::Buffer::default();
            self.written.store(self.position(), Ordering::Release);
            self.enabled.store(true, Ordering::Release);
        }
        let position = self.position();
        drop(keyspace);
        let history = old.live().cloned().collect();
        let published = self.publish_base(&temporary, old.next_base(), history);
        if published.is_err() && !enabled {
            // The manifest does not list the file that we write to: better no log than that.
            self.enabled.store(false, Ordering::Release);
            *self.target.lock().unwrap() = None;
        }
        published?;
        self.advance_durable(position);
        *self.failure.lock().unwrap() = None;
        self.failing.store(false, Ordering::Release);
        Ok(())
    }

    /// Steps (d), second half, to (f).
    fn publish_base(
        &self,
        temporary: &PathBuf,
        base: FileEntry,
        history: Vec<FileEntry>,
    ) -> Result<(), String> {
        let text = |error: io::Error| error.to_string();
        let mut guard = self.target.lock().unwrap();
        let target = guard.as_mut().ok_or("the log was switched off")?;
        let mut manifest = target.manifest.clone();
        drop(guard);
        fs::rename(temporary, manifest.path_of(&base)).map_err(text)?;
        manifest::sync_directory(&manifest.directory).map_err(text)?;
        crash_point("rename");

        // (e)
        manifest.base = Some(base);
        manifest.incrs.retain(|incr| !history.contains(incr));
        manifest.history = history;
        manifest.save().map_err(text)?;
        crash_point("e");

        // (f)
        if let Some(target) = self.target.lock().unwrap().as_mut() {
            target.manifest = Manifest {
                history: Vec::new(),
                ..manifest.clone()
            };
        }
        let size = total_size(&manifest);
        self.status.size.store(size, Ordering::Relaxed);
        self.status.base_size.store(size, Ordering::Relaxed);
        manifest.clean().map_err(text)?;
        crash_point("f");
        Ok(())
    }

    fn manifest(&self) -> Result<Manifest, String> {
        let target = self.target.lock().unwrap();
        let target = target
            .as_ref()
            .ok_or("the append-only file is switched off")?;
        Ok(target.manifest.clone())
    }

    /// Writes the keyspace to a temporary file and fsyncs it; returns its path.
    fn write_base(&self, manifest: &Manifest, keyspace: &Keyspace) -> io::Result<PathBuf> {
        let name = format!("temp-rewriteaof-{}.aof", std::process::id());
        let path = manifest.directory.join(name);
        let mut out = BufWriter::with_capacity(256 * 1024, File::create(&path)?);
        let mut bytes = Vec::new();
        for db in 0..keyspace.databases() {
            for (index, entry) in keyspace.entries(db).enumerate() {
                bytes.clear();
                if index == 0 {
                    let digits = Digits::new(db as i64);
                    write_command(&mut bytes, [b"SELECT", digits.as_bytes()].into_iter());
                }
                write_entry(&mut bytes, entry);
                out.write_all(&bytes)?;
            }
        }
        out.into_inner()?.sync_all()?;
        Ok(path)
    }
}

/// Replays files that nobody writes to any more.
pub fn replay_sealed(manifest: &Manifest, replay: &mut Replay) -> Result<(), String> {
    for entry in manifest.live() {
        let path = manifest.path_of(entry);
        let (_, result) = load::replay(&path, replay, &mut |_| {});
        result.map_err(|stop| match stop {
            Stop::Torn { offset, reason }
            | Stop::Corrupt { offset, reason }
            | Stop::Unsupported { offset, reason } => {
                format!("{} at offset {offset}: {reason}", path.display())
            }
            Stop::Io(error) => format!("cannot read {}: {error}", path.display()),
        })?;
    }
    Ok(())
}

/// Appends the commands that make this key.
fn write_entry(out: &mut Vec<u8>, entry: &Entry) {
    let key = entry.key();
    match entry.value() {
        Value::String(string) => write_command(out, [b"SET", key, &string].into_iter()),
        Value::Hash(hash) => {
            let fields: Vec<_> = hash.iter().collect();
            for some in fields.chunks(FIELDS_PER_COMMAND) {
                let mut words = vec![&b"HMSET"[..], key];
                words.extend(some.iter().flat_map(|(name, value)| [*name, *value]));
                write_command(out, words.into_iter());
            }
        }
    }
    if let Some(deadline) = entry.deadline() {
        let digits = Digits::new(deadline as i64);
        write_command(out, [b"PEXPIREAT", key, digits.as_bytes()].into_iter());
    }
}

/// For the tests that kill the server between two steps: aborts if the environment says so.
fn crash_point(step: &str) {
    if std::env::var_os("SIMPLE_REDIS_CRASH_AFTER").is_some_and(|wanted| wanted == step) {
        std::process::abort();
    }
}
