//! Words and their quotes, as redis-cli reads and prints them (`sdssplitargs`, `sdscatrepr`).
//!
//! ```text
//! SET key "two words\x00\n" 'it\'s'        four words
//! ```
//! Inside double quotes `\xHH \n \r \t \b \a` are bytes and any other escaped character is itself;
//! inside single quotes only `\'` is special. A closing quote must be followed by a space.

/// Splits a line into words, or says nothing if its quotes are unbalanced.
pub fn split(line: &str) -> Option<Vec<Vec<u8>>> {
    let mut words = Vec::new();
    let mut rest = line.trim_start().as_bytes();
    while !rest.is_empty() {
        let (word, after) = take_word(rest)?;
        words.push(word);
        rest = after.trim_ascii_start();
    }
    Some(words)
}

fn take_word(line: &[u8]) -> Option<(Vec<u8>, &[u8])> {
    let mut word = Vec::new();
    let mut at = 0;
    let mut quote = None;
    loop {
        match (quote, line.get(at)) {
            (None, None) => return Some((word, &line[at..])),
            (Some(_), None) => return None,
            (None, Some(byte)) if byte.is_ascii_whitespace() => return Some((word, &line[at..])),
            (None, Some(b'"' | b'\'')) => quote = Some(line[at]),
            (Some(open), Some(&byte)) if byte == open => {
                let next = line.get(at + 1);
                return next.is_none_or(u8::is_ascii_whitespace).then_some((word, &line[at + 1..]));
            }
            (Some(b'\''), Some(b'\\')) if line.get(at + 1) == Some(&b'\'') => {
                word.push(b'\'');
                at += 1;
            }
            (Some(b'"'), Some(b'\\')) if at + 1 < line.len() => {
                let (byte, length) = unescape(&line[at + 1..]);
                word.push(byte);
                at += length;
            }
            (_, Some(&byte)) => word.push(byte),
        }
        at += 1;
    }
}

/// The byte that an escape stands for, and how many characters follow the backslash.
fn unescape(text: &[u8]) -> (u8, usize) {
    if let [b'x', high, low, ..] = text {
        let digit = |byte: u8| (byte as char).to_digit(16);
        if let (Some(high), Some(low)) = (digit(*high), digit(*low)) {
            return ((high * 16 + low) as u8, 3);
        }
    }
    let byte = match text[0] {
        b'n' => b'\n',
        b'r' => b'\r',
        b't' => b'\t',
        b'b' => 0x08,
        b'a' => 0x07,
        other => other,
    };
    (byte, 1)
}

/// A string as redis-cli prints it: always in double quotes.
pub fn quoted(text: &[u8]) -> String {
    let mut out = String::from("\"");
    for &byte in text {
        match byte {
            b'\\' | b'"' => out.extend(['\\', byte as char]),
            b'\n' => out.push_str("\\n"),
            b'\r' => out.push_str("\\r"),
            b'\t' => out.push_str("\\t"),
            0x07 => out.push_str("\\a"),
            0x08 => out.push_str("\\b"),
            b' '..=b'~' => out.push(byte as char),
            _ => out.push_str(&format!("\\x{byte:02x}")),
        }
    }
    out.push('"');
    out
}

/// A word as a person would type it: in quotes only where it needs them.
pub fn bare(text: &[u8]) -> String {
    let plain = |byte: &u8| byte.is_ascii_graphic() && !b"\"'\\".contains(byte);
    if !text.is_empty() && text.iter().all(plain) {
        return String::from_utf8_lossy(text).into_owned();
    }
    quoted(text)
}
