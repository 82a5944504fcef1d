//! Everything that a server holds, key by key.

use super::{Client, Value};
use std::io;

/// One key. A hash has its fields and values in turn: in order while it is small, since then the
/// order is that of insertion; sorted by field when it is a table. A sorted set has members and scores.
#[derive(Clone, PartialEq, Eq)]
pub struct Entry {
    pub db: usize,
    pub key: Vec<u8>,
    pub kind: &'static Kind,
    pub encoding: Vec<u8>,
    /// Unix time in milliseconds, or -1.
    pub deadline: i64,
    pub value: Vec<Vec<u8>>,
}

/// How a value of one type is read and compared.
#[derive(Debug, PartialEq, Eq)]
pub struct Kind {
    /// As TYPE says it.
    pub name: &'static str,
    /// In `commands.txt` of the fuzzer, a key of this type; its keys begin with that.
    pub slot: &'static str,
    /// The command that reads a value whole, in front of the key, and what stands behind the key.
    read: (&'static str, &'static [&'static str]),
    /// The command that adds an element to such a value: the name in front of the key, and what stands
    /// behind it, where `#` is a number that is different for each element. (tests/memory.rs)
    pub grow: (&'static str, &'static [&'static str]),
    /// How many elements of the answer belong together.
    pub width: usize,
    /// The encodings in which the order is that of a table, so each server's own.
    tables: &'static [&'static str],
    /// Whether the log keeps the encoding. How a string is stored depends on how it came to be,
    /// and the log keeps only what it is: INCRBYFLOAT is logged as SET, in Redis too.
    pub keeps_encoding: bool,
}

/// Every type there is (`tidy.rs` asks). What the fuzzer sends, how tests compare values, and what they
/// measure follows from this list.
pub const KINDS: &[Kind] = &[
    Kind {
        name: "string",
        slot: "k",
        read: ("GET", &[]),
        grow: ("APPEND", &["element of a string #"]),
        width: 1,
        tables: &[],
        keeps_encoding: false,
    },
    Kind {
        name: "list",
        slot: "l",
        read: ("LRANGE", &["0", "-1"]),
        grow: ("RPUSH", &["element #"]),
        width: 1,
        tables: &[],
        keeps_encoding: true,
    },
    Kind {
        name: "set",
        slot: "t",
        read: ("SMEMBERS", &[]),
        grow: ("SADD", &["member #"]),
        width: 1,
        // Up to Redis 7.0 what is in a listpack here is in a table there.
        tables: &["hashtable", "listpack"],
        keeps_encoding: true,
    },
    Kind {
        name: "hash",
        slot: "h",
        read: ("HGETALL", &[]),
        grow: ("HSET", &["field #", "value #"]),
        width: 2,
        tables: &["hashtable"],
        keeps_encoding: true,
    },
    Kind {
        name: "zset",
        slot: "z",
        read: ("ZRANGE", &["0", "-1", "WITHSCORES"]),
        grow: ("ZADD", &["#", "member #"]),
        width: 2,
        tables: &[],
        keeps_encoding: true,
    },
];

/// # Panics
/// If nobody has said how such values are compared.
pub fn kind_of(name: &[u8]) -> &'static Kind {
    KINDS.iter().find(|kind| kind.name.as_bytes() == name).unwrap_or_else(|| {
        panic!(
            "TYPE says {}, which KINDS in tests/support/state.rs does not know: add there how \
                 such a value is read and compared",
            name.escape_ascii()
        )
    })
}

/// Reads the first `databases` databases. Expired keys are not in it, and stay where they are:
/// KEYS does not delete them.
///
/// # Errors
/// Whatever the connection says; and `Other` if a question is answered with an error, or a key with a
/// collection in which there is nothing.
pub fn dump(client: &mut Client, databases: usize) -> io::Result<Vec<Entry>> {
    let mut entries = Vec::new();
    for db in 0..databases {
        ask(client, &[b"SELECT", db.to_string().as_bytes()])?;
        let mut keys = texts(&ask(client, &[b"KEYS", b"*"])?);
        keys.sort();
        let questions = |key: &Vec<u8>| {
            [&["TYPE"][..], &["OBJECT", "ENCODING"], &["PEXPIRETIME"]].map(|words| {
                let words = words.iter().map(|word| word.as_bytes().to_vec());
                words.chain([key.clone()]).collect()
            })
        };
        let questions: Vec<Vec<Vec<u8>>> = keys.iter().flat_map(questions).collect();
        let answers = client.try_call_all(&questions)?;
        for (key, answer) in keys.into_iter().zip(answers.chunks(3)) {
            let [kind, encoding, Value::Integer(deadline)] = answer else {
                return Err(io::Error::other(format!("PEXPIRETIME answers {:?}", answer[2])));
            };
            let (kind, encoding) = (kind_of(kind.text()), encoding.text().to_vec());
            let value = read(client, &key, kind, &encoding)?;
            entries.push(Entry { db, key, kind, encoding, deadline: *deadline, value });
        }
    }
    Ok(entries)
}

fn read(client: &mut Client, key: &[u8], kind: &Kind, encoding: &[u8]) -> io::Result<Vec<Vec<u8>>> {
    let mut words = vec![kind.read.0.as_bytes(), key];
    words.extend(kind.read.1.iter().map(|word| word.as_bytes()));
    let value = texts(&ask(client, &words)?);
    if value.is_empty() {
        let (name, key) = (kind.name, key.escape_ascii());
        return Err(io::Error::other(format!("there is nothing in the {name} \"{key}\"")));
    }
    if kind.tables.iter().any(|table| table.as_bytes() == encoding) {
        let mut groups: Vec<&[Vec<u8>]> = value.chunks(kind.width).collect();
        groups.sort();
        return Ok(groups.concat());
    }
    Ok(value)
}

/// What is answered with an error says nothing of the state, and two servers may agree in it.
fn ask(client: &mut Client, words: &[&[u8]]) -> io::Result<Value> {
    match client.try_call(words)? {
        Value::Error(text) => {
            let name = words[0].escape_ascii();
            Err(io::Error::other(format!("{name} answers {}", text.escape_ascii())))
        }
        answer => Ok(answer),
    }
}

/// The texts of an answer's elements; of an answer that has none, its own.
pub fn texts(answer: &Value) -> Vec<Vec<u8>> {
    match answer {
        Value::Array(_) | Value::Set(_) | Value::Map(_) => {
            answer.items().into_iter().map(text_of).collect()
        }
        one => vec![text_of(one)],
    }
}

/// What is compared of one element. Two elements that differ have two texts, or a change would not be seen.
///
/// # Panics
/// If nobody has said what that is.
fn text_of(value: &Value) -> Vec<u8> {
    match value {
        Value::Simple(text) | Value::Bulk(text) | Value::Double(text) | Value::BigNumber(text) => {
            text.clone()
        }
        Value::Integer(number) => number.to_string().into_bytes(),
        Value::Boolean(_) | Value::Array(_) => format!("{value:?}").into_bytes(),
        other => panic!("what is compared of {other:?} is not said in tests/support/state.rs"),
    }
}
