//! Sorted sets beside a simple model.

use super::*;
use crate::types::table::random_below;
use crate::types::{Limits, Loose};

type Model = Vec<(Vec<u8>, f64)>;

fn limits(entries: usize, value: usize) -> Limits {
    Limits { zset: Packed { entries, value }, ..Limits::NOTHING }
}

fn all(entry: &Loose) -> Model {
    let zset = entry.look().read::<Zset>().unwrap();
    zset.all().map(|(member, score)| (member.to_vec(), score)).collect()
}

fn place(model: &Model, scoring: Scoring) -> usize {
    model.partition_point(|(member, score)| by_score((member, *score), scoring).is_lt())
}

/// Few scores, so that many members have the same.
fn random_score() -> f64 {
    [0.0, 1.5, -3.0, f64::INFINITY, random_below(50) as f64][random_below(5)]
}

#[test]
fn a_sorted_set_holds_what_a_sorted_vector_holds_after_any_changes() {
    for (entries, most) in [(1_000, 100), (0, 100), (20, 100), (0, 3_000)] {
        let limits = limits(entries, 2_000);
        let (mut entry, mut model) = (Loose::new::<Zset>(b"key"), Model::new());
        for round in 0..20_000 {
            let member = vec![b'm'; 400 * random_below(2)];
            let member = [&member[..], random_below(most).to_string().as_bytes()].concat();
            let old = model.iter().position(|(other, _)| *other == member);
            // Times of growth and times of leaving blocks.
            if random_below(10) < if round / 5_000 % 2 == 0 { 8 } else { 2 } {
                let score = random_score();
                let old = old.map(|at| model.remove(at).1);
                entry.change(&limits, |zset: &mut Edit<Zset>| {
                    zset.put(&member, |there| {
                        assert_eq!(there, old);
                        Some(score)
                    });
                });
                model.insert(place(&model, (&member, score)), (member, score));
            } else {
                let removed = entry.change(&limits, |zset: &mut Edit<Zset>| zset.remove(&member));
                assert_eq!(removed, old.is_some());
                old.map(|at| model.remove(at));
            }
            if round % 500 == 0 {
                assert_eq!(all(&entry), model);
                check_looks(&entry, &model);
            }
        }
        let reverse = entries == 0;
        // First some from the middle, and then most of what is left.
        let from = model.len() / 3;
        for count in [model.len() / 4, model.len() / 2, 1] {
            let count = count.min(model.len() - from);
            let expected: Model = model.drain(from..from + count).collect();
            let mut removed = Model::new();
            entry.change(&limits, |zset: &mut Edit<Zset>| {
                zset.remove_ranks(from..from + count, reverse, |(member, score)| {
                    removed.push((member.to_vec(), score));
                });
            });
            if reverse {
                removed.reverse();
            }
            assert_eq!((removed, all(&entry)), (expected, model.clone()));
            check_looks(&entry, &model);
        }
    }
}

fn check_looks(entry: &Loose, model: &Model) {
    let zset = entry.look().read::<Zset>().unwrap();
    assert_eq!(zset.len(), model.len());
    for (rank, (member, score)) in model.iter().enumerate().step_by(7) {
        assert_eq!(zset.rank(member), Some((rank, *score)));
        assert_eq!(zset.score(Member::Bytes(member)), Some(*score));
    }
    let (low, high) = (random_score(), random_score());
    let from = model.partition_point(|(_, score)| *score < low);
    let to = model.partition_point(|(_, score)| *score <= high).max(from);
    assert_eq!(zset.place(|(_, score)| score < low), from);
    assert_eq!(zset.place(|(_, score)| score <= high).max(from), to);
    for reverse in [false, true] {
        let found = zset.iter(from..to, reverse).map(|(member, score)| (member.to_vec(), score));
        let mut found: Model = found.collect();
        if reverse {
            found.reverse();
        }
        assert_eq!(found, model[from..to]);
    }
    assert_eq!(zset.score(Member::Bytes(b"nobody")), None);
}

#[test]
fn members_that_leave_their_block_are_found_in_the_table_and_in_the_order() {
    let limits = limits(0, 0);
    let mut entry = Loose::new::<Zset>(b"key");
    let name = |i: u32| [&[b'm'; 200][..], &i.to_be_bytes()].concat();
    let set = |entry: &mut Loose, i: u32| {
        entry.change(&limits, |zset: &mut Edit<Zset>| zset.put(&name(i), |_| Some(i.into())));
    };
    (0..20_000).for_each(|i| set(&mut entry, i));
    let before = entry.look().memory();
    for i in (0..20_000).filter(|i| i % 16 != 0) {
        assert!(entry.change(&limits, |zset: &mut Edit<Zset>| zset.remove(&name(i))));
    }
    // Changes of others give the tree time to follow.
    for round in 0..20_000 {
        set(&mut entry, round % 1_250 * 16);
        entry.change(&limits, |zset: &mut Edit<Zset>| {
            zset.put(&name(7), |_| Some(round.into()));
        });
    }
    let zset = entry.look().read::<Zset>().unwrap();
    let Zset::Sorted(sorted) = zset else {
        panic!("it is large");
    };
    assert!(!sorted.scores.heap.is_leaving() && !sorted.scores.has_blocks_to_empty());
    assert_eq!(zset.len(), 1_251);
    for (member, score) in zset.all() {
        assert_eq!(zset.score(Member::Bytes(member)), Some(score));
    }
    assert!(entry.look().memory() < before / 10);
}

#[test]
fn a_sorted_set_is_unpacked_past_either_limit() {
    let limits = limits(2, 8);
    for (member, encoding) in [("b", "listpack"), ("long member", "skiplist")] {
        let mut entry = Loose::new::<Zset>(b"key");
        entry.change(&limits, |zset: &mut Edit<Zset>| {
            zset.put(b"a", |_| Some(1.0));
            zset.put(member.as_bytes(), |_| Some(-0.5));
            // No new member, so no limit is passed.
            zset.put(b"a", |_| Some(-1.0));
        });
        assert_eq!(entry.look().value().encoding(), encoding);
        entry.change(&limits, |zset: &mut Edit<Zset>| zset.put(b"c", |_| Some(7.0)));
        assert_eq!(entry.look().value().encoding(), "skiplist");
        let model = [("a", -1.0), (member, -0.5), ("c", 7.0)];
        assert_eq!(all(&entry), model.map(|(m, s)| (m.as_bytes().to_vec(), s)));
    }
}

/// Gathers these, in another order.
fn gathered(members: &[Scoring]) -> Sorted {
    let mut gathered = Accumulator::with_room(members.len());
    let all = members.iter().rev().map(|(member, score)| (Member::Bytes(member), *score));
    gathered.add_all(all, |_, _| panic!("none is there twice"));
    gathered.sorted()
}

#[test]
fn what_is_filled_at_once_is_as_what_is_filled_one_by_one() {
    for (entries, value, encoding) in [(9, 9, "listpack"), (2, 9, "skiplist"), (9, 1, "skiplist")] {
        let limits = limits(entries, value);
        let members: [Scoring; 3] = [(b"x", -1.0), (b"aa", 0.0), (b"ab", 0.0)];
        let fill = |zset: &mut Edit<Zset>| zset.fill(gathered(&members));
        let entry = Loose::filled(b"key", &limits, fill).unwrap();
        assert_eq!(entry.look().value().encoding(), encoding);
        assert!(all(&entry).iter().map(|(m, s)| (&m[..], *s)).eq(members));
        let fill = |zset: &mut Edit<Zset>| zset.fill(gathered(&[]));
        assert!(Loose::filled(b"key", &limits, fill).is_none());
    }
}

#[test]
fn a_packed_score_is_the_same_score() {
    for score in [0.0, 1.0, -1.0, 0.1, 1e300, f64::INFINITY, f64::MIN_POSITIVE, 1_700_000_000.0] {
        let (bytes, length) = packed(score);
        let element = Element { at: 0, bytes: &bytes[..length] };
        assert_eq!(unpacked(element).to_bits(), score.to_bits());
    }
    assert_eq!((packed(1.0).1, packed(1_700_000_000.0).1, packed(-0.0).1), (2, 5, 0));
}

#[test]
fn a_scan_goes_on_when_most_members_are_removed_at_once() {
    let names: Vec<String> = (0..1_000).map(|i| format!("{i:04}")).collect();
    let members = names.iter().map(|name| (name.as_bytes(), 0.0));
    let mut sorted = Sorted::of(members, names.len());
    let mut seen = std::collections::HashSet::new();
    let mut cursor = 0;
    for round in 0.. {
        cursor = sorted.scores.scan(cursor, |held| {
            seen.insert(held.key().to_vec());
        });
        if round == 20 {
            sorted.remove_ranks(0..600, false, &mut |_| {});
        }
        if cursor == 0 {
            break;
        }
    }
    assert!(names[600..].iter().all(|name| seen.contains(name.as_bytes())));
}
