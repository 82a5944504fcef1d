//! Looking ahead: when a batch has taken its lock, it first looks at the key of each of its commands. So
//! the processor waits for the memory of many keys at once (store/ahead.rs).
//!
//! A replay does the same with the records of the log, and a command with many keys does it with those.
//!
//! **How Redis does it**: `prefetchCommands` in memory_prefetch.c, since version 8.

use super::{Arrived, Caller};
use crate::batch::Batch;
use crate::client::Client;
use crate::handler::{Flag, Keys, Row, Run, TABLE};
use crate::resp::Args;
use crate::store::Busy;

/// With fewer keys than this nothing is gained.
const WORTH_IT: usize = 4;

impl Caller<'_> {
    /// Takes the lock that the first of these commands needs, and looks at the first key of each. Does
    /// nothing for a few commands, or if the first needs no lock. If any of them has a field behind its
    /// key, the argument behind every key is looked at too, and where it is not a field that is in vain.
    pub fn lock_and_warm(&mut self, db: usize, arrived: &[Arrived]) {
        let is_worth_it = arrived.len() >= WORTH_IT;
        let first = arrived.first().and_then(|arrived| arrived.row);
        let Some(first) = first.filter(|_| is_worth_it) else {
            return;
        };
        let locked = match first.command.run {
            Run::Read(_) => self.batch.share(),
            Run::Write(_) => self.batch.exclude(),
            _ => return,
        };
        if locked.is_err() {
            return;
        }
        let keyspace = self.batch.keyspace();
        let keyed =
            arrived.iter().filter_map(|arrived| Some((arrived.args.digest()?, &arrived.args)));
        let mut rows = arrived.iter().filter_map(|arrived| arrived.row);
        if rows.any(|row| row.command.is(Flag::ThenField)) {
            keyspace.warm_fields(db, keyed.map(|(digest, args)| (digest, args.iter().nth(2))));
        } else {
            keyspace.warm(db, keyed.map(|(digest, _)| digest));
        }
    }
}

/// Takes the lock of a command that has many keys, and looks at all of them.
pub(super) fn lock_and_warm_keys(
    batch: &mut Batch,
    row: &Row,
    db: usize,
    args: &Args,
) -> Result<(), Busy> {
    let Keys { first, last, step, .. } = row.command.keys;
    if last < 0 && args.len() > WORTH_IT * step as usize {
        match row.command.run {
            Run::Read(_) => batch.share()?,
            Run::Write(_) => batch.exclude()?,
            _ => return Ok(()),
        }
        let keys = args.iter().skip(first as usize).step_by(step as usize);
        batch.keyspace().warm_keys(db, keys);
    }
    Ok(())
}

/// Takes the strictest lock that any command of the queue needs.
pub(super) fn lock_for_queue(batch: &mut Batch, client: &Client) -> Result<(), Busy> {
    let is_script = |(row, _): &(usize, Args)| TABLE.rows[*row].command.is_script();
    match &client.transaction {
        Some(transaction) if transaction.writes || transaction.queue.iter().any(is_script) => {
            batch.exclude()
        }
        _ => batch.share(),
    }
}
