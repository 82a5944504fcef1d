//! `gsub`: replaces each match of a pattern by a text, by an element of a table, or by what a
//! function of the script returns.
//!
//! A function is not called from here: the native waits for it, as [`lib`](crate::script::lib)
//! says. Meanwhile the text and the pattern stay alive because they are arguments.
//!
//! **How Redis does it**: Lua calls the function in the loop. The results are the same.

use super::matching::Search;
use super::pattern::Part;
use crate::script::lib::{Call, Outcome, Resume};
use crate::script::metatable::Lookup;
use crate::script::number;
use crate::script::value::{Error, StringId, TableId, Value};
use std::ops::Range;

struct Substitution {
    search: Search,
    replacement: Replacement,
    /// How many matches were replaced, and how many may be.
    count: i32,
    limit: i32,
    /// The match that is being replaced.
    found: Range<usize>,
    /// Where the next search begins, and where the text begins that is not yet in the result.
    next: usize,
    rest: usize,
    result: Vec<u8>,
    /// How much of the result the heap has counted.
    counted: usize,
}

#[derive(Clone, Copy)]
enum Replacement {
    Text(StringId),
    Table(TableId),
    Function(Value),
}

pub fn gsub(call: &mut Call) -> Result<Outcome, Error> {
    let (text, pattern) = (call.string(1)?, call.string(2)?);
    let all = call.bytes(text).len() as i64 + 1;
    let limit = call.integer_or(4, all)? as i32;
    let replacement = match call.arg(3) {
        Value::String(_) | Value::Number(_) => Replacement::Text(call.string(3)?),
        Value::Table(table) => Replacement::Table(table),
        function @ Value::Function(_) => Replacement::Function(function),
        _ => return Err(call.bad_argument(3, "string/function/table expected")),
    };
    // They may have been numbers.
    call.set_arg(1, Value::String(text));
    call.set_arg(2, Value::String(pattern));
    let search = Search::new(call, text, pattern, true);
    let substitution = Substitution {
        search,
        replacement,
        count: 0,
        limit,
        found: 0..0,
        next: 0,
        rest: 0,
        result: call.buffer(),
        counted: 0,
    };
    Box::new(substitution).go_on(call)
}

impl Resume for Substitution {
    fn resume(mut self: Box<Self>, call: &mut Call) -> Result<Outcome, Error> {
        self.replace(call, call.result(0))?;
        self.go_on(call)
    }

    fn size(&self) -> usize {
        self.result.len()
    }
}

impl Substitution {
    /// Replaces matches until a function must be called, or there are no more.
    fn go_on(mut self: Box<Self>, call: &mut Call) -> Result<Outcome, Error> {
        while self.count < self.limit
            && let Some(found) = self.search.find(call, self.next)?
        {
            call.tick()?;
            self.count += 1;
            self.add(call, Part::Text { from: self.rest, to: found.start })?;
            self.rest = found.end;
            // Behind an empty match, it must not find the same one again.
            self.next = found.end + usize::from(found.is_empty());
            if self.search.matcher.is_anchored {
                self.limit = self.count;
            }
            self.found = found;
            match self.replacement {
                Replacement::Text(text) => self.expand(call, text)?,
                Replacement::Table(table) => {
                    let key = self.search.capture(call, 0, &self.found)?;
                    match call.machine.heap.lookup(Value::Table(table), key) {
                        Lookup::Found(value) => self.replace(call, value)?,
                        Lookup::Call { function, object } => {
                            [function, object, key].iter().for_each(|value| call.push(*value));
                            return self.wait(call, 2);
                        }
                        Lookup::NoFields { object, .. } => {
                            let text = format!("attempt to index a {} value", object.type_name());
                            return Err(call.machine.plain_error(text.as_bytes()));
                        }
                        Lookup::Loop => return Err(call.machine.plain_error(b"loop in gettable")),
                    }
                }
                Replacement::Function(function) => {
                    call.push(function);
                    let arguments = self.search.push_captures(call, &self.found, true)?;
                    return self.wait(call, arguments);
                }
            }
        }
        let end = call.bytes(self.search.text).len();
        self.add(call, Part::Text { from: self.rest, to: end })?;
        call.give_buffer(self.result)?;
        call.give_number(self.count.into())?;
        Ok(Outcome::Return(2))
    }

    /// The last values that were pushed are to be called.
    fn wait(mut self: Box<Self>, call: &mut Call, arguments: usize) -> Result<Outcome, Error> {
        call.machine.heap.bytes += self.result.len() - self.counted;
        self.counted = self.result.len();
        Ok(Outcome::Then(arguments, self))
    }

    /// Adds what a table or function has given for the match. Nil and false leave it as it is.
    fn replace(&mut self, call: &mut Call, value: Value) -> Result<(), Error> {
        match value {
            Value::Nil | Value::Boolean(false) => {
                let Range { start, end } = self.found;
                self.add(call, Part::Text { from: start, to: end })?;
            }
            Value::String(string) => {
                let whole = 0..call.bytes(string).len();
                call.append(&mut self.result, string, whole)?;
            }
            Value::Number(number) => self.result.extend_from_slice(&number::to_text(number)),
            other => {
                let kind = other.type_name();
                return Err(call.error(format!("invalid replacement value (a {kind})")));
            }
        }
        Ok(())
    }

    /// Adds the text that replaces a match. In it, `%1` is the first capture, `%0` the match.
    fn expand(&mut self, call: &mut Call, replacement: StringId) -> Result<(), Error> {
        call.charge(call.bytes(replacement).len() / 8);
        let mut at = 0;
        while let Some(byte) = call.bytes(replacement).get(at).copied() {
            at += 1;
            if byte != b'%' {
                self.result.push(byte);
                continue;
            }
            // What follows the last byte is a zero, as in C.
            let escaped = call.bytes(replacement).get(at).copied().unwrap_or(0);
            at += 1;
            let part = match escaped {
                b'0' => Part::Text { from: self.found.start, to: self.found.end },
                b'1'..=b'9' => self.search.part(call, usize::from(escaped - b'1'), &self.found)?,
                other => {
                    self.result.push(other);
                    continue;
                }
            };
            self.add(call, part)?;
        }
        call.check_room(self.result.len())
    }

    fn add(&mut self, call: &mut Call, part: Part) -> Result<(), Error> {
        match part {
            Part::Text { from, to } => call.append(&mut self.result, self.search.text, from..to),
            Part::Position(position) => {
                self.result.extend_from_slice((position + 1).to_string().as_bytes());
                Ok(())
            }
        }
    }
}
