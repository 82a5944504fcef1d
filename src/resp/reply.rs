//! Replies: what goes back to a client, in the protocol that it has asked for.
//!
//! The first byte of a reply says what it is. RESP3 has more kinds than RESP2, and each of them has a
//! form in RESP2 too. So a handler says what it means, and need not ask which protocol it is:
//!
//! ```text
//!                  RESP2                    RESP3
//! nil              $-1  or  *-1             _
//! map              *4 k v k v               %2 k v k v
//! set, push        *                        ~ and >
//! double, boolean  a bulk string, :1        ,3.141 and #t
//! text for people  a bulk string            =…txt:…
//! ```
//!
//! A reply is written straight into the client's [`Output`], so nothing in between has to be made and
//! freed. The length of an array is written before its elements, so a handler must know how many will
//! follow. If it fails in the middle, the output is cut back to where the command began.
//!
//! A string of more than 64 KiB is not copied. To copy a megabyte takes a tenth of a millisecond, and
//! whoever waits for the lock would wait for that. The output shares the string with the keyspace, and
//! it goes to the socket from where it is:
//!
//! ```text
//! written   $1048576\r\n ┊ \r\n +OK\r\n              at the ┊ the socket is given
//! shared                 └▶ Arc ──▶ a megabyte       what the keyspace has, or had
//! ```
//!
//! A client's output is *watched*. Whenever it has grown by a step, it is counted as what the client
//! holds (held.rs). If the client is to end, or may not leave that much unread, the output is thrown away
//! and swallows all that follows. So no reply can grow without bound, whatever its handler does. A
//! handler that has much to say uses [`Reply::each`], which ends early when the output swallows.
//!
//! The prices: APPEND and SETRANGE copy a value that a reply still shares, under the exclusive lock. A
//! client that reads slowly keeps a value in memory that the keyspace no longer has, as a copy would.
//! Fields of a hash are copied, and so is what goes to an outbox.
//!
//! **How Redis does it**: the `addReply…` functions of networking.c, with a list of blocks behind the
//! buffer. It can also come back later to fill in a length (`addReplyDeferredLen`). It copies.

use super::{print_double, write_bulk, write_header};
use crate::blob::Blob;
use crate::error;
use crate::held::{Charge, End, STEP};
use crate::spare;
use std::ops::{ControlFlow, Range};
use std::sync::Arc;

/// Which of the two versions of the protocol a client has asked for with HELLO.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Protocol {
    #[default]
    Resp2,
    Resp3,
}

/// Writes replies over a client's output buffer, in the protocol that the client speaks.
pub struct Reply {
    /// What has not left yet. It is cut back if a command fails.
    pub out: Output,
    pub protocol: Protocol,
    /// Errors that were told and are not in the statistics yet.
    pub errors: error::Tally,
}

impl Reply {
    /// An empty reply, in RESP2, which every client speaks until it sends HELLO 3.
    pub fn new() -> Reply {
        let errors = error::Tally::default();
        Reply { out: Output::new(None), protocol: Protocol::Resp2, errors }
    }

    /// The same for a client: its replies are counted and limited.
    pub fn counted(charge: Charge) -> Reply {
        Reply { out: Output::new(Some(charge)), ..Reply::new() }
    }

    /// Writes each of these, behind the head that says how many there are. Ends early when the output
    /// swallows what is written. Whatever may be many goes through here.
    pub fn each<T>(
        &mut self,
        items: impl IntoIterator<Item = T>,
        mut write: impl FnMut(&mut Reply, T),
    ) {
        // Iterators made of others walk faster by themselves than a loop that asks for each next one.
        let _ = items.into_iter().try_for_each(|item| {
            if self.out.is_over {
                return ControlFlow::Break(());
            }
            write(self, item);
            ControlFlow::Continue(())
        });
    }

    /// `count` elements, and with `both` what belongs to each: in RESP2 behind it, in RESP3 in a pair with it.
    pub fn pairs<'a, S>(
        &mut self,
        count: usize,
        pairs: impl Iterator<Item = (&'a [u8], S)>,
        both: bool,
        write_second: impl Fn(&mut Reply, S),
    ) {
        let is_flat = both && !self.is_resp3();
        self.array(if is_flat { 2 * count } else { count });
        self.each(pairs, |reply, (first, second)| {
            if both && !is_flat {
                reply.array(2);
            }
            reply.bulk(first);
            if both {
                write_second(reply, second);
            }
        });
    }

    fn is_resp3(&self) -> bool {
        self.protocol == Protocol::Resp3
    }

    /// The status `OK`, with which a handler ends.
    pub fn ok(&mut self) -> Result<(), error::Error> {
        self.out.written.extend_from_slice(b"+OK\r\n");
        Ok(())
    }

    /// A status: a word of ours, never a client's bytes, which could hold a line end.
    pub fn status(&mut self, text: &str) {
        self.out.written.push(b'+');
        self.out.written.extend_from_slice(text.as_bytes());
        self.out.written.extend_from_slice(b"\r\n");
    }

    /// The status that a script has made. A line end in it becomes a space.
    pub fn status_of_script(&mut self, text: &[u8]) {
        if self.out.takes(text.len()) {
            self.out.written.push(b'+');
            self.line(text);
        }
    }

    /// Text in one line, up to its end.
    fn line(&mut self, text: &[u8]) {
        let is_end = |byte| matches!(byte, b'\r' | b'\n');
        self.out.written.extend(text.iter().map(|byte| if is_end(*byte) { b' ' } else { *byte }));
        self.out.written.extend_from_slice(b"\r\n");
    }

    /// An error, which is counted. It may quote what a client sent, so a line end in it becomes a space.
    pub fn error(&mut self, error: &error::Error) {
        let start = self.out.written.len();
        self.uncounted_error(error);
        let end = self.out.written.len() - 2;
        self.errors.count(&self.out.written[start + 1..end]);
    }

    /// An error that was counted when a command of a script has failed.
    pub fn uncounted_error(&mut self, error: &error::Error) {
        let mut text = Vec::new();
        error.write_to(&mut text);
        while text.ends_with(b"\r") || text.ends_with(b"\n") {
            text.pop();
        }
        self.out.written.push(b'-');
        self.line(&text);
    }

    pub fn integer(&mut self, number: i64) {
        write_header(&mut self.out.written, b':', number);
    }

    pub fn count(&mut self, number: usize) {
        self.integer(number as i64);
    }

    /// A bulk string: any bytes, of any length.
    pub fn bulk(&mut self, bytes: &[u8]) {
        if self.out.takes(bytes.len()) {
            write_bulk(&mut self.out.written, bytes);
        }
    }

    /// A bulk string that is shared with the keyspace.
    pub fn shared_bulk(&mut self, value: &Arc<Blob>) {
        // It is in memory already, so it is counted when the output is looked at next.
        if self.out.len().saturating_add(value.len()) >= self.out.look_at
            && !self.out.look(value.len(), 0)
        {
            return;
        }
        write_header(&mut self.out.written, b'$', value.len() as i64);
        self.out.share(self.out.mark(), value);
        self.out.written.extend_from_slice(b"\r\n");
    }

    /// A line for a monitor, as it stands on the wire.
    pub fn monitor_line(&mut self, line: &[u8]) {
        self.out.written.extend_from_slice(line);
    }

    pub fn bulk_or_nil(&mut self, bytes: Option<&[u8]>) {
        match bytes {
            Some(bytes) => self.bulk(bytes),
            None => self.nil(),
        }
    }

    /// Nil in the place of a bulk string: no such key, no such field.
    pub fn nil(&mut self) {
        self.out.written.extend_from_slice(if self.is_resp3() { b"_\r\n" } else { b"$-1\r\n" });
    }

    /// Nil in the place of an array: an EXEC that did not run.
    pub fn nil_array(&mut self) {
        self.out.written.extend_from_slice(if self.is_resp3() { b"_\r\n" } else { b"*-1\r\n" });
    }

    /// The head of an array. Its `length` elements must follow.
    pub fn array(&mut self, length: usize) {
        write_header(&mut self.out.written, b'*', length as i64);
    }

    pub fn bulks(&mut self, all: &[impl AsRef<[u8]>]) {
        self.array(all.len());
        self.each(all, |reply, bytes| reply.bulk(bytes.as_ref()));
    }

    /// An array of statuses, which redis-cli shows without quotes: the lines of a HELP.
    pub fn statuses(&mut self, all: &[impl AsRef<str>]) {
        self.array(all.len());
        all.iter().for_each(|text| self.status(text.as_ref()));
    }

    /// The head of a map of `length` pairs; a flat array in RESP2.
    pub fn map(&mut self, length: usize) {
        match self.protocol {
            Protocol::Resp3 => write_header(&mut self.out.written, b'%', length as i64),
            Protocol::Resp2 => self.array(2 * length),
        }
    }

    /// The head of a set; an array in RESP2.
    pub fn set(&mut self, length: usize) {
        self.head(b'~', length);
    }

    /// The head of a message that answers no command; an array in RESP2.
    pub fn push(&mut self, length: usize) {
        self.head(b'>', length);
    }

    fn head(&mut self, kind: u8, length: usize) {
        let kind = if self.is_resp3() { kind } else { b'*' };
        write_header(&mut self.out.written, kind, length as i64);
    }

    /// A floating-point number; a bulk string in RESP2.
    pub fn double(&mut self, number: f64) {
        let mut text = Vec::with_capacity(24);
        match (number.is_nan(), number.is_sign_negative()) {
            (false, _) => print_double(number, &mut text),
            // Only a script can have made it.
            (true, true) => text.extend(b"-nan"),
            (true, false) => text.extend(b"nan"),
        }
        match self.protocol {
            Protocol::Resp3 => {
                self.out.written.push(b',');
                self.out.written.extend_from_slice(&text);
                self.out.written.extend_from_slice(b"\r\n");
            }
            Protocol::Resp2 => self.bulk(&text),
        }
    }

    /// A truth value; 1 or 0 in RESP2.
    pub fn boolean(&mut self, value: bool) {
        match self.protocol {
            Protocol::Resp3 => {
                self.out.written.extend_from_slice(if value { b"#t\r\n" } else { b"#f\r\n" })
            }
            Protocol::Resp2 => self.integer(value.into()),
        }
    }

    /// A number of any size, in digits; a bulk string in RESP2.
    pub fn big_number(&mut self, digits: &[u8]) {
        if !self.is_resp3() {
            return self.bulk(digits);
        }
        if self.out.takes(digits.len()) {
            self.out.written.push(b'(');
            self.line(digits);
        }
    }

    /// The head of `length` pairs that say something about the reply behind them. RESP2 has no such thing.
    pub fn attributes(&mut self, length: usize) {
        write_header(&mut self.out.written, b'|', length as i64);
    }

    /// Text that is meant for a person; a bulk string in RESP2.
    pub fn verbatim(&mut self, text: &str) {
        self.verbatim_of(b"txt", text.as_bytes());
    }

    /// The same in another format, whose name has three letters.
    pub fn verbatim_of(&mut self, format: &[u8], text: &[u8]) {
        match self.protocol {
            Protocol::Resp3 if self.out.takes(text.len()) => {
                write_header(&mut self.out.written, b'=', text.len() as i64 + 4);
                let letters = format.iter().copied().take_while(|letter| *letter != 0);
                self.out.written.extend(letters.chain([b' '; 3]).take(3));
                self.out.written.push(b':');
                self.out.written.extend_from_slice(text);
                self.out.written.extend_from_slice(b"\r\n");
            }
            Protocol::Resp3 => {}
            Protocol::Resp2 => self.bulk(text),
        }
    }
}

/// Bytes that wait to be sent: bytes that were written here, and large values between them.
pub struct Output {
    written: Vec<u8>,
    /// The large values in order, each with the written byte that it goes before. A value has its header
    /// in front and its line end behind, so no value is at the mark where a command begins.
    shared: Vec<(usize, Arc<Blob>)>,
    /// How many bytes these have together, and how many of them count as held: if others share a value
    /// too, a part of it.
    shared_length: usize,
    shared_held: usize,
    /// What the client holds by it. None if nobody watches how it grows.
    charge: Option<Charge>,
    /// The length at which it is looked at again.
    look_at: usize,
    /// Whether its client is to end, so that it swallows what is written.
    pub is_over: bool,
}

impl Output {
    fn new(charge: Option<Charge>) -> Output {
        Output {
            written: Vec::new(),
            shared: Vec::new(),
            shared_length: 0,
            shared_held: 0,
            look_at: if charge.is_some() { STEP } else { usize::MAX },
            charge,
            is_over: false,
        }
    }

    /// Whether `more` bytes can be written. If not, they need not be made. (Short things are written
    /// without asking, and thrown away when somebody asks next.)
    #[inline]
    pub fn takes(&mut self, more: usize) -> bool {
        self.len().saturating_add(more) < self.look_at || self.look(more, more)
    }

    /// A charge of the same client, for what is gathered before the reply is made. None in a replay.
    pub fn other_charge(&self) -> Option<Charge> {
        self.charge.as_ref().map(|charge| Charge::new(&charge.held))
    }

    /// Whether all that is written is thrown away, because the client is to end.
    pub fn is_thrown_away(&mut self) -> bool {
        !self.takes(0)
    }

    /// The length of all that is to be sent. The last look may be a step behind, so it is looked at once more.
    pub fn end(&mut self) -> usize {
        if self.len() > STEP {
            self.look(0, 0);
        }
        self.len()
    }

    /// Counts what is there and what is to come: `more` bytes, of which `written` are written here. Throws
    /// all away if it is too much.
    #[cold]
    fn look(&mut self, more: usize, written: usize) -> bool {
        let length = self.len().saturating_add(more);
        let held = self.held(written);
        let Some(charge) = &mut self.charge else {
            return true;
        };
        if !self.is_over {
            charge.set(held);
            let client = &charge.held;
            if client.total.normal.is_over_hard(length) {
                client.kill(End::Output);
            }
            self.is_over = client.is_ended();
            // Measured from what is there, because what is to come may come little by little.
            self.look_at = self.len() + STEP;
        }
        if self.is_over {
            self.look_at = 0;
            self.give_back();
        } else {
            spare::lend(&mut self.written, written);
        }
        !self.is_over
    }

    /// Bytes of memory that it takes when `more` are written.
    fn held(&self, more: usize) -> usize {
        let places = self.shared.capacity() * size_of::<(usize, Arc<Blob>)>();
        let written = self.written.capacity().max(self.written.len());
        let written = written.max(self.written.len().saturating_add(more));
        written.saturating_add(places + self.shared_held)
    }

    /// Counts anew what is held, because others may have begun or ceased to share some of its values.
    pub fn count_again(&mut self) {
        self.shared_held = self.shared.iter().map(|(_, value)| part_of(value)).sum();
        self.count_held();
    }

    fn count_held(&mut self) {
        let held = self.held(0);
        if let Some(charge) = &mut self.charge {
            charge.set(held);
        }
    }

    /// Hands over its contents, and is empty.
    pub fn take(&mut self) -> Output {
        let empty = Output::new(self.charge.take());
        let mut old = std::mem::replace(self, empty);
        self.is_over = old.is_over;
        old.look_at = usize::MAX;
        old
    }

    /// Empties it and gives its memory back.
    pub fn give_back(&mut self) {
        self.truncate(0);
        self.written = Vec::new();
        self.shared = Vec::new();
        self.count_held();
    }

    /// Where it ends now, in written bytes: a place to which it can be cut back.
    pub fn mark(&self) -> usize {
        self.written.len()
    }

    /// How many bytes it has in all.
    pub fn len(&self) -> usize {
        self.written.len() + self.shared_length
    }

    /// Cuts off what came after a mark.
    pub fn truncate(&mut self, mark: usize) {
        self.written.truncate(mark);
        while let Some((_, value)) = self.shared.pop_if(|(at, _)| *at >= mark) {
            self.shared_length -= value.len();
            self.shared_held = self.shared_held.saturating_sub(part_of(&value));
        }
        if self.charge.is_some() && !self.is_over {
            self.look_at = self.look_at.min(self.len() + STEP);
        }
    }

    fn share(&mut self, at: usize, value: &Arc<Blob>) {
        self.shared.push((at, value.clone()));
        self.shared_length += value.len();
        self.shared_held += part_of(value);
    }

    /// Empties it, and gives memory back beyond `keep` bytes.
    pub fn clear(&mut self, keep: usize) {
        self.truncate(0);
        if self.written.capacity() > keep {
            spare::give_back(std::mem::take(&mut self.written));
        }
        self.shared.shrink_to(keep / size_of::<(usize, Arc<Blob>)>());
        self.shared_held = 0;
        self.count_held();
    }

    /// How many bytes can be written without more memory.
    pub fn capacity(&self) -> usize {
        self.written.capacity()
    }

    /// Adds what another output has between two marks.
    pub fn append(&mut self, other: &Output, range: Range<usize>) {
        let begin = self.mark();
        let within = other.shared.iter().filter(|(at, _)| range.contains(at));
        within.for_each(|(at, value)| self.share(begin + at - range.start, value));
        self.written.extend_from_slice(&other.written[range]);
        self.takes(0);
    }

    /// All of it, if it lies in one piece of memory, as nearly always.
    pub fn one_piece(&self) -> Option<&[u8]> {
        self.shared.is_empty().then_some(&self.written)
    }

    /// All of it, in the pieces that it has in memory.
    pub fn pieces(&self) -> impl Iterator<Item = &[u8]> {
        let mut from = 0;
        let end = (self.mark(), &[][..]);
        let shared = self.shared.iter().map(|(at, value)| (*at, &value[..]));
        let pieces = shared.chain([end]).flat_map(move |(at, value)| {
            let written = &self.written[from..at];
            from = at;
            [written, value]
        });
        pieces.filter(|piece| !piece.is_empty())
    }

    /// A copy of all of it, in one piece.
    pub fn to_vec(&self) -> Vec<u8> {
        self.pieces().collect::<Vec<_>>().concat()
    }
}

/// If several share a value, each of them holds an equal part, and the keyspace is one of them. So a value
/// that a thousand clients are sent counts once, also when the keyspace no longer has it.
fn part_of(value: &Arc<Blob>) -> usize {
    value.len() / Arc::strong_count(value).max(1)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::held::{Held, Total};
    use std::sync::atomic::Ordering;

    fn text(out: &Output) -> String {
        String::from_utf8(out.to_vec()).unwrap()
    }

    #[test]
    fn a_reply_that_is_too_long_is_thrown_away_and_no_more_of_it_is_made() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let stream = std::net::TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let total = Arc::new(Total::default());
        let held = Held::new(&total, Some(Arc::new(stream)));
        let mut reply = Reply::counted(Charge::new(&held));
        let word = [b'x'; 1000];
        reply.each(0..1000, |reply, _| reply.bulk(&word));
        assert!(reply.out.len() > 1_000_000, "without a limit it may be of any length");
        assert!((1_000_000..3_000_000).contains(&held.bytes()));
        reply.out.give_back();
        assert_eq!(held.bytes(), 0);

        total.normal.hard.store(100_000, Ordering::Relaxed);
        let mut made = 0;
        reply.each(0..1_000_000, |reply, _| {
            made += 1;
            reply.bulk(&word);
        });
        assert!((100..150).contains(&made), "{made}");
        assert_eq!(held.end(), Some(End::Output));
        reply.bulk(&vec![b'x'; 1_000_000]);
        reply.shared_bulk(&Arc::new(word.to_vec().into()));
        assert!(reply.out.len() < 100 && held.bytes() == 0);
    }

    #[test]
    fn a_shared_value_is_where_it_was_put_whatever_is_cut_off_or_exchanged() {
        let [one, two] = [&b"one"[..], b"two!"].map(|text| Arc::new(Blob::from(text.to_vec())));
        let mut reply = Reply::new();
        reply.ok().unwrap();
        let first = reply.out.mark();
        reply.shared_bulk(&one);
        let second = reply.out.mark();
        reply.array(2);
        reply.shared_bulk(&two);
        reply.shared_bulk(&one);
        let end = reply.out.mark();
        let whole = "+OK\r\n$3\r\none\r\n*2\r\n$4\r\ntwo!\r\n$3\r\none\r\n";
        assert_eq!(text(&reply.out), whole);
        assert_eq!(reply.out.len(), whole.len());

        let mut other = Output::new(None);
        other.append(&reply.out, 0..first);
        other.append(&reply.out, second..end);
        assert_eq!(text(&other), whole.replacen("$3\r\none\r\n", "", 1));

        reply.out.truncate(second);
        assert_eq!(text(&reply.out), "+OK\r\n$3\r\none\r\n");
        reply.out.truncate(first);
        assert_eq!(text(&reply.out), "+OK\r\n");
        assert_eq!(Arc::strong_count(&one), 2, "the other's is left");
        other.clear(0);
        assert_eq!(other.len(), 0);
        assert_eq!(Arc::strong_count(&one), 1);
    }
}
