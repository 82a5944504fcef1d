//! LCS: the longest common subsequence of two strings. It is in both in the same order, with gaps.
//!
//! `diff` does this with lines. A table has a cell for each pair of a beginning of one string and a beginning
//! of the other: the length of their longest common subsequence. Each cell follows from its neighbours:
//!
//! ```text
//!         m  y  t  e  x  t       equal bytes:  the cell diagonally before, plus one
//!      0  0  0  0  0  0  0       other bytes:  the greater of those above and to the left
//!   o  0  0  0  0  0  0  0
//!   u  0  0  0  0  0  0  0       The last cell is the length. A walk back from it goes
//!   r  0  0  0  0  0  0  0       diagonally wherever the bytes are equal. These are the
//!   t  0  0  0  1  1  1  1       common bytes, from the last to the first. A run of
//!   e  0  0  0  1  2  2  2       diagonal steps is a *match*. IDX replies with those.
//!   x  0  0  0  1  2  3  3
//!   t  0  0  0  1  2  3  4
//! ```
//!
//! The walk back only asks which of two neighbours is greater. So we keep the numbers of one row, along the
//! shorter string, and for all other cells one bit: is the cell above greater? The time is the product of
//! both lengths, and the memory an eighth of that in bytes. The strings are taken out of the keyspace, and
//! only another LCS waits for the computation (call/long.rs).
//!
//! **How Redis does it**: t_string.c, `lcsCommand`, with four bytes per cell. It refuses a table over
//! `proto-max-bulk-len`: half a gigabyte, for two strings of 11 KB. So do we, but we need only 16 MB for
//! them. If both neighbours are equal, Redis goes to the left. That decides between results of the same
//! length, so we do it too.

use crate::blob::Blob;
use crate::error::Error;
use crate::handler::args::{Cursor, integer};
use crate::handler::{Command, Left, Rest, Run, TWO_KEYS, TimeSlice, command};
use crate::resp::{Args, Reply};
use crate::store::View;
use crate::types::{Entry, Str};
use std::cmp::Ordering;
use std::sync::Arc;

#[rustfmt::skip]
pub const COMMANDS: &[Command] = &[
    command("lcs", -3, Run::Long(lcs), TWO_KEYS, "7.0.0", "key1 key2 [LEN] [IDX] [MINMATCHLEN len] [WITHMATCHLEN]", "Find longest common substring"),
];

/// Up to this many cells are computed under the lock, because that takes no time.
const FEW: usize = 64 * 1024;

fn lcs<'a>(view: &View, args: &'a Args, _: &TimeSlice, reply: &mut Reply) -> Left<'a> {
    let entries = [view.entry(args.key(1)), view.entry(args.key(2))];
    let mut found = entries.iter().flatten();
    if found.any(|entry| entry.read::<Str>().is_none()) {
        return Err(Error::text("ERR The specified keys must contain string values"));
    }
    let strings = entries.map(|entry| entry.and_then(Entry::read::<Str>));
    let [a, b] = strings.map(|string| string.map_or_else(Arc::default, own));
    let options = Options::parse(args)?;
    let cells = (a.len() + 1).saturating_mul(b.len() + 1);
    // Redis's table has four bytes per cell.
    if cells.saturating_mul(size_of::<u32>()) > view.limits.string {
        return Err(Error::text(
            "ERR Insufficient memory, transient memory for LCS exceeds proto-max-bulk-len",
        ));
    }
    let compute = move |reply: &mut Reply| answer(&a, &b, &options, reply);
    if cells > FEW {
        return Ok(Some(Rest::Compute(Box::new(compute))));
    }
    compute(reply);
    Ok(None)
}

/// The string without the lock: a large one is shared, a short one copied.
fn own(string: Str) -> Arc<Blob> {
    match string {
        Str::Shared(string) => string.clone(),
        string => Arc::new(string.to_vec().into()),
    }
}

fn answer(a: &[u8], b: &[u8], options: &Options, reply: &mut Reply) {
    let table = Table::new(a, b);
    if options.idx {
        reply_with_matches(&table, options, reply);
    } else if options.len {
        reply.count(table.length);
    } else {
        // The walk goes backwards, and so do the matches.
        let matches = table.matches();
        let parts: Vec<&[u8]> = matches.iter().rev().map(|m| &a[m.a..m.a + m.length]).collect();
        reply.bulk(&parts.concat());
    }
}

#[derive(Default)]
struct Options {
    len: bool,
    idx: bool,
    with_match_len: bool,
    /// IDX leaves shorter matches out.
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
            let text = "ERR If you want both the length and indexes, please just use IDX.";
            return Err(Error::text(text));
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
    reply.count(table.length);
}

/// Bytes that are in both strings without a gap.
struct Match {
    /// Where it begins in the first string, and in the second.
    a: usize,
    b: usize,
    length: usize,
}

/// What the walk back must know of each cell.
struct Table<'a> {
    a: &'a [u8],
    b: &'a [u8],
    /// Of the longest common subsequence.
    length: usize,
    /// A bit for each pair of bytes, along the shorter string first: is the result longer without the byte of
    /// `a` than without that of `b`? Where the bytes are equal, the bit is not used.
    without_a: Vec<u64>,
}

impl<'a> Table<'a> {
    fn new(a: &'a [u8], b: &'a [u8]) -> Table<'a> {
        let (long, short, wanted) =
            if a.len() > b.len() { (a, b, Ordering::Greater) } else { (b, a, Ordering::Less) };
        let mut without_a = Vec::with_capacity((long.len() * short.len()).div_ceil(64));
        let (mut word, mut bit) = (0u64, 0);
        // The current row of the table: a cell for each beginning of the short string.
        let mut common = vec![0u32; short.len()];
        for byte in long {
            let (mut diagonal, mut without_short) = (0, 0);
            for (other, cell) in short.iter().zip(&mut common) {
                let without_long = *cell;
                let is_more = without_long.cmp(&without_short) == wanted;
                *cell = match byte == other {
                    true => diagonal + 1,
                    false => without_long.max(without_short),
                };
                (diagonal, without_short) = (without_long, *cell);
                word |= u64::from(is_more) << bit;
                bit += 1;
                if bit == u64::BITS {
                    without_a.push(word);
                    (word, bit) = (0, 0);
                }
            }
        }
        without_a.push(word);
        Table { a, b, length: common.last().map_or(0, |length| *length as usize), without_a }
    }

    /// Whether the walk back leaves out byte `i` of `a`, rather than byte `j` of `b`.
    fn leaves_out_a(&self, i: usize, j: usize) -> bool {
        let at = match self.a.len() > self.b.len() {
            true => i * self.b.len() + j,
            false => j * self.a.len() + i,
        };
        self.without_a[at / 64] >> (at % 64) & 1 == 1
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
                    _ => matches.push(Match { a: i - 1, b: j - 1, length: 1 }),
                }
                i -= 1;
                j -= 1;
            } else if self.leaves_out_a(i - 1, j - 1) {
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

    /// As in the drawing, with a number in each cell.
    fn walk_through_numbers(a: &[u8], b: &[u8]) -> Vec<(usize, usize)> {
        let mut cells = vec![vec![0; b.len() + 1]; a.len() + 1];
        for i in 1..=a.len() {
            for j in 1..=b.len() {
                cells[i][j] = match a[i - 1] == b[j - 1] {
                    true => cells[i - 1][j - 1] + 1,
                    false => cells[i - 1][j].max(cells[i][j - 1]),
                };
            }
        }
        let (mut i, mut j, mut taken) = (a.len(), b.len(), Vec::new());
        while i > 0 && j > 0 {
            if a[i - 1] == b[j - 1] {
                (i, j) = (i - 1, j - 1);
                taken.push((i, j));
            } else if cells[i - 1][j] > cells[i][j - 1] {
                i -= 1;
            } else {
                j -= 1;
            }
        }
        taken
    }

    #[test]
    fn a_bit_for_each_cell_leads_back_the_same_way_as_the_numbers() {
        for round in 0..3_000 {
            let word = |longest: usize| -> Vec<u8> {
                let length = crate::types::table::random_below(longest + 1);
                let letter = |_| b'a' + crate::types::table::random_below(3) as u8;
                (0..length).map(letter).collect()
            };
            let (a, b) = (word(5 + round % 40), word(30));
            let table = Table::new(&a, &b);
            let matches = table.matches();
            let back = |m: &Match| {
                let (a, b) = (m.a, m.b);
                (0..m.length).rev().map(move |i| (a + i, b + i))
            };
            let taken: Vec<_> = matches.iter().flat_map(back).collect();
            assert_eq!(taken, walk_through_numbers(&a, &b));
            assert_eq!(taken.len(), table.length);
        }
    }
}
