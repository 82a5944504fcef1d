//! The configuration while the server runs.
//!
//! ```text
//! command line ─┐                      ┌─▶ CONFIG GET, text(), number(), flag()
//! redis.conf ───┼─▶ checked ─▶ values ─┤
//! CONFIG SET ───┘                      └─▶ spread(): the few that every command looks at
//! ```
//!
//! A value is kept as the bytes that CONFIG GET answers, in a list beside the table of options,
//! under a lock that is taken by CONFIG, and by what is not done all the time, such as SELECT. What
//! the path of every command looks at is copied from there into atomics, the fields of [`Config`].
//!
//! Three rooms beside this one: `options.rs` has the table, one row for each option; `start.rs`
//! reads the command line and the file; `include.rs` finds the files that a pattern means.
//!
//! **How Redis does it**: config.c. There CONFIG SET changes the variables one by one, and puts
//! them back if one is refused; here all values are checked on a copy, which then takes the place
//! of the old ones. There is no CONFIG REWRITE.

mod include;
mod options;
mod start;

pub use options::describe;
pub use start::help;

use crate::error::Error;
use crate::held::{self, OutputLimit, Total};
use crate::resp::parse_integer;
use crate::{glob, say};
use options::{Change, Kind, OPTIONS, Row, find, target};
use std::ffi::OsString;
use std::os::unix::ffi::OsStringExt;
use std::path::PathBuf;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU8, AtomicU64, AtomicUsize};
use std::sync::{Arc, RwLock};

/// What the command line asks for.
pub enum Start {
    /// To serve, after these warnings.
    Serve(Config, Vec<String>),
    Help,
    Version,
    /// To look at a log, which is a file or a directory, and to repair it if `fix`.
    CheckAof {
        path: PathBuf,
        fix: bool,
    },
}

/// When the log must be on disk.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Fsync {
    Everysec,
    Always,
    No,
}

/// Shared by all threads.
#[derive(Default)]
pub struct Config {
    /// Of each row of the table. Bytes: a password or a path need not be text.
    values: RwLock<Vec<Vec<u8>>>,
    /// The file that was read, for INFO; empty if there was none.
    pub file: PathBuf,
    /// Fields of a hash that may still be packed.
    pub hash_entries: AtomicUsize,
    /// In bytes, as all sizes: the longest field or value of such a hash.
    pub hash_value: AtomicUsize,
    /// `proto-max-bulk-len`, and what one client may send ahead.
    pub max_bulk: AtomicUsize,
    pub query_buffer_limit: AtomicUsize,
    /// In microseconds; -1: no command is slow.
    pub slowlog_slower_than: AtomicI64,
    pub maxclients: AtomicUsize,
    /// In seconds; 0: never.
    pub timeout: AtomicU64,
    /// What a subscriber or monitor may leave unread.
    pub pubsub_output: OutputLimit,
    /// What all clients hold, and may.
    pub clients: Arc<Total>,
    has_password: AtomicBool,
    fsync: AtomicU8,
    /// `aof-checksum`.
    pub aof_checksum: AtomicBool,
}

/// What [`Config::set`] has changed.
pub struct Changed {
    /// The options that have another value than before.
    pub names: Vec<&'static str>,
    before: Vec<Vec<u8>>,
}

impl Config {
    fn new(values: Vec<Vec<u8>>, file: PathBuf) -> Config {
        let config = Config {
            file,
            ..Config::default()
        };
        config.spread(&values);
        *config.values.write().unwrap() = values;
        config
    }

    /// The value of an option, as CONFIG GET answers it.
    fn bytes(&self, name: &str) -> Vec<u8> {
        let row = find(name).map(target);
        debug_assert!(row.is_some(), "there is no option {name}");
        row.map_or_else(Vec::new, |row| self.values.read().unwrap()[row].clone())
    }

    /// The value of an option that is text, or is only shown.
    pub fn text(&self, name: &str) -> String {
        String::from_utf8_lossy(&self.bytes(name)).into_owned()
    }

    /// The value of an option that is a path: `dir`, or what is in it.
    pub fn path(&self, name: &str) -> PathBuf {
        let path = |name| PathBuf::from(OsString::from_vec(self.bytes(name)));
        path("dir").join(path(name))
    }

    /// The value of an option that is a number, or a size in bytes.
    pub fn number(&self, name: &str) -> i64 {
        self.text(name).parse().unwrap_or_default()
    }

    /// How many databases there are.
    pub fn databases(&self) -> usize {
        self.number("databases") as usize
    }

    /// Whether an option is `yes`.
    pub fn flag(&self, name: &str) -> bool {
        self.text(name) == "yes"
    }

    /// The password that clients must send; empty if they need none.
    pub fn password(&self) -> Vec<u8> {
        self.bytes("requirepass")
    }

    /// Whether clients must send a password.
    pub fn has_password(&self) -> bool {
        self.has_password.load(Relaxed)
    }

    /// `appendfsync`.
    pub fn fsync(&self) -> Fsync {
        match self.fsync.load(Relaxed) {
            0 => Fsync::Everysec,
            1 => Fsync::Always,
            _ => Fsync::No,
        }
    }

    /// The options whose names match, with their values.
    pub fn get(&self, pattern: &[u8]) -> Vec<(&'static str, Vec<u8>)> {
        let values = self.values.read().unwrap();
        let matches = |(_, row): &(usize, &Row)| {
            !matches!(row.kind, Kind::Refused(_))
                && glob::matches(pattern, row.name.as_bytes(), true)
        };
        let rows = OPTIONS.iter().enumerate().filter(matches);
        rows.map(|(index, row)| (row.name, values[target(index)].clone()))
            .collect()
    }

    /// Changes all of these options or, if one is refused, none. What must follow from that is the
    /// caller's to do.
    pub fn set(&self, pairs: &[(&[u8], &[u8])]) -> Result<Changed, Error> {
        let rows = changeable(pairs)?;
        let mut values = self.values.write().unwrap();
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
        self.spread(&new);
        let both = values.iter().zip(&new).zip(OPTIONS);
        let changed = both.filter(|((old, new), _)| old != new);
        let names = changed.map(|(_, row)| row.name).collect();
        let before = std::mem::replace(&mut *values, new);
        Ok(Changed { names, before })
    }

    /// Takes a change back, for what must follow from it has failed. Nobody else may have changed
    /// anything meanwhile.
    pub fn undo(&self, changed: Changed) {
        self.spread(&changed.before);
        *self.values.write().unwrap() = changed.before;
    }

    /// Lowers `maxclients` if the process may not open so many files, as Redis does.
    pub fn fit_maxclients(&self) {
        let wanted = self.maxclients.load(Relaxed);
        if let Some(most) = most_clients().filter(|most| wanted > *most) {
            let _ = self.set(&[(b"maxclients", most.to_string().as_bytes())]);
            say::warning(format_args!(
                "maxclients is {most} instead of {wanted}, for this process may not open more \
                 files; raise that with `ulimit -n`"
            ));
        }
        open_all_descriptors(self.maxclients.load(Relaxed));
    }

    /// Copies what every command looks at out of the values.
    fn spread(&self, values: &[Vec<u8>]) {
        let text = |name| {
            let value = find(name).map_or(&b""[..], |row| &values[row]);
            // What is looked at as text here was checked to be text.
            std::str::from_utf8(value).unwrap_or_default()
        };
        let number = |name| text(name).parse::<i64>().unwrap_or_default();
        let size = |name| number(name) as usize;
        for (field, name) in [
            (&self.hash_entries, "hash-max-listpack-entries"),
            (&self.hash_value, "hash-max-listpack-value"),
            (&self.max_bulk, "proto-max-bulk-len"),
            (&self.query_buffer_limit, "client-query-buffer-limit"),
            (&self.maxclients, "maxclients"),
        ] {
            field.store(size(name), Relaxed);
        }
        let slow = number("slowlog-log-slower-than");
        self.slowlog_slower_than.store(slow, Relaxed);
        self.timeout.store(number("timeout") as u64, Relaxed);
        let has_password = find("requirepass").is_some_and(|row| !values[row].is_empty());
        self.has_password.store(has_password, Relaxed);
        let limits = text("client-output-buffer-limit").split(' ');
        let limits: Vec<u64> = limits
            .map(|word| word.parse().unwrap_or_default())
            .collect();
        // All three classes are there: normal, slave, pubsub.
        for (class, at) in [(&self.clients.normal, 1), (&self.pubsub_output, 9)] {
            class.hard.store(limits[at] as usize, Relaxed);
            class.soft.store(limits[at + 1] as usize, Relaxed);
            class.seconds.store(limits[at + 2], Relaxed);
        }
        let most = clients_memory(text("maxmemory-clients"));
        self.clients.limit.store(most, Relaxed);
        let fsync = match text("appendfsync") {
            "everysec" => Fsync::Everysec,
            "always" => Fsync::Always,
            _ => Fsync::No,
        };
        self.fsync.store(fsync as u8, Relaxed);
        self.aof_checksum
            .store(text("aof-checksum") == "yes", Relaxed);
        say::set_level(match text("loglevel") {
            "debug" => say::Level::Debug,
            "verbose" => say::Level::Verbose,
            "warning" => say::Level::Warning,
            _ => say::Level::Notice,
        });
    }
}

/// Bytes of a value of `maxmemory-clients`: a percentage is one of what the process may use, or of 4 GiB
/// where nobody tells how much that is.
fn clients_memory(value: &str) -> usize {
    match value.strip_suffix('%') {
        Some(percent) => {
            let machine = held::of_machine().unwrap_or(4 << 30) as usize;
            machine / 100 * percent.parse::<usize>().unwrap_or_default()
        }
        None => value.parse().unwrap_or_default(),
    }
}

/// Descriptors that are not clients: listeners, the log, and some to spare (Redis's number).
const RESERVED_DESCRIPTORS: usize = 32;

/// How many clients the process has descriptors for, if the system tells; std cannot ask for more.
fn most_clients() -> Option<usize> {
    let limits = std::fs::read_to_string("/proc/self/limits").ok()?;
    let mut lines = limits.lines();
    let files = lines.find_map(|line| line.strip_prefix("Max open files"))?;
    let soft: usize = files.split_whitespace().next()?.parse().ok()?;
    Some(soft.saturating_sub(RESERVED_DESCRIPTORS).max(1))
}

/// Opens as many descriptors as there may be clients, and closes them again. The kernel's table of them
/// is large enough then. As it grows, accept waits for all processors to take note, up to 25 ms each time
/// it doubles; only while the process has a single thread it need not.
fn open_all_descriptors(most: usize) {
    if let Ok(null) = std::fs::File::open("/dev/null") {
        let _all: Vec<std::fs::File> = (0..most).map_while(|_| null.try_clone().ok()).collect();
    }
}

/// The rows that CONFIG SET names, all of which may change.
fn changeable(pairs: &[(&[u8], &[u8])]) -> Result<Vec<usize>, Error> {
    let mut rows = Vec::new();
    for (name, _) in pairs {
        let name = String::from_utf8_lossy(name);
        let row = find(&name).filter(|row| !matches!(OPTIONS[*row].kind, Kind::Refused(_)));
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

/// Why an option cannot have another value while the server runs, though the value as such is right.
fn obstacle(option: &Row, value: &[u8], wanted: &[u8]) -> Option<String> {
    if option.change == Change::Fixed {
        let value = String::from_utf8_lossy(value);
        return Some(format!("{}; it stays '{value}'", option.summary));
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
    Error::text(format!(
        "ERR CONFIG SET failed (possibly related to argument '{name}') - {reason}"
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config() -> Config {
        Config::new(options::defaults(), PathBuf::new())
    }

    fn set(config: &Config, pairs: &[(&str, &str)]) -> Result<Vec<&'static str>, String> {
        let pairs: Vec<_> = pairs
            .iter()
            .map(|(name, value)| (name.as_bytes(), value.as_bytes()))
            .collect();
        let names = config.set(&pairs).map(|changed| changed.names);
        names.map_err(|error| {
            let mut text = Vec::new();
            error.write_to(&mut text);
            String::from_utf8(text).unwrap()
        })
    }

    #[test]
    fn config_set_changes_all_or_nothing() {
        let config = config();
        let error = set(&config, &[("timeout", "7"), ("maxclients", "0")]).unwrap_err();
        assert_eq!(
            error,
            "ERR CONFIG SET failed (possibly related to argument 'maxclients') - argument must be \
             between 1 and 4294967295 inclusive"
        );
        assert_eq!(config.number("timeout"), 0);
        assert_eq!(config.timeout.load(Relaxed), 0);
        let changed = set(&config, &[("TIMEOUT", "7"), ("maxclients", "10000")]);
        assert_eq!(changed, Ok(vec!["timeout"]));
        assert_eq!(config.timeout.load(Relaxed), 7);
    }

    #[test]
    fn config_set_refuses_in_the_words_of_redis() {
        let config = config();
        for (pairs, expected) in [
            (
                &[("timeout", "1"), ("NoSuch", "1")][..],
                "ERR Unknown option or number of arguments for CONFIG SET - 'NoSuch'",
            ),
            (
                &[("rename-command", "x")],
                "ERR Unknown option or number of arguments for CONFIG SET - 'rename-command'",
            ),
            (
                &[("Port", "7000"), ("nosuch", "1")],
                "ERR CONFIG SET failed (possibly related to argument 'Port') - can't set \
                 immutable config",
            ),
            (
                &[("dir", "/tmp")],
                "ERR CONFIG SET failed (possibly related to argument 'dir') - can't set \
                 protected config",
            ),
            (
                &[("hz", "1"), ("HZ", "2")],
                "ERR CONFIG SET failed (possibly related to argument 'HZ') - duplicate parameter",
            ),
            (
                &[("maxmemory", "1gb")],
                "ERR CONFIG SET failed (possibly related to argument 'maxmemory') - this server \
                 has no eviction; only '0' is accepted",
            ),
            (
                &[("save", "60 1")],
                "ERR CONFIG SET failed (possibly related to argument 'save') - there are no RDB \
                 snapshots; it stays ''",
            ),
        ] {
            assert_eq!(set(&config, pairs), Err(expected.to_string()));
        }
        assert_eq!(
            set(&config, &[("save", ""), ("maxmemory", "0")]),
            Ok(vec![])
        );
    }

    #[test]
    fn old_names_are_the_same_option() {
        let config = config();
        let changed = set(&config, &[("hash-max-ziplist-entries", "6")]);
        assert_eq!(changed, Ok(vec!["hash-max-listpack-entries"]));
        assert_eq!(config.hash_entries.load(Relaxed), 6);
        let names: Vec<_> = config.get(b"Hash-max-*-entries");
        let six = || b"6".to_vec();
        assert_eq!(
            names,
            [
                ("hash-max-listpack-entries", six()),
                ("hash-max-ziplist-entries", six())
            ]
        );
        assert!(config.get(b"user").is_empty());
    }

    #[test]
    fn what_every_command_looks_at_follows() {
        let config = config();
        let limits = "pubsub 1mb 1k 9";
        let pairs = [
            ("client-output-buffer-limit", limits),
            ("appendfsync", "ALWAYS"),
        ];
        set(&config, &pairs).unwrap();
        assert_eq!(config.pubsub_output.hard.load(Relaxed), 1 << 20);
        assert_eq!(config.pubsub_output.seconds.load(Relaxed), 9);
        assert_eq!(config.fsync(), Fsync::Always);
        assert_eq!(config.text("appendfsync"), "always");
        assert!(!config.has_password());
        set(&config, &[("requirepass", "secret")]).unwrap();
        assert!(config.has_password());
    }
}
