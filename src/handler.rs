//! The command table: one row for each command, and what its handler may touch.
//!
//! Each command is one row ([`Command`]) in the file of its group: name, arity, handler, key
//! positions, what the documentation says, and for few of them a [`Flag`]. The row is all there is:
//! arity errors, `COMMAND`, the statistics and the list in src/handler/README.md are read from it, and so is what the
//! batch and the connection must know (known by name are PING, SELECT, and those that carry a password).
//!
//! What a handler may do follows from the type of its function, which is its lock:
//!
//! | [`Run`]   | gets                | lock            | logged            |
//! |-----------|---------------------|-----------------|-------------------|
//! | `Read`    | `&View`             | shared          | never             |
//! | `Long`    | `&View`, again and again | shared, given back between | never |
//! | `Write`   | `&mut ViewMut`      | exclusive       | if it changed something |
//! | `Client`  | `&mut Client`       | none needed     | never             |
//! | `Unlocked` | the same           | given back before | never           |
//! | `Mixed`   | both, read-only     | shared          | never             |
//!
//! EXEC has a variant of its own, for it runs others, and so have containers such as CONFIG, whose
//! subcommands are rows (`config|get`). What happens around the handler, the same for all, is in
//! call.rs.
//!
//! **How Redis does it**: server.c, `populateCommandTable`, from a file in JSON for each command.
//! Its handlers all have the same type, and a flag in the table says whether they write: a wrong
//! flag there is a bug that shows late, a wrong type here does not compile. The rows have fewer
//! columns and flags, since there are no replicas, users or cluster to be told of a command; what it
//! asks of a command's function (`cmd->proc == multiCommand`) is a flag here.

pub mod args;
pub mod client;
pub mod config;
pub mod connection;
pub mod debug;
pub mod expiry;
pub mod generic;
pub mod hash;
pub mod info;
pub mod introspection;
pub mod lcs;
pub mod pubsub;
pub mod scan;
pub mod server;
pub mod string;
pub mod transactions;

use crate::client::Client;
use crate::error::Error;
use crate::resp::{Args, Reply};
use crate::store::{View, ViewMut};
use std::collections::HashMap;
use std::sync::LazyLock;
use std::time::{Duration, Instant};

/// The version of Redis whose behaviour this server follows, which it reports to clients.
pub const REDIS_VERSION: &str = "7.0.15";

/// The version of this server.
pub const VERSION: &str = env!("CARGO_PKG_VERSION");

/// What a handler may touch, which is also the lock that it runs under.
#[derive(Clone, Copy)]
pub enum Run {
    /// Under the shared lock. It cannot change anything: `View` has no way to.
    Read(fn(&View, &Args, &mut Reply) -> Result<(), Error>),
    /// The same, but it may take long: what it returns is done afterwards (call/long.rs), with the lock
    /// given back in between.
    Long(LongHandler),
    /// Under the exclusive lock; logged if it changed something.
    Write(WriteHandler),
    /// Without a lock, or under whichever is held: it sees its client alone, and must not block.
    Client(ClientHandler),
    /// Without a lock: what is held is given back before, and what it guarded is handed to the log.
    /// For CONFIG SET, which may switch the log. Only EXEC keeps its lock.
    Unlocked(ClientHandler),
    /// Under the shared lock, and with its client.
    Mixed(fn(&mut Client, &View, &Args, &mut Reply) -> Result<(), Error>),
    /// EXEC, which runs others and holds the lock that the most demanding of them needs.
    Exec,
    /// A container such as CONFIG; its subcommands have rows of their own, named `config|get`. COMMAND
    /// may also stand alone.
    Container(Option<ClientHandler>),
    /// A container that takes what names none of its subcommands itself: DEBUG.
    OpenContainer(ClientHandler),
}

/// A handler that may change the keyspace.
pub type WriteHandler = fn(&mut ViewMut, &Args, &mut Reply) -> Result<(), Error>;

/// A handler that may leave something to be done.
pub type LongHandler =
    for<'a> fn(&View, &'a Args, &Stretch, &mut Reply) -> Result<Option<Rest<'a>>, Error>;

/// What a command that takes long has still to do.
pub enum Rest<'a> {
    /// To compute the reply from what it has taken out of the keyspace. It takes no lock.
    Compute(Box<dyn FnOnce(&mut Reply) + 'a>),
    /// To look at the keyspace, with a new view each time, until it returns true: it has replied.
    Look(Box<Look<'a>>),
}

impl<'a> Rest<'a> {
    /// Looks once, under the lock that is held; what is left is to be looked at later.
    pub fn look(
        mut look: impl FnMut(&View, &Stretch, &mut Reply) -> bool + 'a,
        view: &View,
        stretch: &Stretch,
        reply: &mut Reply,
    ) -> Option<Rest<'a>> {
        let is_done = look(view, stretch, reply);
        (!is_done).then(|| Rest::Look(Box::new(look)))
    }
}

type Look<'a> = dyn FnMut(&View, &Stretch, &mut Reply) -> bool + 'a;

/// For how long a reader looks before it gives the lock back.
pub struct Stretch(Option<Instant>);

impl Stretch {
    /// Half a millisecond: a thousand keys or so, and no more than who waits is delayed by anyhow.
    pub fn begin() -> Stretch {
        Stretch(Some(Instant::now() + Duration::from_micros(500)))
    }

    /// For whoever may not give it back.
    pub fn endless() -> Stretch {
        Stretch(None)
    }

    pub fn is_over(&self) -> bool {
        self.0.is_some_and(|end| Instant::now() >= end)
    }
}

/// What needs no keyspace is given its client.
pub type ClientHandler = fn(&mut Client, &Args, &mut Reply) -> Result<(), Error>;

/// Which words are keys.
#[derive(Clone, Copy)]
pub struct Keys {
    /// 0 if there is none.
    pub first: i64,
    /// Negative: counted from the end.
    pub last: i64,
    pub step: i64,
}

const fn keys(first: i64, last: i64, step: i64) -> Keys {
    Keys { first, last, step }
}

// The shapes that Redis's commands have.
pub const NO_KEY: Keys = keys(0, 0, 0);
pub const ONE_KEY: Keys = keys(1, 1, 1);
pub const TWO_KEYS: Keys = keys(1, 2, 1);
pub const ALL_KEYS: Keys = keys(1, -1, 1);
pub const EVERY_OTHER: Keys = keys(1, -1, 2);
/// One, behind the name of a subcommand.
pub const SUBCOMMAND_KEY: Keys = keys(2, 2, 1);

/// What the batch and the connection must know of a command, besides its lock. The first six are
/// Redis's, and COMMAND shows four of them.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Flag {
    /// For the operator; monitors are not shown it.
    Admin,
    /// It is not in the slow log.
    SkipSlowlog,
    /// It may be said before the password.
    NoAuth,
    /// It may not be said inside MULTI.
    NoMulti,
    /// PUBLISH: it changes no key, but Redis sends it to replicas, of which it takes monitors for a kind;
    /// so these may not say it.
    MayReplicate,
    /// DEBUG: refused unless `enable-debug-command` allows it.
    Protected,
    /// MULTI does not make it wait for EXEC.
    NotQueued,
    /// It may stand in the log, though it changes no data.
    InLog,
    /// It is refused while the log loads, though it needs no data.
    NotLoading,
    /// A RESP2 client may say it while it is subscribed, when replies cannot be told from messages.
    WhileSubscribed,
    /// It shows or resets what is counted, so what its batch has counted so far must be there.
    ShowsCounters,
    /// It counts or lists other clients, so what they have sent before must have been done (server/order.rs).
    CountsClients,
    /// With no more than two arguments it never takes longer than a microsecond, if they and the
    /// answer are short (call/account.rs, `is_quick`).
    Quick,
    /// Its second argument is a field of what its key holds, to be looked ahead to (call/ahead.rs).
    ThenField,
}

/// A row of the command table.
pub struct Command {
    /// In lower case; `config|get` for a subcommand.
    pub name: &'static str,
    /// Number of words, the name included; negative if it is the least number.
    pub arity: i64,
    /// The handler, and with it the lock.
    pub run: Run,
    pub keys: Keys,
    /// A bit for each [`Flag`] that it has ([`Command::with`]): a few are asked for with each command.
    flags: u32,
    /// The version of Redis that brought the command.
    pub since: &'static str,
    /// The arguments as Redis's documentation writes them.
    pub usage: &'static str,
    /// One line, in the words of Redis's documentation.
    pub summary: &'static str,
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
    Command { name, arity, run, keys, flags: 0, since, usage, summary }
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
        self.flags & 1 << flag as u32 != 0
    }

    /// Whether it is answered while the log loads: if it neither reads nor writes data (INFO and WATCH
    /// look at what there is).
    pub fn works_while_loading(&self) -> bool {
        let needs_data = self.reads() || matches!(self.run, Run::Write(_) | Run::Container(None));
        !needs_data && !self.is(Flag::NotLoading)
    }

    /// Whether it looks at the data and changes nothing.
    pub fn reads(&self) -> bool {
        matches!(self.run, Run::Read(_) | Run::Long(_))
    }

    /// Whether so many words are right, the name included.
    fn takes(&self, count: usize) -> bool {
        let (count, arity) = (count as i64, self.arity);
        count == arity || (arity < 0 && count >= -arity)
    }

    fn is_container(&self) -> bool {
        matches!(self.run, Run::Container(_) | Run::OpenContainer(_))
    }
}

/// The groups of Redis's documentation, each with the rows of its file.
const GROUPS: &[(&str, &[&[Command]])] = &[
    ("string", &[string::COMMANDS, lcs::COMMANDS]),
    ("hash", &[hash::COMMANDS]),
    ("generic", &[generic::COMMANDS, expiry::COMMANDS, server::WAITING]),
    ("connection", &[connection::COMMANDS, client::COMMANDS]),
    ("transactions", &[transactions::COMMANDS]),
    ("pubsub", &[pubsub::COMMANDS]),
    ("server", SERVER),
];

/// The group `server` has a file for each of its large commands, and rows in files of other groups.
const SERVER: &[&[Command]] = &[
    server::COMMANDS,
    generic::DATABASES,
    connection::ACL,
    info::COMMANDS,
    introspection::COMMANDS,
    debug::COMMANDS,
    config::COMMANDS,
];

/// A command with its place in the table, which is also its place in the statistics.
pub struct Row {
    pub index: usize,
    pub command: &'static Command,
    pub group: &'static str,
    /// Whether its name alone calls it. Not so for a container, whose second word decides, nor for
    /// a subcommand, whose name (`config|get`) is no word that a client may say.
    by_name_alone: bool,
}

impl Row {
    /// Whether these words call this command. False where only [`Table::look_up`] can tell.
    pub fn is_called_by(&self, args: &Args) -> bool {
        self.by_name_alone
            && args[0].eq_ignore_ascii_case(self.command.name.as_bytes())
            && self.command.takes(args.len())
    }
}

/// All rows, and where each name is.
pub struct Table {
    /// In the order of [`GROUPS`], which is also that of COMMAND.
    pub rows: Vec<Row>,
    by_name: HashMap<&'static str, usize>,
}

/// Made when it is looked at first, before there is a client.
pub static TABLE: LazyLock<Table> = LazyLock::new(|| {
    let commands = GROUPS.iter().flat_map(|(group, files)| {
        files.iter().flat_map(move |file| file.iter().map(move |command| (*group, command)))
    });
    let rows: Vec<Row> = commands
        .enumerate()
        .map(|(index, (group, command))| Row {
            index,
            command,
            group,
            by_name_alone: !command.is_container() && !command.name.contains('|'),
        })
        .collect();
    let by_name = rows.iter().map(|row| (row.command.name, row.index)).collect();
    Table { rows, by_name }
});

impl Table {
    /// The row with this name, in any case; `config|get` for a subcommand.
    pub fn find(&self, name: &[u8]) -> Option<&Row> {
        // No name is longer than this, and nothing is allocated to look one up.
        let mut lower = [0; 32];
        let lower = lower.get_mut(..name.len())?;
        lower.copy_from_slice(name);
        lower.make_ascii_lowercase();
        let index = self.by_name.get(std::str::from_utf8(lower).ok()?)?;
        Some(&self.rows[*index])
    }

    /// The subcommands of a container.
    pub fn subcommands(&self, container: &str) -> impl Iterator<Item = &Row> {
        let prefix = format!("{container}|");
        self.rows.iter().filter(move |row| row.command.name.starts_with(&prefix))
    }

    /// The row that these words call, if their number is right.
    pub fn look_up(&self, args: &Args) -> Result<&Row, Error> {
        let row = self.named_by(args)?;
        if row.command.takes(args.len()) {
            Ok(row)
        } else {
            Err(Error::WrongArity(row.command.name))
        }
    }

    /// The row that these words name, however many they are.
    pub fn named_by(&self, args: &Args) -> Result<&Row, Error> {
        // A subcommand's row is reached through its container only.
        let found = self.find(&args[0]).filter(|_| !args[0].contains(&b'|'));
        let mut row = found.ok_or_else(|| Error::unknown_command(args.iter()))?;
        let container = row.command;
        if container.is_container() && args.len() > 1 {
            let name = [container.name.as_bytes(), b"|", &args[1]].concat();
            row = match (self.find(&name), container.run) {
                (Some(subcommand), _) => subcommand,
                (None, Run::OpenContainer(_)) => row,
                (None, _) => return Err(unknown_subcommand(container.name, &args[1])),
            };
        }
        Ok(row)
    }
}

/// For a second word that names no subcommand.
pub fn unknown_subcommand(container: &str, subcommand: &[u8]) -> Error {
    let command = container.to_ascii_uppercase();
    Error::UnknownSubcommand { command, subcommand: subcommand.to_vec() }
}

/// The same where a command looks at its subcommands and their arity itself.
pub fn subcommand_syntax(args: &Args) -> Error {
    let command = String::from_utf8_lossy(&args[0]).to_ascii_uppercase();
    Error::SubcommandSyntax { command, subcommand: args[1].to_vec() }
}

/// `CONFIG HELP` and its like, from the rows of the container.
pub fn help(_: &mut Client, args: &Args, reply: &mut Reply) -> Result<(), Error> {
    let container = String::from_utf8_lossy(&args[0]).to_ascii_lowercase();
    let mut lines = vec![format!(
        "{} <subcommand> [<arg> [value] [opt] ...]. Subcommands are:",
        container.to_ascii_uppercase()
    )];
    for row in TABLE.subcommands(&container) {
        let Command { name, usage, summary, .. } = row.command;
        let subcommand = name[container.len() + 1..].to_ascii_uppercase();
        lines.push(format!("{subcommand} {usage}").trim_end().to_string());
        lines.push(format!("    {summary}."));
    }
    reply.statuses(&lines);
    Ok(())
}
