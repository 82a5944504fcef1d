//! A cursor over a command's arguments, with Redis's errors.
//!
//! A handler with options reads its arguments from left to right and does not count. The arity has been
//! checked, so [`Cursor::next`] is for arguments that are certainly there. [`Cursor::option`] gives an
//! option, or nothing at the end. [`Cursor::operand`] gives the value after an option, or a syntax error.
//!
//! ```text
//! GETEX key EX 100      arity -2, so `next` gives `key`; `option` gives EX, `operand` gives 100
//! GETEX key EX          `operand` gives "ERR syntax error"
//! ```
//!
//! **How Redis does it**: each command counts in `c->argv` itself. Functions such as
//! `getLongLongFromObjectOrReply` in object.c send the error. Here an error is a value, and `?` returns it.

use crate::error::Error;
use crate::resp::{Args, parse_integer};
use std::ops::Range;

/// A command's arguments, and the index of the next one.
pub struct Cursor<'a> {
    args: &'a Args,
    at: usize,
}

impl<'a> Cursor<'a> {
    /// Begins after the command's name.
    pub fn new(args: &'a Args) -> Cursor<'a> {
        Cursor::at(args, 1)
    }

    /// Begins at argument `at`. The command's name is argument 0.
    pub fn at(args: &'a Args, at: usize) -> Cursor<'a> {
        Cursor { args, at }
    }

    pub fn left(&self) -> usize {
        self.args.len() - self.at
    }

    /// The next argument. The arity must guarantee that there is one.
    pub fn next(&mut self) -> &'a [u8] {
        self.at += 1;
        &self.args[self.at - 1]
    }

    pub fn integer(&mut self) -> Result<i64, Error> {
        integer(self.next())
    }

    /// The name of the next option in upper case, if there is one.
    pub fn option(&mut self) -> Option<Vec<u8>> {
        (self.left() > 0).then(|| self.next().to_ascii_uppercase())
    }

    /// The value after an option. It is a syntax error if that is missing.
    pub fn operand(&mut self) -> Result<&'a [u8], Error> {
        if self.left() == 0 { Err(Error::Syntax) } else { Ok(self.next()) }
    }

    pub fn rest(self) -> impl ExactSizeIterator<Item = &'a [u8]> {
        (self.at..self.args.len()).map(|i| &self.args[i])
    }

    /// The arguments that are left, in pairs. None if their number is odd.
    pub fn pairs(self) -> Option<impl ExactSizeIterator<Item = (&'a [u8], &'a [u8])>> {
        let even = self.left().is_multiple_of(2);
        even.then(|| {
            (0..self.left() / 2)
                .map(move |i| (&self.args[self.at + 2 * i], &self.args[self.at + 2 * i + 1]))
        })
    }
}

/// A whole number, as in Redis's `getLongLongFromObject`.
pub fn integer(text: &[u8]) -> Result<i64, Error> {
    parse_integer(text).ok_or(Error::NotInteger)
}

/// A whole number that is not less. If it is less or no number, Redis has one text for both.
pub fn at_least(least: i64, text: &[u8], error: &'static str) -> Result<usize, Error> {
    let number = parse_integer(text).filter(|number| *number >= least);
    number.map(|number| number as usize).ok_or_else(|| Error::text(error))
}

/// The arguments of LMPOP, ZMPOP and their blocking forms: `numkeys key [key ...] side [COUNT count]`.
pub struct ManyPop<S> {
    /// Which arguments are keys.
    pub keys: Range<usize>,
    pub side: S,
    pub count: usize,
}

impl<S> ManyPop<S> {
    /// The number of keys is argument `at`. `side` reads which end is meant.
    pub fn parse(
        args: &Args,
        at: usize,
        side: fn(&[u8]) -> Result<S, Error>,
    ) -> Result<ManyPop<S>, Error> {
        let numkeys = at_least(1, &args[at], "ERR numkeys should be greater than 0")?;
        let keys = at + 1..(at + 1).saturating_add(numkeys);
        if keys.end >= args.len() {
            return Err(Error::Syntax);
        }
        let mut words = Cursor::at(args, keys.end);
        let side = side(words.next())?;
        let count = match words.option() {
            None => 1,
            Some(option) if option == b"COUNT" => {
                at_least(1, words.operand()?, "ERR count should be greater than 0")?
            }
            Some(_) => return Err(Error::Syntax),
        };
        if words.left() > 0 {
            return Err(Error::Syntax);
        }
        Ok(ManyPop { keys, side, count })
    }
}

/// A whole number that fits into C's `int`. Redis reads a database index like this.
pub fn index(text: &[u8]) -> Result<i32, Error> {
    i32::try_from(integer(text)?).map_err(|_| Error::OutsideOfInt)
}

/// The index, if it is one of `count` databases.
pub fn within(index: i32, count: usize) -> Result<usize, Error> {
    let index = usize::try_from(index).ok();
    index.filter(|&index| index < count).ok_or(Error::DbIndexOutOfRange)
}

/// A database index. There are `count` databases.
pub fn database(text: &[u8], count: usize) -> Result<usize, Error> {
    within(index(text)?, count)
}
