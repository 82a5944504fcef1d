//! The commands of scripts: EVAL and its relatives, and SCRIPT.
//!
//! EVAL runs other commands, so what it does is in call/script.rs, and so is SCRIPT LOAD, which compiles as EVAL does.
//! The sources of scripts are in server/scripts.rs, and the machines that run them beside it. The rest of SCRIPT needs
//! no keyspace.
//!
//! **How Redis does it**: eval.c. It also has a debugger, which SCRIPT DEBUG switches on.

use super::args::Cursor;
use super::{Command, Flag, Keys, NO_KEY, Run, command};
use crate::client::Client;
use crate::error::Error;
use crate::lazyfree::Garbage;
use crate::resp::{Args, Reply};
use crate::server::scripts::engines::Kill;
use crate::server::scripts::{Flags, Known, Scripts, shebang};
use crate::sha1::Digest;

/// Which of the four it is, or SCRIPT LOAD.
#[derive(Clone, Copy)]
pub struct Form {
    /// The script is named by its digest.
    pub by_digest: bool,
    /// It may only read.
    pub is_read_only: bool,
    /// It is compiled and kept, and does not run.
    pub only_loads: bool,
}

impl Form {
    /// The script, or its digest.
    pub fn text(self, args: &Args) -> &[u8] {
        &args[if self.only_loads { 2 } else { 1 }]
    }

    /// How many keys the arguments have.
    pub fn key_count(self, args: &Args) -> Result<usize, Error> {
        if self.only_loads { Ok(0) } else { key_count(args) }
    }

    /// The script that the arguments name, if it is known.
    pub fn known(self, scripts: &Scripts, args: &Args) -> Option<Known> {
        match self.by_digest {
            true => scripts.by_digest(&parse_digest(self.text(args))?),
            false => scripts.by_source(self.text(args)),
        }
    }

    /// What the script says of itself in its first line, known or not.
    pub fn flags(self, scripts: &Scripts, args: &Args) -> Flags {
        match self.known(scripts, args) {
            Some(known) => known.script.flags,
            None if self.by_digest => Flags::default(),
            None => shebang(self.text(args)).map_or(Flags::default(), |(flags, _)| flags),
        }
    }

    /// Whether it is refused if memory is exceeded: it says there what it is, and not that it needs no room.
    pub fn denies_oom(self, scripts: &Scripts, args: &Args) -> bool {
        !self.only_loads && self.flags(scripts, args).deny_oom()
    }

    /// Whether the script may only read, because its command says so or its first line.
    pub fn only_reads(self, flags: Flags) -> bool {
        self.is_read_only || flags.no_writes
    }
}

const fn run(by_digest: bool, is_read_only: bool) -> Run {
    Run::Script(Form { by_digest, is_read_only, only_loads: false })
}

const LOAD: Run = Run::Script(Form { by_digest: false, is_read_only: false, only_loads: true });

const COUNTED: Keys = Keys { counted_by: 2, ..NO_KEY };
const READS: &[Flag] = &[Flag::NoScript];
const WRITES: &[Flag] = &[Flag::NoScript, Flag::MayReplicate];

#[rustfmt::skip]
pub const COMMANDS: &[Command] = &[
    command("eval",          -3, run(false, false),      COUNTED, "2.6.0", "script numkeys [key [key ...]] [arg [arg ...]]", "Execute a Lua script server side").with(WRITES).uses("RW access update"),
    command("evalsha",       -3, run(true, false),       COUNTED, "2.6.0", "sha1 numkeys [key [key ...]] [arg [arg ...]]",   "Execute a Lua script server side").with(WRITES).uses("RW access update"),
    command("evalsha_ro",    -3, run(true, true),        COUNTED, "7.0.0", "sha1 numkeys [key [key ...]] [arg [arg ...]]",   "Execute a read-only Lua script server side").with(READS),
    command("eval_ro",       -3, run(false, true),       COUNTED, "7.0.0", "script numkeys [key [key ...]] [arg [arg ...]]", "Execute a read-only Lua script server side").with(READS),
    command("script",        -2, Run::Container(None),   NO_KEY,  "2.6.0", "",                      "A container for Lua scripts management commands"),
    command("script|debug",  3,  Run::Client(debug),     NO_KEY,  "3.2.0", "YES|SYNC|NO",           "Set the debug mode for executed scripts").with(&[Flag::NoScript, Flag::NotLoading]).help(" (YES|SYNC|NO)\n    Set the debug mode for subsequent scripts executed."),
    command("script|exists", -3, Run::Client(exists),    NO_KEY,  "2.6.0", "sha1 [sha1 ...]",       "Check existence of scripts in the script cache").with(&[Flag::NoScript, Flag::NotLoading]).help(" <sha1> [<sha1> ...]\n    Return information about the existence of the scripts in the script cache."),
    command("script|flush",  -2, Run::Client(flush),     NO_KEY,  "2.6.0", "[ASYNC|SYNC]",          "Remove all the scripts from the script cache").with(&[Flag::NoScript, Flag::NotLoading]).help(FLUSH),
    command("script|kill",   2,  Run::Client(kill),      NO_KEY,  "2.6.0", "",                      "Kill the script currently in execution").with(&[Flag::NoScript, Flag::AllowBusy, Flag::NotLoading]).help("\n    Kill the currently executing Lua script."),
    command("script|load",   3,  LOAD,                   NO_KEY,  "2.6.0", "script",                "Load the specified Lua script into the script cache").with(&[Flag::NoScript, Flag::NotLoading, Flag::Stale]).help(" <script>\n    Load a script into the scripts cache without executing it."),
    command("script|help",   2,  Run::Client(super::help), NO_KEY, "5.0.0", "",                     "Show helpful text about the different subcommands"),
];

const FLUSH: &str = " [ASYNC|SYNC]
    Flush the Lua scripts cache. Very dangerous on replicas.
    When called without the optional mode argument, the behavior is determined by the
    lazyfree-lazy-user-flush configuration directive. Valid modes are:
    * ASYNC: Asynchronously flush the scripts cache.
    * SYNC: Synchronously flush the scripts cache.";

impl Command {
    /// Whether it runs a script.
    pub fn is_script(&self) -> bool {
        matches!(self.run, Run::Script(Form { only_loads: false, .. }))
    }

    /// Whether it is a script that may only read.
    pub fn is_reading_script(&self) -> bool {
        matches!(self.run, Run::Script(Form { is_read_only: true, .. }))
    }
}

/// How many of the arguments of EVAL behind the number are keys.
fn key_count(args: &Args) -> Result<usize, Error> {
    let count = super::args::integer(&args[2])?;
    if count > args.len() as i64 - 3 {
        return Err(Error::text("ERR Number of keys can't be greater than number of args"));
    }
    let negative = |_| Error::text("ERR Number of keys can't be negative");
    usize::try_from(count).map_err(negative)
}

/// A digest as a client writes it, in forty hexadecimal digits. Nothing else can name a script.
fn parse_digest(text: &[u8]) -> Option<Digest> {
    let mut digest = Digest::default();
    if text.len() != 2 * digest.len() {
        return None;
    }
    for (byte, pair) in digest.iter_mut().zip(text.chunks_exact(2)) {
        *byte = digit(pair[0])? << 4 | digit(pair[1])?;
    }
    Some(digest)
}

fn digit(byte: u8) -> Option<u8> {
    match byte {
        b'0'..=b'9' => Some(byte - b'0'),
        b'a'..=b'f' => Some(byte - b'a' + 10),
        b'A'..=b'F' => Some(byte - b'A' + 10),
        _ => None,
    }
}

fn debug(_: &mut Client, args: &Args, reply: &mut Reply) -> Result<(), Error> {
    match args[2].to_ascii_lowercase().as_slice() {
        b"no" => reply.ok(),
        b"yes" | b"sync" => Err(Error::text("ERR this server has no debugger for scripts")),
        _ => Err(Error::text("ERR Use SCRIPT DEBUG YES/SYNC/NO")),
    }
}

fn exists(client: &mut Client, args: &Args, reply: &mut Reply) -> Result<(), Error> {
    let scripts = &client.server.scripts;
    let digests = Cursor::at(args, 2).rest();
    reply.array(digests.len());
    reply.each(digests, |reply, text| {
        let known = parse_digest(text).and_then(|digest| scripts.by_digest(&digest));
        reply.integer(known.is_some().into());
    });
    Ok(())
}

fn flush(client: &mut Client, args: &Args, reply: &mut Reply) -> Result<(), Error> {
    let mode = (args.len() == 3).then(|| args[2].to_ascii_lowercase());
    match (args.len(), mode.as_deref()) {
        (2, _) | (_, Some(b"sync")) => drop(client.server.scripts.flush()),
        (_, Some(b"async")) => {
            client.server.free_later(Garbage::new(0, client.server.scripts.flush()));
        }
        _ => return Err(Error::text("ERR SCRIPT FLUSH only support SYNC|ASYNC option")),
    }
    reply.ok()
}

fn kill(client: &mut Client, _: &Args, reply: &mut Reply) -> Result<(), Error> {
    match client.server.scripts.engines.kill() {
        Kill::Done => reply.ok(),
        Kill::NotBusy => Err(Error::text("NOTBUSY No scripts in execution right now.")),
        Kill::HasWritten => Err(Error::text(
            "UNKILLABLE Sorry the script already executed write commands against the dataset. You can either wait \
             the script termination or kill the server in a hard way using the SHUTDOWN NOSAVE command.",
        )),
    }
}
