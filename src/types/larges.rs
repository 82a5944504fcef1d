//! The large values of a table's entries, each under a number.
//!
//! An entry takes ten bytes (entry.rs). A pointer would make it sixteen, because it takes eight and must begin at a
//! multiple of eight. So the pointers stand here, and the entry has the number of one.

use super::entry::Large;
use std::ops::{Index, IndexMut};

/// Those of one heap.
#[derive(Default, Clone)]
pub struct Larges {
    /// None where one was taken out, until its number is used again.
    places: Vec<Option<Box<Large>>>,
    free: Vec<u32>,
}

/// The number of a large value. Valid in the heap that made it, until the value is taken out.
pub struct Number([u16; 2]);

impl Number {
    fn of(number: u32) -> Number {
        Number([number as u16, (number >> 16) as u16])
    }

    fn get(&self) -> u32 {
        let Number([low, high]) = *self;
        u32::from(low) | u32::from(high) << 16
    }
}

impl Larges {
    pub fn add(&mut self, large: Box<Large>) -> Number {
        let number = self.free.pop().unwrap_or_else(|| {
            self.places.push(None);
            (self.places.len() - 1) as u32
        });
        self.places[number as usize] = Some(large);
        Number::of(number)
    }

    pub fn take(&mut self, number: Number) -> Box<Large> {
        let large = self.places[number.get() as usize].take();
        self.free.push(number.get());
        if self.free.len() == self.places.len() {
            *self = Larges::default();
        }
        large.expect("a number is used until its value is taken out")
    }
}

impl Index<&Number> for Larges {
    type Output = Large;

    fn index(&self, number: &Number) -> &Large {
        let large = &self.places[number.get() as usize];
        large.as_deref().expect("a number is used until its value is taken out")
    }
}

impl IndexMut<&Number> for Larges {
    fn index_mut(&mut self, number: &Number) -> &mut Large {
        let large = &mut self.places[number.get() as usize];
        large.as_deref_mut().expect("a number is used until its value is taken out")
    }
}

#[cfg(test)]
mod tests {
    use crate::resp::Arg;
    use crate::types::NewStr;
    use crate::types::entry::Stored;
    use crate::types::heap::Heap;
    use crate::types::string::LARGE;
    use crate::types::usage::Usage;

    #[test]
    fn the_number_of_a_value_that_has_gone_is_used_again() {
        let mut heap = Heap::default();
        let long = vec![b'x'; LARGE + 1];
        let add = |heap: &mut Heap| {
            Stored::new(
                b"key",
                None,
                NewStr::new(&Arg::Small(&long)).form(),
                Usage::unknown(),
                heap,
            )
        };
        let mut all: Vec<Stored> = (0..10).map(|_| add(&mut heap)).collect();
        for at in 0..10 {
            assert!(all.swap_remove(at).free(&mut heap).is_some());
            all.push(add(&mut heap));
            assert_eq!((heap.larges.places.len(), heap.larges.free.len()), (10, 0));
        }
        all.into_iter().for_each(|one| drop(one.free(&mut heap)));
        assert_eq!((heap.larges.places.capacity(), heap.larges.free.capacity()), (0, 0));
    }
}
