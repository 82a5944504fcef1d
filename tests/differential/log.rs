//! The append-only logs of the two servers, record by record.
//!
//! The log is RESP, so reading it is the reader of replies once more; the manifest says which
//! files there are, the base (type `b`) first, then the increments in order.

use std::collections::BTreeMap;
use std::fs;
use std::io::{self, BufRead, BufReader};
use std::path::Path;

use crate::compare::close;
use crate::wire::{Command, Frame, number, upper};

type Record = Vec<Vec<u8>>;

/// Every record of the log in a server's directory.
///
/// # Errors
/// A file that is missing, or holds anything but whole commands.
pub fn read(directory: &Path) -> io::Result<Vec<Record>> {
    let directory = directory.join("appendonlydir");
    let manifest = fs::read_to_string(directory.join("appendonly.aof.manifest"))?;
    let mut files = BTreeMap::new();
    for line in manifest.lines() {
        let words: Vec<&str> = line.split_whitespace().collect();
        if let ["file", name, "seq", sequence, "type", kind @ ("b" | "i")] = words[..] {
            let sequence: u64 = sequence.parse().map_err(io::Error::other)?;
            files.insert((kind, sequence), name.to_string());
        }
    }
    let mut records = Vec::new();
    for name in files.values() {
        let mut reader = BufReader::new(fs::File::open(directory.join(name))?);
        while let Some(first) = reader.fill_buf()?.first() {
            // An annotation, which is no record.
            if *first == b'#' {
                reader.skip_until(b'\n')?;
                continue;
            }
            let frame = Frame::read(&mut reader)?;
            records.push(frame.items.into_iter().map(|item| item.text).collect());
        }
    }
    Ok(records)
}

/// Where the logs part, told with a few records around it; `None` if they say the same.
pub fn difference(ours: &[Record], theirs: &[Record]) -> Option<String> {
    let mut at = 0;
    while at < ours.len().max(theirs.len()) {
        match (ours.get(at), theirs.get(at)) {
            (Some(a), Some(b)) if same(a, b) => at += 1,
            _ => match same_deletions(&ours[at.min(ours.len())..], &theirs[at.min(theirs.len())..])
            {
                Some(length) => at += length,
                None => return Some(excerpt(ours, theirs, at)),
            },
        }
    }
    None
}

fn same(ours: &Record, theirs: &Record) -> bool {
    let alike = |(a, b): (&Vec<u8>, &Vec<u8>)| {
        a == b || matches!((number(a), number(b)), (Some(a), Some(b)) if close(a, b))
    };
    ours.len() == theirs.len() && ours.iter().zip(theirs).all(alike)
}

/// SCAN deletes the expired keys that it meets in the order of the table, which is each server's
/// own. So records that only delete may stand in any order; returns how many do.
fn same_deletions(ours: &[Record], theirs: &[Record]) -> Option<usize> {
    let run = |records: &[Record]| -> Vec<Record> {
        let deletion = |record: &&Record| record.len() == 2 && upper(&record[0]) == "DEL";
        let mut run: Vec<Record> = records.iter().take_while(deletion).cloned().collect();
        run.sort();
        run
    };
    let (ours, theirs) = (run(ours), run(theirs));
    (!ours.is_empty() && ours == theirs).then_some(ours.len())
}

fn excerpt(ours: &[Record], theirs: &[Record], at: usize) -> String {
    let show = |records: &[Record]| {
        let mut text = String::new();
        for (index, record) in records
            .iter()
            .enumerate()
            .take(at + 4)
            .skip(at.saturating_sub(4))
        {
            let mark = if index == at { '>' } else { ' ' };
            let command = Command {
                args: record.clone(),
                inline: false,
            };
            text += &format!("  {mark} {index}: {command}\n");
        }
        text
    };
    format!(
        "the logs part at record {at}\n our log:\n{} their log:\n{}",
        show(ours),
        show(theirs)
    )
}
