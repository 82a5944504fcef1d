//! Clients that write while one server takes the place of another, and look afterwards for what was acknowledged.
//!
//! ```text
//! writer ADDRESS CLIENTS < a-pipe
//! ```
//!
//! The file ADDRESS holds the port of the primary, as an application has it in its configuration. Each client writes the
//! numbers 0, 1, 2, … one after the other, in values of all types, some by a script. After any error it reads the
//! file again, connects, and goes on with the next number. So a number has one of three fates: its write was
//! acknowledged, it was refused, or the connection ended before the answer came.
//!
//! When the pipe is closed the clients stop. Then all is read back from the server that the file names. A number that was
//! acknowledged must be there, once; one that was refused must not; of a list the order must be right, too.
//!
//! A client that gets nothing acknowledged for a minute fails. A password is taken from REDISCLI_AUTH, as by
//! redis-cli.

use std::fs;
use std::io::{self, BufRead, BufReader, Error, Read, Write};
use std::net::TcpStream;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::thread;
use std::time::{Duration, Instant};

const PATIENCE: Duration = Duration::from_secs(60);

/// Questions on their way at a time.
const AT_ONCE: usize = 64;

/// Those that the clients use, by turns.
const DATABASES: [&str; 3] = ["0", "1", "9"];

#[derive(Clone, Copy, PartialEq)]
enum Fate {
    Acknowledged,
    Refused,
    /// The connection ended first.
    Unknown,
}

/// What a client has written, and its longest wait from one acknowledgement to the next.
struct Written {
    fates: Vec<Fate>,
    longest: Duration,
}

fn main() {
    let args: Vec<String> = std::env::args().skip(1).collect();
    if let Err(error) = run(&args) {
        eprintln!("writer {}: {error}", args.join(" "));
        std::process::exit(1);
    }
}

fn run(args: &[String]) -> io::Result<()> {
    let [address, clients] = args else { return Err(Error::other("usage: writer ADDRESS CLIENTS")) };
    let clients: usize = clients.parse().map_err(Error::other)?;
    let stop = &AtomicBool::new(false);
    let written: Vec<io::Result<Written>> = thread::scope(|scope| {
        let start = |id| scope.spawn(move || write(id, address, stop));
        let writers: Vec<_> = (0..clients).map(start).collect();
        let ended = io::copy(&mut io::stdin(), &mut io::sink());
        stop.store(true, Relaxed);
        ended.expect("the pipe can be read");
        writers.into_iter().map(|writer| writer.join().expect("a client does not panic")).collect()
    });
    let written: Vec<Written> = written.into_iter().collect::<io::Result<_>>()?;
    thread::scope(|scope| {
        let look = |(id, written)| scope.spawn(move || look_for(id, written, address));
        let looking: Vec<_> = written.iter().enumerate().map(look).collect();
        looking.into_iter().try_for_each(|look| look.join().expect("a client does not panic"))
    })?;
    let (mut acknowledged, mut cut_off, mut longest) = (0, 0, Duration::ZERO);
    for written in written {
        let count = |fate| written.fates.iter().filter(|other| **other == fate).count();
        acknowledged += count(Fate::Acknowledged);
        cut_off += count(Fate::Unknown);
        longest = longest.max(written.longest);
    }
    println!(
        "all {acknowledged} acknowledged writes of {clients} clients are found; {cut_off} were cut off; \
         the longest wait was {:.1} s",
        longest.as_secs_f64()
    );
    Ok(())
}

fn write(id: usize, address: &str, stop: &AtomicBool) -> io::Result<Written> {
    let mut written = Written { fates: Vec::new(), longest: Duration::ZERO };
    let (mut client, mut last) = (None, Instant::now());
    while !stop.load(Relaxed) {
        let connected = match client.take() {
            Some(client) => Ok(client),
            None => Client::connect(id, address),
        };
        let result = connected.and_then(|mut connected| {
            written.fates.push(Fate::Unknown);
            let reply = connected.call(&command(id, written.fates.len() - 1))?;
            let fate = written.fates.last_mut().expect("one was pushed");
            if let Reply::Refused(text) = reply {
                *fate = Fate::Refused;
                return Err(Error::other(text));
            }
            *fate = Fate::Acknowledged;
            client = Some(connected);
            Ok(())
        });
        match result {
            Ok(()) => {
                written.longest = written.longest.max(last.elapsed());
                last = Instant::now();
            }
            Err(error) if last.elapsed() > PATIENCE => return Err(error),
            Err(_) => thread::sleep(Duration::from_millis(10)),
        }
    }
    Ok(written)
}

const SCRIPT: &str = "return redis.call('RPUSH', KEYS[1], ARGV[1])";

/// How this number is written. Every sixth goes to the list, and so does every sixth from the fifth on.
fn command(id: usize, n: usize) -> Vec<String> {
    let number = n.to_string();
    let key = |kind: &str| format!("writer:{kind}:{id}");
    match n % 6 {
        0 => words(&["RPUSH", &key("list"), &number]),
        1 => words(&["SET", &format!("{}:{n}", key("string")), &number]),
        2 => words(&["HSET", &key("hash"), &number, &number]),
        3 => words(&["ZADD", &key("zset"), &number, &number]),
        4 => words(&["SADD", &key("set"), &number]),
        _ => words(&["EVAL", SCRIPT, "1", &key("list"), &number]),
    }
}

/// Fails if the server does not hold what the fates say.
fn look_for(id: usize, written: &Written, address: &str) -> io::Result<()> {
    let mut client = Client::connect(id, address)?;
    let key = |kind: &str| format!("writer:{kind}:{id}");
    let Reply::Array(list) = client.call(&words(&["LRANGE", &key("list"), "0", "-1"]))? else {
        return Err(Error::other("the list cannot be read"));
    };
    let mut list = list.iter().peekable();
    let question = |n: usize| {
        let number = n.to_string();
        match n % 6 {
            1 => words(&["GET", &format!("{}:{n}", key("string"))]),
            2 => words(&["HGET", &key("hash"), &number]),
            3 => words(&["ZSCORE", &key("zset"), &number]),
            4 => words(&["SISMEMBER", &key("set"), &number]),
            // The list is here.
            _ => words(&["PING"]),
        }
    };
    for (chunk, fates) in written.fates.chunks(AT_ONCE).enumerate() {
        let numbers = chunk * AT_ONCE..chunk * AT_ONCE + fates.len();
        numbers.clone().try_for_each(|n| client.send(&question(n)))?;
        for (n, fate) in numbers.zip(fates) {
            let (reply, number) = (client.read()?, n.to_string());
            let is_there = match (n % 6, reply) {
                (0 | 5, _) => list.next_if(|element| **element == number).is_some(),
                (4, Reply::One(text)) => text == "1",
                (_, Reply::One(text)) => text == number,
                _ => false,
            };
            let what = match (fate, is_there) {
                (Fate::Acknowledged, false) => "was acknowledged, and is LOST",
                (Fate::Refused, true) => "was refused, and is there",
                _ => continue,
            };
            return Err(Error::other(format!("{} {what}", command(id, n).join(" "))));
        }
    }
    match list.next() {
        None => Ok(()),
        Some(element) => Err(Error::other(format!("{element} is in the list twice, or out of its order"))),
    }
}

fn words(words: &[&str]) -> Vec<String> {
    words.iter().map(ToString::to_string).collect()
}

struct Client(BufReader<TcpStream>);

enum Reply {
    One(String),
    Nothing,
    Array(Vec<String>),
    Refused(String),
}

impl Client {
    /// To the server that the file names.
    fn connect(id: usize, address: &str) -> io::Result<Client> {
        let port: u16 = fs::read_to_string(address)?.trim().parse().map_err(Error::other)?;
        let stream = TcpStream::connect(("127.0.0.1", port))?;
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(PATIENCE))?;
        let mut client = Client(BufReader::new(stream));
        if let Ok(password) = std::env::var("REDISCLI_AUTH") {
            client.call(&words(&["AUTH", &password]))?;
        }
        match client.call(&words(&["SELECT", DATABASES[id % DATABASES.len()]]))? {
            Reply::Refused(text) => Err(Error::other(text)),
            _ => Ok(client),
        }
    }

    fn call(&mut self, words: &[String]) -> io::Result<Reply> {
        self.send(words)?;
        self.read()
    }

    fn send(&mut self, words: &[String]) -> io::Result<()> {
        let mut out = format!("*{}\r\n", words.len());
        for word in words {
            out += &format!("${}\r\n{word}\r\n", word.len());
        }
        self.0.get_mut().write_all(out.as_bytes())
    }

    fn read(&mut self) -> io::Result<Reply> {
        let mut line = String::new();
        if self.0.read_line(&mut line)? == 0 || !line.ends_with("\r\n") {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        let (kind, rest) = line.trim_end().split_at(1);
        match kind {
            "+" | ":" => Ok(Reply::One(rest.into())),
            "-" => Ok(Reply::Refused(rest.into())),
            "$" if rest == "-1" => Ok(Reply::Nothing),
            "$" => {
                let mut bytes = vec![0; rest.parse::<usize>().map_err(Error::other)? + 2];
                self.0.read_exact(&mut bytes)?;
                bytes.truncate(bytes.len() - 2);
                Ok(Reply::One(String::from_utf8_lossy(&bytes).into_owned()))
            }
            "*" => {
                let element = |_| match self.read()? {
                    Reply::One(text) => Ok(text),
                    _ => Err(Error::other("an array of strings was expected")),
                };
                let count: usize = rest.parse().map_err(Error::other)?;
                (0..count).map(element).collect::<io::Result<_>>().map(Reply::Array)
            }
            _ => Err(Error::other(format!("the server answers {line}"))),
        }
    }
}
