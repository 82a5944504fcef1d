//! Kills under load. Each client writes to a database of its own, by a script that follows from a
//! number: so its history is two numbers, how much it has sent and how much was acknowledged, and
//! what is found after the kill must be what the script leaves after some step between the two.
//! Less would be lost, more or other would be invented; and since the steps are of all kinds
//! (SET, HSET, DEL, MULTI…EXEC), so would be half a transaction or two steps in the wrong order.
//! With `KILLS=500` each test kills as often as that.

use crate::support::{Client, Server, encode, eventually};
use crate::{Dump, dump, random, record};
use std::collections::BTreeMap;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;

const CLIENTS: usize = 4;

#[test]
fn nothing_acknowledged_is_lost_by_twenty_kills_under_load() {
    kill_and_look(20, &["--appendfsync", "everysec"]);
}

#[test]
fn nothing_acknowledged_is_lost_by_kills_when_every_reply_waits_for_the_disk() {
    kill_and_look(6, &["--appendfsync", "always"]);
}

#[test]
fn nothing_acknowledged_is_lost_by_kills_when_nobody_calls_fsync() {
    kill_and_look(6, &["--appendfsync", "no"]);
}

#[derive(Clone, Copy, Default, Debug)]
struct History {
    acknowledged: u64,
    sent: u64,
}

fn kill_and_look(rounds: usize, flags: &[&str]) {
    let wanted = std::env::var("KILLS").map(|kills| kills.parse().unwrap());
    let rounds = wanted.unwrap_or(rounds);
    let mut random = random();
    let mut server = Server::start(flags);
    let mut histories = [History::default(); CLIENTS];
    for round in 0..rounds {
        let target = 50 + random.below(1500);
        let with_rewrite = random.below(2) == 0;
        histories = load_until_killed(&mut server, histories, target, with_rewrite);
        server.start_again();
        let found = dump(&mut server.client(), CLIENTS);
        for (db, history) in histories.iter_mut().enumerate() {
            let state = of_database(&found, db);
            let fits = |step: &u64| script_after(db, *step) == state;
            let steps = history.acknowledged..=history.sent;
            let Some(step) = steps.clone().find(fits) else {
                panic!("round {round}, client {db}: {state:?} is no state of the steps {steps:?}");
            };
            // There the client goes on: what was not acknowledged may be there or not.
            *history = History { acknowledged: step, sent: step };
        }
    }
    let steps: u64 = histories.iter().map(|history| history.acknowledged).sum();
    eprintln!("{flags:?}: {rounds} kills, {steps} steps of {CLIENTS} clients, all there");
}

/// Lets the clients write until `target` steps are acknowledged, then kills the server.
fn load_until_killed(
    server: &mut Server,
    histories: [History; CLIENTS],
    target: usize,
    with_rewrite: bool,
) -> [History; CLIENTS] {
    let done = AtomicUsize::new(0);
    let results = Mutex::new(histories);
    thread::scope(|scope| {
        for (db, &history) in histories.iter().enumerate() {
            let client = server.client();
            let (done, results) = (&done, &results);
            scope.spawn(move || {
                let history = write_until_closed(client, db, history, done);
                results.lock().unwrap()[db] = history;
            });
        }
        if with_rewrite {
            server.client().send(&["BGREWRITEAOF"]);
        }
        eventually("enough writes", || done.load(Ordering::Relaxed) >= target);
        server.kill();
    });
    results.into_inner().unwrap()
}

/// Runs the script from where it stands, one to six steps at a time, until the server is gone.
fn write_until_closed(
    mut client: Client,
    db: usize,
    mut history: History,
    done: &AtomicUsize,
) -> History {
    client.send(&["SELECT", &db.to_string()]);
    if client.try_read().is_err() {
        return history;
    }
    loop {
        let first = history.sent + 1;
        let last = history.sent + 1 + history.sent % 6;
        let steps: Vec<Vec<Vec<u8>>> = (first..=last).map(|step| commands(db, step)).collect();
        history.sent = last;
        if client.try_raw(&steps.concat().concat()).is_err() {
            return history;
        }
        for commands in steps {
            for _ in commands {
                match client.try_read() {
                    Ok(reply) => assert!(!reply.to_string().contains("error"), "{reply}"),
                    Err(_) => return history,
                }
            }
            history.acknowledged += 1;
            done.fetch_add(1, Ordering::Relaxed);
        }
    }
}

/// What the script does at this step, as the commands that say it.
fn commands(db: usize, step: u64) -> Vec<Vec<u8>> {
    let key = format!("key{}", step % 7);
    match step % 5 {
        0 => vec![encode(&["SET", &key, &long_value(db, step)])],
        1 => vec![record(&format!("HSET hash f{} {step}", step % 11))],
        2 => vec![record(&format!("DEL {key}"))],
        3 => vec![record(&format!("SET {key} {step}"))],
        _ => vec![
            record("MULTI"),
            record(&format!("SET left {step}")),
            record(&format!("HSET right at {step}")),
            record("EXEC"),
        ],
    }
}

/// Of any length up to some thousand bytes, so that kills also tear records.
fn long_value(db: usize, step: u64) -> String {
    format!("{db}-{step}-").repeat((step * 7919 % 997) as usize)
}

/// What the script has left after so many steps, as `dump` shows it.
fn script_after(db: usize, steps: u64) -> BTreeMap<Vec<u8>, String> {
    let mut strings = BTreeMap::new();
    let mut fields = BTreeMap::new();
    // What older steps did, younger ones have done again.
    for step in steps.saturating_sub(200) + 1..=steps {
        let key = format!("key{}", step % 7);
        match step % 5 {
            0 => drop(strings.insert(key, long_value(db, step))),
            1 => drop(fields.insert(format!("f{}", step % 11), step)),
            2 => drop(strings.remove(&key)),
            3 => drop(strings.insert(key, step.to_string())),
            _ => drop(strings.insert("left".into(), step.to_string())),
        }
    }
    let hash = |fields: &BTreeMap<String, u64>| {
        let pairs = fields.iter().map(|(field, step)| {
            let pair = [field.clone(), step.to_string()].map(crate::Value::bulk);
            crate::Value::Array(pair.to_vec())
        });
        format!("{} until (integer) -1", crate::Value::Array(pairs.collect()).sorted())
    };
    let mut state = BTreeMap::new();
    if let Some(left) = strings.get("left") {
        let step = left.parse().unwrap();
        state.insert(b"right".to_vec(), hash(&[("at".into(), step)].into()));
    }
    for (key, value) in strings {
        state.insert(key.into_bytes(), format!("\"{value}\" until (integer) -1"));
    }
    if !fields.is_empty() {
        state.insert(b"hash".to_vec(), hash(&fields));
    }
    state
}

fn of_database(dump: &Dump, db: usize) -> BTreeMap<Vec<u8>, String> {
    let here = dump.iter().filter(|((of, _), _)| *of == db);
    here.map(|((_, key), value)| (key.clone(), value.clone())).collect()
}
