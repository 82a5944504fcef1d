//! Strings: `sub`, `rep`, `find`, `format` …
//!
//! All strings share one metatable, whose `__index` is this library. That is why `s:upper()` works.
//!
//! Positions count from 1, and negative ones from the end: -1 is the last byte. A string is bytes,
//! and letters are those of ASCII.
//!
//! **How Redis does it**: the same. But `dump` gives Lua's own code there, which Redis does not
//! run. Here it is an error.

mod format;
mod gsub;
mod matching;
mod pattern;

use super::{Call, Native, Outcome};
use crate::script::machine::Machine;
use crate::script::value::{Error, Value};
use std::ops::Range;

pub fn open(machine: &mut Machine) {
    let natives: [(&str, Native); 15] = [
        ("byte", byte),
        ("char", char),
        ("dump", dump),
        ("find", matching::find),
        ("format", format::format),
        ("gfind", matching::gmatch),
        ("gmatch", matching::gmatch),
        ("gsub", gsub::gsub),
        ("len", len),
        ("lower", |call| change(call, |text| text.make_ascii_lowercase())),
        ("match", matching::r#match),
        ("rep", rep),
        ("reverse", |call| change(call, |text| text.reverse())),
        ("sub", sub),
        ("upper", |call| change(call, |text| text.make_ascii_uppercase())),
    ];
    let library = machine.library("string", &natives);
    machine.alias(library, "gmatch", "gfind");
    let meta = machine.heap.add_table();
    machine.set_field(meta, "__index", Value::Table(library));
    machine.heap.string_meta = Some(meta);
}

/// A position counted from the start. What lies before the start is 0.
fn from_start(position: i64, length: usize) -> i64 {
    if position >= 0 { position } else { (position + length as i64 + 1).max(0) }
}

/// The bytes from `first` to `last`, which count from 1, as far as they are there.
fn range(first: i64, last: i64, length: usize) -> Range<usize> {
    let start = first.max(1) as usize - 1;
    let end = length.min(last as usize);
    if start < end { start..end } else { 0..0 }
}

fn byte(call: &mut Call) -> Result<Outcome, Error> {
    let text = call.string(1)?;
    let length = call.bytes(text).len();
    let first = from_start(call.integer_or(2, 1)?, length);
    let last = from_start(call.integer_or(3, first)?, length);
    let range = range(first, last, length);
    let count = range.len();
    if !call.has_room_on_stack(count) {
        return Err(call.error("stack overflow (string slice too long)"));
    }
    for at in range {
        let byte = call.bytes(text)[at];
        call.push(Value::Number(byte.into()));
    }
    Ok(Outcome::Return(count))
}

fn char(call: &mut Call) -> Result<Outcome, Error> {
    let mut text = call.buffer();
    for number in 1..=call.count {
        match u8::try_from(call.integer(number)? as i32) {
            Ok(byte) => text.push(byte),
            Err(_) => return Err(call.bad_argument(number, "invalid value")),
        }
    }
    call.give_buffer(text)
}

fn dump(call: &mut Call) -> Result<Outcome, Error> {
    call.function(1)?;
    Err(call.error("unable to dump given function"))
}

fn len(call: &mut Call) -> Result<Outcome, Error> {
    let text = call.string(1)?;
    call.give_number(call.bytes(text).len() as f64)
}

fn change(call: &mut Call, change: fn(&mut [u8])) -> Result<Outcome, Error> {
    let text = call.string(1)?;
    let mut result = call.buffer();
    result.extend_from_slice(call.bytes(text));
    change(&mut result);
    call.give_buffer(result)
}

fn rep(call: &mut Call) -> Result<Outcome, Error> {
    let text = call.string(1)?;
    let times = (call.integer(2)? as i32).max(0) as usize;
    let length = call.bytes(text).len();
    call.check_room(length.saturating_mul(times))?;
    let result = call.bytes(text).repeat(times);
    call.give_buffer(result)
}

fn sub(call: &mut Call) -> Result<Outcome, Error> {
    let text = call.string(1)?;
    let length = call.bytes(text).len();
    let first = from_start(call.integer(2)?, length);
    let last = from_start(call.integer_or(3, -1)?, length);
    let part = call.machine.heap.part(text, range(first, last, length))?;
    call.give(Value::String(part))
}
