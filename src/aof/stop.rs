//! The end of the log: at SHUTDOWN, and at `CONFIG SET appendonly no`.
//!
//! SHUTDOWN holds the keyspace, writes and fsyncs everything, and ends the process.
//!
//! `CONFIG SET appendonly no` holds nothing. So it writes and fsyncs everything while others go on, and
//! then closes the log: under the file's and the buffer's mutexes it writes the rest. Whoever has appended
//! until then, and waits in `commit`, waits for the file until the rest is written. Under `always` it waits
//! for the turn too, which ends when the rest is on the disk. What is appended later is forgotten.
//!
//! The files stay. A start with the log on loads them.
//!
//! **How Redis does it**: aof.c, `stopAppendOnly`, and `finishShutdown` in server.c.

use super::{Annotate, Aof};
use crate::propagate::Stream;
use std::sync::atomic::Ordering;

impl Aof {
    /// Writes and fsyncs everything. The error says what could not be saved.
    pub fn sync_all(&self) -> Result<(), String> {
        if !self.is_enabled() {
            // Whoever switched it on was told OK.
            let will_be = self.config.appendonly.get();
            return match will_be && !self.status.loading.load(Ordering::Relaxed) {
                true => Err("the first file of the log is not written yet".into()),
                false => Ok(()),
            };
        }
        let position = {
            let mut target = self.target.lock().unwrap();
            self.write(&mut target, Annotate::Now)?;
            self.written.load(Ordering::Acquire)
        };
        self.sync_to(position)?;
        // A start would not find files that are gone, nor any if the manifest is not on the disk.
        self.check_files();
        self.failure().map_or(Ok(()), Err)
    }

    /// Switches the log off. If the disk fails, the end of the log is missing. A write that waits for the log at
    /// that moment is answered with OK, because from now on no reply promises that anything is on a disk.
    pub fn disable(&self) {
        self.rewriter.wanted.lock().unwrap().enable = None;
        let _ = self.sync_all();
        self.close();
    }

    /// The second half of [`Aof::disable`].
    pub(super) fn close(&self) {
        // While it lasts no fsync can fail and count against a log that is off.
        let turn = self.turn();
        let mut guard = self.target.lock().unwrap();
        let Some(mut target) = guard.take() else {
            return self.failures.forget();
        };
        let from = {
            let mut buffer = self.buffer.lock().unwrap();
            self.enabled.store(false, Ordering::Release);
            let from = self.take(&mut target, &mut buffer);
            *buffer = Stream::default();
            from
        };
        let result = self.write_taken(&mut target, from, Annotate::Now);
        let end = self.position();
        self.backlog.end_history(&target.manifest);
        self.written.store(end, Ordering::Release);
        drop(guard);
        if result.is_ok() && !self.is_durable(end) {
            let _ = self.sync_file(&target.file, end, &turn);
        }
        self.failures.forget();
    }
}
