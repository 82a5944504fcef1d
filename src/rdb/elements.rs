//! The elements of a small collection, as they are read from the memory in which Redis had it.

use crate::resp::Digits;

/// Byte strings, one after another.
#[derive(Default)]
pub struct Elements {
    bytes: Vec<u8>,
    /// Where each of them ends.
    ends: Vec<usize>,
}

impl Elements {
    pub fn len(&self) -> usize {
        self.ends.len()
    }

    pub fn clear(&mut self) {
        self.bytes.clear();
        self.ends.clear();
    }

    pub fn push(&mut self, element: &[u8]) {
        self.bytes.extend_from_slice(element);
        self.ends.push(self.bytes.len());
    }

    pub fn push_number(&mut self, number: i64) {
        self.push(Digits::new(number).as_bytes());
    }

    pub fn iter(&self) -> impl Iterator<Item = &[u8]> {
        let mut start = 0;
        self.ends.iter().map(move |end| {
            let element = &self.bytes[start..*end];
            start = *end;
            element
        })
    }

    /// Two by two; without the last one, if they are not even.
    pub fn pairs(&self) -> impl Iterator<Item = (&[u8], &[u8])> {
        let mut elements = self.iter();
        std::iter::from_fn(move || Some((elements.next()?, elements.next()?)))
    }
}

/// Takes so many bytes, if they are there.
pub fn take<'a>(rest: &mut &'a [u8], count: usize) -> Option<&'a [u8]> {
    rest.split_off(..count)
}

/// The number that up to eight bytes are, little endian, with the sign in the last.
pub fn number(bytes: &[u8]) -> i64 {
    let is_negative = bytes.last().is_some_and(|last| *last >= 0x80);
    let mut whole = if is_negative { [0xff; 8] } else { [0; 8] };
    whole[..bytes.len()].copy_from_slice(bytes);
    i64::from_le_bytes(whole)
}
