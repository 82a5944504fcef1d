//! A server for one test.
//!
//! The tests beside this file talk to a running server through the `redis` crate, as an
//! application would. `Server::start` gives each of them one:
//!
//! ```text
//! REDIS=127.0.0.1:6379    a server that already runs: each test empties a database and uses it
//! SIMPLE_REDIS=path       this binary (an absolute path), started for each test on a free port,
//!                         in a directory of its own
//! neither                 the same, with the binary that `cargo build` makes of the root package
//! ```
//!
//! The first form is there because the tests must pass against redis-server too: a test that only
//! our own server passes proves nothing about clients.
//!
//! The helper knows no client library, only lines of text on a socket. The `redis` crate stays a
//! dependency of the tests alone.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::time::Duration;
use std::{env, fs, process, thread};

/// How long a server may take to start. Generous, since a test run keeps every core busy.
const START: Duration = Duration::from_secs(20);

/// Numbers the servers of this process, and with them their directories and databases.
static SERVERS: AtomicUsize = AtomicUsize::new(0);

/// A server that a test may use as its own until it drops this.
pub struct Server {
    /// `host:port`.
    address: String,
    /// 0 on a server of our own; otherwise a database that no other test of this process uses
    /// at the same time.
    database: usize,
    /// Without a password, the empty string.
    password: String,
    /// None when `REDIS` named a server, which is not ours to stop.
    process: Option<Process>,
}

struct Process {
    child: Child,
    directory: PathBuf,
    /// What the server prints. Two threads read its pipes to the end, or a talkative server would
    /// block on a full one.
    log: Receiver<String>,
}

impl Server {
    /// A server with an empty database and default settings.
    pub fn start() -> Server {
        Server::with_password("")
    }

    /// A server that asks for `password`. One that already runs is told by CONFIG SET and told
    /// back on drop; meanwhile it refuses the clients of other tests, so such a test must be the
    /// only one in its file (Cargo runs the files one after the other).
    pub fn with_password(password: &str) -> Server {
        let number = SERVERS.fetch_add(1, Ordering::Relaxed);
        if let Ok(address) = env::var("REDIS") {
            let database = 1 + number % 15;
            tell(&address, &format!("SELECT {database}\r\nFLUSHDB\r\n"));
            if !password.is_empty() {
                tell(&address, &format!("CONFIG SET requirepass {password}\r\n"));
            }
            let password = password.to_string();
            return Server {
                address,
                database,
                password,
                process: None,
            };
        }
        let (process, port) = Process::start(number, password);
        Server {
            address: format!("127.0.0.1:{port}"),
            database: 0,
            password: password.to_string(),
            process: Some(process),
        }
    }

    /// `host:port`, without database or password.
    pub fn address(&self) -> &str {
        &self.address
    }

    /// The address as the `redis` crate takes it. Without further words it speaks RESP2.
    pub fn url(&self) -> String {
        format!("redis://{}/{}", self.address, self.database)
    }

    /// The same, for a connection that opens with `HELLO 3`.
    pub fn url_resp3(&self) -> String {
        self.url() + "?protocol=resp3"
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        if self.process.is_none() && !self.password.is_empty() {
            let password = &self.password;
            tell(
                &self.address,
                &format!("AUTH {password}\r\nCONFIG SET requirepass \"\"\r\n"),
            );
        }
    }
}

impl Process {
    /// Starts the binary on a port that the kernel chooses, and reads the port from its log.
    fn start(number: usize, password: &str) -> (Process, u16) {
        let directory = env::temp_dir().join(format!("simple-redis-{}-{number}", process::id()));
        fs::create_dir_all(&directory).expect("a temporary directory");
        let mut command = Command::new(binary());
        command.args(["--port", "0", "--dir"]).arg(&directory);
        if !password.is_empty() {
            command.args(["--requirepass", password]);
        }
        command
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        let mut child = command
            .spawn()
            .unwrap_or_else(|e| panic!("{}: {e}", binary().display()));
        let (lines, log) = channel();
        read_lines(child.stdout.take().unwrap(), lines.clone());
        read_lines(child.stderr.take().unwrap(), lines);

        // Built before the wait, so that a server that never gets ready is killed all the same.
        let process = Process {
            child,
            directory,
            log,
        };
        let mut seen = String::new();
        loop {
            let Ok(line) = process.log.recv_timeout(START) else {
                panic!("the server ended, or is not ready after {START:?}; it said:\n{seen}");
            };
            if let Some((_, port)) = line.split_once("Ready to accept connections on port ") {
                let digits = port
                    .chars()
                    .take_while(char::is_ascii_digit)
                    .collect::<String>();
                return (process, digits.parse().expect("a port number"));
            }
            seen += &(line + "\n");
        }
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        let _ = fs::remove_dir_all(&self.directory);
        if thread::panicking() {
            for line in &self.log {
                eprintln!("server: {line}");
            }
        }
    }
}

fn read_lines(pipe: impl Read + Send + 'static, lines: Sender<String>) {
    thread::spawn(move || {
        for line in BufReader::new(pipe).lines().map_while(Result::ok) {
            if lines.send(line).is_err() {
                break;
            }
        }
    });
}

/// Sends inline commands, each of which must be answered by `+OK`.
fn tell(address: &str, commands: &str) {
    let mut stream = TcpStream::connect(address).unwrap_or_else(|e| panic!("{address}: {e}"));
    stream
        .write_all(commands.as_bytes())
        .expect("a command sent");
    let mut replies = BufReader::new(stream).lines();
    for command in commands.lines() {
        let reply = replies.next().expect("a reply").expect("a reply");
        assert_eq!(reply, "+OK", "{command}");
    }
}

/// The server's binary. Building it is quick when there is nothing to do, and makes `cargo test`
/// in this directory test the code as it stands, not a binary from last week.
fn binary() -> &'static Path {
    static BINARY: OnceLock<PathBuf> = OnceLock::new();
    BINARY.get_or_init(|| {
        if let Some(path) = env::var_os("SIMPLE_REDIS") {
            return path.into();
        }
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
        let target = root.join("target");
        let cargo = env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
        let mut build = Command::new(cargo);
        build
            .args(["build", "--quiet", "--manifest-path"])
            .arg(root.join("Cargo.toml"));
        build.arg("--target-dir").arg(&target);
        assert!(
            build.status().expect("cargo runs").success(),
            "the server does not build"
        );
        target.join("debug/simple-redis")
    })
}
