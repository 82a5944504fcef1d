//! The errors that are replies to a client, in Redis's exact words.
//!
//! After such an error the connection goes on. An error that ends the connection is a
//! [`crate::resp::Error`]. An error that ends the start of the server is one line on stderr.
//!
//! ```text
//! -WRONGTYPE Operation against a key …      the first word is for programs, the rest for people
//! ```
//!
//! **How Redis does it**: `shared.*err` in server.c, and texts at the place of use. Here one enum has the
//! errors of data, connections and transactions, so that a reader sees in one place what can go wrong. An
//! error of only one option or subcommand stands where it occurs ([`Error::text`]).

use std::fmt::Arguments;
use std::io::Write;

/// An error message, named for what is wrong. Its fields are what the message quotes.
#[derive(Debug, Clone, PartialEq)]
pub enum Error {
    /// The name and the arguments.
    UnknownCommand(Vec<Vec<u8>>),
    /// `command` is the container in upper case.
    UnknownSubcommand {
        command: String,
        subcommand: Vec<u8>,
    },
    /// The same for a command that checks its subcommands and their arity itself.
    SubcommandSyntax {
        command: String,
        subcommand: Vec<u8>,
    },
    /// The command's full name, `get` or `config|get`.
    WrongArity(&'static str),
    Syntax,
    WrongType,
    NotInteger,
    /// It does not fit into a C `int`.
    OutsideOfInt,
    NotPositive,
    NotFloat,
    HashValueNotInteger,
    HashValueNotFloat,
    Overflow,
    DecrementOverflow,
    NanOrInfinity,
    IncrementNanOrInfinity,
    NoSuchKey,
    SameObject,
    InvalidExpire(&'static str),
    DbIndexOutOfRange,
    FirstDbIndex,
    SecondDbIndex,
    InvalidCursor,
    OffsetOutOfRange,
    StringTooLong,
    ValueOutOfRange,
    NxAndOthers,
    GtAndLt,
    NoAuth,
    WrongPassword,
    NoPasswordSet,
    HelloNotAuthenticated,
    NoProto,
    ProtocolNotInteger,
    BadClientName,
    ExecAbort,
    ExecAbortBecause(Box<Error>),
    ExecWithoutMulti,
    DiscardWithoutMulti,
    NestedMulti,
    WatchInsideMulti,
    NotInTransaction,
    NotForMonitors,
    SubscribedOnly(&'static str),
    DebugNotAllowed,
    Misconf(String),
    Loading,
    /// The text of an error that only one command has, with its leading `ERR`.
    Text(Vec<u8>),
}

impl Error {
    /// Keeps only what is shown, because the arguments may be many and large.
    pub fn unknown_command<'a>(args: impl Iterator<Item = &'a [u8]>) -> Error {
        let shown = args.map(|arg| arg[..arg.len().min(SHOWN)].to_vec());
        Error::UnknownCommand(shown.take(1 + SHOWN).collect())
    }

    /// An error that only one command has.
    pub fn text(text: impl Into<Vec<u8>>) -> Error {
        Error::Text(text.into())
    }

    /// The same with a client's argument in the middle.
    pub fn quoting(before: &str, arg: &[u8], after: &str) -> Error {
        Error::Text([before.as_bytes(), printable(arg, usize::MAX), after.as_bytes()].concat())
    }

    /// Appends the message, without the leading `-` and the line end. It is bytes and not a `String`
    /// because it may quote any bytes of a client. Long because each message has an arm.
    pub fn write_to(&self, out: &mut Vec<u8>) {
        // Writing to a `Vec` cannot fail.
        let mut write = |text: Arguments| drop(out.write_fmt(text));
        let text = match self {
            Error::UnknownCommand(args) => return write_unknown_command(args, out),
            Error::UnknownSubcommand { command, subcommand } => {
                out.extend_from_slice(b"ERR unknown subcommand '");
                out.extend_from_slice(printable(subcommand, SHOWN));
                return drop(write!(out, "'. Try {command} HELP."));
            }
            Error::SubcommandSyntax { command, subcommand } => {
                let text = b"ERR unknown subcommand or wrong number of arguments for '";
                out.extend_from_slice(text);
                out.extend_from_slice(printable(subcommand, SHOWN));
                return drop(write!(out, "'. Try {command} HELP."));
            }
            Error::WrongArity(name) => {
                return write(format_args!("ERR wrong number of arguments for '{name}' command"));
            }
            Error::InvalidExpire(name) => {
                return write(format_args!("ERR invalid expire time in '{name}' command"));
            }
            Error::SubscribedOnly(name) => {
                return write(format_args!(
                    "ERR Can't execute '{name}': only (P|S)SUBSCRIBE / (P|S)UNSUBSCRIBE / PING / \
                     QUIT / RESET are allowed in this context"
                ));
            }
            Error::Misconf(cause) => {
                return write(format_args!("MISCONF Errors writing to the AOF file: {cause}"));
            }
            Error::ExecAbortBecause(cause) => {
                out.extend_from_slice(b"EXECABORT Transaction discarded because of: ");
                let mut text = Vec::new();
                cause.write_to(&mut text);
                out.extend_from_slice(text.strip_prefix(b"ERR ").unwrap_or(&text));
                return;
            }
            Error::Text(text) => return out.extend_from_slice(text),
            Error::Syntax => "ERR syntax error",
            Error::WrongType => "WRONGTYPE Operation against a key holding the wrong kind of value",
            Error::NotInteger => "ERR value is not an integer or out of range",
            Error::OutsideOfInt => {
                "ERR value is out of range, value must between -2147483648 and 2147483647"
            }
            Error::NotPositive => "ERR value is out of range, must be positive",
            Error::NotFloat => "ERR value is not a valid float",
            Error::HashValueNotInteger => "ERR hash value is not an integer",
            Error::HashValueNotFloat => "ERR hash value is not a float",
            Error::Overflow => "ERR increment or decrement would overflow",
            Error::DecrementOverflow => "ERR decrement would overflow",
            Error::NanOrInfinity => "ERR increment would produce NaN or Infinity",
            Error::IncrementNanOrInfinity => "ERR value is NaN or Infinity",
            Error::NoSuchKey => "ERR no such key",
            Error::SameObject => "ERR source and destination objects are the same",
            Error::DbIndexOutOfRange => "ERR DB index is out of range",
            Error::FirstDbIndex => "ERR invalid first DB index",
            Error::SecondDbIndex => "ERR invalid second DB index",
            Error::InvalidCursor => "ERR invalid cursor",
            Error::OffsetOutOfRange => "ERR offset is out of range",
            Error::StringTooLong => "ERR string exceeds maximum allowed size (proto-max-bulk-len)",
            Error::ValueOutOfRange => "ERR value is out of range",
            Error::NxAndOthers => {
                "ERR NX and XX, GT or LT options at the same time are not compatible"
            }
            Error::GtAndLt => "ERR GT and LT options at the same time are not compatible",
            Error::NoAuth => "NOAUTH Authentication required.",
            Error::WrongPassword => "WRONGPASS invalid username-password pair or user is disabled.",
            Error::NoPasswordSet => {
                "ERR AUTH <password> called without any password configured for the default \
                 user. Are you sure your configuration is correct?"
            }
            Error::HelloNotAuthenticated => {
                "NOAUTH HELLO must be called with the client already authenticated, otherwise \
                 the HELLO AUTH <user> <pass> option can be used to authenticate the \
                 client and select the RESP protocol version at the same time"
            }
            Error::NoProto => "NOPROTO unsupported protocol version",
            Error::ProtocolNotInteger => "ERR Protocol version is not an integer or out of range",
            Error::BadClientName => {
                "ERR Client names cannot contain spaces, newlines or special characters."
            }
            Error::ExecAbort => "EXECABORT Transaction discarded because of previous errors.",
            Error::ExecWithoutMulti => "ERR EXEC without MULTI",
            Error::DiscardWithoutMulti => "ERR DISCARD without MULTI",
            Error::NestedMulti => "ERR MULTI calls can not be nested",
            Error::WatchInsideMulti => "ERR WATCH inside MULTI is not allowed",
            Error::NotInTransaction => "ERR Command not allowed inside a transaction",
            Error::NotForMonitors => "ERR Replica can't interact with the keyspace",
            Error::DebugNotAllowed => {
                "ERR DEBUG command not allowed. If the enable-debug-command option is set to \
                 \"local\", you can run it from a local connection, otherwise you need to set \
                 this option in the configuration file, and then restart the server."
            }
            Error::Loading => "LOADING Redis is loading the dataset in memory",
        };
        out.extend_from_slice(text.as_bytes());
    }
}

/// How many bytes are shown of a name, and of all its arguments together.
const SHOWN: usize = 128;

/// The name, and as many arguments as fit.
fn write_unknown_command(args: &[Vec<u8>], out: &mut Vec<u8>) {
    out.extend_from_slice(b"ERR unknown command '");
    out.extend_from_slice(printable(&args[0], SHOWN));
    out.extend_from_slice(b"', with args beginning with: ");
    let start = out.len();
    for arg in &args[1..] {
        let used = out.len() - start;
        if used >= SHOWN {
            break;
        }
        out.push(b'\'');
        out.extend_from_slice(printable(arg, SHOWN - used));
        out.extend_from_slice(b"' ");
    }
}

/// At most `most` bytes of `arg`, up to its first NUL, as C prints a string.
fn printable(arg: &[u8], most: usize) -> &[u8] {
    let end = arg.iter().position(|&byte| byte == 0).unwrap_or(arg.len());
    &arg[..end.min(most)]
}
