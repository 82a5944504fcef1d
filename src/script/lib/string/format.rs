//! `format`: C's `printf`.
//!
//! ```text
//! %-08.3f
//!  ││││ └── what: a number with a point
//!  │││└──── precision: digits behind the point
//!  ││└───── width: at least that many bytes
//!  └┴────── flags: to the left, filled with zeros
//! ```
//!
//! Flags can be repeated and combined in any way, also where they make no sense. The results are
//! those of the GNU C library.
//!
//! **How Redis does it**: Lua copies each item to a small buffer and gives it to `sprintf`. So a
//! string ends at its first zero there, and a long one is not formatted at all. Both are kept.

use crate::script::lib::{Call, Outcome};
use crate::script::number;
use crate::script::value::Error;

/// How many flags an item may have.
const MAX_FLAGS: usize = 5;
/// A string that is longer, and has no precision, is taken as it is, with all zeros in it.
const MAX_STRING: usize = 99;

/// How an item is to look.
struct Layout {
    left: bool,
    plus: bool,
    blank: bool,
    /// `#`: with `0x`, or with a point in any case.
    alternate: bool,
    zeros: bool,
    width: usize,
    precision: Option<usize>,
}

pub fn format(call: &mut Call) -> Result<Outcome, Error> {
    let template = call.string(1)?;
    let template = call.bytes(template).to_vec();
    let mut rest = &template[..];
    let mut result = call.buffer();
    let mut number = 1;
    while let Some(at) = rest.iter().position(|byte| *byte == b'%') {
        result.extend_from_slice(&rest[..at]);
        rest = &rest[at + 1..];
        if let [b'%', behind @ ..] = rest {
            result.push(b'%');
            rest = behind;
            continue;
        }
        number += 1;
        if !call.is_given(number) {
            return Err(call.bad_argument(number, "no value"));
        }
        let layout = Layout::read(&mut rest).map_err(|text| call.error(text))?;
        // What follows the last byte is a zero, as in C.
        let (kind, behind) = rest.split_first().unwrap_or((&0, b""));
        rest = behind;
        item(call, number, &layout, *kind, &mut result)?;
        call.check_room(result.len())?;
    }
    result.extend_from_slice(rest);
    call.give_buffer(result)
}

/// Adds an argument to the result.
fn item(
    call: &mut Call,
    number: usize,
    layout: &Layout,
    kind: u8,
    result: &mut Vec<u8>,
) -> Result<(), Error> {
    match kind {
        b'c' => {
            let byte = number::to_int(call.number(number)?) as u8;
            let begin = result.len();
            layout.fill("", &[byte], false, result);
            until_zero(result, begin);
        }
        b'd' | b'i' => layout.signed(call.integer(number)?, result),
        b'o' | b'u' | b'x' | b'X' => {
            layout.unsigned(number::to_unsigned(call.number(number)?), kind, result);
        }
        b'e' | b'E' | b'f' | b'g' | b'G' => layout.float(call.number(number)?, kind, result),
        b'q' => {
            let text = call.string(number)?;
            call.check_room(result.len() + call.bytes(text).len() * 2)?;
            quote(call.bytes(text), result);
        }
        b's' => {
            let text = call.string(number)?;
            let text = call.bytes(text);
            call.check_room(result.len() + text.len())?;
            if layout.precision.is_none() && text.len() > MAX_STRING {
                result.extend_from_slice(text);
                return Ok(());
            }
            let end = number::c_string(text).len();
            let end = layout.precision.map_or(end, |precision| end.min(precision));
            layout.fill("", &text[..end], false, result);
        }
        _ => {
            let kind: &[u8] = if kind == 0 { b"" } else { &[kind] };
            return Err(call.error([b"invalid option '%", kind, b"' to 'format'"].concat()));
        }
    }
    Ok(())
}

impl Layout {
    /// Reads what stands between `%` and the letter.
    fn read(rest: &mut &[u8]) -> Result<Layout, &'static str> {
        let is_flag = |byte: &u8| b"-+ #0".contains(byte);
        let length = rest.iter().position(|byte| !is_flag(byte)).unwrap_or(rest.len());
        if length > MAX_FLAGS {
            return Err("invalid format (repeated flags)");
        }
        let (flags, behind) = rest.split_at(length);
        *rest = behind;
        let width = two_digits(rest);
        let precision = rest.strip_prefix(b".").map(|behind| {
            *rest = behind;
            two_digits(rest)
        });
        if rest.first().is_some_and(u8::is_ascii_digit) {
            return Err("invalid format (width or precision too long)");
        }
        Ok(Layout {
            left: flags.contains(&b'-'),
            plus: flags.contains(&b'+'),
            blank: flags.contains(&b' '),
            alternate: flags.contains(&b'#'),
            zeros: flags.contains(&b'0'),
            width,
            precision,
        })
    }

    fn sign(&self, is_negative: bool) -> &'static str {
        match is_negative {
            true => "-",
            false if self.plus => "+",
            false if self.blank => " ",
            false => "",
        }
    }

    fn signed(&self, number: i64, out: &mut Vec<u8>) {
        let digits = self.digits(number.unsigned_abs().to_string());
        self.fill(self.sign(number < 0), digits.as_bytes(), self.precision.is_none(), out);
    }

    fn unsigned(&self, number: u64, kind: u8, out: &mut Vec<u8>) {
        let mut digits = self.digits(match kind {
            b'o' => format!("{number:o}"),
            b'x' => format!("{number:x}"),
            b'X' => format!("{number:X}"),
            _ => number.to_string(),
        });
        let mut prefix = "";
        match kind {
            b'o' if self.alternate && !digits.starts_with('0') => digits.insert(0, '0'),
            b'x' if self.alternate && number > 0 => prefix = "0x",
            b'X' if self.alternate && number > 0 => prefix = "0X",
            _ => {}
        }
        self.fill(prefix, digits.as_bytes(), self.precision.is_none(), out);
    }

    /// The digits of an integer, as many as the precision wants. With precision 0, 0 has none.
    fn digits(&self, digits: String) -> String {
        match self.precision {
            Some(0) if digits == "0" => String::new(),
            Some(precision) => format!("{digits:0>precision$}"),
            None => digits,
        }
    }

    fn float(&self, number: f64, kind: u8, out: &mut Vec<u8>) {
        let sign = self.sign(number.is_sign_negative());
        let (size, precision) = (number.abs(), self.precision.unwrap_or(6));
        let mut digits = match kind.to_ascii_lowercase() {
            _ if size.is_nan() => "nan".to_string(),
            _ if size.is_infinite() => "inf".to_string(),
            b'f' => format!("{size:.precision$}"),
            b'e' => number::scientific(size, precision),
            _ if self.alternate => number::general_with_zeros(size, precision),
            _ => number::general(size, precision),
        };
        if self.alternate && size.is_finite() && !digits.contains('.') {
            digits.insert(digits.find('e').unwrap_or(digits.len()), '.');
        }
        if kind.is_ascii_uppercase() {
            digits.make_ascii_uppercase();
        }
        self.fill(sign, digits.as_bytes(), size.is_finite(), out);
    }

    /// Adds sign and digits, and what fills them up to the width: zeros between them, if there may
    /// be zeros, or else blanks on one side.
    fn fill(&self, sign: &str, digits: &[u8], may_be_zeros: bool, out: &mut Vec<u8>) {
        let missing = self.width.saturating_sub(sign.len() + digits.len());
        let zeros = if self.zeros && !self.left && may_be_zeros { missing } else { 0 };
        let before = if self.left { 0 } else { missing - zeros };
        let behind = missing - zeros - before;
        out.resize(out.len() + before, b' ');
        out.extend_from_slice(sign.as_bytes());
        out.resize(out.len() + zeros, b'0');
        out.extend_from_slice(digits);
        out.resize(out.len() + behind, b' ');
    }
}

/// Reads a number of at most two digits, or 0.
fn two_digits(rest: &mut &[u8]) -> usize {
    let mut number = 0;
    for _ in 0..2 {
        if let [digit @ b'0'..=b'9', behind @ ..] = *rest {
            number = number * 10 + usize::from(digit - b'0');
            *rest = behind;
        }
    }
    number
}

/// C takes what it has written for a string, which ends at a zero.
fn until_zero(result: &mut Vec<u8>, begin: usize) {
    if let Some(zero) = result[begin..].iter().position(|byte| *byte == 0) {
        result.truncate(begin + zero);
    }
}

/// A string as it could stand in a source.
fn quote(text: &[u8], out: &mut Vec<u8>) {
    out.push(b'"');
    for byte in text {
        match byte {
            b'"' | b'\\' | b'\n' => out.extend([b'\\', *byte]),
            b'\r' => out.extend(b"\\r"),
            0 => out.extend(b"\\000"),
            _ => out.push(*byte),
        }
    }
    out.push(b'"');
}
