//! Scripts: a Lua 5.1 interpreter. It knows nothing of the server: what EVAL does is told in
//! `call/script.rs`, and what a script reaches of the server is its [`Host`](lib::Host).
//!
//! ```text
//! return redis.call('INCR', KEYS[1])
//!
//!   [lexer] cuts it into tokens: return, redis, a point, call, (, a string …
//!   [compiler] reads the tokens by the rules of the grammar, and makes instructions of them ([code]):
//!
//! 0  GetGlobal { to: 0, name: 0 }                         register 0 is redis
//! 1  GetTable { to: 0, table: 0, key: Constant(1) }       and now its field call
//! 2  LoadConstant { to: 1, constant: 2 }                  'INCR'
//! 3  GetGlobal { to: 2, name: 3 }                         KEYS
//! 4  GetTable { to: 2, table: 2, key: Constant(4) }       and now KEYS[1]
//! 5  TailCall { function: 0, arguments: 3 }               one more than there are
//! 6  Return { first: 0, count: 0 }                        all that the call has returned
//!
//!   [machine] runs them. redis.call is written in Rust, in [lib]
//!   [value] is what a register holds. Long things live in the [heap], until [collect] throws them away
//! ```
//!
//! Three ideas carry all of it:
//!
//! 1. **No function of the machine waits for a function of the script.** What goes on afterwards is
//!    noted in a vector. So a script cannot use up the stack of a thread, and can be stopped anywhere.
//! 2. **A value owns nothing.** It is a number, or the number of a place in the heap. So it can be
//!    copied, a table may hold itself, and nothing is unsafe.
//! 3. **The loop does what is common, and leaves all else to others.** That makes it fast, and short.
//!
//! **How Redis does it**: it contains Lua 5.1, which is C. The grammar, the limits, the messages and
//! the order of keys are the same here, because scripts can see them: a fuzzer sends programs to both.

// In reading order.
pub mod value;
pub mod lexer;
pub mod code;
pub mod compiler;
pub mod machine;
pub mod lib;
pub mod heap;
pub mod collect;

// For looking up.
pub mod metatable;
pub mod number;
pub mod table;

#[cfg(test)]
mod tests;
