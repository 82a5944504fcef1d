//! Where all strings, tables, functions and coroutines live, and how they die.
//!
//! An [`Arena`] is a vector of slots for things of one kind, and an [`Id`] is the number of a slot.
//! A free slot is used again:
//!
//! ```text
//! t = {} ; u = {t} ; t = nil ; u = nil       and a collection
//!
//! tables   [ … │ {} │ {·} │ … ]     ──▶     [ … │ free │ free │ … ]
//!                ↑────┘ by its id
//! ```
//!
//! Nothing in the heap owns another thing of the heap: it knows only its id. So to throw something away
//! is to empty its slot.
//!
//! Each string is here once. [`Heap::string`] looks for an equal one first, by its hash.
//!
//! Memory is counted when something is made or grows. When the count passes `threshold`, the
//! machine calls the [collector](super::collect) between two instructions, and at no other time.
//! This makes natives simple: what a native makes cannot vanish before the native returns. The
//! price is that one native can make much garbage. So a script has a limit, and for a moment twice as much:
//!
//! - After a collection more than `limit` is in use: the script gets the error `not enough memory`. If that
//!   is so after the next collection too, no `pcall` holds the error.
//! - Something is to be made that would bring the count above twice the limit: the same error.
//!
//! Work is counted too, by whoever does it: a round of a loop is 1, and so are 64 bytes of a string. It is taken from
//! [`Heap::budget`]. When that is spent, the machine or the compiler asks the host whether to go on.
//!
//! **How Redis does it**: Lua keeps all objects in one linked list, counts bytes in its allocator
//! and collects in small steps, so that a pause is short. Here a collection is one pause, which is
//! short because a script's heap is small, and it comes only when as much has been made as was
//! alive. Redis has no limit for the memory of a script.

use super::code::Prototype;
use super::collect::MIN_THRESHOLD;
use super::lib::Native;
use super::machine::Thread;
use super::metatable::{self, Name};
use super::number;
use super::table::{Fault, Table};
use super::value::{Error, FunctionId, StringId, TableId, Value};
use std::marker::PhantomData;
use std::ops::{Index, IndexMut, Range};

/// Marks the end of a chain of strings with the same bucket.
const NONE: u32 = u32::MAX;
/// A buffer that has grown to more bytes than this is not used again.
const KEPT_BUFFER: usize = 1 << 16;
/// How much work may be done before the host is asked whether the script may go on.
pub const BUDGET: u32 = 20_000;

/// The number of a slot in the arena of `T`.
pub struct Id<T>(u32, PhantomData<fn() -> T>);

impl<T> Id<T> {
    pub fn new(index: usize) -> Id<T> {
        Id(index as u32, PhantomData)
    }

    pub fn index(self) -> usize {
        self.0 as usize
    }
}

impl<T> Clone for Id<T> {
    fn clone(&self) -> Id<T> {
        *self
    }
}

impl<T> Copy for Id<T> {}

impl<T> PartialEq for Id<T> {
    fn eq(&self, other: &Id<T>) -> bool {
        self.0 == other.0
    }
}

impl<T> std::fmt::Debug for Id<T> {
    fn fmt(&self, out: &mut std::fmt::Formatter) -> std::fmt::Result {
        write!(out, "{}", self.0)
    }
}

/// Slots for things of one kind. What is not marked when it is swept is emptied.
pub struct Arena<T> {
    items: Vec<T>,
    marks: Vec<bool>,
    free: Vec<u32>,
}

impl<T: Default> Arena<T> {
    pub fn new() -> Arena<T> {
        Arena { items: Vec::new(), marks: Vec::new(), free: Vec::new() }
    }

    pub fn add(&mut self, item: T) -> Id<T> {
        if let Some(index) = self.free.pop() {
            self.items[index as usize] = item;
            return Id::new(index as usize);
        }
        self.items.push(item);
        self.marks.push(false);
        Id::new(self.items.len() - 1)
    }

    /// Marks a thing, and says whether it was not marked yet.
    pub fn mark(&mut self, id: Id<T>) -> bool {
        !std::mem::replace(&mut self.marks[id.index()], true)
    }

    pub fn is_marked(&self, id: Id<T>) -> bool {
        self.marks[id.index()]
    }

    /// Empties all slots without a mark, and takes the marks away.
    pub fn sweep(&mut self) {
        self.free.clear();
        for (index, mark) in self.marks.iter_mut().enumerate().rev() {
            if !std::mem::take(mark) {
                self.items[index] = T::default();
                self.free.push(index as u32);
            }
        }
    }
}

impl<T> Index<Id<T>> for Arena<T> {
    type Output = T;

    #[inline]
    fn index(&self, id: Id<T>) -> &T {
        &self.items[id.0 as usize]
    }
}

impl<T> IndexMut<Id<T>> for Arena<T> {
    #[inline]
    fn index_mut(&mut self, id: Id<T>) -> &mut T {
        &mut self.items[id.0 as usize]
    }
}

/// A string. Its bytes never change.
#[derive(Default)]
pub struct Text {
    pub hash: u32,
    /// The next string in the same bucket.
    next: u32,
    pub bytes: Box<[u8]>,
}

impl Text {
    pub fn size(&self) -> usize {
        size_of::<Text>() + self.bytes.len()
    }
}

#[derive(Default)]
pub enum Function {
    Lua {
        prototype: Id<Prototype>,
        upvalues: Box<[Id<Upvalue>]>,
        /// Where it looks for globals.
        globals: TableId,
    },
    Native {
        run: Native,
        /// What the native keeps between its calls.
        upvalues: Box<[Value]>,
    },
    #[default]
    Free,
}

/// A local variable that an inner function uses. It lies on the stack of its coroutine while the
/// function that declared it runs, and here afterwards.
#[derive(Clone, Copy)]
pub enum Upvalue {
    Open { thread: Id<Thread>, slot: u32 },
    Closed(Value),
}

impl Default for Upvalue {
    fn default() -> Upvalue {
        Upvalue::Closed(Value::Nil)
    }
}

pub struct Heap {
    pub strings: Arena<Text>,
    pub tables: Arena<Table>,
    pub functions: Arena<Function>,
    pub upvalues: Arena<Upvalue>,
    pub threads: Arena<Thread>,
    /// The first string of each bucket. There is a power of two of them.
    buckets: Vec<u32>,
    string_count: usize,
    /// What all things take, about.
    pub bytes: usize,
    /// What they took before a collection, at most.
    pub peak: usize,
    /// The count at which the next collection is due.
    pub threshold: usize,
    /// What may be alive after a collection.
    pub limit: usize,
    /// How much work is left until the host is asked whether the script may go on.
    pub budget: u32,
    /// The metatable of all strings.
    pub string_meta: Option<TableId>,
    /// Where strings are made before they are looked for. It is empty.
    buffer: Vec<u8>,
}

impl Heap {
    pub fn new(limit: usize) -> Heap {
        let mut heap = Heap {
            strings: Arena::new(),
            tables: Arena::new(),
            functions: Arena::new(),
            upvalues: Arena::new(),
            threads: Arena::new(),
            buckets: vec![NONE; 1024],
            string_count: 0,
            bytes: 0,
            peak: 0,
            threshold: MIN_THRESHOLD,
            limit,
            budget: BUDGET,
            string_meta: None,
            buffer: Vec::new(),
        };
        for name in metatable::NAMES {
            heap.add_string(name.as_bytes());
        }
        heap
    }

    /// Counts work that was done or is about to be done. Who does much in a loop also asks: see
    /// [`Call::tick`](super::lib::Call::tick).
    #[inline]
    pub fn charge(&mut self, rounds: usize) {
        self.budget = self.budget.saturating_sub(rounds as u32).max(1);
    }

    /// Counts that bytes are looked at or copied.
    #[inline]
    pub fn charge_bytes(&mut self, bytes: usize) {
        if bytes >= 64 {
            self.charge(bytes / 64);
        }
    }

    /// An error, if that many bytes more would be too much. A native that is about to make
    /// something large asks before it makes it.
    pub fn check_room(&self, bytes: usize) -> Result<(), Error> {
        if self.bytes.saturating_add(bytes) > self.limit.saturating_mul(2) {
            return Err(Error(Name::NotEnoughMemory.value()));
        }
        Ok(())
    }

    /// The string with these bytes.
    pub fn string(&mut self, bytes: &[u8]) -> Result<StringId, Error> {
        self.check_room(bytes.len())?;
        Ok(self.add_string(bytes))
    }

    /// The string with these bytes, if there is one.
    pub fn find(&self, bytes: &[u8]) -> Option<StringId> {
        self.find_hashed(bytes, hash(bytes))
    }

    fn find_hashed(&self, bytes: &[u8], hash: u32) -> Option<StringId> {
        let mut at = self.buckets[hash as usize & (self.buckets.len() - 1)];
        while at != NONE {
            let text = &self.strings[Id::new(at as usize)];
            if text.hash == hash && *text.bytes == *bytes {
                return Some(Id::new(at as usize));
            }
            at = text.next;
        }
        None
    }

    /// As [`string`](Self::string), but there is always room: for names and messages.
    pub fn add_string(&mut self, bytes: &[u8]) -> StringId {
        self.charge_bytes(bytes.len());
        let hash = hash(bytes);
        if let Some(id) = self.find_hashed(bytes, hash) {
            return id;
        }
        if self.string_count >= self.buckets.len() {
            self.grow_buckets();
        }
        self.bytes += size_of::<Text>() + bytes.len();
        self.string_count += 1;
        let bucket = hash as usize & (self.buckets.len() - 1);
        let next = self.buckets[bucket];
        let id = self.strings.add(Text { hash, next, bytes: bytes.into() });
        self.buckets[bucket] = id.0;
        id
    }

    fn grow_buckets(&mut self) {
        let old = std::mem::take(&mut self.buckets);
        self.buckets = vec![NONE; old.len() * 2];
        let mask = self.buckets.len() - 1;
        for mut at in old {
            while at != NONE {
                let text = &mut self.strings[Id::new(at as usize)];
                let bucket = &mut self.buckets[text.hash as usize & mask];
                let next = std::mem::replace(&mut text.next, *bucket);
                *bucket = at;
                at = next;
            }
        }
    }

    /// Empties the slots of all strings without a mark.
    pub fn sweep_strings(&mut self) {
        for bucket in 0..self.buckets.len() {
            let mut at = std::mem::replace(&mut self.buckets[bucket], NONE);
            while at != NONE {
                let id = Id::new(at as usize);
                let next = self.strings[id].next;
                if self.strings.is_marked(id) {
                    self.strings[id].next = self.buckets[bucket];
                    self.buckets[bucket] = at;
                } else {
                    self.string_count -= 1;
                }
                at = next;
            }
        }
        self.strings.sweep();
    }

    pub fn table(&mut self, array: usize, nodes: usize) -> Result<TableId, Error> {
        let wanted = array.saturating_add(nodes.saturating_mul(2)).saturating_mul(20);
        self.check_room(wanted)?;
        let table = Table::new(array, nodes);
        self.bytes += table.size();
        Ok(self.tables.add(table))
    }

    /// An empty table for the machine itself.
    pub fn add_table(&mut self) -> TableId {
        self.add_table_for(0)
    }

    /// The same with room for that many keys.
    pub fn add_table_for(&mut self, keys: usize) -> TableId {
        let table = Table::new(0, keys);
        self.bytes += table.size();
        self.tables.add(table)
    }

    pub fn function(&mut self, function: Function) -> FunctionId {
        self.bytes += function.size();
        self.functions.add(function)
    }

    pub fn native(&mut self, run: Native) -> Value {
        Value::Function(self.function(Function::Native { run, upvalues: Box::default() }))
    }

    /// Whether a value is a function of the script, and not a native.
    pub fn is_lua(&self, value: Value) -> bool {
        matches!(value, Value::Function(id) if matches!(self.functions[id], Function::Lua { .. }))
    }

    /// The value at a key of a table, or nil. Asks no metatable.
    pub fn get(&self, table: TableId, key: Value) -> Value {
        self.tables[table].get(&key, &self.strings)
    }

    /// Sets a value in a table. Asks no metatable and not whether the table is readonly.
    pub fn set(&mut self, table: TableId, key: Value, value: Value) -> Result<(), Fault> {
        let table = &mut self.tables[table];
        if let Some(place) = table.place(&key, &self.strings) {
            *place = value;
            table.absent = 0;
            return Ok(());
        }
        let before = table.size();
        let all_were_moved = table.set(key, value, &self.strings)?;
        let (size, places) = (table.size(), table.places());
        self.bytes = (self.bytes + size).saturating_sub(before);
        if all_were_moved {
            self.charge(places / 16);
        }
        Ok(())
    }

    /// The key and value behind `key`, in the order of [`Table::pair_from`]. Nil begins.
    pub fn next(&mut self, table: TableId, key: Value) -> Result<Option<(Value, Value)>, Fault> {
        let table = &self.tables[table];
        let from = table.place_behind(key, &self.strings)?;
        let pair = table.pair_from(from);
        // There may be a long gap.
        let to = pair.map_or(table.places(), |(behind, ..)| behind);
        self.charge((to - from) / 32);
        Ok(pair.map(|(_, key, value)| (key, value)))
    }

    /// What `#` gives for a table.
    pub fn border(&mut self, table: TableId) -> usize {
        if let Some(border) = self.tables[table].border() {
            return border;
        }
        let border = self.tables[table].first_border();
        self.charge(border / 32);
        border
    }

    /// How many bytes a string has. Anything else has none.
    pub fn length_of(&self, value: Value) -> usize {
        match value {
            Value::String(string) => self.bytes_of(string).len(),
            _ => 0,
        }
    }

    /// The string that strings and numbers make together.
    pub fn join(&mut self, values: &[Value]) -> Result<StringId, Error> {
        let lengths = values.iter().map(|value| self.length_of(*value));
        self.check_room(lengths.fold(0, usize::saturating_add))?;
        let mut joined = self.buffer();
        for value in values {
            match value {
                Value::String(string) => joined.extend_from_slice(self.bytes_of(*string)),
                Value::Number(number) => joined.extend_from_slice(&number::to_text(*number)),
                _ => {}
            }
        }
        self.string_of(joined)
    }

    /// An empty buffer to make a string in, for [`string_of`](Self::string_of).
    pub fn buffer(&mut self) -> Vec<u8> {
        std::mem::take(&mut self.buffer)
    }

    /// The string with the bytes of a buffer, which is used again.
    pub fn string_of(&mut self, buffer: Vec<u8>) -> Result<StringId, Error> {
        let string = self.string(&buffer)?;
        if buffer.capacity() <= KEPT_BUFFER {
            self.buffer = buffer;
            self.buffer.clear();
        }
        Ok(string)
    }

    /// A part of a string as a string.
    pub fn part(&mut self, string: StringId, range: Range<usize>) -> Result<StringId, Error> {
        let mut part = self.buffer();
        part.extend_from_slice(&self.bytes_of(string)[range]);
        self.string_of(part)
    }

    pub fn bytes_of(&self, string: StringId) -> &[u8] {
        &self.strings[string].bytes
    }
}

impl Function {
    pub fn size(&self) -> usize {
        let upvalues = match self {
            Function::Lua { upvalues, .. } => size_of_val(&upvalues[..]),
            Function::Native { upvalues, .. } => size_of_val(&upvalues[..]),
            Function::Free => 0,
        };
        size_of::<Function>() + upvalues
    }
}

/// Redis's hash of a string, which decides the order of `next`. Unlike Lua's, it looks at every byte
/// of a long string too, so that long strings which differ in a few bytes have different hashes.
fn hash(bytes: &[u8]) -> u32 {
    bytes.iter().rev().fold(bytes.len() as u32, |hash, byte| {
        hash ^ (hash << 5).wrapping_add(hash >> 2).wrapping_add(u32::from(*byte))
    })
}
