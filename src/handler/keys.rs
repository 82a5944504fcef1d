//! Which arguments of a command are keys, and what the command does with them.
//!
//! A row names the places of its keys, and, if it does anything but read them, what it does. The last word is
//! for all keys that follow:
//!
//! ```text
//! MGET key [key ...]                     ALL_KEYS                                       RO access
//! LMOVE source destination LEFT RIGHT    TWO_KEYS  .uses("RW access delete, RW insert")
//! SINTERSTORE destination key [key ...]  ALL_KEYS  .uses("RW update, RO access")
//! ZDIFFSTORE destination 2 a b           DESTINATION, whose argument 2 counts keys
//! ```
//!
//! The words are Redis's: `RO` reads, `RW` changes, `OW` replaces, `RM` removes. `access` gives the client data of
//! the value, and not only its length or type; `update`, `insert` and `delete` say how it changes. `not_key` is
//! a channel, which a cluster treats as a key. MIGRATE's `KEYS` is a word behind which keys stand.
//!
//! COMMAND GETKEYS asks [`Command::keys_of`]. COMMAND INFO shows the same as Redis's key specifications
//! ([`Command::key_specs`]).
//!
//! **How Redis does it**: each command's JSON has its key specifications, and `getKeysFromCommand` in db.c
//! follows them. Where they cannot say it, a function does. So here ([`Command::uses_by`]): SET, BITFIELD
//! and SORT have one.

use super::{Command, args};
use crate::resp::{Args, Reply};

/// Which arguments are keys.
#[derive(Clone, Copy)]
pub struct Keys {
    /// 0 if there is none.
    pub first: i64,
    /// Negative: counted from the end.
    pub last: i64,
    pub step: i64,
    /// The argument that says how many keys follow it; 0 if none does.
    pub counted_by: usize,
}

// The shapes that Redis's commands have.
pub const NO_KEY: Keys = Keys { first: 0, last: 0, step: 0, counted_by: 0 };
pub const ONE_KEY: Keys = Keys { first: 1, last: 1, step: 1, ..NO_KEY };
pub const TWO_KEYS: Keys = Keys { first: 1, last: 2, step: 1, ..NO_KEY };
pub const ALL_KEYS: Keys = Keys { first: 1, last: -1, step: 1, ..NO_KEY };
pub const EVERY_OTHER: Keys = Keys { first: 1, last: -1, step: 2, ..NO_KEY };
/// `LMPOP numkeys key [key ...]`. With a key before them: `Keys { counted_by: 2, ..ONE_KEY }`.
pub const COUNTED_KEYS: Keys = Keys { counted_by: 1, ..NO_KEY };
/// One key, after the name of a subcommand.
pub const SUBCOMMAND_KEY: Keys = Keys { first: 2, last: 2, step: 1, ..NO_KEY };

impl Keys {
    /// Where keys are among so many arguments. (Not those that one of the arguments counts.)
    #[inline]
    pub fn places(self, len: usize) -> impl Iterator<Item = usize> + Clone {
        let last = if self.last < 0 { len as i64 + self.last } else { self.last };
        // SUNSUBSCRIBE may have no argument where its row has a key.
        let last = last.min(len as i64 - 1);
        let mut next = self.first;
        std::iter::from_fn(move || {
            let place = next;
            next += self.step;
            (0 < place && place <= last).then_some(place as usize)
        })
    }
}

/// What a command does with its keys.
#[derive(Clone, Copy)]
pub struct Uses {
    /// For each key, joined by `, `. A `?` in front of one: its place depends on the arguments.
    text: &'static str,
    /// Says it for given arguments, if it depends on them.
    of: Option<fn(&Args) -> Vec<Used>>,
}

/// The index of a key among the arguments, and what is done with it.
pub type Used = (usize, &'static str);

/// What is done with the keys of a row that does not say it.
pub const READS: Uses = Uses { text: "RO access", of: None };

const NOT_KEY: &str = "not_key";

/// In front of what is done with keys that stand behind the word KEYS.
const BEHIND_KEYS: &str = "?KEYS ";

impl Command {
    /// Says what it does with its keys.
    pub const fn uses(mut self, text: &'static str) -> Command {
        self.uses.text = text;
        self
    }

    /// The same, where it depends on the arguments.
    pub const fn uses_by(mut self, text: &'static str, of: fn(&Args) -> Vec<Used>) -> Command {
        self.uses = Uses { text, of: Some(of) };
        self
    }

    pub fn has_keys(&self) -> bool {
        (self.keys.first > 0 || self.keys.counted_by > 0) && self.uses.text != NOT_KEY
    }

    /// Whether `keys` does not say where all keys are.
    pub fn has_movable_keys(&self) -> bool {
        self.keys.counted_by > 0 || self.uses.text.contains('?')
    }

    /// The keys among these arguments, whose number is right. None if they make no sense. If the number of keys is
    /// no number, or negative, Redis asks an older function, which counts as C's `atoi`, names the destination last,
    /// and knows no uses.
    pub fn keys_of(&self, args: &Args) -> Option<Vec<Used>> {
        if let Some(of) = self.uses.of {
            return Some(of(args)).filter(|keys| !keys.is_empty());
        }
        let Keys { first, counted_by, .. } = self.keys;
        let mut places: Vec<usize> = self.keys.places(args.len()).collect();
        if counted_by > 0 {
            let count = usize::try_from(c_int(&args[counted_by])).ok()?;
            let from = counted_by + 1;
            if count == 0 || count > args.len() - from {
                return None;
            }
            places.extend(from..from + count);
            if !args::integer(&args[counted_by]).is_ok_and(|count| count >= 0) {
                places.rotate_left((first > 0).into());
                return Some(places.into_iter().map(|place| (place, "")).collect());
            }
        }
        let uses: Vec<&str> = self.each_use().collect();
        let used = |(index, place): (usize, usize)| (place, uses[index.min(uses.len() - 1)]);
        Some(places.into_iter().enumerate().map(used).collect())
    }

    /// What it does with the keys whose places are known.
    fn each_use(&self) -> impl Iterator<Item = &'static str> {
        self.uses.text.split(", ").filter(|text| !text.starts_with('?'))
    }

    /// Its key specifications, as COMMAND INFO shows them. (Redis has a note beside some.)
    pub fn key_specs(&self, reply: &mut Reply) {
        let Keys { first, last, step, counted_by } = self.keys;
        if first == 0 && counted_by == 0 {
            return reply.set(0);
        }
        let placed = self.each_use().count() - usize::from(counted_by > 0 && first > 0);
        reply.set(self.uses.text.split(", ").count());
        for (index, text) in self.uses.text.split(", ").enumerate() {
            reply.map(3);
            reply.bulk(b"flags");
            reply_flags(text.trim_start_matches(BEHIND_KEYS).trim_start_matches('?'), reply);
            let at = first + index as i64;
            let range = |last| ("range", vec![("lastkey", last), ("keystep", step), ("limit", 0)]);
            let (begin, find) = if text.starts_with(BEHIND_KEYS) {
                (("keyword", vec![("startfrom", -2)]), range(-1))
            } else if text.starts_with('?') {
                (("unknown", vec![]), ("unknown", vec![]))
            } else if counted_by > 0 && (first == 0 || index == placed) {
                let find = vec![("keynumidx", 0), ("firstkey", 1), ("keystep", 1)];
                (("index", vec![("index", counted_by as i64)]), ("keynum", find))
            } else {
                let is_last = index + 1 == placed;
                let lastkey = if !is_last {
                    0
                } else if last < 0 {
                    last
                } else {
                    last - at
                };
                (("index", vec![("index", at)]), range(lastkey))
            };
            for (name, (kind, numbers)) in [("begin_search", begin), ("find_keys", find)] {
                reply.bulk(name.as_bytes());
                reply.map(2);
                reply.bulk(b"type");
                reply.bulk(kind.as_bytes());
                reply.bulk(b"spec");
                let is_keyword = kind == "keyword";
                reply.map(numbers.len() + usize::from(is_keyword));
                if is_keyword {
                    reply.bulk(b"keyword");
                    reply.bulk(b"KEYS");
                }
                for (name, number) in numbers {
                    reply.bulk(name.as_bytes());
                    reply.integer(number);
                }
            }
        }
    }
}

/// What is done with a key, as a set of words.
pub fn reply_flags(text: &str, reply: &mut Reply) {
    let words: Vec<&str> = text.split_ascii_whitespace().collect();
    reply.set(words.len());
    words.into_iter().for_each(|word| reply.status(word));
}

/// As C's `atoi`: the number at the beginning, or 0, and of one that is too large the last 32 bits. So Redis counts keys
/// here, and reads MIGRATE's port.
pub(super) fn c_int(text: &[u8]) -> i32 {
    let text = text.trim_ascii_start();
    let (is_negative, digits) = match text {
        [b'-', digits @ ..] => (true, digits),
        [b'+', digits @ ..] => (false, digits),
        digits => (false, digits),
    };
    let digits = digits.iter().take_while(|byte| byte.is_ascii_digit());
    let number = digits.fold(0i64, |number, byte| {
        let digit = i64::from(byte - b'0');
        number.saturating_mul(10).saturating_add(if is_negative { -digit } else { digit })
    });
    number as i32
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::handler::{Flag, TABLE};

    #[test]
    fn whoever_changes_a_key_says_how() {
        for row in &TABLE.rows {
            let command = row.command;
            let reads = command.uses.text.starts_with("RO");
            if command.writes() && command.has_keys() && reads {
                let changes = command.uses.text.split(", ").any(|text| !text.contains("RO"));
                assert!(changes, "{}: its row needs `uses`", command.name);
            }
        }
    }

    /// A row that forgets the flag would take memory at the limit of `maxmemory`.
    #[test]
    fn what_may_take_memory_makes_room_first() {
        // As in Redis: what these take, they mostly give back elsewhere.
        const EXCEPT: [&str; 10] = [
            "getex",
            "smove",
            "move",
            "rename",
            "renamenx",
            "expire",
            "pexpire",
            "expireat",
            "pexpireat",
            "persist",
        ];
        for row in &TABLE.rows {
            let Command { name, uses, .. } = row.command;
            let grows = uses.text.contains("insert") || uses.text.contains("update");
            let may_grow = row.command.writes() && grows && !EXCEPT.contains(name);
            assert_eq!(row.command.is(Flag::DenyOom), may_grow, "{name}: its row needs `DenyOom`");
        }
    }

    /// Whoever has checked the arity reads the first key without another check.
    #[test]
    fn a_command_with_a_key_has_an_argument_for_it() {
        for row in TABLE.rows.iter().filter(|row| row.command.has_keys()) {
            let Command { name, arity, keys, .. } = row.command;
            assert!(keys.first < arity.abs(), "{name}");
            assert!((keys.counted_by as i64) < arity.abs(), "{name}");
        }
    }
}
