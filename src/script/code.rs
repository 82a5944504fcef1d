//! What the compiler makes of a function, and the machine runs: instructions for registers.
//!
//! ```text
//! local a, b = ... return a + b * 2
//!
//! 0  Varargs { to: 0, count: 3 }                               a and b are registers 0 and 1
//! 1  Mul { to: 2, left: Register(1), right: Constant(0) }      2 is the constant 0 of this function
//! 2  Add { to: 2, left: Register(0), right: Register(2) }
//! 3  Return { first: 2, count: 2 }                             one value
//! 4  Return { first: 0, count: 1 }                             the end of each function, needed or not
//! ```
//!
//! Each call has up to 250 registers, which lie on the stack of the coroutine. Local variables are
//! the first ones, and values in the middle of an expression follow.
//!
//! Where an instruction counts values, it says one more than there are, and 0 means: all up to the top
//! of the stack. That occurs behind a call or `...`, because before it runs nobody knows how many
//! values it gives:
//!
//! ```text
//! f(g())
//!
//! 2  Call { function: 1, arguments: 1, results: 0 }            g gives any number of values …
//! 3  Call { function: 0, arguments: 0, results: 1 }            … and f takes them. Its own are not wanted
//! ```
//!
//! **How Redis does it**: Lua 5.1 has the same instructions, but packs each one into four bytes.
//! Here they take eight, and have names. `OP_TFORLOOP` is two instructions here, because the
//! machine must not wait inside of one until a function of the script returns.

use super::heap::Id;
use super::number;
use super::value::{StringId, Value};

/// How deep the compiler's grammar, and calls that Lua makes on its native stack, may be together.
pub const MAX_LEVELS: u32 = 200;

/// What an instruction works on: a [`Place`] as a number. A constant comes behind all registers.
#[derive(Clone, Copy, PartialEq, PartialOrd)]
pub struct Operand(u16);

/// Of the constants only the first 256 can be operands. All others must be loaded into a register.
#[derive(Debug)]
pub enum Place {
    Register(u8),
    Constant(usize),
}

impl Operand {
    const FIRST_CONSTANT: u16 = 256;

    pub fn register(register: u8) -> Operand {
        Operand(register.into())
    }

    pub fn constant(constant: u8) -> Operand {
        Operand(Operand::FIRST_CONSTANT + u16::from(constant))
    }

    #[inline(always)]
    pub fn place(self) -> Place {
        match u8::try_from(self.0) {
            Ok(register) => Place::Register(register),
            Err(_) => Place::Constant(usize::from(self.0) - usize::from(Operand::FIRST_CONSTANT)),
        }
    }
}

impl std::fmt::Debug for Operand {
    fn fmt(&self, out: &mut std::fmt::Formatter) -> std::fmt::Result {
        self.place().fmt(out)
    }
}

#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Instruction {
    Move { to: u8, from: u8 },
    LoadConstant { to: u8, constant: u32 },
    // `skip`: the next instruction is left out.
    LoadBoolean { to: u8, value: bool, skip: bool },
    LoadNil { first: u8, last: u8 },
    GetUpvalue { to: u8, upvalue: u8 },
    SetUpvalue { from: u8, upvalue: u8 },
    GetGlobal { to: u8, name: u32 },
    SetGlobal { from: u8, name: u32 },
    GetTable { to: u8, table: u8, key: Operand },
    SetTable { table: u8, key: Operand, value: Operand },
    NewTable { to: u8, array: u8, nodes: u8 },
    // `to + 1` becomes the object, and `to` the object's function of that name.
    GetMethod { to: u8, object: u8, name: Operand },
    Add { to: u8, left: Operand, right: Operand },
    Sub { to: u8, left: Operand, right: Operand },
    Mul { to: u8, left: Operand, right: Operand },
    Div { to: u8, left: Operand, right: Operand },
    Mod { to: u8, left: Operand, right: Operand },
    Pow { to: u8, left: Operand, right: Operand },
    Negate { to: u8, from: u8 },
    Not { to: u8, from: u8 },
    Length { to: u8, from: u8 },
    Concat { to: u8, first: u8, last: u8 },
    Jump { offset: i32 },
    // If the comparison does not give `expected`, the next instruction, a jump, is left out.
    Equal { expected: bool, left: Operand, right: Operand },
    Less { expected: bool, left: Operand, right: Operand },
    LessOrEqual { expected: bool, left: Operand, right: Operand },
    Test { from: u8, expected: bool },
    // As `Test`, and if there is a jump, the value goes with it.
    TestSet { to: u8, from: u8, expected: bool },
    Call { function: u8, arguments: u8, results: u8 },
    TailCall { function: u8, arguments: u8 },
    Return { first: u8, count: u8 },
    // Registers from `base` on: the counter, its limit, its step, and the variable of the script.
    ForPrepare { base: u8, offset: i32 },
    ForLoop { base: u8, offset: i32 },
    // Registers from `base` on: the iterator, its state, the last key, and the variables.
    ForCall { base: u8, variables: u8 },
    ForTest { base: u8, offset: i32 },
    // Puts registers behind the table into it, the first one at `first`.
    SetList { table: u8, count: u8, first: u32 },
    // Upvalues from this register on outlive their register.
    Close { first: u8 },
    Closure { to: u8, prototype: u32 },
    Varargs { to: u8, count: u8 },
}

impl Instruction {
    /// The register for its result, if it is one that has a result in one register.
    pub fn target(&mut self) -> Option<&mut u8> {
        match self {
            Instruction::Move { to, .. }
            | Instruction::LoadConstant { to, .. }
            | Instruction::LoadBoolean { to, .. }
            | Instruction::GetUpvalue { to, .. }
            | Instruction::GetGlobal { to, .. }
            | Instruction::GetTable { to, .. }
            | Instruction::NewTable { to, .. }
            | Instruction::Add { to, .. }
            | Instruction::Sub { to, .. }
            | Instruction::Mul { to, .. }
            | Instruction::Div { to, .. }
            | Instruction::Mod { to, .. }
            | Instruction::Pow { to, .. }
            | Instruction::Negate { to, .. }
            | Instruction::Not { to, .. }
            | Instruction::Length { to, .. }
            | Instruction::Concat { to, .. }
            | Instruction::TestSet { to, .. }
            | Instruction::Closure { to, .. }
            | Instruction::Varargs { to, .. } => Some(to),
            _ => None,
        }
    }
}

/// Where a new closure finds an upvalue: in a register of the function that makes it, or among
/// that one's own upvalues.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Capture {
    Register(u8),
    Upvalue(u8),
}

/// A local variable, for error messages. It has a meaning from `begin` to before `end`.
#[derive(Clone, Copy, Debug)]
pub struct Local {
    pub name: StringId,
    pub begin: u32,
    pub end: u32,
}

/// A function as it stands in the source.
#[derive(Default)]
pub struct Prototype {
    pub code: Vec<Instruction>,
    pub constants: Vec<Value>,
    pub prototypes: Vec<Id<Prototype>>,
    pub captures: Vec<Capture>,
    pub parameters: u8,
    pub is_vararg: bool,
    /// It may use `arg`, the table of its extra arguments, as in Lua 5.0.
    pub needs_arg: bool,
    pub registers: u8,
    /// For error messages: the line of each instruction, the names of variables, and what the
    /// source is called.
    pub lines: Vec<u32>,
    pub locals: Vec<Local>,
    pub upvalue_names: Vec<StringId>,
    pub source: Box<[u8]>,
    /// The same as it was given.
    pub name: Option<StringId>,
    /// The line of its first word, or 0 for a whole script.
    pub line: u32,
}

impl Prototype {
    /// How many bytes of memory it takes, about.
    pub fn size(&self) -> usize {
        size_of::<Prototype>()
            + size_of_val(&self.code[..])
            + size_of_val(&self.lines[..])
            + size_of_val(&self.constants[..])
            + size_of_val(&self.locals[..])
            + self.source.len()
    }
}

/// What a source is called in messages: `@user_script` is `user_script`, and a source without a
/// name is its own first line, `[string "return 1"]`.
/// It has less than `longest` bytes.
pub fn source_name(name: &[u8], longest: usize) -> Box<[u8]> {
    let name = number::c_string(name);
    match name {
        [b'=', rest @ ..] => rest[..rest.len().min(longest - 1)].into(),
        [b'@', rest @ ..] => {
            let room = longest - b" '...' ".len() - 1;
            let dots: &[u8] = if rest.len() > room { b"..." } else { b"" };
            [dots, &rest[rest.len() - rest.len().min(room)..]].concat().into()
        }
        _ => {
            let room = longest - b" [string \"...\"] ".len() - 1;
            let end = name.iter().position(|byte| matches!(byte, b'\n' | b'\r'));
            let line = &name[..end.unwrap_or(name.len()).min(room)];
            let dots: &[u8] = if line.len() < name.len() { b"..." } else { b"" };
            [b"[string \"", line, dots, b"\"]"].concat().into()
        }
    }
}
