//! Scripts: a Lua 5.1 interpreter. It knows nothing of the server: what EVAL does is told in
//! `call/script.rs`, and what a script reaches of the server is its [`Host`](lib::Host).
//!
//! [`machine`] is where to begin. [`lexer`], [`compiler`] and [`code`] make of a source what it
//! runs. [`value`], [`table`], [`metatable`] and [`heap`] are what scripts work with, and
//! [`collect`] takes away what they do not need any more. [`lib`] has the libraries, and says how
//! to add one.

pub mod code;
pub mod collect;
pub mod compiler;
pub mod heap;
pub mod lexer;
pub mod lib;
pub mod machine;
pub mod metatable;
pub mod number;
pub mod table;
pub mod value;

#[cfg(test)]
mod tests;
