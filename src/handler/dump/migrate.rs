//! MIGRATE: which keys go where, and what the other server is sent. (How it is sent, and what becomes of the keys
//! here: call/migrate.rs.)
//!
//! ```text
//! MIGRATE 10.0.0.7 6379 k  0 5000 COPY                                one key
//! MIGRATE 10.0.0.7 6379 "" 0 5000 AUTH secret REPLACE KEYS a b c      several: c is missing, so it stays out
//!   └▶ RESTORE a 0 <payload> REPLACE  RESTORE b 99796 <payload> REPLACE
//! ```

use crate::error::Error;
use crate::handler::args::{Cursor, integer};
use crate::handler::keys::{Used, c_int};
use crate::resp::{Args, Digits, write_command};
use crate::server::targets::Address;
use crate::store::View;
use crate::watch::WatchFlag;
use std::ops::Range;
use std::sync::atomic::Ordering;
use std::time::Duration;

/// What a client has asked for.
pub struct Order {
    pub address: Address,
    pub db: i64,
    pub timeout: Duration,
    /// The arguments of AUTH, if there are any.
    pub login: Vec<Vec<u8>>,
    pub copies: bool,
    replaces: bool,
    /// Which arguments are keys.
    keys: Range<usize>,
}

/// A key that is on its way.
pub struct Moving {
    /// Which argument it is.
    pub place: usize,
    deadline: Option<u64>,
    /// Goes up when somebody changes the key (watch.rs). Each has its own.
    flag: WatchFlag,
}

impl Order {
    pub fn parse(args: &Args) -> Result<Order, Error> {
        let (mut copies, mut replaces) = (false, false);
        let (mut user, mut password) = (None, None);
        let mut keys = 3..4;
        let mut cursor = Cursor::at(args, 6);
        while let Some(option) = cursor.option() {
            match option.as_slice() {
                b"COPY" => copies = true,
                b"REPLACE" => replaces = true,
                b"AUTH" => password = Some(cursor.operand()?),
                b"AUTH2" => (user, password) = (Some(cursor.operand()?), Some(cursor.operand()?)),
                b"KEYS" if !args[3].is_empty() => {
                    return Err(Error::text(
                        "ERR When using MIGRATE KEYS option, the key argument must be set to the empty string",
                    ));
                }
                b"KEYS" => {
                    keys = args.len() - cursor.left()..args.len();
                    break;
                }
                _ => return Err(Error::Syntax),
            }
        }
        let (timeout, db) = (integer(&args[5])?, integer(&args[4])?);
        Ok(Order {
            address: (String::from_utf8_lossy(&args[1]).into_owned(), c_int(&args[2])),
            db,
            timeout: Duration::from_millis(if timeout > 0 { timeout as u64 } else { 1000 }),
            login: user.into_iter().chain(password).map(<[u8]>::to_vec).collect(),
            copies,
            replaces,
            keys,
        })
    }

    /// Looks for the keys, and writes a RESTORE for each that is there. If it is to be deleted later, it is watched
    /// from now on, until [`Moving::end`].
    pub fn pack(&self, view: &View, args: &Args, commands: &mut Vec<u8>) -> Vec<Moving> {
        let mut moving = Vec::new();
        for place in self.keys.clone() {
            let key = args.key(place);
            let Some(entry) = view.entry(key) else {
                continue;
            };
            let deadline = entry.deadline();
            let ttl = deadline.map_or(0, |deadline| deadline.saturating_sub(view.time.now).max(1));
            let (ttl, payload) = (Digits::new(ttl as i64), super::payload(view, entry));
            let words: [&[u8]; 5] = [b"RESTORE", &key, ttl.as_bytes(), &payload, b"REPLACE"];
            let count = if self.replaces { 5 } else { 4 };
            write_command(commands, words[..count].iter().copied());
            let flag = WatchFlag::default();
            if !self.copies {
                view.watch(&key, &flag);
            }
            moving.push(Moving { place, deadline, flag });
        }
        moving
    }
}

impl Moving {
    /// Whether nobody has changed the key since it was packed.
    pub fn is_unchanged(&self) -> bool {
        !self.flag.load(Ordering::Relaxed)
    }

    /// Whether the deadline that was sent has come, so that the key is gone here and there.
    pub fn has_expired(&self, now: u64) -> bool {
        self.deadline.is_some_and(|deadline| deadline <= now)
    }

    /// Ends the watching.
    pub fn end(&self, view: &View, args: &Args) {
        view.unwatch(&args[self.place], &self.flag);
    }
}

/// Where COMMAND GETKEYS finds keys, also if the options make no sense. None if KEYS makes none. As in Redis, it is not
/// looked for if it could only be the last word.
pub fn keys(args: &Args) -> Vec<Used> {
    let mut keys = 3..4;
    let mut may_be_keys = args.iter().take(args.len() - 1).skip(2);
    let is_there = may_be_keys.any(|word| word.eq_ignore_ascii_case(b"keys"));
    let mut cursor = Cursor::at(args, if is_there { 6 } else { args.len() });
    while let Some(word) = cursor.option() {
        // A password may be the word KEYS.
        let skipped = match word.as_slice() {
            b"KEYS" if !args[3].is_empty() => return Vec::new(),
            b"KEYS" => {
                keys = args.len() - cursor.left()..args.len();
                break;
            }
            b"AUTH" => 1,
            b"AUTH2" => 2,
            _ => 0,
        };
        for _ in 0..skipped.min(cursor.left()) {
            cursor.next();
        }
    }
    keys.map(|place| (place, "RW access delete")).collect()
}
