//! A value as JSON.
//!
//! ```text
//! {a = {1, 2}}       json              open
//!                    {                 Object
//!                    {"a":             Object
//!                    {"a":[            Object, Array
//!                    {"a":[1,2         Object, Array
//!                    {"a":[1,2]}
//! ```
//!
//! Tables that are not finished lie in the vector `open`, the innermost one last. One step writes a value,
//! and if that is a table, only its bracket. The next value is the next one of the innermost table.
//!
//! **How Redis does it**: `json_append_data` in lua_cjson.c, which calls itself for a table in a table.

use super::{Setting, Settings};
use crate::script::lib::Call;
use crate::script::number;
use crate::script::value::{Error, StringId, TableId, Value};

struct Encoder {
    settings: Settings,
    json: Vec<u8>,
    open: Vec<Open>,
    /// How many slots of its stack Lua would use for the tables that are open. It has 8,000.
    slots: usize,
}

/// A table that is not finished.
enum Open {
    Array { table: TableId, written: i32, length: i32 },
    // The place is that of `Table::pair_from`.
    Object { table: TableId, place: usize },
}

pub fn encode(call: &mut Call, value: Value, settings: Settings) -> Result<Vec<u8>, Error> {
    let mut encoder = Encoder { settings, json: Vec::new(), open: Vec::new(), slots: 0 };
    let mut next = Some(value);
    while let Some(value) = next {
        call.tick()?;
        call.check_room(encoder.json.len())?;
        encoder.value(call, value)?;
        next = encoder.next(call)?;
    }
    Ok(encoder.json)
}

impl Encoder {
    fn setting(&self, setting: Setting) -> i32 {
        self.settings[setting as usize]
    }

    fn value(&mut self, call: &mut Call, value: Value) -> Result<(), Error> {
        match value {
            Value::Nil | Value::Null => self.json.extend_from_slice(b"null"),
            Value::Boolean(true) => self.json.extend_from_slice(b"true"),
            Value::Boolean(false) => self.json.extend_from_slice(b"false"),
            Value::Number(number) => self.number(call, number)?,
            Value::String(string) => self.string(call, string)?,
            Value::Table(table) => self.table(call, table)?,
            Value::Function(_) | Value::Thread(_) => {
                return Err(cannot(call, value, "type not supported"));
            }
        }
        Ok(())
    }

    fn number(&mut self, call: &mut Call, number: f64) -> Result<(), Error> {
        if !number.is_finite() {
            match self.setting(Setting::EncodeInvalid) {
                0 => return Err(cannot(call, Value::Number(number), "must not be NaN or Inf")),
                1 if number.is_nan() => self.json.extend_from_slice(b"nan"),
                1 => self.json.extend_from_slice(&number::to_text(number)),
                _ => self.json.extend_from_slice(b"null"),
            }
            return Ok(());
        }
        match self.setting(Setting::Precision) {
            14 => self.json.extend_from_slice(&number::to_text(number)),
            digits => self.json.extend(number::general(number, digits as usize).into_bytes()),
        }
        Ok(())
    }

    fn string(&mut self, call: &mut Call, string: StringId) -> Result<(), Error> {
        // Each byte is looked at, and may have to be escaped.
        call.charge(call.bytes(string).len() / 64);
        self.json.push(b'"');
        let mut rest = call.bytes(string);
        while let Some(at) = rest.iter().position(|byte| ESCAPES[*byte as usize] != 0) {
            // Six bytes may come of one.
            call.check_room(self.json.len() + rest.len())?;
            self.json.extend_from_slice(&rest[..at]);
            let byte = rest[at];
            match ESCAPES[byte as usize] {
                b'u' => self.json.extend(format!("\\u{byte:04x}").into_bytes()),
                letter => self.json.extend([b'\\', letter]),
            }
            rest = &rest[at + 1..];
        }
        self.json.extend_from_slice(rest);
        self.json.push(b'"');
        Ok(())
    }

    fn table(&mut self, call: &mut Call, table: TableId) -> Result<(), Error> {
        let depth = self.open.len() + 1;
        if depth > self.setting(Setting::EncodeDepth) as usize
            || !call.has_room_on_stack(self.slots + 3)
        {
            return Err(call.error(format!("Cannot serialise, excessive nesting ({depth})")));
        }
        call.charge_table(table);
        match self.array_length(call, table)? {
            0 => {
                self.json.push(b'{');
                self.open.push(Open::Object { table, place: 0 });
                self.slots += 2;
            }
            length => {
                self.json.push(b'[');
                self.open.push(Open::Array { table, written: 0, length });
                self.slots += 1;
            }
        }
        Ok(())
    }

    /// How long a table is as an array. 0, if it is none.
    fn array_length(&self, call: &mut Call, table: TableId) -> Result<i32, Error> {
        let (mut length, mut elements) = (0i32, 0i32);
        let (array, pairs) = call.machine.heap.tables[table].parts();
        for (index, value) in array.iter().enumerate() {
            if !value.is_nil() {
                length = index as i32 + 1;
                elements += 1;
            }
        }
        for (key, _) in pairs {
            match key {
                Value::Number(key) if key >= 1.0 && key.floor() == key => {
                    if key > length.into() {
                        // What is too large becomes the smallest integer in C, so such a table is
                        // an object, unless a smaller key follows.
                        length = if key <= i32::MAX.into() { key as i32 } else { i32::MIN };
                    }
                    elements += 1;
                }
                _ => return Ok(0),
            }
        }
        let ratio = self.setting(Setting::SparseRatio);
        if ratio > 0
            && length > elements.wrapping_mul(ratio)
            && length > self.setting(Setting::SparseSafe)
        {
            if self.setting(Setting::SparseConvert) == 0 {
                return Err(cannot(call, Value::Table(table), "excessively sparse array"));
            }
            return Ok(0);
        }
        Ok(length.max(0))
    }

    /// The next value of the innermost table that is not finished. Writes what stands before it.
    fn next(&mut self, call: &mut Call) -> Result<Option<Value>, Error> {
        while let Some(open) = self.open.last_mut() {
            match open {
                Open::Array { table, written, length } if *written < *length => {
                    if *written > 0 {
                        self.json.push(b',');
                    }
                    *written += 1;
                    let table = &call.machine.heap.tables[*table];
                    return Ok(Some(table.get_number((*written).into())));
                }
                Open::Array { .. } => {
                    self.json.push(b']');
                    self.slots -= 1;
                }
                Open::Object { table, place } => {
                    let pair = call.machine.heap.tables[*table].pair_from(*place);
                    if let Some((behind, key, value)) = pair {
                        if *place > 0 {
                            self.json.push(b',');
                        }
                        *place = behind;
                        self.key(call, key)?;
                        return Ok(Some(value));
                    }
                    self.json.push(b'}');
                    self.slots -= 2;
                }
            }
            self.open.pop();
        }
        Ok(None)
    }

    fn key(&mut self, call: &mut Call, key: Value) -> Result<(), Error> {
        match key {
            Value::String(string) => self.string(call, string)?,
            Value::Number(number) => {
                self.json.push(b'"');
                self.number(call, number)?;
                self.json.push(b'"');
            }
            _ => return Err(cannot(call, key, "table key must be a number or string")),
        }
        self.json.push(b':');
        Ok(())
    }
}

fn cannot(call: &mut Call, value: Value, reason: &str) -> Error {
    call.error(format!("Cannot serialise {}: {reason}", value.type_name()))
}

/// The letter that stands behind `\` for a byte, or 0 for a byte that stands for itself.
const ESCAPES: [u8; 256] = {
    let mut escapes = [0; 256];
    let mut control = 0;
    while control < 32 {
        escapes[control] = b'u';
        control += 1;
    }
    escapes[0x7f] = b'u';
    escapes[8] = b'b';
    escapes[b'\t' as usize] = b't';
    escapes[b'\n' as usize] = b'n';
    escapes[12] = b'f';
    escapes[b'\r' as usize] = b'r';
    escapes[b'"' as usize] = b'"';
    escapes[b'/' as usize] = b'/';
    escapes[b'\\' as usize] = b'\\';
    escapes
};
