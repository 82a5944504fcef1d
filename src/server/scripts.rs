//! What the server keeps of scripts: their sources, and the machines that run them.
//!
//! ```text
//! EVAL source ───▶ by_source ─┐
//!                             ├─▶ number ──▶ sources[number]: source, digest, flags
//! EVALSHA digest ▶ by_digest ─┘       └────▶ engine.functions[number]: what a machine has compiled of it
//!
//! engines   [ 0 │ 1 │ 2 │ 3 ]    0 for scripts under the exclusive lock, the others for scripts that only read
//! ```
//!
//! **Bounds.** Of the scripts that came by EVAL only the [`MOST_BY_EVAL`] that were used last are kept. Those that
//! came by SCRIPT LOAD stay until SCRIPT FLUSH. So that is memory which a client takes, as by SET, and INFO counts
//! it. Each machine has a limit ([`memory_limit`]), and there are a few machines, so all scripts together have one.
//! A machine that has become large is thrown away after its script.
//!
//! Nothing of a script survives in its machine. The globals are readonly, all but KEYS and ARGV, which are set anew.
//!
//! **How Redis does it**: eval.c has one interpreter, and keeps all scripts for ever. Redis 7.4 keeps 500 of EVAL,
//! as here.

use crate::error::Error;
use crate::held;
use crate::resp::{Args, Reply, split_words};
use crate::script::machine::Machine;
use crate::script::value::Value;
use crate::sha1::{Digest, sha1};
use crate::store::Garbage;
use std::collections::HashMap;
use std::ops::{Deref, DerefMut};
use std::sync::atomic::{AtomicU8, AtomicUsize, Ordering};
use std::sync::{Arc, LazyLock, Mutex, MutexGuard};

/// How many scripts that came by EVAL are kept.
const MOST_BY_EVAL: usize = 500;

/// And how many bytes their texts have together, if it is more than one script.
const MOST_BYTES_BY_EVAL: usize = 32 << 20;

/// How many scripts that only read may run at once. More take turns, under the exclusive lock.
const READERS: usize = 3;

/// A machine whose heap has been larger than this, in bytes, is not kept.
const KEPT: usize = 8 << 20;

/// Between two scripts a heap of up to this many bytes is left as it is. A new one has a third of that. What a few
/// hundred short scripts leave fits into it, and into the processor's caches.
const COLLECT_AT: usize = 64 * 1024;

/// How many bytes the heap of one script may have. It may have twice as much for a moment, between two
/// collections. All scripts together have an eighth of the memory that the process may use.
pub fn memory_limit() -> usize {
    static LIMIT: LazyLock<usize> = LazyLock::new(|| {
        let share = held::of_machine().unwrap_or(4 << 30) as usize / 8 / (READERS + 1);
        share.max(16 << 20)
    });
    *LIMIT
}

#[derive(Default)]
pub struct Scripts {
    /// A leaf.
    cache: Mutex<Cache>,
    /// Bytes of the sources, to be asked without the mutex.
    source_bytes: AtomicUsize,
    /// The first is for whoever holds the exclusive lock.
    engines: [Engine; READERS + 1],
    /// Compiles what SCRIPT LOAD brings, to see whether it is a script.
    loader: Mutex<Option<Box<Machine>>>,
}

/// A script in the cache. The number is used again, the id is not.
#[derive(Clone, Copy)]
pub struct Known {
    number: usize,
    id: u64,
    pub digest: Digest,
    pub flags: Flags,
}

/// What the first line of a script asks for: `#!lua flags=no-writes`.
#[derive(Clone, Copy, PartialEq, Debug, Default)]
pub struct Flags {
    /// It has such a line.
    pub are_given: bool,
    pub no_writes: bool,
    /// It may take more memory though `maxmemory` is exceeded.
    pub allow_oom: bool,
}

impl Flags {
    pub fn deny_oom(self) -> bool {
        self.are_given && !self.no_writes && !self.allow_oom
    }
}

#[derive(Default)]
struct Cache {
    sources: Vec<Option<Source>>,
    by_source: HashMap<Arc<[u8]>, usize>,
    by_digest: HashMap<Digest, usize>,
    free: Vec<usize>,
    /// The numbers of those that came by EVAL.
    by_eval: Vec<usize>,
    bytes_by_eval: usize,
    last_id: u64,
    /// Goes up with each use.
    uses: u64,
    bytes: usize,
}

struct Source {
    known: Known,
    text: Arc<[u8]>,
    last_use: u64,
}

/// Bytes that a script takes in the cache beside its text.
const ENTRY: usize = size_of::<Source>() + 120;

impl Scripts {
    /// The script with this text.
    pub fn by_source(&self, text: &[u8]) -> Option<Known> {
        let mut cache = self.cache.lock().unwrap();
        let number = *cache.by_source.get(text)?;
        Some(cache.used(number))
    }

    /// The script with this digest.
    pub fn by_digest(&self, digest: &Digest) -> Option<Known> {
        let mut cache = self.cache.lock().unwrap();
        let number = *cache.by_digest.get(digest)?;
        Some(cache.used(number))
    }

    /// The text of a script, if it was not forgotten meanwhile.
    pub fn text(&self, known: Known) -> Option<Arc<[u8]>> {
        let cache = self.cache.lock().unwrap();
        let source = cache.sources.get(known.number)?.as_ref()?;
        (source.known.id == known.id).then(|| source.text.clone())
    }

    /// Keeps a script. `by_eval`: only as long as it is used now and then.
    pub fn keep(&self, text: &[u8], flags: Flags, by_eval: bool) -> Known {
        let mut cache = self.cache.lock().unwrap();
        if let Some(number) = cache.by_source.get(text).copied() {
            if !by_eval {
                cache.is_loaded(number, text.len());
            }
            return cache.used(number);
        }
        let known = cache.add(text, flags, by_eval);
        self.source_bytes.store(cache.bytes, Ordering::Relaxed);
        known
    }

    /// SCRIPT LOAD: keeps what is a script. The error is the compiler's.
    pub fn load(&self, text: &[u8]) -> Result<Digest, Vec<u8>> {
        let (flags, begin) = shebang(text)?;
        if self.by_source(text).is_none() {
            let mut loader = self.loader.lock().unwrap();
            let mut machine =
                loader.take().unwrap_or_else(|| Box::new(Machine::new(memory_limit())));
            compile(&mut machine, &text[begin..])?;
            if machine.heap.bytes < KEPT {
                *loader = Some(machine);
            }
        }
        Ok(self.keep(text, flags, false).digest)
    }

    /// SCRIPT FLUSH. What the machines have compiled goes too, but not from under a script that runs.
    pub fn flush(&self) -> impl Send + Sync + use<> {
        let mut cache = self.cache.lock().unwrap();
        let last_id = cache.last_id;
        let old = std::mem::replace(&mut *cache, Cache { last_id, ..Cache::default() });
        self.source_bytes.store(0, Ordering::Relaxed);
        let take = |engine: &Engine| {
            let mut inside = engine.inside.try_lock().ok()?;
            engine.bytes.store(0, Ordering::Relaxed);
            inside.take()
        };
        let machines: Vec<_> = self.engines.iter().filter_map(take).collect();
        Mutex::new((old, machines))
    }

    /// How many scripts are kept.
    pub fn count(&self) -> usize {
        self.cache.lock().unwrap().by_digest.len()
    }

    /// The bytes of their sources, and of all machines.
    pub fn bytes(&self) -> (usize, usize) {
        let heaps = self.engines.iter().map(|engine| engine.bytes.load(Ordering::Relaxed));
        (self.source_bytes.load(Ordering::Relaxed), heaps.sum())
    }

    /// The turn of whoever holds the exclusive lock.
    pub fn turn(&self) -> Turn<'_> {
        self.engines[0].begin();
        Turn { engine: &self.engines[0] }
    }

    /// A turn for a script that only reads, if there is a machine left.
    pub fn reading_turn(&self) -> Option<Turn<'_>> {
        let free = self.engines[1..].iter().find(|engine| engine.begin());
        free.map(|engine| Turn { engine })
    }

    /// SCRIPT KILL: stops the scripts that are busy.
    pub fn kill(&self) -> Kill {
        let mut killed = Kill::NotBusy;
        for engine in &self.engines {
            match engine.change(State::IsBusy, State::Killed) {
                Ok(_) => killed = Kill::Done,
                Err(state) if state == State::Killed as u8 => killed = Kill::Done,
                Err(state) if state == State::IsBusyAndHasWritten as u8 => return Kill::HasWritten,
                Err(_) => {}
            }
        }
        killed
    }
}

/// What became of SCRIPT KILL.
#[derive(PartialEq, Debug)]
pub enum Kill {
    Done,
    NotBusy,
    /// A script that has written is not killed.
    HasWritten,
}

impl Cache {
    fn used(&mut self, number: usize) -> Known {
        self.uses += 1;
        let uses = self.uses;
        let Some(source) = &mut self.sources[number] else {
            unreachable!("what the tables lead to is there")
        };
        source.last_use = uses;
        source.known
    }

    fn add(&mut self, text: &[u8], flags: Flags, by_eval: bool) -> Known {
        if by_eval {
            self.bytes_by_eval += text.len();
            while !self.by_eval.is_empty()
                && (self.by_eval.len() >= MOST_BY_EVAL || self.bytes_by_eval > MOST_BYTES_BY_EVAL)
            {
                self.forget_oldest();
            }
        }
        let number = self.free.pop().unwrap_or_else(|| {
            self.sources.push(None);
            self.sources.len() - 1
        });
        self.last_id += 1;
        let known = Known { number, id: self.last_id, digest: sha1(text), flags };
        let text: Arc<[u8]> = text.into();
        self.bytes += text.len() + ENTRY;
        self.by_source.insert(text.clone(), number);
        self.by_digest.insert(known.digest, number);
        self.sources[number] = Some(Source { known, text, last_use: 0 });
        if by_eval {
            self.by_eval.push(number);
        }
        self.used(number)
    }

    /// A script that may have come by EVAL has come by SCRIPT LOAD now.
    fn is_loaded(&mut self, number: usize, length: usize) {
        if let Some(at) = self.by_eval.iter().position(|other| *other == number) {
            self.by_eval.swap_remove(at);
            self.bytes_by_eval -= length;
        }
    }

    /// Forgets the script of EVAL that was not used for the longest time.
    fn forget_oldest(&mut self) {
        let last_use = |number: &usize| self.sources[*number].as_ref().map(|s| s.last_use);
        let oldest = (0..self.by_eval.len()).min_by_key(|at| last_use(&self.by_eval[*at]));
        let Some(at) = oldest else { return };
        let number = self.by_eval.swap_remove(at);
        if let Some(source) = self.sources[number].take() {
            self.by_source.remove(&source.text);
            self.by_digest.remove(&source.known.digest);
            self.bytes -= source.text.len() + ENTRY;
            self.bytes_by_eval -= source.text.len();
            self.free.push(number);
        }
    }
}

/// A machine, and what other threads may see of it.
#[derive(Default)]
struct Engine {
    /// A [`State`]: who has changed it from `Idle` may take what is inside.
    state: AtomicU8,
    inside: Mutex<Option<Box<Inside>>>,
    /// The size of its heap after the last script.
    bytes: AtomicUsize,
}

#[derive(Clone, Copy, PartialEq)]
#[repr(u8)]
enum State {
    Idle,
    Runs,
    HasWritten,
    /// Busy: it has lent the lock. Only from here can it be killed.
    IsBusy,
    IsBusyAndHasWritten,
    Killed,
}

/// A machine with the functions that it has compiled. They are the roots of the machine, by their numbers, with the
/// ids of their scripts beside them.
pub struct Inside {
    pub machine: Machine,
    /// The arguments of the next command of a script, and the reply of its last one. They keep their memory from one
    /// script to the next.
    pub args: Args,
    pub reply: Reply,
    ids: Vec<u64>,
    /// Bytes of the heap at which it is collected between two scripts.
    collect_at: usize,
}

impl Engine {
    fn begin(&self) -> bool {
        self.change(State::Idle, State::Runs).is_ok()
    }

    fn change(&self, from: State, to: State) -> Result<u8, u8> {
        let (from, to, order) = (from as u8, to as u8, Ordering::AcqRel);
        self.state.compare_exchange(from, to, order, Ordering::Acquire)
    }
}

/// The right to use an engine, until this is dropped.
pub struct Turn<'a> {
    engine: &'a Engine,
}

/// The machine of a turn.
pub struct InUse<'a> {
    engine: &'a Engine,
    inside: MutexGuard<'a, Option<Box<Inside>>>,
}

impl<'a> Turn<'a> {
    /// The machine. `make` makes one if there is none.
    pub fn machine(&self, make: impl FnOnce() -> Machine) -> InUse<'a> {
        let mut inside = self.engine.inside.lock().unwrap();
        inside.get_or_insert_with(|| {
            let (args, reply) = (Args::default(), Reply::new());
            let (ids, collect_at) = (Vec::new(), COLLECT_AT);
            Box::new(Inside { machine: make(), args, reply, ids, collect_at })
        });
        InUse { engine: self.engine, inside }
    }

    /// The script has lent the lock.
    pub fn may_be_killed(&self) {
        if self.engine.change(State::Runs, State::IsBusy).is_err() {
            let _ = self.engine.change(State::HasWritten, State::IsBusyAndHasWritten);
        }
    }

    /// The script is about to change something. Returns whether it may: it may have been killed just now, and
    /// from here on it cannot be.
    pub fn may_write(&self) -> bool {
        self.has_written()
            || self.engine.change(State::Runs, State::HasWritten).is_ok()
            || self.engine.change(State::IsBusy, State::IsBusyAndHasWritten).is_ok()
    }

    pub fn has_written(&self) -> bool {
        let written = [State::HasWritten as u8, State::IsBusyAndHasWritten as u8];
        written.contains(&self.engine.state.load(Ordering::Relaxed))
    }

    pub fn is_killed(&self) -> bool {
        self.engine.state.load(Ordering::Relaxed) == State::Killed as u8
    }
}

impl Drop for Turn<'_> {
    fn drop(&mut self) {
        self.engine.state.store(State::Idle as u8, Ordering::Release);
    }
}

impl Deref for InUse<'_> {
    type Target = Inside;

    fn deref(&self) -> &Inside {
        self.inside.as_ref().unwrap()
    }
}

impl DerefMut for InUse<'_> {
    fn deref_mut(&mut self) -> &mut Inside {
        self.inside.as_mut().unwrap()
    }
}

impl InUse<'_> {
    /// The script has ended. Returns the machine if it has become too large to be kept.
    pub fn end(&mut self) -> Option<Garbage> {
        let engine = self.engine;
        let Inside { machine, collect_at, .. } = &mut **self;
        let most = machine.heap.bytes.max(machine.heap.peak) + machine.thread.size();
        // With many scripts in it, a machine is large.
        if most > KEPT.max(2 * *collect_at) {
            engine.bytes.store(0, Ordering::Relaxed);
            return Some(Box::new(Mutex::new(self.inside.take())));
        }
        if machine.heap.bytes > *collect_at {
            // What is left then is what the machine has compiled.
            for name in ["KEYS", "ARGV"] {
                let empty = Value::Table(machine.heap.add_table());
                machine.set_field(machine.globals, name, empty);
            }
            machine.thread.top = 0;
            machine.collect();
            *collect_at = (2 * machine.heap.bytes).clamp(COLLECT_AT, machine.heap.limit / 8);
        }
        machine.heap.peak = 0;
        engine.bytes.store(machine.heap.bytes, Ordering::Relaxed);
        None
    }
}

impl Inside {
    /// The compiled script. `text` is what the client has sent: the script, or the digest of one that is known.
    pub fn function(
        &mut self,
        scripts: &Scripts,
        known: Option<Known>,
        text: &[u8],
    ) -> Result<(Known, Value), Error> {
        let Some(known) = known else {
            let (flags, begin) = shebang(text).map_err(Error::Text)?;
            let function = compile(&mut self.machine, &text[begin..]).map_err(Error::Text)?;
            let known = scripts.keep(text, flags, true);
            self.keep(known, function);
            return Ok((known, function));
        };
        if let Some(function) = self.compiled(known) {
            return Ok((known, function));
        }
        let text = scripts.text(known).ok_or(Error::NoScript)?;
        let (_, begin) = shebang(&text).map_err(Error::Text)?;
        let function = compile(&mut self.machine, &text[begin..]).map_err(Error::Text)?;
        self.keep(known, function);
        Ok((known, function))
    }

    fn compiled(&self, known: Known) -> Option<Value> {
        let is_there = self.ids.get(known.number) == Some(&known.id);
        is_there.then(|| self.machine.roots[known.number])
    }

    fn keep(&mut self, known: Known, function: Value) {
        if self.ids.len() <= known.number {
            self.ids.resize(known.number + 1, 0);
            self.machine.roots.resize(known.number + 1, Value::Nil);
        }
        self.ids[known.number] = known.id;
        self.machine.roots[known.number] = function;
    }
}

/// Compiles the text behind the first line. The error is Redis's.
pub fn compile(machine: &mut Machine, text: &[u8]) -> Result<Value, Vec<u8>> {
    machine.load(text, b"@user_script").map_err(|error| {
        let text = match error.0 {
            Value::String(text) => machine.heap.bytes_of(text),
            _ => b"",
        };
        [b"ERR Error compiling script (new function): ", text].concat()
    })
}

/// What the first line asks for, and where the rest begins: at its end, so that lines keep their numbers.
pub fn shebang(text: &[u8]) -> Result<(Flags, usize), Vec<u8>> {
    let mut flags = Flags::default();
    if !text.starts_with(b"#!") {
        return Ok((flags, 0));
    }
    let end = text.iter().take_while(|byte| **byte != 0).position(|byte| *byte == b'\n');
    let end = end.ok_or(b"ERR Invalid script shebang")?;
    let words = split_words(&text[..end]).unwrap_or_default();
    let quoting = |before: &str, word: &[u8]| [before.as_bytes(), word].concat();
    let engine = words.first().ok_or(b"ERR Invalid engine in script shebang")?;
    if engine != b"#!lua" {
        return Err(quoting("ERR Unexpected engine in script shebang: ", engine));
    }
    flags.are_given = true;
    for word in &words[1..] {
        let names = word
            .strip_prefix(b"flags=")
            .ok_or_else(|| quoting("ERR Unknown lua shebang option: ", word))?;
        for name in names.split(|byte| *byte == b',').filter(|_| !names.is_empty()) {
            match name {
                b"no-writes" => flags.no_writes = true,
                b"allow-oom" => flags.allow_oom = true,
                // There is no stale replica here, and no cluster.
                b"allow-stale" | b"no-cluster" | b"allow-cross-slot-keys" => {}
                _ => return Err(quoting("ERR Unexpected flag in script shebang: ", name)),
            }
        }
    }
    Ok((flags, end))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_the_scripts_of_eval_the_least_used_are_forgotten_and_loaded_ones_stay() {
        let scripts = Scripts::default();
        let text = |i: usize| format!("return {i}").into_bytes();
        let loaded = scripts.load(b"return 'loaded'").unwrap();
        let used = scripts.keep(&text(0), Flags::default(), true);
        for i in 1..2 * MOST_BY_EVAL {
            scripts.keep(&text(i), Flags::default(), true);
            assert!(scripts.by_digest(&used.digest).is_some());
        }
        assert_eq!(scripts.count(), MOST_BY_EVAL + 1);
        assert!(scripts.by_digest(&loaded).is_some() && scripts.by_source(&text(1)).is_none());
        assert!(scripts.text(used).is_some());
        // Once loaded, it stays.
        scripts.load(&text(2 * MOST_BY_EVAL - 1)).unwrap();
        for i in 0..2 * MOST_BY_EVAL {
            scripts.keep(format!("return {{{i}}}").as_bytes(), Flags::default(), true);
        }
        assert!(scripts.by_source(&text(2 * MOST_BY_EVAL - 1)).is_some());
        drop(scripts.flush());
        assert_eq!((scripts.count(), scripts.bytes()), (0, (0, 0)));
        assert!(scripts.text(used).is_none() && scripts.by_digest(&loaded).is_none());
    }

    #[test]
    fn what_a_machine_has_compiled_is_that_of_the_script_with_the_same_id_alone() {
        let scripts = Scripts::default();
        let turn = scripts.turn();
        let mut inside = turn.machine(|| Machine::new(1 << 20));
        let old = scripts.keep(b"return 1", Flags::default(), true);
        inside.keep(old, Value::Number(1.0));
        assert_eq!(inside.compiled(old), Some(Value::Number(1.0)));
        drop(scripts.flush());
        let new = scripts.keep(b"return 2", Flags::default(), true);
        assert_eq!(inside.compiled(new), None);
    }

    #[test]
    fn a_script_is_killed_while_it_is_busy_and_has_not_written() {
        let scripts = Scripts::default();
        assert_eq!(scripts.kill(), Kill::NotBusy);
        let turn = scripts.turn();
        assert_eq!(scripts.kill(), Kill::NotBusy);
        turn.may_be_killed();
        assert_eq!(scripts.kill(), Kill::Done);
        assert!(turn.is_killed() && !turn.may_write());
        drop(turn);
        assert_eq!(scripts.kill(), Kill::NotBusy);
        let turn = scripts.turn();
        assert!(!turn.is_killed() && turn.may_write() && turn.may_write());
        turn.may_be_killed();
        assert_eq!(scripts.kill(), Kill::HasWritten);
        drop(turn);
        let turns: Vec<_> = (0..READERS).map_while(|_| scripts.reading_turn()).collect();
        assert_eq!((turns.len(), scripts.reading_turn().is_none()), (READERS, true));
    }

    #[test]
    fn the_first_line_says_what_the_script_asks_for() {
        let given = |both| Flags { are_given: true, no_writes: both, allow_oom: both };
        assert_eq!(shebang(b"return 1"), Ok((Flags::default(), 0)));
        assert_eq!(shebang(b"#!lua\nreturn 1"), Ok((given(false), 5)));
        assert_eq!(shebang(b"#!lua flags=no-writes,allow-oom\n"), Ok((given(true), 31)));
        for (text, error) in [
            ("#!lua", "ERR Invalid script shebang"),
            ("#!not lua\n", "ERR Unexpected engine in script shebang: #!not"),
            ("#!lua name=x\n", "ERR Unknown lua shebang option: name=x"),
            ("#!lua flags=x\n", "ERR Unexpected flag in script shebang: x"),
        ] {
            assert_eq!(shebang(text.as_bytes()), Err(error.as_bytes().to_vec()), "{text}");
        }
    }
}
