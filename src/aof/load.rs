//! Replay: reading the log back.
//!
//! The file format is the wire format, so the parser is the one that reads from clients. The caller passes a
//! function that runs the commands.
//!
//! Up to [`AHEAD`] records are read and then replayed together, so that the replay can look ahead as a
//! client's batch does (call/ahead.rs). Loading spends most of its time waiting for memory.
//!
//! If a file cannot be read to its end, the replay stops and says where and why ([`Stop`]). aof/repair.rs
//! judges whether this is a torn tail, which is cut, or damage. Each annotation is compared with the bytes
//! before it (aof/checksum.rs). All from a MULTI to its EXEC is one *unit*: without the EXEC nothing of it
//! is replayed.
//!
//! **How Redis does it**: aof.c, `loadSingleAppendOnlyFile`, one command at a time with the client's
//! parser. It skips annotations and does not read them.

use super::checksum::{self, Claim, Line, Stretch};
use super::disk::{self, File, Opening};
use crate::rdb::{self, Found};
use crate::resp::{self, Args, Error};
use std::io::{self, BufRead, Read};
use std::ops::Range;
use std::path::Path;

/// Replays a part of a file. The error says which record cannot be replayed, or at which offset a snapshot cannot be
/// read, and why. The records before it have been replayed.
pub type Replay<'a> = dyn FnMut(Part) -> Result<(), (usize, String)> + 'a;

/// What is to be replayed next.
pub enum Part<'a> {
    /// Some commands, in their order.
    Records(&'a mut [Args]),
    /// A snapshot, with which the base of a Redis server begins.
    Snapshot {
        from: &'a mut dyn BufRead,
        progress: &'a mut dyn FnMut(&Found),
        /// Is set to the number of keys.
        keys: &'a mut u64,
    },
}

/// Why a file did not replay to its end.
#[derive(Debug, PartialEq)]
pub struct Stop {
    pub why: Why,
    /// Where the unit begins that cannot be read or replayed, or the stretch that was changed.
    pub offset: u64,
    pub reason: String,
}

#[derive(Debug, PartialEq, Clone, Copy)]
pub enum Why {
    /// The record at `record` cannot be read: the file ends inside it (`ends_early`), or it is no record.
    Broken { record: u64, ends_early: bool },
    /// The bytes up to here are not those that were written: the annotation behind them says so.
    Changed { to: u64 },
    /// This server cannot replay the command, or read the snapshot.
    Unsupported,
    /// The operating system cannot read the file, or it is of a kind that we do not read.
    Unreadable,
}

impl Stop {
    /// Where in the file, in words that follow its path.
    pub fn place(&self) -> String {
        let offset = self.offset;
        match self.why {
            Why::Changed { to } => format!("between offset {offset} and {to}"),
            Why::Unreadable => "cannot be read".into(),
            _ => format!("at offset {offset}"),
        }
    }
}

impl Stop {
    /// In one line.
    pub fn of(&self, path: &Path) -> String {
        format!("{} {}: {}", path.display(), self.place(), self.reason)
    }
}

impl From<io::Error> for Stop {
    fn from(error: io::Error) -> Stop {
        Stop { why: Why::Unreadable, offset: 0, reason: error.to_string() }
    }
}

/// `progress` is called each time about this many bytes were replayed.
const PROGRESS: u64 = 64 * 1024;

/// How far a replay came.
#[derive(Default, Clone, Copy, PartialEq, Debug)]
pub struct Extent {
    pub commands: u64,
    /// The end of the last whole unit, and of the annotation behind it.
    pub bytes: u64,
    /// The end of the last annotation that was true.
    pub covered: u64,
}

/// Records that are read before they are replayed. After [`AHEAD_BYTES`] no more are read.
const AHEAD: usize = crate::types::table::WARM;
const AHEAD_BYTES: u64 = 64 * 1024;

/// Replays the file at `path`. Calls `progress` from time to time with the number of bytes done. Returns how
/// far it came, and the stretch behind the last annotation, or why it stopped.
///
/// Nobody writes to a `sealed` file any more: it is not the last one of the log, or a newer one is in use.
pub fn replay(
    path: &Path,
    sealed: bool,
    replay: &mut Replay,
    progress: &mut dyn FnMut(u64),
) -> (Extent, Result<Stretch, Stop>) {
    let mut extent = Extent::default();
    let file = disk::open(path, Opening::Read).map_err(Stop::from);
    let result = file.and_then(|file| replay_from(file, replay, progress, &mut extent));
    match changed(path, sealed, extent.covered, &result) {
        Ok(None) => (extent, result),
        Ok(Some(stop)) => (extent, Err(stop)),
        Err(error) => (extent, Err(error.into())),
    }
}

/// Replays the first bytes of a file that is open. Others may write to it, or may have deleted it. A unit must end there.
pub fn replay_opened(
    file: File,
    length: u64,
    run: &mut Replay,
    progress: &mut dyn FnMut(u64),
) -> Result<(), Stop> {
    replay_from(file.take(length), run, progress, &mut Extent::default()).map(drop)
}

fn replay_from(
    file: impl Read,
    run: &mut Replay,
    progress: &mut dyn FnMut(u64),
    extent: &mut Extent,
) -> Result<Stretch, Stop> {
    let mut reader = Counted::new(file);
    let mut ahead = Ahead::default();
    if rdb::is_snapshot(reader.fill_buf()?) {
        let keys = &mut extent.commands;
        let progress = &mut |found: &Found| progress(found.bytes);
        let read = run(Part::Snapshot { from: &mut reader, progress, keys });
        read.map_err(|(offset, reason)| Stop {
            why: Why::Unsupported,
            offset: offset as u64,
            reason,
        })?;
        extent.bytes = reader.offset;
        ahead.whole = reader.offset;
    }
    // Each file begins in database 0, and outside of a transaction. There is a database 0.
    let _ = run_command(&[b"SELECT", b"0"], run);
    let mut next_progress = 0;
    loop {
        let more = ahead.read(&mut reader);
        extent.covered = reader.covered;
        ahead.replay(run, extent)?;
        if more.is_err() && ahead.in_multi {
            // What is broken inside MULTI makes the whole unit void.
            let _ = run_command(&[b"DISCARD"], run);
        }
        if !more? {
            return Ok(reader.open());
        }
        if reader.offset >= next_progress {
            progress(reader.offset);
            next_progress = reader.offset + PROGRESS;
        }
    }
}

/// Replays a command that stands in no file.
fn run_command(command: &[&[u8]], run: &mut Replay) -> Result<(), (usize, String)> {
    let mut args = Args::default();
    command.iter().for_each(|arg| args.push(arg));
    run(Part::Records(std::slice::from_mut(&mut args)))
}

/// Records that have been read and are to be replayed together. Their memory is used again.
#[derive(Default)]
struct Ahead {
    records: Vec<Args>,
    /// Where each record begins.
    starts: Vec<u64>,
    /// Whether a MULTI is open where the reading goes on.
    in_multi: bool,
    /// The end of the last whole unit, and of the annotation behind it. A tail begins here.
    whole: u64,
}

impl Ahead {
    /// Reads the next records. False at the end of the file, an error if one cannot be read. In both cases
    /// those before it are there.
    fn read(&mut self, reader: &mut Counted<impl Read>) -> Result<bool, Stop> {
        let more = self.read_some(reader);
        // Records of an earlier round may hold large arguments.
        self.records.truncate(self.starts.len());
        more
    }

    fn read_some(&mut self, reader: &mut Counted<impl Read>) -> Result<bool, Stop> {
        self.starts.clear();
        let end = reader.offset + AHEAD_BYTES;
        while self.starts.len() < AHEAD && reader.offset < end {
            let (start, index) = (reader.offset, self.starts.len());
            if index == self.records.len() {
                self.records.push(Args::default());
            }
            let args = &mut self.records[index];
            let mut record = start;
            let more = loop {
                if reader.fill_buf()?.first() != Some(&b'#') {
                    break read_record(reader, args);
                }
                match reader.compare_annotation(self.in_multi) {
                    Ok(None) => record = reader.offset,
                    Ok(Some(stop)) => return Err(stop),
                    Err(error) => break Err(error),
                }
                self.whole = self.whole.max(reader.covered);
            };
            match more {
                Ok(true) => {}
                Ok(false) if !self.in_multi => return Ok(false),
                more => return Err(self.broken(record, more)),
            }
            if args.len() == 1 {
                let is = |name: &[u8]| args[0].eq_ignore_ascii_case(name);
                self.in_multi = is(b"multi") || self.in_multi && !is(b"exec") && !is(b"discard");
            }
            if !self.in_multi {
                self.whole = reader.offset;
            }
            self.starts.push(start);
        }
        Ok(true)
    }

    /// Why the unit is broken that has this record: it cannot be read, or it is MULTI and has no EXEC.
    fn broken(&self, record: u64, more: Result<bool, Error>) -> Stop {
        let (ends_early, reason) = match more {
            Ok(_) => (true, "the file ends inside MULTI".into()),
            Err(Error::Cut) => (true, format!("the record at {record} is cut off")),
            Err(Error::Protocol(reason)) => {
                (false, format!("at {record}: {}", String::from_utf8_lossy(&reason)))
            }
            Err(Error::Io(error)) => return error.into(),
        };
        Stop { why: Why::Broken { record, ends_early }, offset: self.whole, reason }
    }

    /// Replays what was read, and adds to `extent` how far it came.
    fn replay(&mut self, run: &mut Replay, extent: &mut Extent) -> Result<(), Stop> {
        let result = run(Part::Records(&mut self.records));
        let done = result.as_ref().map_or_else(|(index, _)| *index, |()| self.starts.len());
        extent.commands += done as u64;
        result.map_err(|(index, reason)| {
            let offset = self.starts[index];
            Stop { why: Why::Unsupported, offset, reason }
        })?;
        extent.bytes = self.whole;
        Ok(())
    }
}

/// Reads one record. This is stricter than the wire: arrays only, no inline commands, and nothing else
/// between the records but annotations (`#TS:…`), which are skipped.
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

/// Behind a command that this server does not have, an annotation is searched for in this many bytes. A log
/// of another server may be long and have none.
const SEARCHED_BEHIND_UNKNOWN: u64 = 64 * 1024 * 1024;

/// A record that cannot be read or replayed is damaged if an annotation behind it covers everything since
/// the last one, which ended at `from`, and is not true.
///
/// What if no annotation covers the end of a sealed file? Another server has written there, or annotations
/// were off. Or a damaged length makes the last value reach over the annotations, to the end of the file.
/// Then the first of them stands where it was, and is not true. (A value may end with bytes that have the
/// form of an annotation.)
fn changed(
    path: &Path,
    sealed: bool,
    from: u64,
    result: &Result<Stretch, Stop>,
) -> io::Result<Option<Stop>> {
    let (behind, most) = match result {
        Ok(open) if sealed && open.length > 0 && checksum::ends_with_annotation(path)? => {
            (from, u64::MAX)
        }
        Err(Stop { why: Why::Broken { record, .. }, .. }) => (*record, u64::MAX),
        Err(Stop { why: Why::Unsupported, offset, .. }) => (*offset, SEARCHED_BEHIND_UNKNOWN),
        _ => return Ok(None),
    };
    let next = checksum::next_claim(path, from, behind, most)?;
    Ok(next.and_then(|(written, found)| {
        let reason = written.difference(&found)?;
        Some(Stop { why: Why::Changed { to: from + found.length }, offset: from, reason })
    }))
}

/// A reader that counts the bytes that were taken from it, and digests those that no annotation covers.
struct Counted<R> {
    inner: R,
    buffer: Box<[u8]>,
    /// Of the buffer, what was read and not taken yet.
    unread: Range<usize>,
    /// Bytes of the buffer that `stretch` has. To digest much at once is faster.
    digested: usize,
    /// Bytes that were taken.
    offset: u64,
    /// The end of the last annotation that was true.
    covered: u64,
    /// The bytes from `covered` on, of the buffer up to `digested`.
    stretch: Stretch,
}

impl<R: Read> Counted<R> {
    fn new(inner: R) -> Counted<R> {
        Counted {
            inner,
            buffer: vec![0; 64 * 1024].into(),
            unread: 0..0,
            digested: 0,
            offset: 0,
            covered: 0,
            stretch: Stretch::default(),
        }
    }

    /// The stretch from the last annotation to the last byte that was taken.
    fn open(&mut self) -> Stretch {
        self.stretch.add(&self.buffer[self.digested..self.unread.start]);
        self.digested = self.unread.start;
        self.stretch
    }

    /// Takes the annotation that comes next. If it is ours and not true, it returns why the replay stops.
    fn compare_annotation(&mut self, in_multi: bool) -> Result<Option<Stop>, Error> {
        let (found, to) = (Claim::of(&self.open()), self.offset);
        let mut line = Vec::new();
        self.read_until(b'\n', &mut line)?;
        if line.last() != Some(&b'\n') {
            return Err(Error::Cut);
        }
        let reason = match checksum::read_line(&line) {
            Line::Other => return Ok(None),
            Line::Damaged => Some("the annotation behind them is damaged".into()),
            // A torn MULTI would be cut, and with it bytes that this annotation covers.
            Line::Ours(_) if in_multi => {
                Some("an annotation stands inside MULTI, where we write none".into())
            }
            Line::Ours(written) => written.difference(&found),
        };
        let offset = self.covered;
        if reason.is_none() {
            self.open();
            self.stretch = Stretch::default();
            self.covered = self.offset;
        }
        Ok(reason.map(|reason| Stop { why: Why::Changed { to }, offset, reason }))
    }
}

impl<R: Read> Read for Counted<R> {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        // A large value passes the buffer by.
        if self.unread.is_empty() && into.len() >= self.buffer.len() {
            self.open();
            let count = self.inner.read(into)?;
            self.stretch.add(&into[..count]);
            self.offset += count as u64;
            return Ok(count);
        }
        let count = self.fill_buf()?.read(into)?;
        self.consume(count);
        Ok(count)
    }
}

impl<R: Read> BufRead for Counted<R> {
    fn fill_buf(&mut self) -> io::Result<&[u8]> {
        if self.unread.is_empty() {
            self.open();
            self.unread = 0..self.inner.read(&mut self.buffer)?;
            self.digested = 0;
        }
        Ok(&self.buffer[self.unread.clone()])
    }

    fn consume(&mut self, count: usize) {
        self.unread.start += count;
        self.offset += count as u64;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The memory of a large argument is not kept for a record that may never come.
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
            assert_eq!(ahead.starts.len(), expected);
            assert_eq!(ahead.records.len(), expected);
        }
    }
}
