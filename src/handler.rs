//! The command table: one row for each command, and what its handler may touch.
//!
//! Each command is one row ([`Command`]) in the file of its group: name, arity, handler, key positions, what the
//! documentation says, and a [`Flag`] for whatever else the server must know. The row is the only place that knows a
//! command. Arity errors, `COMMAND`, the statistics and the list in src/handler/README.md are read from it. (Only
//! PING, SELECT, the commands that carry a password, and the MULTI, EXEC and DISCARD of a log are known by name
//! elsewhere.) Which row a command calls is looked up in handler/table.rs.
//!
//! The type of a handler says what it may do, and that is its lock:
//!
//! | [`Run`]  | gets                 | lock                           | logged                  |
//! |----------|----------------------|--------------------------------|-------------------------|
//! | `Read`   | `&View`              | shared                         | never (1)               |
//! | `Long`   | `&View`, many times  | shared, given back in between  | never (1)               |
//! | `Write`  | `&mut ViewMut`       | exclusive                      | if it changed something |
//! | `MayStore` | as `Write` if one of its options is STORE, and if not, as `Long` | | |
//! | `Client` | `&mut Client`        | none needed                    | never                   |
//! | `Mixed`  | both                 | shared                         | never (1)               |
//!
//! (1) The DEL of a key that it finds expired is logged: its batch deletes that key (store/expire.rs).
//!
//! EXEC and EVAL have variants of their own, because they run other commands, and MIGRATE, because it waits. So have
//! containers such as CONFIG, whose subcommands are rows (`config|get`). What happens around the handler, the same
//! for all commands, is in call.rs.
//!
//! **How Redis does it**: server.c, `populateCommandTable`, from a JSON file for each command. Its handlers all have
//! the same type, and a flag in the table says whether they write. A wrong flag there is a bug that shows late; a
//! wrong type here does not compile. The rows here have fewer columns and flags, because there are no users and no
//! cluster. Where Redis compares a command's function (`cmd->proc == multiCommand`), there is a flag here.

pub mod args;
mod bitmap;
pub mod blocking;
pub mod client;
pub mod config;
pub mod connection;
mod container;
pub mod debug;
pub mod draw;
pub mod dump;
pub mod expiry;
pub mod generic;
pub mod hash;
pub mod info;
pub mod introspection;
mod keys;
pub mod latency;
pub mod lcs;
pub mod list;
pub mod long;
pub mod memory;
pub mod pubsub;
mod replication;
pub mod scan;
pub mod script;
pub mod server;
pub mod set;
pub mod sort;
pub mod string;
mod table;
pub mod transactions;
pub mod zset;

use crate::client::Client;
pub use crate::config::REDIS_VERSION;
use crate::error::Error;
use crate::resp::{Args, Reply};
use crate::store::{View, ViewMut};
pub use container::{help, help_lines, subcommand_syntax};
pub use keys::*;
pub use long::{Left, LongHandler, LookOnce, Rest, TimeSlice, Work};
pub use table::{Row, TABLE, Table, rename};

/// The version of this server.
pub const VERSION: &str = env!("CARGO_PKG_VERSION");

/// What a handler may touch, which is also the lock that it runs under.
#[derive(Clone, Copy)]
pub enum Run {
    /// Under the shared lock. It cannot change anything: `View` has no way to.
    Read(fn(&View, &Args, &mut Reply) -> Result<(), Error>),
    /// The same, but it may take long. The handler does the first part at once, and returns what is left. That is
    /// done with the lock given back in between (call/long.rs). Where the reply must be that of one moment, as
    /// with KEYS, it keeps the lock.
    Long(LongHandler),
    /// Under the exclusive lock; logged if it changed something.
    Write(WriteHandler),
    /// SORT: `Write` if one of its options is STORE, and else `Long`. For all that is asked before it runs
    /// (a full disk, a pause, the lock of an EXEC) it writes, as in Redis.
    MayStore(LongHandler, WriteHandler),
    /// It has its client and no keyspace, so it needs no lock. It may run under one that its batch still holds. If
    /// it may have to wait, [`Flag::GivesLockBack`] makes the batch give the lock back first.
    Client(ClientHandler),
    /// Under the shared lock, and with its client.
    Mixed(fn(&mut Client, &View, &Args, &mut Reply) -> Result<(), Error>),
    /// EXEC. It runs other commands under the strictest lock that any of them needs.
    Exec,
    /// EVAL and its relatives (call/script.rs).
    Script(script::Form),
    /// MIGRATE. It waits for the network, with the lock given back (call/migrate.rs).
    Migrate,
    /// A container such as CONFIG. Its subcommands have rows of their own, named `config|get`. COMMAND and DEBUG
    /// also have a handler, for arguments that name no subcommand.
    Container(Option<ClientHandler>),
}

/// A handler that may change the keyspace.
pub type WriteHandler = fn(&mut ViewMut, &Args, &mut Reply) -> Result<(), Error>;

/// A handler that needs its client, and no keyspace.
pub type ClientHandler = fn(&mut Client, &Args, &mut Reply) -> Result<(), Error>;

/// What else the server must know of a command. The first ones are Redis's. COMMAND shows some of these
/// (handler/introspection.rs).
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Flag {
    /// For the operator; monitors are not shown it.
    Admin,
    /// Scripts may not call it.
    NoScript,
    /// It is not in the slow log.
    SkipSlowlog,
    /// An unauthenticated client may send it.
    NoAuth,
    /// It may not be sent inside MULTI.
    NoMulti,
    /// It is answered while a script is busy. It touches no key.
    AllowBusy,
    /// It may take more memory, so it is refused if `maxmemory` is exceeded and nothing can be evicted.
    DenyOom,
    /// It may wait for a key.
    Blocks,
    /// PUBLISH. It changes no key, but Redis sends it to replicas. So CLIENT PAUSE WRITE postpones it. A monitor may
    /// not send it, because in Redis a monitor counts as a replica.
    MayReplicate,
    /// DEBUG: refused unless `enable-debug-command` allows it.
    Protected,
    /// MULTI does not queue it.
    NotQueued,
    /// It may stand in the log, though it changes no data.
    InLog,
    /// It is refused while the log loads, though it needs no data.
    NotLoading,
    /// A replica without its primary answers it, though it is refused while the log loads.
    Stale,
    /// A RESP2 client may send it while it is subscribed. Its reply then has the form of a message.
    WhileSubscribed,
    /// It shows or resets counters. So what its batch has counted so far is added to them first.
    ShowsCounters,
    /// It counts or lists other clients, or its client waits in a queue with others. So what they have sent before
    /// is done first (server/order.rs).
    ComesAfterOthers,
    /// The lock is given back before it runs, because CONFIG SET may switch the log, REPLICAOF may wait for its file,
    /// and PUBLISH for other clients. Inside EXEC the lock is kept.
    GivesLockBack,
    /// DEBUG: its handler answers for unknown subcommands too.
    TakesUnknown,
    /// It takes a few microseconds at most, if it and its reply are short (call/account.rs).
    Quick,
    /// Its second argument is a field or a member of what its key holds, which is looked at ahead of time too
    /// (call/ahead.rs).
    ThenField,
    /// Its second argument is a score, and its third one a member, which is looked at too.
    ThenScore,
}

/// A row of the command table.
pub struct Command {
    /// In lower case; `config|get` for a subcommand.
    pub name: &'static str,
    /// Number of arguments, the name included. Negative if there may be more.
    pub arity: i64,
    /// The handler, and with it the lock.
    pub run: Run,
    /// Which arguments are keys.
    pub keys: Keys,
    /// What it does to them, as COMMAND tells it (handler/keys.rs).
    uses: Uses,
    /// A bit for each [`Flag`] that it has ([`Command::with`]). Some are looked at for each command.
    flags: u32,
    /// The version of Redis that introduced the command.
    pub since: &'static str,
    /// The arguments as Redis's documentation writes them.
    pub usage: &'static str,
    /// One line, in the words of Redis's documentation.
    pub summary: &'static str,
    /// What HELP says behind its name, where Redis says it in other words than in its documentation
    /// ([`Command::help`]).
    help: &'static str,
}

/// A row, in one line.
pub const fn command(
    name: &'static str,
    arity: i64,
    run: Run,
    keys: Keys,
    since: &'static str,
    usage: &'static str,
    summary: &'static str,
) -> Command {
    Command { name, arity, run, keys, uses: READS, flags: 0, since, usage, summary, help: "" }
}

impl Command {
    pub const fn with(mut self, flags: &[Flag]) -> Command {
        let mut i = 0;
        while i < flags.len() {
            self.flags |= 1 << flags[i] as u32;
            i += 1;
        }
        self
    }

    pub fn is(&self, flag: Flag) -> bool {
        self.flags & (1 << flag as u32) != 0
    }

    /// Whether it only reads data, and needs nothing of its client.
    pub fn reads(&self) -> bool {
        matches!(self.run, Run::Read(_) | Run::Long(_))
    }

    /// Whether it may write data.
    pub fn writes(&self) -> bool {
        matches!(self.run, Run::Write(_) | Run::MayStore(..) | Run::Migrate)
    }

    /// Whether it is about data alone. INFO and WATCH, which are `Mixed`, are not.
    pub fn uses_data(&self) -> bool {
        self.reads() || self.writes() || self.is_script()
    }

    /// Whether this number of arguments is right, the name included.
    pub fn takes(&self, count: usize) -> bool {
        let (count, arity) = (count as i64, self.arity);
        count == arity || (arity < 0 && count >= -arity)
    }
}

/// The groups of Redis's documentation, each with the rows of its file.
const GROUPS: &[(&str, &[&[Command]])] = &[
    ("string", &[string::COMMANDS, lcs::COMMANDS]),
    ("bitmap", &[bitmap::COMMANDS]),
    ("list", &[list::COMMANDS, blocking::LISTS]),
    ("set", &[set::COMMANDS]),
    ("hash", &[hash::COMMANDS]),
    ("sorted-set", &[zset::COMMANDS, zset::RANGES, zset::COMBINING, blocking::SORTED_SETS]),
    ("generic", GENERIC),
    ("connection", &[connection::COMMANDS, client::COMMANDS]),
    ("transactions", &[transactions::COMMANDS]),
    ("pubsub", &[pubsub::COMMANDS]),
    ("scripting", &[script::COMMANDS]),
    ("server", SERVER),
];

const GENERIC: &[&[Command]] =
    &[generic::COMMANDS, expiry::COMMANDS, dump::COMMANDS, sort::COMMANDS, replication::WAITING];

/// The group `server` has a file for each of its large commands, and rows in the files of other groups.
const SERVER: &[&[Command]] = &[
    server::COMMANDS,
    generic::DATABASES,
    dump::OF_CLUSTERS,
    connection::ACL,
    info::COMMANDS,
    introspection::COMMANDS,
    memory::COMMANDS,
    debug::COMMANDS,
    config::COMMANDS,
    latency::COMMANDS,
    replication::COMMANDS,
];
