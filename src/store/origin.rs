//! How far the data is in the history of a primary.
//!
//! A replica that was killed asks its primary for what came since, and so it must know what it has. The place
//! belongs to the data: it stands in the keyspace; in the log, in the same unit as the changes that lead there;
//! and at the end of a base. There it is a command that Redis passes over, when it loads the log and when it is
//! our replica:
//!
//! ```text
//! MULTI   INCR a   SET b 2   REPLCONF ACK 4711 ID 8c6d…e1 DB 0   EXEC
//! ```
//!
//! If anybody else changes the data, it is at no place of that history any more.
//!
//! **How Redis does it**: it writes the place into its snapshots. After a start from the log it asks for everything.

use super::Keyspace;
use crate::resp::{Args, Digits, parse_integer};
use std::sync::Arc;

#[derive(Clone)]
pub struct Origin {
    /// The id of the history.
    pub id: Arc<str>,
    /// Of its bytes, so many are in the data.
    pub offset: u64,
    /// The database that the last SELECT has named.
    pub db: usize,
}

/// An offset that somebody names is not more than this, so that what is added to it fits into Redis's 63 bits too.
const MOST_OFFSET: u64 = 1 << 62;

impl Origin {
    /// A place that somebody else has named. None if there can be no such place. (The id is shown by INFO.)
    pub fn named(id: &[u8], offset: &[u8], db: usize) -> Option<Origin> {
        let id = std::str::from_utf8(id).ok().filter(|id| Origin::is_id(id))?.into();
        let offset = u64::try_from(parse_integer(offset)?).ok().filter(|at| *at <= MOST_OFFSET)?;
        Some(Origin { id, offset, db })
    }

    /// Whether it may be the id of a history.
    pub fn is_id(id: &str) -> bool {
        id.len() == 40 && id.bytes().all(|byte| byte.is_ascii_graphic())
    }

    /// The command that says it, in the log. (Redis answers REPLCONF ACK with nothing, and does nothing either, if it
    /// does not come from a replica.)
    pub fn with_record<R>(&self, use_it: impl FnOnce(&[&[u8]]) -> R) -> R {
        let (offset, db) = (Digits::new(self.offset as i64), Digits::new(self.db as i64));
        let (offset, db) = (offset.as_bytes(), db.as_bytes());
        use_it(&[b"REPLCONF", b"ACK", offset, b"ID", self.id.as_bytes(), b"DB", db])
    }

    /// The origin that such a command says.
    pub fn of_record(args: &Args) -> Option<Origin> {
        if args.len() != 7 || &args[3] != b"ID" || &args[5] != b"DB" {
            return None;
        }
        let db = usize::try_from(parse_integer(&args[6])?).ok()?;
        Origin::named(&args[4], &args[2], db)
    }
}

impl Keyspace {
    /// Where the data is, if nobody has changed it since [`Keyspace::set_origin`].
    pub fn origin(&self) -> Option<&Origin> {
        let (origin, changes) = self.origin.as_ref()?;
        (*changes == self.changes).then_some(origin)
    }

    pub fn set_origin(&mut self, origin: Origin) {
        self.origin = Some((origin, self.changes));
    }
}
