//! What a client has sent and nobody has parsed yet.
//!
//! ```text
//! socket ──▶ [ stash ] ──▶ BufReader (serve.rs) ──▶ resp.rs
//!    │      mostly empty, and passed by      ▲
//!    └───────────────────────────────────────┘
//! ```
//!
//! **Spinning** means waiting without sleeping. It takes longer to put a thread to sleep and to wake it
//! than to run a command, and a client that waits for each reply pays for both each time. So if a client
//! is alone, its thread looks for input again and again, for [`SPIN`], before it goes to sleep. The next
//! command then finds it running. Between two looks the thread yields. Otherwise another thread on the
//! same core, perhaps the client itself, would wait for a tick of the kernel, 4 ms.
//!
//! Measured with one client that sends one command at a time: 1.7 times as many commands a second, and
//! each costs 1.2 to 1.4 times the CPU time. A client that thinks for 30 µs between two commands costs
//! the CPU time too, and gains little.
//!
//! A client is alone if no other client has run a batch between its last two. So nobody spins while the
//! cores have other clients to serve, and nobody ever spins on a machine with one core. If nothing came
//! in time, the client's next [`NAPS`] waits begin asleep. So a client that sends now and then spins in
//! vain in one wait out of seventeen.
//!
//! **How Redis does it**: networking.c, `readQueryFromClient`, when epoll says that there is
//! something to be read. It always sleeps.

use super::INPUT_BUFFER;
use crate::held::Charge;
use crate::outbox::Outbox;
use crate::outbox::{SHORTEST_WAIT, is_timeout, next_wait};
use crate::server::{Public, Server};
use std::collections::VecDeque;
use std::io::{self, ErrorKind, Read};
use std::net::TcpStream;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

/// How long the thread of a client that is alone spins.
const SPIN: Duration = Duration::from_micros(50);

/// How many waits begin asleep after one that spun in vain.
const NAPS: u32 = 16;

/// The client's input: what was stashed first, then the socket.
pub struct Inbound {
    stream: Arc<TcpStream>,
    server: Arc<Server>,
    public: Arc<Public>,
    /// Read from the socket already: while a write was blocked, while the client waited in WAIT, or by
    /// a smaller buffer that was replaced.
    stash: VecDeque<u8>,
    /// Bytes that were handed up for the commands that are being read or run.
    handed_up: usize,
    /// What the client holds by these bytes and the stash.
    charge: Charge,
    /// Bytes that have come from the socket and are not in the statistics yet.
    pub taken: u64,
    /// Whether a read has filled all that it was given: the buffer above, or a large argument.
    pub was_filled: bool,
    /// Whether others may look into the socket, to learn whether the client's commands are done.
    is_looked_at: bool,
    /// Whether nobody else has run a batch between the client's last two, nor sends it messages.
    is_alone: bool,
    /// How many of the next waits begin asleep.
    naps: u32,
    /// The socket's read timeout, as it was set last. It stays when a wait is over, because the next wait is mostly
    /// one of the same length.
    timeout: Option<Duration>,
    /// Whether the reader expects that its time may be over.
    may_time_out: bool,
    /// Whether the peer has closed its side, so that no more can come.
    is_at_end: bool,
}

impl Inbound {
    pub fn new(stream: &Arc<TcpStream>, server: &Arc<Server>, public: &Arc<Public>) -> Inbound {
        Inbound {
            stream: stream.clone(),
            server: server.clone(),
            public: public.clone(),
            stash: VecDeque::new(),
            handed_up: 0,
            charge: Charge::new(&public.held),
            taken: 0,
            was_filled: false,
            is_looked_at: false,
            is_alone: false,
            naps: 0,
            timeout: None,
            may_time_out: false,
            is_at_end: false,
        }
    }

    /// The buffer above has room for so many bytes.
    pub fn set_room(&self, capacity: usize) {
        self.public.held.buffers.input_room.store(capacity, Ordering::Relaxed);
    }

    /// Takes back what a buffer held and nobody has parsed.
    pub fn take_back(&mut self, bytes: Vec<u8>) {
        self.handed_up = self.handed_up.saturating_sub(bytes.len());
        let behind = std::mem::replace(&mut self.stash, bytes.into());
        self.stash.extend(behind);
        self.count_held();
    }

    /// The commands before have run, and the next ones are read: `next` of their bytes were handed up already.
    /// Others may look into the socket of a client that is listening for messages, and if there are few clients,
    /// into each, to learn whether the client's commands are done (server/order.rs).
    pub fn begin_commands(&mut self, next: usize, is_listening: bool) {
        self.commands_are_done(next);
        self.is_looked_at = is_listening || self.server.clients.are_few();
    }

    /// All commands that were handed up have run. These bytes of the next one were handed up too.
    pub fn commands_are_done(&mut self, next: usize) {
        self.handed_up = next;
        self.count_held();
    }

    /// Counts what is held, without what every client may have.
    fn count_held(&mut self) {
        let buffers = &self.public.held.buffers;
        buffers.input.store(self.stash.len() + self.handed_up, Ordering::Relaxed);
        let held = self.stash.capacity().saturating_add(self.handed_up);
        self.charge.set(held.saturating_sub(INPUT_BUFFER));
    }

    /// Waits until there is room in the client's outbox. Meanwhile what arrives goes into the stash.
    pub fn wait_for_room(&mut self, outbox: &Outbox, limit: usize) -> io::Result<()> {
        let mut wait = SHORTEST_WAIT;
        while !outbox.wait_for_room(wait) {
            wait = next_wait(wait, self.stash_arrived(limit)?);
        }
        Ok(())
    }

    /// A batch of this client begins: finds out whether it is alone. A client with an outbox is not, because others
    /// send it messages, and would wait while its thread spins.
    pub fn begin_batch(&mut self, has_outbox: bool) {
        let was_served_last = self.was_served_last();
        self.is_alone = was_served_last && !has_outbox;
        // All threads look at this, so it is written only if it changes.
        if !was_served_last {
            let last = &self.server.last_served;
            last.store(self.public.id, Ordering::Relaxed);
        }
    }

    fn was_served_last(&self) -> bool {
        self.server.last_served.load(Ordering::Relaxed) == self.public.id
    }

    /// From now on reads wait for so long at most, or for ever.
    pub fn wait_at_most(&mut self, wait: Option<Duration>) -> io::Result<()> {
        self.may_time_out = wait.is_some();
        if wait.is_some() { self.set_timeout(wait) } else { Ok(()) }
    }

    fn set_timeout(&mut self, timeout: Option<Duration>) -> io::Result<()> {
        if self.timeout != timeout {
            self.stream.set_read_timeout(timeout)?;
            self.timeout = timeout;
        }
        Ok(())
    }

    /// Spins until there is input, if that may be worth it. None if none has come.
    fn read_spinning(&mut self, buffer: &mut [u8]) -> io::Result<Option<usize>> {
        if !self.is_alone || !self.server.may_spin {
            return Ok(None);
        }
        if self.naps > 0 {
            self.naps -= 1;
            return Ok(None);
        }
        let begin = Instant::now();
        // The writer of an outbox sees this too. Its write fails at once instead of after a while, and it
        // tries again, as always.
        let found = self.public.turns.mode.at_once(&self.stream, || {
            while self.was_served_last() && begin.elapsed() < SPIN {
                match (&*self.stream).read(buffer) {
                    Err(error) if is_timeout(&error) => std::thread::yield_now(),
                    read => {
                        self.public.turns.begin();
                        return read.map(Some);
                    }
                }
            }
            Ok(None)
        });
        if let Ok(None) = found {
            self.naps = NAPS;
        }
        found
    }

    /// Waits for input. Others look into the socket of a client that listens, to see whether they may
    /// count it, and if there are few clients, into those of all (server/order.rs). So the turn of such a
    /// client begins before its input is taken from there. That costs one call more, which no other pays.
    fn read_waiting(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        // What is read past the buffer above is a part of an argument. It ends no command, so it may be taken at once.
        let room = self.public.held.buffers.input_room.load(Ordering::Relaxed);
        let mut peeks = self.is_looked_at && buffer.len() <= room;
        loop {
            let read = match peeks {
                true => self.stream.peek(&mut [0]),
                false => (&*self.stream).read(buffer),
            };
            match read {
                // Another thread is looking for input, or answers the client, and the socket does not wait meanwhile.
                Err(error) if is_timeout(&error) => {
                    self.public.turns.mode.wait_again(&self.stream)?;
                    if self.may_time_out {
                        return Err(error);
                    }
                    // The timeout is that of an earlier wait.
                    self.set_timeout(None)?;
                }
                Ok(_) if peeks => {
                    self.public.turns.begin();
                    peeks = false;
                }
                read => return read,
            }
        }
    }

    /// Whether nothing more is read: the peer has closed its side, or the client is being ended. What an ended
    /// client still sends is left in the socket, so that the close resets the connection. If it were read,
    /// the client would not be told that there is room again, because the socket is shut down
    /// ([`Held::kill`](crate::held::Held::kill)). Then its write would wait for minutes.
    fn is_over(&self) -> bool {
        self.is_at_end || self.public.held.is_ended()
    }

    /// Whether there is something in the stash.
    pub fn has_stashed(&self) -> bool {
        !self.stash.is_empty()
    }

    /// Moves what has arrived into the stash, without waiting for more. Returns how many bytes, or None
    /// if no more can come. Fails if the stash is over `limit` bytes or the connection is broken.
    pub fn stash_arrived(&mut self, limit: usize) -> io::Result<Option<usize>> {
        let public = self.public.clone();
        let stream = self.stream.clone();
        // The writer of an outbox tries again (see above).
        let moved = public.turns.mode.at_once(&stream, || self.stash_what_is_there(limit));
        // The caller waits now, if only for the peer to read.
        public.turns.mode.wait_again(&stream)?;
        moved
    }

    fn stash_what_is_there(&mut self, limit: usize) -> io::Result<Option<usize>> {
        // On the heap, because the stack of every thread would grow by it.
        let mut chunk = vec![0; INPUT_BUFFER];
        let mut moved = 0;
        // After a megabyte the blocked write gets its chance again.
        for _ in 0..1024 * 1024 / INPUT_BUFFER {
            if self.is_over() {
                return Ok(None);
            }
            match (&*self.stream).read(&mut chunk) {
                // It has shut down its sending side, and may still read.
                Ok(0) => return Ok(None),
                Ok(count) => {
                    moved += count;
                    self.taken += count as u64;
                    self.public.reset_idle(&self.server);
                    self.stash.extend(&chunk[..count]);
                    self.count_held();
                }
                Err(error) if is_timeout(&error) => break,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
            if self.stash.len() > limit {
                return Err(io::Error::other("client-query-buffer-limit reached"));
            }
        }
        Ok(Some(moved))
    }
}

impl Read for Inbound {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if !self.stash.is_empty() {
            let count = self.stash.read(buffer)?;
            if self.stash.is_empty() {
                self.stash = VecDeque::new();
            }
            self.handed_up += count;
            self.count_held();
            return Ok(count);
        }
        // The turn goes on until the client has left every list.
        if self.is_over() {
            return Ok(0);
        }
        self.public.turns.end();
        let count = match self.read_spinning(buffer)? {
            Some(count) => count,
            None => self.read_waiting(buffer)?,
        };
        self.public.turns.begin();
        self.taken += count as u64;
        self.handed_up += count;
        self.count_held();
        self.was_filled |= count == buffer.len();
        self.is_at_end = count == 0;
        self.public.reset_idle(&self.server);
        Ok(count)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{Config, Start};
    use crate::held::End;
    use crate::listen::Address;
    use crate::server::Connection;
    use std::io::Write;
    use std::net::TcpListener;

    #[test]
    fn what_a_killed_client_still_sends_is_left_in_the_socket_so_that_its_write_fails_at_once() {
        let Ok(Start::Serve(config, _)) = Config::from_args([]) else { panic!("no config") };
        let server = Server::new(config, 0, 0);
        let server = Arc::new(server);
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let mut client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let (stream, peer) = listener.accept().unwrap();
        let stream = Arc::new(stream);
        let [peer, local] = [peer, listener.local_addr().unwrap()].map(Address::Ip);
        let connection = Connection { stream: stream.clone(), peer, local };
        let public = Arc::new(Public::new(&server, 1, Some(connection)));
        let mut inbound = Inbound::new(&stream, &server, &public);
        // It sends until the server's socket is full.
        client.set_write_timeout(Some(Duration::from_millis(100))).unwrap();
        while client.write(&[b'x'; 1 << 16]).is_ok() {}
        public.held.kill(End::Killed);
        assert_eq!(inbound.stash_arrived(usize::MAX).unwrap(), None);
        assert_eq!(inbound.read(&mut [0; 1 << 20]).unwrap(), 0);
        assert!(!inbound.has_stashed());
        drop((inbound, public, stream));
        // Without the reset it would ask for room for minutes, and nobody would answer.
        client.set_write_timeout(Some(Duration::from_secs(30))).unwrap();
        assert!(!is_timeout(&client.write(b"x").unwrap_err()));
    }
}
