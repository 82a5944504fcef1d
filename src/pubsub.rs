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
use crate::held::{Charge, End, Held};
use crate::resp::{Output, Protocol, Reply};
use std::collections::{BTreeMap, HashMap};
use std::io::Write;
use std::net::TcpStream;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex};
use std::time::{Duration, Instant};

/// A client's id, which orders the subscribers of a channel.
type Id = u64;

/// The name of a channel, or a pattern. Messages on their way share it.
type Name = Arc<[u8]>;

/// Who has subscribed to a channel or pattern.
type Subscribers = HashMap<Name, Audience>;

#[derive(Default)]
struct Audience {
    of: BTreeMap<Id, Arc<Outbox>>,
    /// Their ids, once somebody has asked. Messages share it until the next one comes or goes: a thousand
    /// PUBLISH in one EXEC, to ten thousand subscribers, are not ten million ids.
    ids: Option<Arc<[Id]>>,
}

impl Audience {
    fn ids(&mut self) -> Arc<[Id]> {
        let ids = || self.of.keys().copied().collect();
        self.ids.get_or_insert_with(ids).clone()
    }
}

/// Who listens to what. Shared by all clients.
#[derive(Default)]
pub struct Hub {
    state: Mutex<State>,
    /// How many monitors there are, to be seen without the mutex.
    monitors: AtomicUsize,
    /// How often somebody has subscribed or unsubscribed, likewise.
    changes: AtomicU64,
}

#[derive(Default)]
struct State {
    channels: Subscribers,
    patterns: Subscribers,
    /// Who has subscribed to anything, and to how much.
    listeners: BTreeMap<Id, usize>,
    monitors: BTreeMap<Id, Arc<Outbox>>,
}

/// A message that waits until the log holds what was done before it.
pub struct Message {
    channel: Name,
    text: Vec<u8>,
    /// Who is to hear it, and by which pattern, if not by the channel's name.
    audiences: Vec<(Option<Name>, Arc<[Id]>)>,
    /// [`Hub::changes`] when that was so.
    as_of: u64,
}

impl Message {
    /// How many are to hear it; whoever hears it twice counts twice.
    pub fn receivers(&self) -> usize {
        self.audiences.iter().map(|(_, ids)| ids.len()).sum()
    }

    /// Who they are.
    pub fn ids(&self) -> impl Iterator<Item = Id> {
        self.audiences
            .iter()
            .flat_map(|(_, ids)| ids.iter().copied())
    }

    /// Bytes of memory that it takes, without what it shares.
    pub fn memory(&self) -> usize {
        let audiences = size_of_val(&self.audiences[..]);
        size_of::<Message>() + self.channel.len() + self.text.len() + audiences
    }
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
        let audience = state.of(kind).entry(name.into()).or_default();
        audience.ids = None;
        self.changes.fetch_add(1, Ordering::Release);
        if audience.of.insert(id, to.clone()).is_none() {
            *state.listeners.entry(id).or_default() += 1;
        }
    }

    /// Takes a subscriber off; no message of the name reaches its queue afterwards.
    pub fn unsubscribe(&self, kind: Kind, name: &[u8], id: Id) {
        let mut state = self.state.lock().unwrap();
        let subscribers = state.of(kind);
        let Some(audience) = subscribers.get_mut(name) else {
            return;
        };
        let was_there = audience.of.remove(&id).is_some();
        audience.ids = None;
        self.changes.fetch_add(1, Ordering::Release);
        if audience.of.is_empty() {
            subscribers.remove(name);
        }
        if let Some(count) = state.listeners.get_mut(&id).filter(|_| was_there) {
            *count -= 1;
            if *count == 0 {
                state.listeners.remove(&id);
            }
        }
    }

    /// A message for all who listen to the channel now: each of its subscribers, and each of those to a
    /// pattern that it matches.
    pub fn message(&self, channel: &[u8], text: &[u8]) -> Message {
        let mut state = self.state.lock().unwrap();
        let named = state.channels.get_mut(channel).into_iter();
        let mut audiences: Vec<_> = named.map(|audience| (None, audience.ids())).collect();
        for (pattern, audience) in &mut state.patterns {
            if crate::glob::matches(pattern, channel, false) {
                audiences.push((Some(pattern.clone()), audience.ids()));
            }
        }
        let known = state.channels.get_key_value(channel);
        Message {
            channel: known.map_or_else(|| channel.into(), |(name, _)| name.clone()),
            text: text.to_vec(),
            audiences,
            as_of: self.changes.load(Ordering::Relaxed),
        }
    }

    /// Whether somebody has subscribed or unsubscribed since the message was made.
    pub fn has_changed_since(&self, message: &Message) -> bool {
        self.changes.load(Ordering::Acquire) != message.as_of
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
        let names = state.channels.keys().map(|name| name.to_vec());
        names.filter(|name| wanted(&name)).collect()
    }

    /// How many clients have subscribed to the channel, not counting patterns.
    pub fn subscribers(&self, channel: &[u8]) -> usize {
        self.state
            .lock()
            .unwrap()
            .channels
            .get(channel)
            .map_or(0, |audience| audience.of.len())
    }

    /// Who has subscribed to anything. Not looked up in all channels: of these there may be a million.
    pub fn listeners(&self) -> Vec<Id> {
        let state = self.state.lock().unwrap();
        state.listeners.keys().copied().collect()
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
        for (pattern, ids) in &message.audiences {
            let pattern = pattern.as_deref();
            let audience = match pattern {
                None => state.channels.get(&message.channel),
                Some(pattern) => state.patterns.get(pattern),
            };
            let listens = |id: &Id| Some((*id, audience?.of.get(id)?));
            let mut forms = [None, None];
            for (id, outbox) in ids.iter().filter_map(listens) {
                let protocol = outbox.protocol();
                let form = &mut forms[usize::from(protocol == Protocol::Resp3)];
                let form = form.get_or_insert_with(|| encode(message, pattern, protocol));
                if form.len() > BUNDLE {
                    // To put it into a bundle would be to copy it once more.
                    self.hand_over();
                    outbox.push(form);
                    continue;
                }
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
    /// While the owner's EXEC subscribes: messages, which must not come before its answer.
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
        config: Arc<Config>,
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
            config,
            held,
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
        let limit = &self.config.pubsub_output;
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

    /// Disconnects the client if a message has come over the soft limit, and the queue has been over it
    /// since, for too long.
    fn disconnect_if_over_soft_limit(&self, queue: &mut Queue) {
        let (length, limit) = (queue.len(), &self.config.pubsub_output);
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
                    if !self.config.pubsub_output.is_over_soft(queue.len()) {
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
