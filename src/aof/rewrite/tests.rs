//! The log without a server around it: what stands in its files, and what a start makes of them
//! when a bit has flipped.

use super::*;
use crate::aof::checksum::{Claim, EVERY, Stretch};
use crate::aof::disk::Opening;
use crate::aof::disk::simulated::{Call, Disk, Fate};
use crate::aof::power_cuts::{config_with, hush, set};
use crate::propagate::Records;
use crate::resp::{Args, write_command};
use std::cell::RefCell;
use std::collections::BTreeMap;
use std::io::Write as _;
use std::rc::Rc;

/// A simulated disk (aof/disk/simulated.rs) with the log's directory.
struct Scratch(Rc<Disk>);

impl Scratch {
    fn new() -> Scratch {
        let scratch = Scratch(Disk::new());
        disk::create_dir_all(scratch.log()).unwrap();
        scratch
    }

    /// With these files in the log's directory.
    fn holding(files: &Files) -> Scratch {
        let scratch = Scratch::new();
        scratch.fill(files);
        scratch
    }

    fn log(&self) -> PathBuf {
        self.0.root.join("appendonlydir")
    }

    fn fill(&self, files: &Files) {
        for (name, _) in disk::list(&self.log()).unwrap() {
            disk::remove_file(self.log().join(name)).unwrap();
        }
        for (name, bytes) in files {
            let mut file = disk::open(&self.log().join(name), Opening::Empty).unwrap();
            file.write_all(bytes).unwrap();
        }
    }

    fn files(&self) -> Files {
        let names = disk::list(&self.log()).unwrap().into_iter().map(|(name, _)| name);
        names.map(|name| (name.clone(), disk::read(&self.log().join(name)).unwrap())).collect()
    }

    /// What the only incr file holds.
    fn incr(&self) -> Vec<u8> {
        disk::read(&self.log().join(INCR)).unwrap()
    }

    fn put_incr(&self, bytes: &[u8]) {
        let mut file = disk::open(&self.log().join(INCR), Opening::Empty).unwrap();
        file.write_all(bytes).unwrap();
    }
}

const INCR: &str = "appendonly.aof.1.incr.aof";

/// What is in the log's directory, by name.
type Files = BTreeMap<String, Vec<u8>>;

/// Database and key, and the value.
type State = BTreeMap<(String, String), String>;

/// What replays SET and DEL. It refuses other commands, as a server does.
#[derive(Default)]
struct Model {
    state: State,
    db: String,
    queue: Option<Vec<Vec<String>>>,
}

impl Model {
    fn replay(&mut self, records: &mut [Args]) -> Result<(), (usize, String)> {
        for (index, args) in records.iter().enumerate() {
            let text = |word| String::from_utf8_lossy(word).into_owned();
            let words = args.iter().map(text).collect();
            self.run(words).map_err(|reason| (index, reason))?;
        }
        Ok(())
    }

    fn run(&mut self, words: Vec<String>) -> Result<(), String> {
        let name = words[0].to_ascii_uppercase();
        match (name.as_str(), &words[1..]) {
            ("MULTI", []) => self.queue = Some(Vec::new()),
            ("DISCARD", []) => self.queue = None,
            ("EXEC", []) => {
                let queue = self.queue.take().unwrap_or_default();
                queue.into_iter().try_for_each(|words| self.run(words))?;
            }
            ("SELECT" | "SET" | "DEL", _) if self.queue.is_some() => {
                self.queue.as_mut().unwrap().push(words);
            }
            ("SELECT", [db]) if db.parse::<u8>().is_ok_and(|db| db < 16) => self.db = db.clone(),
            ("SET", [key, value]) => {
                let key = (self.db.clone(), key.clone());
                self.state.insert(key, value.clone());
            }
            ("DEL", [key]) => drop(self.state.remove(&(self.db.clone(), key.clone()))),
            _ => return Err(format!("not supported: {words:?}")),
        }
        Ok(())
    }
}

/// Starts a log; what it held, or why it is refused.
fn start(dir: &Scratch, flags: &[&str]) -> Result<(Aof, State), String> {
    hush();
    let aof = Aof::new(config_with(&dir.0, flags));
    let mut model = Model::default();
    aof.start(&mut |records| model.replay(records))?;
    Ok((aof, model.state))
}

/// Appends the records of one batch, each a line of arguments.
fn append(aof: &Aof, lines: &[&str]) {
    let mut records = Records::default();
    records.wanted = true;
    for line in lines {
        let args: Vec<&[u8]> = line.split(' ').map(str::as_bytes).collect();
        write_command(&mut records.bytes, args.into_iter());
    }
    aof.append(&mut records);
}

fn write(aof: &Aof, lines: &[&str]) {
    append(aof, lines);
    aof.commit(aof.position()).unwrap();
}

/// What the sync thread does once a second.
fn tick(aof: &Aof) {
    aof.write(&mut aof.target.lock().unwrap(), Annotate::Now).unwrap();
}

fn keyspace_of(state: &State) -> Keyspace {
    let mut keyspace = Keyspace::new(16);
    for ((db, key), value) in state {
        set(&mut keyspace, db.parse().unwrap(), key.as_bytes(), value);
    }
    keyspace
}

/// A rewrite, with something that happens in the middle of it, when the old files are sealed.
fn rewrite(aof: &Aof, meanwhile: impl Fn()) {
    let replay_all = |manifest: &Manifest| {
        meanwhile();
        let mut model = Model::default();
        replay_sealed(manifest, &mut |records| model.replay(records))?;
        Ok(keyspace_of(&model.state))
    };
    let store = RwLock::new(Keyspace::new(16));
    aof.rewrite_from_log(&store, &replay_all).unwrap();
}

/// The directory of a log in the middle of its second rewrite: a base, a sealed incr file, and
/// one in use, at whose end some records are open.
fn directory_in_a_rewrite() -> (Files, State) {
    let dir = Scratch::new();
    let (aof, _) = start(&dir, &[]).unwrap();
    let value = |n: usize| "v".repeat(n % 90);
    let some = |from: usize, count: usize| {
        for n in from..from + count {
            write(&aof, &[&format!("SET key:{} {}", n % 150, value(n))]);
            if n % 10 == 0 {
                let (a, b) = (format!("SET a {n}"), format!("DEL key:{}", n % 150));
                write(&aof, &["MULTI", &a, &b, "EXEC"]);
            }
        }
    };
    some(0, 200);
    rewrite(&aof, || {});
    some(200, 200);
    let files = RefCell::default();
    rewrite(&aof, || {
        some(400, 150);
        tick(&aof);
        some(550, 4);
        *files.borrow_mut() = dir.files();
    });
    let files = files.into_inner();
    let (_, state) = start(&Scratch::holding(&files), &[]).unwrap();
    (files, state)
}

/// Where the open stretch of a file begins.
fn open_from(file: &[u8]) -> usize {
    let lines = file.split_inclusive(|&byte| byte == b'\n');
    let (mut at, mut open) = (0, 0);
    for line in lines {
        at += line.len();
        if line.starts_with(b"#CRC:") {
            open = at;
        }
    }
    open
}

#[test]
fn no_flipped_bit_changes_a_value_unseen_but_in_what_is_still_open() {
    let (files, state) = directory_in_a_rewrite();
    let names: Vec<&String> = files.keys().collect();
    assert_eq!(names.len(), 4, "{names:?}");
    let is_in_use = |name: &str| name == "appendonly.aof.3.incr.aof";
    for (name, bytes) in &files {
        assert_eq!(open_from(bytes) < bytes.len(), is_in_use(name), "{name}");
    }
    let seed: u64 = std::env::var("SEED").map_or(1, |seed| seed.parse().unwrap());
    let count: usize = std::env::var("FLIPS").map_or(2000, |count| count.parse().unwrap());
    let mut chance = seed;
    let mut below = |bound: usize| {
        chance = chance.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
        (chance >> 33) as usize % bound
    };
    let (mut refused, mut harmless, mut open) = (0, 0, 0);
    let dir = Scratch::new();
    for _ in 0..count {
        let name = names[below(names.len())];
        let bit = below(8 * files[name].len());
        let mut flipped = files.clone();
        flipped.get_mut(name).unwrap()[bit / 8] ^= 1 << (bit % 8);
        dir.fill(&flipped);
        let where_from = open_from(&files[name]);
        match start(&dir, &[]) {
            Err(_) => refused += 1,
            Ok((_, found)) if found == state => harmless += 1,
            Ok(_) if is_in_use(name) && bit / 8 >= where_from => open += 1,
            Ok((_, found)) => {
                let differ = |at: &&(String, String)| found.get(*at) != state.get(*at);
                let keys: Vec<_> = found.keys().chain(state.keys()).filter(differ).collect();
                panic!("bit {bit} of {name} (SEED={seed}) goes unseen: {keys:?}");
            }
        }
    }
    assert!(refused > count / 2, "{refused} refused, {harmless} harmless, {open} open");
}

/// Each bit of each annotation, and all that stands around the last of them.
#[test]
fn no_flipped_bit_of_an_annotation_hides_what_it_covers() {
    let dir = Scratch::new();
    let (aof, _) = start(&dir, &[]).unwrap();
    write(&aof, &["SET a 1"]);
    tick(&aof);
    write(&aof, &["SET b 2"]);
    tick(&aof);
    drop(aof);
    let (files, good) = (dir.files(), dir.incr());
    for bit in 0..8 * good.len() {
        let mut bytes = good.clone();
        bytes[bit / 8] ^= 1 << (bit % 8);
        dir.fill(&files);
        dir.put_incr(&bytes);
        // All but the last line end: without it the line is torn, and what it covers is there.
        let is_last = bit / 8 == good.len() - 1;
        match start(&dir, &[]) {
            Ok((_, state)) => assert!(is_last && state.len() == 2, "bit {bit}: {state:?}"),
            Err(reason) => assert!(!is_last && reason.contains("damaged"), "bit {bit}: {reason}"),
        }
    }
}

#[test]
fn a_stretch_that_was_whole_is_no_torn_tail() {
    let dir = Scratch::new();
    let (aof, _) = start(&dir, &[]).unwrap();
    let long = "v".repeat(50);
    write(&aof, &[&format!("SET k {long}")]);
    aof.sync_all().unwrap();
    drop(aof);
    let text = String::from_utf8(dir.incr()).unwrap();
    // The length reaches behind the end of the file.
    dir.put_incr(text.replace("$50", "$90").as_bytes());
    let reason = start(&dir, &[]).map(|_| ()).unwrap_err();
    assert!(reason.contains("between offset 0 and 100"), "{reason}");
}

/// Two files, of which the second is in use.
fn sealed(base: &[u8]) -> Scratch {
    let manifest = b"file b seq 1 type b\nfile i seq 1 type i\n";
    let files =
        [("b", base), ("i", b"*1\r\n$4\r\nEXEC\r\n"), ("appendonly.aof.manifest", manifest)];
    let files = files.map(|(name, bytes)| (name.into(), bytes.to_vec()));
    Scratch::holding(&Files::from(files))
}

#[test]
fn a_length_that_makes_a_value_reach_to_the_end_of_a_sealed_file_is_seen() {
    let records = "*3\r\n$3\r\nSET\r\n$1\r\nk\r\n$10\r\n0123456789\r\n*1\r\n$4\r\nEXEC\r\n";
    let mut open = Stretch::default();
    open.add(records.as_bytes());
    let good = [records.as_bytes(), &Claim::of(&open).annotation()].concat();
    let (_, state) = start(&sealed(&good), &[]).unwrap();
    assert_eq!(state.len(), 1);
    // One bit makes 5 of 1, and the value ends where the file does.
    let flipped = String::from_utf8(good).unwrap().replace("$10", "$50");
    let reason = start(&sealed(flipped.as_bytes()), &[]).map(|_| ()).unwrap_err();
    assert!(reason.contains("between offset 0 and 51"), "{reason}");
}

#[test]
fn a_value_that_ends_like_an_annotation_is_none() {
    let value = "x\n#CRC:0000000000000000 7";
    let log = format!("*3\r\n$3\r\nSET\r\n$1\r\nk\r\n${}\r\n{value}\r\n", value.len());
    let (_, state) = start(&sealed(log.as_bytes()), &[]).unwrap();
    assert_eq!(state.values().next().map(String::as_str), Some(value));
}

/// As redis-server or a server before this one leaves it.
#[test]
fn what_another_server_has_appended_is_loaded_and_covered_by_the_next_annotation() {
    let dir = Scratch::new();
    let (aof, _) = start(&dir, &[]).unwrap();
    write(&aof, &["SET a 1"]);
    aof.sync_all().unwrap();
    drop(aof);
    let ours = dir.incr();
    let theirs = b"#TS:1700000000\r\n*3\r\n$3\r\nSET\r\n$1\r\nb\r\n$1\r\n2\r\n";
    let both = [&ours[..], theirs].concat();
    dir.put_incr(&both);
    let (aof, state) = start(&dir, &[]).unwrap();
    assert_eq!(state.len(), 2);
    // Whether anything of ours comes or not.
    tick(&aof);
    drop(aof);
    let all = dir.incr();
    assert_eq!(open_from(&all), all.len());
    let (aof, state) = start(&dir, &[]).unwrap();
    assert_eq!(state.len(), 2);
    drop(aof);
    let mut bytes = all;
    bytes[both.len() - 3] ^= 1;
    dir.put_incr(&bytes);
    let reason = start(&dir, &[]).map(|_| ()).unwrap_err();
    let (from, to) = (ours.len(), both.len());
    assert!(reason.contains(&format!("between offset {from} and {to}")), "{reason}");
}

#[test]
fn a_file_that_is_cut_anywhere_starts_and_goes_on_with_a_true_annotation() {
    let dir = Scratch::new();
    let (aof, _) = start(&dir, &[]).unwrap();
    write(&aof, &["SET a 1"]);
    tick(&aof);
    write(&aof, &["MULTI", "SET b 2", "SET c 3", "EXEC"]);
    tick(&aof);
    drop(aof);
    let (files, all) = (dir.files(), dir.incr());
    for cut in 0..all.len() {
        dir.fill(&files);
        dir.put_incr(&all[..cut]);
        let (aof, before) = start(&dir, &[]).unwrap();
        write(&aof, &["SET d 4"]);
        aof.sync_all().unwrap();
        drop(aof);
        let bytes = dir.incr();
        assert_eq!(open_from(&bytes), bytes.len(), "cut at {cut}");
        let (_, after) = start(&dir, &[]).unwrap_or_else(|error| panic!("cut at {cut}: {error}"));
        assert_eq!(after.len(), before.len() + 1, "cut at {cut}");
    }
}

#[test]
fn an_annotation_stands_behind_every_4_kib_and_in_no_transaction() {
    let dir = Scratch::new();
    let (aof, _) = start(&dir, &[]).unwrap();
    for n in 0..1000 {
        write(&aof, &["MULTI", &format!("SET a {n}"), "SET b 2", "EXEC"]);
    }
    let log = dir.incr();
    let text = String::from_utf8(log.clone()).unwrap();
    let lengths: Vec<u64> = text
        .lines()
        .filter_map(|line| line.strip_prefix("#CRC:")?.split_once(' ')?.1.parse().ok())
        .collect();
    assert!(lengths.len() > 15);
    assert!(lengths.iter().all(|length| (EVERY..EVERY + 100).contains(length)), "{lengths:?}");
    let rest = text.split("#CRC:").skip(1);
    assert!(
        rest.clone().all(|stretch| !stretch.contains("$4\r\nEXEC")
            || stretch.find("MULTI") < stretch.find("EXEC"))
    );
    let size = 28 * lengths.len();
    assert!(size * 100 < log.len(), "annotations are {size} of {} bytes", log.len());
}

/// A write that fails is cut away and tried again, and its annotation with it.
#[test]
fn a_write_that_fails_and_is_tried_again_leaves_a_true_annotation() {
    let dir = Scratch::new();
    let (aof, _) = start(&dir, &[]).unwrap();
    write(&aof, &["SET a 1"]);
    // The disk takes half a record, is full then, and cannot even cut that away.
    let mut room = Some(9);
    dir.0.ask(move |call, _| match call {
        Call::Write | Call::SetLength => match room.take() {
            Some(count) => Fate::Short(count),
            None => Fate::Fails(io::ErrorKind::StorageFull.into()),
        },
        _ => Fate::Works,
    });
    append(&aof, &[&format!("SET b {}", "v".repeat(5000))]);
    aof.commit(aof.position()).unwrap_err();
    append(&aof, &["SET c 3"]);
    aof.write(&mut aof.target.lock().unwrap(), Annotate::Now).unwrap_err();
    dir.0.ask_nobody();
    tick(&aof);
    assert_eq!(aof.refusal(), None);
    drop(aof);
    let bytes = dir.incr();
    assert_eq!(open_from(&bytes), bytes.len());
    let (_, state) = start(&dir, &[]).unwrap();
    assert_eq!(state.len(), 3);
}

#[test]
fn without_aof_checksum_nothing_is_written_and_what_stands_there_is_compared() {
    let dir = Scratch::new();
    let (aof, _) = start(&dir, &[]).unwrap();
    write(&aof, &["SET a 1"]);
    tick(&aof);
    assert_eq!(aof.config.set(&[(b"aof-checksum", b"no")]).map(|_| ()), Ok(()));
    let before = dir.incr().len();
    write(&aof, &["SET b 2"]);
    aof.sync_all().unwrap();
    assert_eq!(dir.incr().len() - before, 27);
    // And again yes: the next annotation covers what was left open.
    assert_eq!(aof.config.set(&[(b"aof-checksum", b"yes")]).map(|_| ()), Ok(()));
    tick(&aof);
    drop(aof);
    let good = dir.incr();
    assert_eq!(open_from(&good), good.len());
    for at in [good.len() - 40, 40] {
        let mut bytes = good.clone();
        bytes[at] ^= 1;
        dir.put_incr(&bytes);
        start(&dir, &["--aof-checksum", "no"]).map(|_| ()).unwrap_err();
    }
}

/// A record that comes when CONFIG SET has synced the file, and before it closes the log.
#[test]
fn what_comes_while_the_log_is_switched_off_is_on_the_disk_before_the_file_is_closed() {
    let dir = Scratch::new();
    let (aof, _) = start(&dir, &["--appendfsync", "always"]).unwrap();
    write(&aof, &["SET a 1"]);
    aof.sync_all().unwrap();
    append(&aof, &["SET b 2"]);
    let position = aof.position();
    assert!(!aof.is_durable(position));
    // The second half of `disable`.
    aof.close();
    assert!(aof.is_durable(position));
    aof.commit(position).unwrap();
    let (_, state) = start(&dir, &[]).unwrap();
    assert_eq!(state.len(), 2);
}

/// Under `always` nobody may be told OK for what a power cut could still take.
#[test]
fn what_a_new_base_holds_is_not_durable_while_the_list_that_names_it_is_not() {
    let dir = Scratch::new();
    let (aof, _) = start(&dir, &["--appendfsync", "always"]).unwrap();
    append(&aof, &["SET a 1"]);
    let position = aof.position();
    let (manifest, lock) = aof.in_use().unwrap();
    let file = disk::open(&dir.log().join(INCR), Opening::Append).unwrap();
    let synced = Err(io::Error::other("the disk is gone"));
    aof.go_on_in(file, manifest, lock, synced).unwrap_err();
    assert_eq!(aof.commit(position), Err("the disk is gone".into()));
}
