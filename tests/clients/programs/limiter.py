"""What a website does against those who ask too often, through limits with its defaults.

    python3 limiter.py HOST PORT

limits is what Flask-Limiter and slowapi use. It counts by scripts, which it loads when it connects.

Every answer is asserted. The server must be empty at first and is emptied at the end.
"""

import sys
import threading
from importlib.metadata import version

import limits
import redis

HOST, PORT = sys.argv[1], int(sys.argv[2])
RULE = limits.parse("10/hour")
STRATEGIES = [
    limits.strategies.FixedWindowRateLimiter,
    limits.strategies.MovingWindowRateLimiter,
    limits.strategies.SlidingWindowCounterRateLimiter,
]


def main():
    storage = limits.storage.storage_from_string(f"redis://{HOST}:{PORT}")
    with redis.Redis(host=HOST, port=PORT) as r:
        assert r.dbsize() == 0, "the server is not empty, and this program empties it"
        try:
            for strategy in STRATEGIES:
                check(strategy(storage))
                assert r.keys() and all(r.ttl(key) > 0 for key in r.keys())
                assert storage.reset() > 0 and r.dbsize() == 0
        finally:
            r.flushdb()
    print(f"limits {version('limits')}: fixed, moving and sliding windows, from 4 threads at once")


def check(limiter):
    assert [limiter.hit(RULE, "one") for _ in range(12)] == [True] * 10 + [False] * 2
    assert not limiter.test(RULE, "one") and limiter.test(RULE, "another")
    assert limiter.get_window_stats(RULE, "one").remaining == 0
    limiter.clear(RULE, "one")
    assert limiter.hit(RULE, "one")

    # However many ask at once, ten are let in.
    allowed = []
    ask = lambda: allowed.extend(limiter.hit(RULE, "all") for _ in range(5))
    threads = [threading.Thread(target=ask) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert allowed.count(True) == 10, allowed


main()
