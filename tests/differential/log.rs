//! The append-only logs of the two servers, record by record.

use crate::command::{Command, upper};
use crate::compare::close;
use crate::grammar::{self, OWN};
use crate::support::{Record, number};

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

/// A record that no Redis could load, if there is one: a command that it does not have, on a type that it has.
pub fn what_redis_lacks(log: &[Record]) -> Option<String> {
    let own = grammar::only_in(&[OWN]);
    let found = log.iter().find(|record| {
        let words: Vec<String> = record.iter().take(2).map(|word| upper(word)).collect();
        own.contains(&words[0].to_lowercase()) || own.contains(&words.join("|").to_lowercase())
    });
    found.map(|record| {
        let command = Command::of(record.clone());
        format!(
            "Redis has no such command to load: {command}. It must call `propagate`; or, if Redis lacks the \
             type, its line belongs under [own types] of commands.txt"
        )
    })
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
        for (index, record) in records.iter().enumerate().take(at + 4).skip(at.saturating_sub(4)) {
            let mark = if index == at { '>' } else { ' ' };
            let command = Command::of(record.clone());
            text += &format!("  {mark} {index}: {command}\n");
        }
        text
    };
    format!("the logs part at record {at}\n our log:\n{} their log:\n{}", show(ours), show(theirs))
}
