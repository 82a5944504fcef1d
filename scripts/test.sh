#!/bin/sh
# Does everything work that can be tested with cargo alone?
#
#     scripts/test.sh
#
# First the tests of the server, which need nothing but the standard library. Then the tests with
# the `redis` crate, a package of their own (tests/clients/Cargo.toml says why): its crates come
# from cargo's home, or over the network. If neither has them, the script says that these tests
# were not run and why, and still succeeds, because a machine without a network is no fault. Where
# CI is set it fails instead: what is skipped there is missed by everybody.
set -eu
cd "$(dirname "$0")/.."

clients=tests/clients/Cargo.toml
log=$(mktemp)
trap 'rm -f "$log"' EXIT

command -v cargo >/dev/null || {
    echo "$0: needs cargo, which is not installed; see https://rustup.rs" >&2
    exit 1
}

# The second half is worth running when the first has failed.
failed=
echo "== the server: cargo test"
cargo test --no-fail-fast || failed=yes

echo "== the redis crate: cargo test --manifest-path $clients"
# Cargo's home first, since it answers at once; then the network, without cargo's long patience.
if cargo fetch --locked --offline --manifest-path $clients >"$log" 2>&1 ||
    CARGO_NET_RETRY=1 CARGO_HTTP_TIMEOUT=10 cargo fetch --locked --manifest-path $clients >"$log" 2>&1
then
    cargo test --no-fail-fast --locked --manifest-path $clients || failed=yes
    [ -z "$failed" ] || {
        echo "test.sh: tests FAILED; they are named above."
        exit 1
    }
    echo "test.sh: the tests of the server and those with the redis crate pass."
    exit
fi
sed 's/^/    /' "$log" >&2
if grep -q 'lock file' "$log"; then
    echo "$0: tests/clients/Cargo.lock does not fit its Cargo.toml" >&2
    exit 1
fi
echo "test.sh: the tests of the server ${failed:+do not }pass. NOT RUN: those with the redis crate, which
is neither in cargo's home nor to be had over the network (cargo's words are above)."
[ -z "$failed${CI:-}" ]
