//! MIGRATE: keys move to another server. Nobody else waits for the network.
//!
//! ```text
//! ╔ K  shared      DUMP of each key that is there, and from now on it is watched, as by WATCH
//! ╚                the lock is given back
//!                  RESTORE … ──▶ the target;  +OK +OK ◀──      for as long as `timeout` allows
//! ╔ K  exclusive   DEL of the keys that the target has confirmed and nobody has changed: the command that is logged
//! ╚
//! ```
//!
//! **What if somebody writes a key meanwhile?** Then the target has the value of before. If the key were deleted here, that
//! write would be lost, though it was acknowledged. So the key stays as it is, and the answer is an error that begins with
//! IOERR. That is what Redis answers when it does not know what the target has done. To its clients the word means: the key may
//! be on both servers; look, and say MIGRATE again, with REPLACE. The same is true if the keys cannot be deleted here:
//! the disk has failed, or a script is busy, CLIENT PAUSE has come, or we have become a replica. (A key that has expired
//! meanwhile needs no DEL: it expires there, too.) Readers find the key here until it is deleted, as if the move had come later.
//!
//! **In an EXEC and in a script** the lock is kept, because nothing may come between their commands. So all others wait, as
//! they do in Redis for each MIGRATE. They do not wait for longer than for a script: all of it must be done within
//! `busy-reply-threshold`, or the answer is IOERR.
//!
//! A log or a primary never says MIGRATE: their record is the DEL.
//!
//! **How Redis does it**: `migrateCommand` in cluster.c. Everybody waits for the network, so nothing can change.

use super::Caller;
use super::admit::Refusal;
use crate::client::Client;
use crate::error::Error;
use crate::handler::dump::migrate::{Moving, Order};
use crate::handler::{Row, generic};
use crate::held::Charge;
use crate::resp::{Args, Reply};
use crate::server::targets::{Answers, Patience, Transfer};
use std::time::{Duration, Instant};

const CHANGED: Error = Error::Fixed(
    "IOERR a key was changed here while it was migrated. It was not deleted here, and the target instance has its \
     old value",
);
const NOT_DELETED: Error = Error::Fixed(
    "IOERR the target instance has the keys, but at present nothing can be deleted here",
);

impl Caller<'_> {
    pub(super) fn migrate(
        &mut self,
        row: &'static Row,
        client: &mut Client,
        args: &Args,
        reply: &mut Reply,
    ) -> Result<(), Refusal> {
        let order = Order::parse(args)?;
        self.batch.share()?;
        let mut commands = Vec::new();
        let moving = order.pack(&self.batch.view(client.db), args, &mut commands);
        if moving.is_empty() {
            reply.status("NOKEY");
            return Ok(());
        }
        let copies = order.copies;
        let answers = self.transfer(order, commands, moving.len(), client);
        let begin = reply.out.mark();
        self.batch.begin_unit();
        let deleted = match copies {
            true => Ok(()),
            false => self.delete_moved(row, client, args, &moving, &answers.confirmed),
        };
        let result = answers.error.map_or(deleted, Err).and_then(|()| reply.ok());
        self.batch.end_unit(begin..reply.out.mark());
        Ok(result?)
    }

    /// Sends the commands, and waits for the answers to so many of them.
    fn transfer(
        &mut self,
        order: Order,
        commands: Vec<u8>,
        count: usize,
        client: &Client,
    ) -> Answers {
        let server = self.batch.server;
        let mut charge = Charge::new(&client.public.held);
        charge.add(commands.len());
        let longest = server.config.busy_reply_threshold.get() as u64;
        let is_limited = client.in_exec && longest > 0;
        let end = || Instant::now().checked_add(Duration::from_millis(longest));
        let until = is_limited.then(end).flatten();
        let patience = Patience { idle: order.timeout, until };
        let Order { address, login, db, .. } = order;
        if !client.in_exec {
            self.give_back_midway();
            client.public.turns.set_aside(true);
        }
        let transfer = Transfer { address, patience, login, db, count, commands };
        let answers = server.targets.send(&transfer);
        client.public.turns.set_aside(false);
        // As in Redis, the time of the network is the command's.
        self.batch.clock.read();
        answers
    }

    /// Deletes the keys that the target has, by a DEL of these, and ends their watching.
    fn delete_moved(
        &mut self,
        row: &'static Row,
        client: &mut Client,
        args: &Args,
        moving: &[Moving],
        confirmed: &[bool],
    ) -> Result<(), Error> {
        let server = self.batch.server;
        let may_delete = client.in_exec
            || self.batch.exclude().is_ok()
                && server.why_no_writes(true).is_none()
                && self.unless_paused(row, client, args).is_ok();
        let mut result = Ok(());
        let mut del = Args::default();
        del.push(b"DEL");
        for (key, _) in moving.iter().zip(confirmed).filter(|(_, confirmed)| **confirmed) {
            if may_delete && key.is_unchanged() {
                del.push(&args[key.place]);
            } else if !key.has_expired(self.batch.time.now) {
                result = Err(if may_delete { CHANGED } else { NOT_DELETED });
            }
        }
        if del.len() > 1 {
            // It cannot fail.
            let _ = self.batch.write(generic::del, client, &del, &mut Reply::new());
        }
        // Even while a script is busy.
        self.batch.share_anyway();
        let view = self.batch.view(client.db);
        moving.iter().for_each(|key| key.end(&view, args));
        result
    }
}
