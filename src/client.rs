//! What a connection remembers. Only its own thread reads and writes a [`Client`]. Other threads see
//! its [`Public`].
//!
//! **How Redis does it**: `struct client` in server.h.

use crate::held::{Charge, Held};
use crate::listen::{self, Address};
use crate::outbox::Outbox;
use crate::pubsub::{Message, Sent, Subscription};
use crate::resp::{Args, Protocol};
use crate::server::mailbox::Answer;
use crate::server::replicas::{Announced, Request};
use crate::server::{Connection, Public, Server, Shown};
use crate::stats::add;
use crate::store::{Origin, Waiter};
use std::collections::BTreeSet;
use std::io::Write;
use std::net::TcpStream;
use std::sync::Arc;

pub struct Client {
    pub server: Arc<Server>,
    pub public: Arc<Public>,
    pub db: usize,
    /// It has given the password, or needed none when it connected.
    pub authenticated: bool,
    /// Some between MULTI and EXEC.
    pub transaction: Option<Transaction>,
    /// EXEC is running its commands. None of them may wait for anything then.
    pub in_exec: bool,
    /// A script runs, and calls commands. It is like an EXEC: `in_exec` is set too.
    pub in_script: bool,
    /// Database and key of each key that it watches.
    pub watched: BTreeSet<(usize, Vec<u8>)>,
    /// What it has subscribed to. The hub has the same in its own order.
    subscriptions: [BTreeSet<Vec<u8>>; 3],
    pub monitoring: bool,
    /// It is a replica, or a monitor, which Redis takes for one.
    pub is_replica: bool,
    /// What it has said by REPLCONF.
    pub announced: Announced,
    /// Memory of all names above, of the client's own name, and of what its library says of itself.
    pub names: Charge,
    /// What a record of the log has said of the data (store/origin.rs).
    pub origin: Option<Origin>,
    /// While a command runs: the last messages of its batch (batch/telling.rs).
    pub published: Vec<Message>,
    /// Memory of these messages.
    pub publishing: Charge,
    /// When its messages, or events, were sent last.
    pub sent: Sent,
    /// Answers to clients that have waited for what this batch did. They are sent at the same time.
    pub answers: Vec<Answer>,
    /// What the operator is told when the lock is given back.
    pub notices: Vec<String>,
    /// Receivers of the last message. This batch has already waited for them (server/order.rs).
    pub waited_for: Vec<u64>,
    /// From the first SUBSCRIBE or MONITOR on, all output goes through this queue.
    pub outbox: Option<Arc<Outbox>>,
    pub replies: Replies,
    /// CLIENT NO-TOUCH: what it does is no use of a key.
    pub no_touch: bool,
    /// The reply to this command is sent even if CLIENT REPLY says OFF.
    pub must_reply: bool,
    /// REPLICAOF has come: clients that wait for a key are to be told. It is no [`Then`], because an EXEC may leave one too.
    pub demoted: bool,
    /// What happens after the replies so far have left.
    pub then: Then,
}

/// Commands that wait for EXEC.
pub struct Transaction {
    /// Each command: the index of its row in the command table, and its arguments.
    pub queue: Vec<(usize, Args)>,
    /// A command could not be queued, so EXEC will refuse.
    pub aborted: bool,
    /// One of the commands writes, so EXEC needs the exclusive lock.
    pub writes: bool,
    pub has_script: bool,
    /// One of the commands is refused if memory is exceeded, so EXEC is.
    pub denies_oom: bool,
    /// Bytes of all their arguments, as Redis counts them: with a pointer to each.
    pub args_length: usize,
    pub charge: Charge,
}

impl Transaction {
    /// Whether EXEC needs the exclusive lock: one of the commands writes, or is a script.
    pub fn excludes(&self) -> bool {
        self.writes || self.has_script
    }

    pub fn new(held: &Arc<Held>) -> Transaction {
        Transaction {
            queue: Vec::new(),
            aborted: false,
            writes: false,
            has_script: false,
            denies_oom: false,
            args_length: 0,
            charge: Charge::new(held),
        }
    }
}

/// CLIENT REPLY: which replies the client wants.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Replies {
    On,
    Off,
    /// After CLIENT REPLY SKIP, until the next command begins.
    SkipNext,
    /// While that next command runs: its reply is left out.
    SkipThis,
}

/// What a handler leaves to be done when its batch has ended and its lock is given back
/// (serve/waiting.rs).
#[derive(Default)]
pub enum Then {
    #[default]
    GoOn,
    /// Send the replies and close the connection.
    Close,
    /// Close the connection without sending anything more.
    Drop,
    /// Save the log and end the process. With `force`, end it even if saving fails. Without `saves` (NOSAVE) even
    /// while a script is busy. `waits`: until replicas have everything.
    Shutdown {
        saves: bool,
        /// Write a snapshot too.
        snapshot: bool,
        force: bool,
        waits: bool,
    },
    Wait(Wait),
    /// Send the stream of changes from now on (serve/following.rs).
    Follow(Request),
    /// Replace the data by what is written of it (serve/reload.rs): by what the log holds, or by a base made of
    /// memory. `silent`: CLIENT REPLY keeps the answer back.
    Reload {
        from_log: bool,
        silent: bool,
    },
    /// Wait for a key (serve/blocked.rs).
    Block(Arc<Waiter>),
    /// The last command was postponed. When the pause is over, call it again (serve/paused.rs).
    Pause {
        writes: bool,
    },
}

/// A command that waits, with all that its answer needs.
pub struct Wait {
    pub until: Until,
    /// Milliseconds; 0 waits for ever.
    pub timeout_ms: u64,
    /// Whether CLIENT REPLY keeps the answer back.
    pub silent: bool,
}

/// What is waited for.
pub enum Until {
    /// WAIT: so many replicas have it.
    Replicas(usize),
    /// WAITAOF: our own disk has it, if that is asked for, and then the disks of so many replicas.
    Durable { local: bool, replicas: usize },
}

impl Client {
    /// Registers a connection that has just been accepted, or tells its peer why it is refused.
    pub fn welcome(server: &Arc<Server>, stream: TcpStream, peer: Address) -> Option<Box<Self>> {
        add(&server.stats.connections, 1);
        let refusal = if server.is_full() {
            Some("-ERR max number of clients reached\r\n")
        } else if listen::protects_from(&server.config, &peer) {
            Some(listen::PROTECTED)
        } else {
            None
        };
        if let Some(refusal) = refusal {
            add(&server.stats.rejected_connections, 1);
            let _ = (&stream).write_all(refusal.as_bytes());
            return None;
        }
        let local = listen::local_address(&stream, &peer).ok()?;
        let connection = Connection { stream: Arc::new(stream), peer, local };
        let public = Public::new(server, server.clients.next_id(), Some(connection));
        // Boxed, because each call on its way into the thread would have a copy of it on the stack.
        let client = Box::new(Client::of(server, public));
        server.clients.add(&client.public);
        Some(client)
    }

    /// A client without a connection. It replays the log or stands for the active expire cycle, and is on
    /// no list. Redis has fake clients too.
    pub fn fake(server: &Arc<Server>) -> Client {
        Client::of(server, Public::new(server, 0, None))
    }

    /// Our connection to a primary, which is a client on the list: its commands come from there.
    pub fn primary(server: &Arc<Server>, stream: Arc<TcpStream>) -> std::io::Result<Client> {
        let peer = Address::Ip(stream.peer_addr()?);
        let local = Address::Ip(stream.local_addr()?);
        let connection = Connection { stream, peer, local };
        let public = Public::new(server, server.clients.next_id(), Some(connection));
        public.shown.lock().unwrap().is_primary = true;
        let client = Client::of(server, public);
        server.clients.add(&client.public);
        Ok(client)
    }

    fn of(server: &Arc<Server>, public: Public) -> Client {
        Client {
            server: server.clone(),
            db: 0,
            authenticated: public.connection.is_none() || !server.config.password.is_needed(),
            transaction: None,
            in_exec: false,
            in_script: false,
            watched: BTreeSet::new(),
            subscriptions: Default::default(),
            monitoring: false,
            is_replica: false,
            announced: Announced::default(),
            names: Charge::new(&public.held),
            origin: None,
            published: Vec::new(),
            publishing: Charge::new(&public.held),
            sent: None,
            answers: Vec::new(),
            notices: Vec::new(),
            waited_for: Vec::new(),
            outbox: None,
            replies: Replies::On,
            no_touch: false,
            must_reply: false,
            demoted: false,
            then: Then::GoOn,
            public: Arc::new(public),
        }
    }

    /// Whether it must give the password first. It need not if CONFIG SET has removed the password
    /// since it connected.
    pub fn owes_password(&self) -> bool {
        !self.authenticated && self.server.config.password.is_needed()
    }

    /// Whether it waits for messages rather than for replies.
    pub fn is_listening(&self) -> bool {
        self.monitoring || self.is_subscribed()
    }

    pub fn is_subscribed(&self) -> bool {
        self.subscriptions.iter().any(|names| !names.is_empty())
    }

    pub fn subscribed(&mut self, to: Subscription) -> &mut BTreeSet<Vec<u8>> {
        &mut self.subscriptions[to as usize]
    }

    /// How many channels, patterns and shard channels it has subscribed to.
    pub fn subscriptions(&self) -> [usize; 3] {
        self.subscriptions.each_ref().map(BTreeSet::len)
    }

    /// Sets the client's name, or the name or version of its library.
    pub fn set_text(&mut self, field: fn(&mut Shown) -> &mut Vec<u8>, text: &[u8]) {
        let mut shown = self.public.shown.lock().unwrap();
        let old = std::mem::replace(field(&mut shown), text.to_vec());
        self.names.subtract(old.len());
        self.names.add(text.len());
    }

    /// Ends all its subscriptions, without confirmations.
    pub fn unsubscribe_all(&mut self) {
        for to in Subscription::ALL {
            for name in std::mem::take(self.subscribed(to)) {
                self.server.hub.unsubscribe(to, &name, self.public.id);
                self.names.subtract(memory_of(&name));
            }
        }
    }

    pub fn stop_monitoring(&mut self) {
        if std::mem::take(&mut self.monitoring) {
            self.is_replica = false;
            self.server.hub.set_monitor(self.public.id, None);
        }
    }

    /// EXEC begins to run its queue: so many commands, with arguments of this length. CLIENT LIST shows that.
    pub fn begin_exec(&mut self, queued: usize, args_length: usize) {
        self.in_exec = true;
        self.public.shown.lock().unwrap().queued = Some((queued, args_length));
    }

    /// Writes what other threads may see of this client. Once per batch is often enough.
    pub fn update_public(&self, protocol: Protocol, last_command: Option<usize>) {
        let mut shown = self.public.shown.lock().unwrap();
        shown.last_command = last_command.or(shown.last_command);
        shown.db = self.db;
        shown.protocol = protocol;
        shown.subscriptions = self.subscriptions();
        // EXEC has written the number of commands that it runs.
        if !self.in_exec {
            shown.queued = self.transaction.as_ref().map(|t| (t.queue.len(), t.args_length));
        }
        shown.watching = self.watched.len();
        shown.monitoring = self.monitoring;
        shown.args_length = match &self.then {
            Then::Block(waiter) => waiter.args.length(),
            _ => 0,
        };
    }
}

/// Bytes of memory for one channel, pattern, watched key or key that is waited for. The name is stored here, and
/// in the hub, the table of watchers or a queue. The rest is what these collections need for it.
pub fn memory_of(name: &[u8]) -> usize {
    2 * name.len() + 200
}

impl Drop for Client {
    fn drop(&mut self) {
        self.unsubscribe_all();
        self.stop_monitoring();
        if self.is_replica {
            self.server.replicas.leave(self.public.id);
        }
        self.server.remove(&self.public);
    }
}
