//! From the value that a script returns to the reply.
//!
//! ```text
//! 'a'  bulk string      true   1                     {ok = 'x'}    +x       {double = 1.5}
//! 3.7  3                false  nil                   {err = 'E x'} -E x     {big_number = '7'}
//! nil  nil              {1, 2, nil, 4}  1 and 2      {map = {…}}  {set = {…}}  {verbatim_string = {…}}
//! ```
//!
//! A number loses what is behind its point, and an array ends at the first nil. After `redis.setresp(3)`, true and
//! false are truth values.
//!
//! A script may return tables in tables without end, so this does not recurse: what is begun waits on a list. It asks
//! the host now and then whether it may go on.
//!
//! **How Redis does it**: `luaReplyToRedisReply` in script_lua.c, which recurses, and writes the length of an array
//! when it knows it.

use super::Running;
use crate::error::Error;
use crate::resp::{Protocol, Reply};
use crate::script::lib::reply::COUNTED;
use crate::script::machine::Machine;
use crate::script::metatable::Lookup;
use crate::script::number;
use crate::script::value::{self, TableId, Value};

/// A table of which a part is written.
enum Open {
    Array {
        table: TableId,
        written: usize,
        count: usize,
    },
    /// A map, or a set, which has no values.
    Pairs {
        table: TableId,
        /// That of [`Table::pair_from`](crate::script::table::Table::pair_from).
        place: usize,
        value: Option<Value>,
        has_values: bool,
    },
}

/// How many slots of Lua's stack Redis needs for what is open, at most.
const MOST_SLOTS: usize = 7994;

/// Writes what the machine's last run has returned. Returns whether there is an error in it.
pub fn write(
    machine: &mut Machine,
    running: &mut Running,
    reply: &mut Reply,
) -> Result<bool, value::Error> {
    let is_resp3 = running.reply.protocol == Protocol::Resp3;
    let mut next = Some(machine.results().first().copied().unwrap_or_default());
    let (mut open, mut slots, mut has_error) = (Vec::new(), 0, false);
    while !reply.out.is_over {
        if let Some(value) = next.take() {
            machine.tick(running)?;
            match value {
                _ if slots > MOST_SLOTS => {
                    has_error = true;
                    reply.error(&Error::text("ERR reached lua stack limit"));
                }
                Value::Table(table) => match write_table(machine, table, reply) {
                    Written::Begun(begun) => {
                        slots += begun.slots();
                        open.push(begun);
                    }
                    Written::Whole => {}
                    Written::Error => has_error = true,
                },
                Value::Boolean(value) if is_resp3 => reply.boolean(value),
                Value::Boolean(true) => reply.integer(1),
                Value::Number(number) => reply.integer(number::to_integer(number)),
                Value::String(string) => reply.bulk(machine.heap.bytes_of(string)),
                _ => reply.nil(),
            }
            continue;
        }
        let Some(last) = open.last_mut() else { break };
        next = last.next(machine);
        if next.is_none() {
            slots -= last.slots();
            open.pop();
        }
    }
    Ok(has_error)
}

enum Written {
    Whole,
    Begun(Open),
    Error,
}

/// Writes a table that means one thing, or begins one that has elements.
fn write_table(machine: &mut Machine, table: TableId, reply: &mut Reply) -> Written {
    if matches!(machine.field(table, "err"), Value::String(_)) {
        let (text, is_counted) = error_text(machine, Value::Table(table));
        write_error(text, is_counted, reply);
        return Written::Error;
    }
    let text = |table, name| match machine.field(table, name) {
        Value::String(string) => Some(machine.heap.bytes_of(string)),
        _ => None,
    };
    if let Some(text) = text(table, "ok") {
        reply.status_of_script(number::c_string(text));
    } else if let Value::Number(number) = machine.field(table, "double") {
        reply.double(number);
    } else if let Some(digits) = text(table, "big_number") {
        reply.big_number(&in_one_line(digits));
    } else if let Value::Table(inner) = machine.field(table, "verbatim_string")
        && let (Some(format), Some(text)) = (text(inner, "format"), text(inner, "string"))
    {
        reply.verbatim_of(format, text);
    } else if let Value::Table(table) = machine.field(table, "map") {
        reply.map(count(machine, table));
        return Written::Begun(Open::pairs(table, true));
    } else if let Value::Table(table) = machine.field(table, "set") {
        reply.set(count(machine, table));
        return Written::Begun(Open::pairs(table, false));
    } else {
        let element = |n: usize| machine.heap.tables[table].get_number(n as f64);
        let count = (1..).take_while(|n| !element(*n).is_nil()).count();
        machine.heap.charge(count / 32);
        reply.array(count);
        return Written::Begun(Open::Array { table, written: 0, count });
    }
    Written::Whole
}

/// How many keys a table has. It may have many empty places, and the reply may have it many times.
fn count(machine: &mut Machine, table: TableId) -> usize {
    let table = &machine.heap.tables[table];
    let (count, places) = (table.count(), table.places());
    machine.heap.charge(places / 32);
    count
}

impl Open {
    fn pairs(table: TableId, has_values: bool) -> Open {
        Open::Pairs { table, place: 0, value: None, has_values }
    }

    /// The next value to be written, if there is one.
    fn next(&mut self, machine: &Machine) -> Option<Value> {
        match self {
            Open::Array { table, written, count } => {
                *written += 1;
                let element = || machine.heap.tables[*table].get_number(*written as f64);
                (*written <= *count).then(element)
            }
            Open::Pairs { value, .. } if value.is_some() => value.take(),
            Open::Pairs { table, place, value, has_values } => {
                let (behind, key, found) = machine.heap.tables[*table].pair_from(*place)?;
                *place = behind;
                *value = has_values.then_some(found);
                Some(key)
            }
        }
    }

    fn slots(&self) -> usize {
        match self {
            Open::Array { .. } => 1,
            Open::Pairs { .. } => 3,
        }
    }
}

/// The text of an error that a script has thrown or returned, and whether the statistics have it already.
pub fn error_text(machine: &mut Machine, error: Value) -> (Vec<u8>, bool) {
    let text = |machine: &Machine, value| match value {
        Value::String(string) => Some(number::c_string(machine.heap.bytes_of(string)).to_vec()),
        Value::Number(number) => Some(number::to_text(number)),
        _ => None,
    };
    let Value::Table(table) = error else {
        let text = text(machine, error).unwrap_or_else(|| match error {
            Value::Nil => b"nil".to_vec(),
            Value::Boolean(value) => value.to_string().into_bytes(),
            Value::Null => b"userdata: (nil)".to_vec(),
            _ => error.type_name().as_bytes().to_vec(),
        });
        return ([b"ERR ", &text[..]].concat(), false);
    };
    let is_counted = machine.field(table, COUNTED) == Value::Boolean(true);
    let name = Value::String(machine.heap.add_string(b"err"));
    // (Without such a field, Redis itself ends.)
    let text = match machine.heap.lookup(error, name) {
        Lookup::Found(value) => text(machine, value),
        _ => None,
    };
    (text.unwrap_or_else(|| b"ERR unknown error".to_vec()), is_counted)
}

pub fn write_error(text: Vec<u8>, is_counted: bool, reply: &mut Reply) {
    let error = Error::Text(text);
    if is_counted { reply.uncounted_error(&error) } else { reply.error(&error) }
}

fn in_one_line(text: &[u8]) -> Vec<u8> {
    text.iter().map(|byte| if matches!(byte, b'\r' | b'\n') { b' ' } else { *byte }).collect()
}
