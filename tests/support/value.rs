//! Replies, read from the wire (RESP2 and RESP3) and printed as redis-cli prints them.
//!
//! `Value` keeps everything that was sent: the type, the digits of a double, which of RESP's three
//! nils it was. So two equal values are two equal strings of bytes. The reader therefore refuses
//! what no server writes (`$+3`, `:01`), or two servers could differ and still compare equal.
//!
//! `Debug` shows what the wire says (`*[:1, $"a", $-1]`), and `Display` what a person at redis-cli
//! would see, where an array and a push look the same. The layout follows `cliFormatReplyTTY` of redis-cli 7.0: a nested array starts on its parent's
//! line, its later elements are indented by the width of the parent's numbers.
//!
//! ```text
//! *2\r\n$1\r\na\r\n*2\r\n:1\r\n$-1\r\n      1) "a"
//!                                           2) 1) (integer) 1
//!                                              2) (nil)
//! ```

use super::quote::quoted;
use std::fmt;
use std::io::{self, BufRead, Read};

#[derive(Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Value {
    Simple(Vec<u8>),
    Error(Vec<u8>),
    Integer(i64),
    Bulk(Vec<u8>),
    /// `$-1`, which only RESP2 has.
    Nil,
    /// `*-1`, which only RESP2 has.
    NilArray,
    /// `_`, which only RESP3 has.
    Null,
    Array(Vec<Value>),
    Push(Vec<Value>),
    Set(Vec<Value>),
    Map(Vec<(Value, Value)>),
    /// The digits as sent: how a double is written is part of the answer.
    Double(Vec<u8>),
    BigNumber(Vec<u8>),
    Boolean(bool),
    /// The text with its mark, `txt:`, which redis-cli does not print.
    Verbatim(Vec<u8>),
}

impl Value {
    pub fn bulk(text: impl AsRef<[u8]>) -> Value {
        Value::Bulk(text.as_ref().to_vec())
    }

    /// Reads one value. The bytes it was made of are appended to `raw`, which doubles as the
    /// buffer for lines, so that a test can also look at the wire.
    ///
    /// # Errors
    /// `InvalidData` for what is not a reply, `UnexpectedEof` for half of one, and whatever the
    /// reader says.
    pub fn read(reader: &mut impl BufRead, raw: &mut Vec<u8>) -> io::Result<Value> {
        let line = read_line(reader, raw)?;
        let (kind, rest) = line.split_first().ok_or_else(|| bad("an empty line"))?;
        Ok(match (kind, rest) {
            (b'+', _) => Value::Simple(rest.into()),
            (b'-', _) => Value::Error(rest.into()),
            (b':', _) => Value::Integer(number(rest).ok_or_else(|| strange(&line))?),
            (b',', _) => Value::Double(rest.into()),
            (b'(', _) => Value::BigNumber(rest.into()),
            (b'#', b"t" | b"f") => Value::Boolean(rest == b"t"),
            (b'_', b"") => Value::Null,
            (b'$', b"-1") => Value::Nil,
            (b'*', b"-1") => Value::NilArray,
            (b'$', _) => Value::Bulk(read_bulk(reader, raw, length(&line)?)?),
            (b'=', _) => {
                let text = read_bulk(reader, raw, length(&line)?)?;
                let is_marked = text.get(3) == Some(&b':');
                Value::Verbatim(is_marked.then_some(text).ok_or_else(|| bad("no format mark"))?)
            }
            (b'*', _) => Value::Array(read_many(reader, raw, length(&line)?)?),
            (b'>', _) => Value::Push(read_many(reader, raw, length(&line)?)?),
            (b'~', _) => Value::Set(read_many(reader, raw, length(&line)?)?),
            (b'%', _) => {
                let mut pairs = Vec::new();
                for _ in 0..length(&line)? {
                    let key = Value::read(reader, raw)?;
                    pairs.push((key, Value::read(reader, raw)?));
                }
                Value::Map(pairs)
            }
            _ => return Err(strange(&line)),
        })
    }

    /// The elements of an aggregate, a map's keys and values in turn; of anything else, none.
    pub fn items(&self) -> Vec<&Value> {
        match self {
            Value::Array(items) | Value::Push(items) | Value::Set(items) => items.iter().collect(),
            Value::Map(pairs) => pairs.iter().flat_map(|(a, b)| [a, b]).collect(),
            _ => Vec::new(),
        }
    }

    /// The bytes of a text, whatever kind of text it is; of anything else, none.
    pub fn text(&self) -> &[u8] {
        match self {
            Value::Simple(text) | Value::Error(text) | Value::Bulk(text) => text,
            Value::Double(text) | Value::BigNumber(text) | Value::Verbatim(text) => text,
            _ => b"",
        }
    }

    pub fn is_error(&self) -> bool {
        matches!(self, Value::Error(_))
    }

    /// The same value with its elements in order; of a SCAN reply, those of the list behind the cursor.
    ///
    /// # Panics
    /// On a map, whose elements are pairs ([`Value::pairs`]).
    pub fn sorted(self) -> Value {
        assert!(!matches!(self, Value::Map(_)), "a map has pairs, so say `pairs` and not `sorted`");
        self.sorted_by(1)
    }

    /// The same of a value whose elements are pairs: a map, or in RESP2 a list of keys and values in turn.
    ///
    /// # Panics
    /// If one of a pair is missing.
    pub fn pairs(self) -> Value {
        self.sorted_by(2)
    }

    fn sorted_by(mut self, width: usize) -> Value {
        match &mut self {
            Value::Array(items) | Value::Set(items) => {
                let items = match &mut items[..] {
                    [Value::Bulk(_), Value::Array(scanned)] => scanned,
                    _ => items,
                };
                assert_eq!(items.len() % width, 0, "one of a pair is missing");
                let mut groups: Vec<&[Value]> = items.chunks(width).collect();
                groups.sort_by_key(|group| group.iter().map(Value::to_string).collect::<Vec<_>>());
                *items = groups.concat();
            }
            Value::Map(pairs) => pairs.sort_by_key(|(key, _)| key.to_string()),
            _ => {}
        }
        self
    }

    fn print(&self, out: &mut String, indent: &str) {
        match self {
            Value::Simple(text) => out.push_str(&String::from_utf8_lossy(text)),
            Value::Error(text) => {
                out.push_str("(error) ");
                out.push_str(&String::from_utf8_lossy(text));
            }
            Value::Integer(n) => out.push_str(&format!("(integer) {n}")),
            Value::Bulk(text) => out.push_str(&quoted(text)),
            Value::Nil | Value::NilArray | Value::Null => out.push_str("(nil)"),
            Value::Double(digits) => {
                out.push_str("(double) ");
                out.push_str(&String::from_utf8_lossy(digits));
            }
            Value::BigNumber(digits) => out.push_str(&String::from_utf8_lossy(digits)),
            Value::Boolean(true) => out.push_str("(true)"),
            Value::Boolean(false) => out.push_str("(false)"),
            Value::Verbatim(text) => out.push_str(&String::from_utf8_lossy(&text[4..])),
            Value::Array(items) => print_items(out, indent, "array", ')', items),
            Value::Push(items) => print_items(out, indent, "push", ')', items),
            Value::Set(items) => print_items(out, indent, "set", '~', items),
            Value::Map(pairs) => {
                print_list(out, indent, "hash", '#', pairs.len(), |out, inner, n| {
                    let (key, value) = &pairs[n];
                    key.print(out, inner);
                    out.push_str(" => ");
                    if value.takes_lines() {
                        out.push('\n');
                        out.push_str(inner);
                    }
                    value.print(out, inner);
                });
            }
        }
    }

    /// Whether redis-cli starts this value of a map on a line of its own.
    fn takes_lines(&self) -> bool {
        match self {
            Value::Array(items) | Value::Push(items) | Value::Set(items) => match &items[..] {
                [only] => only.takes_lines(),
                items => items.len() > 1,
            },
            Value::Map(pairs) => match &pairs[..] {
                [(_, only)] => only.takes_lines(),
                pairs => pairs.len() > 1,
            },
            _ => false,
        }
    }
}

/// As redis-cli prints it, without the last line break.
impl fmt::Display for Value {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut out = String::new();
        self.print(&mut out, "");
        f.write_str(&out)
    }
}

/// As it was sent, in one line.
impl fmt::Debug for Value {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let text = self.text().escape_ascii();
        match self {
            Value::Simple(_) => write!(f, "+{text}"),
            Value::Error(_) => write!(f, "-{text}"),
            Value::Integer(n) => write!(f, ":{n}"),
            Value::Bulk(_) => write!(f, "$\"{text}\""),
            Value::Nil => write!(f, "$-1"),
            Value::NilArray => write!(f, "*-1"),
            Value::Null => write!(f, "_"),
            Value::Double(_) => write!(f, ",{text}"),
            Value::BigNumber(_) => write!(f, "({text}"),
            Value::Boolean(yes) => write!(f, "#{}", if *yes { 't' } else { 'f' }),
            Value::Verbatim(_) => write!(f, "=\"{text}\""),
            Value::Array(items) => write!(f, "*{items:?}"),
            Value::Push(items) => write!(f, ">{items:?}"),
            Value::Set(items) => write!(f, "~{items:?}"),
            Value::Map(_) => write!(f, "%{:?}", self.items()),
        }
    }
}

fn print_items(out: &mut String, indent: &str, name: &str, mark: char, items: &[Value]) {
    print_list(out, indent, name, mark, items.len(), |out, inner, n| items[n].print(out, inner));
}

/// Numbers `length` elements, right-aligned, and lets `element` print each of them.
fn print_list(
    out: &mut String,
    indent: &str,
    name: &str,
    mark: char,
    length: usize,
    element: impl Fn(&mut String, &str, usize),
) {
    if length == 0 {
        out.push_str(&format!("(empty {name})"));
        return;
    }
    let width = length.to_string().len();
    let inner = format!("{indent}{:1$}", "", width + 2);
    for n in 0..length {
        if n > 0 {
            out.push('\n');
            out.push_str(indent);
        }
        out.push_str(&format!("{:width$}{mark} ", n + 1));
        element(out, &inner, n);
    }
}

fn read_line(reader: &mut impl BufRead, raw: &mut Vec<u8>) -> io::Result<Vec<u8>> {
    let start = raw.len();
    reader.read_until(b'\n', raw)?;
    match &raw[start..] {
        [line @ .., b'\r', b'\n'] => Ok(line.to_vec()),
        [.., b'\n'] => Err(bad("a line that ends without CR")),
        _ => Err(io::ErrorKind::UnexpectedEof.into()),
    }
}

fn read_bulk(reader: &mut impl BufRead, raw: &mut Vec<u8>, length: usize) -> io::Result<Vec<u8>> {
    let start = raw.len();
    reader.take(length as u64 + 2).read_to_end(raw)?;
    match raw[start..].strip_suffix(b"\r\n") {
        Some(text) if text.len() == length => Ok(text.to_vec()),
        Some(_) => Err(io::ErrorKind::UnexpectedEof.into()),
        None if raw.len() - start < length + 2 => Err(io::ErrorKind::UnexpectedEof.into()),
        None => Err(bad("a bulk that does not end where its length says")),
    }
}

fn read_many(reader: &mut impl BufRead, raw: &mut Vec<u8>, count: usize) -> io::Result<Vec<Value>> {
    (0..count).map(|_| Value::read(reader, raw)).collect()
}

/// An integer written the one way servers write it; `+5`, `05` and `-0` are none.
pub fn number(text: &[u8]) -> Option<i64> {
    let number: i64 = std::str::from_utf8(text).ok()?.parse().ok()?;
    (number.to_string().as_bytes() == text).then_some(number)
}

/// The length on a line such as `$3`.
fn length(line: &[u8]) -> io::Result<usize> {
    let length = number(&line[1..]).and_then(|number| usize::try_from(number).ok());
    length.ok_or_else(|| strange(line))
}

fn strange(line: &[u8]) -> io::Error {
    bad(&format!("what is no reply: {}", line.escape_ascii()))
}

fn bad(what: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, format!("the server sent {what}"))
}
