//! House rules, kept by a machine so that they cannot rot.
//!
//! Each test is one rule, and a failure lists every place that breaks it. The rules look at the
//! text of the sources as rustfmt leaves it, not at its syntax tree: a line that opens a function
//! is followed, at the same indentation, by the line that closes it. That is enough for this tree
//! and takes no parser.
//! What the pages say is looked after by `tests/pages.rs`.

#[path = "differential/grammar.rs"]
mod grammar;
mod support;

use std::collections::BTreeSet;
use std::io::Write;
use support::commands::commands;
use support::project::{
    FINISHING, SECOND_EVENING, Source, all, evening, everything, functions, none, read, sources,
    word,
};
use support::state::KINDS;
use support::transcript::{self, Action, Transcript};

/// Imports run one way: a file may use what stands in a later line of this list, and nothing of
/// its own line or an earlier one. `aof` cannot know a command, and `resp` knows error texts only.
const LAYERS: [&[&str]; 18] = [
    &["main"],
    &["background"],
    &["serve", "evict", "expire"],
    &["replication"],
    &["call"],
    &["batch"],
    &["handler"],
    &["client"],
    &["server"],
    &["snapshot"],
    &["aof", "pubsub"],
    &["rdb"],
    &["listen", "service", "store", "stats"],
    &["config", "propagate", "types", "watch"],
    &["outbox"],
    &["gate", "glob", "log", "notify", "resp", "script"],
    &["blob", "error", "held", "key", "latency", "lazyfree", "malloc", "sha1", "sha256"],
    &["mode", "spare"],
];

/// Lines before the tests: in all files of the evening together, in those of the second one, in each of
/// the first, and in each other file.
const EVENING_LIMIT: usize = 2_600;
const WHOLE_EVENING_LIMIT: usize = 2_900;
const SECOND_EVENING_LIMIT: usize = 5_200;
const EVENING_FILE_LIMIT: usize = 600;
const FILE_LIMIT: usize = 700;

/// Lines in a function, unless its comment says `Long because`.
const FUNCTION_LIMIT: usize = 50;

#[test]
fn every_source_file_opens_with_a_chapter_of_at_most_40_lines() {
    let mut faults = Vec::new();
    for source in sources("src", "rs") {
        let lines = source.text.lines();
        let chapter = lines.take_while(|line| line.starts_with("//!")).count();
        if !(1..=40).contains(&chapter) {
            faults.push(format!("{}: {chapter} lines of chapter", source.path));
        }
    }
    for source in sources("tests", "rs") {
        if !source.text.starts_with("//! ") {
            faults.push(format!("{}: does not say what it is", source.path));
        }
    }
    none(&faults);
}

/// What is to be read in an evening must be short. What one needs only to look something up belongs into
/// a room of its own.
#[test]
fn the_evening_is_short() {
    let (mut sum, mut finishing, mut second) = (0, 0, 0);
    let mut each = String::new();
    for source in sources("src", "rs") {
        let (path, length) = (source.path.as_str(), source.code().len());
        if evening().contains(&path) {
            each += &format!("{path}: {length}\n");
            *(if FINISHING.contains(&path) { &mut finishing } else { &mut sum }) += length;
        }
        second += if SECOND_EVENING.contains(&path) { length } else { 0 };
    }
    let _ = writeln!(std::io::stdout(), "the evening: {sum} lines and {finishing}; then {second}");
    assert!(sum <= EVENING_LIMIT, "\n{each}the evening: {sum} lines");
    assert!(sum + finishing <= WHOLE_EVENING_LIMIT, "\n{each}the evening: {sum} and {finishing}");
    assert!(second <= SECOND_EVENING_LIMIT, "the second evening: {second} lines");
}

#[test]
fn no_source_file_is_too_long() {
    let mut faults = Vec::new();
    let sources = sources("src", "rs");
    for source in sources.iter().filter(|source| !source.is_test(&sources)) {
        let is_evening = evening().contains(&source.path.as_str());
        let limit = if is_evening { EVENING_FILE_LIMIT } else { FILE_LIMIT };
        let length = source.code().len();
        if length > limit {
            faults.push(format!("{}: {length} lines without tests", source.path));
        }
    }
    none(&faults);
}

/// Code behind the tests would not be counted, nor would that behind a test module of another name.
#[test]
fn the_tests_of_a_file_are_the_module_tests_at_its_end() {
    let mut faults = Vec::new();
    for source in sources("src", "rs") {
        let lines: Vec<&str> = source.text.lines().collect();
        if let Some(begin) = source.tests_begin() {
            let end = lines[begin..].iter().position(|line| *line == "}");
            if begin + end.unwrap_or(0) + 1 != lines.len() {
                faults.push(format!("{}: something follows the tests", source.path));
            }
        }
        for pair in lines.windows(2).filter(|pair| pair[0] == "#[cfg(test)]") {
            if pair[1].starts_with("mod ") && pair[1].ends_with('{') && pair[1] != "mod tests {" {
                faults.push(format!("{}: {} is not called `tests`", source.path, pair[1]));
            }
        }
    }
    none(&faults);
}

#[test]
fn no_function_is_longer_than_50_lines_without_a_reason() {
    let mut faults = Vec::new();
    for source in sources("src", "rs") {
        let lines = source.code();
        for (at, name, length) in functions(&lines) {
            if length > FUNCTION_LIMIT && !comment_above(&lines, at).contains("Long because") {
                faults.push(format!(
                    "{}:{}: {name} has {length} lines, and its comment has no `Long because`",
                    source.path,
                    at + 1
                ));
            }
        }
    }
    none(&faults);
}

/// The doc comment and attributes above line `at`.
fn comment_above(lines: &[&str], at: usize) -> String {
    let above = lines[..at].iter().rev().map(|line| line.trim_start());
    let mut comment: Vec<&str> =
        above.take_while(|line| line.starts_with("///") || line.starts_with("#[")).collect();
    comment.reverse();
    comment.join(" ").replace("/// ", "")
}

/// The files of an evening first, and then the others in the order of the alphabet.
#[test]
fn modules_stand_in_reading_order() {
    let evenings = [
        ("src/main.rs", "mod ", "src/", evening()),
        ("src/script.rs", "pub mod ", "src/script/", SECOND_EVENING.to_vec()),
    ];
    for (path, begin, folder, files) in evenings {
        let text = read(path);
        let lines = text.lines().filter_map(|line| line.strip_prefix(begin));
        let declared: Vec<&str> = lines.filter_map(|line| line.strip_suffix(';')).collect();
        let name = |path: &'static str| path.strip_prefix(folder)?.strip_suffix(".rs");
        let mut expected: Vec<&str> = files.into_iter().filter_map(name).collect();
        expected.retain(|name| *name != "main" && !name.contains('/'));
        let mut others: Vec<&str> = declared.clone();
        others.retain(|name| !expected.contains(name));
        others.sort_unstable();
        expected.extend(others);
        assert_eq!(declared, expected, "{path}");
    }
}

/// Without a `mod` line a file is not compiled, and no warning says so.
#[test]
fn every_source_file_has_its_mod_line() {
    let sources = sources("src", "rs");
    let mut faults = Vec::new();
    for source in sources.iter().filter(|source| source.path != "src/main.rs") {
        let path = source.path.trim_end_matches(".rs");
        let (folder, name) = path.rsplit_once('/').expect("a folder");
        let above = if folder == "src" { "src/main.rs".into() } else { format!("{folder}.rs") };
        let mut lines = sources.iter().filter(|file| file.path == above).flat_map(Source::code);
        // `r#` stands in front of a name that is a keyword.
        let is_named = |line: &str| {
            let named = line.rsplit("mod ").next().and_then(|named| named.strip_suffix(';'));
            named.is_some_and(|named| named.trim_start_matches("r#") == name)
        };
        if !lines.any(is_named) {
            faults.push(format!("{}: {above} has no line `mod {name};`", source.path));
        }
    }
    none(&faults);
}

/// What KINDS does not know is not compared after a restart or a rewrite, and nobody looks at its memory.
#[test]
fn every_type_is_known_to_the_tests() {
    let mut types = BTreeSet::new();
    for source in all(sources("src", "rs"), "src/types/") {
        let names = source.code().into_iter().filter_map(|line| {
            line.trim().strip_prefix("const NAME: &'static str = \"")?.strip_suffix("\";")
        });
        types.extend(names.map(str::to_string));
    }
    let known: BTreeSet<String> = KINDS.iter().map(|kind| kind.name.to_string()).collect();
    assert_eq!(
        types, known,
        "the types in src/types, and those of KINDS in tests/support/state.rs"
    );
}

#[test]
fn imports_run_one_way() {
    let layer = |module: &str| LAYERS.iter().position(|layer| layer.contains(&module));
    let mut faults = Vec::new();
    for source in sources("src", "rs") {
        let module = source.module();
        let Some(own) = layer(module) else {
            faults.push(format!("{}: in no layer of tests/tidy.rs", source.path));
            continue;
        };
        for name in imports(&source) {
            if name != module && layer(&name).is_none_or(|other| other <= own) {
                faults.push(format!("{} uses {name}, which stands above it", source.path));
            }
        }
    }
    none(&faults);
}

/// The modules of this crate that a file names outside of comments: after `crate::`, or after
/// `super::` where that is the same.
fn imports(source: &Source) -> Vec<String> {
    let mut code = String::new();
    for line in source.code() {
        if !line.trim_start().starts_with("//") {
            code += line;
            code += "\n";
        }
    }
    let is_top = source.path.matches('/').count() == 1;
    let mut names = Vec::new();
    for prefix in ["crate::", "super::"] {
        if prefix == "super::" && !is_top {
            continue;
        }
        for (at, _) in code.match_indices(prefix) {
            let rest = &code[at + prefix.len()..];
            let several = rest.strip_prefix('{');
            let end = several.and_then(|list| list.find("};")).unwrap_or(0);
            let list = several.map_or(rest, |list| &list[..end]);
            let list = list.split(',').take(if end > 0 { usize::MAX } else { 1 });
            names.extend(list.map(|path| word(path.trim()).to_string()));
        }
    }
    names.retain(|name| !name.is_empty() && !name.starts_with(char::is_uppercase));
    names
}

#[test]
fn the_store_reaches_neither_a_socket_nor_a_file() {
    let mut faults = Vec::new();
    for source in sources("src", "rs") {
        if ["store", "types", "watch"].contains(&source.module()) {
            for name in ["std::net", "std::fs", "std::io"] {
                if source.code().iter().any(|line| line.contains(name)) {
                    faults.push(format!("{} names {name}", source.path));
                }
            }
        }
    }
    none(&faults);
}

#[test]
fn the_root_package_has_no_dependency() {
    let manifest = read("Cargo.toml");
    let mut section = "";
    for line in manifest.lines().map(str::trim) {
        if line.starts_with('[') {
            section = line;
        } else if section.contains("dependencies") && !line.is_empty() && !line.starts_with('#') {
            panic!("{section} in Cargo.toml has the line {line:?}");
        }
    }
    let lock = read("Cargo.lock");
    assert_eq!(lock.matches("[[package]]").count(), 1, "Cargo.lock");
}

#[test]
fn nothing_is_unsafe_ignored_allowed_without_a_reason_or_left_for_later() {
    // Written in two halves, so that this file does not find itself.
    let marks = ["TO DO", "FIX ME", "XX X", "HA CK", "WI P"].map(|mark| mark.replace(' ', ""));
    let (ignored, allowed) = (["#[", "ignore"].concat(), ["allow", "("].concat());
    let mut faults = Vec::new();
    for source in everything() {
        let lines: Vec<&str> = source.text.lines().collect();
        for (at, line) in lines.iter().enumerate() {
            let mut fault = |what: &str| faults.push(format!("{}:{}: {what}", source.path, at + 1));
            let mut words = line.split(|c: char| !(c.is_alphanumeric() || c == '_'));
            if let Some(mark) = words.clone().find(|word| marks.iter().any(|mark| mark == word)) {
                fault(mark);
            }
            let code = !line.trim_start().starts_with("//") && source.path.ends_with(".rs");
            if code && source.path.starts_with("src/") && words.any(|word| word == "unsafe") {
                fault("unsafe");
            }
            if code && line.contains(&ignored) {
                fault("an ignored test");
            }
            let attribute = code && line.trim_start().starts_with('#') && line.contains(&allowed);
            if attribute && !(at > 0 && lines[at - 1].trim_start().starts_with("//")) {
                fault("a lint is allowed, and no comment says why");
            }
        }
    }
    none(&faults);
    assert!(read("src/main.rs").contains("#![forbid(unsafe_code)]"));
}

#[test]
fn scripts_say_what_they_do_and_what_they_found() {
    let mut faults = Vec::new();
    let mut scripts = all(everything(), "scripts/");
    scripts.extend(all(everything(), ".ci/"));
    // The page of the folder, its picture, and its figures.
    let is_script = |path: &str| ![".md", ".svg", ".jsonl"].iter().any(|end| path.ends_with(end));
    scripts.retain(|script| is_script(&script.path));
    for script in scripts {
        let mut lines = script.text.lines();
        let first = lines.find(|line| !line.starts_with("#!")).unwrap_or("");
        if !(first.starts_with("# ") || first.starts_with("//! ")) {
            faults.push(format!("{}: opens without a word", script.path));
        }
        // What is sourced or run by another ends with the other's last line.
        let is_run = script.path.ends_with(".sh") && !script.text.contains("Sourced, never run");
        let mut end = script.text.lines().rev().take(10);
        if is_run && !end.any(|line| line.contains("echo ") || line.contains("printf ")) {
            faults.push(format!("{}: ends without a word", script.path));
        }
    }
    none(&faults);
}

#[test]
fn every_command_stands_in_a_transcript() {
    let mut seen: Vec<String> = Vec::new();
    for name in transcript::all() {
        for step in Transcript::read(&name).steps {
            if let Action::Command { modes, words, .. } = step.action
                && !modes.iter().any(|mode| mode == "send")
            {
                let mut words = words.iter().map(|word| String::from_utf8_lossy(word));
                let name = words.next().unwrap_or_default().to_lowercase();
                if let Some(second) = words.next() {
                    seen.push(format!("{name}|{}", second.to_lowercase()));
                }
                seen.push(name);
            }
        }
    }
    let mut faults = Vec::new();
    for name in commands().into_values().flatten().map(|command| command.0) {
        if !seen.contains(&name) {
            faults.push(format!("{name} stands in no transcript"));
        }
    }
    none(&faults);
}

/// What the fuzzer does not know, nobody compares with Redis but where somebody thought of it.
#[test]
fn every_command_is_sent_by_the_fuzzer_or_said_there_why_not() {
    let commands = commands().into_values().flatten().map(|command| command.0);
    let commands: Vec<String> = commands.collect();
    let mut sent = BTreeSet::new();
    let mut faults = Vec::new();
    for words in grammar::sent() {
        let words: Vec<String> = words.iter().map(|word| word.to_lowercase()).collect();
        let name = words.first().cloned().unwrap_or_default();
        let whole = words.join("|");
        if !commands.contains(&name) && name != "…" {
            faults.push(format!("commands.txt: {name} is sent, and is no command"));
        }
        sent.extend([name, whole]);
    }
    let mut unsent = Vec::new();
    for (name, reason) in grammar::unsent() {
        let name = name.to_lowercase().replace(' ', "|");
        let below = format!("{name}|");
        let names = |command: &&String| **command == name || command.starts_with(&below);
        let covered: Vec<String> = commands.iter().filter(names).cloned().collect();
        if reason.is_empty() {
            faults.push(format!("commands.txt: no reason why {name} is not sent"));
        }
        if covered.is_empty() {
            faults
                .push(format!("commands.txt: {name} is in [unsent], and is no command: delete it"));
        }
        if let Some(both) = covered.iter().find(|command| sent.contains(*command)) {
            faults.push(format!("commands.txt: {both} is sent, so delete it from [unsent]"));
        }
        unsent.extend(covered);
    }
    for name in commands {
        if !sent.contains(&name) && !unsent.contains(&name) {
            faults.push(format!(
                "{name} is not sent: add a line for it to tests/differential/commands.txt (its \
                 first lines say how), or one with the reason to [unsent] there"
            ));
        }
    }
    none(&faults);
}
