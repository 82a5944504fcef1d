//! The libraries: functions for scripts that are written in Rust. They are called *natives*.
//!
//! A native gets a [`Call`]: its arguments, the machine with its heap, and the [`Host`]. It pushes
//! results, and returns how many it has pushed:
//!
//! ```text
//! fn rep(call: &mut Call) -> Result<Outcome, Error> {
//!     let text = call.string(1)?;                       // or: bad argument #1 to 'rep' (…)
//!     let times = call.integer(2)?.max(0) as usize;
//!     let length = call.bytes(text).len();
//!     call.check_room(length.saturating_mul(times))?;   // or: not enough memory
//!     let result = call.bytes(text).repeat(times);
//!     call.give_string(&result)                         // one result
//! }
//! ```
//!
//! Arguments are counted from 1, as in error messages. An error is made by `call.error(text)`,
//! which adds the position of the caller, or by `call.bad_argument(1, text)`.
//!
//! The collector never runs inside a native, so a native may hold any value in its variables.
//!
//! A native cannot call a function of the script and wait for it. It returns
//! `Ok(Outcome::Then(n, state))`: the last n + 1 values that it pushed are a function and n
//! arguments. When the function has returned, the machine calls `state.resume`, with a call that
//! has the same arguments, and also the results. So `sort` asks its comparison, and `tostring`
//! calls `__tostring`. Meanwhile the collector may run, and it does not look into the state.
//! So values that are still needed must be arguments or upvalues of the native: see
//! [`Call::set_arg`].
//!
//! Natives never call the machine, so the native stack does not grow with the script, and a script
//! can fail anywhere. A native that can run long asks in its loop whether it may go on:
//! [`Call::tick`]. One that does much at once, or in each round, counts that: [`Call::charge`]. What the heap does is
//! counted there, so a native that only makes strings, or asks for the arguments that it looks at, need not do it.
//!
//! A library is a list of names and natives, and [`Machine::library`] makes a table of it.
//!
//! **How Redis does it**: in Lua, a native calls functions of the script by `lua_call`, a new loop
//! of the machine on top of the old one, up to 200 times.

pub mod base;
pub mod bit;
pub mod cjson;
pub mod cmsgpack;
pub mod coroutine;
pub mod math;
pub mod os;
pub mod redis;
pub mod reply;
pub mod sandbox;
pub mod string;
pub mod r#struct;
pub mod table;

use super::heap::Function;
use super::machine::Machine;
use super::number;
use super::value::{Error, StringId, TableId, ThreadId, Value};
use std::borrow::Cow;
use std::ops::Range;

pub type Native = fn(&mut Call) -> Result<Outcome, Error>;

/// What a native has done.
pub enum Outcome {
    // The last n values that it pushed are its results.
    Return(usize),
    // The last n + 1 values that it pushed are a function and n arguments. When that function has
    // returned, the state goes on.
    Then(usize, Box<dyn Resume>),
    // `pcall`: the first argument is to be called with the others. If there is a handler, it is
    // the first argument, and the function is the second one.
    Protect { has_handler: bool },
    // That coroutine, which is suspended, goes on with the last values that were pushed.
    Resume { thread: ThreadId, arguments: usize, is_wrap: bool },
    // The running coroutine waits. Its arguments go to whoever has resumed it.
    Yield,
}

/// A native in the middle of its work, while a function of the script runs for it.
pub trait Resume: Send {
    /// The function has returned: see [`Call::result`]. To call another one, give `self` back in
    /// [`Outcome::Then`].
    fn resume(self: Box<Self>, call: &mut Call) -> Result<Outcome, Error>;

    /// How many bytes it holds, if a script can make that many. The collector counts them.
    fn size(&self) -> usize {
        0
    }
}

/// The world outside of the script. It grows with the natives that need something of it.
pub trait Host {
    /// The machine asks now and then whether the script may go on. If not, this is the error, and
    /// no `pcall` holds it.
    fn interrupt(&mut self) -> Result<(), String>;

    /// Adds an argument to the next command. The first one is its name.
    fn argument(&mut self, bytes: &[u8]);

    /// Runs the command with the arguments that were added. If it fails, the script is to end, and this is why.
    fn call(&mut self) -> Result<Answer<'_>, String>;

    /// Whether the arguments that were collected name a command. Forgets them.
    fn is_command(&mut self) -> bool;

    /// Whether replies come in RESP3 from now on.
    fn set_resp3(&mut self, is_resp3: bool);

    /// Whether what is changed from now on is logged.
    fn set_logged(&mut self, is_logged: bool);

    /// Writes to the server's own log: 0 is for debugging, 3 is a warning.
    fn log(&mut self, level: u8, text: &[u8]);
}

/// What became of a command.
pub enum Answer<'a> {
    // Its reply, as it stands on the wire.
    Reply(Cow<'a, [u8]>),
    // It did not run. The text of the error begins with its code.
    Refused(Vec<u8>),
}

/// One call of a native.
pub struct Call<'a> {
    pub machine: &'a mut Machine,
    pub host: &'a mut dyn Host,
    /// Where in the stack the function stands. Its arguments follow.
    pub slot: usize,
    pub count: usize,
    /// Where the results of the function are that ran for it, and how many.
    pub results: (usize, usize),
}

/// Opens all libraries.
pub fn open(machine: &mut Machine) {
    base::open(machine);
    bit::open(machine);
    cjson::open(machine);
    cmsgpack::open(machine);
    coroutine::open(machine);
    math::open(machine);
    os::open(machine);
    string::open(machine);
    r#struct::open(machine);
    table::open(machine);
}

/// A script begins. What the last one has set in a library is forgotten.
pub fn begin(machine: &mut Machine) {
    cjson::begin(machine);
    math::begin(machine);
}

impl Call<'_> {
    /// An argument, or nil if it is not there.
    pub fn arg(&self, number: usize) -> Value {
        if self.is_given(number) { self.machine.stack(self.slot + number) } else { Value::Nil }
    }

    /// Puts a value where an argument is, so that the collector sees it while a function of the
    /// script runs.
    pub fn set_arg(&mut self, number: usize, value: Value) {
        self.machine.thread.stack[self.slot + number] = value;
    }

    /// Whether that many values can be pushed. Lua allows 8,000.
    pub fn has_room_on_stack(&self, values: usize) -> bool {
        values + self.count <= 8000
    }

    pub fn is_given(&self, number: usize) -> bool {
        number <= self.count
    }

    /// An argument that must be there, though it may be nil.
    pub fn any(&mut self, number: usize) -> Result<Value, Error> {
        if !self.is_given(number) {
            return Err(self.bad_argument(number, "value expected"));
        }
        Ok(self.arg(number))
    }

    /// A string. Numbers are converted. That it is looked at is counted.
    pub fn string(&mut self, number: usize) -> Result<StringId, Error> {
        match self.arg(number) {
            Value::String(string) => {
                self.machine.heap.charge_bytes(self.bytes(string).len());
                Ok(string)
            }
            Value::Number(value) => self.machine.heap.string(&number::to_text(value)),
            _ => Err(self.wrong_type(number, "string")),
        }
    }

    pub fn bytes(&self, string: StringId) -> &[u8] {
        self.machine.heap.bytes_of(string)
    }

    /// A number. Strings that look like one are converted.
    pub fn number(&mut self, number: usize) -> Result<f64, Error> {
        match self.arg(number) {
            Value::Number(value) => Ok(value),
            value => {
                self.machine.heap.number_of(value).ok_or_else(|| self.wrong_type(number, "number"))
            }
        }
    }

    /// A number without what follows the point.
    pub fn integer(&mut self, number: usize) -> Result<i64, Error> {
        Ok(number::to_integer(self.number(number)?))
    }

    /// As [`integer`](Self::integer), but nil and nothing mean the default.
    pub fn integer_or(&mut self, number: usize, default: i64) -> Result<i64, Error> {
        if self.arg(number).is_nil() { Ok(default) } else { self.integer(number) }
    }

    pub fn table(&mut self, number: usize) -> Result<TableId, Error> {
        match self.arg(number) {
            Value::Table(table) => Ok(table),
            _ => Err(self.wrong_type(number, "table")),
        }
    }

    pub fn function(&mut self, number: usize) -> Result<Value, Error> {
        match self.arg(number) {
            function @ Value::Function(_) => Ok(function),
            _ => Err(self.wrong_type(number, "function")),
        }
    }

    /// What the native keeps between its calls.
    pub fn upvalue(&mut self, index: usize) -> &mut Value {
        let Value::Function(function) = self.machine.stack(self.slot) else {
            unreachable!("a native is a function");
        };
        match &mut self.machine.heap.functions[function] {
            Function::Native { upvalues, .. } => &mut upvalues[index],
            _ => unreachable!("a native is running"),
        }
    }

    /// A result of the function that ran for this native, from 0, or nil if it is not there.
    pub fn result(&self, index: usize) -> Value {
        let (first, count) = self.results;
        if index < count { self.machine.stack(first + index) } else { Value::Nil }
    }

    pub fn push(&mut self, value: Value) {
        self.machine.push(value);
    }

    /// Returns one value.
    pub fn give(&mut self, value: Value) -> Result<Outcome, Error> {
        self.push(value);
        Ok(Outcome::Return(1))
    }

    /// Returns a string.
    pub fn give_string(&mut self, bytes: &[u8]) -> Result<Outcome, Error> {
        let string = self.machine.heap.string(bytes)?;
        self.give(Value::String(string))
    }

    /// An empty buffer to make a string in. It may have memory already.
    pub fn buffer(&mut self) -> Vec<u8> {
        self.machine.heap.buffer()
    }

    /// Returns what is in a buffer as a string.
    pub fn give_buffer(&mut self, buffer: Vec<u8>) -> Result<Outcome, Error> {
        let string = self.machine.heap.string_of(buffer)?;
        self.give(Value::String(string))
    }

    pub fn give_number(&mut self, number: f64) -> Result<Outcome, Error> {
        self.give(Value::Number(number))
    }

    /// Sets a value in a table. Asks no metatable, but respects Redis's readonly flag.
    pub fn set(&mut self, table: TableId, key: Value, value: Value) -> Result<(), Error> {
        self.machine.raw_set(table, key, value)
    }

    /// An error, if that many bytes more would be too much memory.
    pub fn check_room(&self, bytes: usize) -> Result<(), Error> {
        self.machine.heap.check_room(bytes)
    }

    /// Adds bytes to a buffer whose string will be made later. That is counted, and it is an error if the buffer
    /// becomes too much memory.
    pub fn append(
        &mut self,
        buffer: &mut Vec<u8>,
        string: StringId,
        range: Range<usize>,
    ) -> Result<(), Error> {
        self.machine.heap.charge_bytes(range.len());
        self.check_room(buffer.len() + range.len())?;
        buffer.extend_from_slice(&self.bytes(string)[range]);
        Ok(())
    }

    /// To be called in each round of a loop that a script can make long: the host may stop it.
    pub fn tick(&mut self) -> Result<(), Error> {
        self.machine.tick(self.host)
    }

    /// Counts work: see [`Heap::charge`](super::heap::Heap::charge).
    pub fn charge(&mut self, rounds: usize) {
        self.machine.heap.charge(rounds);
    }

    /// Counts that all places of a table are looked at, most of which may be empty.
    pub fn charge_table(&mut self, table: TableId) {
        self.charge(self.machine.heap.tables[table].places() / 32);
    }

    /// An error with the position of the caller.
    pub fn error(&mut self, text: impl AsRef<[u8]>) -> Error {
        self.machine.error(text.as_ref())
    }

    pub fn wrong_type(&mut self, number: usize, expected: &str) -> Error {
        let got = if self.is_given(number) { self.arg(number).type_name() } else { "no value" };
        self.bad_argument(number, &format!("{expected} expected, got {got}"))
    }

    pub fn bad_argument(&mut self, number: usize, text: &str) -> Error {
        self.bad_argument_bytes(number, text.as_bytes())
    }

    /// The same for a text with bytes of the script in it.
    pub fn bad_argument_bytes(&mut self, number: usize, text: &[u8]) -> Error {
        let (name, is_method) = self.machine.name_of_native();
        let what = match number.saturating_sub(usize::from(is_method)) {
            0 if is_method => format!("calling '{name}' on bad self ("),
            number => format!("bad argument #{number} to '{name}' ("),
        };
        self.error([what.as_bytes(), text, b")"].concat())
    }
}

impl Machine {
    /// Makes a global table of natives. If there is one of that name, adds to it. Their order is
    /// Redis's, because `pairs` shows it.
    pub fn library(&mut self, name: &str, natives: &[(&str, Native)]) -> TableId {
        let key = Value::String(self.heap.add_string(name.as_bytes()));
        let table = match self.heap.get(self.globals, key) {
            Value::Table(table) => table,
            _ => {
                let table = self.heap.add_table_for(natives.len());
                self.set_field(self.globals, name, Value::Table(table));
                table
            }
        };
        for (name, native) in natives {
            let native = self.heap.native(*native);
            self.set_field(table, name, native);
        }
        table
    }

    /// The value at a name in a table, or nil. Asks no metatable.
    pub fn field(&self, table: TableId, name: &str) -> Value {
        self.heap
            .find(name.as_bytes())
            .map_or(Value::Nil, |key| self.heap.get(table, Value::String(key)))
    }

    /// Gives a native its second name, which it had in Lua 5.0.
    pub fn alias(&mut self, library: TableId, name: &str, old: &str) {
        let name = Value::String(self.heap.add_string(name.as_bytes()));
        let native = self.heap.get(library, name);
        self.set_field(library, old, native);
    }

    /// Sets a field of a table that the machine itself makes.
    pub fn set_field(&mut self, table: TableId, name: &str, value: Value) {
        let key = Value::String(self.heap.add_string(name.as_bytes()));
        // A string as key has no fault.
        let _ = self.heap.set(table, key, value);
    }
}
