//! What is written is read to the same, what others have written too, and what is damaged is refused.

use super::*;
use crate::key::Key;
use crate::resp::Arg;
use crate::stats::unix_microseconds;
use crate::store::Keyspace;
use crate::store::load::Loading;
use crate::types::{
    Counting, Edit, Hash, Limits, List, Loose, Member, NodeLimits, Packed, Part, Remember, Set,
    Side, Str, Usage, Value, Zset,
};

const PACKED: Packed = Packed { entries: 4, value: 64 };
const LIMITS: Limits = Limits {
    string: 1 << 20,
    list: NodeLimits { bytes: 120, count: usize::MAX },
    intset: 4,
    set: PACKED,
    hash: PACKED,
    zset: PACKED,
    packs: true,
    remember: Remember::LastUse,
};

const HOW: How = How { packs: true, checks: true, list: LIMITS.list, is_base: false, tells: None };

/// Strings at every limit of an encoding.
fn strings() -> Vec<Vec<u8>> {
    let mut all: Vec<Vec<u8>> = [0, 127, 4095, 0x7fff, 0x7f_ffff, 0x7fff_ffff, i64::MAX]
        .into_iter()
        .flat_map(|most: i64| {
            [most, most.wrapping_add(1), -most, -most - 1, (-most).wrapping_sub(2)]
        })
        .map(|number| number.to_string().into_bytes())
        .collect();
    for length in [0, 1, 20, 21, 63, 64, 65, 127, 128, 4095, 4096, 16_382, 16_383, 16_384, 70_000] {
        all.push(vec![b'x'; length]);
        // This one cannot be packed.
        all.push((0..length as u64).map(|i| ((i * i * 0x9e37_79b9) >> 13) as u8).collect());
    }
    all.extend(
        ["-0", "01", "+1", "1.5", "99999999999999999999"].map(|text| text.as_bytes().to_vec()),
    );
    all.sort();
    all.dedup();
    all
}

fn make<T: crate::types::Type>(key: &str, fill: impl FnOnce(&mut Edit<T>)) -> Loose {
    Loose::filled(key.as_bytes(), &LIMITS, fill).expect("something was put into it")
}

/// Keys of all types, in all forms, with as many elements as a form may just have, one less and one more.
fn everything() -> Keyspace {
    let mut loading = Loading::new(16);
    let strings = strings();
    for (i, string) in strings.iter().enumerate() {
        let fill = |edit: &mut Edit<Str>| assert!(edit.append(Arg::Small(string)).is_ok());
        let deadline = (i % 2 == 0).then_some(1 << (i % 50));
        add(&mut loading, i % 3, deadline, make(&format!("string {i}"), fill));
        add_of_one(&mut loading, i, string);
    }
    for count in [1, 2, 3, 4, 5, 6, 40, 300] {
        for text in ["short", &"long ".repeat(20)] {
            add_of_many(&mut loading, count, text, &strings);
        }
        for bits in [12, 28, 60] {
            let set = make(&format!("numbers {count} {bits}"), |set: &mut Edit<Set>| {
                for i in 0..count as i64 {
                    set.add(Member::Number((i - 2) << (i as u32 * 7 % bits)));
                }
            });
            add(&mut loading, 5, None, set);
        }
    }
    loading.end().unwrap()
}

fn add(loading: &mut Loading, db: usize, deadline: Option<u64>, entry: Loose) {
    let (entry, usage) = (entry.look(), Usage::unknown());
    loading.select(db).unwrap();
    loading.add(Key::of(entry.key()), deadline, entry.copy(), usage, 0).unwrap();
}

/// Collections of one element.
fn add_of_one(loading: &mut Loading, i: usize, text: &[u8]) {
    let list = |list: &mut Edit<List>| list.push(Side::Left, text);
    let hash = |hash: &mut Edit<Hash>| assert!(hash.set(text, text));
    let set = |set: &mut Edit<Set>| assert!(set.add(Member::Bytes(text)));
    let zset = |zset: &mut Edit<Zset>| zset.put(text, |_| Some(i as f64));
    add(loading, 3, Some(77), make(&format!("list {i}"), list));
    add(loading, 4, None, make(&format!("hash {i}"), hash));
    add(loading, 4, None, make(&format!("set {i}"), set));
    add(loading, 4, None, make(&format!("zset {i}"), zset));
}

const SCORES: [f64; 7] =
    [0.0, -1.5, 0.1, 1e300, f64::INFINITY, f64::NEG_INFINITY, 4_503_599_627_370_497.0];

fn add_of_many(loading: &mut Loading, count: usize, text: &str, strings: &[Vec<u8>]) {
    let texts = || strings.iter().cycle().take(count).map(|text| &text[..text.len().min(99)]);
    let name = |i: usize| format!("{text}{i}").into_bytes();
    let list = |list: &mut Edit<List>| texts().for_each(|text| list.push(Side::Right, text));
    let hash = |hash: &mut Edit<Hash>| {
        texts().enumerate().for_each(|(i, text)| assert!(hash.set(&name(i), text)));
    };
    let set = |set: &mut Edit<Set>| {
        (0..count).for_each(|i| assert!(set.add(Member::Bytes(&name(i)))));
    };
    let zset = |zset: &mut Edit<Zset>| {
        (0..count).for_each(|i| zset.put(&name(i), |_| Some(SCORES[i % 7])));
    };
    add(loading, 6, None, make(&format!("list of {count} {text}"), list));
    add(loading, 7, None, make(&format!("hash of {count} {text}"), hash));
    add(loading, 8, None, make(&format!("set of {count} {text}"), set));
    add(loading, 9, None, make(&format!("zset of {count} {text}"), zset));
}

/// What a value holds, in an order that does not depend on tables.
fn describe(value: Value) -> Vec<String> {
    let mut ordered = vec![value.type_name().to_string()];
    let mut others = Vec::new();
    value.parts(&mut |part| match part {
        Part::InOrder(bytes) => ordered.push(bytes.escape_ascii().to_string()),
        Part::Alone(bytes) => others.push(bytes.escape_ascii().to_string()),
        Part::Pair(a, b) => others.push(format!("{} {}", a.escape_ascii(), b.escape_ascii())),
    });
    others.sort();
    ordered.extend(others);
    ordered
}

/// Of each key the database, what it is called and when it expires, and what it holds.
fn describe_all(keyspace: &Keyspace) -> Vec<(usize, String, Vec<String>)> {
    let mut all = Vec::new();
    for db in 0..keyspace.databases() {
        for entry in keyspace.entries(db) {
            let (key, encoding) = (entry.key().escape_ascii(), entry.value().encoding());
            let name = format!("{key} {:?} {encoding}", entry.deadline());
            all.push((db, name, describe(entry.value())));
        }
    }
    all.sort();
    all
}

fn written(keyspace: &Keyspace, how: How) -> Vec<u8> {
    let mut bytes = Vec::new();
    let length = write(&mut bytes, keyspace, how, &mut |_| {}).unwrap();
    assert_eq!(length, bytes.len() as u64);
    bytes
}

fn read_back(bytes: &[u8]) -> Result<(Keyspace, Found), Error> {
    read(&mut &bytes[..], 16, &LIMITS, None, &mut |_| {})
}

#[test]
fn what_is_written_is_read_to_the_same_in_every_form_at_every_limit() {
    let keyspace = everything();
    let expected = describe_all(&keyspace);
    for packs in [true, false] {
        let bytes = written(&keyspace, How { packs, ..HOW });
        let (again, found) = read_back(&bytes).unwrap();
        assert_eq!((found.bytes, found.keys), (bytes.len() as u64, expected.len() as u64));
        assert!(describe_all(&again) == expected);
        assert_eq!(found.warnings, [""; 0]);
    }
    for db in 0..keyspace.databases() {
        for entry in keyspace.entries(db) {
            let payload = dump(entry.value(), HOW).unwrap();
            let again = restore(&payload, entry.key(), &LIMITS).unwrap();
            assert_eq!(describe(again.look().value()), describe(entry.value()));
        }
    }
}

#[test]
fn keys_that_are_expired_are_left_out_if_a_time_is_given() {
    let bytes = written(&everything(), HOW);
    let read = read(&mut &bytes[..], 16, &LIMITS, Some(78), &mut |_| {});
    let (keyspace, found) = read.unwrap();
    assert!(found.expired > 10);
    assert!((0..16).all(|db| keyspace.entries(db).all(|e| e.deadline().is_none_or(|d| d >= 78))));
}

#[test]
fn what_is_known_of_the_use_of_a_key_is_written_and_read_back() {
    let now = unix_microseconds() / 1000;
    let counting = Counting { log_factor: 10, decay_time: 1 };
    for (remember, bytes) in [
        (Remember::LastUse, &b"\xf8\x40\x64\0\x01k\x01v"[..]),
        (Remember::Frequency(counting), b"\xf9\x64\0\x01k\x01v"),
    ] {
        let limits = Limits { remember, ..LIMITS };
        let read = |bytes: &[u8]| read(&mut &bytes[..], 1, &limits, None, &mut |_| {}).unwrap().0;
        let keyspace = read(&with("REDIS0010", bytes));
        for keyspace in
            [&keyspace, &read(&written(&keyspace, How { tells: Some(remember), ..HOW }))]
        {
            let entry = keyspace.entries(0).next().unwrap();
            let known = match remember {
                Remember::LastUse => entry.usage().idle(now) / 1000,
                Remember::Frequency(counting) => entry.usage().frequency(counting, now),
            };
            assert!((99..=101).contains(&known), "{known}");
        }
        let silent = written(&keyspace, HOW);
        assert!(silent.len() < written(&keyspace, How { tells: Some(remember), ..HOW }).len());
    }
}

/// A file of this version with one key.
fn with(version: &str, key_and_value: &[u8]) -> Vec<u8> {
    [version.as_bytes(), key_and_value, &[opcode::EOF], &[0; 8]].concat()
}

/// Each as a server has it that has written this form, with the elements that are in it.
const FORMS: [(&[u8], &[&str]); 15] = [
    (b"\x00\x01k\xc1\x2c\x01", &["string", "300"]),
    (b"\x01\x01k\x02\x01a\xc0\xff", &["list", "a", "-1"]),
    (b"\x02\x01k\x02\x01a\xc2\0\0\0\x01", &["set", "16777216", "a"]),
    (b"\x03\x01k\x03\x01a\xff\x01b\x032.5\x01c\xfe", &["zset", "a -inf", "b 2.5", "c inf"]),
    (b"\x04\x01k\x02\x01f\x01v\x01n\xc0\x0c", &["hash", "f v", "n 12"]),
    (b"\x05\x01k\x02\x01a\0\0\0\0\0\0\xf0\x3f\x01b\0\0\0\0\0\0\0\x80", &["zset", "a 1", "b 0"]),
    (
        b"\x0a\x01k++\0\0\0 \0\0\0\x07\0\0\x01a\x03\xf8\x02\xfe\xff\x03\xc0,\x01\x04\xf0\x90\xee\xfe\x05\xf0\xc0\xc6-\x05\xe0\0\0\0\0\0\x01\0\0\xff",
        &["list", "a", "7", "-1", "300", "-70000", "3000000", "1099511627776"],
    ),
    (b"\x0b\x01k\x0e\x02\0\0\0\x03\0\0\0\xf9\xff\x05\0\xea\x03", &["set", "-7", "1002", "5"]),
    (
        b"\x0c\x01k!!\0\0\0\x1b\0\0\0\x06\0\0\x01a\x03\x04-inf\x06\x01b\x03\xf2\x02\x01c\x03\x032.5\xff",
        &["zset", "a -inf", "b 1", "c 2.5"],
    ),
    (
        b"\x0d\x01k\x16\x16\0\0\0\x13\0\0\0\x04\0\0\x01f\x03\x01v\x03\x01n\x03\xfd\xff",
        &["hash", "f v", "n 12"],
    ),
    (
        b"\x0e\x01k\x02\x10\x10\0\0\0\x0d\0\0\0\x02\0\0\x01a\x03\xf8\xff\x12\x12\0\0\0\x0d\0\0\0\x02\0\0\xfe\xff\x03\xc0,\x01\xff",
        &["list", "a", "7", "-1", "300"],
    ),
    (b"\x10\x01k\x0c\x0c\0\0\0\x02\0\x81f\x02\x0c\x01\xff", &["hash", "f 12"]),
    (b"\x11\x01k\x0f\x0f\0\0\0\x02\0\x81m\x02\x832.5\x04\xff", &["zset", "m 2.5"]),
    (b"\x12\x01k\x02\x01\x01a\x02\x0a\x0a\0\0\0\x01\0\xdf\xff\x02\xff", &["list", "a", "-1"]),
    (b"\x14\x01k\x0d\x0d\0\0\0\x02\0\x81a\x02\x81b\x02\xff", &["set", "a", "b"]),
];

#[test]
fn every_form_of_every_version_is_read() {
    for version in ["REDIS0006", "REDIS0009", "REDIS0012", "VALKEY080"] {
        for (bytes, expected) in FORMS {
            let (keyspace, _) = read_back(&with(version, bytes)).unwrap();
            let entry = keyspace.entries(0).next().unwrap();
            assert_eq!(describe(entry.value()), expected);
        }
    }
}

#[test]
fn what_is_not_for_us_is_passed_over_and_the_operator_is_told() {
    let before: &[u8] =
        b"\xfa\x09redis-ver\x067.4.99\xf5\x07library\xf7\x81\0\0\0\0\0\0\0\x09\x02\x02\x05\x01x\0\
        \xfe\x03\xfb\x02\x01\xf4\x01\x02\x03\xfd\x10\0\0\0\xf8\x40\x80\xf9\x05\0\x01k\x01v";
    let (keyspace, found) = read_back(&with("REDIS0012", before)).unwrap();
    let entry = keyspace.entries(3).next().unwrap();
    assert_eq!((entry.key(), entry.deadline()), (&b"k"[..], Some(16_000)));
    assert_eq!(found.warnings.len(), 2);
}

#[test]
fn what_cannot_be_read_is_refused_with_its_key_its_type_and_its_place() {
    for (bytes, reason) in [
        (
            &b"\0\x01a\x01v\x0f\x01k"[..],
            "at offset 17: it is a stream (type 15) (database 0, key 'k', which begins at 14)",
        ),
        (
            b"\x16\x01k",
            "at offset 12: it is a hash whose fields expire (type 22) (database 0, key 'k', which begins at 9)",
        ),
        (b"\xfe\x10", "at offset 11: `--databases 16` is too few for database 16"),
        (
            b"\0\x01k\x01v\0\x01k\x01v",
            "at offset 14: the key is there twice (database 0, key 'k', which begins at 14)",
        ),
        (b"\xf3", "at offset 10: the unknown opcode 243"),
        (
            b"\x02\x01k\x02\x01a\x01a",
            "at offset 17: an element is there twice (database 0, key 'k', which begins at 9)",
        ),
    ] {
        let error = read_back(&with("REDIS0011", bytes)).map(drop).unwrap_err();
        assert_eq!(error.to_string(), reason);
    }
    for (begin, reason) in [
        ("REDIS0013", "at offset 9: version 13 is not known here"),
        ("REDIS0005", "at offset 9: version 5 is not known here"),
        ("VALKEY081", "at offset 9: version 81 is not known here"),
        ("*3\r\n$3\r\nSET", "at offset 9: it is no RDB file"),
        ("REDIS", "at offset 5: it ends here, before its end"),
    ] {
        assert_eq!(read_back(begin.as_bytes()).map(drop).unwrap_err().to_string(), reason);
    }
}

#[test]
fn of_a_long_name_only_the_begin_is_told() {
    let name = [b'x'; 1000];
    let empty = [b"\x02\x43\xe8", &name[..], b"\0"].concat();
    let (_, found) = read_back(&with("REDIS0011", &empty)).unwrap();
    assert_eq!(found.warnings, [format!("the key '{}' is empty", "x".repeat(128))]);
    let damaged = [b"\x0f\x43\xe8", &name[..]].concat();
    let error = read_back(&with("REDIS0011", &damaged)).map(drop).unwrap_err();
    assert!(error.to_string().len() < 300, "{error}");
}

/// A generator of numbers by chance that can be begun again (xorshift).
struct Chance(u64);

impl Chance {
    fn below(&mut self, bound: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 % bound as u64) as usize
    }
}

#[test]
fn a_snapshot_that_is_cut_or_damaged_is_refused() {
    let mut loading = Loading::new(1);
    for (i, (bytes, _)) in FORMS.iter().enumerate() {
        let (loaded, _) = read_back(&with("REDIS0012", bytes)).unwrap();
        let entry = loaded.entries(0).next().unwrap().copy_to(&[i as u8]);
        add(&mut loading, 0, Some(i as u64), entry);
    }
    let whole = written(&loading.end().unwrap(), HOW);
    read_back(&whole).unwrap();
    for cut in 0..whole.len() {
        let error = read_back(&whole[..cut]).map(drop).unwrap_err();
        assert!(error.offset <= cut as u64, "{cut}: {error}");
    }
    for at in 0..whole.len() {
        for bit in 0..8 {
            let mut damaged = whole.clone();
            damaged[at] ^= 1 << bit;
            assert!(read_back(&damaged).is_err(), "bit {bit} of the byte at {at}");
        }
    }
}

/// Without a checksum whatever is changed comes to the code that reads it. It may be read to anything or refused, but
/// not end the process, and not take long. `RDB_MUTATIONS` says how many bytes are changed.
#[test]
fn nothing_that_a_file_may_hold_does_harm() {
    let mut files: Vec<Vec<u8>> = FORMS.iter().map(|(bytes, _)| with("REDIS0012", bytes)).collect();
    let everything = everything();
    for db in 0..everything.databases() {
        let mut small = Loading::new(16);
        for entry in everything.entries(db).filter(|entry| entry.memory() < 2_000) {
            add(&mut small, 0, entry.deadline(), entry.copy_to(entry.key()));
        }
        files.push(written(&small.end().unwrap(), How { checks: false, ..HOW }));
    }
    let wanted = std::env::var("RDB_MUTATIONS").ok().and_then(|text| text.parse().ok());
    let mut left: usize = wanted.unwrap_or(5_000);
    let mut chance = Chance(std::process::id().into());
    while left > 0 {
        let seed = chance.0;
        let mut file = files[chance.below(files.len())].clone();
        // Much of it is long: what is damaged should be read.
        for _ in 0..1 + chance.below(4) {
            let at = 9 + chance.below(file.len() - 9);
            let old = file[at];
            file[at] = match chance.below(5) {
                0 => old ^ 1 << chance.below(8),
                1 => old.wrapping_add(1),
                2 => old.wrapping_sub(1),
                3 => [0, 0xff, 0x7f, 0x80, 0x81, 0xc3, 0xfe][chance.below(7)],
                _ => chance.below(256) as u8,
            };
            left = left.saturating_sub(1);
        }
        if let Ok((keyspace, _)) = read_back(&file) {
            let again = written(&keyspace, HOW);
            let (again, _) = read_back(&again).unwrap_or_else(|error| panic!("{seed}: {error}"));
            assert!(describe_all(&again).len() == describe_all(&keyspace).len(), "{seed}");
        }
    }
}
