//! DEBUG: for tests of clients and servers.
//!
//! A client that can make the server sleep can make it useless. So `enable-debug-command` must allow DEBUG:
//! `no`, `yes`, or `local` for clients of this machine. [`check_protected`] is asked before anything else.
//!
//! | subcommand              | it tests                                                      |
//! |-------------------------|---------------------------------------------------------------|
//! | `DIGEST`                | whether two servers hold the same (debug/digest.rs)           |
//! | `ERROR`, `PROTOCOL`     | a client's parser: an error, one reply of each type in RESP3  |
//! | `OBJECT`                | how a value is stored                                         |
//! | `HTSTATS`, `HTSTATS-KEY`| how evenly a table is filled (debug/htstats.rs)               |
//! | `POPULATE`              | what many keys cost                                           |
//! | `RECOUNT`               | whether what INFO says that keys take is what they take       |
//! | `RELOAD`, `LOADAOF`     | whether what is written can be read back (serve/reload.rs)    |
//! | `SET-ACTIVE-EXPIRE`     | what happens to an expired key that is still in memory        |
//! | `PANIC`, `SEGFAULT`     | what a crash leaves                                           |
//! | `PAUSE-CRON`            | what is not up to cron                                        |
//! | `SLEEP`                 | a client's timeouts                                           |
//!
//! **How Redis does it**: debug.c, with twenty more. In Redis they are not subcommands in the table: DEBUG
//! looks at its arguments itself. That shows in the errors for an unknown name or too many arguments. The
//! texts here are the same.

mod digest;
mod htstats;

use super::args::{Cursor, at_least};
use super::{Command, Flag, NO_KEY, Run, command, dump, subcommand_syntax};
use crate::client::{Client, Replies, Then};
use crate::config;
use crate::error::Error;
use crate::key::Key;
use crate::log;
use crate::resp::{Arg, Args, Protocol, Reply, parse_integer};
use crate::sha1::{Digest, hexadecimal};
use crate::store::{Ttl, View, ViewMut};
use crate::types::Value;
use std::cell::Cell;
use std::sync::atomic::Ordering;
use std::time::Duration;

#[rustfmt::skip]
pub const COMMANDS: &[Command] = &[
    command("debug",                            -2, Run::Container(Some(unknown)),           NO_KEY, "1.0.0", "",                          "A container for debugging commands").with(&[Flag::NoScript, Flag::Admin, Flag::Protected, Flag::TakesUnknown]),
    command("debug|digest",                     -2, Run::Read(digest),                       NO_KEY, "1.0.0", "",                          "Output a hex signature representing the current DB content").with(DEBUG),
    command("debug|digest-value",               -2, Run::Read(digest_value),                 NO_KEY, "1.0.0", "<key> [<key> ...]",         "Output a hex signature of the values of all the specified keys").with(DEBUG),
    command("debug|error",                      -2, Run::Client(error),                      NO_KEY, "1.0.0", "<string>",                  "Return a Redis protocol error with <string> as message. Useful for clients unit tests to simulate Redis errors").with(DEBUG),
    command("debug|htstats",                    -2, Run::Read(htstats),                      NO_KEY, "1.0.0", "<dbid>",                    "Return hash table statistics of the specified Redis database").with(DEBUG),
    command("debug|htstats-key",                -2, Run::Read(htstats_key),                  NO_KEY, "1.0.0", "<key>",                     "Like HTSTATS but for the hash table stored at <key>'s value").with(DEBUG),
    command("debug|log",                        -2, Run::Client(log_message),                NO_KEY, "1.0.0", "<message>",                 "Write <message> to the server log").with(DEBUG),
    command("debug|loadaof",                    -2, Run::Client(loadaof),                    NO_KEY, "1.0.0", "",                          "Flush the AOF buffers on disk and reload the AOF in memory").with(DEBUG).with(&[Flag::NoMulti]),
    command("debug|object",                     -2, Run::Mixed(object),                      NO_KEY, "1.0.0", "<key>",                     "Show low level info about `key` and associated value").with(DEBUG),
    command("debug|panic",                      -2, Run::Client(panic),                      NO_KEY, "1.0.0", "",                          "Crash the server simulating a panic").with(DEBUG),
    command("debug|pause-cron",                 -2, Run::Client(pause_cron),                 NO_KEY, "1.0.0", "<0|1>",                     "Stop periodic cron job processing").with(DEBUG),
    command("debug|populate",                   -2, Run::Write(populate),                    NO_KEY, "1.0.0", "<count> [<prefix>] [<size>]", "Create <count> string keys named key:<num>. If <prefix> is specified then it is used instead of the 'key' prefix").with(DEBUG),
    command("debug|protocol",                   -2, Run::Client(protocol),                   NO_KEY, "1.0.0", "<type>",                    "Reply with a test value of the specified type. <type> can be: string, integer, double, bignum, null, array, set, map, attrib, push, verbatim, true, false").with(DEBUG),
    command("debug|recount",                    -2, Run::Read(recount),                      NO_KEY, "1.0.0", "",                          "Count anew what all keys take, and compare it with what is kept").with(DEBUG),
    command("debug|reload",                     -2, Run::Client(reload),                     NO_KEY, "1.0.0", "[option ...]",              "Save the RDB on disk and reload it back to memory.").with(DEBUG).with(&[Flag::NoMulti]),
    command("debug|replybuffer",                -2, Run::Client(replybuffer),                NO_KEY, "7.0.0", "PEAK-RESET-TIME <NEVER||RESET|time> | RESIZING <0|1>", "Sets when the buffer of replies is made smaller (no effect here)").with(DEBUG),
    command("debug|segfault",                   -2, Run::Client(panic),                      NO_KEY, "1.0.0", "",                          "Crash the server, here without a sigsegv").with(DEBUG),
    command("debug|set-active-expire",          -2, Run::Client(set_active_expire),          NO_KEY, "1.0.0", "<0|1>",                     "Setting it to 0 disables expiring keys in background when they are not accessed").with(DEBUG),
    command("debug|quicklist-packed-threshold", -2, Run::Client(quicklist_packed_threshold), NO_KEY, "7.0.0", "<size>",                    "Sets the threshold for elements to be inserted as plain vs packed nodes (no effect here)").with(DEBUG),
    command("debug|sleep",                      -2, Run::Write(sleep),                       NO_KEY, "1.0.0", "<seconds>",                 "Stop the server for <seconds>. Decimals allowed").with(DEBUG),
    command("debug|help",                       -2, Run::Client(help),                       NO_KEY, "1.0.0", "",                          "Show helpful text about the different subcommands").with(DEBUG),
];

const DEBUG: &[Flag] = &[Flag::NoScript, Flag::Admin, Flag::Protected];

/// Refuses what an option must allow, DEBUG and MODULE, unless this client may use it.
pub fn check_protected(command: &Command, client: &Client) -> Result<(), Error> {
    if command.name.starts_with("module") {
        return Err(Error::not_allowed("MODULE", "enable-module-command"));
    }
    let connection = client.public.connection.as_ref();
    let is_local = || connection.is_some_and(|c| c.peer.is_local());
    match client.server.config.enable_debug_command.text().as_str() {
        "yes" => Ok(()),
        "local" if is_local() => Ok(()),
        _ => Err(Error::not_allowed("DEBUG", "enable-debug-command")),
    }
}

fn unknown(_: &mut Client, args: &Args, _: &mut Reply) -> Result<(), Error> {
    Err(subcommand_syntax(args))
}

fn help(client: &mut Client, args: &Args, reply: &mut Reply) -> Result<(), Error> {
    match args.len() {
        2 => super::help(client, args, reply),
        _ => Err(subcommand_syntax(args)),
    }
}

/// The only argument after the subcommand.
fn argument(args: &Args) -> Result<&[u8], Error> {
    match args.len() {
        3 => Ok(&args[2]),
        _ => Err(subcommand_syntax(args)),
    }
}

fn digest(view: &View, args: &Args, reply: &mut Reply) -> Result<(), Error> {
    if args.len() > 2 {
        return Err(subcommand_syntax(args));
    }
    reply.status(&hexadecimal(&digest::of_everything(view)));
    Ok(())
}

fn digest_value(view: &View, args: &Args, reply: &mut Reply) -> Result<(), Error> {
    let digest = |key| view.find_expired_too(key).map_or_else(Digest::default, digest::of_value);
    let digests: Vec<_> = args.keys(2).map(|key| hexadecimal(&digest(key))).collect();
    reply.statuses(&digests);
    Ok(())
}

/// For tests of what is kept as it changes (store/memory.rs).
fn recount(view: &View, args: &Args, reply: &mut Reply) -> Result<(), Error> {
    if args.len() > 2 {
        return Err(subcommand_syntax(args));
    }
    let (kept, anew) = (view.memory(), view.recount());
    if kept != anew {
        return Err(Error::text(format!("ERR counted anew it is {anew:?}, and kept is {kept:?}")));
    }
    reply.ok()
}

fn htstats(view: &View, args: &Args, reply: &mut Reply) -> Result<(), Error> {
    let number = parse_integer(argument(args)?).ok_or(Error::NotInteger)?;
    let db = usize::try_from(number).ok().filter(|db| *db < view.databases());
    let view = view.in_db(db.ok_or(Error::text("ERR Out of range database"))?);
    let lengths = htstats::lengths(|cursor, length| {
        let count = Cell::new(0);
        // No entry is wanted: it counts all of them, expired ones too.
        let count_all = |_: &[u8]| {
            count.set(count.get() + 1);
            false
        };
        let next = view.scan(cursor, false, count_all, |_| {});
        *length = count.get();
        next
    });
    let mut text = format!("[Dictionary HT]\n{}[Expires HT]\n", htstats::describe(lengths));
    // The deadlines are in no hash table here (store/expire.rs).
    text += &htstats::describe([].into_iter());
    reply.verbatim(&text);
    Ok(())
}

fn htstats_key(view: &View, args: &Args, reply: &mut Reply) -> Result<(), Error> {
    let value = view.peek(Key::of(argument(args)?)).ok_or(Error::NoSuchKey)?.value();
    if !matches!(value.encoding(), "hashtable" | "skiplist") {
        return Err(Error::text(
            "ERR The value stored at the specified key is not represented using an hash table",
        ));
    }
    let lengths = htstats::lengths(|cursor, length| match value {
        Value::Hash(hash) => hash.scan(cursor, |_| *length += 1),
        Value::Set(set) => set.scan(cursor, |_| *length += 1),
        Value::Zset(zset) => zset.scan(cursor, |_| *length += 1),
        _ => 0,
    });
    reply.verbatim(&htstats::describe(lengths));
    Ok(())
}

/// The process ends at once, as after a panic of its own, and saves nothing. What the log was promised is in the
/// kernel's file.
fn panic(_: &mut Client, args: &Args, _: &mut Reply) -> Result<(), Error> {
    if args.len() > 2 {
        return Err(subcommand_syntax(args));
    }
    log::warning(format_args!("crashing, as DEBUG has asked for"));
    std::process::abort();
}

fn pause_cron(client: &mut Client, args: &Args, reply: &mut Reply) -> Result<(), Error> {
    let is_paused = parse_integer(argument(args)?).unwrap_or_default() != 0;
    client.server.cron_is_paused.store(is_paused, Ordering::Relaxed);
    reply.ok()
}

/// A buffer is given back when its client rests (serve/memory.rs), so the arguments are checked, and that is all.
fn replybuffer(_: &mut Client, args: &Args, reply: &mut Reply) -> Result<(), Error> {
    let mut cursor = Cursor::at(args, 2);
    if args.len() != 4 {
        return Err(subcommand_syntax(args));
    }
    match (cursor.option().as_deref(), cursor.option().as_deref()) {
        (Some(b"RESIZING"), _) | (Some(b"PEAK-RESET-TIME"), Some(b"NEVER" | b"RESET")) => {}
        (Some(b"PEAK-RESET-TIME"), _) => {
            parse_integer(&args[3]).ok_or(Error::NotInteger)?;
        }
        _ => return Err(subcommand_syntax(args)),
    }
    reply.ok()
}

/// It does not count as an error, because it is what was asked for.
fn error(_: &mut Client, args: &Args, reply: &mut Reply) -> Result<(), Error> {
    reply.error(&Error::text(argument(args)?));
    Ok(())
}

fn log_message(_: &mut Client, args: &Args, reply: &mut Reply) -> Result<(), Error> {
    log::warning(format_args!("DEBUG LOG: {}", String::from_utf8_lossy(argument(args)?)));
    reply.ok()
}

fn loadaof(client: &mut Client, _: &Args, _: &mut Reply) -> Result<(), Error> {
    client.then = Then::Reload { from_log: true, silent: client.replies != Replies::On };
    Ok(())
}

/// MERGE and NOFLUSH make no difference here, because what is loaded is what was there.
fn reload(client: &mut Client, args: &Args, _: &mut Reply) -> Result<(), Error> {
    let mut cursor = Cursor::at(args, 2);
    let mut saves = true;
    while let Some(option) = cursor.option() {
        match option.as_slice() {
            b"MERGE" | b"NOFLUSH" => {}
            b"NOSAVE" => saves = false,
            _ => {
                return Err(Error::text(
                    "ERR DEBUG RELOAD only supports the MERGE, NOFLUSH and NOSAVE options.",
                ));
            }
        }
    }
    if !saves {
        return Err(Error::text("ERR Error trying to load the RDB dump"));
    }
    client.then = Then::Reload { from_log: false, silent: client.replies != Replies::On };
    Ok(())
}

/// Redis neither logs these keys nor counts them as changes. Here they are logged, because a rewrite makes its
/// base from the log.
fn populate(view: &mut ViewMut, args: &Args, reply: &mut Reply) -> Result<(), Error> {
    if !(3..=5).contains(&args.len()) {
        return Err(subcommand_syntax(args));
    }
    let count = not_negative(&args[2])?;
    let prefix = if args.len() > 3 { &args[3] } else { b"key" };
    let size = if args.len() > 4 { not_negative(&args[4])? } else { 0 };
    if size > view.limits.string {
        return Err(Error::StringTooLong);
    }
    for number in 0..count {
        let mut name = [prefix, format!(":{number}").as_bytes()].concat();
        name.truncate(LONGEST_POPULATED);
        let key = Key::of(&name);
        if view.peek(key).is_some() {
            continue;
        }
        let mut value = format!("value:{number}").into_bytes();
        if size > 0 {
            value.resize(size, 0);
        }
        view.set_string(key, Arg::Small(&value), Ttl::Gone);
        view.propagate([b"SET", &name, &value]);
    }
    reply.ok()
}

/// Redis makes the names in a buffer of 128 bytes, the last of which is C's end of a string.
const LONGEST_POPULATED: usize = 127;

/// As Redis, it says the same of text that is no number.
fn not_negative(text: &[u8]) -> Result<usize, Error> {
    at_least(0, text, "ERR value is out of range, must be positive")
}

/// A node of a list holds an element of any length here, so the threshold is checked, and that is all.
fn quicklist_packed_threshold(_: &mut Client, args: &Args, reply: &mut Reply) -> Result<(), Error> {
    let size = std::str::from_utf8(argument(args)?).ok().and_then(config::memory);
    let too_large = (1 << 32) - (1 << 20);
    match size.filter(|size| *size <= too_large) {
        Some(_) => reply.ok(),
        None => Err(Error::text(
            "ERR argument must be a memory value bigger than 1 and smaller than 4gb",
        )),
    }
}

/// As Redis prints it.
fn object(client: &mut Client, view: &View, args: &Args, reply: &mut Reply) -> Result<(), Error> {
    let entry = view.peek(Key::of(argument(args)?)).ok_or(Error::NoSuchKey)?;
    let value = entry.value();
    let idle = entry.usage().idle(view.time.now) / 1000;
    let length = dump::length(view, entry);
    let mut text = format!(
        "Value at:{:p} refcount:1 encoding:{} serializedlength:{length} lru:{} lru_seconds_idle:{idle}",
        entry.entry,
        value.encoding(),
        (view.time.now / 1000 - idle) % (1 << 24),
    );
    if let Value::List(list) = value {
        let (nodes, bytes) = list.nodes_and_bytes();
        text += &format!(
            " ql_nodes:{nodes} ql_avg_node:{:.2} ql_listpack_max:{} ql_compressed:0 \
             ql_uncompressed_size:{bytes}",
            list.len() as f64 / nodes as f64,
            client.server.config.list_max_listpack_size.get(),
        );
    }
    reply.status(&text);
    Ok(())
}

/// It is a write, although it changes nothing, because it needs the exclusive lock: while Redis sleeps nobody
/// is served. As with C's `strtod`, text that is no number is 0.
fn sleep(_: &mut ViewMut, args: &Args, reply: &mut Reply) -> Result<(), Error> {
    let seconds = std::str::from_utf8(argument(args)?).unwrap_or_default();
    let seconds: f64 = seconds.parse().unwrap_or_default();
    std::thread::sleep(Duration::try_from_secs_f64(seconds).unwrap_or_default());
    reply.ok()
}

fn set_active_expire(client: &mut Client, args: &Args, reply: &mut Reply) -> Result<(), Error> {
    let active = parse_integer(argument(args)?).unwrap_or_default() != 0;
    client.server.active_expire.store(active, Ordering::Relaxed);
    reply.ok()
}

/// One reply of each type, with Redis's values.
#[allow(clippy::approx_constant, reason = "these are Redis's digits")]
fn protocol(_: &mut Client, args: &Args, reply: &mut Reply) -> Result<(), Error> {
    match argument(args)?.to_ascii_lowercase().as_slice() {
        b"string" => reply.bulk(b"Hello World"),
        b"integer" => reply.integer(12345),
        b"double" => reply.double(3.141),
        b"bignum" => reply.big_number(b"1234567999999999999999999999999999999"),
        b"null" => reply.nil(),
        b"array" => {
            reply.array(3);
            (0..3).for_each(|number| reply.integer(number));
        }
        b"set" => {
            reply.set(3);
            (0..3).for_each(|number| reply.integer(number));
        }
        b"map" => {
            reply.map(3);
            for number in 0..3 {
                reply.integer(number);
                reply.boolean(number == 1);
            }
        }
        b"attrib" => with_attribute(reply),
        b"push" => {
            if reply.protocol == Protocol::Resp2 {
                return Err(Error::text("ERR RESP2 is not supported by this command"));
            }
            reply.push(2);
            reply.bulk(b"server-cpu-usage");
            reply.integer(42);
            // A push is not a reply, and the client waits for one.
            reply.bulk(b"Some real reply following the push reply");
        }
        b"verbatim" => reply.verbatim("This is a verbatim\nstring"),
        b"true" => reply.boolean(true),
        b"false" => reply.boolean(false),
        _ => {
            return Err(Error::text(
                "ERR Wrong protocol type name. Please use one of the following: \
                 string|integer|double|bignum|null|array|set|map|attrib|push|verbatim|true|false",
            ));
        }
    }
    Ok(())
}

fn with_attribute(reply: &mut Reply) {
    if reply.protocol == Protocol::Resp3 {
        reply.attributes(1);
        reply.bulk(b"key-popularity");
        reply.array(2);
        reply.bulk(b"key:123");
        reply.integer(90);
    }
    reply.bulk(b"Some real reply following the attribute");
}
