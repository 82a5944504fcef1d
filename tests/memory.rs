//! Memory that nobody needs any more goes back to the system, and `used_memory` says what is needed.
//!
//! The figures come from `/proc`, so these tests need Linux.

mod support;

use std::path::Path;
use support::process::{eventually, memory};
use support::random::Random;
use support::{Client, Server, Value, encode};

/// Resident memory, in bytes, or None with a word about it.
fn resident(server: &Server) -> Option<u64> {
    if !Path::new("/proc/self/status").exists() {
        eprintln!("skipped: there is no /proc");
        return None;
    }
    Some(memory(server.pid(), "VmRSS"))
}

/// What INFO says is used, in bytes.
fn used(client: &mut Client) -> u64 {
    let info = client.run("INFO memory");
    let (_, behind) = info.split_once("used_memory:").expect("a field");
    let digits = behind.split(|c: char| !c.is_ascii_digit()).next();
    digits
        .and_then(|digits| digits.parse().ok())
        .expect("a number")
}

/// Sends commands in pipelines, through each client in turn, and reads what they answer.
fn run(clients: &mut [Client], commands: impl Iterator<Item = Vec<u8>>) {
    let commands: Vec<Vec<u8>> = commands.collect();
    for (i, some) in commands.chunks(50).enumerate() {
        let client = i % clients.len();
        clients[client].raw(&some.concat());
        for _ in some {
            let reply = clients[client].read();
            assert!(!matches!(reply, Value::Error(_)), "{reply}");
        }
    }
}

/// Sixteen bytes to 64 KiB, each magnitude as often as any other: eight thousand on average.
fn mixed_size(random: &mut Random) -> usize {
    let magnitude = 16 << random.below(12);
    magnitude + random.below(magnitude)
}

const KEYS: usize = 6_000;

/// A server with some 45 MB in values of mixed sizes, and eight clients that stay.
fn filled(random: &mut Random) -> (Server, Vec<Client>) {
    let server = Server::start(&["--appendonly", "no"]);
    let mut clients: Vec<Client> = (0..8).map(|_| server.client()).collect();
    let sets = (0..KEYS).map(|key| {
        let value = vec![b'v'; mixed_size(random)];
        encode(&[b"SET", format!("key:{key}").as_bytes(), &value])
    });
    run(&mut clients, sets);
    (server, clients)
}

#[test]
fn flushall_gives_memory_back() {
    let (server, mut clients) = filled(&mut Random::new(1));
    let Some(full) = resident(&server) else {
        return;
    };
    let was_used = used(&mut clients[0]);
    assert!(
        was_used > 40_000_000 && was_used < full,
        "{was_used} {full}"
    );
    clients[0].run("FLUSHALL");
    assert!(used(&mut clients[0]) < 1_000_000);
    eventually("the memory is given back", || {
        resident(&server).is_some_and(|now| now < full / 2)
    });
}

#[test]
fn nine_of_ten_keys_of_mixed_sizes_give_their_memory_back() {
    let mut random = Random::new(2);
    let (server, mut clients) = filled(&mut random);
    let Some(full) = resident(&server) else {
        return;
    };
    let was_used = used(&mut clients[0]);
    let goes = |key: &usize| key % 10 != 3;
    let dels = (0..KEYS).filter(goes);
    run(
        &mut clients,
        dels.map(|key| encode(&["DEL", &format!("key:{key}")])),
    );
    let rest = used(&mut clients[0]);
    assert!(
        (was_used / 20..was_used / 5).contains(&rest),
        "{rest} of {was_used}"
    );
    // Nobody writes any more: what the deletions have begun is finished all the same.
    eventually("the memory is given back", || {
        resident(&server).is_some_and(|now| now < full / 2)
    });
    for key in (0..KEYS).filter(|key| !goes(key)) {
        let value = clients[0].call(&["GET", &format!("key:{key}")]);
        assert!(matches!(value, Value::Bulk(bytes) if bytes.iter().all(|byte| *byte == b'v')));
    }
}

#[test]
fn keys_that_come_and_go_in_all_sizes_do_not_make_the_process_grow() {
    let mut random = Random::new(3);
    let server = Server::start(&["--appendonly", "no"]);
    let mut most_used = 0;
    for _ in 0..12 {
        // Others each time: what a thread leaves behind must be used again by the next.
        let mut clients: Vec<Client> = (0..6).map(|_| server.client()).collect();
        let commands = (0..4_000).map(|_| {
            let key = format!("key:{}", random.below(1_000));
            let value = vec![b'v'; mixed_size(&mut random)];
            let short = &value[..value.len().min(300)];
            match random.below(20) {
                0..9 => encode(&[b"SET", key.as_bytes(), &value]),
                9..14 => encode(&["DEL", &key, &format!("s:{key}")]),
                14..17 => encode(&[b"APPEND", format!("s:{key}").as_bytes(), short]),
                _ => {
                    let (hash, field) = (random.below(20), random.below(200));
                    let (hash, field) = (format!("h:{hash}"), format!("f:{field}"));
                    encode(&[b"HSET", hash.as_bytes(), field.as_bytes(), short])
                }
            }
        });
        run(&mut clients, commands);
        most_used = used(&mut clients[0]).max(most_used);
    }
    let Some(now) = resident(&server) else {
        return;
    };
    assert!(
        now < 2 * most_used + 16_000_000,
        "{now}, used were {most_used}"
    );
}
