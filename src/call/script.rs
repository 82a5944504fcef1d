//! What EVAL does: it runs a script, and the script calls commands, as EXEC calls its queue.
//!
//! ```text
//! EVAL "return redis.call('INCR', KEYS[1])" 1 k
//!   │  the exclusive lock is taken; EVAL_RO and EVALSHA_RO take the shared one
//!   │  the script is known, or is compiled (server/scripts.rs)
//!   │  a machine gets KEYS and ARGV, and runs (src/script.rs)
//!   │     redis.call ─▶ Host::call ─▶ admit ─▶ Caller::call, which calls INCR as it does for a client
//!   │                                          its reply ─▶ a value of Lua (script/lib/reply.rs)
//!   └─ the value that the script returns ─▶ the reply (script/answer.rs)
//! ```
//!
//! A command in a script goes through the same row, the same view, the same log and the same statistics as one of a
//! client. So all that holds in an EXEC holds in a script: nobody comes between, nothing waits, the time stands
//! still, what is changed is one unit of the log, and those who wait for a key are served afterwards. A script that
//! fails after it has written has written.
//!
//! **It must not run for ever.** The machine asks now and then whether it may go on ([`Host::interrupt`]). After
//! `busy-reply-threshold` the batch lends its lock (batch/lending.rs): others are told BUSY, and may say SCRIPT KILL
//! unless the script has written. Then the lock is taken for each single command of the script.
//!
//! **How Redis does it**: eval.c, script.c and script_lua.c: `evalGenericCommand`, `luaCallFunction`,
//! `scriptCall`.

mod answer;

use super::Caller;
use super::admit::Refusal;
use crate::client::Client;
use crate::error::Error;
use crate::handler::script::{Form, key_count};
use crate::handler::server::show_monitors;
use crate::handler::{Flag, REDIS_VERSION, Row, Run, TABLE};
use crate::log;
use crate::resp::{Args, Protocol, Reply};
use crate::script::lib::{Answer, Host, redis};
use crate::script::machine::Machine;
use crate::script::number;
use crate::script::value::{self, Value};
use crate::server::scripts::{Inside, Known, Turn, memory_limit};
use crate::sha1::hexadecimal;
use std::borrow::Cow;
use std::time::{Duration, Instant};

const KILLED: &str = "Script killed by user with SCRIPT KILL...";

/// A script, as it was asked for.
struct Asked<'c> {
    form: Form,
    args: &'c Args,
    /// How many of the arguments are keys.
    keys: usize,
    known: Option<Known>,
}

impl<'a> Caller<'a> {
    /// Runs a script, and writes what it returns.
    pub(super) fn run_script(
        &mut self,
        row: &'static Row,
        form: Form,
        client: &mut Client,
        args: &Args,
        reply: &mut Reply,
    ) -> Result<(), Refusal> {
        let server = self.batch.server;
        if server.hub.has_monitors() {
            // In front of its commands.
            self.batch.clock.go_on();
            show_monitors(client, row, args, self.batch.clock.now, reply);
        }
        if form.by_digest && args[1].len() != 40 {
            return Err(Error::NoScript.into());
        }
        let (keys, known) = (key_count(args)?, form.known(&server.scripts, args));
        if form.by_digest && known.is_none() {
            return Err(Error::NoScript.into());
        }
        let asked = Asked { form, args, keys, known };
        let turn = self.begin_turn(row, &asked, client)?;
        let mut in_use = turn.machine(new_machine);
        let result = self.run_asked(&asked, &turn, &mut in_use, client, reply);
        if let Some(machine) = in_use.end() {
            server.free_later(machine);
        }
        result
    }

    /// Takes the lock, and the right to use a machine.
    fn begin_turn(
        &mut self,
        row: &'static Row,
        asked: &Asked,
        client: &Client,
    ) -> Result<Turn<'a>, Refusal> {
        let scripts = &self.batch.server.scripts;
        let says_it_reads = asked.known.is_some_and(|known| known.flags.no_writes);
        let reads = asked.form.is_read_only || says_it_reads;
        let may_share = reads && !client.in_exec && !self.batch.is_exclusive();
        if let Some(turn) = may_share.then(|| scripts.reading_turn()).flatten() {
            self.batch.share()?;
            return Ok(turn);
        }
        self.batch.exclude()?;
        self.unless_paused(row, client, asked.args)?;
        Ok(scripts.turn())
    }

    fn run_asked(
        &mut self,
        asked: &Asked,
        turn: &Turn,
        inside: &mut Inside,
        client: &mut Client,
        reply: &mut Reply,
    ) -> Result<(), Refusal> {
        let scripts = &self.batch.server.scripts;
        let (known, function) = inside.function(scripts, asked.known, &asked.args[1])?;
        self.check_flags(asked.form, known)?;
        inside.reply.protocol = Protocol::Resp2;
        // A script may have been killed behind the arguments of a command that it was about to call.
        inside.args.clear();
        let mut running = Running {
            args: &mut inside.args,
            reply: &mut inside.reply,
            db: client.db,
            was_in_exec: client.in_exec,
            caller: self,
            client,
            turn,
            known,
            may_write: !asked.form.is_read_only && !known.flags.no_writes,
            is_busy: false,
            looked_at: None,
            dirty: 0,
        };
        let has_failed = running.run(&mut inside.machine, function, asked, reply);
        if has_failed { Err(Refusal::Told) } else { Ok(()) }
    }

    /// Refuses a script that says that it writes where it may not.
    fn check_flags(&self, form: Form, known: Known) -> Result<(), Error> {
        if !known.flags.are_given || known.flags.no_writes {
            return Ok(());
        }
        if let Some(error) = self.batch.server.why_no_writes() {
            return Err(error);
        }
        if form.is_read_only {
            return Err(Error::text(
                "ERR Can not execute a script with write flag using *_ro command.",
            ));
        }
        // Mostly it was refused before. But when MULTI queued it, it may not have been known.
        if known.flags.deny_oom() && self.is_out_of_memory() {
            return Err(Error::text(
                "OOM allow-oom flag is not set on the script, can not run it when used memory > 'maxmemory'",
            ));
        }
        Ok(())
    }
}

/// A machine as Redis's scripts find it.
fn new_machine() -> Machine {
    let mut machine = Machine::new(memory_limit());
    redis::open(&mut machine, REDIS_VERSION);
    machine.protect();
    machine
}

/// Sets KEYS and ARGV.
fn set_arguments(machine: &mut Machine, args: &Args, keys: usize) -> Result<(), value::Error> {
    for (name, range) in [("KEYS", 3..3 + keys), ("ARGV", 3 + keys..args.len())] {
        let table = machine.heap.table(range.len(), 0)?;
        for (index, argument) in range.enumerate() {
            let string = machine.heap.string(&args[argument])?;
            // A number as key has no fault.
            let key = Value::Number((index + 1) as f64);
            let _ = machine.heap.set(table, key, Value::String(string));
        }
        machine.set_field(machine.globals, name, Value::Table(table));
    }
    Ok(())
}

/// Answers with the error that has ended a script, and where it happened. (If it happened behind the script, because
/// what it has returned is too much, there is no place.)
fn tell(machine: &mut Machine, error: value::Error, known: Known, reply: &mut Reply) {
    let (mut text, is_counted) = answer::error_text(machine, error.0);
    if let Some((source, line)) = machine.place_of_failure() {
        let name = hexadecimal(&known.digest);
        text.extend(format!(" script: {name}, on ").as_bytes());
        text.extend(number::c_string(&source));
        text.extend(format!(":{line}.").as_bytes());
    }
    answer::write_error(text, is_counted, reply);
}

/// A script that runs: what it reaches of the server.
struct Running<'c, 'a> {
    caller: &'c mut Caller<'a>,
    client: &'c mut Client,
    turn: &'c Turn<'c>,
    known: Known,
    /// The arguments of the next command, and the reply of the last one. What it takes is bounded: a few scripts run
    /// at once, and each has one reply.
    args: &'c mut Args,
    reply: &'c mut Reply,
    may_write: bool,
    /// It has lent the lock.
    is_busy: bool,
    /// When the machine asked for the first time whether it may go on.
    looked_at: Option<Instant>,
    /// How much it has changed.
    dirty: u64,
    /// What the client was before.
    db: usize,
    was_in_exec: bool,
}

impl Running<'_, '_> {
    /// Runs the script under the lock that is held, and answers. Returns whether the answer is an error, or has one
    /// in it.
    fn run(
        &mut self,
        machine: &mut Machine,
        function: Value,
        asked: &Asked,
        reply: &mut Reply,
    ) -> bool {
        (self.client.in_exec, self.client.in_script) = (true, true);
        self.caller.batch.set_in_script(true);
        self.caller.batch.begin_unit();
        let begin = reply.out.mark();
        let ran = set_arguments(machine, asked.args, asked.keys)
            .and_then(|()| machine.run(function, &[], self))
            .and_then(|()| answer::write(machine, self, reply));
        let has_failed = ran.unwrap_or_else(|error| {
            reply.out.truncate(begin);
            tell(machine, error, self.known, reply);
            true
        });
        reply.errors.take_over(&mut self.reply.errors);
        let batch = &mut self.caller.batch;
        batch.set_in_script(false);
        batch.end_lending();
        batch.set_logged(true);
        batch.dirty = self.dirty;
        // As with a single command, an error stays what it is if the log fails.
        batch.end_unit(begin..if has_failed { begin } else { reply.out.mark() });
        self.client.in_script = false;
        (self.client.in_exec, self.client.db) = (self.was_in_exec, self.db);
        has_failed
    }
}

impl Host for Running<'_, '_> {
    fn interrupt(&mut self) -> Result<(), String> {
        if self.turn.is_killed() {
            log::warning(format_args!("Lua script killed by user with SCRIPT KILL."));
            return Err(KILLED.into());
        }
        let store = self.caller.batch.store;
        let limit = self.client.server.config.busy_reply_threshold.get() as u64;
        let elapsed = self.looked_at.get_or_insert_with(Instant::now).elapsed();
        let is_slow = elapsed >= Duration::from_millis(limit) || store.is_busy();
        if limit > 0 && is_slow && !std::mem::replace(&mut self.is_busy, true) {
            self.turn.may_be_killed();
            self.caller.batch.lend();
            // No lock is held any more.
            log::warning(format_args!(
                "Slow script detected: still in execution after {} milliseconds. You can try killing the script \
                 using the SCRIPT KILL command. Script name is: {}.",
                elapsed.as_millis(),
                hexadecimal(&self.known.digest),
            ));
        }
        Ok(())
    }

    fn argument(&mut self, bytes: &[u8]) {
        self.args.push(bytes);
    }

    fn call(&mut self) -> Result<Answer<'_>, String> {
        self.reply.out.clear(KEPT_REPLY);
        let row = match self.admitted() {
            Ok(row) => row,
            Err(text) => {
                self.args.clear();
                self.reply.errors.count(&text);
                return Ok(Answer::Refused(text));
            }
        };
        if let Run::Long(_) | Run::MayStore(..) = row.command.run {
            // A few of them take as long as a script may.
            self.interrupt()?;
        }
        if row.command.writes() && !self.turn.may_write() {
            return Err(KILLED.into());
        }
        let first = row.command.keys.first as usize;
        self.args.know_key((first > 0).then_some(first));
        self.caller.call(row, self.client, self.args, self.reply);
        self.dirty += self.caller.batch.dirty;
        self.args.clear();
        if self.is_busy {
            self.caller.batch.lend();
        }
        let reply = match self.reply.out.one_piece() {
            Some(bytes) => Cow::Borrowed(bytes),
            None => Cow::Owned(self.reply.out.to_vec()),
        };
        Ok(Answer::Reply(reply))
    }

    fn is_command(&mut self) -> bool {
        let is_command = TABLE.named_by(self.args).is_some();
        self.args.clear();
        is_command
    }

    fn set_resp3(&mut self, is_resp3: bool) {
        self.reply.protocol = if is_resp3 { Protocol::Resp3 } else { Protocol::Resp2 };
    }

    fn set_logged(&mut self, is_logged: bool) {
        self.caller.batch.set_logged(is_logged);
    }

    fn log(&mut self, level: u8, text: &[u8]) {
        self.caller.account.say(level, text);
    }
}

/// Bytes of memory for replies that are kept from one command to the next.
const KEPT_REPLY: usize = 4096;

impl Running<'_, '_> {
    /// The row of the command, if a script may call it; or else why not.
    fn admitted(&mut self) -> Result<&'static Row, Vec<u8>> {
        let Some(row) = TABLE.named_by(self.args) else {
            return Err(b"ERR Unknown Redis command called from script".into());
        };
        let command = row.command;
        let changes = command.writes() || command.is(Flag::MayReplicate);
        let refusal = if !command.takes(self.args.len()) {
            "ERR Wrong number of args calling Redis command from script".to_string()
        } else if command.is(Flag::NoScript) {
            "ERR This Redis command is not allowed from script".to_string()
        } else if changes && !self.may_write {
            "ERR Write commands are not allowed from read-only scripts.".to_string()
        } else if command.writes()
            && !self.turn.has_written()
            && let Some(error) = self.caller.batch.server.why_no_writes()
        {
            error.to_text()
        } else if command.is(Flag::DenyOom)
            && !self.turn.has_written()
            && !self.known.flags.allow_oom
            && self.caller.is_out_of_memory()
        {
            "OOM command not allowed when used memory > 'maxmemory'.".to_string()
        } else {
            return Ok(row);
        };
        self.caller.account.count_rejected(row.index);
        Err(refusal.into_bytes())
    }
}
