//! What `bench.sh` needs and neither the shell nor redis-benchmark can do: fill a server with
//! known keys, find the worst moment of one client while something heavy happens, overwrite with
//! many clients, open a thousand connections at once, hold thousands idle, listen to a channel, write
//! a log to replay.
//!
//! It knows nothing of the server's inside: everything goes through the socket, so both servers
//! are measured by the same code. Each subcommand does one thing and prints one figure, or
//! nothing; an error goes to stderr with exit status 1. No wait is endless: every socket has a
//! timeout of a minute.
//!
//! The load generator shares the machine with the server it measures. On two cores a client that
//! never sleeps takes a core from the server, so the probing client rests 100 µs between two
//! questions: a pause is seen up to 100 µs too short, which does not matter among milliseconds.

#[path = "probe-replication.rs"]
mod replication;

use std::error::Error;
use std::fs::{self, File};
use std::io::{self, BufRead, BufReader, BufWriter, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::sync::Barrier;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::thread;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

const USAGE: &str =
    "usage: probe free-port | wait PORT PID | strings PORT COUNT SIZE | hashes PORT COUNT
     | pause PORT grow|expire|flushall|del|rewrite COUNT | churn PORT KEYS WRITES CLIENTS
     | connect PORT COUNT | idle PORT COUNT | listen PORT COUNT | log DIR COUNT
     | types PORT COUNT | sync PORT REPLICA | lag PORT REPLICA";

/// Commands in flight on one connection when the purpose is to fill a server.
const DEPTH: usize = 64;
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
        ["free-port"] => println!("{}", TcpListener::bind("127.0.0.1:0")?.local_addr()?.port()),
        ["wait", port, pid] => wait(port.parse()?, pid)?,
        ["strings", port, count, size] => strings(port.parse()?, count.parse()?, size.parse()?)?,
        ["hashes", port, count] => hashes(port.parse()?, count.parse()?)?,
        ["pause", port, kind, count] => {
            let worst = pause(port.parse()?, kind, count.parse()?)?;
            println!("{:.3}", worst.as_secs_f64() * 1e3);
        }
        ["churn", port, keys, writes, clients] => {
            churn(
                port.parse()?,
                keys.parse()?,
                writes.parse()?,
                clients.parse()?,
            )?;
        }
        ["connect", port, count] => {
            println!(
                "{:.1}",
                connect(port.parse()?, count.parse()?)?.as_secs_f64() * 1e3
            );
        }
        ["idle", port, count] => idle(port.parse()?, count.parse()?)?,
        ["listen", port, count] => listen(port.parse()?, count.parse()?)?,
        ["log", dir, count] => log(Path::new(dir), count.parse()?)?,
        ["types", port, count] => replication::types(port.parse()?, count.parse()?)?,
        ["sync", port, replica] => {
            let (took, worst) = replication::sync(port.parse()?, replica.parse()?)?;
            println!("{:.3}\t{:.3}", took.as_secs_f64(), worst.as_secs_f64() * 1e3);
        }
        ["lag", port, replica] => {
            let lag = replication::lag(port.parse()?, replica.parse()?)?;
            let [median, longest] = [lag.median, lag.longest].map(|time| time.as_secs_f64() * 1e3);
            println!("{median:.3}\t{longest:.3}\t{}", lag.bytes);
        }
        _ => return Err(USAGE.into()),
    }
    Ok(())
}

// ---- filling -------------------------------------------------------------------------------

/// Until the server answers PING with PONG: not while it refuses connections, nor while it
/// answers `-LOADING`. Asks every 2 ms, which is the precision of a start-up time.
/// There is nothing to wait for once its process is gone.
fn wait(port: u16, pid: &str) -> io::Result<()> {
    let process = Path::new("/proc").join(pid);
    let start = Instant::now();
    loop {
        match Client::connect(port).and_then(|mut client| client.call(&["PING"])) {
            Ok(_) => return Ok(()),
            Err(error) if start.elapsed() > PATIENCE || !process.exists() => return Err(error),
            Err(_) => thread::sleep(Duration::from_millis(2)),
        }
    }
}

/// The 16-byte keys of redis-benchmark, `key:000000000000` and up.
fn strings(port: u16, count: usize, size: usize) -> io::Result<()> {
    let value = "x".repeat(size);
    // Few large values at a time, so that neither side holds many megabytes of unread input.
    let depth = (1024 * 1024 / size.max(1)).clamp(1, DEPTH);
    pipeline(port, count, depth, |i, out| {
        command(out, &["SET", &key(i), &value])
    })
}

fn key(i: usize) -> String {
    format!("key:{i:012}")
}

/// Hashes of five small fields, as an application would use for a session or a user.
fn hashes(port: u16, count: usize) -> io::Result<()> {
    pipeline(port, count, DEPTH, |i, out| {
        let (key, number) = (format!("user:{i:011}"), format!("{i}"));
        let fields = [
            "name", "Ada L.", "age", "36", "city", "London", "visits", &number, "plan", "free",
        ];
        let mut args = vec!["HSET", &key];
        args.extend(fields);
        command(out, &args);
    })
}

/// A log of `count` commands as redis-server 7 lays it out, three SETs to one HSET. It is written
/// here and not by a server, so that both servers load the very same bytes.
fn log(dir: &Path, count: usize) -> io::Result<()> {
    let dir = dir.join("appendonlydir");
    fs::create_dir_all(&dir)?;
    fs::write(
        dir.join("appendonly.aof.manifest"),
        "file appendonly.aof.1.incr.aof seq 1 type i\n",
    )?;
    let mut file = BufWriter::new(File::create(dir.join("appendonly.aof.1.incr.aof"))?);
    let mut record = Vec::new();
    command(&mut record, &["SELECT", "0"]);
    for i in 0..count {
        if i % 4 == 3 {
            // 16 fields a hash.
            command(
                &mut record,
                &[
                    "HSET",
                    &format!("hash:{:011}", i / 64),
                    &format!("field:{i}"),
                    "value",
                ],
            );
        } else {
            command(
                &mut record,
                &["SET", &key(i), "a value of thirty-two characters"],
            );
        }
        file.write_all(&record)?;
        record.clear();
    }
    file.flush()
}

// ---- pauses --------------------------------------------------------------------------------

/// The worst moment of a probing client while `kind` happens on other connections.
fn pause(port: u16, kind: &str, count: usize) -> io::Result<Duration> {
    let settle = || thread::sleep(Duration::from_millis(300));
    match kind {
        "grow" => probing(port, || strings(port, count, 32)),
        "expire" => {
            // Setting the deadlines takes about as long as setting the values took; twice that
            // and half a second later no deadline has passed before the last one is set.
            let start = Instant::now();
            strings(port, count, 32)?;
            let delay = start.elapsed() * 2 + Duration::from_millis(500);
            let deadline = SystemTime::now() + delay;
            let unix = deadline
                .duration_since(UNIX_EPOCH)
                .unwrap_or_default()
                .as_millis()
                .to_string();
            pipeline(port, count, DEPTH, |i, out| {
                command(out, &["PEXPIREAT", &key(i), &unix])
            })?;
            let left = deadline.duration_since(SystemTime::now());
            let left =
                left.map_err(|_| io::Error::other("the deadline passed before all keys had it"))?;
            thread::sleep(left.saturating_sub(Duration::from_millis(100)));
            // Done when only the probing client's own key is left.
            probing(port, || {
                until(port, &["DBSIZE"], |size| {
                    size.parse::<u64>().is_ok_and(|size| size <= 1)
                })
            })
        }
        "flushall" => {
            strings(port, count, 32)?;
            // Afterwards, too: what is not freed under the command is freed beside the probe.
            probing(port, || {
                settle();
                Client::connect(port)?.call(&["FLUSHALL"])?;
                settle();
                Ok(())
            })
        }
        "del" => {
            pipeline(port, count, DEPTH, |i, out| {
                command(
                    out,
                    &["HSET", "big", &key(i), "a value of thirty-two characters"],
                );
            })?;
            probing(port, || {
                settle();
                Client::connect(port)?.call(&["DEL", "big"])?;
                settle();
                Ok(())
            })
        }
        "rewrite" => {
            strings(port, count, 32)?;
            rewrite(port, count)
        }
        _ => Err(io::Error::other(USAGE)),
    }
}

/// The worst moment between BGREWRITEAOF and the rewrite's end, with one writer at work.
fn rewrite(port: u16, count: usize) -> io::Result<Duration> {
    let done = AtomicBool::new(false);
    thread::scope(|scope| {
        let writer = scope.spawn(|| {
            let mut random = Random(1);
            while !done.load(Relaxed) {
                pipeline(port, 100 * DEPTH, 16, |_, out| {
                    command(
                        out,
                        &[
                            "SET",
                            &key(random.below(count)),
                            "another value, of 32 characters.",
                        ],
                    );
                })?;
            }
            Ok(())
        });
        let worst = probing(port, || {
            Client::connect(port)?.call(&["BGREWRITEAOF"])?;
            let finished = |info: &str| {
                info.contains("aof_rewrite_in_progress:0")
                    && !info.contains("aof_rewrite_scheduled:1")
            };
            until(port, &["INFO", "persistence"], finished)?;
            let info = Client::connect(port)?.call(&["INFO", "persistence"])?;
            let ok = info.contains("aof_last_bgrewrite_status:ok");
            if ok {
                Ok(())
            } else {
                Err(io::Error::other("the rewrite failed"))
            }
        });
        done.store(true, Relaxed);
        writer.join().expect("the writer does not panic").and(worst)
    })
}

/// Runs `work` while a client of its own alternates SET and GET (so that it meets both a lock for
/// readers and one for writers) and returns the longest it waited for an answer.
fn probing(port: u16, work: impl FnOnce() -> io::Result<()>) -> io::Result<Duration> {
    let done = AtomicBool::new(false);
    let mut client = Client::connect(port)?;
    client.call(&["SET", "probe", "0"])?;
    thread::scope(|scope| {
        let prober = scope.spawn(|| {
            let mut worst = Duration::ZERO;
            while !done.load(Relaxed) {
                for question in [&["SET", "probe", "1"][..], &["GET", "probe"][..]] {
                    let start = Instant::now();
                    client.call(question)?;
                    worst = worst.max(start.elapsed());
                    thread::sleep(Duration::from_micros(100));
                }
            }
            Ok(worst)
        });
        let result = work();
        done.store(true, Relaxed);
        result.and(prober.join().expect("the prober does not panic"))
    })
}

/// Asks every 10 ms until the answer pleases.
fn until(port: u16, question: &[&str], pleases: impl Fn(&str) -> bool) -> io::Result<()> {
    let start = Instant::now();
    let mut client = Client::connect(port)?;
    while !pleases(&client.call(question)?) {
        if start.elapsed() > PATIENCE {
            return Err(io::Error::other(format!(
                "{} did not come to its end",
                question.join(" ")
            )));
        }
        thread::sleep(Duration::from_millis(10));
    }
    Ok(())
}

// ---- many clients --------------------------------------------------------------------------

/// Overwrites random keys with values of random length, 32 bytes on average, by many clients at
/// once. Memory that one thread took is then freed by another, which an allocator may not reuse.
fn churn(port: u16, keys: usize, writes: usize, clients: usize) -> io::Result<()> {
    let value = "y".repeat(64);
    thread::scope(|scope| {
        let churner = |seed| {
            let mut random = Random(seed);
            pipeline(port, writes / clients, 16, |_, out| {
                let (key, length) = (key(random.below(keys)), random.below(64) + 1);
                command(out, &["SET", &key, &value[..length]]);
            })
        };
        let workers: Vec<_> = (1..=clients as u64)
            .map(|seed| scope.spawn(move || churner(seed)))
            .collect();
        workers
            .into_iter()
            .try_for_each(|worker| worker.join().expect("a churner does not panic"))
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
        let workers: Vec<_> = workers
            .collect::<io::Result<_>>()
            .expect("the machine has threads to spare");
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

/// Opens `count` connections that asked one PING each, says so, and holds them until killed.
fn idle(port: u16, count: usize) -> io::Result<()> {
    let mut clients = Vec::with_capacity(count);
    for _ in 0..count {
        let mut client = Client::connect(port)?;
        client.call(&["PING"])?;
        clients.push(client.stream.into_inner()); // without its buffer
    }
    println!("ready");
    loop {
        thread::park();
    }
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
        Ok(Client {
            stream: BufReader::new(stream),
            reply: Vec::new(),
        })
    }

    fn call(&mut self, args: &[&str]) -> io::Result<String> {
        let mut out = Vec::new();
        command(&mut out, args);
        self.stream.get_mut().write_all(&out)?;
        self.read_reply()?;
        Ok(String::from_utf8_lossy(&self.reply).into_owned())
    }

    /// Reads one reply that is not an array, which is all that is asked for here.
    /// An error reply is an error: a figure must not come from a server that refuses.
    fn read_reply(&mut self) -> io::Result<()> {
        self.reply.clear();
        if self.stream.read_until(b'\n', &mut self.reply)? == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        let line = String::from_utf8_lossy(self.reply[1..].trim_ascii_end()).into_owned();
        match self.reply[0] {
            b'+' | b':' => {}
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

/// Sends `count` commands, `depth` at a time. None may be answered with an error.
fn pipeline(
    port: u16,
    count: usize,
    depth: usize,
    mut write: impl FnMut(usize, &mut Vec<u8>),
) -> io::Result<()> {
    let mut client = Client::connect(port)?;
    let mut out = Vec::new();
    for start in (0..count).step_by(depth) {
        let batch = start..count.min(start + depth);
        out.clear();
        batch.clone().for_each(|i| write(i, &mut out));
        client.stream.get_mut().write_all(&out)?;
        for _ in batch {
            client.read_reply()?;
        }
    }
    Ok(())
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

/// Xorshift: the same sequence in every run, so that both servers get the same keys.
struct Random(u64);

impl Random {
    fn below(&mut self, limit: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 >> 16) as usize % limit
    }
}
