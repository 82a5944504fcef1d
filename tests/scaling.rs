//! Ten times the words take ten times the work, and not a hundred times.
//!
//! A loop inside a loop over what a client has sent shows in no transcript. So each command here is
//! given the same words twice: in ten pieces, and in one. Both take the same processor time of the
//! server where its work follows the number of words; where it follows the square, one piece takes ten
//! times as much. Processor time is what a loaded machine leaves alone (Linux: `/proc`).

mod support;

use std::time::Duration;
use support::process::cpu;
use support::{Client, Server, encode};

/// Words of a command in one piece.
const MANY: usize = 60_000;

/// Commands, each with its words, to be sent one behind the other.
type Commands = Vec<Vec<String>>;

/// `name`, whatever stands between, and `count` words made of their numbers.
fn command(head: &[&str], count: usize, word: impl Fn(usize) -> Vec<String>) -> Vec<String> {
    let head = head.iter().map(|word| word.to_string());
    head.chain((0..count).flat_map(word)).collect()
}

fn words(line: &str) -> Vec<String> {
    line.split(' ').map(String::from).collect()
}

/// The processor time that the server takes for the commands, `times` times over.
fn takes(server: &Server, client: &mut Client, commands: &Commands, times: usize) -> Duration {
    let mut bytes: Vec<u8> = commands.iter().flat_map(|words| encode(words)).collect();
    bytes.extend(encode(&["ECHO", "end"]));
    let before = cpu(server.pid());
    for _ in 0..times {
        client.raw(&bytes);
        // Confirmations come one by one, and behind all of them the echo.
        while client.read().to_string() != r#""end""# {}
    }
    cpu(server.pid()) - before
}

/// Fails if one command of [`MANY`] words takes much longer than ten with a tenth of them.
fn takes_no_more_in_one_piece(what: &str, flags: &[&str], commands: impl Fn(usize) -> Commands) {
    let server = Server::start(&[flags, &["--appendonly", "no"]].concat());
    let mut client = server.client();
    client.run("HELLO 3");
    let pieces = takes(&server, &mut client, &commands(MANY / 10), 10);
    let whole = takes(&server, &mut client, &commands(MANY), 1);
    assert!(
        whole < 3 * pieces + Duration::from_millis(300),
        "{what}: {whole:?} in one piece, {pieces:?} in ten"
    );
}

fn key(i: usize) -> Vec<String> {
    vec![format!("key:{i}")]
}

#[test]
fn watching_ten_times_the_keys_takes_ten_times_as_long() {
    takes_no_more_in_one_piece("WATCH and UNWATCH", &[], |count| {
        vec![command(&["WATCH"], count, key), words("UNWATCH")]
    });
    takes_no_more_in_one_piece("WATCH and EXEC", &[], |count| {
        let transaction = ["MULTI", "PING", "EXEC"].map(words);
        [vec![command(&["WATCH"], count, key)], transaction.to_vec()].concat()
    });
}

/// With the same number of keys in all, it does not matter how many others watch each of them.
#[test]
fn who_ends_a_watch_does_not_look_at_all_who_watch_the_same_key() {
    let server = Server::start(&["--appendonly", "no"]);
    let time_of = |clients: usize, keys: usize| {
        let mut clients: Vec<Client> = (0..clients).map(|_| server.client()).collect();
        let before = cpu(server.pid());
        for line in [command(&["WATCH"], keys, key), words("UNWATCH")] {
            for client in &mut clients {
                assert_eq!(client.call(&line).to_string(), "OK");
            }
        }
        cpu(server.pid()) - before
    };
    let few = time_of(10, 60_000);
    let many = time_of(1_500, 400);
    assert!(
        many < 3 * few + Duration::from_millis(300),
        "{many:?} with 1,500 at each key, {few:?} with 10"
    );
}

/// Whatever takes many words is here, but what keeps a hash packed, whose fields are looked for one by
/// one: that is bounded by `hash-max-listpack-entries`.
#[test]
fn ten_times_the_words_take_ten_times_as_long() {
    let pair = |i: usize| vec![format!("name:{i}"), "value".to_string()];
    let same_pair = |i: usize| vec![format!("name:{}", i % 500), i.to_string()];
    let one = |word: &'static str| move |_: usize| vec![word.to_string()];
    for (head, tail) in [
        ("SUBSCRIBE", "UNSUBSCRIBE"),
        ("PSUBSCRIBE", "PUNSUBSCRIBE"),
        ("SUBSCRIBE", "PUBSUB CHANNELS"),
        ("DEL", "PING"),
        ("EXISTS", "PING"),
        ("HDEL hash", "PING"),
        ("HMGET hash", "PING"),
        ("PUBSUB NUMSUB", "PING"),
    ] {
        takes_no_more_in_one_piece(head, &[], |count| {
            let head: Vec<&str> = head.split(' ').collect();
            vec![command(&head, count, key), words(tail)]
        });
    }
    takes_no_more_in_one_piece("MSET and DEL", &[], |count| {
        vec![
            command(&["MSET"], count, pair),
            command(&["DEL"], count, |i| vec![format!("name:{i}")]),
        ]
    });
    takes_no_more_in_one_piece("HSET and HDEL", &[], |count| {
        let names = command(&["HDEL", "hash"], count, |i| vec![format!("name:{i}")]);
        vec![command(&["HSET", "hash"], count, pair), names]
    });
    takes_no_more_in_one_piece("HSET of the same fields", &[], |count| {
        vec![command(&["HSET", "packed"], count, same_pair)]
    });
    takes_no_more_in_one_piece("CONFIG GET", &[], |count| {
        // A tenth of the patterns, for each is compared with each option.
        vec![command(&["CONFIG", "GET"], count / 10, one("*"))]
    });
    takes_no_more_in_one_piece("COMMAND INFO", &[], |count| {
        vec![command(&["COMMAND", "INFO"], count / 10, one("get"))]
    });
    takes_no_more_in_one_piece("CLIENT LIST", &[], |count| {
        vec![command(&["CLIENT", "LIST", "ID"], count / 10, one("1"))]
    });
}

/// DBSIZE leaves out what the same EXEC has found expired.
#[test]
fn to_count_keys_does_not_mean_to_look_at_all_that_were_found_expired() {
    takes_no_more_in_one_piece("DBSIZE", &["--enable-debug-command", "yes"], |count| {
        let old = |i: usize| vec![format!("old:{i}")];
        let mut commands = vec![words("DEBUG SET-ACTIVE-EXPIRE 0"), words("MULTI")];
        let psetex = |i| words(&format!("PSETEX old:{i} 1 v"));
        commands.extend((0..count).map(psetex));
        commands.extend([words("EXEC"), words("DEBUG SLEEP 0.01"), words("MULTI")]);
        commands.push(command(&["EXISTS"], count, old));
        commands.extend((0..count).map(|_| words("DBSIZE")));
        commands.push(words("EXEC"));
        commands
    });
}

/// To invert them, each byte is read and written.
#[test]
fn to_count_or_find_bits_takes_no_longer_than_to_invert_them() {
    let server = Server::start(&["--appendonly", "no"]);
    let mut client = server.client();
    client.run("SETBIT zeros 40000000 1");
    client.run("BITOP NOT ones zeros");
    let mut time_of = |line: &str| takes(&server, &mut client, &vec![words(line)], 4);
    let invert = time_of("BITOP NOT more zeros");
    for line in
        ["BITCOUNT ones", "BITCOUNT ones 1 -2 BIT", "BITPOS zeros 1", "BITPOS ones 0 3 -1 BIT"]
    {
        // What others do on the machine only adds to it.
        let time = (0..3).map(|_| time_of(line)).min().expect("three times");
        assert!(
            time < invert + Duration::from_millis(50),
            "{line}: {time:?}, {invert:?} to invert"
        );
    }
}

/// To copy a sorted set by ZUNIONSTORE, each member is put into a new one. (COPY shares it.) What most members leave is made
/// in the same way.
#[test]
fn to_remove_nearly_all_members_takes_much_less_than_to_copy_them() {
    let server = Server::start(&["--appendonly", "no"]);
    let mut client = server.client();
    let pair = |i: usize| vec![(i * 7919 % MANY).to_string(), format!("member:{i}")];
    client.call(&command(&["ZADD", "z"], MANY, pair));
    let copy = takes(&server, &mut client, &vec![words("ZUNIONSTORE copy 1 z")], 1);
    for line in
        ["ZREMRANGEBYRANK copy 100 -100", "ZREMRANGEBYSCORE again (100 +inf", "ZPOPMAX once 59900"]
    {
        let key = words(line).swap_remove(1);
        client.run(&format!("ZUNIONSTORE {key} 1 z"));
        let time = takes(&server, &mut client, &vec![words(line)], 1);
        assert!(time < copy / 2 + Duration::from_millis(30), "{line}: {time:?}, {copy:?} to copy");
    }
}
