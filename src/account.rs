//! What a batch keeps of the commands that it runs: how many, how long, how slow, and, for anybody
//! who wants to watch, the journey of each.
//!
//! **One clock.** The clock is read once a command: the end of one is the start of the next. For
//! the first of a batch it is read when the lock is there, so that nobody's waiting counts as
//! somebody's work. To read a clock is dear, for the processor finishes all that it is doing first.
//! So quick commands share one reading with those of the same name that follow: commands such as GET
//! and TTL, which are a name and a key to be read, and SET without options, if their words are short
//! and the answer too. In a pipeline of these that is a tenth of the server's time. The price: none of
//! them gets into the slow log, unless that is to hold what takes less than a millisecond; and all of
//! them see the time at which the first began.
//!
//! **The glass box.** With `--loglevel debug` every command leaves a line about its journey:
//!
//! ```text
//! client 3: SET, step 2 of 3 of its batch · 11 bytes · exclusive lock, waited 4 µs, held 18 µs by the
//! batch · dirty 1 · 33 of the batch's bytes at 1204..1300 of the log · reply 5 bytes · took 3 µs
//! ```
//!
//! The lines are written when the batch has released its lock and its records are in the file;
//! nothing prints under a lock. Without `debug` all of it costs one look at a level per batch, and
//! one at an `Option` per command.
//!
//! **How Redis does it**: `call` in server.c reads the clock twice a command and counts at once;
//! what we call a journey is spread over its `DEBUG`-level lines, `MONITOR` and `SLOWLOG`.

use crate::client::Client;
use crate::handler::{Command, Flag, Row};
use crate::resp::Args;
use crate::say;
use crate::stats::{Count, Counters, Slow, Stats, add, shorten, unix_microseconds};
use std::ops::Range;

/// The counters of one batch, which are added to the server's when it ends.
#[derive(Default)]
pub struct Account {
    /// Unix time in microseconds: when the command that runs began. 0 if none has yet.
    pub clock: u64,
    /// The row that was called last, for CLIENT LIST; [`crate::server::NO_ROW`] if there is none of that
    /// name.
    pub last_row: Option<usize>,
    tally: Vec<Tally>,
    /// The row of the quick commands that have run since the clock was read.
    untimed: Option<usize>,
    /// Microseconds that the command that runs has taken before it last gave its lock back.
    aside: u64,
    journey: Option<Box<Journey>>,
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

/// What happened to the commands of a batch, for the log level `debug`.
#[derive(Default)]
struct Journey {
    steps: Vec<Step>,
    /// Microseconds that the batch waited for its locks, and held them.
    waited: u64,
    held: u64,
    /// When the lock was asked for, and got.
    asked: u64,
    locked: u64,
}

/// One command's part of the journey.
pub struct Step {
    pub row: &'static Row,
    /// Bytes of its words.
    pub size: usize,
    pub lock: &'static str,
    pub dirty: u64,
    /// Bytes of its records.
    pub logged: usize,
    /// Bytes of its reply.
    pub reply: usize,
    /// Microseconds.
    pub took: u64,
}

impl Account {
    /// Begins a batch.
    pub fn begin(&mut self) {
        self.clock = 0;
        self.last_row = None;
        self.journey = say::is_debug().then(Box::default);
    }

    /// A command of this row begins. Quick ones of another row are timed first.
    pub fn start(&mut self, index: usize) {
        if self.untimed != Some(index) {
            self.time_untimed();
        }
    }

    /// Reads the clock if commands have run since it was read last. What has passed, in
    /// microseconds, counts as theirs, and is returned.
    pub fn time_untimed(&mut self) -> u64 {
        let Some(index) = self.untimed.take() else {
            return 0;
        };
        let now = unix_microseconds();
        let took = now.saturating_sub(self.clock) + std::mem::take(&mut self.aside);
        self.clock = now;
        self.tally_of(index).microseconds += took;
        took
    }

    /// A command begins that takes no lock.
    pub fn start_unlocked(&mut self) {
        if self.clock == 0 {
            self.clock = unix_microseconds();
        }
    }

    /// A lock is about to be waited for.
    pub fn ask_for_lock(&mut self) {
        if let Some(journey) = &mut self.journey {
            journey.asked = unix_microseconds();
        }
    }

    /// The lock is held: from here on time counts as work.
    pub fn lock_taken(&mut self) {
        self.clock = unix_microseconds();
        if let Some(journey) = &mut self.journey {
            journey.locked = self.clock;
            journey.waited += self.clock.saturating_sub(journey.asked);
        }
    }

    /// The lock was released.
    pub fn lock_released(&mut self) {
        if let Some(journey) = &mut self.journey {
            journey.held += unix_microseconds().saturating_sub(journey.locked);
        }
    }

    /// The command that runs gives its lock back and will go on: what it has taken so far is kept.
    pub fn set_aside(&mut self) {
        let now = unix_microseconds();
        self.aside += now.saturating_sub(self.clock);
        self.clock = now;
    }

    /// It goes on without a lock; what it has waited for does not count.
    pub fn go_on(&mut self) {
        self.clock = unix_microseconds();
    }

    /// Counts a command that has just ended; returns how long it took, in microseconds, with the
    /// quick ones of its own row that ran just before it.
    pub fn count(&mut self, index: usize, failed: bool) -> u64 {
        // In an EXEC quick commands may have run since it began.
        self.start(index);
        self.count_untimed(index, failed);
        self.time_untimed()
    }

    /// Counts a quick command, which will be timed with those that follow.
    pub fn count_untimed(&mut self, index: usize, failed: bool) {
        self.last_row = Some(index);
        self.untimed = Some(index);
        let tally = self.tally_of(index);
        tally.calls += 1;
        tally.failed += u64::from(failed);
    }

    /// Whether the journey of each command is told, with the time that it took.
    pub fn has_journey(&self) -> bool {
        self.journey.is_some()
    }

    /// Counts a command that was refused before it ran.
    pub fn count_rejected(&mut self, index: usize) {
        self.last_row = Some(index);
        self.tally_of(index).rejected += 1;
    }

    /// Notes a step of the journey, if somebody watches; `step` is not called otherwise.
    pub fn note_step(&mut self, step: impl FnOnce() -> Step) {
        if let Some(journey) = &mut self.journey {
            journey.steps.push(step());
        }
    }

    /// Adds everything to the counters of the server and of the client.
    pub fn settle(&mut self, stats: &Stats, own: &Counters) {
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

    /// Prints the journeys of the batch. `log` is where in the log file its records are.
    pub fn tell_journey(&mut self, client: &Client, log: &Range<i64>) {
        let Some(journey) = self.journey.take() else {
            return;
        };
        let Journey { steps, waited, held, .. } = *journey;
        for (index, step) in steps.iter().enumerate() {
            let name = step.row.command.name.to_ascii_uppercase();
            let logged = match step.logged {
                0 => "nothing to the log".to_string(),
                bytes => format!("{bytes} of the batch's bytes at {log:?} of the log"),
            };
            say::debug(format_args!(
                "client {}: {name}, step {} of {} of its batch · {} bytes · {}, waited {waited} µs, \
                 held {held} µs by the batch · dirty {} · {logged} · reply {} bytes · took {} µs",
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
        let mut account = Account::default();
        account.begin();
        account.start_unlocked();
        account.count_untimed(GET, false);
        account.start(GET);
        account.count_untimed(GET, true);
        account.clock -= SECOND;
        account.start(SET);
        account.count(SET, false);
        account.count_untimed(GET, false);
        account.clock -= SECOND;
        account.count(EXEC, false);
        account.clock -= SECOND;
        account.time_untimed();
        let mut counted = |row| {
            let tally = account.tally_of(row);
            (tally.calls, tally.failed, tally.microseconds / SECOND)
        };
        assert_eq!(counted(GET), (3, 1, 2));
        assert_eq!(counted(SET), (1, 0, 0));
        assert_eq!(counted(EXEC), (1, 0, 0));
    }
}
