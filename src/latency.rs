//! What took long, for LATENCY: *events*, and a *histogram* of the times of each command.
//!
//! An event is something that took `latency-monitor-threshold` milliseconds or more:
//!
//! | event              | what took long                                                        |
//! |--------------------|-----------------------------------------------------------------------|
//! | `command`          | a command, as the slow log measures it                                |
//! | `expire-cycle`     | one step of the active expire cycle                                   |
//! | `aof-write`        | a write to the log's file, which the clients of its batch wait for    |
//! | `aof-fsync-always` | an fsync that clients wait for                                        |
//!
//! Of each event the worst of each second is kept, for the last 160 seconds in which there was one. While the
//! threshold is 0 no clock is read for them.
//!
//! A histogram has a counter for each *bucket*. Bucket `k` is for times up to 1.032 · 2ᵏ µs:
//!
//! ```text
//! up to      1   2   4   8   16   33   66   132   264 … µs
//! commands   7  90   2   1    0    0    0     0     0
//! ```
//!
//! A batch adds the commands of one name to the bucket of their mean time, so the clock is read no more often
//! than before.
//!
//! **How Redis does it**: latency.c, with more events, such as those of forks. A command that
//! takes constant or logarithmic time is the event `fast-command` there. An HDR histogram keeps each command's time
//! to one part in a hundred; LATENCY HISTOGRAM shows the same buckets, from which the odd 1.032 comes. Percentiles, in
//! INFO latencystats, are exact there, and ends of buckets here.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant, SystemTime};

/// Samples of one event.
pub const KEPT: usize = 160;

/// Events, and from when on something is one.
#[derive(Default)]
pub struct Latency {
    /// `latency-monitor-threshold`, in milliseconds. 0: there are no events.
    pub threshold: AtomicU64,
    /// A leaf.
    pub events: Mutex<BTreeMap<&'static str, Series>>,
}

/// The samples of one event.
#[derive(Default)]
pub struct Series {
    /// Unix time in seconds, and how many milliseconds it took. The oldest first.
    pub samples: VecDeque<(u64, u64)>,
    /// The worst since the server started, or since LATENCY RESET.
    pub worst: u64,
}

impl Latency {
    /// Does work that may become an event. No clock is read if there are no events.
    pub fn time<R>(&self, event: &'static str, work: impl FnOnce() -> R) -> R {
        let began = (self.threshold.load(Ordering::Relaxed) > 0).then(Instant::now);
        let result = work();
        if let Some(began) = began {
            self.note(event, began.elapsed());
        }
        result
    }

    /// Keeps the event if it took long enough.
    pub fn note(&self, event: &'static str, took: Duration) {
        let threshold = self.threshold.load(Ordering::Relaxed);
        let took = took.as_millis() as u64;
        if threshold == 0 || took < threshold {
            return;
        }
        let now = SystemTime::UNIX_EPOCH.elapsed().unwrap_or_default().as_secs();
        self.events.lock().unwrap().entry(event).or_default().add(now, took);
    }
}

impl Series {
    fn add(&mut self, now: u64, took: u64) {
        self.worst = self.worst.max(took);
        match self.samples.back_mut() {
            Some((time, worst)) if *time == now => *worst = took.max(*worst),
            _ => self.samples.push_back((now, took)),
        }
        if self.samples.len() > KEPT {
            self.samples.pop_front();
        }
    }
}

/// How many calls of a command fell into each bucket. The last bucket has all that took longer than a second.
#[derive(Default)]
pub struct Histogram([AtomicU64; 21]);

impl Histogram {
    /// Adds so many calls, which took so many microseconds together.
    pub fn add(&self, calls: u64, microseconds: u64) {
        if let Some(mean) = (1000 * microseconds).checked_div(calls) {
            // The least k with mean < 1032 · 2ᵏ.
            let bucket = (mean / 1032 + 1).next_power_of_two().trailing_zeros() as usize;
            self.0[bucket.min(self.0.len() - 1)].fetch_add(calls, Ordering::Relaxed);
        }
    }

    pub fn reset(&self) {
        self.0.iter().for_each(|count| count.store(0, Ordering::Relaxed));
    }

    /// For each bucket with calls, its end in nanoseconds, and how many calls were at most that long.
    pub fn cumulative(&self) -> Vec<(u64, u64)> {
        let mut sum = 0;
        let mut all = Vec::new();
        for (k, count) in self.0.iter().enumerate() {
            let count = count.load(Ordering::Relaxed);
            sum += count;
            if count > 0 {
                all.push(((1032 << k) - 1, sum));
            }
        }
        all
    }
}

/// The end of the bucket up to which this percentage of the calls is.
pub fn percentile(buckets: &[(u64, u64)], percentage: f64) -> u64 {
    let calls = buckets.last().map_or(0, |(_, calls)| *calls);
    let wanted = ((percentage / 100.0 * calls as f64).round() as u64).max(1);
    buckets.iter().find(|(_, sum)| *sum >= wanted).map_or(0, |(end, _)| *end)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_time_is_in_the_bucket_of_the_next_power_of_two() {
        for (microseconds, end) in [
            (0, 1),
            (1, 1),
            (2, 2),
            (3, 4),
            (33, 33),
            (34, 66),
            (264, 264),
            (265, 528),
            (541_065, 541_065),
            (900_000, 1_082_130),
            (u32::MAX.into(), 1_082_130),
        ] {
            let histogram = Histogram::default();
            histogram.add(3, 3 * microseconds);
            let [(found, 3)] = histogram.cumulative()[..] else {
                panic!("one bucket");
            };
            assert_eq!(found / 1000, end, "{microseconds} µs");
        }
        let histogram = Histogram::default();
        histogram.add(0, 0);
        histogram.add(1, 9);
        histogram.add(2, 2);
        let buckets = histogram.cumulative();
        assert_eq!(buckets, [(1031, 2), (16_511, 3)]);
        for (percentage, end) in
            [(0.0, 1031), (50.0, 1031), (66.6, 1031), (99.0, 16_511), (100.0, 16_511)]
        {
            assert_eq!(percentile(&buckets, percentage), end, "{percentage} %");
        }
    }

    #[test]
    fn an_event_keeps_the_worst_of_each_second_and_of_the_last_160() {
        let mut series = Series::default();
        for (now, took) in [(1, 5), (1, 9), (1, 7), (3, 2)] {
            series.add(now, took);
        }
        assert_eq!(series.samples, [(1, 9), (3, 2)]);
        (10..10 + KEPT as u64).for_each(|now| series.add(now, 1));
        assert_eq!((series.samples.len(), series.samples[0]), (KEPT, (10, 1)));
        assert_eq!(series.worst, 9);
    }

    #[test]
    fn only_what_takes_as_long_as_the_threshold_is_an_event() {
        let latency = Latency::default();
        latency.note("command", Duration::from_secs(9));
        latency.threshold.store(100, Ordering::Relaxed);
        latency.note("command", Duration::from_millis(99));
        assert!(latency.events.lock().unwrap().is_empty());
        latency.note("command", Duration::from_millis(100));
        assert_eq!(latency.events.lock().unwrap()["command"].worst, 100);
    }
}
