#!/bin/sh
# Can a directory go from this server to redis-server, and back?
#
# Whoever outgrows this server must be able to take the data along, and whoever comes from Redis
# must be able to bring them. So the log is exchanged in all directions, and after each exchange
# both servers are asked for everything: types, values, deadlines to the millisecond. Values are of every type,
# short and long, and some are short again or have become something else.
#
#   1. our directory, after writes of every kind  → redis-check-aof says valid, redis-server starts
#   2. Redis goes on writing in it                → we start on it
#   3. Redis rewrites it (RESP base and incr)     → we start on it, and rewrite it → Redis starts
#   4. a bare appendonly.aof, as before Redis 7   → we adopt it → Redis starts
#   5. an RDB base                                → we start on it, and make one of our own → Redis starts
#   6. redis-cli --pipe < our incr file           → into a Redis that is running
#   7. a log of either that is cut off anywhere   → both find the same in it, and Redis in what we have mended
#   8. redis-cli --cluster import                 → three nodes of a cluster have what we had
#
# Our files hold annotations (`#CRC:`), which the other side must pass over; and what it has appended without
# them must be covered by our next one.
#
# REDIS_SERVER=path/to/valkey-server puts another server in the place of redis-server.
#
# Needs redis-server, redis-cli and redis-check-aof (Debian: redis-server redis-tools), and cargo
# to build the server.
set -eu
. "$(dirname "$0")/support.sh"
other=${REDIS_SERVER:-redis-server}
need "$other" redis-cli redis-check-aof awk sort paste truncate cmp

binary=${SIMPLE_REDIS:-}
if [ -z "$binary" ]; then
    need cargo
    cargo build --quiet --release --manifest-path "$root/Cargo.toml" --target-dir "$root/target"
    binary=$root/target/release/simple-redis
fi
data=$scratch/data aof=$scratch/data/appendonlydir
"$other" --version

cli() {
    redis-cli -p "$port" "$@"
}

# until_ready: the server in $server answers, or the script ends.
until_ready() {
    tries=0
    until [ "$(cli PING 2>/dev/null)" = PONG ]; do
        kill -0 "$server" 2>/dev/null || fail "the server ended before it was ready"
        tries=$((tries + 1))
        [ "$tries" -lt 200 ] || fail "the server was not ready after ten seconds"
        sleep 0.05
    done
}

# ours DIRECTORY: our server.
ours() {
    "$binary" --port 0 --dir "$1" >"$scratch/log" 2>&1 &
    server=$! tries=0 port=
    while [ -z "$port" ]; do
        kill -0 "$server" 2>/dev/null || fail "our server ended before it was ready"
        tries=$((tries + 1))
        [ "$tries" -lt 200 ] || fail "our server was not ready after ten seconds"
        sleep 0.05
        port=$(sed -n 's/.*Ready to accept connections on port \([0-9][0-9]*\).*/\1/p' "$scratch/log")
    done
}

# redis DIRECTORY FLAGS…: redis-server cannot pick a port, so we try some.
redis() {
    directory=$1
    shift
    for port in $(seq $((20000 + $$ % 20000)) $((20020 + $$ % 20000))); do
        # What the last server has said would be read below.
        : >"$scratch/log"
        "$other" --port "$port" --dir "$directory" --save '' --appendonly yes \
            --aof-use-rdb-preamble no "$@" >"$scratch/log" 2>&1 &
        server=$!
        until grep -qi 'Ready to accept\|address already in use' "$scratch/log"; do
            kill -0 "$server" 2>/dev/null || break
            sleep 0.02
        done
        ! grep -qi 'address already in use' "$scratch/log" || continue
        until_ready
        return
    done
    fail "no free port for redis-server"
}

# As a crash ends it, so that what counts is on disk already.
stop() {
    # redis-server may hold its log back while an fsync runs.
    until cli INFO persistence | grep -q 'aof_buffer_length:0'; do sleep 0.02; done
    kill -9 "$server"
    wait "$server" 2>/dev/null || :
    server=
}

# dump FILE: everything, in an order that does not depend on the server.
dump() {
    for db in 0 1 9; do
        cli -n "$db" --scan | sort >"$scratch/keys"
        sed 's/^/TYPE /' "$scratch/keys" | cli -n "$db" | paste -d ' ' "$scratch/keys" - | awk '
            BEGIN {
                read["string"] = "GET %s"
                read["hash"] = "HGETALL %s"
                read["list"] = "LRANGE %s 0 -1"
                read["set"] = "SMEMBERS %s"
                read["zset"] = "ZRANGE %s 0 -1 WITHSCORES"
            }
            {
                printf "ECHO \"== %s %s\"\nPEXPIRETIME %s\n", $1, $2, $1
                printf read[$2] "\n", $1
            }' | cli -n "$db" --no-raw | awk -v db="$db" '
            # redis-cli says how long it has waited.
            /^\([0-9.]+s\)$/ { next }
            /^"== / { gsub(/"/, ""); key = $2; type = $3; number = -1; next }
            { number += 1 }
            number == 0 { print db, key, type, "until", $0; next }
            # The place of an element counts in a list and a sorted set only.
            type == "set" || type == "hash" { sub(/^ *[0-9]+\) /, "") }
            type == "hash" && number % 2 == 1 { field = $0; next }
            type == "hash" { $0 = field " " $0 }
            # Servers write the same score with more digits or fewer.
            type == "zset" && number % 2 == 0 && /"-?[0-9]/ {
                gsub(/.*[)] "|"/, "")
                $0 = number ") " sprintf("%.17g", $0)
            }
            { print db, key, $0 }'
    done | sort >"$1"
    [ -s "$1" ] || fail "$1: nothing was found"
    ! grep '(error)' "$1" >&2 || fail "$1: a value cannot be read"
}

same() {
    checks=$((checks + 1))
    dump "$scratch/now"
    diff "$scratch/expected" "$scratch/now" >&2 || fail "$1: the data differ"
    echo "ok: $1 ($(wc -l <"$scratch/now") lines)"
}

# write_long DATABASE: values in the encodings for long ones; and some that were long and are short again.
write_long() {
    # More than one command of a base holds.
    names=$(seq 1 700 | sed 's/^/member/') pairs=$(seq 1 700 | sed 's/.*/& member&/')
    wide=$(head -c 100 /dev/zero | tr '\0' w)
    # shellcheck disable=SC2086
    for key in long shrunk; do
        cli -n "$1" HSET hash-$key $pairs
        cli -n "$1" RPUSH list-$key $names
        cli -n "$1" SADD set-$key $names
        cli -n "$1" SADD set-of-numbers-$key $(seq 1 700)
        cli -n "$1" ZADD zset-$key $pairs
    done >/dev/null
    cli -n "$1" >/dev/null <<-COMMANDS
		HDEL hash-shrunk $(seq -s ' ' 4 700)
		LTRIM list-shrunk -3 -1
		SREM set-shrunk $(seq -s ' ' 4 700 | sed 's/[0-9]*/member&/g')
		SREM set-of-numbers-shrunk $(seq -s ' ' 4 700)
		ZREMRANGEBYRANK zset-shrunk 3 -1
		HSET hash-wide field $wide $wide value
		RPUSH list-wide 1 $wide 2
		SADD set-wide 1 $wide
		ZADD zset-wide 1 $wide 2 2
		SADD set-of-512-numbers $(seq -s ' ' 1 512)
		RPUSH list-of-pages before
	COMMANDS
    # Values of many pages.
    head -c 200000 /dev/zero | tr '\0' x >"$scratch/pages"
    cli -n "$1" -x SET long <"$scratch/pages" >/dev/null
    cli -n "$1" -x RPUSH list-of-pages <"$scratch/pages" >/dev/null
}

# Every kind of record that the log knows, from three databases.
write() {
    for db in 0 1 9; do
        cli -n "$db" >/dev/null <<-'COMMANDS'
			SET plain "two words"
			SET binary "\x00\r\n*1\r\n\xff\xfe"
			SET empty ""
			SET volatile v EX 1000
			SETEX setex 2000 v
			GETEX volatile PX 5000000
			INCRBYFLOAT float 3.25
			INCRBY counter 41
			APPEND counter 7
			SETRANGE range 5 x
			MSET m1 1 m2 2 m3 3
			RENAME m3 m4
			COPY m1 m5
			DEL m2
			GETDEL m1
			HSET hash f1 v1 f2 "v 2" f3 "\x01\r\n"
			HINCRBY hash n 5
			HINCRBYFLOAT hash x 1.5
			HDEL hash f1
			HSET gone f v
			HDEL gone f
			PEXPIREAT hash 4102444800123
			EXPIRE plain 3000
			PERSIST plain
			SET soon v PX 1
			MULTI
			INCR in-transaction
			HSET large a b
			EXEC
			SETBIT bits 100000 1
			BITFIELD bits SET i5 3 -7 OVERFLOW SAT INCRBY u8 #9 300
			BITOP NOT bits-not bits
			BITOP XOR bits-xor bits plain
			RPUSH list a "two words" "\x00\r\n*1\r\n" 17 -1 12345678901234567890 "" a
			LPUSH list head
			LINSERT list BEFORE a "in front"
			LSET list 1 changed
			LREM list -1 a
			PEXPIREAT list 4102444800123
			RPUSH list-gone a b
			LPOP list-gone 2
			RPUSH list-from a b c d
			LMOVE list-from list-to LEFT RIGHT
			RPOPLPUSH list-from list-to
			BLPOP none list-from 1
			BLMOVE list-from list-to RIGHT LEFT 1
			LMPOP 2 none list-to LEFT COUNT 1
			SORT list ALPHA DESC STORE list-sorted
			RPUSH list-soon v
			PEXPIRE list-soon 1
			SADD set-of-numbers 3 -1 2 9223372036854775807 -9223372036854775808
			SADD set 1 2 3
			SADD set text "\x00\r\n" ""
			SREM set text 3
			EXPIRE set 3000
			SADD set-drawn a b c d e f
			SPOP set-drawn
			SPOP set-drawn 2
			SMOVE set-drawn set-moved a
			SUNIONSTORE set-union set set-of-numbers
			SDIFFSTORE set-diff set-of-numbers set
			ZADD zset 1.5 half -inf low inf high 1e300 far 3.0000000000000004 odd 17 "two words" 0.1 tenth 1 ""
			ZADD zset INCR 0.2 tenth
			ZADD zset GT CH 18 "two words" 1 half
			ZINCRBY zset 1e-7 half
			EXPIRE zset 4000
			ZRANGESTORE zset-range zset 1 4
			ZUNIONSTORE zset-union 2 zset set WEIGHTS 2 0.5
			ZADD zset-popped 1 a 2 b 3 c 4 d
			ZPOPMIN zset-popped
			BZPOPMAX none zset-popped 1
			ZMPOP 1 zset-popped MIN
			ZREMRANGEBYLEX zset-range - (g
			MULTI
			RPUSH list-of-transaction a b
			SADD set-of-transaction a
			LMOVE list-of-transaction list-to LEFT LEFT
			ZADD zset-of-transaction 1 a
			EXEC
		COMMANDS
        write_long "$db"
        cli -n "$db" SET "late-${1:-1}" 1 PX 7000000 >/dev/null
    done
}

rewrite() {
    cli BGREWRITEAOF >/dev/null
    tries=0
    until cli INFO persistence | tr -d '\r' | grep -c 'aof_rewrite_in_progress:0\|aof_rewrite_scheduled:0\|aof_last_bgrewrite_status:ok' | grep -q 3; do
        tries=$((tries + 1))
        [ "$tries" -lt 500 ] || fail "the rewrite does not end"
        sleep 0.02
    done
}

valid() {
    checks=$((checks + 1))
    redis-check-aof "$aof/appendonly.aof.manifest" >"$scratch/check" 2>&1 || fail "$(cat "$scratch/check")"
    grep -q 'All AOF files and manifest are valid' "$scratch/check" || fail "$(cat "$scratch/check")"
    "$binary" --check-aof "$data" >"$scratch/check" || fail "$(cat "$scratch/check")"
    echo "ok: redis-check-aof and --check-aof call it valid, $1"
}

# annotated FILE: it has annotations of ours, and the last of them is its last line.
annotated() {
    checks=$((checks + 1))
    tail -n 1 "$1" | grep -q '^#CRC:' || fail "$1 does not end with an annotation"
    echo "ok: $(grep -ac '^#CRC:' "$1") annotations in ${1##*/}"
}

# After which all is fsynced, and sealed.
shutdown() {
    cli SHUTDOWN >/dev/null
    wait "$server" || fail "SHUTDOWN ends with an error"
    server=
}

checks=0
mkdir "$data"

echo "== 1. from us to Redis"
ours "$data"
write
dump "$scratch/expected"
shutdown
annotated "$aof/appendonly.aof.1.incr.aof"
valid "as we wrote it"
cp "$aof/appendonly.aof.1.incr.aof" "$scratch/ours.incr"
redis "$data"
same "redis-server on our directory"

echo "== 2. Redis goes on writing, and back to us"
write 2
dump "$scratch/expected"
stop
ours "$data"
same "we on the directory in which Redis has written"
cli SET ours again >/dev/null
dump "$scratch/expected"
shutdown
annotated "$aof/appendonly.aof.1.incr.aof"
valid "as both wrote it"
# One bit of what Redis has written.
checks=$((checks + 1))
cp "$aof/appendonly.aof.1.incr.aof" "$scratch/good"
sed 's/^late-2/mate-2/' "$scratch/good" >"$aof/appendonly.aof.1.incr.aof"
! cmp -s "$scratch/good" "$aof/appendonly.aof.1.incr.aof" || fail "nothing of Redis's was found to be changed"
if "$binary" --check-aof "$data" >"$scratch/check"; then fail "a flipped bit goes unseen"; fi
grep -q 'damaged between offset' "$scratch/check" || fail "$(cat "$scratch/check")"
cp "$scratch/good" "$aof/appendonly.aof.1.incr.aof"
echo "ok: a flipped bit in what Redis has written is seen"
redis "$data"
same "redis-server on what both wrote"
stop

echo "== 3. rewritten by Redis, then by us"
redis "$data"
rewrite
write 3
dump "$scratch/expected"
stop
ls "$aof" | grep -q base || fail "Redis has left no base"
ours "$data"
same "we on a base and an incr of Redis"
rewrite
write 4
dump "$scratch/expected"
shutdown
annotated "$aof"/*.base.aof
valid "as we rewrote it"
redis "$data"
same "redis-server on our base and incr"
stop

echo "== 4. a bare appendonly.aof"
cat "$aof"/*.base.aof "$aof"/*.incr.aof >"$scratch/bare"
rm -r "$aof"
cp "$scratch/bare" "$data/appendonly.aof"
ours "$data"
same "we on a bare file"
stop
[ ! -e "$data/appendonly.aof" ] || fail "the bare file was not moved"
valid "as we adopted it"
redis "$data"
same "redis-server on what we adopted"
stop

echo "== 5. an RDB base"
mkdir "$scratch/rdb"
redis "$scratch/rdb" --aof-use-rdb-preamble yes
cli SET a 1 >/dev/null
rewrite
stop
ours "$scratch/rdb"
[ "$(cli GET a)" = 1 ] || fail "we do not have what the RDB base has"
cli CONFIG SET aof-use-rdb-preamble yes >/dev/null
rewrite
stop
redis-check-rdb "$scratch"/rdb/appendonlydir/*.base.rdb >/dev/null || fail "our RDB base is not valid"
redis "$scratch/rdb"
[ "$(cli GET a)" = 1 ] || fail "redis-server does not have what our RDB base has"
stop
checks=$((checks + 2))

echo "== 6. redis-cli --pipe into a Redis that is running"
mkdir "$scratch/empty"
rm -r "$data"
mkdir "$data"
ours "$data"
write
dump "$scratch/expected"
stop
redis "$scratch/empty"
# An annotation is answered with an error, and changes nothing.
cli --pipe <"$aof/appendonly.aof.1.incr.aof" 2>&1 | tail -1
same "redis-server after redis-cli --pipe"
stop

echo "== 7. torn tails"
# Every cut is in the last hundreds of bytes, which have all types and a transaction.
end_with_all_types() {
    cli >/dev/null <<-'COMMANDS'
		RPUSH list x y
		ZADD zset 0.5 x
		MULTI
		LPOP list
		SADD set-of-numbers text
		SETBIT bits 3 1
		HSET hash f v
		ZPOPMIN zset
		EXEC
		LMOVE list list-to LEFT LEFT
		PEXPIREAT list-to 4102444800777
	COMMANDS
}

# torn NAME: cuts the last file of the log in $data, in many places.
torn() {
    last=$(sed -n 's/^file \([^ ]*\) .*/\1/p' "$aof/appendonly.aof.manifest" | tail -1)
    for cut in $(seq 1 61 500); do
        for copy in one other; do
            rm -rf "${scratch:?}/$copy"
            cp -r "$data" "$scratch/$copy"
            truncate -s "-$cut" "$scratch/$copy/appendonlydir/$last"
        done
        ours "$scratch/one"
        dump "$scratch/expected"
        stop
        redis "$scratch/other"
        same "redis-server on $1 without its last $cut bytes"
        stop
        redis "$scratch/one"
        same "redis-server on what we have mended"
        stop
    done
}

for writer in ours redis; do
    rm -rf "$data"
    mkdir "$data"
    "$writer" "$data"
    write
    end_with_all_types
    stop
    torn "a log of $writer"
done

echo "== 8. a cluster"
# cluster: redis-cli moves the keys of our database 0 into three nodes, while we serve them. All keys must be there
# then, with the same values, and none here. In a shell of its own, because it has four servers.
cluster() (
    servers=
    trap '{ kill -9 $servers && wait $servers || :; } 2>/dev/null' EXIT
    rm -rf "$data"
    mkdir "$data"
    ours "$data"
    servers=$server from=$port
    write
    for db in 1 9; do cli -n "$db" FLUSHDB; done >/dev/null
    # A key moves with what is left of its time, so its deadline may be some milliseconds later.
    forget_deadlines() { sed 's/ until (integer) [0-9].*/ until later/' "$1"; }
    dump "$scratch/here"
    forget_deadlines "$scratch/here" >"$scratch/expected"
    nodes=
    for node in 1 2 3; do
        mkdir "$scratch/node$node"
        redis "$scratch/node$node" --cluster-enabled yes
        servers="$servers $server" nodes="$nodes 127.0.0.1:$port"
    done
    # shellcheck disable=SC2086
    redis-cli --cluster create $nodes --cluster-yes >"$scratch/log"
    for node in $nodes; do
        port=${node#*:}
        until cli CLUSTER INFO | grep -q cluster_state:ok; do sleep 0.1; done
    done
    redis-cli --cluster import "127.0.0.1:$port" --cluster-from "127.0.0.1:$from" >"$scratch/log" ||
        fail "redis-cli cannot move all keys"
    [ "$(redis-cli -p "$from" DBSIZE)" = 0 ] || fail "some keys are still here"
    # A node has database 0, and no other.
    cli() {
        case "$1 $2" in
            "-n 0") shift 2 && redis-cli -p "$port" "$@" ;;
            "-n "*) ;;
            *) redis-cli -p "$port" "$@" ;;
        esac
    }
    : >"$scratch/found"
    for node in $nodes; do
        port=${node#*:}
        dump "$scratch/now"
        forget_deadlines "$scratch/now" >>"$scratch/found"
    done
    sort "$scratch/found" | diff "$scratch/expected" - >&2 || fail "the cluster has other data"
    echo "ok: three nodes have what we had ($(wc -l <"$scratch/expected") lines)"
)
cluster
checks=$((checks + 1))

: >"$scratch/log"
echo "interop: $checks exchanges; the data were the same on both sides each time."
