//! The functions that are global: `type`, `pairs`, `pcall`, `tostring` …
//!
//! ```text
//! for k, v in pairs(t)       pairs gives next, t and nil. What loops is the machine
//! pcall(f, 1)                asks the machine for a frame that holds errors, and for the call f(1)
//! tostring(t)                asks for the call of t's __tostring, and waits
//! ```
//!
//! As Redis leaves them: without `print`, `dofile`, `loadfile`, `require`, `getfenv`, `setfenv`
//! and `newproxy`.
//!
//! **How Redis does it**: lbaselib.c of Lua. Its `pcall` gives the error as it is. That of Redis knows
//! the errors that are tables with the field `err`: see `give_failure` in machine/calls.rs.

use super::{Call, Native, Outcome, Resume};
use crate::script::heap::Function;
use crate::script::machine::Machine;
use crate::script::metatable::Name;
use crate::script::number;
use crate::script::value::{Error, Value};

const NATIVES: [(&str, Native); 18] = [
    ("assert", assert),
    ("collectgarbage", collectgarbage),
    ("error", error),
    ("gcinfo", gcinfo),
    ("getmetatable", getmetatable),
    ("loadstring", loadstring),
    ("next", next),
    ("pcall", pcall),
    ("rawequal", rawequal),
    ("rawget", rawget),
    ("rawset", rawset),
    ("select", select),
    ("setmetatable", setmetatable),
    ("tonumber", tonumber),
    ("tostring", tostring),
    ("type", type_of),
    ("unpack", unpack),
    ("xpcall", xpcall),
];

pub fn open(machine: &mut Machine) {
    let globals = machine.globals;
    for (name, native) in NATIVES {
        let native = machine.heap.native(native);
        machine.set_field(globals, name, native);
    }
    // `pairs` and `ipairs` return a function that they keep, and `load` calls one.
    let with_another: [(&str, Native, Native); 3] =
        [("pairs", pairs, next), ("ipairs", ipairs, ipairs_next), ("load", load, pcall)];
    for (name, run, other) in with_another {
        let upvalues = [machine.heap.native(other)].into();
        let function = machine.heap.function(Function::Native { run, upvalues });
        machine.set_field(globals, name, Value::Function(function));
    }
    machine.set_field(globals, "_G", Value::Table(globals));
    let version = machine.heap.add_string(b"Lua 5.1");
    machine.set_field(globals, "_VERSION", Value::String(version));
}

fn assert(call: &mut Call) -> Result<Outcome, Error> {
    if call.any(1)?.is_true() {
        for number in 1..=call.count {
            call.push(call.arg(number));
        }
        return Ok(Outcome::Return(call.count));
    }
    if call.arg(2).is_nil() {
        return Err(call.error("assertion failed!"));
    }
    let message = call.string(2)?;
    let message = number::c_string(call.bytes(message)).to_vec();
    Err(call.error(message))
}

fn collectgarbage(call: &mut Call) -> Result<Outcome, Error> {
    let option = match call.arg(1) {
        Value::Nil => b"collect".to_vec(),
        _ => {
            let option = call.string(1)?;
            call.bytes(option).to_vec()
        }
    };
    call.integer_or(2, 0)?;
    let kilobytes = call.machine.heap.bytes as f64 / 1024.0;
    match &option[..] {
        b"collect" | b"step" => {
            // It runs as soon as this native has returned.
            call.machine.heap.threshold = 0;
            call.charge(call.machine.heap.bytes / 64);
            call.give(if option == b"step" { Value::Boolean(true) } else { Value::Number(0.0) })
        }
        b"count" => call.give_number(kilobytes),
        b"setpause" | b"setstepmul" => call.give_number(200.0),
        b"stop" | b"restart" => call.give_number(0.0),
        _ => Err(call.bad_argument_bytes(1, &[b"invalid option '", &option[..], b"'"].concat())),
    }
}

fn gcinfo(call: &mut Call) -> Result<Outcome, Error> {
    call.give_number((call.machine.heap.bytes / 1024) as f64)
}

fn error(call: &mut Call) -> Result<Outcome, Error> {
    let level = call.integer_or(2, 1)?;
    let value = call.arg(1);
    if level > 0 && value.is_text() {
        let position = call.machine.position(level as usize);
        let message = call.string(1)?;
        let message = [&position, call.bytes(message)].concat();
        return Err(Error(Value::String(call.machine.heap.string(&message)?)));
    }
    Err(Error(value))
}

fn getmetatable(call: &mut Call) -> Result<Outcome, Error> {
    let value = call.any(1)?;
    let heap = &mut call.machine.heap;
    let shown = heap.metamethod(value, Name::Metatable);
    let meta = match value {
        Value::Table(table) => heap.tables[table].meta,
        Value::String(_) => heap.string_meta,
        _ => None,
    };
    let meta = meta.map_or(Value::Nil, Value::Table);
    call.give(if shown.is_nil() { meta } else { shown })
}

fn setmetatable(call: &mut Call) -> Result<Outcome, Error> {
    let table = call.table(1)?;
    let meta = match call.arg(2) {
        Value::Table(meta) => Some(meta),
        Value::Nil if call.is_given(2) => None,
        _ => return Err(call.bad_argument(2, "nil or table expected")),
    };
    if !call.machine.heap.metamethod(Value::Table(table), Name::Metatable).is_nil() {
        return Err(call.error("cannot change a protected metatable"));
    }
    if call.machine.heap.tables[table].readonly {
        return Err(call.machine.plain_error(b"Attempt to modify a readonly table"));
    }
    call.machine.heap.tables[table].meta = meta;
    call.give(Value::Table(table))
}

/// A source in pieces: calls a function until it returns nothing, and compiles all that it gave.
/// Its errors are errors of the source, so it is called by `pcall`.
fn load(call: &mut Call) -> Result<Outcome, Error> {
    if !call.arg(2).is_nil() {
        call.string(2)?;
    }
    call.function(1)?;
    Load { source: Vec::new() }.read(call)
}

struct Load {
    source: Vec<u8>,
}

impl Load {
    fn read(self, call: &mut Call) -> Result<Outcome, Error> {
        let pcall = *call.upvalue(0);
        call.push(pcall);
        call.push(call.arg(1));
        Ok(Outcome::Then(1, Box::new(self)))
    }
}

impl Resume for Load {
    fn resume(mut self: Box<Self>, call: &mut Call) -> Result<Outcome, Error> {
        let piece = match (call.result(0), call.result(1)) {
            (Value::Boolean(true), Value::String(piece)) => call.bytes(piece),
            (Value::Boolean(true), Value::Nil) => b"",
            (Value::Boolean(true), Value::Number(number)) => &number::to_text(number),
            (Value::Boolean(true), _) => {
                let error = call.error("reader function must return a string");
                return failed(call, error.0);
            }
            (_, error) => return failed(call, error),
        };
        if !piece.is_empty() {
            call.check_room(self.source.len() + piece.len())?;
            self.source.extend_from_slice(piece);
            return self.read(call);
        }
        let name = match call.arg(2) {
            Value::Nil => b"=(load)".to_vec(),
            _ => {
                let name = call.string(2)?;
                call.bytes(name).to_vec()
            }
        };
        compile(call, &self.source, &name)
    }

    fn size(&self) -> usize {
        self.source.len()
    }
}

fn loadstring(call: &mut Call) -> Result<Outcome, Error> {
    let source = call.string(1)?;
    let source = call.bytes(source).to_vec();
    let name = match call.arg(2) {
        Value::Nil => source.clone(),
        _ => {
            let name = call.string(2)?;
            call.bytes(name).to_vec()
        }
    };
    compile(call, &source, &name)
}

fn compile(call: &mut Call, source: &[u8], name: &[u8]) -> Result<Outcome, Error> {
    let Call { machine, host, .. } = call;
    match machine.load(source, name, &mut || host.interrupt()) {
        Ok(function) => call.give(function),
        Err(error) if call.machine.is_stopped => Err(error),
        Err(error) => failed(call, error.0),
    }
}

/// Returns nil and the reason.
fn failed(call: &mut Call, reason: Value) -> Result<Outcome, Error> {
    call.push(Value::Nil);
    call.push(reason);
    Ok(Outcome::Return(2))
}

fn pairs(call: &mut Call) -> Result<Outcome, Error> {
    let table = call.table(1)?;
    let next = *call.upvalue(0);
    call.push(next);
    call.push(Value::Table(table));
    call.push(Value::Nil);
    Ok(Outcome::Return(3))
}

fn next(call: &mut Call) -> Result<Outcome, Error> {
    let table = call.table(1)?;
    match call.machine.heap.next(table, call.arg(2)) {
        Ok(Some((key, value))) => {
            call.push(key);
            call.push(value);
            Ok(Outcome::Return(2))
        }
        Ok(None) => call.give(Value::Nil),
        Err(fault) => Err(call.machine.plain_error(fault.text().as_bytes())),
    }
}

fn ipairs(call: &mut Call) -> Result<Outcome, Error> {
    let table = call.table(1)?;
    let next = *call.upvalue(0);
    call.push(next);
    call.push(Value::Table(table));
    call.push(Value::Number(0.0));
    Ok(Outcome::Return(3))
}

fn ipairs_next(call: &mut Call) -> Result<Outcome, Error> {
    let index = call.integer(2)? as f64 + 1.0;
    let table = call.table(1)?;
    let value = call.machine.heap.tables[table].get_number(index);
    if value.is_nil() {
        return Ok(Outcome::Return(0));
    }
    call.push(Value::Number(index));
    call.push(value);
    Ok(Outcome::Return(2))
}

fn pcall(call: &mut Call) -> Result<Outcome, Error> {
    if call.count == 0 {
        call.push(Value::Boolean(false));
        let text = call.machine.plain_error(b"attempt to call a boolean value");
        call.push(text.0);
        return Ok(Outcome::Return(2));
    }
    Ok(Outcome::Protect { has_handler: false })
}

fn xpcall(call: &mut Call) -> Result<Outcome, Error> {
    let handler = call.any(2)?;
    let function = call.arg(1);
    call.machine.thread.top = call.slot + 1;
    call.push(handler);
    call.push(function);
    Ok(Outcome::Protect { has_handler: true })
}

fn rawequal(call: &mut Call) -> Result<Outcome, Error> {
    let equal = call.any(1)? == call.any(2)?;
    call.give(Value::Boolean(equal))
}

fn rawget(call: &mut Call) -> Result<Outcome, Error> {
    let table = call.table(1)?;
    let key = call.any(2)?;
    let value = call.machine.heap.get(table, key);
    call.give(value)
}

fn rawset(call: &mut Call) -> Result<Outcome, Error> {
    let table = call.table(1)?;
    let (key, value) = (call.any(2)?, call.any(3)?);
    call.set(table, key, value)?;
    call.give(Value::Table(table))
}

fn select(call: &mut Call) -> Result<Outcome, Error> {
    let count = call.count as i64;
    if let Value::String(text) = call.arg(1)
        && call.bytes(text).first() == Some(&b'#')
    {
        return call.give_number((count - 1) as f64);
    }
    let wanted = call.integer(1)? as i32 as i64;
    let first = if wanted < 0 { count + wanted } else { wanted.min(count) };
    if first < 1 {
        return Err(call.bad_argument(1, "index out of range"));
    }
    for number in first + 1..=count {
        call.push(call.arg(number as usize));
    }
    Ok(Outcome::Return((count - first) as usize))
}

fn tonumber(call: &mut Call) -> Result<Outcome, Error> {
    let base = call.integer_or(2, 10)? as i32;
    if base == 10 {
        let value = match call.any(1)? {
            Value::String(_) => Value::String(call.string(1)?),
            other => other,
        };
        let number = call.machine.heap.number_of(value);
        return call.give(number.map_or(Value::Nil, Value::Number));
    }
    let text = call.string(1)?;
    if !(2..=36).contains(&base) {
        return Err(call.bad_argument(2, "base out of range"));
    }
    let number = number::integer_from_text(call.bytes(text), base as u32);
    call.give(number.map_or(Value::Nil, Value::Number))
}

fn tostring(call: &mut Call) -> Result<Outcome, Error> {
    let value = call.any(1)?;
    let function = call.machine.heap.metamethod(value, Name::ToString);
    if !function.is_nil() {
        call.push(function);
        call.push(value);
        return Ok(Outcome::Then(1, Box::new(FirstResult)));
    }
    let address = match value {
        Value::Table(id) => id.index(),
        Value::Function(id) => id.index(),
        Value::Thread(id) => id.index(),
        _ => 0,
    };
    match value {
        Value::String(_) => call.give(value),
        Value::Number(number) => call.give_string(&number::to_text(number)),
        Value::Nil => call.give_string(b"nil"),
        Value::Boolean(true) => call.give_string(b"true"),
        Value::Boolean(false) => call.give_string(b"false"),
        Value::Null => call.give_string(b"userdata: (nil)"),
        // What stands for the address only has to be different for each.
        _ => call.give_string(format!("{}: {:#014x}", value.type_name(), address * 64).as_bytes()),
    }
}

/// Returns the first result of the function.
struct FirstResult;

impl Resume for FirstResult {
    fn resume(self: Box<Self>, call: &mut Call) -> Result<Outcome, Error> {
        call.give(call.result(0))
    }
}

fn type_of(call: &mut Call) -> Result<Outcome, Error> {
    let name = call.any(1)?.type_name();
    call.give_string(name.as_bytes())
}

fn unpack(call: &mut Call) -> Result<Outcome, Error> {
    let table = call.table(1)?;
    let first = call.integer_or(2, 1)? as i32 as i64;
    let last = match call.arg(3) {
        Value::Nil => call.machine.heap.border(table) as i64,
        _ => call.integer(3)? as i32 as i64,
    };
    if first > last {
        return Ok(Outcome::Return(0));
    }
    let count = (last - first + 1) as usize;
    if !call.has_room_on_stack(count) {
        return Err(call.error("too many results to unpack"));
    }
    for index in first..=last {
        let value = call.machine.heap.tables[table].get_number(index as f64);
        call.push(value);
    }
    Ok(Outcome::Return(count))
}
