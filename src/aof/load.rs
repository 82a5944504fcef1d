//! Replay: reading the log back.
//!
//! The file format is the wire format, so the parser is the one that reads from clients. The caller passes a
//! function that runs the commands.
//!
//! Up to [`AHEAD`] records are read and then replayed together, so that the replay can look ahead as a
//! client's batch does (call/ahead.rs). Most of the time of loading is waiting for memory.
//!
//! A file that cannot be read to its end stops the replay, which says where, and at what ([`Stop`]).
//! Whether that is a torn tail, to be cut, or damage is judged in aof/repair.rs. What an annotation says is
//! compared with the bytes before it (aof/checksum.rs). A MULTI and all up to its EXEC are one unit:
//! if the EXEC is missing, nothing of it is replayed.
//!
//! **How Redis does it**: aof.c, `loadSingleAppendOnlyFile`, one command at a time with the client's
//! parser. It skips annotations without looking at them.

use super::checksum::{self, Claim, Line, Stretch};
use super::disk::{self, Opening};
use crate::resp::{self, Args, Error};
use std::io::{self, BufRead, BufReader, Read};
use std::path::Path;

/// Replays some commands in their order. The error says which one cannot be replayed, and why; those before
/// it have been.
pub type Replay<'a> = dyn FnMut(&mut [Args]) -> Result<(), (usize, String)> + 'a;

/// Why a file did not replay to its end.
#[derive(Debug, PartialEq)]
pub enum Stop {
    /// From this offset on there is a tail that may be cut: a torn record, or zeros, or both.
    /// The record that is broken may lie behind it, in a MULTI that is torn as a whole.
    Torn { offset: u64, record: u64, reason: String },
    /// The same, but what is there is no command, nor the beginning of one.
    Corrupt { offset: u64, record: u64, reason: String },
    /// Every record can be read, but these bytes are not those that were written: their annotation says
    /// so (aof/checksum.rs).
    Changed { from: u64, to: u64, reason: String },
    /// The command at this offset is one that this server cannot replay.
    Unsupported { offset: u64, reason: String },
    /// The file failed, or is of a kind that we do not read.
    Unreadable(String),
}

impl Stop {
    pub fn reason(&self) -> &str {
        match self {
            Stop::Torn { reason, .. }
            | Stop::Corrupt { reason, .. }
            | Stop::Changed { reason, .. }
            | Stop::Unsupported { reason, .. }
            | Stop::Unreadable(reason) => reason,
        }
    }
}

/// Progress is told every so many bytes.
const PROGRESS: u64 = 64 * 1024;

/// How far a replay came.
#[derive(Default, Clone, Copy, PartialEq, Debug)]
pub struct Extent {
    pub commands: u64,
    /// Bytes up to the end of the last whole unit, and of the annotation behind it, where a tail would
    /// begin.
    pub bytes: u64,
    /// Where the last annotation of ours ends that was found true.
    pub covered: u64,
}

/// So many records are read before they are replayed, but no more once they have this many bytes.
const AHEAD: usize = crate::types::table::WARM;
const AHEAD_BYTES: u64 = 64 * 1024;

/// Replays the file at `path`, and calls `progress` from time to time with the number of bytes
/// done. Returns the bytes behind the last annotation; the extent is told also when the replay stops early.
///
/// Nobody writes any more to one that is `sealed`: it is not the last of the log, or a newer one is in use.
pub fn replay(
    path: &Path,
    sealed: bool,
    replay: &mut Replay,
    progress: &mut dyn FnMut(u64),
) -> (Extent, Result<Stretch, Stop>) {
    let mut extent = Extent::default();
    let result = replay_into(path, replay, progress, &mut extent);
    let result = match result {
        Ok(open) if sealed => expect_seal(path, &extent, open),
        result => result,
    };
    let result = result.map_err(|stop| was_whole(path, &extent, &stop).unwrap_or(stop));
    (extent, result)
}

fn replay_into(
    path: &Path,
    run: &mut Replay,
    progress: &mut dyn FnMut(u64),
    extent: &mut Extent,
) -> Result<Stretch, Stop> {
    let io = |error: io::Error| Stop::Unreadable(error.to_string());
    let file = disk::open(path, Opening::Read).map_err(io)?;
    let mut reader = Counted::new(file);
    let begin = reader.fill_buf().map_err(io)?;
    // Valkey 9 writes its own name.
    if begin.starts_with(b"REDIS") || begin.starts_with(b"VALKEY") {
        let reason = "it is an RDB file, which this server does not read: on the Redis server, \
                      run `CONFIG SET aof-use-rdb-preamble no` and then `BGREWRITEAOF`";
        return Err(Stop::Unreadable(reason.into()));
    }
    // Each file begins in database 0, and outside of a transaction. There is a database 0.
    let _ = run_command(&[b"SELECT", b"0"], run);
    let mut ahead = Ahead::default();
    let mut next_progress = 0;
    loop {
        let end = ahead.read(&mut reader);
        extent.covered = reader.covered;
        ahead.replay(run, extent)?;
        extent.bytes = extent.bytes.max(extent.covered);
        let (offset, error) = match end {
            Ok(true) => {
                if reader.offset >= next_progress {
                    progress(reader.offset);
                    next_progress = reader.offset + PROGRESS;
                }
                continue;
            }
            Ok(false) if !ahead.in_multi => return Ok(reader.open()),
            Ok(false) => (ahead.reached, None),
            Err(Broken::Record(error)) => (ahead.reached, Some(error)),
            Err(Broken::Stretch(stop)) => return Err(stop),
        };
        // What is broken inside MULTI takes the transaction with it.
        if ahead.in_multi {
            let _ = run_command(&[b"DISCARD"], run);
        }
        return Err(stop_at(extent.bytes, offset, error));
    }
}

/// Replays a command that is in no file.
fn run_command(command: &[&[u8]], run: &mut Replay) -> Result<(), (usize, String)> {
    let mut args = Args::default();
    command.iter().for_each(|arg| args.push(arg));
    run(std::slice::from_mut(&mut args))
}

/// Records that have been read, to be replayed together. The places are used again and again.
#[derive(Default)]
struct Ahead {
    records: Vec<Args>,
    /// Of the records that were read last.
    places: Vec<Place>,
    /// Whether a transaction is open where the reading goes on.
    in_multi: bool,
    /// Where the reading has begun last: where the record is that cannot be read.
    reached: u64,
}

/// Where a record is in the file.
struct Place {
    start: u64,
    end: u64,
    /// Whether a transaction is open behind it.
    in_multi: bool,
}

impl Ahead {
    /// Reads the next records. False at the end of the file, an error if one cannot be read; either
    /// way those that were read before are there.
    fn read(&mut self, reader: &mut Counted<impl Read>) -> Result<bool, Broken> {
        let more = self.read_some(reader);
        // Records of an earlier round may hold large arguments.
        self.records.truncate(self.places.len());
        more
    }

    fn read_some(&mut self, reader: &mut Counted<impl Read>) -> Result<bool, Broken> {
        self.places.clear();
        let end = reader.offset + AHEAD_BYTES;
        while self.places.len() < AHEAD && reader.offset < end {
            let (start, index) = (reader.offset, self.places.len());
            if index == self.records.len() {
                self.records.push(Args::default());
            }
            self.reached = start;
            while reader.fill_buf()?.first() == Some(&b'#') {
                reader.compare_annotation(self.in_multi)?;
                self.reached = reader.offset;
            }
            let args = &mut self.records[index];
            if !read_record(reader, args)? {
                return Ok(false);
            }
            if args.len() == 1 {
                let is = |name: &[u8]| args[0].eq_ignore_ascii_case(name);
                if is(b"multi") {
                    self.in_multi = true;
                } else if is(b"exec") || is(b"discard") {
                    self.in_multi = false;
                }
            }
            self.places.push(Place { start, end: reader.offset, in_multi: self.in_multi });
        }
        Ok(true)
    }

    /// Replays what was read, and adds to `extent` how far that came.
    fn replay(&mut self, run: &mut Replay, extent: &mut Extent) -> Result<(), Stop> {
        let replayed = run(&mut self.records);
        let done = match &replayed {
            Ok(()) => &self.places[..],
            Err((index, _)) => &self.places[..*index],
        };
        extent.commands += done.len() as u64;
        if let Some(whole) = done.iter().rfind(|place| !place.in_multi) {
            extent.bytes = whole.end;
        }
        replayed.map_err(|(index, reason)| Stop::Unsupported {
            offset: self.places[index].start,
            reason,
        })
    }
}

/// Why no more records can be read.
enum Broken {
    Record(Error),
    Stretch(Stop),
}

impl From<Error> for Broken {
    fn from(error: Error) -> Broken {
        Broken::Record(error)
    }
}

impl From<io::Error> for Broken {
    fn from(error: io::Error) -> Broken {
        Broken::Record(error.into())
    }
}

/// The unit that began at `offset` has something at `record` that ends it too early: nothing at
/// all, if there is no error.
fn stop_at(offset: u64, record: u64, error: Option<Error>) -> Stop {
    let torn = |reason| Stop::Torn { offset, record, reason };
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
pub(super) fn read_record(reader: &mut impl BufRead, args: &mut Args) -> Result<bool, Error> {
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
                return Err(Error::Protocol(format!("expected '*', found '{found}'").into()));
            }
        }
    }
}

/// A log that holds a command of another server may be long, and have no annotation.
const LOOK_FOR_ANNOTATION: u64 = 64 * 1024 * 1024;

/// A record that cannot be read or replayed was damaged if an annotation after it covers everything since the
/// last one, and is not true.
fn was_whole(path: &Path, extent: &Extent, stop: &Stop) -> Option<Stop> {
    let (behind, most) = match stop {
        Stop::Torn { record, .. } | Stop::Corrupt { record, .. } => (*record, u64::MAX),
        Stop::Unsupported { offset, .. } => (*offset, LOOK_FOR_ANNOTATION),
        Stop::Changed { .. } | Stop::Unreadable(_) => return None,
    };
    changed(path, extent, behind, most).ok()?
}

/// The bytes since the last annotation, if the next one from `behind` on is about them and is not true.
/// `most` bytes are looked at.
fn changed(path: &Path, extent: &Extent, behind: u64, most: u64) -> io::Result<Option<Stop>> {
    let from = extent.covered;
    let next = checksum::next_claim(path, from, behind, most)?;
    Ok(next.and_then(|(written, found)| {
        let to = from + found.length;
        let reason = written.difference(&found)?;
        Some(Stop::Changed { from, to, reason })
    }))
}

/// A sealed file whose end no annotation covers was written to by another server, or without
/// annotations; or a damaged length makes its last value reach over them, to the end. Then the first of
/// them stands where it was, and is not true. (A value may end with what only looks like one.)
fn expect_seal(path: &Path, extent: &Extent, open: Stretch) -> Result<Stretch, Stop> {
    let io = |error: io::Error| Stop::Unreadable(error.to_string());
    if open.length == 0 || !checksum::ends_with_annotation(path).map_err(io)? {
        return Ok(open);
    }
    match changed(path, extent, extent.covered, u64::MAX).map_err(io)? {
        Some(stop) => Err(stop),
        None => Ok(open),
    }
}

/// A reader that knows how many bytes were taken from it, and the digest of those that no
/// annotation has covered so far.
struct Counted<R> {
    inner: BufReader<R>,
    offset: u64,
    /// Where the last annotation ended that was found true.
    covered: u64,
    /// From there on, up to `digested`.
    stretch: Stretch,
    /// What `inner` has in its buffer, and had before some was taken: to have the digest of much at once.
    chunk: Vec<u8>,
    /// How much of that is in the stretch.
    digested: usize,
}

impl<R: Read> Counted<R> {
    fn new(inner: R) -> Counted<R> {
        Counted {
            inner: BufReader::with_capacity(64 * 1024, inner),
            offset: 0,
            covered: 0,
            stretch: Stretch::default(),
            chunk: Vec::new(),
            digested: 0,
        }
    }

    /// The stretch from the last annotation to what was taken last.
    fn open(&mut self) -> Stretch {
        let taken = self.chunk.len() - self.inner.buffer().len();
        self.stretch.add(&self.chunk[self.digested..taken]);
        self.digested = taken;
        self.stretch
    }

    /// Takes an annotation, which is what comes next. If it is ours, it must be true.
    fn compare_annotation(&mut self, in_multi: bool) -> Result<(), Broken> {
        let (found, at) = (Claim::of(&self.open()), self.offset);
        let mut line = Vec::new();
        self.read_until(b'\n', &mut line)?;
        if line.last() != Some(&b'\n') {
            return Err(Error::Cut.into());
        }
        let reason = match checksum::read_line(&line) {
            Line::Other => return Ok(()),
            // To cut the transaction would be to cut into what it covers.
            Line::Ours(_) if in_multi => {
                "an annotation stands inside MULTI, where we write none".into()
            }
            Line::Ours(written) => match written.difference(&found) {
                Some(reason) => reason,
                None => {
                    self.open();
                    self.stretch = Stretch::default();
                    self.covered = self.offset;
                    return Ok(());
                }
            },
            Line::Damaged => "the annotation behind them is damaged".into(),
        };
        let from = self.covered;
        Err(Broken::Stretch(Stop::Changed { from, to: at, reason }))
    }
}

impl<R: Read> Read for Counted<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        // A large value passes the buffer by.
        if self.inner.buffer().is_empty() && buffer.len() >= self.inner.capacity() {
            self.open();
            let count = self.inner.read(buffer)?;
            self.stretch.add(&buffer[..count]);
            self.offset += count as u64;
            return Ok(count);
        }
        let count = self.fill_buf()?.read(buffer)?;
        self.consume(count);
        Ok(count)
    }
}

impl<R: Read> BufRead for Counted<R> {
    fn fill_buf(&mut self) -> io::Result<&[u8]> {
        if self.inner.buffer().is_empty() {
            self.open();
            let bytes = self.inner.fill_buf()?;
            self.chunk.clear();
            self.chunk.extend_from_slice(bytes);
            self.digested = 0;
        }
        Ok(self.inner.buffer())
    }

    fn consume(&mut self, count: usize) {
        self.inner.consume(count);
        self.offset += count as u64;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A place that held a large argument is not kept for a record that may never come.
    #[test]
    fn no_more_places_are_kept_than_were_read_last() {
        let small = b"*1\r\n$4\r\nPING\r\n".repeat(AHEAD);
        let large = [b"*1\r\n$100000\r\n", &[b'x'; 100_000][..], b"\r\n"].concat();
        let log = [&small[..], &large, &large].concat();
        let mut reader = Counted::new(&log[..]);
        let mut ahead = Ahead::default();
        for expected in [AHEAD, 1, 1, 0] {
            let more = ahead.read(&mut reader);
            assert!(matches!(more, Ok(more) if more == (expected > 0)));
            assert_eq!(ahead.places.len(), expected);
            assert_eq!(ahead.records.len(), expected);
        }
    }
}
