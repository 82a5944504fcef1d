//! Sorting a part: what stands at some places is to be what would stand there if all were sorted.
//!
//! A quicksort puts what is less than one element to its left, and what is greater to its right. Then it does
//! the same on each side, and here only on a side that has some of those places:
//!
//! ```text
//! 5 places, of which 1 and 2 are wanted         9 4 7 1 4
//! around 4                                      1 │ 4 4 │ 9 7      done: nobody wants place 3 or 4
//! ```
//!
//! std has this too (`select_nth_unstable_by`), and where the order of all elements is decided, SORT uses it.
//! Elements that compare as equal come out in an order that depends on each step. So the steps here are
//! Redis's, and so are its replies. One thing differs. A list can be made so that one side is nearly empty each
//! time, and then a quicksort takes time that grows with the square. When that goes on for long, std's sort
//! does the rest.
//!
//! **How Redis does it**: pqsort.c, the quicksort of Bentley and McIlroy (*Engineering a Sort Function*, 1993)
//! with a range.

use std::cmp::Ordering;
use std::ops::Range;

/// Puts the right items at the places in the window, each in its own place.
pub fn sort<T>(items: &mut [T], window: Range<usize>, compare: impl Fn(&T, &T) -> Ordering) {
    let depth = 4 * items.len().max(2).ilog2();
    sort_side(items, window.start as isize..window.end as isize, &compare, depth);
}

/// The places in the window are counted from the begin of these items, and may be outside.
fn sort_side<T>(
    items: &mut [T],
    window: Range<isize>,
    compare: &impl Fn(&T, &T) -> Ordering,
    depth: u32,
) {
    let length = items.len();
    let is_wanted = window.start < length as isize && window.end > 0;
    if length < 2 || !is_wanted {
        return;
    }
    // With so few items Redis inserts one after the other, which is stable too.
    if length < 7 || depth == 0 {
        return items.sort_by(compare);
    }
    items.swap(0, pivot(items, compare));
    let (less, greater) = divide(items, compare);
    let (begin, end) = items.split_at_mut(length - greater);
    let offset = begin.len() as isize;
    sort_side(&mut begin[..less], window.clone(), compare, depth - 1);
    sort_side(end, window.start - offset..window.end - offset, compare, depth - 1);
}

/// Puts what is less than item 0 to the left, and what is greater to the right. Returns how many these are.
fn divide<T>(items: &mut [T], compare: &impl Fn(&T, &T) -> Ordering) -> (usize, usize) {
    // From both ends inwards. What is equal is gathered at the ends.
    let last = items.len() - 1;
    let (mut equal_left, mut left, mut right, mut equal_right) = (1, 1, last, last);
    loop {
        while left <= right {
            let order = compare(&items[left], &items[0]);
            if order.is_gt() {
                break;
            }
            if order.is_eq() {
                items.swap(equal_left, left);
                equal_left += 1;
            }
            left += 1;
        }
        while left <= right {
            let order = compare(&items[right], &items[0]);
            if order.is_lt() {
                break;
            }
            if order.is_eq() {
                items.swap(right, equal_right);
                equal_right -= 1;
            }
            right -= 1;
        }
        if left > right {
            break;
        }
        items.swap(left, right);
        left += 1;
        right -= 1;
    }
    // And then it goes to the middle.
    let (less, greater) = (left - equal_left, equal_right - right);
    exchange(items, 0, left, equal_left.min(less));
    exchange(items, left, last + 1, greater.min(last - equal_right));
    (less, greater)
}

/// Exchanges `count` items that begin at `from` with those that end at `to`.
fn exchange<T>(items: &mut [T], from: usize, to: usize, count: usize) {
    (0..count).for_each(|i| items.swap(from + i, to - count + i));
}

/// The item around which the others are put: the middle one of three, or of three times three.
fn pivot<T>(items: &[T], compare: &impl Fn(&T, &T) -> Ordering) -> usize {
    let (first, middle, last) = (0, items.len() / 2, items.len() - 1);
    let of = |a, b, c| median(items, [a, b, c], compare);
    match items.len() {
        ..=7 => middle,
        8..=40 => of(first, middle, last),
        length => {
            let step = length / 8;
            of(
                of(first, first + step, first + 2 * step),
                of(middle - step, middle, middle + step),
                of(last - 2 * step, last - step, last),
            )
        }
    }
}

/// If two are equal, it matters which of them is taken.
fn median<T>(items: &[T], at: [usize; 3], compare: &impl Fn(&T, &T) -> Ordering) -> usize {
    let [a, b, c] = at;
    let order = |a: usize, b: usize| compare(&items[a], &items[b]);
    match order(a, b) {
        Ordering::Less if order(b, c).is_lt() => b,
        Ordering::Less if order(a, c).is_lt() => c,
        Ordering::Less => a,
        _ if order(b, c).is_gt() => b,
        _ if order(a, c).is_lt() => a,
        _ => c,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::types::table::random_below;
    use std::cell::Cell;

    #[test]
    fn the_window_has_what_it_has_when_all_is_sorted() {
        for round in 0..2_000 {
            let count = random_below(300);
            let most = 1 + random_below(400);
            let mut items: Vec<usize> = (0..count).map(|_| random_below(most)).collect();
            if round % 3 == 0 {
                items.sort_unstable();
            }
            let mut sorted = items.clone();
            sorted.sort_unstable();
            let start = random_below(count + 1);
            let window = start..start + random_below(count + 1 - start);
            sort(&mut items, window.clone(), usize::cmp);
            assert_eq!(items[window.clone()], sorted[window]);
            items.sort_unstable();
            assert_eq!(items, sorted);
        }
    }

    #[test]
    fn no_order_of_the_items_takes_time_that_grows_with_the_square() {
        const COUNT: usize = 20_000;
        let compared = Cell::new(0);
        let measure = |mut items: Vec<usize>| {
            compared.set(0);
            sort(&mut items, 0..COUNT, |a, b| {
                compared.set(compared.get() + 1);
                a.cmp(b)
            });
            compared.get() / COUNT
        };
        // The pivot is in its place, and the sides are only within themselves in disorder.
        let halves = |i: usize| if i == COUNT / 2 { i } else { i ^ 1 };
        for items in [
            (0..COUNT).collect(),
            (0..COUNT).rev().collect(),
            (0..COUNT).map(halves).collect(),
            (0..COUNT).map(|i| i.min(COUNT - i)).collect(),
            adversary(COUNT),
        ] {
            let each = measure(items);
            assert!(each < 100, "{each} comparisons for each item");
        }
    }

    /// McIlroy's adversary: it decides the values while it is asked, so that each pivot is a bad one.
    fn adversary(count: usize) -> Vec<usize> {
        let values: Vec<Cell<usize>> = (0..count).map(|_| Cell::new(usize::MAX)).collect();
        let (next, candidate) = (Cell::new(0), Cell::new(0));
        let freeze = |i: usize| {
            values[i].set(next.get());
            next.set(next.get() + 1);
        };
        let mut items: Vec<usize> = (0..count).collect();
        sort(&mut items, 0..count, |&a, &b| {
            if values[a].get() == usize::MAX && values[b].get() == usize::MAX {
                freeze(if a == candidate.get() { a } else { b });
            }
            if values[a].get() == usize::MAX {
                candidate.set(a);
            } else if values[b].get() == usize::MAX {
                candidate.set(b);
            }
            values[a].get().cmp(&values[b].get())
        });
        values.into_iter().map(Cell::into_inner).collect()
    }
}
