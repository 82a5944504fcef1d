//! Snapshots: what is in `dump.rdb`, when it is written, and what happens if it cannot be.

use super::loading::start_and_connect;
use super::support::random::Random;
use super::support::{Client, Program, Server, eventually, with_more_and_more};
use super::{Directory, dump};
use std::fs;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

const NO_LOG: &str = "--appendonly no";

/// Sets this when it goes.
struct Over<'a>(&'a AtomicBool);

impl Drop for Over<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

fn flags(text: &str) -> Vec<&str> {
    text.split(' ').collect()
}

/// A server on a copy of the snapshot in this directory.
fn on_snapshot_of(dir: &Path) -> Server {
    let directory = Directory::new();
    fs::copy(dir.join("dump.rdb"), directory.0.join("dump.rdb")).unwrap();
    Server::start_in(directory, Program::Ours, &flags(NO_LOG))
}

fn info(client: &mut Client, field: &str) -> String {
    let info = client.run("INFO persistence");
    let rest = info.split_once(field).map_or("", |(_, rest)| rest);
    rest.split("\\r").next().unwrap_or_default().to_string()
}

fn bgsave(client: &mut Client) {
    assert_eq!(client.run("BGSAVE"), "Background saving started");
    eventually("the snapshot is written", || info(client, "rdb_bgsave_in_progress:") == "0");
}

#[test]
fn a_snapshot_holds_all_of_one_moment_while_others_write_with_and_without_a_log() {
    for log in ["--appendonly yes", NO_LOG] {
        let server = Server::start(&flags(log));
        let mut client = server.client();
        for line in ["SET s v PX 100000000", "RPUSH l a b", "HSET h f v", "SELECT 3", "ZADD z 1 m"]
        {
            client.run(line);
        }
        client.run("SELECT 0");
        let is_over = AtomicBool::new(false);
        thread::scope(|scope| {
            scope.spawn(|| {
                let mut client = server.client();
                let mut number = 0;
                while !is_over.load(Ordering::Relaxed) {
                    number += 1;
                    client.run(&format!("MSET a {number} b {number}"));
                    client.run("MULTI");
                    client.run(&format!("RPUSH one {number}"));
                    client.run(&format!("RPUSH two {number}"));
                    client.run("EXEC");
                }
            });
            // Whether an assertion fails or not.
            let _over = Over(&is_over);
            for _ in 0..3 {
                bgsave(&mut client);
                let found = on_snapshot_of(server.dir());
                let mut found = found.client();
                assert_eq!(found.run("GET a"), found.run("GET b"));
                assert_eq!(found.run("LRANGE one 0 -1"), found.run("LRANGE two 0 -1"));
                assert_eq!(found.run("MGET s nothing"), "1) \"v\"\n2) (nil)");
            }
        });
        assert_eq!(client.run("SAVE"), "OK");
        assert_eq!(info(&mut client, "rdb_changes_since_last_save:"), "0");
        let whole = dump(&mut client, 16);
        let found = on_snapshot_of(server.dir());
        assert!(dump(&mut found.client(), 16) == whole, "{log}");
    }
}

/// Between them money goes from one to another.
const ACCOUNTS: &str = if cfg!(debug_assertions) { "20000" } else { "200000" };

#[test]
fn no_snapshot_has_half_of_a_transaction_or_of_a_script() {
    let server = Server::start(&flags(NO_LOG));
    let mut client = server.client();
    let open = "for i = 1, ARGV[1] do redis.call('SET', 'account:' .. i, 100) end";
    client.call(&["EVAL", open, "0", ACCOUNTS]);
    let sum = "local all = 0
        for i = 1, ARGV[1] do all = all + redis.call('GET', 'account:' .. i) end
        return all";
    let expected = client.call(&["EVAL", sum, "0", ACCOUNTS]).to_string();
    let is_over = AtomicBool::new(false);
    thread::scope(|scope| {
        for seed in [1, 2] {
            let (server, is_over) = (&server, &is_over);
            scope.spawn(move || {
                let (mut client, mut random) = (server.client(), Random::new(seed));
                let pay =
                    "redis.call('DECRBY', KEYS[1], ARGV[1]) redis.call('INCRBY', KEYS[2], ARGV[1])";
                let accounts: usize = ACCOUNTS.parse().unwrap();
                while !is_over.load(Ordering::Relaxed) {
                    let [from, to] =
                        [0; 2].map(|_| format!("account:{}", 1 + random.below(accounts)));
                    let amount = random.below(100).to_string();
                    match seed {
                        1 => {
                            for words in [
                                &["MULTI"][..],
                                &["DECRBY", &from, &amount],
                                &["INCRBY", &to, &amount],
                                &["EXEC"],
                            ] {
                                client.call(words);
                            }
                        }
                        _ => drop(client.call(&["EVAL", pay, "2", &from, &to, &amount])),
                    }
                }
            });
        }
        // Whether an assertion fails or not.
        let _over = Over(&is_over);
        for _ in 0..5 {
            bgsave(&mut client);
            let found = on_snapshot_of(server.dir());
            let sum = found.client().call(&["EVAL", sum, "0", ACCOUNTS]).to_string();
            assert_eq!(sum, expected);
        }
    });
}

#[test]
fn while_a_snapshot_is_written_others_write_with_and_without_a_log() {
    for log in ["yes", "no"] {
        with_more_and_more(MANY, |count| {
            let (_server, mut client) = with_keys(log, count);
            client.run("BGSAVE");
            let is_running = |client: &mut Client| info(client, "rdb_bgsave_in_progress:") == "1";
            let mut written = 0;
            // What was written while one was being written. Some of it is put aside.
            while client.run(&format!("SET key:{written} v")) == "OK" && is_running(&mut client) {
                written += 1;
            }
            let [bytes] = numbers(&mut client, ["rdb_last_cow_size"]);
            client.run("BGSAVE");
            eventually("it is over", || !is_running(&mut client));
            // Nothing was written meanwhile.
            assert_eq!(numbers(&mut client, ["rdb_last_cow_size"]), [0]);
            if written > 20 && bytes > 0 {
                Ok(())
            } else {
                Err(format!("{written} SETs, {bytes} bytes"))
            }
        });
    }
}

#[test]
fn a_shutdown_leaves_its_own_snapshot_and_nothing_of_one_that_was_being_written() {
    with_more_and_more(MANY, |count| {
        let (mut server, mut client) = with_keys("no", count);
        client.run("BGSAVE");
        client.run("SET last v");
        let was_running = info(&mut client, "rdb_bgsave_in_progress:") == "1";
        client.send(&["SHUTDOWN", "SAVE"]);
        assert!(server.wait_for_end().success());
        let names = fs::read_dir(server.dir()).unwrap().flatten().map(|file| file.file_name());
        assert!(names.into_iter().all(|name| !name.to_string_lossy().starts_with("temp-")));
        server.start_again();
        assert_eq!(server.client().run("EXISTS last"), "(integer) 1");
        if was_running { Ok(()) } else { Err("it was over too soon".into()) }
    });
}

#[test]
fn a_save_point_that_is_reached_writes_a_snapshot() {
    let server = Server::start(&flags("--appendonly no --save 3600 1 --save 1 3"));
    let mut client = server.client();
    client.run("MSET a 1 b 2 c 3");
    server.wait_for_line("3 changes in 1 seconds. Saving...");
    server.wait_for_line("DB saved on disk");
    let found = on_snapshot_of(server.dir());
    assert_eq!(found.client().run("MGET a c"), "1) \"1\"\n2) \"3\"");
    assert_eq!(client.run("CONFIG SET save \"\""), "OK");
}

#[test]
fn while_snapshots_fail_writes_are_refused_if_there_are_save_points() {
    let server = Server::start(&flags("--appendonly no --save 3600 1000000"));
    let mut client = server.client();
    client.run("SET k v");
    let place = server.dir().join("dump.rdb");
    fs::create_dir(&place).unwrap();
    assert_eq!(client.run("SAVE"), "(error) ERR");
    bgsave(&mut client);
    assert_eq!(info(&mut client, "rdb_last_bgsave_status:"), "err");
    let misconf = "(error) MISCONF Redis is configured to save RDB";
    assert!(client.run("SET k w").starts_with(misconf));
    assert_eq!(client.run("GET k"), "\"v\"");
    // A script is refused what it writes, and one that says how it is to be run, if it may write.
    for (script, expected) in [
        ("return redis.call('SET', 'k', 'w')", misconf),
        ("redis.pcall('SET', 'k', 'w') return redis.call('GET', 'k')", "\"v\""),
        ("return redis.call('PUBLISH', 'c', 'm')", "(integer) 0"),
        ("#!lua\nreturn 1", misconf),
        ("#!lua flags=no-writes\nreturn redis.call('GET', 'k')", "\"v\""),
    ] {
        let reply = client.call(&["EVAL", script, "0"]).to_string();
        assert!(reply.starts_with(expected), "{script}: {reply}");
    }
    assert_eq!(client.run("CONFIG SET stop-writes-on-bgsave-error no"), "OK");
    assert_eq!(client.run("SET k x"), "OK");
    assert_eq!(client.run("CONFIG SET stop-writes-on-bgsave-error yes"), "OK");
    assert_eq!(client.run("SHUTDOWN"), "(error) ERR Errors trying to SHUTDOWN. Check logs.");
    // What was begun is not left behind.
    let names = fs::read_dir(server.dir()).unwrap().flatten().map(|file| file.file_name());
    assert!(names.into_iter().all(|name| !name.to_string_lossy().starts_with("temp-")));
    fs::remove_dir(&place).unwrap();
    bgsave(&mut client);
    assert_eq!(client.run("SET k w"), "OK");
}

/// Fields of one INFO; 0 for what is not there.
fn numbers<const N: usize>(client: &mut Client, names: [&str; N]) -> [u64; N] {
    let info = client.run("INFO persistence");
    names.map(|name| {
        let rest = info.split_once(&format!("\\n{name}:")).map_or("", |(_, rest)| rest);
        let digits = rest.split(|c: char| !c.is_ascii_digit()).next().unwrap_or_default();
        digits.parse().unwrap_or(0)
    })
}

const MANY: u64 = if cfg!(debug_assertions) { 50_000 } else { 500_000 };

fn with_keys(log: &str, count: u64) -> (Server, Client) {
    let server = Server::start(&["--appendonly", log, "--enable-debug-command", "yes"]);
    let mut client = server.client();
    assert_eq!(client.run(&format!("DEBUG POPULATE {count}")), "OK");
    (server, client)
}

#[test]
fn info_tells_how_far_the_writing_of_a_snapshot_and_of_a_base_is() {
    for command in ["BGSAVE", "CONFIG SET appendonly yes"] {
        with_more_and_more(MANY, |count| {
            let (_server, mut client) = with_keys("no", count);
            let fields = ["current_save_keys_processed", "current_save_keys_total"];
            assert_eq!(numbers(&mut client, fields), [0, 0]);
            client.run(command);
            let mut was_seen = false;
            eventually("all is written", || {
                let running = ["rdb_bgsave_in_progress", "aof_rewrite_in_progress"];
                let [done, total, saves, rewrites] =
                    numbers(&mut client, [fields[0], fields[1], running[0], running[1]]);
                was_seen |= 0 < done && done < total && total == count;
                saves + rewrites == 0
            });
            assert_eq!(numbers(&mut client, fields), [0, 0]);
            if was_seen { Ok(()) } else { Err(format!("{command} was over too soon")) }
        });
    }
}

#[test]
fn info_tells_how_far_the_loading_of_a_snapshot_is() {
    with_more_and_more(MANY, |count| {
        let (server, mut client) = with_keys("no", count);
        assert_eq!(client.run("SAVE"), "OK");
        let memory = client.run("INFO memory");
        let (_, rest) = memory.split_once("used_memory:").unwrap();
        let used: u64 = rest.split('\\').next().unwrap().parse().unwrap();
        let directory = Directory::new();
        let file = directory.0.join("dump.rdb");
        fs::copy(server.dir().join("dump.rdb"), &file).unwrap();
        let length = fs::metadata(&file).unwrap().len();
        let (mut client, starting) = start_and_connect(directory, &["--appendonly", "no"]);
        let mut was_seen = false;
        eventually("it is loaded", || {
            let [loading, total, loaded, memory] = numbers(
                &mut client,
                ["loading", "loading_total_bytes", "loading_loaded_bytes", "loading_rdb_used_mem"],
            );
            if loaded > 0 {
                assert!(loaded <= total && total == length);
                assert!(memory > used / 2 && memory < used * 2, "{memory} {used}");
                was_seen = true;
            }
            loading == 0
        });
        starting.join().unwrap();
        if was_seen { Ok(()) } else { Err("it was loaded too soon".into()) }
    });
}

#[test]
fn shutdown_writes_a_snapshot_if_it_is_asked_to_or_if_there_are_save_points() {
    for (points, command, is_kept) in [
        ("3600 1", "SHUTDOWN", true),
        ("3600 1", "SHUTDOWN NOSAVE", false),
        ("", "SHUTDOWN SAVE", true),
        ("", "SHUTDOWN", false),
    ] {
        let mut server = Server::start(&["--appendonly", "no", "--save", points]);
        let mut client = server.client();
        client.run("SET k v");
        client.send(&command.split(' ').collect::<Vec<_>>());
        assert!(server.wait_for_end().success());
        server.start_again();
        let found = server.client().run("EXISTS k");
        assert_eq!(found == "(integer) 1", is_kept, "{points} {command}");
    }
}

#[test]
fn a_log_that_is_on_by_default_begins_with_the_snapshot_and_keeps_its_data_after_a_kill() {
    let server = Server::start(&flags(NO_LOG));
    let mut client = server.client();
    for line in ["SET s v PX 100000000", "RPUSH l a b", "SELECT 3", "ZADD z 1 m", "SAVE"] {
        client.run(line);
    }
    let whole = dump(&mut client, 16);
    // A start that was killed in the middle has left an empty log.
    for was_killed in [false, true] {
        let directory = Directory::new();
        let log = directory.0.join("appendonlydir");
        if was_killed {
            fs::create_dir(&log).unwrap();
            let name = "appendonly.aof.1.incr.aof";
            let manifest = format!("file {name} seq 1 type i\n");
            fs::write(log.join("appendonly.aof.manifest"), manifest).unwrap();
            fs::write(log.join(name), "").unwrap();
        }
        let snapshot = directory.0.join("dump.rdb");
        fs::copy(server.dir().join("dump.rdb"), &snapshot).unwrap();
        let mut ours = Server::start_in(directory, Program::Ours, &[]);
        ours.wait_for_line("begins with the data of the snapshot");
        // Before anything is written: the log holds it all.
        ours.kill();
        fs::rename(&snapshot, snapshot.with_extension("gone")).unwrap();
        ours.start_again();
        assert!(dump(&mut ours.client(), 16) == whole);
        assert_eq!(ours.client().run("CONFIG GET appendonly"), "1) \"appendonly\"\n2) \"yes\"");
        ours.client().run("DEL s");
        ours.kill();
        // From now on the log counts.
        fs::rename(snapshot.with_extension("gone"), &snapshot).unwrap();
        ours.start_again();
        assert_eq!(ours.client().run("EXISTS s l"), "(integer) 1");
        let again = |line: &String| line.contains("the snapshot");
        assert!(!ours.lines().iter().any(again));
    }
    let asked = Directory::new();
    fs::copy(server.dir().join("dump.rdb"), asked.0.join("dump.rdb")).unwrap();
    let asked = Server::start_in(asked, Program::Ours, &flags("--appendonly yes"));
    assert_eq!(asked.client().run("DBSIZE"), "(integer) 0");
}

#[test]
fn a_snapshot_that_cannot_be_read_begins_no_log() {
    let directory = Directory::new();
    fs::write(directory.0.join("dump.rdb"), b"REDIS0011\xfe\0\0\x01k\x05v").unwrap();
    for _ in 0..2 {
        let tried = Directory::new();
        fs::copy(directory.0.join("dump.rdb"), tried.0.join("dump.rdb")).unwrap();
        let said = Server::try_start_in(tried, Program::Ours, &[]).err().unwrap();
        assert!(said.contains("dump.rdb: at offset "), "{said}");
    }
}

#[test]
fn a_start_without_the_log_beside_a_newer_log_says_so() {
    let mut server = Server::start(&flags("--appendonly yes"));
    server.client().run("SAVE");
    // The files' times are compared.
    thread::sleep(Duration::from_millis(20));
    server.client().run("SET k v");
    server.kill();
    let said = |server: &Server| server.lines().iter().any(|line| line.contains("is not read"));
    server.flags = flags(NO_LOG).into_iter().map(String::from).collect();
    server.start_again();
    server.wait_for_line("it is newer than ");
    assert_eq!(server.client().run("EXISTS k"), "(integer) 0");
    server.client().run("SAVE");
    server.kill();
    server.start_again();
    assert!(!said(&server), "the snapshot is newer");
}
