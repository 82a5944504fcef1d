//! The base: a file of commands that make each key once.

use crate::aof::checksum::{self, Annotate, Stretch};
use crate::aof::disk::{self, Opening};
use crate::aof::sync::MUCH;
use crate::resp::{Digits, write_command};
use crate::store::Keyspace;
use crate::types::Entry;
use std::io::{self, BufWriter, Write};
use std::path::Path;

/// Writes the keyspace to a new file, and fsyncs it.
pub fn write(path: &Path, keyspace: &Keyspace, annotate: bool) -> io::Result<()> {
    let mut out = BufWriter::with_capacity(256 * 1024, disk::open(path, Opening::Empty)?);
    let when = |when| if annotate { when } else { Annotate::Never };
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
            checksum::cover(&mut open, &mut bytes, 0, when(Annotate::IfMuch));
            out.write_all(&bytes)?;
            unsynced += bytes.len() as u64;
            // One long fsync at the end would delay whoever writes to the log.
            if unsynced > MUCH {
                out.flush()?;
                out.get_ref().sync_data()?;
                unsynced = 0;
            }
        }
    }
    bytes.clear();
    if let Some(origin) = keyspace.origin() {
        origin.with_record(|words| write_command(&mut bytes, words.iter().copied()));
    }
    checksum::cover(&mut open, &mut bytes, 0, when(Annotate::Now));
    out.write_all(&bytes)?;
    out.into_inner()?.sync_all()
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
