//! `find`, `match` and `gmatch`.
//!
//! ```text
//! ("key:17"):find(":")             4  4
//! ("key:17"):match("(%a+):(%d+)")  key  17
//! for word in ("a b"):gmatch("%a") do … end
//! ```
//!
//! A pattern without special bytes is searched for as it is. For all others, [`Search`] brings the
//! [matcher](super::pattern) together with the strings of the script.
//!
//! **How Redis does it**: `str_find_aux` and `gmatch_aux` in lstrlib.c of Lua.

use super::pattern::{self, Matcher, PAUSE, Part, Progress};
use crate::script::heap::Function;
use crate::script::lib::{Call, Outcome};
use crate::script::value::{Error, StringId, Value};
use std::ops::Range;

/// A pattern and a text of the script, and how far it was searched.
pub struct Search {
    pub text: StringId,
    pattern: StringId,
    /// The pattern without its anchor, and up to the first zero, which ends it.
    items: Range<usize>,
    pub matcher: Matcher,
}

impl Search {
    /// `^` at the beginning is the anchor, if there may be one.
    pub fn new(
        call: &mut Call,
        text: StringId,
        pattern: StringId,
        may_be_anchored: bool,
    ) -> Search {
        call.machine.heap.charge_bytes(call.bytes(pattern).len());
        let bytes = call.bytes(pattern);
        let is_anchored = may_be_anchored && bytes.first() == Some(&b'^');
        let end = pattern::position(bytes, 0).unwrap_or(bytes.len());
        let items = usize::from(is_anchored)..end;
        Search { text, pattern, items, matcher: Matcher::new(is_anchored) }
    }

    /// The first match that begins there or behind.
    pub fn find(&mut self, call: &mut Call, from: usize) -> Result<Option<Range<usize>>, Error> {
        if from > call.bytes(self.text).len() {
            return Ok(None);
        }
        self.matcher.begin(from);
        loop {
            let (text, pattern) = (call.bytes(self.text), call.bytes(self.pattern));
            match self.matcher.search(text, &pattern[self.items.clone()]) {
                Ok(Progress::Found(found)) => return Ok(Some(found)),
                Ok(Progress::NotFound) => return Ok(None),
                Ok(Progress::Paused) => {
                    call.charge(PAUSE as usize);
                    call.tick()?;
                }
                Err(fault) => return Err(call.error(fault)),
            }
        }
    }

    pub fn part(&self, call: &mut Call, index: usize, found: &Range<usize>) -> Result<Part, Error> {
        self.matcher.capture(index, found).map_err(|fault| call.error(fault))
    }

    pub fn capture(
        &self,
        call: &mut Call,
        index: usize,
        found: &Range<usize>,
    ) -> Result<Value, Error> {
        Ok(match self.part(call, index, found)? {
            Part::Text { from, to } => Value::String(call.machine.heap.part(self.text, from..to)?),
            Part::Position(position) => Value::Number((position + 1) as f64),
        })
    }

    /// Pushes all captures, and says how many. If `whole`, a pattern without captures has one: what
    /// it has found.
    pub fn push_captures(
        &self,
        call: &mut Call,
        found: &Range<usize>,
        whole: bool,
    ) -> Result<usize, Error> {
        let count = self.matcher.capture_count().max(usize::from(whole));
        for index in 0..count {
            let capture = self.capture(call, index, found)?;
            call.push(capture);
        }
        Ok(count)
    }
}

pub fn find(call: &mut Call) -> Result<Outcome, Error> {
    let (text, pattern) = (call.string(1)?, call.string(2)?);
    let from = first_byte(call, text)?;
    if call.arg(4).is_true() || pattern::is_plain(call.bytes(pattern)) {
        return find_plain(call, text, pattern, from);
    }
    let mut search = Search::new(call, text, pattern, true);
    let Some(found) = search.find(call, from)? else { return call.give(Value::Nil) };
    push_range(call, &found);
    let captures = search.push_captures(call, &found, false)?;
    Ok(Outcome::Return(2 + captures))
}

pub fn r#match(call: &mut Call) -> Result<Outcome, Error> {
    let (text, pattern) = (call.string(1)?, call.string(2)?);
    let from = first_byte(call, text)?;
    let mut search = Search::new(call, text, pattern, true);
    let Some(found) = search.find(call, from)? else { return call.give(Value::Nil) };
    Ok(Outcome::Return(search.push_captures(call, &found, true)?))
}

/// Where the third argument says that a search begins.
fn first_byte(call: &mut Call, text: StringId) -> Result<usize, Error> {
    let from = call.integer_or(3, 1)?;
    let length = call.bytes(text).len();
    Ok((super::from_start(from, length) - 1).clamp(0, length as i64) as usize)
}

fn find_plain(
    call: &mut Call,
    text: StringId,
    wanted: StringId,
    from: usize,
) -> Result<Outcome, Error> {
    let mut from = from;
    loop {
        let (text, wanted) = (&call.bytes(text)[from..], call.bytes(wanted));
        let length = wanted.len();
        let first = match wanted.first() {
            Some(first) => pattern::position(text, *first),
            None => Some(0),
        };
        let fits = first.is_some_and(|at| text[at..].starts_with(wanted));
        let passed = first.unwrap_or(text.len());
        // What is nearly there everywhere takes long to be found nowhere.
        let work = passed / 1024 + length / 16;
        call.charge(work);
        call.tick()?;
        let Some(at) = first else { return call.give(Value::Nil) };
        if fits {
            push_range(call, &(from + at..from + at + length));
            return Ok(Outcome::Return(2));
        }
        from += at + 1;
    }
}

fn push_range(call: &mut Call, range: &Range<usize>) {
    call.push(Value::Number((range.start + 1) as f64));
    call.push(Value::Number(range.end as f64));
}

/// Returns a function that gives the captures of one match after the other.
pub fn gmatch(call: &mut Call) -> Result<Outcome, Error> {
    let (text, pattern) = (call.string(1)?, call.string(2)?);
    let upvalues = [Value::String(text), Value::String(pattern), Value::Number(0.0)].into();
    let next = call.machine.heap.function(Function::Native { run: gmatch_next, upvalues });
    call.give(Value::Function(next))
}

fn gmatch_next(call: &mut Call) -> Result<Outcome, Error> {
    let [Value::String(text), Value::String(pattern), Value::Number(from)] =
        [0, 1, 2].map(|index| *call.upvalue(index))
    else {
        unreachable!("nobody else sets them");
    };
    let mut search = Search::new(call, text, pattern, false);
    let Some(found) = search.find(call, from as usize)? else { return Ok(Outcome::Return(0)) };
    // Behind an empty match, it must not find the same one again.
    let next = found.end + usize::from(found.is_empty());
    *call.upvalue(2) = Value::Number(next as f64);
    Ok(Outcome::Return(search.push_captures(call, &found, true)?))
}
