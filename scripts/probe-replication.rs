//! The part of probe.rs that measures replicas: how long a full synchronization takes and who waits meanwhile, and
//! how far a replica is behind.

use super::{Client, DEPTH, command, pipeline, probing, until};
use std::error::Error;
use std::io;
use std::thread;
use std::time::{Duration, Instant};

/// Values of the types that are no strings, ten elements each: by turns a hash, a list, a set, a sorted set.
pub fn types(port: u16, count: usize) -> io::Result<()> {
    pipeline(port, count, DEPTH, |i, out| {
        let key = format!("value:{i:010}");
        let elements: Vec<String> = (0..10).map(|n| format!("element:{n}")).collect();
        let numbers: Vec<String> = (0..10).map(|n| (i + n).to_string()).collect();
        let (name, with_numbers) = [("HSET", 1), ("RPUSH", 0), ("SADD", 0), ("ZADD", 2)][i % 4];
        let mut args = vec![name, &key];
        for (element, number) in elements.iter().zip(&numbers) {
            match with_numbers {
                0 => args.push(element),
                1 => args.extend([element.as_str(), number]),
                _ => args.extend([number.as_str(), element]),
            }
        }
        command(out, &args);
    })
}

/// Makes a replica of the server at `replica`; returns how long it took until its link was up, and the longest wait of a
/// client that wrote to the primary meanwhile.
pub fn sync(primary: u16, replica: u16) -> Result<(Duration, Duration), Box<dyn Error>> {
    let mut took = Duration::ZERO;
    let worst = probing(primary, || {
        let start = Instant::now();
        Client::connect(replica)?.call(&["REPLICAOF", "127.0.0.1", &primary.to_string()])?;
        until(replica, &["INFO", "replication"], |info| info.contains("master_link_status:up"))?;
        took = start.elapsed();
        Ok(())
    })?;
    let [one, other] = [primary, replica].map(|port| Client::connect(port)?.call(&["DBSIZE"]));
    match one? == other? {
        true => Ok((took, worst)),
        false => Err("the replica has not got all keys".into()),
    }
}

/// What a replica was behind while others wrote.
pub struct Lag {
    /// From the write of a marker to its arrival.
    pub median: Duration,
    pub longest: Duration,
    /// The largest difference of the offsets.
    pub bytes: u64,
}

/// The end of the load is told by a key.
const END: &str = "lag:end";

/// Measures until the key `lag:end` is there.
pub fn lag(primary: u16, replica: u16) -> Result<Lag, Box<dyn Error>> {
    let (mut primary, mut replica) = (Client::connect(primary)?, Client::connect(replica)?);
    let (mut times, mut bytes) = (Vec::new(), 0);
    for n in 0.. {
        let marker = n.to_string();
        primary.call(&["SET", "lag:marker", &marker])?;
        let start = Instant::now();
        while replica.call(&["GET", "lag:marker"])? != marker {
            if start.elapsed() > super::PATIENCE {
                return Err("a marker does not arrive".into());
            }
            thread::sleep(Duration::from_micros(100));
        }
        times.push(start.elapsed());
        let from = offset(&mut primary, "master_repl_offset:")?;
        bytes = bytes.max(from.saturating_sub(offset(&mut replica, "slave_repl_offset:")?));
        // No key is `-1`.
        if primary.call(&["GET", END])? != "-1" {
            break;
        }
        thread::sleep(Duration::from_millis(5));
    }
    times.sort();
    Ok(Lag { median: times[times.len() / 2], longest: times[times.len() - 1], bytes })
}

fn offset(client: &mut Client, name: &str) -> Result<u64, Box<dyn Error>> {
    let info = client.call(&["INFO", "replication"])?;
    let found = info.lines().find_map(|line| line.strip_prefix(name));
    Ok(found.ok_or("INFO has no offset")?.parse()?)
}
