//! Expected lines with holes in them, for what differs from run to run.
//!
//! ```text
//! <int>        a number                    <ms+5000>   a Unix time in milliseconds, 5000 from now
//! <1..100>     a number in this range      <s+5>       a Unix time in seconds, 5 from now
//! <any>        any text, or none           <5000ms>    what is left of 5000 milliseconds
//! ...          as a line: any number       <5s>        what is left of 5 seconds
//!              of lines
//! ```
//! "Now" is the moment when the command ran, which is only known to lie between the start of the
//! test (`began`, Unix milliseconds) and the comparison: the time must lie between those two, and
//! of what is left at most as much is missing as has passed.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

pub fn unix_ms() -> i64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_millis() as i64
}

/// The kernel's clock of seconds goes on with each tick, so for up to 10 ms `time(2)` still says the last second.
/// (SLOWLOG of redis-server has its times from there.) What begins now does not meet that.
pub fn unix_ms_behind_a_tick() -> i64 {
    while unix_ms() % 1000 < 10 {
        std::thread::sleep(Duration::from_millis(1));
    }
    unix_ms()
}

/// Whether the printed lines are the expected ones, where `...` is any number of lines.
pub fn lines_match(expected: &[String], actual: &[String], began: i64) -> bool {
    // How many of the actual lines the patterns so far can account for. Following all
    // possibilities at once, here and below, keeps the time linear in the number of patterns.
    let mut used = vec![0];
    for pattern in expected {
        used = match (pattern.as_str(), used.first()) {
            ("...", Some(&first)) => (first..=actual.len()).collect(),
            _ => used
                .into_iter()
                .filter(|&at| at < actual.len() && line_matches(pattern, &actual[at], began))
                .map(|at| at + 1)
                .collect(),
        };
    }
    used.contains(&actual.len())
}

pub fn line_matches(pattern: &str, text: &str, began: i64) -> bool {
    let text = text.as_bytes();
    // Where in the text the pieces so far can end, in ascending order.
    let mut ends = vec![0];
    for piece in pieces(pattern, began) {
        ends = match (piece, ends.first()) {
            (Piece::Any, Some(&first)) => (first..=text.len()).collect(),
            (piece, _) => {
                ends.into_iter().filter_map(|at| Some(at + piece.length_at(&text[at..])?)).collect()
            }
        };
    }
    ends.contains(&text.len())
}

enum Piece<'a> {
    Text(&'a str),
    Any,
    Number(i64, i64),
}

impl Piece<'_> {
    /// How much of the text this piece takes from its start, if it can stand there.
    fn length_at(&self, text: &[u8]) -> Option<usize> {
        match self {
            Piece::Text(literal) => text.starts_with(literal.as_bytes()).then_some(literal.len()),
            Piece::Any => Some(text.len()),
            Piece::Number(low, high) => {
                let in_number = |byte: &u8| byte.is_ascii_digit() || *byte == b'-';
                let length = text.iter().take_while(|byte| in_number(byte)).count();
                let number: i64 = str::from_utf8(&text[..length]).ok()?.parse().ok()?;
                (*low..=*high).contains(&number).then_some(length)
            }
        }
    }
}

fn pieces(pattern: &str, began: i64) -> Vec<Piece<'_>> {
    let mut pieces = Vec::new();
    let mut taken = 0;
    for (at, _) in pattern.match_indices('<') {
        let Some(length) = pattern[at..].find('>') else {
            break;
        };
        if let Some(hole) = parse_hole(&pattern[at + 1..at + length], began) {
            pieces.push(Piece::Text(&pattern[taken..at]));
            pieces.push(hole);
            taken = at + length + 1;
        }
    }
    pieces.push(Piece::Text(&pattern[taken..]));
    pieces
}

fn parse_hole(name: &str, began: i64) -> Option<Piece<'static>> {
    let now = unix_ms();
    if let Some(offset) = name.strip_prefix("ms+") {
        let offset: i64 = offset.parse().ok()?;
        return Some(Piece::Number(began + offset, now + offset));
    }
    if let Some(offset) = name.strip_prefix("s+") {
        let offset: i64 = offset.parse().ok()?;
        return Some(Piece::Number(began / 1000 + offset, now / 1000 + 1 + offset));
    }
    // TTL rounds to the nearest second, so half of one may be missing more.
    let units = [("ms", 1), ("s", 1000)];
    if let Some((whole, unit)) = units.iter().find_map(|(unit, ms)| {
        let whole: i64 = name.strip_suffix(unit)?.parse().ok()?;
        Some((whole, ms))
    }) {
        let passed = (now - began + unit / 2) / unit;
        return Some(Piece::Number((whole - passed).max(0), whole));
    }
    match name {
        "any" => Some(Piece::Any),
        "int" => Some(Piece::Number(i64::MIN, i64::MAX)),
        _ => {
            let (low, high) = name.split_once("..")?;
            Some(Piece::Number(low.parse().ok()?, high.parse().ok()?))
        }
    }
}

/// For UPDATE: in a line that the server has printed, the times near now as holes, so that the
/// line holds tomorrow too. `unit` is how many milliseconds one has of what the command says is
/// left, if it is one of those that do (TTL, PTTL).
pub fn mask_times(line: &str, began: i64, unit: Option<i64>) -> String {
    let now = unix_ms();
    if let Some(unit) = unit
        && let Some(left) = line.strip_prefix("(integer) ").and_then(|n| n.parse().ok())
        && left > 0
    {
        let name = if unit == 1 { "ms" } else { "s" };
        let whole = roundest(left, left + (now - began) / unit);
        return format!("(integer) <{whole}{name}>");
    }
    let mut out = String::new();
    let mut rest = line;
    while let Some(start) = rest.find(|c: char| c.is_ascii_digit()) {
        let digits = &rest[start..];
        let length = digits.find(|c: char| !c.is_ascii_digit());
        let (digits, behind) = digits.split_at(length.unwrap_or(digits.len()));
        out += &rest[..start];
        // Part of a word or of a fraction is no time.
        let alone = !out.ends_with(|c: char| c.is_alphanumeric() || c == '.' || c == '-');
        let time = digits.parse().ok().filter(|_| alone);
        out += &time.and_then(|time| mask(time, began, now)).unwrap_or(digits.to_string());
        rest = behind;
    }
    out + rest
}

/// A time that lies up to ten days from when it was made.
fn mask(time: i64, began: i64, now: i64) -> Option<String> {
    for (name, unit) in [("ms", 1), ("s", 1000)] {
        // It was made between these two. EXPIRETIME rounds to the nearest second.
        let (began, now) = (began / unit, (now + unit / 2) / unit);
        let ten_days = 10 * 24 * 3_600_000 / unit;
        if (began..began + ten_days).contains(&time) {
            let offset = roundest((time - now).max(0), time - began);
            return Some(format!("<{name}+{offset}>"));
        }
    }
    None
}

/// The number in a range that has the most zeros at its end: what somebody will have typed, unless
/// it is smaller than the range.
fn roundest(low: i64, high: i64) -> i64 {
    let next = |step: i64| (low + step - 1) / step * step;
    let steps = (0..15).rev().map(|zeros| 10_i64.pow(zeros));
    let mut numbers = steps.map(next).filter(|number| *number <= high);
    numbers.next().unwrap_or(high)
}
