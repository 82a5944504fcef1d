//! How much memory clients hold, and which one is disconnected when it is too much.
//!
//! With a thread per client everything happens at once: ten thousand clients may all hold as much as one may.
//! So everything that can grow while a client is served is counted, and the sum has a limit,
//! `maxmemory-clients`:
//!
//! ```text
//! stash, and the command being read (serve/inbound.rs) ─▶ ┐ a Charge     ┌ Held        ┌ Total
//! what MULTI has queued, what is published (client.rs)  ─▶ ├ each, whose ─▶ of one    ─▶ of all
//! replies (resp/reply.rs), an outbox (outbox.rs)        ─▶ ┘ Drop undoes └ client      └ clients
//!                                                                    over the limit? │ wakes
//!    the client that holds the most is ended, then the next, until it fits ◀─ evict ◀┘
//! ```
//!
//! Only [`Held::kill`] ends a client. The client's threads notice it whenever something has grown by another
//! [`STEP`]. The thread `evict` may have to wait for the processor behind ten thousand others. So
//! a thread that makes the sum grow beyond 5/4 of the limit yields at each step (it does not sleep, because it
//! may hold a lock). Beyond 3/2 of the limit its own client is ended.
//!
//! **Cheap.** Anything of up to one [`STEP`] is not counted, and the rest is rounded up to whole steps. So a
//! client with short commands and short replies never touches a counter that all threads share. The price:
//! ten thousand clients may hold some hundred megabytes that are not counted.
//!
//! **How Redis does it**: `evictClients` in server.c and `closeClientOnOutputBufferLimitReached` in
//! networking.c. There `maxmemory-clients` is off by default, and a percentage is one of `maxmemory`. Here
//! it is one of the memory of the machine or of its control group, because a small cache may have large clients.

use std::fs;
use std::net::{Shutdown, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};
use std::thread::Thread;
use std::time::{Duration, Instant};

/// Bytes: up to one step is not counted, more is counted in whole steps.
pub const STEP: usize = 16 * 1024;

/// How many bytes a client may leave unread (`client-output-buffer-limit`). 0 is no limit.
#[derive(Default)]
pub struct OutputLimit {
    /// With more, it is disconnected at once.
    pub hard: AtomicUsize,
    /// With more for this many seconds, it is disconnected.
    pub soft: AtomicUsize,
    pub seconds: AtomicU64,
}

impl OutputLimit {
    /// Whether `length` bytes are over the hard limit.
    pub fn is_over_hard(&self, length: usize) -> bool {
        let hard = self.hard.load(Ordering::Relaxed);
        hard > 0 && length > hard
    }

    /// Whether `length` bytes are over the soft limit.
    pub fn is_over_soft(&self, length: usize) -> bool {
        let soft = self.soft.load(Ordering::Relaxed);
        soft > 0 && length > soft
    }

    /// Whether the client has been over the soft limit for too long. `since` keeps when that began.
    pub fn is_over_soft_for_long(&self, length: usize, since: &mut Option<Instant>) -> bool {
        if !self.is_over_soft(length) {
            *since = None;
            return false;
        }
        let patience = Duration::from_secs(self.seconds.load(Ordering::Relaxed));
        since.get_or_insert_with(Instant::now).elapsed() >= patience
    }
}

/// What all clients together hold.
#[derive(Default)]
pub struct Total {
    bytes: AtomicUsize,
    /// `maxmemory-clients` in bytes. 0 is no limit.
    pub limit: AtomicUsize,
    /// The limit of the replies of a client that has no outbox.
    pub normal: OutputLimit,
    /// The limit of the outbox of a subscriber or a monitor.
    pub pubsub: OutputLimit,
    /// The limit of what a replica has not been sent yet of the log.
    pub replica: OutputLimit,
    /// The thread `evict`.
    evicts: OnceLock<Thread>,
}

impl Total {
    pub fn bytes(&self) -> usize {
        self.bytes.load(Ordering::Relaxed)
    }

    /// Whether `bytes` are too many for all clients together.
    pub fn is_over(&self, bytes: usize) -> bool {
        let limit = self.limit.load(Ordering::Relaxed);
        limit > 0 && bytes > limit
    }

    /// From now on the calling thread is woken when clients hold too much.
    pub fn wake_me(&self) {
        let _ = self.evicts.set(std::thread::current());
    }
}

/// Why the server ends a client.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u8)]
pub enum End {
    /// CLIENT KILL, `timeout`, or its connection is broken.
    Killed = 1,
    /// It leaves too much unread (`client-output-buffer-limit`).
    Output,
    /// All clients together hold too much, and it holds the most (`maxmemory-clients`).
    Evicted,
}

/// What CLIENT LIST shows of the buffers of a client, in bytes. The client's threads write it.
#[derive(Default)]
pub struct Buffers {
    /// What was read from the client and has not run, and how much there is room for.
    pub input: AtomicUsize,
    pub input_room: AtomicUsize,
    /// How much room there is for replies, and how long those of one batch were at most.
    pub reply_room: AtomicUsize,
    pub longest_reply: AtomicUsize,
    /// What the client has not taken of its replies, if it does not take them at once.
    pub unsent: AtomicUsize,
    /// What its outbox holds: bytes, and the memory that they take.
    pub queued: AtomicUsize,
    pub queue: AtomicUsize,
}

/// How much one client holds, and whether it is being ended. Its own threads and publishers add to it.
/// All others may look.
#[derive(Default)]
pub struct Held {
    pub total: Arc<Total>,
    bytes: AtomicUsize,
    /// An [`End`], or 0.
    end: AtomicU8,
    /// What it held when it was ended.
    at_end: AtomicUsize,
    /// CLIENT NO-EVICT: it is not ended because all clients together hold too much.
    pub no_evict: AtomicBool,
    pub buffers: Buffers,
    /// None for a fake client. Nobody ends that.
    stream: Option<Arc<TcpStream>>,
}

impl Held {
    pub fn new(total: &Arc<Total>, stream: Option<Arc<TcpStream>>) -> Arc<Held> {
        Arc::new(Held { total: total.clone(), stream, ..Held::default() })
    }

    pub fn bytes(&self) -> usize {
        self.bytes.load(Ordering::Relaxed)
    }

    /// The same. For a client that was ended, at least what it held then, because that explains its end.
    pub fn most(&self) -> usize {
        self.bytes().max(self.at_end.load(Ordering::Relaxed))
    }

    /// Ends the client, from any thread. Because of the flag no more of its commands run and no reply grows.
    /// The shutdown wakes a thread that waits for the socket. The first reason counts.
    pub fn kill(&self, end: End) {
        if let Some(stream) = &self.stream {
            self.at_end.fetch_max(self.bytes(), Ordering::Relaxed);
            let (new, old) = (end as u8, Ordering::Relaxed);
            let _ = self.end.compare_exchange(0, new, Ordering::Release, old);
            let _ = stream.shutdown(Shutdown::Both);
        }
    }

    /// Why it is being ended, if it is.
    pub fn end(&self) -> Option<End> {
        let ends = [None, Some(End::Killed), Some(End::Output), Some(End::Evicted)];
        ends[usize::from(self.end.load(Ordering::Acquire))]
    }

    pub fn is_ended(&self) -> bool {
        self.end.load(Ordering::Acquire) != 0
    }

    /// Counts more bytes, and returns true. If the sum would be over 3/2 of the limit, it ends the client
    /// instead: until its thread notices that, bytes that it does not get must not end others.
    fn add(&self, bytes: usize) -> bool {
        let sum = self.total.bytes().saturating_add(bytes);
        if self.total.is_over(sum - sum / 3) && !self.no_evict.load(Ordering::Relaxed) {
            self.at_end.fetch_max(self.bytes().saturating_add(bytes), Ordering::Relaxed);
            self.kill(End::Evicted);
            return false;
        }
        self.bytes.fetch_add(bytes, Ordering::Relaxed);
        let sum = self.total.bytes.fetch_add(bytes, Ordering::Relaxed) + bytes;
        if self.total.is_over(sum)
            && let Some(thread) = self.total.evicts.get()
        {
            thread.unpark();
        }
        if self.total.is_over(sum - sum / 5) {
            std::thread::yield_now();
        }
        true
    }

    fn take_back(&self, bytes: usize) {
        self.bytes.fetch_sub(bytes, Ordering::Relaxed);
        self.total.bytes.fetch_sub(bytes, Ordering::Relaxed);
    }
}

/// One thing that a client holds, such as its replies. When it is dropped, it no longer counts.
pub struct Charge {
    pub held: Arc<Held>,
    /// Bytes that it has, and bytes that are counted for it.
    bytes: usize,
    counted: usize,
}

impl Charge {
    pub fn new(held: &Arc<Held>) -> Charge {
        Charge { held: held.clone(), bytes: 0, counted: 0 }
    }

    /// It now has this many bytes.
    pub fn set(&mut self, bytes: usize) {
        self.bytes = bytes;
        let due = match bytes {
            0..=STEP => 0,
            _ => bytes.div_ceil(STEP).saturating_mul(STEP),
        };
        if due < self.counted {
            self.held.take_back(self.counted - due);
            self.counted = due;
        } else if due > self.counted && self.held.add(due - self.counted) {
            self.counted = due;
        }
    }

    /// It has this many bytes more.
    pub fn add(&mut self, bytes: usize) {
        self.set(self.bytes.saturating_add(bytes));
    }

    /// It has this many bytes less.
    pub fn subtract(&mut self, bytes: usize) {
        self.set(self.bytes.saturating_sub(bytes));
    }
}

impl Drop for Charge {
    fn drop(&mut self) {
        self.set(0);
    }
}

/// Bytes of memory that the process may use: those of the machine, or of its control group if that is less.
/// None if the system does not tell.
pub fn of_machine() -> Option<u64> {
    let read = |path: &str| fs::read_to_string(path).unwrap_or_default();
    let machine = kilobytes(&read("/proc/meminfo"), "MemTotal");
    let groups = read("/proc/self/cgroup");
    let groups = groups.lines().filter_map(limit_file);
    // In a container the root that the process sees is its own group.
    let roots =
        ["memory.max", "memory/memory.limit_in_bytes"].map(|file| format!("{CGROUP}/{file}"));
    let limits = groups.chain(roots);
    // Without a limit, version 2 says `max` (no number), and version 1 a huge number.
    let limits = limits.filter_map(|path| read(&path).trim().parse::<u64>().ok());
    limits.chain(machine).min()
}

/// The bytes in a line such as `VmRSS:     1234 kB`, in files of `/proc`.
pub fn kilobytes(text: &str, name: &str) -> Option<u64> {
    let mut values = text.lines().filter_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
    let number = values.next()?.trim().strip_suffix("kB")?;
    Some(number.trim().parse::<u64>().ok()? * 1024)
}

const CGROUP: &str = "/sys/fs/cgroup";

/// The file with the limit of a group. A line of `/proc/self/cgroup` is `0::/path` in version 2, and
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
    fn what_is_held_is_counted_in_steps_and_given_back_to_the_byte() {
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
    fn a_client_that_asks_for_too_much_ends_itself_and_nobody_else() {
        let total = Arc::new(Total::default());
        total.limit.store(10 * STEP, Ordering::Relaxed);
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let connect = || Arc::new(TcpStream::connect(listener.local_addr().unwrap()).unwrap());
        let [greedy, other] = [(); 2].map(|()| Held::new(&total, Some(connect())));
        let (mut all, mut little) = (Charge::new(&greedy), Charge::new(&other));
        all.set(1 << 40);
        little.set(2 * STEP);
        assert_eq!((greedy.end(), other.end()), (Some(End::Evicted), None));
        assert_eq!((greedy.most(), total.bytes()), (1 << 40, 2 * STEP));
        drop((all, little));
        assert_eq!(total.bytes(), 0);
    }

    #[test]
    fn a_line_of_proc_is_found_by_its_whole_name() {
        let text = "VmHWMx:\t 1 kB\nVmHWM:\t    7 kB\nThreads:\t3\n";
        assert_eq!(kilobytes(text, "VmHWM"), Some(7 * 1024));
        assert_eq!(kilobytes(text, "Threads"), None);
        assert_eq!(kilobytes("", "VmHWM"), None);
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
