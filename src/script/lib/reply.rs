//! From a reply, as it stands on the wire, to a value of Lua.
//!
//! ```text
//! RESP2    :7     7            +OK    {ok = 'OK'}       $-1, *-1   false
//!          $1 a   'a'          -E x   {err = 'E x'}     *2 :1 :2   {1, 2}
//!
//! RESP3    _      nil          ,1.5   {double = 1.5}    %1 +k :1   {map = {k = 1}}      (7  {big_number = '7'}
//!          #t     true         ~1 :1  {set = {[1] = true}}         =…   {verbatim_string = {format, string}}
//! ```
//!
//! The server itself has made the reply, so it is not checked, and it is nested a few levels deep at most.
//!
//! **How Redis does it**: the callbacks `redisProtocolToLuaType_…` in script_lua.c.

use crate::script::machine::Machine;
use crate::script::value::{Error, TableId, Value};

/// The value of a whole reply.
pub fn to_value(machine: &mut Machine, wire: &[u8]) -> Result<Value, Error> {
    machine.heap.charge(wire.len() / 64);
    Reader { machine, rest: wire }.value()
}

/// The table for an error. Its text begins with its code.
pub fn error_table(machine: &mut Machine, text: &[u8]) -> Result<TableId, Error> {
    // As in Redis, an error without a code gets one.
    let (code, text) = match text.iter().position(|byte| *byte == b' ') {
        Some(space) => (&text[..space], &text[space + 1..]),
        None => (&b"ERR"[..], text),
    };
    let is_text = |byte: &u8| !matches!(byte, b'\r' | b'\n');
    let (begin, end) = (text.iter().position(is_text), text.iter().rposition(is_text));
    let text = begin.zip(end).map_or(&[][..], |(begin, end)| &text[begin..=end]);
    let text = machine.heap.string(&[code, b" ", text].concat())?;
    single(machine, "err", Value::String(text))
}

/// The same for an error that is in the statistics already.
pub fn counted_error(machine: &mut Machine, text: &[u8]) -> Result<TableId, Error> {
    let table = error_table(machine, text)?;
    machine.set_field(table, COUNTED, Value::Boolean(true));
    Ok(table)
}

/// The name of the field that says that an error is in the statistics already.
pub const COUNTED: &str = "ignore_error_stats_update";

/// A table with one field.
pub fn single(machine: &mut Machine, name: &str, value: Value) -> Result<TableId, Error> {
    let table = machine.heap.table(0, 1)?;
    machine.set_field(table, name, value);
    Ok(table)
}

struct Reader<'a> {
    machine: &'a mut Machine,
    rest: &'a [u8],
}

impl<'a> Reader<'a> {
    fn value(&mut self) -> Result<Value, Error> {
        let line = self.line();
        let (Some(kind), text) = (line.first(), line.get(1..).unwrap_or_default()) else {
            return Ok(Value::Nil);
        };
        match kind {
            b':' => Ok(Value::Number(integer(text) as f64)),
            b'$' | b'*' if text.first() == Some(&b'-') => Ok(Value::Boolean(false)),
            b'$' => {
                let bytes = self.bytes(integer(text) as usize);
                self.string(bytes)
            }
            b'*' => self.array(integer(text) as usize),
            b'+' => {
                let text = self.string(text)?;
                self.tagged("ok", text)
            }
            b'-' => Ok(Value::Table(counted_error(self.machine, text)?)),
            b'%' => {
                let table = self.pairs(integer(text) as usize, true)?;
                self.tagged("map", table)
            }
            b'~' => {
                let table = self.pairs(integer(text) as usize, false)?;
                self.tagged("set", table)
            }
            b'#' => Ok(Value::Boolean(text == b"t")),
            b',' => {
                let number = std::str::from_utf8(text).ok().and_then(|text| text.parse().ok());
                self.tagged("double", Value::Number(number.unwrap_or(f64::NAN)))
            }
            b'(' => {
                let digits = self.string(text)?;
                self.tagged("big_number", digits)
            }
            b'=' => self.verbatim(integer(text) as usize),
            b'|' => {
                // Attributes say something about the reply behind them. Scripts do not see them.
                self.pairs(integer(text) as usize, true)?;
                self.value()
            }
            _ => Ok(Value::Nil),
        }
    }

    /// The next line, without its end.
    fn line(&mut self) -> &'a [u8] {
        let end = self.rest.iter().position(|byte| *byte == b'\r').unwrap_or(self.rest.len());
        let line = &self.rest[..end];
        self.rest = self.rest.get(end + 2..).unwrap_or_default();
        line
    }

    /// The bytes that follow their length.
    fn bytes(&mut self, length: usize) -> &'a [u8] {
        let bytes = &self.rest[..length];
        self.rest = &self.rest[length + 2..];
        bytes
    }

    fn string(&mut self, bytes: &[u8]) -> Result<Value, Error> {
        self.machine.heap.string(bytes).map(Value::String)
    }

    fn tagged(&mut self, name: &str, value: Value) -> Result<Value, Error> {
        single(self.machine, name, value).map(Value::Table)
    }

    fn array(&mut self, length: usize) -> Result<Value, Error> {
        let mut values = Vec::with_capacity(length.min(1024));
        for _ in 0..length {
            values.push(self.value()?);
        }
        // With nils in between, the table must become what it would be if the others were set one by one, or
        // the length operator would give something else than in Redis.
        let size = if values.iter().any(|value| value.is_nil()) { 0 } else { length };
        let table = self.machine.heap.table(size, 0)?;
        for (index, value) in values.into_iter().enumerate().filter(|(_, value)| !value.is_nil()) {
            // A number as key has no fault.
            let _ = self.machine.heap.set(table, Value::Number((index + 1) as f64), value);
        }
        Ok(Value::Table(table))
    }

    /// A table of that many keys with their values, or of keys that are true.
    fn pairs(&mut self, count: usize, have_values: bool) -> Result<Value, Error> {
        let table = self.machine.heap.table(0, 0)?;
        for _ in 0..count {
            let key = self.value()?;
            let value = if have_values { self.value()? } else { Value::Boolean(true) };
            self.machine.raw_set(table, key, value)?;
        }
        Ok(Value::Table(table))
    }

    fn verbatim(&mut self, length: usize) -> Result<Value, Error> {
        let (format, text) = self.bytes(length).split_at(4);
        let (format, text) = (self.string(&format[..3])?, self.string(text)?);
        let table = single(self.machine, "string", text)?;
        self.machine.set_field(table, "format", format);
        self.tagged("verbatim_string", Value::Table(table))
    }
}

fn integer(text: &[u8]) -> i64 {
    let (is_negative, digits) = match text {
        [b'-', digits @ ..] => (true, digits),
        digits => (false, digits),
    };
    // Downwards, because the smallest integer has no positive counterpart.
    let number = digits.iter().fold(0i64, |number, digit| {
        number.wrapping_mul(10).wrapping_sub(i64::from(digit.wrapping_sub(b'0')))
    });
    if is_negative { number } else { number.wrapping_neg() }
}
