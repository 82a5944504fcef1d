//! Redis's snapshot format: all keys in one file, which every Redis and Valkey can load.
//!
//! The log says what happened, a snapshot says what is there. It is how data moves: to a replica, which begins
//! with one; from a Redis server to this one; and with DUMP and RESTORE key by key.
//!
//! ```text
//! REDIS0010                               the version
//! 250 redis-ver 7.0.15 …                  AUX: what may be of use, and may be passed over
//! 254 0   251 2 1                         SELECTDB 0, RESIZEDB: 2 keys, of which 1 expires
//! 0 name Ada                              type 0, a string: the key, and the value
//! 252 <8 bytes>  16 user <listpack>       EXPIRETIME_MS: the deadline of the key that follows, a hash
//! 255 <8 bytes>                           EOF, and the CRC of all bytes before it
//! ```
//!
//! A number that counts something takes one, two, five or nine bytes. A string is such a length and its bytes;
//! or a small whole number in binary; or what LZF (rdb/lzf.rs) has made of it. A small collection is one string:
//! the memory in which Redis has it (rdb/listpack.rs).
//!
//! Written is version 10, as by redis-server 7.0, which every later one reads too. For a collection it is what
//! Redis itself would write: so DUMP answers with the same bytes.
//!
//! **How Redis does it**: rdb.c. It forks, and the child writes the memory of the parent as it was at the fork.

mod crc64;
mod listpack;
mod lzf;
mod read;
mod restore;
mod source;
mod value;
mod write;
mod ziplist;

pub use read::{Found, check, is_snapshot, read};
pub use restore::{BEHIND, restore};
pub use write::{How, dump, write, write_moment};

use std::fmt;

/// Why a snapshot cannot be read.
#[derive(Debug)]
pub struct Error {
    /// Bytes that were read before.
    pub offset: u64,
    pub reason: String,
    pub cause: Cause,
}

/// Whether it makes sense to try again.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Cause {
    /// This server does not have it: the type, the version, the database. It would come again.
    NotHere,
    /// The bytes are no snapshot, or have not come. Those of another try may be.
    Damaged,
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        write!(f, "at offset {}: {}", self.offset, self.reason)
    }
}

/// The version that is written.
const VERSION: u16 = 10;

/// Versions that are read. (Valkey counts its own from 80 on.)
const OLDEST: u16 = 6;
const NEWEST: u16 = 12;
const NEWEST_OF_VALKEY: u16 = 80;

/// Says that the next bytes are no key. (Redis: `RDB_OPCODE_…`)
mod opcode {
    /// Nothing below is one.
    pub const FIRST: u8 = 243;
    pub const SLOT_INFO: u8 = 244;
    pub const FUNCTION: u8 = 245;
    pub const MODULE_AUX: u8 = 247;
    pub const IDLE: u8 = 248;
    pub const FREQUENCY: u8 = 249;
    pub const AUX: u8 = 250;
    pub const RESIZE_DB: u8 = 251;
    pub const EXPIRES_MS: u8 = 252;
    /// In seconds, before Redis 2.6.
    pub const EXPIRES: u8 = 253;
    pub const SELECT_DB: u8 = 254;
    pub const EOF: u8 = 255;
}

/// How a value is stored. (Redis: `RDB_TYPE_…`)
mod form {
    pub const STRING: u8 = 0;
    pub const LIST: u8 = 1;
    pub const SET: u8 = 2;
    /// Scores are text.
    pub const ZSET: u8 = 3;
    pub const HASH: u8 = 4;
    /// Scores are doubles in binary.
    pub const ZSET_2: u8 = 5;
    pub const LIST_ZIPLIST: u8 = 10;
    pub const SET_INTSET: u8 = 11;
    pub const ZSET_ZIPLIST: u8 = 12;
    pub const HASH_ZIPLIST: u8 = 13;
    /// Nodes, each a ziplist.
    pub const LIST_QUICKLIST: u8 = 14;
    pub const HASH_LISTPACK: u8 = 16;
    pub const ZSET_LISTPACK: u8 = 17;
    /// Nodes, each a listpack or one long element.
    pub const LIST_QUICKLIST_2: u8 = 18;
    pub const SET_LISTPACK: u8 = 20;
}

/// What a node of a quicklist is.
mod node {
    pub const PLAIN: u64 = 1;
    pub const PACKED: u64 = 2;
}

/// How a string is stored whose first byte has the two highest bits set: a number, or packed by LZF.
mod encoding {
    pub const INT_8: u8 = 0xc0;
    pub const INT_16: u8 = 0xc1;
    pub const INT_32: u8 = 0xc2;
    pub const LZF: u8 = 0xc3;
}

#[cfg(test)]
mod tests;
