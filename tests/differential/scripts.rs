//! Random Lua programs, sent as scripts.
//!
//! ```text
//! scripts.txt ──▶ a program ──▶ EVAL ─────────────────────────────┐
//!                     └──▶ a few bytes changed ──▶ SCRIPT LOAD ───┼──▶ a round, as of any other commands
//! commands.txt ──▶ commands, in between and inside ───────────────┘
//! ```
//!
//! A program collects what it has seen in a list and returns that. Most errors in it are caught, so that one does not
//! hide what would come after it, and are in the list too. A script is a command, so [`crate::round`] compares the
//! replies, the state and the log as it does for all others.
//!
//! What a program does is bounded by itself: a loop that never ends would tell nothing. So the bytes are changed
//! only in what is compiled and not run, or has no loop.

use std::collections::BTreeMap;

use crate::command::Command;
use crate::generate::{Generator, Step, Unit};
use crate::support::bare;
use crate::support::random::Random;

/// Stands in front of each program.
const PRELUDE: &str = include_str!("prelude.lua");

/// How deeply rules are expanded before only their first alternatives are taken.
const DEPTH: usize = 14;

/// Bytes of a program after which the same is done.
const LONG: usize = 4000;

/// What a mutation puts in, apart from single bytes.
const PIECES: &str = "end ( ) = ' \" [[ ]] -- .. ... x { } 1 then local function return break [=[ ~= ~ , ; : . not and \
                      1e 0x '\\300' # % ^- --[[ goto @ \\";

pub struct Scripts {
    random: Random,
    rules: BTreeMap<&'static str, Vec<(usize, &'static str)>>,
    commands: Generator,
}

impl Scripts {
    pub fn new(seed: u64) -> Scripts {
        let mut rules: BTreeMap<&str, Vec<_>> = BTreeMap::new();
        let mut name = "";
        let lines = include_str!("scripts.txt").lines();
        for line in lines.filter(|line| !line.is_empty() && !line.starts_with('#')) {
            let Some(alternative) = line.strip_prefix("    ") else {
                name = line;
                continue;
            };
            let (weight, text) = alternative.split_once(' ').unwrap_or((alternative, ""));
            let weight = weight.parse().expect("an alternative begins with its weight");
            rules.entry(name).or_default().push((weight, text));
        }
        Scripts { random: Random::new(seed), rules, commands: Generator::new(seed, false) }
    }

    /// A round of this many programs, and some commands between them.
    pub fn round(&mut self, programs: usize) -> Vec<Step> {
        let mut steps = Vec::new();
        let mut sent = 0;
        while sent < programs {
            let most = 1 + self.random.below(20);
            let units: Vec<Unit> = (0..most).map(|_| self.unit()).collect();
            sent += units.len();
            let (connection, cuts) = (self.random.below(2), self.random.next());
            steps.push(Step::Send { connection, units, cuts });
            if self.random.percent(3) {
                steps.push(Step::Look);
            }
        }
        steps
    }

    fn unit(&mut self) -> Unit {
        match self.random.below(100) {
            0..70 => vec![self.eval("EVAL", b"")],
            70..74 => vec![self.eval("EVAL_RO", b"")],
            74..77 => {
                let flags: [&[u8]; 5] = [
                    b"#!lua\n",
                    b"#!lua flags=no-writes\n",
                    b"#!lua flags=allow-stale,no-cluster\n",
                    b"#!lua flags=\n",
                    b"#!lua flags=x\n",
                ];
                let flags = self.random.pick(&flags);
                let name = self.random.pick(&["EVAL", "EVAL", "EVAL_RO"]);
                vec![self.eval(name, flags)]
            }
            77..80 => {
                let mut unit = vec![Command::new(&["MULTI"])];
                unit.extend((0..=self.random.below(3)).map(|_| self.eval("EVAL", b"")));
                unit.push(Command::new(&["EXEC"]));
                unit
            }
            80..90 => {
                let mut program = self.program();
                self.mutate(&mut program);
                vec![Command::of(vec![b"SCRIPT".to_vec(), b"LOAD".to_vec(), program])]
            }
            _ => self.commands.unit("ordinary"),
        }
    }

    fn eval(&mut self, name: &str, head: &[u8]) -> Command {
        let mut program = self.program();
        if self.random.percent(20) {
            let body = &program[PRELUDE.len()..];
            let has = |word: &str| body.windows(word.len()).any(|part| part == word.as_bytes());
            if !["for ", "while ", "repeat", "rep("].into_iter().any(has) {
                self.mutate(&mut program);
            }
        }
        let source = [head, &program].concat();
        let keys = self.random.below(4);
        let mut args = vec![name.into(), source, keys.to_string().into_bytes()];
        args.extend((0..keys).map(|_| self.random.pick(&["n", "text", "q", "k0", "h0"]).into()));
        let values = ["10", "hello", "", "3.5", "nul\0", "{\"a\":[1,2]}", "-7", "\u{e9}"];
        args.extend((0..self.random.below(4)).map(|_| self.random.pick(&values).into()));
        Command::of(args)
    }

    fn program(&mut self) -> Vec<u8> {
        let mut program = Vec::from(PRELUDE);
        self.expand("program", 0, &mut program);
        program
    }

    fn expand(&mut self, rule: &str, depth: usize, out: &mut Vec<u8>) {
        let choices = &self.rules[rule];
        let is_deep = depth > DEPTH || out.len() > PRELUDE.len() + LONG;
        let mut ticket = match is_deep {
            true => 0,
            false => self.random.below(choices.iter().map(|(weight, _)| weight).sum()),
        };
        let choice = choices.iter().find(|(weight, _)| {
            let found = ticket < *weight;
            ticket = ticket.saturating_sub(*weight);
            found
        });
        let mut rest = choice.expect("a ticket is below the sum").1;
        while let Some(at) = rest.find('<') {
            out.extend(rest[..at].bytes());
            rest = &rest[at..];
            let name = rest[1..].split_once('>').map_or("", |(name, _)| name);
            match name {
                "nl" => out.push(b'\n'),
                "command" => self.call_commands(out),
                name if self.rules.contains_key(name) => self.expand(name, depth + 1, out),
                // Lua's own sign.
                _ => {
                    out.push(b'<');
                    rest = &rest[1..];
                    continue;
                }
            }
            rest = &rest[name.len() + 2..];
        }
        out.extend(rest.bytes());
    }

    /// Calls what a client might send. Its reply may be chance, so of that no more is noted than the type.
    fn call_commands(&mut self, out: &mut Vec<u8>) {
        let unit = self.commands.unit("ordinary");
        // SORT makes a sorted set large in Redis. It is deleted behind it, but not in a script that may not write.
        let sorts = unit.iter().any(|command| command.name().starts_with("SORT"));
        for command in unit.iter().filter(|_| !sorts) {
            let args: Vec<String> = command.args.iter().map(|arg| quoted(arg)).collect();
            out.extend(format!("note(redis.pcall({}))\n", args.join(", ")).bytes());
        }
    }

    /// Changes a few bytes behind the prelude.
    fn mutate(&mut self, program: &mut Vec<u8>) {
        for _ in 0..=self.random.below(4) {
            let length = program.len() - PRELUDE.len();
            if length == 0 {
                return;
            }
            let at = PRELUDE.len() + self.random.below(length);
            let end = (at + 1 + self.random.below(8)).min(program.len());
            match self.random.below(6) {
                0 => drop(program.drain(at..end)),
                1 => program[at] = self.random.next() as u8,
                2 => {
                    let part = program[at..end].to_vec();
                    program.splice(at..at, part);
                }
                3 => program.truncate(at),
                _ => {
                    let pieces: Vec<&str> = PIECES.split(' ').collect();
                    let piece = self.random.pick(&pieces);
                    program.splice(at..at, format!(" {piece} ").bytes());
                }
            }
        }
    }
}

/// How long the prelude is, and what stands in front of it.
pub fn begin_of_body(source: &[u8]) -> usize {
    let mut places = source.windows(PRELUDE.len());
    places.position(|part| part == PRELUDE.as_bytes()).map_or(0, |at| at + PRELUDE.len())
}

/// The same report with a name in place of each prelude.
pub fn without_prelude(report: &str) -> String {
    let prelude = bare(PRELUDE.as_bytes());
    let plain = prelude.trim_matches('"');
    report
        .replace(plain, "<prelude.lua>")
        .replace(&PRELUDE.escape_default().to_string(), "<prelude.lua>")
}

/// As a string of Lua.
fn quoted(text: &[u8]) -> String {
    let mut out = String::from("'");
    for &byte in text {
        match byte {
            b'\'' | b'\\' => out.extend(['\\', byte as char]),
            b' '..=b'~' => out.push(byte as char),
            _ => out.push_str(&format!("\\{byte:03}")),
        }
    }
    out + "'"
}
