//! `maxmemory`: the limit holds however many write, and eviction stops nobody for long.
//!
//! What is answered when nothing can be evicted is in `transcripts/server/maxmemory.txt`.

mod support;

use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use support::{Client, Server, eventually};

const MB: u64 = 1024 * 1024;

fn number(info: &str, name: &str) -> u64 {
    let (_, behind) = info.split_once(&format!("\\n{name}:")).expect("a field of INFO");
    let digits: String = behind.chars().take_while(char::is_ascii_digit).collect();
    digits.parse().expect("a number")
}

fn stat(client: &mut Client, name: &str) -> u64 {
    number(&client.run("INFO stats"), name)
}

/// What is compared with `maxmemory`.
fn used(client: &mut Client) -> u64 {
    let info = client.run("INFO memory");
    number(&info, "used_memory") - number(&info, "mem_not_counted_for_evict")
}

/// Sixteen clients write in pipelines, each value of a kilobyte. Each command asks whether there is room, so at most one of them is
/// over the limit; the rest is what clients hold.
#[test]
fn many_writers_at_once_do_not_exceed_the_limit_by_more_than_a_batch() {
    let limit = 8 * MB;
    let flags = ["--maxmemory", "8mb", "--maxmemory-policy", "allkeys-lru"];
    let server = Server::start(&flags);
    let is_over = AtomicBool::new(false);
    let most = thread::scope(|scope| {
        let writers: Vec<_> = (0..16)
            .map(|writer| {
                let mut client = server.client();
                scope.spawn(move || {
                    let value = "v".repeat(1024);
                    for round in 0..40 {
                        for i in 0..64 {
                            client.send(&["SET", &format!("k:{writer}:{round}:{i}"), &value]);
                        }
                        (0..64).for_each(|_| assert_eq!(client.read().to_string(), "OK"));
                    }
                })
            })
            .collect();
        let watcher = scope.spawn(|| {
            let mut client = server.client();
            let mut most = 0;
            while !is_over.load(Ordering::Relaxed) {
                most = most.max(used(&mut client));
            }
            most
        });
        writers.into_iter().for_each(|writer| writer.join().expect("a writer"));
        is_over.store(true, Ordering::Relaxed);
        watcher.join().expect("the watcher")
    });
    // 17 clients hold 12 KiB each, and up to a batch of input.
    assert!(most <= limit + 17 * 128 * 1024, "{most}");
    let mut client = server.client();
    assert!(stat(&mut client, "evicted_keys") > 16 * 40 * 64 - 8 * 1024);
}

/// Each of them waits in turn for the lock and for room. None is refused, and none waits for ever.
#[test]
fn hundreds_of_clients_at_the_limit_are_all_served() {
    const CLIENTS: u64 = 400;
    let limit = 24 * MB;
    let flags = ["--maxmemory", "24mb", "--maxmemory-policy", "allkeys-lru", "--appendonly", "no"];
    let server = Server::start(&flags);
    let mut clients: Vec<_> = (0..CLIENTS).map(|_| server.client()).collect();
    let value = "v".repeat(1024);
    for round in 0..3 {
        for (number, client) in clients.iter_mut().enumerate() {
            for i in 0..16 {
                client.send(&["SET", &format!("k:{number}:{round}:{i}"), &value]);
            }
        }
        for client in &mut clients {
            (0..16).for_each(|_| assert_eq!(client.read().to_string(), "OK"));
        }
    }
    let client = &mut clients[0];
    assert!(stat(client, "evicted_keys") > 2_000);
    assert!(used(client) <= limit + CLIENTS * 32 * 1024);
}

/// A copy of a large hash is made as fast as another one is freed, so what is evicted must not pile up.
#[test]
fn what_lazyfree_has_not_freed_yet_is_bounded() {
    let flags =
        ["--maxmemory", "16mb", "--maxmemory-policy", "allkeys-random", "--appendonly", "no"];
    let server = Server::start(&flags);
    let mut client = server.client();
    let fields: Vec<String> = (0..20_000).map(|i| format!("field:{i}")).collect();
    let fields: Vec<&str> = fields.iter().flat_map(|field| [field.as_str(), "value"]).collect();
    client.call(&[&["HSET", "source"][..], &fields].concat());
    let one = client.run("MEMORY USAGE source");
    let mut observer = server.client();
    let (mut most, mut round) = (0, 0);
    // A round ends early if the source itself is evicted.
    while round < 6 || stat(&mut observer, "evicted_keys") <= 50 {
        (0..50).for_each(|i| client.send(&["COPY", "source", &format!("{round}:{i}")]));
        (0..50).for_each(|_| drop(client.read()));
        let info = observer.run("INFO memory");
        most = most.max(number(&info, "lazyfree_pending_objects"));
        if observer.run("EXISTS source") == "(integer) 0" {
            client.call(&[&["HSET", "source"][..], &fields].concat());
        }
        round += 1;
    }
    assert!(most <= 4, "{most} of {one}");
}

/// To evict all keys would be in vain.
#[test]
fn an_argument_that_is_longer_than_the_limit_is_refused_and_the_cache_stays() {
    let flags = ["--appendonly", "no", "--enable-debug-command", "yes"];
    let server = Server::start(&flags);
    let mut client = server.client();
    client.run("CONFIG SET maxmemory-policy allkeys-lru");
    assert_eq!(client.run("DEBUG POPULATE 100000 key 100"), "OK");
    let limit = used(&mut client) + MB;
    assert_eq!(client.run(&format!("CONFIG SET maxmemory {limit}")), "OK");
    let reply = client.call(&["SET", "large", &"v".repeat(2 * limit as usize)]).to_string();
    assert!(reply.starts_with("(error) OOM"), "{reply}");
    // A few may have gone while it arrived.
    let left = client.run("DBSIZE");
    let left: u64 = left.trim_start_matches("(integer) ").parse().expect("a number");
    assert!(left > 30_000, "{left}");
    assert_eq!(client.run("SET small v"), "OK");
}

#[test]
fn when_the_policy_becomes_lfu_all_keys_begin_with_0_as_in_redis() {
    let server = Server::start(&["--maxmemory-policy", "allkeys-lru", "--appendonly", "no"]);
    let mut client = server.client();
    (0..100).for_each(|i| drop(client.run(&format!("SET key:{i} v"))));
    client.run("CONFIG SET maxmemory-policy allkeys-lfu");
    client.run("SET new v");
    let mut frequency = |key: &str| client.run(&format!("OBJECT FREQ {key}"));
    // In four minutes of a day a time looks like a frequency: types/usage.rs.
    eventually("all keys are visited, or the minute is over", || {
        (0..100).all(|i| frequency(&format!("key:{i}")) == "(integer) 0")
    });
    assert_eq!(frequency("new"), "(integer) 5");
}

/// The shared lock is enough for a script that reads, also if there is a limit.
#[test]
fn a_limit_does_not_make_scripts_that_read_take_turns() {
    let server = Server::start(&["--loglevel", "debug", "--maxmemory", "100mb"]);
    let mut client = server.client();
    client.run("EVAL_RO 'return 1' 0");
    let digest = client.call(&["SCRIPT", "LOAD", "#!lua flags=no-writes\nreturn 1"]).to_string();
    client.run(&format!("EVALSHA {digest} 0"));
    for name in ["EVAL_RO", "EVALSHA"] {
        let trace = server.wait_for_line(&format!("{name}, step 1 of 1"));
        assert!(trace.contains(" · shared lock, "), "{trace}");
    }
}

#[test]
fn the_operator_is_warned_of_a_limit_below_what_is_used() {
    let server = Server::start(&["--enable-debug-command", "yes"]);
    let mut client = server.client();
    client.run("DEBUG POPULATE 10000 key 100");
    client.run("CONFIG SET maxmemory 1000000");
    let line = server.wait_for_line("the new maxmemory value set via CONFIG SET (1000000)");
    assert!(line.contains(" is smaller than the current memory usage ("), "{line}");
}

/// A million evictions: some of them for each SET, most by the thread.
#[test]
fn a_limit_that_is_lowered_by_much_is_reached_while_clients_are_served() {
    let flags = ["--appendonly", "no", "--enable-debug-command", "yes"];
    let server = Server::start(&flags);
    let mut client = server.client();
    assert_eq!(client.run("DEBUG POPULATE 300000"), "OK");
    let before = used(&mut client);
    let limit = before - 8 * MB;
    let set = format!("CONFIG SET maxmemory-policy allkeys-random maxmemory {limit}");
    assert_eq!(client.run(&set), "OK");
    let mut served = 0;
    while used(&mut client) > limit {
        assert_eq!(client.run(&format!("SET new:{served} v")), "OK");
        assert_eq!(client.run("PING"), "PONG");
        served += 1;
    }
    assert!(before > 10 * MB && served > 5, "{before} {served}");
    eventually("eviction is over", || stat(&mut client, "current_eviction_exceeded_time") == 0);
    let lasted = stat(&mut client, "total_eviction_exceeded_time");
    assert!(lasted > 0);
}

/// What others hold counts too. No command comes that would evict for it.
#[test]
fn what_a_subscriber_does_not_read_is_made_room_for() {
    let flags = [
        "--appendonly",
        "no",
        "--enable-debug-command",
        "yes",
        "--maxmemory-policy",
        "allkeys-lru",
    ];
    let server = Server::start(&flags);
    let mut client = server.client();
    assert_eq!(client.run("DEBUG POPULATE 50000 key 100"), "OK");
    let limit = used(&mut client) + MB;
    assert_eq!(client.run(&format!("CONFIG SET maxmemory {limit}")), "OK");
    let mut subscriber = server.client();
    subscriber.run("SUBSCRIBE c");
    let message = "m".repeat(1024 * 1024);
    (0..6).for_each(|_| drop(client.call(&["PUBLISH", "c", &message])));
    eventually("keys are evicted", || stat(&mut client, "evicted_keys") > 0);
    eventually("it fits", || used(&mut client) <= limit);
}

#[test]
fn a_log_of_more_than_the_limit_is_replayed_whole() {
    let mut server = Server::start(&["--maxmemory", "5mb"]);
    let mut client = server.client();
    assert_eq!(client.run("CONFIG SET maxmemory 0"), "OK");
    for i in 0..6_000 {
        client.send(&["SET", &format!("k:{i}"), &"v".repeat(1000)]);
    }
    (0..6_000).for_each(|_| assert_eq!(client.read().to_string(), "OK"));
    server.restart();
    let mut client = server.client();
    assert_eq!(client.run("DBSIZE"), "(integer) 6000");
    assert!(client.run("SET new v").contains("OOM"));
    // Now it evicts, and what it evicts is in the log.
    assert_eq!(client.run("CONFIG SET maxmemory-policy allkeys-lru"), "OK");
    assert_eq!(client.run("SET new v"), "OK");
    eventually("it fits", || used(&mut client) <= 5 * MB);
    assert_eq!(client.run("CONFIG SET maxmemory-policy noeviction"), "OK");
    let (left, evicted) = (client.run("DBSIZE"), stat(&mut client, "evicted_keys"));
    assert!(evicted > 900, "{left} {evicted}");
    server.restart();
    assert_eq!(server.client().run("DBSIZE"), left);
}
