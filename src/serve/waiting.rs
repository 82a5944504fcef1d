//! Commands that wait. A handler must not wait, because it may run under a lock: it returns.
//!
//! Before it returns it leaves a [`Then`](crate::client::Then). Its batch ends, the lock is given back,
//! and the replies so far leave. Then the client's own thread waits here. Meanwhile it reads what its
//! client sends into the stash (inbound.rs), and so it notices when the client leaves:
//!
//! ```text
//! WAITAOF 1 0 500    wait until the disk has what was appended so far, or 500 ms are over ─▶ reply
//! WAIT 1 500         wait until one replica has it in memory, or 500 ms are over ─▶ how many have it
//! SHUTDOWN           wait until replicas have it (server/shutdown.rs); take the keyspace, and never give it back;
//!                    finish the log; end the process
//! ```
//!
//! Those that wait for a key are in blocked.rs. A script never waits: it calls its commands as EXEC does
//! (call/script.rs), under one lock and with [`in_exec`](crate::client::Client::in_exec), where a command that would
//! wait answers at once.
//!
//! **How Redis does it**: blocked.c sets a client aside and goes on with the others;
//! `prepareForShutdown` in server.c.

use super::Session;
use crate::client::{Until, Wait};
use crate::error::Error;
use crate::log;
use crate::outbox::is_timeout;
use crate::server::Blocked;
use crate::server::replicas::Replica;
use crate::server::shutdown::Begun;
use crate::service;
use std::io::{self, Read};
use std::net::{Shutdown, TcpStream};
use std::time::{Duration, Instant};

/// How often a waiting thread looks whether its client is still there.
const TICK: Duration = Duration::from_millis(100);

/// How long a leaving client's input is still read, so that it can read our last reply.
const LINGER: Duration = Duration::from_millis(200);

impl Session<'_> {
    /// Sends the replies so far, waits as the command says, then answers it.
    pub(super) fn wait(&mut self, wait: Wait) -> io::Result<()> {
        self.flush()?;
        self.give_back_what_has_run();
        let aof = &self.server.aof;
        let position = aof.position();
        let deadline = deadline(wait.timeout_ms);
        let on_disk = |time| !aof.is_enabled() || aof.wait_durable(position, time);
        let clients = &self.server.clients;
        clients.block(&self.client.public, Blocked::Log);
        self.client.public.turns.set_aside(true);
        // Where the replicas must have come.
        let change = aof.last_change();
        let is_there = |replica: &Replica| match wait.until {
            Until::Replicas(_) => replica.acked >= change,
            Until::Durable { .. } => replica.durable >= change,
        };
        let (for_disk, count) = match wait.until {
            Until::Replicas(count) => (false, count),
            Until::Durable { local, replicas } => (local, replicas),
        };
        let mut waited = if for_disk { self.wait_until(deadline, on_disk) } else { Ok(()) };
        let replicas = &self.server.replicas;
        if waited.is_ok() && replicas.count_online(is_there) < count {
            let _asking = self.server.ask_replicas(change);
            waited = self.wait_until(deadline, |time| replicas.wait_for(count, time, is_there));
        }
        self.client.public.turns.set_aside(false);
        let is_over = clients.unblock(&self.client.public, Blocked::Log);
        waited?;
        // CLIENT UNBLOCK has come first, and may have brought an error.
        let answer = if is_over { None } else { self.client.public.mailbox.take() };
        if wait.silent {
            return Ok(());
        }
        if let Some(answer) = answer.filter(|answer| answer.out.len() > 0) {
            self.reply.out.append(&answer.out, 0..answer.out.mark());
            return self.flush();
        }
        if self.server.primary.is_set() {
            // REPLICAOF has come, and nobody follows us any more.
            self.reply.error(&Error::Demoted);
            return self.flush();
        }
        if let Until::Durable { .. } = wait.until {
            self.reply.array(2);
            self.reply.integer((aof.is_enabled() && aof.is_durable(position)).into());
        }
        self.reply.count(replicas.count_online(is_there));
        self.flush()
    }

    /// We are a replica from now on, and only the primary makes keys here. Whoever waits for a key is told, and then our
    /// own client is answered. Whoever is in WAIT notices it by itself. A BLPOP that has not joined a queue yet is
    /// refused when it has its lock.
    pub(super) fn demote(&mut self) {
        self.caller.batch.unblock_all(&mut self.client, &Error::Demoted);
        self.caller.finish(&mut self.client, &mut self.reply);
    }

    /// Waits until something `comes_within` a tick, or the deadline is over, or the client has left, or we are a
    /// replica.
    fn wait_until(
        &mut self,
        deadline: Option<Instant>,
        mut comes_within: impl FnMut(Duration) -> bool,
    ) -> io::Result<()> {
        let limit = self.stash_limit();
        let mailbox = &self.client.public.clone().mailbox;
        let primary = &self.server.primary;
        while !self.is_killed() && !mailbox.is_filled_within(Duration::ZERO) && !primary.is_set() {
            let left = deadline.map_or(TICK, |at| at.saturating_duration_since(Instant::now()));
            if comes_within(left.min(TICK)) || left.is_zero() {
                break;
            }
            self.client.public.reset_idle(self.server);
            if self.reader.get_mut().stash_arrived(limit)?.is_none() {
                break;
            }
        }
        Ok(())
    }

    /// Waits until replicas have everything, if they are to be waited for. False if the process goes on: then
    /// the client's reply says so. The client may leave meanwhile.
    fn wait_for_replicas(&mut self, waits: bool) -> bool {
        let (server, public) = (self.server, self.client.public.clone());
        self.caller.batch.share_anyway();
        let begun = server.begin_shutdown(&public, waits);
        self.caller.batch.give_back();
        if let Begun::Ready = begun {
            return true;
        }
        // What is sent before SHUTDOWN may be answered.
        let _ = self.flush();
        self.give_back_what_has_run();
        public.turns.set_aside(true);
        if let Begun::Waits(end) = begun {
            log::notice(format_args!("Waiting for replicas before shutting down."));
            server.wait_for_replicas(&public, end);
        }
        let goes_on = matches!(begun, Begun::Waits(_)) && server.shutdown.take(&public);
        if goes_on {
            server.clients.unblock(&public, Blocked::Shutdown);
        } else if let Some(answer) = public.mailbox.take() {
            self.reply.out.append(&answer.out, 0..answer.out.mark());
        }
        public.turns.set_aside(false);
        goes_on
    }

    /// Ends the process. Nobody else can reach the data any more. If the log cannot be saved, the
    /// process goes on, unless the client has said FORCE or NOSAVE: the operator is told, and the client may
    /// try again, as in Redis.
    pub(super) fn shut_down(&mut self, saves: bool, snapshot: bool, force: bool, waits: bool) {
        // SAVE would save half of what a script does.
        if saves && self.caller.batch.store.is_busy() {
            return self.reply.error(&Error::Busy);
        }
        if !self.wait_for_replicas(waits) {
            return;
        }
        log::notice(format_args!("SHUTDOWN: saving the log, then good bye"));
        self.caller.batch.hold_everything();
        if saves && self.caller.batch.store.is_busy() {
            return self.go_on(&Error::Busy);
        }
        let config = &self.server.config;
        let keyspace = self.caller.batch.held().filter(|_| snapshot);
        let snapshots = &self.server.snapshots;
        // While it lives, no older snapshot can take the place of this one.
        let written = keyspace.map(|keyspace| snapshots.write_last(config, keyspace)).transpose();
        match self.server.aof.sync_all().and(written.as_ref().map(drop).map_err(String::clone)) {
            Err(cause) if saves && !force => {
                self.go_on(&Error::CannotShutDown);
                // Only now, because nothing prints under a lock.
                log::warning(format_args!(
                    "cannot shut down, because this cannot be saved: {cause}"
                ));
            }
            _ => {
                // Their PUBLISH is answered already.
                self.server.hub.send_what_waits();
                snapshots.discard(config);
                service::end(&self.server.config);
                std::process::exit(0);
            }
        }
    }

    /// The process cannot end, for this reason. All that have said SHUTDOWN are told, and the keyspace is given back.
    fn go_on(&mut self, reason: &Error) {
        self.client.answers.extend(self.server.call_off_shutdown());
        self.reply.error(reason);
        self.caller.finish(&mut self.client, &mut self.reply);
    }
}

/// When a wait of this many milliseconds ends; 0 waits for ever.
fn deadline(timeout_ms: u64) -> Option<Instant> {
    let timeout = (timeout_ms > 0).then(|| Duration::from_millis(timeout_ms))?;
    Instant::now().checked_add(timeout)
}

/// Ends the connection without losing the last reply. If a socket is closed with unread input, the
/// kernel throws away what we have just sent. So the end is announced, and what still comes is read,
/// for a moment.
pub(super) fn linger(mut stream: &TcpStream) {
    let _ = stream.shutdown(Shutdown::Write);
    let deadline = Instant::now() + LINGER;
    // On the heap, because the stack of every thread would grow by it.
    let mut rest = vec![0; 4096];
    loop {
        let left = deadline.saturating_duration_since(Instant::now());
        // A timeout of zero is an error, and the end too.
        if stream.set_read_timeout(Some(left)).is_err() {
            return;
        }
        match stream.read(&mut rest) {
            Ok(1..) => {}
            // The time is over, or another thread is looking for input (server/order.rs).
            Err(error) if is_timeout(&error) => {}
            _ => return,
        }
    }
}
