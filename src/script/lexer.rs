//! Cuts a source into tokens.
//!
//! ```text
//! while x ~= "a" do
//!
//! While, Name(x), NotEqual, String(a), Do
//! ```
//!
//! Names and strings are in the [heap](super::heap) from here on, so later nobody compares their bytes. The
//! compiler sees one token, and in one place also the next one.
//!
//! The buffer keeps the text of the last token that was read, because error messages quote it:
//! `user_script:1: '=' expected near 'y'`.
//!
//! A source may be half a gigabyte. So the lexer and the [compiler](super::compiler) count their work, as the
//! machine does, and the lexer asks between two tokens whether to go on.
//!
//! **How Redis does it**: the same, byte by byte, with the same messages.

use super::code;
use super::heap::{BUDGET, Heap};
use super::number;
use super::value::{Error, StringId, Value};

#[derive(Clone, Copy, PartialEq, Debug)]
pub enum Token {
    And,
    Break,
    Do,
    Else,
    ElseIf,
    End,
    False,
    For,
    Function,
    If,
    In,
    Local,
    Nil,
    Not,
    Or,
    Repeat,
    Return,
    Then,
    True,
    Until,
    While,
    Concat,
    Dots,
    Equal,
    GreaterOrEqual,
    LessOrEqual,
    NotEqual,
    Number(f64),
    Name(StringId),
    String(StringId),
    EndOfSource,
    /// All other tokens are one character.
    Char(u8),
}

/// Words that cannot be names, and signs of several characters.
const WORDS: [(&str, Token); 21] = [
    ("and", Token::And),
    ("break", Token::Break),
    ("do", Token::Do),
    ("else", Token::Else),
    ("elseif", Token::ElseIf),
    ("end", Token::End),
    ("false", Token::False),
    ("for", Token::For),
    ("function", Token::Function),
    ("if", Token::If),
    ("in", Token::In),
    ("local", Token::Local),
    ("nil", Token::Nil),
    ("not", Token::Not),
    ("or", Token::Or),
    ("repeat", Token::Repeat),
    ("return", Token::Return),
    ("then", Token::Then),
    ("true", Token::True),
    ("until", Token::Until),
    ("while", Token::While),
];

const SIGNS: [(&str, Token); 6] = [
    ("..", Token::Concat),
    ("...", Token::Dots),
    ("==", Token::Equal),
    (">=", Token::GreaterOrEqual),
    ("<=", Token::LessOrEqual),
    ("~=", Token::NotEqual),
];

/// Is asked now and then whether to go on. The error says why not.
pub type Ask<'a> = dyn FnMut() -> Result<(), String> + 'a;

pub struct Lexer<'a> {
    source: &'a [u8],
    at: usize,
    pub name: &'a [u8],
    pub heap: &'a mut Heap,
    /// The text of the token that was read last.
    buffer: Vec<u8>,
    pub token: Token,
    /// The token behind it, if somebody has asked for it.
    ahead: Option<Token>,
    pub line: u32,
    /// The line of the token before `token`.
    pub last_line: u32,
    ask: &'a mut Ask<'a>,
}

impl<'a> Lexer<'a> {
    pub fn new(
        heap: &'a mut Heap,
        source: &'a [u8],
        name: &'a [u8],
        ask: &'a mut Ask<'a>,
    ) -> Lexer<'a> {
        Lexer {
            source,
            at: 0,
            name,
            heap,
            buffer: Vec::new(),
            token: Token::EndOfSource,
            ahead: None,
            line: 1,
            last_line: 1,
            ask,
        }
    }

    /// Goes on to the next token.
    pub fn advance(&mut self) -> Result<(), Error> {
        self.last_line = self.line;
        self.token = match self.ahead.take() {
            Some(token) => token,
            None => self.read()?,
        };
        Ok(())
    }

    /// Asks whether to go on, if much was done, and whether there is memory for it.
    fn ask_if_due(&mut self) -> Result<(), Error> {
        if self.heap.budget > 1 {
            return Ok(());
        }
        self.heap.budget = BUDGET;
        self.heap.check_room(0)?;
        (self.ask)().map_err(|reason| Error(Value::String(self.heap.add_string(reason.as_bytes()))))
    }

    /// The token behind the present one.
    pub fn look_ahead(&mut self) -> Result<Token, Error> {
        let token = self.read()?;
        self.ahead = Some(token);
        Ok(token)
    }

    /// An error at the present token.
    pub fn unexpected(&mut self, message: &str) -> Error {
        self.error(message, Some(self.token))
    }

    pub fn error(&mut self, message: &str, near: Option<Token>) -> Error {
        let name = code::source_name(self.name, 80);
        let mut text = [&name[..], format!(":{}: {message}", self.line).as_bytes()].concat();
        // A zero byte is nothing to C.
        if let Some(token) = near.filter(|token| *token != Token::Char(0)) {
            text.extend_from_slice(b" near '");
            text.extend_from_slice(&self.text(token));
            text.push(b'\'');
        }
        Error(Value::String(self.heap.add_string(&text)))
    }

    /// A token as messages show it.
    pub fn text(&self, token: Token) -> Vec<u8> {
        match token {
            Token::Name(_) | Token::String(_) | Token::Number(_) => {
                number::c_string(&self.buffer).to_vec()
            }
            Token::EndOfSource => b"<eof>".to_vec(),
            Token::Char(byte) if byte.is_ascii_control() => format!("char({byte})").into_bytes(),
            Token::Char(byte) => vec![byte],
            _ => {
                let mut all = WORDS.iter().chain(&SIGNS);
                let found = all.find(|(_, other)| *other == token);
                found.map_or(Vec::new(), |(text, _)| text.as_bytes().to_vec())
            }
        }
    }

    fn read(&mut self) -> Result<Token, Error> {
        let begin = self.at;
        let token = self.read_token()?;
        self.heap.charge(1 + (self.at - begin) / 16);
        self.ask_if_due()?;
        Ok(token)
    }

    fn read_token(&mut self) -> Result<Token, Error> {
        self.buffer.clear();
        while let Some(byte) = self.peek() {
            match byte {
                b'\n' | b'\r' => self.skip_line_end(),
                b' ' | b'\t' | 11 | 12 => self.at += 1,
                b'-' => {
                    self.at += 1;
                    if self.peek() != Some(b'-') {
                        return Ok(Token::Char(b'-'));
                    }
                    self.at += 1;
                    self.skip_comment()?;
                }
                b'[' => return self.open_bracket(),
                b'=' | b'<' | b'>' | b'~' => {
                    self.at += 1;
                    if self.peek() != Some(b'=') {
                        return Ok(Token::Char(byte));
                    }
                    self.at += 1;
                    let sign = [byte, b'='];
                    let found = SIGNS.iter().find(|(text, _)| text.as_bytes() == sign);
                    return Ok(found.map_or(Token::Equal, |(_, token)| *token));
                }
                b'"' | b'\'' => return self.string(byte),
                b'.' => {
                    self.save();
                    if self.peek().is_some_and(|next| next.is_ascii_digit()) {
                        return self.number();
                    }
                    while self.buffer.len() < 3 && matches!(self.peek(), Some(b'.' | 0)) {
                        self.save();
                    }
                    let dots = [Token::Char(b'.'), Token::Concat, Token::Dots];
                    return Ok(dots[self.buffer.len() - 1]);
                }
                b'0'..=b'9' => return self.number(),
                b'a'..=b'z' | b'A'..=b'Z' | b'_' => return Ok(self.name()),
                _ => {
                    self.at += 1;
                    return Ok(Token::Char(byte));
                }
            }
        }
        Ok(Token::EndOfSource)
    }

    /// `[`, or a long string.
    fn open_bracket(&mut self) -> Result<Token, Error> {
        match self.bracket() {
            Some(level) => self.long_string(level, true),
            None if self.buffer.len() == 1 => Ok(Token::Char(b'[')),
            None => Err(self.error("invalid long string delimiter", Some(self.quoted()))),
        }
    }

    fn peek(&self) -> Option<u8> {
        self.source.get(self.at).copied()
    }

    /// Takes a byte into the buffer.
    fn save(&mut self) {
        self.buffer.push(self.source[self.at]);
        self.at += 1;
    }

    /// A token whose text is the buffer, for messages.
    fn quoted(&self) -> Token {
        Token::Number(0.0)
    }

    /// A line end may have two bytes, in either order.
    fn skip_line_end(&mut self) {
        let first = self.source[self.at];
        self.at += 1;
        if let Some(second @ (b'\n' | b'\r')) = self.peek()
            && second != first
        {
            self.at += 1;
        }
        self.line += 1;
    }

    /// Behind `--`.
    fn skip_comment(&mut self) -> Result<(), Error> {
        if self.peek() == Some(b'[') {
            let level = self.bracket();
            self.buffer.clear();
            if let Some(level) = level {
                self.long_string(level, false)?;
                self.buffer.clear();
                return Ok(());
            }
        }
        while !matches!(self.peek(), None | Some(b'\n' | b'\r')) {
            self.at += 1;
        }
        Ok(())
    }

    /// Takes `[` or `]`, what follows of `=`, and says how many these are, if the same bracket
    /// follows. That one is left.
    fn bracket(&mut self) -> Option<usize> {
        let bracket = self.source[self.at];
        let before = self.buffer.len();
        self.save();
        while self.peek() == Some(b'=') {
            self.save();
        }
        (self.peek() == Some(bracket)).then(|| self.buffer.len() - before - 1)
    }

    /// From the second bracket on. A comment is read in the same way and `keep` is false.
    fn long_string(&mut self, level: usize, keep: bool) -> Result<Token, Error> {
        self.save();
        if matches!(self.peek(), Some(b'\n' | b'\r')) {
            self.skip_line_end();
        }
        loop {
            match self.peek() {
                None => {
                    let what = if keep { "string" } else { "comment" };
                    let message = format!("unfinished long {what}");
                    return Err(self.error(&message, Some(Token::EndOfSource)));
                }
                Some(b']') => {
                    if self.bracket() == Some(level) {
                        self.save();
                        break;
                    }
                }
                Some(b'\n' | b'\r') => {
                    self.skip_line_end();
                    self.buffer.push(b'\n');
                }
                Some(_) => self.save(),
            }
            if !keep {
                self.buffer.clear();
            }
        }
        if !keep {
            return Ok(Token::EndOfSource);
        }
        let inner = &self.buffer[level + 2..self.buffer.len() - level - 2];
        Ok(Token::String(self.heap.string(inner)?))
    }

    fn string(&mut self, quote: u8) -> Result<Token, Error> {
        self.save();
        loop {
            match self.peek() {
                None => return Err(self.error("unfinished string", Some(Token::EndOfSource))),
                Some(b'\n' | b'\r') => {
                    return Err(self.error("unfinished string", Some(self.quoted())));
                }
                Some(b'\\') => self.escape()?,
                Some(byte) => {
                    self.save();
                    if byte == quote {
                        let inner = &self.buffer[1..self.buffer.len() - 1];
                        return Ok(Token::String(self.heap.string(inner)?));
                    }
                }
            }
        }
    }

    fn escape(&mut self) -> Result<(), Error> {
        self.at += 1;
        let byte = match self.peek() {
            None => return Ok(()),
            Some(b'\n' | b'\r') => {
                self.buffer.push(b'\n');
                self.skip_line_end();
                return Ok(());
            }
            Some(b'0'..=b'9') => {
                let mut code = 0u32;
                for _ in 0..3 {
                    let Some(digit @ b'0'..=b'9') = self.peek() else { break };
                    code = code * 10 + u32::from(digit - b'0');
                    self.at += 1;
                }
                let Ok(byte) = u8::try_from(code) else {
                    return Err(self.error("escape sequence too large", Some(self.quoted())));
                };
                self.buffer.push(byte);
                return Ok(());
            }
            Some(b'a') => 7,
            Some(b'b') => 8,
            Some(b'f') => 12,
            Some(b'n') => b'\n',
            Some(b'r') => b'\r',
            Some(b't') => b'\t',
            Some(b'v') => 11,
            Some(other) => other,
        };
        self.at += 1;
        self.buffer.push(byte);
        Ok(())
    }

    /// A zero byte stands for any byte that Lua looks for here and behind a point, because C's `strchr` finds it in
    /// every string.
    fn number(&mut self) -> Result<Token, Error> {
        while matches!(self.peek(), Some(b'0'..=b'9' | b'.')) {
            self.save();
        }
        if matches!(self.peek(), Some(b'e' | b'E' | 0)) {
            self.save();
            if matches!(self.peek(), Some(b'+' | b'-' | 0)) {
                self.save();
            }
        }
        while self.peek().is_some_and(|byte| byte.is_ascii_alphanumeric() || byte == b'_') {
            self.save();
        }
        match number::from_text(&self.buffer) {
            Some(number) => Ok(Token::Number(number)),
            None => Err(self.error("malformed number", Some(self.quoted()))),
        }
    }

    fn name(&mut self) -> Token {
        while self.peek().is_some_and(|byte| byte.is_ascii_alphanumeric() || byte == b'_') {
            self.save();
        }
        let word = WORDS.iter().find(|(word, _)| word.as_bytes() == self.buffer);
        match word {
            Some((_, token)) => *token,
            None => Token::Name(self.heap.add_string(&self.buffer)),
        }
    }
}
