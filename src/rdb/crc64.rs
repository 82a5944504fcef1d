//! The checksum at the end of a snapshot: a CRC of 64 bits with the polynomial of Jones.
//!
//! Eight bytes at a time: for each of the eight places a table says what a byte there makes of the rest. So the
//! eight looks into tables do not wait for each other.
//!
//! **How Redis does it**: crc64.c and crcspeed.c, the same.

/// The polynomial, the lowest bit first.
const POLYNOMIAL: u64 = 0x95ac_9329_ac4b_c9b5;

/// `TABLES[n][byte]`: the CRC of the byte and `n` zero bytes.
static TABLES: [[u64; 256]; 8] = tables();

const fn tables() -> [[u64; 256]; 8] {
    let mut tables = [[0; 256]; 8];
    let mut byte = 0;
    while byte < 256 {
        let mut crc = byte as u64;
        let mut bit = 0;
        while bit < 8 {
            crc = (crc >> 1) ^ if crc & 1 == 1 { POLYNOMIAL } else { 0 };
            bit += 1;
        }
        let mut zeros = 0;
        while zeros < 8 {
            tables[zeros][byte] = crc;
            // The table of one byte is not whole yet, so bit by bit.
            let mut bit = 0;
            while bit < 8 {
                crc = (crc >> 1) ^ if crc & 1 == 1 { POLYNOMIAL } else { 0 };
                bit += 1;
            }
            zeros += 1;
        }
        byte += 1;
    }
    tables
}

/// The CRC of what has the CRC `crc`, with `bytes` behind it. That of nothing is 0.
pub fn crc64(mut crc: u64, bytes: &[u8]) -> u64 {
    let (eights, rest) = bytes.as_chunks::<8>();
    for eight in eights {
        let mixed = crc ^ u64::from_le_bytes(*eight);
        crc = 0;
        for (place, byte) in mixed.to_be_bytes().iter().enumerate() {
            crc ^= TABLES[place][usize::from(*byte)];
        }
    }
    for byte in rest {
        crc = TABLES[0][usize::from(crc as u8 ^ byte)] ^ (crc >> 8);
    }
    crc
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_crc_is_that_of_jones_in_whatever_pieces_the_bytes_come() {
        assert_eq!(crc64(0, b"123456789"), 0xe9c6_d914_c4b8_d9ca);
        let text = b"This is a test of the emergency broadcast system.";
        let whole = text.iter().fold(0, |crc, byte| crc64(crc, &[*byte]));
        for at in 0..text.len() {
            assert_eq!(crc64(crc64(0, &text[..at]), &text[at..]), whole);
        }
    }
}
