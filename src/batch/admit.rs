//! At the door of a batch: whether a command may run now, and what happens if not.
//!
//! The reasons have nothing to do with the command's arguments, which its handler looks at, nor
//! with its arity, which [`crate::handler::Table::look_up`] has checked. In Redis's order:
//!
//! 1. DEBUG is not allowed; the client has not given the password.
//! 2. The log cannot be written, and the command would write.
//! 3. The client has subscribed in RESP2, where a reply looks like a message.
//! 4. The log is still being loaded.
//! 5. The client is a monitor, and the command would look at the data.
//! 6. SHUTDOWN is to be queued by MULTI.
//!
//! A command that is refused inside MULTI spoils the transaction: EXEC will refuse the rest of it.
//!
//! **How Redis does it**: the first two hundred lines of `processCommand` in server.c, which also
//! look after memory limits, cluster slots and replicas.

use super::Batch;
use crate::client::{Client, Then};
use crate::error::Error;
use crate::handler::{Command, Row, Run, TABLE, debug, works_while_loading};
use crate::resp::{Args, Reply};
use crate::stats::Count;
use std::sync::atomic::Ordering;

impl Batch<'_> {
    /// Whether the command may run now, for reasons that have nothing to do with its arguments.
    pub(super) fn admit(&self, row: &Row, client: &Client) -> Result<(), Error> {
        let command = row.command;
        if command.name.starts_with("debug") && !debug::is_allowed(client) {
            return Err(Error::DebugNotAllowed);
        }
        if client.owes_password() && !matches!(command.name, "auth" | "hello" | "quit" | "reset") {
            return Err(Error::NoAuth);
        }
        if self.replaying {
            return Ok(());
        }
        // PING is how people ask whether all is well, so it too says what is not; as in Redis.
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
        if client.public.monitoring.load(Ordering::Relaxed) && uses_data(command) {
            return Err(Error::NotForMonitors);
        }
        if client.transaction.is_some() && command.name == "shutdown" {
            return Err(Error::NotInTransaction);
        }
        Ok(())
    }

    /// Answers with the error; a transaction that is open is spoilt by it, or, by EXEC's own, over.
    pub(super) fn reject(
        &mut self,
        error: &Error,
        client: &mut Client,
        args: &Args,
        reply: &mut Reply,
    ) {
        let is_exec = args[0].eq_ignore_ascii_case(b"exec");
        if let Error::UnknownCommand(words) = error
            && [&b"post"[..], b"host:"]
                .iter()
                .any(|word| words[0].eq_ignore_ascii_case(word))
        {
            // A browser has been tricked into sending us a form: it must not get a second line in.
            client.then = Then::Drop;
            return;
        }
        match TABLE.named_by(args) {
            Ok(row) => self.account.count_rejected(row.index),
            Err(_) => client.public.counters.add(Count::ErrorReplies, 1),
        }
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
}

/// What a client may not say that has become a monitor, which in Redis is a kind of replica.
fn uses_data(command: &Command) -> bool {
    matches!(command.run, Run::Read(_) | Run::Write(_)) || command.name == "publish"
}

/// What a RESP2 client may say while it is subscribed: its replies cannot be told from messages.
fn works_while_subscribed(name: &str) -> bool {
    matches!(
        name,
        "subscribe" | "unsubscribe" | "psubscribe" | "punsubscribe" | "ping" | "quit" | "reset"
    )
}
