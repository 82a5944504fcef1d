//! The wire, which is also the log format: commands in, replies out. This file knows no command.
//!
//! A client sends an array of bulk strings. Each has its length in front, so a value may hold any
//! byte. A reply starts with its type:
//!
//! ```text
//! *3\r\n            three arguments                +OK\r\n         a status
//! $3\r\nSET\r\n     of three bytes                 :1\r\n          an integer
//! $1\r\nk\r\n       of one                         $5\r\nvalue\r\n a bulk string
//! $5\r\nvalue\r\n   of five                        $-1\r\n or _\r\n  nil, in RESP2 or RESP3
//! ```
//!
//! A line that does not start with `*` is an *inline command*: arguments between spaces, with quotes
//! as in a shell. That is what a person types into telnet.
//!
//! **One parser, three readers.** [`read_command`] reads from anything that is a [`BufRead`]:
//!
//! - the socket. It blocks until the command is whole.
//! - the log file. That is a replay.
//! - the bytes that lie in the socket's buffer. A slice is a `BufRead` too, and at its end the parser
//!   fails with [`Error::Cut`] instead of waiting. So the same parser finds out whether the next
//!   command has arrived whole, and no second function has to know what "whole" means.
//!
//! **No allocation per argument.** The arguments of a command lie in one buffer, which the next
//! command uses again ([`Args`]). Only an argument over 16 KiB has an allocation of its own, so that the
//! store can share it. A client may announce a length and never send the bytes. So at most a megabyte is
//! allocated when a length is announced, and the rest as the bytes arrive. (Spare memory is lent whole: blob.rs.)
//!
//! **The plain way** (resp/plain.rs) is a shortcut for the commands that nearly every client sends. It adds no rules.
//!
//! **How Redis does it**: networking.c, `processMultibulkBuffer` and `processInlineBuffer`. Its
//! parser can stop at any byte and resume, because one thread serves all clients. Ours may block,
//! because this thread serves one. Texts and limits are the same. Like Redis we do not look at the
//! two bytes after a bulk string. Protocol: <https://redis.io/docs/reference/protocol-spec/>.

mod args;
mod double;
mod integer;
mod plain;
pub mod reply;
pub mod words;

use crate::blob::Blob;
use args::Place;
pub use args::{Arg, Args};
pub use double::{parse_bound, parse_double, parse_weight, print_double, print_in_listpack};
pub use integer::{Digits, parse_integer};
pub use reply::{Protocol, Reply};
use std::io::{self, BufRead, Read};
pub use words::split_words;

/// An argument longer than this many bytes has an allocation of its own.
pub const LARGE: usize = 16 * 1024;

/// No argument and no string is longer than this many bytes, whatever the configuration and the log
/// say, because the length of a key, or of a field's name and value together (types/hash.rs), is kept in 32 bits.
pub const LONGEST: usize = i32::MAX as usize - 15;

/// A header line, or an inline command, longer than this many bytes is an attack or a mistake.
const MAX_LINE: usize = 64 * 1024;

/// What ends the reading of commands.
#[derive(Debug)]
pub enum Error {
    /// The bytes are not a command: answered with `ERR Protocol error: …`, then closed.
    Protocol(Vec<u8>),
    /// The input ended inside a command.
    Cut,
    /// The connection or the file failed.
    Io(io::Error),
}

impl From<io::Error> for Error {
    /// `read_exact` reports the end of the input as `UnexpectedEof`: to us a cut like any other.
    fn from(error: io::Error) -> Error {
        match error.kind() {
            io::ErrorKind::UnexpectedEof => Error::Cut,
            _ => Error::Io(error),
        }
    }
}

/// What may be sent. For a client this depends on the configuration, and on whether the client has given the
/// password.
#[derive(Clone, Copy)]
pub struct Allowed {
    /// Longest argument, in bytes (`proto-max-bulk-len`).
    pub bulk: usize,
    /// Most bytes of arguments in one command (`client-query-buffer-limit`).
    pub command: usize,
    /// Whether the client has yet to give the password. Until then it may send 10 arguments of 16 KiB.
    pub unauthenticated: bool,
    /// Whether the line end after an argument is looked at. On the wire it is not, as in Redis. In
    /// the log it shows where a file is damaged.
    pub strict: bool,
}

/// What the log may hold. Arguments have any length, because the limits may once have been higher. Each byte
/// around them is as we write it.
pub const LOG: Allowed =
    Allowed { bulk: usize::MAX, command: usize::MAX, unauthenticated: false, strict: true };

/// Reads the next command into `args`. `Ok(false)` if the peer left between two commands,
/// [`Error::Cut`] if it left inside one. Empty lines, `*0` and `*-1` are no commands.
#[inline]
pub fn read_command(
    reader: &mut impl BufRead,
    args: &mut Args,
    allowed: Allowed,
) -> Result<bool, Error> {
    args.clear();
    // A plain command is shorter than 1 MiB, and no limit can be set lower. Only those of an unauthenticated
    // client are lower.
    if !allowed.unauthenticated
        && let Some(length) = plain::take(reader.fill_buf()?, args)
    {
        reader.consume(length);
        return Ok(true);
    }
    read_any(reader, args, allowed)
}

// Not inlined, because what it needs on the stack would be prepared for each plain command too.
#[inline(never)]
fn read_any(reader: &mut impl BufRead, args: &mut Args, allowed: Allowed) -> Result<bool, Error> {
    loop {
        args.clear();
        match reader.fill_buf()?.first() {
            None => return Ok(false),
            Some(b'*') => read_array(reader, args, allowed)?,
            Some(_) => read_inline(reader, args)?,
        }
        if args.len() > 0 {
            return Ok(true);
        }
    }
}

fn read_array(reader: &mut impl BufRead, args: &mut Args, allowed: Allowed) -> Result<(), Error> {
    let (_, count) = read_header(reader, allowed, "too big mbulk count string")?;
    let count = match count {
        Some(count) if count <= i64::from(i32::MAX) && (count > 0 || !allowed.strict) => count,
        _ => return protocol("invalid multibulk length"),
    };
    if count > 10 && allowed.unauthenticated {
        return protocol("unauthenticated multibulk length");
    }
    let mut total: usize = 0;
    for _ in 0..count {
        let (kind, length) = read_header(reader, allowed, "too big bulk count string")?;
        if kind != b'$' {
            return protocol([b"expected '$', got '", &[kind][..], b"'"].concat());
        }
        let length = match length.and_then(|length| usize::try_from(length).ok()) {
            Some(length) if length <= allowed.bulk.min(LONGEST) => length,
            Some(length) if length > LONGEST && allowed.strict => {
                let most = format!("a word is longer than {LONGEST} bytes, the most there is here");
                return protocol(most);
            }
            _ => return protocol("invalid bulk length"),
        };
        if length > LARGE && allowed.unauthenticated {
            return protocol("unauthenticated bulk length");
        }
        // An empty argument costs us more memory than the client has sent bytes, hence the 32.
        total = length.saturating_add(total + 32);
        if total > allowed.command {
            return Err(Error::Io(io::Error::other("client-query-buffer-limit reached")));
        }
        read_bulk(reader, args, length)?;
        // The list that says where each argument lies has grown. It counts as the client's memory too.
        args.count_places();
        let end = two_bytes(reader)?;
        if allowed.strict && end != *b"\r\n" {
            return protocol("expected a line end behind the word");
        }
    }
    Ok(())
}

/// Reads a line such as `*3\r\n` or `$5\r\n`. Returns its first byte, and its number if it has one. As in
/// Redis, a client's line ends at `\r`, whatever the byte after it is.
fn read_header(
    reader: &mut impl BufRead,
    allowed: Allowed,
    too_long: &str,
) -> Result<(u8, Option<i64>), Error> {
    let line = read_line(reader, b'\r', too_long)?;
    if one_byte(reader)? != b'\n' && allowed.strict {
        return protocol("expected a line end behind the number");
    }
    match &line[..] {
        [kind, number @ ..] => Ok((*kind, parse_integer(number))),
        // An empty line. Redis's error quotes its first byte, which is its end.
        [] => Ok((b'\r', None)),
    }
}

/// Reads up to the byte `end`, and returns what is before it. Redis looks for the end with C's `strchr`, which
/// stops at a zero byte. So after a zero byte Redis finds no end: it reads until the line is too long, or the
/// input is over.
fn read_line(reader: &mut impl BufRead, end: u8, too_long: &str) -> Result<Vec<u8>, Error> {
    let mut line = Vec::new();
    let mut rest = reader.take(MAX_LINE as u64 + 1);
    rest.read_until(end, &mut line)?;
    let has_zero = line.contains(&0);
    if has_zero {
        rest.read_to_end(&mut line)?;
    }
    if line.len() > MAX_LINE {
        return protocol(too_long);
    }
    if has_zero || line.pop() != Some(end) {
        return Err(Error::Cut);
    }
    Ok(line)
}

/// Reads `length` bytes as the next argument.
fn read_bulk(reader: &mut impl BufRead, args: &mut Args, length: usize) -> Result<(), Error> {
    if length > LARGE {
        args.push_large(Blob::read(reader, length)?);
        return Ok(());
    }
    let start = args.bytes.len();
    let end = start + length;
    while args.bytes.len() < end {
        let buffer = reader.fill_buf()?;
        if buffer.is_empty() {
            return Err(Error::Cut);
        }
        let count = buffer.len().min(end - args.bytes.len());
        args.bytes.extend_from_slice(&buffer[..count]);
        reader.consume(count);
    }
    args.places.push(Place::small(start, length));
    Ok(())
}

fn two_bytes(reader: &mut impl BufRead) -> Result<[u8; 2], Error> {
    if let Some(&bytes) = reader.fill_buf()?.first_chunk() {
        reader.consume(2);
        return Ok(bytes);
    }
    Ok([one_byte(reader)?, one_byte(reader)?])
}

fn one_byte(reader: &mut impl BufRead) -> Result<u8, Error> {
    let byte = *reader.fill_buf()?.first().ok_or(Error::Cut)?;
    reader.consume(1);
    Ok(byte)
}

fn read_inline(reader: &mut impl BufRead, args: &mut Args) -> Result<(), Error> {
    let mut line = read_line(reader, b'\n', "too big inline request")?;
    if line.last() == Some(&b'\r') {
        line.pop();
    }
    match split_words(&line) {
        Some(words) => words.iter().for_each(|word| args.push(word)),
        None => return protocol("unbalanced quotes in request"),
    }
    Ok(())
}

fn protocol<T>(text: impl Into<Vec<u8>>) -> Result<T, Error> {
    Err(Error::Protocol(text.into()))
}

/// Appends a command as it stands on the wire and in the log.
pub fn write_command<'a>(out: &mut Vec<u8>, args: impl ExactSizeIterator<Item = &'a [u8]>) {
    write_header(out, b'*', args.len() as i64);
    for arg in args {
        write_bulk(out, arg);
    }
}

fn write_header(out: &mut Vec<u8>, kind: u8, number: i64) {
    let digit = |digit: i64| b'0' + digit as u8;
    match number {
        // Nearly all numbers are small, and then the line is written in one piece. A GET in a pipeline
        // takes a thirtieth fewer instructions for that.
        0..=9 => out.extend_from_slice(&[kind, digit(number), b'\r', b'\n']),
        10..=99 => {
            let (tens, ones) = (digit(number / 10), digit(number % 10));
            out.extend_from_slice(&[kind, tens, ones, b'\r', b'\n']);
        }
        _ => out.extend_from_slice(Digits::new(number).line(kind)),
    }
}

fn write_bulk(out: &mut Vec<u8>, bytes: &[u8]) {
    write_header(out, b'$', bytes.len() as i64);
    out.extend_from_slice(bytes);
    out.extend_from_slice(b"\r\n");
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::types::table::random_below;
    use std::io::BufReader;

    const WIRE: Allowed = Allowed { strict: false, ..LOG };

    /// What a reader gives for a command: its words, if there is one, or what is wrong.
    fn outcome(reader: &mut impl BufRead, allowed: Allowed) -> String {
        let mut args = Args::default();
        let read = read_command(reader, &mut args, allowed);
        let words: Vec<Vec<u8>> = args.iter().map(<[u8]>::to_vec).collect();
        match read {
            Ok(more) => format!("{more} {words:?}"),
            Err(error) => format!("{error:?}"),
        }
    }

    /// A reader with a buffer of one byte never has a whole command to be taken the plain way.
    #[test]
    fn the_plain_way_and_the_long_way_give_the_same() {
        let long = [&b"$1000\r\n"[..], &[b'x'; 1000], b"\r\n"].concat();
        let pieces: [&[u8]; 20] = [
            &long,
            b"$1000\r\n",
            b"$01000\r\n",
            b"*1\r\n",
            b"*2\r\n",
            b"*3\r\n",
            b"*0\r\n",
            b"*-1\r\n",
            b"*03\r\n",
            b"$3\r\n",
            b"$1\r\n",
            b"$12\r\n",
            b"$0\r\n",
            b"$03\r\n",
            b"$3\rx",
            b"SET\r\n",
            b"k\r\n",
            b"twelve bytes\r\n",
            b"\r\n",
            b"x",
        ];
        let mut plain = 0;
        for round in 0..200_000 {
            let allowed = [WIRE, LOG][round % 2];
            // Half of the time mostly what belongs together.
            let mut bytes = match round % 4 {
                0 | 1 => Vec::new(),
                _ => b"*2\r\n$3\r\nSET\r\n$1\r\nk\r\n".to_vec(),
            };
            for _ in 0..random_below(6) {
                bytes.extend_from_slice(pieces[random_below(pieces.len())]);
            }
            let mut whole = &bytes[..];
            let mut each = BufReader::with_capacity(1, &bytes[..]);
            loop {
                plain += usize::from(plain::take(whole, &mut Args::default()).is_some());
                let found = outcome(&mut whole, allowed);
                let shown = bytes.escape_ascii();
                assert_eq!(found, outcome(&mut each, allowed), "in {shown}");
                if !found.starts_with("true") {
                    break;
                }
                let left = each.get_ref().len() + each.buffer().len();
                assert_eq!(whole.len(), left, "bytes left of {shown}");
            }
        }
        assert!(plain > 100_000, "{plain}");
    }

    #[test]
    fn a_command_that_came_the_plain_way_is_logged_as_it_came() {
        for (sent, is_plain) in [
            (&b"*2\r\n$3\r\nGET\r\n$1\r\nk\r\n"[..], true),
            (b"*1\r\n$0\r\n\r\n", true),
            (b"*2\r\n$3\r\nGET\r\n$1\r\nk??", false),
            (b"GET k\r\n", false),
        ] {
            let mut args = Args::default();
            assert!(matches!(read_command(&mut &sent[..], &mut args, WIRE), Ok(true)));
            assert_eq!(args.as_sent().is_some(), is_plain);
            let mut written = Vec::new();
            write_command(&mut written, args.iter());
            assert_eq!(args.as_sent().unwrap_or(&written), written);
            // It is the same in the queue of a transaction.
            assert_eq!(args.to_owned().as_sent(), args.as_sent());
            args.push(b"more");
            assert_eq!(args.as_sent(), None);
        }
    }

    #[test]
    fn the_log_must_be_what_we_would_have_written_and_the_wire_need_not() {
        for sent in ["*1\r\n$1\r?k\r\n", "*1\r?$1\r\nk\r\n", "*1\r\n$1\r\nk??", "*0\r\n"] {
            let refuses = |allowed| outcome(&mut sent.as_bytes(), allowed).starts_with("Protocol");
            assert!(refuses(LOG) && !refuses(WIRE), "{sent}");
        }
    }

    /// Its length would be cut to 32 bits where it is a key.
    #[test]
    fn no_word_is_longer_than_there_is_room_for_its_length() {
        let endless = Allowed { bulk: usize::MAX, command: usize::MAX, ..WIRE };
        for (length, is_refused) in [(LONGEST, false), (LONGEST + 1, true), (1 << 32, true)] {
            let sent = format!("*2\r\n$3\r\nGET\r\n${length}\r\nk");
            let found = outcome(&mut sent.as_bytes(), endless);
            assert_eq!(found.starts_with("Protocol"), is_refused, "{length}: {found}");
            let found = outcome(&mut sent.as_bytes(), LOG);
            assert_eq!(found.starts_with("Protocol"), is_refused, "{length}: {found}");
        }
    }
}
