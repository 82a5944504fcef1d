//! XXH64: a digest of eight bytes, which tells whether other bytes have changed, at the speed of memory.
//!
//! Four numbers, the *lanes*, each take eight bytes of every 32: multiplied, added, rotated, multiplied.
//! The lanes do not wait for each other, so the processor works on all four at once. At the
//! end they are mixed with the length and with what is left, until each bit of the input changes
//! half the bits of the result. Changed bytes go unseen once in 2⁶⁴. It is a check against disks and memory,
//! not against people: whoever can write the bytes can also write their digest.
//!
//! Why not a CRC, which always detects a single flipped bit? Safe Rust can compute it only with tables. A
//! CRC-64 of a value of 1 MiB took as long as everything else in a SET of it.
//!
//! **How Redis does it**: crc64.c, a CRC-64 at the end of each RDB file. The algorithm here is
//! Yann Collet's (xxhash.com, *XXH64*, with seed 0); `xxhsum -H64` prints the same numbers.

const P1: u64 = 0x9e37_79b1_85eb_ca87;
const P2: u64 = 0xc2b2_ae3d_27d4_eb4f;
const P3: u64 = 0x1656_67b1_9e37_79f9;
const P4: u64 = 0x85eb_ca77_c2b2_ae63;
const P5: u64 = 0x27d4_eb2f_1656_67c5;

/// The digest of bytes that come in pieces. It does not depend on the pieces.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct Digest {
    lanes: [u64; 4],
    /// The bytes of an unfinished block: the first `length % 32` of these.
    rest: [u8; 32],
    /// Bytes so far.
    pub length: u64,
}

impl Default for Digest {
    /// The digest of no bytes.
    fn default() -> Digest {
        Digest {
            lanes: [P1.wrapping_add(P2), P2, 0, 0u64.wrapping_sub(P1)],
            rest: [0; 32],
            length: 0,
        }
    }
}

impl Digest {
    pub fn add(&mut self, mut bytes: &[u8]) {
        let filled = (self.length % 32) as usize;
        self.length += bytes.len() as u64;
        if filled > 0 {
            let (head, tail) = bytes.split_at(bytes.len().min(32 - filled));
            self.rest[filled..filled + head.len()].copy_from_slice(head);
            if filled + head.len() < 32 {
                return;
            }
            let block = self.rest;
            self.add_blocks(&[block]);
            bytes = tail;
        }
        let (blocks, rest) = bytes.as_chunks::<32>();
        self.add_blocks(blocks);
        self.rest[..rest.len()].copy_from_slice(rest);
    }

    fn add_blocks(&mut self, blocks: &[[u8; 32]]) {
        let mut lanes = self.lanes;
        for block in blocks {
            for (lane, word) in lanes.iter_mut().zip(block.as_chunks::<8>().0) {
                *lane = round(*lane, u64::from_le_bytes(*word));
            }
        }
        self.lanes = lanes;
    }

    /// The digest of all bytes that were added.
    pub fn value(&self) -> u64 {
        let mut value = match self.length {
            0..32 => P5,
            _ => {
                let turned = self.lanes.iter().zip([1, 7, 12, 18]);
                let sum =
                    turned.fold(0u64, |sum, (lane, by)| sum.wrapping_add(lane.rotate_left(by)));
                let merge =
                    |value: u64, lane| (value ^ round(0, lane)).wrapping_mul(P1).wrapping_add(P4);
                self.lanes.iter().fold(sum, |value, lane| merge(value, *lane))
            }
        };
        value = value.wrapping_add(self.length);
        let rest = &self.rest[..(self.length % 32) as usize];
        let (eights, rest) = rest.as_chunks::<8>();
        for eight in eights {
            value ^= round(0, u64::from_le_bytes(*eight));
            value = value.rotate_left(27).wrapping_mul(P1).wrapping_add(P4);
        }
        let (fours, rest) = rest.as_chunks::<4>();
        for four in fours {
            value ^= u64::from(u32::from_le_bytes(*four)).wrapping_mul(P1);
            value = value.rotate_left(23).wrapping_mul(P2).wrapping_add(P3);
        }
        for byte in rest {
            value ^= u64::from(*byte).wrapping_mul(P5);
            value = value.rotate_left(11).wrapping_mul(P1);
        }
        value = (value ^ (value >> 33)).wrapping_mul(P2);
        value = (value ^ (value >> 29)).wrapping_mul(P3);
        value ^ (value >> 32)
    }
}

fn round(lane: u64, word: u64) -> u64 {
    let mixed = lane.wrapping_add(word.wrapping_mul(P2));
    mixed.rotate_left(31).wrapping_mul(P1)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn digest(bytes: &[u8]) -> u64 {
        let mut digest = Digest::default();
        digest.add(bytes);
        digest.value()
    }

    /// `xxhsum -H64` says so.
    #[test]
    fn it_is_xxh64() {
        assert_eq!(digest(b""), 0xef46_db37_51d8_e999);
        assert_eq!(digest(b"a"), 0xd24e_c4f1_a98c_6e5b);
        assert_eq!(digest(b"abc"), 0x44bc_2cf5_ad77_0999);
        let long = b"Nobody inspects the spammish repetition";
        assert_eq!(digest(long), 0xfbce_a83c_8a37_8bf1);
    }

    #[test]
    fn it_does_not_matter_in_which_pieces_the_bytes_come() {
        let bytes: Vec<u8> = (0..100u8).map(|n| n.wrapping_mul(37)).collect();
        for (from, to) in (0..100).flat_map(|from| (from..100).map(move |to| (from, to))) {
            let mut pieces = Digest::default();
            pieces.add(&bytes[..from]);
            pieces.add(&bytes[from..to]);
            pieces.add(&bytes[to..]);
            assert_eq!(pieces.value(), digest(&bytes), "{from} {to}");
        }
    }
}
