//! Where a snapshot is read from: bytes, lengths and strings, each with its place.
//!
//! Nothing is believed that has not come. A length is a promise: memory grows with the bytes that are there.

use super::crc64::crc64;
use super::{Error, encoding, lzf};
use crate::resp::{Digits, LONGEST};
use std::io::Read;
use std::ops::Range;

/// What a snapshot is read from.
pub struct Source<'a> {
    inner: &'a mut dyn Read,
    buffer: Vec<u8>,
    /// Of the buffer, what was not taken yet.
    unread: Range<usize>,
    /// Bytes that were taken.
    pub offset: u64,
    /// Of the bytes that were taken, in the buffer from `digested` on not yet.
    crc: u64,
    digested: usize,
    /// A string that is packed.
    packed: Vec<u8>,
}

impl<'a> Source<'a> {
    /// `room`: bytes that are read at once.
    pub fn new(inner: &'a mut dyn Read, room: usize) -> Source<'a> {
        let (buffer, packed) = (vec![0; room], Vec::new());
        Source { inner, buffer, unread: 0..0, offset: 0, crc: 0, digested: 0, packed }
    }

    /// Something is wrong here.
    pub fn error(&self, reason: impl Into<String>) -> Error {
        Error { offset: self.offset, reason: reason.into() }
    }

    /// The CRC of what was taken.
    pub fn crc(&mut self) -> u64 {
        self.crc = crc64(self.crc, &self.buffer[self.digested..self.unread.start]);
        self.digested = self.unread.start;
        self.crc
    }

    /// What has come: at least a byte.
    fn fill(&mut self) -> Result<&[u8], Error> {
        if self.unread.is_empty() {
            self.crc();
            let count = self.inner.read(&mut self.buffer);
            let count = count.map_err(|error| self.error(error.to_string()))?;
            if count == 0 {
                return Err(self.error("it ends here, before its end"));
            }
            (self.unread, self.digested) = (0..count, 0);
        }
        Ok(&self.buffer[self.unread.clone()])
    }

    fn consume(&mut self, count: usize) {
        self.unread.start += count;
        self.offset += count as u64;
    }

    pub fn byte(&mut self) -> Result<u8, Error> {
        let byte = self.fill()?[0];
        self.consume(1);
        Ok(byte)
    }

    pub fn array<const N: usize>(&mut self) -> Result<[u8; N], Error> {
        let mut bytes = [0; N];
        for byte in &mut bytes {
            *byte = self.byte()?;
        }
        Ok(bytes)
    }

    /// So many bytes.
    fn bytes(&mut self, count: u64, out: &mut Vec<u8>) -> Result<(), Error> {
        out.clear();
        if count > LONGEST as u64 {
            return Err(self.error(format!("a string of {count} bytes is too long")));
        }
        let count = count as usize;
        while out.len() < count {
            let some = self.fill()?;
            let some = &some[..some.len().min(count - out.len())];
            out.extend_from_slice(some);
            let taken = some.len();
            self.consume(taken);
        }
        Ok(())
    }

    /// A number that counts something.
    pub fn length(&mut self) -> Result<u64, Error> {
        let first = self.byte()?;
        self.length_from(first)
    }

    fn length_from(&mut self, first: u8) -> Result<u64, Error> {
        Ok(match first {
            ..0x40 => u64::from(first),
            0x40..0x80 => u64::from(first & 0x3f) << 8 | u64::from(self.byte()?),
            0x80 => u64::from(u32::from_be_bytes(self.array()?)),
            0x81 => u64::from_be_bytes(self.array()?),
            _ => return Err(self.error(format!("{first:#04x} begins no length"))),
        })
    }

    /// A string, as a number, packed, or as it is.
    pub fn string(&mut self, out: &mut Vec<u8>) -> Result<(), Error> {
        let first = self.byte()?;
        let number = match first {
            encoding::INT_8 => i64::from(i8::from_le_bytes(self.array()?)),
            encoding::INT_16 => i64::from(i16::from_le_bytes(self.array()?)),
            encoding::INT_32 => i64::from(i32::from_le_bytes(self.array()?)),
            encoding::LZF => return self.packed(out),
            _ => {
                let length = self.length_from(first)?;
                return self.bytes(length, out);
            }
        };
        out.clear();
        out.extend_from_slice(Digits::new(number).as_bytes());
        Ok(())
    }

    fn packed(&mut self, out: &mut Vec<u8>) -> Result<(), Error> {
        let (length, unpacked) = (self.length()?, self.length()?);
        let mut packed = std::mem::take(&mut self.packed);
        self.bytes(length, &mut packed)?;
        let unpacked = usize::try_from(unpacked).ok().filter(|length| *length <= LONGEST);
        if !unpacked.is_some_and(|length| lzf::unpack(&packed, length, out)) {
            return Err(self.error("a packed string cannot be unpacked"));
        }
        self.packed = packed;
        Ok(())
    }
}
