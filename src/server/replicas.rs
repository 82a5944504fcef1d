//! Who follows us, and how far each has come.
//!
//! ```text
//! REPLCONF, PSYNC ─▶ join ─▶ Waiting ─▶ Loading ─▶ Online ─▶ leave
//!                            a snapshot  it loads   it is sent the stream (replication/primary.rs)
//!                            is made     that
//! REPLCONF ACK    ─▶ acknowledge ─▶ WAIT, INFO, ROLE, min-replicas-to-write
//! ```
//!
//! A replica acknowledges once a second, and at once when GETACK comes in the stream. So WAIT puts a GETACK
//! behind what it waits for, unless another WAIT has just done that.
//!
//! **How Redis does it**: `replicationCron` and `replicationRequestAckFromSlaves` in replication.c.

use super::{Public, Server};
use crate::aof::Position;
use crate::aof::backlog::Counting;
use crate::error::Error;
use crate::held::End;
use crate::listen::Address;
use crate::store::Keyspace;
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex, OnceLock, Weak};
use std::time::{Duration, Instant};

#[derive(Default)]
pub struct Replicas {
    /// By the id of the client.
    all: Mutex<BTreeMap<u64, Replica>>,
    /// One of them has acknowledged something, or has left.
    changed: Condvar,
    /// Clients that wait for that. Then what is new is sent at once, and not gathered.
    pub awaited: AtomicUsize,
    /// The position before the last GETACK.
    asked: Mutex<Option<Position>>,
    /// Those who were online and have left: how far each was sent the stream, and when it left. It may come back.
    left: Mutex<Vec<(Position, Instant)>>,
    /// The last PING, or the moment since which there is no replica.
    tended: Mutex<Option<Instant>>,
    /// The snapshot that is being made or sent. Replicas that come meanwhile share it.
    pub snapshot: Mutex<Weak<Snapshot>>,
    pub counts: Counts,
}

/// For INFO.
#[derive(Default)]
pub struct Counts {
    pub full: AtomicU64,
    pub partial: AtomicU64,
    pub refused: AtomicU64,
    /// Bytes sent to replicas.
    pub sent: AtomicU64,
}

/// The data of one moment.
pub struct Snapshot {
    /// The history's id.
    pub id: String,
    pub offset: u64,
    /// Filled when it is made.
    pub keyspace: OnceLock<Result<Keyspace, String>>,
}

/// What a replica says of itself before it asks for the stream.
#[derive(Clone, Default)]
pub struct Announced {
    pub ip: Option<Box<[u8]>>,
    pub port: i64,
    /// It can tell the end of a snapshot without its length.
    pub eof: bool,
    pub psync2: bool,
    /// It wants a snapshot and no stream.
    pub only_snapshot: bool,
    /// It wants snapshots without data.
    pub no_data: bool,
}

/// What it asks for.
pub struct Request {
    /// The id of a history, and the offset from which it has to go on. None: it begins.
    pub from: Option<(Vec<u8>, u64)>,
    /// SYNC, and not PSYNC.
    pub is_old: bool,
}

#[derive(Clone, Copy, PartialEq)]
pub enum State {
    Waiting,
    Loading,
    Online,
}

#[derive(Clone)]
pub struct Replica {
    pub client: Arc<Public>,
    pub announced: Announced,
    pub state: State,
    /// How it counts the stream.
    pub counting: Counting,
    /// It was sent everything before this.
    pub sent: Position,
    /// It has everything before this, in memory and on its disk.
    pub acked: Position,
    pub durable: Position,
    pub acked_at: Option<Instant>,
    /// When it went online.
    since: Instant,
}

impl Replica {
    /// For how many seconds it has been silent.
    pub fn lag(&self) -> u64 {
        self.acked_at.unwrap_or(self.since).elapsed().as_secs()
    }

    /// How far it is, as INFO and ROLE show it.
    pub fn shown_offset(&self, counting: Counting) -> u64 {
        self.acked_at.map_or(0, |_| counting.offset_of(self.acked))
    }

    /// Its address, as others can reach it.
    pub fn ip(&self) -> String {
        let peer = self.client.connection.as_ref().map(|connection| &connection.peer);
        match (&self.announced.ip, peer) {
            (Some(ip), _) => String::from_utf8_lossy(ip).into_owned(),
            (None, Some(Address::Ip(peer))) => peer.ip().to_string(),
            _ => "?".into(),
        }
    }
}

impl Replicas {
    pub fn join(&self, client: &Arc<Public>, announced: Announced) {
        let replica = Replica {
            client: client.clone(),
            announced,
            state: State::Waiting,
            counting: Counting::default(),
            sent: 0,
            acked: 0,
            durable: 0,
            acked_at: None,
            since: Instant::now(),
        };
        self.all.lock().unwrap().insert(client.id, replica);
    }

    pub fn leave(&self, id: u64) {
        let replica = self.all.lock().unwrap().remove(&id);
        if let Some(Replica { sent, .. }) = replica.filter(|left| left.state == State::Online) {
            self.left.lock().unwrap().push((sent, Instant::now()));
        }
        self.changed.notify_all();
    }

    /// How far those who have left in the last so many seconds were sent the stream.
    fn left_within(&self, seconds: u64) -> Option<Position> {
        let mut left = self.left.lock().unwrap();
        left.retain(|(_, at)| at.elapsed().as_secs() < seconds);
        left.iter().map(|(sent, _)| *sent).min()
    }

    /// A copy of the list.
    pub fn all(&self) -> Vec<Replica> {
        self.all.lock().unwrap().values().cloned().collect()
    }

    pub fn count(&self) -> usize {
        self.all.lock().unwrap().len()
    }

    /// It is sent everything before this from now on.
    pub fn is_sent(&self, id: u64, state: State, sent: Position) {
        if let Some(replica) = self.all.lock().unwrap().get_mut(&id) {
            if replica.state != state {
                replica.since = Instant::now();
            }
            (replica.state, replica.sent) = (state, sent);
        }
    }

    /// It counts the stream like this.
    pub fn counts(&self, id: u64, counting: Counting) {
        if let Some(replica) = self.all.lock().unwrap().get_mut(&id) {
            replica.counting = counting;
        }
    }

    /// REPLCONF ACK: it has everything before `offset`, and on its disk everything before `durable`.
    pub fn acknowledge(&self, id: u64, offset: u64, durable: u64) {
        if let Some(replica) = self.all.lock().unwrap().get_mut(&id) {
            let [offset, durable] = [offset, durable].map(|n| replica.counting.position_of(n));
            replica.acked = replica.acked.max(offset);
            replica.durable = replica.durable.max(durable);
            replica.acked_at = Some(Instant::now());
        }
        self.changed.notify_all();
    }

    /// How many replicas are online and have come this far.
    pub fn count_online(&self, is_there: impl Fn(&Replica) -> bool) -> usize {
        count_in(&self.all.lock().unwrap(), is_there)
    }

    /// Waits, for at most `time`, until so many replicas are online and have come this far. Returns whether they have.
    pub fn wait_for(
        &self,
        count: usize,
        time: Duration,
        is_there: impl Fn(&Replica) -> bool,
    ) -> bool {
        self.wait_until(time, |all| count_in(all, &is_there) >= count)
    }

    /// Waits, for at most `time`, until all that are online have everything before `end`. Returns whether they have.
    pub fn nobody_is_behind(&self, end: Position, time: Duration) -> bool {
        self.wait_until(time, |all| count_in(all, |replica| replica.acked < end) == 0)
    }

    /// Waits, for at most `time`, until this replica has acknowledged anything. Returns whether it has.
    pub fn has_acknowledged(&self, id: u64, time: Duration) -> bool {
        self.wait_until(time, |all| all.get(&id).is_some_and(|r| r.acked_at.is_some()))
    }

    fn wait_until(&self, time: Duration, holds: impl Fn(&BTreeMap<u64, Replica>) -> bool) -> bool {
        let all = self.all.lock().unwrap();
        let waited = self.changed.wait_timeout_while(all, time, |all| !holds(all));
        !waited.unwrap().1.timed_out()
    }
}

fn count_in(all: &BTreeMap<u64, Replica>, is_there: impl Fn(&Replica) -> bool) -> usize {
    all.values().filter(|replica| replica.state == State::Online && is_there(replica)).count()
}

/// A client waits for replicas.
pub struct Asking<'a>(&'a Replicas);

impl Drop for Asking<'_> {
    fn drop(&mut self) {
        self.0.awaited.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Server {
    /// Asks all replicas to acknowledge what is before this position. While what is returned lives, the answer is awaited.
    pub fn ask_replicas(&self, position: Position) -> Asking<'_> {
        self.replicas.awaited.fetch_add(1, Ordering::Relaxed);
        let asking = Asking(&self.replicas);
        let mut asked = self.replicas.asked.lock().unwrap();
        if asked.is_some_and(|asked| asked >= position) || self.replicas.count() == 0 {
            return asking;
        }
        *asked = self.aof.append_to_stream(&[b"REPLCONF", b"GETACK", b"*"]).or(*asked);
        drop(asked);
        // If the disk fails, the client waits until its time is over.
        let _ = self.aof.commit(self.aof.position());
        asking
    }

    /// Why writes are refused at present, if they are: the disk fails, or, if replication counts, too few replicas are
    /// near (`min-replicas-to-write`), or we are one ourselves.
    #[inline]
    pub fn why_no_writes(&self, replication_counts: bool) -> Option<Error> {
        if self.snapshots.stop_writes(&self.config) {
            return Some(Error::SnapshotsFail);
        }
        if let Some(cause) = self.aof.failure() {
            return Some(Error::misconf(&cause));
        }
        let are_missing = replication_counts
            && self.config.min_replicas_to_write.get() > 0
            && self.too_few_are_near();
        if are_missing {
            return Some(Error::NoReplicas);
        }
        let is_replica = replication_counts && self.primary.forbids_writes(&self.config);
        is_replica.then_some(Error::ReadOnly)
    }

    #[cold]
    fn too_few_are_near(&self) -> bool {
        let config = &self.config;
        let most = config.min_replicas_max_lag.get();
        most > 0 && self.near_replicas() < config.min_replicas_to_write.get()
    }

    /// How many replicas were heard of lately.
    pub fn near_replicas(&self) -> usize {
        let most = self.config.min_replicas_max_lag.get() as u64;
        self.replicas.count_online(|replica| replica.lag() <= most)
    }

    /// Called ten times a second. PINGs all replicas now and then, cuts off those that are silent, and
    /// closes old files of the log.
    pub fn tend_replicas(&self) {
        let (replicas, config) = (self.replicas.all(), &self.config);
        let mut tended = self.replicas.tended.lock().unwrap();
        let seconds = tended.get_or_insert_with(Instant::now).elapsed().as_secs();
        let backlog = &self.aof.backlog;
        let timeout = config.repl_timeout.get() as u64;
        let kept = self.aof.sendable().saturating_sub(config.repl_backlog_size.get() as u64);
        let needed =
            replicas.iter().map(|replica| replica.sent).chain(self.replicas.left_within(timeout));
        backlog.forget_before(needed.min().map_or(kept, |needed| needed.min(kept)));
        if replicas.is_empty() {
            let ttl = config.repl_backlog_ttl.get() as u64;
            if ttl > 0 && seconds > ttl {
                match self.primary.is_set() {
                    // It may be promoted at any time. Then what comes later is needed.
                    true => backlog.forget_before(self.aof.sendable()),
                    false => backlog.forget_all(),
                }
            }
            return;
        }
        if seconds >= config.repl_ping_replica_period.get() as u64 {
            *tended = Some(Instant::now());
            self.aof.append_to_stream(&[b"PING"]);
        }
        drop(tended);
        for replica in &replicas {
            // A replica of before Redis 2.8 does not acknowledge.
            let can_tell = replica.acked_at.is_some() || replica.announced.psync2;
            if replica.state == State::Online && can_tell && replica.lag() > timeout {
                replica.client.held.kill(End::Killed);
            }
        }
    }
}
