//! Whether a command may run now, and what happens if not.
//!
//! The handler looks at the arguments, and [`crate::handler::Table::look_up`] has checked their number.
//! The other reasons to refuse a command are here, in Redis's order:
//!
//! 1. DEBUG or MODULE is not allowed; the client has not given the password.
//! 2. SHUTDOWN is to be queued by MULTI.
//! 3. The log cannot be written, and the command would write.
//! 4. The client has subscribed in RESP2, where a reply looks like a message.
//! 5. The log is still being loaded.
//! 6. The client is a monitor, and the command would look at the data.
//!
//! If a command is refused inside MULTI, EXEC will refuse the whole transaction.
//!
//! **How Redis does it**: the first two hundred lines of `processCommand` in server.c, which also
//! look after memory limits, cluster slots and replicas.

use super::Caller;
use crate::client::{Client, Then};
use crate::error::Error;
use crate::handler::{Flag, Row, Run, TABLE, debug};
use crate::propagate::Source;
use crate::resp::{Args, Protocol, Reply};
use crate::server::NO_ROW;
use crate::stats::Count;

impl Caller<'_> {
    pub fn admit(&self, row: &Row, client: &Client, protocol: Protocol) -> Result<(), Error> {
        let command = row.command;
        if self.batch.time.source == Source::Log {
            return Ok(());
        }
        if command.is(Flag::Protected) {
            debug::check_protected(command, client)?;
        }
        if client.owes_password() && !command.is(Flag::NoAuth) {
            return Err(Error::NoAuth);
        }
        if client.transaction.is_some() && command.is(Flag::NoMulti) {
            return Err(Error::NotInTransaction);
        }
        // PING too, as in Redis, because people use it to ask whether all is well.
        let writes = match command.run {
            Run::Exec => client.transaction.as_ref().is_some_and(|t| t.writes),
            _ => command.writes() || command.name == "ping",
        };
        if writes && let Some(cause) = self.batch.server.aof.refusal() {
            return Err(Error::misconf(&cause));
        }
        if client.is_subscribed()
            && protocol == Protocol::Resp2
            && !command.is(Flag::WhileSubscribed)
        {
            return Err(Error::SubscribedOnly(command.name));
        }
        if !command.works_while_loading() && self.batch.server.is_loading() {
            return Err(Error::Loading);
        }
        if client.monitoring && (command.uses_data() || command.is(Flag::MayReplicate)) {
            return Err(Error::NotForMonitors);
        }
        Ok(())
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
                client.public.counters.add(Count::ErrorReplies, 1);
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
