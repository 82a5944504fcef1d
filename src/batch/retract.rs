//! What becomes of replies if the log cannot be written: those of commands that are in the log, and only
//! those, become the error MISCONF. The outcome of these commands is unknown.
//!
//! **How Redis does it**: `flushAppendOnlyFile` in aof.c. Under `always` it exits. Otherwise it sends the
//! replies and refuses the writes that follow.

use super::Batch;
use crate::error::Error;
use crate::resp::Reply;

impl Batch<'_> {
    /// The replies from here on are not sent, so they cannot become an error either.
    pub fn forget_replies_from(&mut self, begin: usize) {
        self.retractable.retain(|range| range.end <= begin);
    }

    /// Replaces the replies of all commands that have records by the error.
    pub(super) fn retract(&mut self, error: &Error, reply: &mut Reply) {
        if reply.out.is_over {
            // Nobody will read them.
            return;
        }
        let replies = reply.out.take();
        let mut from = 0;
        for range in &self.retractable {
            reply.out.append(&replies, from..range.start);
            reply.error(error);
            from = range.end;
        }
        reply.out.append(&replies, from..replies.mark());
    }
}
