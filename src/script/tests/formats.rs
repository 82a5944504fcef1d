//! Tests of `cjson` and `cmsgpack`. The answers in `formats.txt` are those of redis-server 7.0.15.

use super::{Patience, machine, run, run_on};

fn snippets() -> impl Iterator<Item = (&'static str, &'static str)> {
    let text = include_str!("formats.txt");
    text.split_terminator("\n\n").filter_map(|part| part.trim_end().rsplit_once("\n--> "))
}

#[test]
fn formats_are_those_of_redis() {
    let mut machine = machine();
    let mut faults = Vec::new();
    for (program, expected) in snippets() {
        let got = run_on(&mut machine, program.trim_start_matches('\n'), &mut Patience(u32::MAX));
        if got.trim_end() != expected {
            faults.push(format!("{program}\n--> {expected}\ngot {got}\n"));
        }
    }
    assert!(faults.is_empty(), "{}", faults.join("\n"));
    assert!(snippets().count() > 100);
}

#[test]
fn deep_values_use_no_more_than_a_clients_stack() {
    for (program, expected) in [
        (
            "return select(2, pcall(cjson.decode, rep('[', 100000)))",
            "\"Found too many nested data structures (1001) at character 1001\"",
        ),
        (
            "cjson.decode_max_depth(1e9)
            return select(2, pcall(cjson.decode, rep('[', 100000)))",
            "\"Found too many nested data structures (7999) at character 7999\"",
        ),
        (
            "cjson.decode_max_depth(1e9)
            return select(2, pcall(cjson.decode, rep('{\"a\":', 100000)))",
            "\"Found too many nested data structures (4000) at character 19996\"",
        ),
        (
            "local t = {} t[1] = t return select(2, pcall(cjson.encode, t))",
            "\"Cannot serialise, excessive nesting (1001)\"",
        ),
        (
            "cjson.encode_max_depth(1e9)
            local t = {} t[1] = t return select(2, pcall(cjson.encode, t))",
            "\"Cannot serialise, excessive nesting (7998)\"",
        ),
        ("local t = {} t[1] = t return #cmsgpack.pack(t)", "17"),
        ("local t = {} t.x = t return #cmsgpack.pack(t)", "49"),
        (
            "return select(2, pcall(cmsgpack.unpack, rep('\\145', 100000)))",
            "\"stack overflow (in function mp_decode_to_lua_array)\"",
        ),
        (
            "return select(2, pcall(cmsgpack.unpack, rep('\\129', 100000)))",
            "\"stack overflow (too many return values at once; use unpack_one or unpack_limit \
            instead.)\"",
        ),
    ] {
        assert_eq!(run(program), expected, "{program}");
    }
}

#[test]
fn what_bytes_claim_to_hold_takes_no_memory() {
    let mut machine = machine();
    let before = machine.heap.bytes;
    for program in [
        "return cmsgpack.unpack('\\221\\255\\255\\255\\255')",
        "return cmsgpack.unpack('\\223\\255\\255\\255\\255')",
        "return cmsgpack.unpack('\\219\\255\\255\\255\\255x')",
    ] {
        let got = run_on(&mut machine, program, &mut Patience(u32::MAX));
        assert_eq!(got, "ERR user_script:1: Missing bytes in input.");
    }
    assert!(machine.heap.bytes < before + 20_000);
}

#[test]
fn large_values_end_with_an_error() {
    let mut machine = machine();
    machine.heap.limit = 2 << 20;
    for program in [
        "local t = {1} for i = 1, 100 do t = {t, t} end return cjson.encode(t)",
        "cjson.encode_sparse_array(false, 0) return cjson.encode({[2147483647] = 1})",
        "return cjson.encode(rep('\\1', 1500000))",
        "return cjson.decode('[' .. rep('[],', 1e5) .. '1]')",
        "return cjson.decode('[' .. rep('1,', 3e5) .. '1]')",
        "local t = {1} for i = 1, 15 do t = {t, t, t, t, t, t, t} end return cmsgpack.pack(t)",
        "return cmsgpack.unpack('\\221\\255\\255\\255\\255' .. rep('\\144', 1e5))",
    ] {
        let got = run_on(&mut machine, program, &mut Patience(u32::MAX));
        assert_eq!(got, "ERR not enough memory", "{program}");
        assert!(machine.heap.bytes < 6 << 20, "{program}: {} bytes", machine.heap.bytes);
    }
}

#[test]
fn the_host_stops_an_encoder_and_a_decoder() {
    let mut machine = machine();
    for program in [
        "local t = {1} for i = 1, 100 do t = {t, t} end return cjson.encode(t)",
        "return #cjson.decode('[' .. rep('1,', 1e5) .. '1]')",
        "local t = {1} for i = 1, 15 do t = {t, t, t, t, t, t, t} end return cmsgpack.pack(t)",
        "return #cmsgpack.unpack('\\221\\255\\255\\255\\255' .. rep('1', 1e5))",
    ] {
        let got = run_on(&mut machine, program, &mut Patience(3));
        assert!(got.ends_with("stopped"), "{program}: {got}");
    }
}

#[test]
fn a_script_begins_with_the_settings_that_nobody_has_changed() {
    let mut machine = machine();
    for program in [
        "cjson.encode_number_precision(3) return cjson.encode(math.pi)",
        "cjson.decode_invalid_numbers(false) return {pcall(cjson.decode, 'nan')}",
    ] {
        run_on(&mut machine, program, &mut Patience(u32::MAX));
        let program = "return {cjson.encode(math.pi), cjson.encode_number_precision()}";
        let got = run_on(&mut machine, program, &mut Patience(u32::MAX));
        assert_eq!(got, "[\"3.1415926535898\",14]");
        let got = run_on(&mut machine, "return cjson.decode_invalid_numbers()", &mut Patience(9));
        assert_eq!(got, "1");
    }
}

#[test]
fn the_operating_system_has_a_clock_and_nothing_else() {
    let program = "
        local names, begin = {}, os.clock()
        for name in pairs(os) do names[#names + 1] = name end
        for i = 1, 1000 do names[2] = i end
        return {names[1], begin >= 0 and os.clock() > begin}";
    assert_eq!(run(program), "[\"clock\",1]");
}

#[test]
fn no_bytes_make_a_decoder_panic() {
    let mut machine = machine();
    let mut seed = 1u64;
    let mut random = |below: usize| {
        seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        (seed >> 33) as usize % below
    };
    let json = b"{}[]:,\"\\u0dD8/ntrfalse-+.eExXinIN \0\xff\x80";
    let packed =
        b"\x80\x81\x82\x90\x91\x93\xa0\xa1\xc0\xca\xcb\xcf\xd0\xd3\xd9\xdb\xdc\xdd\xde\xdf\0";
    for (name, pieces) in [("cjson.decode", &json[..]), ("cmsgpack.unpack", packed)] {
        for _ in 0..3_000 {
            let bytes = (0..random(30)).map(|_| match random(8) {
                0 => random(256),
                _ => pieces[random(pieces.len())].into(),
            });
            let bytes: String = bytes.map(|byte| format!("\\{byte:03}")).collect();
            let program = format!("return pcall({name}, '{bytes}')");
            // What it answers is compared with redis-server elsewhere.
            run_on(&mut machine, &program, &mut Patience(u32::MAX));
        }
    }
}
