//! A sequence that knows ranks: the order of a sorted set.
//!
//! `ZRANK`, `ZRANGE 500000 500009` and `ZCOUNT` ask how many elements stand before a place. A sorted
//! vector knows that, but to insert into a million elements moves half of them. std's BTreeMap moves few,
//! but knows no ranks. So here is a tree whose leaves are short sorted rings, and whose inner
//! nodes count what is below them:
//!
//! ```text
//! inner                ┌ first 10, count 3 ┬ first 40, count 4 ┬ first 80, count 2 ┐
//! leaves               10 20 30            40 50 60 70         80 90
//!
//! what is at rank 5?   3 stand before the second leaf, so it is element 5 - 3 = 2 there: 60
//! how many below 65?   `first` leads to the second leaf; 3 before it, 3 in it: 6
//! ```
//!
//! The tree knows nothing of scores. Whoever looks for a place brings a question: is this element before it
//! ([`Ranked::rank`])? So score, member and lexicographic bounds all use one search. Whoever changes something
//! brings a comparison: how does this element stand to the place? The change is made where the walk ends, so
//! a change is one walk.
//!
//! A full leaf is split in two halves, but at the end of the last one only a new leaf is begun, so that elements that
//! come in ascending order fill the leaves. A leaf that has become short is joined to its neighbour.
//! With a million elements there are four levels: a search touches about ten cache lines.
//!
//! **How Redis does it**: a skip list (t_zset.c): a node for each element, with a pointer and a count
//! (`span`) on each of its levels, and the level is chance. Nodes lie anywhere in memory, so a search in a
//! million elements waits for memory some thirty times, and an element takes 24 bytes and 16 per level,
//! beside a pointer in its dict. Here it takes its own 16 bytes and some room to grow. To move 64 elements
//! in a leaf costs less than one of those waits. (It is a ring, so at most half of them move.)

use std::cmp::Ordering;
use std::collections::VecDeque;
use std::ops::Range;

/// Elements of a leaf, at most.
const LEAF: usize = 128;

/// Children of an inner node, at most.
const INNER: usize = 32;

/// A ring grows by an eighth of a leaf, and not by doubling: most leaves are between half full and full.
const ROOM: usize = 16;

/// Elements in an order that others have chosen.
#[derive(Clone)]
pub struct Ranked<T> {
    root: Node<T>,
    len: usize,
}

/// Rings, because from a ring the first element can go without a move of all others.
#[derive(Clone)]
enum Node<T> {
    Leaf(VecDeque<T>),
    /// Never empty.
    Inner(VecDeque<Child<T>>),
}

#[derive(Clone)]
struct Child<T> {
    /// A copy of the first element below.
    first: T,
    /// How many elements are below.
    count: usize,
    node: Node<T>,
}

impl<T: Clone> Ranked<T> {
    pub fn len(&self) -> usize {
        self.len
    }

    /// Bytes that the elements take, with their share of the nodes and of what is free there.
    pub fn memory(&self) -> usize {
        self.len * size_of::<T>() * 5 / 4
    }

    /// The same, counted anew.
    pub fn recount(&self) -> usize {
        self.iter(0..self.len).count() * size_of::<T>() * 5 / 4
    }

    /// How many elements stand before the place that is looked for: those for which `is_before` holds.
    pub fn rank(&self, is_before: impl Fn(&T) -> bool) -> usize {
        let (mut node, mut rank) = (&self.root, 0);
        loop {
            match node {
                Node::Leaf(elements) => return rank + elements.partition_point(is_before),
                Node::Inner(children) => {
                    // The place is below the last child that begins before it.
                    let behind = children.partition_point(|child| is_before(&child.first));
                    let at = behind.saturating_sub(1);
                    rank += children.range(..at).map(|child| child.count).sum::<usize>();
                    node = &children[at].node;
                }
            }
        }
    }

    /// The element at a rank.
    pub fn get(&self, rank: usize) -> Option<&T> {
        let (leaf, at) = self.leaf(rank)?;
        leaf.get(at)
    }

    /// The elements at these ranks, from the first to the last.
    pub fn iter(&self, ranks: Range<usize>) -> impl Iterator<Item = &T> {
        let mut next = ranks.start;
        let leaves = std::iter::from_fn(move || {
            let (leaf, at) = self.leaf(next).filter(|_| next < ranks.end)?;
            let elements = leaf.range(at..leaf.len().min(at + ranks.end - next));
            next += elements.len();
            Some(elements)
        });
        leaves.flatten()
    }

    /// The elements at these ranks, from the last to the first.
    pub fn iter_back(&self, ranks: Range<usize>) -> impl Iterator<Item = &T> {
        let mut end = ranks.end.min(self.len);
        let leaves = std::iter::from_fn(move || {
            let (leaf, at) = self.leaf(end.checked_sub(1)?).filter(|_| end > ranks.start)?;
            let elements = leaf.range((at + 1).saturating_sub(end - ranks.start)..=at);
            end -= elements.len();
            Some(elements.rev())
        });
        leaves.flatten()
    }

    /// Puts an element in its place, in which there is none.
    pub fn insert(&mut self, element: T, place: &impl Fn(&T) -> Ordering) {
        self.len += 1;
        if let Some(right) = self.root.insert(element, place, true) {
            let left = std::mem::replace(&mut self.root, Node::Inner(VecDeque::new()));
            if let Node::Inner(children) = &mut self.root {
                children.extend([left, right].into_iter().filter_map(Child::of));
            }
        }
    }

    /// Takes the element in this place out.
    pub fn remove(&mut self, place: &impl Fn(&T) -> Ordering) -> Option<T> {
        let removed = self.root.remove(place)?;
        self.len -= 1;
        // A root with one child is not needed.
        while let Node::Inner(children) = &mut self.root
            && children.len() <= 1
        {
            self.root = children.pop_back().map_or(Node::Leaf(VecDeque::new()), |child| child.node);
        }
        Some(removed)
    }

    /// Moves an element from one place to another and gives it this value, if that is done inside of one leaf.
    /// Then no count changes, and no copy of a first element. Returns whether it is done.
    pub fn shift(
        &mut self,
        element: &T,
        from: &impl Fn(&T) -> Ordering,
        to: &impl Fn(&T) -> Ordering,
    ) -> bool {
        let mut node = &mut self.root;
        while let Node::Inner(children) = node {
            let at = way(children, from);
            if at != way(children, to) {
                return false;
            }
            node = &mut children[at].node;
        }
        let Node::Leaf(elements) = node else { return false };
        let behind = elements.partition_point(|other| to(other).is_lt());
        match find(elements, from) {
            Some(at) if at > 0 && behind > 0 => {
                elements.remove(at);
                elements.insert(if behind > at { behind - 1 } else { behind }, element.clone());
                true
            }
            _ => false,
        }
    }

    /// The leaf that has a rank, and where the rank is there.
    fn leaf(&self, rank: usize) -> Option<(&VecDeque<T>, usize)> {
        if rank >= self.len {
            return None;
        }
        let (mut node, mut rank) = (&self.root, rank);
        loop {
            match node {
                Node::Leaf(elements) => return Some((elements, rank)),
                Node::Inner(children) => {
                    let mut at = 0;
                    while at + 1 < children.len() && rank >= children[at].count {
                        rank -= children[at].count;
                        at += 1;
                    }
                    node = &children[at].node;
                }
            }
        }
    }
}

/// They must come in order.
impl<T: Clone> FromIterator<T> for Ranked<T> {
    fn from_iter<I: IntoIterator<Item = T>>(elements: I) -> Ranked<T> {
        let mut elements = elements.into_iter();
        let leaves = std::iter::from_fn(|| {
            let leaf: VecDeque<T> = elements.by_ref().take(LEAF).collect();
            (!leaf.is_empty()).then_some(Node::Leaf(leaf))
        });
        let mut nodes: Vec<Node<T>> = leaves.collect();
        while nodes.len() > 1 {
            let mut children = nodes.into_iter().filter_map(Child::of);
            let inner = std::iter::from_fn(|| {
                let inner: VecDeque<Child<T>> = children.by_ref().take(INNER).collect();
                (!inner.is_empty()).then_some(Node::Inner(inner))
            });
            nodes = inner.collect();
        }
        let root = nodes.pop().unwrap_or(Node::Leaf(VecDeque::new()));
        Ranked { len: root.count(), root }
    }
}

impl<T: Clone> Child<T> {
    /// `None` if nothing is in the node.
    fn of(node: Node<T>) -> Option<Child<T>> {
        let first = node.first()?.clone();
        Some(Child { first, count: node.count(), node })
    }
}

impl<T: Clone> Node<T> {
    fn first(&self) -> Option<&T> {
        self.nth(0)
    }

    /// An element, or the first one of a child.
    fn nth(&self, at: usize) -> Option<&T> {
        match self {
            Node::Leaf(elements) => elements.get(at),
            Node::Inner(children) => children.get(at).map(|child| &child.first),
        }
    }

    fn count(&self) -> usize {
        match self {
            Node::Leaf(elements) => elements.len(),
            Node::Inner(children) => children.iter().map(|child| child.count).sum(),
        }
    }

    /// Returns the right part if the node had to be split. `is_last`: whether nothing comes behind the node.
    fn insert(
        &mut self,
        element: T,
        place: &impl Fn(&T) -> Ordering,
        is_last: bool,
    ) -> Option<Node<T>> {
        match self {
            Node::Leaf(elements) => {
                let at = elements.partition_point(|other| place(other).is_lt());
                if elements.len() < LEAF {
                    insert(elements, at, element);
                    return None;
                }
                let is_end = is_last && at == elements.len();
                let mut right = split(elements, if is_end { LEAF } else { LEAF / 2 });
                match at.checked_sub(elements.len()) {
                    Some(at) if at > 0 || is_end => insert(&mut right, at, element),
                    _ => insert(elements, at, element),
                }
                Some(Node::Leaf(right))
            }
            Node::Inner(children) => {
                let at = way(children, place);
                let is_last = is_last && at + 1 == children.len();
                let child = &mut children[at];
                child.count += 1;
                if place(&child.first).is_gt() {
                    child.first = element.clone();
                }
                let right = Child::of(child.node.insert(element, place, is_last)?)?;
                child.count -= right.count;
                insert(children, at + 1, right);
                let is_end = is_last && at + 2 == children.len();
                let half = if is_end { INNER } else { INNER / 2 };
                (children.len() > INNER).then(|| Node::Inner(split(children, half)))
            }
        }
    }

    fn remove(&mut self, place: &impl Fn(&T) -> Ordering) -> Option<T> {
        match self {
            Node::Leaf(elements) => elements.remove(find(elements, place)?),
            Node::Inner(children) => {
                let at = way(children, place);
                let child = &mut children[at];
                let was_first = place(&child.first).is_eq();
                let removed = child.node.remove(place)?;
                child.count -= 1;
                match child.node.first() {
                    Some(first) if was_first => child.first = first.clone(),
                    Some(_) => {}
                    None => drop(children.remove(at)),
                }
                if children.get(at).is_some_and(|child| child.node.is_short()) {
                    join(children, at);
                }
                Some(removed)
            }
        }
    }

    fn is_short(&self) -> bool {
        match self {
            Node::Leaf(elements) => elements.len() < LEAF / 4,
            Node::Inner(children) => children.len() < INNER / 4,
        }
    }

    /// Takes in what the next node has. Returns what is too much, if anything is.
    fn append(&mut self, next: Node<T>) -> Option<Node<T>> {
        match (self, next) {
            (Node::Leaf(elements), Node::Leaf(mut more)) => {
                elements.append(&mut more);
                let half = elements.len() / 2;
                (elements.len() > LEAF).then(|| Node::Leaf(split(elements, half)))
            }
            (Node::Inner(children), Node::Inner(mut more)) => {
                children.append(&mut more);
                let half = children.len() / 2;
                (children.len() > INNER).then(|| Node::Inner(split(children, half)))
            }
            // All leaves are at one depth.
            (_, next) => Some(next),
        }
    }
}

/// Joins a child that is short to a neighbour, or shares what both have.
fn join<T: Clone>(children: &mut VecDeque<Child<T>>, at: usize) {
    let left = at.saturating_sub(1);
    let Some(next) = children.remove(left + 1) else {
        return;
    };
    let child = &mut children[left];
    child.count += next.count;
    if let Some(rest) = child.node.append(next.node).and_then(Child::of) {
        child.count -= rest.count;
        children.insert(left + 1, rest);
    }
}

/// The child that has a place: the last one that does not begin behind it.
fn way<T>(children: &VecDeque<Child<T>>, place: &impl Fn(&T) -> Ordering) -> usize {
    children.partition_point(|child| place(&child.first).is_le()).saturating_sub(1)
}

/// Where in a leaf the element is that is in this place.
fn find<T>(elements: &VecDeque<T>, place: &impl Fn(&T) -> Ordering) -> Option<usize> {
    elements.binary_search_by(place).ok()
}

/// Inserts without taking much more memory than is needed.
fn insert<T>(into: &mut VecDeque<T>, at: usize, element: T) {
    if into.len() == into.capacity() {
        into.reserve_exact(ROOM);
    }
    into.insert(at, element);
}

fn split<T>(elements: &mut VecDeque<T>, at: usize) -> VecDeque<T> {
    let right = elements.split_off(at);
    elements.shrink_to_fit();
    right
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::types::table::random_below;

    impl Node<u32> {
        /// Looks at each count and each copy of a first element. Returns the depth.
        fn check(&self) -> usize {
            let Node::Inner(children) = self else {
                return 0;
            };
            assert!((1..=INNER).contains(&children.len()));
            let depths = children.iter().map(|child| {
                assert_eq!(Some(&child.first), child.node.first());
                assert_eq!(child.count, child.node.count());
                child.node.check()
            });
            let depths: Vec<usize> = depths.collect();
            assert!(depths.iter().all(|depth| *depth == depths[0]), "leaves at one depth");
            depths[0] + 1
        }

        fn leaves(&self) -> usize {
            match self {
                Node::Leaf(_) => 1,
                Node::Inner(children) => children.iter().map(|child| child.node.leaves()).sum(),
            }
        }
    }

    #[test]
    fn leaves_are_at_least_half_full_in_whatever_order_the_elements_come() {
        const COUNT: u32 = 50_000;
        let low = 0..LEAF as u32;
        let orders: [Vec<u32>; 4] = [
            (0..COUNT).collect(),
            (0..COUNT).rev().collect(),
            low.clone().chain((low.end..COUNT).rev()).collect(),
            (COUNT - LEAF as u32..COUNT).chain(0..COUNT - LEAF as u32).collect(),
        ];
        for order in orders {
            let mut ranked = Ranked::from_iter([]);
            order.iter().for_each(|n| ranked.insert(*n, &|other| other.cmp(n)));
            ranked.root.check();
            let leaves = ranked.root.leaves();
            assert!(leaves <= 2 * COUNT as usize / LEAF + 1, "{leaves} leaves");
        }
    }

    #[test]
    fn a_sequence_holds_at_each_rank_what_a_sorted_vector_holds_there() {
        let (mut ranked, mut model) = (Ranked::from_iter([]), Vec::new());
        let mut shifted = 0;
        for round in 0..60_000 {
            // Times of growth and times of shrinking.
            let grows = round / 15_000 % 2 == 0;
            let number = random_below(1 << 20) as u32;
            let place = ranked.rank(|other| *other < number);
            assert_eq!(place, model.partition_point(|other| *other < number));
            if model.get(place) == Some(&number) {
                continue;
            }
            if random_below(10) < if grows { 8 } else { 1 } {
                ranked.insert(number, &|other| other.cmp(&number));
                model.insert(place, number);
            } else if !model.is_empty() {
                // Often in a row, so that nodes are emptied.
                let rank = if round % 3 == 0 { random_below(model.len()) } else { model.len() / 2 };
                let removed = model.remove(rank);
                assert_eq!(ranked.remove(&|other| other.cmp(&removed)), Some(removed));
            }
            if !model.is_empty() && round % 5 == 0 {
                // A short way or a long one, and past others or not.
                let rank = random_below(model.len());
                let (old, new) = (model[rank], model[rank] ^ 1 << random_below(20));
                if model.binary_search(&new).is_err()
                    && ranked.shift(&new, &|other| other.cmp(&old), &|other| other.cmp(&new))
                {
                    model.remove(rank);
                    model.insert(model.partition_point(|other| *other < new), new);
                    shifted += 1;
                }
            }
            if round % 500 == 0 {
                ranked.root.check();
                assert_eq!(ranked.len(), model.len());
                let from = random_below(model.len() + 1);
                let to = from + random_below(model.len() + 1 - from);
                assert!(ranked.iter(from..to).eq(&model[from..to]));
                assert!(ranked.iter_back(from..to).eq(model[from..to].iter().rev()));
                assert_eq!(ranked.get(from), model.get(from));
            }
        }
        assert!(shifted > 1_000, "{shifted}");
        while !model.is_empty() {
            let number = model.remove(random_below(model.len()));
            assert_eq!(ranked.remove(&|other| other.cmp(&number)), Some(number));
            assert_eq!(ranked.remove(&|other| other.cmp(&number)), None);
        }
        assert_eq!((ranked.len(), ranked.get(0)), (0, None));
    }

    #[test]
    fn what_comes_in_order_at_once_is_as_what_comes_one_by_one() {
        for count in [0, 1, 127, 128, 129, 4_096, 4_097, 100_000u32] {
            let mut ranked = Ranked::from_iter(0..count);
            assert!(ranked.iter(0..count as usize).copied().eq(0..count));
            ranked.root.check();
            for number in count..count + 300 {
                ranked.insert(number, &|other| other.cmp(&number));
            }
            while ranked.len() > 200 {
                let number = *ranked.get(random_below(ranked.len())).unwrap();
                ranked.remove(&|other| other.cmp(&number));
            }
            ranked.root.check();
        }
    }

    #[test]
    fn elements_in_ascending_order_fill_the_leaves() {
        let mut ranked = Ranked::from_iter([]);
        (0..100_000u32).for_each(|number| ranked.insert(number, &|other| other.cmp(&number)));
        assert_eq!(ranked.root.check(), 2);
        assert_eq!(ranked.iter(0..1).chain(ranked.iter(99_999..100_000)).sum::<u32>(), 99_999);
    }
}
