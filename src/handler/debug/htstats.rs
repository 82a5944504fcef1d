//! DEBUG HTSTATS and HTSTATS-KEY: how evenly the entries of a table lie in its slots.
//!
//! The words are Redis's. What it calls a chain is the content of a slot here. A slot has about fourteen entries, where a
//! chain of Redis has one, because a slot is a small HashMap (types/table.rs).
//!
//! **How Redis does it**: dict.c, `dictGetStats`. It tells of a second table while one grows. Here there is one.

use std::collections::BTreeMap;
use std::fmt::Write;

/// What Redis says of a table with these numbers of entries in its slots.
pub fn describe(lengths: impl Iterator<Item = usize>) -> String {
    let mut slots_by_length = BTreeMap::new();
    lengths.for_each(|length| *slots_by_length.entry(length).or_insert(0) += 1);
    let slots: usize = slots_by_length.values().sum();
    let elements: usize = slots_by_length.iter().map(|(length, count)| length * count).sum();
    let mut text = "Hash table 0 stats (main hash table):\n".to_string();
    if elements == 0 {
        return text + "No stats available for empty dictionaries\n";
    }
    let used = slots - slots_by_length.get(&0).unwrap_or(&0);
    let longest = slots_by_length.keys().next_back().unwrap_or(&0);
    let average = elements as f64 / used as f64;
    text += &format!(
        " table size: {slots}\n number of elements: {elements}\n different slots: {used}\n \
         max chain length: {longest}\n avg chain length (counted): {average:.2}\n \
         avg chain length (computed): {average:.2}\n Chain length distribution:\n"
    );
    for (length, count) in slots_by_length {
        let percent = count as f64 * 100.0 / slots as f64;
        let _ = writeln!(text, "   {length}: {count} ({percent:.2}%)");
    }
    text
}

/// The numbers of entries in the slots of a table, by its `scan`, which counts the entries of one slot.
pub fn lengths(scan: impl Fn(u64, &mut usize) -> u64) -> impl Iterator<Item = usize> {
    let mut next = Some(0);
    std::iter::from_fn(move || {
        let mut length = 0;
        let cursor = scan(next?, &mut length);
        next = (cursor != 0).then_some(cursor);
        Some(length)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_table_is_described_in_the_words_of_redis() {
        let slots = [3, 0, 1];
        let lengths = lengths(|cursor, length| {
            *length = slots[cursor as usize];
            (cursor + 1) % 3
        });
        assert_eq!(
            describe(lengths),
            "Hash table 0 stats (main hash table):\n table size: 3\n number of elements: 4\n \
             different slots: 2\n max chain length: 3\n avg chain length (counted): 2.00\n \
             avg chain length (computed): 2.00\n Chain length distribution:\n   0: 1 (33.33%)\n   \
             1: 1 (33.33%)\n   3: 1 (33.33%)\n"
        );
        assert!(describe([0].into_iter()).ends_with("No stats available for empty dictionaries\n"));
    }
}
