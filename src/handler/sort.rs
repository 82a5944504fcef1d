//! SORT and SORT_RO: the elements of a list, a set or a sorted set, in order.
//!
//! ```text
//! RPUSH l 3 1 2      MSET w1 30 w2 10 w3 20      HSET h1 name one      HSET h2 name two
//!
//! SORT l                                   1 2 3        by what the elements are
//! SORT l BY w*                             2 3 1        by what w1, w2 and w3 hold
//! SORT l LIMIT 0 2 GET # GET h*->name      1 one 2 two  in place of each element: itself, and a field
//! SORT l BY nosort                         3 1 2        a name without a star: in the order of the list
//! ```
//!
//! The element stands for the star in a pattern. What a pattern names may be missing: then the number is 0, a
//! text comes before all others, and GET is nil.
//!
//! **What needs the keyspace.** A million elements take a third of a second to be sorted. So a long SORT is
//! done in two steps, and others may write during the second one (call/long.rs):
//!
//! ```text
//! gather     copies the elements, and looks up what they are sorted by      the shared lock
//! sort       and replies                                                    no lock
//! ```
//!
//! With GET all is done in the first step, because the values must be of the same moment as the elements. With
//! STORE all is done under the exclusive lock: a replay of the log sorts again, so nobody may write between
//! the look and the change.
//!
//! Elements with equal numbers are in the order of their bytes. Elements that nothing tells apart, because with
//! BY and ALPHA their texts are equal, stay in the order that they had; with LIMIT they are in that of Redis's
//! quicksort (sort/partial.rs).
//!
//! **How Redis does it**: sort.c, all in one function. It turns a sorted set that it sorts into a skip list, for
//! good.

mod partial;

use super::{Command, Flag, Left, ONE_KEY, Rest, Run, TimeSlice, Used, Work, command};
use crate::error::Error;
use crate::handler::args::Cursor;
use crate::handler::long::is_short;
use crate::handler::string::reply_with;
use crate::held::{Charge, End};
use crate::key::{Key, digest_of};
use crate::resp::{Args, Reply, parse_weight};
use crate::store::{View, ViewMut};
use crate::types::table::WARM;
use crate::types::{Entry, Hash, List, Loose, Side, Str, Value};
use std::ops::Range;

#[rustfmt::skip]
pub const COMMANDS: &[Command] = &[
    command("sort",    -2, Run::MayStore(sort_ro, sort), ONE_KEY, "1.0.0", "key [BY pattern] [LIMIT offset count] [GET pattern [GET pattern ...]] [ASC|DESC] [ALPHA] [STORE destination]", "Sort the elements in a list, set or sorted set").uses_by("RO access, ?RO access, ?OW update", sort_uses).with(&[Flag::DenyOom]),
    command("sort_ro", -2, Run::Long(sort_ro),           ONE_KEY, "7.0.0", "key [BY pattern] [LIMIT offset count] [GET pattern [GET pattern ...]] [ASC|DESC] [ALPHA]", "Sort the elements in a list, set or sorted set. Read-only variant of SORT.").uses("RO access, ?RO access"),
];

/// The keys of SORT whose names stand among its arguments. BY and GET name others by patterns.
fn sort_uses(args: &Args) -> Vec<Used> {
    let mut stored = None;
    let mut at = 2;
    while at < args.len() {
        match args[at].to_ascii_lowercase().as_slice() {
            b"limit" => at += 2,
            b"get" | b"by" => at += 1,
            // As in SORT itself, the last one counts.
            b"store" if at + 1 < args.len() => stored = Some((at + 1, "OW update")),
            _ => {}
        }
        at += 1;
    }
    [(1, "RO access")].into_iter().chain(stored).collect()
}

/// Whether one of the options is STORE, or the argument of one.
pub fn may_store(args: &Args) -> bool {
    args.iter().skip(2).any(|arg| arg.eq_ignore_ascii_case(b"STORE"))
}

/// SORT_RO, and SORT where no option is STORE.
fn sort_ro<'a>(view: &View, args: &'a Args, _: &TimeSlice, reply: &mut Reply) -> Left<'a> {
    let sorting = Sorting::parse(args, false)?;
    let found = sortable(view.entry(args.key(1)))?;
    let sorting = if view.is_in_script() { sorting.with_order(&found) } else { sorting };
    if found.as_ref().is_none_or(|found| sorting.is_short(found)) {
        sorting.run(found, view, reply)?;
        return Ok(None);
    }
    Ok(Some(Rest::LookOnce(Box::new(move |view, reply| {
        let found = sortable(view.peek(args.key(1)))?;
        let left = sorting.look(found, view, reply)?;
        Ok(left.map(|gathered| -> Work<'a> {
            Box::new(move |reply| sorting.sort_and_reply(gathered, reply))
        }))
    }))))
}

fn sort(view: &mut ViewMut, args: &Args, reply: &mut Reply) -> Result<(), Error> {
    let sorting = Sorting::parse(args, true)?;
    let look = view.look();
    let found = sortable(look.entry(args.key(1)))?;
    let Some(destination) = sorting.destination.map(Key::of) else {
        // STORE is the name of something.
        return sorting.run(found, &look, reply);
    };
    // A replay must find the same.
    let sorting = sorting.with_order(&found);
    let mut gathered = sorting.gather(found, &look, reply)?;
    sorting.sort(&mut gathered);
    let made = Loose::filled::<List>(&destination, look.limits, |list| {
        if sorting.gets.is_empty() {
            gathered.each(|element| list.push(Side::Right, element));
        } else {
            sorting.look_up_gets(&gathered, &look, |value| {
                list.push(Side::Right, value.as_deref().unwrap_or_default());
                true
            });
        }
    });
    reply.count(gathered.items.len() * sorting.gets.len().max(1));
    view.replace::<List>(destination, "sortstore", made);
    Ok(())
}

/// What can be sorted. WRONGTYPE if the key has something else.
fn sortable(entry: Option<Entry>) -> Result<Option<Value>, Error> {
    match entry.map(Entry::value) {
        None => Ok(None),
        Some(value @ (Value::List(_) | Value::Set(_) | Value::Zset(_))) => Ok(Some(value)),
        Some(_) => Err(Error::WrongType),
    }
}

/// The options of a command.
struct Sorting<'a> {
    /// What the elements are sorted by; `None`: by themselves.
    by: Option<Pattern<'a>>,
    /// Whether BY has a name without a star, so that nothing is sorted.
    keeps_order: bool,
    /// Whether texts are compared, and not numbers.
    alpha: bool,
    desc: bool,
    offset: i64,
    /// Negative: all.
    count: i64,
    gets: Vec<Pattern<'a>>,
    destination: Option<&'a [u8]>,
}

/// What BY and GET may have as an argument.
enum Pattern<'a> {
    /// `#`, the element itself.
    Element,
    /// Without a star it names nothing.
    Nothing,
    /// A key that holds a string, or a field of a hash.
    Key { before: &'a [u8], behind: &'a [u8], field: Option<&'a [u8]> },
}

/// The elements, copied out of the keyspace.
#[derive(Default)]
struct Gathered {
    elements: Texts,
    /// With BY and ALPHA, the text that each element is sorted by: a byte 1, and the text. For what is
    /// missing there is nothing, and so it comes before all others.
    weights: Texts,
    items: Vec<Item>,
    /// A short list may be sorted by long texts, and each of its elements by the same one. None in a replay.
    charge: Option<Charge>,
}

/// An element that is sorted.
struct Item {
    /// What is compared first: the number, or the begin of the text. It says mostly which of two comes first, and
    /// it is here, while the texts are far apart in memory.
    key: u64,
    /// Its number among the elements.
    element: usize,
}

/// Many short texts in one piece of memory.
#[derive(Default)]
struct Texts {
    bytes: Vec<u8>,
    ends: Vec<usize>,
}

impl<'a> Sorting<'a> {
    /// A set has no order, so that it gets one though BY has said that none is wanted.
    fn with_order(self, found: &Option<Value>) -> Sorting<'a> {
        match found {
            Some(Value::Set(_)) if self.keeps_order => {
                Sorting { keeps_order: false, by: None, alpha: true, ..self }
            }
            _ => self,
        }
    }

    fn parse(args: &'a Args, may_store: bool) -> Result<Sorting<'a>, Error> {
        let mut sorting = Sorting {
            by: None,
            keeps_order: false,
            alpha: false,
            desc: false,
            offset: 0,
            count: -1,
            gets: Vec::new(),
            destination: None,
        };
        let mut words = Cursor::at(args, 2);
        while let Some(option) = words.option() {
            match (&option[..], words.left()) {
                (b"ASC", _) => sorting.desc = false,
                (b"DESC", _) => sorting.desc = true,
                (b"ALPHA", _) => sorting.alpha = true,
                (b"LIMIT", 2..) => {
                    (sorting.offset, sorting.count) = (words.integer()?, words.integer()?);
                }
                (b"STORE", 1..) if may_store => sorting.destination = Some(words.next()),
                (b"BY", 1..) => {
                    let by = Pattern::parse(words.next());
                    sorting.keeps_order |= !matches!(by, Pattern::Key { .. });
                    sorting.by = Some(by);
                }
                (b"GET", 1..) => sorting.gets.push(Pattern::parse(words.next())),
                _ => return Err(Error::Syntax),
            }
        }
        Ok(sorting)
    }

    /// Sorts and replies, all under the lock that is held.
    fn run(&self, found: Option<Value>, view: &View, reply: &mut Reply) -> Result<(), Error> {
        if let Some(gathered) = self.look(found, view, reply)? {
            self.sort_and_reply(gathered, reply);
        }
        Ok(())
    }

    /// Does what needs the keyspace. Returns what is to be sorted and replied with, if that is left.
    fn look(
        &self,
        found: Option<Value>,
        view: &View,
        reply: &mut Reply,
    ) -> Result<Option<Gathered>, Error> {
        let mut gathered = self.gather(found, view, reply)?;
        if self.gets.is_empty() {
            return Ok(Some(gathered));
        }
        self.sort(&mut gathered);
        reply.array(gathered.items.len() * self.gets.len());
        self.look_up_gets(&gathered, view, |value| {
            reply_with(value, reply);
            !reply.out.is_over
        });
        Ok(None)
    }

    fn sort_and_reply(&self, mut gathered: Gathered, reply: &mut Reply) {
        self.sort(&mut gathered);
        reply.array(gathered.items.len());
        reply.each(&gathered.items, |reply, item| reply.bulk(gathered.elements.get(item.element)));
    }

    /// What LIMIT leaves of so many.
    fn window(&self, length: usize) -> Range<usize> {
        let start = usize::try_from(self.offset).map_or(0, |offset| offset.min(length));
        let left = length - start;
        start..start + usize::try_from(self.count).map_or(left, |count| count.min(left))
    }

    /// Which of the elements are needed: if nothing is sorted, those in the window.
    fn range(&self, value: &Value) -> Range<usize> {
        let (length, has_order) = match value {
            Value::List(list) => (list.len(), true),
            Value::Set(set) => (set.len(), false),
            Value::Zset(zset) => (zset.len(), true),
            _ => (0, false),
        };
        let Range { start, end } = self.window(length);
        match self.keeps_order {
            false => 0..length,
            true if self.desc && has_order => length - end..length - start,
            true => start..end,
        }
    }

    /// Whether it takes no long look. Texts that BY and GET name are not known yet; they are charged to the client.
    fn is_short(&self, value: &Value) -> bool {
        let copied = if self.keeps_order { 0 } else { value.memory() };
        is_short(self.range(value).len(), copied)
    }

    /// Copies the elements, and finds out what they are sorted by. Fails if the client is evicted meanwhile. (One
    /// that is killed goes on, because what an EXEC changes is changed to its end.)
    fn gather(&self, found: Option<Value>, view: &View, reply: &Reply) -> Result<Gathered, Error> {
        let mut gathered = Gathered { charge: reply.out.other_charge(), ..Gathered::default() };
        let Some(value) = found else {
            return Ok(gathered);
        };
        let range = self.range(&value);
        let count = range.len();
        gathered.elements.ends.reserve_exact(count);
        let mut take = |element: &[u8]| {
            gathered.elements.push(element);
            is_allowed(&mut gathered.charge, gathered.elements.memory())
        };
        match value {
            Value::List(list) => list.after(range.start).take(count).all(take),
            Value::Set(set) => {
                let mut members = set.iter().skip(range.start).take(count);
                members.all(|member| member.read(&mut take))
            }
            Value::Zset(zset) => zset.iter(range, false).all(|(member, _)| take(member)),
            _ => true,
        };
        let items = 0..gathered.elements.ends.len();
        gathered.items = items.map(|element| Item { key: 0, element }).collect();
        if !self.keeps_order {
            self.weigh(&mut gathered, view)?;
        } else if self.desc && !matches!(value, Value::Set(_)) {
            gathered.items.reverse();
        }
        match gathered.charge.as_ref().is_none_or(is_not_evicted) {
            true => Ok(gathered),
            false => Err(Error::text("ERR the client was evicted while it was sorting")),
        }
    }

    fn weigh(&self, gathered: &mut Gathered, view: &View) -> Result<(), Error> {
        let Gathered { elements, weights, items, charge } = gathered;
        let elements = &*elements;
        let mut are_numbers = true;
        let mut key_of = |text: &[u8]| {
            let number = parse_weight(text);
            are_numbers &= number.is_some();
            in_order(number.unwrap_or(0.0))
        };
        match &self.by {
            None if self.alpha => {}
            None => items.iter_mut().for_each(|item| item.key = key_of(elements.get(item.element))),
            Some(by) => {
                let mut items = items.iter_mut();
                let asked = (0..elements.ends.len()).map(|i| (by, elements.get(i)));
                look_up(view, asked, |value| {
                    match value {
                        Some(text) if self.alpha => weights.push_all([b"\x01", &text]),
                        None if self.alpha => weights.push(b""),
                        value => {
                            let key = value.map_or(in_order(0.0), |text| key_of(&text));
                            items.next().into_iter().for_each(|item| item.key = key);
                        }
                    }
                    is_allowed(charge, elements.memory() + weights.memory())
                });
            }
        }
        match are_numbers {
            true => Ok(()),
            false => Err(Error::text("ERR One or more scores can't be converted into double")),
        }
    }

    /// Puts the items in order, and leaves those in the window.
    fn sort(&self, gathered: &mut Gathered) {
        if self.keeps_order {
            return;
        }
        let Gathered { elements, weights, items, .. } = gathered;
        let texts = if self.alpha && self.by.is_some() { &*weights } else { &*elements };
        // Redis compares texts as C does, up to the first NUL. Not so if it stores, or where numbers are equal.
        let is_binary = !self.alpha || self.destination.is_some() || !texts.bytes.contains(&0);
        let text = |item: &Item| {
            let text = texts.get(item.element);
            if is_binary { text } else { up_to_nul(text) }
        };
        if self.alpha {
            items.iter_mut().for_each(|item| item.key = begin_of(text(item)));
        }
        let compare_values = |a: &Item, b: &Item| {
            let order = a.key.cmp(&b.key).then_with(|| text(a).cmp(text(b)));
            if self.desc { order.reverse() } else { order }
        };
        let window = self.window(items.len());
        if self.alpha && self.by.is_some() && window.len() < items.len() {
            partial::sort(items, window.clone(), compare_values);
            items.truncate(window.end);
            items.drain(..window.start);
            return;
        }
        let compare = |a: &Item, b: &Item| compare_values(a, b).then(a.element.cmp(&b.element));
        if window.end < items.len() {
            items.select_nth_unstable_by(window.end, compare);
            items.truncate(window.end);
        }
        if 0 < window.start && window.start < window.end {
            items.select_nth_unstable_by(window.start, compare);
        }
        items.drain(..window.start);
        items.sort_unstable_by(compare);
    }

    /// Looks up what is to be got in the place of each item. `take` returns whether to go on.
    fn look_up_gets(
        &self,
        gathered: &Gathered,
        view: &View,
        take: impl FnMut(Option<Str>) -> bool,
    ) {
        let elements = gathered.items.iter().map(|item| gathered.elements.get(item.element));
        let asked = elements.flat_map(|element| self.gets.iter().map(move |get| (get, element)));
        look_up(view, asked, take);
    }
}

impl<'a> Pattern<'a> {
    fn parse(pattern: &'a [u8]) -> Pattern<'a> {
        // Redis looks for these signs up to the first NUL.
        let text = up_to_nul(pattern);
        let Some(star) = text.iter().position(|byte| *byte == b'*') else {
            return if text == b"#" { Pattern::Element } else { Pattern::Nothing };
        };
        let (before, rest) = (&pattern[..star], &pattern[star + 1..]);
        let arrow = text[star + 1..].windows(2).position(|two| two == b"->");
        match arrow.filter(|arrow| star + 1 + arrow + 2 < text.len()) {
            Some(arrow) => {
                let field = Some(&rest[arrow + 2..]);
                Pattern::Key { before, behind: &rest[..arrow], field }
            }
            None => Pattern::Key { before, behind: rest, field: None },
        }
    }

    fn field(&self) -> Option<&'a [u8]> {
        if let Pattern::Key { field, .. } = self { *field } else { None }
    }

    /// Appends the key that it names with this element in the place of the star.
    fn write_key(&self, element: &[u8], out: &mut Vec<u8>) {
        if let Pattern::Key { before, behind, .. } = self {
            [before, element, behind].into_iter().for_each(|part| out.extend_from_slice(part));
        }
    }

    /// What it names with this element, and so with this key.
    fn value<'v>(&self, view: &View<'v>, element: &'v [u8], key: Key) -> Option<Str<'v>> {
        match self {
            Pattern::Element => Some(Str::Raw(element)),
            Pattern::Nothing => None,
            Pattern::Key { field: None, .. } => view.entry(key)?.read::<Str>(),
            Pattern::Key { field: Some(field), .. } => {
                view.entry(key)?.read::<Hash>()?.get(field).map(Str::Raw)
            }
        }
    }
}

/// Counts what is gathered. Returns whether there may be more.
fn is_allowed(charge: &mut Option<Charge>, memory: usize) -> bool {
    charge.as_mut().is_none_or(|charge| {
        charge.set(memory);
        is_not_evicted(charge)
    })
}

fn is_not_evicted(charge: &Charge) -> bool {
    charge.held.end() != Some(End::Evicted)
}

/// Bytes of names that are made before they are looked up, or one name.
const NAMES: usize = 64 * 1024;

/// Looks up what each pattern names with the element beside it, and hands it to `take`, which returns whether
/// to go on. Before some are looked up, all of them are looked ahead to (store/ahead.rs).
fn look_up<'a>(
    view: &View,
    mut asked: impl Iterator<Item = (&'a Pattern<'a>, &'a [u8])>,
    mut take: impl FnMut(Option<Str>) -> bool,
) {
    let (mut keys, mut some) = (Vec::new(), Vec::with_capacity(WARM));
    loop {
        keys.clear();
        while some.len() < WARM
            && keys.len() < NAMES
            && let Some((pattern, element)) = asked.next()
        {
            let start = keys.len();
            pattern.write_key(element, &mut keys);
            some.push((pattern, element, start..keys.len(), digest_of(&keys[start..])));
        }
        if some.is_empty() {
            return;
        }
        view.warm(some.iter().map(|(pattern, _, _, digest)| (*digest, pattern.field())));
        for (pattern, element, place, digest) in some.drain(..) {
            let key = Key { bytes: &keys[place], digest };
            if !take(pattern.value(view, element, key)) {
                return;
            }
        }
    }
}

/// A number that is in the same order as the doubles are. A zero has no sign.
fn in_order(number: f64) -> u64 {
    let bits = (number + 0.0).to_bits();
    if number < 0.0 { !bits } else { bits | 1 << 63 }
}

/// A number that is less if the text comes before another one because of its first eight bytes.
fn begin_of(text: &[u8]) -> u64 {
    let mut bytes = [0; 8];
    let length = text.len().min(8);
    bytes[..length].copy_from_slice(&text[..length]);
    u64::from_be_bytes(bytes)
}

fn up_to_nul(text: &[u8]) -> &[u8] {
    let end = text.iter().position(|byte| *byte == 0).unwrap_or(text.len());
    &text[..end]
}

impl Gathered {
    /// The elements in order.
    fn each(&self, take: impl FnMut(&[u8])) {
        self.items.iter().map(|item| self.elements.get(item.element)).for_each(take);
    }
}

impl Texts {
    fn push(&mut self, text: &[u8]) {
        self.push_all([text]);
    }

    /// Adds one text, which is in several parts.
    fn push_all<const N: usize>(&mut self, parts: [&[u8]; N]) {
        parts.into_iter().for_each(|part| self.bytes.extend_from_slice(part));
        self.ends.push(self.bytes.len());
    }

    fn memory(&self) -> usize {
        self.bytes.capacity() + self.ends.capacity() * size_of::<usize>()
    }

    fn get(&self, i: usize) -> &[u8] {
        let start = if i == 0 { 0 } else { self.ends[i - 1] };
        &self.bytes[start..self.ends[i]]
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::types::table::random_below;

    fn sorting(options: &[&str]) -> Args {
        let mut args = Args::default();
        ["sort", "key"].iter().chain(options).for_each(|arg| args.push(arg.as_bytes()));
        args
    }

    #[test]
    fn a_pattern_names_a_key_or_a_field_or_the_element_or_nothing() {
        for (pattern, key, field) in [
            ("w*", "wX", None),
            ("*", "X", None),
            ("a*b*c", "aXb*c", None),
            ("h*->f", "hX", Some("f")),
            ("h*b->f->g", "hXb", Some("f->g")),
            ("->*->f", "->X", Some("f")),
            ("h*->", "hX->", None),
            ("h*->->", "hX", Some("->")),
            ("h*->\0f", "hX->\0f", None),
            ("h*\0->f", "hX\0->f", None),
            ("h*->f\0g", "hX", Some("f\0g")),
        ] {
            let parsed = Pattern::parse(pattern.as_bytes());
            let mut found = Vec::new();
            parsed.write_key(b"X", &mut found);
            assert_eq!((&found[..], parsed.field()), (key.as_bytes(), field.map(str::as_bytes)));
        }
        assert!(matches!(Pattern::parse(b"#"), Pattern::Element));
        assert!(matches!(Pattern::parse(b"#\0*"), Pattern::Element));
        for nothing in [&b""[..], b"name", b"h->f", b"##", b"n\0*"] {
            assert!(matches!(Pattern::parse(nothing), Pattern::Nothing));
        }
    }

    #[test]
    fn a_key_is_in_the_order_of_the_numbers_and_of_the_texts() {
        let (low, high) = (f64::NEG_INFINITY, f64::INFINITY);
        let numbers = [low, -1e300, -2.0, -1.5, -5e-324, 0.0, 5e-324, 1.0, 2.5, 1e300, high];
        assert!(numbers.is_sorted_by(|a, b| in_order(*a) < in_order(*b)));
        assert_eq!(in_order(-0.0), in_order(0.0));
        let texts =
            [&b""[..], b"\0", b"a", b"a\0", b"a\0b", b"aaaaaaaa", b"aaaaaaaab", b"b", b"\xff"];
        assert!(texts.is_sorted_by(|a, b| (begin_of(a), a) < (begin_of(b), b)));
    }

    #[test]
    fn what_limit_leaves_is_a_part_of_what_is_sorted_without_it() {
        for round in 0..300 {
            let count = random_below(200);
            // Few scores, so that many are equal.
            let scores: Vec<f64> = (0..count).map(|_| random_below(9) as f64 - 4.0).collect();
            let gather = || {
                let mut gathered = Gathered::default();
                for (element, score) in scores.iter().enumerate() {
                    gathered.elements.push(&[b'a' + (element % 5) as u8]);
                    gathered.items.push(Item { key: in_order(*score), element });
                }
                gathered
            };
            let order = |options: &[&str]| {
                let args = sorting(options);
                let mut gathered = gather();
                Sorting::parse(&args, false).unwrap().sort(&mut gathered);
                gathered.items.iter().map(|item| item.element).collect::<Vec<_>>()
            };
            let options = ["DESC", "ALPHA"][round % 2];
            let all = order(&[options]);
            let mut stable: Vec<usize> = (0..count).collect();
            match options {
                "ALPHA" => stable.sort_by_key(|a| a % 5),
                _ => stable
                    .sort_by(|a, b| scores[*b].total_cmp(&scores[*a]).then((b % 5).cmp(&(a % 5)))),
            }
            assert_eq!(all, stable);
            let (offset, limit) = (random_below(count + 2), random_below(count + 2));
            let limited = [&offset.to_string(), &limit.to_string()];
            let part = order(&[options, "LIMIT", limited[0], limited[1]]);
            let expected = all.iter().skip(offset).take(limit).copied();
            assert_eq!(part, expected.collect::<Vec<_>>());
        }
    }
}
