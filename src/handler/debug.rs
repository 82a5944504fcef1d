//! DEBUG: for tests of clients and servers.
//!
//! A client that can make the server sleep can make it useless. So `enable-debug-command` must allow DEBUG:
//! `no`, `yes`, or `local` for clients of this machine. [`is_allowed`] is asked before anything else.
//!
//! | subcommand          | it tests                                                     |
//! |---------------------|--------------------------------------------------------------|
//! | `OBJECT`            | how a value is stored                                        |
//! | `SLEEP`             | a client's timeouts                                          |
//! | `SET-ACTIVE-EXPIRE` | what happens to an expired key that is still in memory       |
//! | `PROTOCOL`          | a client's parser: one reply of each type in RESP3           |
//!
//! **How Redis does it**: debug.c, with forty more. In Redis they are not subcommands in the table: DEBUG
//! looks at its arguments itself. That shows in the errors for an unknown name or too many arguments. The
//! texts here are the same.

use super::{Command, Flag, NO_KEY, Run, command, subcommand_syntax};
use crate::client::Client;
use crate::error::Error;
use crate::key::Key;
use crate::resp::{Args, Protocol, Reply, parse_integer};
use crate::store::{View, ViewMut};
use crate::types::Value;
use std::sync::atomic::Ordering;
use std::time::Duration;

#[rustfmt::skip]
pub const COMMANDS: &[Command] = &[
    command("debug",                   -2, Run::Container(Some(unknown)),  NO_KEY, "1.0.0", "",        "A container for debugging commands").with(&[Flag::Admin, Flag::Protected, Flag::TakesUnknown]),
    command("debug|help",              -2, Run::Client(help),              NO_KEY, "1.0.0", "",        "Show helpful text about the different subcommands").with(&[Flag::Admin, Flag::Protected]),
    command("debug|object",            -2, Run::Mixed(object),             NO_KEY, "1.0.0", "key",     "Show low level info about a key and its value").with(&[Flag::Admin, Flag::Protected]),
    command("debug|protocol",          -2, Run::Client(protocol),          NO_KEY, "1.0.0", "type",    "Reply with a test value of the specified type").with(&[Flag::Admin, Flag::Protected]),
    command("debug|set-active-expire", -2, Run::Client(set_active_expire), NO_KEY, "1.0.0", "0|1",     "Setting it to 0 disables expiring keys in background when they are not accessed").with(&[Flag::Admin, Flag::Protected]),
    command("debug|sleep",             -2, Run::Write(sleep),              NO_KEY, "1.0.0", "seconds", "Stop the server for so many seconds. Decimals allowed").with(&[Flag::Admin, Flag::Protected]),
];

/// Whether this client may use DEBUG.
pub fn is_allowed(client: &Client) -> bool {
    let connection = client.public.connection.as_ref();
    match client.server.config.enable_debug_command.text().as_str() {
        "yes" => true,
        "local" => connection.is_some_and(|c| c.peer.ip().to_canonical().is_loopback()),
        _ => false,
    }
}

fn unknown(_: &mut Client, args: &Args, _: &mut Reply) -> Result<(), Error> {
    Err(subcommand_syntax(args))
}

fn help(client: &mut Client, args: &Args, reply: &mut Reply) -> Result<(), Error> {
    match args.len() {
        2 => super::help(client, args, reply),
        _ => Err(subcommand_syntax(args)),
    }
}

/// The only argument after the subcommand.
fn argument(args: &Args) -> Result<&[u8], Error> {
    match args.len() {
        3 => Ok(&args[2]),
        _ => Err(subcommand_syntax(args)),
    }
}

/// As Redis prints it. There is no RDB here, so `serializedlength` is what the value takes in a base of the log,
/// and no key remembers when it was used.
fn object(client: &mut Client, view: &View, args: &Args, reply: &mut Reply) -> Result<(), Error> {
    let entry = view.peek(Key::of(argument(args)?)).ok_or(Error::NoSuchKey)?;
    let value = entry.value();
    let mut length = 0;
    value.rewrite(b"", &mut |words| length += words[1..].iter().map(|w| w.len()).sum::<usize>());
    let mut text = format!(
        "Value at:{:p} refcount:1 encoding:{} serializedlength:{length} lru:0 lru_seconds_idle:0",
        entry.entry,
        value.encoding(),
    );
    if let Value::List(list) = value {
        let (nodes, bytes) = list.nodes_and_bytes();
        text += &format!(
            " ql_nodes:{nodes} ql_avg_node:{:.2} ql_listpack_max:{} ql_compressed:0 \
             ql_uncompressed_size:{bytes}",
            list.len() as f64 / nodes as f64,
            client.server.config.list_max_listpack_size.get(),
        );
    }
    reply.status(&text);
    Ok(())
}

/// It is a write, although it changes nothing, because it needs the exclusive lock: while Redis sleeps nobody
/// is served. As with C's `strtod`, text that is no number is 0.
fn sleep(_: &mut ViewMut, args: &Args, reply: &mut Reply) -> Result<(), Error> {
    let seconds = std::str::from_utf8(argument(args)?).unwrap_or_default();
    let seconds: f64 = seconds.parse().unwrap_or_default();
    std::thread::sleep(Duration::try_from_secs_f64(seconds).unwrap_or_default());
    reply.ok()
}

fn set_active_expire(client: &mut Client, args: &Args, reply: &mut Reply) -> Result<(), Error> {
    let active = parse_integer(argument(args)?).unwrap_or_default() != 0;
    client.server.active_expire.store(active, Ordering::Relaxed);
    reply.ok()
}

/// One reply of each type, with Redis's values. Attributes and big numbers are left out, because no command
/// of this server replies with them.
#[allow(clippy::approx_constant, reason = "these are Redis's digits")]
fn protocol(_: &mut Client, args: &Args, reply: &mut Reply) -> Result<(), Error> {
    match argument(args)?.to_ascii_lowercase().as_slice() {
        b"string" => reply.bulk(b"Hello World"),
        b"integer" => reply.integer(12345),
        b"double" => reply.double(3.141),
        b"null" => reply.nil(),
        b"array" => {
            reply.array(3);
            (0..3).for_each(|number| reply.integer(number));
        }
        b"set" => {
            reply.set(3);
            (0..3).for_each(|number| reply.integer(number));
        }
        b"map" => {
            reply.map(3);
            for number in 0..3 {
                reply.integer(number);
                reply.boolean(number == 1);
            }
        }
        b"push" => {
            if reply.protocol == Protocol::Resp2 {
                return Err(Error::text("ERR RESP2 is not supported by this command"));
            }
            reply.push(2);
            reply.bulk(b"server-cpu-usage");
            reply.integer(42);
            // A push is not a reply, and the client waits for one.
            reply.bulk(b"Some real reply following the push reply");
        }
        b"verbatim" => reply.verbatim("This is a verbatim\nstring"),
        b"true" => reply.boolean(true),
        b"false" => reply.boolean(false),
        _ => {
            return Err(Error::text(
                "ERR Wrong protocol type name. Please use one of the following: \
                 string|integer|double|null|array|set|map|push|verbatim|true|false",
            ));
        }
    }
    Ok(())
}
