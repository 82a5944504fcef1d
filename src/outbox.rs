//! The outbox: a queue in front of the socket of a subscriber or monitor.
//!
//! PUBLISH must never wait for a slow subscriber. When a client subscribes or says MONITOR, it gets an
//! [`Outbox`]: a queue, and a thread that writes it to the socket. From then on *everything* for that client
//! goes through the outbox, its own replies too. So what is queued first arrives first.
//!
//! ```text
//! publishers ──send──▶ ┌────────┐ ──▶ what the socket takes at once, if nothing is queued ─────┐
//!                      │ Outbox │                                                              ▼
//! own thread ──wait──▶ └────────┘ ──▶ writer thread, which waits until the socket takes more ─▶ socket
//! ```
//!
//! Mostly the queue is empty and the socket has room. Then the publisher writes the message itself, under the
//! lock of the queue, and the socket does not wait meanwhile. To wake the writer for it would take longer than
//! the write.
//!
//! The client's own thread waits until there is room. Publishers never wait: if the queue grows over
//! `client-output-buffer-limit pubsub`, the client is disconnected.
//!
//! **How Redis does it**: `addReply` in networking.c: every client has such a queue. Here only a client that
//! is sent messages has one. The price: it takes a second thread.

use crate::held::{Charge, End, Held};
use crate::mode::Mode;
use crate::resp::Protocol;
use std::io::{self, ErrorKind, Write};
use std::net::TcpStream;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex};
use std::time::{Duration, Instant};

pub struct Outbox {
    stream: Arc<TcpStream>,
    mode: Arc<Mode>,
    /// What the client holds, and whether it is being ended.
    client: Arc<Held>,
    /// Is called when bytes have moved.
    moved: Box<dyn Fn() + Send + Sync>,
    queue: Mutex<Queue>,
    /// Tells the writer that there are bytes to write, or that the queue is closed.
    filled: Condvar,
    /// Tells the client's own thread that there is room again.
    drained: Condvar,
    resp3: AtomicBool,
}

struct Queue {
    bytes: Vec<u8>,
    /// Bytes that the writer has taken out and not written yet. They still count as queued.
    writing: usize,
    /// Memory of the bytes that the writer has taken out. It is in use until all of them are written.
    taken: usize,
    charge: Charge,
    over_soft_since: Option<Instant>,
    /// Messages that wait for the client's reply, while that is being made.
    behind_reply: Option<Vec<u8>>,
    /// Nothing more is queued. What is in the queue is still written.
    closed: bool,
}

impl Queue {
    fn len(&self) -> usize {
        self.bytes.len() + self.writing + self.behind_reply.as_ref().map_or(0, Vec::len)
    }

    /// Whether the client's own thread must wait. Messages behind a reply do not count: they wait for that thread.
    fn is_full(&self) -> bool {
        self.bytes.len() + self.writing > ROOM && !self.closed
    }

    /// Counts its memory again.
    fn count_held(&mut self) {
        let messages = self.behind_reply.as_ref().map_or(0, Vec::capacity);
        let memory = self.bytes.capacity() + self.taken + messages;
        let buffers = &self.charge.held.buffers;
        buffers.queued.store(self.len(), Ordering::Relaxed);
        buffers.queue.store(memory, Ordering::Relaxed);
        self.charge.set(memory);
    }
}

/// The client's own thread waits while more than this many bytes are queued.
const ROOM: usize = 64 * 1024;

/// How long a write to a client that does not read may make no progress before something else is looked after: at
/// first, and at most.
pub const SHORTEST_WAIT: Duration = Duration::from_millis(10);
pub const LONGEST_WAIT: Duration = Duration::from_secs(1);

/// How long to wait for the peer the next time. It has read nothing this time; `moved` bytes have come
/// from it, or no more can come.
pub fn next_wait(wait: Duration, moved: Option<usize>) -> Duration {
    match moved {
        Some(1..) => SHORTEST_WAIT,
        _ => LONGEST_WAIT.min(2 * wait),
    }
}

/// Whether the socket's time is over, or it does not wait.
pub fn is_timeout(error: &io::Error) -> bool {
    matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut)
}

/// After the queue is closed, the writer goes on while the client reads something at least this often.
const PATIENCE: Duration = Duration::from_secs(10);

impl Outbox {
    /// An empty queue. The caller starts the writer ([`Outbox::write_until_closed`]).
    pub fn new(
        stream: Arc<TcpStream>,
        protocol: Protocol,
        mode: Arc<Mode>,
        client: Arc<Held>,
        moved: impl Fn() + Send + Sync + 'static,
    ) -> Arc<Outbox> {
        let queue = Queue {
            bytes: Vec::new(),
            writing: 0,
            taken: 0,
            charge: Charge::new(&client),
            over_soft_since: None,
            behind_reply: None,
            closed: false,
        };
        Arc::new(Outbox {
            stream,
            mode,
            client,
            moved: Box::new(moved),
            queue: Mutex::new(queue),
            filled: Condvar::new(),
            drained: Condvar::new(),
            resp3: AtomicBool::new(protocol == Protocol::Resp3),
        })
    }

    /// The protocol of messages. Replies are already in theirs.
    pub fn set_protocol(&self, protocol: Protocol) {
        self.resp3.store(protocol == Protocol::Resp3, Ordering::Relaxed);
    }

    pub fn protocol(&self) -> Protocol {
        if self.resp3.load(Ordering::Relaxed) { Protocol::Resp3 } else { Protocol::Resp2 }
    }

    /// Queues a part of a reply, after [`Outbox::hold`].
    pub fn push_part(&self, part: &[u8]) {
        let mut queue = self.queue.lock().unwrap();
        if !queue.closed {
            queue.bytes.extend_from_slice(part);
            queue.count_held();
            self.wake_writer(&queue);
        }
    }

    /// All parts of the reply are queued: the messages that have waited follow it.
    pub fn end_reply(&self) {
        let mut queue = self.queue.lock().unwrap();
        let messages = queue.behind_reply.take().unwrap_or_default();
        queue.bytes.extend_from_slice(&messages);
        queue.count_held();
        self.wake_writer(&queue);
    }

    /// A writer that writes looks at the queue again before it sleeps, and to wake nobody is a call, too.
    fn wake_writer(&self, queue: &Queue) {
        if queue.writing == 0 {
            self.filled.notify_one();
        }
    }

    /// Holds messages back until the client's next reply is queued.
    pub fn hold(&self) {
        self.queue.lock().unwrap().behind_reply.get_or_insert_default();
    }

    /// Whether the client is being ended, so that no message reaches it.
    pub fn has_ended(&self) -> bool {
        self.client.is_ended()
    }

    /// Sends messages without waiting: what the socket does not take at once is queued. But this takes as long as a
    /// write, and the caller has `Hub.state`. So whoever subscribes waits for a round, and a PUBLISH that comes then waits
    /// behind him, in an EXEC with the keyspace.
    pub fn send(&self, bytes: &[u8]) {
        let mut queue = self.queue.lock().unwrap();
        let is_idle = queue.len() == 0 && queue.behind_reply.is_none() && !queue.closed;
        let sent = if is_idle { self.write_at_once(bytes) } else { 0 };
        if sent < bytes.len() {
            self.queue_message(&mut queue, &bytes[sent..]);
        }
    }

    /// How many bytes the socket takes without waiting. If the connection is broken, none: the writer will see that.
    fn write_at_once(&self, bytes: &[u8]) -> usize {
        let written = self.mode.at_once_from_now(&self.stream, || (&*self.stream).write(bytes));
        (self.moved)();
        written.unwrap_or(0)
    }

    /// Queues a message for the writer.
    pub fn push(&self, bytes: &[u8]) {
        self.queue_message(&mut self.queue.lock().unwrap(), bytes);
    }

    /// If the queue would be over the limit, the client is disconnected.
    fn queue_message(&self, queue: &mut Queue, bytes: &[u8]) {
        if queue.closed {
            return;
        }
        let limit = &self.client.total.pubsub;
        // Checked before the copy: a message may have half a gigabyte.
        if limit.is_over_hard(queue.len() + bytes.len()) {
            return self.disconnect(queue);
        }
        let end = queue.behind_reply.as_mut().unwrap_or(&mut queue.bytes);
        end.extend_from_slice(bytes);
        queue.count_held();
        self.disconnect_if_over_soft_limit(queue);
        self.wake_writer(queue);
    }

    /// Disconnects the client if the queue has been over the soft limit for too long.
    fn disconnect_if_over_soft_limit(&self, queue: &mut Queue) {
        let limit = &self.client.total.pubsub;
        if limit.is_over_soft_for_long(queue.len(), &mut queue.over_soft_since) {
            self.disconnect(queue);
        }
    }

    /// Ends the client. Its own thread wakes up, sees that the connection is closed, and cleans up.
    fn disconnect(&self, queue: &mut Queue) {
        queue.closed = true;
        queue.bytes = Vec::new();
        queue.behind_reply = None;
        queue.count_held();
        self.client.kill(End::Output);
        self.drained.notify_one();
    }

    /// Waits until there is room, for at most `wait`. Returns whether there is.
    pub fn wait_for_room(&self, wait: Duration) -> bool {
        let queue = self.queue.lock().unwrap();
        let waited = self.drained.wait_timeout_while(queue, wait, |queue| queue.is_full());
        !waited.unwrap().1.timed_out()
    }

    /// Whether it is closed: by the client's own thread, or because the client is gone.
    pub fn is_closed(&self) -> bool {
        self.queue.lock().unwrap().closed
    }

    /// Nothing more is queued. The writer ends when everything is written.
    pub fn close(&self) {
        self.queue.lock().unwrap().closed = true;
        self.filled.notify_one();
        self.drained.notify_one();
    }

    /// The writer thread: writes the queue to the socket until the queue is closed or the client is gone.
    pub fn write_until_closed(&self) {
        loop {
            let bytes = {
                let queue = self.queue.lock().unwrap();
                let idle = |queue: &mut Queue| queue.bytes.is_empty() && !queue.closed;
                let mut queue = self.filled.wait_while(queue, idle).unwrap();
                queue.writing = queue.bytes.len();
                queue.taken = queue.bytes.capacity();
                std::mem::take(&mut queue.bytes)
            };
            if bytes.is_empty() || self.write_all(&bytes).is_err() {
                break;
            }
            drop(bytes);
            let mut queue = self.queue.lock().unwrap();
            queue.taken = 0;
            queue.count_held();
        }
        self.close();
    }

    /// After a write timeout it tries again, but not for ever when the queue is closed.
    fn write_all(&self, mut bytes: &[u8]) -> std::io::Result<()> {
        use std::io::ErrorKind::{Interrupted, TimedOut, WouldBlock, WriteZero};
        let mut progress = Instant::now();
        while !bytes.is_empty() {
            match (&*self.stream).write(bytes) {
                Ok(0) => return Err(WriteZero.into()),
                Ok(count) => {
                    bytes = &bytes[count..];
                    progress = Instant::now();
                    (self.moved)();
                    let mut queue = self.queue.lock().unwrap();
                    let was_full = queue.is_full();
                    queue.writing = bytes.len();
                    // Under the soft limit again: its time starts over.
                    if !self.client.total.pubsub.is_over_soft(queue.len()) {
                        queue.over_soft_since = None;
                    }
                    if was_full && !queue.is_full() {
                        self.drained.notify_one();
                    }
                }
                Err(error) if matches!(error.kind(), Interrupted | TimedOut | WouldBlock) => {
                    // A publisher may have left the socket so that it does not wait.
                    self.mode.wait_again(&self.stream)?;
                    let mut queue = self.queue.lock().unwrap();
                    // A message has exceeded the soft limit. (A reply may.)
                    if !queue.closed && queue.over_soft_since.is_some() {
                        self.disconnect_if_over_soft_limit(&mut queue);
                    } else if queue.closed && progress.elapsed() > PATIENCE {
                        return Err(error);
                    }
                }
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }
}
