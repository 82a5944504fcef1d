//! CLIENT PAUSE: from its OK on the data stays as it is, and whoever is paused costs nothing, loses nothing,
//! and may leave.
//!
//! The replies are in `tests/transcripts/connection/client-pause.txt`. Here are the crowds, and the clients that
//! leave.

mod support;

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};
use support::process::wait_for_rest;
use support::{Client, Server, Stop, Value, eventually};

/// A number in INFO.
fn info(asking: &mut Client, name: &str) -> usize {
    let text = asking.run("INFO");
    let (_, rest) = text.split_once(&format!("\\n{name}:")).expect("INFO has the field");
    let digits: String = rest.chars().take_while(char::is_ascii_digit).collect();
    digits.parse().expect("a number")
}

fn wait_until_paused(asking: &mut Client, count: usize) {
    eventually("they are paused", || info(asking, "blocked_clients") == count);
}

#[test]
fn from_the_ok_of_a_pause_on_nothing_changes_until_it_is_over() {
    const WRITERS: usize = 8;
    // With a log writers wait elsewhere than without one.
    for log in ["yes", "no"] {
        let server = Server::start(&["--appendonly", log]);
        let (done, stop) = (AtomicUsize::new(0), AtomicBool::new(false));
        let mut asking = server.client();
        thread::scope(|scope| {
            let _stopping = Stop(&stop);
            for writer in 0..WRITERS {
                let (mut client, done, stop) = (server.client(), &done, &stop);
                let commands: &[u8] = match writer % 4 {
                    0 => b"INCR sum\r\n",
                    1 => b"INCR sum\r\nGET sum\r\nINCR sum\r\nINCR sum\r\nINCR sum\r\n",
                    2 => b"GET sum\r\nGET sum\r\nGET sum\r\nGET sum\r\nINCR sum\r\n",
                    _ => b"MULTI\r\nINCR sum\r\nINCR sum\r\nEXEC\r\n",
                };
                let replies = commands.iter().filter(|byte| **byte == b'\n').count();
                scope.spawn(move || {
                    while !stop.load(Ordering::Relaxed) {
                        client.raw(commands);
                        for _ in 0..replies {
                            let reply = client.read();
                            assert!(!reply.is_error(), "{reply}");
                        }
                        done.fetch_add(1, Ordering::Relaxed);
                    }
                });
            }
            for _ in 0..100 {
                let before = done.load(Ordering::Relaxed);
                eventually("they write", || done.load(Ordering::Relaxed) > before + WRITERS);
                assert_eq!(asking.run("CLIENT PAUSE 1000000 WRITE"), "OK");
                let sum = asking.run("GET sum");
                wait_until_paused(&mut asking, WRITERS);
                assert_eq!(asking.run("GET sum"), sum);
                assert_eq!(asking.run("CLIENT UNPAUSE"), "OK");
            }
        });
    }
}

#[test]
fn thousands_of_paused_clients_use_no_processor_and_all_go_on() {
    const CLIENTS: usize = 2_000;
    let server = Server::start(&["--maxclients", "3000"]);
    let mut asking = server.client();
    let mut clients: Vec<Client> = (0..CLIENTS).map(|_| server.client()).collect();
    asking.run("CLIENT PAUSE 1000000 WRITE");
    for client in &mut clients {
        client.raw(b"INCR sum\r\n");
    }
    wait_until_paused(&mut asking, CLIENTS);
    wait_for_rest(server.pid(), 100);
    asking.run("CLIENT UNPAUSE");
    let mut sums: Vec<Value> = clients.iter_mut().map(Client::read).collect();
    sums.sort_by_key(|sum| if let Value::Integer(sum) = sum { *sum } else { -1 });
    assert!(sums.iter().zip(1..).all(|(sum, i)| *sum == Value::Integer(i)));
    eventually("nobody is paused", || info(&mut asking, "blocked_clients") == 0);
}

#[test]
fn postponed_commands_run_in_the_order_in_which_they_came() {
    const CLIENTS: usize = 40;
    for (ms, ends_early) in [(1_000_000, true), (1_500, false)] {
        let server = Server::start(&[]);
        let mut asking = server.client();
        // The last to connect sends first.
        let mut clients: Vec<Client> = (0..CLIENTS).map(|_| server.client()).collect();
        asking.run(&format!("CLIENT PAUSE {ms} WRITE"));
        for (i, client) in clients.iter_mut().rev().enumerate() {
            client.raw(format!("RPUSH list {i}\r\nPING\r\n").as_bytes());
            wait_until_paused(&mut asking, i + 1);
        }
        if ends_early {
            asking.run("CLIENT UNPAUSE");
        }
        let lengths: Vec<Value> = clients.iter_mut().rev().map(Client::read).collect();
        assert!(lengths.iter().zip(1..).all(|(length, i)| *length == Value::Integer(i)));
    }
}

#[test]
fn a_pause_ends_by_itself_and_not_too_early() {
    let server = Server::start(&[]);
    let (mut asking, mut client) = (server.client(), server.client());
    for kind in ["WRITE", "ALL", ""] {
        let begin = Instant::now();
        asking.run(&format!("CLIENT PAUSE 200 {kind}"));
        client.raw(b"SET k v\r\nGET k\r\n");
        assert_eq!((client.read().to_string(), client.read()), ("OK".into(), Value::bulk("v")));
        assert!(begin.elapsed() >= Duration::from_millis(200));
    }
    assert_eq!(info(&mut asking, "blocked_clients"), 0);
}

#[test]
fn all_postpones_every_command_of_every_client_but_a_monitor() {
    let server = Server::start(&[]);
    let (mut asking, mut monitor) = (server.client(), server.client());
    assert_eq!(monitor.run("MONITOR"), "OK");
    asking.run("CLIENT PAUSE 1000000");
    let commands = ["PING", "GET k", "CLIENT UNPAUSE", "MULTI", "QUIT", "NOSUCHCOMMAND", "GET"];
    let mut clients: Vec<Client> = commands
        .iter()
        .map(|command| {
            let mut client = server.client();
            client.raw(format!("{command}\r\n").as_bytes());
            client
        })
        .collect();
    // Whoever sent what is none is told so.
    for client in &mut clients[5..] {
        assert!(client.read().is_error());
    }
    monitor.raw(b"INFO clients\r\n");
    eventually("five are paused", || {
        let text = monitor.read().to_string();
        if !text.contains("connected_clients") {
            return false;
        }
        let is_so = text.contains("blocked_clients:5\\r");
        if !is_so {
            monitor.raw(b"INFO clients\r\n");
        }
        is_so
    });
    monitor.raw(b"CLIENT UNPAUSE\r\n");
    for client in &mut clients[..5] {
        assert!(!client.read().is_error());
    }
    assert!(clients[4].is_closed());
}

#[test]
fn whoever_leaves_or_is_killed_while_it_is_paused_is_gone_and_its_command_too() {
    let server = Server::start(&[]);
    let mut asking = server.client();
    asking.run("CLIENT PAUSE 1000000 WRITE");
    for behind in ["", "PING\r\n", "SET k w\r\nPING\r\n"] {
        let mut killed = server.client();
        let Value::Integer(id) = killed.call(&["CLIENT", "ID"]) else { panic!("no id") };
        let mut leaving = server.client();
        for client in [&mut killed, &mut leaving] {
            client.raw(format!("SET k v\r\n{behind}").as_bytes());
        }
        wait_until_paused(&mut asking, 2);
        assert!(asking.run(&format!("CLIENT LIST ID {id}")).contains(" flags=b "));
        // It waits for nothing that could be called off.
        assert_eq!(asking.run(&format!("CLIENT UNBLOCK {id}")), "(integer) 0");
        assert_eq!(asking.run(&format!("CLIENT UNBLOCK {id} ERROR")), "(integer) 0");
        // More comes while it is paused, and is read.
        leaving.raw(b"ECHO x\r\n");
        assert_eq!(asking.run(&format!("CLIENT KILL ID {id}")), "(integer) 1");
        assert!(killed.is_closed());
        drop(leaving);
        wait_until_paused(&mut asking, 0);
        asking.wait_until_alone();
    }
    asking.run("CLIENT UNPAUSE");
    assert_eq!(asking.run("EXISTS k"), "(integer) 0");
}

#[test]
fn a_paused_client_is_not_idle_and_hears_messages() {
    let server = Server::start(&[]);
    let (mut asking, mut client) = (server.client(), server.client());
    client.run("HELLO 3");
    client.run("SUBSCRIBE c");
    asking.run("MULTI");
    asking.run("CLIENT PAUSE 1000000 WRITE");
    asking.run("PUBLISH c message");
    asking.run("PUBLISH c more");
    asking.run("EXEC");
    assert!(client.read().to_string().contains("message"));
    client.raw(b"SET k v\r\n");
    let mut plain = server.client();
    plain.raw(b"SET k w\r\n");
    wait_until_paused(&mut asking, 2);
    assert!(client.read().to_string().contains("more"));
    asking.run("CONFIG SET timeout 1");
    assert!(asking.is_closed(), "it has been silent for a shorter time than they");
    server.client().run("CLIENT UNPAUSE");
    assert_eq!(client.read().to_string(), "OK");
    assert_eq!(plain.read().to_string(), "OK");
}
