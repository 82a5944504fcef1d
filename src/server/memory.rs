//! What memory is used for, in bytes: one list of the parts, for INFO, MEMORY and `maxmemory`.
//!
//! ```text
//! store/memory.rs   keys, values, deadlines      ┐
//! held.rs           what clients hold            ├─▶ Memory ──▶ used() ──▶ used_memory, total.allocated
//! aof.rs            records not in the file yet  │       └────▶ limited() ─▶ what `maxmemory` is compared with
//! scripts.rs        sources and machines         ┘
//! ```
//!
//! Each part is kept as it changes, so to ask costs a dozen loads, however much there is: whoever holds the
//! keyspace may ask before every command. Not counted are the program's file, what an allocator loses, and what has
//! a small bound, such as the slow log. Resident memory, which the kernel counts, is shown beside it.
//!
//! **How Redis does it**: zmalloc.c adds up the size of every allocation, which in Rust would need `unsafe`.
//! `freeMemoryGetNotCountedMemory` in evict.c says what `maxmemory` is not compared with.

use super::Server;
use crate::held::kilobytes;
use crate::store::Data;
use std::fs;
use std::sync::atomic::Ordering;

/// Bytes that a waiting client takes: eight KiB for the stack of its thread, and the rest for what belongs to it.
pub const IDLE_CLIENT: usize = 13 * 1024;

/// All that is counted.
pub struct Memory {
    /// What the process had at its start, as the kernel has counted it then. It does not change.
    pub startup: usize,
    pub data: Data,
    /// Clients, with their input, what they have queued, and replies.
    pub clients: usize,
    /// Records that are not in the log's file yet.
    pub log: usize,
    /// Scripts in the cache.
    pub sources: usize,
    /// The machines that run scripts, with what they have compiled.
    pub machines: usize,
}

impl Memory {
    /// Everything: `used_memory`.
    pub fn used(&self) -> usize {
        self.limited() + self.log
    }

    /// What is compared with `maxmemory`. The log's buffer is not in it: keys that are evicted would make it longer.
    pub fn limited(&self) -> usize {
        self.startup + self.data.bytes() + self.clients + self.sources + self.machines
    }

    /// Whether what clients hold exceeds the limit by itself: then to evict all keys would be in vain. Not so if there would be
    /// no room without them either, because nobody means such a limit but to have all keys evicted.
    pub fn is_held_by_clients(&self, limit: usize) -> bool {
        let without_keys = self.limited() - self.data.bytes();
        without_keys > limit && without_keys - self.clients <= limit
    }

    /// Everything but keys and values themselves: `used_memory_overhead`.
    pub fn overhead(&self) -> usize {
        self.used() - self.data.contents
    }

    /// Everything that has come since the start.
    pub fn since_startup(&self) -> usize {
        self.used() - self.startup
    }
}

impl Server {
    /// What memory is used for, given what keys take (`Keyspace::memory`). Whoever asks keeps the peak up to date.
    pub fn memory(&self, data: Data) -> Memory {
        let clients = self.clients.number() * IDLE_CLIENT + self.config.clients.bytes();
        let (sources, machines) = self.scripts.bytes();
        let log = self.aof.unwritten() as usize;
        let memory = Memory { startup: self.startup, data, clients, log, sources, machines };
        let (used, peak) = (memory.used(), &self.stats.peak_memory);
        if used > peak.load(Ordering::Relaxed) {
            peak.fetch_max(used, Ordering::Relaxed);
        }
        memory
    }

    /// The most that was used when somebody looked.
    pub fn peak_memory(&self) -> usize {
        self.stats.peak_memory.load(Ordering::Relaxed)
    }
}

/// What the kernel counts of the process, in bytes.
pub struct Resident {
    pub process: usize,
    /// Without the program and other files: what the allocator has, and stacks.
    pub anonymous: usize,
}

impl Resident {
    /// None without `/proc`.
    pub fn now() -> Option<Resident> {
        let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
        let of = |name| Some(kilobytes(&status, name)? as usize);
        Some(Resident { process: of("VmRSS")?, anonymous: of("RssAnon")? })
    }

    /// How many times as much it is, and how much more: what the allocator has beside what is counted, what it has in
    /// memory beside what it has (nobody knows, so the same), the process beside the allocator, and the
    /// process beside what is counted.
    pub fn overheads(&self, memory: &Memory) -> [(f64, i64); 4] {
        let Resident { process, anonymous } = *self;
        let used = memory.used();
        let pairs =
            [(anonymous, used), (anonymous, anonymous), (process, anonymous), (process, used)];
        pairs.map(|(all, part)| (all as f64 / part.max(1) as f64, all as i64 - part as i64))
    }
}
