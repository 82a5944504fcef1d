//! Errors with their position, and what a value is called in the source.
//!
//! ```text
//! local x
//! return x.y       attempt to index local 'x' (a nil value)
//! return _G.z.y    attempt to index field 'z' (a nil value)
//! ```
//!
//! The machine knows only that register 0 was nil. The
//! name is found when the error happens, and costs nothing before: the function's list of local
//! variables says whose register 0 is at this instruction. If it is nobody's, some instruction
//! before has put the value there, for example `GetTable`, and that one has the name.
//!
//! **How Redis does it**: ldebug.c of Lua, `symbexec`. Where it finds no name, none is found here.

use super::{Frame, Kind, Machine};
use crate::script::code::{Instruction, Operand, Place, Prototype};
use crate::script::heap::Id;
use crate::script::number;
use crate::script::value::{Error, Value};

impl Machine {
    /// An error with the position of the function that runs, or has called the native that runs.
    pub fn error(&mut self, text: &[u8]) -> Error {
        let position = self.position(1);
        self.plain_error(&[&position, text].concat())
    }

    pub fn plain_error(&mut self, text: &[u8]) -> Error {
        Error(Value::String(self.heap.add_string(text)))
    }

    /// Puts the position before an error that is a string.
    pub fn add_position(&mut self, error: Error) -> Error {
        let text = match error.0 {
            Value::String(text) => self.heap.bytes_of(text).to_vec(),
            Value::Number(number) => number::to_text(number),
            _ => return error,
        };
        self.error(&text)
    }

    /// Where the innermost function of the script is. None if a native has called the native that runs.
    pub(super) fn innermost(&self) -> Option<(Id<Prototype>, u32)> {
        let frame = self.lua_frame()?;
        Some((frame.prototype, self.line(frame)))
    }

    /// The top frame, if it is one of a function of the script.
    fn lua_frame(&self) -> Option<&Frame> {
        self.thread.frames.last().filter(|frame| frame.kind == Kind::Lua)
    }

    /// The line of the instruction that such a frame is at.
    fn line(&self, frame: &Frame) -> u32 {
        self.prototypes[frame.prototype].lines[frame.pc.saturating_sub(1) as usize]
    }

    /// Where the error happened that has ended the last run, if one has: the name of the source, as it was given, and
    /// the line.
    pub fn place_of_failure(&mut self) -> Option<(Vec<u8>, i64)> {
        let Some((prototype, line)) = self.failed_at.take()? else {
            return Some((b"=[C]".to_vec(), -1));
        };
        let name = self.prototypes[prototype].name;
        Some((name.map_or(Vec::new(), |name| self.heap.bytes_of(name).to_vec()), line.into()))
    }

    /// `source:line: ` of a function: 1 is the one that has called the native that runs, 2 the one
    /// that has called that one. Nothing, if it is a native or was left by a tail call.
    pub fn position(&self, level: usize) -> Vec<u8> {
        let mut level = level;
        for frame in self.thread.frames.iter().rev() {
            level -= 1;
            if level == 0 {
                if frame.kind != Kind::Lua {
                    break;
                }
                let source = &self.prototypes[frame.prototype].source;
                let line = format!(":{}: ", self.line(frame));
                return [&source[..], line.as_bytes()].concat();
            }
            let lost = frame.tail_calls as usize;
            if level <= lost {
                break;
            }
            level -= lost;
        }
        Vec::new()
    }

    /// `attempt to index local 'x' (a nil value)`.
    pub(super) fn type_error(&mut self, what: &str, value: Value, slot: Option<usize>) -> Error {
        self.charge_for_name();
        let kind = value.type_name();
        let text = match slot.and_then(|slot| self.name_of_slot(slot)) {
            Some((sort, name)) => {
                let before = format!("attempt to {what} {sort} '").into_bytes();
                [before, name, format!("' (a {kind} value)").into_bytes()].concat()
            }
            None => format!("attempt to {what} a {kind} value").into_bytes(),
        };
        self.error(&text)
    }

    /// What the function of the top frame calls a slot of the stack.
    fn name_of_slot(&self, slot: usize) -> Option<(&'static str, Vec<u8>)> {
        let frame = self.lua_frame()?;
        let register = slot.checked_sub(frame.base)?;
        let prototype = &self.prototypes[frame.prototype];
        if register >= prototype.registers as usize {
            return None;
        }
        self.name_of_register(prototype, frame.pc as usize - 1, register as u8)
    }

    /// To find a name is to look at all variables and instructions of a function.
    fn charge_for_name(&mut self) {
        if let Some(frame) = self.lua_frame() {
            let Prototype { code, locals, .. } = &self.prototypes[frame.prototype];
            self.heap.charge((code.len() + locals.len()) / 16);
        }
    }

    /// What the caller calls the native that runs, and whether it is a method.
    pub fn name_of_native(&mut self) -> (String, bool) {
        self.charge_for_name();
        let name = self.lua_frame().and_then(|frame| {
            let prototype = &self.prototypes[frame.prototype];
            let at = frame.pc as usize - 1;
            let function = match prototype.code[at] {
                Instruction::Call { function, .. } | Instruction::TailCall { function, .. } => {
                    function
                }
                // Its local variable `(for generator)`.
                Instruction::ForCall { base, .. } => base,
                _ => return None,
            };
            self.name_of_register(prototype, at, function)
        });
        match name {
            Some((sort, name)) => (String::from_utf8_lossy(&name).into_owned(), sort == "method"),
            None => ("?".to_string(), false),
        }
    }

    fn name_of_register(
        &self,
        prototype: &Prototype,
        at: usize,
        register: u8,
    ) -> Option<(&'static str, Vec<u8>)> {
        let text = |value: Value| match value {
            Value::String(string) => self.heap.bytes_of(string).to_vec(),
            _ => b"?".to_vec(),
        };
        let mut in_scope = prototype
            .locals
            .iter()
            .filter(|local| (local.begin as usize) <= at && at < local.end as usize);
        if let Some(local) = in_scope.nth(register.into()) {
            return Some(("local", text(Value::String(local.name))));
        }
        let constant = |operand: Operand| match operand.place() {
            Place::Constant(constant) => text(prototype.constants[constant]),
            Place::Register(_) => b"?".to_vec(),
        };
        match prototype.code[last_write(prototype, at, register)?] {
            Instruction::GetGlobal { name, .. } => {
                Some(("global", text(prototype.constants[name as usize])))
            }
            Instruction::Move { to, from } if from < to => {
                self.name_of_register(prototype, at, from)
            }
            Instruction::GetTable { key, .. } => Some(("field", constant(key))),
            Instruction::GetUpvalue { upvalue, .. } => {
                let name = prototype.upvalue_names[upvalue as usize];
                Some(("upvalue", text(Value::String(name))))
            }
            Instruction::GetMethod { name, .. } => Some(("method", constant(name))),
            _ => None,
        }
    }
}

/// The instruction before `end` that has put its result into a register.
fn last_write(prototype: &Prototype, end: usize, register: u8) -> Option<usize> {
    let mut last = None;
    let mut at = 0;
    while at < end {
        let instruction = prototype.code[at];
        if writes(instruction, register) {
            last = Some(at);
        }
        at += 1;
        if let Instruction::Jump { offset } | Instruction::ForPrepare { offset, .. } = instruction
            && let target = at.wrapping_add_signed(offset as isize)
            && (at..=end).contains(&target)
        {
            at = target;
        }
    }
    last
}

fn writes(mut instruction: Instruction, register: u8) -> bool {
    match instruction {
        // It does not, but Lua says so, and forgets the name that the register had.
        Instruction::Test { from, .. } => from == register,
        Instruction::ForPrepare { base, .. } | Instruction::ForLoop { base, .. } => {
            base == register
        }
        Instruction::GetMethod { to, .. } => to == register || to + 1 == register,
        Instruction::LoadNil { first, last } => (first..=last).contains(&register),
        Instruction::Call { function, .. } | Instruction::TailCall { function, .. } => {
            register >= function
        }
        Instruction::ForCall { base, .. } => register >= base + 2,
        _ => instruction.target().is_some_and(|to| *to == register),
    }
}
