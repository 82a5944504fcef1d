//! All calls that the log makes to the file system. (`--check-aof` makes some more by std, to find the files
//! that an operator names.)
//!
//! ```text
//! aof.rs, manifest, load, repair, start, rewrite ──▶ disk ──▶ disk/real.rs        the kernel
//!                                                     └─────▶ disk/simulated.rs   in the tests of this crate
//! ```
//!
//! The two files have the same calls, and the log does not know which of them it uses. A simulated disk fails,
//! takes half a write, and loses at a power cut what was not fsynced, of files and of directories. The tests
//! in aof/power_cuts.rs start the log on what is left, some thousand times.
//!
//! **What an fsync promises.** After the fsync of a file its data is on the disk. Its *name* is on the disk
//! after the fsync of its directory: until then a power cut may undo that the file was created, renamed
//! or deleted. It may undo the earlier of two such changes and keep the later one. So if one change on the
//! disk needs another, fsync is called between the two.
//!
//! Some file systems can fsync no directory (SMB, sshfs, FUSE), or lock none. The log works without, and
//! tells the operator once. Every other error is an error.
//!
//! **How Redis does it**: `fsyncFileDir` in util.c ignores EBADF and EINVAL. Redis locks nothing, so two
//! servers in one directory destroy each other's log.

#[cfg(not(test))]
mod real;
#[cfg(test)]
pub mod simulated;

#[cfg(not(test))]
pub use real::{File, create_dir_all, length, list, open, read_at, remove_file, rename};
#[cfg(test)]
pub use simulated::{File, create_dir_all, length, list, open, read_at, remove_file, rename};
use std::collections::BTreeMap;
use std::fs::TryLockError;
use std::io::{self, Read, Seek, SeekFrom};
use std::path::Path;
use std::sync::Mutex;

/// What is to be done with a file.
#[derive(Clone, Copy, PartialEq)]
pub enum Opening {
    Read,
    /// Write at its end.
    Append,
    /// Write to a file that does not exist yet.
    New,
    /// Write to a file that is empty, or is made so.
    Empty,
}

/// A directory that is open: its fsync cannot fail because no descriptor is left.
pub struct Directory(File);

pub fn exists(path: &Path) -> bool {
    length(path).is_ok()
}

/// What the file holds from `offset` on.
pub fn read_from(path: &Path, offset: u64) -> io::Result<Vec<u8>> {
    let mut file = open(path, Opening::Read)?;
    file.seek(SeekFrom::Start(offset))?;
    let mut bytes = Vec::new();
    file.read_to_end(&mut bytes)?;
    Ok(bytes)
}

/// Brings new, renamed and deleted names in this directory to the disk.
pub fn sync_directory(directory: &Path) -> io::Result<()> {
    Directory::open(directory)?.sync()
}

impl Directory {
    pub fn open(path: &Path) -> io::Result<Directory> {
        open(path, Opening::Read).map(Directory)
    }

    /// Calls fsync. It is no failure if the file system has no fsync of directories: nothing can be done, and
    /// such a file system usually keeps their changes in order.
    pub fn sync(&self) -> io::Result<()> {
        match self.0.sync_all() {
            Err(error) if is_unable(&error) => {
                let text = format!(
                    "this file system cannot fsync a directory: {error}. After a power cut a start may find \
                     an older manifest, and not load what was written since. Put the log on another file system"
                );
                is_unable_to("fsync", text);
                Ok(())
            }
            result => result,
        }
    }

    /// Opens and locks the directory, until this is dropped or the process ends in whatever way. The error is
    /// for the operator. It is none if the file system has no locks.
    pub fn lock(path: &Path) -> Result<Directory, String> {
        let shown = path.display();
        let directory = Directory::open(path).map_err(|error| {
            format!("cannot open the directory {shown}: {error}. Name another with --dir")
        })?;
        match directory.0.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                return Err(format!(
                    "another server is using the directory {shown}. Stop it, or name another with --dir"
                ));
            }
            Err(TryLockError::Error(error)) => {
                let text = format!(
                    "cannot lock the directory {shown}: {error}. Make sure that no second server uses it, \
                     because this server cannot detect that"
                );
                is_unable_to("lock", text);
            }
        }
        Ok(directory)
    }
}

/// EBADF, EINVAL, ENOTSUP and ENOSYS: the file system does not have this call.
fn is_unable(error: &io::Error) -> bool {
    matches!(error.raw_os_error(), Some(9 | 22)) || error.kind() == io::ErrorKind::Unsupported
}

/// What the file system cannot do, by call, until the operator has been told. That happens once, and later,
/// because nothing is printed under a lock.
static UNABLE: Mutex<BTreeMap<&str, Option<String>>> = Mutex::new(BTreeMap::new());

fn is_unable_to(call: &'static str, text: String) {
    UNABLE.lock().unwrap().entry(call).or_insert(Some(text));
}

/// What the operator has not been told yet.
pub fn news() -> Vec<String> {
    UNABLE.lock().unwrap().values_mut().filter_map(Option::take).collect()
}

#[cfg(test)]
mod tests {
    use super::super::power_cuts::{config, keyspace, replay_all, start_on, write};
    use super::simulated::{Call, Disk, Fate};
    use super::*;
    use crate::store::Store;
    use std::io::Write;

    /// Each call of this kind fails with this error.
    fn failing(wanted: Call, errno: i32) -> std::rc::Rc<Disk> {
        let disk = Disk::new();
        disk.ask(move |call, _| match call == wanted {
            true => Fate::Fails(io::Error::from_raw_os_error(errno)),
            false => Fate::Works,
        });
        disk
    }

    const EIO: i32 = 5;
    const EBADF: i32 = 9;
    const EAGAIN: i32 = 11;
    const EINVAL: i32 = 22;
    const ENOLCK: i32 = 37;
    const ENOSYS: i32 = 38;
    const ENOTSUP: i32 = 95;

    #[test]
    fn a_file_system_that_cannot_fsync_or_lock_directories_is_told_once_and_serves() {
        let unable = [
            (Call::SyncDirectory, &[EINVAL, EBADF, ENOTSUP, ENOSYS][..]),
            (Call::Lock, &[ENOTSUP, ENOSYS, ENOLCK]),
        ];
        for (call, errors) in unable {
            for &errno in errors {
                let disk = failing(call, errno);
                let (aof, _) = start_on(&config(&disk, "always")).expect("a start");
                let store = Store::new(keyspace(&Default::default()));
                for serial in 0..3 {
                    write(&aof, &[&format!("SET key {serial}")]);
                    let rewritten = aof.rewrite(None, &store, &replay_all);
                    assert_eq!((rewritten, aof.failure()), (Ok(()), None));
                }
                assert_eq!(aof.sync_all(), Ok(()));
                drop(aof);
                let (_, contents) = start_on(&config(&disk, "always")).expect("a start");
                assert_eq!(contents["key"], "2");
            }
            let told = news();
            assert_eq!(told.len(), 1, "{told:?}");
        }
        assert_eq!(news(), [""; 0]);
    }

    #[test]
    fn a_directory_whose_fsync_fails_or_that_another_has_locked_is_refused() {
        for (call, errno, expected) in [
            (Call::SyncDirectory, EIO, "cannot write to "),
            (Call::Lock, EAGAIN, "another server is using the directory"),
        ] {
            let disk = failing(call, errno);
            let error = start_on(&config(&disk, "always")).err().expect("a refusal");
            assert!(error.contains(expected), "{error}");
        }
    }

    /// The disk is full: it takes no new file either.
    #[test]
    fn a_torn_tail_that_cannot_be_kept_is_cut_all_the_same() {
        let disk = Disk::new();
        let (aof, _) = start_on(&config(&disk, "always")).expect("a start");
        write(&aof, &["SET key 1"]);
        drop(aof);
        let path = disk.root.join("appendonlydir/appendonly.aof.1.incr.aof");
        let whole = length(&path).expect("a file");
        let mut file = open(&path, Opening::Append).expect("a file");
        file.write_all(b"*3\r\n$3\r\nSET\r\n$1").expect("room");
        disk.ask(|call, _| match call {
            Call::Create | Call::Write => Fate::Fails(io::ErrorKind::StorageFull.into()),
            _ => Fate::Works,
        });
        let (aof, contents) = start_on(&config(&disk, "always")).expect("a start");
        assert_eq!(contents["key"], "1");
        assert_eq!(length(&path).ok(), Some(whole));
        disk.ask_nobody();
        write(&aof, &["SET key 2"]);
    }
}
