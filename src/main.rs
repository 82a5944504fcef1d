//! simple-redis: a Redis server to read in an evening and to use the same night.
//!
//! This is the front door. It reads the configuration, binds the port, and gives every client that
//! knocks a thread of its own, when the log has been replayed; a replay that takes longer than [`MOMENT`]
//! lets them in, to be told LOADING. Double frames are locks; a leaf is one under which no other is taken:
//!
//! ```text
//! accept ─▶ one thread per client
//!           serve ─▶ batch ─▶ handler ────▶ ╔═ the keyspace: many readers, or one writer ═╗
//! sweep     deletes what has expired ─────▶ ║                                             ║
//!                                           ╚═══════════════════════╤═════════════════════╝
//!           still under the writer's lock: what changed, in order   ▼ append
//!                                           ╔═ the log's buffer ═══════════════╗ a leaf
//!           the keyspace is free again,     ╚═══════════════════════╤══════════╝
//!           the reply has not left yet                              ▼ commit
//! sync      fsync, each second or sooner ─▶ ╔═ the log's file ═════════════════╗
//! rewrite   makes the log short again ────▶ ╚══════════════════════════════════╝
//! reaper    frees what is large, so that nobody holds a lock for it
//! evict     ends who holds the most, when all clients together hold too much
//! main      starts all these, takes samples for INFO, ends clients that sleep too long
//! ```
//!
//! Three rules explain most of the rest. A handler's type is its lock: who is given a
//! [`store::View`] can only look. What changes is appended to the log before the lock is released,
//! so the log has the order in which things happened. And no reply leaves before the log is written
//! as far as its client has seen: what was acknowledged survives `kill -9`. (A panic ends the process,
//! see Cargo.toml, so no lock is ever poisoned: hence `lock().unwrap()` everywhere.)
//!
//! **Reading order** is the order of the `mod` lines: [`serve`], one client's thread; [`batch`],
//! where a command meets its lock; [`resp`], the wire; [`handler`], the command table; [`client`],
//! what a connection remembers; [`store`], the keyspace; [`propagate`], what is to be logged; [`aof`],
//! the log. Those, with `batch/lock.rs` and `store/view_mut.rs`, are the evening.
//!
//! **How to read a file.** Each opens with a chapter like this one: the idea, often a drawing or an
//! example, and *How Redis does it*, with what is simpler here and what that costs. src/README.md explains
//! the words, and has a question to each file but the handlers', to be answered before reading, with
//! the test that knows.
//!
//! **How Redis does it**: server.c, `main`. One thread waits for all sockets at once, and needs
//! none of the locks above; a second core helps it only with I/O and with freeing memory.
#![forbid(unsafe_code)]

// In reading order. (The blank lines keep rustfmt from sorting them.)
mod serve;

mod batch;

mod resp;

mod handler;

mod client;

mod store;

mod propagate;

mod aof;

// For looking up.
mod account;
mod config;
mod digest;
mod entry;
mod error;
mod expire;
mod gate;
mod glob;
mod hash;
mod heap;
mod held;
mod listen;
mod malloc;
mod pubsub;
mod say;
mod stats;
mod table;
mod watch;

use aof::rewrite::replay_sealed;
use batch::Replayer;
use client::{Client, Connection, Server};
use config::{Config, Start};
use held::End;
use listen::Listener;
use stats::{Stats, add};
use std::collections::VecDeque;
use std::convert::Infallible;
use std::hash::{BuildHasher, Hasher, RandomState};
use std::io::{ErrorKind, Write};
use std::net::{SocketAddr, TcpStream};
use std::process::ExitCode;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, RwLock, mpsc};
use std::thread;
use std::time::{Duration, Instant};
use store::Keyspace;

/// The stack of a client's thread, in bytes. Only what is touched takes memory.
pub const STACK: usize = 256 * 1024;

fn main() -> ExitCode {
    malloc::set_up();
    let started = match Config::from_args(std::env::args_os().skip(1)) {
        Ok(Start::Serve(config, warnings)) => serve_for_ever(config, &warnings),
        Ok(Start::Help) => return print(&config::help()),
        Ok(Start::Version) => return print(&format!("simple-redis {}", handler::VERSION)),
        Ok(Start::CheckAof { path, fix }) => {
            return aof::check::run(&path, fix, &mut |records| {
                let mut each = records.iter().enumerate();
                each.try_for_each(|(index, args)| {
                    let row = batch::can_replay(args);
                    row.map(|_| ()).map_err(|reason| (index, reason))
                })
            });
        }
        Err(error) => Err(error),
    };
    let Err(error) = started;
    let _ = writeln!(std::io::stderr(), "simple-redis: {error}");
    ExitCode::FAILURE
}

fn print(text: &str) -> ExitCode {
    match writeln!(std::io::stdout(), "{text}") {
        Ok(()) => ExitCode::SUCCESS,
        Err(_) => ExitCode::FAILURE,
    }
}

/// For so long those who knock while the log is being loaded are left waiting in the kernel's queue. Most
/// logs are loaded by then, and a health check or a test's first command is answered, not refused.
const MOMENT: Duration = Duration::from_millis(500);

/// Binds, loads, accepts, starts the other threads. If it cannot start, the error is one line for the operator.
fn serve_for_ever(config: Config, warnings: &[String]) -> Result<Infallible, String> {
    open_files(&config, warnings)?;
    let config = Arc::new(config);
    config.fit_maxclients();
    // A taken port is found before the log is read, which may take long.
    let (listeners, port) = listen::open(&config)?;
    let (reaper, garbage) = mpsc::channel();
    let server = Arc::new(Server {
        aof: aof::Aof::new(config.clone()),
        stats: Stats::new(handler::TABLE.rows.len()),
        clients: Default::default(),
        hub: Default::default(),
        reaper,
        started: Instant::now(),
        idle_clock: AtomicU64::new(0),
        last_served: AtomicU64::new(0),
        may_spin: std::thread::available_parallelism().is_ok_and(|cores| cores.get() > 1),
        run_id: run_id(),
        port: AtomicUsize::new(port.into()),
        active_expire: AtomicBool::new(true),
        config,
        config_changes: Mutex::default(),
    });
    let store = Arc::new(RwLock::new(Keyspace::new(server.config.databases())));
    spawn("reaper", move || garbage.iter().for_each(drop))?;
    server.aof.status.loading.store(true, Ordering::Relaxed);
    // Asked before there is a client who could change it.
    let has_log = server.config.flag("appendonly");
    let loading = start_accepting(listeners, &server, &store)?;
    if has_log {
        let keyspace = replay(&server, |replay| server.aof.start(replay))?;
        store.write().unwrap().take_over(keyspace);
    }
    server.aof.status.loading.store(false, Ordering::Relaxed);
    drop(loading);
    say::notice(format_args!("Ready to accept connections on port {port}"));
    start_background_threads(&server, &store)?;
    keep_house(&server)
}

/// Opens the logfile, says what is to be said first, and looks whether `dir` is there.
fn open_files(config: &Config, warnings: &[String]) -> Result<(), String> {
    if !config.text("logfile").is_empty() {
        let logfile = config.path("logfile");
        say::into_file(&logfile).map_err(|error| {
            let logfile = logfile.display();
            format!("cannot write to the logfile {logfile}: {error}")
        })?;
    }
    warnings
        .iter()
        .for_each(|warning| say::warning(format_args!("{warning}")));
    let dir = config.path("dir");
    let opened = std::fs::read_dir(&dir).map_err(|error| {
        let dir = dir.display();
        format!("cannot open the directory {dir}: {error}. Name another with --dir")
    });
    opened.map(|_| ())
}

fn spawn(name: &str, work: impl FnOnce() + Send + 'static) -> Result<(), String> {
    let thread = thread::Builder::new().name(name.into()).spawn(work);
    thread
        .map(|_| ())
        .map_err(|error| format!("cannot start the thread '{name}': {error}"))
}

/// From here on there are clients, and somebody who sees to it that they do not hold too much. But they
/// are let in when what it returns is dropped, which says that the log is loaded, or after [`MOMENT`].
fn start_accepting(
    listeners: Vec<Listener>,
    server: &Arc<Server>,
    store: &Arc<RwLock<Keyspace>>,
) -> Result<Vec<mpsc::Sender<Infallible>>, String> {
    let evict = server.clone();
    spawn("evict", move || evict.evict_for_ever())?;
    let start = |listener| {
        let (loading, loaded) = mpsc::channel();
        let (server, store) = (server.clone(), store.clone());
        spawn("accept", move || {
            let _ = loaded.recv_timeout(MOMENT);
            accept_for_ever(&listener, &server, &store)
        })?;
        Ok(loading)
    };
    listeners.into_iter().map(start).collect()
}

fn start_background_threads(
    server: &Arc<Server>,
    store: &Arc<RwLock<Keyspace>>,
) -> Result<(), String> {
    let sync = server.clone();
    spawn("sync", move || sync.aof.sync_every_second())?;
    let (sweep, keyspace) = (server.clone(), store.clone());
    spawn("sweep", move || expire::sweep_for_ever(&sweep, &keyspace))?;
    let (rewrite, keyspace) = (server.clone(), store.clone());
    spawn("rewrite", move || {
        let replay_all = |manifest: &_| replay(&rewrite, |replay| replay_sealed(manifest, replay));
        rewrite.aof.rewrite_when_asked(&keyspace, &replay_all)
    })
}

/// Replays into a keyspace of its own, which nobody else can see: `read` is told how to replay
/// commands, and calls that for a few at a time.
fn replay(
    server: &Arc<Server>,
    read: impl FnOnce(&mut aof::load::Replay) -> Result<(), String>,
) -> Result<Keyspace, String> {
    let store = RwLock::new(Keyspace::new(server.config.databases()));
    let mut replayer = Replayer::new(server, &store);
    read(&mut |records| replayer.replay(records))?;
    drop(replayer);
    Ok(store.into_inner().unwrap())
}

/// Gives each client that comes a thread of its own. To start a thread takes ten times as long as to
/// accept a client, and the kernel lets only 128 knock (std's backlog); whom it turns away knocks again
/// after a second, then after two, four, eight. So whoever knocks is let in first, and while nobody does
/// one thread is started.
fn accept_for_ever(listener: &Listener, server: &Arc<Server>, store: &Arc<RwLock<Keyspace>>) {
    let mut waiting = VecDeque::new();
    loop {
        match listener.accept() {
            Ok((stream, peer)) => {
                let was_empty = waiting.is_empty();
                waiting.extend(welcome(stream, peer, server));
                // From now on accept does not wait.
                if !was_empty || listener.socket.set_nonblocking(true).is_ok() {
                    continue;
                }
            }
            Err(error) if waiting.is_empty() && error.kind() != ErrorKind::WouldBlock => {
                // Usually there are no descriptors left. Trying again at once would burn a core.
                say::warning(format_args!("cannot accept a client: {error}"));
                thread::sleep(Duration::from_millis(100));
            }
            Err(_) => {}
        }
        if let Some(client) = waiting.pop_front() {
            start_serving(client, server, store);
        }
        if waiting.is_empty() {
            // The only error is that of a closed socket.
            let _ = listener.socket.set_nonblocking(false);
        }
    }
}

/// Puts a newcomer on the list of clients, or tells it why not.
fn welcome(stream: TcpStream, peer: SocketAddr, server: &Arc<Server>) -> Option<Box<Client>> {
    add(&server.stats.connections, 1);
    let is_full = || server.clients.count() >= server.config.maxclients.load(Ordering::Relaxed);
    let mut is_refused = is_full();
    if is_refused {
        // Who has hung up is not in the way.
        let mut others = server.clients.everyone();
        // Some of them are yet to be started, by this thread.
        others.retain(|client| client.turns.has_begun());
        client::order::hear_out(&others, None);
        is_refused = is_full();
    }
    let refusal = if is_refused {
        Some("-ERR max number of clients reached\r\n")
    } else if listen::is_stranger(&server.config, peer.ip()) {
        Some(listen::PROTECTED)
    } else {
        None
    };
    if let Some(refusal) = refusal {
        add(&server.stats.rejected_connections, 1);
        let _ = (&stream).write_all(refusal.as_bytes());
        return None;
    }
    let connection = Connection {
        local: listen::local_address(&stream).ok()?,
        stream: Arc::new(stream),
        peer,
    };
    // Boxed, or each call on its way into the thread would have a copy of it on the stack.
    Some(Box::new(Client::new(server, connection)))
}

fn start_serving(client: Box<Client>, server: &Arc<Server>, store: &Arc<RwLock<Keyspace>>) {
    let (owner, store) = (server.clone(), store.clone());
    let thread = thread::Builder::new().stack_size(STACK);
    if let Err(error) = thread.spawn(move || serve::serve(&owner, &store, client)) {
        add(&server.stats.rejected_connections, 1);
        say::warning(format_args!("cannot start a thread for a client: {error}"));
    }
}

/// Ten times a second: counts the time of the idle, takes the samples behind INFO's rates, tells what
/// there is to tell of the log, and ends clients that have been silent for longer than `timeout`
/// seconds. Subscribers and monitors wait for others, so their silence is no sign.
fn keep_house(server: &Server) -> ! {
    loop {
        thread::sleep(Duration::from_millis(100));
        server.stats.sample(server.totals());
        server.aof.tell_news();
        let timeout = server.config.timeout.load(Ordering::Relaxed) * 1000;
        if timeout > 0 {
            let clients = server.clients.all();
            let silent = clients
                .iter()
                .filter(|client| client.idle(server) > timeout);
            let over = silent.filter(|client| !client.is_listening());
            over.for_each(|client| client.kill(End::Killed));
        }
        // Afterwards, so that who was heard during this round is not idle for it.
        server.idle_clock.fetch_add(100, Ordering::Relaxed);
    }
}

/// Forty random hexadecimal digits.
fn run_id() -> String {
    let random = || RandomState::new().build_hasher().finish();
    format!("{:016x}{:016x}{:08x}", random(), random(), random() as u32)
}
