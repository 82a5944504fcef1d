//! Where the commands of a pipeline are put when they have arrived: places that are lent.
//!
//! A place has buffers for the arguments of a command, which the next one uses again: with new ones, a GET or SET in a
//! pipeline takes nearly a third more instructions. Those for a pipeline of 64 commands take 20 KB. If each of fifty clients kept its own, they would push each other out of the processor's
//! cache. So a client has one place, and takes more when it has sent more than one command. It gives them back
//! when these have run, and the ones that were used last are lent first:
//!
//! ```text
//! client A   [own] ── more() ──▶ [ 64 places ] ── give_back() ──▶ [own]
//! client B                                        └▶ [ the same, still in the cache ] …
//! ```
//!
//! **How Redis does it**: one thread parses and runs one command after the other, so `c->argv` is in the cache.

use crate::call::Arrived;
use std::ops::{Deref, DerefMut};
use std::sync::Mutex;

/// Places that nobody uses at present. A leaf of the lock order.
static SPARE: Mutex<Vec<Vec<Arrived>>> = Mutex::new(Vec::new());

/// So many clients' places are kept, at most. With a log, many threads wait for it with theirs.
const MOST: usize = 64;

/// The places of one client, one at least. They deref to a slice.
pub struct Places {
    all: Vec<Arrived>,
    /// If the others are lent: what the client has itself.
    own: Vec<Arrived>,
}

impl Places {
    pub fn new() -> Places {
        Places { all: vec![Arrived::default()], own: Vec::new() }
    }

    /// Makes at least one more.
    pub fn more(&mut self) {
        let len = self.all.len();
        if self.own.is_empty() {
            let lent = SPARE.lock().unwrap().pop();
            let lent = lent.unwrap_or_else(|| vec![Arrived::default()]);
            self.own = std::mem::replace(&mut self.all, lent);
            std::mem::swap(&mut self.all[0], &mut self.own[0]);
        }
        if self.all.len() == len {
            self.all.push(Arrived::default());
        }
    }

    /// The commands in the first `used` places have run. Large arguments are freed, because the client may rest for
    /// long, and they are shared with the store.
    pub fn give_back(&mut self, used: usize) {
        self.all[0].args.free_large();
        if !self.own.is_empty() {
            self.all[1..].iter_mut().take(used).for_each(|arrived| arrived.args.keep_little());
            std::mem::swap(&mut self.all[0], &mut self.own[0]);
            let lent = std::mem::replace(&mut self.all, std::mem::take(&mut self.own));
            let mut spare = SPARE.lock().unwrap();
            if spare.len() < MOST {
                spare.push(lent);
            }
        }
    }
}

impl Deref for Places {
    type Target = [Arrived];

    fn deref(&self) -> &[Arrived] {
        &self.all
    }
}

impl DerefMut for Places {
    fn deref_mut(&mut self) -> &mut [Arrived] {
        &mut self.all
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_one_client_gives_back_is_lent_to_the_next_one_but_nothing_large() {
        let mut one = Places::new();
        while one.len() < 3 {
            one.more();
        }
        one[0].args.push(b"own");
        one[1].args.push(b"short");
        one[2].args.push(&[b'x'; 5_000]);
        let short = one[1].args[0].as_ptr();
        one.give_back(3);
        assert_eq!((one.len(), &one[0].args[0]), (1, &b"own"[..]));
        let mut other = Places::new();
        other.more();
        let lent = other.len();
        assert!(lent >= 3 && other[0].args.len() == 0);
        other[1].args.clear();
        other[1].args.push(b"brief");
        assert_eq!(other[1].args[0].as_ptr(), short);
        assert!(other[2].args.len() == 0);
        other.more();
        assert_eq!(other.len(), lent + 1);
    }
}
