//! Calls and returns: of functions of the script, of natives, of coroutines, and by errors.
//!
//! Each call of a function has a frame. Whoever asked for the call does not wait for it: what is to become of
//! the results stands in the frame.
//!
//! ```text
//! local t = setmetatable({}, {__index = function() local list = frames() return list end})
//! local _, list = pcall(function() local list = t.x return list end)
//! return list
//!
//! kind: Entry, then: Results(1)                               whoever has called `Machine::run`
//! kind: Lua, then: Native                                     the script
//! kind: Protected { has_handler: false }, then: Results(3)    pcall, of which two results are wanted
//! kind: Lua, then: Native                                     its function: its results go to pcall
//! kind: Lua, then: Store(0)                                   __index: its result is t.x
//! ```
//!
//! (`frames` is a native that simply returns. Such a native has no frame.)
//!
//! - **A return** takes the last frame away, and brings the results to where they are wanted: [`deliver`].
//!   If the frame that is the last one now is not of a function of the script, its native goes on: [`go_on`].
//! - **An error** takes frames away too, until one is `Protected`: [`unwind`]. Here these would be the last two.
//! - **A coroutine** has frames of its own. `resume` and `yield` exchange them.
//!
//! **How Redis does it**: ldo.c of Lua. There `pcall` waits for its function, and a metamethod is
//! waited for, in a new loop on the native stack. An error is a `longjmp` to the last `pcall`. So there can
//! be only 200 of them in one another. A script can see that limit. So it is kept, and
//! [`Then::is_new_level`] counts what nothing here would need.
//!
//! [`deliver`]: Machine::deliver
//! [`go_on`]: Machine::go_on
//! [`unwind`]: Machine::unwind

use super::{Frame, Kind, Machine, Status, Then, Thread, WINDOW, spend};
use crate::script::code::{MAX_LEVELS, Prototype};
use crate::script::heap::{BUDGET, Function, Id, Upvalue};
use crate::script::lib::{Call, Host, Outcome};
use crate::script::metatable::Name;
use crate::script::value::{Error, FunctionId, ThreadId, Value};

/// How many frames there may be. This is Lua's limit too.
const MAX_FRAMES: usize = 16_384;

impl Machine {
    /// Calls the value in that slot with the arguments behind it, up to the top. A native has
    /// returned afterwards, or waits for a function of the script. For such a function there is a
    /// new frame.
    pub(super) fn call(
        &mut self,
        host: &mut dyn Host,
        slot: usize,
        then: Then,
    ) -> Result<(), Error> {
        let mut next = Some((slot, then));
        while let Some((slot, then)) = next {
            self.has_extra_level = then.is_new_level();
            if then.is_new_level() {
                self.check_level()?;
            }
            let Value::Function(function) = self.thread.stack[slot] else {
                self.insert_metamethod(slot)?;
                continue;
            };
            match self.heap.functions[function] {
                Function::Lua { prototype, .. } => {
                    self.enter(function, prototype, slot, then)?;
                    next = None;
                }
                Function::Native { run, .. } => {
                    let count = self.thread.top - slot - 1;
                    let mut call = Call { machine: self, host, slot, count, results: (0, 0) };
                    let outcome = run(&mut call)?;
                    let count = call.count;
                    next = self.conclude(outcome, slot, count, then)?;
                }
                Function::Free => unreachable!("a function that is called is alive"),
            }
        }
        self.has_extra_level = false;
        Ok(())
    }

    /// Whether there may be one level more. At the limit there is an error. Its handler runs above
    /// the limit, where there is room for an eighth more. When that is used up too, there is an error
    /// for which no handler is called.
    #[inline]
    fn check_level(&mut self) -> Result<(), Error> {
        let level = self.levels() + 1;
        if level < MAX_LEVELS {
            return Ok(());
        }
        if level == MAX_LEVELS {
            return Err(self.error(b"C stack overflow"));
        }
        if level >= MAX_LEVELS + MAX_LEVELS / 8 {
            self.has_no_handler = true;
            return Err(self.plain_error(b"error in error handling"));
        }
        Ok(())
    }

    /// The value in that slot is no function: puts its `__call` before it.
    fn insert_metamethod(&mut self, slot: usize) -> Result<(), Error> {
        let value = self.thread.stack[slot];
        let function = self.heap.metamethod(value, Name::Call);
        if !matches!(function, Value::Function(_)) {
            return Err(self.type_error("call", value, Some(slot)));
        }
        let top = self.thread.top;
        self.push(Value::Nil);
        self.thread.stack.copy_within(slot..top, slot + 1);
        self.thread.stack[slot] = function;
        Ok(())
    }

    /// Makes a frame for a function of the script.
    #[inline]
    pub(super) fn enter(
        &mut self,
        function: FunctionId,
        prototype: Id<Prototype>,
        slot: usize,
        then: Then,
    ) -> Result<(), Error> {
        if self.thread.frames.len() >= MAX_FRAMES {
            return Err(self.error(b"stack overflow"));
        }
        let code = &self.prototypes[prototype];
        let parameters = code.parameters as usize;
        let given = self.thread.top - slot - 1;
        let mut base = slot + 1;
        if code.is_vararg {
            // All arguments stay where they are, and the parameters are copied behind them.
            base += given;
        }
        let (is_vararg, needs_arg) = (code.is_vararg, code.needs_arg);
        self.reserve(base + WINDOW)?;
        let stack = &mut self.thread.stack;
        if is_vararg {
            stack.copy_within(slot + 1..slot + 1 + given.min(parameters), base);
            // The local variable `arg`.
            stack[base + parameters] = Value::Nil;
        }
        if given < parameters {
            stack[base + given..base + parameters].fill(Value::Nil);
        }
        self.thread.levels += u32::from(then.is_new_level());
        let (kind, pc, tail_calls) = (Kind::Lua, 0, 0);
        let frame = Frame { kind, then, function, prototype, slot, base, pc, tail_calls };
        self.thread.frames.push(frame);
        if needs_arg {
            self.make_arg(
                slot + 1 + parameters,
                given.saturating_sub(parameters),
                base + parameters,
            )?;
        }
        Ok(())
    }

    /// `arg`, the table of the extra arguments, as Lua 5.0 had it.
    fn make_arg(&mut self, first: usize, count: usize, to: usize) -> Result<(), Error> {
        let table = self.heap.table(count, 1)?;
        for index in 0..count {
            let value = self.thread.stack[first + index];
            self.raw_set(table, Value::Number((index + 1) as f64), value)?;
        }
        let key = Value::String(self.heap.add_string(b"n"));
        self.raw_set(table, key, Value::Number(count as f64))?;
        self.thread.stack[to] = Value::Table(table);
        Ok(())
    }

    /// Does what a native has asked for. Gives the slot to be called next.
    #[inline(always)]
    fn conclude(
        &mut self,
        outcome: Outcome,
        slot: usize,
        count: usize,
        then: Then,
    ) -> Result<Option<(usize, Then)>, Error> {
        let top = self.thread.top;
        match outcome {
            Outcome::Return(results) => {
                self.heap.charge(results / 32);
                self.deliver(slot, then, top - results, results);
                self.collect_if_due()?;
                Ok(None)
            }
            Outcome::Then(arguments, state) => {
                self.push_frame(Kind::Native(count as u32), then, slot);
                self.thread.states.push(state);
                Ok(Some((top - arguments - 1, Then::Native)))
            }
            Outcome::Protect { has_handler } => {
                self.push_frame(Kind::Protected { has_handler }, then, slot);
                Ok(Some((slot + 1 + usize::from(has_handler), Then::Native)))
            }
            Outcome::Resume { thread, arguments, is_wrap } => {
                self.push_frame(Kind::Resuming { is_wrap }, then, slot);
                Ok(self.resume(thread, arguments))
            }
            Outcome::Yield => {
                // It must be called by a function of the script which is not called by a native.
                let is_inside = self.resumers.is_empty() || self.thread.levels > 1;
                if is_inside || then.is_new_level() {
                    let text = b"attempt to yield across metamethod/C-call boundary";
                    return Err(self.plain_error(text));
                }
                self.push_frame(Kind::Yielding, then, slot);
                let values = self.thread.stack[slot + 1..top].to_vec();
                self.thread.status = Status::Suspended;
                self.back(Ok(values))?;
                Ok(None)
            }
        }
    }

    /// The function of the top frame returns these values of the stack.
    pub(super) fn leave(&mut self, first: usize, count: usize) {
        let frame = self.pop_frame();
        self.deliver(frame.slot, frame.then, first, count);
    }

    fn pop_frame(&mut self) -> Frame {
        let Some(frame) = self.thread.frames.pop() else { unreachable!("a frame is running") };
        if self.thread.open.last().is_some_and(|(slot, _)| *slot >= frame.base) {
            self.close(frame.base);
        }
        self.thread.levels -= match frame.kind {
            Kind::Handling { weight } => weight,
            _ => u32::from(frame.then.is_new_level()),
        };
        frame
    }

    /// Brings results to where they are wanted. The frame of the function that gave them, if it had one, is
    /// gone.
    #[inline(always)]
    fn deliver(&mut self, slot: usize, then: Then, first: usize, count: usize) {
        let thread = &mut self.thread;
        let value = if count > 0 { thread.stack[first] } else { Value::Nil };
        match then {
            Then::Results(2) => thread.stack[slot] = value,
            Then::Results(0) => {
                thread.stack.copy_within(first..first + count, slot);
                thread.top = slot + count;
            }
            Then::Results(wanted) | Then::Iterate(wanted) => {
                let wanted = wanted as usize - 1;
                // One by one, because they are few.
                for index in 0..wanted {
                    let value =
                        if index < count { thread.stack[first + index] } else { Value::Nil };
                    thread.stack[slot + index] = value;
                }
            }
            Then::Native => {
                self.delivered = (first, count);
                thread.top = thread.top.max(first + count);
            }
            Then::Drop => {}
            Then::Store(register) => {
                if let Some(frame) = thread.frames.last() {
                    thread.stack[frame.base + register as usize] = value;
                }
            }
            Then::Compare(expected) => {
                if let Some(frame) = thread.frames.last_mut() {
                    frame.pc += u32::from(value.is_true() != expected);
                }
            }
            Then::Concat(last) => {
                if let Some(frame) = thread.frames.last_mut() {
                    thread.stack[frame.base + last as usize - 1] = value;
                    // The instruction runs again, with less to do.
                    frame.pc -= 1;
                    self.concat_from = Some(last - 1);
                }
            }
        }
    }

    /// The function for which the top frame has waited has returned.
    pub(super) fn go_on(&mut self, host: &mut dyn Host) -> Result<(), Error> {
        let Frame { kind, then, slot, .. } = self.pop_frame();
        let (first, count) = self.delivered;
        match kind {
            Kind::Native(arguments) => {
                let Some(state) = self.thread.states.pop() else { return Ok(()) };
                let arguments = arguments as usize;
                // The results follow the arguments, so that each round begins at the same place.
                let results = (slot + 1 + arguments, count);
                self.thread.stack.copy_within(first..first + count, results.0);
                self.thread.top = results.0 + count;
                self.has_extra_level = then.is_new_level();
                let mut call = Call { machine: self, host, slot, count: arguments, results };
                let outcome = state.resume(&mut call)?;
                match self.conclude(outcome, slot, arguments, then)? {
                    Some((slot, then)) => self.call(host, slot, then)?,
                    None => self.has_extra_level = false,
                }
            }
            Kind::Protected { .. } => {
                // What stood before the results is not needed any more.
                self.thread.stack[first - 1] = Value::Boolean(true);
                self.deliver(slot, then, first - 1, count + 1);
            }
            Kind::Handling { .. } => {
                let value = if count > 0 { self.thread.stack[first] } else { Value::Nil };
                self.give_failure(slot, then, value, false);
            }
            Kind::Body => {
                let values = self.thread.stack[first..first + count].to_vec();
                self.thread = Thread { status: Status::Dead, ..Thread::default() };
                self.back(Ok(values))?;
            }
            Kind::Entry | Kind::Lua | Kind::Resuming { .. } | Kind::Yielding => {}
        }
        Ok(())
    }

    /// Returns false and the error from `pcall` or `xpcall`. Redis's `pcall` treats an error that is a table in
    /// its own way: it returns the field `err` instead, or, if that is no text, the table and that field.
    fn give_failure(&mut self, slot: usize, then: Then, value: Value, is_pcall: bool) {
        let mut values = vec![Value::Boolean(false), value];
        if let Value::Table(table) = value
            && is_pcall
        {
            let text = Value::String(self.heap.add_string(b"err"));
            let text = self.heap.get(table, text);
            if text.is_text() {
                values.pop();
            }
            values.push(text);
        }
        self.thread.top = slot;
        values.iter().for_each(|value| self.push(*value));
        self.deliver(slot, then, slot, values.len());
    }

    /// Drops frames until one holds the error.
    pub(super) fn unwind(&mut self, error: Error, host: &mut dyn Host) -> Result<(), Error> {
        self.failed_at = Some(self.innermost());
        let mut error = error;
        let mut levels = self.levels() + u32::from(std::mem::take(&mut self.has_extra_level));
        let has_no_handler = std::mem::take(&mut self.has_no_handler);
        self.concat_from = None;
        loop {
            let Frame { kind, then, slot, .. } = self.pop_frame();
            match kind {
                Kind::Protected { has_handler: true } | Kind::Handling { .. }
                    if !self.is_stopped && !has_no_handler =>
                {
                    return self.handle(slot, then, error, levels, host);
                }
                Kind::Protected { .. } | Kind::Handling { .. } if !self.is_stopped => {
                    self.give_failure(slot, then, error.0, true);
                    return Ok(());
                }
                Kind::Native(_) => {
                    self.thread.states.pop();
                }
                Kind::Body => {
                    self.thread = Thread { status: Status::Dead, ..Thread::default() };
                    match self.back(Err(error)) {
                        Ok(()) => return Ok(()),
                        Err(other) => error = other,
                    }
                    self.failed_at = Some(self.innermost());
                    levels = self.levels();
                }
                Kind::Entry => return Err(error),
                _ => {}
            }
        }
    }

    /// Calls the handler of `xpcall`. Here the function that has failed is gone by now. In Lua it is
    /// still there: the handler runs on top of it, and a handler that fails is called again on top of
    /// itself, until no level is left. So that it ends at the same level here, the frame of the handler
    /// counts as all levels that are below it in Lua.
    fn handle(
        &mut self,
        slot: usize,
        then: Then,
        error: Error,
        level: u32,
        host: &mut dyn Host,
    ) -> Result<(), Error> {
        let handler = self.thread.stack[slot + 1];
        if !matches!(handler, Value::Function(_)) {
            let text = self.plain_error(b"error in error handling");
            self.give_failure(slot, then, text.0, false);
            return Ok(());
        }
        let weight = level - self.levels();
        self.push_frame(Kind::Handling { weight }, then, slot);
        self.thread.levels += weight - u32::from(then.is_new_level());
        self.thread.top = slot + 2;
        self.push(handler);
        self.push(error.0);
        self.call(host, slot + 2, Then::Native)
    }

    // Coroutines.

    /// How many new loops there would be on the native stack in Lua.
    pub fn levels(&self) -> u32 {
        self.thread.outer_levels + self.thread.levels
    }

    /// Another coroutine becomes the running one.
    fn switch_to(&mut self, id: ThreadId) {
        let other = std::mem::take(&mut self.heap.threads[id]);
        self.heap.threads[self.running] = std::mem::replace(&mut self.thread, other);
        self.running = id;
    }

    /// Goes on with a coroutine that is suspended, with the last values of the stack. Gives the
    /// slot to be called, if it has not begun.
    fn resume(&mut self, id: ThreadId, arguments: usize) -> Option<(usize, Then)> {
        let top = self.thread.top;
        let values = self.thread.stack[top - arguments..top].to_vec();
        let levels = self.levels();
        self.thread.status = Status::Normal;
        self.resumers.push(self.running);
        self.switch_to(id);
        self.thread.status = Status::Running;
        self.thread.outer_levels = levels;
        let first = self.thread.top;
        values.iter().for_each(|value| self.push(*value));
        if self.thread.frames.is_empty() {
            self.push_frame(Kind::Body, Then::Results(1), 0);
            return Some((0, Then::Native));
        }
        let frame = self.pop_frame();
        self.deliver(frame.slot, frame.then, first, values.len());
        None
    }

    /// Goes back to the coroutine that has resumed this one, with values or an error.
    fn back(&mut self, result: Result<Vec<Value>, Error>) -> Result<(), Error> {
        let Some(resumer) = self.resumers.pop() else { return Ok(()) };
        self.switch_to(resumer);
        self.thread.status = Status::Running;
        let Frame { kind, then, slot, .. } = self.pop_frame();
        let is_wrap = kind == Kind::Resuming { is_wrap: true };
        let first = self.thread.top;
        match result {
            Err(error) if self.is_stopped => return Err(error),
            Err(error) if is_wrap => return Err(self.add_position(error)),
            Err(error) => {
                self.push(Value::Boolean(false));
                self.push(error.0);
            }
            Ok(values) => {
                if !is_wrap {
                    self.push(Value::Boolean(true));
                }
                values.iter().for_each(|value| self.push(*value));
            }
        }
        self.deliver(slot, then, first, self.thread.top - first);
        Ok(())
    }

    // Upvalues.

    /// The upvalue of a local variable that is in scope.
    pub(super) fn capture(&mut self, slot: usize) -> Id<Upvalue> {
        let open = &mut self.thread.open;
        let at = open.partition_point(|(other, _)| *other < slot);
        if let Some((other, upvalue)) = open.get(at)
            && *other == slot
        {
            return *upvalue;
        }
        let new = Upvalue::Open { thread: self.running, slot: slot as u32 };
        self.heap.bytes += size_of::<Upvalue>();
        let upvalue = self.heap.upvalues.add(new);
        open.insert(at, (slot, upvalue));
        upvalue
    }

    /// The variables from that slot on go out of scope, and closures keep them.
    pub(super) fn close(&mut self, slot: usize) {
        while let Some((open, upvalue)) = self.thread.open.pop() {
            if open < slot {
                self.thread.open.push((open, upvalue));
                return;
            }
            self.heap.upvalues[upvalue] = Upvalue::Closed(self.thread.stack[open]);
        }
    }

    // Stopping.

    /// To be called in each round of a loop in a native that a script can make long.
    #[inline]
    pub fn tick(&mut self, host: &mut dyn Host) -> Result<(), Error> {
        if spend(&mut self.heap.budget) { Ok(()) } else { self.interrupt(host) }
    }

    /// Asks the host whether the script may go on.
    pub(super) fn interrupt(&mut self, host: &mut dyn Host) -> Result<(), Error> {
        self.heap.budget = BUDGET;
        host.interrupt().map_err(|reason| self.stop(&reason))
    }

    /// The error that ends the script: no `pcall` holds it.
    pub fn stop(&mut self, reason: &str) -> Error {
        self.is_stopped = true;
        self.plain_error(reason.as_bytes())
    }
}
