//! The hub: who listens to which channel, and the queue in front of each listener's socket.
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
//! The owner of the queue waits for room, publishers never do: if the queue is over
//! `client-output-buffer-limit pubsub`, the client is disconnected. Monitors are held to the same
//! limit.
//!
//! What is published leaves when the log holds what was done before it, the messages of a batch together.
//! The hub's mutex is a leaf of the lock order; it is what gives all subscribers the same order of
//! messages.
//!
//! **How Redis does it**: pubsub.c and `addReply`, whose reply lists are such queues for every
//! client. A subscriber here costs a second thread; in return whoever does not subscribe has no
//! queue at all.

use crate::config::Config;
use crate::resp::{Output, Protocol, Reply};
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::io::Write;
use std::net::{Shutdown, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex};
use std::time::{Duration, Instant};

/// A client's id, which orders the subscribers of a channel.
type Id = u64;

/// Who has subscribed to a channel or pattern.
type Subscribers = HashMap<Vec<u8>, BTreeMap<Id, Arc<Outbox>>>;

/// Who listens to what. Shared by all clients.
#[derive(Default)]
pub struct Hub {
    state: Mutex<State>,
    /// How many monitors there are, to be seen without the mutex.
    monitors: AtomicUsize,
}

#[derive(Default)]
struct State {
    channels: Subscribers,
    patterns: Subscribers,
    monitors: BTreeMap<Id, Arc<Outbox>>,
}

/// A message that waits until the log holds what was done before it.
pub struct Message {
    channel: Vec<u8>,
    text: Vec<u8>,
    /// Who is to hear it, and by which pattern, if not by the channel's name.
    pub receivers: Vec<(Option<Vec<u8>>, Id)>,
}

/// Messages for one client are handed over together, but not more than so many bytes for all.
const BUNDLE: usize = 64 * 1024;

/// Channels, or patterns of channels.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    Channel,
    Pattern,
}

impl State {
    fn of(&mut self, kind: Kind) -> &mut Subscribers {
        match kind {
            Kind::Channel => &mut self.channels,
            Kind::Pattern => &mut self.patterns,
        }
    }
}

impl Hub {
    /// Adds a subscriber. `confirm` runs before any message of the channel can arrive.
    pub fn subscribe(
        &self,
        kind: Kind,
        name: &[u8],
        id: Id,
        to: &Arc<Outbox>,
        confirm: impl FnOnce(),
    ) {
        let mut state = self.state.lock().unwrap();
        confirm();
        state
            .of(kind)
            .entry(name.to_vec())
            .or_default()
            .insert(id, to.clone());
    }

    /// Takes a subscriber off; no message of the name reaches its queue afterwards.
    pub fn unsubscribe(&self, kind: Kind, name: &[u8], id: Id) {
        let mut state = self.state.lock().unwrap();
        let subscribers = state.of(kind);
        if let Some(of_name) = subscribers.get_mut(name) {
            of_name.remove(&id);
            if of_name.is_empty() {
                subscribers.remove(name);
            }
        }
    }

    /// A message for all who listen to the channel now: each of its subscribers, and each of those to a
    /// pattern that it matches.
    pub fn message(&self, channel: &[u8], text: &[u8]) -> Message {
        let state = self.state.lock().unwrap();
        let named = state.channels.get(channel).into_iter();
        let named = named.flat_map(BTreeMap::keys).map(|id| (None, *id));
        let mut receivers: Vec<_> = named.collect();
        for (pattern, subscribers) in &state.patterns {
            if crate::glob::matches(pattern, channel, false) {
                let matching = subscribers.keys().map(|id| (Some(pattern.clone()), *id));
                receivers.extend(matching);
            }
        }
        Message {
            channel: channel.to_vec(),
            text: text.to_vec(),
            receivers,
        }
    }

    /// Queues messages for those for whom they were made, but for whoever has unsubscribed since.
    pub fn send(&self, messages: &[Message]) {
        let state = self.state.lock().unwrap();
        let mut bundles = Bundles::default();
        for message in messages {
            bundles.add(message, &state);
        }
        bundles.hand_over();
    }

    /// Runs `work` while no message is on its way.
    pub fn between_messages(&self, work: impl FnOnce()) {
        let _state = self.state.lock().unwrap();
        work();
    }

    /// The channels with a subscriber that match the pattern.
    pub fn channels(&self, pattern: Option<&[u8]>) -> Vec<Vec<u8>> {
        let state = self.state.lock().unwrap();
        let wanted = |name: &&Vec<u8>| pattern.is_none_or(|p| crate::glob::matches(p, name, false));
        state.channels.keys().filter(wanted).cloned().collect()
    }

    /// How many clients have subscribed to the channel, not counting patterns.
    pub fn subscribers(&self, channel: &[u8]) -> usize {
        self.state
            .lock()
            .unwrap()
            .channels
            .get(channel)
            .map_or(0, BTreeMap::len)
    }

    /// Who has subscribed to anything.
    pub fn listeners(&self) -> BTreeSet<Id> {
        let state = self.state.lock().unwrap();
        let all = state.channels.values().chain(state.patterns.values());
        all.flat_map(BTreeMap::keys).copied().collect()
    }

    /// How many channels, and how many different patterns, have a subscriber.
    pub fn counts(&self) -> (usize, usize) {
        let state = self.state.lock().unwrap();
        (state.channels.len(), state.patterns.len())
    }

    /// From here on the client sees every command that is run. `confirm` runs before any line can
    /// arrive, and when no command is missed any more.
    pub fn add_monitor(&self, id: Id, to: &Arc<Outbox>, confirm: impl FnOnce()) {
        let mut state = self.state.lock().unwrap();
        state.monitors.insert(id, to.clone());
        self.monitors.store(state.monitors.len(), Ordering::Relaxed);
        confirm();
    }

    /// Ends that.
    pub fn remove_monitor(&self, id: Id) {
        let mut state = self.state.lock().unwrap();
        state.monitors.remove(&id);
        self.monitors.store(state.monitors.len(), Ordering::Relaxed);
    }

    /// Whether anybody watches, which every command asks.
    pub fn has_monitors(&self) -> bool {
        self.monitors.load(Ordering::Relaxed) > 0
    }

    /// Queues a line for every monitor but this one.
    pub fn show_monitors(&self, line: &[u8], except: Id) {
        let state = self.state.lock().unwrap();
        let others = state.monitors.iter().filter(|(id, _)| **id != except);
        others.for_each(|(_, to)| to.push(line));
    }
}

/// Messages on their way to the queues: each is encoded once for all who hear it in the same form, and
/// each queue is asked for once for several messages.
#[derive(Default)]
struct Bundles {
    of: BTreeMap<Id, (Arc<Outbox>, Vec<u8>)>,
    length: usize,
}

impl Bundles {
    /// Adds a message for those of its receivers who have not unsubscribed meanwhile.
    fn add(&mut self, message: &Message, state: &State) {
        for receivers in message.receivers.chunk_by(|a, b| a.0 == b.0) {
            let pattern = receivers[0].0.as_deref();
            let subscribers = match pattern {
                None => state.channels.get(&message.channel),
                Some(pattern) => state.patterns.get(pattern),
            };
            let listens = |(_, id): &(_, Id)| Some((*id, subscribers?.get(id)?));
            let mut forms = [None, None];
            for (id, outbox) in receivers.iter().filter_map(listens) {
                let protocol = outbox.protocol();
                let form = &mut forms[usize::from(protocol == Protocol::Resp3)];
                let form = form.get_or_insert_with(|| encode(message, pattern, protocol));
                let bundle = self
                    .of
                    .entry(id)
                    .or_insert_with(|| (outbox.clone(), Vec::new()));
                bundle.1.extend_from_slice(form);
                self.length += form.len();
                if self.length > BUNDLE {
                    self.hand_over();
                }
            }
        }
    }

    fn hand_over(&mut self) {
        self.length = 0;
        for (outbox, bytes) in std::mem::take(&mut self.of).into_values() {
            outbox.push(&bytes);
        }
    }
}

fn encode(message: &Message, pattern: Option<&[u8]>, protocol: Protocol) -> Vec<u8> {
    let Message { channel, text, .. } = message;
    let mut reply = Reply::new();
    reply.protocol = protocol;
    match pattern {
        None => {
            reply.push(3);
            reply.bulk(b"message");
        }
        Some(pattern) => {
            reply.push(4);
            reply.bulk(b"pmessage");
            reply.bulk(pattern);
        }
    }
    reply.bulk(channel);
    reply.bulk(text);
    reply.out.to_vec()
}

/// The queue of bytes in front of one client's socket.
pub struct Outbox {
    stream: Arc<TcpStream>,
    queue: Mutex<Queue>,
    /// There is something to write, or nothing will come any more.
    filled: Condvar,
    /// There is room again for the owner.
    drained: Condvar,
    resp3: AtomicBool,
    config: Arc<Config>,
}

#[derive(Default)]
struct Queue {
    bytes: Vec<u8>,
    /// How many bytes the writer has taken out and not yet written: they count as queued.
    writing: usize,
    over_soft_since: Option<Instant>,
    /// While the owner's EXEC subscribes: messages, which must not come before its answer.
    held: Option<Vec<u8>>,
    /// No more is accepted; what is there is still written.
    closed: bool,
}

impl Queue {
    fn len(&self) -> usize {
        self.bytes.len() + self.writing + self.held.as_ref().map_or(0, Vec::len)
    }
}

/// The owner waits while more than this many bytes are queued.
const ROOM: usize = 64 * 1024;

/// When the client has been told to go, it may read what is queued for as long as it makes some
/// progress every so often.
const PATIENCE: Duration = Duration::from_secs(10);

impl Outbox {
    /// An empty queue, whose writer is yet to be started ([`Outbox::write_until_closed`]).
    pub fn new(stream: Arc<TcpStream>, protocol: Protocol, config: Arc<Config>) -> Arc<Outbox> {
        let outbox = Outbox {
            stream,
            queue: Mutex::default(),
            filled: Condvar::new(),
            drained: Condvar::new(),
            resp3: AtomicBool::new(false),
            config,
        };
        outbox.set_protocol(protocol);
        Arc::new(outbox)
    }

    /// The protocol that messages are written in; replies come in theirs already.
    pub fn set_protocol(&self, protocol: Protocol) {
        self.resp3
            .store(protocol == Protocol::Resp3, Ordering::Relaxed);
    }

    fn protocol(&self) -> Protocol {
        if self.resp3.load(Ordering::Relaxed) {
            Protocol::Resp3
        } else {
            Protocol::Resp2
        }
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
            let held = queue.held.take().unwrap_or_default();
            queue.bytes.extend_from_slice(&held);
            self.filled.notify_one();
        }
    }

    /// Holds messages back until the owner's next reply is queued.
    pub fn hold(&self) {
        let mut queue = self.queue.lock().unwrap();
        queue.held.get_or_insert_default();
    }

    /// Queues bytes without waiting. A client whose queue is over the limit is disconnected.
    pub fn push(&self, bytes: &[u8]) {
        let mut queue = self.queue.lock().unwrap();
        if queue.closed {
            return;
        }
        let queue = &mut *queue;
        let end = queue.held.as_mut().unwrap_or(&mut queue.bytes);
        end.extend_from_slice(bytes);
        self.close_if_over_limit(queue);
        self.filled.notify_one();
    }

    /// `client-output-buffer-limit pubsub`: so many bytes at once, or so many for so long.
    fn close_if_over_limit(&self, queue: &mut Queue) {
        let limit = &self.config.pubsub_output;
        let (hard, soft) = (
            limit.hard.load(Ordering::Relaxed),
            limit.soft.load(Ordering::Relaxed),
        );
        let length = queue.len();
        if soft > 0 && length > soft {
            queue.over_soft_since.get_or_insert_with(Instant::now);
        }
        if self.is_over_soft_limit(queue) || (hard > 0 && length > hard) {
            self.disconnect(queue);
        }
    }

    /// Whether a message has come over the soft limit, and the queue has been over it since, for too long.
    fn is_over_soft_limit(&self, queue: &mut Queue) -> bool {
        let limit = &self.config.pubsub_output;
        let soft = limit.soft.load(Ordering::Relaxed);
        // CONFIG SET may have taken the limit away.
        if soft == 0 || queue.len() <= soft {
            queue.over_soft_since = None;
        }
        let patience = Duration::from_secs(limit.seconds.load(Ordering::Relaxed));
        let since = queue.over_soft_since;
        since.is_some_and(|since| since.elapsed() >= patience)
    }

    fn disconnect(&self, queue: &mut Queue) {
        queue.closed = true;
        queue.bytes = Vec::new();
        // Its own thread wakes up, finds the connection at its end, and cleans up.
        let _ = self.stream.shutdown(Shutdown::Both);
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
                std::mem::take(&mut queue.bytes)
            };
            if bytes.is_empty() || self.write_all(&bytes, &moved).is_err() {
                break;
            }
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
                    self.is_over_soft_limit(&mut queue);
                    self.drained.notify_one();
                }
                Err(error) if matches!(error.kind(), Interrupted | TimedOut | WouldBlock) => {
                    let mut queue = self.queue.lock().unwrap();
                    if !queue.closed {
                        if self.is_over_soft_limit(&mut queue) {
                            self.disconnect(&mut queue);
                        }
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
