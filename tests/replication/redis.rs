//! A real replica: the redis-server, or the Valkey, that REDIS_SERVER names. Without it these tests say so and pass.

use crate::support::{Client, Directory, Program, Server, eventually};
use crate::{assert_same, dump, end, follow, info, while_writing};
use std::io::Write;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;

/// The redis-server that is there, if there is one.
pub fn redis_server() -> Option<Program> {
    let path = std::env::var("REDIS_SERVER").ok();
    if path.is_none() {
        let _ = writeln!(std::io::stderr(), "REDIS_SERVER is not set");
    }
    path.map(Program::Redis)
}

/// A redis-server that follows the other one, or None if there is none.
fn follower_of(primary: &Server) -> Option<Server> {
    let server = Server::start_in(Directory::new(), redis_server()?, &[]);
    follow(&server, "127.0.0.1", primary.port);
    Some(server)
}

fn wait_for_link(replica: &Server) {
    crate::wait_for_link(replica, "up");
}

/// Waits until the replica has everything.
fn catch_up(primary: &Server, replica: &Server) {
    let (end, mut client) = (end(primary), replica.client());
    eventually("the replica has everything", || {
        info(&mut client, "replication", "slave_repl_offset").parse::<u64>().unwrap() >= end
    });
}

#[test]
fn a_redis_server_that_comes_under_load_and_is_cut_off_again_and_again_is_equal_in_the_end() {
    let primary = Server::start(&["--client-output-buffer-limit", "replica 0 0 0"]);
    let mut client = primary.client();
    let Some(replica) = while_writing(&primary, 8, || {
        eventually("there is much", || {
            info(&mut client, "persistence", "aof_current_size").len() > 6
        });
        let replica = follower_of(&primary)?;
        wait_for_link(&replica);
        for _ in 0..5 {
            client.run("CLIENT KILL TYPE replica");
            client.run("BGREWRITEAOF");
            wait_for_link(&replica);
        }
        Some(replica)
    }) else {
        return;
    };
    catch_up(&primary, &replica);
    assert_same(&dump(&replica), &dump(&primary));
    assert_eq!(info(&mut client, "stats", "sync_full"), "1");
}

/// Keys that expire are deleted on the replica when their DEL comes.
#[test]
fn what_wait_has_confirmed_is_there_when_the_primary_is_killed_and_the_replica_promoted() {
    let mut primary = Server::start(&[]);
    let Some(replica) = follower_of(&primary) else { return };
    wait_for_link(&replica);
    let (confirmed, stop) = (AtomicU64::new(0), AtomicBool::new(false));
    let address = primary.address();
    thread::scope(|scope| {
        scope.spawn(|| {
            let mut client = Client::connect(address).unwrap();
            for n in 1.. {
                let set = ["SET".to_string(), format!("key{n}"), n.to_string()];
                let confirms =
                    client.try_call(&set).and_then(|_| client.try_call(&["WAIT", "1", "0"]));
                match confirms {
                    Ok(answer) if answer.to_string() == "(integer) 1" => {
                        confirmed.store(n, Ordering::Relaxed);
                    }
                    _ => break,
                }
            }
            stop.store(true, Ordering::Relaxed);
        });
        eventually("some are confirmed", || confirmed.load(Ordering::Relaxed) > 100);
        primary.kill();
        eventually("the writer has noticed", || stop.load(Ordering::Relaxed));
    });
    let mut client = replica.client();
    assert_eq!(client.run("REPLICAOF NO ONE"), "OK");
    for n in 1..=confirmed.load(Ordering::Relaxed) {
        assert_eq!(client.run(&format!("GET key{n}")), format!("\"{n}\""));
    }
    assert_eq!(client.run("SET it works"), "OK");
}

#[test]
fn two_at_once_and_one_that_was_the_others_replica_go_on() {
    let primary = Server::start(&[]);
    primary.client().run("SET key 1");
    let (Some(one), Some(two)) = (follower_of(&primary), follower_of(&primary)) else { return };
    [&one, &two].into_iter().for_each(wait_for_link);
    while_writing(&primary, 4, || catch_up(&primary, &one));
    let (end, mut client) = (end(&primary), primary.client());
    eventually("both have everything", || {
        let info = client.run("INFO replication");
        info.matches("state=online").count() == 2
    });
    for replica in [&one, &two] {
        let mut client = replica.client();
        eventually("it has everything", || {
            let offset = info(&mut client, "replication", "slave_repl_offset");
            offset.parse::<u64>().unwrap() >= end
        });
        assert_same(&dump(replica), &dump(&primary));
    }
    // The two have the same bytes at the same offsets, so one can go on with the other.
    assert_eq!(one.client().run("REPLICAOF NO ONE"), "OK");
    assert_eq!(two.client().run(&format!("REPLICAOF 127.0.0.1 {}", one.port)), "OK");
    wait_for_link(&two);
    assert_eq!(info(&mut one.client(), "stats", "sync_partial_ok"), "1");
    one.client().run("SET promoted 1");
    eventually("it follows", || two.client().run("GET promoted") == "\"1\"");
}
