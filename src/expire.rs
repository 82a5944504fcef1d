//! Two ways for a key to die: when it is looked at (lazy expiry), and when it is swept (active).
//!
//! A key whose deadline has passed is gone for everybody at that millisecond, whether or not it
//! still takes memory: no view returns it, and whoever meets it deletes it (store.rs). That alone
//! would keep for ever what nobody asks for again, so a thread sweeps:
//!
//! ```text
//! every 100 ms:  for each database   lock ─ delete up to BATCH of the dead ─ log, unlock, commit
//!                                     └─ pause three times as long as that took ─┘ until none is left
//! ```
//!
//! The dead are found through the index of deadlines, the earliest first, so nothing living is
//! looked at. A million keys that die at once are deleted in thousands of short steps, and the
//! pauses leave three quarters of the time to clients, as Redis's `ACTIVE_EXPIRE_CYCLE_SLOW`.
//!
//! The same thread gives back memory that deleted keys have left behind, a few slots under one lock.
//!
//! **How Redis does it**: expire.c, `activeExpireCycle`: it has no order of deadlines and samples
//! twenty keys at random, again and again while many of them are dead; so up to a tenth may stay.

use crate::batch::Batch;
use crate::client::Client;
use crate::resp::Reply;
use crate::server::Server;
use crate::store::Keyspace;
use std::sync::atomic::Ordering;
use std::sync::{Arc, RwLock};
use std::time::{Duration, Instant};

/// Keys that are deleted under one lock: some tens of microseconds.
const BATCH: usize = 64;

const TICK: Duration = Duration::from_millis(100);

/// The sweeping thread.
pub fn sweep_for_ever(server: &Arc<Server>, store: &RwLock<Keyspace>) -> ! {
    let mut client = Client::fake(server);
    let mut reply = Reply::new();
    loop {
        std::thread::sleep(TICK);
        let mut db = 0;
        while db < server.config.databases.get() {
            if !server.active_expire.load(Ordering::Relaxed) || server.is_loading() {
                break;
            }
            let begin = Instant::now();
            let mut batch = Batch::new(server, store);
            batch.begin(false);
            let deleted = batch.sweep(db, BATCH);
            batch.finish(&mut client, &mut reply);
            if deleted < BATCH {
                db += 1;
            }
            if deleted > 0 {
                std::thread::sleep(begin.elapsed() * 3);
            }
        }
        give_memory_back(store);
    }
}

/// Finishes what changes have begun: the blocks that have become half empty are left (heap.rs).
fn give_memory_back(store: &RwLock<Keyspace>) {
    while store.read().unwrap().wants_to_leave() {
        let begin = Instant::now();
        if !store.write().unwrap().leave_blocks() {
            break;
        }
        std::thread::sleep(begin.elapsed() * 3);
    }
}
