//! Random commands to our server and to redis-server: the same replies, the same state, the same
//! log.
//!
//! Transcripts say what somebody thought of; this asks what nobody did. Rounds of a few thousand
//! random commands, valid and not, go to both servers over two ordinary connections, a third one
//! that subscribes and falls silent, and a fourth that iterates and looks. Everything is compared
//! byte for byte, except what is different each time by nature: `compare.rs` lists that. At the
//! end of a round both servers are killed and started on their logs, and on each other's.
//!
//! Random scripts are compared in the same way (`scripts.rs`), one for every ten commands.
//!
//! - `REDIS_SERVER`: the program to compare with, a redis-server 7.0. Without it our server runs
//!   alone: it has to stay alive, to answer every command with one well-formed reply, and to find
//!   its state again in its log.
//! - `FUZZ_OPS`: how many commands; 100,000 if unset.
//! - `FUZZ_SEED`: where chance begins; by default where the clock stands.
//! - `OURS`: another program to test in place of ours. With redis-server here too there must be no
//!   difference, or the fuzzer is wrong.
//! - `OURS_FLAGS`: more flags for it. `--hash-max-listpack-value 9` plants a difference, which must
//!   be found.
//!
//! A failure prints the line that repeats it, the last commands, and then the few that are left
//! after shrinking.

// Progress and reproduction lines belong on stderr; a test has no other place for them.
#![allow(clippy::print_stderr)]

mod command;
mod compare;
mod generate;
mod grammar;
mod log;
mod round;
mod scripts;
mod server;
mod shrink;
mod state;
#[path = "../support/mod.rs"]
mod support;
mod table;

use std::env;
use std::time::{SystemTime, UNIX_EPOCH};

use command::Command;
use generate::{Generator, Step};
use round::{End, Failure, Setting};
use scripts::Scripts;
use support::{Program, Value};

/// Commands in a round: long enough for states to grow, short enough to shrink.
const ROUND: usize = 5_000;

/// How many of them are left out for a script, which does more.
const COMMANDS_FOR_A_SCRIPT: usize = 10;

#[test]
fn random_commands_are_answered_and_logged_as_redis_server_does() {
    rounds(1, |seed, setting, length| {
        Generator::new(seed, setting.reference.is_none()).round(length)
    });
}

#[test]
fn random_scripts_return_and_do_what_they_return_and_do_in_redis_server() {
    rounds(COMMANDS_FOR_A_SCRIPT, |seed, _, length| Scripts::new(seed).round(length));
}

/// Makes steps of each seed, and compares what they do.
fn rounds(cost: usize, make: fn(u64, &Setting, usize) -> Vec<Step>) {
    let operations = variable("FUZZ_OPS").unwrap_or(100_000) as usize;
    let seed = variable("FUZZ_SEED").unwrap_or_else(|| {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).expect("the clock is past 1970");
        now.as_millis() as u64
    });
    let reference = server::reference();
    match &reference {
        Some(program) => eprintln!("comparing {} with {program}", server::ours()),
        None => eprintln!(
            "REDIS_SERVER is not set, so nothing is compared: {} only has to survive, and to \
             find its state again in its log",
            server::ours()
        ),
    }
    eprintln!("FUZZ_SEED={seed} FUZZ_OPS={operations}");

    let mut slow = 0;
    // A round's seed is all there is to it, so a failing round repeats alone.
    for (index, start) in (0..operations).step_by(ROUND).enumerate() {
        let seed = seed.wrapping_add(index as u64);
        let length = ROUND.min(operations - start);
        let setting = setting(seed, reference.clone());
        let steps = make(seed, &setting, length / cost);
        match round::run(&setting, &steps) {
            Ok(End::Agreed) => {}
            Ok(End::TooSlow) => slow += 1,
            Err(failure) => {
                let report = report(&setting, seed, length, steps, &failure);
                panic!("{}", scripts::without_prelude(&report));
            }
        }
    }
    eprintln!("no failure; {slow} rounds were cut short because the machine stood still");
}

/// Without a redis-server it still reads all of our table, and each command must be in both answers.
#[test]
fn the_command_table_says_of_each_command_what_that_of_redis_server_says() {
    let read = |program| {
        let server = server::start(&program, &[]).expect("the server starts");
        table::read(&mut server.client()).expect("COMMAND is answered")
    };
    let ours = read(server::ours());
    for (name, said) in &ours {
        let is_whole = !said.info.is_empty() && !said.docs.is_empty() && !said.group.is_empty();
        assert!(is_whole, "{name}: COMMAND or COMMAND DOCS does not know it: {said:?}");
    }
    let Some(theirs) = server::reference().map(read) else {
        eprintln!("not run: our command table beside that of redis-server");
        return;
    };
    let has_group = |group: &String| ours.values().any(|said| &said.group == group);
    let own = grammar::only_in(&[grammar::OWN, grammar::OWN_TYPES]);
    let mut differences = Vec::new();
    for (name, said) in &ours {
        // To Redis 7.0 the words behind DEBUG are arguments, the other two are of 7.2, and so is ZRANK's
        // fourth argument.
        let is_other = name.starts_with("debug|") || said.docs.ends_with("since 7.2.0");
        if is_other || ["zrank", "zrevrank"].contains(&name.as_str()) {
            continue;
        }
        match (own.contains(name), theirs.contains_key(name)) {
            (true, false) => continue,
            (true, true) => differences.push(format!("{name} is in [own], and Redis has it")),
            (false, _) => {}
        }
        let same = theirs.get(name).is_some_and(|expected| {
            // A group of which there is nothing else here needs no heading.
            let same_group = said.group == expected.group || !has_group(&expected.group);
            (&said.info, &said.docs) == (&expected.info, &expected.docs) && same_group
        });
        if !same {
            differences.push(format!("{name}\n  ours:  {said:?}\n  Redis: {:?}", theirs.get(name)));
        }
    }
    assert!(differences.is_empty(), "{}", differences.join("\n"));
}

/// What is missing must stand in the list of differences, and what is there in Redis's order.
#[test]
fn info_has_the_fields_of_redis_server_but_those_that_a_page_names() {
    let read = |program| {
        let server = server::start(&program, &[]).expect("the server starts");
        let mut client = server.client();
        table::fields(&client.run("INFO everything"))
    };
    let ours = read(server::ours());
    assert!(ours.len() > 100, "{ours:?}");
    let Some(mut theirs) = server::reference().map(read) else {
        eprintln!("not run: the fields of our INFO beside those of redis-server");
        return;
    };
    let page = include_str!("../../src/handler/README.md");
    let mut faults = Vec::new();
    theirs.retain(|name| {
        let is_named = page.contains(&format!("`{name}`"));
        if !ours.contains(name) && !is_named {
            faults.push(format!("{name} is missing, and src/handler/README.md does not say so"));
        }
        ours.contains(name)
    });
    assert!(faults.is_empty(), "{}", faults.join("\n"));
    let shared: Vec<&String> = ours.iter().filter(|name| theirs.contains(name)).collect();
    assert_eq!(shared, theirs.iter().collect::<Vec<_>>());
}

/// Both protocols, and small values that stay small or outgrow their limits at once, in turn.
fn setting(seed: u64, reference: Option<Program>) -> Setting {
    let names = [
        "--list-max-listpack-size",
        "--set-max-intset-entries",
        "--hash-max-listpack-entries",
        "--hash-max-listpack-value",
        "--zset-max-listpack-entries",
        "--zset-max-listpack-value",
    ];
    let limits = [
        ["-2", "512", "512", "64", "128", "64"],
        ["3", "3", "6", "64", "6", "64"],
        ["-1", "16", "512", "16", "128", "16"],
    ];
    let limits = limits[(seed / 2 % 3) as usize];
    let planted = env::var("OURS_FLAGS").unwrap_or_default();
    Setting {
        ours: server::ours(),
        planted: planted.split_whitespace().map(str::to_string).collect(),
        reference,
        protocol: if seed.is_multiple_of(2) { "2" } else { "3" },
        flags: names.iter().zip(limits).flat_map(|(n, l)| [n.to_string(), l.to_string()]).collect(),
    }
}

fn variable(name: &str) -> Option<u64> {
    let text = env::var(name).ok()?;
    Some(text.parse().unwrap_or_else(|_| panic!("{name} is a number, not {text}")))
}

/// Everything that somebody who reads a red build needs.
fn report(
    setting: &Setting,
    seed: u64,
    length: usize,
    steps: Vec<Step>,
    failure: &Failure,
) -> String {
    let mut text = format!(
        "\n{}\n\nTo repeat it: FUZZ_SEED={seed} FUZZ_OPS={length}\n(RESP{}, {})\n\nThe last \
         commands:\n",
        failure.what,
        setting.protocol,
        setting.flags.join(" ")
    );
    // What came after the step that failed has not been sent.
    let steps = steps[..failure.step.map_or(steps.len(), |step| step + 1)].to_vec();
    let mut lines: Vec<String> = steps.iter().rev().take(3).rev().flat_map(lines).collect();
    lines.drain(..lines.len().saturating_sub(40));
    text += &lines.join("\n");

    let mut last = None;
    let steps = shrink::shrink(steps, |steps| match round::run(setting, steps) {
        Err(failure) => {
            last = Some(failure.what);
            true
        }
        Ok(_) => false,
    });
    match last {
        Some(what) => {
            let lines: Vec<String> = steps.iter().flat_map(self::lines).collect();
            text + &format!("\n\nShrunk to:\n{}\n\n{what}\n", lines.join("\n"))
        }
        None => text + "\n\nIt did not happen again when the same commands were sent again.\n",
    }
}

/// A step as a transcript would have it: who says what.
fn lines(step: &Step) -> Vec<String> {
    let (who, units) = match step {
        Step::Send { connection: 0, units, .. } => ("a", units),
        Step::Send { units, .. } => ("b", units),
        Step::Aside { units, .. } => ("aside", units),
        Step::Deadline { units, connection: 0 } => {
            ("a, <soon> is 200 ms away and then past", units)
        }
        Step::Deadline { units, .. } => ("b, <soon> is 200 ms away and then past", units),
        Step::Hostile { bytes } => return vec![format!("bytes> {}", bytes.escape_ascii())],
        Step::Wait { waiters, units } => {
            let waiting = waiters.iter().enumerate();
            let waiting = waiting.map(|(at, command)| format!("w{at}> {command} (and waits)"));
            let waking = units.iter().flatten().map(|command| format!("a> {command}"));
            return waiting.chain(waking).collect();
        }
        Step::Look => return vec!["(compare the states)".to_string()],
        Step::Iterate { db, command } => {
            return vec![format!("db {db}> {command} (to its end)")];
        }
    };
    let mut lines: Vec<String> =
        units.iter().flatten().map(|command| format!("{who}> {command}")).collect();
    if let Step::Aside { reset: true, .. } = step {
        lines.push("aside> RESET".to_string());
    }
    lines
}

#[test]
fn a_reply_in_another_order_is_the_same_only_where_a_table_decides() {
    let parse = |bytes: &[u8]| Value::read(&mut &bytes[..], &mut vec![]).expect("well-formed");
    let (one, other) =
        (parse(b"*2\r\n$1\r\na\r\n$1\r\nb\r\n"), parse(b"*2\r\n$1\r\nb\r\n$1\r\na\r\n"));
    assert!(compare::same(&Command::new(&["keys", "*"]), &[], &one, &other));
    assert!(!compare::same(&Command::new(&["MGET", "x", "y"]), &[], &one, &other));
    // Inside a transaction the queued command decides.
    let [one, other] = [one, other].map(|reply| Value::Array(vec![reply]));
    let (exec, keys) = (Command::new(&["EXEC"]), Command::new(&["KEYS", "*"]));
    assert!(compare::same(&exec, &[keys], &one, &other));
    assert!(!compare::same(&exec, &[Command::new(&["MGET", "x", "y"])], &one, &other));
}

#[test]
fn replies_that_no_server_writes_are_refused_and_the_three_nils_differ() {
    let read = |text: &str| Value::read(&mut text.as_bytes(), &mut vec![]);
    for bytes in [
        "$+1\r\na\r\n",
        "$1\r\nab\r\n",
        "*01\r\n",
        ":-0\r\n",
        "\r\n",
        "+OK\n",
        "hello\r\n",
        "$-2\r\n",
        "#x\r\n",
        "_0\r\n",
        "=2\r\nab\r\n",
    ] {
        assert!(read(bytes).is_err(), "{bytes:?}");
    }
    let nils = ["$-1\r\n", "*-1\r\n", "_\r\n"].map(|nil| read(nil).unwrap());
    assert!(nils[0] != nils[1] && nils[1] != nils[2] && nils[0] != nils[2]);
}

#[test]
fn two_answers_that_differ_have_two_texts() {
    let texts = |bytes: &[u8]| {
        let answer = Value::read(&mut &bytes[..], &mut vec![]).expect("well-formed");
        support::state::texts(&answer)
    };
    let answers: [&[u8]; 9] = [
        b":1\r\n",
        b":2\r\n",
        b"*1\r\n,1.5\r\n",
        b"*1\r\n:3\r\n",
        b"*1\r\n#t\r\n",
        b"*1\r\n#f\r\n",
        b"*1\r\n*1\r\n:4\r\n",
        b"*1\r\n*1\r\n:5\r\n",
        b"*0\r\n",
    ];
    let all: std::collections::BTreeSet<_> = answers.iter().map(|bytes| texts(bytes)).collect();
    assert_eq!(all.len(), answers.len());
}

#[test]
#[should_panic(expected = "is not said in tests/support/state.rs")]
fn an_element_that_nobody_has_described_is_not_passed_over() {
    support::state::texts(&Value::Array(vec![Value::Nil]));
}

#[test]
#[should_panic(expected = "add there how such a value is read and compared")]
fn a_value_of_a_type_that_nobody_has_described_is_not_passed_over() {
    support::state::kind_of(b"no such type");
}

#[test]
fn shrinking_leaves_the_commands_that_fail_together() {
    let one = |number: usize| vec![Command::new(&["ECHO", &number.to_string()])];
    let send = |units| Step::Send { connection: 0, units, cuts: 0 };
    let steps = (0..20).map(|step| send((step * 5..step * 5 + 5).map(one).collect())).collect();
    let left = shrink::shrink(steps, |steps| {
        let said: Vec<String> = steps.iter().flat_map(lines).collect();
        ["a> ECHO 13", "a> ECHO 87"].iter().all(|line| said.iter().any(|said| said == line))
    });
    let said: Vec<String> = left.iter().flat_map(lines).collect();
    assert_eq!(said, ["a> ECHO 13", "a> ECHO 87"]);
}
