//! Memory that somebody has ceased to use, and the next one takes: that of large strings (blob.rs), and buffers for long
//! replies.
//!
//! To map memory, to touch each of its pages for the first time, and to give it back takes longer than to fill it. So
//! memory that becomes free is kept, up to a limit. What nobody has taken for a moment is freed ([`free_unused`]).
//!
//! **Buffers** are lent. A client whose replies are long needs one of some 100 KiB until they have left. If each of fifty
//! clients kept its own, they would push each other out of the processor's cache. So it is given back when the replies
//! have left, and the one that was used last is lent first:
//!
//! ```text
//! client A   lend ─▶ [ 136 KiB ] ─▶ socket ─▶ give_back ┐
//! client B                                              └▶ lend ─▶ the same one, still in the cache ─▶ socket …
//! ```
//!
//! A client that waits for commands has none, so it keeps no large memory. Short replies never need one.
//!
//! **How Redis does it**: jemalloc keeps freed memory for a while (`dirty_decay_ms`), and gives out first what was
//! freed last.

use std::sync::Mutex;

/// Memory of large strings that are gone: all its bytes have been written once. A leaf of the lock order.
pub static STRINGS: Mutex<Spare> = Mutex::new(Spare::new(64 * 1024 * 1024));

/// Buffers that nobody uses at present. A leaf too.
static BUFFERS: Mutex<Spare> = Mutex::new(Spare::new(16 * 1024 * 1024));

/// Bytes of a new buffer: those with which a batch ends, and one value more that is copied.
const BUFFER: usize = 136 * 1024;

/// Pieces of memory that are free.
pub struct Spare {
    /// In the order in which they became free.
    free: Vec<Vec<u8>>,
    /// Bytes in all of them, and how many they may be.
    size: usize,
    most: usize,
    /// How many of them, the first ones, were there at the last [`free_unused`].
    old: usize,
}

/// Makes room for `more` bytes in `buffer`, in another one if it has too little. That one is not much larger than what is
/// needed, because the borrower is charged for all of it.
pub fn lend(buffer: &mut Vec<u8>, more: usize) {
    let needed = buffer.len().saturating_add(more);
    if needed > buffer.capacity() && buffer.capacity() < BUFFER {
        let most = needed.max(BUFFER).saturating_mul(4);
        let free = BUFFERS.lock().unwrap().take(|free| free.capacity() <= most);
        let mut larger = free.unwrap_or_else(|| Vec::with_capacity(BUFFER));
        larger.extend_from_slice(buffer);
        *buffer = larger;
    }
}

/// Takes a buffer back, if it was lent or has grown as large.
pub fn give_back(mut buffer: Vec<u8>) {
    if buffer.capacity() >= BUFFER {
        buffer.clear();
        BUFFERS.lock().unwrap().add(&mut buffer);
    }
}

/// Frees what nobody has taken since the last call. Cron calls it.
pub fn free_unused() {
    for all in [&STRINGS, &BUFFERS] {
        // Freed when the mutex is free again.
        let _unused = all.lock().unwrap().unused();
    }
}

impl Spare {
    const fn new(most: usize) -> Spare {
        Spare { free: Vec::new(), size: 0, most, old: 0 }
    }

    /// The piece that became free last, of those that fit.
    pub fn take(&mut self, fits: impl Fn(&Vec<u8>) -> bool) -> Option<Vec<u8>> {
        let at = self.free.iter().rposition(fits)?;
        let found = self.free.remove(at);
        self.size -= found.capacity();
        self.old -= usize::from(at < self.old);
        Some(found)
    }

    /// Whether there is room for so many bytes.
    pub fn has_room(&self, bytes: usize) -> bool {
        self.size + bytes <= self.most
    }

    /// Takes the memory over, unless there is enough.
    pub fn add(&mut self, memory: &mut Vec<u8>) {
        if self.has_room(memory.capacity()) {
            self.size += memory.capacity();
            self.free.push(std::mem::take(memory));
        }
    }

    /// What was there at the last call and is still.
    fn unused(&mut self) -> Vec<Vec<u8>> {
        let unused: Vec<_> = self.free.drain(..self.old).collect();
        self.size -= unused.iter().map(Vec::capacity).sum::<usize>();
        self.old = self.free.len();
        unused
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_more_is_kept_than_the_limit_and_nothing_for_long() {
        let mut spare = Spare::new(64 << 20);
        (0..70).for_each(|_| spare.add(&mut Vec::with_capacity(1 << 20)));
        assert_eq!((spare.size, spare.free.len()), (64 << 20, 64));
        assert!(spare.unused().is_empty(), "it was added a moment ago");
        assert_eq!(spare.unused().len(), 64);
        assert_eq!(spare.size, 0);
    }

    #[test]
    fn what_fits_nobody_is_freed_while_other_memory_is_in_use() {
        let mut spare = Spare::new(64 << 20);
        spare.add(&mut Vec::with_capacity(1_000_000));
        let mut used = Vec::with_capacity(70_000);
        let place = used.as_ptr();
        let mut freed = Vec::new();
        for _ in 0..3 {
            spare.add(&mut used);
            freed.extend(spare.unused());
            used = spare.take(|free| free.capacity() < 100_000).unwrap();
        }
        assert_eq!((freed.len(), freed[0].capacity(), spare.size), (1, 1_000_000, 0));
        assert_eq!(used.as_ptr(), place);
    }

    #[test]
    fn what_is_in_a_buffer_goes_with_it_into_the_one_that_is_lent() {
        let mut buffer = b"begun".to_vec();
        lend(&mut buffer, 1);
        assert_eq!(&buffer[..], b"begun");
        assert!(buffer.capacity() >= BUFFER);
        give_back(buffer);
        give_back(b"never lent".to_vec());
        let mut another = Vec::new();
        lend(&mut another, BUFFER);
        assert!(another.is_empty() && another.capacity() >= BUFFER);
    }

    #[test]
    fn whoever_needs_little_is_not_charged_for_what_somebody_else_needed() {
        give_back(Vec::with_capacity(8 << 20));
        let mut buffer = Vec::new();
        lend(&mut buffer, 20_000);
        assert!(buffer.capacity() <= 4 * BUFFER, "{}", buffer.capacity());
    }
}
