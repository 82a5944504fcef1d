//! The CLIENT command: it lists, names and kills connections.
//!
//! A thread cannot look into the `Client` of another thread. So CLIENT LIST shows each client's `Public`,
//! which its thread updates once per batch. CLIENT KILL sets a flag, and shuts the socket down:
//!
//! ```text
//! CLIENT KILL ID 7     ─▶ Held::end ──────▶ checked before each command (serve.rs), and while a
//!                      │                    reply grows (resp/reply.rs)
//!                      └▶ shutdown(Both) ─▶ its read returns 0, its write fails
//! ```
//!
//! With the flag alone, a thread that waits for input would go on waiting. With the shutdown alone, a thread
//! would still run all the commands that it has read. A client that kills itself gets its reply before its
//! connection is closed.
//!
//! CLIENT PAUSE closes a gate in front of the commands of all clients: see server/pause.rs.
//!
//! **How Redis does it**: networking.c, `clientCommand`. Redis looks at the buffers of each client when it is
//! asked. Here their sizes are kept in `Held::buffers`, and src/handler/README.md says what the fields mean.
//! TRACKING is not here.

use super::{Command, Flag, NO_KEY, Run, TABLE, command, subcommand_syntax};
use crate::client::{Client, Replies, Then};
use crate::error::Error;
use crate::handler::args::{Cursor, integer};
use crate::handler::connection::check_name;
use crate::held::End;
use crate::resp::{Args, Protocol, Reply, parse_integer};
use crate::server::mailbox::{Answer, Recipient};
use crate::server::memory::IDLE_CLIENT;
use crate::server::pause::Paused;
use crate::server::{Blocked, Public, Shown};
use crate::store::View;
use std::os::fd::AsRawFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

#[rustfmt::skip]
pub const COMMANDS: &[Command] = &[
    command("client",         -2, Run::Container(None),      NO_KEY, "2.4.0", "", "A container for client connection commands"),
    command("client|id",      2,  Run::Client(id),           NO_KEY, "5.0.0", "", "Returns the client ID for the current connection").with(&[Flag::NoScript]),
    command("client|getname", 2,  Run::Client(getname),      NO_KEY, "2.6.9", "", "Get the current connection name").with(&[Flag::NoScript]),
    command("client|setname", 3,  Run::Client(setname),      NO_KEY, "2.6.9", "connection-name", "Set the current connection name").with(&[Flag::NoScript]),
    command("client|setinfo", 4,  Run::Client(setinfo),      NO_KEY, "7.2.0", "LIB-NAME libname|LIB-VER libver", "Set client or connection specific info").with(&[Flag::NoScript]),
    command("client|info",    2,  Run::Client(info),         NO_KEY, "6.2.0", "", "Returns information about the current client connection.").with(&[Flag::NoScript]),
    command("client|list",    -2, Run::Client(list),         NO_KEY, "2.4.0", "[TYPE NORMAL|MASTER|REPLICA|PUBSUB] [ID client-id [client-id ...]]", "Get the list of client connections").with(&[Flag::NoScript, Flag::Admin, Flag::ComesAfterOthers]),
    command("client|kill",    -3, Run::Client(kill),         NO_KEY, "2.4.0", "ip:port|[ID client-id] [TYPE NORMAL|MASTER|SLAVE|REPLICA|PUBSUB] [USER username] [ADDR ip:port] [LADDR ip:port] [SKIPME YES|NO]", "Kill the connection of a client").with(&[Flag::NoScript, Flag::Admin, Flag::ComesAfterOthers]),
    command("client|unblock", -3, Run::Mixed(unblock),       NO_KEY, "5.0.0", "client-id [TIMEOUT|ERROR]", "Unblock a client blocked in a blocking command from a different connection").with(&[Flag::NoScript, Flag::Admin]),
    command("client|pause",   -3, Run::Mixed(pause),         NO_KEY, "2.9.50", "timeout [WRITE|ALL]", "Stop processing commands from clients for some time").with(&[Flag::NoScript, Flag::Admin]),
    command("client|unpause", 2,  Run::Client(unpause),      NO_KEY, "6.2.0", "", "Resume processing of clients that were paused").with(&[Flag::NoScript, Flag::Admin]),
    command("client|no-evict", 3, Run::Client(no_evict),     NO_KEY, "7.0.0", "ON|OFF", "Set client eviction mode for the current connection").with(&[Flag::NoScript, Flag::Admin]),
    command("client|no-touch", 3, Run::Client(no_touch),     NO_KEY, "7.2.0", "ON|OFF", "Controls whether commands sent by the client affect the LRU/LFU of accessed keys.").with(&[Flag::NoScript]),
    command("client|reply",   3,  Run::Client(reply_mode),   NO_KEY, "3.2.0", "ON|OFF|SKIP", "Instruct the server whether to reply to commands").with(&[Flag::NoScript]),
    command("client|help",    2,  Run::Client(super::help),  NO_KEY, "5.0.0", "", "Show helpful text about the different subcommands"),
];

fn id(client: &mut Client, _: &Args, reply: &mut Reply) -> Result<(), Error> {
    reply.integer(client.public.id as i64);
    Ok(())
}

fn getname(client: &mut Client, _: &Args, reply: &mut Reply) -> Result<(), Error> {
    let shown = client.public.shown.lock().unwrap();
    reply.bulk_or_nil((!shown.name.is_empty()).then_some(&shown.name));
    Ok(())
}

fn setname(client: &mut Client, args: &Args, reply: &mut Reply) -> Result<(), Error> {
    check_name(&args[2], Error::BadClientName)?;
    client.set_text(|shown| &mut shown.name, &args[2]);
    reply.ok()
}

/// Client libraries send their name and version. Redis 7.0 does not know this command yet; 7.2 does.
fn setinfo(client: &mut Client, args: &Args, reply: &mut Reply) -> Result<(), Error> {
    type Field = fn(&mut Shown) -> &mut Vec<u8>;
    let (option, field): (_, Field) = match args[2].to_ascii_uppercase().as_slice() {
        b"LIB-NAME" => ("lib-name", |shown| &mut shown.lib_name),
        b"LIB-VER" => ("lib-ver", |shown| &mut shown.lib_ver),
        _ => return Err(Error::quoting("ERR Unrecognized option '", &args[2], "'")),
    };
    let text = format!("ERR {option} cannot contain spaces, newlines or special characters.");
    check_name(&args[3], Error::text(text))?;
    client.set_text(field, &args[3]);
    reply.ok()
}

fn info(client: &mut Client, args: &Args, reply: &mut Reply) -> Result<(), Error> {
    bring_up_to_date(client, args, reply);
    reply.verbatim(&(describe(&client.public, client) + "\n"));
    Ok(())
}

/// Which clients have this TYPE, in LIST and KILL.
fn of_type(name: &[u8]) -> Result<fn(&Public) -> bool, Error> {
    match name.to_ascii_lowercase().as_slice() {
        b"normal" => Ok(|public| {
            let shown = public.shown.lock().unwrap();
            !shown.is_subscribed() && !shown.follows && !shown.is_primary
        }),
        b"pubsub" => Ok(|public| public.shown.lock().unwrap().is_subscribed()),
        b"replica" | b"slave" => Ok(|public| public.shown.lock().unwrap().follows),
        b"master" => Ok(|public| public.shown.lock().unwrap().is_primary),
        _ => Err(Error::quoting("ERR Unknown client type '", name, "'")),
    }
}

fn list(client: &mut Client, args: &Args, reply: &mut Reply) -> Result<(), Error> {
    let mut wanted_type = None;
    let mut wanted_ids = None;
    let mut cursor = Cursor::at(args, 2);
    match cursor.option().as_deref() {
        None => {}
        Some(b"TYPE") if cursor.left() == 1 => wanted_type = Some(of_type(cursor.next())?),
        Some(b"ID") if cursor.left() >= 1 => {
            let ids = cursor.rest().map(|id| match parse_integer(id) {
                Some(id) => Ok(id as u64),
                None => Err(Error::text("ERR Invalid client ID")),
            });
            wanted_ids = Some(ids.collect::<Result<Vec<u64>, Error>>()?);
        }
        Some(_) => return Err(Error::Syntax),
    }
    bring_up_to_date(client, args, reply);
    let all = client.server.clients.all();
    let listed: Vec<&Arc<Public>> = match &wanted_ids {
        // In the order of the arguments.
        Some(ids) => ids
            .iter()
            .flat_map(|id| all.binary_search_by_key(id, |client| client.id))
            .map(|at| &all[at])
            .collect(),
        None => all.iter().filter(|c| wanted_type.is_none_or(|is_wanted| is_wanted(c))).collect(),
    };
    // A client that is named a million times has a million lines, which stand here before they are the reply.
    let mut lines = String::new();
    for other in listed {
        lines += &(describe(other, client) + "\n");
        if !reply.out.takes(lines.capacity()) {
            break;
        }
    }
    reply.verbatim(&lines);
    Ok(())
}

/// Updates the client's own line, which would otherwise be one batch old.
fn bring_up_to_date(client: &Client, args: &Args, reply: &Reply) {
    let row = if client.in_exec { TABLE.find(b"exec") } else { TABLE.named_by(args) };
    client.update_public(reply.protocol, row.map(|row| row.index));
    client.public.shown.lock().unwrap().args_length = args.length();
}

/// A client in CLIENT LIST, and in the server's own messages.
pub fn describe(public: &Public, viewer: &Client) -> String {
    let shown = public.shown.lock().unwrap();
    let (local, fd) = public.connection.as_ref().map_or(("?:0".into(), -1), |connection| {
        (connection.local.to_string(), connection.stream.as_raw_fd())
    });
    let idle = public.idle(&viewer.server);
    let states = [
        (shown.monitoring, "O"),
        (shown.follows, "S"),
        (shown.is_primary, "M"),
        (shown.is_subscribed(), "P"),
        (shown.queued.is_some(), "x"),
        (public.is_blocked(), "b"),
        (public.watch_flag.load(Ordering::Relaxed), "d"),
        (public.held.no_evict.load(Ordering::Relaxed), "e"),
        (shown.no_touch, "T"),
        (public.is_unix(), "U"),
    ];
    let flags: String = states.iter().filter(|(on, _)| *on).map(|(_, letter)| *letter).collect();
    let flags = if flags.is_empty() { "N" } else { &flags };
    let command = shown.last_command.and_then(|row| TABLE.rows.get(row));
    let [channels, patterns, shards] = shown.subscriptions;
    format!(
        "id={} addr={} laddr={local} fd={fd} name={} age={} idle={} flags={flags} db={} sub={} \
         psub={} ssub={} multi={} {} cmd={} user=default redir=-1 resp={} lib-name={} \
         lib-ver={} watch={}",
        public.id,
        public.address(),
        String::from_utf8_lossy(&shown.name),
        public.since.elapsed().as_secs(),
        idle / 1000,
        shown.db,
        channels,
        patterns,
        shards,
        shown.queued.map_or(-1, |(count, _)| count as i64),
        describe_buffers(public, &shown, viewer),
        command.map_or("NULL", |row| row.command.name),
        if shown.protocol == Protocol::Resp3 { 3 } else { 2 },
        String::from_utf8_lossy(&shown.lib_name),
        String::from_utf8_lossy(&shown.lib_ver),
        shown.watching,
    )
}

/// Bytes.
const REPLY_BUFFER: usize = 64 * 1024;

/// The fields about the memory of a client. The first 64 KiB of replies that were not sent yet are those of a
/// fixed buffer to Redis, and the rest is its list of replies.
fn describe_buffers(public: &Public, shown: &Shown, viewer: &Client) -> String {
    let of = |size: &AtomicUsize| size.load(Ordering::Relaxed);
    let buffers = &public.held.buffers;
    // Its thread may not know yet that it has been served.
    let has_command = public.is_blocked() || public.id == viewer.public.id;
    let argv = if has_command { shown.args_length } else { 0 };
    let (input, unsent) = (of(&buffers.input), of(&buffers.unsent));
    let input_free = of(&buffers.input_room).saturating_sub(input);
    let multi = shown.queued.map_or(0, |(_, bytes)| bytes);
    let (room, longest) = (of(&buffers.reply_room), of(&buffers.longest_reply));
    let in_buffer = unsent.min(REPLY_BUFFER);
    let (queued, queue) = (of(&buffers.queued), of(&buffers.queue));
    let listed = usize::from(unsent > in_buffer) + usize::from(queued > 0);
    let list = unsent - in_buffer + if queued > 0 { queue } else { 0 };
    let sum = input + input_free + argv + multi + room + list;
    let total = IDLE_CLIENT + sum.max(public.held.most());
    let events = if unsent + queued > 0 { "rw" } else { "r" };
    format!(
        "qbuf={input} qbuf-free={input_free} argv-mem={argv} multi-mem={multi} rbs={room} rbp={longest} \
         obl={in_buffer} oll={listed} omem={list} tot-mem={total} events={events}"
    )
}

/// The conditions of KILL. A client must meet all of them.
#[derive(Default)]
struct Filter {
    id: Option<u64>,
    of_type: Option<fn(&Public) -> bool>,
    addr: Option<Vec<u8>>,
    local: Option<Vec<u8>>,
    skip_me: bool,
}

impl Filter {
    /// Either the old form `CLIENT KILL ip:port`, or options with values.
    fn parse(args: &Args) -> Result<Filter, Error> {
        if args.len() == 3 {
            return Ok(Filter { addr: Some(args[2].to_vec()), ..Filter::default() });
        }
        let mut filter = Filter { skip_me: true, ..Filter::default() };
        let mut cursor = Cursor::at(args, 2);
        while let Some(option) = cursor.option() {
            let value = cursor.operand()?;
            match option.as_slice() {
                b"ID" => match parse_integer(value) {
                    Some(id @ 1..) => filter.id = Some(id as u64),
                    _ => return Err(Error::text("ERR client-id should be greater than 0")),
                },
                b"TYPE" => filter.of_type = Some(of_type(value)?),
                b"ADDR" => filter.addr = Some(value.to_vec()),
                b"LADDR" => filter.local = Some(value.to_vec()),
                b"USER" if value == b"default" => {}
                b"USER" => return Err(Error::quoting("ERR No such user '", value, "'")),
                b"SKIPME" => match value.to_ascii_lowercase().as_slice() {
                    b"yes" => filter.skip_me = true,
                    b"no" => filter.skip_me = false,
                    _ => return Err(Error::Syntax),
                },
                _ => return Err(Error::Syntax),
            }
        }
        Ok(filter)
    }

    fn fits(&self, public: &Public) -> bool {
        let local = || public.connection.as_ref().map(|c| c.local.to_string().into_bytes());
        self.id.is_none_or(|id| id == public.id)
            && self.of_type.is_none_or(|is_of_type| is_of_type(public))
            && self.addr.as_ref().is_none_or(|addr| addr == public.address().as_bytes())
            && self.local.as_ref().is_none_or(|wanted| Some(wanted) == local().as_ref())
    }
}

fn kill(client: &mut Client, args: &Args, reply: &mut Reply) -> Result<(), Error> {
    let filter = Filter::parse(args)?;
    let old_form = args.len() == 3;
    let mut killed = 0;
    let all = client.server.clients.all();
    for other in all.iter().filter(|other| filter.fits(other)) {
        if other.id != client.public.id {
            other.held.kill(End::Killed);
        } else if filter.skip_me {
            continue;
        } else {
            // It still gets its reply.
            client.then = Then::Close;
        }
        killed += 1;
    }
    match killed {
        0 if old_form => return Err(Error::text("ERR No such client")),
        _ if old_form => return reply.ok(),
        _ => reply.integer(killed),
    }
    Ok(())
}

/// Ends the waiting of a client, as if its time were over or by an error.
fn unblock(client: &mut Client, view: &View, args: &Args, reply: &mut Reply) -> Result<(), Error> {
    let mut cursor = Cursor::at(args, 3);
    let fails = match cursor.option().as_deref() {
        Some(_) if cursor.left() > 0 => return Err(subcommand_syntax(args)),
        None | Some(b"TIMEOUT") => false,
        Some(b"ERROR") => true,
        _ => return Err(Error::text("ERR CLIENT UNBLOCK reason should be TIMEOUT or ERROR")),
    };
    let id = integer(&args[2])? as u64;
    let clients = &client.server.clients;
    let waiter = view.stop_waiting(id);
    let why = if waiter.is_some() { Blocked::Key } else { Blocked::Log };
    let to = clients.find(id).filter(|to| clients.unblock(to, why));
    reply.integer(to.is_some().into());
    let Some(to) = to else {
        return Ok(());
    };
    // As in Redis, a command has failed if it was told to stop waiting, whatever it answers.
    let row = match &waiter {
        Some(waiter) => TABLE.recorded(&waiter.args).map(|row| row.index),
        None => to.shown.lock().unwrap().last_command,
    };
    client.server.stats.count_failed(row);
    let mut answer = Reply::new();
    match (waiter, fails) {
        (Some(waiter), _) if waiter.silent => {}
        (_, true) => answer.error(&Error::text("UNBLOCKED client unblocked via CLIENT UNBLOCK")),
        (Some(waiter), false) => {
            answer.protocol = waiter.protocol;
            answer.nil_array();
        }
        // WAIT answers for itself.
        (None, false) => {}
    }
    client.answers.push(Answer { to: Recipient { client: to }, reply: answer, is_logged: false });
    Ok(())
}

/// The shared lock is held, so no writer is at work. A writer that waits for its lock looks again when it has it.
fn pause(client: &mut Client, _: &View, args: &Args, reply: &mut Reply) -> Result<(), Error> {
    let mut cursor = Cursor::at(args, 3);
    let what = match cursor.option().as_deref() {
        Some(_) if cursor.left() > 0 => return Err(subcommand_syntax(args)),
        None | Some(b"ALL") => Paused::All,
        Some(b"WRITE") => Paused::Writes,
        _ => return Err(Error::text("ERR CLIENT PAUSE mode must be WRITE or ALL")),
    };
    match parse_integer(&args[2]) {
        None => return Err(Error::text("ERR timeout is not an integer or out of range")),
        Some(..0) => return Err(Error::text("ERR timeout is negative")),
        Some(ms) => client.server.pause.begin(what, ms),
    }
    reply.ok()
}

fn unpause(client: &mut Client, _: &Args, reply: &mut Reply) -> Result<(), Error> {
    client.server.pause.end();
    reply.ok()
}

fn no_evict(client: &mut Client, args: &Args, reply: &mut Reply) -> Result<(), Error> {
    client.public.held.no_evict.store(on_or_off(&args[2])?, Ordering::Relaxed);
    reply.ok()
}

fn no_touch(client: &mut Client, args: &Args, reply: &mut Reply) -> Result<(), Error> {
    client.no_touch = on_or_off(&args[2])?;
    client.public.shown.lock().unwrap().no_touch = client.no_touch;
    reply.ok()
}

fn on_or_off(word: &[u8]) -> Result<bool, Error> {
    match word.to_ascii_lowercase().as_slice() {
        b"on" => Ok(true),
        b"off" => Ok(false),
        _ => Err(Error::Syntax),
    }
}

/// CLIENT REPLY.
fn reply_mode(client: &mut Client, args: &Args, reply: &mut Reply) -> Result<(), Error> {
    match args[2].to_ascii_uppercase().as_slice() {
        b"ON" => {
            client.replies = Replies::On;
            return reply.ok();
        }
        b"OFF" => client.replies = Replies::Off,
        b"SKIP" if client.replies != Replies::Off => client.replies = Replies::SkipNext,
        b"SKIP" => {}
        _ => return Err(Error::Syntax),
    }
    Ok(())
}
