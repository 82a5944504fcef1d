//! SHUTDOWN waits for replicas that are behind, and may be called off meanwhile.
//!
//! ```text
//! SHUTDOWN ─▶ writes are paused ─▶ waits ─▶ it is mine still? ─▶ saves, and ends the process
//! another SHUTDOWN ─▶ waits too               ▲                 └ that fails ─┐
//! SHUTDOWN ABORT ─────────────────────────────┴ takes it away ────────────────┴─▶ all that wait are told
//! ```
//!
//! While it waits, no lock is held: whoever reads is served, and writes are paused (server/pause.rs), so replicas can
//! come to the end. It ends at the latest after `shutdown-timeout`. It does not matter whether its client is still
//! there. Whoever takes the wait away first, under its mutex, decides: the thread of that client, or ABORT.
//!
//! **How Redis does it**: `prepareForShutdown`, `isReadyToShutdown` and `abortShutdown` in server.c. There too a
//! second SHUTDOWN waits with the first, even if it says NOW.

use super::mailbox::{Answer, Recipient};
use super::{Blocked, Public, Server};
use crate::aof::Position;
use crate::error::Error;
use crate::resp::Reply;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

#[derive(Default)]
pub struct Shutdown {
    /// The wait that there is: the id of the client that has begun it, and when it ends.
    waiting: Mutex<Option<(u64, Instant)>>,
}

/// What a SHUTDOWN has to do first.
pub enum Begun {
    /// Nothing: the process may end. Writes are paused, as in a wait: whoever cannot end it calls that off.
    Ready,
    /// Wait until replicas have everything before this position.
    Waits(Position),
    /// Wait for another SHUTDOWN.
    Joins,
}

/// How often the waiting thread looks whether it has been called off.
const TICK: Duration = Duration::from_millis(100);

impl Shutdown {
    /// How long it waits yet, at most. None: no SHUTDOWN waits.
    pub fn left(&self) -> Option<Duration> {
        let (_, end) = (*self.waiting.lock().unwrap())?;
        Some(end.saturating_duration_since(Instant::now()))
    }

    /// The wait of this client is over. False if ABORT came first.
    pub fn take(&self, client: &Public) -> bool {
        let mut waiting = self.waiting.lock().unwrap();
        waiting.take_if(|(id, _)| *id == client.id).is_some()
    }
}

impl Server {
    /// Pauses writes, and begins to wait, if that is asked for and replicas are behind. The caller holds the keyspace,
    /// shared or not, so nothing is written after the position that is waited for.
    pub fn begin_shutdown(&self, client: &Public, waits: bool) -> Begun {
        let mut waiting = self.shutdown.waiting.lock().unwrap();
        if waiting.is_some() {
            self.clients.block(client, Blocked::Shutdown);
            return Begun::Joins;
        }
        // Also if nobody is behind: replicas would lack what is written before the process has the keyspace.
        self.pause.wait_for_shutdown(true);
        let (end, seconds) = (self.aof.last_change(), self.config.shutdown_timeout.get());
        if !waits || seconds == 0 || self.replicas.count_online(|replica| replica.acked < end) == 0
        {
            return Begun::Ready;
        }
        *waiting = Some((client.id, Instant::now() + Duration::from_secs(seconds as u64)));
        self.clients.block(client, Blocked::Shutdown);
        Begun::Waits(end)
    }

    /// Waits for this client until no replica is behind, or the time is over, or ABORT has come.
    pub fn wait_for_replicas(&self, client: &Public, end: Position) {
        let _asking = self.ask_replicas(end);
        while client.is_blocked()
            && let Some(left) = self.shutdown.left().filter(|left| !left.is_zero())
            && !self.replicas.nobody_is_behind(end, left.min(TICK))
        {}
    }

    /// SHUTDOWN ABORT: the answers to the clients that wait. None if there is nothing to be called off.
    pub fn abort_shutdown(&self) -> Option<Vec<Answer>> {
        let mut waiting = self.shutdown.waiting.lock().unwrap();
        waiting.take()?;
        Some(self.answer_shutdowns())
    }

    /// The process cannot end. Returns the answers to the clients that wait.
    pub fn call_off_shutdown(&self) -> Vec<Answer> {
        let mut waiting = self.shutdown.waiting.lock().unwrap();
        *waiting = None;
        self.answer_shutdowns()
    }

    /// Writes go on. The mutex is held, so that nobody begins to wait meanwhile.
    fn answer_shutdowns(&self) -> Vec<Answer> {
        self.pause.wait_for_shutdown(false);
        let mut all = self.clients.everyone();
        all.retain(|client| self.clients.unblock(client, Blocked::Shutdown));
        all.into_iter().map(failed).collect()
    }
}

fn failed(client: Arc<Public>) -> Answer {
    let mut reply = Reply::new();
    reply.error(&Error::CannotShutDown);
    Answer { to: Recipient { client }, reply, is_logged: false }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn writes_are_paused_though_no_replica_is_behind_until_the_process_cannot_end() {
        let server = Arc::new(Server::new(Arc::default(), 0, 0));
        let client = Public::new(&server, 1, None);
        assert!(matches!(server.begin_shutdown(&client, true), Begun::Ready));
        assert!(server.pause.left(true).is_some() && server.pause.left(false).is_none());
        assert!(server.call_off_shutdown().is_empty());
        assert!(!server.pause.is_on());
    }
}
