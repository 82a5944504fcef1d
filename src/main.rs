//! simple-redis: a Redis server to read in an evening and to use the same night.
//!
//! This is the front door. It reads the configuration, binds the port, and gives every client that
//! knocks a thread of its own, which answers LOADING until the log has been replayed. Double frames are
//! locks; a leaf is one under which no other is taken:
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
//! the log. Those, with `batch/lock.rs` and `store/view_mut.rs`, are the evening. The others are for
//! looking up.
//!
//! **How to read a file.** Each opens with a chapter like this one: the idea, often a drawing or an
//! example, and *How Redis does it*, with what is simpler here and what that costs. README.md explains
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
mod entry;
mod error;
mod expire;
mod glob;
mod hash;
mod heap;
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
use stats::{Stats, add};
use std::convert::Infallible;
use std::hash::{BuildHasher, Hasher, RandomState};
use std::io::Write;
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream, ToSocketAddrs};
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

/// Binds, accepts, loads, starts the other threads. If it cannot start, the error is one line for the operator.
fn serve_for_ever(config: Config, warnings: &[String]) -> Result<Infallible, String> {
    let logfile = config.text("logfile");
    if !logfile.is_empty() {
        say::into_file(logfile.as_ref())
            .map_err(|error| format!("cannot write to the logfile {logfile}: {error}"))?;
    }
    warnings
        .iter()
        .for_each(|warning| say::warning(format_args!("{warning}")));
    let dir = config.text("dir");
    std::fs::read_dir(&dir).map_err(|error| {
        format!("cannot open the directory {dir}: {error}. Name another with --dir")
    })?;
    let config = Arc::new(config);
    fit_maxclients(&config);
    // A taken port is found before the log is read, which may take long.
    let (listeners, port) = bind(&config)?;
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
    let databases = server.config.databases();
    let store = Arc::new(RwLock::new(Keyspace::new(databases)));
    spawn("reaper", move || garbage.iter().for_each(drop))?;
    server.aof.status.loading.store(true, Ordering::Relaxed);
    // Asked before there is a client who could change it.
    let has_log = server.config.flag("appendonly");
    start_accepting(listeners, &server, &store)?;
    if has_log {
        let keyspace = replay(&server, |replay| server.aof.start(replay))?;
        store.write().unwrap().take_over(keyspace);
    }
    server.aof.status.loading.store(false, Ordering::Relaxed);
    say::notice(format_args!("ready to accept connections on port {port}"));
    start_background_threads(&server, &store)?;
    keep_house(&server)
}

fn spawn(name: &str, work: impl FnOnce() + Send + 'static) -> Result<(), String> {
    let thread = thread::Builder::new().name(name.into()).spawn(work);
    thread
        .map(|_| ())
        .map_err(|error| format!("cannot start the thread '{name}': {error}"))
}

fn start_accepting(
    listeners: Vec<TcpListener>,
    server: &Arc<Server>,
    store: &Arc<RwLock<Keyspace>>,
) -> Result<(), String> {
    for listener in listeners {
        let (server, store) = (server.clone(), store.clone());
        spawn("accept", move || {
            accept_for_ever(&listener, &server, &store)
        })?;
    }
    Ok(())
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

/// Opens a listener for each address of `bind`; those marked with `-` may fail.
fn bind(config: &Config) -> Result<(Vec<TcpListener>, u16), String> {
    let mut port = config.number("port") as u16;
    let mut listeners = Vec::new();
    for word in config.text("bind").split_whitespace() {
        let (address, optional) = match word.strip_prefix('-') {
            Some(address) => (address, true),
            None => (word, false),
        };
        let address = match address {
            "*" => "0.0.0.0",
            "::*" => "::",
            address => address,
        };
        match listen(address, port) {
            Ok(listener) => {
                // The first listener chooses the port if it is 0, and the others follow.
                port = listener.local_addr().map_or(port, |address| address.port());
                listeners.push(listener);
            }
            Err(_) if optional => {}
            Err(error) => {
                return Err(format!(
                    "cannot listen on {address} port {port}: {error}. Is another server running? \
                     Choose another port with --port"
                ));
            }
        }
    }
    if listeners.is_empty() {
        return Err("no address to listen on; name one with --bind".into());
    }
    Ok((listeners, port))
}

fn listen(address: &str, port: u16) -> std::io::Result<TcpListener> {
    let addresses: Vec<SocketAddr> = (address, port).to_socket_addrs()?.collect();
    TcpListener::bind(&addresses[..])
}

/// Lowers `maxclients` if the process may not open so many files, as Redis does.
fn fit_maxclients(config: &Config) {
    let wanted = config.maxclients.load(Ordering::Relaxed);
    if let Some(most) = config::most_clients().filter(|most| wanted > *most) {
        let _ = config.set(&[(b"maxclients", most.to_string().as_bytes())]);
        say::warning(format_args!(
            "maxclients is {most} instead of {wanted}, for this process may not open more files; \
             raise that with `ulimit -n`"
        ));
    }
}

/// Gives each client that comes a thread of its own.
fn accept_for_ever(listener: &TcpListener, server: &Arc<Server>, store: &Arc<RwLock<Keyspace>>) {
    loop {
        match listener.accept() {
            Ok((stream, peer)) => welcome(stream, peer, server, store),
            Err(error) => {
                // Usually there are no descriptors left. Trying again at once would burn a core.
                say::warning(format_args!("cannot accept a client: {error}"));
                thread::sleep(Duration::from_millis(100));
            }
        }
    }
}

fn welcome(
    stream: TcpStream,
    peer: SocketAddr,
    server: &Arc<Server>,
    store: &Arc<RwLock<Keyspace>>,
) {
    add(&server.stats.connections, 1);
    if server.clients.count() >= server.config.maxclients.load(Ordering::Relaxed) {
        add(&server.stats.rejected_connections, 1);
        let _ = (&stream).write_all(b"-ERR max number of clients reached\r\n");
        return;
    }
    if is_stranger(&server.config, peer.ip()) {
        add(&server.stats.rejected_connections, 1);
        let _ = (&stream).write_all(PROTECTED.as_bytes());
        return;
    }
    let Ok(local) = stream.local_addr() else {
        return;
    };
    let connection = Connection {
        stream: Arc::new(stream),
        peer,
        local,
    };
    // Boxed, or each call on its way into the thread would have a copy of it on the stack.
    let client = Box::new(Client::new(server, connection));
    let (owner, store) = (server.clone(), store.clone());
    let thread = thread::Builder::new().stack_size(STACK);
    if let Err(error) = thread.spawn(move || serve::serve(&owner, &store, client)) {
        add(&server.stats.rejected_connections, 1);
        say::warning(format_args!("cannot start a thread for a client: {error}"));
    }
}

/// Protected mode: without a password, only this machine is served.
fn is_stranger(config: &Config, peer: IpAddr) -> bool {
    let loopback = match peer {
        IpAddr::V6(address) => address.to_canonical().is_loopback(),
        IpAddr::V4(address) => address.is_loopback(),
    };
    !loopback && !config.has_password() && config.flag("protected-mode")
}

/// Redis's words.
const PROTECTED: &str = "-DENIED Redis is running in protected mode because protected mode is \
    enabled and no password is set for the default user. In this mode connections are only \
    accepted from the loopback interface. If you want to connect from external computers to Redis \
    you may adopt one of the following solutions: 1) Just disable protected mode sending the \
    command 'CONFIG SET protected-mode no' from the loopback interface by connecting to Redis from \
    the same host the server is running, however MAKE SURE Redis is not publicly accessible from \
    internet if you do so. Use CONFIG REWRITE to make this change permanent. 2) Alternatively you \
    can just disable the protected mode by editing the Redis configuration file, and setting the \
    protected mode option to 'no', and then restarting the server. 3) If you started the server \
    manually just for testing, restart it with the '--protected-mode no' option. 4) Setup a an \
    authentication password for the default user. NOTE: You only need to do one of the above \
    things in order for the server to start accepting connections from the outside.\r\n";

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
            over.for_each(|client| client.kill());
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn without_a_password_only_this_machine_is_served() {
        let config = |flags: &[&str]| match Config::from_args(flags.iter().map(|flag| flag.into()))
        {
            Ok(Start::Serve(config, _)) => config,
            _ => panic!("{flags:?} are flags"),
        };
        let is_stranger = |config: &Config, peer: &str| is_stranger(config, peer.parse().unwrap());
        let default = config(&[]);
        for peer in ["127.0.0.1", "127.9.9.9", "::1", "::ffff:127.0.0.1"] {
            assert!(!is_stranger(&default, peer), "{peer}");
        }
        for peer in ["192.0.2.1", "0.0.0.0", "2001:db8::1", "::ffff:192.0.2.1"] {
            assert!(is_stranger(&default, peer), "{peer}");
            assert!(!is_stranger(&config(&["--requirepass", "sesame"]), peer));
            assert!(!is_stranger(&config(&["--protected-mode", "no"]), peer));
        }
    }
}
