//! `include`: one file, or all files that match a pattern.
//!
//! ```text
//! include /etc/redis/conf.d/*.conf     each of them, in the order of their names, or none
//! include /etc/redis/local.conf        the file must exist
//! ```
//!
//! **How Redis does it**: `loadServerConfig` in config.c, with the C library's `glob`. std has none, so each
//! part of the path is matched as Redis matches keys (glob.rs). As in a shell, a star does not match a name
//! that begins with a dot.

use crate::glob;
use std::ffi::OsStr;
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

/// The files that match an absolute path with `*`, `?` or `[` in it. A path without these is returned as it
/// is, even if no such file exists.
pub fn files(path: &Path) -> Vec<PathBuf> {
    let is_pattern = |part: &OsStr| part.as_bytes().iter().any(|byte| b"*?[".contains(byte));
    if !is_pattern(path.as_os_str()) {
        return vec![path.to_path_buf()];
    }
    let mut found = vec![PathBuf::new()];
    for part in path.iter() {
        found = match is_pattern(part) {
            true => found.iter().flat_map(|dir| matching(dir, part)).collect(),
            false => found.iter().map(|dir| dir.join(part)).collect(),
        };
    }
    found.retain(|path| path.exists());
    found.sort();
    found
}

/// The entries of a directory that match. None if it cannot be read.
fn matching(dir: &Path, pattern: &OsStr) -> Vec<PathBuf> {
    let mut pattern = pattern.as_bytes().to_vec();
    // A shell writes `[!a]` for `[^a]`.
    for at in 1..pattern.len() {
        if &pattern[at - 1..=at] == b"[!" {
            pattern[at] = b'^';
        }
    }
    let matches = |name: &[u8]| {
        glob::matches(&pattern, name, false) && (pattern[0] == b'.' || name[0] != b'.')
    };
    let entries = fs::read_dir(dir).into_iter().flatten().flatten();
    let names = entries.map(|entry| entry.file_name());
    let names = names.filter(|name| matches(name.as_bytes()));
    names.map(|name| dir.join(name)).collect()
}
