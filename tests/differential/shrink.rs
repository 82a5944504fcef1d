//! From a failing round to the few commands that matter: delta debugging.
//!
//! Leave out half of the steps; if it still fails, keep it so; else leave out another half, then
//! quarters, and so on to single steps. Every attempt is a round of its own on fresh servers, so
//! it fails because of what is in it. How it fails may change on the way: any failure is worth
//! a look. What is left of scripts loses lines in the same way.

use std::time::{Duration, Instant};

use crate::generate::Step;
use crate::scripts;

/// Enough for a few hundred attempts; whoever waits for a red test has better to do.
const PATIENCE: Duration = Duration::from_secs(60);

/// The shortest list of steps found for which `fails` is still true.
pub fn shrink(steps: Vec<Step>, mut fails: impl FnMut(&[Step]) -> bool) -> Vec<Step> {
    let deadline = Instant::now() + PATIENCE;
    let steps = drop_parts(steps, &mut fails, deadline);
    // Once more with one command a step. If it takes a pipeline to fail, it stays one.
    let single: Vec<Step> = steps.iter().flat_map(split).collect();
    let steps = if fails(&single) { drop_parts(single, &mut fails, deadline) } else { steps };
    drop_lines(steps, &mut fails, deadline)
}

/// Leaves out lines of the scripts.
fn drop_lines(
    mut steps: Vec<Step>,
    fails: &mut impl FnMut(&[Step]) -> bool,
    deadline: Instant,
) -> Vec<Step> {
    for at in 0..steps.len() {
        let Some(lines) = script(&mut steps[at]).map(|source| lines(source)) else {
            continue;
        };
        let with = |lines: &[Vec<u8>]| {
            let mut changed = steps.clone();
            if let Some(source) = script(&mut changed[at]) {
                *source = lines.concat();
            }
            changed
        };
        let lines = drop_parts(lines, &mut |lines: &[Vec<u8>]| fails(&with(lines)), deadline);
        steps = with(&lines);
    }
    steps
}

/// The source of the only script in a step.
fn script(step: &mut Step) -> Option<&mut Vec<u8>> {
    let Step::Send { units, .. } = step else { return None };
    let [unit] = &mut units[..] else { return None };
    let [command] = &mut unit[..] else { return None };
    let at = if command.name() == "SCRIPT" { 2 } else { 1 };
    command.args.get_mut(at)
}

/// Each with its line end. The prelude is one.
fn lines(source: &[u8]) -> Vec<Vec<u8>> {
    let (prelude, body) = source.split_at(scripts::begin_of_body(source));
    let lines = body.split_inclusive(|byte| *byte == b'\n');
    [prelude].into_iter().chain(lines).map(<[u8]>::to_vec).collect()
}

fn drop_parts<T: Clone>(
    mut parts: Vec<T>,
    fails: &mut impl FnMut(&[T]) -> bool,
    deadline: Instant,
) -> Vec<T> {
    let mut size = parts.len().div_ceil(2);
    while size > 0 {
        let mut start = 0;
        while start < parts.len() && Instant::now() < deadline {
            let end = (start + size).min(parts.len());
            let mut fewer = parts.clone();
            fewer.drain(start..end);
            if fails(&fewer) {
                parts = fewer;
            } else {
                start = end;
            }
        }
        size = if size == 1 { 0 } else { size.div_ceil(2) };
    }
    parts
}

fn split(step: &Step) -> Vec<Step> {
    match step {
        Step::Send { connection, units, cuts } => {
            let one = |unit: &Vec<_>| {
                let units = vec![unit.clone()];
                Step::Send { connection: *connection, units, cuts: *cuts }
            };
            units.iter().map(one).collect()
        }
        other => vec![other.clone()],
    }
}
