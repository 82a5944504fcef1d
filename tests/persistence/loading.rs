//! What clients see of the log: replies while it loads, the fields of INFO, and WAITAOF.

use crate::support::patience::{Patience, Resting};
use crate::support::{Client, Directory, Program, Server, eventually, refused, with_more_and_more};
use crate::{WITHOUT_ANNOTATIONS, field, file_of, info, log_of, rewrite};
use std::fs;
use std::net::{Ipv4Addr, TcpListener};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

/// Connects to a server that is still loading its log: the start-up line with the port comes too late
/// for that. The thread returns when it has loaded.
pub fn start_and_connect(
    directory: Directory,
    flags: &'static [&str],
) -> (Client, JoinHandle<Server>) {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let address = listener.local_addr().unwrap();
    drop(listener);
    let starting = thread::spawn(move || {
        let port = address.port().to_string();
        let flags = [flags, &["--port", &port]].concat();
        Server::start_in(directory, Program::Ours, &flags)
    });
    // Without a pause, or a short load would be over: this is about who comes early.
    let mut patience = Patience::new(None);
    let client = loop {
        match Client::connect(address) {
            Ok(client) => break client,
            Err(error) => assert!(!patience.is_over(), "never bound: {error}"),
        }
        thread::yield_now();
    };
    (client, starting)
}

#[test]
fn the_first_command_of_the_first_client_is_answered() {
    let log = ["SET a 1", "DEBUG SLEEP 0.05"].map(crate::record).concat();
    for _ in 0..20 {
        for (log, flags, get) in [
            (&b""[..], &["--appendonly", "no"][..], "(nil)"),
            (b"", &[], "(nil)"),
            (&log, &["--enable-debug-command", "yes"], "\"1\""),
        ] {
            let directory = match log {
                b"" => Directory::new(),
                log => log_of("i", &[log]),
            };
            let began = Instant::now();
            let (mut client, starting) = start_and_connect(directory, flags);
            client.raw(b"PING\r\nGET a\r\nSET a 2\r\n");
            let answers = [(); 3].map(|()| client.read().to_string());
            // Only after half a second it may answer before the log is loaded, which a machine with
            // too much to do needs now and then.
            let gave_up = began.elapsed() >= Duration::from_millis(500);
            assert!(answers == ["PONG", get, "OK"] || gave_up, "{answers:?}");
            starting.join().unwrap();
        }
    }
}

#[test]
fn while_a_long_log_loads_clients_are_told_so_and_info_shows_how_far_it_is() {
    // It has to take longer than the looks at it.
    let first = if cfg!(debug_assertions) { 100 } else { 1_000 };
    with_more_and_more(first, look_at_loading);
}

fn look_at_loading(thousands: u64) -> Result<(), String> {
    let count = thousands * 1000;
    let records = (0..count).map(|n| crate::record(&format!("SET key:{n} value:{n}")));
    // Longer than early clients are left waiting, on a fast machine too.
    let long = crate::record("DEBUG SLEEP 1").into_iter();
    let log: Vec<u8> = long.chain(records.flatten()).collect();
    let total = log.len().to_string();
    let directory = log_of("i", &[&log]);
    let (mut client, starting) = start_and_connect(directory, &[]);
    let address = client.socket().peer_addr().unwrap();
    let lines = ["GET key:1", "PING", "BGREWRITEAOF", "WAIT 0 0"];
    let replies = lines.map(|line| client.run(line));
    let option = client.run("CONFIG GET appendonly");
    // What the log brings has changed since then.
    let mut watching = Client::connect(address).unwrap();
    assert_eq!(watching.run("WATCH key:1"), "OK");
    let loaded = |client: &mut Client| -> Option<u64> {
        field(client, "loading_loaded_bytes")?.parse().ok()
    };
    let (first, mut second) = (loaded(&mut client), None);
    eventually("some progress, or the end", || {
        second = loaded(&mut client);
        second.is_none() || second > first
    });
    let known = field(&mut client, "loading_total_bytes");
    let server = starting.join().unwrap();
    // Only of one that was still loading then is anything known.
    let (Some(second), Some(known)) = (second, known) else {
        return Err("the log was loaded too soon".into());
    };
    let loading = "(error) LOADING Redis is loading the dataset in memory";
    assert_eq!(replies, [loading; 4]);
    assert_eq!(option, "1) \"appendonly\"\n2) \"yes\"");
    assert_eq!(known, total);
    assert!(second < log.len() as u64);
    server.wait_for_line(&format!("replayed {} commands, {total} bytes", count + 1));
    assert_eq!(server.client().run("DBSIZE"), format!("(integer) {count}"));
    assert_eq!(info(&mut client, "loading"), "0");
    watching.run("MULTI");
    watching.run("SET key:1 late");
    assert_eq!(watching.run("EXEC"), "(nil)");
    Ok(())
}

#[test]
fn info_tells_the_true_sizes() {
    let mut server = Server::start(&[]);
    let mut client = server.client();
    let on_disk = |server: &Server| -> String {
        let files = crate::support::log_files(server.dir()).unwrap();
        let sizes = files.iter().map(|path| fs::metadata(path).unwrap().len());
        sizes.sum::<u64>().to_string()
    };
    // Not while an annotation is being written.
    let tells_size = |client: &mut Client, server: &Server| {
        eventually("it tells the size", || info(client, "aof_current_size") == on_disk(server));
    };
    assert_eq!(info(&mut client, "aof_current_size"), "0");
    client.run("SET a 1");
    tells_size(&mut client, &server);
    assert_eq!(info(&mut client, "aof_base_size"), "0");
    assert_eq!(info(&mut client, "aof_buffer_length"), "0");
    assert_eq!(info(&mut client, "aof_last_write_status"), "ok");
    assert_eq!(info(&mut client, "aof_last_rewrite_time_sec"), "-1");
    rewrite(&mut client);
    let base = info(&mut client, "aof_base_size");
    assert_eq!(base, on_disk(&server));
    assert_ne!(info(&mut client, "aof_last_rewrite_time_sec"), "-1");
    client.run("SET a 2");
    tells_size(&mut client, &server);
    assert_eq!(info(&mut client, "aof_base_size"), base);
    server.restart();
    let mut client = server.client();
    assert_eq!(info(&mut client, "aof_base_size"), on_disk(&server));
}

#[test]
fn waitaof_answers_when_the_disk_has_it() {
    for fsync in ["everysec", "always", "no"] {
        let server = Server::start(&["--appendfsync", fsync]);
        let mut client = server.client();
        let mut resting = Resting::new(Some(server.pid()));
        client.raw(b"SET a 1\r\nWAITAOF 1 0 0\r\n");
        assert_eq!(client.read().to_string(), "OK");
        assert_eq!(client.read().to_string(), "1) (integer) 1\n2) (integer) 0");
        let idle = resting.elapsed();
        let is_short = idle.is_none_or(|idle| idle < Duration::from_secs(2));
        assert!(is_short, "{fsync}: the server rested for {idle:?}");
        assert_eq!(client.run("WAITAOF 0 0 0"), "1) (integer) 1\n2) (integer) 0");
        // Replicas never come.
        assert_eq!(client.run("WAITAOF 1 1 20"), "1) (integer) 1\n2) (integer) 0");
    }
}

#[test]
fn who_waits_in_waitaof_learns_that_the_log_was_switched_off() {
    let server = Server::start(&["--appendonly", "no"]);
    let expected = "(error) ERR WAITAOF cannot be used when numlocal is set but appendonly is \
                    disabled.";
    assert_eq!(server.client().run("WAITAOF 1 0 0"), expected);
    assert_eq!(server.client().run("WAITAOF 0 0 0"), "1) (integer) 0\n2) (integer) 0");
}

#[test]
fn a_bare_appendonly_file_becomes_the_base() {
    let directory = Directory::new();
    fs::write(directory.0.join("appendonly.aof"), crate::record("SET old 1")).unwrap();
    let mut server = Server::start_in(directory, Program::Ours, &[]);
    assert_eq!(server.client().run("GET old"), "\"1\"");
    server.client().run("SET new 2");
    server.crash();
    assert_eq!(server.client().run("MGET old new"), "1) \"1\"\n2) \"2\"");
    assert!(!server.dir().join("appendonly.aof").exists());
    rewrite(&mut server.client());
    assert!(!server.dir().join("appendonlydir/appendonly.aof").exists());
    server.crash();
    assert_eq!(server.client().run("MGET old new"), "1) \"1\"\n2) \"2\"");
}

/// Redis before 7 logs SCRIPT LOAD. None of these changes data.
#[test]
fn a_log_that_says_which_scripts_were_loaded_or_flushed_starts() {
    let directory = Directory::new();
    let records = [
        "SCRIPT LOAD return",
        "SET old 1",
        "MULTI",
        "script flush",
        "INCR old",
        "FUNCTION FLUSH ASYNC",
        "EXEC",
        "SCRIPT FLUSH SYNC",
    ];
    fs::write(directory.0.join("appendonly.aof"), records.map(crate::record).concat()).unwrap();
    let mut server = Server::start_in(directory, Program::Ours, &[]);
    assert_eq!(server.client().run("GET old"), "\"2\"");
    rewrite(&mut server.client());
    server.crash();
    assert_eq!(server.client().run("GET old"), "\"2\"");
}

#[test]
fn a_bare_file_that_is_refused_stays_where_its_server_looks_for_it() {
    let directory = Directory::new();
    let bare = directory.0.join("appendonly.aof");
    let torn = [&crate::record("SET k v")[..], b"*3\r\n"].concat();
    for (content, flags, expected) in [
        (&b"REDIS0009"[..], &[][..], "it ends here, before its end at offset 9 of "),
        (&crate::record("NOSUCH list a"), &[], "not supported: NOSUCH"),
        (&torn, &["--aof-load-truncated", "no"], "is torn at offset"),
    ] {
        fs::write(&bare, content).unwrap();
        let (status, said) = refused(&directory, flags);
        assert_eq!(status.code(), Some(1));
        assert!(said.contains(expected), "{said}");
        assert_eq!(fs::read(&bare).unwrap(), content);
    }
    let mut server = Server::start_in(directory, Program::Ours, &[]);
    assert_eq!(server.client().run("GET k"), "\"v\"");
    assert!(!bare.exists());
    server.crash();
    assert_eq!(server.client().run("GET k"), "\"v\"");
}

#[test]
fn a_bare_file_is_not_forgotten_when_the_log_is_switched_off_and_on_while_it_loads() {
    with_more_and_more(2, switch_while_it_loads);
}

fn switch_while_it_loads(seconds: u64) -> Result<(), String> {
    let directory = Directory::new();
    let bare = directory.0.join("appendonly.aof");
    let sleep = format!("DEBUG SLEEP {seconds}");
    let slow = ["SET old 1", &sleep, "SET last 2"];
    fs::write(&bare, slow.map(crate::record).concat()).unwrap();
    let manifest = directory.0.join("appendonlydir/appendonly.aof.manifest");
    let (mut client, starting) = start_and_connect(directory, &["--enable-debug-command", "yes"]);
    assert_eq!(client.run("CONFIG SET appendonly no"), "OK");
    assert_eq!(client.run("CONFIG SET appendonly yes"), "OK");
    let untouched = bare.exists() && !manifest.exists();
    let is_loading = info(&mut client, "loading") == "1";
    let mut server = starting.join().unwrap();
    if !is_loading {
        return Err("the log was loaded too soon".into());
    }
    // A start after a kill at that moment would believe a list that does not name it.
    assert!(untouched);
    eventually("the log is on", || info(&mut client, "aof_enabled") == "1");
    crate::wait_for_rewrite(&mut client);
    assert_eq!(client.run("SET new 3"), "OK");
    server.crash();
    let values = server.client().run("MGET old last new");
    assert_eq!(values, "1) \"1\"\n2) \"2\"\n3) \"3\"");
    Ok(())
}

#[test]
fn a_bare_file_that_was_never_loaded_stays_where_it_is() {
    let directory = Directory::new();
    let bare = directory.0.join("appendonly.aof");
    fs::write(&bare, crate::record("SET old 1")).unwrap();
    let mut server = Server::start_in(directory, Program::Ours, &["--appendonly", "no"]);
    let mut client = server.client();
    client.run("SET new 2");
    client.run("CONFIG SET appendonly yes");
    eventually("the log is on", || info(&mut client, "aof_enabled") == "1");
    crate::wait_for_rewrite(&mut client);
    server.kill();
    assert_eq!(fs::read(bare).unwrap(), crate::record("SET old 1"));
}

#[test]
fn a_lower_limit_of_strings_takes_nothing_back() {
    let mut server = Server::start(&["--proto-max-bulk-len", "1mb"]);
    let mut client = server.client();
    client.run("CONFIG SET proto-max-bulk-len 2mb");
    client.run("SETRANGE k 1500000 x");
    client.run("APPEND k y");
    client.run("CONFIG SET proto-max-bulk-len 1mb");
    // The rewrite replays the log too, and what it forgot would be gone for good.
    rewrite(&mut client);
    client.run("APPEND other z");
    server.crash();
    assert_eq!(server.client().run("STRLEN k"), "(integer) 1500002");
    assert_eq!(server.client().run("STRLEN other"), "(integer) 1");
}

#[test]
fn a_log_of_more_databases_than_there_are_is_refused() {
    let log = ["SELECT 9", "SET a 1"].map(crate::record).concat();
    let directory = log_of("i", &[&log]);
    let (status, said) = refused(&directory, &["--databases", "4"]);
    assert_eq!(status.code(), Some(1));
    assert!(said.contains("is too few for the SELECT 9 at offset 0 of"), "{said}");
    let server = Server::start_in(directory, Program::Ours, &["--databases", "10"]);
    server.client().run("SELECT 9");
    assert_eq!(server.client().run("DBSIZE"), "(integer) 0");
}

#[test]
fn so_is_a_log_that_moves_a_key_there() {
    for command in ["SELECT 9", "MOVE a 9", "COPY a b DB 9", "SWAPDB 0 9"] {
        // What fails behind it in the same transaction must not hide it.
        let transaction = ["SET a 1", "MULTI", command, "INCRBY a x", "EXEC"];
        let transaction = transaction.map(crate::record).concat();
        for log in [transaction, ["SET a 1", command].map(crate::record).concat()] {
            let directory = log_of("i", &[&log]);
            let (status, said) = refused(&directory, &["--databases", "4"]);
            assert_eq!(status.code(), Some(1));
            let expected = format!("is too few for the {command} at offset");
            assert!(said.contains(&expected), "{said}");
        }
    }
}

#[test]
fn a_command_that_fails_when_replayed_is_told_and_the_load_goes_on() {
    let log = ["SET a 1", "HSET a f v", "SET b 2"].map(crate::record).concat();
    let server = Server::start_in(log_of("i", &[&log]), Program::Ours, &WITHOUT_ANNOTATIONS);
    server.wait_for_line("the log holds a command that fails, HSET: WRONGTYPE");
    assert_eq!(server.client().run("GET b"), "\"2\"");
    assert_eq!(fs::read(file_of(server.dir(), 0)).unwrap(), log);
}

/// What DEBUG LOADAOF has to tell does not fit into the pipe, which nobody reads any more. So nothing may be
/// printed while the keyspace is held.
#[test]
fn a_reload_that_has_much_to_tell_stops_nobody() {
    let log = [crate::record("SET a 1"), crate::record("HSET a f v").repeat(2_000)].concat();
    let directory = log_of("i", &[&log]);
    let pipe = directory.0.join("pipe").display().to_string();
    // The server keeps the reading end open itself. `sed` reads up to the line that says that it is ready.
    let program = format!(
        "mkfifo {pipe} && exec 4<>{pipe} && {{ sed -u '/Ready/q' <{pipe} & }} && exec >{pipe}"
    );
    let flags = [&WITHOUT_ANNOTATIONS[..], &["--enable-debug-command", "yes"]].concat();
    let server = Server::start_in(directory, Program::Under(program), &flags);
    let (mut reloading, mut other) = (server.client(), server.client());
    reloading.raw(&[crate::record("SET b 2"), crate::record("DEBUG LOADAOF")].concat());
    eventually("the write before it is there", || other.run("GET b") == "\"2\"");
    assert_eq!(other.run("GET a"), "\"1\"");
    assert_eq!(other.run("SET c 3"), "OK");
}

#[test]
fn a_transaction_that_the_log_discards_ends_there() {
    let log = ["SET a 1", "MULTI", "SET a 2", "DISCARD", "SET b 1"];
    let log = log.map(crate::record).concat();
    let server = Server::start_in(log_of("i", &[&log]), Program::Ours, &WITHOUT_ANNOTATIONS);
    assert_eq!(server.client().run("MGET a b"), "1) \"1\"\n2) \"1\"");
    assert_eq!(fs::read(file_of(server.dir(), 0)).unwrap(), log);
}

#[test]
fn a_message_is_heard_when_the_log_holds_what_was_done_before_it() {
    let server = Server::start(&[]);
    let (mut client, mut listening) = (server.client(), server.client());
    listening.run("SUBSCRIBE news");
    client.call(&["SET", "a", &"ab".repeat(2000)]);
    client.call(&["SET", "b", &"ba".repeat(2000)]);
    // The batch that publishes has much to do before it ends.
    let slow = crate::record("LCS a b LEN").repeat(5);
    client.raw(&[crate::record("SET announced 1"), crate::record("PUBLISH news x"), slow].concat());
    assert!(listening.read().to_string().contains("\"x\""));
    let files = crate::support::log_files(server.dir()).unwrap();
    let log = fs::read(files.last().unwrap()).unwrap();
    assert!(log.windows(9).any(|bytes| bytes == b"announced"));
}
