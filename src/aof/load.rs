//! Replay: reading the log back, and telling a torn tail from a broken file.
//!
//! The file format is the wire format, so the parser is the one that reads from clients. What
//! replaying a command means is the caller's business: a function that it passes.
//!
//! Records are read some sixty at a time and then replayed together, so that the replay can look
//! ahead as a batch of a client does (batch.rs). Most of loading is waiting for memory.
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
//! A MULTI whose EXEC is missing is torn as a whole, from the MULTI on. What an annotation vouches for
//! was whole when it was written, and so is never a tail (aof/checksum.rs).
//!
//! **How Redis does it**: aof.c, `loadSingleAppendOnlyFile`. It cuts whatever ends too early, even
//! when one flipped bit in a length hides thousands of good records (we refuse), leaves an open
//! MULTI in the file (we cut it), and refuses zeros (7.0; 8.4 can cut them).

use super::checksum::{self, Claim, Line, Stretch};
use super::disk::{self, Opening};
use crate::resp::{self, Args, Error};
use std::collections::HashSet;
use std::io::{self, BufRead, BufReader, Read, Seek, SeekFrom};
use std::path::Path;

/// What replays some commands in their order. The error says which of them cannot be, and why; those
/// before it have been.
pub type Replay<'a> = dyn FnMut(&mut [Args]) -> Result<(), (usize, String)> + 'a;

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
    /// Every record can be read, but these bytes are not those that were written: their annotation says
    /// so (aof/checksum.rs).
    Changed { from: u64, to: u64, reason: String },
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
    /// Bytes up to the end of the last whole unit, and of the annotation behind it, where a tail would
    /// begin.
    pub bytes: u64,
    /// Where the last annotation of ours ends that was found true.
    pub covered: u64,
}

/// So many records are read before they are replayed, but no more once they have this many bytes.
const AHEAD: usize = crate::table::WARM;
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
    let _ = run_words(&[b"SELECT", b"0"], run);
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
            let _ = run_words(&[b"DISCARD"], run);
        }
        return Err(stop_at(extent.bytes, offset, error));
    }
}

/// Replays a command that is in no file.
fn run_words(words: &[&[u8]], run: &mut Replay) -> Result<(), (usize, String)> {
    let mut args = Args::default();
    words.iter().for_each(|word| args.push(word));
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
        // What is left of the time before may hold large words.
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
            self.places.push(Place {
                start,
                end: reader.offset,
                in_multi: self.in_multi,
            });
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
        Stop::Unsupported { reason, .. }
        | Stop::Changed { reason, .. }
        | Stop::Unreadable(reason) => return Err(reason.clone()),
    };
    let tail = read_from(path, offset).map_err(|error| error.to_string())?;
    let zeros = tail.iter().rev().take_while(|&&byte| byte == 0).count();
    let written = &tail[..tail.len() - zeros];
    let garbage = matches!(stop, Stop::Corrupt { .. }) && !ends_too_early(written);
    if garbage && tail.len() as u64 > most_garbage {
        return Err(reason.clone());
    }
    match whole_record_in(written) {
        Err(()) => Err(format!(
            "{reason}; and what follows looks like records in too many ways to be judged. If it is no \
             loss, `--check-aof --fix` cuts it"
        )),
        Ok(Some(at)) => Err(format!(
            "{reason}; but from {} on there are whole records up to the end of the file, so this \
             is no torn tail: a length before them is damaged",
            offset + at as u64
        )),
        Ok(None) => Ok(tail),
    }
}

/// What the file holds from `offset` on.
pub fn read_from(path: &Path, offset: u64) -> io::Result<Vec<u8>> {
    let mut file = disk::open(path, Opening::Read)?;
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

/// So many bytes of any tail may be read while it is judged, over and over: about a second's work.
const MOST_READ: usize = 1 << 30;

/// A long tail may be read so many times over. One that needs more was made to.
const MOST_TIMES: usize = 64;

/// Where in the tail, behind its first broken record, a record begins from which all is whole. An
/// error if to find out takes more than [`MOST_READ`] and [`MOST_TIMES`] allow.
fn whole_record_in(tail: &[u8]) -> Result<Option<usize>, ()> {
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
    let mut may_read = MOST_READ.max(MOST_TIMES * tail.len());
    for at in (start..tail.len()).filter(begins) {
        let mut rest = &tail[at..];
        while in_vain.insert(tail.len() - rest.len()) {
            let before = rest.len();
            let more = read_record(&mut rest, &mut args);
            may_read = may_read.checked_sub(before - rest.len()).ok_or(())?;
            match more {
                Ok(true) => {}
                Ok(false) => return Ok(Some(at)),
                Err(_) => break,
            }
        }
    }
    Ok(None)
}

/// A log that holds a command of another server may be long, and have no annotation.
const LOOK_FOR_ANNOTATION: u64 = 64 * 1024 * 1024;

/// A record that cannot be read, or not be replayed, was damaged if an annotation behind it vouches
/// for everything from the last one on, and is not true.
fn was_whole(path: &Path, extent: &Extent, stop: &Stop) -> Option<Stop> {
    let (behind, most) = match stop {
        Stop::Torn { record, .. } | Stop::Corrupt { record, .. } => (*record, u64::MAX),
        Stop::Unsupported { offset, .. } => (*offset, LOOK_FOR_ANNOTATION),
        Stop::Changed { .. } | Stop::Unreadable(_) => return None,
    };
    let from = extent.covered;
    let (written, found) = checksum::next_claim(path, from, behind, most).ok()??;
    let reason = differ(&written, &found)?;
    let to = from + found.length;
    Some(Stop::Changed { from, to, reason })
}

/// In which words an annotation says that what was written is not what is there.
fn differ(written: &Claim, found: &Claim) -> Option<String> {
    if written.length != found.length {
        Some(format!(
            "they are {} bytes, and the annotation behind them is about {}",
            found.length, written.length
        ))
    } else if written.digest != found.digest {
        Some(format!(
            "their digest is {:016x}, and when they were written it was {:016x}",
            found.digest, written.digest
        ))
    } else {
        None
    }
}

/// A sealed file whose end no annotation covers was written to by another server, or without
/// annotations; or a damaged length makes its last value reach over them, to the end. Then the first of
/// them stands where it was, and is not true. (A value may end with what only looks like one.)
fn expect_seal(path: &Path, extent: &Extent, open: Stretch) -> Result<Stretch, Stop> {
    let io = |error: io::Error| Stop::Unreadable(error.to_string());
    if open.length == 0 || !checksum::ends_with_annotation(path).map_err(io)? {
        return Ok(open);
    }
    let from = extent.covered;
    let claim = checksum::next_claim(path, from, from, u64::MAX).map_err(io)?;
    match claim.and_then(|(written, found)| Some((differ(&written, &found)?, found.length))) {
        Some((reason, length)) => {
            let to = from + length;
            Err(Stop::Changed { from, to, reason })
        }
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
            Line::Ours(written) => match differ(&written, &found) {
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
        Err(Broken::Stretch(Stop::Changed {
            from,
            to: at,
            reason,
        }))
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

    /// A value that some client has sent, and in the middle of which the process was killed. Each
    /// of these lengths seems to reach to the end.
    #[test]
    fn a_tail_that_could_be_read_in_too_many_ways_is_not_judged() {
        let tail = |count: usize| {
            let word = format!("\n*1\r\n${}\r\n", 10 * count);
            [b"*1\r\n$536870912\r\n", word.repeat(count).as_bytes()].concat()
        };
        assert_eq!(whole_record_in(&tail(10)), Ok(None));
        assert_eq!(whole_record_in(&tail(100_000)), Err(()));
    }

    /// A place that held a large word is not kept for a record that may never come.
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
