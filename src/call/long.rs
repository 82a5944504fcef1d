//! Commands that take long, and who waits for them meanwhile: KEYS, LCS, a SCAN of much.
//!
//! A writer waits until every reader has given the shared lock back. If twenty of them read for long,
//! and each has a tenth of a core, it waits for all twenty. So the handler of such a command
//! ([`Run::Long`](crate::handler::Run)) does under the lock what is short, and returns the [`Rest`]:
//!
//! ```text
//! Rest::Compute   LCS: has its two strings.       gives the lock back ─ gate ─ computes
//! Rest::Look      KEYS, which is one long look.   gives the lock back ─ gate ─ share ─ looks
//!                 SCAN, which is many short ones.    … gives it back ─ share ─ looks ─ …
//! ```
//!
//! Behind each gate is one at a time (gate.rs). So a writer waits for one of them at most, and what they
//! need beside their reply, a table or a list, is needed once and not once for each client.
//!
//! Inside EXEC nothing is given back, for nothing may come between its commands: there the rest is done
//! under the lock, as in Redis. It passes the gate of those who compute, who want no lock, as the next one,
//! because others wait for ours; and not that of those who look, who wait for ours too.
//!
//! **How Redis does it**: all of it at once, and everybody waits.

use super::Caller;
use crate::client::Client;
use crate::error::Error;
use crate::gate::Gate;
use crate::handler::{LongHandler, Rest, Stretch};
use crate::resp::{Args, Reply};
use std::sync::atomic::Ordering;
use std::thread;
use std::time::Duration;

/// How often one who looks on looks whether a writer that waits has come in, and how many times: it takes
/// a writer a tenth of that to wake up, but perhaps others read for long, and it cannot come in.
const LOOK_EVERY: Duration = Duration::from_micros(300);
const LOOKS: usize = 30;

impl Caller<'_> {
    /// Runs a handler and what it leaves to be done.
    pub(super) fn run_long(
        &mut self,
        handler: LongHandler,
        client: &Client,
        args: &Args,
        reply: &mut Reply,
    ) -> Result<(), Error> {
        let keeps_lock = client.in_exec || self.batch.time.source.keeps_lock();
        let stretch = || match keeps_lock {
            true => Stretch::endless(),
            false => Stretch::begin(),
        };
        self.batch.share();
        let rest = handler(&self.batch.view(client.db), args, &stretch(), reply)?;
        let gates = &self.batch.server.clients.gates;
        match rest {
            None => {}
            Some(Rest::Compute(work)) => {
                let _passage = self.pass(&gates.computing, keeps_lock);
                // Its client may have been killed while it waited.
                if !client.public.held.is_ended() {
                    work(reply);
                }
            }
            Some(Rest::Look(mut look)) if keeps_lock => {
                look(&self.batch.view(client.db), &stretch(), reply);
            }
            Some(Rest::Look(look)) => {
                let _passage = self.pass(&gates.looking, false);
                // What it has gathered is freed before the next one may begin.
                let mut look = look;
                while !client.public.held.is_ended() {
                    self.let_writers_in();
                    self.batch.share();
                    if look(&self.batch.view(client.db), &stretch(), reply) {
                        break;
                    }
                    self.pause();
                }
            }
        }
        Ok(())
    }

    /// Waits at the gate, without a lock unless it is to be kept.
    fn pass<'g>(&mut self, gate: &'g Gate, keeps_lock: bool) -> crate::gate::Passage<'g> {
        if keeps_lock {
            return gate.pass_next();
        }
        self.pause();
        let passage = gate.pass();
        self.batch.clock.go_on();
        passage
    }

    /// The lock goes to whoever takes it first, and a writer that is yet to be woken is late. So who is
    /// about to look for long waits for one of them. No lock is held.
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
    fn pause(&mut self) {
        self.batch.clock.read();
        self.batch.give_back();
    }
}
