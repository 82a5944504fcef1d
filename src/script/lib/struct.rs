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

/// How many bytes an integer may have.
const MAX_INTEGER: usize = 32;
/// What `!` without a number aligns to.
const ALIGNMENT: usize = 8;

pub fn open(machine: &mut Machine) {
    let natives: [(&str, Native); 3] = [("pack", pack), ("size", size), ("unpack", unpack)];
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
                return Err(call
                    .bad_argument(1, [b"invalid format option '", &[option][..], b"'"].concat()));
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

    fn integer(&self, bytes: &[u8]) -> u64 {
        let add = |number: u64, byte: &u8| number << 8 | u64::from(*byte);
        match self.is_big_endian {
            true => bytes.iter().fold(0, add),
            false => bytes.iter().rev().fold(0, add),
        }
    }

    /// Bytes that have the lowest one first, in the order that is set, or the other way round.
    fn order<const N: usize>(&self, mut bytes: [u8; N], size: usize) -> [u8; N] {
        if self.is_big_endian {
            bytes[..size].reverse();
        }
        bytes
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
            b'b' | b'B' | b'h' | b'H' | b'l' | b'L' | b'T' | b'i' | b'I' => {
                let value = call.number(number)?;
                let value = match value < 0.0 {
                    true => number::to_integer(value) as u64,
                    false => number::to_unsigned(value),
                };
                let mut bytes = [0; MAX_INTEGER];
                bytes[..8].copy_from_slice(&value.to_le_bytes());
                result.extend_from_slice(&format.order(bytes, size)[..size]);
            }
            b'x' => result.push(0),
            b'f' => {
                let bytes = (call.number(number)? as f32).to_le_bytes();
                result.extend(format.order(bytes, size));
            }
            b'd' => {
                let bytes = call.number(number)?.to_le_bytes();
                result.extend(format.order(bytes, size));
            }
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
        let mut size = size;
        check(call, at, size, length)?;
        if !call.has_room_on_stack(count + 2) {
            return Err(call.error("stack overflow (too many results)"));
        }
        if option == b'c' && size == 0 {
            // The last result is the size.
            let last = match count {
                0 => Value::Nil,
                _ => call.machine.pop(),
            };
            let Some(last) = call.machine.heap.to_number(last) else {
                return Err(call.error("format 'c0' needs a previous size"));
            };
            count -= 1;
            size = number::to_unsigned(last) as usize;
            check(call, at, size, length)?;
        }
        let rest = &call.bytes(data)[at..];
        let result = match option {
            b'b' | b'h' | b'i' | b'l' => Value::Number(signed(format.integer(&rest[..size]), size)),
            b'B' | b'H' | b'I' | b'L' | b'T' => Value::Number(format.integer(&rest[..size]) as f64),
            b'f' => Value::Number(f32::from_bits(format.integer(&rest[..size]) as u32).into()),
            b'd' => Value::Number(f64::from_bits(format.integer(&rest[..size]))),
            b'c' => Value::String(call.machine.heap.part(data, at..at + size)?),
            b's' => {
                let Some(length) = rest.iter().position(|byte| *byte == 0) else {
                    return Err(call.error("unfinished string in data"));
                };
                size = length + 1;
                Value::String(call.machine.heap.part(data, at..at + length)?)
            }
            b'x' => {
                at += size;
                continue;
            }
            _ => {
                format.set(call, option)?;
                continue;
            }
        };
        call.push(result);
        count += 1;
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
