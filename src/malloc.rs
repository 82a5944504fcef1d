//! How glibc's allocator is set up: by one more start of the same program.
//!
//! glibc asks the system for a mapping of its own for what is large, and gives it back when that is freed.
//! What is large it learns from use: free a value of 30 MiB once, and from then on all that is smaller is
//! kept, and so are 60 MiB at the end of every arena. Numbers that are set stay as they are, but
//! they can only be set in the environment, which is read before `main`. So the program sets them and
//! executes itself: the process, its number, its arguments and its open files stay the same.
//!
//! Whoever sets `GLIBC_TUNABLES` himself is left alone. Where the program cannot be executed again (it has been
//! removed, say), it goes on as it is: it keeps more memory, and nothing else differs.
//!
//! **How Redis does it**: it brings jemalloc along.

use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::Command;

/// Mapped is what is longer than the buffers that are made and freed all the time, and no longer than the
/// strings and blocks that keys are made of (entry.rs, heap.rs). Of what is free at the end of an arena
/// 128 KiB are kept.
const TUNABLES: &str = "glibc.malloc.mmap_threshold=67584:glibc.malloc.trim_threshold=131072";

const VARIABLE: &str = "GLIBC_TUNABLES";

/// Set by the first start. Without it a system that hides [`VARIABLE`] would start us for ever.
const STARTED: &str = "SIMPLE_REDIS_STARTED";

/// Executes the program again, with the allocator set up, unless that has been done or is not to be done.
pub fn set_up() {
    let glibc = cfg!(all(target_os = "linux", target_env = "gnu"));
    let is_set = |name| std::env::var_os(name).is_some();
    if !glibc || is_set(VARIABLE) || is_set(STARTED) {
        return;
    }
    let Ok(program) = std::env::current_exe() else {
        return;
    };
    // Started as `/lib64/ld-linux-x86-64.so.2 simple-redis …`, the process is the loader's, and the loader
    // would take our first option for one of its own.
    if is_loader(&program) {
        return;
    }
    let mut args = std::env::args_os();
    let mut command = Command::new(program);
    if let Some(name) = args.next() {
        command.arg0(name);
    }
    command.args(args).env(VARIABLE, TUNABLES).env(STARTED, "1");
    // It returns only if it fails.
    let _ = command.exec();
}

fn is_loader(program: &Path) -> bool {
    let name = program.file_name().unwrap_or_default().to_string_lossy();
    name.starts_with("ld") && name.contains(".so")
}
