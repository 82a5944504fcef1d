//! `redis`: with these functions a script reaches the server, through its [`Host`](super::Host).
//!
//! ```text
//! redis.call('INCR', KEYS[1])    an error of the command is an error of the script: {err = 'ERR …'}
//! redis.pcall('INCR', KEYS[1])   it is the result
//! ```
//!
//! **How Redis does it**: script_lua.c and eval.c, with the same functions.

use super::reply::{counted_error, error_table, single, to_value};
use super::{Answer, Call, Native, Outcome};
use crate::script::machine::Machine;
use crate::script::number;
use crate::script::value::{Error, Value};
use crate::sha1::{hexadecimal, sha1};

/// In Redis's order, because that decides the order of `pairs`.
const BEGIN: [(&str, Native); 3] = [("call", call_command), ("pcall", pcall_command), ("log", log)];

const LEVELS: [(&str, u32); 4] =
    [("LOG_DEBUG", 0), ("LOG_VERBOSE", 1), ("LOG_NOTICE", 2), ("LOG_WARNING", 3)];

const MIDDLE: [(&str, Native); 5] = [
    ("setresp", setresp),
    ("sha1hex", sha1hex),
    ("error_reply", error_reply),
    ("status_reply", status_reply),
    ("set_repl", set_repl),
];

const TO_WHOM: [(&str, u32); 5] = [
    ("REPL_NONE", 0),
    ("REPL_AOF", REPL_AOF),
    ("REPL_SLAVE", REPL_REPLICA),
    ("REPL_REPLICA", REPL_REPLICA),
    ("REPL_ALL", REPL_AOF | REPL_REPLICA),
];

const REPL_AOF: u32 = 1;
const REPL_REPLICA: u32 = 2;

const END: [(&str, Native); 4] = [
    ("acl_check_cmd", acl_check_cmd),
    ("breakpoint", breakpoint),
    ("debug", debug),
    ("replicate_commands", replicate_commands),
];

/// Opens the library. `version` is that of the Redis which the server follows.
pub fn open(machine: &mut Machine, version: &str) {
    let table = machine.library("redis", &BEGIN);
    let mut set_numbers = |numbers: &[(&str, u32)]| {
        let fields = numbers.iter().map(|(name, number)| (name, Value::Number((*number).into())));
        fields.for_each(|(name, number)| machine.set_field(table, name, number));
    };
    set_numbers(&LEVELS);
    set_numbers(&[("REDIS_VERSION_NUM", version_number(version))]);
    let text = Value::String(machine.heap.add_string(version.as_bytes()));
    machine.set_field(table, "REDIS_VERSION", text);
    machine.library("redis", &MIDDLE);
    for (name, number) in TO_WHOM {
        machine.set_field(table, name, Value::Number(number.into()));
    }
    machine.library("redis", &END);
    let handler = machine.heap.native(error_handler);
    machine.set_field(machine.globals, "__redis__err__handler", handler);
}

/// A byte for each part.
fn version_number(version: &str) -> u32 {
    let parts = version.split('.').map(|part| part.parse().unwrap_or(0));
    parts.fold(0, |number, part: u32| (number << 8) + part)
}

/// Redis's scripts can see the function that makes a table of what they have thrown. Here it is of no use.
fn error_handler(call: &mut Call) -> Result<Outcome, Error> {
    match call.arg(1) {
        table @ Value::Table(_) => call.give(table),
        Value::String(_) | Value::Number(_) => {
            let text = call.string(1)?;
            let text = String::from_utf8_lossy(call.bytes(text)).into_owned();
            let Error(table) = failure(call, &text);
            call.give(table)
        }
        other => {
            let Error(table) = failure(call, other.type_name());
            call.give(table)
        }
    }
}

fn call_command(call: &mut Call) -> Result<Outcome, Error> {
    run(call, true)
}

fn pcall_command(call: &mut Call) -> Result<Outcome, Error> {
    run(call, false)
}

/// How many rounds of a loop one command counts as, because some take long.
const COMMAND: usize = 1000;

fn run(call: &mut Call, raises: bool) -> Result<Outcome, Error> {
    call.charge(COMMAND);
    call.tick()?;
    let (value, is_error) = match collect_arguments(call) {
        Err(text) => (Value::Table(error_table(call.machine, text.as_bytes())?), true),
        Ok(()) => match call.host.call() {
            Ok(Answer::Reply(wire)) => {
                (to_value(call.machine, &wire)?, wire.first() == Some(&b'-'))
            }
            Ok(Answer::Refused(text)) => (Value::Table(counted_error(call.machine, &text)?), true),
            Err(reason) => return Err(call.machine.stop(&reason)),
        },
    };
    if is_error && raises { Err(Error(value)) } else { call.give(value) }
}

/// Hands the arguments to the host, if each of them is a string or a number.
fn collect_arguments(call: &mut Call) -> Result<(), &'static str> {
    if call.count == 0 {
        return Err("ERR Please specify at least one argument for this redis lib call");
    }
    if !(1..=call.count).all(|number| call.arg(number).is_text()) {
        return Err("ERR Lua redis lib command arguments must be strings or integers");
    }
    // The same long string may stand there thousands of times.
    let lengths = (1..=call.count).map(|number| call.machine.heap.length_of(call.arg(number)));
    let length = lengths.fold(0, usize::saturating_add);
    call.machine.heap.charge_bytes(length);
    if call.check_room(length).is_err() {
        return Err("ERR not enough memory");
    }
    for number in 1..=call.count {
        match call.arg(number) {
            Value::String(string) => call.host.argument(call.machine.heap.bytes_of(string)),
            Value::Number(value) => call.host.argument(&to_text(value)),
            _ => {}
        }
    }
    Ok(())
}

/// With all digits of a double, and not those that `tostring` shows.
fn to_text(value: f64) -> Vec<u8> {
    let is_short =
        value == value.trunc() && value.abs() < 1e15 && !(value == 0.0 && value.is_sign_negative());
    match is_short {
        true => (value as i64).to_string().into_bytes(),
        false => number::general(value, 17).into_bytes(),
    }
}

/// An error that a script gets for a wrong call, as Redis's functions make it: a table.
fn failure(call: &mut Call, text: &str) -> Error {
    match error_table(call.machine, format!("ERR {text}").as_bytes()) {
        Ok(table) => Error(Value::Table(table)),
        Err(error) => error,
    }
}

fn log(call: &mut Call) -> Result<Outcome, Error> {
    if call.count < 2 {
        return Err(failure(call, "redis.log() requires two arguments or more."));
    }
    let Some(level) = call.machine.heap.number_of(call.arg(1)) else {
        return Err(failure(call, "First argument must be a number (log level)."));
    };
    let level = number::to_int(level);
    if !(0..=3).contains(&level) {
        return Err(failure(call, "Invalid debug level."));
    }
    let lengths = (2..=call.count).map(|number| call.machine.heap.length_of(call.arg(number)));
    call.check_room(lengths.fold(0, usize::saturating_add))?;
    let mut text = Vec::new();
    for number in 2..=call.count {
        if call.arg(number).is_text() {
            if number > 2 {
                text.push(b' ');
            }
            let part = call.string(number)?;
            text.extend_from_slice(call.bytes(part));
        }
    }
    call.host.log(level as u8, &text);
    Ok(Outcome::Return(0))
}

fn setresp(call: &mut Call) -> Result<Outcome, Error> {
    if call.count != 1 {
        return Err(failure(call, "redis.setresp() requires one argument."));
    }
    match call.machine.heap.number_of(call.arg(1)).map(number::to_int) {
        Some(version @ 2..=3) => call.host.set_resp3(version == 3),
        _ => return Err(failure(call, "RESP version must be 2 or 3.")),
    }
    Ok(Outcome::Return(0))
}

fn sha1hex(call: &mut Call) -> Result<Outcome, Error> {
    if call.count != 1 {
        return Err(failure(call, "wrong number of arguments"));
    }
    let digest = match call.arg(1) {
        Value::String(_) | Value::Number(_) => {
            let text = call.string(1)?;
            // This is slower than what else is done with a string.
            call.charge(call.bytes(text).len() / 16);
            sha1(call.bytes(text))
        }
        // As in Redis, anything else is an empty string.
        _ => sha1(b""),
    };
    call.give_string(hexadecimal(&digest).as_bytes())
}

fn error_reply(call: &mut Call) -> Result<Outcome, Error> {
    let Value::String(text) = call.arg(1) else { return wrong_arguments(call) };
    if call.count != 1 {
        return wrong_arguments(call);
    }
    let text = number::c_string(call.bytes(text));
    let text = text.strip_prefix(b"-").unwrap_or(text).to_vec();
    let table = error_table(call.machine, &text)?;
    call.give(Value::Table(table))
}

fn status_reply(call: &mut Call) -> Result<Outcome, Error> {
    if call.count != 1 || !matches!(call.arg(1), Value::String(_)) {
        return wrong_arguments(call);
    }
    let table = single(call.machine, "ok", call.arg(1))?;
    call.give(Value::Table(table))
}

/// As in Redis, this error is returned, and not thrown.
fn wrong_arguments(call: &mut Call) -> Result<Outcome, Error> {
    let Error(table) = failure(call, "wrong number or type of arguments");
    call.give(table)
}

fn set_repl(call: &mut Call) -> Result<Outcome, Error> {
    if call.count != 1 {
        return Err(failure(call, "redis.set_repl() requires two arguments."));
    }
    let to = call.machine.heap.number_of(call.arg(1)).unwrap_or(0.0);
    let to = number::to_int(to) as u32;
    if to & !(REPL_AOF | REPL_REPLICA) != 0 {
        let text = "Invalid replication flags. Use REPL_AOF, REPL_REPLICA, REPL_ALL or REPL_NONE.";
        return Err(failure(call, text));
    }
    call.host.set_logged(to & REPL_AOF != 0);
    Ok(Outcome::Return(0))
}

/// There is one user, who may call everything that exists.
fn acl_check_cmd(call: &mut Call) -> Result<Outcome, Error> {
    if let Err(text) = collect_arguments(call) {
        let table = error_table(call.machine, text.as_bytes())?;
        return Err(Error(Value::Table(table)));
    }
    if !call.host.is_command() {
        return Err(failure(call, "Invalid command passed to redis.acl_check_cmd()"));
    }
    call.give(Value::Boolean(true))
}

/// Without a debugger it never stops.
fn breakpoint(call: &mut Call) -> Result<Outcome, Error> {
    call.give(Value::Boolean(false))
}

fn debug(_: &mut Call) -> Result<Outcome, Error> {
    Ok(Outcome::Return(0))
}

/// What a script changes is always logged command by command.
fn replicate_commands(call: &mut Call) -> Result<Outcome, Error> {
    call.give(Value::Boolean(true))
}
