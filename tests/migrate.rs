//! MIGRATE: a key is here or there, whatever the other server does, and nobody else waits for the network.
//!
//! What needs no other server is in `tests/transcripts/generic/migrate.txt`. Here the target is another server of
//! ours, or a socket that answers what a test likes.

mod support;

use std::io::{BufRead, BufReader, ErrorKind, Write};
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use support::{Client, Server, Value, eventually};

const READING: &str = "(error) IOERR error or timeout reading to target instance";

/// Another server, as a test likes it.
struct Target(TcpListener);

/// A connection to it.
struct Peer(BufReader<TcpStream>);

impl Target {
    fn new() -> Target {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        listener.set_nonblocking(true).unwrap();
        Target(listener)
    }

    fn port(&self) -> u16 {
        self.0.local_addr().unwrap().port()
    }

    fn accept(&self) -> Peer {
        let mut accepted = None;
        eventually("a connection comes", || {
            accepted = self.0.accept().ok();
            accepted.is_some()
        });
        let (stream, _) = accepted.unwrap();
        stream.set_nonblocking(false).unwrap();
        Peer(BufReader::new(stream))
    }

    fn is_left_alone(&self) -> bool {
        self.0.accept().is_err_and(|error| error.kind() == ErrorKind::WouldBlock)
    }
}

impl Peer {
    /// Reads commands that begin with these words.
    fn hear(&mut self, commands: &[&str]) {
        for command in commands {
            let value = Value::read(&mut self.0, &mut Vec::new()).expect("a command");
            let words = value.items().into_iter().map(|word| String::from_utf8_lossy(word.text()));
            let words: Vec<_> = words.take(command.split(' ').count()).collect();
            assert_eq!(words.join(" "), *command);
        }
    }

    fn say(&mut self, bytes: &str) {
        self.0.get_mut().write_all(bytes.as_bytes()).unwrap();
    }

    fn is_closed(&mut self) -> bool {
        self.0.fill_buf().is_ok_and(<[u8]>::is_empty)
    }
}

/// MIGRATE to a port, of these keys.
fn migrate(port: u16, timeout: usize, rest: &str) -> String {
    format!("MIGRATE 127.0.0.1 {port} \"\" 0 {timeout} {rest}")
}

fn send(client: &mut Client, line: &str) {
    client.send(&support::split(line).unwrap());
}

/// The log from its last records on, as redis-cli would show them.
fn last_records(server: &Server, count: usize) -> Vec<String> {
    let log = server.log();
    let shown = |record: &Vec<Vec<u8>>| String::from_utf8_lossy(&record.join(&b' ')).into_owned();
    log[log.len() - count..].iter().map(shown).collect()
}

fn kept(client: &mut Client) -> String {
    let info = client.run("INFO stats");
    let (_, rest) = info.split_once("migrate_cached_sockets:").unwrap();
    rest.chars().take_while(char::is_ascii_digit).collect()
}

#[test]
fn keys_of_every_type_move_with_their_deadlines_and_are_logged_as_one_del() {
    let (here, there) = (Server::start(&[]), Server::start(&[]));
    let (mut client, mut target) = (here.client(), there.client());
    let elements: Vec<String> = (0..1000).map(|i| format!("{i} {i}")).collect();
    let elements = elements.join(" ");
    for (name, command) in [("l", "RPUSH"), ("s", "SADD"), ("z", "ZADD"), ("h", "HSET")] {
        client.run(&format!("{command} {name} 1 1 2 b"));
        client.run(&format!("{command} long-{name} {elements}"));
    }
    client.run("SET k v");
    client.run("PEXPIREAT k 33177117420000");
    client.run("ZADD z 1 1 2 b");
    let keys = "k l s z h long-l long-s long-z long-h";
    let digest = client.run(&format!("DEBUG DIGEST-VALUE {keys}"));
    // Missing keys are no fault.
    let order = migrate(there.port, 5000, &format!("KEYS none {keys} none"));
    assert_eq!(client.run(&order), "OK");
    assert_eq!(client.run("DBSIZE"), "(integer) 0");
    assert_eq!(last_records(&here, 1), [format!("DEL {keys}")]);
    assert_eq!(target.run(&format!("DEBUG DIGEST-VALUE {keys}")), digest);
    assert_eq!(target.run("PTTL none"), "(integer) -2");
    assert!(target.run("PEXPIRETIME k").starts_with("(integer) 331771174"));
    assert_eq!(client.run(&order), "NOKEY");
}

#[test]
fn with_copy_nothing_is_deleted_and_with_replace_what_was_there_is_replaced() {
    let (here, there) = (Server::start(&[]), Server::start(&[]));
    let (mut client, mut target) = (here.client(), there.client());
    client.run("MSET a 1 b 2");
    assert_eq!(client.run(&migrate(there.port, 5000, "COPY KEYS a b")), "OK");
    assert_eq!(client.run("MGET a b"), "1) \"1\"\n2) \"2\"");
    assert_eq!(last_records(&here, 1), ["MSET a 1 b 2"]);
    target.run("SET a other");
    let busy =
        "(error) ERR Target instance replied with error: BUSYKEY Target key name already exists.";
    assert_eq!(client.run(&migrate(there.port, 5000, "KEYS a b")), busy);
    assert_eq!(client.run("MGET a b"), "1) \"1\"\n2) \"2\"");
    assert_eq!(client.run(&migrate(there.port, 5000, "COPY REPLACE KEYS a")), "OK");
    assert_eq!(target.run("GET a"), "\"1\"");
    // A key that is named twice moves twice.
    assert_eq!(client.run(&migrate(there.port, 5000, "REPLACE KEYS a b a")), "OK");
    assert_eq!(client.run("DBSIZE"), "(integer) 0");
}

#[test]
fn databases_of_the_target_are_selected_and_a_wrong_one_moves_nothing() {
    let (here, there) = (Server::start(&[]), Server::start(&[]));
    let (mut client, mut target) = (here.client(), there.client());
    client.run("MSET a 1 b 2 c 3 d 4");
    let order = |key: &str, db| format!("MIGRATE 127.0.0.1 {} {key} {db} 5000", there.port);
    let wrong = "(error) ERR Target instance replied with error: ERR DB index is out of range";
    assert_eq!(client.run(&order("a", 3)), "OK");
    assert_eq!(client.run(&order("b", 3)), "OK");
    // Redis would have made it in database 3, and have said that there was an error.
    assert_eq!(client.run(&order("c", 77)), wrong);
    assert_eq!(client.run(&order("c", -1)), wrong);
    assert_eq!(client.run(&order("c", 0)), "OK");
    assert_eq!(target.run("DBSIZE"), "(integer) 1");
    target.run("SELECT 3");
    assert_eq!(target.run("DBSIZE"), "(integer) 2");
    assert_eq!(client.run("KEYS *"), "1) \"d\"");
}

#[test]
fn of_a_key_that_has_moved_subscribers_hear_del() {
    let here = Server::start(&["--notify-keyspace-events", "Eg"]);
    let there = Server::start(&[]);
    let (mut client, mut subscriber) = (here.client(), here.client());
    subscriber.call(&["SUBSCRIBE", "__keyevent@0__:del"]);
    client.call(&["SET", "a", "1"]);
    assert_eq!(client.run(&migrate(there.port, 1000, "KEYS a b")), "OK");
    assert_eq!(subscriber.read().items()[2].text(), b"a");
}

/// Redis would wait for itself.
#[test]
fn a_server_can_move_keys_to_another_database_of_its_own() {
    let here = Server::start(&[]);
    let mut client = here.client();
    client.run("SET k v");
    assert_eq!(client.run(&format!("MIGRATE 127.0.0.1 {} k 5 5000", here.port)), "OK");
    assert_eq!(client.run("EXISTS k"), "(integer) 0");
    client.run("SELECT 5");
    assert_eq!(client.run("GET k"), "\"v\"");
    // What has replaced it is not what was sent.
    let onto_itself = client.run(&format!("MIGRATE 127.0.0.1 {} k 5 5000 REPLACE", here.port));
    assert!(onto_itself.contains("IOERR a key was changed here"), "{onto_itself}");
    assert_eq!(client.run("GET k"), "\"v\"");
}

#[test]
fn of_several_keys_those_that_the_target_refuses_stay() {
    let (here, target) = (Server::start(&[]), Target::new());
    let mut client = here.client();
    client.run("MSET a 1 b 2 c 3 d 4");
    send(&mut client, &migrate(target.port(), 5000, "KEYS a b c d"));
    let mut peer = target.accept();
    peer.hear(&["RESTORE a 0", "RESTORE b 0", "RESTORE c 0", "RESTORE d 0"]);
    peer.say("+OK\r\n-BUSYKEY no\r\n+OK\r\n-OOM no\r\n");
    let error = "(error) ERR Target instance replied with error: BUSYKEY no";
    assert_eq!(client.read().to_string(), error);
    assert_eq!(last_records(&here, 1), ["DEL a c"]);
    assert_eq!(client.run("MGET a b c d"), "1) (nil)\n2) \"2\"\n3) (nil)\n4) \"4\"");
    // The connection is in order, and used again.
    send(&mut client, &migrate(target.port(), 5000, "KEYS b"));
    peer.hear(&["RESTORE b 0"]);
    peer.say("+OK\r\n");
    assert_eq!(client.read().to_string(), "OK");
}

#[test]
fn of_a_target_that_closes_in_the_middle_only_what_it_has_confirmed_counts() {
    let (here, target) = (Server::start(&[]), Target::new());
    let mut client = here.client();
    client.run("MSET a 1 b 2 c 3");
    for (answer, keys, deleted) in
        [("+OK\r\n+O", "a b c", "DEL a"), ("+OK\r\nhello\r\n", "b c", "DEL b")]
    {
        send(&mut client, &migrate(target.port(), 5000, "KEYS a b c"));
        let mut peer = target.accept();
        keys.split(' ').for_each(|key| peer.hear(&[&format!("RESTORE {key} 0")]));
        peer.say(answer);
        drop(peer);
        assert_eq!(client.read().to_string(), READING);
        assert_eq!(last_records(&here, 1), [deleted]);
    }
    assert_eq!(client.run("MGET a b c"), "1) (nil)\n2) (nil)\n3) \"3\"");
    assert!(target.is_left_alone());
    assert_eq!(kept(&mut client), "0");
}

#[test]
fn a_connection_that_was_closed_meanwhile_is_made_anew_once() {
    let (here, target) = (Server::start(&[]), Target::new());
    let mut client = here.client();
    client.run("MSET a 1 b 2 c 3");
    send(&mut client, &migrate(target.port(), 5000, "KEYS a"));
    let mut peer = target.accept();
    peer.hear(&["RESTORE a 0"]);
    peer.say("+OK\r\n");
    assert_eq!(client.read().to_string(), "OK");
    assert_eq!(kept(&mut client), "1");
    drop(peer);
    send(&mut client, &migrate(target.port(), 5000, "KEYS b"));
    let mut peer = target.accept();
    peer.hear(&["RESTORE b 0"]);
    peer.say("+OK\r\n");
    assert_eq!(client.read().to_string(), "OK");
    // It is the same.
    send(&mut client, &migrate(target.port(), 5000, "COPY KEYS c"));
    peer.hear(&["RESTORE c 0"]);
    drop(peer);
    drop(target.accept());
    assert_eq!(client.read().to_string(), READING);
    assert!(target.is_left_alone());
    assert_eq!(client.run("GET c"), "\"3\"");
}

#[test]
fn connections_are_closed_when_nobody_has_used_them_for_ten_seconds() {
    let (here, target) = (Server::start(&[]), Target::new());
    let mut client = here.client();
    client.run("SET k v");
    send(&mut client, &migrate(target.port(), 5000, "COPY KEYS k"));
    let mut peer = target.accept();
    peer.say("+OK\r\n");
    assert_eq!(client.read().to_string(), "OK");
    peer.hear(&["RESTORE k 0"]);
    assert_eq!(kept(&mut client), "1");
    assert!(peer.is_closed());
    assert_eq!(kept(&mut client), "0");
}

#[test]
fn two_clients_that_move_keys_to_one_server_do_not_wait_for_each_other() {
    let (here, target) = (Server::start(&[]), Target::new());
    let (mut a, mut b) = (here.client(), here.client());
    a.run("MSET a 1 b 2");
    send(&mut a, &migrate(target.port(), 60_000, "KEYS a"));
    let mut to_a = target.accept();
    to_a.hear(&["RESTORE a 0"]);
    send(&mut b, &migrate(target.port(), 60_000, "KEYS b"));
    let mut to_b = target.accept();
    to_b.hear(&["RESTORE b 0"]);
    to_b.say("+OK\r\n");
    assert_eq!(b.read().to_string(), "OK");
    to_a.say("+OK\r\n");
    assert_eq!(a.read().to_string(), "OK");
    assert_eq!(kept(&mut a), "2");
}

#[test]
fn a_target_that_hangs_is_waited_for_until_the_timeout_and_nobody_else_waits() {
    let (here, target) = (Server::start(&[]), Target::new());
    let (mut client, mut other) = (here.client(), here.client());
    client.run("SET k v");
    send(&mut client, &migrate(target.port(), 600_000, "KEYS k"));
    let mut peer = target.accept();
    peer.hear(&["RESTORE k 0"]);
    // Readers, writers, and those that want to have all for themselves.
    for command in ["GET k", "INCR n", "MULTI", "GET k", "EXEC", "EVAL \"return 1\" 0", "SAVE"] {
        assert!(!other.run(command).contains("error"), "{command}");
    }
    assert!(!client.has_arrived());
    drop(peer);
    drop(target.accept());
    assert_eq!(client.read().to_string(), READING);
    // This one accepts, and says nothing.
    assert_eq!(client.run(&migrate(target.port(), 50, "KEYS k")), READING);
    assert_eq!(client.run("GET k"), "\"v\"");
    // There is no other attempt behind a timeout.
    let _peer = target.accept();
    assert!(target.is_left_alone());
}

#[test]
fn a_key_that_is_written_while_it_moves_stays_as_it_was_written() {
    let (here, target) = (Server::start(&[]), Target::new());
    let (mut client, mut other) = (here.client(), here.client());
    for (number, write) in
        ["INCR k", "PEXPIRE k 1000000", "DEL k", "FLUSHALL", "SWAPDB 0 1"].into_iter().enumerate()
    {
        client.run("MSET before 1 k 5 behind 1");
        send(&mut client, &migrate(target.port(), 60_000, "KEYS before k behind"));
        let mut peer = target.accept();
        peer.hear(&["RESTORE before 0", "RESTORE k 0", "RESTORE behind 0"]);
        assert!(!other.run(write).contains("error"), "{write}");
        peer.say("+OK\r\n+OK\r\n+OK\r\n");
        let answer = client.read().to_string();
        assert!(answer.starts_with("(error) IOERR a key was changed here"), "{write}: {answer}");
        // The others have moved, unless all were changed.
        let moved = if number < 3 { "DEL before behind" } else { write };
        assert_eq!(last_records(&here, 1), [moved], "{write}");
        if number == 0 {
            assert_eq!(client.run("GET k"), "\"6\"");
        }
        client.run("FLUSHALL");
        drop(peer);
    }
}

#[test]
fn a_key_that_expires_while_it_moves_is_gone_and_that_is_no_error() {
    let (here, target) = (Server::start(&[]), Target::new());
    let (mut client, mut other) = (here.client(), here.client());
    client.run("SET k v PX 100");
    send(&mut client, &migrate(target.port(), 60_000, "KEYS k"));
    let mut peer = target.accept();
    peer.hear(&["RESTORE k"]);
    eventually("it has expired", || other.run("EXISTS k") == "(integer) 0");
    other.run("SET k new");
    peer.say("+OK\r\n");
    assert_eq!(client.read().to_string(), "OK");
    assert_eq!(other.run("GET k"), "\"new\"");
}

#[test]
fn what_may_not_be_deleted_when_the_target_has_it_stays() {
    let (here, target) = (Server::start(&[]), Target::new());
    let (mut client, mut other) = (here.client(), here.client());
    let not_deleted = "(error) IOERR the target instance has the keys, but at present nothing can be deleted here";
    for (begin, end) in [
        ("CLIENT PAUSE 1000000 WRITE", "CLIENT UNPAUSE"),
        ("REPLICAOF 127.0.0.1 1", "REPLICAOF NO ONE"),
        ("CONFIG SET min-replicas-to-write 1", "CONFIG SET min-replicas-to-write 0"),
    ] {
        client.run("SET k v");
        send(&mut client, &migrate(target.port(), 60_000, "KEYS k"));
        let mut peer = target.accept();
        peer.hear(&["RESTORE k 0"]);
        assert_eq!(other.run(begin), "OK");
        peer.say("+OK\r\n");
        assert_eq!(client.read().to_string(), not_deleted, "{begin}");
        assert_eq!(other.run(end), "OK");
        assert_eq!(other.run("GET k"), "\"v\"");
    }
}

#[test]
fn passwords_are_sent_and_a_target_that_wants_another_one_gets_nothing() {
    let here = Server::start(&[]);
    let there = Server::start(&["--requirepass", "secret"]);
    let mut client = here.client();
    client.run("MSET a 1 b 2 c 3");
    let order = |rest: &str| migrate(there.port, 5000, rest);
    let told = |error: &str| format!("(error) ERR Target instance replied with error: {error}");
    let wrong = "WRONGPASS invalid username-password pair or user is disabled.";
    assert_eq!(client.run(&order("KEYS a")), told("NOAUTH Authentication required."));
    assert_eq!(client.run(&order("AUTH wrong KEYS a")), told(wrong));
    assert_eq!(client.run(&order("AUTH2 nobody secret KEYS a")), told(wrong));
    assert_eq!(client.run("DBSIZE"), "(integer) 3");
    assert_eq!(client.run(&order("AUTH secret KEYS a")), "OK");
    assert_eq!(client.run(&order("AUTH2 default secret KEYS b")), "OK");
    // A connection that has logged in is not for those without a password.
    assert_eq!(client.run(&order("KEYS c")), told("NOAUTH Authentication required."));
    assert_eq!(client.run("DBSIZE"), "(integer) 1");
}

#[test]
fn where_nobody_listens_nothing_moves() {
    let here = Server::start(&[]);
    let mut client = here.client();
    client.run("SET k v");
    let port = Target::new().port();
    let refused = "(error) IOERR error or timeout writing to target instance";
    assert_eq!(client.run(&migrate(port, 5000, "KEYS k")), refused);
    let nowhere = "(error) IOERR error or timeout connecting to the client";
    assert_eq!(client.run("MIGRATE 127.0.0.1 -5 k 0 5000"), nowhere);
    assert_eq!(client.run("GET k"), "\"v\"");
}

#[test]
fn in_transactions_and_scripts_keys_move_and_the_network_is_waited_for_no_longer_than_a_script() {
    let here = Server::start(&["--busy-reply-threshold", "100"]);
    let (there, target) = (Server::start(&[]), Target::new());
    let (mut client, mut other) = (here.client(), here.client());
    client.run("MSET a 1 b 2 c 3 d 4");
    let script = |port, key| {
        format!(
            "EVAL \"return redis.call('MIGRATE', '127.0.0.1', ARGV[1], KEYS[1], 0, 600000)\" 1 {key} {port}"
        )
    };
    client.run("MULTI");
    client.run(&migrate(there.port, 5000, "KEYS a"));
    client.run("EXISTS a");
    client.run("SET e 5");
    assert_eq!(client.run("EXEC"), "1) OK\n2) (integer) 0\n3) OK");
    assert_eq!(last_records(&here, 4), ["MULTI", "DEL a", "SET e 5", "EXEC"]);
    assert_eq!(client.run(&script(there.port, "b")), "OK");
    assert_eq!(last_records(&here, 1), ["DEL b"]);
    assert_eq!(there.client().run("MGET a b"), "1) \"1\"\n2) \"2\"");

    // It hangs, and so does everybody, for a tenth of a second.
    client.run("MULTI");
    client.run(&migrate(target.port(), 600_000, "KEYS c"));
    client.run("GET c");
    send(&mut client, "EXEC");
    let mut peer = target.accept();
    peer.hear(&["RESTORE c 0"]);
    assert_eq!(other.run("GET c"), "\"3\"");
    let told = READING.replace("(error) ", "1) (error) ");
    assert_eq!(client.read().to_string(), format!("{told}\n2) \"3\""));
    let told = client.run(&script(target.port(), "d"));
    assert!(told.starts_with(READING), "{told}");
    assert_eq!(other.run("GET d"), "\"4\"");
}

#[test]
fn a_log_that_holds_migrate_is_refused() {
    let mut here = Server::start(&[]);
    here.client().run("SET k v");
    here.kill();
    let folder = here.dir().join("appendonlydir");
    let name = std::fs::read_dir(&folder).unwrap().find_map(|file| {
        let path = file.unwrap().path();
        path.to_string_lossy().ends_with(".incr.aof").then_some(path)
    });
    let mut log = std::fs::OpenOptions::new().append(true).open(name.unwrap()).unwrap();
    log.write_all(&support::encode(&["MIGRATE", "127.0.0.1", "1", "k", "0", "1"])).unwrap();
    drop(log);
    let said = here.try_start_again().unwrap_err();
    assert!(said.contains("not supported: MIGRATE"), "{said}");
}
