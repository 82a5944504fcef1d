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

use crate::resp::parse_integer;

/// Bytes in front of the elements: the size of all, and how many there are.
const HEADER: usize = 6;

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
        let size = self.bytes.len() - start;
        push_size(&mut self.bytes, size);
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
        self.bytes.push(0xff);
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

/// Writes the size of an element behind it, so that it can be read backwards: seven bits in a byte, and the mark
/// that more bits are in front of it.
fn push_size(out: &mut Vec<u8>, size: usize) {
    let seven = |shift: usize| (size >> shift) as u8 & 0x7f;
    match size {
        ..128 => out.push(size as u8),
        128..16_383 => out.extend([seven(7), seven(0) | 0x80]),
        16_383..2_097_151 => out.extend([seven(14), seven(7) | 0x80, seven(0) | 0x80]),
        2_097_151..268_435_455 => {
            out.extend([seven(21), seven(14) | 0x80, seven(7) | 0x80, seven(0) | 0x80]);
        }
        _ => out.extend([
            seven(28),
            seven(21) | 0x80,
            seven(14) | 0x80,
            seven(7) | 0x80,
            seven(0) | 0x80,
        ]),
    }
}
