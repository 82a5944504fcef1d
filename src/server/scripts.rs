//! What the server keeps of scripts: their sources. The machines that run them are in scripts/engines.rs.
//!
//! ```text
//! EVAL source ───▶ by_source ─┐
//!                             ├─▶ number ──▶ sources[number]: source, digest, flags
//! EVALSHA digest ▶ by_digest ─┘       └────▶ the root of that number in a machine: what it has compiled of it
//! ```
//!
//! **Bounds.** Of the scripts that came by EVAL only the [`MOST_BY_EVAL`] that were used last are kept. Those that
//! came by SCRIPT LOAD stay until SCRIPT FLUSH. So that is memory which a client takes, as by SET, and INFO counts
//! it.
//!
//! **How Redis does it**: eval.c keeps all scripts for ever. Redis 7.4 keeps 500 of EVAL, as here.

pub mod engines;

use self::engines::Engines;
use crate::error::Error;
use crate::resp::split_words;
use crate::sha1::{Digest, sha1};
use std::collections::HashMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

/// How many scripts that came by EVAL are kept.
const MOST_BY_EVAL: usize = 500;

/// And how many bytes their texts have together, if it is more than one script.
const MOST_BYTES_BY_EVAL: usize = 32 << 20;

#[derive(Default)]
pub struct Scripts {
    /// A leaf.
    cache: Mutex<Cache>,
    /// Bytes of the sources, to be asked without the mutex.
    source_bytes: AtomicUsize,
    pub engines: Engines,
}

/// What a script says of itself.
#[derive(Clone, Copy)]
pub struct Script {
    pub digest: Digest,
    pub flags: Flags,
}

/// A script in the cache. The number is used again, the id is not.
#[derive(Clone, Copy)]
pub struct Known {
    number: usize,
    id: u64,
    pub script: Script,
}

impl Script {
    pub fn of(text: &[u8]) -> Result<Script, Error> {
        let (flags, _) = shebang(text).map_err(Error::Text)?;
        Ok(Script { digest: sha1(text), flags })
    }
}

/// What the first line of a script asks for: `#!lua flags=no-writes`.
#[derive(Clone, Copy, PartialEq, Debug, Default)]
pub struct Flags {
    /// It has such a line.
    pub are_given: bool,
    pub no_writes: bool,
    /// It may take more memory though `maxmemory` is exceeded.
    pub allow_oom: bool,
}

impl Flags {
    pub fn deny_oom(self) -> bool {
        self.are_given && !self.no_writes && !self.allow_oom
    }
}

#[derive(Default)]
struct Cache {
    sources: Vec<Option<Source>>,
    by_source: HashMap<Arc<[u8]>, usize>,
    by_digest: HashMap<Digest, usize>,
    free: Vec<usize>,
    /// The numbers of those that came by EVAL.
    by_eval: Vec<usize>,
    bytes_by_eval: usize,
    last_id: u64,
    /// Goes up with each use.
    uses: u64,
    bytes: usize,
}

struct Source {
    known: Known,
    text: Arc<[u8]>,
    last_use: u64,
}

/// Bytes that a script takes in the cache beside its text.
const ENTRY: usize = size_of::<Source>() + 120;

impl Scripts {
    /// The script with this text.
    pub fn by_source(&self, text: &[u8]) -> Option<Known> {
        let mut cache = self.cache.lock().unwrap();
        let number = *cache.by_source.get(text)?;
        Some(cache.used(number))
    }

    /// The script with this digest.
    pub fn by_digest(&self, digest: &Digest) -> Option<Known> {
        let mut cache = self.cache.lock().unwrap();
        let number = *cache.by_digest.get(digest)?;
        Some(cache.used(number))
    }

    /// The text of a script, if it was not forgotten meanwhile.
    pub fn text(&self, known: Known) -> Option<Arc<[u8]>> {
        let cache = self.cache.lock().unwrap();
        let source = cache.sources.get(known.number)?.as_ref()?;
        (source.known.id == known.id).then(|| source.text.clone())
    }

    /// Keeps a script. `by_eval`: only as long as it is used now and then.
    pub fn keep(&self, text: &[u8], script: Script, by_eval: bool) -> Known {
        let mut cache = self.cache.lock().unwrap();
        if let Some(number) = cache.by_digest.get(&script.digest).copied() {
            if !by_eval {
                cache.is_loaded(number, text.len());
            }
            return cache.used(number);
        }
        let known = cache.add(text, script, by_eval);
        self.source_bytes.store(cache.bytes, Ordering::Relaxed);
        known
    }

    /// SCRIPT FLUSH. What the machines have compiled goes too, but not from under a script that runs.
    pub fn flush(&self) -> impl Send + Sync + use<> {
        let mut cache = self.cache.lock().unwrap();
        let last_id = cache.last_id;
        let old = std::mem::replace(&mut *cache, Cache { last_id, ..Cache::default() });
        self.source_bytes.store(0, Ordering::Relaxed);
        Mutex::new((old, self.engines.take()))
    }

    /// How many scripts are kept.
    pub fn count(&self) -> usize {
        self.cache.lock().unwrap().by_digest.len()
    }

    /// The bytes of their sources, and of all machines.
    pub fn bytes(&self) -> (usize, usize) {
        (self.source_bytes.load(Ordering::Relaxed), self.engines.bytes())
    }
}

impl Cache {
    fn used(&mut self, number: usize) -> Known {
        self.uses += 1;
        let uses = self.uses;
        let Some(source) = &mut self.sources[number] else {
            unreachable!("what the tables lead to is there")
        };
        source.last_use = uses;
        source.known
    }

    fn add(&mut self, text: &[u8], script: Script, by_eval: bool) -> Known {
        if by_eval {
            self.bytes_by_eval += text.len();
            while !self.by_eval.is_empty()
                && (self.by_eval.len() >= MOST_BY_EVAL || self.bytes_by_eval > MOST_BYTES_BY_EVAL)
            {
                self.forget_oldest();
            }
        }
        let number = self.free.pop().unwrap_or_else(|| {
            self.sources.push(None);
            self.sources.len() - 1
        });
        self.last_id += 1;
        let known = Known { number, id: self.last_id, script };
        let text: Arc<[u8]> = text.into();
        self.bytes += text.len() + ENTRY;
        self.by_source.insert(text.clone(), number);
        self.by_digest.insert(script.digest, number);
        self.sources[number] = Some(Source { known, text, last_use: 0 });
        if by_eval {
            self.by_eval.push(number);
        }
        self.used(number)
    }

    /// A script that may have come by EVAL has come by SCRIPT LOAD now.
    fn is_loaded(&mut self, number: usize, length: usize) {
        if let Some(at) = self.by_eval.iter().position(|other| *other == number) {
            self.by_eval.swap_remove(at);
            self.bytes_by_eval -= length;
        }
    }

    /// Forgets the script of EVAL that was not used for the longest time.
    fn forget_oldest(&mut self) {
        let last_use = |number: &usize| self.sources[*number].as_ref().map(|s| s.last_use);
        let oldest = (0..self.by_eval.len()).min_by_key(|at| last_use(&self.by_eval[*at]));
        let Some(at) = oldest else { return };
        let number = self.by_eval.swap_remove(at);
        if let Some(source) = self.sources[number].take() {
            self.by_source.remove(&source.text);
            self.by_digest.remove(&source.known.script.digest);
            self.bytes -= source.text.len() + ENTRY;
            self.bytes_by_eval -= source.text.len();
            self.free.push(number);
        }
    }
}

/// What the first line asks for, and where the rest begins: at its end, so that lines keep their numbers.
pub fn shebang(text: &[u8]) -> Result<(Flags, usize), Vec<u8>> {
    let mut flags = Flags::default();
    if !text.starts_with(b"#!") {
        return Ok((flags, 0));
    }
    let end = text.iter().take_while(|byte| **byte != 0).position(|byte| *byte == b'\n');
    let end = end.ok_or(b"ERR Invalid script shebang")?;
    let words = split_words(&text[..end]).unwrap_or_default();
    let quoting = |before: &str, word: &[u8]| [before.as_bytes(), word].concat();
    let engine = words.first().ok_or(b"ERR Invalid engine in script shebang")?;
    if engine != b"#!lua" {
        return Err(quoting("ERR Unexpected engine in script shebang: ", engine));
    }
    flags.are_given = true;
    for word in &words[1..] {
        let names = word
            .strip_prefix(b"flags=")
            .ok_or_else(|| quoting("ERR Unknown lua shebang option: ", word))?;
        for name in names.split(|byte| *byte == b',').filter(|_| !names.is_empty()) {
            match name {
                b"no-writes" => flags.no_writes = true,
                b"allow-oom" => flags.allow_oom = true,
                // There is no stale replica here, and no cluster.
                b"allow-stale" | b"no-cluster" | b"allow-cross-slot-keys" => {}
                _ => return Err(quoting("ERR Unexpected flag in script shebang: ", name)),
            }
        }
    }
    Ok((flags, end))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_the_scripts_of_eval_the_least_used_are_forgotten_and_loaded_ones_stay() {
        let scripts = Scripts::default();
        let text = |i: usize| format!("return {i}").into_bytes();
        let keep = |text: &[u8], by_eval| scripts.keep(text, Script::of(text).unwrap(), by_eval);
        let loaded = keep(b"return 'loaded'", false).script.digest;
        let used = keep(&text(0), true);
        for i in 1..2 * MOST_BY_EVAL {
            keep(&text(i), true);
            assert!(scripts.by_digest(&used.script.digest).is_some());
        }
        assert_eq!(scripts.count(), MOST_BY_EVAL + 1);
        assert!(scripts.by_digest(&loaded).is_some() && scripts.by_source(&text(1)).is_none());
        assert!(scripts.text(used).is_some());
        // Once loaded, it stays.
        keep(&text(2 * MOST_BY_EVAL - 1), false);
        for i in 0..2 * MOST_BY_EVAL {
            keep(format!("return {{{i}}}").as_bytes(), true);
        }
        assert!(scripts.by_source(&text(2 * MOST_BY_EVAL - 1)).is_some());
        drop(scripts.flush());
        assert_eq!((scripts.count(), scripts.bytes()), (0, (0, 0)));
        assert!(scripts.text(used).is_none() && scripts.by_digest(&loaded).is_none());
    }

    #[test]
    fn the_first_line_says_what_the_script_asks_for() {
        let given = |both| Flags { are_given: true, no_writes: both, allow_oom: both };
        assert_eq!(shebang(b"return 1"), Ok((Flags::default(), 0)));
        assert_eq!(shebang(b"#!lua\nreturn 1"), Ok((given(false), 5)));
        assert_eq!(shebang(b"#!lua flags=no-writes,allow-oom\n"), Ok((given(true), 31)));
        for (text, error) in [
            ("#!lua", "ERR Invalid script shebang"),
            ("#!not lua\n", "ERR Unexpected engine in script shebang: #!not"),
            ("#!lua name=x\n", "ERR Unknown lua shebang option: name=x"),
            ("#!lua flags=x\n", "ERR Unexpected flag in script shebang: x"),
        ] {
            assert_eq!(shebang(text.as_bytes()), Err(error.as_bytes().to_vec()), "{text}");
        }
    }
}
