//! The two servers: started in a directory of their own, killed and swept away when dropped.
//!
//! `kill` is `kill -9`, always: what a server has acknowledged has to be in its log by then, and
//! a polite end would hide that it is not.

use std::env;
use std::fs::{self, File};
use std::io;
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use crate::wire::Connection;

/// Both log everything in a form the other can read, and write it before they reply: with
/// `everysec` Redis may hold a write back while an fsync runs, and the logs would be compared
/// too early.
const FLAGS: [&str; 10] = [
    "--appendonly",
    "yes",
    "--appendfsync",
    "no",
    "--aof-use-rdb-preamble",
    "no",
    "--save",
    "",
    "--enable-debug-command",
    "yes",
];

/// How to get a server: start it, or (an address) find it running.
#[derive(Clone)]
pub enum Program {
    Ours(String),
    Redis(String),
    Running(String),
}

impl Program {
    /// The server under test: ours, unless `OURS` names another program or an address.
    pub fn ours() -> Program {
        match env::var("OURS") {
            Ok(address) if address.contains(':') => Program::Running(address),
            Ok(path) => Program::Redis(path),
            Err(_) => Program::Ours(env!("CARGO_BIN_EXE_simple-redis").to_string()),
        }
    }

    /// The server that is always right, if there is one.
    pub fn reference() -> Option<Program> {
        env::var("REDIS_SERVER")
            .ok()
            .filter(|path| !path.is_empty())
            .map(Program::Redis)
    }
}

impl std::fmt::Display for Program {
    fn fmt(&self, f: &mut std::fmt::Formatter) -> std::fmt::Result {
        let (Program::Ours(name) | Program::Redis(name) | Program::Running(name)) = self;
        write!(f, "{}", name.rsplit('/').next().unwrap_or(name))
    }
}

/// A directory that goes when its owner does.
pub struct Directory(pub PathBuf);

impl Directory {
    fn new() -> io::Result<Directory> {
        static COUNT: AtomicUsize = AtomicUsize::new(0);
        let name = format!(
            "fuzz-{}-{}",
            std::process::id(),
            COUNT.fetch_add(1, Ordering::Relaxed)
        );
        let path = Path::new(env!("CARGO_TARGET_TMPDIR")).join(name);
        fs::create_dir_all(&path)?;
        Ok(Directory(path))
    }
}

impl Drop for Directory {
    fn drop(&mut self) {
        // A directory that stays behind is untidy, not a failure.
        let _ = fs::remove_dir_all(&self.0);
    }
}

pub struct Server {
    program: Program,
    flags: Vec<String>,
    /// None for a server that was found running; it cannot be restarted nor its log read.
    child: Option<Child>,
    pub directory: Option<Directory>,
    pub address: String,
}

impl Server {
    pub fn start(program: &Program, flags: &[String]) -> io::Result<Server> {
        if let Program::Running(address) = program {
            let mut connection = Connection::open(address)?;
            stop_the_sweep(&mut connection)?;
            connection.ask(&[b"FLUSHALL"])?;
            for option in flags.chunks(2) {
                let name = option[0].trim_start_matches('-');
                connection.ask(&[b"CONFIG", b"SET", name.as_bytes(), option[1].as_bytes()])?;
            }
            let (program, address) = (program.clone(), address.clone());
            return Ok(Server {
                program,
                flags: vec![],
                child: None,
                directory: None,
                address,
            });
        }
        let mut server = Server {
            program: program.clone(),
            flags: flags.to_vec(),
            child: None,
            directory: Some(Directory::new()?),
            address: String::new(),
        };
        server.spawn()?;
        Ok(server)
    }

    pub fn restartable(&self) -> bool {
        self.child.is_some()
    }

    fn kill(&mut self) {
        if let Some(mut child) = self.child.take() {
            // It may be dead already; what counts is that it is afterwards.
            let _ = child.kill();
            let _ = child.wait();
        }
    }

    /// Kills the server and starts the program on the log that it left.
    pub fn restart_as(&mut self, program: &Program) -> io::Result<()> {
        self.kill();
        self.program = program.clone();
        self.spawn()
    }

    /// What the server printed, for the report of a failure.
    pub fn printed(&self) -> String {
        self.output()
            .and_then(|path| fs::read_to_string(path).ok())
            .unwrap_or_default()
    }

    fn output(&self) -> Option<PathBuf> {
        self.directory
            .as_ref()
            .map(|directory| directory.0.join("output"))
    }

    /// Redis cannot choose a port itself, and the one that was chosen for it may be gone by the
    /// time it binds: then another is tried.
    fn spawn(&mut self) -> io::Result<()> {
        let mut tries = 0;
        loop {
            match self.spawn_once() {
                Err(_) if tries < 3 => tries += 1,
                result => return result,
            }
            self.kill();
        }
    }

    fn spawn_once(&mut self) -> io::Result<()> {
        let (path, port) = match &self.program {
            Program::Ours(path) => (path, 0),
            Program::Redis(path) => (path, TcpListener::bind("127.0.0.1:0")?.local_addr()?.port()),
            Program::Running(_) => return Err(io::Error::other("not ours to restart")),
        };
        let (Some(directory), Some(output)) = (&self.directory, self.output()) else {
            return Err(io::Error::other("a server without a directory"));
        };
        let output = File::create(output)?;
        let child = Command::new(path)
            .args(["--port", &port.to_string(), "--dir"])
            .arg(&directory.0)
            .args(FLAGS)
            .args(&self.flags)
            .stdin(Stdio::null())
            .stdout(output.try_clone()?)
            .stderr(output)
            .spawn()
            .map_err(|error| io::Error::other(format!("{path}: {error}")))?;
        self.child = Some(child);
        let port = self.await_ready(port)?;
        self.address = format!("127.0.0.1:{port}");
        stop_the_sweep(&mut Connection::open(&self.address)?)
    }

    /// Waits for the line that both servers print, and returns the port if the line names one.
    fn await_ready(&mut self, port: u16) -> io::Result<u16> {
        let patience = Instant::now() + Duration::from_secs(20);
        loop {
            let printed = self.printed();
            // A line that is still being written may lack half its port.
            let whole = printed.rsplit_once('\n').map_or("", |(lines, _)| lines);
            if let Some(line) = whole
                .lines()
                .find(|line| line.contains("eady to accept conn"))
            {
                let named = line.rsplit_once("on port ").map(|(_, rest)| {
                    rest.trim_end_matches(|c: char| !c.is_ascii_digit())
                        .parse()
                        .unwrap_or(port)
                });
                return Ok(named.unwrap_or(port));
            }
            let gone = self
                .child
                .as_mut()
                .is_none_or(|c| !matches!(c.try_wait(), Ok(None)));
            if gone || Instant::now() > patience {
                return Err(io::Error::other(format!(
                    "the server did not start: {printed}"
                )));
            }
            thread::sleep(Duration::from_millis(2));
        }
    }
}

/// From now on keys expire when they are looked at and at no other time, so in both servers at
/// the same command.
fn stop_the_sweep(connection: &mut Connection) -> io::Result<()> {
    match connection.ask(&[b"DEBUG", b"SET-ACTIVE-EXPIRE", b"0"])? {
        answer if answer.is_error() => Err(io::Error::other(format!(
            "DEBUG SET-ACTIVE-EXPIRE 0: {answer}"
        ))),
        _ => Ok(()),
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.kill();
    }
}
