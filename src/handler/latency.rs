//! LATENCY: what took long, and when. The events and histograms are kept in `crate::latency`.
//!
//! GRAPH draws the samples of an event, the oldest first, one column each. Below stands, from top to bottom, how
//! long ago it was:
//!
//! ```text
//! command - high 520 ms, low 310 ms (all time high 600 ms)
//! --------------------------------------------------------------------------------
//!   _#
//!   ||
//!   ||
//! __||
//!
//! 1864
//! 0sss
//! s
//! ```
//!
//! DOCTOR says the same in words, with what can be done about it.
//!
//! **How Redis does it**: latency.c and sparkline.c. Its DOCTOR gives more advice, about what is not here: forks,
//! eviction, large values that are freed on the spot.

use super::{Command, Flag, NO_KEY, Row, Run, TABLE, command};
use crate::client::Client;
use crate::error::Error;
use crate::handler::args::Cursor;
use crate::latency::{Histogram, Series};
use crate::resp::{Args, Reply};
use crate::stats::unix_microseconds;
use std::fmt::Write;
use std::sync::atomic::Ordering;

#[rustfmt::skip]
pub const COMMANDS: &[Command] = &[
    command("latency",           -2, Run::Container(None),     NO_KEY, "2.8.13", "",                        "A container for latency diagnostics commands"),
    command("latency|doctor",    2,  Run::Client(doctor),      NO_KEY, "2.8.13", "",                        "Return a human readable latency analysis report").with(&[Flag::NoScript, Flag::Admin]).help("\n    Return a human readable latency analysis report."),
    command("latency|graph",     3,  Run::Client(graph),       NO_KEY, "2.8.13", "event",                   "Return a latency graph for the event").with(&[Flag::NoScript, Flag::Admin]).help(" <event>\n    Return an ASCII latency graph for the <event> class."),
    command("latency|history",   3,  Run::Client(history),     NO_KEY, "2.8.13", "event",                   "Return timestamp-latency samples for the event").with(&[Flag::NoScript, Flag::Admin]).help(" <event>\n    Return time-latency samples for the <event> class."),
    command("latency|latest",    2,  Run::Client(latest),      NO_KEY, "2.8.13", "",                        "Return the latest latency samples for all events").with(&[Flag::NoScript, Flag::Admin]).help("\n    Return the latest latency samples for all events."),
    command("latency|reset",     -2, Run::Client(reset),       NO_KEY, "2.8.13", "[event [event ...]]",     "Reset latency data for one or more events").with(&[Flag::NoScript, Flag::Admin]).help(" [<event> ...]\n    Reset latency data of one or more <event> classes.\n    (default: reset all data for all event classes)"),
    command("latency|histogram", -2, Run::Client(histogram),   NO_KEY, "7.0.0",  "[COMMAND [COMMAND ...]]", "Return the cumulative distribution of latencies of a subset of commands or all").with(&[Flag::NoScript, Flag::Admin, Flag::ShowsCounters]).help(" [COMMAND ...]\n    Return a cumulative distribution of latencies in the format of a histogram for the specified command names.\n    If no commands are specified then all histograms are replied."),
    command("latency|help",      2,  Run::Client(super::help), NO_KEY, "2.8.13", "",                        "Show helpful text about the different subcommands"),
];

fn history(client: &mut Client, args: &Args, reply: &mut Reply) -> Result<(), Error> {
    let events = client.server.config.latency.events.lock().unwrap();
    let name = String::from_utf8_lossy(&args[2]);
    let samples = events.get(&*name).map_or_else(Vec::new, |event| event.samples.iter().collect());
    reply.array(samples.len());
    for (time, took) in samples {
        reply.array(2);
        reply.integer(*time as i64);
        reply.integer(*took as i64);
    }
    Ok(())
}

fn latest(client: &mut Client, _: &Args, reply: &mut Reply) -> Result<(), Error> {
    let events = client.server.config.latency.events.lock().unwrap();
    reply.array(events.len());
    for (name, event) in events.iter() {
        let (time, took) = event.samples.back().copied().unwrap_or_default();
        reply.array(4);
        reply.bulk(name.as_bytes());
        [time, took, event.worst].into_iter().for_each(|number| reply.integer(number as i64));
    }
    Ok(())
}

fn reset(client: &mut Client, args: &Args, reply: &mut Reply) -> Result<(), Error> {
    let mut events = client.server.config.latency.events.lock().unwrap();
    let before = events.len();
    let is_named = |event: &str| {
        let mut names = Cursor::at(args, 2).rest();
        names.any(|name| name.eq_ignore_ascii_case(event.as_bytes()))
    };
    events.retain(|event, _| args.len() > 2 && !is_named(event));
    reply.count(before - events.len());
    Ok(())
}

/// A container stands for its subcommands.
fn histogram(client: &mut Client, args: &Args, reply: &mut Reply) -> Result<(), Error> {
    // Read once each, because others count meanwhile, and because a name may be given a million times.
    let all: Vec<_> = client.server.stats.histograms.iter().map(Histogram::cumulative).collect();
    let rows = || -> Box<dyn Iterator<Item = &Row>> {
        let names = Cursor::at(args, 2).rest();
        if names.len() == 0 {
            return Box::new(TABLE.rows.iter());
        }
        let named = names.filter_map(|name| TABLE.find(name));
        Box::new(named.flat_map(|row| [row].into_iter().chain(TABLE.subcommands(row.command.name))))
    };
    let with_calls = || rows().filter(|row| !all[row.index].is_empty());
    reply.map(with_calls().count());
    reply.each(with_calls(), |reply, row| {
        let buckets = &all[row.index];
        reply.bulk(row.command.name.as_bytes());
        reply.map(2);
        reply.bulk(b"calls");
        reply.integer(buckets.last().map_or(0, |(_, calls)| *calls as i64));
        reply.bulk(b"histogram_usec");
        reply.map(buckets.len());
        for (end, calls) in buckets {
            reply.integer((end / 1000) as i64);
            reply.integer(*calls as i64);
        }
    });
    Ok(())
}

fn graph(client: &mut Client, args: &Args, reply: &mut Reply) -> Result<(), Error> {
    let events = client.server.config.latency.events.lock().unwrap();
    let name = String::from_utf8_lossy(&args[2]);
    let no_samples = || Error::quoting("ERR No samples available for event '", &args[2], "'");
    let event = events.get(&*name).ok_or_else(no_samples)?;
    reply.verbatim(&draw(&name, event, unix_microseconds() / 1_000_000));
    Ok(())
}

const COLUMNS: usize = 80;
const ROWS: usize = 4;
/// From a low point of a row to a high one.
const POINTS: [char; 3] = ['_', 'o', '#'];

/// As Redis draws it. What is too wide continues below.
fn draw(name: &str, event: &Series, now: u64) -> String {
    let took: Vec<u64> = event.samples.iter().map(|(_, took)| *took).collect();
    let low = took.iter().copied().min().unwrap_or_default();
    let high = took.iter().copied().max().unwrap_or_default();
    let worst = event.worst;
    let mut text = format!("{name} - high {high} ms, low {low} ms (all time high {worst} ms)\n");
    text += &("-".repeat(COLUMNS) + "\n");
    let steps = POINTS.len() * ROWS;
    let height = |took: u64| {
        let step = (took - low) as usize * steps / (high - low).max(1) as usize;
        step.min(steps - 1)
    };
    let samples: Vec<_> = event.samples.iter().map(|(time, took)| (*time, height(*took))).collect();
    for (index, part) in samples.chunks(COLUMNS).enumerate() {
        text += if index > 0 { "\n" } else { "" };
        for row in (0..ROWS).rev() {
            text.extend(part.iter().map(|(_, height)| {
                let above = height.checked_sub(row * POINTS.len());
                above.map_or(' ', |above| POINTS.get(above).copied().unwrap_or('|'))
            }));
            text.push('\n');
        }
        text += &(" ".repeat(part.len()) + "\n");
        let ages: Vec<String> =
            part.iter().map(|(time, _)| age(now.saturating_sub(*time))).collect();
        for row in 0..ages.iter().map(String::len).max().unwrap_or_default() {
            text.extend(ages.iter().map(|age| age.chars().nth(row).unwrap_or(' ')));
            text.push('\n');
        }
    }
    text
}

fn age(seconds: u64) -> String {
    match seconds {
        0..60 => format!("{seconds}s"),
        60..3600 => format!("{}m", seconds / 60),
        3600..86400 => format!("{}h", seconds / 3600),
        _ => format!("{}d", seconds / 86400),
    }
}

fn doctor(client: &mut Client, _: &Args, reply: &mut Reply) -> Result<(), Error> {
    let config = &client.server.config;
    let threshold = config.latency.threshold.load(Ordering::Relaxed);
    let events = config.latency.events.lock().unwrap();
    if events.is_empty() {
        reply.verbatim(if threshold == 0 { DISABLED } else { NOTHING });
        return Ok(());
    }
    let mut text = SEEN.to_string();
    let now = unix_microseconds() / 1_000_000;
    for (index, (name, event)) in events.iter().enumerate() {
        let count = event.samples.len() as u64;
        let mean = event.samples.iter().map(|(_, took)| took).sum::<u64>() / count;
        let deviation =
            event.samples.iter().map(|(_, took)| took.abs_diff(mean)).sum::<u64>() / count;
        let since = event.samples.front().map_or(now, |(time, _)| *time);
        let period = now.saturating_sub(since).max(1) as f64 / count as f64;
        let _ = writeln!(
            text,
            "{}. {name}: {count} latency spikes (average {mean}ms, mean deviation {deviation}ms, \
             period {period:.2} sec). Worst all time event {}ms.",
            index + 1,
            event.worst,
        );
    }
    let slow = config.slowlog_log_slower_than.get();
    match advice(&|event| events.contains_key(event), slow, threshold).as_str() {
        "" => text += NO_ADVICE,
        advice => text += &format!("\nI have a few advices for you:\n\n{advice}"),
    }
    reply.verbatim(&text);
    Ok(())
}

/// What may help against the events that there are. `slower_than` is from when on a command is in the slow log, in
/// microseconds; `threshold` from when on it is an event, in milliseconds.
fn advice(has: &dyn Fn(&str) -> bool, slower_than: i64, threshold: u64) -> String {
    let mut advice = String::new();
    let wanted = format!("'CONFIG SET slowlog-log-slower-than {}'", threshold * 1000);
    if has("command") {
        if slower_than < 0 {
            let _ = writeln!(
                advice,
                "- There are latency issues with potentially slow commands you are using. Try to enable the Slow Log Redis feature using the command {wanted}. If the Slow log is disabled Redis is not able to log slow commands execution for you."
            );
        } else if slower_than as u64 / 1000 > threshold {
            let _ = writeln!(
                advice,
                "- Your current Slow Log configuration only logs events that are slower than your configured latency monitor threshold. Please use {wanted}."
            );
        }
        advice += INSPECT;
    }
    if has("aof-write") || has("aof-fsync-always") {
        advice += LOCAL_DISK;
    }
    if has("aof-fsync-always") {
        advice += RELAX;
    }
    advice
}

// Redis's words.
const DISABLED: &str = "I'm sorry, Dave, I can't do that. Latency monitoring is disabled in this Redis instance. You may use \"CONFIG SET latency-monitor-threshold <milliseconds>.\" in order to enable it. If we weren't in a deep space mission I'd suggest to take a look at https://redis.io/topics/latency-monitor.\n";
const NOTHING: &str = "Dave, no latency spike was observed during the lifetime of this Redis instance, not in the slightest bit. I honestly think you ought to sit down calmly, take a stress pill, and think things over.\n";
const SEEN: &str = "Dave, I have observed latency spikes in this Redis instance. You don't mind talking about it, do you Dave?\n\n";
const INSPECT: &str = "- Check your Slow Log to understand what are the commands you are running which are too slow to execute. Please check https://redis.io/commands/slowlog for more information.\n";
const LOCAL_DISK: &str = "- It is strongly advised to use local disks for persistence, especially if you are using AOF. Remote disks provided by platform-as-a-service providers are known to be slow.\n";
const RELAX: &str = "- Your fsync policy is set to 'always'. It is very hard to get good performances with such a setup, if possible try to relax the fsync policy to 'onesec'.\n";
const NO_ADVICE: &str = "\nWhile there are latency events logged, I'm not able to suggest any easy fix. Please use the Redis community to get some help, providing this report in your help request.\n";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_graph_is_drawn_as_redis_draws_it() {
        let samples = [(100, 310), (102, 320), (104, 470), (106, 520)];
        let event = Series { samples: samples.into(), worst: 600 };
        let drawn = draw("command", &event, 110);
        let expected = [
            "command - high 520 ms, low 310 ms (all time high 600 ms)",
            &"-".repeat(80),
            "  _#",
            "  ||",
            "  ||",
            "__||",
            "    ",
            "1864",
            "0sss",
            "s   ",
        ];
        assert_eq!(drawn.lines().collect::<Vec<_>>(), expected);
    }
}
