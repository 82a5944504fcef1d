//! Copies of entries, on their way to a snapshot (store/moment.rs).
//!
//! The bytes of all lie one behind another in one heap, so a copy of a small entry costs little more than its bytes. A large
//! value is not copied, but shared (shared.rs).

use super::entry::{Entry, Stored};
use super::heap::Heap;

#[derive(Default)]
pub struct Copies {
    entries: Vec<Stored>,
    heap: Heap,
}

impl Copies {
    pub fn add(&mut self, entry: Entry) {
        let (key, deadline) = (entry.key(), entry.deadline());
        let usage = entry.usage().clone();
        self.entries.push(Stored::new(key, deadline, entry.copy(), usage, &mut self.heap));
    }

    pub fn iter(&self) -> impl Iterator<Item = Entry<'_>> {
        self.entries.iter().map(|entry| Entry { entry, heap: &self.heap })
    }

    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Bytes that they take, without what is shared with the originals.
    pub fn bytes(&self) -> usize {
        self.heap.used() + self.entries.len() * size_of::<Stored>()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::types::{Edit, Hash, Limits, Loose, Member, Packed, Set, Zset};

    #[test]
    fn a_large_value_is_shared_until_it_is_changed() {
        let limits = Limits { hash: Packed { entries: 4, value: 64 }, ..Limits::NOTHING };
        let mut original = Loose::new::<Hash>(b"key");
        for name in 0..10u8 {
            original.change(&limits, |hash: &mut Edit<Hash>| hash.set(&[name], &[b'v'; 100]));
        }
        let mut copies = Copies::default();
        copies.add(original.look());
        copies.add(original.look());
        let value = |entry: Entry, name: u8| {
            let found = entry.read::<Hash>().unwrap().get(&[name]).map(<[u8]>::as_ptr);
            found.map(|at| at.addr())
        };
        let values = || copies.iter().map(|copy| value(copy, 1)).collect::<Vec<_>>();
        assert_eq!(values(), [value(original.look(), 1); 2]);
        assert!(copies.bytes() < 100, "{}", copies.bytes());
        original.change(&limits, |hash: &mut Edit<Hash>| hash.set(b"new", b"v"));
        assert_eq!(values()[0], values()[1]);
        assert_ne!(values()[0], value(original.look(), 1));
        assert!(copies.iter().all(|copy| copy.read::<Hash>().unwrap().len() == 10));
    }

    #[test]
    fn what_changes_nothing_does_not_copy_what_is_shared() {
        let few = Packed { entries: 4, value: 64 };
        let limits = Limits { set: few, zset: few, ..Limits::NOTHING };
        let (mut set, mut zset) = (Loose::new::<Set>(b"s"), Loose::new::<Zset>(b"z"));
        for name in 0..10u8 {
            set.change(&limits, |set: &mut Edit<Set>| set.add(Member::Bytes(&[b'a' + name])));
            zset.change(&limits, |zset: &mut Edit<Zset>| zset.put(&[b'a' + name], |_| Some(1.0)));
        }
        let place = |entry: Entry| match (entry.read::<Set>(), entry.read::<Zset>()) {
            (Some(Set::Table(table)), _) => std::ptr::from_ref(table).addr(),
            (_, Some(Zset::Sorted(sorted))) => std::ptr::from_ref(sorted).addr(),
            _ => panic!("it is large"),
        };
        let mut copies = Copies::default();
        copies.add(set.look());
        copies.add(zset.look());
        let shared: Vec<usize> = copies.iter().map(place).collect();
        set.change(&limits, |set: &mut Edit<Set>| {
            assert!(!set.add(Member::Bytes(b"a")) && !set.remove(Member::Bytes(b"none")));
        });
        zset.change(&limits, |zset: &mut Edit<Zset>| {
            zset.put(b"a", |old| old.filter(|_| false));
            zset.put(b"a", |old| old);
            assert!(!zset.remove(b"none"));
        });
        assert_eq!([place(set.look()), place(zset.look())], shared[..]);
        set.change(&limits, |set: &mut Edit<Set>| set.add(Member::Bytes(b"new")));
        zset.change(&limits, |zset: &mut Edit<Zset>| zset.remove(b"a"));
        assert!(place(set.look()) != shared[0] && place(zset.look()) != shared[1]);
    }
}
