//! The commands that the server has, as it says itself (`COMMAND DOCS`).

use super::{Server, Value};
use std::collections::BTreeMap;

/// What the running server says of its commands, by group: name, summary, arguments.
pub fn commands() -> BTreeMap<String, Vec<(String, String, String)>> {
    let server = Server::start(&[]);
    let mut client = server.client();
    client.run("HELLO 3");
    let mut groups = BTreeMap::new();
    add_commands(&client.call(&["COMMAND", "DOCS"]), &mut groups);
    let listed: usize = groups.values().map(Vec::len).sum();
    let Value::Array(names) = client.call(&["COMMAND", "LIST"]) else {
        panic!("COMMAND LIST answers a list");
    };
    assert_eq!(listed, names.len(), "COMMAND DOCS and COMMAND LIST disagree");
    groups.values_mut().for_each(|group| group.sort());
    groups
}

fn add_commands(docs: &Value, groups: &mut BTreeMap<String, Vec<(String, String, String)>>) {
    for (name, about) in pairs(docs) {
        let mut fields = BTreeMap::new();
        for (field, value) in pairs(about) {
            fields.insert(text(field), value);
        }
        let arguments = match fields.get("arguments") {
            Some(Value::Array(arguments)) => arguments.iter().map(argument).collect(),
            _ => Vec::new(),
        };
        let command = (text(name), text(fields["summary"]), arguments.join(" "));
        groups.entry(text(fields["group"])).or_default().push(command);
        if let Some(subcommands) = fields.get("subcommands") {
            add_commands(subcommands, groups);
        }
    }
}

fn argument(about: &Value) -> String {
    let name = pairs(about).iter().find(|(field, _)| text(field) == "name");
    name.map_or_else(String::new, |(_, name)| text(name))
}

fn pairs(value: &Value) -> &[(Value, Value)] {
    match value {
        Value::Map(pairs) => pairs,
        other => panic!("expected a map, got {other}"),
    }
}

fn text(value: &Value) -> String {
    match value {
        Value::Bulk(text) | Value::Simple(text) => String::from_utf8_lossy(text).into_owned(),
        other => panic!("expected a text, got {other}"),
    }
}
