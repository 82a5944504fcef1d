//! What the system knows about a server's process, from `/proc/PID`: Linux only, as the tests
//! that ask are.

use super::patience::eventually;
use std::fs;
use std::thread;
use std::time::Duration;

/// A figure of `/proc/PID/status` in bytes: `VmRSS` is the memory in use, `VmHWM` the most that
/// ever was, `VmPeak` the most that was ever asked for.
pub fn memory(pid: u32, name: &str) -> u64 {
    status(pid, name) * 1024
}

pub fn threads(pid: u32) -> u64 {
    status(pid, "Threads")
}

/// How many times its threads have gone to sleep of their own accord, all together.
pub fn sleeps(pid: u32) -> u64 {
    let tasks = fs::read_dir(format!("/proc/{pid}/task")).expect("the process lives");
    let of_task = |task: std::io::Result<fs::DirEntry>| {
        // It may have ended since it was listed.
        let status = fs::read_to_string(task.ok()?.path().join("status")).ok()?;
        let mut lines = status.lines();
        let number = lines.find_map(|line| line.strip_prefix("voluntary_ctxt_switches:"))?;
        number.trim().parse::<u64>().ok()
    };
    tasks.filter_map(of_task).sum()
}

/// Waits for a second in which the process rests: it takes a twentieth of a processor at most, and its threads go to
/// sleep fewer than `most` times. Where the machine is busy with others, the first second may be no such.
pub fn wait_for_rest(pid: u32, most: u64) {
    eventually("the server rests", || {
        let (busy, slept) = (cpu(pid), sleeps(pid));
        thread::sleep(Duration::from_secs(1));
        cpu(pid) - busy <= Duration::from_millis(50) && sleeps(pid) - slept < most
    });
}

/// Places in the kernel's table of its descriptors.
pub fn descriptor_places(pid: u32) -> u64 {
    status(pid, "FDSize")
}

fn status(pid: u32, name: &str) -> u64 {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).expect("the process lives");
    let line = status.lines().find(|line| line.starts_with(name));
    let number = line.and_then(|line| line.split_whitespace().nth(1));
    number.and_then(|number| number.parse().ok()).expect("a number")
}

/// How many descriptors are open.
pub fn descriptors(pid: u32) -> usize {
    let open = fs::read_dir(format!("/proc/{pid}/fd")).expect("the process lives");
    open.count()
}

/// Processor time spent so far by all threads, to a hundredth of a second.
pub fn cpu(pid: u32) -> Duration {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).expect("the process lives");
    // The name in brackets may hold spaces. Behind it, `utime` and `stime` are 12th and 13th.
    let behind = stat.rsplit(')').next().unwrap_or_default();
    let fields: Vec<&str> = behind.split_whitespace().collect();
    let ticks = |at: usize| fields[at].parse::<u64>().expect("a number");
    Duration::from_millis((ticks(11) + ticks(12)) * 10)
}
