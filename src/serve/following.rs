//! The connection of a replica: from PSYNC on, another thread writes to it (replication/primary.rs).
//!
//! The client's own thread goes on reading, because the replica says how far it is (`REPLCONF ACK`). It answers
//! nothing, and a command that would be answered ends the connection, as in Redis.

use super::Session;
use crate::client::Replies;
use crate::outbox::LONGEST_WAIT;
use crate::replication::primary;
use crate::server::replicas::Request;
use std::io;

impl Session<'_> {
    pub(super) fn follow(&mut self, request: Request) -> io::Result<()> {
        self.flush()?;
        let client = &mut self.client;
        (client.is_replica, client.replies) = (true, Replies::Off);
        client.public.shown.lock().unwrap().follows = true;
        self.stream.set_write_timeout(Some(LONGEST_WAIT))?;
        let (server, public) = (self.server.clone(), client.public.clone());
        server.replicas.join(&public, client.announced.clone());
        let thread = std::thread::Builder::new().name("replica".into());
        let send = move || primary::send(&server, &public, &request);
        self.writer = Some(thread.spawn(send)?);
        Ok(())
    }
}
