//! What a connection remembers. It belongs to one thread; what others may see of it is its
//! [`Public`].
//!
//! **How Redis does it**: `struct client` in server.h.

use crate::held::{Charge, Held};
use crate::outbox::Outbox;
use crate::pubsub::{Kind, Message};
use crate::resp::{Args, Protocol};
use crate::server::{Connection, Public, Server, Shown};
use crate::watch::Flag;
use std::collections::BTreeSet;
use std::sync::Arc;

/// One connection's memory, seen by its own thread alone.
pub struct Client {
    pub server: Arc<Server>,
    pub public: Arc<Public>,
    /// The database that it has selected.
    pub db: usize,
    /// Whether it has given the password, or none was needed when it came.
    pub authenticated: bool,
    /// What MULTI has queued so far.
    pub transaction: Option<Transaction>,
    /// Whether EXEC runs its commands, so that none of them may wait for anything.
    pub in_exec: bool,
    /// What it watches: its flag, and database and key of each.
    pub watch_flag: Flag,
    pub watched: BTreeSet<(usize, Vec<u8>)>,
    /// What it has subscribed to; the hub knows the same.
    pub channels: BTreeSet<Vec<u8>>,
    pub patterns: BTreeSet<Vec<u8>>,
    /// Whether MONITOR is on.
    pub monitoring: bool,
    /// What these names hold, its own, and those of the keys that it watches.
    pub names: Charge,
    /// What it has published, and what must not be heard before the log holds all that was done before
    /// it.
    pub published: Vec<Message>,
    /// What these hold.
    pub publishing: Charge,
    /// The receivers of its last message, who in this batch have been heard out (server/order.rs).
    pub heard: Vec<u64>,
    /// From the first SUBSCRIBE or MONITOR on, all its output goes through here.
    pub outbox: Option<Arc<Outbox>>,
    pub replies: Replies,
    /// What it is told now comes whatever CLIENT REPLY says.
    pub confirms: bool,
    /// What is to happen after the replies so far have left.
    pub then: Then,
}

/// Commands that wait for EXEC.
pub struct Transaction {
    /// Rows of the command table, and the words.
    pub queue: Vec<(usize, Args)>,
    /// An error while queueing; EXEC will refuse.
    pub aborted: bool,
    /// Whether any of them writes, so that EXEC needs the exclusive lock.
    pub writes: bool,
    /// What the queue holds.
    pub charge: Charge,
}

impl Transaction {
    /// With nothing in its queue yet.
    pub fn new(held: &Arc<Held>) -> Transaction {
        Transaction { queue: Vec::new(), aborted: false, writes: false, charge: Charge::new(held) }
    }
}

/// CLIENT REPLY: which replies the client wants.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Replies {
    On,
    Off,
    /// Not the one to the next command: SKIP has just been said.
    SkipNext,
    /// Not the one to this command.
    SkipThis,
}

/// What a handler cannot do itself, for it must not block and may be running under a lock.
#[derive(Clone, Copy, PartialEq)]
pub enum Then {
    GoOn,
    /// Send the replies and close the connection.
    Close,
    /// Close it without another word.
    Drop,
    /// Save, and end the process; with `force` also if it cannot be saved.
    Shutdown {
        force: bool,
    },
    /// Wait, then answer WAIT or WAITAOF.
    Wait(Wait),
}

/// What WAIT and WAITAOF wait for.
#[derive(Clone, Copy, PartialEq)]
pub struct Wait {
    /// Our own disk.
    pub local: bool,
    /// Replicas, which never come.
    pub replicas: bool,
    /// Milliseconds; 0 waits for ever.
    pub timeout_ms: u64,
    /// Whether to answer as WAITAOF: of our own disk first, then of replicas.
    pub is_waitaof: bool,
    /// CLIENT REPLY keeps the answer back.
    pub silent: bool,
}

impl Client {
    /// Registers a connection that has just been accepted.
    pub fn new(server: &Arc<Server>, connection: Connection) -> Client {
        let id = server.clients.next_id();
        let client = Client::of(server, Public::new(server, id, Some(connection)));
        server.clients.add(&client.public);
        client
    }

    /// A client without a connection, whom nobody sees: it replays the log, or stands for the active expire cycle.
    /// Redis calls the same a fake client.
    pub fn fake(server: &Arc<Server>) -> Client {
        Client::of(server, Public::new(server, 0, None))
    }

    fn of(server: &Arc<Server>, public: Public) -> Client {
        Client {
            server: server.clone(),
            db: 0,
            authenticated: public.connection.is_none() || server.config.requirepass.is_empty(),
            transaction: None,
            in_exec: false,
            watch_flag: Flag::default(),
            watched: BTreeSet::new(),
            channels: BTreeSet::new(),
            patterns: BTreeSet::new(),
            monitoring: false,
            names: Charge::new(&public.held),
            published: Vec::new(),
            publishing: Charge::new(&public.held),
            heard: Vec::new(),
            outbox: None,
            replies: Replies::On,
            confirms: false,
            then: Then::GoOn,
            public: Arc::new(public),
        }
    }

    /// Whether it must give the password before it is served. One who came while there was one need
    /// not once it is taken away.
    pub fn owes_password(&self) -> bool {
        !self.authenticated && !self.server.config.requirepass.is_empty()
    }

    /// Whether it has subscribed to anything.
    pub fn is_subscribed(&self) -> bool {
        !self.channels.is_empty() || !self.patterns.is_empty()
    }

    /// What it has subscribed to, of one kind.
    pub fn subscribed(&mut self, kind: Kind) -> &mut BTreeSet<Vec<u8>> {
        match kind {
            Kind::Channel => &mut self.channels,
            Kind::Pattern => &mut self.patterns,
        }
    }

    /// Gives the client a name, or what its library says of itself.
    pub fn set_text(&mut self, field: fn(&mut Shown) -> &mut Vec<u8>, text: &[u8]) {
        let mut shown = self.public.shown.lock().unwrap();
        let old = std::mem::replace(field(&mut shown), text.to_vec());
        self.names.subtract(old.len());
        self.names.add(text.len());
    }

    /// Ends all its subscriptions without a word.
    pub fn unsubscribe_all(&mut self) {
        for kind in [Kind::Channel, Kind::Pattern] {
            for name in std::mem::take(self.subscribed(kind)) {
                self.server.hub.unsubscribe(kind, &name, self.public.id);
                self.names.subtract(memory_of(&name));
            }
        }
    }

    /// Ends MONITOR, if it was on.
    pub fn stop_monitoring(&mut self) {
        if std::mem::take(&mut self.monitoring) {
            self.server.hub.remove_monitor(self.public.id);
        }
    }

    /// Tells the others how it stands: once per batch, because they need not know it sooner.
    pub fn update_public(&self, protocol: Protocol, last_command: Option<usize>) {
        let mut shown = self.public.shown.lock().unwrap();
        shown.last_command = last_command.or(shown.last_command);
        shown.db = self.db;
        shown.protocol = protocol;
        shown.channels = self.channels.len();
        shown.patterns = self.patterns.len();
        // EXEC has said how many it runs.
        if !self.in_exec {
            shown.queued = self.transaction.as_ref().map(|t| t.queue.len());
        }
        shown.watching = self.watched.len();
        shown.monitoring = self.monitoring;
    }
}

/// Bytes of memory that a name takes that a client has subscribed to or watches: here, in the hub or in
/// the table of those who watch, and what keeps it there.
pub fn memory_of(name: &[u8]) -> usize {
    2 * name.len() + 200
}

impl Drop for Client {
    fn drop(&mut self) {
        self.unsubscribe_all();
        self.stop_monitoring();
        self.server.remove(&self.public);
    }
}
