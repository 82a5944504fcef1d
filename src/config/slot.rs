//! Slots: the typed fields of [`Config`](super::Config), from which the server reads its options.
//!
//! A number, a size or a choice fits into an atomic. It is read with one relaxed load, so every command may
//! read it. Anything else is copied under a lock that nobody holds for long.
//!
//! **How Redis does it**: plain variables, because one thread reads and writes them.

use super::Fsync;
use super::policy::{self, Policy};
use crate::resp::parse_integer;
use std::ffi::OsString;
use std::marker::PhantomData;
use std::os::unix::ffi::OsStringExt;
use std::path::PathBuf;
use std::sync::RwLock;
use std::sync::atomic::{AtomicI64, Ordering::Relaxed};

/// An option that fits into an atomic: a number, a size in bytes, or one of the words in [`Slot::put`].
#[derive(Default)]
pub struct Slot<T>(AtomicI64, PhantomData<T>);

impl<T> Slot<T> {
    /// Sets a value that the option's row has checked.
    pub(super) fn put(&self, value: &[u8]) {
        let number = match value {
            b"no" => 0,
            b"yes" | b"everysec" => 1,
            b"always" => 2,
            number => match policy::NAMES.iter().position(|name| name.as_bytes() == number) {
                Some(policy) => policy as i64 + 1,
                None => parse_integer(number).unwrap_or_default(),
            },
        };
        self.0.store(number, Relaxed);
    }
}

impl Slot<i64> {
    pub fn get(&self) -> i64 {
        self.0.load(Relaxed)
    }
}

impl Slot<usize> {
    pub fn get(&self) -> usize {
        self.0.load(Relaxed) as usize
    }
}

impl Slot<bool> {
    pub fn get(&self) -> bool {
        self.0.load(Relaxed) != 0
    }
}

impl Slot<Fsync> {
    pub fn get(&self) -> Fsync {
        match self.0.load(Relaxed) {
            0 => Fsync::No,
            1 => Fsync::Everysec,
            _ => Fsync::Always,
        }
    }
}

impl Slot<Policy> {
    pub fn get(&self) -> Policy {
        Policy::named(self.name())
    }

    pub fn name(&self) -> &'static str {
        // 0 is what nobody has set.
        let index = (self.0.load(Relaxed) as usize).wrapping_sub(1);
        policy::NAMES.get(index).unwrap_or(&"noeviction")
    }
}

/// An option that is a text, a path or a password. It need not be UTF-8.
#[derive(Default)]
pub struct Bytes(RwLock<Vec<u8>>);

impl Bytes {
    pub fn get(&self) -> Vec<u8> {
        self.0.read().unwrap().clone()
    }

    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.get()).into_owned()
    }

    pub fn path(&self) -> PathBuf {
        OsString::from_vec(self.get()).into()
    }

    pub fn is_empty(&self) -> bool {
        self.0.read().unwrap().is_empty()
    }

    pub(super) fn put(&self, value: &[u8]) {
        *self.0.write().unwrap() = value.to_vec();
    }
}
