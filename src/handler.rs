//! The command table, and the one place where a command meets its lock, its time and the log.
//!
//! Each command is one row ([`Command`]) in the file of its group: name, arity, handler, key
//! positions, and what the documentation says. The row is all there is: arity errors, `COMMAND`,
//! the statistics and the README's list are read from it.
//!
//! What a handler may do follows from the type of its function, which is its lock:
//!
//! | [`Run`]   | gets                | lock            | logged            |
//! |-----------|---------------------|-----------------|-------------------|
//! | `Read`    | `&View`             | shared          | never             |
//! | `Write`   | `&mut ViewMut`      | exclusive       | if it changed something |
//! | `Client`  | `&mut Client`       | none needed     | never             |
//! | `Mixed`   | both, read-only     | shared          | never             |
//!
//! **A batch under one lock.** A [`Batch`] runs the commands that one client has sent at once. It
//! takes a lock when the first command needs one, keeps it for those that follow, and exchanges it
//! only to go from reading to writing. [`Batch::finish`] then does, in this order:
//!
//! 1. append what changed to the log's buffer, *still holding the lock* (order of the log),
//! 2. note the log's position, release the lock,
//! 3. delete what readers found dead (a second, short, exclusive lock; nearly never),
//! 4. wait until the log is written up to that position. Only then may the replies leave.
//!
//! If the log cannot be written, the replies of those commands that are in it, and only those,
//! become the error MISCONF: their outcome is unknown.
//!
//! EXEC runs its queue in the same way, under the lock that the most demanding of them needs. No
//! handler can lock anything: the keyspace's lock is known to the batch alone.
//!
//! **How Redis does it**: server.c, `processCommand` and `call`. It has no locks, for it has one
//! thread; `call` is its one place too.

pub mod args;
pub mod client;
pub mod config;
pub mod connection;
pub mod debug;
pub mod expiry;
pub mod float;
pub mod generic;
pub mod hash;
pub mod info;
pub mod introspection;
pub mod lcs;
pub mod pubsub;
pub mod scan;
pub mod server;
pub mod string;
pub mod transactions;

use crate::client::{Client, Replies, Server, Transaction};
use crate::error::Error;
use crate::propagate::Records;
use crate::resp::{Args, Reply};
use crate::say;
use crate::stats::{Slow, add};
use crate::store::{Expired, Keyspace, Limits, Notes, Time, View, ViewMut};
use std::collections::HashMap;
use std::ops::Range;
use std::sync::atomic::Ordering;
use std::sync::{LazyLock, RwLock, RwLockReadGuard, RwLockWriteGuard};
use std::time::SystemTime;

/// The version of Redis whose behaviour this server follows, which it reports to clients.
pub const REDIS_VERSION: &str = "7.0.15";

/// The version of this server.
pub const VERSION: &str = env!("CARGO_PKG_VERSION");

/// What a handler may touch, which is also the lock that it runs under.
#[derive(Clone, Copy)]
pub enum Run {
    /// Under the shared lock. It cannot change anything: `View` has no way to.
    Read(fn(&View, &Args, &mut Reply) -> Result<(), Error>),
    /// Under the exclusive lock; logged if it changed something.
    Write(fn(&mut ViewMut, &mut Args, &mut Reply) -> Result<(), Error>),
    /// Without a lock, or under whichever is held: it sees its client alone, and must not block.
    Client(fn(&mut Client, &Args, &mut Reply) -> Result<(), Error>),
    /// Under the shared lock, and with its client.
    Mixed(fn(&mut Client, &View, &Args, &mut Reply) -> Result<(), Error>),
    /// EXEC, which runs others and holds the lock that the most demanding of them needs.
    Exec,
    /// A container such as CONFIG; its subcommands have rows of their own, named `config|get`.
    Container,
    /// A container that takes what names none of its subcommands itself: COMMAND, DEBUG.
    OpenContainer(fn(&mut Client, &Args, &mut Reply) -> Result<(), Error>),
}

/// Which arguments are keys: the first, the last (negative: counted from the end), and the step.
#[derive(Clone, Copy)]
pub struct Keys(pub i64, pub i64, pub i64);

pub const NO_KEY: Keys = Keys(0, 0, 0);
pub const ONE_KEY: Keys = Keys(1, 1, 1);
pub const TWO_KEYS: Keys = Keys(1, 2, 1);
pub const ALL_KEYS: Keys = Keys(1, -1, 1);
pub const EVERY_OTHER: Keys = Keys(1, -1, 2);
pub const SUBCOMMAND_KEY: Keys = Keys(2, 2, 1);

/// A row of the command table.
pub struct Command {
    /// In lower case; `config|get` for a subcommand.
    pub name: &'static str,
    /// Number of words, the name included; negative if it is the least number.
    pub arity: i64,
    pub run: Run,
    pub keys: Keys,
    /// The version of Redis that brought the command.
    pub since: &'static str,
    /// The arguments as Redis's documentation writes them.
    pub usage: &'static str,
    pub summary: &'static str,
}

/// A row, in one line.
pub const fn command(
    name: &'static str,
    arity: i64,
    run: Run,
    keys: Keys,
    since: &'static str,
    usage: &'static str,
    summary: &'static str,
) -> Command {
    Command {
        name,
        arity,
        run,
        keys,
        since,
        usage,
        summary,
    }
}

/// The groups of Redis's documentation, each with the rows of its file.
const GROUPS: [(&str, &[&[Command]]); 6] = [
    ("string", &[string::COMMANDS, lcs::COMMANDS]),
    ("hash", &[hash::COMMANDS]),
    ("generic", &[generic::COMMANDS, expiry::COMMANDS]),
    ("connection", &[connection::COMMANDS, client::COMMANDS]),
    ("transactions", &[transactions::COMMANDS]),
    ("pubsub", &[pubsub::COMMANDS]),
];

/// The group `server` has a file for each of its large commands.
const SERVER: (&str, &[&[Command]]) = (
    "server",
    &[
        server::COMMANDS,
        info::COMMANDS,
        introspection::COMMANDS,
        debug::COMMANDS,
        config::COMMANDS,
    ],
);

/// A command with its place in the table, which is also its place in the statistics.
pub struct Row {
    pub index: usize,
    pub command: &'static Command,
    pub group: &'static str,
}

pub struct Table {
    pub rows: Vec<Row>,
    by_name: HashMap<&'static str, usize>,
}

pub static TABLE: LazyLock<Table> = LazyLock::new(|| {
    let groups = GROUPS.iter().chain([&SERVER]);
    let commands = groups.flat_map(|(group, files)| {
        files
            .iter()
            .flat_map(move |file| file.iter().map(move |command| (*group, command)))
    });
    let rows: Vec<Row> = commands
        .enumerate()
        .map(|(index, (group, command))| Row {
            index,
            command,
            group,
        })
        .collect();
    let by_name = rows
        .iter()
        .map(|row| (row.command.name, row.index))
        .collect();
    Table { rows, by_name }
});

impl Table {
    /// The row with this name, in any case; `config|get` for a subcommand.
    pub fn find(&self, name: &[u8]) -> Option<&Row> {
        // No name is longer than this.
        let mut lower = [0; 32];
        let lower = lower.get_mut(..name.len())?;
        lower.copy_from_slice(name);
        lower.make_ascii_lowercase();
        let index = self.by_name.get(std::str::from_utf8(lower).ok()?)?;
        Some(&self.rows[*index])
    }

    /// The subcommands of a container.
    pub fn subcommands(&self, container: &str) -> impl Iterator<Item = &Row> {
        let prefix = format!("{container}|");
        self.rows
            .iter()
            .filter(move |row| row.command.name.starts_with(&prefix))
    }

    /// The row that these words call, if their number is right.
    fn look_up(&self, args: &Args) -> Result<&Row, Error> {
        let words = || args.iter().map(<[u8]>::to_vec).collect();
        // A subcommand's row is reached through its container only.
        let found = self.find(&args[0]).filter(|_| !args[0].contains(&b'|'));
        let mut row = found.ok_or_else(|| Error::UnknownCommand(words()))?;
        let container = row.command;
        if let Run::Container | Run::OpenContainer(_) = container.run
            && args.len() > 1
        {
            let name = [container.name.as_bytes(), b"|", &args[1]].concat();
            row = match (self.find(&name), container.run) {
                (Some(subcommand), _) => subcommand,
                (None, Run::OpenContainer(_)) => row,
                (None, _) => return Err(unknown_subcommand(container.name, &args[1])),
            };
        }
        let (count, arity) = (args.len() as i64, row.command.arity);
        if count == arity || (arity < 0 && count >= -arity) {
            Ok(row)
        } else {
            Err(Error::WrongArity(row.command.name))
        }
    }
}

/// The lock that a batch holds.
enum Guard<'a> {
    None,
    Shared(RwLockReadGuard<'a, Keyspace>),
    Exclusive(RwLockWriteGuard<'a, Keyspace>),
}

/// The commands that one client has sent at once, while they run.
pub struct Batch<'a> {
    server: &'a Server,
    store: &'a RwLock<Keyspace>,
    guard: Guard<'a>,
    /// Unix time in microseconds: the end of one command is the start of the next.
    clock: u64,
    /// Of the command, or of all commands of the EXEC, that runs now.
    time: Time,
    in_exec: bool,
    /// Whether the log replays, and nothing is to be logged or counted.
    replaying: bool,
    records: Records,
    /// Where in the output the replies of logged commands are.
    logged: Vec<Range<usize>>,
    notes: Notes,
    /// How far the log must be written before the replies leave.
    position: u64,
    /// The row that ran or was queued last, for CLIENT LIST.
    last_row: Option<usize>,
    tally: Vec<Tally>,
}

/// What a batch counts of one command, until it adds it to the server's statistics.
#[derive(Default)]
struct Tally {
    index: usize,
    calls: u64,
    microseconds: u64,
    rejected: u64,
    failed: u64,
}

impl<'a> Batch<'a> {
    pub fn new(server: &'a Server, store: &'a RwLock<Keyspace>) -> Batch<'a> {
        Batch {
            server,
            store,
            guard: Guard::None,
            clock: microseconds(),
            time: Time {
                now: 0,
                kills: true,
            },
            in_exec: false,
            replaying: false,
            records: Records::default(),
            logged: Vec::new(),
            notes: Notes::default(),
            position: 0,
            last_row: None,
            tally: Vec::new(),
        }
    }

    /// A batch that replays the log: time kills nothing, and nothing is logged.
    pub fn for_replay(server: &'a Server, store: &'a RwLock<Keyspace>) -> Batch<'a> {
        Batch {
            replaying: true,
            ..Batch::new(server, store)
        }
    }

    /// Runs one command, or queues it inside MULTI, and appends its reply.
    pub fn execute(&mut self, client: &mut Client, args: &mut Args, reply: &mut Reply) {
        let begin = reply.out.len();
        if client.replies == Replies::SkipNext {
            client.replies = Replies::SkipThis;
        }
        self.notes.unit.set(self.notes.unit.get() + 1);
        match TABLE
            .look_up(args)
            .and_then(|row| self.admit(row, client).map(|()| row))
        {
            Ok(row) => match &mut client.transaction {
                Some(transaction) if is_queued(row) => {
                    transaction.writes |= matches!(row.command.run, Run::Write(_));
                    transaction.subscribes |= row.group == "pubsub";
                    transaction.queue.push((row.index, args.to_owned()));
                    self.last_row = Some(row.index);
                    reply.status("QUEUED");
                }
                _ => self.call(row, client, args, reply),
            },
            Err(error) => self.reject(&error, client, args, reply),
        }
        if matches!(client.replies, Replies::Off | Replies::SkipThis) {
            reply.out.truncate(begin);
            // What is not sent cannot become an error either.
            self.logged.retain(|range| range.end <= begin);
        }
        if client.replies == Replies::SkipThis {
            client.replies = Replies::On;
        }
    }

    /// Replays a command of the log; the error is what the operator is to be told.
    pub fn replay(
        &mut self,
        client: &mut Client,
        args: &mut Args,
        reply: &mut Reply,
    ) -> Result<(), String> {
        can_replay(args)?;
        reply.out.clear();
        self.execute(client, args, reply);
        // Neither a lock is given back here nor a log written, where these would be used up.
        self.records.clear();
        self.logged.clear();
        if let Guard::Exclusive(keyspace) = &mut self.guard {
            keyspace.garbage.clear();
        }
        if let [b'-', error @ ..] = reply.out.trim_ascii_end() {
            // As in Redis. Nobody waits for the lock that we hold, it is of a keyspace of our own.
            say::warning(format_args!(
                "the log holds a command that fails, {}: {}",
                String::from_utf8_lossy(&args[0]),
                String::from_utf8_lossy(error)
            ));
        }
        Ok(())
    }

    /// Whether the command may run now, for reasons that have nothing to do with its arguments.
    fn admit(&self, row: &Row, client: &Client) -> Result<(), Error> {
        let command = row.command;
        if command.name.starts_with("debug") && !debug::is_allowed(client) {
            return Err(Error::DebugNotAllowed);
        }
        if !client.authenticated && !matches!(command.name, "auth" | "hello" | "quit" | "reset") {
            return Err(Error::NoAuth);
        }
        if self.replaying {
            return Ok(());
        }
        let writes = match command.run {
            Run::Write(_) => true,
            Run::Exec => client.transaction.as_ref().is_some_and(|t| t.writes),
            _ => command.name == "ping",
        };
        if writes && let Some(cause) = self.server.aof.refusal() {
            return Err(Error::Misconf(cause));
        }
        if client.is_subscribed()
            && !client.public.resp3.load(Ordering::Relaxed)
            && !works_while_subscribed(command.name)
        {
            return Err(Error::SubscribedOnly(command.name));
        }
        if !works_while_loading(command) && self.server.is_loading() {
            return Err(Error::Loading);
        }
        if client.transaction.is_some() && command.name == "shutdown" {
            return Err(Error::NotInTransaction);
        }
        Ok(())
    }

    fn reject(&mut self, error: &Error, client: &mut Client, args: &Args, reply: &mut Reply) {
        let is_exec = args[0].eq_ignore_ascii_case(b"exec");
        if let Error::UnknownCommand(words) = error
            && [&b"post"[..], b"host:"]
                .iter()
                .any(|word| words[0].eq_ignore_ascii_case(word))
        {
            // A browser has been tricked into sending us a form: it must not get a second line in.
            client.then = crate::client::Then::Drop;
            return;
        }
        if let Some(row) = TABLE.find(&args[0]) {
            self.tally_of(row.index).rejected += 1;
        }
        add(&self.server.stats.error_replies, 1);
        if is_exec {
            client.transaction = None;
            self.unwatch(client);
            return reply.error(&Error::ExecAbortBecause(Box::new(error.clone())));
        }
        if let Some(transaction) = &mut client.transaction {
            transaction.aborted = true;
        }
        reply.error(error);
    }

    /// Runs a command that has been admitted, and accounts for it.
    fn call(&mut self, row: &'static Row, client: &mut Client, args: &mut Args, reply: &mut Reply) {
        let begin = reply.out.len();
        let result = match row.command.run {
            Run::Read(handler) => {
                self.share();
                let result = handler(&self.view(client.db), args, reply);
                self.delete_noted_if_exclusive();
                result
            }
            Run::Mixed(handler) => {
                self.share();
                let result = handler(client, &self.view(client.db), args, reply);
                self.delete_noted_if_exclusive();
                result
            }
            Run::Client(handler) | Run::OpenContainer(handler) => handler(client, args, reply),
            Run::Write(handler) => self.write(handler, client.db, args, reply),
            Run::Exec => self.exec(client, reply),
            Run::Container => Ok(()),
        };
        let failed = result.is_err();
        if let Err(error) = result {
            reply.out.truncate(begin);
            reply.error(&error);
        }
        if !self.replaying {
            self.account(row, client, args, failed, reply);
        }
    }

    fn write(
        &mut self,
        handler: fn(&mut ViewMut, &mut Args, &mut Reply) -> Result<(), Error>,
        db: usize,
        args: &mut Args,
        reply: &mut Reply,
    ) -> Result<(), Error> {
        let begin = reply.out.len();
        self.exclude();
        if !self.in_exec {
            self.records.begin();
        }
        let limits = limits(self.server);
        let Guard::Exclusive(keyspace) = &mut self.guard else {
            return Ok(());
        };
        let mut view = ViewMut::new(keyspace, db, self.time, limits, &mut self.records);
        let result = handler(&mut view, args, reply);
        let as_sent = view.dirty > 0 && !view.propagated;
        if as_sent && !self.replaying {
            self.records.push(db, args.iter());
        }
        if !self.in_exec && self.records.end() > 0 {
            // The reply of a command that failed is its error, and stays that.
            let end = if result.is_ok() {
                reply.out.len()
            } else {
                begin
            };
            self.logged.push(begin..end);
        }
        result
    }

    fn exec(&mut self, client: &mut Client, reply: &mut Reply) -> Result<(), Error> {
        let begin = reply.out.len();
        let Transaction {
            queue,
            aborted,
            writes,
            ..
        } = client.transaction.take().ok_or(Error::ExecWithoutMulti)?;
        if writes {
            self.exclude();
        } else {
            self.share();
        }
        let changed = client.watch_flag.load(Ordering::Relaxed)
            || client
                .watched
                .iter()
                .any(|(db, key, expired)| !expired && self.view(*db).has_expired(*db, key));
        self.unwatch(client);
        if aborted {
            return Err(Error::ExecAbort);
        }
        if changed {
            reply.nil_array();
            return Ok(());
        }
        self.records.begin();
        self.in_exec = true;
        client.in_exec = true;
        reply.array(queue.len());
        for (index, mut args) in queue {
            self.call(&TABLE.rows[index], client, &mut args, reply);
        }
        self.in_exec = false;
        client.in_exec = false;
        if self.records.end() > 0 {
            self.logged.push(begin..reply.out.len());
        }
        Ok(())
    }

    /// Ends all watches of the client; takes the shared lock if there are any.
    pub fn unwatch(&mut self, client: &mut Client) {
        if !client.watched.is_empty() {
            self.share();
            transactions::unwatch_all(client, &self.view(client.db));
        }
    }

    fn view(&self, db: usize) -> View<'_> {
        let keyspace: &Keyspace = match &self.guard {
            Guard::Shared(keyspace) => keyspace,
            Guard::Exclusive(keyspace) => keyspace,
            Guard::None => unreachable!("a view is made after the lock was taken"),
        };
        View::new(keyspace, db, self.time, &self.notes)
    }

    /// Makes sure that the keyspace can be read.
    fn share(&mut self) {
        if let Guard::None = self.guard {
            self.guard = Guard::Shared(self.store.read().unwrap());
            self.start_clock();
        }
    }

    /// Makes sure that the keyspace can be written.
    fn exclude(&mut self) {
        if !matches!(self.guard, Guard::Exclusive(_)) {
            self.release();
            self.guard = Guard::Exclusive(self.store.write().unwrap());
            self.start_clock();
            // What this batch's reads found dead goes before what its writes do.
            self.delete_noted();
        }
    }

    /// Time is read when the lock is held: read before, two threads' clocks could cross.
    fn start_clock(&mut self) {
        self.clock = microseconds();
        self.time = Time {
            now: self.clock / 1000,
            kills: !self.replaying,
        };
    }

    /// Hands what changed to the log, notes how far it must be written, and gives the lock back.
    fn release(&mut self) {
        if let Guard::Exclusive(keyspace) = &mut self.guard {
            if !self.replaying {
                self.server.aof.append(&self.records);
            }
            self.records.clear();
            for garbage in keyspace.garbage.drain(..) {
                // If the reaper is gone the process is ending.
                let _ = self.server.reaper.send(garbage);
            }
        }
        if !matches!(self.guard, Guard::None) {
            self.position = self.server.aof.position();
            self.guard = Guard::None;
        }
    }

    fn delete_noted_if_exclusive(&mut self) {
        if matches!(self.guard, Guard::Exclusive(_)) {
            self.delete_noted();
        }
    }

    /// Deletes what readers found dead, if it still is. The exclusive lock is held.
    fn delete_noted(&mut self) {
        let noted = self.notes.expired.take();
        if noted.is_empty() {
            return;
        }
        for unit in noted.chunk_by(|a, b| a.unit == b.unit) {
            self.delete_dead(unit);
        }
    }

    /// Deletes keys as one unit if they are dead; returns how many were. The exclusive lock is
    /// held.
    pub fn delete_dead(&mut self, keys: &[Expired]) -> usize {
        if !self.in_exec {
            self.records.begin();
        }
        let limits = limits(self.server);
        let Guard::Exclusive(keyspace) = &mut self.guard else {
            return 0;
        };
        let mut view = ViewMut::new(keyspace, 0, self.time, limits, &mut self.records);
        let mut deleted = 0;
        for Expired { db, key, .. } in keys {
            deleted += usize::from(view.in_db(*db, |view| view.delete_if_dead(key)));
        }
        if !self.in_exec {
            self.records.end();
        }
        add(&self.server.stats.expired_keys, deleted as u64);
        deleted
    }

    /// Looks for keys of database `db` that are dead, under the exclusive lock, and deletes up to
    /// `most` of them; returns how many.
    pub fn sweep(&mut self, db: usize, most: usize) -> usize {
        self.exclude();
        let Guard::Exclusive(keyspace) = &self.guard else {
            return 0;
        };
        let dead = keyspace.dead(db, self.time, most);
        let dead = dead.into_iter().map(|key| [Expired { unit: 0, db, key }]);
        dead.map(|key| self.delete_dead(&key)).sum()
    }

    /// Takes the exclusive lock and keeps it, so that nothing changes any more: for SHUTDOWN.
    pub fn hold_everything(&mut self) {
        self.exclude();
        self.server.aof.append(&self.records);
        self.records.clear();
    }

    /// Releases the lock and waits until the log holds what the replies say. Afterwards no lock
    /// is held, and the replies may leave.
    pub fn finish(&mut self, client: &Client, reply: &mut Reply) {
        self.release();
        if !self.notes.expired.borrow().is_empty() {
            self.exclude();
            self.release();
        }
        let committed = match self.server.aof.refusal() {
            // Readers go on. What they see of a write whose outcome is unknown is as unknown.
            Some(_) if self.logged.is_empty() => Ok(()),
            _ => self.server.aof.commit(self.position),
        };
        if let Err(cause) = committed {
            self.retract(&Error::Misconf(cause), reply);
        }
        self.logged.clear();
        client.publish(reply.protocol, self.last_row);
        self.add_to_statistics();
    }

    /// Replaces the replies of all commands that are in the log by the error.
    fn retract(&mut self, error: &Error, reply: &mut Reply) {
        let replies = std::mem::take(&mut reply.out);
        let mut from = 0;
        for range in &self.logged {
            reply.out.extend_from_slice(&replies[from..range.start]);
            if !range.is_empty() {
                reply.error(error);
            }
            from = range.end;
        }
        reply.out.extend_from_slice(&replies[from..]);
    }

    fn tally_of(&mut self, index: usize) -> &mut Tally {
        // A batch rarely has more than two different commands, and often the last one again.
        match self.tally.iter().rposition(|tally| tally.index == index) {
            Some(at) => &mut self.tally[at],
            None => {
                self.tally.push(Tally {
                    index,
                    ..Tally::default()
                });
                self.tally.last_mut().unwrap()
            }
        }
    }

    /// Reads the clock, and counts the command.
    fn account(
        &mut self,
        row: &Row,
        client: &Client,
        args: &Args,
        failed: bool,
        reply: &mut Reply,
    ) {
        let now = microseconds();
        let took = now.saturating_sub(self.clock);
        self.clock = now;
        if !self.in_exec {
            self.time.now = now / 1000;
        }
        self.last_row = Some(row.index);
        let tally = self.tally_of(row.index);
        tally.calls += 1;
        tally.microseconds += took;
        tally.failed += u64::from(failed);
        let slower_than = self
            .server
            .config
            .slowlog_slower_than
            .load(Ordering::Relaxed);
        if slower_than >= 0 && took as i64 >= slower_than && row.command.name != "exec" {
            self.add_to_slow_log(client, args, took);
        }
        if self.server.hub.has_monitors() {
            server::show_monitors(client, row, args, now, reply);
        }
    }

    fn add_to_slow_log(&self, client: &Client, args: &Args, took: u64) {
        let slow = Slow {
            id: 0,
            time: self.clock / 1_000_000,
            microseconds: took,
            words: Vec::new(),
            addr: client.public.address(),
            name: String::from_utf8_lossy(&client.public.name.lock().unwrap()).into_owned(),
        };
        let most = self.server.config.number("slowlog-max-len") as usize;
        self.server
            .stats
            .slow_log
            .lock()
            .unwrap()
            .add(most, args.iter(), slow);
    }

    fn add_to_statistics(&mut self) {
        let stats = &self.server.stats;
        for tally in self.tally.drain(..) {
            let command = &stats.of_commands[tally.index];
            add(&stats.commands, tally.calls);
            add(&stats.error_replies, tally.failed);
            add(&command.calls, tally.calls);
            add(&command.microseconds, tally.microseconds);
            add(&command.rejected, tally.rejected);
            add(&command.failed, tally.failed);
        }
        add(&stats.hits, self.notes.hits.take());
        add(&stats.misses, self.notes.misses.take());
    }
}

/// Whether the log may hold this command; the error is what the operator is to be told.
pub fn can_replay(args: &Args) -> Result<(), String> {
    let name = String::from_utf8_lossy(&args[0]);
    let row = match TABLE.look_up(args) {
        Ok(row) => row,
        Err(Error::WrongArity(_)) => return Err(format!("wrong number of arguments for {name}")),
        Err(_) => return Err(format!("not supported: {name}")),
    };
    let changes_data = matches!(row.command.run, Run::Write(_) | Run::Read(_) | Run::Exec);
    if !changes_data && !matches!(row.command.name, "select" | "multi" | "discard") {
        return Err(format!("not supported: {name}"));
    }
    Ok(())
}

/// Whether MULTI makes the command wait for EXEC.
fn is_queued(row: &Row) -> bool {
    !matches!(
        row.command.name,
        "exec" | "discard" | "multi" | "watch" | "quit" | "reset"
    )
}

/// What needs no data works while they are still being loaded; PING does not, for it is asked to
/// find out whether the server is ready.
pub fn works_while_loading(command: &Command) -> bool {
    !matches!(command.run, Run::Read(_) | Run::Write(_)) && command.name != "ping"
}

/// What a RESP2 client may say while it is subscribed: its replies cannot be told from messages.
fn works_while_subscribed(name: &str) -> bool {
    matches!(
        name,
        "subscribe" | "unsubscribe" | "psubscribe" | "punsubscribe" | "ping" | "quit" | "reset"
    )
}

fn limits(server: &Server) -> Limits {
    let config = &server.config;
    let hash = crate::hash::Limits {
        entries: config.hash_entries.load(Ordering::Relaxed),
        value: config.hash_value.load(Ordering::Relaxed),
    };
    Limits {
        hash,
        string: config.max_bulk.load(Ordering::Relaxed),
    }
}

/// Unix time in microseconds.
pub fn microseconds() -> u64 {
    SystemTime::UNIX_EPOCH
        .elapsed()
        .unwrap_or_default()
        .as_micros() as u64
}

/// For a second word that names no subcommand.
pub fn unknown_subcommand(container: &str, subcommand: &[u8]) -> Error {
    let command = container.to_ascii_uppercase();
    Error::UnknownSubcommand {
        command,
        subcommand: subcommand.to_vec(),
    }
}

/// The same where a command looks at its subcommands and their arity itself.
pub fn subcommand_syntax(args: &Args) -> Error {
    let command = String::from_utf8_lossy(&args[0]).to_ascii_uppercase();
    Error::SubcommandSyntax {
        command,
        subcommand: args[1].to_vec(),
    }
}

/// `CONFIG HELP` and its like, from the rows of the container.
pub fn help(_: &mut Client, args: &Args, reply: &mut Reply) -> Result<(), Error> {
    let container = String::from_utf8_lossy(&args[0]).to_ascii_lowercase();
    let mut lines = vec![format!(
        "{} <subcommand> [<arg> [value] [opt] ...]. Subcommands are:",
        container.to_ascii_uppercase()
    )];
    for row in TABLE.subcommands(&container) {
        let Command {
            name,
            usage,
            summary,
            ..
        } = row.command;
        let subcommand = name[container.len() + 1..].to_ascii_uppercase();
        lines.push(format!("{subcommand} {usage}").trim_end().to_string());
        lines.push(format!("    {summary}."));
    }
    reply.array(lines.len());
    lines.iter().for_each(|line| reply.status(line));
    Ok(())
}
