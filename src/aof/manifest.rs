//! The manifest: the files that together are the log.
//!
//! ```text
//! <dir>/appendonlydir/appendonly.aof.manifest       one line a file, in the order of replay
//!     file appendonly.aof.3.base.aof seq 3 type b   at most one base: the whole state
//!     file appendonly.aof.7.incr.aof seq 7 type i   incr files: what happened since
//!     file appendonly.aof.2.base.aof seq 2 type h   history: no longer needed, to be deleted
//! ```
//!
//! A file counts if the manifest names it. The manifest is replaced, never edited: a new one is written
//! under a temporary name and fsynced, the directory is fsynced, the new one is renamed over the old
//! one, and the directory is fsynced again. So after a power cut there is the old manifest or the new one.
//! The first fsync of the directory brings the names of the files to the disk before the manifest that
//! names them.
//!
//! Nothing is deleted that may be the only copy of something. Why does the manifest not name a file? A
//! rewrite was interrupted; or the file is data, and somebody has put an older manifest back. The server
//! cannot know. So the file stays, and the operator is told. Only three kinds of files are deleted: those
//! that the manifest calls history, those with temporary names, and empty ones.
//!
//! One flipped bit turns `i` into `h`, and history is deleted. So the last line is an annotation
//! (aof/checksum.rs), which Redis takes for a comment. A manifest needs none.
//!
//! **How Redis does it**: aof.c, `aofLoadManifestFromFile` and `persistAofManifest`. The format
//! and the names are the same, so either server starts on the other's directory. Redis too deletes only the
//! history. But it does not tell of files that the manifest does not name, and may overwrite them.

use super::checksum::{self, Annotate, Claim, Line, Stretch};
use super::disk::{self, Opening};
use crate::log;
use crate::resp::words::{quote, split_words};
use std::io::{self, Write};
use std::path::PathBuf;

/// While a base is being written its name begins with this, as in Redis.
pub const TEMPORARY_BASE: &str = "temp-rewriteaof-";

/// One file of the log, and one line of the manifest.
#[derive(Clone, PartialEq, Debug)]
pub struct LogFile {
    pub name: String,
    pub seq: u64,
}

/// Where the log is, and which files it has.
#[derive(Clone, PartialEq, Debug, Default)]
pub struct Manifest {
    /// `<dir>/<appenddirname>`.
    pub directory: PathBuf,
    /// `appendfilename`, with which all names begin.
    pub prefix: String,
    pub base: Option<LogFile>,
    /// Where the base is, if it has not been moved to the others yet.
    pub bare: Option<PathBuf>,
    /// In the order of replay.
    pub incrs: Vec<LogFile>,
    pub history: Vec<LogFile>,
}

impl Manifest {
    pub fn new(directory: PathBuf, prefix: &str) -> Manifest {
        Manifest { directory, prefix: prefix.into(), ..Manifest::default() }
    }

    pub fn path(&self) -> PathBuf {
        self.directory.join(format!("{}.manifest", self.prefix))
    }

    /// Reads the manifest, if there is one. The error names the file and the line.
    pub fn load(directory: PathBuf, prefix: &str) -> Result<Option<Manifest>, String> {
        let mut manifest = Manifest::new(directory, prefix);
        let path = manifest.path();
        let text = match disk::read_from(&path, 0) {
            Ok(text) => text,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(format!("cannot read {}: {error}", path.display())),
        };
        manifest.read(&text)?;
        Ok(Some(manifest))
    }

    fn read(&mut self, text: &[u8]) -> Result<(), String> {
        self.compare(text)?;
        let lines = text.strip_suffix(b"\n").unwrap_or(text);
        for (number, line) in lines.split(|&byte| byte == b'\n').enumerate() {
            if lines.is_empty() || line.starts_with(b"#") {
                continue;
            }
            self.add_line(line).map_err(|expected| {
                format!(
                    "{} line {}: expected {expected}, found `{}`",
                    self.path().display(),
                    number + 1,
                    String::from_utf8_lossy(line)
                )
            })?;
        }
        if self.is_empty() {
            // An empty log would lose what it has named.
            return Err(format!("{} names no file of a log", self.path().display()));
        }
        Ok(())
    }

    /// Compares each annotation with the lines before it.
    fn compare(&self, text: &[u8]) -> Result<(), String> {
        let mut open = Stretch::default();
        for line in text.split_inclusive(|&byte| byte == b'\n') {
            match checksum::read_line(line) {
                Line::Other => open.add(line),
                Line::Ours(written) if written == Claim::of(&open) => open = Stretch::default(),
                _ => {
                    return Err(format!(
                        "{} is damaged: its last line does not fit the lines before it. Restore it from a \
                         copy. (If you have changed it yourself, delete its last line.)",
                        self.path().display()
                    ));
                }
            }
        }
        Ok(())
    }

    /// Reads a line as Redis does: names and values in any order. Names that it does not know may come from
    /// a later server. The error is what was expected.
    fn add_line(&mut self, line: &[u8]) -> Result<(), &'static str> {
        let form = "`file NAME seq NUMBER type b|i|h`";
        let words = split_words(line).ok_or(form)?.into_iter();
        let words: Result<Vec<_>, _> = words.map(String::from_utf8).collect();
        let words = words.map_err(|_| form)?;
        let (mut name, mut seq, mut kind) = (None, None::<u64>, None);
        let mut pairs = words.chunks_exact(2);
        for pair in pairs.by_ref() {
            let value = &pair[1];
            match pair[0].to_ascii_lowercase().as_str() {
                "file" => name = Some(value.clone()),
                "seq" => seq = value.parse().ok(),
                "type" => kind = value.chars().next(),
                _ => {}
            }
        }
        // Redis's numbers are signed, and each must have a next one.
        let seq = seq.filter(|seq| (1..i64::MAX as u64).contains(seq));
        let (Some(name), Some(seq), Some(kind), []) = (name, seq, kind, pairs.remainder()) else {
            return Err(form);
        };
        // Otherwise a manifest could make us write or delete a file in another directory.
        if name.is_empty() || name.contains(['/', '\\']) {
            return Err("a name without a directory");
        }
        let last = self.incrs.last().map_or(0, |entry| entry.seq);
        let entry = LogFile { name, seq };
        match kind {
            'b' if self.base.is_none() => self.base = Some(entry),
            'i' if seq > last => self.incrs.push(entry),
            'h' => self.history.push(entry),
            'b' => return Err("one base, not two"),
            'i' => return Err("a higher seq than that of the incr file before it"),
            _ => return Err(form),
        }
        Ok(())
    }

    /// Replaces the manifest on disk by this one, durably.
    pub fn save(&self) -> io::Result<()> {
        self.prepare()?;
        self.put_in_place()?;
        disk::sync_directory(&self.directory)
    }

    /// The first half: writes it under a temporary name. The files that it names exist; from now on their
    /// names are on the disk.
    pub fn prepare(&self) -> io::Result<()> {
        let kinds = [(self.base.as_slice(), 'b'), (&self.history, 'h'), (&self.incrs, 'i')];
        let mut text = Vec::new();
        for (files, kind) in kinds {
            for LogFile { name, seq } in files {
                writeln!(text, "file {} seq {seq} type {kind}", quoted(name))?;
            }
        }
        checksum::cover(&mut Stretch::default(), &mut text, 0, Annotate::Now);
        let mut file = disk::open(&self.temporary(), Opening::Empty)?;
        file.write_all(&text)?;
        file.sync_all()?;
        disk::sync_directory(&self.directory)
    }

    /// The second half. It is durable when the directory has been fsynced. After an error the old manifest
    /// counts. (A network file system may report an error though the rename has worked.)
    pub fn put_in_place(&self) -> io::Result<()> {
        match disk::rename(self.temporary(), self.path()) {
            Err(_) if self.is_in_place() => Ok(()),
            result => result,
        }
    }

    /// Whether the manifest on disk is this one.
    pub fn is_in_place(&self) -> bool {
        let found = Manifest::load(self.directory.clone(), &self.prefix);
        found.is_ok_and(|found| found.as_ref() == Some(self))
    }

    pub fn temporary(&self) -> PathBuf {
        self.directory.join(format!("temp-{}.manifest", self.prefix))
    }

    /// The live files in the order of replay.
    pub fn live(&self) -> impl Iterator<Item = &LogFile> + Clone {
        self.base.iter().chain(&self.incrs)
    }

    /// Their paths.
    pub fn paths(&self) -> impl Iterator<Item = PathBuf> {
        self.live().map(|entry| self.path_of(entry))
    }

    /// The first of them that does not exist.
    pub fn missing(&self) -> Option<PathBuf> {
        self.paths().find(|path| !disk::exists(path))
    }

    /// Whether it names no file. No server writes such a manifest.
    pub fn is_empty(&self) -> bool {
        self.live().next().is_none()
    }

    pub fn path_of(&self, entry: &LogFile) -> PathBuf {
        match &self.bare {
            Some(bare) if self.base.as_ref() == Some(entry) => bare.clone(),
            _ => self.directory.join(&entry.name),
        }
    }

    /// The incr file that is to follow the last one. The manifest does not name it yet.
    pub fn next_incr(&self) -> LogFile {
        let last = self.incrs.iter().map(|entry| entry.seq).max();
        self.unused("incr.aof", last)
    }

    /// The next manifest: a new base, which is a snapshot or consists of commands, and all files of this one as
    /// history.
    pub fn after_rewrite(&self, is_snapshot: bool) -> Manifest {
        let last = self.base.as_ref().map(|entry| entry.seq);
        let kind = if is_snapshot { "base.rdb" } else { "base.aof" };
        Manifest {
            base: Some(self.unused(kind, last)),
            incrs: Vec::new(),
            history: self.history.iter().chain(self.live()).cloned().collect(),
            ..self.clone()
        }
    }

    /// The first name after number `last` that no file has. A file that the manifest does not name must not
    /// be overwritten.
    fn unused(&self, kind: &str, last: Option<u64>) -> LogFile {
        let named = |seq| LogFile { name: format!("{}.{seq}.{kind}", self.prefix), seq };
        let mut files = (last.unwrap_or(0) + 1..).map(named);
        let is_free = |file: &LogFile| !disk::exists(&self.directory.join(&file.name));
        files.find(is_free).expect("numbers do not end")
    }

    /// The files in the directory that may hold a part of a log, and that the manifest does not name.
    pub fn unlisted(&self) -> io::Result<Vec<String>> {
        let mut files = disk::list(&self.directory)?;
        files.retain(|(name, length)| *length > 0 && self.is_unlisted_part(name));
        Ok(files.into_iter().map(|(name, _)| name).collect())
    }

    fn is_unlisted_part(&self, name: &str) -> bool {
        let rest = name.strip_prefix(&self.prefix).and_then(|rest| rest.strip_prefix('.'));
        let is_part = rest.and_then(|rest| rest.split_once('.')).is_some_and(|(seq, kind)| {
            seq.bytes().all(|byte| byte.is_ascii_digit())
                && matches!(kind, "base.aof" | "incr.aof" | "base.rdb")
        });
        is_part && !self.is_live(name)
    }

    fn is_live(&self, name: &str) -> bool {
        self.live().any(|entry| entry.name == name)
    }

    /// Deletes the history, temporary files, and empty files that the manifest does not name. The manifest
    /// must be on the disk. If the disk refuses, the operator is told, and the log goes on.
    pub fn clean(&mut self) {
        if let Err(error) = self.delete() {
            log::warning(format_args!(
                "cannot delete the log's old files in {}: {error}. The next start tries it again",
                self.directory.display()
            ));
        }
    }

    fn delete(&mut self) -> io::Result<()> {
        for entry in self.history.iter().filter(|entry| !self.is_live(&entry.name)) {
            match disk::remove_file(self.path_of(entry)) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
                _ => {}
            }
        }
        for (name, length) in disk::list(&self.directory)? {
            let is_base = name.starts_with(TEMPORARY_BASE) && name.ends_with(".aof");
            let is_temporary = is_base || self.temporary().ends_with(&name);
            let is_empty = length == 0 && self.is_unlisted_part(&name);
            if is_empty || is_temporary && !self.is_live(&name) {
                disk::remove_file(self.directory.join(name))?;
            }
        }
        if !self.history.is_empty() {
            // They are deleted first, because the next manifest does not say that they may be.
            let cleaned = Manifest { history: Vec::new(), ..self.clone() };
            cleaned.save()?;
            *self = cleaned;
        }
        Ok(())
    }
}

/// The name as it stands in the manifest: in quotes only if it needs them.
pub(super) fn quoted(name: &str) -> String {
    let plain = |c: char| c.is_ascii_graphic() && !matches!(c, '"' | '\'' | '\\' | '#');
    if name.chars().all(plain) {
        return name.into();
    }
    let mut bytes = Vec::new();
    quote(name.as_bytes(), &mut bytes);
    String::from_utf8_lossy(&bytes).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Result<Manifest, String> {
        let mut manifest = Manifest::new("log".into(), "a");
        manifest.read(text.as_bytes()).map(|()| manifest)
    }

    /// redis-server agrees about each of these.
    #[test]
    fn a_manifest_says_names_and_values_in_any_order() {
        for text in [
            "file b seq 1 type b\nfile i seq 1 type i\n",
            "# a word to the reader\nfile b seq 1 type b\nfile i seq 1 type i\n",
            "TYPE b seq 01 FILE b\r\n  type incr file i seq 1 startoffset 0\n",
        ] {
            let manifest = read(text).unwrap();
            assert_eq!(manifest.base.unwrap().name, "b", "{text}");
            assert_eq!((manifest.incrs[0].seq, manifest.incrs.len()), (1, 1));
        }
        for (text, expected) in [
            ("file b seq 1\n", "line 1: expected `file NAME"),
            ("file b seq 0 type b\n", "line 1: expected `file NAME"),
            ("file b seq x type b\n", "line 1: expected `file NAME"),
            ("file b seq 1 type q\n", "line 1: expected `file NAME"),
            ("file b seq 1 type b odd\n", "line 1: expected `file NAME"),
            ("file b seq 1 type b\n\nfile i seq 1 type i\n", "line 2: expected `file NAME"),
            ("file ../b seq 1 type b\n", "line 1: expected a name without a directory"),
            ("file b seq 1 type b\nfile c seq 2 type b\n", "line 2: expected one base"),
            ("file i seq 2 type i\nfile j seq 2 type i\n", "line 2: expected a higher seq"),
            ("file i seq 9223372036854775807 type i\n", "line 1: expected `file NAME seq NUMBER"),
            ("", "names no file of a log"),
        ] {
            let error = read(text).unwrap_err();
            assert!(error.contains(expected), "{text}: {error}");
        }
    }

    #[test]
    fn a_name_of_any_characters_comes_back_from_the_manifest() {
        for name in ["plain.1.incr.aof", "with space", "line\nend", "quote\"s'", "\u{e9}"] {
            let line = format!("file {} seq 1 type i\n", quoted(name));
            assert_eq!(read(&line).unwrap().incrs[0].name, name);
        }
    }
}
