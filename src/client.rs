//! What a connection remembers, and what all connections share.
//!
//! ```text
//! Arc<RwLock<Keyspace>>     the data; batch.rs has the key to it, and no handler
//! Arc<Server>               everything else that is shared; handlers may use it freely
//!   ├─ config, stats        options and counters, the hot ones atomics
//!   ├─ aof                  the log
//!   ├─ clients              who is connected: a leaf mutex around one `Public` each
//!   └─ hub                  who listens to what
//! Client                    belongs to one thread
//!   └─ Arc<Public>          what others may see of it: CLIENT LIST, CLIENT KILL
//! ```
//!
//! A client is registered by [`Registration`], whose `Drop` takes it off the list again, so that
//! no way of leaving can forget it.
//!
//! **How Redis does it**: `struct client` and `struct redisServer` in server.h. One thread runs all
//! commands and may look into every client. Here what others may see of a client is a copy, which
//! its thread brings up to date once a batch; so CLIENT LIST may be a batch behind.

pub mod order;

use crate::aof::Aof;
use crate::config::Config;
use crate::gate::Gate;
use crate::held::{Charge, End, Held};
use crate::pubsub::{Hub, Kind, Message, Outbox};
use crate::resp::{Args, Protocol};
use crate::stats::{Counters, Stats, Totals};
use crate::store::Garbage;
use crate::watch::Flag;
use order::Turns;
use std::collections::{BTreeMap, BTreeSet};
use std::net::{SocketAddr, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, mpsc};
use std::time::{Duration, Instant};

/// What all threads share, except the data.
pub struct Server {
    pub config: Arc<Config>,
    /// Held by whoever changes them (handler/config.rs).
    pub config_changes: Mutex<()>,
    pub aof: Aof,
    pub stats: Stats,
    pub clients: Clients,
    pub hub: Hub,
    /// To the thread that frees what would take long to free under a lock.
    pub reaper: mpsc::Sender<Garbage>,
    pub started: Instant,
    /// What the idle are judged by: milliseconds, to which `keep_house` (main.rs) adds a hundred ten
    /// times a second. To look at it costs nothing, and it stands still when the process does,
    /// so that nobody is idle for that.
    pub idle_clock: AtomicU64,
    /// Id of the client that has run a batch last (serve/inbound.rs).
    pub last_served: AtomicU64,
    /// Whether there is a core for a thread that spins, beside that of the one that it waits for.
    pub may_spin: bool,
    /// Forty random hexadecimal digits, new at every start.
    pub run_id: String,
    /// The port that was really bound.
    pub port: AtomicUsize,
    /// Whether expired keys are deleted without being asked for (`DEBUG SET-ACTIVE-EXPIRE`).
    pub active_expire: AtomicBool,
}

/// One at a time of the commands that take long (batch/long.rs).
#[derive(Default)]
pub struct Gates {
    /// Those that have all that they need. Who has passed waits for no lock, so one may wait here under
    /// any.
    pub computing: Gate,
    /// Those that look at the keyspace. Who waits here holds no lock.
    pub looking: Gate,
    /// How many wait for the exclusive lock, and how many had to wait and have it since: who looks on
    /// lets them in first.
    pub writers: AtomicUsize,
    pub let_in: AtomicUsize,
}

impl Server {
    /// Whether the log is being replayed, so that there is no data yet.
    pub fn is_loading(&self) -> bool {
        self.aof.status.loading.load(Ordering::Relaxed)
    }

    /// What all clients have counted since the last CONFIG RESETSTAT.
    pub fn totals(&self) -> Totals {
        let all = self.clients.all.lock().unwrap();
        self.stats
            .totals(all.values().map(|client| &client.counters))
    }

    /// Waits until the others have done what they have sent, or those who listen.
    pub fn hear_out(&self, asker: &Public, listeners: bool) {
        let others = match listeners {
            true => self.clients.those(self.hub.listeners().into_iter()),
            false => self.clients.everyone(),
        };
        order::hear_out(&others, Some(asker));
    }

    /// Sets all counters to zero, for CONFIG RESETSTAT; the slow log has a reset of its own.
    pub fn reset_stats(&self) {
        let all = self.clients.all.lock().unwrap();
        self.stats
            .reset(all.values().map(|client| &client.counters));
        self.aof.delayed_syncs().store(0, Ordering::Relaxed);
    }

    /// The work of the thread that evicts. It looks each second too, because CONFIG SET may have changed
    /// the limit.
    pub fn evict_for_ever(&self) -> ! {
        self.config.clients.wake_me();
        loop {
            std::thread::park_timeout(Duration::from_secs(1));
            self.evict();
        }
    }

    /// Ends the clients that hold the most, until what the others hold is within `maxmemory-clients`.
    fn evict(&self) {
        let total = &self.config.clients;
        if !total.is_over(total.bytes()) {
            return;
        }
        // Without those who are leaving already: what they hold is on its way back.
        let all = self.clients.all();
        let mut all: Vec<(usize, Arc<Public>)> = all
            .into_iter()
            .map(|client| (client.held.bytes(), client))
            .collect();
        all.sort_unstable_by_key(|(bytes, _)| *bytes);
        let mut sum: usize = all.iter().map(|(bytes, _)| bytes).sum();
        while total.is_over(sum)
            && let Some((bytes, client)) = all.pop()
        {
            client.kill(End::Evicted);
            sum -= bytes;
        }
    }

    /// Milliseconds since the server started; it never goes back.
    pub fn uptime(&self) -> u64 {
        self.started.elapsed().as_millis() as u64
    }
}

/// Everyone who is connected.
#[derive(Default)]
pub struct Clients {
    /// Where they wait for one another.
    pub gates: Gates,
    all: Mutex<BTreeMap<u64, Arc<Public>>>,
    last_id: AtomicU64,
}

impl Clients {
    /// How many there are, those who are only still leaving included.
    pub fn count(&self) -> usize {
        self.all.lock().unwrap().len()
    }

    /// A copy of the list, in the order of the ids, so that nobody has to hold its mutex;
    /// without those who have been killed and are only still leaving.
    pub fn all(&self) -> Vec<Arc<Public>> {
        let all = self.all.lock().unwrap();
        let here = all.values().filter(|client| !client.held.is_ended());
        here.cloned().collect()
    }

    /// The same with those who have been killed.
    pub fn everyone(&self) -> Vec<Arc<Public>> {
        self.all.lock().unwrap().values().cloned().collect()
    }

    /// Those of the ids who are still on it.
    pub fn those(&self, ids: impl Iterator<Item = u64>) -> Vec<Arc<Public>> {
        let all = self.all.lock().unwrap();
        ids.filter_map(|id| all.get(&id).cloned()).collect()
    }
}

/// For [`Public::last_command`]: there was none, or its name is unknown.
pub const NO_ROW: usize = usize::MAX;

/// What others may see of a client.
pub struct Public {
    pub id: u64,
    /// None for a fake client.
    pub connection: Option<Connection>,
    /// When it connected.
    pub since: Instant,
    /// When bytes last moved to or from it, on [`Server::idle_clock`].
    pub last_interaction: AtomicU64,
    /// Row of the command table that was called last, or [`NO_ROW`].
    pub last_command: AtomicUsize,
    /// What CLIENT SETNAME and SETINFO said; empty if nothing.
    pub name: Mutex<Vec<u8>>,
    pub lib_name: Mutex<Vec<u8>>,
    pub lib_ver: Mutex<Vec<u8>>,
    /// From here to `watching`, what [`Client::update_public`] has told last.
    pub db: AtomicUsize,
    pub resp3: AtomicBool,
    /// How many channels it has subscribed to, and how many patterns.
    pub channels: AtomicUsize,
    pub patterns: AtomicUsize,
    /// Commands queued by MULTI; -1 outside of a transaction.
    pub queued: AtomicI64,
    /// Keys that it watches.
    pub watching: AtomicUsize,
    pub counters: Counters,
    /// Set by MONITOR at once.
    pub monitoring: AtomicBool,
    /// What it holds of the server's memory, and whether it is to be disconnected.
    pub held: Arc<Held>,
    /// Whether it has done what it was sent.
    pub turns: Turns,
}

/// The socket and its two ends. Whoever needs the socket shares this handle (serve.rs).
pub struct Connection {
    pub stream: Arc<TcpStream>,
    pub peer: SocketAddr,
    pub local: SocketAddr,
}

impl Public {
    /// Ends the client from another thread.
    pub fn kill(&self, end: End) {
        self.held.kill(end);
    }

    /// Notes that bytes have moved: `timeout` and CLIENT LIST count from here.
    pub fn touch(&self, server: &Server) {
        let now = server.idle_clock.load(Ordering::Relaxed);
        self.last_interaction.store(now, Ordering::Relaxed);
    }

    /// The same from the thread that writes for it, which does not know whether it is being served.
    pub fn note_output(&self, server: &Server) {
        let now = server.idle_clock.load(Ordering::Relaxed);
        self.last_interaction.fetch_max(now, Ordering::Relaxed);
    }

    /// Until it is touched again the server is at work for it, and it is not idle, however long that takes.
    pub fn begin_service(&self) {
        self.last_interaction.store(u64::MAX, Ordering::Relaxed);
    }

    /// For how long no bytes have moved, in milliseconds, and rather less than too much.
    pub fn idle(&self, server: &Server) -> u64 {
        let now = server.idle_clock.load(Ordering::Relaxed);
        now.saturating_sub(self.last_interaction.load(Ordering::Relaxed))
    }

    /// Whether it waits for messages rather than for answers.
    pub fn is_listening(&self) -> bool {
        let subscriptions = &[&self.channels, &self.patterns];
        self.monitoring.load(Ordering::Relaxed)
            || subscriptions
                .iter()
                .any(|count| count.load(Ordering::Relaxed) > 0)
    }

    /// The peer as CLIENT LIST shows it.
    pub fn address(&self) -> String {
        self.connection
            .as_ref()
            .map_or("?:0".into(), |connection| connection.peer.to_string())
    }
}

/// Keeps a client on the list for as long as it lives.
struct Registration {
    server: Arc<Server>,
    public: Arc<Public>,
}

impl Drop for Registration {
    fn drop(&mut self) {
        let mut all = self.server.clients.all.lock().unwrap();
        all.remove(&self.public.id);
        // Under the same mutex, so that nobody counts it twice or not at all.
        self.server.stats.keep(&self.public.counters);
        self.public.turns.leave();
    }
}

/// One connection's memory, seen by its own thread alone.
pub struct Client {
    pub server: Arc<Server>,
    pub public: Arc<Public>,
    _registration: Option<Registration>,
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
    /// What these names hold, its own, and those of the keys that it watches.
    pub names: Charge,
    /// What it has published, and what must not be heard before the log holds all that was done before
    /// it.
    pub published: Vec<Message>,
    /// What these hold.
    pub publishing: Charge,
    /// The receivers of its last message, who in this batch have been heard out (client/order.rs).
    pub heard: Vec<u64>,
    /// From the first SUBSCRIBE or MONITOR on, all its output goes through here.
    pub outbox: Option<Arc<Outbox>>,
    pub replies: Replies,
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
    /// Whether any of them may give the client an outbox, so that EXEC may.
    pub opens_outbox: bool,
    /// What the queue holds.
    pub charge: Charge,
}

impl Transaction {
    /// With nothing in its queue yet.
    pub fn new(held: &Arc<Held>) -> Transaction {
        Transaction {
            queue: Vec::new(),
            aborted: false,
            writes: false,
            opens_outbox: false,
            charge: Charge::new(held),
        }
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
        let id = server.clients.last_id.fetch_add(1, Ordering::Relaxed) + 1;
        let mut client = Client::unregistered(server, id, Some(connection));
        let public = client.public.clone();
        server
            .clients
            .all
            .lock()
            .unwrap()
            .insert(id, public.clone());
        client._registration = Some(Registration {
            server: server.clone(),
            public,
        });
        client
    }

    /// A client without a connection, whom nobody sees: it replays the log, or stands for the sweep.
    /// Redis calls the same a fake client.
    pub fn fake(server: &Arc<Server>) -> Client {
        Client::unregistered(server, 0, None)
    }

    fn unregistered(server: &Arc<Server>, id: u64, connection: Option<Connection>) -> Client {
        let authenticated = connection.is_none() || server.config.requirepass.is_empty();
        let stream = connection.as_ref().map(|c| c.stream.clone());
        let held = Held::new(&server.config.clients, stream);
        let (names, publishing) = (Charge::new(&held), Charge::new(&held));
        let public = Public {
            id,
            connection,
            since: Instant::now(),
            last_interaction: AtomicU64::new(server.idle_clock.load(Ordering::Relaxed)),
            last_command: AtomicUsize::new(NO_ROW),
            name: Mutex::default(),
            lib_name: Mutex::default(),
            lib_ver: Mutex::default(),
            db: AtomicUsize::new(0),
            resp3: AtomicBool::new(false),
            channels: AtomicUsize::new(0),
            patterns: AtomicUsize::new(0),
            queued: AtomicI64::new(-1),
            watching: AtomicUsize::new(0),
            counters: Counters::default(),
            monitoring: AtomicBool::new(false),
            held,
            turns: Turns::default(),
        };
        Client {
            server: server.clone(),
            public: Arc::new(public),
            _registration: None,
            db: 0,
            authenticated,
            transaction: None,
            in_exec: false,
            watch_flag: Flag::default(),
            watched: BTreeSet::new(),
            channels: BTreeSet::new(),
            patterns: BTreeSet::new(),
            names,
            published: Vec::new(),
            publishing,
            heard: Vec::new(),
            outbox: None,
            replies: Replies::On,
            then: Then::GoOn,
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
    pub fn set_text(&mut self, field: impl Fn(&Public) -> &Mutex<Vec<u8>>, text: &[u8]) {
        let mut field = field(&self.public).lock().unwrap();
        let old = std::mem::replace(&mut *field, text.to_vec());
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
    pub fn stop_monitoring(&self) {
        if self.public.monitoring.swap(false, Ordering::Relaxed) {
            self.server.hub.remove_monitor(self.public.id);
        }
    }

    /// Tells the others how it stands: once per batch, for they need not know it sooner.
    pub fn update_public(&self, protocol: Protocol, last_command: Option<usize>) {
        let public = &self.public;
        let queued = self
            .transaction
            .as_ref()
            .map_or(-1, |t| t.queue.len() as i64);
        public.db.store(self.db, Ordering::Relaxed);
        public
            .resp3
            .store(protocol == Protocol::Resp3, Ordering::Relaxed);
        public
            .channels
            .store(self.channels.len(), Ordering::Relaxed);
        public
            .patterns
            .store(self.patterns.len(), Ordering::Relaxed);
        // EXEC has said how many it runs.
        if !self.in_exec {
            public.queued.store(queued, Ordering::Relaxed);
        }
        public.watching.store(self.watched.len(), Ordering::Relaxed);
        if let Some(index) = last_command {
            public.last_command.store(index, Ordering::Relaxed);
        }
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
    }
}
