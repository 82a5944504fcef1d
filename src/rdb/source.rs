//! Where a snapshot is read from: bytes, lengths and strings, each with its place.
//!
//! Nothing is believed that has not come. A length is a promise: memory grows with the bytes that are there.

use super::crc64::crc64;
use super::{Cause, Error, encoding, lzf};
use crate::resp::{Digits, LONGEST};
use std::io::BufRead;

/// What a snapshot is read from. Nothing behind the snapshot is taken.
pub struct Source<'a> {
    inner: &'a mut dyn BufRead,
    /// How much of what `inner` has in its buffer was taken here. It is told later, because that much is digested
    /// together.
    taken: usize,
    /// Bytes that were taken.
    pub offset: u64,
    /// Of what `inner` was told.
    crc: u64,
    /// A string that is packed.
    packed: Vec<u8>,
}

impl<'a> Source<'a> {
    pub fn new(inner: &'a mut dyn BufRead) -> Source<'a> {
        Source { inner, taken: 0, offset: 0, crc: 0, packed: Vec::new() }
    }

    /// Something is wrong here.
    pub fn error(&self, reason: impl Into<String>) -> Error {
        Error { offset: self.offset, reason: reason.into(), cause: Cause::Damaged }
    }

    /// What stands here is right, and this server does not have it.
    pub fn not_here(&self, reason: impl Into<String>) -> Error {
        Error { cause: Cause::NotHere, ..self.error(reason) }
    }

    /// The CRC of what was taken.
    pub fn crc(&mut self) -> Result<u64, Error> {
        match self.inner.fill_buf() {
            Ok(buffer) => self.crc = crc64(self.crc, &buffer[..self.taken]),
            Err(error) => return Err(self.error(error.to_string())),
        }
        self.inner.consume(std::mem::take(&mut self.taken));
        Ok(self.crc)
    }

    /// What has come: at least a byte.
    fn fill(&mut self) -> Result<&[u8], Error> {
        let has = |buffer: &[u8]| buffer.len();
        if self.taken > 0 && self.inner.fill_buf().map(has).is_ok_and(|length| length == self.taken)
        {
            self.crc()?;
        }
        let offset = self.offset;
        let error = |reason: String| Error { offset, reason, cause: Cause::Damaged };
        let buffer = self.inner.fill_buf().map_err(|cause| error(cause.to_string()))?;
        match &buffer[self.taken..] {
            [] => Err(error("it ends here, before its end".into())),
            some => Ok(some),
        }
    }

    fn consume(&mut self, count: usize) {
        self.taken += count;
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
