//! The calls of [`super`], by std.

use super::Opening;
use std::fs::{self, OpenOptions};
pub use std::fs::{File, create_dir_all, remove_file, rename};
use std::io;
use std::path::Path;

pub fn open(path: &Path, opening: Opening) -> io::Result<File> {
    let mut options = OpenOptions::new();
    match opening {
        Opening::Read => options.read(true),
        Opening::Append => options.append(true),
        Opening::New => options.append(true).create_new(true),
        Opening::Empty => options.write(true).create(true).truncate(true),
    };
    options.open(path)
}

/// Reads from `offset` on, and leaves the place alone at which others read.
pub fn read_at(file: &File, into: &mut [u8], offset: u64) -> io::Result<usize> {
    std::os::unix::fs::FileExt::read_at(file, into, offset)
}

pub fn length(path: &Path) -> io::Result<u64> {
    fs::metadata(path).map(|metadata| metadata.len())
}

/// The files in the directory, with their lengths. A name that is no text is none of the log's.
pub fn list(directory: &Path) -> io::Result<Vec<(String, u64)>> {
    let mut files = Vec::new();
    for entry in fs::read_dir(directory)? {
        let entry = entry?;
        let metadata = entry.metadata()?;
        if let (true, Ok(name)) = (metadata.is_file(), entry.file_name().into_string()) {
            files.push((name, metadata.len()));
        }
    }
    Ok(files)
}
