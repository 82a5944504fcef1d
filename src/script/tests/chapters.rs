//! What the chapters show is true: the instructions are those that the compiler makes, and the frames
//! those of the machine.

use super::{LIMIT, Patience, run_on};
use crate::script::heap::Function;
use crate::script::lib::{Call, Outcome};
use crate::script::machine::Machine;
use crate::script::value::{Error, Value};

/// The instructions of a whole script, as `Debug` prints them.
fn instructions(source: &str) -> Vec<String> {
    let mut machine = Machine::new(LIMIT);
    let script =
        machine.load(source.as_bytes(), b"@user_script", &mut || Ok(())).expect("a script");
    let Value::Function(id) = script else { unreachable!("a script is a function") };
    let Function::Lua { prototype, .. } = machine.heap.functions[id] else {
        unreachable!("and it is compiled")
    };
    machine.prototypes[prototype].code.iter().map(|code| format!("{code:?}")).collect()
}

/// In a drawing, `2  Jump { offset: 1 }` is the instruction with that number of the source at the top.
#[test]
fn what_the_chapters_show_is_what_the_compiler_makes() {
    let chapters = [
        include_str!("../../script.rs"),
        include_str!("../code.rs"),
        include_str!("../compiler.rs"),
        include_str!("../compiler/emit.rs"),
        include_str!("../compiler/expressions.rs"),
        include_str!("../compiler/jumps.rs"),
        include_str!("../compiler/operators.rs"),
        include_str!("../compiler/statements.rs"),
        include_str!("../machine/slow.rs"),
    ];
    let mut shown = 0;
    for drawing in chapters.iter().flat_map(|file| file.split("//! ```").skip(1).step_by(2)) {
        let lines: Vec<&str> =
            drawing.lines().skip(1).map(|line| line.trim_start_matches("//!").trim()).collect();
        let numbered = |line: &&str| {
            let (number, rest) = line.split_once("  ").unwrap_or_default();
            let is_instruction = rest.starts_with(|c: char| c.is_ascii_uppercase());
            number.parse::<usize>().ok().filter(|_| is_instruction)
        };
        let Some(first) = lines.iter().position(|line| numbered(line).is_some()) else { continue };
        // Up to the first empty line.
        let source = lines.split(|line| line.is_empty()).next().unwrap_or_default().join("\n");
        let made = instructions(&source);
        for line in &lines[first..] {
            if let Some(number) = numbered(line) {
                let (_, text) = line.split_once("  ").expect("a number");
                let expected = made.get(number).map_or("no instruction", String::as_str);
                assert!(text.starts_with(expected), "{source}\n{}", made.join("\n"));
                shown += 1;
            }
        }
    }
    assert!(shown > 30, "only {shown} instructions were found");
}

/// The frames while this native runs, as far as a reader wants to know.
fn frames(call: &mut Call) -> Result<Outcome, Error> {
    let all: Vec<String> = call.machine.thread.frames.iter().map(|f| format!("{f:?}")).collect();
    let shown = all
        .iter()
        .filter_map(|frame| Some(frame.strip_prefix("Frame { ")?.split_once(", function")?.0));
    call.give_string(shown.collect::<Vec<_>>().join("\n").as_bytes())
}

#[test]
fn the_frames_of_a_metamethod_in_a_pcall_are_those_that_the_chapter_shows() {
    let chapter = include_str!("../machine/calls.rs");
    let drawing = chapter.split("//! ```").nth(1).expect("a drawing");
    let lines = drawing.lines().skip(1).map(|line| line.trim_start_matches("//!").trim());
    let (shown, source): (Vec<&str>, Vec<&str>) = lines.partition(|line| line.starts_with("kind"));
    let mut machine = Machine::new(LIMIT);
    let native = machine.heap.native(frames);
    machine.set_field(machine.globals, "frames", native);
    let made = run_on(&mut machine, &source.join("\n"), &mut Patience(u32::MAX));
    let made = made.trim_matches('"');
    assert_eq!(made.lines().count(), shown.len(), "{made}");
    assert!(shown.iter().zip(made.lines()).all(|(line, frame)| line.starts_with(frame)), "{made}");
}
