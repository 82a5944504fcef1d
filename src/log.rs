//! The server's messages to the operator: one line per event, on stdout or in `logfile`, and in the system's log
//! with `syslog-enabled`.
//!
//! ```text
//! 4711:M 23 Nov 2026 07:07:51.123 * Ready to accept connections on port 6379
//! pid   role  when, in UTC       level: . debug  - verbose  * notice  # warning
//! ```
//!
//! A message that cannot be written must not end the server. `println!` panics when its pipe is closed,
//! so all messages are written here, and a failed write is ignored. A write may block, for example on a full
//! pipe, so no thread may write a message while it holds a lock.
//!
//! A line below the level costs one load of an atomic: [`Arguments`] are formatted only when they are
//! written.
//!
//! **How Redis does it**: `serverLogRaw` in server.c writes the same line in local time. std knows no time
//! zones, so ours is in UTC. Redis opens the file again for each line, so the file can be moved away while
//! the server runs. We keep it open: rotate it by copying and truncating.

use std::fmt::Arguments;
use std::fs::File;
use std::io::{self, Write};
use std::os::unix::net::UnixDatagram;
use std::path::Path;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU8, Ordering};
use std::time::{SystemTime, UNIX_EPOCH};

#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Level {
    Debug,
    Verbose,
    Notice,
    Warning,
}

/// Lower levels are not written. [`crate::config`] sets it.
static LEVEL: AtomicU8 = AtomicU8::new(Level::Notice as u8);

/// Where lines go, if not to stdout.
static FILE: OnceLock<File> = OnceLock::new();

/// Where they go besides, with `syslog-enabled`.
static SYSLOG: OnceLock<Syslog> = OnceLock::new();

pub fn set_level(name: &[u8]) {
    let level = match name {
        b"debug" => Level::Debug,
        b"verbose" => Level::Verbose,
        b"warning" => Level::Warning,
        _ => Level::Notice,
    };
    LEVEL.store(level as u8, Ordering::Relaxed);
}

/// From now on all lines go to this file. Called once, at the start.
pub fn into_file(file: File) {
    let _ = FILE.set(file);
}

/// Whether lines go to a file.
pub fn has_file() -> bool {
    FILE.get().is_some()
}

/// From now on the system's log has all lines too. The facility is one of [`FACILITIES`].
pub fn into_syslog(ident: &str, facility: &str) -> io::Result<()> {
    let _ = SYSLOG.set(Syslog::connect(Path::new("/dev/log"), ident, facility)?);
    Ok(())
}

pub const FACILITIES: [&str; 9] =
    ["user", "local0", "local1", "local2", "local3", "local4", "local5", "local6", "local7"];

/// Whether [`debug`] writes anything. The trace costs something to prepare.
pub fn is_debug() -> bool {
    LEVEL.load(Ordering::Relaxed) == Level::Debug as u8
}

/// Whether a line of this level is written: 0 is the lowest.
pub fn writes(level: u8) -> bool {
    level >= LEVEL.load(Ordering::Relaxed)
}

/// What a script has to say, at one of Redis's levels.
pub fn of_script(level: u8, text: &[u8]) {
    let level = [Level::Debug, Level::Verbose, Level::Notice, Level::Warning][usize::from(level)];
    line(level, format_args!("{}", String::from_utf8_lossy(text)));
}

/// The trace of every command (call/account.rs).
pub fn debug(text: Arguments) {
    line(Level::Debug, text);
}

/// Clients that have left or were ended.
pub fn verbose(text: Arguments) {
    line(Level::Verbose, text);
}

/// What the operator should see: started, replayed, rewritten.
pub fn notice(text: Arguments) {
    line(Level::Notice, text);
}

/// What the operator should do something about.
pub fn warning(text: Arguments) {
    line(Level::Warning, text);
}

fn line(level: Level, text: Arguments) {
    if !writes(level as u8) {
        return;
    }
    let since_1970 = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let pid = std::process::id();
    let sign = [".", "-", "*", "#"][level as usize];
    // The text may quote a client, which must not be able to write lines of its own.
    let text = text.to_string().replace(['\r', '\n'], " ");
    let when = date(since_1970.as_millis() as u64);
    // In one write, so that lines of several threads do not mix.
    if let Some(syslog) = SYSLOG.get() {
        syslog.send(level, &text);
    }
    let line = format!("{pid}:M {when} {sign} {text}\n");
    let _ = match FILE.get() {
        Some(mut file) => file.write_all(line.as_bytes()),
        None => io::stdout().write_all(line.as_bytes()),
    };
}

struct Syslog {
    socket: UnixDatagram,
    ident: String,
    facility: u8,
}

impl Syslog {
    fn connect(path: &Path, ident: &str, facility: &str) -> io::Result<Syslog> {
        let socket = UnixDatagram::unbound()?;
        socket.connect(path)?;
        // A line is lost rather than that it stops a client.
        socket.set_nonblocking(true)?;
        // The standard has `user` as 1, and `local0` as 16.
        let facility = match FACILITIES.iter().position(|name| name.eq_ignore_ascii_case(facility))
        {
            Some(at @ 1..) => 15 + at as u8,
            _ => 1,
        };
        Ok(Syslog { socket, ident: ident.to_string(), facility })
    }

    /// Sends a line with its priority, which is the facility and how severe it is, as the C library does. The system
    /// knows what time it is.
    fn send(&self, level: Level, text: &str) {
        let severity = [7, 6, 5, 4][level as usize];
        let (priority, pid) = (8 * self.facility + severity, std::process::id());
        let _ = self.socket.send(format!("<{priority}>{}[{pid}]: {text}", self.ident).as_bytes());
    }
}

/// Milliseconds since 1970 as `23 Nov 2026 07:07:51.123`, in UTC.
fn date(millis: u64) -> String {
    const MONTHS: [&str; 12] =
        ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"];
    let (seconds, millis) = (millis / 1000, millis % 1000);
    let (hour, minute, second) = (seconds / 3600 % 24, seconds / 60 % 60, seconds % 60);
    // We count years from March on: then the leap day is the last day of a year and moves no month. The
    // calendar repeats every 400 years, which are 146,097 days. From March of the year 0 to 1970 it is
    // 719,468 days.
    let days = seconds / 86_400 + 719_468;
    let (era, day_of_era) = (days / 146_097, days % 146_097);
    let year_of_era =
        (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    // From March on, the months have 31 30 31 30 31 days, again and again: five have 153 days.
    let month_from_march = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * month_from_march + 2) / 5 + 1;
    let month = MONTHS[(month_from_march as usize + 2) % 12];
    let year = era * 400 + year_of_era + u64::from(month_from_march >= 10);
    format!("{day:02} {month} {year} {hour:02}:{minute:02}:{second:02}.{millis:03}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_for_the_system_has_its_priority_and_who_sends_it() {
        let name = format!("simple-redis-{}-syslog", std::process::id());
        let path = std::env::temp_dir().join(name);
        let system = UnixDatagram::bind(&path).unwrap();
        for (facility, level, priority) in [
            ("local0", Level::Notice, 133),
            ("LOCAL7", Level::Debug, 191),
            ("user", Level::Warning, 12),
        ] {
            Syslog::connect(&path, "redis", facility).unwrap().send(level, "hello");
            let mut line = [0; 100];
            let length = system.recv(&mut line).unwrap();
            let expected = format!("<{priority}>redis[{}]: hello", std::process::id());
            assert_eq!(line[..length], *expected.as_bytes());
        }
        std::fs::remove_file(&path).unwrap();
    }

    #[test]
    fn a_date_is_that_of_the_calendar() {
        for (seconds, expected) in [
            (0, "01 Jan 1970 00:00:00.000"),
            (951_782_399, "28 Feb 2000 23:59:59.000"),
            (951_782_400, "29 Feb 2000 00:00:00.000"),
            (951_868_800, "01 Mar 2000 00:00:00.000"),
            (1_735_689_599, "31 Dec 2024 23:59:59.000"),
            (1_795_417_671, "23 Nov 2026 07:07:51.000"),
            (4_107_542_400, "01 Mar 2100 00:00:00.000"),
        ] {
            assert_eq!(date(seconds * 1000), expected);
        }
        assert_eq!(date(1_709_164_800_042), "29 Feb 2024 00:00:00.042");
    }
}
