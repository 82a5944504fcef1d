//! Limits, and those who come up against them: too many clients, too much input, too few
//! descriptors, silence, slowness, strangers.
//!
//! What a limit refuses is refused in Redis's words, and whatever happens the others go on. The
//! figures come from the system (`/proc`), so these tests need Linux.

mod support;

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream, UdpSocket};
use std::process::{Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};
use support::process::{cpu, descriptor_places, descriptors, memory, sleeps, threads};
use support::{
    Client, Directory, Program, Server, Value, encode, eventually, refused, with_more_and_more,
};

const FULL: &str = "(error) ERR max number of clients reached";

#[test]
fn one_client_too_many_is_told_so() {
    let server = Server::start(&["--maxclients", "3"]);
    let mut inside: Vec<Client> = (0..3).map(|_| server.client()).collect();
    inside.iter_mut().for_each(|client| drop(client.run("PING")));
    let mut refused = server.client();
    assert_eq!(refused.read().to_string(), FULL);
    assert!(refused.is_closed());
    // A place is free at the moment in which its client sees the end.
    for _ in 0..20 {
        let mut leaving = inside.pop().expect("a client");
        leaving.run("QUIT");
        assert!(leaving.is_closed());
        let mut next = server.client();
        assert_eq!(next.run("PING"), "PONG");
        inside.push(next);
    }
    assert_eq!(inside[0].run("CONFIG SET maxclients 4"), "OK");
    assert_eq!(server.client().run("PING"), "PONG");
    let info = inside[0].run("INFO stats");
    assert!(info.contains("rejected_connections:1\\r"), "{info}");
}

/// All knock while the server is stopped. Those who were let in have no thread yet when the others are refused, and to
/// wait for these would take long.
#[test]
fn nobody_waits_for_newcomers_who_are_yet_to_be_started() {
    let server = Server::start(&["--maxclients", "5"]);
    let pid = server.pid().to_string();
    let signal = |name: &str| {
        let sent = Command::new("kill").args([name, &pid]).status();
        assert!(sent.is_ok_and(|status| status.success()));
    };
    let mut inside = server.client();
    let mut slept = 0;
    for _ in 0..5 {
        // Whoever is still there would be counted in this round, and leave in its middle.
        let mut is_alone = || inside.run("INFO clients").contains("connected_clients:1\\r");
        eventually("the others have left", &mut is_alone);
        signal("-STOP");
        let mut clients: Vec<Client> = (0..20).map(|_| server.client()).collect();
        let before = sleeps(server.pid());
        signal("-CONT");
        for client in &mut clients[4..] {
            assert_eq!(client.read().to_string(), FULL);
        }
        slept += sleeps(server.pid()) - before;
    }
    // A tenth of a second has a thousand looks at whom one waits for.
    assert!(slept < 250, "{slept}");
}

#[test]
fn who_has_hung_up_does_not_keep_the_next_one_out() {
    let server = Server::start(&["--maxclients", "2"]);
    let mut inside = server.client();
    inside.run("PING");
    let mut other = server.client();
    other.run("PING");
    for _ in 0..200 {
        drop(inside);
        let begin = Instant::now();
        inside = server.client();
        // On a machine with too much to do, who has hung up is waited for in vain.
        while inside.try_raw(b"PING\r\n").is_err()
            || inside.try_read().ok() != Some(Value::Simple(b"PONG".into()))
        {
            assert!(begin.elapsed() >= Duration::from_millis(100), "refused");
            inside = server.client();
        }
    }
}

#[test]
fn the_table_of_descriptors_has_its_size_before_anybody_comes() {
    let server = Server::start(&["--maxclients", "900"]);
    let size = descriptor_places(server.pid());
    assert!(size >= 900, "{size}: accept would have to wait while it grows");
    assert!(descriptors(server.pid()) < 40);
}

#[test]
fn who_is_silent_too_long_must_leave_but_not_listeners_or_slow_senders() {
    // On a machine that stands still for as long, the sender is silent too.
    with_more_and_more(1, |seconds| {
        let server = Server::start(&["--timeout", &seconds.to_string()]);
        let mut silent = server.client();
        let (mut listening, mut slow) = (server.client(), server.client());
        silent.run("PING");
        listening.run("SUBSCRIBE c");
        let command = encode(&["SET", "k", "sent in several times the timeout"]);
        let start = Instant::now();
        let (first, last) = command.split_at(command.len() - 8);
        slow.raw(first);
        for byte in last {
            thread::sleep(Duration::from_millis(seconds * 300));
            slow.try_raw(&[*byte]).map_err(|error| error.to_string())?;
        }
        let answer = slow.try_read().map_err(|error| error.to_string())?;
        assert_eq!(answer, Value::Simple(b"OK".into()));
        assert!(silent.is_closed());
        assert!(start.elapsed() > Duration::from_secs(seconds));
        let heard = slow.try_call(&["PUBLISH", "c", "still there"]);
        assert_eq!(heard.map_err(|error| error.to_string())?, Value::Integer(1));
        Ok(())
    });
}

#[test]
fn a_client_that_is_served_for_longer_than_the_timeout_is_not_idle() {
    let server = Server::start(&["--timeout", "1", "--enable-debug-command", "yes"]);
    let mut client = server.client();
    assert_eq!(client.run("DEBUG SLEEP 2.5"), "OK");
    assert_eq!(client.run("PING"), "PONG");
}

#[test]
fn a_command_over_the_query_buffer_limit_ends_its_client() {
    let server = Server::start(&["--client-query-buffer-limit", "1mb"]);
    let mut client = server.client();
    assert_eq!(client.call(&["SET", "k", &"x".repeat(900_000)]).to_string(), "OK");
    let _ = client.try_raw(&encode(&["SET", "k", &"x".repeat(1_100_000)]));
    assert!(client.is_closed());
    // The same for many small words, and for what is stashed of one who does not read.
    let mut client = server.client();
    let _ = client.try_raw(&encode(&vec!["DEL"; 100_000]));
    assert!(client.is_closed());
    let mut client = server.client();
    let pipeline = encode(&["GET", "k"]).repeat(1_000);
    assert!((0..1_000).any(|_| client.try_raw(&pipeline).is_err()), "22 MB were taken");
    assert_eq!(server.client().run("STRLEN k"), "(integer) 900000");
}

/// The memory of a large value is used again for the next one (resp.rs), which must show in nothing
/// but speed: each is overwritten by one a little longer, shorter, much shorter, and in EXEC.
#[test]
fn a_large_value_that_is_overwritten_again_and_again_is_always_the_last_one() {
    let server = Server::start(&[]);
    let mut client = server.client();
    let lengths = [50_000, 50_000, 30_000, 60_000, 17_000, 3, 1_000_000, 900_000];
    for (round, length) in lengths.iter().cycle().take(40).enumerate() {
        let value = format!("{round},").repeat(length / 2);
        for key in ["a", "b"] {
            assert_eq!(client.call(&["SET", key, &value]).to_string(), "OK");
        }
        if round % 3 == 0 {
            client.run("MULTI");
            client.call(&["SET", "a", &format!("x{value}")]);
            client.call(&["SET", "a", &value]);
            client.run("EXEC");
        }
        for key in ["a", "b"] {
            let expected = Value::Bulk(value.clone().into_bytes());
            assert!(client.call(&["GET", key]) == expected, "{key} in {round}");
        }
    }
}

#[test]
fn a_client_that_rests_gives_large_memory_back() {
    let server = Server::start(&["--appendonly", "no"]);
    // What is larger than 32 MiB, no allocator keeps for itself.
    let value = "x".repeat(40_000_000);
    let mut clients: Vec<Client> = (0..3).map(|_| server.client()).collect();
    server.client().call(&["SET", "k", &value]);
    for client in &mut clients {
        client.call(&["SET", "k", &value]);
        client.call(&["GET", "k"]);
    }
    // One value remains, where each client has had two copies more.
    eventually("what they used is given back", || memory(server.pid(), "VmRSS") < 70_000_000);
    assert!(clients.iter_mut().all(|client| client.run("PING") == "PONG"));
}

/// Sends this again and again and reads nothing; returns after how many bytes the server has had enough.
fn send_without_reading(client: &mut Client, line: &[u8]) -> usize {
    let mut sent = 0;
    while client.try_raw(line).is_ok() {
        sent += line.len();
        assert!(sent < 100_000_000, "the server takes everything");
    }
    sent
}

#[test]
fn who_subscribes_and_does_not_read_the_confirmations_is_not_listened_to() {
    let server = Server::start(&["--client-query-buffer-limit", "1mb"]);
    let mut deaf = server.client();
    // Thirty bytes of confirmations for every two.
    let line = format!("SUBSCRIBE{}\r\n", " x".repeat(30_000));
    send_without_reading(&mut deaf, line.as_bytes());
    assert!(memory(server.pid(), "VmHWM") < 50_000_000);
    assert_eq!(server.client().run("PING"), "PONG");
}

#[test]
fn who_has_not_given_the_password_cannot_fill_the_memory() {
    let server = Server::start(&["--requirepass", "secret"]);
    let mut stranger = server.client();
    send_without_reading(&mut stranger, &b"GET k\r\n".repeat(1000));
    assert!(memory(server.pid(), "VmHWM") < 50_000_000);
}

/// A table for each of them would take 36 MB; they are made one at a time, inside EXEC too.
#[test]
fn twelve_clients_that_compare_strings_at_once_need_memory_for_one() {
    let server = Server::start(&["--appendonly", "no"]);
    let mut clients: Vec<Client> = (0..12).map(|_| server.client()).collect();
    for (key, part) in [("a", "ab"), ("b", "ba")] {
        clients[0].call(&["SET", key, &part.repeat(1_500)]);
    }
    let before = memory(server.pid(), "VmHWM");
    for (i, client) in clients.iter_mut().enumerate() {
        client.raw(match i % 2 {
            0 => b"LCS a b LEN\r\n",
            _ => b"MULTI\r\nLCS a b LEN\r\nEXEC\r\n",
        });
    }
    for (i, client) in clients.iter_mut().enumerate() {
        let answer = match i % 2 {
            0 => client.read(),
            _ => (0..3).map(|_| client.read()).last().expect("three"),
        };
        assert!(answer.to_string().ends_with("(integer) 2999"), "{answer:?}");
    }
    let grown = memory(server.pid(), "VmHWM") - before;
    assert!(grown < 100 << 20, "{grown} bytes for twelve");
}

#[test]
fn no_word_and_no_string_may_be_longer_than_proto_max_bulk_len() {
    let server = Server::start(&["--proto-max-bulk-len", "1mb"]);
    let mut client = server.client();
    let longest = "x".repeat(1024 * 1024);
    assert_eq!(client.call(&["SET", "k", &longest]).to_string(), "OK");
    let too_long = "(error) ERR string exceeds maximum allowed size (proto-max-bulk-len)";
    assert_eq!(client.run("APPEND k x"), too_long);
    assert_eq!(client.run("SETRANGE k 1048576 x"), too_long);
    client.raw(b"*2\r\n$4\r\nECHO\r\n$1048577\r\n");
    let answer = client.read().to_string();
    assert_eq!(answer, "(error) ERR Protocol error: invalid bulk length");
}

/// The length of a key would be cut to 32 bits.
#[test]
fn proto_max_bulk_len_stays_within_what_a_length_in_memory_can_say() {
    let server = Server::start(&["--proto-max-bulk-len", "2147483632"]);
    let mut client = server.client();
    for size in ["2147483633", "5gb", "9223372036854775807"] {
        let answer = client.run(&format!("CONFIG SET proto-max-bulk-len {size}"));
        let words = "between 1048576 and 2147483632 inclusive";
        assert!(answer.contains(words), "{size}: {answer}");
    }
    client.raw(b"*2\r\n$4\r\nECHO\r\n$2147483633\r\n");
    let answer = client.read().to_string();
    assert_eq!(answer, "(error) ERR Protocol error: invalid bulk length");
    // Nor does a log make one, word by word or in one piece.
    let setrange = encode(&["SETRANGE", "k", "2147483647", "x"]);
    let set = b"*3\r\n$3\r\nSET\r\n$4294967300\r\nk".to_vec();
    for (log, reason) in [
        (setrange, "a SETRANGE makes a string of more than 2147483632 bytes"),
        (set, "a word is longer than 2147483632 bytes"),
    ] {
        let directory = Directory::new();
        std::fs::write(directory.0.join("appendonly.aof"), log).unwrap();
        let (status, said) = refused(&directory, &[]);
        assert!(!status.success() && said.contains(reason), "{said}");
    }
}

#[test]
fn who_sends_a_byte_now_and_then_holds_one_thread_and_nothing_else() {
    let server = Server::start(&[]);
    let mut other = server.client();
    other.run("PING");
    let (before, spent) = (threads(server.pid()), cpu(server.pid()));
    let mut slow: Vec<Client> = (0..10).map(|_| server.client()).collect();
    for byte in encode(&["SET", "k", "slow"]) {
        slow.iter_mut().for_each(|client| client.raw(&[byte]));
        for _ in 0..5 {
            assert!(matches!(other.call(&["INCR", "n"]), Value::Integer(_)));
            assert_eq!(other.run("SET k fast"), "OK");
        }
        assert!(threads(server.pid()) <= before + 10 + 5);
    }
    slow.iter_mut().for_each(|client| assert_eq!(client.read().to_string(), "OK"));
    assert!(cpu(server.pid()) - spent < Duration::from_secs(2));
}

#[test]
fn who_never_reads_costs_hardly_any_processor_time() {
    let server = Server::start(&[]);
    let mut client = server.client();
    client.call(&["SET", "big", &"x".repeat(1_000_000)]);
    let silent: Vec<Client> = (0..20)
        .map(|_| {
            let mut silent = server.client();
            silent.raw(&encode(&["GET", "big"]).repeat(20));
            silent
        })
        .collect();
    // Until all of them have filled their sockets.
    let mut last = cpu(server.pid());
    eventually("the server is at rest", || {
        thread::sleep(Duration::from_millis(200));
        let now = cpu(server.pid());
        let spent = now - std::mem::replace(&mut last, now);
        spent < Duration::from_millis(40)
    });
    drop(silent);
}

#[test]
fn few_descriptors_lower_maxclients_with_a_message() {
    let under = Program::Under("ulimit -n 40;".into());
    let server = Server::start_in(Directory::new(), under, &[]);
    server.wait_for_line("maxclients is 8 instead of 10000");
    let mut inside: Vec<Client> = (0..8).map(|_| server.client()).collect();
    inside.iter_mut().for_each(|client| assert_eq!(client.run("PING"), "PONG"));
    assert_eq!(server.client().read().to_string(), FULL);
    let refused = "(error) ERR CONFIG SET failed (possibly related to argument 'maxclients') - The \
                   operating system is not able to handle the specified number of clients, try with 8";
    assert_eq!(inside[0].run("CONFIG SET maxclients 9"), refused);
    assert_eq!(inside[0].run("CONFIG SET maxclients 8"), "OK");
}

#[test]
fn without_descriptors_the_server_neither_spins_nor_ends() {
    let server = Server::start(&[]);
    let mut inside = server.client();
    assert_eq!(inside.run("PING"), "PONG");
    // As many as it has, and three more; `maxclients` knows nothing of that.
    let few = format!("--nofile={}", descriptors(server.pid()) + 3);
    let mut limit = Command::new("prlimit");
    limit.args(["--pid", &server.pid().to_string(), &few]);
    assert!(limit.status().expect("prlimit starts").success());
    // The kernel accepts them for the server, which cannot.
    let mut outside: Vec<Client> = (0..10).map(|_| server.client()).collect();
    server.wait_for_line("cannot accept a client");
    let (start, spent) = (Instant::now(), cpu(server.pid()));
    while start.elapsed() < Duration::from_secs(1) {
        assert_eq!(inside.run("PING"), "PONG");
        thread::sleep(Duration::from_millis(20));
    }
    let (spent, passed) = (cpu(server.pid()) - spent, start.elapsed());
    assert!(spent < passed * 3 / 10, "{spent:?} in {passed:?}");
    // When some leave, those who wait get in.
    let mut last = outside.pop().expect("ten");
    last.raw(b"PING\r\n");
    drop(outside);
    assert_eq!(last.read().to_string(), "PONG");
    assert_eq!(inside.run("SET k v"), "OK");
}

/// An address of this machine that is not its loopback. Connecting a UDP socket sends nothing.
fn outer_address() -> Option<std::net::IpAddr> {
    let socket = UdpSocket::bind("0.0.0.0:0").ok()?;
    socket.connect("192.0.2.1:9").ok()?;
    let address = socket.local_addr().ok()?.ip();
    (!address.is_loopback() && !address.is_unspecified()).then_some(address)
}

#[test]
fn protected_mode_refuses_strangers_with_an_explanation() {
    let Some(ip) = outer_address() else {
        // listen.rs has a unit test of the decision itself.
        return say("this machine has no address but its loopback: nothing to connect to");
    };
    let server = Server::start(&["--bind", "0.0.0.0"]);
    let outside = || Client::connect(SocketAddr::new(ip, server.port)).expect("a connection");
    let mut stranger = outside();
    let answer = stranger.read().to_string();
    assert!(answer.starts_with("(error) DENIED Redis is running in protected mode"), "{answer}");
    assert!(stranger.is_closed());
    let mut inside = server.client();
    assert_eq!(inside.run("CONFIG SET protected-mode no"), "OK");
    assert_eq!(outside().run("PING"), "PONG");
    assert_eq!(inside.run("CONFIG SET protected-mode yes requirepass sesame"), "OK");
    let mut stranger = outside();
    assert_eq!(stranger.run("PING"), "(error) NOAUTH Authentication required.");
    assert_eq!(stranger.run("AUTH sesame"), "OK");
}

/// Told to the person who reads the test's output.
fn say(text: &str) {
    let _ = writeln!(std::io::stderr(), "{text}");
}

/// Tells a copy of this test to which address, and how many, idle connections it is to hold.
const ORDER: &str = "SIMPLE_REDIS_TEST_IDLE";

/// In the copy: opens connections to the address, each of which says PING once; tells how many
/// there are, and holds them until its standard input ends.
fn hold_idle_clients(order: &str) {
    let (address, count) = order.split_once(' ').expect("address and number");
    let mut clients = Vec::new();
    for _ in 0..count.parse().expect("a number") {
        let Ok(mut socket) = TcpStream::connect(address) else {
            break;
        };
        let mut pong = [0; 7];
        if socket.write_all(b"PING\r\n").is_err() || socket.read_exact(&mut pong).is_err() {
            break;
        }
        clients.push(socket);
    }
    // The test harness may have begun the line with the name of the test.
    let _ = writeln!(std::io::stdout(), "\nholding {}", clients.len());
    let _ = std::io::stdin().read(&mut [0]);
}

/// Four processes hold the idle clients, for one may not have so many open files.
const HOLDERS: usize = 4;
const IDLE: usize = 10_000;
const BUSY: usize = 500;

#[test]
fn ten_thousand_idle_clients_and_five_hundred_busy_ones() {
    if let Ok(order) = std::env::var(ORDER) {
        return hold_idle_clients(&order);
    }
    let limit = "ulimit -n $(ulimit -H -n);";
    let under = Program::Under(limit.into());
    let server = Server::start_in(Directory::new(), under, &["--maxclients", "10600"]);
    let mut watcher = server.client();
    let maxclients = watcher.run("CONFIG GET maxclients");
    let maxclients: usize = maxclients.rsplit('"').nth(1).unwrap().parse().unwrap();
    let each_holds = IDLE.min(maxclients.saturating_sub(BUSY + 1)) / HOLDERS;
    let idle = each_holds * HOLDERS;
    assert!(idle > 0, "this machine's limit on open files is too low for {BUSY} clients");
    if idle < IDLE {
        say(&format!("only {maxclients} clients fit the limit on open files of this machine"));
    }
    let before = memory(server.pid(), "VmRSS");
    let order = format!("{} {each_holds}", server.address());
    let test = "ten_thousand_idle_clients_and_five_hundred_busy_ones";
    let mut holding: Vec<_> = (0..HOLDERS)
        .map(|_| {
            Command::new("sh")
                .args(["-c", &format!("{limit} exec \"$0\" \"$@\"")])
                .arg(std::env::current_exe().unwrap())
                .args(["--exact", test, "--nocapture"])
                .env(ORDER, &order)
                .stdin(Stdio::piped())
                .stdout(Stdio::piped())
                .spawn()
                .expect("a copy of the test")
        })
        .collect();
    for process in &mut holding {
        let lines = BufReader::new(process.stdout.as_mut().unwrap()).lines();
        let held = lines.map_while(Result::ok).find(|line| line.starts_with("holding"));
        assert_eq!(held, Some(format!("holding {each_holds}")));
    }
    let each = (memory(server.pid(), "VmRSS") - before) / idle as u64;
    // Frames that were not optimized take a page or two more of each stack.
    let most = if cfg!(debug_assertions) { 24 } else { 14 };
    assert!(each < most * 1024, "{each} bytes for an idle client");
    busy_clients(&server);
    let expected = format!("connected_clients:{}\\r", idle + 1);
    eventually("the idle ones are all still there", || {
        watcher.run("INFO clients").contains(&expected)
    });
    for process in &mut holding {
        drop(process.stdin.take());
        let _ = process.wait();
    }
    eventually("and then gone", || threads(server.pid()) < 20);
}

/// Five hundred clients that work at the same time, from four threads.
fn busy_clients(server: &Server) {
    thread::scope(|scope| {
        for _ in 0..4 {
            let clients = (0..BUSY / 4).map(|_| server.client());
            let mut clients: Vec<Client> = clients.collect();
            scope.spawn(move || {
                for _ in 0..20 {
                    clients.iter_mut().for_each(|client| client.send(&["INCR", "n"]));
                    for client in &mut clients {
                        assert!(matches!(client.read(), Value::Integer(_)));
                    }
                }
            });
        }
    });
    assert_eq!(server.client().run("GET n"), format!("\"{}\"", BUSY * 20));
}
