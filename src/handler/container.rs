//! Containers: commands such as CONFIG, whose second argument says which command is meant.
//!
//! ```text
//! CONFIG GET save ─▶ row config|get       found by Table::named_by
//! CONFIG HELP     ─▶ row config|help      whose handler is help
//! CONFIG NONSENSE ─▶ no row               unknown_subcommand
//! ```
//!
//! **How Redis does it**: `lookupCommandLogic` and `addReplySubcommandSyntaxError` in server.c and
//! networking.c. There each container writes its HELP by hand.

use super::{Command, Row, TABLE, Table};
use crate::client::Client;
use crate::error::Error;
use crate::resp::{Args, Reply};

impl Table {
    /// The subcommands of a container.
    pub fn subcommands(&self, container: &str) -> impl Iterator<Item = &Row> {
        let prefix = format!("{container}|");
        self.rows.iter().filter(move |row| row.command.name.starts_with(&prefix))
    }
}

/// For a second argument that names no subcommand.
pub fn unknown_subcommand(container: &str, subcommand: &[u8]) -> Error {
    let command = container.to_ascii_uppercase();
    Error::UnknownSubcommand { command, subcommand: subcommand.to_vec() }
}

/// The same for a command that looks at its subcommands and their arity itself.
pub fn subcommand_syntax(args: &Args) -> Error {
    let command = String::from_utf8_lossy(&args[0]).to_ascii_uppercase();
    Error::SubcommandSyntax { command, subcommand: args[1].to_vec() }
}

/// CONFIG HELP, and the HELP of every other container, from its rows.
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
