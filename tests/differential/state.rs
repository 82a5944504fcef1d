//! Everything a server holds, written down; and what chance may answer, given what it holds.

use std::collections::BTreeSet;
use std::io;

use crate::compare::close;
use crate::wire::{Command, Connection, Frame};

pub const DATABASES: usize = 16;

/// One key. A hash has its fields and values in turn: in order while it is small, since then the
/// order is that of insertion; sorted by field when it is a table.
#[derive(Clone, PartialEq, Eq)]
pub struct Entry {
    pub db: usize,
    pub key: Vec<u8>,
    pub kind: Vec<u8>,
    pub encoding: Vec<u8>,
    /// Unix time in milliseconds, or -1.
    pub deadline: i64,
    pub value: Vec<Vec<u8>>,
}

impl Entry {
    /// As the same entry in another server.
    pub fn same(&self, other: &Entry) -> bool {
        let deadline = self.deadline;
        *self
            == Entry {
                deadline,
                ..other.clone()
            }
            && close(deadline, other.deadline)
    }

    /// As the same entry after a restart. How a string is stored depends on how it came to be,
    /// and the log keeps only what it is: INCRBYFLOAT is logged as SET, in Redis too.
    pub fn survives_as(&self, other: &Entry) -> bool {
        let encoding = if self.kind == b"string" {
            self.encoding.clone()
        } else {
            other.encoding.clone()
        };
        *self
            == Entry {
                encoding,
                ..other.clone()
            }
    }
}

impl std::fmt::Display for Entry {
    fn fmt(&self, f: &mut std::fmt::Formatter) -> std::fmt::Result {
        let value = Command {
            args: self.value.clone(),
            inline: false,
        };
        let (kind, encoding) = (self.kind.escape_ascii(), self.encoding.escape_ascii());
        let (key, db, deadline) = (self.key.escape_ascii(), self.db, self.deadline);
        write!(
            f,
            "db {db}, \"{key}\": {kind} ({encoding}), expires {deadline}: {value}"
        )
    }
}

/// Reads all databases. Expired keys are not in it, and stay where they are: KEYS does not
/// delete them.
pub fn dump(connection: &mut Connection) -> io::Result<Vec<Entry>> {
    let mut entries = Vec::new();
    for db in 0..DATABASES {
        connection.ask(&[b"SELECT", db.to_string().as_bytes()])?;
        let mut keys = texts(connection.ask(&[b"KEYS", b"*"])?);
        keys.sort();
        let questions: Vec<Vec<Vec<u8>>> = keys
            .iter()
            .flat_map(|key| {
                [&["TYPE"][..], &["OBJECT", "ENCODING"], &["PEXPIRETIME"]].map(|words| {
                    let words = words.iter().map(|word| word.as_bytes().to_vec());
                    words.chain([key.clone()]).collect()
                })
            })
            .collect();
        let answers = connection.ask_all(&questions)?;
        for (key, answer) in keys.into_iter().zip(answers.chunks(3)) {
            let [kind, encoding] = [0, 1].map(|index| answer[index].text.clone());
            let mut value = match &kind[..] {
                b"hash" => texts(connection.ask(&[b"HGETALL", &key])?),
                _ => vec![connection.ask(&[b"GET", &key])?.text],
            };
            if encoding == b"hashtable" {
                let mut pairs: Vec<&[Vec<u8>]> = value.chunks(2).collect();
                pairs.sort();
                value = pairs.concat();
            }
            let deadline = answer[2].integer().unwrap_or(i64::MIN);
            entries.push(Entry {
                db,
                key,
                kind,
                encoding,
                deadline,
                value,
            });
        }
    }
    Ok(entries)
}

/// Where two dumps part, if they do.
pub fn difference(
    ours: &[Entry],
    theirs: &[Entry],
    same: fn(&Entry, &Entry) -> bool,
) -> Option<String> {
    for index in 0..ours.len().max(theirs.len()) {
        match (ours.get(index), theirs.get(index)) {
            (Some(a), Some(b)) if same(a, b) => {}
            (a, b) => {
                let show = |entry: Option<&Entry>| {
                    entry.map_or("nothing".to_string(), |entry| entry.to_string())
                };
                return Some(format!("  one: {}\n  other: {}", show(a), show(b)));
            }
        }
    }
    None
}

/// Asks for what chance decides, and checks it against what is there.
///
/// # Errors
/// `Other`, with the answer that cannot be.
pub fn check_chance(connection: &mut Connection, entries: &[Entry]) -> io::Result<()> {
    for db in 0..DATABASES {
        connection.ask(&[b"SELECT", db.to_string().as_bytes()])?;
        // Expired keys go first: RANDOMKEY would delete those that it meets, and log it.
        iterate(connection, &Command::new(&["SCAN", "0"]))?;
        let keys: Vec<&Entry> = entries.iter().filter(|entry| entry.db == db).collect();
        for _ in 0..5 {
            let key = connection.ask(&[b"RANDOMKEY"])?;
            let known = keys.iter().any(|entry| entry.key == key.text);
            ensure(
                if keys.is_empty() { key.is_nil() } else { known },
                "RANDOMKEY",
                &key,
            )?;
        }
        for hash in keys.iter().filter(|entry| entry.kind == b"hash") {
            let size = hash.value.len() / 2;
            for (count, expected) in [("3", size.min(3)), ("-5", 5), ("1000", size)] {
                let question: [&[u8]; 4] =
                    [b"HRANDFIELD", &hash.key, count.as_bytes(), b"WITHVALUES"];
                let answer = connection.ask(&question)?;
                let pairs: Vec<&[Frame]> = answer.items.chunks(2).collect();
                let known = |pair: &&[Frame]| {
                    hash.value
                        .chunks(2)
                        .any(|p| p[0] == pair[0].text && p[1] == pair[1].text)
                };
                let distinct = pairs
                    .iter()
                    .map(|pair| &pair[0])
                    .collect::<BTreeSet<_>>()
                    .len();
                let repeats = count.starts_with('-') || distinct == expected;
                let fine = pairs.len() == expected && pairs.iter().all(known) && repeats;
                ensure(fine, "HRANDFIELD", &answer)?;
            }
            // A small hash comes whole and in order, whatever the count.
            if hash.encoding == b"listpack" {
                let answer = connection.ask(&[b"HSCAN", &hash.key, b"0", b"COUNT", b"1"])?;
                let whole =
                    answer.items[0].text == b"0" && texts(answer.items[1].clone()) == hash.value;
                ensure(whole, "HSCAN of a small hash", &answer)?;
            }
        }
    }
    Ok(())
}

/// Follows a SCAN or HSCAN to its end and returns what it gave, without repetitions.
///
/// # Errors
/// `Other` if there is no end.
pub fn iterate(connection: &mut Connection, command: &Command) -> io::Result<Frame> {
    let mut args = command.args.clone();
    let (position, width) = if command.name() == "SCAN" {
        (1, 1)
    } else {
        (2, 2)
    };
    args[position] = b"0".to_vec();
    let mut found = BTreeSet::new();
    for _ in 0..10_000 {
        let mut reply = connection.ask_all(std::slice::from_ref(&args))?.remove(0);
        if reply.items.len() != 2 {
            return Ok(reply);
        }
        let items = reply.items.remove(1).items;
        found.extend(items.chunks(width).map(<[Frame]>::to_vec));
        args[position] = reply.items.remove(0).text;
        if args[position] == b"0" {
            let items = found.into_iter().flatten().collect();
            return Ok(Frame {
                kind: b'*',
                text: Vec::new(),
                items,
            });
        }
    }
    Err(io::Error::other(format!(
        "{command}: ten thousand calls and no end"
    )))
}

fn ensure(fine: bool, what: &str, answer: &Frame) -> io::Result<()> {
    if fine {
        Ok(())
    } else {
        Err(io::Error::other(format!("{what} answered {answer}")))
    }
}

fn texts(frame: Frame) -> Vec<Vec<u8>> {
    frame.items.into_iter().map(|item| item.text).collect()
}
