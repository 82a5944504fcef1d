//! What all connections share, and what each may see of the others.
//!
//! ```text
//! Arc<RwLock<Keyspace>>     the data (store.rs says who locks it)
//! Arc<Server>               everything else that is shared. Handlers may use it freely
//!   ├─ config, stats        options and counters; those that every command needs are atomics
//!   ├─ aof                  the log
//!   ├─ clients              the list of clients: a mutex (a leaf) around one `Public` each
//!   ├─ scripts              sources of Lua, and the machines that run them
//!   ├─ hub                  subscribers and monitors
//!   ├─ replicas             those that are sent the log (server/replicas.rs)
//!   ├─ primary              the one that we follow, if we are a replica (server/primary.rs)
//!   └─ targets              connections to servers to which keys are moved (server/targets.rs)
//! Public                    what other threads see of a client: CLIENT LIST, CLIENT KILL
//!   └─ shown                what its own thread has written there: a mutex (a leaf)
//! ```
//!
//! The `Drop` of a client removes it from the list. So no way of leaving can forget that.
//!
//! **How Redis does it**: `struct redisServer` in server.h. One thread runs all commands, so it may look
//! into every client. Here other threads see a copy, which the client's thread updates once per batch. The
//! price: CLIENT LIST may be one batch behind.

pub mod eviction;
pub mod mailbox;
pub mod memory;
pub mod order;
pub mod pause;
pub mod primary;
pub mod replicas;
pub mod scripts;
pub mod shutdown;
pub mod tail;
pub mod targets;

use crate::aof::Aof;
use crate::config::Config;
use crate::gate::Gate;
use crate::held::{End, Held};
use crate::lazyfree::{Garbage, Lazyfree};
use crate::listen::Address;
use crate::pubsub::Hub;
use crate::resp::Protocol;
use crate::snapshot::Snapshots;
use crate::stats::{Counters, Stats, Totals, add, random_id};
use crate::watch::WatchFlag;
use eviction::Eviction;
use mailbox::Mailbox;
use memory::Resident;
use order::Turns;
use pause::Pause;
use primary::Primary;
use replicas::Replicas;
use scripts::Scripts;
use shutdown::Shutdown;
use std::collections::BTreeMap;
use std::net::TcpStream;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::available_parallelism;
use std::time::{Duration, Instant};
use targets::Targets;

/// What all threads share, except the data.
pub struct Server {
    pub config: Arc<Config>,
    /// Held during CONFIG SET (handler/config.rs).
    pub config_changes: Mutex<()>,
    pub aof: Aof,
    pub snapshots: Snapshots,
    pub stats: Stats,
    pub clients: Clients,
    /// `maxmemory`.
    pub eviction: Eviction,
    /// Lua.
    pub scripts: Scripts,
    /// CLIENT PAUSE.
    pub pause: Pause,
    /// A SHUTDOWN that waits for replicas.
    pub shutdown: Shutdown,
    pub hub: Hub,
    pub replicas: Replicas,
    pub primary: Primary,
    /// MIGRATE's connections.
    pub targets: Targets,
    /// Frees large values, so that nobody frees them under a lock.
    pub lazyfree: Lazyfree,
    pub started: Instant,
    /// Bytes that the process had before there was anything to be counted (server/memory.rs).
    pub startup: usize,
    /// A coarse clock in milliseconds, advanced by cron (main.rs) ten times a second. It stops while the
    /// process is suspended, so nobody looks idle because of that.
    pub idle_clock: AtomicU64,
    /// Id of the client that ran the last batch (serve/inbound.rs).
    pub last_served: AtomicU64,
    /// There is more than one core. On one core a spinning thread would stop the client it waits for.
    pub may_spin: bool,
    /// Forty random hexadecimal digits, new at every start.
    pub run_id: String,
    /// The port that was bound: `port 0` lets the system choose.
    pub port: u16,
    /// Active expiry is on (`DEBUG SET-ACTIVE-EXPIRE`).
    pub active_expire: AtomicBool,
    /// Cron does nothing (`DEBUG PAUSE-CRON`).
    pub cron_is_paused: AtomicBool,
}

/// Commands that take long run one at a time (call/long.rs).
#[derive(Default)]
pub struct Gates {
    /// For commands that have read all they need. Behind this gate nobody waits for a lock, so a thread
    /// may hold any lock while it waits here.
    pub computing: Gate,
    /// For commands that read the keyspace. A thread that waits here holds no lock.
    pub looking: Gate,
    /// How many writers wait for the exclusive lock, and how many have waited and got it. A command that
    /// reads for long lets them in between.
    pub writers: AtomicUsize,
    pub let_in: AtomicUsize,
}

impl Server {
    pub fn new(config: Arc<Config>, port: u16, commands: usize) -> Server {
        Server {
            aof: Aof::new(config.clone()),
            snapshots: Snapshots::new(),
            stats: Stats::new(commands),
            clients: Clients::default(),
            eviction: Eviction::default(),
            scripts: Scripts::default(),
            pause: Pause::default(),
            shutdown: Shutdown::default(),
            hub: Hub::default(),
            replicas: Replicas::default(),
            primary: Primary::default(),
            targets: Targets::default(),
            lazyfree: Lazyfree::new(),
            started: Instant::now(),
            startup: Resident::now().map_or(0, |resident| resident.anonymous),
            idle_clock: AtomicU64::new(0),
            last_served: AtomicU64::new(0),
            may_spin: available_parallelism().is_ok_and(|cores| cores.get() > 1),
            run_id: random_id(),
            port,
            active_expire: AtomicBool::new(true),
            cron_is_paused: AtomicBool::new(false),
            config,
            config_changes: Mutex::default(),
        }
    }

    /// Whether the log is being replayed. There is no data yet.
    pub fn is_loading(&self) -> bool {
        self.aof.status.loading.load(Ordering::Relaxed)
    }

    /// The counters of all clients together, since the last CONFIG RESETSTAT.
    pub fn totals(&self) -> Totals {
        let all = self.clients.all.lock().unwrap();
        self.stats.totals(all.values().map(|client| &client.counters))
    }

    /// Leaves something to the thread that frees what is large.
    pub fn free_later(&self, garbage: Garbage) {
        add(&self.stats.to_be_freed, 1);
        self.stats.bytes_to_be_freed.fetch_add(garbage.bytes, Ordering::Relaxed);
        self.lazyfree.add(garbage);
    }

    /// Frees what the other threads have taken out of the keyspace.
    pub fn free_for_ever(&self) -> ! {
        self.lazyfree.free_for_ever(&|bytes| {
            self.stats.bytes_to_be_freed.fetch_sub(bytes, Ordering::Relaxed);
            self.stats.to_be_freed.fetch_sub(1, Ordering::Relaxed);
            add(&self.stats.freed, 1);
        })
    }

    /// Removes a client from the list and adds its counters to the totals.
    pub fn remove(&self, client: &Public) {
        let mut all = self.clients.all.lock().unwrap();
        // A fake client is not on the list.
        if all.remove(&client.id).is_some() {
            self.clients.number.store(all.len(), Ordering::Relaxed);
            // Under the same mutex as `totals`, so that nothing is counted twice or not at all.
            self.stats.keep(&client.counters);
            client.turns.leave();
        }
    }

    /// Whether `maxclients` clients are connected. Those that have hung up do not count.
    pub fn is_full(&self) -> bool {
        let is_full = || self.clients.count() >= self.config.maxclients.get();
        if !is_full() {
            return false;
        }
        let mut others = self.clients.everyone();
        // Some of them have no thread yet that could do what they have sent.
        others.retain(|client| client.turns.has_begun());
        order::wait_for_others(&others, None);
        is_full()
    }

    /// Waits until what other clients have sent is done.
    pub fn wait_for_others(&self, asker: &Public, others: Others) {
        let others = match others {
            Others::All => self.clients.everyone(),
            Others::Subscribers => self.clients.those(self.hub.listeners().into_iter()),
            Others::Older => self.clients.older(asker),
            Others::Holders => self.clients.holders(),
        };
        order::wait_for_others(&others, Some(asker));
    }

    /// CONFIG RESETSTAT: sets all counters to zero. The slow log has its own reset.
    pub fn reset_stats(&self) {
        let all = self.clients.all.lock().unwrap();
        self.stats.reset(all.values().map(|client| &client.counters));
        self.aof.failures.delayed_syncs.store(0, Ordering::Relaxed);
        self.eviction.reset();
    }

    /// Ends the clients that have been idle for longer than `timeout` seconds. Subscribers and monitors
    /// wait for others, and replicas have `repl-timeout`, so they are never ended for being idle. Connections of
    /// MIGRATE are closed if they were idle.
    pub fn end_idle(&self) {
        self.targets.close_unused();
        let timeout = self.config.timeout.get() as u64 * 1000;
        if timeout > 0 {
            let clients = self.clients.all();
            let idle = clients.iter().filter(|client| client.idle(self) > timeout);
            let over = idle.filter(|client| {
                !client.is_blocked() && !client.shown.lock().unwrap().is_listening()
            });
            over.for_each(|client| client.held.kill(End::Killed));
        }
    }

    /// The work of the thread `evict`. It is woken when clients hold too much, and also looks once per
    /// second, because CONFIG SET may have lowered the limit.
    pub fn evict_for_ever(&self) -> ! {
        self.config.clients.wake_me();
        loop {
            std::thread::park_timeout(Duration::from_secs(1));
            self.evict();
        }
    }

    /// Ends the client that holds the most memory, then the next, until the others are within
    /// `maxmemory-clients`.
    fn evict(&self) {
        let total = &self.config.clients;
        if !total.is_over(total.bytes()) {
            return;
        }
        // Clients that are being ended already do not count: they are giving their memory back.
        let all = self.clients.all();
        let mut all: Vec<(usize, Arc<Public>)> =
            all.into_iter().map(|client| (client.held.bytes(), client)).collect();
        all.sort_unstable_by_key(|(bytes, _)| *bytes);
        let mut sum: usize = all.iter().map(|(bytes, _)| bytes).sum();
        // To end one that holds nothing would not help.
        all.retain(|(bytes, client)| *bytes > 0 && !client.held.no_evict.load(Ordering::Relaxed));
        while total.is_over(sum)
            && let Some((bytes, client)) = all.pop()
        {
            client.held.kill(End::Evicted);
            sum -= bytes;
        }
    }
}

/// Which other clients come first.
pub enum Others {
    All,
    Subscribers,
    /// Those that are older, if there are few clients.
    Older,
    /// Those that hold memory which counts: mostly few, and to look at the socket of each client takes long.
    Holders,
}

#[derive(Default)]
pub struct Clients {
    pub gates: Gates,
    all: Mutex<BTreeMap<u64, Arc<Public>>>,
    /// How many they are, to be asked without the mutex.
    number: AtomicUsize,
    /// How many of them are blocked.
    blocked: AtomicUsize,
    last_id: AtomicU64,
}

impl Clients {
    pub fn next_id(&self) -> u64 {
        self.last_id.fetch_add(1, Ordering::Relaxed) + 1
    }

    pub fn add(&self, client: &Arc<Public>) {
        let mut all = self.all.lock().unwrap();
        all.insert(client.id, client.clone());
        self.number.store(all.len(), Ordering::Relaxed);
    }

    pub fn find(&self, id: u64) -> Option<Arc<Public>> {
        self.all.lock().unwrap().get(&id).cloned()
    }

    /// A client begins to wait.
    pub fn block(&self, client: &Public, why: Blocked) {
        client.blocked.store(why as u8, Ordering::Release);
        self.blocked.fetch_add(1, Ordering::Relaxed);
    }

    /// A client waits no more. Returns false if another thread has said so first.
    pub fn unblock(&self, client: &Public, why: Blocked) -> bool {
        let (old, new, order) = (why as u8, Blocked::No as u8, Ordering::AcqRel);
        let is_first = client.blocked.compare_exchange(old, new, order, Ordering::Relaxed).is_ok();
        self.blocked.fetch_sub(is_first.into(), Ordering::Relaxed);
        is_first
    }

    /// How many wait.
    pub fn blocked(&self) -> usize {
        self.blocked.load(Ordering::Relaxed)
    }

    /// How many there are, with those that are being ended.
    pub fn count(&self) -> usize {
        self.all.lock().unwrap().len()
    }

    /// The same, without the mutex: somebody may just be coming or going.
    pub fn number(&self) -> usize {
        self.number.load(Ordering::Relaxed)
    }

    /// A copy of the list in the order of the ids, without the clients that are being ended. With a
    /// copy nobody has to hold the mutex.
    pub fn all(&self) -> Vec<Arc<Public>> {
        let all = self.all.lock().unwrap();
        let here = all.values().filter(|client| !client.held.is_ended());
        here.cloned().collect()
    }

    /// The same with those that are being ended.
    pub fn everyone(&self) -> Vec<Arc<Public>> {
        self.all.lock().unwrap().values().cloned().collect()
    }

    fn holders(&self) -> Vec<Arc<Public>> {
        let all = self.all.lock().unwrap();
        all.values().filter(|client| client.held.bytes() > 0).cloned().collect()
    }

    /// Whether there are few, so that whoever may have to wait for a key can look at all older ones.
    pub fn are_few(&self) -> bool {
        self.number() <= FEW
    }

    /// The clients with smaller ids; none if there are many clients.
    fn older(&self, client: &Public) -> Vec<Arc<Public>> {
        if !self.are_few() {
            return Vec::new();
        }
        let all = self.all.lock().unwrap();
        all.range(..client.id).map(|(_, older)| older.clone()).collect()
    }

    /// The clients with these ids, without those that have left.
    pub fn those(&self, ids: impl Iterator<Item = u64>) -> Vec<Arc<Public>> {
        let all = self.all.lock().unwrap();
        ids.filter_map(|id| all.get(&id).cloned()).collect()
    }
}

/// With more clients than this, BLPOP does not look at the older ones. To look at one takes a microsecond, and
/// a client that is looked at needs one call more to read (serve/inbound.rs).
const FEW: usize = 8;

/// In [`Shown::last_command`]: a command that does not exist.
pub const NO_ROW: usize = usize::MAX;

/// What a client waits for, whose thread goes on when another thread has said so.
#[derive(Clone, Copy)]
pub enum Blocked {
    No,
    /// A key: BLPOP and the others.
    Key,
    /// The disk, or replicas: WAITAOF, WAIT.
    Log,
    /// The end of a pause.
    Pause,
    /// Replicas, before the process ends: SHUTDOWN.
    Shutdown,
}

/// What other threads may see of a client.
pub struct Public {
    pub id: u64,
    /// None for a fake client.
    pub connection: Option<Connection>,
    /// When it connected.
    pub since: Instant,
    /// When bytes last moved to or from it, on [`Server::idle_clock`].
    pub last_interaction: AtomicU64,
    /// Whether a batch of it runs, or waits for its lock. Whoever sees that the batch has ended sees
    /// `last_interaction` of then too.
    pub in_service: AtomicBool,
    /// A [`Blocked`].
    blocked: AtomicU8,
    /// Goes up when a key that it watches changes (watch.rs).
    pub watch_flag: WatchFlag,
    /// Where the answer comes to if it waits for a key.
    pub mailbox: Mailbox,
    /// What it has told of itself; a leaf.
    pub shown: Mutex<Shown>,
    pub counters: Counters,
    /// How much memory it holds, and whether it is being ended.
    pub held: Arc<Held>,
    /// Whether it has run all the commands that it has sent.
    pub turns: Turns,
}

/// What a client's thread writes for the others: names at once, the rest once per batch.
#[derive(Default)]
pub struct Shown {
    /// As CLIENT SETNAME and SETINFO have set them, or empty.
    pub name: Vec<u8>,
    pub lib_name: Vec<u8>,
    pub lib_ver: Vec<u8>,
    /// The row of the last command in the command table, or [`NO_ROW`].
    pub last_command: Option<usize>,
    pub db: usize,
    pub protocol: Protocol,
    pub subscriptions: [usize; 3],
    pub queued: Option<(usize, usize)>,
    pub args_length: usize,
    /// How many keys it watches.
    pub watching: usize,
    pub monitoring: bool,
    /// It is sent the stream of changes.
    pub follows: bool,
    /// It sends us such a stream: we are its replica.
    pub is_primary: bool,
    /// CLIENT NO-TOUCH.
    pub no_touch: bool,
}

impl Shown {
    pub fn is_subscribed(&self) -> bool {
        self.subscriptions != [0; 3]
    }

    fn is_listening(&self) -> bool {
        self.monitoring || self.follows || self.is_primary || self.is_subscribed()
    }
}

/// The socket and its two addresses. All threads share this one handle of the socket (serve.rs).
pub struct Connection {
    pub stream: Arc<TcpStream>,
    pub peer: Address,
    pub local: Address,
}

impl Public {
    pub fn new(server: &Server, id: u64, connection: Option<Connection>) -> Public {
        let stream = connection.as_ref().map(|c| c.stream.clone());
        Public {
            id,
            connection,
            since: Instant::now(),
            last_interaction: AtomicU64::new(server.idle_clock.load(Ordering::Relaxed)),
            in_service: AtomicBool::new(false),
            blocked: AtomicU8::new(Blocked::No as u8),
            watch_flag: WatchFlag::default(),
            mailbox: Mailbox::default(),
            shown: Mutex::default(),
            counters: Counters::default(),
            held: Held::new(&server.config.clients, stream),
            turns: Turns::default(),
        }
    }

    /// Bytes have moved: `timeout` and the `idle` of CLIENT LIST count from now.
    pub fn reset_idle(&self, server: &Server) {
        let now = server.idle_clock.load(Ordering::Relaxed);
        self.last_interaction.store(now, Ordering::Relaxed);
    }

    /// For how many milliseconds no bytes have moved, give or take 100, and never too many just before cron
    /// advances the clock, where it checks `timeout`. While the server works for the client it is not idle.
    pub fn idle(&self, server: &Server) -> u64 {
        if self.in_service.load(Ordering::Acquire) {
            return 0;
        }
        let now = server.idle_clock.load(Ordering::Relaxed);
        now.saturating_sub(self.last_interaction.load(Ordering::Relaxed))
    }

    pub fn is_blocked(&self) -> bool {
        self.blocked.load(Ordering::Relaxed) != Blocked::No as u8
    }

    /// Whether it has come to our Unix socket.
    pub fn is_unix(&self) -> bool {
        let peer = self.connection.as_ref().map(|connection| &connection.peer);
        matches!(peer, Some(Address::Unix(_)))
    }

    /// The peer as CLIENT LIST shows it.
    pub fn address(&self) -> String {
        self.connection.as_ref().map_or("?:0".into(), |connection| connection.peer.to_string())
    }
}
