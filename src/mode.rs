//! Whether the calls of a client's socket wait.
//!
//! Mostly they do: a client's thread sleeps in a read until its client sends something. But other threads use the
//! same socket: one looks whether there is input (server/order.rs), one sends the answer to BLPOP (server/mailbox.rs)
//! or a message (outbox.rs). None of them may wait. std has no call that does not wait on a socket that does. So they
//! set the socket's mode, for a moment or for longer:
//!
//! ```text
//! client's thread   a read, which sleeps ───────────────────────▶ input   a read: nothing  wait_again   a read ─▶
//! publisher                    at_once_from_now: a write   a write   a write
//! ```
//!
//! A call that sleeps already goes on sleeping. A call that comes later fails at once, and its thread then
//! sets the mode back.
//!
//! **How Redis does it**: no socket ever waits, and epoll does.

use std::io;
use std::net::TcpStream;
use std::sync::Mutex;

/// See the chapter.
#[derive(Default)]
pub struct Mode {
    /// Whether they do not until [`Mode::wait_again`]. Else they do, but for a moment under this lock. The longest such
    /// moment is that of a thread that spins for input (serve/inbound.rs).
    is_left: Mutex<bool>,
}

impl Mode {
    /// Does something while the socket does not wait.
    pub fn at_once<T>(
        &self,
        stream: &TcpStream,
        act: impl FnOnce() -> io::Result<T>,
    ) -> io::Result<T> {
        let is_left = self.is_left.lock().unwrap();
        if *is_left {
            return act();
        }
        stream.set_nonblocking(true)?;
        let done = act();
        stream.set_nonblocking(false)?;
        done
    }

    /// Does something while the socket does not wait, nor from now on, so that all that is done at once costs no
    /// more calls. Whoever wants to wait ends that.
    pub fn at_once_from_now<T>(
        &self,
        stream: &TcpStream,
        act: impl FnOnce() -> io::Result<T>,
    ) -> io::Result<T> {
        let mut is_left = self.is_left.lock().unwrap();
        if !*is_left {
            stream.set_nonblocking(true)?;
            *is_left = true;
        }
        act()
    }

    /// The socket waits again, when whoever has set its mode is done.
    pub fn wait_again(&self, stream: &TcpStream) -> io::Result<()> {
        let mut is_left = self.is_left.lock().unwrap();
        if std::mem::take(&mut *is_left) {
            stream.set_nonblocking(false)?;
        }
        Ok(())
    }
}
