#!/usr/bin/env bash
# What is this server, in two minutes of reading? A narrated run: a few commands, kill -9, a
# restart that finds everything, and at the end the log itself, which is plain text.
#
#     scripts/demo.sh
#
# It starts the release build (built first if need be) on a free port, in a temporary directory
# that is gone afterwards. It speaks through redis-cli where there is one; otherwise through bash's
# own /dev/tcp, and then replies are shown as they are on the wire. It ends with status 1 if
# anything that was acknowledged is missing after the kill.
set -euo pipefail
. "$(dirname "$0")/support.sh"
# A demonstration of this server, whatever else is running.
unset REDIS

# tell LINE...: what comes now, and why.
tell() {
    echo
    printf '# %s\n' "$@"
}

# run WORD...: shows a command and its reply, as at redis-cli.
run() {
    printf '> %s\n' "$*"
    reply "$@"
}

reply() {
    if command -v redis-cli >/dev/null; then
        redis-cli --no-raw -h "$host" -p "$port" "$@"
        return
    fi
    # QUIT makes the server close the connection, so that its end is the end of the reply; its own
    # reply, the last line, is cut off.
    local word
    exec 3<>"/dev/tcp/$host/$port"
    {
        printf '*%d\r\n' $#
        for word; do printf '$%d\r\n%s\r\n' "$(printf %s "$word" | wc -c)" "$word"; done
        printf 'QUIT\r\n'
    } >&3
    tr -d '\r' <&3 | sed '$d'
    exec 3>&-
}

# What the data are, to be compared before and after.
everything() {
    reply GET greeting
    reply HGETALL user:1
    reply GET visits
    reply DBSIZE
}

crash() {
    kill -9 "$server"
    wait "$server" 2>/dev/null || :
}

crash_and_restart() {
    crash
    start_server "$@"
}

# ---- part 1: acknowledged means kept -------------------------------------------------------------

tell 'A server in an empty directory, on a port that was free.'
start_server
cat "$scratch/log"

tell 'Strings, hashes, a key with ten minutes to live.'
run SET greeting 'hello, world'
run GET greeting
run HSET user:1 name Ada born 1815
run HGETALL user:1
run INCR visits
run INCRBY visits 41
run SET session abc EX 600
run RENAME session session:1

tell 'What is wrong is refused, and changes nothing.'
run INCR greeting
run HSET greeting field value

tell 'Now kill -9, which lets nobody finish anything, and a start on the same directory.'
before=$(everything)
crash_and_restart
cat "$scratch/log"

tell 'Each reply above was sent after its record was in the kernel. So everything is there.'
run GET greeting
run HGETALL user:1
run GET visits
run TTL session:1
after=$(everything)
[ "$before" = "$after" ] || fail "after the restart the data differ: $after"

# ---- part 2: the glass box -----------------------------------------------------------------------

# send BYTES: one write on a connection of its own, as a pipelining client makes it; the replies.
send() {
    exec 3<>"/dev/tcp/$host/$port"
    printf '%b' "$1" >&3
    tr -d '\r' <&3
    exec 3>&-
}

# traces TEXT: the lines of the log about commands since the last call, without date and pid.
traces() {
    tail -n +"$((seen + 1))" "$scratch/log" | sed -n 's/^[^.]*\.[0-9]* \. //p' | grep "$1" || :
    seen=$(wc -l <"$scratch/log")
}

tell 'The same server with --loglevel debug: each command leaves a line about its trace.'
crash_and_restart --loglevel debug
seen=$(wc -l <"$scratch/log")

tell 'A pipeline: four commands in one write are one batch. It takes the lock once, and goes from' \
    'reading to writing once; its records are written before the first reply leaves.'
send 'GET visits\r\nINCR visits\r\nINCR visits\r\nGET visits\r\nQUIT\r\n'
traces 'client'

tell 'Two clients race for one counter, a thousand times each. Whoever comes second waits for the' \
    'lock, and the log has the order in which it was taken: no increment is lost. Some lines:'
thousand=$(for _ in {1..1000}; do printf 'INCR race\\r\\n'; done)
send "${thousand}QUIT\r\n" >"$scratch/one" &
send "${thousand}QUIT\r\n" >"$scratch/two"
wait $!
traces 'INCR, step 1 of' >"$scratch/traces"
# Not `head`, which would leave `sort` with nobody to write to.
sort -t, -k3.9nr "$scratch/traces" | sed -n 1,4p
run GET race
[ "$(reply GET race | tr -dc 0-9)" = 2000 ] || fail "an increment was lost"

tell 'A power cut may leave half a record at the end of the log. Here we write one ourselves:'
crash
last=$(cd "$scratch/data/appendonlydir" && ls ./*.incr.aof | tail -n 1)
printf '*3\r\n$3\r\nSET\r\n$4\r\nhalf\r\n$100\r\nof a val' >>"$scratch/data/appendonlydir/$last"
tell 'Nobody was told OK for it. It is cut away, and kept beside the log for who wants to look.'
start_server
grep -v 'Ready to accept' "$scratch/log"
run EXISTS half
run GET race

# ---- the end: the log ----------------------------------------------------------------------------

tell 'This is how it was done. One file lists the files of the log:'
cd "$scratch/data/appendonlydir"
printf '$ cat appendonly.aof.manifest\n'
cat appendonly.aof.manifest
tell 'And the log is what clients send: an array of strings, each with its length before it.' \
    'EX 600 has become a moment, since in an hour 600 seconds would mean another one; what was' \
    'refused is not in it, nor is what was only read. Redis itself starts on this directory.'
printf '$ head -n 66 appendonly.aof.1.incr.aof\n'
head -n 66 appendonly.aof.1.incr.aof

printf '\ndemo.sh: after kill -9 all %s keys were there, from a log of %s bytes.\n' \
    "$(cd "$root" && reply DBSIZE | tr -dc 0-9)" "$(wc -c <appendonly.aof.1.incr.aof | tr -d ' ')"
