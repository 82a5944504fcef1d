//! Chance that repeats: SplitMix64, twenty lines, because a failure is worth nothing unless the
//! seed printed with it brings it back. std has no generator, and `RandomState` cannot be seeded.

/// The same numbers in every run that begins with the same seed.
pub struct Random(u64);

impl Random {
    pub fn new(seed: u64) -> Random {
        Random(seed)
    }

    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    }

    /// A number in `0..bound`; the bias of the remainder does not matter to a test.
    pub fn below(&mut self, bound: usize) -> usize {
        (self.next() % bound as u64) as usize
    }

    pub fn percent(&mut self, chance: usize) -> bool {
        self.below(100) < chance
    }

    pub fn pick<'a, T: ?Sized>(&mut self, from: &[&'a T]) -> &'a T {
        from[self.below(from.len())]
    }

    /// One of the words of a list that has commas between them.
    pub fn word<'a>(&mut self, list: &'a str) -> &'a str {
        let count = list.split(',').count();
        list.split(',').nth(self.below(count)).unwrap_or_default()
    }
}
