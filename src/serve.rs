//! One client's thread: read, run, commit, reply.
//!
//! ```text
//! while a command comes ──▶ batch: run it, and all that have arrived behind it, under one lock
//!       ▲ blocks here                │
//!       │                            ▼
//!       └──── flush ◀── commit: wait until the log holds what the replies say
//! ```
//!
//! Pipelining is a decision about when to flush: not after each command, but when no whole command
//! is left in the buffer. A command of which only half has come is waited for with no lock held
//! and no reply held back. A batch also ends at [`BATCH_COMMANDS`] commands or [`BATCH_OUTPUT`]
//! bytes of replies, so that neither the lock nor the memory of a client that asks for much is held
//! for long.
//!
//! **A blocked write must not stop the reading.** A client may send two hundred thousand commands
//! before it reads the first reply (redis-py's pipelines do). If we wait for it to read, and it
//! for us to read, both wait for ever. So the socket has a short write timeout, and each time it
//! fires, what has arrived is moved into the [`Inbound`] stash, unexecuted, below the `BufReader`,
//! up to `client-query-buffer-limit`. While nothing moves in either direction each timeout is twice as
//! long as the one before, up to [`LONGEST_PAUSE`]: a thousand clients that have stopped reading wake a
//! thousand threads a second and not a hundred thousand. After the first byte that moves it is short again.
//!
//! **One socket, one handle.** Everybody who needs the socket shares an `Arc<TcpStream>`; a
//! `try_clone` would double the descriptors, of which there are few.
//!
//! **How Redis does it**: networking.c. One thread waits for all sockets at once (epoll), and what
//! cannot be written waits in the client's reply list. A thread for each client costs memory that
//! its stack touches, and the kernel's time to wake it; it lets this file be read from the top down.

mod inbound;
mod memory;
mod waiting;

use crate::call::{Arrived, Caller};
use crate::client::{Client, Then};
use crate::error::Error;
use crate::handler::client::describe;
use crate::held::{Charge, Class, End};
use crate::log;
use crate::propagate::Source;
use crate::resp::{self, Limits, Reply, read_command};
use crate::server::Server;
use crate::stats::{Count, add};
use crate::store::Keyspace;
use inbound::Inbound;
use memory::FIRST_INPUT_BUFFER;
use std::io::{self, BufRead, BufReader, ErrorKind, IoSlice, Write};
use std::net::{Shutdown, TcpStream};
use std::sync::{Arc, RwLock};
use std::thread::JoinHandle;
use std::time::Duration;

/// Bytes of a client's input that are read at once, at most. Four values of 16 KiB: with a buffer
/// for one, each of them was a batch of its own, and SETs of that size took 1.5 times as long.
const INPUT_BUFFER: usize = 64 * 1024;

/// A batch ends when its replies are this long, in bytes.
const BATCH_OUTPUT: usize = 64 * 1024;

/// A batch has at most so many commands, as many as [`Caller::warm`] can look ahead to. With more,
/// others would wait too long for its lock.
const BATCH_COMMANDS: usize = crate::types::table::WARM;

/// After this long a write that makes no progress lets the reading go on (`stash_arrived`), and after
/// this long at most, when nothing has moved for a while.
const SHORTEST_PAUSE: Duration = Duration::from_millis(10);
const LONGEST_PAUSE: Duration = Duration::from_secs(1);

/// Bytes that are taken from a client without a password, while it does not read what it is told.
const UNAUTHENTICATED_STASH: usize = 1024 * 1024;

/// Serves a client until it leaves.
pub fn serve(server: &Arc<Server>, store: &RwLock<Keyspace>, client: Box<Client>) {
    let Some(connection) = &client.public.connection else {
        return;
    };
    let stream = connection.stream.clone();
    // A timeout of zero is the only one that is refused.
    let _ = stream.set_write_timeout(Some(SHORTEST_PAUSE));
    let _ = stream.set_nodelay(true);
    let inbound = Inbound::new(&stream, server, &client.public);
    // On the heap, so that the stack of a thread that waits fits into two pages.
    let mut session = Box::new(Session {
        reader: BufReader::with_capacity(FIRST_INPUT_BUFFER, inbound),
        arrived: vec![Arrived::default()],
        arrived_count: 0,
        ran: 0,
        reply: Reply::watched(Charge::new(&client.public.held)),
        stream: stream.clone(),
        pause: SHORTEST_PAUSE,
        writer: None,
        client,
        server,
        caller: Caller::new(server, store, Source::Client),
    });
    let end = session.run();
    if let Err(error) = &end {
        log::verbose(format_args!("client {} left: {error}", session.client.public.id));
    }
    let lingers = end.is_ok() && !session.is_killed();
    session.tell_end();
    // When the client sees the end of the connection, its place is free for another.
    session.leave();
    if lingers {
        waiting::linger(&stream);
    }
    let _ = stream.shutdown(Shutdown::Both);
}

/// A client while it is served: what it has sent, what it is to be told, and the batch between.
struct Session<'a> {
    client: Box<Client>,
    reader: BufReader<Inbound>,
    /// The first `arrived_count` are commands that were read and looked up, and the first `ran` of
    /// those have run. The places are used again and again, for their buffers' sake.
    arrived: Vec<Arrived>,
    arrived_count: usize,
    ran: usize,
    /// Replies that have not left yet.
    reply: Reply,
    stream: Arc<TcpStream>,
    /// The socket's write timeout.
    pause: Duration,
    /// The thread that empties the client's outbox, if it has one.
    writer: Option<JoinHandle<()>>,
    server: &'a Arc<Server>,
    caller: Caller<'a>,
}

impl Session<'_> {
    fn run(&mut self) -> io::Result<()> {
        loop {
            if self.ran == self.arrived_count {
                // Nothing is left to be run: wait for the next command, with nothing held.
                self.rest()?;
                self.reader.get_mut().forget_handed_up();
                let first = &mut self.arrived[0];
                // All others are short: they lie whole in the buffer.
                let held = &self.client.public.held;
                let charge = &mut first.args.charge;
                charge.get_or_insert_with(|| Charge::new(held));
                match read_command(&mut self.reader, &mut first.args, limits(&self.client)) {
                    // Its place still has the row of the first command before: mostly the same again.
                    Ok(true) => first.look_up(first.row),
                    Ok(false) => return Ok(()),
                    Err(resp::Error::Cut) => return Err(ErrorKind::UnexpectedEof.into()),
                    Err(resp::Error::Io(error)) => return Err(error),
                    Err(resp::Error::Protocol(reason)) => return self.refuse(&reason),
                }
                (self.ran, self.arrived_count) = (0, 1);
                self.take_arrived();
                self.grow_input();
            }
            self.run_batch()?;
            if self.client.then != Then::GoOn || self.is_killed() {
                return Ok(());
            }
        }
    }

    /// Whether another thread has ended the client: CLIENT KILL, `timeout`, or a publisher who
    /// found its queue over the limit.
    fn is_killed(&self) -> bool {
        let outbox = self.client.outbox.as_ref();
        self.client.public.held.is_ended() || outbox.is_some_and(|o| o.is_closed())
    }

    /// Tells the operator of a client that was ended for what it held, in Redis's words.
    fn tell_end(&self) {
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

    /// Takes the commands that lie whole in the buffer. What does not is left untouched, and so
    /// is what is wrong: the blocking read will find the same, when the replies have left.
    fn take_arrived(&mut self) {
        // Before the password a client may send little, and the AUTH in front decides.
        let most = if self.client.owes_password() { 1 } else { BATCH_COMMANDS };
        let limits = limits(&self.client);
        let mut before = self.arrived[0].row;
        // An empty buffer is the rule for a client that waits for each answer, and soon told.
        while self.arrived_count < most && !self.reader.buffer().is_empty() {
            if self.arrived_count == self.arrived.len() {
                self.arrived.push(Arrived::default());
            }
            let next = &mut self.arrived[self.arrived_count];
            let buffered = self.reader.buffer();
            let mut rest = buffered;
            if !matches!(read_command(&mut rest, &mut next.args, limits), Ok(true)) {
                break;
            }
            let used = buffered.len() - rest.len();
            self.reader.consume(used);
            next.look_up(before);
            before = next.row;
            self.arrived_count += 1;
        }
        // Places that only a burst has needed are given back.
        self.arrived.truncate(4 * self.arrived_count);
    }

    /// Runs the commands that have arrived, then sends the replies.
    fn run_batch(&mut self) -> io::Result<()> {
        self.reader.get_mut().begin_batch();
        self.client.public.begin_service();
        self.caller.begin();
        self.caller.warm(self.client.db, &self.arrived[self.ran..self.arrived_count]);
        while self.ran < self.arrived_count && !self.is_killed() {
            let arrived = &mut self.arrived[self.ran];
            self.caller.execute(arrived, &mut self.client, &mut self.reply);
            self.ran += 1;
            // A subscriber's replies must leave one by one: messages come in between.
            if self.client.then != Then::GoOn
                || self.client.outbox.is_some()
                || self.reply.out.len() >= BATCH_OUTPUT
            {
                break;
            }
        }
        self.caller.finish(&mut self.client, &mut self.reply);
        self.client.public.touch(self.server);
        self.follow_up()
    }

    /// Sends the replies, and does what a handler could not, for it must not wait.
    fn follow_up(&mut self) -> io::Result<()> {
        match self.client.then {
            Then::Shutdown { force } => self.shut_down(force),
            Then::Drop => self.reply.out.truncate(0),
            Then::GoOn | Then::Close | Then::Wait(_) => {}
        }
        // Whatever is waited for, what has been answered so far leaves before.
        self.flush()?;
        if let Then::Wait(wait) = self.client.then {
            self.client.then = Then::GoOn;
            self.wait(wait)?;
        }
        Ok(())
    }

    /// Answers a protocol error; afterwards the bytes that follow mean nothing.
    fn refuse(&mut self, reason: &[u8]) -> io::Result<()> {
        log::verbose(format_args!(
            "client {}: protocol error: {}",
            self.client.public.id,
            reason.escape_ascii()
        ));
        let error = Error::quoting("ERR Protocol error: ", reason, "");
        self.reply.error(&error);
        self.client.public.counters.add(Count::ErrorReplies, 1);
        self.flush()
    }

    /// Sends the replies, through the outbox if the client has one.
    fn flush(&mut self) -> io::Result<()> {
        if self.client.outbox.is_some() && self.writer.is_none() {
            self.start_writer()?;
        }
        let sent = self.reply.out.len();
        let limit = self.stash_limit();
        if let Some(outbox) = &self.client.outbox {
            // Without a reply too: messages may be held, and who does not read must not go on asking.
            self.reader.get_mut().wait_for_room(outbox, limit)?;
            if sent <= BATCH_OUTPUT {
                outbox.push_reply(&self.reply.out);
            } else {
                // Piece by piece, or its memory would be needed twice, and that of shared values at all.
                outbox.hold();
                for part in self.reply.out.pieces().flat_map(|piece| piece.chunks(BATCH_OUTPUT)) {
                    self.reader.get_mut().wait_for_room(outbox, limit)?;
                    outbox.push_part(part);
                }
                outbox.end_reply();
            }
        } else if sent == 0 {
            return Ok(());
        } else {
            self.write_all(limit)?;
        }
        self.reply.out.clear(BATCH_OUTPUT);
        let counters = &self.client.public.counters;
        counters.add(Count::OutputBytes, sent as u64);
        let taken = self.reader.get_mut().take_count();
        counters.add(Count::InputBytes, taken);
        Ok(())
    }

    /// Starts the thread that is from now on the socket's only writer (outbox.rs).
    fn start_writer(&mut self) -> io::Result<()> {
        if let Some(outbox) = self.client.outbox.clone() {
            let thread = std::thread::Builder::new().stack_size(crate::STACK);
            let (public, server) = (self.client.public.clone(), self.server.clone());
            // The owner's reading waits for no write from now on, and the writer need not wake for it.
            let _ = self.stream.set_write_timeout(Some(LONGEST_PAUSE));
            let write = move || outbox.write_until_closed(|| public.note_output(&server));
            self.writer = Some(thread.spawn(write)?);
        }
        Ok(())
    }

    /// Writes all replies. Whenever the peer has not read for a while, what it has sent is read.
    fn write_all(&mut self, limit: usize) -> io::Result<()> {
        let mut sent = 0;
        let mut over_since = None;
        while !self.write_on(&mut sent)? {
            self.give_back_what_has_run();
            self.reply.out.count_again();
            let (held, unread) = (&self.client.public.held, self.reply.out.len() - sent);
            let normal = held.output_limit(Class::Normal);
            if normal.is_over_hard(unread) || normal.is_over_soft_for_long(unread, &mut over_since)
            {
                held.kill(End::Output);
            }
            let moved = self.reader.get_mut().stash_arrived(limit)?;
            self.set_pause(next_pause(self.pause, moved))?;
        }
        Ok(())
    }

    /// Writes the replies from byte `sent` on, until all have left, or the peer has read nothing for a
    /// while; returns whether all have.
    fn write_on(&mut self, sent: &mut usize) -> io::Result<bool> {
        let mut pieces: Vec<IoSlice> = self.reply.out.pieces().map(IoSlice::new).collect();
        let mut rest = &mut pieces[..];
        IoSlice::advance_slices(&mut rest, *sent);
        while !rest.is_empty() {
            match (&*self.stream).write_vectored(rest) {
                Ok(0) => return Err(ErrorKind::WriteZero.into()),
                Ok(count) => {
                    IoSlice::advance_slices(&mut rest, count);
                    *sent += count;
                    self.client.public.touch(self.server);
                    if self.pause != SHORTEST_PAUSE {
                        self.pause = SHORTEST_PAUSE;
                        self.stream.set_write_timeout(Some(self.pause))?;
                    }
                }
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) if is_timeout(&error) => return Ok(false),
                Err(error) => return Err(error),
            }
        }
        Ok(true)
    }

    fn set_pause(&mut self, pause: Duration) -> io::Result<()> {
        if self.pause != pause {
            self.pause = pause;
            self.stream.set_write_timeout(Some(pause))?;
        }
        Ok(())
    }

    /// Bytes (`client-query-buffer-limit`), but few for one who has yet to give the password.
    fn stash_limit(&self) -> usize {
        if self.client.owes_password() {
            return UNAUTHENTICATED_STASH;
        }
        self.server.config.client_query_buffer_limit.get()
    }

    /// Lets the writer send what is queued, and takes the client out of every list.
    fn leave(mut self) {
        self.caller.unwatch(&mut self.client);
        self.caller.finish(&mut self.client, &mut self.reply);
        if let Some(outbox) = &self.client.outbox {
            outbox.close();
        }
        if let Some(writer) = self.writer.take() {
            // It ends when the queue is empty, with the connection, or when the peer reads no more.
            let _ = writer.join();
        }
    }
}

/// What this client may send at present: AUTH and CONFIG SET change it.
fn limits(client: &Client) -> Limits {
    let config = &client.server.config;
    Limits {
        bulk: config.proto_max_bulk_len.get(),
        command: config.client_query_buffer_limit.get(),
        unauthenticated: client.owes_password(),
        strict: false,
    }
}

/// How long to wait for the peer the next time, when so many bytes have come from it this time, and it
/// has read nothing.
fn next_pause(pause: Duration, moved: Option<usize>) -> Duration {
    match moved {
        Some(1..) => SHORTEST_PAUSE,
        _ => LONGEST_PAUSE.min(2 * pause),
    }
}

fn is_timeout(error: &io::Error) -> bool {
    matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut)
}
