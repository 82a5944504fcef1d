//! Replies: what goes back to a client, in the protocol that it has asked for.
//!
//! The first byte of a reply says what it is. RESP3 knows more kinds than RESP2, and each has its
//! form in the older protocol, so a handler says what it means and does not ask who listens:
//!
//! ```text
//!                  RESP2                    RESP3
//! nil              $-1  or  *-1             _
//! map              *4 k v k v               %2 k v k v
//! set, push        *                        ~ and >
//! double, boolean  a bulk string, :1        ,3.141 and #t
//! text for people  a bulk string            =…txt:…
//! ```
//!
//! A reply is written as it is made, straight into the client's output buffer: no value in
//! between, nothing to be freed. An array's length is written before its elements, so who writes
//! one must know how many will follow; where a handler fails in the middle, the batch cuts the
//! output back to where the command began.
//!
//! **How Redis does it**: the `addReply…` functions of networking.c, with a list of blocks behind
//! the buffer; it can also come back later to fill in a length (`addReplyDeferredLen`).

use super::{write_bulk, write_header};
use crate::error;

/// Which of the two versions of the protocol a client has asked for with HELLO.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Protocol {
    Resp2,
    Resp3,
}

/// Writes replies over a client's output buffer, in the protocol that the client speaks.
pub struct Reply {
    /// What was written and has not left yet; the batch cuts it back where a command failed.
    pub out: Vec<u8>,
    pub protocol: Protocol,
}

impl Reply {
    /// An empty one, in RESP2, which every client speaks until it says HELLO 3.
    pub fn new() -> Reply {
        Reply {
            out: Vec::new(),
            protocol: Protocol::Resp2,
        }
    }

    fn is_resp3(&self) -> bool {
        self.protocol == Protocol::Resp3
    }

    /// The status `OK`.
    pub fn ok(&mut self) {
        self.out.extend_from_slice(b"+OK\r\n");
    }

    /// A status: a word of ours, never a client's bytes, which could hold a line end.
    pub fn status(&mut self, text: &str) {
        self.out.push(b'+');
        self.out.extend_from_slice(text.as_bytes());
        self.out.extend_from_slice(b"\r\n");
    }

    /// An error. It may quote what a client sent, so a line end in it becomes a space.
    pub fn error(&mut self, error: &error::Error) {
        self.out.push(b'-');
        let start = self.out.len();
        error.write_to(&mut self.out);
        for byte in &mut self.out[start..] {
            if matches!(byte, b'\r' | b'\n') {
                *byte = b' ';
            }
        }
        self.out.extend_from_slice(b"\r\n");
    }

    /// An integer.
    pub fn integer(&mut self, number: i64) {
        write_header(&mut self.out, b':', number);
    }

    /// How many there are, or how long something is.
    pub fn count(&mut self, number: usize) {
        self.integer(number as i64);
    }

    /// A bulk string: any bytes, of any length.
    pub fn bulk(&mut self, bytes: &[u8]) {
        write_bulk(&mut self.out, bytes);
    }

    /// A bulk string, or nil.
    pub fn bulk_or_nil(&mut self, bytes: Option<&[u8]>) {
        match bytes {
            Some(bytes) => self.bulk(bytes),
            None => self.nil(),
        }
    }

    /// Nil where a bulk string was to be expected: no such key, no such field.
    pub fn nil(&mut self) {
        self.out.extend_from_slice(if self.is_resp3() {
            b"_\r\n"
        } else {
            b"$-1\r\n"
        });
    }

    /// Nil where an array was to be expected: EXEC that did not run.
    pub fn nil_array(&mut self) {
        self.out.extend_from_slice(if self.is_resp3() {
            b"_\r\n"
        } else {
            b"*-1\r\n"
        });
    }

    /// The head of an array; its `length` elements are to follow.
    pub fn array(&mut self, length: usize) {
        write_header(&mut self.out, b'*', length as i64);
    }

    /// An array of bulk strings.
    pub fn bulks(&mut self, all: &[impl AsRef<[u8]>]) {
        self.array(all.len());
        all.iter().for_each(|bytes| self.bulk(bytes.as_ref()));
    }

    /// An array of statuses, which redis-cli shows without quotes: the lines of a HELP.
    pub fn statuses(&mut self, all: &[impl AsRef<str>]) {
        self.array(all.len());
        all.iter().for_each(|text| self.status(text.as_ref()));
    }

    /// The head of a map of `length` pairs; a flat array in RESP2.
    pub fn map(&mut self, length: usize) {
        match self.protocol {
            Protocol::Resp3 => write_header(&mut self.out, b'%', length as i64),
            Protocol::Resp2 => self.array(2 * length),
        }
    }

    /// The head of a set; an array in RESP2.
    pub fn set(&mut self, length: usize) {
        let kind = if self.is_resp3() { b'~' } else { b'*' };
        write_header(&mut self.out, kind, length as i64);
    }

    /// The head of a message that answers no command; an array in RESP2.
    pub fn push(&mut self, length: usize) {
        let kind = if self.is_resp3() { b'>' } else { b'*' };
        write_header(&mut self.out, kind, length as i64);
    }

    /// A floating-point number; a bulk string in RESP2.
    pub fn double(&mut self, number: f64) {
        match self.protocol {
            Protocol::Resp3 => self
                .out
                .extend_from_slice(format!(",{number}\r\n").as_bytes()),
            Protocol::Resp2 => self.bulk(number.to_string().as_bytes()),
        }
    }

    /// A truth value; 1 or 0 in RESP2.
    pub fn boolean(&mut self, value: bool) {
        match self.protocol {
            Protocol::Resp3 => {
                self.out
                    .extend_from_slice(if value { b"#t\r\n" } else { b"#f\r\n" })
            }
            Protocol::Resp2 => self.integer(value.into()),
        }
    }

    /// Text that is meant for a person; a bulk string in RESP2.
    pub fn verbatim(&mut self, text: &str) {
        match self.protocol {
            Protocol::Resp3 => {
                write_header(&mut self.out, b'=', text.len() as i64 + 4);
                self.out.extend_from_slice(b"txt:");
                self.out.extend_from_slice(text.as_bytes());
                self.out.extend_from_slice(b"\r\n");
            }
            Protocol::Resp2 => self.bulk(text.as_bytes()),
        }
    }
}
