//! Transactions: MULTI queues commands, and EXEC runs them while nobody else runs any.
//!
//! After MULTI a command is queued instead of run (call.rs, `execute`). If one cannot be queued, because it is
//! unknown or its arity is wrong, EXEC will refuse. EXEC is `Caller::exec`: it takes one lock for all its
//! commands, the shared one if none of them writes. It checks the watched keys, and runs the queue. All
//! commands see the same time, and their records are one unit of the log (propagate.rs). A command that fails
//! does not undo the others.
//!
//! With WATCH a transaction is a compare-and-set: see watch.rs.
//!
//! **How Redis does it**: multi.c, with the same rules.

use super::{ALL_KEYS, Command, Flag, NO_KEY, Run, command};
use crate::client::{Client, Transaction, memory_of};
use crate::error::Error;
use crate::handler::args::Cursor;
use crate::resp::{Args, Reply};
use crate::store::View;
use std::sync::atomic::Ordering;

#[rustfmt::skip]
pub const COMMANDS: &[Command] = &[
    command("multi",   1,  Run::Client(multi),   NO_KEY,   "1.2.0", "",              "Mark the start of a transaction block").with(&[Flag::NoScript, Flag::AllowBusy, Flag::NotQueued, Flag::InLog]),
    command("exec",    1,  Run::Exec,            NO_KEY,   "1.2.0", "",              "Execute all commands issued after MULTI").with(&[Flag::NoScript, Flag::SkipSlowlog, Flag::NotQueued]),
    command("discard", 1,  Run::Mixed(discard),  NO_KEY,   "2.0.0", "",              "Discard all commands issued after MULTI").with(&[Flag::NoScript, Flag::AllowBusy, Flag::NotQueued, Flag::InLog]),
    command("watch",   -2, Run::Mixed(watch),    ALL_KEYS, "2.2.0", "key [key ...]", "Watch the given keys to determine execution of the MULTI/EXEC block").with(&[Flag::NoScript, Flag::AllowBusy, Flag::NotQueued]).uses("RO"),
    command("unwatch", 1,  Run::Mixed(unwatch),  NO_KEY,   "2.2.0", "",              "Forget about all watched keys").with(&[Flag::NoScript, Flag::AllowBusy]),
];

fn multi(client: &mut Client, _: &Args, reply: &mut Reply) -> Result<(), Error> {
    if client.transaction.is_some() {
        return Err(Error::NestedMulti);
    }
    client.transaction = Some(Transaction::new(&client.public.held));
    reply.ok()
}

fn discard(client: &mut Client, view: &View, _: &Args, reply: &mut Reply) -> Result<(), Error> {
    client.transaction.take().ok_or(Error::DiscardWithoutMulti)?;
    unwatch_all(client, view);
    reply.ok()
}

fn watch(client: &mut Client, view: &View, args: &Args, reply: &mut Reply) -> Result<(), Error> {
    if client.transaction.is_some() {
        return Err(Error::WatchInsideMulti);
    }
    for key in Cursor::new(args).rest() {
        if client.watched.insert((view.db, key.to_vec())) {
            view.watch(key, &client.public.watch_flag);
            client.names.add(memory_of(key));
        }
    }
    reply.ok()
}

fn unwatch(client: &mut Client, view: &View, _: &Args, reply: &mut Reply) -> Result<(), Error> {
    unwatch_all(client, view);
    reply.ok()
}

/// Whether a key that the client watches has changed since WATCH. One that has expired since then has changed
/// too, though nobody has deleted it.
pub fn has_watched_changed(client: &Client, view: &View) -> bool {
    let flag = &client.public.watch_flag;
    let mut watched = client.watched.iter();
    flag.load(Ordering::Relaxed)
        || watched.any(|(db, key)| view.in_db(*db).has_expired_watched(key, flag))
}

/// Ends all watches of the client, and lowers its flag.
pub fn unwatch_all(client: &mut Client, view: &View) {
    for (db, key) in std::mem::take(&mut client.watched) {
        view.in_db(db).unwatch(&key, &client.public.watch_flag);
        client.names.subtract(memory_of(&key));
    }
    client.public.watch_flag.store(false, Ordering::Relaxed);
}
