//! The promise of the log, tested by breaking things: what was acknowledged is there after
//! `kill -9`; a start cuts what a crash has torn and refuses what it cannot explain; a disk that
//! fails stops the writers, not the readers, and takes nothing back.
//!
//! | room         | what is broken                                                  |
//! |--------------|-----------------------------------------------------------------|
//! | `kills`      | the process, at any moment, under load                          |
//! | `tails`      | the file: cut anywhere, zeros, garbage, flipped bits            |
//! | `rewriting`  | the log's files, under the server; writers during a rewrite     |
//! | `disk`       | the disk: full, and then not                                    |
//! | `loading`    | nothing: what clients see while a long log loads, and INFO      |
//! | `snapshots`  | what is to be written in `dump.rdb`, and by whom                |
//! | `checking`   | the file again, as `--check-aof` sees it                        |
//!
//! Kills between any two steps and power cuts are in `src/aof/power_cuts.rs`. What needs a library under
//! the server (EIO, failing and slow fsync) is in `scripts/faults.sh`.

// What a machine did not allow to be tested must be said.
#![allow(clippy::print_stderr)]

mod checking;
mod disk;
mod kills;
mod loading;
mod rewriting;
mod script;
mod snapshots;
#[path = "../support/mod.rs"]
mod support;
mod tails;

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};
use support::random::Random;
use support::state::{self, Kind};
use support::{Client, Directory, Value, encode, eventually};

/// For a test that compares a log's file with bytes: a second after a start an annotation comes behind what is
/// there, and a slow machine sees it.
const WITHOUT_ANNOTATIONS: [&str; 2] = ["--aof-checksum", "no"];

/// Database and key, and all that can be asked about it.
type Dump = BTreeMap<(usize, Vec<u8>), String>;

/// Everything in the first `databases` databases: values and deadlines.
fn dump(client: &mut Client, databases: usize) -> Dump {
    let entries = state::dump(client, databases).expect("what the server holds");
    let shown = entries.into_iter().map(|entry| {
        let deadline = Value::Integer(entry.deadline);
        ((entry.db, entry.key), format!("{} until {deadline}", shown(entry.kind, &entry.value)))
    });
    shown.collect()
}

/// A value as a whole. What has no order of its own is shown in one.
fn shown(kind: &Kind, elements: &[Vec<u8>]) -> Value {
    let groups = elements.chunks(kind.width).map(|group| match group {
        [one] => Value::bulk(one),
        several => Value::Array(several.iter().map(Value::bulk).collect()),
    });
    let mut groups: Vec<Value> = groups.collect();
    match kind.name {
        "string" => groups.remove(0),
        "list" | "zset" => Value::Array(groups),
        _ => Value::Array(groups).sorted(),
    }
}

/// One field of INFO persistence.
fn info(client: &mut Client, name: &str) -> String {
    field(client, name).unwrap_or_else(|| panic!("INFO has no {name}"))
}

/// The same, if it is there.
fn field(client: &mut Client, name: &str) -> Option<String> {
    let text = match client.call(&["INFO", "persistence"]) {
        Value::Bulk(text) => String::from_utf8(text).unwrap(),
        other => panic!("INFO answers {other}"),
    };
    let mut lines = text.lines();
    let found = lines.find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
    found.map(str::to_string)
}

/// Asks for a rewrite and waits for its end, which must be a good one.
fn rewrite(client: &mut Client) {
    let reply = client.run("BGREWRITEAOF");
    assert_eq!(reply, "Background append only file rewriting started");
    wait_for_rewrite(client);
}

fn wait_for_rewrite(client: &mut Client) {
    eventually("the end of the rewrite", || info(client, "aof_rewrite_in_progress") == "0");
    assert_eq!(info(client, "aof_last_bgrewrite_status"), "ok");
}

/// A directory whose log consists of these files, the first of them of type `kinds[0]`, and so on.
fn log_of(kinds: &str, files: &[&[u8]]) -> Directory {
    let directory = Directory::new();
    let folder = directory.0.join("appendonlydir");
    fs::create_dir(&folder).unwrap();
    let mut manifest = String::new();
    for (index, (kind, bytes)) in kinds.chars().zip(files).enumerate() {
        let path = file_of(&directory.0, index);
        fs::write(&path, bytes).unwrap();
        let name = path.file_name().unwrap().to_str().unwrap();
        manifest += &format!("file {name} seq {} type {kind}\n", index + 1);
    }
    fs::write(folder.join("appendonly.aof.manifest"), manifest).unwrap();
    directory
}

/// The path of file number `index` of such a log.
fn file_of(dir: &Path, index: usize) -> PathBuf {
    let folder = dir.join("appendonlydir");
    folder.join(format!("appendonly.aof.{}.incr.aof", index + 1))
}

/// The files in the log's directory, by name.
fn listing(dir: &Path) -> Vec<String> {
    let files = fs::read_dir(dir.join("appendonlydir")).unwrap();
    let names = files.map(|file| file.unwrap().file_name().into_string().unwrap());
    let mut names: Vec<String> = names.collect();
    names.sort();
    names
}

/// A record, from a line of plain words.
fn record(line: &str) -> Vec<u8> {
    encode(&line.split(' ').collect::<Vec<_>>())
}

/// Chance, which says its seed so that a failure can be had again (`SEED=…`).
fn random() -> Random {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
    let given = std::env::var("SEED").ok();
    let seed = given.map_or(now.as_nanos() as u64, |seed| seed.parse().unwrap());
    eprintln!("SEED={seed}");
    Random::new(seed)
}
