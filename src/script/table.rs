//! Lua's table: an array for the keys 1 to n, and a hash part for all other keys.
//!
//! ```text
//! t = {"a", "b", x = 1, [2.5] = 2}
//!
//! array    ┌─────┬─────┐
//!          │ "a" │ "b" │           keys 1 and 2, found by their position
//!          └─────┴─────┘
//! nodes    ┌───────────┬───────────┐
//!          │ x → 1     │ 2.5 → 2   │   each node may have a `next`: the chain of its position
//!          └───────────┴───────────┘
//! ```
//!
//! The hash part is a table of nodes without gaps between lists: a key whose own position is taken
//! by a key that belongs there goes to a free node, and the chain leads to it. If the key that is
//! there does not belong there, that one moves. So a chain holds only keys of one position. Free
//! nodes are taken from the end. When there is none left, all keys are counted anew: the array
//! becomes the largest power of two of which more than half would be in use, and the hash part
//! gets the rest.
//!
//! **How Redis does it**: exactly so. Not only the results but also the order of `next` follow from
//! these rules and from the function that gives a key its position. Scripts show that order to
//! their clients, for example by `cjson.encode`. Therefore nothing here may be "improved". Only
//! keys that are tables, functions or booleans have another order: there Lua takes the address.

use super::heap::{Arena, Text};
use super::value::{StringId, TableId, Value};

/// Marks the end of a chain.
const NONE: u32 = u32::MAX;
/// The array has at most 2 to the power of this many elements, the hash part as many nodes.
const MAX_BITS: usize = 26;

#[derive(Default)]
pub struct Table {
    array: Vec<Value>,
    /// A power of two of nodes, or none.
    nodes: Box<[Node]>,
    /// All nodes from here on are in use.
    last_free: usize,
    pub meta: Option<TableId>,
    /// If this is a metatable: a bit for each of the first eight events that it surely lacks.
    pub absent: u8,
    /// Redis's flag: to change it is an error.
    pub readonly: bool,
}

#[derive(Clone, Copy, Default)]
struct Node {
    key: Value,
    value: Value,
    next: u32,
}

/// Why a key cannot be set, or `next` cannot go on.
#[derive(Debug, PartialEq)]
pub enum Fault {
    NilKey,
    NanKey,
    TooLarge,
    UnknownKey,
}

impl Table {
    pub fn new(array: usize, nodes: usize) -> Table {
        let mut table = Table { array: vec![Value::Nil; array], ..Table::default() };
        table.make_nodes(nodes.min(1 << MAX_BITS));
        table
    }

    /// How many bytes of memory it takes.
    pub fn size(&self) -> usize {
        size_of::<Table>() + size_of_val(&self.array[..]) + size_of_val(&self.nodes[..])
    }

    /// The value at a key, or nil. Asks no metatable. The key is not copied, because mostly one half of it is enough.
    #[inline(always)]
    pub fn get(&self, key: &Value, strings: &Arena<Text>) -> Value {
        match *key {
            Value::Number(number) => self.get_number(number),
            Value::String(string) => self.get_text(string, strings[string].hash),
            Value::Nil => Value::Nil,
            _ => self.find(*key, strings).map_or(Value::Nil, |at| self.nodes[at].value),
        }
    }

    #[inline]
    pub fn get_number(&self, number: f64) -> Value {
        match self.array_index(number) {
            Some(index) => self.array[index],
            None => self.find_number(number).map_or(Value::Nil, |at| self.nodes[at].value),
        }
    }

    /// Where the value of a key is, if the key is there. Its value may be nil.
    #[inline(always)]
    pub fn place(&mut self, key: &Value, strings: &Arena<Text>) -> Option<&mut Value> {
        let at = match *key {
            Value::Number(number) => match self.array_index(number) {
                Some(index) => return Some(&mut self.array[index]),
                None => self.find_number(number),
            },
            Value::String(string) => self.find_text(string, strings[string].hash),
            Value::Nil => None,
            _ => self.find(*key, strings),
        };
        at.map(|at| &mut self.nodes[at].value)
    }

    /// How many keys have room.
    pub fn places(&self) -> usize {
        self.array.len() + self.nodes.len()
    }

    /// Sets the value at a key. Tables do not shrink here: a nil leaves the key where it is, until
    /// the next time that there is no free node. Says whether that was now, and all keys were moved.
    pub fn set(&mut self, key: Value, value: Value, strings: &Arena<Text>) -> Result<bool, Fault> {
        self.absent = 0;
        if let Some(place) = self.place(&key, strings) {
            *place = value;
            return Ok(false);
        }
        match key {
            Value::Nil => return Err(Fault::NilKey),
            Value::Number(number) if number.is_nan() => return Err(Fault::NanKey),
            _ => {}
        }
        self.insert(key, value, strings)
    }

    /// Adds a key that is not there.
    fn insert(&mut self, key: Value, value: Value, strings: &Arena<Text>) -> Result<bool, Fault> {
        let mut at = self.position(key, strings);
        if self.nodes.is_empty() || !self.nodes[at].value.is_nil() {
            let Some(free) = self.take_free() else {
                self.rehash(key, strings)?;
                self.set(key, value, strings)?;
                return Ok(true);
            };
            let others = self.position(self.nodes[at].key, strings);
            if others == at {
                self.nodes[free].next = self.nodes[at].next;
                self.nodes[at].next = free as u32;
                at = free;
            } else {
                let mut before = others;
                while self.nodes[before].next != at as u32 {
                    before = self.nodes[before].next as usize;
                }
                self.nodes[before].next = free as u32;
                self.nodes[free] = self.nodes[at];
                self.nodes[at] = Node { next: NONE, ..Node::default() };
            }
        }
        self.nodes[at].key = key;
        self.nodes[at].value = value;
        Ok(false)
    }

    /// The place behind a key, in the order of `next`. Nil is before the first one.
    pub fn place_behind(&self, key: Value, strings: &Arena<Text>) -> Result<usize, Fault> {
        Ok(match key {
            Value::Nil => 0,
            Value::Number(number) if self.array_index(number).is_some() => number as usize,
            _ => self.array.len() + self.find(key, strings).ok_or(Fault::UnknownKey)? + 1,
        })
    }

    /// The first key with a value at this place or behind it, in the order of `next`, its value, and
    /// the place behind it. Places begin at 0, and a change of the table may move what is there.
    pub fn pair_from(&self, place: usize) -> Option<(usize, Value, Value)> {
        for index in place..self.array.len() {
            if !self.array[index].is_nil() {
                let key = Value::Number((index + 1) as f64);
                return Some((index + 1, key, self.array[index]));
            }
        }
        let begin = place.saturating_sub(self.array.len());
        let behind = self.nodes[begin..].iter().position(|node| !node.value.is_nil())?;
        let node = &self.nodes[begin + behind];
        Some((self.array.len() + begin + behind + 1, node.key, node.value))
    }

    /// What `#` gives: a border, that is an n with a value at n and none at n + 1. If there is more
    /// than one, this is the one that Lua finds. None if that is [`first_border`](Self::first_border).
    pub fn border(&self) -> Option<usize> {
        let size = self.array.len();
        if size > 0 && self.array[size - 1].is_nil() {
            return Some(between(0, size, |n| self.array[n - 1].is_nil()));
        }
        if self.nodes.is_empty() {
            return Some(size);
        }
        let is_nil = |n: usize| self.get_number(n as f64).is_nil();
        let (mut low, mut high) = (size, size + 1);
        while !is_nil(high) {
            (low, high) = (high, high * 2);
            if high > i32::MAX as usize {
                return None;
            }
        }
        Some(between(low, high, is_nil))
    }

    /// The first border. Looks at each value before it.
    pub fn first_border(&self) -> usize {
        (1..).find(|n| self.get_number(*n as f64).is_nil()).map_or(0, |n| n - 1)
    }

    /// Makes the array large enough for the elements up to `n`.
    pub fn reserve_array(&mut self, n: usize, strings: &Arena<Text>) -> Result<(), Fault> {
        if n <= self.array.len() {
            return Ok(());
        }
        self.resize(n, self.nodes.len(), strings)
    }

    /// The array, for the collector.
    pub fn array(&mut self) -> &mut [Value] {
        &mut self.array
    }

    /// The array, and the other keys that have a value.
    pub fn parts(&self) -> (&[Value], impl Iterator<Item = (Value, Value)>) {
        let used = self.nodes.iter().filter(|node| !node.value.is_nil());
        (&self.array, used.map(|node| (node.key, node.value)))
    }

    /// How many keys have a value.
    pub fn count(&self) -> usize {
        let (array, pairs) = self.parts();
        array.iter().filter(|value| !value.is_nil()).count() + pairs.count()
    }

    /// Each key behind the array that has a value, with a way to change the value, for the collector.
    pub fn pairs(&mut self) -> impl Iterator<Item = (Value, &mut Value)> {
        let used = self.nodes.iter_mut().filter(|node| !node.value.is_nil());
        used.map(|node| (node.key, &mut node.value))
    }

    #[inline]
    fn array_index(&self, number: f64) -> Option<usize> {
        let index = (number as i64 as usize).wrapping_sub(1);
        (index < self.array.len() && (index + 1) as f64 == number).then_some(index)
    }

    /// The value at a key that is a string with that hash.
    #[inline]
    pub fn get_text(&self, key: StringId, hash: u32) -> Value {
        self.find_text(key, hash).map_or(Value::Nil, |at| self.nodes[at].value)
    }

    #[inline]
    fn find_text(&self, key: StringId, hash: u32) -> Option<usize> {
        let mut at = hash as usize & self.nodes.len().wrapping_sub(1);
        while let Some(node) = self.nodes.get(at) {
            if matches!(node.key, Value::String(other) if other == key) {
                return Some(at);
            }
            at = node.next as usize;
        }
        None
    }

    fn find_number(&self, number: f64) -> Option<usize> {
        let mut at = self.number_position(number);
        while let Some(node) = self.nodes.get(at) {
            if matches!(node.key, Value::Number(key) if key == number) {
                return Some(at);
            }
            at = node.next as usize;
        }
        None
    }

    fn find(&self, key: Value, strings: &Arena<Text>) -> Option<usize> {
        let mut at = self.position(key, strings);
        while let Some(node) = self.nodes.get(at) {
            if node.key == key {
                return Some(at);
            }
            at = node.next as usize;
        }
        None
    }

    /// The node where a key belongs. Without nodes it is none that exists.
    fn position(&self, key: Value, strings: &Arena<Text>) -> usize {
        let mask = self.nodes.len().wrapping_sub(1);
        match key {
            Value::Number(number) => self.number_position(number),
            Value::String(id) => strings[id].hash as usize & mask,
            Value::Boolean(is) => usize::from(is) & mask,
            Value::Table(id) => id.index() % (mask | 1),
            Value::Function(id) => id.index() % (mask | 1),
            Value::Thread(id) => id.index() % (mask | 1),
            Value::Nil | Value::Null => 0,
        }
    }

    fn number_position(&self, number: f64) -> usize {
        if number == 0.0 {
            return 0;
        }
        let bits = number.to_bits();
        let digest = (bits as u32).wrapping_add((bits >> 32) as u32);
        digest as usize % (self.nodes.len().wrapping_sub(1) | 1)
    }

    fn take_free(&mut self) -> Option<usize> {
        while self.last_free > 0 {
            self.last_free -= 1;
            if self.nodes[self.last_free].key.is_nil() {
                return Some(self.last_free);
            }
        }
        None
    }

    /// Gives both parts the sizes that all keys and one more need.
    fn rehash(&mut self, extra: Value, strings: &Arena<Text>) -> Result<(), Fault> {
        // How many keys lie in (2^(i-1), 2^i].
        let mut slices = [0; MAX_BITS + 1];
        let mut total = 0;
        for (index, value) in self.array.iter().enumerate() {
            let is_used = usize::from(!value.is_nil());
            slices[log2_up(index + 1)] += is_used;
            total += is_used;
        }
        let nodes = self.nodes.iter().filter(|node| !node.value.is_nil());
        for key in nodes.map(|node| node.key).chain([extra]) {
            total += 1;
            if let Value::Number(number) = key
                && let index = number as i64
                && index as f64 == number
                && (1..=1 << MAX_BITS).contains(&index)
            {
                slices[log2_up(index as usize)] += 1;
            }
        }
        let (size, in_array) = array_size(&slices);
        self.resize(size, total - in_array, strings)
    }

    fn resize(&mut self, array: usize, nodes: usize, strings: &Arena<Text>) -> Result<(), Fault> {
        if nodes > 1 << MAX_BITS {
            return Err(Fault::TooLarge);
        }
        let old = std::mem::take(&mut self.nodes);
        self.make_nodes(nodes);
        let cut = self.array.split_off(array.min(self.array.len()));
        // To the exact size: Lua's sizes are in the order of `next`, and memory is counted.
        self.array.reserve_exact(array - self.array.len());
        self.array.resize(array, Value::Nil);
        for (index, value) in cut.into_iter().enumerate() {
            if !value.is_nil() {
                self.set(Value::Number((array + index + 1) as f64), value, strings)?;
            }
        }
        for node in old.iter().rev().filter(|node| !node.value.is_nil()) {
            self.set(node.key, node.value, strings)?;
        }
        Ok(())
    }

    fn make_nodes(&mut self, count: usize) {
        let count = if count == 0 { 0 } else { count.next_power_of_two() };
        let node = Node { next: NONE, ..Node::default() };
        self.nodes = vec![node; count].into_boxed_slice();
        self.last_free = count;
    }
}

/// A border between a `low` that has a value, or is 0, and a `high` that has none.
fn between(mut low: usize, mut high: usize, is_nil: impl Fn(usize) -> bool) -> usize {
    while high - low > 1 {
        let middle = (low + high) / 2;
        if is_nil(middle) { high = middle } else { low = middle }
    }
    low
}

/// The smallest i with n at most 2 to the power of i.
fn log2_up(n: usize) -> usize {
    n.next_power_of_two().trailing_zeros() as usize
}

/// The largest power of two such that more than half of the keys up to it are in use, and how many
/// those are.
fn array_size(slices: &[usize; MAX_BITS + 1]) -> (usize, usize) {
    let all: usize = slices.iter().sum();
    let (mut below, mut best) = (0, (0, 0));
    for (bits, count) in slices.iter().enumerate() {
        let size = 1 << bits;
        if size / 2 >= all {
            break;
        }
        below += count;
        if *count > 0 && below > size / 2 {
            best = (size, below);
        }
    }
    best
}
