//! The server's own threads. Each has a chapter where its work is told.
//!
//! **How Redis does it**: bio.c has three of them. The rest is done by `serverCron`, or by a child after a fork.

use crate::aof::rewrite::replay_sealed;
use crate::call;
use crate::replication::replica;
use crate::server::Server;
use crate::store::Store;
use crate::{evict, expire};
use std::sync::Arc;
use std::thread::{self, Thread};

/// Starts the threads.
pub fn start(server: &Arc<Server>, store: &Arc<Store>) -> Result<(), String> {
    let start = |name, work: fn(&Arc<Server>, &Store)| {
        let (server, store) = (server.clone(), store.clone());
        spawn(name, move || work(&server, &store)).map(drop)
    };
    start("sync", |server, _| server.aof.sync_every_second())?;
    start("expire", |server, store| expire::expire_for_ever(server, store))?;
    start("maxmemory", |server, store| evict::evict_for_ever(server, store))?;
    // A rewrite makes its base from a replay of the files that nothing is appended to any more
    // (aof/rewrite.rs).
    start("rewrite", |server, store| {
        let replay_all = |manifest: &_| call::replay(server, |run| replay_sealed(manifest, run));
        server.aof.rewrite_when_asked(store, &replay_all)
    })?;
    start("snapshot", |server, store| {
        server.snapshots.save_for_ever(&server.config, &server.aof.rewriter.alone, store)
    })?;
    start("follow", |server, store| replica::follow_for_ever(server, store))
}

/// Starts a thread of our own.
pub fn spawn(name: &str, work: impl FnOnce() + Send + 'static) -> Result<Thread, String> {
    match thread::Builder::new().name(name.into()).spawn(work) {
        Ok(handle) => Ok(handle.thread().clone()),
        Err(error) => Err(format!("cannot start the thread '{name}': {error}")),
    }
}
