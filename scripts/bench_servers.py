# The servers that bench.py measures, side by side, and the load on them.
#
# redis-benchmark makes the load wherever it can, probe.rs does the rest, and Python only fills servers and
# tells others what to do. A server is filled over one connection, 64 commands at a time.

import csv
import functools
import itertools
import re
import shutil
import socket
import subprocess
import tempfile
import time
from contextlib import ExitStack, contextmanager

MILLION = 1_000_000


class settings:
    """What the command line says."""

    rounds, seconds, scale, scratch = 5, 1.0, 1, ""
    programs: dict[str, str] = {}


def scaled(count):
    return max(count // settings.scale, 100)


# ---- servers -------------------------------------------------------------------------------


class Server:
    """A server on a free port with a directory of its own, ready to answer."""

    running: list["Server"] = []

    def __init__(self, side, *options, data=None):
        self.side = side
        self.others = ExitStack()  # what ends with this server
        self.directory = tempfile.mkdtemp(dir=settings.scratch)
        if data:
            shutil.copytree(data, self.directory, dirs_exist_ok=True)
        with socket.create_server(("127.0.0.1", 0)) as free:
            self.port = free.getsockname()[1]
        arguments = ["--port", self.port, "--bind", "127.0.0.1", "--dir", self.directory, "--save", ""]
        arguments += ["--appendonly", "no", "--repl-diskless-sync-delay", "0", *options]
        if side == "pong":
            arguments = [self.port]
        with open(f"{settings.scratch}/{side}.log", "w") as log:
            command = [settings.programs[side], *map(str, arguments)]
            began = time.monotonic()
            self.process = subprocess.Popen(command, stdout=log, stderr=log)
        Server.running.append(self)
        while not self.answers():
            if self.process.poll() is not None or time.monotonic() - began > 60:
                raise RuntimeError(f"{side} did not start: {open(log.name).read()[-500:]}")
            time.sleep(0.002)
        self.start_took = time.monotonic() - began

    def answers(self):
        """Not while it refuses connections, nor while it says -LOADING."""
        try:
            return Connection(self.port).call("PING") == b"PONG"
        except (OSError, RuntimeError):
            return False

    def stop(self):
        """At once and with its data, which nobody wants any more."""
        self.others.close()
        self.process.kill()
        self.process.wait()
        shutil.rmtree(self.directory, ignore_errors=True)
        Server.running.remove(self)

    def call(self, *args):
        return Connection(self.port).call(*args)

    def fill(self, count, *args):
        """Sends a command `count` times; `__rand_int__` in it is the number of the command."""
        connection = Connection(self.port)
        for chunk, commands in pipeline(count, *args):
            connection.send(chunk, commands)

    def until(self, section, text):
        """Asks INFO until it has the text."""
        deadline = time.monotonic() + 60
        while text not in (info := self.call("INFO", section)):
            if time.monotonic() > deadline:
                raise RuntimeError(f"{self.side}: never {text} in {info}")
            time.sleep(0.005)

    def memory(self):
        """Resident bytes."""
        with open(f"/proc/{self.process.pid}/status") as status:
            return int(re.search(r"VmRSS:\s*(\d+)", status.read())[1]) * 1024


class Connection:
    def __init__(self, port):
        self.socket = socket.create_connection(("127.0.0.1", port), timeout=60)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.replies = self.socket.makefile("rb")

    def call(self, *args):
        self.socket.sendall(command(*args))
        return self.reply()

    def reply(self):
        line = self.replies.readline()
        kind, rest = line[:1], line[1:-2]
        if kind == b"*":
            return [self.reply() for _ in range(int(rest))]
        if kind == b"$":
            return None if rest == b"-1" else self.replies.read(int(rest) + 2)[:-2]
        if kind not in (b"+", b":"):
            raise RuntimeError(f"the server answered {line}")
        return rest

    def send(self, commands, lines):
        """What is answered with so many lines, none of them an error."""
        self.socket.sendall(commands)
        while lines > 0:
            received = self.socket.recv(MILLION)
            if not received or b"-" in received:
                raise RuntimeError(f"the server answered {received[:100]}")
            lines -= received.count(b"\n")


def command(*args):
    args = [arg if isinstance(arg, bytes) else str(arg).encode() for arg in args]
    return b"*%d\r\n" % len(args) + b"".join(b"$%d\r\n%b\r\n" % (len(arg), arg) for arg in args)


@functools.lru_cache(maxsize=8)
def pipeline(count, *args):
    """The bytes of 64 commands at a time, but of about a megabyte at most, and how many commands they are. They are
    kept, because to make them takes longer than to send them."""
    one = command(*args).replace(b"%", b"%%").replace(b"__rand_int__", b"%012d")
    numbers, depth = one.count(b"%012d"), min(max(MILLION // len(one), 1), 64)
    starts = range(0, count, depth)
    chunks = (range(start, min(start + depth, count)) for start in starts)
    return [(b"".join(one % ((i,) * numbers) for i in chunk), len(chunk)) for chunk in chunks]


# ---- load ----------------------------------------------------------------------------------


class Load:
    """redis-benchmark, for as many commands as the fastest side answers in `--seconds`, or as the slowest answers in
    three times that. Returns commands a second, and the 99th percentile in ms."""

    def __init__(self, *arguments, clients=50, pipeline=1, size=32, keys=100_000, first=None):
        self.arguments, self.clients, self.pipeline, self.size, self.keys = arguments, clients, pipeline, size, keys
        self.first = first or {1: 4000, 16: 40_000, 64: 80_000}[pipeline] // max(size // 2048, 1)
        self.most, self.rates = 100 * MILLION, []

    def calibrate(self, server):
        """A short run, which also warms the server up."""
        self.rates.append(self.run(server, max(self.first, 2 * self.clients))[0])

    def __call__(self, server):
        count = settings.seconds * min(max(self.rates), 3 * min(self.rates))
        return self.run(server, min(max(int(count), 2 * self.clients), self.most))

    def run(self, server, count):
        options = {"-p": server.port, "-c": self.clients, "-P": self.pipeline, "-n": count}
        options |= {"-d": self.size, "-r": self.keys}
        arguments = [*itertools.chain(*options.items()), "--csv", *self.arguments]
        *_, last = csv.reader(run("redis-benchmark", *arguments).splitlines())
        return float(last[1]), float(last[6])


def run(*arguments):
    """A program that ends by itself; an error reply ends redis-benchmark with an error, too."""
    words = [str(argument) for argument in arguments]
    done = subprocess.run(words, capture_output=True, text=True, timeout=180)
    if done.returncode:
        raise RuntimeError(f"{' '.join(words)}: {done.stderr.strip()[-200:]}")
    return done.stdout


def probe(*arguments):
    return [float(word) for word in run(f"{settings.scratch}/probe", *arguments).split()]


@contextmanager
def beside(*arguments):
    """A program that goes on until the block ends, and says first that it is ready."""
    words = [str(argument) for argument in arguments]
    program = subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
    try:
        program.stdout.read(1)
        yield
    finally:
        program.kill()
        program.wait()
        program.stdout.close()


def writing(server, keys):
    """One client that overwrites random keys, 16 at a time."""
    return beside("redis-benchmark", "-p", server.port, "-t", "set", "-c", 1, "-P", 16, "-r", keys,
                  "-d", 32, "-n", 10**9)  # fmt: skip


def longest_wait(server, work):
    """Does the work, and says in ms how long a client at most waited meanwhile that alternates SET and GET."""
    words = [f"{settings.scratch}/probe", "longest", str(server.port)]
    with subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as prober:
        prober.stdout.readline()
        try:
            work()
        finally:
            longest, _ = prober.communicate(timeout=60)
    return float(longest)
