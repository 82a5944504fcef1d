//! Which arguments of a command are keys.
//!
//! **How Redis does it**: the key specifications in each command's JSON.

/// Which arguments are keys.
#[derive(Clone, Copy)]
pub struct Keys {
    /// 0 if there is none.
    pub first: i64,
    /// Negative: counted from the end.
    pub last: i64,
    pub step: i64,
    /// The argument that says how many keys follow it (COMMAND: `movablekeys`); 0 if none does.
    pub counted_by: usize,
    /// SORT: options name more keys (COMMAND: `movablekeys`).
    pub are_named_by_options: bool,
}

// The shapes that Redis's commands have.
pub const NO_KEY: Keys =
    Keys { first: 0, last: 0, step: 0, counted_by: 0, are_named_by_options: false };
pub const ONE_KEY: Keys = Keys { first: 1, last: 1, step: 1, ..NO_KEY };
pub const TWO_KEYS: Keys = Keys { first: 1, last: 2, step: 1, ..NO_KEY };
pub const ALL_KEYS: Keys = Keys { first: 1, last: -1, step: 1, ..NO_KEY };
pub const EVERY_OTHER: Keys = Keys { first: 1, last: -1, step: 2, ..NO_KEY };
/// `LMPOP numkeys key [key ...]`. With a key before them: `Keys { counted_by: 2, ..ONE_KEY }`.
pub const COUNTED_KEYS: Keys = Keys { counted_by: 1, ..NO_KEY };
/// One key, after the name of a subcommand.
pub const SUBCOMMAND_KEY: Keys = Keys { first: 2, last: 2, step: 1, ..NO_KEY };
