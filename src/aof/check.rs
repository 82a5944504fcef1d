//! `simple-redis --check-aof DIRECTORY|FILE [--fix]`: what is in a log, and where it is broken.
//!
//! ```text
//! data/appendonlydir/appendonly.aof.1.base.aof: 312 bytes, 7 commands, valid
//! data/appendonlydir/appendonly.aof.1.incr.aof: 80 bytes, 2 commands, damaged at offset 54
//!   the record at 54 is cut off. There it says
//!     *3\r\n$3\r\nSET\r\n$1\r\nk\r\n$5\r\nva
//!   --fix would cut 26 bytes, and keep them as appendonly.aof.1.incr.aof.tail-at-54
//! damaged
//! ```
//!
//! The exit status is 0 if all is valid, or was made so, and 1 if something is damaged, or cannot
//! be read, or holds a command that this server does not have. It is the replay that looks
//! (load.rs), with a callback that runs nothing: so what is valid here is what a start accepts.
//!
//! A start cuts a tail only if it can tell that nothing acknowledged is in it. `--fix` is somebody
//! who has looked, and cuts at the first broken unit of the last file whatever follows; the bytes
//! are kept beside the file. An earlier file is never cut: those after it build upon it.
//!
//! **How Redis does it**: redis-check-aof.c, which asks for `y` and keeps nothing.

use super::load::{self, Replay, Stop};
use super::manifest::Manifest;
use super::start;
use std::fmt::Write as _;
use std::fs;
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

/// Checks, tells, and with `fix` repairs. `can_replay` says whether commands are ours.
pub fn run(path: &Path, fix: bool, can_replay: &mut Replay) -> ExitCode {
    let mut report = String::new();
    let verdict = match check(path, fix, can_replay, &mut report) {
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

/// Whether all is valid, or is so now.
fn check(
    path: &Path,
    fix: bool,
    can_replay: &mut Replay,
    report: &mut String,
) -> Result<bool, String> {
    let (files, data) = find(path)?;
    let lock = start::lock_directory(&data);
    match &lock {
        Err(error) if fix => return Err(error.clone()),
        Err(error) => note(
            report,
            format_args!("Its end may be in the making: {error}"),
        ),
        Ok(_) => {}
    }
    let length = |file: &PathBuf| fs::metadata(file).map_or(0, |metadata| metadata.len());
    let last = files.iter().rposition(|file| length(file) > 0);
    let mut all_valid = true;
    for (index, file) in files.iter().enumerate() {
        let is_last = last.is_none_or(|last| index >= last);
        all_valid &= check_file(file, is_last, fix, can_replay, report)?;
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
        _ => Err(format!(
            "{} has several manifests: name one of them",
            directory.display()
        )),
    }
}

fn is_manifest(path: &Path) -> bool {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    name.ends_with(".manifest") && !name.starts_with("temp-")
}

/// Checks one file, and cuts it if it may be; returns whether it is valid now. Long because each
/// way in which a file can be wrong is told in words of its own.
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
            note(
                report,
                format_args!("  {reason} at offset {offset} of {shown}"),
            );
            return Ok(false);
        }
    };
    let place = match &stop {
        Stop::Changed { from, to, .. } => format!("between offset {from} and {to}"),
        _ => format!("at offset {offset}"),
    };
    note(report, format_args!("{line}, damaged {place}"));
    let tail = load::read_from(path, offset).map_err(unreadable)?;
    // Under a running server the file may have become shorter meanwhile.
    let broken = tail.get((record - offset) as usize..).unwrap_or_default();
    describe(path, &stop, broken, report);
    let count = tail.len();
    if !is_last {
        let why = "the files after it build upon it. Restore it from a copy";
        note(report, format_args!("  --fix would not cut it, for {why}"));
        return Ok(false);
    }
    if !fix {
        let kept = start::kept_as(path, offset);
        let kept = kept.file_name().unwrap_or_default().display();
        note(
            report,
            format_args!("  --fix would cut {count} bytes, and keep them as {kept}"),
        );
        return Ok(false);
    }
    // Unlike a start's, what this cuts may have been acknowledged: not without a copy.
    let kept = start::keep(path, offset, &tail).map_err(|error| {
        format!(
            "cannot cut {shown} at {offset}, because {error}. Make room for the {count} bytes, or take them \
             away yourself: `truncate -s {offset} FILE`"
        )
    })?;
    start::cut(path, offset)?;
    let kept = kept.display();
    note(report, format_args!("  cut {count} bytes, kept as {kept}"));
    Ok(true)
}

/// Says what is wrong, and shows the bytes from the first broken record on.
fn describe(path: &Path, stop: &Stop, broken: &[u8], report: &mut String) {
    let reason = match (load::judge_tail(path, stop, u64::MAX), stop) {
        // It has looked into what follows.
        (Err(reason), _) => reason,
        (Ok(_), Stop::Torn { reason, .. } | Stop::Corrupt { reason, .. }) => reason.clone(),
        (Ok(_), _) => String::new(),
    };
    note(report, format_args!("  {reason}. There it says"));
    let (text, dots) = start::excerpt(broken);
    note(report, format_args!("    {text}{dots}"));
}

fn note(report: &mut String, line: std::fmt::Arguments) {
    // Writing to a String cannot fail.
    let _ = writeln!(report, "{line}");
}
