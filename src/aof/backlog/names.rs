//! By which ids replicas may name the history, and how each of these counts.
//!
//! ```text
//! positions                  0 ───────────────── 4100 ───────────▶  the log's files
//! id a91c…, ours             0                   4100
//! id 12ae…, the primary's         71300 ──────── 71400│             good up to here
//! id 77e0…, the present one       71300 ──────── 71400 ──────────▶
//!                                 └─ in memory ─┘ we are promoted
//! ```
//!
//! While we are a replica, our log says the same as the primary's stream, in other bytes. So when we are promoted, the
//! history gets a name that counts as the primary did. Its other replicas can go on with us, by the id that they know:
//! whoever lacks the last bytes of the primary's stream is sent these from memory (server/tail.rs), and then what our
//! files hold behind the place where the data was the same. Replicas of ours, if there were any, keep their own count.
//!
//! **How Redis does it**: `shiftReplicationId` in replication.c. There a replica keeps the primary's stream as it is, for
//! replicas of its own, so one id and one count are enough.

use super::History;
use crate::aof::{Aof, Position};
use crate::stats::random_id;
use crate::store::Origin;

/// A place in the log, and the offset that names it.
#[derive(Clone, Copy, Default)]
pub struct Counting {
    pub from: Position,
    pub offset: u64,
}

/// A name of the history.
#[derive(Clone)]
pub struct Name {
    pub id: String,
    /// It is good for what stands behind this place.
    pub counting: Counting,
    /// It is good up to here. [`Position::MAX`]: it goes on.
    pub to: Position,
}

/// What we have had of a primary when we are promoted.
pub struct Legacy {
    pub id: String,
    /// The place where the data was the same.
    pub counting: Counting,
    /// The last bytes of the primary's stream before it.
    pub last: Vec<u8>,
}

/// More names are not kept.
const MOST: usize = 8;

impl Counting {
    /// The offset of a position.
    pub fn offset_of(&self, position: Position) -> u64 {
        self.offset + position.saturating_sub(self.from)
    }

    /// The position of an offset; 0 if it is before the place.
    pub fn position_of(&self, offset: u64) -> Position {
        offset.checked_sub(self.offset).map_or(0, |more| self.from.saturating_add(more))
    }
}

impl Name {
    /// A new one.
    pub fn new(counting: Counting) -> Name {
        Name { id: random_id(), counting, to: Position::MAX }
    }
}

impl History {
    /// The place that an id and an offset name, if there may be such a place: what is to be sent before what stands behind
    /// it, its position, and the name by which the replica is to know the history from now on.
    pub(super) fn find(
        &self,
        id: &[u8],
        offset: u64,
        end: Position,
    ) -> Option<(Vec<u8>, Position, Name)> {
        let name = self.names.iter().find(|name| name.id.as_bytes().eq_ignore_ascii_case(id))?;
        let Counting { from, offset: first } = name.counting;
        let position = name.counting.position_of(offset).max(from);
        if position > end.min(name.to) {
            return None;
        }
        let present = &self.names[0];
        let counts_alike = present.counting.from == from && present.counting.offset == first;
        let lacking = first.saturating_sub(offset) as usize;
        let inherited: &[u8] = if counts_alike { &self.inherited } else { &[] };
        let begin = inherited.len().checked_sub(lacking)?;
        let told = if counts_alike { present } else { name };
        Some((inherited[begin..].to_vec(), position, told.clone()))
    }

    /// A start has found the log to end here, and goes on. What it writes differs from what others may have had behind it.
    pub(super) fn starts_again_at(&mut self, end: Position) {
        self.names.retain(|name| name.counting.from <= end);
        for name in &mut self.names {
            name.to = name.to.min(end);
        }
        let first = self.names.first().map(|name| name.counting);
        let counting = first.unwrap_or(Counting { from: end, offset: end });
        self.add(Name::new(counting));
    }

    fn add(&mut self, name: Name) {
        self.names.insert(0, name);
        self.names.truncate(MOST);
    }
}

impl Aof {
    /// We are promoted: from now on the primary's other replicas can go on with us, if the files hold what stands behind the
    /// place.
    pub fn inherit(&self, legacy: Legacy) {
        let target = self.target.lock().unwrap();
        let mut history = self.backlog.history.lock().unwrap();
        let Legacy { id, counting, last } = legacy;
        let is_it = |name: &Name| {
            name.id == id && name.counting.offset_of(counting.from) == counting.offset
        };
        if is_it(&history.names[0]) {
            // There was no link. What we have is still our own history.
            return;
        }
        let is_there = history.segments.front().is_some_and(|first| first.begin <= counting.from);
        if let Some(target) = target.as_ref().filter(|_| is_there) {
            history.add(Name { id, counting, to: counting.from });
            history.add(Name::new(counting));
            history.inherited = last;
            history.save(&target.manifest);
        }
    }
}

impl Aof {
    /// Whether what is logged next applies to this database, or names its own.
    pub fn is_in(&self, db: usize) -> bool {
        self.buffer.lock().unwrap().db.is_none_or(|last| last == db)
    }

    /// Where our data is in our own history, if others may know that: a replica that was promoted in our place. None too if
    /// the next record will name its database. The caller holds the keyspace.
    pub fn own_place(&self) -> Option<Origin> {
        let buffer = self.buffer.lock().unwrap();
        let history = self.backlog.history.lock().unwrap();
        history.segments.front()?;
        let Name { id, counting, .. } = &history.names[0];
        let offset = counting.offset_of(self.position());
        Some(Origin { id: id.as_str().into(), offset, db: buffer.db? })
    }
}

#[cfg(test)]
mod tests {
    use super::super::super::disk::simulated::Disk;
    use super::super::super::power_cuts::{config, start_on, write};
    use super::super::Follower;
    use super::*;

    /// All that the follower is sent.
    fn read_all(aof: &Aof, follower: &mut Follower) -> Vec<u8> {
        let mut out = Vec::new();
        while follower.position < aof.sendable() || !follower.inherited.is_empty() {
            follower.read(aof, &mut out).expect("what was written can be read");
        }
        out
    }

    const OLD: &str = "0123456789012345678901234567890123456789";

    /// A log that has followed for a while, and was promoted at offset 71400. The last ten bytes are kept.
    fn promoted(aof: &Aof) -> Counting {
        aof.keep_backlog().expect("a log");
        write(aof, &["SET followed 1"]);
        let counting = Counting { from: aof.position(), offset: 71_400 };
        aof.inherit(Legacy { id: OLD.into(), counting, last: b"last bytes".into() });
        write(aof, &["SET own 1"]);
        counting
    }

    #[test]
    fn the_replicas_of_the_old_primary_go_on_if_what_they_lack_is_kept_and_no_other() {
        let disk = Disk::new();
        let (aof, _) = start_on(&config(&disk, "everysec")).expect("a start");
        let ours = aof.backlog.name().id;
        let counting = promoted(&aof);
        let own = b"*3\r\n$3\r\nSET\r\n$3\r\nown\r\n$1\r\n1\r\n";
        for (offset, expected) in
            [(71_389, None), (71_390, Some("last bytes")), (71_395, Some("bytes"))]
        {
            let follower = aof.follow(OLD.as_bytes(), offset);
            assert_eq!(follower.is_some(), expected.is_some(), "{offset}");
            if let (Some(mut follower), Some(before)) = (follower, expected) {
                assert_eq!(read_all(&aof, &mut follower), [before.as_bytes(), own].concat());
            }
        }
        let mut follower = aof.follow(OLD.as_bytes(), 71_400).expect("the last place");
        assert_eq!(read_all(&aof, &mut follower), own);
        assert!(aof.follow(OLD.as_bytes(), 71_401).is_none(), "the old primary went on alone");
        // By the new name they have all of it, and by our old one our own replicas too.
        let new = aof.backlog.name();
        assert_eq!(follower.name.id, new.id);
        let end = 71_400 + own.len() as u64;
        assert_eq!(new.counting.offset_of(aof.sendable()), end);
        assert!(aof.follow(new.id.as_bytes(), end).is_some());
        assert!(aof.follow(new.id.as_bytes(), end + 1).is_none());
        let mut follower = aof.follow(ours.as_bytes(), counting.from).expect("a place of ours");
        assert_eq!(follower.name.id, ours);
        assert_eq!(read_all(&aof, &mut follower), own);
    }

    #[test]
    fn what_is_our_own_is_not_inherited() {
        let disk = Disk::new();
        let (aof, _) = start_on(&config(&disk, "everysec")).expect("a start");
        aof.keep_backlog().expect("a log");
        write(&aof, &["SET own 1"]);
        let (Origin { id, offset, .. }, name) =
            (aof.own_place().expect("a place"), aof.backlog.name());
        let counting = Counting { from: aof.position(), offset };
        aof.inherit(Legacy { id: id.to_string(), counting, last: Vec::new() });
        assert_eq!(aof.backlog.name().id, name.id);
        assert!(aof.follow(name.id.as_bytes(), name.counting.offset).is_some());
    }

    #[test]
    fn after_a_restart_each_name_is_good_for_what_is_left_and_no_further() {
        let disk = Disk::new();
        let (aof, _) = start_on(&config(&disk, "everysec")).expect("a start");
        let counting = promoted(&aof);
        let (name, end) = (aof.backlog.name(), aof.position());
        drop(aof);
        let (aof, _) = start_on(&config(&disk, "everysec")).expect("a start");
        write(&aof, &["SET later 1"]);
        let good_to = name.counting.offset_of(end);
        for (id, offset, is_there) in [
            (OLD, 71_400, true),
            (OLD, 71_399, false),
            (OLD, 71_401, false),
            (&name.id, good_to, true),
            (&name.id, good_to + 1, false),
        ] {
            assert_eq!(aof.follow(id.as_bytes(), offset).is_some(), is_there, "{id} {offset}");
        }
        let present = aof.backlog.name();
        assert_ne!(present.id, name.id);
        assert_eq!(present.counting.offset_of(end), good_to);
        assert!(present.counting.from == counting.from);
    }

    #[test]
    fn a_power_cut_that_takes_the_place_of_the_promotion_takes_the_names_too() {
        let promoted = Name::new(Counting { from: 4100, offset: 71_400 });
        let names = vec![promoted, Name::new(Counting::default())];
        let mut history = History { names, ..History::default() };
        let ours = history.names[1].id.clone();
        history.starts_again_at(4000);
        assert_eq!(history.names.len(), 2);
        assert_eq!(history.names[0].counting.offset_of(4000), 4000);
        assert_eq!((&history.names[1].id, history.names[1].to), (&ours, 4000));
    }
}
