//! The queue in front of one client's socket, for whoever is sent something without asking.
//!
//! PUBLISH must never wait for a slow subscriber, so it cannot write to sockets. Once a client has
//! subscribed (or says MONITOR) it gets an [`Outbox`], a queue with a thread that writes it to the
//! socket, and from then on *everything* for that client goes through it, its own replies
//! included: a socket has one writer, and what is queued first arrives first.
//!
//! ```text
//! publishers ──push──▶ ┌────────┐
//!                      │ Outbox │ ──▶ writer thread ──▶ socket
//! own thread ──wait──▶ └────────┘
//! ```
//!
//! The owner of the queue waits for room, all others never do: if they push it over the
//! `client-output-buffer-limit` of its [`Class`], the client is disconnected.
//!
//! **How Redis does it**: `addReply` in networking.c, whose reply lists are such queues for every
//! client. A subscriber here costs a second thread; in return whoever only asks has no queue at all.

use crate::held::{Charge, Class, End, Held, OutputLimit};
use crate::resp::{Output, Protocol};
use std::io::Write;
use std::net::TcpStream;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex};
use std::time::{Duration, Instant};

/// The queue of bytes in front of one client's socket.
pub struct Outbox {
    stream: Arc<TcpStream>,
    queue: Mutex<Queue>,
    /// There is something to write, or nothing will come any more.
    filled: Condvar,
    /// There is room again for the owner.
    drained: Condvar,
    resp3: AtomicBool,
    /// Which `client-output-buffer-limit` it is held to.
    class: Class,
    held: Arc<Held>,
}

struct Queue {
    bytes: Vec<u8>,
    /// How many bytes the writer has taken out and not yet written: they count as queued.
    writing: usize,
    /// How many it has taken out, written or not: until all are, their memory is held.
    taken: usize,
    charge: Charge,
    over_soft_since: Option<Instant>,
    /// While the owner's reply is being made: messages, which must not come before it.
    held: Option<Vec<u8>>,
    /// No more is accepted; what is there is still written.
    closed: bool,
}

impl Queue {
    fn len(&self) -> usize {
        self.bytes.len() + self.writing + self.held.as_ref().map_or(0, Vec::len)
    }

    /// Lets messages in again, behind the owner's reply.
    fn release(&mut self) {
        let held = self.held.take().unwrap_or_default();
        match self.bytes.is_empty() {
            true => self.bytes = held,
            false => self.bytes.extend_from_slice(&held),
        }
        self.settle();
    }

    /// Counts what it holds: to be called when that has changed.
    fn settle(&mut self) {
        let held = self.held.as_ref().map_or(0, Vec::capacity);
        self.charge.set(self.bytes.capacity() + self.taken + held);
    }
}

/// The owner waits while more than this many bytes are queued.
const ROOM: usize = 64 * 1024;

/// When the client has been told to go, it may read what is queued for as long as it makes some
/// progress every so often.
const PATIENCE: Duration = Duration::from_secs(10);

impl Outbox {
    /// An empty queue, whose writer is yet to be started ([`Outbox::write_until_closed`]).
    pub fn new(
        stream: Arc<TcpStream>,
        protocol: Protocol,
        class: Class,
        held: Arc<Held>,
    ) -> Arc<Outbox> {
        let queue = Queue {
            bytes: Vec::new(),
            writing: 0,
            taken: 0,
            charge: Charge::new(&held),
            over_soft_since: None,
            held: None,
            closed: false,
        };
        let outbox = Outbox {
            stream,
            queue: Mutex::new(queue),
            filled: Condvar::new(),
            drained: Condvar::new(),
            resp3: AtomicBool::new(false),
            class,
            held,
        };
        outbox.set_protocol(protocol);
        Arc::new(outbox)
    }

    /// The protocol that messages are written in; replies come in theirs already.
    pub fn set_protocol(&self, protocol: Protocol) {
        self.resp3.store(protocol == Protocol::Resp3, Ordering::Relaxed);
    }

    pub fn protocol(&self) -> Protocol {
        if self.resp3.load(Ordering::Relaxed) { Protocol::Resp3 } else { Protocol::Resp2 }
    }

    /// Queues a reply of the owner, who has waited for room. However long it is, the client has
    /// asked for it.
    pub fn push_reply(&self, reply: &Output) {
        // Whole, so that no message comes between its pieces; before there is a mutex at which publishers
        // wait, for it may be long.
        let mut bytes = reply.to_vec();
        let mut queue = self.queue.lock().unwrap();
        if !queue.closed {
            match queue.bytes.is_empty() {
                true => queue.bytes = bytes,
                false => queue.bytes.append(&mut bytes),
            }
            queue.release();
            self.filled.notify_one();
        }
    }

    /// Queues a part of a reply of the owner, who has called [`Outbox::hold`] and waited for room.
    pub fn push_part(&self, part: &[u8]) {
        let mut queue = self.queue.lock().unwrap();
        if !queue.closed {
            queue.bytes.extend_from_slice(part);
            queue.settle();
            self.filled.notify_one();
        }
    }

    /// The reply is queued, of which the owner has pushed the parts.
    pub fn end_reply(&self) {
        self.queue.lock().unwrap().release();
        self.filled.notify_one();
    }

    /// Holds messages back until the owner's next reply is queued.
    pub fn hold(&self) {
        let mut queue = self.queue.lock().unwrap();
        queue.held.get_or_insert_default();
    }

    /// Queues bytes without waiting. A client whose queue would be over the limit is disconnected.
    pub fn push(&self, bytes: &[u8]) {
        let mut queue = self.queue.lock().unwrap();
        if queue.closed {
            return;
        }
        let queue = &mut *queue;
        let limit = self.limit();
        // Looked at first: a message of half a gigabyte is not to be copied for each who may not have it.
        if limit.is_over_hard(queue.len() + bytes.len()) {
            return self.disconnect(queue, End::Output);
        }
        let end = queue.held.as_mut().unwrap_or(&mut queue.bytes);
        end.extend_from_slice(bytes);
        queue.settle();
        if limit.is_over_soft(queue.len()) {
            queue.over_soft_since.get_or_insert_with(Instant::now);
        }
        self.disconnect_if_over_soft_limit(queue);
        self.filled.notify_one();
    }

    fn limit(&self) -> &OutputLimit {
        self.held.output_limit(self.class)
    }

    /// Disconnects the client if a message has come over the soft limit, and the queue has been over it
    /// since, for too long.
    fn disconnect_if_over_soft_limit(&self, queue: &mut Queue) {
        let (length, limit) = (queue.len(), self.limit());
        if queue.over_soft_since.is_some()
            && limit.is_over_soft_for_long(length, &mut queue.over_soft_since)
        {
            self.disconnect(queue, End::Output);
        }
    }

    /// Ends the client. Its own thread wakes up, finds the connection at its end, and cleans up.
    fn disconnect(&self, queue: &mut Queue, end: End) {
        queue.closed = true;
        queue.bytes = Vec::new();
        queue.held = None;
        queue.settle();
        self.held.kill(end);
        self.drained.notify_one();
    }

    /// Waits for room, for the owner of the queue, but at most `pause`; returns whether there is.
    pub fn wait_for_room(&self, pause: Duration) -> bool {
        let queue = self.queue.lock().unwrap();
        // Not what is held: that waits for the owner.
        let full = |queue: &mut Queue| queue.bytes.len() + queue.writing > ROOM && !queue.closed;
        let waited = self.drained.wait_timeout_while(queue, pause, full);
        !waited.unwrap().1.timed_out()
    }

    /// Whether nothing more is accepted. If the owner has not closed it, the client is gone.
    pub fn is_closed(&self) -> bool {
        self.queue.lock().unwrap().closed
    }

    /// Nothing more will come; the writer ends when what is queued is written.
    pub fn close(&self) {
        self.queue.lock().unwrap().closed = true;
        self.filled.notify_one();
        self.drained.notify_one();
    }

    /// The writer thread: writes what is queued until the queue is closed or the client is gone. Calls
    /// `moved` whenever the client has taken something.
    pub fn write_until_closed(&self, moved: impl Fn()) {
        loop {
            let bytes = {
                let queue = self.queue.lock().unwrap();
                let idle = |queue: &mut Queue| queue.bytes.is_empty() && !queue.closed;
                let mut queue = self.filled.wait_while(queue, idle).unwrap();
                queue.writing = queue.bytes.len();
                queue.taken = queue.bytes.capacity();
                std::mem::take(&mut queue.bytes)
            };
            if bytes.is_empty() || self.write_all(&bytes, &moved).is_err() {
                break;
            }
            drop(bytes);
            let mut queue = self.queue.lock().unwrap();
            queue.taken = 0;
            queue.settle();
        }
        self.close();
    }

    /// The socket's write timeout is short, for its reader's sake (serve.rs); here one waits on,
    /// but not for ever when the client is to go.
    fn write_all(&self, mut bytes: &[u8], moved: &impl Fn()) -> std::io::Result<()> {
        use std::io::ErrorKind::{Interrupted, TimedOut, WouldBlock, WriteZero};
        let mut progress = Instant::now();
        while !bytes.is_empty() {
            match (&*self.stream).write(bytes) {
                Ok(0) => return Err(WriteZero.into()),
                Ok(count) => {
                    bytes = &bytes[count..];
                    progress = Instant::now();
                    moved();
                    let mut queue = self.queue.lock().unwrap();
                    queue.writing = bytes.len();
                    // Back under the soft limit, its time begins anew.
                    if !self.limit().is_over_soft(queue.len()) {
                        queue.over_soft_since = None;
                    }
                    self.drained.notify_one();
                }
                Err(error) if matches!(error.kind(), Interrupted | TimedOut | WouldBlock) => {
                    let mut queue = self.queue.lock().unwrap();
                    if !queue.closed {
                        self.disconnect_if_over_soft_limit(&mut queue);
                    } else if progress.elapsed() > PATIENCE {
                        return Err(error);
                    }
                }
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }
}
