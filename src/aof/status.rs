//! What INFO shows of the log: numbers that other threads store and INFO loads, each for itself.

use std::sync::atomic::Ordering::Relaxed;
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU64};

#[derive(Default)]
pub struct Status {
    /// Bytes in all live files.
    pub size: AtomicU64,
    /// The same after the last rewrite, or at the start.
    pub base_size: AtomicU64,
    /// 1 while an fsync is running.
    pub syncs_pending: AtomicU64,
    pub loading: AtomicBool,
    /// Unix time in seconds.
    pub load_start: AtomicU64,
    /// Bytes.
    pub load_total: AtomicU64,
    pub load_done: AtomicU64,
    /// Bytes of memory that the server used which has written the snapshot.
    pub load_memory: AtomicU64,
    pub rewriting: AtomicBool,
    pub rewrites: AtomicU64,
    /// Since the last rewrite that worked.
    pub rewrite_failures: AtomicU64,
    /// Unix time in seconds at which the present rewrite began.
    pub rewrite_start: AtomicU64,
    /// Duration of the last rewrite in seconds, -1 before the first.
    pub last_rewrite_seconds: AtomicI64,
    /// Of the base that is being written.
    pub writing: Writing,
}

/// How far the writing of all keys is. Both are 0 if nothing is written.
#[derive(Default)]
pub struct Writing {
    pub done: AtomicU64,
    pub total: AtomicU64,
}

/// Tells how many keys are written, until this is dropped.
pub struct Progress<'a>(&'a Writing);

impl Writing {
    pub fn begin(&self, total: usize) -> Progress<'_> {
        self.total.store(total as u64, Relaxed);
        Progress(self)
    }
}

impl Progress<'_> {
    pub fn tell(&self, done: u64) {
        self.0.done.store(done, Relaxed);
    }
}

impl Drop for Progress<'_> {
    fn drop(&mut self) {
        self.0.done.store(0, Relaxed);
        self.0.total.store(0, Relaxed);
    }
}
