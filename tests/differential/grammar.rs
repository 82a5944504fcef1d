//! The grammar of `commands.txt`, whose first lines say what it looks like, read into trees.
//!
//! Written down as text because a line there is a command's usage as the documentation has it,
//! only with weights; and a new command is one more line.

use std::collections::BTreeMap;
use std::iter::Peekable;
use std::str::SplitWhitespace;

/// The words of a shape that are not sent as they stand.
const SLOTS: [&str; 26] = [
    "any", "at", "atms", "channel", "cursor", "db", "f", "h", "i", "k", "lcs", "lcs2", "ms", "n",
    "offset", "past", "pattern", "s", "small", "soon", "text", "type", "unknown", "v", "word", "x",
];

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
            word if SLOTS.contains(&word) => Node::Slot(word),
            word => Node::Word(word),
        });
    }
    nodes
}

fn alternatives(tokens: &mut Tokens) -> Vec<Vec<Node>> {
    let mut all = vec![parse(tokens)];
    while tokens.next() == Some("|") {
        all.push(parse(tokens));
    }
    all
}

/// The shapes of each section.
pub fn grammar() -> BTreeMap<&'static str, Vec<Shape>> {
    let mut sections = BTreeMap::new();
    let mut section = "";
    for line in include_str!("commands.txt").lines() {
        if let Some(name) = line
            .strip_prefix('[')
            .and_then(|line| line.strip_suffix(']'))
        {
            section = name;
        } else if !line.is_empty() && !line.starts_with('#') {
            let mut tokens = line.split_whitespace().peekable();
            let weight = tokens.next().and_then(|weight| weight.parse().ok());
            let weight = weight.expect("a line of commands.txt begins with its weight");
            let shape = Shape {
                weight,
                nodes: parse(&mut tokens),
            };
            sections.entry(section).or_insert_with(Vec::new).push(shape);
        }
    }
    sections
}
