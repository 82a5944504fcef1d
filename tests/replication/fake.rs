//! A replica as a test needs it: it says what a replica says, and keeps what it was sent.

use crate::support::{Server, encode};
use std::io::{self, BufRead, BufReader, ErrorKind, Read, Write};
use std::net::TcpStream;
use std::time::Duration;

pub struct Replica {
    reader: BufReader<TcpStream>,
    /// The history that it follows, and how much of that it has.
    pub id: String,
    pub offset: u64,
    pub snapshot: Vec<u8>,
    /// What it was sent behind the snapshot, over all its connections.
    pub stream: Vec<u8>,
    /// How many empty lines it was sent.
    pub signs: usize,
}

impl Replica {
    pub fn connect(server: &Server) -> Replica {
        let stream = TcpStream::connect(server.address()).unwrap();
        // Nothing takes as long, but a server that has forgotten us.
        stream.set_read_timeout(Some(Duration::from_secs(100))).unwrap();
        let reader = BufReader::with_capacity(16 * 1024, stream);
        let (id, snapshot, stream) = ("?".into(), Vec::new(), Vec::new());
        Replica { reader, id, offset: 0, snapshot, stream, signs: 0 }
    }

    /// One that follows, with a snapshot of what is there.
    pub fn following(server: &Server) -> Replica {
        let mut replica = Replica::connect(server);
        replica.introduce();
        assert!(!replica.psync());
        replica
    }

    pub fn introduce(&mut self) {
        assert_eq!(self.ask(&["REPLCONF", "listening-port", "7777"]), "+OK");
        assert_eq!(self.ask(&["REPLCONF", "capa", "eof", "capa", "psync2"]), "+OK");
    }

    pub fn send(&mut self, words: &[&str]) {
        let _ = self.reader.get_ref().write_all(&encode(words));
    }

    pub fn ask(&mut self, words: &[&str]) -> String {
        self.send(words);
        self.line()
    }

    /// The next line. Empty ones are signs of life.
    pub fn line(&mut self) -> String {
        let mut line = Vec::new();
        loop {
            self.reader.read_until(b'\n', &mut line).expect("a line");
            let text = String::from_utf8_lossy(&line).trim_end().to_string();
            assert!(!line.is_empty(), "the connection was closed");
            if !text.is_empty() {
                return text;
            }
            self.signs += 1;
            line.clear();
        }
    }

    /// Asks for the stream, from where it is if it knows a history. True if it may go on there; otherwise it gets a
    /// snapshot, and the stream begins behind that.
    pub fn psync(&mut self) -> bool {
        let from = if self.id == "?" { -1 } else { self.offset as i64 + 1 };
        let (id, from) = (self.id.clone(), from.to_string());
        let answer = self.ask(&["PSYNC", &id, &from]);
        let words: Vec<&str> = answer.split(' ').collect();
        match words[..] {
            // The id may be new.
            ["+CONTINUE", id] => {
                self.id = id.to_string();
                return true;
            }
            ["+FULLRESYNC", id, offset] => {
                assert_eq!(id.len(), 40);
                (self.id, self.offset) = (id.to_string(), offset.parse().unwrap());
            }
            _ => panic!("{answer}"),
        }
        self.stream.clear();
        self.read_snapshot();
        self.ack();
        false
    }

    pub fn read_snapshot(&mut self) {
        let line = self.line();
        self.snapshot.clear();
        let Some(end) = line.strip_prefix("$EOF:") else {
            let length = line.strip_prefix('$').and_then(|length| length.parse().ok());
            self.snapshot.resize(length.unwrap_or_else(|| panic!("{line}")), 0);
            return self.reader.read_exact(&mut self.snapshot).unwrap();
        };
        assert_eq!(end.len(), 40);
        while !self.snapshot.ends_with(end.as_bytes()) {
            let count = {
                let bytes = self.reader.fill_buf().unwrap();
                assert!(!bytes.is_empty(), "the snapshot is torn");
                self.snapshot.extend_from_slice(bytes);
                bytes.len()
            };
            self.reader.consume(count);
        }
        self.snapshot.truncate(self.snapshot.len() - 40);
    }

    pub fn ack(&mut self) {
        let offset = self.offset.to_string();
        self.send(&["REPLCONF", "ACK", &offset]);
    }

    /// Reads some of the stream, at most this many bytes. 0: the connection is closed.
    pub fn read(&mut self, most: usize) -> usize {
        let count = match self.reader.fill_buf() {
            Ok(bytes) => {
                let count = bytes.len().min(most);
                self.stream.extend_from_slice(&bytes[..count]);
                count
            }
            Err(error) if error.kind() == ErrorKind::ConnectionReset => 0,
            Err(error) => panic!("{error}"),
        };
        self.reader.consume(count);
        self.offset += count as u64;
        count
    }

    pub fn read_to(&mut self, offset: u64) {
        while self.offset < offset {
            let left = (offset - self.offset) as usize;
            assert!(self.read(left) > 0, "closed at {}, before {offset}", self.offset);
        }
    }

    /// Reads and acknowledges until the connection is closed.
    pub fn acknowledge_all(&mut self) {
        self.ack();
        while self.read(usize::MAX) > 0 {
            self.ack();
        }
    }

    /// Loses its connection. Of what it has got only whole commands count, as with Redis.
    pub fn reconnect(&mut self, server: &Server) {
        let whole = whole(&self.stream);
        self.offset -= (self.stream.len() - whole) as u64;
        self.stream.truncate(whole);
        self.reader = Replica::connect(server).reader;
        self.introduce();
    }

    pub fn socket(&self) -> io::Result<TcpStream> {
        self.reader.get_ref().try_clone()
    }
}

/// How many of the bytes are whole commands.
pub fn whole(bytes: &[u8]) -> usize {
    let number = |at: usize| {
        let end = at + bytes.get(at..)?.iter().position(|byte| *byte == b'\n')?;
        let text = std::str::from_utf8(&bytes[at + 1..end - 1]).ok()?;
        Some((text.parse::<usize>().ok()?, end + 1))
    };
    let command = |at: usize| {
        let (count, mut at) = number(at)?;
        for _ in 0..count {
            let (length, begin) = number(at)?;
            at = begin + length + 2;
        }
        (at <= bytes.len()).then_some(at)
    };
    let mut at = 0;
    while at < bytes.len()
        && let Some(next) = command(at)
    {
        at = next;
    }
    at
}

/// What the log's files hold, without annotations.
pub fn without_annotations(mut log: &[u8]) -> Vec<u8> {
    let mut records = Vec::new();
    while !log.is_empty() {
        let count = whole(log);
        records.extend_from_slice(&log[..count]);
        log = &log[count..];
        if log.first() == Some(&b'#') {
            let end = log.iter().position(|byte| *byte == b'\n').expect("a whole line");
            log = &log[end + 1..];
        } else {
            assert!(log.is_empty(), "the log is torn");
        }
    }
    records
}
