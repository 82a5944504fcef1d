//! Replay: reading the log back, and telling a torn tail from a broken file.
//!
//! The file format is the wire format, so the parser is the one that reads from clients. What
//! replaying a command means is the caller's business: a function that it passes.
//!
//! A server that dies in the middle of a write leaves a record cut off at the end of the last
//! file, and a power cut may leave zeros where the file system had made room. Nobody was told
//! `OK` for such a record, so it is cut away, and a copy of the cut bytes is kept beside the log.
//! Anything else that cannot be read means that data which *was* acknowledged is damaged, and we
//! refuse to guess. How to tell:
//!
//! ```text
//! ... good record | good record | *3 $3 SET $1 k $100 abcdef⏎          end of the last file
//!                               └── the tail: from the first record that cannot be read
//! 1. it ends too early, as above                → torn  } unless a whole record stands in it from
//! 2. the same, once the zeros at its end go     → torn  } which the file reads to its end: then a
//! 3. not longer than aof-load-corrupt-tail-…    → torn  } length is wrong, and data would be lost
//! 4. else                                       → refuse, and say where and why
//! ```
//!
//! A MULTI whose EXEC is missing is torn as a whole, from the MULTI on.
//!
//! **How Redis does it**: aof.c, `loadSingleAppendOnlyFile`. It cuts whatever ends too early, even
//! when one flipped bit in a length hides thousands of good records (we refuse), leaves an open
//! MULTI in the file (we cut it), and refuses zeros (7.0; 8.4 can cut them).

use crate::resp::{self, Args, Error};
use std::collections::HashSet;
use std::fs::File;
use std::io::{self, BufRead, BufReader, Read, Seek, SeekFrom};
use std::path::Path;

/// What replays one command; the error says why it cannot be.
pub type Replay<'a> = dyn FnMut(&mut Args) -> Result<(), String> + 'a;

/// Why a file did not replay to its end.
#[derive(Debug, PartialEq)]
pub enum Stop {
    /// From this offset on there is a tail that may be cut: a torn record, or zeros, or both.
    /// The record that is broken may lie behind it, in a MULTI that is torn as a whole.
    Torn {
        offset: u64,
        record: u64,
        reason: String,
    },
    /// The same, but there is something that is no command. The tail has no known shape.
    Corrupt {
        offset: u64,
        record: u64,
        reason: String,
    },
    /// The command at this offset is one that this server cannot replay.
    Unsupported { offset: u64, reason: String },
    /// The file failed, or is of a kind that we do not read.
    Unreadable(String),
}

/// Progress is told every so many bytes.
const PROGRESS: u64 = 64 * 1024;

/// How far a replay came.
#[derive(Default, Clone, Copy, PartialEq, Debug)]
pub struct Extent {
    pub commands: u64,
    /// Bytes up to the end of the last whole unit, where a tail would begin.
    pub bytes: u64,
}

/// Replays the file at `path`, and calls `progress` from time to time with the number of bytes
/// done. The extent is told also when the replay stops early.
pub fn replay(
    path: &Path,
    replay: &mut Replay,
    progress: &mut dyn FnMut(u64),
) -> (Extent, Result<(), Stop>) {
    let mut extent = Extent::default();
    let result = replay_into(path, replay, progress, &mut extent);
    (extent, result)
}

/// Long because it is one loop, and each of its branches is one thing that may come next in a file.
fn replay_into(
    path: &Path,
    replay: &mut Replay,
    progress: &mut dyn FnMut(u64),
    extent: &mut Extent,
) -> Result<(), Stop> {
    let io = |error: io::Error| Stop::Unreadable(error.to_string());
    let file = File::open(path).map_err(io)?;
    let mut reader = Counted {
        inner: BufReader::with_capacity(64 * 1024, file),
        offset: 0,
    };
    if reader.fill_buf().map_err(io)?.starts_with(b"REDIS") {
        let reason = "it is an RDB file, which this server does not read: on the Redis server, \
                      run `CONFIG SET aof-use-rdb-preamble no` and then `BGREWRITEAOF`";
        return Err(Stop::Unreadable(reason.into()));
    }
    let mut args = Args::default();
    // Each file begins in database 0, and outside of a transaction.
    select_0(&mut args, replay);
    let mut open_multi = false;
    let mut next_progress = 0;
    loop {
        let offset = reader.offset;
        if offset >= next_progress {
            progress(offset);
            next_progress = offset + PROGRESS;
        }
        match read_record(&mut reader, &mut args) {
            Ok(true) => {}
            Ok(false) if !open_multi => return Ok(()),
            // What is broken inside MULTI takes the transaction with it.
            end => {
                if open_multi {
                    args.clear();
                    args.push(b"DISCARD");
                    let _ = replay(&mut args);
                }
                return Err(stop_at(extent.bytes, offset, end.err()));
            }
        }
        match (&args[0], args.len()) {
            (word, 1) if word.eq_ignore_ascii_case(b"multi") => open_multi = true,
            (word, 1) if word.eq_ignore_ascii_case(b"exec") => open_multi = false,
            (word, 1) if word.eq_ignore_ascii_case(b"discard") => open_multi = false,
            _ => {}
        }
        replay(&mut args).map_err(|reason| Stop::Unsupported { offset, reason })?;
        extent.commands += 1;
        if !open_multi {
            extent.bytes = reader.offset;
        }
    }
}

fn select_0(args: &mut Args, replay: &mut Replay) {
    args.clear();
    args.push(b"SELECT");
    args.push(b"0");
    // Database 0 exists.
    let _ = replay(args);
}

/// The unit that began at `offset` has something at `record` that ends it too early: nothing at
/// all, if there is no error.
fn stop_at(offset: u64, record: u64, error: Option<Error>) -> Stop {
    let torn = |reason| Stop::Torn {
        offset,
        record,
        reason,
    };
    match error {
        None => torn("the file ends inside MULTI".into()),
        Some(Error::Cut) => torn(format!("the record at {record} is cut off")),
        Some(Error::Protocol(reason)) => Stop::Corrupt {
            offset,
            record,
            reason: format!("at {record}: {}", String::from_utf8_lossy(&reason)),
        },
        Some(Error::Io(error)) => Stop::Unreadable(error.to_string()),
    }
}

/// Reads one record. Stricter than the wire: an array, no inline text, and what lies between the
/// records must be what we would have written. Annotations (`#TS:…`) are skipped.
fn read_record(reader: &mut impl BufRead, args: &mut Args) -> Result<bool, Error> {
    loop {
        match reader.fill_buf()?.first() {
            None => return Ok(false),
            Some(b'*') => return resp::read_command(reader, args, resp::LOG),
            Some(b'#') => {
                let mut line = Vec::new();
                reader.read_until(b'\n', &mut line)?;
                if line.last() != Some(&b'\n') {
                    return Err(Error::Cut);
                }
            }
            Some(&byte) => {
                let found = byte.escape_ascii();
                return Err(Error::Protocol(
                    format!("expected '*', found '{found}'").into(),
                ));
            }
        }
    }
}

/// Judges the bytes from `offset` on, where a replay stopped with [`Stop::Torn`] or
/// [`Stop::Corrupt`]. `Ok` with the tail if it may be cut, or an error that says why not.
pub fn judge_tail(path: &Path, stop: &Stop, most_garbage: u64) -> Result<Vec<u8>, String> {
    let (&offset, reason) = match stop {
        Stop::Torn { offset, reason, .. } | Stop::Corrupt { offset, reason, .. } => {
            (offset, reason)
        }
        Stop::Unsupported { reason, .. } | Stop::Unreadable(reason) => return Err(reason.clone()),
    };
    let tail = read_from(path, offset).map_err(|error| error.to_string())?;
    let zeros = tail.iter().rev().take_while(|&&byte| byte == 0).count();
    let written = &tail[..tail.len() - zeros];
    let garbage = matches!(stop, Stop::Corrupt { .. }) && !ends_too_early(written);
    if garbage && tail.len() as u64 > most_garbage {
        return Err(reason.clone());
    }
    match whole_record_in(written) {
        Some(at) => Err(format!(
            "{reason}; but from {} on there are whole records up to the end of the file, so this \
             is no torn tail: a length before them is damaged",
            offset + at as u64
        )),
        None => Ok(tail),
    }
}

/// What the file holds from `offset` on.
pub fn read_from(path: &Path, offset: u64) -> io::Result<Vec<u8>> {
    let mut file = File::open(path)?;
    file.seek(SeekFrom::Start(offset))?;
    let mut bytes = Vec::new();
    file.read_to_end(&mut bytes)?;
    Ok(bytes)
}

/// Whether the bytes are records of which the last is cut off, or nothing at all.
fn ends_too_early(mut bytes: &[u8]) -> bool {
    let mut args = Args::default();
    loop {
        match read_record(&mut bytes, &mut args) {
            Ok(true) => {}
            Ok(false) | Err(Error::Cut) => return true,
            Err(_) => return false,
        }
    }
}

/// Where in the tail, behind its first broken record, a record begins from which all is whole.
fn whole_record_in(tail: &[u8]) -> Option<usize> {
    let mut args = Args::default();
    // The records of an open MULTI are whole, and yet part of what is torn.
    let (mut broken, mut rest) = (tail, tail);
    while let Ok(true) = read_record(&mut rest, &mut args) {
        broken = rest;
    }
    let start = tail.len() - broken.len() + 1;
    let begins = |at: &usize| tail[*at] == b'*' && tail[*at - 1] == b'\n';
    // Where records begin that lead to nothing: most places lie behind others, and are looked at
    // once and not once for each of those.
    let mut in_vain = HashSet::new();
    (start..tail.len()).filter(begins).find(|&at| {
        let mut rest = &tail[at..];
        while in_vain.insert(tail.len() - rest.len()) {
            match read_record(&mut rest, &mut args) {
                Ok(true) => {}
                Ok(false) => return true,
                Err(_) => return false,
            }
        }
        false
    })
}

/// A reader that knows how many bytes were taken from it.
struct Counted<R> {
    inner: R,
    offset: u64,
}

impl<R: BufRead> Read for Counted<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.inner.read(buffer)?;
        self.offset += count as u64;
        Ok(count)
    }
}

impl<R: BufRead> BufRead for Counted<R> {
    fn fill_buf(&mut self) -> io::Result<&[u8]> {
        self.inner.fill_buf()
    }

    fn consume(&mut self, count: usize) {
        self.inner.consume(count);
        self.offset += count as u64;
    }
}
