//! The commands of replicas (SYNC, PSYNC, REPLCONF), those that ask about them (ROLE, WAIT, WAITAOF), and the one
//! that makes a replica of us (REPLICAOF).
//!
//! A handler may be running under a lock, so it must not wait: PSYNC, WAIT and WAITAOF leave a [`Then`], and the
//! client's thread acts after the lock is released (serve/following.rs, serve/waiting.rs). Inside EXEC nothing
//! waits: there WAIT and WAITAOF reply at once with what holds already.
//!
//! **How Redis does it**: replication.c. WAIT waits there for what its own client has written. Here it waits for
//! all that was written before it, which may be more.

use super::{Command, Flag, NO_KEY, Run, command};
use crate::client::{Client, Replies, Then, Until, Wait};
use crate::error::Error;
use crate::handler::args::{Cursor, integer};
use crate::resp::words::split_words;
use crate::resp::{Args, Digits, Reply, parse_integer};
use crate::server::primary::Link;
use crate::server::replicas::{Request, State};
use crate::store::Origin;
use std::sync::atomic::Ordering;

#[rustfmt::skip]
pub const COMMANDS: &[Command] = &[
    command("sync",     1,  Run::Client(sync),     NO_KEY, "1.0.0", "", "Internal command used for replication").with(&[Flag::NoScript, Flag::Admin, Flag::NoMulti, Flag::NotLoading]),
    command("psync",    -3, Run::Client(psync),    NO_KEY, "2.8.0", "replicationid offset", "Internal command used for replication").with(&[Flag::NoScript, Flag::Admin, Flag::NoMulti, Flag::NotLoading]),
    command("replconf", -1, Run::Client(replconf), NO_KEY, "3.0.0", "", "An internal command for configuring the replication stream").with(&[Flag::NoScript, Flag::Admin, Flag::AllowBusy, Flag::InLog]),
    command("replicaof", 3, Run::Client(replicaof), NO_KEY, "5.0.0", "host port", "Make the server a replica of another instance, or promote it as master.").with(&[Flag::NoScript, Flag::Admin, Flag::NotLoading, Flag::Stale, Flag::GivesLockBack]),
    command("slaveof",  3,  Run::Client(replicaof), NO_KEY, "1.0.0", "host port", "Make the server a replica of another instance, or promote it as master.").with(&[Flag::NoScript, Flag::Admin, Flag::NotLoading, Flag::Stale, Flag::GivesLockBack]),
    command("role",     1,  Run::Client(role),     NO_KEY, "2.8.12", "", "Return the role of the instance in the context of replication").with(&[Flag::NoScript]),
];

/// In Redis's documentation these belong to the group *generic*.
#[rustfmt::skip]
pub const WAITING: &[Command] = &[
    command("wait",    3, Run::Client(wait),    NO_KEY, "3.0.0", "numreplicas timeout", "Wait for the synchronous replication of all the write commands sent in the context of the current connection").with(&[Flag::NoScript, Flag::NotLoading]),
    command("waitaof", 4, Run::Client(waitaof), NO_KEY, "7.2.0", "numlocal numreplicas timeout", "Wait for all write commands sent in the context of the current connection to be synced to the append-only file").with(&[Flag::NoScript, Flag::NotLoading]),
];

fn sync(client: &mut Client, _: &Args, _: &mut Reply) -> Result<(), Error> {
    follow(client, Request { from: None, is_old: true })
}

fn psync(client: &mut Client, args: &Args, _: &mut Reply) -> Result<(), Error> {
    if args.len() > 3 && args[3].eq_ignore_ascii_case(b"failover") {
        return Err(Error::text("ERR PSYNC FAILOVER can't be sent to a master."));
    }
    let offset = integer(&args[2])?;
    // The replica names the first byte that it has not got, and counts from one.
    let from =
        (&args[1] != b"?").then(|| (args[1].to_vec(), offset.saturating_sub(1).max(0) as u64));
    follow(client, Request { from, is_old: false })
}

fn follow(client: &mut Client, request: Request) -> Result<(), Error> {
    if client.is_replica {
        return Ok(());
    }
    let primary = &client.server.primary;
    if primary.is_set() && primary.status().link != Link::Up {
        return Err(Error::text("NOMASTERLINK Can't SYNC while not connected with my master"));
    }
    if client.outbox.is_some() {
        return Err(Error::text("ERR SYNC and PSYNC are invalid with pending output"));
    }
    if client.announced.no_data && !client.announced.eof {
        return Err(Error::text("ERR Filtered replica requires EOF capability"));
    }
    if !client.server.aof.is_enabled() {
        return Err(Error::text(
            "ERR a replica is sent the append-only file, and that is switched off here. Try CONFIG SET \
             appendonly yes on the primary.",
        ));
    }
    client.then = Then::Follow(request);
    Ok(())
}

/// Redis's `NET_HOST_STR_LEN`.
const LONGEST_HOST: usize = 256;

/// What a replica says of itself, and how far it is.
fn replconf(client: &mut Client, args: &Args, reply: &mut Reply) -> Result<(), Error> {
    let pairs = Cursor::new(args).pairs().ok_or(Error::Syntax)?;
    for (option, value) in pairs {
        let announced = &mut client.announced;
        match option.to_ascii_lowercase().as_slice() {
            b"listening-port" => announced.port = integer(value)?,
            b"ip-address" if value.len() < LONGEST_HOST => announced.ip = Some(value.into()),
            b"ip-address" => {
                return Err(Error::text(format!(
                    "ERR REPLCONF ip-address provided by replica instance is too long: {} bytes",
                    value.len()
                )));
            }
            b"capa" => {
                announced.eof |= value.eq_ignore_ascii_case(b"eof");
                announced.psync2 |= value.eq_ignore_ascii_case(b"psync2");
            }
            // Valkey 8 says which one it is.
            b"version" => {}
            // None of these is answered.
            b"ack" => return acknowledge(client, args),
            b"getack" => return Ok(()),
            b"rdb-only" => announced.only_snapshot = zero_or_one(integer(value)?)?,
            b"rdb-filter-only" => {
                let parts =
                    split_words(value).ok_or(Error::text("ERR Missing rdb-filter-only values"))?;
                announced.no_data = true;
                // There are no functions either.
                if let Some(other) =
                    parts.iter().find(|part| !part.eq_ignore_ascii_case(b"functions"))
                {
                    return Err(Error::quoting(
                        "ERR Unsupported rdb-filter-only option: ",
                        other,
                        "",
                    ));
                }
            }
            _ => return Err(Error::quoting("ERR Unrecognized REPLCONF option: ", option, "")),
        }
    }
    reply.ok()
}

/// `REPLCONF ACK offset [FACK offset]`: so much is in its memory, and so much on its disk.
fn acknowledge(client: &mut Client, args: &Args) -> Result<(), Error> {
    let offset = |at: usize, name: &[u8]| {
        let is_named = args.len() > at + 1 && args[at].eq_ignore_ascii_case(name);
        is_named.then(|| parse_integer(&args[at + 1])).flatten().unwrap_or(0).max(0) as u64
    };
    if client.public.connection.is_none() {
        // It stands in the log.
        client.origin = Origin::of_record(args);
    }
    if client.is_replica {
        let (offset, durable) = (offset(1, b"ack"), offset(3, b"fack"));
        client.server.replicas.acknowledge(client.public.id, offset, durable);
    }
    Ok(())
}

/// From the answer on the data is what it was, whatever the old primary sends (server/primary.rs).
fn replicaof(client: &mut Client, args: &Args, reply: &mut Reply) -> Result<(), Error> {
    let server = &client.server;
    if args[1].eq_ignore_ascii_case(b"no") && args[2].eq_ignore_ascii_case(b"one") {
        if server.primary.is_set() {
            server.primary.set(None);
            if let Some(legacy) = server.primary.take_legacy() {
                server.aof.inherit(legacy);
            }
            server.config.show_primary("");
            client.notices.push("MASTER MODE enabled (user request)".into());
        }
        return reply.ok();
    }
    if client.is_replica {
        return Err(Error::text("ERR Command is not valid when client is a replica."));
    }
    let port = parse_integer(&args[2]).and_then(|port| u16::try_from(port).ok());
    let port = port.ok_or(Error::text("ERR Invalid master port"))?;
    let host = String::from_utf8_lossy(&args[1]).into_owned();
    let address = format!("{host} {port}");
    if !server.primary.set(Some((host, port))) {
        reply.status("OK Already connected to specified master");
        return Ok(());
    }
    server.config.show_primary(&address);
    client.notices.push(format!("REPLICAOF {address} enabled (user request)"));
    // Whoever waits is told (serve/waiting.rs).
    client.demoted = true;
    reply.ok()
}

fn role(client: &mut Client, _: &Args, reply: &mut Reply) -> Result<(), Error> {
    let primary = &client.server.primary;
    let status = primary.status();
    if let Some((host, port)) = status.address {
        reply.array(5);
        reply.bulk(b"slave");
        reply.bulk(host.as_bytes());
        reply.integer(port.into());
        reply.bulk(status.link.name().as_bytes());
        let is_up = status.link == Link::Up;
        reply.integer(if is_up { primary.offset.load(Ordering::Relaxed) } else { -1 });
        return Ok(());
    }
    let mut replicas = client.server.replicas.all();
    replicas.retain(|replica| replica.state == State::Online);
    let aof = &client.server.aof;
    let counting = aof.backlog.name().counting;
    reply.array(3);
    reply.bulk(b"master");
    reply.integer(aof.shown_offset() as i64);
    reply.array(replicas.len());
    for replica in replicas {
        let port = Digits::new(replica.announced.port);
        let offset = Digits::new(replica.shown_offset(counting) as i64);
        reply.bulks(&[replica.ip().as_bytes(), port.as_bytes(), offset.as_bytes()]);
    }
    Ok(())
}

fn wait(client: &mut Client, args: &Args, reply: &mut Reply) -> Result<(), Error> {
    if client.server.primary.is_set() {
        return Err(Error::text(
            "ERR WAIT cannot be used with replica instances. Please also note that since Redis 4.0 if a replica \
             is configured to be writable (which is not the default) writes to replicas are just local and are not \
             propagated.",
        ));
    }
    let mut cursor = Cursor::new(args);
    let count = cursor.integer()?.max(0) as usize;
    let timeout_ms = timeout(&mut cursor)?;
    if client.in_exec {
        let change = client.server.aof.last_change();
        reply.count(client.server.replicas.count_online(|replica| replica.acked >= change));
    } else {
        let silent = client.replies != Replies::On;
        client.then = Then::Wait(Wait { until: Until::Replicas(count), timeout_ms, silent });
    }
    Ok(())
}

fn waitaof(client: &mut Client, args: &Args, reply: &mut Reply) -> Result<(), Error> {
    let mut cursor = Cursor::new(args);
    let local = zero_or_one(cursor.integer()?)?;
    let replicas = usize::try_from(cursor.integer()?).map_err(|_| Error::NotPositive)?;
    let timeout_ms = timeout(&mut cursor)?;
    if client.server.primary.is_set() {
        return Err(Error::text(
            "ERR WAITAOF cannot be used with replica instances. Please also note that writes to replicas are just \
             local and are not propagated.",
        ));
    }
    let aof = &client.server.aof;
    if local && !aof.is_enabled() {
        return Err(Error::text(
            "ERR WAITAOF cannot be used when numlocal is set but appendonly is disabled.",
        ));
    }
    if client.in_exec {
        let change = aof.last_change();
        reply.array(2);
        reply.integer(aof.is_durable(aof.position()).into());
        reply.count(client.server.replicas.count_online(|replica| replica.durable >= change));
    } else {
        let until = Until::Durable { local, replicas };
        let silent = client.replies != Replies::On;
        client.then = Then::Wait(Wait { until, timeout_ms, silent });
    }
    Ok(())
}

fn zero_or_one(number: i64) -> Result<bool, Error> {
    match number {
        0..=1 => Ok(number == 1),
        _ => Err(Error::text("ERR value is out of range, value must between 0 and 1")),
    }
}

/// In milliseconds. 0 waits for ever.
fn timeout(cursor: &mut Cursor) -> Result<u64, Error> {
    let timeout = cursor
        .integer()
        .map_err(|_| Error::text("ERR timeout is not an integer or out of range"))?;
    u64::try_from(timeout).map_err(|_| Error::text("ERR timeout is negative"))
}
