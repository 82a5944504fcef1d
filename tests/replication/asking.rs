//! What is said of replicas: WAIT, INFO, ROLE, CLIENT LIST, NOREPLICAS.

use crate::fake::Replica;
use crate::info;
use crate::support::{Client, Server, Value, eventually};
use std::net::Shutdown;
use std::thread;
use std::time::{Duration, Instant};

fn online(client: &mut Client, count: usize) {
    eventually("they are online", || {
        let shown = client.run("INFO replication");
        shown.matches("state=online").count() == count
    });
}

#[test]
fn wait_counts_those_that_have_acknowledged_what_was_written_before_it() {
    let server = Server::start(&[]);
    let mut client = server.client();
    let (mut one, mut two) = (Replica::following(&server), Replica::following(&server));
    let sockets = [one.socket().unwrap(), two.socket().unwrap()];
    online(&mut client, 2);
    client.run("SET key 1");
    // Nobody reads yet.
    assert_eq!(client.run("WAIT 1 50"), "(integer) 0");
    thread::scope(|scope| {
        scope.spawn(|| one.acknowledge_all());
        assert_eq!(client.run("WAIT 1 0"), "(integer) 1");
        client.run("SET key 2");
        assert_eq!(client.run("WAIT 2 100"), "(integer) 1");
        scope.spawn(|| two.acknowledge_all());
        assert_eq!(client.run("WAIT 2 0"), "(integer) 2");
        client.run("SET key 3");
        let mut many: Vec<Client> = (0..20).map(|_| server.client()).collect();
        many.iter_mut().for_each(|client| client.send(&["WAIT", "2", "0"]));
        many.iter_mut().for_each(|client| assert_eq!(client.read(), Value::Integer(2)));
        // What has been acknowledged is not asked for again.
        let end = info(&mut client, "replication", "master_repl_offset");
        let begin = Instant::now();
        (0..50).for_each(|_| assert_eq!(client.run("WAIT 2 0"), "(integer) 2"));
        if begin.elapsed() < Duration::from_secs(5) {
            assert_eq!(info(&mut client, "replication", "master_repl_offset"), end);
        }
        client.raw(b"MULTI\r\nWAIT 5 0\r\nEXEC\r\n");
        let replies: Vec<String> = (0..3).map(|_| client.read().to_string()).collect();
        assert_eq!(replies[2], "1) (integer) 2");
        sockets.iter().for_each(|socket| socket.shutdown(Shutdown::Both).unwrap());
    });
    eventually("they have left", || info(&mut client, "replication", "connected_slaves") == "0");
    assert_eq!(client.run("WAIT 1 1"), "(integer) 0");
}

#[test]
fn info_role_and_the_list_of_clients_show_who_follows_and_how_far() {
    let server = Server::start(&[]);
    let mut client = server.client();
    let id = info(&mut client, "replication", "master_replid");
    let mut replica = Replica::following(&server);
    assert_eq!(replica.id, id);
    online(&mut client, 1);
    client.run("SET key value");
    let end = info(&mut client, "replication", "master_repl_offset");
    replica.read_to(end.parse().unwrap());
    replica.ack();
    eventually("its offset is known", || {
        let line = info(&mut client, "replication", "slave0");
        line.starts_with(&format!("ip=127.0.0.1,port=7777,state=online,offset={},lag=", end))
    });
    let role = format!(
        "1) \"master\"\n2) (integer) {end}\n3) 1) 1) \"127.0.0.1\"\n      2) \"7777\"\n      3) \"{end}\""
    );
    assert_eq!(client.run("ROLE"), role);
    assert_eq!(info(&mut client, "clients", "connected_clients"), "1");
    let listed = client.run("CLIENT LIST TYPE replica");
    assert!(listed.contains("flags=S") && listed.contains("cmd=replconf"), "{listed}");
    assert!(!client.run("CLIENT LIST TYPE normal").contains("flags=S"));
    assert_eq!(client.run("CLIENT KILL TYPE replica"), "(integer) 1");
    while replica.read(1000) > 0 {}
    eventually("it has left", || info(&mut client, "replication", "connected_slaves") == "0");
}

#[test]
fn writes_are_refused_while_too_few_replicas_are_near() {
    let server = Server::start(&["--min-replicas-max-lag", "1"]);
    let mut client = server.client();
    assert_eq!(client.run("CONFIG SET min-replicas-to-write 1"), "OK");
    let refusal = "(error) NOREPLICAS Not enough good replicas to write.";
    assert_eq!(client.run("SET key 1"), refusal);
    assert_eq!(client.run("GET key"), "(nil)");
    assert_eq!(client.run("PING"), "PONG");
    assert_eq!(
        client.run("EVAL \"return redis.call('SET', 'key', 1)\" 0").find("NOREPLICAS"),
        Some(8)
    );
    client.run("MULTI");
    assert_eq!(client.run("SET key 1"), refusal);
    assert!(client.run("EXEC").starts_with("(error) EXECABORT"));
    let mut replica = Replica::following(&server);
    online(&mut client, 1);
    assert_eq!(info(&mut client, "replication", "min_slaves_good_slaves"), "1");
    assert_eq!(client.run("SET key 1"), "OK");
    // It says nothing more.
    eventually("it is no longer near", || client.run("SET key 1") == refusal);
    replica.ack();
    eventually("it is near again", || client.run("SET key 1") == "OK");
}

#[test]
fn who_follows_is_answered_nothing_and_cut_off_if_it_wants_an_answer() {
    let server = Server::start(&["--timeout", "1"]);
    let commands: [&[&str]; 6] = [
        &["SET", "key", "1"],
        &["GET", "key"],
        &["PING"],
        &["CLIENT", "REPLY", "ON"],
        &["REPLCONF", "listening-port", "1"],
        &["SUBSCRIBE", "channel"],
    ];
    for command in commands {
        let mut replica = Replica::following(&server);
        replica.send(command);
        while replica.read(usize::MAX) > 0 {}
        assert!(!String::from_utf8_lossy(&replica.stream).contains("+OK"), "{command:?}");
    }
    let mut replica = Replica::following(&server);
    for command in [&["PSYNC", "?", "-1"][..], &["MONITOR"], &["REPLCONF", "ACK", "0"]] {
        replica.send(command);
    }
    let mut client = server.client();
    online(&mut client, 1);
    client.run("SET other 1");
    let end = info(&mut client, "replication", "master_repl_offset");
    replica.read_to(end.parse().unwrap());
    assert_eq!(client.run("GET key"), "(nil)");
    assert!(replica.stream.ends_with(b"*3\r\n$3\r\nSET\r\n$5\r\nother\r\n$1\r\n1\r\n"));
}

#[test]
fn the_id_of_a_history_may_come_in_capitals() {
    let server = Server::start(&[]);
    let mut replica = Replica::following(&server);
    replica.id = replica.id.to_uppercase();
    replica.reconnect(&server);
    assert!(replica.psync());
}
