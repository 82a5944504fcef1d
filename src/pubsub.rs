//! The hub: the subscribers of each channel and pattern, and how a message reaches their outboxes
//! (outbox.rs).
//!
//! A *shard channel* (SSUBSCRIBE) is a channel of its own kind: no pattern matches it. In a cluster its messages stay
//! on the nodes of one slot; one server alone has all slots.
//!
//! The messages of a batch are sent together, when the log holds everything that was done before them. Until
//! then they wait in a queue, which they join before the batch gives the keyspace back. So the events of all
//! batches (notify.rs) are sent in the order in which they happened:
//!
//! ```text
//! batch A   SET k 1        joins, position 40 │                    commit(40) ─▶ send(40): nothing is left
//! batch B                  SET k 2            │ joins, position 80, commit(80) ─▶ send(80): A's, then B's
//! ```
//!
//! One thread sends at a time. Because of that all subscribers see the messages in the same order. To write to a
//! subscriber takes much longer than to publish, however short the write is. So after a *round* in which all that
//! waited was written, there is a rest of three times as long. A batch that comes meanwhile leaves its
//! messages in the queue and is answered. At the end of the rest the *courier*, a thread, begins the next round:
//!
//! ```text
//! batch A    PUBLISH ─▶ round ─▶ replies
//! batch B                    PUBLISH ─▶ leaves its message ─▶ replies
//! batch C                          PUBLISH ─▶ leaves its message ─▶ replies
//! courier               └ rest ───────────────────────┘ round: both in one write for each subscriber
//! ```
//!
//! A round to a few subscribers is short, and no rest follows, because a lone message shall not wait. But if many
//! clients publish at once, a *crowd*, there is always a rest. Mostly another publisher then begins the next round, and
//! the courier only if none comes. In a crowd PUBLISH does not wait for its receivers either (server/order.rs).
//!
//! So the more is published, the less each message costs, as with one thread that serves all in turn. Nobody notices
//! that a reply has come before its message has left: before a subscriber's commands run, its thread sends what
//! waits, so that messages come before the replies. And if much waits already, everybody does that.
//!
//! **How Redis does it**: pubsub.c. It has one thread, so all subscribers see the same order without a
//! lock.

use crate::glob;
use crate::held::Charge;
use crate::notify::Happened;
use crate::outbox::Outbox;
use crate::resp::{Protocol, Reply};
use std::collections::{BTreeMap, HashMap};
use std::ops::Range;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, OnceLock, RwLock};
use std::thread::Thread;
use std::time::{Duration, Instant};

/// A client's id.
type Id = u64;

/// The name of a channel, or a pattern. Messages share it with the hub.
type Name = Arc<[u8]>;

/// The subscribers of each channel, or of each pattern.
type Subscribers = HashMap<Name, Audience>;

#[derive(Default)]
struct Audience {
    of: BTreeMap<Id, Subscriber>,
    /// Their ids, made for the first message. Messages share this list until somebody subscribes or
    /// unsubscribes. So a thousand PUBLISH in one EXEC, to ten thousand subscribers, do not need ten
    /// million ids.
    ids: OnceLock<Arc<[Id]>>,
}

struct Subscriber {
    outbox: Arc<Outbox>,
    /// The number of its subscription (`Hub.changes`).
    since: u64,
}

impl Audience {
    fn ids(&self) -> Arc<[Id]> {
        self.ids.get_or_init(|| self.of.keys().copied().collect()).clone()
    }
}

/// All subscribers and monitors. Shared by all clients.
#[derive(Default)]
pub struct Hub {
    /// Whoever sends looks at it, for a whole round, and so does PUBLISH. So PUBLISH waits for no sender, except behind
    /// somebody who subscribes.
    state: RwLock<State>,
    /// The turn to send, and what is kept for it.
    sending: Mutex<Bundles>,
    pace: Mutex<Pace>,
    /// How many monitors there are: every command asks, without the mutex.
    monitors: AtomicUsize,
    /// How often somebody has subscribed or unsubscribed.
    changes: AtomicU64,
    /// What is to be sent, in its order, each with the position that the log must have reached. Locked apart
    /// from `state`, so that a batch that leaves something here waits for no sender.
    waiting: Mutex<Waiting>,
    /// The position that the log has reached, as far as those know who have something to be sent.
    ready: AtomicU64,
    courier: OnceLock<Thread>,
    /// Whether the courier has been woken for what waits.
    is_woken: AtomicBool,
}

/// After a round the rest is so many times as long, at most so many times [`LONGEST_ROUND`]. After a short one, to a
/// few subscribers, there is none, because to wake the courier would take as long.
const REST: u32 = 3;
const SHORTEST_ROUND: Duration = Duration::from_micros(20);
const LONGEST_ROUND: Duration = Duration::from_millis(1);

/// A batch is in a crowd if at least this many others have had something to send since its client had.
const MANY: u64 = 8;

/// And if at most this lies between one of them and the next, on average.
const QUICKLY: Duration = Duration::from_micros(100);

/// How long there is a crowd after that.
const CROWD: Duration = Duration::from_millis(1);

/// The shortest rest in a crowd. Then each round is followed by one.
const REST_IN_CROWD: Duration = Duration::from_micros(300);

/// How quickly one batch with something to send follows another.
#[derive(Default)]
struct Pace {
    /// How many batches have had something to send.
    sends: u64,
    /// When the crowd is over.
    crowd_ends: Option<Instant>,
    /// When the rest after the last round is over.
    rest_ends: Option<Instant>,
}

/// When a client had something to send last: the number of that batch, and the time.
pub type Sent = Option<(u64, Instant)>;

impl Pace {
    /// A batch has something to send.
    fn step(&mut self, now: Instant, sent: &mut Sent) {
        self.sends += 1;
        let Some((before, at)) = sent.replace((self.sends, now)) else {
            return;
        };
        let others = self.sends - before - 1;
        if others >= MANY && now - at < QUICKLY * others.min(1000) as u32 {
            self.crowd_ends = Some(now + CROWD);
        }
    }

    fn is_crowded(&self, now: Instant) -> bool {
        self.crowd_ends.is_some_and(|end| now < end)
    }

    /// How much of the rest is left.
    fn rest(&self, now: Instant) -> Duration {
        self.rest_ends.map_or(Duration::ZERO, |end| end.saturating_duration_since(now))
    }

    /// A round has ended.
    fn begin_rest(&mut self, round: Duration, now: Instant) {
        let rest =
            if round > SHORTEST_ROUND { REST * round.min(LONGEST_ROUND) } else { Duration::ZERO };
        let shortest = if self.is_crowded(now) { REST_IN_CROWD } else { Duration::ZERO };
        self.rest_ends = Some(now + rest.max(shortest));
    }
}

/// If more parcels than this wait, or more bytes, each batch waits until its own are sent.
const MOST_WAITING: usize = 256;
const MOST_BYTES_WAITING: usize = 1024 * 1024;

#[derive(Default)]
struct Waiting {
    parcels: Vec<(u64, Parcel)>,
    /// Bytes of memory of all of them.
    bytes: usize,
}

/// What a batch leaves to be sent.
pub enum Parcel {
    /// Messages of PUBLISH, and their memory.
    Published(Vec<Message>, Charge),
    /// Events, and `Hub.changes` of then: whoever came later does not hear of them.
    Happened(Happened, u64),
}

impl Parcel {
    /// Bytes of memory of its messages.
    fn memory(&self) -> usize {
        match self {
            Parcel::Published(messages, _) => messages.iter().map(Message::memory).sum(),
            Parcel::Happened(..) => 0,
        }
    }
}

#[derive(Default)]
struct State {
    /// For each kind of [`Subscription`].
    subscribers: [Subscribers; 3],
    /// Clients that have subscribed, with the number of their subscriptions.
    listeners: BTreeMap<Id, usize>,
    monitors: BTreeMap<Id, Arc<Outbox>>,
}

/// Messages to one channel that wait until the log holds everything that was done before them. Mostly it is one. But
/// if a client publishes many, one behind the other, their receivers are looked up once.
pub struct Message {
    /// To a channel or a shard channel.
    to: Subscription,
    channel: Name,
    /// The texts one behind the other, and where each ends.
    texts: Vec<u8>,
    ends: Vec<usize>,
    /// The receivers: those of the channel, and those of each pattern that matches.
    named: Option<Arc<[Id]>>,
    patterns: Vec<(Name, Arc<[Id]>)>,
    /// How many receive it. Whoever receives it twice counts twice.
    pub receivers: usize,
    /// `Hub.changes` of when they were looked up.
    changes: u64,
    /// Whether it was made in EXEC, where nobody waits for the receivers.
    pub in_exec: bool,
}

/// The most bytes that are sent together as one [`Message`].
const MOST_TOGETHER: usize = 16 * 1024;

/// Bytes for some short texts, if there are several.
const ROOM: usize = 1000;

/// Bytes of a text that is sent, without the channel and itself.
const FRAME: usize = 32;

impl Message {
    /// Whether this text may go with those before it, if nobody has subscribed or unsubscribed meanwhile.
    pub fn can_take(&self, to: Subscription, channel: &[u8], text: &[u8]) -> bool {
        // The channel will stand in front of each of them, and their lengths.
        let channels = (self.ends.len() + 1).saturating_mul(channel.len() + FRAME);
        self.to == to
            && *self.channel == *channel
            && self.patterns.is_empty()
            && channels + self.texts.len() + text.len() <= MOST_TOGETHER
    }

    /// Adds a text. Returns how many bytes of memory that takes.
    pub fn push(&mut self, text: &[u8]) -> usize {
        let before = if self.is_empty() { 0 } else { self.memory() };
        if self.ends.len() == 1 {
            // A third one may follow.
            self.texts.reserve(ROOM);
        }
        self.texts.extend_from_slice(text);
        self.ends.push(self.texts.len());
        self.memory() - before
    }

    pub fn is_empty(&self) -> bool {
        self.ends.is_empty()
    }

    fn texts(&self) -> impl Iterator<Item = &[u8]> {
        let begins = std::iter::once(0).chain(self.ends.iter().copied());
        begins.zip(&self.ends).map(|(begin, end)| &self.texts[begin..*end])
    }

    pub fn ids(&self) -> impl Iterator<Item = Id> {
        self.audiences().flat_map(|(_, ids)| ids.iter().copied())
    }

    /// Each list of receivers, with the pattern that it is of.
    fn audiences(&self) -> impl Iterator<Item = (Option<&Name>, &[Id])> {
        let patterns = self.patterns.iter().map(|(pattern, ids)| (Some(pattern), &**ids));
        self.named.iter().map(|ids| (None, &**ids)).chain(patterns)
    }

    /// Bytes of memory that it takes, without the shared lists.
    fn memory(&self) -> usize {
        let lists = self.ends.capacity() * size_of::<usize>() + size_of_val(&self.patterns[..]);
        size_of::<Message>() + self.channel.len() + self.texts.capacity() + lists
    }
}

/// What a client subscribes to.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Subscription {
    Channel,
    Pattern,
    Shard,
}

impl Subscription {
    pub const ALL: [Subscription; 3] =
        [Subscription::Channel, Subscription::Pattern, Subscription::Shard];
}

impl State {
    fn of(&mut self, to: Subscription) -> &mut Subscribers {
        &mut self.subscribers[to as usize]
    }

    fn look(&self, to: Subscription) -> &Subscribers {
        &self.subscribers[to as usize]
    }
}

impl Hub {
    /// Adds a subscriber. Its outbox holds messages back until the confirmation is queued.
    pub fn subscribe(&self, to: Subscription, name: &[u8], id: Id, outbox: &Arc<Outbox>) {
        let mut state = self.state.write().unwrap();
        let since = self.changes.fetch_add(1, Ordering::AcqRel) + 1;
        let audience = state.of(to).entry(name.into()).or_default();
        audience.ids = OnceLock::new();
        let subscriber = Subscriber { outbox: outbox.clone(), since };
        if audience.of.insert(id, subscriber).is_none() {
            *state.listeners.entry(id).or_default() += 1;
        }
    }

    /// Removes a subscriber. No message for this name reaches its outbox afterwards.
    pub fn unsubscribe(&self, from: Subscription, name: &[u8], id: Id) {
        let mut state = self.state.write().unwrap();
        self.changes.fetch_add(1, Ordering::AcqRel);
        let subscribers = state.of(from);
        let Some(audience) = subscribers.get_mut(name) else {
            return;
        };
        let was_there = audience.of.remove(&id).is_some();
        audience.ids = OnceLock::new();
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

    /// Whether nobody has subscribed or unsubscribed since its receivers were looked up.
    pub fn is_up_to_date(&self, message: &Message) -> bool {
        self.changes.load(Ordering::Acquire) == message.changes
    }

    /// Makes a message, still without a text, for the current subscribers of the channel and of each pattern that
    /// matches it.
    pub fn message(&self, to: Subscription, channel: &[u8]) -> Message {
        let state = self.state.read().unwrap();
        let known = state.look(to).get_key_value(channel);
        let mut patterns = Vec::new();
        for (pattern, audience) in state.look(Subscription::Pattern) {
            if to == Subscription::Channel && glob::matches(pattern, channel, false) {
                patterns.push((pattern.clone(), audience.ids()));
            }
        }
        let mut message = Message {
            to,
            channel: known.map_or_else(|| channel.into(), |(name, _)| name.clone()),
            texts: Vec::new(),
            ends: Vec::new(),
            named: known.map(|(_, audience)| audience.ids()),
            patterns,
            receivers: 0,
            changes: self.changes.load(Ordering::Acquire),
            in_exec: false,
        };
        message.receivers = message.ids().count();
        message
    }

    /// A parcel of what has just happened.
    pub fn parcel(&self, happened: Happened) -> Parcel {
        Parcel::Happened(happened, self.changes.load(Ordering::Acquire))
    }

    /// Takes parcels that are to be sent when the log is written to this position. The caller has the keyspace,
    /// so they stand behind all that has happened before.
    pub fn keep(&self, position: u64, parcels: &mut Vec<Parcel>) {
        let mut waiting = self.waiting.lock().unwrap();
        waiting.bytes += parcels.iter().map(Parcel::memory).sum::<usize>();
        waiting.parcels.extend(parcels.drain(..).map(|parcel| (position, parcel)));
    }

    /// The log is written to this position, or it has failed: sends the messages that have waited for that,
    /// whosever they are, to those of their receivers that have not unsubscribed meanwhile. They may be left to the
    /// courier, unless all `must` have been sent when this returns. `sent` is the client's.
    pub fn send(&self, position: u64, must: bool, sent: &mut Sent) {
        self.ready.fetch_max(position, Ordering::AcqRel);
        let now = Instant::now();
        let rest = {
            let mut pace = self.pace.lock().unwrap();
            pace.step(now, sent);
            pace.rest(now)
        };
        let turn = match must || self.has_much_waiting() {
            true => Some(self.sending.lock().unwrap()),
            false if rest.is_zero() => self.sending.try_lock().ok(),
            false => None,
        };
        if let Some(mut bundles) = turn {
            self.send_round(&mut bundles);
        } else if !self.is_woken.swap(true, Ordering::AcqRel)
            && let Some(courier) = self.courier.get()
        {
            courier.unpark();
        }
    }

    /// Whether many publish at this moment. Then nobody waits for what a receiver has just sent.
    pub fn is_crowded(&self) -> bool {
        self.pace.lock().unwrap().is_crowded(Instant::now())
    }

    /// Sends what was left before. When this returns, it stands in the outboxes.
    pub fn send_what_waits(&self) {
        self.send_round(&mut self.sending.lock().unwrap());
    }

    /// The work of the courier.
    pub fn send_for_ever(&self) -> ! {
        let _ = self.courier.set(std::thread::current());
        loop {
            while self.has_ready() {
                // A publisher may have begun the next rest meanwhile.
                let rest = self.pace.lock().unwrap().rest(Instant::now());
                match rest.is_zero() {
                    true => self.send_what_waits(),
                    false => std::thread::sleep(rest),
                }
            }
            // A swap, because after a store the look below might miss the parcels of a thread that has just found this
            // true and woken nobody.
            self.is_woken.swap(false, Ordering::AcqRel);
            // Whoever has left something before has not woken it.
            if !self.has_ready() {
                std::thread::park();
            }
        }
    }

    fn has_much_waiting(&self) -> bool {
        let waiting = self.waiting.lock().unwrap();
        waiting.parcels.len() > MOST_WAITING || waiting.bytes > MOST_BYTES_WAITING
    }

    fn has_ready(&self) -> bool {
        let ready = self.ready.load(Ordering::Acquire);
        self.waiting.lock().unwrap().parcels.iter().any(|(needed, _)| *needed <= ready)
    }

    /// Sends all that is ready. The caller has the turn.
    fn send_round(&self, bundles: &mut Bundles) {
        let parcels = self.take_waiting(self.ready.load(Ordering::Acquire));
        if parcels.is_empty() {
            return;
        }
        let began = Instant::now();
        let state = self.state.read().unwrap();
        for parcel in parcels {
            match parcel {
                Parcel::Published(messages, _charge) => {
                    messages.iter().for_each(|message| bundles.add(message, &state));
                }
                Parcel::Happened(happened, before) => {
                    happened.messages(|channel, text| {
                        bundles.add_to_all(channel, text, before, &state);
                    });
                }
            }
        }
        bundles.hand_over();
        let ended = Instant::now();
        drop(state);
        self.pace.lock().unwrap().begin_rest(ended - began, ended);
    }

    fn take_waiting(&self, position: u64) -> Vec<Parcel> {
        let mut waiting = self.waiting.lock().unwrap();
        let ready = waiting.parcels.extract_if(.., |(needed, _)| *needed <= position);
        let ready: Vec<_> = ready.map(|(_, parcel)| parcel).collect();
        waiting.bytes -= ready.iter().map(Parcel::memory).sum::<usize>();
        ready
    }

    /// Runs `work` while no message is being queued.
    pub fn between_messages(&self, work: impl FnOnce()) {
        let _state = self.state.write().unwrap();
        work();
    }

    /// The channels with a subscriber that match the pattern.
    pub fn channels(&self, of: Subscription, pattern: Option<&[u8]>) -> Vec<Vec<u8>> {
        let state = self.state.read().unwrap();
        let wanted = |name: &&Name| pattern.is_none_or(|p| glob::matches(p, name, false));
        state.look(of).keys().filter(wanted).map(|name| name.to_vec()).collect()
    }

    /// How many clients have subscribed to the channel, patterns not counted.
    pub fn subscribers(&self, to: Subscription, channel: &[u8]) -> usize {
        let state = self.state.read().unwrap();
        state.look(to).get(channel).map_or(0, |audience| audience.of.len())
    }

    /// All subscribers.
    pub fn listeners(&self) -> Vec<Id> {
        let state = self.state.read().unwrap();
        state.listeners.keys().copied().collect()
    }

    /// How many channels, or patterns, have a subscriber.
    pub fn count(&self, of: Subscription) -> usize {
        self.state.read().unwrap().look(of).len()
    }

    /// MONITOR, or its end. The outbox holds the lines back until the OK is queued.
    pub fn set_monitor(&self, id: Id, outbox: Option<Arc<Outbox>>) {
        let monitors = &mut self.state.write().unwrap().monitors;
        match outbox {
            Some(outbox) => monitors.insert(id, outbox),
            None => monitors.remove(&id),
        };
        self.monitors.store(monitors.len(), Ordering::Relaxed);
    }

    pub fn has_monitors(&self) -> bool {
        self.monitors.load(Ordering::Relaxed) > 0
    }

    /// Queues a line for every monitor except `except`.
    pub fn show_monitors(&self, line: &[u8], except: Id) {
        let state = self.state.read().unwrap();
        let others = state.monitors.iter().filter(|(id, _)| **id != except);
        others.for_each(|(_, outbox)| outbox.push(line));
    }
}

/// When this many bytes of messages have been encoded, they are handed over to the outboxes.
const BUNDLE: usize = 256 * 1024;

/// Between two rounds the memory for this many bytes is kept.
const KEPT: usize = 64 * 1024;

/// Collects messages per receiver, so that each receiver is sent several at once. A message is encoded once for all
/// that get the same bytes, and copied for none of them.
struct Bundles {
    /// All messages, one behind the other.
    encoded: Reply,
    /// Which of them each receiver gets.
    of: BTreeMap<Id, (Arc<Outbox>, Vec<Range<usize>>)>,
}

impl Default for Bundles {
    fn default() -> Bundles {
        Bundles { encoded: Reply::new(), of: BTreeMap::new() }
    }
}

impl Bundles {
    /// Adds a message for its receivers, except for those that have unsubscribed meanwhile.
    fn add(&mut self, message: &Message, state: &State) {
        let texts: Vec<&[u8]> = message.texts().collect();
        for (pattern, ids) in message.audiences() {
            let (audience, begin): (_, &[&[u8]]) = match (pattern, message.to) {
                (Some(pattern), _) => {
                    (state.look(Subscription::Pattern).get(pattern), &[b"pmessage", pattern])
                }
                (None, to @ Subscription::Shard) => {
                    (state.look(to).get(&message.channel), &[b"smessage"])
                }
                (None, to) => (state.look(to).get(&message.channel), &[b"message"]),
            };
            let listens = |id: &Id| Some((*id, &audience?.of.get(id)?.outbox));
            self.add_for(ids.iter().filter_map(listens), begin, &message.channel, &texts);
        }
    }

    /// Adds a message for all who listen to the channel, if they did `before`.
    fn add_to_all(&mut self, channel: &[u8], text: &[u8], before: u64, state: &State) {
        let named = state.look(Subscription::Channel).get(channel);
        let named = named.map(|audience| (None, audience));
        let patterns = state.look(Subscription::Pattern).iter();
        let patterns = patterns.map(|(pattern, audience)| (Some(&**pattern), audience));
        let matches = patterns.filter(|(pattern, _)| {
            pattern.is_some_and(|pattern| glob::matches(pattern, channel, false))
        });
        for (pattern, audience) in named.into_iter().chain(matches) {
            let heard = audience.of.iter().filter(|(_, subscriber)| subscriber.since <= before);
            let receivers = heard.map(|(id, subscriber)| (*id, &subscriber.outbox));
            match pattern {
                Some(pattern) => self.add_for(receivers, &[b"pmessage", pattern], channel, &[text]),
                None => self.add_for(receivers, &[b"message"], channel, &[text]),
            }
        }
    }

    /// `begin` are the words of the message before the channel.
    fn add_for<'o>(
        &mut self,
        receivers: impl Iterator<Item = (Id, &'o Arc<Outbox>)>,
        begin: &[&[u8]],
        channel: &[u8],
        texts: &[&[u8]],
    ) {
        let mut forms = [None, None];
        for (id, outbox) in receivers.filter(|(_, outbox)| !outbox.has_ended()) {
            let protocol = outbox.protocol();
            let form = &mut forms[usize::from(protocol == Protocol::Resp3)];
            let encode = || encode(begin, channel, texts, protocol, &mut self.encoded);
            let form = form.get_or_insert_with(encode).clone();
            let (_, parts) = self.of.entry(id).or_insert_with(|| (outbox.clone(), Vec::new()));
            match parts.last_mut() {
                Some(last) if last.end == form.start => last.end = form.end,
                _ => parts.push(form),
            }
        }
        if self.encoded.out.len() > BUNDLE {
            self.hand_over();
        }
    }

    fn hand_over(&mut self) {
        let encoded = self.encoded.out.one_piece().unwrap_or_default();
        for (outbox, parts) in std::mem::take(&mut self.of).into_values() {
            match &parts[..] {
                [part] => outbox.send(&encoded[part.clone()]),
                parts => {
                    let parts = parts.iter().map(|part| &encoded[part.clone()]);
                    outbox.send(&parts.collect::<Vec<_>>().concat());
                }
            }
        }
        self.encoded.out.clear(KEPT);
    }
}

/// Returns where it is.
fn encode(
    begin: &[&[u8]],
    channel: &[u8],
    texts: &[&[u8]],
    protocol: Protocol,
    into: &mut Reply,
) -> Range<usize> {
    // What stands in front of each text.
    let mut front = Reply::new();
    front.protocol = protocol;
    front.push(begin.len() + 2);
    begin.iter().chain(&[channel]).for_each(|word| front.bulk(word));
    let start = into.out.mark();
    for text in texts {
        into.out.append(&front.out, 0..front.out.mark());
        into.bulk(text);
    }
    start..into.out.mark()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn clients_that_publish_in_turn_are_a_crowd_if_they_are_many_and_quick() {
        let start = Instant::now();
        let are_crowd = |clients: u32, apart: Duration| {
            let (mut pace, mut sent) = (Pace::default(), vec![None; clients as usize]);
            for turn in 0..3 * clients {
                pace.step(start + turn * apart, &mut sent[(turn % clients) as usize]);
            }
            pace.is_crowded(start + 3 * clients * apart)
        };
        let [quick, slow] = [10, 200].map(Duration::from_micros);
        assert!(are_crowd(50, quick) && are_crowd(9, quick));
        assert!(!are_crowd(8, quick) && !are_crowd(1, quick) && !are_crowd(50, slow));
    }
}
