//! Are two states the same? And what may chance answer, given what is there?

use std::collections::BTreeSet;
use std::io;

use crate::command::Command;
use crate::compare::close;
use crate::support::state::{Entry, texts};
use crate::support::{Client, Value};

pub const DATABASES: usize = 16;

/// As the same entry in another server.
pub fn same(one: &Entry, other: &Entry) -> bool {
    let encoding = if are_small_sets(one, other) { &one.encoding } else { &other.encoding };
    let (deadline, encoding) = (one.deadline, encoding.clone());
    *one == Entry { deadline, encoding, ..other.clone() } && close(deadline, other.deadline)
}

/// As the same entry after a restart.
pub fn survives_as(one: &Entry, other: &Entry) -> bool {
    let may_differ = !one.kind.keeps_encoding || are_small_sets(one, other);
    let encoding = if may_differ { &one.encoding } else { &other.encoding };
    *one == Entry { encoding: encoding.clone(), ..other.clone() }
}

/// Redis has small sets in listpacks since 7.2, and in tables before.
fn are_small_sets(one: &Entry, other: &Entry) -> bool {
    let mut encodings = [&one.encoding[..], &other.encoding];
    encodings.sort();
    one.kind.name == "set" && encodings == [&b"hashtable"[..], b"listpack"]
}

fn show(entry: &Entry) -> String {
    let (key, encoding) = (entry.key.escape_ascii(), entry.encoding.escape_ascii());
    let (db, kind, deadline) = (entry.db, entry.kind.name, entry.deadline);
    let value = Command::of(entry.value.clone());
    format!("db {db}, \"{key}\": {kind} ({encoding}), expires {deadline}: {value}")
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
                let show = |entry: Option<&Entry>| entry.map_or("nothing".to_string(), show);
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
pub fn check_chance(client: &mut Client, entries: &[Entry]) -> io::Result<()> {
    for db in 0..DATABASES {
        client.try_call(&["SELECT", &db.to_string()])?;
        // Expired keys go first: RANDOMKEY would delete those that it meets, and log it.
        iterate(client, &Command::new(&["SCAN", "0"]))?;
        let keys: Vec<&Entry> = entries.iter().filter(|entry| entry.db == db).collect();
        for _ in 0..5 {
            let key = client.try_call(&["RANDOMKEY"])?;
            let known = keys.iter().any(|entry| entry.key == key.text());
            let nothing = keys.is_empty() && key == Value::Nil;
            ensure(known || nothing, "RANDOMKEY", &key)?;
        }
        for set in keys.iter().filter(|entry| entry.kind.name == "set") {
            let size = set.value.len();
            for (count, expected) in [("3", size.min(3)), ("-5", 5), ("1000", size)] {
                let question: [&[u8]; 3] = [b"SRANDMEMBER", &set.key, count.as_bytes()];
                let answer = client.try_call(&question)?;
                let answered = texts(&answer);
                let distinct = answered.iter().collect::<BTreeSet<_>>().len();
                let repeats = count.starts_with('-') || distinct == expected;
                let known = answered.iter().all(|member| set.value.contains(member));
                ensure(answered.len() == expected && known && repeats, "SRANDMEMBER", &answer)?;
            }
        }
        for entry in keys {
            match entry.kind.name {
                "hash" => check_random(client, entry, ["HRANDFIELD", "WITHVALUES", "HSCAN"])?,
                "zset" => check_random(client, entry, ["ZRANDMEMBER", "WITHSCORES", "ZSCAN"])?,
                _ => {}
            }
        }
    }
    Ok(())
}

/// Draws from a hash or a sorted set, and scans it, by commands with these names.
fn check_random(client: &mut Client, entry: &Entry, names: [&str; 3]) -> io::Result<()> {
    let [random, with, scan] = names;
    let size = entry.value.len() / 2;
    for (count, expected) in [("3", size.min(3)), ("-5", 5), ("1000", size)] {
        let question: [&[u8]; 4] =
            [random.as_bytes(), &entry.key, count.as_bytes(), with.as_bytes()];
        let answer = client.try_call(&question)?;
        let answered = texts(&answer);
        let pairs: Vec<&[Vec<u8>]> = answered.chunks(2).collect();
        let known = |pair: &&[Vec<u8>]| entry.value.chunks(2).any(|held| held == *pair);
        let distinct = pairs.iter().map(|pair| &pair[0]).collect::<BTreeSet<_>>();
        let distinct = distinct.len();
        let repeats = count.starts_with('-') || distinct == expected;
        let fine = pairs.len() == expected && pairs.iter().all(known) && repeats;
        ensure(fine, random, &answer)?;
    }
    // A small one comes whole and in order, whatever the count. (Scores may be written in another way.)
    if entry.encoding == b"listpack" {
        let question: [&[u8]; 5] = [scan.as_bytes(), &entry.key, b"0", b"COUNT", b"1"];
        let answer = client.try_call(&question)?;
        let names = |pairs: &[Vec<u8>]| pairs.iter().step_by(2).cloned().collect::<Vec<_>>();
        let whole = matches!(&answer.items()[..], [cursor, found]
            if cursor.text() == b"0" && names(&texts(found)) == names(&entry.value));
        ensure(whole, scan, &answer)?;
    }
    Ok(())
}

/// Follows a SCAN, HSCAN, SSCAN or ZSCAN to its end and returns what it gave, without repetitions.
///
/// # Errors
/// `Other` if there is no end.
pub fn iterate(client: &mut Client, command: &Command) -> io::Result<Value> {
    let mut args = command.args.clone();
    let (position, width) = match command.name().as_str() {
        "SCAN" => (1, 1),
        "HSCAN" | "ZSCAN" => (2, 2),
        "SSCAN" => (2, 1),
        name => panic!("where {name} has its cursor, and how its elements pair, is not said here"),
    };
    args[position] = b"0".to_vec();
    let mut found = BTreeSet::new();
    for _ in 0..10_000 {
        let reply = client.try_call(&args)?;
        let [cursor, items] = reply.items()[..] else {
            return Ok(reply);
        };
        found.extend(texts(items).chunks(width).map(<[Vec<u8>]>::to_vec));
        args[position] = cursor.text().to_vec();
        if args[position] == b"0" {
            let items = found.into_iter().flatten().map(Value::Bulk);
            return Ok(Value::Array(items.collect()));
        }
    }
    Err(io::Error::other(format!("{command}: ten thousand calls and no end")))
}

fn ensure(fine: bool, what: &str, answer: &Value) -> io::Result<()> {
    if fine { Ok(()) } else { Err(io::Error::other(format!("{what} answered {answer:?}"))) }
}
