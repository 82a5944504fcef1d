//! MULTI … EXEC runs as one; WATCH makes it conditional.
//!
//! `pipe().atomic()` is MULTI, the commands and EXEC in one write. `redis::transaction` is the
//! loop that every library teaches: WATCH, read, decide, EXEC, and again if a watched key changed
//! in between. It never waits for a lock, and no update is lost.

use redis::{Client, Commands, Connection, RedisResult, cmd, pipe, transaction};
use simple_redis_clients::Server;
use std::thread;

#[test]
fn an_atomic_pipeline_gives_the_replies_of_its_commands() -> RedisResult<()> {
    let server = Server::start();
    for url in [server.url(), server.url_resp3()] {
        let mut client = Client::open(url)?.get_connection()?;
        let (n, hash): (i64, Vec<(String, i64)>) = pipe()
            .atomic()
            .set("n", 1)
            .ignore()
            .incr("n", 1)
            .hset("hash", "field", 7)
            .ignore()
            .hgetall("hash")
            .query(&mut client)?;
        assert_eq!(n, 2);
        assert_eq!(hash, [("field".to_string(), 7)]);
    }
    Ok(())
}

#[test]
fn no_other_client_sees_a_transaction_half_done() -> RedisResult<()> {
    let server = Server::start();
    let client = Client::open(server.url())?;
    let mut writer = client.get_connection()?;
    let mut reader = client.get_connection()?;
    () = writer.mset(&[("a", 0), ("b", 0)])?;
    thread::scope(|scope| {
        let writing = scope.spawn(move || -> RedisResult<()> {
            let mut both = pipe();
            both.atomic().incr("a", 1).ignore().decr("b", 1).ignore();
            (0..2000).try_for_each(|_| both.query(&mut writer))
        });
        while !writing.is_finished() {
            let (a, b): (i64, i64) = reader.mget(&["a", "b"])?;
            assert_eq!(a + b, 0);
        }
        writing.join().expect("no panic")
    })?;
    assert_eq!(reader.get::<_, i64>("a")?, 2000);
    Ok(())
}

#[test]
fn a_command_that_cannot_be_queued_discards_the_transaction() -> RedisResult<()> {
    let server = Server::start();
    let mut client = Client::open(server.url())?.get_connection()?;
    let mut wrong = pipe();
    wrong.atomic().set("key", 1).ignore().cmd("GET").ignore();
    assert!(wrong.query::<()>(&mut client).is_err());
    assert!(!client.exists::<_, bool>("key")?);
    Ok(())
}

#[test]
fn a_command_that_fails_when_it_runs_does_not_undo_the_others() -> RedisResult<()> {
    let server = Server::start();
    let mut client = Client::open(server.url())?.get_connection()?;
    () = client.set("word", "hello")?;
    let mut three = pipe();
    three.atomic().set("before", 1).incr("word", 1).set("after", 2);
    assert!(three.query::<()>(&mut client).is_err());
    assert_eq!(client.mget::<_, (i64, String, i64)>(&["before", "word", "after"])?.1, "hello");
    Ok(())
}

#[test]
fn a_transaction_does_nothing_if_a_watched_key_was_changed() -> RedisResult<()> {
    let server = Server::start();
    let client = Client::open(server.url())?;
    let (mut a, mut b) = (client.get_connection()?, client.get_connection()?);
    let mut set_done = pipe();
    set_done.atomic().set("done", "yes").ignore();

    () = cmd("WATCH").arg("key").query(&mut a)?;
    () = b.set("key", 1)?;
    assert_eq!(set_done.query::<Option<()>>(&mut a)?, None);
    assert!(!a.exists::<_, bool>("done")?);

    // EXEC ended the watch: the same once more, without a WATCH, goes through.
    () = b.set("key", 2)?;
    assert_eq!(set_done.query::<Option<()>>(&mut a)?, Some(()));
    assert!(a.exists::<_, bool>("done")?);
    Ok(())
}

#[test]
fn increments_by_watch_and_exec_add_up() -> RedisResult<()> {
    const THREADS: usize = 4;
    const TIMES: usize = 200;
    let server = Server::start();
    let client = Client::open(server.url())?;
    let increment = |own: &mut Connection| -> RedisResult<()> {
        transaction(own, &["counter"], |own, pipe| {
            let old: Option<usize> = own.get("counter")?;
            pipe.set("counter", old.unwrap_or(0) + 1).ignore().query(own)
        })
    };
    let work = || -> RedisResult<()> {
        let mut own = client.get_connection()?;
        (0..TIMES).try_for_each(|_| increment(&mut own))
    };
    thread::scope(|scope| {
        let workers: Vec<_> = (0..THREADS).map(|_| scope.spawn(work)).collect();
        workers.into_iter().try_for_each(|worker| worker.join().expect("no panic"))
    })?;
    assert_eq!(client.get_connection()?.get::<_, usize>("counter")?, THREADS * TIMES);
    Ok(())
}
