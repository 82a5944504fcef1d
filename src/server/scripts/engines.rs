//! The machines that run scripts, and how a script is killed.
//!
//! ```text
//! slots     [ 0 │ 1 │ 2 │ 3 ]    0 for scripts under the exclusive lock, the others for scripts that only read
//! ```
//!
//! A slot holds an [`Engine`]: a machine with all that it has compiled. Whoever has a [`Turn`] runs a script in its
//! slot. The slot also has a state, which other threads see and change:
//!
//! ```text
//! Idle ─▶ Runs ───── may_write ────▶ HasWritten
//!           │ may_be_killed             │ may_be_killed      the script has lent the lock
//!           ▼                           ▼
//!         IsBusy ─── may_write ────▶ IsBusyAndHasWritten     SCRIPT KILL is refused
//!           │ SCRIPT KILL
//!           ▼
//!         Killed     the script ends when it asks whether it may go on, or is about to write
//! ```
//!
//! So a script is killed or it writes: whichever comes first is the only one.
//!
//! **Bounds.** Each machine has a limit ([`memory_limit`]), and there are a few machines, so all scripts together have
//! one. A machine that has become large is thrown away after its script. Nothing of a script survives in its machine:
//! the globals are readonly, all but KEYS and ARGV, which are set anew.
//!
//! **How Redis does it**: eval.c has one interpreter, and script.c notes of the script that runs what it has done.

use super::Known;
use crate::held;
use crate::lazyfree::Garbage;
use crate::resp::{Args, Reply};
use crate::script::machine::Machine;
use crate::script::value::Value;
use std::sync::atomic::{AtomicU8, AtomicUsize, Ordering};
use std::sync::{LazyLock, Mutex, MutexGuard};

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
pub struct Engines {
    /// The first is for whoever holds the exclusive lock.
    slots: [Slot; READERS + 1],
}

/// A place where one script runs at a time, and what other threads may see of it.
#[derive(Default)]
pub struct Slot {
    /// A [`State`]: whoever has changed it from `Idle` may take the engine.
    state: AtomicU8,
    engine: Mutex<Option<Box<Engine>>>,
    /// The size of the machine's heap after its last script.
    bytes: AtomicUsize,
}

#[derive(Clone, Copy, PartialEq)]
#[repr(u8)]
enum State {
    Idle,
    Runs,
    HasWritten,
    IsBusy,
    IsBusyAndHasWritten,
    Killed,
}

/// What there is for a script to run with. It is used again by the next one.
pub struct Engine {
    pub compiled: Compiled,
    /// The arguments of the next command of a script, and the reply of its last one.
    pub args: Args,
    pub reply: Reply,
    /// Bytes of the heap at which it is collected between two scripts.
    collect_at: usize,
}

/// A machine with the functions that it has compiled. They are the roots of the machine, by their numbers, with the
/// ids of their scripts beside them.
pub struct Compiled {
    pub machine: Machine,
    ids: Vec<u64>,
}

/// What became of SCRIPT KILL.
#[derive(PartialEq, Debug)]
pub enum Kill {
    Done,
    NotBusy,
    /// A script that has written is not killed.
    HasWritten,
}

impl Engines {
    /// The turn of whoever holds the exclusive lock.
    pub fn turn(&self) -> Turn<'_> {
        self.slots[0].change(State::Idle, State::Runs);
        Turn::of(&self.slots[0])
    }

    /// A turn for a script that only reads, if there is a slot left.
    pub fn reading_turn(&self) -> Option<Turn<'_>> {
        let mut readers = self.slots[1..].iter();
        readers.find(|slot| slot.change(State::Idle, State::Runs)).map(Turn::of)
    }

    /// SCRIPT KILL: stops the scripts that are busy.
    pub fn kill(&self) -> Kill {
        let mut killed = Kill::NotBusy;
        for slot in &self.slots {
            if slot.change(State::IsBusy, State::Killed) || slot.is(State::Killed) {
                killed = Kill::Done;
            } else if slot.is(State::IsBusyAndHasWritten) {
                return Kill::HasWritten;
            }
        }
        killed
    }

    /// Takes the engines away, but not those of scripts that run.
    pub fn take(&self) -> Garbage {
        let take = |slot: &Slot| {
            let engine = slot.engine.try_lock().ok()?.take();
            slot.bytes.store(0, Ordering::Relaxed);
            engine
        };
        Garbage::new(0, Mutex::new(self.slots.iter().filter_map(take).collect::<Vec<_>>()))
    }

    /// How many bytes all machines take.
    pub fn bytes(&self) -> usize {
        self.slots.iter().map(|slot| slot.bytes.load(Ordering::Relaxed)).sum()
    }
}

impl Slot {
    fn is(&self, state: State) -> bool {
        self.state.load(Ordering::Relaxed) == state as u8
    }

    /// Changes the state, if it is `from`. Says whether it was.
    fn change(&self, from: State, to: State) -> bool {
        let (from, to, order) = (from as u8, to as u8, Ordering::AcqRel);
        self.state.compare_exchange(from, to, order, Ordering::Acquire).is_ok()
    }

    /// The script has lent the lock.
    pub fn may_be_killed(&self) {
        let _ = self.change(State::Runs, State::IsBusy)
            || self.change(State::HasWritten, State::IsBusyAndHasWritten);
    }

    /// The script is about to change something. Returns whether it may: it may have been killed just now, and
    /// from here on it cannot be.
    pub fn may_write(&self) -> bool {
        self.has_written()
            || self.change(State::Runs, State::HasWritten)
            || self.change(State::IsBusy, State::IsBusyAndHasWritten)
    }

    pub fn has_written(&self) -> bool {
        self.is(State::HasWritten) || self.is(State::IsBusyAndHasWritten)
    }

    pub fn is_killed(&self) -> bool {
        self.is(State::Killed)
    }
}

/// The right to run a script in a slot. When it is dropped, the slot is idle again.
pub struct Turn<'a> {
    slot: &'a Slot,
    engine: MutexGuard<'a, Option<Box<Engine>>>,
}

impl Drop for Turn<'_> {
    fn drop(&mut self) {
        self.slot.state.store(State::Idle as u8, Ordering::Release);
    }
}

impl<'a> Turn<'a> {
    fn of(slot: &'a Slot) -> Turn<'a> {
        Turn { slot, engine: slot.engine.lock().unwrap() }
    }

    /// The slot and its engine. `new_machine` makes a machine if there is none.
    pub fn begin(&mut self, new_machine: impl FnOnce() -> Machine) -> (&'a Slot, &mut Engine) {
        let engine = self.engine.get_or_insert_with(|| {
            let compiled = Compiled { machine: new_machine(), ids: Vec::new() };
            let (args, reply) = (Args::default(), Reply::new());
            Box::new(Engine { compiled, args, reply, collect_at: COLLECT_AT })
        });
        (self.slot, engine)
    }

    /// The script has ended. Returns the engine if it has become too large to be kept.
    pub fn end(mut self) -> Option<Garbage> {
        let bytes = &self.slot.bytes;
        let Engine { compiled: Compiled { machine, .. }, collect_at, .. } =
            &mut **self.engine.as_mut()?;
        let most = machine.heap.bytes.max(machine.heap.peak) + machine.thread.size();
        // With many scripts in it, a machine is large.
        if most > KEPT.max(2 * *collect_at) {
            bytes.store(0, Ordering::Relaxed);
            return Some(Garbage::new(0, Mutex::new(self.engine.take())));
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
        bytes.store(machine.heap.bytes, Ordering::Relaxed);
        None
    }
}

impl Compiled {
    /// The function of a script that is known, if the machine has compiled it.
    pub fn function(&self, known: Known) -> Option<Value> {
        let is_there = self.ids.get(known.number) == Some(&known.id);
        is_there.then(|| self.machine.roots[known.number])
    }

    pub fn keep(&mut self, known: Known, function: Value) {
        if self.ids.len() <= known.number {
            self.ids.resize(known.number + 1, 0);
            self.machine.roots.resize(known.number + 1, Value::Nil);
        }
        self.ids[known.number] = known.id;
        self.machine.roots[known.number] = function;
    }
}

#[cfg(test)]
mod tests {
    use super::super::{Script, Scripts};
    use super::*;

    #[test]
    fn what_a_machine_has_compiled_is_that_of_the_script_with_the_same_id_alone() {
        let scripts = Scripts::default();
        let mut turn = scripts.engines.turn();
        let (_, engine) = turn.begin(|| Machine::new(1 << 20));
        let keep = |text: &[u8]| scripts.keep(text, Script::of(text).unwrap(), true);
        let old = keep(b"return 1");
        engine.compiled.keep(old, Value::Number(1.0));
        assert_eq!(engine.compiled.function(old), Some(Value::Number(1.0)));
        drop(scripts.flush());
        let new = keep(b"return 2");
        assert_eq!(engine.compiled.function(new), None);
    }

    #[test]
    fn a_machine_that_a_flush_has_freed_takes_no_memory_any_more() {
        let scripts = Scripts::default();
        let bytes = || scripts.bytes().1;
        let machine = || Machine::new(1 << 20);
        let run = || {
            let mut turn = scripts.engines.turn();
            turn.begin(machine);
            turn
        };
        assert!(run().end().is_none() && bytes() > 0);
        drop(scripts.flush());
        assert_eq!(bytes(), 0);
        // A script that runs keeps its machine, and its bytes are told when it has ended.
        let turn = run();
        drop(scripts.flush());
        assert!(turn.end().is_none() && bytes() > 0);
    }

    #[test]
    fn a_script_is_killed_while_it_is_busy_and_has_not_written() {
        let engines = Engines::default();
        assert_eq!(engines.kill(), Kill::NotBusy);
        let turn = engines.turn();
        assert_eq!(engines.kill(), Kill::NotBusy);
        turn.slot.may_be_killed();
        assert_eq!(engines.kill(), Kill::Done);
        assert!(turn.slot.is_killed() && !turn.slot.may_write());
        drop(turn);
        assert_eq!(engines.kill(), Kill::NotBusy);
        let turn = engines.turn();
        assert!(!turn.slot.is_killed() && turn.slot.may_write() && turn.slot.may_write());
        turn.slot.may_be_killed();
        assert_eq!(engines.kill(), Kill::HasWritten);
        drop(turn);
        let turns: Vec<_> = (0..READERS).map_while(|_| engines.reading_turn()).collect();
        assert_eq!((turns.len(), engines.reading_turn().is_none()), (READERS, true));
    }
}
