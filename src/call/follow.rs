//! Following: a caller that calls what a primary says, some units at a time.
//!
//! It is the same caller that serves clients, with the same handlers. [`Source::Primary`] says what differs. What
//! has come together is one unit of our log, with the place in the primary's history behind it (store/origin.rs).
//! So a kill leaves all of it or none, and the place is always that of the data. MULTI and EXEC of the primary are
//! left out, because they are inside.

use super::replay::may_stand;
use super::{Arrived, Caller};
use crate::aof::Position;
use crate::client::Client;
use crate::error::Error;
use crate::handler::args::database;
use crate::handler::{Flag, TABLE};
use crate::propagate::Source;
use crate::resp::{Args, Reply};
use crate::server::Server;
use crate::store::{Origin, Store};

/// Whether we can do what the primary says. False: there is nothing to be done. The error says what it is that we
/// cannot do. That may be a script too: Redis before 5 sends its text, and there what it does depends on rules that are
/// not ours (SMEMBERS is sorted inside a script).
pub fn can_follow(args: &Args, databases: usize) -> Result<bool, String> {
    let row = TABLE.look_up_record(args).map(|row| row.command);
    if row.is_some_and(|row| row.is(Flag::MayReplicate) && !row.is_script()) {
        // PUBLISH.
        return Ok(true);
    }
    let runs = may_stand(args)?;
    if row.is_some_and(|row| row.name == "select") && database(&args[1], databases).is_err() {
        let index = args[1].escape_ascii();
        return Err(format!("`--databases {databases}` is too few for SELECT {index}"));
    }
    Ok(runs)
}

/// Runs what a primary says.
pub struct Applier<'a> {
    caller: Caller<'a>,
    pub client: Client,
    reply: Reply,
    arrived: Vec<Arrived>,
    /// For the operator: what has failed.
    pub failures: Vec<String>,
    /// Where our log ends behind the last unit.
    pub position: Position,
}

impl<'a> Applier<'a> {
    /// The stream goes on in this database.
    pub fn new(server: &'a Server, store: &'a Store, client: Client, db: usize) -> Applier<'a> {
        let caller = Caller::new(server, store, Source::Primary);
        let mut applier = Applier {
            caller,
            client,
            reply: Reply::new(),
            arrived: Vec::new(),
            failures: Vec::new(),
            position: 0,
        };
        applier.client.db = db;
        applier
    }

    /// Runs these commands as one unit, and takes their arguments. [`can_follow`] has been asked about each.
    /// `origin`: where the data is behind them; its database is filled in. `may` is asked under the lock. False if the
    /// answer was no, or a script is busy (then nothing has happened, and the caller may come again).
    pub fn apply(
        &mut self,
        commands: &mut [Args],
        mut origin: Origin,
        may: &dyn Fn() -> bool,
    ) -> bool {
        let mut arrived = std::mem::take(&mut self.arrived);
        arrived.resize_with(commands.len().max(arrived.len()), Arrived::default);
        let client = &mut self.client;
        self.caller.begin();
        self.caller.make_room_for_primary();
        if self.caller.batch.exclude().is_err() || !may() {
            self.caller.finish(client, &mut self.reply);
            return false;
        }
        for (arrived, args) in arrived.iter_mut().zip(commands.iter_mut()) {
            std::mem::swap(&mut arrived.args, args);
            arrived.will_call(TABLE.look_up_record(&arrived.args));
        }
        // As in an EXEC nothing waits, and the lock is kept.
        client.in_exec = true;
        self.caller.batch.begin_unit();
        for arrived in &mut arrived[..commands.len()] {
            self.caller.execute(arrived, client, &mut self.reply);
            self.reply.out.truncate(0);
            if let Some((words, error)) = self.caller.failure.take() {
                self.failures.push(describe(&words, &error));
            }
        }
        client.in_exec = false;
        origin.db = client.db;
        self.caller.batch.end_unit_at(origin);
        self.caller.finish(client, &mut self.reply);
        self.position = self.caller.batch.position;
        self.arrived = arrived;
        true
    }

    /// Waits until the log has all that was run. The error is the cause, which the operator has been told.
    pub fn commit(&self) -> Result<(), String> {
        self.caller.batch.server.aof.commit(self.position)
    }
}

fn describe(words: &[Vec<u8>], error: &Error) -> String {
    let mut text = Vec::new();
    error.write_to(&mut text);
    let (command, error) = (words[0].escape_ascii(), String::from_utf8_lossy(&text));
    format!("the primary sends a command that fails here, {command}: {error}")
}
