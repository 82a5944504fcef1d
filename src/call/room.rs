//! `maxmemory`: whether a command may take more memory.
//!
//! Commands with the flag `denyoom` make room before they run (batch/evicting.rs), and are refused if there is none. So
//! is an EXEC with such a command in its queue, and a script that says in its first line that it writes. Inside MULTI any
//! command is refused, because the queue takes memory. A script that says nothing makes room too, but if there is none it
//! runs until it calls such a command; if it has written by then, it goes on.
//!
//! What a primary says is refused too, with `replica-ignore-maxmemory no`: then the replica lacks it, and a message says so.
//!
//! **How Redis does it**: `processCommand` in server.c, and `scriptVerifyOOM` in script.c.

use super::Caller;
use crate::client::Client;
use crate::handler::{Flag, Row, Run};
use crate::resp::Args;
use crate::server::Others;
use std::sync::atomic::Ordering;

impl Caller<'_> {
    /// Makes room for the command, if it may need any. Returns whether it is refused.
    #[inline(never)]
    pub(super) fn lacks_memory(&mut self, row: &Row, client: &Client, args: &Args) -> bool {
        let server = self.batch.server;
        // Nothing is evicted then. The command is refused for another reason, or touches no key.
        if server.is_loading() || self.batch.store.is_busy() {
            return false;
        }
        let (runs_script, is_denied) = match (row.command.run, &client.transaction) {
            (Run::Exec, Some(transaction)) => (transaction.has_script, transaction.denies_oom),
            // It will be queued.
            (_, Some(_)) => (false, !row.command.is(Flag::NotQueued)),
            (Run::Script(form), None) => (!form.only_loads, form.denies_oom(&server.scripts, args)),
            (_, None) => (false, row.command.is(Flag::DenyOom)),
        };
        // What is queued takes no lock by itself, and a script that reads a shared one. So they take the exclusive one only if
        // memory is exceeded.
        let takes_none = match (row.command.run, &client.transaction) {
            (Run::Exec, _) => false,
            (_, Some(_)) => true,
            (Run::Script(form), None) => form.only_reads(form.flags(&server.scripts, args)),
            (_, None) => false,
        };
        let is_exceeded = || server.eviction.is_exceeded.load(Ordering::Relaxed);
        if !(runs_script || is_denied) || takes_none && !is_exceeded() {
            return false;
        }
        let mut has_room = self.batch.make_room().unwrap_or(true);
        if !has_room && self.batch.has_room_without_clients() {
            // Some of them may have hung up, and their threads are yet to notice it.
            self.batch.give_back();
            server.wait_for_others(&client.public, Others::Holders);
            has_room = self.batch.make_room().unwrap_or(true);
        }
        self.out_of_memory = !has_room;
        !has_room && is_denied
    }

    /// Makes room for a unit of the primary, if we do not leave that to the primary.
    pub(super) fn make_room_for_primary(&mut self) {
        let server = self.batch.server;
        self.out_of_memory = server.config.maxmemory.get() > 0
            && !server.primary.evicts_for_us(&server.config)
            && !self.batch.make_room().unwrap_or(true);
    }

    /// Whether there was no room when the script began, or the EXEC that it is in.
    pub(super) fn is_out_of_memory(&self) -> bool {
        self.out_of_memory && self.batch.server.config.maxmemory.get() > 0
    }
}
