//! A server for one test.
//!
//! The tests beside this file talk to a running server through the `redis` crate, as an
//! application would. `Server::start` gives each of them one:
//!
//! ```text
//! REDIS=127.0.0.1:6379    a server that already runs: each test empties a database and uses it
//! SIMPLE_REDIS=path       this binary (an absolute path), started for each test on a free port,
//!                         in a directory of its own
//! neither                 the same, with the binary that `cargo build` makes of the root package
//! ```
//!
//! The first form is there because the tests must pass against redis-server too: a test that only
//! our own server passes proves nothing about clients.
//!
//! What starts the server knows no client library: it is that of the server's own tests,
//! `tests/support`. The `redis` crate stays a dependency of the tests alone.

#[path = "../../support/mod.rs"]
mod support;

pub use support::eventually;
pub use support::patience::GUARD;

use std::env;
use std::net::{SocketAddr, ToSocketAddrs};
use std::sync::atomic::{AtomicUsize, Ordering};
use support::Client;

/// A server that a test may use as its own until it drops this.
pub struct Server {
    address: SocketAddr,
    /// 0 on a server of our own; otherwise a database that no other test of this process uses
    /// at the same time.
    database: usize,
    /// Without a password, the empty string.
    password: String,
    /// None when `REDIS` named a server, which is not ours to stop.
    started: Option<support::Server>,
}

impl Server {
    /// A server with an empty database and default settings.
    pub fn start() -> Server {
        Server::with_password("")
    }

    /// A server that asks for `password`. One that already runs is told by CONFIG SET and told
    /// back on drop; meanwhile it refuses the clients of other tests, so such a test must be the
    /// only one in its file (Cargo runs the files one after the other).
    pub fn with_password(password: &str) -> Server {
        let password = password.to_string();
        let Ok(address) = env::var("REDIS") else {
            let flags: &[&str] = match password.as_str() {
                "" => &[],
                password => &["--requirepass", password],
            };
            let server = support::Server::start(flags);
            return Server {
                address: server.address(),
                database: 0,
                password,
                started: Some(server),
            };
        };
        // Numbers the servers of this process, and with them their databases.
        static SERVERS: AtomicUsize = AtomicUsize::new(0);
        let server = Server {
            address: resolve(&address).expect("REDIS is an address such as 127.0.0.1:6379"),
            database: 1 + SERVERS.fetch_add(1, Ordering::Relaxed) % 15,
            password,
            started: None,
        };
        server.tell(&[&["SELECT", &server.database.to_string()], &["FLUSHDB"]]);
        if !server.password.is_empty() {
            server.tell(&[&["CONFIG", "SET", "requirepass", &server.password]]);
        }
        server
    }

    /// `host:port`, without database or password.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// The address as the `redis` crate takes it. Without further words it speaks RESP2.
    pub fn url(&self) -> String {
        format!("redis://{}/{}", self.address, self.database)
    }

    /// The same, for a connection that opens with `HELLO 3`.
    pub fn url_resp3(&self) -> String {
        self.url() + "?protocol=resp3"
    }

    /// Sends commands, each of which must be answered by `OK`.
    fn tell(&self, commands: &[&[&str]]) {
        let mut client = Client::connect(self.address).expect("the server at REDIS answers");
        for command in commands {
            assert_eq!(client.call(command).to_string(), "OK", "{command:?}");
        }
    }
}

fn resolve(address: &str) -> Option<SocketAddr> {
    address.to_socket_addrs().ok()?.next()
}

impl Drop for Server {
    fn drop(&mut self) {
        if self.started.is_none() && !self.password.is_empty() {
            let leave = ["CONFIG", "SET", "requirepass", ""];
            self.tell(&[&["AUTH", &self.password], &leave]);
        }
    }
}
