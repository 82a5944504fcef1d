//! Where a command meets its lock, its time and the log.
//!
//! A [`Batch`] runs the commands that one client has sent at once. It takes a lock when the first
//! of them needs one and keeps it for those that follow. It exchanges it to go from reading to writing,
//! and gives it back early for CONFIG SET, before a SUBSCRIBE, and in commands that take long (long.rs):
//!
//! ```text
//! GET a   GET b   PING   SET c 1   GET a   │  finish
//! └───── shared ──────┘ └── exclusive ───┘ │  1. append what changed to the log's buffer
//!                                          │     (still under the lock: order of the log)
//!                                          │  2. note the log's position, release the lock
//!                                          │  3. delete what readers found dead (nearly never;
//!                                          │     under the exclusive lock, and then 1 and 2)
//!                                          │  4. wait until the log is written to that position
//!                                          ▼  the replies may leave
//! ```
//!
//! What all handlers need is done here, once: is the client allowed to, is it queued by MULTI,
//! which lock, what time is it, has it changed something, how long did it take. No handler can lock
//! the keyspace: it is given a view of the keyspace, and only the batch has the lock. EXEC runs its
//! queue in the same way, under the lock that the most demanding of them needs.
//!
//! If the log cannot be written, the replies of those commands that are in it, and only those,
//! become the error MISCONF: their outcome is unknown.
//!
//! **Looking ahead** ([`Batch::warm`]): when a batch has taken its lock it first looks at the key of each
//! of its commands, so that the processor waits for the memory of many at once (store/ahead.rs). Replay
//! does the same with the records of the log, and a command with many keys with those.
//!
//! **How Redis does it**: server.c, `processCommand` and `call`. It needs no locks, for it has one
//! thread; `call` is its one place too.

mod admit;
mod dead;
mod lock;
mod long;
mod replay;

pub use replay::{can_replay, replay};

use crate::account::{Account, Step, add_to_slow_log, is_quick};
use crate::client::{Client, Replies, Transaction};
use crate::error::Error;
use crate::handler::server::{show_monitors, shown};
use crate::handler::{Flag, Keys, Row, Run, TABLE, transactions};
use crate::propagate::Records;
use crate::resp::{Args, LONGEST, Reply};
use crate::server::Server;
use crate::stats::{Count, add, shorten_words};
use crate::store::{Keyspace, Limits, Notes, Time, View, ViewMut};
use crate::table::{self, KnownHash};
use lock::Guard;
use std::ops::Range;
use std::sync::RwLock;
use std::sync::atomic::Ordering;

/// Fewer keys than these have nothing to gain from being looked ahead to.
const WORTH_IT: usize = 4;

/// A command that has arrived, and what is found out about it before there is a lock to be held.
#[derive(Default)]
pub struct Arrived {
    pub args: Args,
    /// The row that it calls; none if it is unknown or its arity is wrong.
    pub row: Option<&'static Row>,
    /// The hash of its first key, if it has one.
    hash: Option<u64>,
}

impl Arrived {
    /// Finds the row. Where there is none, [`Batch::execute`] looks again, for the error. The row
    /// of the command `before` is tried first: most pipelines repeat one command.
    pub fn look_up(&mut self, before: Option<&'static Row>) {
        let again = before.filter(|row| row.is_called_by(&self.args));
        self.row = again.or_else(|| TABLE.look_up(&self.args).ok());
        self.hash = self.key().map(table::hash_of);
    }

    #[inline]
    fn key(&self) -> Option<&[u8]> {
        let first = self.row?.command.keys.first as usize;
        (first > 0).then(|| &self.args[first])
    }
}

/// What a command has done, for those who count.
struct Done {
    failed: bool,
    dirty: u64,
    /// How long the batch's records and the output were when it began, in bytes.
    records_before: usize,
    reply_before: usize,
    /// Its words for the slow log, if it had large ones.
    short: Option<Vec<Vec<u8>>>,
}

/// The commands that one client has sent at once, while they run. Used again for the next ones.
pub struct Batch<'a> {
    server: &'a Server,
    store: &'a RwLock<Keyspace>,
    guard: Guard<'a>,
    account: Account,
    /// The first key of a command that arrived lately, mostly of the one that runs now.
    known: KnownHash,
    /// Of the command, or of all commands of the EXEC, that runs now.
    time: Time,
    /// Whether the log replays, and nothing is to be logged or counted.
    replaying: bool,
    /// What has failed in the record that replays, its words and its error: a database that is not there,
    /// or else what failed last.
    failure: Option<(Vec<Vec<u8>>, Error)>,
    /// How much the command that ran last has changed.
    dirty: u64,
    /// What the commands under the present lock have changed, to be appended when it is released.
    records: Records,
    /// Where in the output the replies of logged commands are.
    logged: Vec<Range<usize>>,
    /// What readers found dead, and counted.
    notes: Notes,
    /// How far the log must be written before the replies leave.
    position: u64,
    /// Where in the log file the records of this batch are.
    logged_at: Range<i64>,
}

impl<'a> Batch<'a> {
    pub fn new(server: &'a Server, store: &'a RwLock<Keyspace>) -> Batch<'a> {
        Batch {
            server,
            store,
            guard: Guard::None,
            account: Account::default(),
            known: KnownHash::new(),
            time: Time { now: 0, kills: true },
            replaying: false,
            failure: None,
            dirty: 0,
            records: Records::default(),
            logged: Vec::new(),
            notes: Notes::default(),
            position: 0,
            logged_at: 0..0,
        }
    }

    /// Begins to run commands that have arrived. Nothing is locked yet.
    pub fn begin(&mut self) {
        self.account.begin();
        self.position = 0;
    }

    /// Runs one command, or queues it inside MULTI, and appends its reply.
    pub fn execute(&mut self, arrived: &mut Arrived, client: &mut Client, reply: &mut Reply) {
        if let (Some(key), Some(hash)) = (arrived.key(), arrived.hash) {
            self.known.remember(key, hash);
        }
        let Arrived { args, row, .. } = arrived;
        let begin = reply.out.mark();
        if client.replies == Replies::SkipNext {
            client.replies = Replies::SkipThis;
        }
        // What one command finds dead is deleted as a unit.
        self.notes.unit.set(self.notes.unit.get() + 1);
        let row = row.map_or_else(|| TABLE.look_up(args), Ok);
        match row.and_then(|row| self.admit(row, client, reply.protocol).map(|()| row)) {
            Ok(row) => match &mut client.transaction {
                Some(transaction) if !row.command.is(Flag::NotQueued) => {
                    transaction.writes |= matches!(row.command.run, Run::Write(_));
                    // As in Redis: what EXEC will refuse need not be kept.
                    if !transaction.aborted && !client.watch_flag.load(Ordering::Relaxed) {
                        let args = args.to_owned();
                        transaction.charge.add(args.memory());
                        transaction.queue.push((row.index, args));
                    }
                    self.account.last_row = Some(row.index);
                    reply.status("QUEUED");
                }
                _ => self.call(row, client, args, reply),
            },
            Err(error) => self.reject(&error, client, args, reply),
        }
        let is_silent = matches!(client.replies, Replies::Off | Replies::SkipThis);
        if is_silent && !std::mem::take(&mut client.confirms) {
            reply.out.truncate(begin);
            // What is not sent cannot become an error either.
            self.logged.retain(|range| range.end <= begin);
        }
        if client.replies == Replies::SkipThis {
            client.replies = Replies::On;
        }
    }

    /// Takes the lock that the first of these commands needs, and looks at the first key of each.
    /// Does nothing for a few, or if the first needs no lock. If there are commands on hashes, the word
    /// behind each key is looked at too: it is a field, and where it is not (HSCAN's cursor) the look is
    /// in vain.
    pub fn warm(&mut self, db: usize, arrived: &[Arrived]) {
        let is_worth_it = arrived.len() >= WORTH_IT;
        let first = arrived.first().and_then(|arrived| arrived.row);
        let Some(first) = first.filter(|_| is_worth_it) else {
            return;
        };
        match first.command.run {
            Run::Read(_) => self.share(),
            Run::Write(_) => self.exclude(),
            _ => return,
        }
        let keyspace = self.keyspace();
        let keyed = arrived.iter().filter_map(|arrived| Some((arrived.hash?, &arrived.args)));
        let mut rows = arrived.iter().filter_map(|arrived| arrived.row);
        if rows.any(|row| row.group == "hash") {
            keyspace.warm_fields(db, keyed.map(|(hash, args)| (hash, args.iter().nth(2))));
        } else {
            keyspace.warm(db, keyed.map(|(hash, _)| hash));
        }
    }

    /// Looks at all keys of a command that has many, when it has its lock.
    fn warm_keys(&self, row: &Row, db: usize, args: &Args) {
        let Keys { first, last, step } = row.command.keys;
        if last < 0 && args.len() > WORTH_IT * step as usize {
            let keys = args.iter().skip(first as usize).step_by(step as usize);
            self.keyspace().warm_keys(db, keys);
        }
    }

    /// Runs a command that has been admitted, and accounts for it.
    fn call(&mut self, row: &'static Row, client: &mut Client, args: &mut Args, reply: &mut Reply) {
        if row.command.is(Flag::CountsClients) && !client.in_exec {
            self.give_back();
            self.server.hear_out(&client.public, row.group == "pubsub");
        }
        self.start(row, client.in_exec);
        let (begin, reply_before) = (reply.out.mark(), reply.out.len());
        let records_before = self.records.bytes.len();
        self.dirty = 0;
        // A handler may move a large value out of the words. Who shows them wants them whole, and the
        // slow log their beginnings.
        args.keeps_large = self.each_is_shown();
        let short = (args.large_size() > 0).then(|| shorten_words(&shown(row, args)));
        if row.command.is(Flag::ShowsCounters) {
            self.settle(client);
        }
        let result = self.run_handler(row, client, args, reply);
        let failed = result.is_err();
        if let Err(error) = result {
            reply.out.truncate(begin);
            reply.error(&error);
            let outweighs = matches!(self.failure, Some((_, Error::DbIndexOutOfRange)));
            if self.replaying && !outweighs {
                self.failure = Some((shorten_words(&shown(row, args)), error));
            }
        }
        if !self.replaying {
            let done = Done { failed, dirty: self.dirty, records_before, reply_before, short };
            self.note_end(row, client, args, reply, done);
        }
    }

    /// Runs the handler under the lock that its type asks for.
    fn run_handler(
        &mut self,
        row: &'static Row,
        client: &mut Client,
        args: &mut Args,
        reply: &mut Reply,
    ) -> Result<(), Error> {
        let result = match row.command.run {
            Run::Read(handler) => {
                self.share();
                self.warm_keys(row, client.db, args);
                handler(&self.view(client.db), args, reply)
            }
            Run::Long(handler) => self.run_long(handler, client, args, reply),
            Run::Mixed(handler) => {
                self.share();
                handler(client, &self.view(client.db), args, reply)
            }
            Run::Client(handler)
            | Run::Unlocked(handler)
            | Run::OpenContainer(handler)
            | Run::Container(Some(handler)) => handler(client, args, reply),
            Run::Write(handler) => {
                self.exclude();
                self.warm_keys(row, client.db, args);
                self.write(handler, client, args, reply)
            }
            Run::Exec => self.exec(client, reply),
            Run::Container(None) => unreachable!("arity -2: there is a subcommand, or an error"),
        };
        if row.command.reads() || matches!(row.command.run, Run::Mixed(_)) {
            self.delete_noted_if_exclusive();
        }
        result
    }

    /// Begins a command, at the time at which the one before it has ended. For the first of a batch
    /// the clock is read when its lock is taken, or here if it takes none.
    fn start(&mut self, row: &Row, in_exec: bool) {
        self.account.start(row.index);
        if !in_exec {
            self.time.now = self.account.clock / 1000;
        }
        match row.command.run {
            Run::Read(_) | Run::Long(_) | Run::Mixed(_) | Run::Write(_) => {}
            Run::Unlocked(_) if !in_exec => {
                self.give_back();
                self.account.start_unlocked();
            }
            _ => self.account.start_unlocked(),
        }
    }

    /// Runs a writing handler under the exclusive lock and keeps its records. Under EXEC they join EXEC's
    /// unit.
    fn write(
        &mut self,
        handler: fn(&mut ViewMut, &mut Args, &mut Reply) -> Result<(), Error>,
        client: &Client,
        args: &mut Args,
        reply: &mut Reply,
    ) -> Result<(), Error> {
        let begin = reply.out.mark();
        self.records.begin();
        let mut view = self.view_mut(client.db);
        let result = handler(&mut view, args, reply);
        if client.in_exec
            && let Some(old) = args.take_spare()
        {
            // These words do not come back, and are not to be freed under the lock.
            view.free_later(Box::new(old));
        }
        self.dirty = view.end(args);
        if self.records.end() > 0 {
            // The reply of a command that failed is its error, and stays that.
            let end = if result.is_ok() { reply.out.mark() } else { begin };
            self.logged.push(begin..end);
        }
        result
    }

    /// Runs the queue. Its lock is taken once, so its commands see nothing of others between them.
    fn exec(&mut self, client: &mut Client, reply: &mut Reply) -> Result<(), Error> {
        let begin = reply.out.mark();
        let Transaction {
            queue,
            aborted,
            writes,
            // It counts the queue until this has run.
            charge: _charge,
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
                .any(|(db, key)| self.view(*db).has_expired_watched(key, &client.watch_flag));
        self.unwatch(client);
        if aborted {
            return Err(Error::ExecAbort);
        }
        if changed {
            reply.nil_array();
            return Ok(());
        }
        self.records.begin();
        client.in_exec = true;
        let queued = queue.len();
        client.public.shown.lock().unwrap().queued = Some(queued);
        reply.array(queued);
        let mut dirty = 0;
        for (index, mut args) in queue {
            let row = &TABLE.rows[index];
            // All that it changes is done, but nobody will read what it only asks.
            if !reply.out.takes(0) && row.command.reads() {
                continue;
            }
            self.call(row, client, &mut args, reply);
            dirty += self.dirty;
        }
        self.dirty = dirty;
        client.in_exec = false;
        if self.records.end() > 0 {
            self.logged.push(begin..reply.out.mark());
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

    /// The keyspace under the lock that is held.
    fn keyspace(&self) -> &Keyspace {
        match &self.guard {
            Guard::Shared(keyspace) => keyspace,
            Guard::Exclusive(keyspace) => keyspace,
            Guard::None => unreachable!("the keyspace is looked at when the lock was taken"),
        }
    }

    fn view(&self, db: usize) -> View<'_> {
        let limits = limits(self.server, self.replaying);
        let keyspace = self.keyspace();
        View::new(keyspace, &self.known, db, self.time, limits, &self.notes)
    }

    /// The keyspace under the exclusive lock.
    fn view_mut(&mut self, db: usize) -> ViewMut<'_> {
        let limits = limits(self.server, self.replaying);
        let Guard::Exclusive(keyspace) = &mut self.guard else {
            unreachable!("the keyspace is changed when the exclusive lock was taken")
        };
        let (known, records, notes) = (&self.known, &mut self.records, &self.notes);
        ViewMut::new(keyspace, known, db, self.time, limits, records, notes)
    }

    /// Releases the lock and waits until the log holds what the replies say. Afterwards no lock
    /// is held, what was published is on its way, and the replies may leave.
    pub fn finish(&mut self, client: &mut Client, reply: &mut Reply) {
        self.give_back();
        let committed = match self.server.aof.refusal() {
            // Readers go on. What they see of a write is as uncertain as the write, and so is what others
            // hear of it below.
            Some(_) if self.logged.is_empty() => Ok(()),
            _ => self.server.aof.commit(self.position),
        };
        if let Err(cause) = committed {
            self.retract(&Error::Misconf(cause), reply);
        }
        if !client.published.is_empty() {
            self.server.hub.send(&client.published);
            client.published = Vec::new();
            client.publishing.set(0);
        }
        client.heard.clear();
        self.logged.clear();
        client.update_public(reply.protocol, self.account.last_row);
        self.settle(client);
        self.account.tell_journey(client, &self.logged_at);
    }

    /// Adds what has been counted to what all may see: at the end of a batch, and before a command that
    /// shows it.
    fn settle(&mut self, client: &Client) {
        let counters = &client.public.counters;
        self.account.settle(&self.server.stats, counters);
        counters.add(Count::Hits, self.notes.hits.take());
        counters.add(Count::Misses, self.notes.misses.take());
        add(&self.server.stats.expired_keys, self.notes.deleted.take());
    }

    /// Replaces the replies of all commands that are in the log by the error.
    fn retract(&mut self, error: &Error, reply: &mut Reply) {
        if reply.out.is_over() {
            // Nobody will read them.
            return;
        }
        let replies = reply.out.take();
        let mut from = 0;
        for range in &self.logged {
            reply.out.append(&replies, from..range.start);
            if !range.is_empty() {
                reply.error(error);
            }
            from = range.end;
        }
        reply.out.append(&replies, from..replies.mark());
    }

    /// Whether the words of each command are shown to somebody.
    fn each_is_shown(&self) -> bool {
        self.account.has_journey() || self.server.hub.has_monitors()
    }

    /// Counts a command that has just ended, for all who want to know.
    fn note_end(
        &mut self,
        row: &'static Row,
        client: &Client,
        args: &Args,
        reply: &mut Reply,
        done: Done,
    ) {
        let slower_than = self.server.config.slowlog_log_slower_than.get();
        // It may have been thrown away.
        let reply_length = reply.out.len().saturating_sub(done.reply_before);
        let may_be_quick = done.short.is_none() && !self.each_is_shown();
        if may_be_quick && is_quick(row.command, args, reply_length, slower_than) {
            return self.account.count_untimed(row.index, done.failed);
        }
        let took = self.account.count(row.index, done.failed);
        // Who has given the lock back meanwhile has handed over what was there before.
        let logged = self.records.bytes.len();
        let logged = logged.saturating_sub(done.records_before);
        let lock = self.guard.name();
        self.account.note_step(|| Step {
            row,
            size: args.iter().map(<[u8]>::len).sum(),
            lock,
            dirty: done.dirty,
            logged,
            reply: reply_length,
            took,
        });
        // EXEC's commands are listed one by one.
        if slower_than >= 0 && took as i64 >= slower_than && !row.command.is(Flag::SkipSlowlog) {
            let words = done.short;
            let words = words.unwrap_or_else(|| shorten_words(&shown(row, args)));
            add_to_slow_log(client, words, took);
        }
        if self.server.hub.has_monitors() {
            show_monitors(client, row, args, self.account.clock, reply);
        }
    }
}

/// What a value may be at present: CONFIG SET changes it. What the log says was within the limits
/// of its time.
fn limits(server: &Server, replaying: bool) -> Limits {
    let config = &server.config;
    let hash = crate::hash::Limits {
        // A packed hash counts its fields with 32 bits.
        entries: config.hash_max_listpack_entries.get().min(u32::MAX as usize - 1),
        value: config.hash_max_listpack_value.get(),
    };
    Limits { hash, string: if replaying { LONGEST } else { config.proto_max_bulk_len.get() } }
}
