//! JSON, as the library lua-cjson 2.1.0 reads and writes it.
//!
//! ```text
//! cjson.encode({a = 1, b = {10, 20}})      {"a":1,"b":[10,20]}
//! cjson.encode({})                         {}
//! cjson.decode('[1,null]')[2]              cjson.null
//! ```
//!
//! JSON has arrays and objects where Lua has only tables. A table with keys from 1 on, and no
//! others, is [encoded](mod@encode) as an array, and each other one as an object. So an empty table
//! becomes an object, even if it was an array when it was [decoded](mod@decode).
//!
//! A script can change nine [settings](Setting), for example how deep tables may be. The natives
//! of one library share them, in a table that no script sees, and `cjson.new` makes a library with
//! settings of its own.
//!
//! **How Redis does it**: this library in C, which calls itself for each level of a table. Here
//! what is still open lies in a vector, so the native stack does not grow. In Redis the settings
//! of a script hold for all scripts after it, until SCRIPT FLUSH. Here each script begins with the
//! defaults, so that no script can break another one.

mod decode;
mod encode;

use super::{Call, Native, Outcome};
use crate::script::heap::Function;
use crate::script::machine::Machine;
use crate::script::number;
use crate::script::table::Table;
use crate::script::value::{Error, TableId, Value};

/// What a script can set. The numbers count the elements of the table of settings.
#[derive(Clone, Copy)]
enum Setting {
    /// Whether an array of which most elements are missing becomes an object. It is an error
    /// otherwise.
    SparseConvert,
    /// How many times longer than the count of its elements an array may be. 0: any.
    SparseRatio,
    /// Up to this length any array is fine.
    SparseSafe,
    EncodeDepth,
    DecodeDepth,
    /// How many digits a number has at most.
    Precision,
    /// Whether Redis keeps the memory of a text for the next one. Nothing depends on it here.
    KeepBuffer,
    /// What `encode` does with infinities and what is not a number. 0: an error, 1: their names,
    /// 2: null.
    EncodeInvalid,
    /// Whether `decode` knows these names, and hexadecimal numbers.
    DecodeInvalid,
}

type Settings = [i32; 9];

const DEFAULTS: Settings = [0, 2, 10, 1000, 1000, 14, 1, 0, 1];

const NATIVES: [(&str, Native); 10] = [
    ("encode", encode),
    ("decode", decode),
    ("encode_sparse_array", encode_sparse_array),
    ("encode_max_depth", |call| depth(call, Setting::EncodeDepth)),
    ("decode_max_depth", |call| depth(call, Setting::DecodeDepth)),
    ("encode_number_precision", encode_number_precision),
    ("encode_keep_buffer", |call| only_switch(call, Setting::KeepBuffer, &["off", "on"])),
    ("encode_invalid_numbers", |call| {
        only_switch(call, Setting::EncodeInvalid, &["off", "on", "null"])
    }),
    ("decode_invalid_numbers", |call| only_switch(call, Setting::DecodeInvalid, &["off", "on"])),
    ("new", new),
];

pub fn open(machine: &mut Machine) {
    let library = library(machine, machine.json_settings);
    machine.set_field(machine.globals, "cjson", Value::Table(library));
}

/// Gives the settings their defaults. Without an element in the table, the default holds.
pub fn begin(machine: &mut Machine) {
    let Machine { heap, json_settings, .. } = machine;
    let settings = &mut heap.tables[*json_settings];
    if settings.pair_from(0).is_some() {
        heap.bytes = heap.bytes.saturating_sub(settings.size() - size_of::<Table>());
        *settings = Table::default();
    }
}

fn library(machine: &mut Machine, settings: TableId) -> TableId {
    let library = machine.heap.add_table();
    for (name, run) in NATIVES {
        let upvalues = [Value::Table(settings)].into();
        let function = machine.heap.function(Function::Native { run, upvalues });
        machine.set_field(library, name, Value::Function(function));
    }
    machine.set_field(library, "null", Value::Null);
    for (name, text) in [("_NAME", "cjson"), ("_VERSION", "2.1.0")] {
        let text = machine.heap.add_string(text.as_bytes());
        machine.set_field(library, name, Value::String(text));
    }
    library
}

fn new(call: &mut Call) -> Result<Outcome, Error> {
    call.check_room(0)?;
    let settings = call.machine.heap.add_table();
    let library = library(call.machine, settings);
    call.give(Value::Table(library))
}

fn encode(call: &mut Call) -> Result<Outcome, Error> {
    let settings = settings(call);
    if call.count != 1 {
        return Err(call.bad_argument(1, "expected 1 argument"));
    }
    let text = encode::encode(call, call.arg(1), settings)?;
    call.give_string(&text)
}

fn decode(call: &mut Call) -> Result<Outcome, Error> {
    let settings = settings(call);
    if call.count != 1 {
        return Err(call.bad_argument(1, "expected 1 argument"));
    }
    let text = call.string(1)?;
    call.check_room(call.bytes(text).len())?;
    let text = call.bytes(text).to_vec();
    let value = decode::decode(call, &text, settings)?;
    call.give(value)
}

fn encode_sparse_array(call: &mut Call) -> Result<Outcome, Error> {
    at_most(call, 3)?;
    switch(call, Setting::SparseConvert, &["off", "on"])?;
    number(call, 2, Setting::SparseRatio, 0, i32::MAX)?;
    number(call, 3, Setting::SparseSafe, 0, i32::MAX)?;
    Ok(Outcome::Return(3))
}

fn depth(call: &mut Call, setting: Setting) -> Result<Outcome, Error> {
    at_most(call, 1)?;
    number(call, 1, setting, 1, i32::MAX)?;
    Ok(Outcome::Return(1))
}

fn encode_number_precision(call: &mut Call) -> Result<Outcome, Error> {
    at_most(call, 1)?;
    number(call, 1, Setting::Precision, 1, 14)?;
    Ok(Outcome::Return(1))
}

fn only_switch(call: &mut Call, setting: Setting, options: &[&str]) -> Result<Outcome, Error> {
    at_most(call, 1)?;
    switch(call, setting, options)?;
    Ok(Outcome::Return(1))
}

fn at_most(call: &mut Call, arguments: usize) -> Result<(), Error> {
    match call.count <= arguments {
        true => Ok(()),
        false => Err(call.bad_argument(arguments + 1, "found too many arguments")),
    }
}

/// Sets a setting that is a number, if there is such an argument, and pushes what it is now.
fn number(
    call: &mut Call,
    argument: usize,
    setting: Setting,
    min: i32,
    max: i32,
) -> Result<(), Error> {
    if !call.arg(argument).is_nil() {
        let value = call.integer(argument)? as i32;
        if !(min..=max).contains(&value) {
            let text = format!("expected integer between {min} and {max}");
            return Err(call.bad_argument(1, &text));
        }
        set(call, setting, value)?;
    }
    let value = settings(call)[setting as usize];
    call.push(Value::Number(value.into()));
    Ok(())
}

/// Sets a setting that has names, if there is a first argument, and pushes what it is now. The
/// first two names mean false and true.
fn switch(call: &mut Call, setting: Setting, options: &[&str]) -> Result<(), Error> {
    match call.arg(1) {
        Value::Nil => {}
        Value::Boolean(is) => set(call, setting, is.into())?,
        _ => {
            let name = call.string(1)?;
            let name = number::c_string(call.bytes(name));
            let option = options.iter().position(|option| option.as_bytes() == name);
            let Some(option) = option else {
                let text = [b"invalid option '", name, b"'"].concat();
                return Err(call.bad_argument_bytes(1, &text));
            };
            set(call, setting, option as i32)?;
        }
    }
    let value = match settings(call)[setting as usize] {
        is @ 0..=1 => Value::Boolean(is == 1),
        option => {
            let option = options[option as usize].as_bytes();
            Value::String(call.machine.heap.add_string(option))
        }
    };
    call.push(value);
    Ok(())
}

fn settings(call: &mut Call) -> Settings {
    let mut settings = DEFAULTS;
    if let Value::Table(table) = *call.upvalue(0) {
        let table = &call.machine.heap.tables[table];
        for (index, setting) in settings.iter_mut().enumerate() {
            if let Value::Number(value) = table.get_number((index + 1) as f64) {
                *setting = value as i32;
            }
        }
    }
    settings
}

fn set(call: &mut Call, setting: Setting, value: i32) -> Result<(), Error> {
    let Value::Table(table) = *call.upvalue(0) else { return Ok(()) };
    call.set(table, Value::Number((setting as usize + 1) as f64), Value::Number(value.into()))
}
