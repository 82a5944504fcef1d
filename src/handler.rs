//! (chapter to come)

pub mod args;
pub mod connection;
pub mod expiry;
pub mod float;
pub mod generic;
pub mod hash;
pub mod lcs;
pub mod scan;
pub mod string;

use crate::client::Client;
use crate::error::Error;
use crate::resp::{Args, Reply};
use crate::store::{View, ViewMut};

/// What a handler may touch, which is also the lock that it runs under.
#[derive(Clone, Copy)]
pub enum Run {
    /// Under the shared lock. It cannot change anything: `View` has no way to.
    Read(fn(&View, &Args, &mut Reply) -> Result<(), Error>),
    /// Under the exclusive lock; logged if it changed something.
    Write(fn(&mut ViewMut, &mut Args, &mut Reply) -> Result<(), Error>),
    /// Without a lock, or under whichever is held: it sees its client alone, and must not block.
    Client(fn(&mut Client, &Args, &mut Reply) -> Result<(), Error>),
    /// Under the shared lock, and with its client.
    Mixed(fn(&mut Client, &View, &Args, &mut Reply) -> Result<(), Error>),
    /// EXEC, which runs others and holds the lock that the most demanding of them needs.
    Exec,
    /// A container such as CONFIG; its subcommands have rows of their own, named `config|get`.
    Container,
}

/// Which arguments are keys: the first, the last (negative: counted from the end), and the step.
#[derive(Clone, Copy)]
pub struct Keys(pub i64, pub i64, pub i64);

pub const NO_KEY: Keys = Keys(0, 0, 0);
pub const ONE_KEY: Keys = Keys(1, 1, 1);
pub const TWO_KEYS: Keys = Keys(1, 2, 1);
pub const ALL_KEYS: Keys = Keys(1, -1, 1);
pub const EVERY_OTHER: Keys = Keys(1, -1, 2);

/// A row of the command table.
pub struct Command {
    /// In lower case; `config|get` for a subcommand.
    pub name: &'static str,
    /// Number of words, the name included; negative if it is the least number.
    pub arity: i64,
    pub run: Run,
    pub keys: Keys,
    /// The version of Redis that brought the command.
    pub since: &'static str,
    /// The arguments as Redis's documentation writes them.
    pub usage: &'static str,
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
