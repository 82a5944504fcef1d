//! When are two replies the same?
//!
//! When they are equal, byte for byte. The rest of this file is the list of exceptions, each with
//! its reason: replies whose order is that of a hash table, replies that chance decides, and
//! replies that hold a clock's reading.

use crate::wire::{Command, Frame, upper};

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
pub fn same(command: &Command, queue: &[Command], ours: &Frame, theirs: &Frame) -> bool {
    if ours == theirs {
        return true;
    }
    if ours.kind != theirs.kind || ours.is_error() {
        return false;
    }
    let subcommand = command
        .args
        .get(1)
        .map_or(String::new(), |name| upper(name));
    match (command.name().as_str(), subcommand.as_str()) {
        ("EXEC", _) => {
            let results = ours.items.iter().zip(&theirs.items).zip(queue);
            ours.items.len() == theirs.items.len()
                && ours.items.len() == queue.len()
                && results
                    .into_iter()
                    .all(|((a, b), command)| same(command, &[], a, b))
        }
        // The order of a table, or of a hash that has become one; the dump at the end of a round
        // knows which hashes are small, and compares their order too.
        ("KEYS" | "HKEYS" | "HVALS", _) | ("PUBSUB", "CHANNELS") => {
            sorted(ours, 1) == sorted(theirs, 1)
        }
        ("HGETALL", _) | ("CONFIG", "GET") => sorted(ours, 2) == sorted(theirs, 2),
        // Chance. The end of a round asks again, where it knows what may be answered.
        ("RANDOMKEY", _) => ours.kind == b'$',
        ("HRANDFIELD", _) => shape(ours) == shape(theirs) && distinct(command, ours),
        // Cursors are each server's own; `Step::Iterate` follows them to the end.
        ("SCAN" | "HSCAN", _) => is_scan_reply(ours) && is_scan_reply(theirs),
        // A clock.
        ("TIME", _) => shape(ours) == shape(theirs),
        ("TTL" | "EXPIRETIME", _) => near(ours, theirs, 1000, &command.name()),
        ("PTTL" | "PEXPIRETIME", _) => near(ours, theirs, 1, &command.name()),
        // An implementation's own business: any number will do.
        ("CLIENT", "ID") | ("OBJECT", "REFCOUNT") | ("MEMORY", "USAGE") => ours.kind == b':',
        ("CLIENT", "INFO") => true,
        ("HELLO", _) => without_id(ours) == without_id(theirs),
        _ => false,
    }
}

/// TTL and its kin: `unit` is how many milliseconds one of the command's units has. How long a
/// key has left is a clock's reading; when it ends is one only if it was computed from now.
fn near(ours: &Frame, theirs: &Frame, unit: i64, name: &str) -> bool {
    let (Some(a), Some(b)) = (ours.integer(), theirs.integer()) else {
        return false;
    };
    let exact = a < 0 || (name.ends_with("TIME") && ABSOLUTE.contains(&a.saturating_mul(unit)));
    !exact && a.abs_diff(b) <= (SKEW / unit) as u64
}

/// The items of an aggregate in order, taken `width` at a time.
pub fn sorted(frame: &Frame, width: usize) -> Vec<Vec<Frame>> {
    let mut items: Vec<Vec<Frame>> = frame.items.chunks(width).map(<[Frame]>::to_vec).collect();
    items.sort();
    items
}

/// The types of a reply without its contents.
fn shape(frame: &Frame) -> (u8, Vec<Frame>) {
    let bare = |item: &Frame| {
        let (kind, items) = shape(item);
        Frame {
            kind,
            text: Vec::new(),
            items,
        }
    };
    (frame.kind, frame.items.iter().map(bare).collect())
}

/// HRANDFIELD with a positive count never repeats a field.
fn distinct(command: &Command, reply: &Frame) -> bool {
    let negative = command
        .args
        .get(2)
        .is_none_or(|count| count.starts_with(b"-"));
    let nested = reply.items.first().is_some_and(|item| item.kind == b'*');
    let width = if command.args.len() > 3 && !nested {
        2
    } else {
        1
    };
    let mut fields = sorted(reply, width);
    let count = fields.len();
    fields.dedup_by(|a, b| a[0] == b[0]);
    negative || fields.len() == count
}

fn is_scan_reply(reply: &Frame) -> bool {
    let number = |text: &[u8]| !text.is_empty() && text.iter().all(u8::is_ascii_digit);
    matches!(&reply.items[..], [cursor, items]
        if cursor.kind == b'$' && number(&cursor.text)
            && items.kind == b'*' && items.items.iter().all(|item| item.kind == b'$'))
}

/// HELLO says the client's number, which is each server's own.
pub fn without_id(reply: &Frame) -> Frame {
    let mut reply = reply.clone();
    for index in 1..reply.items.len() {
        if reply.items[index - 1].text == b"id" && reply.items[index].kind == b':' {
            reply.items[index].text.clear();
        }
    }
    reply
}

/// What reaches a subscriber has an order, with two exceptions: which of several matching
/// patterns gets a message first, and in which order UNSUBSCRIBE without names takes its
/// channels, are the order of a table. Runs of those are sorted here; the counts that stand
/// beside the channels stay where they are.
pub fn settle(frames: &mut [Frame]) {
    let kind = |frame: &Frame| match &frame.items[..] {
        [kind, _, _] if kind.text.ends_with(b"unsubscribe") => Some(kind.text.clone()),
        [kind, _, _, _] if kind.text == b"pmessage" => Some(kind.text.clone()),
        _ => None,
    };
    for run in frames.chunk_by_mut(|a, b| kind(a).is_some() && kind(a) == kind(b)) {
        if run[0].items.len() == 4 && kind(&run[0]).is_some() {
            run.sort();
        } else if kind(&run[0]).is_some() {
            let mut names: Vec<Frame> = run.iter().map(|frame| frame.items[1].clone()).collect();
            names.sort();
            for (frame, name) in run.iter_mut().zip(names) {
                frame.items[1] = name;
            }
        }
    }
}
