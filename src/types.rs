//! What a key may hold: each type has a file of its own here, and so has what they are made of.

pub mod entry;
pub mod float;
pub mod hash;
pub mod heap;
pub mod table;
