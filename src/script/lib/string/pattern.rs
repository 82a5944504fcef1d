//! Lua's patterns: where in a text one matches, and what its captures are.
//!
//! A pattern is a list of items. `%a+` is an item, so are `.`, `x`, `(` and `%1`. Each item takes a
//! piece of the text and leaves the rest to the next item. Where an item could also have taken
//! another piece, the matcher notes the choice. When an item does not fit, the matcher goes back
//! to the last choice and takes the next possibility. The match fails when no choice is left.
//!
//! ```text
//! "a*ab" on "aaab"
//!
//! a*   takes aaa           choices: [ a* may take fewer ]
//! a    does not fit b      back: a* takes aa
//! a    takes the third a
//! b    takes b             the match is 0..4
//! ```
//!
//! What must be undone on the way back is in the same list: that a capture has begun or ended.
//! Each item notes at most one choice, so the list is never longer than the pattern.
//!
//! A short pattern can have more possibilities than anybody can wait for. So the matcher counts its
//! work, and pauses when it was much. Its caller asks the host whether to go on.
//!
//! **How Redis does it**: Lua's matcher calls itself where this one notes a choice. So a long
//! pattern can use up the native stack there, and nothing stops a match that takes years.

use std::io::BufRead;
use std::ops::Range;

/// How many captures a pattern may have.
const MAX_CAPTURES: usize = 32;
/// How many bytes and choices the matcher looks at before it pauses.
pub const PAUSE: u32 = 10_000;
/// A set that is longer, in bytes, is asked about each of the 256 bytes once, and not for each byte of the text.
const LONG_SET: usize = 64;

/// Why a pattern is wrong. Found only when the matcher comes to the wrong item.
pub type Fault = &'static str;

pub struct Matcher {
    pub is_anchored: bool,
    /// Where the match begins that is being tried.
    start: usize,
    /// Where it goes on after a pause.
    at: Place,
    captures: Vec<Capture>,
    choices: Vec<Choice>,
    work: u32,
}

/// The next item, and the rest of the text for it.
#[derive(Clone, Copy)]
struct Place {
    text: usize,
    item: usize,
}

#[derive(Clone, Copy)]
enum Capture {
    Open { from: usize },
    Closed(Part),
}

/// What a capture has captured.
#[derive(Clone, Copy)]
pub enum Part {
    Text { from: usize, to: usize },
    Position(usize),
}

enum Choice {
    /// `?` may take nothing.
    Skip(Place),
    /// `*` and `+` may take fewer, down to `least`.
    Fewer {
        least: usize,
        next: Place,
    },
    /// `-` may take one more, if the item that ends at `end` fits.
    More {
        at: Place,
        end: usize,
    },
    /// No choice: the last capture has begun, or this one has ended.
    Began,
    Ended {
        capture: usize,
        from: usize,
    },
}

pub enum Progress {
    Found(Range<usize>),
    NotFound,
    Paused,
}

impl Matcher {
    pub fn new(is_anchored: bool) -> Matcher {
        let (captures, choices) = (Vec::with_capacity(4), Vec::with_capacity(8));
        let at = Place { text: 0, item: 0 };
        Matcher { is_anchored, start: 0, at, captures, choices, work: 0 }
    }

    /// The next search begins there.
    pub fn begin(&mut self, start: usize) {
        self.start = start;
        self.at = Place { text: start, item: 0 };
        self.captures.clear();
        self.choices.clear();
    }

    /// The first match from where it has begun, or where it has paused.
    pub fn search(&mut self, text: &[u8], items: &[u8]) -> Result<Progress, Fault> {
        if self.work >= PAUSE {
            self.work = 0;
        }
        loop {
            let progress = self.try_start(text, items)?;
            if !matches!(progress, Progress::NotFound) {
                return Ok(progress);
            }
            if self.is_anchored || self.start >= text.len() {
                return Ok(Progress::NotFound);
            }
            self.begin(self.start + 1);
            self.work += 1;
        }
    }

    pub fn capture_count(&self) -> usize {
        self.captures.len()
    }

    /// The capture of that index, from 0. A pattern without any captures all that it has found.
    pub fn capture(&self, index: usize, found: &Range<usize>) -> Result<Part, Fault> {
        match self.captures.get(index) {
            Some(Capture::Closed(part)) => Ok(*part),
            Some(Capture::Open { .. }) => Err("unfinished capture"),
            None if index == 0 => Ok(Part::Text { from: found.start, to: found.end }),
            None => Err("invalid capture index"),
        }
    }

    /// Whether there is a match that begins where the search is.
    fn try_start(&mut self, text: &[u8], items: &[u8]) -> Result<Progress, Fault> {
        let mut at = self.at;
        loop {
            if self.work >= PAUSE {
                self.at = at;
                return Ok(Progress::Paused);
            }
            let next = match items[at.item..] {
                [] => return Ok(Progress::Found(self.start..at.text)),
                [b'(', ..] => Some(self.open(at, items)?),
                [b')', ..] => Some(self.close(at)?),
                [b'$'] => (at.text == text.len()).then_some(Place { item: at.item + 1, ..at }),
                [b'%', b'b', ..] => self.balance(at, text, items)?,
                [b'%', b'f', ..] => {
                    let next = frontier(at, text, items)?;
                    let behind = next.map_or(items.len(), |next| next.item);
                    self.work += (behind - at.item) as u32 / 16;
                    next
                }
                [b'%', digit @ b'0'..=b'9', ..] => self.repeat(at, digit, text)?,
                _ => self.single(at, text, items)?,
            };
            match next.or_else(|| self.go_back(text, items)) {
                Some(next) => at = next,
                None => return Ok(Progress::NotFound),
            }
        }
    }

    /// Takes the next possibility of the last choice.
    fn go_back(&mut self, text: &[u8], items: &[u8]) -> Option<Place> {
        while let Some(choice) = self.choices.pop() {
            self.work += 1;
            match choice {
                Choice::Skip(next) => return Some(next),
                Choice::Fewer { least, mut next } => {
                    next.text -= 1;
                    if next.text > least {
                        self.choices.push(Choice::Fewer { least, next });
                    }
                    return Some(next);
                }
                Choice::More { at, end } => {
                    self.work += (end - at.item) as u32 / 16;
                    if fits_at(text, at.text, &items[at.item..end]) {
                        let at = Place { text: at.text + 1, ..at };
                        self.choices.push(Choice::More { at, end });
                        return Some(Place { item: end + 1, ..at });
                    }
                }
                Choice::Began => {
                    self.captures.pop();
                }
                Choice::Ended { capture, from } => self.captures[capture] = Capture::Open { from },
            }
        }
        None
    }

    /// Notes what must be undone on the way back to a choice, if there is one.
    fn undo_by(&mut self, choice: Choice) {
        if !self.choices.is_empty() {
            self.choices.push(choice);
        }
    }

    /// `(`, or `()`, which captures the position.
    fn open(&mut self, at: Place, items: &[u8]) -> Result<Place, Fault> {
        if self.captures.len() >= MAX_CAPTURES {
            return Err("too many captures");
        }
        let is_position = items.get(at.item + 1) == Some(&b')');
        self.captures.push(match is_position {
            true => Capture::Closed(Part::Position(at.text)),
            false => Capture::Open { from: at.text },
        });
        self.undo_by(Choice::Began);
        Ok(Place { item: at.item + if is_position { 2 } else { 1 }, ..at })
    }

    /// `)` ends the last capture that has not ended.
    fn close(&mut self, at: Place) -> Result<Place, Fault> {
        for (index, capture) in self.captures.iter_mut().enumerate().rev() {
            if let Capture::Open { from } = *capture {
                *capture = Capture::Closed(Part::Text { from, to: at.text });
                self.undo_by(Choice::Ended { capture: index, from });
                return Ok(Place { item: at.item + 1, ..at });
            }
        }
        Err("invalid pattern capture")
    }

    /// `%bxy` takes an x, and all up to the y that balances it.
    fn balance(&mut self, at: Place, text: &[u8], items: &[u8]) -> Result<Option<Place>, Fault> {
        let [open, close, ..] = items[at.item + 2..] else {
            return Err("unbalanced pattern");
        };
        let Some((first, rest)) = text[at.text..].split_first() else { return Ok(None) };
        if *first != open {
            return Ok(None);
        }
        let mut depth = 1;
        for (index, byte) in rest.iter().enumerate() {
            if *byte == close {
                depth -= 1;
                if depth == 0 {
                    self.work += index as u32;
                    return Ok(Some(Place { text: at.text + index + 2, item: at.item + 4 }));
                }
            } else if *byte == open {
                depth += 1;
            }
        }
        self.work += rest.len() as u32;
        Ok(None)
    }

    /// `%1` takes what the first capture has captured.
    fn repeat(&mut self, at: Place, digit: u8, text: &[u8]) -> Result<Option<Place>, Fault> {
        let capture = digit.checked_sub(b'1').and_then(|index| self.captures.get(index as usize));
        match capture {
            Some(Capture::Closed(Part::Text { from, to })) => {
                let length = to - from;
                self.work += length as u32 / 16;
                let fits = text[at.text..].starts_with(&text[*from..*to]);
                Ok(fits.then_some(Place { text: at.text + length, item: at.item + 2 }))
            }
            Some(Capture::Closed(Part::Position(_))) => Ok(None),
            Some(Capture::Open { .. }) | None => Err("invalid capture index"),
        }
    }

    /// An item that fits one byte, with what may follow it: `?`, `*`, `+` or `-`.
    fn single(&mut self, at: Place, text: &[u8], items: &[u8]) -> Result<Option<Place>, Fault> {
        let end = end_of(items, at.item)?;
        let item = &items[at.item..end];
        self.work += item.len() as u32 / 16;
        let next = Place { item: end + 1, ..at };
        let least = match items.get(end) {
            Some(b'*') => at.text,
            Some(b'+') => at.text + 1,
            Some(b'?') => {
                if !fits_at(text, at.text, item) {
                    return Ok(Some(next));
                }
                self.choices.push(Choice::Skip(next));
                return Ok(Some(Place { text: at.text + 1, ..next }));
            }
            Some(b'-') => {
                self.choices.push(Choice::More { at, end });
                return Ok(Some(next));
            }
            _ => {
                let fits = fits_at(text, at.text, item);
                return Ok(fits.then_some(Place { text: at.text + 1, item: end }));
            }
        };
        let rest = &text[at.text..];
        let end = if item.len() > LONG_SET {
            let fitting: [bool; 256] = std::array::from_fn(|byte| fits(byte as u8, item));
            rest.iter().position(|byte| !fitting[usize::from(*byte)])
        } else {
            rest.iter().position(|byte| !fits(*byte, item))
        };
        let most = end.unwrap_or(rest.len());
        self.work += most as u32;
        let next = Place { text: at.text + most, ..next };
        if next.text > least {
            self.choices.push(Choice::Fewer { least, next });
        }
        Ok((next.text >= least).then_some(next))
    }
}

/// `%f[set]` takes nothing, but only where a byte of the set follows one that is not of the set.
/// Before and behind the text there is a zero.
fn frontier(at: Place, text: &[u8], items: &[u8]) -> Result<Option<Place>, Fault> {
    let set = at.item + 2;
    if items.get(set) != Some(&b'[') {
        return Err("missing '[' after '%f' in pattern");
    }
    let end = end_of(items, set)?;
    let before = if at.text == 0 { 0 } else { text[at.text - 1] };
    let behind = text.get(at.text).copied().unwrap_or(0);
    let set = &items[set..end];
    Ok((!fits(before, set) && fits(behind, set)).then_some(Place { item: end, ..at }))
}

/// Where an item ends that fits one byte: `x`, `.`, `%a`, `[set]`.
fn end_of(items: &[u8], begin: usize) -> Result<usize, Fault> {
    match items[begin..] {
        [b'%'] => Err("malformed pattern (ends with '%')"),
        [b'%', ..] => Ok(begin + 2),
        [b'[', ..] => {
            let mut at = begin + 1;
            if items.get(at) == Some(&b'^') {
                at += 1;
            }
            // The first byte of a set may be `]`.
            loop {
                at += match items[at..] {
                    [] => return Err("malformed pattern (missing ']')"),
                    [b'%', _, ..] => 2,
                    _ => 1,
                };
                if items.get(at) == Some(&b']') {
                    return Ok(at + 1);
                }
            }
        }
        _ => Ok(begin + 1),
    }
}

#[inline]
fn fits_at(text: &[u8], at: usize, item: &[u8]) -> bool {
    text.get(at).is_some_and(|byte| fits(*byte, item))
}

/// Whether an item fits a byte.
#[inline]
fn fits(byte: u8, item: &[u8]) -> bool {
    match item {
        [only] => *only == b'.' || *only == byte,
        [b'%', class] => is_of_class(byte, *class),
        [b'[', b'^', set @ .., _] => !is_of_set(byte, set),
        [_, set @ .., _] => is_of_set(byte, set),
        [] => false,
    }
}

fn is_of_set(byte: u8, set: &[u8]) -> bool {
    let mut rest = set;
    loop {
        rest = match rest {
            [] => return false,
            // In `[a-%%]` a range takes the first `%`. The second one escapes the bracket.
            [b'%'] => return byte == b']',
            [b'%', class, ..] if is_of_class(byte, *class) => return true,
            [b'%', _, rest @ ..] => rest,
            [low, b'-', high, ..] if (*low..=*high).contains(&byte) => return true,
            [_, b'-', _, rest @ ..] => rest,
            [other, ..] if *other == byte => return true,
            [_, rest @ ..] => rest,
        };
    }
}

/// `%a` is a letter, `%A` is none, and so on. Each other byte stands for itself.
fn is_of_class(byte: u8, class: u8) -> bool {
    let is = match class.to_ascii_lowercase() {
        b'a' => byte.is_ascii_alphabetic(),
        b'c' => byte.is_ascii_control(),
        b'd' => byte.is_ascii_digit(),
        b'l' => byte.is_ascii_lowercase(),
        b'p' => byte.is_ascii_punctuation(),
        b's' => matches!(byte, b' ' | 9..=13),
        b'u' => byte.is_ascii_uppercase(),
        b'w' => byte.is_ascii_alphanumeric(),
        b'x' => byte.is_ascii_hexdigit(),
        b'z' => byte == 0,
        _ => return class == byte,
    };
    is == class.is_ascii_lowercase()
}

/// Whether a pattern has no item but bytes that stand for themselves. Lua looks no further than
/// to the first zero.
pub fn is_plain(pattern: &[u8]) -> bool {
    let special = |byte: &&u8| b"\0^$*+?.([%-".contains(byte);
    !matches!(pattern.iter().find(special), Some(byte) if *byte != 0)
}

/// Where the byte is for the first time.
pub fn position(text: &[u8], byte: u8) -> Option<usize> {
    // Of all ways that std offers, only this one is the system's fast search.
    let mut rest = text;
    let read = rest.skip_until(byte).unwrap_or(0);
    (read > 0 && text[read - 1] == byte).then(|| read - 1)
}
