//! The few calls that the log makes of the file system, all of them. (`--check-aof`, which finds files as an
//! operator names them, asks std for some more.)
//!
//! ```text
//! aof.rs, manifest, load, repair, start, rewrite ──▶ disk ──▶ the kernel
//!                                                     └────▶ a simulated disk, in tests: disk/simulated.rs
//! ```
//!
//! The simulated disk is mounted at a path, as any other is: a path below `/simulated` leads there, and the
//! log does not know. It fails, stops short, and loses at a power cut what was not fsynced, directories
//! included: aof/power_cuts.rs starts the log on what is left, some thousand times.
//!
//! What a power cut may take is what these calls do not promise. The data of a file is on the disk after
//! its fsync, and its *name* only after that of its directory: a file that is new, renamed or deleted is
//! not so until then, and the disk may keep the later of two such changes and lose the earlier one. So
//! whoever lets one thing follow from another on the disk calls fsync between the two.
//!
//! Some file systems cannot do everything. Where a directory cannot be fsynced (SMB, sshfs, FUSE) that is
//! forgiven, and where none can be locked too; the operator is told once. Every other error is an error.
//!
//! **How Redis does it**: `fsyncFileDir` in util.c forgives EBADF and EINVAL. It locks nothing, and two
//! servers in one directory destroy each other's log.

use std::fs::{self, OpenOptions};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};

/// An open file or directory.
pub enum File {
    Real(fs::File),
    #[cfg(test)]
    Simulated(simulated::Handle),
}

/// For what a file is opened.
#[derive(Clone, Copy, PartialEq)]
pub enum Opening {
    Read,
    /// To write at its end.
    Append,
    /// The same; it must not exist yet.
    New,
    /// To be written from its beginning; what was in it is gone.
    Empty,
}

pub struct Metadata {
    pub length: u64,
    pub is_file: bool,
}

/// One file of a directory.
pub struct Listed {
    pub name: String,
    pub path: PathBuf,
    pub metadata: Metadata,
}

/// A directory that is open, so that nothing but fsync itself can fail when it is to be fsynced.
pub struct Directory(File);

/// Does with the simulated disk at this path what is to be done there, if there is one.
macro_rules! simulate {
    ($path:expr, $disk:ident => $work:expr) => {
        #[cfg(test)]
        if let Some($disk) = simulated::at($path) {
            return $work;
        }
    };
}

pub fn open(path: &Path, opening: Opening) -> io::Result<File> {
    simulate!(path, disk => disk.open(path, opening).map(File::Simulated));
    let mut options = OpenOptions::new();
    match opening {
        Opening::Read => options.read(true),
        Opening::Append => options.append(true),
        Opening::New => options.append(true).create_new(true),
        Opening::Empty => options.write(true).create(true).truncate(true),
    };
    options.open(path).map(File::Real)
}

pub fn rename(from: &Path, to: &Path) -> io::Result<()> {
    simulate!(from, disk => disk.rename(from, to));
    fs::rename(from, to)
}

pub fn remove_file(path: &Path) -> io::Result<()> {
    simulate!(path, disk => disk.remove_file(path));
    fs::remove_file(path)
}

/// Makes the directory and those around it, where they are not there.
pub fn create_directory(path: &Path) -> io::Result<()> {
    simulate!(path, disk => disk.create_directory(path));
    fs::create_dir_all(path)
}

pub fn metadata(path: &Path) -> io::Result<Metadata> {
    simulate!(path, disk => disk.metadata(path));
    fs::metadata(path).map(Metadata::from)
}

pub fn exists(path: &Path) -> bool {
    metadata(path).is_ok()
}

/// The length of the file, 0 if there is none.
pub fn length(path: &Path) -> u64 {
    metadata(path).map_or(0, |metadata| metadata.length)
}

pub fn read(path: &Path) -> io::Result<Vec<u8>> {
    read_from(path, 0)
}

/// What the file holds from `offset` on.
pub fn read_from(path: &Path, offset: u64) -> io::Result<Vec<u8>> {
    let mut file = open(path, Opening::Read)?;
    file.seek(SeekFrom::Start(offset))?;
    let mut bytes = Vec::new();
    file.read_to_end(&mut bytes)?;
    Ok(bytes)
}

/// What is in the directory.
pub fn list(directory: &Path) -> io::Result<Vec<Listed>> {
    simulate!(directory, disk => disk.list(directory));
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

/// A rename or a new file is on the disk only when its directory is.
pub fn sync_directory(directory: &Path) -> io::Result<()> {
    Directory::open(directory)?.sync()
}

impl Directory {
    pub fn open(path: &Path) -> io::Result<Directory> {
        open(path, Opening::Read).map(Directory)
    }

    /// Calls fsync. That the file system knows no fsync of directories is no failure: nothing can be done
    /// about it, and it usually keeps their changes in order.
    pub fn sync(&self) -> io::Result<()> {
        match self.0.sync_all() {
            Err(error) if is_unable(&error) => {
                NO_DIRECTORY_SYNC.note(format!(
                    "this file system cannot fsync a directory: {error}. After a power cut an older list \
                     of the log's files may count, and what was written since is not loaded"
                ));
                Ok(())
            }
            result => result,
        }
    }

    /// Locks the directory until this is dropped, however the process ends; false if another has the lock.
    /// Where the file system has no locks there is nothing to wait for.
    pub fn lock(&self, path: &Path) -> bool {
        match self.0.try_lock() {
            Err(fs::TryLockError::WouldBlock) => return false,
            Err(fs::TryLockError::Error(error)) => NO_LOCK.note(format!(
                "cannot lock the directory {}: {error}. See to it that no second server uses it, because \
                 this one could not tell",
                path.display()
            )),
            Ok(()) => {}
        }
        true
    }
}

/// EBADF, EINVAL, ENOTSUP and ENOSYS: that it cannot be done at all, not that it has failed.
fn is_unable(error: &io::Error) -> bool {
    matches!(error.raw_os_error(), Some(9 | 22)) || error.kind() == io::ErrorKind::Unsupported
}

/// What this file system cannot do, to be told once. It may be found out under locks, where nothing may be
/// printed.
struct Inability {
    is_known: AtomicBool,
    untold: Mutex<Option<String>>,
}

static NO_DIRECTORY_SYNC: Inability = Inability::new();
static NO_LOCK: Inability = Inability::new();

impl Inability {
    const fn new() -> Inability {
        Inability { is_known: AtomicBool::new(false), untold: Mutex::new(None) }
    }

    fn note(&self, text: String) {
        if !self.is_known.swap(true, Ordering::Relaxed) {
            *self.untold.lock().unwrap() = Some(text);
        }
    }
}

/// What the operator has yet to be told of the file system.
pub fn news() -> impl Iterator<Item = String> {
    let each = [&NO_DIRECTORY_SYNC, &NO_LOCK].into_iter();
    each.filter_map(|inability| inability.untold.lock().unwrap().take())
}

impl File {
    pub fn sync_data(&self) -> io::Result<()> {
        match self {
            File::Real(file) => file.sync_data(),
            #[cfg(test)]
            File::Simulated(file) => file.sync(),
        }
    }

    pub fn sync_all(&self) -> io::Result<()> {
        match self {
            File::Real(file) => file.sync_all(),
            #[cfg(test)]
            File::Simulated(file) => file.sync(),
        }
    }

    pub fn set_len(&self, length: u64) -> io::Result<()> {
        match self {
            File::Real(file) => file.set_len(length),
            #[cfg(test)]
            File::Simulated(file) => file.set_len(length),
        }
    }

    pub fn metadata(&self) -> io::Result<Metadata> {
        match self {
            File::Real(file) => file.metadata().map(Metadata::from),
            #[cfg(test)]
            File::Simulated(file) => file.metadata(),
        }
    }

    fn try_lock(&self) -> Result<(), fs::TryLockError> {
        match self {
            File::Real(file) => file.try_lock(),
            #[cfg(test)]
            File::Simulated(file) => file.try_lock(),
        }
    }
}

impl Write for &File {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match self {
            File::Real(file) => (&*file).write(bytes),
            #[cfg(test)]
            File::Simulated(file) => file.write(bytes),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Read for File {
    fn read(&mut self, bytes: &mut [u8]) -> io::Result<usize> {
        match self {
            File::Real(file) => file.read(bytes),
            #[cfg(test)]
            File::Simulated(file) => file.read(bytes),
        }
    }
}

impl Write for File {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        (&*self).write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Seek for File {
    fn seek(&mut self, to: SeekFrom) -> io::Result<u64> {
        match self {
            File::Real(file) => file.seek(to),
            #[cfg(test)]
            File::Simulated(file) => file.seek(to),
        }
    }
}

impl From<fs::Metadata> for Metadata {
    fn from(metadata: fs::Metadata) -> Metadata {
        Metadata { length: metadata.len(), is_file: metadata.is_file() }
    }
}

#[cfg(test)]
pub mod simulated;

#[cfg(test)]
mod tests {
    use super::super::power_cuts::{config, hush, keyspace, record, replay_all, start_on};
    use super::simulated::{Call, Disk, Fate};
    use super::*;
    use std::sync::RwLock;

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
        hush();
        let unable = [
            (Call::SyncDirectory, &[EINVAL, EBADF, ENOTSUP, ENOSYS][..]),
            (Call::Lock, &[ENOTSUP, ENOSYS, ENOLCK]),
        ];
        for (call, errors) in unable {
            for &errno in errors {
                let disk = failing(call, errno);
                let (aof, _) = start_on(&config(&disk, "always")).expect("a start");
                let store = RwLock::new(keyspace(&Default::default()));
                for serial in 0..3 {
                    aof.append(&mut record(b"key", serial));
                    assert_eq!(aof.commit(aof.position()), Ok(()));
                    let rewritten = aof.rewrite(None, &store, &replay_all);
                    assert_eq!((rewritten, aof.refusal()), (Ok(()), None));
                }
                assert_eq!(aof.sync_all(), Ok(()));
                drop(aof);
                let (_, contents) = start_on(&config(&disk, "always")).expect("a start");
                assert_eq!(contents[&b"key"[..]], 2);
            }
            let told: Vec<String> = news().collect();
            assert_eq!(told.len(), 1, "{told:?}");
        }
        assert_eq!(news().next(), None);
    }

    #[test]
    fn a_directory_whose_fsync_fails_or_that_another_has_locked_is_refused() {
        hush();
        for (call, errno, expected) in [
            (Call::SyncDirectory, EIO, "cannot write to "),
            (Call::Lock, EAGAIN, "another server is using the directory"),
        ] {
            let disk = failing(call, errno);
            let error = start_on(&config(&disk, "always")).err().expect("a refusal");
            assert!(error.contains(expected), "{error}");
        }
    }

    /// The disk takes no new file, and has room for nothing.
    #[test]
    fn a_torn_tail_that_cannot_be_kept_is_cut_all_the_same() {
        hush();
        let disk = Disk::new();
        let (aof, _) = start_on(&config(&disk, "always")).expect("a start");
        aof.append(&mut record(b"key", 1));
        aof.commit(aof.position()).expect("a disk that works");
        drop(aof);
        let path = disk.root.join("appendonlydir/appendonly.aof.1.incr.aof");
        let whole = length(&path);
        let mut file = open(&path, Opening::Append).expect("a file");
        file.write_all(b"*3\r\n$3\r\nSET\r\n$1").expect("room");
        disk.ask(|call, _| match call {
            Call::Create | Call::Write => Fate::Fails(io::ErrorKind::StorageFull.into()),
            _ => Fate::Works,
        });
        let (aof, contents) = start_on(&config(&disk, "always")).expect("a start");
        assert_eq!(contents[&b"key"[..]], 1);
        assert_eq!(length(&path), whole);
        disk.ask_nobody();
        aof.append(&mut record(b"key", 2));
        assert_eq!(aof.commit(aof.position()), Ok(()));
    }
}
