//! What a batch of commands adds to the log, while it is being made.
//!
//! A command that changed something leaves a *record*: a command that replays to the same change.
//! Usually that is the command as it was sent. Where its outcome depends on the time or on chance,
//! or on rounding, it is the outcome: `EXPIRE k 10` becomes `PEXPIREAT k <ms>`.
//!
//! Three rules of form, all Redis's:
//! 1. A *unit* is one command, or one EXEC. If it leaves more than one record, they stand between
//!    `MULTI` and `EXEC`, so that a log that ends in the middle replays all of them or none.
//! 2. A record applies to the database of the last `SELECT` before it. We note where the database
//!    changes; [`crate::aof::Aof::append`] writes the first SELECT only if the log's end is in
//!    another database.
//! 3. Nothing here is on disk, or even in order with others, until `append`, which happens before
//!    the exclusive lock is released: so the order of the log is the order of the changes.
//!
//! **How Redis does it**: server.c, `alsoPropagate` and `propagatePendingCommands`. It keeps the
//! commands as objects, for replicas get them too; with the log alone, bytes will do. What costs us
//! something is the MULTI, which is put in front when the second record shows that it is needed.

use crate::resp::{Args, write_command};

/// The records of one hold of the exclusive lock.
#[derive(Default)]
pub struct Records {
    /// Commands in wire format.
    pub bytes: Vec<u8>,
    /// From each of these offsets on, the records apply to this database.
    pub selects: Vec<(usize, usize)>,
    /// Whether there is a log to make them for. It cannot be switched on while the exclusive lock
    /// is held: that needs the shared one (aof/rewrite.rs).
    pub wanted: bool,
    unit: Unit,
    /// How many units have begun and not ended, each inside the one before.
    depth: usize,
}

#[derive(Default, Clone, Copy)]
struct Unit {
    /// Where in `bytes` it starts.
    start: usize,
    /// How many of the selects came before it.
    selects: usize,
    records: usize,
}

/// Bytes that are kept of each piece of memory through which records go: here, in the log's buffer, and in
/// what is written of it. Values of a megabyte come again, and for the kernel to take memory back
/// and give it again costs as much as all else that is done to log one.
pub const KEPT: usize = 8 * 1024 * 1024;

const MULTI: &[u8] = b"*1\r\n$5\r\nMULTI\r\n";
const EXEC: &[u8] = b"*1\r\n$4\r\nEXEC\r\n";

impl Records {
    /// Whether nothing has changed.
    pub fn is_empty(&self) -> bool {
        self.bytes.is_empty()
    }

    /// Forgets the records, which were appended, and memory that only an unusual batch needed.
    pub fn clear(&mut self) {
        self.bytes.clear();
        self.bytes.shrink_to(KEPT);
        self.selects.clear();
    }

    /// The database in which all of them apply, if there is one.
    pub fn only_db(&self) -> Option<usize> {
        match self.selects[..] {
            [(_, db)] => Some(db),
            _ => None,
        }
    }

    /// Begins a unit: what is pushed until [`Records::end`] replays whole or not at all. Inside another
    /// one, as in EXEC, it is part of that.
    pub fn begin(&mut self) {
        self.depth += 1;
        if self.depth > 1 {
            return;
        }
        self.unit = Unit { start: self.bytes.len(), selects: self.selects.len(), records: 0 };
    }

    /// Appends one record that applies to database `db`.
    pub fn push<'a>(&mut self, db: usize, words: impl ExactSizeIterator<Item = &'a [u8]>) {
        if self.wanted {
            self.begin_record(db);
            write_command(&mut self.bytes, words);
        }
    }

    /// The same for a whole command. If it came in the form in which we would write it, its bytes
    /// are copied: an eighth of the instructions of a logged SET went into writing them anew.
    pub fn push_command(&mut self, db: usize, args: &Args) {
        let Some(bytes) = args.as_sent() else {
            return self.push(db, args.iter());
        };
        if self.wanted {
            self.begin_record(db);
            self.bytes.extend_from_slice(bytes);
        }
    }

    fn begin_record(&mut self, db: usize) {
        if self.selects.last().is_none_or(|&(_, last)| last != db) {
            self.selects.push((self.bytes.len(), db));
        }
        self.unit.records += 1;
    }

    /// Ends the unit; returns how many bytes it has, which is told for the outermost alone.
    pub fn end(&mut self) -> usize {
        self.depth -= 1;
        if self.depth > 0 {
            return 0;
        }
        let Unit { start, selects, records } = self.unit;
        if records > 1 {
            self.bytes.splice(start..start, MULTI.iter().copied());
            self.bytes.extend_from_slice(EXEC);
            // The first SELECT stays before the MULTI, as in Redis.
            self.selects[selects..]
                .iter_mut()
                .filter(|(offset, _)| *offset > start)
                .for_each(|(offset, _)| *offset += MULTI.len());
        }
        self.bytes.len() - start
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn two_records_of_one_unit_stand_between_multi_and_exec() {
        let mut records = Records { wanted: true, ..Records::default() };
        let ping = [&b"PING"[..]];
        records.begin();
        records.push(3, ping.into_iter());
        records.end();
        let one = records.bytes.len();
        records.begin();
        for _ in 0..2 {
            records.begin();
            records.push(4, ping.into_iter());
            assert_eq!(records.end(), 0);
        }
        assert_eq!(records.end(), records.bytes.len() - one);
        assert_eq!(records.selects, [(0, 3), (one, 4)]);
        let text = String::from_utf8(records.bytes).unwrap();
        let words: Vec<_> = text.lines().filter(|line| !line.starts_with(['*', '$'])).collect();
        assert_eq!(words, ["PING", "MULTI", "PING", "PING", "EXEC"]);
    }
}
