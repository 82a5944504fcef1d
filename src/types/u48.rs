//! A number of 48 bits in six bytes. Each entry of a table has two of them: its digest, and where its piece lies.
//!
//! A `u64` must begin at a multiple of eight. So a digest and an entry of six bytes would take sixteen in a slot,
//! and a digest and an entry of ten bytes 24. With numbers that may begin at each multiple of two they take twelve and
//! sixteen.

use std::hash::{Hash, Hasher};

#[derive(Clone, Copy, PartialEq, Eq)]
pub struct U48([u16; 3]);

impl U48 {
    /// The lowest 48 bits of a number.
    #[inline(always)]
    pub fn of(number: u64) -> U48 {
        U48([number as u16, (number >> 16) as u16, (number >> 32) as u16])
    }

    #[inline(always)]
    pub fn get(self) -> u64 {
        let U48([low, middle, high]) = self;
        u64::from(low) | u64::from(middle) << 16 | u64::from(high) << 32
    }
}

impl Hash for U48 {
    fn hash<H: Hasher>(&self, hasher: &mut H) {
        hasher.write_u64(self.get());
    }
}

/// The hasher for keys that are digests already. HashMap takes a place from the lowest bits, and compares the highest
/// seven first. A digest has none there, so they get some of its own.
#[derive(Default)]
pub struct Identity(u64);

impl Hasher for Identity {
    fn write_u64(&mut self, digest: u64) {
        self.0 = digest | digest << 48;
    }

    fn write(&mut self, _: &[u8]) {
        unreachable!("the keys of a slot are digests")
    }

    fn finish(&self) -> u64 {
        self.0
    }
}
