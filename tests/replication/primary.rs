//! A primary as a test needs it: it has a history that was recorded before, and sends as much of it as the test says.

use crate::fake::Replica;
use crate::support::{Server, encode};
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::time::Duration;

/// A snapshot, and what came behind it.
pub struct History {
    pub id: String,
    pub begin: u64,
    pub snapshot: Vec<u8>,
    pub stream: Vec<u8>,
}

impl History {
    /// What a replica was sent.
    pub fn of(replica: Replica) -> History {
        let begin = replica.offset - replica.stream.len() as u64;
        History { id: replica.id, begin, snapshot: replica.snapshot, stream: replica.stream }
    }

    pub fn end(&self) -> u64 {
        self.begin + self.stream.len() as u64
    }
}

pub struct Primary {
    listener: TcpListener,
    pub history: History,
    /// Snapshots are sent with their length, and not with a mark at the end.
    pub tells_length: bool,
}

/// A replica that has come, and has been answered.
pub struct Guest {
    pub reader: BufReader<TcpStream>,
    /// Where it goes on. None: it wants a snapshot.
    pub from: Option<u64>,
    mark: Option<String>,
}

impl Primary {
    pub fn new(history: History) -> Primary {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        Primary { listener, history, tells_length: false }
    }

    pub fn port(&self) -> u16 {
        self.listener.local_addr().unwrap().port()
    }

    /// Makes this server follow us, anew if it does already; returns it when it has come.
    pub fn invite(&self, server: &Server) -> Guest {
        let mut client = server.client();
        assert_eq!(client.run("REPLICAOF NO ONE"), "OK");
        assert_eq!(client.run(&format!("REPLICAOF 127.0.0.1 {}", self.port())), "OK");
        self.welcome()
    }

    /// Waits for a replica, and answers it until it has asked for what it wants.
    pub fn welcome(&self) -> Guest {
        loop {
            let stream = self.listener.accept().unwrap().0;
            stream.set_read_timeout(Some(Duration::from_secs(100))).unwrap();
            if let Some(guest) = self.talk(BufReader::new(stream)) {
                return guest;
            }
        }
    }

    /// None if it hangs up. (Another REPLICAOF may have come.)
    fn talk(&self, mut reader: BufReader<TcpStream>) -> Option<Guest> {
        loop {
            let words = read_command(&mut reader)?;
            let words: Vec<&str> = words.iter().map(String::as_str).collect();
            let answer = match words[..] {
                ["PING"] => "+PONG\r\n".into(),
                ["REPLCONF", ..] => "+OK\r\n".into(),
                ["PSYNC", id, offset] => {
                    let offset = offset.parse::<i64>().unwrap() - 1;
                    let is_ours = id == self.history.id && offset as u64 <= self.history.end();
                    let from = is_ours.then_some(offset as u64);
                    let answer = match from {
                        Some(_) => format!("+CONTINUE {id}\r\n"),
                        None => {
                            format!("\n+FULLRESYNC {} {}\r\n", self.history.id, self.history.begin)
                        }
                    };
                    reader.get_ref().write_all(answer.as_bytes()).ok()?;
                    let mark = (!self.tells_length).then(|| "m".repeat(40));
                    return Some(Guest { reader, from, mark });
                }
                _ => format!("-ERR unknown command '{}'\r\n", words[0]),
            };
            reader.get_ref().write_all(answer.as_bytes()).ok()?;
        }
    }
}

fn read_command(reader: &mut BufReader<TcpStream>) -> Option<Vec<String>> {
    let line = |reader: &mut BufReader<TcpStream>| {
        let mut line = String::new();
        loop {
            reader.read_line(&mut line).ok().filter(|count| *count > 0)?;
            // Newlines say that it lives.
            if line != "\n" {
                return Some(line);
            }
            line.clear();
        }
    };
    let count = line(reader)?.strip_prefix('*')?.trim_end().parse().unwrap();
    let mut words = Vec::new();
    for _ in 0..count {
        let length: usize = line(reader)?.strip_prefix('$')?.trim_end().parse().unwrap();
        let mut word = vec![0; length + 2];
        reader.read_exact(&mut word).ok()?;
        words.push(String::from_utf8_lossy(&word[..length]).into_owned());
    }
    Some(words)
}

impl Guest {
    pub fn send(&mut self, bytes: &[u8]) {
        let _ = self.reader.get_ref().write_all(bytes);
    }

    /// What a whole snapshot is on the wire.
    pub fn wire(&self, snapshot: &[u8]) -> Vec<u8> {
        match &self.mark {
            None => [format!("\n${}\r\n", snapshot.len()).as_bytes(), snapshot].concat(),
            Some(mark) => {
                [format!("\n$EOF:{mark}\r\n").as_bytes(), snapshot, mark.as_bytes()].concat()
            }
        }
    }

    /// Sends the snapshot, and waits until it says that it has that.
    pub fn send_snapshot(&mut self, history: &History) {
        assert_eq!(self.from, None);
        let wire = self.wire(&history.snapshot);
        self.send(&wire);
        self.wait_for(history.begin);
        self.from = Some(history.begin);
    }

    /// Sends the stream from where it is, so many bytes of it.
    pub fn send_stream(&mut self, history: &History, count: usize) {
        let from = (self.from.unwrap() - history.begin) as usize;
        let to = (from + count).min(history.stream.len());
        self.send(&history.stream[from..to]);
    }

    /// Asks it how far it is until it says this.
    pub fn wait_for(&mut self, offset: u64) {
        loop {
            let words = read_command(&mut self.reader).expect("an acknowledgement");
            assert_eq!(words[..2], ["REPLCONF", "ACK"]);
            let acked: u64 = words[2].parse().unwrap();
            assert!(acked <= offset, "{acked} is more than {offset}");
            if acked == offset {
                return;
            }
        }
    }

    pub fn say(&mut self, words: &[&str]) -> u64 {
        let bytes = encode(words);
        self.send(&bytes);
        bytes.len() as u64
    }
}
