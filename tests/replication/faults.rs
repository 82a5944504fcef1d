//! Replicas that are cut off at any byte, stopped, slowed and killed; and the primary killed under load. On both sides
//! stands our server, and where REDIS_SERVER names one, a redis-server takes either side too.

use crate::proxy::Proxy;
use crate::redis::redis_server;
use crate::support::random::Random;
use crate::support::{Client, Directory, Program, Server, eventually};
use crate::{
    assert_same, dump, end, follow, info, link_is_up, replica_offset, wait_for_link, while_writing,
    write_some,
};
use std::process::Command;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;

/// Each pair of programs: primary and replica.
fn pairs() -> Vec<(Program, Program)> {
    let mut pairs = vec![(Program::Ours, Program::Ours)];
    if let Some(redis) = redis_server() {
        pairs.push((Program::Ours, redis.clone()));
        pairs.push((redis, Program::Ours));
    }
    pairs
}

fn start(program: &Program, flags: &[&str]) -> Server {
    // Redis waits before it makes a snapshot, so that more replicas come.
    let flags =
        [flags, &["--repl-diskless-sync-delay", "0", "--repl-backlog-size", "256mb"]].concat();
    Server::start_in(Directory::new(), program.clone(), &flags)
}

fn signal(server: &Server, name: &str) {
    let pid = server.pid().to_string();
    assert!(Command::new("kill").args([name, &pid]).status().unwrap().success());
}

/// Waits until the replica has everything, and compares the two.
fn assert_equal(primary: &Server, replica: &Server) {
    let end = end(primary);
    eventually("it has everything", || replica_offset(replica) >= end);
    assert_same(&dump(replica), &dump(primary));
}

/// Where the connection breaks: within the handshake, at each part of the snapshot, and within the stream.
#[test]
fn a_replica_that_is_cut_off_after_any_byte_is_equal_in_the_end() {
    let mut random = Random::new(5);
    for (one, other) in pairs() {
        let (primary, replica) = (start(&one, &[]), start(&other, &[]));
        let mut client = primary.client();
        for n in 0..200 {
            client.run(&format!("SET early{n} {}", "x".repeat(n)));
        }
        let proxy = Proxy::to(&primary);
        let mut cuts: Vec<u64> = (0..180).step_by(13).collect();
        cuts.extend((0..20).map(|_| random.below(25_000) as u64));
        cuts.extend((0..20).map(|_| 20_000 + random.below(200_000) as u64));
        for (number, cut) in cuts.iter().enumerate() {
            proxy.cut_after(*cut);
            // By another address, so that it does not wait for a second before it tries again.
            follow(&replica, &format!("127.0.0.{}", 1 + number), proxy.port);
            eventually("it is cut off", || {
                write_some(&mut random, &mut client);
                proxy.broken() > number as u64
            });
        }
        follow(&replica, "127.0.1.1", proxy.port);
        wait_for_link(&replica, "up");
        assert_equal(&primary, &replica);
        let resumed: u64 = info(&mut client, "stats", "sync_partial_ok").parse().unwrap();
        assert!(resumed >= 10, "{one} and {other}: {resumed}");
    }
}

#[test]
fn a_replica_that_is_stopped_for_longer_than_the_time_out_goes_on_where_it_was() {
    for (one, other) in pairs() {
        let flags = ["--repl-timeout", "2", "--repl-ping-replica-period", "1"];
        let (primary, replica) = (start(&one, &flags), start(&other, &flags));
        follow(&replica, "127.0.0.1", primary.port);
        wait_for_link(&replica, "up");
        let mut client = primary.client();
        while_writing(&primary, 2, || {
            eventually("it follows", || replica_offset(&replica) > 50_000);
            for _ in 0..2 {
                signal(&replica, "-STOP");
                eventually("it is given up", || {
                    info(&mut client, "replication", "connected_slaves") == "0"
                });
                signal(&replica, "-CONT");
                eventually("it has come back", || {
                    info(&mut client, "replication", "connected_slaves") == "1"
                        && link_is_up(&replica)
                });
            }
        });
        assert_equal(&primary, &replica);
        assert_eq!(info(&mut client, "stats", "sync_full"), "1", "{one} and {other}");
    }
}

#[test]
fn a_replica_behind_a_slow_connection_loses_nothing_and_delays_nobody() {
    for (one, other) in pairs() {
        let (primary, replica) = (start(&one, &[]), start(&other, &[]));
        let proxy = Proxy::to(&primary);
        proxy.set_speed(500);
        follow(&replica, "127.0.0.1", proxy.port);
        wait_for_link(&replica, "up");
        let mut client = primary.client();
        while_writing(&primary, 8, || {
            eventually("it is far behind", || {
                let end: u64 =
                    info(&mut client, "replication", "master_repl_offset").parse().unwrap();
                end > replica_offset(&replica) + 3_000_000
            });
        });
        proxy.set_speed(usize::MAX);
        assert_equal(&primary, &replica);
        assert_eq!(info(&mut client, "stats", "sync_full"), "1", "{one} and {other}");
    }
}

/// Redis has to begin anew, because it does not know where its log ends.
#[test]
fn a_replica_of_ours_that_is_killed_again_and_again_goes_on_where_its_log_ends() {
    for (one, other) in pairs().into_iter().filter(|pair| matches!(pair.1, Program::Ours)) {
        let primary = start(&one, &[]);
        let port = format!("127.0.0.1 {}", primary.port);
        let mut replica = start(&other, &["--replicaof", &port]);
        wait_for_link(&replica, "up");
        while_writing(&primary, 4, || {
            for _ in 0..5 {
                let before = replica_offset(&replica);
                eventually("it follows", || replica_offset(&replica) > before + 50_000);
                replica.crash();
                wait_for_link(&replica, "up");
            }
        });
        assert_equal(&primary, &replica);
        let mut client = primary.client();
        assert_eq!(info(&mut client, "stats", "sync_full"), "1", "{one}");
    }
}

/// Several clients, each with keys of its own, and two replicas, of which either may be promoted.
#[test]
fn what_wait_has_confirmed_is_on_each_replica_when_the_primary_is_killed_under_load() {
    const WRITERS: usize = 4;
    for (one, other) in pairs() {
        let mut primary = start(&one, &[]);
        let replicas = [start(&other, &[]), start(&other, &[])];
        for replica in &replicas {
            follow(replica, "127.0.0.1", primary.port);
            wait_for_link(replica, "up");
        }
        let confirmed = [(); WRITERS].map(|()| AtomicU64::new(0));
        let address = primary.address();
        thread::scope(|scope| {
            for (writer, confirmed) in confirmed.iter().enumerate() {
                scope.spawn(move || {
                    let mut client = Client::connect(address).unwrap();
                    for n in 1.. {
                        let set = ["SET".to_string(), format!("{writer}:{n}"), n.to_string()];
                        let answer = client
                            .try_call(&set)
                            .and_then(|_| client.try_call(&["WAIT", "2", "0"]));
                        match answer {
                            Ok(answer) if answer.to_string() == "(integer) 2" => {
                                confirmed.store(n, Ordering::Relaxed);
                            }
                            _ => break,
                        }
                    }
                });
            }
            eventually("some are confirmed", || {
                confirmed.iter().all(|confirmed| confirmed.load(Ordering::Relaxed) > 50)
            });
            primary.kill();
        });
        for replica in &replicas {
            let mut client = replica.client();
            assert_eq!(client.run("REPLICAOF NO ONE"), "OK");
            for (writer, confirmed) in confirmed.iter().enumerate() {
                for n in 1..=confirmed.load(Ordering::Relaxed) {
                    assert_eq!(client.run(&format!("GET {writer}:{n}")), format!("\"{n}\""));
                }
            }
        }
    }
}
