//! A connection has a name and a number, and can be ended by another.

use redis::{Client, Commands, Connection, RedisResult, cmd};
use simple_redis_clients::{Server, eventually};
use std::collections::HashMap;

/// The line of CLIENT LIST for the client with this number, as a map from field to value.
fn listed(through: &mut Connection, id: i64) -> RedisResult<Option<HashMap<String, String>>> {
    let list: String = cmd("CLIENT").arg("LIST").query(through)?;
    let clients = list.lines().map(|line| {
        let fields = line.split(' ').filter_map(|field| field.split_once('='));
        fields.map(|(name, value)| (name.to_string(), value.to_string())).collect()
    });
    Ok(clients.into_iter().find(|client: &HashMap<_, _>| client["id"] == id.to_string()))
}

#[test]
fn a_client_that_names_itself_is_listed_under_that_name() -> RedisResult<()> {
    let server = Server::start();
    for url in [server.url(), server.url_resp3()] {
        let client = Client::open(url)?;
        let (mut one, mut other) = (client.get_connection()?, client.get_connection()?);
        assert_eq!(one.client_getname::<Option<String>>()?, None);
        () = one.client_setname("worker-1")?;
        assert_eq!(one.client_getname::<Option<String>>()?.as_deref(), Some("worker-1"));
        let id = one.client_id()?;
        assert_ne!(id, other.client_id()?);
        let line = listed(&mut other, id)?.expect("the client is listed");
        assert_eq!(line["name"], "worker-1");
        assert_eq!(line["cmd"], "client|id");
    }
    Ok(())
}

#[test]
fn a_killed_client_runs_no_further_command() -> RedisResult<()> {
    let server = Server::start();
    let client = Client::open(server.url())?;
    let (mut one, mut other) = (client.get_connection()?, client.get_connection()?);
    let id: i64 = one.client_id()?;
    let killed: i64 = cmd("CLIENT").arg("KILL").arg("ID").arg(id).query(&mut other)?;
    assert_eq!(killed, 1);
    assert!(one.set::<_, _, ()>("key", "from the grave").is_err());
    assert!(!other.exists::<_, bool>("key")?);
    eventually("a killed client is no longer listed", || {
        listed(&mut other, id).is_ok_and(|line| line.is_none())
    });
    Ok(())
}

#[test]
fn each_connection_has_its_own_database() -> RedisResult<()> {
    let server = Server::start();
    let mut here = Client::open(server.url())?.get_connection()?;
    // Not 15 or below 8: on a server that many tests share, those belong to others.
    let there = Client::open(format!("redis://{}/14", server.address()))?;
    let mut there = there.get_connection()?;
    () = there.del("only here")?;
    () = here.set("only here", 1)?;
    assert!(!there.exists::<_, bool>("only here")?);
    () = cmd("SELECT").arg(14).query(&mut here)?;
    assert!(!here.exists::<_, bool>("only here")?);
    Ok(())
}

#[test]
fn an_error_leaves_the_connection_usable() -> RedisResult<()> {
    let server = Server::start();
    let mut client = Client::open(server.url())?.get_connection()?;
    let error = cmd("NOSUCHCOMMAND").arg("x").exec(&mut client).expect_err("an unknown command");
    assert!(error.to_string().contains("unknown command"), "{error}");
    () = client.hset("hash", "field", 1)?;
    let error = client.get::<_, String>("hash").expect_err("a hash is no string");
    assert_eq!(error.code(), Some("WRONGTYPE"));
    assert_eq!(client.hget::<_, _, i64>("hash", "field")?, 1);
    Ok(())
}
