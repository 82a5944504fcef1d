//! A disk that is full: the first write that fails is not acknowledged, readers go on, and when
//! there is room again so do the writers, by themselves.
//!
//! The disk is a tmpfs of one megabyte where the machine lets us mount one. Where it does not, a
//! limit on the size of the process's files takes its place, which `prlimit` lifts; the error is
//! then another, `File too large`. Where neither works, a line says that and why.

use crate::support::patience::Resting;
use crate::support::{Client, Directory, Program, Server, eventually, log_files, read_log};
use crate::{WITHOUT_ANNOTATIONS, info};
use std::collections::BTreeMap;
use std::fs;
use std::io::Write;
use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

/// How a test makes the disk full, and takes that back.
enum Disk {
    /// The mount, on which a file keeps the room that is to be given back.
    Tmpfs(Mount),
    Limit,
}

struct Mount(PathBuf);

impl Drop for Mount {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("-l").arg(&self.0).status();
    }
}

fn run(program: &str, args: &[&str]) -> Result<(), String> {
    let output = Command::new(program).args(args).output();
    let output = output.map_err(|error| format!("{program}: {error}"))?;
    match output.status.success() {
        true => Ok(()),
        false => Err(String::from_utf8_lossy(&output.stderr).trim().to_string()),
    }
}

/// A server whose disk will be full after about 500 kB, or None if this machine has no way.
fn server_on_a_small_disk(flags: &[&str]) -> Option<(Server, Disk)> {
    let directory = Directory::new();
    let path = directory.0.to_str().unwrap();
    let mounted = run("mount", &["-t", "tmpfs", "-o", "size=1m", "tmpfs", path]);
    let why = match mounted {
        Ok(()) => {
            let mount = Mount(directory.0.clone());
            fs::write(directory.0.join("ballast"), vec![1; 500_000]).unwrap();
            let server = Server::start_in(directory, Program::Ours, flags);
            return Some((server, Disk::Tmpfs(mount)));
        }
        Err(why) => why,
    };
    eprintln!("no tmpfs can be mounted ({why}): a limit on file sizes takes its place");
    if let Err(why) = run("prlimit", &["--version"]) {
        // Not `eprintln!`, which is swallowed where a test passes.
        let line = format!(
            "NOT RUN: a full disk, for no tmpfs can be mounted, nor is there a prlimit ({why})"
        );
        let _ = writeln!(std::io::stderr(), "{line}");
        return None;
    }
    // In units of 512 bytes. The signal would end the process, were it not ignored.
    let limited = Program::Under("trap '' XFSZ; ulimit -S -f 1000".into());
    Some((Server::start_in(directory, limited, flags), Disk::Limit))
}

impl Disk {
    /// Fills the disk but for what is left of the log's last page.
    fn leave_a_page(&self, client: &mut Client) {
        match self {
            Disk::Tmpfs(mount) => {
                let result = fs::write(mount.0.join("more ballast"), vec![1; 1_000_000]);
                result.expect_err("more than the disk can hold");
            }
            Disk::Limit => {
                let size: usize = info(client, "aof_current_size").parse().unwrap();
                let padding = "x".repeat(1000 * 512 - size - 1000);
                assert_eq!(client.call(&["SET", "padding", &padding]).to_string(), "OK");
            }
        }
    }

    fn give_room(&self, server: &Server) {
        match self {
            Disk::Tmpfs(mount) => fs::remove_file(mount.0.join("ballast")).unwrap(),
            Disk::Limit => {
                let pid = server.pid().to_string();
                run("prlimit", &["--pid", &pid, "--fsize=unlimited"]).unwrap();
            }
        }
    }
}

/// Writes until a write is refused; returns what was acknowledged, and the key of the first that
/// was not.
fn fill(client: &mut Client) -> (BTreeMap<String, String>, String) {
    let mut acknowledged = BTreeMap::new();
    for n in 0..2000 {
        let (key, value) = (format!("key{n}"), format!("{n}").repeat(500));
        let reply = client.call(&["SET", &key, &value]).to_string();
        if reply != "OK" {
            let expected = "(error) MISCONF Errors writing to the AOF file: ";
            let cause = reply.strip_prefix(expected).unwrap_or_else(|| panic!("{reply}"));
            let known = ["No space left on device", "File too large"];
            assert!(known.contains(&cause), "{cause}");
            return (acknowledged, key);
        }
        acknowledged.insert(key, value);
    }
    panic!("the disk was never full");
}

#[test]
fn a_full_disk_stops_writers_and_not_readers_and_they_go_on_when_there_is_room() {
    for fsync in ["everysec", "always"] {
        let flags = ["--appendfsync", fsync];
        let Some((server, disk)) = server_on_a_small_disk(&flags) else {
            return;
        };
        look_at_full_disk(server, disk);
    }
}

#[test]
fn on_a_full_disk_nobody_is_told_of_an_element_that_the_log_does_not_hold() {
    let Some((mut server, disk)) = server_on_a_small_disk(&[]) else {
        return;
    };
    let (mut pushing, mut waiting) = (server.client(), server.client());
    let element = "x".repeat(3000);
    let mut told = 0;
    loop {
        waiting.send(&["BLPOP", "k", "0"]);
        eventually("it waits", || pushing.run("INFO clients").contains("blocked_clients:1\\r"));
        let pushed = pushing.call(&["RPUSH", "k", &element]).to_string();
        let popped = waiting.read().to_string();
        if pushed.starts_with("(error) MISCONF") {
            assert!(popped.starts_with("(error) MISCONF"), "{popped}");
            break;
        }
        assert!(popped.contains(&element), "{popped}");
        told += 1;
        assert!(told < 1000, "the disk was never full");
    }
    // Nobody can push or wait now. When there is room, all goes on.
    for refused in ["BLPOP k 0", "RPUSH k y"] {
        let reply = waiting.run(refused);
        assert!(reply.starts_with("(error) MISCONF"), "{reply}");
    }
    disk.give_room(&server);
    eventually("there is room", || waiting.run("BLPOP k 0.001") == "(nil)");
    waiting.send(&["BLPOP", "k", "0"]);
    assert_eq!(pushing.run("RPUSH k y z"), "(integer) 2");
    assert_eq!(waiting.read().items()[1].text(), b"y");
    server.crash();
    assert_eq!(server.client().run("LRANGE k 0 -1"), "1) \"z\"");
}

fn look_at_full_disk(mut server: Server, disk: Disk) {
    let mut client = server.client();
    let (mut acknowledged, first_refused) = fill(&mut client);
    // Readers go on, and INFO says it.
    let mut reader = server.client();
    let (key, value) = acknowledged.last_key_value().unwrap();
    assert_eq!(reader.call(&["GET", key]), crate::Value::bulk(value));
    assert_eq!(info(&mut reader, "aof_last_write_status"), "err");
    server.wait_for_line("cannot write to the append-only file");
    // Later writes are refused before they run.
    let reply = client.run("SET late 1");
    assert!(reply.starts_with("(error) MISCONF"), "{reply}");
    assert_eq!(client.run("GET late"), "(nil)");
    let reply = client.run("PING");
    assert!(reply.starts_with("(error) MISCONF"), "{reply}");
    assert_eq!(client.run("MULTI"), "OK");
    assert!(client.run("SET late 2").starts_with("(error) MISCONF"));
    assert!(client.run("EXEC").starts_with("(error) EXECABORT"));
    // No half record stays in the file, and a rewrite changes nothing.
    read_log(server.dir()).expect("whole records");
    reader.run("BGREWRITEAOF");
    eventually("the rewrite fails", || info(&mut reader, "aof_last_bgrewrite_status") == "err");
    // The limit is on the size of a file alone, so there is a rewrite for which there is room.
    read_log(server.dir()).expect("whole records");
    disk.give_room(&server);
    let mut resting = Resting::new(Some(server.pid()));
    eventually("writes work again", || {
        resting.elapsed();
        client.run("SET again 1") == "OK"
    });
    let idle = resting.elapsed();
    let is_short = idle.is_none_or(|idle| idle < Duration::from_secs(1));
    assert!(is_short, "there was room for {idle:?} before it was used");
    assert_eq!(info(&mut reader, "aof_last_write_status"), "ok");
    server.wait_for_line("is being written again");
    acknowledged.insert("again".into(), "1".into());
    server.program = Program::Ours;
    server.crash();
    let mut client = server.client();
    for (key, value) in &acknowledged {
        assert_eq!(client.call(&["GET", key]), crate::Value::bulk(value), "{key}");
    }
    // The outcome of the first was unknown; that of the others is not.
    let reply = client.run(&format!("EXISTS {first_refused} late"));
    assert!(matches!(reply.as_str(), "(integer) 0" | "(integer) 1"), "{reply}");
    assert_eq!(client.run("GET late"), "(nil)");
    drop(server);
}

#[test]
fn of_a_pipeline_on_a_full_disk_the_replies_of_writes_and_only_those_become_errors() {
    let Some((server, disk)) = server_on_a_small_disk(&[]) else {
        return;
    };
    let (mut client, mut listening) = (server.client(), server.client());
    listening.run("SUBSCRIBE news");
    client.run("SET small 1");
    // So large that the reply shares it with the keyspace.
    let large = "x".repeat(20_000);
    client.call(&["SET", "large", &large]);
    // A client that sends much at once is read in larger pieces from then on.
    client.raw(&crate::record("PING").repeat(5000));
    (0..5000).for_each(|_| drop(client.read()));
    disk.leave_a_page(&mut client);
    // One batch, longer than a page: it fails as a whole.
    let commands = [
        "GET small".into(),
        "GET large".into(),
        "CLIENT REPLY SKIP".into(),
        "SET silent 1".into(),
        format!("SET loud {}", "x".repeat(5000)),
        "STRLEN loud".into(),
        "MULTI".into(),
        "INCR small".into(),
        "EXEC".into(),
        "HSET small f v".into(),
        "SET nobody 1 XX".into(),
        "GET large".into(),
        "EXISTS small".into(),
        "PUBLISH news small".into(),
    ];
    client.raw(&commands.map(|line| crate::record(&line)).concat());
    let replies: Vec<String> = (0..12).map(|_| client.read().to_string()).collect();
    let misconf = |reply: &String| reply.starts_with("(error) MISCONF");
    assert_eq!(replies[0], "\"1\"");
    assert_eq!(replies[1], format!("\"{large}\""));
    assert!(misconf(&replies[2]), "{replies:?}");
    assert_eq!(replies[3..6], ["(integer) 5000", "OK", "QUEUED"]);
    assert!(misconf(&replies[6]), "{replies:?}");
    assert!(replies[7].starts_with("(error) WRONGTYPE"), "{replies:?}");
    assert_eq!(replies[8], "(nil)");
    assert_eq!(replies[9..], [&replies[1], "(integer) 1", "(integer) 1"]);
    assert_eq!(client.run("GET small"), "\"2\"");
    // PUBLISH was answered, so it is heard.
    assert!(listening.read().to_string().contains("small"));
}

#[test]
fn on_a_full_disk_a_script_reads_until_it_writes_and_the_log_has_all_of_it_or_nothing() {
    let Some((mut server, disk)) = server_on_a_small_disk(&[]) else {
        return;
    };
    let mut client = server.client();
    client.run("SET small 1");
    disk.leave_a_page(&mut client);
    // The log fails with what the script has written, so it is told of that when it has ended.
    let both =
        "for i = 1, 10 do redis.call('APPEND', KEYS[1], ARGV[1]) redis.call('INCR', KEYS[2]) end
        return redis.call('STRLEN', KEYS[1])";
    let part = "x".repeat(1000);
    let misconf = "(error) MISCONF Errors writing to the AOF file: ";
    let reply = client.call(&["EVAL", both, "2", "long", "count", &part]).to_string();
    assert!(reply.starts_with(misconf) && !reply.contains("script:"), "{reply}");
    assert_eq!(client.run("MGET count small"), "1) \"10\"\n2) \"1\"");
    // From then on a script is told at its first write.
    let first = "redis.call('GET', 'small') redis.call('INCR', 'small')";
    let reply = client.call(&["EVAL", first, "0"]).to_string();
    assert!(reply.starts_with(misconf) && reply.contains("on @user_script:1."), "{reply}");
    let holds = "local answer = redis.pcall('INCR', 'small')
        return {answer.err, redis.call('GET', 'small'), redis.call('PING')}";
    let reply = client.call(&["EVAL", holds, "0"]);
    assert!(reply.items()[0].to_string().starts_with("\"MISCONF "), "{reply}");
    assert_eq!(reply.items()[1].text(), b"1");
    // One that says that it writes does not begin, and those that read run.
    let reply = client.call(&["EVAL", "#!lua\nreturn 1", "0"]).to_string();
    assert!(reply.starts_with(misconf) && !reply.contains("script:"), "{reply}");
    assert_eq!(client.call(&["EVAL_RO", "return redis.call('GET', 'small')", "0"]).text(), b"1");
    read_log(server.dir()).expect("whole records");
    server.program = Program::Ours;
    server.crash();
    let found = server.client().run("MGET count small");
    assert_eq!(found, "1) (nil)\n2) \"1\"");
    assert_eq!(server.client().run("EXISTS long"), "(integer) 0");
}

#[test]
fn on_a_full_disk_the_log_can_be_switched_off_and_the_server_ended() {
    let Some((mut server, _disk)) = server_on_a_small_disk(&[]) else {
        return;
    };
    let mut client = server.client();
    let (acknowledged, _) = fill(&mut client);
    let reply = server.client().run("SHUTDOWN");
    assert_eq!(reply, "(error) ERR Errors trying to SHUTDOWN. Check logs.");
    server.wait_for_line("cannot shut down, because this cannot be saved");
    assert_eq!(client.run("CONFIG SET appendonly no"), "OK");
    assert_eq!(client.run("SET unlogged 1"), "OK");
    assert!(server.shut_down().success());
    server.start_again();
    let count = acknowledged.len();
    let size = server.client().run("DBSIZE");
    let size: usize = size.strip_prefix("(integer) ").unwrap().parse().unwrap();
    assert_eq!(size, count, "a record that could not be written is not there");
    // Whoever says that nothing need be saved is not refused.
    fill(&mut server.client());
    server.client().send(&["SHUTDOWN", "FORCE"]);
    assert!(server.wait_for_end().success());
    server.start_again();
    fill(&mut server.client());
    server.client().send(&["SHUTDOWN", "NOSAVE"]);
    assert!(server.wait_for_end().success());
}

#[test]
fn on_a_full_disk_a_torn_tail_is_cut_and_not_kept_and_the_server_starts() {
    let Some((mut server, disk)) = server_on_a_small_disk(&WITHOUT_ANNOTATIONS) else {
        return;
    };
    let Disk::Tmpfs(mount) = disk else {
        let line = "NOT RUN: a torn tail on a full disk, for no tmpfs can be mounted";
        let _ = writeln!(std::io::stderr(), "{line}");
        return;
    };
    assert_eq!(server.client().run("SET whole 1"), "OK");
    server.kill();
    let file = log_files(server.dir()).unwrap().pop().unwrap();
    let whole = fs::metadata(&file).unwrap().len();
    let mut log = fs::File::options().append(true).open(&file).unwrap();
    log.write_all(b"*3\r\n$3\r\nSET\r\n$4\r\ntorn\r\n$99\r\nabc").unwrap();
    fs::write(mount.0.join("more"), vec![1; 1_000_000]).expect_err("more than it can hold");
    server.start_again();
    let said = server.wait_for_line(&format!("cut a torn tail of 31 bytes at offset {whole}"));
    assert!(said.contains("it is lost, because") && said.contains("No space left"), "{said}");
    assert!(said.contains("torn\\r\\n$99\\r\\nabc"), "{said}");
    assert_eq!(server.client().run("KEYS *"), "1) \"whole\"");
    assert_eq!(fs::metadata(&file).unwrap().len(), whole);
    fs::remove_file(mount.0.join("more")).unwrap();
    server.restart();
    assert_eq!(server.client().run("KEYS *"), "1) \"whole\"");
    drop(server);
}
