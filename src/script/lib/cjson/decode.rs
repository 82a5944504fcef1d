//! JSON as a value.
//!
//! ```text
//! {"a":[1,2]}        token             open
//!                    {  "a"  :         Object, which waits for the value of a
//!                    [                 Object, Array of 0
//!                    1  ,              Object, Array of 1
//!                    2                 Object, Array of 2
//!                    ]                 Object: the array is the value of a
//!                    }                 all is complete
//! ```
//!
//! Objects and arrays that are not finished lie in the vector `open`, the
//! innermost one last. When a value is complete, it goes into the innermost one. If a `}` or `]`
//! follows, that one is a complete value itself.
//!
//! A zero byte is the end of the text, because C says so.
//!
//! **How Redis does it**: `json_process_value` in lua_cjson.c, which calls itself for an object in an object.

use super::{Setting, Settings};
use crate::script::lib::Call;
use crate::script::number;
use crate::script::value::{Error, StringId, TableId, Value};

struct Decoder<'a> {
    json: &'a [u8],
    /// What is read next.
    at: usize,
    /// The last token, and where it stands, or what is wrong in it.
    token: Token,
    begin: usize,
    settings: Settings,
    open: Vec<Open>,
    /// How many slots of its stack Lua would use for what is open. It has 8,000.
    slots: usize,
    /// The string that is being read. It keeps its memory.
    text: Vec<u8>,
}

/// An object that waits for the value of a key, or an array with that many elements.
enum Open {
    Object { table: TableId, key: StringId },
    Array { table: TableId, length: u32 },
}

#[derive(Clone, Copy, PartialEq)]
enum Token {
    ObjectBegin,
    ObjectEnd,
    ArrayBegin,
    ArrayEnd,
    String(StringId),
    Number(f64),
    Boolean(bool),
    Null,
    Colon,
    Comma,
    End,
    Fault(&'static str),
}

/// Reads a text that is one value.
pub fn decode(call: &mut Call, json: &[u8], settings: Settings) -> Result<Value, Error> {
    if json.len() >= 2 && json[..2].contains(&0) {
        return Err(call.error("JSON parser does not support UTF-16 or UTF-32"));
    }
    let (open, text, token) = (Vec::new(), Vec::new(), Token::End);
    let mut decoder = Decoder { json, at: 0, token, begin: 0, settings, open, slots: 0, text };
    let value = decoder.value(call)?;
    decoder.read(call)?;
    match decoder.token {
        Token::End => Ok(value),
        _ => Err(decoder.unexpected(call, "the end")),
    }
}

impl Decoder<'_> {
    fn value(&mut self, call: &mut Call) -> Result<Value, Error> {
        self.read(call)?;
        loop {
            call.tick()?;
            let value = match self.token {
                Token::String(string) => Value::String(string),
                Token::Number(number) => Value::Number(number),
                Token::Boolean(is) => Value::Boolean(is),
                Token::Null => Value::Null,
                Token::ObjectBegin => {
                    let table = self.table(call, 3)?;
                    if self.token != Token::ObjectEnd {
                        let key = self.key(call)?;
                        self.open.push(Open::Object { table, key });
                        self.slots += 2;
                        continue;
                    }
                    Value::Table(table)
                }
                Token::ArrayBegin => {
                    let table = self.table(call, 2)?;
                    if self.token != Token::ArrayEnd {
                        self.open.push(Open::Array { table, length: 0 });
                        self.slots += 1;
                        continue;
                    }
                    Value::Table(table)
                }
                _ => return Err(self.unexpected(call, "value")),
            };
            if let Some(value) = self.complete(call, value)? {
                return Ok(value);
            }
        }
    }

    /// Makes a table, if there may be one level more, and reads what follows the bracket.
    fn table(&mut self, call: &mut Call, slots: usize) -> Result<TableId, Error> {
        let depth = self.open.len() + 1;
        if depth > self.settings[Setting::DecodeDepth as usize] as usize
            || !call.has_room_on_stack(self.slots + slots)
        {
            return Err(call.error(format!(
                "Found too many nested data structures ({depth}) at character {}",
                self.at
            )));
        }
        let table = call.machine.heap.table(0, 0)?;
        self.read(call)?;
        Ok(table)
    }

    /// The last token is to be a key. Reads up to the value behind it.
    fn key(&mut self, call: &mut Call) -> Result<StringId, Error> {
        let Token::String(key) = self.token else {
            return Err(self.unexpected(call, "object key string"));
        };
        self.read(call)?;
        if self.token != Token::Colon {
            return Err(self.unexpected(call, "colon"));
        }
        self.read(call)?;
        Ok(key)
    }

    /// Puts a value where it belongs. If that completes the value of the whole text, gives that
    /// one. If not, the last token is the one with which the next value begins.
    fn complete(&mut self, call: &mut Call, value: Value) -> Result<Option<Value>, Error> {
        let mut value = value;
        while let Some(open) = self.open.pop() {
            let (table, end, slots, expected) = match open {
                Open::Object { table, key } => {
                    call.set(table, Value::String(key), value)?;
                    (table, Token::ObjectEnd, 2, "comma or object end")
                }
                Open::Array { table, length } => {
                    call.set(table, Value::Number((length + 1).into()), value)?;
                    (table, Token::ArrayEnd, 1, "comma or array end")
                }
            };
            self.read(call)?;
            if self.token == Token::Comma {
                self.read(call)?;
                let open = match open {
                    Open::Object { table, .. } => Open::Object { table, key: self.key(call)? },
                    Open::Array { table, length } => Open::Array { table, length: length + 1 },
                };
                self.open.push(open);
                return Ok(None);
            }
            if self.token != end {
                return Err(self.unexpected(call, expected));
            }
            self.slots -= slots;
            value = Value::Table(table);
        }
        Ok(Some(value))
    }

    fn unexpected(&self, call: &mut Call, expected: &str) -> Error {
        let found = match self.token {
            Token::ObjectBegin => "T_OBJ_BEGIN",
            Token::ObjectEnd => "T_OBJ_END",
            Token::ArrayBegin => "T_ARR_BEGIN",
            Token::ArrayEnd => "T_ARR_END",
            Token::String(_) => "T_STRING",
            Token::Number(_) => "T_NUMBER",
            Token::Boolean(_) => "T_BOOLEAN",
            Token::Null => "T_NULL",
            Token::Colon => "T_COLON",
            Token::Comma => "T_COMMA",
            Token::End => "T_END",
            Token::Fault(fault) => fault,
        };
        let at = self.begin + 1;
        call.error(format!("Expected {expected} but found {found} at character {at}"))
    }

    // Tokens.

    /// A byte that is not read yet, or zero behind the end.
    fn byte(&self, ahead: usize) -> u8 {
        self.json.get(self.at + ahead).copied().unwrap_or(0)
    }

    /// Reads the next token.
    fn read(&mut self, call: &mut Call) -> Result<(), Error> {
        while matches!(self.byte(0), b' ' | b'\t' | b'\n' | b'\r') {
            self.at += 1;
        }
        self.begin = self.at;
        let mark = match self.byte(0) {
            b'{' => Token::ObjectBegin,
            b'}' => Token::ObjectEnd,
            b'[' => Token::ArrayBegin,
            b']' => Token::ArrayEnd,
            b':' => Token::Colon,
            b',' => Token::Comma,
            other => {
                self.token = match other {
                    b'"' => self.string(call)?,
                    0 => Token::End,
                    _ => self.word(),
                };
                return Ok(());
            }
        };
        self.at += 1;
        self.token = mark;
        Ok(())
    }

    /// A number, `true`, `false` or `null`.
    fn word(&mut self) -> Token {
        let rest = &self.json[self.at..];
        let allows_invalid = self.settings[Setting::DecodeInvalid as usize] != 0;
        let token = match rest {
            [b'-' | b'0'..=b'9', ..] => {
                return match allows_invalid || !is_invalid(rest) {
                    true => self.number(),
                    false => Token::Fault("invalid number"),
                };
            }
            [b't', b'r', b'u', b'e', ..] => Token::Boolean(true),
            [b'f', b'a', b'l', b's', b'e', ..] => Token::Boolean(false),
            [b'n', b'u', b'l', b'l', ..] => Token::Null,
            _ if allows_invalid && is_invalid(rest) => return self.number(),
            _ => return Token::Fault("invalid token"),
        };
        self.at += if matches!(token, Token::Boolean(false)) { 5 } else { 4 };
        token
    }

    fn number(&mut self) -> Token {
        let Some((number, length)) = number::at_start(&self.json[self.at..]) else {
            return Token::Fault("invalid number");
        };
        self.at += length;
        Token::Number(number)
    }

    fn string(&mut self, call: &mut Call) -> Result<Token, Error> {
        self.at += 1;
        self.text.clear();
        loop {
            let rest = &self.json[self.at..];
            let ends = |byte: &u8| matches!(byte, b'"' | b'\\' | 0);
            let plain = &rest[..rest.iter().position(ends).unwrap_or(rest.len())];
            self.text.extend_from_slice(plain);
            self.at += plain.len();
            let result = match self.byte(0) {
                b'"' => {
                    self.at += 1;
                    return Ok(Token::String(call.machine.heap.string(&self.text)?));
                }
                b'\\' => self.escape(),
                _ => Err("unexpected end of string"),
            };
            if let Err(fault) = result {
                self.begin = self.at;
                return Ok(Token::Fault(fault));
            }
        }
    }

    /// What `\` and the bytes behind it mean.
    fn escape(&mut self) -> Result<(), &'static str> {
        let byte = match self.byte(1) {
            byte @ (b'"' | b'\\' | b'/') => byte,
            b'b' => 8,
            b't' => b'\t',
            b'n' => b'\n',
            b'f' => 12,
            b'r' => b'\r',
            b'u' => {
                let (character, length) = self.character().ok_or("invalid unicode escape code")?;
                let mut bytes = [0; 4];
                self.text.extend_from_slice(character.encode_utf8(&mut bytes).as_bytes());
                self.at += length;
                return Ok(());
            }
            _ => return Err("invalid escape code"),
        };
        self.text.push(byte);
        self.at += 2;
        Ok(())
    }

    /// The character of `\u` and four hexadecimal digits, or of two of these that are a surrogate
    /// pair, and how long that is.
    fn character(&self) -> Option<(char, usize)> {
        let unit = self.hexadecimal(2)?;
        if let Some(character) = char::from_u32(unit) {
            return Some((character, 6));
        }
        if self.byte(6) != b'\\' || self.byte(7) != b'u' {
            return None;
        }
        let units = [unit as u16, self.hexadecimal(8)? as u16];
        let character = char::decode_utf16(units).next()?.ok()?;
        Some((character, 12))
    }

    /// Four hexadecimal digits.
    fn hexadecimal(&self, ahead: usize) -> Option<u32> {
        (0..4).try_fold(0, |number, index| {
            let digit = char::from(self.byte(ahead + index)).to_digit(16)?;
            Some(number << 4 | digit)
        })
    }
}

/// Whether a text begins with a number that C knows and JSON does not. It may also be no number at
/// all.
fn is_invalid(text: &[u8]) -> bool {
    let (rest, begins) = match text {
        [b'+', ..] => return true,
        [b'-', rest @ ..] => (rest, rest.get(..3).unwrap_or_default()),
        _ => (text, text.get(..3).unwrap_or_default()),
    };
    match rest {
        [b'0', next, ..] => matches!(next, b'x' | b'X' | b'0'..=b'9'),
        _ => begins.eq_ignore_ascii_case(b"inf") || begins.eq_ignore_ascii_case(b"nan"),
    }
}
