//! We are the replica: of a primary made here (`primary`), and of the redis-server that REDIS_SERVER names.

use crate::fake::Replica;
use crate::primary::{History, Primary};
use crate::redis::redis_server;
use crate::support::random::Random;
use crate::support::{Client, Directory, Program, Server, encode, eventually, with_more_and_more};
use crate::{
    assert_same, dump, end, follow, info, link_is_up, replica_offset, wait_for_link, while_writing,
};
use std::io::Read;

/// A server with data, and what a replica was sent that came before some of it.
fn recorded(commands: &[&str]) -> (Server, History) {
    let server = Server::start(&[]);
    let mut client = server.client();
    for command in ["SET before 1", "RPUSH list a b", "HSET hash f v", "SET n 5", "ZADD z 1.5 m"] {
        client.run(command);
    }
    let mut replica = Replica::following(&server);
    for command in commands {
        let reply = client.run(command);
        assert!(!reply.starts_with("(error)"), "{reply}");
    }
    replica.read_to(end(&server));
    (server, History::of(replica))
}

/// A primary that was recorded, and a server that may follow it.
fn a_primary_and_a_server() -> (Primary, Server, Client) {
    let (_, history) = recorded(&[]);
    let server = Server::start(&[]);
    let client = server.client();
    (Primary::new(history), server, client)
}

/// Each run twice leaves something else than run once, and so does each that is missing.
const CHANGES: [&str; 12] = [
    "INCR n",
    "RPUSH list c",
    "SELECT 3",
    "APPEND text abc",
    "MULTI",
    "INCR n",
    "RPUSH list d",
    "EXEC",
    "SELECT 0",
    "HINCRBY hash count 7",
    "ZINCRBY z 1 m",
    "INCR n",
];

#[test]
fn a_snapshot_that_is_torn_anywhere_changes_nothing_and_a_whole_one_takes_the_place_of_the_data() {
    let (other, history) = recorded(&[]);
    let mut primary = Primary::new(history);
    for tells_length in [true, false] {
        primary.tells_length = tells_length;
        let mut server = Server::start(&[]);
        server.client().run("SET own 1");
        let own = dump(&server);
        let length = primary.history.snapshot.len() + 60;
        for cut in (0..length).step_by(if tells_length { 11 } else { 7 }) {
            let mut guest = primary.invite(&server);
            let wire = guest.wire(&primary.history.snapshot);
            assert_eq!(guest.from, None);
            guest.send(&wire[..cut.min(wire.len() - 1)]);
            drop(guest);
        }
        assert_same(&dump(&server), &own);
        let mut guest = primary.invite(&server);
        guest.send_snapshot(&primary.history);
        guest.send_stream(&primary.history, usize::MAX);
        guest.wait_for(primary.history.end());
        assert_same(&dump(&server), &dump(&other));
        // The log has it too, and where it was.
        server.crash();
        let guest = primary.invite(&server);
        assert_same(&dump(&server), &dump(&other));
        assert!(guest.from.is_some());
    }
}

#[test]
fn a_stream_that_is_torn_anywhere_and_kills_in_between_repeat_nothing_and_lose_nothing() {
    let (other, history) = recorded(&CHANGES);
    let primary = Primary::new(history);
    let history = &primary.history;
    let mut server = Server::start(&[]);
    primary.invite(&server).send_snapshot(history);
    let (mut random, mut last) = (Random::new(3), history.begin);
    for round in 0.. {
        let mut guest = primary.invite(&server);
        let from = guest.from.expect("it goes on where it was");
        // The log does not note a place if what leads there has changed nothing, such as SELECT.
        assert!(from + 60 > last, "{from} is before {last}");
        if from == history.end() {
            break;
        }
        last = from;
        // Often a little more than nothing; sometimes too little for a unit.
        let count = 1 + random.below(150);
        guest.send_stream(history, count);
        if random.percent(50) {
            // What it says that it has, it keeps.
            let reached = (from + count as u64).min(history.end());
            drop(guest);
            eventually("it has noticed", || {
                info(&mut server.client(), "replication", "master_link_status") == "down"
            });
            let offset = replica_offset(&server);
            assert!((from..=reached).contains(&offset), "{offset} is not in {from}..{reached}");
            last = offset;
        }
        if round % 3 == 0 {
            server.crash();
        }
    }
    assert_same(&dump(&server), &dump(&other));
    server.crash();
    assert_same(&dump(&server), &dump(&other));
}

#[test]
fn a_rewrite_keeps_the_place_and_a_write_of_our_own_ends_it() {
    let (other, history) = recorded(&CHANGES);
    let primary = Primary::new(history);
    for preamble in ["no", "yes"] {
        rewrite_and_write(&primary, &other, preamble);
    }
}

fn rewrite_and_write(primary: &Primary, other: &Server, preamble: &str) {
    let history = &primary.history;
    let mut server = Server::start(&["--aof-use-rdb-preamble", preamble]);
    let mut guest = primary.invite(&server);
    guest.send_snapshot(history);
    server.crash();
    guest = primary.invite(&server);
    guest.send_stream(history, usize::MAX);
    guest.wait_for(history.end());
    server.client().run("BGREWRITEAOF");
    eventually("the rewrite ends", || {
        info(&mut server.client(), "persistence", "aof_rewrite_in_progress") == "0"
    });
    server.crash();
    assert_eq!(primary.invite(&server).from, Some(history.end()));
    assert_same(&dump(&server), &dump(other));
    let mut client = server.client();
    assert_eq!(client.run("REPLICAOF NO ONE"), "OK");
    assert_eq!(client.run("SET own 1"), "OK");
    server.crash();
    assert_eq!(primary.invite(&server).from, None);
    assert_eq!(server.client().run("GET own"), "\"1\"");
}

#[test]
fn what_is_not_here_ends_the_replication_with_its_name_and_leaves_the_data_as_it_was() {
    let (primary, server, mut client) = a_primary_and_a_server();
    let transaction: [&[&str]; 3] =
        [&["MULTI"], &["SET", "before", "2"], &["XADD", "stream", "*", "f", "v"]];
    let script = "return redis.call('SET', 'before', '2')";
    let cases: [(&[&[&str]], &str); 8] = [
        (&[&["EVAL", script, "0"]], "not supported: EVAL"),
        (&[&["MULTI"], &["SET", "before", "2"], &["EVAL", script, "0"]], "not supported: EVAL"),
        (
            &[&["EVALSHA", "e0e1f9fabfc9d4800c877a703b823ac0578ff8db", "0"]],
            "not supported: EVALSHA",
        ),
        (&[&["FUNCTION", "LOAD", "#!lua name=l"]], "not supported: FUNCTION"),
        (&transaction, "not supported: XADD"),
        (&[&["PFADD", "log", "1"]], "not supported: PFADD"),
        (&[&["SELECT", "99"]], "`--databases 16` is too few for SELECT 99"),
        (&[&["GET"]], "wrong number of arguments for GET"),
    ];
    for (commands, reason) in cases {
        let mut guest = primary.invite(&server);
        // It cannot be passed over but with a snapshot.
        guest.send_snapshot(&primary.history);
        let kept = guest.say(&["INCR", "n"]);
        for words in commands {
            guest.say(words);
        }
        wait_for_link(&server, "down");
        let said = info(&mut client, "replication", "master_link_down_reason");
        assert_eq!(said, reason);
        assert_eq!(replica_offset(&server), primary.history.begin + kept);
        assert_eq!(client.run("GET before"), "\"1\"");
        assert_eq!(client.run("GET n"), "\"6\"");
        assert_eq!(client.run("SET own 1").split(' ').nth(1), Some("READONLY"));
        server.wait_for_line(&format!("STOPPED: {reason}"));
    }
}

#[test]
fn what_changes_no_data_is_passed_over_and_what_no_primary_says_does_no_harm() {
    let (primary, server, mut client) = a_primary_and_a_server();
    let mut guest = primary.invite(&server);
    guest.send_snapshot(&primary.history);
    let mut sent = primary.history.begin;
    let nothing: [&[&str]; 12] = [
        &["SCRIPT", "LOAD", "return 1"],
        &["MULTI"],
        &["SCRIPT", "FLUSH"],
        &["SCRIPT", "FLUSH", "ASYNC"],
        &["FUNCTION", "FLUSH"],
        &["EXEC"],
        &["REPLCONF"],
        &["REPLCONF", "GETACK"],
        &["REPLCONF", "ACK", "1", "ID", "x", "DB"],
        &["MULTI"],
        &["SET", "before", "2"],
        &["DISCARD"],
    ];
    for words in nothing {
        sent += guest.say(words);
    }
    sent += guest.say(&["INCR", "n"]);
    sent += guest.say(&["REPLCONF", "GETACK", "*"]);
    guest.wait_for(sent);
    assert_eq!(client.run("MGET before n"), "1) \"1\"\n2) \"6\"");
    assert!(link_is_up(&server));
}

/// Of a place that a peer names, the offset must leave room for what follows, and there must be such a database.
#[test]
fn a_place_that_cannot_be_is_refused_and_the_next_try_succeeds() {
    let (other, history) = recorded(&[]);
    let mut primary = Primary::new(history);
    let server = Server::start(&[]);
    let begin = primary.history.begin;
    for impossible in [u64::MAX, i64::MAX as u64, 1 << 63] {
        primary.history.begin = impossible;
        drop(primary.invite(&server));
        let mut client = server.client();
        eventually("it is refused", || {
            info(&mut client, "replication", "master_sync_in_progress") == "0"
                && info(&mut client, "replication", "master_link_down_reason")
                    .ends_with(&impossible.to_string())
        });
    }
    primary.history.begin = begin;
    let mut guest = primary.welcome();
    guest.send_snapshot(&primary.history);
    guest.send_stream(&primary.history, usize::MAX);
    guest.wait_for(primary.history.end());
    assert_same(&dump(&server), &dump(&other));

    for (db, from) in [("3", Some(begin)), ("99", None), ("-1", None)] {
        let directory = Directory::new();
        let offset = begin.to_string();
        let record = ["REPLCONF", "ACK", &offset, "ID", &primary.history.id, "DB", db];
        std::fs::write(directory.0.join("appendonly.aof"), encode(&record)).unwrap();
        let server = Server::start_in(directory, Program::Ours, &[]);
        assert_eq!(primary.invite(&server).from, from, "{db}");
    }
}

#[test]
fn a_snapshot_that_is_damaged_on_the_way_is_asked_for_again() {
    let (other, history) = recorded(&[]);
    let mut primary = Primary::new(history);
    let server = Server::start(&[]);
    server.client().run("SET own 1");
    let whole = primary.history.snapshot.clone();
    let changed = |at: usize, to: u8| {
        let mut bytes = whole.clone();
        bytes[at] = to;
        bytes
    };
    let last = whole.len() - 1;
    let value = whole.windows(6).position(|bytes| bytes == b"before").unwrap();
    let damaged = [
        changed(last, !whole[last]),
        changed(value, b'X'),
        // A type that nobody has, and no snapshot at all.
        changed(value - 2, 99),
        changed(0, b'X'),
        whole[..last - 3].to_vec(),
        [&whole[..], b"more"].concat(),
    ];
    primary.invite(&server);
    for (number, snapshot) in damaged.iter().enumerate() {
        primary.tells_length = number % 2 == 1 || snapshot.len() != whole.len();
        // It comes by itself.
        let mut guest = primary.welcome();
        let wire = guest.wire(snapshot);
        guest.send(&wire);
    }
    let mut guest = primary.welcome();
    guest.send_snapshot(&primary.history);
    guest.send_stream(&primary.history, usize::MAX);
    guest.wait_for(primary.history.end());
    assert_same(&dump(&server), &dump(&other));
    // What would come again is not asked for again.
    let mut guest = primary.invite(&server);
    if guest.from.is_some() {
        server.client().run("REPLICAOF NO ONE");
        server.client().run("SET own 1");
        guest = primary.invite(&server);
    }
    let wire = guest.wire(&changed(value - 2, 15));
    guest.send(&wire);
    server.wait_for_line("STOPPED: the snapshot cannot be read");
    server.wait_for_line("it is a stream (type 15)");
}

/// As a redis-server does, where REDIS_SERVER names one.
#[test]
fn role_and_info_say_how_far_it_is_from_the_answer_to_psync_on() {
    let (_, history) = recorded(&[]);
    let primary = Primary::new(history);
    let mut programs = vec![Program::Ours];
    programs.extend(redis_server());
    for program in programs {
        let server = Server::start_in(Directory::new(), program, &[]);
        let mut client = server.client();
        let role = |client: &mut Client| {
            let lines = client.run("ROLE").replace("\"", "");
            let of = |begin: &str| {
                let line = lines.lines().find_map(|line| line.strip_prefix(begin));
                line.unwrap_or_else(|| panic!("{lines}")).to_string()
            };
            (of("4) "), of("5) (integer) "))
        };
        let sync = ["total_bytes", "read_bytes", "left_bytes", "perc"];
        let mut says = |fields: [&str; 4]| {
            assert_eq!(role(&mut client), ("sync".into(), "-1".into()));
            let mut field = |name: &str| info(&mut client, "replication", name);
            eventually("it says so", || {
                sync.map(|name| field(&format!("master_sync_{name}"))) == fields
            });
            assert_eq!(field("master_sync_in_progress"), "1");
            assert_eq!(field("master_link_status"), "down");
            assert_eq!(field("master_link_down_since_seconds"), "-1");
        };
        let mut guest = primary.invite(&server);
        eventually("it has read the answer", || {
            role(&mut server.client()) == ("sync".into(), "-1".into())
        });
        says(["-1", "0", "-1", "-0.00"]);
        let wire = guest.wire(b"REDIS");
        guest.send(&wire[..wire.len() - 40]);
        says(["0", "5", "-5", "0.00"]);
        drop(guest);
        let mut guest = primary.welcome();
        guest.send_snapshot(&primary.history);
        let mut client = server.client();
        assert_eq!(role(&mut client), ("connected".into(), primary.history.begin.to_string()));
        drop(guest);
        wait_for_link(&server, "down");
        assert_eq!(role(&mut client).1, "-1");
        let since = info(&mut client, "replication", "master_link_down_since_seconds");
        assert!(since.parse::<u64>().is_ok(), "{since}");
    }
}

#[test]
fn client_pause_stops_what_the_primary_writes_and_the_link_lives_on() {
    let (primary, server, mut client) = a_primary_and_a_server();
    let mut guest = primary.invite(&server);
    guest.send_snapshot(&primary.history);
    assert_eq!(client.run("CLIENT PAUSE 1000000 WRITE"), "OK");
    let begin = primary.history.begin;
    let sent = begin + guest.say(&["INCR", "n"]);
    // It says so once a second.
    (0..3).for_each(|_| guest.wait_for(begin));
    assert_eq!(client.run("GET n"), "\"5\"");
    assert_eq!(client.run("CLIENT UNPAUSE"), "OK");
    guest.wait_for(sent);
    assert_eq!(client.run("GET n"), "\"6\"");
}

#[test]
fn getack_is_answered_at_once_messages_are_published_and_expired_keys_wait_for_their_del() {
    let (_, history) = recorded(&[]);
    let primary = Primary::new(history);
    let server = Server::start(&[]);
    let (mut client, mut subscriber) = (server.client(), server.client());
    subscriber.run("SUBSCRIBE news");
    let mut guest = primary.invite(&server);
    guest.send_snapshot(&primary.history);
    let mut sent = primary.history.end();
    assert_eq!(sent, primary.history.begin + primary.history.stream.len() as u64);
    guest.send_stream(&primary.history, usize::MAX);
    sent += guest.say(&["SELECT", "0"]);
    sent += guest.say(&["SET", "gone", "1", "PXAT", "1"]);
    sent += guest.say(&["PUBLISH", "news", "hello"]);
    sent += guest.say(&["REPLCONF", "GETACK", "*"]);
    guest.wait_for(sent);
    assert!(subscriber.read().to_string().contains("hello"));
    let keys = client.run("DBSIZE");
    assert_eq!(client.run("GET gone"), "(nil)");
    assert_eq!(client.run("DBSIZE"), keys);
    assert!(client.run("CLIENT LIST TYPE master").contains(" flags=M "));
    sent += guest.say(&["DEL", "gone"]);
    sent += guest.say(&["REPLCONF", "GETACK", "*"]);
    guest.wait_for(sent);
    assert_ne!(client.run("DBSIZE"), keys);
    // From the OK on nothing of the primary's comes.
    assert_eq!(client.run("REPLICAOF NO ONE"), "OK");
    guest.say(&["SET", "late", "1"]);
    assert_eq!(client.run("SET own 1"), "OK");
    assert_eq!(client.run("GET late"), "(nil)");
}

/// It was admitted before, and waits for the lock.
#[test]
fn what_was_sent_before_replicaof_and_would_run_behind_it_is_refused() {
    let server = Server::start(&["--enable-debug-command", "yes"]);
    let mut client = server.client();
    for write in ["SET late 1", "MULTI\r\nSET late 1\r\nEXEC"] {
        with_more_and_more(1, |seconds| {
            let (mut holder, mut writer) = (server.client(), server.client());
            holder.send(&["DEBUG", "SLEEP", &seconds.to_string()]);
            (0..20).for_each(|_| drop(client.run("PING")));
            writer.raw(format!("{write}\r\n").as_bytes());
            (0..20).for_each(|_| drop(client.run("PING")));
            // Nobody listens there.
            follow(&server, "127.0.0.1", 1);
            let replies = write.lines().map(|_| writer.read().to_string());
            let last = replies.last().expect("a reply");
            let value = client.run("GET late");
            assert_eq!(client.run("REPLICAOF NO ONE"), "OK");
            assert_eq!(value == "(nil)", last.contains("READONLY"), "{last}");
            client.run("DEL late");
            if value == "(nil)" { Ok(()) } else { Err("it may have run before".into()) }
        });
    }
}

/// A script may keep it from taking the data over, or the disk, which is to have it first.
#[test]
fn a_replica_says_that_it_lives_while_it_cannot_take_over_the_snapshot_yet() {
    let (_, history) = recorded(&[]);
    let primary = Primary::new(history);
    let server = Server::start(&["--busy-reply-threshold", "1"]);
    let (mut client, mut busy) = (server.client(), server.client());
    let mut guest = primary.invite(&server);
    busy.send(&["EVAL", "while true do end", "0"]);
    eventually("the script is busy", || client.run("GET before").starts_with("(error) BUSY"));
    let wire = guest.wire(&primary.history.snapshot);
    guest.send(&wire);
    let mut signs = [0; 3];
    guest.reader.read_exact(&mut signs).expect("a sign of life each second");
    assert_eq!(signs, [b'\n'; 3]);
    assert_eq!(client.run("SCRIPT KILL"), "OK");
    guest.wait_for(primary.history.begin);
    assert_eq!(client.run("GET before"), "\"1\"");
}

#[test]
fn a_snapshot_is_not_taken_over_before_the_end_of_a_pause() {
    let (primary, server, mut client) = a_primary_and_a_server();
    assert_eq!(client.run("CLIENT PAUSE 1000000 WRITE"), "OK");
    let mut guest = primary.invite(&server);
    let wire = guest.wire(&primary.history.snapshot);
    guest.send(&wire);
    let mut signs = [0; 2];
    guest.reader.read_exact(&mut signs).expect("a sign of life each second");
    assert_eq!(signs, [b'\n'; 2]);
    assert_eq!(client.run("GET before"), "(nil)");
    assert_eq!(client.run("CLIENT UNPAUSE"), "OK");
    guest.wait_for(primary.history.begin);
    assert_eq!(client.run("GET before"), "\"1\"");
}

/// `replica-ignore-maxmemory`. The primary has no limit.
#[test]
fn a_replica_evicts_keys_of_its_own_only_if_it_is_told_to() {
    let primary = Server::start(&[]);
    let mut programs = vec![Program::Ours];
    programs.extend(redis_server());
    for program in programs {
        let replicas = ["yes", "no", "no"].map(|ignores| {
            let flags = ["--replica-ignore-maxmemory", ignores, "--repl-diskless-sync-delay", "0"];
            let replica = Server::start_in(Directory::new(), program.clone(), &flags);
            follow(&replica, "127.0.0.1", primary.port);
            wait_for_link(&replica, "up");
            replica
        });
        let policies = ["allkeys-lru", "allkeys-lru", "noeviction"];
        for (replica, policy) in replicas.iter().zip(policies) {
            let mut client = replica.client();
            let before: u64 = info(&mut client, "memory", "used_memory_startup").parse().unwrap();
            let limit = (before + 3_300_000).to_string();
            assert_eq!(client.run(&format!("CONFIG SET maxmemory-policy {policy}")), "OK");
            assert_eq!(client.run(&format!("CONFIG SET maxmemory {limit}")), "OK");
        }
        let (mut client, value) = (primary.client(), "x".repeat(10_000));
        client.run("FLUSHALL");
        for n in 0..400 {
            client.call(&["SET", &format!("key{n}"), &value]);
        }
        let end = end(&primary);
        let [faithful, small, full] = &replicas;
        for replica in &replicas {
            eventually("it has come as far", || replica_offset(replica) >= end);
        }
        let keys = |server: &Server| {
            let text = server.client().run("DBSIZE");
            text.trim_start_matches("(integer) ").parse::<usize>().unwrap()
        };
        let evicted = |server: &Server| info(&mut server.client(), "stats", "evicted_keys");
        assert_eq!((keys(faithful), evicted(faithful).as_str()), (400, "0"), "{program}");
        assert_same(&dump(faithful), &dump(&primary));
        assert!((50..390).contains(&keys(small)), "{program}: {}", keys(small));
        assert_ne!(evicted(small), "0");
        // What has no room is missing, and the operator is told.
        assert!((50..390).contains(&keys(full)), "{program}: {}", keys(full));
        assert_eq!(evicted(full), "0");
        full.wait_for_line("OOM command not allowed");
        assert!(link_is_up(small) && link_is_up(full));
    }
}

#[test]
fn a_replica_that_is_promoted_is_a_primary_at_once_and_the_old_one_can_follow_it() {
    let mut one = Server::start(&[]);
    let two = Server::start(&["--replicaof", &format!("127.0.0.1 {}", one.port)]);
    wait_for_link(&two, "up");
    while_writing(&one, 4, || {
        eventually("it follows", || replica_offset(&two) > 100_000);
    });
    let end = end(&one);
    eventually("it has everything", || replica_offset(&two) >= end);
    assert_same(&dump(&two), &dump(&one));
    assert_eq!(two.client().run("REPLICAOF NO ONE"), "OK");
    assert_eq!(two.client().run("SET promoted 1"), "OK");
    one.crash();
    let mut client = one.client();
    assert_eq!(client.run(&format!("REPLICAOF 127.0.0.1 {}", two.port)), "OK");
    wait_for_link(&one, "up");
    assert_same(&dump(&one), &dump(&two));
    assert_eq!(
        client.run("SET own 1"),
        "(error) READONLY You can't write against a read only replica."
    );
}

/// A real primary. Its stream has what no test thinks of.
#[test]
fn a_redis_server_under_load_is_followed_through_kills_and_breaks_and_we_are_equal_in_the_end() {
    let Some(redis) = redis_server() else { return };
    let flags = ["--repl-backlog-size", "256mb", "--repl-diskless-sync-delay", "0"];
    let primary = Server::start_in(Directory::new(), redis, &flags);
    let address = format!("127.0.0.1 {}", primary.port);
    let mut server = Server::start(&["--replicaof", &address]);
    wait_for_link(&server, "up");
    let mut client = primary.client();
    while_writing(&primary, 6, || {
        for round in 0..6 {
            let before = replica_offset(&server);
            eventually("it follows", || replica_offset(&server) > before + 50_000);
            match round % 3 {
                0 => server.crash(),
                1 => drop(client.run("CLIENT KILL TYPE replica")),
                _ => drop(server.client().run("BGREWRITEAOF")),
            }
            wait_for_link(&server, "up");
        }
    });
    let end = end(&primary);
    eventually("it has everything", || replica_offset(&server) >= end);
    assert_same(&dump(&server), &dump(&primary));
    assert_eq!(info(&mut client, "stats", "sync_full"), "1");
    server.crash();
    assert_same(&dump(&server), &dump(&primary));
}
