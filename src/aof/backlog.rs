//! The backlog: the log's files, as the stream of changes that replicas read.
//!
//! ```text
//! position     0                 4100                          9000  9070
//! stream       │ SET a … DEL b … │ SET c …  PING  SET d …      │ SELECT 0  SET e …
//! files        └── incr 1 ───────│──────────#CRC──────────#CRC─┴── incr 2 ───────── writers append here
//! a snapshot is of this moment ──┘             ▲                     ▲
//!                                       a slow replica         a quick replica
//! ```
//!
//! A position (aof.rs) counts the bytes of records, and annotations are no records. So a position is also a place in
//! the stream, which is Redis's replication offset: a replica gets what the files hold, without the
//! annotations. It is sent what is written, and nothing else. So it never has what was not acknowledged, and no writer
//! waits for it: to wake it costs a writer one look at a number.
//!
//! **PING and GETACK** are in the stream of all replicas, because they count in the offsets. If two replicas had
//! different bytes at the same offset, neither could go on with the other as its primary. So they are
//! appended to the log like records ([`Aof::append_to_stream`]). They change nothing when the log is replayed, here
//! or by Redis. (A newline would not do: a replica counts it too.)
//!
//! **A snapshot** for a new replica is made of the files up to a moment ([`Aof::mark`]), as a rewrite makes
//! its base. Nothing is sealed for that, and no file begins.
//!
//! **Old files.** A rewrite deletes the files that it has replaced. The backlog keeps them open while
//! a replica may still read them, and a file that is open keeps its bytes, without a name, until it is closed.
//! The end of a file is kept for replicas that come back: `repl-backlog-size` says how much; and for `repl-timeout` all that
//! one that has left had not been sent.
//!
//! **The id** names the history of changes (backlog/names.rs). When a rewrite from memory has replaced a log that had
//! holes, or the log was switched off, the files no longer lead from one state to the next. Then a new history begins, with
//! a new id, and each replica gets a new snapshot.
//!
//! **Places.** A replica that comes back names an offset. Where that is in the file is known for one place in a megabyte,
//! and from there on the file is read.
//!
//! **How Redis does it**: replication.c, a list of buffers that all replicas share. A replica that falls behind takes
//! memory there. Here it takes space on the disk.

mod names;
mod saved;

use super::checksum::Annotate;
use super::disk::{self, File, Opening};
use super::manifest::Manifest;
use super::{Aof, Position, Target};
use crate::config::Fsync;
use crate::propagate::Stream;
use crate::resp::write_command;
pub use names::{Counting, Legacy, Name};
use std::collections::VecDeque;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering, fence};
use std::sync::{Arc, Condvar, Mutex, MutexGuard};
use std::time::Duration;

#[derive(Default)]
pub struct Backlog {
    history: Mutex<History>,
    /// Goes up when a history ends, before `written` tells of the next one.
    histories: AtomicU64,
    /// When the stream has come this far, a place is noted.
    next_place: AtomicU64,
    /// Commands that change nothing, if nothing follows them: where they begin and end.
    idle: Mutex<(Position, Position)>,
    /// How many threads sleep until more is written.
    asleep: AtomicUsize,
    grown: Condvar,
}

struct History {
    /// The first one is the present one, which new replicas are told.
    names: Vec<Name>,
    /// What was before the place of the first name, in its count: the end of the stream of a primary that we have followed.
    inherited: Vec<u8>,
    /// Oldest first; nothing is missing between them. The last one is written to. None before the first replica comes.
    segments: VecDeque<Arc<Segment>>,
    /// Where some positions are in the segments.
    places: VecDeque<Place>,
}

/// A position, its place in the file of its segment, and what comes next there.
#[derive(Clone, Copy)]
struct Place {
    position: Position,
    at: u64,
    frame: Frame,
}

/// A file of the log, from the place on where it is a part of the stream.
struct Segment {
    file: File,
    name: String,
    /// Where that is, in the stream and in the file.
    begin: Position,
    skipped: u64,
    /// Where the next segment begins; [`Position::MAX`] while there is none.
    end: AtomicU64,
}

/// The files that make the state of a moment, each with its path and how much of it is to be replayed.
pub type Mark = Vec<(PathBuf, File, u64)>;

/// One reader of the stream.
pub struct Follower {
    /// Of everything before this, the reader has read all.
    pub position: Position,
    /// How the reader calls the history.
    pub name: Name,
    /// What it is sent first. It is in no file.
    inherited: Vec<u8>,
    history: u64,
    segment: Arc<Segment>,
    /// The place in the file.
    at: u64,
    frame: Frame,
    chunk: Vec<u8>,
}

/// What comes next in the file.
#[derive(Clone, Copy, PartialEq, Debug)]
enum Frame {
    /// A record or an annotation.
    Between,
    /// The next of so many arguments.
    Args(u64),
    /// So many bytes of an argument and of its line end, and so many arguments after it.
    Arg { left: u64, more: u64 },
}

/// Bytes that are read from a file at once.
const CHUNK: usize = 64 * 1024;

/// No line that we write between values is longer.
const LONGEST_LINE: usize = 64;

/// From one place that is noted to the next. In tests there are many.
const PLACE_EVERY: u64 = if cfg!(test) { 100 } else { 1024 * 1024 };

impl Default for History {
    fn default() -> History {
        let names = vec![Name::new(Counting::default())];
        let (segments, places) = (VecDeque::new(), VecDeque::new());
        History { names, inherited: Vec::new(), segments, places }
    }
}

impl Segment {
    fn new(file: File, name: &str, begin: Position, skipped: u64) -> Segment {
        let end = AtomicU64::new(Position::MAX);
        Segment { file, name: name.into(), begin, skipped, end }
    }
}

impl Backlog {
    pub fn name(&self) -> Name {
        self.history.lock().unwrap().names[0].clone()
    }

    /// The name before.
    pub fn before(&self) -> Option<Name> {
        self.history.lock().unwrap().names.get(1).cloned()
    }

    /// The first offset that can be read, if any can.
    pub fn begin(&self) -> Option<u64> {
        let history = self.history.lock().unwrap();
        let (begin, counting) = (history.segments.front()?.begin, history.names[0].counting);
        Some(counting.offset_of(begin) - history.inherited.len() as u64)
    }

    /// The file that is written to ends here, where the stream is at this position. Called for each write.
    pub(super) fn grows_to(&self, position: Position, at: u64) {
        if position >= self.next_place.load(Ordering::Relaxed) {
            self.history.lock().unwrap().note(Place { position, at, frame: Frame::Between });
            self.next_place.store(position + PLACE_EVERY, Ordering::Relaxed);
        }
        self.wake();
    }

    /// More is written, or durable.
    pub fn wake(&self) {
        // A reader counts itself first and then looks how much is written. So it sees the new end, or is seen here.
        fence(Ordering::SeqCst);
        if self.asleep.load(Ordering::Relaxed) > 0 {
            drop(self.history.lock().unwrap());
            self.grown.notify_all();
        }
    }

    /// Writers go on in the last file of this manifest, from this position. The caller holds the mutex of the file.
    pub(super) fn goes_on_in(&self, manifest: &Manifest, begin: Position) {
        let mut history = self.history.lock().unwrap();
        let Some(last) = history.segments.back().cloned() else {
            return;
        };
        match open_segment(manifest, begin, 0) {
            Ok(segment) => {
                history.segments.push_back(segment);
                last.end.store(begin, Ordering::Release);
                history.save(manifest);
            }
            // Without descriptors nobody can go on reading.
            Err(_) => self.end(&mut history, manifest),
        }
    }

    /// The files no longer lead from one state to the next.
    pub(super) fn end_history(&self, manifest: &Manifest) {
        self.end(&mut self.history.lock().unwrap(), manifest);
    }

    fn end(&self, history: &mut History, manifest: &Manifest) {
        *history = History::default();
        self.histories.fetch_add(1, Ordering::Release);
        saved::remove(manifest);
        self.grown.notify_all();
    }

    /// Closes files that end before `needed`. Nobody reads them any more.
    pub fn forget_before(&self, needed: Position) {
        let mut closed = Vec::new();
        let mut history = self.history.lock().unwrap();
        while history.segments.front().is_some_and(|s| s.end.load(Ordering::Relaxed) <= needed) {
            closed.extend(history.segments.pop_front());
        }
        if !closed.is_empty() {
            history.forget_what_cannot_be_read();
        }
        drop(history);
        // To close a large file that has no name takes long.
        drop(closed);
    }

    /// Closes all files. The history goes on; whoever comes back gets a snapshot.
    pub fn forget_all(&self) {
        let mut history = self.history.lock().unwrap();
        let closed = std::mem::take(&mut history.segments);
        history.forget_what_cannot_be_read();
        drop(history);
        drop(closed);
    }
}

impl History {
    fn note(&mut self, place: Place) {
        if !self.segments.is_empty() {
            self.places.push_back(place);
        }
    }

    fn forget_what_cannot_be_read(&mut self) {
        let begin = self.segments.front().map_or(Position::MAX, |segment| segment.begin);
        let gone = self.places.partition_point(|place| place.position < begin);
        self.places.drain(..gone);
        if begin > self.names[0].counting.from {
            self.inherited = Vec::new();
        }
    }

    /// The segment that holds this position, and the last place before it that is known there.
    fn segment_of(&self, position: Position) -> Option<(Arc<Segment>, Option<Place>)> {
        let mut segments = self.segments.iter().rev();
        let segment = segments.find(|segment| segment.begin <= position)?;
        let known = self.places.partition_point(|place| place.position <= position);
        let place = known.checked_sub(1).map(|last| self.places[last]);
        // One where the segment begins may be the end of the segment before.
        Some((segment.clone(), place.filter(|place| place.position > segment.begin)))
    }
}

impl Aof {
    /// How much of the stream replicas may have: what was acknowledged.
    pub fn sendable(&self) -> Position {
        let written = self.written.load(Ordering::Acquire);
        match self.config.appendfsync.get() {
            Fsync::Always => written.min(self.durable.load(Ordering::Acquire)),
            _ => written,
        }
    }

    /// What INFO and ROLE show as the offset. As in Redis, 0 while nobody has followed.
    pub fn shown_offset(&self) -> u64 {
        let counting = self.backlog.name().counting;
        self.backlog.begin().map_or(0, |_| counting.offset_of(self.sendable()))
    }

    /// Waits, for at most `time`, until replicas may have more than this.
    pub fn wait_for_more(&self, than: Position, time: Duration) {
        let history = self.backlog.history.lock().unwrap();
        self.backlog.asleep.fetch_add(1, Ordering::Relaxed);
        fence(Ordering::SeqCst);
        if self.sendable() <= than {
            drop(self.backlog.grown.wait_timeout(history, time).unwrap());
        }
        self.backlog.asleep.fetch_sub(1, Ordering::Relaxed);
    }

    /// Appends a command that is for replicas, and changes nothing; returns the position before it. None
    /// if the log is off or fails: it would pile up.
    pub fn append_to_stream(&self, words: &[&[u8]]) -> Option<Position> {
        let mut buffer = self.buffer.lock().unwrap();
        if !self.is_enabled() || self.failure().is_some() {
            return None;
        }
        // It applies to no database, so it needs no SELECT.
        let before = buffer.bytes.len();
        write_command(&mut buffer.bytes, words.iter().copied());
        let added = (buffer.bytes.len() - before) as u64;
        let at = self.appended.fetch_add(added, Ordering::Release);
        let mut idle = self.backlog.idle.lock().unwrap();
        *idle = (if idle.1 == at { idle.0 } else { at }, at + added);
        Some(at)
    }

    /// The position behind the last record that has changed something. What a failing disk has refused does not count:
    /// replicas are not sent it, and nobody was told that it is safe.
    pub fn last_change(&self) -> Position {
        let (begin, end) = *self.backlog.idle.lock().unwrap();
        let position = self.position();
        let change = if position == end { begin } else { position };
        match self.failure() {
            None => change,
            Some(_) => change.min(self.sendable()),
        }
    }

    /// Marks this moment; returns the stream behind it too. From here on the backlog is kept, if it was not yet.
    pub fn mark(&self) -> Result<(Mark, Follower), String> {
        let mut guard = self.target.lock().unwrap();
        let target = guard.as_mut().ok_or("the log was switched off")?;
        // The stream behind the mark must begin with a SELECT, so that of the last record is forgotten.
        let from = {
            let mut buffer = self.buffer.lock().unwrap();
            let from = self.take(target, &mut buffer);
            *buffer = Stream::default();
            from
        };
        self.write_taken(target, from, Annotate::IfMuch)?;
        let files = open_all(target)?;
        let history = self.keep_backlog_from(target)?;
        let segment = history.segments.back().expect("it was made if there was none").clone();
        let number = self.backlog.histories.load(Ordering::Acquire);
        let name = history.names[0].clone();
        let position = target.pending_end;
        let follower =
            Follower { position, at: target.length, ..Follower::new(segment, number, name) };
        Ok((files, follower))
    }

    /// From here on the backlog is kept, if it was not yet.
    pub fn keep_backlog(&self) -> Result<(), String> {
        let guard = self.target.lock().unwrap();
        self.keep_backlog_from(guard.as_ref().ok_or("the log is switched off")?).map(drop)
    }

    fn keep_backlog_from(&self, target: &Target) -> Result<MutexGuard<'_, History>, String> {
        let mut history = self.backlog.history.lock().unwrap();
        if history.segments.is_empty() {
            let written = self.written.load(Ordering::Acquire);
            let segment = open_segment(&target.manifest, written, target.length);
            let error = |error| format!("cannot read the log: {error}");
            history.segments.push_back(segment.map_err(error)?);
            history.save(&target.manifest);
        }
        Ok(history)
    }

    /// A reader that goes on at this offset of the history with this id. None if there is no such place
    /// any more, or not yet.
    pub fn follow(&self, id: &[u8], offset: u64) -> Option<Follower> {
        let end = self.sendable();
        let history = self.backlog.history.lock().unwrap();
        let (inherited, position, name) = history.find(id, offset, end)?;
        let (segment, place) = history.segment_of(position)?;
        let number = self.backlog.histories.load(Ordering::Acquire);
        drop(history);
        let mut follower = Follower { inherited, ..Follower::new(segment, number, name) };
        if let Some(Place { position, at, frame }) = place {
            (follower.position, follower.at, follower.frame) = (position, at, frame);
        }
        let mut passed = Vec::new();
        while follower.position < position {
            follower.read_to(position, &mut passed).ok()?;
            passed.clear();
        }
        Some(follower)
    }
}

/// Opens all files of the log, so that they can be read though a rewrite deletes them. The caller holds the mutex
/// of the file: a rewrite names the new files there before it deletes the old ones.
fn open_all(target: &Target) -> Result<Vec<(PathBuf, File, u64)>, String> {
    let last = last_path(&target.manifest);
    let open = |path: PathBuf| {
        let file = disk::open(&path, Opening::Read).map_err(cannot_read(&path))?;
        let length = if path == last { target.length } else { u64::MAX };
        Ok((path, file, length))
    };
    target.manifest.paths().map(open).collect()
}

/// The last file of the log, from this place on.
fn open_segment(
    manifest: &Manifest,
    begin: Position,
    skipped: u64,
) -> std::io::Result<Arc<Segment>> {
    let path = last_path(manifest);
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    let file = disk::open(&path, Opening::Read)?;
    Ok(Arc::new(Segment::new(file, &name, begin, skipped)))
}

/// The file that is written to.
fn last_path(manifest: &Manifest) -> PathBuf {
    manifest.path_of(manifest.incrs.last().expect("a log that is on has an incr file"))
}

fn cannot_read(path: &Path) -> impl Fn(std::io::Error) -> String {
    move |error| format!("cannot read {}: {error}", path.display())
}

impl Follower {
    /// Begins where the segment begins.
    fn new(segment: Arc<Segment>, history: u64, name: Name) -> Follower {
        Follower {
            position: segment.begin,
            name,
            inherited: Vec::new(),
            history,
            at: segment.skipped,
            segment,
            frame: Frame::Between,
            chunk: vec![0; CHUNK],
        }
    }

    /// Appends what comes next in the stream to `out`, and at most a chunk. Nothing is appended if nothing is there.
    /// The error says why this reader cannot go on.
    pub fn read(&mut self, aof: &Aof, out: &mut Vec<u8>) -> Result<(), String> {
        let end = aof.sendable();
        // Looked at behind `end`, which may be one of the next history.
        if self.history != aof.backlog.histories.load(Ordering::Acquire) {
            return Err("the log was written anew, so this history of changes has ended".into());
        }
        if !self.inherited.is_empty() {
            out.append(&mut self.inherited);
            return Ok(());
        }
        if self.position == end {
            return Ok(());
        }
        if self.position == self.segment.end.load(Ordering::Acquire) {
            let history = aof.backlog.history.lock().unwrap();
            let mut segments = history.segments.iter();
            let next = segments.find(|segment| segment.begin == self.position);
            // The rest of the old file may be an annotation.
            self.segment = next.ok_or("the file that comes next was closed")?.clone();
            (self.at, self.frame) = (self.segment.skipped, Frame::Between);
        }
        self.read_to(end.min(self.segment.end.load(Ordering::Acquire)), out)
    }

    /// Reads a chunk, and takes what is in it before the position `end`.
    fn read_to(&mut self, end: Position, out: &mut Vec<u8>) -> Result<(), String> {
        let mut chunk = std::mem::take(&mut self.chunk);
        let result = disk::read_at(&self.segment.file, &mut chunk, self.at)
            .map_err(|error| error.to_string())
            .and_then(|count| self.take(&chunk[..count], end, out));
        self.chunk = chunk;
        let used =
            result.map_err(|reason| format!("cannot read the log at {}: {reason}", self.at))?;
        self.at += used as u64;
        Ok(())
    }

    /// Appends the records in `chunk` to `out`; returns how many bytes of the chunk are done. A line that ends in the
    /// next chunk is left. What is behind `end` may be half written, and is not looked at.
    fn take(&mut self, chunk: &[u8], end: Position, out: &mut Vec<u8>) -> Result<usize, String> {
        // From `begin` on, all up to `done` belongs to the stream.
        let (mut begin, mut done) = (0, 0);
        while self.position < end {
            let rest = &chunk[done..];
            let line = match self.frame {
                Frame::Arg { left, more } => {
                    let count = left.min(rest.len() as u64);
                    self.frame = match left - count {
                        0 if more == 0 => Frame::Between,
                        0 => Frame::Args(more),
                        left => Frame::Arg { left, more },
                    };
                    self.position += count;
                    done += count as usize;
                    if count == 0 {
                        break;
                    }
                    continue;
                }
                _ => rest.iter().take(LONGEST_LINE).position(|byte| *byte == b'\n'),
            };
            let Some(line) = line.map(|line| &rest[..=line]) else {
                break;
            };
            if self.frame == Frame::Between && line[0] == b'#' {
                out.extend_from_slice(&chunk[begin..done]);
                done += line.len();
                begin = done;
                continue;
            }
            self.frame = self.frame.behind(line).ok_or("it holds what we have not written")?;
            self.position += line.len() as u64;
            done += line.len();
        }
        if done == 0 || self.position > end {
            return Err("it does not hold what was written".into());
        }
        out.extend_from_slice(&chunk[begin..done]);
        Ok(done)
    }
}

impl Frame {
    /// What comes behind this line of a record.
    fn behind(self, line: &[u8]) -> Option<Frame> {
        let digits = std::str::from_utf8(line.get(1..)?).ok()?.strip_suffix("\r\n")?;
        let number = digits.parse().ok()?;
        match (self, line[0]) {
            (Frame::Between, b'*') if number > 0 => Some(Frame::Args(number)),
            (Frame::Args(count), b'$') => Some(Frame::Arg { left: number + 2, more: count - 1 }),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::disk::simulated::{Call, Disk, Fate};
    use super::super::power_cuts::{Random, config, keyspace, replay_all, start_on, write};
    use super::*;
    use crate::propagate::Records;
    use crate::store::Store;
    use std::io::ErrorKind;

    /// All that the follower is sent, in chunks of this many bytes.
    fn read_all(aof: &Aof, follower: &mut Follower, chunk: usize) -> Vec<u8> {
        follower.chunk = vec![0; chunk];
        let mut out = Vec::new();
        while follower.position < aof.sendable() {
            follower.read(aof, &mut out).expect("what was written can be read");
        }
        out
    }

    fn command(words: &[&str]) -> Vec<u8> {
        let mut bytes = Vec::new();
        write_command(&mut bytes, words.iter().map(|word| word.as_bytes()));
        bytes
    }

    fn append(aof: &Aof, value: &str) {
        let mut records = Records::default();
        records.wanted = true;
        records.push(0, [&b"SET"[..], b"key", value.as_bytes()].into_iter());
        aof.append(&mut records);
    }

    #[test]
    fn a_follower_gets_the_records_of_all_files_in_any_pieces_from_any_place() {
        let disk = Disk::new();
        let (aof, _) = start_on(&config(&disk, "everysec")).expect("a start");
        write(&aof, &["SET before 1"]);
        let mut first = aof.mark().expect("a mark").1;
        let (id, begin) = (first.name.id.clone(), first.position);
        let store = Store::new(keyspace(&Default::default()));
        let mut expected = Vec::new();
        let mut places = vec![begin];
        for n in 0..60 {
            if n % 20 == 0 {
                expected.extend(command(&["SELECT", "0"]));
            }
            // The value looks like an annotation, and like a record.
            let value = format!("\r\n#CRC:0000000000000000 {n}\r\n*1\r\n").repeat(n);
            append(&aof, &value);
            assert_eq!(aof.commit(aof.position()), Ok(()));
            expected.extend(command(&["SET", "key", &value]));
            places.push(begin + expected.len() as u64);
            if n % 20 == 19 {
                assert_eq!(aof.rewrite(None, &store, &replay_all), Ok(()));
            }
        }
        assert!(read_all(&aof, &mut first, 64) == expected);
        for (n, place) in places.into_iter().enumerate() {
            let mut follower = aof.follow(id.as_bytes(), place).expect("a place");
            let read = read_all(&aof, &mut follower, 64 + n);
            assert!(read == expected[(place - begin) as usize..]);
        }
    }

    #[test]
    fn there_is_no_place_before_the_beginning_behind_the_end_or_in_another_history() {
        let disk = Disk::new();
        let (aof, _) = start_on(&config(&disk, "everysec")).expect("a start");
        write(&aof, &["SET before 1"]);
        assert!(aof.follow(aof.backlog.name().id.as_bytes(), 0).is_none(), "nobody has followed");
        let (_, mut follower) = aof.mark().expect("a mark");
        let (id, position) = (follower.name.id.clone(), follower.position);
        write(&aof, &["SET behind 1"]);
        let end = aof.sendable();
        for (place, is_there) in
            [(position - 1, false), (position, true), (end, true), (end + 1, false)]
        {
            assert_eq!(aof.follow(id.as_bytes(), place).is_some(), is_there, "{place}");
        }
        assert!(aof.follow(&[b'0'; 40], position).is_none());
        aof.disable();
        assert!(follower.read(&aof, &mut Vec::new()).is_err());
        assert!(aof.follow(id.as_bytes(), position).is_none());
    }

    #[test]
    fn what_is_not_written_whole_is_not_read() {
        let disk = Disk::new();
        let (aof, _) = start_on(&config(&disk, "everysec")).expect("a start");
        let (_, mut follower) = aof.mark().expect("a mark");
        let mut random = Random(7);
        for n in 0..100 {
            let taken = random.below(40);
            // The disk takes some of the record, and then nothing; nor can that be cut off again.
            let mut calls = 0;
            disk.ask(move |call, _| match call {
                Call::Write if calls == 0 => {
                    calls += 1;
                    Fate::Short(taken)
                }
                Call::Write | Call::SetLength => Fate::Fails(ErrorKind::StorageFull.into()),
                _ => Fate::Works,
            });
            let text = n.to_string();
            append(&aof, &text);
            let refused = aof.commit(aof.position()).is_err();
            assert_eq!(read_all(&aof, &mut follower, 64).is_empty(), refused);
            disk.ask_nobody();
            aof.commit(aof.position()).expect("there is room again");
            let read = read_all(&aof, &mut follower, 64);
            assert_eq!(read.ends_with(&command(&["SET", "key", &text])), refused);
        }
    }

    #[test]
    fn after_a_power_cut_the_old_id_is_good_for_the_bytes_that_are_left_and_no_further() {
        let mut random = Random(1);
        let mut resumed = 0;
        for _ in 0..200 {
            let disk = Disk::new();
            let (aof, _) = start_on(&config(&disk, "everysec")).expect("a start");
            let (_, mut follower) = aof.mark().expect("a mark");
            let (first_id, first) = (follower.name.id.clone(), follower.position);
            let store = Store::new(keyspace(&Default::default()));
            for n in 0..random.below(30) {
                append(&aof, &n.to_string());
                assert_eq!(aof.commit(aof.position()), Ok(()));
                match random.below(10) {
                    0 => assert_eq!(aof.rewrite(None, &store, &replay_all), Ok(())),
                    1..4 => assert_eq!(aof.sync_all(), Ok(())),
                    _ => {}
                }
            }
            let sent = read_all(&aof, &mut follower, 100);
            drop(aof);
            disk.put(disk.after_power_cut(&mut |bound| random.below(bound), false));
            let (aof, _) = start_on(&config(&disk, "everysec")).expect("a start");
            let Some(Name { id, to: end, .. }) = aof.backlog.before() else {
                continue;
            };
            resumed += 1;
            assert_eq!(id, first_id);
            let begin = aof.backlog.begin().expect("a history");
            let mut follower = aof.follow(id.as_bytes(), begin).expect("a place");
            let [from, to] = [begin, end].map(|place| (place - first) as usize);
            assert!(read_all(&aof, &mut follower, 100) == sent[from..to]);
            append(&aof, "after the cut");
            assert_eq!(aof.commit(aof.position()), Ok(()));
            assert!(aof.follow(id.as_bytes(), end).is_some());
            assert!(aof.follow(id.as_bytes(), end + 1).is_none());
            assert!(aof.follow(aof.backlog.name().id.as_bytes(), aof.sendable()).is_some());
        }
        assert!(resumed > 20, "{resumed}");
    }
}
