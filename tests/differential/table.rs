//! What a server says of each of its commands, so that two servers can be compared.
//!
//! Of the flags only those that this server has; of the arguments nothing, for it gives them as one
//! line of text (src/handler/README.md, "Differences from Redis").

use std::collections::BTreeMap;
use std::io;

use crate::support::{Client, Value};

/// In the order in which Redis has them.
const FLAGS: [&str; 14] = [
    "write",
    "readonly",
    "admin",
    "pubsub",
    "noscript",
    "blocking",
    "loading",
    "skip_monitor",
    "skip_slowlog",
    "no_auth",
    "no_mandatory_keys",
    "no_multi",
    "movablekeys",
    "allow_busy",
];

/// Of each command its name, and then what COMMAND and COMMAND DOCS say of it.
pub type Table = BTreeMap<String, Said>;

#[derive(Default, Debug)]
pub struct Said {
    /// By COMMAND: arity, keys, flags, key specifications.
    pub info: String,
    /// By COMMAND DOCS: summary, and since when.
    pub docs: String,
    pub group: String,
}

pub fn read(client: &mut Client) -> io::Result<Table> {
    let mut table = Table::new();
    for command in client.try_call(&["COMMAND"])?.items() {
        add_info(command, &mut table);
    }
    add_docs(&client.try_call(&["COMMAND", "DOCS"])?, &mut table);
    Ok(table)
}

/// The names in INFO, without those of commands and errors that there happened to be.
pub fn fields(info: &str) -> Vec<String> {
    let lines = info.split("\\r\\n").filter_map(|line| line.split_once(':'));
    let names = lines.map(|(name, _)| name.to_string());
    let happened = ["cmdstat_", "errorstat_", "latency_percentiles_usec_"];
    names.filter(|name| !happened.iter().any(|begin| name.starts_with(begin))).collect()
}

/// `[name, arity, flags, first key, last key, step, …, subcommands]`
fn add_info(command: &Value, table: &mut Table) {
    let [name, arity, flags, first, last, step, .., specs, subcommands] = command.items()[..]
    else {
        panic!("COMMAND says of each command what Redis 7 does, not {command:?}");
    };
    let mut flags: Vec<_> = flags.items().into_iter().map(text).collect();
    flags.retain(|flag| FLAGS.contains(&flag.as_str()));
    let numbers: Vec<_> = [arity, first, last, step].map(text).into();
    let said = table.entry(text(name)).or_default();
    let mut specs = leaves(specs);
    // Redis has notes beside some.
    while let Some(at) = specs.iter().position(|text| text == "notes") {
        specs.drain(at..at + 2);
    }
    said.info = format!("{} {} {}", numbers.join(" "), flags.join(" "), specs.join(" "));
    for subcommand in subcommands.items() {
        add_info(subcommand, table);
    }
}

/// All texts and numbers in a reply.
fn leaves(value: &Value) -> Vec<String> {
    match value.items()[..] {
        [] => vec![text(value)],
        ref items => items.iter().flat_map(|item| leaves(item)).collect(),
    }
}

/// `name, [field, value, field, value …]`, and so on.
fn add_docs(docs: &Value, table: &mut Table) {
    for pair in docs.items().chunks(2) {
        for about in pair[1].items().chunks(2) {
            let said = table.entry(text(pair[0])).or_default();
            let value = text(about[1]);
            match text(about[0]).as_str() {
                // Some of Redis's summaries end in a period, and one in a space.
                "summary" => said.docs += value.trim_end_matches(['.', ' ']),
                "since" => said.docs += &format!("; since {value}"),
                "group" => said.group = value,
                "subcommands" => add_docs(about[1], table),
                _ => {}
            }
        }
    }
}

/// A number too.
fn text(value: &Value) -> String {
    match value {
        Value::Integer(number) => number.to_string(),
        other => String::from_utf8_lossy(other.text()).into_owned(),
    }
}
