//! Containers: commands such as CONFIG, whose second argument says which command is meant.
//!
//! ```text
//! CONFIG GET save ─▶ row config|get       found by Table::subcommand
//! CONFIG HELP     ─▶ row config|help      whose handler is help
//! CONFIG NONSENSE ─▶ no row               Table::why_not_found says why
//! ```
//!
//! HELP is made from the rows: from what [`Command::help`] gives them, which are Redis's words, or else from the
//! row's usage and summary.
//!
//! **How Redis does it**: `lookupCommandLogic` and `addReplySubcommandSyntaxError` in server.c and
//! networking.c. There each container writes its HELP by hand.

use super::{Command, Flag, Row, TABLE, Table};
use crate::client::Client;
use crate::error::Error;
use crate::resp::{Args, Reply};

impl Table {
    /// The row of a subcommand. A container that takes what it does not know answers for that itself.
    pub(super) fn subcommand<'a>(&'a self, container: &'a Row, name: &[u8]) -> Option<&'a Row> {
        let name = [container.command.name.as_bytes(), b"|", name].concat();
        let takes_unknown = container.command.is(Flag::TakesUnknown);
        self.find(&name).or(takes_unknown.then_some(container))
    }

    /// Why these arguments call nothing.
    #[cold]
    pub fn why_not_found(&self, args: &Args) -> Error {
        match (self.named_by(args), self.find(&args[0])) {
            (Some(row), _) => Error::WrongArity(row.command.name),
            (None, Some(row)) if !row.is_subcommand => {
                Error::subcommand("unknown subcommand", row.command.name, &args[1])
            }
            _ => Error::unknown_command(args.iter()),
        }
    }

    /// The subcommands of a container.
    pub fn subcommands(&self, container: &str) -> impl Iterator<Item = &Row> {
        let prefix = format!("{container}|");
        self.rows.iter().filter(move |row| row.command.name.starts_with(&prefix))
    }
}

/// For a command that looks at its subcommands and their arity itself, and finds neither right.
pub fn subcommand_syntax(args: &Args) -> Error {
    let container = String::from_utf8_lossy(&args[0]);
    Error::subcommand("unknown subcommand or wrong number of arguments for", &container, &args[1])
}

/// The HELP of a container.
pub fn help(_: &mut Client, args: &Args, reply: &mut Reply) -> Result<(), Error> {
    reply.statuses(&help_lines(args));
    Ok(())
}

/// What the rows of the container say that `args` name.
pub fn help_lines(args: &Args) -> Vec<String> {
    let called = String::from_utf8_lossy(&args[0]).to_ascii_uppercase();
    let mut text = format!("{called} <subcommand> [<arg> [value] [opt] ...]. Subcommands are:\n");
    let container = TABLE.find(&args[0]).map_or("", |row| row.command.name);
    text += TABLE.find(&args[0]).map_or("", |row| row.command.help);
    for row in TABLE.subcommands(container) {
        let Command { name, usage, summary, help, .. } = row.command;
        let subcommand = name[container.len() + 1..].to_ascii_uppercase();
        text += &match (subcommand.as_str(), *help) {
            // As in Redis, the last.
            ("HELP", _) => continue,
            (_, "") => format!("{}\n    {summary}.\n", format!("{subcommand} {usage}").trim_end()),
            (_, help) => format!("{subcommand}{help}\n"),
        };
    }
    text += "HELP\n    Prints this help.";
    text.lines().map(str::to_string).collect()
}

impl Command {
    /// Gives it Redis's words for HELP: what follows its name, and then lines about it.
    pub const fn help(mut self, text: &'static str) -> Command {
        self.help = text;
        self
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn args(words: &[&str]) -> Args {
        let mut args = Args::default();
        words.iter().for_each(|word| args.push(word.as_bytes()));
        args
    }

    #[test]
    fn every_row_is_found_by_its_name_in_any_case_and_nothing_else_is() {
        for row in &TABLE.rows {
            let name = row.command.name;
            for name in [name.to_string(), name.to_uppercase()] {
                let found = TABLE.find(name.as_bytes()).map(|row| row.index);
                assert_eq!(found, Some(row.index), "{name}");
                for other in [format!("{name}x"), format!("x{name}"), name.replace('e', "\u{5}")] {
                    let found = TABLE.find(other.as_bytes()).map(|row| row.command.name);
                    assert!(
                        found.is_none_or(|found| found.eq_ignore_ascii_case(&other)),
                        "{other}"
                    );
                }
            }
        }
        assert!(TABLE.find(b"").is_none() && TABLE.find(b"g").is_none());
    }

    #[test]
    fn a_subcommand_is_called_through_its_container_alone() {
        let called = |words: &[&str]| TABLE.look_up(&args(words)).map(|row| row.command.name);
        assert_eq!(called(&["Config", "GET", "save"]), Some("config|get"));
        assert_eq!(called(&["config|get", "save"]), None);
        assert_eq!(called(&["DEBUG", "nonsense"]), Some("debug"));
        let why = |words: &[&str]| TABLE.why_not_found(&args(words));
        let unknown = [&b"config|get"[..], b"save"].into_iter();
        assert_eq!(why(&["config|get", "save"]), Error::unknown_command(unknown));
        assert_eq!(why(&["CONFIG", "GET"]), Error::WrongArity("config|get"));
        assert_eq!(why(&["CONFIG"]), Error::WrongArity("config"));
    }
}
