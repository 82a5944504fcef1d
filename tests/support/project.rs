//! The text of this project, for the tests that read it.

use std::fs;
use std::path::{Path, PathBuf};

/// A text file of this project.
pub struct Source {
    /// From the root of the project, with `/`.
    pub path: String,
    pub text: String,
}

/// The files of the evening, in their reading order: what one reads to understand the server, as opposed to
/// looking things up.
const EVENING: [&str; 11] = [
    "src/main.rs",
    "src/serve.rs",
    "src/resp.rs",
    "src/handler.rs",
    "src/call.rs",
    "src/batch.rs",
    "src/batch/lock.rs",
    "src/store.rs",
    "src/store/view_mut.rs",
    "src/propagate.rs",
    "src/aof.rs",
];

/// The second evening: how the interpreter works, in the reading order.
pub const SECOND_EVENING: [&str; 14] = [
    "src/script.rs",
    "src/script/value.rs",
    "src/script/lexer.rs",
    "src/script/code.rs",
    "src/script/compiler.rs",
    "src/script/compiler/statements.rs",
    "src/script/compiler/expressions.rs",
    "src/script/compiler/emit.rs",
    "src/script/compiler/jumps.rs",
    "src/script/machine.rs",
    "src/script/machine/calls.rs",
    "src/script/lib.rs",
    "src/script/heap.rs",
    "src/script/collect.rs",
];

/// Of the evening, the two that finish what batch.rs and aof.rs begin to tell.
pub const FINISHING: [&str; 2] = ["src/batch/lock.rs", "src/propagate.rs"];

/// The evening, as far as its files exist.
pub fn evening() -> Vec<&'static str> {
    EVENING.into_iter().filter(|path| root().join(path).exists()).collect()
}

impl Source {
    /// What is compiled into the server: everything before the module `tests` at the end. A single item
    /// that is only for tests, and the name of a test module in another file, end nothing.
    pub fn code(&self) -> Vec<&str> {
        let lines: Vec<&str> = self.text.lines().collect();
        lines[..self.tests_begin().unwrap_or(lines.len())].to_vec()
    }

    /// The line at which the module `tests` begins, if the file has one.
    pub fn tests_begin(&self) -> Option<usize> {
        let lines: Vec<&str> = self.text.lines().collect();
        lines.windows(2).position(|pair| pair == ["#[cfg(test)]", "mod tests {"])
    }

    /// Whether the file holds nothing but tests: the file above it says so, or one above that.
    pub fn is_test(&self, others: &[Source]) -> bool {
        let path = self.path.trim_end_matches(".rs");
        let Some((folder, name)) = path.rsplit_once('/') else {
            return false;
        };
        let Some(above) = others.iter().find(|other| other.path == format!("{folder}.rs")) else {
            return false;
        };
        let only_for_tests =
            [format!("#[cfg(test)]\nmod {name};"), format!("#[cfg(test)]\npub mod {name};")];
        only_for_tests.iter().any(|line| above.text.contains(line)) || above.is_test(others)
    }

    /// `handler` for src/handler.rs and src/handler/string.rs.
    pub fn module(&self) -> &str {
        let inside = self.path.strip_prefix("src/").unwrap_or(&self.path);
        let end = inside.find(['/', '.']).unwrap_or(inside.len());
        &inside[..end]
    }
}

/// The functions among these lines: where each begins, its name, how many lines it has.
pub fn functions<'a>(lines: &[&'a str]) -> Vec<(usize, &'a str, usize)> {
    let mut found = Vec::new();
    for (at, line) in lines.iter().enumerate() {
        let start = line.trim_start();
        let mut words = start.split(' ').skip_while(|word| {
            word.starts_with("pub") || ["const", "async", "extern"].contains(word)
        });
        if words.next() != Some("fn") || line.ends_with(['}', ';']) {
            continue;
        }
        let name = words.next().unwrap_or_default();
        let name = name.split(['(', '<']).next().unwrap_or_default();
        let close = format!("{}}}", &line[..line.len() - start.len()]);
        let end = lines[at..].iter().position(|line| *line == close);
        found.push((at, name, end.expect("rustfmt closes what it opens") + 1));
    }
    found
}

/// The identifier that a text begins with.
pub fn word(text: &str) -> &str {
    let end = text.find(|c: char| !(c.is_alphanumeric() || c == '_'));
    &text[..end.unwrap_or(text.len())]
}

pub fn none(faults: &[String]) {
    assert!(faults.is_empty(), "\n{}", faults.join("\n"));
}

pub fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

pub fn read(path: &str) -> String {
    fs::read_to_string(root().join(path)).unwrap_or_else(|error| panic!("{path}: {error}"))
}

/// The files under one folder of the project, with this ending.
pub fn sources(folder: &str, ending: &str) -> Vec<Source> {
    let mut sources = all(everything(), &format!("{folder}/"));
    sources.retain(|source| source.path.ends_with(&format!(".{ending}")));
    assert!(!sources.is_empty(), "{folder} has no .{ending}");
    sources
}

pub fn all(mut sources: Vec<Source>, prefix: &str) -> Vec<Source> {
    sources.retain(|source| source.path.starts_with(prefix));
    sources
}

/// All text that belongs to the project, in the order of the paths.
pub fn everything() -> Vec<Source> {
    let mut found = Vec::new();
    for path in files(root()) {
        let relative = path.strip_prefix(root()).expect("a file under the root");
        if let Ok(text) = fs::read_to_string(&path) {
            let path = relative.to_string_lossy().replace('\\', "/");
            found.push(Source { path, text });
        }
    }
    found
}

/// The files of a folder and those inside it, but for what Git and Cargo keep for themselves, and
/// the log of a server that was started here.
fn files(folder: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(folder).unwrap_or_else(|error| panic!("{folder:?}: {error}"));
    let mut paths: Vec<PathBuf> = entries.map(|entry| entry.unwrap().path()).collect();
    paths.sort();
    let mut found = Vec::new();
    for path in paths {
        let name = path.file_name().unwrap_or_default();
        let is_ours = !["target", ".git", "appendonlydir"].iter().any(|other| name == *other);
        if path.is_dir() && is_ours {
            found.extend(files(&path));
        } else if path.is_file() {
            found.push(path);
        }
    }
    found
}
