//! Expressions: operators by priority, calls, fields, table constructors, functions.
//!
//! Each operator has a priority. [`operators`](Compiler::operators) reads what is stronger than a
//! limit, and leaves the rest to its caller. So the depth of the calls is the structure of the expression:
//!
//! ```text
//! a + b * c == d
//!
//! operators(0)      reads a. The priority of + is 6, more than 0
//!   operators(6)    reads b. That of * is 7, more than 6
//!     operators(7)  reads c. That of == is 3: it ends here, and b * c is emitted
//!   operators(6)    ends too, for the same reason, and a + (b * c) is emitted
//! operators(0)      goes on with ==
//! ```
//!
//! A list of expressions can end in a call or `...`, which give any number of values:
//!
//! ```text
//! return {1, f(...)}
//!
//! 0  NewTable { to: 0, array: 1, nodes: 0 }             one element is known
//! 1  LoadConstant { to: 1, constant: 0 }
//! 2  GetGlobal { to: 2, name: 1 }
//! 3  Varargs { to: 3, count: 0 }                        all that there are
//! 4  Call { function: 2, arguments: 0, results: 0 }
//! 5  SetList { table: 0, count: 0, first: 1 }           only here it is seen how many there are
//! ```
//!
//! **How Redis does it**: `subexpr` and its neighbours in lparser.c of Lua.

use super::operators::{Operator, Unary};
use super::{Compiler, Expression, Kind};
use crate::script::code::Instruction;
use crate::script::lexer::Token;
use crate::script::value::{Error, StringId};

/// How many elements of a constructor wait in registers, at most, before they go into the table.
const LIST_FIELDS: u32 = 50;

impl Expression {
    /// A call or `...`, which can be any number of values at the end of a list.
    pub fn has_many_values(&self) -> bool {
        matches!(self.kind, Kind::Call(_) | Kind::Varargs(_))
    }
}

impl Compiler<'_> {
    pub fn expression(&mut self) -> Result<Expression, Error> {
        Ok(self.operators(0)?.0)
    }

    /// One or more expressions. All but the last are put into registers.
    pub fn expressions(&mut self) -> Result<(usize, Expression), Error> {
        let mut count = 1;
        let mut last = self.expression()?;
        while self.accept(Token::Char(b','))? {
            self.load_next(&mut last)?;
            last = self.expression()?;
            count += 1;
        }
        Ok((count, last))
    }

    /// An expression whose operators all have a priority above `limit`, and the operator behind
    /// it.
    fn operators(&mut self, limit: u8) -> Result<(Expression, Option<Operator>), Error> {
        self.deeper(|compiler| {
            let unary = match compiler.lexer.token {
                Token::Not => Some(Unary::Not),
                Token::Char(b'-') => Some(Unary::Negate),
                Token::Char(b'#') => Some(Unary::Length),
                _ => None,
            };
            let mut left = if let Some(unary) = unary {
                compiler.lexer.advance()?;
                let (mut operand, _) = compiler.operators(Operator::UNARY)?;
                compiler.unary(unary, &mut operand)?;
                operand
            } else {
                compiler.simple()?
            };
            let mut next = Operator::of(compiler.lexer.token);
            while let Some(operator) = next
                && operator.left > limit
            {
                compiler.lexer.advance()?;
                compiler.infix(operator.binary, &mut left)?;
                let (right, behind) = compiler.operators(operator.right)?;
                compiler.binary(operator.binary, &mut left, right)?;
                next = behind;
            }
            Ok((left, next))
        })
    }

    /// An expression without operators.
    fn simple(&mut self) -> Result<Expression, Error> {
        let kind = match self.lexer.token {
            Token::Number(number) => Kind::Number(number),
            Token::String(string) => Kind::Constant(self.string_constant(string)?),
            Token::Nil => Kind::Nil,
            Token::True => Kind::True,
            Token::False => Kind::False,
            Token::Dots => {
                if !self.function.prototype.is_vararg {
                    let message = "cannot use '...' outside a vararg function";
                    return Err(self.lexer.unexpected(message));
                }
                self.function.prototype.needs_arg = false;
                Kind::Varargs(self.emit(Instruction::Varargs { to: 0, count: 1 })?)
            }
            Token::Char(b'{') => return self.constructor(),
            Token::Function => {
                self.lexer.advance()?;
                return self.function_body(false, self.lexer.line);
            }
            _ => return self.primary(),
        };
        self.lexer.advance()?;
        Ok(Expression::new(kind))
    }

    /// A name or an expression in parentheses, with what follows: fields and calls.
    pub fn primary(&mut self) -> Result<Expression, Error> {
        let mut expression = self.prefix()?;
        loop {
            match self.lexer.token {
                Token::Char(b'.') => self.field(&mut expression)?,
                Token::Char(b'[') => {
                    self.load_any(&mut expression)?;
                    let key = self.index()?;
                    self.indexed(&mut expression, key)?;
                }
                Token::Char(b':') => {
                    self.lexer.advance()?;
                    let name = self.expect_name()?;
                    let name = self.string_expression(name)?;
                    self.method(&mut expression, name)?;
                    self.arguments(&mut expression)?;
                }
                Token::Char(b'(' | b'{') | Token::String(_) => {
                    self.load_next(&mut expression)?;
                    self.arguments(&mut expression)?;
                }
                _ => return Ok(expression),
            }
        }
    }

    fn prefix(&mut self) -> Result<Expression, Error> {
        match self.lexer.token {
            Token::Char(b'(') => {
                let line = self.lexer.line;
                self.lexer.advance()?;
                let mut expression = self.expression()?;
                self.expect_match(Token::Char(b')'), Token::Char(b'('), line)?;
                // Parentheses cut many values down to one.
                self.discharge(&mut expression)?;
                Ok(expression)
            }
            Token::Name(name) => {
                self.lexer.advance()?;
                self.variable(name)
            }
            _ => Err(self.lexer.unexpected("unexpected symbol")),
        }
    }

    fn string_expression(&mut self, string: StringId) -> Result<Expression, Error> {
        Ok(Expression::new(Kind::Constant(self.string_constant(string)?)))
    }

    /// `.name` or `:name`.
    pub fn field(&mut self, table: &mut Expression) -> Result<(), Error> {
        self.load_any(table)?;
        self.lexer.advance()?;
        let name = self.expect_name()?;
        let name = self.string_expression(name)?;
        self.indexed(table, name)
    }

    /// `[key]`.
    fn index(&mut self) -> Result<Expression, Error> {
        self.lexer.advance()?;
        let mut key = self.expression()?;
        self.evaluate(&mut key)?;
        self.expect(Token::Char(b']'))?;
        Ok(key)
    }

    /// Arguments and the call.
    fn arguments(&mut self, function: &mut Expression) -> Result<(), Error> {
        let line = self.lexer.line;
        let mut last = match self.lexer.token {
            Token::Char(b'(') => {
                if line != self.lexer.last_line {
                    let message = "ambiguous syntax (function call x new statement)";
                    return Err(self.lexer.unexpected(message));
                }
                self.lexer.advance()?;
                let mut last = Expression::new(Kind::Void);
                if self.lexer.token != Token::Char(b')') {
                    last = self.expressions()?.1;
                    self.set_results(&last, None)?;
                }
                self.expect_match(Token::Char(b')'), Token::Char(b'('), line)?;
                last
            }
            Token::Char(b'{') => self.constructor()?,
            Token::String(string) => {
                self.lexer.advance()?;
                self.string_expression(string)?
            }
            _ => return Err(self.lexer.unexpected("function arguments expected")),
        };
        let Kind::Register(base) = function.kind else { return Ok(()) };
        let mut arguments = 0;
        if !last.has_many_values() {
            if last.kind != Kind::Void {
                self.load_next(&mut last)?;
            }
            arguments = self.function.free - base;
        }
        let call = Instruction::Call { function: base, arguments, results: 2 };
        function.kind = Kind::Call(self.emit(call)?);
        self.fix_line(line);
        self.function.free = base + 1;
        Ok(())
    }

    /// `{…}`
    fn constructor(&mut self) -> Result<Expression, Error> {
        let line = self.lexer.line;
        let at = self.emit(Instruction::NewTable { to: 0, array: 0, nodes: 0 })?;
        let mut table = Expression::new(Kind::Open(at));
        self.load_next(&mut table)?;
        let register = self.function.free - 1;
        // The last element, which may be many values, and how many there are before the keys.
        let mut last = Expression::new(Kind::Void);
        let (mut elements, mut waiting, mut keys) = (0u32, 0u32, 0u32);
        self.expect(Token::Char(b'{'))?;
        while self.lexer.token != Token::Char(b'}') {
            if last.kind != Kind::Void {
                self.load_next(&mut last)?;
                last.kind = Kind::Void;
                if waiting == LIST_FIELDS {
                    self.set_list(register, elements, Some(waiting))?;
                    waiting = 0;
                }
            }
            let is_pair = match self.lexer.token {
                Token::Name(_) => self.lexer.look_ahead()? == Token::Char(b'='),
                token => token == Token::Char(b'['),
            };
            if is_pair {
                self.pair(register)?;
                keys += 1;
            } else {
                last = self.expression()?;
                elements += 1;
                waiting += 1;
            }
            if !self.accept(Token::Char(b','))? && !self.accept(Token::Char(b';'))? {
                break;
            }
        }
        self.expect_match(Token::Char(b'}'), Token::Char(b'{'), line)?;
        let is_open = last.has_many_values();
        if waiting > 0 {
            self.close_list(register, elements, waiting, last)?;
        }
        // How many values an open end gives is not known now.
        let array = floating_byte(elements - u32::from(is_open));
        let nodes = floating_byte(keys);
        if let Instruction::NewTable { to, .. } = *self.code(at) {
            *self.code(at) = Instruction::NewTable { to, array, nodes };
        }
        Ok(table)
    }

    /// Puts the last elements of a constructor into the table.
    fn close_list(
        &mut self,
        table: u8,
        elements: u32,
        waiting: u32,
        mut last: Expression,
    ) -> Result<(), Error> {
        if last.has_many_values() {
            self.set_results(&last, None)?;
            return self.set_list(table, elements, None);
        }
        if last.kind != Kind::Void {
            self.load_next(&mut last)?;
        }
        self.set_list(table, elements, Some(waiting))
    }

    /// `name = value` or `[key] = value`.
    fn pair(&mut self, table: u8) -> Result<(), Error> {
        let free = self.function.free;
        let mut key = if let Token::Name(name) = self.lexer.token {
            self.lexer.advance()?;
            self.string_expression(name)?
        } else {
            self.index()?
        };
        self.expect(Token::Char(b'='))?;
        let key = self.operand(&mut key)?;
        let mut value = self.expression()?;
        let value = self.operand(&mut value)?;
        self.emit(Instruction::SetTable { table, key, value })?;
        self.function.free = free;
        Ok(())
    }

    /// Puts the waiting elements, or all up to the top of the stack, into a table that shall then
    /// have `elements`.
    fn set_list(&mut self, table: u8, elements: u32, waiting: Option<u32>) -> Result<(), Error> {
        let first = (elements - 1) / LIST_FIELDS * LIST_FIELDS + 1;
        let count = waiting.unwrap_or(0) as u8;
        self.emit(Instruction::SetList { table, count, first })?;
        self.function.free = table + 1;
        Ok(())
    }

    /// Parameters, block and `end`.
    pub fn function_body(&mut self, is_method: bool, line: u32) -> Result<Expression, Error> {
        self.open_function(line);
        self.expect(Token::Char(b'('))?;
        if is_method {
            self.declare_all(&["self"])?;
            self.add_variables(1);
        }
        self.parameters()?;
        self.expect(Token::Char(b')'))?;
        self.chunk()?;
        self.expect_match(Token::End, Token::Function, line)?;
        let inner = self.close_function()?;
        let inner = self.add(inner);
        self.function.prototype.prototypes.push(inner);
        let prototype = self.function.prototype.prototypes.len() as u32 - 1;
        let at = self.emit(Instruction::Closure { to: 0, prototype })?;
        Ok(Expression::new(Kind::Open(at)))
    }

    fn parameters(&mut self) -> Result<(), Error> {
        let mut count = 0;
        while self.lexer.token != Token::Char(b')') || count > 0 {
            count += 1;
            match self.lexer.token {
                Token::Name(name) => {
                    self.lexer.advance()?;
                    self.declare(name)?;
                }
                Token::Dots => {
                    self.lexer.advance()?;
                    self.declare_all(&["arg"])?;
                    self.function.prototype.is_vararg = true;
                    self.function.prototype.needs_arg = true;
                    break;
                }
                _ => return Err(self.lexer.unexpected("<name> or '...' expected")),
            }
            if !self.accept(Token::Char(b','))? {
                break;
            }
        }
        self.add_variables(count);
        let locals = self.function.active.len() as u8;
        self.function.prototype.parameters = locals - u8::from(self.function.prototype.is_vararg);
        self.reserve(locals.into())
    }
}

/// Sizes of tables are rounded up to what Lua has in one byte: three bits with an exponent. The
/// order of `next` depends on it.
fn floating_byte(mut size: u32) -> u8 {
    let mut exponent = 0;
    while size >= 16 {
        size = size.div_ceil(2);
        exponent += 1;
    }
    if size < 8 { size as u8 } else { (exponent + 1) << 3 | (size as u8 - 8) }
}

/// The size that such a byte means.
pub fn from_floating_byte(byte: u8) -> usize {
    match byte >> 3 {
        0 => byte.into(),
        exponent => (usize::from(byte & 7) + 8) << (exponent - 1),
    }
}
