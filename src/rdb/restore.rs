//! One value by itself, as DUMP gives it and RESTORE takes it: the value, the version, and the CRC of both.

use super::crc64::crc64;
use super::source::Source;
use super::value::Values;
use super::{NEWEST, NEWEST_OF_VALKEY};
use crate::error::Error;
use crate::types::{Limits, Loose};

/// Bytes of the version and of the CRC.
const VERSION: usize = 2;
const CRC: usize = 8;
pub const BEHIND: usize = VERSION + CRC;

const WRONG_PAYLOAD: Error = Error::Fixed("ERR DUMP payload version or checksum are wrong");
const BAD_DATA: Error = Error::Fixed("ERR Bad data format");

/// Makes the value again, under this key.
pub fn restore(payload: &[u8], key: &[u8], limits: &Limits) -> Result<Loose, Error> {
    let mut value = checked(payload).ok_or(WRONG_PAYLOAD)?;
    let mut source = Source::new(&mut value);
    let form = source.byte().map_err(|_| BAD_DATA)?;
    let mut values = Values::default();
    // As in Redis, what stands behind the value does not matter.
    let value = values.read(&mut source, form, limits).ok().flatten();
    Ok(Loose::of(key, None, value.ok_or(BAD_DATA)?))
}

/// The value in front, if the version is known and the CRC is right.
fn checked(payload: &[u8]) -> Option<&[u8]> {
    let (rest, crc) = payload.split_last_chunk::<CRC>()?;
    let (value, version) = rest.split_last_chunk::<VERSION>()?;
    let (crc, version) = (u64::from_le_bytes(*crc), u16::from_le_bytes(*version));
    let is_known = version <= NEWEST || version == NEWEST_OF_VALKEY;
    (is_known && crc == crc64(0, rest)).then_some(value)
}
