//! The machine: it runs the instructions of functions until the last one has returned.
//!
//! ```text
//! stack   │ … │ f │ a │ b │ · │ g │ x │ · │ · │ free …
//!               ↑   ↑           ↑   ↑
//!            slot  base      slot  base           f(a, b) has called g(x)
//!
//! frames  [ entry, f: pc 4, g: pc 0 ]
//! ```
//!
//! Each coroutine is a [`Thread`]: a stack of values, and a stack of frames, one for each function
//! that has begun and not returned. A call pushes a frame, a return pops one, and so the native
//! stack does not grow, however deep the script calls. That is also true of everything that runs
//! a function of the script in the middle of something: a metamethod, `pcall`, `sort` with a
//! comparison. Each frame says what its results are good for ([`Then`]), and a native that waits
//! has a frame of its own.
//!
//! [`Machine::execute`] is the loop: read the arms of `Move` to `SetTable`, `Jump` and `Call`, and guess the
//! others. They do only what is common and cannot fail. Whatever else
//! there is falls out of the `match` to [`slow`], and begins the outer loop anew. There
//! the loop looks at the machine again: which function runs, where its registers are. Only then
//! can the collector have run, and only then can the script be stopped.
//!
//! An error is a Rust `Err`, which leaves the loop. [`calls`] then drops frames down
//! to the next `pcall`.
//!
//! **How Redis does it**: Lua 5.1's machine runs Lua functions in one loop too, but each metamethod
//! and each `pcall` starts a new loop on the native stack. The limits that follow from that are
//! visible, 200 such levels, and no `yield` across them. So they are kept here.

mod calls;
mod names;
mod slow;

pub use self::slow::Compared;

use super::code::{Instruction, Operand, Place, Prototype};
use super::compiler::{self, Source};
use super::heap::{Arena, BUDGET, Function, Heap, Id, Upvalue};
use super::lexer::Ask;
use super::lib::{Host, Resume};
use super::metatable::Lookup;
use super::number;
use super::value::{Error, FunctionId, TableId, ThreadId, Value};

/// How many registers a function may use at most. Behind the base of each running function the
/// stack has that many slots, so the number of a register, which is a byte, needs no check.
const WINDOW: usize = 256;
/// A stack that has grown to more slots than this is not kept for the next script.
const KEPT_STACK: usize = 1 << 16;

/// A coroutine, or the script itself.
#[derive(Default)]
pub struct Thread {
    pub stack: Vec<Value>,
    /// The end of the values in use, where their number is not known before: arguments, results.
    pub top: usize,
    pub frames: Vec<Frame>,
    /// The natives that wait for a function of the script, one for each frame of that kind.
    states: Vec<Box<dyn Resume>>,
    /// Local variables on the stack that closures use, in the order of their slots.
    pub open: Vec<(usize, Id<Upvalue>)>,
    /// How many frames are such that Lua would be in a new loop on the native stack.
    levels: u32,
    /// The same of those that wait for this coroutine.
    outer_levels: u32,
    pub status: Status,
}

#[derive(Clone, Copy, PartialEq, Debug, Default)]
pub enum Status {
    #[default]
    Suspended,
    Running,
    /// It has resumed another one.
    Normal,
    Dead,
}

#[derive(Clone, Copy, Debug)]
pub struct Frame {
    kind: Kind,
    then: Then,
    function: FunctionId,
    prototype: Id<Prototype>,
    /// Where the function stands, and its results will.
    slot: usize,
    base: usize,
    /// The next instruction.
    pc: u32,
    /// How many functions have ended in a tail call that led to this one.
    tail_calls: u32,
}

#[derive(Clone, Copy, PartialEq, Debug)]
enum Kind {
    Lua,
    // A native that waits for a function. It had that many arguments.
    Native(u32),
    // `pcall`, or `xpcall` with its handler in the slot behind.
    Protected { has_handler: bool },
    // The handler of `xpcall` runs. It counts as that many levels.
    Handling { weight: u32 },
    // `coroutine.resume`, or the function that `coroutine.wrap` has made.
    Resuming { is_wrap: bool },
    Yielding,
    // The first frame of a coroutine.
    Body,
    // The first frame of a script. Behind it, the caller of the machine goes on.
    Entry,
}

/// What the results of a function are good for.
#[derive(Clone, Copy, PartialEq, Debug)]
enum Then {
    /// They go to the slot: one less than the number, or all if it is 0.
    Results(u8),
    /// The same, for the iterator of a `for`.
    Iterate(u8),
    /// The first one goes to this register of the caller.
    Store(u8),
    /// The next instruction, a jump, is left out if the first one is not this.
    Compare(bool),
    /// The first one takes the place of the last two operands of a `..` that end before this register, and the `..`
    /// goes on.
    Concat(u8),
    /// Nobody wants them.
    Drop,
    /// The native whose frame is below takes them.
    Native,
}

pub struct Machine {
    pub heap: Heap,
    pub prototypes: Arena<Prototype>,
    /// The coroutine that runs. Its slot in the heap is empty meanwhile.
    pub thread: Thread,
    pub running: ThreadId,
    /// The coroutines that have resumed one another, from outside to inside.
    pub resumers: Vec<ThreadId>,
    pub globals: TableId,
    /// Values that live as long as the machine, for those who embed it.
    pub roots: Vec<Value>,
    /// Where the results are that the native below waits for, and how many.
    delivered: (usize, usize),
    /// Where a `..` goes on that a metamethod has interrupted.
    concat_from: Option<u8>,
    /// The host has stopped the script: no `pcall` holds the error.
    pub is_stopped: bool,
    /// More than the limit was in use after the last collection.
    pub is_over_limit: bool,
    /// If there is an error now, it comes from a level for which there is no frame yet.
    has_extra_level: bool,
    /// No handler is to be called for the error that is on its way.
    has_no_handler: bool,
    /// Where the error happened that has ended the last run, if one has: the function, and its line; or none, if a
    /// native had called the native that failed.
    failed_at: Option<Option<(Id<Prototype>, u32)>>,
    /// What `math.random` goes on from.
    pub random: u64,
    /// What the script has set in `cjson`. The natives of that library keep it alive.
    pub json_settings: TableId,
}

impl Machine {
    /// A machine with all libraries. `limit`: how many bytes a script may hold.
    pub fn new(limit: usize) -> Machine {
        let mut heap = Heap::new(limit);
        let running = heap.threads.add(Thread::default());
        let (globals, json_settings) = (heap.add_table(), heap.add_table());
        let mut machine = Machine {
            heap,
            prototypes: Arena::new(),
            thread: Thread { status: Status::Running, ..Thread::default() },
            running,
            resumers: Vec::new(),
            globals,
            roots: Vec::new(),
            delivered: (0, 0),
            concat_from: None,
            is_stopped: false,
            is_over_limit: false,
            has_extra_level: false,
            has_no_handler: false,
            failed_at: None,
            random: 0,
            json_settings,
        };
        super::lib::open(&mut machine);
        machine
    }

    /// Compiles a source to a function without upvalues. See
    /// [`source_name`](super::code::source_name) for `name`. `ask` is asked now and then whether to go on. If not,
    /// [`is_stopped`](Self::is_stopped) is set.
    pub fn load(&mut self, source: &[u8], name: &[u8], ask: &mut Ask) -> Result<Value, Error> {
        let source = Source { text: source, name, levels: self.levels() };
        let Machine { heap, prototypes, is_stopped, .. } = self;
        let mut ask = || ask().inspect_err(|_| *is_stopped = true);
        let prototype = compiler::compile(heap, prototypes, source, &mut ask)?;
        let (globals, upvalues) = (self.globals, Box::default());
        Ok(Value::Function(self.heap.function(Function::Lua { prototype, upvalues, globals })))
    }

    /// Runs a function. What it returns stays on the stack until the next run: see
    /// [`results`](Self::results).
    pub fn run(
        &mut self,
        function: Value,
        arguments: &[Value],
        host: &mut dyn Host,
    ) -> Result<(), Error> {
        super::lib::begin(self);
        self.is_stopped = false;
        self.is_over_limit = false;
        self.heap.budget = BUDGET;
        self.thread.top = 0;
        if self.thread.stack.len() > KEPT_STACK {
            self.thread.stack = Vec::new();
        }
        self.push(function);
        arguments.iter().for_each(|argument| self.push(*argument));
        self.collect_if_due()?;
        self.push_frame(Kind::Entry, Then::Results(1), 0);
        let mut result = self.call(host, 0, Then::Native);
        loop {
            match result {
                Ok(()) => result = self.execute(host),
                Err(error) => result = self.unwind(error, host),
            }
            if self.thread.frames.is_empty() {
                if result.is_ok() {
                    self.failed_at = None;
                }
                return result;
            }
        }
    }

    /// What the last run has returned.
    pub fn results(&self) -> &[Value] {
        let (first, count) = self.delivered;
        &self.thread.stack[first..first + count]
    }

    /// Runs until the frame of the entry is at the top, and takes it away.
    ///
    /// Long because it is the loop: one arm for each instruction that is common.
    fn execute(&mut self, host: &mut dyn Host) -> Result<(), Error> {
        'frame: loop {
            let Machine { heap, prototypes, thread, .. } = self;
            let Some(frame) = thread.frames.last_mut() else { return Ok(()) };
            if !spend(&mut heap.budget) {
                self.interrupt(host)?;
                continue 'frame;
            }
            if frame.kind != Kind::Lua {
                self.go_on(host)?;
                continue 'frame;
            }
            let Prototype { code, constants, .. } = &prototypes[frame.prototype];
            let (below, registers) = thread.stack.split_at_mut(frame.base);
            let Some(registers) = registers.first_chunk_mut::<WINDOW>() else {
                unreachable!("there is a window behind the base");
            };
            let mut pc = frame.pc as usize;
            let instruction = loop {
                let instruction = code[pc];
                pc += 1;
                match instruction {
                    Instruction::Move { to, from } => {
                        registers[to as usize] = registers[from as usize];
                        continue;
                    }
                    Instruction::LoadConstant { to, constant } => {
                        registers[to as usize] = constants[constant as usize];
                        continue;
                    }
                    Instruction::LoadBoolean { to, value, skip } => {
                        registers[to as usize] = Value::Boolean(value);
                        pc += usize::from(skip);
                        continue;
                    }
                    Instruction::LoadNil { first, last } => {
                        registers[first as usize..=last as usize].fill(Value::Nil);
                        continue;
                    }
                    Instruction::GetUpvalue { to, upvalue } => {
                        if let Function::Lua { upvalues, .. } = &heap.functions[frame.function] {
                            match heap.upvalues[upvalues[upvalue as usize]] {
                                Upvalue::Closed(value) => {
                                    registers[to as usize] = value;
                                    continue;
                                }
                                Upvalue::Open { thread, slot } if thread == self.running => {
                                    registers[to as usize] = below[slot as usize];
                                    continue;
                                }
                                Upvalue::Open { .. } => {}
                            }
                        }
                    }
                    Instruction::SetUpvalue { from, upvalue } => {
                        if let Function::Lua { upvalues, .. } = &heap.functions[frame.function] {
                            match &mut heap.upvalues[upvalues[upvalue as usize]] {
                                Upvalue::Closed(value) => {
                                    *value = registers[from as usize];
                                    continue;
                                }
                                Upvalue::Open { thread, slot } if *thread == self.running => {
                                    below[*slot as usize] = registers[from as usize];
                                    continue;
                                }
                                Upvalue::Open { .. } => {}
                            }
                        }
                    }
                    Instruction::GetGlobal { to, name } => {
                        if let Function::Lua { globals, .. } = &heap.functions[frame.function]
                            && let Value::String(string) = constants[name as usize]
                            && let hash = heap.strings[string].hash
                            && let value = heap.tables[*globals].get_text(string, hash)
                            && !value.is_nil()
                        {
                            registers[to as usize] = value;
                            continue;
                        }
                    }
                    Instruction::GetTable { to, table, key } => {
                        let object = registers[table as usize];
                        let key = operand(key, registers, constants);
                        if let Value::Table(table) = object {
                            let table = &heap.tables[table];
                            let value = table.get(key, &heap.strings);
                            if !value.is_nil() || table.meta.is_none() {
                                registers[to as usize] = value;
                                continue;
                            }
                        }
                    }
                    Instruction::SetTable { table, key, value } => {
                        if let Value::Table(table) = registers[table as usize] {
                            let key = operand(key, registers, constants);
                            let value = operand(value, registers, constants);
                            let table = &mut heap.tables[table];
                            let has_meta = table.meta.is_some();
                            if !table.readonly
                                && let Some(place) = table.place(key, &heap.strings)
                                && !(has_meta && place.is_nil())
                            {
                                *place = *value;
                                table.absent = 0;
                                continue;
                            }
                        }
                    }
                    Instruction::GetMethod { to, object, name } => {
                        let value = registers[object as usize];
                        let name = *operand(name, registers, constants);
                        if let Lookup::Found(method) = heap.lookup(value, name) {
                            registers[to as usize + 1] = value;
                            registers[to as usize] = method;
                            continue;
                        }
                    }
                    Instruction::Add { to, left, right } => {
                        if let Some((left, right)) = numbers(left, right, registers, constants) {
                            registers[to as usize] = Value::Number(left + right);
                            continue;
                        }
                    }
                    Instruction::Sub { to, left, right } => {
                        if let Some((left, right)) = numbers(left, right, registers, constants) {
                            registers[to as usize] = Value::Number(left - right);
                            continue;
                        }
                    }
                    Instruction::Mul { to, left, right } => {
                        if let Some((left, right)) = numbers(left, right, registers, constants) {
                            registers[to as usize] = Value::Number(left * right);
                            continue;
                        }
                    }
                    Instruction::Div { to, left, right } => {
                        if let Some((left, right)) = numbers(left, right, registers, constants) {
                            registers[to as usize] = Value::Number(left / right);
                            continue;
                        }
                    }
                    Instruction::Mod { to, left, right } => {
                        if let Some((left, right)) = numbers(left, right, registers, constants) {
                            registers[to as usize] = Value::Number(number::modulo(left, right));
                            continue;
                        }
                    }
                    Instruction::Negate { to, from } => {
                        if let Value::Number(number) = registers[from as usize] {
                            registers[to as usize] = Value::Number(-number);
                            continue;
                        }
                    }
                    Instruction::Not { to, from } => {
                        let is_true = registers[from as usize].is_true();
                        registers[to as usize] = Value::Boolean(!is_true);
                        continue;
                    }
                    Instruction::Length { to, from } => {
                        let length = match registers[from as usize] {
                            Value::Table(table) => heap.tables[table].border(),
                            Value::String(string) => Some(heap.bytes_of(string).len()),
                            _ => None,
                        };
                        if let Some(length) = length {
                            registers[to as usize] = Value::Number(length as f64);
                            continue;
                        }
                    }
                    Instruction::Jump { offset } => {
                        pc = target(pc, offset);
                        if offset >= 0 || spend(&mut heap.budget) {
                            continue;
                        }
                    }
                    Instruction::Equal { expected, left, right } => {
                        let left = operand(left, registers, constants);
                        let right = operand(right, registers, constants);
                        let is_equal = left == right;
                        if is_equal || !matches!((left, right), (Value::Table(_), Value::Table(_)))
                        {
                            pc += usize::from(is_equal != expected);
                            continue;
                        }
                    }
                    Instruction::Less { expected, left, right } => {
                        if let Some((left, right)) = numbers(left, right, registers, constants) {
                            pc += usize::from((left < right) != expected);
                            continue;
                        }
                    }
                    Instruction::LessOrEqual { expected, left, right } => {
                        if let Some((left, right)) = numbers(left, right, registers, constants) {
                            pc += usize::from((left <= right) != expected);
                            continue;
                        }
                    }
                    Instruction::Test { from, expected } => {
                        pc += usize::from(registers[from as usize].is_true() != expected);
                        continue;
                    }
                    Instruction::TestSet { to, from, expected } => {
                        let value = registers[from as usize];
                        if value.is_true() == expected {
                            registers[to as usize] = value;
                        } else {
                            pc += 1;
                        }
                        continue;
                    }
                    Instruction::Call { function, arguments, results } => {
                        frame.pc = pc as u32;
                        let slot = frame.base + function as usize;
                        if arguments > 0 {
                            thread.top = slot + arguments as usize;
                        }
                        let then = Then::Results(results);
                        if let Value::Function(id) = registers[function as usize]
                            && let Function::Lua { prototype, .. } = heap.functions[id]
                        {
                            self.enter(id, prototype, slot, then)?;
                        } else {
                            self.call(host, slot, then)?;
                        }
                        continue 'frame;
                    }
                    Instruction::Return { first, count } => {
                        if count == 2 && frame.then == Then::Results(2) && thread.open.is_empty() {
                            let (value, slot) = (registers[first as usize], frame.slot);
                            thread.stack[slot] = value;
                            thread.frames.pop();
                            continue 'frame;
                        }
                        let first = frame.base + first as usize;
                        let count = match count {
                            0 => thread.top - first,
                            count => count as usize - 1,
                        };
                        self.leave(first, count);
                        continue 'frame;
                    }
                    Instruction::ForLoop { base, offset } => {
                        let registers = &mut registers[base as usize..];
                        if let [
                            Value::Number(index),
                            Value::Number(limit),
                            Value::Number(step),
                            variable,
                            ..,
                        ] = registers
                        {
                            *index += *step;
                            if if *step > 0.0 { *index <= *limit } else { *limit <= *index } {
                                *variable = Value::Number(*index);
                                pc = target(pc, offset);
                            }
                            if spend(&mut heap.budget) {
                                continue;
                            }
                        }
                    }
                    Instruction::ForCall { base, variables } => {
                        frame.pc = pc as u32;
                        let slot = frame.base + base as usize;
                        for register in base as usize..base as usize + 3 {
                            registers[register + 3] = registers[register];
                        }
                        thread.top = slot + 6;
                        self.call(host, slot + 3, Then::Iterate(variables + 1))?;
                        continue 'frame;
                    }
                    Instruction::ForTest { base, offset } => {
                        let base = base as usize;
                        if !registers[base + 3].is_nil() {
                            registers[base + 2] = registers[base + 3];
                            pc = target(pc, offset);
                        }
                        if spend(&mut heap.budget) {
                            continue;
                        }
                    }
                    _ => {}
                }
                break instruction;
            };
            frame.pc = pc as u32;
            self.slow(instruction, host)?;
            self.collect_if_due()?;
        }
    }

    // The stack.

    pub fn stack(&self, slot: usize) -> Value {
        self.thread.stack[slot]
    }

    /// Puts a value on top. Natives push at most 8,000, so this is not how memory ends.
    pub fn push(&mut self, value: Value) {
        let top = self.thread.top;
        if top >= self.thread.stack.len() {
            self.grow_stack(top + 1);
        }
        self.thread.stack[top] = value;
        self.thread.top = top + 1;
    }

    /// Takes away the value that was pushed last.
    pub fn pop(&mut self) -> Value {
        self.thread.top -= 1;
        self.thread.stack[self.thread.top]
    }

    /// Makes sure that the stack has that many slots.
    #[inline]
    fn reserve(&mut self, slots: usize) -> Result<(), Error> {
        if slots > self.thread.stack.len() {
            self.heap.check_room(slots * size_of::<Value>())?;
            self.grow_stack(slots);
        }
        Ok(())
    }

    #[cold]
    fn grow_stack(&mut self, slots: usize) {
        let before = self.thread.stack.len();
        self.thread.stack.resize(slots.max(before * 2).max(64), Value::Nil);
        self.heap.bytes += (self.thread.stack.len() - before) * size_of::<Value>();
    }

    fn push_frame(&mut self, kind: Kind, then: Then, slot: usize) {
        let frame = Frame {
            kind,
            then,
            function: Id::new(0),
            prototype: Id::new(0),
            slot,
            base: slot + 1,
            pc: 0,
            tail_calls: 0,
        };
        self.thread.levels += u32::from(then.is_new_level());
        self.thread.frames.push(frame);
    }
}

impl Thread {
    /// A coroutine that has not begun.
    pub fn of(function: Value) -> Thread {
        Thread { stack: vec![function], top: 1, ..Thread::default() }
    }

    pub fn size(&self) -> usize {
        let states: usize = self.states.iter().map(|state| state.size()).sum();
        size_of::<Thread>() + size_of_val(&self.stack[..]) + size_of_val(&self.frames[..]) + states
    }

    /// How many slots of the stack are in use.
    pub fn used(&self, prototypes: &Arena<Prototype>) -> usize {
        let registers = self.frames.last().map_or(0, |frame| match frame.kind {
            Kind::Lua => frame.base + prototypes[frame.prototype].registers as usize,
            _ => frame.slot + 1,
        });
        registers.max(self.top)
    }
}

impl Then {
    /// Whether Lua would be in a new loop on the native stack.
    fn is_new_level(self) -> bool {
        !matches!(self, Then::Results(_))
    }
}

#[inline]
fn operand<'a>(
    operand: Operand,
    registers: &'a [Value; WINDOW],
    constants: &'a [Value],
) -> &'a Value {
    match operand.place() {
        Place::Register(register) => &registers[register as usize],
        Place::Constant(constant) => &constants[constant],
    }
}

#[inline]
fn numbers(
    left: Operand,
    right: Operand,
    registers: &[Value; WINDOW],
    constants: &[Value],
) -> Option<(f64, f64)> {
    match (operand(left, registers, constants), operand(right, registers, constants)) {
        (Value::Number(left), Value::Number(right)) => Some((*left, *right)),
        _ => None,
    }
}

#[inline]
fn target(pc: usize, offset: i32) -> usize {
    pc.wrapping_add_signed(offset as isize)
}

/// Counts a loop or call. Says whether the script may simply go on.
#[inline]
fn spend(budget: &mut u32) -> bool {
    *budget = budget.wrapping_sub(1);
    *budget != 0
}
