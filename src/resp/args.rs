//! The arguments of one command, the command's name included. The same [`Args`] serves command after
//! command, so that most commands need no allocation.
//!
//! ```text
//! bytes    *3\r\n$3\r\nSET\r\n$1\r\nk\r\n…        the small arguments, one after another
//!                      └─┘     └┘
//! places              Small   Small   Large(0)    where each argument is, and the digest of a key
//! large                                 └──▶ Arc<Blob>, an allocation of its own (blob.rs)
//! ```
//!
//! An argument over [`LARGE`] bytes is shared: SET puts it into the store and copies nothing.
//!
//! **How Redis does it**: `c->argv`, an object for each argument, counted and shared in the same way.

use super::LARGE;
use crate::blob::Blob;
use crate::held::Charge;
use crate::key::{Key, digest_of};
use std::num::NonZeroU64;
use std::ops::{Deref, Index};
use std::sync::Arc;

/// With more arguments than this the memory of their places is counted, and given back.
const MANY: usize = 1024;

/// The arguments of one command.
#[derive(Default)]
pub struct Args {
    /// The small arguments, one after another. If `is_plain` it is the whole command as it came, with
    /// lengths and line ends.
    pub(super) bytes: Vec<u8>,
    /// Whether the command came in the form in which we would write it (resp/plain.rs).
    pub(super) is_plain: bool,
    pub(super) places: Vec<Place>,
    large: Vec<Arc<Blob>>,
    /// What the client is charged for the places of many arguments: the place of an empty argument takes
    /// four times as much as the argument on the wire. None if nobody counts.
    pub charge: Option<Charge>,
}

/// Where an argument is, and its digest if that is known. (A digest of zero is computed each time.)
#[derive(Clone, Copy)]
pub(super) struct Place {
    at: At,
    digest: Option<NonZeroU64>,
}

#[derive(Clone, Copy)]
enum At {
    /// The length has 32 bits, so that a place has 24 bytes. [`super::LONGEST`] is less.
    Small {
        start: usize,
        length: u32,
    },
    Large(usize),
}

impl Place {
    pub(super) fn small(start: usize, length: usize) -> Place {
        Place { at: At::Small { start, length: length as u32 }, digest: None }
    }
}

/// An argument to be stored. It derefs to its bytes.
#[derive(Clone, Copy)]
pub enum Arg<'a> {
    Small(&'a [u8]),
    Large(&'a Arc<Blob>),
}

impl Deref for Arg<'_> {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        match self {
            Arg::Small(bytes) => bytes,
            Arg::Large(bytes) => bytes,
        }
    }
}

impl Args {
    /// How many arguments there are, the command's name included.
    pub fn len(&self) -> usize {
        self.places.len()
    }

    /// The arguments, the command's name first.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = &[u8]> {
        (0..self.len()).map(|i| &self[i])
    }

    /// Argument `i` as a value to be stored.
    pub fn arg(&self, i: usize) -> Arg<'_> {
        match self.places[i].at {
            At::Small { start, length } => Arg::Small(&self.bytes[start..start + length as usize]),
            At::Large(at) => Arg::Large(&self.large[at]),
        }
    }

    /// Argument `i` as a key.
    #[inline]
    pub fn key(&self, i: usize) -> Key<'_> {
        match self.digest(i) {
            Some(digest) => Key { bytes: &self[i], digest },
            None => Key::of(&self[i]),
        }
    }

    /// The arguments from `i` on as keys.
    pub fn keys(&self, i: usize) -> impl ExactSizeIterator<Item = Key<'_>> {
        (i..self.len()).map(|i| self.key(i))
    }

    /// The arguments behind the name as keys with values; `None` if one would be left over.
    pub fn pairs(&self) -> Option<impl Iterator<Item = (Key<'_>, Arg<'_>)>> {
        let is_even = (self.len() - 1).is_multiple_of(2);
        let keys = (1..self.len()).step_by(2);
        is_even.then(|| keys.map(|i| (self.key(i), self.arg(i + 1))))
    }

    /// Computes the digests of these arguments, which are keys.
    #[inline]
    pub fn know_keys(&mut self, keys: impl Iterator<Item = usize>) {
        for i in keys {
            self.places[i].digest = NonZeroU64::new(digest_of(&self[i]));
        }
    }

    /// The digest of argument `i`, if it is there and its digest is known.
    #[inline]
    pub fn digest(&self, i: usize) -> Option<u64> {
        self.places.get(i)?.digest.map(NonZeroU64::get)
    }

    /// How many bytes the large arguments have together.
    pub fn large_size(&self) -> usize {
        self.large.iter().map(|large| large.len()).sum()
    }

    /// How many bytes all arguments have together.
    pub fn length(&self) -> usize {
        self.iter().map(<[u8]>::len).sum()
    }

    /// Bytes of memory that a copy takes ([`Args::to_owned`]).
    pub fn memory(&self) -> usize {
        size_of::<Args>()
            + self.bytes.len()
            + size_of_val(&self.places[..])
            + size_of_val(&self.large[..])
            + self.large_size()
    }

    /// A copy that calls the command by another name.
    pub fn with_name(&self, name: &[u8]) -> Args {
        let mut copy = self.to_owned();
        let start = copy.bytes.len();
        copy.bytes.extend_from_slice(name);
        copy.places[0] = Place::small(start, name.len());
        copy.is_plain = false;
        copy
    }

    /// The command as it stands on the wire, if it came in the form in which we would write it.
    pub fn as_sent(&self) -> Option<&[u8]> {
        self.is_plain.then_some(&self.bytes)
    }

    /// Adds an argument: for commands that are not read from anywhere, and inline ones.
    pub fn push(&mut self, argument: &[u8]) {
        self.is_plain = false;
        let start = self.bytes.len();
        self.bytes.extend_from_slice(argument);
        self.places.push(Place::small(start, argument.len()));
    }

    /// Adds a large argument.
    pub(super) fn push_large(&mut self, argument: Blob) {
        self.places.push(Place { at: At::Large(self.large.len()), digest: None });
        self.large.push(Arc::new(argument));
    }

    /// Forgets the arguments, and gives memory back that only an unusual command needed.
    #[inline]
    pub fn clear(&mut self) {
        self.bytes.clear();
        self.is_plain = false;
        self.places.clear();
        let is_large = !self.large.is_empty() || self.bytes.capacity() > 4 * LARGE;
        if is_large || self.places.capacity() > MANY {
            self.give_back();
        }
    }

    #[cold]
    fn give_back(&mut self) {
        self.large.clear();
        if self.bytes.capacity() > 4 * LARGE {
            self.bytes.shrink_to(LARGE);
        }
        if self.places.capacity() > MANY {
            self.places.shrink_to(64);
            if let Some(charge) = &mut self.charge {
                charge.set(0);
            }
        }
    }

    /// Counts the memory of the places, each time that another [`MANY`] have come.
    pub(super) fn count_places(&mut self) {
        if self.len() > MANY
            && self.len().is_multiple_of(MANY)
            && let Some(charge) = &mut self.charge
        {
            charge.set(self.places.capacity() * size_of::<Place>());
        }
    }
}

impl ToOwned for Args {
    type Owned = Args;

    /// A copy that takes no more room than it needs, for the queue of a transaction.
    fn to_owned(&self) -> Args {
        Args {
            bytes: self.bytes.clone(),
            is_plain: self.is_plain,
            places: self.places.clone(),
            large: self.large.clone(),
            charge: None,
        }
    }
}

impl Index<usize> for Args {
    type Output = [u8];

    #[inline]
    fn index(&self, i: usize) -> &[u8] {
        match self.places[i].at {
            At::Small { start, length } => &self.bytes[start..start + length as usize],
            At::Large(at) => &self.large[at],
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_digest_that_is_known_is_that_of_its_argument_alone() {
        let mut args = Args::default();
        for known in [&[][..], &[1], &[1, 3]] {
            args.clear();
            [&b"MSET"[..], b"a", b"1", b"b", b"2"].iter().for_each(|word| args.push(word));
            args.know_keys(known.iter().copied());
            for i in 0..args.len() {
                let digest = Key::of(&args[i]).digest;
                assert_eq!(args.digest(i), known.contains(&i).then_some(digest));
                assert_eq!(args.to_owned().digest(i), args.digest(i));
                assert_eq!(args.key(i).digest, digest);
            }
        }
    }

    #[test]
    fn a_large_argument_is_shared_and_not_copied() {
        let mut args = Args::default();
        args.push_large(vec![b'v'; 1 << 20].into());
        let (Arg::Large(value), copy) = (args.arg(0), args.to_owned()) else {
            panic!("it is large");
        };
        assert_eq!(copy.arg(0).as_ptr(), value.as_ptr());
    }
}
