//! Mathematics.
//!
//! `math.random` is Redis's own: a generator that gives the same numbers on every machine. It
//! begins anew with each script.
//!
//! **How Redis does it**: lmathlib.c of Lua, and rand.c for `random`. There a script goes on in the row of
//! numbers where the last one has stopped.

use super::{Call, Native, Outcome};
use crate::script::machine::Machine;
use crate::script::number;
use crate::script::value::{Error, Value};
use std::f64::consts::PI;

pub fn open(machine: &mut Machine) {
    let natives: [(&str, Native); 28] = [
        ("abs", |call| one(call, f64::abs)),
        ("acos", |call| one(call, f64::acos)),
        ("asin", |call| one(call, f64::asin)),
        ("atan2", |call| two(call, f64::atan2)),
        ("atan", |call| one(call, f64::atan)),
        ("ceil", |call| one(call, f64::ceil)),
        ("cosh", |call| one(call, f64::cosh)),
        ("cos", |call| one(call, f64::cos)),
        ("deg", |call| one(call, |radians| radians / (PI / 180.0))),
        ("exp", |call| one(call, f64::exp)),
        ("floor", |call| one(call, f64::floor)),
        ("fmod", |call| two(call, |a, b| a % b)),
        ("frexp", frexp),
        ("ldexp", ldexp),
        ("log10", |call| one(call, f64::log10)),
        ("log", |call| one(call, f64::ln)),
        ("max", |call| best(call, |a, b| b > a)),
        ("min", |call| best(call, |a, b| b < a)),
        ("modf", modf),
        ("pow", |call| two(call, f64::powf)),
        ("rad", |call| one(call, |degrees| degrees * (PI / 180.0))),
        ("random", random),
        ("randomseed", randomseed),
        ("sinh", |call| one(call, f64::sinh)),
        ("sin", |call| one(call, f64::sin)),
        ("sqrt", |call| one(call, f64::sqrt)),
        ("tanh", |call| one(call, f64::tanh)),
        ("tan", |call| one(call, f64::tan)),
    ];
    let library = machine.library("math", &natives);
    machine.set_field(library, "pi", Value::Number(PI));
    machine.set_field(library, "huge", Value::Number(f64::INFINITY));
    machine.alias(library, "fmod", "mod");
}

fn one(call: &mut Call, function: fn(f64) -> f64) -> Result<Outcome, Error> {
    let number = call.number(1)?;
    call.give_number(function(number))
}

fn two(call: &mut Call, function: fn(f64, f64) -> f64) -> Result<Outcome, Error> {
    // In this order, as a C compiler does it.
    let second = call.number(2)?;
    let first = call.number(1)?;
    call.give_number(function(first, second))
}

fn best(call: &mut Call, is_better: fn(f64, f64) -> bool) -> Result<Outcome, Error> {
    let mut best = call.number(1)?;
    for number in 2..=call.count {
        let other = call.number(number)?;
        if is_better(best, other) {
            best = other;
        }
    }
    call.give_number(best)
}

/// A number as m times 2 to the power of e, with m from 0.5 to below 1.
fn frexp(call: &mut Call) -> Result<Outcome, Error> {
    let mut number = call.number(1)?;
    let mut exponent = 0;
    if number != 0.0 && number.is_finite() {
        if number.abs() < f64::MIN_POSITIVE {
            number *= 2f64.powi(64);
            exponent = -64;
        }
        let bits = number.to_bits();
        exponent += (bits >> 52 & 0x7ff) as i32 - 1022;
        number = f64::from_bits(bits & !(0x7ff << 52) | 1022 << 52);
    }
    call.push(Value::Number(number));
    call.push(Value::Number(exponent.into()));
    Ok(Outcome::Return(2))
}

fn ldexp(call: &mut Call) -> Result<Outcome, Error> {
    let exponent = call.integer(2)? as i32;
    let number = call.number(1)?;
    call.give_number(number::scale(number, exponent.into()))
}

fn modf(call: &mut Call) -> Result<Outcome, Error> {
    let number = call.number(1)?;
    let whole = number.trunc();
    let rest = if number.is_infinite() { 0f64.copysign(number) } else { number - whole };
    call.push(Value::Number(whole));
    call.push(Value::Number(rest.copysign(number)));
    Ok(Outcome::Return(2))
}

fn random(call: &mut Call) -> Result<Outcome, Error> {
    // As C's lrand48, of which the upper 31 bits are used.
    let state = call.machine.random.wrapping_mul(0x5_DEEC_E66D).wrapping_add(0xB);
    call.machine.random = state & ((1 << 48) - 1);
    let largest = f64::from(i32::MAX);
    let part = ((call.machine.random >> 17) as f64 % largest) / largest;
    match call.count {
        0 => call.give_number(part),
        1 => {
            let high = call.integer(1)? as i32;
            if high < 1 {
                return Err(call.bad_argument(1, "interval is empty"));
            }
            call.give_number((part * f64::from(high)).floor() + 1.0)
        }
        2 => {
            let (low, high) = (call.integer(1)? as i32, call.integer(2)? as i32);
            if low > high {
                return Err(call.bad_argument(2, "interval is empty"));
            }
            let size = high.wrapping_sub(low).wrapping_add(1);
            call.give_number((part * f64::from(size)).floor() + f64::from(low))
        }
        _ => Err(call.error("wrong number of arguments")),
    }
}

fn randomseed(call: &mut Call) -> Result<Outcome, Error> {
    let seed = call.integer(1)?;
    call.machine.seed(seed as i32);
    Ok(Outcome::Return(0))
}

/// `math.random` begins where it does in Redis, until a script calls `math.randomseed`.
pub fn begin(machine: &mut Machine) {
    machine.random = 0x1234_ABCD_330E;
}

impl Machine {
    /// Where `math.random` goes on.
    pub fn seed(&mut self, seed: i32) {
        self.random = u64::from(seed as u32) << 16 | 0x330E;
    }
}
