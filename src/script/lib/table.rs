//! Tables as lists: `insert`, `remove`, `concat`, `sort` …
//!
//! ```text
//! local t = {3, 1}
//! table.insert(t, 1, 2)     {2, 3, 1}
//! table.sort(t)             {1, 2, 3}
//! table.concat(t, '-')      1-2-3
//! ```
//!
//! **How Redis does it**: ltablib.c of Lua. There `sort` calls the comparison in its middle. Here it asks for that
//! call and is gone until the answer comes: see [`Sort`].

use super::{Call, Native, Outcome, Resume};
use crate::script::machine::{Compared, Machine};
use crate::script::metatable::Name;
use crate::script::number;
use crate::script::value::{Error, TableId, Value};

pub fn open(machine: &mut Machine) {
    let natives: [(&str, Native); 9] = [
        ("concat", concat),
        ("foreach", foreach),
        ("foreachi", foreachi),
        ("getn", getn),
        ("maxn", maxn),
        ("insert", insert),
        ("remove", remove),
        ("setn", setn),
        ("sort", sort),
    ];
    machine.library("table", &natives);
}

impl Call<'_> {
    fn length(&mut self, table: TableId) -> i32 {
        self.machine.heap.border(table) as i32
    }

    fn element(&self, table: TableId, index: i32) -> Value {
        self.machine.heap.tables[table].get_number(index.into())
    }

    fn set_element(&mut self, table: TableId, index: i32, value: Value) -> Result<(), Error> {
        self.set(table, Value::Number(index.into()), value)
    }
}

fn concat(call: &mut Call) -> Result<Outcome, Error> {
    let separator = match call.arg(2) {
        Value::Nil => call.machine.heap.add_string(b""),
        _ => call.string(2)?,
    };
    let table = call.table(1)?;
    let first = call.integer_or(3, 1)? as i32;
    let last = match call.arg(4) {
        Value::Nil => call.length(table),
        _ => call.integer(4)? as i32,
    };
    let mut joined = call.buffer();
    for index in first..=last {
        call.tick()?;
        match call.element(table, index) {
            Value::String(string) => {
                let whole = 0..call.bytes(string).len();
                call.append(&mut joined, string, whole)?;
            }
            Value::Number(number) => joined.extend_from_slice(&number::to_text(number)),
            other => {
                return Err(call.error(format!(
                    "invalid value ({}) at index {index} in table for 'concat'",
                    other.type_name()
                )));
            }
        }
        if index < last {
            let whole = 0..call.bytes(separator).len();
            call.append(&mut joined, separator, whole)?;
        }
    }
    call.give_buffer(joined)
}

fn getn(call: &mut Call) -> Result<Outcome, Error> {
    let table = call.table(1)?;
    let length = call.length(table);
    call.give_number(length.into())
}

fn maxn(call: &mut Call) -> Result<Outcome, Error> {
    let table = call.table(1)?;
    let mut largest: f64 = 0.0;
    call.charge_table(table);
    let (array, pairs) = call.machine.heap.tables[table].parts();
    for (index, value) in array.iter().enumerate() {
        if !value.is_nil() {
            largest = (index + 1) as f64;
        }
    }
    for (key, _) in pairs {
        if let Value::Number(number) = key {
            largest = largest.max(number);
        }
    }
    call.give_number(largest)
}

fn setn(call: &mut Call) -> Result<Outcome, Error> {
    call.table(1)?;
    Err(call.error("'setn' is obsolete"))
}

fn insert(call: &mut Call) -> Result<Outcome, Error> {
    let table = call.table(1)?;
    let end = call.length(table).wrapping_add(1);
    let (position, value) = match call.count {
        2 => (end, call.arg(2)),
        3 => (call.integer(2)? as i32, call.arg(3)),
        _ => return Err(call.error("wrong number of arguments to 'insert'")),
    };
    for index in (position..end.max(position)).rev() {
        call.tick()?;
        let moved = call.element(table, index);
        call.set_element(table, index + 1, moved)?;
    }
    call.set_element(table, position, value)?;
    Ok(Outcome::Return(0))
}

fn remove(call: &mut Call) -> Result<Outcome, Error> {
    let table = call.table(1)?;
    let end = call.length(table);
    let position = call.integer_or(2, end.into())? as i32;
    if !(1..=end).contains(&position) {
        return Ok(Outcome::Return(0));
    }
    let removed = call.element(table, position);
    for index in position..end {
        call.tick()?;
        let moved = call.element(table, index + 1);
        call.set_element(table, index, moved)?;
    }
    call.set_element(table, end, Value::Nil)?;
    call.give(removed)
}

fn foreachi(call: &mut Call) -> Result<Outcome, Error> {
    let table = call.table(1)?;
    call.function(2)?;
    let length = call.length(table);
    Box::new(ForEach { index: 0, length }).resume(call)
}

/// For `foreachi`: the index for which the function has run, 0 at the beginning, and the last one.
struct ForEach {
    index: i32,
    length: i32,
}

impl Resume for ForEach {
    fn resume(mut self: Box<Self>, call: &mut Call) -> Result<Outcome, Error> {
        if self.index > 0 && !call.result(0).is_nil() {
            return call.give(call.result(0));
        }
        if self.index >= self.length {
            return Ok(Outcome::Return(0));
        }
        self.index += 1;
        let table = call.table(1)?;
        call.push(call.arg(2));
        call.push(Value::Number(self.index.into()));
        call.push(call.element(table, self.index));
        Ok(Outcome::Then(2, self))
    }
}

fn foreach(call: &mut Call) -> Result<Outcome, Error> {
    call.table(1)?;
    call.function(2)?;
    // The last key takes the place of a third argument, where the collector sees it.
    call.machine.thread.top = call.slot + 3;
    call.push(Value::Nil);
    call.count = 3;
    next_pair(call, Box::new(ForEachPair))
}

struct ForEachPair;

impl Resume for ForEachPair {
    fn resume(self: Box<Self>, call: &mut Call) -> Result<Outcome, Error> {
        if !call.result(0).is_nil() {
            return call.give(call.result(0));
        }
        next_pair(call, self)
    }
}

fn next_pair(call: &mut Call, state: Box<ForEachPair>) -> Result<Outcome, Error> {
    let table = call.table(1)?;
    match call.machine.heap.next(table, call.arg(3)) {
        Ok(Some((key, value))) => {
            call.set_arg(3, key);
            call.push(call.arg(2));
            call.push(key);
            call.push(value);
            Ok(Outcome::Then(2, state))
        }
        Ok(None) => Ok(Outcome::Return(0)),
        Err(fault) => Err(call.machine.plain_error(fault.text().as_bytes())),
    }
}

/// Lua's quicksort. Its order of equal elements, and its behaviour with a comparison that
/// contradicts itself, are visible, so it is the same here, step by step.
///
/// Only a comparison that changes the table itself sees a difference.
///
/// It cannot simply call the comparison and wait for the answer: see [`Outcome::Then`]. So it is
/// written as questions, "is the element at x less than the one at y?". The phase says which
/// question was asked last.
struct Sort {
    phase: Phase,
    /// The bounds of the part that is being sorted.
    low: i32,
    high: i32,
    /// The parts that are still to be sorted.
    rest: Vec<(i32, i32)>,
    /// Everything up to `left` is at most the pivot, and everything from `right` on at least.
    left: i32,
    right: i32,
}

#[derive(Clone, Copy)]
enum Phase {
    Begin,
    Ends,
    MiddleAndLow,
    HighAndMiddle,
    Left,
    Right,
}

fn sort(call: &mut Call) -> Result<Outcome, Error> {
    let table = call.table(1)?;
    let high = call.length(table);
    if !call.arg(2).is_nil() {
        call.function(2)?;
    }
    let (phase, rest) = (Phase::Begin, Vec::new());
    let sort = Sort { phase, low: 1, high, rest, left: 0, right: 0 };
    Box::new(sort).ask(call, false)
}

impl Resume for Sort {
    fn resume(self: Box<Self>, call: &mut Call) -> Result<Outcome, Error> {
        let answer = call.result(0).is_true();
        self.ask(call, answer)
    }
}

impl Sort {
    /// Goes on with the answer to the last question until a function must be called.
    fn ask(mut self: Box<Self>, call: &mut Call, answer: bool) -> Result<Outcome, Error> {
        let table = call.table(1)?;
        let comparison = call.arg(2);
        let mut answer = answer;
        while let Some((x, y)) = self.step(call, table, answer)? {
            call.tick()?;
            let (a, b) = (call.element(table, x), call.element(table, y));
            let (function, arguments) = if comparison.is_nil() {
                match call.machine.compare(a, b, Name::Lt) {
                    Ok(Compared::Known(less)) => {
                        answer = less;
                        continue;
                    }
                    // `__lt` is never negated.
                    Ok(Compared::Call { function, arguments, .. }) => (function, arguments),
                    Err(text) => return Err(call.machine.plain_error(text.as_bytes())),
                }
            } else {
                (comparison, [a, b])
            };
            call.push(function);
            arguments.iter().for_each(|argument| call.push(*argument));
            return Ok(Outcome::Then(2, self));
        }
        Ok(Outcome::Return(0))
    }

    /// Takes the answer to the last question, and gives the next one, or none if all is sorted.
    ///
    /// Long because it is one sort, and only its questions are apart.
    fn step(
        &mut self,
        call: &mut Call,
        table: TableId,
        less: bool,
    ) -> Result<Option<(i32, i32)>, Error> {
        match self.phase {
            Phase::Begin => Ok(self.begin()),
            Phase::Ends => {
                if less {
                    swap(call, table, self.low, self.high)?;
                }
                if self.high - self.low == 1 {
                    return Ok(self.next_part());
                }
                self.phase = Phase::MiddleAndLow;
                self.left = self.low + (self.high - self.low) / 2;
                Ok(Some((self.left, self.low)))
            }
            Phase::MiddleAndLow => {
                if less {
                    swap(call, table, self.left, self.low)?;
                    return self.partition(call, table);
                }
                self.phase = Phase::HighAndMiddle;
                Ok(Some((self.high, self.left)))
            }
            Phase::HighAndMiddle => {
                if less {
                    swap(call, table, self.left, self.high)?;
                }
                self.partition(call, table)
            }
            Phase::Left => {
                if less {
                    if self.left > self.high {
                        return Err(call.error("invalid order function for sorting"));
                    }
                    return Ok(self.look_left());
                }
                Ok(self.look_right())
            }
            Phase::Right => {
                if less {
                    if self.right < self.low {
                        return Err(call.error("invalid order function for sorting"));
                    }
                    return Ok(self.look_right());
                }
                if self.right < self.left {
                    swap(call, table, self.high - 1, self.left)?;
                    return Ok(self.split());
                }
                swap(call, table, self.left, self.right)?;
                Ok(self.look_left())
            }
        }
    }

    fn begin(&mut self) -> Option<(i32, i32)> {
        if self.low >= self.high {
            return self.next_part();
        }
        self.phase = Phase::Ends;
        Some((self.high, self.low))
    }

    fn next_part(&mut self) -> Option<(i32, i32)> {
        while let Some((low, high)) = self.rest.pop() {
            if low < high {
                (self.low, self.high) = (low, high);
                return self.begin();
            }
        }
        None
    }

    /// The lowest, middle and highest element are in order. The middle one is the pivot, and goes
    /// to the place before the highest one.
    fn partition(&mut self, call: &mut Call, table: TableId) -> Result<Option<(i32, i32)>, Error> {
        if self.high - self.low == 2 {
            return Ok(self.next_part());
        }
        swap(call, table, self.left, self.high - 1)?;
        self.left = self.low;
        self.right = self.high - 1;
        Ok(self.look_left())
    }

    fn look_left(&mut self) -> Option<(i32, i32)> {
        self.phase = Phase::Left;
        self.left += 1;
        Some((self.left, self.high - 1))
    }

    fn look_right(&mut self) -> Option<(i32, i32)> {
        self.phase = Phase::Right;
        self.right -= 1;
        Some((self.high - 1, self.right))
    }

    /// The pivot is at `left`, in its place. The smaller part comes first.
    fn split(&mut self) -> Option<(i32, i32)> {
        let (low, middle, high) = (self.low, self.left, self.high);
        if middle - low < high - middle {
            self.rest.push((middle + 1, high));
            (self.low, self.high) = (low, middle - 1);
        } else {
            self.rest.push((low, middle - 1));
            (self.low, self.high) = (middle + 1, high);
        }
        self.begin()
    }
}

fn swap(call: &mut Call, table: TableId, x: i32, y: i32) -> Result<(), Error> {
    let (a, b) = (call.element(table, x), call.element(table, y));
    call.set_element(table, x, b)?;
    call.set_element(table, y, a)
}
