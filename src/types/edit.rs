//! Changing a value where it lies.
//!
//! A handler that changes a value is given an [`Edit`] of its type, and so has looked at the type: there
//! is no way to patch a hash, or to set a field of a string. What an edit can do stands in the file of the
//! type. It has the value in one of two forms, and goes from the first to the second when the value grows:
//!
//! ```text
//! APPEND      Small, Int ──▶ Small, Raw ──▶ Large      past 64 KiB; never back
//! HSET        Small, Hash ──▶ Large                    past hash-max-listpack-…; never back
//! ```
//!
//! An edit knows whether it has changed anything, because a value can be changed only in two ways.
//! [`Edit::place_mut`] is a change. [`Edit::attempt`] is for what may find nothing to do, and must return
//! whether it has. So no handler and no type can forget to tell ([`crate::store::ViewMut::edit`]).
//!
//! **How Redis does it**: t_string.c and t_hash.c change an `robj`, whose type each command checks
//! (`checkType`), and assert that it is what they take it for. Each command says by itself what it changed
//! (`signalModifiedKey`, `server.dirty++`), and deletes a hash that has become empty.

use super::entry::{EntryMut, Form, SmallMut, Stored};
use super::shared::Shared;
use super::{Limits, Type};
use crate::error::Error;
use std::ops::{Deref, DerefMut};

/// A value of one type, to be changed.
pub struct Edit<'a, T: Type> {
    place: Place<'a, T::Large>,
    pub limits: &'a Limits,
    /// Whether the key is missing. If the edit changes the value, it will have it.
    pub is_new: bool,
    changed: bool,
}

/// Where a value lies.
pub(super) enum Place<'a, L> {
    Small(SmallMut<'a>),
    Large(LargeMut<'a, L>),
}

/// A large value: that of the entry, or what the edit has made of a small one.
pub(super) enum LargeMut<'a, L> {
    There(&'a mut L),
    Grown(L),
}

/// What an edit has done.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Change {
    Unchanged,
    Changed,
    /// Nothing is left of a collection, which may not stay.
    Emptied,
}

impl EntryMut<'_> {
    /// Changes the value; WRONGTYPE if it has another type.
    pub fn edit<T: Type, R>(
        &mut self,
        limits: &Limits,
        change: impl FnOnce(&mut Edit<T>) -> Result<R, Error>,
    ) -> (Result<R, Error>, Change) {
        self.edit_as(limits, false, change)
    }

    /// Fills the value of a key that was missing.
    pub fn fill<T: Type, R>(
        &mut self,
        limits: &Limits,
        change: impl FnOnce(&mut Edit<T>) -> Result<R, Error>,
    ) -> (Result<R, Error>, Change) {
        self.edit_as(limits, true, change)
    }

    fn edit_as<T: Type, R>(
        &mut self,
        limits: &Limits,
        is_new: bool,
        change: impl FnOnce(&mut Edit<T>) -> Result<R, Error>,
    ) -> (Result<R, Error>, Change) {
        let before = self.entry.value_memory(self.heap);
        let place = match &mut *self.entry {
            Stored::Small(small) => {
                T::is(small.kind).then(|| Place::Small(SmallMut { small, heap: self.heap }))
            }
            Stored::Large(number) => T::large(&mut self.heap.larges[number].value)
                .map(|value| Place::Large(LargeMut::There(value))),
        };
        let Some(place) = place else {
            return (Err(Error::WrongType), Change::Unchanged);
        };
        let mut edit = Edit { place, limits, is_new, changed: false };
        let result = change(&mut edit);
        let change = match edit.changed {
            false => Change::Unchanged,
            true if T::is_nothing(&edit) => Change::Emptied,
            true => Change::Changed,
        };
        let grown = match edit.place {
            Place::Large(LargeMut::Grown(value)) => Some(value),
            _ => None,
        };
        let after = self.entry.value_memory(self.heap);
        self.heap.count_outside(before, after);
        if let Some(value) = grown {
            self.set(Form::Large(value));
        }
        (result, change)
    }
}

impl<'a, T: Type> Edit<'a, T> {
    /// The value, to look at.
    pub(super) fn place(&self) -> &Place<'a, T::Large> {
        &self.place
    }

    /// The value, to be changed. That it is asked for is a change: the command is logged.
    pub(super) fn place_mut(&mut self) -> &mut Place<'a, T::Large> {
        self.changed = true;
        &mut self.place
    }

    /// The same for what may find nothing to do: `change` returns also whether it has done anything.
    pub(super) fn attempt<R>(
        &mut self,
        change: impl FnOnce(&mut Place<'a, T::Large>) -> (R, bool),
    ) -> R {
        let (result, changed) = change(&mut self.place);
        self.changed |= changed;
        result
    }
}

impl<T> Place<'_, Shared<T>> {
    /// Whether a change would copy the value ([`Shared::is_shared`]).
    pub(super) fn is_shared(&self) -> bool {
        matches!(self, Place::Large(large) if large.is_shared())
    }
}

impl<L> Place<'_, L> {
    /// Makes a small value large. It is put into the entry when the edit ends.
    pub(super) fn grow(&mut self, value: L) {
        *self = Place::Large(LargeMut::Grown(value));
    }
}

impl<L> Deref for LargeMut<'_, L> {
    type Target = L;

    fn deref(&self) -> &L {
        match self {
            LargeMut::There(value) => value,
            LargeMut::Grown(value) => value,
        }
    }
}

impl<L> DerefMut for LargeMut<'_, L> {
    fn deref_mut(&mut self) -> &mut L {
        match self {
            LargeMut::There(value) => value,
            LargeMut::Grown(value) => value,
        }
    }
}
