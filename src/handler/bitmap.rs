//! Bitmaps: the bits of a string, the highest bit of the first byte first.
//!
//! ```text
//! SET k "\x05\x80"      byte 0     byte 1
//!                       00000101   10000000
//! GETBIT k 5 → 1        └────┘└─┘  │
//! GETBIT k 8 → 1        bit  0  5  8          BITFIELD k GET u4 5 → 1 0 1 1 → 11
//! ```
//!
//! Behind its end a string has zeros without end, for those who read. Whoever writes there makes it longer.
//!
//! BITFIELD sees the bits from an offset on as an integer, signed or not, of up to 64 bits. What does not
//! fit is said by OVERFLOW: it wraps around, is cut to the nearest that fits, or the operation fails.
//!
//! **How Redis does it**: bitops.c. It counts and combines words of the processor by hand; here the
//! compiler does that with `count_ones` and loops over slices.

use crate::error::Error;
use crate::handler::args::{Cursor, integer};
use crate::handler::{ALL_KEYS, Command, Flag, Keys, ONE_KEY, Run, Used, command};
use crate::resp::{Args, Reply, parse_integer};
use crate::store::{View, ViewMut};
use crate::types::{Edit, Loose, Str};

/// BITOP's destination and sources.
const FROM_SECOND: Keys = Keys { first: 2, ..ALL_KEYS };

#[rustfmt::skip]
pub const COMMANDS: &[Command] = &[
    command("bitcount",    -2, Run::Read(bitcount),    ONE_KEY,     "2.6.0", "key [start end [BYTE|BIT]]", "Count set bits in a string"),
    command("bitfield",    -2, Run::Write(bitfield),   ONE_KEY,     "3.2.0", "key GET encoding offset|[OVERFLOW WRAP|SAT|FAIL] SET encoding offset value|INCRBY encoding offset increment [GET encoding offset|[OVERFLOW WRAP|SAT|FAIL] SET encoding offset value|INCRBY encoding offset increment ...]", "Perform arbitrary bitfield integer operations on strings").uses_by("RW access update variable_flags", bitfield_uses).with(&[Flag::DenyOom]),
    command("bitfield_ro", -2, Run::Read(bitfield_ro), ONE_KEY,     "6.0.0", "key [GET encoding offset [GET encoding offset ...]]", "Perform arbitrary bitfield integer operations on strings. Read-only variant of BITFIELD"),
    command("bitop",       -4, Run::Write(bitop),      FROM_SECOND, "2.6.0", "operation destkey key [key ...]", "Perform bitwise operations between strings").uses("OW update, RO access").with(&[Flag::DenyOom]),
    command("bitpos",      -3, Run::Read(bitpos),      ONE_KEY,     "2.8.7", "key bit [start [end [BYTE|BIT]]]", "Find first bit set or clear in a string"),
    command("getbit",       3, Run::Read(getbit),      ONE_KEY,     "2.2.0", "key offset", "Returns the bit value at offset in the string value stored at key"),
    command("setbit",       4, Run::Write(setbit),     ONE_KEY,     "2.2.0", "key offset value", "Sets or clears the bit at offset in the string value stored at key").uses("RW access update").with(&[Flag::DenyOom]),
];

// One bit.

fn getbit(view: &View, args: &Args, reply: &mut Reply) -> Result<(), Error> {
    let offset = bit_offset(&args[2], view.limits.string)?;
    let string = view.get::<Str>(args.key(1))?;
    reply.integer(string.map_or(0, |string| get_bits(&string, offset, 1)) as i64);
    Ok(())
}

fn setbit(view: &mut ViewMut, args: &Args, reply: &mut Reply) -> Result<(), Error> {
    let offset = bit_offset(&args[2], view.limits.string)?;
    let bit = match parse_integer(&args[3]) {
        Some(bit @ 0..=1) => bit as u64,
        _ => return Err(Error::text("ERR bit is not an integer or out of range")),
    };
    let old = view.edit::<Str, _>(args.key(1), "setbit", |string| {
        let old = get_bits(&string.look(), offset, 1);
        set_bits(string, offset, 1, bit)?;
        Ok(old)
    })?;
    reply.integer(old as i64);
    Ok(())
}

/// The number of a bit of a string that may have `limit` bytes.
fn bit_offset(text: &[u8], limit: usize) -> Result<usize, Error> {
    let offset = parse_integer(text).and_then(|offset| usize::try_from(offset).ok());
    offset.filter(|offset| offset >> 3 < limit).ok_or_else(wrong_offset)
}

fn wrong_offset() -> Error {
    Error::text("ERR bit offset is not an integer or out of range")
}

/// Up to 64 bits from this one on, as a number.
fn get_bits(bytes: &[u8], offset: usize, count: usize) -> u64 {
    (offset..offset + count).fold(0, |number, bit| {
        let byte = bytes.get(bit >> 3).copied().unwrap_or(0);
        number << 1 | u64::from(byte >> (7 - (bit & 7)) & 1)
    })
}

/// Writes the lowest bits of `number` to the bits from this one on, and makes the string as long as they
/// need. It counts as a change only if it is one.
fn set_bits(string: &mut Edit<Str>, offset: usize, count: usize, number: u64) -> Result<(), Error> {
    let (first, end) = (offset >> 3, (offset + count).div_ceil(8));
    let mut bytes = [0; 9];
    let bytes = &mut bytes[..end - first];
    let old = string.look();
    let is_long_enough = end <= old.len();
    let there = old.get(first..).unwrap_or(&[]);
    bytes.iter_mut().zip(there).for_each(|(byte, old)| *byte = *old);
    let is_same = is_long_enough && get_bits(bytes, offset & 7, count) == masked(number, count);
    for i in 0..count {
        let bit = (offset & 7) + i;
        let (byte, mask) = (&mut bytes[bit >> 3], 0x80 >> (bit & 7));
        let is_set = number >> (count - 1 - i) & 1 == 1;
        *byte = if is_set { *byte | mask } else { *byte & !mask };
    }
    if is_same {
        string.make_raw();
        return Ok(());
    }
    string.patch(first, bytes).map(drop)
}

fn masked(number: u64, count: usize) -> u64 {
    number & (u64::MAX >> (64 - count))
}

// Ranges of bits.

fn bitcount(view: &View, args: &Args, reply: &mut Reply) -> Result<(), Error> {
    let Some(string) = view.get::<Str>(args.key(1))? else {
        reply.integer(0);
        return Ok(());
    };
    if args.len() == 3 || args.len() > 5 {
        return Err(Error::Syntax);
    }
    let all = 8 * string.len() as i64;
    let bits = match args.len() {
        2 => range(0, all - 1, all),
        _ => {
            let (start, end) = (integer(&args[2])?, integer(&args[3])?);
            if start < 0 && end < 0 && start > end {
                reply.integer(0);
                return Ok(());
            }
            range_of(start, end, unit(args, 4)?, all)
        }
    };
    reply.integer(bits.map_or(0, |(start, end)| count_ones(&string, start, end)));
    Ok(())
}

fn bitpos(view: &View, args: &Args, reply: &mut Reply) -> Result<(), Error> {
    let bit = match integer(&args[2])? {
        bit @ 0..=1 => bit as u64,
        _ => return Err(Error::text("ERR The bit argument must be 1 or 0.")),
    };
    let Some(string) = view.get::<Str>(args.key(1))? else {
        // It is all zeros.
        reply.integer(if bit == 1 { -1 } else { 0 });
        return Ok(());
    };
    if args.len() > 6 {
        return Err(Error::Syntax);
    }
    let all = 8 * string.len() as i64;
    let start = if args.len() > 3 { integer(&args[3])? } else { 0 };
    let unit = unit(args, 5)?;
    let end = if args.len() > 4 { integer(&args[4])? } else { -1 };
    let Some((start, end)) = range_of(start, end, unit, all) else {
        reply.integer(-1);
        return Ok(());
    };
    let found = find_bit(&string, start, end, bit);
    // Behind the string there are zeros, but not in a range whose end was said.
    let beyond = if bit == 0 && args.len() < 5 { end + 1 } else { -1 };
    reply.integer(found.unwrap_or(beyond));
    Ok(())
}

/// The bits of a unit, which argument `at` names: BYTE, if it is missing.
fn unit(args: &Args, at: usize) -> Result<i64, Error> {
    if args.len() <= at {
        return Ok(8);
    }
    match args[at].to_ascii_uppercase().as_slice() {
        b"BYTE" => Ok(8),
        b"BIT" => Ok(1),
        _ => Err(Error::Syntax),
    }
}

/// The first and last bit of a range of units in a string of `all` bits; negative counts from the end.
/// None if it is empty.
fn range_of(start: i64, end: i64, unit: i64, all: i64) -> Option<(i64, i64)> {
    let units = all / unit;
    let from_front = |i: i64| if i < 0 { units.saturating_add(i).max(0) } else { i };
    let (start, end) = (from_front(start), from_front(end).min(units - 1));
    if start > end { None } else { range(start * unit, end * unit + unit - 1, all) }
}

fn range(start: i64, end: i64, all: i64) -> Option<(i64, i64)> {
    (start <= end && start < all).then_some((start, end))
}

fn count_ones(bytes: &[u8], start: i64, end: i64) -> i64 {
    let (first, last) = ((start >> 3) as usize, (end >> 3) as usize);
    let before = bytes[first] & !(0xff >> (start & 7));
    let behind = bytes[last] & (0x7f >> (end & 7));
    // In words, because the processor counts them at once.
    let words = bytes[first..=last].chunks_exact(8);
    let rest: i64 = words.remainder().iter().map(|byte| i64::from(byte.count_ones())).sum();
    let words = words.map(|word| u64::from_le_bytes(word.try_into().unwrap_or_default()));
    let all = rest + words.map(|word| i64::from(word.count_ones())).sum::<i64>();
    all - i64::from(before.count_ones() + behind.count_ones())
}

/// The first of these bits that has this value.
fn find_bit(bytes: &[u8], start: i64, end: i64, bit: u64) -> Option<i64> {
    let other = if bit == 1 { 0 } else { 0xff };
    let at = |i: usize, byte: u8| 8 * i as i64 + i64::from((byte ^ other).leading_zeros());
    let (first, last) = ((start >> 3) as usize, (end >> 3) as usize);
    // Of the first byte, what does not belong to the range may have the value too.
    let mask = 0xff >> (start & 7);
    let edge = bytes[first] & mask | other & !mask;
    let found = if edge != other {
        at(first, edge)
    } else {
        let words = bytes[first + 1..=last].chunks_exact(32);
        let next = first + 1 + 32 * words.take_while(|word| **word == [other; 32]).count();
        let i = next + bytes[next..=last].iter().position(|byte| *byte != other)?;
        at(i, bytes[i])
    };
    (found <= end).then_some(found)
}

// Combining.

fn bitop(view: &mut ViewMut, args: &Args, reply: &mut Reply) -> Result<(), Error> {
    let combine: fn(&mut [u8], &[u8]) = match args[1].to_ascii_uppercase().as_slice() {
        b"AND" => |bytes, other| combine_each(bytes, other, |a, b| a & b),
        b"OR" => |bytes, other| combine_each(bytes, other, |a, b| a | b),
        b"XOR" => |bytes, other| combine_each(bytes, other, |a, b| a ^ b),
        b"NOT" => |bytes, _| bytes.iter_mut().for_each(|byte| *byte = !*byte),
        _ => return Err(Error::Syntax),
    };
    let is_not = args[1].eq_ignore_ascii_case(b"not");
    if is_not && args.len() != 4 {
        return Err(Error::text("ERR BITOP NOT must be called with a single source key."));
    }
    let readers = view.look();
    let sources = args.keys(3).map(|key| readers.get::<Str>(key));
    let sources = sources.collect::<Result<Vec<Option<Str>>, Error>>()?;
    let length = sources.iter().flatten().map(|string| string.len()).max().unwrap_or(0);
    let mut others = sources.iter().map(|source| source.as_deref().unwrap_or_default());
    let mut result = others.next().unwrap_or_default().to_vec();
    result.resize(length, 0);
    match is_not {
        true => combine(&mut result, b""),
        false => others.for_each(|other| combine(&mut result, other)),
    }
    let destination = args.key(2);
    let entry = Loose::filled::<Str>(&destination, readers.limits, |string| {
        if length > 0 {
            // As long as its sources are: they may be from before the limit was lowered.
            string.set_bytes(&result);
            string.make_raw();
        }
    });
    view.replace::<Str>(destination, "set", entry);
    reply.count(length);
    Ok(())
}

/// Combines each byte with that of the other string, which has zeros behind its end. For each way to combine
/// there is a loop of its own, so that the processor does many bytes at once.
fn combine_each(bytes: &mut [u8], other: &[u8], combine: impl Fn(u8, u8) -> u8) {
    let (common, rest) = bytes.split_at_mut(other.len());
    common.iter_mut().zip(other).for_each(|(byte, other)| *byte = combine(*byte, *other));
    rest.iter_mut().for_each(|byte| *byte = combine(*byte, 0));
}

// Integers of any width.

/// How BITFIELD treats a number that does not fit.
#[derive(Clone, Copy)]
enum Overflow {
    Wrap,
    Saturate,
    Fail,
}

/// An integer in a bitmap.
#[derive(Clone, Copy)]
struct Field {
    is_signed: bool,
    bits: usize,
    offset: usize,
}

/// What BITFIELD does to a field.
#[derive(Clone, Copy)]
enum Operation {
    Get,
    Set(i64),
    Increment(i64),
}

/// BITFIELD only reads if all that it is given is GET.
fn bitfield_uses(args: &Args) -> Vec<Used> {
    let mut cursor = Cursor::at(args, 2);
    let only_reads = loop {
        let values = match cursor.option().as_deref() {
            None => break true,
            Some(b"GET") => 2,
            Some(b"OVERFLOW") => 1,
            Some(_) => break false,
        };
        if cursor.left() < values {
            break false;
        }
        for _ in 0..values {
            cursor.next();
        }
    };
    vec![(1, if only_reads { "RO access" } else { "RW access update" })]
}

fn bitfield(view: &mut ViewMut, args: &Args, reply: &mut Reply) -> Result<(), Error> {
    let operations = parse_operations(args, view.limits.string)?;
    let end = operations.iter().filter(|(_, operation, _)| !matches!(operation, Operation::Get));
    let Some(end) = end.map(|(field, ..)| field.offset + field.bits).max() else {
        let string = view.get::<Str>(args.key(1))?;
        get_fields(&operations, string.as_deref(), reply);
        return Ok(());
    };
    let mut answers = Vec::new();
    view.edit::<Str, _>(args.key(1), "setbit", |string| {
        // As in Redis the string gets its final length first.
        let length = end.div_ceil(8);
        if string.len() < length {
            string.patch(length - 1, &[0])?;
        }
        string.make_raw();
        for (field, operation, overflow) in &operations {
            answers.push(field.run(string, *operation, *overflow)?);
        }
        Ok(())
    })?;
    reply.array(answers.len());
    for answer in answers {
        match answer {
            Some(number) => reply.integer(number),
            None => reply.nil(),
        }
    }
    Ok(())
}

fn bitfield_ro(view: &View, args: &Args, reply: &mut Reply) -> Result<(), Error> {
    let operations = parse_operations(args, view.limits.string)?;
    if operations.iter().any(|(_, operation, _)| !matches!(operation, Operation::Get)) {
        return Err(Error::text("ERR BITFIELD_RO only supports the GET subcommand"));
    }
    get_fields(&operations, view.get::<Str>(args.key(1))?.as_deref(), reply);
    Ok(())
}

fn get_fields(
    operations: &[(Field, Operation, Overflow)],
    string: Option<&[u8]>,
    reply: &mut Reply,
) {
    reply.array(operations.len());
    for (field, ..) in operations {
        reply.integer(field.get(string.unwrap_or(&[])) as i64);
    }
}

fn parse_operations(args: &Args, limit: usize) -> Result<Vec<(Field, Operation, Overflow)>, Error> {
    let mut operations = Vec::new();
    let mut overflow = Overflow::Wrap;
    let mut cursor = Cursor::at(args, 2);
    while let Some(name) = cursor.option() {
        let operands = match name.as_slice() {
            b"OVERFLOW" => 1,
            b"GET" => 2,
            b"SET" | b"INCRBY" => 3,
            _ => return Err(Error::Syntax),
        };
        if cursor.left() < operands {
            return Err(Error::Syntax);
        }
        if name == b"OVERFLOW" {
            overflow = match cursor.next().to_ascii_uppercase().as_slice() {
                b"WRAP" => Overflow::Wrap,
                b"SAT" => Overflow::Saturate,
                b"FAIL" => Overflow::Fail,
                _ => return Err(Error::text("ERR Invalid OVERFLOW type specified")),
            };
            continue;
        }
        let field = Field::parse(cursor.next(), cursor.next(), limit)?;
        let operation = match name.as_slice() {
            b"GET" => Operation::Get,
            b"SET" => Operation::Set(cursor.integer()?),
            _ => Operation::Increment(cursor.integer()?),
        };
        operations.push((field, operation, overflow));
    }
    Ok(operations)
}

impl Field {
    /// `i8` or `u8`, and an offset in bits, or in fields of this width: `#2`.
    fn parse(kind: &[u8], offset: &[u8], limit: usize) -> Result<Field, Error> {
        let bits = kind.get(1..).and_then(parse_integer);
        let (is_signed, bits) = match (kind.first(), bits) {
            (Some(b'i'), Some(bits @ 1..=64)) => (true, bits as usize),
            (Some(b'u'), Some(bits @ 1..=63)) => (false, bits as usize),
            _ => {
                return Err(Error::text(
                    "ERR Invalid bitfield type. Use something like i16 u8. Note that u64 is not supported but i64 is.",
                ));
            }
        };
        let (number, unit) = match offset {
            [b'#', number @ ..] => (number, bits),
            number => (number, 1),
        };
        let offset = parse_integer(number).and_then(|number| usize::try_from(number).ok());
        let offset = offset.and_then(|offset| offset.checked_mul(unit));
        let offset = offset.filter(|offset| offset >> 3 < limit).ok_or_else(wrong_offset)?;
        Ok(Field { is_signed, bits, offset })
    }

    /// The least and the greatest number that fits.
    fn range(&self) -> (i128, i128) {
        match self.is_signed {
            true => (-1 << (self.bits - 1), (1 << (self.bits - 1)) - 1),
            false => (0, (1 << self.bits) - 1),
        }
    }

    fn get(&self, bytes: &[u8]) -> i128 {
        self.wrap(get_bits(bytes, self.offset, self.bits).into())
    }

    /// The number that has the same lowest bits and fits.
    fn wrap(&self, number: i128) -> i128 {
        let bits = number & ((1 << self.bits) - 1);
        if bits > self.range().1 { bits - (1 << self.bits) } else { bits }
    }

    /// Runs an operation. None if it fails, because the number does not fit.
    fn run(
        &self,
        string: &mut Edit<Str>,
        operation: Operation,
        overflow: Overflow,
    ) -> Result<Option<i64>, Error> {
        let old = self.get(&string.look());
        let new = match operation {
            Operation::Get => return Ok(Some(old as i64)),
            // An unsigned field takes a negative number for one that is too large.
            Operation::Set(number) if !self.is_signed => i128::from(number as u64),
            Operation::Set(number) => number.into(),
            Operation::Increment(by) => old + i128::from(by),
        };
        let is_set = matches!(operation, Operation::Set(_));
        let (least, greatest) = self.range();
        let fits = (least..=greatest).contains(&new);
        let new = match overflow {
            _ if fits => new,
            Overflow::Wrap => self.wrap(new),
            // For SET Redis asks in 64 bits whether `greatest - number` is negative: for the least numbers it
            // is, though they are less than all that fit.
            Overflow::Saturate if is_set && self.is_signed && (greatest - new) as i64 <= 0 => {
                greatest
            }
            Overflow::Saturate => new.clamp(least, greatest),
            Overflow::Fail => return Ok(None),
        };
        set_bits(string, self.offset, self.bits, new as u64)?;
        let answer = if is_set { old } else { new };
        Ok(Some(answer as i64))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The bytes are long enough that words are counted, and skipped, between the edges.
    #[test]
    fn a_range_of_bits_begins_and_ends_at_any_bit() {
        let mut bytes = vec![0; 100];
        bytes[3] = 0x24;
        bytes[40..47].copy_from_slice(&[0xff, 0xff, 0x7f, 0xff, 0xfe, 1, 0x80]);
        bytes[99] = 1;
        let last = 8 * bytes.len() as i64 - 1;
        let is_set = |bit: i64| get_bits(&bytes, bit as usize, 1);
        for start in (0..=last).filter(|start| start % 8 < 3 || start / 8 > 95) {
            for end in (start..=last).filter(|end| end % 8 > 4 || end - start < 20) {
                let ones = (start..=end).filter(|bit| is_set(*bit) == 1).count();
                assert_eq!(count_ones(&bytes, start, end), ones as i64, "{start} to {end}");
                for bit in [0, 1] {
                    let first = (start..=end).find(|i| is_set(*i) == bit);
                    assert_eq!(find_bit(&bytes, start, end, bit), first, "{bit}: {start} to {end}");
                }
            }
        }
    }
}
