//! When a rewrite begins: a client asks for it, the log has grown, or the log is to be switched on.
//!
//! The rewrite thread sleeps until one of these happens. If a rewrite fails the operator is told. It is tried
//! again after ten seconds if it was to switch the log on, because whoever asked for that was told OK. If
//! nobody has asked for it, it is tried again after a minute, and then later and later, because each one may
//! leave a file.
//!
//! **How Redis does it**: server.c, `serverCron`, which also starts a rewrite that was put off. It waits in
//! the same way after three failures (`AOF_REWRITE_LIMITE_THRESHOLD`).

use super::{Aof, Directory, Keyspace, Kind, Manifest, Store, start};
use crate::aof::TICK;
use crate::log;
use crate::stats::unix_microseconds;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Condvar, Mutex};
use std::time::{Duration, Instant};

/// After a failure to switch the log on, the next try.
const RETRY_ENABLE: Duration = Duration::from_secs(10);

/// After this many failures, the next rewrite that nobody has asked for: a minute after the first, twice
/// as long after each other, at most an hour.
fn pause_after(failures: u64) -> Duration {
    match failures {
        0 => Duration::ZERO,
        _ => Duration::from_secs(60 << (failures - 1).min(6)).min(Duration::from_secs(3600)),
    }
}

/// What the rewrite thread is to do next.
#[derive(Default)]
pub struct Requests {
    pub wanted: Mutex<Wanted>,
    arrived: Condvar,
    /// Held by whoever replaces the log's files, by a rewrite or because other data comes ([`Aof::exchange`]), or replays
    /// those that are in use: a rewrite deletes them.
    pub alone: Mutex<()>,
}

#[derive(Default)]
pub struct Wanted {
    rewrite: bool,
    /// The log is to be switched on, by a rewrite. The lock is that of its directory.
    pub enable: Option<Arc<Directory>>,
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

    /// Asks for the log to be switched on, by a rewrite from memory. If a rewrite is running, this one
    /// follows at once. False if the log cannot be opened; then the operator is told why.
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
                self.failures
                    .tell_later(format!("cannot switch the append-only file on: {reason}"));
                false
            }
        }
    }

    /// The rewrite thread. `replay_all` makes an empty keyspace, and calls [`super::replay_sealed`] with
    /// a function that replays a command into it.
    pub fn rewrite_when_asked(
        &self,
        store: &Store,
        replay_all: &dyn Fn(&Manifest) -> Result<Keyspace, String>,
    ) -> ! {
        let status = &self.status;
        let mut ended = Instant::now();
        loop {
            self.wait_for_request(ended);
            let begin = Instant::now();
            status.rewrite_start.store(unix_microseconds() / 1_000_000, Ordering::Relaxed);
            let enable = self.rewriter.wanted.lock().unwrap().enable.take();
            let alone = self.rewriter.alone.lock().unwrap();
            let result = self.rewrite(enable.clone(), store, replay_all);
            drop(alone);
            self.syncs.during_rewrite.store(false, Ordering::Relaxed);
            self.tell(&result, begin.elapsed());
            ended = Instant::now();
            let mut wanted = self.rewriter.wanted.lock().unwrap();
            // Whoever switched the log on was told OK, and must get it.
            if result.is_err() && wanted.enable.is_none() && self.config.appendonly.get() {
                wanted.enable = enable;
            }
            status.rewriting.store(wanted.rewrite, Ordering::Release);
        }
    }

    /// Tells the operator, and INFO, how a rewrite has ended.
    fn tell(&self, result: &Result<(), String>, took: Duration) {
        let status = &self.status;
        let seconds = took.as_secs() as i64;
        status.last_rewrite_seconds.store(seconds, Ordering::Relaxed);
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

    /// Sleeps until a rewrite is due. Then `rewriting` is set.
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
            wanted = self.rewriter.arrived.wait_timeout(wanted, TICK).unwrap().0;
        }
    }

    /// Whether the log has grown by `auto-aof-rewrite-percentage` since its last base.
    fn has_grown(&self) -> bool {
        let percentage = self.config.auto_aof_rewrite_percentage.get() as u64;
        let least = self.config.auto_aof_rewrite_min_size.get() as u64;
        let size = self.status.size.load(Ordering::Relaxed);
        let base = self.status.base_size.load(Ordering::Relaxed).max(1);
        percentage > 0
            && self.is_enabled()
            // The files that are there now may be a copy that somebody is putting back.
            && !self.failures.is(Kind::Lost)
            && size > least
            && size.saturating_sub(base) / base.div_ceil(100).max(1) >= percentage
    }
}
