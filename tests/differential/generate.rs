//! Random commands: the grammar in `commands.txt`, and what goes into its slots.
//!
//! Two kinds of care are taken. Keys, fields and values come from small pools, so that commands
//! meet: a key that nobody else touches finds no bug. And nothing depends on how fast a server
//! is: a deadline lies in the far past, the far future, or (`soon`) is waited for; two relative
//! ones are never equal, or which is greater would depend on the millisecond.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use crate::command::{Command, upper};
use crate::grammar::{self, Node, OWN, OWN_TYPES, Shape, grammar};
use crate::support::number;
use crate::support::random::Random;
use crate::support::state::{KINDS, Kind};

/// Commands that make sense only together.
pub type Unit = Vec<Command>;

/// What one round does, in order.
#[derive(Clone)]
pub enum Step {
    /// One pipeline on connection 0 or 1, cut into packets where `cuts` says.
    Send { connection: usize, units: Vec<Unit>, cuts: u64 },
    /// SCAN or HSCAN from cursor 0 to the end.
    Iterate { db: usize, command: Command },
    /// All databases are compared.
    Look,
    /// A pipeline on the connection that may subscribe or fall silent; `reset` ends that.
    Aside { units: Vec<Unit>, reset: bool },
    /// Bytes that are no longer commands, on a connection that is opened for them.
    Hostile { bytes: Vec<u8> },
    /// Clients that wait, one after the other, and what connection 0 then does to wake them.
    Wait { waiters: Vec<Command>, units: Vec<Unit> },
    /// Commands with the same near deadline, which has passed when the step is done.
    Deadline { connection: usize, units: Vec<Unit> },
}

impl Step {
    /// Whether it may meet expired or missing keys in the order of a table. (EXEC may run what an earlier step has
    /// queued.)
    pub fn scans(&self) -> bool {
        match self {
            Step::Look | Step::Iterate { .. } => true,
            Step::Hostile { .. } => false,
            Step::Send { units, .. }
            | Step::Aside { units, .. }
            | Step::Wait { units, .. }
            | Step::Deadline { units, .. } => units.iter().any(|unit| {
                // What SORT is given is a set or a sorted set, or the list that its unit has made.
                let has_list = unit.iter().any(|command| command.name() == "RPUSH");
                unit.iter().any(|command| match command.name().as_str() {
                    "SCAN" | "EXEC" => true,
                    "SORT" | "SORT_RO" => !has_list,
                    "EVAL" | "EVAL_RO" => {
                        command.args.get(1).is_some_and(|source| upper(source).contains("SCAN"))
                    }
                    _ => false,
                })
            }),
        }
    }
}

/// How many clients wait at once, at most.
pub const WAITERS: usize = 4;

/// Stands for the deadline of a `Step::Deadline` until that step is run.
pub const SOON: &[u8] = b"<soon>";

/// How many keys each type has: the letter of its slot, and a digit.
const KEYS_OF_A_TYPE: usize = 4;
/// A set that never has more than one member, so that it is known which one SPOP takes.
const POP: &[u8] = b"pop";
const ODD_KEYS: [&[u8]; 6] = [b"", b"K0", b"a*b", b"with space", b"nul\0cr\rlf\n", b"[\xff\x80]"];
const FIELDS: &str = "f0,f1,f2,f3,f4,f5,f6,F0,,7";
const ELEMENTS: &str = "a,b,c,1,2,";
const MEMBERS: &str = "a,b,c,d,1,2,-3,07,300,-32769,70000,-2147483649,,A";
const WORDS: &str = "foo,0,,NX,GET,two words,\u{e9},name";
const DATABASES: &str = "0,0,0,0,0,0,1,1,1,2,15,16,-1,x,,01";

/// Integers at every limit, and what looks like one.
const INTEGERS: &str = "\
    0,1,-1,2,5,10,-7,100,999,9999,10000,2147483647,2147483648,4294967296,-2147483649,\
    9223372036854775806,9223372036854775807,9223372036854775808,-9223372036854775807,\
    -9223372036854775808,-9223372036854775809,18446744073709551615,18446744073709551616,\
    123456789012345678901234567890,9223372036854775,9223372036854776,+5, 5,5 ,05,-0,,3.0,abc";
const FLOATS: &str = "\
    0.1,0.2,-0.1,1.5,3.0e3,5.0e-10,1e17,1e-17,1e18,1e19,1e20,1e400,1e5000,1e-5000,\
    3.,.5,-.5,1e,e1,1e5,1e+5,1E5,inf,-inf,+inf,infinity,INF,nan,-nan,\
    0x10,0x1p3,-0,-0.0,0.0,00.1, 1,1 ,1.1.1,3.14159265358979,\
    123456789012345678,99999999999999999999,0.000000000000000001,0.00000000000000001,\
    1000000000000000000000000000000,0.3333333333333333333333,17179869184.125";
/// Scores that are not like others.
const SCORES: &str = "inf,-inf,-0,0.1,1e17,-1e17,123456789012345678,1e300,1e-5,5e-324,0x1p4,+3";
/// What Redis's parser of ranges accepts, or does not.
const BOUNDS: &str = ", 1,(,( 2,((1,1e400,-1e400,1e-400,-inf,+inf,(inf,(-inf,nan,(nan,1x,[1";
const LEX: &str = "-,+,--,++,(,[,,f,(+,[-,+\0,-x";
/// Scripts that use three keys, of a string, a list and a hash, and two arguments; and their digests.
#[rustfmt::skip]
const SCRIPTS: &[(&str, &str)] = &[
    ("return redis.call('GET',KEYS[1])", "620cd258c2c9c88c9d10db67812ccf663d96bdc6"),
    ("redis.call('SET',KEYS[1],ARGV[1]) return redis.call('INCRBY',KEYS[1],ARGV[2])", "0087ab560c40ade147f1c8434e4cc5c9a6c89065"),
    ("redis.pcall('INCRBY',KEYS[1],ARGV[2]) redis.call('RPUSH',KEYS[2],ARGV[1],'x') redis.call('LTRIM',KEYS[2],-5,-1) return redis.call('LRANGE',KEYS[2],0,-1)", "c51d99149699517713c1912abf78dbeb5f4c3231"),
    ("redis.call('HSET',KEYS[3],'f0',ARGV[1],'f1',ARGV[2]) redis.call('DEL',KEYS[1]) return redis.call('HMGET',KEYS[3],'f0','f1','no')", "304d091183d835362940d734b725a6c2f35b72fb"),
    ("for i=1,3 do redis.call('APPEND',KEYS[1],i) end redis.call('SELECT',1) redis.call('SET',KEYS[1],'x') error('done')", "d15e51ae9db5e5ebc97b532bd76b1130f3c847fa"),
    ("if redis.call('EXISTS',KEYS[1])==1 then return redis.call('RENAME',KEYS[1],KEYS[2]) end return {false,true,1.5,'x',{}}", "7c9e058d53fa4419a56c68fc3bcd9da9338c5d64"),
    ("return {KEYS[1],ARGV[2],#KEYS,#ARGV,redis.call('TYPE',KEYS[1]).ok,redis.pcall('LLEN',KEYS[2])}", "68c9353fd1973b17c004976b3d9b1663b1bb0e2f"),
    ("redis.setresp(3) return {redis.call('GET',KEYS[1]) or {err='E none'},{map={a=redis.pcall('HLEN',KEYS[3])}}}", "70dcfa430e34a844e847227eb44f7de695034d7f"),
    ("redis.set_repl(redis.REPL_NONE) redis.call('GET',KEYS[1]) redis.set_repl(redis.REPL_ALL) return redis.call('SETNX',KEYS[1],ARGV[1])", "3ab3c021f225e27a01d416efabc66ff0112b6b0c"),
    ("#!lua flags=no-writes\nreturn redis.call('STRLEN',KEYS[1])", "52b56a7f25b76311dd2dc6b0e3e39476ebfa0f25"),
    ("#!lua\nreturn redis.call('GETSET',KEYS[1],ARGV[1])", "73f16bbe1ddfc325262f3c9703a5197a4a88398c"),
    ("return redis.call(ARGV[1],KEYS[1],ARGV[2])", "53e685097ef1e390bd785958ac29d50d69465211"),
    ("this is no script", "8374e9a60e1a8e9a9c0111f4c1d11ae8e7696ba3"),
];
/// The sizes at which an encoding changes, and their neighbours.
const LENGTHS: [usize; 12] = [7, 8, 9, 15, 16, 17, 43, 44, 45, 63, 64, 65];
const CURSORS: &str = "0,0,5,17,00,,-1,x,18446744073709551615,18446744073709551616";
const GLOB: &str = "*,*,*,?,k,h,f,0,1,[0-3],[^0],[hk],[3-0],[,],-,^,\\,\\*,[\\]]";

/// What a parser may stumble over.
const PIECES: &[&[u8]] = &[
    b"\r\n",
    b"\n",
    b"*0\r\n",
    b"*-1\r\n",
    b"*-2\r\n",
    b"$-1\r\n",
    b"*1\r\n",
    b"*2147483648\r\n",
    b"*1\r\n$536870913\r\n",
    b"*1\r\n:1\r\n",
    b"+PING\r\n",
    b"POST / HTTP/1.1\r\n",
    b"Host: here\r\n",
    b"\"",
    b"'",
    b"\\x4",
    b"\\x41\\n\"",
    b" ",
    b"\0",
];

/// How the words of one command are written.
#[derive(Clone, Copy)]
enum Letters {
    Capital,
    Small,
    Mixed,
}

pub struct Generator {
    random: Random,
    sections: BTreeMap<&'static str, Vec<Shape>>,
    /// How many relative deadlines there have been, so that the next is another.
    deadlines: u64,
    /// Set while a command with hundreds of fields is made: their names must differ.
    wide: bool,
    /// The rest of a transaction that is under way on each ordinary connection.
    pending: [VecDeque<Unit>; 2],
}

impl Generator {
    /// `own`: whether the commands and types that Redis has not are among the ordinary ones.
    pub fn new(seed: u64, own: bool) -> Generator {
        let (random, mut sections) = (Random::new(seed), grammar());
        for section in [OWN, OWN_TYPES] {
            if let (Some(shapes), true) = (sections.remove(section), own) {
                sections.entry("ordinary").or_default().extend(shapes);
            }
        }
        let pending = [VecDeque::new(), VecDeque::new()];
        Generator { random, sections, deadlines: 0, wide: false, pending }
    }

    /// A round of about `operations` commands.
    pub fn round(&mut self, operations: usize) -> Vec<Step> {
        let mut steps = Vec::new();
        let mut sent = 0;
        let mut next_deadline = operations / 3;
        while sent < operations {
            let connection = self.random.below(2);
            let longest = 1 + self.random.below(60);
            let units: Vec<Unit> =
                (0..=self.random.below(longest)).map(|_| self.ordinary(connection)).collect();
            sent += units.iter().map(Vec::len).sum::<usize>();
            let cuts = self.random.next();
            steps.push(Step::Send { connection, units, cuts });
            match self.random.below(40) {
                0 => steps.extend(self.subscription()),
                1 => {
                    let units = self.units("quiet", 12);
                    steps.push(Step::Aside { units, reset: true });
                }
                2 => steps.push(Step::Look),
                5..=6 => {
                    let bytes = self.hostile();
                    steps.push(Step::Hostile { bytes });
                }
                3..=4 => {
                    let db = self.random.below(3);
                    let command = self.unit("iterate").remove(0);
                    steps.push(Step::Iterate { db, command });
                }
                7..=9 => {
                    let waiters =
                        (0..=self.random.below(WAITERS)).map(|_| self.unit("wait").remove(0));
                    let waiters = waiters.collect();
                    steps.push(Step::Wait { waiters, units: self.units("wake", 8) });
                }
                _ => {}
            }
            if sent > next_deadline {
                next_deadline += operations / 2;
                let units = self.units("deadline", 10);
                steps.push(Step::Deadline { connection, units });
            }
        }
        steps
    }

    fn ordinary(&mut self, connection: usize) -> Unit {
        if self.pending[connection].is_empty() && self.random.percent(2) {
            self.pending[connection] = self.transaction();
        }
        self.pending[connection].pop_front().unwrap_or_else(|| self.unit("ordinary"))
    }

    /// Long enough that a pipeline often ends inside it, and the other client interferes.
    fn transaction(&mut self) -> VecDeque<Unit> {
        let mut units = VecDeque::new();
        if self.random.percent(50) {
            let key = self.slot("any");
            units.push_back(vec![Command::of(vec![b"WATCH".to_vec(), key])]);
            units.extend((0..self.random.below(3)).map(|_| self.unit("ordinary")));
        }
        units.push_back(vec![Command::new(&["MULTI"])]);
        units.extend((0..self.random.below(9)).map(|_| self.unit("ordinary")));
        let end = if self.random.percent(85) { "EXEC" } else { "DISCARD" };
        units.push_back(vec![Command::new(&[end])]);
        units
    }

    fn subscription(&mut self) -> [Step; 3] {
        let mut first = self.units("subscribe", 5);
        let version = self.random.pick(&["2", "3"]);
        first.insert(0, vec![Command::new(&["HELLO", version])]);
        let (connection, cuts) = (self.random.below(2), self.random.next());
        let units = self.units("publish", 4);
        [
            Step::Aside { units: first, reset: false },
            Step::Send { connection, units, cuts },
            Step::Aside { units: self.units("subscribe", 5), reset: true },
        ]
    }

    /// A few commands, and a few blows of the hammer.
    fn hostile(&mut self) -> Vec<u8> {
        let mut commands: Vec<Command> = self.units("hostile", 6).into_iter().flatten().collect();
        for command in &mut commands {
            command.inline = self.random.percent(30);
        }
        let mut bytes: Vec<u8> = commands.iter().flat_map(Command::encode).collect();
        // A server that closes with input unread resets the connection, and replies are lost on
        // the way: all of it has to fit into its first read.
        bytes.truncate(4000);
        for _ in 0..self.random.below(4) {
            if bytes.is_empty() {
                break;
            }
            let at = self.random.below(bytes.len());
            match self.random.below(4) {
                0 => bytes[at] = b"\r\n*$-:+09\0 \"'"[self.random.below(13)],
                1 => bytes[at] ^= 1 << self.random.below(8),
                2 => drop(bytes.drain(at..(at + 1 + self.random.below(4)).min(bytes.len()))),
                _ => {
                    let piece = self.random.pick(PIECES);
                    bytes.splice(at..at, piece.iter().copied());
                }
            }
        }
        bytes
    }

    fn units(&mut self, section: &'static str, most: usize) -> Vec<Unit> {
        (0..=self.random.below(most)).map(|_| self.unit(section)).collect()
    }

    pub fn unit(&mut self, section: &'static str) -> Unit {
        let mut unit = self.expand(section);
        let last = unit.len() - 1;
        // What loses count of replies or passes time by must be what the harness expects.
        if section == "ordinary" {
            if self.random.percent(6) {
                self.spoil(&mut unit[last]);
            }
            if self.random.percent(1) {
                unit.insert(0, Command::of(vec![]));
            }
            unit[last].inline = self.random.percent(3);
        }
        for command in &mut unit {
            self.tame(command);
        }
        // Redis's looks at no deadline, so what it says of an expired key is up to active expiry. Asked for
        // in another way before, the key is deleted.
        if let [_, usage, key, ..] = &unit[unit.len() - 1].args[..]
            && upper(usage) == "USAGE"
        {
            let exists = Command::of(vec![b"EXISTS".to_vec(), key.clone()]);
            unit.insert(unit.len() - 1, exists);
        }
        if let Some(at) = unit.iter().position(|command| command.name().starts_with("SORT")) {
            // Redis's SORT fails if C's errno is still that of a number that it has read before. To read a score
            // resets it, in a replay of the log, too.
            unit.insert(at, Command::new(&["ZADD", "errno", "0", "m"]));
            unit.push(Command::new(&["DEL", "y", "errno"]));
        }
        unit
    }

    fn expand(&mut self, section: &'static str) -> Unit {
        // The grammar is lent out while `self` fills the slots.
        let sections = std::mem::take(&mut self.sections);
        let shapes = &sections[section];
        let mut ticket = self.random.below(shapes.iter().map(|shape| shape.weight).sum());
        let shape = shapes.iter().find(|shape| {
            let found = ticket < shape.weight;
            ticket = ticket.saturating_sub(shape.weight);
            found
        });
        let letters = match self.random.below(10) {
            0..7 => Letters::Capital,
            7..9 => Letters::Small,
            _ => Letters::Mixed,
        };
        let mut unit = vec![Command::of(vec![])];
        self.fill(&shape.expect("a ticket is below the sum").nodes, letters, &mut unit);
        self.sections = sections;
        unit
    }

    fn fill(&mut self, nodes: &[Node], letters: Letters, unit: &mut Unit) {
        for node in nodes {
            let args = &mut unit.last_mut().expect("a unit begins with a command").args;
            match node {
                Node::Word(word) => {
                    let word = match letters {
                        Letters::Capital => word.to_string(),
                        Letters::Small => word.to_lowercase(),
                        Letters::Mixed => word[..1].to_string() + &word[1..].to_lowercase(),
                    };
                    args.push(word.into_bytes());
                }
                Node::Slot(name) => args.push(self.slot(name)),
                Node::One(choices) => {
                    let choice = &choices[self.random.below(choices.len())];
                    self.fill(choice, letters, unit);
                }
                Node::Subset(choices) => {
                    let mut left: Vec<&Vec<Node>> = choices.iter().collect();
                    while !left.is_empty() {
                        let choice = left.swap_remove(self.random.below(left.len()));
                        if self.random.percent(45) {
                            self.fill(choice, letters, unit);
                        }
                    }
                }
                Node::Many(nodes) => {
                    let count = match self.random.below(1000) {
                        0..=1 => 490 + self.random.below(50),
                        2..30 => 5 + self.random.below(20),
                        _ => 1 + self.random.below(3),
                    };
                    self.wide = count > 4;
                    for _ in 0..count {
                        self.fill(nodes, letters, unit);
                    }
                    self.wide = false;
                }
                Node::Next => unit.push(Command::of(vec![])),
            }
        }
    }

    /// Makes a command wrong, or at least unusual.
    fn spoil(&mut self, command: &mut Command) {
        let args = &mut command.args;
        let at = 1 + self.random.below(args.len());
        match self.random.below(7) {
            0 if at < args.len() => drop(args.remove(at)),
            1 if at < args.len() => args.insert(at, args[at].clone()),
            2 if at < args.len() => {
                let other = 1 + self.random.below(args.len() - 1);
                args.swap(at, other);
            }
            3 if at < args.len() => {
                let slot = self.random.pick(&["n", "x", "word", "v", "i"]);
                args[at] = self.slot(slot);
            }
            4 => {
                let slot = self.random.pick(&["n", "word", "v"]);
                args.push(self.slot(slot));
            }
            5 => args.truncate(at),
            _ => {
                // The tail of any command that begins alike, mostly the same one: SET's options
                // after SET's options are where conflicts come from.
                let name = upper(&args[0]);
                for _ in 0..200 {
                    let other = self.expand("ordinary").remove(0);
                    if other.name() == name {
                        args.extend(other.args.into_iter().skip(3.min(args.len())));
                        break;
                    }
                }
            }
        }
    }

    /// Replaces what no two servers could be asked to agree on: relative deadlines that are
    /// accepted must be far away and unlike each other; HRANDFIELD may not return a billion
    /// fields, SPOP may not choose, and ZRANK has an option since 7.2.
    fn tame(&mut self, command: &mut Command) {
        let name = command.name();
        let args = &mut command.args;
        let mut times = Vec::new();
        match name.as_str() {
            "EXPIRE" | "SETEX" => times.push((2, 1000)),
            "PEXPIRE" | "PSETEX" => times.push((2, 1)),
            "SET" | "GETEX" => {
                for (index, arg) in args.iter().enumerate() {
                    match upper(arg).as_str() {
                        "EX" => times.push((index + 1, 1000)),
                        "PX" => times.push((index + 1, 1)),
                        _ => {}
                    }
                }
            }
            "ZRANK" | "ZREVRANK" => args.truncate(3),
            // In Redis it makes a small sorted set large, and this one is deleted behind it.
            "SORT" | "SORT_RO" if args.len() > 1 => args[1] = b"y".to_vec(),
            "SADD" if args.get(1).is_some_and(|key| key == POP) => args.truncate(3),
            // What chance takes out of a set would differ from then on, so all is taken.
            "SPOP" if args.len() == 2 && args[1] != POP => args.push(b"1000000".to_vec()),
            "SPOP" if args.len() == 3 && number(&args[2]).is_some_and(|count| count > 0) => {
                args[2] = b"1000000".to_vec();
            }
            "HRANDFIELD" | "SRANDMEMBER" | "ZRANDMEMBER" if args.len() > 2 => {
                let count = number(&args[2]).unwrap_or(0);
                let refused = count == i64::MIN || (args.len() > 3 && count < i64::MIN / 2);
                if count < -1000 && !refused {
                    args[2] = b"-11".to_vec();
                }
            }
            _ => {}
        }
        for (index, unit) in times {
            let Some(time) = args.get(index).and_then(|arg| number(arg)) else {
                continue;
            };
            // Both servers refuse what overflows; near that edge, it depends on the clock.
            let accepted = time.checked_mul(unit).is_some_and(|ms| ms < i64::MAX - (1 << 40));
            if time > 0 && accepted {
                args[index] = (self.next_deadline() * 1_000_000 / unit).to_string().into_bytes();
            }
        }
    }

    /// A number of a thousand seconds that has not been used in this round; below 34 years, in
    /// no order.
    fn next_deadline(&mut self) -> i64 {
        self.deadlines += 1;
        (self.deadlines * 7919 % (1 << 20)) as i64 + 1
    }

    fn slot(&mut self, name: &str) -> Vec<u8> {
        match name {
            "any" => {
                let kind = self.kind();
                self.key(kind)
            }
            "y" => b"y".to_vec(),
            "pop" => POP.to_vec(),
            "f" if self.wide || self.random.percent(2) => {
                format!("g{}", self.random.below(700)).into_bytes()
            }
            "f" if self.random.percent(2) => self.letters(),
            "f" => self.random.word(FIELDS).into(),
            // Few of them, so that lists hold equal ones.
            "e" if self.random.percent(70) => self.random.word(ELEMENTS).into(),
            "e" | "v" => self.value(),
            "m" if self.random.percent(70) => self.random.word(MEMBERS).into(),
            "m" if self.wide => format!("m{}", self.random.below(700)).into_bytes(),
            "m" => self.value(),
            "score" if self.random.percent(70) => self.between(-5, 9),
            "score" if self.random.percent(50) => self.float(),
            "score" if self.random.percent(80) => self.random.word(SCORES).into(),
            "score" => self.slot("x"),
            "bound" if self.random.percent(10) => self.random.word(BOUNDS).into(),
            "bound" => {
                let open: &[u8] = if self.random.percent(25) { b"(" } else { b"" };
                [open, &self.slot("score")].concat()
            }
            "lex" if self.random.percent(25) => self.random.word(LEX).replace("\\0", "\0").into(),
            "lex" => [self.random.pick(&[&b"["[..], b"("]), &self.slot("f")[..]].concat(),
            "n" if self.random.percent(60) => self.between(-20, 60),
            "n" => self.random.word(INTEGERS).into(),
            "x" if self.random.percent(40) => self.float(),
            "x" if self.random.percent(80) => self.random.word(FLOATS).into(),
            "x" => self.random.word(INTEGERS).into(),
            "i" if self.random.percent(80) => self.between(-12, 12),
            "i" => self.random.word(INTEGERS).into(),
            "small" => self.between(-6, 12),
            "offset" if self.random.percent(90) => self.between(0, 80),
            // As long as a string may be (`server.rs::FLAGS`): one byte more is too much.
            "offset" if self.random.percent(30) => b"1048576".to_vec(),
            "offset" => self.random.word(INTEGERS).into(),
            "bit" if self.random.percent(60) => self.between(0, 90),
            "bit" if self.random.percent(80) => [b"#", &self.between(0, 9)[..]].concat(),
            "bit" => self.random.word(INTEGERS).into(),
            "width" if self.random.percent(90) => {
                let kind = self.random.pick(&["i", "u"]);
                [kind.as_bytes(), &self.between(1, 63)].concat()
            }
            "width" => self.random.pick(&["i64", "u64", "i65", "u0", "x8", "i", "U8"]).into(),
            "cursor" => self.random.word(CURSORS).into(),
            "db" => self.random.word(DATABASES).into(),
            "type" if self.random.percent(70) => self.kind().name.into(),
            "type" => self.random.word("STRING,foo,").into(),
            "word" => self.random.word(WORDS).into(),
            "channel" => self.random.pick(&["c1", "c2", "c*", "c?", "x", ""]).into(),
            "text" => (0..self.random.below(50)).map(|_| b"abc "[self.random.below(4)]).collect(),
            "pattern" if self.random.percent(20) => b"*".to_vec(),
            "pattern" => {
                let pieces = 1 + self.random.below(4);
                (0..pieces).map(|_| self.random.word(GLOB)).collect::<String>().into_bytes()
            }
            "unknown" => {
                let long = "n".repeat(150);
                self.random.pick(&["FOO", "", "get ", "a\r\nb", "nul\0", &long]).into()
            }
            "script" => SCRIPTS[self.random.below(SCRIPTS.len())].0.into(),
            "sha" => SCRIPTS[self.random.below(SCRIPTS.len())].1.into(),
            "soon" => SOON.to_vec(),
            "past" => self.random.pick(&["1", "1000", "1500000000000"]).into(),
            "s" | "ms" | "at" | "atms" if self.random.percent(8) => {
                self.random.word(INTEGERS).into()
            }
            "s" => (self.next_deadline() * 1000).to_string().into_bytes(),
            "ms" => (self.next_deadline() * 1_000_000).to_string().into_bytes(),
            // One in six is the same, so that GT and LT meet their equal.
            "at" | "atms" => {
                let minutes = self.random.below(6).min(1) as i64 * self.next_deadline();
                let seconds = 4_100_000_000 + minutes * 60;
                let unit = if name == "at" { 1 } else { 1000 };
                (seconds * unit).to_string().into_bytes()
            }
            _ => match KINDS.iter().find(|kind| kind.slot == name) {
                Some(kind) => self.key(kind),
                None => panic!(
                    "commands.txt has the slot {name}. Say in `slot` of generate.rs what goes in, or in \
                     KINDS of tests/support/state.rs if it is a key of a new type; or write '{name}' if it \
                     is sent as it stands"
                ),
            },
        }
    }

    /// One of these keys; now and then another, so that types meet.
    fn key(&mut self, own: &Kind) -> Vec<u8> {
        let kind = match self.random.below(100) {
            0..94 => own,
            94..98 => self.kind(),
            _ => return self.random.pick(&ODD_KEYS).to_vec(),
        };
        format!("{}{}", kind.slot, self.random.below(KEYS_OF_A_TYPE)).into_bytes()
    }

    fn kind(&mut self) -> &'static Kind {
        &KINDS[self.random.below(KINDS.len())]
    }

    fn value(&mut self) -> Vec<u8> {
        match self.random.below(100) {
            0..25 => self.random.pick(&["a", "b", "foo", "Hello World", "ohmytext"]).into(),
            25..35 => self.random.word(INTEGERS).into(),
            35..50 => self.between(-20, 60),
            50..57 => self.random.word(FLOATS).into(),
            57..62 => self.float(),
            62..67 => Vec::new(),
            67..72 => (0..self.random.below(12)).map(|_| self.random.next() as u8).collect(),
            72..75 => vec![b'L'; 100 + self.random.below(300)],
            _ => self.letters(),
        }
    }

    /// A string of a length at which something changes.
    fn letters(&mut self) -> Vec<u8> {
        let letter = b'a' + self.random.below(26) as u8;
        vec![letter; LENGTHS[self.random.below(LENGTHS.len())]]
    }

    fn between(&mut self, low: i64, high: i64) -> Vec<u8> {
        (low + self.random.below((high - low) as usize) as i64).to_string().into_bytes()
    }

    fn float(&mut self) -> Vec<u8> {
        let digits = self.random.next() >> self.random.below(64);
        let mut text = digits.to_string();
        text.insert(self.random.below(text.len() + 1), '.');
        let sign = if self.random.percent(40) { "-" } else { "" };
        let exponent = match self.random.below(8) {
            0 => format!("e{}", self.random.below(60) as i64 - 30),
            _ => String::new(),
        };
        format!("{sign}{text}{exponent}").into_bytes()
    }
}

#[test]
fn every_slot_of_a_shape_is_filled_and_every_type_has_one_of_its_own() {
    let slots = grammar::slots();
    let mut generator = Generator::new(1, true);
    slots.iter().for_each(|name| drop(generator.slot(name)));
    for Kind { name, slot, .. } in KINDS {
        assert!(slots.contains(slot), "no line of commands.txt has {slot}, a key of type {name}");
        let first = format!("{slot}0");
        let is_key = (0..100).any(|_| generator.slot(slot) == first.as_bytes());
        assert!(is_key, "{slot} is not the slot of type {name} alone: choose another letter");
    }
    let letters: BTreeSet<&str> = KINDS.iter().map(|kind| kind.slot).collect();
    assert_eq!(letters.len(), KINDS.len(), "two types of KINDS have one slot");
}
