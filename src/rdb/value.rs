//! Reading a value, in any form in which Redis or Valkey has ever stored one of our types.

use super::source::Source;
use super::{Error, form, listpack, node, ziplist};
use crate::resp::parse_double;
use crate::types::{
    Fields, Form, Gathered, Hash, Limits, Member, NewList, Scores, Set, SetMembers, Str, Twice,
    Zset,
};

/// Reads values one after another. Its memory is used again.
#[derive(Default)]
pub struct Values {
    string: Vec<u8>,
    second: Vec<u8>,
    gathered: Gathered,
    list: NewList,
}

/// Is given the elements of a listpack or a ziplist, and may say what is wrong with them.
pub type Take<'a> = dyn FnMut(Member) -> Result<(), &'static str> + 'a;

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

/// What is wrong with a value.
enum Fault {
    At(Error),
    /// Just here.
    Here(String),
}

impl From<Error> for Fault {
    fn from(error: Error) -> Fault {
        Fault::At(error)
    }
}

impl From<&str> for Fault {
    fn from(reason: &str) -> Fault {
        Fault::Here(reason.into())
    }
}

impl From<Twice> for Fault {
    fn from(_: Twice) -> Fault {
        "an element is there twice".into()
    }
}

impl Values {
    /// Reads a value of this form. `None` if nothing is in it.
    pub fn read(
        &mut self,
        source: &mut Source,
        form: u8,
        limits: &Limits,
    ) -> Result<Option<Form<'_>>, Error> {
        let result = match form {
            form::STRING => self.string(source),
            form::LIST | form::LIST_ZIPLIST | form::LIST_QUICKLIST | form::LIST_QUICKLIST_2 => {
                self.list(source, form, limits)
            }
            form::SET | form::SET_LISTPACK => self.set(source, form, limits),
            form::SET_INTSET => self.intset(source, limits),
            form::HASH | form::HASH_ZIPLIST | form::HASH_LISTPACK => {
                self.hash(source, form, limits)
            }
            form::ZSET | form::ZSET_2 => self.scores(source, form, limits),
            form::ZSET_ZIPLIST | form::ZSET_LISTPACK => self.zset(source, form, limits),
            _ => {
                let name = unreadable(form).unwrap_or(UNKNOWN);
                let reason = format!("it is {name} (type {form})");
                // No version that we read has other types than the known ones, so such a byte is damage.
                Err(match name {
                    UNKNOWN => Fault::Here(reason),
                    _ => Fault::At(source.not_here(reason)),
                })
            }
        };
        result.map_err(|fault| match fault {
            Fault::At(error) => error,
            Fault::Here(reason) => source.error(reason),
        })
    }

    fn string(&mut self, source: &mut Source) -> Result<Option<Form<'_>>, Fault> {
        source.string(&mut self.string)?;
        Ok(Some(Str::whole(&mut self.string)))
    }

    fn list(
        &mut self,
        source: &mut Source,
        form: u8,
        limits: &Limits,
    ) -> Result<Option<Form<'_>>, Fault> {
        let Values { string, list, .. } = self;
        list.begin();
        let count = if form == form::LIST_ZIPLIST { 1 } else { source.length()? };
        for _ in 0..count {
            let is_plain = match form {
                form::LIST => true,
                form::LIST_QUICKLIST_2 => match source.length()? {
                    node::PLAIN => true,
                    node::PACKED => false,
                    other => {
                        return Err(Fault::Here(format!("a node of the unknown kind {other}")));
                    }
                },
                _ => false,
            };
            source.string(string)?;
            if is_plain {
                list.push(string, limits.list);
                continue;
            }
            unpack(string, form == form::LIST_QUICKLIST_2, &mut |element| {
                element.read(|bytes| list.push(bytes, limits.list));
                Ok(())
            })?;
        }
        Ok(list.end())
    }

    fn set(
        &mut self,
        source: &mut Source,
        form: u8,
        limits: &Limits,
    ) -> Result<Option<Form<'_>>, Fault> {
        let Values { string, gathered, .. } = self;
        gathered.clear();
        if form == form::SET_LISTPACK {
            source.string(string)?;
            unpack(string, true, &mut |member| {
                member.read(|bytes| gathered.push(bytes));
                Ok(())
            })?;
        } else {
            let count = source.length()?;
            if count > limits.intset.max(limits.set.entries) as u64 {
                let mut members = SetMembers::expecting(count);
                for _ in 0..count {
                    source.string(string)?;
                    members.add(string)?;
                }
                return Ok(Some(members.end()?));
            }
            for _ in 0..count {
                source.string(string)?;
                gathered.push(string);
            }
        }
        match gathered.len() {
            0 => Ok(None),
            _ => Ok(Some(Set::whole(gathered, limits)?)),
        }
    }

    /// The width of the numbers, how many they are, and the numbers in order.
    fn intset(&mut self, source: &mut Source, limits: &Limits) -> Result<Option<Form<'_>>, Fault> {
        const HEADER: usize = 8;
        source.string(&mut self.string)?;
        let header = self.string.first_chunk::<HEADER>().ok_or("an intset without a header")?;
        let (width, count) = (number(&header[..4]), number(&header[4..]));
        if ![2, 4, 8].contains(&width) {
            return Err("an intset of another width".into());
        }
        if (self.string.len() - HEADER) as i64 != count * width {
            return Err("an intset of another size".into());
        }
        // Ours has the same numbers behind one byte for the width.
        self.string[HEADER - 1] = width as u8;
        match count {
            0 => Ok(None),
            _ => {
                let numbers = Set::numbers(&self.string[HEADER - 1..], limits);
                Ok(Some(numbers.ok_or("an intset that is in no order")?))
            }
        }
    }

    fn hash(
        &mut self,
        source: &mut Source,
        form: u8,
        limits: &Limits,
    ) -> Result<Option<Form<'_>>, Fault> {
        let Values { string, second, gathered, .. } = self;
        gathered.clear();
        if form == form::HASH {
            let count = source.length()?;
            let mut fields = Fields::expecting(count);
            let is_large = count > limits.hash.entries as u64;
            for _ in 0..count {
                source.string(string)?;
                source.string(second)?;
                if is_large {
                    fields.add(string, second)?;
                } else {
                    gathered.push(string);
                    gathered.push(second);
                }
            }
            if is_large {
                return Ok(Some(fields.end()?));
            }
        } else {
            source.string(string)?;
            unpack(string, form == form::HASH_LISTPACK, &mut |element| {
                element.read(|bytes| gathered.push(bytes));
                Ok(())
            })?;
        }
        Ok(if has_pairs(gathered)? { Some(Hash::whole(gathered, limits)?) } else { None })
    }

    /// A sorted set as a listpack or a ziplist.
    fn zset(
        &mut self,
        source: &mut Source,
        form: u8,
        limits: &Limits,
    ) -> Result<Option<Form<'_>>, Fault> {
        let Values { string, gathered, .. } = self;
        gathered.clear();
        source.string(string)?;
        unpack(string, form == form::ZSET_LISTPACK, &mut |element| {
            if gathered.len() % 2 == 0 {
                element.read(|bytes| gathered.push(bytes));
                return Ok(());
            }
            let score = match element {
                Member::Number(number) => Some(number as f64),
                _ => element.read(parse_double),
            };
            Zset::push_score(score.ok_or(NO_SCORE)?, gathered);
            Ok(())
        })?;
        Ok(if has_pairs(gathered)? { Some(Zset::whole(gathered, limits)?) } else { None })
    }

    /// A sorted set as members and scores that stand by themselves.
    fn scores(
        &mut self,
        source: &mut Source,
        form: u8,
        limits: &Limits,
    ) -> Result<Option<Form<'_>>, Fault> {
        let count = source.length()?;
        let mut scores = Scores::expecting(count);
        for _ in 0..count {
            source.string(&mut self.string)?;
            scores.add(&self.string, score(source, form)?)?;
        }
        match count {
            0 => Ok(None),
            _ => Ok(Some(scores.end(&mut self.gathered, limits)?)),
        }
    }
}

const NO_PAIRS: &str = "its elements are no pairs";
const NO_SCORE: &str = "a score that is no number";

/// Whether something was gathered: fields and values, or members and scores, in pairs.
fn has_pairs(gathered: &Gathered) -> Result<bool, Fault> {
    if gathered.len() % 2 == 1 { Err(NO_PAIRS.into()) } else { Ok(gathered.len() > 0) }
}

/// Hands the elements of a listpack or a ziplist to `take`.
fn unpack(bytes: &[u8], is_listpack: bool, take: &mut Take) -> Result<(), &'static str> {
    if is_listpack { listpack::read(bytes, take) } else { ziplist::read(bytes, take) }
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
        true => Err(source.error(NO_SCORE)),
        false => Ok(score),
    }
}

/// The number that up to eight bytes are, little endian, with the sign in the last.
pub fn number(bytes: &[u8]) -> i64 {
    let is_negative = bytes.last().is_some_and(|last| *last >= 0x80);
    let mut whole = if is_negative { [0xff; 8] } else { [0; 8] };
    whole[..bytes.len()].copy_from_slice(bytes);
    i64::from_le_bytes(whole)
}
