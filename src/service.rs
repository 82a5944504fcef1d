//! The server as a service: in the background, with a pid file, under a service manager.
//!
//! ```text
//! $ simple-redis --daemonize yes
//!   the process of the shell          reads the options, and starts itself once more, detached:
//!    ├─ standard input of the options ──▶ its standard input, a pair of sockets
//!    └─ waits for the answer ◀── "OK" when it has its port and its pid file, or why it could not
//! ```
//!
//! std cannot fork. So what Redis does by forking is done by a second process, whose answer the first one prints.
//! The second one is in a process group of its own, where no Ctrl-C reaches it, and its output goes to `/dev/null`. (It
//! stays in the session of its terminal, because std cannot begin a new one.)
//!
//! The pid file is written when the port is open, and removed by SHUTDOWN. SIGTERM ends the process at once, so the
//! file stays then. A server that starts writes it anew.
//!
//! **How Redis does it**: `daemonize`, `createPidFile` and `redisIsSupervised` in server.c. There the first process
//! ends before the second one has a port, so it cannot say that the port is taken. And there is no word of a pid
//! file that cannot be written.

use crate::config::Config;
use crate::log;
use std::env;
use std::ffi::OsStr;
use std::fs;
use std::io::{self, Read, Write};
use std::net::Shutdown;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram, UnixStream};
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::{Command, ExitCode, Stdio};
use std::sync::OnceLock;

/// Set in the environment of the process that goes on in the background.
const DETACHED: &str = "SIMPLE_REDIS_DETACHED";

/// What the process in the background answers when it serves.
const SERVES: &str = "OK";

/// Who has started the process and wants to know when it is ready (`supervised`).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Manager {
    Systemd,
    Upstart,
}

impl Manager {
    pub fn name(self) -> &'static str {
        match self {
            Manager::Systemd => "systemd",
            Manager::Upstart => "upstart",
        }
    }
}

/// The service manager, if the configuration asks for one and the environment shows that it is there.
pub fn manager(config: &Config) -> Option<Manager> {
    let asked = config.supervised.text();
    let is_asked = |manager: Manager| [manager.name(), "auto"].contains(&asked.as_str());
    let is_there = |variable| env::var_os(variable).is_some();
    if is_asked(Manager::Upstart) && is_there("UPSTART_JOB") {
        return Some(Manager::Upstart);
    }
    (is_asked(Manager::Systemd) && is_there("NOTIFY_SOCKET")).then_some(Manager::Systemd)
}

/// Whether this process shall end when another one serves in the background.
pub fn goes_to_background(config: &Config) -> bool {
    config.daemonize.get() && manager(config).is_none() && !is_detached()
}

fn is_detached() -> bool {
    env::var_os(DETACHED).is_some()
}

/// Starts the program once more in the background. Returns what to tell when it serves, or why it does not.
pub fn detach(config: &Config) -> Result<String, String> {
    let cannot = |error: io::Error| format!("cannot go to the background: {error}");
    let (mut ours, theirs) = UnixStream::pair().map_err(cannot)?;
    let mut command = Command::new(env::current_exe().map_err(cannot)?);
    command.args(env::args_os().skip(1)).env(DETACHED, "1").process_group(0);
    command.stdin(OwnedFd::from(theirs)).stdout(Stdio::null()).stderr(Stdio::null());
    let pid = command.spawn().map_err(cannot)?.id();
    // It has the other end of the pair. When we have closed it here, its end is the end of the answer.
    drop(command);
    let mut answer = String::new();
    let sent = ours.write_all(&config.input).and_then(|()| ours.shutdown(Shutdown::Write));
    sent.and_then(|()| ours.read_to_string(&mut answer)).map_err(cannot)?;
    match answer.as_str() {
        SERVES => Ok(format!("simple-redis: process {pid} serves in the background")),
        "" => Err("the process in the background has ended at once".to_string()),
        _ => Err(answer),
    }
}

/// Answers to the process that has started this one in the background, if there is one.
fn answer(text: &str) {
    if is_detached()
        && let Ok(input) = io::stdin().as_fd().try_clone_to_owned()
    {
        let mut first = UnixStream::from(input);
        let _ = first.write_all(text.as_bytes());
        let _ = first.shutdown(Shutdown::Both);
    }
}

/// The process ends, because it cannot start. The error has a line for each reason.
pub fn fail(error: &str) -> ExitCode {
    for line in error.lines() {
        let _ = writeln!(io::stderr(), "simple-redis: {line}");
        // In the background nobody reads the line above.
        if log::has_file() {
            log::warning(format_args!("{line}"));
        }
    }
    remove_files();
    answer(error);
    ExitCode::FAILURE
}

/// Files that say that this process serves.
static FILES: OnceLock<Vec<PathBuf>> = OnceLock::new();

/// The process has its ports: writes the pid file, and says that it serves.
pub fn begin(config: &Config) {
    let dir = config.dir.path();
    let is_background = config.daemonize.get() && manager(config).is_none();
    let mut files = Vec::new();
    let pid_file = match config.pidfile.is_empty() {
        true if is_background => Some("/var/run/redis.pid".into()),
        true => None,
        false => Some(dir.join(config.pidfile.path())),
    };
    if let Some(path) = pid_file {
        match fs::write(&path, format!("{}\n", std::process::id())) {
            Ok(()) => files.push(path),
            Err(error) => log::warning(format_args!("cannot write {}: {error}", path.display())),
        }
    }
    if !config.unixsocket.is_empty() {
        files.push(dir.join(config.unixsocket.path()));
    }
    let _ = FILES.set(files);
    let asked = config.supervised.text();
    match (asked.as_str(), manager(config)) {
        ("no" | "auto", None) => {}
        (_, None) => log::warning(format_args!(
            "supervised {asked}: no service manager is there, because {} is not set",
            if asked == "systemd" { "NOTIFY_SOCKET" } else { "UPSTART_JOB" }
        )),
        (_, Some(_)) => tell_manager(config, "STATUS=Loading\n"),
    }
    answer(SERVES);
}

/// The data is loaded, and clients are served. Port 0: at the Unix socket alone.
pub fn ready(config: &Config, port: u16) {
    if port > 0 {
        log::notice(format_args!("Ready to accept connections on port {port}"));
    }
    if !config.unixsocket.is_empty() {
        let path = config.unixsocket.text();
        log::notice(format_args!("The server is now ready to accept connections at {path}"));
    }
    tell_manager(config, "STATUS=Ready to accept connections\nREADY=1\n");
    if manager(config) == Some(Manager::Upstart) {
        // It waits until the process stops. std cannot do that, but a shell can.
        let stop = format!("kill -STOP {}", std::process::id());
        let _ = Command::new("sh").args(["-c", &stop]).status();
    }
}

/// The process ends in order.
pub fn end(config: &Config) {
    tell_manager(config, "STOPPING=1\n");
    remove_files();
}

fn remove_files() {
    for file in FILES.get().into_iter().flatten() {
        let _ = fs::remove_file(file);
    }
}

/// Sends a message to systemd, if it wants any.
fn tell_manager(config: &Config, message: &str) {
    if manager(config) != Some(Manager::Systemd) {
        return;
    }
    let name = env::var_os("NOTIFY_SOCKET").unwrap_or_default();
    let address = address_of(&name);
    let send = || UnixDatagram::unbound()?.send_to_addr(message.as_bytes(), &address?);
    if let Err(error) = send() {
        log::warning(format_args!("cannot tell systemd at {}: {error}", name.display()));
    }
}

/// The name of a socket is a path, or on Linux `@name`, for which there is no file.
fn address_of(name: &OsStr) -> io::Result<SocketAddr> {
    #[cfg(target_os = "linux")]
    if let Some(name) = name.as_bytes().strip_prefix(b"@") {
        use std::os::linux::net::SocketAddrExt;
        return SocketAddr::from_abstract_name(name);
    }
    SocketAddr::from_pathname(name)
}
