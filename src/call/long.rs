//! Commands that take long, such as KEYS, LCS, or a SCAN of many keys, and the writers that wait for
//! them.
//!
//! A writer waits until every reader has given the shared lock back. If twenty clients read for long,
//! and each gets a tenth of a core, the writer waits for all twenty. So the handler of such a command
//! ([`Run::Long`](crate::handler::Run)) does the short part under the lock, and returns the [`Rest`]:
//!
//! ```text
//! Rest::Compute   LCS: has its two strings.       gives the lock back ─ gate ─ computes
//! Rest::Look      KEYS, which is one long look.   gives the lock back ─ gate ─ share ─ looks
//!                 SCAN, which is many short ones.    … gives it back ─ share ─ looks ─ …
//! Rest::LookOnce  SORT, which copies and sorts.      … gives it back ─ computes
//! ```
//!
//! A gate lets one client through at a time (gate.rs). So a writer waits for one of them at most, and
//! the memory that they need beside the reply, a table or a list, is needed once, and not once for each
//! client.
//!
//! Inside EXEC the lock is not given back, because nothing may come between its commands. There the rest
//! is done under the lock, as in Redis. To compute, it passes the gate before all who wait there. That is
//! safe, because whoever is behind that gate wants no lock, and it is fair, because others wait for ours.
//! To look, it passes no gate, because whoever is behind that one may wait for our lock.
//!
//! **How Redis does it**: all at once, and everybody waits.

use super::Caller;
use super::admit::Refusal;
use crate::client::Client;
use crate::gate::Gate;
use crate::handler::{LongHandler, LookOnce, Rest, TimeSlice};
use crate::propagate::Source;
use crate::resp::{Args, Reply};
use std::sync::atomic::Ordering;
use std::thread;
use std::time::Duration;

/// How often a reader that goes on checks whether a waiting writer has come in, and how many times. A
/// writer needs a tenth of that time to wake up, but it cannot come in while others read for long.
const LOOK_EVERY: Duration = Duration::from_micros(300);
const LOOKS: usize = 30;

impl Caller<'_> {
    /// Runs a handler, and what it leaves to be done.
    pub(super) fn run_long(
        &mut self,
        handler: LongHandler,
        client: &Client,
        args: &Args,
        reply: &mut Reply,
    ) -> Result<(), Refusal> {
        let keeps_lock = client.in_exec || self.batch.time.source == Source::Log;
        self.batch.share()?;
        let rest =
            handler(&self.batch.view(client.db), args, &TimeSlice::begin(keeps_lock), reply)?;
        let gates = &self.batch.server.clients.gates;
        match rest {
            None => {}
            Some(Rest::Compute(work)) => {
                let _passage = self.pass(&gates.computing, keeps_lock);
                // The client may have been killed while it waited.
                if !client.public.held.is_ended() {
                    work(reply);
                }
            }
            Some(Rest::LookOnce(look)) => self.look_once(look, client, keeps_lock, reply)?,
            Some(Rest::Look(mut look)) if keeps_lock => {
                look(&self.batch.view(client.db), &TimeSlice::begin(keeps_lock), reply);
            }
            Some(Rest::Look(look)) => {
                let _passage = self.pass(&gates.looking, false);
                // Declared behind the passage, so that what it has gathered is freed before the next
                // client may begin.
                let mut look = look;
                while !client.public.held.is_ended() {
                    self.let_writers_in();
                    self.batch.share()?;
                    if look(&self.batch.view(client.db), &TimeSlice::begin(keeps_lock), reply) {
                        break;
                    }
                    self.give_back_midway();
                }
            }
        }
        Ok(())
    }

    /// Looks, and then computes what is left. The passage is kept until then, because what is computed with
    /// takes memory.
    fn look_once(
        &mut self,
        look: Box<LookOnce>,
        client: &Client,
        keeps_lock: bool,
        reply: &mut Reply,
    ) -> Result<(), Refusal> {
        let gates = &self.batch.server.clients.gates;
        let _passage = (!keeps_lock).then(|| self.pass(&gates.looking, false));
        if !keeps_lock {
            if client.public.held.is_ended() {
                return Ok(());
            }
            self.let_writers_in();
            self.batch.share()?;
        }
        if let Some(work) = look(&self.batch.view(client.db), reply)? {
            if !keeps_lock {
                self.give_back_midway();
            }
            work(reply);
        }
        Ok(())
    }

    /// Waits at the gate, without a lock unless it is to be kept.
    fn pass<'g>(&mut self, gate: &'g Gate, keeps_lock: bool) -> crate::gate::Passage<'g> {
        if keeps_lock {
            return gate.pass_next();
        }
        self.give_back_midway();
        let passage = gate.pass();
        self.batch.clock.go_on();
        passage
    }

    /// The lock goes to whoever takes it first, and a writer that has to wake up comes too late. So a
    /// reader that is about to look for long waits for one writer. No lock is held.
    fn let_writers_in(&self) {
        let gates = &self.batch.server.clients.gates;
        let before = gates.let_in.load(Ordering::Relaxed);
        for _ in 0..LOOKS {
            let nobody_waits = gates.writers.load(Ordering::Relaxed) == 0;
            if nobody_waits || gates.let_in.load(Ordering::Relaxed) != before {
                break;
            }
            thread::sleep(LOOK_EVERY);
        }
    }

    /// Gives the lock back in the middle of a command.
    pub(super) fn give_back_midway(&mut self) {
        self.batch.clock.read();
        self.batch.give_back();
    }
}
