//! When a key was used last, or how often: sixteen bits of its entry, which cost no memory because they were free.
//!
//! `maxmemory-policy` says which of the two it is. Readers write it under the shared lock, so it is an atomic; of two
//! that write at once, one is forgotten.
//!
//! **The last use** is a time with a floating resolution: fine for what was used just now, coarse for what was not.
//!
//! ```text
//!  2 bits  14 bits                                      of what was used …
//! ┌───────┬───────────────────────────┐   level 0       64 ms    in the last quarter of an hour
//! │ level │ time in units of the level│         1        1 s     in the last hours
//! └───────┴───────────────────────────┘         2       16 s     in the last days
//!                                               3      262 s     before
//! ```
//!
//! A use writes the time at level 0: `now >> 6`, and only if it is not there already. 14 bits of a level begin again
//! after some time (17 minutes, 4.6 hours, 3 days, 50 days). So every few minutes a thread visits all entries (src/evict.rs),
//! and lifts those that have come half that way to the next level ([`Usage::keep_up`]). The idle time is known to 0.4 %,
//! up to 24 days; what is older counts as 24 days.
//!
//! **The frequency** is Redis's: 8 bits that count uses, the more of them the less likely, from 5 for a new key to 255;
//! and 8 bits with the minute when it was counted last. For each `lfu-decay-time` minutes since then the counter loses one.
//! The same visit keeps the minutes from beginning again.
//!
//! When the policy changes from one to the other, the same thread visits all entries at once ([`Usage::turn`]). As in
//! Redis, a frequency begins with 0 then. An idle time begins with the minutes since the last use was counted.
//!
//! **How Redis does it**: evict.c has 24 bits in each object: seconds, which begin again after 194 days; or the same 8 bits
//! of a counter and 16 bits of minutes. Nobody needs to visit them. Within one second it cannot tell which of two keys
//! was used later, which a small cache with many clients notices.

use std::sync::atomic::{AtomicU16, Ordering::Relaxed};

/// What an entry remembers of its use.
pub struct Usage(AtomicU16);

/// That of the same key in another place.
impl Clone for Usage {
    fn clone(&self) -> Usage {
        Usage(AtomicU16::new(self.0.load(Relaxed)))
    }
}

/// What entries remember: `maxmemory-policy`.
#[derive(Clone, Copy)]
pub enum Remember {
    LastUse,
    Frequency(Counting),
}

/// How uses are counted.
#[derive(Clone, Copy)]
pub struct Counting {
    /// `lfu-log-factor`: with a greater one, a counter grows more slowly.
    pub log_factor: u64,
    /// `lfu-decay-time`, in minutes. 0: a counter never loses anything.
    pub decay_time: u64,
}

/// Of the time at a level.
const BITS: u32 = 14;
const MASK: u64 = (1 << BITS) - 1;
const LEVELS: u32 = 4;

/// Units of a level after which a time is lifted to the next one.
const HALF: u64 = 1 << (BITS - 1);

/// An age of more units than this has not come yet: somebody's clock was read a moment before ours.
const FUTURE: u64 = MASK / 4 * 3;

/// The frequency of a new key, so that it has time to be used again before it goes.
const NEW: u64 = 5;

const MOST: u64 = u8::MAX as u64;

/// A counter loses one after this many minutes at the latest, because the minutes begin again after 256.
const LONGEST_DECAY: u64 = 240;

/// A last use that seems to be of so few milliseconds ago is one, and no frequency that looks like one.
const MOMENT: u64 = 1_000;

/// After so many minutes the minute of the last count is one that has not come yet.
const FUTURE_MINUTES: u64 = 250;

/// Milliseconds of a unit of a level, as a power of two.
fn unit(level: u32) -> u32 {
    6 + 4 * level
}

fn stamp(time: u64, level: u32) -> u16 {
    ((u64::from(level) << BITS) | ((time >> unit(level)) & MASK)) as u16
}

fn minute(now: u64) -> u64 {
    now / 60_000 % 256
}

// All times are Unix times in milliseconds.
impl Usage {
    /// That of a new key.
    pub fn new(remember: Remember, now: u64) -> Usage {
        Usage(AtomicU16::new(match remember {
            Remember::LastUse => stamp(now, 0),
            Remember::Frequency(_) => (minute(now) << 8 | NEW) as u16,
        }))
    }

    /// Says for how many seconds the key was not used, or how often it was. The one counts that is remembered.
    pub fn set(&self, remember: Remember, idle: Option<u64>, count: Option<u8>, now: u64) {
        match (remember, idle, count) {
            (Remember::LastUse, Some(idle), _) => self.set_idle(idle.saturating_mul(1000), now),
            (Remember::Frequency(_), _, Some(count)) => self.set_frequency(count, now),
            _ => {}
        }
    }

    /// Says for how many milliseconds the key was not used.
    pub fn set_idle(&self, idle: u64, now: u64) {
        let level = (0..LEVELS).find(|level| idle >> unit(*level) < HALF).unwrap_or(LEVELS - 1);
        // Up to the next unit, or the key would seem to have been used later.
        let idle = idle.min((HALF - 1) << unit(level)) + (1 << unit(level)) - 1;
        self.0.store(stamp(now.saturating_sub(idle), level), Relaxed);
    }

    /// Says how often the key was used.
    pub fn set_frequency(&self, count: u8, now: u64) {
        self.0.store((minute(now) << 8 | u64::from(count)) as u16, Relaxed);
    }

    /// That of an entry which is in no table. Whoever puts it into one says what it is then.
    pub fn unknown() -> Usage {
        Usage(AtomicU16::new(0))
    }

    /// Becomes what that one is.
    pub fn take_over(&self, other: Usage) {
        self.0.store(other.0.into_inner(), Relaxed);
    }

    /// Whether a use would change nothing. This is so for most uses, if last uses are remembered.
    #[inline(always)]
    pub fn is_up_to_date(&self, remember: Remember, now: u64) -> bool {
        match remember {
            Remember::LastUse => self.0.load(Relaxed) == stamp(now, 0),
            Remember::Frequency(_) => false,
        }
    }

    /// The key was used. `random` is a random number.
    pub fn note(&self, remember: Remember, now: u64, random: u64) {
        let new = match remember {
            Remember::LastUse => stamp(now, 0),
            Remember::Frequency(counting) => {
                let mut count = self.frequency(counting, now);
                // The chance is one in so many.
                let chances = 1 + count.saturating_sub(NEW) * counting.log_factor;
                let drawn = (u128::from(random) * u128::from(chances)) >> 64;
                if count < MOST && drawn == 0 {
                    count += 1;
                }
                (minute(now) << 8 | count) as u16
            }
        };
        if new != self.0.load(Relaxed) {
            self.0.store(new, Relaxed);
        }
    }

    /// When the key was used last: the same number until it is used again, or until [`Usage::keep_up`] makes it coarser.
    pub fn last_use(&self, now: u64) -> u64 {
        let (level, age) = self.age(now);
        ((now >> unit(level)).saturating_sub(age)) << unit(level)
    }

    /// For how many milliseconds the key was not used.
    pub fn idle(&self, now: u64) -> u64 {
        let (level, age) = self.age(now);
        age << unit(level)
    }

    /// The level, and how many units of it have passed.
    fn age(&self, now: u64) -> (u32, u64) {
        let stamp = self.0.load(Relaxed);
        let level = u32::from(stamp >> BITS);
        let age = (now >> unit(level)).wrapping_sub(stamp.into()) & MASK;
        (level, if age > FUTURE { 0 } else { age })
    }

    /// How often the key was used, from 0 to 255.
    pub fn frequency(&self, counting: Counting, now: u64) -> u64 {
        let count = u64::from(self.0.load(Relaxed)) & MOST;
        count.saturating_sub(self.decays(counting, now))
    }

    /// Minutes since a use was counted.
    pub fn minutes(&self, now: u64) -> u64 {
        let minutes = (256 + minute(now) - u64::from(self.0.load(Relaxed) >> 8)) % 256;
        if minutes > FUTURE_MINUTES { 0 } else { minutes }
    }

    /// How much the counter has lost since then.
    fn decays(&self, counting: Counting, now: u64) -> u64 {
        let decay_time = counting.decay_time.min(LONGEST_DECAY);
        self.minutes(now).checked_div(decay_time).unwrap_or(0)
    }

    /// To be called at least every four minutes: the entry goes on to know how old its bits are.
    pub fn keep_up(&self, remember: Remember, now: u64) {
        self.replace(|seen| match remember {
            Remember::LastUse => {
                let (level, age) = seen.age(now);
                let used = if level + 1 < LEVELS { age } else { HALF };
                (age >= HALF)
                    .then(|| stamp(now - (used << unit(level)), (level + 1).min(LEVELS - 1)))
            }
            Remember::Frequency(counting) => {
                let decays = seen.decays(counting, now);
                // What is left of the time to the next decay stays.
                let left = seen.minutes(now) - decays * counting.decay_time.min(LONGEST_DECAY);
                let counted = now.saturating_sub(left * 60_000);
                let new = (minute(counted) << 8 | seen.frequency(counting, now)) as u16;
                (decays > 0).then_some(new)
            }
        });
    }

    /// To be called once when this is what entries are to remember, and they have remembered the other one.
    pub fn turn(&self, remember: Remember, now: u64) {
        self.replace(|seen| {
            let new = Usage::unknown();
            let is_turned = match remember {
                Remember::LastUse => {
                    new.set_idle(seen.minutes(now) * 60_000, now);
                    let bits = seen.0.load(Relaxed);
                    (0..MOMENT).step_by(64).any(|ago| bits == stamp(now - ago, 0))
                }
                Remember::Frequency(counting) => {
                    new.set_frequency(0, now);
                    seen.minutes(now) == 0 && seen.frequency(counting, now) < 2 * NEW
                }
            };
            // It was used since; a few only seem so.
            (!is_turned).then(|| new.0.into_inner())
        });
    }

    /// Puts in its place what `change` makes of it, if that is anything, and unless the key is used at the same moment.
    fn replace(&self, change: impl FnOnce(Usage) -> Option<u16>) {
        let seen = self.0.load(Relaxed);
        if let Some(new) = change(Usage(AtomicU16::new(seen))) {
            let _ = self.0.compare_exchange(seen, new, Relaxed, Relaxed);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_idle_time_that_is_set_is_told_and_goes_on() {
        let (usage, now) = (Usage::unknown(), 1_700_000_000_123);
        for idle in [0, 1, 999, 100 * SECOND, 20 * MINUTE, 5 * 60 * MINUTE, 4 * DAY, 20 * DAY] {
            usage.set_idle(idle, now);
            let told = usage.idle(now);
            assert!((idle..=idle + idle / 200 + 64).contains(&told), "{idle}: {told}");
            assert!(usage.idle(now + SECOND) >= told, "{idle}");
        }
        usage.set_idle(u64::MAX, now);
        assert!(usage.idle(now) > 20 * DAY);
    }

    const SECOND: u64 = 1000;
    const MINUTE: u64 = 60 * SECOND;
    const DAY: u64 = 24 * 60 * MINUTE;
    const BEGIN: u64 = 1_764_300_000_123;

    #[test]
    fn an_idle_time_is_known_to_less_than_half_a_percent_for_weeks() {
        let usage = Usage::new(Remember::LastUse, BEGIN);
        let (mut now, mut worst) = (BEGIN, 0.0f64);
        while now < BEGIN + 60 * DAY {
            now += 239 * SECOND;
            usage.keep_up(Remember::LastUse, now);
            let (idle, known) = (now - BEGIN, usage.idle(now));
            if idle < 24 * DAY {
                worst = worst.max(idle.abs_diff(known) as f64 / idle as f64);
            } else {
                assert!(known >= 24 * DAY, "{known}");
            }
        }
        assert!(worst < 0.004, "{worst}");
        usage.note(Remember::LastUse, now, 0);
        assert!(usage.is_up_to_date(Remember::LastUse, now) && usage.idle(now) < 64);
    }

    #[test]
    fn a_use_that_another_thread_has_seen_a_moment_later_is_no_old_one() {
        let usage = Usage::new(Remember::LastUse, BEGIN + 200);
        assert_eq!(usage.idle(BEGIN), 0);
        assert!(usage.idle(BEGIN + 2 * SECOND) >= SECOND);
        let counting = Counting { log_factor: 10, decay_time: 1 };
        let usage = Usage::new(Remember::Frequency(counting), BEGIN + MINUTE);
        assert_eq!(usage.frequency(counting, BEGIN), NEW);
    }

    #[test]
    fn a_use_at_the_moment_of_the_visit_is_not_forgotten() {
        let now = BEGIN + 10 * MINUTE;
        let usage = Usage::new(Remember::LastUse, BEGIN);
        usage.replace(|seen| {
            usage.note(Remember::LastUse, now, 0);
            Some(stamp(now - seen.idle(now), 1))
        });
        assert!(usage.idle(now) < SECOND, "{}", usage.idle(now));
    }

    #[test]
    fn when_the_policy_changes_frequencies_begin_with_0_and_idle_times_with_the_last_count() {
        let counting = Counting { log_factor: 10, decay_time: 1 };
        let (last_use, frequency) = (Remember::LastUse, Remember::Frequency(counting));
        let (mut turned, mut used) = (0, 0);
        for second in 0..1_000 {
            let (begin, now) = (BEGIN + second * 7 * SECOND, BEGIN + (180 + second) * MINUTE);
            let usage = Usage::new(last_use, begin);
            usage.turn(frequency, now);
            turned += u64::from(usage.frequency(counting, now) == 0);
            usage.note(frequency, now, 0);
            let count = usage.frequency(counting, now);
            usage.turn(frequency, now);
            used += u64::from(usage.frequency(counting, now) == count);

            usage.turn(last_use, now + 20 * MINUTE);
            let idle = usage.idle(now + 20 * MINUTE);
            turned += u64::from((20 * MINUTE..21 * MINUTE).contains(&idle));
            usage.note(last_use, now + 20 * MINUTE, 0);
            usage.turn(last_use, now + 20 * MINUTE + 100);
            used += u64::from(usage.idle(now + 20 * MINUTE + 100) < SECOND);
        }
        assert!(turned > 1_950 && used == 2_000, "{turned} {used}");
    }

    /// Redis's documentation has the numbers: with the factor 10, a million uses saturate the counter.
    #[test]
    fn the_more_uses_a_counter_has_the_less_likely_it_counts_another() {
        let counting = Counting { log_factor: 10, decay_time: 1 };
        let mut random = 1u64;
        for (uses, counts) in [(100, 8..14), (1_000, 16..22), (100_000, 130..155)] {
            let usage = Usage::new(Remember::Frequency(counting), BEGIN);
            for _ in 0..uses {
                random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
                usage.note(Remember::Frequency(counting), BEGIN, random);
            }
            let count = usage.frequency(counting, BEGIN);
            assert!(counts.contains(&count), "{uses}: {count}");
        }
    }

    #[test]
    fn a_counter_loses_one_in_each_decay_time_however_long_that_goes_on() {
        for decay_time in [1, 7, 100, 240] {
            let counting = Counting { log_factor: 10, decay_time };
            let usage = Usage::new(Remember::Frequency(counting), BEGIN);
            let begin = BEGIN / MINUTE * MINUTE;
            usage.0.store((minute(begin) << 8 | 200) as u16, Relaxed);
            for minutes in 0..3_000 {
                let now = begin + minutes * MINUTE;
                let expected = 200u64.saturating_sub(minutes / decay_time);
                assert_eq!(usage.frequency(counting, now), expected, "{minutes} of {decay_time}");
                if minutes % 4 == 0 {
                    usage.keep_up(Remember::Frequency(counting), now);
                }
            }
        }
        let never = Counting { log_factor: 10, decay_time: 0 };
        let usage = Usage::new(Remember::Frequency(never), BEGIN);
        assert_eq!(usage.frequency(never, BEGIN + 3 * DAY), NEW);
    }
}
