//! A disk for tests. A power cut takes what was not fsynced, and calls fail when a test wants it.
//!
//! ```text
//! /simulated/3/appendonlydir/appendonly.aof.1.incr.aof      on disk 3 of this thread
//!
//! a file        what a reader sees; what was fsynced; each change since then
//! a directory   the same, of its names; a rename is one change of two names, even across directories
//!
//! a power cut   keeps any of the changes of names, in their order
//!               keeps the first changes of a file, perhaps only half of the last of these; behind them
//!               zeros, where the file had become longer and its pages had not arrived
//! ```
//!
//! The fsync of a new file does not bring its name to the disk, and the fsync of a directory brings no
//! data. POSIX allows this; ext4 does not do it.
//!
//! Before each call the disk calls its *hook*. The hook may let the call fail, shorten a write, or do what
//! other threads would do at this moment. So whatever happens at the same time in the server happens here
//! in one thread, between any two calls, and the same seed repeats it.
//!
//! Only with `holes` does a power cut take a page in the middle of what one file has got, and keep later
//! ones. A start refuses that as damage if records follow (aof/repair.rs).

use super::Opening;
use std::cell::RefCell;
use std::collections::BTreeMap;
use std::fs;
use std::io::{self, ErrorKind, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::sync::Mutex;

/// What is about to be done.
#[derive(Clone, Copy, PartialEq, Debug)]
pub enum Call {
    Open,
    Create,
    Write,
    SetLength,
    SyncFile,
    SyncDirectory,
    Rename,
    Remove,
    CreateDirectory,
    Lock,
}

/// What becomes of a call.
pub enum Fate {
    Works,
    Fails(io::Error),
    /// It works, and says that it has failed: a rename on a network may.
    SaysItFailed(io::Error),
    /// Of a write this many bytes are taken.
    Short(usize),
}

type Hook = Box<dyn FnMut(Call, &Path) -> Fate>;

thread_local! {
    static DISKS: RefCell<Vec<Rc<Disk>>> = const { RefCell::new(Vec::new()) };
}

/// One disk, mounted at `root`.
pub struct Disk {
    pub root: PathBuf,
    state: RefCell<State>,
    hook: RefCell<Option<Hook>>,
}

/// What is on the disk, and what is not there yet.
#[derive(Clone)]
pub struct State {
    /// Number 0 is the root. No number is used twice.
    inodes: Vec<Inode>,
    /// Changes of names that no fsync has brought to the disk.
    renames: Vec<Vec<Name>>,
}

/// In this directory, this name leads to this inode from now on, or to none.
#[derive(Clone)]
struct Name {
    directory: usize,
    name: String,
    leads_to: Option<usize>,
}

#[derive(Clone)]
enum Inode {
    File { bytes: Vec<u8>, synced: Vec<u8>, changes: Vec<Change> },
    Directory { names: BTreeMap<String, usize>, synced: BTreeMap<String, usize> },
}

#[derive(Clone)]
enum Change {
    Append(Vec<u8>),
    Length(usize),
}

/// The disk on which the path is.
fn at(path: &Path) -> Rc<Disk> {
    let number = path.iter().nth(2).and_then(|number| number.to_str()?.parse::<usize>().ok());
    DISKS.with_borrow(|disks| disks[number.expect("a path on a simulated disk")].clone())
}

pub fn open(path: &Path, opening: Opening) -> io::Result<File> {
    let disk = at(path);
    let call = match opening {
        Opening::Read | Opening::Append => Call::Open,
        Opening::New | Opening::Empty => Call::Create,
    };
    disk.may(call, path)?;
    let mut state = disk.state.borrow_mut();
    let inode = match (state.find(path), opening) {
        (Ok(_), Opening::New) => return Err(ErrorKind::AlreadyExists.into()),
        (Err(_), Opening::New | Opening::Empty) => state.create(path, Inode::file())?,
        (found, _) => found?,
    };
    match (&mut state.inodes[inode], opening) {
        (Inode::Directory { .. }, Opening::Read) => {}
        (Inode::Directory { .. }, _) => return Err(ErrorKind::IsADirectory.into()),
        (file, Opening::Empty) => file.set_length(0),
        _ => {}
    }
    Ok(File { inode, path: path.into(), at: Mutex::default() })
}

pub fn rename(from: impl AsRef<Path>, to: impl AsRef<Path>) -> io::Result<()> {
    let (from, to) = (from.as_ref(), to.as_ref());
    let disk = at(from);
    let fate = disk.fate(Call::Rename, to);
    if let Fate::Fails(error) = fate {
        return Err(error);
    }
    let mut state = disk.state.borrow_mut();
    let inode = state.find(from)?;
    let change = vec![state.name(from, None)?, state.name(to, Some(inode))?];
    state.change(change);
    match fate {
        Fate::SaysItFailed(error) => Err(error),
        _ => Ok(()),
    }
}

pub fn remove_file(path: impl AsRef<Path>) -> io::Result<()> {
    let path = path.as_ref();
    let disk = at(path);
    disk.may(Call::Remove, path)?;
    let mut state = disk.state.borrow_mut();
    state.find(path)?;
    let change = vec![state.name(path, None)?];
    state.change(change);
    Ok(())
}

pub fn create_dir_all(path: impl AsRef<Path>) -> io::Result<()> {
    let path = path.as_ref();
    let disk = at(path);
    disk.may(Call::CreateDirectory, path)?;
    let mut state = disk.state.borrow_mut();
    match state.find(path) {
        Ok(_) => Ok(()),
        Err(_) => state.create(path, Inode::directory()).map(drop),
    }
}

pub fn read_at(file: &File, into: &mut [u8], offset: u64) -> io::Result<usize> {
    let mut again =
        File { inode: file.inode, path: file.path.clone(), at: Mutex::new(offset as usize) };
    again.read(into)
}

pub fn length(path: &Path) -> io::Result<u64> {
    let disk = at(path);
    let state = disk.state.borrow();
    Ok(state.inodes[state.find(path)?].length().unwrap_or(0))
}

pub fn list(directory: &Path) -> io::Result<Vec<(String, u64)>> {
    let disk = at(directory);
    let state = disk.state.borrow();
    let Inode::Directory { names, .. } = &state.inodes[state.find(directory)?] else {
        return Err(ErrorKind::NotADirectory.into());
    };
    let file =
        |(name, &inode): (&String, &usize)| Some((name.clone(), state.inodes[inode].length()?));
    Ok(names.iter().filter_map(file).collect())
}

impl Disk {
    /// Mounts an empty disk.
    pub fn new() -> Rc<Disk> {
        DISKS.with_borrow_mut(|disks| {
            let root = format!("/simulated/{}", disks.len()).into();
            let state = State { inodes: vec![Inode::directory()], renames: Vec::new() };
            let disk = Rc::new(Disk { root, state: state.into(), hook: RefCell::default() });
            disks.push(disk.clone());
            disk
        })
    }

    /// What a power cut at this moment may leave. `below(n)` chooses a number less than n.
    pub fn after_power_cut(&self, below: &mut dyn FnMut(usize) -> usize, holes: bool) -> State {
        let mut left = self.as_it_is();
        // Of three cuts, one loses no change of a name, one half of them, and one all; the same for each file.
        let keep = below(3);
        let mut renames = std::mem::take(&mut left.renames);
        renames.retain(|_| below(2) < keep);
        left.arrive(renames);
        for inode in &mut left.inodes {
            inode.lose(below, holes);
        }
        left
    }

    /// What a process finds that starts now.
    pub fn as_it_is(&self) -> State {
        self.state.borrow().clone()
    }

    /// Replaces what is on the disk.
    pub fn put(&self, state: State) {
        *self.state.borrow_mut() = state;
    }

    /// From now on each call asks the hook first, but not the calls that the hook makes.
    pub fn ask(&self, hook: impl FnMut(Call, &Path) -> Fate + 'static) {
        *self.hook.borrow_mut() = Some(Box::new(hook));
    }

    pub fn ask_nobody(&self) {
        *self.hook.borrow_mut() = None;
    }

    fn fate(&self, call: Call, path: &Path) -> Fate {
        let Some(mut hook) = self.hook.borrow_mut().take() else {
            return Fate::Works;
        };
        let fate = hook(call, path);
        self.hook.borrow_mut().get_or_insert(hook);
        fate
    }

    fn may(&self, call: Call, path: &Path) -> io::Result<()> {
        match self.fate(call, path) {
            Fate::Fails(error) | Fate::SaysItFailed(error) => Err(error),
            Fate::Works | Fate::Short(_) => Ok(()),
        }
    }
}

impl State {
    fn find(&self, path: &Path) -> io::Result<usize> {
        // The names behind `/simulated/3`.
        let found = path.iter().skip(3).try_fold(0, |inode, name| match &self.inodes[inode] {
            Inode::Directory { names, .. } => names.get(name.to_str()?).copied(),
            Inode::File { .. } => None,
        });
        found.ok_or(ErrorKind::NotFound.into())
    }

    /// The change that makes the path lead there.
    fn name(&self, path: &Path, leads_to: Option<usize>) -> io::Result<Name> {
        let directory = self.find(path.parent().expect("a directory"))?;
        let name = path.file_name().and_then(|name| name.to_str()).expect("a name").into();
        Ok(Name { directory, name, leads_to })
    }

    fn create(&mut self, path: &Path, inode: Inode) -> io::Result<usize> {
        let number = self.inodes.len();
        let name = self.name(path, Some(number))?;
        self.inodes.push(inode);
        self.change(vec![name]);
        Ok(number)
    }

    fn change(&mut self, change: Vec<Name>) {
        for name in &change {
            if let Inode::Directory { names, .. } = &mut self.inodes[name.directory] {
                name.apply(names);
            }
        }
        self.renames.push(change);
    }

    fn sync(&mut self, inode: usize) {
        if let Inode::File { bytes, synced, changes } = &mut self.inodes[inode] {
            synced.clone_from(bytes);
            return changes.clear();
        }
        let touches = |change: &mut Vec<Name>| change.iter().any(|name| name.directory == inode);
        let arrived = self.renames.extract_if(.., touches).collect();
        self.arrive(arrived);
    }

    fn arrive(&mut self, changes: Vec<Vec<Name>>) {
        for name in changes.iter().flatten() {
            if let Inode::Directory { synced, .. } = &mut self.inodes[name.directory] {
                name.apply(synced);
            }
        }
    }
}

impl Name {
    fn apply(&self, names: &mut BTreeMap<String, usize>) {
        match self.leads_to {
            Some(inode) => drop(names.insert(self.name.clone(), inode)),
            None => drop(names.remove(&self.name)),
        }
    }
}

/// Bytes in a page of a file. It is small, because the files are.
const PAGE: usize = 64;

impl Inode {
    fn file() -> Inode {
        Inode::File { bytes: Vec::new(), synced: Vec::new(), changes: Vec::new() }
    }

    fn directory() -> Inode {
        Inode::Directory { names: BTreeMap::new(), synced: BTreeMap::new() }
    }

    /// Of a file; a directory has none.
    fn length(&self) -> Option<u64> {
        match self {
            Inode::File { bytes, .. } => Some(bytes.len() as u64),
            Inode::Directory { .. } => None,
        }
    }

    fn set_length(&mut self, length: usize) {
        if let Inode::File { bytes, changes, .. } = self {
            bytes.resize(length, 0);
            changes.push(Change::Length(length));
        }
    }

    /// Loses what has not been fsynced: all of it, nothing, or something in between.
    fn lose(&mut self, below: &mut dyn FnMut(usize) -> usize, holes: bool) {
        let (bytes, synced, changes) = match self {
            Inode::Directory { names, synced } => return names.clone_from(synced),
            Inode::File { bytes, synced, changes } => (bytes, synced, changes),
        };
        if changes.is_empty() {
            return;
        }
        let (longest, keep) = (bytes.len(), below(3));
        let mut left = synced.clone();
        let count = match keep {
            0 => 0,
            1 => below(changes.len() + 1),
            _ => changes.len(),
        };
        for (index, change) in changes.drain(..).take(count).enumerate() {
            match change {
                Change::Length(length) => left.resize(length, 0),
                Change::Append(new) if index + 1 == count && keep == 1 => {
                    left.extend_from_slice(&new[..below(new.len() + 1)]);
                }
                Change::Append(new) => left.extend_from_slice(&new),
            }
        }
        if holes && left.len() > synced.len() {
            let page = (synced.len() + below(left.len() - synced.len())) / PAGE * PAGE;
            let end = left.len().min(page + PAGE);
            left[page.max(synced.len())..end].fill(0);
        }
        if longest > left.len() && below(3) == 0 {
            left.resize(left.len() + below(longest - left.len() + 1), 0);
        }
        synced.clone_from(&left);
        *bytes = left;
    }
}

/// An open file.
pub struct File {
    inode: usize,
    path: PathBuf,
    /// Where the next read begins.
    at: Mutex<usize>,
}

impl File {
    pub fn sync_all(&self) -> io::Result<()> {
        let disk = at(&self.path);
        let is_file = disk.state.borrow().inodes[self.inode].length().is_some();
        let call = if is_file { Call::SyncFile } else { Call::SyncDirectory };
        disk.may(call, &self.path)?;
        disk.state.borrow_mut().sync(self.inode);
        Ok(())
    }

    pub fn sync_data(&self) -> io::Result<()> {
        self.sync_all()
    }

    pub fn set_len(&self, length: u64) -> io::Result<()> {
        let disk = at(&self.path);
        disk.may(Call::SetLength, &self.path)?;
        disk.state.borrow_mut().inodes[self.inode].set_length(length as usize);
        Ok(())
    }

    pub fn try_lock(&self) -> Result<(), fs::TryLockError> {
        let fate = at(&self.path).may(Call::Lock, &self.path);
        fate.map_err(|error| match error.kind() {
            ErrorKind::WouldBlock => fs::TryLockError::WouldBlock,
            _ => fs::TryLockError::Error(error),
        })
    }
}

impl Write for &File {
    fn write(&mut self, new: &[u8]) -> io::Result<usize> {
        let disk = at(&self.path);
        let count = match disk.fate(Call::Write, &self.path) {
            Fate::Works => new.len(),
            Fate::Short(count) => new.len().min(count),
            Fate::Fails(error) | Fate::SaysItFailed(error) => return Err(error),
        };
        let mut state = disk.state.borrow_mut();
        let Inode::File { bytes, changes, .. } = &mut state.inodes[self.inode] else {
            return Err(ErrorKind::IsADirectory.into());
        };
        bytes.extend_from_slice(&new[..count]);
        changes.push(Change::Append(new[..count].into()));
        Ok(count)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Write for File {
    fn write(&mut self, new: &[u8]) -> io::Result<usize> {
        (&*self).write(new)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Read for File {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        let disk = at(&self.path);
        let state = disk.state.borrow();
        let Inode::File { bytes, .. } = &state.inodes[self.inode] else {
            return Err(ErrorKind::IsADirectory.into());
        };
        let mut at = self.at.lock().unwrap();
        let rest = bytes.get(*at..).unwrap_or_default();
        let count = rest.len().min(into.len());
        into[..count].copy_from_slice(&rest[..count]);
        *at += count;
        Ok(count)
    }
}

impl Seek for File {
    fn seek(&mut self, to: SeekFrom) -> io::Result<u64> {
        let SeekFrom::Start(to) = to else {
            return Err(ErrorKind::Unsupported.into());
        };
        *self.at.lock().unwrap() = to as usize;
        Ok(to)
    }
}
