//! What arrives on the wire, however it is cut and whatever it holds: answered, or refused in
//! Redis's words, and never the end of the server.
//!
//! The texts and cases were taken from redis-server 7.0.15. The bytes of a stream may come in any
//! packets; a length is a promise by a stranger; what is not a command ends its connection and no
//! other. The last test changes bytes of good streams at random (the same each time) and asks
//! only that the server lives.

mod support;

use std::io::{Read, Write};
use std::net::Shutdown;
use support::process::memory;
use support::random::Random;
use support::{Client, Server, Value, encode};

/// A stream with every kind of thing in it, and what is to come back for it.
fn a_stream() -> (Vec<u8>, Vec<u8>) {
    let mut input = encode(&[&b"SET"[..], b"k\0\r\n", b"\r\n$5\r\n*1\r\n"]);
    input.extend(b"\r\n\n*0\r\n*-1\r\n");
    input.extend(encode(&[&b"GET"[..], b"k\0\r\n"]));
    input.extend(b"ECHO \"a \\x41\\r\\n\" \r\necho 'it\\'s'\n");
    input.extend(encode(&["HSET", "h", "", "1", "f", ""]));
    input.extend(encode(&["NOSUCH"]));
    input.extend(b"PING\r\n");
    let mut output = b"+OK\r\n$10\r\n\r\n$5\r\n*1\r\n\r\n".to_vec();
    output.extend(b"$5\r\na A\r\n\r\n$4\r\nit's\r\n:2\r\n");
    output.extend(b"-ERR unknown command 'NOSUCH', with args beginning with: \r\n+PONG\r\n");
    (input, output)
}

fn read_exactly(client: &Client, length: usize) -> Vec<u8> {
    let mut bytes = vec![0; length];
    let read = client.socket().read_exact(&mut bytes);
    read.expect("the server answers");
    bytes
}

#[test]
fn a_command_may_be_cut_in_two_at_any_byte() {
    let server = Server::start(&[]);
    let (input, output) = a_stream();
    // All first parts are sent before any second part, so the server has seen most of them alone.
    let clients: Vec<Client> = (0..=input.len()).map(|_| server.client()).collect();
    for (cut, client) in clients.iter().enumerate() {
        client.socket().write_all(&input[..cut]).unwrap();
    }
    for (cut, client) in clients.iter().enumerate() {
        // HSET answers 2 only once.
        server.client().run("DEL h");
        client.socket().write_all(&input[cut..]).unwrap();
        let answer = read_exactly(client, output.len());
        let expected = output.escape_ascii().to_string();
        // Whether the part before the cut has made the hash already does not matter here.
        let answer = answer.escape_ascii().to_string();
        assert_eq!(answer.replace(":0", ":2"), expected, "cut at {cut}");
    }
}

#[test]
fn a_command_may_come_byte_by_byte() {
    let server = Server::start(&[]);
    let (input, output) = a_stream();
    let client = server.client();
    for byte in &input {
        client.socket().write_all(&[*byte]).unwrap();
    }
    assert_eq!(read_exactly(&client, output.len()), output);
}

#[test]
fn a_pipeline_is_answered_in_order_whatever_fails_in_it() {
    let server = Server::start(&[]);
    let mut client = server.client();
    let mut pipeline = Vec::new();
    for n in 0..10_000 {
        pipeline.extend(encode(&["ECHO", &n.to_string()]));
        pipeline.extend(encode(&["HGET", "too few"]));
    }
    client.raw(&pipeline);
    for n in 0..10_000 {
        assert_eq!(client.read(), Value::bulk(n.to_string()));
        assert!(matches!(client.read(), Value::Error(_)));
    }
}

/// Of a command that is like the one before it, the row is not looked up again.
#[test]
fn a_command_that_follows_one_of_the_same_name_is_itself() {
    let server = Server::start(&[]);
    let mut client = server.client();
    let commands: [&[&str]; 7] = [
        &["COMMAND"],
        &["COMMAND", "COUNT"],
        &["CONFIG", "GET", "port"],
        &["CONFIG|GET", "port"],
        &["GET", "k"],
        &["GET", "k", "v"],
        &["get", "k"],
    ];
    client.raw(&commands.map(encode).concat());
    let answers = commands.map(|_| client.read());
    assert!(matches!(&answers[0], Value::Array(rows) if rows.len() > 50));
    assert!(matches!(answers[1], Value::Integer(50..)));
    assert!(matches!(&answers[2], Value::Array(pair) if pair.len() == 2));
    let unknown = "(error) ERR unknown command 'CONFIG|GET', with args beginning with: 'port' ";
    assert_eq!(answers[3].to_string(), unknown);
    assert_eq!(answers[4].to_string(), "(nil)");
    let arity = "(error) ERR wrong number of arguments for 'get' command";
    assert_eq!(answers[5].to_string(), arity);
    assert_eq!(answers[6].to_string(), "(nil)");
}

#[test]
fn keys_and_values_may_hold_any_byte() {
    let server = Server::start(&[]);
    let mut client = server.client();
    let every: Vec<u8> = (0..=255).collect();
    client.call(&[b"SET", &every[..], &every[..]]);
    assert_eq!(client.call(&[b"GET", &every[..]]), Value::bulk(&every));
    client.call(&[b"HSET", &b"\r\n"[..], &every[..], b"\0"]);
    let got = client.call(&[b"HGETALL", &b"\r\n"[..]]);
    assert_eq!(got, Value::Array(vec![Value::bulk(&every), Value::bulk("\0")]));
    client.call(&["SET", "", ""]);
    assert_eq!(client.call(&["GET", ""]), Value::bulk(""));
}

#[test]
fn what_is_quoted_in_an_answer_cannot_break_it() {
    let server = Server::start(&[]);
    let mut client = server.client();
    let sly = "a\r\n+OK\r\n$-1\r\n";
    assert_eq!(client.call(&["PING", sly]), Value::bulk(sly));
    assert_eq!(client.call(&["ECHO", sly]), Value::bulk(sly));
    for words in [&[sly][..], &["x", sly], &["CONFIG", sly], &["SET", "k", "v", sly]] {
        let Value::Error(text) = client.call(words) else {
            panic!("{words:?} is no command");
        };
        assert!(!text.contains(&b'\n'), "{}", text.escape_ascii());
    }
    assert_eq!(client.run("PING"), "PONG");
}

#[test]
fn what_is_no_command_is_passed_over_in_silence() {
    let server = Server::start(&[]);
    let mut client = server.client();
    client.raw(b"\r\n\n   \r\n*0\r\n*-1\r\n*-9\r\nPING\r\n");
    assert_eq!(client.read(), Value::Simple(b"PONG".into()));
    // Two bytes behind a word end it, whatever they are; Redis does not look at them either.
    client.raw(b"*1\r\n$4\r\nPINGxx*1\r\n$4\r\nPING\r\n");
    assert_eq!(client.run("PING"), "PONG");
}

#[test]
fn every_protocol_error_is_told_and_then_the_connection_ends() {
    let server = Server::start(&[]);
    let ones = "1".repeat(70_000);
    let cases: [(&str, &str); 18] = [
        ("*1\r\n$-1\r\n", "invalid bulk length"),
        ("*1\r\n$x\r\n", "invalid bulk length"),
        ("*1\r\n$04\r\nPING\r\n", "invalid bulk length"),
        ("*1\r\n$536870913\r\n", "invalid bulk length"),
        ("*1\r\n$99999999999999999999\r\n", "invalid bulk length"),
        ("*x\r\n", "invalid multibulk length"),
        ("*+1\r\n", "invalid multibulk length"),
        ("*2147483648\r\n", "invalid multibulk length"),
        ("*1\r\n:4\r\n", "expected '$', got ':'"),
        ("*1\r\nPING\r\n", "expected '$', got 'P'"),
        ("*1\r\n\r\n", "expected '$', got ' '"),
        ("GET \"k\r\n", "unbalanced quotes in request"),
        ("GET 'k\r\n", "unbalanced quotes in request"),
        ("GET \"k\"x\r\n", "unbalanced quotes in request"),
        (&ones, "too big inline request"),
        (&format!("*{ones}"), "too big mbulk count string"),
        (&format!("*1\r\n${ones}"), "too big bulk count string"),
        ("PING\r\n*1\r\n$-5\r\n", "invalid bulk length"),
    ];
    for (input, text) in cases {
        let mut client = server.client();
        client.raw(input.as_bytes());
        // What follows is never read as commands, and must not keep the error from arriving.
        let _ = client.try_raw(&encode(&["SET", "after", "the error"]).repeat(10_000));
        if input.starts_with("PING") {
            assert_eq!(client.read(), Value::Simple(b"PONG".into()));
        }
        let expected = format!("ERR Protocol error: {text}");
        let answer = client.read();
        assert_eq!(answer, Value::Error(expected.into()), "{:.40}", input);
        assert!(client.is_closed(), "{input:.40}");
    }
    assert_eq!(server.client().run("EXISTS after"), "(integer) 0");
}

#[test]
fn a_subscriber_is_told_its_protocol_error_too() {
    let server = Server::start(&[]);
    let mut client = server.client();
    client.run("SUBSCRIBE c");
    client.raw(b"*1\r\n$-5\r\n");
    let _ = client.try_raw(&encode(&["PING"]).repeat(10_000));
    let answer = client.read().to_string();
    assert_eq!(answer, "(error) ERR Protocol error: invalid bulk length");
    assert!(client.is_closed());
}

#[test]
fn a_line_may_have_64_kibibytes_and_no_more() {
    let server = Server::start(&[]);
    let mut client = server.client();
    let long = "x".repeat(64 * 1024 - 10);
    client.raw(format!("ECHO {long}\r\n").as_bytes());
    assert_eq!(client.read(), Value::bulk(&long));
    client.raw(format!("ECHO {long}{long}\r\n").as_bytes());
    let answer = client.read().to_string();
    assert_eq!(answer, "(error) ERR Protocol error: too big inline request");
}

#[test]
fn a_stranger_may_say_little_before_the_password() {
    let server = Server::start(&["--requirepass", "sesame"]);
    let error = |input: &[u8]| {
        let mut client = server.client();
        client.raw(input);
        let answer = client.read().to_string();
        assert!(client.is_closed());
        answer
    };
    let refused = "(error) ERR Protocol error: unauthenticated";
    let text = format!("{refused} multibulk length");
    assert_eq!(error(b"*11\r\n"), text);
    // Nor may he if all of it comes at once.
    assert_eq!(error(&encode(&["AUTH"; 11])), text);
    let text = format!("{refused} bulk length");
    assert_eq!(error(b"*1\r\n$16385\r\n"), text);
    let mut client = server.client();
    let password = client.call(&["AUTH", &"x".repeat(16_000)]);
    assert!(password.to_string().contains("WRONGPASS"));
    assert_eq!(client.run("AUTH sesame"), "OK");
    let long = "x".repeat(16_385);
    assert_eq!(client.call(&["ECHO", &long]), Value::bulk(&long));
    client.send(&["DEL"; 12]);
    assert_eq!(client.read(), Value::Integer(0));
}

#[test]
fn a_browser_is_cut_off() {
    let server = Server::start(&[]);
    for first in ["POST / HTTP/1.1", "Host: localhost:6379", "post x", "host: x"] {
        let mut client = server.client();
        client.raw(format!("{first}\r\nSET k v\r\n").as_bytes());
        assert!(client.is_closed(), "{first}");
    }
    assert_eq!(server.client().run("EXISTS k"), "(integer) 0");
}

#[test]
fn a_length_that_is_announced_is_not_allocated() {
    let server = Server::start(&[]);
    let mut watcher = server.client();
    watcher.run("PING");
    let (most, asked) = (memory(server.pid(), "VmHWM"), memory(server.pid(), "VmPeak"));
    let clients: Vec<Client> = (0..20).map(|_| server.client()).collect();
    for client in &clients {
        let mut socket = client.socket();
        socket.write_all(b"*3\r\n$3\r\nSET\r\n$1\r\nk\r\n$536870912\r\nand a few bytes").unwrap();
        // Its thread can see the end only behind the header.
        socket.shutdown(Shutdown::Write).unwrap();
    }
    watcher.wait_until_alone();
    let megabyte = 1024 * 1024;
    let grown = memory(server.pid(), "VmHWM") - most;
    assert!(grown < 8 * megabyte, "resident memory grew by {grown}");
    // Besides stacks and arenas, a megabyte for each of the clients, untouched.
    let grown = memory(server.pid(), "VmPeak") - asked;
    assert!(grown < 3 * 512 * megabyte, "virtual memory grew by {grown}");
}

#[test]
fn a_huge_count_of_words_is_not_allocated() {
    let server = Server::start(&[]);
    let before = memory(server.pid(), "VmHWM");
    let mut client = server.client();
    client.raw(b"*2147483647\r\n$4\r\nMGET\r\n");
    client.socket().shutdown(Shutdown::Write).unwrap();
    assert!(client.is_closed());
    let grown = memory(server.pid(), "VmHWM") - before;
    assert!(grown < 4 * 1024 * 1024, "memory grew by {grown}");
}

#[test]
fn half_a_command_holds_no_lock_and_delays_no_reply() {
    let server = Server::start(&[]);
    let mut halting = server.client();
    let command = encode(&["SET", "k", "from the halting client"]);
    let (first, second) = command.split_at(command.len() - 9);
    halting.raw(&[&encode(&["INCR", "n"])[..], &encode(&["GET", "n"]), first].concat());
    assert_eq!(halting.read(), Value::Integer(1));
    assert_eq!(halting.read(), Value::bulk("1"));
    let mut other = server.client();
    assert_eq!(other.run("SET k other"), "OK");
    assert_eq!(other.run("GET k"), r#""other""#);
    halting.raw(second);
    assert_eq!(halting.read(), Value::Simple(b"OK".into()));
    assert_eq!(other.run("GET k"), r#""from the halting client""#);
}

#[test]
fn the_replies_before_a_wait_do_not_wait() {
    let server = Server::start(&[]);
    let mut client = server.client();
    client.raw(b"SET k v\r\nWAIT 1 0\r\nGET k\r\n");
    assert_eq!(client.read(), Value::Simple(b"OK".into()));
    // It waits for a replica, for ever. A client that leaves ends that too.
    client.socket().shutdown(Shutdown::Both).unwrap();
    let mut watcher = server.client();
    watcher.wait_until_alone();
}

#[test]
fn client_reply_off_silences_answers_but_not_messages() {
    let server = Server::start(&[]);
    let mut client = server.client();
    client.raw(b"CLIENT REPLY SKIP\r\nWAIT 1 10\r\nCLIENT REPLY OFF\r\nWAIT 1 10\r\nGET k\r\n");
    client.raw(b"SUBSCRIBE c\r\nUNSUBSCRIBE c\r\nPING\r\nCLIENT REPLY ON\r\n");
    assert!(client.read().to_string().starts_with("1) \"subscribe\""));
    assert!(client.read().to_string().starts_with("1) \"unsubscribe\""));
    assert_eq!(client.read(), Value::Simple(b"OK".into()));
}

/// Changes, inserts, removes or doubles some bytes.
fn mutate(stream: &[u8], random: &mut Random) -> Vec<u8> {
    let telling = b"*$:-+\r\n\0 \"'\\x0129\xff";
    let mut bytes = stream.to_vec();
    for _ in 0..1 + random.below(4) {
        let at = random.below(bytes.len());
        let byte = telling[random.below(telling.len())];
        match random.below(5) {
            0 => bytes[at] = byte,
            1 => bytes[at] ^= 1 << random.below(8),
            2 => bytes.insert(at, byte),
            3 => bytes.truncate(at.max(1)),
            _ => {
                let end = (at + random.below(20)).min(bytes.len());
                let part = bytes[at..end].to_vec();
                bytes.splice(at..at, part);
            }
        }
    }
    bytes
}

/// Sends the stream, says that no more will come, and reads until the server has closed.
fn send_and_drain(server: &Server, stream: &[u8]) {
    let client = server.client();
    let mut socket = client.socket();
    // It may have closed already: that is one right answer.
    let _ = socket.write_all(stream);
    let _ = socket.shutdown(Shutdown::Write);
    let mut sink = [0; 4096];
    loop {
        match socket.read(&mut sink) {
            Ok(0) => return,
            Ok(_) => {}
            Err(error) if error.kind() == std::io::ErrorKind::ConnectionReset => return,
            Err(error) => panic!("{error} behind {}", stream.escape_ascii()),
        }
    }
}

#[test]
fn the_server_survives_streams_with_changed_bytes() {
    let server = Server::start(&[]);
    let words: [&[&str]; 10] = [
        &["SET", "k", "v", "EX", "100", "GET"],
        &["HSET", "h", "f", "1", "g", "2"],
        &["HELLO", "3", "SETNAME", "x"],
        &["MULTI"],
        &["INCRBYFLOAT", "n", "1.5"],
        &["EXEC"],
        &["SUBSCRIBE", "c", "d"],
        &["SETRANGE", "k", "3", "abc"],
        &["SCAN", "0", "MATCH", "*[a-c]*", "COUNT", "10"],
        &["CLIENT", "LIST"],
    ];
    let mut stream: Vec<u8> = words.iter().flat_map(|words| encode(words)).collect();
    stream.extend(b"GET \"k\\x00\"\r\n\r\nPING 'a b'\r\n*-1\r\nHRANDFIELD h -3 WITHVALUES\r\n");
    std::thread::scope(|scope| {
        for seed in 1..=4 {
            let (server, stream) = (&server, &stream);
            scope.spawn(move || {
                let mut random = Random::new(seed);
                for _ in 0..1_000 {
                    send_and_drain(server, &mutate(stream, &mut random));
                }
            });
        }
    });
    assert_eq!(server.client().run("PING"), "PONG");
    let mut watcher = server.client();
    watcher.wait_until_alone();
    assert!(memory(server.pid(), "VmRSS") < 64 * 1024 * 1024);
}

#[test]
fn a_large_value_comes_back_from_many_small_packets() {
    let server = Server::start(&[]);
    let mut client = server.client();
    let value: Vec<u8> = (0..3_000_000u32).map(|n| (n * 7 % 251) as u8).collect();
    for part in encode(&[b"SET", &b"k"[..], &value]).chunks(1_009) {
        client.raw(part);
    }
    assert_eq!(client.read(), Value::Simple(b"OK".into()));
    assert_eq!(client.call(&["GET", "k"]), Value::Bulk(value));
    assert_eq!(client.run("PING"), "PONG", "one reply for each command");
}
