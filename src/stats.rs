//! Counters for INFO, and the slow log.
//!
//! A counter that every command raises is a cache line that every core wants. So a batch counts
//! for itself and adds the sums when it ends; what is read here is at most a batch behind.
//!
//! ```text
//! command ─▶ the batch's own tally (account.rs) ─▶ atomics, once a batch ─▶ INFO
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
    pub connections: AtomicU64,
    pub rejected_connections: AtomicU64,
    pub commands: AtomicU64,
    pub input_bytes: AtomicU64,
    pub output_bytes: AtomicU64,
    pub expired_keys: AtomicU64,
    pub hits: AtomicU64,
    pub misses: AtomicU64,
    pub error_replies: AtomicU64,
    /// One for each row of the command table, in its order.
    pub of_commands: Vec<OfCommand>,
    pub slow_log: Mutex<SlowLog>,
    /// When [`Stats::sample`] was called last, and what the totals were.
    samples: Mutex<VecDeque<(Instant, Totals)>>,
}

/// Commands, bytes read, bytes written.
type Totals = [u64; 3];

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
    pub microseconds: AtomicU64,
    /// Refused before it ran: wrong arity, no password, loading, ….
    pub rejected: AtomicU64,
    /// Answered with an error.
    pub failed: AtomicU64,
}

impl Stats {
    pub fn new(commands: usize) -> Stats {
        let of_commands = (0..commands).map(|_| OfCommand::default()).collect();
        Stats {
            of_commands,
            ..Stats::default()
        }
    }

    pub fn reset(&self) {
        let counters = [
            &self.connections,
            &self.rejected_connections,
            &self.commands,
            &self.input_bytes,
            &self.output_bytes,
            &self.expired_keys,
            &self.hits,
            &self.misses,
            &self.error_replies,
        ];
        let of_commands = self.of_commands.iter();
        let of_commands =
            of_commands.flat_map(|c| [&c.calls, &c.microseconds, &c.rejected, &c.failed]);
        counters
            .into_iter()
            .chain(of_commands)
            .for_each(|c| c.store(0, Ordering::Relaxed));
        self.samples.lock().unwrap().clear();
    }

    /// Takes a sample of the totals; called ten times a second. As in Redis, the last 16 intervals
    /// are what is "at present".
    pub fn sample(&self) {
        let mut samples = self.samples.lock().unwrap();
        let totals = [&self.commands, &self.input_bytes, &self.output_bytes];
        let totals = totals.map(|counter| counter.load(Ordering::Relaxed));
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
        let rate = |i: usize| after[i].saturating_sub(before[i]) as f64 / seconds;
        (seconds > 0.0).then(|| Rates {
            commands: rate(0),
            input_bytes: rate(1),
            output_bytes: rate(2),
        })
    }
}

/// Unix time in microseconds.
pub fn microseconds() -> u64 {
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
    pub id: u64,
    /// Unix time in seconds.
    pub time: u64,
    pub microseconds: u64,
    pub words: Vec<Vec<u8>>,
    pub addr: String,
    pub name: Vec<u8>,
}

impl SlowLog {
    const MOST_WORDS: usize = 32;
    const MOST_BYTES: usize = 128;

    /// Adds a command, with no more of its words than a reader wants to see, and keeps the newest
    /// `most`.
    pub fn add<'a>(
        &mut self,
        most: usize,
        words: impl ExactSizeIterator<Item = &'a [u8]>,
        slow: Slow,
    ) {
        let count = words.len();
        let shown = if count > Self::MOST_WORDS {
            Self::MOST_WORDS - 1
        } else {
            count
        };
        let mut copied: Vec<Vec<u8>> = words.take(shown).map(Self::shorten).collect();
        if count > shown {
            copied.push(format!("... ({} more arguments)", count - shown).into_bytes());
        }
        self.entries.push_front(Slow {
            id: self.next_id,
            words: copied,
            ..slow
        });
        self.next_id += 1;
        self.entries.truncate(most);
    }

    fn shorten(word: &[u8]) -> Vec<u8> {
        if word.len() <= Self::MOST_BYTES {
            return word.to_vec();
        }
        let mut short = word[..Self::MOST_BYTES].to_vec();
        let rest = word.len() - Self::MOST_BYTES;
        short.extend_from_slice(format!("... ({rest} more bytes)").as_bytes());
        short
    }
}
