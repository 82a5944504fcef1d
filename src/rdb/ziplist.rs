//! A ziplist: what a small collection was stored as before Redis 7.
//!
//! ```text
//! size      last      count   name       Ada       age      36
//! ┌────────┬─────────┬──────┬──────────┬─────────┬────────┬────────┬────┐   an element: how many bytes the one
//! │4 bytes │ 4 bytes │ 4· 0 │0 name    │6 Ada    │5 age   │5 36    │ ff │   before it has, how it is stored and
//! └────────┴─────────┴──────┴──────────┴─────────┴────────┴────────┴────┘   how long it is, and its bytes
//! ```
//!
//! It is only read.
//!
//! **How Redis does it**: ziplist.c. A change of one length may change those behind it, so there are no ziplists any
//! more.

use super::value::{Take, number};
use crate::types::Member;

/// Bytes in front of the elements: the size of all, where the last element is, and how many there are.
const HEADER: usize = 10;

/// The size of an element that takes more than one byte to be written.
const LONG: u8 = 254;

/// Stands behind the last element.
const END: u8 = 0xff;

const SHORT: &str = "a ziplist ends inside an element";
const OTHER_SIZE: &str = "an element of a ziplist has another size before it";

/// Hands the elements of a ziplist to `take`, or says what is wrong with it.
pub fn read(bytes: &[u8], take: &mut Take) -> Result<(), &'static str> {
    let (header, mut rest) =
        bytes.split_first_chunk::<HEADER>().ok_or("a ziplist without a header")?;
    if number(&header[..4]) != bytes.len() as i64 {
        return Err("a ziplist of another size");
    }
    let (mut count, mut size) = (0, 0);
    loop {
        let start = rest.len();
        match *rest.split_off_first().ok_or(SHORT)? {
            END if rest.is_empty() => break,
            END => return Err("a ziplist ends before its end"),
            LONG => {
                let written = number(rest.split_off(..4).ok_or(SHORT)?) as u32;
                if written as usize != size {
                    return Err(OTHER_SIZE);
                }
            }
            written if usize::from(written) == size => {}
            _ => return Err(OTHER_SIZE),
        }
        take(element(&mut rest)?)?;
        size = start - rest.len();
        count += 1;
    }
    match usize::from(u16::from_le_bytes([header[8], header[9]])) {
        0xffff => Ok(()),
        written if written == count => Ok(()),
        _ => Err("a ziplist counts other elements than it has"),
    }
}

fn element<'a>(rest: &mut &'a [u8]) -> Result<Member<'a>, &'static str> {
    let first = *rest.split_off_first().ok_or(SHORT)?;
    let low = usize::from(first & 0x3f);
    let mut bytes = |length| rest.split_off(..length).ok_or(SHORT);
    let number = match first {
        ..0x40 => return bytes(low).map(Member::Bytes),
        0x40..0x80 => {
            let length = low << 8 | usize::from(bytes(1)?[0]);
            return bytes(length).map(Member::Bytes);
        }
        0x80 => {
            let length = bytes(4)?.iter().fold(0, |length, byte| length << 8 | usize::from(*byte));
            return bytes(length).map(Member::Bytes);
        }
        0xc0 => number(bytes(2)?),
        0xd0 => number(bytes(4)?),
        0xe0 => number(bytes(8)?),
        0xf0 => number(bytes(3)?),
        0xfe => number(bytes(1)?),
        // The number itself, plus one.
        0xf1..=0xfd => i64::from(first & 0x0f) - 1,
        _ => return Err("an element of a ziplist has an unknown encoding"),
    };
    Ok(Member::Number(number))
}
