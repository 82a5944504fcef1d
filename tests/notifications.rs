//! Keyspace notifications beyond what a transcript can show: their order among many clients, when they are
//! sent, what a great many of them cost.

mod support;

use std::fs;
use std::thread;
use support::process::memory;
use support::random::Random;
use support::transcript::{self, Action, Transcript};
use support::{Client, Server, Value, encode, log_files};

const MB: u64 = 1024 * 1024;

/// A client that hears of all events.
fn listener(server: &Server) -> Client {
    let mut client = server.client();
    client.run("PSUBSCRIBE __keyevent@*");
    client
}

/// The event and the key of the next message.
fn hear(client: &mut Client) -> (String, String) {
    let message = client.read();
    let items = message.items();
    let text = |at: usize| String::from_utf8_lossy(items[at].text()).into_owned();
    (text(2).split_once("__:").expect("a channel of events").1.to_string(), text(3))
}

#[test]
fn messages_have_the_order_of_the_changes_whoever_makes_them() {
    // Each changes something, and is logged as it is sent.
    const CHANGES: [(&str, &str); 6] = [
        ("LPUSH l e", "lpush"),
        ("RPUSH l e", "rpush"),
        ("SET s v", "set"),
        ("APPEND s v", "append"),
        ("HSET h f v", "hset"),
        ("INCR n", "incrby"),
    ];
    const WRITERS: usize = 8;
    const EACH: usize = 1_500;
    let server = Server::start(&["--notify-keyspace-events", "EA"]);
    let (mut first, mut second) = (listener(&server), listener(&server));
    thread::scope(|scope| {
        for writer in 0..WRITERS {
            let mut client = server.client();
            scope.spawn(move || {
                let mut random = Random::new(writer as u64);
                let mut left = EACH;
                while left > 0 {
                    let batch = (1 + random.below(9)).min(left);
                    let words = || CHANGES[random.below(CHANGES.len())].0.split(' ').collect();
                    let commands: Vec<Vec<&str>> =
                        std::iter::repeat_with(words).take(batch).collect();
                    let bytes: Vec<u8> = commands.iter().flat_map(|words| encode(words)).collect();
                    client.raw(&bytes);
                    (0..batch).for_each(|_| assert!(!client.read().is_error()));
                    left -= batch;
                }
            });
        }
    });
    server.settle();
    let log = server.log();
    let mut count = 0;
    for record in &log {
        let word = |at: usize| String::from_utf8_lossy(&record[at]).into_owned();
        let (name, _) = (word(0), ());
        let Some((_, event)) =
            CHANGES.iter().find(|(line, _)| line.split(' ').next() == Some(&name))
        else {
            continue;
        };
        let expected = (event.to_string(), word(1));
        assert_eq!(hear(&mut first), expected, "message {count}");
        assert_eq!(hear(&mut second), expected, "message {count}");
        count += 1;
    }
    assert_eq!(count, WRITERS * EACH);
}

#[test]
fn an_event_is_heard_when_the_log_holds_it_and_before_its_command_is_answered() {
    let server = Server::start(&["--notify-keyspace-events", "EA"]);
    let (mut client, mut listener) = (server.client(), listener(&server));
    for number in 0..200 {
        let key = format!("key-{number}-");
        client.send(&["SET", &key, "v"]);
        assert_eq!(hear(&mut listener), ("set".to_string(), key.clone()));
        let files = log_files(server.dir()).unwrap();
        let log = fs::read(files.last().unwrap()).unwrap();
        assert!(log.windows(key.len()).any(|bytes| bytes == key.as_bytes()), "{key}");
        assert_eq!(client.read().to_string(), "OK");
    }
}

/// The second message is left to the courier, because the round of the first one has taken a while.
#[test]
fn a_message_that_was_published_before_a_shutdown_is_sent() {
    let server = Server::start(&[]);
    let mut crowd: Vec<Client> = (0..100).map(|_| server.client()).collect();
    crowd.iter_mut().for_each(|client| _ = client.run("SUBSCRIBE c"));
    let mut publisher = server.client();
    publisher.run("PUBLISH c first");
    publisher.raw(b"PUBLISH c second\r\nSHUTDOWN NOSAVE\r\n");
    for client in &mut crowd {
        assert_eq!(client.read().items()[2].text(), b"first");
        assert_eq!(client.read().items()[2].text(), b"second");
    }
}

#[test]
fn a_command_with_very_many_events_holds_little_more_than_its_keys() {
    const KEYS: usize = 300_000;
    let limit = ["--client-output-buffer-limit", "pubsub 1mb 0 0"];
    let flags = [&["--appendonly", "no", "--notify-keyspace-events", "KEA"], &limit[..]].concat();
    let server = Server::start(&flags);
    let mut client = server.client();
    let keys: Vec<String> = (0..KEYS).map(|number| format!("key:{number:08}")).collect();
    let pairs = keys.iter().flat_map(|key| [key.as_str(), "v"]);
    let command: Vec<&str> = ["MSET"].into_iter().chain(pairs).collect();
    // Once without a subscriber: what the command itself needs.
    client.call(&command);
    client.call(&command);
    let before = memory(server.pid(), "VmHWM");
    let mut deaf: Vec<Client> = (0..40).map(|_| server.client()).collect();
    deaf.iter_mut().for_each(|client| drop(client.run("PSUBSCRIBE __key*")));
    assert_eq!(client.call(&command).to_string(), "OK");
    let grown = memory(server.pid(), "VmHWM") - before;
    // 48 bytes for each, and what 40 subscribers may leave unread.
    assert!(grown < 80 * MB, "{} MB", grown / MB);
}

/// Whoever adds a command that changes a key is asked what it tells.
#[test]
fn every_command_that_writes_stands_in_a_transcript_of_what_it_tells() {
    // They tell nothing, as in Redis, because they are about whole databases.
    const SILENT: [&str; 3] = ["flushall", "flushdb", "swapdb"];
    let mut shown: Vec<String> = SILENT.map(str::to_string).to_vec();
    let transcripts = transcript::all();
    let transcripts = transcripts.iter().map(|name| Transcript::read(name));
    let option = "--notify-keyspace-events";
    for transcript in transcripts.filter(|one| one.flags.iter().any(|flag| flag == option)) {
        let mut before = Vec::new();
        for step in transcript.steps {
            match step.action {
                Action::Command { words, .. } => {
                    before.push(String::from_utf8_lossy(&words[0]).to_lowercase());
                }
                Action::Heard(_) | Action::Push(_) => shown.append(&mut before),
                _ => {}
            }
        }
    }
    let server = Server::start(&[]);
    let mut missing = Vec::new();
    for row in server.client().call(&["COMMAND"]).items() {
        let items = row.items();
        let writes = items[2].items().iter().any(|flag| flag.text() == b"write");
        let name = String::from_utf8_lossy(items[0].text()).into_owned();
        if writes && !shown.contains(&name) {
            missing.push(name);
        }
    }
    assert!(
        missing.is_empty(),
        "no transcript shows what is told of these: {missing:?}. Show it in theirs, with `!flags {option} EA`, \
         a client that says PSUBSCRIBE __keyevent@*, and `!heard` behind the command"
    );
}

#[test]
fn a_subscriber_that_is_gone_or_new_hears_only_what_happens_while_it_listens() {
    let server = Server::start(&["--notify-keyspace-events", "EA"]);
    let (mut client, mut reader) = (server.client(), server.client());
    for number in 0..200 {
        client.run(&format!("SET before-{number} v"));
        reader.run("SUBSCRIBE __keyevent@0__:set");
        client.run(&format!("SET while-{number} v"));
        reader.send(&["UNSUBSCRIBE"]);
        let Value::Array(message) = reader.read() else { panic!("no message") };
        assert_eq!(message[2].text(), format!("while-{number}").as_bytes());
        assert_eq!(reader.read().items()[0].text(), b"unsubscribe");
        client.run(&format!("SET behind-{number} v"));
    }
}
