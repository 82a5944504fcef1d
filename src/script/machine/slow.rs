//! The other half of the loop: what is not common. Instructions that make something, that call a
//! metamethod, or that fail.
//!
//! ```text
//! a < b    two numbers           the loop compares them, and goes on
//!          two strings           here, byte by byte
//!          two tables            here: their `__lt` is called, and its result decides
//!          anything else         here: attempt to compare …
//! ```
//!
//! Nobody waits for a metamethod. It and its arguments are put behind the registers of the function
//! that runs, it gets a frame, and this function ends. The frame's [`Then`] says what the result is for:
//!
//! ```text
//! x = t.k      Store: it goes to a register          a < b      Compare: it decides about a jump
//! t.k = v      Drop: nobody wants it                 a .. b     Concat: it takes the place of both
//! ```
//!
//! `a .. b .. c .. d` is one instruction. If it needs a metamethod for `c .. d`, that result takes the
//! place of c, and the same instruction runs again for a, b and the result.
//!
//! **How Redis does it**: lvm.c of Lua, `luaV_gettable`, `luaV_lessthan`, `luaV_concat` and others. They
//! wait for the metamethod, in a new loop on the native stack.

use super::{Frame, Kind, Machine, Then};
use crate::script::code::{Capture, Instruction, Operand, Place};
use crate::script::compiler::from_floating_byte;
use crate::script::heap::{Function, Upvalue};
use crate::script::lib::Host;
use crate::script::metatable::{Lookup, MAX_CHAIN, Name};
use crate::script::number;
use crate::script::table::Fault;
use crate::script::value::{Error, TableId, Value};
use std::cmp::Ordering;

impl Machine {
    /// Runs an instruction of the top frame that the loop has left.
    ///
    /// Long because it is the other half of the loop.
    pub(super) fn slow(
        &mut self,
        instruction: Instruction,
        host: &mut dyn Host,
    ) -> Result<(), Error> {
        match instruction {
            Instruction::GetUpvalue { to, upvalue } => {
                let value = *self.upvalue(upvalue);
                *self.register(to) = value;
            }
            Instruction::SetUpvalue { from, upvalue } => {
                *self.upvalue(upvalue) = *self.register(from);
            }
            Instruction::GetGlobal { to, name } => {
                let (globals, name) = (self.function_globals(), self.constant(name));
                return self.index(Value::Table(globals), None, name, to, host);
            }
            Instruction::SetGlobal { from, name } => {
                let (globals, name) = (self.function_globals(), self.constant(name));
                let value = *self.register(from);
                return self.set_index(Value::Table(globals), None, name, value, host);
            }
            Instruction::GetTable { to, table, key } => {
                let (object, key) = (*self.register(table), self.operand(key));
                return self.index(object, Some(table), key, to, host);
            }
            Instruction::SetTable { table, key, value } => {
                let (object, key) = (*self.register(table), self.operand(key));
                let value = self.operand(value);
                return self.set_index(object, Some(table), key, value, host);
            }
            Instruction::GetMethod { to, object, name } => {
                let (value, name) = (*self.register(object), self.operand(name));
                *self.register(to + 1) = value;
                return self.index(value, Some(object), name, to, host);
            }
            Instruction::NewTable { to, array, nodes } => {
                let (array, nodes) = (from_floating_byte(array), from_floating_byte(nodes));
                *self.register(to) = Value::Table(self.heap.table(array, nodes)?);
            }
            Instruction::SetList { table, count, first } => {
                return self.set_list(table, count as usize, first as usize);
            }
            Instruction::Closure { to, prototype } => self.make_closure(to, prototype as usize),
            Instruction::Close { first } => self.close(self.base() + first as usize),
            Instruction::Varargs { to, count } => {
                return self.varargs(to as usize, count as usize);
            }
            Instruction::Add { to, left, right }
            | Instruction::Sub { to, left, right }
            | Instruction::Mul { to, left, right }
            | Instruction::Div { to, left, right }
            | Instruction::Mod { to, left, right }
            | Instruction::Pow { to, left, right } => {
                return self.arithmetic(instruction, to, left, right, host);
            }
            Instruction::Negate { to, from } => {
                let (value, operand) = (*self.register(from), Operand::register(from));
                match self.heap.number_of(value) {
                    Some(number) => *self.register(to) = Value::Number(-number),
                    None => return self.operate(Name::Unm, to, operand, operand, host),
                }
            }
            Instruction::Length { to, from } => {
                let value = *self.register(from);
                if let Value::Table(table) = value {
                    *self.register(to) = Value::Number(self.heap.border(table) as f64);
                    return Ok(());
                }
                return Err(self.type_error("get length of", value, self.slot_of(Some(from))));
            }
            Instruction::Concat { to, first, last } => return self.concat(to, first, last, host),
            Instruction::Equal { expected, left, right } => {
                return self.equal(expected, self.operand(left), self.operand(right), host);
            }
            Instruction::Less { expected, left, right }
            | Instruction::LessOrEqual { expected, left, right } => {
                let is_strict = matches!(instruction, Instruction::Less { .. });
                let event = if is_strict { Name::Lt } else { Name::Le };
                let (left, right) = (self.operand(left), self.operand(right));
                let compared = self.compare(left, right, event);
                let compared = compared.map_err(|text| self.error(text.as_bytes()))?;
                return self.decide(compared, expected, host);
            }
            Instruction::TailCall { function, arguments } => {
                return self.tail_call(function, arguments as usize, host);
            }
            Instruction::ForPrepare { base, offset } => return self.prepare_for(base, offset),
            // Only if the budget is spent.
            Instruction::Jump { .. }
            | Instruction::ForLoop { .. }
            | Instruction::ForTest { .. } => {
                return self.interrupt(host);
            }
            _ => unreachable!("the loop runs all others"),
        }
        Ok(())
    }

    // Registers.

    /// The frame of the function that runs.
    fn frame(&self) -> &Frame {
        &self.thread.frames[self.thread.frames.len() - 1]
    }

    fn base(&self) -> usize {
        self.frame().base
    }

    fn register(&mut self, register: u8) -> &mut Value {
        let slot = self.base() + register as usize;
        &mut self.thread.stack[slot]
    }

    fn constant(&self, constant: u32) -> Value {
        self.prototypes[self.frame().prototype].constants[constant as usize]
    }

    fn operand(&self, operand: Operand) -> Value {
        match operand.place() {
            Place::Constant(constant) => self.constant(constant as u32),
            Place::Register(register) => self.thread.stack[self.base() + register as usize],
        }
    }

    fn slot_of(&self, register: Option<u8>) -> Option<usize> {
        register.map(|register| self.base() + register as usize)
    }

    fn function_globals(&self) -> TableId {
        match &self.heap.functions[self.frame().function] {
            Function::Lua { globals, .. } => *globals,
            _ => self.globals,
        }
    }

    /// An upvalue that may lie on the stack of another coroutine.
    fn upvalue(&mut self, upvalue: u8) -> &mut Value {
        let Function::Lua { upvalues, .. } = &self.heap.functions[self.frame().function] else {
            unreachable!("a function of the script is running");
        };
        let id = upvalues[upvalue as usize];
        match self.heap.upvalues[id] {
            Upvalue::Open { thread, slot } if thread == self.running => {
                &mut self.thread.stack[slot as usize]
            }
            Upvalue::Open { thread, slot } => &mut self.heap.threads[thread].stack[slot as usize],
            Upvalue::Closed(_) => match &mut self.heap.upvalues[id] {
                Upvalue::Closed(value) => value,
                Upvalue::Open { .. } => unreachable!("it was closed a moment ago"),
            },
        }
    }

    // Tables.

    fn index(
        &mut self,
        object: Value,
        register: Option<u8>,
        key: Value,
        to: u8,
        host: &mut dyn Host,
    ) -> Result<(), Error> {
        match self.heap.lookup(object, key) {
            Lookup::Found(value) => *self.register(to) = value,
            Lookup::Call { function, object } => {
                return self.call_metamethod(function, &[object, key], Then::Store(to), host);
            }
            Lookup::NoFields { object, is_first } => {
                let slot = self.slot_of(register.filter(|_| is_first));
                return Err(self.type_error("index", object, slot));
            }
            Lookup::Loop => return Err(self.error(b"loop in gettable")),
        }
        Ok(())
    }

    fn set_index(
        &mut self,
        object: Value,
        register: Option<u8>,
        key: Value,
        value: Value,
        host: &mut dyn Host,
    ) -> Result<(), Error> {
        let (mut object, mut register) = (object, register);
        for _ in 0..MAX_CHAIN {
            if let Value::Table(table) = object {
                if self.heap.tables[table].readonly {
                    return Err(self.error(b"Attempt to modify a readonly table"));
                }
                let is_new = self.heap.get(table, key).is_nil();
                let handler = match is_new {
                    true => self.heap.metamethod(object, Name::NewIndex),
                    false => Value::Nil,
                };
                // The key is made in any case, as in Lua, where the order of `next` shows it.
                let stored = if handler.is_nil() { value } else { Value::Nil };
                let result = self.heap.set(table, key, stored);
                result.map_err(|fault| self.error(fault.text().as_bytes()))?;
                if handler.is_nil() {
                    return Ok(());
                }
            }
            match self.heap.metamethod(object, Name::NewIndex) {
                Value::Nil => {
                    let slot = self.slot_of(register);
                    return Err(self.type_error("index", object, slot));
                }
                function @ Value::Function(_) => {
                    let arguments = [object, key, value];
                    return self.call_metamethod(function, &arguments, Then::Drop, host);
                }
                next => (object, register) = (next, None),
            }
        }
        Err(self.error(b"loop in settable"))
    }

    /// Sets a value in a table for a native. Asks no metatable.
    pub fn raw_set(&mut self, table: TableId, key: Value, value: Value) -> Result<(), Error> {
        if self.heap.tables[table].readonly {
            return Err(self.plain_error(b"Attempt to modify a readonly table"));
        }
        self.heap.check_room(0)?;
        let result = self.heap.set(table, key, value);
        result.map_err(|fault| self.plain_error(fault.text().as_bytes()))
    }

    fn set_list(&mut self, table: u8, count: usize, first: usize) -> Result<(), Error> {
        let slot = self.base() + table as usize;
        let count = if count == 0 { self.thread.top - slot - 1 } else { count };
        let Value::Table(table) = self.thread.stack[slot] else { return Ok(()) };
        let before = self.heap.tables[table].size();
        let result = self.heap.tables[table].reserve_array(first + count - 1, &self.heap.strings);
        result.map_err(|fault| self.error(fault.text().as_bytes()))?;
        self.heap.bytes += self.heap.tables[table].size() - before;
        for index in 0..count {
            let (key, value) = ((first + index) as f64, self.thread.stack[slot + 1 + index]);
            self.raw_set(table, Value::Number(key), value)?;
        }
        Ok(())
    }

    // Functions.

    fn make_closure(&mut self, to: u8, prototype: usize) {
        let frame = *self.frame();
        let globals = self.function_globals();
        let prototype = self.prototypes[frame.prototype].prototypes[prototype];
        let mut upvalues = Vec::with_capacity(self.prototypes[prototype].captures.len());
        for capture in self.prototypes[prototype].captures.clone() {
            upvalues.push(match (capture, &self.heap.functions[frame.function]) {
                (Capture::Upvalue(upvalue), Function::Lua { upvalues, .. }) => {
                    upvalues[upvalue as usize]
                }
                (Capture::Register(upvalue) | Capture::Upvalue(upvalue), _) => {
                    self.capture(frame.base + upvalue as usize)
                }
            });
        }
        let function = Function::Lua { prototype, upvalues: upvalues.into(), globals };
        *self.register(to) = Value::Function(self.heap.function(function));
    }

    fn varargs(&mut self, to: usize, count: usize) -> Result<(), Error> {
        let frame = *self.frame();
        let parameters = self.prototypes[frame.prototype].parameters as usize;
        let there = (frame.base - frame.slot - 1).saturating_sub(parameters);
        let wanted = if count == 0 { there } else { count - 1 };
        let to = frame.base + to;
        self.reserve(to + wanted + 1)?;
        self.heap.charge(wanted / 32);
        let (first, copied) = (frame.base - there, there.min(wanted));
        self.thread.stack.copy_within(first..first + copied, to);
        self.thread.stack[to + copied..to + wanted].fill(Value::Nil);
        if count == 0 {
            self.thread.top = to + wanted;
        }
        Ok(())
    }

    /// A function of the script takes the place of the top frame. A native is simply called: the
    /// instruction behind returns its results.
    fn tail_call(
        &mut self,
        function: u8,
        arguments: usize,
        host: &mut dyn Host,
    ) -> Result<(), Error> {
        let slot = self.base() + function as usize;
        if arguments > 0 {
            self.thread.top = slot + arguments;
        }
        if !self.heap.is_lua(self.thread.stack[slot]) {
            return self.call(host, slot, Then::Results(0));
        }
        self.close(self.base());
        let Some(frame) = self.thread.frames.pop() else { return Ok(()) };
        self.thread.levels -= u32::from(frame.then.is_new_level());
        self.thread.stack.copy_within(slot..self.thread.top, frame.slot);
        self.thread.top = frame.slot + self.thread.top - slot;
        self.call(host, frame.slot, frame.then)?;
        if let Some(new) = self.thread.frames.last_mut()
            && new.kind == Kind::Lua
        {
            new.tail_calls = frame.tail_calls.saturating_add(1);
        }
        Ok(())
    }

    fn call_metamethod(
        &mut self,
        function: Value,
        arguments: &[Value],
        then: Then,
        host: &mut dyn Host,
    ) -> Result<(), Error> {
        let frame = *self.frame();
        let slot = frame.base + self.prototypes[frame.prototype].registers as usize;
        self.thread.top = slot;
        self.push(function);
        arguments.iter().for_each(|argument| self.push(*argument));
        self.call(host, slot, then)
    }

    fn prepare_for(&mut self, base: u8, offset: i32) -> Result<(), Error> {
        let mut values = [0.0; 3];
        for (index, what) in ["initial value", "limit", "step"].iter().enumerate() {
            let value = *self.register(base + index as u8);
            let Some(number) = self.heap.number_of(value) else {
                return Err(self.error(format!("'for' {what} must be a number").as_bytes()));
            };
            values[index] = number;
        }
        let [initial, limit, step] = values;
        for (index, number) in [initial - step, limit, step].into_iter().enumerate() {
            *self.register(base + index as u8) = Value::Number(number);
        }
        if let Some(frame) = self.thread.frames.last_mut() {
            frame.pc = frame.pc.wrapping_add_signed(offset);
        }
        Ok(())
    }

    // Operators.

    fn arithmetic(
        &mut self,
        instruction: Instruction,
        to: u8,
        left: Operand,
        right: Operand,
        host: &mut dyn Host,
    ) -> Result<(), Error> {
        let values = (self.operand(left), self.operand(right));
        let event = match instruction {
            Instruction::Add { .. } => Name::Add,
            Instruction::Sub { .. } => Name::Sub,
            Instruction::Mul { .. } => Name::Mul,
            Instruction::Div { .. } => Name::Div,
            Instruction::Mod { .. } => Name::Mod,
            _ => Name::Pow,
        };
        let numbers = (self.heap.number_of(values.0), self.heap.number_of(values.1));
        let (Some(a), Some(b)) = numbers else {
            return self.operate(event, to, left, right, host);
        };
        *self.register(to) = Value::Number(match event {
            Name::Add => a + b,
            Name::Sub => a - b,
            Name::Mul => a * b,
            Name::Div => a / b,
            Name::Mod => number::modulo(a, b),
            _ => a.powf(b),
        });
        Ok(())
    }

    /// Calls the metamethod of an operator on values that are not both numbers.
    fn operate(
        &mut self,
        event: Name,
        to: u8,
        left: Operand,
        right: Operand,
        host: &mut dyn Host,
    ) -> Result<(), Error> {
        let (a, b) = (self.operand(left), self.operand(right));
        if let Some(function) = self.metamethod_of_either(a, b, event) {
            return self.call_metamethod(function, &[a, b], Then::Store(to), host);
        }
        let wrong = if self.heap.number_of(a).is_none() { left } else { right };
        let slot = match wrong.place() {
            Place::Register(register) => self.slot_of(Some(register)),
            Place::Constant(_) => None,
        };
        Err(self.type_error("perform arithmetic on", self.operand(wrong), slot))
    }

    fn metamethod_of_either(&mut self, left: Value, right: Value, event: Name) -> Option<Value> {
        let found = self.heap.metamethod(left, event);
        let found = if found.is_nil() { self.heap.metamethod(right, event) } else { found };
        (!found.is_nil()).then_some(found)
    }

    /// Joins registers, from the last one to the first. Runs of strings and numbers are joined at
    /// once. In each other place a metamethod makes one value of two.
    fn concat(&mut self, to: u8, first: u8, last: u8, host: &mut dyn Host) -> Result<(), Error> {
        let mut last = self.concat_from.take().unwrap_or(last);
        while last > first {
            let base = self.base();
            let values = &self.thread.stack[base + first as usize..=base + last as usize];
            let run = values.iter().rev().take_while(|value| value.is_text()).count();
            if run < 2 {
                let (left, right) = (*self.register(last - 1), *self.register(last));
                let event = Name::Concat;
                if let Some(function) = self.metamethod_of_either(left, right, event) {
                    let then = Then::Concat(last);
                    return self.call_metamethod(function, &[left, right], then, host);
                }
                let wrong = if left.is_text() { last } else { last - 1 };
                let (value, slot) = (*self.register(wrong), self.slot_of(Some(wrong)));
                return Err(self.type_error("concatenate", value, slot));
            }
            last -= run as u8 - 1;
            let string = self.heap.join(&values[values.len() - run..])?;
            *self.register(last) = Value::String(string);
        }
        *self.register(to) = *self.register(first);
        Ok(())
    }

    fn equal(
        &mut self,
        expected: bool,
        left: Value,
        right: Value,
        host: &mut dyn Host,
    ) -> Result<(), Error> {
        let function = self.heap.metamethod(left, Name::Eq);
        if function.is_nil() || function != self.heap.metamethod(right, Name::Eq) {
            return self.decide(Compared::Known(false), expected, host);
        }
        let compared = Compared::Call { function, arguments: [left, right], is_negated: false };
        self.decide(compared, expected, host)
    }

    /// The next instruction is left out if the comparison is not what is expected.
    fn decide(
        &mut self,
        compared: Compared,
        expected: bool,
        host: &mut dyn Host,
    ) -> Result<(), Error> {
        match compared {
            Compared::Known(is) => {
                if let Some(frame) = self.thread.frames.last_mut() {
                    frame.pc += u32::from(is != expected);
                }
                Ok(())
            }
            Compared::Call { function, arguments, is_negated } => {
                let then = Then::Compare(expected != is_negated);
                self.call_metamethod(function, &arguments, then, host)
            }
        }
    }

    /// `left < right` or `left <= right`, or why they cannot be compared.
    pub fn compare(&mut self, left: Value, right: Value, event: Name) -> Result<Compared, String> {
        let ordering = match (left, right) {
            (Value::Number(left), Value::Number(right)) => left.partial_cmp(&right),
            (Value::String(left), Value::String(right)) => {
                self.heap.charge_bytes(self.heap.bytes_of(left).len());
                Some(self.heap.bytes_of(left).cmp(self.heap.bytes_of(right)))
            }
            _ => return self.compare_by_metamethod(left, right, event),
        };
        Ok(Compared::Known(match ordering {
            Some(Ordering::Less) => true,
            Some(Ordering::Equal) => event == Name::Le,
            _ => false,
        }))
    }

    fn compare_by_metamethod(
        &mut self,
        left: Value,
        right: Value,
        event: Name,
    ) -> Result<Compared, String> {
        let (a, b) = (left.type_name(), right.type_name());
        if a == b {
            let mut of_both = |left: Value, right: Value, event: Name| {
                let function = self.heap.metamethod(left, event);
                let same = function == self.heap.metamethod(right, event);
                (same && !function.is_nil()).then_some(function)
            };
            if let Some(function) = of_both(left, right, event) {
                let arguments = [left, right];
                return Ok(Compared::Call { function, arguments, is_negated: false });
            }
            // a <= b is not (b < a).
            if event == Name::Le
                && let Some(function) = of_both(right, left, Name::Lt)
            {
                let arguments = [right, left];
                return Ok(Compared::Call { function, arguments, is_negated: true });
            }
        }
        // Lua looks at the third letter only.
        Err(match a.as_bytes()[2] == b.as_bytes()[2] {
            true => format!("attempt to compare two {a} values"),
            false => format!("attempt to compare {a} with {b}"),
        })
    }
}

/// What a comparison has given.
pub enum Compared {
    Known(bool),
    /// This function must be called with these arguments. Its result is the answer, or the opposite.
    Call {
        function: Value,
        arguments: [Value; 2],
        is_negated: bool,
    },
}

impl Fault {
    pub fn text(&self) -> &'static str {
        match self {
            Fault::NilKey => "table index is nil",
            Fault::NanKey => "table index is NaN",
            Fault::TooLarge => "table overflow",
            Fault::UnknownKey => "invalid key to 'next'",
        }
    }
}
