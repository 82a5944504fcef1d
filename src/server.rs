//! What all connections share, and what they may see of one another.
//!
//! ```text
//! Arc<RwLock<Keyspace>>     the data; batch.rs has the key to it, and no handler
//! Arc<Server>               everything else that is shared; handlers may use it freely
//!   ├─ config, stats        options and counters, the hot ones atomics
//!   ├─ aof                  the log
//!   ├─ clients              who is connected: a leaf mutex around one `Public` each
//!   └─ hub                  who listens to what
//! Public                    one client for the others: CLIENT LIST, CLIENT KILL
//!   └─ shown                what it tells of itself: a leaf mutex
//! ```
//!
//! The `Drop` of a client takes it off the list, so that no way of leaving can forget it.
//!
//! **How Redis does it**: `struct redisServer` in server.h. One thread runs all commands and may look
//! into every client. Here what others may see of a client is a copy, which its thread brings up to date
//! once a batch; so CLIENT LIST may be a batch behind.

pub mod order;

use crate::aof::Aof;
use crate::config::Config;
use crate::gate::Gate;
use crate::held::{End, Held};
use crate::pubsub::Hub;
use crate::resp::Protocol;
use crate::stats::{Counters, Stats, Totals};
use crate::store::Garbage;
use order::Turns;
use std::collections::BTreeMap;
use std::hash::{BuildHasher, Hasher, RandomState};
use std::net::{SocketAddr, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::mpsc::{self, Receiver, Sender};
use std::sync::{Arc, Mutex};
use std::thread::available_parallelism;
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
    pub lazyfree: Sender<Garbage>,
    pub started: Instant,
    /// A coarse clock in milliseconds, advanced by cron (main.rs) ten times a second. It stops while the
    /// process is suspended, so nobody looks idle because of that.
    pub idle_clock: AtomicU64,
    /// Id of the client that has run a batch last (serve/inbound.rs).
    pub last_served: AtomicU64,
    /// Whether there is a core for a thread that spins, beside that of the one that it waits for.
    pub may_spin: bool,
    /// Forty random hexadecimal digits, new at every start.
    pub run_id: String,
    /// The port that was really bound.
    pub port: u16,
    /// Whether expired keys are deleted without being asked for (`DEBUG SET-ACTIVE-EXPIRE`).
    pub active_expire: AtomicBool,
}

/// One at a time of the commands that take long (call/long.rs).
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
    /// Also returns what [`Server::lazyfree`] leads to.
    pub fn new(config: Arc<Config>, port: u16, commands: usize) -> (Server, Receiver<Garbage>) {
        let (lazyfree, garbage) = mpsc::channel();
        let random = || RandomState::new().build_hasher().finish();
        let server = Server {
            aof: Aof::new(config.clone()),
            stats: Stats::new(commands),
            clients: Clients::default(),
            hub: Hub::default(),
            lazyfree,
            started: Instant::now(),
            idle_clock: AtomicU64::new(0),
            last_served: AtomicU64::new(0),
            may_spin: available_parallelism().is_ok_and(|cores| cores.get() > 1),
            run_id: format!("{:016x}{:016x}{:08x}", random(), random(), random() as u32),
            port,
            active_expire: AtomicBool::new(true),
            config,
            config_changes: Mutex::default(),
        };
        (server, garbage)
    }

    /// Whether the log is being replayed, so that there is no data yet.
    pub fn is_loading(&self) -> bool {
        self.aof.status.loading.load(Ordering::Relaxed)
    }

    /// What all clients have counted since the last CONFIG RESETSTAT.
    pub fn totals(&self) -> Totals {
        let all = self.clients.all.lock().unwrap();
        self.stats.totals(all.values().map(|client| &client.counters))
    }

    /// Takes a client that leaves off the list, and adds what it has counted to the totals.
    pub fn remove(&self, client: &Public) {
        let mut all = self.clients.all.lock().unwrap();
        // A fake client is not on it.
        if all.remove(&client.id).is_some() {
            // Under the same mutex, so that nobody counts it twice or not at all.
            self.stats.keep(&client.counters);
            client.turns.leave();
        }
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
        self.stats.reset(all.values().map(|client| &client.counters));
        self.aof.failures.delayed_syncs.store(0, Ordering::Relaxed);
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
        let mut all: Vec<(usize, Arc<Public>)> =
            all.into_iter().map(|client| (client.held.bytes(), client)).collect();
        all.sort_unstable_by_key(|(bytes, _)| *bytes);
        let mut sum: usize = all.iter().map(|(bytes, _)| bytes).sum();
        while total.is_over(sum)
            && let Some((bytes, client)) = all.pop()
        {
            client.held.kill(End::Evicted);
            sum -= bytes;
        }
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
    /// For a newcomer.
    pub fn next_id(&self) -> u64 {
        self.last_id.fetch_add(1, Ordering::Relaxed) + 1
    }

    pub fn add(&self, client: &Arc<Public>) {
        let mut all = self.all.lock().unwrap();
        all.insert(client.id, client.clone());
    }

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

/// For [`Shown::last_command`]: its name is unknown.
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
    /// What it has told of itself; a leaf.
    pub shown: Mutex<Shown>,
    pub counters: Counters,
    /// What it holds of the server's memory, and whether it is to be disconnected.
    pub held: Arc<Held>,
    /// Whether it has done what it was sent.
    pub turns: Turns,
}

/// What a client tells the others of itself: the texts at once, the rest once a batch.
#[derive(Default)]
pub struct Shown {
    /// What CLIENT SETNAME and SETINFO said; empty if nothing.
    pub name: Vec<u8>,
    pub lib_name: Vec<u8>,
    pub lib_ver: Vec<u8>,
    /// Row of the command table that was called last, or [`NO_ROW`].
    pub last_command: Option<usize>,
    pub db: usize,
    pub protocol: Protocol,
    /// How many channels it has subscribed to, and how many patterns.
    pub channels: usize,
    pub patterns: usize,
    /// Commands queued by MULTI, or run by EXEC.
    pub queued: Option<usize>,
    /// Keys that it watches.
    pub watching: usize,
    pub monitoring: bool,
}

impl Shown {
    /// Whether it has subscribed to anything.
    pub fn is_subscribed(&self) -> bool {
        self.channels + self.patterns > 0
    }
}

/// The socket and its two ends. Whoever needs the socket shares this handle (serve.rs).
pub struct Connection {
    pub stream: Arc<TcpStream>,
    pub peer: SocketAddr,
    pub local: SocketAddr,
}

impl Public {
    /// Of a client that has just come.
    pub fn new(server: &Server, id: u64, connection: Option<Connection>) -> Public {
        let stream = connection.as_ref().map(|c| c.stream.clone());
        Public {
            id,
            connection,
            since: Instant::now(),
            last_interaction: AtomicU64::new(server.idle_clock.load(Ordering::Relaxed)),
            shown: Mutex::default(),
            counters: Counters::default(),
            held: Held::new(&server.config.clients, stream),
            turns: Turns::default(),
        }
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
        let shown = self.shown.lock().unwrap();
        shown.monitoring || shown.is_subscribed()
    }

    /// The peer as CLIENT LIST shows it.
    pub fn address(&self) -> String {
        self.connection.as_ref().map_or("?:0".into(), |connection| connection.peer.to_string())
    }
}
