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

impl Origin {
    /// The command that says it, in the log. (Redis answers REPLCONF ACK with nothing, and does nothing either, if it
    /// does not come from a replica.)
    pub fn with_record<R>(&self, use_it: impl FnOnce(&[&[u8]]) -> R) -> R {
        let (offset, db) = (Digits::new(self.offset as i64), Digits::new(self.db as i64));
        let (offset, db) = (offset.as_bytes(), db.as_bytes());
        use_it(&[b"REPLCONF", b"ACK", offset, b"ID", self.id.as_bytes(), b"DB", db])
    }

    /// The origin that such a command says.
    pub fn of_record(args: &Args) -> Option<Origin> {
        let number = |at: usize| Some(parse_integer(&args[at])?.max(0) as u64);
        if args.len() != 7 || &args[3] != b"ID" || &args[5] != b"DB" {
            return None;
        }
        let id = std::str::from_utf8(&args[4]).ok()?.into();
        Some(Origin { id, offset: number(2)?, db: number(6)? as usize })
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
