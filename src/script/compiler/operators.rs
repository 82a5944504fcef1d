//! Operators: their priorities, what is calculated at once, and their instructions.
//!
//! ```text
//! return 2^3^2 .. -2^2
//!
//! 0  LoadConstant { to: 0, constant: 0 }     512, because of two ^ the right one comes first
//! 1  LoadConstant { to: 1, constant: 1 }     -4, because ^ is stronger than -
//! 2  Concat { to: 0, first: 0, last: 1 }     one instruction, however many .. there are in a row
//! ```
//!
//! What stands at the left of an operator must be brought into its form before the right side is
//! read, because the instructions of the right side follow: [`infix`](Compiler::infix). When both are there,
//! [`binary`](Compiler::binary) makes the instruction.
//!
//! **How Redis does it**: `luaK_infix` and `luaK_posfix` in lcode.c of Lua. It calculates the same at once.

use super::{Compiler, Expression, Kind};
use crate::script::code::Instruction;
use crate::script::lexer::Token;
use crate::script::number;
use crate::script::value::Error;

#[derive(Clone, Copy, PartialEq, Debug)]
pub enum Binary {
    Add,
    Sub,
    Mul,
    Div,
    Mod,
    Pow,
    Concat,
    NotEqual,
    Equal,
    Less,
    LessOrEqual,
    Greater,
    GreaterOrEqual,
    And,
    Or,
}

/// An operator between two expressions, with its priorities. It takes what stands at its left from
/// an operator with a lower priority there. If its priority towards the right is the lower one, of
/// two in a row the right one comes first: `..` and `^`.
#[derive(Clone, Copy)]
pub struct Operator {
    pub binary: Binary,
    pub left: u8,
    pub right: u8,
}

#[derive(Clone, Copy, PartialEq)]
pub enum Unary {
    Negate,
    Not,
    Length,
}

impl Compiler<'_> {
    pub fn unary(&mut self, operator: Unary, operand: &mut Expression) -> Result<(), Error> {
        match operator {
            Unary::Not => return self.emit_not(operand),
            Unary::Negate => {
                if let Some(number) = operand.as_number() {
                    operand.kind = Kind::Number(-number);
                    return Ok(());
                }
            }
            Unary::Length => {}
        }
        let from = self.load_any(operand)?;
        self.free_expression(operand);
        let instruction = match operator {
            Unary::Length => Instruction::Length { to: 0, from },
            _ => Instruction::Negate { to: 0, from },
        };
        *operand = Expression::new(Kind::Open(self.emit(instruction)?));
        Ok(())
    }

    /// Prepares the left side of an operator before the right side is read.
    pub fn infix(&mut self, operator: Binary, left: &mut Expression) -> Result<(), Error> {
        match operator {
            Binary::And => self.go_if_true(left),
            Binary::Or => self.go_if_false(left),
            Binary::Concat => self.load_next(left),
            Binary::Add | Binary::Sub | Binary::Mul | Binary::Div | Binary::Mod | Binary::Pow
                if left.as_number().is_some() =>
            {
                Ok(())
            }
            _ => self.operand(left).map(|_| ()),
        }
    }

    pub fn binary(
        &mut self,
        operator: Binary,
        left: &mut Expression,
        mut right: Expression,
    ) -> Result<(), Error> {
        match operator {
            Binary::And => {
                self.discharge(&mut right)?;
                self.put_before(&mut left.on_false, right.on_false)?;
                *left = Expression { on_false: left.on_false, ..right };
                Ok(())
            }
            Binary::Or => {
                self.discharge(&mut right)?;
                self.put_before(&mut left.on_true, right.on_true)?;
                *left = Expression { on_true: left.on_true, ..right };
                Ok(())
            }
            Binary::Concat => self.concat(left, right),
            Binary::Equal
            | Binary::NotEqual
            | Binary::Less
            | Binary::LessOrEqual
            | Binary::Greater
            | Binary::GreaterOrEqual => self.comparison(operator, left, right),
            _ => self.arithmetic(operator, left, right),
        }
    }

    /// `a .. b .. c` is one instruction for all its registers.
    fn concat(&mut self, left: &mut Expression, mut right: Expression) -> Result<(), Error> {
        self.evaluate(&mut right)?;
        if let (Kind::Open(at), Kind::Register(new)) = (right.kind, left.kind)
            && let Instruction::Concat { first, .. } = self.code(at)
        {
            *first = new;
            self.free_expression(left);
            *left = Expression { kind: Kind::Open(at), ..*left };
            return Ok(());
        }
        self.load_next(&mut right)?;
        if let (Kind::Register(first), Kind::Register(last)) = (left.kind, right.kind) {
            self.free_expression(&right);
            self.free_expression(left);
            let at = self.emit(Instruction::Concat { to: 0, first, last })?;
            *left = Expression::new(Kind::Open(at));
        }
        Ok(())
    }

    fn arithmetic(
        &mut self,
        operator: Binary,
        left: &mut Expression,
        mut right: Expression,
    ) -> Result<(), Error> {
        if let Some(number) = fold(operator, left, &right) {
            left.kind = Kind::Number(number);
            return Ok(());
        }
        let b = self.operand(&mut right)?;
        let a = self.operand(left)?;
        // Registers are freed in the opposite order of their making.
        if a > b {
            self.free_expression(left);
            self.free_expression(&right);
        } else {
            self.free_expression(&right);
            self.free_expression(left);
        }
        *left = Expression::new(Kind::Open(self.emit(match operator {
            Binary::Add => Instruction::Add { to: 0, left: a, right: b },
            Binary::Sub => Instruction::Sub { to: 0, left: a, right: b },
            Binary::Mul => Instruction::Mul { to: 0, left: a, right: b },
            Binary::Div => Instruction::Div { to: 0, left: a, right: b },
            Binary::Mod => Instruction::Mod { to: 0, left: a, right: b },
            _ => Instruction::Pow { to: 0, left: a, right: b },
        })?));
        Ok(())
    }

    fn comparison(
        &mut self,
        operator: Binary,
        left: &mut Expression,
        mut right: Expression,
    ) -> Result<(), Error> {
        let (a, b) = (self.operand(left)?, self.operand(&mut right)?);
        self.free_expression(&right);
        self.free_expression(left);
        let expected = operator != Binary::NotEqual;
        self.emit(match operator {
            Binary::Equal | Binary::NotEqual => Instruction::Equal { expected, left: a, right: b },
            Binary::Less => Instruction::Less { expected, left: a, right: b },
            Binary::LessOrEqual => Instruction::LessOrEqual { expected, left: a, right: b },
            Binary::Greater => Instruction::Less { expected, left: b, right: a },
            _ => Instruction::LessOrEqual { expected, left: b, right: a },
        })?;
        *left = Expression::new(Kind::Jump(self.emit_jump()?));
        Ok(())
    }
}

/// The operator on two numbers that stand in the source. Where the result is not a number, the
/// machine shall find it.
fn fold(operator: Binary, left: &Expression, right: &Expression) -> Option<f64> {
    let (left, right) = (left.as_number()?, right.as_number()?);
    let result = match operator {
        Binary::Add => left + right,
        Binary::Sub => left - right,
        Binary::Mul => left * right,
        Binary::Div if right != 0.0 => left / right,
        Binary::Mod if right != 0.0 => number::modulo(left, right),
        Binary::Pow => left.powf(right),
        _ => return None,
    };
    (!result.is_nan()).then_some(result)
}

impl Operator {
    /// The priority of `not`, `-` and `#`.
    pub const UNARY: u8 = 8;

    pub fn of(token: Token) -> Option<Operator> {
        let (binary, left, right) = match token {
            Token::Or => (Binary::Or, 1, 1),
            Token::And => (Binary::And, 2, 2),
            Token::Char(b'<') => (Binary::Less, 3, 3),
            Token::Char(b'>') => (Binary::Greater, 3, 3),
            Token::LessOrEqual => (Binary::LessOrEqual, 3, 3),
            Token::GreaterOrEqual => (Binary::GreaterOrEqual, 3, 3),
            Token::NotEqual => (Binary::NotEqual, 3, 3),
            Token::Equal => (Binary::Equal, 3, 3),
            Token::Concat => (Binary::Concat, 5, 4),
            Token::Char(b'+') => (Binary::Add, 6, 6),
            Token::Char(b'-') => (Binary::Sub, 6, 6),
            Token::Char(b'*') => (Binary::Mul, 7, 7),
            Token::Char(b'/') => (Binary::Div, 7, 7),
            Token::Char(b'%') => (Binary::Mod, 7, 7),
            Token::Char(b'^') => (Binary::Pow, 10, 9),
            _ => return None,
        };
        Some(Operator { binary, left, right })
    }
}
