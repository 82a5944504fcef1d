//! Order between clients: a command that counts clients, or stands in a queue with them, waits until the others
//! have done what they sent.
//!
//! Redis does everything in the order of arrival. Here each client has a thread, and the thread needs a
//! moment (0.1 ms, more on a busy machine) to notice that its client has closed or sent UNSUBSCRIBE. Until
//! then PUBLISH, PUBSUB, INFO, CLIENT LIST, CLIENT KILL and the check of `maxclients` would still count the
//! client. So they first wait until each client that they would count is *quiet*:
//!
//! ```text
//! A's thread    waits ──▶ at work ──▶ waits ──▶ …      A's turn is odd while its thread waits for input
//! turn            5          6          7              and has done all that it has read. Else it is even
//!
//! B asks        A is quiet: its turn is odd, and its socket has neither input nor an end
//!               A is not: wait until it is, or until A has ended a turn that began after B looked
//! ```
//!
//! A command that may wait for a key asks for older clients, if there are few clients at all. So two clients
//! that send BLPOP one after the other are served in that order, though the second thread may be faster. If
//! both come at once, the older client is first, as in Redis mostly too.
//!
//! - One question waits for [`PATIENCE`] at most, for all clients together. If it gives up on a turn, no other
//!   question waits for that turn. So a client that is stuck because it does not read delays others once.
//! - Nobody waits for a client that waits here itself, or two could wait for each other. Nor for one in WAIT,
//!   or for a paused one.
//! - The asker holds no lock. Inside EXEC it would, so there nobody waits.
//!
//! std can look at a socket without waiting only in non-blocking mode, and all threads share that mode. So the
//! asker sets it for a moment ([`Mode`]). A reader that meets it tries again (serve/inbound.rs).
//!
//! **How Redis does it**: it has one thread, so the order in which epoll reports the sockets is the order
//! of everything. src/handler/README.md says which order is missing here.

use super::Public;
use crate::mode::Mode;
use std::io::{self, ErrorKind};
use std::net::TcpStream;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// The longest time that one question waits. Usually 0.1 ms is enough. On an overloaded machine a thread that
/// was woken may not run for tens of milliseconds.
const PATIENCE: Duration = Duration::from_millis(100);

/// Between two looks at one client.
const PAUSE: Duration = Duration::from_micros(30);

/// The turn of a client that has left.
const GONE: u64 = u64::MAX;

/// How far a client's thread has come, for other threads.
#[derive(Default)]
pub struct Turns {
    /// The turn. Only the client's own thread changes it.
    count: AtomicU64,
    /// Questions have given up on the turns before this one.
    given_up: AtomicU64,
    /// The thread waits here for others, or in WAIT.
    is_aside: AtomicBool,
    /// Whether its socket waits.
    pub mode: Arc<Mode>,
}

impl Turns {
    /// The thread has done all that it has read, and waits for more.
    pub fn end(&self) {
        let count = self.count.load(Ordering::Relaxed);
        self.count.store(count | 1, Ordering::Release);
    }

    /// The thread is about to take input from the socket, or has taken it.
    pub fn begin(&self) {
        let count = self.count.load(Ordering::Relaxed);
        self.count.store(count + count % 2, Ordering::Release);
    }

    /// The client is on no list any more.
    pub fn leave(&self) {
        self.count.store(GONE, Ordering::Release);
    }

    /// Whether the thread has waited for input at least once.
    pub fn has_begun(&self) -> bool {
        self.count.load(Ordering::Relaxed) > 0
    }

    /// The thread begins to wait for something other than input, or stops.
    pub fn set_aside(&self, is_aside: bool) {
        self.is_aside.store(is_aside, Ordering::Release);
    }
}

/// Waits until each of `clients` is quiet, without the asker itself. What the caller has counted before, it
/// must count again.
pub fn wait_for_others(clients: &[Arc<Public>], asker: Option<&Public>) {
    let begin = Instant::now();
    for client in clients {
        if asker.is_some_and(|asker| asker.id == client.id) || is_quiet(client) {
            continue;
        }
        let turn = client.turns.count.load(Ordering::Acquire);
        if client.turns.given_up.load(Ordering::Relaxed) > turn {
            continue;
        }
        if let Some(asker) = asker {
            asker.turns.set_aside(true);
        }
        // In an even turn the thread may not have read yet what has arrived. The next turn will.
        // (`saturating`: the client may have left since we looked.)
        let enough = turn.saturating_add(3 - turn % 2);
        while !is_quiet(client) && client.turns.count.load(Ordering::Acquire) < enough {
            if begin.elapsed() > PATIENCE {
                client.turns.given_up.store(turn + 1, Ordering::Relaxed);
                break;
            }
            std::thread::sleep(PAUSE);
        }
    }
    if let Some(asker) = asker {
        asker.turns.set_aside(false);
    }
}

/// Whether there is nothing to wait for.
fn is_quiet(client: &Public) -> bool {
    let turns = &client.turns;
    let count = turns.count.load(Ordering::Acquire);
    if count == GONE || turns.is_aside.load(Ordering::Acquire) {
        return true;
    }
    let Some(connection) = &client.connection else {
        return true;
    };
    // The turn is read again: the thread may have taken the input from the socket while we looked.
    count % 2 == 1
        && !has_arrived(&connection.stream, turns)
        && turns.count.load(Ordering::Acquire) == count
}

/// Whether there is input of the client that nobody has read, or it has closed the connection.
pub fn has_news(client: &Public) -> bool {
    let connection = client.connection.as_ref();
    connection.is_some_and(|connection| has_arrived(&connection.stream, &client.turns))
}

/// Whether there is unread input, or the client has closed the connection.
fn has_arrived(stream: &TcpStream, turns: &Turns) -> bool {
    !look(stream, turns).is_err_and(|error| error.kind() == ErrorKind::WouldBlock)
}

/// Whether there is no unread input, and the client has closed the connection.
pub fn has_end(stream: &TcpStream, turns: &Turns) -> bool {
    match look(stream, turns) {
        Ok(count) => count == 0,
        Err(error) => error.kind() != ErrorKind::WouldBlock,
    }
}

/// How many bytes of input there are, 0 or 1. Does not wait.
fn look(stream: &TcpStream, turns: &Turns) -> io::Result<usize> {
    turns.mode.at_once(stream, || stream.peek(&mut [0]))
}
