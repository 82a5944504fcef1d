//! Memory that nobody needs any more goes back to the system, and `used_memory` says what is needed.
//!
//! The figures come from `/proc`, so these tests need Linux.

mod support;

use std::io::Write;
use std::path::Path;
use support::process::memory;
use support::random::Random;
use support::state::{KINDS, Kind};
use support::{Client, Directory, Program, Server, Value, encode, eventually};

/// Resident memory, in bytes, or None with a word about it.
fn resident(server: &Server) -> Option<u64> {
    if !Path::new("/proc/self/status").exists() {
        let _ = writeln!(std::io::stderr(), "skipped: there is no /proc");
        return None;
    }
    Some(memory(server.pid(), "VmRSS"))
}

/// What INFO says is used, in bytes.
fn used(client: &mut Client) -> u64 {
    info(client, "used_memory:")
}

/// The number behind this name in INFO.
fn info(client: &mut Client, name: &str) -> u64 {
    let info = client.run("INFO memory");
    let (_, behind) = info.split_once(name).expect("a field");
    let digits = behind.split(|c: char| !c.is_ascii_digit()).next();
    digits.and_then(|digits| digits.parse().ok()).expect("a number")
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
    clients[0].run("FLUSHALL");
    eventually("the memory is given back", || resident(&server).is_some_and(|now| now < full / 2));
}

/// glibc gives back what lies above the last chunk that somebody keeps. (With another allocator it may be different.)
#[test]
fn flushall_gives_back_the_places_of_small_keys_too() {
    let server = Server::start(&["--appendonly", "no"]);
    let Some(empty) = resident(&server) else {
        return;
    };
    let sets = (0..200_000).map(|key| encode(&[b"SET", format!("key:{key}").as_bytes(), b"value"]));
    run(&mut [server.client()], sets);
    server.client().run("FLUSHALL");
    // The places alone take eight megabytes.
    let is_given_back = || resident(&server).is_some_and(|now| now < empty + 4_000_000);
    eventually("the memory is given back", is_given_back);
}

#[test]
fn used_memory_falls_at_once_when_keys_go() {
    let (server, mut clients) = filled(&mut Random::new(1));
    let Some(full) = resident(&server) else {
        return;
    };
    let was_used = used(&mut clients[0]);
    assert!(was_used > 40_000_000 && was_used < full, "{was_used} {full}");
    let half = (0..KEYS / 2).map(|key| encode(&["UNLINK", &format!("key:{key}")]));
    run(&mut clients, half);
    let rest = used(&mut clients[0]);
    assert!((was_used / 3..was_used / 3 * 2).contains(&rest), "{rest} of {was_used}");
    clients[0].run("FLUSHALL");
    assert!(used(&mut clients[0]) - info(&mut clients[0], "used_memory_startup:") < 200_000);
}

#[test]
fn info_says_what_lazyfree_has_freed_and_what_waits_for_it() {
    let server = Server::start(&[]);
    let mut clients = [server.client()];
    let elements = (0..10_000).map(|i| encode(&["RPUSH", "l", &format!("{i:040}")]));
    run(&mut clients, elements.chain([encode(&["SET", "s", "small"])]));
    let [client] = &mut clients;
    assert_eq!(info(client, "lazyfreed_objects:"), 0);
    assert_eq!(client.run("UNLINK l s"), "(integer) 2");
    eventually("the list is freed", || info(client, "lazyfree_pending_objects:") == 0);
    assert_eq!(info(client, "lazyfreed_objects:"), 1, "the string was freed at once");
    client.run("CONFIG RESETSTAT");
    assert_eq!(info(client, "lazyfreed_objects:"), 0);
}

#[test]
fn the_parts_of_used_memory_add_up_and_the_peak_stays() {
    let server = Server::start(&[]);
    let mut clients = [server.client()];
    let value = vec![b'v'; 1_000];
    let sets = (0..3_000).map(|key| encode(&[b"SET", format!("key:{key}").as_bytes(), &value]));
    run(&mut clients, sets);
    let [client] = &mut clients;
    let full = used(client);
    assert!(full > 3_000_000);
    client.run("FLUSHALL");
    client.run("EVAL 'return 1' 0");
    let mut field = |name: &str| info(client, &format!("\\n{name}:"));
    let overhead = [
        "used_memory_startup",
        "mem_clients_normal",
        "mem_aof_buffer",
        "used_memory_scripts",
        "used_memory_lua",
    ];
    let overhead = overhead.map(&mut field).iter().sum::<u64>();
    assert!(field("used_memory_lua") > 0 && field("used_memory_scripts") > 0);
    assert_eq!((field("used_memory_overhead"), field("used_memory_dataset")), (overhead, 0));
    assert_eq!(field("used_memory"), overhead);
    assert_eq!(field("mem_not_counted_for_evict"), field("mem_aof_buffer"));
    assert!(field("used_memory_peak") >= full);
    client.run("SCRIPT FLUSH");
    assert_eq!(info(client, "used_memory_lua:"), 0);
}

/// All ways in which the memory of keys changes. A letter is a key of one type, or of any (`a`), an element, a value, a
/// number, or a database. What makes memory stands first, then what frees it, and then what does both.
const GROW: &[&str] = &[
    "SET k v",
    "SET k long",
    "APPEND k long",
    "SET k v EX 1000",
    "APPEND k v",
    "SETRANGE k n v",
    "SETBIT k n 1",
    "INCR k",
    "RPUSH l v v e",
    "LPUSH l v",
    "RPUSH l e e e e e e",
    "LINSERT l BEFORE e v",
    "SADD t e e v",
    "SADD t n n n",
    "HSET h e v e v",
    "HSET h v e",
    "ZADD z n e n v",
    "ZINCRBY z n e",
    "COPY a a REPLACE",
    "SUNIONSTORE t t t",
    "ZUNIONSTORE z 2 z t",
];
const SHRINK: &[&str] = &[
    "DEL a a",
    "UNLINK a",
    "GETDEL k",
    "SET k n",
    "PEXPIRE a 30",
    "LPOP l 5",
    "RPOP l",
    "LTRIM l 0 n",
    "LREM l 0 e",
    "SREM t e e e",
    "SPOP t 3",
    "HDEL h e e e e",
    "ZREM z e e e",
    "ZPOPMIN z 3",
    "ZREMRANGEBYRANK z 0 n",
    "SINTERSTORE t t t",
];
const MOVE: &[&str] = &[
    "RENAME a a",
    "RENAMENX a a",
    "MOVE a d",
    "COPY a a DB d",
    "EXPIRE a 1000",
    "PERSIST a",
    "LMOVE l l LEFT RIGHT",
    "SMOVE t t e",
    "SORT l ALPHA STORE l",
    "SELECT d",
    "SWAPDB d d",
    "GETEX k PX 30",
    "MULTI",
    "EXEC",
];

fn change(random: &mut Random, grows: bool) -> Vec<u8> {
    let templates = match random.below(10) {
        0 => MOVE,
        1..8 if grows => GROW,
        1..3 => GROW,
        _ => SHRINK,
    };
    let template = templates[random.below(templates.len())];
    // A few keys have many elements, and become large.
    let key = |random: &mut Random, kind: &str| {
        let most = if random.percent(20) { 4 } else { 1_500 };
        format!("{kind}{}", random.below(most)).into_bytes()
    };
    let word = |word: &str| match word {
        "k" | "l" | "t" | "h" | "z" => key(random, word),
        "a" => {
            let kind = random.word("k,l,t,h,z").to_string();
            key(random, &kind)
        }
        "e" => format!("element {}", random.below(3_000)).into_bytes(),
        "n" => random.below(2_000).to_string().into_bytes(),
        "d" => random.below(3).to_string().into_bytes(),
        "v" => vec![b'v'; mixed_size(random) >> [0, 4, 8, 8][random.below(4)]],
        // Over 64 KiB a string has memory of its own.
        "long" => vec![b'v'; [100, 100, 100, 70_000 + random.below(70_000)][random.below(4)]],
        word => word.as_bytes().to_vec(),
    };
    encode(&template.split(' ').map(word).collect::<Vec<_>>())
}

/// `MEMORY_OPS` says how many.
#[test]
fn what_is_counted_is_what_a_count_made_anew_finds_after_any_changes() {
    let changes = std::env::var("MEMORY_OPS").map_or(200_000, |ops| ops.parse().expect("a number"));
    let server = Server::start(&["--appendonly", "no", "--enable-debug-command", "yes"]);
    let mut clients: Vec<Client> = (0..3).map(|_| server.client()).collect();
    let mut observer = server.client();
    let mut random = Random::new(5);
    let mut most = 0;
    for done in (0..changes).step_by(100) {
        // It grows for a while, then it shrinks, and sometimes all goes at once.
        let grows = done / 20_000 % 2 == 0;
        let client = &mut clients[random.below(3)];
        let commands: Vec<u8> = (0..100).flat_map(|_| change(&mut random, grows)).collect();
        client.raw(&commands);
        (0..100).for_each(|_| drop(client.read()));
        if random.below(200) == 0 {
            let flush = random.word("FLUSHDB,FLUSHALL,SWAPDB 0 1");
            observer.run(flush);
        }
        if done % 1_000 == 0 {
            most = info(&mut observer, "used_memory_dataset:").max(most);
            assert_eq!(observer.run("DEBUG RECOUNT"), "OK", "after {done} commands");
        }
    }
    clients.iter_mut().for_each(|client| drop(client.run("DISCARD")));
    observer.run("FLUSHALL");
    assert_eq!(observer.run("DEBUG RECOUNT"), "OK");
    assert_eq!(info(&mut observer, "used_memory_dataset:"), 0);
    assert!(most > 4_000_000, "{most}");
}

/// The command that adds element number `i` to a value of this type, so many bytes at least.
fn grow(kind: &Kind, key: usize, i: usize) -> Vec<u8> {
    let (name, words) = kind.grow;
    let mut command = vec![name.to_string(), format!("key:{key}")];
    command.extend(words.iter().map(|word| word.replace('#', &format!("{i:040}"))));
    encode(&command)
}

/// A few values with many elements, and many with a few. A type whose `memory` forgets what a large value has
/// would not be seen elsewhere: `maxmemory` and INFO would believe it.
#[test]
fn used_memory_grows_as_the_process_does_whatever_the_type_and_the_size() {
    for (kind, (keys, elements)) in
        KINDS.iter().flat_map(|kind| [(2, 25_000), (10_000, 5)].map(|size| (kind, size)))
    {
        let server = Server::start(&["--appendonly", "no"]);
        let mut clients = [server.client()];
        let Some(resident_before) = resident(&server) else {
            return;
        };
        let used_before = used(&mut clients[0]);
        run(&mut clients, (0..keys * elements).map(|i| grow(kind, i % keys, i / keys)));
        let taken = resident(&server).unwrap_or_default().saturating_sub(resident_before);
        let said = used(&mut clients[0]) - used_before;
        let name = kind.name;
        let what = format!("{keys} of type {name} took {taken} bytes, and INFO says {said}");
        assert!(said > 1_500_000 && said > taken / 2 && said < taken + taken / 2, "{what}");
        run(&mut clients, (0..keys).map(|key| encode(&["DEL", &format!("key:{key}")])));
        let rest = used(&mut clients[0]) - used_before;
        assert!(rest < said / 20, "{what}, and {rest} when all are gone");
    }
}

#[test]
fn nine_of_ten_keys_of_mixed_sizes_give_their_memory_back() {
    let mut random = Random::new(2);
    let (server, mut clients) = filled(&mut random);
    let Some(full) = resident(&server) else {
        return;
    };
    let goes = |key: &usize| key % 10 != 3;
    let dels = (0..KEYS).filter(goes);
    run(&mut clients, dels.map(|key| encode(&["DEL", &format!("key:{key}")])));
    // Nobody writes any more: what the deletions have begun is finished all the same.
    eventually("the memory is given back", || resident(&server).is_some_and(|now| now < full / 2));
    for key in (0..KEYS).filter(|key| !goes(key)) {
        let value = clients[0].call(&["GET", &format!("key:{key}")]);
        assert!(matches!(value, Value::Bulk(bytes) if bytes.iter().all(|byte| *byte == b'v')));
    }
}

#[test]
fn large_values_and_fields_give_their_memory_back_too() {
    let mut random = Random::new(4);
    let server = Server::start(&["--appendonly", "no"]);
    let mut clients: Vec<Client> = (0..4).map(|_| server.client()).collect();
    let sets = (0..120).map(|key| {
        let value = vec![b'v'; 70_000 + random.below(700_000)];
        encode(&[b"SET", format!("key:{key}").as_bytes(), &value])
    });
    run(&mut clients, sets);
    let hsets = (0..12_000).map(|field| {
        let value = vec![b'v'; mixed_size(&mut random) / 4];
        let (hash, field) = (format!("h:{}", field % 10), format!("f:{field}"));
        encode(&[b"HSET", hash.as_bytes(), field.as_bytes(), &value])
    });
    run(&mut clients, hsets);
    let Some(full) = resident(&server) else {
        return;
    };
    let dels = (0..120).filter(|key| key % 10 != 3);
    run(&mut clients, dels.map(|key| encode(&["DEL", &format!("key:{key}")])));
    let hdels = (0..12_000).filter(|field| field / 10 % 10 != 3);
    run(
        &mut clients,
        hdels.map(|field| encode(&["HDEL", &format!("h:{}", field % 10), &format!("f:{field}")])),
    );
    eventually("the memory is given back", || resident(&server).is_some_and(|now| now < full / 2));
}

#[test]
fn a_client_that_waits_keeps_no_value_in_memory_that_others_have_deleted() {
    const SIZE: usize = 64 << 20;
    let server = Server::start(&["--appendonly", "no"]);
    let (mut waiting, mut silent, mut other) = (server.client(), server.client(), server.client());
    let set = encode(&[b"SET", &b"k"[..], &vec![b'v'; SIZE]]);
    let is_freed = |other: &mut Client| {
        other.run("DEL k");
        eventually("the memory is given back", || {
            resident(&server).is_none_or(|now| now < SIZE as u64 / 2)
        });
    };
    // What comes in one piece runs in one batch.
    waiting.raw(&[&set[..], &encode(&["WAIT", "1", "0"])].concat());
    assert_eq!(waiting.read().to_string(), "OK");
    is_freed(&mut other);
    // A subscriber that does not read its replies.
    silent.raw(&encode(&["HELLO", "3"]));
    silent.raw(&encode(&["SUBSCRIBE", "channel"]));
    other.call(&["SET", "reply", &"r".repeat(8 << 20)]);
    silent.raw(&[&set[..], &encode(&["GET", "reply"]), &encode(&["PING"])].concat());
    eventually("the value is there", || other.run("STRLEN k") == format!("(integer) {SIZE}"));
    is_freed(&mut other);
}

/// Each is a table, for a field is longer than `hash-max-listpack-value`, and many applications keep their
/// sessions like this. Redis takes 780 bytes for one.
#[test]
fn a_hash_of_three_fields_takes_no_kilobyte_more_than_in_redis() {
    const HASHES: usize = 20_000;
    let server = Server::start(&["--appendonly", "no"]);
    let mut clients = [server.client()];
    let Some(before) = resident(&server) else {
        return;
    };
    // Lengths that change: what that was done in is not kept for each hash.
    for length in [100, 5_000, 60] {
        let hsets = (0..HASHES / (length / 60)).map(|i| {
            let (key, value) = (format!("session:{i}"), "x".repeat(length));
            let (name, page) = ("y".repeat(100), "z".repeat(100));
            encode(&["HSET", &key, "data", &value, "name", &name, "page", &page])
        });
        run(&mut clients, hsets);
    }
    eventually("each takes little", || {
        let each = (resident(&server).unwrap_or(u64::MAX) - before) / HASHES as u64;
        each < 1_780
    });
}

/// Redis takes 49,600 bytes for such a set, and 104,700 for such a sorted set.
#[test]
fn a_thousand_short_members_take_less_than_in_redis() {
    const KEYS: usize = 400;
    for (command, most) in [("SADD", 49_000), ("ZADD", 95_000)] {
        let server = Server::start(&["--appendonly", "no"]);
        let mut clients = [server.client()];
        let Some(before) = resident(&server) else {
            return;
        };
        let adds = (0..KEYS).map(|key| {
            let mut words = vec![command.to_string(), format!("key:{key}")];
            for member in 0..1_000 {
                if command == "ZADD" {
                    words.push((member * 7_919 % 1_000_003).to_string());
                }
                words.push(format!("e{member:04}"));
            }
            encode(&words)
        });
        run(&mut clients, adds);
        let each = (resident(&server).unwrap_or(u64::MAX) - before) / KEYS as u64;
        assert!(each < most, "{command}: {each}");
    }
}

#[test]
fn fields_whose_lengths_change_leave_little_behind() {
    const HASHES: usize = 2_000;
    const FIELDS: usize = 20;
    let server = Server::start(&["--appendonly", "no"]);
    let mut clients = [server.client()];
    let Some(before) = resident(&server) else {
        return;
    };
    for length in [100, 140, 180] {
        let hsets = (0..HASHES).map(|i| {
            let mut words = vec!["HSET".to_string(), format!("h:{i}")];
            let fields = (0..FIELDS).flat_map(|f| [format!("field{f}"), "x".repeat(length)]);
            words.extend(fields);
            encode(&words)
        });
        run(&mut clients, hsets);
    }
    let live = (HASHES * FIELDS * 190) as u64;
    eventually("three times what is there is enough", || {
        resident(&server).is_some_and(|now| now - before < live / 10 * 32)
    });
}

#[test]
fn tunables_that_the_operator_has_set_are_left_alone() {
    let environment = |server: &Server| {
        let environment = std::fs::read(format!("/proc/{}/environ", server.pid()));
        String::from_utf8_lossy(&environment.unwrap_or_default()).into_owned()
    };
    let own = "GLIBC_TUNABLES=glibc.malloc.arena_max=3";
    let under = Program::Under(format!("export {own}"));
    let server = Server::start_in(Directory::new(), under, &[]);
    let found = environment(&server);
    assert!(found.is_empty() || found.contains(own), "{found}");
    assert!(!found.contains("mmap_threshold"), "{found}");
    let server = Server::start(&[]);
    let found = environment(&server);
    let is_glibc = cfg!(all(target_os = "linux", target_env = "gnu"));
    assert!(!is_glibc || found.contains("mmap_threshold"), "{found}");
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
    assert!(now < 2 * most_used + 16_000_000, "{now}, used were {most_used}");
}
