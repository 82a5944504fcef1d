//! The base: a file of commands that make each key once, or a snapshot (`aof-use-rdb-preamble`).
//!
//! A snapshot is shorter, is loaded sooner, and has one checksum. Commands can be read by everybody, and repaired.

use crate::aof::checksum::{self, Annotate, Stretch};
use crate::aof::disk::{self, File, Opening};
use crate::aof::sync::MUCH;
use crate::config::Config;
use crate::rdb::{self, How};
use crate::resp::{Digits, write_command};
use crate::store::Keyspace;
use crate::types::Entry;
use std::io::{self, BufWriter, Write};
use std::path::Path;

/// Writes the keyspace to a new file, and fsyncs it. `progress` is told how many keys are written.
pub fn write(
    path: &Path,
    keyspace: &Keyspace,
    config: &Config,
    progress: &mut dyn FnMut(u64),
) -> io::Result<()> {
    match config.aof_use_rdb_preamble.get() {
        true => synced(path, |out| rdb::write(out, keyspace, How::of(config, true), progress)),
        false => write_commands(path, keyspace, config.aof_checksum.get(), progress),
    }
}

/// Writes a new file, and fsyncs it. `write` is given the file. (The length that it returns is for replicas.)
pub fn synced(
    path: &Path,
    write: impl FnOnce(&mut dyn Write) -> io::Result<u64>,
) -> io::Result<()> {
    let mut out = Synced::new(path)?;
    write(&mut out)?;
    out.file.sync_all()
}

fn write_commands(
    path: &Path,
    keyspace: &Keyspace,
    annotate: bool,
    progress: &mut dyn FnMut(u64),
) -> io::Result<()> {
    let mut out = BufWriter::with_capacity(256 * 1024, Synced::new(path)?);
    let when = |when| if annotate { when } else { Annotate::Never };
    let mut bytes = Vec::new();
    let (mut open, mut count) = (Stretch::default(), 0);
    for db in 0..keyspace.databases() {
        for (index, entry) in keyspace.entries(db).enumerate() {
            bytes.clear();
            if index == 0 {
                let digits = Digits::new(db as i64);
                write_command(&mut bytes, [b"SELECT", digits.as_bytes()].into_iter());
            }
            write_entry(&mut bytes, entry);
            checksum::cover(&mut open, &mut bytes, 0, when(Annotate::IfMuch));
            out.write_all(&bytes)?;
            count += 1;
            progress(count);
        }
    }
    bytes.clear();
    if let Some(origin) = keyspace.origin() {
        origin.with_record(|words| write_command(&mut bytes, words.iter().copied()));
    }
    checksum::cover(&mut open, &mut bytes, 0, when(Annotate::Now));
    out.write_all(&bytes)?;
    out.into_inner()?.file.sync_all()
}

/// A file that calls fsync now and then: one long fsync at its end would delay whoever writes to the log.
struct Synced {
    file: File,
    unsynced: u64,
}

impl Synced {
    fn new(path: &Path) -> io::Result<Synced> {
        Ok(Synced { file: disk::open(path, Opening::Empty)?, unsynced: 0 })
    }
}

impl Write for Synced {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let count = self.file.write(bytes)?;
        self.unsynced += count as u64;
        if self.unsynced > MUCH {
            self.file.sync_data()?;
            self.unsynced = 0;
        }
        Ok(count)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.flush()
    }
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
