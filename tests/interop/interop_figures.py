"""The counters of INFO against those of Redis: the same scenes to both, the same changes."""

from __future__ import annotations

import shlex
import time
import unittest
from typing import Any

from kvdb.resp.replies import encode_request
from tests.interop.servers import Address, running_kvdb, running_redis
from tests.test_figures import PREPARE, SCENES, Scene


class _Client:
    """Sends a request, reads a reply; errors are replies."""

    def __init__(self, address: Address) -> None:
        self.address = address
        self._socket = address.connect()
        self._replies = self._socket.makefile("rb")

    def close(self) -> None:
        self._replies.close()
        self._socket.close()

    def ask(self, line: str) -> Any:
        words = [word.encode() for word in shlex.split(line)]
        self._socket.sendall(encode_request(words))
        return self._read()

    def _read(self) -> Any:
        line = self._replies.readline()
        kind, rest = line[:1], line[1:-2]
        if kind == b"$":
            return None if rest == b"-1" else self._replies.read(int(rest) + 2)[:-2]
        if kind == b"*":
            return None if rest == b"-1" else [self._read() for _ in range(int(rest))]
        assert kind in b"+-:", line
        return rest

    def figures(self) -> dict[str, str]:
        lines = [*self.ask("INFO").decode().split("\r\n")]
        return dict(line.split(":", 1) for line in lines if ":" in line)

    def changes(self, scene: Scene) -> tuple[int, int, int, dict[str, int]]:
        """Return how much a scene adds to commands, hits and misses, and to which errors."""
        for request in PREPARE:
            self.ask(request)
        self.ask("CONFIG RESETSTAT")
        before = self.figures()
        for request in scene.requests:
            self.ask(request)
        after = self.figures()
        names = "total_commands_processed", "keyspace_hits", "keyspace_misses"
        commands, hits, misses = (int(after[name]) - int(before[name]) for name in names)
        errors = {
            name.removeprefix("errorstat_"): int(text.removeprefix("count="))
            for name, text in after.items()
            if name.startswith("errorstat_")
        }
        assert sum(errors.values()) == int(after["total_error_replies"])
        return commands - 1, hits, misses, errors  # one of the two INFOs is among the commands


class Figures(unittest.TestCase):
    def setUp(self) -> None:
        self.ours = _Client(self.enterContext(running_kvdb()))
        self.theirs = _Client(self.enterContext(running_redis()))
        self.addCleanup(self.ours.close)
        self.addCleanup(self.theirs.close)

    def test_both_count_the_same(self) -> None:
        for scene in SCENES:
            with self.subTest(scene.requests):
                codes = scene.errors.split()
                errors = {code: codes.count(code) for code in codes}
                expected = scene.commands, scene.hits, scene.misses, errors
                self.assertEqual(self.ours.changes(scene), expected)
                hits, misses = scene.redis or (scene.hits, scene.misses)
                if "valkey_version" in self.theirs.figures() and "MULTI" in scene.requests[1:]:
                    continue  # there it aborts the transaction: see newer_servers.py
                self.assertEqual(self.theirs.changes(scene), (scene.commands, hits, misses, errors))

    def test_who_is_turned_away_is_not_received(self) -> None:
        for client in (self.ours, self.theirs):
            end = time.monotonic() + 10
            while client.figures()["connected_clients"] != "1" and time.monotonic() < end:
                time.sleep(0.01)  # whoever looked whether the server has started is still leaving
            client.ask("CONFIG SET maxclients 1")
            client.ask("CONFIG RESETSTAT")
            for _ in range(3):
                with client.address.connect() as turned_away:
                    self.assertTrue(turned_away.recv(100).startswith(b"-ERR max number"))
            figures = client.figures()
            found = figures["total_connections_received"], figures["rejected_connections"]
            self.assertEqual(found, ("0", "3"))


if __name__ == "__main__":
    unittest.main()
