//! Annotations: how a flipped bit in the log is seen.
//!
//! A line that begins with `#` between two records is an annotation. Every Redis since 7.0, Valkey
//! and redis-check-aof pass over it. Ours say what the bytes before them were when they were written:
//!
//! ```text
//! SET k v … INCR n   #CRC:1c330fb2d66be179 4131⏎   DEL k … SET b 2   #CRC:7a9f26c081fb3d02 97⏎   SET c 3
//! └─── a stretch ──┘  its digest, its length        └─ the next ────┘                            └ open
//! ```
//!
//! 1. The digest is of all bytes of the stretch (aof/xxh64.rs), the length is their number. A flipped bit
//!    in the stretch changes the one, and in the annotation either of them.
//! 2. *A stretch begins where the annotation before it ends*, or at the file's beginning. So an annotation
//!    that can no longer be read, or that a damaged length has swallowed, is missed at the next
//!    one, whose length does not reach back far enough.
//! 3. The bytes behind the last annotation are *open*: nothing vouches for them yet. An annotation is
//!    written as soon as [`EVERY`] bytes are open, once a second before the fsync, and when the file is
//!    sealed: by a rewrite, by SHUTDOWN, by `CONFIG SET appendonly no`. A base has them throughout.
//! 4. None stands inside MULTI. It ends what one write takes from the buffer, where no unit is half done.
//! 5. Another server may append to our file, without annotations, and a log from elsewhere has none. That is
//!    an open stretch like any other: a start replays it, and a second later an annotation covers it. The same
//!    goes for what a killed server has left open. So there are never bytes between two stretches.
//!
//! Replay compares (aof/load.rs), at a start, in a rewrite and with `--check-aof`. A difference is damage,
//! never a torn tail (aof/repair.rs): what an annotation covers was whole once ([`next_claim`]).
//!
//! With `aof-checksum no` nothing is written and all stays open; what stands in a file is compared all the
//! same. A digest is kept in any case, so that `yes` may come at any time.
//!
//! What goes unseen: damage in the open stretch that leaves valid records; other damage once in 2⁶⁴; and a
//! length whose one flipped bit makes a value reach over the last annotation exactly to
//! the end of a record in the open stretch behind it.
//!
//! **How Redis does it**: not at all. Its RDB files end with a CRC; its log has no check.

use super::disk::{self, Opening};
use super::xxh64::Digest;
use std::io::{self, BufRead, BufReader, Read, Seek, SeekFrom};
use std::path::Path;

/// An annotation is written when so many bytes are open. At 28 bytes each they make the log longer
/// by 0.7 %.
pub const EVERY: u64 = 4096;

/// With what an annotation of ours begins.
const NAME: &[u8; 5] = b"#CRC:";

/// Bytes of a file that follow each other, from the end of an annotation on.
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
    /// One of ours, but for some bytes of it.
    Damaged,
    /// Somebody else's, such as `#TS:1700000000`. It is a part of the stretch.
    Other,
}

impl Claim {
    pub fn of(stretch: &Stretch) -> Claim {
        Claim { digest: stretch.value(), length: stretch.length }
    }

    /// In words, how what was written differs from what is found there.
    pub fn difference(&self, found: &Claim) -> Option<String> {
        if self.length != found.length {
            Some(format!(
                "they are {} bytes, and the annotation behind them is about {}",
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

/// Reads an annotation, with its line end. Only what we would write to the byte is ours. What
/// begins as ours and goes on otherwise is damaged, and so is what looks like ours but for one
/// byte of the name: to pass over it would be to leave a stretch unchecked.
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

/// The first annotation from `behind` on that claims to be about everything from `open` on, where the last
/// one that was read has ended: what it says of those bytes, and what they are. `most` bytes are
/// looked at.
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

/// Whether the file's last line looks like an annotation of ours.
pub fn ends_with_annotation(path: &Path) -> io::Result<bool> {
    // No annotation is longer than with twenty digits.
    const MOST: u64 = 5 + 16 + 1 + 20 + 2;
    let length = disk::metadata(path)?.length;
    let end = disk::read_from(path, length.saturating_sub(MOST))?;
    let line = end.split_inclusive(|&byte| byte == b'\n').next_back();
    Ok(line.is_some_and(|line| matches!(read_line(line), Line::Ours(_))))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_annotation_is_read_as_it_was_written_and_one_flipped_bit_makes_it_damaged_or_another() {
        let mut stretch = Stretch::default();
        stretch.add(&[0; 1000]);
        let claim = Claim::of(&stretch);
        let mut line = claim.annotation();
        assert_eq!(read_line(&line), Line::Ours(claim));
        for bit in 8..8 * line.len() {
            line[bit / 8] ^= 1 << (bit % 8);
            let read = read_line(&line);
            assert!(read != Line::Other && read != Line::Ours(claim), "{bit}");
            line[bit / 8] ^= 1 << (bit % 8);
        }
    }

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
