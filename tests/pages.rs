//! What the pages say is true: README.md, and the README.md of each folder.
//!
//! A page names commands, files, functions and sizes. Each test takes one of these and compares it
//! with the sources, or with what the server says of itself. What can be made is made, and stands
//! between two marks, such as `<!-- commands -->` and `<!-- /commands -->`:
//!
//! ```text
//! UPDATE=1 cargo test --test pages        writes it again
//! ```

mod support;

use std::collections::BTreeSet;
use std::env;
use std::fs;
use std::sync::Mutex;
use support::commands::commands;
use support::project::{
    SECOND_EVENING, Source, evening, everything, functions, none, read, root, sources, word,
};

const FRONT: &str = "README.md";
const BOOK: &str = "src/README.md";
const COMMANDS: &str = "src/handler/README.md";
const SCRIPTS: &str = "scripts/README.md";
const TESTS: &str = "tests/README.md";

const FRONT_LIMIT: usize = 350;

#[test]
fn the_front_page_has_at_most_350_lines() {
    let length = read(FRONT).lines().count();
    assert!(length <= FRONT_LIMIT, "{FRONT} has {length} lines");
}

#[test]
fn one_page_lists_every_command_and_no_other() {
    let mut list = String::from("\n");
    for (group, commands) in commands() {
        list += &format!("\n**{group}**\n\n");
        for (name, summary, arguments) in commands {
            let name = name.replace('|', " ").to_uppercase();
            let usage = format!("{name} {arguments}");
            list += &format!("- `{}`: {summary}\n", usage.trim_end());
        }
    }
    made(COMMANDS, "commands", &(list + "\n"));
}

#[test]
fn the_front_page_names_every_command_and_no_other() {
    let mut list = String::from("\n");
    for (group, commands) in commands() {
        let names = commands.into_iter().map(|command| command.0);
        let names: Vec<String> = names.filter(|name| !name.contains('|')).collect();
        list += &format!("- *{group}*: {}\n", names.join(", ").to_uppercase());
    }
    made(FRONT, "names", &(list + "\n"));
}

/// Lines before the tests, in steps of a hundred: what nobody should have to count, and what may
/// not be forgotten when it grows.
#[test]
fn the_front_page_says_how_long_the_program_is() {
    let sources = sources("src", "rs");
    let evening = evening();
    let (mut first, mut whole) = (0, 0);
    for source in &sources {
        let length = match source.is_test(&sources) {
            true => 0,
            false => source.code().len(),
        };
        whole += length;
        first += if evening.contains(&source.path.as_str()) { length } else { 0 };
    }
    made(FRONT, "size", &format!("**{} lines**", hundreds(first)));
    made(FRONT, "whole", &hundreds(whole));
}

/// `3,900` for 3876.
fn hundreds(count: usize) -> String {
    let rounded = (count + 50) / 100 * 100;
    format!("{},{:03}", rounded / 1000, rounded % 1000)
}

/// Each with its minutes, a question, and where the answer is.
#[test]
fn the_book_numbers_the_files_of_both_evenings() {
    let book = read(BOOK);
    let evenings = [("The evening", evening()), ("The second evening", SECOND_EVENING.to_vec())];
    for (heading, files) in evenings {
        let (_, rest) = book.split_once(&format!("\n### {heading}\n")).expect(heading);
        let section = rest.split("\n### ").next().unwrap_or_default();
        let parts = section.split("\n\n").flat_map(|part| part.split_inclusive("`\n"));
        let mut entries = parts.map(str::trim_start).filter(|part| {
            let number = part.split_once(". `src/").map(|(number, _)| number.parse::<usize>());
            number.is_some_and(|number| number.is_ok())
        });
        for (at, file) in files.iter().enumerate() {
            let begin = format!("{}. `{file}`, ", at + 1);
            let entry = entries.next().unwrap_or_default();
            assert!(entry.starts_with(&begin), "{heading}: not {begin} but {entry}");
            let is_whole = [" minutes", "?\\\n", "→ "].iter().all(|part| entry.contains(part));
            assert!(is_whole, "{heading}: no minutes, no question or no answer: {entry}");
        }
        assert_eq!(entries.next(), None, "{heading}");
    }
}

#[test]
fn the_book_says_when_to_read_every_file() {
    let book = read(BOOK);
    let sources = sources("src", "rs");
    let mut faults = Vec::new();
    for source in &sources {
        // A file of tests is read with the file it tests; a file of commands has no order.
        let of_its_own = source.is_test(&sources) || source.path.starts_with("src/handler/");
        let name = format!("`{}`, ", source.path);
        let is_entry = |line: &&str| {
            let (mark, rest) = line.split_once(' ').unwrap_or_default();
            let number = mark.strip_suffix('.').map(|number| number.parse::<usize>());
            (mark == "-" || number.is_some_and(|number| number.is_ok())) && rest.starts_with(&name)
        };
        let places = book.lines().filter(is_entry).count();
        if !of_its_own && places != 1 {
            faults.push(format!(
                "{} has {places} places in the reading order of {BOOK}",
                source.path
            ));
        }
    }
    none(&faults);
}

/// Whatever the line breaks: what is shown as code of the server is code of the server.
#[test]
fn the_code_on_the_front_page_is_in_the_sources() {
    let packed = |text: &str| text.split_whitespace().collect::<String>();
    let all: String = sources("src", "rs").iter().map(|file| packed(&file.text)).collect();
    let front = read(FRONT);
    let mut faults = Vec::new();
    for block in front.split("```rust\n").skip(1) {
        let code = block.split("```").next().unwrap_or_default();
        let missing = code.split("\n\n").filter(|part| !all.contains(&packed(part)));
        faults.extend(missing.map(|part| format!("{FRONT} shows what is not there:\n{part}")));
    }
    none(&faults);
}

#[test]
fn every_script_and_every_test_is_explained() {
    let mut faults = Vec::new();
    let (scripts, tests) = (read(SCRIPTS), read(TESTS));
    for source in everything() {
        let name = source.path.as_str();
        let below = |folder: &str| name.strip_prefix(folder).filter(|rest| !rest.contains('/'));
        if below("scripts/").is_some_and(|rest| !scripts.contains(rest)) {
            faults.push(format!("{name} is not in {SCRIPTS}"));
        }
        let is_test = below("tests/").is_some_and(|rest| rest.ends_with(".rs"));
        if is_test && !tests.contains(name) {
            faults.push(format!("{name} is not in {TESTS}"));
        }
    }
    none(&faults);
}

#[test]
fn every_function_that_a_page_names_exists() {
    let code = code();
    let mut faults = Vec::new();
    for page in pages() {
        for (at, _) in page.text.match_indices(".rs::") {
            let file = [path_before(&page.text, at), ".rs"].concat();
            let name = path_of(&page.text[at + 5..]);
            let last = name.rsplit("::").next().unwrap_or_default();
            let mut files = code.iter().filter(|source| is_called(&source.path, &file));
            if !files.any(|source| defines(source, last)) {
                faults.push(format!("{}: {file}::{name} does not exist", page.path));
            }
        }
    }
    none(&faults);
}

fn defines(source: &Source, name: &str) -> bool {
    let kinds = ["fn", "struct", "enum", "const", "static", "type", "trait", "mod"];
    kinds.iter().any(|kind| {
        let start = format!("{kind} {name}");
        let mut found = source.text.match_indices(&start);
        found.any(|(at, _)| word(&source.text[at + kind.len() + 1..]) == name)
    })
}

#[test]
fn every_file_that_a_page_names_exists() {
    let existing: Vec<String> = everything().into_iter().map(|file| file.path).collect();
    let mut faults = Vec::new();
    for page in pages() {
        // A lesson may tell the reader to make a file: `<!-- not yet: src/handler/list.rs -->`.
        let lessons = page.text.split("<!-- not yet: ").skip(1);
        let not_yet: Vec<&str> = lessons
            .flat_map(|rest| rest.split("-->").next().unwrap_or("").split_whitespace())
            .collect();
        for ending in [".rs", ".sh", ".toml", ".txt", ".py", ".mjs", ".svg"] {
            for (at, _) in page.text.match_indices(ending) {
                let name = path_before(&page.text, at);
                let path = [name, ending].concat();
                let rest = &page.text[at + ending.len()..];
                let known = existing.iter().any(|file| is_called(file, &path))
                    || not_yet.iter().any(|file| is_called(file, &path));
                // Without a name before it, it is talk of an ending: `*.txt`.
                let is_ending = name.is_empty() || name.ends_with('/');
                if !rest.starts_with(char::is_alphanumeric) && !is_ending && !known {
                    faults.push(format!("{}: {path} does not exist", page.path));
                }
            }
        }
    }
    none(&faults);
}

/// A link leads to a file as seen from its page, and what follows `#` is a heading there.
#[test]
fn every_link_between_the_pages_leads_somewhere() {
    let mut faults = Vec::new();
    for page in pages() {
        let folder = page.path.rsplit_once('/').map_or("", |(folder, _)| folder);
        for rest in page.text.split("](").skip(1) {
            let target = rest.split(')').next().unwrap_or_default();
            if target.contains("://") {
                continue;
            }
            let (file, heading) = target.split_once('#').unwrap_or((target, ""));
            let path = match file {
                "" => root().join(&page.path),
                file => root().join(folder).join(file),
            };
            let text = fs::read_to_string(&path).unwrap_or_default();
            let mut anchors = text.lines().filter(|line| line.starts_with('#')).map(anchor);
            if !path.exists() || !(heading.is_empty() || anchors.any(|name| name == heading)) {
                faults.push(format!("{}: {target} leads nowhere", page.path));
            }
        }
    }
    none(&faults);
}

/// What a heading is called in a link: lower case, no punctuation, `-` for a space.
fn anchor(heading: &str) -> String {
    let heading = heading.trim_start_matches('#').trim().to_lowercase();
    let kept = heading.chars().filter(|c| c.is_alphanumeric() || " -_".contains(*c));
    kept.map(|c| if c == ' ' { '-' } else { c }).collect()
}

/// The lock order names each mutex by its field.
#[test]
fn the_book_names_every_lock() {
    let book = read(BOOK);
    let sources = sources("src", "rs");
    let mut faults = Vec::new();
    for source in sources.iter().filter(|source| !source.is_test(&sources)) {
        for line in source.code() {
            let field = line.trim_start().trim_start_matches("pub ");
            let Some((name, kind)) = field.split_once(": ") else {
                continue;
            };
            // A field ends with a comma at once; an argument or a `let` looks otherwise.
            let is_lock = kind.starts_with("Mutex<") || kind.starts_with("RwLock<");
            let (is_static, name) = match name.strip_prefix("static ") {
                Some(name) => (true, format!("::{name}`")),
                None => (false, format!(".{name}`")),
            };
            if is_lock && (is_static || kind.ends_with(">,")) && !book.contains(&name) {
                faults.push(format!("{}: {BOOK} does not name {name}", source.path));
            }
        }
    }
    none(&faults);
}

/// In a drawing `▶` is a call, and the function on its left makes it; `╌▶` is one that goes
/// through the row of the command, so there is no name to look for.
#[test]
fn every_arrow_of_a_drawing_is_a_call() {
    let code = code();
    let mut faults = Vec::new();
    let mut arrows = 0;
    for (caller, called, through_row) in pages().iter().flat_map(arrows_of) {
        arrows += 1;
        let (file, name) = caller.split_once("::").expect("a function");
        let mut files = code.iter().filter(|source| is_called(&source.path, file));
        let called_name = called.rsplit("::").next().unwrap_or_default();
        if !through_row && !files.any(|source| calls(source, name, called_name)) {
            faults.push(format!("{caller} does not call {called}"));
        }
    }
    none(&faults);
    assert!(arrows > 20, "only {arrows} arrows were found");
}

/// The arrows of a page's drawings: who calls, who is called, and whether the row stands between.
fn arrows_of(page: &Source) -> Vec<(String, String, bool)> {
    let mut found = Vec::new();
    // The functions above this line, and the column in which each begins.
    let mut above: Vec<(usize, String)> = Vec::new();
    for line in page.text.lines() {
        if line.starts_with("```") {
            above.clear();
        }
        let mut last: Option<String> = None;
        let mut from = 0;
        for (at, _) in line.match_indices(".rs::") {
            let file = path_before(line, at);
            let start = at - file.len();
            let name = format!("{file}.rs::{}", path_of(&line[at + 5..]));
            let column = line[..start].chars().count();
            let sign = &line[from..start];
            from = start + name.len();
            above.retain(|(other, _)| *other < column);
            let caller = last.take().or_else(|| above.last().map(|(_, name)| name.clone()));
            if let Some(caller) = caller.filter(|_| sign.contains('▶')) {
                found.push((caller, name.clone(), sign.contains("╌▶")));
            }
            above.push((column, name.clone()));
            last = Some(name);
        }
    }
    found
}

/// Whether the body of a function names another one before `(`, or hands it on by its name.
fn calls(source: &Source, function: &str, called: &str) -> bool {
    let lines = source.code();
    let mut bodies = functions(&lines).into_iter().filter(|found| found.1 == function);
    bodies.any(|(at, _, length)| {
        lines[at + 1..at + length].iter().any(|line| {
            let mut found = line.match_indices(called);
            found.any(|(at, _)| {
                let starts = !line[..at].ends_with(|c: char| c.is_alphanumeric() || c == '_');
                starts && word(&line[at..]) == called
            })
        })
    })
}

/// All pages of the project.
fn pages() -> Vec<Source> {
    let mut pages = everything();
    pages.retain(|file| file.path.ends_with(".md"));
    let paths: BTreeSet<&str> = pages.iter().map(|page| page.path.as_str()).collect();
    assert!(paths.is_superset(&[FRONT, BOOK, COMMANDS, SCRIPTS, TESTS].into()));
    pages
}

/// All code of the project.
fn code() -> Vec<Source> {
    let mut code = everything();
    code.retain(|file| file.path.ends_with(".rs"));
    code
}

/// Compares what stands between two marks of a page with what belongs there, and with UPDATE
/// writes it.
fn made(page: &str, mark: &str, expected: &str) {
    let text = read(page);
    let found = between(&text, mark).unwrap_or_else(|| panic!("{page} has no <!-- {mark} -->"));
    if found == expected {
        return;
    }
    assert!(
        env::var("UPDATE").is_ok(),
        "{page}, {mark}: run UPDATE=1 cargo test --test pages. It would change these lines:\n{}{}",
        only_in(found, expected, '-'),
        only_in(expected, found, '+')
    );
    // Read again: another test may have written its own part meanwhile.
    let _one_at_a_time = WRITES.lock().unwrap();
    let text = read(page);
    let found = between(&text, mark).expect("it was there");
    let begin = found.as_ptr().addr() - text.as_ptr().addr();
    let text = [&text[..begin], expected, &text[begin + found.len()..]].concat();
    fs::write(root().join(page), text).expect("the page can be written");
}

/// The lines that one text has and the other has not, each behind a sign.
fn only_in(text: &str, other: &str, sign: char) -> String {
    let others: BTreeSet<&str> = other.lines().collect();
    let lines = text.lines().filter(|line| !others.contains(line));
    lines.map(|line| format!("{sign} {line}\n")).collect()
}

static WRITES: Mutex<()> = Mutex::new(());

/// What stands between two marks. A mark is followed by the end of its line where a list follows.
fn between<'a>(text: &'a str, mark: &str) -> Option<&'a str> {
    let (_, rest) = text.split_once(&format!("<!-- {mark} -->"))?;
    let (found, _) = rest.split_once(&format!("<!-- /{mark} -->"))?;
    Some(found)
}

/// Whether a file may be called this: its path, or the end of it.
fn is_called(path: &str, name: &str) -> bool {
    let rest = path.strip_suffix(name.trim_start_matches("../").trim_start_matches("./"));
    rest.is_some_and(|rest| rest.is_empty() || rest.ends_with('/'))
}

/// The part of a path that ends at byte `at`.
fn path_before(text: &str, at: usize) -> &str {
    let part = |c: char| c.is_alphanumeric() || "_-./".contains(c);
    let start = text[..at].trim_end_matches(part).len();
    &text[start..at]
}

/// The identifiers, joined by `::`, that a text begins with.
fn path_of(text: &str) -> &str {
    let end = text.find(|c: char| !(c.is_alphanumeric() || c == '_' || c == ':'));
    text[..end.unwrap_or(text.len())].trim_end_matches(':')
}
