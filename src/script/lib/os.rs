//! `os.clock`. Of the operating system, scripts may know nothing else.
//!
//! **How Redis does it**: Redis 7.0 has no `os`, and later ones have this function alone. There it
//! is the time that the process has used the processors, which std does not tell. Scripts use it to
//! see how long something takes, so the time since the first question does as well.

use super::{Call, Native, Outcome};
use crate::script::machine::Machine;
use crate::script::value::Error;
use std::sync::LazyLock;
use std::time::Instant;

static BEGIN: LazyLock<Instant> = LazyLock::new(Instant::now);

pub fn open(machine: &mut Machine) {
    let natives: [(&str, Native); 1] = [("clock", clock)];
    machine.library("os", &natives);
}

fn clock(call: &mut Call) -> Result<Outcome, Error> {
    call.give_number(BEGIN.elapsed().as_secs_f64())
}
