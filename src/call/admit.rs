//! Whether a command may run now, and what happens if not.
//!
//! The handler looks at the arguments, and [`crate::handler::Table::look_up`] has checked their number.
//! The other reasons to refuse a command are here, in Redis's order:
//!
//! 1. DEBUG or MODULE is not allowed; the client has not given the password.
//! 2. SHUTDOWN is to be queued by MULTI.
//! 3. `maxmemory` is exceeded, nothing can be evicted, and the command would take more (call/room.rs).
//! 4. The log cannot be written, or replicas are missing, and the command would write.
//! 5. We are a replica, and the command would write.
//! 6. The client has subscribed in RESP2, where a reply looks like a message.
//! 7. We are a replica without its primary, and `replica-serve-stale-data` is `no`.
//! 8. The log is still being loaded.
//! 9. A script has been running for too long (store/shared.rs).
//! 10. The client is a replica or a monitor, and the command would look at the data.
//!
//! What is not refused may still have to wait, because of CLIENT PAUSE (server/pause.rs), and inside MULTI it
//! is queued.
//!
//! If a command is refused inside MULTI, EXEC will refuse the whole transaction.
//!
//! **How Redis does it**: the first two hundred lines of `processCommand` in server.c, which also
//! look after cluster slots and replicas.

use super::Caller;
use crate::client::{Client, Then};
use crate::error::Error;
use crate::handler::{Command, Flag, Row, Run, TABLE, debug};
use crate::held::End;
use crate::propagate::Source;
use crate::resp::{Args, Protocol, Reply};
use crate::server::pause::Paused;
use crate::server::{NO_ROW, Others};
use crate::store::Busy;
use std::sync::atomic::Ordering;

/// Why a command is not called.
pub enum Refusal {
    /// Its client is told.
    Error(Error),
    /// It is called again when the pause is over.
    Postponed { row: &'static Row, writes: bool },
    /// A script is busy.
    Busy,
    /// It was a script, and its client has been told of an error.
    Told,
}

impl From<Busy> for Refusal {
    fn from(_: Busy) -> Refusal {
        Refusal::Busy
    }
}

impl From<Error> for Refusal {
    fn from(error: Error) -> Refusal {
        Refusal::Error(error)
    }
}

impl Caller<'_> {
    pub fn admit(
        &mut self,
        row: &'static Row,
        client: &Client,
        args: &Args,
        protocol: Protocol,
    ) -> Result<(), Refusal> {
        let command = row.command;
        if self.batch.time.source != Source::Client {
            // (`replica-ignore-maxmemory no`.)
            if self.out_of_memory && command.is(Flag::DenyOom) {
                self.note_failure(row, args, Error::OutOfMemory);
                return Err(Error::OutOfMemory.into());
            }
            return Ok(());
        }
        if command.is(Flag::Protected) {
            debug::check_protected(command, client)?;
        }
        if client.owes_password() && !command.is(Flag::NoAuth) {
            return Err(Error::NoAuth.into());
        }
        if client.transaction.is_some() && command.is(Flag::NoMulti) {
            return Err(Error::NotInTransaction.into());
        }
        if self.batch.server.config.maxmemory.get() > 0 && self.lacks_memory(row, client, args) {
            return Err(Error::OutOfMemory.into());
        }
        // PING too, as in Redis, because people use it to ask whether all is well.
        let writes = writes(row, client) || command.name == "ping";
        if writes && let Some(error) = self.batch.server.why_no_writes(command.name != "ping") {
            return Err(error.into());
        }
        if client.is_subscribed()
            && protocol == Protocol::Resp2
            && !command.is(Flag::WhileSubscribed)
        {
            return Err(Error::SubscribedOnly(command.name).into());
        }
        self.unless_unable(command)?;
        if client.is_replica && (command.uses_data() || command.is(Flag::MayReplicate)) {
            return Err(Error::NotForReplicas.into());
        }
        self.unless_paused(row, client, args)
    }

    /// Refuses the command if nobody may run it at present.
    #[inline(always)]
    fn unless_unable(&self, command: &Command) -> Result<(), Refusal> {
        let server = self.batch.server;
        if server.primary.hides_data(&server.config) && !command.works_while_stale() {
            return Err(Error::PrimaryDown.into());
        }
        if !command.works_while_loading() && server.is_loading() {
            return Err(Error::Loading.into());
        }
        if self.batch.store.is_busy() && !command.is(Flag::AllowBusy) {
            return Err(Refusal::Busy);
        }
        Ok(())
    }

    /// Postpones the command if there is a pause. A writer looks again when it has its lock. So does REPLICAOF keep back those
    /// who came before it and have the lock after it: what they write would be missing at the primary.
    #[inline(always)]
    pub fn unless_paused(
        &self,
        row: &'static Row,
        client: &Client,
        args: &Args,
    ) -> Result<(), Refusal> {
        let server = self.batch.server;
        match server.pause.what() {
            Paused::Nothing if server.primary.is_set() => self.unless_replica(row, client),
            Paused::Nothing => Ok(()),
            _ => self.unless_paused_for(row, client, args),
        }
    }

    #[cold]
    fn unless_replica(&self, row: &'static Row, client: &Client) -> Result<(), Refusal> {
        let server = self.batch.server;
        let is_free = client.in_exec || self.batch.time.source != Source::Client;
        match !is_free && writes(row, client) && server.primary.forbids_writes(&server.config) {
            // When it is called again, it is refused.
            true => Err(Refusal::Postponed { row, writes: true }),
            false => Ok(()),
        }
    }

    #[cold]
    fn unless_paused_for(
        &self,
        row: &'static Row,
        client: &Client,
        args: &Args,
    ) -> Result<(), Refusal> {
        let is_free =
            client.in_exec || client.is_replica || self.batch.time.source != Source::Client;
        let writes = may_replicate(row, client, args);
        if is_free || self.batch.server.pause.left(writes).is_none() {
            return Ok(());
        }
        Err(Refusal::Postponed { row, writes })
    }

    /// A command that was called has failed, or was refused. Returns false if it is as if it had not been called.
    pub fn settle(
        &mut self,
        refusal: Refusal,
        row: &Row,
        client: &mut Client,
        args: &Args,
        begin: usize,
        reply: &mut Reply,
    ) -> bool {
        match refusal {
            Refusal::Told => true,
            Refusal::Error(error) => {
                reply.out.truncate(begin);
                reply.error(&error);
                if self.batch.time.source != Source::Client {
                    self.note_failure(row, args, error);
                }
                true
            }
            Refusal::Postponed { row, writes } => {
                self.postpone(row, writes, client);
                false
            }
            Refusal::Busy => {
                reply.out.truncate(begin);
                self.reject(&Error::Busy, client, args, reply);
                false
            }
        }
    }

    /// Leaves the command to be called again when the pause is over.
    pub fn postpone(&mut self, row: &Row, writes: bool, client: &mut Client) {
        self.account.last_row = Some(row.index);
        client.then = Then::Pause { writes };
    }

    /// Cuts off a replica whose command has been answered, because it takes all that it is sent for the stream.
    #[cold]
    pub fn cut_off_replica(&self, client: &mut Client, args: &Args) {
        let command = args[0].escape_ascii();
        let text = format!("replica generated a reply to command '{command}', disconnecting it");
        client.notices.push(text);
        client.public.held.kill(End::Killed);
    }

    /// Queues a command inside MULTI.
    pub fn queue(&mut self, row: &Row, client: &mut Client, args: &Args, reply: &mut Reply) {
        let has_lost = client.public.watch_flag.load(Ordering::Relaxed);
        let denies_oom = match row.command.run {
            Run::Script(form) => form.denies_oom(&client.server.scripts, args),
            _ => row.command.is(Flag::DenyOom),
        };
        if let Some(transaction) = &mut client.transaction {
            transaction.writes |= row.command.writes();
            transaction.denies_oom |= denies_oom;
            transaction.has_script |= matches!(row.command.run, Run::Script(_));
            // As in Redis: what EXEC will refuse need not be kept.
            if !transaction.aborted && !has_lost {
                let args = args.to_owned();
                transaction.args_length += args.length() + args.len() * size_of::<usize>();
                transaction.charge.add(args.memory());
                transaction.queue.push((row.index, args));
            }
        }
        self.account.last_row = Some(row.index);
        reply.status("QUEUED");
    }

    /// Answers with the error. An open transaction will be refused by EXEC; if it is EXEC that is refused,
    /// the transaction is over.
    pub fn reject(&mut self, error: &Error, client: &mut Client, args: &Args, reply: &mut Reply) {
        let row = TABLE.named_by(args);
        match row {
            Some(row) => self.account.count_rejected(row.index),
            None if [&b"post"[..], b"host:"]
                .iter()
                .any(|word| args[0].eq_ignore_ascii_case(word)) =>
            {
                // A web page has made a browser send us a form. Its next line must not be run.
                client.then = Then::Drop;
                return;
            }
            None => {
                self.account.last_row = Some(NO_ROW);
            }
        }
        if row.is_some_and(|row| matches!(row.command.run, Run::Exec)) {
            client.transaction = None;
            self.unwatch(client);
            return reply.error(&Error::exec_abort_because(error));
        }
        if let Some(transaction) = &mut client.transaction {
            transaction.aborted = true;
        }
        reply.error(error);
    }
}

impl Command {
    /// Whether it is answered while the log loads. Commands on data are not. INFO and WATCH are: until the load ends
    /// they see an empty keyspace.
    pub fn works_while_loading(&self) -> bool {
        // A container without a handler never runs: its subcommands do. COMMAND shows it as one that would be
        // refused, as in Redis.
        let never_runs = matches!(self.run, Run::Container(None));
        !self.uses_data() && !never_runs && !self.is(Flag::NotLoading)
    }

    /// Whether a replica without its primary answers it if `replica-serve-stale-data` is `no`.
    fn works_while_stale(&self) -> bool {
        self.works_while_loading() || self.is(Flag::Stale)
    }
}

fn writes(row: &Row, client: &Client) -> bool {
    match row.command.run {
        Run::Exec => client.transaction.as_ref().is_some_and(|t| t.writes),
        // (DEBUG SLEEP only wants to be alone.)
        _ => row.command.writes() && !row.command.is(Flag::Protected),
    }
}

/// Whether replicas may have to hear of the command: if it writes or publishes, or is an EXEC of such commands.
fn may_replicate(row: &Row, client: &Client, args: &Args) -> bool {
    let scripts = &client.server.scripts;
    let may = |row: &Row, args: &Args| {
        let only_reads = match row.command.run {
            Run::Script(form) => form.only_reads(form.flags(scripts, args)),
            _ => false,
        };
        (row.command.writes() || row.command.is(Flag::MayReplicate)) && !only_reads
    };
    match (row.command.run, &client.transaction) {
        (Run::Exec, Some(transaction)) => {
            transaction.queue.iter().any(|(index, args)| may(&TABLE.rows[*index], args))
        }
        _ => may(row, args),
    }
}

/// Whose commands come before this one.
pub(super) fn others_before(row: &Row) -> Others {
    match row.group {
        "pubsub" => Others::Subscribers,
        _ if row.command.is(Flag::Blocks) => Others::Older,
        _ => Others::All,
    }
}
