//! Runs `tests/transcripts/GROUP/NAME.txt`: what a person would type at redis-cli and what it
//! would print.
//!
//! ```text
//! a> SET k "two words"       the client's name, then the command as at redis-cli
//! OK                         what redis-cli prints, up to a blank line or the next prompt
//! b> GET k                   another name is another connection
//! "two words"
//! !aof                       the records that reached the log since the last !aof
//! SELECT 0
//! SET k "two words"
//! ```
//! A line that starts with `#` is a comment. Between the client's name and the `>` may stand
//! - `sorted`: the order of the elements does not count (KEYS, SCAN);
//! - `pairs`: the order of the pairs does not count (HGETALL of a large hash, CONFIG GET);
//! - `wait`: asks again until the reply is the expected one, for what happens in the background;
//! - `wire`: shows the bytes of the reply, for what redis-cli hides (`*-1` or `$-1`);
//! - `send`: sends one quoted string as it is, not a command made of words;
//! - `silent`: reads no reply (CLIENT REPLY OFF);
//! - `ours`: runs only on our server, for a deliberate difference. Rare.
//!
//! Directives:
//! - `!restart` (SHUTDOWN, then a start on the same directory), `!crash` (kill -9 instead);
//! - `!aof` (what reached the log), `!resp3 a` (a says HELLO 3), `!push a` (reads one more message
//!   for a), `!heard a` (reads all messages that a has been sent, and shows channel and text), `!more
//!   a` (reads one more reply, after `send`), `!closed a` (the server has hung up on a), `!drop a` (a
//!   hangs up);
//! - at the top of a file `!flags --requirepass x`, `!since 7.2` (not compared with an older
//!   server) and `!ours` (not compared at all).
//!
//! In the expected lines `<int>`, `<1..100>` and `<any>` stand for a number, a number in a range
//! and any text, `<ms+5000>` for a Unix time in milliseconds that lies 5000 after the moment, of
//! which the file's start is the earliest, `<s+5>` for one in seconds, `<5000ms>` and `<5s>` for
//! what TTL says is left of that; a line `...` stands for any number of lines.
//!
//! Every file has a server of its own. The same files run, and must agree, against a redis-server
//! that is started here (`REDIS_SERVER=redis-server`), or against an empty one that is running
//! (`REDIS=127.0.0.1:6379`), where files that need flags, restarts or the log are passed over.
//! `ONLY=hash/` takes the files whose names contain that; `UPDATE=1` writes what the server says
//! into the files, with holes for times near now and for what a key takes, and leaves alone what agrees.

// A list of what was not run is for the person who asked for the comparison.
#![allow(clippy::print_stderr)]

mod support;

use std::collections::HashMap;
use std::io::{self, Write};
use std::net::SocketAddr;
use std::process::{Command, Stdio};
use std::sync::Mutex;
use std::thread;
use std::time::{Duration, Instant};
use support::patience::Patience;
use support::pattern::{line_matches, lines_match, mask_times, unix_ms, unix_ms_behind_a_tick};
use support::transcript::{self, Action, Step, Transcript, parse_version};
use support::{Client, Directory, Program, Record, Server, Value, bare, quoted};

/// What the transcripts are held against.
#[derive(Clone)]
enum Target {
    Started(Program),
    Running(SocketAddr),
}

#[test]
fn every_transcript_says_what_the_server_answers() {
    let target = target();
    let only = std::env::var("ONLY").unwrap_or_default();
    let mut names = transcript::all();
    names.retain(|name| name.contains(&only));
    assert!(!names.is_empty(), "no transcript has {only:?} in its name");

    let version = match &target {
        Target::Started(Program::Ours) => None,
        _ => Some(version(&target)),
    };
    let queue = Mutex::new(names.into_iter());
    let outcomes = Mutex::new((Vec::new(), Vec::new()));
    // A server that is already running is shared by all files, so they take turns.
    let alone = matches!(target, Target::Running(_));
    let work = || {
        while let Some(name) = next(&queue) {
            let transcript = Transcript::read(&name);
            if let Some(reason) = not_for(&transcript, &target, version.as_deref()) {
                let line = format!("{name}: {reason}");
                outcomes.lock().unwrap().1.push(line);
                continue;
            }
            let faults = Session::start(&transcript, &target).run(&transcript);
            outcomes.lock().unwrap().0.extend(faults);
        }
    };
    thread::scope(|scope| {
        for _ in 0..if alone { 1 } else { 4 } {
            scope.spawn(work);
        }
    });
    let (faults, mut passed_over) = outcomes.into_inner().unwrap();
    passed_over.sort();
    for line in passed_over {
        eprintln!("not run: {line}");
    }
    assert!(faults.is_empty(), "{} differences\n\n{}", faults.len(), faults.join("\n"));
}

/// A function of its own so that the lock is free again while the file runs.
fn next(queue: &Mutex<std::vec::IntoIter<String>>) -> Option<String> {
    queue.lock().unwrap().next()
}

fn target() -> Target {
    if let Ok(path) = std::env::var("REDIS_SERVER") {
        return Target::Started(Program::Redis(path));
    }
    let Ok(address) = std::env::var("REDIS") else {
        return Target::Started(Program::Ours);
    };
    let address = address.parse().expect("REDIS is an address such as 127.0.0.1:6379");
    let mut client = Client::connect(address).expect("the server at REDIS answers");
    let keyspace = client.run("INFO keyspace");
    assert!(!keyspace.contains("keys="), "REDIS={address} holds keys, which FLUSHALL would delete");
    Target::Running(address)
}

/// The version of the server that the transcripts are compared with.
fn version(target: &Target) -> Vec<u32> {
    let info = match target {
        Target::Running(address) => Client::connect(*address).unwrap().run("INFO server"),
        Target::Started(program) => {
            Server::start_in(Directory::new(), program.clone(), &[]).client().run("INFO server")
        }
    };
    let (_, rest) = info.split_once("redis_version:").expect("INFO tells the version");
    parse_version(rest.split('\\').next().unwrap())
}

/// Why this transcript says nothing about that server, if so.
fn not_for(
    transcript: &Transcript,
    target: &Target,
    version: Option<&[u32]>,
) -> Option<&'static str> {
    let version = version?;
    let needs_a_start =
        |step: &Step| matches!(step.action, Action::Restart | Action::Crash | Action::Log);
    if transcript.ours_only {
        Some("it shows a deliberate difference")
    } else if version < &transcript.since[..] {
        Some("the server is older than what it shows")
    } else if matches!(target, Target::Running(_))
        && (!transcript.flags.is_empty() || transcript.steps.iter().any(needs_a_start))
    {
        Some("it needs a server of its own")
    } else {
        None
    }
}

/// Empties a running server, and waits a moment for it to notice that the last file's clients are
/// gone. Others may be connected, so that what CLIENT LIST shows is not certain there.
fn make_fresh(address: SocketAddr) {
    let mut client = Client::connect(address).expect("the server at REDIS answers");
    client.run("FLUSHALL");
    let deadline = Instant::now() + Duration::from_secs(1);
    while Instant::now() < deadline && !client.run("INFO clients").contains("clients:1\\r") {
        thread::sleep(Duration::from_millis(5));
    }
    client.run("QUIT");
    client.is_closed();
}

struct Peer {
    client: Client,
    /// Whether it said HELLO 3: then a push is told from a reply by its type.
    resp3: bool,
}

/// A hole for what a key takes, which differs from one machine to the next.
fn around(size: &str) -> String {
    let size: usize = size.parse().unwrap_or_default();
    format!("(integer) <{}..{}>", size / 2, size * 2)
}

/// One run of one transcript.
struct Session {
    server: Option<Server>,
    address: SocketAddr,
    is_ours: bool,
    peers: HashMap<String, Peer>,
    /// How many records of the log have been shown.
    shown: usize,
    /// Before anything was sent, in Unix milliseconds.
    began: i64,
}

impl Session {
    fn start(transcript: &Transcript, target: &Target) -> Session {
        let flags: Vec<&str> = transcript.flags.iter().map(String::as_str).collect();
        let server = match target {
            Target::Started(program) => {
                Some(Server::start_in(Directory::new(), program.clone(), &flags))
            }
            Target::Running(address) => {
                make_fresh(*address);
                None
            }
        };
        let address = match (&server, target) {
            (Some(server), _) => server.address(),
            (None, Target::Running(address)) => *address,
            _ => unreachable!("a target is started or running"),
        };
        Session {
            server,
            address,
            is_ours: matches!(target, Target::Started(Program::Ours)),
            peers: HashMap::new(),
            shown: 0,
            began: unix_ms_behind_a_tick(),
        }
    }

    /// Runs all steps and returns what differed, or writes it into the file if so asked.
    fn run(mut self, transcript: &Transcript) -> Vec<String> {
        let update = std::env::var("UPDATE").is_ok();
        let mut faults = Vec::new();
        let mut replacements = HashMap::new();
        for step in &transcript.steps {
            let expected = &transcript.lines[step.expected.clone()];
            let place = transcript.place(step.line);
            let prompt = &transcript.lines[step.line];
            let actual = match self.perform(&step.action, expected) {
                Ok(actual) => actual,
                Err(error) => {
                    // After a lost connection or a missing reply nothing that follows means much.
                    faults.push(format!("{place}: {prompt}\n  {error}\n"));
                    break;
                }
            };
            if lines_match(expected, &actual, self.began) {
                continue;
            }
            if update {
                let unit = unit_of(&step.action);
                let (is_time, is_size) =
                    (prompt.ends_with("> TIME"), prompt.contains("> MEMORY USAGE "));
                let mask = |line: &String| match line.split_once(' ') {
                    Some(("2)", _)) if is_time => "2) \"<0..999999>\"".into(),
                    Some(("(integer)", size)) if is_size => around(size),
                    _ => mask_times(line, self.began, unit),
                };
                replacements.insert(step.line, actual.iter().map(mask).collect());
            } else {
                faults.push(describe(&place, prompt, expected, &actual));
            }
        }
        if !replacements.is_empty() {
            transcript.rewrite(replacements);
        }
        faults
    }

    /// What one step prints, line by line.
    fn perform(&mut self, action: &Action, expected: &[String]) -> io::Result<Vec<String>> {
        match action {
            Action::Command { client, modes, words } => {
                let has = |name: &str| modes.iter().any(|mode| mode == name);
                if has("ours") && !self.is_ours {
                    return Ok(expected.to_vec());
                }
                if !has("wait") {
                    return self.command(client, words, &has);
                }
                let mut patience = Patience::new(self.server.as_ref().map(Server::pid));
                loop {
                    let actual = self.command(client, words, &has)?;
                    if lines_match(expected, &actual, self.began) || patience.is_over() {
                        return Ok(actual);
                    }
                    thread::sleep(Duration::from_millis(5));
                }
            }
            Action::Resp3(name) => {
                let hello = [b"HELLO".to_vec(), b"3".to_vec()].to_vec();
                let lines = self.command(name, &hello, &|_| false)?;
                Ok(if self.peer(name)?.resp3 { vec![] } else { lines })
            }
            Action::More(name) => Ok(print(&self.peer(name)?.client.try_read()?)),
            Action::Push(name) => {
                let peer = self.peer(name)?;
                let message = peer.client.try_read()?;
                let mut lines = print(&message);
                // MONITOR's lines are simple strings in either protocol.
                match message {
                    Value::Simple(_) => {}
                    Value::Push(_) if peer.resp3 => {}
                    Value::Array(_) if !peer.resp3 => {}
                    _ => lines.insert(0, "a reply, not a pushed message:".into()),
                }
                Ok(lines)
            }
            Action::Heard(name) => {
                let client = &mut self.peer(name)?.client;
                client.send(&["PING"]);
                let mut lines = Vec::new();
                loop {
                    let message = client.try_read()?;
                    let items = message.items();
                    match items.as_slice() {
                        [kind, .., channel, text] if kind.text().ends_with(b"message") => {
                            lines.push(format!("{} {}", bare(channel.text()), bare(text.text())));
                        }
                        _ => return Ok(lines),
                    }
                }
            }
            Action::Closed(name) => {
                let mut peer = self.peers.remove(name).expect("a client that was connected");
                let lines: &[&str] =
                    if peer.client.is_closed() { &[] } else { &["it is not closed"] };
                Ok(lines.iter().map(|line| line.to_string()).collect())
            }
            Action::Drop(name) => {
                self.peers.remove(name);
                Ok(vec![])
            }
            Action::Restart => self.start_over(Server::restart),
            Action::Crash => self.start_over(Server::crash),
            Action::Log => {
                self.server().settle();
                let mut records = self.server().log();
                let fresh = records.split_off(self.shown.min(records.len()));
                self.shown += fresh.len();
                let line = |record: &Record| {
                    record.iter().map(|word| bare(word)).collect::<Vec<_>>().join(" ")
                };
                Ok(fresh.iter().map(line).collect())
            }
        }
    }

    fn server(&mut self) -> &mut Server {
        self.server.as_mut().expect("only files that need no start run elsewhere")
    }

    fn start_over(&mut self, how: fn(&mut Server)) -> io::Result<Vec<String>> {
        self.peers.clear();
        how(self.server());
        self.address = self.server().address();
        Ok(vec![])
    }

    /// The client of that name, connected at its first use.
    fn peer(&mut self, name: &str) -> io::Result<&mut Peer> {
        if !self.peers.contains_key(name) {
            let server = self.server.as_ref().map(Server::pid);
            let client = Client::connect_to(self.address, server)?;
            self.peers.insert(name.to_string(), Peer { client, resp3: false });
        }
        Ok(self.peers.get_mut(name).unwrap())
    }

    /// Sends one command and reads what answers it.
    fn command(
        &mut self,
        name: &str,
        words: &Record,
        has: &impl Fn(&str) -> bool,
    ) -> io::Result<Vec<String>> {
        let peer = self.peer(name)?;
        if has("send") {
            peer.client.raw(&words.concat());
        } else {
            peer.client.send(words);
        }
        if has("silent") {
            return Ok(vec![]);
        }
        let verb = words.first().map_or(vec![], |word| word.to_ascii_uppercase());
        // SUBSCRIBE and its kin answer once for each channel, in RESP3 by pushes. For any other
        // command a push is a message that was on its way before, and the reply follows it.
        let subscribes = verb.ends_with(b"SUBSCRIBE");
        let mut left = if subscribes { words.len().max(2) - 1 } else { 1 };
        let mut lines = Vec::new();
        while left > 0 {
            let value = peer.client.try_read()?;
            match (&value, subscribes) {
                (Value::Push(_), _) if !peer.resp3 => lines.push("a push in RESP2:".into()),
                (Value::Array(_), true) if peer.resp3 => lines.push("not a push:".into()),
                _ => {}
            }
            match (&value, subscribes) {
                (Value::Push(_), false) => {}
                (Value::Push(_) | Value::Array(_), true) => left -= 1,
                _ => left = 0,
            }
            match (&verb[..], &value) {
                (b"HELLO", Value::Map(_)) => peer.resp3 = true,
                (b"HELLO", Value::Array(_)) | (b"RESET", _) => peer.resp3 = false,
                _ => {}
            }
            if has("wire") {
                lines.push(quoted(peer.client.wire()));
            } else {
                lines.extend(print(&match (has("sorted"), has("pairs")) {
                    (true, _) => value.sorted(),
                    (_, true) => value.pairs(),
                    _ => value,
                }));
            }
        }
        Ok(lines)
    }
}

/// How many milliseconds one has of what the command says is left, if it says that.
fn unit_of(action: &Action) -> Option<i64> {
    let Action::Command { words, .. } = action else {
        return None;
    };
    match words.first()?.to_ascii_uppercase().as_slice() {
        b"TTL" => Some(1000),
        b"PTTL" => Some(1),
        _ => None,
    }
}

fn print(value: &Value) -> Vec<String> {
    value.to_string().split('\n').map(str::to_string).collect()
}

fn describe(place: &str, prompt: &str, expected: &[String], actual: &[String]) -> String {
    let indented =
        |lines: &[String]| -> String { lines.iter().map(|line| format!("    {line}\n")).collect() };
    let (expected, actual) = (indented(expected), indented(actual));
    format!("{place}: {prompt}\n  expected:\n{expected}  actual:\n{actual}")
}

#[test]
fn placeholders_match_what_they_say_and_nothing_else() {
    let began = unix_ms();
    let yes = |pattern: &str, text: &str| assert!(line_matches(pattern, text, began), "{pattern}");
    let no = |pattern: &str, text: &str| assert!(!line_matches(pattern, text, began), "{pattern}");
    yes("(integer) <int>", "(integer) -5");
    no("(integer) <int>", "(integer) x");
    yes("(integer) <9..10>", "(integer) 10");
    no("(integer) <9..10>", "(integer) 11");
    yes("a<any>c<any>", "abbcd");
    no("a<any>c", "abbcd");
    yes("SET k v PXAT <ms+0>", &format!("SET k v PXAT {}", unix_ms()));
    no("SET k v PXAT <ms+5000>", &format!("SET k v PXAT {began}"));
    yes("1 < 2 <x>", "1 < 2 <x>");
    yes("(integer) <100s>", "(integer) 100");
    no("(integer) <100s>", "(integer) 101");
    no("(integer) <100000ms>", "(integer) 40000");
    let half_a_minute_ago = began - 30_000;
    assert!(line_matches("<100s>", "70", half_a_minute_ago));
    assert!(!line_matches("<100s>", "60", half_a_minute_ago));
}

/// Some of these are 40 ms after the start of the file, as on a real machine.
#[test]
fn what_update_writes_for_times_matches_them_tomorrow_too() {
    let began = unix_ms() - 40;
    let (ms, s) = (began + 13, (began + 13) / 1000);
    for (line, unit, expected) in [
        ("(integer) 100".into(), Some(1000), "(integer) <100s>"),
        ("(integer) 99987".into(), Some(1), "(integer) <100000ms>"),
        ("(integer) -1".into(), Some(1), "(integer) -1"),
        ("(integer) 100".into(), None, "(integer) 100"),
        (format!("SET k v PXAT {}", ms + 20_000), None, "SET k v PXAT <ms+20000>"),
        (format!("(integer) {}", ms + 100_000), None, "(integer) <ms+100000>"),
        (format!("(integer) {}", s + 100), None, "(integer) <s+100>"),
        (format!("1) \"{s}\""), None, "1) \"<s+0>\""),
        (format!("x{ms} 1.{ms}"), None, &format!("x{ms} 1.{ms}")),
        ("SET k 4100000000000".into(), None, "SET k 4100000000000"),
    ] {
        let masked = mask_times(&line, began, unit);
        assert_eq!(masked, expected);
        assert!(line_matches(&masked, &line, began), "{masked}");
    }
}

/// What redis-cli is asked for, to see how it prints each kind of value.
const ASKED_OF_REDIS_CLI: &str = r#"
GET k
GET empty
GET nothing
STRLEN k
SUBSTR k 0 2
EXISTS k empty
HGETALL h
HGETALL nothing
HRANDFIELD h 5 WITHVALUES
KEYS none
SCAN 0
MGET k n nothing empty
PING
SET k
TIME now
HELLO 9 9
COMMAND INFO get set nothing
COMMAND DOCS get
CONFIG GET *max*
EVAL 'return {1,{2,{"x",{}},"y"},false}' 0
EVAL 'local t={} for i=1,11 do t[i]={i,{i}} end return t' 0
DEBUG PROTOCOL string
DEBUG PROTOCOL integer
DEBUG PROTOCOL double
DEBUG PROTOCOL null
DEBUG PROTOCOL array
DEBUG PROTOCOL set
DEBUG PROTOCOL map
DEBUG PROTOCOL verbatim
DEBUG PROTOCOL true
DEBUG PROTOCOL false
"#;

/// Only where a redis-server is at hand anyway: redis-cli is the judge of how a reply looks.
#[test]
fn values_are_printed_as_redis_cli_prints_them() {
    let Target::Started(Program::Redis(path)) = target() else {
        return;
    };
    let flags = ["--enable-debug-command", "local"];
    let server = Server::start_in(Directory::new(), Program::Redis(path), &flags);
    server.client().run(r#"SET k "a\"\\\n\r\t\a\b\x00\xff""#);
    server.client().run("SET empty ''");
    server.client().run("HSET h f v g w");
    for protocol in ["-2", "-3"] {
        let mut client = server.client();
        client.call(&["HELLO", &protocol[1..]]);
        for line in ASKED_OF_REDIS_CLI.trim().lines() {
            let theirs = ask_redis_cli(server.port, protocol, line);
            assert_eq!(client.run(line), theirs, "{protocol} {line}");
        }
    }
}

fn ask_redis_cli(port: u16, protocol: &str, line: &str) -> String {
    let mut process = Command::new("redis-cli")
        .args(["-p", &port.to_string(), "--no-raw", protocol])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .expect("redis-cli can be run");
    let mut input = process.stdin.take().unwrap();
    writeln!(input, "{line}").unwrap();
    drop(input);
    let output = process.wait_with_output().unwrap().stdout;
    let text = String::from_utf8_lossy(&output);
    text.trim_end_matches('\n').to_string()
}
