"""A real server with a journal, killed under load again and again: nothing acknowledged is lost."""

from __future__ import annotations

import contextlib
import random
import re
import sqlite3
import subprocess
import sys
import tempfile
import threading
import unittest
from collections.abc import Iterator
from pathlib import Path

from tests.support import Wire

ROOT = Path(__file__).resolve().parent.parent
ROUNDS = 5
WRITERS = 4


class Load:
    """Clients that write as fast as they are answered, and remember what they were promised.

    `_lock` guards the promises; `enough` is set once the round has seen so many of them.
    """

    def __init__(self, port: int, round_number: int, enough_at: int) -> None:
        self.last: dict[str, int] = {}  # client -> the last number that was acknowledged
        self.enough = threading.Event()
        self._enough_at = enough_at
        self._lock = threading.Lock()
        self._count = 0
        names = [f"{round_number}:{number}" for number in range(WRITERS)]
        self._threads = [threading.Thread(target=self._write, args=(port, name)) for name in names]
        for thread in self._threads:
            thread.start()

    def join(self) -> None:
        for thread in self._threads:
            thread.join(10)

    def _write(self, port: int, name: str) -> None:
        # A key of its own for each number, and two that must always agree.
        request = (
            "SET {name}:{number} {number}\r\n"
            "MULTI\r\nSET {name}:a {number}\r\nSET {name}:b {number}\r\nEXEC\r\n"
        )
        reply = b"+OK\r\n+OK\r\n+QUEUED\r\n+QUEUED\r\n*2\r\n+OK\r\n+OK\r\n"
        with contextlib.suppress(OSError), Wire(port) as wire:
            for number in range(1_000_000):
                sent = request.format(name=name, number=number).encode()
                if wire.ask(sent, len(reply)) != reply:
                    return
                with self._lock:
                    self.last[name] = number
                    self._count += 1
                    if self._count >= self._enough_at:
                        self.enough.set()


class CrashTest(unittest.TestCase):
    def setUp(self) -> None:
        self.data = Path(self.enterContext(tempfile.TemporaryDirectory())) / "x.sqlite"

    @contextlib.contextmanager
    def server(self) -> Iterator[tuple[subprocess.Popen[str], int]]:
        process = subprocess.Popen(
            [sys.executable, "-m", "kvdb", str(self.data), "--port", "0", "--fsync", "always"],
            cwd=ROOT, stderr=subprocess.PIPE, text=True,
        )  # fmt: skip
        assert process.stderr is not None
        greeting = ""
        try:
            for line in process.stderr:
                greeting += line
                if "main port" in line:
                    break
            listening = re.search(r"listening on \S+ port (\d+)", greeting)
            assert listening, greeting
            yield process, int(listening[1])
        finally:
            process.kill()
            process.communicate(timeout=10)

    def assert_kept(self, port: int, promised: dict[str, int]) -> None:
        """Everything that was acknowledged is there, and no transaction is there by half."""
        with Wire(port) as wire:
            for name, last in promised.items():
                keys = " ".join(f"{name}:{number}" for number in range(last + 1))
                values = b"".join(
                    b"$%d\r\n%d\r\n" % (len(str(number)), number) for number in range(last + 1)
                )
                expected = b"*%d\r\n%b" % (last + 1, values)
                self.assertEqual(wire.ask(f"MGET {keys}\r\n".encode(), len(expected)), expected)
                wire.socket.sendall(f"MGET {name}:a {name}:b\r\n".encode())
                reply = wire.read(4)
                while reply.count(b"\r\n") < 5:
                    reply += wire.read(1)
                _, _, first, _, second, _ = reply.split(b"\r\n")
                self.assertEqual(first, second)
                self.assertGreaterEqual(int(first), last)

    def test_what_was_acknowledged_is_there_after_a_kill(self) -> None:
        seed = random.randrange(1_000_000)
        dice = random.Random(seed)
        promised: dict[str, int] = {}
        with self.subTest(seed=seed):
            for round_number in range(ROUNDS):
                with self.server() as (process, port):
                    self.assert_kept(port, promised)
                    load = Load(port, round_number, enough_at=dice.randrange(1, 120))
                    self.assertTrue(load.enough.wait(10))
                    process.kill()
                    load.join()
                    promised |= load.last
            with self.server() as (_, port):
                self.assert_kept(port, promised)
            self.assertGreaterEqual(len(promised), ROUNDS)
            database = sqlite3.connect(self.data)
            self.addCleanup(database.close)
            self.assertEqual(database.execute("PRAGMA integrity_check").fetchall(), [("ok",)])
