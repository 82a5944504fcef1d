//! The thread that follows a primary: a snapshot, and then its stream.
//!
//! ```text
//! we                                   primary
//! PING, AUTH, REPLCONF, PSYNC ? -1 ──▶
//!                 +FULLRESYNC id 70 ◀─
//!                        a snapshot ◀─ into a private keyspace. When it is whole, it takes the place of the data,
//! REPLCONF ACK 70 ───────────────────▶ in memory and in our log (`Aof::exchange`)
//!    SELECT 0  SET a 1  PING  DEL b ◀─ run under one lock, as one unit of our log (call/follow.rs)
//! REPLCONF ACK 151, each second ─────▶
//!
//! PSYNC id 152, after a break or a kill ─▶ +CONTINUE, and the stream from there
//! ```
//!
//! **All or nothing.** While the snapshot comes, clients see the data as it was. What of the stream has come in half,
//! a command or a MULTI without its EXEC, is not run. So whenever the link breaks, the data is that of a place in the
//! primary's history, and the primary is asked for what stands behind it.
//!
//! **Something that is not here**: a stream, a module, FUNCTION. It would be missing, and the operator would not know.
//! So the thread stops before it runs any of that unit, says what it was, and does not try again. REPLICAOF begins
//! anew.
//!
//! **What was said is kept**: a place is acknowledged to the primary when our log has what leads there.
//!
//! **How Redis does it**: replication.c, `syncWithMaster`, `readSyncBulkPayload` and `replicationCron`. It empties
//! itself before it loads a snapshot, unless `repl-diskless-load` is `swapdb`. To replicas of its own it
//! passes the primary's stream on as it is, with the primary's ids; our replicas follow our log. (When we are promoted,
//! those of the primary may follow us all the same: server/tail.rs.)

use super::link::Link;
use crate::aof::Position;
use crate::call::{Applier, can_follow};
use crate::client::Client;
use crate::log;
use crate::propagate::Source;
use crate::rdb;
use crate::resp::{self, Args, write_command};
use crate::server::Server;
use crate::server::primary;
use crate::server::tail::Tail;
use crate::store::{Keyspace, Origin, Store};
use crate::types::Limits;
use std::io::{self, BufRead, BufReader, Read};
use std::net::{TcpStream, ToSocketAddrs};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

/// Follows whomever REPLICAOF names.
pub fn follow_for_ever(server: &Arc<Server>, store: &Store) -> ! {
    // The order that was carried out, and where the data was when the link broke.
    let (mut last, mut place) = (None, None);
    // What is not here would come again, unless a snapshot passes over it.
    let mut needs_snapshot = false;
    loop {
        let (order, host, port) = server.primary.wait_for_one();
        let name = format!("{host}:{port}");
        if last != Some(order) && !needs_snapshot {
            // After a start the log may know. The primary knows whether that is in its history.
            place = place_in_log(server, store, order);
        }
        last = Some(order);
        log::notice(format_args!("Connecting to MASTER {name}"));
        let place_before = place.take().filter(|_| !std::mem::take(&mut needs_snapshot));
        let mut run = Run { server, store, order, place: place_before };
        let end = run.follow(&host, port);
        place = run.place;
        if !server.primary.is_current(order) {
            continue;
        }
        needs_snapshot = matches!(end, End::Stopped(_));
        let (reason, stop) = match &end {
            End::Broken(reason) => (reason, false),
            End::Stopped(reason) => (reason, true),
        };
        server.primary.broke(order, reason, stop);
        match stop {
            false => log::warning(format_args!(
                "Connection with master {name} lost: {}.",
                reason.trim_end_matches('.')
            )),
            true => log::warning(format_args!(
                "Replication from {name} has STOPPED: {reason}. The data is as it was before that. If the primary \
                 no longer has it, REPLICAOF begins with a new snapshot; REPLICAOF NO ONE goes on without the primary"
            )),
        }
    }
}

/// Why the thread follows no more.
enum End {
    /// It tries again.
    Broken(String),
    /// It would come to the same again.
    Stopped(String),
}

impl From<io::Error> for End {
    fn from(error: io::Error) -> End {
        End::Broken(error.to_string())
    }
}

struct Run<'a> {
    server: &'a Arc<Server>,
    store: &'a Store,
    /// The number of the REPLICAOF that is carried out.
    order: u64,
    /// Where the data is.
    place: Option<Origin>,
}

type Reader<'a> = BufReader<Link<'a>>;

/// A line of the primary's is not longer.
const LONGEST_LINE: u64 = 64 * 1024;

/// So many commands, or bytes, of the primary are run under one lock.
const AT_ONCE: usize = 64;
const BYTES_AT_ONCE: u64 = 64 * 1024;

impl Run<'_> {
    fn follow(&mut self, host: &str, port: u16) -> End {
        self.server.primary.update(self.order, |status| status.link = primary::Link::Connecting);
        match self.run(host, port) {
            Ok(never) => match never {},
            Err(end) => end,
        }
    }

    fn run(&mut self, host: &str, port: u16) -> Result<std::convert::Infallible, End> {
        let (server, order) = (self.server, self.order);
        let stream = Arc::new(connect(host, port, self.timeout())?);
        let client = Client::primary(server, stream.clone())?;
        if !server.primary.connected(order, &client.public) {
            return Err(End::Broken("another REPLICAOF has come".into()));
        }
        let link = Link::new(server, order, client.public.clone(), stream)?;
        let mut reader = BufReader::with_capacity(64 * 1024, link);
        let answer = self.introduce(&mut reader)?;
        let words: Vec<&str> = answer.split(' ').collect();
        match words[..] {
            ["+FULLRESYNC", id, offset] => {
                let origin = Origin::named(id.as_bytes(), offset.as_bytes(), 0);
                let answer = || End::Broken(format!("it answers PSYNC with {answer}"));
                self.load(&mut reader, origin.ok_or_else(answer)?)?;
            }
            ["+CONTINUE", ..] => {
                let place = self.place.as_mut();
                let place = place.ok_or(End::Broken("+CONTINUE, and nothing was begun".into()))?;
                if let Some(id) = words.get(1).filter(|id| Origin::is_id(id)) {
                    place.id = (*id).into();
                }
                log::notice(format_args!("Successful partial resynchronization with master."));
            }
            _ => return Err(End::Broken(format!("it answers PSYNC with {answer}"))),
        }
        self.apply_stream(reader, client)
    }

    /// Says who we are, and what we want; returns the answer to PSYNC.
    fn introduce(&self, reader: &mut Reader) -> Result<String, End> {
        let config = &self.server.config;
        let pong = ask(reader, &[b"PING"])?;
        let is_fine = ["+", "-NOAUTH", "-NOPERM", "-ERR operation not permitted"];
        if !is_fine.iter().any(|begin| pong.starts_with(begin)) {
            return Err(End::Broken(format!("it answers PING with {pong}")));
        }
        let (user, password) = (config.masteruser.get(), config.masterauth.get());
        if !password.is_empty() {
            let answer = match user.is_empty() {
                true => ask(reader, &[b"AUTH", &password])?,
                false => ask(reader, &[b"AUTH", &user, &password])?,
            };
            if answer.starts_with('-') {
                return Err(End::Broken(format!("Unable to AUTH to MASTER: {answer}")));
            }
        }
        // What it does not know, it may refuse.
        let announced = config.replica_announce_port.get();
        let port = if announced > 0 { announced } else { self.server.port.into() };
        ask(reader, &[b"REPLCONF", b"listening-port", port.to_string().as_bytes()])?;
        let ip = config.replica_announce_ip.get();
        if !ip.is_empty() {
            ask(reader, &[b"REPLCONF", b"ip-address", &ip])?;
        }
        ask(reader, &[b"REPLCONF", b"capa", b"eof", b"capa", b"psync2"])?;
        Ok(match &self.place {
            Some(place) => {
                let from = (place.offset + 1).to_string();
                log::notice(format_args!(
                    "Trying a partial resynchronization (request {}:{from}).",
                    place.id
                ));
                ask(reader, &[b"PSYNC", place.id.as_bytes(), from.as_bytes()])?
            }
            None => ask(reader, &[b"PSYNC", b"?", b"-1"])?,
        })
    }

    /// Reads a snapshot, and puts it in the place of the data.
    fn load(&mut self, reader: &mut Reader, origin: Origin) -> Result<(), End> {
        let (server, order) = (self.server, self.order);
        log::notice(format_args!("Full resync from master: {}:{}", origin.id, origin.offset));
        // What we have is of no place in this history.
        server.primary.offset.store(-1, Ordering::Relaxed);
        reader.get_ref().waits_for_snapshot();
        let mut keyspace = self.read_snapshot(reader)?;
        keyspace.set_origin(origin.clone());
        server.primary.with_tail(order, Tail::forget);
        // The data stays as it is while there is a pause. One that begins only now delays it as well.
        while server.pause.is_on() {
            std::thread::sleep(Duration::from_millis(10));
            reader.get_mut().tend()?;
        }
        let may = || match server.primary.is_current(order) {
            true => Ok(!server.pause.is_on()),
            false => Err("it is not wanted any more".into()),
        };
        let exchange = || server.aof.exchange(self.store, keyspace, &may);
        let exchanged = reader.get_mut().while_waiting(exchange);
        exchanged.map_err(|reason| {
            End::Broken(format!("the snapshot cannot be taken over: {reason}"))
        })?;
        self.place = Some(origin);
        log::notice(format_args!("MASTER <-> REPLICA sync: Finished with success"));
        Ok(())
    }

    /// Its end is where its length says, or forty bytes say it that were announced before.
    fn read_snapshot(&self, reader: &mut Reader) -> Result<Keyspace, End> {
        let config = &self.server.config;
        let head = line(reader)?;
        let unknown = || End::Broken(format!("a snapshot does not begin with {head}"));
        let form = head.strip_prefix('$').ok_or_else(unknown)?;
        let (length, mark) = match form.strip_prefix("EOF:") {
            Some(mark) if mark.len() == 40 => (0, mark),
            Some(_) => return Err(unknown()),
            None => (form.parse().ok().filter(|length| *length > 0).ok_or_else(unknown)?, ""),
        };
        let before = position(reader);
        reader.get_mut().begins_sync(before, length);
        let (databases, limits) = (config.databases.get(), Limits::of(config, Source::Primary));
        let mut snapshot = reader.take(if length > 0 { length as u64 } else { u64::MAX });
        let read = rdb::read(&mut snapshot, databases, &limits, None, &mut |_| {});
        let left = snapshot.limit();
        let (keyspace, found) = read.map_err(|error| {
            let reason = format!("the snapshot cannot be read: {error}");
            match error.cause {
                rdb::Cause::NotHere => End::Stopped(reason),
                rdb::Cause::Damaged => End::Broken(reason),
            }
        })?;
        let mut end = vec![0; mark.len()];
        reader.read_exact(&mut end)?;
        if end != mark.as_bytes() || length > 0 && left > 0 {
            return Err(End::Broken("something follows the end of the snapshot".into()));
        }
        for warning in &found.warnings {
            log::warning(format_args!("the primary's snapshot: {warning}"));
        }
        Ok(keyspace)
    }

    /// Runs what comes, for ever.
    fn apply_stream(
        &mut self,
        mut reader: Reader,
        client: Client,
    ) -> Result<std::convert::Infallible, End> {
        let (server, order) = (self.server, self.order);
        let place = self.place.as_mut().expect("a snapshot or +CONTINUE");
        let mut applier = Applier::new(server, self.store, client, place.db);
        // Where the stream begins, in the history and in what has come by this connection.
        let (begin, before) = (place.offset, position(&reader));
        server.primary.offset.store(place.offset as i64, Ordering::Relaxed);
        let _ = server.aof.keep_backlog();
        goes_on_at(server, order, place, server.aof.position(), reader.buffer());
        server.primary.update(order, |status| status.link = primary::Link::Up);
        reader.get_mut().acknowledge(place.offset, true)?;
        let mut commands: Vec<Args> = Vec::new();
        loop {
            let Gathered { count, end, asked, stop } = gather(&mut reader, &mut commands, server)?;
            let offset = begin + end - before;
            self.run_commands(&mut applier, &mut commands[..count], offset, reader.get_mut())?;
            server.primary.offset.store(offset as i64, Ordering::Relaxed);
            // On a full disk the primary is told of what the log has.
            while applier.commit().is_err() {
                std::thread::sleep(Duration::from_millis(100));
                reader.get_mut().tend()?;
            }
            reader.get_mut().acknowledge(offset, asked)?;
            if let Some(reason) = stop {
                return Err(End::Stopped(reason));
            }
        }
    }

    /// Runs these commands, which lead to this offset, as one unit.
    fn run_commands(
        &mut self,
        applier: &mut Applier,
        commands: &mut [Args],
        offset: u64,
        link: &mut Link,
    ) -> Result<(), End> {
        let (server, order) = (self.server, self.order);
        let is_current = || server.primary.is_current(order);
        let may = || is_current() && !server.pause.is_on();
        let place = self.place.as_mut().expect("it is there");
        if commands.is_empty() {
            // MULTI and EXEC, or the beginning of what cannot be run.
            place.offset = offset;
            return Ok(());
        }
        let origin = Origin { offset, ..place.clone() };
        while !applier.apply(commands, origin.clone(), &may) {
            if !is_current() {
                return Err(End::Broken("another REPLICAOF has come".into()));
            }
            // A script is busy, or there is a CLIENT PAUSE.
            std::thread::sleep(Duration::from_millis(10));
            link.tend()?;
        }
        *place = Origin { db: applier.client.db, ..origin };
        for failure in applier.failures.drain(..) {
            log::warning(format_args!("{failure}"));
        }
        // A SELECT that our log does not have would be missing in front of what we write later.
        if server.aof.is_in(place.db) {
            let (place, position) = (place.clone(), applier.position);
            server.primary.with_tail(order, |tail| tail.reach(place, position));
        }
        Ok(())
    }

    fn timeout(&self) -> Duration {
        Duration::from_secs(self.server.config.repl_timeout.get() as u64)
    }
}

/// Where the data is in a primary's history, or in our own, if the log knows.
fn place_in_log(server: &Server, store: &Store, order: u64) -> Option<Origin> {
    // Without a log nobody can follow us.
    let _ = server.aof.keep_backlog();
    let keyspace = store.read_when_free();
    let place = keyspace.origin().cloned().or_else(|| server.aof.own_place())?;
    // We may have fewer databases than whoever has written that.
    let place = Some(place).filter(|place| place.db < keyspace.databases())?;
    // Nobody writes under the lock.
    let position = server.aof.position();
    drop(keyspace);
    goes_on_at(server, order, &place, position, &[]);
    Some(place)
}

/// The stream goes on at this place, and our log at this position. `ahead`: so much of the stream has come.
fn goes_on_at(server: &Server, order: u64, place: &Origin, position: Position, ahead: &[u8]) {
    let (most, is_in) = (server.config.repl_backlog_size.get(), server.aof.is_in(place.db));
    server.primary.with_tail(order, |tail| {
        tail.go_on(place.clone(), position, ahead, most);
        if !is_in {
            tail.lose_place();
        }
    });
}

/// How many bytes of what has come were taken from the reader.
fn position(reader: &Reader) -> u64 {
    reader.get_ref().received - reader.buffer().len() as u64
}

/// Commands that make whole units.
struct Gathered {
    count: usize,
    /// The position behind them.
    end: u64,
    /// Whether an acknowledgement is asked for.
    asked: bool,
    /// What cannot be done in the unit behind them, if that is so.
    stop: Option<String>,
}

/// Reads whole units, at least one, as many as have come and not too many.
fn gather(reader: &mut Reader, commands: &mut Vec<Args>, server: &Server) -> Result<Gathered, End> {
    let databases = server.config.databases.get();
    let begin = position(reader);
    let mut gathered = Gathered { count: 0, end: begin, asked: false, stop: None };
    let (mut count, mut in_multi) = (0, false);
    loop {
        if count == commands.len() {
            commands.push(Args::default());
        }
        let args = &mut commands[count];
        read_record(reader, args)?;
        let runs = match can_follow(args, databases) {
            Ok(runs) => runs,
            Err(reason) => {
                gathered.stop = Some(reason);
                return Ok(gathered);
            }
        };
        let is = |at: usize, word: &[u8]| {
            args.iter().nth(at).is_some_and(|arg| arg.eq_ignore_ascii_case(word))
        };
        if is(0, b"multi") || is(0, b"exec") {
            in_multi = is(0, b"multi");
        } else if is(0, b"discard") {
            (count, in_multi) = (gathered.count, false);
        } else if runs {
            gathered.asked |= is(0, b"replconf") && is(1, b"getack");
            count += 1;
        }
        if in_multi {
            continue;
        }
        (gathered.count, gathered.end) = (count, position(reader));
        let is_much = count >= AT_ONCE || gathered.end - begin >= BYTES_AT_ONCE;
        if is_much || gathered.asked || reader.buffer().is_empty() {
            commands.truncate(2 * AT_ONCE);
            return Ok(gathered);
        }
    }
}

/// Reads one command of the stream.
fn read_record(reader: &mut Reader, args: &mut Args) -> Result<(), End> {
    loop {
        match reader.fill_buf()?.first() {
            Some(b'*') => break,
            // They count.
            Some(b'\n' | b'\r') => reader.consume(1),
            Some(other) => {
                let found = other.escape_ascii();
                return Err(End::Broken(format!("expected '*', found '{found}'")));
            }
            None => return Err(End::Broken("it has hung up".into())),
        }
    }
    match resp::read_command(reader, args, resp::LOG) {
        Ok(true) => Ok(()),
        Ok(false) | Err(resp::Error::Cut) => Err(End::Broken("it has hung up".into())),
        Err(resp::Error::Io(error)) => Err(error.into()),
        Err(resp::Error::Protocol(text)) => {
            Err(End::Broken(String::from_utf8_lossy(&text).into_owned()))
        }
    }
}

fn connect(host: &str, port: u16, timeout: Duration) -> Result<TcpStream, End> {
    let mut last = End::Broken(format!("{host} has no address"));
    let found = (host, port).to_socket_addrs();
    let found = found.map_err(|error| End::Broken(format!("{host} is not known: {error}")))?;
    for address in found {
        match TcpStream::connect_timeout(&address, timeout) {
            Ok(stream) => return Ok(stream),
            Err(error) => last = error.into(),
        }
    }
    Err(last)
}

/// Sends a command, and returns the line that is the answer.
fn ask(reader: &mut Reader, words: &[&[u8]]) -> Result<String, End> {
    let mut bytes = Vec::new();
    write_command(&mut bytes, words.iter().copied());
    reader.get_mut().send(&bytes)?;
    line(reader)
}

/// The next line. Empty ones are signs of life.
fn line(reader: &mut Reader) -> Result<String, End> {
    loop {
        let mut line = Vec::new();
        (&mut *reader).take(LONGEST_LINE).read_until(b'\n', &mut line)?;
        if line.last() != Some(&b'\n') {
            return Err(End::Broken("it has hung up".into()));
        }
        let text = String::from_utf8_lossy(&line);
        let text = text.trim_end();
        if !text.is_empty() {
            return Ok(text.into());
        }
    }
}
