//! The commands of publish and subscribe. The hub is in `crate::pubsub`, the queues in front of the sockets
//! are in `crate::outbox`.
//!
//! Each name that a client subscribes to is confirmed by a message. The client's outbox holds other messages
//! back until the reply (of SUBSCRIBE, or of the whole EXEC) is queued. So no message overtakes a
//! confirmation:
//!
//! ```text
//! SUBSCRIBE a b   outbox: "subscribe a 1" "subscribe b 2" | messages of both
//! ```
//!
//! PUBLISH only finds the receivers. The batch sends the message when the log holds everything that was done
//! before it ([`crate::batch::Batch::finish`]). A receiver may react by reading a key, and what it reads must
//! still be there after a crash.
//!
//! **How Redis does it**: pubsub.c. It has one thread, so nothing can overtake anything.

use super::{ALL_KEYS, Command, Flag, NO_KEY, ONE_KEY, Run, command};
use crate::client::{Client, Replies, memory_of};
use crate::error::Error;
use crate::handler::args::Cursor;
use crate::outbox::Outbox;
use crate::pubsub::{Message, Subscription};
use crate::resp::{Args, Reply};
use crate::server::order;
use std::sync::Arc;

#[rustfmt::skip]
pub const COMMANDS: &[Command] = &[
    command("subscribe",       -2, Run::Client(subscribe),    NO_KEY, "2.0.0", "channel [channel ...]",     "Listen for messages published to the given channels").with(&[Flag::NoScript, Flag::WhileSubscribed]),
    command("unsubscribe",     -1, Run::Client(unsubscribe),  NO_KEY, "2.0.0", "[channel [channel ...]]",   "Stop listening for messages posted to the given channels").with(&[Flag::NoScript, Flag::WhileSubscribed]),
    command("psubscribe",      -2, Run::Client(psubscribe),   NO_KEY, "2.0.0", "pattern [pattern ...]",     "Listen for messages published to channels matching the given patterns").with(&[Flag::NoScript, Flag::WhileSubscribed]),
    command("punsubscribe",    -1, Run::Client(punsubscribe), NO_KEY, "2.0.0", "[pattern [pattern ...]]",   "Stop listening for messages posted to channels matching the given patterns").with(&[Flag::NoScript, Flag::WhileSubscribed]),
    command("publish",         3,  Run::Client(publish),      NO_KEY, "2.0.0", "channel message",           "Post a message to a channel").with(&[Flag::MayReplicate, Flag::GivesLockBack]),
    command("ssubscribe",      -2, Run::Client(ssubscribe),   ALL_KEYS, "7.0.0", "shardchannel [shardchannel ...]",   "Listen for messages published to the given shard channels").with(&[Flag::NoScript, Flag::WhileSubscribed]).uses("not_key"),
    command("sunsubscribe",    -1, Run::Client(sunsubscribe), ALL_KEYS, "7.0.0", "[shardchannel [shardchannel ...]]", "Stop listening for messages posted to the given shard channels").with(&[Flag::NoScript, Flag::WhileSubscribed]).uses("not_key"),
    command("spublish",        3,  Run::Client(spublish),     ONE_KEY,  "7.0.0", "shardchannel message",    "Post a message to a shard channel").with(&[Flag::MayReplicate, Flag::GivesLockBack]).uses("not_key"),
    command("pubsub",          -2, Run::Container(None),      NO_KEY, "2.8.0", "",                          "A container for Pub/Sub commands"),
    command("pubsub|channels", -2, Run::Client(channels),     NO_KEY, "2.8.0", "[pattern]",                 "List active channels").with(&[Flag::ComesAfterOthers]).help(" [<pattern>]\n    Return the currently active channels matching a <pattern> (default: '*')."),
    command("pubsub|numpat",   2,  Run::Client(numpat),       NO_KEY, "2.8.0", "",                          "Get the count of unique patterns pattern subscriptions").with(&[Flag::ComesAfterOthers]).help("\n    Return number of subscriptions to patterns."),
    command("pubsub|numsub",   -2, Run::Client(numsub),       NO_KEY, "2.8.0", "[channel [channel ...]]",   "Get the count of subscribers for channels").with(&[Flag::ComesAfterOthers]).help(" [<channel> ...]\n    Return the number of subscribers for the specified channels, excluding\n    pattern subscriptions(default: no channels)."),
    command("pubsub|shardchannels", -2, Run::Client(shardchannels), NO_KEY, "7.0.0", "[pattern]",           "List active shard channels").with(&[Flag::ComesAfterOthers]).help(" [<pattern>]\n    Return the currently active shard level channels matching a <pattern> (default: '*')."),
    command("pubsub|shardnumsub", -2, Run::Client(shardnumsub), NO_KEY, "7.0.0", "[shardchannel [shardchannel ...]]", "Get the count of subscribers for shard channels").with(&[Flag::ComesAfterOthers]).help(" [<shardchannel> ...]\n    Return the number of subscribers for the specified shard level channel(s)"),
    command("pubsub|help",     2,  Run::Client(super::help),  NO_KEY, "6.2.0", "",                          "Show helpful text about the different subcommands"),
];

fn subscribe(client: &mut Client, args: &Args, reply: &mut Reply) -> Result<(), Error> {
    add(client, Subscription::Channel, args, reply)
}

fn psubscribe(client: &mut Client, args: &Args, reply: &mut Reply) -> Result<(), Error> {
    add(client, Subscription::Pattern, args, reply)
}

/// SUBSCRIBE works inside MULTI only because it always has.
fn ssubscribe(client: &mut Client, args: &Args, reply: &mut Reply) -> Result<(), Error> {
    if client.in_exec {
        return Err(Error::text("ERR SSUBSCRIBE isn't allowed for a DENY BLOCKING client"));
    }
    add(client, Subscription::Shard, args, reply)
}

fn unsubscribe(client: &mut Client, args: &Args, reply: &mut Reply) -> Result<(), Error> {
    end(client, Subscription::Channel, args, reply)
}

fn punsubscribe(client: &mut Client, args: &Args, reply: &mut Reply) -> Result<(), Error> {
    end(client, Subscription::Pattern, args, reply)
}

fn sunsubscribe(client: &mut Client, args: &Args, reply: &mut Reply) -> Result<(), Error> {
    end(client, Subscription::Shard, args, reply)
}

fn add(client: &mut Client, to: Subscription, args: &Args, reply: &mut Reply) -> Result<(), Error> {
    let outbox = outbox(client, reply)?;
    for name in Cursor::new(args).rest() {
        if client.subscribed(to).insert(name.to_vec()) {
            client.names.add(memory_of(name));
            client.server.hub.subscribe(to, name, client.public.id, &outbox);
        }
        confirm(client, to, args, Some(name), reply);
    }
    Ok(())
}

fn end(client: &mut Client, to: Subscription, args: &Args, reply: &mut Reply) -> Result<(), Error> {
    let named: Vec<Vec<u8>> = Cursor::new(args).rest().map(<[u8]>::to_vec).collect();
    let names =
        if named.is_empty() { client.subscribed(to).iter().cloned().collect() } else { named };
    if names.is_empty() {
        confirm(client, to, args, None, reply);
    }
    for name in names {
        client.server.hub.unsubscribe(to, &name, client.public.id);
        if client.subscribed(to).remove(&name) {
            client.names.subtract(memory_of(&name));
        }
        confirm(client, to, args, Some(&name), reply);
    }
    Ok(())
}

fn confirm(
    client: &mut Client,
    to: Subscription,
    args: &Args,
    name: Option<&[u8]>,
    reply: &mut Reply,
) {
    // Confirmations are messages, so they are sent even after CLIENT REPLY OFF.
    client.must_reply = client.replies != Replies::On && !client.in_exec;
    reply.push(3);
    reply.bulk(&args[0].to_ascii_lowercase());
    reply.bulk_or_nil(name);
    let [channels, patterns, shards] = client.subscriptions();
    reply.count(if to == Subscription::Shard { shards } else { channels + patterns });
}

/// The outbox of a client that subscribes or says MONITOR. From now on all its output goes through it. The
/// outbox holds messages back until the reply to this command is queued.
pub fn outbox(client: &mut Client, reply: &Reply) -> Result<Arc<Outbox>, Error> {
    if let Some(outbox) = &client.outbox {
        outbox.hold();
        return Ok(outbox.clone());
    }
    // Only the client that replays the log has no connection, and a log holds no SUBSCRIBE.
    let connection = client.public.connection.as_ref().ok_or(Error::Syntax)?;
    let (stream, held) = (connection.stream.clone(), client.public.held.clone());
    let (public, server) = (client.public.clone(), client.server.clone());
    let mode = public.turns.mode.clone();
    let moved = move || public.reset_idle(&server);
    let outbox = Outbox::new(stream, reply.protocol, mode, held, moved);
    outbox.hold();
    client.outbox = Some(outbox.clone());
    Ok(outbox)
}

fn publish(client: &mut Client, args: &Args, reply: &mut Reply) -> Result<(), Error> {
    publish_to(Subscription::Channel, client, args, reply)
}

fn spublish(client: &mut Client, args: &Args, reply: &mut Reply) -> Result<(), Error> {
    publish_to(Subscription::Shard, client, args, reply)
}

fn publish_to(
    to: Subscription,
    client: &mut Client,
    args: &Args,
    reply: &mut Reply,
) -> Result<(), Error> {
    let (channel, text) = (&args[1], &args[2]);
    let joins_last = client.published.last().is_some_and(|last| {
        last.can_take(to, channel, text)
            && last.in_exec == client.in_exec
            && client.server.hub.is_up_to_date(last)
    });
    if !joins_last {
        let message = message_to(to, channel, client);
        client.published.push(message);
    }
    if let Some(message) = client.published.last_mut() {
        reply.count(message.receivers);
        // The EXEC of a client that is being ended runs to its end, but must not take more memory.
        if message.receivers > 0 && !client.public.held.is_ended() {
            client.publishing.add(message.push(text));
        }
    }
    client.published.pop_if(|message| message.is_empty());
    Ok(())
}

/// A message, still without a text, to those who are subscribed when they have done what they sent before.
fn message_to(to: Subscription, channel: &[u8], client: &mut Client) -> Message {
    let mut message = client.server.hub.message(to, channel);
    if must_wait_for_receivers(client, &message) {
        let receivers = client.server.clients.those(client.waited_for.iter().copied());
        order::wait_for_others(&receivers, Some(&client.public));
        // Some may have unsubscribed since the message was made.
        if !client.server.hub.is_up_to_date(&message) {
            message = client.server.hub.message(to, channel);
        }
    }
    message.in_exec = client.in_exec;
    message
}

/// With more receivers than this, PUBLISH does not wait for them. To look at one takes half a microsecond, a
/// twentieth of what it costs to send it a message.
const FEW: usize = 16;

/// Whether PUBLISH must wait until the receivers have done what they sent (server/order.rs). The batch need
/// not wait twice in a row for the same ones. In a crowd nobody waits.
fn must_wait_for_receivers(client: &mut Client, message: &Message) -> bool {
    let is_done = || message.ids().eq(client.waited_for.iter().copied());
    if client.in_exec || message.receivers > FEW || is_done() {
        return false;
    }
    client.waited_for.clear();
    client.waited_for.extend(message.ids());
    !client.server.hub.is_crowded()
}

fn channels(client: &mut Client, args: &Args, reply: &mut Reply) -> Result<(), Error> {
    list(Subscription::Channel, client, args, reply)
}

fn shardchannels(client: &mut Client, args: &Args, reply: &mut Reply) -> Result<(), Error> {
    list(Subscription::Shard, client, args, reply)
}

fn list(
    of: Subscription,
    client: &mut Client,
    args: &Args,
    reply: &mut Reply,
) -> Result<(), Error> {
    let pattern = match args.len() {
        2 => None,
        3 => Some(&args[2]),
        _ => return Err(super::subcommand_syntax(args)),
    };
    let channels = client.server.hub.channels(of, pattern);
    reply.bulks(&channels);
    Ok(())
}

fn numsub(client: &mut Client, args: &Args, reply: &mut Reply) -> Result<(), Error> {
    count_each(Subscription::Channel, client, args, reply)
}

fn shardnumsub(client: &mut Client, args: &Args, reply: &mut Reply) -> Result<(), Error> {
    count_each(Subscription::Shard, client, args, reply)
}

fn count_each(
    of: Subscription,
    client: &mut Client,
    args: &Args,
    reply: &mut Reply,
) -> Result<(), Error> {
    let names = Cursor::at(args, 2).rest();
    reply.array(2 * names.len());
    reply.each(names, |reply, name| {
        reply.bulk(name);
        reply.count(client.server.hub.subscribers(of, name));
    });
    Ok(())
}

fn numpat(client: &mut Client, _: &Args, reply: &mut Reply) -> Result<(), Error> {
    reply.count(client.server.hub.count(Subscription::Pattern));
    Ok(())
}
