//! A client's thread while CLIENT PAUSE postpones its next command (server/pause.rs).
//!
//! The command has not run. Nothing is locked, and the replies to the commands before it have left. When the pause
//! is over, and those that came before have run, the command is called as if it came now. Until then the thread sleeps. It looks at its socket only
//! when it is woken, and then reads what has come into the stash, so it notices when the client has left.
//!
//! **How Redis does it**: `blockClient(c, BLOCKED_POSTPONE)`, and epoll.

use super::Session;
use crate::server::Blocked;
use crate::server::pause::Asleep;
use std::io::{self, ErrorKind};
use std::thread;

impl Session<'_> {
    /// Waits until the command that was postponed, which writes or not, may be called again.
    pub(super) fn sleep_through_pause(&mut self, writes: bool) -> io::Result<()> {
        self.flush()?;
        self.give_back_what_has_run();
        let public = self.client.public.clone();
        public.shown.lock().unwrap().args_length = self.arrived[self.ran].args.length();
        let asleep = self.server.pause.join(public.id, writes);
        self.server.clients.block(&public, Blocked::Pause);
        public.turns.set_aside(true);
        let slept = self.sleep(&asleep);
        public.turns.set_aside(false);
        self.server.clients.unblock(&public, Blocked::Pause);
        slept.map(|()| self.postponed = Some(asleep))
    }

    fn sleep(&mut self, asleep: &Asleep) -> io::Result<()> {
        let limit = self.stash_limit();
        while let (false, Some(left)) = (self.is_killed(), asleep.left()) {
            if self.reader.get_mut().stash_arrived(limit)?.is_none() {
                return Err(ErrorKind::UnexpectedEof.into());
            }
            thread::park_timeout(left);
        }
        Ok(())
    }
}
