//! The table of all options, and the check of their values.
//!
//! To add an option, add a slot to [`Config`], and a row that fills it:
//!
//! ```text
//! pub slowlog_max_len: Slot<usize>,
//!
//!     name               default accepts         change summary
//! row("slowlog-max-len", "128",  Number(0, BIG), Live,  "entries that the slow log keeps").slot(|c, v| c.slowlog_max_len.put(v)),
//!
//! config.slowlog_max_len.get()
//! ```
//!
//! Options of Redis that this server does not use are in ignored.rs.
//!
//! **How Redis does it**: config.c, `static_configs`: the same rows, each with a pointer to a variable, and
//! the same error texts. Redis's built-in defaults differ from its redis.conf in `bind` and `save`. Our
//! defaults are those of redis.conf, except `appendonly yes`.

use super::ignored::{ALIASES, GROUPS, NO_EFFECT, ROWS};
use super::policy;
use super::{Config, Values};
use crate::log;
use crate::notify;
use crate::resp::{parse_double, parse_integer};
use std::ffi::OsStr;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::Path;
use std::sync::LazyLock;

use Accepts::*;
use Change::*;

/// Which values an option accepts.
#[derive(Clone, Copy)]
pub enum Accepts {
    /// One word, of any bytes.
    Text,
    /// Any number of words, joined by spaces.
    Words,
    /// The name of a file, without a directory, in UTF-8 because it stands in the manifest.
    FileName,
    /// A directory. It is kept as an absolute path.
    Directory,
    /// A whole number, from and to.
    Number(i64, i64),
    /// A size such as `64mb`, from and to. It is kept as the number of bytes.
    Memory(i64, i64),
    /// A size, or a percentage.
    MemoryOrPercent,
    YesNo,
    OneOf(&'static [&'static str]),
    /// Any number of `class hard soft seconds`. All three classes are kept, in Redis's order.
    OutputLimits,
    /// Letters of classes (notify.rs).
    Events,
    /// Any number of percentages, such as `99.9`.
    Percentages,
    /// Pairs of seconds and changes.
    SavePoints,
    /// Who may use a file, in octal: from 0 to 777.
    Permissions,
    /// Only these values, because others ask for a feature that is not here; and the reason. They mean the same, so
    /// the first is kept.
    Only(&'static [&'static str], &'static str),
    /// These values. All but the default are in vain, and the operator is told why.
    InVain(&'static Accepts, &'static str),
    /// Another name of this option.
    Alias(&'static str),
    /// No value, because every value asks for a feature that is not here; and the reason. CONFIG does not
    /// know such an option.
    Refused(&'static str),
}

/// When a value may change.
#[derive(Clone, Copy, PartialEq)]
pub enum Change {
    /// At run time too, by CONFIG SET.
    Live,
    AtStart,
    /// At start only, though Redis can change it later. CONFIG SET accepts the value that it has.
    Stays,
    /// At start only: a client that can choose where the server writes files can take over the machine.
    Protected,
    /// Never. A value in a file is ignored.
    Fixed,
}

#[derive(Clone)]
pub struct Row {
    pub name: &'static str,
    /// As it would be given. Empty for an alias.
    pub default: &'static str,
    pub accepts: Accepts,
    pub change: Change,
    /// What it is for, in CONFIG HELP.
    pub summary: &'static str,
    /// Puts a value into the option's slot.
    pub put: fn(&Config, &[u8]),
}

/// A row. Without a [`slot`](Row::slot), the option is only shown.
pub const fn row(
    name: &'static str,
    default: &'static str,
    accepts: Accepts,
    change: Change,
    summary: &'static str,
) -> Row {
    Row { name, default, accepts, change, summary, put: |_, _| {} }
}

pub const BIG: i64 = i64::MAX;
pub const INT: i64 = i32::MAX as i64;
const LONGEST: i64 = crate::resp::LONGEST as i64;
const MB: i64 = 1024 * 1024;

/// Every option, in the order of CONFIG GET.
pub static OPTIONS: LazyLock<Vec<Row>> = LazyLock::new(|| {
    let pairs = |text: &'static str| text.split(' ').filter_map(|pair| pair.split_once('='));
    let mut rows = [USED, ROWS].concat();
    for (accepts, change, names) in GROUPS {
        let row = |(name, default)| row(name, default, *accepts, *change, NO_EFFECT);
        rows.extend(pairs(names).map(row));
    }
    rows.extend(pairs(ALIASES).map(|(name, usual)| row(name, "", Alias(usual), Live, "")));
    rows
});

/// The options that the server uses.
#[rustfmt::skip]
static USED: &[Row] = &[
    // Network and process.
    row("bind", "127.0.0.1 -::1", Words, Stays, "addresses to listen on; one with a '-' is optional").slot(|c, v| c.bind.put(v)),
    row("protected-mode", "yes", YesNo, Live, "without a password, serve only clients of this machine").slot(|c, v| c.protected_mode.put(v)),
    row("port", "6379", Number(0, 65535), Stays, "TCP port; 0 picks a free one").slot(|c, v| c.port.put(v)),
    row("timeout", "0", Number(0, INT), Live, "close a client after this many idle seconds; 0: never").slot(|c, v| c.timeout.put(v)),
    row("dir", "./", Directory, Protected, "where the log's directory is").slot(|c, v| c.dir.put(v)),
    row("databases", "16", Number(1, INT), AtStart, "number of databases").slot(|c, v| c.databases.put(v)),
    row("logfile", "", Text, AtStart, "file for the server's messages; empty: stdout").slot(|c, v| c.logfile.put(v)),
    row("loglevel", "notice", OneOf(&["debug", "verbose", "notice", "warning"]), Live, "lowest level of its messages").slot(|_, v| log::set_level(v)),
    row("syslog-enabled", "no", YesNo, AtStart, "write its messages into the system's log too").slot(|c, v| c.syslog_enabled.put(v)),
    row("syslog-ident", "redis", Text, AtStart, "their name there").slot(|c, v| c.syslog_ident.put(v)),
    row("syslog-facility", "local0", OneOf(&log::FACILITIES), AtStart, "their facility there").slot(|c, v| c.syslog_facility.put(v)),
    row("enable-debug-command", "no", OneOf(&["no", "yes", "local"]), AtStart, "who may use DEBUG").slot(|c, v| c.enable_debug_command.put(v)),
    row("unixsocket", "", Text, AtStart, "file to which clients of this machine may connect").slot(|c, v| c.unixsocket.put(v)),
    row("unixsocketperm", "0", Permissions, AtStart, "who may do so, as for chmod; 0: as the umask says").slot(|c, v| c.unixsocketperm.put(v)),
    row("daemonize", "no", YesNo, AtStart, "go on in the background").slot(|c, v| c.daemonize.put(v)),
    row("pidfile", "", Text, AtStart, "file that has the number of the process while it serves").slot(|c, v| c.pidfile.put(v)),
    row("supervised", "no", OneOf(&["upstart", "systemd", "auto", "no"]), AtStart, "the service manager that is told when the server is ready").slot(|c, v| c.supervised.put(v)),
    // The append-only file.
    row("appendonly", "yes", YesNo, Live, "keep every change in the log").slot(|c, v| c.appendonly.put(v)),
    row("appendfilename", "appendonly.aof", FileName, AtStart, "how the names of the log's files begin").slot(|c, v| c.appendfilename.put(v)),
    row("appenddirname", "appendonlydir", FileName, AtStart, "the log's directory, in dir").slot(|c, v| c.appenddirname.put(v)),
    row("appendfsync", "everysec", OneOf(&["everysec", "always", "no"]), Live, "when fsync writes the log to the disk").slot(|c, v| c.appendfsync.put(v)),
    row("auto-aof-rewrite-percentage", "100", Number(0, INT), Live, "rewrite the log when it has grown by this; 0: never").slot(|c, v| c.auto_aof_rewrite_percentage.put(v)),
    row("auto-aof-rewrite-min-size", "67108864", Memory(0, BIG), Live, "do not rewrite a smaller log").slot(|c, v| c.auto_aof_rewrite_min_size.put(v)),
    row("aof-load-truncated", "yes", YesNo, Live, "start from a log whose last record is cut short").slot(|c, v| c.aof_load_truncated.put(v)),
    row("aof-load-corrupt-tail-max-size", "0", Memory(0, BIG), Live, "bytes of garbage to cut from the log's end").slot(|c, v| c.aof_load_corrupt_tail_max_size.put(v)),
    row("aof-checksum", "yes", YesNo, Live, "write checksums into the log (not in Redis); they are always checked").slot(|c, v| c.aof_checksum.put(v)),
    row("aof-use-rdb-preamble", "no", YesNo, Live, "rewrite the log to a snapshot, and not to commands").slot(|c, v| c.aof_use_rdb_preamble.put(v)),
    // Snapshots.
    row("dbfilename", "dump.rdb", FileName, Protected, "name of the snapshot, in dir").slot(|c, v| c.dbfilename.put(v)),
    row("save", "", SavePoints, Live, "write a snapshot after so many seconds, if there were so many changes").slot(|c, v| c.save.put(v)),
    row("stop-writes-on-bgsave-error", "yes", YesNo, Live, "refuse writes while snapshots fail").slot(|c, v| c.stop_writes_on_bgsave_error.put(v)),
    row("rdbcompression", "yes", YesNo, Live, "make long strings in snapshots shorter").slot(|c, v| c.rdbcompression.put(v)),
    row("rdbchecksum", "yes", YesNo, AtStart, "end snapshots with a checksum").slot(|c, v| c.rdbchecksum.put(v)),
    // Limits.
    row("requirepass", "", Text, Live, "the password that clients must send").slot(|c, v| c.put_requirepass(v)),
    row("maxclients", "10000", Number(1, u32::MAX as i64), Live, "clients at a time").slot(|c, v| c.maxclients.put(v)),
    row("client-query-buffer-limit", "1073741824", Memory(MB, BIG), Live, "bytes that one client may send in advance").slot(|c, v| c.client_query_buffer_limit.put(v)),
    row("proto-max-bulk-len", "536870912", Memory(MB, LONGEST), Live, "longest string").slot(|c, v| c.proto_max_bulk_len.put(v)),
    row("maxmemory-clients", "25%", MemoryOrPercent, Live, "bytes that all clients may hold, or a percentage of the machine's memory; 0: no limit").slot(|c, v| c.put_clients_memory(v)),
    row("maxmemory", "0", Memory(0, BIG), Live, "bytes that may be in use before keys are evicted, or writes refused; 0: no limit").slot(|c, v| c.maxmemory.put(v)),
    row("maxmemory-policy", "noeviction", OneOf(policy::NAMES), Live, "which keys are evicted").slot(|c, v| c.maxmemory_policy.put(v)),
    row("maxmemory-samples", "5", Number(1, INT), Live, "keys among which the one to be evicted is chosen").slot(|c, v| c.maxmemory_samples.put(v)),
    row("maxmemory-eviction-tenacity", "10", Number(0, 100), Live, "for how long one eviction may hold the lock: 10 is 500 µs, 100 has no limit").slot(|c, v| c.maxmemory_eviction_tenacity.put(v)),
    row("lfu-log-factor", "10", Number(0, INT), Live, "the greater it is, the more slowly the frequency of a key grows").slot(|c, v| c.lfu_log_factor.put(v)),
    row("lfu-decay-time", "1", Number(0, INT), Live, "minutes after which the frequency of a key loses one; 0: it never does").slot(|c, v| c.lfu_decay_time.put(v)),
    row("client-output-buffer-limit", "normal 0 0 0 slave 268435456 67108864 60 pubsub 33554432 8388608 60", OutputLimits, Live, "bytes a client may leave unread").slot(|c, v| c.put_output_limits(v)),
    row("slowlog-log-slower-than", "10000", Number(-1, BIG), Live, "a command of this many microseconds is slow; -1: none is").slot(|c, v| c.slowlog_log_slower_than.put(v)),
    row("latency-monitor-threshold", "0", Number(0, BIG), Live, "what takes this many milliseconds is an event of LATENCY; 0: nothing is").slot(|c, v| c.put_latency_threshold(v)),
    row("busy-reply-threshold", "5000", Number(0, BIG), Live, "milliseconds after which a script is busy, and others are told; 0: never").slot(|c, v| c.busy_reply_threshold.put(v)),
    row("latency-tracking-info-percentiles", "50 99 99.9", Percentages, Live, "percentiles of the times of each command, in INFO latencystats").slot(|c, v| c.latency_tracking_info_percentiles.put(v)),
    row("slowlog-max-len", "128", Number(0, BIG), Live, "entries that the slow log keeps").slot(|c, v| c.slowlog_max_len.put(v)),
    row("hash-max-listpack-entries", "512", Number(0, BIG), Live, "a hash of at most this many fields is packed").slot(|c, v| c.hash_max_listpack_entries.put(v)),
    row("hash-max-listpack-value", "64", Memory(0, BIG), Live, "a hash with a longer field or value is not packed").slot(|c, v| c.hash_max_listpack_value.put(v)),
    row("list-max-listpack-size", "-2", Number(-INT - 1, INT), Live, "elements of a list in one node, at most; -1 to -5: 4 to 64 KiB").slot(|c, v| c.list_max_listpack_size.put(v)),
    row("set-max-intset-entries", "512", Number(0, BIG), Live, "a set of at most this many integers is an intset").slot(|c, v| c.set_max_intset_entries.put(v)),
    row("set-max-listpack-entries", "128", Number(0, BIG), Live, "a set of at most this many other members is packed").slot(|c, v| c.set_max_listpack_entries.put(v)),
    row("set-max-listpack-value", "64", Memory(0, BIG), Live, "a set with a longer member is not packed").slot(|c, v| c.set_max_listpack_value.put(v)),
    row("zset-max-listpack-entries", "128", Number(0, BIG), Live, "a sorted set of at most this many members is packed").slot(|c, v| c.zset_max_listpack_entries.put(v)),
    row("zset-max-listpack-value", "64", Memory(0, BIG), Live, "a sorted set with a longer member is not packed").slot(|c, v| c.zset_max_listpack_value.put(v)),
    row("notify-keyspace-events", "", Events, Live, "which changes of keys are published, and where").slot(|c, v| c.notify_keyspace_events.put(v)),
    // Replicas.
    row("repl-ping-replica-period", "10", Number(1, INT), Live, "seconds between two PINGs in what replicas are sent").slot(|c, v| c.repl_ping_replica_period.put(v)),
    row("repl-timeout", "60", Number(1, INT), Live, "a replica that has been silent for so many seconds is cut off").slot(|c, v| c.repl_timeout.put(v)),
    row("repl-backlog-size", "1048576", Memory(1, BIG), Live, "bytes of the log that are kept for replicas that come back").slot(|c, v| c.repl_backlog_size.put(v)),
    row("repl-backlog-ttl", "3600", Number(0, BIG), Live, "seconds for which they are kept without a replica; 0: for ever").slot(|c, v| c.repl_backlog_ttl.put(v)),
    row("min-replicas-to-write", "0", Number(0, INT), Live, "with fewer replicas writes are refused").slot(|c, v| c.min_replicas_to_write.put(v)),
    row("min-replicas-max-lag", "10", Number(0, INT), Live, "a replica that has been silent for more seconds does not count for that").slot(|c, v| c.min_replicas_max_lag.put(v)),
    row("shutdown-timeout", "10", Number(0, INT), Live, "seconds for which SHUTDOWN waits for replicas").slot(|c, v| c.shutdown_timeout.put(v)),
    // As a replica.
    row("replicaof", "", Words, AtStart, "host and port of the primary whose replica this server is").slot(|c, v| c.replicaof.put(v)),
    row("masteruser", "", Text, Live, "the name with which it logs in there").slot(|c, v| c.masteruser.put(v)),
    row("masterauth", "", Text, Live, "the password with which it logs in there").slot(|c, v| c.masterauth.put(v)),
    row("replica-read-only", "yes", YesNo, Live, "only the primary may write").slot(|c, v| c.replica_read_only.put(v)),
    row("replica-serve-stale-data", "yes", YesNo, Live, "show the data while the link to the primary is down").slot(|c, v| c.replica_serve_stale_data.put(v)),
    row("replica-ignore-maxmemory", "yes", YesNo, Live, "only the primary evicts keys").slot(|c, v| c.replica_ignore_maxmemory.put(v)),
    row("replica-announce-ip", "", Text, Live, "the address that the primary is told; empty: that of the connection").slot(|c, v| c.replica_announce_ip.put(v)),
    row("replica-announce-port", "0", Number(0, 65535), Live, "the port that the primary is told; 0: ours").slot(|c, v| c.replica_announce_port.put(v)),
    row("replica-priority", "100", Number(0, INT), Live, "which replica a Sentinel promotes, shown in INFO").slot(|c, v| c.replica_priority.put(v)),
    // Only shown, in INFO or in a warning.
];

/// The index of an option's row. The case of the name does not matter.
pub fn find(name: &str) -> Option<usize> {
    OPTIONS.iter().position(|row| row.name.eq_ignore_ascii_case(name))
}

/// The row that has the value: `row` itself, unless that is an alias.
pub fn target(row: usize) -> usize {
    match OPTIONS[row].accepts {
        Alias(name) => find(name).unwrap_or(row),
        _ => row,
    }
}

pub fn defaults() -> Values {
    let default = |row: &Row| match row.accepts {
        // It depends on where the process was started.
        Directory => row.check(row.default.as_bytes(), b"").unwrap_or_default(),
        _ => row.default.into(),
    };
    OPTIONS.iter().map(default).collect()
}

/// A line for each option, for CONFIG HELP: its default, when it may change, what it is for.
pub fn describe() -> impl Iterator<Item = String> {
    OPTIONS.iter().filter_map(|row| {
        let summary = match row.accepts {
            Refused(_) => return None,
            Alias(name) => format!("another name of {name}"),
            Only(_, why) | InVain(_, why) => why.to_string(),
            _ => row.summary.to_string(),
        };
        let change = match row.change {
            Live => "at run time",
            AtStart | Stays | Protected => "at start",
            Fixed => "fixed",
        };
        Some(format!("{} \"{}\" ({change}): {summary}", row.name, row.default))
    })
}

impl Row {
    const fn slot(self, put: fn(&Config, &[u8])) -> Row {
        Row { put, ..self }
    }

    /// The value as CONFIG GET shows it.
    pub fn shown(&self, value: &[u8]) -> Vec<u8> {
        match self.accepts {
            Events => notify::normalized(value),
            _ => value.to_vec(),
        }
    }

    /// The value to keep for a value that was given, or why that is refused, in Redis's words. `current` is
    /// the value so far.
    pub fn check(&self, given: &[u8], current: &[u8]) -> Result<Vec<u8>, String> {
        let name = self.name;
        // Bytes that are not UTF-8 fail below, as a bad number or an unknown word.
        let [text, so_far] = [given, current].map(String::from_utf8_lossy);
        let checked = match &self.accepts {
            Text | Words | Alias(_) => return Ok(given.to_vec()),
            Events if notify::parse(given).is_some() => Ok(text.into()),
            Events => Err("Invalid event class character. Use 'Ag$lshzxeKEtmdn'.".to_string()),
            Percentages => percentages(&text)
                .map_err(|wrong| format!("{}{name} parameters{}", wrong.0, wrong.1)),
            Directory if given.is_empty() => Err("No such file or directory".to_string()),
            Directory => return absolute(given, current),
            FileName if std::str::from_utf8(given).is_err() => Err(format!("{name} must be UTF-8")),
            FileName if given.is_empty() => Err(format!("{name} can't be empty")),
            // Redis accepts `.` and `..`, and then mixes its files with others.
            FileName if text.contains(['/', '\\']) || matches!(&*text, "." | "..") => {
                let what = if name == "appenddirname" { "dirname" } else { "filename" };
                Err(format!("{name} can't be a path, just a {what}"))
            }
            FileName => Ok(text.into()),
            Number(min, max) => match parse_integer(given) {
                Some(number) => between(number.into(), *min, *max),
                None => Err("argument couldn't be parsed into an integer".to_string()),
            },
            Memory(min, max) => match memory(&text) {
                Some(bytes) => between(bytes.into(), *min, *max),
                None => Err("argument must be a memory value".to_string()),
            },
            MemoryOrPercent => memory_or_percent(&text),
            YesNo => one_of(&text, &["yes", "no"], || "argument must be 'yes' or 'no'".to_string()),
            OneOf(words) => one_of(&text, words, || {
                format!("argument(s) must be one of the following: {}", words.join(", "))
            }),
            OutputLimits => output_limits(&text, &so_far).map_err(str::to_string),
            SavePoints => save_points(&text).map_err(str::to_string),
            Permissions => permissions(&text).map_err(str::to_string),
            Only(words, why) => only(&text, words, why),
            InVain(accepts, _) => {
                return Row { accepts: **accepts, ..self.clone() }.check(given, current);
            }
            Refused(why) => Err(format!("{why}; leave it out")),
        };
        checked.map(String::into_bytes)
    }
}

/// Redis changes into each `dir` that it reads. So a path is relative to the `dir` before, and without
/// symlinks.
fn absolute(given: &[u8], current: &[u8]) -> Result<Vec<u8>, String> {
    let [given, current] = [given, current].map(OsStr::from_bytes);
    let path = std::path::absolute(Path::new(current).join(given));
    let path = path.map_err(|error| error.to_string())?;
    // If it does not exist, that is reported when it is opened. `components` drops a slash at the end.
    let path = std::fs::canonicalize(&path).unwrap_or_else(|_| path.components().collect());
    Ok(path.into_os_string().into_vec())
}

fn between(number: i128, min: i64, max: i64) -> Result<String, String> {
    if (min.into()..=max.into()).contains(&number) {
        Ok(number.to_string())
    } else {
        Err(format!("argument must be between {min} and {max} inclusive"))
    }
}

fn one_of(given: &str, words: &[&str], reason: impl Fn() -> String) -> Result<String, String> {
    let found = words.iter().find(|word| word.eq_ignore_ascii_case(given));
    found.map(|word| word.to_string()).ok_or_else(reason)
}

fn only(given: &str, words: &[&str], why: &str) -> Result<String, String> {
    let found = one_of(given, words, || {
        let words = words.iter().filter(|word| !word.is_empty());
        let words = words.map(|word| format!("'{word}'")).collect::<Vec<_>>();
        format!("{why}; only {} is accepted", words.join(" or "))
    });
    found.map(|_| words[0].to_string())
}

/// A size in bytes: `1k` is 1,000 and `1kb` is 1,024.
pub fn memory(text: &str) -> Option<u64> {
    let digits = text.bytes().take_while(u8::is_ascii_digit).count();
    let (number, unit) = text.split_at(digits);
    let unit = match unit.to_ascii_lowercase().as_str() {
        _ if digits == 0 => return None,
        "" | "b" => 1,
        "k" => 1_000,
        "kb" => 1 << 10,
        "m" => 1_000_000,
        "mb" => 1 << 20,
        "g" => 1_000_000_000,
        "gb" => 1 << 30,
        _ => return None,
    };
    // Too many digits are over every limit.
    let number: u64 = number.parse().unwrap_or(u64::MAX);
    Some(number.saturating_mul(unit))
}

fn memory_or_percent(given: &str) -> Result<String, String> {
    let percent = given.strip_suffix('%');
    let number = match percent {
        Some(percent) => percent.parse().ok(),
        None => memory(given),
    };
    match number.ok_or("argument must be a memory or percent value")? {
        0 => Ok("0".to_string()),
        101.. if percent.is_some() => {
            Err("percentage argument must be less or equal to 100".into())
        }
        _ if percent.is_some() => Ok(given.to_string()),
        bytes => between(bytes.into(), 0, BIG),
    }
}

/// As Redis, seconds from 1 on and changes from 0 on.
fn save_points(given: &str) -> Result<String, &'static str> {
    let words: Vec<&str> = given.split_whitespace().collect();
    let numbers: Option<Vec<i64>> = words.iter().map(|word| word.parse().ok()).collect();
    let is_pair = |pair: &[i64]| pair.len() == 2 && pair[0] >= 1 && pair[1] >= 0;
    let numbers = numbers.filter(|numbers| numbers.chunks(2).all(is_pair));
    let numbers = numbers.ok_or("Invalid save parameters")?;
    Ok(numbers.iter().map(i64::to_string).collect::<Vec<_>>().join(" "))
}

fn permissions(given: &str) -> Result<String, &'static str> {
    match i64::from_str_radix(given, 8) {
        Ok(mode @ 0..=0o777) => Ok(format!("{mode:o}")),
        Ok(_) => Err("argument must be between 0 and 777 inclusive"),
        Err(_) => Err("argument couldn't be parsed as an octal number"),
    }
}

/// The percentages as numbers are printed; or what an error says before and behind the name of the option.
fn percentages(given: &str) -> Result<String, (&'static str, &'static str)> {
    let words = given.split(' ').filter(|_| !given.is_empty());
    let numbers = words.map(|word| match parse_double(word.as_bytes()) {
        None => Err(("Invalid ", "")),
        Some(number) if !(0.0..=100.0).contains(&number) => {
            Err(("", " should sit between [0.0,100.0]"))
        }
        Some(number) => Ok(number.to_string()),
    });
    Ok(numbers.collect::<Result<Vec<_>, _>>()?.join(" "))
}

/// Puts the classes that `given` names into `current`, which has all three.
fn output_limits(given: &str, current: &str) -> Result<String, &'static str> {
    let mut limits: Vec<String> = current.split(' ').map(String::from).collect();
    let given: Vec<&str> = given.split_whitespace().collect();
    if !given.len().is_multiple_of(4) {
        return Err("Wrong number of arguments in buffer limit configuration.");
    }
    for class in given.chunks_exact(4) {
        let at = match class[0].to_ascii_lowercase().as_str() {
            "normal" => 0,
            "slave" | "replica" => 4,
            "pubsub" => 8,
            _ => return Err("Invalid client class specified in buffer limit configuration."),
        };
        let seconds = parse_integer(class[3].as_bytes()).and_then(|number| number.try_into().ok());
        let numbers = [memory(class[1]), memory(class[2]), seconds];
        for (limit, number) in limits[at + 1..].iter_mut().zip(numbers) {
            *limit = number
                .ok_or(
                    "Error in hard, soft or soft_seconds setting in buffer limit configuration.",
                )?
                .to_string();
        }
    }
    Ok(limits.join(" "))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    #[test]
    fn every_default_is_accepted_as_a_value() {
        for (index, row) in OPTIONS.iter().enumerate() {
            assert_eq!(find(row.name), Some(index), "{} stands twice", row.name);
            match row.accepts {
                Refused(_) => {}
                Alias(name) => assert!(find(name).is_some() && target(index) != index),
                Directory => assert!(row.check(b"./", b"").unwrap().starts_with(b"/")),
                _ => assert_eq!(
                    row.check(row.default.as_bytes(), row.default.as_bytes()),
                    Ok(row.default.into()),
                    "{}",
                    row.name
                ),
            }
        }
    }

    #[test]
    fn every_option_is_read_from_the_slot_of_its_name() {
        let rows = include_str!("options.rs").lines();
        let rows = rows.filter_map(|line| line.trim().strip_prefix("row(\"")?.split_once('"'));
        let slots =
            rows.filter_map(|(name, row)| Some((name, row.split_once(".slot(|c, v| c.")?.1)));
        let mut filled = BTreeSet::new();
        for (name, slot) in slots.filter(|(_, slot)| !slot.starts_with("put_")) {
            let name = name.replace('-', "_");
            assert_eq!(slot, format!("{name}.put(v)),"));
            filled.insert(name);
        }
        let fields = include_str!("../config.rs").lines();
        let fields = fields.filter_map(|line| line.strip_prefix("    pub ")?.split_once(": "));
        let slots = fields.filter(|(_, kind)| kind.starts_with("Slot<") || *kind == "Bytes,");
        let slots = slots.map(|(name, _)| name.to_string()).collect();
        let differences = &filled ^ &slots;
        assert!(
            differences.is_empty(),
            "a row without a slot, or a slot without a row: {differences:?}"
        );
    }

    #[test]
    fn a_size_has_a_unit_of_a_thousand_or_of_1024() {
        for (text, bytes) in [
            ("0", Some(0)),
            ("12b", Some(12)),
            ("1k", Some(1000)),
            ("1kb", Some(1024)),
            ("2M", Some(2_000_000)),
            ("64mb", Some(67_108_864)),
            ("1g", Some(1_000_000_000)),
            ("1GB", Some(1_073_741_824)),
            ("99999999999999999999999gb", Some(u64::MAX)),
            ("", None),
            ("kb", None),
            ("-1", None),
            ("1tb", None),
            ("1 kb", None),
            ("1é", None),
        ] {
            assert_eq!(memory(text), bytes, "{text}");
        }
    }
}
