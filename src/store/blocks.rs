//! Memory that goes back to the system: entries are moved out of blocks that are nearly empty (types/heap.rs).
//!
//! The thread of src/expire.rs asks for it a little at a time, under the exclusive lock, so that nobody waits
//! long.
//!
//! **How Redis does it**: `activedefrag`, which needs jemalloc and is off unless it is asked for.

use super::Keyspace;

/// The most that [`Keyspace::empty_blocks`] does under one lock: some tens of microseconds.
const SLOTS_AT_ONCE: usize = 64;
const BYTES_AT_ONCE: usize = 128 * 1024;

impl Keyspace {
    /// Whether there is work for [`Keyspace::empty_blocks`].
    pub fn has_blocks_to_empty(&self) -> bool {
        self.dbs.iter().any(|db| db.keys.has_blocks_to_empty())
    }

    /// Moves some entries out of blocks of memory that are to be given back (heap.rs). Returns whether
    /// there may be more to be done.
    pub fn empty_blocks(&mut self) -> bool {
        let Some(db) = self.dbs.iter_mut().find(|db| db.keys.has_blocks_to_empty()) else {
            return false;
        };
        let mut moved = 0;
        for _ in 0..SLOTS_AT_ONCE {
            match db.keys.empty_blocks() {
                Some(bytes) if moved + bytes < BYTES_AT_ONCE => moved += bytes,
                Some(_) => break,
                None => return false,
            }
        }
        true
    }
}
