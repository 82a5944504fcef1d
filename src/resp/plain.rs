//! The plain way: a shortcut for commands that are small, have arrived whole, and are written exactly
//! as we would write them. Nearly all are.
//!
//! ```text
//! *2\r\n$3\r\nGET\r\n$1\r\nk\r\n        plain: copied in one piece, which is also its record in the log
//!         └┬┘          ┴ the arguments, found where they lie
//! *2\r\n$03\r\nGET\r\n$1\r\nk\r\n       not plain, because we would not write the 0
//! GET k\r\n                          not plain: an inline command
//! ```
//!
//! It adds no rules: anything not in this form goes to the full parser, from its first byte. It need not
//! look at the limits. The lowest limit that can be set is 1 MiB, and what a client has sent lies in a buffer of
//! 64 KiB.
//!
//! It is here for speed alone. Without it a GET in a pipeline takes twice as many instructions, and a
//! logged SET 2.3 times as many.
//!
//! **How Redis does it**: it has one parser for all.

use super::args::Place;
use super::{Args, LARGE};

/// Takes a plain command from the front of `buffer`, if there is one. Returns how many bytes it has.
pub fn take(buffer: &[u8], args: &mut Args) -> Option<usize> {
    match find(buffer, &mut args.places) {
        Some(length) if args.len() > 0 => {
            args.bytes.extend_from_slice(&buffer[..length]);
            args.is_plain = true;
            Some(length)
        }
        _ => {
            args.places.clear();
            None
        }
    }
}

/// Finds the arguments of a plain command. Returns how many bytes it has.
fn find(buffer: &[u8], places: &mut Vec<Place>) -> Option<usize> {
    let (count, mut at) = line(buffer, b'*', 0)?;
    for _ in 0..count {
        let (length, start) = line(buffer, b'$', at).or_else(|| long_line(buffer, at))?;
        let end = start + length;
        if buffer.get(end..end + 2)? != b"\r\n" {
            return None;
        }
        places.push(Place::small(start, length));
        at = end + 2;
    }
    Some(at)
}

/// The same for the length of an argument with four or five digits, but no large one, which would get memory of its own.
#[cold]
fn long_line(buffer: &[u8], at: usize) -> Option<(usize, usize)> {
    let line = buffer.get(at..)?.strip_prefix(b"$")?;
    let digits = line.iter().take(5).take_while(|byte| byte.is_ascii_digit()).count();
    let number =
        line[..digits].iter().fold(0, |number, byte| 10 * number + usize::from(byte - b'0'));
    let is_plain = (1000..=LARGE).contains(&number) && line[0] != b'0';
    (is_plain && line[digits..].starts_with(b"\r\n")).then_some((number, at + digits + 3))
}

/// The number of the line that begins at `at`, and where the next line begins; only if the line is of
/// this kind and its number has one to three digits.
fn line(buffer: &[u8], kind: u8, at: usize) -> Option<(usize, usize)> {
    let digit = |byte: u8| usize::from(byte - b'0');
    match *buffer.get(at..)?.strip_prefix(&[kind])? {
        [a @ b'0'..=b'9', b'\r', b'\n', ..] => Some((digit(a), at + 4)),
        [a @ b'1'..=b'9', b @ b'0'..=b'9', b'\r', b'\n', ..] => {
            Some((10 * digit(a) + digit(b), at + 5))
        }
        [a @ b'1'..=b'9', b @ b'0'..=b'9', c @ b'0'..=b'9', b'\r', b'\n', ..] => {
            Some((100 * digit(a) + 10 * digit(b) + digit(c), at + 6))
        }
        _ => None,
    }
}
