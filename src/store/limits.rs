//! What the configuration says about values: CONFIG SET may change it between two commands.

use crate::config::Config;
use crate::config::policy::First;
use crate::propagate::Source;
use crate::resp::LONGEST;
use crate::types::{Counting, Limits, NodeLimits, Packed, Remember};

impl Limits {
    /// The limits of a command that comes from this source.
    pub fn of(config: &Config, source: Source) -> Limits {
        let hash = Packed {
            entries: config.hash_max_listpack_entries.get(),
            value: config.hash_max_listpack_value.get(),
        };
        let string = match source {
            Source::Client => config.proto_max_bulk_len.get(),
            Source::Log | Source::Primary => LONGEST,
        };
        let list = NodeLimits::of(config.list_max_listpack_size.get());
        let set = Packed {
            entries: config.set_max_listpack_entries.get(),
            value: config.set_max_listpack_value.get(),
        };
        let intset = config.set_max_intset_entries.get();
        let zset = Packed {
            entries: config.zset_max_listpack_entries.get(),
            value: config.zset_max_listpack_value.get(),
        };
        let packs = config.rdbcompression.get();
        let remember = Remember::of(config);
        Limits { string, list, intset, set, hash, zset, remember, packs }
    }
}

impl Remember {
    pub fn of(config: &Config) -> Remember {
        match config.maxmemory_policy.get().first {
            First::LeastFrequent => Remember::Frequency(Counting {
                log_factor: config.lfu_log_factor.get() as u64,
                decay_time: config.lfu_decay_time.get() as u64,
            }),
            _ => Remember::LastUse,
        }
    }
}
