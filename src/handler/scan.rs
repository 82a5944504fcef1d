//! What SCAN and HSCAN have in common: a cursor, its options, and how the answer begins.
//!
//! ```text
//! SCAN        cursor [MATCH pattern] [COUNT count] [TYPE type]
//! HSCAN key   cursor [MATCH pattern] [COUNT count]
//! ```
//!
//! What a cursor means is the table's affair (table.rs). A client that sends another one than it
//! was given gets some part of the keys, as in Redis, so here it only has to be a number: an
//! unsigned one, which is why the parser for all other integers will not do.
//!
//! **How Redis does it**: db.c, `parseScanCursorOrReply`, which is C's `strtoul` and takes what
//! that takes: signs (`-1` is the greatest number) and nothing at all (0); and the first half of
//! `scanGenericCommand`.

use crate::error::Error;
use crate::handler::Stretch;
use crate::handler::args::{Cursor, integer};
use crate::resp::Reply;

/// What a client may say about the elements that it wants.
pub struct Options<'a> {
    /// A glob pattern for names; absent if all are wanted.
    pub pattern: Option<&'a [u8]>,
    /// About how many elements one call shall look at.
    pub count: usize,
    /// The type of the keys that are wanted, as TYPE tells it; SCAN alone has this.
    pub type_name: Option<&'a [u8]>,
}

/// Reads the cursor and the options after it.
pub fn parse<'a>(args: &mut Cursor<'a>, accepts_type: bool) -> Result<(u64, Options<'a>), Error> {
    let cursor = parse_cursor(args.next())?;
    Ok((cursor, parse_options(args, accepts_type)?))
}

/// Reads a cursor.
pub fn parse_cursor(text: &[u8]) -> Result<u64, Error> {
    let (negative, digits) = match text {
        [] => return Ok(0),
        [b'-', digits @ ..] => (true, digits),
        [b'+', digits @ ..] => (false, digits),
        digits => (false, digits),
    };
    // `u64::from_str` would take a second sign.
    if !digits.iter().all(u8::is_ascii_digit) {
        return Err(Error::InvalidCursor);
    }
    let number = str::from_utf8(digits).ok().and_then(|d| d.parse().ok());
    let number: u64 = number.ok_or(Error::InvalidCursor)?;
    Ok(if negative { number.wrapping_neg() } else { number })
}

/// Reads the options, up to the end of the command.
pub fn parse_options<'a>(args: &mut Cursor<'a>, accepts_type: bool) -> Result<Options<'a>, Error> {
    let mut options = Options { pattern: None, count: 10, type_name: None };
    while let Some(option) = args.option() {
        match &option[..] {
            b"MATCH" => options.pattern = Some(args.operand()?).filter(|&pattern| pattern != b"*"),
            b"COUNT" => match integer(args.operand()?)? {
                count if count >= 1 => options.count = count as usize,
                _ => return Err(Error::Syntax),
            },
            b"TYPE" if accepts_type => options.type_name = Some(args.operand()?),
            _ => return Err(Error::Syntax),
        }
    }
    Ok(options)
}

/// Begins the answer: the cursor with which to go on, 0 if that was all. The array of the elements
/// is to follow.
pub fn reply_with_cursor(next: u64, reply: &mut Reply) {
    reply.array(2);
    reply.bulk(next.to_string().as_bytes());
}

/// A SCAN under way. With a large COUNT it gives its lock back now and then, and others change the
/// table; that is as good as if the client had sent several small ones.
pub struct Walk {
    /// Where it goes on; 0 at the end.
    pub cursor: u64,
    count: usize,
    slots_left: usize,
    seen: Seen,
}

/// What it has come across.
pub struct Seen {
    /// Elements that were looked at, wanted or not.
    pub looked_at: usize,
    words: usize,
    /// The words of those that are wanted, as they will be sent.
    encoded: Reply,
}

impl Seen {
    /// Keeps a word for the answer.
    pub fn keep(&mut self, word: &[u8]) {
        self.encoded.bulk(word);
        self.words += 1;
    }
}

impl Walk {
    /// From the cursor on until about `count` elements have been looked at, in `slots` slots at most.
    pub fn new(cursor: u64, count: usize, slots: usize) -> Walk {
        Walk {
            cursor,
            count,
            slots_left: slots,
            seen: Seen { looked_at: 0, words: 0, encoded: Reply::new() },
        }
    }

    /// Goes on until the stretch is over, which is looked at now and then, or returns true.
    /// `visit` looks at the slot at a cursor, and returns the next cursor.
    pub fn go_on(
        &mut self,
        stretch: &Stretch,
        mut visit: impl FnMut(u64, &mut Seen) -> u64,
    ) -> bool {
        loop {
            self.cursor = visit(self.cursor, &mut self.seen);
            self.slots_left -= 1;
            if self.cursor == 0 || self.slots_left == 0 || self.seen.looked_at >= self.count {
                return true;
            }
            if self.slots_left.is_multiple_of(16) && stretch.is_over() {
                return false;
            }
        }
    }

    pub fn reply(&self, reply: &mut Reply) {
        reply_with_cursor(self.cursor, reply);
        reply.array(self.seen.words);
        let encoded = &self.seen.encoded.out;
        reply.out.append(encoded, 0..encoded.mark());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cursor_is_what_strtoul_takes() {
        let max = u64::MAX;
        for (text, cursor) in [
            ("0", Some(0)),
            ("", Some(0)),
            ("+5", Some(5)),
            ("007", Some(7)),
            ("-1", Some(max)),
            ("18446744073709551615", Some(max)),
            ("-18446744073709551615", Some(1)),
            ("18446744073709551616", None),
            (" 5", None),
            ("-", None),
            ("+-5", None),
            ("5x", None),
        ] {
            assert_eq!(parse_cursor(text.as_bytes()).ok(), cursor, "{text:?}");
        }
    }
}
