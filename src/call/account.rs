//! What a batch keeps of the commands that it runs: how many, how long, how slow, and, for anybody
//! who wants to watch, the trace of each.
//!
//! Counting only listens: [`Account::before`] and [`Account::after`] each command. The time is the batch's
//! (batch/clock.rs), and what its clock says was work since the last look is the command's.
//!
//! **Quick commands** share one reading of the clock with those of the same name that follow: commands such
//! as GET and TTL, which are a name and a key to be read, and SET without options, if their words are short
//! and the answer too. The price: none of them gets into the slow log, unless that is to hold what takes
//! less than a millisecond.
//!
//! **The glass box.** With `--loglevel debug` every command leaves a line about its trace:
//!
//! ```text
//! client 3: SET, step 2 of 3 of its batch · 11 bytes · exclusive lock, waited 4 µs, held 18 µs by the
//! batch · dirty 1 · 33 bytes to the log, written up to 1300 · reply 5 bytes · took 3 µs
//! ```
//!
//! The log was written up to byte 1300, counted since the server started, before the reply left. The
//! lines are written when the batch has released its lock and its records are in the file;
//! nothing prints under a lock. Without `debug` all of it costs one look at a level per batch, and
//! one at an `Option` per command.
//!
//! **How Redis does it**: `call` in server.c reads the clock twice a command and counts at once;
//! what we call a trace is spread over its `DEBUG`-level lines, `MONITOR` and `SLOWLOG`.

use crate::batch::{Batch, Clock, LockTimes};
use crate::client::Client;
use crate::handler::server::{show_monitors, shown};
use crate::handler::{Command, Flag, Row};
use crate::log;
use crate::resp::{Args, Reply};
use crate::stats::{Count, Counters, Slow, Stats, add, shorten, shorten_words, unix_microseconds};

/// The counters of one batch, which are added to the server's when it ends.
#[derive(Default)]
pub struct Account {
    /// The row that was called last, for CLIENT LIST; [`crate::server::NO_ROW`] if there is none of that
    /// name.
    pub last_row: Option<usize>,
    tally: Vec<Tally>,
    /// The row of the quick commands that have run and are not charged yet.
    untimed: Option<usize>,
    /// How much of [`Clock::worked`] has been charged to commands.
    charged: u64,
    /// The steps of the trace, if somebody watches.
    trace: Option<Vec<Step>>,
}

/// What is seen of a command before it runs, for when it has ended; and whether it has failed.
pub struct Seen {
    pub failed: bool,
    /// How long the batch's records and the output were, in bytes.
    records: usize,
    reply: usize,
}

/// What is counted of one command.
#[derive(Default)]
struct Tally {
    index: usize,
    calls: u64,
    microseconds: u64,
    rejected: u64,
    failed: u64,
}

/// One command's part of the trace.
pub struct Step {
    pub row: &'static Row,
    /// Bytes of its words.
    pub size: usize,
    pub lock: &'static str,
    pub dirty: u64,
    /// Bytes of its records.
    pub records: usize,
    /// Bytes of its reply.
    pub reply: usize,
    /// Microseconds.
    pub took: u64,
}

impl Account {
    /// Begins a batch.
    pub fn begin(&mut self) {
        self.last_row = None;
        self.trace = log::is_debug().then(Vec::new);
    }

    /// Whether the trace of each command is told, with the time that it took.
    pub fn has_trace(&self) -> bool {
        self.trace.is_some()
    }

    /// A command is about to run.
    pub fn before(&mut self, row: &Row, reply: &Reply, batch: &mut Batch) -> Seen {
        self.charge_others(row.index, &mut batch.clock);
        Seen { failed: false, records: batch.recorded(), reply: reply.out.len() }
    }

    /// A command has ended: counts it, for all who want to know.
    pub fn after(
        &mut self,
        row: &'static Row,
        client: &Client,
        args: &Args,
        reply: &mut Reply,
        batch: &mut Batch,
        seen: Seen,
    ) {
        let slower_than = batch.server.config.slowlog_log_slower_than.get();
        // It may have been thrown away.
        let reply_length = reply.out.len().saturating_sub(seen.reply);
        if !self.each_is_shown(batch) && is_quick(row.command, args, reply_length, slower_than) {
            return self.count_untimed(row.index, seen.failed, &mut batch.clock);
        }
        let took = self.count(row.index, seen.failed, &mut batch.clock);
        if let Some(trace) = &mut self.trace {
            trace.push(Step {
                row,
                size: args.iter().map(<[u8]>::len).sum(),
                lock: batch.lock_name(),
                dirty: batch.dirty,
                // Who has given the lock back meanwhile has handed over what was there before.
                records: batch.recorded().saturating_sub(seen.records),
                reply: reply_length,
                took,
            });
        }
        // EXEC's commands are listed one by one.
        if slower_than >= 0 && took as i64 >= slower_than && !row.command.is(Flag::SkipSlowlog) {
            let words = shorten_words(&shown(row, args));
            add_to_slow_log(client, words, took);
        }
        if batch.server.hub.has_monitors() {
            show_monitors(client, row, args, batch.clock.now, reply);
        }
    }

    /// Whether the words of each command are shown to somebody.
    fn each_is_shown(&self, batch: &Batch) -> bool {
        self.has_trace() || batch.server.hub.has_monitors()
    }

    /// Charges the quick commands of another row than this, before one of this row runs.
    fn charge_others(&mut self, index: usize, clock: &mut Clock) {
        if self.untimed != Some(index) {
            self.charge_untimed(clock);
        }
    }

    /// Charges the quick commands that have run with the work since the last charge, in microseconds, and
    /// returns it.
    fn charge_untimed(&mut self, clock: &mut Clock) -> u64 {
        let Some(index) = self.untimed.take() else {
            return 0;
        };
        clock.catch_up();
        let took = clock.worked - std::mem::replace(&mut self.charged, clock.worked);
        self.tally_of(index).microseconds += took;
        took
    }

    /// Counts a command that has just ended; returns how long it took, in microseconds, with the
    /// quick ones of its own row that ran just before it.
    fn count(&mut self, index: usize, failed: bool, clock: &mut Clock) -> u64 {
        // In an EXEC quick commands may have run since it began.
        self.charge_others(index, clock);
        self.count_untimed(index, failed, clock);
        self.charge_untimed(clock)
    }

    /// Counts a quick command, which will be charged with those that follow.
    fn count_untimed(&mut self, index: usize, failed: bool, clock: &mut Clock) {
        clock.put_off();
        self.last_row = Some(index);
        self.untimed = Some(index);
        let tally = self.tally_of(index);
        tally.calls += 1;
        tally.failed += u64::from(failed);
    }

    /// Counts a command that was refused before it ran.
    pub fn count_rejected(&mut self, index: usize) {
        self.last_row = Some(index);
        self.tally_of(index).rejected += 1;
    }

    /// Adds everything to the counters of the server and of the client.
    pub fn settle(&mut self, stats: &Stats, own: &Counters, clock: &mut Clock) {
        self.charge_untimed(clock);
        for tally in self.tally.drain(..) {
            let command = &stats.of_commands[tally.index];
            add(&command.calls, tally.calls);
            add(&command.microseconds, tally.microseconds);
            add(&command.rejected, tally.rejected);
            add(&command.failed, tally.failed);
            own.add(Count::Commands, tally.calls);
            own.add(Count::ErrorReplies, tally.failed + tally.rejected);
        }
    }

    /// Prints the traces of the batch.
    pub fn write_trace(&mut self, client: &Client, batch: &Batch) {
        let (Some(steps), Some(times)) = (self.trace.take(), &batch.clock.lock_times) else {
            return;
        };
        let (position, LockTimes { waited, held, .. }) = (batch.position, &**times);
        for (index, step) in steps.iter().enumerate() {
            let name = step.row.command.name.to_ascii_uppercase();
            let records = match step.records {
                0 => "nothing to the log".to_string(),
                bytes => format!("{bytes} bytes to the log, written up to {position}"),
            };
            log::debug(format_args!(
                "client {}: {name}, step {} of {} of its batch · {} bytes · {}, waited {waited} µs, \
                 held {held} µs by the batch · dirty {} · {records} · reply {} bytes · took {} µs",
                client.public.id,
                index + 1,
                steps.len(),
                step.size,
                step.lock,
                step.dirty,
                step.reply,
                step.took,
            ));
        }
    }

    /// The counters of a row, made when it first comes up.
    fn tally_of(&mut self, index: usize) -> &mut Tally {
        // A batch rarely has more than two different commands, and often the last one again.
        let known = self.tally.iter().rposition(|tally| tally.index == index);
        let at = known.unwrap_or_else(|| {
            self.tally.push(Tally { index, ..Tally::default() });
            self.tally.len() - 1
        });
        &mut self.tally[at]
    }
}

/// Whether a command may share the reading of the clock with others: it is a name and a key to be
/// read, or SET without options, and none of its words is long, nor the answer, so there is nothing
/// that could take longer than a microsecond. (What a SET replaces is freed off the lock, if it is
/// large.) `slower_than` is what the slow log is for, in microseconds, or less than 0.
pub fn is_quick(command: &Command, args: &Args, reply_length: usize, slower_than: i64) -> bool {
    command.is(Flag::Quick)
        && args.len() <= 3
        && args.iter().all(|word| word.len() < QUICK)
        && reply_length < QUICK
        && !(0..1000).contains(&slower_than)
}

/// Bytes from which on a word or an answer is long.
const QUICK: usize = 1024;

/// Adds a command to the slow log; `words` are as [`crate::stats::shorten_words`] leaves them.
pub fn add_to_slow_log(client: &Client, words: Vec<Vec<u8>>, took: u64) {
    let slow = Slow {
        id: 0,
        time: unix_microseconds() / 1_000_000,
        microseconds: took,
        words,
        addr: client.public.address(),
        name: shorten(&client.public.shown.lock().unwrap().name),
    };
    let most = client.server.config.slowlog_max_len.get();
    let mut slow_log = client.server.stats.slow_log.lock().unwrap();
    slow_log.add(most, slow);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::handler::{Run, TABLE};

    #[test]
    fn quick_is_what_reads_one_key_and_set_without_options() {
        let quick = |command: &Command, words: &[&[u8]]| {
            let mut args = Args::default();
            words.iter().for_each(|word| args.push(word));
            is_quick(command, &args, 0, 10_000)
        };
        let commands = TABLE.rows.iter().map(|row| row.command);
        let flagged: Vec<_> = commands.filter(|c| c.is(Flag::Quick)).collect();
        assert!(flagged.len() > 10);
        for command in flagged {
            let reads = matches!(command.run, Run::Read(_)) && command.arity == 2;
            assert!(reads || command.name == "set", "{}", command.name);
            assert_eq!(command.keys.first, 1, "{}", command.name);
            assert!(quick(command, &[b"NAME", b"key"]), "{}", command.name);
        }
        let set = TABLE.find(b"set").unwrap().command;
        assert!(quick(set, &[b"SET", b"key", b"value"]));
        assert!(!quick(set, &[b"SET", b"key", b"value", b"GET"]));
        assert!(!quick(TABLE.find(b"incr").unwrap().command, &[b"INCR", b"key"]));
    }

    #[test]
    fn nothing_long_is_quick_nor_anything_while_the_slow_log_is_for_microseconds() {
        let quick = |name: &str, word: usize, reply, slower_than| {
            let mut args = Args::default();
            args.push(name.as_bytes());
            args.push(b"key");
            args.push(&vec![b'v'; word]);
            let row = TABLE.find(name.as_bytes()).unwrap();
            is_quick(row.command, &args, reply, slower_than)
        };
        for name in ["get", "set"] {
            assert!(quick(name, 1023, 1023, 1000) && quick(name, 1, 1, -1));
            assert!(!quick(name, 1024, 1, 1000) && !quick(name, 1, 1024, 1000));
            assert!(!quick(name, 1, 1, 999) && !quick(name, 1, 1, 0));
        }
    }

    #[test]
    fn quick_commands_in_a_row_share_their_time_and_no_others_pay_for_them() {
        const GET: usize = 1;
        const SET: usize = 2;
        const EXEC: usize = 3;
        const SECOND: u64 = 1_000_000;
        let (mut account, mut clock) = (Account::default(), Clock::default());
        clock.go_on();
        account.count_untimed(GET, false, &mut clock);
        account.charge_others(GET, &mut clock);
        account.count_untimed(GET, true, &mut clock);
        clock.now -= SECOND;
        account.charge_others(SET, &mut clock);
        account.count(SET, false, &mut clock);
        account.count_untimed(GET, false, &mut clock);
        clock.now -= SECOND;
        account.count(EXEC, false, &mut clock);
        clock.now -= SECOND;
        account.charge_untimed(&mut clock);
        let mut counted = |row| {
            let tally = account.tally_of(row);
            (tally.calls, tally.failed, tally.microseconds / SECOND)
        };
        assert_eq!(counted(GET), (3, 1, 2));
        assert_eq!(counted(SET), (1, 0, 0));
        assert_eq!(counted(EXEC), (1, 0, 0));
    }
}
