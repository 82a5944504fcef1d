//! Whom we follow, if we are a replica, and how that goes.
//!
//! ```text
//! REPLICAOF h p ─▶ Connect ─▶ Connecting ─▶ Handshake ─▶ Sync ─▶ Up
//!                     ▲ a second later, if the link breaks │      │
//!                     └────────────────────────────────────┴──────┘
//! something comes that is not here, or REPLICAOF NO ONE ─▶ the thread sleeps until REPLICAOF
//! ```
//!
//! The thread that follows (replication/replica.rs) writes how far it is. All others read.
//!
//! **Orders have numbers.** Each REPLICAOF raises [`Primary::order`]. The thread compares that number under the
//! exclusive lock before it changes anything. So when REPLICAOF NO ONE is answered, whoever takes a lock later sees
//! the last change of the primary.

use super::{Public, tail::Tail};
use crate::aof::backlog::Legacy;
use crate::config::Config;
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex};
use std::time::{Duration, Instant};

#[derive(Default)]
pub struct Primary {
    /// Whether there is one: we are a replica.
    is_set: AtomicBool,
    /// Whether the link is up.
    is_up: AtomicBool,
    /// The number of the last REPLICAOF.
    pub order: AtomicU64,
    status: Mutex<Status>,
    changed: Condvar,
    /// How much of the primary's history the data has. -1: none.
    pub offset: AtomicI64,
    tail: Mutex<Tail>,
}

#[derive(Clone, Default)]
pub struct Status {
    /// Host and port.
    pub address: Option<(String, u16)>,
    pub link: Link,
    /// Why it broke the last time.
    pub reason: Option<String>,
    /// When the last try ended.
    tried: Option<Instant>,
    /// When the link went down. None if there was none yet, and while it is up.
    pub down_since: Option<Instant>,
    /// When a byte came the last time.
    pub heard: Option<Instant>,
    /// Bytes of the snapshot that have come, and all of them. 0: that is not known. -1: it has not begun.
    pub sync: (u64, i64),
    /// The client that stands for the connection.
    client: Option<Arc<Public>>,
    /// It makes no sense to try again.
    is_stopped: bool,
}

#[derive(Clone, Copy, Default, PartialEq)]
pub enum Link {
    #[default]
    Connect,
    Connecting,
    Handshake,
    Sync,
    Up,
}

impl Link {
    /// As ROLE calls it.
    pub fn name(self) -> &'static str {
        match self {
            Link::Connect => "connect",
            Link::Connecting => "connecting",
            Link::Handshake => "handshake",
            Link::Sync => "sync",
            Link::Up => "connected",
        }
    }
}

impl Status {
    fn goes_down(&mut self) {
        if self.link == Link::Up {
            self.down_since = Some(Instant::now());
        }
    }
}

/// From a break to the next try.
const RETRY: Duration = Duration::from_secs(1);

impl Primary {
    /// Follows this one from now on, or none. False if it follows that one already.
    pub fn set(&self, address: Option<(String, u16)>) -> bool {
        let mut status = self.status.lock().unwrap();
        let is_same = |(host, port): &(String, u16)| match &status.address {
            Some((old, at)) => old.eq_ignore_ascii_case(host) && at == port,
            None => false,
        };
        if address.as_ref().is_some_and(is_same) && !status.is_stopped {
            return false;
        }
        self.is_set.store(address.is_some(), Ordering::Release);
        self.is_up.store(false, Ordering::Release);
        self.order.fetch_add(1, Ordering::AcqRel);
        self.offset.store(-1, Ordering::Relaxed);
        let client = status.client.take();
        status.goes_down();
        *status = Status { address, down_since: status.down_since, ..Status::default() };
        drop(status);
        self.changed.notify_all();
        if let Some(client) = client {
            client.held.kill(crate::held::End::Killed);
        }
        true
    }

    /// Brings the end of the stream up to date, if the order is still the last one.
    pub fn with_tail(&self, order: u64, change: impl FnOnce(&mut Tail)) {
        let mut tail = self.tail.lock().unwrap();
        if self.is_current(order) {
            change(&mut tail);
        }
    }

    /// We are promoted: what we have had of the primary.
    pub fn take_legacy(&self) -> Option<Legacy> {
        self.tail.lock().unwrap().take()
    }

    /// Whether we are a replica.
    pub fn is_set(&self) -> bool {
        self.is_set.load(Ordering::Acquire)
    }

    /// Whether this order is still the last one.
    pub fn is_current(&self, order: u64) -> bool {
        self.order.load(Ordering::Acquire) == order
    }

    /// Whether clients may not write.
    #[inline]
    pub fn forbids_writes(&self, config: &Config) -> bool {
        self.is_set() && config.replica_read_only.get()
    }

    /// Whether clients may not look at the data, because it may be old.
    #[inline]
    pub fn hides_data(&self, config: &Config) -> bool {
        self.is_set()
            && !config.replica_serve_stale_data.get()
            && !self.is_up.load(Ordering::Acquire)
    }

    /// Whether keys are evicted by the primary alone.
    pub fn evicts_for_us(&self, config: &Config) -> bool {
        self.is_set() && config.replica_ignore_maxmemory.get()
    }

    pub fn status(&self) -> Status {
        self.status.lock().unwrap().clone()
    }

    /// Sleeps until there is somebody to follow, and the time has come to try; returns the order and the address.
    pub fn wait_for_one(&self) -> (u64, String, u16) {
        let mut status = self.status.lock().unwrap();
        loop {
            let address = status.address.clone().filter(|_| !status.is_stopped);
            status = match address {
                None => self.changed.wait(status).unwrap(),
                Some((host, port)) => {
                    let since = |at: Instant| RETRY.saturating_sub(at.elapsed());
                    let rest = status.tried.map_or(Duration::ZERO, since);
                    if rest.is_zero() {
                        return (self.order.load(Ordering::Acquire), host, port);
                    }
                    self.changed.wait_timeout(status, rest).unwrap().0
                }
            }
        }
    }

    /// Changes what others see, if the order is still the last one. Returns whether it is.
    pub fn update(&self, order: u64, change: impl FnOnce(&mut Status)) -> bool {
        let mut status = self.status.lock().unwrap();
        let is_current = self.is_current(order);
        if is_current {
            change(&mut status);
            let is_up = status.link == Link::Up;
            status.down_since = status.down_since.filter(|_| !is_up);
            self.is_up.store(is_up, Ordering::Release);
        }
        is_current
    }

    /// There is a connection. False if it is no longer wanted.
    pub fn connected(&self, order: u64, client: &Arc<Public>) -> bool {
        self.update(order, |status| {
            status.client = Some(client.clone());
            status.link = Link::Handshake;
        })
    }

    /// The link has broken. `stop`: it makes no sense to try again.
    pub fn broke(&self, order: u64, reason: &str, stop: bool) {
        self.update(order, |status| {
            status.goes_down();
            status.link = Link::Connect;
            status.reason = Some(reason.into());
            status.tried = Some(Instant::now());
            status.client = None;
            status.is_stopped = stop;
        });
    }
}
