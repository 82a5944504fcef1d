//! The log without a server around it: what stands in its files, and what a start makes of them
//! when a bit has flipped.

use super::*;
use crate::aof::checksum::{Claim, EVERY, Stretch};
use crate::aof::disk::Opening;
use crate::aof::disk::simulated::{Call, Disk, Fate, State};
use crate::aof::power_cuts::{Contents, Random, append, config_with, replay_all, start_on, write};
use std::cell::Cell;
use std::io::Write as _;
use std::rc::Rc;

/// The directory of a log, on a simulated disk (aof/disk/simulated.rs).
struct Scratch(Rc<Disk>);

impl Scratch {
    /// With these files in it.
    fn holding(files: &[(&str, &[u8])]) -> Scratch {
        let scratch = Scratch(Disk::new());
        disk::create_dir_all(scratch.path("")).unwrap();
        files.iter().for_each(|(name, bytes)| scratch.put(name, bytes));
        scratch
    }

    /// With a log that has just begun.
    fn with_log(flags: &[&str]) -> (Scratch, Aof) {
        let scratch = Scratch(Disk::new());
        let aof = scratch.start_with(flags).unwrap().0;
        (scratch, aof)
    }

    /// Starts the log; what it holds, or why it is refused.
    fn start_with(&self, flags: &[&str]) -> Result<(Aof, Contents), String> {
        start_on(&config_with(&self.0, flags))
    }

    fn start(&self) -> Result<Contents, String> {
        self.start_with(&[]).map(|(_, contents)| contents)
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.root.join("appendonlydir").join(name)
    }

    fn get(&self, name: &str) -> Vec<u8> {
        disk::read_from(&self.path(name), 0).unwrap()
    }

    fn put(&self, name: &str, bytes: &[u8]) {
        let mut file = disk::open(&self.path(name), Opening::Empty).unwrap();
        file.write_all(bytes).unwrap();
    }
}

const INCR: &str = "appendonly.aof.1.incr.aof";

/// What the sync thread does once a second.
fn tick(aof: &Aof) {
    aof.write(&mut aof.target.lock().unwrap(), Annotate::Now).unwrap();
}

/// A rewrite, with something that happens in the middle of it, when the old files are sealed.
fn rewrite(aof: &Aof, meanwhile: impl Fn()) {
    let replay_all = |manifest: &Manifest| {
        meanwhile();
        replay_all(manifest)
    };
    aof.rewrite_from_log(&Store::new(Keyspace::new(1)), &replay_all).unwrap();
}

/// The disk of a log in the middle of its second rewrite: a base, a sealed incr file, and one in use, at whose
/// end some records are open.
fn disk_in_a_rewrite() -> State {
    let (dir, aof) = Scratch::with_log(&[]);
    let some = |from: usize, count: usize| {
        for n in from..from + count {
            write(&aof, &[&format!("SET key:{} {}", n % 150, "v".repeat(n % 90))]);
            if n % 10 == 0 {
                let (a, b) = (format!("SET a {n}"), format!("DEL key:{}", n % 150));
                write(&aof, &["MULTI", &a, &b, "EXEC"]);
            }
        }
    };
    some(0, 200);
    rewrite(&aof, || {});
    some(200, 200);
    let state = Cell::default();
    rewrite(&aof, || {
        some(400, 150);
        tick(&aof);
        some(550, 4);
        state.set(Some(dir.0.as_it_is()));
    });
    state.take().unwrap()
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
    let dir = Scratch(Disk::new());
    let state = disk_in_a_rewrite();
    dir.0.put(state.clone());
    let whole = dir.start().unwrap();
    dir.0.put(state.clone());
    let names = disk::list(&dir.path("")).unwrap();
    let files: Vec<_> = names.into_iter().map(|(name, _)| (dir.get(&name), name)).collect();
    assert_eq!(files.len(), 4, "{files:?}");
    let is_in_use = |name: &str| name == "appendonly.aof.3.incr.aof";
    for (bytes, name) in &files {
        assert_eq!(open_from(bytes) < bytes.len(), is_in_use(name), "{name}");
    }
    let seed: u64 = std::env::var("SEED").map_or(1, |seed| seed.parse().unwrap());
    let count: usize = std::env::var("FLIPS").map_or(2000, |count| count.parse().unwrap());
    let mut random = Random(seed);
    let (mut refused, mut harmless, mut open) = (0, 0, 0);
    for _ in 0..count {
        let (bytes, name) = &files[random.below(files.len())];
        let bit = random.below(8 * bytes.len());
        dir.0.put(state.clone());
        dir.put(name, &flipped(bytes, bit));
        match dir.start() {
            Err(_) => refused += 1,
            Ok(found) if found == whole => harmless += 1,
            Ok(_) if is_in_use(name) && bit / 8 >= open_from(bytes) => open += 1,
            Ok(found) => {
                let differ = |key: &&String| found.get(*key) != whole.get(*key);
                let keys: Vec<_> = found.keys().chain(whole.keys()).filter(differ).collect();
                panic!("bit {bit} of {name} (SEED={seed}) goes unseen: {keys:?}");
            }
        }
    }
    assert!(refused > count / 2, "{refused} refused, {harmless} harmless, {open} open");
}

fn flipped(bytes: &[u8], bit: usize) -> Vec<u8> {
    let mut bytes = bytes.to_vec();
    bytes[bit / 8] ^= 1 << (bit % 8);
    bytes
}

/// Each bit of each annotation, and all that stands around the last of them.
#[test]
fn no_flipped_bit_of_an_annotation_hides_what_it_covers() {
    let (dir, aof) = Scratch::with_log(&[]);
    write(&aof, &["SET a 1"]);
    tick(&aof);
    write(&aof, &["SET b 2"]);
    tick(&aof);
    drop(aof);
    let (state, good) = (dir.0.as_it_is(), dir.get(INCR));
    for bit in 0..8 * good.len() {
        dir.0.put(state.clone());
        dir.put(INCR, &flipped(&good, bit));
        // All but the last line end: without it the line is torn, and what it covers is there.
        let is_last = bit / 8 == good.len() - 1;
        match dir.start() {
            Ok(found) => assert!(is_last && found.len() == 2, "bit {bit}: {found:?}"),
            Err(reason) => assert!(!is_last && reason.contains("damaged"), "bit {bit}: {reason}"),
        }
    }
}

/// Two files, of which the second is in use.
fn sealed(base: &[u8]) -> Scratch {
    let manifest = b"file b seq 1 type b\nfile i seq 1 type i\n";
    let exec = b"*1\r\n$4\r\nEXEC\r\n";
    Scratch::holding(&[("b", base), ("i", exec), ("appendonly.aof.manifest", manifest)])
}

#[test]
fn a_length_that_makes_a_value_reach_to_the_end_of_a_sealed_file_is_seen() {
    let records = "*3\r\n$3\r\nSET\r\n$1\r\nk\r\n$10\r\n0123456789\r\n*1\r\n$4\r\nEXEC\r\n";
    let mut open = Stretch::default();
    open.add(records.as_bytes());
    let good = [records.as_bytes(), &Claim::of(&open).annotation()].concat();
    assert_eq!(sealed(&good).start().unwrap().len(), 1);
    // One bit makes 5 of 1, and the value ends where the file does.
    let flipped = String::from_utf8(good).unwrap().replace("$10", "$50");
    let reason = sealed(flipped.as_bytes()).start().unwrap_err();
    assert!(reason.contains("between offset 0 and 51"), "{reason}");
}

#[test]
fn a_value_that_ends_like_an_annotation_is_none() {
    let value = "x\n#CRC:0000000000000000 7";
    let log = format!("*3\r\n$3\r\nSET\r\n$1\r\nk\r\n${}\r\n{value}\r\n", value.len());
    assert_eq!(sealed(log.as_bytes()).start().unwrap()["k"], value);
}

/// As redis-server or a server before this one leaves it.
#[test]
fn what_another_server_has_appended_is_loaded_and_covered_by_the_next_annotation() {
    let (dir, aof) = Scratch::with_log(&[]);
    write(&aof, &["SET a 1"]);
    aof.sync_all().unwrap();
    drop(aof);
    let ours = dir.get(INCR);
    let theirs = b"#TS:1700000000\r\n*3\r\n$3\r\nSET\r\n$1\r\nb\r\n$1\r\n2\r\n";
    let both = [&ours[..], theirs].concat();
    dir.put(INCR, &both);
    let (aof, found) = dir.start_with(&[]).unwrap();
    assert_eq!(found.len(), 2);
    // Whether anything of ours comes or not.
    tick(&aof);
    drop(aof);
    let all = dir.get(INCR);
    assert_eq!(open_from(&all), all.len());
    assert_eq!(dir.start().unwrap().len(), 2);
    dir.put(INCR, &flipped(&all, 8 * (both.len() - 3)));
    let reason = dir.start().unwrap_err();
    let (from, to) = (ours.len(), both.len());
    assert!(reason.contains(&format!("between offset {from} and {to}")), "{reason}");
}

#[test]
fn a_file_that_is_cut_anywhere_starts_and_goes_on_with_a_true_annotation() {
    let (dir, aof) = Scratch::with_log(&[]);
    write(&aof, &["SET a 1"]);
    tick(&aof);
    write(&aof, &["MULTI", "SET b 2", "SET c 3", "EXEC"]);
    tick(&aof);
    drop(aof);
    let (state, all) = (dir.0.as_it_is(), dir.get(INCR));
    for cut in 0..all.len() {
        dir.0.put(state.clone());
        dir.put(INCR, &all[..cut]);
        let (aof, before) = dir.start_with(&[]).unwrap();
        write(&aof, &["SET d 4"]);
        aof.sync_all().unwrap();
        drop(aof);
        let bytes = dir.get(INCR);
        assert_eq!(open_from(&bytes), bytes.len(), "cut at {cut}");
        let after = dir.start().unwrap_or_else(|error| panic!("cut at {cut}: {error}"));
        assert_eq!(after.len(), before.len() + 1, "cut at {cut}");
    }
}

#[test]
fn an_annotation_stands_behind_every_4_kib_and_in_no_transaction() {
    let (dir, aof) = Scratch::with_log(&[]);
    for n in 0..1000 {
        write(&aof, &["MULTI", &format!("SET a {n}"), "SET b 2", "EXEC"]);
    }
    let log = dir.get(INCR);
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
    let (dir, aof) = Scratch::with_log(&[]);
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
    assert_eq!(aof.failure(), None);
    drop(aof);
    let bytes = dir.get(INCR);
    assert_eq!(open_from(&bytes), bytes.len());
    assert_eq!(dir.start().unwrap().len(), 3);
}

#[test]
fn without_aof_checksum_nothing_is_written_and_what_stands_there_is_compared() {
    let (dir, aof) = Scratch::with_log(&[]);
    write(&aof, &["SET a 1"]);
    tick(&aof);
    assert_eq!(aof.config.set(&[(b"aof-checksum", b"no")]).map(|_| ()), Ok(()));
    let before = dir.get(INCR).len();
    write(&aof, &["SET b 2"]);
    aof.sync_all().unwrap();
    assert_eq!(dir.get(INCR).len() - before, 27);
    // And again yes: the next annotation covers what was left open.
    assert_eq!(aof.config.set(&[(b"aof-checksum", b"yes")]).map(|_| ()), Ok(()));
    tick(&aof);
    drop(aof);
    let good = dir.get(INCR);
    assert_eq!(open_from(&good), good.len());
    for at in [good.len() - 40, 40] {
        dir.put(INCR, &flipped(&good, 8 * at));
        dir.start_with(&["--aof-checksum", "no"]).map(|_| ()).unwrap_err();
    }
}

/// A record that comes when CONFIG SET has synced the file, and before it closes the log.
#[test]
fn what_comes_while_the_log_is_switched_off_is_on_the_disk_before_the_file_is_closed() {
    let (dir, aof) = Scratch::with_log(&["--appendfsync", "always"]);
    write(&aof, &["SET a 1"]);
    aof.sync_all().unwrap();
    append(&aof, &["SET b 2"]);
    let position = aof.position();
    assert!(!aof.is_durable(position));
    // The second half of `disable`.
    aof.close();
    assert!(aof.is_durable(position));
    aof.commit(position).unwrap();
    assert_eq!(dir.start().unwrap().len(), 2);
}

/// Under `always` nobody may be told OK for what a power cut could still take.
#[test]
fn what_a_new_base_holds_is_not_durable_while_the_list_that_names_it_is_not() {
    let (dir, aof) = Scratch::with_log(&["--appendfsync", "always"]);
    append(&aof, &["SET a 1"]);
    let position = aof.position();
    let (manifest, lock) = aof.in_use().unwrap();
    let file = disk::open(&dir.path(INCR), Opening::Append).unwrap();
    let synced = Err(io::Error::other("the disk is gone"));
    aof.go_on_in(file, manifest, lock, synced).unwrap_err();
    assert_eq!(aof.commit(position), Err("the disk is gone".into()));
}
