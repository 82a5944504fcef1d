//! Connections to the servers to which MIGRATE moves keys, and what is said on them.
//!
//! ```text
//! we                                               the target
//! AUTH password, SELECT 0, RESTORE a …, RESTORE b … ──▶       all at once; AUTH and SELECT where they are needed
//!                  +OK  +OK  +OK  -BUSYKEY Target key … ◀──   a was made there, and b was not
//! ```
//!
//! A connection is kept for the next MIGRATE to the same address: at most [`MOST`] of them, and none for longer than
//! [`KEPT`]. Whoever uses one has taken it out, so two clients that move keys to one server at the same time have two.
//! The target may have closed it meanwhile. So if nothing has been answered, all is sent once more, on a new one.
//! (As in Redis: if the target had done it all the same, it says BUSYKEY then, unless it may replace keys.)
//!
//! Whoever calls [`Targets::send`] waits for the network: MIGRATE's thread without a lock, but inside an EXEC or a script
//! with the keyspace (call/migrate.rs). There [`Patience::until`] bounds all of it. (Only the look-up of a name takes as long as the
//! system likes.)
//!
//! **How Redis does it**: `migrateGetSocket` and `migrateCommand` in cluster.c. It takes any line that does not begin
//! with `-` for a yes, and goes on with a connection on which more has come than was asked for.

use crate::error::Error;
use crate::outbox::is_timeout;
use crate::resp::{Digits, write_command};
use std::io::{self, BufRead, BufReader, ErrorKind, Read, Write};
use std::net::{TcpStream, ToSocketAddrs};
use std::sync::Mutex;
use std::time::{Duration, Instant};

/// So many connections are kept. If there are more, the oldest is closed.
const MOST: usize = 64;

/// A connection that nobody has used for so long is closed.
const KEPT: Duration = Duration::from_secs(10);

/// A line of the target's is not longer.
const LONGEST_LINE: u64 = 64 * 1024;

/// Host and port. The port may be any number.
pub type Address = (String, i32);

/// What is sent.
pub struct Transfer<'a> {
    pub address: Address,
    pub patience: Patience,
    /// The arguments of AUTH; none if there is to be no AUTH.
    pub login: Vec<&'a [u8]>,
    pub db: i64,
    /// So many RESTOREs.
    pub count: usize,
    pub commands: Vec<u8>,
}

/// For how long the network is waited for.
#[derive(Clone, Copy)]
pub struct Patience {
    /// Without a byte that moves.
    pub idle: Duration,
    /// In all, if there is such a limit.
    pub until: Option<Instant>,
}

impl Patience {
    fn left(self) -> io::Result<Duration> {
        let left = self.until.map(|until| until.saturating_duration_since(Instant::now()));
        let left = left.unwrap_or(self.idle).min(self.idle);
        if left.is_zero() { Err(ErrorKind::TimedOut.into()) } else { Ok(left) }
    }
}

/// What the target has answered.
#[derive(Default)]
pub struct Answers {
    /// Of each RESTORE in turn whether it was done. What is missing was not answered.
    pub confirmed: Vec<bool>,
    /// What MIGRATE answers, if not all is well.
    pub error: Option<Error>,
}

#[derive(Default)]
pub struct Targets {
    /// Those that nobody uses. Whoever was used last is at the end.
    idle: Mutex<Vec<Connection>>,
}

struct Connection {
    address: Address,
    wire: BufReader<Wire>,
    /// Which database the target has selected. None: nobody knows.
    db: Option<i64>,
    used: Instant,
}

/// The socket. Each call waits for as long as the transfer likes.
struct Wire {
    stream: TcpStream,
    patience: Patience,
}

impl Targets {
    /// Sends the commands, and reads the answers.
    pub fn send(&self, transfer: &Transfer) -> Answers {
        let mut answers = Answers::default();
        for is_last in [false, true] {
            let Err(failure) = self.try_to_send(transfer, &mut answers) else {
                break;
            };
            // The others to this address may be as old.
            self.idle.lock().unwrap().retain(|other| other.address != transfer.address);
            if is_last || !failure.may_pass || !answers.confirmed.is_empty() {
                answers.error.get_or_insert(Error::Fixed(failure.text));
                break;
            }
        }
        answers
    }

    fn try_to_send(&self, transfer: &Transfer, answers: &mut Answers) -> Result<(), Failure> {
        let kept = self.take(&transfer.address);
        let mut connection = kept.map_or_else(|| Connection::open(transfer), Ok)?;
        connection.wire.get_mut().patience = transfer.patience;
        let selects = connection.db != Some(transfer.db);
        let begun = connection.begin(transfer, selects);
        begun.map_err(|error| Failure::of(WRITING, &error))?;
        // What is wrong with AUTH or SELECT is wrong with each key.
        let mut refusal = None;
        for _ in 0..usize::from(!transfer.login.is_empty()) + usize::from(selects) {
            let refused = connection.answer()?;
            refusal = refusal.or(refused);
        }
        for _ in 0..transfer.count {
            let refused = connection.answer()?;
            let error = refusal.clone().or(refused);
            answers.confirmed.push(error.is_none());
            answers.error = answers.error.take().or(error);
        }
        connection.db = answers.error.is_none().then_some(transfer.db);
        if connection.wire.buffer().is_empty() {
            self.keep(connection);
        }
        Ok(())
    }

    fn take(&self, address: &Address) -> Option<Connection> {
        let mut idle = self.idle.lock().unwrap();
        let at = idle.iter().rposition(|connection| connection.address == *address)?;
        Some(idle.remove(at))
    }

    fn keep(&self, mut connection: Connection) {
        connection.used = Instant::now();
        let mut idle = self.idle.lock().unwrap();
        idle.push(connection);
        if idle.len() > MOST {
            idle.remove(0);
        }
    }

    /// How many connections are kept.
    pub fn kept(&self) -> usize {
        self.idle.lock().unwrap().len()
    }

    /// Closes those that nobody has used for long.
    pub fn close_unused(&self) {
        self.idle.lock().unwrap().retain(|connection| connection.used.elapsed() < KEPT);
    }
}

impl Connection {
    fn open(transfer: &Transfer) -> Result<Connection, Failure> {
        let connected = connect(&transfer.address, transfer.patience);
        let stream = connected.map_err(|error| match error.kind() {
            // Redis notices that only when it writes.
            ErrorKind::ConnectionRefused => Failure::of(WRITING, &error),
            _ => Failure { text: CONNECTING, may_pass: false },
        })?;
        let wire = BufReader::new(Wire { stream, patience: transfer.patience });
        let (address, used) = (transfer.address.clone(), Instant::now());
        Ok(Connection { address, wire, db: None, used })
    }

    fn begin(&mut self, transfer: &Transfer, selects: bool) -> io::Result<()> {
        let mut head = Vec::new();
        if !transfer.login.is_empty() {
            let words: Vec<&[u8]> = [&[&b"AUTH"[..]], &transfer.login[..]].concat();
            write_command(&mut head, words.into_iter());
        }
        if selects {
            let db = Digits::new(transfer.db);
            write_command(&mut head, [&b"SELECT"[..], db.as_bytes()].into_iter());
        }
        let wire = self.wire.get_mut();
        wire.write_all(&head)?;
        wire.write_all(&transfer.commands)
    }

    /// Reads an answer. If it is an error, returns what MIGRATE says.
    fn answer(&mut self) -> Result<Option<Error>, Failure> {
        let mut line = Vec::new();
        let mut limited = (&mut self.wire).take(LONGEST_LINE);
        let read = limited.read_until(b'\n', &mut line);
        read.map_err(|error| Failure::of(READING, &error))?;
        match line.split_first() {
            Some((b'+', rest)) if rest.ends_with(b"\n") => Ok(None),
            Some((b'-', rest)) if rest.ends_with(b"\n") => {
                let before = &b"ERR Target instance replied with error: "[..];
                Ok(Some(Error::Text([before, rest].concat())))
            }
            // The connection has ended, or this is nothing that a server says.
            _ => Err(Failure { text: READING, may_pass: !line.ends_with(b"\n") }),
        }
    }
}

fn connect((host, port): &Address, patience: Patience) -> io::Result<TcpStream> {
    let port = u16::try_from(*port).map_err(io::Error::other)?;
    let mut result = Err(ErrorKind::AddrNotAvailable.into());
    for address in (host.as_str(), port).to_socket_addrs()? {
        result = TcpStream::connect_timeout(&address, patience.left()?);
        if result.is_ok() {
            break;
        }
    }
    let stream = result?;
    stream.set_nodelay(true)?;
    Ok(stream)
}

impl Read for Wire {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.stream.set_read_timeout(Some(self.patience.left()?))?;
        self.stream.read(buffer)
    }
}

impl Write for Wire {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.stream.set_write_timeout(Some(self.patience.left()?))?;
        self.stream.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Why there is no answer.
struct Failure {
    text: &'static str,
    /// Another connection may do better.
    may_pass: bool,
}

impl Failure {
    fn of(text: &'static str, error: &io::Error) -> Failure {
        Failure { text, may_pass: !is_timeout(error) }
    }
}

const CONNECTING: &str = "IOERR error or timeout connecting to the client";
const WRITING: &str = "IOERR error or timeout writing to target instance";
const READING: &str = "IOERR error or timeout reading to target instance";

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::{Ipv4Addr, TcpListener};

    #[test]
    fn only_so_many_connections_are_kept_and_the_oldest_is_closed_first() {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let patience = Patience { idle: KEPT, until: None };
        let targets = Targets::default();
        let last = MOST as i32 + 4;
        for port in 0..=last {
            let stream = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
            let wire = BufReader::new(Wire { stream, patience });
            let (address, used) = ((String::new(), port), Instant::now());
            targets.keep(Connection { address, wire, db: None, used });
        }
        assert_eq!(targets.kept(), MOST);
        assert!(targets.take(&(String::new(), 4)).is_none());
        assert!(targets.take(&(String::new(), 5)).is_some());
        assert!(targets.take(&(String::new(), last)).is_some());
        assert_eq!(targets.kept(), MOST - 2);
    }

    #[test]
    fn patience_ends_at_the_moment_that_is_set_for_all_of_it() {
        let idle = Duration::from_secs(60);
        let now = Instant::now();
        assert_eq!(Patience { idle, until: None }.left().unwrap(), idle);
        assert_eq!(Patience { idle, until: Some(now + 2 * idle) }.left().unwrap(), idle);
        assert!(Patience { idle, until: Some(now + idle / 2) }.left().unwrap() <= idle / 2);
        let over = Patience { idle, until: Some(now) }.left();
        assert!(over.is_err_and(|error| is_timeout(&error)));
    }
}
