//! Replay: a batch that runs what the log says, into a keyspace that nobody else can see.
//!
//! It is the batch that serves clients, with the same handlers. What differs: nothing is logged or
//! counted; nobody is refused, and no value is too long; time kills nothing, for what was alive when
//! it was written must be alive when it is read; and the exclusive lock, once taken, is kept to the
//! end, for there is nobody to share with. The records come some sixty at a time (aof/load.rs), so
//! that the keys of all of them can be looked at together.
//!
//! **How Redis does it**: `loadSingleAppendOnlyFile` in aof.c has a loop of its own, which looks a
//! command up and calls its function with a fake client.

use super::{Arrived, Batch, Guard};
use crate::client::{Client, Server};
use crate::handler::args::database;
use crate::handler::{Run, can_replay};
use crate::resp::{Args, Reply};
use crate::say;
use crate::store::Keyspace;
use std::sync::{Arc, RwLock};

/// Replays records, in the order of the log.
pub struct Replayer<'a> {
    batch: Batch<'a>,
    client: Client,
    arrived: Vec<Arrived>,
    reply: Reply,
}

impl<'a> Replayer<'a> {
    pub fn new(server: &'a Arc<Server>, store: &'a RwLock<Keyspace>) -> Replayer<'a> {
        let batch = Batch {
            replaying: true,
            ..Batch::new(server, store)
        };
        Replayer {
            batch,
            client: Client::fake(server),
            arrived: Vec::new(),
            reply: Reply::new(),
        }
    }

    /// Replays these records; their words are taken. The error says which of them cannot be, and
    /// what the operator is to be told.
    pub fn replay(&mut self, records: &mut [Args]) -> Result<(), (usize, String)> {
        let mut arrived = std::mem::take(&mut self.arrived);
        arrived.resize_with(records.len(), Arrived::default);
        let mut before = None;
        for (arrived, args) in arrived.iter_mut().zip(records) {
            std::mem::swap(&mut arrived.args, args);
            arrived.look_up(before);
            before = arrived.row;
        }
        self.batch.warm(self.client.db, &arrived);
        let mut each = arrived.iter_mut().enumerate();
        let result = each.try_for_each(|(index, arrived)| {
            let replayed = self.replay_one(arrived);
            replayed.map_err(|reason| (index, reason))
        });
        self.arrived = arrived;
        result
    }

    fn replay_one(&mut self, arrived: &mut Arrived) -> Result<(), String> {
        let row = match arrived.row {
            // What writes may stand in a log, so the table is not asked a second time.
            Some(row) if matches!(row.command.run, Run::Write(_)) => row,
            _ => can_replay(&arrived.args)?,
        };
        if row.command.name == "select" {
            // If it failed, what follows would go to the database before.
            let databases = self.batch.server.config.number("databases") as usize;
            database(&arrived.args[1], databases).map_err(|_| {
                let index = String::from_utf8_lossy(&arrived.args[1]);
                format!("`--databases {databases}` is too few for the SELECT {index}")
            })?;
        }
        self.reply.out.truncate(0);
        self.batch
            .execute(arrived, &mut self.client, &mut self.reply);
        // No lock is given back here, where this would be done.
        if let Guard::Exclusive(keyspace) = &mut self.batch.guard {
            keyspace.garbage.clear();
        }
        let said = self.reply.out.pieces().next().unwrap_or_default();
        if let [b'-', error @ ..] = said.trim_ascii_end() {
            // As in Redis. Nobody waits for the lock that we hold, it is of a keyspace of our own.
            say::warning(format_args!(
                "the log holds a command that fails, {}: {}",
                String::from_utf8_lossy(&arrived.args[0]),
                String::from_utf8_lossy(error)
            ));
        }
        Ok(())
    }
}
