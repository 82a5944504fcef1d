//! The collector: marks what the script can still reach, and empties all other slots.
//!
//! ```text
//! roots     stacks, globals, what the embedder keeps
//!             │ mark
//!             ▼
//! marked    [ t │ u ]  grey: what they lead to was not looked at yet. A vector
//!             │ take u, mark what it leads to, and so on until nothing is grey
//!             ▼
//! sweep     all slots without a mark are emptied, and the marks are taken away
//! ```
//!
//! There is no recursion, because a script can make a list of a million tables.
//!
//! A table may be weak, by `__mode`: what only it leads to dies, and vanishes from it.
//!
//! It runs only between two instructions, behind a native, and between two scripts. There nothing is
//! on its way from one place to another.
//!
//! **How Redis does it**: Lua collects in small steps between which the script goes on. That needs
//! a third state of things and a barrier at each change of a table. Here it is one pause.

use super::code::Prototype;
use super::heap::{Arena, Function, Heap, Id, Upvalue};
use super::machine::{Machine, Thread};
use super::metatable::{NAMES, Name};
use super::table::Table;
use super::value::{Error, TableId, ThreadId, Value};

/// No collection begins below this many bytes.
pub const MIN_THRESHOLD: usize = 1 << 20;

impl Machine {
    /// Collects if enough has been made since the last time.
    #[inline]
    pub fn collect_if_due(&mut self) -> Result<(), Error> {
        if self.heap.bytes < self.heap.threshold {
            return Ok(());
        }
        self.collect();
        let was_over =
            std::mem::replace(&mut self.is_over_limit, self.heap.bytes > self.heap.limit);
        if !self.is_over_limit {
            return Ok(());
        }
        // `pcall` may hold this error, and what was made may become garbage. If it has not by the next collection,
        // the script ends.
        self.is_stopped = was_over;
        Err(Error(Name::NotEnoughMemory.value()))
    }

    pub fn collect(&mut self) {
        let Machine { heap, prototypes, thread, .. } = self;
        let marking = Marking { heap, prototypes, grey: Vec::new(), weak: Vec::new(), bytes: 0 };
        let mut marking = marking;
        for name in 0..NAMES.len() {
            marking.mark(Value::String(Id::new(name)));
        }
        marking.mark(Value::Table(self.globals));
        if let Some(meta) = marking.heap.string_meta {
            marking.mark(Value::Table(meta));
        }
        self.roots.iter().for_each(|root| marking.mark(*root));
        marking.thread(thread);
        marking.mark(Value::Thread(self.running));
        self.resumers.iter().for_each(|thread| marking.mark(Value::Thread(*thread)));
        marking.all();
        marking.clear_weak();
        let bytes = marking.bytes;
        self.heap.peak = self.heap.peak.max(self.heap.bytes);
        self.heap.sweep_strings();
        self.heap.tables.sweep();
        self.heap.functions.sweep();
        self.heap.upvalues.sweep();
        self.heap.threads.sweep();
        self.prototypes.sweep();
        self.heap.bytes = bytes;
        self.heap.threshold = bytes.saturating_add(bytes.min(self.heap.limit)).max(MIN_THRESHOLD);
    }
}

struct Marking<'a> {
    heap: &'a mut Heap,
    prototypes: &'a mut Arena<Prototype>,
    /// Marked, but what they lead to is not.
    grey: Vec<Value>,
    /// Weak tables that were found.
    weak: Vec<(TableId, Weak)>,
    bytes: usize,
}

#[derive(Clone, Copy)]
struct Weak {
    keys: bool,
    values: bool,
}

impl Marking<'_> {
    fn mark(&mut self, value: Value) {
        let is_new = match value {
            Value::String(string) => {
                if self.heap.strings.mark(string) {
                    self.bytes += self.heap.strings[string].size();
                }
                false
            }
            Value::Table(table) => self.heap.tables.mark(table),
            Value::Function(function) => self.heap.functions.mark(function),
            Value::Thread(thread) => self.heap.threads.mark(thread),
            Value::Nil | Value::Boolean(_) | Value::Number(_) | Value::Null => false,
        };
        if is_new {
            self.grey.push(value);
        }
    }

    fn all(&mut self) {
        while let Some(value) = self.grey.pop() {
            match value {
                Value::Table(table) => self.table(table),
                Value::Function(id) => {
                    let function = std::mem::take(&mut self.heap.functions[id]);
                    self.function(&function);
                    self.heap.functions[id] = function;
                }
                Value::Thread(id) => self.thread_of(id),
                _ => {}
            }
        }
    }

    fn table(&mut self, id: TableId) {
        let mut table = std::mem::take(&mut self.heap.tables[id]);
        self.bytes += table.size();
        let mut weak = Weak { keys: false, values: false };
        if let Some(meta) = table.meta {
            self.mark(Value::Table(meta));
            // A table may be its own metatable.
            let mode = match meta == id {
                true => table.get(&Name::Mode.value(), &self.heap.strings),
                false => self.heap.get(meta, Name::Mode.value()),
            };
            if let Value::String(mode) = mode {
                let mode = self.heap.bytes_of(mode);
                weak = Weak { keys: mode.contains(&b'k'), values: mode.contains(&b'v') };
            }
        }
        if weak.keys || weak.values {
            self.weak.push((id, weak));
        }
        if !weak.values {
            table.array().iter().for_each(|value| self.mark(*value));
        }
        for (key, value) in table.pairs() {
            if !weak.keys {
                self.mark(key);
            }
            if !weak.values {
                self.mark(*value);
            }
        }
        self.heap.tables[id] = table;
    }

    fn function(&mut self, function: &Function) {
        self.bytes += function.size();
        match function {
            Function::Lua { prototype, upvalues, globals } => {
                self.mark(Value::Table(*globals));
                self.prototype(*prototype);
                for upvalue in upvalues {
                    if self.heap.upvalues.mark(*upvalue) {
                        self.bytes += size_of::<Upvalue>();
                        self.mark(match self.heap.upvalues[*upvalue] {
                            Upvalue::Closed(value) => value,
                            // It lies on the stack of a coroutine, which perhaps nothing else leads to.
                            Upvalue::Open { thread, .. } => Value::Thread(thread),
                        });
                    }
                }
            }
            Function::Native { upvalues, .. } => {
                upvalues.iter().for_each(|value| self.mark(*value));
            }
            Function::Free => {}
        }
    }

    /// Functions in functions are not deep: the parser has a limit.
    fn prototype(&mut self, id: Id<Prototype>) {
        if !self.prototypes.mark(id) {
            return;
        }
        let prototype = std::mem::take(&mut self.prototypes[id]);
        self.bytes += prototype.size();
        prototype.constants.iter().for_each(|value| self.mark(*value));
        let locals = prototype.locals.iter().map(|local| local.name);
        let names = prototype.upvalue_names.iter().copied().chain(prototype.name);
        for name in locals.chain(names) {
            self.mark(Value::String(name));
        }
        prototype.prototypes.iter().for_each(|inner| self.prototype(*inner));
        self.prototypes[id] = prototype;
    }

    fn thread_of(&mut self, id: ThreadId) {
        let thread = std::mem::take(&mut self.heap.threads[id]);
        self.thread(&thread);
        self.heap.threads[id] = thread;
    }

    fn thread(&mut self, thread: &Thread) {
        self.bytes += thread.size();
        let used = thread.used(self.prototypes).min(thread.stack.len());
        thread.stack[..used].iter().for_each(|value| self.mark(*value));
        for (_, upvalue) in &thread.open {
            self.heap.upvalues.mark(*upvalue);
        }
    }

    /// Takes what has died out of weak tables.
    fn clear_weak(&mut self) {
        let is_dead = |value: &Value, heap: &Heap| match *value {
            Value::Table(table) => !heap.tables.is_marked(table),
            Value::Function(function) => !heap.functions.is_marked(function),
            Value::Thread(thread) => !heap.threads.is_marked(thread),
            _ => false,
        };
        for (id, weak) in std::mem::take(&mut self.weak) {
            let mut table: Table = std::mem::take(&mut self.heap.tables[id]);
            if weak.values {
                for value in table.array() {
                    if is_dead(value, self.heap) {
                        *value = Value::Nil;
                    }
                }
            }
            let mut strings = Vec::new();
            for (key, value) in table.pairs() {
                if is_dead(&key, self.heap) || is_dead(value, self.heap) {
                    *value = Value::Nil;
                } else {
                    strings.extend([key, *value]);
                }
            }
            strings.extend(table.array().iter().copied());
            self.heap.tables[id] = table;
            // Strings are values, and never die in a weak table.
            strings.retain(|value| matches!(value, Value::String(_)));
            strings.into_iter().for_each(|string| self.mark(string));
        }
    }
}
