//! A listpack as Redis has it: elements in one run of bytes, which may be walked from both ends.
//!
//! ```text
//! size      count   name       Ada       age      36
//! ┌────────┬──────┬──────────┬─────────┬─────────┬──────┬────┐   an element: how it is stored and how long it is,
//! │4 bytes │ 4· 0 │name    5 │Ada    4 │age    4 │36  1 │ ff │   its bytes, and how many bytes that was
//! └────────┴──────┴──────────┴─────────┴─────────┴──────┴────┘
//! ```
//!
//! An element that is a whole number is stored in binary. (Ours keeps its digits, and has no length behind it:
//! types/listpack.rs.)
//!
//! **How Redis does it**: listpack.c.

use super::value::{Take, number};
use crate::resp::parse_integer;
use crate::types::Member;

/// Bytes in front of the elements: the size of all, and how many there are.
const HEADER: usize = 6;

/// Stands behind the last element.
const END: u8 = 0xff;

/// A listpack that is being made.
pub struct Pack {
    bytes: Vec<u8>,
    count: usize,
}

impl Pack {
    /// Bytes of it as it is now, with its end.
    pub fn len(&self) -> usize {
        self.bytes.len() + 1
    }

    pub fn count(&self) -> usize {
        self.count
    }

    pub fn push(&mut self, element: &[u8]) {
        let start = self.bytes.len();
        let number = if element.len() <= 20 { parse_integer(element) } else { None };
        match number {
            Some(number) => self.push_number(number),
            None => self.push_bytes(element),
        }
        let (behind, length) = size_behind(self.bytes.len() - start);
        self.bytes.extend(&behind[..length]);
        self.count += 1;
    }

    fn push_number(&mut self, number: i64) {
        let bytes = number.to_le_bytes();
        let out = &mut self.bytes;
        match number {
            0..=127 => out.push(number as u8),
            -4096..=4095 => out.extend([0xc0 | bytes[1] & 0x1f, bytes[0]]),
            -0x8000..=0x7fff => out.extend([0xf1, bytes[0], bytes[1]]),
            -0x80_0000..=0x7f_ffff => out.extend([0xf2, bytes[0], bytes[1], bytes[2]]),
            -0x8000_0000..=0x7fff_ffff => {
                out.push(0xf3);
                out.extend(&bytes[..4]);
            }
            _ => {
                out.push(0xf4);
                out.extend(bytes);
            }
        }
    }

    fn push_bytes(&mut self, element: &[u8]) {
        let length = element.len() as u32;
        let out = &mut self.bytes;
        match length {
            ..64 => out.push(0x80 | length as u8),
            64..4096 => out.extend([0xe0 | (length >> 8) as u8, length as u8]),
            _ => {
                out.push(0xf0);
                out.extend(length.to_le_bytes());
            }
        }
        out.extend_from_slice(element);
    }

    /// All of it. Nothing may be pushed then before [`Pack::clear`].
    pub fn end(&mut self) -> &[u8] {
        self.bytes.push(END);
        let size = (self.bytes.len() as u32).to_le_bytes();
        // With more elements Redis counts them when it needs to know.
        let count = self.count.min(usize::from(u16::MAX)) as u16;
        self.bytes[..4].copy_from_slice(&size);
        self.bytes[4..HEADER].copy_from_slice(&count.to_le_bytes());
        &self.bytes
    }

    /// Makes it empty, and keeps the memory.
    pub fn clear(&mut self) {
        self.bytes.clear();
        self.bytes.resize(HEADER, 0);
        self.count = 0;
    }
}

impl Default for Pack {
    fn default() -> Pack {
        Pack { bytes: vec![0; HEADER], count: 0 }
    }
}

/// How the size of an element is written behind it, so that it can be read backwards: seven bits in a byte, the
/// lowest in the last, and a mark in each but the first.
fn size_behind(size: usize) -> ([u8; 5], usize) {
    let length = match size {
        ..128 => 1,
        128..16_383 => 2,
        16_383..2_097_151 => 3,
        2_097_151..268_435_455 => 4,
        _ => 5,
    };
    let mut bytes = [0; 5];
    for (place, byte) in bytes[..length].iter_mut().enumerate() {
        let mark = if place > 0 { 0x80 } else { 0 };
        *byte = (size >> (7 * (length - 1 - place))) as u8 & 0x7f | mark;
    }
    (bytes, length)
}

/// Hands the elements of a listpack to `take`, or says what is wrong with it.
pub fn read(bytes: &[u8], take: &mut Take) -> Result<(), &'static str> {
    let (header, mut rest) =
        bytes.split_first_chunk::<HEADER>().ok_or("a listpack without a header")?;
    let size = u32::from_le_bytes([header[0], header[1], header[2], header[3]]);
    if size as usize != bytes.len() {
        return Err("a listpack of another size");
    }
    let mut count = 0;
    while rest != [END] {
        let start = rest.len();
        take(element(&mut rest)?)?;
        let (behind, length) = size_behind(start - rest.len());
        if rest.split_off(..length) != Some(&behind[..length]) {
            return Err("an element of a listpack has another size behind it");
        }
        count += 1;
    }
    match usize::from(u16::from_le_bytes([header[4], header[5]])) {
        0xffff => Ok(()),
        written if written == count => Ok(()),
        _ => Err("a listpack counts other elements than it has"),
    }
}

fn element<'a>(rest: &mut &'a [u8]) -> Result<Member<'a>, &'static str> {
    const SHORT: &str = "a listpack ends inside an element";
    let first = *rest.split_off_first().ok_or(SHORT)?;
    let mut bytes = |length| rest.split_off(..length).ok_or(SHORT);
    let number = match first {
        ..0x80 => i64::from(first),
        0x80..0xc0 => return bytes(usize::from(first & 0x3f)).map(Member::Bytes),
        0xc0..0xe0 => {
            // Thirteen bits, of which the highest is the sign.
            let second = bytes(1)?[0];
            i64::from(i16::from_be_bytes([first << 3 | second >> 5, second << 3]) >> 3)
        }
        0xe0..0xf0 => {
            let length = usize::from(first & 0x0f) << 8 | usize::from(bytes(1)?[0]);
            return bytes(length).map(Member::Bytes);
        }
        0xf0 => {
            let length = number(bytes(4)?) as u32;
            return bytes(length as usize).map(Member::Bytes);
        }
        0xf1 => number(bytes(2)?),
        0xf2 => number(bytes(3)?),
        0xf3 => number(bytes(4)?),
        0xf4 => number(bytes(8)?),
        END => return Err("a listpack ends before its end"),
        _ => return Err("an element of a listpack has an unknown encoding"),
    };
    Ok(Member::Number(number))
}
