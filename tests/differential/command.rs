//! The wire as the fuzzer sees it: commands out, replies in, nothing lost on the way.
//!
//! A [`Frame`] keeps everything that was sent (the type byte, the text of a number as it was
//! written, which of RESP's three nils it was), so two equal frames are two equal strings of
//! bytes. The parser refuses what no server writes (`$+3`, `:01`), or two servers could differ
//! and still compare equal.

use std::fmt;
use std::io::{self, BufRead, BufReader, Write};
use std::net::{Shutdown, TcpStream};
use std::time::Duration;

/// A server that needs longer than this for one reply hangs.
const PATIENCE: Duration = Duration::from_secs(10);

/// One reply. `kind` is RESP's type byte, except that the nils `$-1`, `*-1` and `_` are all of
/// kind `_`, with the line they were sent as in `text`.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Frame {
    pub kind: u8,
    /// The payload of a scalar; empty for an aggregate.
    pub text: Vec<u8>,
    /// The elements of an aggregate; a map has its keys and values in turn.
    pub items: Vec<Frame>,
}

impl Frame {
    pub fn scalar(kind: u8, text: &[u8]) -> Frame {
        Frame {
            kind,
            text: text.to_vec(),
            items: Vec::new(),
        }
    }

    pub fn is_error(&self) -> bool {
        self.kind == b'-'
    }

    pub fn is_nil(&self) -> bool {
        self.kind == b'_'
    }

    pub fn integer(&self) -> Option<i64> {
        (self.kind == b':').then(|| number(&self.text)).flatten()
    }

    /// Reads one reply.
    ///
    /// # Errors
    /// `InvalidData` for what is not a reply, and whatever the stream says.
    pub fn read(reader: &mut impl BufRead) -> io::Result<Frame> {
        let line = line(reader)?;
        let Some((&kind, text)) = line.split_first() else {
            return Err(invalid("an empty line in place of a reply"));
        };
        match kind {
            b'+' | b'-' | b':' | b',' | b'#' | b'(' => Ok(Frame::scalar(kind, text)),
            b'_' => Ok(Frame::scalar(b'_', text)),
            b'$' | b'*' if text == b"-1" => Ok(Frame::scalar(b'_', &line)),
            b'$' | b'=' | b'!' => {
                let mut payload = vec![0; length(text)? + 2];
                reader.read_exact(&mut payload)?;
                if !payload.ends_with(b"\r\n") {
                    return Err(invalid("a bulk string longer than it said"));
                }
                payload.truncate(payload.len() - 2);
                Ok(Frame {
                    kind,
                    text: payload,
                    items: Vec::new(),
                })
            }
            b'*' | b'~' | b'>' | b'%' => {
                let count = length(text)? * if kind == b'%' { 2 } else { 1 };
                let items = (0..count)
                    .map(|_| Frame::read(reader))
                    .collect::<io::Result<_>>()?;
                Ok(Frame {
                    kind,
                    text: Vec::new(),
                    items,
                })
            }
            _ => Err(invalid(&format!("not a reply: {}", line.escape_ascii()))),
        }
    }
}

impl fmt::Display for Frame {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        let kind = self.kind as char;
        match self.kind {
            b'*' | b'~' | b'>' | b'%' => {
                write!(f, "{kind}[")?;
                for (index, item) in self.items.iter().enumerate() {
                    write!(f, "{}{item}", if index > 0 { ", " } else { "" })?;
                }
                write!(f, "]")
            }
            b'$' | b'=' | b'!' => write!(f, "{kind}\"{}\"", self.text.escape_ascii()),
            _ => write!(f, "{kind}{}", self.text.escape_ascii()),
        }
    }
}

/// An integer written the one way servers write it; `+5`, `05` and `-0` are none.
pub fn number(text: &[u8]) -> Option<i64> {
    let number: i64 = std::str::from_utf8(text).ok()?.parse().ok()?;
    (number.to_string().as_bytes() == text).then_some(number)
}

fn length(text: &[u8]) -> io::Result<usize> {
    number(text)
        .and_then(|n| usize::try_from(n).ok())
        .ok_or_else(|| invalid(&format!("not a length: {}", text.escape_ascii())))
}

fn line(reader: &mut impl BufRead) -> io::Result<Vec<u8>> {
    let mut line = Vec::new();
    reader.read_until(b'\n', &mut line)?;
    if line.is_empty() {
        return Err(io::ErrorKind::UnexpectedEof.into());
    }
    if !line.ends_with(b"\r\n") {
        return Err(invalid(&format!(
            "a line without CRLF: {}",
            line.escape_ascii()
        )));
    }
    line.truncate(line.len() - 2);
    Ok(line)
}

fn invalid(what: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, what)
}

/// One command as it goes out: an array of bulk strings, or, like a person at telnet, a line.
#[derive(Clone)]
pub struct Command {
    /// Empty for a blank line, which servers skip without a reply.
    pub args: Vec<Vec<u8>>,
    pub inline: bool,
}

impl Command {
    pub fn new(args: &[&str]) -> Command {
        let args = args.iter().map(|arg| arg.as_bytes().to_vec()).collect();
        Command {
            args,
            inline: false,
        }
    }

    /// The name in capitals, for looking at; what is sent stays as it was typed.
    pub fn name(&self) -> String {
        self.args.first().map_or(String::new(), |name| upper(name))
    }

    pub fn encode(&self) -> Vec<u8> {
        if self.inline || self.args.is_empty() {
            return format!("{self}\r\n").into_bytes();
        }
        let mut bytes = format!("*{}\r\n", self.args.len()).into_bytes();
        for arg in &self.args {
            bytes.extend(format!("${}\r\n", arg.len()).bytes());
            bytes.extend_from_slice(arg);
            bytes.extend(b"\r\n");
        }
        bytes
    }
}

/// What redis-cli would take, and what an inline command is: quotes where they are needed.
impl fmt::Display for Command {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        for (index, arg) in self.args.iter().enumerate() {
            let gap = if index > 0 { " " } else { "" };
            let plain = |byte: &u8| byte.is_ascii_alphanumeric() || b"*-+._?:".contains(byte);
            if !arg.is_empty() && arg.iter().all(plain) {
                write!(f, "{gap}{}", arg.escape_ascii())?;
                continue;
            }
            write!(f, "{gap}\"")?;
            for &byte in arg {
                match byte {
                    b'"' | b'\\' => write!(f, "\\{}", byte as char)?,
                    b' '..=b'~' => write!(f, "{}", byte as char)?,
                    _ => write!(f, "\\x{byte:02x}")?,
                }
            }
            write!(f, "\"")?;
        }
        Ok(())
    }
}

pub fn upper(text: &[u8]) -> String {
    text.to_ascii_uppercase().escape_ascii().to_string()
}

pub struct Connection(BufReader<TcpStream>);

impl Connection {
    pub fn open(address: &str) -> io::Result<Connection> {
        let stream = TcpStream::connect(address)?;
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(PATIENCE))?;
        stream.set_write_timeout(Some(PATIENCE))?;
        Ok(Connection(BufReader::new(stream)))
    }

    /// Each call is a packet, or would be on an idle line.
    pub fn send(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.0.get_mut().write_all(bytes)
    }

    pub fn read(&mut self) -> io::Result<Frame> {
        Frame::read(&mut self.0).map_err(|error| match error.kind() {
            io::ErrorKind::WouldBlock => io::Error::other(format!("no reply within {PATIENCE:?}")),
            io::ErrorKind::UnexpectedEof => io::Error::other("the connection was closed"),
            _ => error,
        })
    }

    /// Says that nothing more will be sent, and reads all replies that still come.
    pub fn read_to_end(mut self) -> io::Result<Vec<Frame>> {
        self.0.get_ref().shutdown(Shutdown::Write)?;
        let mut frames = Vec::new();
        while !self.0.fill_buf()?.is_empty() {
            frames.push(self.read()?);
        }
        Ok(frames)
    }

    pub fn ask(&mut self, args: &[&[u8]]) -> io::Result<Frame> {
        Ok(self
            .ask_all(&[args.iter().map(|arg| arg.to_vec()).collect()])?
            .remove(0))
    }

    /// Sends all the commands before it reads the first reply.
    pub fn ask_all(&mut self, commands: &[Vec<Vec<u8>>]) -> io::Result<Vec<Frame>> {
        let encode = |args: &Vec<Vec<u8>>| {
            Command {
                args: args.clone(),
                inline: false,
            }
            .encode()
        };
        self.send(&commands.iter().flat_map(encode).collect::<Vec<_>>())?;
        commands.iter().map(|_| self.read()).collect()
    }
}
