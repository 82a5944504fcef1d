//! The CONFIG command: it shows and changes options, and writes them into their file. The options are in [`crate::config`].
//!
//! CONFIG SET changes all of its options or none. Most options have their effect at once, because the server
//! reads them whenever it needs them. Only `appendonly` needs more: the log must be begun or ended.
//!
//! **How Redis does it**: config.c, `configSetCommand`, with an `apply` function in each row. Our HELP also
//! lists the options, with their defaults and whether they can change at run time.

use super::args::Cursor;
use super::{Command, Flag, NO_KEY, Run, command, help_lines};
use crate::client::Client;
use crate::config;
use crate::error::Error;
use crate::log;
use crate::propagate::Source;
use crate::resp::{Args, Reply};
use crate::server::Server;
use crate::types::Limits;
use std::collections::HashSet;
use std::mem::discriminant;
use std::sync::atomic::Ordering;

#[rustfmt::skip]
pub const COMMANDS: &[Command] = &[
    command("config", -2, Run::Container(None), NO_KEY, "2.0.0", "", "A container for server configuration commands"),
    command("config|get", -3, Run::Client(get), NO_KEY, "2.0.0", "parameter [parameter ...]", "Get the values of configuration parameters").with(&[Flag::NoScript, Flag::Admin]),
    command("config|help", 2, Run::Client(help), NO_KEY, "5.0.0", "", "Show helpful text about the different subcommands"),
    command("config|resetstat", 2, Run::Client(resetstat), NO_KEY, "2.0.0", "", "Reset the stats returned by INFO").with(&[Flag::NoScript, Flag::Admin, Flag::ShowsCounters]),
    command("config|rewrite", 2, Run::Client(rewrite), NO_KEY, "2.8.0", "", "Rewrite the configuration file with the in memory configuration").with(&[Flag::NoScript, Flag::Admin]),
    command("config|set", -4, Run::Client(set), NO_KEY, "2.0.0", "parameter value [parameter value ...]", "Set configuration parameters to the given values").with(&[Flag::NoScript, Flag::Admin, Flag::GivesLockBack]),
];

fn get(client: &mut Client, args: &Args, reply: &mut Reply) -> Result<(), Error> {
    let mut found: Vec<(&[u8], Vec<u8>)> = Vec::new();
    let mut seen = HashSet::new();
    for pattern in Cursor::at(args, 2).rest() {
        let is_name = !pattern.iter().any(|byte| b"*?[".contains(byte));
        for (name, value) in client.server.config.get(pattern) {
            if seen.insert(name) {
                let name = name.as_bytes();
                // A client looks for the value under the name that it has sent, in its case.
                found.push((if is_name { pattern } else { name }, value));
            }
        }
    }
    reply.map(found.len());
    for (name, value) in found {
        reply.bulk(name);
        reply.bulk(&value);
    }
    Ok(())
}

fn set(client: &mut Client, args: &Args, reply: &mut Reply) -> Result<(), Error> {
    let pairs: Vec<_> = Cursor::at(args, 2).pairs().ok_or(Error::Syntax)?.collect();
    let server = &client.server;
    let remember = || discriminant(&Limits::of(&server.config, Source::Client).remember);
    let before = remember();
    change(server, &pairs)?;
    if remember() != before {
        server.eviction.turns.fetch_add(1, Ordering::Relaxed);
        server.eviction.look_again(false);
        if !client.in_exec {
            server.eviction.wait_for_turn();
        }
    }
    reply.ok()
}

/// Changes options, and begins or ends the log. One client at a time: between `appendonly no` and its effect
/// nobody may set it to yes.
fn change(server: &Server, pairs: &[(&[u8], &[u8])]) -> Result<(), Error> {
    let _one_at_a_time = server.config_changes.lock().unwrap();
    let was_on = server.config.appendonly.get();
    let limit = server.config.maxmemory.get();
    let before = server.config.set(pairs)?;
    server.eviction.look_again(server.config.maxmemory.get() != limit);
    if server.config.appendonly.get() == was_on {
        return Ok(());
    }
    if was_on {
        server.aof.disable();
    } else if !server.aof.request_enable() {
        server.config.replace(before);
        // An earlier `yes` may have begun to write a base. It must not switch the log on at its end.
        server.aof.disable();
        return Err(Error::text(
            "ERR CONFIG SET failed (possibly related to argument 'appendonly') - Unable to turn on AOF. \
             Check server logs.",
        ));
    }
    Ok(())
}

fn rewrite(client: &mut Client, _: &Args, reply: &mut Reply) -> Result<(), Error> {
    let server = &client.server;
    if server.config.file.as_os_str().is_empty() {
        return Err(Error::text("ERR The server is running without a config file"));
    }
    let _one_at_a_time = server.config_changes.lock().unwrap();
    if let Err(error) = server.config.rewrite() {
        log::warning(format_args!("CONFIG REWRITE failed: {error}"));
        let error = error.to_string();
        // std puts the number of the error behind the words of the system.
        let words = error.split(" (os error").next().unwrap_or_default();
        return Err(Error::text(format!("ERR Rewriting config file: {words}")));
    }
    log::notice(format_args!("CONFIG REWRITE executed with success."));
    reply.ok()
}

fn resetstat(client: &mut Client, _: &Args, reply: &mut Reply) -> Result<(), Error> {
    client.server.reset_stats();
    reply.ok()
}

fn help(_: &mut Client, args: &Args, reply: &mut Reply) -> Result<(), Error> {
    let mut lines = help_lines(args);
    lines.push("Directives, with their defaults, and when they can change:".to_string());
    lines.extend(config::describe().map(|line| format!("    {line}")));
    reply.statuses(&lines);
    Ok(())
}
