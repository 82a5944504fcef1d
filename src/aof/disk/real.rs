//! The calls of [`super`], by std.

use super::{Listed, Metadata, Opening};
pub use std::fs::File;
use std::fs::{self, OpenOptions};
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

pub fn rename(from: &Path, to: &Path) -> io::Result<()> {
    fs::rename(from, to)
}

pub fn remove_file(path: &Path) -> io::Result<()> {
    fs::remove_file(path)
}

/// Makes the directory and those around it, if they do not exist.
pub fn create_directory(path: &Path) -> io::Result<()> {
    fs::create_dir_all(path)
}

pub fn metadata(path: &Path) -> io::Result<Metadata> {
    fs::metadata(path).map(Metadata::from)
}

/// What is in the directory.
pub fn list(directory: &Path) -> io::Result<Vec<Listed>> {
    let listed = |file: io::Result<fs::DirEntry>| {
        let file = file?;
        Ok(Listed {
            name: file.file_name().to_string_lossy().into_owned(),
            path: file.path(),
            metadata: file.metadata()?.into(),
        })
    };
    fs::read_dir(directory)?.map(listed).collect()
}

impl From<fs::Metadata> for Metadata {
    fn from(metadata: fs::Metadata) -> Metadata {
        Metadata { length: metadata.len(), is_file: metadata.is_file() }
    }
}
