//! The command table: all rows, and which of them a command calls.

use super::{Command, GROUPS, Run};
use crate::resp::Args;
use std::sync::LazyLock;

/// A command with its place in the table, which is also its place in the statistics.
pub struct Row {
    pub index: usize,
    pub command: &'static Command,
    pub group: &'static str,
    /// Whether it is reached through its container only.
    pub(super) is_subcommand: bool,
}

impl Row {
    fn is_named(&self, name: &[u8]) -> bool {
        let own = self.command.name.as_bytes();
        let mut pairs = own.iter().zip(name);
        own.len() == name.len() && pairs.all(|(own, byte)| *own == byte.to_ascii_lowercase())
    }
}

/// All rows, and where each name is.
pub struct Table {
    /// In the order of [`GROUPS`], which is also that of COMMAND.
    pub rows: Vec<Row>,
    /// The rows of the names in each [`bucket`].
    buckets: [Vec<usize>; BUCKETS],
}

/// Made when it is looked at first, before there is a client.
pub static TABLE: LazyLock<Table> = LazyLock::new(|| {
    let mut table = Table { rows: Vec::new(), buckets: [const { Vec::new() }; BUCKETS] };
    for (group, files) in GROUPS {
        for (index, command) in (table.rows.len()..).zip(files.iter().copied().flatten()) {
            table.buckets[bucket(command.name.as_bytes())].push(index);
            let is_subcommand = command.name.contains('|');
            table.rows.push(Row { index, command, group, is_subcommand });
        }
    }
    table
});

const BUCKETS: usize = 32 * 32;

/// The bucket of a name, by its first two letters and its length. Most buckets that are used have one name, and
/// none has more than three, if subcommands are not counted. (`% 32` makes upper and lower case equal.) It is for speed alone: with one of std's
/// tables a GET in a pipeline takes nearly a fifth more instructions.
fn bucket(name: &[u8]) -> usize {
    match name {
        [first, second, ..] => {
            32 * usize::from(first % 32) + (usize::from(second % 32) + name.len()) % 32
        }
        _ => 0,
    }
}

impl Table {
    /// The row with this name, in any case; `config|get` for a subcommand.
    pub fn find(&self, name: &[u8]) -> Option<&Row> {
        let mut rows = self.buckets[bucket(name)].iter().map(|index| &self.rows[*index]);
        rows.find(|row| row.is_named(name))
    }

    /// The row that these arguments call, if there is one and their number is right.
    pub fn look_up(&self, args: &Args) -> Option<&Row> {
        self.named_by(args).filter(|row| row.command.takes(args.len()))
    }

    /// The row that these arguments name, whatever their number.
    pub fn named_by(&self, args: &Args) -> Option<&Row> {
        let row = self.find(&args[0]).filter(|row| !row.is_subcommand)?;
        match row.command.run {
            Run::Container(_) if args.len() > 1 => self.subcommand(row, &args[1]),
            _ => Some(row),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_row_is_found_by_its_name_in_any_case_among_a_few() {
        for row in &TABLE.rows {
            let name = row.command.name.to_ascii_uppercase();
            assert_eq!(TABLE.find(name.as_bytes()).map(|row| row.index), Some(row.index), "{name}");
        }
        // A subcommand is looked for only by its container, and need not be found as fast.
        let is_whole = |index: &&usize| !TABLE.rows[**index].is_subcommand;
        assert!(TABLE.buckets.iter().all(|bucket| bucket.iter().filter(is_whole).count() <= 3));
        assert!(TABLE.find(b"").is_none() && TABLE.find(b"gett").is_none());
    }
}
