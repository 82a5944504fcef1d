# What bench.sh measures of replicas and of snapshots. Sourced, never run.
#
# The replica is a redis-server in all rows, so what differs is the primary. A Redis waits for five seconds before it
# begins a synchronization, in case more replicas come (`repl-diskless-sync-delay`). Here it does not.

# start_replica: a redis-server without a log.
start_replica() {
    mkdir -p "$tmp/data/replica"
    port[replica]=$(probe free-port)
    "${server_cores[@]}" redis-server --port "${port[replica]}" --bind 127.0.0.1 --dir "$tmp/data/replica" \
        --save '' --appendonly no >"$tmp/replica.log" 2>&1 &
    pid[replica]=$!
    probe wait "${port[replica]}" "${pid[replica]}"
}

# primary SIDE: a server with a log, to which replicas may come.
primary() {
    start "$1" yes || return
    if [[ $1 == redis ]]; then cli redis CONFIG SET repl-diskless-sync-delay 0 >/dev/null; fi
}

# full_sync HEADING STRINGS OTHERS: two rows from one measurement, so it cannot use `alternate`.
full_sync() {
    local heading=$1 round side took waited
    local title="a full synchronization of $(count "$2") strings and $(count "$3") values of other types"
    local wait="the longest wait of a client that writes meanwhile"
    wanted "$heading: $title; $wait" || return 0
    for ((round = 1; round <= runs; round++)); do
        for side in ours redis; do
            if primary "$side" && probe strings "${port[$side]}" "$2" 32 &&
                probe types "${port[$side]}" "$3" && start_replica &&
                IFS=$'\t' read -r took waited < <(probe sync "${port[$side]}" "${port[replica]}"); then
                record "$heading" "$title" s "ratio<=1.2" "$side" "$round" "$took"
                record "$heading" "$wait" ms "ratio<=1.0" "$side" "$round" "$waited"
            else
                fail "$heading: $title ($side)"
            fi
            stop replica
            stop "$side"
        done
    done
}

# followed HEADING RATES N: the rate of N SETs with one replica, and how far that one is behind meanwhile.
followed() {
    local heading=$1 rates=$2 n=$3 round side rate p99 cpu median longest bytes
    local title="SET, 50 clients, pipeline 16" arguments=(-t set -c 50 -P 16 -r 100000 -d 32)
    wanted "$rates: $title; $heading" || return 0
    command_line "$rates" "$n" "${arguments[@]}"
    for ((round = 1; round <= runs; round++)); do
        for side in ours redis; do
            if followed_once; then
                record "$rates" "$title" /s "ratio>=1.0" "$side" "$round" "$rate" "$cpu"
                record "$heading" "$title, one replica: until a marker arrives, the longest" ms "ours<=100" "$side" "$round" "$longest"
                record "$heading" "$title, one replica: until a marker arrives, the median" ms "" "$side" "$round" "$median"
                record "$heading" "$title, one replica: how much it is behind, the most" B "" "$side" "$round" "$bytes"
            else
                fail "$rates: $title ($side)"
            fi
            stop replica
            stop "$side"
        done
    done
}

followed_once() {
    local watch
    primary "$side" && probe strings "${port[$side]}" 100000 32 && start_replica || return
    probe sync "${port[$side]}" "${port[replica]}" >/dev/null || return
    probe lag "${port[$side]}" "${port[replica]}" >"$tmp/lag" &
    watch=$!
    bench "$side" "$n" "${arguments[@]}" && cli "$side" SET lag:end 1 >/dev/null || { kill "$watch"; return 1; }
    wait "$watch" && IFS=$'\t' read -r median longest bytes <"$tmp/lag"
}

# Keys per second from the start of the process until it answers.
load_snapshot() { # SIDE COUNT
    local side=$1 began seconds
    if [[ ! -e $tmp/dump.rdb ]]; then
        start redis no && probe strings "${port[redis]}" "$2" 32 && cli redis SAVE >/dev/null || return
        mv "$tmp/data/redis/dump.rdb" "$tmp/dump.rdb"
        stop redis
    fi
    mkdir -p "$tmp/data/$side" && cp "$tmp/dump.rdb" "$tmp/data/$side" || return
    began=$EPOCHREALTIME
    start "$side" no || return
    seconds=$(calculate "$EPOCHREALTIME - $began")
    cpu=$(calculate "$(cpu_of "$side") / $2 * 1e6")
    value=$(calculate "$2 / $seconds")
    [[ $(cli "$side" DBSIZE) == "$2" ]]
}

# Keys per second of SAVE.
save() { # SIDE LOG COUNT
    local side=$1 began before
    start "$side" "$2" && probe strings "${port[$side]}" "$3" 32 || return
    before=$(cpu_of "$side") began=$EPOCHREALTIME
    [[ $(cli "$side" SAVE) == OK ]] || return
    value=$(calculate "$3 / ($EPOCHREALTIME - $began)")
    cpu=$(calculate "($(cpu_of "$side") - $before) / $3 * 1e6")
}

# replication MILLION: all rows; less than a million for a quick run.
replication() {
    local million=$1
    full_sync "Replication to a redis-server (less is better)" "$million" $((million / 10))
    followed "Replication to a redis-server (less is better)" \
        "Rates, everysec, values of 32 B, a redis-server follows" $((3 * million))
    alternate "Snapshots (more is better)" "loading a dump.rdb of $(count "$million") strings" /s "ratio>=1.0" \
        "ours redis" load_snapshot "$million"
    alternate "Snapshots (more is better)" "SAVE of $(count "$million") strings, no log" /s "ratio>=1.0" \
        "ours redis" save no "$million"
    alternate "Snapshots (more is better)" "SAVE of $(count "$million") strings, with a log" /s "" \
        "ours redis" save yes "$million"
}
