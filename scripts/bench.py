# The rows of the benchmark, and how each of them is measured. bench.sh runs this file; bench-report reads the rows.
#
# A `Bench` starts the same server on every side (ours, Redis, Valkey, and for some +PONG), measures them in
# turn, and says one row or more. In each second round the order is turned round. A side that is slow for a
# moment spoils one round, so what counts is the ratio within a round, and the median over the rounds. What
# was measured is one line of JSON for each row, behind what the results file has already: a row that was
# measured at three hours of the machine has three lines, and bench-report tells the best and the worst.
# The servers and the load are in bench_servers.py.

import argparse
import functools
import hashlib
import itertools
import json
import os
import platform
import random
import re
import resource
import shutil
import signal
import statistics
import sys
import time
from typing import Callable, NamedTuple

from bench_servers import MILLION, Connection, Load, Server, beside, command, longest_wait, pipeline, probe, run, scaled
from bench_servers import settings, writing

PEERS = ("ours", "redis", "valkey")
FLOOR = (*PEERS, "pong")
MORE_IS_BETTER = ("/s", "%")
LOG = ("--appendonly", "yes", "--appendfsync", "everysec", "--auto-aof-rewrite-percentage", "0")
VALUE = "a value of thirty-two characters"
WAKES = "A thread is woken for each batch, and +PONG is hardly faster."
MIB = 1 << 20


class Row(NamedTuple):
    title: str
    target: str = ""  # ">= 1.1" or "<= 0.9", or nothing
    unit: str = "/s"
    value: int = 0  # which of the figures that the measurement returns
    against: str = "peers"  # the target is of the ratio to the better peer, to "pong", or of "ours" alone
    shown: str = ""  # on the "picture"; on the "front" page, too
    why: str = ""  # a sentence behind a target that is missed


class Bench(NamedTuple):
    rows: list[Row]
    measure: Callable  # of a server; returns a figure or several
    prepare: Callable = lambda server: None
    options: tuple = ()
    data: Callable = lambda: None  # the directory that the server finds at its start
    sides: tuple = PEERS
    fresh: bool = False  # a new server for each round
    once: bool = False  # one round is enough: what it says is the same each time


# ---- what is measured ----------------------------------------------------------------------


def rate(title, *arguments, target="", p99="", floor=(), shown="", why="", log=False, **load):
    """redis-benchmark's own load, on keys that are all there. `floor` are targets beside +PONG: rate and p99."""
    load = Load(*arguments, **load)
    rows = [Row(title, target, shown=shown, why=why)]
    if p99:
        rows.append(Row(f"{title}: p99", p99, "ms", 1, shown="picture"))
    for value, goal in enumerate(floor):
        what, unit = [("", "/s"), (": p99", "ms")][value]
        rows.append(Row(f"{title}{what}, beside +PONG", goal, unit, value, "pong", why=why))
    if log:
        load.most = 500 * MILLION // load.size  # no log of more than half a gigabyte

    def prepare(server):
        if server.side != "pong":
            server.fill(load.keys, "SET", "key:__rand_int__", "x" * load.size)

    return Bench(rows, load, prepare, LOG if log else (), sides=FLOOR if floor else PEERS, fresh=log)


def small(test, pipeline, target="", log=False, **more):
    title = f"{test.upper()}{', everysec' * log}, pipeline {pipeline}"
    return rate(title, "-t", test, pipeline=pipeline, target=target, log=log, **more)


def large(test, size, clients, pipeline=1, shown=""):
    kib, clients_said = size // 1024, {1: ", 1 client", 50: ""}.get(clients, f", {clients} clients")
    title = f"{test.upper()} of {f'{kib} KiB' if kib < 1024 else '1 MiB'}{clients_said}"
    title += f", pipeline {pipeline}" * (pipeline > 1)
    if size == MIB:
        why = "The kernel's copies and the generator take nearly all of the time."
    elif pipeline > 1:
        why = "Fifty threads and the generator share two cores."
    else:
        why = "For each command a thread is woken, as with 32 B."
    return rate(title, "-t", test, target=">= 1.0", shown=shown, why=why, clients=clients, pipeline=pipeline, size=size,
                keys=16 * MIB // size)  # fmt: skip


def publish(subscribers, pipeline, target, shown=""):
    def prepare(server):
        server.others.enter_context(beside(f"{settings.scratch}/probe", "listen", server.port, subscribers))

    title = f"PUBLISH to {subscribers} subscriber{'s' * (subscribers > 1)}, pipeline {pipeline}"
    load = Load("PUBLISH", "c", "x" * 100, pipeline=pipeline, first=20_000 * pipeline // (subscribers + 9))
    row = Row(title, target, shown=shown, why="Each publisher has a thread, which must be woken.")
    return Bench([row], load, prepare)


def fills(kind, count):
    """The commands that fill a server: `count` small values of a kind, or one large value of `count` elements."""
    five = ["one", "two", "three", "four", "five"]
    scores = itertools.chain(*enumerate(five))
    fields = ["name", "Ada L.", "age", 36, "city", "London", "visits", "__rand_int__", "plan", "free"]
    name = "key:__rand_int__"
    return {
        "strings": (count, "SET", name, VALUE),
        "strings of 16 KiB": (count, "SET", name, "x" * 16384),
        "lists of 5": (count, "RPUSH", name, *five),
        "sets of 5": (count, "SADD", name, *five),
        "sorted sets of 5": (count, "ZADD", name, *scores),
        "hashes of 5": (count, "HSET", name, *fields),
        "sets of 512 integers": (count, "SADD", name, *range(0, 7 * 512, 7)),
        "list": (count, "RPUSH", "large", "elem__rand_int__"),
        "set": (count, "SADD", "large", "member:__rand_int__"),
        "sorted set": (count, "ZADD", "large", "__rand_int__", "member:__rand_int__"),
        "hash": (count, "HSET", "large", "field:__rand_int__", VALUE),
    }[kind]


def memory(kind, count, title, shown="", why=""):
    def measure(server):
        before = server.memory()
        server.fill(*fills(kind, scaled(count)))
        time.sleep(0.2)  # what was grown out of is freed beside
        return (server.memory() - before) / scaled(count)

    return Bench([Row(title, "<= 0.9", "B", shown=shown, why=why)], measure, fresh=True, once=True)


def churn(server):
    """Resident bytes a key after overwrites of changing sizes by fifty clients, and bytes left by FLUSHALL."""
    keys, before = scaled(MILLION), server.memory()
    server.fill(*fills("strings", keys))
    for size in (10, 60, 26):
        Load("-t", "set", pipeline=16, keys=keys, size=size).run(server, keys)
    after = server.memory()
    server.call("FLUSHALL")
    time.sleep(2)
    return (after - before) / keys, server.memory() - before


def mixture(server):
    """A million small strings, and a hundred thousand values of the other types."""
    for kind in ("strings", "lists of 5", "sets of 5", "sorted sets of 5", "hashes of 5"):
        count, name, key, *rest = fills(kind, scaled(MILLION if kind == "strings" else MILLION // 40))
        server.fill(count, name, kind[:3] + key, *rest)


def pause(title, work, prepare=lambda server: None, log=False, **row):
    measure = lambda server: longest_wait(server, lambda: work(server))
    return Bench([Row(title, "<= 1.0", "ms", **row)], measure, prepare, LOG if log else (), fresh=True)


def fill(kind, count):
    return lambda server: server.fill(*fills(kind, scaled(count)))


def expire_together(server):
    """The longest wait while a million keys expire at one moment."""
    keys, began = scaled(MILLION), time.time()
    server.fill(*fills("strings", keys))
    deadline = time.time() + 2 * (time.time() - began) + 0.5
    server.fill(keys, "PEXPIREAT", "key:__rand_int__", int(deadline * 1000))
    if time.time() > deadline:
        raise RuntimeError("the first keys expired before the last one had its deadline")
    time.sleep(deadline - time.time() - 0.1)
    # Only the probing client's key is left.
    return longest_wait(server, lambda: server.until("keyspace", b"db0:keys=1,"))


def settled(*args):
    """A command, and what it leaves to be done beside."""

    def work(server):
        time.sleep(0.3)
        server.call(*args)
        time.sleep(0.3)

    return work


def saves(name, *running):
    """BGREWRITEAOF or BGSAVE, until INFO says that nothing of it runs or waits to run."""

    def work(server):
        with writing(server, scaled(MILLION)):
            server.call(name)
            for text in running:
                server.until("persistence", text)

    return work


def transaction(server):
    connection, count = Connection(server.port), scaled(100_000)
    connection.send(command("MULTI"), 1)
    for chunk, commands in pipeline(*fills("strings", count)):
        connection.send(chunk, commands)
    connection.send(command("EXEC"), count + 1)


def attach_replica(server):
    """Ours is followed by a Redis, and each peer by its like."""
    replica = server.replica = Server("redis" if server.side == "ours" else server.side)
    server.others.callback(replica.stop)
    replica.call("REPLICAOF", "127.0.0.1", server.port)
    replica.until("replication", b"master_link_status:up")


def full_sync(server):
    """Seconds, and the longest wait of a client meanwhile."""
    mixture(server)
    seconds = 0

    def work():
        nonlocal seconds
        began = time.monotonic()
        attach_replica(server)
        seconds = time.monotonic() - began

    longest = longest_wait(server, work)
    return seconds, longest


SETS_OF_LOG = 1_600_000


@functools.cache
def log_directory():
    """A log of which four commands of five are SETs, the fifth an HSET: every side loads the very same bytes."""
    top = f"{settings.scratch}/log"
    os.makedirs(f"{top}/appendonlydir")
    with open(f"{top}/appendonlydir/appendonly.aof.manifest", "w") as manifest:
        manifest.write("file appendonly.aof.1.incr.aof seq 1 type i\n")
    with open(f"{top}/appendonlydir/appendonly.aof.1.incr.aof", "wb") as log:
        log.write(command("SELECT", 0))
        for i, (sets, _) in enumerate(pipeline(*fills("strings", scaled(SETS_OF_LOG)))):
            log.write(sets + b"".join(command("HSET", f"hash:{i:011}", f"field:{j}", "value") for j in range(16)))
    return top


@functools.cache
def dump_directory():
    top = f"{settings.scratch}/dump"
    server = Server("redis")
    mixture(server)
    server.call("SAVE")
    shutil.copytree(server.directory, top)
    server.stop()
    return top


def start(server):
    """Commands of the log a second, from the start of the process until it answers."""
    sets = scaled(SETS_OF_LOG)
    if int(server.call("DBSIZE")) != sets + sets // 64:
        raise RuntimeError(f"{server.side} has left something out")
    return (sets + sets // 4) / server.start_took


def load_and_save(server):
    """Keys a second from the start until it answers, and of SAVE."""
    keys, began = int(server.call("DBSIZE")), time.monotonic()
    server.call("SAVE")
    return keys / server.start_took, keys / (time.monotonic() - began)


def idle(server):
    """Resident bytes for each of the connections that once asked something."""
    before, count = server.memory(), scaled(9000)
    connections = [Connection(server.port) for _ in range(count)]
    for connection in connections:
        connection.call("PING")
    return (server.memory() - before) / count


def handover(pipeline):
    """Elements a second from one producer to fifty that wait in BLPOP, and from push to pop the 99th percentile."""

    def measure(server):
        if server.side == "pong":
            return Load("PING").run(server, int(50_000 * settings.seconds))
        return probe("handover", server.port, 50, int(settings.seconds * 10_000 * pipeline**0.5), pipeline)

    title = f"BLPOP: 50 wait, one pushes, pipeline {pipeline}"
    return Bench([
        Row(title, shown="picture"),
        Row(f"{title}: p99", unit="ms", value=1),
        Row(f"{title}, beside +PONG", ">= 0.9", against="pong",
            why="An answer takes four calls, in Redis one, and then a thread must be woken."),
    ], measure, sides=FLOOR)  # fmt: skip


def script(title, source, *args, target=">= 1.0", pipeline=16, shown=""):
    """EVALSHA by fifty clients."""
    name = hashlib.sha1(source.encode()).hexdigest()
    load = Load("EVALSHA", name, 1, *args, pipeline=pipeline, keys=1000)
    row = Row(f"EVALSHA of {title}, pipeline {pipeline}", target, shown=shown)
    return Bench([row], load, lambda server: server.call("SCRIPT", "LOAD", source))


def took(title, *command, times=1, prepare=lambda server: None, target="<= 1.0", shown=""):
    """Seconds of a command that takes long."""

    def measure(server):
        began = time.monotonic()
        for _ in range(times):
            server.call(*command)
        return time.monotonic() - began

    return Bench([Row(title, target, "s", shown=shown)], measure, prepare)


BUCKET = """
local t = redis.call('HMGET', KEYS[1], 'tokens', 'at')
local capacity, rate, now, want = tonumber(ARGV[1]), tonumber(ARGV[2]), tonumber(ARGV[3]), tonumber(ARGV[4])
local tokens, at = tonumber(t[1]) or capacity, tonumber(t[2]) or now
tokens = math.min(capacity, tokens + math.max(0, now - at) * rate)
local ok = tokens >= want
if ok then tokens = tokens - want end
redis.call('HSET', KEYS[1], 'tokens', tokens, 'at', now)
redis.call('EXPIRE', KEYS[1], math.ceil(capacity / rate) * 2)
return {ok and 1 or 0, tostring(tokens)}"""
FIB = """
local function fib(n) if n < 2 then return n end return fib(n - 1) + fib(n - 2) end
return fib(27)"""
JSON = """
local t = {}
for i = 1, 1500 do t[i] = {id = i, name = 'item ' .. i, tags = {'a', 'b'}, price = i / 3, ok = true} end
local n = 0
for i = 1, 30 do local s = cjson.encode(t) n = n + #s + #cjson.decode(s) end
return n"""


def two_sets(server):
    """A hundred thousand integers each, half of them in both."""
    for name, first in ("a", 0), ("b", 50_000):
        for some in range(first, first + 100_000, 1000):
            server.call("SADD", name, *range(some, some + 1000))


def lag(server):
    """The longest of twenty times in ms from a write's answer until the replica has it, under load."""
    primary, replica, longest = Connection(server.port), Connection(server.replica.port), 0
    with beside("redis-benchmark", "-p", server.port, "-t", "set", "-P", 16, "-r", 100_000, "-d", 32, "-n", 10**9):
        for i in range(20):
            time.sleep(0.05 * settings.seconds)
            primary.call("SET", "lag", i)
            began = time.monotonic()
            while replica.call("GET", "lag") != b"%d" % i:
                time.sleep(0.0005)
            longest = max(longest, time.monotonic() - began)
    return 1000 * longest


def limit(size, policy):
    return "--maxmemory", size, "--maxmemory-policy", policy


def full(server):
    """Until the limit is reached, and a little more."""
    Load("-t", "set", pipeline=64, keys=100 * MILLION).run(server, scaled(1_200_000))


def hits(server):
    """The share in percent of GETs that find their key; whoever does not find it sets it. A key's popularity is
    one over its rank (Zipf), and the memory is enough for about a fifth of the keys."""
    ranks, connection, found = range(1, 200_001), Connection(server.port), 0
    popularity = list(itertools.accumulate(1 / rank for rank in ranks))
    asked = random.Random(1).choices(ranks, cum_weights=popularity, k=scaled(400_000))
    for first in range(0, len(asked), 64):
        some = asked[first : first + 64]
        connection.socket.sendall(b"".join(command("GET", f"key:{rank:012}") for rank in some))
        missing = [rank for rank in some if connection.reply() is None]
        connection.send(b"".join(command("SET", f"key:{rank:012}", VALUE) for rank in missing), len(missing))
        if 2 * first >= len(asked):
            found += len(some) - len(missing)
    return 100 * found / (len(asked) / 2)


# ---- the rows ------------------------------------------------------------------------------

GROUPS = {
    "Commands a second, values of 32 B, no log": [
        rate("GET, 1 client", "-t", "get", clients=1, target=">= 1.0", shown="front"),
        small("get", 1, shown="front", floor=(">= 0.97", "<= 1.1")),
        small("get", 16, ">= 1.1", shown="picture", floor=("",), why=WAKES),
        small("get", 64, ">= 1.6", shown="front", floor=(">= 0.85",),
              why="A GET parses, looks up and copies; +PONG looks for ends of lines."),
        small("set", 1, shown="picture", floor=(">= 0.97", "<= 1.1")),
        small("set", 16, ">= 1.15", shown="picture", why=WAKES),
        small("set", 64, ">= 2.0", shown="picture"),
        small("hset", 1),
        small("hset", 16, ">= 1.2", shown="picture", why=WAKES),
        small("hset", 64, ">= 1.7"),
        small("incr", 1),
        small("incr", 16, ">= 1.2", why=WAKES),
        small("incr", 64, ">= 1.7", shown="picture"),
        rate("MSET of 10, pipeline 1", "-t", "mset", target=">= 1.0", shown="picture",
             why="A thread is woken for each, as for a GET."),
    ],
    "Commands a second, values of 32 B, everysec": [
        small("set", 1, log=True, shown="picture"),
        small("set", 16, ">= 1.3", p99="<= 0.7", log=True, shown="front"),
        small("set", 64, ">= 2.5", p99="<= 0.7", log=True, shown="front"),
    ],
    "Commands a second, large values, no log": [
        *[large("get", 16384, clients, shown="picture" * (clients == 4)) for clients in (1, 4, 50)],
        large("get", 16384, 50, pipeline=16, shown="picture"),
        *[large("set", 16384, clients) for clients in (1, 4, 50)],
        large("set", 16384, 50, pipeline=16, shown="picture"),
        *[large("get", MIB, clients, shown="picture" * (clients == 4)) for clients in (1, 4, 50)],
        *[large("set", MIB, clients, shown="picture" * (clients == 4)) for clients in (1, 4, 50)],
    ],
    "Messages published a second": [
        publish(1, 1, ">= 0.6"),
        publish(1, 16, ">= 0.9"),
        publish(10, 1, ">= 0.6", shown="picture"),
        publish(10, 16, ">= 0.9", shown="picture"),
        publish(100, 1, ">= 0.6"),
        publish(100, 16, ">= 0.9"),
    ],
    "Other types, waiting, scripts": [
        small("rpush", 16, ">= 1.3", why=WAKES),
        small("rpush", 64, ">= 1.5", shown="picture",
              why="All push to one key, which stays in the caches, so Redis pushes twice as fast as it sets."),
        small("zadd", 64, ">= 1.5", shown="picture",
              why="One writer at a time searches the order twice, by comparisons that nobody can guess."),
        Bench([Row("LRANGE of 100, pipeline 16", ">= 1.0", shown="picture")],
              Load("LRANGE", "large", 0, 99, pipeline=16), fill("list", 100_000)),
        Bench([Row("ZRANGEBYSCORE of 10 among 1 M, 1 client, pipeline 16", ">= 1.0")],
              Load("ZRANGEBYSCORE", "large", "__rand_int__", "+inf", "LIMIT", 0, 10, clients=1, pipeline=16,
                   keys=MILLION), fill("sorted set", MILLION)),
        took("SINTERSTORE of two sets of 100 k, 10 times", "SINTERSTORE", "c", "a", "b", times=10, prepare=two_sets),
        handover(1),
        handover(16),
        script("INCR", "return redis.call('INCR', KEYS[1])", "key", shown="picture"),
        script("a token bucket", BUCKET, "key:__rand_int__", 10, 1, 1_700_000_000, 1, shown="picture"),
        took("Lua: fib(27), 5 times", "EVAL", FIB, 0, times=5, target="<= 2.0"),
        took("Lua: cjson of 100 kB, there and back, 30 times", "EVAL", JSON, 0, target="<= 2.0"),
    ],
    "Memory, each": [
        memory("strings", MILLION, "1 M strings of 32 B", shown="front"),
        memory("strings of 16 KiB", 10_000, "10 k strings of 16 KiB",
               why="Key and value are 16,400 bytes; Valkey has 81 beside."),
        memory("lists of 5", 500_000, "500 k lists of 5", shown="picture"),
        memory("sets of 5", 500_000, "500 k sets of 5", shown="picture"),
        memory("sorted sets of 5", 500_000, "500 k sorted sets of 5", shown="picture"),
        memory("hashes of 5", 500_000, "500 k hashes of 5", shown="picture"),
        memory("sets of 512 integers", 2000, "2 k sets of 512 integers",
               why="Their pieces take 1.1 KiB; the rest is memory that the arguments of the pipeline have left free."),
        memory("list", MILLION, "an element of a list of 1 M",
               why="An element is 16 bytes, and two lengths of a byte each; so it is in Redis and Valkey."),
        memory("set", MILLION, "an element of a set of 1 M", shown="picture"),
        memory("sorted set", MILLION, "an element of a sorted set of 1 M", shown="picture"),
        memory("hash", MILLION, "a field of a hash of 1 M", shown="picture"),
        Bench([Row("1 M strings after 3 M changes of size", "<= 0.9", "B", shown="picture"),
               Row("FLUSHALL behind that leaves in all", "<= 2.0", "B", 1)], churn, fresh=True, once=True),
        Bench([Row("9,000 idle clients", "<= 13312", "B", against="ours", shown="picture")], idle, fresh=True,
              once=True),
    ],
    "The longest wait of one client beside": [
        pause("another that writes 3 M new keys", fill("strings", 3 * MILLION), shown="picture"),
        pause("a sorted set that grows to 1 M", fill("sorted set", MILLION)),
        Bench([Row("1 M keys that expire together", "<= 1.0", "ms", shown="picture")], expire_together, fresh=True),
        pause("a rewrite of 1 M keys under writes",
              saves("BGREWRITEAOF", b"aof_rewrite_scheduled:0", b"aof_rewrite_in_progress:0"),
              fill("strings", MILLION), log=True, shown="front"),
        pause("a snapshot of 1 M keys under writes", saves("BGSAVE", b"rdb_bgsave_in_progress:0"),
              fill("strings", MILLION), log=True, shown="picture"),
        pause("a snapshot of 1 M keys under writes, no log", saves("BGSAVE", b"rdb_bgsave_in_progress:0"),
              fill("strings", MILLION)),
        pause("FLUSHALL of 1 M keys", settled("FLUSHALL"), fill("strings", MILLION), shown="picture"),
        pause("DEL of a hash of 1 M fields", settled("DEL", "large"), fill("hash", MILLION), shown="picture"),
        pause("a transaction of 100 k SETs", transaction, shown="picture"),
    ],
    "Starting, saving, replicas": [
        Bench([Row("Commands of a log replayed a second", ">= 2.0", shown="front")], start, data=log_directory,
              options=LOG, fresh=True),
        Bench([Row("Keys of a dump.rdb loaded a second", ">= 1.0", shown="picture"),
               Row("Keys saved by SAVE a second", ">= 1.0", value=1, shown="picture")], load_and_save,
              data=dump_directory, fresh=True),
        Bench([Row("Full sync of 1.1 M keys", "<= 1.2", "s", shown="picture"),
               Row("Full sync: longest wait of a client", "<= 1.0", "ms", 1,
                   shown="picture")], full_sync, options=LOG, fresh=True),
        Bench([Row("SET, everysec, pipeline 16, one replica", ">= 1.0", shown="picture")],
              Load("-t", "set", pipeline=16), attach_replica, LOG),
        Bench([Row("The longest lag of that replica", "<= 100", "ms", against="ours")], lag,
              attach_replica, LOG),
    ],
    "A cache at its limit (100 MB, for hits 5 MB)": [
        Bench([Row("SET of new keys, pipeline 16", ">= 1.0", shown="picture"),
               Row("SET of new keys, pipeline 16: p99", "<= 1.0", "ms", 1,
                   shown="picture")],
              Load("-t", "set", pipeline=16, keys=100 * MILLION), full, limit("100mb", "allkeys-lru")),
        Bench([Row("Hits, LRU, Zipf", ">= 1.0", "%", shown="picture")], hits,
              options=limit("5mb", "allkeys-lru"), fresh=True, once=True),
        Bench([Row("Hits, LFU, Zipf", ">= 1.0", "%")], hits, options=limit("5mb", "allkeys-lfu"),
              fresh=True, once=True),
    ],
    "Connections": [
        Bench([Row("9,500 connects at once", "<= 1.5", "ms", shown="picture",
                   why="std lets 128 clients wait for accept, Redis 511; the others try again a second later.")],
              lambda server: probe("connect", server.port, scaled(9500))[0], fresh=True),
    ],
}  # fmt: skip


# ---- running them --------------------------------------------------------------------------


def measure(bench):
    """The figures by side: for each round what the measurement returned."""
    sides = [side for side in bench.sides if side in settings.programs]
    servers, figures = {}, {side: [] for side in sides}

    def server(side):
        if side not in servers:
            servers[side] = Server(side, *bench.options, data=bench.data())
            bench.prepare(servers[side])
        return servers[side]

    def end(side):
        if bench.fresh:
            servers.pop(side).stop()

    if isinstance(bench.measure, Load):
        for side in sides:
            bench.measure.calibrate(server(side))
            end(side)
    for round in range(1 if bench.once else settings.rounds):
        for side in sides if round % 2 == 0 else reversed(sides):
            found = bench.measure(server(side))
            figures[side].append(found if isinstance(found, (tuple, list)) else (found,))
            end(side)
    for one in servers.values():
        one.stop()
    return figures


def record(results, **what):
    results.write(json.dumps(what) + "\n")
    results.flush()


def machine():
    with open("/proc/cpuinfo") as info:
        model = re.search(r"^model name\s*: (.*)$", info.read(), re.MULTILINE)
    return f"{len(os.sched_getaffinity(0))} cores, {model[1] if model else platform.machine()}"


def version(side):
    said = run(settings.programs[side], "--version")
    return re.search(r"\d+\.\d+\.\d+", said)[0]


def main():
    options = argparse.ArgumentParser(prog="scripts/bench.sh")
    options.add_argument("--rounds", type=int, default=5)
    options.add_argument("--seconds", type=float, default=1.0, help="of load for each row, side and round")
    options.add_argument("--only", default=".", help="only rows whose 'group: title' has this regular expression")
    options.add_argument("--quick", action="store_true", help="does it run? One short round, and no figure is kept")
    options.add_argument("--list", action="store_true", help="the rows, and nothing is measured")
    options.add_argument("--results", default="scripts/bench-results.jsonl")
    said = options.parse_args()
    settings.rounds, settings.seconds, settings.scratch = said.rounds, said.seconds, os.environ.get("SCRATCH", "")
    if said.quick:
        settings.rounds, settings.seconds, settings.scale = 1, 0.05, 20
        said.results = os.devnull
    wanted = []
    for group, benches in GROUPS.items():
        for bench in benches:
            titles = [f"{group}: {row.title}" for row in bench.rows]
            if any(re.search(said.only, title) for title in titles):
                wanted.append((titles, bench))
    if said.list:
        print(*(title for titles, _ in wanted for title in titles), sep="\n")
        return
    names = {"ours": "OURS", "redis": "REDIS", "valkey": "VALKEY", "pong": "PONG"}
    settings.programs = {side: os.environ[name] for side, name in names.items() if os.environ.get(name)}
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(most, 20_000), most))
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))

    now, began, failed = time.strftime("%Y-%m-%d %H:%M"), time.monotonic(), []
    with open(said.results, "a") as results:
        versions = {side: version(side) for side in settings.programs if side != "pong"}
        versions["ours"] += os.environ.get("COMMIT", "")
        record(results, run=now, machine=machine(), rounds=settings.rounds, seconds=settings.seconds, **versions)
        for titles, bench in wanted:
            try:
                figures = measure(bench)
            except Exception as error:
                failed.append(f"{titles[0]}: {error!r}")
                print(f"FAILED {failed[-1]}", file=sys.stderr)
                continue
            finally:
                while Server.running:
                    Server.running[0].stop()
            for title, row in zip(titles, bench.rows):
                sides = ("ours", "pong") if row.against == "pong" else PEERS
                shown = {side: [float(f"{found[row.value]:.5g}") for found in figures[side]]
                         for side in sides if side in figures}  # fmt: skip
                record(results, run=now, row=row.title, **shown)
                medians = "  ".join(f"{side} {statistics.median(found):,.5g}" for side, found in shown.items())
                print(f"{time.monotonic() - began:5.0f} s  {title}: {medians}", file=sys.stderr)
    done = f"{len(wanted) - len(failed)} of {len(wanted)} measurements in {time.monotonic() - began:.0f} s"
    print(f"bench: {done}", *failed, sep="\nFAILED ")
    sys.exit(bool(failed))


if __name__ == "__main__":
    main()
