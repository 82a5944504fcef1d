//! Kills under load. Each client writes to a database of its own, by a script that follows from a
//! number: so its history is two numbers, how much it has sent and how much was acknowledged, and
//! what is found after the kill must be what the script leaves after some step between the two.
//! Less would be lost, more or other would be invented; and since the steps are of all kinds
//! (of every type, DEL, MULTI…EXEC), so would be half a transaction or two steps in the wrong order.
//! With `KILLS=500` each test kills as often as that. (Kills of clients that wait for elements are in
//! `tests/blocking.rs`.)

use crate::script::{Model, commands};
use crate::support::{Client, Server, encode, eventually};
use crate::{Dump, dump, random};
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

#[test]
fn after_a_crash_on_demand_everything_acknowledged_is_there() {
    let mut server = Server::start(&["--enable-debug-command", "yes"]);
    for crash in ["PANIC", "SEGFAULT"] {
        let mut client = server.client();
        assert_eq!(client.run(&format!("SET k {crash}")), "OK");
        client.send(&["DEBUG", crash]);
        assert!(!server.wait_for_end().success());
        server.start_again();
        assert_eq!(server.client().run("GET k"), format!("{crash:?}"));
    }
}

#[derive(Clone, Copy, Default, Debug)]
struct History {
    acknowledged: u64,
    sent: u64,
    /// The step that the client's model has reached.
    modelled: u64,
}

fn kill_and_look(rounds: usize, flags: &[&str]) {
    let wanted = std::env::var("KILLS").map(|kills| kills.parse().unwrap());
    let rounds = wanted.unwrap_or(rounds);
    let mut random = random();
    let mut server = Server::start(flags);
    let mut histories = [History::default(); CLIENTS];
    let mut models = [(); CLIENTS].map(|()| Model::default());
    for round in 0..rounds {
        let target = 50 + random.below(1500);
        let with_rewrite = random.below(2) == 0;
        histories = load_until_killed(&mut server, histories, target, with_rewrite);
        server.start_again();
        let found = dump(&mut server.client(), CLIENTS);
        for (db, (history, model)) in histories.iter_mut().zip(&mut models).enumerate() {
            let state = of_database(&found, db);
            for step in history.modelled + 1..=history.acknowledged {
                model.run(db, step);
            }
            history.modelled = history.acknowledged;
            while model.shown() != state {
                let History { acknowledged, sent, modelled } = *history;
                let steps = format!("round {round}, client {db}, steps {acknowledged} to {sent}");
                assert!(modelled < sent, "{steps}: {state:?} is the state of none");
                history.modelled += 1;
                model.run(db, history.modelled);
            }
            // There the client goes on: what was not acknowledged may be there or not.
            history.acknowledged = history.modelled;
            history.sent = history.modelled;
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
        let encoded = |step| commands(db, step).iter().map(|words| encode(words)).collect();
        let steps: Vec<Vec<Vec<u8>>> = (first..=last).map(encoded).collect();
        history.sent = last;
        let is_there = client.send_units(&steps, || {
            history.acknowledged += 1;
            done.fetch_add(1, Ordering::Relaxed);
        });
        if !is_there {
            return history;
        }
    }
}

fn of_database(dump: &Dump, db: usize) -> BTreeMap<Vec<u8>, String> {
    let here = dump.iter().filter(|((of, _), _)| *of == db);
    here.map(|((_, key), value)| (key.clone(), value.clone())).collect()
}
