//! The compiler: from the tokens of a source to a [`Prototype`], in one pass.
//!
//! There is no tree. Each rule of the grammar is a function that reads its tokens and emits its
//! instructions at once: this file has the scopes of variables, [`statements`] and
//! [`expressions`] have what their names say, and [`emit`], [`jumps`] and [`operators`] make the
//! instructions.
//!
//! ```text
//! local i = 0 while i < 3 do i = i + 1 end
//!
//! 0  LoadConstant { to: 0, constant: 0 }
//! 1  Less { expected: false, left: Register(0), right: Constant(1) }    `condition` has read i < 3
//! 2  Jump { offset: 2 }                 to 5, if it is false. Where 5 is, was not known yet: see [jumps]
//! 3  Add { to: 0, left: Register(0), right: Constant(2) }               `block` has read i = i + 1
//! 4  Jump { offset: -4 }                to 1
//! 5  Return { first: 0, count: 1 }
//! ```
//!
//! A name is looked for among the local variables of the function, from the last one to the first, and
//! then in the functions around it. Each function on the way gets an *upvalue* for it, a variable of
//! another function. A name that nobody has declared is a field of the globals.
//!
//! The parser is recursive, up to 200 levels. A client's thread has a stack for about fifty. A source that
//! needs more than forty is compiled anew on the stack of a thread of its own. Sources of people need none.
//!
//! It takes as long as the source is: each list of jumps is walked once for each level at most, by the end that is
//! new. The [lexer](super::lexer) asks between two tokens whether to go on.
//!
//! **How Redis does it**: Lua 5.1's compiler has the same shape, the same limits and the same
//! messages. It differs from Lua's in that `OP_CLOSURE` is not followed by instructions which say
//! where its upvalues are: the prototype says it.

mod emit;
mod expressions;
mod jumps;
mod operators;
mod statements;

pub use self::expressions::from_floating_byte;

use super::code::{Capture, Instruction, Local, MAX_LEVELS, Operand, Prototype, source_name};
use super::heap::{Arena, Heap, Id};
use super::lexer::{Ask, Lexer, Token};
use super::metatable::Name;
use super::value::{Error, StringId, Value};
use std::collections::HashMap;
use std::sync::mpsc;
use std::thread;

/// The end of a list of jumps.
const NO_JUMP: i32 = -1;
const MAX_LOCALS: usize = 200;
const MAX_UPVALUES: usize = 60;
/// So many levels of the grammar have room on the native stack of whoever compiles. For all of them this many
/// bytes are needed.
const LEVELS_HERE: u32 = 40;
const STACK: usize = 3 << 20;

#[derive(Clone, Copy, PartialEq, Debug)]
enum Kind {
    // No value: an empty list of expressions.
    Void,
    Nil,
    True,
    False,
    // A string, as constant of the function.
    Constant(u32),
    Number(f64),
    Local(u8),
    Upvalue(u8),
    Global(u32),
    Indexed { table: u8, key: Operand },
    // A comparison: the jump is taken if it is true.
    Jump(i32),
    // The result of an instruction whose target is not set yet.
    Open(usize),
    Register(u8),
    Call(usize),
    Varargs(usize),
}

/// An expression that has been read. Jumps of two lists leave it when it is known to be true or
/// false.
#[derive(Clone, Copy)]
struct Expression {
    kind: Kind,
    on_true: i32,
    on_false: i32,
}

/// A function that is being compiled.
#[derive(Default)]
struct Function {
    prototype: Prototype,
    /// The constants that there are already, by type and bits.
    constants: HashMap<(u8, u64), u32>,
    /// The local variables in scope, by their place in `prototype.locals`. Each has the register of
    /// its place in this list.
    active: Vec<usize>,
    /// How many of `prototype.locals` have been in scope. The others are declared only.
    activated: usize,
    blocks: Vec<Block>,
    upvalues: Vec<Capture>,
    /// The first register that is free.
    free: u8,
    /// Jumps to the next instruction.
    pending: i32,
    last_target: usize,
}

struct Block {
    /// The jumps of `break` in it.
    breaks: i32,
    /// How many variables were in scope when it began.
    active: usize,
    has_upvalues: bool,
    is_loop: bool,
}

struct Compiler<'a> {
    lexer: Lexer<'a>,
    prototypes: &'a mut Arena<Prototype>,
    function: Function,
    /// The functions around it, from outside to inside.
    enclosing: Vec<Function>,
    levels: u32,
    /// Up to which level there is room on the native stack, and whether there was not enough.
    room: u32,
    is_too_deep: bool,
    /// What the source is called.
    name: StringId,
}

/// What is compiled.
#[derive(Clone, Copy)]
pub struct Source<'a> {
    pub text: &'a [u8],
    /// What errors call it: see [`source_name`].
    pub name: &'a [u8],
    /// How many of the allowed levels are used up already, because in Lua the parser and the machine share them.
    pub levels: u32,
}

/// Compiles a source. `ask` is asked now and then whether to go on. If not, the reason is the error.
pub fn compile(
    heap: &mut Heap,
    prototypes: &mut Arena<Prototype>,
    source: Source,
    ask: &mut Ask,
) -> Result<Id<Prototype>, Error> {
    // For the text of a token, which may be all of the source.
    heap.check_room(source.text.len())?;
    match compile_here(heap, prototypes, source, LEVELS_HERE, ask) {
        Some(result) => result,
        None => compile_elsewhere(heap, prototypes, source, ask),
    }
}

/// None if there must be room for more levels on the native stack.
fn compile_here(
    heap: &mut Heap,
    prototypes: &mut Arena<Prototype>,
    source: Source,
    room: u32,
    ask: &mut Ask,
) -> Option<Result<Id<Prototype>, Error>> {
    let name = heap.add_string(source.name);
    let (lexer, levels) = (Lexer::new(heap, source.text, source.name, ask), source.levels);
    let (function, enclosing) = (Function::default(), Vec::new());
    let (room, is_too_deep) = (levels + room, false);
    let mut compiler =
        Compiler { lexer, prototypes, function, enclosing, levels, room, is_too_deep, name };
    let result = compiler.source();
    (!compiler.is_too_deep).then_some(result)
}

/// Compiles on the stack of another thread. That thread cannot ask, because whoever is to be asked stays in this one.
/// So it sends its question, and waits for the answer.
fn compile_elsewhere(
    heap: &mut Heap,
    prototypes: &mut Arena<Prototype>,
    source: Source,
    ask: &mut Ask,
) -> Result<Id<Prototype>, Error> {
    let (question, questions) = mpsc::channel();
    let (answer, answers) = mpsc::channel();
    thread::scope(|scope| {
        let builder = thread::Builder::new().stack_size(STACK);
        let running = builder.spawn_scoped(scope, move || {
            let mut ask = || {
                let _ = question.send(());
                answers.recv().unwrap_or(Ok(()))
            };
            compile_here(heap, prototypes, source, MAX_LEVELS, &mut ask)
        });
        // They end when that thread has ended.
        questions.iter().for_each(|()| drop(answer.send(ask())));
        running.ok().and_then(|running| running.join().ok().flatten())
    })
    .unwrap_or(Err(Error(Name::NotEnoughMemory.value())))
}

impl<'a> Compiler<'a> {
    fn source(&mut self) -> Result<Id<Prototype>, Error> {
        self.open_function(0);
        self.function.prototype.is_vararg = true;
        self.lexer.advance()?;
        self.chunk()?;
        self.expect(Token::EndOfSource)?;
        let function = self.close_function()?;
        Ok(self.add(function))
    }

    // Functions and scopes.

    fn open_function(&mut self, line: u32) {
        let mut function = Function { pending: NO_JUMP, ..Function::default() };
        function.prototype.line = line;
        function.prototype.registers = 2;
        function.prototype.source = source_name(self.lexer.name, 60);
        function.prototype.name = Some(self.name);
        self.enclosing.push(std::mem::replace(&mut self.function, function));
    }

    /// Goes back to the enclosing function.
    fn close_function(&mut self) -> Result<Function, Error> {
        self.remove_variables(0);
        self.emit_return(0, 1)?;
        let enclosing = self.enclosing.pop().unwrap_or_default();
        Ok(std::mem::replace(&mut self.function, enclosing))
    }

    fn add(&mut self, function: Function) -> Id<Prototype> {
        let mut prototype = function.prototype;
        prototype.captures = function.upvalues;
        // What is in it was counted when it came, because a function may be long before it ends.
        self.lexer.heap.bytes += size_of::<Prototype>() + prototype.source.len();
        self.prototypes.add(prototype)
    }

    /// Says that there is one thing too many in the function that begins in that line.
    fn over_limit(&mut self, line: u32, limit: usize, what: &str) -> Error {
        let message = match line {
            0 => format!("main function has more than {limit} {what}"),
            line => format!("function at line {line} has more than {limit} {what}"),
        };
        self.lexer.error(&message, None)
    }

    /// Declares a local variable. It is in scope from [`add_variables`](Self::add_variables) on.
    fn declare(&mut self, name: StringId) -> Result<(), Error> {
        let waiting = self.function.prototype.locals.len() - self.function.activated;
        if self.function.active.len() + waiting >= MAX_LOCALS {
            let line = self.function.prototype.line;
            return Err(self.over_limit(line, MAX_LOCALS, "local variables"));
        }
        self.function.prototype.locals.push(Local { name, begin: 0, end: 0 });
        self.lexer.heap.bytes += size_of::<Local>();
        Ok(())
    }

    /// Declares variables by names that the machine knows.
    fn declare_all(&mut self, names: &[&str]) -> Result<(), Error> {
        for name in names {
            let name = self.lexer.heap.add_string(name.as_bytes());
            self.declare(name)?;
        }
        Ok(())
    }

    /// The first variables that are declared and not yet in scope come into scope.
    fn add_variables(&mut self, count: usize) {
        let begin = self.here() as u32;
        let function = &mut self.function;
        for _ in 0..count {
            function.prototype.locals[function.activated].begin = begin;
            function.active.push(function.activated);
            function.activated += 1;
        }
    }

    /// Takes the variables from number `level` on out of scope.
    fn remove_variables(&mut self, level: usize) {
        let end = self.here() as u32;
        for local in self.function.active.drain(level..) {
            self.function.prototype.locals[local].end = end;
        }
    }

    fn enter_block(&mut self, is_loop: bool) {
        let active = self.function.active.len();
        self.function.blocks.push(Block { breaks: NO_JUMP, active, has_upvalues: false, is_loop });
    }

    fn leave_block(&mut self) -> Result<(), Error> {
        let Some(block) = self.function.blocks.pop() else { return Ok(()) };
        self.remove_variables(block.active);
        if block.has_upvalues {
            self.emit(Instruction::Close { first: block.active as u8 })?;
        }
        self.function.free = self.function.active.len() as u8;
        self.patch_to_here(block.breaks)
    }

    /// The variable of that name, from inside to outside.
    fn variable(&mut self, name: StringId) -> Result<Expression, Error> {
        let level = self.enclosing.len();
        let kind = match self.find_variable(name, level, true)? {
            Some(kind) => kind,
            None => Kind::Global(self.string_constant(name)?),
        };
        Ok(Expression::new(kind))
    }

    /// Looks for a variable in the function of that level, and in those around it. The whole
    /// script has level 1. The recursion ends because levels are limited.
    fn find_variable(
        &mut self,
        name: StringId,
        level: usize,
        is_own: bool,
    ) -> Result<Option<Kind>, Error> {
        if level == 0 {
            return Ok(None);
        }
        let variables = self.at_level(level).active.len();
        self.lexer.heap.charge(1 + variables / 16);
        let function = self.at_level(level);
        let named = |at: &usize| function.prototype.locals[*at].name == name;
        if let Some(register) = function.active.iter().rposition(named) {
            if !is_own {
                let mut blocks = function.blocks.iter_mut();
                if let Some(block) = blocks.rfind(|block| block.active <= register) {
                    block.has_upvalues = true;
                }
            }
            return Ok(Some(Kind::Local(register as u8)));
        }
        let capture = match self.find_variable(name, level - 1, false)? {
            Some(Kind::Local(register)) => Capture::Register(register),
            Some(Kind::Upvalue(upvalue)) => Capture::Upvalue(upvalue),
            _ => return Ok(None),
        };
        let function = self.at_level(level);
        if let Some(known) = function.upvalues.iter().position(|other| *other == capture) {
            return Ok(Some(Kind::Upvalue(known as u8)));
        }
        if function.upvalues.len() >= MAX_UPVALUES {
            let line = function.prototype.line;
            return Err(self.over_limit(line, MAX_UPVALUES, "upvalues"));
        }
        function.upvalues.push(capture);
        function.prototype.upvalue_names.push(name);
        Ok(Some(Kind::Upvalue(function.upvalues.len() as u8 - 1)))
    }

    fn at_level(&mut self, level: usize) -> &mut Function {
        // The first one in `enclosing` is empty: nothing is around the whole script.
        match self.enclosing.get_mut(level) {
            Some(function) => function,
            None => &mut self.function,
        }
    }

    /// Runs `rule` one level deeper.
    fn deeper<R>(&mut self, rule: impl FnOnce(&mut Self) -> Result<R, Error>) -> Result<R, Error> {
        self.levels += 1;
        if self.levels > MAX_LEVELS {
            return Err(self.lexer.error("chunk has too many syntax levels", None));
        }
        if self.levels > self.room {
            self.is_too_deep = true;
            return Err(Error(Value::Nil));
        }
        let result = rule(self);
        self.levels -= 1;
        result
    }

    // Tokens.

    /// Goes on if this is the token.
    fn accept(&mut self, token: Token) -> Result<bool, Error> {
        let is_it = self.lexer.token == token;
        if is_it {
            self.lexer.advance()?;
        }
        Ok(is_it)
    }

    fn check(&mut self, token: Token) -> Result<(), Error> {
        if self.lexer.token == token {
            return Ok(());
        }
        let text = self.lexer.text(token);
        Err(self.lexer.unexpected(&format!("'{}' expected", String::from_utf8_lossy(&text))))
    }

    fn expect(&mut self, token: Token) -> Result<(), Error> {
        self.check(token)?;
        self.lexer.advance()
    }

    /// Expects the token that closes what another one opened in that line.
    fn expect_match(&mut self, close: Token, open: Token, line: u32) -> Result<(), Error> {
        if self.lexer.token == close || self.lexer.line == line {
            return self.expect(close);
        }
        let (close, open) = (self.lexer.text(close), self.lexer.text(open));
        Err(self.lexer.unexpected(&format!(
            "'{}' expected (to close '{}' at line {line})",
            String::from_utf8_lossy(&close),
            String::from_utf8_lossy(&open)
        )))
    }

    fn expect_name(&mut self) -> Result<StringId, Error> {
        let Token::Name(name) = self.lexer.token else {
            return Err(self.lexer.unexpected("'<name>' expected"));
        };
        self.lexer.advance()?;
        Ok(name)
    }
}
