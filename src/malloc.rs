//! The process executes itself once at the start, to set `GLIBC_TUNABLES` for glibc's allocator.
//!
//! glibc gives a large block its own memory mapping, and unmaps it when it is freed. But it learns from use
//! what is large. After one value of 30 MiB has been freed, it keeps every smaller block, and 60 MiB at
//! the end of each arena. Two tunables fix these numbers. glibc reads them from the environment before
//! `main`, so the program sets them and executes itself. The process, its pid, its arguments and its open
//! files stay the same.
//!
//! If the operator has set `GLIBC_TUNABLES`, the process does nothing. If it cannot execute itself (the file
//! has been removed, for example), it goes on and keeps more memory. Nothing else differs.
//!
//! **How Redis does it**: it is built with its own allocator, jemalloc.

use std::os::unix::process::CommandExt;
use std::process::Command;

/// Blocks from this threshold on get their own mapping. Buffers that are made and freed all the time are
/// shorter; large strings and the blocks of a large keyspace (entry.rs, heap.rs) are at least this
/// long. An arena keeps 128 KiB at its end.
/// The last tunable is the loader's. At the top of each thread's stack the loader reserves room for libraries in four
/// namespaces. There is only one, so a thread needs a kilobyte less.
const TUNABLES: &str =
    "glibc.malloc.mmap_threshold=67584:glibc.malloc.trim_threshold=131072:glibc.rtld.nns=1";

const VARIABLE: &str = "GLIBC_TUNABLES";

/// Marks the second execution. Without it, a system that hides [`VARIABLE`] would make the process execute
/// itself for ever.
const STARTED: &str = "SIMPLE_REDIS_STARTED";

/// Executes the program once more with [`TUNABLES`] set.
pub fn set_up() {
    let glibc = cfg!(all(target_os = "linux", target_env = "gnu"));
    let is_set = |name| std::env::var_os(name).is_some();
    if !glibc || is_set(VARIABLE) || is_set(STARTED) {
        return;
    }
    let Ok(program) = std::env::current_exe() else {
        return;
    };
    // After `/lib64/ld-linux-x86-64.so.2 simple-redis …` the executable is the loader, and the loader would
    // take our first option as its own.
    let name = program.file_name().unwrap_or_default().to_string_lossy();
    if name.starts_with("ld") && name.contains(".so") {
        return;
    }
    let mut args = std::env::args_os();
    let mut command = Command::new(&program);
    if let Some(name) = args.next() {
        command.arg0(name);
    }
    command.args(args).env(VARIABLE, TUNABLES).env(STARTED, "1");
    // It returns only if it fails.
    let _ = command.exec();
}
