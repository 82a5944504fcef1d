//! From a failing round to the few commands that matter: delta debugging.
//!
//! Leave out half of the steps; if it still fails, keep it so; else leave out another half, then
//! quarters, and so on to single steps. Every attempt is a round of its own on fresh servers, so
//! it fails because of what is in it. How it fails may change on the way: any failure is worth
//! a look.

use std::time::{Duration, Instant};

use crate::generate::Step;

/// Enough for a few hundred attempts; whoever waits for a red test has better to do.
const PATIENCE: Duration = Duration::from_secs(60);

/// The shortest list of steps found for which `fails` is still true.
pub fn shrink(steps: Vec<Step>, mut fails: impl FnMut(&[Step]) -> bool) -> Vec<Step> {
    let deadline = Instant::now() + PATIENCE;
    let steps = drop_steps(steps, &mut fails, deadline);
    // Once more with one command a step. If it takes a pipeline to fail, it stays one.
    let single: Vec<Step> = steps.iter().flat_map(split).collect();
    if fails(&single) { drop_steps(single, &mut fails, deadline) } else { steps }
}

fn drop_steps(
    mut steps: Vec<Step>,
    fails: &mut impl FnMut(&[Step]) -> bool,
    deadline: Instant,
) -> Vec<Step> {
    let mut size = steps.len().div_ceil(2);
    while size > 0 {
        let mut start = 0;
        while start < steps.len() && Instant::now() < deadline {
            let end = (start + size).min(steps.len());
            let mut fewer = steps.clone();
            fewer.drain(start..end);
            if fails(&fewer) {
                steps = fewer;
            } else {
                start = end;
            }
        }
        size = if size == 1 { 0 } else { size.div_ceil(2) };
    }
    steps
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
