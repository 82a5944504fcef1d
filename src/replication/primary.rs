//! The thread that sends a replica what it needs: a snapshot, and then the stream.
//!
//! 1. *Goes on or begins.* If the replica names our history and a place that the files still hold, it is sent
//!    `+CONTINUE` and the stream from there.
//! 2. *A snapshot.* Otherwise the log is marked, and its files up to the mark are replayed. Newlines tell the replica
//!    that we live. A replica that comes meanwhile shares the snapshot, so there is one at a time, and one copy of
//!    the data in memory.
//! 3. *It is sent* as it is written. Its end is told by forty random bytes, which the replica looks for in the last
//!    bytes that it has read. So nothing may follow before the replica says that it has found them (`REPLCONF
//!    ACK`). A replica that does not know such an end is told the length, for which the snapshot is written twice,
//!    the first time to nowhere.
//! 4. *The stream.* After a small piece the thread rests for a millisecond, so that more is gathered, unless somebody waits
//!    in WAIT.
//!
//! **Who is cut off.** A replica that reads nothing for `repl-timeout`; one that is so far behind that
//! `client-output-buffer-limit` says so, since the files that it has not read take space on the disk;
//! and all if a new history begins. Each may come again.
//!
//! **How Redis does it**: replication.c, `syncCommand`, `rdbSaveToSlavesSockets`, and `writeToClient`.

use crate::aof::Position;
use crate::aof::backlog::{Follower, Mark};
use crate::aof::load::{self, Part};
use crate::call;
use crate::held::End;
use crate::log;
use crate::outbox::is_timeout;
use crate::rdb;
use crate::server::replicas::{Announced, Request, Snapshot, State};
use crate::server::{Public, Server};
use crate::stats::{add, random_id};
use crate::store::Keyspace;
use std::cell::Cell;
use std::io::{self, ErrorKind, Write};
use std::net::{Shutdown, TcpStream};
use std::sync::atomic::Ordering;
use std::sync::{Arc, OnceLock};
use std::thread;
use std::time::{Duration, Instant};

/// Serves one replica until it leaves or is cut off.
pub fn send(server: &Arc<Server>, client: &Arc<Public>, request: &Request) {
    let replicas = server.replicas.all();
    let own = replicas.into_iter().find(|replica| replica.client.id == client.id);
    if let (Some(own), Some(connection)) = (own, &client.connection) {
        let name = format!("{}:{}", own.ip(), own.announced.port);
        let announced = own.announced;
        let sender = Sender { server, client, stream: &connection.stream, announced, name };
        if let Err(reason) = sender.run(request) {
            log::notice(format_args!("Connection with replica {} lost: {reason}.", sender.name));
        }
    }
    client.held.kill(End::Killed);
}

struct Sender<'a> {
    server: &'a Arc<Server>,
    client: &'a Arc<Public>,
    stream: &'a TcpStream,
    announced: Announced,
    /// Its address, for the operator.
    name: String,
}

/// While nothing is to be sent, a thread looks this often whether its replica is still there.
const TICK: Duration = Duration::from_millis(100);

/// From one newline to the next, while a snapshot is made.
const SIGN_OF_LIFE: Duration = Duration::from_secs(1);

/// The rest after a small piece of the stream.
const REST: Duration = Duration::from_millis(1);

/// A piece of so many bytes is not small: more is there already.
const MUCH: usize = 32 * 1024;

const LEFT: &str = "it has left";

impl Sender<'_> {
    fn run(&self, request: &Request) -> Result<(), String> {
        let follower = match self.resume(request) {
            Some(follower) => {
                let id = &follower.name.id;
                let id = if self.announced.psync2 { format!(" {id}") } else { String::new() };
                self.write_all(format!("+CONTINUE{id}\r\n").as_bytes(), None)?;
                follower
            }
            None => self.begin(request)?,
        };
        match self.announced.only_snapshot {
            true => self.wait_for_its_end(),
            false => self.send_stream(follower),
        }
    }

    /// The stream from where the replica can go on.
    fn resume(&self, request: &Request) -> Option<Follower> {
        let (id, offset) = request.from.as_ref()?;
        let counts = &self.server.replicas.counts;
        let name = &self.name;
        let Some(follower) = self.server.aof.follow(id, *offset) else {
            add(&counts.refused, 1);
            log::notice(format_args!(
                "Partial resynchronization not accepted: replica {name} asks for offset {offset} of another \
                 history, or for what the log's files do not hold"
            ));
            return None;
        };
        add(&counts.partial, 1);
        log::notice(format_args!(
            "Partial resynchronization request from {name} accepted, from offset {offset} on."
        ));
        self.server.replicas.counts(self.client.id, follower.name.counting);
        Some(follower)
    }

    /// Sends a snapshot; returns the stream behind it.
    fn begin(&self, request: &Request) -> Result<Follower, String> {
        let (snapshot, follower, mark) = self.take_snapshot()?;
        let (replicas, id, position) = (&self.server.replicas, self.client.id, follower.position);
        replicas.counts(id, follower.name.counting);
        add(&replicas.counts.full, 1);
        log::notice(format_args!("Full resync requested by replica {}", self.name));
        if !request.is_old {
            let head = format!("+FULLRESYNC {} {}\r\n", snapshot.id, snapshot.offset);
            self.write_all(head.as_bytes(), None)?;
        }
        replicas.is_sent(id, State::Waiting, position);
        if let Some(mark) = mark {
            let _ = snapshot.keyspace.set(self.replay(mark, &snapshot));
        }
        let keyspace = self.wait_for_keyspace(&snapshot)?;
        replicas.is_sent(id, State::Loading, position);
        self.send_snapshot(keyspace)?;
        log::notice(format_args!("Synchronization with replica {} succeeded", self.name));
        Ok(follower)
    }

    /// The snapshot that is being made or sent, if the replica can follow from there; or a new one, with the mark
    /// of which this thread is to make it.
    fn take_snapshot(&self) -> Result<(Arc<Snapshot>, Follower, Option<Mark>), String> {
        let aof = &self.server.aof;
        let mut current = self.server.replicas.snapshot.lock().unwrap();
        let shared = current.upgrade().filter(|_| !self.announced.no_data);
        if let Some(shared) = shared
            && let Some(follower) = aof.follow(shared.id.as_bytes(), shared.offset)
        {
            return Ok((shared, follower, None));
        }
        let (mut mark, follower) = aof.mark()?;
        let id = follower.name.id.clone();
        let offset = follower.name.counting.offset_of(follower.position);
        let snapshot = Arc::new(Snapshot { id, offset, keyspace: OnceLock::new() });
        match self.announced.no_data {
            true => mark.clear(),
            false => *current = Arc::downgrade(&snapshot),
        }
        Ok((snapshot, follower, Some(mark)))
    }

    /// Makes the data of the mark.
    fn replay(&self, mark: Mark, snapshot: &Arc<Snapshot>) -> Result<Keyspace, String> {
        let last = Cell::new(Instant::now());
        let replayed = call::replay(self.server, |run| {
            let mut run = |part: Part| match self.show_life(&last) {
                // If others share it, it is made to its end.
                Err(reason) if Arc::strong_count(snapshot) == 1 => Err((0, reason)),
                _ => run(part),
            };
            // While the base is a snapshot itself. Whether the replica has left is found out behind it.
            let mut progress = |_| drop(self.show_life(&last));
            mark.into_iter().try_for_each(|(path, file, length)| {
                load::replay_opened(file, length, &mut run, &mut progress)
                    .map_err(|stop| format!("{} {}: {}", path.display(), stop.place(), stop.reason))
            })
        });
        replayed.inspect_err(|reason| {
            if !self.is_over() {
                log::warning(format_args!(
                    "no snapshot can be made for a replica, because the log cannot be replayed: {reason}. The \
                     log is rewritten"
                ));
                self.server.aof.request_rewrite();
            }
        })
    }

    /// The data, when it is made, perhaps by another thread.
    fn wait_for_keyspace<'a>(&self, snapshot: &'a Snapshot) -> Result<&'a Keyspace, String> {
        let last = Cell::new(Instant::now());
        loop {
            if let Some(made) = snapshot.keyspace.get() {
                return made.as_ref().map_err(String::clone);
            }
            self.show_life(&last)?;
            thread::sleep(TICK);
        }
    }

    fn send_snapshot(&self, keyspace: &Keyspace) -> Result<(), String> {
        let how = rdb::How::of(&self.server.config, false);
        let write = |out: &mut dyn Write| {
            let written = rdb::write(out, keyspace, how, &mut |_| {});
            written.map_err(|error| error.to_string())
        };
        if !self.announced.eof {
            let length = write(&mut io::sink())?;
            self.write_all(format!("${length}\r\n").as_bytes(), None)?;
            return write(&mut Socket(self)).map(drop);
        }
        let end = random_id();
        self.write_all(format!("$EOF:{end}\r\n").as_bytes(), None)?;
        write(&mut Socket(self))?;
        self.write_all(end.as_bytes(), None)?;
        if self.announced.only_snapshot {
            return Ok(());
        }
        // It sends newlines while it loads.
        while !self.server.replicas.has_acknowledged(self.client.id, TICK) {
            if self.is_over() {
                return Err(LEFT.into());
            }
            if u128::from(self.client.idle(self.server)) > self.timeout().as_millis() {
                return Err("it has been silent for longer than repl-timeout".into());
            }
        }
        Ok(())
    }

    /// A replica that wanted nothing but a snapshot hangs up when it has read that.
    fn wait_for_its_end(&self) -> Result<(), String> {
        let _ = self.stream.shutdown(Shutdown::Write);
        let begin = Instant::now();
        while !self.is_over() && begin.elapsed() < self.timeout() {
            thread::sleep(TICK);
        }
        Ok(())
    }

    fn send_stream(&self, mut follower: Follower) -> Result<(), String> {
        let (aof, replicas) = (&self.server.aof, &self.server.replicas);
        let mut lag = Lag { counted_from: aof.sendable(), over_since: None };
        let mut out = Vec::new();
        while !self.is_over() {
            replicas.is_sent(self.client.id, State::Online, follower.position);
            follower.read(aof, &mut out)?;
            if out.is_empty() {
                aof.wait_for_more(follower.position, TICK);
                continue;
            }
            self.write_all(&out, Some(&mut lag))?;
            lag.counted_from = lag.counted_from.max(follower.position);
            let is_much = out.len() >= MUCH;
            out.clear();
            if !is_much && replicas.awaited.load(Ordering::Relaxed) == 0 {
                thread::sleep(REST);
            }
        }
        Err(LEFT.into())
    }

    /// Sends a newline if one is due. Fails if the replica has left.
    fn show_life(&self, last: &Cell<Instant>) -> Result<(), String> {
        if self.is_over() {
            return Err(LEFT.into());
        }
        if last.get().elapsed() < SIGN_OF_LIFE {
            return Ok(());
        }
        last.set(Instant::now());
        self.write_all(b"\n", None)
    }

    fn is_over(&self) -> bool {
        self.client.held.is_ended()
    }

    fn timeout(&self) -> Duration {
        Duration::from_secs(self.server.config.repl_timeout.get() as u64)
    }

    /// Writes all of it, unless the replica reads nothing for too long or is too far behind.
    fn write_all(&self, mut bytes: &[u8], mut lag: Option<&mut Lag>) -> Result<(), String> {
        let mut progress = Instant::now();
        while !bytes.is_empty() {
            if let Some(lag) = &mut lag {
                self.cut_off_if_behind(lag);
            }
            if self.is_over() {
                return Err(LEFT.into());
            }
            let mut stream = self.stream;
            match stream.write(bytes) {
                Ok(0) => return Err(LEFT.into()),
                Ok(count) => {
                    add(&self.server.replicas.counts.sent, count as u64);
                    bytes = &bytes[count..];
                    progress = Instant::now();
                }
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) if is_timeout(&error) => {
                    if progress.elapsed() > self.timeout() {
                        return Err("it has read nothing for longer than repl-timeout".into());
                    }
                }
                Err(error) => return Err(error.to_string()),
            }
        }
        Ok(())
    }

    /// Ends the client if what has come since it began, and was not sent, is over the limit.
    fn cut_off_if_behind(&self, lag: &mut Lag) {
        let behind = self.server.aof.sendable().saturating_sub(lag.counted_from) as usize;
        let limit = &self.client.held.total.replica;
        // As in Redis, what the backlog holds is never too much.
        let is_over =
            limit.is_over_hard(behind) && behind > self.server.config.repl_backlog_size.get();
        if is_over || limit.is_over_soft_for_long(behind, &mut lag.over_since) {
            self.client.held.kill(End::Output);
        }
    }
}

/// How far a replica is behind, and since when over the soft limit. What was there when it began does not count, or
/// one that comes back late would be cut off at once, again and again.
struct Lag {
    counted_from: Position,
    over_since: Option<Instant>,
}

/// The socket, for the snapshot.
struct Socket<'a>(&'a Sender<'a>);

impl Write for Socket<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.write_all(bytes, None).map_err(io::Error::other)?;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
