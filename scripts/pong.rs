//! A server with a thread per client that answers `+PONG` to every complete command, and does
//! nothing else: no lookup, no lock, no log.
//!
//! `bench.sh` measures it beside the real ones. With one command in flight for each of many clients
//! it is the most that this design (a thread per client, blocking I/O) can reach on the machine at
//! hand: whatever lies between it and an event loop is the kernel waking threads. (For a
//! client that is alone our server spins, and this one does not.) With deep pipelines
//! it shows how much of the time the sockets and the parsing take, whatever a command does.
//!
//! Usage: `pong PORT`

use std::io::{self, Read, Write};
use std::net::{TcpListener, TcpStream};

fn main() -> io::Result<()> {
    let port = std::env::args()
        .nth(1)
        .and_then(|port| port.parse::<u16>().ok());
    let port = port.ok_or_else(|| io::Error::other("usage: pong PORT"))?;
    for stream in TcpListener::bind(("127.0.0.1", port))?.incoming() {
        let stream = stream?;
        // A client that goes away ends its thread; nobody has to be told.
        std::thread::spawn(move || serve(stream));
    }
    Ok(())
}

/// Answers all complete commands of each read with one write: the replies of a pipeline leave
/// together, and those before a half-received command do not wait for its rest.
fn serve(mut stream: TcpStream) -> io::Result<()> {
    stream.set_nodelay(true)?;
    let mut input = vec![0; 64 * 1024];
    let mut held = 0; // the first `held` bytes of `input` have arrived and are not yet answered
    let mut output = Vec::new();
    loop {
        if held == input.len() {
            input.resize(2 * held, 0);
        }
        let received = stream.read(&mut input[held..])?;
        if received == 0 {
            return Ok(());
        }
        held += received;

        let mut done = 0;
        while let Some(length) = complete(&input[done..held]) {
            done += length;
            output.extend_from_slice(b"+PONG\r\n");
        }
        input.copy_within(done..held, 0);
        held -= done;
        stream.write_all(&output)?;
        output.clear();
    }
}

/// The length of the command at the start of `bytes`, if all of it is there.
fn complete(bytes: &[u8]) -> Option<usize> {
    let header = line(bytes)?;
    let mut at = header.len() + 2;
    if header.first() == Some(&b'*') {
        for _ in 0..number(header) {
            let length = line(bytes.get(at..)?)?;
            at += length.len() + 2 + number(length) + 2;
        }
    }
    (at <= bytes.len()).then_some(at)
}

/// The bytes before the first CRLF.
fn line(bytes: &[u8]) -> Option<&[u8]> {
    let end = bytes.iter().position(|&byte| byte == b'\r')?;
    (end + 1 < bytes.len()).then(|| &bytes[..end])
}

/// The number after the type byte. Only a benchmark talks to us, so garbage may count as nothing.
fn number(line: &[u8]) -> usize {
    line[1..]
        .iter()
        .filter(|byte| byte.is_ascii_digit())
        .fold(0, |n, &digit| n * 10 + usize::from(digit - b'0'))
}
