//! The connection itself: PING, HELLO, AUTH, SELECT, RESET, QUIT.
//!
//! A connection begins in database 0, in RESP2, and unauthenticated if there is a password. HELLO can change
//! its protocol and name and authenticate it. RESET takes everything back. Only RESET takes the keyspace's
//! lock, because it ends the client's watches.
//!
//! There is one user, `default` (config/users.rs).
//!
//! **How Redis does it**: networking.c, and acl.c, which has many users with permissions.

use super::{Command, Flag, NO_KEY, Run, command, transactions};
use crate::client::{Client, Replies, Then};
use crate::error::Error;
use crate::handler::args::Cursor;
use crate::resp::{Args, Protocol, Reply, parse_integer};
use crate::store::View;

#[rustfmt::skip]
pub const COMMANDS: &[Command] = &[
    command("ping",       -1, Run::Client(ping),   NO_KEY, "1.0.0", "[message]", "Ping the server").with(&[Flag::NotLoading, Flag::WhileSubscribed, Flag::InLog]),
    command("echo",       2,  Run::Client(echo),   NO_KEY, "1.0.0", "message",   "Echo the given string"),
    command("select",     2,  Run::Client(select), NO_KEY, "1.0.0", "index",     "Change the selected database for the current connection").with(&[Flag::InLog]),
    command("hello",      -1, Run::Client(hello),  NO_KEY, "6.0.0", "[protover [AUTH username password] [SETNAME clientname]]", "Handshake with Redis").with(&[Flag::NoScript, Flag::AllowBusy, Flag::NoAuth]),
    command("auth",       -2, Run::Client(auth),   NO_KEY, "1.0.0", "[username] password", "Authenticate to the server").with(&[Flag::NoScript, Flag::AllowBusy, Flag::NoAuth]),
    command("reset",      1,  Run::Mixed(reset),   NO_KEY, "6.2.0", "",          "Reset the connection").with(&[Flag::NoScript, Flag::AllowBusy, Flag::NoAuth, Flag::NotQueued, Flag::WhileSubscribed]),
    command("quit",       -1, Run::Client(quit),   NO_KEY, "1.0.0", "",          "Close the connection").with(&[Flag::NoScript, Flag::AllowBusy, Flag::NoAuth, Flag::NotQueued, Flag::WhileSubscribed]),
];

/// In Redis's documentation these belong to the group *server*.
#[rustfmt::skip]
pub const ACL: &[Command] = &[
    command("acl",        -2, Run::Container(None), NO_KEY, "6.0.0", "",          "A container for Access List Control commands"),
    command("acl|help",   2,  Run::Client(super::help), NO_KEY, "6.0.0", "",     "Show helpful text about the different subcommands"),
    command("acl|whoami", 2,  Run::Client(whoami), NO_KEY, "6.0.0", "",          "Return the name of the user associated to the current connection").with(&[Flag::NoScript]),
];

fn ping(client: &mut Client, args: &Args, reply: &mut Reply) -> Result<(), Error> {
    if args.len() > 2 {
        return Err(Error::WrongArity("ping"));
    }
    let message = (args.len() == 2).then(|| &args[1]);
    if client.is_subscribed() && reply.protocol == Protocol::Resp2 {
        // A RESP2 subscriber expects only messages, so the reply looks like one.
        reply.bulks(&[b"pong", message.unwrap_or_default()]);
    } else if let Some(message) = message {
        reply.bulk(message);
    } else {
        reply.status("PONG");
    }
    Ok(())
}

fn echo(_: &mut Client, args: &Args, reply: &mut Reply) -> Result<(), Error> {
    reply.bulk(&args[1]);
    Ok(())
}

fn select(client: &mut Client, args: &Args, reply: &mut Reply) -> Result<(), Error> {
    let databases = client.server.config.databases.get();
    client.db = super::args::database(&args[1], databases)?;
    reply.ok()
}

fn hello(client: &mut Client, args: &Args, reply: &mut Reply) -> Result<(), Error> {
    let mut cursor = Cursor::new(args);
    let mut protocol = None;
    if cursor.left() > 0 {
        protocol = Some(match parse_integer(cursor.next()) {
            Some(2) => Protocol::Resp2,
            Some(3) => Protocol::Resp3,
            Some(_) => return Err(Error::NoProto),
            None => return Err(Error::ProtocolNotInteger),
        });
    }
    while cursor.left() > 0 {
        let option = cursor.next();
        match option.to_ascii_uppercase().as_slice() {
            b"AUTH" if cursor.left() >= 2 => authenticate(client, cursor.next(), cursor.next())?,
            b"SETNAME" if cursor.left() >= 1 => {
                let name = cursor.next();
                check_name(name, Error::BadClientName)?;
                client.set_text(|shown| &mut shown.name, name);
            }
            _ => return Err(Error::quoting("ERR Syntax error in HELLO option '", option, "'")),
        }
    }
    if !client.authenticated {
        return Err(Error::HelloNotAuthenticated);
    }
    if let Some(protocol) = protocol {
        set_protocol(client, reply, protocol);
    }
    greet(client, reply);
    Ok(())
}

fn greet(client: &Client, reply: &mut Reply) {
    let words = |reply: &mut Reply, words: &str| {
        words.split(' ').for_each(|word| reply.bulk(word.as_bytes()));
    };
    reply.map(7);
    words(reply, &format!("server redis version {} proto", super::REDIS_VERSION));
    reply.integer(if reply.protocol == Protocol::Resp3 { 3 } else { 2 });
    words(reply, "id");
    reply.integer(client.public.id as i64);
    let role = if client.server.primary.is_set() { "replica" } else { "master" };
    words(reply, &format!("mode standalone role {role} modules"));
    reply.array(0);
}

/// Changes the protocol, from here on, even in the middle of EXEC's reply.
fn set_protocol(client: &mut Client, reply: &mut Reply, protocol: Protocol) {
    reply.protocol = protocol;
    if let Some(outbox) = &client.outbox {
        // So a message comes before this reply in the old protocol, or behind it in the new one.
        client.server.hub.between_messages(|| {
            outbox.set_protocol(protocol);
            outbox.hold();
        });
    }
}

/// A name of a client or library has only visible ASCII characters, so CLIENT LIST can be split at spaces.
pub fn check_name(name: &[u8], error: Error) -> Result<(), Error> {
    if name.iter().all(u8::is_ascii_graphic) { Ok(()) } else { Err(error) }
}

fn auth(client: &mut Client, args: &Args, reply: &mut Reply) -> Result<(), Error> {
    match args.len() {
        2 if !client.server.config.password.is_needed() => return Err(Error::NoPasswordSet),
        2 => authenticate(client, b"default", &args[1])?,
        3 => authenticate(client, &args[1], &args[2])?,
        _ => return Err(Error::Syntax),
    }
    reply.ok()
}

fn authenticate(client: &mut Client, user: &[u8], password: &[u8]) -> Result<(), Error> {
    if user != b"default" || !client.server.config.password.is_right(password) {
        return Err(Error::WrongPassword);
    }
    client.authenticated = true;
    Ok(())
}

fn reset(client: &mut Client, view: &View, _: &Args, reply: &mut Reply) -> Result<(), Error> {
    if client.is_replica && !client.monitoring {
        return Err(Error::text("ERR can only reset normal client connections"));
    }
    client.transaction = None;
    transactions::unwatch_all(client, view);
    client.unsubscribe_all();
    client.stop_monitoring();
    set_protocol(client, reply, Protocol::Resp2);
    client.set_text(|shown| &mut shown.name, b"");
    client.no_touch = false;
    client.public.shown.lock().unwrap().no_touch = false;
    client.db = 0;
    if client.replies != Replies::SkipThis {
        client.replies = Replies::On;
    }
    client.authenticated = !client.server.config.password.is_needed();
    reply.status("RESET");
    Ok(())
}

fn quit(client: &mut Client, _: &Args, reply: &mut Reply) -> Result<(), Error> {
    client.then = Then::Close;
    reply.ok()
}

fn whoami(_: &mut Client, _: &Args, reply: &mut Reply) -> Result<(), Error> {
    reply.bulk(b"default");
    Ok(())
}
