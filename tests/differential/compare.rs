//! When are two replies the same?
//!
//! When they are equal, byte for byte. The rest of this file is the list of exceptions, each with
//! its reason: replies whose order is that of a hash table, replies that chance decides, and
//! replies that hold a clock's reading.

use std::mem::discriminant;

use crate::command::{Command, upper};
use crate::support::Value;

/// Two servers that compute "now + 100 s" read their clocks at two moments. Milliseconds.
const SKEW: i64 = 5_000;

/// The generator takes its absolute deadlines from this range (the years 2096 to 2109) and no
/// sum of now and a relative one falls in it; so here, nothing but equality will do.
const ABSOLUTE: std::ops::Range<i64> = 4_000_000_000_000..4_400_000_000_000;

/// Whether two numbers may be the same deadline, in milliseconds, computed at two moments.
pub fn close(ours: i64, theirs: i64) -> bool {
    // Before 2001 it is no deadline that was computed, but some other number.
    let computed = ours > 1_000_000_000_000 && !ABSOLUTE.contains(&ours);
    ours == theirs || (computed && ours.abs_diff(theirs) <= SKEW as u64)
}

/// Whether our reply to a command is as good as Redis's. `queue` holds the commands of the
/// transaction that EXEC ended.
pub fn same(command: &Command, queue: &[Command], ours: &Value, theirs: &Value) -> bool {
    if ours == theirs {
        return true;
    }
    if discriminant(ours) != discriminant(theirs) || ours.is_error() {
        return false;
    }
    let subcommand = command.args.get(1).map_or(String::new(), |name| upper(name));
    match (command.name().as_str(), subcommand.as_str()) {
        ("EXEC", _) => {
            let (ours, theirs) = (ours.items(), theirs.items());
            let mut results = ours.iter().zip(&theirs).zip(queue);
            ours.len() == theirs.len()
                && ours.len() == queue.len()
                && results.all(|((a, b), command)| same(command, &[], a, b))
        }
        // The order of a table, or of what has become one; the dump at the end of a round knows what is
        // small, and compares its order too. SPOP takes all that there is (`Generator::tame`).
        ("KEYS" | "HKEYS" | "HVALS" | "SMEMBERS" | "SINTER" | "SUNION" | "SDIFF", _)
        | ("SPOP", _)
        | ("PUBSUB", "CHANNELS" | "SHARDCHANNELS") => sorted(ours, 1) == sorted(theirs, 1),
        // The order of a set. (Lists and sorted sets are sorted BY constant: `commands.txt`.)
        ("SORT" | "SORT_RO", _) if keeps_order(command) => {
            let count = |name: &str| command.args.iter().filter(|arg| upper(arg) == name).count();
            let gets = count("GET").max(1);
            let is_part = count("LIMIT") > 0 && ours.items().len() == theirs.items().len();
            is_part || sorted(ours, gets) == sorted(theirs, gets)
        }
        ("HGETALL", _) | ("CONFIG", "GET") => sorted(ours, 2) == sorted(theirs, 2),
        // Chance. The end of a round asks again, where it knows what may be answered.
        ("RANDOMKEY", _) => matches!(ours, Value::Bulk(_)),
        ("HRANDFIELD" | "SRANDMEMBER" | "ZRANDMEMBER", _) => {
            same_shape(ours, theirs) && distinct(command, ours)
        }
        // Cursors are each server's own; `Step::Iterate` follows them to the end.
        ("SCAN" | "HSCAN" | "SSCAN" | "ZSCAN", _) => is_scan_reply(ours) && is_scan_reply(theirs),
        // Redis has small sets in listpacks since 7.2.
        ("OBJECT", "ENCODING") => ours.text() == b"listpack" && theirs.text() == b"hashtable",
        // A clock.
        ("TIME", _) => same_shape(ours, theirs),
        ("TTL" | "EXPIRETIME", _) => near(ours, theirs, 1000, &command.name()),
        ("PTTL" | "PEXPIRETIME", _) => near(ours, theirs, 1, &command.name()),
        // An implementation's own business: any number will do.
        ("CLIENT", "ID") | ("OBJECT", "REFCOUNT") | ("MEMORY", "USAGE") => {
            matches!(ours, Value::Integer(_))
        }
        // A test of its own compares the tables.
        ("CLIENT", "INFO") | ("COMMAND", "") => true,
        ("HELLO", _) => without_id(ours) == without_id(theirs),
        _ => false,
    }
}

/// Whether SORT is told by a name without a star that it need not sort.
fn keeps_order(command: &Command) -> bool {
    let mut pairs = command.args.windows(2);
    pairs.any(|pair| {
        upper(&pair[0]) == "BY" && !pair[1].contains(&b'*') && upper(&pair[1]) != "CONSTANT"
    })
}

/// TTL and its kin: `unit` is how many milliseconds one of the command's units has. How long a
/// key has left is a clock's reading; when it ends is one only if it was computed from now.
fn near(ours: &Value, theirs: &Value, unit: i64, name: &str) -> bool {
    let (&Value::Integer(a), &Value::Integer(b)) = (ours, theirs) else {
        return false;
    };
    let exact = a < 0 || (name.ends_with("TIME") && ABSOLUTE.contains(&a.saturating_mul(unit)));
    !exact && a.abs_diff(b) <= (SKEW / unit) as u64
}

/// The items of an aggregate in order, taken `width` at a time.
pub fn sorted(reply: &Value, width: usize) -> Vec<Vec<&Value>> {
    let items = reply.items();
    let mut groups: Vec<Vec<&Value>> = items.chunks(width).map(<[&Value]>::to_vec).collect();
    groups.sort();
    groups
}

/// Whether the types are the same, whatever the contents.
fn same_shape(one: &Value, other: &Value) -> bool {
    let (items, others) = (one.items(), other.items());
    discriminant(one) == discriminant(other)
        && items.len() == others.len()
        && items.iter().zip(others).all(|(a, b)| same_shape(a, b))
}

/// HRANDFIELD, SRANDMEMBER and ZRANDMEMBER with a positive count never repeat.
fn distinct(command: &Command, reply: &Value) -> bool {
    let count = command.args.get(2);
    let negative = count.is_none_or(|count| count.starts_with(b"-"));
    let nested = matches!(reply.items().first(), Some(Value::Array(_)));
    let with_values = command.args.len() > 3 && !nested;
    let mut fields = sorted(reply, if with_values { 2 } else { 1 });
    let count = fields.len();
    fields.dedup_by(|a, b| a[0] == b[0]);
    negative || fields.len() == count
}

fn is_scan_reply(reply: &Value) -> bool {
    let number = |text: &[u8]| !text.is_empty() && text.iter().all(u8::is_ascii_digit);
    matches!(&reply.items()[..], [Value::Bulk(cursor), Value::Array(items)]
        if number(cursor) && items.iter().all(|item| matches!(item, Value::Bulk(_))))
}

/// HELLO says the client's number, which is each server's own.
pub fn without_id(reply: &Value) -> Value {
    let mut reply = reply.clone();
    let blank = |name: &Value, value: &mut Value| {
        if name.text() == b"id" && matches!(value, Value::Integer(_)) {
            *value = Value::Integer(0);
        }
    };
    match &mut reply {
        Value::Map(pairs) => pairs.iter_mut().for_each(|(name, value)| blank(name, value)),
        Value::Array(items) => {
            for pair in items.chunks_mut(2) {
                if let [name, value] = pair {
                    blank(name, value);
                }
            }
        }
        _ => {}
    }
    reply
}

/// What reaches a subscriber has an order, with two exceptions: which of several matching
/// patterns gets a message first, and in which order UNSUBSCRIBE without names takes its
/// channels, are the order of a table. Runs of those are sorted here; the counts that stand
/// beside the channels stay where they are.
pub fn settle(replies: &mut [Value]) {
    let kind = |reply: &Value| match &reply.items()[..] {
        [kind, _, _] if kind.text().ends_with(b"unsubscribe") => Some(kind.text().to_vec()),
        [kind, _, _, _] if kind.text() == b"pmessage" => Some(kind.text().to_vec()),
        _ => None,
    };
    for run in replies.chunk_by_mut(|a, b| kind(a).is_some() && kind(a) == kind(b)) {
        match kind(&run[0]) {
            Some(kind) if kind == b"pmessage" => run.sort(),
            Some(_) => {
                let mut names: Vec<Value> = run.iter().map(|one| one.items()[1].clone()).collect();
                names.sort();
                for (reply, name) in run.iter_mut().zip(names) {
                    if let Value::Array(items) | Value::Push(items) = reply {
                        items[1] = name;
                    }
                }
            }
            None => {}
        }
    }
}

/// A message about a key, in short.
pub fn event(message: &Value) -> String {
    let items = message.items();
    let text =
        |at: usize| items.get(at).map_or(String::new(), |i| i.text().escape_ascii().to_string());
    format!("{} {}", text(2), text(3))
}

/// Sorts the runs of messages about expired keys, and about keys that are missed.
pub fn settle_expired(messages: &mut [Value]) {
    let is_one = |message: &Value| {
        let event = event(message);
        ["expired", "keymiss"].iter().any(|name| {
            event.ends_with(&format!(" {name}")) || event.contains(&format!("__:{name} "))
        })
    };
    messages.chunk_by_mut(|a, b| is_one(a) && is_one(b)).for_each(<[Value]>::sort);
}
