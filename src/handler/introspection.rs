//! COMMAND, SLOWLOG and MEMORY.
//!
//! COMMAND reads the same table by which commands are run ([`super::TABLE`]), so what it says is true:
//!
//! ```text
//! command("get", 2, Run::Read(get), ONE_KEY, "1.0.0", "key", "Get the value of a key")
//!          │     │       │            │         │       │             │
//!        name  arity  readonly    first, last  since  arguments    summary
//!                                 key, step
//! ```
//!
//! redis-cli sends COMMAND DOCS when it starts, and shows the arguments while you type. Redis sends them as
//! a tree, from which redis-cli makes a line for people. We send that line as one argument, whose name is the
//! whole line.
//!
//! The slow log is in [`crate::stats`].
//!
//! **How Redis does it**: server.c; a script makes the table from one JSON file per command. Whatever serves
//! users, modules, scripts, replicas and clusters is empty or missing here.

use super::args::Cursor;
use super::{
    Command, Flag, Keys, NO_KEY, Row, Run, TABLE, Used, command, reply_flags, subcommand_syntax,
};
use crate::client::Client;
use crate::error::Error;
use crate::glob;
use crate::resp::{Args, Reply, parse_integer};

const HELP: &str = "Show helpful text about the different subcommands";

#[rustfmt::skip]
pub const COMMANDS: &[Command] = &[
    command("command",       -1, Run::Container(Some(all_commands)), NO_KEY,         "2.8.13", "",                                                                               "Get array of Redis command details").help("(no subcommand)\n    Return details about all Redis commands.\n"),
    command("command|count",  2, Run::Client(command_count),       NO_KEY,         "2.8.13", "",                                                                               "Get total number of Redis commands").help("\n    Return the total number of commands in this Redis server."),
    command("command|list",  -2, Run::Client(command_list),        NO_KEY,         "7.0.0",  "[FILTERBY <MODULE module-name | ACLCAT category | PATTERN pattern>]",            "Get an array of Redis command names").help("\n    Return a list of all commands in this Redis server."),
    command("command|info",  -2, Run::Client(command_info),        NO_KEY,         "2.8.13", "[command-name [command-name ...]]",                                              "Get array of specific Redis command details, or all when no argument is given.").help(" [<command-name> ...]\n    Return details about multiple Redis commands.\n    If no command names are given, documentation details for all\n    commands are returned."),
    command("command|docs",  -2, Run::Client(command_docs),        NO_KEY,         "7.0.0",  "[command-name [command-name ...]]",                                              "Get array of specific Redis command documentation").help(" [<command-name> ...]\n    Return documentation details about multiple Redis commands.\n    If no command names are given, documentation details for all\n    commands are returned."),
    command("command|getkeys", -4, Run::Client(command_getkeys),  NO_KEY,         "2.8.13", "",                                                                               "Extract keys given a full Redis command").help(" <full-command>\n    Return the keys from a full Redis command."),
    command("command|getkeysandflags", -4, Run::Client(command_getkeysandflags), NO_KEY, "7.0.0", "",                                                                          "Extract keys and access flags given a full Redis command").help(" <full-command>\n    Return the keys and the access flags from a full Redis command."),
    command("command|help",   2, Run::Client(super::help),         NO_KEY,         "5.0.0",  "",                                                                               HELP),
    command("slowlog",       -2, Run::Container(None),             NO_KEY,         "2.2.12", "",                                                                               "A container for slow log commands"),
    command("slowlog|get",   -2, Run::Client(slowlog_get),         NO_KEY,         "2.2.12", "[count]",                                                                        "Get the slow log's entries").with(&[Flag::Admin]).help(" [<count>]\n    Return top <count> entries from the slowlog (default: 10, -1 mean all).\n    Entries are made of:\n    id, timestamp, time in microseconds, arguments array, client IP and port,\n    client name"),
    command("slowlog|help",   2, Run::Client(super::help),         NO_KEY,         "6.2.0",  "",                                                                               HELP),
    command("slowlog|len",    2, Run::Client(slowlog_len),         NO_KEY,         "2.2.12", "",                                                                               "Get the slow log's length").with(&[Flag::Admin]).help("\n    Return the length of the slowlog."),
    command("slowlog|reset",  2, Run::Client(slowlog_reset),       NO_KEY,         "2.2.12", "",                                                                               "Clear all entries from the slow log").with(&[Flag::Admin]).help("\n    Reset the slowlog."),
];

/// The rows that clients can call, without those of subcommands.
fn commands() -> impl Iterator<Item = &'static Row> {
    TABLE.rows.iter().filter(|row| !row.is_subcommand && row.can_be_called())
}

/// COMMAND without a subcommand.
fn all_commands(_: &mut Client, _: &Args, reply: &mut Reply) -> Result<(), Error> {
    reply.array(commands().count());
    commands().for_each(|row| describe(row, reply));
    Ok(())
}

fn command_count(_: &mut Client, _: &Args, reply: &mut Reply) -> Result<(), Error> {
    reply.count(commands().count());
    Ok(())
}

fn command_info(client: &mut Client, args: &Args, reply: &mut Reply) -> Result<(), Error> {
    let names = Cursor::at(args, 2).rest();
    if names.len() == 0 {
        return all_commands(client, args, reply);
    }
    reply.array(names.len());
    reply.each(names, |reply, name| match TABLE.find(name) {
        Some(row) => describe(row, reply),
        None => reply.nil(),
    });
    Ok(())
}

fn command_docs(_: &mut Client, args: &Args, reply: &mut Reply) -> Result<(), Error> {
    let names = Cursor::at(args, 2).rest();
    let rows: Vec<&Row> = match names.len() {
        0 => commands().collect(),
        _ => names.filter_map(|name| TABLE.find(name)).collect(),
    };
    reply.map(rows.len());
    reply.each(rows, |reply, row| document(row, reply));
    Ok(())
}

fn command_list(_: &mut Client, args: &Args, reply: &mut Reply) -> Result<(), Error> {
    let mut words = Cursor::at(args, 2);
    let filter = match words.left() {
        0 => None,
        3 if words.next().eq_ignore_ascii_case(b"filterby") => {
            Some((words.next().to_ascii_lowercase(), words.next()))
        }
        _ => return Err(Error::Syntax),
    };
    let pattern = match &filter {
        None => &b"*"[..],
        Some((kind, pattern)) if kind == b"pattern" => pattern,
        // No command is of a module or in a category. The empty pattern matches no name.
        Some((kind, _)) if kind == b"module" || kind == b"aclcat" => b"",
        Some(_) => return Err(Error::Syntax),
    };
    let rows = TABLE.rows.iter().filter(|row| row.can_be_called());
    let names = rows.map(|row| row.command.name.as_bytes());
    let names: Vec<_> = names.filter(|name| glob::matches(pattern, name, true)).collect();
    reply.bulks(&names);
    Ok(())
}

fn command_getkeys(_: &mut Client, args: &Args, reply: &mut Reply) -> Result<(), Error> {
    let called = behind(args);
    let keys = keys_of(&called)?;
    reply.array(keys.len());
    reply.each(keys, |reply, (key, _)| reply.bulk(&called[key]));
    Ok(())
}

fn command_getkeysandflags(_: &mut Client, args: &Args, reply: &mut Reply) -> Result<(), Error> {
    let called = behind(args);
    let keys = keys_of(&called)?;
    reply.array(keys.len());
    reply.each(keys, |reply, (key, uses)| {
        reply.array(2);
        reply.bulk(&called[key]);
        reply_flags(uses, reply);
    });
    Ok(())
}

/// The command that stands behind the name of a subcommand.
fn behind(args: &Args) -> Args {
    let mut called = Args::default();
    Cursor::at(args, 2).rest().for_each(|arg| called.push(arg));
    called
}

fn keys_of(called: &Args) -> Result<Vec<Used>, Error> {
    let row = TABLE.named_by(called);
    let command = row.ok_or(Error::Fixed("ERR Invalid command specified"))?.command;
    if !command.has_keys() {
        return Err(Error::Fixed("ERR The command has no key arguments"));
    }
    if !command.takes(called.len()) {
        return Err(Error::Fixed("ERR Invalid number of arguments specified for command"));
    }
    let none = || command.is_script().then(Vec::new);
    let keys = command.keys_of(called).or_else(none);
    keys.ok_or(Error::Fixed("ERR Invalid arguments specified for command"))
}

/// A command in the reply to COMMAND and COMMAND INFO.
fn describe(row: &Row, reply: &mut Reply) {
    let &Command { name, arity, keys: Keys { first, last, step, .. }, .. } = row.command;
    reply.array(10);
    reply.bulk(name.as_bytes());
    reply.integer(arity);
    let flags = flags(row);
    reply.set(flags.len());
    flags.into_iter().for_each(|flag| reply.status(flag));
    [first, last, step].into_iter().for_each(|number| reply.integer(number));
    // ACL categories, tips.
    (0..2).for_each(|_| reply.set(0));
    row.command.key_specs(reply);
    let subcommands: Vec<&Row> = TABLE.subcommands(name).collect();
    match subcommands.len() {
        // As in Redis, no subcommands are an empty set.
        0 => reply.set(0),
        count => reply.array(count),
    }
    subcommands.into_iter().for_each(|row| describe(row, reply));
}

/// Those of Redis's flags that mean something here, in Redis's order. Some follow from the type of the handler.
fn flags(row: &Row) -> Vec<&'static str> {
    let command = row.command;
    let has = |flag| command.is(flag);
    let all = [
        (command.writes(), "write"),
        (command.reads() || command.is_reading_script(), "readonly"),
        (has(Flag::DenyOom), "denyoom"),
        (has(Flag::Admin), "admin"),
        (is_of_pubsub(row), "pubsub"),
        (has(Flag::NoScript), "noscript"),
        (has(Flag::Blocks), "blocking"),
        (command.works_while_loading(), "loading"),
        (command.is_script(), "skip_monitor"),
        (has(Flag::SkipSlowlog), "skip_slowlog"),
        (has(Flag::NoAuth), "no_auth"),
        (command.is_script(), "no_mandatory_keys"),
        (has(Flag::NoMulti), "no_multi"),
        (command.has_movable_keys(), "movablekeys"),
        (has(Flag::AllowBusy), "allow_busy"),
    ];
    all.into_iter().filter(|(is_set, _)| *is_set).map(|(_, name)| name).collect()
}

/// Redis gives the flag `pubsub` to this group, without its containers and HELP.
fn is_of_pubsub(row: &Row) -> bool {
    let talks = matches!(row.command.run, Run::Container(_)) || row.command.name.ends_with("|help");
    row.group == "pubsub" && !talks
}

/// A command in the reply to COMMAND DOCS.
fn document(row: &Row, reply: &mut Reply) {
    let &Command { name, since, usage, summary, .. } = row.command;
    let subcommands: Vec<&Row> = TABLE.subcommands(name).collect();
    reply.bulk(name.as_bytes());
    reply.map(3 + usize::from(!usage.is_empty()) + usize::from(!subcommands.is_empty()));
    for (key, text) in [("summary", summary), ("since", since), ("group", row.group)] {
        reply.bulk(key.as_bytes());
        reply.bulk(text.as_bytes());
    }
    if !usage.is_empty() {
        reply.bulk(b"arguments");
        reply.array(1);
        reply.map(2);
        for word in [b"name", usage.as_bytes(), b"type", b"string"] {
            reply.bulk(word);
        }
    }
    if !subcommands.is_empty() {
        reply.bulk(b"subcommands");
        reply.map(subcommands.len());
        subcommands.into_iter().for_each(|row| document(row, reply));
    }
}

fn slowlog_get(client: &mut Client, args: &Args, reply: &mut Reply) -> Result<(), Error> {
    let most = match args.len() {
        2 => Some(10),
        3 => parse_integer(&args[2]),
        _ => return Err(subcommand_syntax(args)),
    };
    let bad_count = || Error::text("ERR count should be greater than or equal to -1");
    let most = most.filter(|&most| most >= -1).ok_or_else(bad_count)?;
    let log = client.server.stats.slow_log.lock().unwrap();
    // -1 means all. It is the only number that does not fit.
    let count = log.entries.len().min(usize::try_from(most).unwrap_or(usize::MAX));
    reply.array(count);
    for slow in log.entries.iter().take(count) {
        reply.array(6);
        reply.integer(slow.id as i64);
        reply.integer(slow.time as i64);
        reply.integer(slow.microseconds as i64);
        reply.bulks(&slow.args);
        reply.bulk(slow.addr.as_bytes());
        reply.bulk(&slow.name);
    }
    Ok(())
}

fn slowlog_len(client: &mut Client, _: &Args, reply: &mut Reply) -> Result<(), Error> {
    reply.count(client.server.stats.slow_log.lock().unwrap().entries.len());
    Ok(())
}

fn slowlog_reset(client: &mut Client, _: &Args, reply: &mut Reply) -> Result<(), Error> {
    client.server.stats.slow_log.lock().unwrap().entries.clear();
    reply.ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    #[test]
    fn no_two_commands_have_the_same_name() {
        let names: BTreeSet<_> = TABLE.rows.iter().map(|row| row.command.name).collect();
        assert_eq!(names.len(), TABLE.rows.len());
    }

    #[test]
    fn a_container_cannot_be_called_without_a_subcommand() {
        for Row { command, .. } in &TABLE.rows {
            if let Run::Container(None) = command.run {
                assert_eq!(command.arity, -2, "{}", command.name);
                assert!(TABLE.subcommands(command.name).count() > 0, "{}", command.name);
            }
        }
    }
}
