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

use super::elements::{Elements, number, take};

/// Bytes in front of the elements: the size of all, where the last element is, and how many there are.
const HEADER: usize = 10;

/// The size of an element that takes more than one byte to be written.
const LONG: u8 = 254;

/// Adds the elements of a ziplist to `elements`, or says what is wrong with it.
pub fn read(bytes: &[u8], elements: &mut Elements) -> Result<(), &'static str> {
    const SHORT: &str = "a ziplist ends inside an element";
    let (header, mut rest) =
        bytes.split_first_chunk::<HEADER>().ok_or("a ziplist without a header")?;
    if number(&header[..4]) != bytes.len() as i64 {
        return Err("a ziplist of another size");
    }
    let before = elements.len();
    let mut size = 0;
    loop {
        let start = rest.len();
        match *rest.first().ok_or(SHORT)? {
            0xff if rest.len() == 1 => break,
            0xff => return Err("a ziplist ends before its end"),
            LONG => {
                rest = &rest[1..];
                let written = rest.split_off(..4).and_then(|four| four.first_chunk());
                let written = u32::from_le_bytes(*written.ok_or(SHORT)?) as usize;
                if written != size {
                    return Err("an element of a ziplist has another size before it");
                }
            }
            written if usize::from(written) == size => rest = &rest[1..],
            _ => return Err("an element of a ziplist has another size before it"),
        }
        element(&mut rest, elements).ok_or(SHORT)??;
        size = start - rest.len();
    }
    let count = usize::from(u16::from_le_bytes([header[8], header[9]]));
    match count {
        0xffff => Ok(()),
        _ if count == elements.len() - before => Ok(()),
        _ => Err("a ziplist counts other elements than it has"),
    }
}

/// `None` if the bytes end.
fn element(rest: &mut &[u8], elements: &mut Elements) -> Option<Result<(), &'static str>> {
    let first = *rest.split_off_first()?;
    let low = usize::from(first & 0x3f);
    match first {
        ..0x40 => elements.push(take(rest, low)?),
        0x40..0x80 => {
            let length = low << 8 | usize::from(*rest.split_off_first()?);
            elements.push(take(rest, length)?);
        }
        0x80 => {
            let length = u32::from_be_bytes(*rest.split_off(..4)?.first_chunk()?);
            elements.push(take(rest, length as usize)?);
        }
        0xc0 => elements.push_number(number(take(rest, 2)?)),
        0xd0 => elements.push_number(number(take(rest, 4)?)),
        0xe0 => elements.push_number(number(take(rest, 8)?)),
        0xf0 => elements.push_number(number(take(rest, 3)?)),
        0xfe => elements.push_number(number(take(rest, 1)?)),
        // The number itself, plus one.
        0xf1..=0xfd => elements.push_number(i64::from(first & 0x0f) - 1),
        _ => return Some(Err("an element of a ziplist has an unknown encoding")),
    }
    Some(Ok(()))
}
