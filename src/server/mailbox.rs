//! How the answer comes to a client that waits for a key (store/blocking.rs).
//!
//! The client's thread sleeps where that of every idle client sleeps: in a read of its socket. So it uses no
//! processor, and notices at once when its client leaves. But std cannot wake a thread that reads. Therefore
//! whoever serves the client also sends the answer, when the log holds it:
//!
//! ```text
//! client's thread   BLPOP k ─▶ leave ─▶ sleeps in a read ─────────▶ the next command ─▶ come_back
//! mailbox           Empty      Away                         Sent                        Empty
//! another thread                        RPUSH k ─▶ deliver ─┘
//! ```
//!
//! If the client has sent more commands after its BLPOP, its thread must run them as soon as the answer is
//! there. Then it does not leave. It waits here, and the answer comes into the mailbox (`Full`). The same
//! happens before the thread has sent the replies that stand in front of the answer.
//!
//! To send never waits. What the socket does not take at once, because the answer is long, is sent by a
//! thread that is made for it.
//!
//! **What it costs.** Most of the time of a short answer goes into calls of the system. Whoever answers makes four: the
//! socket shall not wait; has its client left? the write; the socket shall wait. The client's thread makes one, the
//! read of the next command. The answer itself wakes nobody but the client.
//!
//! **How Redis does it**: `addReply`, as to any client, because one thread does everything.

use super::{Public, Server, order};
use crate::held::{Charge, End};
use crate::outbox::{Outbox, SHORTEST_WAIT, is_timeout, next_wait};
use crate::resp::Reply;
use std::io::{self, ErrorKind, IoSlice, Write};
use std::sync::atomic::Ordering;
use std::sync::{Arc, Condvar, Mutex};
use std::time::Duration;

/// An answer under way.
pub struct Answer {
    pub to: Recipient,
    /// Empty if CLIENT REPLY keeps it back.
    pub reply: Reply,
    /// Whether it tells of a change, which the log must hold first.
    pub is_logged: bool,
}

impl Answer {
    /// Sends the answer, or leaves it for the client's own thread. Returns how many bytes were sent.
    pub fn deliver(self, server: &Server) -> usize {
        let to = &self.to.client;
        to.mailbox.put(to, self.reply, server)
    }
}

/// A client that is answered by another thread. Until this is dropped its socket may not wait.
pub struct Recipient {
    pub client: Arc<Public>,
}

impl Recipient {
    /// None if the client has closed the connection, or is being ended. Its thread may not know yet.
    pub fn if_there(client: Arc<Public>) -> Option<Recipient> {
        let to = Recipient { client };
        let Public { connection, turns, held, .. } = &*to.client;
        let stream = &connection.as_ref()?.stream;
        let is_there = !held.is_ended()
            && turns.mode.at_once_from_now(stream, || Ok(())).is_ok()
            && !order::has_end(stream, turns);
        is_there.then_some(to)
    }
}

impl Drop for Recipient {
    fn drop(&mut self) {
        if let Some(connection) = &self.client.connection {
            let _ = self.client.turns.mode.wait_again(&connection.stream);
        }
    }
}

/// See the chapter.
#[derive(Default)]
pub struct Mailbox {
    state: Mutex<State>,
    filled: Condvar,
}

#[derive(Default)]
enum State {
    #[default]
    Empty,
    /// The client's thread is in a read. All that its client is sent may have to go through an outbox.
    Away(Option<Arc<Outbox>>),
    /// Another thread is still sending.
    Sending,
    Sent,
    Full(Reply),
}

impl Mailbox {
    /// The client's thread goes into a read. Returns false if it need not, because an answer has come.
    pub fn leave(&self, outbox: Option<Arc<Outbox>>) -> bool {
        let mut state = self.state.lock().unwrap();
        let is_empty = matches!(*state, State::Empty);
        if is_empty {
            *state = State::Away(outbox);
        }
        is_empty
    }

    /// The client's thread is back. Returns whether an answer has come.
    pub fn come_back(&self) -> bool {
        let mut state = self.state.lock().unwrap();
        if let State::Away(_) = *state {
            *state = State::Empty;
        }
        !matches!(*state, State::Empty)
    }

    /// Waits for an answer, for at most `wait`. Returns whether one has come.
    pub fn is_filled_within(&self, wait: Duration) -> bool {
        let state = self.state.lock().unwrap();
        let is_empty = |state: &mut State| matches!(state, State::Empty);
        !self.filled.wait_timeout_while(state, wait, is_empty).unwrap().1.timed_out()
    }

    /// Waits for the answer, which is certain to come, and empties the mailbox. None if it was sent.
    pub fn take(&self) -> Option<Reply> {
        let state = self.state.lock().unwrap();
        let is_early = |state: &mut State| !matches!(state, State::Sent | State::Full(_));
        let mut state = self.filled.wait_while(state, is_early).unwrap();
        match std::mem::take(&mut *state) {
            State::Full(reply) => Some(reply),
            _ => None,
        }
    }

    fn put(&self, to: &Arc<Public>, reply: Reply, server: &Server) -> usize {
        let length = reply.out.len();
        let mut state = self.state.lock().unwrap();
        let (new, sent) = match std::mem::take(&mut *state) {
            State::Away(Some(outbox)) => {
                // What was published before the answer comes before it.
                server.hub.send_what_waits();
                outbox.hold();
                reply.out.pieces().for_each(|piece| outbox.push_part(piece));
                outbox.end_reply();
                (State::Sent, length)
            }
            State::Away(None) => match send_at_once(to, &reply) {
                sent if sent < length => (send_on(to, reply.out.to_vec().split_off(sent)), length),
                _ => (State::Sent, length),
            },
            _ => {
                // Its thread may sleep here. (A thread that is away does not, and to wake nobody is a call, too.)
                self.filled.notify_one();
                (State::Full(reply), 0)
            }
        };
        *state = new;
        to.reset_idle(server);
        sent
    }

    fn is_sent(&self) {
        *self.state.lock().unwrap() = State::Sent;
        self.filled.notify_one();
    }
}

/// Sends what the socket takes without waiting, and returns how many bytes. If the connection is broken, the
/// client's thread will see that too, and there is nothing to be sent.
fn send_at_once(to: &Public, reply: &Reply) -> usize {
    let (length, mut sent) = (reply.out.len(), 0);
    let Some(connection) = &to.connection else {
        return length;
    };
    let mut stream = &*connection.stream;
    let mut pieces: Vec<IoSlice> = reply.out.pieces().map(IoSlice::new).collect();
    let mut rest = &mut pieces[..];
    let written = to.turns.mode.at_once(stream, || {
        while !rest.is_empty() {
            match stream.write_vectored(rest) {
                Ok(count) => {
                    IoSlice::advance_slices(&mut rest, count);
                    sent += count;
                }
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    });
    match written {
        Err(error) if error.kind() != ErrorKind::WouldBlock => length,
        _ => sent,
    }
}

/// Sends the rest in a thread. If the system has no thread, the client is ended, because half an answer is
/// none, and nothing more is sent.
fn send_on(to: &Arc<Public>, rest: Vec<u8>) -> State {
    let public = to.clone();
    let thread = std::thread::Builder::new().stack_size(crate::STACK).spawn(move || {
        if send_slowly(&public, &rest).is_err() {
            public.held.kill(End::Killed);
        }
        public.mailbox.is_sent();
    });
    if thread.is_err() {
        to.held.kill(End::Killed);
        return State::Sent;
    }
    State::Sending
}

/// Sends all, at the pace at which the client reads, within the limits of what it may leave unread.
fn send_slowly(to: &Public, mut rest: &[u8]) -> io::Result<()> {
    let mut charge = Charge::new(&to.held);
    charge.set(rest.len());
    let (mut wait, mut over_since) = (SHORTEST_WAIT, None);
    let (limit, unsent) = (&to.held.total.normal, &to.held.buffers.unsent);
    while let (Some(connection), false) = (&to.connection, rest.is_empty() || to.held.is_ended()) {
        match (&*connection.stream).write(rest) {
            Ok(count) => (rest, wait) = (&rest[count..], SHORTEST_WAIT),
            Err(error) if is_timeout(&error) => {
                if limit.is_over_hard(rest.len())
                    || limit.is_over_soft_for_long(rest.len(), &mut over_since)
                {
                    to.held.kill(End::Output);
                }
                unsent.store(rest.len(), Ordering::Relaxed);
                std::thread::sleep(wait);
                wait = next_wait(wait, None);
            }
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    unsent.store(0, Ordering::Relaxed);
    Ok(())
}
