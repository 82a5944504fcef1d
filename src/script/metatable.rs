//! Metatables: what a table does when it is indexed without success, added, called, compared.
//!
//! ```text
//! setmetatable(account, {__index = defaults})
//!
//! account.limit     not in account → its metatable has __index → look in defaults
//! ```
//!
//! Only tables have metatables of their own, and all strings share one. An event is the name of a
//! field in the metatable. Nearly every metatable lacks nearly every event, so a table remembers in
//! a bit for each of the first eight that it has none. Any change of the table clears the bits.
//!
//! **How Redis does it**: the same.

use super::heap::{Heap, Id};
use super::number;
use super::value::Value;

/// An `__index` may lead to a table that has an `__index` itself, and so on, up to this many times.
pub const MAX_CHAIN: usize = 100;

/// The names of metamethods, and other strings that the machine itself needs. The heap makes them
/// first, so the number of a name is the id of its string.
#[derive(Clone, Copy, PartialEq)]
pub enum Name {
    Index,
    NewIndex,
    Mode,
    Eq,
    Add,
    Sub,
    Mul,
    Div,
    Mod,
    Pow,
    Unm,
    Lt,
    Le,
    Concat,
    Call,
    ToString,
    Metatable,
    NotEnoughMemory,
}

pub const NAMES: [&str; 18] = [
    "__index",
    "__newindex",
    "__mode",
    "__eq",
    "__add",
    "__sub",
    "__mul",
    "__div",
    "__mod",
    "__pow",
    "__unm",
    "__lt",
    "__le",
    "__concat",
    "__call",
    "__tostring",
    "__metatable",
    "not enough memory",
];

impl Name {
    pub fn value(self) -> Value {
        Value::String(Id::new(self as usize))
    }
}

/// What is at a key of a value.
pub enum Lookup {
    Found(Value),
    // This function must be called with the object and the key.
    Call { function: Value, object: Value },
    // The object has no fields. `is_first`: it is the one that was asked for.
    NoFields { object: Value, is_first: bool },
    // The chain of `__index` is too long.
    Loop,
}

impl Heap {
    /// The metamethod of a value for an event, or nil.
    #[inline]
    pub fn metamethod(&mut self, value: Value, event: Name) -> Value {
        let meta = match value {
            Value::Table(table) => self.tables[table].meta,
            Value::String(_) => self.string_meta,
            _ => None,
        };
        let Some(meta) = meta else { return Value::Nil };
        let bit = 1u32.wrapping_shl(event as u32) as u8;
        if event as u32 >= 8 || self.tables[meta].absent & bit == 0 {
            let found = self.get(meta, event.value());
            if !found.is_nil() || event as u32 >= 8 {
                return found;
            }
            self.tables[meta].absent |= bit;
        }
        Value::Nil
    }

    /// What is at a key of a value, with metatables.
    pub fn lookup(&mut self, object: Value, key: Value) -> Lookup {
        let mut object = object;
        for step in 0..MAX_CHAIN {
            if let Value::Table(table) = object {
                let value = self.get(table, key);
                if !value.is_nil() {
                    return Lookup::Found(value);
                }
            }
            match self.metamethod(object, Name::Index) {
                Value::Nil if matches!(object, Value::Table(_)) => {
                    return Lookup::Found(Value::Nil);
                }
                Value::Nil => return Lookup::NoFields { object, is_first: step == 0 },
                function @ Value::Function(_) => return Lookup::Call { function, object },
                next => object = next,
            }
        }
        Lookup::Loop
    }

    /// As arithmetic sees a value: a string may be a number.
    pub fn number_of(&mut self, value: Value) -> Option<f64> {
        match value {
            Value::Number(number) => Some(number),
            Value::String(string) => {
                self.charge_bytes(self.bytes_of(string).len());
                number::from_text(self.bytes_of(string))
            }
            _ => None,
        }
    }
}
