//! Power cuts, some thousand of them: the log is started on what a cut may have left.
//!
//! A history has some dozen steps: writes, fsyncs, rewrites, failed rewrites, the log switched off and on,
//! kills, cuts. At each call to the simulated disk (disk/simulated.rs) other clients may write, the process may
//! be killed, and the power may fail. Of each cut one possible outcome is tried:
//!
//! 1. The start is not refused.
//! 2. It finds a moment of the history: nothing is missing in the middle.
//! 3. The moment holds all that was promised. After a kill this is whatever was acknowledged. After a cut it is
//!    what the log has called durable (as WAITAOF tells), and under `always` whatever was acknowledged.
//! 4. What is written and fsynced then survives the next cut.
//!
//! All happens in one thread, so a seed repeats a failure: `SEED=…` runs that history alone.

use super::disk::simulated::{Call, Disk, Fate, State};
use super::load::Part;
use super::manifest::Manifest;
use super::rewrite::replay_sealed;
use super::{Aof, Position, start};
use crate::config::{Config, Start};
use crate::key::Key;
use crate::propagate::{Records, Source};
use crate::resp::{Arg, write_command};
use crate::store::{Keyspace, Report, Store, Time, Ttl, ViewMut};
use crate::types::Limits;
use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::io::{self, ErrorKind};
use std::path::Path;
use std::rc::Rc;
use std::sync::Arc;

/// What a log holds: keys and values. The key of another database than 0 has its number in front.
pub type Contents = BTreeMap<String, String>;

/// With this many keys, a write that is missing in the middle is hardly ever hidden by a later one.
const KEYS: usize = 23;

/// One write: `SET key serial`.
#[derive(Clone)]
struct Write {
    key: String,
    serial: u64,
    /// The log's position behind it; none if the log was off.
    end: Option<Position>,
}

/// One history.
struct World {
    random: RefCell<Random>,
    disk: Rc<Disk>,
    /// Where the outcomes of cuts are tried.
    other: Rc<Disk>,
    fsync: &'static str,
    config: RefCell<Arc<Config>>,
    aof: RefCell<Rc<Aof>>,
    store: Store,
    history: RefCell<Vec<Write>>,
    /// Writes of the history that must survive a power cut, whatever the log says now.
    floor: Cell<usize>,
    /// Writes that must survive a kill.
    acknowledged: Cell<usize>,
    serial: Cell<u64>,
    /// Of a thousand calls this many fail.
    faults: Cell<usize>,
    /// Whether nobody writes: while a start is running.
    quiet: Cell<bool>,
    cuts: Cell<u64>,
}

pub struct Random(pub u64);

impl Random {
    /// SplitMix64.
    pub fn below(&mut self, bound: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        ((z ^ (z >> 31)) % bound as u64) as usize
    }
}

pub(super) fn config(disk: &Disk, fsync: &str) -> Arc<Config> {
    config_with(disk, &["--appendfsync", fsync])
}

pub fn config_with(disk: &Disk, flags: &[&str]) -> Arc<Config> {
    let dir = ["--dir", disk.root.to_str().expect("a plain name")];
    match Config::from_args(dir.iter().chain(flags).map(|flag| flag.into())) {
        Ok(Start::Serve(config, _)) => config,
        _ => panic!("{flags:?} are flags"),
    }
}

/// What many starts print would hide what the tests print.
pub fn print_nothing() {
    let null = std::fs::File::options().write(true).open("/dev/null");
    crate::log::into_file(null.expect("/dev/null can be written"));
}

/// Starts a log; returns it and what it holds.
pub(super) fn start_on(config: &Arc<Config>) -> Result<(Aof, Contents), String> {
    print_nothing();
    let aof = Aof::new(config.clone());
    let mut model = Model::default();
    aof.start(&mut |part| model.replay(part))?;
    Ok((aof, model.contents))
}

/// What replays SET and DEL. It refuses other commands, as a server does.
#[derive(Default)]
struct Model {
    contents: Contents,
    db: String,
    queue: Option<Vec<Vec<String>>>,
}

impl Model {
    fn replay(&mut self, part: Part) -> Result<(), (usize, String)> {
        let Part::Records(records) = part else {
            return Err((0, "it is a snapshot".into()));
        };
        for (index, args) in records.iter().enumerate() {
            let words = args.iter().map(|word| String::from_utf8_lossy(word).into_owned());
            self.run(words.collect()).map_err(|reason| (index, reason))?;
        }
        Ok(())
    }

    fn run(&mut self, words: Vec<String>) -> Result<(), String> {
        let key = |key: &String| match self.db.as_str() {
            "0" => key.clone(),
            db => format!("{db} {key}"),
        };
        match (words[0].to_ascii_uppercase().as_str(), &words[1..]) {
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
            ("SET", [name, value]) => drop(self.contents.insert(key(name), value.clone())),
            ("DEL", [name]) => drop(self.contents.remove(&key(name))),
            _ => return Err(format!("not supported: {words:?}")),
        }
        Ok(())
    }
}

/// What a rewrite does in step (c).
pub(super) fn replay_all(manifest: &Manifest) -> Result<Keyspace, String> {
    let mut model = Model::default();
    replay_sealed(manifest, &mut |part| model.replay(part))?;
    Ok(keyspace(&model.contents))
}

pub fn keyspace(contents: &Contents) -> Keyspace {
    let mut keyspace = Keyspace::new(1);
    contents.iter().for_each(|(key, value)| set(&mut keyspace, key, value));
    keyspace
}

fn set(keyspace: &mut Keyspace, key: &str, value: &str) {
    let report = Report::default();
    let time = Time { now: 0, source: Source::Log };
    let limits = Limits { string: 1 << 20, ..Limits::NOTHING };
    let mut records = Records::default();
    let mut view = ViewMut::new(keyspace, 0, time, &limits, &mut records, &report);
    view.set_string(Key::of(key.as_bytes()), Arg::Small(value.as_bytes()), Ttl::Gone);
}

/// Appends the records of one batch, each a line of arguments.
pub(super) fn append(aof: &Aof, lines: &[&str]) {
    let mut records = Records::default();
    for line in lines {
        let args: Vec<&[u8]> = line.split(' ').map(str::as_bytes).collect();
        write_command(&mut records.bytes, args.into_iter());
    }
    aof.append(&mut records);
}

/// The same, and waits until it may be acknowledged.
pub(super) fn write(aof: &Aof, lines: &[&str]) {
    append(aof, lines);
    aof.commit(aof.position()).expect("a disk that works");
}

impl World {
    fn new(seed: u64) -> Rc<World> {
        let mut random = Random(seed);
        let fsync = ["always", "everysec"][random.below(2)];
        let (disk, other) = (Disk::new(), Disk::new());
        let config = config(&disk, fsync);
        let world = Rc::new(World {
            faults: [0, 0, 20, 100][random.below(4)].into(),
            random: random.into(),
            disk: disk.clone(),
            other,
            fsync,
            aof: Rc::new(Aof::new(config.clone())).into(),
            config: config.into(),
            store: Store::new(Keyspace::new(1)),
            history: RefCell::default(),
            floor: Cell::default(),
            acknowledged: Cell::default(),
            serial: Cell::default(),
            quiet: Cell::default(),
            cuts: Cell::default(),
        });
        let hook = Rc::downgrade(&world);
        disk.ask(move |call, path| match hook.upgrade() {
            Some(world) => world.meanwhile(call, path),
            None => Fate::Works,
        });
        world.start();
        world
    }

    fn below(&self, bound: usize) -> usize {
        self.random.borrow_mut().below(bound)
    }

    fn aof(&self) -> Rc<Aof> {
        self.aof.borrow().clone()
    }

    /// What happens before a call, and the fate of that call.
    fn meanwhile(&self, call: Call, path: &Path) -> Fate {
        self.perhaps_fail(call, path);
        if !self.quiet.get() && self.below(4) == 0 {
            self.write();
            self.perhaps_fail(call, path);
        }
        if self.below(1000) >= self.faults.get() {
            return Fate::Works;
        }
        match call {
            Call::Write => match self.below(2) {
                0 => Fate::Short(self.below(40)),
                _ => Fate::Fails(ErrorKind::StorageFull.into()),
            },
            Call::Rename if self.below(2) == 0 => Fate::SaysItFailed(ErrorKind::NotFound.into()),
            // EIO.
            _ => Fate::Fails(io::Error::from_raw_os_error(5)),
        }
    }

    /// The power may fail now, or somebody may kill the process.
    fn perhaps_fail(&self, call: Call, path: &Path) {
        let what = |event: &str| format!("a {event} before {call:?} of {}", path.display());
        match self.below(10) {
            0 => self.start_on_what_is_left(self.cut_off(), self.promised(), 2, &|| what("cut")),
            1 => {
                let floor = self.promised().max(self.acknowledged.get());
                self.start_on_what_is_left(self.disk.as_it_is(), floor, 2, &|| what("kill"));
            }
            _ => {}
        }
    }

    /// What a power cut at this moment may leave.
    fn cut_off(&self) -> State {
        let mut random = self.random.borrow_mut();
        self.disk.after_power_cut(&mut |bound| random.below(bound), false)
    }

    /// A client that writes. It gets its OK, unless this thread is at work in the log and holds its mutexes.
    fn write(&self) {
        let aof = self.aof();
        if aof.failure().is_some() {
            return;
        }
        // A rewrite from memory holds it, and then nobody writes.
        let Some(Ok(mut keyspace)) = self.store.try_write(false) else {
            return;
        };
        let key = format!("key{}", self.below(KEYS));
        let serial = self.serial.get() + 1;
        self.serial.set(serial);
        set(&mut keyspace, &key, &serial.to_string());
        append(&aof, &[&format!("SET {key} {serial}")]);
        let end = aof.is_enabled().then(|| aof.position());
        let write = Write { key, serial, end };
        self.history.borrow_mut().push(write);
        let count = self.history.borrow().len();
        drop(keyspace);
        let is_free = aof.target.try_lock().is_ok() && !*aof.syncs.turn.lock().unwrap();
        // Some wait a little.
        let commits = is_free && end.is_some() && self.below(4) > 0;
        if commits && aof.commit(aof.position()).is_ok() {
            self.acknowledged.set(self.acknowledged.get().max(count));
            if self.fsync == "always" {
                self.floor.set(self.floor.get().max(count));
            }
        }
    }

    /// Writes of the history that must survive a power cut now.
    fn promised(&self) -> usize {
        let aof = self.aof();
        let history = self.history.borrow();
        let is_durable = |write: &Write| write.end.is_some_and(|end| aof.is_durable(end));
        let durable = history.iter().rposition(is_durable);
        self.floor.get().max(durable.map_or(0, |last| last + 1))
    }

    /// Starts a log on what a cut or a kill has left, and checks what it finds.
    fn start_on_what_is_left(
        &self,
        state: State,
        floor: usize,
        depth: usize,
        what: &dyn Fn() -> String,
    ) {
        self.cuts.set(self.cuts.get() + 1);
        self.other.put(state);
        let again = self.cut_again(depth > 0 && self.below(4) == 0);
        let config = config(&self.other, self.fsync);
        let (aof, contents) = match start_on(&config) {
            Ok(started) => started,
            Err(error) => panic!("refused after {}: {error}", what()),
        };
        self.other.ask_nobody();
        let found = self.moment(&contents, what);
        assert!(found >= floor, "{floor} writes were promised, {found} are there after {}", what());
        if depth > 0 && self.below(4) == 0 {
            // What is written from now on, and fsynced, stays, whatever else is lost.
            write(&aof, &["SET after 0"]);
            aof.sync_to(aof.position()).expect("a disk that works");
            drop(aof);
            let nothing_more = self.other.after_power_cut(&mut |_| 0, false);
            self.other.put(nothing_more);
            let (_, mut again) = start_on(&config).expect("a second start");
            assert_eq!(again.remove("after").as_deref(), Some("0"), "after {}", what());
            assert_eq!(again, contents, "after {}", what());
        }
        if let Some(state) = again.take() {
            self.start_on_what_is_left(state, self.promised(), depth - 1, &|| {
                format!("another cut, in the start after {}", what())
            });
        }
    }

    /// Cuts the power of the other disk too, at some call of the start that follows. Returns the place where
    /// the outcome will be put, if that happens.
    fn cut_again(&self, wanted: bool) -> Rc<RefCell<Option<State>>> {
        let again: Rc<RefCell<Option<State>>> = Rc::default();
        if wanted {
            let (again, disk) = (again.clone(), Rc::downgrade(&self.other));
            let mut random = Random(self.random.borrow().0);
            self.other.ask(move |_, _| {
                if random.below(6) == 0 && again.borrow().is_none() {
                    let disk = disk.upgrade().expect("it is in use");
                    let state = disk.after_power_cut(&mut |bound| random.below(bound), false);
                    *again.borrow_mut() = Some(state);
                }
                Fate::Works
            });
        }
        again
    }

    /// The number of writes after which the keys were like this. There must be such a moment.
    fn moment(&self, contents: &Contents, what: &dyn Fn() -> String) -> usize {
        let history = self.history.borrow();
        let serials = contents.values().map(|value| value.parse().expect("a number"));
        let last: u64 = serials.max().unwrap_or(0);
        let count = match history.iter().rposition(|write| write.serial == last) {
            Some(at) => at + 1,
            None => {
                assert_eq!(last, 0, "a write that is gone came back after {}", what());
                0
            }
        };
        let mut expected = Contents::new();
        for write in &history[..count] {
            expected.insert(write.key.clone(), write.serial.to_string());
        }
        assert_eq!(*contents, expected, "a hole after {}", what());
        count
    }

    /// The process starts on what the disk shows.
    fn start(&self) {
        let faults = self.faults.get();
        // Nobody writes yet.
        self.quiet.set(true);
        let config = config(&self.disk, self.fsync);
        let started = start_on(&config).or_else(|_| {
            // Where the disk fails, a start may be refused. It works when the disk does.
            self.faults.set(0);
            start_on(&config)
        });
        self.faults.set(faults);
        self.quiet.set(false);
        let (aof, contents) = started.unwrap_or_else(|error| panic!("refused: {error}"));
        let count = self.moment(&contents, &|| "a kill".into());
        assert!(count >= self.acknowledged.get().max(self.floor.get()));
        *self.config.borrow_mut() = config;
        *self.aof.borrow_mut() = Rc::new(aof);
        *self.store.write_anyway() = keyspace(&contents);
        let mut history = self.history.borrow_mut();
        history.truncate(count);
        history.iter_mut().for_each(|write| write.end = None);
        self.floor.set(count);
        self.acknowledged.set(count);
    }

    fn step(&self) {
        match self.below(16) {
            0..6 => (0..1 + self.below(4)).for_each(|_| self.write()),
            6..9 => {
                let aof = self.aof();
                let _ = aof.commit(aof.position());
                let _ = aof.sync_to(aof.position());
            }
            9..12 if self.aof().is_enabled() => self.rewrite(),
            12 => self.switch(),
            13 => {
                // A kill.
                self.floor.set(self.promised());
                self.start();
            }
            14 => {
                self.floor.set(self.promised());
                self.acknowledged.set(self.floor.get());
                self.disk.put(self.cut_off());
                self.start();
            }
            _ => {
                let (_, floor) = (self.write(), self.promised());
                self.start_on_what_is_left(self.cut_off(), floor, 2, &|| {
                    "a cut between two steps".into()
                });
            }
        }
    }

    fn rewrite(&self) {
        let cannot = self.below(3) == 0;
        let replay_all = |manifest: &_| match cannot {
            true => Err("no".into()),
            false => replay_all(manifest),
        };
        let _ = self.aof().rewrite(None, &self.store, &replay_all);
    }

    /// CONFIG SET appendonly, no and yes in turn.
    fn switch(&self) {
        let (aof, config) = (self.aof(), self.config.borrow().clone());
        if config.appendonly.get() {
            let set = config.set(&[(b"appendonly", b"no")]);
            assert!(set.is_ok());
            aof.disable();
            // Whoever had written just before, and waited, gets its answer now.
            let history = self.history.borrow();
            let last = history.iter().rposition(|write| write.end.is_some());
            let waited =
                last.and_then(|last| aof.commit(history[last].end?).ok().map(|()| last + 1));
            let is_promised = self.fsync == "always" && self.faults.get() == 0;
            let waited = waited.filter(|_| is_promised).unwrap_or(0);
            self.floor.set(self.promised().max(waited));
            return;
        }
        let set = config.set(&[(b"appendonly", b"yes")]);
        assert!(set.is_ok());
        let lock = aof.lock_directory().and_then(|lock| {
            start::find_files(&config, &aof.directory())?;
            Ok(lock)
        });
        let enabled = lock.and_then(|lock| {
            let unused = |_: &_| Err("it is made from memory".into());
            aof.rewrite(Some(lock), &self.store, &unused)
        });
        if enabled.is_ok() {
            // While it was made nobody could write; afterwards somebody may have, and has a position.
            let history = self.history.borrow();
            let logged = history.iter().rposition(|write| write.end.is_none());
            let logged = logged.map_or(0, |last| last + 1);
            self.floor.set(self.floor.get().max(logged));
        } else if !aof.is_enabled() {
            let set = config.set(&[(b"appendonly", b"no")]);
            assert!(set.is_ok());
        }
    }
}

#[test]
fn after_any_power_cut_a_start_finds_a_moment_of_the_history_and_all_that_was_promised() {
    let given = std::env::var("SEED").map(|seed| seed.parse::<u64>().expect("SEED is a number"));
    let mut cuts = 0;
    for seed in given.clone().map_or(1..=u64::MAX, |seed| seed..=seed) {
        let history = move || {
            let world = World::new(seed);
            (0..40).for_each(|_| world.step());
            world.cuts.get()
        };
        // A panic tells the name of its thread.
        let thread = std::thread::Builder::new().name(format!("SEED={seed}")).spawn(history);
        cuts += thread.expect("a thread").join().expect("what was promised");
        if cuts >= 6000 {
            break;
        }
    }
    assert!(cuts >= 6000 || given.is_ok(), "{cuts} cuts");
}

/// A power cut may take a page in the middle of what a file has got since its last fsync, and keep a later
/// one. The start refuses, because the file alone does not tell this from damage (aof/repair.rs).
#[test]
fn a_page_that_a_power_cut_has_lost_in_the_middle_is_not_passed_over() {
    let (mut refused, mut cut) = (0, 0);
    for seed in 1..200 {
        let world = World::new(seed);
        world.faults.set(0);
        world.quiet.set(true);
        if world.fsync == "always" {
            continue;
        }
        (0..30).for_each(|_| world.write());
        let state = {
            let mut random = world.random.borrow_mut();
            world.disk.after_power_cut(&mut |bound| random.below(bound), true)
        };
        world.other.put(state);
        match start_on(&config(&world.other, world.fsync)) {
            Err(error) => {
                assert!(error.contains("is damaged at offset"), "{error}");
                refused += 1;
            }
            Ok((_, contents)) => {
                let found = world.moment(&contents, &|| "a page was lost".into());
                assert!(found >= world.promised());
                cut += 1;
            }
        }
    }
    assert!(refused > 10 && cut > 10, "{refused} refused, {cut} cut");
}

mod kills;
