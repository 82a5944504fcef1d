//! SHA-256: 32 bytes that stand for a password, because nobody finds another text with the same digest.
//!
//! A text is cut into blocks of 64 bytes, the last of which ends with the text's length. Each block is stirred into
//! eight words, in 64 rounds, each with a number of its own: the first digits of the cube roots of the first 64
//! primes. The words begin with the square roots of the first eight. Roots are used because nobody has chosen them.
//!
//! **How Redis does it**: sha256.c, with tables of these numbers.

pub type Digest = [u8; 32];

pub fn sha256(text: &[u8]) -> Digest {
    let mut text_and_end = [text, &[0x80]].concat();
    text_and_end.resize((text.len() + 9).next_multiple_of(64) - 8, 0);
    text_and_end.extend_from_slice(&(8 * text.len() as u64).to_be_bytes());
    let primes = (2u64..).filter(|n| (2..*n).all(|divisor| !n.is_multiple_of(divisor)));
    let primes: Vec<u64> = primes.take(64).collect();
    let mut state: [u32; 8] = std::array::from_fn(|at| digits_of_root(primes[at], 2));
    let constants: [u32; 64] = std::array::from_fn(|at| digits_of_root(primes[at], 3));
    text_and_end.chunks_exact(64).for_each(|block| stir(&mut state, &constants, block));
    let mut digest = Digest::default();
    for (bytes, word) in digest.chunks_exact_mut(4).zip(state) {
        bytes.copy_from_slice(&word.to_be_bytes());
    }
    digest
}

/// The first 32 binary digits behind the point of a root of a number below 512.
fn digits_of_root(number: u64, degree: u32) -> u32 {
    // The largest integer whose power is not greater than the number with that many more digits, bit by bit.
    let wanted = u128::from(number) << (32 * degree);
    let mut root = 0u128;
    for bit in (0..38).rev() {
        let next = root | 1 << bit;
        if next.pow(degree) <= wanted {
            root = next;
        }
    }
    root as u32
}

fn stir(state: &mut [u32; 8], constants: &[u32; 64], block: &[u8]) {
    let mut words = [0u32; 64];
    for (word, bytes) in words.iter_mut().zip(block.chunks_exact(4)) {
        *word = u32::from_be_bytes([bytes[0], bytes[1], bytes[2], bytes[3]]);
    }
    for i in 16..64 {
        let (a, b) = (words[i - 15], words[i - 2]);
        let a = a.rotate_right(7) ^ a.rotate_right(18) ^ a >> 3;
        let b = b.rotate_right(17) ^ b.rotate_right(19) ^ b >> 10;
        words[i] = words[i - 16].wrapping_add(a).wrapping_add(words[i - 7]).wrapping_add(b);
    }
    let [mut a, mut b, mut c, mut d, mut e, mut f, mut g, mut h] = *state;
    for (constant, word) in constants.iter().zip(words) {
        let mixed = e.rotate_right(6) ^ e.rotate_right(11) ^ e.rotate_right(25);
        let chosen = e & f ^ !e & g;
        let one = [mixed, chosen, *constant, word].into_iter().fold(h, u32::wrapping_add);
        let mixed = a.rotate_right(2) ^ a.rotate_right(13) ^ a.rotate_right(22);
        let two = mixed.wrapping_add(a & b ^ a & c ^ b & c);
        (a, b, c, d, e, f, g, h) = (one.wrapping_add(two), a, b, c, d.wrapping_add(one), e, f, g);
    }
    for (word, new) in state.iter_mut().zip([a, b, c, d, e, f, g, h]) {
        *word = word.wrapping_add(new);
    }
}

/// The digest that a text of 64 hexadecimal digits stands for.
pub fn from_hexadecimal(text: &[u8]) -> Option<Digest> {
    let digit = |byte: u8| char::from(byte).to_digit(16).filter(|_| !byte.is_ascii_uppercase());
    let mut digest = Digest::default();
    if text.len() != 2 * digest.len() {
        return None;
    }
    for (byte, pair) in digest.iter_mut().zip(text.chunks_exact(2)) {
        *byte = (digit(pair[0])? << 4 | digit(pair[1])?) as u8;
    }
    Some(digest)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_the_digest_of_the_standard() {
        for (text, digest) in [
            (&b""[..], "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"),
            (b"abc", "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"),
            (
                b"abcdbcdecdefdefgefghfghighijhijkijkljklmklmnlmnomnopnopq",
                "248d6a61d20638b8e5c026930c3e6039a33ce45964ff2167f6ecedd419db06c1",
            ),
            (&[b'a'; 200], "c2a908d98f5df987ade41b5fce213067efbcc21ef2240212a41e54b5e7c28ae5"),
        ] {
            assert_eq!(Some(sha256(text)), from_hexadecimal(digest.as_bytes()));
        }
        for text in [&b""[..], b"ba78", &[b'g'; 64], &[b'A'; 64]] {
            assert_eq!(from_hexadecimal(text), None);
        }
    }
}
