//! The server as a whole: its time, its log, its end, MONITOR, and the modules that it does not have.
//!
//! SHUTDOWN waits for the disk, and for replicas. A handler may be running under a lock, so it must not wait: it leaves a [`Then`],
//! and the client's thread waits after the lock is released (serve/waiting.rs).
//!
//! A monitor has an outbox, as a subscriber has. So a slow monitor delays nobody. It sees no passwords.
//!
//! **How Redis does it**: server.c. It has one thread, so it puts a blocked client aside
//! (blocked.c). Here the client's own thread waits.

use super::{Command, Flag, NO_KEY, Row, Run, command};
use crate::client::{Client, Then};
use crate::error::Error;
use crate::handler::args::{Cursor, integer};
use crate::listen::Address;
use crate::resp::words::quote;
use crate::resp::{Args, Digits, Reply};
use crate::stats::unix_microseconds;
use crate::store::View;
use std::sync::atomic::Ordering;

#[rustfmt::skip]
pub const COMMANDS: &[Command] = &[
    command("time",         1,  Run::Client(time),         NO_KEY, "2.6.0", "", "Return the current server time"),
    command("monitor",      1,  Run::Client(monitor),      NO_KEY, "1.0.0", "", "Listen for all requests received by the server in real time").with(&[Flag::NoScript, Flag::Admin]),
    command("bgrewriteaof", 1,  Run::Client(bgrewriteaof), NO_KEY, "1.0.0", "", "Asynchronously rewrite the append-only file").with(&[Flag::NoScript, Flag::Admin, Flag::NotLoading]),
    command("save",         1,  Run::Client(save),         NO_KEY, "1.0.0", "", "Synchronously save the dataset to disk").with(&[Flag::NoScript, Flag::Admin, Flag::NoMulti, Flag::NotLoading, Flag::GivesLockBack]),
    command("bgsave",       -1, Run::Client(bgsave),       NO_KEY, "1.0.0", "[SCHEDULE]", "Asynchronously save the dataset to disk").with(&[Flag::NoScript, Flag::Admin, Flag::NotLoading]),
    command("lastsave",     1,  Run::Client(lastsave),     NO_KEY, "1.0.0", "", "Get the UNIX time stamp of the last successful save to disk"),
    command("lolwut",       -1, Run::Read(lolwut),         NO_KEY, "5.0.0", "[VERSION version]", "Display some computer art and the Redis version"),
    command("module",        -2, Run::Container(None),     NO_KEY, "4.0.0", "", "A container for module commands"),
    command("module|list",   2,  Run::Client(module_list), NO_KEY, "4.0.0", "", "List all modules loaded by the server").with(&[Flag::NoScript, Flag::Admin, Flag::NotLoading]).help("\n    Return a list of loaded modules."),
    command("module|load",   -3, Run::Client(module_load), NO_KEY, "4.0.0", "path [arg [arg ...]]", "Load a module").with(&[Flag::NoScript, Flag::Admin, Flag::NotLoading, Flag::Protected]).help(" <path> [<arg> ...]\n    Load a module library from <path>, passing to it any optional arguments."),
    command("module|loadex", -3, Run::Client(module_load), NO_KEY, "7.0.0", "path [CONFIG name value [CONFIG name value ...]] [ARGS args [ARGS args ...]]", "Load a module with extended parameters").with(&[Flag::NoScript, Flag::Admin, Flag::NotLoading, Flag::Protected]).help(" <path> [[CONFIG NAME VALUE] [CONFIG NAME VALUE]] [ARGS ...]\n    Load a module library from <path>, while passing it module configurations and optional arguments."),
    command("module|unload", 3,  Run::Client(module_load), NO_KEY, "4.0.0", "name", "Unload a module").with(&[Flag::NoScript, Flag::Admin, Flag::NotLoading, Flag::Protected]).help(" <name>\n    Unload a module."),
    command("module|help",   2,  Run::Client(super::help), NO_KEY, "5.0.0", "", "Show helpful text about the different subcommands"),
    command("shutdown",     -1, Run::Client(shutdown),     NO_KEY, "1.0.0", "[NOSAVE|SAVE] [NOW] [FORCE] [ABORT]", "Synchronously save the dataset to disk and then shut down the server").with(&[Flag::NoScript, Flag::AllowBusy, Flag::Admin, Flag::NoMulti]),
];

fn time(_: &mut Client, _: &Args, reply: &mut Reply) -> Result<(), Error> {
    let now = unix_microseconds();
    reply.array(2);
    for part in [now / 1_000_000, now % 1_000_000] {
        reply.bulk(Digits::new(part as i64).as_bytes());
    }
    Ok(())
}

/// Redis draws a picture for VERSION 5 and 6, and for every other version says this.
fn lolwut(_: &View, args: &Args, reply: &mut Reply) -> Result<(), Error> {
    if args.len() > 2 && args[1].eq_ignore_ascii_case(b"version") {
        integer(&args[2])?;
    }
    reply.verbatim(&format!("Redis ver. {}\n", super::REDIS_VERSION));
    Ok(())
}

fn module_list(_: &mut Client, _: &Args, reply: &mut Reply) -> Result<(), Error> {
    reply.array(0);
    Ok(())
}

/// MODULE LOAD and the others are refused before they come here, because `enable-module-command` is `no`.
fn module_load(_: &mut Client, _: &Args, _: &mut Reply) -> Result<(), Error> {
    Err(Error::not_allowed("MODULE", "enable-module-command"))
}

fn bgrewriteaof(client: &mut Client, _: &Args, reply: &mut Reply) -> Result<(), Error> {
    if !client.server.aof.is_enabled() {
        let text = "ERR The append only file is switched off. Try CONFIG SET appendonly yes.";
        return Err(Error::text(text));
    }
    if !client.server.aof.request_rewrite() {
        let text = "ERR Background append only file rewriting already in progress";
        return Err(Error::text(text));
    }
    // Inside EXEC Redis says "scheduled", because there a rewrite begins after the EXEC. Ours begins at once.
    let begins = if client.in_exec { "scheduled" } else { "started" };
    reply.status(&format!("Background append only file rewriting {begins}"));
    Ok(())
}

const IN_PROGRESS: Error = Error::Fixed("ERR Background save already in progress");

fn save(client: &mut Client, _: &Args, reply: &mut Reply) -> Result<(), Error> {
    match client.server.snapshots.request_and_wait() {
        Some(true) => reply.ok(),
        // As in Redis, the log has more to say.
        Some(false) => Err(Error::Fixed("ERR")),
        None => Err(IN_PROGRESS),
    }
}

/// With SCHEDULE it begins when the rewrite of the log has ended; without it is refused then, as in Redis.
fn bgsave(client: &mut Client, args: &Args, reply: &mut Reply) -> Result<(), Error> {
    let schedule = match args.len() {
        1 => false,
        2 if args[1].eq_ignore_ascii_case(b"schedule") => true,
        _ => return Err(Error::Syntax),
    };
    let server = &client.server;
    let is_rewriting = server.aof.status.rewriting.load(Ordering::Relaxed);
    if !server.snapshots.is_running() && is_rewriting && !schedule && !client.in_exec {
        return Err(Error::text(
            "ERR Another child process is active (AOF?): can't BGSAVE right now. Use BGSAVE SCHEDULE in order \
             to schedule a BGSAVE whenever possible.",
        ));
    }
    if !server.snapshots.request() {
        return Err(IN_PROGRESS);
    }
    let begins = if is_rewriting || client.in_exec { "scheduled" } else { "started" };
    reply.status(&format!("Background saving {begins}"));
    Ok(())
}

fn lastsave(client: &mut Client, _: &Args, reply: &mut Reply) -> Result<(), Error> {
    reply.count(client.server.snapshots.last_save.load(Ordering::Relaxed) as usize);
    Ok(())
}

fn shutdown(client: &mut Client, args: &Args, reply: &mut Reply) -> Result<(), Error> {
    let mut cursor = Cursor::new(args);
    let (mut save, mut force, mut waits) = (None, false, true);
    let aborts = |option: &[u8]| option.eq_ignore_ascii_case(b"abort");
    if args.len() > 1 && Cursor::new(args).rest().all(aborts) {
        let answers = client.server.abort_shutdown();
        client.answers.extend(answers.ok_or(Error::Fixed("ERR No shutdown in progress."))?);
        client.notices.push("Shutdown manually aborted.".into());
        return reply.ok();
    }
    while let Some(option) = cursor.option() {
        match option.as_slice() {
            b"SAVE" if save != Some(false) => save = Some(true),
            b"NOSAVE" if save != Some(true) => save = Some(false),
            b"NOW" => waits = false,
            b"FORCE" => force = true,
            _ => return Err(Error::Syntax),
        }
    }
    let saves = save != Some(false);
    let has_points = !client.server.config.save.text().is_empty();
    let snapshot = save == Some(true) || saves && has_points;
    client.then = Then::Shutdown { saves, snapshot, force, waits };
    Ok(())
}

fn monitor(client: &mut Client, _: &Args, reply: &mut Reply) -> Result<(), Error> {
    if client.in_exec {
        return Err(Error::text("ERR MONITOR isn't allowed for DENY BLOCKING client"));
    }
    if client.is_replica {
        // As in Redis, the second MONITOR gets no reply, nor does that of a replica.
        return Ok(());
    }
    let outbox = super::pubsub::outbox(client, reply)?;
    (client.monitoring, client.is_replica) = (true, true);
    client.server.hub.set_monitor(client.public.id, Some(outbox));
    reply.ok()
}

/// Shows a command that has just run to all monitors, unless it is one for administrators.
pub fn show_monitors(client: &Client, row: &Row, args: &Args, now: u64, reply: &mut Reply) {
    if row.command.is(Flag::Admin) {
        return;
    }
    let (seconds, rest) = (now / 1_000_000, now % 1_000_000);
    let peer = client.public.connection.as_ref().map(|connection| &connection.peer);
    let from = match peer {
        _ if client.in_script => "lua".into(),
        Some(Address::Unix(path)) => format!("unix:{path}"),
        _ => client.public.address(),
    };
    let head = format!("+{seconds}.{rest:06} [{} {from}]", client.db);
    let mut line = head.into_bytes();
    for word in shown(row, args) {
        line.push(b' ');
        quote(word, &mut line);
    }
    line.extend_from_slice(b"\r\n");
    client.server.hub.show_monitors(&line, client.public.id);
    // A monitor sees its own command behind the reply to it.
    if client.monitoring {
        reply.monitor_line(&line);
    }
}

/// Options whose values are never shown. CONFIG SET refuses all but the first, but a client may still send a
/// real secret.
const SECRETS: [&[u8]; 5] = [
    b"requirepass",
    b"masterauth",
    b"masteruser",
    b"tls-key-file-pass",
    b"tls-client-key-file-pass",
];

/// The arguments of a command, without passwords.
pub fn shown<'a>(row: &Row, args: &'a Args) -> Vec<&'a [u8]> {
    let mut secrets = 0..0;
    let mut words = Vec::with_capacity(args.len());
    for (index, word) in args.iter().enumerate() {
        match row.command.name {
            "auth" if index == 0 => secrets = 1..args.len(),
            "hello" if word.eq_ignore_ascii_case(b"auth") => secrets = index + 1..index + 3,
            "config|set" if SECRETS.iter().any(|name| word.eq_ignore_ascii_case(name)) => {
                secrets = index + 1..index + 2;
            }
            "migrate" if index > 5 && index >= secrets.end => {
                match word.to_ascii_lowercase().as_slice() {
                    b"auth" => secrets = index + 1..index + 2,
                    b"auth2" => secrets = index + 1..index + 3,
                    // Behind it nothing is an option.
                    b"keys" => secrets = args.len()..args.len(),
                    _ => {}
                }
            }
            _ => {}
        }
        let secret = secrets.contains(&index);
        words.push(if secret { b"(redacted)" } else { word });
    }
    words
}
