//! How long to wait for something, on a machine of which nobody knows how fast it is.
//!
//! No number of seconds is right: a debug build that shares two cores with ten others takes many
//! times what it takes alone. But a server that rests will not have done more in a minute. So a
//! wait counts, after its first seconds, only the time in which the server *rested*: none of its
//! threads ran, none waited for a processor, none for the disk, and nor did we who wait. The
//! system writes that down (`/proc/PID/task/*/schedstat`). A server that works, however slowly, is
//! waited for, up to `GUARD`, which only one that works for ever uses up.
//!
//! ```text
//!   waiting  |---- LIMIT ----|--- busy ---|-- rests --|- busy -|-- rests, together LIMIT --| failed
//! ```
//! Where the system says nothing of that kind, there is the guard alone.

use std::fs;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

/// How long a server may rest before whoever waits for it gives up.
pub const LIMIT: Duration = Duration::from_secs(10);

/// The most that any single wait takes. Only ever used up by a test that fails.
pub const GUARD: Duration = Duration::from_secs(300);

/// The processes that tests of this process have started and that still run.
static STARTED: Mutex<Vec<u32>> = Mutex::new(Vec::new());

pub fn has_started(pid: u32) {
    STARTED.lock().unwrap().push(pid);
}

pub fn has_ended(pid: u32) {
    STARTED.lock().unwrap().retain(|other| *other != pid);
}

/// One wait.
pub struct Patience {
    /// The process that is waited for; without one, whatever the tests have started.
    pid: Option<u32>,
    began: Instant,
    /// Starts when the first seconds are over, since it costs something to look.
    resting: Option<Resting>,
}

impl Patience {
    pub fn new(pid: Option<u32>) -> Patience {
        Patience { pid, began: Instant::now(), resting: None }
    }

    /// Whether waiting longer is of no use.
    pub fn is_over(&mut self) -> bool {
        let waited = self.began.elapsed();
        if waited < LIMIT {
            return false;
        }
        let resting = self.resting.get_or_insert_with(|| Resting::new(self.pid));
        // Ten thousand threads take a while to look at.
        if resting.looked.elapsed() < Duration::from_millis(500) {
            return false;
        }
        waited > GUARD || resting.elapsed().is_some_and(|rested| rested > LIMIT)
    }
}

/// Asks again and again until the condition holds, and fails when it is of no use to wait longer.
pub fn eventually(what: &str, mut condition: impl FnMut() -> bool) {
    let mut patience = Patience::new(None);
    while !condition() {
        assert!(!patience.is_over(), "waited in vain: {what}");
        thread::sleep(Duration::from_millis(5));
    }
}

/// Tries what needs a quick enough machine, or a slow enough one, with a number that doubles: of
/// seconds, of commands. What is wrong for another reason fails with every one of them.
pub fn with_more_and_more(first: u64, mut attempt: impl FnMut(u64) -> Result<(), String>) {
    let mut failures = Vec::new();
    for doubled in 0..6 {
        let number = first << doubled;
        match attempt(number) {
            Ok(()) => return,
            Err(why) => failures.push(format!("with {number}: {why}")),
        }
    }
    panic!("{}", failures.join("\n"));
}

/// Tells threads that they may end, also when the test fails before it has told them.
pub struct Stop<'a>(pub &'a AtomicBool);

impl Drop for Stop<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// A clock that stands while the server, or the thread that looks at the clock, has something to
/// do: what it shows does not depend on how fast the machine is. It is the truer the more often
/// one looks.
pub struct Resting {
    pid: Option<u32>,
    looked: Instant,
    last: Option<Work>,
    rested: Duration,
}

impl Resting {
    pub fn new(pid: Option<u32>) -> Resting {
        Resting { pid, looked: Instant::now(), last: work(pid), rested: Duration::ZERO }
    }

    /// How long the server has rested, or None where the system does not say.
    pub fn elapsed(&mut self) -> Option<Duration> {
        let passed = self.looked.elapsed();
        let (last, now) = (self.last.replace(work(self.pid)?)?, self.last.as_ref()?);
        if !last.at_disk && !now.at_disk {
            self.rested += passed.saturating_sub(now.spent.saturating_sub(last.spent));
        }
        self.looked = Instant::now();
        Some(self.rested)
    }
}

/// What the threads of a process, and the one that asks, have had to do.
struct Work {
    /// Time on a processor, or in wait for one.
    spent: Duration,
    /// Whether one of them waits for the disk now.
    at_disk: bool,
}

fn work(pid: Option<u32>) -> Option<Work> {
    let own = fs::read_to_string("/proc/thread-self/schedstat").ok()?;
    let (mut spent, mut at_disk) = (nanoseconds(&own), false);
    let pids = pid.map_or_else(|| STARTED.lock().unwrap().clone(), |pid| vec![pid]);
    for pid in pids {
        let threads = fs::read_dir(format!("/proc/{pid}/task"));
        // A thread that ends meanwhile takes its time with it; then the rest looks longer.
        for thread in threads.into_iter().flatten().flatten() {
            let read = |name| fs::read_to_string(thread.path().join(name)).unwrap_or_default();
            spent += nanoseconds(&read("schedstat"));
            let stat = read("stat");
            let state = stat.rsplit(") ").next().unwrap_or_default();
            at_disk |= state.starts_with('D');
        }
    }
    let spent = Duration::from_nanos(spent);
    Some(Work { spent, at_disk })
}

/// Of a schedstat, which is `ran waited slices`, the first two together.
fn nanoseconds(schedstat: &str) -> u64 {
    let numbers = schedstat.split_whitespace().take(2);
    numbers.filter_map(|number| number.parse::<u64>().ok()).sum()
}
