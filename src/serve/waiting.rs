//! What a handler could not do, for it may run under a lock: to wait for the disk, or for the end.
//!
//! A handler leaves a [`Then`]; its batch ends, its lock is given back, and what has been answered so far
//! leaves. Then the client's own thread waits here, and keeps reading meanwhile what its client sends,
//! into the stash (inbound.rs), so that it notices when the client leaves:
//!
//! ```text
//! WAITAOF 1 0 500    wait until the disk has what was appended so far, or 500 ms are over ─▶ reply
//! WAIT 1 500         wait 500 ms for replicas, which never come ─▶ 0
//! SHUTDOWN           take the keyspace, and never give it back; finish the log; end the process
//! ```
//!
//! **How Redis does it**: blocked.c sets a client aside and goes on with the others;
//! `prepareForShutdown` in server.c.

use super::{Session, is_timeout};
use crate::client::{Then, Wait};
use crate::error::Error;
use crate::log;
use std::io::{self, Read};
use std::net::{Shutdown, TcpStream};
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

/// WAIT and WAITAOF look this often whether the client is still there.
const TICK: Duration = Duration::from_millis(100);

/// How long the client's last words are read, so that it can read ours.
const LINGER: Duration = Duration::from_millis(200);

impl Session<'_> {
    /// Waits for the disk, and for replicas, which never come; then answers WAIT or WAITAOF.
    pub(super) fn wait(&mut self, wait: Wait) -> io::Result<()> {
        let aof = &self.server.aof;
        let position = aof.position();
        let deadline = deadline(wait.timeout_ms);
        let on_disk = |pause| !aof.is_enabled() || aof.wait_durable(position, pause);
        aof.status.waiting.fetch_add(1, Ordering::Relaxed);
        self.client.public.turns.set_aside(true);
        let mut waited = Ok(());
        if wait.local {
            waited = self.wait_until(deadline, on_disk);
        }
        if wait.replicas && waited.is_ok() {
            waited = self.wait_until(deadline, |pause| {
                std::thread::sleep(pause);
                false
            });
        }
        self.client.public.turns.set_aside(false);
        aof.status.waiting.fetch_sub(1, Ordering::Relaxed);
        waited?;
        if wait.silent {
            return Ok(());
        }
        if wait.is_waitaof {
            self.reply.array(2);
            self.reply.integer((aof.is_enabled() && aof.is_durable(position)).into());
        }
        self.reply.integer(0);
        self.flush()
    }

    /// Waits for what `comes_within` a time, until the deadline, or until the client has left.
    fn wait_until(
        &mut self,
        deadline: Option<Instant>,
        mut comes_within: impl FnMut(Duration) -> bool,
    ) -> io::Result<()> {
        let limit = self.stash_limit();
        while !self.is_killed() {
            let left = deadline.map_or(TICK, |at| at.saturating_duration_since(Instant::now()));
            if comes_within(left.min(TICK)) || left.is_zero() {
                break;
            }
            self.client.public.touch(self.server);
            if self.reader.get_mut().stash_arrived(limit)?.is_none() {
                break;
            }
        }
        Ok(())
    }

    /// Ends the process while everybody else is kept from the data. If the log cannot be saved,
    /// the operator should know and the client may try again, unless it said FORCE, as in Redis.
    pub(super) fn shut_down(&mut self, force: bool) {
        self.client.then = Then::GoOn;
        log::notice(format_args!("SHUTDOWN: saving the log, then good bye"));
        self.caller.batch.hold_everything();
        match self.server.aof.sync_all() {
            Err(cause) if !force => {
                let text = "ERR Errors trying to SHUTDOWN. Check logs.";
                self.reply.error(&Error::text(text));
                self.caller.finish(&mut self.client, &mut self.reply);
                // Only now, for nothing prints under a lock.
                log::warning(format_args!("cannot shut down, the log is not saved: {cause}"));
            }
            _ => std::process::exit(0),
        }
    }
}

/// When a wait of so many milliseconds ends; 0 waits for ever.
fn deadline(timeout_ms: u64) -> Option<Instant> {
    if timeout_ms == 0 {
        None
    } else {
        Instant::now().checked_add(Duration::from_millis(timeout_ms))
    }
}

/// Closing a socket with unread input makes the kernel throw away what we have just sent. So the
/// end is announced, and what still comes is read, for a moment.
pub(super) fn linger(mut stream: &TcpStream) {
    let _ = stream.shutdown(Shutdown::Write);
    let deadline = Instant::now() + LINGER;
    // On the heap: every thread's stack would be larger by it.
    let mut rest = vec![0; 4096];
    loop {
        let left = deadline.saturating_duration_since(Instant::now());
        // A timeout of zero is an error, and the end too.
        if stream.set_read_timeout(Some(left)).is_err() {
            return;
        }
        match stream.read(&mut rest) {
            Ok(1..) => {}
            // The time is over, or somebody has looked for input (server/order.rs).
            Err(error) if is_timeout(&error) => {}
            _ => return,
        }
    }
}
