//! What a replica is sent, and what becomes of it.

use crate::fake::{Replica, without_annotations};
use crate::support::process::memory;
use crate::support::random::Random;
use crate::support::{
    Client, Directory, Program, Server, eventually, log_files, with_more_and_more,
};
use crate::{assert_same, dump, end, info, started_on, while_writing};
use std::collections::BTreeMap;
use std::fs;
use std::process::Command;
use std::thread;
use std::time::Duration;

#[test]
fn a_replica_is_sent_the_records_of_the_log_byte_for_byte_and_no_annotations() {
    let server = Server::start(&["--repl-ping-replica-period", "1"]);
    let mut replica = Replica::following(&server);
    while_writing(&server, 4, || replica.read_to(300_000));
    replica.read_to(end(&server));
    let logs = log_files(server.dir()).unwrap();
    let log: Vec<u8> = logs.iter().flat_map(|path| fs::read(path).unwrap()).collect();
    assert!(log.windows(5).any(|bytes| bytes == b"#CRC:"));
    let mut log = without_annotations(&log);
    // A PING may have come since.
    log.truncate(replica.stream.len());
    assert!(log == replica.stream);
    assert_same(&dump(&started_on(&replica.stream)), &dump(&server));
}

#[test]
fn a_replica_that_is_torn_off_anywhere_goes_on_where_it_was_and_is_equal_in_the_end() {
    let server = Server::start(&["--repl-ping-replica-period", "1"]);
    let mut replica = Replica::following(&server);
    let mut random = Random::new(7);
    while_writing(&server, 8, || {
        for _ in 0..200 {
            let count = random.below(20_000);
            replica.read_to(replica.offset + count as u64);
            replica.reconnect(&server);
            assert!(replica.psync(), "its place is in the log");
        }
    });
    replica.read_to(end(&server));
    assert_same(&dump(&started_on(&replica.stream)), &dump(&server));
    let mut client = server.client();
    assert_eq!(info(&mut client, "stats", "sync_partial_ok"), "200");
    assert_eq!(info(&mut client, "stats", "sync_full"), "1");
}

/// The quick one reads at once, the slow one a little now and then, the third loses its connection again and again.
#[test]
fn fifty_writers_and_rewrites_and_three_replicas_are_equal_in_the_end() {
    let flags = ["--client-output-buffer-limit", "replica 0 0 0", "--repl-backlog-size", "1gb"];
    let server = Server::start(&flags);
    let [mut quick, mut slow, mut torn] = [(); 3].map(|()| Replica::following(&server));
    while_writing(&server, 50, || {
        thread::scope(|scope| {
            scope.spawn(|| quick.read_to(6_000_000));
            scope.spawn(|| {
                while slow.offset < 2_000_000 {
                    slow.read(10_000);
                    thread::sleep(Duration::from_millis(1));
                }
            });
            scope.spawn(|| {
                while torn.offset < 4_000_000 {
                    torn.read_to(torn.offset + 400_000);
                    torn.reconnect(&server);
                    assert!(torn.psync());
                }
            });
            let mut client = server.client();
            for _ in 0..3 {
                eventually("a rewrite begins", || client.run("BGREWRITEAOF").starts_with("Back"));
                eventually("it ends", || {
                    info(&mut client, "persistence", "aof_rewrite_in_progress") == "0"
                });
            }
        });
    });
    let (end, wanted) = (end(&server), dump(&server));
    for replica in [&mut quick, &mut slow, &mut torn] {
        replica.read_to(end);
        assert_same(&dump(&started_on(&replica.stream)), &wanted);
    }
}

/// How many files of the log are deleted, and open.
fn deleted_and_open(server: &Server) -> usize {
    let open = fs::read_dir(format!("/proc/{}/fd", server.pid())).unwrap();
    let names = open.filter_map(|entry| fs::read_link(entry.unwrap().path()).ok());
    names.filter(|name| name.to_string_lossy().ends_with("incr.aof (deleted)")).count()
}

#[test]
fn a_file_that_a_rewrite_has_deleted_is_kept_while_a_replica_reads_it_and_no_longer() {
    let server = Server::start(&["--repl-backlog-size", "1"]);
    let mut replica = Replica::following(&server);
    let mut client = server.client();
    let value = "x".repeat(1_000_000);
    for n in 0..30 {
        client.call(&["SET", &format!("key{n}"), &value]);
    }
    client.run("BGREWRITEAOF");
    eventually("the rewrite ends", || {
        info(&mut client, "persistence", "aof_rewrite_in_progress") == "0"
    });
    client.run("SET end 1");
    eventually("the old file is deleted, and open", || deleted_and_open(&server) == 1);
    replica.read_to(end(&server));
    eventually("nobody needs it any more", || deleted_and_open(&server) == 0);
    assert_same(&dump(&started_on(&replica.stream)), &dump(&server));
}

#[test]
fn a_replica_that_stops_reading_is_cut_off_takes_no_memory_and_nobody_waits_for_it() {
    let limit = ["--client-output-buffer-limit", "replica 30mb 0 0"];
    let server = Server::start(&limit);
    let mut replica = Replica::following(&server);
    let mut client = server.client();
    let value = "x".repeat(1_000_000);
    let before = memory(server.pid(), "VmRSS");
    for _ in 0..100 {
        assert_eq!(client.call(&["SET", "key", &value]).to_string(), "OK");
    }
    server.wait_for_line("overcoming of output buffer limits");
    eventually("it has left", || info(&mut client, "replication", "connected_slaves") == "0");
    assert!(memory(server.pid(), "VmRSS") < before + 40_000_000);
    // It has lost nothing.
    replica.reconnect(&server);
    assert!(replica.psync());
    replica.read_to(end(&server));
    assert_same(&dump(&started_on(&replica.stream)), &dump(&server));
}

#[test]
fn a_silent_replica_is_cut_off_and_one_that_acknowledges_is_not() {
    let server = Server::start(&["--repl-timeout", "2", "--repl-ping-replica-period", "1"]);
    let mut silent = Replica::following(&server);
    let mut speaking = Replica::following(&server);
    thread::scope(|scope| {
        scope.spawn(|| speaking.acknowledge_all());
        while silent.read(1000) > 0 {}
        let mut client = server.client();
        eventually("one is left", || info(&mut client, "replication", "connected_slaves") == "1");
        client.run("CLIENT KILL TYPE replica");
    });
}

#[test]
fn what_the_disk_has_refused_is_not_sent_and_what_it_takes_later_is() {
    // In units of 512 bytes. The signal would end the process, were it not ignored.
    let limited = Program::Under("trap '' XFSZ; ulimit -S -f 1000".into());
    let server = Server::start_in(Directory::new(), limited, &["--appendfsync", "always"]);
    let mut replica = Replica::following(&server);
    let mut client = server.client();
    let mut acknowledged = 0;
    while client.run(&format!("SET key{acknowledged} {}", "x".repeat(5000))) == "OK" {
        acknowledged += 1;
    }
    assert!((50..110).contains(&acknowledged), "{acknowledged}");
    let keys = |stream: &[u8]| {
        let server = started_on(stream);
        let keys = dump(&server).into_iter().map(|entry| (entry.key, entry.value));
        keys.collect::<BTreeMap<_, _>>()
    };
    let end_of_all: u64 = info(&mut client, "replication", "master_repl_offset").parse().unwrap();
    replica.read_to(end_of_all);
    // The first that was refused is in memory, and nobody was told that it is safe.
    thread::sleep(Duration::from_millis(300));
    replica.socket().unwrap().set_nonblocking(true).unwrap();
    let more = replica.socket().unwrap().peek(&mut [0; 1]);
    assert!(more.is_err(), "{more:?}");
    replica.socket().unwrap().set_nonblocking(false).unwrap();
    assert_eq!(keys(&replica.stream).len(), acknowledged);
    // So whoever moves to the replica because the disk is full knows that nothing is missing there.
    replica.ack();
    assert_eq!(client.run("WAIT 1 5000"), "(integer) 1");
    let pid = server.pid().to_string();
    match Command::new("prlimit").args(["--pid", &pid, "--fsize=unlimited"]).status() {
        Ok(status) if status.success() => {}
        other => {
            return eprintln!("NOT RUN: the disk has room again, because of prlimit: {other:?}");
        }
    }
    eventually("the log is written again", || client.run("SET more 1") == "OK");
    replica.read_to(end(&server));
    assert_same(&dump(&started_on(&replica.stream)), &dump(&server));
}

#[test]
fn a_log_that_begins_anew_begins_a_new_history_and_without_a_log_there_are_no_replicas() {
    let server = Server::start(&[]);
    let mut replica = Replica::following(&server);
    let mut client = server.client();
    client.run("SET logged 1");
    assert_eq!(client.run("CONFIG SET appendonly no"), "OK");
    while replica.read(1000) > 0 {}
    let id = replica.id.clone();
    replica.reconnect(&server);
    let refusal = replica.ask(&["PSYNC", &id, "1"]);
    assert!(refusal.contains("a replica is sent the append-only file"), "{refusal}");
    client.run("SET unlogged 1");
    assert_eq!(client.run("CONFIG SET appendonly yes"), "OK");
    eventually("the log is on", || info(&mut client, "persistence", "aof_enabled") == "1");
    assert!(!replica.psync(), "what was not logged is not in the stream");
    assert_ne!(replica.id, id);
    assert!(replica.snapshot.windows(8).any(|bytes| bytes == b"unlogged"));
    client.run("SET logged 2");
    replica.read_to(end(&server));
    assert!(replica.stream.starts_with(b"*2\r\n$6\r\nSELECT\r\n$1\r\n0\r\n"));
}

#[test]
fn a_snapshot_is_the_state_of_one_moment_and_the_stream_goes_on_behind_it() {
    let server = Server::start(&["--client-output-buffer-limit", "replica 0 0 0"]);
    let mut client = server.client();
    client.run("MSET a 1 b 1");
    let mut replicas: Vec<Replica> = while_writing(&server, 4, || {
        let begin = || Replica::following(&server);
        thread::scope(|scope| {
            let replicas: Vec<_> = (0..4).map(|_| scope.spawn(begin)).collect();
            replicas.into_iter().map(|replica| replica.join().unwrap()).collect()
        })
    });
    let (end, wanted) = (end(&server), dump(&server));
    for replica in &mut replicas {
        replica.read_to(end);
        let both = [&replica.snapshot[..], &replica.stream].concat();
        assert_same(&dump(&started_on(&both)), &wanted);
    }
}

#[test]
fn one_that_knows_no_end_mark_is_told_the_length_and_one_that_wants_a_snapshot_alone_gets_no_more()
{
    let server = Server::start(&[]);
    let mut client = server.client();
    client.run("SET key value");
    let mut old = Replica::connect(&server);
    old.send(&["SYNC"]);
    old.read_snapshot();
    assert!(old.snapshot.starts_with(b"REDIS0010"));
    client.run("SET more 1");
    let stream = b"*2\r\n$6\r\nSELECT\r\n$1\r\n0\r\n*3\r\n$3\r\nSET\r\n$4\r\nmore\r\n$1\r\n1\r\n";
    old.read_to(stream.len() as u64);
    assert_eq!(old.stream, stream);

    let mut once = Replica::connect(&server);
    once.introduce();
    assert_eq!(once.ask(&["REPLCONF", "rdb-only", "1"]), "+OK");
    once.send(&["SYNC"]);
    once.read_snapshot();
    assert_eq!(once.read(1), 0);
    assert!(once.snapshot.windows(5).any(|bytes| bytes == b"value"));

    let mut empty = Replica::connect(&server);
    empty.introduce();
    assert_eq!(empty.ask(&["REPLCONF", "rdb-filter-only", ""]), "+OK");
    empty.send(&["SYNC"]);
    empty.read_snapshot();
    empty.ack();
    assert!(!empty.snapshot.windows(5).any(|bytes| bytes == b"value"));
    client.run("SET more 2");
    empty.read_to(stream.len() as u64);
}

#[test]
fn a_log_with_what_was_said_to_replicas_starts() {
    let mut server = Server::start(&["--repl-ping-replica-period", "1"]);
    let mut replica = Replica::following(&server);
    let mut client = server.client();
    client.run("SET key value");
    client.run("WAIT 1 1");
    let is_there = |replica: &Replica, text: &[u8]| {
        replica.stream.windows(text.len()).any(|bytes| bytes == text)
    };
    while !(is_there(&replica, b"PING") && is_there(&replica, b"GETACK")) {
        assert!(replica.read(1000) > 0);
    }
    let before = dump(&server);
    server.crash();
    assert_same(&dump(&server), &before);
}

#[test]
fn a_replica_goes_on_after_kills_of_the_primary_under_load_and_is_equal_in_the_end() {
    let mut server = Server::start(&[]);
    let mut replica = Replica::following(&server);
    for n in 1..5 {
        thread::scope(|scope| {
            for seed in 0..4 {
                let (address, pid) = (server.address(), server.pid());
                scope.spawn(move || {
                    let mut client = Client::connect_to(address, Some(pid)).unwrap();
                    for m in 0.. {
                        let set = format!("SET key{} {n}-{m}\r\n", (m + seed) % 50).repeat(20);
                        let is_over = client.try_raw(set.as_bytes()).is_err();
                        if is_over || (0..20).any(|_| client.try_read().is_err()) {
                            break;
                        }
                    }
                });
            }
            replica.read_to(replica.offset + 100_000);
            if n == 2 {
                server.client().run("BGREWRITEAOF");
            }
            server.kill();
            while replica.read(usize::MAX) > 0 {}
        });
        server.start_again();
        replica.reconnect(&server);
        assert!(replica.psync(), "{n}");
    }
    replica.read_to(end(&server));
    assert_same(&dump(&started_on(&replica.stream)), &dump(&server));
    let mut client = server.client();
    assert_eq!(info(&mut client, "stats", "sync_full"), "0");
    assert_eq!(info(&mut client, "replication", "master_replid"), replica.id);
}

/// Somebody puts back an older copy of the log: what is written now is not what the replica has had.
#[test]
fn a_replica_that_has_more_than_a_start_has_found_gets_a_snapshot() {
    let mut server = Server::start(&["--aof-checksum", "no"]);
    let mut replica = Replica::following(&server);
    let mut client = server.client();
    client.run("SET key 1");
    let whole = log_files(server.dir()).unwrap().pop().unwrap();
    let copy = fs::read(&whole).unwrap();
    client.run("SET key 2");
    replica.read_to(end(&server));
    server.kill();
    fs::write(&whole, copy).unwrap();
    server.start_again();
    for n in 0..100 {
        server.client().run(&format!("SET other {n}"));
    }
    replica.reconnect(&server);
    assert!(!replica.psync());
}

#[test]
fn shutdown_waits_until_replicas_have_everything_but_not_for_ever_nor_if_it_is_told_not_to() {
    for (command, timeout, has_all) in
        [("SHUTDOWN", "100", true), ("SHUTDOWN", "1", false), ("SHUTDOWN NOW", "100", false)]
    {
        let mut server = Server::start(&["--shutdown-timeout", timeout]);
        let mut replica = Replica::following(&server);
        let mut client = server.client();
        let value = "x".repeat(1_000_000);
        for _ in 0..30 {
            client.call(&["SET", "key", &value]);
        }
        client.raw(format!("{command}\r\n").as_bytes());
        if has_all {
            replica.acknowledge_all();
            assert!(replica.offset > 30_000_000, "{}", replica.offset);
        }
        server.wait_for_end();
    }
}

/// A snapshot takes as long to make as the commands of the log took.
#[test]
fn while_a_snapshot_is_made_newlines_say_that_we_live() {
    let server = Server::start(&[]);
    let mut client = server.client();
    for n in 0..20 {
        let members = (0..1000).map(|m| format!("{m} m{n}:{m}")).collect::<Vec<_>>();
        client.run(&format!("ZADD z {}", members.join(" ")));
    }
    with_more_and_more(30, |number| {
        (0..number).for_each(|_| drop(client.run("ZUNIONSTORE other 2 z z")));
        let signs = Replica::following(&server).signs;
        if signs > 0 { Ok(()) } else { Err("the snapshot was made within a second".into()) }
    });
}

#[test]
fn a_file_that_a_rewrite_has_deleted_is_closed_though_no_replica_is_left() {
    let server = Server::start(&["--repl-backlog-size", "1"]);
    drop(Replica::following(&server));
    let mut client = server.client();
    eventually("it has left", || info(&mut client, "replication", "connected_slaves") == "0");
    for _ in 0..3 {
        client.run("SET key 1");
        client.run("BGREWRITEAOF");
        eventually("the rewrite ends", || {
            info(&mut client, "persistence", "aof_rewrite_in_progress") == "0"
        });
    }
    client.run("SET end 1");
    eventually("the old files are closed", || deleted_and_open(&server) == 0);
}

/// Bytes that the server has read, from files and sockets.
fn bytes_read(server: &Server) -> u64 {
    let text = fs::read_to_string(format!("/proc/{}/io", server.pid())).unwrap();
    text.lines().find_map(|line| line.strip_prefix("rchar: ")?.parse().ok()).unwrap()
}

#[test]
fn to_find_the_place_of_a_replica_that_comes_back_the_server_does_not_read_the_whole_log() {
    let mut server = Server::start(&["--client-output-buffer-limit", "replica 0 0 0"]);
    let mut replica = Replica::following(&server);
    let mut client = server.client();
    let value = "x".repeat(10_000);
    for n in 0..4000 {
        client.call(&["SET", &format!("key{}", n % 10), &value]);
    }
    replica.read_to(end(&server));
    let come_back = |server: &Server, replica: &mut Replica| {
        let before = bytes_read(server);
        replica.reconnect(server);
        assert!(replica.psync());
        let read = bytes_read(server) - before;
        assert!(read < 5_000_000, "{read}");
    };
    come_back(&server, &mut replica);
    server.crash();
    come_back(&server, &mut replica);
}
