//! What the configuration says about values: CONFIG SET may change it between two commands.

use crate::config::Config;
use crate::hash;
use crate::propagate::Source;
use crate::resp::LONGEST;

#[derive(Clone, Copy)]
pub struct Limits {
    pub hash: hash::Limits,
    /// Longest string, in bytes (`proto-max-bulk-len`).
    pub string: usize,
}

impl Limits {
    /// The limits of a command that comes from this source.
    pub fn of(config: &Config, source: Source) -> Limits {
        let hash = hash::Limits {
            // A packed hash counts its fields with 32 bits.
            entries: config.hash_max_listpack_entries.get().min(u32::MAX as usize - 1),
            value: config.hash_max_listpack_value.get(),
        };
        let string = if source.has_limits() { config.proto_max_bulk_len.get() } else { LONGEST };
        Limits { hash, string }
    }
}
