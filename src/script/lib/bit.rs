//! Operations on the bits of integers.
//!
//! ```text
//! bit.band(12, 10)    8
//! bit.bnot(0)         -1, because a result is a number with a sign
//! bit.tohex(-1)       ffffffff
//! ```
//!
//! A number becomes 32 bits: it is rounded, and what does not fit is cut off at the top.
//!
//! **How Redis does it**: the library LuaBitOp, with the same trick to round (see `bits`).

use super::{Call, Native, Outcome};
use crate::script::machine::Machine;
use crate::script::value::Error;

pub fn open(machine: &mut Machine) {
    let natives: [(&str, Native); 12] = [
        ("tobit", |call| change(call, |bits| bits)),
        ("bnot", |call| change(call, |bits| !bits)),
        ("band", |call| fold(call, |a, b| a & b)),
        ("bor", |call| fold(call, |a, b| a | b)),
        ("bxor", |call| fold(call, |a, b| a ^ b)),
        ("lshift", |call| shift(call, |bits, by| bits << by)),
        ("rshift", |call| shift(call, |bits, by| bits >> by)),
        ("arshift", |call| shift(call, |bits, by| (bits as i32 >> by) as u32)),
        ("rol", |call| shift(call, u32::rotate_left)),
        ("ror", |call| shift(call, u32::rotate_right)),
        ("bswap", |call| change(call, u32::swap_bytes)),
        ("tohex", tohex),
    ];
    machine.library("bit", &natives);
}

fn bits(call: &mut Call, number: usize) -> Result<u32, Error> {
    // So large that the last bit of its mantissa is worth 1: adding it rounds, and leaves the
    // integer in the lower bits.
    const ROUNDING: f64 = ((1u64 << 52) + (1 << 51)) as f64;
    Ok((call.number(number)? + ROUNDING).to_bits() as u32)
}

fn give(call: &mut Call, bits: u32) -> Result<Outcome, Error> {
    call.give_number((bits as i32).into())
}

fn change(call: &mut Call, change: fn(u32) -> u32) -> Result<Outcome, Error> {
    let bits = bits(call, 1)?;
    give(call, change(bits))
}

fn fold(call: &mut Call, join: fn(u32, u32) -> u32) -> Result<Outcome, Error> {
    let mut result = bits(call, 1)?;
    // The order shows in errors.
    for number in (2..=call.count).rev() {
        result = join(result, bits(call, number)?);
    }
    give(call, result)
}

fn shift(call: &mut Call, shift: fn(u32, u32) -> u32) -> Result<Outcome, Error> {
    let (value, by) = (bits(call, 1)?, bits(call, 2)?);
    give(call, shift(value, by & 31))
}

/// The last digits, 8 of them or as many as the second argument says. A negative number of digits
/// asks for large letters.
fn tohex(call: &mut Call) -> Result<Outcome, Error> {
    let value = bits(call, 1)?;
    let digits = if call.is_given(2) { bits(call, 2)? as i32 } else { 8 };
    let text = if digits < 0 { format!("{value:08X}") } else { format!("{value:08x}") };
    let digits = digits.unsigned_abs().min(8) as usize;
    call.give_string(&text.as_bytes()[8 - digits..])
}
