//! MessagePack: values as bytes, shorter than [JSON](super::cjson).
//!
//! The first byte says what follows, and for what is small it is all:
//!
//! ```text
//! cmsgpack.pack({1, -1, 'ab', 1.5, {x = true}})
//!
//! 95  01  ff  a2 61 62  ca 3f c0 00 00  81 a1 78 c3
//! │   │   │   │  a  b   │               │  │  x  true
//! │   1   -1  2 bytes   a float         a map of one pair
//! an array of five elements
//! ```
//!
//! Tables deeper than sixteen levels are packed as nil, so a table that contains itself has an end,
//! and packing may call itself. What is unpacked may be deeper. So there, arrays and maps that are
//! not finished lie in a vector, the innermost one last.
//!
//! Nothing is allocated because the bytes say how much there is. They may lie.
//!
//! **How Redis does it**: lua-cmsgpack 0.4.0, which calls itself in both directions. It stops where
//! Lua has no slot left on its stack. That is visible, so the slots are counted here.

use super::{Call, Native, Outcome};
use crate::script::machine::Machine;
use crate::script::value::{Error, TableId, Value};

const MAX_LEVEL: usize = 16;

pub fn open(machine: &mut Machine) {
    let natives: [(&str, Native); 4] = [
        ("pack", pack),
        ("unpack", unpack),
        ("unpack_one", unpack_one),
        ("unpack_limit", unpack_limit),
    ];
    let library = machine.library("cmsgpack", &natives);
    for (name, text) in [
        ("_NAME", "cmsgpack"),
        ("_VERSION", "lua-cmsgpack 0.4.0"),
        ("_COPYRIGHT", "Copyright (C) 2012, Salvatore Sanfilippo"),
        ("_DESCRIPTION", "MessagePack C implementation for Lua"),
    ] {
        let text = machine.heap.add_string(text.as_bytes());
        machine.set_field(library, name, Value::String(text));
    }
}

/// An error, if Lua's stack would have no room for that many values behind the arguments.
fn check_slots(call: &mut Call, slots: usize, what: &str) -> Result<(), Error> {
    match call.has_room_on_stack(slots) {
        true => Ok(()),
        false => Err(call.error(format!("stack overflow ({what})"))),
    }
}

/// All arguments, one behind the other.
fn pack(call: &mut Call) -> Result<Outcome, Error> {
    if call.count == 0 {
        return Err(call.bad_argument(0, "MessagePack pack needs input."));
    }
    if !call.has_room_on_stack(call.count) {
        return Err(call.bad_argument(0, "Too many arguments for MessagePack pack."));
    }
    let mut packed = Vec::new();
    for number in 1..=call.count {
        let value = call.arg(number);
        put(call, &mut packed, value, 0, number)?;
    }
    call.give_string(&packed)
}

/// Packs a value. `slots`: how many Lua would use on its stack behind the arguments.
fn put(
    call: &mut Call,
    packed: &mut Vec<u8>,
    value: Value,
    level: usize,
    slots: usize,
) -> Result<(), Error> {
    call.tick()?;
    call.check_room(packed.len())?;
    match value {
        Value::Boolean(is) => packed.push(0xc2 + u8::from(is)),
        Value::Number(number) => put_number(packed, number),
        Value::String(string) => {
            let bytes = call.bytes(string);
            match bytes.len() {
                length @ 0..32 => packed.push(0xa0 | length as u8),
                length @ 32..0x100 => packed.extend([0xd9, length as u8]),
                length => put_length(packed, 0xda, length),
            }
            let whole = 0..bytes.len();
            call.append(packed, string, whole)?;
        }
        Value::Table(table) if level < MAX_LEVEL => {
            check_slots(call, slots + 2, "in function table_is_an_array")?;
            call.charge_table(table);
            match array_length(call, table) {
                Some(length) => put_array(call, packed, table, length, level, slots)?,
                None => put_map(call, packed, table, level, slots)?,
            }
        }
        _ => packed.push(0xc0),
    }
    Ok(())
}

/// How many elements a table has, if its keys are 1 and so on, and no others.
fn array_length(call: &Call, table: TableId) -> Option<u32> {
    let (array, pairs) = call.machine.heap.tables[table].parts();
    let is_used = |(_, value): &(usize, &Value)| !value.is_nil();
    let (mut count, mut largest) = (0, 0);
    for (index, _) in array.iter().enumerate().filter(is_used) {
        count += 1;
        largest = index as u32 + 1;
    }
    for (key, _) in pairs {
        let Value::Number(key) = key else { return None };
        let index = key as i32;
        if key <= 0.0 || f64::from(index) != key {
            return None;
        }
        count += 1;
        largest = largest.max(index as u32);
    }
    (count == largest).then_some(count)
}

fn put_array(
    call: &mut Call,
    packed: &mut Vec<u8>,
    table: TableId,
    length: u32,
    level: usize,
    slots: usize,
) -> Result<(), Error> {
    match length {
        0..16 => packed.push(0x90 | length as u8),
        _ => put_length(packed, 0xdc, length as usize),
    }
    for index in 1..=length {
        let element = call.machine.heap.tables[table].get_number(index.into());
        put(call, packed, element, level + 1, slots + 1)?;
    }
    Ok(())
}

fn put_map(
    call: &mut Call,
    packed: &mut Vec<u8>,
    table: TableId,
    level: usize,
    slots: usize,
) -> Result<(), Error> {
    check_slots(call, slots + 3, "in function mp_encode_lua_table_as_map")?;
    match call.machine.heap.tables[table].count() {
        length @ 0..16 => packed.push(0x80 | length as u8),
        length => put_length(packed, 0xde, length),
    }
    let mut place = 0;
    while let Some((behind, key, value)) = call.machine.heap.tables[table].pair_from(place) {
        put(call, packed, key, level + 1, slots + 3)?;
        put(call, packed, value, level + 1, slots + 2)?;
        place = behind;
    }
    Ok(())
}

/// A length of two bytes behind the tag, or of four behind the next tag.
fn put_length(packed: &mut Vec<u8>, tag: u8, length: usize) {
    match u16::try_from(length) {
        Ok(length) => {
            packed.push(tag);
            packed.extend(length.to_be_bytes());
        }
        Err(_) => {
            packed.push(tag + 1);
            packed.extend((length as u32).to_be_bytes());
        }
    }
}

/// An integer, if it is one, with as few bytes as possible. Otherwise a float, if that is exact.
fn put_number(packed: &mut Vec<u8>, number: f64) {
    let integer = number as i64;
    // What is too large becomes the largest integer, which as a float is not the largest integer.
    if integer as f64 != number || integer == i64::MAX {
        if f64::from(number as f32) == number {
            packed.push(0xca);
            packed.extend((number as f32).to_be_bytes());
        } else {
            packed.push(0xcb);
            packed.extend(number.to_be_bytes());
        }
        return;
    }
    let bytes = integer.to_be_bytes();
    let (tag, length) = match integer {
        -32..0x80 => return packed.push(bytes[7]),
        0x80..0x100 => (0xcc, 1),
        0x100..0x1_0000 => (0xcd, 2),
        0x1_0000..0x1_0000_0000 => (0xce, 4),
        0x1_0000_0000.. => (0xcf, 8),
        -0x80..-32 => (0xd0, 1),
        -0x8000..-0x80 => (0xd1, 2),
        -0x8000_0000..-0x8000 => (0xd2, 4),
        _ => (0xd3, 8),
    };
    packed.push(tag);
    packed.extend_from_slice(&bytes[8 - length..]);
}

/// All values that the bytes hold.
fn unpack(call: &mut Call) -> Result<Outcome, Error> {
    give_values(call, 0, 0)
}

/// One value from a position on, behind the position of the next one, or -1 if it was the last.
fn unpack_one(call: &mut Call) -> Result<Outcome, Error> {
    let offset = call.integer_or(2, 0)?;
    call.count = call.count.min(1);
    give_values(call, 1, offset)
}

/// As `unpack_one`, but up to that many values.
fn unpack_limit(call: &mut Call) -> Result<Outcome, Error> {
    let limit = call.integer(2)?;
    let offset = call.integer_or(3, 0)?;
    call.count = 1;
    give_values(call, limit, offset)
}

fn give_values(call: &mut Call, limit: i64, offset: i64) -> Result<Outcome, Error> {
    let bytes = call.string(1)?;
    let length = call.bytes(bytes).len();
    if offset < 0 || limit < 0 {
        return Err(call.error(format!(
            "Invalid request to unpack with offset of {} and limit of {}.",
            offset as i32, length as i32
        )));
    }
    if offset as usize > length {
        return Err(call.error(format!(
            "Start offset {} greater than input length {}.",
            offset as i32, length as i32
        )));
    }
    let all = limit == 0 && offset == 0;
    let limit = if all { i64::from(i32::MAX) } else { limit };
    call.check_room(length)?;
    let bytes = call.bytes(bytes).to_vec();
    let mut reader = Reader { rest: &bytes[offset as usize..], open: Vec::new(), slots: 0 };
    let mut values = Vec::new();
    while !reader.rest.is_empty() && (values.len() as i64) < limit {
        reader.slots = values.len();
        values.push(reader.value(call)?);
    }
    if !all {
        check_slots(call, values.len() + 1, "in function mp_unpack_full")?;
        let position = bytes.len() - reader.rest.len();
        let is_end = reader.rest.is_empty();
        call.push(Value::Number(if is_end { -1.0 } else { position as f64 }));
    }
    values.iter().for_each(|value| call.push(*value));
    Ok(Outcome::Return(values.len() + usize::from(!all)))
}

struct Reader<'a> {
    rest: &'a [u8],
    open: Vec<Open>,
    /// How many slots of its stack Lua would use behind the arguments.
    slots: usize,
}

/// An array or a map that waits for elements or pairs, of which that many are left.
enum Open {
    Array { table: TableId, next: u32, left: u32 },
    Map { table: TableId, key: Option<Value>, left: u32 },
}

/// What stands at the beginning of the bytes.
enum Item {
    Value(Value),
    Array(u32),
    Map(u32),
}

impl<'a> Reader<'a> {
    fn value(&mut self, call: &mut Call) -> Result<Value, Error> {
        loop {
            call.tick()?;
            let value = match self.item(call)? {
                Item::Value(value) => value,
                Item::Array(left) => {
                    let table = call.machine.heap.table(0, 0)?;
                    check_slots(call, self.slots + 2, "in function mp_decode_to_lua_array")?;
                    if left > 0 {
                        self.slots += 2;
                        self.open.push(Open::Array { table, next: 1, left });
                        continue;
                    }
                    Value::Table(table)
                }
                Item::Map(left) => {
                    let table = call.machine.heap.table(0, 0)?;
                    if left > 0 {
                        self.slots += 1;
                        self.open.push(Open::Map { table, key: None, left });
                        continue;
                    }
                    Value::Table(table)
                }
            };
            if let Some(value) = self.complete(call, value)? {
                return Ok(value);
            }
        }
    }

    /// Puts a value where it belongs. Gives the outermost value, if that is complete now.
    fn complete(&mut self, call: &mut Call, value: Value) -> Result<Option<Value>, Error> {
        let mut value = value;
        while let Some(open) = self.open.last_mut() {
            let (table, is_complete, slots) = match open {
                Open::Map { key: key @ None, .. } => {
                    *key = Some(value);
                    self.slots += 1;
                    return Ok(None);
                }
                Open::Map { table, key, left } => {
                    call.set(*table, key.take().unwrap_or_default(), value)?;
                    *left -= 1;
                    self.slots -= 1;
                    (*table, *left == 0, 1)
                }
                Open::Array { table, next, left } => {
                    call.set(*table, Value::Number((*next).into()), value)?;
                    *next = next.wrapping_add(1);
                    *left -= 1;
                    (*table, *left == 0, 2)
                }
            };
            if !is_complete {
                return Ok(None);
            }
            self.open.pop();
            self.slots -= slots;
            value = Value::Table(table);
        }
        Ok(Some(value))
    }

    fn item(&mut self, call: &mut Call) -> Result<Item, Error> {
        let tag = self.bytes(call, 1)?[0];
        let text = "too many return values at once; use unpack_one or unpack_limit instead.";
        check_slots(call, self.slots + 1, text)?;
        let value = match tag {
            0x00..=0x7f => Value::Number(tag.into()),
            0x80..=0x8f => return Ok(Item::Map(u32::from(tag & 0x0f))),
            0x90..=0x9f => return Ok(Item::Array(u32::from(tag & 0x0f))),
            0xa0..=0xbf => self.string(call, usize::from(tag & 0x1f))?,
            0xc0 => Value::Nil,
            0xc2 | 0xc3 => Value::Boolean(tag == 0xc3),
            0xca => Value::Number(f32::from_bits(self.integer(call, 4)? as u32).into()),
            0xcb => Value::Number(f64::from_bits(self.integer(call, 8)? as u64)),
            0xcc => Value::Number(self.integer(call, 1)? as f64),
            0xcd => Value::Number(self.integer(call, 2)? as f64),
            0xce => Value::Number(self.integer(call, 4)? as f64),
            0xcf | 0xd3 => Value::Number(self.integer(call, 8)? as f64),
            0xd0 => Value::Number((self.integer(call, 1)? as i8).into()),
            0xd1 => Value::Number((self.integer(call, 2)? as i16).into()),
            0xd2 => Value::Number((self.integer(call, 4)? as i32).into()),
            0xd9..=0xdb => {
                let length = self.integer(call, 1 << (tag - 0xd9))?;
                self.string(call, length as usize)?
            }
            0xdc | 0xdd => return Ok(Item::Array(self.integer(call, 2 << (tag - 0xdc))? as u32)),
            0xde | 0xdf => return Ok(Item::Map(self.integer(call, 2 << (tag - 0xde))? as u32)),
            0xe0..=0xff => Value::Number((tag as i8).into()),
            0xc1 | 0xc4..=0xc9 | 0xd4..=0xd8 => {
                return Err(call.error("Bad data format in input."));
            }
        };
        Ok(Item::Value(value))
    }

    fn string(&mut self, call: &mut Call, length: usize) -> Result<Value, Error> {
        let bytes = self.bytes(call, length)?;
        Ok(Value::String(call.machine.heap.string(bytes)?))
    }

    /// An integer of that many bytes, at most eight, the highest one first.
    fn integer(&mut self, call: &mut Call, length: usize) -> Result<i64, Error> {
        let bytes = self.bytes(call, length)?;
        Ok(bytes.iter().fold(0, |number, byte| number << 8 | i64::from(*byte)))
    }

    fn bytes(&mut self, call: &mut Call, length: usize) -> Result<&'a [u8], Error> {
        match self.rest.split_at_checked(length) {
            Some((bytes, rest)) => {
                self.rest = rest;
                Ok(bytes)
            }
            None => Err(call.error("Missing bytes in input.")),
        }
    }
}
