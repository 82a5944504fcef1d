//! Numbers and strings as bytes, and back: the library `struct`.
//!
//! ```text
//! struct.pack(">I2s", 258, "ab")     01 02 'a' 'b' 00
//!              │└┬┘│
//!              │ │ └── a string, and a zero behind it
//!              │ └──── an unsigned integer of two bytes
//!              └────── from here on the first byte is the highest one
//! ```
//!
//! **How Redis does it**: the same C library from 2018. What it does with integers of more than
//! eight bytes, and of none, is what its compiler makes of it, and is kept.

use super::{Call, Native, Outcome};
use crate::script::machine::Machine;
use crate::script::number;
use crate::script::value::{Error, StringId, Value};
use std::ops::Range;

/// How many bytes an integer may have.
const MAX_INTEGER: usize = 32;
/// What `!` without a number aligns to.
const ALIGNMENT: usize = 8;

pub fn open(machine: &mut Machine) {
    let natives: [(&str, Native); 3] = [("pack", pack), ("unpack", unpack), ("size", size)];
    machine.library("struct", &natives);
}

/// A format, and what its options have set so far.
struct Format {
    text: StringId,
    next: usize,
    is_big_endian: bool,
    alignment: usize,
}

impl Format {
    /// The first argument, up to a zero.
    fn of(call: &mut Call) -> Result<Format, Error> {
        let text = call.string(1)?;
        Ok(Format { text, next: 0, is_big_endian: false, alignment: 1 })
    }

    /// The next option, and how many bytes it takes. `s`, and what only sets something, has 0.
    fn next(&mut self, call: &mut Call) -> Result<Option<(u8, usize)>, Error> {
        call.tick()?;
        let option = match call.bytes(self.text).get(self.next) {
            None | Some(0) => return Ok(None),
            Some(option) => *option,
        };
        self.next += 1;
        let size = match option {
            b'b' | b'B' | b'x' => 1,
            b'h' | b'H' => 2,
            b'f' => 4,
            b'd' | b'l' | b'L' | b'T' => 8,
            b'c' => self.number(call, 1)?,
            b'i' | b'I' => match self.number(call, 4)? {
                size @ 0..=MAX_INTEGER => size,
                size => {
                    let text = "is larger than limit of";
                    return Err(call.error(format!("integral size {size} {text} {MAX_INTEGER}")));
                }
            },
            _ => 0,
        };
        Ok(Some((option, size)))
    }

    /// The number behind an option, or else the default.
    fn number(&mut self, call: &mut Call, default: usize) -> Result<usize, Error> {
        let begin = self.next;
        let mut number = 0i32;
        while let Some(digit @ b'0'..=b'9') = call.bytes(self.text).get(self.next).copied() {
            let next = number.checked_mul(10).and_then(|n| n.checked_add(i32::from(digit - b'0')));
            number = next.ok_or_else(|| call.error("integral size overflow"))?;
            self.next += 1;
        }
        Ok(if self.next == begin { default } else { number as usize })
    }

    /// An option that has no bytes, but says how those that follow are to be read.
    fn set(&mut self, call: &mut Call, option: u8) -> Result<(), Error> {
        match option {
            b' ' => {}
            b'>' => self.is_big_endian = true,
            b'<' => self.is_big_endian = false,
            b'!' => {
                let alignment = self.number(call, ALIGNMENT)?;
                if !alignment.is_power_of_two() {
                    let text = format!("alignment {alignment} is not a power of 2");
                    return Err(call.error(text));
                }
                self.alignment = alignment;
            }
            _ => {
                let text = [b"invalid format option '", &[option][..], b"'"].concat();
                return Err(call.bad_argument_bytes(1, &text));
            }
        }
        Ok(())
    }

    /// How many bytes must be left out at a position so that an item is aligned.
    fn padding(&self, position: usize, option: u8, size: usize) -> usize {
        let size = size.min(self.alignment);
        if size == 0 || option == b'c' {
            return 0;
        }
        size.wrapping_sub(position & (size - 1)) & (size - 1)
    }

    /// Adds the lower bytes of a number, or all eight and zeros.
    fn put(&self, bits: u64, size: usize, out: &mut Vec<u8>) {
        let mut bytes = [0; MAX_INTEGER];
        bytes[..8].copy_from_slice(&bits.to_le_bytes());
        let bytes = &mut bytes[..size];
        if self.is_big_endian {
            bytes.reverse();
        }
        out.extend_from_slice(bytes);
    }

    /// The number that some bytes are, or the lower eight of them.
    fn bits(&self, bytes: &[u8]) -> u64 {
        let add = |bits: u64, byte: &u8| bits << 8 | u64::from(*byte);
        match self.is_big_endian {
            true => bytes.iter().fold(0, add),
            false => bytes.iter().rev().fold(0, add),
        }
    }

    /// What an option makes of the bytes that it takes.
    fn value(
        &mut self,
        call: &mut Call,
        option: u8,
        data: StringId,
        range: Range<usize>,
    ) -> Result<Option<Value>, Error> {
        let bits = self.bits(&call.bytes(data)[range.clone()]);
        Ok(Some(match option {
            b'b' | b'h' | b'i' | b'l' => Value::Number(signed(bits, range.len())),
            b'B' | b'H' | b'I' | b'L' | b'T' => Value::Number(bits as f64),
            b'f' => Value::Number(f32::from_bits(bits as u32).into()),
            b'd' => Value::Number(f64::from_bits(bits)),
            b'c' => Value::String(call.machine.heap.part(data, range)?),
            b's' => Value::String(call.machine.heap.part(data, range.start..range.end - 1)?),
            b'x' => return Ok(None),
            _ => {
                self.set(call, option)?;
                return Ok(None);
            }
        }))
    }
}

fn pack(call: &mut Call) -> Result<Outcome, Error> {
    let mut format = Format::of(call)?;
    // As in C, a nil stands behind the arguments, so a missing argument is a nil.
    call.push(Value::Nil);
    call.count += 1;
    let mut result = call.buffer();
    let mut number = 2;
    while let Some((option, size)) = format.next(call)? {
        let padding = format.padding(result.len(), option, size);
        result.resize(result.len() + padding, 0);
        match option {
            b'b' | b'B' | b'h' | b'H' | b'i' | b'I' | b'l' | b'L' | b'T' | b'f' | b'd' => {
                let bits = to_bits(option, call.number(number)?);
                format.put(bits, size, &mut result);
            }
            b'x' => result.push(0),
            b'c' | b's' => {
                let text = call.string(number)?;
                let text = call.bytes(text);
                let size = if size == 0 { text.len() } else { size };
                let Some(text) = text.get(..size) else {
                    // C has already gone to the next argument.
                    return Err(call.bad_argument(number + 1, "string too short"));
                };
                call.check_room(result.len() + text.len())?;
                result.extend_from_slice(text);
                if option == b's' {
                    result.push(0);
                }
            }
            _ => {
                format.set(call, option)?;
                continue;
            }
        }
        number += usize::from(option != b'x');
    }
    call.give_buffer(result)
}

/// A number as an option stores it.
fn to_bits(option: u8, number: f64) -> u64 {
    match option {
        b'f' => (number as f32).to_bits().into(),
        b'd' => number.to_bits(),
        _ if number < 0.0 => number::to_integer(number) as u64,
        _ => number::to_unsigned(number),
    }
}

fn unpack(call: &mut Call) -> Result<Outcome, Error> {
    let mut format = Format::of(call)?;
    let data = call.string(2)?;
    let length = call.bytes(data).len();
    let begin = call.integer_or(3, 1)? as usize;
    if begin == 0 {
        return Err(call.bad_argument(3, "offset must be 1 or greater"));
    }
    let mut at = begin - 1;
    let mut count = 0;
    while let Some((option, size)) = format.next(call)? {
        at = at.wrapping_add(format.padding(at, option, size));
        check(call, at, size, length)?;
        if !call.has_room_on_stack(count + 2) {
            return Err(call.error("stack overflow (too many results)"));
        }
        let size = match option {
            b'c' if size == 0 => {
                // The last result is the size.
                let last = if count == 0 { Value::Nil } else { call.machine.pop() };
                let Some(last) = call.machine.heap.number_of(last) else {
                    return Err(call.error("format 'c0' needs a previous size"));
                };
                count -= 1;
                number::to_unsigned(last) as usize
            }
            b's' => match call.bytes(data)[at..].iter().position(|byte| *byte == 0) {
                Some(zero) => zero + 1,
                None => return Err(call.error("unfinished string in data")),
            },
            _ => size,
        };
        check(call, at, size, length)?;
        if let Some(value) = format.value(call, option, data, at..at + size)? {
            call.push(value);
            count += 1;
        }
        at += size;
    }
    call.push(Value::Number(at.wrapping_add(1) as i64 as f64));
    Ok(Outcome::Return(count + 1))
}

fn check(call: &mut Call, at: usize, size: usize, length: usize) -> Result<(), Error> {
    match at.checked_add(size) {
        Some(end) if end <= length => Ok(()),
        _ => Err(call.bad_argument(2, "data string too short")),
    }
}

/// The number that an unsigned integer of that many bytes stands for.
fn signed(number: u64, size: usize) -> f64 {
    // The sign and all above it. The processor takes the shift modulo 64.
    let mask = u64::MAX.wrapping_shl((size as u32 * 8).wrapping_sub(1));
    let number = if number & mask == 0 { number } else { number | mask };
    number as i64 as f64
}

/// How many bytes a format takes.
fn size(call: &mut Call) -> Result<Outcome, Error> {
    let mut format = Format::of(call)?;
    let mut total = 0usize;
    while let Some((option, size)) = format.next(call)? {
        total = total.wrapping_add(format.padding(total, option, size));
        match option {
            b's' => return Err(call.bad_argument(1, "option 's' has no fixed size")),
            b'c' if size == 0 => {
                return Err(call.bad_argument(1, "option 'c0' has no fixed size"));
            }
            _ if !option.is_ascii_alphanumeric() => format.set(call, option)?,
            _ => {}
        }
        total = total.wrapping_add(size);
    }
    call.give_number(total as i64 as f64)
}
