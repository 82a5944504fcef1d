//! LZF: what has been there before is named by its place, and not written again.
//!
//! ```text
//! abcabcabcabc…         literal, 3 bytes: a b c      then: 9 bytes, which begin 3 bytes back
//!
//! 000LLLLL …            L + 1 bytes as they are
//! LLLooooo oooooooo     L + 2 bytes, which begin o + 1 bytes before here (L is 1 to 6)
//! 111ooooo LLLLLLLL oooooooo                L + 9 of them
//! ```
//!
//! To find what has been there before, a table has for each hash of three bytes the last place at which three
//! such bytes stood. So it is quick and finds much, and not all.
//!
//! **How Redis does it**: lzf_c.c by Marc Lehmann. This makes the same bytes, because the steps are the same:
//! which places go into the table, and when it gives up. The table is never cleared: a place of an earlier string
//! is one more that may fit. There the first table is what the stack holds by chance, so a long value may be a few
//! bytes shorter.

/// The hash has so many bits.
const BITS: u32 = 16;

/// Most bytes as they are in one run, bytes back, and bytes that one reference names.
const LONGEST_RUN: usize = 32;
const FARTHEST: usize = 1 << 13;
const LONGEST_MATCH: usize = 264;

/// The table, to be used for one string after another.
pub struct Packer {
    /// The last place of three bytes with this hash. The first place of a string is none, as in lzf_c.c.
    places: Vec<u32>,
}

impl Packer {
    pub fn new() -> Packer {
        Packer { places: vec![0; 1 << BITS] }
    }

    /// Packs `bytes` into `out`, unless they would not become shorter by four bytes; returns whether it has.
    pub fn pack(&mut self, bytes: &[u8], out: &mut Vec<u8>) -> bool {
        out.clear();
        let is_possible = bytes.len() > 4 && u32::try_from(bytes.len()).is_ok();
        is_possible && self.pack_into(bytes, out, bytes.len() - 4)
    }

    /// The same into at most so many bytes.
    fn pack_into(&mut self, bytes: &[u8], out: &mut Vec<u8>, most: usize) -> bool {
        let last = bytes.len() - 2;
        // The bytes as they are since the last reference, and where their count will be written.
        let mut run = 0;
        out.push(0);
        let mut at = 0;
        while at < last {
            match self.find(bytes, at) {
                None => {
                    if out.len() >= most {
                        return false;
                    }
                    push_literal(out, &mut run, bytes[at]);
                    at += 1;
                }
                Some(from) => {
                    // The count of an empty run is taken back.
                    if out.len() - usize::from(run == 0) + 4 >= most {
                        return false;
                    }
                    end_run(out, run);
                    let length = match_length(&bytes[from..], &bytes[at..]);
                    push_match(out, at - from - 1, length);
                    run = 0;
                    out.push(0);
                    at += length;
                    if at >= last {
                        break;
                    }
                    // Of the places in the match, the last two.
                    self.exchange(bytes, at - 2);
                    self.exchange(bytes, at - 1);
                }
            }
        }
        if out.len() + 3 > most {
            return false;
        }
        for byte in &bytes[at..] {
            push_literal(out, &mut run, *byte);
        }
        end_run(out, run);
        true
    }

    /// Where the three bytes at this place have been before, if that is near enough.
    fn find(&mut self, bytes: &[u8], at: usize) -> Option<usize> {
        let from = self.exchange(bytes, at)?;
        let is_near = from < at && at - from <= FARTHEST;
        (is_near && bytes[from..from + 3] == bytes[at..at + 3]).then_some(from)
    }

    /// Notes this place; returns the last one with the same hash.
    fn exchange(&mut self, bytes: &[u8], at: usize) -> Option<usize> {
        let three = u32::from_be_bytes([0, bytes[at], bytes[at + 1], bytes[at + 2]]);
        let hash = (three >> (24 - BITS)).wrapping_sub(three.wrapping_mul(5));
        let place = &mut self.places[(hash & ((1 << BITS) - 1)) as usize];
        let old = std::mem::replace(place, at as u32);
        (old > 0).then_some(old as usize)
    }
}

/// How many bytes are the same; `there` is longer. It may end two bytes before it must: the steps of lzf_c.c.
fn match_length(there: &[u8], here: &[u8]) -> usize {
    let longest = (here.len() - 2).min(LONGEST_MATCH);
    let mut length = 3;
    while (longest > 16 && length <= 18 || length < longest) && there[length] == here[length] {
        length += 1;
    }
    length
}

fn push_literal(out: &mut Vec<u8>, run: &mut usize, byte: u8) {
    out.push(byte);
    *run += 1;
    if *run == LONGEST_RUN {
        end_run(out, *run);
        *run = 0;
        out.push(0);
    }
}

/// Writes the count of a run in front of it.
fn end_run(out: &mut Vec<u8>, run: usize) {
    let count = out.len() - run - 1;
    match run {
        0 => out.truncate(count),
        _ => out[count] = run as u8 - 1,
    }
}

fn push_match(out: &mut Vec<u8>, back: usize, length: usize) {
    let (high, length) = ((back >> 8) as u8, length - 2);
    match length {
        ..7 => out.push((length as u8) << 5 | high),
        _ => out.extend([7 << 5 | high, (length - 7) as u8]),
    }
    out.push(back as u8);
}

/// Unpacks into `out` what is exactly so many bytes long then. False if it is not, or names what has not been there.
/// It takes no more memory than the packed bytes can fill.
pub fn unpack(packed: &[u8], length: usize, out: &mut Vec<u8>) -> bool {
    out.clear();
    // Three bytes make the longest match.
    if length / LONGEST_MATCH > packed.len() / 3 + 1 {
        return false;
    }
    out.reserve_exact(length);
    let mut rest = packed;
    while !rest.is_empty() {
        if unpack_one(&mut rest, length, out).is_none() {
            return false;
        }
    }
    out.len() == length
}

/// Unpacks the next run or match.
fn unpack_one(rest: &mut &[u8], length: usize, out: &mut Vec<u8>) -> Option<()> {
    let first = usize::from(*rest.split_off_first()?);
    let room = length - out.len();
    let count = first >> 5;
    if count == 0 {
        let run = rest.split_off(..=first)?;
        out.extend_from_slice(run.get(..room.min(run.len()))?);
        return (run.len() <= room).then_some(());
    }
    let more = if count == 7 { usize::from(*rest.split_off_first()?) } else { 0 };
    let count = count + 2 + more;
    let back = ((first & 0x1f) << 8 | usize::from(*rest.split_off_first()?)) + 1;
    let from = out.len().checked_sub(back).filter(|_| count <= room)?;
    // What is repeated may be what this copies.
    match back >= count {
        true => out.extend_from_within(from..from + count),
        false => (from..from + count).for_each(|at| out.push(out[at])),
    }
    Some(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::types::table::random_below;

    #[test]
    fn what_was_packed_is_unpacked_to_the_same_and_to_nothing_else() {
        let (mut packer, mut out, mut back) = (Packer::new(), Vec::new(), Vec::new());
        let mut packed = 0;
        for round in 0..3_000 {
            let (length, letters) = (random_below(600), 1 + random_below(12));
            let bytes: Vec<u8> = (0..length + round % 3 * 9_000 / 100)
                .map(|_| random_below(letters) as u8)
                .collect();
            if packer.pack(&bytes, &mut out) {
                packed += 1;
                assert!(out.len() + 4 <= bytes.len());
                let length = bytes.len();
                assert!(
                    !unpack(&out, length + 1, &mut back) && !unpack(&out, length - 1, &mut back)
                );
                assert!(!unpack(&out[..out.len() - 1], length, &mut back));
                assert!(unpack(&out, length, &mut back) && back == bytes);
            }
        }
        assert!(packed > 1_000, "{packed}");
    }

    #[test]
    fn a_long_match_and_one_far_back_are_found() {
        let (mut packer, mut out) = (Packer::new(), Vec::new());
        assert!(packer.pack(&[b'x'; 100_000], &mut out));
        assert!(out.len() < 1_200, "{}", out.len());
        let far: Vec<u8> = (0..FARTHEST).map(|_| random_below(256) as u8).collect();
        assert!(packer.pack(&[&far[..], &far].concat(), &mut out));
        assert!(out.len() < FARTHEST + 1_000, "{}", out.len());
    }

    #[test]
    fn a_length_that_is_claimed_is_not_allocated() {
        let mut out = Vec::new();
        assert!(!unpack(b"\0x", usize::MAX, &mut out) && out.capacity() == 0);
        assert!(unpack(b"", 0, &mut out));
    }
}
