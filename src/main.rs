//! simple-redis: a Redis server to read in an evening and to use the same night.
//!
//! This is the front door. It reads the configuration, binds the port, and gives every client that
//! knocks a thread of its own, when the log has been replayed; a replay that takes longer than [`MOMENT`]
//! lets them in, to be told LOADING. Double frames are locks; a leaf is one under which no other is taken:
//!
//! ```text
//! accept ─▶ one thread per client
//!           serve ─▶ call ──▶ handler ────▶ ╔═ the keyspace: many readers, or one writer ═╗
//! expire    deletes what has expired ─────▶ ║                                             ║
//!                                           ╚═══════════════════════╤═════════════════════╝
//!           still under the writer's lock: what changed, in order   ▼ append
//!                                           ╔═ the log's buffer ═══════════════╗ a leaf
//!           the keyspace is free again,     ╚═══════════════════════╤══════════╝
//!           the reply has not left yet                              ▼ commit
//! sync      fsync, each second or sooner ─▶ ╔═ the log's file ═════════════════╗
//! rewrite   makes the log short again ────▶ ╚══════════════════════════════════╝
//! lazyfree    frees what is large, so that nobody holds a lock for it
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
//! **Reading order** is the order of the `mod` lines: [`serve`], one client's thread; [`call`], how
//! a command is called; [`batch`], its lock, time and records; [`resp`], the wire; [`handler`], the
//! command table; [`client`], what a connection remembers; [`store`], the keyspace; [`propagate`] and
//! [`aof`], the log. Those, with `batch/lock.rs` and `store/view_mut.rs`, are the evening.
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

mod call;

mod batch;

mod resp;

mod handler;

mod client;

mod store;

mod propagate;

mod aof;

// For looking up.
mod blob;
mod config;
mod error;
mod expire;
mod gate;
mod glob;
mod held;
mod key;
mod listen;
mod log;
mod malloc;
mod outbox;
mod pubsub;
mod server;
mod stats;
mod types;
mod watch;

use aof::rewrite::replay_sealed;
use client::Client;
use config::{Config, Start};
use held::End;
use listen::Listener;
use server::{Connection, Server, order};
use stats::add;
use std::collections::VecDeque;
use std::io::{ErrorKind, Write};
use std::net::{SocketAddr, TcpStream};
use std::process::ExitCode;
use std::sync::atomic::Ordering;
use std::sync::{Arc, RwLock};
use std::thread::{self, Thread};
use std::time::Duration;
use store::Keyspace;

/// The stack of a client's thread, in bytes. Only what is touched takes memory.
pub const STACK: usize = 256 * 1024;

fn main() -> ExitCode {
    malloc::set_up();
    let error = match Config::from_args(std::env::args_os().skip(1)) {
        Ok(Start::Serve(config, warnings)) => match start(config, &warnings) {
            Ok(server) => cron(&server),
            Err(error) => error,
        },
        Ok(Start::CheckAof { path, fix }) => {
            return aof::check::check(&path, fix, &mut call::can_replay);
        }
        Ok(Start::Help) => return print(&config::help()),
        Ok(Start::Version) => return print(&format!("simple-redis {}", handler::VERSION)),
        Err(error) => error,
    };
    let _ = writeln!(std::io::stderr(), "simple-redis: {error}");
    ExitCode::FAILURE
}

fn print(text: &str) -> ExitCode {
    match writeln!(std::io::stdout(), "{text}") {
        Ok(()) => ExitCode::SUCCESS,
        Err(_) => ExitCode::FAILURE,
    }
}

/// For so long, or until the log is loaded, those who knock are left waiting in the kernel's queue. Most
/// logs are loaded by then, and a health check or a test's first command is answered, not refused.
const MOMENT: Duration = Duration::from_millis(500);

/// Binds, loads, accepts, starts the other threads. If it cannot start, the error is one line for the operator.
fn start(config: Arc<Config>, warnings: &[String]) -> Result<Arc<Server>, String> {
    config.open_files(warnings)?;
    config.fit_maxclients();
    // A taken port is found before the log is read, which may take long.
    let (listeners, port) = listen::open(&config)?;
    let (server, garbage) = Server::new(config, port, handler::TABLE.rows.len());
    let server = Arc::new(server);
    let store = Arc::new(RwLock::new(Keyspace::new(server.config.databases.get())));
    let background = |name, work: fn(&Arc<Server>, &RwLock<Keyspace>)| {
        let (server, store) = (server.clone(), store.clone());
        spawn(name, move || work(&server, &store))
    };
    spawn("lazyfree", move || garbage.iter().for_each(drop))?;
    background("evict", |server, _| server.evict_for_ever())?;
    server.aof.status.loading.store(true, Ordering::Relaxed);
    // Asked before there is a client who could change it.
    let has_log = server.config.appendonly.get();
    let accept = |listener| {
        let (server, store) = (server.clone(), store.clone());
        spawn("accept", move || {
            thread::park_timeout(MOMENT);
            accept_for_ever(&listener, &server, &store)
        })
    };
    let accepting = listeners.into_iter().map(accept);
    let accepting = accepting.collect::<Result<Vec<Thread>, String>>()?;
    if has_log {
        let keyspace = call::replay(&server, |replay| server.aof.start(replay))?;
        store.write().unwrap().take_over(keyspace);
    }
    server.aof.status.loading.store(false, Ordering::Relaxed);
    accepting.iter().for_each(Thread::unpark);
    log::notice(format_args!("Ready to accept connections on port {port}"));
    background("sync", |server, _| server.aof.sync_every_second())?;
    background("expire", |server, store| expire::expire_for_ever(server, store))?;
    background("rewrite", |server, store| {
        let replay_all =
            |manifest: &_| call::replay(server, |replay| replay_sealed(manifest, replay));
        server.aof.rewrite_when_asked(store, &replay_all)
    })?;
    Ok(server)
}

/// Starts a thread of ours.
fn spawn(name: &str, work: impl FnOnce() + Send + 'static) -> Result<Thread, String> {
    match thread::Builder::new().name(name.into()).spawn(work) {
        Ok(handle) => Ok(handle.thread().clone()),
        Err(error) => Err(format!("cannot start the thread '{name}': {error}")),
    }
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
                log::warning(format_args!("cannot accept a client: {error}"));
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
    let is_full = || server.clients.count() >= server.config.maxclients.get();
    let mut is_refused = is_full();
    if is_refused {
        // Who has hung up is not in the way.
        let mut others = server.clients.everyone();
        // Some of them are yet to be started, by this thread.
        others.retain(|client| client.turns.has_begun());
        order::hear_out(&others, None);
        is_refused = is_full();
    }
    let refusal = if is_refused {
        Some("-ERR max number of clients reached\r\n")
    } else if listen::protects_from(&server.config, peer.ip()) {
        Some(listen::PROTECTED)
    } else {
        None
    };
    if let Some(refusal) = refusal {
        add(&server.stats.rejected_connections, 1);
        let _ = (&stream).write_all(refusal.as_bytes());
        return None;
    }
    let connection =
        Connection { local: listen::local_address(&stream).ok()?, stream: Arc::new(stream), peer };
    // Boxed, or each call on its way into the thread would have a copy of it on the stack.
    Some(Box::new(Client::new(server, connection)))
}

fn start_serving(client: Box<Client>, server: &Arc<Server>, store: &Arc<RwLock<Keyspace>>) {
    let (owner, store) = (server.clone(), store.clone());
    let thread = thread::Builder::new().stack_size(STACK);
    if let Err(error) = thread.spawn(move || serve::serve(&owner, &store, client)) {
        add(&server.stats.rejected_connections, 1);
        log::warning(format_args!("cannot start a thread for a client: {error}"));
    }
}

/// Ten times a second: counts the time of the idle, takes the samples behind INFO's rates, tells what
/// there is to tell of the log, and ends clients that have been silent for longer than `timeout`
/// seconds. Subscribers and monitors wait for others, so their silence is no sign.
fn cron(server: &Server) -> ! {
    loop {
        thread::sleep(Duration::from_millis(100));
        server.stats.sample(server.totals());
        server.aof.tell_news();
        blob::free_spare();
        let timeout = server.config.timeout.get() as u64 * 1000;
        if timeout > 0 {
            let clients = server.clients.all();
            let silent = clients.iter().filter(|client| client.idle(server) > timeout);
            let over = silent.filter(|client| !client.is_listening());
            over.for_each(|client| client.held.kill(End::Killed));
        }
        // Afterwards, so that who was heard during this round is not idle for it.
        server.idle_clock.fetch_add(100, Ordering::Relaxed);
    }
}
