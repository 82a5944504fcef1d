//! The end of the primary's stream, in memory: what other replicas of that may lack when we are promoted.
//!
//! ```text
//! offset    71300                       71400
//! stream    … SET a 1 │ SET b 2  INCR c │ SET d 4  IN      what has come
//!             └────── kept ──────────── ▲ ──────────┘
//!                                       the data is here, and our log at 4100
//! ```
//!
//! Our log says the same in other bytes, so it cannot be sent to them. `repl-backlog-size` says how much is kept here.
//! What becomes of it is told in aof/backlog/names.rs.
//!
//! **How Redis does it**: `replicationFeedStreamFromMasterStream` in replication.c keeps the stream of the primary in the
//! backlog.

use crate::aof::Position;
use crate::aof::backlog::{Counting, Legacy};
use crate::store::Origin;
use std::collections::VecDeque;

#[derive(Default)]
pub struct Tail {
    bytes: VecDeque<u8>,
    /// The offset behind the last of them.
    end: u64,
    /// Where the data is in the primary's history, and where that is in our log.
    reached: Option<(Origin, Position)>,
}

impl Tail {
    /// The stream goes on at this place. `ahead`: so much of it has come.
    pub fn go_on(&mut self, origin: Origin, position: Position, ahead: &[u8], most: usize) {
        self.cut_at(origin.offset);
        self.reached = Some((origin, position));
        self.push(ahead, most);
    }

    /// More has come.
    pub fn push(&mut self, bytes: &[u8], most: usize) {
        self.end += bytes.len() as u64;
        let kept = &bytes[bytes.len().saturating_sub(most)..];
        let excess = (self.bytes.len() + kept.len()).saturating_sub(most);
        self.bytes.drain(..excess);
        self.bytes.extend(kept);
    }

    /// The data is here.
    pub fn reach(&mut self, origin: Origin, position: Position) {
        self.reached = Some((origin, position));
    }

    /// Nobody can go on from where the data is.
    pub fn lose_place(&mut self) {
        self.reached = None;
    }

    /// The data is no longer that of the history.
    pub fn forget(&mut self) {
        *self = Tail::default();
    }

    /// What we have of the history, if the data is at a place in it.
    pub fn take(&mut self) -> Option<Legacy> {
        let (origin, position) = self.reached.take()?;
        self.cut_at(origin.offset);
        let last = std::mem::take(self).bytes.into();
        let counting = Counting { from: position, offset: origin.offset };
        Some(Legacy { id: origin.id.to_string(), counting, last })
    }

    /// Forgets what stands behind this offset.
    fn cut_at(&mut self, offset: u64) {
        let begin = self.end - self.bytes.len() as u64;
        let is_there = (begin..=self.end).contains(&offset);
        self.bytes.truncate(if is_there { (offset - begin) as usize } else { 0 });
        self.end = offset;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn origin(offset: u64) -> Origin {
        Origin { id: "12ae".into(), offset, db: 0 }
    }

    #[test]
    fn what_has_come_behind_the_data_is_not_kept_and_of_the_rest_no_more_than_the_most() {
        let mut tail = Tail::default();
        tail.go_on(origin(100), 7, b"ab", 10);
        tail.push(b"cdefgh", 10);
        tail.reach(origin(106), 9);
        let legacy = tail.take().expect("a place");
        assert_eq!(legacy.last, b"abcdef");
        assert_eq!((legacy.counting.from, legacy.counting.offset), (9, 106));
        assert!(tail.take().is_none());

        tail.go_on(origin(100), 7, b"", 10);
        tail.push(&[b'x'; 25], 10);
        tail.push(b"yz", 10);
        tail.reach(origin(127), 8);
        // The link breaks, and the stream goes on where the data was.
        tail.push(b"torn", 10);
        tail.go_on(origin(127), 8, b"next", 10);
        tail.reach(origin(131), 9);
        assert_eq!(tail.take().expect("a place").last, b"xxxxyznext");

        tail.go_on(origin(100), 7, b"abc", 10);
        tail.go_on(origin(500), 8, b"def", 10);
        tail.reach(origin(503), 9);
        assert_eq!(tail.take().expect("a place").last, b"def");
    }
}
