//! The keyspace behind its lock, and the rule that nobody sleeps at the lock for as long as a script likes to run.
//!
//! std's lock knows no time-out. So a script that has held it for too long *lends* it: it gives it back, and says
//! that it is busy. From then on whoever takes the lock is told [`Busy`] and gets out:
//!
//! ```text
//! script   ─ holds the lock ──── 5 s ─┐ lend    ┌─ takes it for one command ─┐         ┌ take_back
//!                                     └─────────┘                            └─────────┘
//! others   ─────────── sleep at the lock ─▶ Busy  ─ commands come and are refused: BUSY ─▶ go on
//! ```
//!
//! So nobody but the script sees or changes a key until it ends, as if it had kept the lock. Whoever takes the lock
//! must say what is to be done if a script is busy, because each way in has another type: [`Store::read`] and
//! [`Store::write`] give `Busy`, `…_when_free` wait until the script ends, and `…_anyway` is for the script itself,
//! for SHUTDOWN NOSAVE, for a snapshot that goes on (moment.rs), and for whoever touches only the lists of those who watch or wait for keys.
//!
//! Several scripts that only read may be busy at once.
//!
//! **How Redis does it**: `scriptInterrupt` in script.c. The thread that runs the script serves the other clients
//! in the middle of it, and refuses most of what they send.

use super::Keyspace;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, MutexGuard, RwLock, RwLockReadGuard, RwLockWriteGuard};
use std::thread;
use std::time::Duration;

pub struct Store {
    keyspace: RwLock<Keyspace>,
    /// How many scripts have lent the lock. It changes only while the lock is held by such a script.
    lent: AtomicUsize,
    /// Taken before the keyspace by whoever makes a snapshot (moment.rs).
    moment: Mutex<()>,
}

/// A script is busy, and the keyspace is not to be looked at.
#[derive(Debug)]
pub struct Busy;

/// How many times the exclusive lock is tried before the thread sleeps: here 14 µs, about as long as a
/// batch of SETs holds it.
const TRIES: usize = 1000;

/// How long somebody who waits for the end of a script sleeps before the next look.
const PAUSE: Duration = Duration::from_millis(10);

type Reading<'a> = RwLockReadGuard<'a, Keyspace>;
type Writing<'a> = RwLockWriteGuard<'a, Keyspace>;

impl Store {
    pub fn new(keyspace: Keyspace) -> Store {
        Store {
            keyspace: RwLock::new(keyspace),
            lent: AtomicUsize::new(0),
            moment: Mutex::default(),
        }
    }

    /// The right to make a snapshot (moment.rs).
    pub(super) fn turn_for_moment(&self) -> MutexGuard<'_, ()> {
        self.moment.lock().unwrap()
    }

    pub fn into_inner(self) -> Keyspace {
        self.keyspace.into_inner().unwrap()
    }

    /// Whether a script is busy. Unless the lock is held, that may have changed when this returns.
    pub fn is_busy(&self) -> bool {
        self.lent.load(Ordering::Relaxed) > 0
    }

    pub fn read(&self) -> Result<Reading<'_>, Busy> {
        self.unless_busy(self.read_anyway())
    }

    pub fn write(&self) -> Result<Writing<'_>, Busy> {
        self.unless_busy(self.write_anyway())
    }

    /// None if somebody else has the lock. With `spins` it is tried again and again before that, because to sleep
    /// and to be woken takes as long as others hold the lock. (std's lock tries again too, but not while another
    /// thread sleeps at it: after the first, all would sleep.) Measured with 50 clients, SETs without a log,
    /// pipelines of 64: 1.15 times as many a second. If the thread gave its core away between two tries, that would
    /// be a tenth more, but the 99th percentile would take seven times as long.
    pub fn try_write(&self, spins: bool) -> Option<Result<Writing<'_>, Busy>> {
        (0..if spins { TRIES } else { 1 }).find_map(|i| {
            if i > 0 {
                std::hint::spin_loop();
            }
            self.keyspace.try_write().ok().map(|guard| self.unless_busy(guard))
        })
    }

    /// A script says that it lends the lock before it gives it back. So whoever gets the lock next knows.
    fn unless_busy<G>(&self, guard: G) -> Result<G, Busy> {
        if self.is_busy() { Err(Busy) } else { Ok(guard) }
    }

    pub fn read_anyway(&self) -> Reading<'_> {
        self.keyspace.read().unwrap()
    }

    pub fn write_anyway(&self) -> Writing<'_> {
        self.keyspace.write().unwrap()
    }

    pub fn read_when_free(&self) -> Reading<'_> {
        loop {
            match self.read() {
                Ok(guard) => return guard,
                Err(Busy) => thread::sleep(PAUSE),
            }
        }
    }

    pub fn write_when_free(&self) -> Writing<'_> {
        loop {
            match self.write() {
                Ok(guard) => return guard,
                Err(Busy) => thread::sleep(PAUSE),
            }
        }
    }

    /// A script, which holds the lock, is going to lend it.
    pub fn lend(&self) {
        self.lent.fetch_add(1, Ordering::Relaxed);
    }

    /// That script, which holds the lock again, keeps it.
    pub fn take_back(&self) {
        self.lent.fetch_sub(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn while_a_script_has_lent_the_lock_nobody_else_gets_it() {
        let store = Store::new(Keyspace::new(1));
        assert!(store.read().is_ok() && store.write().is_ok());
        let script = store.write_anyway();
        assert!(store.try_write(true).is_none());
        store.lend();
        drop(script);
        assert!(store.read().is_err() && store.write().is_err());
        assert!(store.try_write(false).is_some_and(|result| result.is_err()));
        thread::scope(|scope| {
            let waits = scope.spawn(|| store.write_when_free().changes);
            assert!(!waits.is_finished());
            let mut script = store.write_anyway();
            script.changes = 7;
            store.take_back();
            drop(script);
            assert_eq!(waits.join().unwrap(), 7);
        });
        assert!(store.read().is_ok() && store.write().is_ok());
    }
}
