//! Keyspace notifications: whoever subscribes to the right channel is told of each change of a key.
//!
//! `notify-keyspace-events` names classes of events by letters. `K` and `E` choose the channels, and each
//! event is published to one channel or to both:
//!
//! ```text
//! K$lg     SET k v EX 9     __keyspace@0__:k       set           the channel has the key
//!                           __keyspace@0__:k       expire
//! E$lg     RPOP l           __keyevent@0__:rpop    l             the channel has the event
//!                           __keyevent@0__:del     l             it was the last element
//! ```
//!
//! **Nobody can forget an event.** To change a key is to call a function of `ViewMut`, and each of these wants
//! the name of the event, or knows it (store/view_mut.rs). Its class is that of the value's type.
//!
//! **How a message gets to its receivers.** An event is kept as a name and a key, and only if somebody could
//! hear of it. When the lock is given back, what has happened under it joins the queue of the hub (pubsub.rs).
//! There it waits until the log holds the change. So the messages have the order of the changes, and nobody
//! hears of a change that a crash takes back:
//!
//! ```text
//! handler ─▶ ViewMut ─▶ Events ── lock is given back ─▶ Hub, with a position ── commit ─▶ outboxes
//!                       name, key                       behind what changed before         messages
//! ```
//!
//! Messages are made when they are sent, and go to whoever had subscribed when it happened. So a batch with a
//! million events holds a million keys until then, which its client has sent, and not a million messages for
//! each receiver.
//!
//! A reader that finds an expired key does not delete it. Its event is kept at once, because it has its place
//! in the order, and is taken back if the key is not deleted after all (store/expire.rs). A replay has no events.
//!
//! **How Redis does it**: notify.c. Each command calls `notifyKeyspaceEvent` wherever it has changed something,
//! and that writes the messages into the buffers of the receivers.

use std::cell::{Cell, RefCell};

/// What an event is about. Each class is a bit of the option, in the order in which CONFIG GET shows them.
#[derive(Clone, Copy)]
pub enum Class {
    Generic,
    String,
    List,
    Set,
    Hash,
    Zset,
    Expired,
    Evicted,
    /// A key is there that was not. Not in `A`, as the next one.
    New = 10,
    /// A key was looked for and is not there.
    Miss = 13,
}

/// The letters of all bits. The first ten are `A`. Of streams and modules nothing is heard here.
const LETTERS: &[u8] = b"g$lshzxetdnKEm";
const ALL: u16 = (1 << 10) - 1;
const NEW: u16 = 1 << Class::New as u16;
const KEYSPACE: u16 = 1 << 11;
const KEYEVENT: u16 = 1 << 12;

/// The bits that these letters name. None: one of them has no meaning.
pub fn parse(letters: &[u8]) -> Option<u16> {
    letters.iter().try_fold(0, |bits, letter| {
        let named = match letter {
            b'A' => ALL,
            letter => 1 << LETTERS.iter().position(|other| other == letter)?,
        };
        Some(bits | named)
    })
}

/// As CONFIG GET shows it. Redis leaves `n` out behind `A`, though it is on.
pub fn normalized(letters: &[u8]) -> Vec<u8> {
    let mut bits = parse(letters).unwrap_or(0);
    let mut text = Vec::new();
    if bits & ALL == ALL {
        text.push(b'A');
        bits &= !(ALL | NEW);
    }
    let shown = LETTERS.iter().enumerate().filter(|(bit, _)| bits & 1 << bit != 0);
    text.extend(shown.map(|(_, letter)| letter));
    text
}

/// What has happened under the present lock, as far as somebody may hear of it.
#[derive(Default)]
pub struct Events {
    /// The bits of the option. None if neither channel is chosen.
    wanted: Cell<u16>,
    kept: RefCell<Happened>,
}

/// Events in their order. Their keys stand behind each other in one piece of memory.
#[derive(Default)]
pub struct Happened {
    events: Vec<Event>,
    keys: Vec<u8>,
}

struct Event {
    /// Empty if it was taken back.
    name: &'static str,
    db: u32,
    /// The bits of the channels.
    channels: u16,
    /// Where its key ends.
    end: usize,
}

impl Events {
    /// From now on this is wanted.
    pub fn want(&self, bits: u16) {
        let is_heard = bits & (KEYSPACE | KEYEVENT) != 0;
        self.wanted.set(if is_heard { bits } else { 0 });
    }

    /// Keeps an event, if it is wanted. Returns its number for [`Events::take_back`].
    #[inline(always)]
    pub fn say(&self, class: Class, name: &'static str, db: usize, key: &[u8]) -> Option<usize> {
        let is_wanted = self.wanted.get() & 1 << class as u16 != 0;
        is_wanted.then(|| self.keep(name, db, key))
    }

    #[inline(never)]
    fn keep(&self, name: &'static str, db: usize, key: &[u8]) -> usize {
        let Happened { events, keys } = &mut *self.kept.borrow_mut();
        keys.extend_from_slice(key);
        let channels = self.wanted.get() & (KEYSPACE | KEYEVENT);
        events.push(Event { name, db: db as u32, channels, end: keys.len() });
        events.len() - 1
    }

    /// It has not happened.
    pub fn take_back(&self, number: usize) {
        self.kept.borrow_mut().events[number].name = "";
    }

    /// Hands over what has happened, if anything has.
    pub fn take(&self) -> Option<Happened> {
        let is_empty = self.kept.borrow().events.is_empty();
        (!is_empty).then(|| self.kept.take())
    }
}

impl Happened {
    /// Calls `publish` with the channel and the text of each message.
    pub fn messages(&self, mut publish: impl FnMut(&[u8], &[u8])) {
        let (mut begin, mut channel) = (0, Vec::new());
        for Event { name, db, channels, end } in &self.events {
            let (name, key) = (name.as_bytes(), &self.keys[begin..*end]);
            begin = *end;
            let both = [(KEYSPACE, "keyspace", key, name), (KEYEVENT, "keyevent", name, key)];
            for (_, kind, of, text) in both.into_iter().filter(|(bit, ..)| channels & bit != 0) {
                if !name.is_empty() {
                    channel.clear();
                    channel.extend_from_slice(format!("__{kind}@{db}__:").as_bytes());
                    channel.extend_from_slice(of);
                    publish(&channel, text);
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn letters_are_shown_in_the_order_of_redis_and_a_for_all_of_them() {
        for (given, shown) in [
            ("", ""),
            ("KEA", "AKE"),
            ("EKxg", "gxKE"),
            ("g$lshzxetd", "A"),
            ("Anm", "Am"),
            ("nmKK", "nKm"),
        ] {
            assert_eq!(normalized(given.as_bytes()), shown.as_bytes(), "{given}");
        }
        assert_eq!(parse(b"KEq"), None);
        assert_eq!(parse(b"An"), Some(ALL | NEW));
    }

    #[test]
    fn an_event_is_kept_only_if_its_class_and_a_channel_are_wanted() {
        let events = Events::default();
        let say = |wanted: &[u8]| {
            events.want(parse(wanted).unwrap());
            events.say(Class::Expired, "expired", 3, b"a");
            let number = events.say(Class::Expired, "expired", 3, b"gone");
            number.into_iter().for_each(|number| events.take_back(number));
            events.say(Class::Set, "sadd", 12, b"b");
            let mut messages = Vec::new();
            events.take().unwrap_or_default().messages(|channel, text| {
                let [channel, text] = [channel, text].map(String::from_utf8_lossy);
                messages.push(format!("{channel} {text}"));
            });
            messages
        };
        assert!(say(b"").is_empty());
        assert!(say(b"A").is_empty());
        assert!(say(b"KEl").is_empty());
        assert_eq!(say(b"Ks"), ["__keyspace@12__:b sadd"]);
        assert_eq!(say(b"Ex"), ["__keyevent@3__:expired a"]);
        let all = [
            "__keyspace@3__:a expired",
            "__keyevent@3__:expired a",
            "__keyspace@12__:b sadd",
            "__keyevent@12__:sadd b",
        ];
        assert_eq!(say(b"KEA"), all);
    }
}
