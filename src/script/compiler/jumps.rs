//! Jumps whose target is not known yet, and conditions.
//!
//! Such jumps form lists. A list is its last jump, and each jump's offset leads to the one before.
//! To patch a list is to walk along it and to write the target into each jump. Lists can be long: `a or b or c …`.
//! So what is new is put before a list, and the list is not walked.
//!
//! ```text
//! local a, b, c = ... local x = a and b or c
//!
//! 1  Test { from: 0, expected: false }             if a is false …
//! 2  Jump { offset: 2 }                            … go to 5
//! 3  TestSet { to: 3, from: 1, expected: true }    if b is true, it is the result …
//! 4  Jump { offset: 1 }                            … and we are done: go to 6
//! 5  Move { to: 3, from: 2 }                       x is c
//! ```
//!
//! So an expression has two lists besides its value: the jumps that are taken when it turns out to
//! be true, and those when false. Here `and` puts 2 into the list for false. `or` puts 4 into the list
//! for true, and patches the other list to the instruction that follows. The end of the expression
//! patches the list for true.
//!
//! Some jumps bring a value with them, as 4 does. An `if` needs no value: there `TestSet` becomes `Test`.
//!
//! **How Redis does it**: lcode.c of Lua, with the same lists.

use super::{Compiler, Expression, Kind, NO_JUMP};
use crate::script::code::Instruction;
use crate::script::value::Error;

const MAX_JUMP: usize = 131_071;

impl Compiler<'_> {
    pub fn emit_jump(&mut self) -> Result<i32, Error> {
        let mut list = std::mem::replace(&mut self.function.pending, NO_JUMP);
        let jump = self.emit(Instruction::Jump { offset: NO_JUMP })? as i32;
        self.put_before(&mut list, jump)?;
        Ok(list)
    }

    /// Somebody will jump to the next instruction, so the last one cannot be changed any more.
    pub fn label(&mut self) -> usize {
        self.function.last_target = self.here();
        self.here()
    }

    /// A step along a list.
    fn jump_target(&mut self, jump: i32) -> i32 {
        self.lexer.heap.charge(1);
        match self.code(jump as usize) {
            Instruction::Jump { offset: NO_JUMP } => NO_JUMP,
            Instruction::Jump { offset } => jump + 1 + *offset,
            _ => NO_JUMP,
        }
    }

    pub fn set_target(&mut self, jump: usize, target: usize) -> Result<(), Error> {
        if target.abs_diff(jump + 1) > MAX_JUMP {
            return Err(self.lexer.unexpected("control structure too long"));
        }
        let new = target as i32 - (jump as i32 + 1);
        match self.code(jump) {
            Instruction::Jump { offset }
            | Instruction::ForLoop { offset, .. }
            | Instruction::ForPrepare { offset, .. }
            | Instruction::ForTest { offset, .. } => *offset = new,
            _ => {}
        }
        Ok(())
    }

    /// Puts the jumps of `new` before those of a list.
    pub fn put_before(&mut self, list: &mut i32, new: i32) -> Result<(), Error> {
        if new == NO_JUMP {
            return Ok(());
        }
        let rest = std::mem::replace(list, new);
        if rest == NO_JUMP {
            return Ok(());
        }
        let mut last = new;
        loop {
            match self.jump_target(last) {
                NO_JUMP => return self.set_target(last as usize, rest as usize),
                next => last = next,
            }
        }
    }

    /// The instruction that decides whether a jump is taken.
    fn control(&mut self, jump: i32) -> &mut Instruction {
        let jump = jump as usize;
        let before = jump.checked_sub(1);
        let decides = |at: &usize| {
            matches!(
                self.function.prototype.code[*at],
                Instruction::Equal { .. }
                    | Instruction::Less { .. }
                    | Instruction::LessOrEqual { .. }
                    | Instruction::Test { .. }
                    | Instruction::TestSet { .. }
            )
        };
        let at = before.filter(decides).unwrap_or(jump);
        self.code(at)
    }

    /// Whether a jump of the list brings no value with it.
    pub fn needs_value(&mut self, mut list: i32) -> bool {
        while list != NO_JUMP {
            if !matches!(self.control(list), Instruction::TestSet { .. }) {
                return true;
            }
            list = self.jump_target(list);
        }
        false
    }

    /// Tells the test before a jump where to put the value, or that nobody wants it. Says whether
    /// the jump brings a value.
    fn set_value_target(&mut self, jump: i32, register: Option<u8>) -> bool {
        let control = self.control(jump);
        let Instruction::TestSet { to, from, expected } = control else { return false };
        match register {
            Some(register) if register != *from => *to = register,
            _ => *control = Instruction::Test { from: *from, expected: *expected },
        }
        true
    }

    fn drop_values(&mut self, mut list: i32) {
        while list != NO_JUMP {
            self.set_value_target(list, None);
            list = self.jump_target(list);
        }
    }

    /// Sends the jumps that bring a value to `with_value`, and the others to `without`.
    pub fn patch_all(
        &mut self,
        mut list: i32,
        with_value: usize,
        register: Option<u8>,
        without: usize,
    ) -> Result<(), Error> {
        while list != NO_JUMP {
            let next = self.jump_target(list);
            let has_value = self.set_value_target(list, register);
            self.set_target(list as usize, if has_value { with_value } else { without })?;
            list = next;
        }
        Ok(())
    }

    pub fn patch(&mut self, list: i32, target: usize) -> Result<(), Error> {
        if target == self.here() {
            return self.patch_to_here(list);
        }
        self.patch_all(list, target, None, target)
    }

    pub fn patch_to_here(&mut self, list: i32) -> Result<(), Error> {
        self.label();
        let mut pending = self.function.pending;
        self.put_before(&mut pending, list)?;
        self.function.pending = pending;
        Ok(())
    }

    fn invert(&mut self, jump: i32) {
        if let Instruction::Equal { expected, .. }
        | Instruction::Less { expected, .. }
        | Instruction::LessOrEqual { expected, .. } = self.control(jump)
        {
            *expected = !*expected;
        }
    }

    /// A jump that is taken if the expression is `condition`.
    fn jump_if(&mut self, expression: &mut Expression, condition: bool) -> Result<i32, Error> {
        if let Kind::Open(at) = expression.kind
            && let Instruction::Not { from, .. } = *self.code(at)
        {
            self.function.prototype.code.pop();
            self.function.prototype.lines.pop();
            self.emit(Instruction::Test { from, expected: !condition })?;
            return self.emit_jump();
        }
        self.discharge_to_any(expression)?;
        self.free_expression(expression);
        if let Kind::Register(from) = expression.kind {
            self.emit(Instruction::TestSet { to: 255, from, expected: condition })?;
        }
        self.emit_jump()
    }

    pub fn go_if_true(&mut self, expression: &mut Expression) -> Result<(), Error> {
        self.discharge(expression)?;
        let jump = match expression.kind {
            Kind::Constant(_) | Kind::Number(_) | Kind::True => NO_JUMP,
            Kind::Jump(jump) => {
                self.invert(jump);
                jump
            }
            _ => self.jump_if(expression, false)?,
        };
        self.put_before(&mut expression.on_false, jump)?;
        let on_true = std::mem::replace(&mut expression.on_true, NO_JUMP);
        self.patch_to_here(on_true)
    }

    pub fn go_if_false(&mut self, expression: &mut Expression) -> Result<(), Error> {
        self.discharge(expression)?;
        let jump = match expression.kind {
            Kind::Nil | Kind::False => NO_JUMP,
            Kind::Jump(jump) => jump,
            _ => self.jump_if(expression, true)?,
        };
        self.put_before(&mut expression.on_true, jump)?;
        let on_false = std::mem::replace(&mut expression.on_false, NO_JUMP);
        self.patch_to_here(on_false)
    }

    pub fn emit_not(&mut self, expression: &mut Expression) -> Result<(), Error> {
        self.discharge(expression)?;
        match expression.kind {
            Kind::Nil | Kind::False => expression.kind = Kind::True,
            Kind::Constant(_) | Kind::Number(_) | Kind::True => expression.kind = Kind::False,
            Kind::Jump(jump) => self.invert(jump),
            _ => {
                self.discharge_to_any(expression)?;
                self.free_expression(expression);
                if let Kind::Register(from) = expression.kind {
                    let at = self.emit(Instruction::Not { to: 0, from })?;
                    expression.kind = Kind::Open(at);
                }
            }
        }
        std::mem::swap(&mut expression.on_true, &mut expression.on_false);
        self.drop_values(expression.on_true);
        self.drop_values(expression.on_false);
        Ok(())
    }
}
