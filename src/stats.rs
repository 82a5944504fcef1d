//! Counters for INFO, and the slow log.
//!
//! If all threads raised one counter, all cores would compete for its cache line. So each client has its
//! own [`Counters`]. Only its own thread writes them, once per batch. INFO adds them up, with those of
//! clients that have left. Shared counters are those for each command of the table, because there are many
//! of them, and whatever is counted rarely.
//!
//! ```text
//! command ─▶ the batch's tally (call/account.rs) ─▶ the client's counters, once per batch ─▶ INFO
//!                                                     └─▶ a sample ten times a second ─▶ …_per_sec
//! ```
//!
//! Totals grow until CONFIG RESETSTAT. A rate is the difference between the oldest and the newest of
//! 17 samples. The slow log keeps 32 arguments of a command, and 128 bytes of each.
//!
//! **How Redis does it**: plain integers, because it has one thread; slowlog.c. Ours may change while INFO
//! reads them, so two totals of one INFO may differ by a few batches.

use crate::error::Tally;
use crate::latency::Histogram;
use std::collections::VecDeque;
use std::hash::{BuildHasher, Hasher, RandomState};
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::{Instant, SystemTime};

/// Counters since the start, or since CONFIG RESETSTAT.
#[derive(Default)]
pub struct Stats {
    /// Accepted connections, with those that were then rejected.
    pub connections: AtomicU64,
    pub rejected_connections: AtomicU64,
    pub expired_keys: AtomicU64,
    pub evicted_keys: AtomicU64,
    /// Microseconds that the active expire cycle has worked.
    pub expire_cycle: AtomicU64,
    /// The most bytes that were in use when somebody looked (server/memory.rs). It is never reset.
    pub peak_memory: AtomicUsize,
    /// Clients that were ended because of `maxmemory-clients`.
    pub evicted_clients: AtomicU64,
    /// Large values and whole databases that lazyfree has freed, and those that wait for it.
    pub freed: AtomicU64,
    pub to_be_freed: AtomicU64,
    /// The counters of all clients that have left.
    left: Counters,
    /// The totals at the last CONFIG RESETSTAT.
    zero: Mutex<Totals>,
    /// One for each row of the command table, in the same order.
    pub of_commands: Vec<OfCommand<AtomicU64>>,
    /// The errors that clients were told. A leaf.
    pub errors: Mutex<Tally>,
    /// Their times, in the same order.
    pub histograms: Vec<Histogram>,
    pub slow_log: Mutex<SlowLog>,
    /// The last calls of [`Stats::sample`]: when, and with which totals.
    samples: Mutex<VecDeque<(Instant, Totals)>>,
}

/// What one client counts.
#[derive(Default)]
pub struct Counters([AtomicU64; KINDS]);

/// What is counted. Also the index in [`Counters`] and [`Totals`].
#[derive(Clone, Copy)]
pub enum Count {
    Commands,
    InputBytes,
    OutputBytes,
    Hits,
    Misses,
}

const KINDS: usize = Count::Misses as usize + 1;

/// Sums over clients.
pub type Totals = [u64; KINDS];

impl Counters {
    /// Adds to a counter that only the calling thread writes. So no atomic addition is needed.
    pub fn add(&self, count: Count, amount: u64) {
        let counter = &self.0[count as usize];
        counter.store(counter.load(Ordering::Relaxed) + amount, Ordering::Relaxed);
    }

    fn read(&self) -> Totals {
        self.0.each_ref().map(|counter| counter.load(Ordering::Relaxed))
    }
}

/// What `INFO commandstats` says of a command: its calls, the microseconds that these took together, those
/// that were refused before they ran (wrong arity, no password, loading), and those that failed.
pub type OfCommand<N> = [N; 4];

impl Stats {
    /// `commands` is the number of rows in the command table.
    pub fn new(commands: usize) -> Stats {
        let of_commands = (0..commands).map(|_| OfCommand::default()).collect();
        let histograms = (0..commands).map(|_| Histogram::default()).collect();
        Stats { of_commands, histograms, ..Stats::default() }
    }

    /// Sums over all clients since the last reset. `here` are the counters of connected clients.
    pub fn totals<'a>(&self, here: impl Iterator<Item = &'a Counters>) -> Totals {
        let zero = *self.zero.lock().unwrap();
        let sum = sum(here.map(Counters::read).chain([self.left.read()]));
        std::array::from_fn(|kind| sum[kind].saturating_sub(zero[kind]))
    }

    /// Adds a departing client's counters to the totals.
    pub fn keep(&self, leaving: &Counters) {
        for (counter, amount) in self.left.0.iter().zip(leaving.read()) {
            add(counter, amount);
        }
    }

    /// Adds errors that a client was told.
    pub fn count_errors(&self, told: &mut Tally) {
        if !told.0.is_empty() {
            self.errors.lock().unwrap().take_over(told);
        }
    }

    /// Counts a call as failed, which was counted as called when it began to wait.
    pub fn count_failed(&self, row: Option<usize>) {
        if let Some([.., failed]) = row.and_then(|row| self.of_commands.get(row)) {
            add(failed, 1);
        }
    }

    /// CONFIG RESETSTAT.
    pub fn reset<'a>(&self, here: impl Iterator<Item = &'a Counters>) {
        *self.zero.lock().unwrap() = sum(here.map(Counters::read).chain([self.left.read()]));
        let counters = [
            &self.connections,
            &self.rejected_connections,
            &self.expired_keys,
            &self.evicted_keys,
            &self.expire_cycle,
            &self.evicted_clients,
            &self.freed,
        ];
        let all = counters.into_iter().chain(self.of_commands.iter().flatten());
        all.for_each(|counter| counter.store(0, Ordering::Relaxed));
        self.histograms.iter().for_each(Histogram::reset);
        self.samples.lock().unwrap().clear();
        self.errors.lock().unwrap().0.clear();
    }

    /// Takes a sample of the totals. Called ten times a second. As in Redis, rates are over the last 16
    /// intervals.
    pub fn sample(&self, totals: Totals) {
        let mut samples = self.samples.lock().unwrap();
        samples.push_back((Instant::now(), totals));
        if samples.len() > 17 {
            samples.pop_front();
        }
    }

    /// How much a counter grows per second. 0 until there are two samples.
    pub fn rate(&self, count: Count) -> f64 {
        let samples = self.samples.lock().unwrap();
        let (Some(&(from, before)), Some(&(to, after))) = (samples.front(), samples.back()) else {
            return 0.0;
        };
        let seconds = (to - from).as_secs_f64();
        let growth = after[count as usize].saturating_sub(before[count as usize]);
        if seconds > 0.0 { growth as f64 / seconds } else { 0.0 }
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

/// Forty random hexadecimal digits.
pub fn random_id() -> String {
    let random = || RandomState::new().build_hasher().finish();
    format!("{:016x}{:016x}{:08x}", random(), random(), random() as u32)
}

/// Adds to a counter that several threads write.
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
    /// Counts from 0 since the start. [`SlowLog::add`] sets it.
    pub id: u64,
    /// Unix time in seconds.
    pub time: u64,
    /// How long the command took.
    pub microseconds: u64,
    /// The arguments, shortened by [`shorten_args`].
    pub args: Vec<Vec<u8>>,
    /// The client's address and name.
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

/// The slow log keeps this many arguments of a command, and this many bytes of each (slowlog.h).
const MOST_ARGS: usize = 32;
const MOST_BYTES: usize = 128;

/// Shortens a command as the slow log keeps it.
pub fn shorten_args(args: &[&[u8]]) -> Vec<Vec<u8>> {
    // If some are left out, the last place says how many.
    let shown = if args.len() <= MOST_ARGS { args.len() } else { MOST_ARGS - 1 };
    let (shown, rest) = args.split_at(shown);
    let mut kept: Vec<Vec<u8>> = shown.iter().map(|arg| shorten(arg)).collect();
    if !rest.is_empty() {
        kept.push(format!("... ({} more arguments)", rest.len()).into_bytes());
    }
    kept
}

/// Shortens an argument, or a client's name.
pub fn shorten(arg: &[u8]) -> Vec<u8> {
    match arg.split_at_checked(MOST_BYTES) {
        Some((shown, rest)) if !rest.is_empty() => {
            [shown, format!("... ({} more bytes)", rest.len()).as_bytes()].concat()
        }
        _ => arg.to_vec(),
    }
}
