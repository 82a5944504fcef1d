//! Looking ahead: what a batch is going to look for, looked at once before.
//!
//! What a command on a large keyspace mostly does is wait for memory, four times one after the
//! other: slot, bucket, entry, bytes. Sixty-four commands wait sixty-four times as long. So when a
//! batch has taken its lock it first looks at the first key of each of them, step by step for all, so
//! that the processor waits for many at once ([`table::warm`]). Commands on large hashes wait a second
//! time, for the field, and for these the same is done again:
//!
//! ```text
//! HSET h f 1   HSET h g 2   HGET k f  …        64 of them
//!      │            │            │
//!      └─ slots ────┴─ buckets ──┴─ entries     of their keys, together;
//!        └─ slots ────┴─ buckets ──┴─ entries   of the fields, where the key is a hash that is a table
//! ```
//!
//! Nothing is changed and nothing returned, so it need not be exact: a key that is not there, or a
//! word that is no field after all, costs a look in vain.
//!
//! **How Redis does it**: it does so since version 8, and Valkey since its 8.0, for keys alone.

use super::Keyspace;
use crate::hash::Hash;
use crate::table::{self, WARM};

impl Keyspace {
    /// Looks at the keys with these hashes, in database `db`.
    // Not inlined, or its array would be in the stack of every thread that waits for a client.
    #[inline(never)]
    pub fn warm(&self, db: usize, hashes: impl Iterator<Item = u64> + Clone) {
        let keys = &self.dbs[db].keys;
        table::warm(hashes.map(|hash| (keys, hash)));
    }

    /// The same, and in those that are tables at the field with this name, if there is one.
    #[inline(never)]
    pub fn warm_fields<'a>(
        &self,
        db: usize,
        named: impl Iterator<Item = (u64, Option<&'a [u8]>)> + Clone,
    ) {
        let keys = &self.dbs[db].keys;
        let entries = table::warm(named.clone().map(|(hash, _)| (keys, hash)));
        let mut fields = [None; WARM];
        for (field, (entry, (_, name))) in fields.iter_mut().zip(entries.iter().zip(named)) {
            if let (Some(entry), Some(name)) = (entry, name)
                && let Some(Hash::Table(table)) = entry.hash()
            {
                *field = Some((table, table::hash_of(name)));
            }
        }
        table::warm(fields.into_iter().flatten());
    }
}
