"""Sits at a terminal with redis-cli: what `scripts/redis-cli.sh` cannot see through a pipe.

    python3 redis_cli.py HOST PORT

On a terminal redis-cli asks the server for COMMAND DOCS and shows arguments as one types, its
prompt knows the database and whether a transaction is open, and MONITOR, SUBSCRIBE and --stat go
on until Control-C. Each check waits for a text to appear, ten seconds at most.
"""

import fcntl
import os
import pty
import re
import select
import struct
import sys
import termios
import time

HOST, PORT = sys.argv[1:]
CONTROL_C, CONTROL_U, TAB, ENTER = "\x03", "\x15", "\t", "\r"


class Terminal:
    """redis-cli on a terminal 200 columns wide, so that no hint is cut short."""

    def __init__(self, *arguments):
        self.pid, self.fd = pty.fork()
        if self.pid == 0:
            # The width is set before redis-cli looks for it. No history file is written.
            fcntl.ioctl(0, termios.TIOCSWINSZ, struct.pack("HHHH", 50, 200, 0, 0))
            os.environ.update(TERM="xterm", REDISCLI_HISTFILE="/dev/null")
            os.execvp("redis-cli", ["redis-cli", "-h", HOST, "-p", PORT, *arguments])
        self.seen = ""

    def __enter__(self):
        return self

    def __exit__(self, *_):
        os.close(self.fd)  # The terminal hangs up, which ends redis-cli.
        os.waitpid(self.pid, 0)

    def type(self, keys):
        os.write(self.fd, keys.encode())

    def see(self, text):
        """Waits for `text` in what has appeared since the last text that was waited for."""
        deadline = time.monotonic() + 10
        while text not in self.seen:
            ready, _, _ = select.select([self.fd], [], [], max(0, deadline - time.monotonic()))
            if not ready:
                sys.exit(f"redis-cli never showed {text!r}, but {self.seen!r}")
            try:
                output = os.read(self.fd, 65536)
            except OSError:
                sys.exit(f"redis-cli ended before it showed {text!r}, after {self.seen!r}")
            # Without the escape sequences that colour hints and move the cursor.
            self.seen += re.sub(r"\x1b\[[0-9;]*[A-Za-z]", "", output.decode())
        self.seen = self.seen.partition(text)[2]


def interactive():
    prompt = f"{HOST}:{PORT}> "
    in_transaction = f"{HOST}:{PORT}(TX)> "
    with Terminal() as cli:

        def run(command, answer, then=prompt):
            cli.type(command + ENTER)
            cli.see(answer)
            cli.see(then)  # What is typed before the prompt is there would be lost.

        cli.see(prompt)
        cli.type("HGET ")
        cli.see("HGET key field")
        cli.type("h ")
        cli.see("HGET h field")
        cli.type(CONTROL_U + "hgeta" + TAB)
        cli.see("HGETALL")
        cli.type(CONTROL_U + "SET k ")
        cli.see("SET k value")
        run('"v 1"', "OK")
        run("GET k", '"v 1"')
        run("HELP HSET", "group: hash")
        run("MULTI", "OK", in_transaction)
        run("INCR n", "QUEUED", in_transaction)
        run("EXEC", "1) (integer) 1")
        run("MULTI", "OK", in_transaction)
        run("GET", "ERR wrong number of arguments for 'get' command", in_transaction)
        run("EXEC", "EXECABORT")

        run("HELLO 3", '"proto" => (integer) 3')
        prompt = f"{HOST}:{PORT}[2]> "
        in_transaction = f"{HOST}:{PORT}[2](TX)> "
        run("SELECT 2", "OK", prompt)
        run("MULTI", "OK", in_transaction)
        run("DISCARD", "OK", prompt)


def watching():
    for protocol in "-2", "-3":
        with Terminal(protocol) as cli, Terminal("MONITOR") as monitor:
            monitor.see("OK")
            with Terminal(protocol, "SUBSCRIBE", "news") as subscriber:
                subscriber.see('"subscribe"')
                cli.see("> ")
                cli.type("PUBLISH news hello" + ENTER)
                cli.see("(integer) 1")
                cli.see("> ")
                subscriber.see('"message"')
                subscriber.see('"hello"')
                monitor.see('"PUBLISH" "news" "hello"')
                subscriber.type(CONTROL_C)
            with Terminal(protocol, "PSUBSCRIBE", "new*") as subscriber:
                subscriber.see('"psubscribe"')
                cli.type("PUBLISH news again" + ENTER)
                cli.see("(integer) 1")
                cli.see("> ")
                subscriber.see('"pmessage"')
                subscriber.see('"again"')


def figures():
    with Terminal("--stat", "-i", "0.05") as stat:
        stat.see("keys       mem      clients blocked requests            connections")
        for _ in range(5):
            stat.see("(+")
    with Terminal("--latency") as latency:
        latency.see("min: ")
        latency.see("samples)")


interactive()
watching()
figures()
