//! What a crash leaves at the end of the file is cut, and shown, and kept. What no crash can have
//! done is refused.

use crate::support::{self, Directory, Program, Server, ours, run_to_end};
use crate::{WITHOUT_ANNOTATIONS, dump, encode, file_of, log_of, random, record, rewrite};
use std::collections::BTreeMap;
use std::fs;
use std::process::{Command, ExitStatus};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;

/// A line that redis-server writes, which is no record.
const COMMENT: &[u8] = b"#TS:1700000000\r\n";

/// A log of all kinds of records: its units, and after each of them what `dump` shows.
fn units() -> Vec<(Vec<u8>, Vec<&'static str>)> {
    let binary = encode(&[&b"SET"[..], b"bin\r\n", b"\0\r\n*1\r\n$4\r\n\xff"]);
    let transaction = ["MULTI", "SET a 2", "HSET h f w g x", "DEL c", "EXEC"].map(record);
    let of_types = ["MULTI", "LPOP l", "SADD s 1 x", "ZADD z 1.5 m", "SETBIT i 1 1", "EXEC"];
    vec![
        (record("SELECT 0"), vec![]),
        (record("SET a 1"), vec!["a=\"1\""]),
        (binary, vec!["bin\r\n=\"\\x00\\r\\n*1\\r\\n$4\\r\\n\\xff\""]),
        (record("hset h f v"), vec!["h=1) 1) \"f\"\n   2) \"v\""]),
        ([COMMENT, &record("SET c 3")].concat(), vec!["c=\"3\""]),
        (
            transaction.concat(),
            vec!["a=\"2\"", "h=1) 1) \"f\"\n   2) \"w\"\n2) 1) \"g\"\n   2) \"x\"", "c"],
        ),
        (record("SET e "), vec!["e=\"\""]),
        (record("DEL e"), vec!["e"]),
        (record("RPUSH l a b"), vec!["l=1) \"a\"\n2) \"b\""]),
        (
            of_types.map(record).concat(),
            vec!["l=1) \"b\"", "s=1) \"1\"\n2) \"x\"", "z=1) 1) \"m\"\n   2) \"1.5\"", "i=\"@\""],
        ),
    ]
}

fn start(directory: Directory, flags: &[&str]) -> Server {
    Server::start_in(directory, Program::Ours, flags)
}

/// Expects a start to fail: its exit status and what it printed.
fn refused(directory: &Directory, flags: &[&str]) -> (ExitStatus, String) {
    support::refused(directory, &[&["--port", "0"], flags].concat())
}

/// All keys of database 0 with their values, as `units` writes them.
fn contents(server: &Server) -> BTreeMap<String, String> {
    let dump = dump(&mut server.client(), 1);
    let tidy = |text: String| text.strip_suffix(" until (integer) -1").unwrap().to_string();
    dump.into_iter()
        .map(|((_, key), value)| (String::from_utf8(key).unwrap(), tidy(value)))
        .collect()
}

#[test]
fn a_log_cut_at_any_byte_starts_with_exactly_the_units_that_are_whole() {
    let units = units();
    let whole: Vec<u8> = units.iter().flat_map(|(bytes, _)| bytes.clone()).collect();
    let next = AtomicUsize::new(0);
    let work = || {
        loop {
            let cut = next.fetch_add(1, Ordering::Relaxed);
            if cut > whole.len() {
                return;
            }
            look_at_cut(&units, &whole[..cut]);
        }
    };
    thread::scope(|scope| {
        scope.spawn(work);
        scope.spawn(work);
    });
}

fn look_at_cut(units: &[(Vec<u8>, Vec<&'static str>)], log: &[u8]) {
    let (mut end, mut expected) = (0, BTreeMap::new());
    for (bytes, effects) in units {
        if end + bytes.len() > log.len() {
            break;
        }
        end += bytes.len();
        for effect in effects {
            match effect.split_once('=') {
                Some((key, value)) => drop(expected.insert(key.into(), value.into())),
                None => drop(expected.remove(*effect)),
            }
        }
    }
    if &log[end..] == COMMENT {
        end = log.len();
    }
    let mut server = start(log_of("i", &[log]), &WITHOUT_ANNOTATIONS);
    let at = log.len();
    assert_eq!(contents(&server), expected, "cut at {at}");
    let file = file_of(server.dir(), 0);
    assert_eq!(fs::read(&file).unwrap(), log[..end], "cut at {at}");
    let said = server.lines().join("\n");
    if end == log.len() {
        assert!(!said.contains("cut a torn tail"), "{said}");
    } else {
        let tail = log.len() - end;
        let line = format!("cut a torn tail of {tail} bytes at offset {end}");
        assert!(said.contains(&line), "cut at {at}: {said}");
        let kept = format!("{}.tail-at-{end}", file.display());
        assert_eq!(fs::read(kept).unwrap(), log[end..], "cut at {at}");
    }
    // What is written now must stand behind a whole record, or the next start would lose it.
    if at.is_multiple_of(8) {
        assert_eq!(server.client().run("SET after 1"), "OK");
        server.crash();
        expected.insert("after".into(), "\"1\"".into());
        assert_eq!(contents(&server), expected, "after a cut at {at}");
    }
}

/// Ten records, of which the last is `last`.
fn ten(last: &[u8]) -> Vec<u8> {
    let mut log = record("SELECT 0");
    (1..9).for_each(|n| log.extend(record(&format!("SET k{n} v{n}"))));
    log.extend(last);
    log
}

#[test]
fn zeros_to_the_end_are_cut_at_any_length() {
    let torn = b"*3\r\n$3\r\nSET\r\n$1\r\nk\r\n$100000\r\nabc";
    let in_multi = [record("MULTI"), record("SET k 1")].concat();
    for last in [&b""[..], b"*", torn, &in_multi] {
        for zeros in [1, 2, 4096, 200_000] {
            let log = ten(&[last, &vec![0; zeros]].concat());
            let server = start(log_of("i", &[&log]), &[]);
            assert_eq!(server.client().run("DBSIZE"), "(integer) 8");
            let length = last.len() + zeros;
            server.wait_for_line(&format!("cut a torn tail of {length} bytes"));
        }
    }
}

#[test]
fn garbage_at_the_end_is_cut_only_up_to_the_size_that_was_allowed() {
    let log = ten(b"one does not write this");
    let directory = log_of("i", &[&log]);
    for flags in [&[][..], &["--aof-load-corrupt-tail-max-size", "22"]] {
        let (status, said) = refused(&directory, flags);
        assert_eq!(status.code(), Some(1));
        let offset = log.len() - 23;
        assert!(said.contains("appendonly.aof.1.incr.aof is damaged at offset"), "{said}");
        assert!(said.contains(&format!("at {offset}: expected '*', found 'o'")), "{said}");
        assert!(said.contains("--check-aof"), "{said}");
    }
    assert_eq!(fs::read(file_of(&directory.0, 0)).unwrap(), log);
    let server = start(directory, &["--aof-load-corrupt-tail-max-size", "23"]);
    assert_eq!(server.client().run("DBSIZE"), "(integer) 8");
    server.wait_for_line("cut a torn tail of 23 bytes");
}

#[test]
fn garbage_that_hides_good_records_is_refused_whatever_size_was_allowed() {
    let log = ten(&[&b"oops\r\n"[..], &record("SET k v")].concat());
    let flags = ["--aof-load-corrupt-tail-max-size", "1mb"];
    let (status, said) = refused(&log_of("i", &[&log]), &flags);
    assert_eq!(status.code(), Some(1));
    assert!(said.contains("there are whole records up to the end"), "{said}");
}

#[test]
fn aof_load_truncated_no_refuses_a_torn_tail() {
    let log = ten(b"*3\r\n$3\r\nSET");
    let directory = log_of("i", &[&log]);
    let (status, said) = refused(&directory, &["--aof-load-truncated", "no"]);
    assert_eq!(status.code(), Some(1));
    assert!(said.contains("aof-load-truncated is no"), "{said}");
    assert_eq!(fs::read(file_of(&directory.0, 0)).unwrap(), log);
}

#[test]
fn a_torn_file_that_is_not_the_last_is_refused_unless_those_behind_it_are_empty() {
    let torn = ten(b"*3\r\n$3\r\nSET");
    let directory = log_of("ii", &[&torn, &record("SET b 1")]);
    let (status, said) = refused(&directory, &[]);
    assert_eq!(status.code(), Some(1));
    assert!(said.contains("1.incr.aof is damaged") && said.contains("not the last"), "{said}");
    // As a kill leaves it between listing the new file and writing to it.
    let server = start(log_of("ii", &[&torn, b""]), &[]);
    assert_eq!(server.client().run("DBSIZE"), "(integer) 8");
    assert_eq!(fs::read(file_of(server.dir(), 0)).unwrap(), ten(b""));
}

#[test]
fn a_flipped_bit_in_a_length_is_refused_and_costs_no_good_record() {
    // A length of three digits can be made to reach behind the end of the file.
    let long = record(&format!("SET long {}", "x".repeat(150)));
    let log = [long, ten(&record("SET last v"))].concat();
    let is_length = |&at: &usize| {
        let line = log[..at].iter().rposition(|&byte| byte == b'\n').map_or(0, |end| end + 1);
        log[at].is_ascii_digit() && matches!(log[line], b'*' | b'$') && at < log.len() - 60
    };
    let places: Vec<usize> = (0..log.len()).filter(is_length).collect();
    assert!(places.len() > 30);
    let directory = log_of("i", &[&log]);
    let file = file_of(&directory.0, 0);
    for (at, bit) in places.iter().flat_map(|&at| (0..8).map(move |bit| (at, bit))) {
        let mut flipped = log.clone();
        flipped[at] ^= 1 << bit;
        fs::write(&file, &flipped).unwrap();
        let (status, said) = refused(&directory, &[]);
        assert_eq!(status.code(), Some(1), "byte {at}, bit {bit}: {said}");
        assert!(said.contains("1.incr.aof"), "{said}");
        assert_eq!(fs::read(&file).unwrap(), flipped, "byte {at}, bit {bit}");
    }
}

#[test]
fn a_flipped_bit_anywhere_else_is_refused_or_harms_one_record_at_most() {
    let last = record("SET last v");
    let log = ten(&last);
    let last_begins = (log.len() - last.len()) as u64;
    let mut random = random();
    let mut refusals = 0;
    for _ in 0..80 {
        let (at, bit) = (random.below(log.len()), random.below(8));
        let mut flipped = log.clone();
        flipped[at] ^= 1 << bit;
        let directory = log_of("i", &[&flipped]);
        let mut check = Command::new(ours());
        let check = check.args(["--check-aof", "."]).current_dir(&directory.0);
        let (status, said) = run_to_end(check);
        let offset = said.split_once("damaged at offset ");
        let offset = offset.map(|(_, rest)| rest.lines().next().unwrap().parse::<u64>().unwrap());
        // A last record that became longer looks as if it had been cut off, and may be cut.
        if !status.success() && offset.is_none_or(|offset| offset < last_begins) {
            let (status, said) = refused(&directory, &[]);
            assert_eq!(status.code(), Some(1), "byte {at}, bit {bit}: {said}");
            assert_eq!(fs::read(file_of(&directory.0, 0)).unwrap(), flipped);
            refusals += 1;
        } else if status.success() {
            // A letter of a key or a value is another one. Only a checksum could tell.
            let server = start(directory, &["--databases", "256"]);
            let keys = dump(&mut server.client(), 256).len();
            assert!((8..=9).contains(&keys), "byte {at}, bit {bit}: {keys} keys");
        }
    }
    eprintln!("80 flipped bits: {refusals} refused, the others harmed one record at most");
}

#[test]
fn a_command_that_we_do_not_have_is_not_called_corruption() {
    let log = ten(&record("NOSUCH list a b"));
    let offset = log.len() - record("NOSUCH list a b").len();
    let (status, said) = refused(&log_of("i", &[&log]), &[]);
    assert_eq!(status.code(), Some(1));
    let expected = format!("not supported: NOSUCH at offset {offset} of ");
    assert!(said.contains(&expected) && said.contains("1.incr.aof"), "{said}");
}

#[test]
fn an_rdb_base_that_is_broken_is_refused_with_its_place() {
    for begin in [&b"REDIS0010\xfa\x09redis-ver"[..], b"VALKEY080\xfa\x0avalkey-ver"] {
        let (status, said) = refused(&log_of("bi", &[begin, b""]), &[]);
        assert_eq!(status.code(), Some(1));
        let expected = format!("before its end at offset {} of ", begin.len());
        assert!(said.contains(&expected), "{said}");
    }
}

/// As redis-server had it in one file before version 7: a snapshot, and the commands behind it.
#[test]
fn a_log_that_begins_with_a_snapshot_is_replayed_and_goes_on() {
    let snapshot =
        b"REDIS0009\xfa\x0caof-preamble\xc0\x01\xfe\x03\xfb\x01\0\0\x01k\x01v\xff\0\0\0\0\0\0\0\0";
    let commands = [record("SET a 1"), record("SELECT 3"), record("APPEND k w")].concat();
    let both = [&snapshot[..], &commands].concat();
    for files in [&[&both[..]][..], &[&both, b""]] {
        let kinds = if files.len() == 1 { "i" } else { "bi" };
        let mut server = Server::start_in(log_of(kinds, files), Program::Ours, &[]);
        for _ in 0..2 {
            let mut client = server.client();
            assert_eq!(client.run("GET a"), "\"1\"");
            assert_eq!(client.run("SELECT 3"), "OK");
            assert_eq!(client.run("GET k"), "\"vw\"");
            rewrite(&mut client);
            server.crash();
        }
    }
}

#[test]
fn a_manifest_that_names_a_missing_file_or_says_nonsense_is_refused() {
    let directory = log_of("ii", &[b"", b""]);
    fs::remove_file(file_of(&directory.0, 1)).unwrap();
    let (status, said) = refused(&directory, &[]);
    assert_eq!(status.code(), Some(1));
    assert!(said.contains("2.incr.aof, which does not exist"), "{said}");
    let manifest = directory.0.join("appendonlydir/appendonly.aof.manifest");
    fs::write(&manifest, "file a seq 1 type i\nfile ../b seq 2 type i\n").unwrap();
    let (status, said) = refused(&directory, &[]);
    assert_eq!(status.code(), Some(1));
    assert!(said.contains("line 2: expected a name without a directory"), "{said}");
}

#[test]
fn a_log_whose_manifest_is_lost_is_refused_and_left_alone() {
    let log = record("SET k v");
    let directory = log_of("bi", &[&log, b""]);
    let folder = directory.0.join("appendonlydir");
    let manifest = folder.join("appendonly.aof.manifest");
    let base = folder.join("appendonly.aof.1.base.aof");
    fs::rename(file_of(&directory.0, 0), &base).unwrap();
    fs::write(&manifest, "").unwrap();
    let (status, said) = refused(&directory, &[]);
    assert_eq!(status.code(), Some(1));
    assert!(said.contains("names no file of a log"), "{said}");
    fs::remove_file(&manifest).unwrap();
    let (status, said) = refused(&directory, &[]);
    assert_eq!(status.code(), Some(1));
    assert!(said.contains("1.base.aof beside it holds a part"), "{said}");
    assert_eq!(fs::read(base).unwrap(), log);
}

#[test]
fn a_redis_base_whose_manifest_is_lost_is_refused_and_not_passed_over() {
    let directory = log_of("bi", &[b"REDIS0010", b""]);
    let folder = directory.0.join("appendonlydir");
    let base = folder.join("appendonly.aof.1.base.rdb");
    fs::rename(file_of(&directory.0, 0), &base).unwrap();
    fs::remove_file(folder.join("appendonly.aof.manifest")).unwrap();
    let (status, said) = refused(&directory, &[]);
    assert_eq!(status.code(), Some(1));
    assert!(said.contains("1.base.rdb beside it holds a part"), "{said}");
}

#[test]
fn a_log_whose_files_are_named_like_temporary_ones_is_no_rubbish() {
    let flags = &["--appendfilename", "temp-cache.aof"];
    let mut server = Server::start(flags);
    server.client().run("SET k v");
    rewrite(&mut server.client());
    for _ in 0..2 {
        server.crash();
        assert_eq!(server.client().run("GET k"), "\"v\"");
    }
}

/// What a value looks like inside is its owner's business, as long as it does not take for ever.
#[test]
fn a_torn_value_full_of_what_looks_like_records_is_cut() {
    let value = "\n*1\r\n$65000\r\n".repeat(5000);
    let torn = [&b"*3\r\n$3\r\nSET\r\n$1\r\nk\r\n$99999\r\n"[..], value.as_bytes()].concat();
    let server = start(log_of("i", &[&[record("SET good 1"), torn].concat()]), &[]);
    assert_eq!(server.client().run("DBSIZE"), "(integer) 1");
}

#[test]
fn what_no_client_may_say_may_stand_in_a_log() {
    let log = ["MULTI", "DEBUG SLEEP 0", "SET x 1", "EXEC"].map(record).concat();
    let server = start(log_of("i", &[&log]), &[]);
    assert_eq!(server.client().run("GET x"), "\"1\"");
}
