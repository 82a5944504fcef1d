//! A client's thread while its client waits for a key: BLPOP, BLMOVE, BZPOPMIN and the others.
//!
//! ```text
//!                              ┌─ nothing was sent behind it ─▶ sleeps in a read. Whoever serves the client
//! BLPOP: the replies so far ──▶┤                                sends the answer, too (server/mailbox.rs)
//! leave, then                  └─ more commands were sent ────▶ waits for the mailbox, and looks now and
//!                                                               then whether the client has left
//! ```
//!
//! From the read the thread returns at once when the client closes the connection or is killed, or when the
//! time is over. Until then it sleeps, so a thousand blocked clients use no processor. Only if more commands
//! were sent does it look again and again: at first a hundred times a second, in the end once.
//!
//! If the time is over, the thread takes its client out of the queues and answers. If the client is in none
//! any more, somebody has just served it, and the answer is on its way.
//!
//! **How Redis does it**: timeout.c, a tree of deadlines, and epoll.

use super::Session;
use super::memory::REST;
use crate::outbox::{SHORTEST_WAIT, is_timeout, next_wait};
use crate::store::Waiter;
use std::io::{self, ErrorKind};
use std::time::{Duration, Instant};

impl Session<'_> {
    /// Waits for the answer, and sends it if nobody else has.
    pub(super) fn block(&mut self, waiter: &Waiter) -> io::Result<()> {
        let answered = self.flush().and_then(|()| self.await_answer(waiter.deadline));
        let is_over = !matches!(answered, Ok(true)) && self.caller.batch.stop_waiting(&self.client);
        answered?;
        if !is_over {
            if let Some(answer) = self.client.public.mailbox.take() {
                self.reply.out.append(&answer.out, 0..answer.out.mark());
            }
        } else if !waiter.silent {
            self.reply.nil_array();
        }
        self.flush()
    }

    /// Waits until there is an answer, and returns true, or until the time is over. Fails if the client
    /// leaves.
    fn await_answer(&mut self, deadline: Option<Instant>) -> io::Result<bool> {
        let limit = self.stash_limit();
        let public = self.client.public.clone();
        let mut wait = SHORTEST_WAIT;
        while !self.is_killed() {
            let left = deadline.map(|at| at.saturating_duration_since(Instant::now()));
            if left.is_some_and(|left| left.is_zero()) {
                break;
            }
            if !self.has_input() {
                if self.sleep_in_read(left)? {
                    return Ok(true);
                }
                continue;
            }
            public.turns.set_aside(true);
            let is_filled = public.mailbox.is_filled_within(left.unwrap_or(wait).min(wait));
            public.turns.set_aside(false);
            if is_filled {
                return Ok(true);
            }
            match self.reader.get_mut().stash_arrived(limit)? {
                None => return Err(ErrorKind::UnexpectedEof.into()),
                moved => wait = next_wait(wait, moved),
            }
        }
        Ok(false)
    }

    /// Whether the client has sent something behind the command that waits.
    fn has_input(&self) -> bool {
        self.ran < self.arrived_count
            || !self.reader.buffer().is_empty()
            || self.reader.get_ref().has_stashed()
    }

    /// Sleeps until the client sends something or leaves, or the time is over. Returns whether there is an
    /// answer.
    fn sleep_in_read(&mut self, left: Option<Duration>) -> io::Result<bool> {
        if !self.client.public.mailbox.leave(self.client.outbox.clone()) {
            return Ok(true);
        }
        // All that was read has run.
        self.reader.get_mut().commands_are_done(0);
        let has_much = self.has_much();
        let wait = if has_much { Some(left.unwrap_or(REST).min(REST)) } else { left };
        let read = self.fill_buffer(wait);
        if self.client.public.mailbox.come_back() {
            return Ok(true);
        }
        match read {
            Ok(0) => Err(ErrorKind::UnexpectedEof.into()),
            Ok(_) => Ok(false),
            Err(error) if is_timeout(&error) => {
                if has_much {
                    self.give_back_all();
                }
                Ok(false)
            }
            Err(error) => Err(error),
        }
    }
}
