//! MEMORY: what memory is used for, and whether that is a reason to worry.
//!
//! What is counted is [`Memory`], the same as in INFO. Beside it stands what the kernel says of the process
//! ([`Resident`]). MEMORY USAGE asks an entry what it takes.
//!
//! **How Redis does it**: object.c, `getMemoryOverheadData` and `getMemoryDoctorReport`; `objectComputeSize` looks at
//! a few elements of a large value and guesses the rest, where each value here knows what it takes. Redis asks jemalloc
//! how much it has from the system. std cannot ask its allocator, so the anonymous pages of the process stand for
//! that. MALLOC-STATS says what Redis says without jemalloc.

use super::args::{Cursor, integer};
use super::{Command, Flag, NO_KEY, Run, SUBCOMMAND_KEY, command};
use crate::client::Client;
use crate::error::Error;
use crate::resp::{Args, Reply};
use crate::server::Server;
use crate::server::memory::{Memory, Resident};
use crate::spare;
use crate::store::{Data, View};

#[rustfmt::skip]
pub const COMMANDS: &[Command] = &[
    command("memory",              -2, Run::Container(None),       NO_KEY,         "4.0.0", "",                    "A container for memory diagnostics commands"),
    command("memory|doctor",       2,  Run::Mixed(doctor),         NO_KEY,         "4.0.0", "",                    "Outputs memory problems report").with(&[Flag::NotLoading]).help("\n    Return memory problems reports."),
    command("memory|help",         2,  Run::Client(super::help),   NO_KEY,         "4.0.0", "",                    "Show helpful text about the different subcommands"),
    command("memory|malloc-stats", 2,  Run::Client(malloc_stats),  NO_KEY,         "4.0.0", "",                    "Show allocator internal stats").with(&[Flag::NotLoading]).help("\n    Return internal statistics report from the memory allocator."),
    command("memory|purge",        2,  Run::Client(purge),         NO_KEY,         "4.0.0", "",                    "Ask the allocator to release memory").with(&[Flag::NotLoading]).help("\n    Attempt to purge dirty pages for reclamation by the allocator."),
    command("memory|stats",        2,  Run::Mixed(stats),          NO_KEY,         "4.0.0", "",                    "Show memory usage details").with(&[Flag::NotLoading]).help("\n    Return information about the memory usage of the server."),
    command("memory|usage",        -3, Run::Read(usage),           SUBCOMMAND_KEY, "4.0.0", "key [SAMPLES count]", "Estimate the memory usage of a key").uses("RO").help(" <key> [SAMPLES <count>]\n    Return memory in bytes used by <key> and its value. Nested values are\n    sampled up to <count> times (default: 5, 0 means sample all)."),
];

/// SAMPLES tells Redis how many elements to look at. Here the memory is known, so it has no effect.
fn usage(view: &View, args: &Args, reply: &mut Reply) -> Result<(), Error> {
    let mut words = Cursor::at(args, 3);
    while let Some(option) = words.option() {
        if option != b"SAMPLES" || integer(words.operand()?)? < 0 {
            return Err(Error::Syntax);
        }
    }
    match view.peek(args.key(2)) {
        Some(entry) => reply.count(entry.memory()),
        None => reply.nil(),
    }
    Ok(())
}

/// A value in the reply to MEMORY STATS.
enum Figure {
    Bytes(i64),
    Ratio(f64),
    Db(Data),
}

fn stats(client: &mut Client, view: &View, _: &Args, reply: &mut Reply) -> Result<(), Error> {
    let figures = figures(&client.server, view);
    reply.map(figures.len());
    reply.each(figures, |reply, (name, figure)| {
        reply.bulk(name.as_bytes());
        match figure {
            Figure::Bytes(bytes) => reply.integer(bytes),
            Figure::Ratio(ratio) => reply.double(ratio),
            Figure::Db(data) => {
                let parts = [("main", data.places), ("expires", data.deadlines)];
                reply.map(3);
                for (name, bytes) in parts.into_iter().chain([("slot-to-keys", 0)]) {
                    reply.bulk(format!("overhead.hashtable.{name}").as_bytes());
                    reply.count(bytes);
                }
            }
        }
    });
    Ok(())
}

/// All that MEMORY STATS tells, in Redis's order. What only the kernel knows is missing where it does not say it.
fn figures(server: &Server, view: &View) -> Vec<(String, Figure)> {
    let memory = server.memory(view.memory());
    let (used, data) = (memory.used(), &memory.data);
    let bytes = |name: &str, bytes: usize| (name.to_string(), Figure::Bytes(bytes as i64));
    let ratio = |name: &str, ratio: f64| (name.to_string(), Figure::Ratio(ratio));
    let mut figures = vec![
        bytes("peak.allocated", server.peak_memory()),
        bytes("total.allocated", used),
        bytes("startup.allocated", memory.startup),
        bytes("replication.backlog", 0),
        bytes("clients.slaves", 0),
        bytes("clients.normal", memory.clients),
        bytes("cluster.links", 0),
        bytes("aof.buffer", memory.log),
        bytes("lua.caches", memory.sources),
        bytes("functions.caches", 0),
    ];
    for db in 0..view.databases() {
        let data = view.in_db(db).memory_of_db();
        if data.keys > 0 {
            figures.push((format!("db.{db}"), Figure::Db(data)));
        }
    }
    figures.extend([
        bytes("overhead.total", memory.overhead()),
        bytes("keys.count", data.keys),
        bytes("keys.bytes-per-key", memory.since_startup().checked_div(data.keys).unwrap_or(0)),
        bytes("dataset.bytes", data.contents),
        ratio("dataset.percentage", percentage(data.contents, memory.since_startup())),
        ratio("peak.percentage", percentage(used, server.peak_memory())),
    ]);
    if let Some(resident) = Resident::now() {
        figures.extend([
            bytes("allocator.allocated", used),
            bytes("allocator.active", resident.anonymous),
            bytes("allocator.resident", resident.anonymous),
        ]);
        let names = ["allocator-fragmentation", "allocator-rss", "rss-overhead", "fragmentation"];
        for (name, (times, more)) in names.into_iter().zip(resident.overheads(&memory)) {
            // As in Redis, the last one has no suffix.
            let suffix = if name == "fragmentation" { "" } else { ".ratio" };
            figures.push(ratio(&format!("{name}{suffix}"), times));
            figures.push((format!("{name}.bytes"), Figure::Bytes(more)));
        }
    }
    figures
}

/// How many hundredths of the whole a part is.
pub fn percentage(part: usize, whole: usize) -> f64 {
    part as f64 * 100.0 / whole.max(1) as f64
}

/// The allocator cannot be asked for anything. What we keep for large strings to come is freed.
fn purge(_: &mut Client, _: &Args, reply: &mut Reply) -> Result<(), Error> {
    // The first call finds what nobody has taken since the last one, the second all the rest.
    spare::free_unused();
    spare::free_unused();
    reply.ok()
}

fn malloc_stats(_: &mut Client, _: &Args, reply: &mut Reply) -> Result<(), Error> {
    reply.bulk(b"Stats not supported for the current allocator");
    Ok(())
}

fn doctor(client: &mut Client, view: &View, _: &Args, reply: &mut Reply) -> Result<(), Error> {
    let server = &client.server;
    let memory = server.memory(view.memory());
    reply.verbatim(&report(&Health {
        memory: &memory,
        peak: server.peak_memory(),
        resident: Resident::now(),
        clients: server.clients.number(),
        scripts: server.scripts.count(),
    }));
    Ok(())
}

/// What MEMORY DOCTOR looks at.
struct Health<'a> {
    memory: &'a Memory,
    peak: usize,
    resident: Option<Resident>,
    clients: usize,
    scripts: usize,
}

/// With Redis's thresholds, and in its words.
fn report(health: &Health) -> String {
    const MB: i64 = 1024 * 1024;
    let used = health.memory.used();
    if (used as i64) < 5 * MB {
        return EMPTY.to_string();
    }
    let [fragmentation, _, process, total] = match &health.resident {
        Some(resident) => resident.overheads(health.memory),
        None => [(1.0, 0); 4],
    };
    let is_over = |(times, more): (f64, i64), most| times > most && more > 10 * MB;
    let complaints = [
        (health.peak as f64 / used as f64 > 1.5, PEAK),
        (is_over(total, 1.4), TOTAL),
        (is_over(fragmentation, 1.1), FRAGMENTATION),
        (is_over(process, 1.1), PROCESS),
        (health.memory.clients / health.clients.max(1) > 200 * 1024, CLIENTS),
        (health.scripts > 1000, SCRIPTS),
    ];
    let complaints = complaints.iter().filter(|(is_so, _)| *is_so);
    let complaints: String = complaints.map(|(_, text)| format!(" * {text}\n\n")).collect();
    if complaints.is_empty() {
        return HEALTHY.to_string();
    }
    format!(
        "Sam, I detected a few issues in this Redis instance memory implants:\n\n{complaints}\
         I'm here to keep you safe, Sam. I want to help you.\n"
    )
}

const EMPTY: &str = "Hi Sam, this instance is empty or is using very little memory, my issues detector can't be used in these conditions. Please, leave for your mission on Earth and fill it with some data. The new Sam and I will be back to our programming as soon as I finished rebooting.\n";
const HEALTHY: &str = "Hi Sam, I can't find any memory issue in your instance. I can only account for what occurs on this base.\n";
const PEAK: &str = "Peak memory: In the past this instance used more than 150% the memory that is currently using. The allocator is normally not able to release memory after a peak, so you can expect to see a big fragmentation ratio, however this is actually harmless and is only due to the memory peak, and if the Redis instance Resident Set Size (RSS) is currently bigger than expected, the memory will be used as soon as you fill the Redis instance with more data. If the memory peak was only occasional and you want to try to reclaim memory, please try the MEMORY PURGE command, otherwise the only other option is to shutdown and restart the instance.";
const TOTAL: &str = "High total RSS: This instance has a memory fragmentation and RSS overhead greater than 1.4 (this means that the Resident Set Size of the Redis process is much larger than the sum of the logical allocations Redis performed). This problem is usually due either to a large peak memory (check if there is a peak memory entry above in the report) or may result from a workload that causes the allocator to fragment memory a lot. If the problem is a large peak memory, then there is no issue. Otherwise, make sure you are using the Jemalloc allocator and not the default libc malloc. Note: The currently used allocator is \"libc\".";
const FRAGMENTATION: &str = "High allocator fragmentation: This instance has an allocator external fragmentation greater than 1.1. This problem is usually due either to a large peak memory (check if there is a peak memory entry above in the report) or may result from a workload that causes the allocator to fragment memory a lot. You can try enabling 'activedefrag' config option.";
const PROCESS: &str = "High process RSS overhead: This instance has non-allocator RSS memory overhead is greater than 1.1 (this means that the Resident Set Size of the Redis process is much larger than the RSS the allocator holds). This problem may be due to Lua scripts or Modules.";
const CLIENTS: &str = "Big client buffers: The clients output buffers in this instance are greater than 200K per client (on average). This may result from different causes, like Pub/Sub clients subscribed to channels bot not receiving data fast enough, so that data piles on the Redis instance output buffer, or clients sending commands with large replies or very large sequences of commands in the same pipeline. Please use the CLIENT LIST command in order to investigate the issue if it causes problems in your instance, or to understand better why certain clients are using a big amount of memory.";
const SCRIPTS: &str = "Many scripts: There seem to be many cached scripts in this instance (more than 1000). This may be because scripts are generated and `EVAL`ed, instead of being parameterized (with KEYS and ARGV), `SCRIPT LOAD`ed and `EVALSHA`ed. Unless `SCRIPT FLUSH` is called periodically, the scripts' caches may end up consuming most of your memory.";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_doctor_complains_of_what_is_over_redis_s_thresholds_and_of_nothing_else() {
        const MB: usize = 1024 * 1024;
        let report_of = |used: usize, peak, process, anonymous, held: usize, scripts| {
            let data = Data { contents: used - held, ..Data::default() };
            let memory =
                Memory { data, clients: held, startup: 0, log: 0, sources: 0, machines: 0 };
            let resident = Some(Resident { process, anonymous });
            report(&Health { memory: &memory, peak, resident, clients: 2, scripts })
        };
        let rested = |used| report_of(used, used, used, used, 0, 0);
        assert_eq!(rested(5 * MB - 1), EMPTY);
        assert_eq!(rested(5 * MB), HEALTHY);
        // Over the ratio, and not by 10 MB.
        assert_eq!(report_of(6 * MB, 9 * MB, 16 * MB, 16 * MB, 0, 1000), HEALTHY);
        let complaints = |text: &str| {
            let lines = text.lines().filter_map(|line| line.strip_prefix(" * "));
            lines.map(|line| line.split(':').next().unwrap().to_string()).collect::<Vec<_>>()
        };
        let all = report_of(100 * MB, 151 * MB, 150 * MB, 120 * MB, MB, 1001);
        let expected = [
            "Peak memory",
            "High total RSS",
            "High allocator fragmentation",
            "High process RSS overhead",
            "Big client buffers",
            "Many scripts",
        ];
        assert_eq!(complaints(&all), expected);
        assert!(all.ends_with("memory.\n\nI'm here to keep you safe, Sam. I want to help you.\n"));
    }
}
