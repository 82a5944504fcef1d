//! A connection between a replica and its primary that the test can slow down, and break after any byte.

use crate::support::Server;
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
    /// After how many bytes of the primary's a connection breaks.
    cut: Mutex<Option<u64>>,
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
            cut: Mutex::default(),
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

    /// One connection breaks when so many bytes of the primary's have come by it.
    pub fn cut_after(&self, count: u64) {
        *self.shared.cut.lock().unwrap() = Some(count);
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
        thread::scope(|scope| {
            scope.spawn(|| {
                let _ = std::io::copy(&mut &*replica, &mut &primary);
                let _ = primary.shutdown(Shutdown::Both);
            });
            let (mut buffer, mut passed) = (vec![0; 64 * 1024], 0);
            loop {
                let speed = self.speed.load(Ordering::Relaxed);
                let most = buffer.len().min(speed);
                let count = (&primary).read(&mut buffer[..most]).unwrap_or(0);
                let mut cut = self.cut.lock().unwrap();
                let left = cut.map_or(u64::MAX, |cut| cut.saturating_sub(passed));
                let is_cut = count > 0 && count as u64 >= left;
                if is_cut {
                    *cut = None;
                }
                drop(cut);
                let passing = count.min(left as usize);
                let is_passed = (&*replica).write_all(&buffer[..passing]).is_ok();
                if is_cut {
                    self.broken.fetch_add(1, Ordering::Relaxed);
                }
                if count == 0 || is_cut || !is_passed {
                    break;
                }
                passed += count as u64;
                if speed < usize::MAX {
                    thread::sleep(Duration::from_millis(1));
                }
            }
            let _ = replica.shutdown(Shutdown::Both);
            let _ = primary.shutdown(Shutdown::Both);
        });
    }
}
