//! Expected lines with holes in them, for what differs from run to run.
//!
//! ```text
//! <int>        a number                    <ms+5000>   a Unix time in milliseconds, 5000 from now
//! <1..100>     a number in this range      <s+5>       a Unix time in seconds, 5 from now
//! <any>        any text, or none           ...         as a line: any number of lines
//! ```
//! "Now" is the moment when the command ran, which is only known to lie between the start of the
//! test (`began`, Unix milliseconds) and the comparison: the time must lie between those two.

use std::time::{SystemTime, UNIX_EPOCH};

pub fn unix_ms() -> i64 {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap()
        .as_millis() as i64
}

/// Whether the printed lines are the expected ones, where `...` is any number of lines.
pub fn lines_match(expected: &[String], actual: &[String], began: i64) -> bool {
    match expected.split_first() {
        None => actual.is_empty(),
        Some((dots, rest)) if dots == "..." => {
            (0..=actual.len()).any(|skipped| lines_match(rest, &actual[skipped..], began))
        }
        Some((pattern, rest)) => actual.split_first().is_some_and(|(line, others)| {
            line_matches(pattern, line, began) && lines_match(rest, others, began)
        }),
    }
}

enum Hole {
    Any,
    Number(i64, i64),
}

pub fn line_matches(pattern: &str, text: &str, began: i64) -> bool {
    let Some((before, hole, after)) = first_hole(pattern, began) else {
        return pattern == text;
    };
    let Some(text) = text.strip_prefix(before) else {
        return false;
    };
    match hole {
        Hole::Any => text
            .char_indices()
            .map(|(at, _)| at)
            .chain([text.len()])
            .any(|at| line_matches(after, &text[at..], began)),
        Hole::Number(low, high) => {
            let digits = |c: char| !c.is_ascii_digit() && c != '-';
            let (number, rest) = text.split_at(text.find(digits).unwrap_or(text.len()));
            number.parse().is_ok_and(|n: i64| low <= n && n <= high)
                && line_matches(after, rest, began)
        }
    }
}

/// The text before the first placeholder, what it stands for, and the text after it.
fn first_hole(pattern: &str, began: i64) -> Option<(&str, Hole, &str)> {
    for (at, _) in pattern.match_indices('<') {
        let Some(length) = pattern[at..].find('>') else {
            break;
        };
        let (before, after) = (&pattern[..at], &pattern[at + length + 1..]);
        if let Some(hole) = parse_hole(&pattern[at + 1..at + length], began) {
            return Some((before, hole, after));
        }
    }
    None
}

fn parse_hole(name: &str, began: i64) -> Option<Hole> {
    let now = unix_ms();
    Some(match name {
        "any" => Hole::Any,
        "int" => Hole::Number(i64::MIN, i64::MAX),
        _ => {
            if let Some(offset) = name.strip_prefix("ms+") {
                let offset: i64 = offset.parse().ok()?;
                Hole::Number(began + offset, now + offset)
            } else if let Some(offset) = name.strip_prefix("s+") {
                let offset: i64 = offset.parse().ok()?;
                Hole::Number(began / 1000 + offset, now / 1000 + 1 + offset)
            } else {
                let (low, high) = name.split_once("..")?;
                Hole::Number(low.parse().ok()?, high.parse().ok()?)
            }
        }
    })
}

/// For UPDATE: a number that is a time within ten days of now becomes `<ms+N>`, in whole seconds.
pub fn mask_times(line: &str, began: i64) -> String {
    const TEN_DAYS: i64 = 10 * 24 * 3600 * 1000;
    let mask = |word: &str| match word.parse::<i64>() {
        Ok(n) if n > began && n - began < TEN_DAYS => {
            format!("<ms+{}>", (n - began) / 1000 * 1000)
        }
        _ => word.to_string(),
    };
    line.split(' ').map(mask).collect::<Vec<_>>().join(" ")
}
