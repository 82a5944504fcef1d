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
//! and no reply held back. A batch also ends at [`BATCH_OUTPUT`] bytes of replies, so that neither
//! the lock nor the memory of a client that asks for much is held for long.
//!
//! **A blocked write must not stop the reading.** A client may send two hundred thousand commands
//! before it reads the first reply (redis-py's pipelines do). If we wait for it to read, and it
//! for us to read, both wait for ever. So the socket has a short write timeout, and each time it
//! fires, what has arrived is moved into the [`Inbound`] stash, unexecuted, below the `BufReader`,
//! up to `client-query-buffer-limit`.
//!
//! **One socket, one handle.** Everybody who needs the socket shares an `Arc<TcpStream>`; a
//! `try_clone` would double the descriptors, of which there are few.
//!
//! **How Redis does it**: networking.c. One thread waits for all sockets at once (epoll), and what
//! cannot be written waits in the client's reply list.

use crate::client::{Client, Public, Server, Then};
use crate::error::Error;
use crate::handler::Batch;
use crate::handler::server::waitaof_without_log;
use crate::resp::{self, Args, Limits, Reply, read_command};
use crate::say;
use crate::stats::add;
use crate::store::Keyspace;
use std::collections::VecDeque;
use std::io::{self, BufRead, BufReader, ErrorKind, Read, Write};
use std::net::{Shutdown, TcpStream};
use std::sync::atomic::Ordering;
use std::sync::{Arc, RwLock};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// What has arrived of a client's input and was not yet looked at.
const INPUT_BUFFER: usize = 16 * 1024;

/// A batch ends when its replies are this long, in bytes.
const BATCH_OUTPUT: usize = 64 * 1024;

/// After this long a write that makes no progress lets the reading go on.
const WRITE_TIMEOUT: Duration = Duration::from_millis(10);

/// Serves a client until it leaves.
pub fn serve(server: &Arc<Server>, store: &RwLock<Keyspace>, client: Client) {
    let Some(connection) = &client.public.connection else {
        return;
    };
    let stream = connection.stream.clone();
    // A timeout of zero is the only one that is refused.
    let _ = stream.set_write_timeout(Some(WRITE_TIMEOUT));
    let _ = stream.set_nodelay(true);
    let inbound = Inbound {
        stream: stream.clone(),
        stash: VecDeque::new(),
        taken: 0,
    };
    let mut session = Session {
        reader: BufReader::with_capacity(INPUT_BUFFER, inbound),
        args: Args::default(),
        reply: Reply::new(),
        stream,
        writer: None,
        client,
        server,
        store,
    };
    if let Err(error) = session.run() {
        say::verbose(format_args!(
            "client {} left: {error}",
            session.client.public.id
        ));
    }
    session.close();
}

struct Session<'a> {
    client: Client,
    reader: BufReader<Inbound>,
    args: Args,
    reply: Reply,
    stream: Arc<TcpStream>,
    /// The thread that empties the client's outbox, if it has one.
    writer: Option<JoinHandle<()>>,
    server: &'a Arc<Server>,
    store: &'a RwLock<Keyspace>,
}

impl Session<'_> {
    fn run(&mut self) -> io::Result<()> {
        loop {
            match read_command(&mut self.reader, &mut self.args, limits(&self.client)) {
                Ok(true) => self.batch()?,
                Ok(false) => return Ok(()),
                Err(resp::Error::Cut) => return Err(ErrorKind::UnexpectedEof.into()),
                Err(resp::Error::Io(error)) => return Err(error),
                Err(resp::Error::Protocol(reason)) => return self.refuse(&reason),
            }
            if self.client.then != Then::GoOn || is_killed(&self.client.public) {
                return Ok(());
            }
        }
    }

    /// Runs the command that has just been read and those that have arrived whole behind it, then
    /// sends the replies.
    fn batch(&mut self) -> io::Result<()> {
        let mut batch = Batch::new(self.server, self.store);
        loop {
            if is_killed(&self.client.public) {
                break;
            }
            batch.execute(&mut self.client, &mut self.args, &mut self.reply);
            // A subscriber's replies must leave one by one: messages come in between.
            if self.client.then != Then::GoOn
                || self.client.outbox.is_some()
                || self.reply.out.len() >= BATCH_OUTPUT
                || !next_is_whole(&mut self.reader, &mut self.args, limits(&self.client))
            {
                break;
            }
            if starts_outbox(&self.client, &self.args) {
                // What has been answered so far leaves before the first message can come.
                batch.finish(&self.client, &mut self.reply);
                self.flush()?;
            }
        }
        let mut unsaved = None;
        if let Then::Shutdown { force } = self.client.then {
            self.client.then = Then::GoOn;
            unsaved = Some(self.shut_down(&mut batch, force));
        }
        batch.finish(&self.client, &mut self.reply);
        drop(batch);
        if let Some(cause) = unsaved {
            say::warning(format_args!(
                "cannot shut down, the log is not saved: {cause}"
            ));
        }
        if self.client.then == Then::Drop {
            self.reply.out.clear();
        }
        match std::mem::replace(&mut self.client.then, Then::GoOn) {
            Then::Wait { timeout_ms } => {
                self.wait(deadline(timeout_ms));
                self.reply.integer(0);
            }
            Then::WaitAof {
                local,
                replicas,
                timeout_ms,
            } => {
                self.wait_aof(local, replicas, deadline(timeout_ms));
            }
            then => self.client.then = then,
        }
        self.flush()
    }

    /// Answers a protocol error; afterwards the bytes that follow mean nothing.
    fn refuse(&mut self, reason: &[u8]) -> io::Result<()> {
        say::verbose(format_args!(
            "client {}: protocol error: {}",
            self.client.public.id,
            reason.escape_ascii()
        ));
        let error = Error::quoting("ERR Protocol error: ", reason, "");
        self.reply.error(&error);
        self.flush()?;
        if self.client.outbox.is_none() {
            // Closing a socket with unread input makes the kernel throw away what we have just
            // sent. So read what is there, for a moment and up to a limit.
            let _ = self.stream.shutdown(Shutdown::Write);
            let _ = self
                .stream
                .set_read_timeout(Some(Duration::from_millis(50)));
            let mut rest = (&*self.stream).take(1024 * 1024);
            let _ = io::copy(&mut rest, &mut io::sink());
        }
        Ok(())
    }

    /// Sends the replies, through the outbox if the client has one.
    fn flush(&mut self) -> io::Result<()> {
        if self.client.outbox.is_some() && self.writer.is_none() {
            self.start_writer()?;
        }
        let sent = self.reply.out.len();
        if sent == 0 {
            return Ok(());
        }
        let limit = self
            .server
            .config
            .query_buffer_limit
            .load(Ordering::Relaxed);
        if let Some(outbox) = &self.client.outbox {
            while !outbox.wait_for_room(WRITE_TIMEOUT) {
                self.reader.get_mut().stash_arrived(limit)?;
            }
            outbox.push(&self.reply.out);
        } else {
            write_all(&self.stream, &self.reply.out, || {
                self.reader.get_mut().stash_arrived(limit)
            })?;
        }
        self.reply.out.clear();
        self.reply.out.shrink_to(BATCH_OUTPUT);
        add(&self.server.stats.output_bytes, sent as u64);
        add(
            &self.server.stats.input_bytes,
            std::mem::take(&mut self.reader.get_mut().taken),
        );
        Ok(())
    }

    fn start_writer(&mut self) -> io::Result<()> {
        if let Some(outbox) = self.client.outbox.clone() {
            let thread = std::thread::Builder::new().stack_size(crate::STACK);
            self.writer = Some(thread.spawn(move || outbox.write_until_closed())?);
        }
        Ok(())
    }

    fn wait_aof(&mut self, local: bool, replicas: bool, deadline: Option<Instant>) {
        let aof = &self.server.aof;
        let position = aof.position();
        if local {
            aof.status.waiting.fetch_add(1, Ordering::Relaxed);
            while !is_killed(&self.client.public) && aof.is_enabled() {
                let pause = pause_until(deadline);
                let is_over = pause.is_zero() || aof.wait_durable(position, pause);
                if is_over || self.has_left(Duration::from_millis(1)) {
                    break;
                }
            }
            aof.status.waiting.fetch_sub(1, Ordering::Relaxed);
            if !aof.is_enabled() {
                return self.reply.error(&waitaof_without_log());
            }
        }
        if replicas {
            self.wait(deadline);
        }
        self.reply.array(2);
        self.reply
            .integer((aof.is_enabled() && aof.is_durable(position)).into());
        self.reply.integer(0);
    }

    /// Waits until the deadline, or until the client has left.
    fn wait(&self, deadline: Option<Instant>) {
        while !is_killed(&self.client.public) {
            let pause = pause_until(deadline);
            if pause.is_zero() || self.has_left(pause) {
                break;
            }
        }
    }

    /// Whether the peer leaves within `pause`.
    fn has_left(&self, pause: Duration) -> bool {
        // Looking at the input without taking it shows whether the peer is still there.
        let _ = self.stream.set_read_timeout(Some(pause));
        let left = match self.stream.peek(&mut [0]) {
            Ok(0) => true,
            Ok(_) => {
                std::thread::sleep(pause);
                false
            }
            Err(error) => !is_timeout(&error),
        };
        let _ = self.stream.set_read_timeout(None);
        left
    }

    /// Ends the process while everybody else is kept from the data. If the log cannot be saved,
    /// the operator should know and the client may try again, unless it said FORCE, as in Redis.
    /// Returns why, to be told when the lock is free again.
    fn shut_down(&mut self, batch: &mut Batch, force: bool) -> String {
        say::notice(format_args!("SHUTDOWN: saving the log, then good bye"));
        batch.hold_everything();
        match self.server.aof.finish() {
            Err(cause) if !force => {
                let text = "ERR Errors trying to SHUTDOWN. Check logs.";
                self.reply.error(&Error::text(text));
                cause
            }
            _ => std::process::exit(0),
        }
    }

    /// Lets the writer send what is queued, and takes the client out of every list.
    fn close(mut self) {
        if let Some(outbox) = &self.client.outbox {
            outbox.close();
        }
        if let Some(writer) = self.writer.take() {
            // It ends when the queue is empty, or with the connection.
            let _ = writer.join();
        }
        let mut batch = Batch::new(self.server, self.store);
        batch.unwatch(&mut self.client);
        batch.finish(&self.client, &mut self.reply);
        let _ = self.stream.shutdown(Shutdown::Both);
    }
}

/// Reads the next command if all of it lies in the buffer. What does not is left untouched, and
/// so is what is wrong: the blocking read will find the same, when the replies have left.
fn next_is_whole(reader: &mut BufReader<Inbound>, args: &mut Args, limits: Limits) -> bool {
    let buffered = reader.buffer();
    let mut rest = buffered;
    let whole = matches!(read_command(&mut rest, args, limits), Ok(true));
    if whole {
        let used = buffered.len() - rest.len();
        reader.consume(used);
    }
    whole
}

/// Whether the command gives the client an outbox.
fn starts_outbox(client: &Client, args: &Args) -> bool {
    let is = |name: &[u8]| args[0].eq_ignore_ascii_case(name);
    match &client.transaction {
        Some(transaction) => transaction.subscribes && is(b"exec"),
        None => is(b"subscribe") || is(b"psubscribe") || is(b"monitor"),
    }
}

fn limits(client: &Client) -> Limits {
    let config = &client.server.config;
    Limits {
        bulk: config.max_bulk.load(Ordering::Relaxed),
        command: config.query_buffer_limit.load(Ordering::Relaxed),
        stranger: !client.authenticated,
        strict: false,
    }
}

/// When a wait of so many milliseconds ends; 0 waits for ever.
fn deadline(timeout_ms: u64) -> Option<Instant> {
    if timeout_ms == 0 {
        None
    } else {
        Instant::now().checked_add(Duration::from_millis(timeout_ms))
    }
}

/// How long to sleep before looking around again; zero when the deadline has passed.
fn pause_until(deadline: Option<Instant>) -> Duration {
    let left = deadline.map(|at| at.saturating_duration_since(Instant::now()));
    left.unwrap_or(Duration::MAX)
        .min(Duration::from_millis(100))
}

fn is_killed(public: &Public) -> bool {
    public.killed.load(Ordering::Acquire)
}

/// Writes all bytes, and calls `meanwhile` whenever the peer has not read for a while.
fn write_all(
    mut stream: &TcpStream,
    mut bytes: &[u8],
    mut meanwhile: impl FnMut() -> io::Result<()>,
) -> io::Result<()> {
    while !bytes.is_empty() {
        match stream.write(bytes) {
            Ok(0) => return Err(ErrorKind::WriteZero.into()),
            Ok(count) => bytes = &bytes[count..],
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(error) if is_timeout(&error) => meanwhile()?,
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

fn is_timeout(error: &io::Error) -> bool {
    matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut)
}

/// The client's input: what was stashed first, then the socket.
struct Inbound {
    stream: Arc<TcpStream>,
    /// Arrived while a write was blocked.
    stash: VecDeque<u8>,
    /// Bytes that came from the socket and are not yet in the statistics.
    taken: u64,
}

impl Inbound {
    /// Moves what has arrived into the stash, without waiting for more; fails when that would be
    /// over `limit` bytes, or the connection is broken.
    fn stash_arrived(&mut self, limit: usize) -> io::Result<()> {
        // The shortest timeout there is; the socket stays blocking for its writer's sake.
        self.stream
            .set_read_timeout(Some(Duration::from_millis(1)))?;
        let mut chunk = [0; INPUT_BUFFER];
        // After a megabyte the write gets its turn again.
        for _ in 0..64 {
            match (&*self.stream).read(&mut chunk) {
                // It has shut down its sending side, and may still be reading.
                Ok(0) => break,
                Ok(count) => {
                    self.taken += count as u64;
                    self.stash.extend(&chunk[..count]);
                }
                Err(error) if is_timeout(&error) => break,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
            if self.stash.len() > limit {
                return Err(io::Error::other("client-query-buffer-limit reached"));
            }
        }
        self.stream.set_read_timeout(None)
    }
}

impl Read for Inbound {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if !self.stash.is_empty() {
            let count = self.stash.read(buffer)?;
            if self.stash.is_empty() {
                self.stash = VecDeque::new();
            }
            return Ok(count);
        }
        let count = (&*self.stream).read(buffer)?;
        self.taken += count as u64;
        Ok(count)
    }
}
