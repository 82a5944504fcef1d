//! Reading a value, in any form in which Redis or Valkey has ever stored one of our types.

use super::elements::{Elements, number};
use super::source::Source;
use super::{Error, form, listpack, node, ziplist};
use crate::blob::Blob;
use crate::resp::{Arg, LARGE, parse_double};
use crate::types::{
    Accumulator, Edit, Hash, Limits, List, Loose, Member, NewStr, Set, Side, Type, Zset,
};
use std::cell::Cell;
use std::sync::Arc;

/// Reads values one after another. Its memory is used again.
#[derive(Default)]
pub struct Values {
    string: Vec<u8>,
    second: Vec<u8>,
    elements: Elements,
}

/// More than this is not believed of a count: a collection that has more grows with what comes.
const EXPECTED: u64 = 1024;

/// So many members are read before they go into a sorted set together.
const GROUP: usize = 64;

const UNKNOWN: &str = "a value of an unknown type";

/// What a form is called that cannot be read. `None` if it can.
pub fn unreadable(form: u8) -> Option<&'static str> {
    match form {
        form::STRING..=form::ZSET_2 | form::LIST_ZIPLIST..=form::LIST_QUICKLIST => None,
        form::HASH_LISTPACK..=form::LIST_QUICKLIST_2 | form::SET_LISTPACK => None,
        6 | 7 => Some("a value of a module"),
        9 => Some("a hash of Redis 2.4 (zipmap)"),
        15 | 19 | 21 => Some("a stream"),
        22..=25 => Some("a hash whose fields expire"),
        _ => Some(UNKNOWN),
    }
}

impl Values {
    /// Reads a value of this form, which is to be that of `key`. `None` if nothing is in it.
    pub fn read(
        &mut self,
        source: &mut Source,
        form: u8,
        key: &[u8],
        limits: &Limits,
    ) -> Result<Option<Loose>, Error> {
        if let Some(name) = unreadable(form) {
            let reason = format!("it is {name} (type {form})");
            // No version that we read has other types than these, so such a byte is damage.
            let is_damage = name == UNKNOWN;
            return Err(if is_damage { source.error(reason) } else { source.not_here(reason) });
        }
        match form {
            form::STRING => {
                source.string(&mut self.string)?;
                let large = self.string.len() > LARGE;
                let shared = large.then(|| Arc::new(Blob::from(std::mem::take(&mut self.string))));
                let string = shared.as_ref().map_or(Arg::Small(&self.string), Arg::Large);
                Ok(Some(Loose::string(key, &NewStr::new(&string))))
            }
            form::LIST | form::LIST_ZIPLIST | form::LIST_QUICKLIST | form::LIST_QUICKLIST_2 => {
                fill(key, limits, |list| self.list(source, form, list))
            }
            form::SET | form::SET_INTSET | form::SET_LISTPACK => {
                fill(key, limits, |set| self.set(source, form, set))
            }
            form::HASH | form::HASH_ZIPLIST | form::HASH_LISTPACK => {
                fill(key, limits, |hash| self.hash(source, form, hash))
            }
            _ => fill(key, limits, |zset| self.zset(source, form, zset)),
        }
    }

    fn list(&mut self, source: &mut Source, form: u8, list: &mut Edit<List>) -> Result<(), Error> {
        let count = if form == form::LIST_ZIPLIST { 1 } else { source.length()? };
        for _ in 0..count {
            let is_plain = match form {
                form::LIST => true,
                form::LIST_QUICKLIST_2 => match source.length()? {
                    node::PLAIN => true,
                    node::PACKED => false,
                    other => {
                        return Err(source.error(format!("a node of the unknown kind {other}")));
                    }
                },
                _ => false,
            };
            if is_plain {
                source.string(&mut self.string)?;
                list.push(Side::Right, &self.string);
                continue;
            }
            self.read_elements(source, form == form::LIST_QUICKLIST_2)?;
            self.elements.iter().for_each(|element| list.push(Side::Right, element));
        }
        Ok(())
    }

    fn set(&mut self, source: &mut Source, form: u8, set: &mut Edit<Set>) -> Result<(), Error> {
        let twice = "a member is there twice";
        match form {
            form::SET => {
                let count = source.length()?;
                set.expect(count.min(EXPECTED) as usize);
                for _ in 0..count {
                    source.string(&mut self.string)?;
                    if !set.add(Member::Bytes(&self.string)) {
                        return Err(source.error(twice));
                    }
                }
                Ok(())
            }
            form::SET_INTSET => {
                source.string(&mut self.string)?;
                let numbers = numbers(&self.string).map_err(|reason| source.error(reason))?;
                set.expect(numbers.len());
                for number in numbers {
                    set.add(Member::Number(number));
                }
                Ok(())
            }
            _ => {
                self.read_elements(source, true)?;
                set.expect(self.elements.len());
                let all_new = self.elements.iter().all(|member| set.add(Member::Bytes(member)));
                all_new.then_some(()).ok_or_else(|| source.error(twice))
            }
        }
    }

    fn hash(&mut self, source: &mut Source, form: u8, hash: &mut Edit<Hash>) -> Result<(), Error> {
        let twice = "a field is there twice";
        if form != form::HASH {
            self.read_pairs(source, form == form::HASH_LISTPACK)?;
            let all_new = self.elements.pairs().all(|(name, value)| hash.set(name, value));
            return all_new.then_some(()).ok_or_else(|| source.error(twice));
        }
        for _ in 0..source.length()? {
            source.string(&mut self.string)?;
            source.string(&mut self.second)?;
            if !hash.set(&self.string, &self.second) {
                return Err(source.error(twice));
            }
        }
        Ok(())
    }

    fn zset(&mut self, source: &mut Source, form: u8, zset: &mut Edit<Zset>) -> Result<(), Error> {
        let mut gathered = Accumulator::with_room(0);
        let is_packed = matches!(form, form::ZSET_ZIPLIST | form::ZSET_LISTPACK);
        let mut left = if is_packed { 1 } else { source.length()? };
        let mut scores = Vec::new();
        while left > 0 {
            scores.clear();
            if is_packed {
                left = 0;
                self.read_pairs(source, form == form::ZSET_LISTPACK)?;
                for (_, score) in self.elements.pairs() {
                    scores.push(
                        parse_double(score)
                            .ok_or_else(|| source.error("a score that is no number"))?,
                    );
                }
            } else {
                self.elements.clear();
                for _ in 0..left.min(GROUP as u64) {
                    source.string(&mut self.string)?;
                    self.elements.push(&self.string);
                    // As if they were pairs.
                    self.elements.push(b"");
                    scores.push(score(source, form)?);
                    left -= 1;
                }
            }
            let members = self.elements.pairs().map(|(member, _)| Member::Bytes(member));
            let is_twice = Cell::new(false);
            gathered.add_all(members.zip(scores.iter().copied()), |old, _| {
                is_twice.set(true);
                old
            });
            if is_twice.get() {
                return Err(source.error("a member is there twice"));
            }
        }
        zset.fill(gathered.sorted());
        Ok(())
    }

    /// Reads a listpack or a ziplist.
    fn read_elements(&mut self, source: &mut Source, is_listpack: bool) -> Result<(), Error> {
        source.string(&mut self.string)?;
        self.elements.clear();
        let read = if is_listpack { listpack::read } else { ziplist::read };
        read(&self.string, &mut self.elements).map_err(|reason| source.error(reason))
    }

    fn read_pairs(&mut self, source: &mut Source, is_listpack: bool) -> Result<(), Error> {
        self.read_elements(source, is_listpack)?;
        match self.elements.len() % 2 {
            0 => Ok(()),
            _ => Err(source.error("its elements are no pairs")),
        }
    }
}

/// Makes a value of a type that `read` fills.
fn fill<T: Type>(
    key: &[u8],
    limits: &Limits,
    read: impl FnOnce(&mut Edit<T>) -> Result<(), Error>,
) -> Result<Option<Loose>, Error> {
    let mut result = Ok(());
    let loose = Loose::filled(key, limits, |edit| result = read(edit));
    result.map(|()| loose)
}

/// A score that stands by itself: eight bytes, or before Redis 4 text.
fn score(source: &mut Source, form: u8) -> Result<f64, Error> {
    let score = match form {
        form::ZSET => match source.byte()? {
            253 => f64::NAN,
            254 => f64::INFINITY,
            255 => f64::NEG_INFINITY,
            length => {
                let mut text = [0; 252];
                let text = &mut text[..usize::from(length)];
                for byte in text.iter_mut() {
                    *byte = source.byte()?;
                }
                parse_double(text).unwrap_or(f64::NAN)
            }
        },
        _ => f64::from_le_bytes(source.array()?),
    };
    match score.is_nan() {
        true => Err(source.error("a score that is no number")),
        false => Ok(score),
    }
}

/// The numbers of an intset: their width, how many they are, and the numbers in order.
fn numbers(bytes: &[u8]) -> Result<Vec<i64>, &'static str> {
    let (header, rest) = bytes.split_first_chunk::<8>().ok_or("an intset without a header")?;
    let (width, count) = (number(&header[..4]), number(&header[4..]));
    let width = match width {
        2 | 4 | 8 => width as usize,
        _ => return Err("an intset of another width"),
    };
    if rest.len() as i64 != count * width as i64 {
        return Err("an intset of another size");
    }
    let numbers: Vec<i64> = rest.chunks_exact(width).map(number).collect();
    match numbers.is_sorted_by(|a, b| a < b) {
        true => Ok(numbers),
        false => Err("an intset that is in no order"),
    }
}
