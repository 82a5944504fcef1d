//! How much memory a client's thread keeps: little, until its client shows that it needs more.
//!
//! Most connections are idle most of the time and send little, and there may be ten thousand. What has
//! been touched counts, so a client begins with a kilobyte of input buffer, gets eight times as much
//! whenever it fills it, and gives all that is large back when it has been silent for a moment:
//!
//! ```text
//! 1 KiB ──▶ 8 KiB ──▶ 64 KiB        a read has filled the buffer (grow_input)
//!   ▲──────────────────┘            nothing came for 100 ms (rest); output and words go too
//! ```
//!
//! **How Redis does it**: `clientsCronResizeQueryBuffer` and `clientsCronResizeOutputBuffer` in
//! server.c, once a second for some clients each.

use super::{BATCH_OUTPUT, INPUT_BUFFER, Session, is_timeout};
use crate::call::Arrived;
use std::io::{self, BufRead, BufReader};
use std::time::Duration;

/// Bytes that a client's buffer begins with. It becomes eight times as large, up to [`INPUT_BUFFER`],
/// whenever a read has filled it.
pub(super) const FIRST_INPUT_BUFFER: usize = 1024;

/// A command with so many bytes in large words needs no larger buffer. Measured: a client that sends
/// values of 33 KiB is faster with one, of 40 KiB as fast, of 48 KiB slower.
const LONG: usize = 40 * 1024;

/// For so long a client that sends nothing keeps large memory.
const REST: Duration = Duration::from_millis(100);

impl Session<'_> {
    /// Gives a client that fills its buffer a larger one, but not for [`LONG`] bytes of large words:
    /// these are read straight to their place, and what a buffer catches of them is copied once more.
    /// What lies in the old buffer will be read first.
    pub(super) fn grow_input(&mut self) {
        let was_filled = std::mem::take(&mut self.reader.get_mut().was_filled);
        if was_filled
            && self.reader.capacity() < INPUT_BUFFER
            && self.arrived[0].args.large_size() < LONG
        {
            self.exchange_reader((8 * self.reader.capacity()).min(INPUT_BUFFER));
        }
    }

    /// A `BufReader` keeps the capacity that it has, so another one takes over what is unread.
    fn exchange_reader(&mut self, capacity: usize) {
        let buffered = self.reader.buffer().to_vec();
        let inbound = self.reader.get_mut().move_behind(buffered);
        self.reader = BufReader::with_capacity(capacity, inbound);
    }

    /// Gives back the memory of the commands that have run: their client does not read their replies, and
    /// may not do so for long.
    pub(super) fn give_back_what_has_run(&mut self) {
        for arrived in &mut self.arrived[..self.ran] {
            *arrived = Arrived::default();
        }
        if self.ran == self.arrived_count {
            self.reader.get_mut().forget_handed_up();
        }
    }

    /// Waits for input. Who has sent or received much keeps the memory for more of it, but not for
    /// long if nothing comes.
    pub(super) fn rest(&mut self) -> io::Result<()> {
        // What is large is shared with the store, and its client may rest for long.
        for arrived in &mut self.arrived[..self.arrived_count] {
            if arrived.args.large_size() > 0 {
                arrived.args.clear();
            }
        }
        let has_much =
            self.reply.out.capacity() > BATCH_OUTPUT || self.reader.capacity() == INPUT_BUFFER;
        if !has_much {
            return Ok(());
        }
        self.stream.set_read_timeout(Some(REST))?;
        self.reader.get_mut().may_time_out = true;
        if self.reader.fill_buf().is_err_and(|error| is_timeout(&error)) {
            self.arrived = vec![Arrived::default()];
            self.reply.out.give_back();
            self.exchange_reader(FIRST_INPUT_BUFFER);
        }
        self.reader.get_mut().may_time_out = false;
        // Any other error is met again by the read that follows.
        self.stream.set_read_timeout(None)
    }
}
