//! What a client has sent and nobody has parsed yet.
//!
//! ```text
//! socket ──▶ [ stash ] ──▶ BufReader (serve.rs) ──▶ resp.rs
//!    │      mostly empty, and passed by      ▲
//!    └───────────────────────────────────────┘
//! ```
//!
//! **Spinning** is to wait without sleeping. To put a thread to sleep and to wake it up takes longer
//! than a command does, and a client that waits for each answer has it done for each. So when a client
//! is alone, its thread first looks for input again and again, for [`SPIN`], and only then goes to
//! sleep: the next command finds it running. Between two looks it yields, or another thread on its core
//! would wait for a whole tick of the kernel's, 4 ms; and that may be the client. Measured with one
//! client that sends one command at a time: 1.7 times as many commands a second, each at 1.2 to 1.4
//! times the CPU time. (A client that takes 30 µs to think pays the CPU time and gains little.)
//!
//! A client is alone if no other has run a batch since the one before its latest; so where the cores
//! have other clients to serve nobody spins, and with one core nobody ever does. If nothing came
//! within that time, the next [`NAPS`] waits begin asleep: a client that asks now and then costs one
//! wait in vain out of seventeen.
//!
//! **How Redis does it**: networking.c, `readQueryFromClient`, when epoll says that there is
//! something to be read; it always sleeps.

use super::{INPUT_BUFFER, SHORTEST_PAUSE, is_timeout, next_pause};
use crate::held::Charge;
use crate::outbox::Outbox;
use crate::server::{Public, Server};
use std::collections::VecDeque;
use std::io::{self, ErrorKind, Read};
use std::net::TcpStream;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

/// For this long the thread of a client that is alone spins.
const SPIN: Duration = Duration::from_micros(50);

/// How many waits begin asleep after one that spun in vain.
const NAPS: u32 = 16;

/// The client's input: what was stashed first, then the socket.
pub struct Inbound {
    stream: Arc<TcpStream>,
    server: Arc<Server>,
    public: Arc<Public>,
    /// Taken from the socket already: while a write was blocked, while the client waited in WAIT, or
    /// by a smaller buffer that was exchanged.
    stash: VecDeque<u8>,
    /// Bytes that the commands hold that are being read, or run.
    handed_up: usize,
    /// What the client holds by these and the stash.
    charge: Charge,
    /// Bytes that came from the socket and are not yet in the statistics.
    taken: u64,
    /// Whether a read has filled all that it was given: the buffer above, or the place of a large word.
    pub was_filled: bool,
    /// Whether nobody else has run a batch between the client's last two.
    is_alone: bool,
    /// How many times it is to be waited for asleep.
    naps: u32,
    /// Whether the socket has a read timeout, and who reads knows.
    pub may_time_out: bool,
    /// Whether the peer has ended its side, and no more can come.
    is_at_end: bool,
}

impl Inbound {
    /// Nothing has come yet.
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
            is_alone: false,
            naps: 0,
            may_time_out: false,
            is_at_end: false,
        }
    }

    /// Moves what is here behind these bytes, which another buffer held; for a new one.
    pub fn move_behind(&mut self, bytes: Vec<u8>) -> Inbound {
        let mut inbound = Inbound::new(&self.stream, &self.server, &self.public);
        inbound.stash = bytes.into();
        inbound.stash.append(&mut self.stash);
        inbound.taken = self.take_count();
        inbound.naps = self.naps;
        inbound.handed_up = self.handed_up;
        inbound.is_at_end = self.is_at_end;
        inbound.settle();
        inbound
    }

    /// All commands that were handed up have run.
    pub fn forget_handed_up(&mut self) {
        self.handed_up = 0;
        self.settle();
    }

    /// Counts what is held, but for what every client may have.
    fn settle(&mut self) {
        let held = self.stash.capacity().saturating_add(self.handed_up);
        self.charge.set(held.saturating_sub(INPUT_BUFFER));
    }

    /// Waits until there is room in the client's queue, and moves meanwhile what arrives into the stash.
    pub fn wait_for_room(&mut self, outbox: &Outbox, limit: usize) -> io::Result<()> {
        let mut pause = SHORTEST_PAUSE;
        while !outbox.wait_for_room(pause) {
            pause = next_pause(pause, self.stash_arrived(limit)?);
        }
        Ok(())
    }

    /// Bytes that have come from the socket since this was asked last.
    pub fn take_count(&mut self) -> u64 {
        std::mem::take(&mut self.taken)
    }

    /// A batch of this client begins: finds out whether there was another's since its last one.
    pub fn begin_batch(&mut self) {
        self.is_alone = self.was_served_last();
        // Only who has to writes to what all threads look at.
        if !self.is_alone {
            let last = &self.server.last_served;
            last.store(self.public.id, Ordering::Relaxed);
        }
    }

    fn was_served_last(&self) -> bool {
        self.server.last_served.load(Ordering::Relaxed) == self.public.id
    }

    /// Spins until there is input, if that may be worth it; None if none has come.
    fn read_spinning(&mut self, buffer: &mut [u8]) -> io::Result<Option<usize>> {
        if !self.is_alone || !self.server.may_spin {
            return Ok(None);
        }
        if self.naps > 0 {
            self.naps -= 1;
            return Ok(None);
        }
        let begin = Instant::now();
        let mut found = Ok(None);
        let _mode = self.public.turns.mode();
        // An outbox's writer sees this too: its write fails at once instead of after 10 ms, and it tries
        // again, as always.
        self.stream.set_nonblocking(true)?;
        while self.was_served_last() && begin.elapsed() < SPIN {
            match (&*self.stream).read(buffer) {
                Err(error) if is_timeout(&error) => std::thread::yield_now(),
                read => {
                    self.public.turns.begin();
                    found = read.map(Some);
                    break;
                }
            }
        }
        self.stream.set_nonblocking(false)?;
        if let Ok(None) = found {
            self.naps = NAPS;
        }
        found
    }

    /// Waits for input. Whoever listens is counted by others, so its turn begins before its input is taken
    /// from where they look for it; one call more, which nobody else pays.
    fn read_waiting(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let mut listens = self.public.is_listening() && !self.may_time_out;
        loop {
            let read = match listens {
                true => self.stream.peek(&mut [0]),
                false => (&*self.stream).read(buffer),
            };
            match read {
                // Somebody has looked for input (server/order.rs); when that is over this waits again.
                Err(error) if is_timeout(&error) && !self.may_time_out => {
                    drop(self.public.turns.mode());
                }
                Ok(_) if listens => {
                    self.public.turns.begin();
                    listens = false;
                }
                read => return read,
            }
        }
    }

    /// Moves what has arrived into the stash, without waiting for more; returns how many bytes, or None
    /// if no more can come. Fails when the stash would be over `limit` bytes, the client is to end, or the
    /// connection is broken.
    pub fn stash_arrived(&mut self, limit: usize) -> io::Result<Option<usize>> {
        let public = self.public.clone();
        let _mode = public.turns.mode();
        // An outbox's writer bears that (see above).
        self.stream.set_nonblocking(true)?;
        let moved = self.stash_what_is_there(limit);
        self.stream.set_nonblocking(false)?;
        moved
    }

    fn stash_what_is_there(&mut self, limit: usize) -> io::Result<Option<usize>> {
        // On the heap: every thread's stack would be larger by it.
        let mut chunk = vec![0; INPUT_BUFFER];
        let mut moved = 0;
        // After a megabyte the write gets its turn again.
        for _ in 0..1024 * 1024 / INPUT_BUFFER {
            match (&*self.stream).read(&mut chunk) {
                // It has shut down its sending side, and may still be reading.
                Ok(0) => return Ok(None),
                Ok(count) => {
                    moved += count;
                    self.taken += count as u64;
                    self.public.touch(&self.server);
                    self.stash.extend(&chunk[..count]);
                    self.settle();
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
            self.settle();
            return Ok(count);
        }
        // Asked again behind the end: the turn that met it goes on until the client has left every list.
        if self.is_at_end {
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
        self.settle();
        self.was_filled |= count == buffer.len();
        self.is_at_end = count == 0;
        self.public.touch(&self.server);
        Ok(count)
    }
}
