//! Which lock is held, what time it is, and what is to be logged.
//!
//! The commands that one client has sent at once are a batch. call.rs runs them, and a [`Batch`] holds the
//! lock for them. It takes the lock when a command needs one, and keeps it for the commands that follow. A
//! write after a read exchanges the shared lock for the exclusive one (batch/lock.rs). CONFIG SET, PUBLISH,
//! commands that count other clients, and commands that take long (call/long.rs) give the lock back early.
//!
//! ```text
//! GET a   GET b   PING   SET c 1   GET a   │  finish
//! └───── shared ──────┘ └── exclusive ───┘ │  1. delete what readers found expired (rare; a
//!                                          │     shared lock is exchanged for the exclusive one)
//!                                          │  2. append what changed to the log's buffer
//!                                          │     (still under the lock: order of the log)
//!                                          │  3. remember the log's position, release the lock
//!                                          │  4. wait until the log is written to that position
//!                                          ▼  the replies may leave
//! ```
//!
//! **The time of a command** is the last reading of the clock. It is read when a lock is taken, and at the end of
//! most commands (batch/clock.rs). In EXEC time stands still.
//!
//! **Waiting.** If BLPOP finds nothing, its client joins the queue of its keys. An RPUSH that makes such a key
//! marks it as ready. Behind the RPUSH, or behind the EXEC that it is part of, its batch pops for those who wait,
//! under the same lock, each time as a unit of its own. After step 4 it also sends them the answers
//! (batch/serving.rs).
//!
//! **Elsewhere**: what becomes of replies if the log cannot be written (batch/retract.rs); what subscribers are
//! told of changes (batch/telling.rs); why readers leave it to others to delete expired keys (store/expire.rs).
//!
//! **How Redis does it**: it has one thread and needs no locks. `propagatePendingCommands` in server.c logs
//! what a command has changed, and `beforeSleep` writes the log before the replies leave.

mod clock;
mod evicting;
mod lending;
mod lock;
mod origin;
mod retract;
mod serving;
mod telling;

pub use clock::{Clock, LockTimes};
pub use evicting::Room;

use crate::client::Client;
use crate::error::Error;
use crate::handler::{Command, Flag, Run, WriteHandler};
use crate::propagate::{Records, Source};
use crate::pubsub::Parcel;
use crate::resp::{Args, Reply};
use crate::server::Server;
use crate::stats::{Count, add};
use crate::store::{Keyspace, Report, Store, Time, View, ViewMut};
use crate::types::Limits;
use lock::Guard;
use std::ops::Range;
use std::sync::atomic::Ordering;

/// The lock, the time and the records of commands that run together. Used again for the next ones.
pub struct Batch<'a> {
    pub server: &'a Server,
    pub store: &'a Store,
    guard: Guard<'a>,
    /// Whether its script has lent the lock, which is busy until it takes it back.
    has_lent: bool,
    pub clock: Clock,
    /// The time of the command that runs now, the same for all commands of an EXEC; and where they come from.
    pub time: Time,
    /// How much the command that ran last has changed.
    pub dirty: u64,
    /// What the commands under the present lock have changed, to be appended when it is released.
    records: Records,
    /// Whether its commands have left records. If not, its replies leave even while the log fails. (DELs of expired
    /// keys that only readers have met do not count.)
    has_recorded: bool,
    /// Where in the output the replies are that become errors if the log fails (batch/retract.rs).
    retractable: Vec<Range<usize>>,
    /// What the views report: notes of keys that they found expired, events, hits and misses, and what a command
    /// waits for.
    report: Report,
    /// What is to be sent to subscribers (batch/telling.rs).
    parcels: Vec<Parcel>,
    /// Whether the hub has parcels of this batch.
    has_told: bool,
    /// What the configuration says about values, and the version of the configuration that said so.
    limits: Limits,
    limits_version: u64,
    /// How far the log must be written before the replies leave.
    pub position: u64,
}

impl<'a> Batch<'a> {
    pub fn new(server: &'a Server, store: &'a Store, source: Source) -> Batch<'a> {
        Batch {
            server,
            store,
            guard: Guard::None,
            has_lent: false,
            clock: Clock::default(),
            time: Time { now: 0, source },
            dirty: 0,
            records: Records::default(),
            has_recorded: false,
            retractable: Vec::new(),
            report: Report::default(),
            parcels: Vec::new(),
            has_told: false,
            limits: Limits::of(&server.config, source),
            limits_version: 0,
            position: 0,
        }
    }

    /// Begins a batch. Nothing is locked yet. If it has a trace, the waiting for locks is measured.
    pub fn begin(&mut self, has_trace: bool) {
        self.read_limits();
        self.clock.begin(has_trace);
        self.position = 0;
    }

    /// Begins a command. Its time is the last reading of the clock. If the batch has not read the clock yet, it does so
    /// when it takes its lock; for a command that needs no lock, here.
    pub fn begin_command(&mut self, command: &Command, in_exec: bool) {
        self.dirty = 0;
        self.read_limits();
        if let Run::Client(_) | Run::Container(_) = command.run {
            if command.is(Flag::GivesLockBack) && !in_exec {
                self.give_back();
            }
            if self.clock.now == 0 {
                self.clock.go_on();
            }
        }
        if !in_exec {
            self.time.now = self.clock.now / 1000;
        }
        self.report.begin_command(in_exec);
    }

    /// Reads the limits, and what subscribers want to hear, anew if an option has changed. Otherwise it only looks
    /// at one number, because to read so many options for each command would take too long.
    fn read_limits(&mut self) {
        let version = self.server.config.version.load(Ordering::Acquire);
        if self.limits_version != version {
            self.limits_version = version;
            self.limits = Limits::of(&self.server.config, self.time.source);
            self.read_wanted();
        }
    }

    /// Runs a writing handler under the exclusive lock and keeps its records: as a unit, or in EXEC as a part
    /// of EXEC's unit.
    pub fn write(
        &mut self,
        handler: WriteHandler,
        client: &mut Client,
        args: &Args,
        reply: &mut Reply,
    ) -> Result<(), Error> {
        let begin = reply.out.mark();
        self.begin_unit();
        let mut view = self.view_mut(client.db);
        let result = handler(&mut view, args, reply);
        self.dirty = view.end(args);
        self.block_if_it_waits(client, args, reply, begin);
        // If the log fails, the reply becomes MISCONF. An error stays as it is.
        let end = if result.is_ok() { reply.out.mark() } else { begin };
        self.end_unit(begin..end);
        result
    }

    /// Begins a unit of the log: what is recorded until it ends replays as a whole.
    pub fn begin_unit(&mut self) {
        self.records.begin();
    }

    /// Ends a unit, whose reply is these bytes of the output. If the unit is the outermost one and has records, the
    /// reply becomes an error if the log fails. The range is empty if there is none, or if it is an error already.
    pub fn end_unit(&mut self, reply: Range<usize>) {
        if self.records.end() {
            self.has_recorded = true;
            if !reply.is_empty() {
                self.retractable.push(reply);
            }
        }
    }

    /// Bytes of the records that wait for the lock to be released.
    pub fn recorded(&self) -> usize {
        self.records.bytes.len()
    }

    /// The keyspace under the lock that is held.
    pub fn keyspace(&self) -> &Keyspace {
        match &self.guard {
            Guard::Shared(keyspace) => keyspace,
            Guard::Exclusive(keyspace) => keyspace,
            Guard::None | Guard::Lent { .. } => unreachable!("no lock is held"),
        }
    }

    pub fn view(&self, db: usize) -> View<'_> {
        View::new(self.keyspace(), db, self.time, &self.limits, &self.report)
    }

    /// The keyspace under the exclusive lock.
    fn view_mut(&mut self, db: usize) -> ViewMut<'_> {
        let Guard::Exclusive(keyspace) = &mut self.guard else {
            unreachable!("the exclusive lock is not held")
        };
        let (records, report) = (&mut self.records, &self.report);
        ViewMut::new(keyspace, db, self.time, &self.limits, records, report)
    }

    /// Deletes the keys that readers have noted as expired, if the lock is exclusive. If it is shared, `exclude` or
    /// `give_back` does that later. During CLIENT PAUSE the keys stay, and the notes are forgotten; in a replica too,
    /// where the DELs come from the primary.
    #[inline]
    pub fn delete_noted(&mut self) {
        if self.report.has_notes() {
            self.delete_or_forget_noted();
        }
    }

    fn delete_or_forget_noted(&mut self) {
        self.report.forget_notes_if(|| self.server.pause.is_on() || self.server.primary.is_set());
        if matches!(self.guard, Guard::Exclusive(_)) {
            // Each note names its database, so this one does not matter.
            self.view_mut(0).delete_noted();
        }
    }

    /// Releases the lock and waits until the log holds what the replies say. Afterwards no lock
    /// is held, what was published is on its way, and the replies may leave.
    pub fn finish(&mut self, client: &mut Client, reply: &mut Reply) {
        // Steps 1 to 3.
        self.give_back();
        // What was published without a lock.
        self.tell();
        // A reply waits until the log holds what its command has changed or seen. The one exception: if the log has
        // failed, it may never hold that. Then a batch that has recorded nothing is answered, and its messages
        // are sent, because otherwise nobody could read.
        let committed = match std::mem::take(&mut self.has_recorded) {
            false if self.server.aof.failure().is_some() => Ok(()),
            _ => self.server.aof.commit(self.position),
        };
        let failure = committed.err().map(|cause| Error::misconf(&cause));
        if let Some(error) = &failure {
            self.retract(error, reply);
        }
        // Now the log holds what was done before the messages and before the answers to waiting clients.
        if std::mem::take(&mut self.has_told) {
            self.server.hub.send(self.position, client.outbox.is_some(), &mut client.sent);
        }
        self.deliver(client, failure.as_ref());
        // For one batch, PUBLISH remembers which receivers it has waited for (handler/pubsub.rs).
        client.waited_for.clear();
        self.retractable.clear();
        self.add_counts(client);
    }

    /// Adds what the views have counted to what all may see.
    pub fn add_counts(&mut self, client: &Client) {
        let counters = &client.public.counters;
        counters.add(Count::Hits, self.report.hits.take());
        counters.add(Count::Misses, self.report.misses.take());
        add(&self.server.stats.expired_keys, self.report.deleted.take());
        add(&self.server.stats.evicted_keys, self.report.evicted.take());
    }
}
