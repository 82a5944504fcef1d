//! Connections to the servers to which MIGRATE moves keys, and what is said on them.
//!
//! ```text
//! we                                     the target
//! AUTH password ───────────────────────▶             if there is one, when the connection is new
//! SELECT 3 ────────────────────────────▶             if another database, at first 0, is selected
//! RESTORE a …  RESTORE b … ────────────▶
//!      +OK  -BUSYKEY Target key name … ◀──           a was made there, and b was not
//! ```
//!
//! Nothing is moved before AUTH and SELECT are answered. If the target refuses them, it has no key.
//!
//! A connection is kept for the next MIGRATE to the same address, with the same password: at most [`MOST`] of them, and
//! none for longer than [`KEPT`]. Whoever uses one has taken it out, so two clients that move keys to one server at the same
//! time have two. The target may have closed it meanwhile. So if nothing has been answered, all is sent once more, on
//! a new one. (As in Redis: if the target had done it all the same, it says BUSYKEY then, unless it may replace keys.)
//!
//! Whoever calls [`Targets::send`] waits for the network: MIGRATE's thread without a lock, but inside an EXEC or a script
//! with the keyspace (call/migrate.rs). There [`Patience::until`] bounds all of it. (Only to look up a name takes as long
//! as the system likes.)
//!
//! **How Redis does it**: `migrateGetSocket` and `migrateCommand` in cluster.c. It sends all at once, so what follows a
//! SELECT that fails is made in the database of before, though the client is told of an error.

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
pub struct Transfer {
    pub address: Address,
    pub patience: Patience,
    /// The arguments of AUTH; none if there is to be no AUTH.
    pub login: Vec<Vec<u8>>,
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
    login: Vec<Vec<u8>>,
    wire: BufReader<Wire>,
    /// Which database is selected there.
    db: i64,
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
        let mut connection = match self.take(transfer) {
            Some(connection) => connection,
            None => Connection::open(transfer)?,
        };
        connection.wire.get_mut().patience = transfer.patience;
        answers.error = connection.prepare(transfer)?;
        if answers.error.is_some() {
            return Ok(());
        }
        connection.say(&transfer.commands)?;
        for _ in 0..transfer.count {
            let refused = connection.answer()?;
            answers.confirmed.push(refused.is_none());
            answers.error = answers.error.take().or(refused);
        }
        if connection.wire.buffer().is_empty() {
            self.keep(connection);
        }
        Ok(())
    }

    fn take(&self, transfer: &Transfer) -> Option<Connection> {
        let mut idle = self.idle.lock().unwrap();
        let at = idle.iter().rposition(|connection| {
            connection.address == transfer.address && connection.login == transfer.login
        })?;
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
        // It has not logged in.
        Ok(Connection { address, login: Vec::new(), wire, db: 0, used })
    }

    /// Logs in and selects the database, if that is not done. If the target refuses it, returns what MIGRATE says.
    fn prepare(&mut self, transfer: &Transfer) -> Result<Option<Error>, Failure> {
        if self.login != transfer.login {
            let login = transfer.login.iter().map(Vec::as_slice);
            let words: Vec<&[u8]> = [&b"AUTH"[..]].into_iter().chain(login).collect();
            if let Some(refused) = self.ask(&words)? {
                return Ok(Some(refused));
            }
            self.login = transfer.login.clone();
        }
        if self.db != transfer.db {
            let db = Digits::new(transfer.db);
            if let Some(refused) = self.ask(&[b"SELECT", db.as_bytes()])? {
                return Ok(Some(refused));
            }
            self.db = transfer.db;
        }
        Ok(None)
    }

    fn ask(&mut self, words: &[&[u8]]) -> Result<Option<Error>, Failure> {
        let mut command = Vec::new();
        write_command(&mut command, words.iter().copied());
        self.say(&command)?;
        self.answer()
    }

    fn say(&mut self, bytes: &[u8]) -> Result<(), Failure> {
        self.wire.get_mut().write_all(bytes).map_err(|error| Failure::of(WRITING, &error))
    }

    /// Reads an answer. If it is an error, returns what MIGRATE says.
    fn answer(&mut self) -> Result<Option<Error>, Failure> {
        let mut line = Vec::new();
        let mut limited = (&mut self.wire).take(LONGEST_LINE);
        let read = limited.read_until(b'\n', &mut line);
        read.map_err(|error| Failure::of(READING, &error))?;
        let is_whole = line.ends_with(b"\n");
        match line.split_first() {
            Some((b'+', _)) if is_whole => Ok(None),
            Some((b'-', rest)) if is_whole => {
                let before = &b"ERR Target instance replied with error: "[..];
                Ok(Some(Error::Text([before, rest].concat())))
            }
            // The connection has ended, or this is nothing that a server says.
            _ => Err(Failure { text: READING, may_pass: !is_whole }),
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
            targets.keep(Connection { address, login: Vec::new(), wire, db: 0, used });
        }
        assert_eq!(targets.kept(), MOST);
        let is_kept = |port, login: &[&[u8]]| {
            let login = login.iter().map(|word| word.to_vec()).collect();
            let (address, commands) = ((String::new(), port), Vec::new());
            let transfer = Transfer { address, patience, login, db: 0, count: 0, commands };
            targets.take(&transfer).is_some()
        };
        assert!(!is_kept(4, &[]) && is_kept(5, &[]) && is_kept(last, &[]));
        // Whoever has no password does not get the connection of another one, nor the other way round.
        assert!(!is_kept(7, &[b"secret"]) && is_kept(7, &[]));
        assert_eq!(targets.kept(), MOST - 3);
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
