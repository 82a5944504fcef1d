//! The hub: who listens to which channel, and the messages on their way to the listeners' queues
//! (outbox.rs).
//!
//! What is published leaves when the log holds what was done before it, the messages of a batch together.
//! The hub's mutex is a leaf of the lock order; it is what gives all subscribers the same order of
//! messages.
//!
//! **How Redis does it**: pubsub.c. One thread does everything there, so every subscriber sees the same
//! order without a lock.

use crate::outbox::Outbox;
use crate::resp::{Protocol, Reply};
use std::collections::{BTreeMap, HashMap};
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

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
        self.audiences.iter().flat_map(|(_, ids)| ids.iter().copied())
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
    /// Adds a subscriber, whose queue holds messages until it has been told.
    pub fn subscribe(&self, kind: Kind, name: &[u8], id: Id, to: &Arc<Outbox>) {
        let mut state = self.state.lock().unwrap();
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
        self.state.lock().unwrap().channels.get(channel).map_or(0, |audience| audience.of.len())
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

    /// From here on the client sees every command that is run. Its queue holds them until it has been told.
    pub fn add_monitor(&self, id: Id, to: &Arc<Outbox>) {
        let mut state = self.state.lock().unwrap();
        state.monitors.insert(id, to.clone());
        self.monitors.store(state.monitors.len(), Ordering::Relaxed);
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
                let bundle = self.of.entry(id).or_insert_with(|| (outbox.clone(), Vec::new()));
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
