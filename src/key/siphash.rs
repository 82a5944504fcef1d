//! SipHash-1-3: a digest that only those can foresee who know its secret.
//!
//! The secret makes four words. Each eight bytes of the text are put into them and stirred once. The last eight
//! have what is left of the text, and its length in the highest byte. Then the words are stirred three times more.
//!
//! std has the same, but its hasher takes a text in any number of pieces. A key comes in one, and so takes two thirds
//! of the instructions.
//!
//! **How Redis does it**: siphash.c, which stirs twice at the end (SipHash-1-2).

/// The digest of a text.
#[inline]
pub fn siphash([first, second]: [u64; 2], text: &[u8]) -> u64 {
    let mut state = [
        first ^ 0x736f_6d65_7073_6575,
        second ^ 0x646f_7261_6e64_6f6d,
        first ^ 0x6c79_6765_6e65_7261,
        second ^ 0x7465_6462_7974_6573,
    ];
    let (words, rest) = text.as_chunks();
    words.iter().for_each(|word| take(&mut state, u64::from_le_bytes(*word)));
    let rest = match text.last_chunk() {
        // Those of the last eight that no word has. (If all of them have one, the shift is by 64.)
        Some(last) => {
            u64::from_le_bytes(*last).checked_shr(64 - 8 * rest.len() as u32).unwrap_or(0)
        }
        None => rest.iter().rev().fold(0, |all, byte| all << 8 | u64::from(*byte)),
    };
    take(&mut state, (text.len() as u64) << 56 | rest);
    state[2] ^= 0xff;
    (0..3).for_each(|_| stir(&mut state));
    state[0] ^ state[1] ^ state[2] ^ state[3]
}

#[inline]
fn take(state: &mut [u64; 4], word: u64) {
    state[3] ^= word;
    stir(state);
    state[0] ^= word;
}

#[inline]
fn stir([a, b, c, d]: &mut [u64; 4]) {
    *a = a.wrapping_add(*b);
    *c = c.wrapping_add(*d);
    *b = b.rotate_left(13) ^ *a;
    *d = d.rotate_left(16) ^ *c;
    *a = a.rotate_left(32);
    *c = c.wrapping_add(*b);
    *a = a.wrapping_add(*d);
    *b = b.rotate_left(17) ^ *c;
    *d = d.rotate_left(21) ^ *a;
    *c = c.rotate_left(32);
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::hash::{DefaultHasher, Hasher};

    #[test]
    fn it_is_that_of_std_for_texts_of_any_length() {
        let text: Vec<u8> = (0..300).map(|i| (7 * i) as u8).collect();
        for length in 0..text.len() {
            let mut hasher = DefaultHasher::new();
            hasher.write(&text[..length]);
            assert_eq!(siphash([0, 0], &text[..length]), hasher.finish(), "{length}");
        }
        assert_ne!(siphash([1, 0], b"k"), siphash([0, 1], b"k"));
    }
}
