//! The glass box: what `--loglevel debug` says of a command is what happened to it.

mod support;

use std::fs;
use support::{Server, encode, log_files};

#[test]
fn a_trace_tells_up_to_where_the_log_was_written_for_its_batch() {
    let server = Server::start(&["--loglevel", "debug"]);
    let mut client = server.client();
    let commands = ["a", "b", "c"].map(|key| encode(&["SET", key, "value"]));
    // In one packet, so that they are one batch.
    client.raw(&commands.concat());
    commands.iter().for_each(|_| drop(client.read()));
    let log = fs::read(log_files(server.dir()).unwrap().last().unwrap()).unwrap();
    // A position counts records, and no annotations.
    let lines = log.split_inclusive(|&byte| byte == b'\n');
    let records = lines.filter(|line| !line.starts_with(b"#")).collect::<Vec<_>>().concat();
    assert!(records.ends_with(&commands.concat()));
    for (index, record) in commands.iter().enumerate() {
        let trace = server.wait_for_line(&format!("SET, step {} of 3 of its batch", index + 1));
        assert!(trace.contains(" · exclusive lock, "), "{trace}");
        let (length, position) = (record.len(), records.len());
        let logged = format!(" · dirty 1 · {length} bytes to the log, written up to {position} · ");
        assert!(trace.contains(&logged), "{trace}");
    }
}

#[test]
fn commands_that_only_look_share_a_lock_and_leave_nothing_in_the_log() {
    let server = Server::start(&["--loglevel", "debug"]);
    let mut client = server.client();
    client.raw(&[encode(&["GET", "a"]), encode(&["PING"]), encode(&["EXISTS", "b"])].concat());
    (0..3).for_each(|_| drop(client.read()));
    for (index, name) in ["GET", "PING", "EXISTS"].into_iter().enumerate() {
        let trace = server.wait_for_line(&format!("{name}, step {} of 3", index + 1));
        assert!(trace.contains(" · shared lock, "), "{trace}");
        assert!(trace.contains(" · dirty 0 · nothing to the log · "), "{trace}");
    }
}
