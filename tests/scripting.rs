//! Scripts that run for long, or many at once: nobody sleeps at the lock, nobody sees half of a script, and what
//! scripts may use has a bound.
//!
//! What scripts answer is in `tests/transcripts/scripting/`, and kills of a server that runs them are in
//! `tests/persistence/kills.rs`.

mod support;

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;
use support::process::memory;
use support::{Client, Server, Stop, Value, eventually};

const BUSY: &str = "(error) BUSY Redis is busy running a script. You can only call SCRIPT KILL or SHUTDOWN NOSAVE.";
const KILLED: &str = "(error) ERR Script killed by user with SCRIPT KILL...";

/// Sends a script that runs for long, and waits until others are told.
fn start_busy(server: &Server, command: &str, script: &str) -> (Client, Client) {
    let mut runs = server.client();
    runs.send(&[command, script, "0"]);
    let asks = wait_until_busy(server);
    (runs, asks)
}

fn wait_until_busy(server: &Server) -> Client {
    let mut asks = server.client();
    eventually("the script is busy", || asks.run("GET k") == BUSY);
    asks
}

#[test]
fn while_a_script_is_busy_others_are_told_and_may_kill_it() {
    let server = Server::start(&["--lua-time-limit", "20"]);
    for (command, script) in [
        ("EVAL", "while true do end"),
        ("EVAL_RO", "while true do redis.call('GET', 'k') end"),
        ("EVAL", "while true do pcall(function() while true do redis.call('PING') end end) end"),
        ("EVAL", "local t = {} t[1], t[2] = t, t return t"),
    ] {
        let (mut runs, mut asks) = start_busy(&server, command, script);
        for refused in ["PING", "SET k v", "EVAL_RO 'return 1' 0", "SCRIPT FLUSH", "KEYS *"] {
            assert_eq!(asks.run(refused), BUSY);
        }
        assert_eq!(asks.run("WATCH k"), "OK");
        assert_eq!(asks.run("MULTI"), "OK");
        assert_eq!(asks.run("SET k v"), BUSY);
        let aborted = "(error) EXECABORT Transaction discarded because of: BUSY";
        assert!(asks.run("EXEC").starts_with(aborted));
        assert_eq!(asks.run("SHUTDOWN"), BUSY);
        assert_eq!(asks.run("SCRIPT KILL"), "OK");
        let reply = runs.read().to_string();
        let place = reply.strip_prefix(KILLED).unwrap_or("no");
        // The last one has ended, and its answer does not.
        let is_over = script.ends_with("return t");
        assert!(place.ends_with(if is_over { "" } else { "on @user_script:1." }), "{reply}");
        assert_eq!(place.is_empty(), is_over, "{reply}");
        assert_eq!(asks.run("PING"), "PONG");
        let none = "(error) NOTBUSY No scripts in execution right now.";
        assert_eq!(asks.run("SCRIPT KILL"), none);
    }
}

#[test]
fn a_short_answer_that_takes_long_to_write_can_be_killed() {
    let server = Server::start(&["--lua-time-limit", "1000"]);
    // Before a map is written, its keys are counted, and this one has many that are gone.
    let script = "
        local empty = {}
        for i = 1, 1e5 do empty[i + .5] = 1 end
        for key in pairs(empty) do empty[key] = nil end
        local map, maps, all = {map = empty}, {}, {}
        for i = 1, 1000 do maps[i] = map end
        for i = 1, 1000 do all[i] = maps end
        return all";
    let (mut runs, mut asks) = start_busy(&server, "EVAL", script);
    assert_eq!(asks.run("SCRIPT KILL"), "OK");
    assert_eq!(runs.read().to_string(), KILLED);
}

#[test]
fn while_a_long_script_is_compiled_others_are_told_and_may_kill_it() {
    let server = Server::start(&["--lua-time-limit", "20"]);
    // Each name is looked for in ninety functions with many variables.
    let variables = "l, ".repeat(190);
    let open = format!("function f() local {variables} l ").repeat(90);
    let source = [&open[..], &"x() ".repeat(200_000), &"end ".repeat(90)].concat();
    let compiles = "return loadstring(ARGV[1])";
    let (mut runs, mut wants) = (server.client(), server.client());
    for command in [
        vec!["EVAL", &source, "0"],
        vec!["EVAL_RO", &source, "0"],
        vec!["SCRIPT", "LOAD", &source],
        vec!["EVAL", compiles, "0", &source],
    ] {
        for in_exec in [false, true] {
            if in_exec {
                assert_eq!(runs.run("MULTI"), "OK");
                assert_eq!(runs.call(&command).to_string(), "QUEUED");
                runs.send(&["EXEC"]);
            } else {
                runs.send(&command);
            }
            let mut asks = wait_until_busy(&server);
            assert_eq!(wants.run("SET k v"), BUSY);
            assert_eq!(asks.run("SCRIPT KILL"), "OK");
            let reply = runs.read().to_string();
            assert!(reply.contains("Script killed by user with SCRIPT KILL..."), "{reply}");
            assert_eq!(asks.run("SET k v"), "OK");
        }
    }
    assert!(wants.run("INFO memory").contains("number_of_cached_scripts:1\\r"));
}

#[test]
fn what_a_killed_script_was_about_to_call_is_not_called_by_the_next_one() {
    let server = Server::start(&["--lua-time-limit", "20"]);
    let (mut runs, mut asks) =
        start_busy(&server, "EVAL", "while true do redis.call('KEYS', 'x') end");
    assert_eq!(asks.run("SCRIPT KILL"), "OK");
    assert!(runs.read().to_string().starts_with(KILLED));
    assert_eq!(asks.call(&["EVAL", "return redis.call('ECHO', 'y')", "0"]).to_string(), "\"y\"");
}

#[test]
fn a_script_that_has_written_is_not_killed_and_a_shutdown_takes_back_all_of_it() {
    let mut server = Server::start(&["--lua-time-limit", "20"]);
    server.client().run("SET before 1");
    let script = "redis.call('SET', 'half', '1') while true do redis.call('INCR', 'n') end";
    let (_runs, mut asks) = start_busy(&server, "EVAL", script);
    assert!(asks.run("SCRIPT KILL").starts_with("(error) UNKILLABLE Sorry the script already"));
    assert_eq!(asks.run("SHUTDOWN SAVE"), BUSY);
    asks.send(&["SHUTDOWN", "NOSAVE"]);
    server.wait_for_end();
    server.start_again();
    let mut client = server.client();
    assert_eq!(client.run("MGET before half n"), "1) \"1\"\n2) (nil)\n3) (nil)");
}

#[test]
fn nobody_sees_half_of_a_script_though_it_lends_its_lock() {
    let server = Server::start(&["--lua-time-limit", "1", "--appendonly", "no"]);
    let script = "
        for i = 1, 200 do
            redis.call('INCR', 'a')
            for _ = 1, 2000 do end
            redis.call('INCR', 'b')
        end
        return redis.call('GET', 'b')";
    let (stop, seen, refused) = (AtomicBool::new(false), AtomicUsize::new(0), AtomicUsize::new(0));
    thread::scope(|scope| {
        let _stopping = Stop(&stop);
        for reader in 0..3 {
            let (mut client, stop, seen, refused) = (server.client(), &stop, &seen, &refused);
            let read: &[&str] = match reader {
                0 => &["EVAL_RO", "return redis.call('MGET', 'a', 'b')", "0"],
                _ => &["MGET", "a", "b"],
            };
            scope.spawn(move || {
                while !stop.load(Ordering::Relaxed) {
                    let reply = client.call(read);
                    if reply.to_string() == BUSY {
                        refused.fetch_add(1, Ordering::Relaxed);
                        continue;
                    }
                    let both = reply.items();
                    assert_eq!(both[0].text(), both[1].text());
                    seen.fetch_add(1, Ordering::Relaxed);
                }
            });
        }
        let mut client = server.client();
        let mut runs = 0;
        eventually("some are refused, and some see a moment between two scripts", || {
            let reply = client.call(&["EVAL", script, "0"]);
            runs += usize::from(!reply.is_error());
            let counts = [&seen, &refused].map(|count| count.load(Ordering::Relaxed));
            runs >= 20 && counts.iter().all(|count| *count >= 20)
        });
        assert_eq!(client.run("GET a"), format!("\"{}\"", runs * 200));
    });
}

#[test]
fn many_scripts_that_read_run_at_once_and_a_writer_is_not_forgotten() {
    const READERS: usize = 12;
    let server = Server::start(&["--lua-time-limit", "20"]);
    let mut readers: Vec<Client> = (0..READERS).map(|_| server.client()).collect();
    for reader in &mut readers {
        reader.send(&["EVAL_RO", "for i = 1, 20000 do redis.call('GET', 'k') end return 1", "0"]);
    }
    let mut writer = server.client();
    eventually("the writer writes", || writer.run("SET k v") == "OK");
    for reader in &mut readers {
        let reply = reader.read();
        assert!(reply == Value::Integer(1) || reply.to_string() == BUSY, "{reply}");
    }
}

#[test]
fn a_script_goes_on_when_its_client_has_left() {
    let server = Server::start(&["--lua-time-limit", "20"]);
    let script = "
        local begin = os.clock()
        redis.call('SET', 'n', 1)
        while os.clock() - begin < 2 do end
        redis.call('SET', 'n', 300)";
    let (runs, mut asks) = start_busy(&server, "EVAL", script);
    drop(runs);
    eventually("the script ends", || asks.run("GET n") == "\"300\"");
}

#[test]
fn a_client_that_waits_is_served_when_the_script_is_over() {
    let server = Server::start(&["--lua-time-limit", "20"]);
    let (mut waits, mut client) = (server.client(), server.client());
    waits.send(&["BLPOP", "l", "0"]);
    eventually("it waits", || client.run("INFO clients").contains("blocked_clients:1"));
    let script = "
        redis.call('RPUSH', 'l', 'a', 'b')
        for i = 1, 3000000 do end
        return redis.call('LLEN', 'l')";
    assert_eq!(client.call(&["EVAL", script, "0"]), Value::Integer(2));
    assert_eq!(waits.read().to_string(), "1) \"l\"\n2) \"a\"");
    assert_eq!(client.run("LLEN l"), "(integer) 1");
}

#[test]
fn what_a_script_calls_fits_into_a_clients_stack() {
    let server = Server::start(&[]);
    let mut client = server.client();
    client.run("RPUSH l 3 1 2");
    let deep = "
        local function f(n)
            if n > 0 then return select(2, pcall(f, n - 1)) end
            redis.call('SORT', 'l', 'STORE', 'sorted')
            redis.call('MSET', 'a', 1, 'b', 2, 'c', 3, 'd', 4, 'e', 5, 'f', 6)
            redis.pcall('INCR', 'l')
            return redis.call('ZRANGESTORE', 'z', 'missing', 0, -1) + #redis.call('COMMAND', 'DOCS')
        end
        return coroutine.wrap(function() return f(150) end)()";
    client.run("MULTI");
    client.call(&["EVAL", deep, "0"]);
    let reply = client.run("EXEC");
    assert!(!reply.contains("error"), "{reply}");
    assert_eq!(client.run("LRANGE sorted 0 -1"), "1) \"1\"\n2) \"2\"\n3) \"3\"");
}

#[test]
fn what_scripts_say_is_in_the_servers_log() {
    let server = Server::start(&["--loglevel", "notice"]);
    let mut client = server.client();
    let script = "
        redis.log(redis.LOG_VERBOSE, 'too low')
        redis.log(redis.LOG_NOTICE, 'a', 1, 'b\\r\\nc')
        for i = 1, 100000 do redis.log(redis.LOG_WARNING, 'many') end
        return 1";
    assert_eq!(client.call(&["EVAL", script, "0"]), Value::Integer(1));
    assert_eq!(client.run("EVAL \"redis.log(3, 'later')\" 0"), "(nil)");
    server.wait_for_line("# later");
    let lines = server.lines();
    assert_eq!(lines.iter().filter(|line| line.ends_with("* a 1 b  c")).count(), 1);
    let many = lines.iter().filter(|line| line.ends_with("# many")).count();
    assert!((1_000..10_000).contains(&many), "{many}");
    assert!(!lines.iter().any(|line| line.contains("too low")));
}

#[test]
fn the_scripts_of_eval_and_what_they_leave_take_bounded_memory() {
    let server = Server::start(&["--appendonly", "no"]);
    let mut client = server.client();
    let mut run = |from: usize, to: usize| {
        for i in from..to {
            let script = format!("local t = {{}} for i = 1, 50 do t[i] = '{i}' .. i end return #t");
            assert_eq!(client.call(&["EVAL", &script, "0"]), Value::Integer(50));
        }
    };
    run(0, 3_000);
    let before = memory(server.pid(), "VmRSS");
    run(3_000, 12_000);
    let grown = memory(server.pid(), "VmRSS").saturating_sub(before);
    assert!(grown < 8 << 20, "{grown} bytes");
    assert!(client.run("INFO memory").contains("number_of_cached_scripts:500\\r"));
}
