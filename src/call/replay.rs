//! Replay: a caller that calls what the log says, into a keyspace that nobody else can see.
//!
//! It is the same caller that serves clients, with the same handlers. [`Source::Log`] says what differs. The
//! exclusive lock, once taken, is kept to the end, because nobody else wants it. Some sixty records come
//! at a time (aof/load.rs), so that all their keys can be looked at together.
//!
//! **How Redis does it**: `loadSingleAppendOnlyFile` in aof.c has a loop of its own, which looks a
//! command up and calls its function with a fake client.

use super::{Arrived, Caller};
use crate::aof::load::{Part, Replay};
use crate::client::Client;
use crate::error::Error;
use crate::handler::args::database;
use crate::handler::server::shown;
use crate::handler::{Flag, Row, Run, TABLE};
use crate::log;
use crate::propagate::Source;
use crate::rdb::{self, Found};
use crate::resp::{Args, LONGEST, Reply};
use crate::server::Server;
use crate::snapshot;
use crate::stats::shorten_args;
use crate::store::{Keyspace, Store};
use crate::types::Limits;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;

/// Loads the data of a start, from the log or else from a snapshot: into a keyspace of its own, whose lock the replay
/// keeps to the end. INFO looks at an empty one meanwhile.
///
/// A log that nobody has asked for, because it is on by default, begins with the snapshot of the directory. So a
/// directory of Redis, which has no log by default, keeps its data.
pub fn load(server: &Arc<Server>, store: &Store, has_log: bool) -> Result<(), String> {
    let (config, aof) = (&server.config, &server.aof);
    let snapshot = match has_log && (config.chooses_log || aof.has_data()?) {
        true => None,
        false => snapshot::load(config, &aof.status, &server.snapshots)?,
    };
    let keyspace = match (snapshot, has_log) {
        (None, true) => Some(replay(server, |run| aof.start(run))?),
        (Some(keyspace), true) => {
            aof.begin_with(&keyspace)?;
            Some(keyspace)
        }
        (snapshot, false) => snapshot,
    };
    keyspace.into_iter().for_each(|keyspace| store.write_when_free().take_over(keyspace));
    Ok(())
}

/// Replays into a keyspace of its own, which nobody else can see. `read` is given the function that
/// replays commands, and calls it for a few at a time.
pub fn replay(
    server: &Arc<Server>,
    read: impl FnOnce(&mut Replay) -> Result<(), String>,
) -> Result<Keyspace, String> {
    replay_telling(server, &|text| log::warning(format_args!("{text}")), read)
}

/// The same while the caller holds the keyspace that clients use. Nothing is printed under a lock, so the operator
/// is told of records that fail a moment later.
pub fn replay_under_lock(
    server: &Arc<Server>,
    read: impl FnOnce(&mut Replay) -> Result<(), String>,
) -> Result<Keyspace, String> {
    replay_telling(server, &|text| server.aof.failures.tell_later(text), read)
}

fn replay_telling(
    server: &Arc<Server>,
    tell: &dyn Fn(String),
    read: impl FnOnce(&mut Replay) -> Result<(), String>,
) -> Result<Keyspace, String> {
    let store = Store::new(Keyspace::new(server.config.databases.get()));
    let mut replayer = Replayer {
        caller: Caller::new(server, &store, Source::Log),
        client: Client::fake(server),
        arrived: Vec::new(),
        reply: Reply::new(),
        tell,
    };
    read(&mut |part| replayer.replay(part))?;
    drop(replayer);
    Ok(store.into_inner())
}

/// Whether the log may hold these commands. The error says which of them it may not hold, and why.
pub fn can_replay(part: Part) -> Result<(), (usize, String)> {
    match part {
        Part::Records(records) => {
            let mut each = records.iter().enumerate();
            each.try_for_each(|(index, args)| {
                may_stand(args).map(drop).map_err(|reason| (index, reason))
            })
        }
        Part::Snapshot { from, keys, .. } => {
            *keys = rdb::check(from).map_err(placed)?.keys;
            Ok(())
        }
    }
}

fn placed(rdb::Error { offset, reason, .. }: rdb::Error) -> (usize, String) {
    (offset as usize, reason)
}

/// Whether a command that stands in a log, or in a primary's stream, is to be run. False: it changes no data, so it is passed
/// over. The error says why it may not stand there.
pub(super) fn may_stand(args: &Args) -> Result<bool, String> {
    if is_about_scripts(args) {
        return Ok(false);
    }
    let name = String::from_utf8_lossy(&args[0]);
    let Some(row) = TABLE.look_up_record(args) else {
        return Err(match TABLE.recorded(args) {
            Some(_) => format!("wrong number of arguments for {name}"),
            None => format!("not supported: {name}"),
        });
    };
    // A script and MIGRATE are never logged, but what they have done.
    let is_outcome = !row.command.is_script() && !matches!(row.command.run, Run::Migrate);
    let is_about_data =
        (row.command.uses_data() && is_outcome) || matches!(row.command.run, Run::Exec);
    if !is_about_data && !row.command.is(Flag::InLog) {
        return Err(format!("not supported: {name}"));
    }
    if row.command.name == "select" && database(&args[1], i32::MAX as usize).is_err() {
        let index = String::from_utf8_lossy(&args[1]);
        return Err(format!("not supported: {name} {index}"));
    }
    Ok(true)
}

/// Whether it changes only which scripts and functions a server knows. Redis before 7 logs SCRIPT LOAD. (A library that is
/// loaded is another thing: there are no functions here, and whoever sends one relies on them.)
fn is_about_scripts(args: &Args) -> bool {
    let is =
        |at, word: &[u8]| args.iter().nth(at).is_some_and(|arg| arg.eq_ignore_ascii_case(word));
    is(0, b"script") && (is(1, b"load") || is(1, b"flush")) || is(0, b"function") && is(1, b"flush")
}

/// A command that has failed: its arguments and its error.
pub(super) type Failure = (Vec<Vec<u8>>, Error);

impl Caller<'_> {
    /// Notes what has failed in the record that is replayed, or in a unit of the primary: a database that does not exist, or else the
    /// last failure.
    pub(super) fn note_failure(&mut self, row: &Row, args: &Args, error: Error) {
        if !matches!(self.failure, Some((_, Error::DbIndexOutOfRange))) {
            self.failure = Some((shorten_args(&shown(row, args)), error));
        }
    }
}

struct Replayer<'a> {
    caller: Caller<'a>,
    client: Client,
    arrived: Vec<Arrived>,
    reply: Reply,
    /// Tells the operator of a record that fails.
    tell: &'a dyn Fn(String),
}

impl Replayer<'_> {
    fn replay(&mut self, part: Part) -> Result<(), (usize, String)> {
        match part {
            Part::Records(records) => self.replay_records(records),
            Part::Snapshot { from, progress, keys } => {
                let batch = &mut self.caller.batch;
                batch.give_back();
                let config = &batch.server.config;
                let (databases, limits) = (config.databases.get(), Limits::of(config, Source::Log));
                let status = &batch.server.aof.status;
                let mut progress = |found: &Found| {
                    status.load_memory.store(found.memory, Relaxed);
                    progress(found);
                };
                let read = rdb::read(from, databases, &limits, None, &mut progress);
                let (keyspace, found) = read.map_err(placed)?;
                *keys = found.keys;
                batch.store.write_when_free().take_over(keyspace);
                found.warnings.into_iter().for_each(self.tell);
                Ok(())
            }
        }
    }

    /// Replays these records, and takes their arguments. The error says which of them cannot be
    /// replayed, and why.
    fn replay_records(&mut self, records: &mut [Args]) -> Result<(), (usize, String)> {
        let mut arrived = std::mem::take(&mut self.arrived);
        arrived.resize_with(records.len(), Arrived::default);
        for (arrived, args) in arrived.iter_mut().zip(records) {
            std::mem::swap(&mut arrived.args, args);
            arrived.will_call(TABLE.look_up_record(&arrived.args));
        }
        self.caller.lock_and_warm(&self.client, &arrived);
        let mut each = arrived.iter_mut().enumerate();
        let result = each.try_for_each(|(index, arrived)| {
            let replayed = self.replay_one(arrived);
            replayed.map_err(|reason| (index, reason))
        });
        self.arrived = arrived;
        result
    }

    fn replay_one(&mut self, arrived: &mut Arrived) -> Result<(), String> {
        // These may stand in a log, so the table is not asked a second time.
        let writes = |row: &&Row| matches!(row.command.run, Run::Write(_) | Run::MayStore(..));
        if arrived.row.filter(writes).is_none() && !may_stand(&arrived.args)? {
            return Ok(());
        }
        self.reply.out.truncate(0);
        self.caller.execute(arrived, &mut self.client, &mut self.reply);
        if let Some(origin) = self.client.origin.take() {
            self.caller.batch.set_origin(origin);
        }
        // A client's batch does this when it gives the lock back, and here the lock is kept.
        self.caller.batch.free_garbage();
        let Some((words, error)) = self.caller.failure.take() else {
            return Ok(());
        };
        if error == Error::DbIndexOutOfRange {
            // What follows would go to another database, and stay there.
            let databases = self.caller.batch.server.config.databases.get();
            let command = words.join(&b' ').escape_ascii().to_string();
            return Err(format!("`--databases {databases}` is too few for the {command}"));
        }
        if error == Error::StringTooLong {
            // The value would be missing, and later records may build on it.
            let command = words[0].escape_ascii();
            return Err(format!("a {command} makes a string of more than {LONGEST} bytes"));
        }
        let mut text = Vec::new();
        error.write_to(&mut text);
        // As in Redis.
        let (command, error) = (words[0].escape_ascii(), String::from_utf8_lossy(&text));
        (self.tell)(format!("the log holds a command that fails, {command}: {error}"));
        Ok(())
    }
}
