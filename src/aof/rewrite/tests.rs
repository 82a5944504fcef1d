//! The log without a server around it: what stands in its files, and what a start makes of them
//! when a bit has flipped.

use super::*;
use crate::aof::checksum::EVERY;
use crate::config::{Config, Start};
use crate::key::Key;
use crate::propagate::{Records, Source};
use crate::resp::{Arg, Args};
use std::fs;

use crate::store::{Notes, Time, ViewMut};
use crate::types::{Limits, Packed};
use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::atomic::AtomicUsize;

/// A directory that goes with the test.
struct Scratch(PathBuf);

impl Scratch {
    fn new() -> Scratch {
        static COUNT: AtomicUsize = AtomicUsize::new(0);
        let number = COUNT.fetch_add(1, Ordering::Relaxed);
        let name = format!("simple-redis-log-{}-{number}", std::process::id());
        let path = std::env::temp_dir().join(name);
        let _ = fs::remove_dir_all(&path);
        fs::create_dir_all(path.join("appendonlydir")).unwrap();
        Scratch(path)
    }

    /// With these files in the log's directory.
    fn holding(files: &Files) -> Scratch {
        let scratch = Scratch::new();
        scratch.fill(files);
        scratch
    }

    fn log(&self) -> PathBuf {
        self.0.join("appendonlydir")
    }

    fn fill(&self, files: &Files) {
        for file in fs::read_dir(self.log()).unwrap() {
            fs::remove_file(file.unwrap().path()).unwrap();
        }
        for (name, bytes) in files {
            fs::write(self.log().join(name), bytes).unwrap();
        }
    }

    fn files(&self) -> Files {
        let files = fs::read_dir(self.log()).unwrap().map(|file| {
            let file = file.unwrap();
            let name = file.file_name().into_string().unwrap();
            (name, fs::read(file.path()).unwrap())
        });
        files.collect()
    }

    /// The only incr file.
    fn incr(&self) -> PathBuf {
        self.log().join("appendonly.aof.1.incr.aof")
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

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

fn new_log(dir: &Scratch, flags: &[&str]) -> Aof {
    // Nobody wants to read of each tail that is cut here.
    let _ = log::into_file("/dev/null".as_ref());
    let dir = dir.0.to_str().unwrap();
    let own = ["--dir", dir, "--loglevel", "warning"];
    let all = own.iter().chain(flags).map(|flag| flag.into());
    match Config::from_args(all) {
        Ok(Start::Serve(config, _)) => Aof::new(config),
        _ => panic!("{flags:?} are flags"),
    }
}

/// Starts a log; what it held, or why it is refused.
fn start(dir: &Scratch, flags: &[&str]) -> Result<(Aof, State), String> {
    let aof = new_log(dir, flags);
    let mut model = Model::default();
    aof.start(&mut |records| model.replay(records))?;
    Ok((aof, model.state))
}

/// The records of one batch, each a line of words; where in the file they are to stand.
fn append(aof: &Aof, lines: &[&str]) -> Range<i64> {
    let mut records = Records::default();
    records.wanted = true;
    for line in lines {
        records.begin();
        records.push(0, line.split(' ').map(str::as_bytes).collect::<Vec<_>>().into_iter());
        records.end();
    }
    aof.append(&mut records)
}

fn write(aof: &Aof, lines: &[&str]) {
    append(aof, lines);
    aof.commit(aof.position()).unwrap();
}

/// What the sync thread does once a second.
fn tick(aof: &Aof) {
    aof.write(&mut aof.target.lock().unwrap(), Seal::Now).unwrap();
}

fn keyspace_of(state: &State) -> Keyspace {
    let mut keyspace = Keyspace::new(16);
    let hash = Packed { entries: 512, value: 64 };
    let limits = Limits { hash, string: 1 << 29 };
    let time = Time { now: 0, source: Source::Log };
    let (notes, mut records) = (Notes::default(), Records::default());
    for ((db, key), value) in state {
        let db = db.parse().unwrap();
        let mut view = ViewMut::new(&mut keyspace, db, time, limits, &mut records, &notes);
        view.set_string(Key::of(key.as_bytes()), Arg::Small(value.as_bytes()), false);
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
    let files = Mutex::default();
    rewrite(&aof, || {
        some(400, 150);
        tick(&aof);
        some(550, 4);
        *files.lock().unwrap() = dir.files();
    });
    let files = files.into_inner().unwrap();
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
    let (files, good) = (dir.files(), fs::read(dir.incr()).unwrap());
    for bit in 0..8 * good.len() {
        let mut bytes = good.clone();
        bytes[bit / 8] ^= 1 << (bit % 8);
        dir.fill(&files);
        fs::write(dir.incr(), &bytes).unwrap();
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
    aof.finish().unwrap();
    drop(aof);
    let text = String::from_utf8(fs::read(dir.incr()).unwrap()).unwrap();
    // The length reaches behind the end of the file.
    fs::write(dir.incr(), text.replace("$50", "$90")).unwrap();
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
    aof.finish().unwrap();
    drop(aof);
    let ours = fs::read(dir.incr()).unwrap();
    let theirs = b"#TS:1700000000\r\n*3\r\n$3\r\nSET\r\n$1\r\nb\r\n$1\r\n2\r\n";
    let both = [&ours[..], theirs].concat();
    fs::write(dir.incr(), &both).unwrap();
    let (aof, state) = start(&dir, &[]).unwrap();
    assert_eq!(state.len(), 2);
    // Whether anything of ours comes or not.
    tick(&aof);
    drop(aof);
    let all = fs::read(dir.incr()).unwrap();
    assert_eq!(open_from(&all), all.len());
    let (aof, state) = start(&dir, &[]).unwrap();
    assert_eq!(state.len(), 2);
    drop(aof);
    let mut bytes = all;
    bytes[both.len() - 3] ^= 1;
    fs::write(dir.incr(), bytes).unwrap();
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
    let (files, all) = (dir.files(), fs::read(dir.incr()).unwrap());
    for cut in 0..all.len() {
        dir.fill(&files);
        fs::write(dir.incr(), &all[..cut]).unwrap();
        let (aof, before) = start(&dir, &[]).unwrap();
        write(&aof, &["SET d 4"]);
        aof.finish().unwrap();
        drop(aof);
        let bytes = fs::read(dir.incr()).unwrap();
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
    let log = fs::read(dir.incr()).unwrap();
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
    let full = Arc::new(disk::open(Path::new("/dev/full"), Opening::Append).unwrap());
    let swap = |file: Arc<File>| {
        let mut guard = aof.target.lock().unwrap();
        std::mem::replace(&mut guard.as_mut().unwrap().file, file)
    };
    let file = swap(full);
    append(&aof, &[&format!("SET b {}", "v".repeat(5000))]);
    aof.commit(aof.position()).unwrap_err();
    append(&aof, &["SET c 3"]);
    aof.write(&mut aof.target.lock().unwrap(), Seal::Now).unwrap_err();
    // As when half of it had arrived.
    (&*file).write_all(b"*3\r\n$3\r\n").unwrap();
    swap(file);
    tick(&aof);
    assert_eq!(aof.refusal(), None);
    drop(aof);
    let bytes = fs::read(dir.incr()).unwrap();
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
    let before = fs::metadata(dir.incr()).unwrap().len();
    write(&aof, &["SET b 2"]);
    aof.finish().unwrap();
    assert_eq!(fs::metadata(dir.incr()).unwrap().len() - before, 27);
    // And again yes: the next annotation covers what was left open.
    assert_eq!(aof.config.set(&[(b"aof-checksum", b"yes")]).map(|_| ()), Ok(()));
    tick(&aof);
    drop(aof);
    let good = fs::read(dir.incr()).unwrap();
    assert_eq!(open_from(&good), good.len());
    for at in [good.len() - 40, 40] {
        let mut bytes = good.clone();
        bytes[at] ^= 1;
        fs::write(dir.incr(), bytes).unwrap();
        start(&dir, &["--aof-checksum", "no"]).map(|_| ()).unwrap_err();
    }
}

/// A record that comes when CONFIG SET has synced the file, and before it lets it go.
#[test]
fn what_comes_while_the_log_is_switched_off_is_on_the_disk_before_the_file_is_let_go() {
    let dir = Scratch::new();
    let (aof, _) = start(&dir, &["--appendfsync", "always"]).unwrap();
    write(&aof, &["SET a 1"]);
    aof.finish().unwrap();
    append(&aof, &["SET b 2"]);
    let position = aof.position();
    assert!(!aof.is_durable(position));
    // The second half of `disable`.
    aof.let_go();
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
    let (manifest, lock) = aof.listed().unwrap();
    let file = disk::open(&dir.incr(), Opening::Append).unwrap();
    let synced = Err(io::Error::other("the disk is gone"));
    aof.go_on_in(file, manifest, lock, synced).unwrap_err();
    assert_eq!(aof.commit(position), Err("the disk is gone".into()));
}

#[test]
fn an_annotation_moves_what_is_appended_behind_it_and_the_trace_knows() {
    let dir = Scratch::new();
    let (aof, _) = start(&dir, &[]).unwrap();
    let mut places = Vec::new();
    for n in 0..500 {
        let value = format!("value:{n}");
        places.push((append(&aof, &[&format!("SET key {value}")]), value));
        if n % 3 == 0 {
            aof.commit(aof.position()).unwrap();
        }
        if n % 50 == 0 {
            tick(&aof);
        }
    }
    aof.finish().unwrap();
    let log = String::from_utf8(fs::read(dir.incr()).unwrap()).unwrap();
    for (place, value) in places {
        let record = &log[place.start as usize..place.end as usize];
        assert!(record.ends_with(&format!("{value}\r\n")), "{value}: {record}");
    }
}
