//! Counters for INFO, and the slow log.
//!
//! A counter that every command raises is a cache line that every core wants. So each client has
//! [`Counters`] of its own, which its thread alone writes, once a batch; INFO adds them up, and
//! those of the clients that have left. Shared are the counters for each command of the table, of
//! which there are many, and what is counted rarely or once a batch.
//!
//! ```text
//! command ─▶ the batch's tally (call/account.rs) ─▶ the client's counters, once a batch ─▶ INFO
//!                                                     └─▶ a sample ten times a second ─▶ …_per_sec
//! ```
//!
//! Totals grow until CONFIG RESETSTAT. What happens in a second is the difference between the
//! oldest and the newest of 17 samples. The slow log keeps the newest entries, with no more of a
//! command than a reader wants to see: 32 words of 128 bytes.
//!
//! **How Redis does it**: plain integers, for there is one thread; slowlog.c. Ours may be read
//! while they change, so two totals of one INFO may differ by the batches in between.

use std::collections::VecDeque;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Instant, SystemTime};

/// Counters since the start, or since CONFIG RESETSTAT.
#[derive(Default)]
pub struct Stats {
    /// Unix time in seconds.
    pub started: u64,
    /// Accepted, those that were then rejected included.
    pub connections: AtomicU64,
    pub rejected_connections: AtomicU64,
    pub expired_keys: AtomicU64,
    /// Clients that were ended because all together held too much.
    pub evicted_clients: AtomicU64,
    /// What the clients that have left had counted.
    left: Counters,
    /// What all clients had counted at the last CONFIG RESETSTAT.
    zero: Mutex<Totals>,
    /// One for each row of the command table, in its order.
    pub of_commands: Vec<OfCommand>,
    pub slow_log: Mutex<SlowLog>,
    /// When [`Stats::sample`] was called last, and what the totals were.
    samples: Mutex<VecDeque<(Instant, Totals)>>,
}

/// What one client counts.
#[derive(Default)]
pub struct Counters([AtomicU64; KINDS]);

/// What is counted, and where in [`Counters`] and [`Totals`].
#[derive(Clone, Copy)]
pub enum Count {
    Commands,
    InputBytes,
    OutputBytes,
    Hits,
    Misses,
    ErrorReplies,
}

const KINDS: usize = Count::ErrorReplies as usize + 1;

/// Sums over clients.
pub type Totals = [u64; KINDS];

impl Counters {
    /// Adds to a counter that only the caller writes to: that needs no turn at the cache line.
    pub fn add(&self, count: Count, amount: u64) {
        let counter = &self.0[count as usize];
        counter.store(counter.load(Ordering::Relaxed) + amount, Ordering::Relaxed);
    }

    fn read(&self) -> Totals {
        self.0.each_ref().map(|counter| counter.load(Ordering::Relaxed))
    }
}

/// What happens in a second, at present.
pub struct Rates {
    pub commands: f64,
    pub input_bytes: f64,
    pub output_bytes: f64,
}

/// What `INFO commandstats` says of a command.
#[derive(Default)]
pub struct OfCommand {
    pub calls: AtomicU64,
    /// That all of them together took.
    pub microseconds: AtomicU64,
    /// Refused before it ran: wrong arity, no password, loading, ….
    pub rejected: AtomicU64,
    /// Answered with an error.
    pub failed: AtomicU64,
}

impl Stats {
    /// `commands` is how many rows the command table has.
    pub fn new(commands: usize) -> Stats {
        let of_commands = (0..commands).map(|_| OfCommand::default()).collect();
        Stats { started: unix_microseconds() / 1_000_000, of_commands, ..Stats::default() }
    }

    /// Sums over all clients since the last reset; `here` are the counters of those who have not
    /// left.
    pub fn totals<'a>(&self, here: impl Iterator<Item = &'a Counters>) -> Totals {
        let zero = *self.zero.lock().unwrap();
        let sum = sum(here.map(Counters::read).chain([self.left.read()]));
        std::array::from_fn(|kind| sum[kind].saturating_sub(zero[kind]))
    }

    /// Keeps what a client has counted that is leaving.
    pub fn keep(&self, leaving: &Counters) {
        for (counter, amount) in self.left.0.iter().zip(leaving.read()) {
            add(counter, amount);
        }
    }

    /// CONFIG RESETSTAT.
    pub fn reset<'a>(&self, here: impl Iterator<Item = &'a Counters>) {
        *self.zero.lock().unwrap() = sum(here.map(Counters::read).chain([self.left.read()]));
        let counters = [
            &self.connections,
            &self.rejected_connections,
            &self.expired_keys,
            &self.evicted_clients,
        ];
        let of_commands = self.of_commands.iter();
        let of_commands =
            of_commands.flat_map(|c| [&c.calls, &c.microseconds, &c.rejected, &c.failed]);
        let all = counters.into_iter().chain(of_commands);
        all.for_each(|counter| counter.store(0, Ordering::Relaxed));
        self.samples.lock().unwrap().clear();
    }

    /// Takes a sample of the totals; called ten times a second. As in Redis, the last 16 intervals
    /// are what is "at present".
    pub fn sample(&self, totals: Totals) {
        let mut samples = self.samples.lock().unwrap();
        samples.push_back((Instant::now(), totals));
        if samples.len() > 17 {
            samples.pop_front();
        }
    }

    /// The rates between the first and the last sample; none while there are not two.
    pub fn rates(&self) -> Option<Rates> {
        let samples = self.samples.lock().unwrap();
        let (&(from, before), &(to, after)) = (samples.front()?, samples.back()?);
        let seconds = (to - from).as_secs_f64();
        let rate = |count: Count| {
            after[count as usize].saturating_sub(before[count as usize]) as f64 / seconds
        };
        (seconds > 0.0).then(|| Rates {
            commands: rate(Count::Commands),
            input_bytes: rate(Count::InputBytes),
            output_bytes: rate(Count::OutputBytes),
        })
    }
}

fn sum(all: impl Iterator<Item = Totals>) -> Totals {
    all.fold(Totals::default(), |sum, one| std::array::from_fn(|kind| sum[kind] + one[kind]))
}

/// Unix time in microseconds.
pub fn unix_microseconds() -> u64 {
    let since_epoch = SystemTime::UNIX_EPOCH.elapsed().unwrap_or_default();
    since_epoch.as_micros() as u64
}

/// Adds to a counter that others may be adding to.
pub fn add(counter: &AtomicU64, amount: u64) {
    if amount > 0 {
        counter.fetch_add(amount, Ordering::Relaxed);
    }
}

/// The last commands that took longer than `slowlog-log-slower-than`.
#[derive(Default)]
pub struct SlowLog {
    /// The newest first.
    pub entries: VecDeque<Slow>,
    next_id: u64,
}

pub struct Slow {
    /// Counted from 0 since the start; [`SlowLog::add`] gives it.
    pub id: u64,
    /// Unix time in seconds.
    pub time: u64,
    /// That it took.
    pub microseconds: u64,
    /// See [`shorten_words`].
    pub words: Vec<Vec<u8>>,
    /// The client's address, and as much of its name as of a word.
    pub addr: String,
    pub name: Vec<u8>,
}

impl SlowLog {
    /// Adds a command, and keeps the newest `most`.
    pub fn add(&mut self, most: usize, mut slow: Slow) {
        slow.id = self.next_id;
        self.next_id += 1;
        self.entries.push_front(slow);
        self.entries.truncate(most);
    }
}

/// The slow log keeps this many words of a command, and so many bytes of each (slowlog.h).
const MOST_WORDS: usize = 32;
const MOST_BYTES: usize = 128;

/// As much of a command as the slow log keeps.
pub fn shorten_words(words: &[&[u8]]) -> Vec<Vec<u8>> {
    // The last place is then for saying how many are left out.
    let shown = match words.len() {
        count @ ..=MOST_WORDS => count,
        _ => MOST_WORDS - 1,
    };
    let (shown, rest) = words.split_at(shown);
    let mut kept: Vec<Vec<u8>> = shown.iter().map(|word| shorten(word)).collect();
    if !rest.is_empty() {
        kept.push(format!("... ({} more arguments)", rest.len()).into_bytes());
    }
    kept
}

/// As much of a word, or of a client's name.
pub fn shorten(word: &[u8]) -> Vec<u8> {
    match word.split_at_checked(MOST_BYTES) {
        Some((shown, rest)) if !rest.is_empty() => {
            [shown, format!("... ({} more bytes)", rest.len()).as_bytes()].concat()
        }
        _ => word.to_vec(),
    }
}
