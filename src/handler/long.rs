//! What a command that takes long leaves to be done, with the lock given back in between (call/long.rs).

use crate::error::Error;
use crate::resp::{Args, Reply};
use crate::store::View;
use std::time::{Duration, Instant};

/// A handler that may leave something to be done.
pub type LongHandler = for<'a> fn(&View, &'a Args, &TimeSlice, &mut Reply) -> Left<'a>;

/// What it has left.
pub type Left<'a> = Result<Option<Rest<'a>>, Error>;

/// What a command that takes long has still to do.
pub enum Rest<'a> {
    /// To compute the reply from what was taken out of the keyspace, without a lock.
    Compute(Work<'a>),
    /// To look at the keyspace, with a new view each time, until it returns true, because it has
    /// replied.
    Look(Box<Look<'a>>),
    /// To look at the keyspace once, and then to compute what is left.
    LookOnce(Box<LookOnce<'a>>),
}

impl<'a> Rest<'a> {
    /// Looks once, under the lock that is held. What is left is looked at later.
    pub fn look(
        mut look: impl FnMut(&View, &TimeSlice, &mut Reply) -> bool + 'a,
        view: &View,
        slice: &TimeSlice,
        reply: &mut Reply,
    ) -> Option<Rest<'a>> {
        let is_done = look(view, slice, reply);
        (!is_done).then(|| Rest::Look(Box::new(look)))
    }
}

type Look<'a> = dyn FnMut(&View, &TimeSlice, &mut Reply) -> bool + 'a;

pub type LookOnce<'a> = dyn FnOnce(&View, &mut Reply) -> Result<Option<Work<'a>>, Error> + 'a;

/// What needs no keyspace, and ends with the reply.
pub type Work<'a> = Box<dyn FnOnce(&mut Reply) + 'a>;

/// Whether a command may look at so many elements, and copy so many bytes of them, under the lock that is held.
/// What is more waits at the gate of long looks, because many clients could do it at once.
pub fn is_short(elements: usize, bytes: usize) -> bool {
    elements <= 1024 && bytes <= 1024 * 1024
}

/// How long a reader may look before it gives the lock back.
pub struct TimeSlice(Option<Instant>);

impl TimeSlice {
    /// Half a millisecond, enough for about a thousand keys. Whoever waits for the lock loses about as
    /// much by waking up. It never ends for a reader that may not give the lock back.
    pub fn begin(keeps_lock: bool) -> TimeSlice {
        TimeSlice((!keeps_lock).then(|| Instant::now() + Duration::from_micros(500)))
    }

    pub fn is_over(&self) -> bool {
        self.0.is_some_and(|end| Instant::now() >= end)
    }
}
