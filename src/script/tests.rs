//! Tests of the interpreter as a whole: programs with what Redis answers, and programs that try to
//! break the bounds. These run on a stack as small as a client's.

mod chapters;
mod formats;

use super::lib::{Answer, Call, Host, Native, Outcome, Resume, redis};
use super::machine::Machine;
use super::number;
use super::value::{Error, Value};

/// As much as a client's thread has.
const STACK: usize = 256 * 1024;
/// As much memory as these scripts may have.
const LIMIT: usize = 32 << 20;

/// A host that stops the script when it is asked for that time.
struct Patience(u32);

impl Host for Patience {
    fn interrupt(&mut self) -> Result<(), String> {
        self.0 = self.0.saturating_sub(1);
        if self.0 == 0 { Err("stopped".to_string()) } else { Ok(()) }
    }

    fn argument(&mut self, _: &[u8]) {}

    fn call(&mut self) -> Result<Answer<'_>, String> {
        Ok(Answer::Refused(b"ERR there is no server".to_vec()))
    }

    fn is_command(&mut self) -> bool {
        false
    }

    fn set_resp3(&mut self, _: bool) {}

    fn set_logged(&mut self, _: bool) {}

    fn log(&mut self, _: u8, _: &[u8]) {}
}

/// What a program returns, in about the form in which a client would see it.
fn show(machine: &Machine, value: Value) -> String {
    match value {
        Value::Boolean(true) => "1".to_string(),
        Value::Number(number) => number::to_integer(number).to_string(),
        Value::String(string) => {
            format!("\"{}\"", String::from_utf8_lossy(machine.heap.bytes_of(string)))
        }
        Value::Table(table) => {
            let element = |n: usize| machine.heap.tables[table].get_number(n as f64);
            let shown = (1..).map(element).take_while(|value| !value.is_nil());
            let shown: Vec<String> = shown.map(|value| show(machine, value)).collect();
            format!("[{}]", shown.join(","))
        }
        _ => "nil".to_string(),
    }
}

fn run_on(machine: &mut Machine, source: &str, host: &mut Patience) -> String {
    let result = machine.load(source.as_bytes(), b"@user_script", &mut || host.interrupt());
    match result.and_then(|function| machine.run(function, &[], host)) {
        Ok(()) => show(machine, machine.results().first().copied().unwrap_or_default()),
        Err(Error(Value::String(text))) => {
            format!("ERR {}", String::from_utf8_lossy(machine.heap.bytes_of(text)))
        }
        Err(Error(value)) => format!("ERR {}", show(machine, value).trim_matches('"')),
    }
}

/// `rep(text, n)`, to write programs that are large.
fn rep(call: &mut Call) -> Result<Outcome, Error> {
    let text = call.string(1)?;
    let times = call.integer(2)?.max(0) as usize;
    call.check_room(call.bytes(text).len().saturating_mul(times))?;
    let result = call.bytes(text).repeat(times);
    call.give_string(&result)
}

fn machine() -> Machine {
    let mut machine = Machine::new(LIMIT);
    let rep = machine.heap.native(rep);
    machine.set_field(machine.globals, "rep", rep);
    machine.protect();
    machine
}

/// Runs a program on a small stack.
fn run(source: &str) -> String {
    let source = source.to_string();
    let thread = std::thread::Builder::new().stack_size(STACK);
    let running = thread.spawn(move || run_on(&mut machine(), &source, &mut Patience(u32::MAX)));
    running.expect("a thread").join().expect("no panic")
}

/// Programs and their answers. The answers are those of redis-server 7.0.15.
fn programs() -> impl Iterator<Item = (&'static str, &'static str)> {
    let texts = [include_str!("tests/programs.txt"), include_str!("tests/strings.txt")];
    let parts = texts.into_iter().flat_map(|text| text.split_terminator("\n\n"));
    parts.filter_map(|part| part.trim_end().rsplit_once("\n--> "))
}

#[test]
fn programs_give_what_redis_gives() {
    let mut machine = machine();
    let mut faults = Vec::new();
    for (program, expected) in programs() {
        let got = run_on(&mut machine, program.trim_start_matches('\n'), &mut Patience(u32::MAX));
        if got.trim_end() != expected {
            faults.push(format!("{program}\n--> {expected}\ngot {got}\n"));
        }
    }
    assert!(faults.is_empty(), "{}", faults.join("\n"));
    assert!(programs().count() > 700);
}

#[test]
fn deep_sources_use_no_more_than_a_clients_stack() {
    for (open, close, levels) in [
        ("(", ")", 190),
        ("{", "}", 190),
        ("f(", ")", 190),
        ("a[", "]", 190),
        ("- ", "", 190),
        ("1 .. ", "", 190),
        ("function() return ", " end", 95),
    ] {
        let middle = if open == "{" { "" } else { "1" };
        let source = |levels: usize| {
            let (open, close) = (open.repeat(levels), close.repeat(levels));
            format!("return type(loadstring([==[return {open}{middle}{close}]==]))")
        };
        assert_eq!(run(&source(levels)), "\"function\"", "{open}");
        assert_eq!(run(&source(10_000)), "\"nil\"", "{open}");
    }
    let source = |levels: usize| {
        let (open, close) = ("if x then ".repeat(levels), "end ".repeat(levels));
        format!("return type(loadstring([==[{open}{close}]==]))")
    };
    assert_eq!(run(&source(190)), "\"function\"");
    assert_eq!(run(&source(10_000)), "\"nil\"");
}

/// How often the compiler asks whether to go on with a source.
fn questions(source: &str) -> usize {
    let mut asked = 0;
    let mut ask = || {
        asked += 1;
        Ok(())
    };
    // Whether it is a program does not matter.
    let _ = machine().load(source.as_bytes(), b"@user_script", &mut ask);
    asked
}

#[test]
fn a_source_of_twice_the_length_is_twice_the_work() {
    for (begin, middle, end) in [
        ("return a", " or a", ""),
        ("return a", " and a", ""),
        ("return a", " and b or a", ""),
        ("return not (a", " == b or a", ")"),
        ("return (a", " or a", ") and b"),
        ("if a then ", "elseif a then ", "end"),
        ("while a do ", "if a then break end ", "end"),
        ("repeat ", "if a then break end ", "until a"),
        ("while a do ", "while a do break end ", "end"),
        ("", "do local a = a end ", ""),
        ("return {", "'x', ", "}"),
        ("local a ", "a = function() return a end ", ""),
    ] {
        let source = |times: usize| [begin, &middle.repeat(times), end].concat();
        let (once, twice) = (questions(&source(20_000)), questions(&source(40_000)));
        assert!(once > 0 && twice <= 2 * once + 2, "{middle}: {once} and {twice}");
    }
    // To look for a name in many functions is more work than its length.
    let locals: Vec<String> = (0..190).map(|i| format!("l{i}")).collect();
    let open = format!("function f() local {} ", locals.join(", ")).repeat(90);
    let source = |times: usize| [&open[..], &"x() ".repeat(times), &"end ".repeat(90)].concat();
    assert!(questions(&source(500)) > 20);
}

#[test]
fn the_host_stops_the_compiler_and_what_it_compiles_is_counted() {
    let many = "x = x + 1 ".repeat(100_000);
    let deep = format!("return {}1{}", "(".repeat(100), ")".repeat(100));
    for source in [many.clone(), format!("{many} {deep}")] {
        let mut machine = machine();
        assert_eq!(run_on(&mut machine, &source, &mut Patience(2)), "ERR stopped");
        assert!(machine.is_stopped);
        assert_eq!(run_on(&mut machine, "return 1", &mut Patience(u32::MAX)), "1");
    }
    for piece in
        ["x() ", "f = function() end ", "do local a end ", "x = a.b.c.d.e.f.g ", "x() --\n"]
    {
        let mut machine = machine();
        let source = piece.repeat(6_000_000 / piece.len());
        machine.heap.limit = 2 << 20;
        let got = run_on(&mut machine, &source, &mut Patience(u32::MAX));
        assert_eq!(got, "ERR not enough memory", "{piece}");
        assert!(machine.heap.bytes < 6 << 20, "{piece}: {} bytes", machine.heap.bytes);
        assert_eq!(run_on(&mut machine, "return 1", &mut Patience(u32::MAX)), "1");
    }
}

#[test]
fn deep_calls_use_no_more_than_a_clients_stack() {
    for (program, expected) in [
        ("local function f() return 1 + f() end f()", "ERR user_script:1: stack overflow"),
        ("local n = 0 local function f() n = n + 1 pcall(f) end f() return n", "199"),
        (
            "local t t = setmetatable({}, {__index = function(_, k) return t[k + 1] end}) t.x = t[1]",
            "ERR user_script:1: C stack overflow",
        ),
        (
            "local t t = setmetatable({}, {__tostring = function(t) return tostring(t) end})
            return tostring(t)",
            "ERR C stack overflow",
        ),
        ("local function f() table.sort({1, 2}, f) end f()", "ERR C stack overflow"),
        ("local function f(s) return (s:gsub('.', f)) end f('x')", "ERR C stack overflow"),
        ("local function f(n) if n > 0 then return f(n - 1) end return n end return f(1e6)", "0"),
    ] {
        assert_eq!(run(program), expected, "{program}");
    }
    assert!(run("local function f() coroutine.wrap(f)() end f()").ends_with("C stack overflow"));
}

#[test]
fn long_patterns_use_no_more_than_a_clients_stack() {
    for (program, expected) in [
        ("return #('a'):rep(1e5):match(('a?'):rep(1e5))", "100000"),
        ("return #('a'):rep(1e5):match('(' .. ('a?'):rep(1e5) .. ')')", "100000"),
        ("return #('a'):rep(1e5):match('^' .. ('a-'):rep(9e4) .. ('a'):rep(1e5))", "100000"),
        ("return #('ab'):rep(1e5):match(('.-b'):rep(1e5))", "200000"),
        ("return #(('('):rep(1e5) .. (')'):rep(1e5)):match('%b()')", "200000"),
    ] {
        assert_eq!(run(program), expected, "{program}");
    }
}

#[test]
fn memory_ends_with_an_error_and_the_machine_goes_on() {
    for program in [
        "local s = 'x' while true do s = s .. s end",
        "local t = {} for i = 1, 1e9 do t[i] = i end",
        "local t = {} for i = 1, 1e9 do t[i] = {} end",
        "local t = {} for i = 1, 1e9 do t['k' .. i] = i end",
        "local t = {} for i = 1, 1e9 do t[i] = function() return i end end",
        "local t = {} for i = 1, 1e9 do t[i] = coroutine.wrap(function() end) end",
        "local t = {} for i = 1, 1e9 do t = {t} end",
        "local t = {} for i = 1, 1e9 do t[i] = loadstring('return ' .. i) end",
        "local t = {} for n = 1, 40 do
            pcall(function() while true do t[#t + 1] = function() return n end end end) end",
        "return rep('x', 1e9)",
        "local s = rep('x', 2e7) return table.concat({s, s, s, s})",
        "local function f(...) local a = f(1, ...) return a end return f()",
        "return ('x'):rep(2^31 - 1)",
        "return ('x'):rep(1e5):gsub('x', ('y'):rep(1e5))",
        "return ('x'):rep(1e6):gsub('.*', ('%0'):rep(1e5))",
        "local s = ('y'):rep(1e6) return ('x'):rep(1e5):gsub('x', function() return s end)",
        "local s = ('y'):rep(1e6) return ('x'):rep(1e5):gsub('x', {x = s})",
        "local t = {} for i = 1, 100 do t[i] = ('x'):rep(1e6) end
        return string.format(('%s'):rep(100), unpack(t))",
        "local s = ('\\n'):rep(2e7) return string.format('%q', s)",
        // Each level holds a result that grows.
        "local y = ('y'):rep(1e6)
        local function f() return (('xy'):gsub('.', function(c) return c == 'x' and y or f() end)) end
        return f()",
    ] {
        let (mut machine, limit) = (machine(), 4 << 20);
        machine.heap.limit = limit;
        let got = run_on(&mut machine, program, &mut Patience(u32::MAX));
        assert_eq!(got, "ERR not enough memory", "{program}");
        assert!(machine.heap.bytes < limit * 3, "{program}: {} bytes", machine.heap.bytes);
        machine.thread.stack.clear();
        machine.collect();
        assert_eq!(run_on(&mut machine, "return 1", &mut Patience(u32::MAX)), "1");
    }
}

#[test]
fn garbage_is_collected_while_a_script_runs() {
    for program in [
        "for i = 1, 300000 do local t = {i, x = {}} end return 1",
        "for i = 1, 300000 do local t = {} t.itself = t end return 1",
        "for i = 1, 2000 do local s = rep('x', 100000) .. i end return 1",
        "for i = 1, 100000 do local f = function() return i end end return 1",
        "for i = 1, 20000 do coroutine.wrap(function() coroutine.yield() end)() end return 1",
        "for i = 1, 20000 do loadstring('local a = function() end return ' .. i)() end return 1",
    ] {
        assert_eq!(run(program), "1", "{program}");
    }
}

#[test]
fn what_a_script_can_reach_survives_collections() {
    let program = "
        local kept, weak = {}, setmetatable({}, {__mode = 'v'})
        local wait = coroutine.wrap(function()
            local mine = {'mine'}
            coroutine.yield()
            return mine[1]
        end)
        wait()
        local count = 0
        local function counter() count = count + 1 return count end
        for i = 1, 20 do
            kept[i] = {'kept' .. i}
            weak[i], weak[i + 100] = kept[i], {}
            collectgarbage()
            counter()
        end
        local found = 0
        for _ in pairs(weak) do found = found + 1 end
        -- A register may still hold the last one that nobody can reach.
        return {kept[7][1], wait(), counter(), found <= 21}";
    assert_eq!(run(program), "[\"kept7\",\"mine\",21,1]");
}

#[test]
fn one_string_in_thousands_of_arguments_is_too_much_memory() {
    let mut machine = machine();
    redis::open(&mut machine, "7.0.15");
    for program in ["return redis.pcall(unpack(t)).err", "redis.log(3, unpack(t))"] {
        let program =
            format!("local s, t = ('x'):rep(1e6), {{}} for i = 1, 7000 do t[i] = s end {program}");
        let got = run_on(&mut machine, &program, &mut Patience(u32::MAX));
        assert!(got.contains("not enough memory"), "{program}: {got}");
    }
}

#[test]
fn a_fault_of_no_argument_in_a_method_has_a_name() {
    let program = "local t = {} for i = 1, 4001 do t[i] = 1 end return cmsgpack:pack(unpack(t))";
    let got = run(program);
    assert!(got.contains("bad argument") || got.contains("bad self"), "{got}");
}

#[test]
fn chance_begins_where_it_begins_in_redis() {
    let program = "return {tostring(math.random()), tostring(math.random())}";
    let mut machine = machine();
    for _ in 0..2 {
        let got = run_on(&mut machine, program, &mut Patience(u32::MAX));
        assert_eq!(got, "[\"0.39646477363839\",\"0.84048536971234\"]");
        run_on(&mut machine, "math.randomseed(7)", &mut Patience(u32::MAX));
    }
}

/// Long because it has all programs.
#[test]
fn the_host_stops_a_script_and_no_pcall_holds_it() {
    let mut machine = machine();
    redis::open(&mut machine, "7.0.15");
    for program in [
        "while true do end",
        "repeat until false",
        "for i = 1, math.huge do end",
        "while true do pcall(function() while true do end end) end",
        "while true do xpcall(function() while true do end end, function() end) end",
        "local function f() return f() end f()",
        "local co = coroutine.wrap(function() while true do end end) pcall(co)",
        "for _ in function() return 1 end do end",
        "table.insert({}, -2147483648, 1)",
        "local t = setmetatable({}, {__index = function(t) return t end}) while t.x do end",
        "return ('a'):rep(50):find(('a?'):rep(50) .. ('a'):rep(50) .. 'b')",
        "return ('a'):rep(1e6):gsub('.-b', '')",
        "return ('('):rep(1e6):find('%b()')",
        "return ('a'):rep(1e6):find(('a'):rep(5e5) .. 'b', 1, true)",
        "local s = ('a'):rep(1e6) while true do s:upper() end",
        "local s = ('a'):rep(1e6) while true do s:find('b') end",
        "for w in ('a'):gmatch('') do while true do end end",
        "return ('a'):gsub('a', function() while true do end end)",
        // Each round takes long, so they must be counted as many.
        "local s = ('a'):rep(8e5) for i = 1, 1000 do s:sub(2) end",
        "local s = (' '):rep(8e5) .. 'x' for i = 1, 1000 do tonumber(s) end",
        "local s = ('a'):rep(8e5) for i = 1, 1000 do redis.sha1hex(s) end",
        "local s = ('a'):rep(8e5) for i = 1, 1000 do local x = s < s end",
        "local s = ('a'):rep(8e5) for i = 1, 1000 do pcall(error, s) end",
        "local s = ('a'):rep(8e5) for i = 1, 1000 do pcall(struct.unpack, 's', s) end",
        "local s = (' '):rep(8e5) .. '1' for i = 1, 1000 do cjson.decode(s) end",
        "local s = ('a=1 '):rep(1e5) for i = 1, 100 do loadstring(s) end",
        "local s = ('a'):rep(2e4) return s:gsub('(b-)', ('%1'):rep(1e4))",
        "return ('a'):rep(8e6):gsub('b-', '')",
        "return ('b'):rep(1e6):find('[^' .. ('a'):rep(1e5) .. ']*c')",
        "return ('b'):rep(1e6):find('[^' .. ('a'):rep(1e5) .. ']-c')",
        "for i = 1, 1000 do redis.pcall('PING') end",
        "local s = (' '):rep(8e5) .. '1' for i = 1, 1000 do local x = s + 1 end",
        "local s = (' '):rep(8e5) .. '1' for i = 1, 1000 do local x = -s end",
        "local s = (' '):rep(8e5) .. '1' for i = 1, 1000 do math.floor(s) end",
        "return ('a'):rep(3e4):find('%f[' .. ('b'):rep(1e5) .. ']c')",
        "local t = {('a'):rep(8e6)} for i = 1, 100 do collectgarbage() end",
        "local t = {} for i = 1, 1e5 do t[i] = i end for i = 1, 1e5 do t[i] = nil end
            for i = 1, 1000 do next(t) end",
        "local t = {} for i = 1, 1e5 do t[i] = i end for i = 1, 1e5 do t[i] = nil end
            local many = {} for i = 1, 1000 do many[i] = t end cmsgpack.pack(many)",
        "local t = {} for i = 1, 1e5 do t[i] = i end for i = 1, 1e5 do t[i] = nil end
            local many = {} for i = 1, 1000 do many[i] = t end cjson.encode(many)",
        "local t = {} for i = 1, 1e5 do t[i] = i end for i = 2, 1e5 do t[i] = nil end
            for i = 1, 1000 do next(t, 1) end",
        "local t = {} for i = 1, 1e5 do t[i] = i end for i = 2, 1e5 do t[i] = nil end
            for i = 1, 1000 do table.foreach(t, function() end) end",
        "local t = {} for i = 1, 1e5 do t[i] = i end for i = 1, 1000 do table.maxn(t) end",
        "local s = ('a'):rep(8e5) local t = {s .. 'b', s .. 'c', s .. 'a'}
            for i = 1, 100 do table.sort(t) end",
        "local s = (' '):rep(8e5) .. '1' for i = 1, 1000 do for i = s, 0 do end end",
        "local s = (' '):rep(8e5) .. '1' for i = 1, 1000 do pcall(redis.setresp, s) end",
        // Each new key finds no free place, because as many others leave as come.
        "local t, size = {}, 2^15 for i = 1, size do t[i + .5] = i end
            for i = 1, 1000 do t[i + .5] = nil t[i + size + .5] = i end",
        // It has a value at all places where `#` looks first.
        "local t, n = {}, 2^17 for i = 1, n do t[i] = i end
            n = n + 1 while n < 2^31 do t[n], n = 1, n * 2 end
            for i = 1, 1000 do local x = #t end",
        "local t = {} for i = 1, 7000 do t[i] = i end for i = 1, 1000 do unpack(t) end",
        "local s = ('a'):rep(7000) for i = 1, 1000 do s:byte(1, -1) end",
        "local t = {} for i = 1, 7000 do t[i] = i end
            local function f(...) for i = 1, 1000 do local x = (...) and {...} end end f(unpack(t))",
        "local f = loadstring('local x = nil return function() if x then ' .. ('x = 1 '):rep(1e5) ..
            ' end return x.y end')() for i = 1, 1000 do pcall(f) end",
        "local s = ('a'):rep(8e5) for i = 1, 1000 do pcall(redis.acl_check_cmd, s) end",
        "local s = ('a'):rep(8e5) for i = 1, 1000 do pcall(table.concat, {s, s, s, s, s, s, s, s}, s) end",
        "local s = ('a'):rep(8e5)
            for i = 1, 100 do pcall(cmsgpack.pack, {s, s, s, s, s, s, s, s, s, s, s, s, s, s, s}) end",
        "local s = ('\\1'):rep(1e4) for i = 1, 2000 do cjson.encode(s) end",
        "local s = ('a'):rep(1e6) for i = 1, 100 do pcall(s.gsub, s, '.*', ('%0'):rep(100)) end",
        "local s = ('a'):rep(1e5) for i = 1, 1000 do s:match(('('):rep(30) .. '.*' .. (')'):rep(30)) end",
        "local s, p = ('a'):rep(1e4), ('%z'):rep(1e6) for w in s:gmatch('a' .. p:sub(1, 0)) do
            for i = 1, 100 do s:match('b' .. p) end end",
    ] {
        let got = run_on(&mut machine, program, &mut Patience(5));
        assert!(got.ends_with("stopped"), "{program}: {got}");
        assert_eq!(run_on(&mut machine, "return 1", &mut Patience(u32::MAX)), "1");
    }
}

/// Calls its first argument with its second one until the result is nil, and counts.
fn count_calls(call: &mut Call) -> Result<Outcome, Error> {
    call.function(1)?;
    Box::new(Counting(0)).go_on(call)
}

struct Counting(u32);

impl Counting {
    fn go_on(self: Box<Self>, call: &mut Call) -> Result<Outcome, Error> {
        call.push(call.arg(1));
        call.push(call.arg(2));
        Ok(Outcome::Then(1, self))
    }
}

impl Resume for Counting {
    fn resume(mut self: Box<Self>, call: &mut Call) -> Result<Outcome, Error> {
        if call.result(0).is_nil() {
            return call.give_number(self.0.into());
        }
        self.0 += 1;
        call.set_arg(2, call.result(0));
        self.go_on(call)
    }
}

#[test]
fn a_native_can_call_functions_of_the_script() {
    let mut machine = Machine::new(LIMIT);
    let natives: [(&str, Native); 1] = [("count", count_calls)];
    machine.library("my", &natives);
    let program = "
        local function down(n) if n > 0 then collectgarbage() return n - 1 end end
        local function fails() error('no', 0) end
        local function inner(n) if my.count(down, n) > 3 then return n - 1 end end
        return {my.count(down, 5), my.count(inner, 6), select(2, pcall(my.count, fails))}";
    let got = run_on(&mut machine, program, &mut Patience(u32::MAX));
    assert_eq!(got, "[5,3,\"no\"]");
}

#[test]
fn null_is_a_value_of_its_own() {
    let mut machine = Machine::new(LIMIT);
    machine.set_field(machine.globals, "null", Value::Null);
    let program = "local t = {[null] = 1} return {type(null), tostring(null), t[null]}";
    let got = run_on(&mut machine, program, &mut Patience(u32::MAX));
    assert_eq!(got, "[\"userdata\",\"userdata: (nil)\",1]");
}

/// Numbers below a bound, the same ones in each run.
struct Random(u64);

impl Random {
    fn below(&mut self, bound: usize) -> usize {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        (self.0 >> 33) as usize % bound
    }

    fn bytes(&mut self, pieces: &[u8]) -> Vec<u8> {
        (0..self.below(12)).map(|_| pieces[self.below(pieces.len())]).collect()
    }
}

#[test]
fn no_pattern_and_no_format_makes_a_library_panic() {
    let mut machine = machine();
    let source = b"
        local text, pattern, format = ...
        pcall(string.find, text, pattern)
        pcall(string.gsub, text, pattern, text)
        pcall(string.gsub, text, pattern, string.reverse)
        pcall(function() for word in text:gmatch(pattern) do end end)
        pcall(string.format, format, 1.5, -3, text)
        pcall(string.format, format, text, text, text)
        pcall(struct.pack, format, 1.5, text, -3, text)
        pcall(struct.unpack, format, text)
        pcall(struct.size, format)";
    let program = machine.load(source, b"@user_script", &mut || Ok(())).expect("a program");
    machine.roots.push(program);
    let mut random = Random(1);
    let all: Vec<u8> = (0..=255).collect();
    let pieces: [&[u8]; 3] = [b"aabb(())[[]]%%%.*+-?^$bf0123\0", b"%%%%-+ #0.5912dcxefgqs\0", &all];
    let formats: [&[u8]; 3] = [b"%%%%-+ #0.5912dcxefgqs\0", b"bBhHlLTiIfdxsc !<>0129", &all];
    for round in 0..10_000 {
        let (text, format) = (random.below(3), random.below(3));
        let text = random.bytes(pieces[text]);
        let pattern = random.bytes(pieces[round % 3]);
        let format = random.bytes(formats[format]);
        let arguments =
            [text, pattern, format].map(|bytes| Value::String(machine.heap.add_string(&bytes)));
        machine.run(program, &arguments, &mut Patience(u32::MAX)).expect("no error");
    }
}

#[test]
fn no_change_of_a_byte_makes_the_parser_panic() {
    let mut machine = machine();
    let mut random = Random(1);
    let sources: Vec<&str> = programs().map(|(program, _)| program).collect();
    let pieces = b"()[]{}=~<>.,;:'\"\\\n-+*/^%# \0\xff\x80axe09end";
    for _ in 0..3_000 {
        let mut source = sources[random.below(sources.len())].as_bytes().to_vec();
        for _ in 0..=random.below(3) {
            let at = random.below(source.len());
            match random.below(3) {
                0 => source[at] = pieces[random.below(pieces.len())],
                1 => source.insert(at, pieces[random.below(pieces.len())]),
                _ => source.truncate(at.max(1)),
            }
        }
        // Whether it is a program does not matter.
        let _ = machine.load(&source, b"@user_script", &mut || Ok(()));
    }
}
