//! The glass box: what `--loglevel debug` says of a command is what happened to it.

mod support;

use std::fs;
use support::{Server, encode, log_files};

#[test]
fn a_trace_tells_where_in_the_log_the_batch_is() {
    let server = Server::start(&["--loglevel", "debug"]);
    let mut client = server.client();
    let commands = ["a", "b", "c"].map(|key| encode(&["SET", key, "value"]));
    // In one packet, so that they are one batch.
    client.raw(&commands.concat());
    commands.iter().for_each(|_| drop(client.read()));
    let log = fs::read(log_files(server.dir()).unwrap().last().unwrap()).unwrap();
    for (index, record) in commands.iter().enumerate() {
        let trace = server.wait_for_line(&format!("SET, step {} of 3 of its batch", index + 1));
        assert!(trace.contains(" · exclusive lock, "), "{trace}");
        let logged = format!(" · dirty 1 · {} of the batch's bytes at ", record.len());
        let (_, place) = trace.split_once(&logged).expect(&trace);
        let place = place.split(' ').next().unwrap().split_once("..").unwrap();
        let place = place.0.parse::<usize>().unwrap()..place.1.parse().unwrap();
        let found = log[place].windows(record.len()).any(|bytes| bytes == record);
        assert!(found, "{trace}");
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
