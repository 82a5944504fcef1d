//! SHUTDOWN while replicas are behind, and clients that wait when their server becomes a replica.

use crate::fake::Replica;
use crate::info;
use crate::support::{Client, Server, eventually};

const CALLED_OFF: &str = "(error) ERR Errors trying to SHUTDOWN. Check logs.";

const UNBLOCKED: &str = "(error) UNBLOCKED force unblock from blocking operation, instance state changed (master -> \
                         replica?)";

fn blocked(client: &mut Client, count: usize) {
    eventually("they wait", || info(client, "clients", "blocked_clients") == count.to_string());
}

fn shuts_down(client: &mut Client) -> bool {
    client.run("INFO server").contains("shutdown_in_milliseconds:")
}

/// The answer to what was sent before.
fn answer(client: &mut Client) -> String {
    client.read().to_string().trim_end().to_string()
}

#[test]
fn shutdown_that_waits_stops_writes_alone_and_can_be_called_off() {
    let mut server = Server::start(&["--shutdown-timeout", "1000"]);
    let mut replica = Replica::following(&server);
    let mut client = server.client();
    let [mut first, mut second, mut writer] = [(); 3].map(|()| server.client());
    client.run("SET key 1");
    first.send(&["SHUTDOWN"]);
    blocked(&mut client, 1);
    assert!(shuts_down(&mut client));
    assert_eq!(client.run("GET key"), "\"1\"");
    writer.send(&["SET", "key", "2"]);
    blocked(&mut client, 2);
    // As in Redis, it waits with the first one, even if it says NOW.
    second.send(&["SHUTDOWN", "NOW"]);
    blocked(&mut client, 3);
    assert_eq!(client.run("CLIENT UNPAUSE"), "OK");
    assert_eq!(client.run("GET key"), "\"1\"");
    assert_eq!(client.run("SHUTDOWN ABORT"), "OK");
    assert_eq!(answer(&mut first), CALLED_OFF);
    assert_eq!(answer(&mut second), CALLED_OFF);
    assert_eq!(answer(&mut writer), "OK");
    assert!(!shuts_down(&mut client));
    assert_eq!(client.run("SHUTDOWN ABORT"), "(error) ERR No shutdown in progress.");
    assert_eq!(client.run("GET key"), "\"2\"");
    // It goes on without its client, and what is sent meanwhile is not lost.
    first.send(&["SHUTDOWN"]);
    eventually("it waits", || shuts_down(&mut client));
    drop(first);
    writer.send(&["SET", "key", "3"]);
    blocked(&mut client, 2);
    replica.acknowledge_all();
    server.wait_for_end();
    server.start_again();
    assert_eq!(server.client().run("GET key"), "\"2\"");
}

#[test]
fn whoever_waits_is_told_though_the_exec_of_replicaof_ends_its_own_client() {
    let server = Server::start(&[]);
    let [mut client, mut waiting] = [(); 2].map(|()| server.client());
    waiting.send(&["BLPOP", "key", "0"]);
    blocked(&mut client, 1);
    let mut ordering = server.client();
    let id = ordering.run("CLIENT ID").replace("(integer) ", "");
    let kill = format!("CLIENT KILL ID {id} SKIPME no");
    for command in ["MULTI", "REPLICAOF localhost 1", &kill, "EXEC"] {
        ordering.raw(format!("{command}\r\n").as_bytes());
    }
    assert_eq!(answer(&mut waiting), UNBLOCKED);
}

#[test]
fn whoever_waits_is_told_when_its_server_becomes_a_replica() {
    let server = Server::start(&[]);
    let mut client = server.client();
    let commands =
        ["WAIT 1 0", "WAITAOF 0 1 0", "BLPOP key 0", "BZPOPMIN key 0", "BLMOVE a b LEFT LEFT 0"];
    let mut waiting = commands.map(|command| {
        let mut client = server.client();
        client.raw(format!("{command}\r\n").as_bytes());
        client
    });
    blocked(&mut client, commands.len());
    assert_eq!(client.run("REPLICAOF localhost 1"), "OK");
    for (client, command) in waiting.iter_mut().zip(commands) {
        assert_eq!(answer(client), UNBLOCKED, "{command}");
        assert_eq!(client.run("PING"), "PONG");
    }
    blocked(&mut client, 0);
}
