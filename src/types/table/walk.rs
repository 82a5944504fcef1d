//! A walk through a table that is changed meanwhile, in which no entry comes twice.
//!
//! It goes from point to point in the order of the cursor (table.rs), as SCAN does. SCAN visits the whole slot in which
//! its point lies. That slot may have grown by a merge, so some entries come again. A walk visits only what lies behind its point,
//! and whoever changes an entry can ask whether the walk has passed it ([`Table::has_passed`]).
//!
//! **How Redis does it**: it has no such walk. A fork sees all tables as they were.

use super::{Held, Keyed, Table, slot_bits, wait_for};
use std::collections::HashMap;
use std::hint::black_box;
use std::iter::successors;

impl<E: Keyed> Table<E> {
    /// Whether a walk that has come to this point has passed the entries with this digest.
    pub fn has_passed(&self, point: u64, digest: u64) -> bool {
        slot_bits(digest, self.salt).reverse_bits() < point.reverse_bits()
    }

    /// Visits the entries from this point on to the end of so many slots, with their digests; 0 is the first point. Returns the
    /// next point; None behind the last.
    pub fn walk<'a>(
        &'a self,
        point: u64,
        slots: usize,
        mut visit: impl FnMut(u64, Held<'a, E>),
    ) -> Option<u64> {
        let points = successors(Some(point), |point| self.next_point(*point)).take(slots);
        let points: Vec<u64> = points.collect();
        let end = points.last().and_then(|last| self.next_point(*last));
        let mut visit_if_here = |digest, entry| {
            let is_after_end = end.is_some_and(|end| !self.has_passed(end, digest));
            if !is_after_end && !self.has_passed(point, digest) {
                visit(digest, self.found(entry));
            }
        };
        // The processor waits for all slots at once, and then for the bytes of all entries.
        let slots = points.iter().filter_map(|point| self.slot(self.index_of_bits(*point)));
        wait_for(slots.clone());
        let entries = slots.clone().flat_map(HashMap::values);
        black_box(entries.fold(0, |all, entry| all ^ entry.touch(&self.heap)));
        slots.flatten().for_each(|(digest, entry)| visit_if_here(digest.get(), entry));
        self.twins.iter().for_each(|(digest, entry)| visit_if_here(digest.get(), entry));
        end
    }

    /// Where the slot ends in which this point lies.
    fn next_point(&self, point: u64) -> Option<u64> {
        Some(self.next_cursor(self.index_of_bits(point))).filter(|next| *next > 0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::key::digest_of;
    use crate::types::table::random_below;
    use std::collections::HashSet;

    #[test]
    fn a_walk_visits_each_entry_that_stays_once_while_the_table_changes() {
        for round in 0..40 {
            let mut table: Table<Vec<u8>> = Table::new();
            let mut here = HashSet::new();
            let mut change = |table: &mut Table<Vec<u8>>, grows: bool| {
                let key = random_below(3_000) as u32;
                let (bytes, digest) = (key.to_be_bytes(), digest_of(&key.to_be_bytes()));
                match grows {
                    true => drop(table.get_or_insert(digest, &bytes, |_| bytes.to_vec())),
                    false => drop(table.remove(digest, &bytes, |_, _| ())),
                }
                match grows {
                    true => here.insert(key),
                    false => here.remove(&key),
                };
                key
            };
            for _ in 0..2_000 {
                change(&mut table, true);
            }
            let mut stay: HashSet<Vec<u8>> = table.iter().map(|held| held.key().to_vec()).collect();
            let (mut point, mut visited) = (Some(0), HashMap::new());
            while let Some(from) = point {
                point = table.walk(from, 8, |_, held| {
                    *visited.entry(held.key().to_vec()).or_insert(0) += 1;
                });
                // It shrinks, or it grows.
                for _ in 0..random_below(100) {
                    let grows = round % 2 == 0;
                    let key = change(&mut table, grows);
                    // What has come back, or come anew behind the point, may be visited a second time.
                    stay.remove(&key.to_be_bytes()[..]);
                    if let Some(point) = point {
                        let digest = digest_of(&key.to_be_bytes());
                        let was_visited = visited.contains_key(&key.to_be_bytes()[..]);
                        assert!(!was_visited || table.has_passed(point, digest));
                    }
                }
            }
            assert!(visited.values().all(|times| *times == 1));
            assert!(stay.iter().all(|key| visited.contains_key(key)), "round {round}");
        }
    }
}
