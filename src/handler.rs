//! The command table: one row for each command, and what its handler may touch.
//!
//! Each command is one row ([`Command`]) in the file of its group: name, arity, handler, key
//! positions, and what the documentation says. The row is all there is: arity errors, `COMMAND`,
//! the statistics and the README's list are read from it.
//!
//! What a handler may do follows from the type of its function, which is its lock:
//!
//! | [`Run`]   | gets                | lock            | logged            |
//! |-----------|---------------------|-----------------|-------------------|
//! | `Read`    | `&View`             | shared          | never             |
//! | `Write`   | `&mut ViewMut`      | exclusive       | if it changed something |
//! | `Client`  | `&mut Client`       | none needed     | never             |
//! | `Unlocked` | the same           | given back before | never           |
//! | `Mixed`   | both, read-only     | shared          | never             |
//!
//! EXEC has a variant of its own, for it runs others, and so have containers such as CONFIG, whose
//! subcommands are rows (`config|get`). What happens around the handler, the same for all, is in
//! batch.rs.
//!
//! **How Redis does it**: server.c, `populateCommandTable`, from a file in JSON for each command.
//! Its handlers all have the same type, and a flag in the table says whether they write: a wrong
//! flag there is a bug that shows late, a wrong type here does not compile. The rows have fewer
//! columns, since there are no replicas, users or cluster to be told of a command.

pub mod args;
pub mod client;
pub mod config;
pub mod connection;
pub mod debug;
pub mod expiry;
pub mod float;
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

/// The version of Redis whose behaviour this server follows, which it reports to clients.
pub const REDIS_VERSION: &str = "7.0.15";

/// The version of this server.
pub const VERSION: &str = env!("CARGO_PKG_VERSION");

/// What a handler may touch, which is also the lock that it runs under.
#[derive(Clone, Copy)]
pub enum Run {
    /// Under the shared lock. It cannot change anything: `View` has no way to.
    Read(fn(&View, &Args, &mut Reply) -> Result<(), Error>),
    /// Under the exclusive lock; logged if it changed something.
    Write(fn(&mut ViewMut, &mut Args, &mut Reply) -> Result<(), Error>),
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

/// What needs no keyspace is given its client.
pub type ClientHandler = fn(&mut Client, &Args, &mut Reply) -> Result<(), Error>;

/// Which arguments are keys: the first, the last (negative: counted from the end), and the step.
#[derive(Clone, Copy)]
pub struct Keys(pub i64, pub i64, pub i64);

// The shapes that Redis's commands have.
pub const NO_KEY: Keys = Keys(0, 0, 0);
pub const ONE_KEY: Keys = Keys(1, 1, 1);
pub const TWO_KEYS: Keys = Keys(1, 2, 1);
pub const ALL_KEYS: Keys = Keys(1, -1, 1);
pub const EVERY_OTHER: Keys = Keys(1, -1, 2);
pub const SUBCOMMAND_KEY: Keys = Keys(2, 2, 1);

/// A row of the command table.
pub struct Command {
    /// In lower case; `config|get` for a subcommand.
    pub name: &'static str,
    /// Number of words, the name included; negative if it is the least number.
    pub arity: i64,
    /// The handler, and with it the lock.
    pub run: Run,
    pub keys: Keys,
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
    Command {
        name,
        arity,
        run,
        keys,
        since,
        usage,
        summary,
    }
}

impl Command {
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
const GROUPS: [(&str, &[&[Command]]); 7] = [
    ("string", &[string::COMMANDS, lcs::COMMANDS]),
    ("hash", &[hash::COMMANDS]),
    ("generic", &[generic::COMMANDS, expiry::COMMANDS]),
    ("connection", &[connection::COMMANDS, client::COMMANDS]),
    ("transactions", &[transactions::COMMANDS]),
    ("pubsub", &[pubsub::COMMANDS]),
    ("server", SERVER),
];

/// The group `server` has a file for each of its large commands.
const SERVER: &[&[Command]] = &[
    server::COMMANDS,
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
        files
            .iter()
            .flat_map(move |file| file.iter().map(move |command| (*group, command)))
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
    let by_name = rows
        .iter()
        .map(|row| (row.command.name, row.index))
        .collect();
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
        self.rows
            .iter()
            .filter(move |row| row.command.name.starts_with(&prefix))
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

/// Whether the command is answered while the log replays: if it neither reads nor writes data (INFO
/// and WATCH look at what there is). PING is refused so that who asks whether the server is ready is
/// told; the others because there is nothing yet to be waited for, or rewritten.
pub fn works_while_loading(command: &Command) -> bool {
    let refused = ["ping", "wait", "waitaof", "bgrewriteaof"];
    !matches!(
        command.run,
        Run::Read(_) | Run::Write(_) | Run::Container(None)
    ) && !refused.contains(&command.name)
}

/// Whether the log may hold this command; the error is what the operator is to be told.
pub fn can_replay(args: &Args) -> Result<&'static Row, String> {
    let name = String::from_utf8_lossy(&args[0]);
    let row = match TABLE.look_up(args) {
        Ok(row) => row,
        Err(Error::WrongArity(_)) => return Err(format!("wrong number of arguments for {name}")),
        Err(_) => return Err(format!("not supported: {name}")),
    };
    let is_about_data = matches!(row.command.run, Run::Write(_) | Run::Read(_) | Run::Exec);
    if !is_about_data && !matches!(row.command.name, "select" | "multi" | "discard") {
        return Err(format!("not supported: {name}"));
    }
    if row.command.name == "select" && args::database(&args[1], i32::MAX as usize).is_err() {
        let index = String::from_utf8_lossy(&args[1]);
        return Err(format!("not supported: {name} {index}"));
    }
    Ok(row)
}

/// For a second word that names no subcommand.
pub fn unknown_subcommand(container: &str, subcommand: &[u8]) -> Error {
    let command = container.to_ascii_uppercase();
    Error::UnknownSubcommand {
        command,
        subcommand: subcommand.to_vec(),
    }
}

/// The same where a command looks at its subcommands and their arity itself.
pub fn subcommand_syntax(args: &Args) -> Error {
    let command = String::from_utf8_lossy(&args[0]).to_ascii_uppercase();
    Error::SubcommandSyntax {
        command,
        subcommand: args[1].to_vec(),
    }
}

/// `CONFIG HELP` and its like, from the rows of the container.
pub fn help(_: &mut Client, args: &Args, reply: &mut Reply) -> Result<(), Error> {
    let container = String::from_utf8_lossy(&args[0]).to_ascii_lowercase();
    let mut lines = vec![format!(
        "{} <subcommand> [<arg> [value] [opt] ...]. Subcommands are:",
        container.to_ascii_uppercase()
    )];
    for row in TABLE.subcommands(&container) {
        let Command {
            name,
            usage,
            summary,
            ..
        } = row.command;
        let subcommand = name[container.len() + 1..].to_ascii_uppercase();
        lines.push(format!("{subcommand} {usage}").trim_end().to_string());
        lines.push(format!("    {summary}."));
    }
    reply.statuses(&lines);
    Ok(())
}
