#!/usr/bin/env bash
# How fast is simple-redis, measured beside redis-server on the same machine?
#
# A time measured here says little about another machine, and less about the same machine an hour
# later. So both servers run side by side on loopback, the runs alternate (A B A B …), and what
# counts is the ratio within a round, and of those the median. Measured are rates with
# redis-benchmark, and beside each rate the CPU time the server took for it, which does not depend
# on how fast the generator is; the floor of the design (pong.rs: a thread per client that answers
# only +PONG); a few of them again where the generator has a core of its own; messages; memory; the
# worst pauses; loading; replicas and snapshots (bench-replication.sh); many connections (all with probe.rs).
#
#   scripts/bench.sh [--runs N] [--quick] [--only PATTERN]
#
#   --runs N         rounds for every row; default 5. The whole takes about 6 minutes a round
#   --quick          one short round of everything, about a minute: does it run? Judges no figure
#   --only PATTERN   only rows whose "heading: title" matches this bash regular expression,
#                    such as '^Pauses' or 'no log.*32 B: (GET|SET), 50 clients, pipeline 64'; the
#                    rows on the floor, CPU and 99th percentile come with the rates they belong to
#   OURS=PATH        measure this binary, an absolute path or a command, and build nothing;
#                    OURS=redis-server shows how much of a ratio is the machine's noise
#
# One client with one command in flight has two speeds, several times apart, as the kernel happens
# to put it and the server on one core or on two. `taskset -c 0 scripts/bench.sh --only '1 client'`
# puts them on one and takes that luck away; but on one core our server never spins
# (src/serve/inbound.rs), which is most of what it gains there on two.
#
# The report, in Markdown, goes to stdout, progress to stderr. It belongs between the marks of
# scripts/README.md, from which bench-picture.awk then draws the picture. Data go to a
# directory under TMPDIR (default /tmp), which needs about 2 GB and is removed at the end.

set -euo pipefail
cd "$(dirname "$0")/.."

usage() { sed -n '2,/^$/ s/^# \{0,1\}//p' scripts/bench.sh; }
die() { printf 'bench: %s\n' "$*" >&2; exit 1; }

runs=5 quick= only=
while (($#)); do
    case $1 in
        --runs) runs=${2:?--runs needs a number}; shift ;;
        --quick) quick=yes ;;
        --only) only=${2:?--only needs a pattern}; shift ;;
        -h | --help) usage; exit ;;
        *) usage >&2; exit 2 ;;
    esac
    shift
done
if [[ $quick ]]; then runs=1; fi
[[ $runs =~ ^[1-9][0-9]*$ ]] || die "--runs needs a number, not '$runs'"

need() { command -v "$1" >/dev/null || die "needs $1: $2"; }
[[ -r /proc/self/status ]] || die "reads memory and CPU time from /proc, so it needs Linux"
need redis-server "apt install redis-server"
need redis-cli "apt install redis-tools"
need redis-benchmark "apt install redis-tools"
need rustc "see https://rustup.rs"

# ---- servers -------------------------------------------------------------------------------

declare -A pid=() port=()
tmp=$(mktemp -d)
trap 'for side in "${!pid[@]}"; do stop "$side"; done; rm -rf "$tmp"' EXIT
trap 'exit 130' INT TERM

if [[ -z ${OURS:-} ]]; then
    need cargo "see https://rustup.rs"
    cargo build --release --quiet
    OURS=target/release/simple-redis
fi
need "$OURS" "OURS is not a program"
for program in probe pong; do
    rustc -O --edition 2024 -o "$tmp/$program" "scripts/$program.rs"
done

probe() { timeout --foreground 180 "$tmp/probe" "$@"; }
cli() { timeout --foreground 60 redis-cli -p "${port[$1]}" "${@:2}"; }

# Before a server and before redis-benchmark: nothing, or what keeps them on different cores.
server_cores=() generator_core=()

# start SIDE LOG: a new server (ours, redis, pong) on a free port; LOG is appendonly's yes or no.
# It loads what is in its directory, if anything. Returns when it answers.
start() {
    local side=$1 log=$2 dir=$tmp/data/$1 server
    mkdir -p "$dir"
    port[$side]=$(probe free-port)
    server=(--port "${port[$side]}" --bind 127.0.0.1 --dir "$dir" --save ''
        --appendonly "$log" --appendfsync everysec)
    case $side in
        ours) server=("$OURS" "${server[@]}") ;;
        redis) server=(redis-server "${server[@]}") ;;
        pong) server=("$tmp/pong" "${port[$side]}") ;;
    esac
    "${server_cores[@]}" "${server[@]}" >"$tmp/$side.log" 2>&1 &
    pid[$side]=$!
    if ! probe wait "${port[$side]}" "${pid[$side]}"; then
        tail -n 5 "$tmp/$side.log" >&2
        return 1
    fi
    # A rewrite is measured on its own; it must not start by itself in the middle of another run.
    if [[ $log == yes ]]; then cli "$side" CONFIG SET auto-aof-rewrite-percentage 0 >/dev/null; fi
}

# stop SIDE: at once and with its data, which nobody wants any more.
stop() {
    if [[ ${pid[$1]:-} ]]; then
        kill -9 "${pid[$1]}" 2>/dev/null || true
        wait "${pid[$1]}" 2>/dev/null || true
        unset "pid[$1]"
    fi
    rm -rf "${tmp:?}/data/$1"
}

rss_of() { awk '/^VmRSS/ { print $2 * 1024 }' "/proc/${pid[$1]}/status"; }

# User and system time of all threads, in seconds.
cpu_of() {
    awk -v hz="$(getconf CLK_TCK)" '{ sub(/.*\) /, ""); print ($12 + $13) / hz }' "/proc/${pid[$1]}/stat"
}

calculate() { awk "BEGIN { printf \"%.6f\", ($*) }"; }

# ---- rows ----------------------------------------------------------------------------------

# A row is a heading and a title. Every measurement adds a line to $tmp/samples, from which the
# report is made: heading, title, unit, target, side, round, value, and for a rate CPU seconds.
# A target is `ratio` or `ours`, `>=` or `<=`, and a number; or nothing.
record() { local IFS=$'\t'; printf '%s\n' "$*" >>"$tmp/samples"; }

# A row that cannot be measured is said at the end; the others are measured all the same.
failures=()
fail() { failures+=("$1"); printf 'bench: FAILED: %s\n' "$1" >&2; }

wanted() {
    [[ -z $only || $1 =~ $only ]] || return 1
    printf '%s\n' "$1" >&2
}

# alternate HEADING TITLE UNIT TARGET SIDES FUNCTION ARGS...
# In every round calls `FUNCTION SIDE ARGS...` on each side, which sets `value` (and `cpu`).
alternate() {
    local heading=$1 title=$2 unit=$3 target=$4 sides=$5 function=$6 round side value cpu
    shift 6
    wanted "$heading: $title" || return 0
    for ((round = 1; round <= runs; round++)); do
        for side in $sides; do
            cpu=
            if "$function" "$side" "$@"; then
                record "$heading" "$title" "$unit" "$target" "$side" "$round" "$value" "$cpu"
            else
                fail "$heading: $title ($side)"
            fi
            stop "$side"
        done
    done
}

# 1000000 → 1 M
count() {
    if (($1 % 1000000 == 0)); then echo "$(($1 / 1000000)) M"
    elif (($1 % 1000 == 0)); then echo "$(($1 / 1000)) k"
    else echo "$1"; fi
}

# ---- rates ---------------------------------------------------------------------------------

# bench SIDE N ARGS...: one run of N commands. Sets rate, p99 (ms), and cpu: the server's seconds
# per million commands. redis-benchmark stops at the first error reply, so an error is no figure.
bench() {
    local side=$1 n=$2 before after out
    shift 2
    before=$(cpu_of "$side")
    out=$(timeout --foreground 180 "${generator_core[@]}" redis-benchmark -p "${port[$side]}" -n "$n" --csv "$@" 2>"$tmp/stderr") || {
        cat "$tmp/stderr" >&2
        return 1
    }
    after=$(cpu_of "$side")
    # "test","rps","avg_latency_ms","min…","p50…","p95…","p99…","max…"
    IFS=$'\t' read -r rate p99 < <(tail -n 1 <<<"$out" | awk -F'"' '{ print $4 "\t" $14 }')
    cpu=$(calculate "($after - $before) / $n * 1e6")
}

# command_line HEADING N ARGS...: for the report.
command_line() {
    if ! grep -sqxF "# $1" "$tmp/commands"; then printf '# %s\n' "$1" >>"$tmp/commands"; fi
    printf '%sredis-benchmark -p PORT -n %s --csv %s\n' "${generator_core[*]:+${generator_core[*]} }" "$2" "${*:3}" >>"$tmp/commands"
}

# One run of the row described by the caller's variables, on a new server if there is none.
rate_once() {
    local side=$1
    if [[ -z ${pid[$side]:-} ]]; then
        start "$side" "$log" || return
        # SET overwrites and GET finds: both meet a full keyspace from the first command on.
        probe strings "${port[$side]}" "$keyspace" "$size" || return
    fi
    bench "$side" "$n" "${arguments[@]}" || return
    # What writes to a log starts over each time, or the logs of a row would fill the disk.
    if [[ $log == yes && $test != get ]]; then stop "$side"; fi
}

# rates LOG TEST SIZE CLIENTS PIPELINE
rates() {
    local log=$1 test=$2 size=$3 clients=$4 pipeline=$5
    local sides="ours redis" logging heading title target= keyspace n rate p99 cpu round side arguments

    case $log in no) logging="no log" ;; yes) logging=everysec ;; esac
    heading=${logging/everysec/appendonly yes, everysec}
    case $size in
        32) keyspace=100000 heading+=", values of 32 B" ;;
        16384) keyspace=1000 heading+=", values of 16 KiB" ;;
        1048576) keyspace=16 heading+=", values of 1 MiB" ;;
    esac
    heading="Rates, $heading"
    if ((${#generator_core[@]})); then heading+=", the generator on a core of its own"; fi
    title="${test^^}, $clients client$( ((clients == 1)) || echo s), pipeline $pipeline"
    if [[ $test == mset ]]; then title=${title/MSET/MSET of 10}; fi

    case "$log $test $size $clients/$pipeline" in
        "no get 32 50/64") target="ratio>=2.0" ;;
        "no get 32 50/16") target="ratio>=1.3" ;;
        "no set 32 50/64") target="ratio>=1.8" ;;
        "no set 32 50/16") target="ratio>=1.2" ;;
        "yes set 32 50/64") target="ratio>=1.3" ;;
        "yes set 32 50/16") target="ratio>=1.1" ;;
        *" 32 1/1" | *" 1048576 "*) target="ratio>=1.0" ;;
    esac
    if ((${#generator_core[@]})); then target=
    elif [[ "$log $size $test" =~ ^no\ 32\ [gs]et$ ]]; then sides+=" pong"; fi
    wanted "$heading: $title" || return 0

    # A short run first, which warms both sides up and says how many commands the faster one
    # answers in a second. All sides get the same number.
    case $pipeline in 1) n=4000 ;; 16) n=40000 ;; 64) n=80000 ;; esac
    case $size in 16384) n=$((n / 10)) ;; 1048576) n=100 ;; esac
    arguments=(-t "$test" -c "$clients" -P "$pipeline" -r "$keyspace" -d "$size")
    if [[ -z $quick ]]; then
        local fastest=0
        for side in $sides; do
            rate_once "$side" || { fail "$heading: $title ($side)"; stop "$side"; continue; }
            if [[ $side != pong ]]; then fastest=$(calculate "$rate > $fastest ? $rate : $fastest"); fi
        done
        fastest=$(calculate "int($fastest / 1000 + 1) * 1000")
        n=${fastest%.*}
        # No log of a single run over half a gigabyte.
        if [[ $log == yes ]] && ((n > 500000000 / size)); then n=$((500000000 / size)); fi
    fi
    command_line "$heading" "$n" "${arguments[@]}"

    for ((round = 1; round <= runs; round++)); do
        for side in $sides; do
            rate_once "$side" || { fail "$heading: $title ($side)"; stop "$side"; continue; }
            record_rate
        done
    done
    for side in $sides; do stop "$side"; done
}

# One run may say something about several targets.
record_rate() {
    if [[ $side != pong ]]; then
        record "$heading" "$title" /s "$target" "$side" "$round" "$rate" "$cpu"
    fi
    if [[ $sides == *pong* && $side != redis ]]; then
        local floor=
        case "$test $clients/$pipeline" in
            "get 50/64") floor="ratio>=0.75" ;;
            *" 50/1") floor="ratio>=0.97" ;;
        esac
        record "The floor: beside a server that only answers +PONG" "$title" /s "$floor" \
            "$side" "$round" "$rate" "$cpu"
    fi
    if ((${#generator_core[@]})) || [[ $side == pong ]]; then return; fi
    case "$log $test $size $clients/$pipeline" in
        "no get 32 50/16" | "no get 32 50/64")
            record "Server CPU per million commands" "$title" s "ratio<=1.0" "$side" "$round" "$cpu" ;;
    esac
    case "$log $test $size $clients" in
        "no get 32 50" | *" set 32 50")
            # With one command in flight there is no target of its own: fifty clients that each wait
            # for one answer wait as long as the rate says.
            local goal=
            if [[ $log == yes ]] && ((pipeline > 1)); then goal="ratio<=1.0"; fi
            record "99th percentile, values of 32 B" "$title, $logging" ms "$goal" "$side" "$round" "$p99" ;;
    esac
}

# ---- everything else -----------------------------------------------------------------------

# Resident bytes per key after filling with COUNT keys.
memory() { # SIDE KIND COUNT
    local side=$1 kind=$2 count=$3 before
    start "$side" no || return
    before=$(rss_of "$side")
    case $kind in
        strings) probe strings "${port[$side]}" "$count" 32 || return ;;
        hashes) probe hashes "${port[$side]}" "$count" || return ;;
        churn)
            probe strings "${port[$side]}" "$count" 32 || return
            probe churn "${port[$side]}" "$count" $((3 * count)) 50 || return ;;
    esac
    value=$(calculate "($(rss_of "$side") - $before) / $count")
}

# The longest that a client which alternates SET and GET waited, in milliseconds.
pause() { # SIDE KIND COUNT
    local log=no
    if [[ $2 == rewrite ]]; then log=yes; fi
    start "$1" "$log" && value=$(probe pause "${port[$1]}" "$2" "$3")
}

# Commands per second from the start of the process until it answers.
replay() { # SIDE COUNT KEYS
    local side=$1 began seconds
    if [[ ! -d $tmp/log ]]; then probe log "$tmp/log" "$2" || return; fi
    mkdir -p "$tmp/data" && cp -r "$tmp/log" "$tmp/data/$side" || return
    began=$EPOCHREALTIME
    start "$side" yes || return
    seconds=$(calculate "$EPOCHREALTIME - $began")
    cpu=$(calculate "$(cpu_of "$side") / $2 * 1e6")
    value=$(calculate "$2 / $seconds")
    # A fast start that left something out would be no figure.
    [[ $(cli "$side" DBSIZE) == "$3" ]]
}

# Messages per second, each to 10 subscribers.
publish() { # SIDE COUNT CLIENTS PIPELINE
    local side=$1 rate p99
    start "$side" no || return
    helper listen "${port[$side]}" 10 || return
    bench "$side" "$2" -c "$3" -P "$4" PUBLISH c "$(printf 'x%.0s' {1..100})" || return
    stop helper
    value=$rate
}

connect() { # SIDE COUNT
    start "$1" no && value=$(probe connect "${port[$1]}" "$2")
}

# idle HEADING: memory per idle connection, and the rate of busy clients beside them as a share of
# their rate alone. Two rows from one measurement, so it cannot use `alternate`.
idle() {
    local heading=$1 round side before n=1000000 rate p99 cpu beside
    local arguments=(-t get -c 50 -P 16 -r 100000 -d 32)
    local memory="$(count $idle_clients) idle connections, memory each"
    local share="GET, 50 clients, pipeline 16, beside them: share of the rate alone"
    wanted "$heading: $memory; $share" || return 0
    if [[ $quick ]]; then n=40000; fi
    command_line "$heading" "$n" "${arguments[@]}"
    for ((round = 1; round <= runs; round++)); do
        for side in ours redis; do
            if idle_once; then
                record "$heading" "$memory" B "ours<=16384" "$side" "$round" \
                    "$(calculate "($during - $before) / $idle_clients")"
                record "$heading" "$share" "" "ours>=0.9" "$side" "$round" \
                    "$(calculate "$beside / $rate")"
            else
                fail "$heading: $memory ($side)"
            fi
            stop helper
            stop "$side"
        done
    done
}

# helper ARGS...: a probe in the background that goes on until it is stopped; returns when it is ready.
helper() {
    : >"$tmp/helper.out" # here, not by the child: what the last one said must be gone before we look
    "$tmp/probe" "$@" >>"$tmp/helper.out" &
    pid[helper]=$!
    until [[ -s $tmp/helper.out ]]; do
        kill -0 "${pid[helper]}" 2>/dev/null || return
        sleep 0.05
    done
}

idle_once() {
    # Busy alone and busy beside others on two new servers, or one would inherit the other's memory.
    start "$side" no && probe strings "${port[$side]}" 100000 32 || return
    before=$(rss_of "$side")
    helper idle "${port[$side]}" "$idle_clients" || return
    during=$(rss_of "$side")
    bench "$side" "$n" "${arguments[@]}" || return
    beside=$rate
    stop helper
    stop "$side"
    start "$side" no && probe strings "${port[$side]}" 100000 32 || return
    bench "$side" "$n" "${arguments[@]}"
}

. scripts/bench-replication.sh

# ---- the report ----------------------------------------------------------------------------

report() {
    local version
    if [[ $OURS == target/release/simple-redis ]]; then
        version="simple-redis $(sed -n 's/^version = "\(.*\)"/\1/p' Cargo.toml)"
        version+=" at $(git rev-parse --short HEAD 2>/dev/null || echo 'an unknown commit')"
    else
        version="${OURS##*/} in the place of simple-redis"
    fi
    printf '%s, %s. %s cores, %s, %s; data on %s. %s, redis-server %s.\n' \
        "\`scripts/bench.sh\`" "$(date +%F)" "$(nproc)" \
        "$(awk -F': ' '/^model name/ { print $2; found = 1; exit } END { if (!found) print "CPU unknown" }' /proc/cpuinfo)" \
        "$(uname -sr)" "$(df --output=fstype "$tmp" | tail -n 1)" "$version" \
        "$(redis-server --version | sed 's/.* v=\([^ ]*\).*/\1/')"
    printf '%s\n' "" \
        "Medians of $runs alternating runs on loopback; the generator shares the cores, except where it" \
        "is said to have one. The ratio is ours to the other's within a round, then the median, with" \
        "the lowest and the highest in parentheses. After a rate:" \
        "seconds of CPU time the server took for a million commands. Keys are random out of 100,000" \
        "for values of 32 B, 1,000 for 16 KiB, 16 for 1 MiB; HSET writes to as many fields of one hash."
    awk -v quick="$quick" -f scripts/bench-report.awk "$tmp/samples"
    if [[ -s $tmp/commands ]]; then
        printf '\n<details><summary>The redis-benchmark command lines</summary>\n\n```\n%s\n```\n</details>\n' \
            "$(cat "$tmp/commands")"
    fi
}

# ---- the programme -------------------------------------------------------------------------

ulimit -n 20000 2>/dev/null || ulimit -n "$(ulimit -Hn)"
idle_clients=9000
scale=1
if [[ $quick ]]; then idle_clients=500 scale=20; fi
# A server and a generator each need a descriptor per connection, and some for themselves.
if [[ $(ulimit -n) != unlimited ]] && (($(ulimit -n) < idle_clients + 300)); then
    idle_clients=$(($(ulimit -n) - 300))
    printf 'bench: only %s idle connections: ulimit -n is %s\n' "$idle_clients" "$(ulimit -n)" >&2
fi
: >"$tmp/samples"

for log in no yes; do
    for size in 32 16384; do
        for test in get set hset; do
            for clients in 1 50; do
                for pipeline in 1 16 64; do rates $log $test $size $clients $pipeline; done
            done
        done
        if ((size == 32)); then
            for pipeline in 1 16 64; do rates $log mset $size 50 $pipeline; done
        fi
    done
done
for test in get set; do
    for clients in 1 50; do rates no $test 1048576 $clients 1; done
done

# What the kernel's choice of cores has to do with it.
mapfile -t cores < <(sed -n 's/^Cpus_allowed_list:\t//p' /proc/self/status | tr ',' '\n' |
    while IFS=- read -r from to; do seq "$from" "${to:-$from}"; done)
if ((${#cores[@]} < 2)) || ! command -v taskset >/dev/null; then
    printf 'bench: no rates with the generator on a core of its own: that needs two cores, and taskset\n' >&2
else
    generator_core=(taskset -c "${cores[0]}")
    server_cores=(taskset -c "$(IFS=,; echo "${cores[*]:1}")")
    for test in get set; do
        for pipeline in 1 16 64; do rates no $test 32 50 $pipeline; done
    done
    server_cores=() generator_core=()
fi

million=$((1000000 / scale))
both="ours redis"
heading="Messages of 100 B, each to 10 subscribers"
for pipeline in 1 16 64; do
    clients=50
    if ((pipeline == 64)); then clients=1; fi
    n=$((pipeline == 1 ? 50000 / scale : 200000 / scale))
    title="PUBLISH, $clients client$( ((clients == 1)) || echo s), pipeline $pipeline"
    alternate "$heading" "$title" /s "" "$both" publish $n $clients $pipeline
done
heading="Memory"
alternate "$heading" "$(count $million) strings (key 16 B, value 32 B), each" B "ratio<=0.97" "$both" memory strings $million
alternate "$heading" "$(count $million) hashes of 5 small fields, each" B "ratio<=0.95" "$both" memory hashes $million
alternate "$heading" "$(count $million) strings after $(count $((3 * million))) overwrites by 50 clients, each" B "" "$both" memory churn $million

heading="Pauses: the longest wait of one client beside"
# Each with a tenth of the keys, too: a pause that grows with the keyspace shows.
for part in 10 1; do
    if [[ $quick && $part == 10 ]]; then continue; fi
    keys=$((million / part)) target="ratio<=1.0"
    if ((part == 10)); then target=; fi
    alternate "$heading" "another that writes $(count $((3 * keys))) new keys" ms "$target" "$both" pause grow $((3 * keys))
    alternate "$heading" "$(count $keys) keys that expire together" ms "$target" "$both" pause expire $keys
    alternate "$heading" "a rewrite of $(count $keys) keys under writes" ms "$target" "$both" pause rewrite $keys
    alternate "$heading" "FLUSHALL of $(count $keys) keys" ms "$target" "$both" pause flushall $keys
    alternate "$heading" "DEL of a hash of $(count $keys) fields" ms "$target" "$both" pause del $keys
done
alternate "Pauses that the machine itself makes: beside +PONG" "another that writes $(count $((3 * million)))" ms "" "ours pong" pause grow $((3 * million))

commands=$((2 * million))
heading="Replay, from start to ready"
# Three of four commands SET a new key; 16 HSETs share a hash, the last of them perhaps not full.
keys=$((commands / 4 * 3 + (commands + 63) / 64))
alternate "$heading" "$(count $commands) commands" /s "ratio>=2.0" "$both" replay $commands $keys

replication $million

heading="Connections"
alternate "$heading" "1,000 connects at once, until all have an answer" ms "" "$both" connect 1000
idle "$heading"

[[ -s $tmp/samples ]] || die "nothing measured: no row matches '$only', or all failed"
report
if ((${#failures[@]})); then
    printf '\nCould not be measured:\n'
    printf -- '- %s\n' "${failures[@]}" | sort -u
    exit 1
fi
printf '\nbench: every row was measured, %s round(s) each.\n' "$runs" >&2
