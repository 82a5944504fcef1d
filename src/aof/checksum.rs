//! Annotations: how a flipped bit in the log is seen.
//!
//! A line that begins with `#` between two records is an annotation. Every Redis since 7.0, Valkey, and
//! redis-check-aof skip it. Ours say what the bytes before them were when they were written:
//!
//! ```text
//! SET k v … INCR n   #CRC:1c330fb2d66be179 4131⏎   DEL k … SET b 2   #CRC:7a9f26c081fb3d02 97⏎   SET c 3
//! └─── a stretch ──┘  its digest, its length        └─ the next ────┘                            └ open
//! ```
//!
//! 1. The length counts the bytes of the stretch, and the digest is computed from all of them (aof/xxh64.rs).
//!    So a flipped bit in the stretch or in its annotation makes a difference between the two.
//! 2. *A stretch begins where the annotation before it ends*, or at the beginning of the file. If that
//!    annotation can no longer be read, or a damaged length has made it part of a value, then the length
//!    in the next annotation is too short.
//! 3. The bytes behind the last annotation are *open*: nothing covers them yet. An annotation is written
//!    as soon as [`EVERY`] bytes are open, once a second before the fsync, and at the end of a file: in a
//!    rewrite, at SHUTDOWN, at `CONFIG SET appendonly no`. A base is covered by them too.
//! 4. No annotation stands inside MULTI: it follows what one write takes from the buffer, and the buffer
//!    holds whole units.
//! 5. If another server has appended to our file, or if a log comes from elsewhere, its bytes are open. So
//!    are the last ones of a killed server. A start replays them, and a second later an annotation covers
//!    them. So no bytes are between two stretches.
//!
//! Replay compares (aof/load.rs), at a start, in a rewrite, and with `--check-aof`. A difference is damage,
//! never a torn tail (aof/repair.rs), because the bytes that an annotation covers were whole once.
//!
//! With `aof-checksum no` no annotation is written, but those in the file are compared. The digest is
//! computed all the same, so that the option may change at any time.
//!
//! What goes unseen: damage in the open stretch that leaves valid records, and one in 2⁶⁴ of all other. (A
//! power cut may do the former, if it takes a page in the middle of a long value, and the annotation too.)
//! And this: one flipped bit of a length makes a value reach over the last annotation, exactly to the end
//! of a record in the open stretch.
//!
//! **How Redis does it**: not at all. Its RDB files end with a CRC; its log has no check.

use super::disk::{self, Opening};
use super::xxh64::Digest;
use std::io::{self, BufRead, BufReader, Read, Seek, SeekFrom};
use std::path::Path;

/// An annotation is written when this many bytes are open. Each has 28 bytes, so the log is 0.7 % longer.
pub const EVERY: u64 = 4096;

/// An annotation of ours begins with this.
const NAME: &[u8; 5] = b"#CRC:";

/// The digest of the bytes from the end of an annotation on.
pub type Stretch = Digest;

/// What an annotation says of its stretch.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct Claim {
    pub digest: u64,
    pub length: u64,
}

/// What a line that begins with `#` is.
#[derive(PartialEq, Debug)]
pub enum Line {
    /// The stretch before it must be this.
    Ours(Claim),
    /// One of ours, in which some bytes are wrong.
    Damaged,
    /// Not one of ours: `#TS:1700000000`. It is a part of the stretch.
    Other,
}

impl Claim {
    pub fn of(stretch: &Stretch) -> Claim {
        Claim { digest: stretch.value(), length: stretch.length }
    }

    /// In words, what differs between the bytes that were written and those that were found.
    pub fn difference(&self, found: &Claim) -> Option<String> {
        if self.length != found.length {
            Some(format!(
                "they are {} bytes, and the annotation behind them covers {}",
                found.length, self.length
            ))
        } else if self.digest != found.digest {
            Some(format!(
                "their digest is {:016x}, and when they were written it was {:016x}",
                found.digest, self.digest
            ))
        } else {
            None
        }
    }

    pub fn annotation(&self) -> Vec<u8> {
        format!("#CRC:{:016x} {}\r\n", self.digest, self.length).into_bytes()
    }
}

/// Whether an annotation is written behind what is written now, if anything is open.
#[derive(Clone, Copy, PartialEq)]
pub enum Annotate {
    Never,
    /// As soon as [`EVERY`] bytes are open.
    IfMuch,
    Now,
}

/// Adds `bytes`, from `from` on, to the stretch that is open. If an annotation is due, appends it to
/// `bytes`, and the next stretch begins.
pub fn cover(open: &mut Stretch, bytes: &mut Vec<u8>, from: usize, annotate: Annotate) {
    open.add(&bytes[from..]);
    let least = match annotate {
        Annotate::Never => return,
        Annotate::IfMuch => EVERY,
        Annotate::Now => 1,
    };
    if open.length >= least {
        bytes.extend_from_slice(&Claim::of(open).annotation());
        *open = Stretch::default();
    }
}

/// The stretch of all that the file holds from `offset` on.
pub fn stretch_of(path: &Path, offset: u64) -> io::Result<Stretch> {
    let mut file = disk::open(path, Opening::Read)?;
    file.seek(SeekFrom::Start(offset))?;
    let mut reader = BufReader::with_capacity(64 * 1024, file);
    let mut stretch = Stretch::default();
    loop {
        let bytes = reader.fill_buf()?;
        if bytes.is_empty() {
            return Ok(stretch);
        }
        stretch.add(bytes);
        let count = bytes.len();
        reader.consume(count);
    }
}

/// Reads an annotation, with its line end. It is ours only if we would write the same bytes. If one byte of
/// the name is wrong, or anything behind the name, it is damaged, because to skip it would leave a stretch
/// unchecked.
pub fn read_line(line: &[u8]) -> Line {
    let wrong = line.iter().zip(NAME).filter(|(a, b)| a != b).count();
    let numbers = line.get(NAME.len()..).and_then(|rest| {
        let text = std::str::from_utf8(rest).ok()?.strip_suffix("\r\n")?;
        let (digest, length) = text.split_once(' ')?;
        let digest = u64::from_str_radix(digest, 16).ok()?;
        let length = length.parse().ok()?;
        Some(Claim { digest, length })
    });
    let same = |claim: &Claim| claim.annotation()[NAME.len()..] == line[NAME.len()..];
    match (wrong, numbers.filter(same)) {
        (0, Some(claim)) => Line::Ours(claim),
        (0, None) if line.len() >= NAME.len() => Line::Damaged,
        (1, Some(_)) => Line::Damaged,
        _ => Line::Other,
    }
}

/// The first annotation from `behind` on whose length reaches back exactly to `open`, where the last one
/// ended: what it says of these bytes, and what they are. At most `most` bytes are read.
pub fn next_claim(
    path: &Path,
    open: u64,
    behind: u64,
    most: u64,
) -> io::Result<Option<(Claim, Claim)>> {
    let mut file = disk::open(path, Opening::Read)?;
    file.seek(SeekFrom::Start(open))?;
    let mut reader = BufReader::with_capacity(64 * 1024, file.take(most));
    let (mut found, mut line) = (Stretch::default(), Vec::new());
    while reader.read_until(b'\n', &mut line)? > 0 {
        if let Line::Ours(written) = read_line(&line)
            && open + found.length >= behind
            && written.length == found.length
        {
            return Ok(Some((written, Claim::of(&found))));
        }
        found.add(&line);
        line.clear();
    }
    Ok(None)
}

/// Whether the file's last line has the form of an annotation of ours.
pub fn ends_with_annotation(path: &Path) -> io::Result<bool> {
    // No annotation is longer than with twenty digits.
    const MOST: u64 = 5 + 16 + 1 + 20 + 2;
    let length = disk::length(path)?;
    let end = disk::read_from(path, length.saturating_sub(MOST))?;
    let line = end.split_inclusive(|&byte| byte == b'\n').next_back();
    Ok(line.is_some_and(|line| matches!(read_line(line), Line::Ours(_))))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn annotations_of_others_are_passed_over() {
        for line in ["#\r\n", "#\n", "#TS:1700000000\r\n", "#C", "# CRC:00 12\r\n"] {
            assert_eq!(read_line(line.as_bytes()), Line::Other, "{line:?}");
        }
        for line in
            ["#CRC:", "#CRC:\r\n", "#CRC:1c330fb2d66be179 +7\r\n", "#CRC:1C330FB2D66BE179 7\r\n"]
        {
            assert_eq!(read_line(line.as_bytes()), Line::Damaged, "{line:?}");
        }
    }
}
