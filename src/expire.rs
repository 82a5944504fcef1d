//! The active expire cycle: the thread that looks for expired keys which nobody asks for (store/expire.rs).
//!
//! ```text
//! every 100 ms, for each database     lock ─ note up to BATCH keys, delete them ─ log, unlock, commit
//! that has an expired key              └─ pause three times as long as that took ─┘ until there are no more
//! ```
//!
//! A million keys that expire at once are deleted in thousands of short steps. The pauses leave three
//! quarters of the time to clients, as Redis's `ACTIVE_EXPIRE_CYCLE_SLOW` does. Then the thread gives back
//! memory that deleted keys have left behind, a few slots under one lock, and looks how much memory is in use.

use crate::batch::Batch;
use crate::client::Client;
use crate::propagate::Source;
use crate::resp::Reply;
use crate::server::Server;
use crate::stats::{add, unix_microseconds};
use crate::store::Store;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

/// Keys that are deleted under one lock: some tens of microseconds.
const BATCH: usize = 64;

const TICK: Duration = Duration::from_millis(100);

pub fn expire_for_ever(server: &Arc<Server>, store: &Store) -> ! {
    let mut client = Client::fake(server);
    let mut reply = Reply::new();
    loop {
        std::thread::sleep(TICK);
        // Asked for all at once, because there may be thousands of databases, and most have none.
        let with_expired = store.read_when_free().with_expired(unix_microseconds() / 1000);
        for db in with_expired {
            while may_expire(server) {
                let begin = Instant::now();
                let mut batch = Batch::new(server, store, Source::Client);
                batch.begin(false);
                if batch.share().is_err() {
                    break;
                }
                let found = batch.view(db).note_expired(BATCH);
                batch.finish(&mut client, &mut reply);
                add(&server.stats.expire_cycle, begin.elapsed().as_micros() as u64);
                if found == 0 {
                    break;
                }
                server.config.latency.note("expire-cycle", begin.elapsed());
                std::thread::sleep(begin.elapsed() * 3);
            }
        }
        give_memory_back(store);
        // So that the peak is one of every tick, whether anybody asks or not.
        let _ = server.memory(store.read_when_free().memory());
    }
}

/// Not while the log loads, while a pause keeps the data as it is, or while a primary says what is deleted.
fn may_expire(server: &Server) -> bool {
    let is_on = server.active_expire.load(Ordering::Relaxed);
    is_on && !server.is_loading() && !server.pause.is_on() && !server.primary.is_set()
}

/// Finishes what changes have begun: the blocks of which a part has become empty are left (heap.rs).
fn give_memory_back(store: &Store) {
    while store.read_when_free().has_blocks_to_empty() {
        let begin = Instant::now();
        if !store.write_when_free().empty_blocks() {
            break;
        }
        std::thread::sleep(begin.elapsed() * 3);
    }
}
