#!/bin/sh
# Does the log keep its promise on a disk that fails, or is slow?
#
# A small library, made here by the C compiler and preloaded under the server, makes write and fsync
# of the log's files fail or take long, as a file says that the script changes while the server runs. What
# the log does on a disk that fails at any call, stops short or loses what was not fsynced is tested on a
# simulated disk (src/aof/power_cuts.rs), and a full disk in tests/persistence/. Here is what these cannot
# see: clients of a real server, the kernel's own errors, and time.
#
#   EIO on write      the write is not acknowledged, readers go on, recovery by itself
#   ... and BLPOP     nothing is handed to a client that waits as if it were safe, and nothing twice
#   EIO on fsync      writes are refused until BGREWRITEAOF, even when fsync works again
#   the same, always  and the first MISCONF comes at once
#   unable            no fsync of directories, no flock: the operator is told once, and all works
#   slow fsync        500 ms each: SET does not wait for it under everysec
#   ... of 2 s each   the next begins when it ends, and the operator is told
#   shared fsync      under always, many clients need few of them
#
# Each case ends with kill -9, a new start, and the question whether all that was acknowledged is
# there, in values of all types. Needs cc, redis-cli and redis-benchmark (Debian: gcc libc6-dev redis-tools), and cargo to
# build the server.
set -eu
. "$(dirname "$0")/support.sh"
need cc redis-cli redis-benchmark awk

cat >"$scratch/faults.c" <<'C'
/* Faults on demand: $FAULTS names a file that holds a word and a number. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

static int is_word(const char *word, long *number) {
    char found[32] = "";
    FILE *file = fopen(getenv("FAULTS"), "r");
    if (!file) return 0;
    int read = fscanf(file, "%31s %ld", found, number);
    fclose(file);
    return read >= 1 && !strcmp(found, word);
}

static int fault(int fd, const char *word, long *number) {
    char link[64], path[512];
    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    ssize_t n = readlink(link, path, sizeof path - 1);
    if (n <= 0) return 0;
    path[n] = 0;
    return strstr(path, "appendonlydir/") && is_word(word, number);
}

static void count(const char *what) {
    char path[512];
    snprintf(path, sizeof path, "%s.%s", getenv("FAULTS"), what);
    FILE *file = fopen(path, "a");
    if (file) { fputc('.', file); fclose(file); }
}

ssize_t write(int fd, const void *bytes, size_t size) {
    static ssize_t (*real)(int, const void *, size_t);
    if (!real) real = dlsym(RTLD_NEXT, "write");
    long number = 0;
    if (fault(fd, "write-fails", &number)) { errno = EIO; return -1; }
    return real(fd, bytes, size);
}

static int sync_with(int (*real)(int), int fd) {
    long number = 0;
    struct stat about;
    count("syncs");
    if (fault(fd, "fsync-fails", &number)) { errno = EIO; return -1; }
    if (!fstat(fd, &about) && S_ISDIR(about.st_mode) && is_word("unable", &number)) {
        errno = number;
        return -1;
    }
    if (fault(fd, "fsync-slow", &number)) {
        struct timespec pause = { number / 1000, number % 1000 * 1000000 };
        nanosleep(&pause, NULL);
    }
    return real(fd);
}

int fsync(int fd) { return sync_with((int (*)(int))dlsym(RTLD_NEXT, "fsync"), fd); }
int flock(int fd, int operation) {
    long number = 0;
    if (is_word("unable", &number)) { errno = ENOTSUP; return -1; }
    return ((int (*)(int, int))dlsym(RTLD_NEXT, "flock"))(fd, operation);
}

int fdatasync(int fd) { return sync_with((int (*)(int))dlsym(RTLD_NEXT, "fdatasync"), fd); }
C
cc -shared -fPIC -O2 -o "$scratch/faults.so" "$scratch/faults.c" -ldl
export FAULTS="$scratch/faults"
: >"$FAULTS"
checks=0 failed=0

cli() {
    redis-cli -h "$host" -p "$port" "$@" 2>&1 || :
}

# equal NAME EXPECTED ACTUAL
equal() {
    checks=$((checks + 1))
    case $3 in
    $2) ;;
    *)
        failed=$((failed + 1))
        printf '%s\n  expected: %s\n       got: %s\n' "$1" "$2" "$3" >&2
        ;;
    esac
}

# soon NAME EXPECTED ARGUMENTS…: what redis-cli prints, asked again for a second.
soon() {
    name=$1 expected=$2 tries=0
    shift 2
    while :; do
        reply=$(cli "$@")
        # shellcheck disable=SC2254
        case $reply in $expected) break ;; esac
        tries=$((tries + 1))
        [ "$tries" -lt 100 ] || break
        sleep 0.02
    done
    equal "$name" "$expected" "$reply"
}

# told TEXT: the server says so, within ten seconds.
told() {
    tries=0
    until grep -q "$1" "$scratch/log" || [ "$tries" -ge 200 ]; do
        tries=$((tries + 1))
        sleep 0.05
    done
    equal "$name: the operator is told" "*$1*" "$(cat "$scratch/log")"
}

info() {
    cli INFO persistence | tr -d '\r' | sed -n "s/^$1://p"
}

# fault WORD [NUMBER]: the file is replaced, so that the library never reads half of it.
fault() {
    echo "$*" >"$FAULTS.new"
    mv "$FAULTS.new" "$FAULTS"
}

# begin NAME FLAGS…: a server on an empty directory, with the library under it.
begin() {
    echo "== $1"
    name=$1 filled=
    shift
    rm -rf "$scratch/data"
    mkdir "$scratch/data"
    # shellcheck disable=SC2086
    fault ${at_start:-none}
    flags=$*
    launch LD_PRELOAD="$scratch/faults.so"
}

launch() {
    # shellcheck disable=SC2086
    env "$@" "$binary" --port 0 --dir "$scratch/data" $flags >"$scratch/log" 2>&1 &
    server=$! host=127.0.0.1 port= tries=0
    while [ -z "$port" ]; do
        kill -0 "$server" 2>/dev/null || fail "the server ended before it was ready"
        tries=$((tries + 1))
        [ "$tries" -lt 200 ] || fail "the server was not ready after ten seconds"
        sleep 0.05
        port=$(sed -n 's/.*Ready to accept connections on port \([0-9][0-9]*\).*/\1/p' "$scratch/log")
    done
}

# fill: a value of each type.
fill() {
    cli >/dev/null <<-'COMMANDS'
		MULTI
		RPUSH list a b c
		SADD set 1 2
		ZADD zset 1.5 a 2 b
		HSET hash f v
		SETBIT bits 7 1
		EXEC
	COMMANDS
    filled=$(contents)
}

contents() {
    cli <<-'COMMANDS'
		LRANGE list 0 -1
		SMEMBERS set
		ZRANGE zset 0 -1 WITHSCORES
		HGETALL hash
		GETBIT bits 7
		GETBIT bits 0
	COMMANDS
}

# refuses_all: no command changes anything, of whatever type.
refuses_all() {
    while read -r command; do
        # shellcheck disable=SC2086
        equal "$name: $command" "$misconf" "$(cli $command </dev/null)"
    done <<-'COMMANDS'
		LPOP list
		BLPOP list 1
		LMOVE list other LEFT LEFT
		SPOP set
		SADD set x
		ZPOPMIN zset
		BZPOPMAX none zset 1
		HDEL hash f
		SETBIT bits 0 1
	COMMANDS
    equal "$name: the values of all types" "$filled" "$(contents)"
}

# end KEY VALUE…: kill -9, a start without the library, and each key has its value.
end() {
    kill -9 "$server"
    wait "$server" 2>/dev/null || :
    launch
    while [ $# -gt 0 ]; do
        equal "$name: $1 after kill -9" "$2" "$(cli GET "$1")"
        shift 2
    done
    [ -z "$filled" ] || equal "$name: the values of all types after kill -9" "$filled" "$(contents)"
    kill -9 "$server"
    wait "$server" 2>/dev/null || :
    server=
}

binary=${SIMPLE_REDIS:-}
if [ -z "$binary" ]; then
    need cargo
    cargo build --quiet --release --manifest-path "$root/Cargo.toml" --target-dir "$root/target"
    binary=$root/target/release/simple-redis
fi
misconf='*MISCONF Errors writing to the AOF file: Input/output error*'

begin write-fails
equal "$name" OK "$(cli SET before 1)"
fill
fault write-fails
equal "$name: the first write" "$misconf" "$(cli SET during 1)"
equal "$name: the second write" "$misconf" "$(cli SET later 1)"
refuses_all
equal "$name: a read" 1 "$(cli GET before)"
equal "$name: INFO" err "$(info aof_last_write_status)"
equal "$name: SHUTDOWN" '*Errors trying to SHUTDOWN*' "$(cli SHUTDOWN)"
fault none
soon "$name: recovery" OK SET after 1
equal "$name: INFO after recovery" ok "$(info aof_last_write_status)"
end before 1 after 1 later ''
"$binary" --check-aof "$scratch/data" >"$scratch/check" || fail "$(cat "$scratch/check")"

# consumer NAME: redis-cli waits for an element of this list, and what it is told goes to a file.
consumer() {
    redis-cli -h "$host" -p "$port" BLPOP "$1" 0 >"$scratch/$1" 2>&1 &
    soon "$name: a consumer waits" '*blocked_clients:1*' INFO clients
}

begin 'write-fails, and a client waits'
consumer first
fault write-fails
equal "$name: the push" "$misconf" "$(cli RPUSH first 1)"
wait $!
equal "$name: whether it was popped, nobody knows" "$misconf" "$(cat "$scratch/first")"
equal "$name: a push that is refused" "$misconf" "$(cli RPUSH first 2)"
equal "$name: BLPOP is refused too" "$misconf" "$(cli BLPOP first 0)"
fault none
soon "$name: recovery" OK SET after 1
consumer second
equal "$name: a push" 1 "$(cli RPUSH second 1)"
wait $!
equal "$name: it is served again" "second
1" "$(cat "$scratch/second")"
end after 1 first '' second ''

begin 'fsync-fails, everysec'
equal "$name" OK "$(cli SET before 1)"
fill
fault fsync-fails
cli SET during 1 >/dev/null
tries=0
while [ "$(info aof_last_write_status)" = ok ] && [ "$tries" -lt 200 ]; do
    tries=$((tries + 1))
    sleep 0.02
done
equal "$name: a write" "$misconf" "$(cli SET later 1)"
refuses_all
equal "$name: a read" 1 "$(cli GET before)"
equal "$name: WAITAOF" '0
0' "$(cli WAITAOF 1 0 50)"
told 'fsync of the append-only file in'
# The rewrite needs fsync too.
equal "$name: BGREWRITEAOF" '*started' "$(cli BGREWRITEAOF)"
soon "$name: a rewrite that fails" '*aof_last_bgrewrite_status:err*' INFO persistence
equal "$name: still refused" "$misconf" "$(cli SET later 1)"
fault none
sleep 1.2 # longer than the second after which an fsync that works might make us forget
equal "$name: fsync works again, but" "$misconf" "$(cli SET later 1)"
equal "$name: BGREWRITEAOF" '*started' "$(cli BGREWRITEAOF)"
soon "$name: healed" OK SET after 1
equal "$name: INFO" ok "$(info aof_last_write_status)"
equal "$name: WAITAOF" '1
0' "$(cli WAITAOF 1 0 2000)"
end before 1 during 1 after 1 later ''

begin 'fsync-fails, always' --appendfsync always
equal "$name" OK "$(cli SET before 1)"
fill
fault fsync-fails
equal "$name: the first write" "$misconf" "$(cli SET during 1)"
equal "$name: the second write" "$misconf" "$(cli SET later 1)"
refuses_all
equal "$name: a read" 1 "$(cli GET before)"
fault none
equal "$name: fsync works again, but" "$misconf" "$(cli SET later 1)"
equal "$name: BGREWRITEAOF" '*started' "$(cli BGREWRITEAOF)"
soon "$name: healed" OK SET after 1
end before 1 after 1 later ''

# EINVAL and EBADF.
for error in 22 9; do
    at_start="unable $error"
    begin "unable, error $error" --appendfsync always
    equal "$name" OK "$(cli SET before 1)"
    for _ in 1 2; do
        equal "$name: BGREWRITEAOF" '*started' "$(cli BGREWRITEAOF)"
        soon "$name: it works" '*aof_rewrite_in_progress:0*aof_last_bgrewrite_status:ok*' INFO persistence
        equal "$name: a write" OK "$(cli SET after 1)"
    done
    told 'this file system cannot fsync a directory'
    told 'cannot lock the directory'
    equal "$name: told once" 1 "$(grep -c 'cannot fsync a directory' "$scratch/log")"
    at_start=
    end before 1 after 1
done

# The time in milliseconds within which 99.9 % of SETs were answered.
slowest() {
    redis-benchmark -h "$host" -p "$port" -t set -n 200000 -c 20 --precision 3 2>/dev/null |
        tr '\r' '\n' | awk '/^[0-9.]+% <= / && $1 + 0 >= 99.9 { print $3; exit }'
}

begin 'fsync-slow, everysec'
fast=$(slowest)
fault fsync-slow 500
slow=$(slowest)
echo "SET, 99.9 % within $slow ms with an fsync of 500 ms every second, and $fast ms without"
# On a machine that is busy with other things five milliseconds may be too much to ask of both.
verdict=$(awk "BEGIN { print ($slow < 5 || $slow < 2 * $fast) ? \"yes\" : \"$slow ms\" }")
equal "$name: p99.9 under 5 ms" yes "$verdict"
end

begin 'fsync-slow, 2 s each'
fault fsync-slow 2000
: >"$FAULTS.syncs"
# They begin after 1, 3, 5, 7 and 9 seconds at the latest; with a second's pause behind each it would
# be after 0, 3, 6 and 9 at the earliest.
redis-cli -h "$host" -p "$port" -r 105 -i 0.1 INCR n >"$scratch/increments"
syncs=$(wc -c <"$FAULTS.syncs")
equal "$name: in ten seconds five of them or more" yes "$([ "$syncs" -ge 5 ] && echo yes || echo "$syncs")"
told 'Asynchronous AOF fsync is taking too long (disk is busy?)'
equal "$name: INFO" '[1-9]*' "$(info aof_delayed_fsync)"
cli CONFIG RESETSTAT >"$scratch/reset"
end n 105

begin 'shared fsync, always' --appendfsync always
fault fsync-slow 5
: >"$FAULTS.syncs"
redis-benchmark -h "$host" -p "$port" -t set -n 5000 -c 50 -q >"$scratch/benchmark"
syncs=$(wc -c <"$FAULTS.syncs")
echo "always: 5000 SETs of 50 clients took $syncs calls of fsync"
equal "$name: few calls" yes "$([ "$syncs" -lt 500 ] && echo yes || echo "$syncs calls")"
end

[ "$failed" -eq 0 ] || fail "$failed of $checks checks failed"
echo "faults: $checks checks; nothing acknowledged was lost, and nobody was told OK who should not be."
