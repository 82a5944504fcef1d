//! The table of all options, and what a value may be.
//!
//! To add an option, add a row, and ask for its value by its name:
//!
//! ```text
//!     name               default kind            change summary
//! row("slowlog-max-len", "128",  Number(0, BIG), Live,  "entries that the slow log keeps"),
//!
//! config.number("slowlog-max-len")
//! ```
//!
//! **A file written for Redis must start this server, or be refused for a reason.** So the table
//! also has options of features that are not here. Those that only tune something are accepted at any
//! value that Redis accepts, for there is nothing to tune (`no effect here`). Those that ask for a
//! feature are accepted at the values that ask for nothing, and refused by name at any other ([`Only`]):
//! a server that accepts `maxmemory 100mb` and then grows and grows would lie. The stock redis.conf is
//! a test in start.rs.
//!
//! **How Redis does it**: config.c, `static_configs`: the same rows with a pointer to a variable
//! in each, and the same error texts. Its stock file and its built-in defaults differ in `bind`
//! and `save`; ours are those of the stock file, but for `appendonly yes`.

use crate::resp::parse_integer;
use std::ffi::OsStr;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::Path;

use Change::*;
use Kind::*;

/// What a value may be.
pub enum Kind {
    /// One word, of any bytes.
    Text,
    /// Any number of words, joined by spaces.
    Words,
    /// The name of a file, without a directory. It is text, for it stands in the manifest.
    FileName,
    /// A directory; kept as an absolute path.
    Directory,
    /// A whole number, from and to.
    Number(i64, i64),
    /// Bytes, from and to: `64mb`. Kept as the number of bytes.
    Memory(i64, i64),
    /// Bytes, or a percentage.
    MemoryOrPercent,
    YesNo,
    OneOf(&'static [&'static str]),
    /// Any number of `class hard soft seconds`. Kept as all three classes, in Redis's order.
    OutputLimits,
    /// Asks for a feature that is not here, except at these values; and why.
    Only(&'static [&'static str], &'static str),
    /// An old name of another option.
    Alias(&'static str),
    /// Asks for a feature that is not here, at any value, and no option to CONFIG; and why.
    Refused(&'static str),
}

/// When a value may change.
#[derive(PartialEq)]
pub enum Change {
    /// At run time too, by CONFIG SET.
    Live,
    AtStart,
    /// At start only, since a client that can choose where we write files can take the machine.
    Protected,
    /// Never: a file may say what it likes, the default is what holds.
    Fixed,
}

/// An option.
pub struct Row {
    pub name: &'static str,
    /// As it would be given; empty for an alias, whose value is another's.
    pub default: &'static str,
    pub kind: Kind,
    pub change: Change,
    /// What it is for, in CONFIG HELP.
    pub summary: &'static str,
}

/// A row, in one line.
const fn row(
    name: &'static str,
    default: &'static str,
    kind: Kind,
    change: Change,
    summary: &'static str,
) -> Row {
    Row {
        name,
        default,
        kind,
        change,
        summary,
    }
}

const BIG: i64 = i64::MAX;
const INT: i64 = i32::MAX as i64;
const LONGEST: i64 = crate::resp::LONGEST as i64;
const MB: i64 = 1024 * 1024;
const NO: &[&str] = &["no"];
const NONE: &[&str] = &[""];
const ZERO: &[&str] = &["0"];
const POLICIES: &[&str] = &[
    "volatile-lru",
    "volatile-lfu",
    "volatile-random",
    "volatile-ttl",
    "allkeys-lru",
    "allkeys-lfu",
    "allkeys-random",
    "noeviction",
];
const FACILITIES: &[&str] = &[
    "user", "local0", "local1", "local2", "local3", "local4", "local5", "local6", "local7",
];
const REPLICAS: &str = "this server has no replicas";
const TLS: &str = "this server has no TLS";
const PROCESSORS: &str = "std cannot choose processors for a thread";
const NO_EFFECT: &str = "no effect here";

/// In the order of CONFIG GET.
#[rustfmt::skip]
pub static OPTIONS: &[Row] = &[
    // Network and process.
    row("bind", "127.0.0.1 -::1", Words, AtStart, "addresses to listen on; one with a '-' may be missing"),
    row("protected-mode", "yes", YesNo, Live, "without a password, serve clients of this machine only"),
    row("port", "6379", Number(0, 65535), AtStart, "TCP port; 0 picks a free one"),
    row("timeout", "0", Number(0, INT), Live, "close a client that is idle for so many seconds; 0: never"),
    row("tcp-keepalive", "0", Number(0, INT), Fixed, "std cannot set it"),
    row("tcp-backlog", "128", Number(0, INT), Fixed, "std's own"),
    row("dir", "./", Directory, Protected, "where the log's directory is"),
    row("databases", "16", Number(1, INT), AtStart, "how many there are to SELECT"),
    row("logfile", "", Text, AtStart, "what the server says goes here; empty: to stdout"),
    row("loglevel", "notice", OneOf(&["debug", "verbose", "notice", "warning"]), Live, "how much it says"),
    row("enable-debug-command", "no", OneOf(&["no", "yes", "local"]), AtStart, "who may use DEBUG"),
    // The append-only file.
    row("appendonly", "yes", YesNo, Live, "keep every change in the log"),
    row("appendfilename", "appendonly.aof", FileName, AtStart, "what the log's files begin with"),
    row("appenddirname", "appendonlydir", FileName, AtStart, "the log's directory, in dir"),
    row("appendfsync", "everysec", OneOf(&["everysec", "always", "no"]), Live, "when the disk is told to keep the log"),
    row("auto-aof-rewrite-percentage", "100", Number(0, INT), Live, "rewrite the log when it has grown so much; 0: never"),
    row("auto-aof-rewrite-min-size", "67108864", Memory(0, BIG), Live, "but not before it has this size"),
    row("aof-load-truncated", "yes", YesNo, Live, "start from a log whose last record is cut short"),
    row("aof-load-corrupt-tail-max-size", "0", Memory(0, BIG), Live, "bytes of garbage to cut from the log's end"),
    row("aof-checksum", "yes", YesNo, Live, "write checksums into the log; what stands there is compared in any case. Not in Redis"),
    row("aof-use-rdb-preamble", "no", YesNo, Fixed, "the log is always commands"),
    row("aof-timestamp-enabled", "no", Only(NO, "this server writes no timestamps into its log"), Live, ""),
    row("aof-rewrite-incremental-fsync", "yes", YesNo, Live, NO_EFFECT),
    row("no-appendfsync-on-rewrite", "no", YesNo, Live, NO_EFFECT),
    row("save", "", Words, Fixed, "there are no RDB snapshots"),
    // Limits.
    row("requirepass", "", Text, Live, "the password that clients must send"),
    row("maxclients", "10000", Number(1, u32::MAX as i64), Live, "how many clients at a time"),
    row("client-query-buffer-limit", "1073741824", Memory(MB, BIG), Live, "bytes that one client may send ahead"),
    row("proto-max-bulk-len", "536870912", Memory(MB, LONGEST), Live, "longest string"),
    row("maxmemory-clients", "25%", MemoryOrPercent, Live, "bytes that all clients may hold, or a percentage of the machine's memory; 0: any"),
    row("client-output-buffer-limit", "normal 0 0 0 slave 268435456 67108864 60 pubsub 33554432 8388608 60", OutputLimits, Live, "bytes a client may leave unread"),
    row("slowlog-log-slower-than", "10000", Number(-1, BIG), Live, "microseconds that make a command slow; -1: none is"),
    row("slowlog-max-len", "128", Number(0, BIG), Live, "entries that the slow log keeps"),
    row("hash-max-listpack-entries", "512", Number(0, BIG), Live, "a hash of up to so many fields is packed"),
    row("hash-max-listpack-value", "64", Memory(0, BIG), Live, "if none of them is longer than this"),
    row("hash-max-ziplist-entries", "", Alias("hash-max-listpack-entries"), Live, ""),
    row("hash-max-ziplist-value", "", Alias("hash-max-listpack-value"), Live, ""),
    // What would ask for something that is not here.
    row("daemonize", "no", Only(NO, "this server stays in the foreground; start it with '&' or from a service manager"), AtStart, ""),
    row("supervised", "no", Only(&["no", "auto"], "this server does not talk to a service manager"), AtStart, ""),
    row("pidfile", "", Only(&["", "/var/run/redis_6379.pid"], "this server writes no pid file"), AtStart, ""),
    row("syslog-enabled", "no", Only(NO, "this server does not write to syslog"), AtStart, ""),
    row("unixsocket", "", Only(NONE, "this server listens on TCP ports alone"), AtStart, ""),
    row("tls-port", "0", Only(ZERO, TLS), AtStart, ""),
    row("tls-cert-file", "", Only(NONE, TLS), AtStart, ""),
    row("tls-key-file", "", Only(NONE, TLS), AtStart, ""),
    row("tls-ca-cert-file", "", Only(NONE, TLS), AtStart, ""),
    row("tls-replication", "no", Only(NO, TLS), AtStart, ""),
    row("tls-cluster", "no", Only(NO, TLS), AtStart, ""),
    row("replicaof", "", Only(NONE, REPLICAS), AtStart, ""),
    row("slaveof", "", Only(NONE, REPLICAS), AtStart, ""),
    row("masterauth", "", Only(NONE, REPLICAS), Live, ""),
    row("masteruser", "", Only(NONE, REPLICAS), Live, ""),
    row("min-replicas-to-write", "0", Only(ZERO, REPLICAS), Live, ""),
    row("min-slaves-to-write", "", Alias("min-replicas-to-write"), Live, ""),
    row("cluster-enabled", "no", Only(NO, "this server is no cluster node"), AtStart, ""),
    row("maxmemory", "0", Only(ZERO, "this server has no eviction"), Live, ""),
    row("notify-keyspace-events", "", Only(NONE, "this server has no keyspace notifications"), Live, ""),
    row("aclfile", "", Only(NONE, "this server has one user; use requirepass"), AtStart, ""),
    row("io-threads", "1", Only(&["1"], "every client has a thread of its own already"), AtStart, ""),
    row("activedefrag", "no", Only(NO, "this server does not defragment its memory"), Live, ""),
    row("latency-monitor-threshold", "0", Only(ZERO, "this server has no latency monitor"), Live, ""),
    row("enable-module-command", "no", Only(NO, "this server has no modules"), AtStart, ""),
    row("enable-protected-configs", "no", Only(NO, "this server protects them always"), AtStart, ""),
    row("oom-score-adj", "no", Only(NO, "this server leaves its OOM score alone"), Live, ""),
    row("shutdown-on-sigint", "default", Only(&["default"], "std catches no signals"), Live, ""),
    row("shutdown-on-sigterm", "default", Only(&["default"], "std catches no signals"), Live, ""),
    row("socket-mark-id", "0", Only(ZERO, "std cannot mark a socket"), AtStart, ""),
    row("server_cpulist", "", Only(NONE, PROCESSORS), AtStart, ""),
    row("bio_cpulist", "", Only(NONE, PROCESSORS), AtStart, ""),
    row("aof_rewrite_cpulist", "", Only(NONE, PROCESSORS), AtStart, ""),
    row("bgsave_cpulist", "", Only(NONE, PROCESSORS), AtStart, ""),
    row("aof-disable-auto-gc", "no", Only(NO, "this server deletes the files that a rewrite has replaced"), Live, ""),
    row("tls-key-file-pass", "", Only(NONE, TLS), Live, ""),
    row("tls-client-cert-file", "", Only(NONE, TLS), Live, ""),
    row("tls-client-key-file", "", Only(NONE, TLS), Live, ""),
    row("tls-client-key-file-pass", "", Only(NONE, TLS), Live, ""),
    row("tls-dh-params-file", "", Only(NONE, TLS), Live, ""),
    row("tls-ca-cert-dir", "", Only(NONE, TLS), Live, ""),
    row("rename-command", "", Refused("this server cannot rename commands"), AtStart, ""),
    row("user", "", Refused("this server has one user; use requirepass"), AtStart, ""),
    row("loadmodule", "", Refused("this server has no modules"), AtStart, ""),
    row("sentinel", "", Refused("this server is no sentinel"), AtStart, ""),
    // What tunes something that is not here.
    row("always-show-logo", "no", YesNo, AtStart, NO_EFFECT),
    row("set-proc-title", "yes", YesNo, AtStart, NO_EFFECT),
    row("proc-title-template", "{title} {listen-addr} {server-mode}", Text, Live, NO_EFFECT),
    row("locale-collate", "", Text, Live, NO_EFFECT),
    row("stop-writes-on-bgsave-error", "yes", YesNo, Live, NO_EFFECT),
    row("rdbcompression", "yes", YesNo, Live, NO_EFFECT),
    row("rdbchecksum", "yes", YesNo, AtStart, NO_EFFECT),
    row("dbfilename", "dump.rdb", FileName, Protected, NO_EFFECT),
    row("rdb-del-sync-files", "no", YesNo, Live, NO_EFFECT),
    row("rdb-save-incremental-fsync", "yes", YesNo, Live, NO_EFFECT),
    row("replica-serve-stale-data", "yes", YesNo, Live, NO_EFFECT),
    row("replica-read-only", "yes", YesNo, Live, NO_EFFECT),
    row("replica-priority", "100", Number(0, INT), Live, NO_EFFECT),
    row("replica-lazy-flush", "no", YesNo, Live, NO_EFFECT),
    row("replica-announced", "yes", YesNo, Live, NO_EFFECT),
    row("replica-ignore-maxmemory", "yes", YesNo, Live, NO_EFFECT),
    row("min-replicas-max-lag", "10", Number(0, INT), Live, NO_EFFECT),
    row("repl-ping-replica-period", "10", Number(1, INT), Live, NO_EFFECT),
    row("repl-backlog-ttl", "3600", Number(0, BIG), Live, NO_EFFECT),
    row("slave-serve-stale-data", "", Alias("replica-serve-stale-data"), Live, ""),
    row("slave-read-only", "", Alias("replica-read-only"), Live, ""),
    row("slave-priority", "", Alias("replica-priority"), Live, ""),
    row("slave-lazy-flush", "", Alias("replica-lazy-flush"), Live, ""),
    row("slave-ignore-maxmemory", "", Alias("replica-ignore-maxmemory"), Live, ""),
    row("min-slaves-max-lag", "", Alias("min-replicas-max-lag"), Live, ""),
    row("repl-ping-slave-period", "", Alias("repl-ping-replica-period"), Live, ""),
    row("repl-diskless-sync", "yes", YesNo, Live, NO_EFFECT),
    row("repl-diskless-sync-delay", "5", Number(0, INT), Live, NO_EFFECT),
    row("repl-diskless-sync-max-replicas", "0", Number(0, INT), Live, NO_EFFECT),
    row("repl-diskless-load", "disabled", OneOf(&["disabled", "on-empty-db", "swapdb"]), Live, NO_EFFECT),
    row("repl-disable-tcp-nodelay", "no", YesNo, Live, NO_EFFECT),
    row("repl-backlog-size", "1048576", Memory(1, BIG), Live, NO_EFFECT),
    row("repl-timeout", "60", Number(1, INT), Live, NO_EFFECT),
    row("acllog-max-len", "128", Number(0, BIG), Live, NO_EFFECT),
    row("maxmemory-policy", "noeviction", OneOf(POLICIES), Live, NO_EFFECT),
    row("maxmemory-eviction-tenacity", "10", Number(0, 100), Live, NO_EFFECT),
    row("lfu-log-factor", "10", Number(0, INT), Live, NO_EFFECT),
    row("lfu-decay-time", "1", Number(0, INT), Live, NO_EFFECT),
    row("active-expire-effort", "1", Number(1, 10), Live, NO_EFFECT),
    row("tracking-table-max-keys", "1000000", Number(0, BIG), Live, NO_EFFECT),
    row("acl-pubsub-default", "resetchannels", OneOf(&["allchannels", "resetchannels"]), Live, NO_EFFECT),
    row("latency-tracking-info-percentiles", "50 99 99.9", Words, Live, NO_EFFECT),
    row("ignore-warnings", "", Text, Live, NO_EFFECT),
    row("crash-log-enabled", "yes", YesNo, Live, NO_EFFECT),
    row("crash-memcheck-enabled", "yes", YesNo, Live, NO_EFFECT),
    row("syslog-ident", "redis", Text, AtStart, NO_EFFECT),
    row("unixsocketperm", "0", Text, AtStart, NO_EFFECT),
    row("sanitize-dump-payload", "no", OneOf(&["no", "yes", "clients"]), Live, NO_EFFECT),
    row("maxmemory-samples", "5", Number(1, INT), Live, NO_EFFECT),
    row("lazyfree-lazy-eviction", "no", YesNo, Live, NO_EFFECT),
    row("lazyfree-lazy-expire", "no", YesNo, Live, NO_EFFECT),
    row("lazyfree-lazy-server-del", "no", YesNo, Live, NO_EFFECT),
    row("lazyfree-lazy-user-del", "no", YesNo, Live, NO_EFFECT),
    row("lazyfree-lazy-user-flush", "no", YesNo, Live, NO_EFFECT),
    row("io-threads-do-reads", "no", YesNo, AtStart, NO_EFFECT),
    row("oom-score-adj-values", "0 200 800", Words, Live, NO_EFFECT),
    row("disable-thp", "yes", YesNo, AtStart, NO_EFFECT),
    row("shutdown-timeout", "10", Number(0, INT), Live, NO_EFFECT),
    row("lua-time-limit", "5000", Number(0, BIG), Live, NO_EFFECT),
    row("busy-reply-threshold", "", Alias("lua-time-limit"), Live, ""),
    row("latency-tracking", "yes", YesNo, Live, NO_EFFECT),
    row("list-max-listpack-size", "-2", Number(-INT, INT), Live, NO_EFFECT),
    row("list-max-ziplist-size", "", Alias("list-max-listpack-size"), Live, ""),
    row("list-compress-depth", "0", Number(0, INT), Live, NO_EFFECT),
    row("set-max-intset-entries", "512", Number(0, BIG), Live, NO_EFFECT),
    row("set-max-listpack-entries", "128", Number(0, BIG), Live, NO_EFFECT),
    row("set-max-listpack-value", "64", Memory(0, BIG), Live, NO_EFFECT),
    row("zset-max-listpack-entries", "128", Number(0, BIG), Live, NO_EFFECT),
    row("zset-max-listpack-value", "64", Memory(0, BIG), Live, NO_EFFECT),
    row("zset-max-ziplist-entries", "", Alias("zset-max-listpack-entries"), Live, ""),
    row("zset-max-ziplist-value", "", Alias("zset-max-listpack-value"), Live, ""),
    row("hll-sparse-max-bytes", "3000", Memory(0, BIG), Live, NO_EFFECT),
    row("stream-node-max-bytes", "4096", Memory(0, BIG), Live, NO_EFFECT),
    row("stream-node-max-entries", "100", Number(0, BIG), Live, NO_EFFECT),
    row("activerehashing", "yes", YesNo, Live, NO_EFFECT),
    row("hz", "10", Number(0, INT), Live, NO_EFFECT),
    row("dynamic-hz", "yes", YesNo, Live, NO_EFFECT),
    row("jemalloc-bg-thread", "yes", YesNo, Live, NO_EFFECT),
    row("active-defrag-cycle-max", "25", Number(1, 99), Live, NO_EFFECT),
    row("active-defrag-cycle-min", "1", Number(1, 99), Live, NO_EFFECT),
    row("active-defrag-ignore-bytes", "104857600", Memory(1, BIG), Live, NO_EFFECT),
    row("active-defrag-max-scan-fields", "1000", Number(1, BIG), Live, NO_EFFECT),
    row("active-defrag-threshold-lower", "10", Number(0, 1000), Live, NO_EFFECT),
    row("active-defrag-threshold-upper", "100", Number(0, 1000), Live, NO_EFFECT),
    row("bind-source-addr", "", Text, Live, NO_EFFECT),
    row("replica-announce-ip", "", Text, Live, NO_EFFECT),
    row("replica-announce-port", "0", Number(0, 65535), Live, NO_EFFECT),
    row("replica-ignore-disk-write-errors", "no", YesNo, Live, NO_EFFECT),
    row("slave-announce-ip", "", Alias("replica-announce-ip"), Live, ""),
    row("slave-announce-port", "", Alias("replica-announce-port"), Live, ""),
    row("propagation-error-behavior", "ignore", OneOf(&["ignore", "panic", "panic-on-replicas"]), Live, NO_EFFECT),
    row("syslog-facility", "local0", OneOf(FACILITIES), AtStart, NO_EFFECT),
    row("cluster-config-file", "nodes.conf", FileName, AtStart, NO_EFFECT),
    row("cluster-node-timeout", "15000", Number(0, BIG), Live, NO_EFFECT),
    row("cluster-port", "0", Number(0, 65535), AtStart, NO_EFFECT),
    row("cluster-announce-ip", "", Text, Live, NO_EFFECT),
    row("cluster-announce-hostname", "", Text, Live, NO_EFFECT),
    row("cluster-announce-port", "0", Number(0, 65535), Live, NO_EFFECT),
    row("cluster-announce-bus-port", "0", Number(0, 65535), Live, NO_EFFECT),
    row("cluster-announce-tls-port", "0", Number(0, 65535), Live, NO_EFFECT),
    row("cluster-link-sendbuf-limit", "0", Memory(0, BIG), Live, NO_EFFECT),
    row("cluster-migration-barrier", "1", Number(0, INT), Live, NO_EFFECT),
    row("cluster-replica-validity-factor", "10", Number(0, INT), Live, NO_EFFECT),
    row("cluster-slave-validity-factor", "", Alias("cluster-replica-validity-factor"), Live, ""),
    row("cluster-replica-no-failover", "no", YesNo, Live, NO_EFFECT),
    row("cluster-slave-no-failover", "", Alias("cluster-replica-no-failover"), Live, ""),
    row("cluster-require-full-coverage", "yes", YesNo, Live, NO_EFFECT),
    row("cluster-allow-replica-migration", "yes", YesNo, Live, NO_EFFECT),
    row("cluster-allow-pubsubshard-when-down", "yes", YesNo, Live, NO_EFFECT),
    row("cluster-allow-reads-when-down", "no", YesNo, Live, NO_EFFECT),
    row("cluster-preferred-endpoint-type", "ip", OneOf(&["ip", "hostname", "unknown-endpoint"]), Live, NO_EFFECT),
    row("tls-auth-clients", "yes", OneOf(&["no", "yes", "optional"]), Live, NO_EFFECT),
    row("tls-protocols", "", Text, Live, NO_EFFECT),
    row("tls-ciphers", "", Text, Live, NO_EFFECT),
    row("tls-ciphersuites", "", Text, Live, NO_EFFECT),
    row("tls-prefer-server-ciphers", "no", YesNo, Live, NO_EFFECT),
    row("tls-session-caching", "yes", YesNo, Live, NO_EFFECT),
    row("tls-session-cache-size", "20480", Number(0, INT), Live, NO_EFFECT),
    row("tls-session-cache-timeout", "300", Number(0, INT), Live, NO_EFFECT),
];

/// The index of an option's row; names are compared without regard to case.
pub fn find(name: &str) -> Option<usize> {
    OPTIONS
        .iter()
        .position(|row| row.name.eq_ignore_ascii_case(name))
}

/// The row that holds the value of this one: itself, unless it is an old name.
pub fn target(row: usize) -> usize {
    match OPTIONS[row].kind {
        Alias(name) => find(name).unwrap_or(row),
        _ => row,
    }
}

/// The value of each row before anybody has said anything.
pub fn defaults() -> Vec<Vec<u8>> {
    let default = |row: &Row| match row.kind {
        // What it is depends on where the process was started.
        Directory => row.check(row.default.as_bytes(), b"").unwrap_or_default(),
        _ => row.default.into(),
    };
    OPTIONS.iter().map(default).collect()
}

/// A line for each option, for CONFIG HELP: its default, when it may change, what it is for.
pub fn describe() -> impl Iterator<Item = String> {
    OPTIONS.iter().filter_map(|row| {
        let summary = match row.kind {
            Refused(_) => return None,
            Alias(name) => format!("another name of {name}"),
            Only(_, why) => why.to_string(),
            _ => row.summary.to_string(),
        };
        let change = match row.change {
            Live => "at run time",
            AtStart | Protected => "at start",
            Fixed => "fixed",
        };
        let Row { name, default, .. } = row;
        Some(format!("{name} \"{default}\" ({change}): {summary}"))
    })
}

impl Row {
    /// The text to keep for a value that was given, or why it is refused, in Redis's words.
    /// `current` is what the option's value has been.
    pub fn check(&self, given: &[u8], current: &[u8]) -> Result<Vec<u8>, String> {
        match (&self.kind, std::str::from_utf8(given)) {
            (Text | Words | Alias(_), _) => Ok(given.to_vec()),
            (Directory, _) if given.is_empty() => Err("No such file or directory".to_string()),
            (Directory, _) => absolute(given, current),
            (FileName, Err(_)) => Err(format!("{} must be UTF-8", self.name)),
            // What is not text is no number and no word that is known, and is refused as such.
            _ => {
                let [given, current] = [given, current].map(String::from_utf8_lossy);
                self.check_text(&given, &current).map(String::into_bytes)
            }
        }
    }

    fn check_text(&self, given: &str, current: &str) -> Result<String, String> {
        let name = self.name;
        match &self.kind {
            Text | Words | Alias(_) | Directory => Ok(given.to_string()),
            FileName if given.is_empty() => Err(format!("{name} can't be empty")),
            // Redis takes the two dots' names too, and then mixes its files with others'.
            FileName if given.contains(['/', '\\']) || matches!(given, "." | "..") => {
                let what = if name == "appenddirname" {
                    "dirname"
                } else {
                    "filename"
                };
                Err(format!("{name} can't be a path, just a {what}"))
            }
            FileName => Ok(given.to_string()),
            Number(min, max) => match parse_integer(given.as_bytes()) {
                Some(number) => between(number.into(), *min, *max),
                None => Err("argument couldn't be parsed into an integer".to_string()),
            },
            Memory(min, max) => match memory(given) {
                Some(bytes) => between(bytes.into(), *min, *max),
                None => Err("argument must be a memory value".to_string()),
            },
            MemoryOrPercent => memory_or_percent(given),
            YesNo => one_of(given, &["yes", "no"])
                .ok_or_else(|| "argument must be 'yes' or 'no'".to_string()),
            OneOf(words) => one_of(given, words).ok_or_else(|| {
                let words = words.join(", ");
                format!("argument(s) must be one of the following: {words}")
            }),
            OutputLimits => output_limits(given, current).map_err(str::to_string),
            Only(values, why) => one_of(given, values).ok_or_else(|| {
                let values = values.join("' or '");
                format!("{why}; only '{values}' is accepted")
            }),
            Refused(why) => Err(format!("{why}; leave it out")),
        }
    }
}

/// As Redis, which changes into each `dir` that it reads: from the one before on, without symlinks.
fn absolute(given: &[u8], current: &[u8]) -> Result<Vec<u8>, String> {
    let [given, current] = [given, current].map(OsStr::from_bytes);
    let path = std::path::absolute(Path::new(current).join(given));
    let path = path.map_err(|error| error.to_string())?;
    // What does not exist is told when it is opened. Put together again from its parts, it has no
    // slash at the end.
    let path = std::fs::canonicalize(&path).unwrap_or_else(|_| path.components().collect());
    Ok(path.into_os_string().into_vec())
}

fn between(number: i128, min: i64, max: i64) -> Result<String, String> {
    if (min.into()..=max.into()).contains(&number) {
        Ok(number.to_string())
    } else {
        Err(format!(
            "argument must be between {min} and {max} inclusive"
        ))
    }
}

fn one_of(given: &str, words: &[&str]) -> Option<String> {
    let found = words.iter().find(|word| word.eq_ignore_ascii_case(given))?;
    Some(found.to_string())
}

/// A size in bytes: `1k` is a thousand of them, `1kb` is 1,024.
fn memory(text: &str) -> Option<u64> {
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
    // Digits that do not fit are a size over every limit.
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

/// Puts the classes that `given` names into `current`, which holds all three.
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

    fn check(name: &str, given: &str) -> Result<String, String> {
        let row = find(name).unwrap();
        let checked = OPTIONS[row].check(given.as_bytes(), &defaults()[row]);
        checked.map(|value| String::from_utf8(value).unwrap())
    }

    #[test]
    fn every_default_is_accepted_as_a_value() {
        for (index, row) in OPTIONS.iter().enumerate() {
            assert_eq!(find(row.name), Some(index), "{} stands twice", row.name);
            match row.kind {
                Refused(_) => {}
                Alias(name) => assert!(find(name).is_some() && target(index) != index),
                Directory => assert!(row.check(b"./", b"").unwrap().starts_with(b"/")),
                _ => assert_eq!(
                    row.check(row.default.as_bytes(), row.default.as_bytes()),
                    Ok(row.default.into())
                ),
            }
        }
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

    #[test]
    fn a_value_that_is_refused_gets_the_words_of_redis() {
        let integer = "argument couldn't be parsed into an integer";
        let limits = "Error in hard, soft or soft_seconds setting in buffer limit configuration.";
        for (name, given, reason) in [
            ("port", "abc", integer),
            (
                "port",
                "99999",
                "argument must be between 0 and 65535 inclusive",
            ),
            ("timeout", " 5", integer),
            (
                "timeout",
                "-1",
                "argument must be between 0 and 2147483647 inclusive",
            ),
            ("hash-max-listpack-entries", "1k", integer),
            (
                "auto-aof-rewrite-min-size",
                "1x",
                "argument must be a memory value",
            ),
            (
                "proto-max-bulk-len",
                "99999999999gb",
                "argument must be between 1048576 and 2147483647 inclusive",
            ),
            ("appendonly", "maybe", "argument must be 'yes' or 'no'"),
            (
                "appendfsync",
                "foo",
                "argument(s) must be one of the following: everysec, always, no",
            ),
            (
                "appendfilename",
                "a/b",
                "appendfilename can't be a path, just a filename",
            ),
            (
                "appenddirname",
                "..",
                "appenddirname can't be a path, just a dirname",
            ),
            (
                "client-output-buffer-limit",
                "pubsub 1 2",
                "Wrong number of arguments in buffer limit configuration.",
            ),
            (
                "client-output-buffer-limit",
                "master 1 2 3",
                "Invalid client class specified in buffer limit configuration.",
            ),
            ("client-output-buffer-limit", "pubsub 1 2 -3", limits),
            (
                "maxmemory-clients",
                "101%",
                "percentage argument must be less or equal to 100",
            ),
            (
                "maxmemory-clients",
                "-5%",
                "argument must be a memory or percent value",
            ),
            (
                "maxmemory",
                "100mb",
                "this server has no eviction; only '0' is accepted",
            ),
        ] {
            assert_eq!(
                check(name, given),
                Err(reason.to_string()),
                "{name} {given}"
            );
        }
    }

    #[test]
    fn output_limits_change_the_classes_that_are_named() {
        assert_eq!(
            check(
                "client-output-buffer-limit",
                "pubsub 1kb 1k 3 Replica 1 2 3"
            ),
            Ok("normal 0 0 0 slave 1 2 3 pubsub 1024 1000 3".to_string())
        );
    }
}
