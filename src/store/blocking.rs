//! Clients that wait for a key: who they are, what they wait for, and in which order they are served.
//!
//! BLPOP of a missing key waits until another client pushes. A handler cannot wait, so it leaves a [`Wait`]:
//! which of its arguments are the keys, which type it needs, and a function that serves it. Under the same
//! exclusive lock the client becomes a [`Waiter`] and joins the queue of each key:
//!
//! ```text
//!                        queues                             ready
//! A: BLPOP x y 0         x ─▶ A, B                          whatever makes a key marks it here,
//! B: BLPOP x 0           y ─▶ A                             if there is a queue for it
//! C: RPUSH x 1 2                                            x
//!    after the command   the first of x is served: A ─▶ 1   A leaves all its queues
//!                        then the next:            B ─▶ 2   log: RPUSH x 1 2, LPOP x, LPOP x
//! ```
//!
//! A key is made in few places of `ViewMut`, and those call [`ViewMut::mark_ready`]. So RPUSH, RENAME, SORT
//! and RESTORE serve clients, and their handlers do not know it. Who is served and when: batch/serving.rs. How
//! a client's thread waits: serve/blocked.rs.
//!
//! - The order of a queue is that of arrival. The keys are served in the order in which they became ready.
//! - If the key has another type than a client needs, the client waits on.
//! - To serve one may make another key ready (BLMOVE), whose clients then have their turn.
//! - Whoever takes a client out of the queues answers it, and nobody else can find it then. So a client gets
//!   one answer, also if it is served at the moment at which its time is over.
//!
//! **How Redis does it**: blocked.c, `signalKeyAsReady` and `handleClientsBlockedOnKeys`, with a list of
//! clients for each key. There a client that leaves is searched in that list. Here the queue is a tree.

use super::{View, ViewMut};
use crate::error::Error;
use crate::held::Charge;
use crate::key::Key;
use crate::resp::{Args, Protocol, Reply};
use std::collections::{BTreeMap, VecDeque};
use std::ops::Range;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// Takes from a key that has a value of the right type, answers, and says what is to be logged. It is given
/// the arguments of the command that waits.
pub type Serve = fn(&mut ViewMut, Key, &Args, &mut Reply) -> Result<(), Error>;

/// What a command waits for.
pub struct Wait {
    /// Which of its arguments are the keys.
    pub keys: Range<usize>,
    /// Of which type the value must be, as `TYPE` answers.
    pub wanted: &'static str,
    pub serve: Serve,
    /// None waits for ever.
    pub timeout: Option<Duration>,
}

/// A client that waits.
pub struct Waiter {
    /// Its id.
    pub client: u64,
    pub db: usize,
    pub wait: Wait,
    pub args: Args,
    pub protocol: Protocol,
    /// Whether CLIENT REPLY keeps the answer back.
    pub silent: bool,
    /// None waits for ever.
    pub deadline: Option<Instant>,
    /// Memory of the arguments, and of the places in the queues.
    pub _charge: Charge,
}

impl Waiter {
    fn keys(&self) -> impl Iterator<Item = &[u8]> {
        self.wait.keys.clone().map(|i| &self.args[i])
    }
}

/// Those who wait for one key.
#[derive(Default)]
struct Queue {
    /// The number of each is its place in the order of arrival.
    waiters: BTreeMap<u64, Arc<Waiter>>,
    /// Whether the key is among those that are ready. However often an EXEC makes it, it is there once.
    is_ready: bool,
}

/// All clients that wait for a key.
#[derive(Default)]
pub struct Blocking {
    /// The number of each client in its queues.
    numbers: BTreeMap<u64, (u64, Arc<Waiter>)>,
    /// By database and key. (In trees, because mostly few keys are waited for, and a digest takes longer.)
    queues: BTreeMap<usize, BTreeMap<Vec<u8>, Queue>>,
    /// Databases and keys that the command has made, and for which there is a queue. Only those of a type that is
    /// waited for: to serve looks at the deadline.
    ready: VecDeque<(usize, Vec<u8>)>,
    last: u64,
}

impl Blocking {
    /// Adds a client at the end of the queue of each of its keys.
    pub fn join(&mut self, waiter: Waiter) -> Arc<Waiter> {
        let waiter = Arc::new(waiter);
        self.last += 1;
        let queues = self.queues.entry(waiter.db).or_default();
        for key in waiter.keys() {
            let queue = queues.entry(key.to_vec()).or_default();
            queue.waiters.insert(self.last, waiter.clone());
        }
        self.numbers.insert(waiter.client, (self.last, waiter.clone()));
        waiter
    }

    /// Takes a client out of all its queues. None if it is in none: it does not wait, or another thread
    /// answers it.
    pub fn leave(&mut self, client: u64) -> Option<Arc<Waiter>> {
        let (number, waiter) = self.numbers.remove(&client)?;
        let queues = self.queues.get_mut(&waiter.db)?;
        for key in waiter.keys() {
            if let Some(queue) = queues.get_mut(key) {
                queue.waiters.remove(&number);
                if queue.waiters.is_empty() {
                    queues.remove(key);
                }
            }
        }
        if queues.is_empty() {
            self.queues.remove(&waiter.db);
        }
        Some(waiter)
    }

    /// The next database and key that became ready.
    pub fn next_ready(&mut self) -> Option<(usize, Vec<u8>)> {
        let (db, key) = self.ready.pop_front()?;
        if let Some(queue) = self.queue_mut(db, &key) {
            queue.is_ready = false;
        }
        Some((db, key))
    }

    /// The first client in the queue of a key after this number, with its own number.
    pub fn next(&self, db: usize, key: &[u8], after: u64) -> Option<(u64, Arc<Waiter>)> {
        let queue = self.queues.get(&db)?.get(key)?;
        queue.waiters.range(after + 1..).next().map(|(number, waiter)| (*number, waiter.clone()))
    }

    /// Says which type a key has now.
    fn mark_ready(&mut self, db: usize, key: &[u8], type_name: &str) {
        let queue = self.queue_mut(db, key).filter(|queue| !queue.is_ready);
        if let Some(queue) = queue
            && queue.waiters.values().any(|waiter| waiter.wait.wanted == type_name)
        {
            queue.is_ready = true;
            self.ready.push_back((db, key.to_vec()));
        }
    }

    fn queue_mut(&mut self, db: usize, key: &[u8]) -> Option<&mut Queue> {
        self.queues.get_mut(&db)?.get_mut(key)
    }

    /// The keys of a database that clients wait for.
    fn keys_of(&self, db: usize) -> Vec<Vec<u8>> {
        let queues = self.queues.get(&db).into_iter();
        queues.flat_map(BTreeMap::keys).cloned().collect()
    }
}

impl View<'_> {
    /// [`Blocking::leave`] under the shared lock.
    pub fn stop_waiting(&self, client: u64) -> Option<Arc<Waiter>> {
        self.keyspace.blocking.lock().unwrap().leave(client)
    }
}

impl ViewMut<'_> {
    /// Says that the command would wait. If it may not, as in EXEC, what it has answered holds.
    pub fn wait(&mut self, wait: Wait) {
        self.report.wait.set(Some(Box::new(wait)));
    }

    /// A key was made, perhaps one that a client waits for.
    pub(super) fn mark_ready(&mut self, key: &[u8]) {
        let blocking = self.keyspace.blocking.get_mut().unwrap();
        if !blocking.queues.is_empty()
            && let Some(entry) = self.keyspace.dbs[self.db].find(key)
        {
            blocking.mark_ready(self.db, key, entry.value().type_name());
        }
    }

    /// Databases have changed places, and with them all their keys.
    pub(super) fn mark_all_ready(&mut self, dbs: [usize; 2]) {
        let blocking = self.keyspace.blocking.get_mut().unwrap();
        for db in dbs {
            for key in blocking.keys_of(db) {
                if let Some(entry) = self.keyspace.dbs[db].find(&key) {
                    blocking.mark_ready(db, &key, entry.value().type_name());
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::held::Held;

    fn waiter(client: u64, db: usize, keys: &[&str]) -> Waiter {
        let mut args = Args::default();
        keys.iter().for_each(|key| args.push(key.as_bytes()));
        let wait =
            Wait { keys: 0..keys.len(), wanted: "list", serve: |_, _, _, _| Ok(()), timeout: None };
        let charge = Charge::new(&Held::new(&Arc::default(), None));
        let protocol = Protocol::Resp2;
        Waiter { client, db, wait, args, protocol, silent: false, deadline: None, _charge: charge }
    }

    /// The clients in the queue of a key, in its order.
    fn queue(blocking: &Blocking, db: usize, key: &str) -> Vec<u64> {
        let mut after = 0;
        let next = || {
            let (number, waiter) = blocking.next(db, key.as_bytes(), after)?;
            after = number;
            Some(waiter.client)
        };
        std::iter::from_fn(next).collect()
    }

    #[test]
    fn clients_stand_in_the_queue_of_each_key_once_and_in_the_order_in_which_they_came() {
        let mut blocking = Blocking::default();
        for (client, keys) in [(7, &["x", "y", "x"][..]), (3, &["y"]), (5, &["x"])] {
            blocking.join(waiter(client, 0, keys));
        }
        blocking.join(waiter(4, 1, &["x"]));
        assert_eq!(queue(&blocking, 0, "x"), [7, 5]);
        assert_eq!(queue(&blocking, 0, "y"), [7, 3]);
        assert_eq!(queue(&blocking, 1, "x"), [4]);
        assert_eq!(blocking.leave(7).map(|waiter| waiter.client), Some(7));
        assert!(blocking.leave(7).is_none());
        assert_eq!(queue(&blocking, 0, "x"), [5]);
        assert_eq!(queue(&blocking, 0, "y"), [3]);
        for client in [3, 4, 5] {
            assert!(blocking.leave(client).is_some());
        }
        assert!(blocking.queues.is_empty() && blocking.numbers.is_empty());
    }

    #[test]
    fn a_key_is_ready_once_and_only_if_somebody_waits_for_it_and_its_type() {
        let mut blocking = Blocking::default();
        blocking.join(waiter(1, 0, &["x"]));
        blocking.mark_ready(0, b"x", "string");
        assert_eq!(blocking.next_ready(), None);
        for _ in 0..2 {
            for (db, key) in [(0, &b"y"[..]), (1, b"x"), (0, b"x"), (0, b"x")] {
                blocking.mark_ready(db, key, "list");
            }
            assert_eq!(blocking.next_ready(), Some((0, b"x".to_vec())));
            assert_eq!(blocking.next_ready(), None);
        }
    }
}
