//! What a client writes under load, step by step, and what is left of it after any step.
//!
//! A step follows from a number, so a history is a number too. `commands` says what is sent at a step, and a
//! `Model` says what the commands do: a little server, of only these commands. Steps are of all types. Values
//! get so large that their encodings change, and are deleted again. Some expire, in the year 2100. Each step
//! is all or nothing: one command, or MULTI and EXEC, or a script.

use crate::shown;
use crate::support::Value;
use crate::support::state::{KINDS, kind_of};
use std::collections::{BTreeMap, BTreeSet, VecDeque};

/// After that many steps the collections are deleted, and are small again.
const EPOCH: u64 = 3_000;

/// What client number `db` sends at this step. Several changes are sent by EXEC, or by EVAL.
pub fn commands(db: usize, step: u64) -> Vec<Vec<String>> {
    let mut commands = changes(db, step);
    if commands.len() > 1 && (step / 20).is_multiple_of(2) {
        let called = |words: &Vec<String>| format!("redis.call('{}') ", words.join("', '"));
        let script = commands.iter().map(called).collect();
        commands = vec![vec!["EVAL".into(), script, "0".into()]];
    } else if commands.len() > 1 {
        commands.insert(0, vec!["MULTI".into()]);
        commands.push(vec!["EXEC".into()]);
    }
    commands
}

/// What is changed at this step.
fn changes(db: usize, step: u64) -> Vec<Vec<String>> {
    let key = format!("key{}", step % 7);
    let long = long_value(db, step);
    let (round, is_odd) = (step / 20, step / 20 % 2 == 1);
    let lines = match step % 20 {
        0 => format!("SET {key} {long}"),
        1 => format!("HSET hash f{} {step}", step % 11),
        2 => format!("DEL {key}"),
        3 => format!("SET {key} {step}"),
        4 => format!("RPUSH list {step} b{step} c{step}"),
        5 => format!("SADD numbers {step} {} {}", step * 7, step * 70_000),
        6 => format!("ZADD zset {} m{step} {step} n{} 5 o{step}", step % 13, step % 17),
        7 => format!("SETBIT bits {} 1", step % 4_001),
        8 => format!("HSET large f{step} {long}"),
        9 if is_odd => "LMOVE list list LEFT RIGHT".into(),
        9 => "LMOVE list other LEFT RIGHT".into(),
        10 => "LPOP other".into(),
        // What was a set of numbers alone is none any more.
        11 if round % 50 > 40 => format!("SADD numbers text {step}"),
        11 => format!("SADD numbers 1 {step}"),
        12 => format!("SREM numbers {round} {}", step - 7),
        13 => "ZPOPMIN zset".into(),
        14 => format!("PEXPIREAT list {}", 4_102_444_800_000 + step),
        15 => format!("LPUSH list {long}"),
        16 => "RENAME zset sorted\nRENAME sorted zset".into(),
        17 if step % EPOCH < 20 => "DEL list numbers moved zset bits large".into(),
        17 => format!("SMOVE numbers moved {}", (step - 12) * 7),
        18 => format!("LTRIM list 0 {}", 60 + step % 30),
        _ => format!("SET left {step}\nHSET right at {step}\nRPUSH both {step}\nLTRIM both -2 -1"),
    };
    let words = |line: &str| line.split(' ').map(str::to_string).collect();
    lines.lines().map(words).collect()
}

/// At times of some thousand bytes, so that kills also tear records.
fn long_value(db: usize, step: u64) -> String {
    let most = if step % 60 < 20 { 997 } else { 61 };
    format!("{db}-{step}-").repeat((step * 7919 % most) as usize + 1)
}

/// The elements of a value. Those of a hash have values, and those of a sorted set scores.
type Elements = VecDeque<(Vec<u8>, Option<Vec<u8>>)>;

struct Held {
    /// As TYPE says it.
    kind: &'static str,
    elements: Elements,
    deadline: i64,
}

/// The keys of a database.
#[derive(Default)]
pub struct Model(BTreeMap<String, Held>);

impl Model {
    /// Does what client number `db` sends at this step.
    pub fn run(&mut self, db: usize, step: u64) {
        for command in changes(db, step) {
            self.apply(&command.iter().map(String::as_str).collect::<Vec<_>>());
            self.0.retain(|_, held| !held.elements.is_empty());
        }
    }

    fn apply(&mut self, words: &[&str]) {
        match *words {
            ["DEL", ref keys @ ..] => self.0.retain(|key, _| !keys.contains(&key.as_str())),
            ["RENAME", from, to] => {
                let held = self.0.remove(from).expect("it is there");
                self.0.insert(to.into(), held);
            }
            ["PEXPIREAT", key, at] => {
                self.held(key, "list").deadline = at.parse().expect("a number");
            }
            ["SET", key, value] => {
                self.0.remove(key);
                put(self.elements(key, "string"), value, None);
            }
            ["SETBIT", key, at, "1"] => {
                let (string, at) = (self.elements(key, "string"), at.parse::<usize>().unwrap());
                let bytes = string.pop_front().unwrap_or_default().0;
                string.push_front((with_bit(bytes, at), None));
            }
            ["HSET", key, field, value] => put(self.elements(key, "hash"), field, Some(value)),
            ["SADD", key, ref members @ ..] => {
                members.iter().for_each(|member| put(self.elements(key, "set"), member, None));
            }
            ["SREM", key, ref members @ ..] => {
                for member in members {
                    take(self.elements(key, "set"), member);
                }
            }
            ["SMOVE", from, to, member] => {
                if take(self.elements(from, "set"), member) {
                    put(self.elements(to, "set"), member, None);
                }
            }
            ["ZADD", key, ref pairs @ ..] => {
                let zset = self.elements(key, "zset");
                pairs.chunks(2).for_each(|pair| put(zset, pair[1], Some(pair[0])));
                zset.make_contiguous().sort_by_key(|(member, score)| {
                    let score = String::from_utf8_lossy(score.as_ref().unwrap());
                    (score.parse::<u64>().unwrap(), member.clone())
                });
            }
            ["ZPOPMIN", key] => drop(self.elements(key, "zset").pop_front()),
            _ => self.apply_to_list(words),
        }
    }

    fn apply_to_list(&mut self, words: &[&str]) {
        let list = self.elements(words[1], "list");
        match *words {
            ["RPUSH", _, ref elements @ ..] => {
                list.extend(elements.iter().map(|element| (element.as_bytes().to_vec(), None)));
            }
            ["LPUSH", _, element] => list.push_front((element.into(), None)),
            ["LPOP", _] => drop(list.pop_front()),
            ["LMOVE", _, to, "LEFT", "RIGHT"] => {
                let element = list.pop_front();
                self.elements(to, "list").extend(element);
            }
            ["LTRIM", _, "0", last] => list.truncate(last.parse::<usize>().unwrap() + 1),
            ["LTRIM", _, "-2", "-1"] => {
                let gone = list.len().saturating_sub(2);
                list.drain(..gone);
            }
            _ => panic!("the model does not know {words:?}"),
        }
    }

    /// The value of a key. One that is missing gets an empty one of this type.
    fn held(&mut self, key: &str, kind: &'static str) -> &mut Held {
        let empty = || Held { kind, elements: Elements::new(), deadline: -1 };
        let held = self.0.entry(key.into()).or_insert_with(empty);
        assert_eq!(held.kind, kind, "{key}");
        held
    }

    fn elements(&mut self, key: &str, kind: &'static str) -> &mut Elements {
        &mut self.held(key, kind).elements
    }

    /// As `crate::dump` shows a database.
    pub fn shown(&self) -> BTreeMap<Vec<u8>, String> {
        let shown = self.0.iter().map(|(key, held)| {
            let parts = held.elements.iter().flat_map(|(one, other)| [Some(one), other.as_ref()]);
            let parts: Vec<Vec<u8>> = parts.flatten().cloned().collect();
            let value = shown(kind_of(held.kind.as_bytes()), &parts);
            let deadline = Value::Integer(held.deadline);
            (key.as_bytes().to_vec(), format!("{value} until {deadline}"))
        });
        shown.collect()
    }
}

/// Puts an element in the place of the one of this name, or behind the others.
fn put(elements: &mut Elements, name: &str, value: Option<&str>) {
    let value = value.map(|value| value.as_bytes().to_vec());
    match elements.iter_mut().find(|(other, _)| other == name.as_bytes()) {
        Some(element) => element.1 = value,
        None => elements.push_back((name.into(), value)),
    }
}

/// Takes an element away, and returns whether it was there.
fn take(elements: &mut Elements, name: &str) -> bool {
    let before = elements.len();
    elements.retain(|(other, _)| other != name.as_bytes());
    elements.len() < before
}

fn with_bit(mut bytes: Vec<u8>, at: usize) -> Vec<u8> {
    bytes.resize(bytes.len().max(at / 8 + 1), 0);
    bytes[at / 8] |= 0x80 >> (at % 8);
    bytes
}

#[test]
fn the_steps_make_values_of_every_type() {
    let mut model = Model::default();
    (0..EPOCH).for_each(|step| model.run(0, step));
    let made: BTreeSet<&str> = model.0.values().map(|held| held.kind).collect();
    let types = KINDS.iter().map(|kind| kind.name).collect();
    assert_eq!(made, types, "the types of what `commands` makes, and those of KINDS");
}
