//! How much memory a client's thread keeps: little, until its client shows that it needs more.
//!
//! There may be ten thousand connections, and most are idle and send little. Memory that was touched
//! once counts. So a client begins with half a kilobyte of input buffer. Whenever it fills the buffer, it gets
//! one of four times the size, up to 64 KiB. When it has been silent for a moment, all large memory is given back:
//!
//! ```text
//! 512 B ──▶ 2 KiB ──▶ 8 KiB ──▶ 32 KiB ──▶ 64 KiB    a read has filled the buffer (grow_input)
//!   ▲                              │         │       nothing came for 100 ms (prepare_to_read);
//!   └──────────────────────────────┴─────────┘       output and arguments go too
//! ```
//!
//! The stack of a thread is not given back. So it matters how deep a client's thread goes in what clients do all the
//! time. With PING, GET and SET it stays in two pages, 8 KiB. What needs much more has a frame of its own
//! (`#[inline(never)]`), so that only those who call it pay for it.
//!
//! **How Redis does it**: `clientsCronResizeQueryBuffer` and `clientsCronResizeOutputBuffer` in
//! server.c, once a second for some clients each.

use super::{INPUT_BUFFER, Inbound, Session};
use crate::call::{Arrived, Caller};
use crate::client::Client;
use crate::handler::client::describe;
use crate::held::{Charge, End};
use crate::log;
use crate::outbox::{SHORTEST_WAIT, is_timeout};
use crate::propagate::Source;
use crate::resp::Reply;
use crate::server::Server;
use crate::stats::add;
use crate::store::Store;
use std::io::{self, BufRead, BufReader};
use std::net::TcpStream;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

/// Bytes that a client's buffer begins with. It becomes four times as large, up to [`INPUT_BUFFER`],
/// whenever a read has filled it.
const FIRST_INPUT_BUFFER: usize = 512;

/// A client that rests keeps a buffer of this size.
const SMALL_INPUT_BUFFER: usize = 8 * 1024;

/// A command with this many bytes in large arguments needs no larger buffer. Measured: with a larger
/// one, a client that sends values of 33 KiB is faster, of 40 KiB as fast, of 48 KiB slower.
const LONG: usize = 40 * 1024;

/// How long a client that sends nothing keeps large memory.
pub(super) const REST: Duration = Duration::from_millis(100);

fn new_reader(capacity: usize, inbound: Inbound) -> BufReader<Inbound> {
    inbound.set_room(capacity);
    BufReader::with_capacity(capacity, inbound)
}

impl<'a> Session<'a> {
    /// What a new client begins with. On the heap, and made in a frame of its own, so that the stack of a waiting
    /// thread fits into two pages.
    #[inline(never)]
    pub(super) fn new(
        server: &'a Arc<Server>,
        store: &'a Store,
        client: Box<Client>,
        stream: &Arc<TcpStream>,
    ) -> Box<Session<'a>> {
        let inbound = Inbound::new(stream, server, &client.public);
        Box::new(Session {
            reader: new_reader(FIRST_INPUT_BUFFER, inbound),
            arrived: vec![Arrived::default()],
            arrived_count: 0,
            ran: 0,
            reply: Reply::counted(Charge::new(&client.public.held)),
            stream: stream.clone(),
            write_timeout: SHORTEST_WAIT,
            writer: None,
            postponed: None,
            client,
            server,
            caller: Caller::new(server, store, Source::Client),
        })
    }

    /// Gives a client that fills its buffer a larger one, unless it sends [`LONG`] bytes of large
    /// arguments: these are read straight to their place, and what a buffer catches of them is copied
    /// once more.
    pub(super) fn grow_input(&mut self) {
        let was_filled = std::mem::take(&mut self.reader.get_mut().was_filled);
        if was_filled
            && self.reader.capacity() < INPUT_BUFFER
            && self.arrived[0].args.large_size() < LONG
        {
            self.exchange_reader((4 * self.reader.capacity()).min(INPUT_BUFFER));
        }
    }

    /// A `BufReader` cannot change its capacity, so another one takes over what is unread.
    fn exchange_reader(&mut self, capacity: usize) {
        let empty = Inbound::new(&self.stream, self.server, &self.client.public);
        let reader = std::mem::replace(&mut self.reader, BufReader::with_capacity(0, empty));
        let unread = reader.buffer().to_vec();
        let mut inbound = reader.into_inner();
        inbound.take_back(unread);
        self.reader = new_reader(capacity, inbound);
    }

    /// Gives back the memory of the commands that have run, because the thread may wait for long before it
    /// reads the next ones: in WAIT, or until the client reads its replies.
    pub(super) fn give_back_what_has_run(&mut self) {
        for arrived in &mut self.arrived[..self.ran] {
            *arrived = Arrived::default();
        }
        if self.ran == self.arrived_count {
            let next = self.reader.buffer().len();
            self.reader.get_mut().commands_are_done(next);
        }
    }

    /// All commands have run, and the next one is to be read. A client that has sent or received much keeps the
    /// memory for a moment, because more of the same may come.
    pub(super) fn prepare_to_read(&mut self) -> io::Result<()> {
        // What is large is shared with the store, and its client may rest for long.
        for arrived in &mut self.arrived[..self.arrived_count] {
            if arrived.args.large_size() > 0 {
                arrived.args.clear();
            }
        }
        // Any other error is met again by the read that follows.
        if self.has_much() && self.fill_buffer(Some(REST)).is_err_and(|error| is_timeout(&error)) {
            self.give_back_all();
        }
        // What lies in the buffer now counts as memory of the next commands.
        let next = self.reader.buffer().len();
        self.reader.get_mut().begin_commands(next, self.client.is_listening());
        // Only the first command may be larger than the buffer. So only its memory is counted while it arrives.
        let first = &mut self.arrived[0].args;
        first.charge.get_or_insert_with(|| Charge::new(&self.client.public.held));
        Ok(())
    }

    /// Waits for input, for as long as `wait` says or for ever. Returns how much there is, 0 at the end.
    pub(super) fn fill_buffer(&mut self, wait: Option<Duration>) -> io::Result<usize> {
        self.reader.get_mut().wait_at_most(wait)?;
        let filled = self.reader.fill_buf().map(<[u8]>::len);
        self.reader.get_mut().wait_at_most(None)?;
        filled
    }

    /// Whether the client keeps more memory than one that rests.
    pub(super) fn has_much(&self) -> bool {
        self.reader.capacity() > SMALL_INPUT_BUFFER
    }

    /// Gives it back. All that has arrived has run.
    pub(super) fn give_back_all(&mut self) {
        self.arrived = vec![Arrived::default()];
        (self.ran, self.arrived_count) = (0, 0);
        self.reply.out.give_back();
        let buffers = &self.client.public.held.buffers;
        buffers.reply_room.store(0, Ordering::Relaxed);
        buffers.longest_reply.store(0, Ordering::Relaxed);
        self.exchange_reader(FIRST_INPUT_BUFFER);
    }

    /// Tells the operator if the client was ended because of what it held, in Redis's words.
    pub(super) fn tell_end(&self) {
        let text = || describe(&self.client.public, &self.client);
        match self.client.public.held.end() {
            Some(End::Output) => log::warning(format_args!(
                "Client {} scheduled to be closed ASAP for overcoming of output buffer limits.",
                text()
            )),
            Some(End::Evicted) => {
                add(&self.server.stats.evicted_clients, 1);
                log::notice(format_args!("Evicting client: {}", text()));
            }
            Some(End::Killed) | None => {}
        }
    }
}
