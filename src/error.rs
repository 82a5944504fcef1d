//! The errors that are replies to a client, in Redis's exact words.
//!
//! After such an error the connection goes on. An error that ends the connection is a
//! [`crate::resp::Error`]. An error that ends the start of the server is one line on stderr.
//!
//! ```text
//! -WRONGTYPE Operation against a key …      the first word is for programs, the rest for people
//! ```
//!
//! **How Redis does it**: `shared.*err` in server.c, and texts at the place of use. Here one list has the
//! errors of data, connections and transactions, so that a reader sees in one place what can go wrong. An
//! error of only one option or subcommand stands where it occurs ([`Error::text`]).

use std::collections::BTreeMap;
use std::io::Write;

/// An error message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Error {
    /// One that is always the same: [`Error::Syntax`] and those below it.
    Fixed(&'static str),
    /// The command's full name, `get` or `config|get`.
    WrongArity(&'static str),
    InvalidExpire(&'static str),
    SubscribedOnly(&'static str),
    /// Any other, with its leading `ERR`. It is bytes because it may quote any bytes of a client.
    Text(Vec<u8>),
}

// They stand in patterns and are made like the variants above, so they are written like these.
#[allow(non_upper_case_globals)]
impl Error {
    pub const Syntax: Error = Error::Fixed("ERR syntax error");
    pub const WrongType: Error =
        Error::Fixed("WRONGTYPE Operation against a key holding the wrong kind of value");
    pub const OutOfMemory: Error =
        Error::Fixed("OOM command not allowed when used memory > 'maxmemory'.");
    pub const NotInteger: Error = Error::Fixed("ERR value is not an integer or out of range");
    /// It does not fit into a C `int`.
    pub const OutsideOfInt: Error =
        Error::Fixed("ERR value is out of range, value must between -2147483648 and 2147483647");
    pub const NotPositive: Error = Error::Fixed("ERR value is out of range, must be positive");
    pub const NotFloat: Error = Error::Fixed("ERR value is not a valid float");
    pub const HashValueNotInteger: Error = Error::Fixed("ERR hash value is not an integer");
    pub const HashValueNotFloat: Error = Error::Fixed("ERR hash value is not a float");
    pub const Overflow: Error = Error::Fixed("ERR increment or decrement would overflow");
    pub const DecrementOverflow: Error = Error::Fixed("ERR decrement would overflow");
    pub const NanOrInfinity: Error = Error::Fixed("ERR increment would produce NaN or Infinity");
    pub const IncrementNanOrInfinity: Error = Error::Fixed("ERR value is NaN or Infinity");
    pub const NoSuchKey: Error = Error::Fixed("ERR no such key");
    pub const SameObject: Error = Error::Fixed("ERR source and destination objects are the same");
    pub const DbIndexOutOfRange: Error = Error::Fixed("ERR DB index is out of range");
    pub const FirstDbIndex: Error = Error::Fixed("ERR invalid first DB index");
    pub const SecondDbIndex: Error = Error::Fixed("ERR invalid second DB index");
    pub const InvalidCursor: Error = Error::Fixed("ERR invalid cursor");
    pub const OffsetOutOfRange: Error = Error::Fixed("ERR offset is out of range");
    pub const StringTooLong: Error =
        Error::Fixed("ERR string exceeds maximum allowed size (proto-max-bulk-len)");
    pub const ValueOutOfRange: Error = Error::Fixed("ERR value is out of range");
    pub const NxAndOthers: Error =
        Error::Fixed("ERR NX and XX, GT or LT options at the same time are not compatible");
    pub const GtAndLt: Error =
        Error::Fixed("ERR GT and LT options at the same time are not compatible");
    pub const NoAuth: Error = Error::Fixed("NOAUTH Authentication required.");
    pub const WrongPassword: Error =
        Error::Fixed("WRONGPASS invalid username-password pair or user is disabled.");
    pub const NoPasswordSet: Error = Error::Fixed(
        "ERR AUTH <password> called without any password configured for the default user. Are \
         you sure your configuration is correct?",
    );
    pub const HelloNotAuthenticated: Error = Error::Fixed(
        "NOAUTH HELLO must be called with the client already authenticated, otherwise the HELLO \
         AUTH <user> <pass> option can be used to authenticate the client and select the RESP \
         protocol version at the same time",
    );
    pub const NoProto: Error = Error::Fixed("NOPROTO unsupported protocol version");
    pub const ProtocolNotInteger: Error =
        Error::Fixed("ERR Protocol version is not an integer or out of range");
    pub const BadClientName: Error =
        Error::Fixed("ERR Client names cannot contain spaces, newlines or special characters.");
    pub const ExecAbort: Error =
        Error::Fixed("EXECABORT Transaction discarded because of previous errors.");
    pub const ExecWithoutMulti: Error = Error::Fixed("ERR EXEC without MULTI");
    pub const DiscardWithoutMulti: Error = Error::Fixed("ERR DISCARD without MULTI");
    pub const NestedMulti: Error = Error::Fixed("ERR MULTI calls can not be nested");
    pub const WatchInsideMulti: Error = Error::Fixed("ERR WATCH inside MULTI is not allowed");
    pub const NotInTransaction: Error =
        Error::Fixed("ERR Command not allowed inside a transaction");
    pub const NotForReplicas: Error = Error::Fixed("ERR Replica can't interact with the keyspace");
    pub const NoReplicas: Error = Error::Fixed("NOREPLICAS Not enough good replicas to write.");
    pub const Demoted: Error = Error::Fixed(
        "UNBLOCKED force unblock from blocking operation, instance state changed (master -> replica?)",
    );
    pub const CannotShutDown: Error = Error::Fixed("ERR Errors trying to SHUTDOWN. Check logs.");
    pub const ReadOnly: Error =
        Error::Fixed("READONLY You can't write against a read only replica.");
    pub const PrimaryDown: Error = Error::Fixed(
        "MASTERDOWN Link with MASTER is down and replica-serve-stale-data is set to 'no'.",
    );
    pub const Busy: Error = Error::Fixed(
        "BUSY Redis is busy running a script. You can only call SCRIPT KILL or SHUTDOWN NOSAVE.",
    );
    pub const SnapshotsFail: Error = Error::Fixed(
        "MISCONF Redis is configured to save RDB snapshots, but it's currently unable to persist to \
         disk. Commands that may modify the data set are disabled, because this instance is \
         configured to report errors during writes if RDB snapshotting fails \
         (stop-writes-on-bgsave-error option). Please check the Redis logs for details about the \
         RDB error.",
    );
    pub const NoScript: Error = Error::Fixed("NOSCRIPT No matching script. Please use EVAL.");
    pub const Loading: Error = Error::Fixed("LOADING Redis is loading the dataset in memory");
}

impl Error {
    /// The error of an unknown command, with as many of its arguments as fit.
    pub fn unknown_command<'a>(mut args: impl Iterator<Item = &'a [u8]>) -> Error {
        let name = printable(args.next().unwrap_or_default(), SHOWN);
        let begin = [b"ERR unknown command '", name, b"', with args beginning with: "].concat();
        let mut text = begin.clone();
        for arg in args {
            let used = text.len() - begin.len();
            if used >= SHOWN {
                break;
            }
            text.extend([b"'", printable(arg, SHOWN - used), b"' "].concat());
        }
        Error::Text(text)
    }

    /// The error of a container, such as CONFIG, for its second argument.
    pub fn subcommand(reason: &str, container: &str, subcommand: &[u8]) -> Error {
        let help = format!("'. Try {} HELP.", container.to_ascii_uppercase());
        Error::quoting(&format!("ERR {reason} '"), printable(subcommand, SHOWN), &help)
    }

    /// EXEC itself was refused, because of this error.
    pub fn exec_abort_because(cause: &Error) -> Error {
        let mut text = Vec::new();
        cause.write_to(&mut text);
        let text = text.strip_prefix(b"ERR ").unwrap_or(&text);
        Error::Text([b"EXECABORT Transaction discarded because of: ", text].concat())
    }

    /// The error of DEBUG and MODULE, which an option must allow.
    pub fn not_allowed(name: &str, option: &str) -> Error {
        Error::text(format!(
            "ERR {name} command not allowed. If the {option} option is set to \"local\", you can run it \
             from a local connection, otherwise you need to set this option in the configuration file, \
             and then restart the server."
        ))
    }

    pub fn misconf(cause: &str) -> Error {
        Error::text(format!("MISCONF Errors writing to the AOF file: {cause}"))
    }

    /// The error as text, for a script.
    pub fn to_text(&self) -> String {
        let mut text = Vec::new();
        self.write_to(&mut text);
        String::from_utf8_lossy(&text).into_owned()
    }

    /// An error that only one command has.
    pub fn text(text: impl Into<Vec<u8>>) -> Error {
        Error::Text(text.into())
    }

    /// The same with a client's argument in the middle.
    pub fn quoting(before: &str, arg: &[u8], after: &str) -> Error {
        Error::Text([before.as_bytes(), printable(arg, usize::MAX), after.as_bytes()].concat())
    }

    /// Appends the message, without the leading `-` and the line end.
    pub fn write_to(&self, out: &mut Vec<u8>) {
        // Writing to a `Vec` cannot fail.
        let _ = match self {
            Error::Fixed(text) => out.write_all(text.as_bytes()),
            Error::WrongArity(name) => {
                write!(out, "ERR wrong number of arguments for '{name}' command")
            }
            Error::InvalidExpire(name) => {
                write!(out, "ERR invalid expire time in '{name}' command")
            }
            Error::SubscribedOnly(name) => write!(
                out,
                "ERR Can't execute '{name}': only (P|S)SUBSCRIBE / (P|S)UNSUBSCRIBE / PING / QUIT / \
                 RESET are allowed in this context"
            ),
            Error::Text(text) => out.write_all(text),
        };
    }
}

/// How often each kind of error was told. The first word of an error's text is its kind. For INFO.
#[derive(Default)]
pub struct Tally(pub BTreeMap<Vec<u8>, u64>);

/// More kinds than this are not told apart: a client may make up its own.
const MOST_KINDS: usize = 128;

/// The kind of all others. (Redis 7.0 has no bound. This name is that of later versions.)
const OTHERS: &[u8] = b"ERRORSTATS_OVERFLOW";

/// A kind is shorter than this, in bytes.
const LONGEST_KIND: usize = 31;

impl Tally {
    /// Counts an error with this text.
    pub fn count(&mut self, text: &[u8]) {
        let begin = &text[..text.len().min(LONGEST_KIND)];
        let end = begin.iter().position(|byte| *byte == b' ');
        self.add(end.map_or(b"ERR", |end| &begin[..end]), 1);
    }

    fn add(&mut self, kind: &[u8], times: u64) {
        let is_known = self.0.len() < MOST_KINDS || self.0.contains_key(kind);
        *self.0.entry(if is_known { kind } else { OTHERS }.to_vec()).or_default() += times;
    }

    /// Adds what another has counted, and empties it.
    pub fn take_over(&mut self, other: &mut Tally) {
        if other.0.is_empty() {
            return;
        }
        for (kind, times) in std::mem::take(&mut other.0) {
            self.add(&kind, times);
        }
    }
}

/// How many bytes are shown of a name, and of all its arguments together.
const SHOWN: usize = 128;

/// At most `most` bytes of `arg`, up to its first NUL, as C prints a string.
fn printable(arg: &[u8], most: usize) -> &[u8] {
    let end = arg.iter().position(|&byte| byte == 0).unwrap_or(arg.len());
    &arg[..end.min(most)]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_kind_of_an_error_is_its_first_word_as_redis_finds_it() {
        let mut tally = Tally::default();
        let long = "X".repeat(30);
        let too_long = "X".repeat(31);
        for text in
            ["ERR a", "ERR", "WRONGTYPE b", "", &format!("{long} x"), &format!("{too_long} x")]
        {
            tally.count(text.as_bytes());
        }
        let counted: Vec<_> = tally.0.into_iter().collect();
        let expected = [("ERR", 4), (&*long, 1), ("WRONGTYPE", 1)];
        let mut expected: Vec<_> =
            expected.map(|(kind, times)| (kind.as_bytes().to_vec(), times)).into();
        expected.sort();
        assert_eq!(counted, expected);
    }

    #[test]
    fn there_are_never_more_than_so_many_kinds() {
        let (mut all, mut more) = (Tally::default(), Tally::default());
        for i in 0..1000 {
            all.count(format!("E{i} x").as_bytes());
            more.count(format!("F{i} x").as_bytes());
        }
        all.count(b"E5 x");
        all.take_over(&mut more);
        assert!(more.0.is_empty());
        assert_eq!(all.0.len(), MOST_KINDS + 1);
        assert_eq!(all.0[&b"E5"[..]], 2);
        assert_eq!(all.0.values().sum::<u64>(), 2001);
        assert_eq!(all.0[OTHERS], 2001 - MOST_KINDS as u64 - 1);
    }
}
