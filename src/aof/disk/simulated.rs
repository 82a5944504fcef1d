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

use super::{Listed, Metadata, Opening};
use std::cell::RefCell;
use std::collections::BTreeMap;
use std::fs;
use std::io::{self, ErrorKind, Read, Seek, SeekFrom, Write};
use std::path::{Component, Path, PathBuf};
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
    number: usize,
    state: RefCell<State>,
    hook: RefCell<Option<Hook>>,
}

/// What is on the disk, and what is not there yet.
#[derive(Clone, Default)]
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
    let rest = path.strip_prefix("/simulated").expect("a path on a simulated disk");
    let number = rest.iter().next().and_then(|number| number.to_str()?.parse::<usize>().ok());
    DISKS.with_borrow(|disks| disks[number.expect("the number of a disk")].clone())
}

pub fn open(path: &Path, opening: Opening) -> io::Result<File> {
    at(path).open(path, opening)
}

pub fn rename(from: &Path, to: &Path) -> io::Result<()> {
    at(from).rename(from, to)
}

pub fn remove_file(path: &Path) -> io::Result<()> {
    at(path).remove_file(path)
}

pub fn create_directory(path: &Path) -> io::Result<()> {
    at(path).create_directory(path)
}

pub fn metadata(path: &Path) -> io::Result<Metadata> {
    at(path).metadata(path)
}

pub fn list(directory: &Path) -> io::Result<Vec<Listed>> {
    at(directory).list(directory)
}

impl Disk {
    /// Mounts an empty disk.
    pub fn new() -> Rc<Disk> {
        let root = Inode::Directory { names: BTreeMap::new(), synced: BTreeMap::new() };
        Disk::with(State { inodes: vec![root], renames: Vec::new() })
    }

    /// Mounts a disk with this on it.
    pub fn with(state: State) -> Rc<Disk> {
        DISKS.with_borrow_mut(|disks| {
            let number = disks.len();
            disks.push(Rc::new(Disk {
                root: format!("/simulated/{number}").into(),
                number,
                state: state.into(),
                hook: RefCell::default(),
            }));
            disks[number].clone()
        })
    }

    /// What a power cut at this moment may leave. `below(n)` chooses a number less than n.
    pub fn after_power_cut(&self, below: &mut dyn FnMut(usize) -> usize, holes: bool) -> State {
        self.state.borrow().after_power_cut(below, holes)
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
        let mut present = self.hook.borrow_mut();
        if present.is_none() {
            *present = Some(hook);
        }
        fate
    }

    fn may(&self, call: Call, path: &Path) -> io::Result<()> {
        match self.fate(call, path) {
            Fate::Fails(error) | Fate::SaysItFailed(error) => Err(error),
            Fate::Works | Fate::Short(_) => Ok(()),
        }
    }

    fn open(&self, path: &Path, opening: Opening) -> io::Result<File> {
        let call = match opening {
            Opening::Read | Opening::Append => Call::Open,
            Opening::New | Opening::Empty => Call::Create,
        };
        self.may(call, path)?;
        let mut state = self.state.borrow_mut();
        let inode = match (self.find(&state, path), opening) {
            (Ok(_), Opening::New) => return Err(ErrorKind::AlreadyExists.into()),
            (Ok(inode), _) => inode,
            (Err(_), Opening::New | Opening::Empty) => {
                let (directory, name) = self.find_around(&state, path)?;
                let inode = state.inodes.len();
                state.inodes.push(Inode::File {
                    bytes: Vec::new(),
                    synced: Vec::new(),
                    changes: Vec::new(),
                });
                state.change(vec![(directory, name, Some(inode))]);
                inode
            }
            (Err(error), _) => return Err(error),
        };
        match (&mut state.inodes[inode], opening) {
            (Inode::Directory { .. }, Opening::Read) => {}
            (Inode::Directory { .. }, _) => return Err(ErrorKind::IsADirectory.into()),
            (file, Opening::Empty) => file.set_length(0),
            _ => {}
        }
        Ok(File { disk: self.number, inode, path: path.into(), at: Mutex::default() })
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        let (fate, says) = match self.fate(Call::Rename, to) {
            Fate::SaysItFailed(error) => (Ok(()), Err(error)),
            Fate::Fails(error) => (Err(error), Ok(())),
            Fate::Works | Fate::Short(_) => (Ok(()), Ok(())),
        };
        fate?;
        let mut state = self.state.borrow_mut();
        let inode = self.find(&state, from)?;
        let (old, new) = (self.find_around(&state, from)?, self.find_around(&state, to)?);
        state.change(vec![(old.0, old.1, None), (new.0, new.1, Some(inode))]);
        says
    }

    fn remove_file(&self, path: &Path) -> io::Result<()> {
        self.may(Call::Remove, path)?;
        let mut state = self.state.borrow_mut();
        self.find(&state, path)?;
        let (directory, name) = self.find_around(&state, path)?;
        state.change(vec![(directory, name, None)]);
        Ok(())
    }

    fn create_directory(&self, path: &Path) -> io::Result<()> {
        self.may(Call::CreateDirectory, path)?;
        let mut state = self.state.borrow_mut();
        match self.find(&state, path).map(|inode| &state.inodes[inode]) {
            Ok(Inode::Directory { .. }) => return Ok(()),
            Ok(Inode::File { .. }) => return Err(ErrorKind::AlreadyExists.into()),
            Err(_) => {}
        }
        let (directory, name) = self.find_around(&state, path)?;
        let inode = state.inodes.len();
        state.inodes.push(Inode::Directory { names: BTreeMap::new(), synced: BTreeMap::new() });
        state.change(vec![(directory, name, Some(inode))]);
        Ok(())
    }

    fn metadata(&self, path: &Path) -> io::Result<Metadata> {
        let state = self.state.borrow();
        Ok(state.metadata(self.find(&state, path)?))
    }

    fn list(&self, directory: &Path) -> io::Result<Vec<Listed>> {
        let state = self.state.borrow();
        let inode = self.find(&state, directory)?;
        let listed = |(name, &inode): (&String, &usize)| Listed {
            name: name.clone(),
            path: directory.join(name),
            metadata: state.metadata(inode),
        };
        match &state.inodes[inode] {
            Inode::Directory { names, .. } => Ok(names.iter().map(listed).collect()),
            Inode::File { .. } => Err(ErrorKind::NotADirectory.into()),
        }
    }

    fn find(&self, state: &State, path: &Path) -> io::Result<usize> {
        let names = path.strip_prefix(&self.root).expect("a path on this disk");
        let mut inode = 0;
        for name in names.components() {
            let Component::Normal(name) = name else {
                return Err(ErrorKind::InvalidInput.into());
            };
            let Inode::Directory { names, .. } = &state.inodes[inode] else {
                return Err(ErrorKind::NotADirectory.into());
            };
            let found = names.get(name.to_str().expect("a name"));
            inode = *found.ok_or_else(|| io::Error::from(ErrorKind::NotFound))?;
        }
        Ok(inode)
    }

    /// The directory in which the path ends, and its last name.
    fn find_around(&self, state: &State, path: &Path) -> io::Result<(usize, String)> {
        let (around, name) = (path.parent(), path.file_name());
        let name = name.and_then(|name| name.to_str()).expect("a name");
        Ok((self.find(state, around.expect("a directory"))?, name.into()))
    }
}

impl State {
    fn change(&mut self, changes: Vec<(usize, String, Option<usize>)>) {
        let name = |(directory, name, leads_to)| Name { directory, name, leads_to };
        let changes: Vec<Name> = changes.into_iter().map(name).collect();
        for change in &changes {
            let Inode::Directory { names, .. } = &mut self.inodes[change.directory] else {
                panic!("a name in a file");
            };
            change.apply(names);
        }
        self.renames.push(changes);
    }

    fn sync(&mut self, inode: usize) {
        match &mut self.inodes[inode] {
            Inode::File { bytes, synced, changes } => {
                synced.clone_from(bytes);
                changes.clear();
            }
            Inode::Directory { .. } => {
                let touches =
                    |change: &Vec<Name>| change.iter().any(|name| name.directory == inode);
                let (arrived, rest) =
                    std::mem::take(&mut self.renames).into_iter().partition(touches);
                self.renames = rest;
                self.arrive(arrived);
            }
        }
    }

    fn arrive(&mut self, changes: Vec<Vec<Name>>) {
        for change in changes.iter().flatten() {
            if let Inode::Directory { synced, .. } = &mut self.inodes[change.directory] {
                change.apply(synced);
            }
        }
    }

    fn metadata(&self, inode: usize) -> Metadata {
        let (length, is_file) = match &self.inodes[inode] {
            Inode::File { bytes, .. } => (bytes.len() as u64, true),
            Inode::Directory { .. } => (0, false),
        };
        Metadata { length, is_file }
    }

    fn after_power_cut(&self, below: &mut dyn FnMut(usize) -> usize, holes: bool) -> State {
        let mut left = self.clone();
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
    disk: usize,
    inode: usize,
    path: PathBuf,
    /// Where the next read begins.
    at: Mutex<usize>,
}

impl File {
    fn disk(&self) -> Rc<Disk> {
        DISKS.with_borrow(|disks| disks[self.disk].clone())
    }

    pub fn sync_all(&self) -> io::Result<()> {
        let disk = self.disk();
        let is_file = disk.state.borrow().metadata(self.inode).is_file;
        let call = if is_file { Call::SyncFile } else { Call::SyncDirectory };
        disk.may(call, &self.path)?;
        disk.state.borrow_mut().sync(self.inode);
        Ok(())
    }

    pub fn sync_data(&self) -> io::Result<()> {
        self.sync_all()
    }

    pub fn set_len(&self, length: u64) -> io::Result<()> {
        let disk = self.disk();
        disk.may(Call::SetLength, &self.path)?;
        disk.state.borrow_mut().inodes[self.inode].set_length(length as usize);
        Ok(())
    }

    pub fn try_lock(&self) -> Result<(), fs::TryLockError> {
        let fate = self.disk().may(Call::Lock, &self.path);
        fate.map_err(|error| match error.kind() {
            ErrorKind::WouldBlock => fs::TryLockError::WouldBlock,
            _ => fs::TryLockError::Error(error),
        })
    }
}

impl Write for &File {
    fn write(&mut self, new: &[u8]) -> io::Result<usize> {
        let disk = self.disk();
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
        let disk = self.disk();
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
