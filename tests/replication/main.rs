//! Replication: a replica has what was acknowledged, nothing else and in order, however its connection, the log's
//! files, the disk and the other replicas fare meanwhile.
//!
//! | room      | who follows                                                                      |
//! |-----------|----------------------------------------------------------------------------------|
//! | `stream`  | a replica made here (`fake`), which keeps what it was sent: slow, torn, silent   |
//! | `asking`  | the same, and what WAIT, INFO, ROLE, CLIENT and NOREPLICAS say of it              |
//! | `ending`  | the same, while SHUTDOWN waits for it; and clients that wait when we become one       |
//! | `redis`   | the redis-server that REDIS_SERVER names, and what it holds in the end            |
//! | `faults`  | servers behind a `proxy`, which is slow or breaks; they are stopped and killed       |
//! | `promoted` | we were a replica, and are promoted: who goes on with us                         |
//! | `following` | we, a primary made here (`primary`), and the redis-server                       |
//!
//! What a replica was sent is a log: a server that starts on it must hold what the primary holds.

// What a machine did not allow to be tested must be said.
#![allow(clippy::print_stderr)]

mod asking;
mod ending;
mod fake;
mod faults;
mod following;
mod primary;
mod promoted;
mod proxy;
mod redis;
mod stream;
#[path = "../support/mod.rs"]
mod support;

use std::fs;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;
use support::random::Random;
use support::state::{self, Entry};
use support::{Client, Directory, Program, Server, Stop, Value, eventually};

/// Everything in the first four databases.
fn dump(server: &Server) -> Vec<Entry> {
    state::dump(&mut server.client(), 4).expect("what the server holds")
}

/// Fails if the two hold not the same, and says where.
fn assert_same(one: &[Entry], other: &[Entry]) {
    let show = |entry: &Entry| format!("{} {:?} {:?}", entry.db, entry.key, entry.value);
    let pairs = one.iter().zip(other);
    for (a, b) in pairs {
        let is_same = (a.db, &a.key, &a.value, a.deadline) == (b.db, &b.key, &b.value, b.deadline);
        assert!(is_same, "{}\n{}", show(a), show(b));
    }
    assert_eq!(one.len(), other.len());
}

/// A server that has started on what a replica was sent.
fn started_on(stream: &[u8]) -> Server {
    let directory = Directory::new();
    fs::write(directory.0.join("appendonly.aof"), stream).unwrap();
    Server::start_in(directory, Program::Ours, &[])
}

/// A field of INFO.
fn info(client: &mut Client, section: &str, name: &str) -> String {
    let Value::Bulk(text) = client.call(&["INFO", section]) else { panic!("INFO answers") };
    let text = String::from_utf8(text).unwrap();
    let mut lines = text.lines();
    let found = lines.find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
    found.unwrap_or_else(|| panic!("INFO has no {name}")).to_string()
}

/// Makes this server follow another.
fn follow(replica: &Server, host: &str, port: u16) {
    assert_eq!(replica.client().run(&format!("REPLICAOF {host} {port}")), "OK");
}

fn link_is_up(replica: &Server) -> bool {
    info(&mut replica.client(), "replication", "master_link_status") == "up"
}

fn wait_for_link(replica: &Server, status: &str) {
    let mut client = replica.client();
    let link = "master_link_status";
    eventually("the link changes", || info(&mut client, "replication", link) == status);
}

/// How far a replica is.
fn replica_offset(replica: &Server) -> u64 {
    info(&mut replica.client(), "replication", "slave_repl_offset").parse().unwrap()
}

/// How long the stream is by now. Nobody writes, and all that was to expire within a moment has expired.
fn end(server: &Server) -> u64 {
    let mut client = server.client();
    thread::sleep(Duration::from_millis(SHORT_LIFE));
    for db in 0..4 {
        client.run(&format!("SELECT {db}"));
        eventually("what has expired is deleted", || {
            let keys = state::texts(&client.call(&["KEYS", "*"])).len();
            client.run("DBSIZE") == format!("(integer) {keys}")
        });
    }
    // Whatever was appended is written when this is answered.
    client.run("SET end 1");
    info(&mut client, "replication", "master_repl_offset").parse().unwrap()
}

/// Milliseconds for which some keys live.
const SHORT_LIFE: u64 = 50;

/// Writes of all types, in some databases, with transactions, scripts and keys that expire, until it is told to stop.
fn write_until(stop: &AtomicBool, server: &Server, seed: u64) -> u64 {
    let (mut random, mut client, mut count) = (Random::new(seed), server.client(), 0);
    while !stop.load(Ordering::Relaxed) {
        write_some(&mut random, &mut client);
        count += 8;
    }
    count
}

/// Eight of these writes, or a few more.
fn write_some(random: &mut Random, client: &mut Client) {
    let mut packet = Vec::new();
    for _ in 0..8 {
        let key = random.below(50);
        let n = random.below(1000);
        let line = match random.below(14) {
            0 => format!("SELECT {}", random.below(4)),
            1 => format!("SET s{key} {n} PX {}", 1 + random.below(SHORT_LIFE as usize - 1)),
            2 => format!("SET s{key} {}", "long".repeat(n + 1)),
            3 => format!("RPUSH l{key} {n} {n}"),
            4 => format!("LPOP l{key}"),
            5 => format!("HSET h{key} f{n} {n}"),
            6 => format!("ZADD z{key} {n} m{n}"),
            7 => format!("SADD t{key} {n} x{n}"),
            8 => format!("SPOP t{key}"),
            9 => format!("DEL h{key} z{key} t{key}"),
            10 => format!("INCRBYFLOAT f{key} 0.1"),
            11 => format!("MULTI\r\nINCR i{key}\r\nAPPEND a{key} {n}\r\nEXEC"),
            12 => format!(
                "EVAL \"redis.call('INCR', KEYS[1]) redis.call('DEL', KEYS[2])\" 2 i{key} a{key}"
            ),
            _ => format!("EXPIRE s{key} 1000"),
        };
        packet.push(line);
    }
    let replies = packet.iter().map(|line| line.matches("\r\n").count() + 1).sum::<usize>();
    client.raw((packet.join("\r\n") + "\r\n").as_bytes());
    for _ in 0..replies {
        let reply = client.read();
        assert!(!reply.is_error(), "{reply}");
    }
}

/// Runs `act` while this many clients write.
fn while_writing<R>(server: &Server, writers: u64, act: impl FnOnce() -> R) -> R {
    let stop = AtomicBool::new(false);
    thread::scope(|scope| {
        let _stop = Stop(&stop);
        for seed in 0..writers {
            let stop = &stop;
            scope.spawn(move || write_until(stop, server, seed));
        }
        act()
    })
}
