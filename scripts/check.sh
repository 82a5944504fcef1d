#!/usr/bin/env bash
# Is this tree fit to be published? CI's steps, in CI's order, on one's own machine; .ci/run only
# installs what is missing and then comes here.
#
#     scripts/check.sh              everything: 5 to 10 minutes on two cores
#     scripts/check.sh lints tests  only these steps
#
# A step is a function below. All of them run even if one fails, since whoever mends a tree wants to
# know everything that is wrong with it. A step whose programs are not installed is not run, and
# said so; where CI is set, that is a failure. Each step has ten minutes: what hangs, fails.
# Nothing is left behind but target directories.
set -uo pipefail
cd "$(dirname "$0")/.."

# ---- the steps: a line starting with `needs` names the programs that cargo alone does not bring ----

step_format() {
    cargo fmt --check
    cargo fmt --check --manifest-path tests/clients/Cargo.toml
    echo "rustfmt would change nothing."
}

step_lints() {
    cargo clippy --all-targets --locked -- -D warnings
    cargo clippy --all-targets --locked --manifest-path tests/clients/Cargo.toml -- -D warnings
    echo "clippy has nothing to say."
}

step_tests() {
    scripts/test.sh
}

needs_documentation="python3"
step_documentation() {
    RUSTDOCFLAGS=-Dwarnings cargo doc --no-deps --document-private-items
    scripts/bench-report --check
    echo "Every link in the documentation leads somewhere, and the pages show the figures that were measured."
}

# A machine that has never seen a network: an empty cargo home, and nothing built before.
step_offline() {
    scratch=$(mktemp -d)
    trap 'rm -rf "$scratch"' EXIT
    CARGO_HOME=$scratch/home cargo build --offline --target-dir "$scratch/target"
    CARGO_HOME=$scratch/home cargo test --offline --no-run --target-dir "$scratch/target"
    "$scratch/target/debug/simple-redis" --version
    echo "Builds without a network and with an empty cargo home, tests included."
}

needs_conformance="redis-server redis-cli"
step_conformance() {
    scripts/conformance.sh
}

needs_faults="cc redis-cli redis-benchmark"
step_faults() {
    scripts/faults.sh
}

needs_interop="redis-server redis-cli rustc python3"
step_interop() {
    scripts/interop.sh
}

needs_redis_cli="redis-cli redis-benchmark python3"
step_redis_cli() {
    scripts/redis-cli.sh
}

needs_clients="python3 node npm"
step_clients() {
    scripts/clients.sh
}

step_demo() {
    scripts/demo.sh
}

needs_bench="redis-server redis-benchmark python3"
step_bench() {
    scripts/bench.sh --quick
}

# A pipeline that the server batches wrongly does not fail, it stands still.
needs_benchmark="redis-benchmark"
step_benchmark() {
    . scripts/support.sh
    start_server
    timeout 60 redis-benchmark -h "$host" -p "$port" -t ping,set,get,hset -n 200000 -P 16 -q |
        tr '\r' '\n' | grep 'requests per second' | tee "$scratch/rates"
    [ "$(wc -l <"$scratch/rates")" -eq 5 ] || fail "not every test of redis-benchmark has ended"
    echo "redis-benchmark -P 16 ends: $(wc -l <"$scratch/rates") tests."
}

steps=(format lints documentation offline tests conformance interop faults redis_cli clients demo benchmark bench)

# ---- running them ----

(($# == 0)) || steps=("$@")
log=$(mktemp) summary=() failed=()
trap 'rm -f "$log"' EXIT

# The lines by which a test runner or a script says how it ended.
closing_lines() {
    {
        grep -E '^test result:|NOT RUN|^not run:' "$log"
        tail -n 1 "$log"
    } | uniq
}

missing() {
    local needs=needs_$1 program
    for program in cargo ${!needs:-}; do
        command -v "$program" >/dev/null || printf ' %s' "$program"
    done
}

for name in "${steps[@]}"; do
    declare -F "step_$name" >/dev/null || { echo "$0: no step is called $name" >&2; exit 2; }
    echo "=== $name"
    absent=$(missing "$name")
    if [[ $absent ]]; then
        echo "NOT RUN: not installed:$absent" | tee "$log"
        status=0 word=skipped
        [[ -z ${CI:-} ]] || status=1
        began=$SECONDS
    else
        export -f "step_$name"
        began=$SECONDS
        timeout 600 bash -euo pipefail -c "step_$name" scripts/check.sh </dev/null 2>&1 | tee "$log"
        status=${PIPESTATUS[0]} word=ok
    fi
    if ((status != 0)); then
        failed+=("$name")
        word=FAILED
    fi
    summary+=("$(printf '%-8s%4d s  %s' "$word" $((SECONDS - began)) "$name")")
    summary+=("$(closing_lines | cut -c1-150 | sed 's/^/                    /')")
    echo "=== $name: $word after $((SECONDS - began)) s"
done

printf '\n'
printf '%s\n' "${summary[@]}"
if ((${#failed[@]} > 0)); then
    echo "check.sh: FAILED after $SECONDS s: ${failed[*]}"
    exit 1
fi
echo "check.sh: all ${#steps[@]} steps are done, in $SECONDS s."
