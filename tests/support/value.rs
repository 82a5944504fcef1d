//! Replies, read from the wire (RESP2 and RESP3) and printed as redis-cli prints them.
//!
//! `Value` keeps what the wire says, so a test can tell a null array from a null bulk and a push
//! from an array; `Display` shows what a person at redis-cli would see, where both look the same.
//! The layout follows `cliFormatReplyTTY` of redis-cli 7.0: a nested array starts on its parent's
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

#[derive(Clone, Debug, PartialEq)]
pub enum Value {
    Simple(Vec<u8>),
    Error(Vec<u8>),
    Integer(i64),
    Bulk(Vec<u8>),
    /// `$-1` in RESP2, `_` in RESP3.
    Nil,
    /// `*-1`, which only RESP2 has.
    NilArray,
    Array(Vec<Value>),
    Push(Vec<Value>),
    Set(Vec<Value>),
    Map(Vec<(Value, Value)>),
    /// The digits as sent: how a double is written is part of the answer.
    Double(String),
    BigNumber(String),
    Boolean(bool),
    /// The text without its `txt:` mark.
    Verbatim(Vec<u8>),
}

impl Value {
    pub fn bulk(text: impl AsRef<[u8]>) -> Value {
        Value::Bulk(text.as_ref().to_vec())
    }

    /// Reads one value. The bytes it was made of are appended to `raw`, which doubles as the
    /// buffer for lines, so that a test can also look at the wire.
    pub fn read(reader: &mut impl BufRead, raw: &mut Vec<u8>) -> io::Result<Value> {
        let line = read_line(reader, raw)?;
        let (kind, rest) = line
            .split_at_checked(1)
            .ok_or_else(|| bad("an empty line"))?;
        Ok(match kind {
            "+" => Value::Simple(rest.into()),
            "-" => Value::Error(rest.into()),
            ":" => Value::Integer(number(rest)?),
            "," => Value::Double(rest.into()),
            "(" => Value::BigNumber(rest.into()),
            "#" => Value::Boolean(rest == "t"),
            "_" => Value::Nil,
            "$" if rest == "-1" => Value::Nil,
            "*" if rest == "-1" => Value::NilArray,
            "$" => Value::Bulk(read_bulk(reader, raw, number(rest)?)?),
            "=" => {
                let text = read_bulk(reader, raw, number(rest)?)?;
                Value::Verbatim(text.get(4..).ok_or_else(|| bad("no format mark"))?.to_vec())
            }
            "*" => Value::Array(read_many(reader, raw, number(rest)?)?),
            ">" => Value::Push(read_many(reader, raw, number(rest)?)?),
            "~" => Value::Set(read_many(reader, raw, number(rest)?)?),
            "%" => {
                let mut pairs = Vec::new();
                for _ in 0..number(rest)? {
                    let key = Value::read(reader, raw)?;
                    pairs.push((key, Value::read(reader, raw)?));
                }
                Value::Map(pairs)
            }
            _ => return Err(bad(&format!("a reply that starts with {line:?}"))),
        })
    }

    /// The same value with its unordered parts in order: the elements of the array itself, the
    /// pairs of a map, or, in a SCAN reply, the list behind the cursor.
    pub fn sorted(mut self) -> Value {
        match &mut self {
            Value::Array(items) => match &mut items[..] {
                [Value::Bulk(_), Value::Array(scanned)] => scanned.sort_by_key(Value::to_string),
                _ => items.sort_by_key(Value::to_string),
            },
            Value::Set(items) => items.sort_by_key(Value::to_string),
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
            Value::Nil | Value::NilArray => out.push_str("(nil)"),
            Value::Double(digits) => out.push_str(&format!("(double) {digits}")),
            Value::BigNumber(digits) => out.push_str(digits),
            Value::Boolean(true) => out.push_str("(true)"),
            Value::Boolean(false) => out.push_str("(false)"),
            Value::Verbatim(text) => out.push_str(&String::from_utf8_lossy(text)),
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

fn print_items(out: &mut String, indent: &str, name: &str, mark: char, items: &[Value]) {
    print_list(out, indent, name, mark, items.len(), |out, inner, n| {
        items[n].print(out, inner)
    });
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

fn read_line(reader: &mut impl BufRead, raw: &mut Vec<u8>) -> io::Result<String> {
    let start = raw.len();
    reader.read_until(b'\n', raw)?;
    let line = raw[start..]
        .strip_suffix(b"\r\n")
        .ok_or(io::ErrorKind::UnexpectedEof)?;
    Ok(String::from_utf8_lossy(line).into_owned())
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

fn number<T: std::str::FromStr>(digits: &str) -> io::Result<T> {
    digits
        .parse()
        .map_err(|_| bad(&format!("{digits:?} where a number should be")))
}

fn bad(what: &str) -> io::Error {
    io::Error::new(
        io::ErrorKind::InvalidData,
        format!("the server sent {what}"),
    )
}
