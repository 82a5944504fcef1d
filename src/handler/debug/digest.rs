//! DEBUG DIGEST: forty digits that are equal on two servers if their data is. Redis computes the same.
//!
//! ```text
//! value    0 ─ mix(type) ─ mix or xor of each element ─ xor("!!expire!!"), if it has a deadline
//! key      0 ─ mix(name) ─ then as a value
//! all      0 ─ for each database that is not empty: mix(number), then xor(the digest of each key)
//! ```
//!
//! To *xor* is to combine a digest with that of some bytes, bit by bit. Then the order does not count: of keys, of the
//! members of a set, of the fields of a hash. To *mix* is to do that and take the digest of the result. Then it counts: of
//! a list's elements. A field and its value are mixed first, and then xored as one.
//!
//! What is expired and not deleted yet counts, and of a deadline only that there is one.
//!
//! **How Redis does it**: debug.c, `computeDatasetDigest`.

use crate::sha1::{Digest, sha1};
use crate::store::View;
use crate::types::{Entry, Part};

/// Of all databases.
pub fn of_everything(view: &View) -> Digest {
    let mut digest = Digest::default();
    for db in 0..view.databases() {
        let view = view.in_db(db);
        let mut entries = view.with_expired().peekable();
        if entries.peek().is_none() {
            continue;
        }
        mix(&mut digest, &(db as u32).to_be_bytes());
        for entry in entries {
            let mut own = Digest::default();
            mix(&mut own, entry.key());
            add_value(&mut own, entry);
            xor(&mut digest, &own);
        }
    }
    digest
}

/// Of a value, whatever its key.
pub fn of_value(entry: Entry) -> Digest {
    let mut digest = Digest::default();
    add_value(&mut digest, entry);
    digest
}

fn add_value(digest: &mut Digest, entry: Entry) {
    let value = entry.value();
    mix(digest, &value.number().to_be_bytes());
    value.parts(&mut |part| match part {
        Part::InOrder(bytes) => mix(digest, bytes),
        Part::Alone(bytes) => xor(digest, bytes),
        Part::Pair(first, second) => xor_pair(digest, first, second),
    });
    if entry.deadline().is_some() {
        xor(digest, b"!!expire!!");
    }
}

fn xor_pair(digest: &mut Digest, first: &[u8], second: &[u8]) {
    let mut pair = Digest::default();
    mix(&mut pair, first);
    mix(&mut pair, second);
    xor(digest, &pair);
}

fn xor(digest: &mut Digest, bytes: &[u8]) {
    digest.iter_mut().zip(sha1(bytes)).for_each(|(byte, other)| *byte ^= other);
}

fn mix(digest: &mut Digest, bytes: &[u8]) {
    xor(digest, bytes);
    *digest = sha1(digest);
}
