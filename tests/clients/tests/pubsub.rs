//! What is published reaches who subscribed, in order; the rest hear nothing.
//!
//! A subscriber of RESP2 has a connection for that alone. One of RESP3 goes on with commands on
//! the same connection, and finds messages as pushes between its replies.
//!
//! PUBLISH returns after the message has been handed to each subscriber, so a test that published
//! and then reads needs no sleep; the read timeout only bounds what would be a failure anyway.

use redis::{Client, Commands, Msg, PushInfo, PushKind, RedisResult, cmd};
use simple_redis_clients::{GUARD, Server};
use std::sync::mpsc::channel;

fn text(message: &Msg) -> RedisResult<(String, String)> {
    Ok((message.get_channel_name().to_string(), message.get_payload()?))
}

fn pair(channel: &str, payload: &str) -> (String, String) {
    (channel.to_string(), payload.to_string())
}

#[test]
fn a_subscriber_gets_every_message_in_order() -> RedisResult<()> {
    let server = Server::start();
    let client = Client::open(server.url())?;
    let (mut subscriber, mut publisher) = (client.get_connection()?, client.get_connection()?);
    subscriber.set_read_timeout(Some(GUARD))?;
    let mut subscriber = subscriber.as_pubsub();
    subscriber.subscribe("in order")?;
    assert_eq!(publisher.publish::<_, _, i64>("nobody listens", "x")?, 0);
    for n in 0..1000 {
        assert_eq!(publisher.publish::<_, _, i64>("in order", n)?, 1);
    }
    for n in 0..1000 {
        assert_eq!(subscriber.get_message()?.get_payload::<i64>()?, n);
    }
    Ok(())
}

#[test]
fn patterns_and_channels_each_get_their_own_message() -> RedisResult<()> {
    let server = Server::start();
    let client = Client::open(server.url())?;
    let (mut subscriber, mut publisher) = (client.get_connection()?, client.get_connection()?);
    subscriber.set_read_timeout(Some(GUARD))?;
    let mut subscriber = subscriber.as_pubsub();
    // One by one: for a list of channels the crate waits for the first confirmation only, so what
    // follows could overtake the rest.
    subscriber.subscribe("news.art")?;
    subscriber.subscribe("news.sport")?;
    subscriber.psubscribe("news.*")?;
    assert_eq!(publisher.publish::<_, _, i64>("news.art", "a")?, 2);
    assert_eq!(publisher.publish::<_, _, i64>("news.local", "l")?, 1);
    assert_eq!(publisher.publish::<_, _, i64>("olds.art", "o")?, 0);

    let message = subscriber.get_message()?;
    assert_eq!((text(&message)?, message.from_pattern()), (pair("news.art", "a"), false));
    let message = subscriber.get_message()?;
    assert_eq!((text(&message)?, message.from_pattern()), (pair("news.art", "a"), true));
    let message = subscriber.get_message()?;
    assert_eq!((text(&message)?, message.from_pattern()), (pair("news.local", "l"), true));
    assert_eq!(message.get_pattern::<String>()?, "news.*");

    subscriber.punsubscribe("news.*")?;
    assert_eq!(publisher.publish::<_, _, i64>("news.local", "l")?, 0);
    assert_eq!(publisher.publish::<_, _, i64>("news.sport", "s")?, 1);
    assert_eq!(text(&subscriber.get_message()?)?, pair("news.sport", "s"));
    Ok(())
}

/// When its `PubSub` is dropped, the crate sends UNSUBSCRIBE and PUNSUBSCRIBE without arguments
/// and reads until both are answered, although there was no pattern to leave.
#[test]
fn a_connection_that_has_left_its_channels_serves_commands_again() -> RedisResult<()> {
    let server = Server::start();
    for url in [server.url(), server.url_resp3()] {
        let client = Client::open(url)?;
        let (mut one, mut other) = (client.get_connection()?, client.get_connection()?);
        one.set_read_timeout(Some(GUARD))?;
        let mut subscriber = one.as_pubsub();
        subscriber.subscribe("left 1")?;
        subscriber.subscribe("left 2")?;
        assert_eq!(other.publish::<_, _, i64>("left 1", "unread")?, 1);
        drop(subscriber);
        () = one.set("back", "to work")?;
        assert_eq!(one.get::<_, String>("back")?, "to work");
        assert_eq!(other.publish::<_, _, i64>("left 1", "x")?, 0);
    }
    Ok(())
}

#[test]
fn a_subscriber_of_resp3_goes_on_with_commands() -> RedisResult<()> {
    let server = Server::start();
    let mut one = Client::open(server.url_resp3())?.get_connection()?;
    let mut other = Client::open(server.url())?.get_connection()?;
    one.set_read_timeout(Some(GUARD))?;
    let (sender, pushes) = channel();
    one.set_push_sender(sender);
    one.subscribe_resp3("resp3")?;
    one.psubscribe_resp3("resp?")?;
    () = one.set("key", "value")?;
    assert_eq!(other.publish::<_, _, i64>("resp3", "from another")?, 2);
    assert_eq!(one.get::<_, String>("key")?, "value");
    // One's own message comes before the reply to PUBLISH, so the crate has it when that returns.
    assert_eq!(one.publish::<_, _, i64>("resp3", "my own")?, 2);
    one.unsubscribe_resp3("resp3")?;
    assert_eq!(cmd("PING").query::<String>(&mut one)?, "PONG");

    let all: Vec<PushInfo> = pushes.try_iter().collect();
    let kinds: Vec<PushKind> = all.iter().map(|push| push.kind.clone()).collect();
    use PushKind::{Message, PMessage, PSubscribe, Subscribe, Unsubscribe};
    let expected = [Subscribe, PSubscribe, Message, PMessage, Message, PMessage, Unsubscribe];
    assert_eq!(kinds, expected);
    let payloads: Vec<String> = all
        .into_iter()
        .filter_map(Msg::from_push_info)
        .map(|message| message.get_payload())
        .collect::<RedisResult<_>>()?;
    assert_eq!(payloads, ["from another", "from another", "my own", "my own"]);
    Ok(())
}

#[test]
fn messages_published_in_a_transaction_arrive_when_it_runs() -> RedisResult<()> {
    let server = Server::start();
    let client = Client::open(server.url())?;
    let (mut subscriber, mut publisher) = (client.get_connection()?, client.get_connection()?);
    subscriber.set_read_timeout(Some(GUARD))?;
    let mut subscriber = subscriber.as_pubsub();
    subscriber.subscribe("atomic")?;
    let mut pipe = redis::pipe();
    pipe.atomic().set("state", "new").ignore().publish("atomic", "state");
    assert_eq!(pipe.query::<(i64,)>(&mut publisher)?, (1,));
    assert_eq!(text(&subscriber.get_message()?)?, pair("atomic", "state"));
    assert_eq!(publisher.get::<_, String>("state")?, "new");
    Ok(())
}
