"""What a program in Python does with Redis, once each, through redis-py with its defaults.

    python3 redis_py.py HOST PORT

`scripts/clients.sh` runs it with two versions of the library, which meet the server differently:
8 opens with HELLO 3 and speaks RESP3, 5 just starts in RESP2. Both turn `pipeline()` into
MULTI ... EXEC in one write, and both send a whole pipeline before they read its first reply.

Every answer is asserted; the one line at the end says what was seen. The server must be empty at
first and is emptied at the end.
"""

import asyncio
import sys
import threading
import time

import redis
import redis.asyncio

HOST, PORT = sys.argv[1], int(sys.argv[2])
COMMANDS = 200_000


def expect_error(text, call):
    """Runs `call`, which must fail with an error of the server that holds `text`."""
    try:
        call()
    except redis.ResponseError as error:
        assert text in str(error), error
    else:
        raise AssertionError(f"no error {text}")


def plain_commands(r):
    assert r.ping()
    assert r.set("greeting", "hello") is True
    assert r.get("greeting") == b"hello"
    assert r.get("nobody") is None
    assert r.set("greeting", "again", nx=True) is None
    assert r.set("greeting", "soon gone", ex=100) is True and 0 < r.ttl("greeting") <= 100
    assert r.persist("greeting") and r.ttl("greeting") == -1
    everything = bytes(range(256)) * 4096
    assert r.set(everything[:256], everything) and r.get(everything[:256]) == everything
    assert r.incr("n") == 1 and r.incrby("n", 41) == 42
    assert float(r.incrbyfloat("n", 0.5)) == 42.5
    assert r.mset({"a": 1, "b": 2}) and r.mget("a", "x", "b") == [b"1", None, b"2"]
    assert r.exists("a", "b", "x") == 2 and r.delete("a", "b", "x") == 2
    assert r.type("n") == b"string"
    expect_error("WRONGTYPE", lambda: r.hget("n", "field"))
    expect_error("unknown command", lambda: r.execute_command("NOSUCH", "command"))


def hashes(r):
    assert r.hset("hash", mapping={"a": 1, "b": "two"}) == 2
    assert r.hset("hash", "b", "zwei") == 0
    assert r.hgetall("hash") == {b"a": b"1", b"b": b"zwei"}
    assert r.hget("hash", "a") == b"1" and r.hmget("hash", "b", "x") == [b"zwei", None]
    assert r.hincrby("hash", "a", 9) == 10 and r.hlen("hash") == 2
    assert r.hdel("hash", "a", "x") == 1 and not r.hexists("hash", "a")


def pipelines(r):
    with r.pipeline() as pipe:
        pipe.set("p", 1).incr("p").hset("h", "f", "v").hgetall("h")
        assert pipe.execute() == [True, 2, 1, {b"f": b"v"}]
    with r.pipeline() as pipe:
        pipe.set("p", 1).hget("p", "f").incr("p")
        one, two, three = pipe.execute(raise_on_error=False)
        assert (one, three) == (True, 2) and isinstance(two, redis.ResponseError)


def big_pipelines(r):
    """All of it is sent before any of it is read, so the server must not wait for the reader."""
    value = "x" * 100
    for transaction in (False, True):
        with r.pipeline(transaction=transaction) as pipe:
            for n in range(COMMANDS // 2):
                pipe.set(f"big:{n:060}", value)
            assert pipe.execute() == [True] * (COMMANDS // 2)
            for n in range(COMMANDS):
                pipe.get(f"big:{n % (COMMANDS // 2):060}")
            assert pipe.execute() == [value.encode()] * COMMANDS


def transactions(r):
    """The counter is changed behind the first attempt's back, so there must be a second."""
    attempts = []

    def increment(pipe):
        attempts.append(int(pipe.get("watched") or 0))
        if len(attempts) == 1:
            r.set("watched", 10)
        pipe.multi()
        pipe.incr("watched")

    assert r.transaction(increment, "watched") == [11] and attempts == [0, 10]


def locks(r):
    """A lock is released and extended by scripts, which look whose it is."""
    with r.lock("lock", timeout=60) as lock:
        assert lock.locked() and lock.owned()
        other = r.lock("lock", timeout=60)
        assert not other.acquire(blocking=False)
        assert lock.extend(60) and 60 < r.ttl("lock") <= 120
        assert lock.extend(10, replace_ttl=True) and r.ttl("lock") <= 10
        assert lock.reacquire()
        other.local.token = b"somebody else's"
        try:
            other.release()
        except redis.exceptions.LockNotOwnedError:
            pass
        else:
            raise AssertionError("a lock was released by somebody else")
    assert not r.exists("lock")

    count = [0]

    def work():
        for _ in range(20):
            with r.lock("count", timeout=60, sleep=0.001):
                read = count[0]
                time.sleep(0.0002)
                count[0] = read + 1

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert count == [80]


def scripts(r):
    script = r.register_script("return {KEYS[1], ARGV[1], redis.call('INCRBY', KEYS[1], ARGV[1])}")
    assert script(keys=["scripted"], args=[5]) == [b"scripted", b"5", 5]
    with r.pipeline() as pipe:
        script(keys=["scripted"], args=[2], client=pipe)
        pipe.get("scripted")
        assert pipe.execute() == [[b"scripted", b"2", 7], b"7"]
    # The library must load it again.
    assert r.script_exists(script.sha) == [True] and r.script_flush()
    assert script(keys=["scripted"], args=[1]) == [b"scripted", b"1", 8]
    assert r.eval_ro("return {1, false, 'x', {ok = 'fine'}}", 0) == [1, None, b"x", b"fine"]
    expect_error("from read-only", lambda: r.eval_ro("return redis.call('SET', 'a', 1)", 0))


def publish_and_subscribe(r):
    with r.pubsub() as p:
        p.subscribe("news")
        p.psubscribe("new*")
        assert [p.get_message(timeout=10)["type"] for _ in range(2)] == ["subscribe", "psubscribe"]
        # From another thread, as a subscriber in an application waits while others publish.
        publisher = threading.Thread(target=lambda: [r.publish("news", n) for n in range(100)])
        publisher.start()
        for n in range(100):
            for kind in "message", "pmessage":
                message = p.get_message(timeout=10)
                assert (message["type"], message["data"]) == (kind, b"%d" % n), message
        publisher.join()
        assert r.pubsub_numsub("news") == [(b"news", 1)] and r.pubsub_numpat() == 1
        p.unsubscribe()
        p.punsubscribe()
        kinds = [p.get_message(timeout=10)["type"] for _ in range(2)]
        assert kinds == ["unsubscribe", "punsubscribe"]
        assert r.publish("news", "nobody listens") == 0


def scans(r):
    keys = {b"scan:%d" % n for n in range(1000)}
    r.mset({key: 1 for key in keys})
    assert set(r.scan_iter("scan:*")) == keys and set(r.keys("scan:*")) == keys
    assert set(r.scan_iter("scan:*", count=7, _type="string")) == keys
    r.hset("scanned", mapping={key: key for key in keys})
    assert dict(r.hscan_iter("scanned")) == {key: key for key in keys}


def questions(r):
    """What dashboards and health checks ask."""
    assert r.info()["redis_mode"] == "standalone"
    assert r.info("keyspace")["db0"]["keys"] == r.dbsize()
    assert "appendonly" in r.config_get("append*")
    assert r.client_setname("redis-py") and r.client_getname() in (b"redis-py", "redis-py")
    assert any(client["name"] == "redis-py" for client in r.client_list())
    assert r.time()[0] > 1_700_000_000
    assert r.command_count() > 50


async def asynchronous():
    """The same library without threads: many tasks, a pool of connections."""
    async with redis.asyncio.Redis(host=HOST, port=PORT) as r:
        await asyncio.gather(*(r.incr("tasks") for _ in range(50)))
        assert await r.get("tasks") == b"50"
        async with r.pubsub() as p:
            await p.subscribe("tasks")
            assert (await p.get_message(timeout=10))["type"] == "subscribe"
            assert await r.publish("tasks", "done") == 1
            assert (await p.get_message(timeout=10))["data"] == b"done"


def main():
    with redis.Redis(host=HOST, port=PORT) as r:
        assert r.dbsize() == 0, "the server is not empty, and this program empties it"
        checks = [plain_commands, hashes, pipelines, big_pipelines, transactions]
        checks += [locks, scripts, publish_and_subscribe, scans, questions]
        try:
            for check in checks:
                check(r)
            asyncio.run(asynchronous())
        finally:
            r.flushdb()
    print(f"redis-py {redis.__version__}: commands, hashes, pipelines of {COMMANDS:,},", end=" ")
    print("WATCH, locks, scripts, pub/sub, scans, asyncio")


main()
