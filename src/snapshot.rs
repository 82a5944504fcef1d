//! The snapshot in a file, `dump.rdb`: without a log it is what a start begins with.
//!
//! The format is told in src/rdb.rs.
//!
//! **How Redis does it**: rdb.c and `loadDataFromDisk` in server.c. Redis too reads the log if there is one, and else
//! the snapshot.

use crate::aof::disk::{self, Opening};
use crate::aof::status::Status;
use crate::config::Config;
use crate::log;
use crate::propagate::Source;
use crate::rdb;
use crate::stats::unix_microseconds;
use crate::store::Keyspace;
use crate::types::Limits;
use std::io::{BufReader, ErrorKind};
use std::sync::atomic::Ordering::Relaxed;
use std::time::{Duration, Instant};

/// Bytes that are read at once.
const ROOM: usize = 64 * 1024;

/// From one line about the progress to the next.
const TELL_EVERY: Duration = Duration::from_secs(2);

/// Loads the snapshot of the directory, if there is one. The error is one line for the operator.
pub fn load(config: &Config, status: &Status) -> Result<Option<Keyspace>, String> {
    let path = config.dir.path().join(config.dbfilename.path());
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
    let mut keyspace = Keyspace::new(config.databases.get());
    let limits = Limits::of(config, Source::Log);
    // In a replica expired keys wait for their DEL.
    let now_if_alone = config.primary()?.is_none().then_some(now / 1000);
    let mut reader = BufReader::with_capacity(ROOM, file);
    let read = rdb::read(&mut reader, &mut keyspace, &limits, now_if_alone, &mut progress);
    let found = read.map_err(|error| {
        format!(
            "{}. Restore the file from a copy, or move it away to begin with nothing",
            cannot_read(&error)
        )
    })?;
    for warning in &found.warnings {
        log::warning(format_args!("{}: {warning}", path.display()));
    }
    log::notice(format_args!(
        "loaded {} keys from {}, {} bytes, in {} ms; {} were expired",
        found.keys,
        path.display(),
        found.bytes,
        begin.elapsed().as_millis(),
        found.expired
    ));
    Ok(Some(keyspace))
}
