//! The grammar of `commands.txt`, whose first lines say what it looks like, read into trees.
//! `tests/tidy.rs` reads it too, and asks that no command is forgotten there.
//!
//! Written down as text because a line there is a command's usage as the documentation has it,
//! only with weights; and a new command is one more line.

// The fuzzer uses one part of this, `tests/tidy.rs` another.
#![allow(dead_code)]

use std::collections::{BTreeMap, BTreeSet};
use std::iter::Peekable;
use std::str::SplitWhitespace;

/// A shape, or part of one.
pub enum Node {
    Word(&'static str),
    Slot(&'static str),
    One(Vec<Vec<Node>>),
    Subset(Vec<Vec<Node>>),
    Many(Vec<Node>),
    /// `;`, between two commands.
    Next,
}

/// A line of `commands.txt`.
pub struct Shape {
    pub weight: usize,
    pub nodes: Vec<Node>,
}

type Tokens = Peekable<SplitWhitespace<'static>>;

fn parse(tokens: &mut Tokens) -> Vec<Node> {
    let mut nodes = Vec::new();
    while let Some(token) = tokens.next_if(|token| !["|", ")", "}", ">"].contains(token)) {
        nodes.push(match token {
            "(" => Node::One(alternatives(tokens)),
            "{" => Node::Subset(alternatives(tokens)),
            "<" => Node::Many(alternatives(tokens).remove(0)),
            ";" => Node::Next,
            word if is_slot(word) => Node::Slot(word),
            word => Node::Word(word.trim_matches('\'')),
        });
    }
    nodes
}

/// What is sent as it stands and has small letters only is in quotes.
fn is_slot(word: &str) -> bool {
    word.bytes().all(|byte| byte.is_ascii_lowercase())
}

fn alternatives(tokens: &mut Tokens) -> Vec<Vec<Node>> {
    let mut all = vec![parse(tokens)];
    while tokens.next() == Some("|") {
        all.push(parse(tokens));
    }
    all
}

/// The section of `commands.txt` that names what is not sent, and why.
const UNSENT: &str = "unsent";

/// The section of `commands.txt` with the commands that Redis has not. They are sent, among the ordinary ones,
/// when there is no redis-server to compare with.
pub const OWN: &str = "own";

/// The same for the commands of types that Redis has not. Their records may stand in the log.
pub const OWN_TYPES: &str = "own types";

/// Each line of `commands.txt` that says something, with its section.
fn lines() -> impl Iterator<Item = (&'static str, &'static str)> {
    let mut section = "";
    include_str!("commands.txt").lines().filter_map(move |line| {
        let heading = line.strip_prefix('[').and_then(|line| line.strip_suffix(']'));
        section = heading.unwrap_or(section);
        let says = heading.is_none() && !line.is_empty() && !line.starts_with('#');
        says.then_some((section, line))
    })
}

/// The shapes of each section.
pub fn grammar() -> BTreeMap<&'static str, Vec<Shape>> {
    let mut sections = BTreeMap::new();
    for (section, line) in lines().filter(|(section, _)| *section != UNSENT) {
        let mut tokens = line.split_whitespace().peekable();
        let weight = tokens.next().and_then(|weight| weight.parse().ok());
        let weight = weight.expect("a line of commands.txt begins with its weight");
        let shape = Shape { weight, nodes: parse(&mut tokens) };
        sections.entry(section).or_insert_with(Vec::new).push(shape);
    }
    sections
}

/// The commands that are not sent, each with the reason.
pub fn unsent() -> Vec<(&'static str, &'static str)> {
    let unsent = lines().filter(|(section, _)| *section == UNSENT);
    let split = |(_, line): (_, &'static str)| {
        let (name, reason) = line.split_once(": ").unwrap_or((line, ""));
        (name, reason.trim())
    };
    unsent.map(split).collect()
}

/// The first two words of each command that the shapes can make, a slot as `…`.
pub fn sent() -> BTreeSet<Vec<&'static str>> {
    first_words(grammar().values().flatten())
}

/// The names of the commands that these sections have and no other, in small letters: `get`, `config|get`.
pub fn only_in(sections: &[&str]) -> BTreeSet<String> {
    let names = |are_in: bool| -> BTreeSet<String> {
        let grammar = grammar();
        let chosen = grammar.iter().filter(|(section, _)| sections.contains(section) == are_in);
        let words = first_words(chosen.flat_map(|(_, shapes)| shapes));
        let names = words.iter().flat_map(|words| [words[0].to_string(), words.join("|")]);
        names.map(|name| name.to_lowercase()).collect()
    };
    &names(true) - &names(false)
}

/// The slots of all shapes.
pub fn slots() -> BTreeSet<&'static str> {
    let shapes = lines().filter(|(section, _)| *section != UNSENT);
    shapes.flat_map(|(_, line)| line.split_whitespace()).filter(|word| is_slot(word)).collect()
}

fn first_words<'a>(shapes: impl Iterator<Item = &'a Shape>) -> BTreeSet<Vec<&'static str>> {
    let mut sent = BTreeSet::new();
    for shape in shapes {
        for command in shape.nodes.split(|node| matches!(node, Node::Next)) {
            sent.extend(beginnings(command));
        }
    }
    sent
}

/// What these nodes can begin with, two words at the most.
fn beginnings(nodes: &[Node]) -> BTreeSet<Vec<&'static str>> {
    let mut all = BTreeSet::from([vec![]]);
    for node in nodes {
        let choices: BTreeSet<Vec<&str>> = match node {
            Node::Word(word) => [vec![*word]].into(),
            Node::Slot(_) => [vec!["…"]].into(),
            Node::One(choices) => choices.iter().flat_map(|one| beginnings(one)).collect(),
            Node::Subset(choices) => {
                let some = choices.iter().flat_map(|one| beginnings(one));
                some.chain([vec![]]).collect()
            }
            Node::Many(nodes) => beginnings(nodes),
            Node::Next => unreachable!("between commands"),
        };
        let join = |before: &Vec<&'static str>| {
            let before = before.clone();
            let joined = choices.iter().map(move |choice| [&before[..], choice].concat());
            joined.map(|words| words.into_iter().take(2).collect::<Vec<_>>())
        };
        all = all.iter().flat_map(join).collect();
    }
    all
}
