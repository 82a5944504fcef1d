//! The command table: all rows, and which of them a command calls.
//!
//! `rename-command` gives a command another name for clients and scripts, or none. The log does not know such
//! names: a record begins with the command's own name, so it means the same whatever the configuration says.
//!
//! **How Redis does it**: `server.commands`, a table of names, which `rename-command` changes. Its log has the name
//! that the client has sent, but the command's own name where Redis writes a record itself (`SET k v EX 9` becomes
//! SET with PXAT). So Redis cannot load the log of a SET that was renamed. Here both names are loaded.

use super::{Command, GROUPS, Run};
use crate::log;
use crate::resp::Args;
use std::borrow::Cow;
use std::sync::{LazyLock, OnceLock};

/// A command with its place in the table, which is also its place in the statistics.
pub struct Row {
    pub index: usize,
    pub command: &'static Command,
    pub group: &'static str,
    /// Whether it is reached through its container only.
    pub(super) is_subcommand: bool,
    /// The name by which clients call it. Empty: they cannot.
    called: &'static [u8],
}

impl Row {
    fn is_called(&self, name: &[u8]) -> bool {
        let mut pairs = self.called.iter().zip(name);
        self.called.len() == name.len()
            && pairs.all(|(own, byte)| *own == byte.to_ascii_lowercase())
    }

    pub fn can_be_called(&self) -> bool {
        !self.called.is_empty()
    }

    /// The arguments as they are logged: the log does not know the names that `rename-command` gives.
    pub fn as_logged<'a>(&self, args: &'a Args) -> Cow<'a, Args> {
        let own = self.command.name.as_bytes();
        match std::ptr::eq(self.called, own) {
            true => Cow::Borrowed(args),
            false => Cow::Owned(args.with_name(own)),
        }
    }
}

/// All rows, and where each name is.
pub struct Table {
    /// In the order of [`GROUPS`], which is also that of COMMAND.
    pub rows: Vec<Row>,
    /// The rows of the names in each [`bucket`].
    buckets: [Vec<usize>; BUCKETS],
    /// The rows that are not called by their own names.
    renamed: Vec<usize>,
}

/// Made when it is looked at first, before there is a client.
pub static TABLE: LazyLock<Table> = LazyLock::new(|| {
    let mut table = Table::new();
    for (from, to) in RENAMES.get().into_iter().flatten() {
        let _ = table.rename(from, to);
    }
    table
});

/// A command's name, and the one that `rename-command` gives it instead.
pub type Rename = (Vec<u8>, Vec<u8>);

/// What [`rename`] was given.
static RENAMES: OnceLock<Vec<Rename>> = OnceLock::new();

/// Renames commands, one after the other, before anybody looks at the [`TABLE`]. Fails if a name is that of another
/// command. A command that is not here needs no other name: the operator is told, because it may be a slip.
pub fn rename(renames: &[Rename]) -> Result<(), String> {
    let mut table = Table::new();
    for (from, to) in renames {
        let [name, new] = [from, to].map(|name| name.escape_ascii());
        match table.rename(from, to) {
            Ok(true) => {}
            Ok(false) => log::warning(format_args!("rename-command: there is no command '{name}'")),
            Err(()) => {
                return Err(format!(
                    "cannot rename the command '{name}': there is a command '{new}'"
                ));
            }
        }
    }
    let _ = RENAMES.set(renames.to_vec());
    Ok(())
}

const BUCKETS: usize = 32 * 32;

/// The bucket of a name, by its first two letters and its length. Most buckets that are used have one name, and
/// none has more than four, if subcommands are not counted. (`% 32` makes upper and lower case equal.) It is for speed alone: with one of std's
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
    fn new() -> Table {
        let mut table = Table {
            rows: Vec::new(),
            buckets: [const { Vec::new() }; BUCKETS],
            renamed: Vec::new(),
        };
        for (group, files) in GROUPS {
            for (index, command) in (table.rows.len()..).zip(files.iter().copied().flatten()) {
                let called = command.name.as_bytes();
                table.buckets[bucket(called)].push(index);
                let is_subcommand = command.name.contains('|');
                table.rows.push(Row { index, command, group, is_subcommand, called });
            }
        }
        table
    }

    /// Gives a command another name. Returns false if there is no such command, and fails if the other name is
    /// taken. An empty one takes the command and its subcommands away.
    fn rename(&mut self, from: &[u8], to: &[u8]) -> Result<bool, ()> {
        let row = self.find(from).filter(|row| !row.is_subcommand);
        let Some((index, name)) = row.map(|row| (row.index, row.command.name)) else {
            return Ok(false);
        };
        self.call(index, b"");
        if !to.is_empty() {
            if self.find(to).is_some() {
                return Err(());
            }
            self.call(index, to.to_ascii_lowercase().leak());
            return Ok(true);
        }
        let subcommands: Vec<usize> = self.subcommands(name).map(|row| row.index).collect();
        subcommands.into_iter().for_each(|index| self.call(index, b""));
        Ok(true)
    }

    /// From now on the row is called by this name.
    fn call(&mut self, index: usize, name: &'static [u8]) {
        let old = std::mem::replace(&mut self.rows[index].called, name);
        self.renamed.retain(|other| *other != index);
        self.renamed.push(index);
        self.buckets[bucket(old)].retain(|other| *other != index);
        if !name.is_empty() {
            self.buckets[bucket(name)].push(index);
        }
    }

    /// The row that is called by this name, in any case; `config|get` for a subcommand.
    pub fn find(&self, name: &[u8]) -> Option<&Row> {
        let mut rows = self.buckets[bucket(name)].iter().map(|index| &self.rows[*index]);
        rows.find(|row| row.is_called(name))
    }

    /// The row that a record of the log calls, if their number is right. A record has the command's own name. If
    /// redis-server has written it, it may have the other one.
    pub fn look_up_record(&self, args: &Args) -> Option<&Row> {
        self.recorded(args).filter(|row| row.command.takes(args.len()))
    }

    pub fn recorded(&self, args: &Args) -> Option<&Row> {
        let has_own_name = |row: &&Row| args[0].eq_ignore_ascii_case(row.command.name.as_bytes());
        let mut renamed = self.renamed.iter().map(|index| &self.rows[*index]);
        renamed.find(has_own_name).or_else(|| self.named_by(args))
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
        assert!(TABLE.buckets.iter().all(|bucket| bucket.iter().filter(is_whole).count() <= 4));
        assert!(TABLE.find(b"").is_none() && TABLE.find(b"gett").is_none());
    }
}
