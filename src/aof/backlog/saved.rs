//! What of the history outlives the process: where a file of the log stands in the stream.
//!
//! ```text
//! appendonly.aof.history    id 12aee8…b2fd808d offset 4100 file appendonly.aof.7.incr.aof from 0
//!                           id 12aee8…b2fd808d offset 9000 file appendonly.aof.8.incr.aof from 0
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
//! **How Redis does it**: an RDB file holds id and offset. A promoted replica has a second id, good up to an offset.

use super::{Backlog, Follower, Frame, Segment};
use crate::aof::checksum::{self, Annotate, Claim, Line, Stretch};
use crate::aof::disk::{self, Opening};
use crate::aof::manifest::{Manifest, quoted};
use crate::aof::{Aof, Position};
use crate::resp::words::split_words;
use std::collections::VecDeque;
use std::io::Write;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::Ordering;

/// A place in the stream, and the same place in a file.
pub struct Saved {
    pub id: String,
    pub position: Position,
    pub file: String,
    pub skipped: u64,
}

fn path(manifest: &Manifest) -> PathBuf {
    manifest.directory.join(format!("{}.history", manifest.prefix))
}

/// Replaces what was saved before. If the disk refuses, replicas get a new snapshot after the next start.
pub fn save(manifest: &Manifest, places: &[Saved]) {
    let mut text = Vec::new();
    for Saved { id, position, file, skipped } in places {
        let line = format!("id {id} offset {position} file {} from {skipped}\n", quoted(file));
        text.extend_from_slice(line.as_bytes());
    }
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

/// The history ends with the process, if not before.
pub fn remove(manifest: &Manifest) {
    let _ = disk::remove_file(path(manifest));
}

/// What was saved, if it is whole.
fn load(manifest: &Manifest) -> Option<Vec<Saved>> {
    let text = disk::read_from(&path(manifest), 0).ok()?;
    let mut stretch = Stretch::default();
    let mut places = Vec::new();
    for line in text.split_inclusive(|byte| *byte == b'\n') {
        match checksum::read_line(line) {
            Line::Ours(claim) if claim == Claim::of(&stretch) => return Some(places),
            Line::Other => stretch.add(line),
            _ => return None,
        }
        places.push(Saved::read(line.strip_suffix(b"\n")?)?);
    }
    None
}

impl Saved {
    fn read(line: &[u8]) -> Option<Saved> {
        let words = split_words(line)?.into_iter().map(String::from_utf8);
        let words = words.collect::<Result<Vec<String>, _>>().ok()?;
        match &words[..] {
            [_, id, _, position, _, file, _, skipped] => Some(Saved {
                id: id.clone(),
                position: position.parse().ok()?,
                file: file.clone(),
                skipped: skipped.parse().ok()?,
            }),
            _ => None,
        }
    }
}

impl Aof {
    /// At a start: goes on with the history of the process before, if a file of it is still a part of the log.
    pub(in crate::aof) fn resume_history(&self, manifest: &Manifest) {
        let Some((id, segments, end)) = resume(manifest) else {
            return remove(manifest);
        };
        for position in [&self.appended, &self.written, &self.durable] {
            position.store(end, Ordering::Release);
        }
        let mut history = self.backlog.history.lock().unwrap();
        history.before = Some((id, end));
        history.segments = segments;
        history.save(manifest);
        let synced = disk::open(&path(manifest), Opening::Read)
            .and_then(|file| file.sync_all())
            .and_then(|()| disk::sync_directory(&manifest.directory));
        if synced.is_err() {
            remove(manifest);
        }
    }
}

/// The id, the files from the first one on whose place is known, and the position at their end.
fn resume(manifest: &Manifest) -> Option<(String, VecDeque<Arc<Segment>>, Position)> {
    let places = load(manifest)?;
    let is_there = |place: &&Saved| manifest.incrs.iter().any(|incr| incr.name == place.file);
    let Saved { id, position, file, skipped } = places.iter().find(is_there)?;
    let (mut position, mut skipped) = (*position, *skipped);
    let mut segments = VecDeque::new();
    for incr in manifest.incrs.iter().skip_while(|incr| incr.name != *file) {
        let path = manifest.path_of(incr);
        let length = disk::length(&path).ok()?;
        let file = disk::open(&path, Opening::Read).ok()?;
        let segment = Arc::new(Segment::new(file, &incr.name, position, skipped));
        let mut follower = Follower::new(segment.clone(), Backlog::FIRST);
        let mut passed = Vec::new();
        while follower.at < length {
            follower.read_to(Position::MAX, &mut passed).ok()?;
            passed.clear();
        }
        if follower.at > length || follower.frame != Frame::Between {
            return None;
        }
        (position, skipped) = (follower.position, 0);
        segment.end.store(position, Ordering::Release);
        segments.push_back(segment);
    }
    // The last one is written to.
    segments.back()?.end.store(Position::MAX, Ordering::Release);
    Some((id.clone(), segments, position))
}
