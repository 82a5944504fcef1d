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
//! here sleeps for luck: every wait has a condition and a bound, `LIMIT`.

// Each test file compiles this module for itself and uses only a part of it.
#![allow(dead_code, unused_imports)]

mod client;
pub mod pattern;
pub mod process;
mod quote;
pub mod random;
pub mod transcript;
mod value;

pub use client::{Client, encode};
pub use quote::{bare, quoted, split};
pub use value::Value;

use std::fs;
use std::io::{self, BufRead, BufReader, ErrorKind, Read};
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Condvar, Mutex};
use std::thread;
use std::time::{Duration, Instant};

/// How long any single wait may take before the test fails. Generous, because a busy machine is
/// not a bug, and only ever used up by a failing test.
pub const LIMIT: Duration = Duration::from_secs(10);

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

/// A running server. Dropping it kills the process and removes its directory.
pub struct Server {
    /// Another one after each restart: the system picks it.
    pub port: u16,
    /// What the next start starts.
    pub program: Program,
    flags: Vec<String>,
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
        let flags: Vec<String> = flags.iter().map(|flag| flag.to_string()).collect();
        let (process, output, port) = spawn(&program, &directory, &flags)
            .unwrap_or_else(|lines| panic!("{program:?} {flags:?} did not start:\n{lines}"));
        Server {
            port,
            program,
            flags,
            process,
            output,
            directory,
        }
    }

    pub fn client(&self) -> Client {
        Client::connect(self.address()).expect("the server accepts a connection")
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
        let deadline = Instant::now() + LIMIT;
        while !client
            .run("INFO persistence")
            .contains("aof_buffer_length:0\\r")
        {
            assert!(Instant::now() < deadline, "the log is not written");
            thread::sleep(Duration::from_millis(20));
        }
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
        let deadline = Instant::now() + LIMIT;
        loop {
            if let Some(status) = self
                .process
                .try_wait()
                .expect("the process can be waited for")
            {
                return status;
            }
            assert!(
                Instant::now() < deadline,
                "still running:\n{}",
                self.output.text()
            );
            thread::sleep(Duration::from_millis(2));
        }
    }

    /// Starts the dead server again on the same directory, with the same flags.
    pub fn start_again(&mut self) {
        let started = spawn(&self.program, &self.directory, &self.flags);
        let (process, output, port) =
            started.unwrap_or_else(|lines| panic!("did not start again:\n{lines}"));
        (self.process, self.output, self.port) = (process, output, port);
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
            .wait_for(text)
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
    }
}

/// Runs our server with these flags, expecting it to refuse: its exit status and what it printed.
pub fn refused(directory: &Directory, flags: &[&str]) -> (ExitStatus, String) {
    let mut command = Command::new(ours());
    run_to_end(
        command
            .args(flags)
            .args(["--port", "0"])
            .current_dir(&directory.0),
    )
}

/// Runs a command that ends by itself, bounded: its exit status and what it printed.
pub fn run_to_end(command: &mut Command) -> (ExitStatus, String) {
    let mut process = launch(command);
    let output = Output::drain(&mut process);
    let lines = match output.wait_for("\0") {
        Ok(_) => unreachable!("no line contains a zero byte"),
        Err(lines) => lines,
    };
    // If it is still running after the wait, it has started: kill it, so that the status shows.
    let _ = process.kill();
    (
        process.wait().expect("the process can be waited for"),
        lines,
    )
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

pub fn ours() -> &'static str {
    env!("CARGO_BIN_EXE_simple-redis")
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
                shell.args(["-c", &script, ours()]);
                shell
            }
            Program::Redis(path) => Command::new(path),
        };
        command
            .args(["--port", &port.to_string(), "--dir"])
            .arg(&directory.0);
        if let Program::Redis(_) = program {
            command.args(["--bind", "127.0.0.1", "--save", "", "--appendonly", "yes"]);
            command.args(["--aof-use-rdb-preamble", "no"]);
        }
        let mut process = launch(command.args(flags).current_dir(&directory.0));
        let output = Output::drain(&mut process);
        match output.wait_for("eady to accept connections") {
            Ok(line) if port == 0 => return Ok((process, output, announced_port(&line))),
            Ok(_) => return Ok((process, output, port)),
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
    let end = digits
        .find(|c: char| !c.is_ascii_digit())
        .unwrap_or(digits.len());
    digits[..end]
        .parse()
        .unwrap_or_else(|_| panic!("no port in the line {line:?}"))
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
        let state = Mutex::new(Printed {
            lines: Vec::new(),
            open: 2,
        });
        let output = Arc::new(Output {
            state,
            changed: Condvar::new(),
        });
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
    fn wait_for(&self, text: &str) -> Result<String, String> {
        let absent = |printed: &mut Printed| {
            printed.open > 0 && !printed.lines.iter().any(|line| line.contains(text))
        };
        let state = self.state.lock().unwrap();
        let (state, _) = self
            .changed
            .wait_timeout_while(state, LIMIT, absent)
            .unwrap();
        let found = state.lines.iter().find(|line| line.contains(text));
        found.cloned().ok_or_else(|| state.lines.join("\n"))
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
        if let Value::Bulk(text) = word {
            Ok(text)
        } else {
            Err(torn())
        }
    };
    words
        .into_iter()
        .map(text)
        .collect::<io::Result<Record>>()
        .map(Some)
}
