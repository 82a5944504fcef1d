//! A script has held the lock for too long, so its batch lends it (store/shared.rs).
//!
//! ```text
//! Shared ───┐ lend      ┌─ share(), exclude(): for one command of the script ─▶ Shared or Exclusive ─┐ lend
//! Exclusive ┴────▶ Lent ┴──────────────────────────────────◀──────────────────────────────────────────┘
//!                       └─ end_lending: the script is over ─▶ Shared or Exclusive, as before
//! ```
//!
//! The records of the script stay in the batch meanwhile: they join the stream when the lock is given back for
//! good. So the log has the script as a whole or not at all, also if the process ends while it is busy.

use super::Batch;
use super::lock::Guard;
use crate::handler::{Command, Flag};
use crate::store::{Busy, Keyspace};

impl Batch<'_> {
    /// Gives the lock back for the time between two commands of a script.
    pub fn lend(&mut self) {
        let exclusive = match self.guard {
            Guard::Shared(_) => false,
            Guard::Exclusive(_) => true,
            Guard::None | Guard::Lent { .. } => return,
        };
        if !std::mem::replace(&mut self.has_lent, true) {
            self.store.lend();
        }
        self.guard = Guard::Lent { exclusive };
    }

    /// The script is over. The lock, if it was lent, is held again and nobody is refused any more.
    pub fn end_lending(&mut self) {
        if std::mem::take(&mut self.has_lent) {
            self.take_again();
            self.store.take_back();
        }
    }

    /// Takes the lock that was lent. The time does not go on.
    #[cold]
    pub(super) fn take_again(&mut self) {
        if let Guard::Lent { exclusive } = self.guard {
            self.guard = match exclusive {
                true => Guard::Exclusive(self.store.write_anyway()),
                false => Guard::Shared(self.store.read_anyway()),
            };
        }
    }

    /// Makes sure that the keyspace can be looked at, though a script may be busy: for whoever touches only the
    /// lists of those who watch keys or wait for them.
    pub fn share_anyway(&mut self) {
        if let Guard::None = self.guard {
            self.guard = Guard::Shared(self.store.read_anyway());
            self.start_clock();
        }
    }

    /// Takes the exclusive lock and keeps it, so that nothing changes any more: for SHUTDOWN. If the process ends
    /// now, what a busy script has done so far is lost.
    pub fn hold_everything(&mut self) {
        self.give_back();
        self.begin_writing(self.store.write_anyway());
        self.server.aof.append(&mut self.records);
    }

    /// The keyspace, if the lock is the exclusive one.
    pub fn held(&self) -> Option<&Keyspace> {
        if let Guard::Exclusive(keyspace) = &self.guard { Some(keyspace) } else { None }
    }

    /// [`share_anyway`](Self::share_anyway) for a command that is answered while a script is busy, and
    /// [`share`](Self::share) for any other.
    pub fn share_for(&mut self, command: &Command) -> Result<(), Busy> {
        if !command.is(Flag::AllowBusy) {
            return self.share();
        }
        self.share_anyway();
        Ok(())
    }

    /// Whether the lock is the exclusive one.
    pub fn is_exclusive(&self) -> bool {
        matches!(self.guard, Guard::Exclusive(_))
    }

    /// Says whether the commands that follow are those of a script.
    pub fn set_in_script(&mut self, is_in_script: bool) {
        self.report.in_script.set(is_in_script);
    }

    /// Says whether the commands that follow are logged: `redis.set_repl`.
    pub fn set_logged(&mut self, is_logged: bool) {
        self.records.leaves_out_commands = !is_logged;
    }
}
