//! A client as a test needs it: it sends what it is told, byte for byte, and never waits for ever.
//!
//! ```text
//! let mut client = server.client();
//! assert_eq!(client.run("SET k v"), "OK");                  as at redis-cli
//! assert_eq!(client.call(&["GET", "k"]), Value::bulk("v"));  as a library sees it
//! client.raw(b"PING\r\nPING\r\n");                           as the wire sees it
//! ```

use super::patience::{GUARD, Patience, eventually};
use super::{Value, split};
use std::io::{self, BufRead, BufReader, ErrorKind, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::time::Duration;

pub struct Client {
    reader: BufReader<Socket>,
    /// The bytes of the value read last.
    wire: Vec<u8>,
}

impl Client {
    /// Connects to a server of which no process is known. `Server::client` is more impatient with
    /// one that rests.
    pub fn connect(address: SocketAddr) -> io::Result<Client> {
        Client::connect_to(address, None)
    }

    /// Connects to the server that this process is.
    pub fn connect_to(address: SocketAddr, server: Option<u32>) -> io::Result<Client> {
        Ok(Client { reader: BufReader::new(Socket::connect(address, server)?), wire: Vec::new() })
    }

    /// The socket itself, for tests that read and write it without a client's manners.
    pub fn socket(&self) -> &Socket {
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

    /// Sends units in one piece, each of some commands on the wire, and reads their replies. Calls `acknowledged`
    /// after each unit. Returns whether the server is still there. No reply may be an error.
    pub fn send_units(&mut self, units: &[Vec<Vec<u8>>], mut acknowledged: impl FnMut()) -> bool {
        if self.try_raw(&units.concat().concat()).is_err() {
            return false;
        }
        for commands in units {
            for _ in commands {
                match self.try_read() {
                    Ok(reply) => assert!(!reply.to_string().contains("error"), "{reply}"),
                    Err(_) => return false,
                }
            }
            acknowledged();
        }
        true
    }

    /// Reads one value, whether it is a reply or a push.
    pub fn read(&mut self) -> Value {
        self.try_read().expect("the server answers in time")
    }

    pub fn try_read(&mut self) -> io::Result<Value> {
        self.wire.clear();
        Value::read(&mut self.reader, &mut self.wire).map_err(|error| match error.kind() {
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

    /// Like `call`, for a test that reports the error itself.
    pub fn try_call<W: AsRef<[u8]>>(&mut self, words: &[W]) -> io::Result<Value> {
        self.try_raw(&encode(words))?;
        self.try_read()
    }

    /// Sends all the commands before it reads the first reply.
    pub fn try_call_all(&mut self, commands: &[Vec<Vec<u8>>]) -> io::Result<Vec<Value>> {
        let bytes: Vec<u8> = commands.iter().flat_map(|words| encode(words)).collect();
        self.try_raw(&bytes)?;
        commands.iter().map(|_| self.try_read()).collect()
    }

    /// Says that nothing more will be sent, and reads all that still comes.
    pub fn read_to_end(mut self) -> io::Result<Vec<Value>> {
        // An error means that the server has hung up already.
        let _ = self.socket().shutdown(Shutdown::Write);
        let mut values = Vec::new();
        while !self.reader.fill_buf()?.is_empty() {
            values.push(self.try_read()?);
        }
        Ok(values)
    }

    /// Runs a line as redis-cli would and returns what it would print.
    pub fn run(&mut self, line: &str) -> String {
        let words = split(line).expect("balanced quotes");
        self.call(&words).to_string()
    }

    /// Waits until the server has seen that all other clients are gone.
    pub fn wait_until_alone(&mut self) {
        eventually("all other clients are gone", || {
            self.run("INFO clients").contains("connected_clients:1\\r")
        });
    }

    /// Whether something has come that was not read; does not wait for it.
    pub fn has_arrived(&self) -> bool {
        let stream = &self.socket().stream;
        stream.set_nonblocking(true).expect("an option of sockets");
        let peeked = stream.peek(&mut [0]);
        stream.set_nonblocking(false).expect("an option of sockets");
        !self.reader.buffer().is_empty() || peeked.is_ok()
    }

    /// Whether the server has closed the connection with nothing left to read; waits for it.
    pub fn is_closed(&mut self) -> bool {
        match self.reader.read(&mut [0]) {
            Ok(count) => count == 0,
            Err(error) => error.kind() == ErrorKind::ConnectionReset,
        }
    }
}

/// A connection whose reads and writes wait as long as it is of use.
pub struct Socket {
    stream: TcpStream,
    /// The process at the other end.
    server: Option<u32>,
}

impl Socket {
    fn connect(address: SocketAddr, server: Option<u32>) -> io::Result<Socket> {
        let stream = TcpStream::connect_timeout(&address, GUARD)?;
        // After that much without a byte, `patiently` decides whether to go on.
        let now_and_then = Some(Duration::from_millis(500));
        stream.set_read_timeout(now_and_then)?;
        stream.set_write_timeout(now_and_then)?;
        stream.set_nodelay(true)?;
        Ok(Socket { stream, server })
    }

    /// The same connection once more, for another thread.
    pub fn try_clone(&self) -> io::Result<Socket> {
        let (stream, server) = (self.stream.try_clone()?, self.server);
        Ok(Socket { stream, server })
    }

    pub fn local_addr(&self) -> io::Result<SocketAddr> {
        self.stream.local_addr()
    }

    pub fn peer_addr(&self) -> io::Result<SocketAddr> {
        self.stream.peer_addr()
    }

    pub fn shutdown(&self, how: Shutdown) -> io::Result<()> {
        self.stream.shutdown(how)
    }

    fn patiently(&self, mut act: impl FnMut(&TcpStream) -> io::Result<usize>) -> io::Result<usize> {
        let mut patience = None;
        loop {
            match act(&self.stream) {
                Err(error)
                    if [ErrorKind::WouldBlock, ErrorKind::TimedOut].contains(&error.kind()) =>
                {
                    let patience = patience.get_or_insert_with(|| Patience::new(self.server));
                    if patience.is_over() {
                        return Err(io::Error::new(
                            ErrorKind::TimedOut,
                            "the server rests, and says nothing",
                        ));
                    }
                }
                result => return result,
            }
        }
    }
}

impl Read for &Socket {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.patiently(|mut stream| stream.read(buffer))
    }
}

impl Write for &Socket {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.patiently(|mut stream| stream.write(bytes))
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Read for Socket {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        (&*self).read(buffer)
    }
}

impl Write for Socket {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        (&*self).write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
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
