//! What a start loads, and the server's own threads, which start then. Each has a chapter where its work is told.
//!
//! **How Redis does it**: bio.c has three of them. The rest is done by `serverCron`, or by a child after a fork.

use crate::aof::rewrite::{replay_sealed, replay_up_to};
use crate::call;
use crate::replication::replica;
use crate::server::Server;
use crate::store::Store;
use crate::{evict, expire, snapshot};
use std::sync::Arc;
use std::thread::{self, Thread};

/// Loads the data, from the log or else from a snapshot: into a keyspace of its own, whose lock the replay keeps to the
/// end. INFO looks at an empty one meanwhile.
pub fn load(server: &Arc<Server>, store: &Store, has_log: bool) -> Result<(), String> {
    let keyspace = match has_log {
        true => Some(call::replay(server, |run| server.aof.start(run))?),
        false => snapshot::load(&server.config, &server.aof.status, &server.snapshots)?,
    };
    keyspace.into_iter().for_each(|keyspace| store.write_when_free().take_over(keyspace));
    Ok(())
}

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
        let replay =
            |manifest: &_, length| call::replay(server, |run| replay_up_to(manifest, length, run));
        server.snapshots.save_for_ever(&server.config, &server.aof, store, &replay)
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
