//! A pipeline is many commands in one write; its replies come in order, one for each command.
//!
//! Two things go wrong in servers. They lose commands that share a packet, or one that straddles
//! two. And they wait for each other: a client that sends everything before it reads anything,
//! and a server that stops reading while its replies find no room, both wait for ever.

use redis::{Client, Commands, RedisResult, pipe};
use simple_redis_clients::{GUARD, Server};

#[test]
fn a_pipeline_is_answered_in_order() -> RedisResult<()> {
    let server = Server::start();
    let mut client = Client::open(server.url())?.get_connection()?;
    let mut sets = pipe();
    let mut gets = pipe();
    for n in 0..10_000 {
        sets.set(n, n * n).ignore();
        gets.get(n);
    }
    () = sets.query(&mut client)?;
    let squares: Vec<i64> = gets.query(&mut client)?;
    assert!(squares.into_iter().eq((0..10_000).map(|n| n * n)));
    Ok(())
}

#[test]
fn a_pipeline_may_mix_commands_and_sizes() -> RedisResult<()> {
    let server = Server::start();
    let mut client = Client::open(server.url())?.get_connection()?;
    let big = vec![b'x'; 1_000_000];
    let (a, b, c, d, e): (i64, Option<String>, Vec<u8>, i64, String) = pipe()
        .set("small", 1)
        .ignore()
        .incr("small", 41)
        .get("nobody")
        .set("big", &big)
        .ignore()
        .get("big")
        .hset("hash", "field", "value")
        .hget("hash", "field")
        .query(&mut client)?;
    assert_eq!((a, b, c.len(), d, e.as_str()), (42, None, big.len(), 1, "value"));
    Ok(())
}

#[test]
fn a_failing_command_leaves_the_rest_of_its_pipeline_alone() -> RedisResult<()> {
    let server = Server::start();
    let mut client = Client::open(server.url())?.get_connection()?;
    () = client.set("word", "hello")?;
    let mut three = pipe();
    three.set("before", 1).incr("word", 1).set("after", 2);
    assert!(three.query::<()>(&mut client).is_err());
    assert_eq!(client.get::<_, i64>("before")?, 1);
    assert_eq!(client.get::<_, i64>("after")?, 2);
    assert_eq!(client.get::<_, String>("word")?, "hello");
    Ok(())
}

/// The sizes are chosen so that neither the 18 MB of commands nor the 40 MB of replies fit into
/// the sockets' buffers, which may hold some 10 MB each way: without care, both sides wait.
#[test]
fn two_hundred_thousand_gets_may_be_sent_before_a_reply_is_read() -> RedisResult<()> {
    const GETS: usize = 200_000;
    let server = Server::start();
    let mut client = Client::open(server.url())?.get_connection()?;
    client.set_write_timeout(Some(GUARD))?;
    client.set_read_timeout(Some(GUARD))?;
    let key = |n: usize| format!("{:064}", n % 10);
    let value = |n: usize| format!("{:0200}", n % 10);
    for n in 0..10 {
        () = client.set(key(n), value(n))?;
    }
    let mut gets = pipe();
    for n in 0..GETS {
        gets.get(key(n));
    }
    let replies: Vec<String> = gets.query(&mut client)?;
    assert_eq!(replies.len(), GETS);
    assert!(replies.iter().enumerate().all(|(n, reply)| *reply == value(n)));
    Ok(())
}
