"""Many clients at a time: one thread answers for them, and nobody notices."""

from __future__ import annotations

import contextlib
import threading
import time
import unittest
from collections.abc import Callable
from unittest import mock

from kvdb.fastlane import CROWD, LONGEST, is_of_use
from kvdb.protocols.main_port import MainPort
from kvdb.resp import encode_request
from kvdb.server import Server
from kvdb.service import Service
from tests.support import Wire, running_server

PING = encode_request([b"PING"])
GET = encode_request([b"GET", b"k"])
SET = encode_request([b"SET", b"k", b"v"])
VALUE = b"$1\r\nv\r\n"


@unittest.skipUnless(is_of_use(), "this system or interpreter has no use for a fast lane")
class FastLaneTest(unittest.TestCase):
    def setUp(self) -> None:
        stack = contextlib.ExitStack()
        self.addCleanup(stack.close)
        self.service: Service = stack.enter_context(running_server(memcached_port=0))
        door = self.service.server
        assert isinstance(door, Server)
        self.door = door
        port = self.service.server.port
        self.crowd = [stack.enter_context(Wire(port)) for _ in range(CROWD + 2)]
        for wire in self.crowd:
            self.assertEqual(wire.ask(PING, 7), b"+PONG\r\n")
        self.wire = self.crowd[0]
        self.assertEqual(self.wire.ask(SET, 5), b"+OK\r\n")

    def until(self, condition: Callable[[], object]) -> None:
        deadline = time.monotonic() + 5
        while not condition():
            self.assertLess(time.monotonic(), deadline, "it never came to that")
            time.sleep(0.005)

    def parked(self) -> int:
        assert self.door.lane is not None
        return len(self.door.lane._parked)

    def park_all(self) -> None:
        for wire in self.crowd:
            self.assertEqual(wire.ask(GET, len(VALUE)), VALUE)
        self.until(lambda: self.parked() == len(self.crowd))

    def test_quick_requests_of_a_crowd_are_answered_in_the_lane(self) -> None:
        self.park_all()
        for _ in range(20):
            for wire in self.crowd:
                self.assertEqual(wire.ask(GET, len(VALUE)), VALUE)
        self.assertEqual(self.parked(), len(self.crowd))

    def test_a_few_clients_are_answered_by_their_own_threads(self) -> None:
        for wire in self.crowd[CROWD:]:
            wire.socket.close()
        self.until(lambda: self.door.connection_count == CROWD)
        for wire in self.crowd[:CROWD]:
            self.assertEqual(wire.ask(GET, len(VALUE)), VALUE)
        self.until(lambda: not self.parked())

    def test_whatever_is_not_quick_is_answered_all_the_same(self) -> None:
        long = b"x" * 3 * LONGEST
        for request, reply in (
            (b"GET k\r\n", VALUE),
            (b'{"command": "GET", "args": {"key": "k"}}\n', b'{"status": "OK", "result": "v"}\n'),
            (encode_request([b"KEYS", b"*"]), b"*1\r\n$1\r\nk\r\n"),
            (encode_request([b"MULTI"]) + GET + encode_request([b"EXEC"]),
             b"+OK\r\n+QUEUED\r\n*1\r\n" + VALUE),
            (GET * 100, VALUE * 100),
            (encode_request([b"SET", b"long", long]), b"+OK\r\n"),
            (encode_request([b"GET", b"long"]), b"$%d\r\n%b\r\n" % (len(long), long)),
            (encode_request([b"DEL", b"long"]), b":1\r\n"),
            (encode_request([b"INCR", b"k"]), b"-ERR value is not an integer or out of range\r\n"),
            (encode_request([b"NOSUCH"]), b"-ERR unknown command 'NOSUCH', "
             b"with args beginning with: \r\n"),
        ):  # fmt: skip
            with self.subTest(request=request[:40]):
                self.park_all()
                self.assertEqual(self.wire.ask(request, len(reply)), reply)

    def test_a_request_may_come_in_pieces(self) -> None:
        self.park_all()
        for place in range(1, len(GET)):
            self.wire.socket.sendall(GET[:place])
            time.sleep(0.002)
            self.assertEqual(self.wire.ask(GET[place:], len(VALUE)), VALUE)

    def test_a_transaction_stays_with_its_client(self) -> None:
        self.park_all()
        self.assertEqual(self.wire.ask(encode_request([b"MULTI"]), 5), b"+OK\r\n")
        self.assertEqual(self.wire.ask(GET, 9), b"+QUEUED\r\n")
        self.assertEqual(self.crowd[1].ask(GET, len(VALUE)), VALUE)
        self.assertEqual(
            self.wire.ask(encode_request([b"EXEC"]), 4 + len(VALUE)), b"*1\r\n" + VALUE
        )

    def test_a_client_that_leaves_is_dismissed(self) -> None:
        self.park_all()
        for wire in self.crowd[1:]:
            wire.socket.close()
        self.until(lambda: len(self.service.instance.sessions()) == 1)
        self.assertEqual(self.wire.ask(GET, len(VALUE)), VALUE)

    def test_a_client_that_is_killed_is_ended(self) -> None:
        self.park_all()
        host, port = self.crowd[1].socket.getsockname()
        kill = encode_request([b"CLIENT", b"KILL", f"{host}:{port}".encode()])
        self.assertEqual(self.wire.ask(kill, 5), b"+OK\r\n")
        self.assertEqual(self.crowd[1].read_to_end(), b"")

    def test_a_client_that_does_not_read_keeps_nobody_waiting(self) -> None:
        self.service.store.set(b"big", bytes(10_000_000))
        self.park_all()
        self.crowd[1].socket.sendall(encode_request([b"GET", b"big"]))
        for wire in (self.wire, *self.crowd[2:]):
            self.assertEqual(wire.ask(GET, len(VALUE)), VALUE)
        whole = self.crowd[1].read(len(b"$10000000\r\n") + 10_000_002)
        self.assertEqual(len(whole), len(b"$10000000\r\n") + 10_000_002)
        self.assertEqual(self.crowd[1].ask(GET, len(VALUE)), VALUE)

    def test_an_internal_error_ends_its_own_connection_only(self) -> None:
        self.park_all()
        broken = mock.patch.object(MainPort, "answer_quickly", side_effect=RuntimeError("a bug"))
        with self.assertLogs("kvdb.server", "ERROR"), broken:
            self.crowd[1].socket.sendall(GET)
            self.assertEqual(self.crowd[1].read_to_end(), b"")
        self.assertEqual(self.wire.ask(GET, len(VALUE)), VALUE)

    def test_stopping_ends_parked_connections_at_once(self) -> None:
        self.park_all()
        started = time.monotonic()
        self.service.stop()
        self.assertLess(time.monotonic() - started, 2.0)
        self.assertEqual(self.wire.read_to_end(), b"")
        self.assertEqual(self.parked(), 0)

    def test_what_the_lane_does_is_counted(self) -> None:
        self.park_all()
        before = self.service.instance.counts()
        for wire in self.crowd:
            wire.ask(GET, len(VALUE))
        self.until(lambda: self.service.instance.counts()["sent"] > before["sent"])
        counts = self.service.instance.counts() - before
        self.assertEqual(counts["commands"], len(self.crowd))
        self.assertEqual(counts["received"], len(self.crowd) * len(GET))

    def test_a_large_reply_is_finished_by_the_clients_own_thread(self) -> None:
        self.service.store.set(b"big", bytes(300_000))
        mget = encode_request([b"MGET", *[b"big"] * 20])
        one = b"$300000\r\n%b\r\n" % bytes(300_000)
        for _ in range(2):
            self.park_all()
            for wire in self.crowd[:2]:
                expected = b"*20\r\n" + one * 20 + VALUE
                self.assertEqual(wire.ask(mget + GET, len(expected)), expected)
            for wire in self.crowd[:2]:
                self.assertEqual(
                    wire.ask(mget, len(expected) - len(VALUE)), expected[: -len(VALUE)]
                )
        accounts = self.service.instance.accounts
        self.until(lambda: accounts.held == 0)

    def test_while_the_disk_lags_behind_whoever_writes_goes_back_to_its_thread(self) -> None:
        self.park_all()
        lagging = mock.Mock(congested=True, waits=False)
        with mock.patch.object(self.service.instance, "persistence", lagging):
            for wire in self.crowd:
                self.assertEqual(wire.ask(SET, 5), b"+OK\r\n")
            self.until(lambda: not self.parked())
        self.park_all()

    def test_memcached_clients_have_a_lane_too(self) -> None:
        door = self.service.doors["memcached"]
        assert isinstance(door, Server)
        with contextlib.ExitStack() as stack:
            wires = [stack.enter_context(Wire(door.port)) for _ in range(CROWD + 2)]
            for wire in wires:
                self.assertEqual(wire.ask(b"version\r\n", 7), b"VERSION")
                wire.socket.recv(100)
            for wire in wires * 5:
                self.assertEqual(wire.ask(b"set a 5 0 1\r\nx\r\n", 8), b"STORED\r\n")
                self.assertEqual(wire.ask(b"get a\r\n", 20), b"VALUE a 5 1\r\nx\r\nEND\r\n"[:20])
                wire.socket.recv(100)
            self.assertIsNotNone(door.lane)
            self.until(lambda: door.lane and len(door.lane._parked) == len(wires))
            self.assertEqual(wires[0].ask(b"set a 5 0 1\r\n", 0), b"")
            self.assertEqual(
                wires[0].ask(b"y\r\nget a\r\n", 29), b"STORED\r\nVALUE a 5 1\r\ny\r\nEND\r\n"
            )

    def test_many_threads_of_clients_at_once_count_exactly(self) -> None:
        incr = encode_request([b"INCR", b"n"])

        def count(wire: Wire) -> None:
            for _ in range(200):
                wire.socket.sendall(incr)
                wire.socket.recv(100)

        threads = [threading.Thread(target=count, args=(wire,)) for wire in self.crowd]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        self.assertEqual(self.service.store.get(b"n"), b"%d" % (200 * len(self.crowd)))


if __name__ == "__main__":
    unittest.main()
