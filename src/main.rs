//! simple-redis: a Redis server to read in an evening and to use the same night.
//!
//! This is the front door. It reads the configuration, binds the port, replays the log, and gives every client a
//! thread of its own. If the replay takes longer than [`MOMENT`], clients are let in meanwhile and told LOADING.
//! Double frames are locks. A leaf is held only for a moment: whoever has it takes no other lock of this drawing:
//!
//! ```text
//! accept ─▶ start ─▶ one thread per client
//!           serve ─▶ call ──▶ handler ────▶ ╔═ the keyspace: many readers, or one writer ═╗
//! expire    deletes what has expired ─────▶ ║                                             ║
//!                                           ╚═══════════════════════╤═════════════════════╝
//!           still under the writer's lock: what changed, in order   ▼ append
//!                                           ╔═ the log's buffer ═══════════════╗ a leaf
//!           the keyspace is free again,     ╚═══════════════════════╤══════════╝
//!           the reply has not left yet                              ▼ commit
//! sync      fsync, each second or sooner ─▶ ╔═ the log's file ═════════════════╗
//! rewrite   makes the log short again ────▶ ╚══════════════════════════════════╝
//! snapshot  writes dump.rdb, if somebody asks for it
//! lazyfree  frees what is large, so that nobody holds a lock for it
//! evict     ends the client that holds the most, when all together hold too much
//! maxmemory evicts keys, when memory is exceeded and no command does it
//! main      starts all these; then cron: samples for INFO, ends clients that are idle for too long
//! ```
//!
//! Three rules explain most of the rest. The type of a handler is its lock: a handler that is given a
//! [`store::View`] can only look. What changes is appended to the log before the lock is released, so
//! the log has the order in which things happened. A reply leaves only when everything that its command
//! changed or has seen is written to the log's file, so what was acknowledged survives `kill -9`. (One
//! exception: while the disk refuses the log, writes are refused, but reads are answered.) A panic ends the
//! process, see Cargo.toml. So no lock is ever poisoned, and `lock().unwrap()` never fails.
//!
//! **Reading order** is that of the first `mod` lines below, with `batch/lock.rs` after [`batch`] and
//! `store/view_mut.rs` after [`store`]: that is the evening. Each file opens with a chapter like this one: the
//! idea, often a drawing, and *How Redis does it*, with what is simpler here and what that costs. src/README.md
//! explains the words, and asks a question about each file, with the test that knows the answer.
//!
//! **How Redis does it**: server.c, `main`. One thread waits for all sockets at once, and needs
//! none of the locks above. A second core helps it only with I/O and with freeing memory.
#![forbid(unsafe_code)]

// In reading order.
mod serve;
mod resp;
mod handler;
mod call;
mod batch;
mod store;
mod propagate;
mod aof;

// For looking up.
mod background;
mod blob;
mod client;
mod config;
mod error;
mod evict;
mod expire;
mod gate;
mod glob;
mod held;
mod key;
mod latency;
mod lazyfree;
mod listen;
mod log;
mod malloc;
mod mode;
mod notify;
mod outbox;
mod pubsub;
mod rdb;
mod replication;
mod script;
mod server;
mod service;
mod sha1;
mod sha256;
mod snapshot;
mod spare;
mod stats;
mod types;
mod watch;

use background::spawn;
use client::Client;
use config::{Config, Start};
use listen::Listener;
use server::Server;
use stats::add;
use std::io::Write;
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::sync::mpsc::{self, Receiver, Sender};
use std::thread::{self, Thread};
use std::time::Duration;
use store::{Keyspace, Store};

/// The stack of a client's thread, in bytes. Only what is touched takes memory.
pub const STACK: usize = 256 * 1024;

fn main() -> ExitCode {
    malloc::set_up();
    let error = match Config::from_args(std::env::args_os().skip(1)) {
        Ok(Start::Serve(config, _)) if service::goes_to_background(&config) => {
            match service::detach(&config) {
                Ok(answer) => return print(&answer),
                Err(error) => error,
            }
        }
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
    service::fail(&error)
}

fn print(text: &str) -> ExitCode {
    match writeln!(std::io::stdout(), "{text}") {
        Ok(()) => ExitCode::SUCCESS,
        Err(_) => ExitCode::FAILURE,
    }
}

/// How long clients wait in the kernel's queue while the log loads. Most logs are loaded by then, and
/// the first command of a health check or a test is answered, not refused.
const MOMENT: Duration = Duration::from_millis(500);

/// Binds, loads, and starts the other threads. The error is for the operator, a line for each reason.
fn start(config: Arc<Config>, warnings: &[String]) -> Result<Arc<Server>, String> {
    config.open_files(warnings)?;
    handler::rename(&config.renames)?;
    config.fit_maxclients();
    // First, so that a port in use is reported before the long load.
    let (mut listeners, port) = listen::open(&config)?;
    // The statistics have a place for each row of the command table.
    let server = Arc::new(Server::new(config, port, handler::TABLE.rows.len()));
    let store = Arc::new(Store::new(Keyspace::new(server.config.databases.get())));
    // These work for clients that are there while the log loads.
    let (freeing, evicting, sending) = (server.clone(), server.clone(), server.clone());
    spawn("lazyfree", move || freeing.free_for_ever())?;
    spawn("evict", move || evicting.evict_for_ever())?;
    spawn("courier", move || sending.hub.send_for_ever())?;
    // From the first client on we are a replica, if the configuration says so.
    server.primary.set(server.config.primary()?);
    server.aof.status.loading.store(true, Ordering::Relaxed);
    // Read before there is a client that could change it.
    let has_log = server.config.appendonly.get();
    // Before the socket and the pid file, because another server that has the directory may have those, too.
    let _directory = if has_log { Some(server.aof.lock_directory()?) } else { None };
    listeners.extend(listen::open_unix(&server.config)?);
    service::begin(&server.config);
    let (welcomed, arrivals) = mpsc::channel();
    let (owner, data) = (server.clone(), store.clone());
    spawn("start", move || start_serving(arrivals, &owner, &data))?;
    let accept = |listener| {
        let (server, welcomed) = (server.clone(), welcomed.clone());
        spawn("accept", move || {
            thread::park_timeout(MOMENT);
            accept_for_ever(&listener, &server, &welcomed)
        })
    };
    let accepting = listeners.into_iter().map(accept);
    let accepting = accepting.collect::<Result<Vec<Thread>, String>>()?;
    call::load(&server, &store, has_log)?;
    server.aof.status.loading.store(false, Ordering::Relaxed);
    accepting.iter().for_each(Thread::unpark);
    service::ready(&server.config, port);
    background::start(&server, &store)?;
    Ok(server)
}

/// Accepts clients, and does nothing else. Starting a thread takes ten times as long as accepting a client, and the
/// kernel keeps only 128 waiting (std's backlog). A client that the kernel turns away tries again after one second, then
/// after two, four, eight. So another thread starts theirs. This one mostly sleeps, and the kernel prefers it for that.
fn accept_for_ever(listener: &Listener, server: &Arc<Server>, welcomed: &Sender<Box<Client>>) {
    loop {
        match listener.accept() {
            Ok((stream, peer)) => {
                // None if the client was refused.
                if let Some(client) = Client::welcome(server, stream, peer) {
                    // Fails never, because the other end waits for ever.
                    let _ = welcomed.send(client);
                }
            }
            Err(error) => {
                // Usually there are no descriptors left. Trying again at once would burn a core.
                log::warning(format_args!("cannot accept a client: {error}"));
                thread::sleep(Duration::from_millis(100));
            }
        }
    }
}

/// Gives each client a thread of its own.
fn start_serving(arrivals: Receiver<Box<Client>>, server: &Arc<Server>, store: &Arc<Store>) {
    for client in arrivals {
        let (owner, store) = (server.clone(), store.clone());
        let thread = thread::Builder::new().stack_size(STACK);
        if let Err(error) = thread.spawn(move || serve::serve(&owner, &store, client)) {
            add(&server.stats.rejected_connections, 1);
            log::warning(format_args!("cannot start a thread for a client: {error}"));
        }
    }
}

/// Ten times a second: takes the samples behind INFO's rates, tells the news of the log, frees large memory that
/// nobody uses again, ends clients that are idle for too long, sends replicas a PING, and wakes the thread of a
/// paused client (CLIENT PAUSE) that has left.
fn cron(server: &Server) -> ! {
    loop {
        thread::sleep(Duration::from_millis(100));
        if server.cron_is_paused.load(Ordering::Relaxed) {
            continue;
        }
        server.stats.sample(server.totals());
        server.aof.tell_news();
        spare::free_unused();
        server.end_idle();
        server.tend_replicas();
        server.pause.look_around(server);
        // After `end_idle`, so that a client that has just sent something is not 100 ms idle.
        server.idle_clock.fetch_add(100, Ordering::Relaxed);
    }
}
