//! What every integration test stands on: a server process of its own in a directory of its own,
//! clients that never wait for ever, and redis-cli's look for what comes back.
//!
//! ```text
//! let mut server = Server::start(&["--appendfsync", "always"]);
//! server.client().run("SET k v");
//! server.crash();                                 kill -9, then started on the same directory
//! assert_eq!(server.client().run("GET k"), r#""v""#);
//! ```
//! The binary that ships is what runs, on a port that the system picks. A real redis-server can
//! take its place (`Program::Redis`), which is how the transcripts are known to be true. Nothing
//! here sleeps for luck: every wait has a condition, and a bound that no slow machine breaks
//! (`patience.rs`). `SIMPLE_REDIS=path` names another binary than the one that Cargo has built.

// Each test file compiles this module for itself and uses only a part of it.
#![allow(dead_code, unused_imports)]
// What a server has said belongs into the report of a test that fails.
#![allow(clippy::print_stderr)]

mod client;
pub mod commands;
pub mod patience;
pub mod pattern;
pub mod process;
pub mod project;
mod quote;
pub mod random;
pub mod state;
pub mod transcript;
mod value;

pub use client::{Client, encode};
pub use patience::{Stop, eventually, with_more_and_more};
pub use quote::{bare, quoted, split};
pub use value::{Value, number};

use patience::Patience;
use std::env;
use std::fmt;
use std::fs;
use std::io::{self, BufRead, BufReader, ErrorKind, Read};
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Condvar, Mutex, OnceLock};
use std::thread;
use std::time::Duration;

/// One command of the log: its words.
pub type Record = Vec<Vec<u8>>;

#[derive(Clone, Debug)]
pub enum Program {
    Ours,
    /// Ours, started by a shell behind these commands: `ulimit -n 40`, `export NAME=value`.
    Under(String),
    /// A redis-server executable, told to keep the kind of log that we keep.
    Redis(String),
}

impl fmt::Display for Program {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        match self {
            Program::Ours | Program::Under(_) => f.write_str("simple-redis"),
            Program::Redis(path) => f.write_str(path.rsplit('/').next().unwrap_or(path)),
        }
    }
}

/// A running server. Dropping it kills the process and removes its directory.
pub struct Server {
    /// Another one after each restart: the system picks it.
    pub port: u16,
    /// What the next start starts.
    pub program: Program,
    /// These too.
    pub flags: Vec<String>,
    process: Child,
    output: Arc<Output>,
    directory: Directory,
}

impl Server {
    /// Starts our server in an empty directory and waits until it accepts connections.
    pub fn start(flags: &[&str]) -> Server {
        Server::start_in(Directory::new(), Program::Ours, flags)
    }

    /// Starts either server in a directory that a test has prepared.
    pub fn start_in(directory: Directory, program: Program, flags: &[&str]) -> Server {
        Server::try_start_in(directory, program.clone(), flags)
            .unwrap_or_else(|lines| panic!("{program:?} {flags:?} did not start:\n{lines}"))
    }

    /// The same, for a test that reports the failure itself.
    ///
    /// # Errors
    /// What the program has printed.
    pub fn try_start_in(
        directory: Directory,
        program: Program,
        flags: &[&str],
    ) -> Result<Server, String> {
        let flags: Vec<String> = flags.iter().map(|flag| flag.to_string()).collect();
        let (process, output, port) = spawn(&program, &directory, &flags)?;
        Ok(Server { port, program, flags, process, output, directory })
    }

    pub fn client(&self) -> Client {
        self.try_client().expect("the server accepts a connection")
    }

    pub fn try_client(&self) -> io::Result<Client> {
        Client::connect_to(self.address(), Some(self.pid()))
    }

    pub fn address(&self) -> SocketAddr {
        (Ipv4Addr::LOCALHOST, self.port).into()
    }

    pub fn dir(&self) -> &Path {
        &self.directory.0
    }

    /// The process, for a test that asks the system about it.
    pub fn pid(&self) -> u32 {
        self.process.id()
    }

    /// Waits until redis-server has written its log to the file. It holds it back for up to two
    /// seconds while an fsync is running, replies or not; ours never does, which is a promise and
    /// so must not be waited for.
    pub fn settle(&self) {
        if let Program::Ours | Program::Under(_) = self.program {
            return;
        }
        let mut client = self.client();
        self.log_in(&mut client);
        eventually("the log is written", || {
            let info = client.run("INFO persistence");
            info.contains("aof_buffer_length:0\\r")
        });
    }

    fn log_in(&self, client: &mut Client) {
        if let Some(at) = self.flags.iter().position(|flag| flag == "--requirepass") {
            client.call(&["AUTH", &self.flags[at + 1]]);
        }
    }

    /// Kills the process at once, as a crash would (SIGKILL), and leaves the directory.
    pub fn kill(&mut self) {
        // An error means that it is dead already, which is what was asked for.
        let _ = self.process.kill();
        self.process.wait().expect("the process can be waited for");
        patience::has_ended(self.pid());
    }

    /// Asks for SHUTDOWN and waits for the process to end.
    pub fn shut_down(&mut self) -> ExitStatus {
        let mut client = self.client();
        self.log_in(&mut client);
        client.send(&["SHUTDOWN"]);
        self.wait_for_end()
    }

    /// Waits, bounded, for the process to end by itself.
    pub fn wait_for_end(&mut self) -> ExitStatus {
        let mut ended = None;
        eventually("the server ends", || {
            ended = self.process.try_wait().expect("it can be waited for");
            ended.is_some()
        });
        patience::has_ended(self.pid());
        ended.expect("an end")
    }

    /// Starts the dead server again on the same directory, with the same flags.
    pub fn start_again(&mut self) {
        self.try_start_again().unwrap_or_else(|lines| panic!("did not start again:\n{lines}"));
    }

    /// The same, for a test that reports the failure itself.
    ///
    /// # Errors
    /// What the program has printed.
    pub fn try_start_again(&mut self) -> Result<(), String> {
        let started = spawn(&self.program, &self.directory, &self.flags)?;
        (self.process, self.output, self.port) = started;
        Ok(())
    }

    /// A clean stop and a new start.
    pub fn restart(&mut self) {
        self.shut_down();
        self.start_again();
    }

    /// A crash and a new start.
    pub fn crash(&mut self) {
        self.settle();
        self.kill();
        self.start_again();
    }

    /// Everything that the process has printed since it was last started, line by line.
    pub fn lines(&self) -> Vec<String> {
        self.output.state.lock().unwrap().lines.clone()
    }

    /// Waits, bounded, for a printed line that contains `text`, and returns it.
    pub fn wait_for_line(&self, text: &str) -> String {
        self.output
            .wait_for(text, self.pid())
            .unwrap_or_else(|lines| panic!("no {text:?} in:\n{lines}"))
    }

    /// The log as it stands on disk, over all files of the manifest.
    pub fn log(&self) -> Vec<Record> {
        read_log(self.dir()).expect("a readable log")
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.kill();
        if thread::panicking() {
            eprintln!("the server at port {} has said:\n{}", self.port, self.output.text());
        }
    }
}

/// Runs our server with these flags, expecting it to refuse: its exit status and what it printed.
pub fn refused(directory: &Directory, flags: &[&str]) -> (ExitStatus, String) {
    let mut command = Command::new(ours());
    command.args(flags).current_dir(&directory.0);
    // Should it start after all, then beside whoever has the usual port.
    if !flags.contains(&"--port") {
        command.args(["--port", "0"]);
    }
    run_to_end(&mut command)
}

/// Runs a command that ends by itself, bounded: its exit status and what it printed.
pub fn run_to_end(command: &mut Command) -> (ExitStatus, String) {
    let mut process = launch(command);
    let output = Output::drain(&mut process);
    let lines = match output.wait_for("\0", process.id()) {
        Ok(_) => unreachable!("no line contains a zero byte"),
        Err(lines) => lines,
    };
    // If it is still running after the wait, it has started: kill it, so that the status shows.
    let _ = process.kill();
    (process.wait().expect("the process can be waited for"), lines)
}

/// A fresh directory, removed when dropped.
pub struct Directory(pub PathBuf);

impl Directory {
    pub fn new() -> Directory {
        static COUNTER: AtomicU32 = AtomicU32::new(0);
        loop {
            let number = COUNTER.fetch_add(1, Ordering::Relaxed);
            let name = format!("simple-redis-test-{}-{number}", std::process::id());
            let path = std::env::temp_dir().join(name);
            match fs::create_dir(&path) {
                // A test that was killed has left it, and its process id has come round again.
                Err(error) if error.kind() == ErrorKind::AlreadyExists => {}
                made => {
                    made.expect("a temporary directory can be made");
                    return Directory(path);
                }
            }
        }
    }
}

impl Drop for Directory {
    fn drop(&mut self) {
        // A directory that cannot be removed is litter, not a failed test.
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// The binary under test: Cargo has built it beside these tests, unless `SIMPLE_REDIS` names another
/// one (an absolute path). For the clients' tests, a package of their own, it is built here; that
/// is quick when there is nothing to do.
pub fn ours() -> &'static Path {
    static OURS: OnceLock<PathBuf> = OnceLock::new();
    OURS.get_or_init(|| {
        if let Some(path) = env::var_os("SIMPLE_REDIS") {
            return path.into();
        }
        if let Some(path) = option_env!("CARGO_BIN_EXE_simple-redis") {
            return path.into();
        }
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
        let target = root.join("target");
        let mut build = Command::new(env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
        build.args(["build", "--quiet", "--manifest-path"]);
        build.arg(root.join("Cargo.toml"));
        build.arg("--target-dir").arg(&target);
        let status = build.status().expect("cargo runs");
        assert!(status.success(), "the server does not build");
        target.join("debug/simple-redis")
    })
}

/// Starts the program and waits for its start-up line; on failure, returns what it printed.
fn spawn(
    program: &Program,
    directory: &Directory,
    flags: &[String],
) -> Result<(Child, Arc<Output>, u16), String> {
    // redis-server cannot pick a port itself, and one that is free now may be taken a moment
    // later: then another is tried.
    for _ in 0..5 {
        let port = match program {
            Program::Ours | Program::Under(_) => 0,
            Program::Redis(_) => free_port(),
        };
        let mut command = match program {
            Program::Ours => Command::new(ours()),
            Program::Under(commands) => {
                let mut shell = Command::new("sh");
                let script = format!("{commands}\nexec \"$0\" \"$@\"");
                shell.args(["-c", &script]).arg(ours());
                shell
            }
            Program::Redis(path) => Command::new(path),
        };
        command.args(["--port", &port.to_string(), "--dir"]).arg(&directory.0);
        if let Program::Redis(_) = program {
            command.args(["--bind", "127.0.0.1", "--save", "", "--appendonly", "yes"]);
            command.args(["--aof-use-rdb-preamble", "no"]);
        }
        let mut process = launch(command.args(flags).current_dir(&directory.0));
        let output = Output::drain(&mut process);
        match output.wait_for("eady to accept connections", process.id()) {
            Ok(line) => {
                patience::has_started(process.id());
                let port = if port == 0 { announced_port(&line) } else { port };
                return Ok((process, output, port));
            }
            Err(lines) => {
                let _ = process.kill();
                let _ = process.wait();
                if !(port > 0 && lines.contains("Address already in use")) {
                    return Err(lines);
                }
            }
        }
    }
    Err("no free port in five tries".into())
}

fn launch(command: &mut Command) -> Child {
    command
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap_or_else(|error| panic!("cannot run {:?}: {error}", command.get_program()))
}

fn free_port() -> u16 {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a free port");
    listener.local_addr().expect("an address").port()
}

fn announced_port(line: &str) -> u16 {
    let digits = line.rsplit("port ").next().unwrap_or_default();
    let end = digits.find(|c: char| !c.is_ascii_digit()).unwrap_or(digits.len());
    digits[..end].parse().unwrap_or_else(|_| panic!("no port in the line {line:?}"))
}

/// What a process prints, read by two threads so that a full pipe never stops it.
struct Output {
    state: Mutex<Printed>,
    changed: Condvar,
}

struct Printed {
    lines: Vec<String>,
    /// How many of its two pipes are still open: none means that the process has ended.
    open: usize,
}

impl Output {
    fn drain(process: &mut Child) -> Arc<Output> {
        let state = Mutex::new(Printed { lines: Vec::new(), open: 2 });
        let output = Arc::new(Output { state, changed: Condvar::new() });
        let stdout = process.stdout.take().expect("a pipe");
        let stderr = process.stderr.take().expect("a pipe");
        let (first, second) = (Arc::clone(&output), Arc::clone(&output));
        thread::spawn(move || first.collect(stdout));
        thread::spawn(move || second.collect(stderr));
        output
    }

    fn collect(&self, pipe: impl Read) {
        for line in BufReader::new(pipe).split(b'\n').map_while(Result::ok) {
            let line = String::from_utf8_lossy(&line).into_owned();
            self.state.lock().unwrap().lines.push(line);
            self.changed.notify_all();
        }
        self.state.lock().unwrap().open -= 1;
        self.changed.notify_all();
    }

    /// The first line with `text` in it, or all lines if it never comes.
    fn wait_for(&self, text: &str, pid: u32) -> Result<String, String> {
        let mut patience = Patience::new(Some(pid));
        let mut state = self.state.lock().unwrap();
        loop {
            // First, because a process that has ended says nothing later.
            let is_last = state.open == 0 || patience.is_over();
            if let Some(line) = state.lines.iter().find(|line| line.contains(text)) {
                return Ok(line.clone());
            }
            if is_last {
                return Err(state.lines.join("\n"));
            }
            let now_and_then = Duration::from_millis(500);
            (state, _) = self.changed.wait_timeout(state, now_and_then).unwrap();
        }
    }

    fn text(&self) -> String {
        self.state.lock().unwrap().lines.join("\n")
    }
}

/// Reads the log of either server: the files that the manifest names, in its order. No manifest
/// means no log yet.
pub fn read_log(dir: &Path) -> io::Result<Vec<Record>> {
    let mut records = Vec::new();
    for path in log_files(dir)? {
        let mut file = BufReader::new(fs::File::open(path)?);
        while let Some(record) = read_record(&mut file)? {
            records.push(record);
        }
    }
    Ok(records)
}

/// The live files of the log, base first; history files are waiting for removal and do not count.
pub fn log_files(dir: &Path) -> io::Result<Vec<PathBuf>> {
    let folder = dir.join("appendonlydir");
    let manifest = match fs::read_to_string(folder.join("appendonly.aof.manifest")) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        read => read?,
    };
    let live = |line: &str| {
        let words: Vec<&str> = line.split_whitespace().collect();
        match words[..] {
            ["file", name, "seq", _, "type", "b" | "i"] => Some(folder.join(name)),
            _ => None,
        }
    };
    Ok(manifest.lines().filter_map(live).collect())
}

/// One record, or `None` at the end. A record is a command as clients send it; `#` lines are
/// annotations: our checksums, and redis-server's timestamps.
fn read_record(file: &mut impl BufRead) -> io::Result<Option<Record>> {
    while file.fill_buf()?.first() == Some(&b'#') {
        file.skip_until(b'\n')?;
    }
    if file.fill_buf()?.is_empty() {
        return Ok(None);
    }
    let torn = || io::Error::new(io::ErrorKind::InvalidData, "the log holds something else");
    let Value::Array(words) = Value::read(file, &mut Vec::new())? else {
        return Err(torn());
    };
    let text = |word| {
        if let Value::Bulk(text) = word { Ok(text) } else { Err(torn()) }
    };
    words.into_iter().map(text).collect::<io::Result<Record>>().map(Some)
}
