//! lazyfree: what may take long to free is freed by another thread, so that nobody holds a lock for it.
//!
//! ```text
//! DEL, FLUSHALL, SET …  ──▶  [ waiting ]  ──▶  lazyfree starts a thread that frees, until nothing comes for a moment
//! ```
//!
//! **Why a thread that ends.** For each thread glibc keeps a few of the chunks that it has freed, of each size, and an arena gives
//! back only what lies above its last chunk. So a hundred chunks that were kept for this thread kept 45 MB, after a
//! FLUSHALL of a million keys. When a thread ends, nothing is kept for it. For the same reason the list has its memory from the
//! start on: a piece of it that came later would lie above what is to be freed.
//!
//! **How Redis does it**: lazyfree.c hands it to one of bio.c's threads, which never end. jemalloc gives back single pages.

use std::sync::{Condvar, Mutex};
use std::thread::{Builder, scope};
use std::time::Duration;

/// Something that may take long to free.
pub struct Garbage {
    _what: Box<dyn Send + Sync>,
    /// How many bytes commands wait for if `maxmemory` is reached (batch/evicting.rs). For a whole database 0: it may
    /// take seconds, and whoever empties one needs not wait.
    pub bytes: usize,
}

impl Garbage {
    pub fn new(bytes: usize, what: impl Send + Sync + 'static) -> Garbage {
        Garbage { _what: Box::new(what), bytes }
    }
}

/// There are seldom more that wait.
pub const ROOM: usize = 256;

/// How long the thread that frees waits for more. So there are at most ten new threads a second.
const QUIET: Duration = Duration::from_millis(100);

pub struct Lazyfree {
    /// A leaf of the lock order.
    waiting: Mutex<Vec<Garbage>>,
    comes: Condvar,
}

impl Lazyfree {
    pub fn new() -> Lazyfree {
        Lazyfree { waiting: Mutex::new(Vec::with_capacity(ROOM)), comes: Condvar::new() }
    }

    pub fn add(&self, garbage: Garbage) {
        self.waiting.lock().unwrap().push(garbage);
        self.comes.notify_one();
    }

    /// Frees all that comes. `freed` is told the bytes of each.
    pub fn free_for_ever(&self, freed: &(impl Fn(usize) + Sync)) -> ! {
        let free = || {
            while let Some(garbage) = self.next() {
                let bytes = garbage.bytes;
                drop(garbage);
                freed(bytes);
            }
        };
        loop {
            let waiting = self.waiting.lock().unwrap();
            drop(self.comes.wait_while(waiting, |waiting| waiting.is_empty()).unwrap());
            in_thread("lazyfree", &free);
        }
    }

    /// What is to be freed next. None if nothing comes for a moment.
    fn next(&self) -> Option<Garbage> {
        let waiting = self.waiting.lock().unwrap();
        let wait = self.comes.wait_timeout_while(waiting, QUIET, |waiting| waiting.is_empty());
        let (mut waiting, _) = wait.unwrap();
        let next = waiting.pop();
        if waiting.is_empty() && waiting.capacity() > ROOM {
            waiting.shrink_to(ROOM);
        }
        next
    }
}

/// Does work that frees much in a thread that ends with it; or here, if the system has no more threads.
pub fn in_thread<R: Send>(name: &str, work: &(impl Fn() -> R + Sync)) -> R {
    scope(|scope| match Builder::new().name(name.into()).spawn_scoped(scope, work) {
        Ok(thread) => thread.join().unwrap(),
        Err(_) => work(),
    })
}
