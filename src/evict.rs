//! The thread that evicts keys when `maxmemory` is exceeded and no command comes that would do it, or when it is
//! exceeded by much (batch/evicting.rs, server/eviction.rs).
//!
//! ```text
//! every 100 ms, and after CONFIG SET:  is it exceeded? ─▶ lock ─ evict for half a millisecond ─ log, unlock, commit
//!                                                          └────────── pause for as long ──────────┘ until it fits
//! every 4 minutes:                     visits all entries, so that they go on to know when they were used
//! when the policy is another one:      the same, so that they know how often, and not when; or the other way round
//! ```
//!
//! **How Redis does it**: `evictionTimeProc`, an event of its one loop.

use crate::batch::{Batch, Room};
use crate::client::Client;
use crate::log;
use crate::propagate::Source;
use crate::resp::Reply;
use crate::server::Server;
use crate::stats::unix_microseconds;
use crate::store::Store;
use crate::types::{Limits, Remember, Usage};
use std::mem::discriminant;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::thread;
use std::time::{Duration, Instant};

const TICK: Duration = Duration::from_millis(100);

/// How often entries are visited (types/usage.rs).
const KEEP_UP: Duration = Duration::from_secs(4 * 60);

pub fn evict_for_ever(server: &Arc<Server>, store: &Store) -> ! {
    let mut client = Client::fake(server);
    let mut reply = Reply::new();
    let mut kept_up = Instant::now();
    let remember = || Limits::of(&server.config, Source::Client).remember;
    let mut remembers = remember();
    server.eviction.wake_me();
    let limit = server.config.maxmemory.get();
    if (1..1024 * 1024).contains(&limit) {
        log::warning(format_args!(
            "WARNING: You specified a maxmemory value that is less than 1MB (current value is {limit} \
             bytes). Are you sure this is what you really want?"
        ));
    }
    loop {
        thread::park_timeout(TICK);
        while is_exceeded(server, store) {
            let begin = Instant::now();
            let mut batch = Batch::new(server, store, Source::Client);
            batch.begin(false);
            if batch.exclude().is_err() {
                break;
            }
            let room = batch.evict_some();
            lower_the_ceiling(server, &batch, room);
            batch.finish(&mut client, &mut reply);
            if room != Room::NotYet {
                break;
            }
            thread::sleep(begin.elapsed());
        }
        let turns = server.eviction.turns.load(Relaxed);
        let remembered = std::mem::replace(&mut remembers, remember());
        if discriminant(&remembered) != discriminant(&remembers) {
            visit_usages(server, store, remembers, Usage::turn);
        } else if kept_up.elapsed() >= KEEP_UP {
            kept_up = Instant::now();
            visit_usages(server, store, remembers, Usage::keep_up);
        }
        server.eviction.turned.store(turns, Relaxed);
    }
}

fn is_exceeded(server: &Server, store: &Store) -> bool {
    let limit = server.config.maxmemory.get();
    let evicts_for_us = server.primary.evicts_for_us(&server.config);
    if limit == 0 || server.is_loading() || server.pause.is_on() || evicts_for_us {
        server.eviction.is_exceeded.store(false, Relaxed);
        return false;
    }
    let Ok(keyspace) = store.read() else {
        return false;
    };
    // Noted under the lock: whoever has it after us knows better.
    let used = server.note_memory(keyspace.memory());
    drop(keyspace);
    let is_exceeded = used > limit;
    if !is_exceeded {
        server.eviction.note(true);
    }
    if server.eviction.limit_is_new.swap(false, Relaxed) && is_exceeded {
        log::warning(format_args!(
            "WARNING: the new maxmemory value set via CONFIG SET ({limit}) is smaller than the current memory \
             usage ({used}). This will result in key eviction and/or the inability to accept new write commands \
             depending on the maxmemory-policy."
        ));
    }
    is_exceeded
}

/// Says how much may be in use until the next time.
fn lower_the_ceiling(server: &Server, batch: &Batch, room: Room) {
    let ceiling = &server.eviction.ceiling;
    match (room, ceiling.load(Relaxed)) {
        (Room::NotYet, 0) => ceiling.store(batch.used(), Relaxed),
        (Room::NotYet, before) => ceiling.store(batch.used().min(before), Relaxed),
        _ => ceiling.store(0, Relaxed),
    }
}

/// Visits what all entries remember of their use, some under one lock.
fn visit_usages(
    server: &Server,
    store: &Store,
    remember: Remember,
    visit: fn(&Usage, Remember, u64),
) {
    for db in 0..server.config.databases.get() {
        let mut cursor = 0;
        loop {
            let begin = Instant::now();
            cursor = {
                let (keyspace, now) = (store.read_when_free(), unix_microseconds() / 1000);
                keyspace.visit_usages(db, cursor, |usage| visit(usage, remember, now))
            };
            if cursor == 0 {
                break;
            }
            thread::sleep(begin.elapsed());
        }
    }
}
