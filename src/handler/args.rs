//! A cursor over a command's arguments that gives Redis's errors.
//!
//! Handlers with options read their arguments from left to right and do not count: arity has been checked
//! before they run, so [`Cursor::next`] is for what is sure to be there. Options are read with
//! [`Cursor::option`] until there are none left, and what follows an option with
//! [`Cursor::operand`], whose absence is a syntax error.
//!
//! ```text
//! GETEX key EX 100      arity -2: `next` is sure of `key`; `option` gives EX, `operand` gives 100
//! GETEX key EX          the same row; `operand` gives "ERR syntax error"
//! ```
//!
//! **How Redis does it**: each command counts in `c->argv` for itself, with functions of object.c
//! that reply the error on the way, such as `getLongLongFromObjectOrReply`. Here an error is a
//! value, and `?` passes it up to where the command was called.

use crate::error::Error;
use crate::resp::{Args, parse_integer};

/// A command's arguments and the place of the next one to be read.
pub struct Cursor<'a> {
    args: &'a Args,
    at: usize,
}

impl<'a> Cursor<'a> {
    /// Begins after the command's name.
    pub fn new(args: &'a Args) -> Cursor<'a> {
        Cursor::at(args, 1)
    }

    /// Begins at word `at`; the command's name is word 0.
    pub fn at(args: &'a Args, at: usize) -> Cursor<'a> {
        Cursor { args, at }
    }

    /// How many arguments are left.
    pub fn left(&self) -> usize {
        self.args.len() - self.at
    }

    /// The next argument, which the arity has promised.
    pub fn next(&mut self) -> &'a [u8] {
        self.at += 1;
        &self.args[self.at - 1]
    }

    /// The next argument as an integer.
    pub fn integer(&mut self) -> Result<i64, Error> {
        integer(self.next())
    }

    /// The next word, if there is one: an option's name in upper case, to be matched.
    pub fn option(&mut self) -> Option<Vec<u8>> {
        (self.left() > 0).then(|| self.next().to_ascii_uppercase())
    }

    /// What an option needs after it; a syntax error if it is missing.
    pub fn operand(&mut self) -> Result<&'a [u8], Error> {
        if self.left() == 0 { Err(Error::Syntax) } else { Ok(self.next()) }
    }

    /// The arguments that are left, one by one.
    pub fn rest(self) -> impl ExactSizeIterator<Item = &'a [u8]> {
        (self.at..self.args.len()).map(|i| &self.args[i])
    }

    /// The arguments that are left, two by two; `None` if one would be left over.
    pub fn pairs(self) -> Option<impl ExactSizeIterator<Item = (&'a [u8], &'a [u8])>> {
        let even = self.left().is_multiple_of(2);
        even.then(|| {
            (0..self.left() / 2)
                .map(move |i| (&self.args[self.at + 2 * i], &self.args[self.at + 2 * i + 1]))
        })
    }
}

/// A whole number, as Redis's `getLongLongFromObject` takes it.
pub fn integer(text: &[u8]) -> Result<i64, Error> {
    parse_integer(text).ok_or(Error::NotInteger)
}

/// A whole number that C's `int` holds, as Redis reads the number of a database.
pub fn index(text: &[u8]) -> Result<i32, Error> {
    i32::try_from(integer(text)?).map_err(|_| Error::OutsideOfInt)
}

/// The same number if there is such a database among `count`.
pub fn within(index: i32, count: usize) -> Result<usize, Error> {
    let index = usize::try_from(index).ok();
    index.filter(|&index| index < count).ok_or(Error::DbIndexOutOfRange)
}

/// One of `count` databases.
pub fn database(text: &[u8], count: usize) -> Result<usize, Error> {
    within(index(text)?, count)
}
