#!/bin/sh
# Does this server answer as Redis does? Three runs say so, each against the program that ships:
#   1. the transcripts against our server;
#   2. the same transcripts against redis-server, which shows that they are true;
#      and the names of its options, all of which must be known here; and it follows ours as a replica;
#   3. the differential fuzz: random commands to both, replies compared byte for byte; 100,000 of
#      them, and 10,000 random scripts, to the release build, and a tenth of that (FUZZ_DEBUG_OPS,
#      10,000 commands) to the debug build, which has more
#      assertions. FUZZ_OPS and FUZZ_SEED (tests/differential/main.rs) change that.
# A transcript that shows a newer Redis than the one installed, or a deliberate difference, is
# listed as not run. Needs cargo and redis-server; REDIS_SERVER names another executable.
set -eu
cd "$(dirname "$0")/.."

REDIS_SERVER=${REDIS_SERVER:-redis-server}
for program in cargo "$REDIS_SERVER" redis-cli; do
    if ! command -v "$program" >/dev/null; then
        echo "conformance: $program is missing." >&2
        echo "  On Debian or Ubuntu: apt-get install cargo redis-server redis-tools" >&2
        echo "  Elsewhere: https://rustup.rs and https://redis.io/docs/latest/get-started" >&2
        exit 1
    fi
done
"$REDIS_SERVER" --version

echo "== transcripts against simple-redis"
env -u REDIS_SERVER -u REDIS -u SIMPLE_REDIS cargo test --quiet --test transcripts

echo "== transcripts against $REDIS_SERVER"
env -u REDIS REDIS_SERVER="$REDIS_SERVER" cargo test --quiet --test transcripts -- --nocapture
env -u REDIS REDIS_SERVER="$REDIS_SERVER" cargo test --quiet --test starting every_option
env -u REDIS REDIS_SERVER="$REDIS_SERVER" cargo test --quiet --test service a_redis_server
env -u REDIS REDIS_SERVER="$REDIS_SERVER" cargo test --quiet --test replication redis::

for profile in release dev; do
    operations=${FUZZ_OPS:-100000}
    [ $profile = release ] || operations=${FUZZ_DEBUG_OPS:-10000}
    echo "== $operations random commands, profile $profile"
    env -u OURS -u SIMPLE_REDIS REDIS_SERVER="$REDIS_SERVER" FUZZ_OPS="$operations" \
        cargo test --quiet --profile $profile --test differential -- --nocapture
done

echo "conformance: no difference in $(ls tests/transcripts/*/*.txt | wc -l) transcripts, apart from those listed as not run."
