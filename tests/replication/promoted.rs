//! We are promoted: who may go on with us without a snapshot.

use crate::redis::redis_server;
use crate::support::{Directory, Program, Server, eventually};
use crate::{assert_same, dump, end, follow, info, replica_offset, wait_for_link, while_writing};
use std::process::Command;

/// A primary and two replicas, of which the first is ours. No PING comes between.
fn family(primary: Program, sibling: Program, flags: &[&str]) -> [Server; 3] {
    let quiet = ["--repl-ping-replica-period", "3600", "--repl-diskless-sync-delay", "0"];
    let flags = [&quiet, flags].concat();
    let primary = Server::start_in(Directory::new(), primary, &flags);
    let ours = Server::start(&flags);
    let sibling = Server::start_in(Directory::new(), sibling, &flags);
    for replica in [&ours, &sibling] {
        follow(replica, "127.0.0.1", primary.port);
        wait_for_link(replica, "up");
    }
    [primary, ours, sibling]
}

/// All pairs of primary and sibling.
fn families(flags: &[&str]) -> Vec<[Server; 3]> {
    let mut families = vec![family(Program::Ours, Program::Ours, flags)];
    if let Some(redis) = redis_server() {
        families.push(family(redis.clone(), redis.clone(), flags));
        families.push(family(redis, Program::Ours, flags));
    }
    families
}

fn catch_up(primary: &Server, replica: &Server) {
    let end = end(primary);
    eventually("it has everything", || replica_offset(replica) >= end);
}

fn partial(server: &Server) -> String {
    info(&mut server.client(), "stats", "sync_partial_ok")
}

#[test]
fn the_other_replicas_of_the_old_primary_and_itself_go_on_with_us() {
    for [primary, ours, sibling] in families(&[]) {
        while_writing(&primary, 4, || {
            eventually("it follows", || replica_offset(&ours) > 100_000);
        });
        catch_up(&primary, &ours);
        catch_up(&primary, &sibling);
        let mut client = ours.client();
        let id = info(&mut primary.client(), "replication", "master_replid");
        let offset = replica_offset(&ours);
        assert_eq!(client.run("REPLICAOF NO ONE"), "OK");
        assert_eq!(info(&mut client, "replication", "master_replid2"), id);
        assert_eq!(
            info(&mut client, "replication", "second_repl_offset"),
            (offset + 1).to_string()
        );
        while_writing(&ours, 2, || {
            follow(&sibling, "127.0.0.1", ours.port);
            wait_for_link(&sibling, "up");
        });
        assert_eq!(partial(&ours), "1");
        // It goes on with what it was primary of.
        follow(&primary, "127.0.0.1", ours.port);
        wait_for_link(&primary, "up");
        assert_eq!(partial(&ours), "2");
        catch_up(&ours, &primary);
        assert_same(&dump(&primary), &dump(&ours));
        catch_up(&ours, &sibling);
        assert_same(&dump(&sibling), &dump(&ours));
        assert_eq!(info(&mut client, "stats", "sync_full"), "0");
        // WAIT counts them, though they count as the old primary did.
        client.run("SET waited 1");
        assert_eq!(client.run("WAIT 2 0"), "(integer) 2");
        // And over a break.
        client.run("CLIENT KILL TYPE replica");
        eventually("they have come back", || partial(&ours) == "4");
        catch_up(&ours, &sibling);
        assert_same(&dump(&sibling), &dump(&ours));
        assert_eq!(info(&mut client, "stats", "sync_full"), "0");
    }
}

/// The primary dies, and of its last bytes some have reached us and not the other one.
#[test]
fn a_replica_that_lacks_the_last_bytes_of_the_old_primary_gets_them_from_us() {
    for [mut primary, ours, sibling] in families(&["--repl-backlog-size", "256mb"]) {
        catch_up(&primary, &sibling);
        let signal = |name: &str| {
            let pid = sibling.pid().to_string();
            assert!(Command::new("kill").args([name, &pid]).status().unwrap().success());
        };
        signal("-STOP");
        // More than the kernel holds for it.
        let value = "x".repeat(100_000);
        let mut client = primary.client();
        for n in 0..200 {
            client.call(&["SET", &format!("large{n}"), &value]);
        }
        catch_up(&primary, &ours);
        primary.kill();
        let mut client = ours.client();
        assert_eq!(client.run("REPLICAOF NO ONE"), "OK");
        signal("-CONT");
        follow(&sibling, "127.0.0.1", ours.port);
        wait_for_link(&sibling, "up");
        client.run("SET promoted 1");
        catch_up(&ours, &sibling);
        assert_same(&dump(&sibling), &dump(&ours));
        assert_eq!(partial(&ours), "1");
        assert_eq!(info(&mut client, "stats", "sync_full"), "0");
    }
}

#[test]
fn after_a_kill_of_the_promoted_those_who_have_followed_it_go_on() {
    for [mut primary, mut ours, sibling] in families(&[]) {
        while_writing(&primary, 2, || {
            eventually("it follows", || replica_offset(&ours) > 50_000);
        });
        catch_up(&primary, &ours);
        catch_up(&primary, &sibling);
        primary.kill();
        assert_eq!(ours.client().run("REPLICAOF NO ONE"), "OK");
        follow(&sibling, "127.0.0.1", ours.port);
        wait_for_link(&sibling, "up");
        while_writing(&ours, 2, || {
            let begin = replica_offset(&sibling);
            eventually("it follows", || replica_offset(&sibling) > begin + 50_000);
        });
        catch_up(&ours, &sibling);
        ours.kill();
        ours.start_again();
        follow(&sibling, "127.0.0.1", ours.port);
        wait_for_link(&sibling, "up");
        catch_up(&ours, &sibling);
        assert_same(&dump(&sibling), &dump(&ours));
        assert_eq!(partial(&ours), "1");
    }
}

/// The database that the primary has named last is one that our log does not name.
#[test]
fn what_we_write_reaches_the_other_replicas_in_its_database() {
    for [primary, ours, sibling] in families(&[]) {
        let mut client = primary.client();
        client.run("SET key 1");
        client.run("SELECT 3");
        for _ in 0..2 {
            client.run("PUBLISH news hello");
            let offset = info(&mut client, "replication", "master_repl_offset").parse().unwrap();
            for replica in [&ours, &sibling] {
                eventually("it has everything", || replica_offset(replica) >= offset);
            }
        }
        let mut client = ours.client();
        assert_eq!(client.run("REPLICAOF NO ONE"), "OK");
        client.run("SET promoted 1");
        follow(&sibling, "127.0.0.1", ours.port);
        wait_for_link(&sibling, "up");
        catch_up(&ours, &sibling);
        assert_same(&dump(&sibling), &dump(&ours));
    }
}

/// Replicas of a replica count as that does, and go on when it is promoted.
#[test]
fn a_replica_of_the_promoted_replica_notices_nothing() {
    let [primary, ours, below] = family(Program::Ours, Program::Ours, &[]);
    follow(&below, "127.0.0.1", ours.port);
    wait_for_link(&below, "up");
    while_writing(&primary, 2, || {
        eventually("it follows", || replica_offset(&ours) > 50_000);
    });
    catch_up(&primary, &ours);
    assert_eq!(ours.client().run("REPLICAOF NO ONE"), "OK");
    let mut client = ours.client();
    client.run("SET promoted 1");
    assert_eq!(client.run("WAIT 1 0"), "(integer) 1");
    client.run("CLIENT KILL TYPE replica");
    eventually("it has come back", || partial(&ours) == "1");
    client.run("SET promoted 2");
    assert_eq!(client.run("WAIT 1 0"), "(integer) 1");
    assert_same(&dump(&below), &dump(&ours));
    assert_eq!(info(&mut client, "stats", "sync_full"), "1");
}
