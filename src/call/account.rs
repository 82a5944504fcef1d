//! Counting: what the statistics, the slow log, monitors and the trace get to know of each command.
//!
//! [`Account::before`] and [`Account::after`] each command, the account only listens. The batch owns the
//! time (batch/clock.rs).
//!
//! **Quick commands** of one name that follow each other share one reading of the clock, because to read it
//! takes a tenth of the time of a GET in a pipeline. Quick are reads of one key or field without options, such as GET
//! and TTL, and changes of one value, such as SET, INCR and LPUSH, if command and reply are short. The price: they
//! do not get into the slow log, unless its threshold is under a millisecond, and all of them see the time
//! at which the first one began.
//!
//! **The trace.** With `--loglevel debug` the server writes a line for each command:
//!
//! ```text
//! client 3: SET, step 2 of 3 of its batch · 11 bytes · exclusive lock, waited 4 µs, held 18 µs by the
//! batch · dirty 1 · 33 bytes to the log, written up to 1300 · reply 5 bytes · took 3 µs
//! ```
//!
//! The log was written up to byte 1300, counted since the server started, before the reply left. The lines
//! are written after the batch has released its lock, because nothing may be printed under a lock. Without
//! `debug` this costs one check per batch and one per command.
//!
//! **How Redis does it**: `call` in server.c reads the clock twice per command and counts at once. It has
//! MONITOR and SLOWLOG, but no trace.

use crate::batch::{Batch, Clock, LockTimes};
use crate::client::Client;
use crate::handler::server::{show_monitors, shown};
use crate::handler::{Flag, Row};
use crate::log;
use crate::resp::{Args, Reply};
use crate::stats::{
    Count, Counters, OfCommand, Slow, Stats, add, shorten, shorten_args, unix_microseconds,
};
use std::time::Duration;

/// The counters of one batch. They are added to the server's when the batch ends.
#[derive(Default)]
pub struct Account {
    /// The row of the last command, for CLIENT LIST, or [`crate::server::NO_ROW`].
    pub last_row: Option<usize>,
    /// Each row that has been called, with its counts.
    tally: Vec<(usize, OfCommand<u64>)>,
    /// The commands of one row that have run and do not have their time yet. They are not in the tally.
    untimed: Option<Untimed>,
    /// With `debug`: the trace.
    trace: Option<Vec<Step>>,
    /// What scripts have said by `redis.log`. It is written when no lock is held.
    said: Vec<(u8, Vec<u8>)>,
    said_bytes: usize,
}

/// What scripts say beyond this many bytes in one batch is left out.
const MOST_SAID: usize = 64 * 1024;

struct Untimed {
    row: usize,
    calls: u64,
    failed: u64,
}

/// What [`Account::before`] keeps for [`Account::after`].
pub struct Before {
    pub failed: bool,
    /// Bytes of the batch's records, and of its replies.
    records: usize,
    reply: usize,
}

/// One command in the trace. Lengths are in bytes.
struct Step {
    row: &'static Row,
    args: usize,
    lock: &'static str,
    dirty: u64,
    records: usize,
    reply: usize,
    /// Microseconds.
    took: u64,
}

impl Account {
    /// With room for one row, because most clients call one in a batch, and each keeps it.
    pub fn new() -> Account {
        Account { tally: Vec::with_capacity(1), ..Account::default() }
    }

    pub fn begin(&mut self) {
        self.last_row = None;
        self.trace = log::is_debug().then(Vec::new);
    }

    pub fn has_trace(&self) -> bool {
        self.trace.is_some()
    }

    /// Before a command runs. Quick commands of other rows get their time, while the lock is still held under
    /// which they ran.
    pub fn before(&mut self, row: &Row, reply: &Reply, batch: &mut Batch) -> Before {
        self.measure_others(row.index, &mut batch.clock);
        Before { failed: false, records: batch.recorded(), reply: reply.out.len() }
    }

    /// After a command: counts it, and tells the slow log, the monitors and the trace.
    pub fn after(
        &mut self,
        row: &'static Row,
        client: &Client,
        args: &Args,
        reply: &mut Reply,
        batch: &mut Batch,
        before: Before,
    ) {
        let slower_than = batch.server.config.slowlog_log_slower_than.get();
        // The output may have been thrown away.
        let reply_length = reply.out.len().saturating_sub(before.reply);
        self.count(row.index, before.failed, &mut batch.clock);
        let has_monitors = batch.server.hub.has_monitors();
        let is_short = args.len() <= FEW && args.large_size() == 0 && reply_length < LONG;
        let is_quick = row.command.is(Flag::Quick) && is_short;
        if is_quick && !has_monitors && !self.has_trace() && !(0..1000).contains(&slower_than) {
            return;
        }
        let took = self.measure(&mut batch.clock);
        if let Some(trace) = &mut self.trace {
            trace.push(Step {
                row,
                args: args.length(),
                lock: batch.lock_name(),
                dirty: batch.dirty,
                // A command that has released the lock has handed over the records before it.
                records: batch.recorded().saturating_sub(before.records),
                reply: reply_length,
                took,
            });
        }
        if took >= 1000 {
            batch.server.config.latency.note("command", Duration::from_micros(took));
        }
        if slower_than >= 0 && took as i64 >= slower_than && !row.command.is(Flag::SkipSlowlog) {
            add_to_slow_log(client, shorten_args(&shown(row, args)), took);
        }
        // A script has shown itself before its commands.
        if has_monitors && !row.command.is_script() {
            show_monitors(client, row, args, batch.clock.now, reply);
        }
    }

    /// Gives the commands of another row the time that they took, if they do not have it yet.
    fn measure_others(&mut self, index: usize, clock: &mut Clock) {
        if self.untimed.as_ref().is_some_and(|untimed| untimed.row != index) {
            self.measure(clock);
        }
    }

    /// Gives the commands that have run the time since the last measurement. Returns it, in microseconds.
    pub fn measure(&mut self, clock: &mut Clock) -> u64 {
        let Some(untimed) = self.untimed.take() else {
            return 0;
        };
        clock.read();
        let took = std::mem::take(&mut clock.worked);
        let [calls, microseconds, _, failed] = self.tally_of(untimed.row);
        *calls += untimed.calls;
        *microseconds += took;
        *failed += untimed.failed;
        took
    }

    /// Counts a command that has ended. It gets its time later.
    fn count(&mut self, index: usize, failed: bool, clock: &mut Clock) {
        // If this is EXEC, other commands have run since it began.
        self.measure_others(index, clock);
        self.last_row = Some(index);
        let new = Untimed { row: index, calls: 0, failed: 0 };
        let untimed = self.untimed.get_or_insert(new);
        untimed.calls += 1;
        untimed.failed += u64::from(failed);
    }

    pub fn count_rejected(&mut self, index: usize) {
        self.last_row = Some(index);
        let [_, _, rejected, _] = self.tally_of(index);
        *rejected += 1;
    }

    /// Adds the tally to the counters of the server and of the client.
    pub fn add_counts(&mut self, stats: &Stats, own: &Counters) {
        for (index, counts) in self.tally.drain(..) {
            for (counter, count) in stats.of_commands[index].iter().zip(counts) {
                add(counter, count);
            }
            let [calls, microseconds, ..] = counts;
            stats.histograms[index].add(calls, microseconds);
            own.add(Count::Commands, calls);
        }
    }

    /// A script says something, at one of Redis's levels.
    pub fn say(&mut self, level: u8, text: &[u8]) {
        if log::writes(level) && self.said_bytes < MOST_SAID {
            self.said_bytes += text.len() + size_of::<(u8, Vec<u8>)>();
            let shown = &text[..text.len().min(MOST_SAID)];
            self.said.push((level, shown.to_vec()));
        }
    }

    /// Writes what handlers and scripts have said, and the trace.
    pub fn write_trace(&mut self, client: &mut Client, batch: &Batch) {
        client.notices.drain(..).for_each(|text| log::notice(format_args!("{text}")));
        self.said_bytes = 0;
        self.said.drain(..).for_each(|(level, text)| log::of_script(level, &text));
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
                step.args,
                step.lock,
                step.dirty,
                step.reply,
                step.took,
            ));
        }
    }

    fn tally_of(&mut self, index: usize) -> &mut OfCommand<u64> {
        // From behind: most batches have one or two different commands.
        let known = self.tally.iter().rposition(|(row, _)| *row == index);
        let at = known.unwrap_or_else(|| {
            self.tally.push((index, [0; 4]));
            self.tally.len() - 1
        });
        &mut self.tally[at].1
    }
}

/// A reply of this many bytes is long: HGETALL of a small hash is quick, and of a large one it is not.
const LONG: usize = 1024;

/// A command with more arguments is long: LPUSH of one element is quick, and of a thousand it is not.
const FEW: usize = 8;

/// Adds a command to the slow log. `args` come from [`shorten_args`].
fn add_to_slow_log(client: &Client, args: Vec<Vec<u8>>, took: u64) {
    let slow = Slow {
        id: 0,
        time: unix_microseconds() / 1_000_000,
        microseconds: took,
        args,
        addr: if client.in_script { "?:0".into() } else { client.public.address() },
        name: match client.in_script {
            true => Vec::new(),
            false => shorten(&client.public.shown.lock().unwrap().name),
        },
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
    fn quick_is_what_reads_one_key_or_field_or_changes_one_value() {
        let commands = TABLE.rows.iter().map(|row| row.command);
        let quick: Vec<_> = commands.filter(|c| c.is(Flag::Quick)).collect();
        assert!(quick.len() > 10);
        for command in quick {
            let words = if command.is(Flag::ThenField) { 3 } else { 2 };
            let reads = matches!(command.run, Run::Read(_)) && command.arity == words;
            assert!(reads || matches!(command.run, Run::Write(_)), "{}", command.name);
            assert_eq!((command.keys.first, command.keys.last), (1, 1), "{}", command.name);
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
        account.count(GET, false, &mut clock);
        account.measure_others(GET, &mut clock);
        account.count(GET, true, &mut clock);
        clock.now -= SECOND;
        account.measure_others(SET, &mut clock);
        account.count(SET, false, &mut clock);
        account.measure(&mut clock);
        account.count(GET, false, &mut clock);
        clock.now -= SECOND;
        account.count(EXEC, false, &mut clock);
        account.measure(&mut clock);
        clock.now -= SECOND;
        account.measure(&mut clock);
        let mut counted = |row| {
            let [calls, microseconds, _, failed] = *account.tally_of(row);
            (calls, failed, microseconds / SECOND)
        };
        assert_eq!(counted(GET), (3, 1, 2));
        assert_eq!(counted(SET), (1, 0, 0));
        assert_eq!(counted(EXEC), (1, 0, 0));
    }
}
