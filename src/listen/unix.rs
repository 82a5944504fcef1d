//! `unixsocket`: clients of this machine connect to a file.
//!
//! Such a client is served by the same code as all others, as a [`TcpStream`]. A stream of std is a descriptor and
//! nothing else, and what we do with it (read, write, look, shut down, wait with a time limit) the kernel does with
//! every stream socket. std's `UnixStream` cannot look at input without taking it, and a type for both kinds would
//! ask in each call which of them it is. What only TCP has (`set_nodelay`) fails here, and nobody minds. Only the
//! addresses differ: see [`Address`].
//!
//! **How Redis does it**: `anetUnixServer` in anet.c. A file that is already there is removed, so a socket
//! that a killed server has left behind is no obstacle.

use super::Address;
use crate::config::Config;
use std::fs::{self, Permissions};
use std::io;
use std::net::TcpStream;
use std::os::fd::OwnedFd;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixListener;
use std::sync::Arc;

pub struct Socket {
    socket: UnixListener,
    /// As the option has it.
    path: Arc<str>,
}

/// Opens the socket, if the configuration asks for one.
pub fn open(config: &Config) -> Result<Option<Socket>, String> {
    if config.unixsocket.is_empty() {
        return Ok(None);
    }
    let path = config.dir.path().join(config.unixsocket.path());
    let bind = || {
        let _ = fs::remove_file(&path);
        let socket = UnixListener::bind(&path)?;
        if let Ok(mode @ 1..) = u32::from_str_radix(&config.unixsocketperm.text(), 8) {
            fs::set_permissions(&path, Permissions::from_mode(mode))?;
        }
        Ok(socket)
    };
    let opened = bind().map_err(|error: io::Error| {
        format!("cannot listen on the Unix socket {}: {error}", path.display())
    });
    let path = config.unixsocket.text().into();
    opened.map(|socket| Some(Socket { socket, path }))
}

impl Socket {
    pub fn accept(&self) -> io::Result<(TcpStream, Address)> {
        let (stream, _) = self.socket.accept()?;
        Ok((TcpStream::from(OwnedFd::from(stream)), Address::Unix(self.path.clone())))
    }
}
