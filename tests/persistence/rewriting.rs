//! The rewrite: with writers meanwhile, by itself, and after the log was switched off and on; and files that
//! somebody has deleted, moved or changed. Whatever happens, a start finds what was there before it.
//! (Kills and power cuts between any two steps are in src/aof/power_cuts.rs.)

use crate::support::{Client, Directory, Program, Server, Stop, eventually, log_files, refused};
use crate::{dump, file_of, info, listing, log_of, rewrite, wait_for_rewrite};
use std::fs;
use std::io::Write;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

/// Some of everything, in two databases.
fn fill(server: &Server) {
    let mut client = server.client();
    for n in 0..40 {
        client.run(&format!("SELECT {}", n % 2));
        client.run(&format!("SET key{n} value{n}"));
        client.run(&format!("HSET hash{} field{n} {n}", n % 3));
        client.run(&format!("INCR counter{}", n % 2));
        client.run(&format!("RPUSH list{} element{n} {}", n % 4, "long".repeat(n * n)));
        client.run(&format!("SADD set{} {n}", n % 5));
        client.run(&format!("ZADD zset{} {n}.5 member{n}", n % 3));
        client.run(&format!("SETBIT bits {n} 1"));
    }
    // Sets that are no sets of whole numbers alone any more.
    client.run("SADD set1 text");
    client.run("SADD set3 text");
    for key in ["key1", "list1", "set1", "zset1"] {
        client.run(&format!("PEXPIREAT {key} 4102444800000"));
    }
    client.run("DEL key2");
}

/// Nothing lies in the log's directory but the manifest and the files that it names.
fn assert_tidy(dir: &Path) {
    let live = log_files(dir).unwrap();
    let names = live.iter().map(|path| path.file_name().unwrap().to_str().unwrap().to_string());
    let mut expected: Vec<String> = names.chain(["appendonly.aof.manifest".into()]).collect();
    expected.sort();
    assert_eq!(listing(dir), expected);
}

#[test]
fn switching_the_log_off_and_on_again_begins_with_what_is_there() {
    let mut server = Server::start(&[]);
    fill(&server);
    let mut client = server.client();
    assert_eq!(client.run("CONFIG SET appendonly no"), "OK");
    assert_eq!(info(&mut client, "aof_enabled"), "0");
    client.run("FLUSHALL");
    client.run("SET unlogged 1");
    assert_eq!(client.run("CONFIG SET appendonly yes"), "OK");
    eventually("the log is on", || info(&mut client, "aof_enabled") == "1");
    wait_for_rewrite(&mut client);
    client.run("SET logged 2");
    let before = dump(&mut client, 2);
    server.crash();
    assert_eq!(dump(&mut server.client(), 2), before);
    assert_tidy(server.dir());
}

#[test]
fn a_log_that_was_switched_off_is_as_it_was() {
    let mut server = Server::start(&["--appendfsync", "no"]);
    server.client().run("SET logged 1");
    assert_eq!(server.client().run("CONFIG SET appendonly no"), "OK");
    server.client().run("SET unlogged 1");
    server.crash();
    assert_eq!(server.client().run("KEYS *"), "1) \"logged\"");
}

#[test]
fn what_came_in_one_packet_with_the_switching_off_is_in_the_log() {
    let mut server = Server::start(&[]);
    let mut client = server.client();
    client.raw(b"SET logged 1\r\nCONFIG SET appendonly no\r\nSET unlogged 1\r\n");
    (0..3).for_each(|_| drop(client.read()));
    server.crash();
    assert_eq!(server.client().run("KEYS *"), "1) \"logged\"");
}

#[test]
fn switching_on_while_a_rewrite_runs_is_not_forgotten() {
    let mut server = Server::start(&[]);
    fill(&server);
    let mut client = server.client();
    // After a rewrite that failed, as this one most likely does, the next waits for a minute, but
    // not if it is asked for.
    client.raw(b"BGREWRITEAOF\r\nCONFIG SET appendonly no\r\n");
    (0..2).for_each(|_| drop(client.read()));
    eventually("the end of the rewrite", || info(&mut client, "aof_rewrite_in_progress") == "0");
    client.run("CONFIG SET appendonly yes");
    eventually("the log is on", || info(&mut client, "aof_enabled") == "1");
    wait_for_rewrite(&mut client);
    // All in one packet, so that the rewrite has hardly begun.
    client.raw(b"BGREWRITEAOF\r\nCONFIG SET appendonly no\r\nCONFIG SET appendonly yes\r\n");
    (0..3).for_each(|_| drop(client.read()));
    eventually("the log is on", || info(&mut client, "aof_enabled") == "1");
    client.run("SET logged 2");
    let before = dump(&mut client, 2);
    server.crash();
    assert_eq!(dump(&mut server.client(), 2), before);
}

/// Writers who wait for the keyspace while it is dumped have found the log off, and get the keyspace
/// when it is on.
#[test]
fn who_waits_to_write_while_the_log_is_switched_on_is_in_it() {
    let mut server = Server::start(&[]);
    let mut client = server.client();
    assert_eq!(client.run("CONFIG SET appendonly no"), "OK");
    // Enough for the dump to take a while.
    for thousand in 0..100 {
        let pairs = (0..1000).flat_map(|n| [format!("key{thousand}:{n}"), "value".into()]);
        client.call(&["MSET".to_string()].into_iter().chain(pairs).collect::<Vec<_>>());
    }
    let done = &AtomicBool::new(false);
    let counted: Vec<String> = thread::scope(|scope| {
        let stop = Stop(done);
        let writers: Vec<_> = (0..4)
            .map(|writer| {
                let mut client = server.client();
                scope.spawn(move || {
                    let mut last = client.run(&format!("INCR counter{writer}"));
                    while !done.load(Ordering::Relaxed) {
                        last = client.run(&format!("INCR counter{writer}"));
                    }
                    last
                })
            })
            .collect();
        assert_eq!(client.run("CONFIG SET appendonly yes"), "OK");
        eventually("the log is on", || info(&mut client, "aof_enabled") == "1");
        drop(stop);
        writers.into_iter().map(|writer| writer.join().unwrap()).collect()
    });
    server.crash();
    let mut client = server.client();
    for (writer, last) in counted.iter().enumerate() {
        let found = client.run(&format!("GET counter{writer}"));
        assert_eq!(found, last.replace("(integer) ", "\"") + "\"");
    }
}

#[test]
fn clients_who_switch_the_log_on_and_off_at_once_leave_it_as_config_says() {
    let server = Server::start(&[]);
    for _ in 0..20 {
        thread::scope(|scope| {
            for value in ["no", "yes", "no", "yes"] {
                let mut client = server.client();
                scope.spawn(move || {
                    let reply = client.run(&format!("CONFIG SET appendonly {value}"));
                    assert_eq!(reply, "OK");
                });
            }
        });
        let mut client = server.client();
        let is_on = client.run("CONFIG GET appendonly").contains("yes");
        eventually("the log is as it should be", || {
            info(&mut client, "aof_rewrite_in_progress") == "0"
                && (info(&mut client, "aof_enabled") == "1") == is_on
        });
    }
}

#[test]
fn a_log_that_cannot_be_opened_is_not_switched_on() {
    let taken = Server::start(&[]);
    let dir = taken.dir().to_str().unwrap().to_string();
    for flags in [vec![], vec!["--dir", dir.as_str()]] {
        let directory = Directory::new();
        fs::write(directory.0.join("appendonlydir"), "in the way").unwrap();
        let flags = [&["--appendonly", "no"], &flags[..]].concat();
        let mut server = Server::start_in(directory, Program::Ours, &flags);
        let mut client = server.client();
        assert_eq!(
            client.run("CONFIG SET timeout 5 appendonly yes"),
            "(error) ERR CONFIG SET failed (possibly related to argument 'appendonly') - Unable to \
             turn on AOF. Check server logs."
        );
        let options = "1) \"appendonly\"\n2) \"no\"\n3) \"timeout\"\n4) \"0\"";
        assert_eq!(client.run("CONFIG GET appendonly timeout"), options);
        assert_eq!(client.run("SET k 1"), "OK");
        server.wait_for_line("cannot switch the append-only file on: ");
        server.kill();
    }
}

/// The first file cannot be written, for there is a directory in its place.
#[test]
fn what_was_promised_a_log_is_not_shut_down_without_one() {
    let mut server = Server::start(&["--appendonly", "no"]);
    let mut client = server.client();
    let name = format!("appendonlydir/temp-rewriteaof-{}.aof", server.pid());
    fs::create_dir_all(server.dir().join(name)).unwrap();
    assert_eq!(client.run("SET k 1"), "OK");
    assert_eq!(client.run("CONFIG SET appendonly yes"), "OK");
    assert_eq!(client.run("SHUTDOWN"), "(error) ERR Errors trying to SHUTDOWN. Check logs.");
    assert_eq!(client.run("CONFIG SET appendonly no"), "OK");
    client.send(&["SHUTDOWN"]);
    server.wait_for_end();
}

#[test]
fn a_log_that_somebody_has_damaged_or_deleted_is_written_anew_from_memory() {
    let file = |server: &Server| log_files(server.dir()).unwrap().pop().unwrap();
    let harms: [&dyn Fn(&Server); 4] = [
        &|server| fs::remove_file(file(server)).unwrap(),
        &|server| fs::remove_dir_all(server.dir().join("appendonlydir")).unwrap(),
        &|server| {
            // It looks the same, but what is written now goes to the one that is gone.
            let path = file(server);
            let content = fs::read(&path).unwrap();
            fs::remove_file(&path).unwrap();
            fs::write(&path, content).unwrap();
            server.client().run("SET after 1");
        },
        &|server| {
            let mut content = fs::read(file(server)).unwrap();
            content[0] = b'?';
            fs::write(file(server), content).unwrap();
        },
    ];
    for harm in harms {
        let mut server = Server::start(&[]);
        fill(&server);
        harm(&server);
        let before = dump(&mut server.client(), 2);
        rewrite(&mut server.client());
        assert_tidy(server.dir());
        server.crash();
        assert_eq!(dump(&mut server.client(), 2), before);
    }
}

/// Copies the files of one folder into another, over those that are there.
fn copy_files(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for file in fs::read_dir(from).unwrap() {
        let file = file.unwrap();
        fs::copy(file.path(), to.join(file.file_name())).unwrap();
    }
}

#[test]
fn a_base_that_an_older_list_does_not_name_is_neither_deleted_nor_passed_over_in_silence() {
    let mut server = Server::start(&[]);
    let mut client = server.client();
    client.run("SET old 1");
    let folder = server.dir().join("appendonlydir");
    let copy = server.dir().join("copy");
    copy_files(&folder, &copy);
    client.run("SET new 2");
    rewrite(&mut client);
    server.kill();
    // Put back over what has become of it since: the newer keys are in the base alone.
    let base = folder.join("appendonly.aof.1.base.aof");
    let content = fs::read(&base).unwrap();
    copy_files(&copy, &folder);
    for _ in 0..2 {
        server.start_again();
        assert_eq!(server.client().run("MGET old new"), "1) \"1\"\n2) (nil)");
        server.wait_for_line("1.base.aof holds a part of a log, but the manifest does not name it");
        rewrite(&mut server.client());
        assert_eq!(fs::read(&base).unwrap(), content);
        server.kill();
    }
}

/// Waits until a write is refused, and returns the cause.
fn wait_for_refusal(client: &mut Client) -> String {
    let mut cause = None;
    eventually("writes are refused", || {
        let reply = client.run("SET during 1");
        let refusal = reply.strip_prefix("(error) MISCONF Errors writing to the AOF file: ");
        cause = refusal.map(str::to_string);
        cause.is_some() || reply != "OK"
    });
    cause.expect("MISCONF")
}

/// What somebody does to the log's directory, and what is said of it.
type Harm<'a> = (&'a dyn Fn(&Path), &'a str);

#[test]
fn what_no_start_would_find_is_not_acknowledged_for_longer_than_a_moment() {
    let base = |folder: &Path| folder.join("appendonly.aof.1.base.aof");
    let incr = |folder: &Path| folder.join("appendonly.aof.2.incr.aof");
    let list = |folder: &Path| folder.join("appendonly.aof.manifest");
    let away = |folder: &Path| fs::rename(folder, folder.with_file_name("away")).unwrap();
    let moved = "was deleted or moved";
    let changed = "was changed or replaced";
    let harms: [Harm; 9] = [
        (&|folder| fs::remove_dir_all(folder).unwrap(), moved),
        (&away, moved),
        (
            &|folder| {
                away(folder);
                fs::write(folder, "a file").unwrap();
            },
            moved,
        ),
        (
            &|folder| {
                away(folder);
                copy_files(&folder.with_file_name("away"), folder);
            },
            changed,
        ),
        (&|folder| fs::remove_file(incr(folder)).unwrap(), moved),
        (&|folder| fs::remove_file(base(folder)).unwrap(), moved),
        (&|folder| fs::remove_file(list(folder)).unwrap(), moved),
        (&|folder| fs::write(incr(folder), "").unwrap(), changed),
        (
            &|folder| {
                let mut file = fs::File::options().append(true).open(incr(folder)).unwrap();
                file.write_all(&crate::record("SET theirs 1")).unwrap();
            },
            changed,
        ),
    ];
    thread::scope(|scope| {
        for (index, (harm, expected)) in harms.into_iter().enumerate() {
            let fsync = ["everysec", "always", "no"][index % 3];
            let server = Server::start(&["--appendfsync", fsync]);
            let mut client = server.client();
            fill(&server);
            rewrite(&mut client);
            client.run("SET between 1");
            harm(&server.dir().join("appendonlydir"));
            let expected = expected.to_string();
            scope.spawn(move || look_at_lost_files(server, client, &expected));
        }
    });
}

fn look_at_lost_files(mut server: Server, mut client: Client, expected: &str) {
    let folder = server.dir().join("appendonlydir");
    let cause = wait_for_refusal(&mut client);
    assert!(cause.contains(expected), "{cause}");
    server.wait_for_line(&cause);
    assert_eq!(info(&mut client, "aof_last_write_status"), "err");
    assert_eq!(client.run("GET between"), "\"1\"");
    assert_eq!(
        server.client().run("SHUTDOWN"),
        "(error) ERR Errors trying to SHUTDOWN. Check logs."
    );
    if folder.is_file() {
        client.run("BGREWRITEAOF");
        server.wait_for_line("Move away what is in its place, then BGREWRITEAOF");
        eventually("the rewrite has failed", || {
            info(&mut client, "aof_rewrite_in_progress") == "0"
        });
        assert!(wait_for_refusal(&mut client).contains(expected));
        fs::remove_file(&folder).unwrap();
    }
    rewrite(&mut client);
    assert_eq!(client.run("SET after 1"), "OK");
    let before = dump(&mut client, 2);
    server.crash();
    assert_eq!(dump(&mut server.client(), 2), before);
}

#[test]
fn files_that_were_moved_away_and_back_are_written_again() {
    let mut server = Server::start(&[]);
    let mut client = server.client();
    let folder = server.dir().join("appendonlydir");
    let away = server.dir().join("away");
    fs::rename(&folder, &away).unwrap();
    wait_for_refusal(&mut client);
    fs::rename(&away, &folder).unwrap();
    eventually("writes work again", || client.run("SET after 1") == "OK");
    server.wait_for_line("is being written again");
    let before = dump(&mut client, 1);
    server.crash();
    assert_eq!(dump(&mut server.client(), 1), before);
}

#[test]
fn a_copy_that_was_put_in_the_place_of_the_log_is_not_deleted_by_its_rewrite() {
    let mut server = Server::start(&["--auto-aof-rewrite-min-size", "1"]);
    let mut client = server.client();
    client.run("CONFIG SET auto-aof-rewrite-percentage 0");
    client.run("SET old 1");
    rewrite(&mut client);
    client.run("SET new 2");
    // Its second file has the name of the one that the server writes to.
    let copy = log_of("ii", &["SET a 1", "SET b 2"].map(crate::record).each_ref().map(|r| &r[..]));
    let folder = server.dir().join("appendonlydir");
    fs::rename(&folder, server.dir().join("away")).unwrap();
    copy_files(&copy.0.join("appendonlydir"), &folder);
    let list = fs::read(folder.join("appendonly.aof.manifest")).unwrap();
    wait_for_refusal(&mut client);
    // It has grown enough, but nobody has asked. The rewrite thread rests for a tenth of a second. (On a
    // machine that is slower than this, the test would see less, and fail nothing.)
    client.run("CONFIG SET auto-aof-rewrite-percentage 1");
    thread::sleep(Duration::from_millis(300));
    assert_eq!(fs::read(folder.join("appendonly.aof.manifest")).unwrap(), list);
    rewrite(&mut client);
    server.crash();
    assert_eq!(server.client().run("MGET old new a"), "1) \"1\"\n2) \"2\"\n3) (nil)");
    for index in 0..2 {
        let theirs = fs::read(file_of(&copy.0, index)).unwrap();
        assert_eq!(fs::read(file_of(server.dir(), index)).unwrap(), theirs);
    }
}

#[test]
fn conflicting_writers_leave_a_log_that_replays_to_what_they_saw() {
    let mut server = Server::start(&["--auto-aof-rewrite-min-size", "40kb"]);
    let done = &AtomicBool::new(false);
    thread::scope(|scope| {
        let _stop = Stop(done);
        for writer in 0..4 {
            let server = &server;
            scope.spawn(move || quarrel(server, writer, done));
        }
        let mut client = server.client();
        for _ in 0..3 {
            // One may be running already, for the log grows fast.
            client.run("BGREWRITEAOF");
            wait_for_rewrite(&mut client);
        }
        eventually("a rewrite that nobody asked for", || {
            info(&mut client, "aof_rewrites").parse::<u32>().unwrap() > 3
        });
    });
    let mut client = server.client();
    wait_for_rewrite(&mut client);
    eventually("the last fleeting key is expired", || {
        (0..3).all(|db| {
            client.run(&format!("SELECT {db}"));
            client.run("KEYS fleeting*") == "(empty array)"
        })
    });
    let before = dump(&mut client, 3);
    assert!(before.len() > 10);
    for _ in 0..2 {
        server.crash();
        assert_eq!(dump(&mut server.client(), 3), before);
    }
}

/// Writes to few keys in few databases, which others write to at the same time.
fn quarrel(server: &Server, writer: usize, done: &AtomicBool) {
    let mut client = server.client();
    let mut step = writer;
    while !done.load(Ordering::Relaxed) {
        step += 1;
        let key = step % 5;
        let lines = [
            format!("SELECT {}", step % 3),
            format!("APPEND string{key} {writer}"),
            format!("SET other{key} {writer}-{step} GET"),
            format!("HINCRBYFLOAT hash{key} field{} 0.1", step % 7),
            format!("RENAME other{key} other{}", key + 1),
            format!("COPY other{} copy{key} REPLACE", key + 1),
            "MULTI".into(),
            format!("INCR left{key}"),
            format!("INCRBYFLOAT right{key} 1.5"),
            "EXEC".into(),
            format!("SET string{} short{} EX 1000", step % 11, writer),
            format!("HDEL hash{key} field{}", step % 3),
            format!("RPUSH list{key} {writer}-{step}"),
            format!("LMOVE list{key} list{} LEFT RIGHT", key + 1),
            format!("LPOP list{} 2", key + 1),
            format!("SADD set{key} {} {}", step % 300, step % 9),
            format!("SPOP set{} 2", step % 3),
            format!("ZINCRBY zset{key} 0.1 member{}", step % 200),
            format!("ZUNIONSTORE zset{} 2 zset{key} set{key}", key + 1),
            format!("ZPOPMAX zset{} 9", key + 1),
            // It lives for a millisecond or two, and expires in one of three ways.
            format!("INCR fleeting{key}"),
            format!("PEXPIRE fleeting{key} {}", step % 3),
            format!("GET fleeting{}", step % 7),
            format!("{} 1 2", if step.is_multiple_of(97) { "SWAPDB" } else { "MGET" }),
        ];
        let bytes = lines.iter().map(|line| crate::record(line)).collect::<Vec<_>>();
        client.raw(&bytes.concat());
        lines.iter().for_each(|_| drop(client.read()));
    }
}

#[test]
fn the_log_is_rewritten_by_itself_when_it_has_doubled() {
    let server = Server::start(&["--auto-aof-rewrite-min-size", "20kb"]);
    let mut client = server.client();
    let line = crate::record(&format!("SET same {}", "x".repeat(100)));
    let mut written = 0;
    eventually("the log is rewritten", || {
        written += 50 * line.len() as u64;
        client.raw(&line.repeat(50));
        (0..50).for_each(|_| drop(client.read()));
        info(&mut client, "aof_rewrites") != "0"
    });
    wait_for_rewrite(&mut client);
    let size: u64 = info(&mut client, "aof_current_size").parse().unwrap();
    let base: u64 = info(&mut client, "aof_base_size").parse().unwrap();
    assert!(base <= size && size < written, "{base} {size} {written}");
    // Not while an annotation is being written.
    eventually("INFO tells the size", || {
        let files = log_files(server.dir()).unwrap();
        let on_disk: u64 = files.iter().map(|path| fs::metadata(path).unwrap().len()).sum();
        info(&mut client, "aof_current_size") == on_disk.to_string()
    });
    assert_tidy(server.dir());
}

#[test]
fn files_that_are_not_listed_are_left_alone_if_somebody_could_need_them() {
    let mut server = Server::start(&[]);
    fill(&server);
    server.kill();
    let folder = server.dir().join("appendonlydir");
    let theirs = ["appendonly.aof.2.incr.aof", "appendonly.aof.old.1.base.aof", "notes.txt"];
    for name in theirs {
        fs::write(folder.join(name), "something").unwrap();
    }
    server.start_again();
    rewrite(&mut server.client());
    for name in theirs {
        assert_eq!(fs::read(folder.join(name)).unwrap(), b"something", "{name}");
    }
}

#[test]
fn a_directory_that_is_not_there_is_refused_with_and_without_a_log() {
    for log in ["yes", "no"] {
        let flags = ["--port", "0", "--dir", "missing", "--appendonly", log];
        let (status, said) = refused(&Directory::new(), &flags);
        assert_eq!(status.code(), Some(1));
        assert!(said.contains("missing: No such file or directory"), "{said}");
    }
}

#[test]
fn a_second_server_on_the_same_directory_is_refused() {
    let server = Server::start(&[]);
    let dir = server.dir().to_str().unwrap();
    let (status, said) = refused(&Directory::new(), &["--port", "0", "--dir", dir]);
    assert_eq!(status.code(), Some(1));
    assert!(said.contains("another server is using the directory"), "{said}");
    assert_eq!(server.client().run("PING"), "PONG");
}
