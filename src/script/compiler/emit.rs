//! From expressions to instructions: registers and constants.
//!
//! An expression is not put into a register before somebody needs it there. Until then it is
//! described by a [`Kind`]. So what stands in a register already, or is a constant, needs no
//! instruction, and a result goes directly to where it is wanted:
//!
//! ```text
//! local x, a = ... x = a + 1
//!
//! 1  Add { to: 0, left: Register(1), right: Constant(0) }
//!
//! read       Kind            what is emitted
//! a          Local(1)        nothing
//! 1          Number(1.0)     nothing
//! a + 1      Open(1)         Add, with a target that is open: some register will get the result
//! x = a + 1  Register(0)     nothing. The target of instruction 1 is set to x
//! ```
//!
//! The functions that bring an expression further along this way are, in the order of how far:
//! [`discharge`](Compiler::discharge) makes a variable a value, [`operand`](Compiler::operand) makes it
//! what an instruction can work on, [`load_any`](Compiler::load_any) puts it into any register, and
//! [`load_next`](Compiler::load_next) into the first free one.
//!
//! **How Redis does it**: lcode.c of Lua. There `Kind` is `expkind`, and the functions are called
//! `luaK_dischargevars`, `luaK_exp2RK`, `luaK_exp2anyreg` and `luaK_exp2nextreg`.

use super::{Compiler, Expression, Kind, NO_JUMP};
use crate::script::code::{Instruction, Operand, Place};
use crate::script::value::{Error, StringId, Value};

const MAX_REGISTERS: u32 = 250;
const MAX_CONSTANTS: usize = 1 << 18;

impl Expression {
    pub fn new(kind: Kind) -> Expression {
        Expression { kind, on_true: NO_JUMP, on_false: NO_JUMP }
    }

    pub fn has_jumps(&self) -> bool {
        self.on_true != self.on_false
    }

    pub fn as_number(&self) -> Option<f64> {
        match self.kind {
            Kind::Number(number) if !self.has_jumps() => Some(number),
            _ => None,
        }
    }
}

impl Compiler<'_> {
    // Instructions.

    pub fn emit(&mut self, instruction: Instruction) -> Result<usize, Error> {
        let pending = std::mem::replace(&mut self.function.pending, NO_JUMP);
        let here = self.here();
        self.patch_all(pending, here, None, here)?;
        self.function.prototype.code.push(instruction);
        let line = self.lexer.last_line;
        self.function.prototype.lines.push(line);
        self.lexer.heap.bytes += size_of::<Instruction>() + size_of_val(&line);
        Ok(here)
    }

    /// The number of the next instruction.
    pub fn here(&self) -> usize {
        self.function.prototype.code.len()
    }

    pub fn code(&mut self, at: usize) -> &mut Instruction {
        &mut self.function.prototype.code[at]
    }

    /// The last instruction shall belong to another line.
    pub fn fix_line(&mut self, line: u32) {
        if let Some(last) = self.function.prototype.lines.last_mut() {
            *last = line;
        }
    }

    pub fn emit_nil(&mut self, first: u8, count: u8) -> Result<(), Error> {
        let new_last = first + (count - 1);
        if self.here() > self.function.last_target
            && let Some(Instruction::LoadNil { first: before, last }) =
                self.function.prototype.code.last_mut()
            && *before <= first
            && first <= *last + 1
        {
            *last = new_last.max(*last);
            return Ok(());
        }
        self.emit(Instruction::LoadNil { first, last: new_last })?;
        Ok(())
    }

    pub fn emit_return(&mut self, first: u8, count: u8) -> Result<(), Error> {
        self.emit(Instruction::Return { first, count })?;
        Ok(())
    }

    // Registers.

    pub fn check_registers(&mut self, more: u32) -> Result<(), Error> {
        let wanted = u32::from(self.function.free) + more;
        if wanted > u32::from(self.function.prototype.registers) {
            if wanted >= MAX_REGISTERS {
                return Err(self.lexer.unexpected("function or expression too complex"));
            }
            self.function.prototype.registers = wanted as u8;
        }
        Ok(())
    }

    pub fn reserve(&mut self, count: u32) -> Result<(), Error> {
        self.check_registers(count)?;
        self.function.free += count as u8;
        Ok(())
    }

    fn free_register(&mut self, register: u8) {
        if usize::from(register) >= self.function.active.len() {
            self.function.free -= 1;
        }
    }

    fn free_operand(&mut self, operand: Operand) {
        if let Place::Register(register) = operand.place() {
            self.free_register(register);
        }
    }

    pub fn free_expression(&mut self, expression: &Expression) {
        if let Kind::Register(register) = expression.kind {
            self.free_register(register);
        }
    }

    // Constants.

    pub fn string_constant(&mut self, string: StringId) -> Result<u32, Error> {
        self.constant(Value::String(string), (3, string.index() as u64))
    }

    pub fn number_constant(&mut self, number: f64) -> Result<u32, Error> {
        // 0 and -0 are one constant, the one that comes first. Lua 5.1 has this fault.
        let bits = if number == 0.0 { 0 } else { number.to_bits() };
        self.constant(Value::Number(number), (2, bits))
    }

    fn constant(&mut self, value: Value, key: (u8, u64)) -> Result<u32, Error> {
        let constants = &mut self.function.prototype.constants;
        if let Some(constant) = self.function.constants.get(&key) {
            return Ok(*constant);
        }
        if constants.len() >= MAX_CONSTANTS {
            return Err(self.lexer.error("constant table overflow", None));
        }
        constants.push(value);
        let constant = constants.len() as u32 - 1;
        self.function.constants.insert(key, constant);
        self.lexer.heap.bytes += size_of::<Value>() + 2 * size_of_val(&(key, constant));
        Ok(constant)
    }

    // Expressions.

    /// Of a call or `...`: how many values are wanted. `None` is all.
    pub fn set_results(&mut self, expression: &Expression, count: Option<u8>) -> Result<(), Error> {
        let wanted = count.map_or(0, |count| count + 1);
        match expression.kind {
            Kind::Call(at) => {
                if let Instruction::Call { results, .. } = self.code(at) {
                    *results = wanted;
                }
            }
            Kind::Varargs(at) => {
                let free = self.function.free;
                *self.code(at) = Instruction::Varargs { to: free, count: wanted };
                self.reserve(1)?;
            }
            _ => {}
        }
        Ok(())
    }

    pub fn set_one_result(&mut self, expression: &mut Expression) {
        match expression.kind {
            Kind::Call(at) => {
                if let Instruction::Call { function, .. } = *self.code(at) {
                    expression.kind = Kind::Register(function);
                }
            }
            Kind::Varargs(at) => {
                if let Instruction::Varargs { count, .. } = self.code(at) {
                    *count = 2;
                }
                expression.kind = Kind::Open(at);
            }
            _ => {}
        }
    }

    /// Makes a variable a value.
    pub fn discharge(&mut self, expression: &mut Expression) -> Result<(), Error> {
        let to = 0;
        let instruction = match expression.kind {
            Kind::Local(register) => {
                expression.kind = Kind::Register(register);
                return Ok(());
            }
            Kind::Upvalue(upvalue) => Instruction::GetUpvalue { to, upvalue },
            Kind::Global(name) => Instruction::GetGlobal { to, name },
            Kind::Indexed { table, key } => {
                self.free_operand(key);
                self.free_register(table);
                Instruction::GetTable { to, table, key }
            }
            _ => {
                self.set_one_result(expression);
                return Ok(());
            }
        };
        expression.kind = Kind::Open(self.emit(instruction)?);
        Ok(())
    }

    fn discharge_to(&mut self, expression: &mut Expression, to: u8) -> Result<(), Error> {
        self.discharge(expression)?;
        match expression.kind {
            Kind::Nil => self.emit_nil(to, 1)?,
            Kind::False | Kind::True => {
                let value = expression.kind == Kind::True;
                self.emit(Instruction::LoadBoolean { to, value, skip: false })?;
            }
            Kind::Constant(constant) => {
                self.emit(Instruction::LoadConstant { to, constant })?;
            }
            Kind::Number(number) => {
                let constant = self.number_constant(number)?;
                self.emit(Instruction::LoadConstant { to, constant })?;
            }
            Kind::Open(at) => {
                if let Some(target) = self.code(at).target() {
                    *target = to;
                }
            }
            Kind::Register(from) => {
                if from != to {
                    self.emit(Instruction::Move { to, from })?;
                }
            }
            _ => return Ok(()),
        }
        expression.kind = Kind::Register(to);
        Ok(())
    }

    pub fn discharge_to_any(&mut self, expression: &mut Expression) -> Result<(), Error> {
        if matches!(expression.kind, Kind::Register(_)) {
            return Ok(());
        }
        self.reserve(1)?;
        self.discharge_to(expression, self.function.free - 1)
    }

    /// Puts the value into that register, whatever jumps lead here.
    fn put(&mut self, expression: &mut Expression, to: u8) -> Result<(), Error> {
        self.discharge_to(expression, to)?;
        if let Kind::Jump(jump) = expression.kind {
            self.put_before(&mut expression.on_true, jump)?;
        }
        if expression.has_jumps() {
            let (mut load_false, mut load_true) = (0, 0);
            if self.needs_value(expression.on_true) || self.needs_value(expression.on_false) {
                let over = match expression.kind {
                    Kind::Jump(_) => NO_JUMP,
                    _ => self.emit_jump()?,
                };
                self.label();
                load_false =
                    self.emit(Instruction::LoadBoolean { to, value: false, skip: true })?;
                self.label();
                load_true = self.emit(Instruction::LoadBoolean { to, value: true, skip: false })?;
                self.patch_to_here(over)?;
            }
            let end = self.label();
            self.patch_all(expression.on_false, end, Some(to), load_false)?;
            self.patch_all(expression.on_true, end, Some(to), load_true)?;
        }
        *expression = Expression::new(Kind::Register(to));
        Ok(())
    }

    pub fn load_next(&mut self, expression: &mut Expression) -> Result<(), Error> {
        self.discharge(expression)?;
        self.free_expression(expression);
        self.reserve(1)?;
        self.put(expression, self.function.free - 1)
    }

    pub fn load_any(&mut self, expression: &mut Expression) -> Result<u8, Error> {
        self.discharge(expression)?;
        if let Kind::Register(register) = expression.kind {
            if !expression.has_jumps() {
                return Ok(register);
            }
            // A local variable must not be changed.
            if usize::from(register) >= self.function.active.len() {
                self.put(expression, register)?;
                return Ok(register);
            }
        }
        self.load_next(expression)?;
        Ok(self.function.free - 1)
    }

    pub fn evaluate(&mut self, expression: &mut Expression) -> Result<(), Error> {
        if expression.has_jumps() {
            self.load_any(expression)?;
            return Ok(());
        }
        self.discharge(expression)
    }

    pub fn operand(&mut self, expression: &mut Expression) -> Result<Operand, Error> {
        self.evaluate(expression)?;
        let has_room = self.function.prototype.constants.len() <= u8::MAX as usize;
        let constant = match expression.kind {
            Kind::Number(number) if has_room => Some(self.number_constant(number)?),
            Kind::Nil if has_room => Some(self.constant(Value::Nil, (0, 0))?),
            Kind::True if has_room => Some(self.constant(Value::Boolean(true), (1, 1))?),
            Kind::False if has_room => Some(self.constant(Value::Boolean(false), (1, 0))?),
            Kind::Constant(constant) => Some(constant),
            _ => None,
        };
        if let Some(constant) = constant
            && let Ok(operand) = u8::try_from(constant)
        {
            expression.kind = Kind::Constant(constant);
            return Ok(Operand::constant(operand));
        }
        Ok(Operand::register(self.load_any(expression)?))
    }

    pub fn store(&mut self, variable: &Expression, mut value: Expression) -> Result<(), Error> {
        match variable.kind {
            Kind::Local(register) => {
                self.free_expression(&value);
                return self.put(&mut value, register);
            }
            Kind::Upvalue(upvalue) => {
                let from = self.load_any(&mut value)?;
                self.emit(Instruction::SetUpvalue { from, upvalue })?;
            }
            Kind::Global(name) => {
                let from = self.load_any(&mut value)?;
                self.emit(Instruction::SetGlobal { from, name })?;
            }
            Kind::Indexed { table, key } => {
                let operand = self.operand(&mut value)?;
                self.emit(Instruction::SetTable { table, key, value: operand })?;
            }
            _ => {}
        }
        self.free_expression(&value);
        Ok(())
    }

    pub fn method(&mut self, object: &mut Expression, mut name: Expression) -> Result<(), Error> {
        self.load_any(object)?;
        self.free_expression(object);
        let Kind::Register(register) = object.kind else { return Ok(()) };
        let to = self.function.free;
        self.reserve(2)?;
        let name_operand = self.operand(&mut name)?;
        self.emit(Instruction::GetMethod { to, object: register, name: name_operand })?;
        self.free_expression(&name);
        object.kind = Kind::Register(to);
        Ok(())
    }

    pub fn indexed(&mut self, table: &mut Expression, mut key: Expression) -> Result<(), Error> {
        let key = self.operand(&mut key)?;
        if let Kind::Register(register) = table.kind {
            table.kind = Kind::Indexed { table: register, key };
        }
        Ok(())
    }
}
