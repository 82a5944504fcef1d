# What the scripts beside this one share: a server, a place to write, and an end that cleans up.
# Sourced, never run:
#
#     . "$(dirname "$0")/support.sh"
#     need python3           one line and exit 1 if a program is missing
#     start_server [FLAG…]   sets $server, $host and $port; once more, after a kill, it starts a
#                            server on the same data
#
# REDIS=host:port names a server that runs already; it must be empty, since the scripts fill it
# and empty it again. Otherwise SIMPLE_REDIS is the binary to start, by default the release build,
# which is built first. The server and $scratch, the temporary directory, go when the script ends.

root=$(cd "$(dirname "$0")/.." && pwd)
scratch=$(mktemp -d)
server=

# What a script has to do at its end, whatever that is.
at_end() {
    :
}

clean_up() {
    status=$?
    at_end
    [ -z "$server" ] || { kill "$server" && wait "$server" || :; } 2>/dev/null
    [ "$status" -eq 0 ] || [ ! -s "$scratch/log" ] || sed 's/^/server: /' "$scratch/log" >&2
    rm -rf "$scratch"
    exit "$status"
}
trap clean_up EXIT
trap 'exit 130' INT TERM

fail() {
    echo "$0: $*" >&2
    exit 1
}

need() {
    for program; do
        command -v "$program" >/dev/null || fail "needs $program, which is not installed"
    done
}

start_server() {
    if [ -n "${REDIS:-}" ]; then
        host=${REDIS%:*} port=${REDIS##*:}
        return
    fi
    binary=${SIMPLE_REDIS:-}
    if [ -z "$binary" ]; then
        need cargo
        cargo build --quiet --release --manifest-path "$root/Cargo.toml" --target-dir "$root/target"
        binary=$root/target/release/simple-redis
    fi
    mkdir -p "$scratch/data"
    # Empty before it is read below: the port of the last server stands in it.
    : >"$scratch/log"
    "$binary" --port 0 --dir "$scratch/data" "$@" >>"$scratch/log" 2>&1 &
    server=$!
    host=127.0.0.1 port= tries=0
    while [ -z "$port" ]; do
        kill -0 "$server" 2>/dev/null || fail "the server ended before it was ready"
        tries=$((tries + 1))
        [ "$tries" -lt 200 ] || fail "the server was not ready after ten seconds"
        sleep 0.05
        port=$(sed -n 's/.*Ready to accept connections on port \([0-9][0-9]*\).*/\1/p' "$scratch/log")
    done
}
