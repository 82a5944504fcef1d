//! One client's thread: read, run, commit, reply.
//!
//! ```text
//! while a command comes ──▶ batch: run it, and all that have arrived after it, under one lock
//!       ▲ blocks here                │
//!       │                            ▼
//!       └──── flush ◀── commit: wait until the log holds what the replies say
//! ```
//!
//! Pipelining is a decision about when to flush: not after each command, but when no whole command
//! is left in the buffer. While the rest of half a command is waited for, no lock is held and no
//! reply is held back. A batch also ends at [`BATCH_COMMANDS`] commands or [`BATCH_OUTPUT`] bytes of
//! replies, so that one client holds neither the lock nor much memory for long.
//!
//! **A blocked write must not stop the reading.** A client may send two hundred thousand commands
//! before it reads the first reply (redis-py's pipelines do). If we waited until it reads, and it
//! waited until we read, both would wait for ever. So the socket has a short write timeout. After each
//! timeout, what has arrived is read and kept, and not yet run (serve/output.rs, serve/inbound.rs). How much a
//! client may send ahead or leave unread is limited; a client over its limit is ended.
//!
//! **One socket, one handle.** Whoever needs the socket shares an `Arc<TcpStream>`. A `try_clone`
//! would double the descriptors, and there are few.
//!
//! **How Redis does it**: networking.c. One thread waits for all sockets at once (epoll), and what
//! cannot be written waits in the client's reply list. A thread for each client costs the memory of
//! its stack, and the kernel's time to wake it. In return this file can be read from the top down.

mod blocked;
mod following;
mod inbound;
mod memory;
mod output;
mod paused;
mod reload;
mod waiting;

use crate::call::{Arrived, Caller};
use crate::client::{Client, Then};
use crate::error::Error;
use crate::log;
use crate::outbox::SHORTEST_WAIT;
use crate::resp::{self, Allowed, Reply, read_command};
use crate::server::Server;
use crate::server::pause::Asleep;
use crate::store::Store;
use inbound::Inbound;
use std::io::{self, BufRead, BufReader, ErrorKind};
use std::net::{Shutdown, TcpStream};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::thread::JoinHandle;
use std::time::Duration;

/// Bytes of a client's input that are read at once, at most: room for four values of 16 KiB. With room
/// for one, each value was a batch of its own, and SETs of that size took 1.5 times as long.
const INPUT_BUFFER: usize = 64 * 1024;

/// A batch ends when its replies are this long, in bytes.
const BATCH_OUTPUT: usize = 64 * 1024;

/// A batch has at most this many commands (64), because others wait for its lock. [`Caller::lock_and_warm`] can
/// look ahead to as many.
const BATCH_COMMANDS: usize = crate::types::table::WARM;

/// Serves a client until it leaves.
pub fn serve(server: &Arc<Server>, store: &Store, client: Box<Client>) {
    // Only a fake client has no connection, and it is never served.
    let Some(connection) = &client.public.connection else {
        return;
    };
    let stream = connection.stream.clone();
    // Only a timeout of zero is refused.
    let _ = stream.set_write_timeout(Some(SHORTEST_WAIT));
    let _ = stream.set_nodelay(true);
    let mut session = Session::new(server, store, client, &stream);
    let end = session.run();
    if let Err(error) = &end {
        log::verbose(format_args!("client {} left: {error}", session.client.public.id));
    }
    let ends_in_order = end.is_ok() && !session.is_killed();
    // Tells the operator, if the client was ended because it held too much memory.
    session.tell_end();
    // Before the connection ends, because whoever sees the end may connect again at once. Then `maxclients` must
    // not count this client any more.
    session.leave();
    if ends_in_order {
        // Reads on for a moment. Otherwise the kernel would throw the last reply away with what is unread.
        waiting::linger(&stream);
    }
    let _ = stream.shutdown(Shutdown::Both);
}

/// A client while it is served: what it has sent, what it is to be told, and the batch between.
struct Session<'a> {
    /// In `client.public` is what other threads may see of it.
    client: Box<Client>,
    reader: BufReader<Inbound>,
    /// The first `arrived_count` are commands that were read and looked up. The first `ran` of those
    /// have run. The places after them keep their buffers for the next commands.
    arrived: Vec<Arrived>,
    arrived_count: usize,
    ran: usize,
    /// Replies that have not left yet.
    reply: Reply,
    stream: Arc<TcpStream>,
    /// The socket's, as it was set last.
    write_timeout: Duration,
    /// The thread that empties the client's outbox, or sends a replica the log.
    writer: Option<JoinHandle<()>>,
    /// From the end of a pause until the commands that it has postponed have run (server/pause.rs).
    postponed: Option<Asleep<'a>>,
    server: &'a Arc<Server>,
    caller: Caller<'a>,
}

impl Session<'_> {
    fn run(&mut self) -> io::Result<()> {
        loop {
            if self.ran == self.arrived_count && !self.read_commands()? {
                return Ok(());
            }
            if !self.run_batch()? || self.is_killed() {
                return Ok(());
            }
        }
    }

    /// Waits for a command, with nothing held, and takes what has arrived after it. Returns false if
    /// the client has left, or has sent what is not a command and was told so.
    fn read_commands(&mut self) -> io::Result<bool> {
        // Gives large memory back if nothing comes for 100 ms (serve/memory.rs). `read_command` waits without a limit.
        self.prepare_to_read()?;
        let first = &mut self.arrived[0];
        match read_command(&mut self.reader, &mut first.args, allowed(&self.client)) {
            Ok(true) => first.look_up(),
            Ok(false) => return Ok(false),
            Err(resp::Error::Protocol(reason)) => return self.refuse(&reason).map(|()| false),
            Err(resp::Error::Cut) => return Err(ErrorKind::UnexpectedEof.into()),
            Err(resp::Error::Io(error)) => return Err(error),
        }
        (self.ran, self.arrived_count) = (0, 1);
        self.take_arrived();
        self.grow_input();
        Ok(true)
    }

    /// Takes the commands that lie whole in the buffer. Half a command stays there, and so does what is
    /// wrong: the next blocking read finds it again, when the replies have left.
    fn take_arrived(&mut self) {
        // An unauthenticated client may send little, until the AUTH in front has run.
        let most = if self.client.owes_password() { 1 } else { BATCH_COMMANDS };
        let allowed = allowed(&self.client);
        // Mostly the buffer is empty here, because most clients wait for each reply.
        while self.arrived_count < most && !self.reader.buffer().is_empty() {
            if self.arrived_count == self.arrived.len() {
                self.arrived.push(Arrived::default());
            }
            let next = &mut self.arrived[self.arrived_count];
            let buffered = self.reader.buffer();
            let mut rest = buffered;
            if !matches!(read_command(&mut rest, &mut next.args, allowed), Ok(true)) {
                break;
            }
            let used = buffered.len() - rest.len();
            self.reader.consume(used);
            next.look_up();
            self.arrived_count += 1;
        }
        // A place keeps its buffers: with new ones, a GET or SET in a pipeline takes nearly a third more
        // instructions. After a burst at most four times as many are kept as this batch needs.
        self.arrived.truncate(4 * self.arrived_count);
    }

    /// Runs the commands that have arrived, then sends the replies. Returns whether the client is to be
    /// served further.
    fn run_batch(&mut self) -> io::Result<bool> {
        // If this client turns out to be the only active one, its next command will be awaited without sleeping
        // (serve/inbound.rs).
        self.begin_batch();
        self.client.public.in_service.store(true, Ordering::Relaxed);
        self.caller.begin();
        // For speed alone: if there are four commands or more, takes the lock of the first, and warms the first
        // key of each.
        self.caller.lock_and_warm(&self.client, &self.arrived[self.ran..self.arrived_count]);
        while self.ran < self.arrived_count && !self.is_killed() {
            let arrived = &mut self.arrived[self.ran];
            self.caller.execute(arrived, &mut self.client, &mut self.reply);
            self.ran += 1;
            // A subscriber's replies must leave one by one, because messages come between them.
            if !matches!(self.client.then, Then::GoOn)
                || self.client.outbox.is_some()
                || self.reply.out.len() >= BATCH_OUTPUT
            {
                break;
            }
        }
        // If CLIENT PAUSE has postponed this client, the next one may go on now.
        self.postponed = None;
        self.caller.finish(&mut self.client, &mut self.reply);
        self.client.public.reset_idle(self.server);
        // Release: whoever sees that the service is over must not see the old idle time.
        self.client.public.in_service.store(false, Ordering::Release);
        self.follow_up()
    }

    /// Sends the replies, and then does what a handler has left to be done. (The functions that wait send the
    /// replies themselves, before they wait.) SHUTDOWN ends the process before anything is sent, as in Redis. The
    /// process goes on only if the log could not be saved, or a script is busy.
    fn follow_up(&mut self) -> io::Result<bool> {
        if std::mem::take(&mut self.client.demoted) {
            self.demote();
        }
        match std::mem::take(&mut self.client.then) {
            Then::GoOn => self.flush()?,
            Then::Close => {
                self.flush_last()?;
                return Ok(false);
            }
            Then::Drop => return Ok(false),
            Then::Shutdown { saves, snapshot, force, waits } => {
                self.shut_down(saves, snapshot, force, waits);
                self.flush()?;
            }
            // DEBUG RELOAD: serve/reload.rs. Everybody waits for it, and so do the replies before it.
            Then::Reload { from_log, silent } => self.reload(from_log, silent)?,
            // BLPOP: serve/blocked.rs. Whoever makes the key sends the answer, unless the client has sent more
            // commands: then this thread looks for the answer and sends it, to keep the order of replies.
            Then::Block(waiter) => self.block(&waiter)?,
            // WAIT: serve/waiting.rs. PSYNC: serve/following.rs.
            Then::Wait(wait) => self.wait(wait)?,
            Then::Follow(request) => self.follow(request)?,
            // CLIENT PAUSE: serve/paused.rs. The last command has not run.
            Then::Pause { writes } => {
                self.ran -= 1;
                self.sleep_through_pause(writes)?;
            }
        }
        Ok(true)
    }

    /// Answers a protocol error; afterwards the bytes that follow mean nothing.
    fn refuse(&mut self, reason: &[u8]) -> io::Result<()> {
        let id = self.client.public.id;
        log::verbose(format_args!("client {id}: protocol error: {}", reason.escape_ascii()));
        self.reply.error(&Error::quoting("ERR Protocol error: ", reason, ""));
        self.flush()
    }

    /// Whether another thread has ended the client: by CLIENT KILL or `timeout`, or because too much was queued
    #[inline]
    /// for it.
    fn is_killed(&self) -> bool {
        let outbox = self.client.outbox.as_ref();
        self.client.public.held.is_ended() || outbox.is_some_and(|o| o.is_closed())
    }

    /// Lets the outbox's thread send what is queued. At the end `self` is dropped, and the client is on no list
    /// any more.
    fn leave(mut self: Box<Self>) {
        // This takes the shared lock, if the client watches keys. `finish` gives it back.
        self.caller.unwatch(&mut self.client);
        self.caller.finish(&mut self.client, &mut self.reply);
        self.end_writer();
    }
}

/// What this client may send at present: AUTH and CONFIG SET change it.
fn allowed(client: &Client) -> Allowed {
    let config = &client.server.config;
    Allowed {
        bulk: config.proto_max_bulk_len.get(),
        command: config.client_query_buffer_limit.get(),
        unauthenticated: client.owes_password(),
        strict: false,
    }
}
