//! INFO: the numbers that people and dashboards ask for. Each of them is measured.
//!
//! ```text
//! # Clients                     a section, asked for by its name in any case
//! connected_clients:3           a field; its name is what every monitoring tool looks for
//! maxclients:10000
//!                               an empty line
//! # Memory
//! ```
//!
//! Names, sections and their order are Redis 7.0's. A number comes from counters ([`crate::stats`], the
//! log's `aof/status.rs`), from the keyspace, or from `/proc` if std does not know it. Without
//! `/proc` those fields are missing: a monitoring tool can handle a missing field, but not a wrong one. A
//! constant is given only if it is always true for this server, such as the number of replicas.
//!
//! **How Redis does it**: server.c, `genRedisInfoString`. It counts every byte in its allocator. In Rust
//! that would need `unsafe`. Here only the keyspace is counted to the byte (heap.rs), and the kernel says
//! how much memory the process has.

use super::args::Cursor;
use super::memory::percentage;
use super::{Command, Flag, NO_KEY, REDIS_VERSION, Run, TABLE, VERSION, command};
use crate::aof::backlog::Name;
use crate::aof::status::Writing;
use crate::client::Client;
use crate::error::Error;
use crate::held::{Buffers, kilobytes};
use crate::latency::percentile;
use crate::pubsub::Subscription;
use crate::resp::{Args, Reply};
use crate::server::Server;
use crate::server::memory::{Memory, Resident};
use crate::server::primary::Link;
use crate::server::replicas::State;
use crate::service::{self, Manager};
use crate::stats::{Count, unix_microseconds};
use crate::store::View;
use std::fmt::{Display, Write};
use std::fs;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::Instant;

#[rustfmt::skip]
pub const COMMANDS: &[Command] = &[
    command("info", -1, Run::Mixed(info), NO_KEY, "1.0.0", "[section [section ...]]", "Get information and statistics about the server").with(&[Flag::ShowsCounters, Flag::ComesAfterOthers]),
];

/// Name, whether INFO without arguments shows it, and the function that writes its fields.
type Section = (&'static str, bool, fn(&mut Info));

const SECTIONS: [Section; 13] = [
    ("Server", true, |info| info.server()),
    ("Clients", true, |info| info.clients()),
    ("Memory", true, |info| info.memory()),
    ("Persistence", true, |info| info.persistence()),
    ("Stats", true, |info| info.stats()),
    ("Replication", true, |info| info.replication()),
    ("CPU", true, |info| info.cpu()),
    // There are none.
    ("Modules", true, |_| {}),
    ("Commandstats", false, |info| info.commandstats()),
    ("Errorstats", true, |info| info.errorstats()),
    ("Latencystats", false, |info| info.latencystats()),
    ("Cluster", true, |info| info.absent("cluster_enabled")),
    ("Keyspace", true, |info| info.keyspace()),
];

fn info(client: &mut Client, view: &View, args: &Args, reply: &mut Reply) -> Result<(), Error> {
    let wanted = |&&(name, by_default, _): &&Section| {
        let mut words = Cursor::new(args).rest();
        let is_asked_for = words.any(|word| match word.to_ascii_lowercase().as_slice() {
            b"all" | b"everything" => true,
            b"default" => by_default,
            b"module_list" => name == "Modules",
            word => word.eq_ignore_ascii_case(name.as_bytes()),
        });
        is_asked_for || args.len() == 1 && by_default
    };
    let mut info = Info { server: &client.server, view, text: String::new() };
    for (name, _, write_fields) in SECTIONS.iter().filter(wanted) {
        let gap = if info.text.is_empty() { "" } else { "\r\n" };
        info.text += &format!("{gap}# {name}\r\n");
        write_fields(&mut info);
    }
    reply.verbatim(&info.text);
    Ok(())
}

struct Info<'a> {
    server: &'a Server,
    view: &'a View<'a>,
    text: String,
}

impl Info<'_> {
    fn field(&mut self, name: &str, value: impl Display) {
        // Writing to a String cannot fail.
        let _ = write!(self.text, "{name}:{value}\r\n");
    }

    /// Fields of features that are not here. They are always 0.
    fn absent(&mut self, names: &str) {
        names.split_whitespace().for_each(|name| self.field(name, 0));
    }

    fn flag(&mut self, name: &str, value: bool) {
        self.field(name, u8::from(value));
    }

    /// A number of bytes, and the same in a form for people.
    fn bytes(&mut self, name: &str, bytes: usize) {
        self.field(name, bytes);
        self.field(&format!("{name}_human"), human(bytes));
    }

    /// A number with two places behind the point.
    fn fraction(&mut self, name: &str, number: f64) {
        self.field(name, format_args!("{number:.2}"));
    }

    fn percentage(&mut self, name: &str, part: usize, whole: usize) {
        self.field(name, format_args!("{:.2}%", percentage(part, whole)));
    }

    fn server(&mut self) {
        let server = self.server;
        let seconds = server.started.elapsed().as_secs();
        // The version that this server follows. Clients read it to decide what they may use.
        self.field("redis_version", REDIS_VERSION);
        self.field("simple_redis_version", VERSION);
        // What Redis shows if it was not built from its repository.
        self.field("redis_git_sha1", "00000000");
        self.field("redis_git_dirty", 0);
        self.field("redis_mode", "standalone");
        self.field("os", os());
        self.field("arch_bits", usize::BITS);
        // The clock that std's Instant reads.
        self.field("monotonic_clock", "POSIX clock_gettime");
        self.field("process_id", std::process::id());
        let manager = service::manager(&server.config);
        self.field("process_supervised", manager.map_or("no", Manager::name));
        self.field("run_id", &server.run_id);
        self.field("tcp_port", server.port);
        self.field("server_time_usec", unix_microseconds());
        self.field("uptime_in_seconds", seconds);
        self.field("uptime_in_days", seconds / (24 * 60 * 60));
        // How often cron runs in a second.
        self.field("hz", 10);
        self.field("configured_hz", 10);
        if let Ok(path) = std::env::current_exe() {
            self.field("executable", path.display());
        }
        self.field("config_file", server.config.file.display());
        self.flag("io_threads_active", false);
        if let Some(left) = server.shutdown.left() {
            self.field("shutdown_in_milliseconds", left.as_millis());
        }
    }

    fn clients(&mut self) {
        let server = self.server;
        let all = server.clients.everyone();
        let most = |of: fn(&Buffers) -> [&AtomicUsize; 2]| {
            let sizes = all.iter().flat_map(|client| of(&client.held.buffers));
            sizes.map(|size| size.load(Ordering::Relaxed)).max().unwrap_or(0)
        };
        self.field("connected_clients", all.len().saturating_sub(server.replicas.count()));
        self.field("cluster_connections", 0);
        self.field("maxclients", server.config.maxclients.get());
        let input = most(|buffers| [&buffers.input, &buffers.input_room]);
        self.field("client_recent_max_input_buffer", input);
        let output = most(|buffers| [&buffers.unsent, &buffers.queue]);
        self.field("client_recent_max_output_buffer", output);
        self.field("blocked_clients", server.clients.blocked());
        self.field("tracking_clients", 0);
    }

    /// `used_memory` is counted (server/memory.rs). The resident memory comes from the kernel, and includes the
    /// program itself.
    fn memory(&mut self) {
        let memory = self.server.memory(self.view.memory());
        let (used, data) = (memory.used(), memory.data.contents);
        let peak = self.server.peak_memory();
        let resident = Resident::now();
        self.bytes("used_memory", used);
        if let Some(Resident { process, .. }) = resident {
            self.bytes("used_memory_rss", process);
        }
        self.bytes("used_memory_peak", peak);
        self.percentage("used_memory_peak_perc", used, peak);
        self.field("used_memory_overhead", memory.overhead());
        self.field("used_memory_startup", memory.startup);
        self.field("used_memory_dataset", data);
        self.percentage("used_memory_dataset_perc", data, memory.since_startup());
        if let Some(Resident { anonymous, .. }) = resident {
            self.field("allocator_allocated", used);
            self.field("allocator_active", anonymous);
            self.field("allocator_resident", anonymous);
        }
        if let Some(total) = kilobytes(&read("/proc/meminfo"), "MemTotal") {
            self.bytes("total_system_memory", total as usize);
        }
        self.scripts(&memory);
        self.bytes("maxmemory", self.server.config.maxmemory.get());
        self.field("maxmemory_policy", self.server.config.maxmemory_policy.name());
        if let Some(resident) = resident {
            let names = ["allocator_frag", "allocator_rss", "rss_overhead", "mem_fragmentation"];
            for (name, (times, more)) in names.into_iter().zip(resident.overheads(&memory)) {
                self.fraction(&format!("{name}_ratio"), times);
                self.field(&format!("{name}_bytes"), more);
            }
        }
        self.field("mem_not_counted_for_evict", memory.used() - memory.limited());
        self.absent("mem_replication_backlog mem_total_replication_buffers mem_clients_slaves");
        self.field("mem_clients_normal", memory.clients);
        // `maxmemory-clients` in bytes. 0 is no limit.
        let limit = self.server.config.clients.limit.load(Ordering::Relaxed);
        self.field("mem_clients_limit", limit);
        self.field("mem_cluster_links", 0);
        self.field("mem_aof_buffer", memory.log);
        // std uses the C library's allocator and does not know its version.
        self.field("mem_allocator", "libc");
        self.field("active_defrag_running", 0);
        self.field("lazyfree_pending_objects", load(&self.server.stats.to_be_freed));
        self.field("lazyfreed_objects", load(&self.server.stats.freed));
    }

    /// What scripts in the cache take, and the machines that run them.
    fn scripts(&mut self, &Memory { sources, machines, .. }: &Memory) {
        self.field("used_memory_lua", machines);
        self.field("used_memory_vm_eval", machines);
        self.field("used_memory_lua_human", human(machines));
        self.field("used_memory_scripts_eval", sources);
        self.field("number_of_cached_scripts", self.server.scripts.count());
        self.absent("number_of_functions number_of_libraries used_memory_vm_functions");
        self.bytes("used_memory_vm_total", machines);
        self.field("used_memory_functions", 0);
        self.bytes("used_memory_scripts", sources);
    }

    fn persistence(&mut self) {
        let aof = &self.server.aof;
        let status = &aof.status;
        let ok_unless = |failed: bool| if failed { "err" } else { "ok" };
        let rewrite_failed = load(&status.rewrite_failures) > 0;
        let now = unix_microseconds() / 1_000_000;
        self.flag("loading", self.server.is_loading());
        self.absent("async_loading current_cow_peak current_cow_size current_cow_size_age");
        self.writing();
        self.snapshots(now);
        self.flag("aof_enabled", aof.is_enabled());
        self.flag("aof_rewrite_in_progress", status.rewriting.load(Ordering::Relaxed));
        // A rewrite is never scheduled: BGREWRITEAOF starts it, or is refused.
        self.flag("aof_rewrite_scheduled", false);
        let seconds = status.last_rewrite_seconds.load(Ordering::Relaxed);
        self.field("aof_last_rewrite_time_sec", seconds);
        let begin = status.rewriting.load(Ordering::Relaxed).then(|| load(&status.rewrite_start));
        let seconds = begin.map_or(-1, |begin| now.saturating_sub(begin) as i64);
        self.field("aof_current_rewrite_time_sec", seconds);
        self.field("aof_last_bgrewrite_status", ok_unless(rewrite_failed));
        self.field("aof_rewrites", load(&status.rewrites));
        self.field("aof_rewrites_consecutive_failures", load(&status.rewrite_failures));
        self.field("aof_last_write_status", ok_unless(aof.failure().is_some()));
        self.absent("aof_last_cow_size module_fork_in_progress module_fork_last_cow_size");
        if aof.is_enabled() {
            self.field("aof_current_size", load(&status.size));
            self.field("aof_base_size", load(&status.base_size));
            self.flag("aof_pending_rewrite", false);
            self.field("aof_buffer_length", aof.unwritten());
            self.field("aof_pending_bio_fsync", load(&status.syncs_pending));
            self.field("aof_delayed_fsync", load(&aof.failures.delayed_syncs));
        }
        if self.server.is_loading() {
            self.loading();
        }
    }

    /// How far the writing of a snapshot or of a base is.
    fn writing(&mut self) {
        let server = self.server;
        let both = [&server.snapshots.writing, &server.aof.status.writing];
        let sum =
            |of: fn(&Writing) -> &AtomicU64| both.map(|writing| load(of(writing))).iter().sum();
        let (done, total): (u64, u64) =
            (sum(|writing| &writing.done), sum(|writing| &writing.total));
        self.fraction("current_fork_perc", percentage(done as usize, total.max(1) as usize));
        self.field("current_save_keys_processed", done);
        self.field("current_save_keys_total", total);
    }

    fn snapshots(&mut self, now: u64) {
        let snapshots = &self.server.snapshots;
        let changes = self.view.changes().saturating_sub(load(&snapshots.saved_changes));
        self.field("rdb_changes_since_last_save", changes);
        self.flag("rdb_bgsave_in_progress", snapshots.is_running());
        self.field("rdb_last_save_time", load(&snapshots.last_save));
        let has_failed = snapshots.has_failed.load(Ordering::Relaxed);
        self.field("rdb_last_bgsave_status", if has_failed { "err" } else { "ok" });
        let seconds = snapshots.last_seconds.load(Ordering::Relaxed);
        self.field("rdb_last_bgsave_time_sec", seconds);
        let began = Some(load(&snapshots.began)).filter(|began| *began > 0);
        let seconds = began.map_or(-1, |began| now.saturating_sub(began) as i64);
        self.field("rdb_current_bgsave_time_sec", seconds);
        self.field("rdb_saves", load(&snapshots.saves));
        self.field("rdb_last_cow_size", snapshots.put_aside.load(Ordering::Relaxed));
        self.field("rdb_last_load_keys_expired", load(&snapshots.keys_expired));
        self.field("rdb_last_load_keys_loaded", load(&snapshots.keys_loaded));
    }

    fn loading(&mut self) {
        let status = &self.server.aof.status;
        let start = load(&status.load_start);
        let done = load(&status.load_done);
        let total = load(&status.load_total).max(done);
        let elapsed = (unix_microseconds() / 1_000_000).saturating_sub(start);
        // At the speed so far. In the first second there is none.
        let left = match elapsed {
            0 => 1,
            _ => elapsed.saturating_mul(total - done) / (done + 1),
        };
        self.field("loading_start_time", start);
        self.field("loading_total_bytes", total);
        self.field("loading_rdb_used_mem", load(&status.load_memory));
        self.field("loading_loaded_bytes", done);
        self.fraction("loading_loaded_perc", percentage(done as usize, total as usize));
        self.field("loading_eta_seconds", left);
    }

    fn stats(&mut self) {
        let stats = &self.server.stats;
        let counted = |of| self.server.hub.count(of);
        let [channels, patterns, shards] = Subscription::ALL.map(counted);
        let totals = self.server.totals();
        let total = |count: Count| totals[count as usize];
        self.field("total_connections_received", load(&stats.connections));
        self.field("total_commands_processed", total(Count::Commands));
        let commands = stats.rate(Count::Commands);
        self.field("instantaneous_ops_per_sec", format_args!("{commands:.0}"));
        self.field("total_net_input_bytes", total(Count::InputBytes));
        self.field("total_net_output_bytes", total(Count::OutputBytes));
        self.field("total_net_repl_input_bytes", 0);
        self.field("total_net_repl_output_bytes", load(&self.server.replicas.counts.sent));
        for (name, count) in [("input", Count::InputBytes), ("output", Count::OutputBytes)] {
            self.fraction(&format!("instantaneous_{name}_kbps"), stats.rate(count) / 1024.0);
        }
        self.fraction("instantaneous_input_repl_kbps", 0.0);
        self.fraction("instantaneous_output_repl_kbps", 0.0);
        self.field("rejected_connections", load(&stats.rejected_connections));
        self.syncs();
        self.field("expired_keys", load(&stats.expired_keys));
        // Active expiry finds all, and has no limit of its time.
        self.fraction("expired_stale_perc", 0.0);
        self.field("expired_time_cap_reached_count", 0);
        self.field("expire_cycle_cpu_milliseconds", load(&stats.expire_cycle) / 1000);
        self.field("evicted_keys", load(&stats.evicted_keys));
        self.field("evicted_clients", load(&stats.evicted_clients));
        let [all, current] = self.server.eviction.exceeded();
        self.field("total_eviction_exceeded_time", all);
        self.field("current_eviction_exceeded_time", current);
        self.field("keyspace_hits", total(Count::Hits));
        self.field("keyspace_misses", total(Count::Misses));
        self.field("pubsub_channels", channels);
        self.field("pubsub_patterns", patterns);
        self.field("pubsubshard_channels", shards);
        self.absent("latest_fork_usec total_forks");
        self.field("migrate_cached_sockets", self.server.targets.kept());
        self.absent(
            "slave_expires_tracked_keys active_defrag_hits active_defrag_misses \
             active_defrag_key_hits active_defrag_key_misses total_active_defrag_time \
             current_active_defrag_time tracking_total_keys tracking_total_items \
             tracking_total_prefixes unexpected_error_replies",
        );
        let errors: u64 = stats.errors.lock().unwrap().0.values().sum();
        self.field("total_error_replies", errors);
        self.absent("dump_payload_sanitizations io_threaded_reads_processed");
        self.field("io_threaded_writes_processed", 0);
    }

    fn syncs(&mut self) {
        let counts = &self.server.replicas.counts;
        self.field("sync_full", load(&counts.full));
        self.field("sync_partial_ok", load(&counts.partial));
        self.field("sync_partial_err", load(&counts.refused));
    }

    /// The one that we follow.
    fn primary(&mut self) {
        let (primary, config) = (&self.server.primary, &self.server.config);
        let status = primary.status();
        let Some((host, port)) = &status.address else {
            return self.field("role", "master");
        };
        let ago = |at: Option<Instant>| at.map_or(-1, |at| at.elapsed().as_secs() as i64);
        let is_up = status.link == Link::Up;
        let offset = primary.offset.load(Ordering::Relaxed).max(0);
        self.field("role", "slave");
        self.field("master_host", host);
        self.field("master_port", port);
        self.field("master_link_status", if is_up { "up" } else { "down" });
        self.field("master_last_io_seconds_ago", ago(status.heard.filter(|_| is_up)));
        self.flag("master_sync_in_progress", status.link == Link::Sync);
        self.field("slave_read_repl_offset", offset);
        self.field("slave_repl_offset", offset);
        if status.link == Link::Sync {
            let (read, total) = status.sync;
            self.field("master_sync_total_bytes", total);
            self.field("master_sync_read_bytes", read);
            self.field("master_sync_left_bytes", total - read as i64);
            // (-0.00 before it begins.)
            let done = if total == 0 { 0.0 } else { read as f64 / total as f64 };
            self.fraction("master_sync_perc", 100.0 * done);
            self.field("master_sync_last_io_seconds_ago", ago(status.heard));
        }
        if !is_up {
            self.field("master_link_down_since_seconds", ago(status.down_since));
            // Not in Redis.
            if let Some(reason) = &status.reason {
                self.field("master_link_down_reason", reason.escape_debug());
            }
        }
        self.field("slave_priority", config.replica_priority.get());
        self.flag("slave_read_only", config.replica_read_only.get());
        self.flag("replica_announced", true);
    }

    fn replication(&mut self) {
        let (server, config) = (self.server, &self.server.config);
        let (aof, replicas) = (&server.aof, server.replicas.all());
        let name = aof.backlog.name();
        self.primary();
        self.field("connected_slaves", replicas.len());
        if config.min_replicas_to_write.get() > 0 && config.min_replicas_max_lag.get() > 0 {
            self.field("min_slaves_good_slaves", server.near_replicas());
        }
        for (number, replica) in replicas.iter().enumerate() {
            let (ip, port) = (replica.ip(), replica.announced.port);
            let acked = replica.shown_offset(name.counting);
            let (state, lag) = match replica.state {
                State::Waiting => ("wait_bgsave", 0),
                State::Loading => ("send_bulk", 0),
                State::Online => ("online", replica.lag()),
            };
            let values = format_args!("ip={ip},port={port},state={state},offset={acked},lag={lag}");
            self.field(&format!("slave{number}"), values);
        }
        self.field("master_failover_state", "no-failover");
        self.field("master_replid", name.id);
        let good_to = |before: &Name| before.counting.offset_of(before.to) as i64 + 1;
        let before = aof.backlog.before().map(|before| (good_to(&before), before.id));
        let (good_to, id) = before.unwrap_or((-1, "0".repeat(40)));
        self.field("master_replid2", id);
        // As in Redis, an offset is the number of bytes before a place, and the number of the byte before it.
        let (begin, end) = (aof.backlog.begin(), aof.shown_offset());
        self.field("master_repl_offset", end);
        self.field("second_repl_offset", good_to);
        self.flag("repl_backlog_active", begin.is_some());
        self.field("repl_backlog_size", config.repl_backlog_size.get());
        self.field("repl_backlog_first_byte_offset", begin.map_or(0, |begin| begin + 1));
        self.field("repl_backlog_histlen", begin.map_or(0, |begin| end.saturating_sub(begin)));
    }

    fn cpu(&mut self) {
        let stat = read("/proc/self/stat");
        for (name, ticks) in processor_ticks(&stat) {
            // The kernel shows ticks of 1/100 second to programs, whatever it uses itself.
            let (seconds, rest) = (ticks / 100, ticks % 100);
            self.field(name, format_args!("{seconds}.{rest:02}0000"));
        }
    }

    fn commandstats(&mut self) {
        for row in &TABLE.rows {
            let counters = self.server.stats.of_commands[row.index].each_ref();
            let [calls, took, rejected, failed] = counters.map(load);
            if calls + rejected + failed > 0 {
                let each = took as f64 / calls.max(1) as f64;
                let name = format!("cmdstat_{}", row.command.name);
                let values = format_args!(
                    "calls={calls},usec={took},usec_per_call={each:.2},\
                     rejected_calls={rejected},failed_calls={failed}"
                );
                self.field(&name, values);
            }
        }
    }

    fn errorstats(&mut self) {
        let server = self.server;
        for (kind, count) in &server.stats.errors.lock().unwrap().0 {
            // These would end the name, the line or more. A client may make up its own kinds.
            let safe = |byte: &u8| if b"#:\n\r".contains(byte) { b'_' } else { *byte };
            let kind: Vec<u8> = kind.iter().map(safe).collect();
            let name = format!("errorstat_{}", String::from_utf8_lossy(&kind));
            self.field(&name, format_args!("count={count}"));
        }
    }

    fn latencystats(&mut self) {
        let percentages = self.server.config.latency_tracking_info_percentiles.text();
        for row in &TABLE.rows {
            let buckets = self.server.stats.histograms[row.index].cumulative();
            if !buckets.is_empty() {
                let value = |percentage: &str| {
                    let end = percentile(&buckets, percentage.parse().unwrap_or_default());
                    format!("p{percentage}={}.{:03}", end / 1000, end % 1000)
                };
                let values: Vec<String> = percentages.split_whitespace().map(value).collect();
                let name = format!("latency_percentiles_usec_{}", row.command.name);
                self.field(&name, values.join(","));
            }
        }
    }

    fn keyspace(&mut self) {
        for db in 0..self.view.databases() {
            let view = self.view.in_db(db);
            let (expires, average) = view.deadlines();
            if view.len() > 0 {
                let keys = view.len();
                let values = format_args!("keys={keys},expires={expires},avg_ttl={average}");
                self.field(&format!("db{db}"), values);
            }
        }
    }
}

fn load(counter: &AtomicU64) -> u64 {
    counter.load(Ordering::Relaxed)
}

fn read(path: &str) -> String {
    fs::read_to_string(path).unwrap_or_default()
}

/// As `uname` prints it. Without `/proc`, what the program was compiled for.
fn os() -> String {
    let kernel = read("/proc/sys/kernel/ostype");
    let release = read("/proc/sys/kernel/osrelease");
    let arch = std::env::consts::ARCH;
    match (kernel.trim(), release.trim()) {
        ("", _) | (_, "") => format!("{} {arch}", std::env::consts::OS),
        (kernel, release) => format!("{kernel} {release} {arch}"),
    }
}

/// Processor time of all threads from `/proc/self/stat`: `pid (name) state …`. The name may hold anything,
/// even a `)`. User and system ticks are fields 14 and 15.
fn processor_ticks(stat: &str) -> Vec<(&'static str, u64)> {
    let behind_name = stat.rsplit_once(')').map_or("", |(_, rest)| rest);
    let fields: Vec<&str> = behind_name.split_ascii_whitespace().collect();
    let names = [
        ("used_cpu_sys", 12),
        ("used_cpu_user", 11),
        ("used_cpu_sys_children", 14),
        ("used_cpu_user_children", 13),
    ];
    let ticks = |index: usize| fields.get(index)?.parse().ok();
    names.into_iter().filter_map(|(name, index)| Some((name, ticks(index)?))).collect()
}

fn human(bytes: usize) -> String {
    if bytes < 1024 {
        return format!("{bytes}B");
    }
    let mut amount = bytes as f64;
    for unit in ["K", "M", "G"] {
        amount /= 1024.0;
        if amount < 1024.0 {
            return format!("{amount:.2}{unit}");
        }
    }
    format!("{:.2}T", amount / 1024.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_are_written_for_people_as_redis_does() {
        for (bytes, expected) in [
            (0, "0B"),
            (1023, "1023B"),
            (1024, "1.00K"),
            (1534728, "1.46M"),
            (13103104, "12.50M"),
            (25276063744, "23.54G"),
            (1 << 52, "4096.00T"),
        ] {
            assert_eq!(human(bytes), expected);
        }
    }

    #[test]
    fn the_name_of_the_program_does_not_confuse_its_processor_time() {
        let stat = "1 (a) b) S 0 1 1 0 -1 4194560 2 3 4 5 123 45 6 7 20 0 9 0 100";
        let expected = [
            ("used_cpu_sys", 45),
            ("used_cpu_user", 123),
            ("used_cpu_sys_children", 7),
            ("used_cpu_user_children", 6),
        ];
        assert_eq!(processor_ticks(stat), expected);
        assert_eq!(processor_ticks(""), []);
    }
}
