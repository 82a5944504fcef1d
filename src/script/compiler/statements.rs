//! Statements: branches, loops, functions, assignments, `return`.
//!
//! ```text
//! for k, v in pairs(t) do f(k) end
//!
//! 0  GetGlobal { to: 0, name: 0 }                          pairs …
//! 1  GetGlobal { to: 1, name: 1 }                          … of t
//! 2  Call { function: 0, arguments: 2, results: 4 }        gives the iterator, its state, the last key
//! 3  Jump { offset: 3 }                                    to 7
//! 4  GetGlobal { to: 5, name: 2 }                          the block. k is register 3, v is 4
//! 5  Move { to: 6, from: 3 }
//! 6  Call { function: 5, arguments: 2, results: 1 }
//! 7  ForCall { base: 0, variables: 2 }                     k, v = iterator(state, last key)
//! 8  ForTest { base: 0, offset: -5 }                       to 4, unless k is nil
//! ```
//!
//! The three values of register 0 to 2 are local variables too, with names that no script can write.
//! Behind each statement all registers are free that are not local variables. There is no other plan
//! for registers than this: they are a stack.
//!
//! In an assignment to several variables all values are found first, but for the last one, which need
//! not be kept. Then the variables are set from the last one to the first:
//!
//! ```text
//! local i, t = ... i, t[i] = i + 1, 20
//!
//! 1  Add { to: 2, left: Register(0), right: Constant(0) }  i + 1 waits in register 2
//! 2  SetTable { table: 1, key: Register(0), value: Constant(1) }
//! 3  Move { to: 0, from: 2 }                               so t[i] was that of the old i
//! ```
//!
//! **How Redis does it**: lparser.c of Lua, with a function for each of these.

use super::{Compiler, Expression, Kind, NO_JUMP};
use crate::script::code::{Instruction, MAX_LEVELS, Operand};
use crate::script::lexer::Token;
use crate::script::value::{Error, StringId};

impl Compiler<'_> {
    /// Statements up to the end of the block.
    pub fn chunk(&mut self) -> Result<(), Error> {
        self.deeper(|compiler| {
            let mut is_last = false;
            while !is_last && !compiler.ends_block() {
                is_last = compiler.statement()?;
                compiler.accept(Token::Char(b';'))?;
                compiler.function.free = compiler.function.active.len() as u8;
            }
            Ok(())
        })
    }

    fn ends_block(&self) -> bool {
        matches!(
            self.lexer.token,
            Token::Else | Token::ElseIf | Token::End | Token::EndOfSource | Token::Until
        )
    }

    /// A block with a scope of its own.
    fn block(&mut self) -> Result<(), Error> {
        self.enter_block(false);
        self.chunk()?;
        self.leave_block()
    }

    /// Says whether nothing may follow.
    fn statement(&mut self) -> Result<bool, Error> {
        let line = self.lexer.line;
        match self.lexer.token {
            Token::If => self.if_statement(line)?,
            Token::While => self.while_statement(line)?,
            Token::Do => {
                self.lexer.advance()?;
                self.block()?;
                self.expect_match(Token::End, Token::Do, line)?;
            }
            Token::For => self.for_statement(line)?,
            Token::Repeat => self.repeat_statement(line)?,
            Token::Function => self.function_statement(line)?,
            Token::Local => {
                self.lexer.advance()?;
                if self.accept(Token::Function)? {
                    self.local_function()?;
                } else {
                    self.local_statement()?;
                }
            }
            Token::Return => {
                self.return_statement()?;
                return Ok(true);
            }
            Token::Break => {
                self.lexer.advance()?;
                self.break_statement()?;
                return Ok(true);
            }
            _ => self.expression_statement()?,
        }
        Ok(false)
    }

    fn if_statement(&mut self, line: u32) -> Result<(), Error> {
        let mut escapes = NO_JUMP;
        let mut if_false = self.if_branch()?;
        while let token @ (Token::ElseIf | Token::Else) = self.lexer.token {
            let escape = self.emit_jump()?;
            self.put_before(&mut escapes, escape)?;
            self.patch_to_here(if_false)?;
            if token == Token::ElseIf {
                if_false = self.if_branch()?;
                continue;
            }
            if_false = NO_JUMP;
            self.lexer.advance()?;
            self.block()?;
            break;
        }
        self.put_before(&mut escapes, if_false)?;
        self.patch_to_here(escapes)?;
        self.expect_match(Token::End, Token::If, line)
    }

    /// `if` or `elseif`, a condition, `then` and a block. Gives the jumps taken if it is false.
    fn if_branch(&mut self) -> Result<i32, Error> {
        self.lexer.advance()?;
        let if_false = self.condition()?;
        self.expect(Token::Then)?;
        self.block()?;
        Ok(if_false)
    }

    fn condition(&mut self) -> Result<i32, Error> {
        let mut condition = self.expression()?;
        if condition.kind == Kind::Nil {
            condition.kind = Kind::False;
        }
        self.go_if_true(&mut condition)?;
        Ok(condition.on_false)
    }

    fn while_statement(&mut self, line: u32) -> Result<(), Error> {
        self.lexer.advance()?;
        let begin = self.label();
        let exit = self.condition()?;
        self.enter_block(true);
        self.expect(Token::Do)?;
        self.block()?;
        let back = self.emit_jump()?;
        self.patch(back, begin)?;
        self.expect_match(Token::End, Token::While, line)?;
        self.leave_block()?;
        self.patch_to_here(exit)
    }

    fn repeat_statement(&mut self, line: u32) -> Result<(), Error> {
        let begin = self.label();
        self.enter_block(true);
        self.enter_block(false);
        self.lexer.advance()?;
        self.chunk()?;
        self.expect_match(Token::Until, Token::Repeat, line)?;
        // The condition still sees the variables of the block.
        let exit = self.condition()?;
        if self.function.blocks.last().is_some_and(|block| block.has_upvalues) {
            self.break_statement()?;
            self.patch_to_here(exit)?;
            self.leave_block()?;
            let back = self.emit_jump()?;
            self.patch(back, begin)?;
        } else {
            self.leave_block()?;
            self.patch(exit, begin)?;
        }
        self.leave_block()
    }

    fn break_statement(&mut self) -> Result<(), Error> {
        let blocks = &self.function.blocks;
        let Some(at) = blocks.iter().rposition(|block| block.is_loop) else {
            return Err(self.lexer.unexpected("no loop to break"));
        };
        let has_upvalues = blocks[at + 1..].iter().any(|block| block.has_upvalues);
        let active = blocks[at].active as u8;
        if has_upvalues {
            self.emit(Instruction::Close { first: active })?;
        }
        let jump = self.emit_jump()?;
        let mut breaks = self.function.blocks[at].breaks;
        self.put_before(&mut breaks, jump)?;
        self.function.blocks[at].breaks = breaks;
        Ok(())
    }

    fn for_statement(&mut self, line: u32) -> Result<(), Error> {
        self.enter_block(true);
        self.lexer.advance()?;
        let name = self.expect_name()?;
        match self.lexer.token {
            Token::Char(b'=') => self.numeric_for(name, line)?,
            Token::Char(b',') | Token::In => self.generic_for(name)?,
            _ => return Err(self.lexer.unexpected("'=' or 'in' expected")),
        }
        self.expect_match(Token::End, Token::For, line)?;
        self.leave_block()
    }

    fn numeric_for(&mut self, name: StringId, line: u32) -> Result<(), Error> {
        let base = self.function.free;
        self.declare_all(&["(for index)", "(for limit)", "(for step)"])?;
        self.declare(name)?;
        self.expect(Token::Char(b'='))?;
        self.load_expression()?;
        self.expect(Token::Char(b','))?;
        self.load_expression()?;
        if self.accept(Token::Char(b','))? {
            self.load_expression()?;
        } else {
            self.load_next(&mut Expression::new(Kind::Number(1.0)))?;
        }
        self.add_variables(3);
        self.expect(Token::Do)?;
        let prepare = self.emit(Instruction::ForPrepare { base, offset: NO_JUMP })?;
        self.for_body(1)?;
        let end = self.label();
        self.set_target(prepare, end)?;
        self.emit(Instruction::ForLoop { base, offset: NO_JUMP })?;
        self.fix_line(line);
        self.set_target(end, prepare + 1)
    }

    fn generic_for(&mut self, name: StringId) -> Result<(), Error> {
        let base = self.function.free;
        self.declare_all(&["(for generator)", "(for state)", "(for control)"])?;
        self.declare(name)?;
        let mut variables = 1;
        while self.accept(Token::Char(b','))? {
            let name = self.expect_name()?;
            self.declare(name)?;
            variables += 1;
        }
        self.expect(Token::In)?;
        let line = self.lexer.line;
        let (count, mut last) = self.expressions()?;
        self.adjust(3, count, &mut last)?;
        // To call the iterator.
        self.check_registers(3)?;
        self.add_variables(3);
        self.expect(Token::Do)?;
        let prepare = self.emit_jump()?;
        self.for_body(variables)?;
        self.patch_to_here(prepare)?;
        self.emit(Instruction::ForCall { base, variables: variables as u8 })?;
        self.fix_line(line);
        let test = self.emit(Instruction::ForTest { base, offset: NO_JUMP })?;
        self.set_target(test, prepare as usize + 1)
    }

    fn for_body(&mut self, variables: usize) -> Result<(), Error> {
        self.enter_block(false);
        self.add_variables(variables);
        self.reserve(variables as u32)?;
        self.block()?;
        self.leave_block()
    }

    fn load_expression(&mut self) -> Result<(), Error> {
        let mut expression = self.expression()?;
        self.load_next(&mut expression)
    }

    fn function_statement(&mut self, line: u32) -> Result<(), Error> {
        self.lexer.advance()?;
        let name = self.expect_name()?;
        let mut variable = self.variable(name)?;
        while self.lexer.token == Token::Char(b'.') {
            self.field(&mut variable)?;
        }
        let is_method = self.lexer.token == Token::Char(b':');
        if is_method {
            self.field(&mut variable)?;
        }
        let body = self.function_body(is_method, line)?;
        self.store(&variable, body)?;
        self.fix_line(line);
        Ok(())
    }

    fn local_function(&mut self) -> Result<(), Error> {
        let name = self.expect_name()?;
        self.declare(name)?;
        let variable = Expression::new(Kind::Local(self.function.free));
        self.reserve(1)?;
        // It is in scope in its own body.
        self.add_variables(1);
        let body = self.function_body(false, self.lexer.line)?;
        self.store(&variable, body)?;
        let here = self.here() as u32;
        if let Some(local) = self.function.active.last() {
            self.function.prototype.locals[*local].begin = here;
        }
        Ok(())
    }

    fn local_statement(&mut self) -> Result<(), Error> {
        let mut variables = 0;
        loop {
            let name = self.expect_name()?;
            self.declare(name)?;
            variables += 1;
            if !self.accept(Token::Char(b','))? {
                break;
            }
        }
        let (count, mut last) = match self.accept(Token::Char(b'='))? {
            true => self.expressions()?,
            false => (0, Expression::new(Kind::Void)),
        };
        self.adjust(variables, count, &mut last)?;
        self.add_variables(variables);
        Ok(())
    }

    fn return_statement(&mut self) -> Result<(), Error> {
        self.lexer.advance()?;
        if self.ends_block() || self.lexer.token == Token::Char(b';') {
            return self.emit_return(0, 1);
        }
        let (count, mut last) = self.expressions()?;
        let first = self.function.active.len() as u8;
        if last.has_many_values() {
            self.set_results(&last, None)?;
            if let Kind::Call(at) = last.kind
                && let Instruction::Call { function, arguments, .. } = *self.code(at)
                && count == 1
            {
                *self.code(at) = Instruction::TailCall { function, arguments };
            }
            return self.emit_return(first, 0);
        }
        if count == 1 {
            let register = self.load_any(&mut last)?;
            return self.emit_return(register, 2);
        }
        self.load_next(&mut last)?;
        self.emit_return(first, count as u8 + 1)
    }

    /// A call or an assignment.
    fn expression_statement(&mut self) -> Result<(), Error> {
        let expression = self.primary()?;
        if let Kind::Call(_) = expression.kind {
            return self.set_results(&expression, Some(0));
        }
        let mut variables = vec![expression];
        loop {
            let last = variables[variables.len() - 1];
            if !matches!(
                last.kind,
                Kind::Local(_) | Kind::Upvalue(_) | Kind::Global(_) | Kind::Indexed { .. }
            ) {
                return Err(self.lexer.unexpected("syntax error"));
            }
            if !self.accept(Token::Char(b','))? {
                break;
            }
            let next = self.primary()?;
            if let Kind::Local(register) = next.kind {
                self.protect_from(register, &mut variables)?;
            }
            let limit = (MAX_LEVELS - self.levels) as usize;
            if variables.len() > limit {
                let line = self.function.prototype.line;
                return Err(self.over_limit(line, limit, "variables in assignment"));
            }
            variables.push(next);
        }
        self.expect(Token::Char(b'='))?;
        self.assign(&variables)
    }

    /// In `t[i], i = …`, the old i is needed after the new one has been set. So it is copied.
    fn protect_from(&mut self, register: u8, variables: &mut [Expression]) -> Result<(), Error> {
        let copy = self.function.free;
        let mut is_needed = false;
        for variable in variables {
            if let Kind::Indexed { table, key } = &mut variable.kind {
                if *table == register {
                    *table = copy;
                    is_needed = true;
                }
                if *key == Operand::register(register) {
                    *key = Operand::register(copy);
                    is_needed = true;
                }
            }
        }
        if is_needed {
            self.emit(Instruction::Move { to: copy, from: register })?;
            self.reserve(1)?;
        }
        Ok(())
    }

    /// The right side of an assignment. The last variable is set first.
    fn assign(&mut self, variables: &[Expression]) -> Result<(), Error> {
        let (count, mut last) = self.expressions()?;
        let mut rest = variables;
        if count == variables.len() {
            self.set_one_result(&mut last);
            self.store(&variables[count - 1], last)?;
            rest = &variables[..count - 1];
        } else {
            self.adjust(variables.len(), count, &mut last)?;
            self.function.free -= count.saturating_sub(variables.len()) as u8;
        }
        for variable in rest.iter().rev() {
            let value = Expression::new(Kind::Register(self.function.free - 1));
            self.store(variable, value)?;
        }
        Ok(())
    }

    /// Makes of a list of expressions, the last of which is not yet in a register, as many values
    /// as are wanted.
    fn adjust(&mut self, wanted: usize, count: usize, last: &mut Expression) -> Result<(), Error> {
        if last.has_many_values() {
            let extra = (wanted + 1).saturating_sub(count);
            self.set_results(last, Some(extra as u8))?;
            return self.reserve(extra.saturating_sub(1) as u32);
        }
        if last.kind != Kind::Void {
            self.load_next(last)?;
        }
        if wanted > count {
            let (register, extra) = (self.function.free, wanted - count);
            self.reserve(extra as u32)?;
            self.emit_nil(register, extra as u8)?;
        }
        Ok(())
    }
}
