//! What clients hold of the server's memory: replies that nobody reads, commands that have not run,
//! messages, names. Each has a limit, and all together have one, whatever they are.
//!
//! Figures come from `/proc`, so these tests need Linux.

mod support;

use support::process::{memory, wait_for_rest};
use support::{Client, Server, Value, encode, eventually, with_more_and_more};

const MB: u64 = 1024 * 1024;

/// A server without a log that keeps to this limit of `client-output-buffer-limit`.
fn with_output_limit(limit: &str) -> Server {
    Server::start(&["--appendonly", "no", "--client-output-buffer-limit", limit])
}

/// A field of INFO.
fn info(client: &mut Client, name: &str) -> u64 {
    field(&client.run("INFO"), name)
}

fn field(text: &str, name: &str) -> u64 {
    let line = format!("\\n{name}:");
    let value = text.split(&line).nth(1).expect("the field is there");
    let digits: String = value.chars().take_while(char::is_ascii_digit).collect();
    digits.parse().expect("a number")
}

/// What all clients hold, without what each takes while it waits.
fn held(client: &mut Client) -> u64 {
    let text = client.run("INFO");
    // A client that comes or goes just now may be in one number and not in the other.
    field(&text, "mem_clients_normal").saturating_sub(field(&text, "connected_clients") * 13 * 1024)
}

/// Reads to the end of the connection; returns how many bytes came before.
fn read_to_the_end(client: &mut Client) -> u64 {
    use std::io::Read;
    let mut bytes = 0;
    let mut chunk = vec![0; 1 << 20];
    loop {
        match client.socket().read(&mut chunk) {
            Ok(0) => return bytes,
            Ok(count) => bytes += count as u64,
            Err(error) if error.kind() == std::io::ErrorKind::ConnectionReset => return bytes,
            Err(error) => panic!("the connection does not end: {error}"),
        }
    }
}

#[test]
fn a_reply_without_end_ends_when_its_client_is_killed() {
    let server = Server::start(&["--appendonly", "no", "--maxmemory-clients", "0"]);
    let (mut asking, mut other) = (server.client(), server.client());
    other.run("HSET h field value");
    for command in ["HRANDFIELD h -2000000000 WITHVALUES", "HRANDFIELD h -2000000000"] {
        let before = memory(server.pid(), "VmRSS");
        let id = asking.run("CLIENT ID").replace("(integer) ", "");
        asking.raw(format!("{command}\r\n").as_bytes());
        eventually("the reply grows", || memory(server.pid(), "VmRSS") > before + 8 * MB);
        let kill = format!("CLIENT KILL ID {id}");
        assert_eq!(other.run(&kill), "(integer) 1");
        // Whoever would write has waited for it.
        assert_eq!(other.run("SET k v"), "OK");
        assert!(asking.is_closed());
        asking = server.client();
    }
    eventually("its memory is given back", || held(&mut other) == 0);
    // What can never be told to its end is not begun.
    other.run("CONFIG SET maxmemory-clients 2gb");
    let before = memory(server.pid(), "VmHWM");
    asking.raw(b"HRANDFIELD h -2000000000\r\n");
    assert!(asking.is_closed());
    assert!(memory(server.pid(), "VmHWM") < before + 8 * MB);
}

#[test]
fn a_reply_that_is_a_little_over_the_limit_is_not_sent() {
    let server = with_output_limit("normal 100000 0 0");
    let mut client = server.client();
    let element = "x".repeat(1000);
    let mut push = vec!["RPUSH", "l"];
    push.extend(vec![element.as_str(); 100]);
    client.call(&push);
    assert!(matches!(client.call(&["LRANGE", "l", "1", "-1"]), Value::Array(_)));
    client.raw(&encode(&["LRANGE", "l", "0", "-1"]));
    assert_eq!(read_to_the_end(&mut client), 0);
}

#[test]
fn who_asks_for_more_than_normal_clients_may_leave_unread_is_closed_while_the_reply_is_made() {
    let server = with_output_limit("normal 8mb 0 0");
    let mut other = server.client();
    other.run("HSET h field value");
    let big = "x".repeat(1_000_000);
    other.call(&["SET", "big", &big]);
    other.call(&["HSET", "wide", "one", &big]);
    for field in 0..12 {
        other.call(&["HSET", "table", &field.to_string(), &big]);
        // They differ in their last bytes.
        let member = format!("{big}{field:02}");
        other.call(&["RPUSH", "list", &member]);
        other.call(&["SADD", "set", &member]);
        other.call(&["ZADD", "zset", "1", &member]);
        other.call(&["SET", &member, "v"]);
    }
    let repeat = |command: &[&str], word: &str, times: usize| -> Vec<u8> {
        let mut words = command.to_vec();
        words.extend(vec![word; times]);
        encode(&words)
    };
    let id = id_of(&mut other);
    let before = memory(server.pid(), "VmHWM");
    let in_exec = |command: &[&str]| {
        let queue = encode(command).repeat(30);
        [&b"MULTI\r\n"[..], &queue, b"SET written yes\r\nEXEC\r\n"].concat()
    };
    for (what, wire, allowed) in [
        ("HRANDFIELD", encode(&["HRANDFIELD", "h", "-2000000000"]), None),
        ("MGET", repeat(&["MGET"], "big", 30), Some(repeat(&["MGET"], "big", 7))),
        (
            "HMGET",
            repeat(&["HMGET", "wide"], "one", 30),
            Some(repeat(&["HMGET", "wide"], "one", 7)),
        ),
        ("HGETALL", encode(&["HGETALL", "table"]), Some(encode(&["HGETALL", "wide"]))),
        ("HVALS", encode(&["HVALS", "table"]), None),
        ("LRANGE", encode(&["LRANGE", "list", "0", "-1"]), None),
        ("SORT", encode(&["SORT", "list", "ALPHA"]), None),
        ("SMEMBERS", encode(&["SMEMBERS", "set"]), None),
        ("SUNION", encode(&["SUNION", "set", "none"]), None),
        ("SINTER", encode(&["SINTER", "set", "set"]), None),
        ("ZRANGE", encode(&["ZRANGE", "zset", "0", "-1"]), None),
        // What they have found counts before it is in the reply.
        ("SCAN", encode(&["SCAN", "0", "COUNT", "1000"]), None),
        ("HSCAN", encode(&["HSCAN", "table", "0", "COUNT", "1000"]), None),
        ("SSCAN", encode(&["SSCAN", "set", "0", "COUNT", "1000"]), None),
        ("ZSCAN", encode(&["ZSCAN", "zset", "0", "COUNT", "1000"]), None),
        // A client that is named often has as many lines, and a command as many histograms.
        ("CLIENT LIST", repeat(&["CLIENT", "LIST", "ID"], &id, 300_000), None),
        ("LATENCY HISTOGRAM", repeat(&["LATENCY", "HISTOGRAM"], "hset", 300_000), None),
        ("EXEC of GETs", in_exec(&["GET", "big"]), None),
        ("EXEC of GETRANGEs", in_exec(&["GETRANGE", "big", "0", "-1"]), None),
    ] {
        let mut asking = server.client();
        if let Some(allowed) = allowed {
            asking.raw(&allowed);
            assert!(matches!(asking.read(), Value::Array(_)), "{what}");
        }
        other.run("DEL written");
        asking.raw(&wire);
        let told = read_to_the_end(&mut asking);
        assert!(told < 2000, "{what} was answered with {told} bytes");
        // The client is closed, and not its transaction cut in two.
        let written = if what.starts_with("EXEC") { "\"yes\"" } else { "(nil)" };
        assert_eq!(other.run("GET written"), written, "{what}");
    }
    let grown = memory(server.pid(), "VmHWM") - before;
    assert!(grown < 60 * MB, "{} MB", grown / MB);
    server.wait_for_line("scheduled to be closed ASAP for overcoming of output buffer limits.");
    // What is sent as fast as it is read has no limit in sum.
    for _ in 0..20 {
        assert_eq!(other.call(&["GET", "big"]), Value::bulk(&big));
    }
}

#[test]
fn a_normal_client_may_leave_much_unread_for_a_while_and_not_for_longer() {
    // Whoever needs longer for 40 MB has had too much unread for too long.
    with_more_and_more(1, |seconds| {
        let server = with_output_limit(&format!("normal 0 100kb {seconds}"));
        let (mut deaf, mut other) = (server.client(), server.client());
        other.call(&["SET", "big", &"x".repeat(40_000_000)]);
        // Who reads may have it.
        let whole = other.try_call(&["GET", "big"]);
        assert!(matches!(whole.map_err(|error| error.to_string())?, Value::Bulk(_)));
        deaf.raw(&encode(&["GET", "big"]));
        server.wait_for_line("scheduled to be closed ASAP for overcoming of output buffer limits.");
        assert!(read_to_the_end(&mut deaf) < 40_000_000);
        assert_eq!(other.run("PING"), "PONG");
        Ok(())
    });
}

/// Sends all of it, as far as the server takes it.
fn send(client: &mut Client, bytes: &[u8]) {
    let _ = client.try_raw(bytes);
}

/// Whatever a client can hold, it is counted, it is handed back, and whoever holds the most of it is
/// ended: here each of them holds more than all may, beside one that holds little.
#[test]
fn whoever_holds_the_most_is_ended_when_all_hold_too_much_whatever_it_is() {
    let flags = [
        "--appendonly",
        "no",
        "--maxmemory-clients",
        "16mb",
        "--client-output-buffer-limit",
        "pubsub 0 0 0",
    ];
    let server = Server::start(&flags);
    let mut other = server.client();
    let big = "x".repeat(1_000_000);
    for field in 0..30 {
        other.call(&["HSET", "table", &field.to_string(), &big]);
    }
    other.call(&[&["RPUSH", "list"], &["a"; 200][..]].concat());
    other.call(&["SET", "wa", &big]);
    assert_eq!(info(&mut other, "mem_clients_limit"), 16 * MB);
    // It has four megabytes in its queue all the time.
    let mut modest = server.client();
    modest.run("MULTI");
    for _ in 0..4 {
        assert_eq!(modest.call(&["SET", "k", &big]).to_string(), "QUEUED");
    }
    let words: Vec<String> = (0..40_000).map(|n| format!("{n:0400}")).collect();
    type Hold<'a> = Box<dyn Fn(&mut Client) + 'a>;
    let kinds: [(&str, Hold); 11] = [
        (
            "its name",
            Box::new(|client| {
                let name = big.repeat(30);
                send(client, &encode(&["CLIENT", "SETNAME", &name]));
            }),
        ),
        ("a reply", Box::new(|client| send(client, b"HGETALL table\r\n"))),
        (
            "texts that it sorts by",
            Box::new(|client| send(client, b"SORT list BY w* ALPHA LIMIT 0 1\r\n")),
        ),
        (
            "input that is stashed",
            Box::new(|client| {
                let pipeline = [encode(&["HGET", "table", "1"]), encode(&["ECHO", &big])].concat();
                (0..60).for_each(|_| send(client, &pipeline));
            }),
        ),
        (
            "a word that never ends",
            Box::new(|client| {
                send(client, b"*3\r\n$3\r\nSET\r\n$1\r\nk\r\n$50000000\r\n");
                (0..30).for_each(|_| send(client, big.as_bytes()));
            }),
        ),
        (
            "words that never end",
            Box::new(|client| {
                send(client, b"*1000\r\n$3\r\nDEL\r\n");
                let word = [b"$1000000\r\n", big.as_bytes(), b"\r\n"].concat();
                (0..30).for_each(|_| send(client, &word));
            }),
        ),
        (
            "a transaction",
            Box::new(|client| {
                send(client, b"MULTI\r\n");
                (0..30).for_each(|_| send(client, &encode(&["SET", "k", &big])));
            }),
        ),
        (
            "messages",
            Box::new(|client| {
                client.run("SUBSCRIBE c");
                let mut publisher = Client::connect(client.socket().peer_addr().unwrap()).unwrap();
                // The socket takes some megabytes.
                (0..60).for_each(|_| drop(publisher.call(&["PUBLISH", "c", &big])));
            }),
        ),
        (
            "subscriptions",
            Box::new(|client| {
                for half in words.chunks(20_000) {
                    send(client, &encode(&[&["SUBSCRIBE".into()], half].concat()));
                }
            }),
        ),
        (
            "keys that it waits for",
            Box::new(|client| {
                let keys: Vec<String> = (0..100_000).map(|n| n.to_string()).collect();
                send(client, &encode(&[&["BLPOP".into()], &keys[..], &["0".into()]].concat()));
            }),
        ),
        (
            "watched keys",
            Box::new(|client| {
                for n in 0..300 {
                    send(client, &encode(&["WATCH", &format!("{n:060000}")]));
                }
            }),
        ),
    ];
    for (round, (what, hold)) in kinds.iter().enumerate() {
        let mut greedy = server.client();
        hold(&mut greedy);
        eventually(&format!("{what}: its client is ended"), || {
            info(&mut other, "evicted_clients") == round as u64 + 1
        });
        eventually(&format!("{what}: it is handed back"), || held(&mut other) < 5 * MB);
        assert_eq!(modest.run("PING"), "QUEUED", "{what}");
    }
    server.wait_for_line("Evicting client: id=");
    modest.run("EXEC");
    eventually("all is handed back", || held(&mut other) == 0);
}

/// They hold a value together that is one in memory, so they hold it once.
#[test]
fn a_large_value_that_many_are_sent_counts_once() {
    let server = Server::start(&["--appendonly", "no", "--maxmemory-clients", "64mb"]);
    let mut other = server.client();
    other.call(&["SET", "big", &"x".repeat(20_000_000)]);
    let mut slow: Vec<Client> = (0..20).map(|_| server.client()).collect();
    slow.iter_mut().for_each(|client| client.send(&["GET", "big"]));
    for client in &mut slow {
        assert!(matches!(client.read(), Value::Bulk(value) if value.len() == 20_000_000));
    }
    assert_eq!(info(&mut other, "evicted_clients"), 0);
}

#[test]
fn a_transaction_of_many_messages_holds_no_more_than_its_client_has_sent() {
    let server = with_output_limit("pubsub 1mb 0 0");
    let mut publisher = server.client();
    // It matches, and each of those who hear by it is told it in whole.
    let pattern = "*".repeat(40_000);
    let mut deaf: Vec<Client> = (0..40).map(|_| server.client()).collect();
    for client in &mut deaf {
        client.send(&["PSUBSCRIBE", &pattern]);
        client.read();
    }
    let before = memory(server.pid(), "VmHWM");
    publisher.run("MULTI");
    for _ in 0..400 {
        publisher.call(&["PUBLISH", "channel", "message"]);
    }
    publisher.send(&["EXEC"]);
    assert_eq!(publisher.read(), Value::Array(vec![Value::Integer(40); 400]));
    let grown = memory(server.pid(), "VmHWM") - before;
    assert!(grown < 120 * MB, "{} MB", grown / MB);
}

#[test]
fn a_subscriber_is_sent_a_long_reply_without_a_second_copy_of_it() {
    let server = Server::start(&["--appendonly", "no"]);
    let (mut client, mut publisher) = (server.client(), server.client());
    let big = "x".repeat(1_000_000);
    publisher.call(&["SET", "big", &big]);
    client.run("HELLO 3");
    client.run("SUBSCRIBE c");
    let before = memory(server.pid(), "VmHWM");
    client.send(&[&["MGET"], &vec!["big"; 200][..]].concat());
    assert_eq!(publisher.run("PUBLISH c message"), "(integer) 1");
    // The message is before the reply or behind it, and not within it.
    let mut both = [client.read(), client.read()];
    both.sort_by_key(|value| matches!(value, Value::Push(_)));
    let [reply, message] = both;
    assert!(reply == Value::Array(vec![Value::bulk(&big); 200]));
    assert!(matches!(message, Value::Push(_)));
    let grown = memory(server.pid(), "VmHWM") - before;
    assert!(grown < 50 * MB, "{} MB", grown / MB);
}

#[test]
fn those_who_stop_reading_are_looked_at_once_a_second_and_served_at_once_when_they_go_on() {
    const DEAF: usize = 100;
    let server = Server::start(&["--appendonly", "no"]);
    let mut other = server.client();
    other.call(&["SET", "big", &"x".repeat(1_000_000)]);
    let mut deaf: Vec<Client> = (0..DEAF).map(|_| server.client()).collect();
    // Some have an outbox, with a thread that writes for them.
    for client in deaf.iter_mut().take(DEAF / 4) {
        client.run("HELLO 3");
        client.run("SUBSCRIBE c");
    }
    for client in &mut deaf {
        client.raw(&encode(&["GET", "big"]).repeat(30));
    }
    // Each thread wakes once a second, and a subscriber has two. The others of the server are a dozen
    // wakes a second each.
    let most = 2 * DEAF as u64 * 2 + 60;
    wait_for_rest(server.pid(), most);
    for client in &mut deaf {
        for _ in 0..30 {
            assert!(matches!(client.read(), Value::Bulk(big) if big.len() == 1_000_000));
        }
    }
}

#[test]
fn the_words_of_half_a_command_count_as_what_they_take() {
    let server = Server::start(&["--appendonly", "no"]);
    let (mut asking, mut other) = (server.client(), server.client());
    // Six bytes each on the wire, and in memory the place of a word.
    asking.raw(b"*1000000\r\n");
    asking.raw(&b"$0\r\n\r\n".repeat(400_000));
    eventually("the words are counted", || held(&mut other) > 10 * MB);
    drop(asking);
    eventually("and given back", || held(&mut other) == 0);
}

/// A field of a client in CLIENT LIST.
fn listed(asking: &mut Client, id: &str, field: &str) -> u64 {
    field_of(&asking.run(&format!("CLIENT LIST ID {id}")), field)
}

fn field_of(line: &str, field: &str) -> u64 {
    let value = line.split(' ').find_map(|word| word.strip_prefix(&format!("{field}=")));
    value.expect("the field is there").parse().expect("a number")
}

fn id_of(client: &mut Client) -> String {
    client.run("CLIENT ID").replace("(integer) ", "")
}

#[test]
fn client_list_tells_what_each_client_holds() {
    let server = with_output_limit("pubsub 0 0 0");
    let (mut asking, mut client) = (server.client(), server.client());
    let id = id_of(&mut client);
    let mut is = |fields: &[(&str, u64)]| {
        for (field, value) in fields {
            eventually(field, || listed(&mut asking, &id, field) == *value);
        }
    };
    is(&[("qbuf", 0), ("argv-mem", 0), ("multi-mem", 0), ("obl", 0), ("oll", 0), ("omem", 0)]);
    // Half a command, and then the rest.
    client.raw(b"*2\r\n$4\r\nECHO\r\n$5\r\nab");
    is(&[("qbuf", 20), ("qbuf-free", 512 - 20)]);
    client.raw(b"cde\r\n");
    client.read();
    is(&[("qbuf", 0), ("rbp", 11)]);
    // Redis counts a pointer to each argument too.
    client.run("MULTI");
    client.run("SET key value");
    is(&[("multi", 1), ("multi-mem", 3 + 3 + 5 + 3 * 8), ("argv-mem", 0)]);
    client.run("DISCARD");
    is(&[("multi-mem", 0)]);
    client.raw(b"BLPOP list 0\r\n");
    is(&[("argv-mem", 5 + 4 + 1)]);
    asking.run("RPUSH list x");
    client.read();
    // A reply that is not read: the first 64 KiB are the buffer, and the rest is the list.
    asking.call(&["SET", "big", &"x".repeat(30_000_000)]);
    client.raw(b"GET big\r\n");
    eventually("the client does not read", || listed(&mut asking, &id, "oll") == 1);
    assert_eq!(listed(&mut asking, &id, "obl"), 64 * 1024);
    assert!((MB..30 * MB).contains(&listed(&mut asking, &id, "omem")));
    assert!(listed(&mut asking, &id, "tot-mem") > listed(&mut asking, &id, "omem"));
    assert!(asking.run(&format!("CLIENT LIST ID {id}")).contains(" events=rw "));
    client.read();
    eventually("it has read all", || listed(&mut asking, &id, "omem") == 0);
    assert_eq!(listed(&mut asking, &id, "oll"), 0);
    // Messages.
    client.run("SUBSCRIBE c");
    let mut published = 0;
    // Its socket takes tens of megabytes, because it has just read as many.
    eventually("messages wait", || {
        asking.call(&["PUBLISH", "c", &"x".repeat(1_000_000)]);
        published += 1;
        let line = asking.run(&format!("CLIENT LIST ID {id}"));
        let lists = ["obl", "oll"].map(|field| field_of(&line, field));
        field_of(&line, "omem") > MB
            && lists == [0, 1]
            && info(&mut asking, "client_recent_max_output_buffer") > MB
    });
    (0..published).for_each(|_| drop(client.read()));
    eventually("all are read", || listed(&mut asking, &id, "omem") == 0);
    assert!(asking.run(&format!("CLIENT LIST ID {id}")).contains(" events=r "));
}

#[test]
fn a_client_that_says_no_evict_is_spared_and_others_pay() {
    let flags = ["--appendonly", "no", "--maxmemory-clients", "16mb"];
    let server = Server::start(&flags);
    let (mut asking, mut spared, mut other) = (server.client(), server.client(), server.client());
    let big = "x".repeat(1_000_000);
    let fill = |client: &mut Client, megabytes| {
        client.raw(b"MULTI\r\n");
        (0..megabytes).for_each(|_| send(client, &encode(&["SET", "k", &big])));
    };
    assert_eq!(spared.run("CLIENT NO-EVICT ON"), "OK");
    fill(&mut spared, 30);
    for _ in 0..31 {
        assert!(!spared.read().is_error());
    }
    // All together hold too much, so whoever else holds something pays.
    fill(&mut other, 2);
    eventually("it is ended", || info(&mut asking, "evicted_clients") == 1);
    // Nobody else, and not whoever holds nothing.
    assert_eq!(spared.run("DISCARD"), "OK");
    assert_eq!(info(&mut asking, "evicted_clients"), 1);
    // Without it, it pays like everybody.
    assert_eq!(spared.run("CLIENT NO-EVICT OFF"), "OK");
    fill(&mut spared, 20);
    eventually("it is ended", || info(&mut asking, "evicted_clients") == 2);
}
