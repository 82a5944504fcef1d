//! An intset: whole numbers in ascending order, each in as few bytes as the largest of them needs.
//!
//! Most sets of integers are sets of the numbers of things: the users who liked this, the articles with that
//! word. As text with its length, 1002 takes five bytes; here it takes two, and it is found in a few steps.
//!
//! ```text
//! SADD s 5 -7 1002        then SADD s 70000, which does not fit into two bytes
//!
//! width                                 width
//! ┌───┬─────┬─────┬──────┐              ┌───┬────────┬────────┬────────┬────────┐
//! │ 2 │ -7  │  5  │ 1002 │       ──▶    │ 4 │   -7   │   5    │  1002  │ 70000  │
//! └───┴─────┴─────┴──────┘              └───┴────────┴────────┴────────┴────────┘
//! 0   1     3     5      7              0   1        5        9        13       17
//! ```
//!
//! A width is 2, 4 or 8, and never shrinks. A number is found by halving: is 5 before the middle or behind it?
//! A new one pushes those behind it up. That is one move in memory, and mostly in place.
//!
//! **How Redis does it**: intset.c, the same; but its width and its count take four bytes each.

use super::entry::{Kind, SmallMut};

/// An intset to be read.
#[derive(Clone, Copy)]
pub struct Intset<'a>(pub &'a [u8]);

/// An intset without a number.
pub const EMPTY: [u8; 1] = [2];

impl<'a> Intset<'a> {
    /// How many numbers there are.
    pub fn len(self) -> usize {
        (self.0.len() - 1) / self.width()
    }

    /// The number at a place, the smallest first.
    pub fn get(self, place: usize) -> Option<i64> {
        let width = self.width();
        let bytes = self.0.get(1 + place * width..)?.get(..width)?;
        // The highest byte has the sign.
        let start = if bytes[width - 1] < 0x80 { [0; 8] } else { [0xff; 8] };
        let mut whole: [u8; 8] = start;
        whole[..width].copy_from_slice(bytes);
        Some(i64::from_le_bytes(whole))
    }

    /// The numbers, the smallest first.
    pub fn iter(self) -> impl Iterator<Item = i64> + 'a {
        (0..self.len()).filter_map(move |place| self.get(place))
    }

    pub fn contains(self, number: i64) -> bool {
        self.place_of(number).is_ok()
    }

    /// Where a number is, or else where it would be.
    fn place_of(self, number: i64) -> Result<usize, usize> {
        let (mut from, mut to) = (0, self.len());
        while from < to {
            let middle = from + (to - from) / 2;
            match self.get(middle) {
                Some(found) if found < number => from = middle + 1,
                Some(found) if found == number => return Ok(middle),
                _ => to = middle,
            }
        }
        Err(from)
    }

    /// Bytes that each number takes: 2, 4 or 8.
    pub fn width(self) -> usize {
        usize::from(self.0[0])
    }

    /// The numbers as they are stored, little endian.
    pub fn numbers(self) -> &'a [u8] {
        &self.0[1..]
    }
}

/// The intset of these numbers, which are in order. Each takes so many bytes at least.
pub fn of(numbers: &[i64], least: usize) -> Vec<u8> {
    // The longest numbers are at the ends.
    let ends = numbers.first().into_iter().chain(numbers.last());
    let width = ends.map(|number| width_of(*number)).fold(least, usize::max);
    let mut bytes = Vec::with_capacity(1 + numbers.len() * width);
    bytes.push(width as u8);
    for number in numbers {
        bytes.extend_from_slice(&number.to_le_bytes()[..width]);
    }
    bytes
}

/// Adds a number; returns whether it is new.
pub fn add(small: &mut SmallMut, number: i64) -> bool {
    let intset = Intset(small.payload());
    let Err(place) = intset.place_of(number) else {
        return false;
    };
    if width_of(number) > intset.width() {
        widen(small, width_of(number));
    }
    let width = Intset(small.payload()).width();
    small.insert(1 + place * width, &number.to_le_bytes()[..width]);
    true
}

/// Removes a number; returns whether it was there.
pub fn remove(small: &mut SmallMut, number: i64) -> bool {
    let intset = Intset(small.payload());
    let (Ok(place), width) = (intset.place_of(number), intset.width()) else {
        return false;
    };
    let at = 1 + place * width;
    small.remove(at..at + width);
    true
}

fn widen(small: &mut SmallMut, width: usize) {
    let numbers: Vec<i64> = Intset(small.payload()).iter().collect();
    small.set(Kind::Intset, &of(&numbers, width));
}

/// Bytes that a number needs.
fn width_of(number: i64) -> usize {
    match number {
        _ if i16::try_from(number).is_ok() => 2,
        _ if i32::try_from(number).is_ok() => 4,
        _ => 8,
    }
}

#[cfg(test)]
mod tests {
    use crate::types::table::random_below;
    use crate::types::{Edit, Limits, Loose, Member, Set};
    use std::collections::BTreeSet;

    #[test]
    fn an_intset_holds_what_an_ordered_set_holds_after_any_changes() {
        let limits = Limits { intset: usize::MAX, ..Limits::NOTHING };
        for largest in [200, 40_000, 5_000_000_000, i64::MAX] {
            let mut entry = Loose::new::<Set>(b"key");
            let mut model = BTreeSet::new();
            for round in 0..3_000 {
                // Ever wider.
                let bound = if round < 1_000 { 200 } else { largest };
                let number = match random_below(20) {
                    0 => bound,
                    1 => -bound - 1,
                    _ => random_below(bound as usize) as i64 - bound / 2,
                };
                let text = number.to_string();
                entry.change(&limits, |set: &mut Edit<Set>| {
                    if random_below(3) > 0 {
                        assert_eq!(set.add(Member::Bytes(text.as_bytes())), model.insert(number));
                    } else {
                        assert_eq!(
                            set.remove(Member::Bytes(text.as_bytes())),
                            model.remove(&number)
                        );
                    }
                });
                let Some(set @ Set::Intset(intset)) = entry.look().read::<Set>() else {
                    panic!("it is one for good");
                };
                assert_eq!(intset.len(), model.len());
                assert!(set.contains(Member::Number(number)) == model.contains(&number));
                if round % 100 == 0 {
                    assert!(intset.iter().eq(model.iter().copied()));
                }
            }
        }
    }
}
