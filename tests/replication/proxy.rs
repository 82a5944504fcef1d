//! A connection between a replica and its primary that the test can slow down, and break after any byte.

use crate::support::Server;
use std::collections::VecDeque;
use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

pub struct Proxy {
    pub port: u16,
    shared: Arc<Shared>,
}

struct Shared {
    primary: SocketAddr,
    /// After how many bytes of the primary's the next connections break. When there is none left, they do not.
    cuts: Mutex<VecDeque<u64>>,
    broken: AtomicU64,
    /// So many bytes pass in a millisecond.
    speed: AtomicUsize,
}

impl Proxy {
    pub fn to(primary: &Server) -> Proxy {
        // A replica may know us by many addresses.
        let listener = TcpListener::bind("0.0.0.0:0").unwrap();
        let shared = Arc::new(Shared {
            primary: primary.address(),
            cuts: Mutex::default(),
            broken: AtomicU64::new(0),
            speed: AtomicUsize::new(usize::MAX),
        });
        let proxy = Proxy { port: listener.local_addr().unwrap().port(), shared: shared.clone() };
        thread::spawn(move || {
            for stream in listener.incoming() {
                let shared = shared.clone();
                thread::spawn(move || shared.pass(&stream.unwrap()));
            }
        });
        proxy
    }

    /// The next connection breaks after so many bytes of the primary's.
    pub fn cut_next_after(&self, count: u64) {
        self.shared.cuts.lock().unwrap().push_back(count);
    }

    /// How many connections have been broken.
    pub fn broken(&self) -> u64 {
        self.shared.broken.load(Ordering::Relaxed)
    }

    pub fn set_speed(&self, bytes: usize) {
        self.shared.speed.store(bytes, Ordering::Relaxed);
    }
}

impl Shared {
    fn pass(&self, replica: &TcpStream) {
        let Ok(primary) = TcpStream::connect(self.primary) else {
            return drop(replica.shutdown(Shutdown::Both));
        };
        primary.set_nodelay(true).unwrap();
        let mut left = self.cuts.lock().unwrap().pop_front();
        thread::scope(|scope| {
            scope.spawn(|| {
                let _ = std::io::copy(&mut &*replica, &mut &primary);
                let _ = primary.shutdown(Shutdown::Both);
            });
            let mut buffer = vec![0; 64 * 1024];
            while left != Some(0) {
                let speed = self.speed.load(Ordering::Relaxed);
                let most = left.unwrap_or(u64::MAX).min(speed as u64).min(buffer.len() as u64);
                let count = (&primary).read(&mut buffer[..most as usize]).unwrap_or(0);
                if count == 0 || (&*replica).write_all(&buffer[..count]).is_err() {
                    break;
                }
                left = left.map(|left| left - count as u64);
                if speed < usize::MAX {
                    thread::sleep(Duration::from_millis(1));
                }
            }
            if left == Some(0) {
                self.broken.fetch_add(1, Ordering::Relaxed);
            }
            let _ = replica.shutdown(Shutdown::Both);
            let _ = primary.shutdown(Shutdown::Both);
        });
    }
}
