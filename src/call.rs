//! How a command is called: looked up, admitted, queued or run, and accounted for.
//!
//! ```text
//! look_up ─▶ admit ─┬─▶ reject             it may not run: the error is the reply (call/admit.rs)
//!                   ├─▶ postpone           CLIENT PAUSE: it is called again when the pause is over
//!                   ├─▶ queue              inside MULTI: EXEC will call it
//!                   └─▶ call ─ before      the account is told (call/account.rs)
//!                         ├─ run_handler   under the lock that the handler's type asks for
//!                         │    └─ exec     calls each of its queue, under one lock; EVAL: call/script.rs
//!                         └─ after         counts it; slow log, trace, monitors
//! ```
//!
//! A [`Caller`] calls the commands that one client has sent at once. What is the same for all handlers is done here:
//! whether the client may send the command, whether MULTI queues it, which lock it needs, whether it has changed
//! something, how long it took. The lock, the time and the log belong to the [`Batch`] (batch.rs). A handler cannot
//! lock the keyspace: it is given a view, and only the batch has the lock. EXEC calls its queue in the same way,
//! under the strictest lock that any of it needs. A command that takes long gives the lock back between its pieces,
//! and lets a writer in (call/long.rs). A replay calls the commands of the log (call/replay.rs).
//!
//! **How Redis does it**: server.c, `processCommand` and `call`; multi.c, `execCommand`.

mod account;
mod admit;
mod ahead;
mod follow;
mod long;
mod migrate;
mod replay;
mod room;
mod script;

pub use follow::{Applier, can_follow};
pub use replay::{can_replay, load, replay, replay_under_lock};

use crate::batch::Batch;
use crate::client::{Client, Replies, Then, Transaction};
use crate::error::Error;
use crate::handler::{Flag, Row, Run, TABLE, sort, transactions};
use crate::propagate::Source;
use crate::resp::{Args, Reply};
use crate::server::Server;
use crate::store::Store;
use account::Account;
use admit::Refusal;

/// A command that has arrived, and what is found out about it before a lock is held.
#[derive(Default)]
pub struct Arrived {
    pub args: Args,
    /// The row that it calls. None if the command is unknown or its arity is wrong.
    pub row: Option<&'static Row>,
}

impl Arrived {
    /// Finds the row, and the digests of the keys.
    pub fn look_up(&mut self) {
        self.will_call(TABLE.look_up(&self.args));
    }

    /// That is its row. The digests are computed now, while nobody waits for us.
    fn will_call(&mut self, row: Option<&'static Row>) {
        self.row = row;
        if let Some(row) = row {
            self.args.know_keys(row.command.keys.places(self.args.len()));
        }
    }
}

/// Calls the commands that one client has sent at once, then the next ones.
pub struct Caller<'a> {
    pub batch: Batch<'a>,
    account: Account,
    /// What has failed in the record that is replayed (call/replay.rs).
    failure: Option<replay::Failure>,
    /// Whether there was no room for the last command that asked for it (call/room.rs).
    out_of_memory: bool,
}

impl<'a> Caller<'a> {
    pub fn new(server: &'a Server, store: &'a Store, source: Source) -> Caller<'a> {
        let batch = Batch::new(server, store, source);
        Caller { batch, account: Account::new(), failure: None, out_of_memory: false }
    }

    /// Begins to run commands that have arrived. Nothing is locked yet.
    pub fn begin(&mut self) {
        self.account.begin();
        self.batch.begin(self.account.has_trace());
    }

    /// Runs one command, or queues it inside MULTI, and appends its reply.
    pub fn execute(&mut self, arrived: &mut Arrived, client: &mut Client, reply: &mut Reply) {
        let Arrived { args, row, .. } = arrived;
        let begin = reply.out.mark();
        // The command before this one was CLIENT REPLY SKIP.
        if client.replies == Replies::SkipNext {
            client.replies = Replies::SkipThis;
        }
        let row = row.ok_or_else(|| TABLE.why_not_found(args).into());
        match row.and_then(|row| self.admit(row, client, args, reply.protocol).map(|()| row)) {
            Ok(row) if client.transaction.is_some() && !row.command.is(Flag::NotQueued) => {
                self.queue(row, client, args, reply);
            }
            Ok(row) => self.call(row, client, args, reply),
            Err(Refusal::Error(error)) => self.reject(&error, client, args, reply),
            Err(Refusal::Postponed { row, writes }) => self.postpone(row, writes, client),
            // Busy: a script has held the keyspace for too long.
            Err(_) => self.reject(&Error::Busy, client, args, reply),
        }
        if client.is_replica && !client.monitoring && reply.out.mark() != begin {
            self.cut_off_replica(client, args);
        }
        let is_silent = matches!(client.replies, Replies::Off | Replies::SkipThis);
        // (SUBSCRIBE is answered even under CLIENT REPLY OFF.)
        if is_silent && !std::mem::take(&mut client.must_reply) {
            reply.out.truncate(begin);
            // A reply that is not sent must not become an error either, if the log fails (batch/retract.rs).
            self.batch.forget_replies_from(begin);
        }
        // A postponed command will be called again, and its reply is skipped then.
        if client.replies == Replies::SkipThis && !matches!(client.then, Then::Pause { .. }) {
            client.replies = Replies::On;
        }
    }

    /// Runs a command that has been admitted. The account is told before and after.
    fn call(&mut self, row: &'static Row, client: &mut Client, args: &Args, reply: &mut Reply) {
        let mut seen = self.account.before(row, reply, &mut self.batch);
        if row.command.is(Flag::ComesAfterOthers) && !client.in_exec {
            // CLIENT LIST must count what others have sent before, and BLPOP must not overtake an older BLPOP. So
            // such a command waits until what the others have sent is done, for a tenth of a second at most
            // (server/order.rs).
            self.batch.give_back();
            self.batch.server.wait_for_others(&client.public, admit::others_before(row));
        }
        self.batch.begin_command(row.command, client.in_exec);
        if row.command.is(Flag::ShowsCounters) {
            self.account.add_counts(&self.batch.server.stats, &client.public.counters);
            self.batch.add_counts(client);
            self.batch.server.stats.count_errors(&mut reply.errors);
        }
        let begin = reply.out.mark();
        if let Err(refusal) = self.run_handler(row, client, args, reply) {
            seen.failed = true;
            // Answers with the error. A command that was put off, or found a script busy, counts as not called.
            if !self.settle(refusal, row, client, args, begin, reply) {
                return;
            }
        }
        if self.batch.time.source != Source::Log {
            self.account.after(row, client, args, reply, &mut self.batch, seen);
        }
        // If the command has made a key for which a client waits in BLPOP, that client is served now; inside EXEC,
        // when EXEC is over.
        self.batch.serve_waiting(client);
    }

    /// Runs the handler under the lock that its type asks for.
    fn run_handler(
        &mut self,
        row: &'static Row,
        client: &mut Client,
        args: &Args,
        reply: &mut Reply,
    ) -> Result<(), Refusal> {
        // For speed alone, if the command has many keys, such as MGET.
        ahead::lock_and_warm_keys(&mut self.batch, row, client.db, args)?;
        let result = match row.command.run {
            Run::Read(handler) => {
                self.batch.share()?;
                handler(&self.batch.view(client.db), args, reply)
            }
            Run::Long(handler) => Ok(self.run_long(handler, client, args, reply)?),
            Run::MayStore(handler, _) if !sort::may_store(args) => {
                Ok(self.run_long(handler, client, args, reply)?)
            }
            Run::Mixed(handler) => {
                // As `share`, but a few commands look even while a script is busy.
                self.batch.share_for(row.command)?;
                handler(client, &self.batch.view(client.db), args, reply)
            }
            Run::Client(handler) | Run::Container(Some(handler)) => {
                // If it is PUBLISH, its message is gathered, and sent when the log holds all before it.
                self.batch.run_and_gather(client, |client| handler(client, args, reply))
            }
            Run::Write(handler) | Run::MayStore(_, handler) => {
                self.batch.exclude()?;
                // CLIENT PAUSE may have come while this thread waited for the lock. (It stops no EXEC in the middle.)
                self.unless_paused(row, client, args)?;
                // Without the `delete_noted` below, because the view has deleted what it found expired.
                return Ok(self.batch.write(handler, client, &row.as_logged(args), reply)?);
            }
            Run::Exec => {
                // The strictest lock that any command of the queue needs.
                match client.transaction.as_ref().is_some_and(Transaction::excludes) {
                    true => self.batch.exclude()?,
                    false => self.batch.share()?,
                }
                self.unless_paused(row, client, args)?;
                self.exec(client, reply)
            }
            Run::Script(script) => return self.run_script(row, script, client, args, reply),
            Run::Migrate => Ok(self.migrate(row, client, args, reply)?),
            Run::Container(None) => unreachable!("arity -2: there is a subcommand, or an error"),
        };
        self.batch.delete_noted();
        Ok(result?)
    }

    /// Runs the queue, under one lock, so nothing of other clients comes between its commands.
    fn exec(&mut self, client: &mut Client, reply: &mut Reply) -> Result<(), Error> {
        let begin = reply.out.mark();
        let Transaction {
            queue,
            aborted,
            args_length,
            // Kept, because until the queue has run its memory counts as the client's.
            charge: _charge,
            ..
        } = client.transaction.take().ok_or(Error::ExecWithoutMulti)?;
        // Whoever changed a watched key has raised a flag. A key that has expired since WATCH counts as changed too.
        let changed = transactions::has_watched_changed(client, &self.batch.view(client.db));
        self.unwatch(client);
        if aborted {
            return Err(Error::ExecAbort);
        }
        if changed {
            reply.nil_array();
            return Ok(());
        }
        self.batch.begin_unit();
        client.begin_exec(queue.len(), args_length);
        reply.array(queue.len());
        let mut dirty = 0;
        for (index, args) in queue {
            let row = &TABLE.rows[index];
            // The output is thrown away if the client is being ended. Then commands that only read are skipped,
            // and those that write still run.
            if reply.out.is_thrown_away() && row.command.reads() {
                continue;
            }
            self.call(row, client, &args, reply);
            dirty += self.batch.dirty;
        }
        self.batch.dirty = dirty;
        client.in_exec = false;
        self.batch.end_unit(begin..reply.out.mark());
        Ok(())
    }

    /// Ends all watches of the client. Takes the shared lock if there are any.
    pub fn unwatch(&mut self, client: &mut Client) {
        if !client.watched.is_empty() {
            // Even while a script is busy.
            self.batch.share_anyway();
            transactions::unwatch_all(client, &self.batch.view(client.db));
        }
    }

    /// Ends the batch: the lock is given back, the log holds what the replies say, and they may leave.
    pub fn finish(&mut self, client: &mut Client, reply: &mut Reply) {
        // The last commands get their time first, because to wait for the log is no work of theirs.
        self.account.measure(&mut self.batch.clock);
        self.batch.finish(client, reply);
        client.update_public(reply.protocol, self.account.last_row);
        self.account.add_counts(&self.batch.server.stats, &client.public.counters);
        self.account.write_trace(client, &self.batch);
    }
}
