//! What of the history outlives the process: where a file of the log stands in the stream.
//!
//! ```text
//! appendonly.aof.history    id 12aee8…b2fd808d from 0 offset 0 to end
//!                           file appendonly.aof.7.incr.aof at 4100 from 0
//!                           file appendonly.aof.8.incr.aof at 9000 from 0
//!                           #CRC:…
//! ```
//!
//! It is written beside the log when a replica comes for the first time, and when a rewrite begins a new file. The next
//! start counts the records from the first of these files on that is still there. So it knows the offset at which it goes
//! on, and where each place before that is.
//!
//! **The old id is good up to there, and no further.** A power cut may have taken the end of the file, or somebody
//! may have put back an older copy of the log. What is written from now on differs from what a replica may have had behind
//! that place. So a start gives the history a new id, and a replica may name the old one only
//! with an offset that is not behind the place. The new id is on the disk before anything is written: a second power cut
//! must not bring the old one back.
//!
//! All names of the history are kept (names.rs), but not what a promoted replica has in memory of its old primary.
//!
//! **How Redis does it**: an RDB file holds id and offset, and a start makes the old id its second one.

use super::{Counting, Follower, Frame, History, Name, PLACE_EVERY, Place, Segment};
use crate::aof::checksum::{self, Annotate, Claim, Line, Stretch};
use crate::aof::disk::{self, Opening};
use crate::aof::manifest::{Manifest, quoted};
use crate::aof::{Aof, Position};
use crate::resp::words::split_words;
use std::io::Write;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::Ordering;

/// What a file says.
#[derive(Default)]
struct Saved {
    names: Vec<Name>,
    files: Vec<Stand>,
}

/// Where a file stands in the stream.
struct Stand {
    file: String,
    position: Position,
    skipped: u64,
}

/// The number of the first history of a process.
const FIRST: u64 = 0;

/// A name without an end.
const OPEN: &str = "end";

fn path(manifest: &Manifest) -> PathBuf {
    manifest.directory.join(format!("{}.history", manifest.prefix))
}

impl History {
    /// Replaces what was saved before. If the disk refuses, replicas get a new snapshot after the next start.
    pub(super) fn save(&self, manifest: &Manifest) {
        let mut text = String::new();
        for Name { id, counting: Counting { from, offset }, to } in &self.names {
            let to = if *to == Position::MAX { OPEN.into() } else { to.to_string() };
            text += &format!("id {id} from {from} offset {offset} to {to}\n");
        }
        for Segment { name, begin, skipped, .. } in self.segments.iter().map(|segment| &**segment) {
            if manifest.incrs.iter().any(|incr| incr.name == *name) {
                text += &format!("file {} at {begin} from {skipped}\n", quoted(name));
            }
        }
        let mut text = text.into_bytes();
        checksum::cover(&mut Stretch::default(), &mut text, 0, Annotate::Now);
        let path = path(manifest);
        let temporary = path.with_extension("history.temp");
        let saved = disk::open(&temporary, Opening::Empty)
            .and_then(|mut file| file.write_all(&text))
            .and_then(|()| disk::rename(&temporary, &path));
        if saved.is_err() {
            remove(manifest);
        }
    }
}

/// The history ends with the process, if not before.
pub(super) fn remove(manifest: &Manifest) {
    let _ = disk::remove_file(path(manifest));
}

/// What was saved, if it is whole.
fn load(manifest: &Manifest) -> Option<Saved> {
    let text = disk::read_from(&path(manifest), 0).ok()?;
    let mut stretch = Stretch::default();
    let mut saved = Saved::default();
    for line in text.split_inclusive(|byte| *byte == b'\n') {
        match checksum::read_line(line) {
            Line::Ours(claim) if claim == Claim::of(&stretch) => return Some(saved),
            Line::Other => stretch.add(line),
            _ => return None,
        }
        saved.read(line.strip_suffix(b"\n")?)?;
    }
    None
}

impl Saved {
    fn read(&mut self, line: &[u8]) -> Option<()> {
        let words = split_words(line)?.into_iter().map(String::from_utf8);
        let words = words.collect::<Result<Vec<String>, _>>().ok()?;
        match &words.iter().map(String::as_str).collect::<Vec<_>>()[..] {
            ["id", id, _, from, _, offset, _, to] => {
                let to = if *to == OPEN { Position::MAX } else { to.parse().ok()? };
                let counting = Counting { from: from.parse().ok()?, offset: offset.parse().ok()? };
                self.names.push(Name { id: id.to_string(), counting, to });
            }
            ["file", file, _, position, _, skipped] => self.files.push(Stand {
                file: file.to_string(),
                position: position.parse().ok()?,
                skipped: skipped.parse().ok()?,
            }),
            _ => return None,
        }
        Some(())
    }
}

impl Aof {
    /// At a start: goes on with the history of the process before, if a file of it is still a part of the log.
    pub(in crate::aof) fn resume_history(&self, manifest: &Manifest) {
        let Some((mut resumed, end)) = resume(manifest) else {
            return remove(manifest);
        };
        for position in [&self.appended, &self.written, &self.durable] {
            position.store(end, Ordering::Release);
        }
        resumed.starts_again_at(end);
        resumed.save(manifest);
        *self.backlog.history.lock().unwrap() = resumed;
        let synced = disk::open(&path(manifest), Opening::Read)
            .and_then(|file| file.sync_all())
            .and_then(|()| disk::sync_directory(&manifest.directory));
        if synced.is_err() {
            remove(manifest);
        }
    }
}

/// The history, with the files from the first one on whose place is known, and the position at their end.
fn resume(manifest: &Manifest) -> Option<(History, Position)> {
    let Saved { names, files } = load(manifest)?;
    let name = names.first()?.clone();
    let mut history = History { names, ..History::default() };
    let is_there = |stand: &&Stand| manifest.incrs.iter().any(|incr| incr.name == stand.file);
    let Stand { file, position, skipped } = files.iter().find(is_there)?;
    let (mut position, mut skipped) = (*position, *skipped);
    for incr in manifest.incrs.iter().skip_while(|incr| incr.name != *file) {
        let path = manifest.path_of(incr);
        let length = disk::length(&path).ok()?;
        let file = disk::open(&path, Opening::Read).ok()?;
        let segment = Arc::new(Segment::new(file, &incr.name, position, skipped));
        history.segments.push_back(segment.clone());
        let mut follower = Follower::new(segment.clone(), FIRST, name.clone());
        let (mut passed, mut next_place) = (Vec::new(), position + PLACE_EVERY);
        while follower.at < length {
            follower.read_to(Position::MAX, &mut passed).ok()?;
            passed.clear();
            if follower.position >= next_place {
                next_place = follower.position + PLACE_EVERY;
                let Follower { position, at, frame, .. } = follower;
                history.note(Place { position, at, frame });
            }
        }
        if follower.at > length || follower.frame != Frame::Between {
            return None;
        }
        (position, skipped) = (follower.position, 0);
        segment.end.store(position, Ordering::Release);
    }
    // The last one is written to.
    history.segments.back()?.end.store(Position::MAX, Ordering::Release);
    Some((history, position))
}
