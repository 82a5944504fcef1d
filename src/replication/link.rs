//! The connection to a primary: reading from it sends, once a second, what the primary wants to hear from us.
//!
//! So the thread that follows may block in a read, in the middle of a command or of a snapshot, and says how far
//! it is all the same. While the thread does something else that takes long, another one says so.

use crate::outbox::is_timeout;
use crate::resp::{Digits, write_command};
use crate::server::{Public, Server, primary};
use std::io::{self, Error, Read, Write};
use std::net::TcpStream;
use std::sync::Arc;
use std::sync::mpsc::{self, RecvTimeoutError};
use std::thread;
use std::time::{Duration, Instant};

pub struct Link<'a> {
    server: &'a Server,
    order: u64,
    client: Arc<Public>,
    stream: Arc<TcpStream>,
    /// Bytes that have come.
    pub received: u64,
    heard: Instant,
    /// When something was sent the last time.
    told: Instant,
    /// How far we are. None before the stream: then a newline says that we live.
    place: Option<u64>,
    /// What had come before the snapshot, and the length of that. 0: it is not known.
    sync: Option<(u64, i64)>,
}

/// What is told once a second.
const EVERY: Duration = Duration::from_secs(1);

/// For how long a read waits before it looks around.
const TICK: Duration = Duration::from_millis(100);

impl Link<'_> {
    pub fn new<'a>(
        server: &'a Server,
        order: u64,
        client: Arc<Public>,
        stream: Arc<TcpStream>,
    ) -> io::Result<Link<'a>> {
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(TICK))?;
        stream.set_write_timeout(Some(timeout(server)))?;
        let now = Instant::now();
        Ok(Link {
            server,
            order,
            client,
            stream,
            received: 0,
            heard: now,
            told: now,
            place: None,
            sync: None,
        })
    }

    pub fn send(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.told = Instant::now();
        (&*self.stream).write_all(bytes)
    }

    /// A snapshot is being made for us.
    pub fn waits_for_snapshot(&self) {
        self.server.primary.update(self.order, |status| {
            status.link = primary::Link::Sync;
            status.heard = Some(self.heard);
            status.sync = (0, -1);
        });
    }

    /// A snapshot of this length begins behind so many bytes, of which some may have come. 0: the length is not known.
    pub fn begins_sync(&mut self, before: u64, length: i64) {
        self.sync = Some((before, length));
        self.show();
    }

    /// We are here: from now on the primary is told so once a second, and at once if it wants to know.
    pub fn acknowledge(&mut self, offset: u64, at_once: bool) -> io::Result<()> {
        self.place = Some(offset);
        if at_once {
            return self.tell();
        }
        self.tend()
    }

    /// Says what is due. Fails if there is nothing more to be expected.
    pub fn tend(&mut self) -> io::Result<()> {
        if self.client.held.is_ended() || !self.server.primary.is_current(self.order) {
            return Err(Error::other("it was cut off here"));
        }
        if self.told.elapsed() < EVERY {
            return Ok(());
        }
        self.show();
        self.tell()
    }

    /// Tells what is due while this takes its time. If the primary has gone, `work` is done all the same.
    pub fn while_waiting<R>(&mut self, work: impl FnOnce() -> R) -> R {
        let (is_done, done) = mpsc::channel::<()>();
        thread::scope(|scope| {
            let tell = move || {
                while done.recv_timeout(EVERY) == Err(RecvTimeoutError::Timeout) {
                    if self.tend().is_err() {
                        return;
                    }
                }
            };
            // If the system has no thread left, the primary hears nothing meanwhile.
            let _ = thread::Builder::new().stack_size(crate::STACK).spawn_scoped(scope, tell);
            let result = work();
            drop(is_done);
            result
        })
    }

    fn tell(&mut self) -> io::Result<()> {
        let Some(place) = self.place else {
            // During the handshake there is somebody who waits for an answer.
            return if self.sync.is_some() { self.send(b"\n") } else { Ok(()) };
        };
        let mut bytes = Vec::new();
        let offset = Digits::new(place as i64);
        write_command(&mut bytes, [&b"REPLCONF"[..], b"ACK", offset.as_bytes()].into_iter());
        self.send(&bytes)
    }

    /// Writes for INFO how far it is.
    fn show(&self) {
        self.server.primary.update(self.order, |status| {
            status.heard = Some(self.heard);
            if let Some((before, length)) = self.sync.filter(|_| self.place.is_none()) {
                status.sync = (self.received - before, length);
            }
        });
    }
}

fn timeout(server: &Server) -> Duration {
    Duration::from_secs(server.config.repl_timeout.get() as u64)
}

impl Read for Link<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        loop {
            self.tend()?;
            match (&*self.stream).read(buffer) {
                Ok(count) => {
                    self.received += count as u64;
                    if self.place.is_some() {
                        let most = self.server.config.repl_backlog_size.get();
                        let heard = &buffer[..count];
                        self.server.primary.with_tail(self.order, |tail| tail.push(heard, most));
                    }
                    self.heard = Instant::now();
                    self.client.reset_idle(self.server);
                    return Ok(count);
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) if is_timeout(&error) && self.heard.elapsed() < timeout(self.server) => {
                }
                Err(error) => {
                    return Err(match is_timeout(&error) {
                        true => Error::other("it has been silent for longer than repl-timeout"),
                        false => error,
                    });
                }
            }
        }
    }
}
