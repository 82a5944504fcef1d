//! How replies leave, and what happens when they cannot.
//!
//! ```text
//! replies ──▶ socket                  write, for at most `wait`
//!                │ full: the peer does not read
//!                ▼
//!             what it has sent meanwhile ──▶ stash (inbound.rs)   so that it can go on, and read
//!                │
//!                └─ write again; `wait`: 10, 20, 40 … 1000 ms, and 10 again when a byte has moved
//! ```
//!
//! It grows because a thousand clients that have stopped reading would otherwise wake a hundred
//! thousand threads a second, and so they wake a thousand.
//!
//! A client with an outbox (a subscriber, a monitor) has a second thread that writes, and its replies
//! go through that queue, so that they and the messages come in one order.
//!
//! **How Redis does it**: `writeToClient` in networking.c writes what the socket takes, and epoll says
//! when it takes more.

use super::{BATCH_OUTPUT, Session};
use crate::held::End;
use crate::outbox::{LONGEST_WAIT, SHORTEST_WAIT, is_timeout, next_wait};
use crate::stats::Count;
use std::io::{self, ErrorKind, IoSlice, Write};
use std::net::TcpStream;
use std::sync::atomic::Ordering;
use std::time::Duration;

/// Bytes that the buffer for replies keeps. A longer one is lent to the next client that needs one (spare.rs).
const KEPT_OUTPUT: usize = 32 * 1024;

/// Bytes that are read from an unauthenticated client while it does not read its replies.
const UNAUTHENTICATED_STASH: usize = 1024 * 1024;

impl Session<'_> {
    /// Sends the replies, through the outbox if the client has one.
    pub(super) fn flush(&mut self) -> io::Result<()> {
        self.send_replies(false)
    }

    /// The same for the last replies: no message comes behind them.
    pub(super) fn flush_last(&mut self) -> io::Result<()> {
        self.send_replies(true)
    }

    fn send_replies(&mut self, are_last: bool) -> io::Result<()> {
        self.server.stats.count_errors(&mut self.reply.errors);
        if self.client.outbox.is_some() && self.writer.is_none() {
            self.start_writer()?;
        }
        let sent = self.reply.out.end();
        let limit = self.stash_limit();
        if let Some(outbox) = self.client.outbox.clone() {
            if sent > BATCH_OUTPUT || !outbox.wait_for_room(Duration::ZERO) {
                self.give_back_what_has_run();
            }
            // Also without a reply: messages may be held, and a client that does not read must not go on
            // asking.
            self.reader.get_mut().wait_for_room(&outbox, limit)?;
            // What was published before the replies were made comes before them, also if their client has waited since.
            self.server.hub.send_what_waits();
            // Piece by piece. Otherwise long replies would lie in memory twice, and large values, which are
            // shared with the keyspace, once more.
            outbox.hold();
            for part in self.reply.out.pieces().flat_map(|piece| piece.chunks(BATCH_OUTPUT)) {
                self.reader.get_mut().wait_for_room(&outbox, limit)?;
                outbox.push_part(part);
            }
            match are_last {
                true => outbox.close(),
                false => outbox.end_reply(),
            }
        } else if sent == 0 {
            return Ok(());
        } else {
            self.write_all(limit)?;
        }
        self.reply.out.clear(KEPT_OUTPUT);
        self.show_buffers(sent);
        let counters = &self.client.public.counters;
        counters.add(Count::OutputBytes, sent as u64);
        let taken = std::mem::take(&mut self.reader.get_mut().taken);
        counters.add(Count::InputBytes, taken);
        Ok(())
    }

    /// Before commands run: their replies come behind the messages that were published before.
    pub(super) fn begin_batch(&mut self) {
        let has_outbox = self.client.outbox.is_some();
        self.reader.get_mut().begin_batch(has_outbox);
        if has_outbox {
            self.server.hub.send_what_waits();
        }
    }

    /// For CLIENT LIST, after replies of this length.
    fn show_buffers(&self, sent: usize) {
        let buffers = &self.client.public.held.buffers;
        buffers.reply_room.store(self.reply.out.capacity(), Ordering::Relaxed);
        if sent > buffers.longest_reply.load(Ordering::Relaxed) {
            buffers.longest_reply.store(sent, Ordering::Relaxed);
        }
        if buffers.unsent.load(Ordering::Relaxed) > 0 {
            buffers.unsent.store(0, Ordering::Relaxed);
        }
    }

    /// Bytes that the stash may hold.
    pub(super) fn stash_limit(&self) -> usize {
        if self.client.owes_password() {
            return UNAUTHENTICATED_STASH;
        }
        self.server.config.client_query_buffer_limit.get()
    }

    /// Starts the thread that is from now on the only writer of the socket (outbox.rs).
    fn start_writer(&mut self) -> io::Result<()> {
        if let Some(outbox) = self.client.outbox.clone() {
            let thread = std::thread::Builder::new().stack_size(crate::STACK);
            // A blocked write no longer stops the reading, so the writer need not wake up for it.
            let _ = self.stream.set_write_timeout(Some(LONGEST_WAIT));
            self.writer = Some(thread.spawn(move || outbox.write_until_closed())?);
        }
        Ok(())
    }

    /// Waits for the end of the thread that writes to the socket, if there is one: when the queue is empty, the
    /// connection is broken, or the peer reads no more. A replica's thread ends at once.
    pub(super) fn end_writer(&mut self) {
        let Some(writer) = self.writer.take() else {
            return;
        };
        match &self.client.outbox {
            Some(outbox) => {
                // It may still read, and then it gets what was published before it left.
                self.server.hub.send_what_waits();
                outbox.close();
            }
            None => self.client.public.held.kill(End::Killed),
        }
        let _ = writer.join();
        // A publisher may have left the socket so that it does not wait. None writes to it any more.
        let _ = self.client.public.turns.mode.wait_again(&self.stream);
    }

    /// Writes all replies. Whenever the peer has not read for a while, reads what it has sent.
    fn write_all(&mut self, limit: usize) -> io::Result<()> {
        let mut sent = 0;
        let mut over_since = None;
        while !self.write_on(&mut sent)? {
            self.give_back_what_has_run();
            self.reply.out.count_again();
            let (held, unread) = (&self.client.public.held, self.reply.out.len() - sent);
            held.buffers.unsent.store(unread, Ordering::Relaxed);
            let normal = &held.total.normal;
            if normal.is_over_hard(unread) || normal.is_over_soft_for_long(unread, &mut over_since)
            {
                held.kill(End::Output);
            }
            let moved = self.reader.get_mut().stash_arrived(limit)?;
            let next = next_wait(self.write_timeout, moved);
            set_write_timeout(&self.stream, &mut self.write_timeout, next)?;
        }
        Ok(())
    }

    /// Writes the replies from byte `sent` on. Returns false if the peer has read nothing for a while.
    fn write_on(&mut self, sent: &mut usize) -> io::Result<bool> {
        let (mut one, mut many);
        let mut rest: &mut [IoSlice] = match self.reply.out.one_piece() {
            Some(piece) => {
                one = [IoSlice::new(piece)];
                &mut one
            }
            None => {
                many = self.reply.out.pieces().map(IoSlice::new).collect::<Vec<_>>();
                &mut many
            }
        };
        IoSlice::advance_slices(&mut rest, *sent);
        while !rest.is_empty() {
            // Of one piece, the kernel has less to look at.
            let written = match &*rest {
                [piece] => (&*self.stream).write(piece),
                pieces => (&*self.stream).write_vectored(pieces),
            };
            match written {
                Ok(0) => return Err(ErrorKind::WriteZero.into()),
                Ok(count) => {
                    IoSlice::advance_slices(&mut rest, count);
                    *sent += count;
                    self.client.public.reset_idle(self.server);
                    set_write_timeout(&self.stream, &mut self.write_timeout, SHORTEST_WAIT)?;
                }
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) if is_timeout(&error) => return Ok(false),
                Err(error) => return Err(error),
            }
        }
        Ok(true)
    }
}

/// Sets the socket's write timeout, which was `old` until now.
fn set_write_timeout(stream: &TcpStream, old: &mut Duration, new: Duration) -> io::Result<()> {
    if *old != new {
        *old = new;
        stream.set_write_timeout(Some(new))?;
    }
    Ok(())
}
