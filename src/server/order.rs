//! Order between clients: who asks about others is answered when what they sent before has been done.
//!
//! Redis does everything in the order of its arrival. Here each client has a thread, and it takes a moment
//! (0.1 ms, more on a busy machine) until that has noticed that its client has closed, or said UNSUBSCRIBE.
//! PUBLISH, PUBSUB, INFO, CLIENT LIST and KILL, and who refuses a newcomer for `maxclients`, would count it
//! meanwhile. So they look first whether somebody whom they would count is *quiet*, and wait for the others:
//!
//! ```text
//! A's thread    waits ──▶ at work ──▶ waits ──▶ …       turns: even while it waits for input and has
//! turns           4          5          6               done all that it has read, odd otherwise
//!
//! B's question  quiet: A's turn is even, and its socket has neither input nor an end
//!               not:   wait until it is, or until A has ended a turn that began after we looked
//! ```
//!
//! Nobody is waited for longer than [`PATIENCE`], all together, and a turn that was waited for in vain is not
//! waited for again: a client that is held up (because it does not read) costs others that once.
//! Who waits here is not waited for, or two would wait for each other; nor who is in WAIT, whose client's
//! commands wait too, in Redis as here. And no lock is held meanwhile, so inside EXEC nobody is waited for.
//!
//! std looks at a socket without waiting only if its file says O_NONBLOCK, which all its users share. So
//! who asks sets that for a moment, and a reader who meets it tries again (serve/inbound.rs).
//!
//! **How Redis does it**: one thread; the order in which epoll reports sockets is the order of all.
//! What is not had here is in src/handler/README.md.

use super::Public;
use std::net::TcpStream;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::{Duration, Instant};

/// The longest that a question waits for others. Mostly it takes 0.1 ms, but on a machine with too much to
/// do a thread that was woken may not run for tens of milliseconds.
const PATIENCE: Duration = Duration::from_millis(100);

/// Between two looks at who is waited for.
const PAUSE: Duration = Duration::from_micros(30);

/// For [`Turns`]: the client has left, and is on no list.
const GONE: u64 = u64::MAX;

/// How far a client's thread has come, for others.
pub struct Turns {
    /// Only its own thread changes it.
    count: AtomicU64,
    /// The turn that was waited for in vain.
    given_up: AtomicU64,
    /// Whether its thread waits here for others, or in WAIT.
    is_aside: AtomicBool,
    /// Held by whoever changes whether the socket's calls wait.
    mode: Mutex<()>,
}

impl Default for Turns {
    fn default() -> Turns {
        Turns {
            // At work: nothing has been read yet.
            count: AtomicU64::new(1),
            given_up: AtomicU64::new(0),
            is_aside: AtomicBool::new(false),
            mode: Mutex::default(),
        }
    }
}

impl Turns {
    /// All that was read is done, and the thread waits for more.
    pub fn end(&self) {
        let count = self.count.load(Ordering::Relaxed);
        self.count.store(count + count % 2, Ordering::Release);
    }

    /// Something was read.
    pub fn begin(&self) {
        let count = self.count.load(Ordering::Relaxed);
        self.count.store(count | 1, Ordering::Release);
    }

    /// The client has left every list.
    pub fn leave(&self) {
        self.count.store(GONE, Ordering::Release);
    }

    /// Whether its thread has waited for input yet: at first it may not even have been started.
    pub fn has_begun(&self) -> bool {
        self.count.load(Ordering::Relaxed) > 1
    }

    /// From now on the thread waits for something other than its client, or no longer.
    pub fn set_aside(&self, is_aside: bool) {
        self.is_aside.store(is_aside, Ordering::Release);
    }

    /// Nobody else changes whether the socket's calls wait, while this is held.
    pub fn mode(&self) -> MutexGuard<'_, ()> {
        self.mode.lock().unwrap()
    }
}

/// Waits until those of `clients` who are not quiet have done what they have sent, but for the one who asks.
/// What was counted before must be counted again.
pub fn hear_out(clients: &[Arc<Public>], asker: Option<&Public>) {
    let begin = Instant::now();
    let mut waits = false;
    for client in clients {
        if asker.is_some_and(|asker| asker.id == client.id) {
            continue;
        }
        if is_quiet(client) {
            continue;
        }
        let turn = client.turns.count.load(Ordering::Acquire);
        if client.turns.given_up.load(Ordering::Relaxed) == turn {
            continue;
        }
        if let Some(asker) = asker {
            asker.turns.set_aside(true);
        }
        waits = true;
        // At work, it may not yet have read what has arrived: the next turn will.
        // (It may have left since we looked.)
        let enough = turn.saturating_add(2 + turn % 2);
        while !is_quiet(client) && client.turns.count.load(Ordering::Acquire) < enough {
            if begin.elapsed() > PATIENCE {
                client.turns.given_up.store(turn, Ordering::Relaxed);
                break;
            }
            std::thread::sleep(PAUSE);
        }
    }
    if let Some(asker) = asker.filter(|_| waits) {
        asker.turns.set_aside(false);
    }
}

/// Whether nothing of the client is to be waited for.
fn is_quiet(client: &Public) -> bool {
    let turns = &client.turns;
    let count = turns.count.load(Ordering::Acquire);
    if count == GONE || turns.is_aside.load(Ordering::Acquire) {
        return true;
    }
    let Some(connection) = &client.connection else {
        return true;
    };
    // Asked again: what its thread has taken from the socket while we looked belongs to a turn.
    count.is_multiple_of(2)
        && !has_arrived(&connection.stream, turns)
        && turns.count.load(Ordering::Acquire) == count
}

/// Whether there is unread input, or the connection is at its end.
fn has_arrived(stream: &TcpStream, turns: &Turns) -> bool {
    let _mode = turns.mode();
    if stream.set_nonblocking(true).is_err() {
        return false;
    }
    let arrived =
        !stream.peek(&mut [0]).is_err_and(|error| error.kind() == std::io::ErrorKind::WouldBlock);
    let _ = stream.set_nonblocking(false);
    arrived
}
