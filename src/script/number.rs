//! Numbers as text, and text as numbers, as C's `printf` and `strtod` do it for Lua.
//!
//! ```text
//! to_text       0.1 → 0.1       2^53 → 9.007199254741e+15       1/0 → inf
//! from_text     " 0x10 " → 16       "1e2" → 100       "1 2" → none
//! ```
//!
//! **How Redis does it**: all numbers of Lua 5.1 are doubles, and it leaves their texts to the C library.
//! Here std does the hard part: the nearest double, and the nearest digits.

use std::fmt::Write;

/// What C does when it makes an integer of a double: what is too large, or no number, becomes the
/// smallest integer.
pub fn to_integer(number: f64) -> i64 {
    let fits = (-9_223_372_036_854_775_808.0..9_223_372_036_854_775_808.0).contains(&number);
    if fits { number as i64 } else { i64::MIN }
}

/// What C does when it makes an unsigned integer of a double. From 2^64 on, that is 0.
pub fn to_unsigned(number: f64) -> u64 {
    const HALF: f64 = 9_223_372_036_854_775_808.0;
    match number >= HALF {
        true => to_integer(number - HALF) as u64 ^ 1 << 63,
        false => to_integer(number) as u64,
    }
}

/// The same with an integer of 32 bits.
pub fn to_int(number: f64) -> i32 {
    let fits = number > -2_147_483_649.0 && number < 2_147_483_648.0;
    if fits { number as i32 } else { i32::MIN }
}

/// As `printf("%.14g")`.
pub fn to_text(number: f64) -> Vec<u8> {
    let is_minus_zero = number == 0.0 && number.is_sign_negative();
    if number == number.trunc() && number.abs() < 1e14 && !is_minus_zero {
        return (number as i64).to_string().into_bytes();
    }
    general(number, 14).into_bytes()
}

/// As `printf("%.*g")`: that many digits at most, zeros at the end left out, and with an exponent
/// if the number is very large or small.
pub fn general(number: f64, digits: usize) -> String {
    let sign = if number.is_sign_negative() { "-" } else { "" };
    if !number.is_finite() {
        return format!("{sign}{}", if number.is_nan() { "nan" } else { "inf" });
    }
    let (mut digits, exponent) = decimal(number.abs(), digits.max(1));
    let (count, used) = (digits.len(), digits.trim_end_matches('0').len());
    digits.truncate(used.max(1));
    sign.to_string() + &place_point(&digits, exponent, count)
}

/// The same with the zeros at the end, for a finite number that is not negative.
pub fn general_with_zeros(number: f64, digits: usize) -> String {
    let (digits, exponent) = decimal(number, digits.max(1));
    place_point(&digits, exponent, digits.len())
}

/// As `printf("%.*e")`, for a finite number that is not negative.
pub fn scientific(number: f64, precision: usize) -> String {
    let (digits, exponent) = decimal(number, precision + 1);
    with_exponent(&digits, exponent)
}

/// That many digits, rounded, and the exponent of ten of the first one.
fn decimal(number: f64, count: usize) -> (String, i32) {
    let mut text = String::with_capacity(count + 8);
    let _ = write!(text, "{number:.*e}", count - 1);
    let mark = text.rfind('e').unwrap_or(text.len());
    let exponent = text[mark..].trim_start_matches('e').parse().unwrap_or(0);
    text.truncate(mark);
    if count > 1 {
        text.remove(1);
    }
    (text, exponent)
}

/// Digits, the first of them with that exponent, as `%g` writes them with that many digits.
fn place_point(digits: &str, exponent: i32, count: usize) -> String {
    if exponent < -4 || exponent >= count as i32 {
        return with_exponent(digits, exponent);
    }
    if exponent < 0 {
        return ["0.", &"000"[..-exponent as usize - 1], digits].concat();
    }
    let whole = exponent as usize + 1;
    match digits.len() > whole {
        true => [&digits[..whole], ".", &digits[whole..]].concat(),
        false => digits.to_string() + &"0".repeat(whole - digits.len()),
    }
}

fn with_exponent(digits: &str, exponent: i32) -> String {
    let sign = if exponent < 0 { '-' } else { '+' };
    let (first, others) = digits.split_at(1);
    let point = if others.is_empty() { "" } else { "." };
    format!("{first}{point}{others}e{sign}{:02}", exponent.abs())
}

/// As C's `strtoul` with a base, and blanks behind it.
pub fn integer_from_text(text: &[u8], base: u32) -> Option<f64> {
    let (negative, digits) = signed(trim(c_string(text)));
    let digits = match digits {
        [b'0', b'x' | b'X', rest @ ..] if base == 16 && !rest.is_empty() => rest,
        _ => digits,
    };
    let mut value = Some(0u64);
    for byte in digits {
        let digit = u64::from(char::from(*byte).to_digit(base)?);
        value = value.and_then(|value| value.checked_mul(base.into())?.checked_add(digit));
    }
    let value = match value {
        None => u64::MAX,
        Some(value) if negative => value.wrapping_neg(),
        Some(value) => value,
    };
    (!digits.is_empty()).then_some(value as f64)
}

/// To C a string ends at its first zero.
pub fn c_string(text: &[u8]) -> &[u8] {
    text.split(|byte| *byte == 0).next().unwrap_or(text)
}

/// As Lua reads a number from a string: what `strtod` takes, with blanks around it.
pub fn from_text(text: &[u8]) -> Option<f64> {
    let (negative, digits) = signed(trim(c_string(text)));
    let number = match digits {
        [b'0', b'x' | b'X', hex @ ..] => from_hex(hex)?,
        [b'0'..=b'9' | b'.', ..] => std::str::from_utf8(digits).ok()?.parse().ok()?,
        _ => match &digits.to_ascii_lowercase()[..] {
            b"inf" | b"infinity" => f64::INFINITY,
            b"nan" => f64::NAN,
            _ => return None,
        },
    };
    Some(if negative { -number } else { number })
}

/// The number with which a text begins, as C's `strtod` finds it, and how long it is.
pub fn at_start(text: &[u8]) -> Option<(f64, usize)> {
    let sign = usize::from(matches!(text, [b'-' | b'+', ..]));
    let rest = &text[sign..];
    let hex = match rest {
        [b'0', b'x' | b'X', hex @ ..] => length_of(hex, u8::is_ascii_hexdigit, b'p'),
        _ => 0,
    };
    let decimal = length_of(rest, u8::is_ascii_digit, b'e');
    let length = if hex > 0 { hex + 2 } else { decimal };
    if length > 0 {
        return Some((from_text(&text[..sign + length])?, sign + length));
    }
    let begins_with =
        |word: &[u8]| rest.get(..word.len()).is_some_and(|begin| begin.eq_ignore_ascii_case(word));
    let word = ["infinity", "inf", "nan"].into_iter().find(|word| begins_with(word.as_bytes()))?;
    let mut length = sign + word.len();
    let number = from_text(&text[..length])?;
    // C allows `nan(12)`, and nobody sees the number.
    if number.is_nan() && text.get(length) == Some(&b'(') {
        let is_inside = |byte: &u8| byte.is_ascii_alphanumeric() || *byte == b'_';
        let inside = text[length + 1..].iter().take_while(|byte| is_inside(byte)).count();
        if text.get(length + 1 + inside) == Some(&b')') {
            length += inside + 2;
        }
    }
    Some((number, length))
}

/// How long a number without sign is: digits, perhaps with a point, perhaps with an exponent.
fn length_of(text: &[u8], is_digit: fn(&u8) -> bool, exponent: u8) -> usize {
    let digits = |from: usize, is_digit: fn(&u8) -> bool| {
        text.iter().skip(from).take_while(|byte| is_digit(byte)).count()
    };
    let mut length = digits(0, is_digit);
    if text.get(length) == Some(&b'.') {
        let fraction = digits(length + 1, is_digit);
        if length + fraction > 0 {
            length += 1 + fraction;
        }
    }
    if length > 0 && text.get(length).is_some_and(|byte| byte.eq_ignore_ascii_case(&exponent)) {
        let sign = usize::from(matches!(text.get(length + 1), Some(b'-' | b'+')));
        let power = digits(length + 1 + sign, u8::is_ascii_digit);
        if power > 0 {
            length += 1 + sign + power;
        }
    }
    length
}

/// Whether a minus stands before a number, and what follows the sign.
fn signed(text: &[u8]) -> (bool, &[u8]) {
    match text {
        [b'-', rest @ ..] => (true, rest),
        [b'+', rest @ ..] => (false, rest),
        _ => (false, text),
    }
}

/// Without C's blanks at both ends.
fn trim(mut text: &[u8]) -> &[u8] {
    let is_blank = |byte: &u8| matches!(byte, b' ' | 9..=13);
    while let [first, rest @ ..] = text
        && is_blank(first)
    {
        text = rest;
    }
    while let [rest @ .., last] = text
        && is_blank(last)
    {
        text = rest;
    }
    text
}

/// Hexadecimal digits, perhaps with a point, perhaps with an exponent of two behind `p`.
fn from_hex(text: &[u8]) -> Option<f64> {
    let end = text.iter().position(|byte| matches!(byte, b'p' | b'P')).unwrap_or(text.len());
    let mut exponent = 0i64;
    if end < text.len() {
        let digits = std::str::from_utf8(&text[end + 1..]).ok()?;
        let whole = digits.strip_prefix(['-', '+']).unwrap_or(digits);
        if whole.is_empty() || !whole.bytes().all(|byte| byte.is_ascii_digit()) {
            return None;
        }
        let limit = if digits.starts_with('-') { -1_000_000 } else { 1_000_000 };
        exponent = digits.parse().unwrap_or(limit).clamp(-1_000_000, 1_000_000);
    }
    let (mut mantissa, mut digits, mut behind_point) = (0u64, 0, false);
    for byte in &text[..end] {
        if *byte == b'.' && !behind_point {
            behind_point = true;
            continue;
        }
        let digit = u64::from(char::from(*byte).to_digit(16)?);
        digits += 1;
        exponent -= if behind_point { 4 } else { 0 };
        if mantissa >> 59 == 0 {
            mantissa = mantissa << 4 | digit;
        } else {
            // A bit that stands for all that is lost, so that it is rounded correctly.
            mantissa |= u64::from(digit != 0);
            exponent += 4;
        }
    }
    (digits > 0).then(|| scale(mantissa as f64, exponent))
}

/// `number` times 2 to the power of `exponent`, in steps that do not overflow on the way.
pub fn scale(mut number: f64, mut exponent: i64) -> f64 {
    while exponent != 0 && number != 0.0 && number.is_finite() {
        let step = exponent.clamp(-1000, 1000);
        number *= 2f64.powi(step as i32);
        exponent -= step;
    }
    number
}

/// Lua's `%`: the result has the sign of the divisor.
#[inline]
pub fn modulo(left: f64, right: f64) -> f64 {
    left - (left / right).floor() * right
}
