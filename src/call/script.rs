//! What EVAL does: it runs a script, and the script calls commands, as EXEC calls its queue.
//!
//! ```text
//! EVAL "return redis.call('INCR', KEYS[1])" 1 k
//!   │  the exclusive lock is taken; EVAL_RO and EVALSHA_RO take the shared one
//!   │  a machine has compiled the script before, or does so now. SCRIPT LOAD ends here
//!   │  it gets KEYS and ARGV, and runs (src/script.rs)
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
//! unless the script has written. Then the lock is taken for each single command of the script. The compiler asks
//! too, so all this is true of a long source as well. It compiles under the lock, because a machine belongs to
//! whoever holds the lock, and because a script in the middle of an EXEC has no other time. A kilobyte of source takes
//! some ten microseconds.
//!
//! **How Redis does it**: eval.c, script.c and script_lua.c: `evalGenericCommand`, `luaCallFunction`,
//! `scriptCall`.

mod answer;

use super::Caller;
use super::admit::Refusal;
use crate::client::Client;
use crate::error::Error;
use crate::handler::script::Form;
use crate::handler::server::show_monitors;
use crate::handler::{Flag, REDIS_VERSION, Row, TABLE};
use crate::log;
use crate::resp::{Args, Protocol, Reply};
use crate::script::lib::{Answer, Host, redis};
use crate::script::machine::Machine;
use crate::script::number;
use crate::script::value::{self, Value};
use crate::server::scripts::engines::{Compiled, Engine, Slot, Turn, memory_limit};
use crate::server::scripts::{Flags, Known, Script, shebang};
use crate::sha1::{Digest, hexadecimal};
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
    script: Script,
}

impl<'a> Caller<'a> {
    /// Runs a script, and writes what it returns. Or loads it, and writes its digest. In a frame of its own, because
    /// it is large, and every command needs that of `call`.
    #[inline(never)]
    pub(super) fn run_script(
        &mut self,
        row: &'static Row,
        form: Form,
        client: &mut Client,
        args: &Args,
        reply: &mut Reply,
    ) -> Result<(), Refusal> {
        let server = self.batch.server;
        if server.hub.has_monitors() && row.command.is_script() {
            // In front of its commands.
            self.batch.clock.go_on();
            show_monitors(client, row, args, self.batch.clock.now, reply);
        }
        if form.by_digest && args[1].len() != 40 {
            return Err(Error::NoScript.into());
        }
        let (keys, known) = (form.key_count(args)?, form.known(&server.scripts, args));
        let script = match known {
            Some(known) => known.script,
            None if form.by_digest => return Err(Error::NoScript.into()),
            None => Script::of(form.text(args))?,
        };
        let asked = Asked { form, args, keys, known, script };
        let mut turn = self.begin_turn(row, &asked, client)?;
        let (slot, engine) = turn.begin(new_machine);
        let result = self.run_asked(&asked, slot, engine, client, reply);
        if let Some(engine) = turn.end() {
            server.free_later(engine);
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
        let engines = &self.batch.server.scripts.engines;
        let only_reads = asked.form.only_reads(asked.script.flags);
        let may_share = only_reads && !client.in_exec && !self.batch.is_exclusive();
        if let Some(turn) = may_share.then(|| engines.reading_turn()).flatten() {
            self.batch.share()?;
            return Ok(turn);
        }
        self.batch.exclude()?;
        self.unless_paused(row, client, asked.args)?;
        Ok(engines.turn())
    }

    fn run_asked(
        &mut self,
        asked: &Asked,
        slot: &Slot,
        engine: &mut Engine,
        client: &mut Client,
        reply: &mut Reply,
    ) -> Result<(), Refusal> {
        engine.reply.protocol = Protocol::Resp2;
        // A script may have been killed behind the arguments of a command that it was about to call.
        engine.args.clear();
        let mut running = Running {
            args: &mut engine.args,
            reply: &mut engine.reply,
            db: client.db,
            was_in_exec: client.in_exec,
            caller: self,
            client,
            slot,
            digest: asked.script.digest,
            flags: asked.script.flags,
            may_write: !asked.form.only_reads(asked.script.flags),
            is_busy: false,
            looked_at: None,
            dirty: 0,
        };
        let has_failed = running.run(&mut engine.compiled, asked, reply);
        if has_failed { Err(Refusal::Told) } else { Ok(()) }
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
fn tell(machine: &mut Machine, error: value::Error, digest: &Digest, reply: &mut Reply) {
    let (mut text, is_counted) = answer::error_text(machine, error.0);
    if let Some((source, line)) = machine.place_of_failure() {
        let name = hexadecimal(digest);
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
    slot: &'c Slot,
    digest: Digest,
    flags: Flags,
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
    /// Runs the script, or loads it, under the lock that is held, and answers. Returns whether the answer is an
    /// error, or has one in it.
    fn run(&mut self, compiled: &mut Compiled, asked: &Asked, reply: &mut Reply) -> bool {
        (self.client.in_exec, self.client.in_script) = (true, true);
        self.caller.batch.set_in_script(true);
        self.caller.batch.begin_unit();
        let begin = reply.out.mark();
        let has_failed = match self.function(compiled, asked) {
            Ok(_) if asked.form.only_loads => {
                let scripts = &self.caller.batch.server.scripts;
                scripts.keep(asked.form.text(asked.args), asked.script, false);
                reply.bulk(hexadecimal(&self.digest).as_bytes());
                false
            }
            Ok(function) => self.run_function(&mut compiled.machine, function, asked, reply),
            Err(error) => {
                reply.error(&error);
                true
            }
        };
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

    /// The compiled script, if it may run.
    fn function(&mut self, compiled: &mut Compiled, asked: &Asked) -> Result<Value, Error> {
        let function = match asked.known.and_then(|known| compiled.function(known)) {
            Some(function) => function,
            None => self.compile(compiled, asked)?,
        };
        self.check_flags(asked)?;
        Ok(function)
    }

    /// Compiles the script, and keeps it.
    fn compile(&mut self, compiled: &mut Compiled, asked: &Asked) -> Result<Value, Error> {
        let scripts = &self.caller.batch.server.scripts;
        let kept = match asked.known {
            Some(known) if asked.form.by_digest => scripts.text(known).ok_or(Error::NoScript)?,
            _ => Default::default(),
        };
        let text = if asked.form.by_digest { &kept } else { asked.form.text(asked.args) };
        let (_, begin) = shebang(text).map_err(Error::Text)?;
        let machine = &mut compiled.machine;
        let loaded = machine.load(&text[begin..], b"@user_script", &mut || self.interrupt());
        let function = loaded.map_err(|error| {
            let text = match error.0 {
                Value::String(text) => machine.heap.bytes_of(text),
                _ => b"",
            };
            Error::Text([b"ERR Error compiling script (new function): ", text].concat())
        })?;
        let known = asked.known.unwrap_or_else(|| scripts.keep(text, asked.script, true));
        compiled.keep(known, function);
        Ok(function)
    }

    /// Refuses a script that says that it writes where it may not.
    fn check_flags(&self, asked: &Asked) -> Result<(), Error> {
        let flags = asked.script.flags;
        if asked.form.only_loads || !flags.are_given || flags.no_writes {
            return Ok(());
        }
        if let Some(error) = self.caller.batch.server.why_no_writes(true) {
            return Err(error);
        }
        if asked.form.is_read_only {
            return Err(Error::text(
                "ERR Can not execute a script with write flag using *_ro command.",
            ));
        }
        // Mostly it was refused before. But when MULTI queued it, it may not have been known.
        if flags.deny_oom() && self.caller.is_out_of_memory() {
            return Err(Error::text(
                "OOM allow-oom flag is not set on the script, can not run it when used memory > 'maxmemory'",
            ));
        }
        Ok(())
    }

    fn run_function(
        &mut self,
        machine: &mut Machine,
        function: Value,
        asked: &Asked,
        reply: &mut Reply,
    ) -> bool {
        let begin = reply.out.mark();
        let ran = set_arguments(machine, asked.args, asked.keys)
            .and_then(|()| machine.run(function, &[], self))
            .and_then(|()| answer::write(machine, self, reply));
        ran.unwrap_or_else(|error| {
            reply.out.truncate(begin);
            tell(machine, error, &self.digest, reply);
            true
        })
    }
}

impl Host for Running<'_, '_> {
    fn interrupt(&mut self) -> Result<(), String> {
        if self.slot.is_killed() {
            log::warning(format_args!("Lua script killed by user with SCRIPT KILL."));
            return Err(KILLED.into());
        }
        let store = self.caller.batch.store;
        let limit = self.client.server.config.busy_reply_threshold.get() as u64;
        let elapsed = self.looked_at.get_or_insert_with(Instant::now).elapsed();
        let is_slow = elapsed >= Duration::from_millis(limit) || store.is_busy();
        if limit > 0 && is_slow && !std::mem::replace(&mut self.is_busy, true) {
            self.slot.may_be_killed();
            self.caller.batch.lend();
            // No lock is held any more.
            log::warning(format_args!(
                "Slow script detected: still in execution after {} milliseconds. You can try killing the script \
                 using the SCRIPT KILL command. Script name is: {}.",
                elapsed.as_millis(),
                hexadecimal(&self.digest),
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
        if !row.command.is(Flag::Quick) {
            // A few of them take as long as a script may.
            self.interrupt()?;
        }
        if row.command.writes() && !self.slot.may_write() {
            return Err(KILLED.into());
        }
        self.args.know_keys(row.command.keys.places(self.args.len()));
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
            && !self.slot.has_written()
            && let Some(error) = self.caller.batch.server.why_no_writes(true)
        {
            error.to_text()
        } else if command.is(Flag::DenyOom)
            && !self.slot.has_written()
            && !self.flags.allow_oom
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
