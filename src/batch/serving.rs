//! A client begins to wait for a key, and whoever makes the key serves it (store/blocking.rs).
//!
//! All of it happens under the exclusive lock of the command, so nothing comes between:
//!
//! ```text
//! BLPOP k    finds nothing ─▶ block_if_it_waits: joins the queue
//! RPUSH k e  handler ─▶ its record ─▶ serve_waiting: is the client still there? ─▶ LPOP k, its record
//!            ─▶ the lock is given back ─▶ the log is written ─▶ both replies leave (server/mailbox.rs)
//! ```
//!
//! Each pop is a unit of the log after that of the command, or of the EXEC, that made the key ready. A log
//! that ends between the two has the element in the list, and nobody was told that it is gone.
//!
//! Nothing is popped for a client that has left. Its thread may not have noticed that yet, so its socket is
//! looked at. (The client may still leave before the answer arrives. Redis cannot know that either.)
//!
//! **How Redis does it**: blocked.c, `serveClientBlockedOnList`, called from `processCommand`.

use super::{Batch, Guard};
use crate::client::{Client, Replies, Then, memory_of};
use crate::error::Error;
use crate::handler::TABLE;
use crate::held::Charge;
use crate::key::Key;
use crate::propagate::Source;
use crate::resp::{Args, Reply};
use crate::server::mailbox::{Answer, Recipient};
use crate::server::{Blocked, Public};
use crate::stats::Count;
use crate::store::{Blocking, Waiter};
use std::time::Instant;

impl Batch<'_> {
    /// If the command waits, its batch ends. From `begin` on the reply has what it answers if it may not
    /// wait. That is taken back.
    pub(super) fn block_if_it_waits(
        &mut self,
        client: &mut Client,
        args: &Args,
        reply: &mut Reply,
        begin: usize,
    ) {
        let wait = self.report.wait.take();
        let may_wait = !client.in_exec && self.time.source == Source::Client;
        let Some(wait) = wait.filter(|_| may_wait) else {
            return;
        };
        reply.out.truncate(begin);
        let deadline = wait.timeout.and_then(|timeout| Instant::now().checked_add(timeout));
        let mut charge = Charge::new(&client.public.held);
        charge.add(args.memory());
        wait.keys.clone().for_each(|i| charge.add(memory_of(&args[i])));
        let waiter = Waiter {
            client: client.public.id,
            db: client.db,
            wait: *wait,
            args: args.to_owned(),
            protocol: reply.protocol,
            silent: client.replies != Replies::On,
            deadline,
            _charge: charge,
        };
        self.server.clients.block(&client.public, Blocked::Key);
        if let Some(blocking) = self.blocking() {
            client.then = Then::Block(blocking.join(waiter));
        }
    }

    /// Serves the clients that wait for what the last command, or EXEC, has made ready.
    pub fn serve_waiting(&mut self, client: &mut Client) {
        if client.in_exec {
            // EXEC is not over.
            return;
        }
        while let Some((db, key)) = self.blocking().and_then(Blocking::next_ready) {
            // A key may have expired since the command, or the transaction, began.
            self.clock.read();
            self.time.now = self.clock.now / 1000;
            let key = Key::of(&key);
            let mut after = 0;
            while let Some(blocking) = self.blocking()
                && let Some((number, waiter)) = blocking.next(db, &key, after)
            {
                after = number;
                let found = self.view_mut(db).peek(key).map(|entry| entry.value().type_name());
                match found {
                    None => break,
                    Some(name) if name == waiter.wait.wanted => {}
                    Some(_) => continue,
                }
                let to = self.server.clients.find(waiter.client).and_then(Recipient::if_there);
                let Some(to) = to.filter(|to| self.unblock(&to.client)) else {
                    continue;
                };
                let reply = self.serve(&waiter, key);
                client.answers.push(Answer { to, reply, is_logged: true });
            }
        }
    }

    /// Pops for a client, as a unit of the log.
    fn serve(&mut self, waiter: &Waiter, key: Key) -> Reply {
        let mut reply = Reply::new();
        reply.protocol = waiter.protocol;
        self.report.begin_command(false);
        self.begin_unit();
        let mut view = self.view_mut(waiter.db);
        let result = (waiter.wait.serve)(&mut view, key, &waiter.args, &mut reply);
        view.end(&waiter.args);
        if let Err(error) = result {
            let row = TABLE.recorded(&waiter.args).map(|row| row.index);
            self.server.stats.count_failed(row);
            reply.out.truncate(0);
            reply.error(&error);
        }
        // This batch's own replies say nothing of it. What the waiting client is told, `deliver` changes.
        self.end_unit(0..0);
        if waiter.silent {
            reply.out.truncate(0);
        }
        reply
    }

    /// Takes a client out of the queues, from its own thread. Returns false if it is in none, because another
    /// thread answers it.
    pub fn stop_waiting(&mut self, client: &Client) -> bool {
        self.share_anyway();
        let was_there = self.view(client.db).stop_waiting(client.public.id).is_some();
        self.give_back();
        was_there && self.server.clients.unblock(&client.public, Blocked::Key)
    }

    /// Answers all clients that wait for a key with this error.
    pub fn unblock_all(&mut self, client: &mut Client, error: &Error) {
        self.share_anyway();
        for other in self.server.clients.all() {
            if let Some(waiter) = self.view(client.db).stop_waiting(other.id)
                && self.server.clients.unblock(&other, Blocked::Key)
            {
                let mut reply = Reply::new();
                if !waiter.silent {
                    reply.error(error);
                }
                let to = Recipient { client: other };
                client.answers.push(Answer { to, reply, is_logged: false });
            }
        }
    }

    /// Sends the answers. If the log has failed, the outcome of a pop is unknown.
    pub(super) fn deliver(&self, client: &mut Client, failure: Option<&Error>) {
        for mut answer in client.answers.drain(..) {
            if let Some(error) = failure.filter(|_| answer.is_logged && answer.reply.out.len() > 0)
            {
                answer.reply.out.truncate(0);
                answer.reply.error(error);
            }
            self.server.stats.count_errors(&mut answer.reply.errors);
            let sent = answer.deliver(self.server);
            client.public.counters.add(Count::OutputBytes, sent as u64);
        }
    }

    /// Takes a client out of the queues, to be served.
    fn unblock(&mut self, client: &Public) -> bool {
        let was_there = self.blocking().is_some_and(|blocking| blocking.leave(client.id).is_some());
        was_there && self.server.clients.unblock(client, Blocked::Key)
    }

    /// Those who wait, if the lock is exclusive.
    fn blocking(&mut self) -> Option<&mut Blocking> {
        match &mut self.guard {
            Guard::Exclusive(keyspace) => Some(keyspace.blocking.get_mut().unwrap()),
            _ => None,
        }
    }
}
