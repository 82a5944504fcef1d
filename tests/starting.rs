//! What the operator says when the server starts, and where it then listens: addresses, files, standard
//! input, bytes that are no text, and what it answers if it cannot do what it was told.
//!
//! One test compares with the redis-server that REDIS_SERVER names (scripts/conformance.sh).
//! `src/listen.rs` has unit tests of every rule of `bind`; here the system's own sockets decide.

mod support;

use std::collections::BTreeSet;
use std::fs;
use std::io::Write;
use std::net::{Ipv6Addr, SocketAddr, TcpListener};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::PermissionsExt;
use std::process::Command;
use support::{Client, Directory, Program, Server, Value, ours, refused, run_to_end};

/// Where clients here look for a server that listens to IPv6.
fn ipv6(port: u16) -> SocketAddr {
    (Ipv6Addr::LOCALHOST, port).into()
}

fn has_ipv6() -> bool {
    let has = TcpListener::bind(ipv6(0)).is_ok();
    if !has {
        // Not every container has it.
        let _ = writeln!(std::io::stderr(), "this machine has no IPv6 to listen on");
    }
    has
}

#[test]
fn all_of_both_protocols_is_served_and_clients_have_their_own_addresses() {
    if !has_ipv6() {
        return;
    }
    for words in [["*", "-::*"], ["0.0.0.0", "::"], ["::", "0.0.0.0"]] {
        let server = Server::start(&["--bind", words[0], words[1]]);
        let mut six = Client::connect(ipv6(server.port)).expect("IPv6 is served");
        assert_eq!(six.run("PING"), "PONG", "{words:?}");
        let mut four = server.client();
        let info = four.run("CLIENT INFO");
        assert!(info.contains(" addr=127.0.0.1:"), "{info}");
        let local = format!(" laddr=127.0.0.1:{} ", server.port);
        assert!(info.contains(&local), "{info}");
        let info = six.run("CLIENT INFO");
        assert!(info.contains(" addr=[::1]:"), "{info}");
    }
}

#[test]
fn all_of_ipv6_alone_does_not_let_ipv4_in() {
    if !has_ipv6() {
        return;
    }
    let server = Server::start(&["--bind", "::"]);
    // Where the machine keeps the two apart, nobody listens there at all.
    if let Ok(mut client) = Client::connect(server.address()) {
        assert!(client.is_closed());
    }
    let mut client = Client::connect(ipv6(server.port)).expect("IPv6 is served");
    assert_eq!(client.run("PING"), "PONG");
    let named = Server::start(&["--bind", "::", "127.0.0.1"]);
    assert_eq!(named.client().run("PING"), "PONG");
}

#[test]
fn an_address_that_another_server_has_is_not_passed_over() {
    if !has_ipv6() {
        return;
    }
    let other = TcpListener::bind(ipv6(0)).expect("a free port");
    let port = other.local_addr().expect("an address").port().to_string();
    let flags = ["--port", &port, "--bind", "127.0.0.1", "-::1"];
    let (status, output) = refused(&Directory::new(), &flags);
    assert_eq!(status.code(), Some(1), "{output}");
    let expected = format!("cannot listen on ::1 port {port}: Address already in use");
    assert!(output.contains(&expected), "{output}");
}

#[test]
fn an_address_that_is_missing_is_passed_over_and_said_if_it_may_be() {
    let server = Server::start(&["--bind", "127.0.0.1", "-192.0.2.7"]);
    server.wait_for_line("cannot listen on 192.0.2.7 port");
    assert_eq!(server.client().run("PING"), "PONG");
    let flags = ["--port", "0", "--bind", "127.0.0.1", "192.0.2.7"];
    let (status, output) = refused(&Directory::new(), &flags);
    assert_eq!(status.code(), Some(1), "{output}");
    assert!(output.contains("does not have that address"), "{output}");
}

#[test]
fn the_line_that_says_ready_is_the_one_of_redis() {
    let server = Server::start(&[]);
    let line = server.wait_for_line("* Ready to accept connections");
    assert!(line.ends_with(&format!(" on port {}", server.port)), "{line}");
}

/// A directory with these files.
fn with_files(files: &[(&str, &[u8])]) -> Directory {
    let directory = Directory::new();
    for (name, text) in files {
        let path = directory.0.join(name);
        fs::create_dir_all(path.parent().expect("a directory")).expect("a directory");
        fs::write(path, text).expect("a file");
    }
    directory
}

#[test]
fn include_takes_all_files_that_match_and_none_is_no_error() {
    let directory = with_files(&[
        ("conf.d/1.conf", b"timeout 1\nhz 11\n"),
        ("conf.d/2.conf", b"timeout 2\n"),
        ("conf.d/.hidden.conf", b"timeout 3\n"),
        ("all.conf", b"include conf.d/*.conf\ninclude nothing.d/*\n"),
    ]);
    let flags = ["--include", "all.con[!x]", "--include", "no?/*"];
    let server = Server::start_in(directory, Program::Ours, &flags);
    let mut client = server.client();
    assert_eq!(client.run("CONFIG GET timeout"), "1) \"timeout\"\n2) \"2\"");
    assert_eq!(client.run("CONFIG GET hz"), "1) \"hz\"\n2) \"11\"");
}

#[test]
fn the_first_argument_may_match_many_files() {
    let directory = with_files(&[("1.conf", b"timeout 1\n"), ("2.conf", b"timeout x\n")]);
    let (_, output) = refused(&directory, &["[12].conf"]);
    assert!(output.contains("/2.conf, line 1"), "{output}");
    let (_, output) = refused(&directory, &["[34].conf", "--port", "x"]);
    assert!(output.contains("'port x' (command line)"), "none: {output}");
}

/// What it says if it is started with these words, with `in.conf` as its standard input.
fn with_input(directory: &Directory, words: &str) -> String {
    let script = format!("exec < in.conf; exec '{}' {words}", ours().display());
    let mut shell = Command::new("sh");
    shell.args(["-c", &script]).current_dir(&directory.0);
    run_to_end(&mut shell).1
}

/// A file that was written for Redis must start this server, or be refused for a reason.
#[test]
fn every_option_that_redis_has_is_known_here() {
    let Ok(redis) = std::env::var("REDIS_SERVER") else {
        let _ = writeln!(std::io::stderr(), "REDIS_SERVER is not set");
        return;
    };
    let names = |program| {
        let server = Server::start_in(Directory::new(), program, &[]);
        let Value::Array(values) = server.client().call(&["CONFIG", "GET", "*"]) else {
            panic!("CONFIG GET answers with an array");
        };
        let names = values.iter().step_by(2).map(Value::to_string);
        names.collect::<BTreeSet<String>>()
    };
    let (theirs, ours) = (names(Program::Redis(redis)), names(Program::Ours));
    let unknown: Vec<_> = theirs.difference(&ours).collect();
    assert!(unknown.is_empty() && theirs.len() > 100, "{unknown:?}");
}

#[test]
fn standard_input_is_read_after_the_file_and_before_the_options() {
    let bad = with_files(&[("file.conf", b"timeout x\n"), ("in.conf", b"hz x\n")]);
    let good = with_files(&[("file.conf", b"timeout 1\n"), ("in.conf", b"hz x\n")]);
    let best = with_files(&[("file.conf", b"timeout 1\n"), ("in.conf", b"hz 11\n")]);
    for (directory, expected) in [
        (bad, "file.conf, line 1"),
        (good, "'hz x' (standard input, line 1)"),
        (best, "'port x' (command line)"),
    ] {
        let output = with_input(&directory, "file.conf --port x -");
        assert!(output.contains(expected), "{output}");
    }
    let input = with_files(&[("in.conf", b"hz x\n"), ("file.conf", b"")]);
    let output = with_input(&input, "- --port 0");
    assert!(output.contains("standard input, line 1"), "{output}");
    // In the middle a dash is none, as in Redis.
    let output = with_input(&input, "file.conf - --port 0");
    assert!(output.contains("'-' (command line)"), "{output}");
    let program = Program::Under("exec < in.conf;".into());
    let directory = with_files(&[("in.conf", b"timeout 7\nhz 12\n")]);
    let server = Server::start_in(directory, program, &["--hz", "13", "-"]);
    let mut client = server.client();
    assert_eq!(client.run("CONFIG GET timeout"), "1) \"timeout\"\n2) \"7\"");
    assert_eq!(client.run("CONFIG GET hz"), "1) \"hz\"\n2) \"13\"");
}

/// Starts the server with this file as its first argument.
fn with_conf(text: &[u8]) -> Server {
    let directory = with_files(&[("redis.conf", text)]);
    let program = Program::Under("set -- redis.conf \"$@\"".to_string());
    Server::start_in(directory, program, &[])
}

#[test]
fn config_rewrite_puts_the_values_into_the_file_and_a_start_reads_them_back() {
    let conf = b"# How long?\ntimeout 5\n\nrename-command FLUSHALL ''\nrequirepass old\nsave 900 1\n# the end\n";
    let mut server = with_conf(conf);
    let path = server.dir().join("redis.conf");
    fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).expect("its mode");
    let mut client = server.client();
    assert_eq!(client.run("AUTH old"), "OK");
    for command in [
        "CONFIG SET timeout 7 maxclients 100 requirepass 'a b'",
        "CONFIG REWRITE",
        "CONFIG REWRITE",
    ] {
        assert_eq!(client.run(command), "OK", "{command}");
    }
    let text = fs::read_to_string(&path).expect("a file");
    let kept = "# How long?\ntimeout 7\n\nrename-command FLUSHALL ''\nrequirepass \"a b\"\nsave 900 1\n# the end\n\n\
                # Generated by CONFIG REWRITE\n";
    assert!(text.starts_with(kept), "{text}");
    assert_eq!(text.matches("maxclients 100").count(), 1, "{text}");
    let mode = fs::metadata(&path).expect("a file").permissions().mode();
    assert_eq!(mode & 0o777, 0o600, "there is a password in it");
    let names = fs::read_dir(server.dir()).expect("a directory").count();
    assert_eq!(names, 2, "the file and the log's directory");

    let all = client.run("CONFIG GET *");
    server.kill();
    server.start_again();
    let mut client = server.client();
    assert_eq!(client.run("AUTH 'a b'"), "OK");
    assert!(client.run("FLUSHALL").starts_with("(error) ERR unknown command"));
    assert_eq!(client.run("CONFIG GET *"), all);
    fs::remove_file(&path).expect("it is there");
    assert_eq!(client.run("CONFIG REWRITE"), "OK");
    assert!(fs::read_to_string(&path).expect("a file").contains("\nrequirepass \"a b\"\n"));
}

#[test]
fn config_rewrite_that_cannot_write_leaves_the_file_as_it_was() {
    let server = Server::start(&[]);
    let error = "(error) ERR The server is running without a config file";
    assert_eq!(server.client().run("CONFIG REWRITE"), error);
    let server = with_conf(b"timeout 5\n");
    let path = server.dir().join("redis.conf");
    // A directory in the place of the file cannot be read as one.
    fs::remove_file(&path).and_then(|()| fs::create_dir(&path)).expect("a directory");
    let error = server.client().run("CONFIG REWRITE");
    assert_eq!(error, "(error) ERR Rewriting config file: Is a directory");
    server.wait_for_line("CONFIG REWRITE failed: Is a directory");
    fs::remove_dir(&path).and_then(|()| fs::write(&path, "timeout 5\n")).expect("a file");
    // Nor can the new text be written where there is a directory.
    let temporary = server.dir().join(format!("redis.conf.{}", server.pid()));
    fs::create_dir(&temporary).expect("a directory");
    let error = server.client().run("CONFIG REWRITE");
    assert_eq!(error, "(error) ERR Rewriting config file: Is a directory");
    assert_eq!(fs::read_to_string(&path).expect("a file"), "timeout 5\n");
}

#[test]
fn a_relative_logfile_is_in_dir_wherever_dir_is_said() {
    for flags in [["--logfile", "x.log", "--dir", "sub"], ["--dir", "sub", "--logfile", "x.log"]] {
        let directory = with_files(&[("sub/file", b"")]);
        let flags = [&flags[..], &["--bind", "192.0.2.7"]].concat();
        let (status, output) = refused(&directory, &flags);
        assert_eq!(status.code(), Some(1), "{output}");
        assert!(directory.0.join("sub/x.log").exists(), "{output}");
        assert!(!directory.0.join("x.log").exists());
    }
}

#[test]
fn a_later_option_takes_back_what_is_not_here_and_the_rest_is_told_at_once() {
    let directory = with_files(&[(
        "service.conf",
        b"cluster-enabled yes\ntls-port 6380\nloadmodule x.so\ntimeout 0 # never\nsave 900 1 # rarely\n",
    )]);
    let flags = ["--include", "service.conf", "--cluster-enabled", "no"];
    let (_, output) = refused(&directory, &flags);
    let lines: Vec<&str> = output.lines().collect();
    let begin = "simple-redis: cannot use '";
    for (line, option) in
        lines.iter().zip(["tls-port 6380", "loadmodule", "timeout 0 #", "save 900"])
    {
        assert!(line.starts_with(&format!("{begin}{option}")), "{output}");
    }
    assert_eq!(lines.len(), 4, "{output}");
    let directory = with_files(&[("service.conf", b"cluster-enabled yes\ntls-port 6380\n")]);
    let flags = [&flags[..], &["--tls-port", "0"]].concat();
    Server::start_in(directory, Program::Ours, &flags);
}

#[test]
fn without_a_log_a_start_loads_the_snapshot_or_says_what_is_wrong_with_it() {
    let whole =
        b"REDIS0011\xfe\x02\xfc\x01\0\0\0\0\0\0\0\0\x01x\x01v\0\x01k\x01v\xff\0\0\0\0\0\0\0\0";
    let directory = with_files(&[("dump.rdb", whole)]);
    let server = Server::start_in(directory, Program::Ours, &["--appendonly", "no"]);
    server.wait_for_line("loaded 1 keys from ");
    assert_eq!(server.client().run("INFO keyspace").matches("db2:keys=1,").count(), 1);
    let directory = with_files(&[("dump.rdb", &whole[..whole.len() - 1])]);
    let (status, said) = refused(&directory, &["--appendonly", "no"]);
    assert_eq!(status.code(), Some(1));
    assert!(said.contains("/dump.rdb: at offset ") && said.contains("before its end"), "{said}");
}

#[test]
fn a_snapshot_that_is_passed_over_is_said_once() {
    let log = ["--appendonly", "yes"];
    for (more, name) in [(&[][..], "dump.rdb"), (&["--dbfilename", "x.rdb"], "x.rdb")] {
        let directory = with_files(&[(name, b"REDIS0010")]);
        let flags = &[&log, more].concat();
        let mut server = Server::start_in(directory, Program::Ours, flags);
        server.wait_for_line(&format!("/{name} is not read"));
        server.client().run("SET k v");
        server.restart();
        let says = |line: &String| line.contains("is not read");
        assert!(!server.lines().iter().any(says), "there is a log now");
    }
    let server = Server::start(&["--appendonly", "no"]);
    let lines = server.lines().join("\n");
    assert!(!lines.contains("is not read"), "there is none: {lines}");
}

#[test]
fn a_password_may_hold_any_bytes() {
    let bytes: Vec<u8> = (1..=255).filter(|byte| !b"\"\\\n".contains(byte)).collect();
    let line = [b"requirepass \"", &bytes[..], b"\\x00\"\n"].concat();
    let password = [&bytes[..], b"\0"].concat();
    let directory = with_files(&[("secret.conf", &line)]);
    let server = Server::start_in(directory, Program::Ours, &["--include", "secret.conf"]);
    let mut client = server.client();
    assert!(client.run("AUTH x").starts_with("(error) WRONGPASS"));
    assert_eq!(client.call(&[&b"AUTH"[..], &password]).to_string(), "OK");
    let get = [&b"CONFIG"[..], b"GET", b"requirepass"];
    let values =
        |value: &[u8]| Value::Array(vec![Value::bulk("requirepass"), Value::Bulk(value.to_vec())]);
    assert_eq!(client.call(&get), values(&password));
    let set = [&b"CONFIG"[..], b"SET", b"requirepass", b"\xff\xfe"];
    assert_eq!(client.call(&set).to_string(), "OK");
    assert_eq!(client.call(&get), values(b"\xff\xfe"));
    let auth = [&b"AUTH"[..], b"\xff\xfe"];
    assert_eq!(server.client().call(&auth).to_string(), "OK");
}

#[test]
fn dir_and_logfile_may_have_names_that_are_no_text() {
    let directory = with_files(&[("bytes.conf", b"logfile \xff.log\nbind 192.0.2.7\n")]);
    let (_, output) = refused(&directory, &["bytes.conf"]);
    assert!(output.contains("cannot listen"), "{output}");
    let names = fs::read_dir(&directory.0).expect("a directory");
    let names: Vec<_> = names.map(|entry| entry.expect("an entry").file_name()).collect();
    let is_there = names.iter().any(|name| name.as_bytes() == b"\xff.log");
    assert!(is_there, "{names:?}");
    let directory = with_files(&[("bytes.conf", b"appendfilename \xff\n")]);
    let (_, output) = refused(&directory, &["bytes.conf"]);
    assert!(output.contains("appendfilename must be UTF-8"), "{output}");
}

#[test]
fn the_loader_may_be_told_to_run_the_program() {
    let maps = fs::read_to_string("/proc/self/maps").unwrap_or_default();
    let mut files = maps.lines().filter_map(|line| line.split(' ').next_back());
    let Some(loader) = files.find(|file| file.contains("/ld-linux")) else {
        let _ = writeln!(std::io::stderr(), "skipped: there is no loader of glibc");
        return;
    };
    let (_, printed) = run_to_end(Command::new(loader).arg(ours()).arg("--version"));
    assert!(printed.starts_with("simple-redis "), "{printed}");
}
