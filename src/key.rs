//! A key and its digest: the number by which tables find it (table.rs).
//!
//! SipHash over the key costs as much as a twentieth of a GET. So the digests of a command's keys are computed once,
//! when the command arrives and no lock is held, and each goes with its key to every table that is asked for it
//! ([`crate::resp::Args::key`]).
//!
//! **How Redis does it**: dict.c computes it (`dictHashKey`, SipHash too) at each look into a dict.

use std::hash::{BuildHasher, Hasher, RandomState};
use std::ops::Deref;
use std::sync::LazyLock;

/// A key with its digest. It derefs to its bytes.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Key<'a> {
    pub bytes: &'a [u8],
    pub digest: u64,
}

impl<'a> Key<'a> {
    /// Computes the digest.
    pub fn of(bytes: &'a [u8]) -> Key<'a> {
        Key { bytes, digest: digest_of(bytes) }
    }
}

impl Deref for Key<'_> {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        self.bytes
    }
}

/// What makes the digests of this process unlike those of any other.
static SECRET: LazyLock<RandomState> = LazyLock::new(RandomState::new);

/// The digest of a key, or of a field's name. It is the same in all tables. It has 48 bits, because it takes six bytes
/// of each entry then (types/u48.rs). Among ten million keys two have the same digest with a chance of one in six, and a
/// table can tell them apart.
pub fn digest_of(key: &[u8]) -> u64 {
    // `Hasher::write` and not `Hash::hash`, which would take in the length as well.
    let mut hasher = SECRET.build_hasher();
    hasher.write(key);
    hasher.finish() >> 16
}
