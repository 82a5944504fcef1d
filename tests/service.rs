//! The server as a service: in the background, with a pid file, on a Unix socket, under a service manager, and with
//! commands that have other names.

mod support;

use std::fs;
use std::io::{Read, Write};
use std::net::{Ipv4Addr, Shutdown, SocketAddr, TcpListener};
use std::os::linux::net::SocketAddrExt;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::{SocketAddr as UnixAddress, UnixDatagram, UnixStream};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;
use support::{Client, Directory, Program, Server, eventually, ours, refused, run_to_end};

/// A port that nobody has.
fn free_port() -> u16 {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a free port");
    listener.local_addr().expect("an address").port()
}

/// Starts the program with `in.conf` as its standard input. Whether the process ended well, and what it printed.
fn start(directory: &Directory, flags: &str) -> (bool, String) {
    let script = format!("exec < in.conf; exec '{}' {flags}", ours().display());
    let (status, output) =
        run_to_end(Command::new("sh").args(["-c", &script]).current_dir(&directory.0));
    (status.success(), output)
}

fn text(path: &Path) -> String {
    fs::read_to_string(path).unwrap_or_default()
}

#[test]
fn in_the_background_it_serves_when_the_first_process_ends_and_says_why_it_does_not() {
    let directory = Directory::new();
    let input = "daemonize yes\npidfile x.pid\nlogfile x.log\nrequirepass sesame\n";
    fs::write(directory.0.join("in.conf"), input).expect("a file");
    let port = free_port();
    let flags = format!("--port {port} --requirepass '' -");
    let (is_well, output) = start(&directory, &flags);
    assert!(is_well, "{output}");
    let address: SocketAddr = (Ipv4Addr::LOCALHOST, port).into();
    let mut client = Client::connect(address).expect("it serves already");
    let info = client.run("INFO server");
    let pid = text(&directory.0.join("x.pid"));
    assert!(info.contains(&format!("process_id:{}\\r", pid.trim_end())), "{info}");
    assert!(
        output.contains(&format!("process {} serves in the background", pid.trim_end())),
        "{output}"
    );
    eventually("the log says so", || text(&directory.0.join("x.log")).contains("Ready to accept"));
    let null = fs::read_link(format!("/proc/{}/fd/1", pid.trim_end())).expect("its output");
    assert_eq!(null, Path::new("/dev/null"));

    // The second one cannot have the port. It says so, and leaves the files of the first one alone.
    let (is_well, output) = start(&directory, &flags);
    assert!(!is_well && output.contains("Address already in use"), "{output}");
    let (is_well, output) = start(&directory, &format!("--timeout x {flags}"));
    assert!(!is_well && output.contains("'timeout x'"), "{output}");
    assert_eq!(text(&directory.0.join("x.pid")), pid);

    client.send(&["SHUTDOWN"]);
    let process = PathBuf::from(format!("/proc/{}", pid.trim_end()));
    eventually("it ends", || !process.exists());
    assert!(!directory.0.join("x.pid").exists());
}

#[test]
fn a_pid_file_that_cannot_be_written_is_a_warning() {
    let server = Server::start(&["--pidfile", "/no/such/directory/x.pid"]);
    server.wait_for_line("cannot write /no/such/directory/x.pid");
    let mut server = Server::start(&["--pidfile", "x.pid"]);
    assert_eq!(text(&server.dir().join("x.pid")), format!("{}\n", server.pid()));
    server.shut_down();
    assert!(!server.dir().join("x.pid").exists());
}

#[test]
fn what_a_killed_server_has_left_is_no_obstacle_to_the_next_start() {
    let directory = Directory::new();
    fs::write(directory.0.join("x.pid"), "123456789 and more\n").expect("a file");
    let flags =
        ["--pidfile", "x.pid", "--unixsocket", "x.sock", "--port", &free_port().to_string()];
    let mut server = Server::start_in(directory, Program::Ours, &flags);
    let (pid_file, socket) = (server.dir().join("x.pid"), server.dir().join("x.sock"));
    for _ in 0..2 {
        assert_eq!(text(&pid_file), format!("{}\n", server.pid()));
        assert!(ask(&socket, "PING\r\nQUIT\r\n").starts_with("+PONG"));
        server.crash();
    }
    server.shut_down();
    assert!(!pid_file.exists() && !socket.exists());
}

/// What a client of the Unix socket is answered. The last command is QUIT.
fn ask(socket: &Path, commands: &str) -> String {
    let mut stream = UnixStream::connect(socket).expect("it is there");
    stream.set_read_timeout(Some(Duration::from_secs(30))).expect("a timeout");
    stream.write_all(commands.as_bytes()).expect("it takes the commands");
    let mut answer = String::new();
    stream.read_to_string(&mut answer).expect("an answer and an end");
    answer
}

#[test]
fn a_unix_socket_is_served_as_a_port_is() {
    let directory = Directory::new();
    let socket = directory.0.join("x.sock");
    // What a killed server has left.
    fs::write(&socket, "").expect("a file");
    let port = free_port().to_string();
    let flags = ["--unixsocket", "x.sock", "--unixsocketperm", "700", "--port", &port];
    let mut server = Server::start_in(directory, Program::Ours, &flags);
    server.wait_for_line("The server is now ready to accept connections at x.sock");
    let mode = fs::metadata(&socket).expect("a socket").permissions().mode();
    assert_eq!(mode & 0o777, 0o700);
    let answer = ask(&socket, "SET k v\r\nGET k\r\nCLIENT INFO\r\nQUIT\r\n");
    assert!(answer.starts_with("+OK\r\n$1\r\nv\r\n"), "{answer}");
    assert!(answer.contains(" addr=x.sock:0 laddr=x.sock:0 ") && answer.contains(" flags=U "));

    // Order between clients, and who has hung up: both look into the socket.
    let mut client = server.client();
    let mut waits = UnixStream::connect(&socket).expect("it is there");
    waits.write_all(b"BLPOP list 0\r\n").expect("it takes the command");
    eventually("it is blocked", || client.run("INFO clients").contains("blocked_clients:1"));
    drop(waits);
    assert_eq!(client.run("RPUSH list a"), "(integer) 1", "nobody waits any more");
    let mut subscriber = UnixStream::connect(&socket).expect("it is there");
    subscriber.write_all(b"SUBSCRIBE news\r\n").expect("it takes the command");
    eventually("it listens", || client.run("PUBLISH news hello") == "(integer) 1");
    drop(subscriber);
    assert_eq!(client.run("PUBLISH news hello"), "(integer) 0");

    let mut monitor = server.client();
    assert_eq!(monitor.run("MONITOR"), "OK");
    // Much at once, of which the answers are read late.
    let mut many = UnixStream::connect(&socket).expect("it is there");
    let value = "v".repeat(1000);
    many.write_all(format!("SET large {value}\r\n").as_bytes()).expect("it takes the command");
    many.write_all("GET large\r\n".repeat(2_000).as_bytes())
        .expect("it takes all, and answers later");
    many.shutdown(Shutdown::Write).expect("an end");
    let mut answer = String::new();
    many.read_to_string(&mut answer).expect("all answers");
    assert_eq!(answer.len(), 5 + 2_000 * (1000 + 9));
    let seen = monitor.read().to_string();
    assert!(seen.contains("[0 unix:x.sock] \"SET\" \"large\""), "{seen}");
    assert_eq!(client.run("CLIENT KILL ADDR x.sock:0"), "(integer) 0");

    server.shut_down();
    assert!(!socket.exists());
}

#[test]
fn a_server_may_have_a_unix_socket_alone() {
    let directory = Directory::new();
    let socket = directory.0.join("x.sock");
    let flags =
        format!("--unixsocket '{}' --port 0 --daemonize yes --pidfile ''", socket.display());
    fs::write(directory.0.join("in.conf"), "").expect("a file");
    let (is_well, output) = start(&directory, &flags);
    assert!(is_well, "{output}");
    assert!(ask(&socket, "INFO server\r\nQUIT\r\n").contains("\r\ntcp_port:0\r\n"));
    ask(&socket, "SHUTDOWN\r\n");
    assert!(!socket.exists());
    let flags = ["--unixsocket", "/no/such/x.sock"];
    let (_, output) = refused(&directory, &flags);
    assert!(
        output.contains("cannot listen on the Unix socket /no/such/x.sock: No such"),
        "{output}"
    );
}

#[test]
fn systemd_is_told_when_the_server_is_ready_and_when_it_ends() {
    let directory = Directory::new();
    let path = directory.0.join("notify.sock");
    let name = format!("simple-redis-test-{}", std::process::id());
    let unnamed = UnixAddress::from_abstract_name(&name).expect("a name");
    let with_file = (UnixDatagram::bind(&path), path.display().to_string(), "systemd");
    for (manager, name, mode) in
        [with_file, (UnixDatagram::bind_addr(&unnamed), format!("@{name}"), "auto")]
    {
        let manager = manager.expect("a socket");
        manager.set_read_timeout(Some(Duration::from_secs(30))).expect("a timeout");
        let program = Program::Under(format!("export NOTIFY_SOCKET='{name}'"));
        let mut server = Server::start_in(Directory::new(), program, &["--supervised", mode]);
        wait_to_hear(&manager, "READY=1");
        let info = server.client().run("INFO server");
        assert!(info.contains("process_supervised:systemd"), "{info}");
        server.shut_down();
        wait_to_hear(&manager, "STOPPING=1");
    }
    let server = Server::start(&["--supervised", "systemd"]);
    server.wait_for_line("supervised systemd: no service manager is there");
    assert!(server.client().run("INFO server").contains("process_supervised:no"));
}

/// Waits for a message with this line.
fn wait_to_hear(socket: &UnixDatagram, line: &str) {
    let mut message = [0; 1000];
    loop {
        let length = socket.recv(&mut message).expect("a message in time");
        let text = String::from_utf8_lossy(&message[..length]);
        if text.lines().any(|one| one == line) {
            return;
        }
    }
}

const RENAMES: &[&str] = &[
    "--rename-command",
    "SET",
    "put",
    "--rename-command",
    "GET",
    "set",
    "--rename-command",
    "CONFIG",
    "",
    "--rename-command",
    "RPUSH",
    "push",
    "--rename-command",
    "BLPOP",
    "bpop",
    "--rename-command",
    "NONE",
    "",
];

#[test]
fn a_renamed_command_is_found_by_its_other_name_alone_and_the_log_knows_it_by_its_own() {
    let mut server = Server::start(RENAMES);
    server.wait_for_line("rename-command: there is no command 'NONE'");
    let mut client = server.client();
    assert_eq!(client.run("PUT k v"), "OK");
    assert_eq!(client.run("SET k"), "\"v\"");
    assert_eq!(client.run("SET k v"), "(error) ERR wrong number of arguments for 'get' command");
    for command in ["GET k", "CONFIG GET *", "RPUSH l a"] {
        assert!(client.run(command).starts_with("(error) ERR unknown command"), "{command}");
    }
    for command in ["MULTI", "Put a 1", "push l a b", "EXEC", "put e 1 EX 1000"] {
        assert!(!client.run(command).starts_with("(error)"), "{command}");
    }
    assert_eq!(
        client.run("EVAL \"return redis.call('put', 's', redis.call('set', 'a'))\" 0"),
        "OK"
    );
    let error = client.run("EVAL \"return redis.call('get', 's')\" 0");
    assert!(error.contains("Unknown Redis command called from script"), "{error}");
    let mut waits = server.client();
    waits.send(&["bpop", "later", "0"]);
    eventually("it is blocked", || client.run("INFO clients").contains("blocked_clients:1"));
    assert_eq!(client.run("push later x"), "(integer) 1");
    assert_eq!(waits.read().to_string(), "1) \"later\"\n2) \"x\"");
    assert_eq!(client.run("COMMAND INFO get config"), "1) (nil)\n2) (nil)");
    assert!(client.run("COMMAND LIST FILTERBY PATTERN config*").contains("empty"));
    assert!(client.run("COMMAND DOCS put").contains("\"set\""));
    let stats = client.run("INFO commandstats");
    assert!(stats.contains("cmdstat_set:calls=4") && !stats.contains("put"), "{stats}");

    let log = server.log();
    let mut names =
        log.iter().map(|record| String::from_utf8_lossy(&record[0]).to_ascii_lowercase());
    let known = ["select", "set", "rpush", "lpop", "multi", "exec"];
    assert!(names.all(|name| known.contains(&name.as_str())), "{log:?}");
    server.crash();
    let mut client = server.client();
    assert_eq!(client.run("SET s"), "\"1\"");
    assert_eq!(client.run("LRANGE l 0 -1"), "1) \"a\"\n2) \"b\"");
}

#[test]
fn a_log_that_redis_server_has_written_with_other_names_is_loaded() {
    let directory = Directory::new();
    fs::create_dir(directory.0.join("appendonlydir")).expect("a directory");
    let record = |words: &[&str]| {
        let words = words.iter().map(|word| format!("${}\r\n{word}\r\n", word.len()));
        let words: Vec<String> = words.collect();
        format!("*{}\r\n{}", words.len(), words.concat())
    };
    let log = record(&["SELECT", "0"]) + &record(&["put", "k", "v"]) + &record(&["SET", "l", "w"]);
    let manifest = "file appendonly.aof.1.incr.aof seq 1 type i\n";
    for (end, text) in [("1.incr.aof", log.as_str()), ("manifest", manifest)] {
        let path = directory.0.join(format!("appendonlydir/appendonly.aof.{end}"));
        fs::write(path, text).expect("a file");
    }
    let server = Server::start_in(directory, Program::Ours, RENAMES);
    let mut client = server.client();
    assert_eq!(client.run("SET k"), "\"v\"", "by its other name");
    assert_eq!(client.run("SET l"), "\"w\"", "by its own");
}

/// A new directory with the log of a server.
fn with_log_of(server: &Server) -> Directory {
    let directory = Directory::new();
    let [from, to] = [server.dir(), &directory.0].map(|dir| dir.join("appendonlydir"));
    fs::create_dir(&to).expect("a directory");
    for entry in fs::read_dir(from).expect("a log") {
        let entry = entry.expect("a file");
        fs::copy(entry.path(), to.join(entry.file_name())).expect("a copy");
    }
    directory
}

/// What src/handler/README.md says of the way to a Redis with the same lines, with the redis-server that
/// REDIS_SERVER names (scripts/conformance.sh).
#[test]
fn a_redis_server_with_the_same_names_loads_our_log_after_a_rewrite_without_them() {
    let Ok(redis) = std::env::var("REDIS_SERVER") else {
        let _ = writeln!(std::io::stderr(), "REDIS_SERVER is not set");
        return;
    };
    let renames = ["--rename-command", "SET", "put", "--rename-command", "CONFIG", ""];
    let mut ours = Server::start(&renames);
    assert_eq!(ours.client().run("PUT k v"), "OK");
    ours.shut_down();
    let start = |of, flags: &[&str]| {
        Server::try_start_in(with_log_of(of), Program::Redis(redis.clone()), flags)
    };
    let lines = start(&ours, &renames).err().unwrap_or_default();
    assert!(lines.contains("Unknown command 'set' reading the append only file"), "{lines}");
    let harmless = start(&ours, &renames[3..]).expect("CONFIG is never logged");
    assert_eq!(harmless.client().run("GET k"), "\"v\"");
    let mut between = start(&ours, &["--aof-use-rdb-preamble", "yes"]).expect("it starts");
    assert!(between.client().run("BGREWRITEAOF").contains("started"));
    let is_there = |name: &str| between.dir().join("appendonlydir").join(name).exists();
    eventually("it has a base", || is_there("appendonly.aof.1.base.rdb"));
    eventually("it is done", || {
        between.client().run("INFO persistence").contains("aof_rewrite_in_progress:0")
    });
    between.shut_down();
    let theirs = start(&between, &renames).expect("an RDB file has no names of commands");
    assert_eq!(theirs.client().run("GET k"), "\"v\"");
}

#[test]
fn a_command_is_not_given_the_name_of_another_one() {
    let flags = ["--rename-command", "GET", "SET"];
    let (status, output) = refused(&Directory::new(), &flags);
    assert_eq!(status.code(), Some(1));
    assert!(
        output.contains("cannot rename the command 'GET': there is a command 'SET'"),
        "{output}"
    );
}
