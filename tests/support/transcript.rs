//! A transcript file, parsed and written back; what the lines mean stands in `tests/transcripts.rs`.
//!
//! A line is a comment (`#`), a directive (`!`), a prompt (`name mode mode> command`), or output
//! that is expected of the prompt or directive above it, up to a blank line. Directives for the
//! whole file are kept aside; all else becomes a `Step`. Writing back replaces the expected lines
//! of single steps and leaves every other line as the author wrote it.

use super::{Record, split};
use std::collections::HashMap;
use std::fs;
use std::ops::Range;
use std::path::Path;

const FOLDER: &str = "tests/transcripts";

/// A transcript, parsed. Line numbers count from zero; people are shown them from one.
pub struct Transcript {
    /// `tests/transcripts/string/set.txt`
    pub name: String,
    pub lines: Vec<String>,
    pub steps: Vec<Step>,
    pub flags: Vec<String>,
    /// The oldest Redis version to compare with.
    pub since: Vec<u32>,
    pub ours_only: bool,
}

pub struct Step {
    pub line: usize,
    pub action: Action,
    /// The lines that should come out.
    pub expected: Range<usize>,
}

pub enum Action {
    Command { client: String, modes: Vec<String>, words: Record },
    Resp3(String),
    Push(String),
    Heard(String),
    More(String),
    Closed(String),
    Drop(String),
    Restart,
    Crash,
    Log,
}

impl Transcript {
    pub fn read(name: &str) -> Transcript {
        let text = fs::read_to_string(root().join(name)).unwrap();
        let lines: Vec<String> = text.lines().map(str::to_string).collect();
        let mut transcript = Transcript {
            name: name.to_string(),
            lines: lines.clone(),
            steps: Vec::new(),
            flags: Vec::new(),
            since: Vec::new(),
            ours_only: false,
        };
        let mut expecting = false;
        for (number, line) in lines.iter().enumerate() {
            if line.starts_with('#') || line.is_empty() {
                expecting = false;
            } else if let Some(action) = transcript.parse(number, line) {
                expecting = true;
                let expected = number + 1..number + 1;
                transcript.steps.push(Step { line: number, action, expected });
            } else if expecting {
                transcript.steps.last_mut().unwrap().expected.end = number + 1;
            } else {
                assert!(line.starts_with('!'), "{}: after no prompt", transcript.place(number));
            }
        }
        transcript
    }

    /// The action on a line, or `None` if it is a line of output or a directive for the whole file.
    fn parse(&mut self, number: usize, line: &str) -> Option<Action> {
        if let Some(directive) = line.strip_prefix('!') {
            let (name, rest) = directive.split_once(' ').unwrap_or((directive, ""));
            match name {
                "flags" => {
                    let words = split(rest).expect("balanced quotes");
                    self.flags = words.into_iter().map(|w| String::from_utf8(w).unwrap()).collect();
                }
                "since" => self.since = parse_version(rest),
                "ours" => self.ours_only = true,
                "restart" => return Some(Action::Restart),
                "crash" => return Some(Action::Crash),
                "aof" => return Some(Action::Log),
                "resp3" => return Some(Action::Resp3(rest.into())),
                "push" => return Some(Action::Push(rest.into())),
                "heard" => return Some(Action::Heard(rest.into())),
                "more" => return Some(Action::More(rest.into())),
                "closed" => return Some(Action::Closed(rest.into())),
                "drop" => return Some(Action::Drop(rest.into())),
                _ => panic!("{}: no such directive: {line}", self.place(number)),
            }
            return None;
        }
        let (prompt, command) = line.split_once("> ")?;
        let mut names = prompt.split(' ').map(str::to_string);
        let client = names.next()?;
        if !client.starts_with(|c: char| c.is_ascii_lowercase()) {
            return None;
        }
        let modes: Vec<String> = names.collect();
        let known = ["sorted", "pairs", "wait", "wire", "send", "silent", "ours"];
        if !modes.iter().all(|mode| known.contains(&mode.as_str())) {
            return None;
        }
        let words = split(command)
            .unwrap_or_else(|| panic!("{}: unbalanced quotes: {line}", self.place(number)));
        Some(Action::Command { client, modes, words })
    }

    /// Where a person finds this line.
    pub fn place(&self, line: usize) -> String {
        format!("{}:{}", self.name, line + 1)
    }

    /// Writes new expectations in place of the old ones.
    pub fn rewrite(&self, mut replacements: HashMap<usize, Vec<String>>) {
        let mut out = Vec::new();
        let mut next = 0;
        for step in &self.steps {
            let Some(lines) = replacements.remove(&step.line) else {
                continue;
            };
            out.extend_from_slice(&self.lines[next..step.expected.start]);
            out.extend(lines);
            next = step.expected.end;
        }
        out.extend_from_slice(&self.lines[next..]);
        fs::write(root().join(&self.name), out.join("\n") + "\n").unwrap();
    }
}

/// The names of all transcripts: each in the folder of its group.
pub fn all() -> Vec<String> {
    let mut names = Vec::new();
    for group in files(FOLDER) {
        let inside = root().join(&group);
        assert!(inside.is_dir(), "{group} stands in no folder of a group, such as {FOLDER}/string");
        names.extend(files(&group));
    }
    let is_text = |name: &String| name.ends_with(".txt");
    assert!(names.iter().all(is_text), "not all of {names:?} are transcripts");
    names
}

/// What is in a folder, in order, by names that begin at the project's root.
fn files(folder: &str) -> Vec<String> {
    let entries = fs::read_dir(root().join(folder)).unwrap();
    let name = |entry: fs::DirEntry| format!("{folder}/{}", entry.file_name().to_string_lossy());
    let mut names: Vec<String> = entries.map(|entry| name(entry.unwrap())).collect();
    names.sort();
    names
}

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

pub fn parse_version(text: &str) -> Vec<u32> {
    text.split('.').map(|part| part.parse().expect("a version such as 7.2")).collect()
}
