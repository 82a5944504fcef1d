//! The common part of SCAN, HSCAN and SSCAN: the cursor, the options, and the reply.
//!
//! ```text
//! SCAN        cursor [MATCH pattern] [COUNT count] [TYPE type]
//! HSCAN key   cursor [MATCH pattern] [COUNT count]     SSCAN the same
//! ```
//!
//! The table knows what a cursor means (table.rs). A client that makes up a cursor gets some part of the keys,
//! as in Redis. So any unsigned number is a cursor.
//!
//! **How Redis does it**: db.c. `parseScanCursorOrReply` uses C's `strtoul` and accepts the same: signs
//! (`-1` is the greatest number) and the empty text (0). The options are in `scanGenericCommand`.

use crate::error::Error;
use crate::glob;
use crate::handler::args::{Cursor, integer};
use crate::handler::{Rest, TimeSlice};
use crate::resp::{Args, Reply};
use crate::store::View;
use crate::types::{Entry, Type};

/// The options after the cursor.
pub struct Options<'a> {
    /// None stands for `*`.
    pub pattern: Option<&'a [u8]>,
    /// About how many elements one call looks at.
    pub count: usize,
    /// The type of the keys, in TYPE's words. Only SCAN has this.
    pub type_name: Option<&'a [u8]>,
}

pub fn parse_cursor(text: &[u8]) -> Result<u64, Error> {
    // To Redis it is a string of C, which ends at its first zero.
    let text = text.split(|byte| *byte == 0).next().unwrap_or_default();
    let (negative, digits) = match text {
        [] => return Ok(0),
        [b'-', digits @ ..] => (true, digits),
        [b'+', digits @ ..] => (false, digits),
        digits => (false, digits),
    };
    // `u64::from_str` would accept a second sign.
    if !digits.iter().all(u8::is_ascii_digit) {
        return Err(Error::InvalidCursor);
    }
    let number = str::from_utf8(digits).ok().and_then(|d| d.parse().ok());
    let number: u64 = number.ok_or(Error::InvalidCursor)?;
    Ok(if negative { number.wrapping_neg() } else { number })
}

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

/// Begins the reply with the next cursor, which is 0 at the end. The array of elements must follow.
pub fn reply_with_cursor(next: u64, reply: &mut Reply) {
    reply.array(2);
    reply.bulk(next.to_string().as_bytes());
}

/// HSCAN, SSCAN and ZSCAN. `visit` looks at the slot of a collection at a cursor, and returns the next cursor.
pub fn collection<'a, T: Type>(
    view: &View,
    args: &'a Args,
    slice: &TimeSlice,
    reply: &mut Reply,
    visit: impl Fn(T::Look<'_>, u64, &mut Walk) -> u64 + 'a,
) -> Result<Option<Rest<'a>>, Error> {
    let mut words = Cursor::at(args, 2);
    let cursor = parse_cursor(words.next())?;
    // Redis looks at the options only if there is something to scan.
    if view.get::<T>(args.key(1))?.is_none() {
        reply_with_cursor(0, reply);
        reply.array(0);
        return Ok(None);
    }
    let options = parse_options(&mut words, false)?;
    // Slots may be empty after many deletions; a call may look at no more than ten for each element.
    let slots = options.count.saturating_mul(10);
    let mut walk =
        Walk { pattern: options.pattern, ..Walk::new(cursor, options.count, slots, reply) };
    let look = move |view: &View, slice: &TimeSlice, reply: &mut Reply| {
        let done = walk.go_on(slice, |cursor, walk| {
            // What is no collection of this type any more has no more elements.
            let found = view.peek(args.key(1)).and_then(Entry::read::<T>);
            found.map_or(0, |found| visit(found, cursor, walk))
        });
        if done {
            walk.reply(reply);
        }
        done
    };
    Ok(Rest::look(look, view, slice, reply))
}

/// A SCAN under way. With a large COUNT it releases its lock from time to time, and others may change the
/// table. That is as if the client had sent several SCANs with a small COUNT.
pub struct Walk<'a> {
    /// Where it goes on. 0 at the end.
    pub cursor: u64,
    count: usize,
    slots_left: usize,
    /// Elements that were looked at, whether they matched or not.
    pub looked_at: usize,
    /// What the elements of a collection must match. None stands for `*`.
    pattern: Option<&'a [u8]>,
    /// How many elements are in the reply, and these elements as they will be sent.
    kept: usize,
    encoded: Reply,
}

impl<'a> Walk<'a> {
    /// From the cursor on until about `count` elements have been looked at, in `slots` slots at most. What it
    /// keeps counts as the reply does.
    pub fn new(cursor: u64, count: usize, slots: usize, reply: &Reply) -> Walk<'a> {
        let encoded = reply.out.other_charge().map_or_else(Reply::new, Reply::counted);
        Walk { cursor, count, slots_left: slots, looked_at: 0, pattern: None, kept: 0, encoded }
    }

    /// Counts an element of a collection. Returns whether it is to be kept.
    pub fn wants(&mut self, name: &[u8]) -> bool {
        self.looked_at += 1;
        self.pattern.is_none_or(|pattern| glob::matches(pattern, name, false))
    }

    pub fn keep(&mut self, element: &[u8]) {
        self.encoded.bulk(element);
        self.kept += 1;
    }

    /// Goes on to the end, and returns true; or until the slice is over. `visit` looks at the slot at a
    /// cursor and returns the next cursor.
    pub fn go_on(
        &mut self,
        time: &TimeSlice,
        mut visit: impl FnMut(u64, &mut Walk) -> u64,
    ) -> bool {
        loop {
            self.cursor = visit(self.cursor, self);
            self.slots_left -= 1;
            if self.cursor == 0 || self.slots_left == 0 || self.looked_at >= self.count {
                return true;
            }
            if self.slots_left.is_multiple_of(16) && time.is_over() {
                return false;
            }
        }
    }

    pub fn reply(&self, reply: &mut Reply) {
        reply_with_cursor(self.cursor, reply);
        reply.array(self.kept);
        let encoded = &self.encoded.out;
        reply.out.append(encoded, 0..encoded.mark());
    }
}
