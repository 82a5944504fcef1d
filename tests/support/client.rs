//! A client as a test needs it: it sends what it is told, byte for byte, and never waits for ever.
//!
//! ```text
//! let mut client = server.client();
//! assert_eq!(client.run("SET k v"), "OK");                  as at redis-cli
//! assert_eq!(client.call(&["GET", "k"]), Value::bulk("v"));  as a library sees it
//! client.raw(b"PING\r\nPING\r\n");                           as the wire sees it
//! ```

use super::{LIMIT, Value, split};
use std::io::{self, BufReader, ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};

pub struct Client {
    /// Reads time out after `LIMIT`: a server that does not answer fails the test.
    reader: BufReader<TcpStream>,
    /// The bytes of the value read last.
    wire: Vec<u8>,
}

impl Client {
    pub fn connect(address: SocketAddr) -> io::Result<Client> {
        let socket = TcpStream::connect_timeout(&address, LIMIT)?;
        socket.set_read_timeout(Some(LIMIT))?;
        socket.set_write_timeout(Some(LIMIT))?;
        socket.set_nodelay(true)?;
        Ok(Client {
            reader: BufReader::new(socket),
            wire: Vec::new(),
        })
    }

    /// The socket itself, for tests that shut it down or change its timeouts.
    pub fn socket(&self) -> &TcpStream {
        self.reader.get_ref()
    }

    /// Sends one command as an array of bulks and does not read the reply.
    pub fn send<W: AsRef<[u8]>>(&mut self, words: &[W]) {
        self.raw(&encode(words));
    }

    /// Sends these bytes and no others.
    pub fn raw(&mut self, bytes: &[u8]) {
        self.try_raw(bytes).expect("the server takes what is sent");
    }

    /// Like `raw`, for a test in which the server may already have closed the connection.
    pub fn try_raw(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.reader.get_mut().write_all(bytes)
    }

    /// Reads one value, whether it is a reply or a push.
    pub fn read(&mut self) -> Value {
        self.try_read().expect("the server answers in time")
    }

    pub fn try_read(&mut self) -> io::Result<Value> {
        self.wire.clear();
        Value::read(&mut self.reader, &mut self.wire).map_err(|error| match error.kind() {
            // What the system calls a read that timed out means little to the reader of a test.
            ErrorKind::WouldBlock => io::Error::new(ErrorKind::TimedOut, "no reply in time"),
            ErrorKind::UnexpectedEof => io::Error::new(error.kind(), "the connection was closed"),
            _ => error,
        })
    }

    /// The bytes of the value read last.
    pub fn wire(&self) -> &[u8] {
        &self.wire
    }

    /// Sends a command and reads one value.
    pub fn call<W: AsRef<[u8]>>(&mut self, words: &[W]) -> Value {
        self.send(words);
        self.read()
    }

    /// Runs a line as redis-cli would and returns what it would print.
    pub fn run(&mut self, line: &str) -> String {
        let words = split(line).expect("balanced quotes");
        self.call(&words).to_string()
    }

    /// Whether the server has closed the connection with nothing left to read; waits for it.
    pub fn is_closed(&mut self) -> bool {
        match self.reader.read(&mut [0]) {
            Ok(count) => count == 0,
            Err(error) => error.kind() == ErrorKind::ConnectionReset,
        }
    }
}

/// One command on the wire, and also one record of the log.
pub fn encode<W: AsRef<[u8]>>(words: &[W]) -> Vec<u8> {
    let mut out = format!("*{}\r\n", words.len()).into_bytes();
    for word in words {
        let word = word.as_ref();
        out.extend(format!("${}\r\n", word.len()).into_bytes());
        out.extend(word);
        out.extend(b"\r\n");
    }
    out
}
