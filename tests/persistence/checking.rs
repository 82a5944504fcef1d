//! `simple-redis --check-aof`: what it prints, what it cuts, and how it ends.

use crate::support::{Directory, Program, Server, ours, run_to_end};
use crate::{encode, file_of, log_of, record};
use std::fs;
use std::process::Command;

/// Runs it in the directory; its exit status, and what it printed.
fn check(directory: &Directory, words: &[&str]) -> (i32, String) {
    let mut command = Command::new(ours());
    command.arg("--check-aof").args(words).current_dir(&directory.0);
    let (status, said) = run_to_end(&mut command);
    (status.code().unwrap(), said)
}

#[test]
fn check_aof_finds_a_good_log_valid_however_it_is_named() {
    let log = [record("SET a 1"), record("HSET h f v")].concat();
    let directory = log_of("ii", &[&log, b""]);
    for name in [".", "appendonlydir", "appendonlydir/appendonly.aof.manifest"] {
        let (status, said) = check(&directory, &[name]);
        assert_eq!(status, 0, "{said}");
        let size = log.len();
        assert!(said.contains(&format!("1.incr.aof: {size} bytes, 2 commands, valid")), "{said}");
        assert!(said.contains("2.incr.aof: 0 bytes, 0 commands, valid"), "{said}");
        assert!(said.ends_with("\nvalid"), "{said}");
    }
    let (status, said) = check(&directory, &["appendonlydir/appendonly.aof.1.incr.aof"]);
    assert_eq!((status, said.lines().count()), (0, 2), "{said}");
}

#[test]
fn check_aof_shows_what_is_broken_and_cuts_it_when_told_to() {
    let whole = record("SET a 1");
    let multi = [record("MULTI"), record("SET b 2")].concat();
    let torn = b"*3\r\n$3\r\nSET\r\n$1\r\nk\r\n$100\r\nabc\xff";
    let directory = log_of("i", &[&[&whole[..], &multi, torn].concat()]);
    let (status, said) = check(&directory, &["."]);
    assert_eq!(status, 1);
    let (offset, at) = (whole.len(), whole.len() + multi.len());
    let count = multi.len() + torn.len();
    for expected in [
        format!("damaged at offset {offset}"),
        format!("the record at {at} is cut off"),
        r"*3\r\n$3\r\nSET\r\n$1\r\nk\r\n$100\r\nabc\xff".into(),
        format!("--fix would cut {count} bytes"),
    ] {
        assert!(said.contains(&expected), "no {expected:?} in\n{said}");
    }
    let (status, said) = check(&directory, &[".", "--fix"]);
    assert_eq!(status, 0, "{said}");
    let file = file_of(&directory.0, 0);
    assert_eq!(fs::read(&file).unwrap(), whole);
    let kept = format!("{}.tail-at-{offset}", file.display());
    assert_eq!(fs::read(&kept).unwrap(), [&multi[..], torn].concat());
    // Another tail in the same place does not take that of the first.
    fs::write(&file, [&whole[..], b"*1\r\n"].concat()).unwrap();
    let server = Server::start_in(directory, Program::Ours, &[]);
    assert_eq!(server.client().run("KEYS *"), "1) \"a\"");
    assert_eq!(fs::read(&kept).unwrap(), [&multi[..], torn].concat());
    assert_eq!(fs::read(format!("{kept}.1")).unwrap(), b"*1\r\n");
}

#[test]
fn check_aof_says_when_more_than_a_tail_would_be_cut() {
    let damaged = encode(&["SET", "k", "v"]);
    let damaged = String::from_utf8(damaged).unwrap().replace("$1\r\nv", "$7\r\nv");
    let log = [damaged.as_bytes(), &record("SET a 1"), &record("SET b 2")].concat();
    let (status, said) = check(&log_of("i", &[&log]), &["."]);
    assert_eq!(status, 1);
    assert!(said.contains("there are whole records up to the end of the file"), "{said}");
    assert!(said.contains(&format!("--fix would cut {} bytes", log.len())), "{said}");
}

#[test]
fn check_aof_never_cuts_what_later_files_build_upon_nor_what_it_does_not_know() {
    let torn = [record("SET a 1"), b"*3\r\n".to_vec()].concat();
    let directory = log_of("ii", &[&torn, &record("NOSUCH list a")]);
    let (status, said) = check(&directory, &[".", "--fix"]);
    assert_eq!(status, 1);
    assert!(said.contains("the files after it build upon it"), "{said}");
    assert!(said.contains("not supported: NOSUCH at offset 0 of"), "{said}");
    assert_eq!(fs::read(file_of(&directory.0, 0)).unwrap(), torn);
    let wrong = log_of("i", &[&record("GETSET a")]);
    let (status, said) = check(&wrong, &["."]);
    assert_eq!(status, 1);
    assert!(said.contains("wrong number of arguments for GETSET at offset 0"), "{said}");
}

#[test]
fn check_aof_does_not_repair_under_a_running_server() {
    let server = Server::start(&[]);
    server.client().run("SET a 1");
    let dir = server.dir().to_str().unwrap();
    let elsewhere = Directory::new();
    let (status, said) = check(&elsewhere, &[dir]);
    assert_eq!(status, 0);
    assert!(said.contains("another server is using the directory"), "{said}");
    let (status, said) = check(&elsewhere, &[dir, "--fix"]);
    assert_eq!(status, 1);
    assert!(said.contains("another server is using the directory"), "{said}");
    let (status, said) = check(&elsewhere, &["."]);
    assert_eq!(status, 1);
    assert!(said.contains("there is no append-only file in"), "{said}");
}

/// A value whose bit has flipped is a good value to whoever reads the log, but for its annotation.
#[test]
fn check_aof_and_a_start_say_between_which_offsets_a_bit_has_flipped() {
    let mut server = Server::start(&[]);
    server.client().run("SET greeting hello");
    server.shut_down();
    let file = file_of(server.dir(), 0);
    let good = fs::read(&file).unwrap();
    let to = good.windows(5).position(|bytes| bytes == b"#CRC:").unwrap();
    let damaged = String::from_utf8(good.clone()).unwrap().replace("hello", "iello");
    fs::write(&file, damaged).unwrap();
    let directory = Directory::new();
    let dir = server.dir().to_str().unwrap();
    let (status, said) = check(&directory, &[dir]);
    assert_eq!(status, 1);
    for expected in [
        "1.incr.aof".into(),
        format!("damaged between offset 0 and {to}"),
        "their digest is ".into(),
    ] {
        assert!(said.contains(&expected), "no {expected:?} in\n{said}");
    }
    let (status, said) = run_to_end(Command::new(ours()).args(["--port", "0", "--dir", dir]));
    assert_eq!(status.code(), Some(1));
    let expected = format!("1.incr.aof is damaged between offset 0 and {to}: their digest is");
    assert!(said.contains(&expected), "{said}");
    fs::write(&file, good).unwrap();
    server.start_again();
    assert_eq!(server.client().run("GET greeting"), "\"hello\"");
}
