//! Publish and subscribe: messages that nobody keeps.
//!
//! The hub is in `crate::pubsub`, the queues in front of the sockets in `crate::outbox`; here are the commands.
//! Each name is confirmed by a message of its own. From SUBSCRIBE on the client's queue holds messages back
//! until the reply is queued, alone or as part of EXEC's, so no message can overtake a confirmation:
//!
//! ```text
//! SUBSCRIBE a b   queue: "subscribe a 1" "subscribe b 2" | messages of both
//! ```
//!
//! PUBLISH only says who is to hear: the batch sends its messages when the log holds what was done before them
//! ([`crate::batch::Batch::finish`]), for who hears of it may look, after a crash too.
//!
//! **How Redis does it**: pubsub.c. One thread does everything there, so nothing can overtake
//! anything, and a reply is a message like any other.

use super::{Command, Flag, NO_KEY, Run, command};
use crate::client::{Client, Replies, memory_of};
use crate::error::Error;
use crate::handler::args::Cursor;
use crate::held::Class;
use crate::outbox::Outbox;
use crate::pubsub::{Kind, Message};
use crate::resp::{Args, Reply};
use crate::server::order;
use std::sync::Arc;

#[rustfmt::skip]
pub const COMMANDS: &[Command] = &[
    command("subscribe",       -2, Run::Client(subscribe),    NO_KEY, "2.0.0", "channel [channel ...]",     "Listen for messages published to the given channels").with(&[Flag::WhileSubscribed]),
    command("unsubscribe",     -1, Run::Client(unsubscribe),  NO_KEY, "2.0.0", "[channel [channel ...]]",   "Stop listening for messages posted to the given channels").with(&[Flag::WhileSubscribed]),
    command("psubscribe",      -2, Run::Client(psubscribe),   NO_KEY, "2.0.0", "pattern [pattern ...]",     "Listen for messages published to channels matching the given patterns").with(&[Flag::WhileSubscribed]),
    command("punsubscribe",    -1, Run::Client(punsubscribe), NO_KEY, "2.0.0", "[pattern [pattern ...]]",   "Stop listening for messages posted to channels matching the given patterns").with(&[Flag::WhileSubscribed]),
    command("publish",         3,  Run::Client(publish),      NO_KEY, "2.0.0", "channel message",           "Post a message to a channel").with(&[Flag::MayReplicate, Flag::GivesLockBack]),
    command("pubsub",          -2, Run::Container(None),      NO_KEY, "2.8.0", "",                          "A container for Pub/Sub commands"),
    command("pubsub|channels", -2, Run::Client(channels),     NO_KEY, "2.8.0", "[pattern]",                 "List active channels").with(&[Flag::CountsClients]),
    command("pubsub|numsub",   -2, Run::Client(numsub),       NO_KEY, "2.8.0", "[channel [channel ...]]",   "Get the count of subscribers for channels").with(&[Flag::CountsClients]),
    command("pubsub|numpat",   2,  Run::Client(numpat),       NO_KEY, "2.8.0", "",                          "Get the count of unique patterns pattern subscriptions").with(&[Flag::CountsClients]),
    command("pubsub|help",     2,  Run::Client(super::help),  NO_KEY, "6.2.0", "",                          "Show helpful text about the different subcommands"),
];

fn subscribe(client: &mut Client, args: &Args, reply: &mut Reply) -> Result<(), Error> {
    add(client, Kind::Channel, "subscribe", args, reply)
}

fn psubscribe(client: &mut Client, args: &Args, reply: &mut Reply) -> Result<(), Error> {
    add(client, Kind::Pattern, "psubscribe", args, reply)
}

fn unsubscribe(client: &mut Client, args: &Args, reply: &mut Reply) -> Result<(), Error> {
    remove(client, Kind::Channel, "unsubscribe", args, reply)
}

fn punsubscribe(client: &mut Client, args: &Args, reply: &mut Reply) -> Result<(), Error> {
    remove(client, Kind::Pattern, "punsubscribe", args, reply)
}

fn add(
    client: &mut Client,
    kind: Kind,
    word: &str,
    args: &Args,
    reply: &mut Reply,
) -> Result<(), Error> {
    let outbox = outbox(client, reply)?;
    for name in Cursor::new(args).rest() {
        let is_new = client.subscribed(kind).insert(name.to_vec());
        if is_new {
            client.names.add(memory_of(name));
            let hub = &client.server.hub;
            hub.subscribe(kind, name, client.public.id, &outbox);
        }
        confirm(client, word, Some(name), reply);
    }
    Ok(())
}

fn remove(
    client: &mut Client,
    kind: Kind,
    word: &str,
    args: &Args,
    reply: &mut Reply,
) -> Result<(), Error> {
    let named: Vec<Vec<u8>> = Cursor::new(args).rest().map(<[u8]>::to_vec).collect();
    let names =
        if named.is_empty() { client.subscribed(kind).iter().cloned().collect() } else { named };
    if names.is_empty() {
        confirm(client, word, None, reply);
    }
    for name in names {
        client.server.hub.unsubscribe(kind, &name, client.public.id);
        if client.subscribed(kind).remove(&name) {
            client.names.subtract(memory_of(&name));
        }
        confirm(client, word, Some(&name), reply);
    }
    Ok(())
}

fn confirm(client: &mut Client, word: &str, name: Option<&[u8]>, reply: &mut Reply) {
    // As messages, confirmations come in spite of CLIENT REPLY OFF.
    client.confirms = client.replies != Replies::On && !client.in_exec;
    reply.push(3);
    reply.bulk(word.as_bytes());
    reply.bulk_or_nil(name);
    reply.count(client.channels.len() + client.patterns.len());
}

/// The queue of a client that is about to be sent messages: it holds them until the reply to this command
/// is in it. From now on all output of the client goes through it.
pub fn outbox(client: &mut Client, reply: &Reply) -> Result<Arc<Outbox>, Error> {
    if let Some(outbox) = &client.outbox {
        outbox.hold();
        return Ok(outbox.clone());
    }
    // Only the client that replays has none, and no log may hold a SUBSCRIBE.
    let connection = client.public.connection.as_ref().ok_or(Error::Syntax)?;
    let (stream, held) = (connection.stream.clone(), client.public.held.clone());
    let outbox = Outbox::new(stream, reply.protocol, Class::Pubsub, held);
    outbox.hold();
    client.outbox = Some(outbox.clone());
    Ok(outbox)
}

fn publish(client: &mut Client, args: &Args, reply: &mut Reply) -> Result<(), Error> {
    let mut message = client.server.hub.message(&args[1], &args[2]);
    if has_to_hear_out(client, &message) {
        let receivers = client.server.clients.those(client.heard.iter().copied());
        order::hear_out(&receivers, Some(&client.public));
        // They may have done it before we looked at them, too.
        if client.server.hub.has_changed_since(&message) {
            message = client.server.hub.message(&args[1], &args[2]);
        }
    }
    let receivers = message.receivers();
    reply.count(receivers);
    // Whoever is ended for what it holds adds no more to it: its EXEC goes on to the end.
    if receivers > 0 && !client.public.held.is_ended() {
        client.publishing.add(message.memory());
        client.published.push(message);
    }
    Ok(())
}

/// Receivers who are looked at before they are counted. It takes half a microsecond each, which is a
/// twentieth of what a message costs.
const FEW: usize = 16;

/// Whether what the receivers have sent may have to be done before they are counted: not if the batch has
/// just asked that for the same ones.
fn has_to_hear_out(client: &mut Client, message: &Message) -> bool {
    let is_heard = || message.ids().eq(client.heard.iter().copied());
    if client.in_exec || message.receivers() > FEW || is_heard() {
        return false;
    }
    client.heard.clear();
    client.heard.extend(message.ids());
    true
}

fn channels(client: &mut Client, args: &Args, reply: &mut Reply) -> Result<(), Error> {
    let pattern = match args.len() {
        2 => None,
        3 => Some(&args[2]),
        _ => return Err(super::subcommand_syntax(args)),
    };
    let channels = client.server.hub.channels(pattern);
    reply.bulks(&channels);
    Ok(())
}

fn numsub(client: &mut Client, args: &Args, reply: &mut Reply) -> Result<(), Error> {
    let names = Cursor::at(args, 2).rest();
    reply.array(2 * names.len());
    reply.each(names, |reply, name| {
        reply.bulk(name);
        reply.count(client.server.hub.subscribers(name));
    });
    Ok(())
}

fn numpat(client: &mut Client, _: &Args, reply: &mut Reply) -> Result<(), Error> {
    reply.count(client.server.hub.counts().1);
    Ok(())
}
