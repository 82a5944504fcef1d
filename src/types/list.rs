//! A list: its elements side by side while it is small, a quicklist when it is not.
//!
//! To push and pop at both ends a ring of elements would do. But an allocation for each of a million short
//! elements costs more than they do, and LINDEX or LREM would go from one to the next through all of
//! memory. So elements lie one after another in *nodes* of up to 8 KiB (`list-max-listpack-size`), and a
//! ring has the nodes:
//!
//! ```text
//! ring of nodes   │ 380 elements │ 454 │ 454 │ … │ 454 │ 12 │      each knows how many it has
//!                    ▲                     │               ▲
//!                  LPUSH, LPOP             │             RPUSH, RPOP
//!                                          ▼
//!                 LINDEX l 1000: 380 + 454 are before the third node, so there it has index 166
//! ```
//!
//! To find an element of a million in the middle is to add up a thousand counts, which lie side by side,
//! and to walk past 200 elements. LINSERT moves at most the bytes of one node; a full one is split there. LREM
//! moves what is left in a node together once, and drops nodes in which nothing is left.
//!
//! **A small list** (up to [`SMALL`] bytes) is one such node without a ring, beside its key: a count of two
//! bytes, then the elements. What is done at its ends is done where it lies. For everything else it becomes a
//! quicklist for a moment.
//!
//! **How Redis does it**: quicklist.c, a linked list of listpacks. To find an element by its index it walks
//! from node to node. It can compress the nodes in the middle (`list-compress-depth`); here that option has no
//! effect. Lists of one node are quicklists too, so `OBJECT ENCODING` says that of each.

mod node;

pub use node::{NodeLimits, Side};

use super::edit::{Edit, Place};
use super::entry::{Form, Kind, LargeValue, SmallMut};
use super::shared::Shared;
use super::{Part, Type, Value, allocated, rewrite_elements};
use crate::notify::Class;
use node::{Elements, Node};
use std::collections::VecDeque;
use std::ops::Range;

/// Bytes of elements that lie beside the key, at most. A push at the left moves all of them, so there may not
/// be many. A quicklist costs some 300 bytes more than its elements, so there may not be few.
const SMALL: usize = 1024;

/// Bytes of the count in front of a small list's elements.
const COUNT: usize = size_of::<u16>();

/// A list to be read, in either form.
#[derive(Clone, Copy)]
pub enum List<'a> {
    Packed(Elements<'a>),
    Quick(&'a Quicklist),
}

/// What a large list owns.
#[derive(Default)]
pub struct Quicklist {
    /// None of them is empty.
    nodes: VecDeque<Node>,
    /// How many elements the nodes have, and how much memory the nodes take.
    len: usize,
    memory: usize,
}

/// A list that comes whole, from its first element to its last. Its memory is used again.
#[derive(Default)]
pub struct NewList {
    /// The elements, behind room for their count, until they are too many for that.
    small: Vec<u8>,
    count: usize,
    large: Option<Shared<Quicklist>>,
}

/// What is left of a large list's memory, to be freed when the lock has been released.
pub type Dropped = VecDeque<Node>;

impl<'a> List<'a> {
    pub fn len(self) -> usize {
        match self {
            List::Packed(elements) => elements.count,
            List::Quick(list) => list.len,
        }
    }

    /// The elements, to be walked from either end.
    pub fn iter(self) -> impl DoubleEndedIterator<Item = &'a [u8]> {
        let elements = self.nodes(0).flat_map(Elements::iter);
        elements.map(|element| element.bytes)
    }

    /// The elements after the first `count`.
    pub fn after(self, count: usize) -> impl Iterator<Item = &'a [u8]> {
        let (node, before) = match self {
            List::Packed(_) => (0, count),
            List::Quick(list) => list.locate(count),
        };
        let mut nodes = self.nodes(node);
        let first = nodes.next().map(|elements| elements.after(before));
        let elements = first.into_iter().flatten().chain(nodes.flat_map(Elements::iter));
        elements.map(|element| element.bytes)
    }

    /// An element at one end. A list is never empty: the key goes with its last element.
    pub fn end(self, side: Side) -> Option<&'a [u8]> {
        let node = match (self, side) {
            (List::Packed(elements), _) => elements,
            (List::Quick(list), Side::Left) => list.nodes.front()?.look(),
            (List::Quick(list), Side::Right) => list.nodes.back()?.look(),
        };
        let end = match side {
            Side::Left => node.iter().next(),
            Side::Right => node.iter().next_back(),
        };
        end.map(|element| element.bytes)
    }

    /// How many nodes there are, and the bytes of their elements: for DEBUG OBJECT.
    pub fn nodes_and_bytes(self) -> (usize, usize) {
        self.nodes(0).fold((0, 0), |(nodes, bytes), node| (nodes + 1, bytes + node.bytes.len()))
    }

    fn nodes(self, from: usize) -> impl DoubleEndedIterator<Item = Elements<'a>> {
        let (small, large) = match self {
            List::Packed(elements) => (Some(elements), Default::default()),
            List::Quick(list) => (None, list.nodes.range(from.min(list.nodes.len())..)),
        };
        small.into_iter().chain(large.map(Node::look))
    }

    pub(super) fn encoding(self) -> &'static str {
        "quicklist"
    }

    pub(super) fn memory(self) -> usize {
        match self {
            List::Packed(_) => 0,
            List::Quick(list) => {
                let ring = allocated(list.nodes.capacity() * size_of::<Node>());
                allocated(size_of::<Quicklist>()) + ring + list.memory
            }
        }
    }

    pub(super) fn recount(self) -> usize {
        let List::Quick(list) = self else { return 0 };
        self.memory() - list.memory + list.nodes.iter().map(Node::memory).sum::<usize>()
    }

    pub(super) fn rewrite(self, key: &[u8], emit: &mut dyn FnMut(&[&[u8]])) {
        rewrite_elements([b"RPUSH", key], self.iter().map(|element| [element]), emit);
    }

    pub(super) fn parts(self, take: &mut dyn FnMut(Part)) {
        self.iter().for_each(|element| take(Part::InOrder(element)));
    }

    /// A small list, from its payload.
    pub(super) fn packed(payload: &'a [u8]) -> List<'a> {
        List::Packed(elements_of(payload))
    }
}

fn elements_of(payload: &[u8]) -> Elements<'_> {
    let count = usize::from(u16::from_le_bytes([payload[0], payload[1]]));
    Elements { bytes: &payload[COUNT..], count }
}

impl Type for List<'_> {
    const NAME: &'static str = "list";
    const NUMBER: u32 = 1;
    const CLASS: Class = Class::List;
    const NEW: (Kind, &'static [u8]) = (Kind::List, &[0; COUNT]);
    type Look<'a> = List<'a>;
    type Large = Shared<Quicklist>;

    fn of(value: Value<'_>) -> Option<List<'_>> {
        if let Value::List(list) = value { Some(list) } else { None }
    }

    fn is(kind: Kind) -> bool {
        kind == Kind::List
    }

    fn large(value: &mut LargeValue) -> Option<&mut Shared<Quicklist>> {
        if let LargeValue::List(list) = value { Some(list) } else { None }
    }

    fn is_nothing(edit: &Edit<Self>) -> bool {
        edit.look().len() == 0
    }
}

impl From<Shared<Quicklist>> for LargeValue {
    fn from(list: Shared<Quicklist>) -> LargeValue {
        LargeValue::List(list)
    }
}

impl Edit<'_, List<'_>> {
    pub fn look(&self) -> List<'_> {
        match self.place() {
            Place::Small(small) => List::packed(small.payload()),
            Place::Large(list) => List::Quick(list),
        }
    }

    pub fn push(&mut self, side: Side, element: &[u8]) {
        let limits = self.limits.list;
        match self.place_mut() {
            Place::Large(list) => list.push(side, element, limits),
            Place::Small(packed) => {
                let is_short = node::size(element) <= SMALL;
                if is_short && elements_of(packed.payload()).fits(element, small(limits)) {
                    push_packed(packed, side, element);
                } else {
                    self.as_quicklist(|list, limits| (list.push(side, element, limits), true));
                }
            }
        }
    }

    /// Takes elements away at one end. There must be so many.
    pub fn drop_from(&mut self, side: Side, count: usize) -> Dropped {
        self.attempt(|place| match place {
            Place::Large(list) => (list.drop_from(side, count), count > 0),
            Place::Small(small) => {
                drop_packed(small, side, count);
                (Dropped::new(), count > 0)
            }
        })
    }

    /// Replaces the element with this index, which must be there.
    pub fn set(&mut self, index: usize, element: &[u8]) {
        self.as_quicklist(|list, limits| (list.set(index, element, limits), true));
    }

    /// Puts an element beside the first one that equals `pivot`: `side` of it. Returns whether there is one.
    pub fn insert(&mut self, side: Side, pivot: &[u8], element: &[u8]) -> bool {
        let Some(index) = self.look().iter().position(|other| other == pivot) else {
            return false;
        };
        let index = if side == Side::Left { index } else { index + 1 };
        self.as_quicklist(|list, limits| (list.insert(index, element, limits), true));
        true
    }

    /// Takes away the elements that equal this one: at most so many, counted from one side. Returns how many.
    pub fn remove(&mut self, side: Side, element: &[u8], most: usize) -> usize {
        if self.place().is_shared() && !self.look().iter().any(|other| other == element) {
            return 0;
        }
        self.as_quicklist(|list, _| {
            let removed = list.remove(side, element, most);
            (removed, removed > 0)
        })
    }

    /// Does something that a small list cannot do by itself. `change` returns also whether it has done
    /// anything.
    fn as_quicklist<R>(
        &mut self,
        change: impl FnOnce(&mut Quicklist, NodeLimits) -> (R, bool),
    ) -> R {
        let limits = self.limits.list;
        self.attempt(|place| match place {
            Place::Large(list) => change(list, limits),
            Place::Small(small) => {
                let mut list = Quicklist::of(elements_of(small.payload()));
                let result = change(&mut list, limits);
                match list.nodes.front().map(Node::look) {
                    Some(node) if list.nodes.len() > 1 || node.bytes.len() > SMALL => {
                        place.grow(Shared::new(list));
                    }
                    node => {
                        let Elements { bytes, count } = node.unwrap_or_default();
                        let count = (count as u16).to_le_bytes();
                        small.set(Kind::List, &[&count, bytes].concat());
                    }
                }
                result
            }
        })
    }
}

impl NewList {
    /// Begins a new one.
    pub fn begin(&mut self) {
        self.small.clear();
        self.small.extend([0; COUNT]);
        (self.count, self.large) = (0, None);
    }

    pub fn push(&mut self, element: &[u8], limits: NodeLimits) {
        if let Some(list) = &mut self.large {
            return list.push(Side::Right, element, limits);
        }
        let there = Elements { bytes: &self.small[COUNT..], count: self.count };
        if node::size(element) <= SMALL && there.fits(element, small(limits)) {
            let end = self.small.len();
            self.small.resize(end + node::size(element), 0);
            node::write(&mut self.small[end..], element);
            self.count += 1;
        } else {
            let mut list = Quicklist::of(there);
            list.push(Side::Right, element, limits);
            self.large = Some(Shared::new(list));
        }
    }

    /// How it is stored. `None` if nothing is in it.
    pub fn end(&mut self) -> Option<Form<'_>> {
        if let Some(list) = self.large.take() {
            return Some(Form::Large(list.into()));
        }
        self.small[..COUNT].copy_from_slice(&(self.count as u16).to_le_bytes());
        (self.count > 0).then_some(Form::Small(Kind::List, &self.small))
    }
}

/// The limits of a list that lies beside its key.
fn small(limits: NodeLimits) -> NodeLimits {
    NodeLimits { bytes: limits.bytes.min(SMALL), ..limits }
}

fn push_packed(small: &mut SmallMut, side: Side, element: &[u8]) {
    let payload = small.payload();
    let (length, size) = (payload.len(), node::size(element));
    let count = elements_of(payload).count + 1;
    let at = if side == Side::Left { COUNT } else { length };
    if small.fit(length + size) {
        let payload = small.payload_mut();
        payload.copy_within(at..length, at + size);
        node::write(&mut payload[at..at + size], element);
    } else {
        small.edit(|bytes, start| node::replace(bytes, start + at..start + at, Some(element)));
    }
    set_count(small, count);
}

fn drop_packed(small: &mut SmallMut, side: Side, count: usize) {
    let elements = elements_of(small.payload());
    let (left, rest) = (elements.without(side, count), elements.count - count);
    let payload = small.payload_mut();
    payload.copy_within(COUNT + left.start..COUNT + left.end, COUNT);
    let length = COUNT + left.len();
    if !small.fit(length) {
        small.edit(|bytes, start| bytes.truncate(start + length));
    }
    set_count(small, rest);
}

fn set_count(small: &mut SmallMut, count: usize) {
    small.payload_mut()[..COUNT].copy_from_slice(&(count as u16).to_le_bytes());
}

impl Quicklist {
    /// The elements of a small list.
    fn of(elements: Elements) -> Quicklist {
        let mut list = Quicklist::default();
        if elements.count > 0 {
            list.add(0, Node::of(elements));
        }
        list
    }

    fn push(&mut self, side: Side, element: &[u8], limits: NodeLimits) {
        let at = match side {
            Side::Left => 0,
            Side::Right => self.nodes.len().saturating_sub(1),
        };
        if self.fits(at, element, limits) {
            return self.change(at, |node| node.push(side, element));
        }
        if at < self.nodes.len() {
            self.change(at, Node::settle);
        }
        let at = if side == Side::Left { 0 } else { self.nodes.len() };
        let mut node = Node::default();
        // In a long list it gets its whole memory at once. So its elements are not copied while it grows.
        node.make_room(side, node::size(element).max(limits.bytes.min(self.memory / 8)));
        node.push(side, element);
        self.add(at, node);
    }

    fn drop_from(&mut self, side: Side, mut count: usize) -> Dropped {
        let mut dropped = Dropped::new();
        while count > 0 {
            let at = if side == Side::Left { 0 } else { self.nodes.len() - 1 };
            let len = self.nodes[at].len();
            if count < len {
                self.change(at, |node| node.drop_from(side, count));
                break;
            }
            count -= len;
            dropped.extend(self.take(at));
        }
        dropped
    }

    fn set(&mut self, index: usize, element: &[u8], limits: NodeLimits) {
        let (at, before) = self.locate(index);
        let place = self.place_of(at, before);
        let node = self.nodes[at].look();
        let bytes = node.bytes.len() - place.len() + node::size(element);
        if node.count == 1 || bytes <= limits.bytes {
            self.change(at, |node| node.replace(place, 1, Some(element)));
        } else {
            self.change(at, |node| node.replace(place, 1, None));
            self.insert(index, element, limits);
        }
    }

    /// Puts an element before the one with this index, or behind all.
    fn insert(&mut self, index: usize, element: &[u8], limits: NodeLimits) {
        if index == self.len {
            return self.push(Side::Right, element, limits);
        }
        let (at, before) = self.locate(index);
        let place = self.place_of(at, before).start;
        if before > 0 && self.fits(at, element, limits) {
            return self.change(at, |node| node.replace(place..place, 0, Some(element)));
        }
        // It goes between two nodes, or into one of them.
        let mut behind = at;
        if before > 0 {
            behind += 1;
            let split = self.change(at, |node| node.split_off(place));
            self.add(behind, split);
        }
        let sides = [(behind.checked_sub(1), Side::Right), (Some(behind), Side::Left)];
        let nodes = sides.into_iter().filter_map(|(at, side)| Some((at?, side)));
        let nodes = nodes.filter(|(at, _)| self.fits(*at, element, limits));
        // The smaller one, or insertions at one place would leave a node behind each.
        match nodes.min_by_key(|(at, _)| self.nodes[*at].look().bytes.len()) {
            Some((at, side)) => self.change(at, |node| node.push(side, element)),
            None => {
                let mut node = Node::default();
                node.push(Side::Right, element);
                self.add(behind, node);
            }
        }
    }

    fn remove(&mut self, side: Side, element: &[u8], most: usize) -> usize {
        let mut left = most;
        let cut = |node: &mut Node| {
            let equal = node.look().iter().filter(|other| other.bytes == element);
            let mut places: Vec<_> = match side {
                Side::Left => equal.take(left).map(|equal| equal.place).collect(),
                Side::Right => equal.rev().take(left).map(|equal| equal.place).collect(),
            };
            if side == Side::Right {
                places.reverse();
            }
            if !places.is_empty() {
                node.cut(&places);
                left -= places.len();
            }
            left > 0
        };
        let _ = match side {
            Side::Left => self.nodes.iter_mut().all(cut),
            Side::Right => self.nodes.iter_mut().rev().all(cut),
        };
        if left < most {
            self.nodes.retain(|node| node.len() > 0);
            self.count();
        }
        most - left
    }

    /// The node that has the element with this index, and how many others it has before that.
    fn locate(&self, index: usize) -> (usize, usize) {
        if index < self.len / 2 {
            let mut before = index;
            for (at, node) in self.nodes.iter().enumerate() {
                if before < node.len() {
                    return (at, before);
                }
                before -= node.len();
            }
        }
        let mut behind = self.len - index.min(self.len);
        for (at, node) in self.nodes.iter().enumerate().rev() {
            if behind <= node.len() {
                return (at, node.len() - behind);
            }
            behind -= node.len();
        }
        (0, 0)
    }

    /// Where in its node an element is.
    fn place_of(&self, at: usize, before: usize) -> Range<usize> {
        let element = self.nodes[at].look().after(before).next();
        element.map(|element| element.place).unwrap_or_default()
    }

    /// Whether an element fits into a node that is there.
    fn fits(&self, at: usize, element: &[u8], limits: NodeLimits) -> bool {
        self.nodes.get(at).is_some_and(|node| node.look().fits(element, limits))
    }

    /// Changes a node. If nothing is left in it, it goes.
    fn change<R>(&mut self, at: usize, change: impl FnOnce(&mut Node) -> R) -> R {
        let node = &mut self.nodes[at];
        self.len -= node.len();
        self.memory -= node.memory();
        let result = change(node);
        self.len += node.len();
        self.memory += node.memory();
        if node.len() == 0 {
            self.take(at);
        }
        result
    }

    fn add(&mut self, at: usize, node: Node) {
        self.len += node.len();
        self.memory += node.memory();
        if self.nodes.len() == self.nodes.capacity() {
            // By an eighth and not to twice as much, because memory is counted in these bytes.
            self.nodes.reserve_exact(self.nodes.len() / 8 + 1);
        }
        self.nodes.insert(at, node);
    }

    fn take(&mut self, at: usize) -> Option<Node> {
        let node = self.nodes.remove(at)?;
        self.len -= node.len();
        self.memory -= node.memory();
        Some(node)
    }

    fn count(&mut self) {
        self.len = self.nodes.iter().map(Node::len).sum();
        self.memory = self.nodes.iter().map(Node::memory).sum();
    }
}

impl Clone for Quicklist {
    fn clone(&self) -> Quicklist {
        let mut list = Quicklist { nodes: self.nodes.clone(), ..Quicklist::default() };
        list.count();
        list
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::types::table::random_below;
    use crate::types::{Limits, Loose};

    type Model = Vec<Vec<u8>>;

    fn element() -> Vec<u8> {
        let length = [0, 1, 3, 3, 3, 126, 127, 128, 900, 20_000][random_below(10)];
        vec![b'a' + random_below(3) as u8; length]
    }

    /// Does something at random to both.
    fn change(list: &mut Edit<List>, model: &mut Model, grows: bool) {
        let side = [Side::Left, Side::Right][random_below(2)];
        let (index, element) = (random_below(model.len()), element());
        match random_below(if grows { 5 } else { 9 }) {
            0..=2 => {
                list.push(side, &element);
                let at = if side == Side::Left { 0 } else { model.len() };
                model.insert(at, element);
            }
            3 => {
                list.set(index, &element);
                model[index] = element;
            }
            4 => {
                let pivot = model[index].clone();
                assert!(list.insert(side, &pivot, &element));
                let at = model.iter().position(|other| *other == pivot).unwrap();
                model.insert(if side == Side::Left { at } else { at + 1 }, element);
            }
            5..=7 => {
                let count = random_below(4).min(model.len() - 1);
                list.drop_from(side, count);
                let kept =
                    if side == Side::Left { count..model.len() } else { 0..model.len() - count };
                *model = model[kept].to_vec();
            }
            _ => {
                let most = random_below(model.len() / 20 + 2);
                let mut left = most;
                let mut keep = |other: &Vec<u8>| {
                    let goes = left > 0 && *other == element;
                    left -= usize::from(goes);
                    !goes
                };
                match side {
                    Side::Left => model.retain(&mut keep),
                    Side::Right => {
                        let mut kept: Model =
                            model.iter().rev().filter(|e| keep(e)).cloned().collect();
                        kept.reverse();
                        *model = kept;
                    }
                }
                assert_eq!(list.remove(side, &element, most), most - left);
                if model.is_empty() {
                    list.push(side, b"");
                    model.push(Vec::new());
                }
            }
        }
    }

    fn check(list: List, model: &Model) {
        assert_eq!(list.len(), model.len());
        assert!(list.iter().eq(model.iter()) && list.iter().rev().eq(model.iter().rev()));
        assert_eq!(list.end(Side::Right), model.last().map(Vec::as_slice));
        let from = random_below(model.len() + 1);
        assert!(list.after(from).eq(model[from..].iter()));
        if let List::Quick(list) = list {
            assert!(list.nodes.iter().all(|node| node.len() > 0));
            let memory: usize = list.nodes.iter().map(Node::memory).sum();
            assert_eq!(list.memory, memory);
        }
    }

    #[test]
    fn a_list_holds_what_a_vector_holds_after_any_changes() {
        for option in [-2, -1, 1, 3, 50] {
            let limits = Limits { list: NodeLimits::of(option), ..Limits::NOTHING };
            let mut entry = Loose::new::<List>(b"key");
            let mut model = vec![b"first".to_vec()];
            entry.change(&limits, |list: &mut Edit<List>| list.push(Side::Left, b"first"));
            let mut largest = 0;
            for step in 0..4_000 {
                let grows = step % 1_000 < 300;
                entry.change(&limits, |list| change(list, &mut model, grows));
                check(entry.look().read::<List>().unwrap(), &model);
                largest = largest.max(model.len());
            }
            assert!(largest > 150, "{largest}");
            let copy = entry.look().copy_to(b"copy");
            check(copy.look().read::<List>().unwrap(), &model);
        }
    }

    #[test]
    fn the_limits_of_nodes_hold_and_full_nodes_waste_nothing() {
        for (option, side) in
            [(-2, Side::Left), (-2, Side::Right), (-1, Side::Left), (100, Side::Right)]
        {
            let list_limits = NodeLimits::of(option);
            let mut list = Quicklist::default();
            for i in 0..20_000u32 {
                list.push(side, format!("element {i:08}").as_bytes(), list_limits);
            }
            let ends = [0, list.nodes.len() - 1];
            for (at, node) in list.nodes.iter().enumerate().filter(|(at, _)| !ends.contains(at)) {
                let bytes = node.look().bytes.len();
                assert!(bytes <= list_limits.bytes && node.len() <= list_limits.count);
                assert!(node.len() == 100 || bytes + 18 > list_limits.bytes, "{at}");
                assert!(node.memory() <= bytes + 24, "{at}");
            }
            // An element in the middle of a full node splits it, and those that follow fill the halves.
            let nodes = list.nodes.len();
            (0..500).for_each(|i| list.insert(10_000 + i, b"in the middle", list_limits));
            (0..500).for_each(|_| list.insert(10_000, b"in the middle", list_limits));
            assert!(list.nodes.len() < nodes + 12, "{} after {nodes}", list.nodes.len());
        }
    }

    #[test]
    fn a_queue_of_one_element_takes_no_more_memory_with_time() {
        let limits = NodeLimits::of(-2);
        let mut list = Quicklist::default();
        list.push(Side::Right, b"first", limits);
        for _ in 0..10_000 {
            list.push(Side::Right, b"element", limits);
            list.drop_from(Side::Left, 1);
        }
        assert!(list.memory < 512, "{}", list.memory);
    }
}
