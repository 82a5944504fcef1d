//! What clients hold of the server's memory, and who pays when it is too much.
//!
//! A thread per client means that everything happens at once: what one client may hold, ten thousand
//! may. So there is one account of all that can grow while a client is served, and a limit on its sum,
//! `maxmemory-clients`:
//!
//! ```text
//! stash, and the command being read (serve/inbound.rs) ─▶ ┐ a Charge     ┌ Held        ┌ Total
//! what MULTI has queued, what is published (client.rs)  ─▶ ├ each, whose ─▶ of one    ─▶ of all
//! replies (resp/reply.rs), an outbox (outbox.rs)        ─▶ ┘ Drop undoes └ client      └ clients
//!                                                                    over the limit? │ wakes
//!       whoever holds the most is ended, then the next, until it fits ◀── evict ◀────┘
//! ```
//!
//! A client is ended by [`Held::kill`], and nowhere else. Its threads find that out wherever they make
//! something grow: they look at each [`STEP`]. Ten thousand threads may want the processor before the one
//! that evicts. So whoever makes the sum grow over the limit by a quarter lets the others go first with each
//! step (it does not sleep, because it may hold a lock), and over one and a half times the limit is ended
//! itself.
//!
//! **Cheap.** What is not over [`STEP`] is not counted, and what is counted is rounded up to whole
//! steps. So a client with short commands and short replies never touches what all threads share. The
//! price: ten thousand clients may hold some hundred megabytes that nobody counts.
//!
//! **How Redis does it**: `evictClients` in server.c and `closeClientOnOutputBufferLimitReached` in
//! networking.c. `maxmemory-clients` is off by default there, and its percentage is one of `maxmemory`.
//! Here it is one of the memory of the machine or its control group, because there is no `maxmemory`.

use std::fs;
use std::net::{Shutdown, TcpStream};
use std::sync::atomic::{AtomicU8, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};
use std::thread::Thread;
use std::time::{Duration, Instant};

/// Bytes that are not counted, and in which the others are.
pub const STEP: usize = 16 * 1024;

/// How much a client may leave unread; zero is no limit (`client-output-buffer-limit`).
#[derive(Default)]
pub struct OutputLimit {
    /// Bytes at which it is disconnected at once.
    pub hard: AtomicUsize,
    /// Bytes that it may not exceed for longer than `seconds`.
    pub soft: AtomicUsize,
    pub seconds: AtomicU64,
}

impl OutputLimit {
    /// Whether so many bytes are too many at once.
    pub fn is_over_hard(&self, length: usize) -> bool {
        let hard = self.hard.load(Ordering::Relaxed);
        hard > 0 && length > hard
    }

    /// Whether so many bytes are too many for longer.
    pub fn is_over_soft(&self, length: usize) -> bool {
        let soft = self.soft.load(Ordering::Relaxed);
        soft > 0 && length > soft
    }

    /// Whether it has been for too long that they are; `since` is when that began.
    pub fn is_over_soft_for_long(&self, length: usize, since: &mut Option<Instant>) -> bool {
        if !self.is_over_soft(length) {
            *since = None;
            return false;
        }
        let patience = Duration::from_secs(self.seconds.load(Ordering::Relaxed));
        since.get_or_insert_with(Instant::now).elapsed() >= patience
    }
}

/// Whose `client-output-buffer-limit` it is.
#[derive(Clone, Copy)]
pub enum Class {
    /// Replies of a client that has no outbox.
    Normal,
    /// The outbox of a subscriber or a monitor.
    Pubsub,
}

/// What all clients hold together.
#[derive(Default)]
pub struct Total {
    bytes: AtomicUsize,
    /// `maxmemory-clients` in bytes; 0 is no limit.
    pub limit: AtomicUsize,
    /// What one client may leave unread, by its [`Class`].
    pub normal: OutputLimit,
    pub pubsub: OutputLimit,
    /// The thread that evicts.
    evicts: OnceLock<Thread>,
}

impl Total {
    /// In bytes.
    pub fn bytes(&self) -> usize {
        self.bytes.load(Ordering::Relaxed)
    }

    /// Whether so many bytes are too many for all clients together.
    pub fn is_over(&self, bytes: usize) -> bool {
        let limit = self.limit.load(Ordering::Relaxed);
        limit > 0 && bytes > limit
    }

    /// The thread that calls this is woken from now on when there is something to be evicted.
    pub fn wake_me(&self) {
        let _ = self.evicts.set(std::thread::current());
    }

    fn add(&self, bytes: usize) -> usize {
        let sum = self.bytes.fetch_add(bytes, Ordering::Relaxed) + bytes;
        if self.is_over(sum)
            && let Some(thread) = self.evicts.get()
        {
            thread.unpark();
        }
        sum
    }
}

/// Why a client is ended by somebody else.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u8)]
pub enum End {
    /// CLIENT KILL, `timeout`, or its connection has broken.
    Killed = 1,
    /// It has left too much unread (`client-output-buffer-limit`).
    Output,
    /// All clients together hold too much, and this one the most (`maxmemory-clients`).
    Evicted,
}

/// What one client holds, and whether it is to end. Its own threads and those who publish to it add to
/// it, all others may look.
pub struct Held {
    total: Arc<Total>,
    bytes: AtomicUsize,
    /// An [`End`], or 0, and what it held then.
    end: AtomicU8,
    at_end: AtomicUsize,
    /// None for a fake client, which nobody ends.
    stream: Option<Arc<TcpStream>>,
}

impl Held {
    /// Nothing yet.
    pub fn new(total: &Arc<Total>, stream: Option<Arc<TcpStream>>) -> Arc<Held> {
        Arc::new(Held {
            total: total.clone(),
            bytes: AtomicUsize::new(0),
            end: AtomicU8::new(0),
            at_end: AtomicUsize::new(0),
            stream,
        })
    }

    /// In bytes.
    pub fn bytes(&self) -> usize {
        self.bytes.load(Ordering::Relaxed)
    }

    /// The same, but of a client that is ended no less than it held then: for who is told why.
    pub fn most(&self) -> usize {
        self.bytes().max(self.at_end.load(Ordering::Relaxed))
    }

    /// The limit on what it may leave unread of what it is sent as one of this class.
    pub fn output_limit(&self, class: Class) -> &OutputLimit {
        match class {
            Class::Normal => &self.total.normal,
            Class::Pubsub => &self.total.pubsub,
        }
    }

    /// Ends the client from any thread: the flag keeps commands that have arrived already from running,
    /// and a reply from growing; the shutdown wakes a thread that waits for its peer. The first reason
    /// is the one that is told.
    pub fn kill(&self, end: End) {
        if let Some(stream) = &self.stream {
            self.at_end.fetch_max(self.bytes(), Ordering::Relaxed);
            let (new, old) = (end as u8, Ordering::Relaxed);
            let _ = self.end.compare_exchange(0, new, Ordering::Release, old);
            let _ = stream.shutdown(Shutdown::Both);
        }
    }

    /// Whether it is to end, and why.
    pub fn end(&self) -> Option<End> {
        match self.end.load(Ordering::Acquire) {
            1 => Some(End::Killed),
            2 => Some(End::Output),
            3 => Some(End::Evicted),
            _ => None,
        }
    }

    /// Whether it is to end.
    pub fn is_ended(&self) -> bool {
        self.end.load(Ordering::Acquire) != 0
    }

    fn add(&self, bytes: usize) {
        self.bytes.fetch_add(bytes, Ordering::Relaxed);
        let sum = self.total.add(bytes);
        if self.total.is_over(sum - sum / 3) {
            self.kill(End::Evicted);
        } else if self.total.is_over(sum - sum / 5) {
            std::thread::yield_now();
        }
    }

    fn take_back(&self, bytes: usize) {
        self.bytes.fetch_sub(bytes, Ordering::Relaxed);
        self.total.bytes.fetch_sub(bytes, Ordering::Relaxed);
    }
}

/// One thing that a client holds, which grows and shrinks. When it is dropped, it holds nothing.
pub struct Charge {
    held: Arc<Held>,
    /// What it really has, in bytes, and what of that is counted.
    bytes: usize,
    counted: usize,
}

impl Charge {
    /// Nothing yet.
    pub fn new(held: &Arc<Held>) -> Charge {
        Charge { held: held.clone(), bytes: 0, counted: 0 }
    }

    /// Whose it is.
    pub fn held(&self) -> &Held {
        &self.held
    }

    /// From now on it has so many bytes.
    pub fn set(&mut self, bytes: usize) {
        self.bytes = bytes;
        let due = match bytes {
            0..=STEP => 0,
            _ => bytes.div_ceil(STEP).saturating_mul(STEP),
        };
        let before = std::mem::replace(&mut self.counted, due);
        if due > before {
            self.held.add(due - before);
        } else if due < before {
            self.held.take_back(before - due);
        }
    }

    /// It has so many bytes more.
    pub fn add(&mut self, bytes: usize) {
        self.set(self.bytes.saturating_add(bytes));
    }

    /// It has so many bytes less.
    pub fn subtract(&mut self, bytes: usize) {
        self.set(self.bytes.saturating_sub(bytes));
    }
}

impl Drop for Charge {
    fn drop(&mut self) {
        self.set(0);
    }
}

/// Bytes of memory that the process may use: the machine's, or its control group's if that may use less.
/// None where nobody tells.
pub fn of_machine() -> Option<u64> {
    let read = |path: &str| fs::read_to_string(path).unwrap_or_default();
    let machine = read("/proc/meminfo");
    let machine =
        machine.lines().find_map(|line| line.strip_prefix("MemTotal:")?.trim().strip_suffix("kB"));
    let machine = machine.and_then(|number| number.trim().parse::<u64>().ok());
    let machine = machine.map(|kilobytes| kilobytes * 1024);
    let groups = read("/proc/self/cgroup");
    let groups = groups.lines().filter_map(limit_file);
    // In a container the group that it sees as the root is its own.
    let roots =
        ["memory.max", "memory/memory.limit_in_bytes"].map(|file| format!("{CGROUP}/{file}"));
    let limits = groups.chain(roots);
    // Where there is no limit version 2 says `max`, which is no number, and version 1 a huge one.
    let limits = limits.filter_map(|path| read(&path).trim().parse::<u64>().ok());
    limits.chain(machine).min()
}

const CGROUP: &str = "/sys/fs/cgroup";

/// The file with the limit of a group, from a line of `/proc/self/cgroup`: `0::/path` in version 2,
/// `9:memory:/path` in version 1.
fn limit_file(line: &str) -> Option<String> {
    let mut parts = line.splitn(3, ':').skip(1);
    match (parts.next()?, parts.next()?) {
        ("", path) => Some(format!("{CGROUP}{path}/memory.max")),
        ("memory", path) => Some(format!("{CGROUP}/memory{path}/memory.limit_in_bytes")),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_held_is_counted_in_steps_and_handed_back_to_the_byte() {
        let total = Arc::new(Total::default());
        let held = Held::new(&total, None);
        let (mut one, mut two) = (Charge::new(&held), Charge::new(&held));
        one.set(STEP);
        assert_eq!(total.bytes(), 0, "a step is not counted");
        one.add(1);
        two.set(10 * STEP);
        assert_eq!((held.bytes(), total.bytes()), (12 * STEP, 12 * STEP));
        one.subtract(1);
        two.set(10 * STEP - 1);
        assert_eq!(total.bytes(), 10 * STEP);
        drop(two);
        assert_eq!((held.bytes(), total.bytes()), (0, 0));
    }

    #[test]
    fn the_limit_of_a_control_group_stands_where_its_line_says() {
        for (line, file) in [
            ("0::/", Some("/sys/fs/cgroup//memory.max")),
            ("0::/a.slice", Some("/sys/fs/cgroup/a.slice/memory.max")),
            ("9:memory:/docker/7", Some("/sys/fs/cgroup/memory/docker/7/memory.limit_in_bytes")),
            ("4:cpu,cpuacct:/", None),
            ("", None),
        ] {
            assert_eq!(limit_file(line).as_deref(), file, "{line}");
        }
    }
}
