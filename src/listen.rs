//! The addresses on which the server listens (`bind`), and protected mode. `listen/unix.rs` has the Unix socket.
//!
//! ```text
//! bind * -::*   ─▶  [::]:6379      first, because it takes IPv4 too, as ::ffff:192.0.2.7
//!                   0.0.0.0:6379   in use by the listener above, which serves it
//! bind ::       ─▶  [::]:6379      a client that comes by IPv4 is closed: nobody asked for IPv4
//! bind h -::1   ─▶  192.0.2.7:6379 a name means its IPv4 address
//!                   [::1]:6379     with a '-': skipped if this machine does not have it
//! ```
//!
//! A `-` forgives an address that the machine does not have. It never forgives an address that is *in use*:
//! clients that connect to `localhost` would then reach two servers by turns. A protocol that the kernel
//! does not know is forgiven even without a `-`. For each address that is skipped there is a warning.
//!
//! **How Redis does it**: `listenToPort` in server.c, with the same rules. Redis sets IPV6_V6ONLY, so its
//! listeners for IPv6 take only IPv6. std cannot set it: `[::]` takes both, unless net.ipv6.bindv6only is on.
//! So a client that comes by IPv4 to an address that `bind` does not name is accepted and closed at once. In
//! Redis the kernel refuses it. And with `bind ::` no other program can have that port of IPv4.

mod unix;

use crate::config::Config;
use crate::log;
use std::fmt;
use std::fs;
use std::io::{self, ErrorKind};
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener, TcpStream, ToSocketAddrs};
use std::sync::Arc;

/// What clients connect to.
pub enum Listener {
    Tcp(Port),
    Unix(unix::Socket),
}

impl Listener {
    /// Waits for a client. Also returns its address.
    pub fn accept(&self) -> io::Result<(TcpStream, Address)> {
        match self {
            Listener::Tcp(port) => port.accept(),
            Listener::Unix(socket) => socket.accept(),
        }
    }
}

/// One end of a connection.
pub enum Address {
    Ip(SocketAddr),
    /// The path of our Unix socket. Both ends have it.
    Unix(Arc<str>),
}

impl Address {
    /// Whether a client with this address is on this machine.
    pub fn is_local(&self) -> bool {
        match self {
            Address::Ip(address) => address.ip().to_canonical().is_loopback(),
            Address::Unix(_) => true,
        }
    }
}

/// As CLIENT LIST shows it.
impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        match self {
            Address::Ip(address) => address.fmt(f),
            Address::Unix(path) => write!(f, "{path}:0"),
        }
    }
}

/// The address that a client connected to, if it is known whence it came.
pub fn local_address(stream: &TcpStream, peer: &Address) -> io::Result<Address> {
    match peer {
        Address::Ip(_) => local_ip(stream).map(Address::Ip),
        Address::Unix(path) => Ok(Address::Unix(path.clone())),
    }
}

/// A socket of one address of `bind`.
#[derive(Debug)]
pub struct Port {
    socket: TcpListener,
    /// If its address is `[::]` and it takes IPv4 too: the IPv4 addresses that are served.
    ipv4: Option<Vec<Ipv4Addr>>,
}

impl Port {
    fn accept(&self) -> io::Result<(TcpStream, Address)> {
        loop {
            let (stream, peer) = self.socket.accept()?;
            let known = canonical(peer);
            if known == peer || local_ip(&stream).is_ok_and(|local| self.serves(local.ip())) {
                return Ok((stream, Address::Ip(known)));
            }
        }
    }

    /// Whether a client may come by IPv4 to this listener for IPv6. `address` is the one it connected to.
    fn serves(&self, address: IpAddr) -> bool {
        let named = |ipv4: &Ipv4Addr| ipv4.is_unspecified() || IpAddr::V4(*ipv4) == address;
        self.ipv4.iter().flatten().any(named)
    }
}

fn local_ip(stream: &TcpStream) -> io::Result<SocketAddr> {
    stream.local_addr().map(canonical)
}

/// `192.0.2.7` for `::ffff:192.0.2.7`.
fn canonical(address: SocketAddr) -> SocketAddr {
    SocketAddr::new(address.ip().to_canonical(), address.port())
}

/// Opens a listener for each address of `bind`. Also returns the port: with `port 0` the
/// system chooses it. As in Redis, `port 0` beside a Unix socket means no port at all.
pub fn open(config: &Config) -> Result<(Vec<Listener>, u16), String> {
    if !config.unixsocket.is_empty() && config.port.get() == 0 {
        return Ok((Vec::new(), 0));
    }
    let opened = Opened {
        listeners: Vec::new(),
        port: config.port.get() as u16,
        both: fs::read("/proc/sys/net/ipv6/bindv6only").is_ok_and(|only| only.starts_with(b"0")),
        skipped: Vec::new(),
    };
    let opened = opened.all(&config.bind.text(), &mut |address| TcpListener::bind(address))?;
    for text in opened.skipped {
        log::warning(format_args!("{text}; going on without it"));
    }
    Ok((opened.listeners.into_iter().map(Listener::Tcp).collect(), opened.port))
}

/// Opens the Unix socket, if the configuration asks for one. If there is a socket of that name, it goes.
pub fn open_unix(config: &Config) -> Result<Option<Listener>, String> {
    Ok(unix::open(config)?.map(Listener::Unix))
}

struct Opened {
    listeners: Vec<Port>,
    /// With `port 0`: 0 until the first listener has one.
    port: u16,
    /// Whether `[::]` takes IPv4 too.
    both: bool,
    /// Addresses that were forgiven.
    skipped: Vec<String>,
}

/// Asks the system for a listener. In tests it is a stub.
type Bind<'a> = &'a mut dyn FnMut(SocketAddr) -> io::Result<TcpListener>;

impl Opened {
    fn all(mut self, words: &str, bind: Bind) -> Result<Opened, String> {
        let mut wanted: Vec<(&str, bool)> = words
            .split_whitespace()
            .map(|word| match word.strip_prefix('-') {
                Some(name) => (name, true),
                None => (word, false),
            })
            .collect();
        // `[::]` first: it cannot be opened beside a listener for IPv4. The other way round works.
        wanted.sort_by_key(|(name, _)| !matches!(*name, "::" | "::*"));
        for (name, optional) in wanted {
            let opened = address(name, self.port).and_then(|address| self.one(address, bind));
            if let Err(error) = opened {
                let port = self.port;
                let text = format!("cannot listen on {name} port {port}: {error}");
                if !forgives(optional, &error) {
                    return Err(text + advice(&error));
                }
                self.skipped.push(text);
            }
        }
        match self.listeners.is_empty() {
            true => Err("no address to listen on; name one with --bind".to_string()),
            false => Ok(self),
        }
    }

    fn one(&mut self, address: SocketAddr, bind: Bind) -> io::Result<()> {
        match (bind(address), address.ip()) {
            (Ok(socket), ip) => {
                if self.port == 0 {
                    self.port = socket.local_addr()?.port();
                }
                let takes_both = self.both && ip.is_ipv6() && ip.is_unspecified();
                let ipv4 = takes_both.then(Vec::new);
                self.listeners.push(Port { socket, ipv4 });
                Ok(())
            }
            (Err(error), IpAddr::V4(ip)) if error.kind() == ErrorKind::AddrInUse => {
                // It is our own `[::]` that uses it. If it were another program, `[::]` would have failed.
                let mut served = self.listeners.iter_mut().filter_map(|one| one.ipv4.as_mut());
                served.next().map(|ipv4| ipv4.push(ip)).ok_or(error)
            }
            (Err(error), _) => Err(error),
        }
    }
}

/// The address that a word of `bind` means. As in Redis, one without a colon is IPv4.
fn address(name: &str, port: u16) -> io::Result<SocketAddr> {
    let name = match name {
        "*" => "0.0.0.0",
        "::*" => "::",
        name => name,
    };
    let mut found = (name, port).to_socket_addrs()?.map(canonical);
    let address = found.find(|address| address.is_ipv4() || name.contains(':'));
    address.ok_or_else(|| io::Error::other("it has no IPv4 address"))
}

/// Whether the server may start without this address.
fn forgives(optional: bool, error: &io::Error) -> bool {
    // std has no names for these: ENOPROTOOPT, EPROTONOSUPPORT, ESOCKTNOSUPPORT, EPFNOSUPPORT,
    // EAFNOSUPPORT. The second line has BSD's numbers.
    let unsupported = match cfg!(target_os = "linux") {
        true => [92, 93, 94, 96, 97],
        false => [42, 43, 44, 46, 47],
    };
    let code = error.raw_os_error();
    code.is_some_and(|code| unsupported.contains(&code))
        || optional && error.kind() == ErrorKind::AddrNotAvailable
}

fn advice(error: &io::Error) -> &'static str {
    match error.kind() {
        ErrorKind::AddrInUse => ". Is another server running? Choose another port with --port",
        ErrorKind::AddrNotAvailable => {
            ". This machine does not have that address. With a '-' before it, it is optional"
        }
        ErrorKind::PermissionDenied => ". Choose a port above 1023 with --port",
        _ => ". Name other addresses with --bind",
    }
}

/// Protected mode: without a password, the server serves only clients of this machine.
pub fn protects_from(config: &Config, peer: &Address) -> bool {
    !peer.is_local() && !config.password.is_needed() && config.protected_mode.get()
}

pub const PROTECTED: &str = "-DENIED Redis is running in protected mode because protected mode is \
    enabled and no password is set for the default user. In this mode connections are only \
    accepted from the loopback interface. If you want to connect from external computers to Redis \
    you may adopt one of the following solutions: 1) Just disable protected mode sending the \
    command 'CONFIG SET protected-mode no' from the loopback interface by connecting to Redis from \
    the same host the server is running, however MAKE SURE Redis is not publicly accessible from \
    internet if you do so. Use CONFIG REWRITE to make this change permanent. 2) Alternatively you \
    can just disable the protected mode by editing the Redis configuration file, and setting the \
    protected mode option to 'no', and then restarting the server. 3) If you started the server \
    manually just for testing, restart it with the '--protected-mode no' option. 4) Setup a an \
    authentication password for the default user. NOTE: You only need to do one of the above \
    things in order for the server to start accepting connections from the outside.\r\n";

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Start;

    const IN_USE: i32 = 98;
    const NOT_AVAILABLE: i32 = 99;
    const NO_SUCH_FAMILY: i32 = 97;

    /// What was bound, which IPv4 addresses the first one serves, and how many were skipped.
    type Outcome = (Vec<String>, Option<Vec<Ipv4Addr>>, usize);

    /// What `bind` leads to on a machine where these addresses fail with these errors. `both`: `[::]` takes
    /// IPv4 too.
    fn bind(words: &str, both: bool, errors: &[(&str, i32)]) -> Result<Outcome, String> {
        let mut bound: Vec<SocketAddr> = Vec::new();
        let opened = Opened { listeners: Vec::new(), port: 7000, both, skipped: Vec::new() };
        let opened = opened.all(words, &mut |address| {
            let ip = address.ip().to_string();
            let all = |address: &SocketAddr| address.to_string() == "[::]:7000";
            let code = match errors.iter().find(|(name, _)| *name == ip) {
                Some((_, code)) => *code,
                None if both && address.is_ipv4() && bound.iter().any(all) => IN_USE,
                None if both && all(&address) && bound.iter().any(SocketAddr::is_ipv4) => IN_USE,
                None => {
                    bound.push(address);
                    return TcpListener::bind("127.0.0.1:0");
                }
            };
            Err(io::Error::from_raw_os_error(code))
        })?;
        let bound = bound.iter().map(|address| address.ip().to_string());
        let served = opened.listeners[0].ipv4.clone();
        Ok((bound.collect(), served, opened.skipped.len()))
    }

    fn ipv4(words: &[&str]) -> Option<Vec<Ipv4Addr>> {
        Some(words.iter().map(|word| word.parse().unwrap()).collect())
    }

    fn strings(words: &[&str]) -> Vec<String> {
        words.iter().map(|word| word.to_string()).collect()
    }

    #[test]
    fn all_of_both_protocols_is_served_whatever_the_order() {
        for words in ["* -::*", "0.0.0.0 ::", ":: 0.0.0.0", "-::* *"] {
            let one = (strings(&["::"]), ipv4(&["0.0.0.0"]), 0);
            assert_eq!(bind(words, true, &[]), Ok(one), "{words}");
            let two = (strings(&["::", "0.0.0.0"]), None, 0);
            assert_eq!(bind(words, false, &[]), Ok(two), "{words}");
        }
    }

    #[test]
    fn all_of_ipv6_serves_no_ipv4_that_was_not_asked_for() {
        for (words, served) in [
            ("::", &[][..]),
            ("::*", &[]),
            (":: 127.0.0.1", &["127.0.0.1"]),
            ("127.0.0.1 ::", &["127.0.0.1"]),
        ] {
            let (bound, found, _) = bind(words, true, &[]).unwrap();
            assert_eq!((bound, found), (strings(&["::"]), ipv4(served)), "{words}");
        }
        let socket = TcpListener::bind("127.0.0.1:0").unwrap();
        for (served, address, expected) in [
            (ipv4(&[]), "127.0.0.1", false),
            (ipv4(&["127.0.0.1"]), "127.0.0.1", true),
            (ipv4(&["127.0.0.1"]), "192.0.2.7", false),
            (ipv4(&["192.0.2.7", "0.0.0.0"]), "127.0.0.1", true),
        ] {
            let socket = socket.try_clone().unwrap();
            let listener = Port { socket, ipv4: served };
            let address = address.parse().unwrap();
            assert_eq!(listener.serves(address), expected, "{listener:?}");
        }
    }

    #[test]
    fn an_address_that_is_taken_is_never_forgiven() {
        for words in ["127.0.0.1 ::1", "127.0.0.1 -::1", "-::1 127.0.0.1"] {
            let error = bind(words, true, &[("::1", IN_USE)]).unwrap_err();
            let expected = "cannot listen on ::1 port 7000: Address already in use";
            assert!(error.starts_with(expected), "{error}");
        }
        let error = bind("* ::1", true, &[("0.0.0.0", IN_USE)]).unwrap_err();
        assert!(error.contains("on * port 7000"), "{error}");
        let error = bind("* -::*", false, &[("0.0.0.0", IN_USE)]).unwrap_err();
        assert!(error.contains("on * port 7000"), "{error}");
    }

    #[test]
    fn an_address_that_is_not_there_is_forgiven_if_it_has_a_dash() {
        let gone = [("::1", NOT_AVAILABLE)];
        let loopback = (strings(&["127.0.0.1"]), None, 1);
        assert_eq!(bind("127.0.0.1 -::1", true, &gone), Ok(loopback));
        let error = bind("127.0.0.1 ::1", true, &gone).unwrap_err();
        assert!(error.starts_with("cannot listen on ::1"), "{error}");
        let error = bind("-::1", true, &gone).unwrap_err();
        assert!(error.starts_with("no address to listen on"), "{error}");
    }

    #[test]
    fn a_kernel_without_ipv6_is_forgiven() {
        let none = [("::1", NO_SUCH_FAMILY), ("::", NO_SUCH_FAMILY)];
        for (words, bound) in [
            ("127.0.0.1 ::1", "127.0.0.1"),
            ("127.0.0.1 -::1", "127.0.0.1"),
            ("* -::*", "0.0.0.0"),
            (":: 0.0.0.0", "0.0.0.0"),
        ] {
            let expected = (strings(&[bound]), None, 1);
            assert_eq!(bind(words, false, &none), Ok(expected), "{words}");
        }
    }

    #[test]
    fn a_name_is_an_ipv4_address() {
        let found = |name| address(name, 1).map(|address| address.to_string());
        assert_eq!(found("localhost").unwrap(), "127.0.0.1:1");
        assert_eq!(found("::ffff:192.0.2.7").unwrap(), "192.0.2.7:1");
        assert_eq!(found("::1").unwrap(), "[::1]:1");
    }

    #[test]
    fn without_a_password_only_this_machine_is_served() {
        let config = |flags: &[&str]| match Config::from_args(flags.iter().map(|flag| flag.into()))
        {
            Ok(Start::Serve(config, _)) => config,
            _ => panic!("{flags:?} are flags"),
        };
        let protects_from = |config: &Config, peer: &str| {
            protects_from(config, &Address::Ip(SocketAddr::new(peer.parse().unwrap(), 1)))
        };
        let default = config(&[]);
        for peer in ["127.0.0.1", "127.9.9.9", "::1", "::ffff:127.0.0.1"] {
            assert!(!protects_from(&default, peer), "{peer}");
        }
        for peer in ["192.0.2.1", "0.0.0.0", "2001:db8::1", "::ffff:192.0.2.1"] {
            assert!(protects_from(&default, peer), "{peer}");
            assert!(!protects_from(&config(&["--requirepass", "sesame"]), peer));
            assert!(!protects_from(&config(&["--protected-mode", "no"]), peer));
        }
    }
}
