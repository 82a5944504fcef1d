//! The records that commands leave for the log, and the stream of all records.
//!
//! A command that changed something leaves a *record*: a command that replays to the same change.
//! Usually that is the command as it was sent. Where its outcome depends on the time, on chance or on
//! rounding, the record is the outcome: `EXPIRE k 10` becomes `PEXPIREAT k <ms>`.
//!
//! ```text
//!               Records: one hold of the exclusive lock                        Stream
//! command ───▶  [ SET a 1 │ MULTI  DEL b  INCR b  EXEC │ SELECT 3  SET c 2 ] ───▶ SELECT 0 …  ───▶ the log
//!                             b had expired              in another database
//! ```
//!
//! Four rules of form, all Redis's:
//! 1. A *unit* replays as a whole: one command with the DELs of expired keys that it has met, one EXEC, one pop for a
//!    client that waits in BLPOP, or the DEL of one expired key that no command has named (SCAN, RANDOMKEY and active
//!    expiry meet such keys). If it leaves more than one record, they stand between `MULTI` and `EXEC`. So a log that
//!    ends in the middle replays all of them or none.
//! 2. The DEL of an expired key stands before the records of the command that met the key, even if that command
//!    had recorded something before ([`Records::push_expired`]).
//! 3. A record applies to the database of the last `SELECT` before it. Records say where the database
//!    changes. They do not know the database of the stream's last record, so the stream writes the SELECT
//!    in front of them.
//! 4. Records join the stream before the exclusive lock is released. So the stream has the order of the
//!    changes.
//!
//! The log is the only subscriber: it keeps the stream under its mutex and takes the bytes out of it
//! (aof.rs). Replicas read them from the log's files (aof/backlog.rs).
//!
//! **How Redis does it**: server.c, `alsoPropagate` and `propagatePendingCommands`. It keeps commands as
//! objects, and each subscriber writes them for itself. We write the bytes once. The price: a MULTI or a DEL
//! that turns out to be needed moves the bytes after it.

use crate::resp::{Args, Digits, write_command};

/// Who a command comes from.
#[derive(Clone, Copy, PartialEq)]
pub enum Source {
    Client,
    /// The log, which is replayed. Its commands have run once. So they are not logged or counted again, they
    /// are not refused, and no limit holds for them. To them an expired key is a key like others, until its
    /// DEL comes. They have their keyspace for themselves, and keep its lock from one to the next.
    Log,
    /// The primary that we follow. Its commands have run there: they are not refused, no limit holds for them, and
    /// expired keys wait for their DEL. But they change what clients see, so they are logged and counted.
    Primary,
}

/// The records of one hold of the exclusive lock.
#[derive(Default)]
pub struct Records {
    /// Commands in wire format, with a SELECT wherever the database changes.
    pub bytes: Vec<u8>,
    /// The databases of the first and of the last record, if there are bytes.
    first_db: usize,
    last_db: usize,
    /// Whether there is a subscriber to make them for. It is asked when the exclusive lock is taken.
    pub wanted: bool,
    /// A script has said that its commands are not logged (`redis.set_repl`). DELs of expired keys are.
    pub leaves_out_commands: bool,
    /// How many units have begun and not ended, each inside the one before.
    depth: usize,
    /// Where the first record of the outermost unit begins, and how many records the unit has.
    unit_start: usize,
    unit_count: usize,
    /// Where the first record of the present command begins, and its database. None: it has no record yet.
    command_start: Option<(usize, usize)>,
}

/// Bytes that each buffer through which records go keeps for the next ones, at most: this one, the stream's, and the
/// one that is written to the file. Whoever sends a value of a megabyte often sends another. To give memory back to
/// the kernel and to get it again costs as much as all else that is done to log such a value.
pub const KEPT: usize = 8 * 1024 * 1024;

const MULTI: &[u8] = b"*1\r\n$5\r\nMULTI\r\n";
const EXEC: &[u8] = b"*1\r\n$4\r\nEXEC\r\n";

impl Records {
    /// Forgets the records, and memory that only an unusual batch needed.
    pub fn clear(&mut self) {
        self.bytes.clear();
        self.bytes.shrink_to(KEPT);
    }

    /// Begins a unit: what is pushed until [`Records::end`] replays whole or not at all. Inside another
    /// one, as in EXEC, it is part of that.
    pub fn begin(&mut self) {
        self.depth += 1;
        if self.depth == 1 {
            self.unit_count = 0;
        }
    }

    /// Begins a command of the unit, before it records anything: from here on, DELs of expired keys go before
    /// its records.
    pub fn begin_command(&mut self) {
        self.command_start = None;
    }

    /// Appends one record that applies to database `db`.
    pub fn push<'a>(&mut self, db: usize, args: impl ExactSizeIterator<Item = &'a [u8]>) {
        if self.wanted && !self.leaves_out_commands {
            self.write(db, args);
        }
    }

    /// The same for a whole command. If it came in the form in which we would write it, its bytes
    /// are copied: an eighth of the instructions of a logged SET went into writing them anew.
    pub fn push_command(&mut self, db: usize, args: &Args) {
        if !self.wanted || self.leaves_out_commands {
            return;
        }
        let Some(bytes) = args.as_sent() else {
            return self.write(db, args.iter());
        };
        self.begin_record(db);
        self.bytes.extend_from_slice(bytes);
    }

    /// Appends one more record to a unit that has some.
    pub fn push_behind(&mut self, db: usize, words: &[&[u8]]) {
        if self.unit_count > 0 {
            self.push(db, words.iter().copied());
        }
    }

    /// Adds the DEL of an expired key that the present command has met, before the command's own records.
    pub fn push_expired(&mut self, db: usize, key: &[u8]) {
        let del = [&b"DEL"[..], key].into_iter();
        let Some((start, own_db)) = self.command_start else {
            if self.wanted {
                self.write(db, del);
            }
            // `write` has taken this DEL for the command's own first record, which it is not. So the DEL of another
            // expired key comes behind this one, not in front of it.
            self.command_start = None;
            return;
        };
        // [ … │ own records ] becomes [ … │ DEL │ own records ].
        let own = self.bytes.split_off(start);
        if db != own_db {
            write_select(&mut self.bytes, db);
        }
        write_command(&mut self.bytes, del);
        if db != own_db {
            write_select(&mut self.bytes, own_db);
        }
        self.command_start = Some((self.bytes.len(), own_db));
        self.bytes.extend_from_slice(&own);
        self.unit_count += 1;
    }

    fn write<'a>(&mut self, db: usize, args: impl ExactSizeIterator<Item = &'a [u8]>) {
        self.begin_record(db);
        write_command(&mut self.bytes, args);
    }

    fn begin_record(&mut self, db: usize) {
        if self.bytes.is_empty() {
            self.first_db = db;
        } else if self.last_db != db {
            write_select(&mut self.bytes, db);
        }
        self.last_db = db;
        if self.unit_count == 0 {
            self.unit_start = self.bytes.len();
        }
        if self.command_start.is_none() {
            self.command_start = Some((self.bytes.len(), db));
        }
        self.unit_count += 1;
    }

    /// Ends the unit. Returns whether that was the outermost one, and has records.
    pub fn end(&mut self) -> bool {
        self.depth -= 1;
        if self.depth > 0 {
            return false;
        }
        if self.unit_count > 1 {
            // As in Redis, a SELECT in front of the first record stays in front of the MULTI.
            self.bytes.splice(self.unit_start..self.unit_start, MULTI.iter().copied());
            self.bytes.extend_from_slice(EXEC);
        }
        self.unit_count > 0
    }
}

/// All records, in the order of the changes: what has joined and was not yet taken by the subscriber.
#[derive(Default)]
pub struct Stream {
    pub bytes: Vec<u8>,
    /// The database of its last record. None at the beginning of a file, so that a SELECT comes first there.
    pub db: Option<usize>,
}

impl Stream {
    /// Appends records, at least one; returns how many bytes that were. If nothing is before them, they are not
    /// copied: their memory is exchanged for that of the stream.
    pub fn append(&mut self, records: &mut Records) -> usize {
        let before = self.bytes.len();
        if self.db != Some(records.first_db) {
            write_select(&mut self.bytes, records.first_db);
        }
        self.db = Some(records.last_db);
        if self.bytes.is_empty() {
            std::mem::swap(&mut self.bytes, &mut records.bytes);
        } else {
            self.bytes.extend_from_slice(&records.bytes);
        }
        self.bytes.len() - before
    }
}

fn write_select(bytes: &mut Vec<u8>, db: usize) {
    let digits = Digits::new(db as i64);
    write_command(bytes, [b"SELECT", digits.as_bytes()].into_iter());
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ping(records: &mut Records, db: usize) {
        records.push(db, [&b"PING"[..]].into_iter());
    }

    /// What the stream has got, as redis-cli would show it; it ends in database 0 before.
    fn streamed(mut records: Records) -> Vec<String> {
        let mut stream = Stream { db: Some(0), ..Stream::default() };
        stream.append(&mut records);
        let text = String::from_utf8(stream.bytes).unwrap();
        let commands = text.split('*').skip(1);
        let args = |command: &str| {
            let args = command.lines().skip(1).filter(|line| !line.starts_with('$'));
            args.collect::<Vec<_>>().join(" ")
        };
        commands.map(args).collect()
    }

    fn records() -> Records {
        Records { wanted: true, ..Records::default() }
    }

    #[test]
    fn two_records_of_one_unit_stand_between_multi_and_exec() {
        let mut records = records();
        records.begin();
        records.begin_command();
        ping(&mut records, 3);
        assert!(records.end());
        records.begin();
        for _ in 0..2 {
            records.begin();
            records.begin_command();
            ping(&mut records, 4);
            assert!(!records.end());
        }
        assert!(records.end());
        records.begin();
        assert!(!records.end());
        let wanted = ["SELECT 3", "PING", "SELECT 4", "MULTI", "PING", "PING", "EXEC"];
        assert_eq!(streamed(records), wanted);
    }

    #[test]
    fn the_del_of_an_expired_key_stands_before_what_its_command_has_recorded_by_then() {
        for db in [0, 2] {
            let mut records = records();
            records.begin();
            records.begin_command();
            ping(&mut records, db);
            records.begin_command();
            records.push_expired(db, b"a");
            ping(&mut records, db);
            ping(&mut records, db);
            records.push_expired(db, b"b");
            records.push_expired(db, b"c");
            assert!(records.end());
            let streamed = streamed(records);
            let rest = streamed.strip_prefix(&["SELECT 2".to_string()]).unwrap_or(&streamed);
            assert_eq!(rest.len() < streamed.len(), db == 2);
            let wanted = ["MULTI", "PING", "DEL a", "DEL b", "DEL c", "PING", "PING", "EXEC"];
            assert_eq!(rest, wanted);
        }
    }

    #[test]
    fn the_del_of_an_expired_key_changes_the_database_of_no_other_record() {
        let mut records = records();
        records.begin();
        records.begin_command();
        ping(&mut records, 0);
        records.push_expired(7, b"a");
        records.push_expired(0, b"b");
        ping(&mut records, 7);
        assert!(records.end());
        let wanted =
            ["MULTI", "SELECT 7", "DEL a", "SELECT 0", "DEL b", "PING", "SELECT 7", "PING", "EXEC"];
        assert_eq!(streamed(records), wanted);
    }
}
