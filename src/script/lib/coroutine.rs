//! Coroutines: functions that wait in their middle until somebody wants them to go on.
//!
//! ```text
//! local co = coroutine.wrap(function(a)
//!     local b = coroutine.yield(a + 1)
//!     return a + b
//! end)
//! co(1)     2: it begins, with a = 1, and waits in yield
//! co(5)     6: yield returns 5, and then it ends
//!
//!                     machine.thread     heap.threads, by their ids
//! before co(1)        the script         [ empty, the coroutine ]
//! in the coroutine    the coroutine      [ the script, empty ]
//! behind its yield    the script         [ empty, the coroutine ]
//! ```
//!
//! A coroutine is a [`Thread`]: a stack and frames of its own. That is all that there is of a function
//! in its middle, because the machine keeps nothing on the native stack. So to resume a coroutine is to
//! exchange two threads. The natives here only ask for that, by [`Outcome::Resume`] and [`Outcome::Yield`],
//! and the machine does it (machine/calls.rs).
//!
//! **How Redis does it**: in Lua, `resume` is a new loop on the native stack, and `yield` leaves it by
//! a `longjmp`. That cannot pass a `pcall` or a metamethod, so a script that tries it gets an error.
//! Here it could, but the error is the same.

use super::{Call, Native, Outcome};
use crate::script::code::MAX_LEVELS;
use crate::script::heap::Function;
use crate::script::machine::{Machine, Status, Thread};
use crate::script::value::{Error, ThreadId, Value};

pub fn open(machine: &mut Machine) {
    let natives: [(&str, Native); 6] = [
        ("create", create),
        ("resume", resume),
        ("running", running),
        ("status", status),
        ("wrap", wrap),
        ("yield", yield_values),
    ];
    machine.library("coroutine", &natives);
}

fn make(call: &mut Call) -> Result<ThreadId, Error> {
    let function = call.arg(1);
    if !call.machine.heap.is_lua(function) {
        return Err(call.bad_argument(1, "Lua function expected"));
    }
    call.check_room(0)?;
    let thread = Thread::of(function);
    call.machine.heap.bytes += thread.size();
    Ok(call.machine.heap.threads.add(thread))
}

fn create(call: &mut Call) -> Result<Outcome, Error> {
    let thread = make(call)?;
    call.give(Value::Thread(thread))
}

fn wrap(call: &mut Call) -> Result<Outcome, Error> {
    let upvalues = [Value::Thread(make(call)?)].into();
    let function = call.machine.heap.function(Function::Native { run: go_on, upvalues });
    call.give(Value::Function(function))
}

fn resume(call: &mut Call) -> Result<Outcome, Error> {
    let thread = coroutine(call)?;
    match why_not(call, thread) {
        Some(reason) => {
            call.push(Value::Boolean(false));
            let reason = call.machine.plain_error(reason.as_bytes());
            call.push(reason.0);
            Ok(Outcome::Return(2))
        }
        None => Ok(Outcome::Resume { thread, arguments: call.count - 1, is_wrap: false }),
    }
}

/// The function that `wrap` makes.
fn go_on(call: &mut Call) -> Result<Outcome, Error> {
    let Value::Thread(thread) = *call.upvalue(0) else { return Ok(Outcome::Return(0)) };
    match why_not(call, thread) {
        Some(reason) => Err(call.error(reason)),
        None => Ok(Outcome::Resume { thread, arguments: call.count, is_wrap: true }),
    }
}

/// Why a coroutine cannot be resumed.
fn why_not(call: &Call, thread: ThreadId) -> Option<String> {
    match status_of(call, thread) {
        Status::Suspended if call.machine.levels() >= MAX_LEVELS => {
            Some("C stack overflow".to_string())
        }
        Status::Suspended => None,
        status => Some(format!("cannot resume {} coroutine", status.name())),
    }
}

fn running(call: &mut Call) -> Result<Outcome, Error> {
    let is_script = call.machine.resumers.is_empty();
    let running = Value::Thread(call.machine.running);
    call.give(if is_script { Value::Nil } else { running })
}

fn status(call: &mut Call) -> Result<Outcome, Error> {
    let thread = coroutine(call)?;
    call.give_string(status_of(call, thread).name().as_bytes())
}

fn yield_values(_: &mut Call) -> Result<Outcome, Error> {
    Ok(Outcome::Yield)
}

fn coroutine(call: &mut Call) -> Result<ThreadId, Error> {
    match call.arg(1) {
        Value::Thread(thread) => Ok(thread),
        _ => Err(call.bad_argument(1, "coroutine expected")),
    }
}

fn status_of(call: &Call, thread: ThreadId) -> Status {
    match thread == call.machine.running {
        true => Status::Running,
        false => call.machine.heap.threads[thread].status,
    }
}

impl Status {
    fn name(self) -> &'static str {
        match self {
            Status::Suspended => "suspended",
            Status::Running => "running",
            Status::Normal => "normal",
            Status::Dead => "dead",
        }
    }
}
