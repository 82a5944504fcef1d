//! `simple-redis --check-aof DIRECTORY|FILE [--fix]`: what is in a log, and where it is broken.
//!
//! It replays the log (load.rs) but runs nothing, so a log is valid here if a start can replay it:
//!
//! ```text
//! data/appendonlydir/appendonly.aof.1.incr.aof: 80 bytes, 2 commands, damaged at offset 54
//!   the record at 54 is cut off. There it says
//!     *3\r\n$3\r\nSET\r\n$1\r\nk\r\n$5\r\nva
//!   --fix would cut 26 bytes, and keep them as appendonly.aof.1.incr.aof.tail-at-54
//! ```
//!
//! `--fix` is for an operator who has read this. It cuts the last file at the first broken unit, torn or
//! damaged, but never without a copy, because acknowledged data may be in it.
//!
//! **How Redis does it**: redis-check-aof.c. It asks for `y`, cuts, and keeps no copy.

use super::disk;
use super::load::{self, Replay, Why};
use super::manifest::Manifest;
use super::repair::{cut, excerpt, first_that_may_be_torn, judge_tail, keep, kept_as};
use std::fmt::Write as _;
use std::fs;
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

/// Runs `--check-aof`; with `fix` it repairs. `can_replay` says whether this server has the commands. The
/// exit status is 0 if all is valid now, and 1 if something is damaged, unreadable, or no command of ours.
pub fn check(path: &Path, fix: bool, can_replay: &mut Replay) -> ExitCode {
    let mut report = String::new();
    let verdict = match check_log(path, fix, can_replay, &mut report) {
        Ok(true) => "valid".into(),
        Ok(false) => "damaged".into(),
        Err(error) => format!("simple-redis: {error}"),
    };
    // If nobody reads the text, the verdict still counts.
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
    let lock = disk::Directory::lock(&data);
    match &lock {
        Err(error) if fix => return Err(error.clone()),
        Err(error) => note(report, format_args!("A server may be writing to its end: {error}")),
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
    // So that even `.` has a directory around it.
    let path = fs::canonicalize(path).map_err(|error| format!("cannot read {shown}: {error}"))?;
    let around = |path: &Path| path.parent().unwrap_or(path).to_path_buf();
    let manifest = if !path.is_file() {
        match manifest_in(&path)? {
            None => manifest_in(&path.join("appendonlydir"))?,
            found => found,
        }
    } else if is_manifest(&path) {
        Some(path.clone())
    } else {
        let directory = around(&path);
        let is_in_log = manifest_in(&directory)?.is_some();
        let data = if is_in_log { around(&directory) } else { directory };
        return Ok((vec![path], data));
    };
    let bare = path.join("appendonly.aof");
    match manifest {
        Some(manifest) => {
            let directory = around(&manifest);
            let prefix = manifest.file_stem().unwrap_or_default().to_string_lossy();
            let loaded = Manifest::load(directory.clone(), &prefix)?
                .ok_or_else(|| format!("{} is gone", manifest.display()))?;
            Ok((loaded.paths().collect(), around(&directory)))
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
/// to be wrong has its own words.
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
    let (offset, reason) = (stop.offset, &stop.reason);
    let record = match stop.why {
        Why::Broken { record, .. } => record,
        Why::Changed { .. } => offset,
        Why::Unreadable => return Err(format!("cannot read {shown}: {reason}")),
        Why::Unsupported => {
            note(report, format_args!("{line}, then"));
            note(report, format_args!("  {reason} at offset {offset} of {shown}"));
            return Ok(false);
        }
    };
    note(report, format_args!("{line}, damaged {}", stop.place()));
    let tail = disk::read_from(path, offset).map_err(unreadable)?;
    // A running server may have made the file shorter meanwhile.
    let broken = tail.get((record - offset) as usize..).unwrap_or_default();
    let judged = judge_tail(path, &stop, u64::MAX);
    // If it is no torn tail, the judge knows the reason better than the replay.
    let reason = judged.as_ref().err().unwrap_or(reason);
    note(report, format_args!("  {reason}. There it says"));
    note(report, format_args!("    {}", excerpt(broken)));
    let count = tail.len();
    if !is_last {
        let why = "the files after it build upon it. Restore it from a copy";
        note(report, format_args!("  --fix would not cut it, because {why}"));
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

fn note(report: &mut String, line: std::fmt::Arguments) {
    // Writing to a String cannot fail.
    let _ = writeln!(report, "{line}");
}
