//! What `bench.sh` needs and neither Python nor redis-benchmark can do well: the longest wait of one client
//! while something heavy happens, thousands of connections at once, subscribers, and the time from a push to
//! the pop of a client that waits for it.
//!
//! It knows nothing of the server's inside: everything goes through the socket, so all servers are
//! measured by the same code. Each subcommand does one thing and prints its figures, or says that it is ready;
//! an error goes to stderr with exit status 1. No wait is endless: every socket has a timeout of a minute.
//!
//! The load generator shares the machine with the server it measures. On two cores a client that
//! never sleeps takes a core from the server, so the probing client rests 100 µs between two
//! questions: a wait is seen up to 100 µs too short, which does not matter among milliseconds.

use std::error::Error;
use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::sync::Barrier;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::thread;
use std::time::{Duration, Instant};

const USAGE: &str = "usage: probe longest PORT | connect PORT COUNT | listen PORT COUNT
     | handover PORT CONSUMERS COUNT PIPELINE";

const PATIENCE: Duration = Duration::from_secs(60);

fn main() {
    let args: Vec<String> = std::env::args().skip(1).collect();
    if let Err(error) = run(&args.iter().map(String::as_str).collect::<Vec<_>>()) {
        eprintln!("probe {}: {error}", args.join(" "));
        std::process::exit(1);
    }
}

fn run(args: &[&str]) -> Result<(), Box<dyn Error>> {
    match *args {
        ["longest", port] => println!("{:.3}", milliseconds(longest(port.parse()?)?)),
        ["connect", port, count] => {
            println!("{:.1}", milliseconds(connect(port.parse()?, count.parse()?)?));
        }
        ["listen", port, count] => listen(port.parse()?, count.parse()?)?,
        ["handover", port, consumers, count, pipeline] => {
            let (rate, p99) =
                handover(port.parse()?, consumers.parse()?, count.parse()?, pipeline.parse()?)?;
            println!("{rate:.0} {:.3}", milliseconds(p99));
        }
        _ => return Err(USAGE.into()),
    }
    Ok(())
}

fn milliseconds(time: Duration) -> f64 {
    time.as_secs_f64() * 1e3
}

/// Alternates SET and GET (so that it meets both a lock for readers and one for writers) until stdin ends,
/// and returns the longest that an answer took.
fn longest(port: u16) -> io::Result<Duration> {
    let done = AtomicBool::new(false);
    let mut client = Client::connect(port)?;
    client.call(&["SET", "probe", "0"])?;
    println!("ready");
    thread::scope(|scope| {
        let prober = scope.spawn(|| {
            let mut longest = Duration::ZERO;
            while !done.load(Relaxed) {
                for question in [&["SET", "probe", "1"][..], &["GET", "probe"][..]] {
                    let start = Instant::now();
                    client.call(question)?;
                    longest = longest.max(start.elapsed());
                    thread::sleep(Duration::from_micros(100));
                }
            }
            Ok(longest)
        });
        io::copy(&mut io::stdin(), &mut io::sink())?;
        done.store(true, Relaxed);
        prober.join().expect("the prober does not panic")
    })
}

/// From the moment when `count` threads connect together until each had an answer to its PING.
fn connect(port: u16, count: usize) -> io::Result<Duration> {
    let barrier = Barrier::new(count + 1);
    let hello = || {
        barrier.wait();
        let mut client = Client::connect(port)?;
        client.call(&["PING"])?;
        Ok(client)
    };
    thread::scope(|scope| {
        let small = || thread::Builder::new().stack_size(64 * 1024);
        let workers = (0..count).map(|_| small().spawn_scoped(scope, hello));
        let workers: Vec<_> =
            workers.collect::<io::Result<_>>().expect("the machine has threads to spare");
        barrier.wait();
        let start = Instant::now();
        // Nobody leaves before all have come.
        let clients: io::Result<Vec<Client>> = workers
            .into_iter()
            .map(|worker| worker.join().expect("a client does not panic"))
            .collect();
        clients.map(|_| start.elapsed())
    })
}

/// Subscribes `count` connections to the channel `c`, says so, and reads what comes until killed.
fn listen(port: u16, count: usize) -> io::Result<()> {
    for _ in 0..count {
        let mut stream = TcpStream::connect(("127.0.0.1", port))?;
        stream.write_all(b"SUBSCRIBE c\r\n")?;
        // The confirmation, or its first byte: from then on nothing is missed.
        stream.read_exact(&mut [0])?;
        thread::spawn(move || io::copy(&mut stream, &mut io::sink()));
    }
    println!("ready");
    loop {
        thread::park();
    }
}

/// From one producer, which pushes `pipeline` elements at a time, to consumers that each wait in BLPOP:
/// elements a second, and the 99th percentile of the time from a push to its pop. An element is the moment at
/// which it was sent.
fn handover(
    port: u16,
    consumers: usize,
    count: usize,
    pipeline: usize,
) -> io::Result<(f64, Duration)> {
    let start = Instant::now();
    let nanoseconds = || start.elapsed().as_nanos();
    let consume = || {
        let mut client = Client::connect(port)?;
        let mut times = Vec::new();
        loop {
            let element = client.call(&["BLPOP", "queue", "0"])?;
            match element.parse::<u128>() {
                Ok(sent) => times.push(nanoseconds() - sent),
                Err(_) => return io::Result::Ok(times), // `end`
            }
        }
    };
    thread::scope(|scope| {
        let consumers: Vec<_> = (0..consumers).map(|_| scope.spawn(consume)).collect();
        thread::sleep(Duration::from_millis(200));
        let mut producer = Client::connect(port)?;
        let mut push = |elements: &[String]| {
            let mut out = Vec::new();
            elements.iter().for_each(|element| command(&mut out, &["RPUSH", "queue", element]));
            producer.stream.get_mut().write_all(&out)?;
            elements.iter().try_for_each(|_| producer.read_reply())
        };
        let began = Instant::now();
        for _ in 0..count / pipeline {
            push(&vec![nanoseconds().to_string(); pipeline])?;
        }
        let mut watcher = Client::connect(port)?;
        while watcher.call(&["LLEN", "queue"])? != "0" {}
        let rate = (count / pipeline * pipeline) as f64 / began.elapsed().as_secs_f64();
        push(&vec!["end".to_string(); consumers.len()])?;
        let mut times = Vec::with_capacity(count);
        for consumer in consumers {
            times.extend(consumer.join().expect("a consumer does not panic")?);
        }
        times.sort_unstable();
        Ok((rate, Duration::from_nanos(times[times.len() * 99 / 100] as u64)))
    })
}

// ---- the wire ------------------------------------------------------------------------------

struct Client {
    stream: BufReader<TcpStream>,
    /// The line or the body of the last reply.
    reply: Vec<u8>,
}

impl Client {
    fn connect(port: u16) -> io::Result<Client> {
        let stream = TcpStream::connect(("127.0.0.1", port))?;
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(PATIENCE))?;
        stream.set_write_timeout(Some(PATIENCE))?;
        Ok(Client { stream: BufReader::new(stream), reply: Vec::new() })
    }

    fn call(&mut self, args: &[&str]) -> io::Result<String> {
        let mut out = Vec::new();
        command(&mut out, args);
        self.stream.get_mut().write_all(&out)?;
        self.read_reply()?;
        Ok(String::from_utf8_lossy(&self.reply).into_owned())
    }

    /// Of an array only the last element is kept. An error reply is an error: a figure must not come
    /// from a server that refuses.
    fn read_reply(&mut self) -> io::Result<()> {
        self.reply.clear();
        if self.stream.read_until(b'\n', &mut self.reply)? == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        let line = String::from_utf8_lossy(self.reply[1..].trim_ascii_end()).into_owned();
        match self.reply[0] {
            b'+' | b':' => {}
            b'*' => {
                for _ in 0..line.parse().map_err(io::Error::other)? {
                    self.read_reply()?;
                }
                return Ok(());
            }
            b'$' if line == "-1" => {}
            b'$' => {
                let length: usize = line.parse().map_err(io::Error::other)?;
                self.reply.resize(length + 2, 0);
                self.stream.read_exact(&mut self.reply)?;
                self.reply.truncate(length);
                return Ok(());
            }
            _ => return Err(io::Error::other(format!("the server answered {line}"))),
        }
        self.reply = line.into_bytes();
        Ok(())
    }
}

fn command(out: &mut Vec<u8>, args: &[&str]) {
    let mut put = |text: &[u8]| out.extend_from_slice(text);
    put(format!("*{}\r\n", args.len()).as_bytes());
    for arg in args {
        put(format!("${}\r\n", arg.len()).as_bytes());
        put(arg.as_bytes());
        put(b"\r\n");
    }
}
