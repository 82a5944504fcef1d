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
    /// A copy of what `inner` has in its buffer, because to ask `inner` for each byte would take longer. It is told what was
    /// taken when all of this is used up, or when the reading ends.
    chunk: Vec<u8>,
    /// Bytes of the chunk that were taken.
    taken: usize,
    /// Bytes before the chunk, and their CRC.
    before: u64,
    crc: u64,
    /// A string that is packed.
    packed: Vec<u8>,
}

/// Bytes of a chunk, at most.
const CHUNK: usize = 64 * 1024;

impl Drop for Source<'_> {
    fn drop(&mut self) {
        self.inner.consume(self.taken);
    }
}

impl<'a> Source<'a> {
    pub fn new(inner: &'a mut dyn BufRead) -> Source<'a> {
        Source { inner, chunk: Vec::new(), taken: 0, before: 0, crc: 0, packed: Vec::new() }
    }

    /// Bytes that were taken.
    pub fn offset(&self) -> u64 {
        self.before + self.taken as u64
    }

    /// Something is wrong here.
    pub fn error(&self, reason: impl Into<String>) -> Error {
        Error { offset: self.offset(), reason: reason.into(), cause: Cause::Damaged }
    }

    /// What stands here is right, and this server does not have it.
    pub fn not_here(&self, reason: impl Into<String>) -> Error {
        Error { cause: Cause::NotHere, ..self.error(reason) }
    }

    /// The CRC of what was taken.
    pub fn crc(&self) -> u64 {
        crc64(self.crc, &self.chunk[..self.taken])
    }

    /// What has come and was not taken yet: at least a byte.
    fn rest(&mut self) -> Result<&[u8], Error> {
        if self.taken == self.chunk.len() {
            self.fill()?;
        }
        Ok(&self.chunk[self.taken..])
    }

    #[cold]
    fn fill(&mut self) -> Result<(), Error> {
        self.crc = self.crc();
        self.before = self.offset();
        self.inner.consume(std::mem::take(&mut self.taken));
        self.chunk.clear();
        match self.inner.fill_buf() {
            Ok([]) => Err(self.error("it ends here, before its end")),
            Ok(some) => {
                self.chunk.extend_from_slice(&some[..some.len().min(CHUNK)]);
                Ok(())
            }
            Err(error) => Err(self.error(error.to_string())),
        }
    }

    pub fn byte(&mut self) -> Result<u8, Error> {
        let byte = self.rest()?[0];
        self.taken += 1;
        Ok(byte)
    }

    pub fn array<const N: usize>(&mut self) -> Result<[u8; N], Error> {
        let mut bytes = [0; N];
        if let Some(some) = self.chunk[self.taken..].first_chunk() {
            bytes = *some;
            self.taken += N;
        } else {
            for byte in &mut bytes {
                *byte = self.byte()?;
            }
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
            let some = self.rest()?;
            let some = &some[..some.len().min(count - out.len())];
            out.extend_from_slice(some);
            self.taken += some.len();
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
