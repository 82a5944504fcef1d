//! Words in a line of text, with quotes where they are needed.
//!
//! ```text
//! SET k "two words"     a person's command      sent by telnet
//! dir '/my data'        an option               in redis.conf
//! file "a b" seq 1 …    a file of the log       in the manifest
//! "SET" "k" "\x00"      a command, as shown     by MONITOR
//! ```
//!
//! **How Redis does it**: sds.c, `sdssplitargs` and `sdscatrepr`.

/// Splits a line into words at white space, as Redis's `sdssplitargs` does. Words may be in `'…'` or
/// `"…"`, and `"…"` knows `\n \r \t \b \a \xHH`. `None` if a quote is not closed, or not followed by a
/// space.
pub fn split_words(line: &[u8]) -> Option<Vec<Vec<u8>>> {
    let mut words = Vec::new();
    let mut rest = line;
    loop {
        let spaces = rest.iter().take_while(|byte| is_space(byte)).count();
        rest = &rest[spaces..];
        if rest.is_empty() {
            return Some(words);
        }
        let mut word = Vec::new();
        loop {
            match rest {
                [] => break,
                [b' ' | b'\t' | b'\r' | b'\n', ..] => break,
                [quote @ (b'"' | b'\''), after @ ..] => {
                    rest = quoted(after, *quote, &mut word)?;
                    break;
                }
                [byte, after @ ..] => {
                    word.push(*byte);
                    rest = after;
                }
            }
        }
        words.push(word);
    }
}

/// What C's `isspace` takes for a space.
fn is_space(byte: &u8) -> bool {
    matches!(byte, b' ' | b'\t'..=b'\r')
}

/// Appends what is before the closing quote, and returns what comes after it.
fn quoted<'a>(mut rest: &'a [u8], quote: u8, word: &mut Vec<u8>) -> Option<&'a [u8]> {
    loop {
        let (byte, after) = match rest {
            [b'\\', b'x', high, low, after @ ..]
                if quote == b'"' && high.is_ascii_hexdigit() && low.is_ascii_hexdigit() =>
            {
                (hex(*high) * 16 + hex(*low), after)
            }
            [b'\\', escaped, after @ ..] if quote == b'"' => (unescape(*escaped), after),
            [b'\\', b'\'', after @ ..] if quote == b'\'' => (b'\'', after),
            [byte, after @ ..] if *byte == quote => {
                let ends = after.first().is_none_or(is_space);
                return ends.then_some(after);
            }
            [byte, after @ ..] => (*byte, after),
            [] => return None,
        };
        word.push(byte);
        rest = after;
    }
}

fn hex(digit: u8) -> u8 {
    match digit {
        b'0'..=b'9' => digit - b'0',
        _ => digit.to_ascii_lowercase() - b'a' + 10,
    }
}

fn unescape(byte: u8) -> u8 {
    match byte {
        b'n' => b'\n',
        b'r' => b'\r',
        b't' => b'\t',
        b'b' => 8,
        b'a' => 7,
        other => other,
    }
}

/// Appends a word between quotes, so that [`split_words`] gives it back: Redis's `sdscatrepr`.
pub fn quote(word: &[u8], line: &mut Vec<u8>) {
    line.push(b'"');
    for &byte in word {
        match byte {
            b'\\' | b'"' => line.extend_from_slice(&[b'\\', byte]),
            b'\n' => line.extend_from_slice(b"\\n"),
            b'\r' => line.extend_from_slice(b"\\r"),
            b'\t' => line.extend_from_slice(b"\\t"),
            7 => line.extend_from_slice(b"\\a"),
            8 => line.extend_from_slice(b"\\b"),
            b' '..=b'~' => line.push(byte),
            _ => line.extend_from_slice(format!("\\x{byte:02x}").as_bytes()),
        }
    }
    line.push(b'"');
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_quoted_is_one_word_again() {
        let every: Vec<u8> = (0..=255).collect();
        for word in [&b""[..], b"a b", b"\"'\\", b"\r\n", &every] {
            let mut line = Vec::new();
            quote(word, &mut line);
            assert!(line.iter().all(|byte| (b' '..=b'~').contains(byte)));
            assert_eq!(split_words(&line), Some(vec![word.to_vec()]));
        }
    }
}
