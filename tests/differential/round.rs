//! One round: fresh servers, the steps one after the other, then everything compared.
//!
//! ```text
//!   steps ──▶ ours ───▶ replies ─┐                 ┌─ dump ─┐
//!        └──▶ Redis ──▶ replies ─┴─ equal? … then: ├─ log ──┴─ equal?
//!                                                  └─ dump after kill -9 and restart: equal?
//!                                                     and after a rewrite, kill -9, restart?
//! ```
//!
//! A pipeline goes out to both servers before the first reply is read, so they work at the same
//! time, and 100,000 commands are a few thousand round trips. Which of two connections' commands
//! comes first would be chance, so a pipeline's replies are read before the other connection's
//! turn.

use std::io;
use std::thread;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use crate::command::Command;
use crate::compare;
use crate::generate::{SOON, Step, Unit, WAITERS};
use crate::log;
use crate::server;
use crate::state;
use crate::support::patience::eventually;
use crate::support::random::Random;
use crate::support::state::{Entry, dump};
use crate::support::{Client, Program, Server, Value, read_log};

/// What all rounds have in common and what makes this one different.
#[derive(Clone)]
pub struct Setting {
    pub ours: Program,
    /// Flags that only our server gets: a difference that is planted.
    pub planted: Vec<String>,
    /// Without it there is nothing to compare with, only promises to check.
    pub reference: Option<Program>,
    /// "2" or "3".
    pub protocol: &'static str,
    pub flags: Vec<String>,
}

/// How a round failed: at which step, or None after the last, and what happened.
pub struct Failure {
    pub step: Option<usize>,
    pub what: String,
}

pub enum End {
    Agreed,
    /// The machine stood still for so long that a near deadline passed before it was set.
    TooSlow,
}

const NAMES: [&str; 2] = ["our server", "the reference"];

/// Connections 0 and 1 are ordinary ones.
const ASIDE: usize = 2;
const OBSERVER: usize = 3;
/// It has subscribed to all that happens to keys.
const LISTENER: usize = 4;
/// And as many as [`WAITERS`] from here on.
const FIRST_WAITER: usize = 5;

/// How far ahead a near deadline is, and what must be left of it when it has been set.
const NEAR: Duration = Duration::from_millis(200);
const MARGIN: Duration = Duration::from_millis(5);

/// How often the end of a rewrite is looked for, 5 ms apart.
const LOOKS: usize = 6_000;

struct Session {
    server: Server,
    connections: Vec<Client>,
    /// What CLIENT UNBLOCK calls each of them.
    ids: Vec<String>,
}

impl Session {
    fn start(program: &Program, planted: &[String], setting: &Setting) -> io::Result<Session> {
        let flags = [&setting.flags, planted].concat();
        let mut session =
            Session { server: server::start(program, &flags)?, connections: vec![], ids: vec![] };
        session.connect()?;
        let (ordinary, others) = session.connections.split_at_mut(ASIDE);
        for connection in ordinary.iter_mut().chain(&mut others[FIRST_WAITER - ASIDE..]) {
            connection.try_call(&["HELLO", setting.protocol])?;
        }
        session.connections[LISTENER].try_call(&["PSUBSCRIBE", "__key*__:*"])?;
        Ok(session)
    }

    fn connect(&mut self) -> io::Result<()> {
        let open = |_| self.server.try_client();
        self.connections = (0..FIRST_WAITER + WAITERS).map(open).collect::<io::Result<_>>()?;
        let id = |client: &mut Client| match client.try_call(&["CLIENT", "ID"])? {
            Value::Integer(id) => Ok(id.to_string()),
            other => Err(io::Error::other(format!("{other} is no id"))),
        };
        self.ids = self.connections.iter_mut().map(id).collect::<io::Result<_>>()?;
        Ok(())
    }

    fn count_blocked(&mut self) -> usize {
        let info = self.connections[OBSERVER].run("INFO clients");
        let (_, rest) = info.split_once("blocked_clients:").expect("INFO has the field");
        let (number, _) = rest.split_once('\\').expect("a line end");
        number.parse().expect("a number")
    }

    /// What has happened to keys since it was asked last.
    fn hear(&mut self) -> io::Result<Vec<Value>> {
        let listener = &mut self.connections[LISTENER];
        listener.try_raw(&Command::new(&["PING"]).encode())?;
        let mut messages = Vec::new();
        loop {
            let message = listener.try_read()?;
            if message.items().first().is_none_or(|kind| kind.text() != b"pmessage") {
                return Ok(messages);
            }
            messages.push(message);
        }
    }

    /// Whether our server counts the memory of what it holds right. Redis does not know the question.
    fn recount(&mut self) -> io::Result<()> {
        let answer = self.connections[OBSERVER].try_call(&["DEBUG", "RECOUNT"])?;
        let is_wrong = answer.text().starts_with(b"ERR counted anew");
        if is_wrong { Err(io::Error::other(answer.to_string())) } else { Ok(()) }
    }

    fn dump(&mut self) -> io::Result<Vec<Entry>> {
        self.recount()?;
        dump(&mut self.connections[OBSERVER], state::DATABASES)
    }
}

/// The sessions, ours first, and what the commands so far have led to.
struct Round {
    sessions: Vec<Session>,
    /// What each ordinary connection has queued since MULTI.
    queues: [Vec<Command>; 2],
    sentinels: usize,
}

pub fn run(setting: &Setting, steps: &[Step]) -> Result<End, Failure> {
    let failed = |step, what| Failure { step, what };
    let mut sessions = Vec::new();
    let ours = Some((&setting.ours, &setting.planted[..]));
    let reference = setting.reference.as_ref().map(|program| (program, &[][..]));
    for (program, planted) in [ours, reference].into_iter().flatten() {
        let session = Session::start(program, planted, setting);
        sessions.push(session.map_err(|error| failed(None, format!("{program}: {error}")))?);
    }
    let mut round = Round { sessions, queues: [vec![], vec![]], sentinels: 0 };
    for (index, step) in steps.iter().enumerate() {
        let end = match round.step(step) {
            Ok(End::Agreed) => round.listen(step).map(|()| End::Agreed),
            other => other,
        };
        match end {
            Ok(End::Agreed) => {}
            Ok(End::TooSlow) => return Ok(End::TooSlow),
            Err(what) => return Err(failed(Some(index), round.with_last_words(what))),
        }
    }
    match round.finish(setting) {
        Ok(()) => Ok(End::Agreed),
        Err(what) => Err(failed(None, round.with_last_words(what))),
    }
}

impl Round {
    fn step(&mut self, step: &Step) -> Result<End, String> {
        match step {
            Step::Send { connection, units, cuts } => self.send(*connection, units, *cuts)?,
            Step::Aside { units, reset } => self.aside(units, *reset)?,
            Step::Hostile { bytes } => self.attack(bytes)?,
            Step::Wait { waiters, units } => self.wait(waiters, units)?,
            Step::Look => drop(self.look()?),
            Step::Iterate { db, command } => {
                let replies = self.each(|session| {
                    let observer = &mut session.connections[OBSERVER];
                    observer.try_call(&["SELECT", &db.to_string()])?;
                    state::iterate(observer, command)
                })?;
                equal(&format!("db {db}, {command}, followed to its end"), &replies)?;
            }
            Step::Deadline { connection, units } => {
                let soon = now() + NEAR;
                let mut units = units.clone();
                for arg in units.iter_mut().flatten().flat_map(|command| &mut command.args) {
                    if arg == SOON {
                        *arg = soon.as_millis().to_string().into_bytes();
                    }
                }
                self.send(*connection, &units, 0)?;
                if now() + MARGIN > soon {
                    return Ok(End::TooSlow);
                }
                thread::sleep((soon + MARGIN).saturating_sub(now()));
            }
        }
        Ok(End::Agreed)
    }

    /// The messages about keys are the same, in the same order.
    fn listen(&mut self, step: &Step) -> Result<(), String> {
        match &mut self.each(Session::hear)?[..] {
            [ours, theirs] if ours != theirs => {
                // In which order a SCAN meets expired keys is each server's own.
                if step.scans() {
                    compare::settle_expired(ours);
                    compare::settle_expired(theirs);
                }
                let at =
                    (0..ours.len().max(theirs.len())).find(|&at| ours.get(at) != theirs.get(at));
                let list = |messages: &[Value], at: usize| {
                    let shown = messages.iter().skip(at.saturating_sub(2)).take(6);
                    let shown: Vec<String> = shown.map(compare::event).collect();
                    shown.join(", ")
                };
                at.map_or(Ok(()), |at| {
                    let (ours, theirs) = (list(ours, at), list(theirs, at));
                    Err(format!("message {at} about keys:\n  ours:  {ours}\n  Redis: {theirs}"))
                })
            }
            _ => Ok(()),
        }
    }

    /// What each server holds, once that has been compared.
    fn look(&mut self) -> Result<Vec<Vec<Entry>>, String> {
        let dumps = self.each(Session::dump)?;
        if let [ours, theirs] = &dumps[..]
            && let Some(what) = state::difference(ours, theirs, state::same)
        {
            return Err(format!("the states differ (one: ours, other: theirs)\n{what}"));
        }
        Ok(dumps)
    }

    /// A pipeline of which every command has one reply.
    fn send(&mut self, connection: usize, units: &[Unit], cuts: u64) -> Result<(), String> {
        let bytes: Vec<u8> = units.iter().flatten().flat_map(Command::encode).collect();
        let packets = cut(&bytes, cuts);
        self.each(|session| {
            packets.iter().try_for_each(|packet| session.connections[connection].try_raw(packet))
        })?;
        for command in units.iter().flatten().filter(|command| !command.args.is_empty()) {
            let replies = self
                .each(|session| session.connections[connection].try_read())
                .map_err(|what| format!("{command}\n{what}"))?;
            self.judge(connection, command, &replies)?;
        }
        Ok(())
    }

    /// Compares the replies to one command, and keeps account of the transaction it is part of.
    fn judge(
        &mut self,
        connection: usize,
        command: &Command,
        replies: &[Value],
    ) -> Result<(), String> {
        let queue = match command.name().as_str() {
            "EXEC" if !replies[0].is_error() => std::mem::take(&mut self.queues[connection]),
            _ => Vec::new(),
        };
        if let [ours, theirs] = replies
            && !compare::same(command, &queue, ours, theirs)
        {
            return Err(parted(&command.to_string(), ours, theirs));
        }
        match (command.name().as_str(), &replies[0]) {
            ("MULTI" | "DISCARD" | "RESET" | "EXEC", reply) if !reply.is_error() => {
                self.queues[connection].clear();
            }
            (_, Value::Simple(text)) if text == b"QUEUED" => {
                self.queues[connection].push(command.clone());
            }
            _ => {}
        }
        Ok(())
    }

    /// Each of the clients sends its command and waits, if it has no reply; then comes what may serve them. Who
    /// still waits in the end is unblocked.
    fn wait(&mut self, waiters: &[Command], units: &[Unit]) -> Result<(), String> {
        self.each(|session| {
            for (at, command) in waiters.iter().enumerate() {
                // It may serve one that waits already.
                let before = session.count_blocked();
                session.connections[FIRST_WAITER + at].try_raw(&command.encode())?;
                eventually("it waits, or has its reply", || {
                    session.connections[FIRST_WAITER + at].has_arrived()
                        || session.count_blocked() > before
                });
            }
            Ok(())
        })?;
        self.send(0, units, 0)?;
        for (at, command) in waiters.iter().enumerate() {
            let reason = if at % 2 == 0 { "TIMEOUT" } else { "ERROR" };
            let replies = self.each(|session| {
                let id = session.ids[FIRST_WAITER + at].clone();
                session.connections[OBSERVER].try_call(&["CLIENT", "UNBLOCK", &id, reason])?;
                session.connections[FIRST_WAITER + at].try_read()
            })?;
            equal(&format!("{command}, which waited"), &replies)?;
        }
        Ok(())
    }

    /// A pipeline whose replies nobody has counted: a sentinel at its end says where they end.
    fn aside(&mut self, units: &[Unit], reset: bool) -> Result<(), String> {
        self.sentinels += 1;
        let sentinel = format!("sentinel-{}", self.sentinels);
        let mut bytes: Vec<u8> = units.iter().flatten().flat_map(Command::encode).collect();
        if reset {
            bytes.extend(Command::new(&["RESET"]).encode());
        }
        // A client of RESP2 that has subscribed may PING but not ECHO; the answer is an array.
        bytes.extend(Command::new(&["PING", &sentinel]).encode());
        let mut replies = self.each(|session| {
            let connection = &mut session.connections[ASIDE];
            connection.try_raw(&bytes)?;
            let mut replies = Vec::new();
            loop {
                let reply = connection.try_read()?;
                let items = reply.items();
                let last = *items.last().unwrap_or(&&reply);
                let is_last = last.text() == sentinel.as_bytes();
                replies.push(compare::without_id(&reply));
                if is_last {
                    compare::settle(&mut replies);
                    return Ok(replies);
                }
            }
        })?;
        if let [ours, theirs] = &mut replies[..]
            && ours != theirs
        {
            let longer = ours.len().max(theirs.len());
            let at = (0..longer).find(|&at| ours.get(at) != theirs.get(at)).unwrap_or(0);
            let what = format!("reply {at} of: {}", list(units));
            let nothing = Value::Error(b"(nothing)".into());
            let [ours, theirs] = [ours, theirs].map(|all| all.get(at).unwrap_or(&nothing).clone());
            return Err(parted(&what, &ours, &theirs));
        }
        Ok(())
    }

    /// Sends bytes, hangs up, and reads until the server does. What it answers before that must
    /// be the same.
    fn attack(&mut self, bytes: &[u8]) -> Result<(), String> {
        let what = format!("the bytes \"{}\"", bytes.escape_ascii());
        let replies = self
            .each(|session| {
                let mut connection = session.server.try_client()?;
                connection.try_raw(bytes)?;
                connection.read_to_end().map(Value::Array)
            })
            .map_err(|error| format!("{what}\n{error}"))?;
        equal(&what, &replies)
    }

    /// After the last step: what the servers hold, what they logged, and what is left of it when
    /// they are killed.
    fn finish(&mut self, setting: &Setting) -> Result<(), String> {
        for db in 0..state::DATABASES {
            // First of all: DBSIZE counts the expired keys that nobody has met yet.
            let sizes = self.each(|session| {
                let observer = &mut session.connections[OBSERVER];
                observer.try_call(&["SELECT", &db.to_string()])?;
                observer.try_call(&["DBSIZE"])
            })?;
            equal(&format!("DBSIZE of database {db}"), &sizes)?;
        }
        let dumps = self.look()?;
        self.each(|session| {
            let entries = session.dump()?;
            state::check_chance(&mut session.connections[OBSERVER], &entries)
        })?;
        self.compare_logs()?;
        // Our log brings our state back, Redis can read it, and we can read Redis's.
        self.replay(0, &setting.ours, &dumps[0], state::survives_as)?;
        if let Some(reference) = &setting.reference {
            self.replay(0, reference, &dumps[0], state::survives_as)?;
            self.replay(1, &setting.ours, &dumps[1], state::survives_as)?;
            self.replay(0, &setting.ours, &dumps[0], state::survives_as)?;
        }
        // And so does the base that a rewrite makes of it.
        self.rewrite()?;
        self.replay(0, &setting.ours, &dumps[0], state::is_rewritten_as)?;
        if let Some(reference) = &setting.reference {
            self.replay(0, reference, &dumps[0], state::is_rewritten_as)?;
        }
        Ok(())
    }

    /// Lets our server write its log anew, and waits for the end of that.
    fn rewrite(&mut self) -> Result<(), String> {
        let session = &mut self.sessions[0];
        let observer = &mut session.connections[OBSERVER];
        let answer = observer.try_call(&["BGREWRITEAOF"]).map_err(|error| error.to_string())?;
        if answer.is_error() {
            return Err(format!("BGREWRITEAOF answers {answer}"));
        }
        let mut info = String::new();
        for _ in 0..LOOKS {
            let answer = observer.try_call(&["INFO", "persistence"]);
            let answer = answer.map_err(|error| error.to_string())?;
            info = String::from_utf8_lossy(answer.text()).into_owned();
            let says = |field: &str| info.lines().any(|line| line == field);
            let has_begun = !says("aof_rewrites:0") && says("aof_rewrite_scheduled:0");
            if has_begun && says("aof_rewrite_in_progress:0") {
                let is_good = says("aof_last_bgrewrite_status:ok");
                return if is_good { Ok(()) } else { Err(format!("the rewrite failed:\n{info}")) };
            }
            thread::sleep(Duration::from_millis(5));
        }
        Err(format!("the rewrite does not end:\n{info}"))
    }

    fn compare_logs(&mut self) -> Result<(), String> {
        let logs = self.each(|session| read_log(session.server.dir()))?;
        match &logs[..] {
            [ours, theirs] => log::difference(ours, theirs).map_or(Ok(()), Err),
            logs => log::what_redis_lacks(&logs[0]).map_or(Ok(()), Err),
        }
    }

    /// Starts a program on the log of a session that is killed, and compares what it holds then.
    fn replay(
        &mut self,
        index: usize,
        program: &Program,
        before: &[Entry],
        same: fn(&Entry, &Entry) -> bool,
    ) -> Result<(), String> {
        let session = &mut self.sessions[index];
        let after = server::restart_as(&mut session.server, program).and_then(|()| {
            session.connect()?;
            session.dump()
        });
        let who = format!("{}, restarted as {program}", NAMES[index]);
        let after = after.map_err(|error| format!("{who}: {error}"))?;
        state::difference(before, &after, same)
            .map_or(Ok(()), |what| Err(format!("{who}: the log replays to another state\n{what}")))
    }

    /// If our server is dead, what it printed says why.
    fn with_last_words(&self, what: String) -> String {
        let printed = self.sessions[0].server.lines();
        match printed.iter().rev().find(|line| line.contains("panicked")) {
            Some(line) => format!("{what}\n{line}"),
            None => what,
        }
    }

    /// Does the same with each session; the error says whose it is.
    fn each<T>(
        &mut self,
        mut action: impl FnMut(&mut Session) -> io::Result<T>,
    ) -> Result<Vec<T>, String> {
        let each = self.sessions.iter_mut().zip(NAMES);
        each.map(|(session, name)| action(session).map_err(|error| format!("{name}: {error}")))
            .collect()
    }
}

fn equal(what: &str, replies: &[Value]) -> Result<(), String> {
    match replies {
        [ours, theirs] if ours != theirs => Err(parted(what, ours, theirs)),
        _ => Ok(()),
    }
}

fn parted(what: &str, ours: &Value, theirs: &Value) -> String {
    format!("{what}\n  ours:  {ours:?}\n  Redis: {theirs:?}")
}

pub fn list(units: &[Unit]) -> String {
    let commands: Vec<String> = units.iter().flatten().map(Command::to_string).collect();
    commands.join("; ")
}

/// Cuts a pipeline into packets, at places where nobody would cut.
fn cut(bytes: &[u8], seed: u64) -> Vec<&[u8]> {
    let mut random = Random::new(seed);
    let mut packets = vec![bytes];
    // Most pipelines stay whole: that is how clients send them.
    while random.percent(35) {
        let last = packets.pop().unwrap_or_default();
        let (head, tail) = last.split_at(random.below(last.len() + 1));
        packets.extend([head, tail]);
    }
    packets
}

/// Unix time.
fn now() -> Duration {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default()
}
