//! One command as it goes out: an array of bulk strings, or, like a person at telnet, a line.

use std::fmt;

use crate::support::{bare, encode};

#[derive(Clone)]
pub struct Command {
    /// Empty for a blank line, which servers skip without a reply.
    pub args: Vec<Vec<u8>>,
    pub inline: bool,
}

impl Command {
    pub fn new(args: &[&str]) -> Command {
        Command::of(args.iter().map(|arg| arg.as_bytes().to_vec()).collect())
    }

    pub fn of(args: Vec<Vec<u8>>) -> Command {
        let inline = false;
        Command { args, inline }
    }

    /// The name in capitals, for looking at; what is sent stays as it was typed.
    pub fn name(&self) -> String {
        self.args.first().map_or(String::new(), |name| upper(name))
    }

    pub fn encode(&self) -> Vec<u8> {
        if self.inline || self.args.is_empty() {
            return format!("{self}\r\n").into_bytes();
        }
        encode(&self.args)
    }
}

/// What redis-cli would take, and what an inline command is: quotes where they are needed.
impl fmt::Display for Command {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        let words: Vec<String> = self.args.iter().map(|arg| bare(arg)).collect();
        f.write_str(&words.join(" "))
    }
}

pub fn upper(text: &[u8]) -> String {
    text.to_ascii_uppercase().escape_ascii().to_string()
}
