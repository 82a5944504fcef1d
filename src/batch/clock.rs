//! The time of a batch: one reading of the clock for each command, or for several quick ones.
//!
//! The end of one command is the start of the next. For the first of a batch the clock is read when
//! the lock is there, so that nobody's waiting counts as somebody's work. What the commands see is the
//! time at which they began.
//!
//! To read a clock takes long, because the processor finishes all that it is doing first. So the reading
//! after a quick command is left out if another of the same name follows (call/account.rs).
//!
//! **How Redis does it**: `call` reads the clock twice a command; the commands see a time that is cached.

use crate::stats::unix_microseconds;

#[derive(Default)]
pub struct Clock {
    /// Unix time in microseconds, as it was read last. 0 if the batch has not read it yet.
    pub now: u64,
    /// Microseconds of work until then that no command has got. Waiting for a lock is none.
    pub worked: u64,
    /// How long the batch has waited for its locks and held them, if somebody wants to know.
    pub lock_times: Option<Box<LockTimes>>,
}

/// In microseconds.
#[derive(Default)]
pub struct LockTimes {
    pub waited: u64,
    pub held: u64,
    /// When the lock was asked for, and got.
    asked: u64,
    locked: u64,
}

impl Clock {
    pub(super) fn begin(&mut self, measures: bool) {
        self.now = 0;
        self.lock_times = measures.then(Box::default);
    }

    /// Reads the clock: what has passed was work. If the batch has not read it yet, nothing has: a script that is
    /// refused before it takes a lock has no time.
    pub fn read(&mut self) {
        let now = unix_microseconds();
        if self.now > 0 {
            self.worked += now.saturating_sub(self.now);
        }
        self.now = now;
    }

    /// Work begins or goes on; what has passed was none.
    pub fn go_on(&mut self) {
        self.now = unix_microseconds();
    }

    /// A lock is about to be waited for.
    pub(super) fn ask_for_lock(&mut self) {
        if let Some(times) = &mut self.lock_times {
            times.asked = unix_microseconds();
        }
    }

    /// The lock is held: from here on time counts as work.
    pub(super) fn lock_taken(&mut self) {
        self.go_on();
        if let Some(times) = &mut self.lock_times {
            times.locked = self.now;
            times.waited += self.now.saturating_sub(times.asked);
        }
    }

    /// The lock was released.
    pub(super) fn lock_released(&mut self) {
        if let Some(times) = &mut self.lock_times {
            times.held += unix_microseconds().saturating_sub(times.locked);
        }
    }
}
