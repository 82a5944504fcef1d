//! Writing a snapshot.
//!
//! Each value is written as Redis 7.0 would hold it: the forms that a set or a list can only have here
//! become the nearest that it knows.

use super::crc64::crc64;
use super::listpack::Pack;
use super::lzf::Packer;
use super::{VERSION, encoding, form, node, opcode};
use crate::config::policy::First;
use crate::config::{Config, REDIS_VERSION};
use crate::resp::{parse_integer, print_in_listpack};
use crate::stats::unix_microseconds;
use crate::store::{Keyspace, Moment, Origin, Size};
use crate::types::{Entry, Hash, List, NodeLimits, Remember, Set, Usage, Value, Zset};
use std::io::{self, Write};

/// What the configuration says about it.
#[derive(Clone, Copy)]
pub struct How {
    /// Whether long strings are packed (`rdbcompression`).
    pub packs: bool,
    /// Whether a checksum is at its end (`rdbchecksum`).
    pub checks: bool,
    /// How much one node of a list holds (`list-max-listpack-size`).
    pub list: NodeLimits,
    /// Whether it is the base of a log.
    pub is_base: bool,
    /// What it tells of the use of keys, if anything: what `maxmemory-policy` looks at.
    pub tells: Option<Remember>,
}

impl How {
    pub fn of(config: &Config, is_base: bool) -> How {
        let (packs, checks) = (config.rdbcompression.get(), config.rdbchecksum.get());
        let list = NodeLimits::of(config.list_max_listpack_size.get());
        let policy = config.maxmemory_policy.get();
        let tells = matches!(policy.first, First::LeastRecent | First::LeastFrequent);
        let tells = tells.then(|| Remember::of(config));
        How { packs, checks, list, is_base, tells }
    }
}

/// So many bytes are collected before they are written.
const COLLECTED: usize = 64 * 1024;

/// Shorter strings are not packed.
const WORTH_PACKING: usize = 21;

/// An element of a list of so many bytes is a node by itself.
const LONG_ELEMENT: usize = 1 << 30;

/// Calls the function for progress each time so many keys have been written.
const PROGRESS: u64 = 1_000;

/// Writes all databases to `out`; returns how many bytes that was. Expired keys are included. From time to time
/// `progress` is told how many keys have been written.
pub fn write(
    out: &mut dyn Write,
    keyspace: &Keyspace,
    how: How,
    progress: &mut dyn FnMut(u64),
) -> io::Result<u64> {
    let mut writer = Writer::new(out, how);
    writer.begin(keyspace.memory().bytes(), keyspace.origin())?;
    for db in 0..keyspace.databases() {
        let (keys, deadlines) = keyspace.size(db);
        if keys > 0 {
            writer.database(db, keys, deadlines);
            keyspace.entries(db).try_for_each(|entry| writer.key(entry, progress))?;
        }
    }
    writer.end()
}

/// The same of a moment. Meanwhile clients go on.
pub fn write_moment(
    out: &mut dyn Write,
    moment: &mut Moment,
    how: How,
    progress: &mut dyn FnMut(u64),
) -> io::Result<u64> {
    let mut writer = Writer::new(out, how);
    writer.begin(moment.bytes, moment.origin.as_ref())?;
    let mut selected = None;
    while let Some((Size { db, keys, deadlines }, copies)) = moment.next() {
        if selected.replace(db) != Some(db) {
            writer.database(db, keys, deadlines);
        }
        // When a key was last used is told from now on backwards.
        writer.now = unix_microseconds() / 1000;
        copies.iter().try_for_each(|entry| writer.key(entry, progress))?;
    }
    // That would be a fault of ours, and nobody is to rely on such a snapshot.
    if writer.keys != moment.keys as u64 {
        let (found, keys) = (writer.keys, moment.keys);
        return Err(io::Error::other(format!("{found} keys were found of {keys}")));
    }
    writer.end()
}

/// What DUMP answers with: the value, the version and the CRC of both.
pub fn dump(value: Value, how: How) -> io::Result<Vec<u8>> {
    let mut out = Vec::new();
    let mut writer = Writer::new(&mut out, How { checks: true, ..how });
    writer.entry(None, value)?;
    writer.bytes.extend(VERSION.to_le_bytes());
    writer.flush()?;
    let crc = writer.crc;
    out.extend(crc.to_le_bytes());
    Ok(out)
}

struct Writer<'a> {
    out: &'a mut dyn Write,
    how: How,
    /// Unix time in milliseconds.
    now: u64,
    /// What is collected.
    bytes: Vec<u8>,
    /// Of what is written, and how much that is.
    crc: u64,
    written: u64,
    keys: u64,
    /// Made when it is needed: its table is large.
    packer: Option<Packer>,
    /// What it makes.
    packed: Vec<u8>,
    pack: Pack,
}

impl<'a> Writer<'a> {
    fn new(out: &'a mut dyn Write, how: How) -> Writer<'a> {
        let (bytes, packed, pack) = (Vec::new(), Vec::new(), Pack::default());
        let now = unix_microseconds() / 1000;
        Writer { out, how, now, bytes, crc: 0, written: 0, keys: 0, packer: None, packed, pack }
    }

    fn begin(&mut self, memory: usize, origin: Option<&Origin>) -> io::Result<()> {
        self.bytes.extend(format!("REDIS{VERSION:04}").as_bytes());
        let mut facts = vec![
            ("redis-ver", REDIS_VERSION.to_string()),
            ("redis-bits", usize::BITS.to_string()),
            ("ctime", (self.now / 1000).to_string()),
            ("used-mem", memory.to_string()),
            ("aof-base", u8::from(self.how.is_base).to_string()),
        ];
        // Where a replica is in its primary's history.
        if let Some(origin) = origin {
            facts.push(("repl-stream-db", origin.db.to_string()));
            facts.push(("repl-id", origin.id.to_string()));
            facts.push(("repl-offset", origin.offset.to_string()));
        }
        for (name, value) in facts {
            self.bytes.push(opcode::AUX);
            self.string(name.as_bytes())?;
            self.string(value.as_bytes())?;
        }
        Ok(())
    }

    /// The keys that follow are those of this database, which has so many.
    fn database(&mut self, db: usize, keys: usize, deadlines: usize) {
        self.bytes.push(opcode::SELECT_DB);
        self.length(db as u64);
        self.bytes.push(opcode::RESIZE_DB);
        self.length(keys as u64);
        self.length(deadlines as u64);
    }

    fn key(&mut self, entry: Entry, progress: &mut dyn FnMut(u64)) -> io::Result<()> {
        if let Some(deadline) = entry.deadline() {
            self.bytes.push(opcode::EXPIRES_MS);
            self.bytes.extend(deadline.to_le_bytes());
        }
        self.usage(entry.usage());
        self.entry(Some(entry.key()), entry.value())?;
        self.keys += 1;
        if self.keys.is_multiple_of(PROGRESS) {
            progress(self.keys);
        }
        Ok(())
    }

    /// Writes the end; returns how many bytes all are.
    fn end(mut self) -> io::Result<u64> {
        self.bytes.push(opcode::EOF);
        self.flush()?;
        let crc = if self.how.checks { self.crc } else { 0 };
        self.out.write_all(&crc.to_le_bytes())?;
        Ok(self.written + 8)
    }

    /// Writes when the key was used last, or how often.
    fn usage(&mut self, usage: &Usage) {
        match self.how.tells {
            None => {}
            Some(Remember::LastUse) => {
                self.bytes.push(opcode::IDLE);
                self.length(usage.idle(self.now) / 1000);
            }
            Some(Remember::Frequency(counting)) => {
                self.bytes.push(opcode::FREQUENCY);
                self.bytes.push(usage.frequency(counting, self.now) as u8);
            }
        }
    }

    /// Writes how a value is stored, the key if there is one, and the value. Long because it is a list of all forms.
    fn entry(&mut self, key: Option<&[u8]>, value: Value) -> io::Result<()> {
        match value {
            Value::String(string) => {
                self.begin_entry(form::STRING, key)?;
                self.string(&string)
            }
            Value::List(list) => {
                self.begin_entry(form::LIST_QUICKLIST_2, key)?;
                self.list(list)
            }
            Value::Set(Set::Intset(intset)) => {
                self.begin_entry(form::SET_INTSET, key)?;
                let mut bytes = (intset.width() as u32).to_le_bytes().to_vec();
                bytes.extend((intset.len() as u32).to_le_bytes());
                bytes.extend(intset.numbers());
                self.string(&bytes)
            }
            // Redis 7.0 has no listpacks of members.
            Value::Set(set @ (Set::Packed(_) | Set::Table(_))) => {
                self.begin_entry(form::SET, key)?;
                self.length(set.len() as u64);
                set.iter().try_for_each(|member| member.read(|bytes| self.string(bytes)))
            }
            Value::Hash(hash @ Hash::Packed(_)) => {
                self.begin_entry(form::HASH_LISTPACK, key)?;
                self.packed(|pack| {
                    for (name, value) in hash.iter() {
                        pack.push(name);
                        pack.push(value);
                    }
                })
            }
            Value::Hash(hash @ Hash::Table(_)) => {
                self.begin_entry(form::HASH, key)?;
                self.length(hash.len() as u64);
                hash.iter().try_for_each(|(name, value)| {
                    self.string(name)?;
                    self.string(value)
                })
            }
            Value::Zset(zset @ Zset::Packed(_)) => {
                self.begin_entry(form::ZSET_LISTPACK, key)?;
                let mut text = Vec::new();
                self.packed(|pack| {
                    for (member, score) in zset.all() {
                        text.clear();
                        print_in_listpack(score, &mut text);
                        pack.push(member);
                        pack.push(&text);
                    }
                })
            }
            // From the last to the first, so that a skip list that is read is always added to at its head.
            Value::Zset(zset @ Zset::Sorted(_)) => {
                self.begin_entry(form::ZSET_2, key)?;
                self.length(zset.len() as u64);
                zset.iter(0..zset.len(), true).try_for_each(|(member, score)| {
                    self.string(member)?;
                    self.bytes.extend(score.to_le_bytes());
                    Ok(())
                })
            }
        }
    }

    fn begin_entry(&mut self, form: u8, key: Option<&[u8]>) -> io::Result<()> {
        self.bytes.push(form);
        key.map_or(Ok(()), |key| self.string(key))
    }

    /// Writes a listpack of what `fill` puts into it.
    fn packed(&mut self, fill: impl FnOnce(&mut Pack)) -> io::Result<()> {
        let mut pack = std::mem::take(&mut self.pack);
        pack.clear();
        fill(&mut pack);
        self.string(pack.end())?;
        self.pack = pack;
        Ok(())
    }

    /// Writes how many nodes there are, and then the nodes, so they are made twice.
    fn list(&mut self, list: List) -> io::Result<()> {
        let mut count = 0;
        let limits = self.how.list;
        each_node(list, limits, &mut |_, _| {
            count += 1;
            Ok(())
        })?;
        self.length(count);
        each_node(list, limits, &mut |container, bytes| {
            self.length(container);
            self.string(bytes)
        })
    }

    /// Writes a string in its shortest form: as a number, packed, or as it is.
    fn string(&mut self, string: &[u8]) -> io::Result<()> {
        if self.bytes.len() >= COLLECTED {
            self.flush()?;
        }
        if !self.small_number(string) && !self.pack(string) {
            self.length(string.len() as u64);
            self.bytes.extend_from_slice(string);
        }
        Ok(())
    }

    fn small_number(&mut self, string: &[u8]) -> bool {
        let number = if string.len() <= 11 { parse_integer(string) } else { None };
        let Some(number) = number.and_then(|number| i32::try_from(number).ok()) else {
            return false;
        };
        let bytes = number.to_le_bytes();
        let (encoding, length) = match number {
            -0x80..=0x7f => (encoding::INT_8, 1),
            -0x8000..=0x7fff => (encoding::INT_16, 2),
            _ => (encoding::INT_32, 4),
        };
        self.bytes.push(encoding);
        self.bytes.extend(&bytes[..length]);
        true
    }

    fn pack(&mut self, string: &[u8]) -> bool {
        if !self.how.packs || string.len() < WORTH_PACKING {
            return false;
        }
        let packer = self.packer.get_or_insert_with(Packer::new);
        let has_packed = packer.pack(string, &mut self.packed);
        if has_packed {
            self.bytes.push(encoding::LZF);
            self.length(self.packed.len() as u64);
            self.length(string.len() as u64);
            self.bytes.extend_from_slice(&self.packed);
        }
        has_packed
    }

    fn length(&mut self, length: u64) {
        match length {
            ..0x40 => self.bytes.push(length as u8),
            0x40..0x4000 => self.bytes.extend((0x4000 | length as u16).to_be_bytes()),
            0x4000..=0xffff_ffff => {
                self.bytes.push(0x80);
                self.bytes.extend((length as u32).to_be_bytes());
            }
            _ => {
                self.bytes.push(0x81);
                self.bytes.extend(length.to_be_bytes());
            }
        }
    }

    /// Writes what is collected.
    fn flush(&mut self) -> io::Result<()> {
        if self.how.checks {
            self.crc = crc64(self.crc, &self.bytes);
        }
        self.out.write_all(&self.bytes)?;
        self.written += self.bytes.len() as u64;
        self.bytes.clear();
        self.bytes.shrink_to(2 * COLLECTED);
        Ok(())
    }
}

/// Makes the nodes that RPUSH of these elements makes in Redis. (Which elements are together in one depends there on
/// what was done before.)
fn each_node(
    list: List,
    limits: NodeLimits,
    take: &mut dyn FnMut(u64, &[u8]) -> io::Result<()>,
) -> io::Result<()> {
    let mut pack = Pack::default();
    for element in list.iter() {
        let is_long = element.len() >= LONG_ELEMENT;
        let is_full = pack.len() + element.len() > limits.bytes || pack.count() >= limits.count;
        if pack.count() > 0 && (is_long || is_full) {
            take(node::PACKED, pack.end())?;
            pack.clear();
        }
        match is_long {
            true => take(node::PLAIN, element)?,
            false => pack.push(element),
        }
    }
    match pack.count() {
        0 => Ok(()),
        _ => take(node::PACKED, pack.end()),
    }
}
