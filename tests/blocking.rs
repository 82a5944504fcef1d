//! Clients that wait for keys: nobody is forgotten, nothing is delivered twice or to somebody who has left,
//! and who waits costs nothing.
//!
//! The replies are in `tests/transcripts/blocking/`. Here are the crowds, the clients that leave or do not
//! read, and the kills.

// How many elements were on their way when the server was killed must be said.
#![allow(clippy::print_stderr)]

mod support;

use std::collections::BTreeSet;
use std::net::Shutdown;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};
use support::process::{sleeps, threads, wait_for_rest};
use support::{Client, Server, Stop, Value, encode, eventually};

/// A client that has sent this, and waits.
fn blocked(server: &Server, asking: &mut Client, command: &str) -> Client {
    let before = count_blocked(asking);
    let mut client = server.client();
    client.raw(format!("{command}\r\n").as_bytes());
    eventually("the client waits", || count_blocked(asking) > before);
    client
}

fn count_blocked(asking: &mut Client) -> usize {
    let info = asking.run("INFO clients");
    let (_, rest) = info.split_once("blocked_clients:").expect("INFO has the field");
    let (number, _) = rest.split_once('\\').expect("a line end");
    number.parse().expect("a number")
}

fn id_of(client: &mut Client) -> String {
    match client.call(&["CLIENT", "ID"]) {
        Value::Integer(id) => id.to_string(),
        other => panic!("{other:?} is no id"),
    }
}

#[test]
fn a_thousand_blocked_clients_use_no_processor_and_a_push_wakes_only_its_waiter() {
    let server = Server::start(&["--maxclients", "2000"]);
    let mut asking = server.client();
    let mut clients: Vec<Client> = (0..1000).map(|_| server.client()).collect();
    for (i, client) in clients.iter_mut().enumerate() {
        client.raw(format!("BLPOP key{i} 0\r\n").as_bytes());
    }
    eventually("all wait", || count_blocked(&mut asking) == 1000);
    assert!(threads(server.pid()) < 1020, "one thread for each client");
    // The server's own threads wake up ten times a second, however many clients there are.
    wait_for_rest(server.pid(), 100);
    let slept = sleeps(server.pid());
    for (i, client) in clients.iter_mut().enumerate().take(100) {
        asking.run(&format!("RPUSH key{i} x"));
        assert_eq!(client.read().items()[1].text(), b"x");
    }
    let slept = sleeps(server.pid()) - slept;
    assert!(slept < 900, "100 pushes put threads to sleep {slept} times");
    assert_eq!(count_blocked(&mut asking), 900);
}

/// The thread of the second may be faster. (The server waits for the first at most for a tenth of a second, so
/// a round in which it had to wait longer says nothing.)
#[test]
fn of_two_clients_that_wait_one_after_the_other_the_first_is_served() {
    let server = Server::start(&[]);
    let (mut first, mut second, mut pushing) = (server.client(), server.client(), server.client());
    for round in 0..1000 {
        let begin = Instant::now();
        first.raw(b"BLPOP k 0\r\n");
        second.raw(b"BLPOP k 0\r\n");
        pushing.run("RPUSH k a");
        pushing.run("RPUSH k b");
        let popped = [&mut first, &mut second].map(|client| client.read().items()[1].clone());
        let is_ordered = popped[0].text() == b"a" && popped[1].text() == b"b";
        let is_fast = begin.elapsed() < Duration::from_millis(100);
        assert!(is_ordered || !is_fast, "round {round}: {popped:?}");
    }
}

#[test]
fn each_element_is_delivered_once() {
    const PRODUCERS: usize = 4;
    const EACH: usize = 600;
    let server = Server::start(&[]);
    let pops = [
        "BLPOP a b 0",
        "BRPOP b a 0",
        "BLMPOP 0 2 a b LEFT COUNT 3",
        "BZPOPMIN z 0",
        "BZMPOP 0 2 none z MAX COUNT 2",
        "BLPOP moved 0",
    ];
    let seen = Mutex::new(Vec::new());
    let stop = AtomicBool::new(false);
    thread::scope(|scope| {
        let stopping = Stop(&stop);
        for i in 0..3 * pops.len() {
            let (mut client, seen, stop) = (server.client(), &seen, &stop);
            scope.spawn(move || {
                // Some wait for ever, until they are killed, and some for a moment only.
                let pop = pops[i % pops.len()];
                let pop = if i < 2 * pops.len() { pop.into() } else { in_a_moment(pop) };
                while !stop.load(Ordering::Relaxed)
                    && let Ok(answer) = client.try_call(&words(&pop))
                {
                    seen.lock().unwrap().extend(elements(&answer.to_string()));
                }
            });
        }
        let mut mover = server.client();
        let is_over = &stop;
        scope.spawn(move || {
            while !is_over.load(Ordering::Relaxed) {
                let _ = mover.try_call(&words("BLMOVE a moved LEFT RIGHT 0.05"));
            }
        });
        thread::scope(|scope| {
            for producer in 0..PRODUCERS {
                let mut client = server.client();
                scope.spawn(move || {
                    for i in 0..EACH {
                        push(&mut client, producer, i);
                    }
                });
            }
        });
        eventually("all are delivered", || seen.lock().unwrap().len() >= PRODUCERS * EACH);
        drop(stopping);
        // Those that wait for ever.
        let mut asking = server.client();
        eventually("nobody waits", || {
            asking.run("CLIENT KILL TYPE normal");
            count_blocked(&mut asking) == 0
        });
    });
    let seen = seen.into_inner().unwrap();
    assert_eq!(seen.len(), PRODUCERS * EACH);
    assert_eq!(seen.iter().collect::<BTreeSet<_>>().len(), seen.len(), "each once");
}

/// The same command with a timeout that is soon over.
fn in_a_moment(pop: &str) -> String {
    match pop.strip_suffix(" 0") {
        Some(keys) => format!("{keys} 0.002"),
        None => pop.replace(" 0 ", " 0.002 "),
    }
}

/// The elements in what redis-cli would print; all of them begin with `e`.
fn elements(answer: &str) -> Vec<String> {
    answer.split('"').filter(|text| text.starts_with('e')).map(str::to_string).collect()
}

fn push(client: &mut Client, producer: usize, i: usize) {
    let element = format!("e{producer}-{i}");
    let commands: &[String] = &match i % 4 {
        0 => vec![format!("RPUSH a {element}")],
        1 => vec![format!("ZADD z {i} {element}")],
        2 => vec![
            "MULTI".into(),
            format!("LPUSH other{producer} {element}"),
            format!("RENAME other{producer} b{producer}"),
            format!("LMOVE b{producer} b LEFT LEFT"),
            "EXEC".into(),
        ],
        _ => vec![format!("LPUSH b {element}")],
    };
    let all: Vec<u8> = commands.iter().flat_map(|line| encode(&words(line))).collect();
    client.raw(&all);
    for _ in commands {
        let reply = client.read();
        assert!(!reply.is_error(), "{reply}");
    }
}

fn words(line: &str) -> Vec<&str> {
    line.split(' ').collect()
}

#[test]
fn nothing_is_popped_for_a_client_that_has_left() {
    let server = Server::start(&[]);
    let mut asking = server.client();
    for round in 0..100 {
        let leaving = blocked(&server, &mut asking, "BLPOP k 0");
        let other = (round % 2 == 0).then(|| blocked(&server, &mut asking, "BLPOP k 0"));
        leaving.socket().shutdown(Shutdown::Both).expect("it is open");
        assert_eq!(asking.run("RPUSH k x"), "(integer) 1");
        match other {
            Some(mut other) => assert_eq!(other.read().items()[1].text(), b"x"),
            None => assert_eq!(asking.run("LPOP k"), r#""x""#),
        }
        drop(leaving);
        asking.wait_until_alone();
        assert_eq!(count_blocked(&mut asking), 0);
    }
}

#[test]
fn a_client_that_is_killed_while_it_waits_leaves_at_once() {
    let server = Server::start(&[]);
    let mut asking = server.client();
    // Behind the second one lies a command, so its thread waits in another way.
    for command in ["BLPOP k 0", "BLPOP k 0\r\nPING", "BZMPOP 0 2 a b MIN", "WAIT 1 0"] {
        let mut client = server.client();
        let id = id_of(&mut client);
        client.raw(format!("{command}\r\n").as_bytes());
        eventually("it waits", || count_blocked(&mut asking) == 1);
        assert!(asking.run(&format!("CLIENT LIST ID {id}")).contains(" flags=b "));
        assert_eq!(asking.run(&format!("CLIENT KILL ID {id}")), "(integer) 1");
        assert!(client.is_closed());
        eventually("it waits no more", || count_blocked(&mut asking) == 0);
    }
}

#[test]
fn client_unblock_ends_the_waiting_of_every_command() {
    let server = Server::start(&[]);
    let mut asking = server.client();
    let mut client = server.client();
    let id = id_of(&mut client);
    for (command, answer) in [
        ("BLPOP k 0", "*-1\r\n"),
        ("BRPOP k l 7", "*-1\r\n"),
        ("BLMOVE k l LEFT LEFT 0", "*-1\r\n"),
        ("BRPOPLPUSH k l 0", "*-1\r\n"),
        ("BLMPOP 0 1 k LEFT", "*-1\r\n"),
        ("BZPOPMIN k 0", "*-1\r\n"),
        ("BZPOPMAX k 0", "*-1\r\n"),
        ("BZMPOP 0 1 k MIN", "*-1\r\n"),
        ("WAIT 1 0", ":0\r\n"),
    ] {
        let error = "-UNBLOCKED client unblocked via CLIENT UNBLOCK\r\n";
        for (how, answer) in [("", answer), (" TIMEOUT", answer), (" error", error)] {
            client.raw(format!("{command}\r\n").as_bytes());
            eventually("it waits", || count_blocked(&mut asking) == 1);
            assert_eq!(asking.run(&format!("CLIENT UNBLOCK {id}{how}")), "(integer) 1");
            client.read();
            assert_eq!(String::from_utf8_lossy(client.wire()), answer, "{command}{how}");
            assert_eq!(asking.run(&format!("CLIENT UNBLOCK {id}{how}")), "(integer) 0");
            assert_eq!(count_blocked(&mut asking), 0);
        }
    }
    // As in Redis, it has failed, whatever it was told.
    let stats = asking.run("INFO commandstats");
    for (command, failed) in [("blpop", 3), ("bzmpop", 3), ("wait", 3)] {
        let (_, rest) = stats.split_once(&format!("cmdstat_{command}:calls={failed},")).unwrap();
        let line = rest.split("\\r").next().unwrap();
        assert!(line.ends_with(&format!("failed_calls={failed}")), "{command}: {line}");
    }
    assert!(asking.run("INFO errorstats").contains("errorstat_UNBLOCKED:count=9"));
    // It is in no queue any more.
    assert_eq!(asking.run("RPUSH k x"), "(integer) 1");
    assert_eq!(client.run("PING"), "PONG");
    // What was sent behind it runs now.
    client.raw(b"BLPOP none 0\r\nECHO behind\r\n");
    eventually("it waits", || count_blocked(&mut asking) == 1);
    asking.run(&format!("CLIENT UNBLOCK {id}"));
    assert_eq!((client.read(), client.read()), (Value::NilArray, Value::bulk("behind")));
}

#[test]
fn a_timeout_is_not_over_early_and_whoever_comes_late_is_served_once() {
    let server = Server::start(&[]);
    let mut client = server.client();
    for behind in ["", "PING\r\n"] {
        let begin = Instant::now();
        client.raw(format!("BLPOP k 0.1\r\n{behind}").as_bytes());
        assert_eq!(client.read(), Value::NilArray);
        assert!(begin.elapsed() >= Duration::from_millis(100));
    }
    assert_eq!(client.run("ECHO x"), "PONG");
    client.read();
    // The push comes at about the moment at which the time is over.
    let mut pushing = server.client();
    for i in 0..200 {
        client.raw(b"BLPOP k 0.003\r\n");
        thread::sleep(Duration::from_micros(2_500 + i * 5));
        pushing.run("RPUSH k x");
        let was_served = client.read() != Value::NilArray;
        let left = pushing.run("LPOP k");
        assert_eq!(left == "(nil)", was_served);
    }
}

#[test]
fn a_long_answer_to_a_client_that_does_not_read_stops_nobody() {
    const LONG: usize = 30_000_000;
    let server = Server::start(&[]);
    let mut asking = server.client();
    let mut waiting = blocked(&server, &mut asking, "BLPOP k 0");
    let element = vec![b'x'; LONG];
    assert_eq!(asking.call(&[b"RPUSH", &b"k"[..], &element]), Value::Integer(1));
    assert_eq!(asking.run("PING"), "PONG");
    // It sends more before it reads.
    waiting.raw(b"PING\r\n");
    assert_eq!(waiting.read().items()[1].text().len(), LONG);
    assert_eq!(waiting.read().text(), b"PONG");
    // One that reads nothing may be killed.
    let mut waiting = blocked(&server, &mut asking, "BLPOP k 0");
    asking.call(&[b"RPUSH", &b"k"[..], &element]);
    asking.run("CLIENT KILL TYPE normal");
    assert!(waiting.try_read().is_err());
    asking.wait_until_alone();
}

#[test]
fn a_subscriber_that_waits_is_sent_messages_and_its_answer() {
    let server = Server::start(&[]);
    let mut asking = server.client();
    let mut client = server.client();
    client.run("HELLO 3");
    client.run("SUBSCRIBE c");
    client.raw(b"BLPOP k 0\r\n");
    eventually("it waits", || count_blocked(&mut asking) == 1);
    asking.run("PUBLISH c before");
    assert!(client.read().to_string().contains("before"));
    asking.run("RPUSH k element");
    assert!(client.read().to_string().contains("element"));
    asking.run("PUBLISH c behind");
    assert!(client.read().to_string().contains("behind"));
    assert_eq!(client.run("PING"), "PONG");
}

/// The second message is left to the courier, because the round of the first one has taken a while.
#[test]
fn a_message_that_was_published_before_the_push_comes_before_the_answer() {
    let server = Server::start(&[]);
    let mut asking = server.client();
    let mut crowd: Vec<Client> = (0..100).map(|_| server.client()).collect();
    crowd.iter_mut().for_each(|client| _ = client.run("SUBSCRIBE c"));
    let mut client = server.client();
    client.run("HELLO 3");
    client.run("SUBSCRIBE c");
    // Alone, and with a command behind it: then its own thread sends the answer.
    for waits in [&b"BLPOP k 0\r\n"[..], b"BLPOP k 0\r\nPING\r\n"].repeat(10) {
        client.raw(waits);
        eventually("it waits", || count_blocked(&mut asking) == 1);
        asking.run("PUBLISH c first");
        asking.raw(b"PUBLISH c second\r\nRPUSH k element\r\n");
        for expected in ["first", "second", "element"] {
            let read = client.read().to_string();
            assert!(read.contains(expected), "{read} instead of {expected}");
        }
        if waits.ends_with(b"PING\r\n") {
            assert_eq!(client.read().text(), b"PONG");
        }
        (0..2).for_each(|_| _ = asking.read());
    }
}

#[test]
fn a_client_that_waits_is_not_ended_for_being_idle() {
    let server = Server::start(&[]);
    let mut asking = server.client();
    let mut client = blocked(&server, &mut asking, "BLPOP k 0");
    asking.run("CONFIG SET timeout 1");
    assert!(asking.is_closed(), "it has been silent for a shorter time");
    server.client().run("RPUSH k x");
    assert_eq!(client.read().items()[1].text(), b"x");
}

/// What consumers send, and how many elements may be on their way to one of them when the server is killed.
const CONSUMERS: [(&str, usize); 8] = [
    ("BLPOP none jobs 0", 1),
    ("BRPOP jobs none 0", 1),
    ("BLMPOP 0 2 none jobs LEFT COUNT 3", 3),
    // It waits for a moment only, again and again.
    ("BLPOP jobs 0.002", 1),
    // Behind the first command lies the second, so the client's thread waits in another way.
    ("BLPOP jobs 0\r\nBLPOP jobs 0", 2),
    ("BZPOPMIN ranked 0", 1),
    ("BZPOPMAX none ranked 0", 1),
    ("BZMPOP 0 1 ranked MIN COUNT 2", 2),
];

/// Each element goes through all three lists.
const MOVERS: [&str; 4] = [
    "BLMOVE from middle LEFT RIGHT 0",
    "BRPOPLPUSH from middle 0.002",
    "BRPOPLPUSH middle to 0",
    "BLMOVE middle to LEFT RIGHT 0",
];

/// Where the producers push.
const QUEUES: [&str; 4] = ["jobs", "jobs", "ranked", "from"];

/// The elements of one producer: it has sent the first so many, and of these the first so many were acknowledged.
#[derive(Clone, Copy, Default)]
struct Pushed {
    acknowledged: usize,
    sent: usize,
}

fn element(producer: usize, i: usize) -> String {
    format!("e{producer}-{i}")
}

/// Pushes elements, three at a time, until the server is gone.
fn push_until_killed(mut client: Client, producer: usize, done: &AtomicUsize) -> Pushed {
    let mut pushed = Pushed::default();
    loop {
        let next = pushed.sent..pushed.sent + 3;
        let unit = |i| unit(producer, &element(producer, i), i);
        let encoded = |i| unit(i).iter().map(|line| encode(&words(line))).collect();
        let units: Vec<Vec<Vec<u8>>> = next.map(encoded).collect();
        pushed.sent += units.len();
        let is_there = client.send_units(&units, || {
            pushed.acknowledged += 1;
            done.fetch_add(1, Ordering::Relaxed);
        });
        if !is_there {
            return pushed;
        }
    }
}

/// The commands that push one element.
fn unit(producer: usize, element: &str, i: usize) -> Vec<String> {
    match (QUEUES[producer], i % 3) {
        ("ranked", _) => vec![format!("ZADD ranked {} {element}", i % 50)],
        (queue, 0) => vec![
            "MULTI".into(),
            format!("RPUSH side{producer} {element}"),
            format!("LMOVE side{producer} {queue} LEFT LEFT"),
            "EXEC".into(),
        ],
        (queue, 1) => vec![format!("LPUSH {queue} {element}")],
        (queue, _) => vec![format!("RPUSH {queue} {element}")],
    }
}

/// Takes elements until the server is gone. Returns those that it was given.
fn take_until_killed(mut client: Client, commands: &str) -> Vec<String> {
    let mut taken = Vec::new();
    loop {
        if client.try_raw(format!("{commands}\r\n").as_bytes()).is_err() {
            return taken;
        }
        for _ in commands.lines() {
            match client.try_read() {
                Ok(answer) => taken.extend(elements(&answer.to_string())),
                Err(_) => return taken,
            }
        }
    }
}

/// Lets producers push and consumers take until so many are acknowledged, and kills the server. Returns
/// what was pushed by each producer, and what each consumer was given.
fn load_until_killed(
    server: &mut Server,
    enough: usize,
    with_rewrite: bool,
) -> ([Pushed; QUEUES.len()], Vec<Vec<String>>) {
    let done = AtomicUsize::new(0);
    let commands = CONSUMERS.iter().map(|(command, _)| *command).chain(MOVERS);
    thread::scope(|scope| {
        let done = &done;
        let start = |command| {
            let client = server.client();
            scope.spawn(move || take_until_killed(client, command))
        };
        let taking: Vec<_> = commands.map(start).collect();
        let pushing: [_; QUEUES.len()] = std::array::from_fn(|producer| {
            let client = server.client();
            scope.spawn(move || push_until_killed(client, producer, done))
        });
        if with_rewrite {
            server.client().send(&["BGREWRITEAOF"]);
        }
        eventually("enough", || done.load(Ordering::Relaxed) >= enough);
        server.kill();
        let taken = taking.into_iter().map(|thread| thread.join().unwrap()).collect();
        (pushing.map(|thread| thread.join().unwrap()), taken)
    })
}

/// What may be lost is what was on its way: a reply that its consumer has not read. Such an element is in
/// the log as popped, and no server can know that it never arrived.
#[test]
fn a_kill_at_any_moment_loses_no_acknowledged_element_and_brings_none_back() {
    let kills = std::env::var("KILLS").map_or(8, |kills| kills.parse().unwrap());
    let mut server = Server::start(&[]);
    let (mut all, mut lost) = (0, 0);
    for round in 0..kills {
        server.client().run("FLUSHALL");
        // What waits for an fsync is not in the file yet, so a reply that leaves too early is seen.
        let fsync = ["always", "everysec"][round % 2];
        server.client().run(&format!("CONFIG SET appendfsync {fsync}"));
        let enough = 200 + 377 * round % 1500;
        let (pushed, taken) = load_until_killed(&mut server, enough, round % 4 > 1);
        server.start_again();
        let mut client = server.client();
        let mut held = |queue: &str| match queue {
            "ranked" => elements(&client.run("ZRANGE ranked 0 -1")),
            list => elements(&client.run(&format!("LRANGE {list} 0 -1"))),
        };
        let (taken, moved) = taken.split_at(CONSUMERS.len());
        for queue in ["jobs", "ranked"] {
            let mine = || CONSUMERS.iter().zip(taken).filter(|((c, _), _)| c.contains(queue));
            let given = mine().flat_map(|(_, taken)| taken.clone()).chain(held(queue));
            let is_lost = look_at(round, &pushed, queue, &given.collect::<Vec<_>>());
            let may_be: usize = mine().map(|((_, on_their_way), _)| on_their_way).sum();
            assert!(is_lost <= may_be, "round {round}: {is_lost} elements of {queue} are lost");
            lost += is_lost;
        }
        // What is moved is always in one of the three.
        let lists = ["from", "middle", "to"].map(&mut held);
        assert_eq!(look_at(round, &pushed, "from", &lists.concat()), 0, "round {round}");
        for (mover, told) in MOVERS.iter().zip(moved) {
            let behind = if mover.contains(" to ") { &lists[2..] } else { &lists[1..] };
            let is_there = |element| behind.iter().any(|list| list.contains(element));
            assert!(told.iter().all(is_there), "round {round}: what was told is so");
        }
        all += pushed.iter().map(|pushed| pushed.acknowledged).sum::<usize>();
    }
    eprintln!("{kills} kills, {all} elements, of which {lost} were on their way");
}

/// Looks at all elements of a queue that were found somewhere: each was sent, and none is there twice. Returns
/// how many of the acknowledged ones were not found.
fn look_at(round: usize, pushed: &[Pushed], queue: &str, found: &[String]) -> usize {
    let all: BTreeSet<&String> = found.iter().collect();
    assert_eq!(all.len(), found.len(), "round {round}: of {queue} none is there twice");
    let of_queue = |producer: &usize| QUEUES[*producer] == queue;
    let named = |count: fn(&Pushed) -> usize| {
        let producers = (0..QUEUES.len()).filter(of_queue);
        let names =
            move |producer| (0..count(&pushed[producer])).map(move |i| element(producer, i));
        producers.flat_map(names).collect::<BTreeSet<String>>()
    };
    let sent = named(|pushed| pushed.sent);
    assert!(all.iter().all(|element| sent.contains(*element)), "round {round}: all were sent");
    named(|pushed| pushed.acknowledged).iter().filter(|element| !all.contains(element)).count()
}
