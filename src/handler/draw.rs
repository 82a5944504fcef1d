//! Drawing elements of a collection: HRANDFIELD, SRANDMEMBER and ZRANDMEMBER.
//!
//! To draw without repetitions there are two ways. For a good part of the elements we walk past all of them, and
//! take each with the chance that is needed to end with the right number:
//!
//! ```text
//! 3 wanted of 5:   a 3/5 yes    b 2/4 no    c 2/3 yes    d 1/2 no    e 1/1 yes
//! ```
//!
//! For a few of many that walk would be long, so we draw, and draw again what we had already.
//!
//! **How Redis does it**: `hrandfieldWithCountCommand` and its like have five cases; two of them are the ones
//! here.

use crate::error::Error;
use crate::handler::args::{Cursor, integer};
use crate::resp::{Args, Reply};
use crate::types::table::random_below;
use std::collections::HashSet;
use std::hash::Hash;

/// How many elements are wanted, and whether they may repeat: a negative count says that they may.
pub fn parse_count(text: &[u8]) -> Result<(usize, bool), Error> {
    let count = integer(text)?;
    if count == i64::MIN {
        return Err(Error::text(
            "ERR value is out of range, value must between -9223372036854775807 and \
             9223372036854775807",
        ));
    }
    Ok((count.unsigned_abs() as usize, count < 0))
}

/// How many elements, whether they may repeat, and whether the option with this name is there.
pub fn parse(args: &Args, with: &[u8]) -> Result<(usize, bool, bool), Error> {
    let (count, may_repeat) = parse_count(&args[2])?;
    let mut cursor = Cursor::at(args, 3);
    let both = match cursor.option().as_deref() {
        None => false,
        Some(option) if option == with && cursor.left() == 0 => true,
        Some(_) => return Err(Error::Syntax),
    };
    // Twice as many words are sent then, and their number must fit.
    if both && count > i64::MAX as usize / 2 {
        return Err(Error::ValueOutOfRange);
    }
    Ok((count, may_repeat, both))
}

/// Whether so many elements can be sent. Each takes six bytes at least. What can never be told to its end is
/// not begun: it would take minutes, and all who write would wait.
pub fn can_be_sent(count: usize, reply: &mut Reply) -> bool {
    reply.out.takes(count.saturating_mul(6).min(1 << 50))
}

/// Up to `count` elements of a collection of this length, none twice, each with the same chance. `all` are its
/// elements, and `random` is any of them.
pub fn distinct<T: Copy + Eq + Hash>(
    count: usize,
    length: usize,
    all: impl Iterator<Item = T>,
    random: impl Fn() -> Option<T>,
) -> Vec<T> {
    if count >= length / 3 {
        let mut wanted = count.min(length);
        let left = (1..=length).rev();
        let chosen = all.zip(left).filter(|(_, left)| {
            let take = random_below(*left) < wanted;
            wanted -= usize::from(take);
            take
        });
        return chosen.map(|(element, _)| element).collect();
    }
    let mut drawn = HashSet::new();
    while drawn.len() < count {
        drawn.extend(random());
    }
    drawn.into_iter().collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashMap;

    #[test]
    fn distinct_draws_favour_no_element() {
        for count in [20, 3] {
            let mut times = HashMap::new();
            for _ in 0..6000 {
                let drawn = distinct(count, 30, 0..30, || Some(random_below(30)));
                assert_eq!(drawn.len(), count);
                drawn.into_iter().for_each(|element| *times.entry(element).or_insert(0) += 1);
            }
            let expected = 6000 * count / 30;
            let fair = expected * 3 / 4..expected * 5 / 4;
            assert!(times.len() == 30 && times.values().all(|n| fair.contains(n)));
        }
    }
}
