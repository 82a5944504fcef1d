//! A string: bytes, or a number that looks like its digits.
//!
//! ```text
//! SET k 12         Int       the number, in 8 bytes
//! SET k text       Embstr    the bytes; Raw if there are more than 44, or if they have been edited
//! SET k <100 KB>   Large     an allocation of its own, which replies and copies share
//! ```
//!
//! **How Redis does it**: t_string.c and object.c (`tryObjectEncoding`). The names of the forms, and when
//! a string has which, are Redis's, except that for Redis a string is never large.

use super::edit::{Edit, Place};
use super::entry::{Form, Kind, LargeValue, number_in};
use super::float::Float;
use super::{Part, Type, Value, allocated};
use crate::blob::Blob;
use crate::error::Error;
use crate::notify::Class;
use crate::resp::{Arg, Digits, parse_integer};
use std::sync::Arc;

/// A string to be read.
pub enum Str<'a> {
    /// The digits of a number that is stored.
    Digits(Digits),
    Embstr(&'a [u8]),
    Raw(&'a [u8]),
    /// A large one, which a reply may share.
    Shared(&'a Arc<Blob>),
}

/// A string that is to be stored.
pub enum NewStr<'a> {
    Number([u8; 8]),
    /// The bytes it is, even if they are digits.
    Bytes(&'a [u8]),
    Shared(&'a Arc<Blob>),
}

/// Strings up to this many bytes lie in their entry's piece. A longer one has an allocation of its own
/// that is so large that the allocator gives it back to the system when it is freed.
pub const LARGE: usize = 64 * 1024;

/// Strings up to this many bytes are `embstr` in Redis, longer ones `raw` (object.c).
const EMBSTR_LIMIT: usize = 44;

impl std::ops::Deref for Str<'_> {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        match self {
            Str::Digits(digits) => digits.as_bytes(),
            Str::Embstr(bytes) | Str::Raw(bytes) => bytes,
            Str::Shared(bytes) => bytes,
        }
    }
}

impl<'a> Str<'a> {
    /// How a string is stored that has come whole. Its bytes are taken.
    pub fn whole(bytes: &'a mut Vec<u8>) -> Form<'a> {
        match NewStr::new(&Arg::Small(bytes)) {
            NewStr::Number(number) => {
                bytes.clear();
                bytes.extend(number);
                Form::Small(Kind::Int, bytes)
            }
            _ if bytes.len() > LARGE => {
                // It has grown with the bytes that came, or was made for others.
                bytes.shrink_to_fit();
                Form::Large(blob(std::mem::take(bytes)).into())
            }
            _ => Form::Small(kind_of(bytes), bytes),
        }
    }
}

impl Str<'_> {
    pub(super) fn encoding(&self) -> &'static str {
        match self {
            Str::Digits(_) => "int",
            Str::Embstr(_) => "embstr",
            Str::Raw(_) | Str::Shared(_) => "raw",
        }
    }

    pub(super) fn memory(&self) -> usize {
        match self {
            Str::Shared(bytes) => allocated(40) + allocated(bytes.capacity()),
            _ => 0,
        }
    }

    pub(super) fn recount(&self) -> usize {
        self.memory()
    }

    pub(super) fn rewrite(&self, key: &[u8], emit: &mut dyn FnMut(&[&[u8]])) {
        emit(&[b"SET", key, self]);
    }

    pub(super) fn parts(&self, take: &mut dyn FnMut(Part)) {
        take(Part::InOrder(self));
    }
}

impl Type for Str<'_> {
    const NAME: &'static str = "string";
    const NUMBER: u32 = 0;
    const CLASS: Class = Class::String;
    /// The number 0, because INCR makes more of them than SETRANGE.
    const NEW: (Kind, &'static [u8]) = (Kind::Int, &[0; 8]);
    type Look<'a> = Str<'a>;
    type Large = Arc<Blob>;

    fn of(value: Value<'_>) -> Option<Str<'_>> {
        if let Value::String(string) = value { Some(string) } else { None }
    }

    fn is(kind: Kind) -> bool {
        matches!(kind, Kind::Int | Kind::Embstr | Kind::Raw)
    }

    fn large(value: &mut LargeValue) -> Option<&mut Arc<Blob>> {
        if let LargeValue::String(string) = value { Some(string) } else { None }
    }

    fn is_nothing(_: &Edit<Self>) -> bool {
        false
    }
}

impl From<Arc<Blob>> for LargeValue {
    fn from(string: Arc<Blob>) -> LargeValue {
        LargeValue::String(string)
    }
}

impl LargeValue {
    /// Whether it is freed in a moment, so that no other thread need be woken to do it.
    pub fn goes_at_once(&self) -> bool {
        matches!(self, LargeValue::String(string) if Blob::goes_at_once(string))
    }
}

impl<'a> NewStr<'a> {
    /// A string as SET stores it: as a number if Redis would, which is what has up to twenty characters and
    /// is written the one way in which it would be printed. A large argument is shared.
    #[inline]
    pub fn new(value: &'a Arg) -> NewStr<'a> {
        match value {
            Arg::Large(large) if large.len() > LARGE => NewStr::Shared(large),
            _ if value.len() > 20 => NewStr::Bytes(value),
            _ => match parse_integer(value) {
                Some(number) => NewStr::Number(number.to_le_bytes()),
                None => NewStr::Bytes(value),
            },
        }
    }

    /// How it is stored.
    #[inline]
    pub fn form(&self) -> Form<'_, Arc<Blob>> {
        match self {
            NewStr::Number(number) => Form::Small(Kind::Int, number),
            NewStr::Bytes(bytes) if bytes.len() <= LARGE => Form::Small(kind_of(bytes), bytes),
            NewStr::Bytes(bytes) => Form::Large(blob(bytes.to_vec())),
            NewStr::Shared(bytes) => Form::Large(Arc::clone(bytes)),
        }
    }

    fn to_vec(&self) -> Vec<u8> {
        match self {
            NewStr::Number(number) => Digits::new(number_in(number)).as_bytes().to_vec(),
            NewStr::Bytes(bytes) => bytes.to_vec(),
            NewStr::Shared(bytes) => bytes.to_vec(),
        }
    }
}

impl Edit<'_, Str<'_>> {
    pub fn look(&self) -> Str<'_> {
        match self.place() {
            _ if self.is_new => Str::Raw(b""),
            Place::Small(small) if small.kind() == Kind::Int => {
                Str::Digits(Digits::new(number_in(small.payload())))
            }
            Place::Small(small) => Str::Raw(small.payload()),
            Place::Large(bytes) => Str::Shared(bytes),
        }
    }

    pub fn len(&self) -> usize {
        self.look().len()
    }

    /// The number that it is; 0 if the key is missing.
    pub fn integer(&self) -> Option<i64> {
        match self.place() {
            _ if self.is_new => Some(0),
            Place::Small(small) if small.kind() == Kind::Int => Some(number_in(small.payload())),
            _ => parse_integer(&self.look()),
        }
    }

    /// The same of a number that may have a fraction.
    pub fn float(&self) -> Option<Float> {
        if self.is_new { Some(Float::ZERO) } else { Float::parse(&self.look()) }
    }

    /// Replaces it by a number. The memory of a number is used again.
    pub fn set_integer(&mut self, number: i64) {
        self.set(&NewStr::Number(number.to_le_bytes()));
    }

    /// Replaces it by the bytes themselves, even if they are digits.
    pub fn set_bytes(&mut self, bytes: &[u8]) {
        self.set(&NewStr::Bytes(bytes));
    }

    fn set(&mut self, string: &NewStr) {
        self.is_new = false;
        match (string.form(), self.place_mut()) {
            (Form::Small(kind, payload), Place::Small(small)) => small.set(kind, payload),
            // What is large stays so.
            (Form::Small(..), Place::Large(large)) => **large = blob(string.to_vec()),
            (Form::Large(large), place) => place.grow(large),
        }
    }

    /// Writes `patch` behind the end. Returns the new length.
    pub fn append(&mut self, patch: Arg) -> Result<usize, Error> {
        if self.is_new {
            // As SET does it, so it may be stored as a number.
            self.set(&NewStr::new(&patch));
            return Ok(patch.len());
        }
        self.patch(self.len(), &patch)
    }

    /// Stores it as the bytes it is, which are going to be changed. That is no change yet.
    pub fn make_raw(&mut self) {
        if self.is_new {
            return;
        }
        self.attempt(|place| {
            if let Place::Small(small) = place {
                match small.kind() {
                    Kind::Int => {
                        let digits = Digits::new(number_in(small.payload()));
                        small.set(Kind::Raw, digits.as_bytes());
                    }
                    _ => small.small.kind = Kind::Raw,
                }
            }
            ((), false)
        });
    }

    /// Writes `patch` at `offset`, after zero bytes if the string was shorter. Returns the new length.
    pub fn patch(&mut self, offset: usize, patch: &[u8]) -> Result<usize, Error> {
        let end = offset.saturating_add(patch.len());
        if end > self.limits.string {
            return Err(Error::StringTooLong);
        }
        if self.is_new {
            self.set(&NewStr::Bytes(b""));
        }
        if let Place::Small(small) = self.place_mut() {
            let payload = small.payload();
            if payload.len().max(end) > LARGE {
                let bytes = self.look().to_vec();
                self.place_mut().grow(blob(bytes));
            } else {
                self.make_raw();
            }
        }
        Ok(match self.place_mut() {
            Place::Small(small) => {
                let len = small.payload().len();
                if end <= len || small.fit(end) {
                    let bytes = small.payload_mut();
                    bytes[len.min(offset)..offset].fill(0);
                    bytes[offset..end].copy_from_slice(patch);
                } else {
                    small.edit(|bytes, start| write_at(bytes, start + offset, patch));
                }
                small.payload().len()
            }
            Place::Large(bytes) => {
                let bytes: &mut Blob = Arc::make_mut(bytes);
                write_at(bytes, offset, patch);
                bytes.len()
            }
        })
    }
}

/// Of a string that lies in its entry's piece, and is no number.
fn kind_of(bytes: &[u8]) -> Kind {
    if bytes.len() <= EMBSTR_LIMIT { Kind::Embstr } else { Kind::Raw }
}

fn blob(bytes: Vec<u8>) -> Arc<Blob> {
    Arc::new(bytes.into())
}

/// Writes `patch` at this place, growing `bytes` with zeros as far as that needs.
fn write_at(bytes: &mut Vec<u8>, at: usize, patch: &[u8]) {
    if bytes.len() < at {
        bytes.resize(at, 0);
    }
    let overlap = patch.len().min(bytes.len() - at);
    bytes[at..at + overlap].copy_from_slice(&patch[..overlap]);
    bytes.extend_from_slice(&patch[overlap..]);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::types::{Limits, Loose};

    const LIMITS: Limits = Limits { string: 1 << 20, ..Limits::NOTHING };

    #[test]
    fn a_patch_past_the_end_fills_the_gap_with_zeros() {
        let mut entry = Loose::new::<Str>(b"key");
        entry.edit().set(NewStr::Number(12i64.to_le_bytes()).form());
        assert_eq!(entry.look().value().encoding(), "int");
        let mut patch = |offset, patch| {
            entry.change(&LIMITS, |string: &mut Edit<Str>| string.patch(offset, patch))
        };
        assert_eq!(patch(4, b"ab"), Ok(6));
        assert_eq!(patch(LARGE, b"ab"), Ok(LARGE + 2));
        assert_eq!(patch(0, b"34"), Ok(LARGE + 2));
        assert_eq!(patch(LIMITS.string, b"x"), Err(Error::StringTooLong));
        assert_eq!(entry.look().read::<Str>().unwrap()[..6], *b"34\0\0ab");
        assert_eq!(entry.look().value().encoding(), "raw");
    }

    #[test]
    fn a_large_string_that_has_come_whole_keeps_no_more_than_its_bytes() {
        let mut bytes = Vec::with_capacity(10 * LARGE);
        bytes.resize(LARGE + 1, b'x');
        let Form::Large(LargeValue::String(string)) = Str::whole(&mut bytes) else {
            panic!("it is large");
        };
        assert_eq!((string.len(), string.capacity()), (LARGE + 1, LARGE + 1));
    }

    #[test]
    fn a_string_that_is_replaced_is_what_it_is_replaced_by() {
        let long = vec![b'l'; LARGE + 1];
        let strings = [&b"7"[..], b"text", &[b'x'; 100], &long];
        for (old, new) in strings.iter().flat_map(|old| strings.map(|new| (*old, new))) {
            let mut entry = Loose::new::<Str>(b"key");
            entry.edit().set(NewStr::new(&Arg::Small(old)).form());
            entry.change(&LIMITS, |string: &mut Edit<Str>| string.set_bytes(new));
            assert_eq!(&*entry.look().read::<Str>().unwrap(), new);
            entry.change(&LIMITS, |string: &mut Edit<Str>| string.set_integer(-3));
            assert_eq!(&*entry.look().read::<Str>().unwrap(), b"-3");
        }
    }
}
