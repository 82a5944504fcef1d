//! The command line and the configuration file.
//!
//! ```text
//! simple-redis redis.conf --port 7000 --client-output-buffer-limit pubsub 1mb 1mb 60 -
//!              └ a file, if it has no '-'     └ an option and its values             └ standard input
//! ```
//!
//! An option on the command line means the same as a line of the file. The file is read first, then standard
//! input if there is a `-`, then the command line. The last value counts. Any mistake ends the start, with one line
//! for each, which says what is wrong, where, and what would be right. Better no server than one that ignores
//! half of its options. A value that asks for a feature which is not here is no mistake if a later one takes it back.
//!
//! **How Redis does it**: server.c, `main`, appends the options to the text of the file and reads that, up to the first
//! mistake. So an error on the command line is "at line 2" of a file that does not exist.

use super::include;
use super::options::{self, Accepts, Change, OPTIONS, find, target};
use super::users::User;
use super::{Config, Start, Values};
use crate::log;
use crate::resp::words::split_words;
use std::collections::{BTreeMap, BTreeSet};
use std::ffi::{OsStr, OsString};
use std::fs::{self, File};
use std::io::Read;
use std::iter::Peekable;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};

impl Config {
    /// What a command line (without the program's name) asks for. An error has a line for each thing that is refused.
    pub fn from_args(args: impl IntoIterator<Item = OsString>) -> Result<Start, String> {
        let mut args: Vec<OsString> = args.into_iter().collect();
        // As in Redis, a `-` at the end is never a value.
        let mut from_stdin = args.pop_if(|word| word == "-").is_some();
        let mut args = args.into_iter().peekable();
        from_stdin |= args.next_if(|word| word == "-").is_some();
        let file = args.next_if(|word| !word.as_bytes().starts_with(b"-"));
        // As in Redis, an empty name is no file. A script may pass a variable that has no value.
        let file = file.filter(|path| !path.is_empty());
        let mut lines = Vec::new();
        while let Some(word) = args.next() {
            let word = word.as_bytes();
            match word {
                b"-h" | b"--help" => return Ok(Start::Help),
                b"-v" | b"--version" => return Ok(Start::Version),
                b"--check-aof" => return check_aof(args),
                _ => lines.push(words_of(word, &mut args)),
            }
        }
        let mut loader = Loader { values: options::defaults(), ..Loader::default() };
        if let Some(path) = file {
            loader.read_files(path.as_bytes(), 0);
            loader.file = std::path::absolute(&path).unwrap_or_default();
        }
        if from_stdin {
            let read = std::io::stdin().read_to_end(&mut loader.input);
            if let Err(error) = read {
                loader.refuse(format!("cannot read the options in standard input: {error}"));
            }
            let text = loader.input.clone();
            loader.take_text(&text, "standard input", 0);
        }
        for words in lines {
            loader.take_line(words, "command line", 0);
        }
        loader.finish()
    }

    /// Checks that `dir` exists, opens the logfile and the system's log, and writes the warnings.
    pub fn open_files(&self, warnings: &[String]) -> Result<(), String> {
        self.missing_file().map_or(Ok(()), Err)?;
        if !self.logfile.is_empty() {
            log::into_file(self.open_logfile()?);
        }
        if self.syslog_enabled.get() {
            let (ident, facility) = (self.syslog_ident.text(), self.syslog_facility.text());
            if let Err(error) = log::into_syslog(&ident, &facility) {
                log::warning(format_args!("cannot write to the system's log: {error}"));
            }
        }
        for warning in warnings {
            log::warning(format_args!("{warning}"));
        }
        Ok(())
    }

    /// Why the server cannot work in its directory, if so.
    fn missing_file(&self) -> Option<String> {
        let dir = self.dir.path();
        if let Err(error) = fs::read_dir(&dir) {
            let dir = dir.display();
            return Some(format!(
                "cannot open the directory {dir}: {error}. Name another with --dir"
            ));
        }
        if self.logfile.is_empty() { None } else { self.open_logfile().err() }
    }

    fn open_logfile(&self) -> Result<File, String> {
        let path = self.dir.path().join(self.logfile.path());
        let opened = File::options().append(true).create(true).open(&path);
        opened.map_err(|error| format!("cannot write to the logfile {}: {error}", path.display()))
    }
}

type Args = Peekable<std::vec::IntoIter<OsString>>;

/// An option of the command line with its values.
fn words_of(first: &[u8], args: &mut Args) -> Vec<Vec<u8>> {
    // One argument may have both: `"--port 7000"`.
    let option = first.strip_prefix(b"--");
    let mut words = option.map_or(vec![first.to_vec()], |o| split_words(o).unwrap_or_default());
    if option.is_some() && words.len() == 1 {
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
#[derive(Default)]
struct Loader {
    values: Values,
    /// The file of the command line.
    file: PathBuf,
    /// What standard input has said.
    input: Vec<u8>,
    /// The rows of the options that were given.
    given: BTreeSet<usize>,
    /// The last value given for each option that has another one all the same, and never changes.
    disobeyed: BTreeMap<usize, String>,
    renames: Vec<(Vec<u8>, Vec<u8>)>,
    user: Option<User>,
    /// What is refused. The row of an option that asks for a feature which is not here: a later line may take that
    /// back, as `--daemonize no` does after the file of a distribution.
    refused: Vec<(Option<usize>, String)>,
}

/// Old options, which Redis accepts and ignores.
const FORGOTTEN: [&str; 3] =
    ["list-max-ziplist-entries", "list-max-ziplist-value", "lua-replicate-commands"];

impl Loader {
    fn refuse(&mut self, reason: String) {
        self.refused.push((None, reason));
    }

    fn value(&self, name: &str) -> &[u8] {
        find(name).map_or(b"", |row| &self.values[row])
    }

    fn is_given(&self, name: &str) -> bool {
        find(name).is_some_and(|row| self.given.contains(&row))
    }

    /// Reads a file, or all files that match a pattern. `depth` is how many files include it.
    fn read_files(&mut self, path: &[u8], depth: usize) {
        // Relative to `dir`: Redis has changed into it by then.
        let path = Path::new(OsStr::from_bytes(self.value("dir"))).join(OsStr::from_bytes(path));
        for path in include::files(&path) {
            let shown = path.display().to_string();
            let text = match depth {
                0..=8 => fs::read(&path).map_err(|error| error.to_string()),
                _ => Err("its files include each other".to_string()),
            };
            match text {
                Ok(text) => self.take_text(&text, &shown, depth),
                Err(why) => self.refuse(format!("cannot read the options in {shown}: {why}")),
            }
        }
    }

    fn take_text(&mut self, text: &[u8], shown: &str, depth: usize) {
        for (index, line) in text.split(|byte| *byte == b'\n').enumerate() {
            let line = line.trim_ascii();
            if line.is_empty() || line.starts_with(b"#") {
                continue;
            }
            let place = format!("{shown}, line {}", index + 1);
            match split_words(line) {
                Some(words) => self.take_line(words, &place, depth),
                None => {
                    let line = String::from_utf8_lossy(line);
                    self.refuse(refused(&line, &place, "a quote is not closed"));
                }
            }
        }
    }

    /// Takes one line: an option and its values. `place` is for the error.
    fn take_line(&mut self, words: Vec<Vec<u8>>, place: &str, depth: usize) {
        let Some((name, given)) = words.split_first() else {
            return;
        };
        let taken = match (name.to_ascii_lowercase().as_slice(), given) {
            (b"include", [path]) => return self.read_files(path, depth + 1),
            (b"include", _) => Err("it takes one file, or a pattern for several".to_string()),
            (b"rename-command", [from, to]) => {
                self.renames.push((from.clone(), to.clone()));
                Ok(())
            }
            (b"rename-command", _) => Err("it takes a command and another name for it".to_string()),
            (b"user", rules) => self.take_user(rules.iter().map(Vec::as_slice)),
            ([b'-', ..], _) => Err("an option begins with '--'".to_string()),
            _ => self.take_option(&String::from_utf8_lossy(name), given, &words, place),
        };
        if let Err(reason) = taken {
            let line = words.join(&b' ');
            self.refuse(refused(&String::from_utf8_lossy(&line), place, &reason));
        }
    }

    fn take_user<'a>(&mut self, rules: impl Iterator<Item = &'a [u8]>) -> Result<(), String> {
        match self.user.replace(User::parse(rules)?) {
            Some(_) => Err("the user stands there twice".to_string()),
            None => Ok(()),
        }
    }

    fn take_option(
        &mut self,
        name: &str,
        given: &[Vec<u8>],
        line: &[Vec<u8>],
        place: &str,
    ) -> Result<(), String> {
        if FORGOTTEN.iter().any(|old| name.eq_ignore_ascii_case(old)) && given.len() == 1 {
            return Ok(());
        }
        let Some(row) = find(name).map(target) else {
            let reason = "no such option; `redis-cli CONFIG HELP` lists all options";
            return Err(reason.to_string());
        };
        let option = &OPTIONS[row];
        self.given.insert(row);
        check_count(&option.accepts, given.len())?;
        let given = given.join(&b' ');
        let mut checked = option.check(&given, &self.values[row]);
        if let Accepts::Only(..) = option.accepts {
            self.refused.retain(|(other, _)| *other != Some(row));
            if let Err(reason) = checked {
                let line = line.join(&b' ');
                let reason = refused(&String::from_utf8_lossy(&line), place, &reason);
                self.refused.push((Some(row), reason));
                return Ok(());
            }
        }
        if option.name == "save" {
            // Each line adds to those before, and an empty one takes them back.
            if let Ok(value) = &mut checked
                && !value.is_empty()
                && !self.values[row].is_empty()
            {
                *value = [&self.values[row][..], value].join(&b' ');
            }
        }
        let value = checked?;
        if option.change == Change::Fixed {
            self.disobeyed.insert(row, String::from_utf8_lossy(&value).into_owned());
        } else {
            self.values[row] = value;
        }
        Ok(())
    }

    /// The users of an `aclfile`. They count instead of `requirepass`.
    fn read_aclfile(&mut self) {
        if self.value("aclfile").is_empty() {
            return;
        }
        if self.user.is_some() {
            let reason =
                "there are a 'user' line and an 'aclfile'; Redis does not take both either";
            self.refuse(format!("cannot know the users: {reason}"));
        }
        let dir = Path::new(OsStr::from_bytes(self.value("dir")));
        let path = dir.join(OsStr::from_bytes(self.value("aclfile")));
        let text = fs::read(&path).unwrap_or_else(|error| {
            self.refuse(format!("cannot read the users in {}: {error}", path.display()));
            Vec::new()
        });
        self.user = None;
        for (index, line) in text.split(|byte| *byte == b'\n').enumerate() {
            let mut words = line.trim_ascii().split(|byte| *byte == b' ');
            let taken = match words.next() {
                None | Some(b"") => Ok(()),
                Some(b"user") => self.take_user(words),
                Some(_) => Err("it does not begin with 'user'".to_string()),
            };
            if let Err(reason) = taken {
                let place = format!("{}, line {}", path.display(), index + 1);
                self.refuse(refused("aclfile", &place, &reason));
            }
        }
        self.user.get_or_insert_with(User::unlimited);
    }

    /// What the operator is told because it is not as the options say.
    fn warnings(&self) -> Vec<String> {
        let text = |value: &[u8]| String::from_utf8_lossy(value).into_owned();
        let mut warnings = Vec::new();
        for (index, (row, value)) in OPTIONS.iter().zip(&self.values).enumerate() {
            let (name, kept) = (row.name, text(value));
            if let Accepts::InVain(_, why) = row.accepts
                && kept != row.default
            {
                warnings.push(format!("'{name} {kept}' is in vain: {why}."));
            }
            if let Some(given) = self.disobeyed.get(&index).filter(|given| **given != kept) {
                let why = row.summary;
                warnings.push(format!("'{name} {given}' is not obeyed: {why}. It is {kept}."));
            }
        }
        if self.lacks_channels() {
            let text =
                "The user 'default' may use no channels, as it is written, and may use all here.";
            warnings.push(text.to_string());
        }
        let keeps_log = self.value("appendonly") == b"yes";
        // Redis would make snapshots even if its file does not mention `save`.
        if !keeps_log && !self.is_given("save") {
            warnings.push(
                "Nothing will be kept on disk, because appendonly is 'no', and save is empty here if it is not \
                 given. Set appendonly to yes, or save to '3600 1 300 100 60 10000' as in Redis, or to \"\" if \
                 that is what you want."
                    .to_string(),
            );
        }
        if !keeps_log && !self.value("save").is_empty() {
            warnings.push(
                "A signal (SIGTERM, Ctrl-C) ends this server without a snapshot, because appendonly is 'no'. Use \
                 SHUTDOWN, which writes one, or set appendonly to yes."
                    .to_string(),
            );
        }
        warnings
    }

    fn lacks_channels(&self) -> bool {
        self.user.as_ref().is_some_and(|user| !user.has_channels)
            && self.value("acl-pubsub-default") != b"allchannels"
    }

    fn finish(mut self) -> Result<Start, String> {
        self.read_aclfile();
        let mut warnings = self.warnings();
        let config = Config {
            lacks_channels: self.lacks_channels(),
            chooses_log: self.is_given("appendonly"),
            file: self.file,
            input: self.input,
            renames: self.renames,
            ..Config::default()
        };
        config.replace(self.values);
        if let Some(user) = self.user {
            config.password.replace(user.passwords);
        }
        let mut refused: Vec<String> = self.refused.into_iter().map(|(_, reason)| reason).collect();
        if !refused.is_empty() {
            // With what `open_files` would say.
            refused.extend(config.missing_file());
            return Err(refused.join("\n"));
        }
        warnings.extend(what_is_not_read(&config));
        Ok(Start::Serve(config.into(), warnings))
    }
}

fn check_count(accepts: &Accepts, count: usize) -> Result<(), &'static str> {
    use Accepts::{InVain, Only, OutputLimits, Percentages, Refused, SavePoints, Words};
    let many = match accepts {
        Words | OutputLimits | Percentages | SavePoints | Only(..) | Refused(_) => true,
        InVain(accepts, _) => matches!(accepts, Words),
        _ => false,
    };
    match count {
        0 if !matches!(accepts, Refused(_)) => Err("its value is missing"),
        2.. if !many => Err("it takes one value"),
        _ => Ok(()),
    }
}

/// A warning if the start passes over data in the directory: a snapshot, because a log is asked for; or a log,
/// because none is. Redis does so too, and says nothing.
fn what_is_not_read(config: &Config) -> Option<String> {
    let dir = config.dir.path();
    let snapshot = dir.join(config.dbfilename.path());
    let name = config.appendfilename.text();
    let (inside, bare) = (dir.join(config.appenddirname.text()), dir.join(&name));
    let has_log = inside.join(format!("{name}.manifest")).exists() || bare.exists();
    if config.appendonly.get() {
        return (config.chooses_log && snapshot.exists() && !has_log).then(|| {
            format!(
                "{} is not read, because `appendonly yes` is given, and so a new log begins empty, as in Redis. To \
                 get its data stop this server before it writes, and start it without `appendonly`",
                snapshot.display()
            )
        });
    }
    let files = std::fs::read_dir(&inside).into_iter().flatten().flatten().map(|file| file.path());
    let files = files.chain([bare]).filter_map(|path| fs::metadata(path).ok());
    let files = files.filter(|file| file.is_file() && file.len() > 0);
    let written = files.filter_map(|file| file.modified().ok()).max();
    let saved = fs::metadata(&snapshot).and_then(|file| file.modified()).ok();
    (has_log && written > saved).then(|| {
        format!(
            "the log in {} is not read, because appendonly is 'no', and it is newer than {}. To get its data stop \
             this server before it writes, and start it with `--appendonly yes`",
            inside.display(),
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
  --appendonly yes         no: only snapshots are kept, and only with --save
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
        let begin = |text: &String| text.split(['.', ':', ',']).next().map(str::to_string);
        let warnings: Vec<String> = warnings.iter().filter_map(begin).collect();
        assert_eq!(
            warnings,
            [
                "'tcp-keepalive 300' is not obeyed",
                "'tcp-backlog 511' is not obeyed",
                "Nothing will be kept on disk"
            ]
        );
        let (ours, warnings) = start(&[]).unwrap();
        assert!(warnings.is_empty());
        let differ: Vec<_> = std::iter::zip(stock.get(b"*"), ours.get(b"*"))
            .filter(|(stock, ours)| stock != ours)
            .map(|(stock, _)| stock.0)
            .collect();
        assert_eq!(differ, ["pidfile", "appendonly", "aof-use-rdb-preamble"]);
    }

    #[test]
    fn what_cannot_change_is_answered_as_it_is() {
        let words = ["--tcp-keepalive", "300", "--io-threads", "4"];
        let (config, warnings) = start(&words).unwrap();
        assert_eq!(shown(&config, "tcp-keepalive"), "0");
        assert_eq!(shown(&config, "tcp-backlog"), "128");
        assert_eq!(shown(&config, "io-threads"), "4");
        let keepalive = "'tcp-keepalive 300' is not obeyed: std cannot set it. It is 0.";
        let threads = "'io-threads 4' is in vain: every client has a thread of its own.";
        for warning in [keepalive, threads] {
            assert!(warnings.iter().any(|text| text == warning), "{warnings:?}");
        }
        let (_, warnings) = start(&["--tcp-keepalive", "0", "--io-threads", "1"]).unwrap();
        assert!(warnings.is_empty(), "{warnings:?}");
    }

    #[test]
    fn what_is_refused_is_told_at_once() {
        let file = File::new("many", b"cluster-enabled yes\nport x\ndaemonize yes\nbad \"\n");
        let words = [file.path(), "--tls-port", "1", "--dir", "/no/such", "--include", "/no/such"];
        let errors = error(&words);
        let expected = [
            "'cluster-enabled yes'",
            "'port x'",
            "'bad \\\"'",
            "'tls-port 1'",
            "in /no/such:",
            "directory /no/such:",
        ];
        assert_eq!(errors.lines().count(), expected.len(), "{errors}");
        for (line, part) in errors.lines().zip(expected) {
            assert!(line.contains(part), "{errors}");
        }
        // A later line takes back what asks for a feature that is not here, and not what is wrong.
        let errors = error(&[&words[..1], &["--cluster-enabled", "no", "--port", "1"]].concat());
        assert!(errors.starts_with("cannot use 'port x'") && errors.lines().count() == 2);
    }

    #[test]
    fn save_reads_back_as_it_was_given_and_is_checked_as_redis_does() {
        let file = File::new("save", b"save 900 1\nsave 300 10 60 10000\n");
        let (config, _) = start(&[file.path()]).unwrap();
        assert_eq!(shown(&config, "save"), "900 1 300 10 60 10000");
        let (config, _) = start(&[file.path(), "--save", "5 6"]).unwrap();
        assert_eq!(shown(&config, "save"), "900 1 300 10 60 10000 5 6");
        let (config, _) = start(&[file.path(), "--save", "", "--save", "5 6"]).unwrap();
        assert_eq!(shown(&config, "save"), "5 6");
        for line in ["save foo bar", "save 900", "save 0 1", "save 1 -1", "save 900 1 # often"] {
            let file = File::new("bad-save", line.as_bytes());
            assert!(error(&[file.path()]).ends_with("Invalid save parameters"), "{line}");
        }
    }

    #[test]
    fn the_user_of_a_line_or_a_file_counts_instead_of_requirepass() {
        let user = File::new("user", b"user default on >two ~* &* +@all\nrequirepass one\n");
        let (config, _) = start(&[user.path()]).unwrap();
        assert!(config.password.is_right(b"two") && !config.password.is_right(b"one"));
        assert_eq!(shown(&config, "requirepass"), "one");
        config.set(&[(b"timeout", b"1")]).unwrap();
        assert!(config.password.is_right(b"two"), "an option that has not changed says nothing");
        config.set(&[(b"requirepass", b"three")]).unwrap();
        assert!(config.password.is_right(b"three") && !config.password.is_right(b"two"));

        let acl = File::new("acl", b"\nuser default on >three ~* +@all\n\n");
        let (config, warnings) = start(&["--requirepass", "one", "--aclfile", acl.path()]).unwrap();
        assert!(config.password.is_right(b"three") && !config.password.is_right(b"one"));
        assert!(warnings[0].starts_with("The user 'default' may use no channels"), "{warnings:?}");
        let nobody = File::new("nobody", b"");
        let (config, _) = start(&["--requirepass", "one", "--aclfile", nobody.path()]).unwrap();
        assert!(!config.password.is_needed(), "as in Redis");

        let others = File::new("others", b"user a on +@all\n# b\nuser default on ~* +@all -get\n");
        let errors = error(&[user.path(), "--aclfile", others.path()]);
        let expected = [
            "a 'user' line and an 'aclfile'",
            "the user 'a'",
            "line 2): it does",
            "line 3): the user",
        ];
        for (line, part) in errors.lines().zip(expected) {
            assert!(line.contains(part), "{errors}");
        }
        assert!(error(&["--aclfile", "/no/such"]).starts_with("cannot read the users in /no/such"));
        assert!(error(&["--user", "a", "on"]).contains("the user 'a' cannot be here"));
        let twice =
            File::new("twice", b"user default on nopass ~* +@all\nuser default on ~* +@all");
        assert!(error(&[twice.path()]).ends_with("the user stands there twice"));
    }

    #[test]
    fn the_command_line_comes_after_the_file() {
        let included = File::new("included", b"timeout 7\nrequirepass \"a b\"\n");
        let text = format!("# ours\r\nPort 7000\r\n\r\n  include {}\r\n", included.path());
        let file = File::new("main", text.as_bytes());
        let (config, _) = start(&[file.path(), "--port", "7001", "--bind", "::1", "-::2"]).unwrap();
        assert_eq!(config.port.get(), 7001);
        assert_eq!(config.bind.text(), "::1 -::2");
        assert!(config.password.is_needed() && config.password.is_right(b"a b"));
        assert_eq!(config.timeout.get(), 7);
        assert_eq!(config.file, file.0);
    }

    #[test]
    fn words_of_the_command_line_are_taken_as_redis_takes_them() {
        let (config, _) = start(&["--requirepass", "--x", "--timeout 4", "--hz", "5"]).unwrap();
        assert!(config.password.is_right(b"--x"));
        assert_eq!(config.timeout.get(), 4);
        for words in [&["--save"][..], &["--save", "--hz", "5"], &["--save", ""]] {
            let (config, warnings) = start(words).unwrap();
            assert_eq!(shown(&config, "save"), "");
            assert!(warnings.is_empty());
        }
        for (save, count) in [(&["--save", ""][..], 0), (&["--save", "60 1"], 1), (&[], 1)] {
            let (_, warnings) = start(&[&["--appendonly", "no"], save].concat()).unwrap();
            assert_eq!(warnings.len(), count);
        }
        let (config, _) = start(&["", "--timeout", "4"]).unwrap();
        assert_eq!((config.timeout.get(), &config.file), (4, &PathBuf::new()));
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
        let nobody = ["no", "one"];
        let (config, _) = start(&[&["--replicaof"][..], &nobody].concat()).unwrap();
        assert_eq!(config.primary(), Ok(None));
        assert_eq!(shown(&config, "slaveof"), "");
        assert!(start(&["--replicaof", "h"]).unwrap().0.primary().is_err());
        for (words, expected) in [
            (&["--port", "x"][..], "'port x' (command line): argument couldn't be parsed into"),
            (&["--port"], "'port' (command line): its value is missing"),
            (&["--port", "1", "2"], "'port 1 2' (command line): it takes one value"),
            (&["--foo", "a\nb"], "'foo a\\nb' (command line): no such option"),
            (&["-p", "1"], "'-p 1' (command line): an option begins with '--'"),
            (&["--tls-port", "6380"], "'tls-port 6380' (command line): this server has no TLS"),
            (&["--unixsocketperm", "8"], "'unixsocketperm 8' (command line): argument couldn't be"),
            (&["--unixsocketperm", "1000"], "'unixsocketperm 1000' (command line): argument must"),
            (&["--rename-command", "GET"], "'rename-command GET' (command line): it takes a com"),
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
            (&["--io-threads", "0"], "'io-threads 0' (command line): argument must be between 1"),
            (&["--sentinel"], "'sentinel' (command line): this server is not a sentinel"),
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
