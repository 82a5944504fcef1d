//! Torn tails and damage: which end of a broken log is cut, and what is refused.
//!
//! A server that dies inside a write leaves a record cut off at the end of the last file. A power cut may
//! leave zeros there, because the file system had made room. This is a *torn tail*. Nobody was told `OK`
//! for it, so a start cuts it. Everything else that cannot be read is *damage*: acknowledged data may be
//! broken. A start does not guess what it was. It refuses, and says where and why.
//!
//! ```text
//! ... good record | good record | *3 $3 SET $1 k $100 abcdef⏎          end of the last file
//!                               └── the tail: from the first record that cannot be read
//! 1. it ends too early, as above                → torn  } unless a whole record begins inside it, from
//! 2. the same without the zeros at its end      → torn  } which the file can be read to its end. Then
//! 3. not longer than aof-load-corrupt-tail-…    → torn  } a length is wrong: a cut would lose that record
//! 4. anything else                              → damage
//! ```
//!
//! A MULTI without EXEC is torn as a whole, from the MULTI on. An annotation says that the bytes before it
//! were whole once, so they are never a tail (aof/checksum.rs). Only the last file is cut, because the files
//! after another one build upon it. With `aof-load-truncated no` a start cuts nothing.
//!
//! The cut bytes are kept beside the file. If no copy can be written, because the disk is full, a start
//! cuts all the same, and prints the first of the bytes.
//!
//! **A page lost in the middle.** The kernel writes pages in any order. So a power cut may take a page of
//! what was not fsynced, and leave a later one, with whole records in it. A start refuses this as damage.
//! It would have to know that no fsync had covered the page, and the file cannot tell: that an fsync has
//! ended can only be recorded by a later write, and the power cut may take this write too. So such a page
//! may be one that nobody relied on, or acknowledged data that broke later on the disk. Only the operator
//! knows whether the power failed. `--check-aof --fix` then cuts there (aof/check.rs).
//!
//! **How Redis does it**: aof.c, `loadSingleAppendOnlyFile`, cuts whatever ends too early, even if one flipped
//! bit in a length hides thousands of good records. It leaves an open MULTI in the file, and refuses zeros
//! (7.0; 8.4 can cut them). It keeps no copy.

use super::Aof;
use super::disk::{self, Opening};
use super::load::{Stop, Why, read_record};
use crate::log;
use crate::resp::{Args, Error};
use std::collections::HashSet;
use std::io::Write as _;
use std::path::{Path, PathBuf};

/// The end of each message about damage.
const WHAT_TO_DO: &str =
    "Make a copy of the directory, then run `simple-redis --check-aof DIRECTORY`";

/// Bytes of a tail that are shown.
const SHOWN: usize = 200;

impl Aof {
    /// Cuts the tail at which a start's replay stopped, if it is torn and the configuration allows it. The
    /// error is for the operator.
    pub(super) fn cut_tail(&self, path: &Path, stop: &Stop, is_last: bool) -> Result<(), String> {
        let file = path.display();
        let damaged =
            |reason| format!("{file} is damaged {}: {reason}. {WHAT_TO_DO}", stop.place());
        let (offset, reason) = (stop.offset, &stop.reason);
        match stop.why {
            Why::Broken { .. } | Why::Changed { .. } => {}
            Why::Unsupported => return Err(format!("{reason} at offset {offset} of {file}")),
            Why::Unreadable => return Err(format!("cannot read {file}: {reason}")),
        }
        let most_garbage = self.config.aof_load_corrupt_tail_max_size.get() as u64;
        let tail = judge_tail(path, stop, most_garbage).map_err(damaged)?;
        if !is_last {
            return Err(damaged(
                "it ends inside a record, and it is not the last file of the log".into(),
            ));
        }
        if !self.config.aof_load_truncated.get() {
            return Err(format!(
                "{file} is torn at offset {offset}, and aof-load-truncated is no. Start with \
                 `--aof-load-truncated yes` to cut {} bytes, or use `--check-aof --fix`",
                tail.len()
            ));
        }
        // Also without a copy. Nobody was told OK for the tail, and on a full disk no start would work.
        let kept = match keep(path, offset, &tail) {
            Ok(kept) => format!("it is kept as {}", kept.display()),
            Err(error) => {
                format!("it is lost, because {error}. It began with {}", excerpt(&tail))
            }
        };
        cut(path, offset)?;
        log::warning(format_args!(
            "{file}: cut a torn tail of {} bytes at offset {offset}; {kept}",
            tail.len()
        ));
        Ok(())
    }
}

/// The files from this index on may be torn: the last one that holds anything, and the empty ones behind
/// it. (A kill in the middle of a rewrite's switch leaves an empty one.)
pub fn first_that_may_be_torn(files: &[PathBuf]) -> usize {
    let holds_anything = |path: &PathBuf| disk::length(path).is_ok_and(|length| length > 0);
    files.iter().rposition(holds_anything).unwrap_or(0)
}

/// Judges the bytes from where a replay stopped, by the list in the chapter. Returns the tail if it is
/// torn; the error says why it is damage.
pub(super) fn judge_tail(path: &Path, stop: &Stop, most_garbage: u64) -> Result<Vec<u8>, String> {
    let Stop { why, offset, reason } = stop;
    let Why::Broken { ends_early, .. } = why else {
        return Err(reason.clone());
    };
    let tail = disk::read_from(path, *offset).map_err(|error| error.to_string())?;
    let zeros = tail.iter().rev().take_while(|&&byte| byte == 0).count();
    let written = &tail[..tail.len() - zeros];
    let (broken, ends_inside) = first_broken(written);
    let garbage = !ends_early && !ends_inside;
    if garbage && tail.len() as u64 > most_garbage {
        return Err(reason.clone());
    }
    match whole_record_behind(written, broken) {
        Err(()) => Err(format!(
            "{reason}; and what follows can be read as records in too many ways to be judged. If you do \
             not need it, `--check-aof --fix` cuts it"
        )),
        Ok(Some(at)) => Err(format!(
            "{reason}; but from {} on there are whole records up to the end of the file, so this \
             is no torn tail. A length before them is damaged, or a power cut has taken a page",
            *offset + at as u64
        )),
        Ok(None) => Ok(tail),
    }
}

/// Where the first record begins that cannot be read, and whether the bytes end inside it or there is none. (The
/// records of an open MULTI can be read, but belong to the tail.)
fn first_broken(tail: &[u8]) -> (usize, bool) {
    let mut args = Args::default();
    let mut rest = tail;
    loop {
        let broken = tail.len() - rest.len();
        match read_record(&mut rest, &mut args) {
            Ok(true) => {}
            Ok(false) | Err(Error::Cut) => return (broken, true),
            Err(_) => return (broken, false),
        }
    }
}

/// To judge a tail, this many bytes may be read, which takes about a second.
const MOST_READ: usize = 1 << 30;

/// A long tail may be read this many times. Only a tail that was made on purpose needs more.
const MOST_TIMES: usize = 64;

/// Where in the tail, behind the beginning of its `broken` record, a record begins from which on all are whole.
/// An error if the search takes more than [`MOST_READ`] and [`MOST_TIMES`] allow.
fn whole_record_behind(tail: &[u8], broken: usize) -> Result<Option<usize>, ()> {
    let mut args = Args::default();
    let begins = |at: &usize| tail[*at] == b'*' && tail[*at - 1] == b'\n';
    // Places from which the file cannot be read to its end. Each is tried once, because reading from one
    // passes many later ones.
    let mut in_vain = HashSet::new();
    let mut may_read = MOST_READ.max(MOST_TIMES * tail.len());
    for at in (broken + 1..tail.len()).filter(begins) {
        let mut rest = &tail[at..];
        while in_vain.insert(tail.len() - rest.len()) {
            let before = rest.len();
            let more = read_record(&mut rest, &mut args);
            may_read = may_read.checked_sub(before - rest.len()).ok_or(())?;
            match more {
                Ok(true) => {}
                Ok(false) => return Ok(Some(at)),
                Err(_) => break,
            }
        }
    }
    Ok(None)
}

/// Copies the bytes that are to be cut at `offset` to a file beside the log's; returns its path.
pub(super) fn keep(path: &Path, offset: u64, tail: &[u8]) -> Result<PathBuf, String> {
    let kept = kept_as(path, offset);
    let copied = disk::open(&kept, Opening::New).and_then(|mut copy| {
        copy.write_all(tail)?;
        copy.sync_all()?;
        // The copy must be on the disk before the original is cut.
        disk::sync_directory(path.parent().unwrap_or(Path::new(".")))
    });
    copied.map_err(|error| {
        let _ = disk::remove_file(&kept);
        format!("{} cannot be written: {error}", kept.display())
    })?;
    Ok(kept)
}

/// Cuts the file at `offset`.
pub(super) fn cut(path: &Path, offset: u64) -> Result<(), String> {
    let cut = || {
        let file = disk::open(path, Opening::Append)?;
        file.set_len(offset)?;
        file.sync_all()
    };
    cut().map_err(|error: std::io::Error| {
        format!("cannot cut {} at {offset}: {error}", path.display())
    })
}

/// The beginning of these bytes in printable form, and dots if there are more.
pub(super) fn excerpt(bytes: &[u8]) -> String {
    let shown = bytes[..bytes.len().min(SHOWN)].escape_ascii();
    format!("{shown}{}", if bytes.len() > SHOWN { "…" } else { "" })
}

/// The name of the copy, which no earlier copy has.
pub(super) fn kept_as(path: &Path, offset: u64) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(format!(".tail-at-{offset}"));
    for copies in 1.. {
        if !disk::exists(name.as_ref()) {
            break;
        }
        name = path.as_os_str().to_owned();
        name.push(format!(".tail-at-{offset}.{copies}"));
    }
    name.into()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A client has made a value for this, and the process was killed in the middle of it. Each of its
    /// lengths seems to reach to the end.
    #[test]
    fn a_tail_that_could_be_read_in_too_many_ways_is_not_judged() {
        let tail = |count: usize| {
            let word = format!("\n*1\r\n${}\r\n", 10 * count);
            [b"*1\r\n$536870912\r\n", word.repeat(count).as_bytes()].concat()
        };
        assert_eq!(whole_record_behind(&tail(10), 0), Ok(None));
        assert_eq!(whole_record_behind(&tail(100_000), 0), Err(()));
    }
}
