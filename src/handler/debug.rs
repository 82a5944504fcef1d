//! DEBUG: what tests of clients and servers need, and nobody else.
//!
//! Who can make a server sleep can make it useless, so DEBUG must be allowed by the option
//! `enable-debug-command`: `no`, `yes`, or `local` for clients of this machine. The batch asks
//! [`is_allowed`] before it looks at anything else.
//!
//! | subcommand          | for the test of                                              |
//! |---------------------|--------------------------------------------------------------|
//! | `SLEEP`             | a client's timeouts                                          |
//! | `SET-ACTIVE-EXPIRE` | what happens to an expired key that nobody has met           |
//! | `PROTOCOL`          | a client's parser: one reply of each kind that RESP3 has     |
//!
//! **How Redis does it**: debug.c, with forty more, most of them about its own insides. To Redis
//! these words are no subcommands but arguments that DEBUG looks at itself, which shows in the
//! error when one of them is unknown or has too many arguments; the texts here are the same.

use super::{Command, Flag, NO_KEY, Run, command, subcommand_syntax};
use crate::client::Client;
use crate::error::Error;
use crate::resp::{Args, Protocol, Reply, parse_integer};
use crate::store::ViewMut;
use std::sync::atomic::Ordering;
use std::time::Duration;

#[rustfmt::skip]
pub const COMMANDS: &[Command] = &[
    command("debug",                   -2, Run::OpenContainer(unknown),    NO_KEY, "1.0.0", "",        "A container for debugging commands").with(&[Flag::Admin, Flag::Protected]),
    command("debug|help",              -2, Run::Client(help),              NO_KEY, "1.0.0", "",        "Show helpful text about the different subcommands").with(&[Flag::Admin, Flag::Protected]),
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

/// The one argument behind the subcommand.
fn argument(args: &Args) -> Result<&[u8], Error> {
    match args.len() {
        3 => Ok(&args[2]),
        _ => Err(subcommand_syntax(args)),
    }
}

/// A write that changes nothing, for the sake of its lock: while Redis sleeps nobody is served.
/// What is no number is 0, as for C's `strtod`.
fn sleep(_: &mut ViewMut, args: &Args, reply: &mut Reply) -> Result<(), Error> {
    let seconds = std::str::from_utf8(argument(args)?).unwrap_or_default();
    let seconds: f64 = seconds.parse().unwrap_or_default();
    std::thread::sleep(Duration::try_from_secs_f64(seconds).unwrap_or_default());
    reply.ok();
    Ok(())
}

fn set_active_expire(client: &mut Client, args: &Args, reply: &mut Reply) -> Result<(), Error> {
    let active = parse_integer(argument(args)?).unwrap_or_default() != 0;
    client.server.active_expire.store(active, Ordering::Relaxed);
    reply.ok();
    Ok(())
}

/// One reply of each kind, with Redis's values. Attributes and big numbers are left out, for no
/// command of this server answers with them.
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
            // A push answers nothing, and the client waits for an answer.
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
