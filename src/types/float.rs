//! Numbers with a fraction, as `INCRBYFLOAT` and `HINCRBYFLOAT` add them.
//!
//! Redis adds in the 80-bit numbers of the x87, C's `long double`, and prints what comes out with
//! 17 digits after the point. Rust has no such type, and its `f64` would betray itself at once:
//! `5.0e3 + 200` is the same in both, but `0.1 + 0.2` is 0.3 there and 0.30000000000000004 here.
//! So this file builds the type out of integers:
//!
//! ```text
//! Float { negative, mantissa, exponent }            value = ± mantissa · 2^exponent
//!
//! "0.1"  ──parse──▶  1/10, exactly  ──round──▶  0xcccccccccccccccd · 2^-67
//! "0.2"  ──parse──▶  1/5,  exactly  ──round──▶  0xcccccccccccccccd · 2^-66
//!                              add, exactly; round ──▶  0x999999999999999a · 2^-65
//!                            print: · 10^17, round ──▶  30000000000000000  ──▶  "0.3"
//! ```
//!
//! Each of the three steps is exact integer arithmetic followed by one rounding, to 64 bits or to
//! 17 digits, and ties go to the even neighbour: that is what IEEE 754 asks of the hardware and of
//! the C library, so the results agree to the last digit. A mantissa has all 64 bits unless the
//! number is so small that the exponent has reached its end.
//!
//! What must be exact may be long: the digits of a text, or 2^16000. [`Big`] holds it, with the
//! few operations that are needed. Sums fit into a `u128`.
//!
//! **How Redis does it**: util.c, `string2ld`, which is `strtold` (hence hexadecimal floats and
//! `inf`), and `ld2string` with `LD_STR_HUMAN`. On machines where `long double` is the same as
//! `double`, or has 128 bits, Redis itself answers otherwise; we answer as on x86-64 everywhere.

use std::cmp::Ordering;
use std::num::IntErrorKind;

/// A finite number, or infinity.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Float {
    negative: bool,
    mantissa: u64,
    exponent: i32,
}

/// The exponents that 80 bits have room for, counted from the lowest bit of the mantissa.
const LEAST_EXPONENT: i32 = -16445;
const GREATEST_EXPONENT: i32 = 16320;
const INFINITE: i32 = i32::MAX;

/// A text of this many bytes or more is no number (`MAX_LONG_DOUBLE_CHARS`).
const TOO_LONG: usize = 5 * 1024;

/// How many digits are printed after the point.
const FRACTION_DIGITS: usize = 17;
const FRACTION: u128 = 10u128.pow(FRACTION_DIGITS as u32);

impl Float {
    pub const ZERO: Float = Float { negative: false, mantissa: 0, exponent: LEAST_EXPONENT };

    /// The number that the text is, all of it: `5`, `-.5`, `5.e3`, `0x1.8p3`, `Inf`. `None` for
    /// anything else, for NaN, and for what is too large or too small to be told from zero.
    pub fn parse(text: &[u8]) -> Option<Float> {
        if text.len() >= TOO_LONG {
            return None;
        }
        let (negative, rest) = match text {
            [b'-', rest @ ..] => (true, rest),
            [b'+', rest @ ..] => (false, rest),
            rest => (false, rest),
        };
        if rest.eq_ignore_ascii_case(b"inf") || rest.eq_ignore_ascii_case(b"infinity") {
            return Some(Float::infinite(negative));
        }
        let (bits, exponent) = match rest {
            [b'0', b'x' | b'X', rest @ ..] => read_number(rest, 16)?,
            rest => read_number(rest, 10)?,
        };
        let float = Float::rounded(negative, bits, exponent);
        let underflow = float.mantissa == 0 && bits != 0;
        (float.is_finite() && !underflow).then_some(float)
    }

    pub fn is_finite(self) -> bool {
        self.exponent != INFINITE
    }

    fn infinite(negative: bool) -> Float {
        Float { negative, mantissa: 0, exponent: INFINITE }
    }

    /// The sum; not finite if it is too large, or if one of the two is not finite.
    pub fn add(self, other: Float) -> Float {
        if !self.is_finite() || !other.is_finite() {
            return Float::infinite(self.negative);
        }
        let (high, low) =
            if self.exponent >= other.exponent { (self, other) } else { (other, self) };
        // Both in units of the higher exponent, with 62 bits to spare below. What of the lower
        // number lies further down still can only tip the rounding, for which one bit is enough.
        const SPARE: u32 = 62;
        let distance = high.exponent.abs_diff(low.exponent);
        let a = u128::from(high.mantissa) << SPARE;
        let b = shift_keeping_rest(u128::from(low.mantissa) << SPARE, distance);
        let exponent = high.exponent - SPARE as i32;
        if high.negative == low.negative {
            Float::rounded(high.negative, a + b, exponent)
        } else {
            let negative = if a >= b { high.negative } else { low.negative };
            Float::rounded(negative, a.abs_diff(b), exponent)
        }
    }

    /// The `Float` next to `bits · 2^exponent`, where `bits` is below 2^127.
    fn rounded(negative: bool, bits: u128, exponent: i32) -> Float {
        let excess = 64 - bits.leading_zeros() as i32;
        let shift = excess.max(LEAST_EXPONENT - exponent);
        let mut exponent = exponent + shift;
        let mut mantissa = if shift > 0 {
            shift_to_even(bits, shift.unsigned_abs())
        } else {
            bits << shift.unsigned_abs()
        };
        if mantissa > u128::from(u64::MAX) {
            mantissa >>= 1;
            exponent += 1;
        }
        if exponent > GREATEST_EXPONENT {
            return Float::infinite(negative);
        }
        Float { negative, mantissa: mantissa as u64, exponent }
    }

    /// A thousand times the number, rounded up to a whole one. None if an `i64` cannot hold that.
    pub fn thousandfold_rounded_up(self) -> Option<i64> {
        if !self.is_finite() {
            return None;
        }
        let Float { mantissa, exponent, .. } =
            Float::rounded(self.negative, u128::from(self.mantissa) * 1000, self.exponent);
        let whole = match exponent {
            ..=0 => {
                let shift = exponent.unsigned_abs();
                let whole = u128::from(mantissa).checked_shr(shift).unwrap_or(0);
                let is_exact = shift < u64::BITS && whole << shift == u128::from(mantissa);
                whole + u128::from(!is_exact && mantissa > 0 && !self.negative)
            }
            1..64 => u128::from(mantissa) << exponent,
            _ => return None,
        };
        let whole = i64::try_from(whole).ok()?;
        Some(if self.negative { -whole } else { whole })
    }

    /// The number with up to 17 digits after the point and never an exponent.
    pub fn print(self) -> Vec<u8> {
        let (whole, fraction) = if self.exponent >= 0 {
            let mut whole = Big::from(self.mantissa);
            whole.shift_up(self.exponent.unsigned_abs());
            (whole.into_digits(), 0)
        } else {
            let scaled = u128::from(self.mantissa) * FRACTION;
            let scaled = shift_to_even(scaled, self.exponent.unsigned_abs());
            ((scaled / FRACTION).to_string(), scaled % FRACTION)
        };
        let text = format!("{whole}.{fraction:0FRACTION_DIGITS$}");
        let text = text.trim_end_matches('0').trim_end_matches('.');
        let sign = if self.negative && text != "0" { "-" } else { "" };
        format!("{sign}{text}").into_bytes()
    }
}

/// `bits / 2^shift`, rounded; a tie goes to the even neighbour. `bits` is below 2^127.
fn shift_to_even(bits: u128, shift: u32) -> u128 {
    if shift >= u128::BITS {
        return 0;
    }
    let quotient = bits >> shift;
    let rest = bits - (quotient << shift);
    let up = match (rest << 1).cmp(&(1 << shift)) {
        Ordering::Less => false,
        Ordering::Equal => quotient % 2 == 1,
        Ordering::Greater => true,
    };
    quotient + u128::from(up)
}

/// `bits / 2^shift`, whose lowest bit says that something was lost, if something was.
fn shift_keeping_rest(bits: u128, shift: u32) -> u128 {
    let quotient = bits.checked_shr(shift).unwrap_or(0);
    let exact = quotient.checked_shl(shift).unwrap_or(0) == bits;
    quotient | u128::from(!exact)
}

/// Reads `12.34e5`, or `1a.bp5` after its `0x`, as `bits · 2^exponent`, where the lowest of the bits stands
/// for all below it. `None` if this is no number, or far outside what a `Float` can hold.
fn read_number(text: &[u8], radix: u32) -> Option<(u128, i32)> {
    let (mut number, exponent) = read_digits(text, radix)?;
    // Powers that would only overflow or vanish are not worth computing.
    let length = number.bits();
    if length == 0 {
        return Some((0, 0));
    }
    let bits = if radix == 10 { exponent * 100_000 / 30_103 } else { exponent };
    if !(-16_700..=16_700).contains(&(bits + i64::from(length))) {
        return None;
    }
    if radix == 16 {
        let (bits, point) = number.top();
        return Some((bits, point + exponent as i32));
    }
    let power = exponent.unsigned_abs() as u32;
    let powers = (0..power).step_by(9).map(|done| 10u32.pow((power - done).min(9)));
    if exponent >= 0 {
        powers.for_each(|factor| number.multiply_add(factor, 0));
        return Some(number.top());
    }
    // A digit takes less than four bits, so that enough of them are left when it is divided.
    let shift = 4 * power + 128;
    number.shift_up(shift);
    let rest = powers.fold(0, |rest, divisor| rest | number.divide(divisor));
    let (bits, point) = number.top();
    Some((bits | u128::from(rest > 0), point - shift as i32))
}

/// The digits of a number without the point, and the exponent that this leaves.
fn read_digits(text: &[u8], radix: u32) -> Option<(Big, i64)> {
    // What a digit after the point takes from the exponent.
    let step = if radix == 16 { 4 } else { 1 };
    let mut digits = Big::from(0);
    // A long number is multiplied once for several digits.
    let (mut chunk, mut scale) = (0, 1);
    let (mut count, mut after_point, mut point) = (0, 0, false);
    let mut rest = text;
    while let [byte, after @ ..] = rest {
        if let Some(digit) = char::from(*byte).to_digit(radix) {
            chunk = chunk * radix + digit;
            scale *= radix;
            if scale >= 100_000_000 {
                digits.multiply_add(scale, chunk);
                (chunk, scale) = (0, 1);
            }
            count += 1;
            after_point += i64::from(point);
        } else if *byte == b'.' && !point {
            point = true;
        } else {
            break;
        }
        rest = after;
    }
    digits.multiply_add(scale, chunk);
    let exponent = match (rest, radix) {
        ([], _) => 0,
        ([b'e' | b'E', exponent @ ..], 10) | ([b'p' | b'P', exponent @ ..], 16) => {
            read_exponent(exponent)?
        }
        _ => return None,
    };
    (count > 0).then_some((digits, exponent - step * after_point))
}

/// A whole number with or without a sign; one that is far too large is cut to what still is.
fn read_exponent(text: &[u8]) -> Option<i64> {
    const FAR: i64 = 1_000_000;
    match std::str::from_utf8(text).ok()?.parse::<i64>() {
        Ok(number) => Some(number.clamp(-FAR, FAR)),
        Err(error) => match error.kind() {
            IntErrorKind::PosOverflow => Some(FAR),
            IntErrorKind::NegOverflow => Some(-FAR),
            _ => None,
        },
    }
}

/// A whole number of any length: 32 bits a word, the lowest first, no zeros at the end.
struct Big(Vec<u32>);

impl Big {
    fn from(number: u64) -> Big {
        let mut big = Big(vec![number as u32, (number >> 32) as u32]);
        big.trim();
        big
    }

    fn trim(&mut self) {
        while self.0.last() == Some(&0) {
            self.0.pop();
        }
    }

    /// How many bits it has.
    fn bits(&self) -> u32 {
        self.0.len() as u32 * 32 - self.0.last().map_or(0, |highest| highest.leading_zeros())
    }

    /// Its highest 96 bits, and how many lie below. The lowest stands for all of those.
    fn top(mut self) -> (u128, i32) {
        let spare = self.0.last().map_or(0, |highest| highest.leading_zeros());
        self.shift_up(spare);
        let (below, top) = self.0.split_at(self.0.len().saturating_sub(3));
        let bits = top.iter().rev().fold(0, |bits, word| bits << 32 | u128::from(*word));
        let is_more = below.iter().any(|word| *word > 0);
        (bits | u128::from(is_more), 32 * below.len() as i32 - spare as i32)
    }

    /// `self · factor + term`.
    fn multiply_add(&mut self, factor: u32, term: u32) {
        let mut carry = u64::from(term);
        for word in &mut self.0 {
            carry += u64::from(*word) * u64::from(factor);
            *word = carry as u32;
            carry >>= 32;
        }
        self.0.push(carry as u32);
        self.trim();
    }

    /// `self · 2^count`.
    fn shift_up(&mut self, count: u32) {
        let words = count as usize / 32;
        self.0.splice(0..0, std::iter::repeat_n(0, words));
        self.multiply_add(1 << (count % 32), 0);
    }

    /// Divides it, and returns the rest.
    fn divide(&mut self, divisor: u32) -> u32 {
        let mut rest = 0;
        for word in self.0.iter_mut().rev() {
            let value = u64::from(rest) << 32 | u64::from(*word);
            *word = (value / u64::from(divisor)) as u32;
            rest = (value % u64::from(divisor)) as u32;
        }
        self.trim();
        rest
    }

    /// Its decimal digits.
    fn into_digits(mut self) -> String {
        let mut groups = Vec::new();
        while !self.0.is_empty() {
            groups.push(self.divide(1_000_000_000));
        }
        let first = groups.pop().unwrap_or(0).to_string();
        groups.iter().rev().fold(first, |mut text, group| {
            text.push_str(&format!("{group:09}"));
            text
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sums_are_those_that_redis_server_gave() {
        for (a, b, expected) in [
            ("0.1", "0.2", "0.3"),
            ("10.50", "0.1", "10.6"),
            ("5.0e3", "200", "5200"),
            ("-1.", "+1", "0"),
            ("-0", "-0", "0"),
            ("3", ".5", "3.5"),
            ("0x1.8p3", "0X.8", "12.5"),
            ("1", "-1.0000000000000000001", "0"),
            ("9007199254740993", "0.5", "9007199254740993.5"),
            ("18446744073709551616", "1", "18446744073709551616"),
            ("123456789012345678", "0.123456789", "123456789012345678.125"),
            ("1e25", "1e-5", "10000000000000000000000000"),
            // A digit five and nothing behind it: to the even neighbour, down and up.
            ("0", "0x1p-18", "0.00000381469726562"),
            ("0", "0x3p-18", "0.00001144409179688"),
            ("3.6e-4951", "0", "0"),
        ] {
            let a = Float::parse(a.as_bytes()).unwrap();
            let sum = a.add(Float::parse(b.as_bytes()).unwrap());
            assert_eq!(String::from_utf8(sum.print()).unwrap(), expected);
        }
    }

    #[test]
    fn what_strtold_refuses_is_no_number() {
        for text in [
            "",
            " 1",
            "1 ",
            "1e",
            "1e+",
            ".",
            "0x",
            "0x.p1",
            "1..2",
            "nan",
            "infinit",
            "1p5",
            "1_0",
            "--1",
            "1e5000",
            "-1e5000",
            "1.8e-4951",
            "1e-99999999999999999999",
        ] {
            assert_eq!(Float::parse(text.as_bytes()), None, "{text:?}");
        }
        assert_eq!(Float::parse(&[b'1'; TOO_LONG]), None);
    }

    #[test]
    fn a_sum_that_is_too_large_is_not_finite() {
        let large = Float::parse(b"1.1e4932").unwrap();
        assert!(!large.add(large).is_finite());
        assert!(large.add(Float::parse(b"-1.1e4932").unwrap()).is_finite());
        let infinite = Float::parse(b"-Infinity").unwrap();
        assert!(!infinite.add(large).is_finite());
        assert_eq!(large.print().len(), 4933);
    }
}
