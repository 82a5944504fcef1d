//! The command line and the configuration file.
//!
//! ```text
//! simple-redis redis.conf --port 7000 --client-output-buffer-limit pubsub 1mb 1mb 60 -
//!              └ a file, if it has no '-'     └ an option and its values             └ standard input
//! ```
//!
//! An option on the command line means the same as a line of the file. The file is read first, then standard
//! input if there is a `-`, then the command line. The last value counts. Any mistake ends the start with one
//! line, which says what is wrong, where, and what would be right. Better no server than one that ignores
//! half of its options.
//!
//! **How Redis does it**: server.c, `main`, appends the options to the text of the file and reads that. So an
//! error on the command line is "at line 2" of a file that does not exist.

use super::include;
use super::options::{self, Accepts, Change, OPTIONS, find, target};
use super::{Config, Start, Values};
use crate::log;
use crate::resp::parse_integer;
use crate::resp::words::split_words;
use std::ffi::{OsStr, OsString};
use std::io::Read;
use std::iter::Peekable;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};

impl Config {
    /// What a command line (without the program's name) asks for. An error is one line to be printed.
    pub fn from_args(args: impl IntoIterator<Item = OsString>) -> Result<Start, String> {
        let mut args: Vec<OsString> = args.into_iter().collect();
        // As in Redis, a `-` at the end is never a value.
        let mut from_stdin = args.pop_if(|word| word == "-").is_some();
        let mut args = args.into_iter().peekable();
        from_stdin |= args.next_if(|word| word == "-").is_some();
        let file = args.next_if(|word| !word.as_bytes().starts_with(b"-"));
        let mut lines = Vec::new();
        while let Some(word) = args.next() {
            let option = match word.as_bytes() {
                b"-h" | b"--help" => return Ok(Start::Help),
                b"-v" | b"--version" => return Ok(Start::Version),
                b"--check-aof" => return check_aof(args),
                option => option.strip_prefix(b"--").ok_or_else(|| {
                    refused(&word.to_string_lossy(), "command line", "an option begins with '--'")
                })?,
            };
            lines.push(words_of(option, &mut args));
        }
        let mut loader = Loader {
            values: options::defaults(),
            file: PathBuf::new(),
            save: None,
            missing: Vec::new(),
        };
        if let Some(path) = file {
            loader.read_files(path.as_bytes(), 0)?;
            loader.file = std::path::absolute(&path).unwrap_or_default();
        }
        if from_stdin {
            let mut text = Vec::new();
            let read = std::io::stdin().read_to_end(&mut text);
            read.map_err(|error| format!("cannot read the options in standard input: {error}"))?;
            loader.take_text(&text, "standard input", 0)?;
        }
        for words in lines {
            loader.take_line(words, "command line", 0)?;
        }
        loader.finish()
    }

    /// Opens the logfile, writes the warnings, and checks that `dir` exists.
    pub fn open_files(&self, warnings: &[String]) -> Result<(), String> {
        let dir = self.dir.path();
        if !self.logfile.is_empty() {
            let logfile = dir.join(self.logfile.path());
            log::into_file(&logfile).map_err(|error| {
                let logfile = logfile.display();
                format!("cannot write to the logfile {logfile}: {error}")
            })?;
        }
        for warning in warnings {
            log::warning(format_args!("{warning}"));
        }
        let opened = std::fs::read_dir(&dir).map_err(|error| {
            let dir = dir.display();
            format!("cannot open the directory {dir}: {error}. Name another with --dir")
        });
        opened.map(|_| ())
    }
}

type Args = Peekable<std::vec::IntoIter<OsString>>;

/// An option of the command line with its values.
fn words_of(option: &[u8], args: &mut Args) -> Vec<Vec<u8>> {
    // One argument may have both: `"--port 7000"`.
    let mut words = split_words(option).unwrap_or_default();
    if words.len() == 1 {
        // As in Redis, the next argument is the value even if it begins with `--`, because it may be a
        // password. But `--save` may have no value, which means no snapshots.
        let bare = words[0].eq_ignore_ascii_case(b"save") && args.peek().is_none_or(is_option);
        let value = match bare {
            true => Some(OsString::new()),
            false => args.next(),
        };
        words.extend(value.map(OsString::into_vec));
    }
    while let Some(more) = args.next_if(|word| !is_option(word)) {
        words.push(more.into_vec());
    }
    words
}

fn is_option(word: &OsString) -> bool {
    word.as_bytes().starts_with(b"--")
}

fn check_aof(args: impl Iterator<Item = OsString>) -> Result<Start, String> {
    let (fix, mut paths): (Vec<_>, Vec<_>) = args.partition(|word| word == "--fix");
    match (paths.pop(), paths.is_empty()) {
        (Some(path), true) => Ok(Start::CheckAof { path: path.into(), fix: !fix.is_empty() }),
        _ => {
            let reason = "it takes one directory or file, and --fix to repair it";
            Err(refused("--check-aof", "command line", reason))
        }
    }
}

fn refused(what: &str, place: &str, reason: &str) -> String {
    let what = what.escape_debug();
    format!("cannot use '{what}' ({place}): {reason}")
}

/// Collects the options.
struct Loader {
    values: Values,
    /// The file of the command line.
    file: PathBuf,
    /// The value of the last `save`.
    save: Option<Vec<u8>>,
    /// Rows that ask for a feature that is not here, each with the error. A later line may take one
    /// back, as `--daemonize no` does after the file of a distribution.
    missing: Vec<(usize, String)>,
}

impl Loader {
    /// Reads a file, or all files that match a pattern. `depth` is how many files include it.
    fn read_files(&mut self, path: &[u8], depth: usize) -> Result<(), String> {
        // Relative to `dir`: Redis has changed into it by then.
        let dir = find("dir").map_or(&b""[..], |row| &self.values[row]);
        let path = Path::new(OsStr::from_bytes(dir)).join(OsStr::from_bytes(path));
        for path in include::files(&path) {
            let shown = path.display().to_string();
            let cannot = |why: &str| format!("cannot read the options in {shown}: {why}");
            if depth > 8 {
                return Err(cannot("its files include each other"));
            }
            let text = std::fs::read(&path).map_err(|error| cannot(&error.to_string()))?;
            self.take_text(&text, &shown, depth)?;
        }
        Ok(())
    }

    fn take_text(&mut self, text: &[u8], shown: &str, depth: usize) -> Result<(), String> {
        for (index, line) in text.split(|byte| *byte == b'\n').enumerate() {
            let line = line.trim_ascii();
            if line.is_empty() || line.starts_with(b"#") {
                continue;
            }
            let place = format!("{shown}, line {}", index + 1);
            let words = split_words(line).ok_or_else(|| {
                let line = String::from_utf8_lossy(line);
                refused(&line, &place, "a quote is not closed")
            })?;
            self.take_line(words, &place, depth)?;
        }
        Ok(())
    }

    /// Takes one line: an option and its values. `place` is for the error.
    fn take_line(&mut self, words: Vec<Vec<u8>>, place: &str, depth: usize) -> Result<(), String> {
        let line = words.join(&b' ');
        let refused = |reason: &str| refused(&String::from_utf8_lossy(&line), place, reason);
        let Some((name, given)) = words.split_first() else {
            return Ok(());
        };
        if name.eq_ignore_ascii_case(b"include") {
            return match given {
                [path] => self.read_files(path, depth + 1),
                _ => Err(refused("it takes one file, or a pattern for several")),
            };
        }
        let name = String::from_utf8_lossy(name);
        if FORGOTTEN.iter().any(|old| name.eq_ignore_ascii_case(old)) && given.len() == 1 {
            return Ok(());
        }
        let Some(row) = find(&name).map(target) else {
            return Err(refused("no such option; `redis-cli CONFIG HELP` lists all options"));
        };
        let option = &OPTIONS[row];
        check_count(&option.accepts, given.len()).map_err(refused)?;
        let given = given.join(&b' ');
        let checked = option.check(&given, &self.values[row]);
        let checked = checked.map_err(|reason| refused(&reason));
        if let Accepts::Only(..) = option.accepts {
            self.missing.retain(|(missing, _)| *missing != row);
            if let Err(reason) = checked {
                self.missing.push((row, reason));
                return Ok(());
            }
        }
        let value = checked?;
        if option.change != Change::Fixed {
            self.values[row] = value;
        }
        if option.name == "save" {
            check_save(&given).map_err(refused)?;
            self.save = Some(given);
        }
        Ok(())
    }

    fn finish(self) -> Result<Start, String> {
        if let Some((_, reason)) = self.missing.into_iter().next() {
            return Err(reason);
        }
        let config = Config::new(self.values, self.file);
        let warning = match (self.save.as_deref(), config.appendonly.get()) {
            (Some(b""), _) | (None, true) => None,
            (Some(_), true) => Some(
                "The option 'save' has no effect: there are no RDB snapshots. The append-only \
                 file keeps every change.",
            ),
            // Redis would make snapshots even if its file does not mention `save`.
            (_, false) => Some(
                "Nothing will be kept on disk, because appendonly is 'no' and there are no RDB \
                 snapshots. Set appendonly to yes, or save to \"\" if that is what you want.",
            ),
        };
        let warnings = warning.map(String::from).into_iter();
        let warnings = warnings.chain(unread_snapshot(&config)).collect();
        Ok(Start::Serve(config.into(), warnings))
    }
}

/// Old options, which Redis accepts and ignores.
const FORGOTTEN: [&str; 3] =
    ["list-max-ziplist-entries", "list-max-ziplist-value", "lua-replicate-commands"];

fn check_count(accepts: &Accepts, count: usize) -> Result<(), &'static str> {
    use Accepts::{Only, OutputLimits, Percentages, Refused, Words};
    let many = matches!(accepts, Words | OutputLimits | Percentages | Only(..) | Refused(_));
    match count {
        0 => Err("its value is missing"),
        2.. if !many => Err("it takes one value"),
        _ => Ok(()),
    }
}

/// The value of `save` is empty, or pairs of seconds and changes.
fn check_save(given: &[u8]) -> Result<(), &'static str> {
    let words = split_words(given).unwrap_or_default();
    let is_pair = |pair: &[Vec<u8>]| {
        let [seconds, changes] = [0, 1].map(|at| pair.get(at).and_then(|word| parse_integer(word)));
        seconds.is_some_and(|seconds| seconds >= 1) && changes.is_some_and(|changes| changes >= 0)
    };
    let fits = words.chunks(2).all(is_pair);
    fits.then_some(()).ok_or("Invalid save parameters")
}

/// A warning if there is a snapshot, and a log is begun: Redis does not read the snapshot either.
fn unread_snapshot(config: &Config) -> Option<String> {
    let dir = config.dir.path();
    let snapshot = dir.join(config.dbfilename.path());
    let name = config.appendfilename.text();
    let manifest = dir.join(config.appenddirname.text());
    let manifest = manifest.join(format!("{name}.manifest"));
    let logs = manifest.exists() || dir.join(&name).exists();
    (snapshot.exists() && config.appendonly.get() && !logs).then(|| {
        format!(
            "{} is not read, because appendonly is yes, and a new log begins empty. To get its data: start with \
             `--appendonly no`, and then run `CONFIG SET appendonly yes`",
            snapshot.display()
        )
    })
}

/// The text of `--help`: one screen.
pub fn help() -> String {
    "\
Usage: simple-redis [/path/to/redis.conf] [--option value]...
       simple-redis --check-aof DIRECTORY|FILE [--fix]
       simple-redis --help | --version

A Redis server: strings, lists, sets, sorted sets, hashes, transactions,
pub/sub, and a log that Redis can read. It takes the options of redis-server.
The most important ones, with their defaults:

  --port 6379              0: the system picks a free port, which is printed
  --bind 127.0.0.1 -::1    addresses to listen on; '*' is all of IPv4
  --requirepass \"\"         the password that clients must send
  --dir ./                 where the data is, in appendonlydir/
  --appendonly yes         no: nothing is kept on disk
  --appendfsync everysec   when the log is on the disk: everysec, always or no
  --maxclients 10000       clients at a time; each has a thread
  --databases 16           number of databases
  --logfile \"\"             file for messages; empty: stdout
  --loglevel notice        debug, verbose, notice or warning

Examples: simple-redis --port 7000 --dir /data
          simple-redis redis.conf --loglevel verbose
All options: redis-cli CONFIG HELP. To read on: README.md, then src/README.md.
"
    .to_string()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Arc;

    /// The active lines of Redis 7.0's redis.conf.
    const STOCK: &str = include_str!("../../tests/support/redis-7.0.conf");

    fn start(words: &[&str]) -> Result<(Arc<Config>, Vec<String>), String> {
        match Config::from_args(words.iter().map(OsString::from))? {
            Start::Serve(config, warnings) => Ok((config, warnings)),
            _ => Err("it does not serve".to_string()),
        }
    }

    /// What CONFIG GET answers.
    fn shown(config: &Config, name: &str) -> String {
        String::from_utf8(config.get(name.as_bytes()).remove(0).1).unwrap()
    }

    fn error(words: &[&str]) -> String {
        start(words).err().unwrap()
    }

    /// A file that is deleted when the test ends.
    struct File(PathBuf);

    impl File {
        fn new(name: &str, text: &[u8]) -> File {
            let name = format!("simple-redis-{}-{name}", std::process::id());
            let path = std::env::temp_dir().join(name);
            std::fs::write(&path, text).unwrap();
            File(path)
        }

        fn path(&self) -> &str {
            self.0.to_str().unwrap()
        }
    }

    impl Drop for File {
        fn drop(&mut self) {
            let _ = std::fs::remove_file(&self.0);
        }
    }

    #[test]
    fn the_stock_file_starts_and_changes_nothing_but_appendonly() {
        assert_eq!(STOCK.lines().count(), 71);
        let file = File::new("stock", STOCK.as_bytes());
        let (stock, warnings) = start(&[file.path()]).unwrap();
        assert_eq!(warnings.len(), 1, "{warnings:?}");
        assert!(warnings[0].starts_with("Nothing will be kept on disk"));
        let (ours, warnings) = start(&[]).unwrap();
        assert!(warnings.is_empty());
        let differ: Vec<_> = std::iter::zip(stock.get(b"*"), ours.get(b"*"))
            .filter(|(stock, ours)| stock != ours)
            .map(|(stock, _)| stock.0)
            .collect();
        assert_eq!(differ, ["appendonly", "pidfile"]);
    }

    #[test]
    fn what_cannot_change_is_answered_as_it_is() {
        let words = ["--tcp-keepalive", "300", "--aof-use-rdb-preamble", "yes"];
        let (config, _) = start(&words).unwrap();
        assert_eq!(shown(&config, "tcp-keepalive"), "0");
        assert_eq!(shown(&config, "aof-use-rdb-preamble"), "no");
        assert_eq!(shown(&config, "tcp-backlog"), "128");
    }

    #[test]
    fn the_command_line_comes_after_the_file() {
        let included = File::new("included", b"timeout 7\nrequirepass \"a b\"\n");
        let text = format!("# ours\r\nPort 7000\r\n\r\n  include {}\r\n", included.path());
        let file = File::new("main", text.as_bytes());
        let (config, _) = start(&[file.path(), "--port", "7001", "--bind", "::1", "-::2"]).unwrap();
        assert_eq!(config.port.get(), 7001);
        assert_eq!(config.bind.text(), "::1 -::2");
        assert_eq!(config.requirepass.get(), b"a b");
        assert!(!config.requirepass.is_empty());
        assert_eq!(config.timeout.get(), 7);
        assert_eq!(config.file, file.0);
    }

    #[test]
    fn words_of_the_command_line_are_taken_as_redis_takes_them() {
        let (config, _) = start(&["--requirepass", "--x", "--timeout 4", "--hz", "5"]).unwrap();
        assert_eq!(config.requirepass.get(), b"--x");
        assert_eq!(config.timeout.get(), 4);
        for words in [&["--save"][..], &["--save", "--hz", "5"], &["--save", ""]] {
            let (config, warnings) = start(words).unwrap();
            assert_eq!(shown(&config, "save"), "");
            assert!(warnings.is_empty());
        }
        let (_, warnings) = start(&["--save", "900", "1", "--save", "60 1000"]).unwrap();
        assert_eq!(warnings.len(), 1);
        let (_, warnings) = start(&["--appendonly", "no", "--save", ""]).unwrap();
        assert!(warnings.is_empty());
    }

    /// Redis changes into each of them in turn.
    #[test]
    fn a_relative_dir_begins_at_the_one_before() {
        for (words, dir) in [
            (&["--dir", "/usr/", "--dir", "lib"][..], "/usr/lib"),
            (&["--dir", "/usr/lib/.."], "/usr"),
            (&["--dir", "/usr", "--dir", "/"], "/"),
        ] {
            let (config, _) = start(words).unwrap();
            assert_eq!(config.dir.text(), dir);
        }
        let file = File::new("in-dir", b"timeout 7\n");
        let (parent, name) = (file.0.parent().unwrap(), file.0.file_name().unwrap());
        let [parent, name] = [parent.as_os_str(), name].map(|part| part.to_str().unwrap());
        let (config, _) = start(&["--dir", parent, "--include", name]).unwrap();
        assert_eq!(config.timeout.get(), 7);
    }

    #[test]
    fn options_that_redis_has_forgotten_are_passed_over() {
        assert!(start(&["--list-max-ziplist-entries", "512"]).is_ok());
        assert!(start(&["--list-max-ziplist-entries"]).is_err());
    }

    #[test]
    fn what_cannot_be_meant_is_one_line_that_says_where() {
        let line = "cannot use";
        for (words, expected) in [
            (&["--port", "x"][..], "'port x' (command line): argument couldn't be parsed into"),
            (&["--port"], "'port' (command line): its value is missing"),
            (&["--port", "1", "2"], "'port 1 2' (command line): it takes one value"),
            (&["--foo", "a\nb"], "'foo a\\nb' (command line): no such option"),
            (&["-p", "1"], "'-p' (command line): an option begins with '--'"),
            (
                &["--maxmemory", "1gb"],
                "'maxmemory 1gb' (command line): this server has no eviction",
            ),
            (&["--replicaof", "h", "1"], "'replicaof h 1' (command line): this server has no repl"),
            (&["--daemonize", "yes"], "'daemonize yes' (command line): this server stays in the"),
            (&["--save", "60"], "'save 60' (command line): Invalid save parameters"),
            (
                &["--appendfilename", "a/b"],
                "'appendfilename a/b' (command line): appendfilename can't",
            ),
            (
                &["--appenddirname", ".."],
                "'appenddirname ..' (command line): appenddirname can't be",
            ),
            (&["--dir", ""], "'dir ' (command line): No such file or directory"),
            (&["--io-threads", "4"], "'io-threads 4' (command line): every client has its own"),
            (&["--loadmodule", "x.so"], "'loadmodule x.so' (command line): this server has no mod"),
            (&["--check-aof"], "'--check-aof' (command line): it takes one directory or file"),
        ] {
            let error = error(words);
            assert!(error.starts_with(&format!("{line} {expected}")), "{error}");
            assert_eq!(error.lines().count(), 1);
        }
        let file = File::new("bad", b"port 1\n\n# c\nlogfile \"x\n");
        let expected = format!("'logfile \\\"x' ({}, line 4): a quote", file.path());
        let error = error(&[file.path()]);
        assert!(error.starts_with(&format!("{line} {expected}")), "{error}");
    }

    #[test]
    fn files_that_cannot_be_read_are_named() {
        assert!(error(&["/no/such"]).starts_with("cannot read the options in /no/su"));
        let file = File::new("loop", b"");
        std::fs::write(&file.0, format!("include {}", file.path())).unwrap();
        assert!(error(&[file.path()]).ends_with("its files include each other"));
    }

    #[test]
    fn a_check_of_the_log_can_repair() {
        for words in [["--check-aof", "d", "--fix"], ["--check-aof", "--fix", "d"]] {
            let start = Config::from_args(words.iter().map(OsString::from)).unwrap();
            assert!(matches!(start, Start::CheckAof { path, fix: true } if path == Path::new("d")));
        }
        let start = Config::from_args(["--port", "1", "--help"].map(OsString::from)).unwrap();
        assert!(matches!(start, Start::Help));
    }

    #[test]
    fn help_fits_on_a_screen() {
        assert!(help().lines().count() < 24);
        assert!(help().lines().all(|line| line.len() <= 80));
    }
}
