//! Torn tails and damage: which end of a broken log is cut, what is refused, and `--check-aof`.
//!
//! A server that dies inside a write leaves a record cut off at the end of the last file. A power cut may
//! leave zeros there, because the file system had made room. This is a *torn tail*. Nobody was told `OK`
//! for it, so a start cuts it. Everything else that cannot be read is *damage*: acknowledged data is
//! broken. No start guesses what it was: it refuses, and says where and why.
//!
//! ```text
//! ... good record | good record | *3 $3 SET $1 k $100 abcdef⏎          end of the last file
//!                               └── the tail: from the first record that cannot be read
//! 1. it ends too early, as above                → torn  } unless a whole record begins inside it, from
//! 2. the same without the zeros at its end      → torn  } which the file can be read to its end. Then
//! 3. not longer than aof-load-corrupt-tail-…    → torn  } a length is wrong: a cut would lose that record
//! 4. else                                       → damage
//! ```
//!
//! A MULTI without EXEC is torn as a whole, from the MULTI on. What an annotation covers was whole once, so
//! it is never a tail (aof/checksum.rs). A file before the last one is never cut, because the files after
//! it build upon it. With `aof-load-truncated no` a start cuts nothing.
//!
//! The cut bytes are kept beside the file. If no copy can be written, because the disk is full, a start
//! cuts anyway, and prints how the bytes began.
//!
//! `simple-redis --check-aof DIRECTORY|FILE [--fix]` shows what is in a log, and where it is broken. The
//! replay does the looking (load.rs) but runs nothing, so what is valid here is what a start replays:
//!
//! ```text
//! data/appendonlydir/appendonly.aof.1.incr.aof: 80 bytes, 2 commands, damaged at offset 54
//!   the record at 54 is cut off. There it says
//!     *3\r\n$3\r\nSET\r\n$1\r\nk\r\n$5\r\nva
//!   --fix would cut 26 bytes, and keep them as appendonly.aof.1.incr.aof.tail-at-54
//! ```
//!
//! `--fix` is for an operator who has looked. It cuts the last file at the first broken unit, torn or
//! damaged, but never without a copy, because acknowledged data may be in it.
//!
//! **How Redis does it**: aof.c, `loadSingleAppendOnlyFile`, cuts whatever ends too early, even if one flipped
//! bit in a length hides thousands of good records. It leaves an open MULTI in the file, and refuses zeros
//! (7.0; 8.4 can cut them). redis-check-aof.c asks for `y`. Both keep no copy.

use super::disk::{self, Opening};
use super::load::{self, Replay, Stop, read_record};
use super::manifest::Manifest;
use super::{Aof, start};
use crate::log;
use crate::resp::{Args, Error};
use std::collections::HashSet;
use std::fmt::Write as _;
use std::fs;
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

/// What is added to every message about a file that cannot be replayed.
const WHAT_TO_DO: &str =
    "Make a copy of the directory, then look with `simple-redis --check-aof DIRECTORY`";

/// So many bytes of a tail are shown.
const SHOWN: usize = 200;

impl Aof {
    /// Cuts the tail at which a start's replay stopped, if it is torn and the configuration allows it. The
    /// error is for the operator.
    pub(super) fn cut_tail(&self, path: &Path, stop: &Stop, is_last: bool) -> Result<(), String> {
        let file = path.display();
        let offset = match stop {
            Stop::Torn { offset, .. } | Stop::Corrupt { offset, .. } => *offset,
            Stop::Unsupported { offset, reason } => {
                return Err(format!("{reason} at offset {offset} of {file}"));
            }
            Stop::Changed { from, to, reason } => {
                return Err(format!(
                    "{file} is damaged between offset {from} and {to}: {reason}. {WHAT_TO_DO}"
                ));
            }
            Stop::Unreadable(error) => return Err(format!("cannot read {file}: {error}")),
        };
        let most_garbage = self.config.aof_load_corrupt_tail_max_size.get() as u64;
        let verdict = match judge_tail(path, stop, most_garbage) {
            Ok(_) if !is_last => {
                Err("it ends inside a record, and it is not the last file of the log".into())
            }
            verdict => verdict,
        };
        let tail = verdict.map_err(|reason| {
            format!("{file} is damaged at offset {offset}: {reason}. {WHAT_TO_DO}")
        })?;
        if !self.config.aof_load_truncated.get() {
            return Err(format!(
                "{file} is torn at offset {offset}, and aof-load-truncated is no. Start with \
                 `--aof-load-truncated yes` to cut {} bytes, or use `--check-aof --fix`",
                tail.len()
            ));
        }
        // Without a copy too: nobody was told OK for the tail, and on a full disk no start would succeed.
        let kept = match keep(path, offset, &tail) {
            Ok(kept) => format!("it is kept as {}", kept.display()),
            Err(error) => {
                let (shown, dots) = excerpt(&tail);
                format!("it is lost, because {error}. It began with {shown}{dots}")
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

/// The files of a log from this index on may be torn: the last one that holds anything, and the empty ones
/// after it. (A kill between the two halves of a rewrite's switch leaves an empty one.)
pub fn first_that_may_be_torn(files: &[PathBuf]) -> usize {
    let holds_anything = |path: &PathBuf| disk::length(path) > 0;
    files.iter().rposition(holds_anything).unwrap_or(0)
}

/// Judges the bytes from where a replay stopped, by the list in the chapter. Returns the tail if it is
/// torn; the error says why it is damage.
fn judge_tail(path: &Path, stop: &Stop, most_garbage: u64) -> Result<Vec<u8>, String> {
    let (Stop::Torn { offset, reason, .. } | Stop::Corrupt { offset, reason, .. }) = stop else {
        return Err(stop.reason().into());
    };
    let tail = disk::read_from(path, *offset).map_err(|error| error.to_string())?;
    let zeros = tail.iter().rev().take_while(|&&byte| byte == 0).count();
    let written = &tail[..tail.len() - zeros];
    let garbage = matches!(stop, Stop::Corrupt { .. }) && !ends_too_early(written);
    if garbage && tail.len() as u64 > most_garbage {
        return Err(reason.clone());
    }
    match whole_record_in(written) {
        Err(()) => Err(format!(
            "{reason}; and what follows looks like records in too many ways to be judged. If it is no \
             loss, `--check-aof --fix` cuts it"
        )),
        Ok(Some(at)) => Err(format!(
            "{reason}; but from {} on there are whole records up to the end of the file, so this \
             is no torn tail: a length before them is damaged",
            *offset + at as u64
        )),
        Ok(None) => Ok(tail),
    }
}

/// Whether the bytes are records of which the last is cut off, or nothing at all.
fn ends_too_early(mut bytes: &[u8]) -> bool {
    let mut args = Args::default();
    loop {
        match read_record(&mut bytes, &mut args) {
            Ok(true) => {}
            Ok(false) | Err(Error::Cut) => return true,
            Err(_) => return false,
        }
    }
}

/// A tail of any length may be read again and again until so many bytes were read: about a second's work.
const MOST_READ: usize = 1 << 30;

/// A long tail may be read so many times. Only a tail made on purpose needs more.
const MOST_TIMES: usize = 64;

/// Where in the tail, after its first broken record, a record begins from which on all records are whole.
/// An error if finding out takes more than [`MOST_READ`] and [`MOST_TIMES`] allow.
fn whole_record_in(tail: &[u8]) -> Result<Option<usize>, ()> {
    let mut args = Args::default();
    // The records of an open MULTI are whole, but they are torn with it.
    let (mut broken, mut rest) = (tail, tail);
    while let Ok(true) = read_record(&mut rest, &mut args) {
        broken = rest;
    }
    let start = tail.len() - broken.len() + 1;
    let begins = |at: &usize| tail[*at] == b'*' && tail[*at - 1] == b'\n';
    // Where records begin from which the file cannot be read to its end. Reading from one place passes
    // many later ones, so each is tried once.
    let mut in_vain = HashSet::new();
    let mut may_read = MOST_READ.max(MOST_TIMES * tail.len());
    for at in (start..tail.len()).filter(begins) {
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
fn keep(path: &Path, offset: u64, tail: &[u8]) -> Result<PathBuf, String> {
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
fn cut(path: &Path, offset: u64) -> Result<(), String> {
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
fn excerpt(bytes: &[u8]) -> (impl std::fmt::Display, &'static str) {
    let shown = &bytes[..bytes.len().min(SHOWN)];
    let dots = if bytes.len() > SHOWN { "…" } else { "" };
    (shown.escape_ascii(), dots)
}

/// The name of the copy, which no earlier copy has.
fn kept_as(path: &Path, offset: u64) -> PathBuf {
    let named = |number: String| {
        let mut name = path.as_os_str().to_owned();
        name.push(format!(".tail-at-{offset}{number}"));
        PathBuf::from(name)
    };
    let mut kept = named(String::new());
    let mut copies = 0;
    while disk::exists(&kept) {
        copies += 1;
        kept = named(format!(".{copies}"));
    }
    kept
}

/// Runs `--check-aof`; with `fix` it repairs. `can_replay` says whether this server has the commands. The
/// exit status is 0 if all is valid now, and 1 if something is damaged, unreadable, or no command of ours.
pub fn check(path: &Path, fix: bool, can_replay: &mut Replay) -> ExitCode {
    let mut report = String::new();
    let verdict = match check_log(path, fix, can_replay, &mut report) {
        Ok(true) => "valid".into(),
        Ok(false) => "damaged".into(),
        Err(error) => format!("simple-redis: {error}"),
    };
    // A closed pipe takes the text with it, not the verdict.
    let _ = writeln!(io::stdout(), "{report}{verdict}");
    match verdict.as_str() {
        "valid" => ExitCode::SUCCESS,
        _ => ExitCode::FAILURE,
    }
}

/// Checks all files; returns whether they are valid now.
fn check_log(
    path: &Path,
    fix: bool,
    can_replay: &mut Replay,
    report: &mut String,
) -> Result<bool, String> {
    let (files, data) = find(path)?;
    let lock = start::lock_directory(&data);
    match &lock {
        Err(error) if fix => return Err(error.clone()),
        Err(error) => note(report, format_args!("Its end may be in the making: {error}")),
        Ok(_) => {}
    }
    let first = first_that_may_be_torn(&files);
    let mut all_valid = true;
    for (index, file) in files.iter().enumerate() {
        all_valid &= check_file(file, index >= first, fix, can_replay, report)?;
    }
    Ok(all_valid)
}

/// The files of the log in the order of replay, and the directory that a server would lock.
fn find(path: &Path) -> Result<(Vec<PathBuf>, PathBuf), String> {
    let shown = path.display();
    let metadata = fs::metadata(path).map_err(|error| format!("cannot read {shown}: {error}"))?;
    // So that there is a directory around it, even if it is given as `.`.
    let path = fs::canonicalize(path).map_err(|error| format!("cannot read {shown}: {error}"))?;
    let around = |path: &Path| path.parent().unwrap_or(path).to_path_buf();
    let manifest = if metadata.is_file() && is_manifest(&path) {
        Some(path.clone())
    } else if metadata.is_file() {
        let directory = around(&path);
        let data = match manifest_in(&directory)? {
            Some(_) => around(&directory),
            None => directory,
        };
        return Ok((vec![path], data));
    } else {
        match manifest_in(&path)? {
            Some(manifest) => Some(manifest),
            None => manifest_in(&path.join("appendonlydir"))?,
        }
    };
    let bare = path.join("appendonly.aof");
    match manifest {
        Some(manifest) => {
            let directory = around(&manifest);
            let prefix = manifest.file_stem().unwrap_or_default().to_string_lossy();
            let loaded = Manifest::load(directory.clone(), &prefix)?
                .ok_or_else(|| format!("{} is gone", manifest.display()))?;
            let files = loaded.live().map(|entry| loaded.path_of(entry)).collect();
            Ok((files, around(&directory)))
        }
        None if bare.exists() => Ok((vec![bare], path)),
        None => Err(format!("there is no append-only file in {shown}")),
    }
}

fn manifest_in(directory: &Path) -> Result<Option<PathBuf>, String> {
    let Ok(files) = fs::read_dir(directory) else {
        return Ok(None);
    };
    let paths = files.flatten().map(|file| file.path());
    let mut manifests: Vec<PathBuf> = paths.filter(|path| is_manifest(path)).collect();
    match manifests.len() {
        0 | 1 => Ok(manifests.pop()),
        _ => Err(format!("{} has several manifests: name one of them", directory.display())),
    }
}

fn is_manifest(path: &Path) -> bool {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    name.ends_with(".manifest") && !name.starts_with("temp-")
}

/// Checks one file, and cuts it if that is allowed; returns whether it is valid now. Long because each way
/// in which a file can be wrong has its own words.
fn check_file(
    path: &Path,
    is_last: bool,
    fix: bool,
    can_replay: &mut Replay,
    report: &mut String,
) -> Result<bool, String> {
    let shown = path.display();
    let unreadable = |error: io::Error| format!("cannot read {shown}: {error}");
    let size = fs::metadata(path).map_err(unreadable)?.len();
    let (extent, result) = load::replay(path, !is_last, can_replay, &mut |_| {});
    let line = format!("{shown}: {size} bytes, {} commands", extent.commands);
    let Err(stop) = result else {
        note(report, format_args!("{line}, valid"));
        return Ok(true);
    };
    let (offset, record) = match &stop {
        Stop::Torn { offset, record, .. } | Stop::Corrupt { offset, record, .. } => {
            (*offset, *record)
        }
        Stop::Changed { from, .. } => (*from, *from),
        Stop::Unreadable(error) => return Err(format!("cannot read {shown}: {error}")),
        Stop::Unsupported { offset, reason } => {
            note(report, format_args!("{line}, then"));
            note(report, format_args!("  {reason} at offset {offset} of {shown}"));
            return Ok(false);
        }
    };
    let place = match &stop {
        Stop::Changed { from, to, .. } => format!("between offset {from} and {to}"),
        _ => format!("at offset {offset}"),
    };
    note(report, format_args!("{line}, damaged {place}"));
    let tail = disk::read_from(path, offset).map_err(unreadable)?;
    // A running server may have made the file shorter meanwhile.
    let broken = tail.get((record - offset) as usize..).unwrap_or_default();
    describe(path, &stop, broken, report);
    let count = tail.len();
    if !is_last {
        let why = "the files after it build upon it. Restore it from a copy";
        note(report, format_args!("  --fix would not cut it, for {why}"));
        return Ok(false);
    }
    if !fix {
        let kept = kept_as(path, offset);
        let kept = kept.file_name().unwrap_or_default().display();
        note(report, format_args!("  --fix would cut {count} bytes, and keep them as {kept}"));
        return Ok(false);
    }
    // Never without a copy: what is cut here, unlike at a start, may have been acknowledged.
    let kept = keep(path, offset, &tail).map_err(|error| {
        format!(
            "cannot cut {shown} at {offset}, because {error}. Make room for the {count} bytes, or take them \
             away yourself: `truncate -s {offset} FILE`"
        )
    })?;
    cut(path, offset)?;
    let kept = kept.display();
    note(report, format_args!("  cut {count} bytes, kept as {kept}"));
    Ok(true)
}

/// Reports what is wrong, and the bytes from the first broken record on.
fn describe(path: &Path, stop: &Stop, broken: &[u8], report: &mut String) {
    // If it is no torn tail, the judge knows more than the replay.
    let judged = judge_tail(path, stop, u64::MAX);
    let reason = judged.err().unwrap_or_else(|| stop.reason().into());
    note(report, format_args!("  {reason}. There it says"));
    let (text, dots) = excerpt(broken);
    note(report, format_args!("    {text}{dots}"));
}

fn note(report: &mut String, line: std::fmt::Arguments) {
    // Writing to a String cannot fail.
    let _ = writeln!(report, "{line}");
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The process was killed in the middle of a value that a client had made for this. Each of its lengths
    /// seems to reach to the end.
    #[test]
    fn a_tail_that_could_be_read_in_too_many_ways_is_not_judged() {
        let tail = |count: usize| {
            let word = format!("\n*1\r\n${}\r\n", 10 * count);
            [b"*1\r\n$536870912\r\n", word.repeat(count).as_bytes()].concat()
        };
        assert_eq!(whole_record_in(&tail(10)), Ok(None));
        assert_eq!(whole_record_in(&tail(100_000)), Err(()));
    }
}
