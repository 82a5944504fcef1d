//! The configuration while the server runs.
//!
//! ```text
//! command line ─┐                      ┌─▶ CONFIG GET
//! redis.conf ───┼─▶ checked ─▶ values ─┤
//! CONFIG SET ───┘                      └─▶ slots: config.timeout.get()
//! ```
//!
//! A value is kept twice: as the bytes that CONFIG GET answers, in a list beside the table of options; and
//! in a slot, a typed field of [`Config`]. The server reads the slots.
//!
//! In the folder, `options.rs` has the table of options, `start.rs` reads the command line and the file, and
//! `rewrite.rs` writes the file.
//!
//! **How Redis does it**: config.c. There CONFIG SET changes the variables one by one, and restores them if
//! one is refused. Here all values are checked on a copy, which then replaces the old values.

mod ignored;
mod include;
mod options;
pub mod policy;
mod rewrite;
mod slot;
mod start;
mod users;

pub use options::{describe, memory};
pub use start::help;

use crate::error::Error;
use crate::held::{self, Total};
use crate::latency::Latency;
use crate::resp::parse_integer;
use crate::{glob, log};
use options::{Accepts, Change, OPTIONS, Row, find, target};
use policy::Policy;
use slot::{Bytes, Slot};
use std::path::PathBuf;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering::{Relaxed, Release};
use std::sync::{Arc, RwLock};
use users::Password;

/// The version of Redis whose behaviour this server follows, which it reports to clients.
pub const REDIS_VERSION: &str = "7.0.15";

/// What the command line asks for.
pub enum Start {
    /// With warnings for the operator.
    Serve(Arc<Config>, Vec<String>),
    Help,
    Version,
    /// Check a log, which is a file or a directory. With `fix`, repair it.
    CheckAof {
        path: PathBuf,
        fix: bool,
    },
}

/// `appendfsync`: when the log is written to the disk.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Fsync {
    #[default]
    Everysec,
    Always,
    No,
}

/// All options. Shared by all threads.
#[derive(Default)]
pub struct Config {
    values: RwLock<Values>,
    /// The configuration file, for INFO, or empty.
    pub file: PathBuf,
    /// What standard input has said, for the process that goes on in the background (service.rs).
    pub input: Vec<u8>,
    /// `rename-command`: names of commands, and what clients call them instead, in this order.
    pub renames: Vec<(Vec<u8>, Vec<u8>)>,
    /// What clients must send: `requirepass`, or what a `user` line says.
    pub password: Password,
    /// As the `user` line says, the user may use no channels. Here it may; the line stays as it is.
    lacks_channels: bool,
    /// Has the limits `maxmemory-clients` and `client-output-buffer-limit`.
    pub clients: Arc<Total>,
    /// Has `latency-monitor-threshold`, and what took that long.
    pub latency: Latency,
    /// Goes up after the options have changed.
    pub version: AtomicU64,
    // Each of these is the option of this name.
    pub aof_checksum: Slot<bool>,
    pub aof_load_corrupt_tail_max_size: Slot<usize>,
    pub aof_load_truncated: Slot<bool>,
    pub appenddirname: Bytes,
    pub appendfilename: Bytes,
    pub appendfsync: Slot<Fsync>,
    pub appendonly: Slot<bool>,
    pub aof_use_rdb_preamble: Slot<bool>,
    pub auto_aof_rewrite_min_size: Slot<usize>,
    pub auto_aof_rewrite_percentage: Slot<usize>,
    pub bind: Bytes,
    pub busy_reply_threshold: Slot<usize>,
    pub client_query_buffer_limit: Slot<usize>,
    pub daemonize: Slot<bool>,
    pub databases: Slot<usize>,
    pub dbfilename: Bytes,
    pub dir: Bytes,
    pub enable_debug_command: Bytes,
    pub hash_max_listpack_entries: Slot<usize>,
    pub hash_max_listpack_value: Slot<usize>,
    pub latency_tracking_info_percentiles: Bytes,
    pub lfu_decay_time: Slot<usize>,
    pub lfu_log_factor: Slot<usize>,
    pub list_max_listpack_size: Slot<i64>,
    pub logfile: Bytes,
    pub maxclients: Slot<usize>,
    pub masterauth: Bytes,
    pub masteruser: Bytes,
    pub maxmemory: Slot<usize>,
    pub maxmemory_eviction_tenacity: Slot<usize>,
    pub maxmemory_policy: Slot<Policy>,
    pub maxmemory_samples: Slot<usize>,
    pub min_replicas_max_lag: Slot<usize>,
    pub min_replicas_to_write: Slot<usize>,
    pub notify_keyspace_events: Bytes,
    pub pidfile: Bytes,
    pub port: Slot<usize>,
    pub proto_max_bulk_len: Slot<usize>,
    pub protected_mode: Slot<bool>,
    pub rdbchecksum: Slot<bool>,
    pub rdbcompression: Slot<bool>,
    pub repl_backlog_size: Slot<usize>,
    pub repl_backlog_ttl: Slot<usize>,
    pub repl_ping_replica_period: Slot<usize>,
    pub repl_timeout: Slot<usize>,
    pub replica_announce_ip: Bytes,
    pub replica_announce_port: Slot<i64>,
    pub replica_ignore_maxmemory: Slot<bool>,
    pub replica_priority: Slot<usize>,
    pub replica_read_only: Slot<bool>,
    pub replica_serve_stale_data: Slot<bool>,
    pub replicaof: Bytes,
    pub save: Bytes,
    pub set_max_intset_entries: Slot<usize>,
    pub set_max_listpack_entries: Slot<usize>,
    pub set_max_listpack_value: Slot<usize>,
    pub shutdown_timeout: Slot<usize>,
    pub slowlog_log_slower_than: Slot<i64>,
    pub slowlog_max_len: Slot<usize>,
    pub supervised: Bytes,
    pub syslog_enabled: Slot<bool>,
    pub syslog_facility: Bytes,
    pub syslog_ident: Bytes,
    pub stop_writes_on_bgsave_error: Slot<bool>,
    pub timeout: Slot<usize>,
    pub unixsocket: Bytes,
    pub unixsocketperm: Bytes,
    pub zset_max_listpack_entries: Slot<usize>,
    pub zset_max_listpack_value: Slot<usize>,
}

/// The value of each row of the table, as CONFIG GET answers it.
pub type Values = Vec<Vec<u8>>;

impl Config {
    /// Replaces all values and returns the old ones. With the values that [`Config::set`] has returned, it
    /// undoes that. A slot is filled only if its value is another one: a `user` line counts until `requirepass`
    /// changes.
    pub fn replace(&self, new: Values) -> Values {
        let mut values = self.values.write().unwrap();
        for (at, (row, value)) in OPTIONS.iter().zip(&new).enumerate() {
            if values.get(at) != Some(value) {
                (row.put)(self, value);
            }
        }
        self.version.fetch_add(1, Release);
        std::mem::replace(&mut *values, new)
    }

    /// The options whose names match the pattern, with their values.
    pub fn get(&self, pattern: &[u8]) -> Vec<(&'static str, Vec<u8>)> {
        let values = self.values.read().unwrap();
        let matches = |(_, row): &(usize, &Row)| {
            !matches!(row.accepts, Accepts::Refused(_))
                && glob::matches(pattern, row.name.as_bytes(), true)
        };
        let rows = OPTIONS.iter().enumerate().filter(matches);
        rows.map(|(index, row)| (row.name, row.shown(&values[target(index)]))).collect()
    }

    /// Changes all of these options or, if one is refused, none. Returns all values from before. The caller
    /// puts the new values into effect, and lets one client at a time come here.
    pub fn set(&self, pairs: &[(&[u8], &[u8])]) -> Result<Values, Error> {
        let rows = changeable(pairs)?;
        let values = self.values.read().unwrap().clone();
        let mut new = values.clone();
        for (row, (_, given)) in rows.into_iter().zip(pairs) {
            let name = OPTIONS[row].name;
            let row = target(row);
            let option = &OPTIONS[row];
            let checked = option.check(given, &new[row]);
            new[row] = checked.map_err(|reason| refused(name, &reason))?;
            if new[row] != values[row]
                && let Some(reason) = obstacle(option, &values[row], &new[row])
            {
                return Err(refused(name, &reason));
            }
        }
        Ok(self.replace(new))
    }

    /// The host and the port of `replicaof`, if there is one.
    pub fn primary(&self) -> Result<Option<(String, u16)>, String> {
        let given = self.replicaof.text();
        let words: Vec<&str> = given.split_whitespace().collect();
        match words[..] {
            [] => Ok(None),
            [no, one] if no.eq_ignore_ascii_case("no") && one.eq_ignore_ascii_case("one") => {
                self.show_primary("");
                Ok(None)
            }
            [host, port] => match port.parse() {
                Ok(port) => Ok(Some((host.into(), port))),
                Err(_) => Err(format!("replicaof {given}: Invalid master port")),
            },
            _ => Err(format!("replicaof {given}: it takes a host and a port")),
        }
    }

    /// What CONFIG GET says of `replicaof` from now on.
    pub fn show_primary(&self, address: &str) {
        let row = find("replicaof").expect("it is in the table");
        self.values.write().unwrap()[row] = address.into();
    }

    /// As Redis, lowers `maxclients` if the process may not open that many files.
    pub fn fit_maxclients(&self) {
        let wanted = self.maxclients.get();
        if let Some(most) = most_clients().filter(|most| wanted > *most) {
            let _ = self.set(&[(b"maxclients", most.to_string().as_bytes())]);
            log::warning(format_args!(
                "maxclients is {most} instead of {wanted}, because this process may not open more \
                 files. Raise that limit with `ulimit -n`"
            ));
        }
        open_all_descriptors(self.maxclients.get());
    }

    /// Sets `maxmemory-clients`: bytes, or a percentage of the memory that the process may use (of 4 GiB if
    /// the system does not tell).
    fn put_clients_memory(&self, value: &[u8]) {
        let value = std::str::from_utf8(value).unwrap_or_default();
        let (number, unit) = match value.strip_suffix('%') {
            Some(percent) => (percent, held::of_machine().unwrap_or(4 << 30) as usize / 100),
            None => (value, 1),
        };
        self.clients.limit.store(unit * number.parse::<usize>().unwrap_or_default(), Relaxed);
    }

    /// What stands behind `user` in a file.
    fn user_line(&self) -> String {
        let channels = if self.lacks_channels { "resetchannels" } else { "&*" };
        format!("default on{} ~* {channels} +@all", self.password.rules())
    }

    fn put_requirepass(&self, value: &[u8]) {
        self.password.require(value);
    }

    fn put_latency_threshold(&self, value: &[u8]) {
        let threshold = parse_integer(value).unwrap_or_default();
        self.latency.threshold.store(threshold as u64, Relaxed);
    }

    /// Sets `client-output-buffer-limit`. The value has all three classes.
    fn put_output_limits(&self, value: &[u8]) {
        let words = value.split(|byte| *byte == b' ');
        let numbers: Vec<i64> = words.map(|word| parse_integer(word).unwrap_or_default()).collect();
        for (class, at) in
            [(&self.clients.normal, 1), (&self.clients.replica, 5), (&self.clients.pubsub, 9)]
        {
            class.hard.store(numbers[at] as usize, Relaxed);
            class.soft.store(numbers[at + 1] as usize, Relaxed);
            class.seconds.store(numbers[at + 2] as u64, Relaxed);
        }
    }
}

/// Descriptors for listeners, the log, and some to spare (Redis's number).
const RESERVED_DESCRIPTORS: usize = 32;

/// For how many clients there are descriptors, if the system tells. std cannot raise that limit.
fn most_clients() -> Option<usize> {
    let limits = std::fs::read_to_string("/proc/self/limits").ok()?;
    let mut lines = limits.lines();
    let files = lines.find_map(|line| line.strip_prefix("Max open files"))?;
    let soft: usize = files.split_whitespace().next()?.parse().ok()?;
    Some(soft.saturating_sub(RESERVED_DESCRIPTORS).max(1))
}

/// Opens as many descriptors as there may be clients, and closes them again. Then the kernel's table of
/// descriptors is large enough. Otherwise accept would wait up to 25 ms each time the table doubles, because
/// all processors must take note of it. They need not while the process has a single thread.
fn open_all_descriptors(most: usize) {
    if let Ok(null) = std::fs::File::open("/dev/null") {
        let _all: Vec<std::fs::File> = (0..most).map_while(|_| null.try_clone().ok()).collect();
    }
}

/// The rows that CONFIG SET names. It is an error if one of them cannot change.
fn changeable(pairs: &[(&[u8], &[u8])]) -> Result<Vec<usize>, Error> {
    let mut rows = Vec::new();
    for (name, _) in pairs {
        let name = String::from_utf8_lossy(name);
        let row = find(&name).filter(|row| !matches!(OPTIONS[*row].accepts, Accepts::Refused(_)));
        let row = row.ok_or_else(|| {
            Error::text(format!(
                "ERR Unknown option or number of arguments for CONFIG SET - '{name}'"
            ))
        })?;
        match OPTIONS[row].change {
            Change::AtStart => return Err(refused(&name, "can't set immutable config")),
            Change::Protected => return Err(refused(&name, "can't set protected config")),
            _ if rows.contains(&row) => return Err(refused(&name, "duplicate parameter")),
            _ => rows.push(row),
        }
    }
    Ok(rows)
}

/// Why an option cannot have this value, although the value as such is right.
fn obstacle(option: &Row, value: &[u8], wanted: &[u8]) -> Option<String> {
    let reason = match option.change {
        Change::Fixed => option.summary,
        Change::Stays => "this server listens where it has started",
        _ => "",
    };
    if !reason.is_empty() {
        return Some(format!("{reason}; it stays '{}'", String::from_utf8_lossy(value)));
    }
    let most = most_clients().filter(|_| option.name == "maxclients")?;
    let is_too_many = parse_integer(wanted).is_some_and(|wanted| wanted > most as i64);
    is_too_many.then(|| {
        format!(
            "The operating system is not able to handle the specified number of clients, try with \
             {most}"
        )
    })
}

fn refused(name: &str, reason: &str) -> Error {
    Error::text(format!("ERR CONFIG SET failed (possibly related to argument '{name}') - {reason}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn with_defaults() -> Config {
        let config = Config::default();
        config.replace(options::defaults());
        config
    }

    /// A client that has read all options may write them back. Redis refuses only what it can never change.
    #[test]
    fn every_option_that_redis_can_change_accepts_the_value_that_it_has() {
        let config = with_defaults();
        for (row, option) in OPTIONS.iter().enumerate() {
            let stays = matches!(option.change, Change::AtStart | Change::Protected);
            if !stays && !matches!(option.accepts, Accepts::Refused(_)) {
                let value = config.values.read().unwrap()[target(row)].clone();
                assert!(config.set(&[(option.name.as_bytes(), &value)]).is_ok(), "{}", option.name);
            }
        }
        let port = |value: &[u8]| config.set(&[(b"port", value)]).map(|_| ());
        let reason = "this server listens where it has started; it stays '6379'";
        assert_eq!((port(b"6379"), port(b"7000")), (Ok(()), Err(refused("port", reason))));
    }

    #[test]
    fn what_the_server_reads_follows_and_goes_back() {
        let config = with_defaults();
        let set = |pairs: &[(&str, &str)]| {
            let pairs = pairs.iter().map(|(name, value)| (name.as_bytes(), value.as_bytes()));
            config.set(&pairs.collect::<Vec<_>>()).unwrap()
        };
        set(&[("client-output-buffer-limit", "pubsub 1mb 1k 9"), ("appendfsync", "ALWAYS")]);
        assert_eq!(config.clients.pubsub.hard.load(Relaxed), 1 << 20);
        assert_eq!(config.clients.pubsub.seconds.load(Relaxed), 9);
        assert_eq!(config.appendfsync.get(), Fsync::Always);
        assert_eq!(config.get(b"appendfsync"), [("appendfsync", b"always".to_vec())]);
        assert!(!config.password.is_needed());
        let before = set(&[("requirepass", "secret"), ("appendfsync", "no")]);
        assert!(config.password.is_right(b"secret") && !config.password.is_right(b""));
        config.replace(before);
        assert!(!config.password.is_needed());
        assert_eq!(config.appendfsync.get(), Fsync::Always);
    }
}
