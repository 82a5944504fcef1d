//! What a key may hold: a [`Value`] of one of the types, each of which has a file of its own.
//!
//! A type answers for itself. Its file says what it is called, how it is read ([`Type::Look`]), how it is
//! changed ([`Edit`]), what it takes in memory, and with which commands a base of the log makes it again.
//! Whoever has a value of any type asks the [`Value`], which passes the question on:
//!
//! ```text
//!                 entry.value()                     view.edit::<Hash, _>(key, |hash| …)
//! entry.rs  ──────────────────────▶  Value  ◀───────────────────────────────  edit.rs
//! how a key and its value            │ each!                     how a value is changed where it lies
//! lie in memory                      ├─▶ string.rs   Str                  bytes, or a number
//!                                    ├─▶ list.rs     List ──▶ list/node.rs
//!                                    ├─▶ set.rs      Set ──▶ intset.rs, listpack.rs, table.rs
//!                                    ├─▶ hash.rs     Hash ──▶ listpack.rs while it is small
//!                                    │                    └─▶ table.rs    when it is not
//!                                    └─▶ zset.rs     Zset ──▶ the same two, and ranked.rs
//! ```
//!
//! How a value is stored is known to the files of this module alone: nothing else can name it. A small
//! value is a few bytes beside its key. A large one owns memory, and another thread frees it.
//!
//! **How Redis does it**: an `robj` has a type and an encoding, and each question about a value is a
//! function that knows all types (`rdbSaveObject`, `rewriteAppendOnlyFileRio`, `objectComputeSize`,
//! `copyCommand`). So the code of a type is in a dozen files there.

mod bulk;
mod copies;
mod edit;
mod entry;
pub mod float;
mod hash;
mod heap;
mod intset;
mod larges;
mod list;
mod listpack;
mod ranked;
mod set;
mod shared;
mod string;
pub mod table;
mod u48;
mod usage;
mod zset;

pub use bulk::{Bulk, Fields, Scores, SetMembers, Twice};
pub use copies::Copies;
pub use edit::{Change, Edit};
pub use entry::{Entry, EntryMut, Form, Large, Loose, Stored};
pub use hash::Hash;
pub use heap::Heap;
pub use list::{Dropped, List, NewList, NodeLimits, Side};
pub use listpack::Gathered;
pub use set::{Member, Set};
pub use string::{NewStr, Str};
pub use usage::{Counting, Remember, Usage};
pub use zset::{Accumulator, Scoring, Sorted, Zset};

use crate::notify::Class;
use entry::{Kind, LargeValue};

/// A value of any type, to be read.
pub enum Value<'a> {
    String(Str<'a>),
    List(List<'a>),
    Set(Set<'a>),
    Hash(Hash<'a>),
    Zset(Zset<'a>),
}

/// Asks the value, whichever type it has.
macro_rules! each {
    ($value:expr, $v:ident => $answer:expr) => {
        match $value {
            Value::String($v) => $answer,
            Value::List($v) => $answer,
            Value::Set($v) => $answer,
            Value::Hash($v) => $answer,
            Value::Zset($v) => $answer,
        }
    };
}

impl Value<'_> {
    /// As `TYPE` answers.
    pub fn type_name(&self) -> &'static str {
        each!(self, v => name_of(v))
    }

    /// As `OBJECT ENCODING` answers.
    pub fn encoding(&self) -> &'static str {
        each!(self, v => v.encoding())
    }

    /// Bytes that a large value takes.
    // Inlined into `Stored::value_memory`, because each change of a large value asks twice.
    #[inline(always)]
    pub fn memory(&self) -> usize {
        each!(self, v => v.memory())
    }

    /// The same, counted anew by a walk through all that is in it: what is kept as it changes must be equal to it.
    pub fn recount(&self) -> usize {
        each!(self, v => v.recount())
    }

    /// Redis's number of the type.
    pub fn number(&self) -> u32 {
        each!(self, v => number_of(v))
    }

    /// Hands all that is in it to `take`.
    pub fn parts(&self, take: &mut dyn FnMut(Part)) {
        each!(self, v => v.parts(take));
    }

    /// The commands that make this value again under `key`. `emit` is given the words of each.
    pub fn rewrite(&self, key: &[u8], emit: &mut dyn FnMut(&[&[u8]])) {
        each!(self, v => v.rewrite(key, emit));
    }
}

/// What a value consists of, as DEBUG DIGEST wants to know it.
pub enum Part<'a> {
    /// An element whose place among the others counts.
    InOrder(&'a [u8]),
    /// An element that has no place.
    Alone(&'a [u8]),
    /// A field and its value, or a member and its score. The pair has no place.
    Pair(&'a [u8], &'a [u8]),
}

fn name_of<T: Type>(_: &T) -> &'static str {
    T::NAME
}

fn number_of<T: Type>(_: &T) -> u32 {
    T::NUMBER
}

/// What a type says to the rest of this module.
pub trait Type: Sized {
    /// As `TYPE` answers.
    const NAME: &'static str;

    /// Redis's number of the type (server.h, `OBJ_STRING` and so on). 5 is that of a module's type.
    const NUMBER: u32;

    /// Of what happens to its values.
    const CLASS: Class;

    /// A new value, which has nothing in it yet: how it is stored, and as which bytes.
    const NEW: (Kind, &'static [u8]);

    /// The value to be read.
    type Look<'a>;

    /// What a large value is stored as.
    type Large: Into<LargeValue>;

    fn of(value: Value<'_>) -> Option<Self::Look<'_>>;

    /// Whether a small value of this kind has the type.
    fn is(kind: Kind) -> bool;

    /// The large value, to be changed, if it has the type.
    fn large(value: &mut LargeValue) -> Option<&mut Self::Large>;

    /// Whether nothing is left of it, so that the key has to go. (A string may be empty.)
    fn is_nothing(edit: &Edit<Self>) -> bool;
}

/// What the configuration says about values.
#[derive(Clone, Copy)]
pub struct Limits {
    /// Longest string, in bytes (`proto-max-bulk-len`).
    pub string: usize,
    /// `list-max-listpack-size`.
    pub list: NodeLimits,
    /// Most members of a set that is stored as numbers (`set-max-intset-entries`).
    pub intset: usize,
    pub set: Packed,
    pub hash: Packed,
    pub zset: Packed,
    /// Whether DUMP packs long strings (`rdbcompression`).
    pub packs: bool,
    /// What entries remember of their use (`maxmemory-policy`).
    pub remember: Remember,
}

impl Limits {
    /// Whether a set of so many members is a table in any case.
    pub fn is_table(&self, members: usize) -> bool {
        members > self.intset.max(self.set.entries)
    }
}

#[cfg(test)]
impl Limits {
    /// For tests, which set those that they are about.
    pub const NOTHING: Limits = Limits {
        string: 0,
        list: NodeLimits { bytes: 0, count: 0 },
        intset: 0,
        set: Packed { entries: 0, value: 0 },
        hash: Packed { entries: 0, value: 0 },
        zset: Packed { entries: 0, value: 0 },
        packs: true,
        remember: Remember::LastUse,
    };
}

/// How large a value that is a listpack may become.
#[derive(Clone, Copy)]
pub struct Packed {
    /// Most elements; of a hash, most fields (`hash-max-listpack-entries`).
    pub entries: usize,
    /// Longest element, in bytes (`hash-max-listpack-value`).
    pub value: usize,
}

/// Elements in one command of a base, as in Redis.
const ELEMENTS_PER_COMMAND: usize = 64;

/// Emits commands that begin with these words and have up to 64 elements each, of so many words.
fn rewrite_elements<'a, const N: usize>(
    begin: [&'a [u8]; 2],
    mut elements: impl Iterator<Item = [&'a [u8]; N]>,
    emit: &mut dyn FnMut(&[&[u8]]),
) {
    let mut words = Vec::new();
    loop {
        words.clear();
        words.extend(begin);
        words.extend(elements.by_ref().take(ELEMENTS_PER_COMMAND).flatten());
        if words.len() == begin.len() {
            break;
        }
        emit(&words);
    }
}

/// What an allocator takes for `size` bytes: a header of 8, and rounded up to 16.
fn allocated(size: usize) -> usize {
    (size + 8).next_multiple_of(16).max(32)
}
