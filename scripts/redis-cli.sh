#!/bin/sh
# Does redis-cli work with this server, in every mode, and does redis-benchmark?
#
# Most people meet the server through redis-cli. Its modes send what no client library sends:
# COMMAND DOCS for the hints, MEMORY USAGE for --memkeys, a lone CR LF before the ECHO that ends
# --pipe. Some modes exist only on a terminal; tests/clients/programs/redis_cli.py is one.
#
#     scripts/redis-cli.sh                          against the release build
#     REDIS=127.0.0.1:6379 scripts/redis-cli.sh     against a running, empty server
#
# Needs redis-cli and redis-benchmark (Debian: redis-tools), python3, and cargo to build the
# server. One check sets a password and takes it back.
set -eu
. "$(dirname "$0")/support.sh"

need redis-cli redis-benchmark python3 awk
start_server
checks=0 failed=0

cli() {
    redis-cli -h "$host" -p "$port" "$@"
}

# equal NAME EXPECTED ACTUAL
equal() {
    checks=$((checks + 1))
    [ "$2" = "$3" ] || complain "$1" "$2" "$3"
}

complain() {
    failed=$((failed + 1))
    printf '%s\n  expected: %s\n       got: %s\n' "$1" "$2" "$3" >&2
}

# shows EXPECTED ARGUMENTS…: what redis-cli prints, apart from empty lines at the end.
shows() {
    expected=$1
    shift
    equal "redis-cli $*" "$expected" "$(cli "$@" 2>&1 || :)"
}

# has PATTERN ARGUMENTS…: one line of what redis-cli prints matches.
has() {
    pattern=$1
    shift
    checks=$((checks + 1))
    output=$(cli "$@" 2>&1 || :)
    echo "$output" | grep -Eq -- "$pattern" || complain "redis-cli $*" "$pattern" "$output"
}

[ "$(cli DBSIZE)" = 0 ] || fail "the server is not empty, and this script empties it"

# One command, in each form of output.
shows OK SET key value
shows value GET key
shows '"value"' --no-raw GET key
shows '(nil)' --no-raw GET nobody
shows '(integer) 2' --no-raw HSET hash f1 v1 f2 'v 2'
shows '1) "f1"
2) "v1"
3) "f2"
4) "v 2"' --no-raw HGETALL hash
shows '1# "f1" => "v1"
2# "f2" => "v 2"' --no-raw -3 HGETALL hash
shows '"f1","v1","f2","v 2"' --csv HGETALL hash
shows '{"f1":"v1","f2":"v 2"}' --json HGETALL hash
shows '["value",null]' --json MGET key nobody
shows 'WRONGTYPE Operation against a key holding the wrong kind of value' GET hash
equal 'redis-cli -e: the status after an error' 1 "$(cli -e GET hash >/dev/null 2>&1 && echo 0 || echo $?)"
shows 'PONG
PONG
PONG' -r 3 -i 0.01 PING
has '^redis_mode:standalone' INFO
has '^redis_mode:standalone' -3 INFO

# Other databases, and commands or a last argument from standard input.
shows OK -n 3 SET elsewhere 1
shows 0 EXISTS elsewhere
equal 'redis-cli -u' 1 "$(redis-cli -u "redis://$host:$port/3" EXISTS elsewhere)"
shows OK -n 3 FLUSHDB
shows 'PONG
OK' <<END
PING
SET key "two\r\nlines"
END
printf 'no newline at the end' >"$scratch/value"
shows OK -x SET key <"$scratch/value"
shows 'no newline at the end' GET key

# Mass insertion, and the modes that walk the keyspace.
shows OK FLUSHDB
awk 'BEGIN { for (n = 1; n <= 10000; n++) printf "SET key:%d %d\r\n", n, n }' >"$scratch/pipe"
has '^errors: 0, replies: 10000$' --pipe <"$scratch/pipe"
shows OK HMSET hash one 1 two 2
equal 'redis-cli --scan' 10001 "$(cli --scan | sort -u | wc -l | tr -d ' ')"
equal 'redis-cli --scan --pattern' 111 "$(cli --scan --pattern 'key:99*' | sort -u | wc -l | tr -d ' ')"
has '^10000 strings with 38894 bytes' --bigkeys
has '^1 hashs with 2 fields' --bigkeys
has '^Biggest string found .*key:10000.* has 5 bytes' --bigkeys
has '^10000 strings with [1-9][0-9]* bytes' --memkeys
has '^Biggest   hash found .*hash.* has [1-9][0-9]* bytes' --memkeys

# Without a terminal these print one line of figures and end.
has '^[0-9]+ [0-9]+ [0-9.]+ [0-9]+$' --latency -i 0.2

# The password is taken back before anything is judged, in case something fails.
cli CONFIG SET requirepass open-sesame >/dev/null
without=$(cli PING 2>&1 || :)
wrong=$(cli -a open-barley PING 2>&1 || :)
with=$(cli -a open-sesame --no-auth-warning PING 2>&1 || :)
named=$(cli --user default --pass open-sesame -3 --no-auth-warning PING 2>&1 || :)
cli -a open-sesame --no-auth-warning CONFIG SET requirepass '' >/dev/null
equal 'without a password' 'NOAUTH Authentication required.' "$without"
equal 'redis-cli -a' PONG "$with"
equal 'redis-cli --user --pass -3' PONG "$named"
checks=$((checks + 1))
case $wrong in
*WRONGPASS*NOAUTH*) ;;
*) complain 'redis-cli -a with a wrong password' 'WRONGPASS, then NOAUTH' "$wrong" ;;
esac

# On a terminal: hints and completion, the prompt, --stat, MONITOR, SUBSCRIBE.
checks=$((checks + 1))
python3 "$root/tests/clients/programs/redis_cli.py" "$host" "$port" || failed=$((failed + 1))

# redis-benchmark ends each test with a line of its own; without a pipeline and with one.
for pipeline in 1 16; do
    tests=ping,set,get,incr,hset,mset
    redis-benchmark -h "$host" -p "$port" -t $tests -n 10000 -P $pipeline -q >"$scratch/benchmark"
    equal "redis-benchmark -P $pipeline -t $tests" 7 \
        "$(tr '\r' '\n' <"$scratch/benchmark" | grep -c 'requests per second' || :)"
done
cli FLUSHDB >/dev/null

[ "$failed" -eq 0 ] || fail "$failed of $checks checks failed"
echo "redis-cli and redis-benchmark work: $checks checks passed."
