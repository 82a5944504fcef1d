//! Many clients at once: nothing is lost, nothing is torn, nobody waits for a stranger.
//!
//! Locks are where a threaded server fails, and it fails rarely. So each test here makes the
//! contended thing happen often, and asks for a sum, an order or an end that only holds if every
//! single one went right. Clients that do not read, or leave in the middle, are part of the crowd.

mod support;

use std::io::{Read, Write};
use std::net::Shutdown;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};
use support::process::{cpu, descriptors, memory, sleeps, threads};
use support::{Client, Server, Stop, Value, encode, eventually, with_more_and_more};

fn integer(value: Value) -> i64 {
    match value {
        Value::Integer(number) => number,
        other => panic!("{other:?} is no integer"),
    }
}

#[test]
fn increments_from_sixteen_threads_add_up() {
    let mut server = Server::start(&[]);
    thread::scope(|scope| {
        for thread in 0..16 {
            let mut client = server.client();
            scope.spawn(move || {
                for _ in 0..25 {
                    client.raw(&encode(&["INCR", "n"]).repeat(10));
                    client.raw(&encode(&["HINCRBY", "h", &format!("{thread}"), "1"]));
                    for _ in 0..11 {
                        assert!(matches!(client.read(), Value::Integer(_)));
                    }
                }
            });
        }
    });
    for _ in 0..2 {
        let mut client = server.client();
        assert_eq!(client.run("GET n"), r#""4000""#);
        for thread in 0..16 {
            assert_eq!(client.run(&format!("HGET h {thread}")), r#""25""#);
        }
        server.crash();
    }
}

/// Asks what others must not spoil. Only after a tenth of a second it may answer without having waited for
/// them, which a machine with too much to do needs now and then.
fn ask(asking: &mut Client, question: &str, is_right: impl Fn(&str) -> bool) {
    let begin = Instant::now();
    let answer = asking.run(question);
    let gave_up = begin.elapsed() >= Duration::from_millis(100);
    assert!(is_right(&answer) || gave_up, "{question}: {answer}");
}

fn is_none(answer: &str) -> bool {
    answer.ends_with("(integer) 0") || answer == "(empty array)"
}

fn is_one(answer: &str) -> bool {
    answer.matches(" addr=").count() == 1 || answer.contains("connected_clients:1\\r")
}

/// Two hundred times: somebody comes, says what is said `before`, then `act`s and does not wait. The question
/// comes a moment later from another, and its answer must know.
fn each_time(
    before: &str,
    act: impl Fn(Client) -> Option<Client>,
    question: &str,
    is_right: impl Fn(&str) -> bool,
) {
    let server = Server::start(&[]);
    let mut asking = server.client();
    asking.run("PING");
    for _ in 0..200 {
        let mut client = server.client();
        client.run(before);
        let kept = act(client);
        ask(&mut asking, question, &is_right);
        drop(kept);
        asking.wait_until_alone();
    }
}

#[test]
fn who_has_hung_up_is_not_counted() {
    // A server that another test starts at this moment may have a copy of the descriptor until it runs, so
    // that to close ours ends nothing yet.
    let hang_up = |client: Client| {
        client.socket().shutdown(Shutdown::Both).expect("it is open");
        None
    };
    for before in ["SUBSCRIBE c", "PSUBSCRIBE c*"] {
        each_time(before, hang_up, "PUBLISH c x", is_none);
        each_time(before, hang_up, "CLIENT KILL TYPE pubsub", is_none);
    }
    each_time("SUBSCRIBE c", hang_up, "PUBSUB CHANNELS", is_none);
    each_time("PSUBSCRIBE c", hang_up, "PUBSUB NUMPAT", is_none);
    each_time("PING", hang_up, "CLIENT LIST", is_one);
    each_time("PING", hang_up, "INFO clients", is_one);
}

#[test]
fn who_has_said_unsubscribe_or_quit_is_not_counted() {
    for word in ["UNSUBSCRIBE c\r\n", "QUIT\r\n"] {
        // It does not read the answer, and stays.
        let say = |mut client: Client| {
            client.raw(word.as_bytes());
            Some(client)
        };
        each_time("SUBSCRIBE c", say, "PUBLISH c x", is_none);
        each_time("SUBSCRIBE c", say, "PUBSUB NUMSUB c", is_none);
    }
}

#[test]
fn who_has_been_killed_is_not_counted() {
    let server = Server::start(&[]);
    let mut asking = server.client();
    for question in ["PUBLISH c x", "PUBSUB NUMSUB c", "INFO clients"] {
        for _ in 0..200 {
            let mut client = server.client();
            let id = integer(client.call(&["CLIENT", "ID"]));
            client.run("SUBSCRIBE c");
            assert_eq!(asking.run(&format!("CLIENT KILL ID {id}")), "(integer) 1");
            ask(&mut asking, question, |answer| is_none(answer) || is_one(answer));
            asking.wait_until_alone();
        }
    }
}

/// Whether this takes as long as somebody is waited for.
fn waits(act: impl FnOnce()) -> bool {
    let began = Instant::now();
    act();
    began.elapsed() >= Duration::from_millis(100)
}

#[test]
fn who_is_held_up_does_not_hold_up_those_who_count() {
    let server = Server::start(&[]);
    let mut asking = server.client();
    let mut waiting: Vec<Client> = (0..20).map(|_| server.client()).collect();
    for client in &mut waiting {
        client.run("HELLO 3");
        client.run("SUBSCRIBE c");
        // For ever; what is behind it has arrived, and is not done.
        client.raw(b"WAIT 1 0\r\nUNSUBSCRIBE c\r\n");
    }
    eventually("all wait", || asking.run("INFO clients").contains("blocked_clients:20\\r"));
    // They are waited for once, a tenth of a second, and not each time. A slow machine holds up others too.
    let (mut questions, mut others) = (0, 0);
    for _ in 0..1000 {
        questions += usize::from(waits(|| {
            assert_eq!(asking.run("PUBSUB NUMSUB c"), "1) \"c\"\n2) (integer) 20");
        }));
        others += usize::from(waits(|| assert_eq!(asking.run("PING"), "PONG")));
    }
    assert!(questions < others + 500, "{questions} questions wait");
}

/// In Redis too, what such a client has sent has to wait.
#[test]
fn who_is_in_wait_again_and_again_does_not_hold_up_those_who_count() {
    const WAITS: usize = 30;
    let server = Server::start(&[]);
    let (mut asking, mut waiting) = (server.client(), server.client());
    let done = &AtomicBool::new(false);
    let answered = thread::scope(|scope| {
        scope.spawn(move || {
            let _stop = Stop(done);
            for _ in 0..WAITS {
                waiting.run("WAIT 1 60");
            }
        });
        let mut answered = 0;
        while !done.load(Ordering::Relaxed) {
            asking.run("INFO clients");
            answered += 1;
        }
        answered
    });
    // If each question waited for the end of a WAIT, there would be one for each.
    assert!(answered > 5 * WAITS, "{answered}");
}

#[test]
fn who_asks_for_one_channel_does_not_look_through_all() {
    let server = Server::start(&[]);
    let listening: Vec<Client> = (0..100)
        .map(|number| {
            let mut client = server.client();
            let names = (0..1_000).map(|i| format!("{number}:{i}"));
            let words: Vec<String> = ["SUBSCRIBE".to_string()].into_iter().chain(names).collect();
            client.send(&words);
            (0..1_000).for_each(|_| drop(client.read()));
            client
        })
        .collect();
    let mut asking = server.client();
    let before = cpu(server.pid());
    for _ in 0..300 {
        assert_eq!(asking.run("PUBSUB NUMSUB 0:0"), "1) \"0:0\"\n2) (integer) 1");
    }
    // A hundred thousand names take ten milliseconds, a hundred clients a tenth of one.
    assert!(cpu(server.pid()) - before < Duration::from_millis(1_500));
    drop(listening);
}

#[test]
fn two_who_listen_to_each_other_do_not_wait_for_each_other() {
    let server = Server::start(&[]);
    // How often it waits; and how often without a cause, on a slow machine.
    let talk = |client: &mut Client| {
        let mut count = |command: &[&str], is_answer: fn(&Value) -> bool| {
            let waiting = (0..300).filter(|_| {
                waits(|| {
                    client.send(command);
                    while !is_answer(&client.read()) {}
                })
            });
            waiting.count()
        };
        let publish = count(&["PUBLISH", "c", "x"], |value| *value == Value::Integer(2));
        (publish, count(&["PING"], |value| matches!(value, Value::Simple(_))))
    };
    let mut clients: Vec<Client> = (0..2)
        .map(|_| {
            let mut client = server.client();
            client.run("HELLO 3");
            client.run("SUBSCRIBE c");
            client
        })
        .collect();
    let counts: Vec<(usize, usize)> = thread::scope(|scope| {
        let threads: Vec<_> =
            clients.iter_mut().map(|client| scope.spawn(|| talk(client))).collect();
        threads.into_iter().map(|thread| thread.join().unwrap()).collect()
    });
    // It would be a tenth of a second for each message.
    let is_quick = |&(publish, ping): &(usize, usize)| publish < ping + 200;
    assert!(counts.iter().all(is_quick), "{counts:?} of 300 wait");
}

#[test]
fn readers_see_a_transaction_whole_or_not_at_all() {
    let server = Server::start(&[]);
    server.client().run("MSET a 0 b 0 c 0");
    let done = &AtomicBool::new(false);
    thread::scope(|scope| {
        let stop = Stop(done);
        for _ in 0..2 {
            let mut reader = server.client();
            scope.spawn(move || {
                while !done.load(Ordering::Relaxed) {
                    let Value::Array(seen) = reader.call(&["MGET", "a", "b", "c"]) else {
                        panic!("no array");
                    };
                    assert!(seen.iter().all(|one| *one == seen[0]), "{seen:?}");
                }
            });
        }
        let writers: Vec<_> = (0..2)
            .map(|_| {
                let mut writer = server.client();
                scope.spawn(move || {
                    let commands = ["MULTI", "INCR a", "INCR b", "INCR c", "EXEC", ""].join("\r\n");
                    for _ in 0..500 {
                        writer.raw(commands.as_bytes());
                        let last = (0..5).map(|_| writer.read()).last();
                        assert!(matches!(last, Some(Value::Array(_))));
                    }
                })
            })
            .collect();
        let ends: Vec<_> = writers.into_iter().map(|writer| writer.join()).collect();
        drop(stop);
        assert!(ends.iter().all(Result::is_ok));
    });
    assert_eq!(server.client().run("GET c"), r#""1000""#);
}

#[test]
fn of_those_who_watch_a_key_one_wins_each_time() {
    let server = Server::start(&[]);
    server.client().run("SET balance 0");
    thread::scope(|scope| {
        for _ in 0..8 {
            let mut client = server.client();
            scope.spawn(move || {
                let mut deposits = 0;
                while deposits < 50 {
                    client.run("WATCH balance");
                    let Value::Bulk(old) = client.call(&["GET", "balance"]) else {
                        panic!("the balance is gone");
                    };
                    let new: i64 = String::from_utf8(old).unwrap().parse::<i64>().unwrap() + 1;
                    client.raw(format!("MULTI\r\nSET balance {new}\r\nEXEC\r\n").as_bytes());
                    (0..2).for_each(|_| drop(client.read()));
                    deposits += usize::from(client.read() != Value::NilArray);
                }
            });
        }
    });
    assert_eq!(server.client().run("GET balance"), r#""400""#);
}

/// Sends GETs of values of 1 kB before it reads the first reply, then expects them in order.
fn pipeline_before_reading(client: &mut Client, count: usize) {
    let value = |n: usize| format!("{n:0>1000}");
    for n in 0..100 {
        client.call(&["SET", &n.to_string(), &value(n)]);
    }
    let hundred: Vec<u8> = (0..100).flat_map(|n| encode(&["GET", &n.to_string()])).collect();
    client.raw(&hundred.repeat(count / 100));
    let hundred: Vec<u8> =
        (0..100).flat_map(|n| format!("$1000\r\n{}\r\n", value(n)).into_bytes()).collect();
    let mut got = vec![0; hundred.len()];
    for round in 0..count / 100 {
        client.socket().read_exact(&mut got).expect("the replies");
        assert!(got == hundred, "round {round} differs");
    }
}

#[test]
fn two_hundred_thousand_commands_may_come_before_one_reply_is_read() {
    let server = Server::start(&[]);
    pipeline_before_reading(&mut server.client(), 200_000);
}

#[test]
fn a_subscriber_may_send_a_large_pipeline_too() {
    let server = Server::start(&[]);
    let mut client = server.client();
    client.run("SUBSCRIBE c");
    client.run("UNSUBSCRIBE c");
    pipeline_before_reading(&mut client, 50_000);
}

/// The reply and the keyspace share a large value; 20 MB are more than a socket takes at once.
#[test]
fn a_large_reply_under_way_stays_what_it_was_when_the_value_changes() {
    let (old, new) = ("x".repeat(20_000_000), "y".repeat(20_000_000));
    let changes: [&[&str]; 6] = [
        &["SETRANGE", "big", "10000000", "y"],
        &["APPEND", "big", "y"],
        &["SET", "big", &new],
        &["SET", "big", "y"],
        &["DEL", "big"],
        &["FLUSHALL"],
    ];
    let server = Server::start(&[]);
    let mut other = server.client();
    for change in changes {
        other.run("CONFIG RESETSTAT");
        other.call(&["SET", "big", &old]);
        let mut slow = server.client();
        slow.send(&["MGET", "big", "none", "big"]);
        eventually("MGET has run", || {
            let stats = other.run("INFO commandstats");
            stats.contains("cmdstat_mget:calls=1,")
        });
        let answer = other.call(change);
        assert!(!matches!(answer, Value::Error(_)), "{answer:?}");
        let big = Value::bulk(&old);
        let expected = Value::Array(vec![big.clone(), Value::Nil, big]);
        assert!(slow.read() == expected, "after {}", change[0]);
    }
    // What was changed was changed, too, and not what had been copied from it.
    other.call(&["SET", "big", &old]);
    other.run("COPY big copy");
    other.run("SETRANGE big 0 y");
    assert_eq!(other.run("GETRANGE big 0 1"), "\"yx\"");
    assert_eq!(other.run("GETRANGE copy 0 1"), "\"xx\"");
}

/// An outbox queues a reply in pieces; a message that came between them would be in the value.
#[test]
fn a_large_reply_comes_whole_through_an_outbox_while_messages_come_too() {
    let server = Server::start(&[]);
    let big = "x".repeat(100_000);
    let mut publisher = server.client();
    publisher.call(&["SET", "big", &big]);
    let mut client = server.client();
    client.call(&["HELLO", "3"]);
    client.run("SUBSCRIBE c");
    let asked = 200;
    let sender = thread::spawn(move || {
        (0..2000).for_each(|_| drop(publisher.call(&["PUBLISH", "c", "message"])));
    });
    client.raw(&encode(&["GET", "big"]).repeat(asked));
    let (mut replies, mut messages) = (0, 0);
    while replies < asked || messages < 2000 {
        match client.read() {
            Value::Push(_) => messages += 1,
            reply => {
                assert!(reply == Value::bulk(&big), "reply {replies}");
                replies += 1;
            }
        }
    }
    assert_eq!((replies, messages), (asked, 2000));
    sender.join().unwrap();
}

/// A client that has asked for 200 MB and reads nothing.
fn who_never_reads(server: &Server) -> Client {
    let mut client = server.client();
    client.call(&["SET", "big", &"x".repeat(1_000_000)]);
    client.raw(&encode(&["GET", "big"]).repeat(200));
    client
}

#[test]
fn who_never_reads_holds_no_lock_and_little_memory() {
    let server = Server::start(&[]);
    let silent: Vec<Client> = (0..5).map(|_| who_never_reads(&server)).collect();
    let mut other = server.client();
    for n in 0..5000 {
        assert_eq!(other.run("INCR n"), format!("(integer) {}", n + 1));
        assert_eq!(other.run("STRLEN big"), "(integer) 1000000");
    }
    let megabytes = memory(server.pid(), "VmHWM") / 1024 / 1024;
    assert!(megabytes < 100, "{megabytes} MB");
    // When it reads at last, all is there.
    let mut first = silent.into_iter().next().expect("five");
    for _ in 0..200 {
        assert!(matches!(first.read(), Value::Bulk(big) if big.len() == 1_000_000));
    }
}

#[test]
fn publishers_go_on_while_a_subscriber_that_does_not_read_is_dropped() {
    let server = Server::start(&[]);
    let (mut deaf, mut listening) = (server.client(), server.client());
    deaf.run("SUBSCRIBE c");
    listening.run("SUBSCRIBE c");
    let mut publisher = server.client();
    // It holds for those too who have subscribed already.
    let limit = "CONFIG SET client-output-buffer-limit 'pubsub 1mb 512kb 60'";
    assert_eq!(publisher.run(limit), "OK");
    let message = "x".repeat(100_000);
    let mut sent = 0;
    // The socket buffers of this system take some megabytes before the queue begins to grow.
    while integer(publisher.call(&["PUBLISH", "c", &message])) == 2 {
        assert!(matches!(listening.read(), Value::Array(_)));
        sent += 1;
        assert!(sent < 250, "25 MB are queued");
    }
    assert!(matches!(listening.read(), Value::Array(_)));
    assert_eq!(publisher.run("PUBSUB NUMSUB c"), "1) \"c\"\n2) (integer) 1");
    // What had left before may still arrive; then comes the end.
    while deaf.try_read().is_ok() {}
    assert!(deaf.is_closed());
}

/// (A sleep that has ended is that of a thread that was woken, and each subscriber has two threads.)
#[test]
fn a_message_to_many_wakes_few_threads_of_the_server() {
    let server = Server::start(&[]);
    let mut listening: Vec<Client> = (0..10).map(|_| server.client()).collect();
    for client in &mut listening {
        assert!(client.run("SUBSCRIBE c").contains("(integer) 1"));
    }
    let mut publisher = server.client();
    let before = sleeps(server.pid());
    for _ in 0..100 {
        assert_eq!(integer(publisher.call(&["PUBLISH", "c", "m"])), 10);
        for client in &mut listening {
            assert!(matches!(client.read(), Value::Array(_)));
        }
    }
    let woken = sleeps(server.pid()) - before;
    assert!(woken < 600, "{woken}");
    // The subscribers' own threads still notice what they send.
    for client in &mut listening {
        assert!(client.run("UNSUBSCRIBE c").contains("(integer) 0"));
    }
    assert_eq!(integer(publisher.call(&["PUBLISH", "c", "m"])), 0);
}

/// The soft limit counts while the queue is over it, whether or not more is published.
#[test]
fn a_subscriber_may_have_much_unread_for_a_while_and_not_for_longer() {
    // Whoever needs longer for 20 MB has had too much unread for too long.
    with_more_and_more(1, |seconds| {
        let limit = format!("pubsub 0 100kb {seconds}");
        let server = Server::start(&["--client-output-buffer-limit", &limit]);
        let mut listening = server.client();
        listening.run("SUBSCRIBE c");
        let mut publisher = server.client();
        let message = "x".repeat(20_000_000);
        for _ in 0..2 {
            if publisher.call(&["PUBLISH", "c", &message]) != Value::Integer(1) {
                return Err("nobody listens any more".into());
            }
            let heard = listening.try_read().map_err(|error| error.to_string())?;
            assert!(matches!(heard, Value::Array(_)));
            thread::sleep(Duration::from_millis(seconds * 1000 + 100));
        }
        drop_the_deaf(&server, &message);
        Ok(())
    });
}

fn drop_the_deaf(server: &Server, message: &str) {
    let (mut deaf, mut publisher) = (server.client(), server.client());
    deaf.run("SUBSCRIBE d");
    assert_eq!(publisher.call(&["PUBLISH", "d", message]), Value::Integer(1));
    eventually("the deaf one is dropped", || {
        publisher.run("PUBSUB NUMSUB d") == "1) \"d\"\n2) (integer) 0"
    });
    assert_eq!(publisher.run("PUBSUB NUMSUB c"), "1) \"c\"\n2) (integer) 1");
}

#[test]
fn who_is_over_a_soft_limit_is_spared_when_the_limit_is_taken_away() {
    let limit = "pubsub 0 100kb 60";
    let server = Server::start(&["--client-output-buffer-limit", limit]);
    let (mut slow, mut publisher) = (server.client(), server.client());
    slow.run("SUBSCRIBE c");
    let message = "x".repeat(20_000_000);
    let publish = |client: &mut Client| client.call(&["PUBLISH", "c", &message]);
    assert_eq!(publish(&mut publisher), Value::Integer(1));
    let limit = "CONFIG SET client-output-buffer-limit 'pubsub 0 0 0'";
    assert_eq!(publisher.run(limit), "OK");
    assert_eq!(publish(&mut publisher), Value::Integer(1));
    for _ in 0..2 {
        assert!(slow.read().to_string().ends_with("xxx\""));
    }
}

/// The one who reads must know where the one protocol ends and the other begins.
#[test]
fn messages_before_the_reply_to_hello_are_in_the_old_protocol_and_those_behind_it_in_the_new() {
    let server = Server::start(&[]);
    let done = &AtomicBool::new(false);
    thread::scope(|scope| {
        let _stop = Stop(done);
        for _ in 0..2 {
            let mut publisher = server.client();
            scope.spawn(move || {
                while !done.load(Ordering::Relaxed) {
                    publisher.run("PUBLISH c x");
                }
            });
        }
        let in_order = (0..1000).all(|_| {
            let mut client = server.client();
            client.run("HELLO 3");
            client.run("SUBSCRIBE c");
            client.raw(b"HELLO 2\r\n");
            let mut read = || client.read();
            let mut all = std::iter::repeat_with(&mut read);
            let reply = all.find(|value| !matches!(value, Value::Push(_)));
            let is_reply = matches!(&reply, Some(Value::Array(fields)) if fields.len() == 14);
            let mut behind = (0..3).map(|_| read());
            is_reply && behind.all(|value| matches!(&value, Value::Array(m) if m.len() == 3))
        });
        assert!(in_order);
    });
}

#[test]
fn who_is_sent_messages_is_not_idle() {
    let server = Server::start(&[]);
    let (mut listening, mut other) = (server.client(), server.client());
    listening.run("SUBSCRIBE c");
    let mut idle = || other.run("CLIENT LIST TYPE pubsub").contains("idle=0");
    eventually("a silent subscriber is idle", || !idle());
    // It is idle again a second later, which is when a slow machine may ask.
    eventually("one that has heard is not", || {
        server.client().run("PUBLISH c x");
        listening.read();
        idle()
    });
}

/// Each of their queues passes the limit and is given up before the next one is filled.
#[test]
fn a_large_message_is_not_copied_for_all_subscribers_at_once() {
    let server = Server::start(&[]);
    let mut deaf: Vec<Client> = (0..20).map(|_| server.client()).collect();
    deaf.iter_mut().for_each(|client| drop(client.run("SUBSCRIBE c")));
    let message = "x".repeat(40_000_000);
    let heard = server.client().call(&["PUBLISH", "c", &message]);
    assert_eq!(heard, Value::Integer(20));
    let peak = memory(server.pid(), "VmHWM");
    assert!(peak < 400_000_000, "{peak} bytes for 20 subscribers");
}

/// The limit of subscribers is for messages, which nobody has asked for.
#[test]
fn who_has_subscribed_may_ask_for_a_value_over_the_limit() {
    let limit = "pubsub 1mb 0 0";
    let server = Server::start(&["--client-output-buffer-limit", limit]);
    let mut client = server.client();
    let value = "x".repeat(20_000_000);
    client.call(&["SET", "k", &value]);
    client.run("SUBSCRIBE c");
    client.run("UNSUBSCRIBE c");
    assert_eq!(client.call(&["GET", "k"]), Value::Bulk(value.into_bytes()));
}

#[test]
fn two_subscribers_see_the_messages_in_the_same_order() {
    let server = Server::start(&[]);
    let (mut first, mut second) = (server.client(), server.client());
    first.run("SUBSCRIBE c");
    second.run("PSUBSCRIBE c*");
    thread::scope(|scope| {
        for publisher in 0..4 {
            let mut client = server.client();
            scope.spawn(move || {
                let publish = |n| encode(&["PUBLISH", "c", &format!("{publisher}:{n}")]);
                client.raw(&(0..500).flat_map(publish).collect::<Vec<u8>>());
                (0..500).for_each(|_| assert_eq!(client.read(), Value::Integer(2)));
            });
        }
    });
    let message = |client: &mut Client| match client.read() {
        Value::Array(mut words) => words.pop().expect("a message"),
        other => panic!("{other:?}"),
    };
    for n in 0..2_000 {
        assert_eq!(message(&mut first), message(&mut second), "message {n}");
    }
}

/// Twelve publish in turn, and each waits for its replies, so their messages are gathered (src/pubsub.rs).
#[test]
fn in_a_crowd_of_publishers_nothing_is_lost_doubled_or_swapped() {
    const PUBLISHERS: usize = 12;
    const EACH: usize = 200;
    let server = Server::start(&[]);
    let mut subscribers = [server.client(), server.client(), server.client()];
    subscribers[1].run("HELLO 3");
    for subscriber in &mut subscribers {
        subscriber.run("SUBSCRIBE c");
    }
    thread::scope(|scope| {
        for publisher in 0..PUBLISHERS {
            let mut client = server.client();
            scope.spawn(move || {
                for n in 0..EACH {
                    let texts = [format!("{publisher}:{n}:a"), format!("{publisher}:{n}:b")];
                    client.raw(
                        &texts
                            .iter()
                            .flat_map(|text| encode(&["PUBLISH", "c", text]))
                            .collect::<Vec<u8>>(),
                    );
                    (0..2).for_each(|_| assert_eq!(client.read(), Value::Integer(3)));
                }
            });
        }
    });
    let mut all: Vec<Vec<String>> = Vec::new();
    for subscriber in &mut subscribers {
        let text = |_| match subscriber.read() {
            Value::Array(mut words) | Value::Push(mut words) => words.pop().unwrap().to_string(),
            other => panic!("{other:?}"),
        };
        all.push((0..2 * PUBLISHERS * EACH).map(text).collect());
    }
    assert!(all.iter().all(|texts| *texts == all[0]));
    for publisher in 0..PUBLISHERS {
        let expected =
            (0..EACH).flat_map(|n| ["a", "b"].map(|part| format!("{publisher}:{n}:{part}")));
        let begin = format!("{publisher}:");
        let of_it = all[0].iter().filter(|text| text.trim_matches('"').starts_with(&begin));
        assert!(expected.eq(of_it.map(|text| text.trim_matches('"').to_string())), "{publisher}");
    }
}

#[test]
fn no_message_comes_behind_the_answer_to_quit() {
    let server = Server::start(&[]);
    let is_over = AtomicBool::new(false);
    thread::scope(|scope| {
        for _ in 0..12 {
            let mut client = server.client();
            let is_over = &is_over;
            scope.spawn(move || {
                while !is_over.load(Ordering::Relaxed) {
                    client.call(&["PUBLISH", "c", "m"]);
                }
            });
        }
        for _ in 0..300 {
            let mut subscriber = server.client();
            subscriber.raw(&[encode(&["SUBSCRIBE", "c"]), encode(&["QUIT"])].concat());
            let mut all = Vec::new();
            let _ = subscriber.socket().read_to_end(&mut all);
            let is_last = all.ends_with(b"+OK\r\n");
            if !is_last {
                is_over.store(true, Ordering::Relaxed);
            }
            assert!(is_last, "{}", String::from_utf8_lossy(&all));
        }
        is_over.store(true, Ordering::Relaxed);
    });
}

#[test]
fn whoever_sends_no_more_still_gets_what_was_published_before() {
    let server = Server::start(&[]);
    let mut publisher = server.client();
    // To write to so many takes so long that a rest follows.
    let mut others: Vec<Client> = (0..20).map(|_| server.client()).collect();
    others.iter_mut().for_each(|client| drop(client.run("SUBSCRIBE c")));
    for _ in 0..50 {
        let mut leaving = server.client();
        leaving.run("SUBSCRIBE c");
        for _ in 0..2 {
            assert_eq!(integer(publisher.call(&["PUBLISH", "c", "m"])), 21);
        }
        leaving.socket().shutdown(Shutdown::Write).unwrap();
        for _ in 0..2 {
            assert!(leaving.read().to_string().contains("message"));
        }
        assert!(leaving.is_closed());
        eventually("it is gone", || integer(publisher.call(&["PUBLISH", "c", "m"])) == 20);
    }
}

/// Those to one channel that follow each other travel together, and others come between.
#[test]
fn what_one_client_publishes_at_once_comes_in_its_order_whatever_the_channel() {
    let server = Server::start(&["--notify-keyspace-events", "Ks"]);
    let (mut subscriber, mut publisher) = (server.client(), server.client());
    subscriber.run("SUBSCRIBE c");
    subscriber.run("SUBSCRIBE d");
    subscriber.run("PSUBSCRIBE __key*");
    let long = "x".repeat(20_000);
    let sent = [
        "PUBLISH c 1",
        "PUBLISH c 2",
        "PUBLISH d 3",
        "PUBLISH c 4",
        "MULTI",
        "PUBLISH c 5",
        "SADD k a",
        "PUBLISH c 6",
        "EXEC",
        "PUBLISH c 7",
        "PUBLISH nobody 0",
    ];
    let sent = sent.map(|line| encode(&line.split(' ').collect::<Vec<_>>()));
    publisher.raw(&sent.concat());
    publisher.raw(&encode(&["PUBLISH", "c", &long]));
    publisher.raw(&encode(&["PUBLISH", "c", "9"]));
    for text in ["1", "2", "3", "4", "5", "sadd", "6", "7", &long, "9"] {
        let Value::Array(mut words) = subscriber.read() else { panic!("no message") };
        assert_eq!(words.pop(), Some(Value::Bulk(text.into())));
    }
}

/// Has a hundred new clients do something, one after the other, while another publishes without end.
fn while_somebody_publishes(each: impl Fn(&mut Client)) {
    let server = Server::start(&[]);
    let done = &AtomicBool::new(false);
    thread::scope(|scope| {
        let _stop = Stop(done);
        let mut publisher = server.client();
        scope.spawn(move || {
            while !done.load(Ordering::Relaxed) {
                publisher.run("PUBLISH c other");
            }
        });
        (0..100).for_each(|_| each(&mut server.client()));
    });
}

#[test]
fn a_confirmation_comes_before_the_first_message() {
    while_somebody_publishes(|client| {
        client.raw(b"SUBSCRIBE c\r\nUNSUBSCRIBE c\r\nPING\r\n");
        let expected = "1) \"subscribe\"\n2) \"c\"\n3) (integer) 1";
        assert_eq!(client.read().to_string(), expected);
        let mut next = client.read().to_string();
        while next.contains("message") {
            next = client.read().to_string();
        }
        assert!(next.contains("unsubscribe"), "{next}");
        assert_eq!(client.read(), Value::Simple(b"PONG".into()), "and then no message");
    });
}

#[test]
fn a_killed_client_runs_nothing_more_though_it_has_sent_it() {
    let server = Server::start(&["--appendonly", "no"]);
    let mut watcher = server.client();
    let mut client = server.client();
    let address = client.socket().local_addr().unwrap().to_string();
    let mut socket = client.socket().try_clone().unwrap();
    client.raw(b"CLIENT REPLY OFF\r\n");
    thread::scope(|scope| {
        // The system holds megabytes of it for the server, which nothing else would keep from
        // running: there is no reply whose writing could fail.
        scope.spawn(move || {
            let many = encode(&["INCR", "n"]).repeat(10_000);
            while socket.write_all(&many).is_ok() {}
        });
        eventually("it runs", || integer(watcher.call(&["EXISTS", "n"])) == 1);
        assert_eq!(watcher.run(&format!("CLIENT KILL {address}")), "OK");
        let Value::Bulk(at_kill) = watcher.call(&["GET", "n"]) else {
            panic!("n is gone");
        };
        // It may have been between its look at the flag and the command.
        watcher.wait_until_alone();
        let at_end = watcher.call(&["INCRBY", "n", "0"]);
        let at_kill: i64 = String::from_utf8(at_kill).unwrap().parse().unwrap();
        assert!(integer(at_end) <= at_kill + 1);
    });
    assert!(client.is_closed());
}

#[test]
fn a_killed_client_that_never_reads_is_gone_at_once() {
    let server = Server::start(&[]);
    let mut watcher = server.client();
    let client = who_never_reads(&server);
    let address = client.socket().local_addr().unwrap().to_string();
    assert_eq!(watcher.run(&format!("CLIENT KILL {address}")), "OK");
    assert!(!watcher.run("CLIENT LIST").contains(&address));
    watcher.wait_until_alone();
}

#[test]
fn killed_subscribers_and_monitors_end_with_both_their_threads() {
    let server = Server::start(&[]);
    let mut watcher = server.client();
    watcher.run("PING");
    // The server's own threads may still be on their way; of the forty that follow none may stay.
    let most = threads(server.pid()) + 10;
    let open = descriptors(server.pid());
    let mut ended: Vec<Client> = Vec::new();
    for _ in 0..20 {
        let (mut subscriber, mut monitor) = (server.client(), server.client());
        subscriber.run("SUBSCRIBE c");
        monitor.run("MONITOR");
        ended.extend([subscriber, monitor]);
    }
    let message = "x".repeat(500_000);
    // Their writers wait for a socket that nobody reads.
    (0..20).for_each(|_| drop(watcher.call(&["PUBLISH", "c", &message])));
    assert_eq!(watcher.run("CLIENT KILL TYPE pubsub"), "(integer) 20");
    assert_eq!(watcher.run("CLIENT KILL TYPE normal"), "(integer) 20");
    eventually("threads and descriptors are few again", || {
        threads(server.pid()) <= most && descriptors(server.pid()) <= open + 2
    });
    eventually("nobody listens", || integer(watcher.call(&["PUBLISH", "c", "m"])) == 0);
}

#[test]
fn a_slow_monitor_is_dropped_and_slows_nobody() {
    let limit = "pubsub 1mb 0 0";
    let server = Server::start(&["--client-output-buffer-limit", limit]);
    let mut monitor = server.client();
    monitor.run("MONITOR");
    let mut client = server.client();
    let echo = encode(&["ECHO", &"x".repeat(10_000)]).repeat(10);
    for round in 0.. {
        client.raw(&echo);
        (0..10).for_each(|_| drop(client.read()));
        if !client.run("CLIENT LIST").contains("flags=O") {
            break;
        }
        assert!(round < 1_000, "100 MB were queued");
    }
    while monitor.try_read().is_ok() {}
    assert!(monitor.is_closed());
}

#[test]
fn quit_is_answered_behind_everything_that_is_queued() {
    let server = Server::start(&[]);
    let mut client = server.client();
    client.run("SUBSCRIBE c");
    let message = "x".repeat(100_000);
    let mut publisher = server.client();
    (0..50).for_each(|_| drop(publisher.call(&["PUBLISH", "c", &message])));
    client.raw(b"QUIT\r\nPING\r\n");
    for _ in 0..50 {
        assert!(matches!(client.read(), Value::Array(_)));
    }
    assert_eq!(client.read(), Value::Simple(b"OK".into()));
    assert!(client.is_closed());
}

#[test]
fn shutdown_ends_the_server_though_others_are_busy() {
    let mut server = Server::start(&[]);
    let _silent = who_never_reads(&server);
    let mut waiting = server.client();
    waiting.raw(b"WAIT 1 0\r\n");
    let mut subscriber = server.client();
    subscriber.run("SUBSCRIBE c");
    let address = server.address();
    let writers: Vec<_> = (0..4)
        .map(|writer| {
            let mut client = Client::connect(address).unwrap();
            thread::spawn(move || {
                // Until the server leaves: how many were acknowledged.
                let set = |n: usize| encode(&["SET", &format!("{writer}:{n}"), "v"]);
                (0..).find(|n| client.try_raw(&set(*n)).is_err() || client.try_read().is_err())
            })
        })
        .collect();
    let mut watcher = server.client();
    // All of them: an EXISTS of no keys is an error.
    let begun = ["EXISTS", "0:0", "1:0", "2:0", "3:0"];
    eventually("they are busy", || {
        integer(watcher.call(&["DBSIZE"])) > 500 && integer(watcher.call(&begun)) == 4
    });
    assert!(server.shut_down().success());
    server.start_again();
    let mut client = server.client();
    for (writer, acknowledged) in writers.into_iter().enumerate() {
        let acknowledged = acknowledged.join().unwrap().expect("an end");
        let keys: Vec<String> = (0..acknowledged).map(|n| format!("{writer}:{n}")).collect();
        let mut exists = vec!["EXISTS".to_string()];
        exists.extend(keys);
        assert_eq!(client.call(&exists), Value::Integer(acknowledged as i64));
    }
}

#[test]
fn replies_leave_while_a_huge_pipeline_is_still_coming() {
    let server = Server::start(&[]);
    let mut client = server.client();
    let mut socket = client.socket().try_clone().unwrap();
    thread::scope(|scope| {
        scope.spawn(move || {
            for _ in 0..200 {
                socket.write_all(&encode(&["INCR", "n"]).repeat(100)).unwrap();
            }
        });
        for n in 1..=20_000 {
            assert_eq!(integer(client.read()), n);
        }
    });
}

/// What EXEC has answered so far is an array that has only begun: a message in it would be taken for
/// an answer.
#[test]
fn no_message_comes_before_the_answer_of_an_exec_that_subscribes() {
    while_somebody_publishes(|client| {
        client.raw(b"MULTI\r\nSET k v\r\nSUBSCRIBE c\r\nPUBLISH c own\r\nEXEC\r\n");
        (0..4).for_each(|_| drop(client.read()));
        let Value::Array(answer) = client.read() else {
            panic!("EXEC answers with an array");
        };
        assert_eq!(answer[0], Value::Simple(b"OK".into()));
        let confirmation = "1) \"subscribe\"\n2) \"c\"\n3) (integer) 1";
        assert_eq!(answer[1].to_string(), confirmation);
        assert!(matches!(answer[2], Value::Integer(1..)));
        // Its own comes too, among those of the other.
        while !client.read().to_string().contains("own") {}
    });
}

/// Messages are held until EXEC has answered, however long they are; and nobody hears what was published
/// before he listened.
#[test]
fn an_exec_that_publishes_much_and_subscribes_is_answered() {
    let server = Server::start(&[]);
    let mut client = server.client();
    let long = "x".repeat(1_000_000);
    for words in [&["MULTI"][..], &["PUBLISH", "c", "early"], &["SUBSCRIBE", "c"]] {
        client.call(words);
    }
    client.call(&["PUBLISH", "c", &long]);
    let Value::Array(answer) = client.call(&["EXEC"]) else {
        panic!("EXEC answers with an array");
    };
    assert_eq!((&answer[0], &answer[2]), (&Value::Integer(0), &Value::Integer(1)));
    let message = ["message", "c", &long].map(Value::bulk);
    assert_eq!(client.read(), Value::Array(message.into()));
}

/// A reader may not delete an expired key, so it notes it, and DBSIZE leaves out what is noted. CONFIG SET
/// gives the lock back in between, and whoever waits for it deletes.
#[test]
fn an_expired_key_that_others_delete_in_between_is_not_counted_twice() {
    let server = Server::start(&["--enable-debug-command", "yes"]);
    let (mut client, mut other) = (server.client(), server.client());
    client.run("DEBUG SET-ACTIVE-EXPIRE 0");
    // LCS takes long enough for the other to come.
    let look = b"GET old\r\nLCS a b LEN\r\nCONFIG SET hz 10\r\nDBSIZE\r\n";
    for _ in 0..10 {
        client.call(&["SET", "a", &"ab".repeat(1000)]);
        client.call(&["SET", "b", &"ba".repeat(1000)]);
        client.run("SET old v PX 1");
        thread::sleep(Duration::from_millis(2));
        client.raw(look);
        assert_eq!(other.run("FLUSHALL"), "OK");
        let size = (0..4).map(|_| client.read()).last().unwrap();
        assert!(matches!(integer(size), 0 | 2));
    }
}

/// Who waits for the exclusive lock keeps new readers out, so nobody may wait for it without need.
#[test]
fn readers_go_on_while_one_reads_for_long_and_nobody_writes() {
    let server = Server::start(&[]);
    let mut slow = server.client();
    slow.call(&["SET", "a", &"ab".repeat(2500)]);
    slow.call(&["SET", "b", &"ba".repeat(2500)]);
    // All in one EXEC, under one lock. It has to take longer than active expiry sleeps, and much
    // longer than a busy machine lets anybody wait.
    with_more_and_more(2, |count| {
        let began = Instant::now();
        slow.raw(&encode(&["MULTI"]));
        slow.raw(&encode(&["LCS", "a", "b", "LEN"]).repeat(count as usize));
        slow.raw(&encode(&["EXEC"]));
        let done = &AtomicBool::new(false);
        let (whole, longest) = thread::scope(|scope| {
            let _stop = Stop(done);
            let mut quick = server.client();
            let reading = scope.spawn(move || {
                let mut longest = Duration::ZERO;
                while !done.load(Ordering::Relaxed) {
                    let began = Instant::now();
                    quick.run("GET nothing");
                    longest = longest.max(began.elapsed());
                }
                longest
            });
            (0..count + 2).for_each(|_| drop(slow.read()));
            done.store(true, Ordering::Relaxed);
            (began.elapsed(), reading.join().unwrap())
        });
        let is_long = whole > Duration::from_millis(300);
        let waited = format!("of {whole:?}, a reader has waited for {longest:?}");
        (is_long && longest < whole / 3).then_some(()).ok_or(waited)
    });
}

/// Fills a database with keys, and a hash with fields, that a nasty pattern takes long to compare with.
fn fill(client: &mut Client, count: usize) {
    let name = |i: usize| format!("{}{i}", "a".repeat(20));
    for from in (0..count).step_by(1_000) {
        let (mut mset, mut hset) = (vec!["MSET".to_string()], vec!["HSET".into(), "hash".into()]);
        for i in from..from + 1_000 {
            mset.extend([name(i), i.to_string()]);
            hset.extend([name(i), i.to_string()]);
        }
        assert_eq!(client.call(&mset).to_string(), "OK");
        assert_eq!(client.call(&hset), Value::Integer(1_000));
    }
}

const NASTY: &str = "*a*a*a*a*a*a*b";

/// A SCAN that keeps its lock sees what was written up to some moment, and nothing that was written
/// after anything that it misses.
#[test]
fn writers_go_on_while_one_scans_everything() {
    let server = Server::start(&["--appendonly", "no"]);
    let mut reader = server.client();
    fill(&mut reader, 30_000);
    let everything = "1000000000000000";
    for (scan, write) in
        [(&["SCAN", "0"][..], &["SET"][..]), (&["HSCAN", "hash", "0"], &["HSET", "hash"])]
    {
        // So a new one is found, and all others take long to be compared.
        let pattern = format!("{NASTY}{}", scan[0]);
        let scan = [scan, &["MATCH", &pattern, "COUNT", everything]].concat();
        let done = &AtomicBool::new(false);
        thread::scope(|scope| {
            let _stop = Stop(done);
            let mut writer = server.client();
            scope.spawn(move || {
                for number in 1.. {
                    if done.load(Ordering::Relaxed) {
                        break;
                    }
                    let name = format!("{number}:aaaaaaaab{}", scan_name(write));
                    writer.call(&[write, &[name.as_str(), "v"]].concat());
                }
            });
            eventually(&format!("{scan:?} lets others write"), || {
                let found = reader.call(&scan).to_string();
                let numbers = found.split('"').filter_map(|word| word.split_once(':'));
                let numbers = numbers.filter_map(|(number, _)| number.parse::<usize>().ok());
                let numbers: std::collections::HashSet<usize> = numbers.collect();
                let last = numbers.iter().max().copied().unwrap_or_default();
                numbers.len() < last
            });
        });
    }
    // All stretches are timed, and not the last alone.
    let stats = reader.run("INFO commandstats");
    let rest = stats.split_once("cmdstat_scan:calls=").expect("SCAN").1;
    let each = rest.split_once("usec_per_call=").expect("a time").1;
    let each = each.split('.').next().and_then(|number| number.parse().ok());
    let each: u64 = each.expect("a number");
    assert!(each > 5_000, "{each} µs for a SCAN");
}

/// As [`NASTY`] wants it at the end of a name.
fn scan_name(write: &[&str]) -> &'static str {
    match write {
        ["SET"] => "SCAN",
        _ => "HSCAN",
    }
}

/// LCS has what it needs when it has looked at its two keys.
#[test]
fn writers_go_on_while_one_compares_long_strings() {
    let server = Server::start(&["--appendonly", "no"]);
    let mut client = server.client();
    client.call(&["SET", "a", &"ab".repeat(4_500)]);
    client.call(&["SET", "b", &"ba".repeat(4_500)]);
    writers_go_on_during(&server, &["LCS", "a", "b", "LEN"], |answer| {
        assert_eq!(answer, Value::Integer(8_999));
    });
}

/// SORT has what it needs when it has copied the elements.
#[test]
fn writers_go_on_while_one_sorts_much() {
    let server = Server::start(&["--appendonly", "no"]);
    let mut client = server.client();
    // They take long to be compared.
    let elements: Vec<String> =
        (0..20_000).map(|i| format!("{}{}", "a".repeat(200), i * 7_919 % 20_000)).collect();
    for some in elements.chunks(1_000) {
        let some = some.iter().map(String::as_str);
        client.call(&["RPUSH", "l"].into_iter().chain(some).collect::<Vec<_>>());
    }
    let mut sorted = elements.clone();
    sorted.sort();
    writers_go_on_during(&server, &["SORT", "l", "ALPHA"], |answer| {
        let items = answer.items();
        assert!(items.iter().map(|item| item.text()).eq(sorted.iter().map(String::as_bytes)));
    });
}

/// Sends a command that takes long, and meanwhile others that write.
fn writers_go_on_during(server: &Server, command: &[&str], check: impl Fn(Value)) {
    let mut slow = server.client();
    let mut writer = server.client();
    // A busy machine may stop who writes, and not who compares.
    let attempts: Vec<String> = (0..6)
        .map_while(|_| {
            let began = Instant::now();
            slow.send(command);
            let (mut written, mut longest) = (0, Duration::ZERO);
            while !slow.has_arrived() {
                let began = Instant::now();
                writer.run("SET k v");
                longest = longest.max(began.elapsed());
                written += 1;
            }
            let whole = began.elapsed();
            check(slow.read());
            // Many may come before the LCS has begun.
            let goes_on = written > 300 && longest < whole / 3;
            let what = format!("{written} SETs in {whole:?}, one of them took {longest:?}");
            (!goes_on).then_some(what)
        })
        .collect();
    assert!(attempts.len() < 6, "{attempts:#?}");
}

/// A key that is renamed to and fro is there once, whoever lists the keys at one time.
/// The difference is empty, but Redis's way to it, as ours, begins with a copy of the first set. The members are few,
/// so only their length tells that it takes long.
#[test]
fn sets_of_long_members_are_copied_for_one_client_at_a_time() {
    const CLIENTS: u64 = 8;
    let server = Server::start(&["--appendonly", "no"]);
    let mut client = server.client();
    let long = "x".repeat(1 << 20);
    for i in 0..40 {
        let member = format!("{long}{i}");
        client.call(&["SADD", "all", &member]);
        client.call(&["SADD", &format!("part:{}", i % 10), &member]);
    }
    let mut command = vec!["SDIFF".to_string(), "all".to_string()];
    command.extend((0..10).map(|i| format!("part:{i}")));
    let before = memory(server.pid(), "VmHWM");
    thread::scope(|scope| {
        for _ in 0..CLIENTS {
            let mut client = server.client();
            let command = &command;
            scope.spawn(move || {
                for _ in 0..3 {
                    assert_eq!(client.call(command), Value::Array(Vec::new()));
                }
            });
        }
    });
    let copies = (memory(server.pid(), "VmHWM") - before) as f64 / (40 << 20) as f64;
    assert!(copies < 2.5, "{copies} copies at once");
}

#[test]
fn keys_and_a_transaction_that_scans_see_one_moment() {
    let server = Server::start(&["--appendonly", "no"]);
    let mut reader = server.client();
    fill(&mut reader, 3_000);
    reader.run("SET here 1");
    let done = &AtomicBool::new(false);
    thread::scope(|scope| {
        let stop = Stop(done);
        let mut writer = server.client();
        let renaming = scope.spawn(move || {
            while !done.load(Ordering::Relaxed) {
                writer.run("RENAME here there");
                writer.run("RENAME there here");
            }
        });
        let counts: Vec<usize> = (0..60)
            .map(|round| {
                let keys = if round % 2 == 0 {
                    reader.call(&["KEYS", "*here"]).to_string()
                } else {
                    reader.run("MULTI");
                    reader.run("SCAN 0 MATCH *here COUNT 1000000");
                    reader.run("EXEC")
                };
                keys.matches("here\"").count()
            })
            .collect();
        drop(stop);
        renaming.join().unwrap();
        assert!(counts.iter().all(|&count| count == 1), "{counts:?}");
    });
}

/// In one packet: the lock is given back between the two, and the record of the first goes to the log then.
#[test]
fn what_stands_before_a_long_look_is_seen_by_it_and_kept() {
    let mut server = Server::start(&[]);
    let mut client = server.client();
    fill(&mut client, 2_000);
    let packet = [encode(&["SET", "here", "1"]), encode(&["KEYS", "here"])].concat();
    client.raw(&[packet, encode(&["GET", "here"])].concat());
    let answers = [(); 3].map(|()| client.read().to_string());
    assert_eq!(answers, ["OK", r#"1) "here""#, r#""1""#]);
    server.crash();
    assert_eq!(server.client().run("GET here"), r#""1""#);
}

/// While it has given the lock back, the table may grow and shrink.
#[test]
fn a_scan_of_everything_misses_no_key_that_stays_while_others_come_and_go() {
    let server = Server::start(&["--appendonly", "no"]);
    let mut reader = server.client();
    fill(&mut reader, 10_000);
    let done = &AtomicBool::new(false);
    thread::scope(|scope| {
        let stop = Stop(done);
        let mut writer = server.client();
        let writing = scope.spawn(move || {
            let others = (0..5_000).map(|i| format!("other:{i}"));
            let others: Vec<String> = others.collect();
            while !done.load(Ordering::Relaxed) {
                for some in others.chunks(500) {
                    let pairs = some.iter().flat_map(|key| [key.as_str(), "v"]);
                    writer.call(&["MSET"].into_iter().chain(pairs).collect::<Vec<_>>());
                }
                let all = others.iter().map(String::as_str);
                writer.call(&["DEL"].into_iter().chain(all).collect::<Vec<_>>());
            }
        });
        let scans: Vec<Value> = (0..5)
            .map(|_| reader.call(&["SCAN", "0", "MATCH", "a*", "COUNT", "1000000000"]))
            .collect();
        drop(stop);
        writing.join().unwrap();
        for scan in scans {
            let Value::Array(answer) = scan else {
                panic!("{scan:?}");
            };
            assert_eq!(answer[0].to_string(), r#""0""#);
            let Value::Array(keys) = &answer[1] else {
                panic!("no keys");
            };
            let keys: std::collections::HashSet<String> =
                keys.iter().map(Value::to_string).collect();
            assert_eq!(keys.len(), 10_000);
        }
    });
}

/// The second time it has a writer already, which sends the answer at once.
#[test]
fn who_is_told_that_he_monitors_misses_no_command() {
    let server = Server::start(&[]);
    let (mut monitor, mut client) = (server.client(), server.client());
    for n in 0..5000 {
        assert_eq!(monitor.run("MONITOR"), "OK");
        client.run(&format!("ECHO {n}"));
        let line = monitor.read().to_string();
        assert!(line.ends_with(&format!("\"ECHO\" \"{n}\"")), "{line}");
        assert_eq!(monitor.run("RESET"), "RESET");
    }
}

/// SET moves a large value out of the words of its command.
#[test]
fn monitors_and_the_slow_log_show_large_values() {
    let server = Server::start(&["--slowlog-log-slower-than", "0"]);
    let (mut monitor, mut client) = (server.client(), server.client());
    let value = "v".repeat(20_000);
    client.call(&["SET", "unwatched", &value]);
    monitor.run("MONITOR");
    client.call(&["SET", "watched", &value]);
    let line = monitor.read().to_string();
    assert!(line.ends_with(&format!("\"SET\" \"watched\" \"{value}\"")));
    let log = client.run("SLOWLOG GET 3");
    let shown = format!("\"{}... (19872 more bytes)\"", "v".repeat(128));
    assert_eq!(log.matches(&shown).count(), 2, "{log}");
    assert_eq!(client.run("GET watched"), client.run("GET unwatched"));
}

/// Whoever writes waits for an EXEC, so an EXEC must not wait for all who compute.
#[test]
fn an_lcs_in_exec_waits_for_one_other_at_most() {
    let server = Server::start(&["--appendonly", "no"]);
    let mut client = server.client();
    // The longer they compute, the fewer are done before the EXEC's answer has been read.
    with_more_and_more(300, |length| {
        let long = "abcdefghij".repeat(length as usize);
        client.call(&["MSET", "a", &long, "b", &long]);
        let mut waiting: Vec<Client> = (0..40).map(|_| server.client()).collect();
        for other in &mut waiting {
            other.send(&["LCS", "a", "b", "LEN"]);
        }
        // The first has its answer: the others are at the gate, or soon will be.
        waiting[0].read();
        client.raw(b"MULTI\r\nLCS a b LEN\r\nEXEC\r\n");
        (0..3).for_each(|_| drop(client.read()));
        let answered = waiting[1..].iter().filter(|other| other.has_arrived());
        match answered.count() {
            0..30 => Ok(()),
            answered => Err(format!("{answered} of 39 were served before")),
        }
    });
}

/// A SCAN that takes long gives its lock back in the middle, which here is the exclusive one of the SET
/// before it. What it has found expired must be deleted by then: FLUSHALL deletes it too, and DBSIZE
/// would subtract what is not there.
#[test]
fn what_a_scan_finds_expired_is_deleted_before_another_client_comes_in() {
    let server = Server::start(&["--enable-debug-command", "yes"]);
    let (mut scanner, mut other) = (server.client(), server.client());
    other.run("DEBUG SET-ACTIVE-EXPIRE 0");
    for round in 0..3 {
        let keys = 0..50_000;
        let expiring = keys.clone().map(|i| encode(&["SET", &format!("key:{i}"), "v", "PX", "1"]));
        other.raw(&expiring.collect::<Vec<_>>().concat());
        keys.for_each(|_| assert_eq!(other.read().to_string(), "OK"));
        eventually("the last one expires", || other.run("EXISTS key:49999") == "(integer) 0");
        let commands = ["SET a 1", "DEBUG SLEEP 0.1", "SCAN 0 COUNT 10000000", "DBSIZE"];
        let words = commands.map(|line| line.split(' ').collect::<Vec<_>>());
        scanner.raw(&words.map(|words| encode(&words)).concat());
        // Before the SET it would prove nothing; on a slow machine another round will.
        thread::sleep(Duration::from_millis(30));
        other.run("FLUSHALL");
        (0..3).for_each(|_| drop(scanner.read()));
        let left = integer(scanner.read());
        assert!((0..=1).contains(&left), "{left} in round {round}");
    }
}
