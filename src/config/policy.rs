//! `maxmemory-policy`: which keys may be evicted, and which of them goes first.
//!
//! **How Redis does it**: numbers with flags in them (`MAXMEMORY_FLAG_LRU`).

/// In Redis's order.
pub const NAMES: &[&str] = &[
    "volatile-lru",
    "volatile-lfu",
    "volatile-random",
    "volatile-ttl",
    "allkeys-lru",
    "allkeys-lfu",
    "allkeys-random",
    "noeviction",
];

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Policy {
    /// Only keys that have a deadline may go.
    pub is_volatile: bool,
    pub first: First,
}

/// Which key goes first.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum First {
    /// None goes.
    Nothing,
    LeastRecent,
    LeastFrequent,
    Random,
    NearestDeadline,
}

impl Default for Policy {
    fn default() -> Policy {
        Policy::named("noeviction")
    }
}

impl Policy {
    /// The policy with this name.
    pub fn named(name: &str) -> Policy {
        let (keys, first) = name.split_once('-').unwrap_or_default();
        let first = match first {
            "lru" => First::LeastRecent,
            "lfu" => First::LeastFrequent,
            "random" => First::Random,
            "ttl" => First::NearestDeadline,
            _ => First::Nothing,
        };
        Policy { is_volatile: keys == "volatile", first }
    }
}
