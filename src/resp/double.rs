//! Doubles as text: the scores of sorted sets, read as C's `strtod` reads and written as its `%.17g` writes.
//!
//! ```text
//! 3            3                          .1     0.10000000000000001      17 digits say exactly which double
//! 1e17         1e+17                      0x10   16                       strtod reads hexadecimal too
//! ```
//!
//! Rust reads decimal digits as exactly as C does, and writes 17 of them with an exponent. So only the
//! shape is left to be done here, and the hexadecimal numbers.
//!
//! **How Redis does it**: `string2d` and `d2string` in util.c, and `addReplyDouble`. A sorted set that is a
//! listpack keeps whole numbers as integers there, so ZSCAN shows them in another form
//! ([`print_in_listpack`]).

use super::{Digits, parse_integer};

/// The number that the text is, all of it. `None` for what is none, for NaN, and for what is too large or
/// too small for a double (Redis's `getDoubleFromObject`).
pub fn parse_double(text: &[u8]) -> Option<f64> {
    if text.first().is_none_or(|&byte| is_space(byte)) {
        return None;
    }
    // Most are a few digits, for which a double has room.
    if text.len() <= 15 && text.iter().all(u8::is_ascii_digit) {
        let number = text.iter().fold(0, |number, digit| 10 * number + u64::from(digit - b'0'));
        return Some(number as f64);
    }
    let read = strtod(text);
    let is_whole = read.length == text.len();
    (is_whole && read.is_in_range && !read.number.is_nan()).then_some(read.number)
}

/// The end of a range of scores, which Redis reads less strictly: up to the first NUL, with spaces before
/// it, as infinity if it is too large; and nothing at all is 0 (`zslParseRange`).
pub fn parse_bound(text: &[u8]) -> Option<f64> {
    let text = text.split(|&byte| byte == 0).next().unwrap_or_default();
    let read = strtod(text);
    (read.length == text.len() && !read.number.is_nan()).then_some(read.number)
}

/// What SORT compares, as Redis reads it: like the end of a range, but not if a double has no room for it.
/// Room for some of its digits is not enough.
pub fn parse_weight(text: &[u8]) -> Option<f64> {
    if let Some(number) = parse_integer(text) {
        return Some(number as f64);
    }
    let text = text.split(|&byte| byte == 0).next().unwrap_or_default();
    let read = strtod(text);
    let fits = read.is_in_range && !read.number.is_subnormal() && !read.number.is_nan();
    (read.length == text.len() && fits).then_some(read.number)
}

/// What `strtod` says of a text.
struct Strtod {
    number: f64,
    /// How many bytes the number has, with the spaces before it; 0 if there is no number.
    length: usize,
    /// Whether a double has room for it.
    is_in_range: bool,
}

fn strtod(text: &[u8]) -> Strtod {
    let spaces = text.iter().take_while(|&&byte| is_space(byte)).count();
    let signs = usize::from(matches!(text.get(spaces), Some(b'-' | b'+')));
    let start = spaces + signs;
    let rest = &text[start..];
    let word = |word: &[u8]| rest.get(..word.len()).is_some_and(|r| r.eq_ignore_ascii_case(word));
    let (number, length, is_in_range) = if word(b"infinity") {
        (f64::INFINITY, 8, true)
    } else if word(b"inf") {
        (f64::INFINITY, 3, true)
    } else if word(b"nan") {
        (f64::NAN, 3, true)
    } else if let Some(read) = hexadecimal(rest) {
        read
    } else {
        decimal(rest)
    };
    let number = if text.get(spaces) == Some(&b'-') { -number } else { number };
    Strtod { number, length: if length == 0 { 0 } else { start + length }, is_in_range }
}

/// As C's `isspace`.
fn is_space(byte: u8) -> bool {
    matches!(byte, b' ' | b'\t'..=b'\r')
}

/// A decimal number, its length, and whether a double has room for it.
fn decimal(text: &[u8]) -> (f64, usize, bool) {
    let (length, digits) = digits_of(text, |byte| byte.is_ascii_digit());
    if digits == 0 {
        return (0.0, 0, true);
    }
    let length = length + exponent_length(&text[length..], b'e');
    let number = &text[..length];
    let parsed = str::from_utf8(number).ok().and_then(|number| number.parse::<f64>().ok());
    let parsed = parsed.unwrap_or(0.0);
    let mut mantissa = number.iter().take_while(|byte| !matches!(byte, b'e' | b'E'));
    let is_zero = mantissa.all(|byte| matches!(byte, b'0' | b'.'));
    (parsed, length, parsed.is_finite() && (parsed != 0.0 || is_zero))
}

/// The same for a hexadecimal number; `None` if the text does not begin with one.
fn hexadecimal(text: &[u8]) -> Option<(f64, usize, bool)> {
    let [b'0', b'x' | b'X', rest @ ..] = text else {
        return None;
    };
    let (length, digits) = digits_of(rest, |byte| byte.is_ascii_hexdigit());
    if digits == 0 {
        return None;
    }
    // The first bits of the mantissa; the last of them is set if anything stands behind them.
    let (mut bits, mut exponent, mut behind_point) = (0u64, 0i64, false);
    for &byte in &rest[..length] {
        let Some(digit) = char::from(byte).to_digit(16) else {
            behind_point = true;
            continue;
        };
        let is_full = bits >> 60 != 0;
        bits = if is_full { bits | u64::from(digit != 0) } else { bits << 4 | u64::from(digit) };
        exponent += 4 * (i64::from(is_full) - i64::from(behind_point));
    }
    let whole = length + exponent_length(&rest[length..], b'p');
    if whole > length {
        let text = str::from_utf8(&rest[length + 1..whole]).unwrap_or_default();
        // Too many digits to be parsed are too much for a double.
        let limit = if text.starts_with('-') { -1_000_000 } else { 1_000_000 };
        exponent += text.parse::<i64>().map_or(limit, |e| e.clamp(-1_000_000, 1_000_000));
    }
    let number = scaled(bits, exponent);
    Some((number, 2 + whole, number.is_finite() && (number != 0.0 || bits == 0)))
}

/// The double next to `bits · 2^exponent`, and of two that are as near the even one.
fn scaled(bits: u64, exponent: i64) -> f64 {
    if bits == 0 {
        return 0.0;
    }
    // The mantissa of a double has 53 bits, and fewer near the least one, 2^-1074.
    let excess = (64 - i64::from(bits.leading_zeros()) - 53).max(-1074 - exponent);
    let (mantissa, exponent) = match excess {
        ..=0 => (bits, exponent),
        1..=64 => {
            let rest = u128::from(bits) << 64 >> excess;
            let (whole, half) = ((rest >> 64) as u64, rest as u64);
            let up = half > 1 << 63 || (half == 1 << 63 && whole % 2 == 1);
            (whole + u64::from(up), exponent + excess)
        }
        _ => (0, 0),
    };
    // Powers of two that a double has exactly. One step could leave the range too early.
    let power = |exponent: i64| 2f64.powi(exponent.clamp(-1022, 1023) as i32);
    let half = exponent / 2;
    mantissa as f64 * power(half) * power(exponent - half)
}

/// How long digits with at most one point are, and how many of these are digits.
fn digits_of(text: &[u8], is_digit: impl Fn(&u8) -> bool) -> (usize, usize) {
    let whole = text.iter().take_while(|byte| is_digit(byte)).count();
    match text.get(whole) {
        Some(b'.') => {
            let fraction = text[whole + 1..].iter().take_while(|byte| is_digit(byte)).count();
            (whole + 1 + fraction, whole + fraction)
        }
        _ => (whole, whole),
    }
}

/// How long an exponent behind the digits is: a letter, perhaps a sign, and digits; or 0.
fn exponent_length(text: &[u8], letter: u8) -> usize {
    let signs = usize::from(matches!(text.get(1), Some(b'-' | b'+')));
    let digits = text.iter().skip(1 + signs).take_while(|byte| byte.is_ascii_digit()).count();
    let is_there = text.first().is_some_and(|byte| byte.eq_ignore_ascii_case(&letter));
    if is_there && digits > 0 { 1 + signs + digits } else { 0 }
}

/// Appends the number as C's `%.17g` prints it.
pub fn print_double(number: f64, out: &mut Vec<u8>) {
    // A whole number of up to 17 digits is its digits.
    if number.abs() < 1e17 && number.trunc() == number && !is_negative_zero(number) {
        return out.extend_from_slice(Digits::new(number as i64).as_bytes());
    }
    if !number.is_finite() || number == 0.0 {
        let text = if number == 0.0 {
            "-0"
        } else if number > 0.0 {
            "inf"
        } else {
            "-inf"
        };
        return out.extend_from_slice(text.as_bytes());
    }
    let text = format!("{number:.16e}");
    let (mantissa, exponent) = text.split_once('e').unwrap_or((&text, "0"));
    let exponent: i32 = exponent.parse().unwrap_or(0);
    let digits = mantissa.trim_end_matches('0').trim_end_matches('.');
    let (sign, digits) = digits.split_at(usize::from(digits.starts_with('-')));
    out.extend_from_slice(sign.as_bytes());
    if !(-4..17).contains(&exponent) {
        let sign = if exponent < 0 { '-' } else { '+' };
        let text = format!("{digits}e{sign}{:02}", exponent.unsigned_abs());
        return out.extend_from_slice(text.as_bytes());
    }
    let digits = digits.replace('.', "");
    if exponent < 0 {
        let zeros = "0.000".get(..1 + exponent.unsigned_abs() as usize).unwrap_or_default();
        out.extend_from_slice(zeros.as_bytes());
        return out.extend_from_slice(digits.as_bytes());
    }
    // It is no whole number, so there are digits behind the point.
    let (whole, fraction) = digits.split_at(1 + exponent as usize);
    out.extend_from_slice(format!("{whole}.{fraction}").as_bytes());
}

/// Appends the number as Redis keeps it in a listpack: as a whole number if it can be one, without the sign
/// of a negative zero.
pub fn print_in_listpack(number: f64, out: &mut Vec<u8>) {
    let is_whole = number.abs() <= (i64::MAX / 2) as f64 && number.trunc() == number;
    match is_whole {
        true => out.extend_from_slice(Digits::new(number as i64).as_bytes()),
        false => print_double(number, out),
    }
}

fn is_negative_zero(number: f64) -> bool {
    number == 0.0 && number.is_sign_negative()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn printed(number: f64) -> String {
        let mut out = Vec::new();
        print_double(number, &mut out);
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn a_double_is_printed_as_c_prints_it_and_reads_back() {
        for (number, text) in [
            (0.0, "0"),
            (-0.0, "-0"),
            (3.0, "3"),
            (-12.5, "-12.5"),
            (0.1, "0.10000000000000001"),
            (0.0001, "0.0001"),
            (0.00012345, "0.00012344999999999999"),
            (0.00001, "1.0000000000000001e-05"),
            (123456.789, "123456.789"),
            (9007199254740993.0, "9007199254740992"),
            (99999999999999984.0, "99999999999999984"),
            (1e17, "1e+17"),
            (123456789012345678.0, "1.2345678901234568e+17"),
            (-1.5e300, "-1.5000000000000001e+300"),
            (5e-324, "4.9406564584124654e-324"),
            (f64::MAX, "1.7976931348623157e+308"),
            (f64::INFINITY, "inf"),
            (f64::NEG_INFINITY, "-inf"),
        ] {
            assert_eq!(printed(number), text);
            assert_eq!(parse_double(text.as_bytes()).map(f64::to_bits), Some(number.to_bits()));
        }
        let mut out = Vec::new();
        [-0.0, 1e17, 5e18, 0.5].iter().for_each(|number| print_in_listpack(*number, &mut out));
        assert_eq!(out, b"01000000000000000005e+180.5");
    }

    #[test]
    fn a_text_is_read_as_strtod_reads_it() {
        for (text, number) in [
            ("5", 5.0),
            ("0012", 12.0),
            ("999999999999999", 999999999999999.0),
            ("9999999999999999", 1e16),
            ("+.5", 0.5),
            ("-3.", -3.0),
            ("1e3", 1000.0),
            ("1E-3", 0.001),
            ("Inf", f64::INFINITY),
            ("-infinity", f64::NEG_INFINITY),
            ("0x10", 16.0),
            ("-0X.8p1", -1.0),
            ("0x1p-1074", 5e-324),
            // A half goes to the even neighbour, a little more up.
            ("0x20000000000001", 9007199254740992.0),
            ("0x20000000000003", 9007199254740996.0),
            ("0x20000000000001.00000000001", 9007199254740994.0),
            ("0x1.8p-1074", 1e-323),
            ("0x1.fffffffffffffp1023", f64::MAX),
            ("0e999999999999999999999", 0.0),
        ] {
            assert_eq!(parse_double(text.as_bytes()), Some(number), "{text}");
            assert_eq!(parse_bound(format!(" {text}\0x").as_bytes()), Some(number), "{text}");
        }
        for text in ["x", "1x", "1e", "1e+", ".", "0x", "0x.p1", "1..2", "nan", "--1", "1_0", "e5"]
        {
            assert_eq!(parse_double(text.as_bytes()), None, "{text}");
            assert_eq!(parse_bound(text.as_bytes()), None, "{text}");
        }
        for (text, bound) in [
            ("", 0.0),
            (" 1", 1.0),
            ("\n-2", -2.0),
            ("1e400", f64::INFINITY),
            ("-0x1p1024", f64::NEG_INFINITY),
            ("0x1.fffffffffffff8p1023", f64::INFINITY),
            ("1e-400", 0.0),
            ("0x1p-1076", 0.0),
            ("0x1p-99999999999999999999", 0.0),
            ("1\0", 1.0),
        ] {
            assert_eq!(parse_double(text.as_bytes()), None, "{text}");
            assert_eq!(parse_bound(text.as_bytes()), Some(bound), "{text}");
        }
        for text in ["1e400", "1e-400", "5e-324", "-0x1p-1076", "nan", " ", "-", "x", "1x", "0x"] {
            assert_eq!(parse_weight(text.as_bytes()), None, "{text}");
        }
        for (text, weight) in [
            ("", 0.0),
            ("\0x", 0.0),
            (" 1\0x", 1.0),
            ("9007199254740993", 9007199254740992.0),
            ("2.2250738585072014e-308", f64::MIN_POSITIVE),
            ("-inf", f64::NEG_INFINITY),
        ] {
            assert_eq!(parse_weight(text.as_bytes()), Some(weight), "{text}");
        }
    }
}
