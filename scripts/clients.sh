#!/bin/sh
# Do the client libraries that people use work with this server, with their default settings?
#
# A server can agree with Redis's documentation and still refuse every client, because libraries
# greet a server before they use it (HELLO 3, CLIENT SETINFO, INFO) and differ in how. So this
# installs several of them from their registries into a temporary directory, an old and a new
# major version of each, and two that do their work by scripts: a limiter and a queue. It runs one
# small program each: tests/clients/programs/*. What a program does not expect ends it with an
# error, and this script with status 1.
#
#     scripts/clients.sh                          against the release build
#     REDIS=127.0.0.1:6379 scripts/clients.sh     against a running, empty server
#
# Needs python3 with pip, node with npm, timeout, a network, and cargo to build the server.
set -eu
. "$(dirname "$0")/support.sh"

need python3 node npm timeout
python3 -m pip --version >/dev/null 2>&1 || fail "needs pip for python3, which is not installed"
start_server
export PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_ROOT_USER_ACTION=ignore
programs=$root/tests/clients/programs
passed=0 failed=

# Runs the command of a library's program; a minute is many times what each of them takes.
check() {
    name=$1
    shift
    if timeout 60 "$@"; then
        passed=$((passed + 1))
    else
        echo "$name: FAILED with status $?" >&2
        failed="$failed $name"
    fi
}

python_client() { # the program, its packages with their major versions
    program=$1
    shift
    name=$(echo "$*" | tr -d '=.*' | tr ' ' '-')
    directory=$scratch/$name
    python3 -m pip install --quiet --target "$directory" "$@" || fail "pip could not install $*"
    check "$name" env PYTHONPATH="$directory" python3 "$programs/$program" "$host" "$port"
}

node_client() { # the package, its major version, its program
    directory=$scratch/$1-$2
    mkdir "$directory"
    cp "$programs/$3" "$directory"
    cd "$directory"
    npm install --loglevel=error --no-audit --no-fund --prefix . "$1@$2" >"$scratch/npm" ||
        fail "npm could not install $1 $2: $(cat "$scratch/npm")"
    check "$1-$2" node "$3" "$host" "$port"
}

python_client redis_py.py "redis==8.*"
python_client redis_py.py "redis==5.*"
python_client limiter.py "limits==5.*" "redis==6.*"
node_client redis 6 node_redis.mjs
node_client redis 4 node_redis.mjs
node_client ioredis 6 ioredis.mjs
node_client ioredis 5 ioredis.mjs
node_client bull 4 bull.mjs

[ -z "$failed" ] || fail "$passed clients work, these do not:$failed"
echo "All $passed clients work with their default settings."
