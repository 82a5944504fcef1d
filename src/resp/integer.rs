//! Integers as the protocol writes them: digits, and a `-` in front of a negative one.

/// The integer that `text` is, if it is written the one way in which we would write it: no sign
/// `+`, no leading zero, no space (Redis's `string2ll`).
pub fn parse_integer(text: &[u8]) -> Option<i64> {
    let (negative, digits) = match text {
        [b'-', digits @ ..] => (true, digits),
        digits => (false, digits),
    };
    match digits {
        [b'0'] if !negative => return Some(0),
        [b'1'..=b'9', ..] if digits.len() <= 19 => {}
        _ => return None,
    }
    let mut number: u64 = 0;
    for &digit in digits {
        if !digit.is_ascii_digit() {
            return None;
        }
        // Nineteen digits always fit.
        number = number * 10 + u64::from(digit - b'0');
    }
    if negative { 0i64.checked_sub_unsigned(number) } else { i64::try_from(number).ok() }
}

/// An integer as text, without an allocation.
pub struct Digits {
    /// A place for the kind of a line, up to 20 bytes of the number, and the end of the line.
    text: [u8; END + 2],
    start: usize,
}

/// Where the digits end.
const END: usize = 21;

impl Digits {
    pub fn new(number: i64) -> Digits {
        let mut digits = Digits { text: [0; END + 2], start: END };
        let mut rest = number.unsigned_abs();
        loop {
            digits.start -= 1;
            digits.text[digits.start] = b'0' + (rest % 10) as u8;
            rest /= 10;
            if rest == 0 {
                break;
            }
        }
        if number < 0 {
            digits.start -= 1;
            digits.text[digits.start] = b'-';
        }
        digits
    }

    pub fn as_bytes(&self) -> &[u8] {
        &self.text[self.start..END]
    }

    /// The line of the protocol that is of this kind and has the number.
    pub fn line(&mut self, kind: u8) -> &[u8] {
        self.text[self.start - 1] = kind;
        self.text[END..].copy_from_slice(b"\r\n");
        &self.text[self.start - 1..]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_integer_has_one_spelling_and_is_read_back_from_it() {
        for number in [0, 7, -1, 10, -10, 999, 1_000_000_007, i64::MAX, i64::MIN] {
            let digits = Digits::new(number);
            assert_eq!(digits.as_bytes(), number.to_string().as_bytes());
            assert_eq!(parse_integer(digits.as_bytes()), Some(number));
        }
        let others = ["", "-", "+1", "01", "-0", "-01", " 1", "1 ", "1x", "0x1", "1.0"];
        let too_large = ["9223372036854775808", "-9223372036854775809", "99999999999999999999"];
        for text in others.iter().chain(&too_large) {
            assert_eq!(parse_integer(text.as_bytes()), None, "{text}");
        }
    }
}
