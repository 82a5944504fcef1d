//! LCS: what two strings have in common, in the same order, gaps allowed.
//!
//! `diff` does this with lines, and geneticists with bases. The longest common subsequence of all
//! beginnings of one string with all beginnings of the other fills a table, each cell from its
//! neighbours:
//!
//! ```text
//!         m  y  t  e  x  t       equal bytes:  the cell diagonally before, plus one
//!      0  0  0  0  0  0  0       other bytes:  the greater of those above and to the left
//!   o  0  0  0  0  0  0  0
//!   u  0  0  0  0  0  0  0       The last cell is the length. Walking back from it, and
//!   r  0  0  0  0  0  0  0       diagonally wherever the bytes are equal, gives the bytes
//!   t  0  0  0  1  1  1  1       themselves, from the last to the first; a run of diagonal
//!   e  0  0  0  1  2  2  2       steps is a *match*, and IDX answers with those.
//!   x  0  0  0  1  2  3  3
//!   t  0  0  0  1  2  3  4
//! ```
//!
//! Time and memory are the product of both lengths: two strings of 11 KB take half a gigabyte, and
//! hardly more is allowed. Meanwhile other readers go on, until somebody wants to write.
//!
//! **How Redis does it**: t_string.c, `lcsCommand`, the same table. Its bound is
//! `proto-max-bulk-len`; a reader does not see the configuration here, so the bound is that
//! option's default. Redis prefers the left cell to the one above where they are equal, which
//! decides between answers that are equally long, and so do we.

use crate::entry::Entry;
use crate::error::Error;
use crate::handler::args::{Cursor, integer};
use crate::handler::{Command, Run, TWO_KEYS, command};
use crate::resp::{Args, Reply};
use crate::store::View;
use std::ops::Range;

#[rustfmt::skip]
pub const COMMANDS: &[Command] = &[
    command("lcs", -3, Run::Read(lcs), TWO_KEYS, "7.0.0", "key1 key2 [LEN] [IDX] [MINMATCHLEN len] [WITHMATCHLEN]", "Find longest common substring"),
];

/// The table may take this many bytes.
const MOST_MEMORY: usize = 512 * 1024 * 1024;

fn lcs(view: &View, args: &Args, reply: &mut Reply) -> Result<(), Error> {
    let entries = [view.get(&args[1]), view.get(&args[2])];
    let mut found = entries.iter().flatten();
    if found.any(|entry| entry.string().is_none()) {
        return Err(Error::LcsNotStrings);
    }
    let [a, b] = entries.map(|entry| entry.and_then(Entry::string));
    let (a, b) = (a.as_deref().unwrap_or(b""), b.as_deref().unwrap_or(b""));
    let options = Options::parse(args)?;
    let table = Table::new(a, b)?;
    if options.idx {
        reply_with_matches(&table, &options, reply);
    } else if options.len {
        reply.count(table.length());
    } else {
        // The walk goes backwards, and so do the matches.
        let matches = table.matches();
        let parts: Vec<&[u8]> = matches.into_iter().rev().map(|m| &a[m.in_a()]).collect();
        reply.bulk(&parts.concat());
    }
    Ok(())
}

#[derive(Default)]
struct Options {
    len: bool,
    idx: bool,
    with_match_len: bool,
    /// Shorter matches are left out of the answer to IDX.
    min_match_len: i64,
}

impl Options {
    fn parse(args: &Args) -> Result<Options, Error> {
        let mut options = Options::default();
        let mut cursor = Cursor::at(args, 3);
        while let Some(option) = cursor.option() {
            match &option[..] {
                b"LEN" => options.len = true,
                b"IDX" => options.idx = true,
                b"WITHMATCHLEN" => options.with_match_len = true,
                b"MINMATCHLEN" => options.min_match_len = integer(cursor.operand()?)?,
                _ => return Err(Error::Syntax),
            }
        }
        if options.len && options.idx {
            return Err(Error::LcsLenAndIdx);
        }
        Ok(options)
    }
}

fn reply_with_matches(table: &Table, options: &Options, reply: &mut Reply) {
    let mut matches = table.matches();
    matches.retain(|found| found.length as i64 >= options.min_match_len);
    reply.map(2);
    reply.bulk(b"matches");
    reply.array(matches.len());
    reply.each(&matches, |reply, found| {
        reply.array(if options.with_match_len { 3 } else { 2 });
        for start in [found.a, found.b] {
            reply.array(2);
            reply.count(start);
            reply.count(start + found.length - 1);
        }
        if options.with_match_len {
            reply.count(found.length);
        }
    });
    reply.bulk(b"len");
    reply.count(table.length());
}

/// Bytes that stand in both strings without a gap.
struct Match {
    /// Where it starts in the first string.
    a: usize,
    /// Where it starts in the second.
    b: usize,
    length: usize,
}

impl Match {
    fn in_a(&self) -> Range<usize> {
        self.a..self.a + self.length
    }
}

/// For each pair of beginnings of the two strings, the length of what they have in common.
struct Table<'a> {
    a: &'a [u8],
    b: &'a [u8],
    cells: Vec<u32>,
}

impl<'a> Table<'a> {
    fn new(a: &'a [u8], b: &'a [u8]) -> Result<Table<'a>, Error> {
        let width = b.len() + 1;
        let cells = (a.len() + 1).saturating_mul(width);
        if cells.saturating_mul(size_of::<u32>()) > MOST_MEMORY {
            return Err(Error::text(
                "ERR Insufficient memory, transient memory for LCS exceeds proto-max-bulk-len",
            ));
        }
        let mut cells = vec![0; cells];
        for (i, byte) in a.iter().enumerate() {
            let (above, row) = cells[i * width..].split_at_mut(width);
            for (j, other) in b.iter().enumerate() {
                row[j + 1] = if byte == other {
                    above[j] + 1
                } else {
                    row[j].max(above[j + 1])
                };
            }
        }
        Ok(Table { a, b, cells })
    }

    fn cell(&self, i: usize, j: usize) -> usize {
        self.cells[i * (self.b.len() + 1) + j] as usize
    }

    fn length(&self) -> usize {
        self.cell(self.a.len(), self.b.len())
    }

    /// The matches, the last one first.
    fn matches(&self) -> Vec<Match> {
        let mut matches: Vec<Match> = Vec::new();
        let (mut i, mut j) = (self.a.len(), self.b.len());
        while i > 0 && j > 0 {
            if self.a[i - 1] == self.b[j - 1] {
                match matches.last_mut() {
                    Some(last) if (last.a, last.b) == (i, j) => {
                        last.a -= 1;
                        last.b -= 1;
                        last.length += 1;
                    }
                    _ => matches.push(Match {
                        a: i - 1,
                        b: j - 1,
                        length: 1,
                    }),
                }
                i -= 1;
                j -= 1;
            } else if self.cell(i - 1, j) > self.cell(i, j - 1) {
                i -= 1;
            } else {
                j -= 1;
            }
        }
        matches
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn matches_are_runs_and_come_last_to_first() {
        let table = Table::new(b"ohmytext", b"mynewtext").unwrap();
        assert_eq!(table.length(), 6);
        let matches = table.matches();
        let found: Vec<_> = matches.iter().map(|m| (m.a, m.b, m.length)).collect();
        assert_eq!(found, [(4, 5, 4), (2, 0, 2)]);
        assert_eq!(Table::new(b"", b"abc").unwrap().length(), 0);
    }

    #[test]
    fn a_table_that_is_too_large_is_refused_before_it_is_made() {
        let long = vec![b'x'; 12_000];
        assert!(Table::new(&long, &long).is_err());
    }
}
