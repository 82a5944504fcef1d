//! Looking ahead: when a batch has taken its lock, it first looks at the key of each of its commands. So
//! the processor waits for the memory of many keys at once (store/ahead.rs).
//!
//! A replay does the same with the records of the log, and a command with many keys does it with those.
//!
//! **How Redis does it**: `prefetchCommands` in memory_prefetch.c, since version 8.

use super::{Arrived, Caller};
use crate::batch::Batch;
use crate::client::Client;
use crate::handler::{Flag, Row, Run};
use crate::resp::Args;
use crate::store::Busy;

/// With fewer keys than this nothing is gained.
const WORTH_IT: usize = 4;

impl Caller<'_> {
    /// Takes the lock that the first of these commands needs, and looks at the first key of each. Does
    /// nothing for a few commands, nor if the first takes no lock: MULTI queues it, or the disk fails. If any of
    /// them has a field behind its key, the argument behind every key is looked at too. Where that is not a
    /// field, the look is in vain.
    pub fn lock_and_warm<'a>(&mut self, client: &Client, arrived: &'a [Arrived]) {
        let is_worth_it = arrived.len() >= WORTH_IT && client.transaction.is_none();
        let first = arrived.first().and_then(|arrived| arrived.row);
        let Some(first) = first.filter(|_| is_worth_it) else {
            return;
        };
        let locked = match first.command.run {
            Run::Read(_) => self.batch.share(),
            Run::Write(_) if self.batch.server.aof.failure().is_none() => self.batch.exclude(),
            _ => return,
        };
        if locked.is_err() {
            return;
        }
        let (keyspace, db) = (self.batch.keyspace(), client.db);
        let keyed = arrived.iter().filter_map(|Arrived { args, row }| {
            Some((args.digest(row.as_ref()?.command.keys.first as usize)?, args))
        });
        let mut rows = arrived.iter().filter_map(|arrived| arrived.row);
        if rows.any(|row| row.command.is(Flag::ThenField)) {
            let field = |args: &'a Args| (args.len() > 2).then(|| &args[2]);
            keyspace.warm_fields(db, keyed.map(|(digest, args)| (digest, field(args))));
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
    let keys = row.command.keys;
    if keys.last < 0 && args.len() > WORTH_IT * keys.step as usize {
        match row.command.run {
            Run::Read(_) => batch.share()?,
            Run::Write(_) => batch.exclude()?,
            _ => return Ok(()),
        }
        let digests = keys.places(args.len()).filter_map(|i| args.digest(i));
        batch.keyspace().warm_many(db, digests);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::client::Transaction;
    use crate::handler::TABLE;
    use crate::propagate::Source;
    use crate::server::Server;
    use crate::store::Keyspace;
    use crate::store::Store;
    use std::sync::Arc;

    #[test]
    fn commands_that_multi_will_queue_take_no_lock() {
        let server = Arc::new(Server::new(Arc::default(), 0, TABLE.rows.len()));
        let store = Store::new(Keyspace::new(1));
        let mut client = Client::fake(&server);
        let sets = [(); 5].map(|()| {
            let mut set = Arrived::default();
            for arg in [&b"SET"[..], b"k", b"v"] {
                set.args.push(arg);
            }
            set.look_up();
            set
        });
        let lock_for = |client: &Client| {
            let mut caller = Caller::new(&server, &store, Source::Client);
            caller.begin();
            caller.lock_and_warm(client, &sets);
            caller.batch.lock_name()
        };
        assert_eq!(lock_for(&client), "exclusive lock");
        client.transaction = Some(Transaction::new(&client.public.held));
        assert_eq!(lock_for(&client), "no lock");
        client.transaction = None;
        let full = std::io::Error::from(std::io::ErrorKind::StorageFull);
        server.aof.failures.failed(crate::aof::failure::Kind::Write, &full);
        assert_eq!(lock_for(&client), "no lock");
    }
}
