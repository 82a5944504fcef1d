//! CRC-64: eight bytes that tell whether other bytes have changed.
//!
//! A CRC is the remainder of a division of polynomials over single bits. Any one flipped bit gives
//! another remainder, and so does any damage within 64 bits; other damage goes unseen once in 2⁶⁴.
//! It is a check against disks and memory, not against people: whoever can write the bytes can also
//! write their CRC.
//!
//! Bit by bit it would be slow. Table `n` knows what one byte does to the remainder when `n` more
//! bytes follow it, so eight bytes take eight look-ups that do not wait for each other (*slicing by
//! eight*).
//!
//! **How Redis does it**: crc64.c, with the same polynomial (Jones), the same start and the same
//! bytes; it stands at the end of each RDB file.

/// The polynomial, its bits in reverse, for the lowest bit of a byte comes first.
const POLYNOMIAL: u64 = 0x95ac_9329_ac4b_c9b5;

static TABLES: [[u64; 256]; 8] = tables();

const fn tables() -> [[u64; 256]; 8] {
    let mut tables = [[0; 256]; 8];
    let mut byte = 0;
    while byte < 256 {
        let (mut crc, mut bit) = (byte as u64, 0);
        while bit < 8 {
            crc = (crc >> 1) ^ if crc & 1 == 1 { POLYNOMIAL } else { 0 };
            bit += 1;
        }
        tables[0][byte] = crc;
        byte += 1;
    }
    let mut table = 1;
    while table < 8 {
        byte = 0;
        while byte < 256 {
            let before = tables[table - 1][byte];
            tables[table][byte] = (before >> 8) ^ tables[0][(before & 0xff) as usize];
            byte += 1;
        }
        table += 1;
    }
    tables
}

/// The CRC of what `crc` is the CRC of (0 of nothing), followed by `bytes`.
pub fn crc64(mut crc: u64, bytes: &[u8]) -> u64 {
    let (eights, rest) = bytes.as_chunks::<8>();
    for eight in eights {
        crc ^= u64::from_le_bytes(*eight);
        let at = |byte: usize| TABLES[7 - byte][(crc >> (8 * byte)) as usize & 0xff];
        crc = at(0) ^ at(1) ^ at(2) ^ at(3) ^ at(4) ^ at(5) ^ at(6) ^ at(7);
    }
    for byte in rest {
        crc = (crc >> 8) ^ TABLES[0][(crc ^ u64::from(*byte)) as usize & 0xff];
    }
    crc
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_the_crc_of_redis() {
        // The test in Redis's crc64.c has these two.
        assert_eq!(crc64(0, b"123456789"), 0xe9c6_d914_c4b8_d9ca);
        let text = b"This is a test of the emergency broadcast system.";
        assert_eq!(crc64(0, text), 0x27db_187f_c15b_bc72);
    }

    #[test]
    fn it_does_not_matter_in_which_pieces_the_bytes_come() {
        let bytes: Vec<u8> = (0..100u8).map(|n| n.wrapping_mul(37)).collect();
        for cut in 0..bytes.len() {
            let (a, b) = bytes.split_at(cut);
            assert_eq!(crc64(crc64(0, a), b), crc64(0, &bytes));
        }
    }
}
