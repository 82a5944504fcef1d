//! DEBUG RELOAD and DEBUG LOADAOF: the data is written, read back, and put in its own place.
//!
//! Everybody waits meanwhile, as in Redis: the thread holds the keyspace. If it cannot be read back, the data stays as it is, and the client is
//! told why. (Redis would have emptied itself by then.)

use super::Session;
use crate::call;
use crate::error::Error;
use crate::log;
use std::io;

impl Session<'_> {
    // A frame of its own, because it is large, and `follow_up` runs after every batch.
    #[inline(never)]
    pub(super) fn reload(&mut self, from_log: bool, silent: bool) -> io::Result<()> {
        let server = &self.client.server;
        let mut keyspace = self.caller.batch.store.write_when_free();
        let loaded = call::replay_under_lock(server, |run| match from_log {
            true => server.aof.replay_again(run),
            false => server.aof.replay_base_of(&keyspace, run),
        });
        let result = loaded.map(|mut loaded| {
            // It was no change.
            loaded.changes = 0;
            keyspace.take_over(loaded);
        });
        drop(keyspace);
        let said = match &result {
            Ok(()) => "the data was reloaded by DEBUG",
            Err(reason) => reason,
        };
        log::warning(format_args!("{said}"));
        match result {
            _ if silent => {}
            Ok(()) => self.reply.status("OK"),
            Err(reason) => self.reply.error(&Error::text(format!("ERR {reason}"))),
        }
        self.flush()
    }
}
