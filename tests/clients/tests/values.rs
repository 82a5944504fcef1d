//! Values come back as they went in: short ones, binary ones, big ones, those of another client.
//!
//! This is what most programs do with Redis all day, and what the server's ancestor got wrong:
//! values over 4 KB came back as zero bytes, and it served one client in its life.

use redis::{Client, Commands, Connection, RedisResult, Value, cmd};
use simple_redis_clients::Server;
use std::collections::{BTreeMap, HashMap};
use std::thread;

/// `length` bytes of every value, CR and LF among them, in an order that a shift by some bytes or
/// a repeated block would betray.
fn bytes(length: usize) -> Vec<u8> {
    let mut state = 1u32;
    let mut next = || {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        (state >> 24) as u8
    };
    (0..length).map(|_| next()).collect()
}

#[test]
fn a_value_set_is_the_value_got() -> RedisResult<()> {
    let server = Server::start();
    let mut client = Client::open(server.url())?.get_connection()?;
    () = client.set("greeting", "hello")?;
    assert_eq!(client.get::<_, String>("greeting")?, "hello");
    () = client.set("greeting", "")?;
    assert_eq!(client.get::<_, Option<String>>("greeting")?, Some(String::new()));
    assert_eq!(client.get::<_, Option<String>>("nobody")?, None);
    () = client.set("number", 42)?;
    assert_eq!(client.get::<_, i64>("number")?, 42);
    assert_eq!(client.del::<_, i64>(&["greeting", "number", "nobody"])?, 2);
    assert!(!client.exists::<_, bool>("greeting")?);
    Ok(())
}

#[test]
fn a_hash_keeps_each_field_and_counts_the_new_ones() -> RedisResult<()> {
    let server = Server::start();
    let mut client = Client::open(server.url())?.get_connection()?;
    let pairs = [("name", "Ada"), ("born", "1815"), ("field", "mathematics")];
    () = client.hset_multiple("person", &pairs)?;
    assert_eq!(client.hset::<_, _, _, i64>("person", "name", "Ada Lovelace")?, 0);
    assert_eq!(client.hset::<_, _, _, i64>("person", "died", 1852)?, 1);
    assert_eq!(client.hlen::<_, i64>("person")?, 4);
    let person: HashMap<String, String> = client.hgetall("person")?;
    assert_eq!(person["name"], "Ada Lovelace");
    assert_eq!(person["died"], "1852");
    assert_eq!(client.hdel::<_, _, i64>("person", &["born", "died", "nothing"])?, 2);
    assert_eq!(client.hget::<_, _, Option<String>>("person", "born")?, None);
    Ok(())
}

#[test]
fn keys_fields_and_values_may_hold_any_bytes() -> RedisResult<()> {
    let server = Server::start();
    let mut client = Client::open(server.url())?.get_connection()?;
    let all: Vec<u8> = (0..=255).collect();
    let hostile: [&[u8]; 5] = [b"", b"\0", b"\r\n", b"$3\r\nfoo\r\n", &all];
    for key in hostile {
        for value in hostile {
            () = client.set(key, value)?;
            assert_eq!(client.get::<_, Vec<u8>>(key)?, value);
        }
    }
    for field in hostile {
        () = client.hset("hash", field, field)?;
    }
    let hash: BTreeMap<Vec<u8>, Vec<u8>> = client.hgetall("hash")?;
    assert_eq!(hash.len(), hostile.len());
    assert!(hash.iter().all(|(field, value)| field == value));
    Ok(())
}

#[test]
fn big_values_come_back_whole() -> RedisResult<()> {
    let server = Server::start();
    let mut client = Client::open(server.url())?.get_connection()?;
    // Around the sizes of likely buffers, where a reader that straddles two of them would fail.
    let edges = [4 << 10, 8 << 10, 16 << 10, 32 << 10, 64 << 10].into_iter();
    let near = edges.flat_map(|edge| edge - 40..edge + 2);
    for length in near.chain([100_000, 10_000_000]) {
        let value = bytes(length);
        () = client.set("big", &value)?;
        assert!(client.get::<_, Vec<u8>>("big")? == value, "a value of {length} bytes differs");
        assert_eq!(client.strlen::<_, usize>("big")?, length);
    }
    let value = bytes(10_000_000);
    () = client.hset("big hash", "field", &value)?;
    assert!(client.hget::<_, _, Vec<u8>>("big hash", "field")? == value);
    Ok(())
}

#[test]
fn a_client_sees_what_another_was_told_is_done() -> RedisResult<()> {
    let server = Server::start();
    let client = Client::open(server.url())?;
    let (mut a, mut b) = (client.get_connection()?, client.get_connection()?);
    for n in 0..1000 {
        () = a.set("n", n)?;
        assert_eq!(b.get::<_, i32>("n")?, n);
        () = b.hset("h", "n", n)?;
        assert_eq!(a.hget::<_, _, i32>("h", "n")?, n);
    }
    Ok(())
}

#[test]
fn clients_at_once_do_not_disturb_each_other() -> RedisResult<()> {
    let server = Server::start();
    let client = Client::open(server.url())?;
    let work = |name: &str| -> RedisResult<()> {
        let mut own: Connection = client.get_connection()?;
        for n in 0..500 {
            let value = bytes(n * 10);
            () = own.set(format!("{name}:{n}"), &value)?;
            assert_eq!(own.get::<_, Vec<u8>>(format!("{name}:{n}"))?, value);
            () = own.incr("together", 1)?;
        }
        Ok(())
    };
    thread::scope(|scope| {
        let workers = ["a", "b", "c", "d"].map(|name| scope.spawn(move || work(name)));
        workers.into_iter().try_for_each(|worker| worker.join().expect("no panic"))
    })?;
    let mut own = client.get_connection()?;
    assert_eq!(own.get::<_, i64>("together")?, 4 * 500);
    assert_eq!(cmd("DBSIZE").query::<i64>(&mut own)?, 4 * 500 + 1);
    Ok(())
}

#[test]
fn scans_visit_every_key_and_every_field() -> RedisResult<()> {
    let server = Server::start();
    let mut client = Client::open(server.url())?.get_connection()?;
    let mut pipe = redis::pipe();
    for n in 0..1000 {
        pipe.set(format!("key:{n}"), n).ignore();
        pipe.set(format!("other:{n}"), n).ignore();
        pipe.hset("fields", format!("field:{n}"), n).ignore();
        pipe.hset("few fields", n % 5, n).ignore();
    }
    () = pipe.query(&mut client)?;

    // SCAN may give a key twice, but no key never: hence the maps and their counts.
    let keys = client.scan::<String>()?.collect::<RedisResult<Vec<_>>>()?;
    let keys: BTreeMap<_, _> = keys.into_iter().map(|key| (key, ())).collect();
    assert_eq!(keys.len(), 2002);
    let keys = client.scan_match::<_, String>("key:*7")?.collect::<RedisResult<Vec<_>>>()?;
    assert!(keys.iter().all(|key| key.starts_with("key:") && key.ends_with('7')));
    assert_eq!(keys.into_iter().map(|key| (key, ())).collect::<BTreeMap<_, _>>().len(), 100);

    let fields = client.hscan::<_, (String, i64)>("fields")?.collect::<RedisResult<Vec<_>>>()?;
    let fields: BTreeMap<_, _> = fields.into_iter().collect();
    assert_eq!(fields.len(), 1000);
    assert!(fields.iter().all(|(field, n)| *field == format!("field:{n}")));
    let fields = client.hscan::<_, (i64, i64)>("few fields")?.collect::<RedisResult<Vec<_>>>()?;
    assert_eq!(fields.len(), 5);
    Ok(())
}

#[test]
fn a_resp3_connection_gets_the_types_of_resp3() -> RedisResult<()> {
    let server = Server::start();
    let mut old = Client::open(server.url())?.get_connection()?;
    let mut new = Client::open(server.url_resp3())?.get_connection()?;
    () = new.hset("hash", "field", "value")?;
    assert_eq!(old.hgetall::<_, HashMap<String, String>>("hash")?["field"], "value");
    assert_eq!(new.hgetall::<_, HashMap<String, String>>("hash")?["field"], "value");

    let types = |client: &mut Connection| -> RedisResult<[Value; 4]> {
        Ok([
            cmd("HGETALL").arg("hash").query(client)?,
            cmd("GET").arg("nobody").query(client)?,
            cmd("CONFIG").arg("GET").arg("appendonly").query(client)?,
            cmd("INFO").arg("server").query(client)?,
        ])
    };
    assert!(matches!(
        types(&mut old)?,
        [Value::Array(_), Value::Nil, Value::Array(_), Value::BulkString(_)]
    ));
    assert!(matches!(
        types(&mut new)?,
        [Value::Map(_), Value::Nil, Value::Map(_), Value::VerbatimString { .. }]
    ));
    Ok(())
}
