"""The event loop and its connections: order, patience, ends, and that nobody holds up another."""

from __future__ import annotations

import _thread
import contextlib
import logging
import re
import socket
import struct
import threading
import unittest
from collections.abc import Callable, Iterator
from pathlib import Path
from tempfile import TemporaryDirectory
from unittest import mock

from kvdb.commands.instance import Instance
from kvdb.commands.session import Session
from kvdb.config import Config
from kvdb.output_limits import Limit, OutputLimits
from kvdb.persistence.journal import Journal
from kvdb.resp.replies import encode_request
from kvdb.server.connection import Connection
from kvdb.server.loop import READ, EventLoop
from kvdb.server.transport import PlainTransport
from kvdb.service import Service
from kvdb.store import Store
from tests.journal_case import Disk, Gate
from tests.support import ManualClock, Wire, running_server, until

LARGE = 1_000_000
"""Bytes that no socket here takes at once."""


class Pair(Wire):
    """A client whose socket is one end of a pair; the pair takes little at once."""

    def __init__(self) -> None:
        self.socket, self.server_end = socket.socketpair()
        for end in (self.socket, self.server_end):
            end.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)
        self.socket.settimeout(10)
        self.server_end.setblocking(False)


class Waiting:
    """Replies that wait until the test says that they are decided."""

    def __init__(self, dialect: Lines, reply: bytes) -> None:
        self._dialect, self._reply = dialect, reply
        self.is_decided = False

    def settle(self) -> bytes:
        self._dialect.undecided = None
        return self._reply


class Lines:
    """A dialect that answers each line with itself; `on` says what else a line leads to.

    What `on` has for a line is called with us and returns the reply: bytes, or several pieces
    that are sent one after another.
    """

    def __init__(self, session: Session) -> None:
        self.session = session
        self.closing = self.more = self.takes_long = False
        self.idle = True
        self.undecided: Waiting | None = None
        self.on: dict[bytes, Callable[[Lines], bytes | Iterator[bytes]]] = {}
        self.slow: set[bytes] = set()  # lines that take long
        self.calls: list[bytes] = []
        self.threads: list[threading.Thread] = []  # that have called
        self.ends = 0
        self._lines: list[bytes] = []
        self._pieces: Iterator[bytes] | None = None

    held_bytes = 0

    def receive(self, data: bytes) -> bytes:
        assert self.undecided is None
        assert not self.ends
        self.calls.append(data)
        self.threads.append(threading.current_thread())
        self._lines += data.splitlines(keepends=True)
        self.idle = self.more = self.takes_long = False
        replies = b""
        while (self._pieces or self._lines) and not self.undecided:
            if self._pieces:
                piece = next(self._pieces, None)
                if piece is not None:
                    replies += piece
                    self.more, self.takes_long = True, self.session.at_leisure
                    return replies
                self._pieces = None
                continue
            if self._lines[0].strip() in self.slow and not self.session.at_leisure:
                self.more = self.takes_long = True
                return replies
            line = self._lines.pop(0)
            reply = self.on.get(line.strip(), lambda _, line=line: line)(self)
            if isinstance(reply, bytes):
                replies += reply
            else:
                self._pieces = reply
            if self.session.penalty:
                break
        self.more, self.takes_long = bool(self._lines), False
        self.idle = not (self.more or self.undecided)
        return replies

    def end(self) -> None:
        self.ends += 1


def refused(penalty: float) -> Callable[[Lines], bytes]:
    """Return what `on` has for a wrong password: an answer that is held back for so long."""

    def refuse(dialect: Lines) -> bytes:
        dialect.session.penalty = penalty
        return b"no\n"

    return refuse


class LoopCase(unittest.TestCase):
    """An event loop with a clock that the test moves, and clients that speak `Lines`."""

    def setUp(self) -> None:
        self.enterContext(self.assertNoLogs("kvdb", logging.ERROR))
        self.clock = ManualClock()
        self.instance = Instance(Store(0), Config(), monotonic=self.clock)
        self.loop = EventLoop(self.clock)
        self.loop.start()
        self.addCleanup(self.loop.stop)
        self.ended: list[Connection] = []
        self._pushing = threading.Lock()

    def connect(self) -> tuple[Pair, Connection, Lines]:
        wire = self.enterContext(Pair())
        session = Session(self.instance, "somebody")
        dialect = Lines(session)
        connection = Connection(
            wire.server_end,
            PlainTransport(wire.server_end),
            self.loop,
            session,
            dialect,  # type: ignore[arg-type]
            self._pushing,
            self.ended.append,
        )
        session.close, session.push = connection.end, connection.push
        self.instance.admit(session)
        self.loop.call(connection.enter)
        return wire, connection, dialect

    def turn(self, loop: EventLoop | None = None) -> None:
        """Wait until the loop has done all that was asked of it, and served who was ready."""
        for _ in range(2):
            done = threading.Event()
            (loop or self.loop).call(done.set)
            self.assertTrue(done.wait(10), "the loop is held up")

    def assert_served(self) -> None:
        """Others are served meanwhile."""
        wire, connection, _ = self.connect()
        self.assertEqual(wire.ask(b"hello\n", 6), b"hello\n")
        wire.socket.close()
        until(lambda: connection in self.ended)
        self.ended.remove(connection)

    def gate(self) -> Gate:
        gate = Gate()
        self.addCleanup(gate.opened.set)
        return gate


class OutgoingTest(LoopCase):
    def test_whatever_is_sent_while_something_waits_comes_after_it(self) -> None:
        wire, connection, _ = self.connect()
        first, second = b"first" * 200_000, b"second"
        self.turn()
        connection._out.transmit(first)
        self.assertTrue(connection._out.has_unsent)
        connection._out.transmit(second)
        received = b""
        while len(received) < len(first + second):
            received += wire.socket.recv(1_000_000)
            connection._out.flush()
        self.assertEqual(received, first + second)
        self.assertEqual((connection._out.size, connection._out.has_unsent), (0, False))


class PushTest(LoopCase):
    def test_messages_of_many_threads_arrive_whole_and_in_their_order_between_replies(self) -> None:
        wire, connection, _ = self.connect()

        def push(name: str) -> None:
            for number in range(200):
                connection.push(f"push {name} {number}\n".encode())

        threads = [threading.Thread(target=push, args=(name,)) for name in "abcd"]
        for thread in threads:
            thread.start()
        asked = [f"reply x {number}\n".encode() for number in range(200)]
        expected = {name: [str(number) for number in range(200)] for name in "abcdx"}
        received = b""
        for line in asked:
            wire.socket.sendall(line)
            received += wire.socket.recv(4096)
        while received.count(b"\n") < 1000:
            received += wire.socket.recv(4096)
        for thread in threads:
            thread.join()
        seen: dict[str, list[str]] = {name: [] for name in "abcdx"}
        for line in received.decode().splitlines():
            kind, name, number = line.split(" ")
            self.assertEqual(kind, "reply" if name == "x" else "push")
            seen[name].append(number)
        self.assertEqual(seen, expected)

    def test_what_waits_for_a_client_that_does_not_read_keeps_its_order(self) -> None:
        wire, connection, _ = self.connect()
        messages = [b"%d:" % number + b"x" * 50_000 + b"\n" for number in range(60)]
        for message in messages:
            connection.push(message)
            self.turn()  # so that each is a piece of its own in the queue
        self.assertGreater(connection._out.size, 1_000_000)
        self.assertEqual(wire.read(sum(map(len, messages))), b"".join(messages))

    def test_none_gets_into_the_middle_of_a_reply_that_is_sent_in_pieces(self) -> None:
        for slow in (False, True):
            wire, connection, dialect = self.connect()

            def pieces(push: Callable[[bytes], None] = connection.push) -> Iterator[bytes]:
                for number in range(5):
                    push(b"(%d)" % number)
                    yield b"%d" % number

            dialect.on[b"pieces"] = lambda _, pieces=pieces: pieces()
            dialect.slow = {b"pieces"} if slow else set()
            with self.subTest(slow=slow):
                wire.socket.sendall(b"pieces\nnext\n")
                received = wire.read(25)
                self.assertIn(b"01234next\n", received)
                self.assertEqual(received.replace(b"01234next\n", b""), b"(0)(1)(2)(3)(4)")
                self.turn()
                self.assertEqual(connection._out.size, 0)

    def test_none_overtakes_a_reply_that_waits_for_the_disk(self) -> None:
        wire, connection, dialect = self.connect()

        def wait(dialect: Lines) -> bytes:
            dialect.undecided = Waiting(dialect, b"kept\n")
            return b""

        dialect.on[b"wait"] = wait
        wire.socket.sendall(b"wait\n")
        until(lambda: dialect.undecided is not None)
        connection.push(b"message\n")
        self.turn()
        assert dialect.undecided is not None
        dialect.undecided.is_decided = True
        self.assertEqual(wire.read(13), b"kept\nmessage\n")

    def test_none_overtakes_a_reply_that_is_held_back(self) -> None:
        wire, connection, dialect = self.connect()

        dialect.on[b"guess"] = refused(1.0)
        wire.socket.sendall(b"guess\n")
        until(lambda: connection._held_back is not None)
        connection.push(b"message\n")
        self.turn()
        self.clock.now += 1
        self.assertEqual(wire.read(11), b"no\nmessage\n")

    def test_who_does_not_read_is_ended_at_the_bound_and_costs_no_more(self) -> None:
        self.limit(2 * LARGE, LARGE)
        for state in ("idle", "in the middle of a reply"):
            wire, connection, dialect = self.connect()
            dialect.on[b"endless"] = lambda _: iter([b"x" * 1000] * 10_000)
            if state != "idle":
                wire.socket.sendall(b"endless\n")
                until(lambda connection=connection: bool(connection._out._queue))  # type: ignore[misc]
            with (
                self.subTest(state),
                self.assertLogs("kvdb.server.connection", logging.WARNING) as logged,
            ):
                most = 0
                for _ in range(100):
                    connection.push(b"y" * 100_000)
                    self.turn()
                    most = max(most, connection._out.size)
                    if connection in self.ended:
                        break
                self.assertLess(most, 2 * LARGE + 200_000)
                self.assertEqual(self.ended.count(connection), 1)
                self.assertEqual(len(logged.output), 1)
                self.assertRegex(logged.output[0], "somebody.*does not read")
                self.assert_served()
                connection.push(b"too late")
                self.turn()
                self.assertEqual((connection._out._queue, connection._out._pushed), (None, None))

    def limit(self, hard: int, soft: int) -> None:
        """Set client-output-buffer-limit pubsub; 60 seconds for the soft one."""
        limits = OutputLimits(pubsub=Limit(hard, soft, 60))
        self.instance.config.output_limits = limits

    def fill(self, connection: Connection, size: int) -> None:
        connection.push(b"x" * size)
        self.turn()

    def test_less_may_wait_for_a_minute(self) -> None:
        self.limit(0, LARGE)
        _, connection, _ = self.connect()
        self.fill(connection, 1_100_000)
        self.clock.now += 60 - 1
        self.fill(connection, 1)
        self.assertEqual(self.ended, [])
        self.clock.now += 2
        with self.assertLogs("kvdb.server.connection", logging.WARNING):
            self.fill(connection, 1)
        self.assertEqual(self.ended, [connection])

    def test_who_reads_in_between_has_another_minute(self) -> None:
        self.limit(0, LARGE)
        wire, connection, _ = self.connect()
        self.fill(connection, 1_100_000)
        self.assertEqual(len(wire.read(500_000)), 500_000)
        until(lambda: connection._out.size < 700_000)
        self.fill(connection, 1)
        self.assertTrue(connection._out._queue, "some of it waits all the time")
        self.clock.now += 60 + 1
        self.fill(connection, 900_000)
        self.assertEqual(self.ended, [])

    def test_what_waits_for_who_does_not_read_is_on_its_account(self) -> None:
        wire, connection, _ = self.connect()
        self.fill(connection, LARGE)
        accounts = self.instance.accounts
        self.assertGreater(accounts.held, 900_000)
        self.assertEqual(accounts.held, connection._out.size)
        wire.read(LARGE)
        until(lambda: accounts.held == 0)

    def test_nothing_is_pushed_to_who_has_ended(self) -> None:
        wire, connection, _ = self.connect()
        wire.socket.close()
        until(lambda: connection in self.ended)
        connection.push(b"x")
        self.turn()


class BackpressureTest(LoopCase):
    def test_who_does_not_read_its_replies_is_not_read_from_until_it_does(self) -> None:
        wire, connection, dialect = self.connect()
        dialect.on[b"large"] = lambda _: b"x" * LARGE
        wire.socket.sendall(b"large\n")
        until(lambda: bool(connection._out._queue))
        wire.socket.sendall(b"next\n")
        self.assert_served()
        self.turn()
        self.assertEqual(dialect.calls, [b"large\n"])
        self.assertFalse(connection._events & READ)
        self.assertEqual(wire.read(LARGE + 5), b"x" * LARGE + b"next\n")
        self.assertEqual(connection.session.sent, LARGE + 5)

    def test_others_are_served_between_the_pieces_of_a_large_reply(self) -> None:
        self.enterContext(mock.patch("kvdb.server.loop._TICK", 60))  # nothing waits for that
        wire, _, dialect = self.connect()
        other, _, other_dialect = self.connect()
        order: list[str] = []

        def pieces() -> Iterator[bytes]:
            for number in range(5):
                if number == 2:
                    other.socket.sendall(b"hello\n")
                order.append(str(number))
                yield b"%d" % number

        def hello(_: Lines) -> bytes:
            order.append("hello")
            return b"hi\n"

        dialect.on[b"pieces"] = lambda _: pieces()
        other_dialect.on[b"hello"] = hello
        self.assertEqual(wire.ask(b"pieces\n", 5), b"01234")
        self.assertEqual(other.read(3), b"hi\n")
        self.assertEqual(order, ["0", "1", "2", "hello", "3", "4"])
        self.assertEqual(wire.ask(b"x\n", 2), b"x\n", "it goes on afterwards")
        self.assertFalse(self.loop._in_a_hurry, "or the loop would never rest again")

    def test_who_does_not_read_a_piece_is_not_sent_the_next(self) -> None:
        for slow in (False, True):
            wire, connection, dialect = self.connect()
            dialect.on[b"pieces"] = lambda _: iter([b"x" * LARGE] * 3)
            dialect.slow = {b"pieces"} if slow else set()
            with self.subTest(slow=slow):
                wire.socket.sendall(b"pieces\n")
                until(lambda connection=connection: bool(connection._out._queue))  # type: ignore[misc]
                calls = len(dialect.calls)
                self.assert_served()
                self.assertEqual(len(dialect.calls), calls)
                self.assertLess(connection._out.size, LARGE)
                self.assertEqual(len(wire.read(3 * LARGE)), 3 * LARGE)
                self.assertEqual(wire.ask(b"x\n", 2), b"x\n")

    def test_large_pipelines_are_answered_whole_at_every_dialect(self) -> None:
        with running_server(memcached_port=0, haus_port=0) as service:
            service.store.set(b"k", b"x" * 1000)
            for name, request in (
                ("main", b"GET k\r\n"),
                ("main", encode_request([b"GET", b"k"])),
                ("main", b'{"command": "GET", "args": {"key": "k"}}\n'),
                ("memcached", b"get k\r\n"),
                ("haus", b"GET k\n"),
            ):
                with self.subTest(request), Wire(service.listeners[name].port) as wire:
                    wire.socket.sendall(request)
                    reply = wire.socket.recv(4096)
                    wire.socket.sendall(request * 2500)
                    expected = reply * 2500
                    self.assertTrue(wire.read(len(expected)) == expected)


class HeldBackTest(LoopCase):
    """Where passwords are guessed. The clock stands still: nothing is due before it is moved."""

    def guess(self, waits_for_disk: bool) -> tuple[Pair, Lines]:
        wire, _, dialect = self.connect()

        def guess(dialect: Lines) -> bytes:
            dialect.session.penalty = 1.0
            if waits_for_disk:
                dialect.undecided = Waiting(dialect, b"no\n")
                return b""
            return b"no\n"

        dialect.on[b"guess"] = guess
        wire.socket.sendall(b"guess\n")
        until(lambda: bool(dialect.calls))
        return wire, dialect

    def assert_due_in_a_second(self, wire: Pair, dialect: Lines) -> None:
        wire.socket.sendall(b"next\n")
        for pause in (0.0, 0.75):
            self.clock.now += pause
            self.assert_served()
            wire.socket.setblocking(False)
            self.assertRaises(BlockingIOError, wire.socket.recv, 1)
        self.assertEqual(dialect.calls, [b"guess\n"], "nothing more is asked of it")
        wire.socket.settimeout(10)
        self.clock.now += 0.25
        self.assertEqual(wire.read(8), b"no\nnext\n")

    def test_only_that_client_waits_and_what_it_sends_next_waits_too(self) -> None:
        self.assert_due_in_a_second(*self.guess(waits_for_disk=False))

    def test_a_reply_that_had_to_wait_for_the_disk_waits_afterwards(self) -> None:
        wire, dialect = self.guess(waits_for_disk=True)
        self.assert_served()
        self.clock.now += 10
        assert dialect.undecided is not None
        dialect.undecided.is_decided = True
        until(lambda: dialect.undecided is None)
        self.assert_due_in_a_second(wire, dialect)


class HalfCloseTest(LoopCase):
    """Who sends requests and no more gets all answers, then the end."""

    def assert_answered(self, wire: Pair, connection: Connection, expected: bytes) -> None:
        self.assertEqual(wire.read_to_end(), expected)
        until(lambda: connection in self.ended)
        self.assertEqual(self.ended.count(connection), 1)

    def send(self, wire: Wire, data: bytes) -> None:
        wire.socket.sendall(data)
        wire.socket.shutdown(socket.SHUT_WR)

    def test_whatever_the_answers_are(self) -> None:
        gate = self.gate()
        gate.opened.set()

        def slow(_: Lines) -> bytes:
            gate()
            return b"slow\n"

        def wait(dialect: Lines) -> bytes:
            waiting = dialect.undecided = Waiting(dialect, b"wait\n")
            self.loop.call(lambda: setattr(waiting, "is_decided", True))
            return b""

        def guess(dialect: Lines) -> bytes:
            dialect.session.penalty = 0.001
            self.clock.now += 1
            return b"guess\n"

        pieces = [b"x" * LARGE, b"y" * LARGE]
        for request, answer in (
            (b"a\nb\n", b"a\nb\n"),
            (b"pieces\nb\n", b"".join(pieces) + b"b\n"),
            (b"slow\nb\n", b"slow\nb\n"),
            (b"a\nslow\n", b"a\nslow\n"),
            (b"slow\npieces\nslow\n", b"slow\n" + b"".join(pieces) + b"slow\n"),
            (b"wait\n", b"wait\n"),
            (b"guess\nb\n", b"guess\nb\n"),
        ):
            with self.subTest(request):
                wire, connection, dialect = self.connect()
                dialect.on = {
                    b"pieces": lambda _: iter(pieces),
                    b"slow": slow,
                    b"wait": wait,
                    b"guess": guess,
                }
                dialect.slow = {b"slow"}
                self.send(wire, request)
                if b"guess" in request:
                    until(lambda dialect=dialect: bool(dialect.calls))  # type: ignore[misc]
                    self.clock.now += 1
                self.assert_answered(wire, connection, answer)

    def test_replies_of_a_real_disk_arrive_before_the_end(self) -> None:
        with (
            TemporaryDirectory() as folder,
            on_disk(folder) as (service, gate),
            Wire(service.server.port) as wire,
        ):
            self.send(wire, b"SET k v\r\nGET k\r\nKEYS *\r\n")
            self.assertTrue(gate.reached.wait(10))
            gate.opened.set()
            self.assertEqual(wire.read_to_end(), b"+OK\r\n$1\r\nv\r\n*1\r\n$1\r\nk\r\n")


class LongRequestTest(LoopCase):
    def slow(self, reply: bytes = b"done\n") -> tuple[Pair, Connection, Lines, Gate]:
        """Return a client for whom a thread is at work until the gate is opened."""
        wire, connection, dialect = self.connect()
        gate = self.gate()

        def work(_: Lines) -> bytes:
            gate()
            return reply

        dialect.on[b"work"] = work
        dialect.slow = {b"work"}
        wire.socket.sendall(b"a\nwork\nb\n")
        self.assertTrue(gate.reached.wait(10))
        return wire, connection, dialect, gate

    def test_others_are_served_meanwhile_and_its_requests_keep_their_order(self) -> None:
        wire, connection, dialect, gate = self.slow()
        self.assertEqual(wire.read(2), b"a\n", "what came before is sent at once")
        wire.socket.sendall(b"c\n")
        dialect.more = True
        self.loop.call(lambda: self.loop.watch(connection))
        self.assert_served()
        self.assertEqual(len(dialect.calls), 2, "nothing else is asked of the dialect")
        gate.opened.set()
        self.assertEqual(wire.read(9), b"done\nb\nc\n")
        self.assertIsNot(dialect.threads[1], self.loop.thread)
        self.assertIs(dialect.threads[-1], self.loop.thread)
        self.assertFalse(dialect.session.at_leisure)

    def test_messages_come_after_its_reply_as_long_as_a_thread_is_at_work(self) -> None:
        wire, connection, _, gate = self.slow()
        connection.push(b"message\n")
        self.turn()
        gate.opened.set()
        self.assertEqual(wire.read(17), b"a\ndone\nb\nmessage\n")

    def test_who_is_gone_meanwhile_is_cleaned_up_once_and_afterwards(self) -> None:
        for reply in (b"done\n", b"x" * LARGE):
            for end in ("leaves", "is ended", "is ended twice", "is finished"):
                wire, connection, dialect, gate = self.slow(reply)
                with self.subTest(end, reply=len(reply)):
                    wire.read(2)
                    if end == "leaves":
                        wire.socket.close()
                    elif end == "is finished":
                        connection.finish()
                    else:
                        for _ in range(1 + (end == "is ended twice")):
                            connection.end()
                    self.turn()
                    self.assertEqual((dialect.ends, self.ended), (0, []))
                    gate.opened.set()
                    if end == "is finished":
                        self.assertEqual(wire.read_to_end(), reply + b"b\n")
                    until(lambda: bool(self.ended))
                    self.turn()
                    self.assertEqual((dialect.ends, self.ended), (1, [connection]))
                    self.assertEqual(self.instance.sessions(), [])
                    self.ended.clear()

    def test_where_no_thread_can_be_started_it_is_answered_all_the_same(self) -> None:
        for trouble in (RuntimeError("can't start new thread"), MemoryError()):
            wire, _, dialect = self.connect()
            dialect.slow = {b"work"}
            with (
                self.subTest(trouble),
                mock.patch.object(_thread, "start_new_thread", side_effect=trouble),
            ):
                self.assertEqual(wire.ask(b"a\nwork\nb\n", 9), b"a\nwork\nb\n")
                self.assertEqual(set(dialect.threads), {self.loop.thread})

    def test_a_bug_on_the_thread_ends_that_connection_only(self) -> None:
        wire, connection, dialect = self.connect()
        dialect.slow = {b"work"}
        dialect.on[b"work"] = lambda _: 1 // 0  # type: ignore[return-value, arg-type]
        with self.assertLogs("kvdb.server", logging.ERROR) as logged:
            wire.socket.sendall(b"work\n")
            self.assertEqual(wire.read_to_end(), b"")
        self.assertIn("somebody", logged.output[0])
        self.assertEqual(len(logged.output), 1)
        until(lambda: self.ended == [connection])
        self.assertEqual(dialect.ends, 1)
        self.assert_served()

    def test_a_reply_that_is_to_be_held_back_is_held_back(self) -> None:
        wire, _, dialect = self.connect()

        def work(dialect: Lines) -> bytes:
            dialect.session.penalty = 1.0
            return b"no\n"

        dialect.on[b"work"] = work
        dialect.slow = {b"work"}
        wire.socket.sendall(b"work\n")
        until(lambda: len(dialect.threads) == 2)
        self.assert_served()
        wire.socket.setblocking(False)
        self.assertRaises(BlockingIOError, wire.socket.recv, 1)
        wire.socket.settimeout(10)
        self.clock.now += 1
        self.assertEqual(wire.read(3), b"no\n")


class WhatTakesLongTest(unittest.TestCase):
    """Which requests leave the loop: those that others would notice."""

    def test_only_these_requests_take_a_thread(self) -> None:
        keys = [b"%d" % number for number in range(1000)]
        exec_many = b"MULTI\r\n" + b"SET a b\r\n" * 300 + b"EXEC\r\n"
        few = encode_request([b"MGET", *keys[:20]])
        with running_server(memcached_port=0, haus_port=0) as service:
            for port, request, threads in (
                ("main", b"KEYS *\r\n", 1),
                ("main", encode_request([b"MGET", *keys]), 1),
                ("main", encode_request([b"DEL", *keys]), 1),
                ("main", b"INFO\r\n", 1),
                ("main", b"DBSIZE\r\nFLUSHALL\r\n", 1),
                ("main", b"SCAN 0\r\n", 1),  # it has to make the index first
                ("main", b"SCAN 0\r\n", 0),
                ("main", b"SCAN 0 COUNT 100000\r\n", 1),
                ("main", exec_many, 1),
                ("main", b"MULTI\r\nKEYS *\r\nEXEC\r\n", 1),
                ("main", b"MULTI\r\nSET a b\r\nGET a\r\nEXEC\r\n", 0),
                ("main", b"GET a\r\nSET a b\r\n" * 200, 0),
                ("main", few, 0),
                ("main", b'{"command": "GET", "args": ["a"]}\n', 0),
                ("main", b'{"command": "KEYS", "args": ["*"]}\n', 1),
                ("main", b'{"command": "SET", "args": ["a", "%b"]}\n' % (b"x" * 100_000), 1),
                ("memcached", b"set a 0 0 1\r\nx\r\nget a\r\n", 0),
                ("memcached", b"stats\r\n", 1),
                ("memcached", b"get %b\r\n" % b" ".join(keys), 1),
                ("haus", b"PUT a b\nGET a\n", 0),
                ("haus", b"PUT a %b\n" % (b"x" * 100_000), 1),
            ):
                with (
                    self.subTest(request[:50], port=port),
                    Wire(service.listeners[port].port) as wire,
                    mock.patch.object(
                        _thread, "start_new_thread", wraps=_thread.start_new_thread
                    ) as start,
                ):
                    wire.socket.sendall(request)
                    wire.socket.shutdown(socket.SHUT_WR)
                    self.assertTrue(wire.read_to_end())
                    self.assertEqual(start.call_count, threads)

    def test_pipelined_requests_keep_their_order_around_them(self) -> None:
        with running_server() as service, Wire(service.server.port) as wire:
            request = b"SET k 1\r\nKEYS *\r\nINCR k\r\nKEYS *\r\nGET k\r\n" * 20
            wire.socket.sendall(request + b"QUIT\r\n")
            keys = b"*1\r\n$1\r\nk\r\n"
            expected = (b"+OK\r\n" + keys + b":2\r\n" + keys + b"$1\r\n2\r\n") * 20
            self.assertEqual(wire.read_to_end(), expected + b"+OK\r\n")

    def test_a_slow_command_holds_up_nobody(self) -> None:
        with running_server() as service, Wire(service.server.port) as slow:
            gate, real = Gate(), service.store.keys
            self.addCleanup(gate.opened.set)

            def keys(db: int) -> list[bytes]:
                gate()
                return list(real(db))

            with mock.patch.object(service.store, "keys", keys), Wire(service.server.port) as wire:
                slow.socket.sendall(b"KEYS *\r\nPING\r\n")
                self.assertTrue(gate.reached.wait(10))
                self.assertEqual(wire.ask(b"SET a b\r\nGET a\r\n", 12), b"+OK\r\n$1\r\nb\r\n")
                gate.opened.set()
                self.assertEqual(slow.read(18), b"*1\r\n$1\r\na\r\n+PONG\r\n")


@contextlib.contextmanager
def on_disk(folder: str, fsync: str = "always") -> Iterator[tuple[Service, Gate]]:
    """Run a server whose journal waits at each commit until the gate is opened."""
    gate, disk = Gate(), Disk()
    with running_server(data=Path(folder) / "data.sqlite", fsync=fsync) as service:
        assert isinstance(service.persistence, Journal)
        disk.stand_before(service.persistence._file)
        disk.before_commit = gate
        try:
            yield service, gate
        finally:
            gate.opened.set()


class DiskTest(LoopCase):
    def setUp(self) -> None:
        super().setUp()
        self.folder = self.enterContext(TemporaryDirectory())

    def assert_silent(self, service: Service, *wires: Wire) -> None:
        self.turn(service.loop)
        for wire in wires:
            wire.socket.setblocking(False)
            self.assertRaises(BlockingIOError, wire.socket.recv, 1)
            wire.socket.settimeout(10)

    def test_replies_wait_for_the_commit_and_so_does_who_may_have_seen_the_change(self) -> None:
        with (
            on_disk(self.folder) as (service, gate),
            Wire(service.server.port) as writer,
            Wire(service.server.port) as reader,
            Wire(service.server.port) as pinging,
        ):
            self.assertEqual(pinging.ask(b"PING\r\n", 7), b"+PONG\r\n", "nothing was changed yet")
            writer.socket.sendall(b"SET k v\r\nGET k\r\n")
            self.assertTrue(gate.reached.wait(10))
            reader.socket.sendall(b"GET k\r\n")
            until(lambda: service.store.hits == 2)
            pinging.socket.sendall(b"PING\r\n")
            until(lambda: service.instance.counts()["commands"] == 5)
            self.assert_silent(service, writer, reader, pinging)
            gate.opened.set()
            self.assertEqual(writer.read(12), b"+OK\r\n$1\r\nv\r\n")
            self.assertEqual(reader.read(7), b"$1\r\nv\r\n")
            self.assertEqual(pinging.read(7), b"+PONG\r\n")

    def test_what_comes_behind_a_reply_that_waits_is_answered_after_it(self) -> None:
        with on_disk(self.folder) as (service, gate), Wire(service.server.port) as wire:
            wire.socket.sendall(b"SET k v\r\n")
            self.assertTrue(gate.reached.wait(10))
            wire.socket.sendall(b"APPEND k w\r\nKEYS *\r\n")
            wire.socket.sendall(b"GET k\r\n")
            self.assert_silent(service, wire)
            gate.opened.set()
            self.assertEqual(wire.read(28), b"+OK\r\n:2\r\n*1\r\n$1\r\nk\r\n$2\r\nvw\r\n")

    def test_who_is_ended_while_its_replies_wait_leaves_no_ticket(self) -> None:
        with on_disk(self.folder) as (service, gate), Wire(service.server.port) as wire:
            journal = service.persistence
            assert isinstance(journal, Journal)
            wire.socket.sendall(b"SET k v\r\n")
            self.assertTrue(gate.reached.wait(10))
            until(lambda: bool(journal._outcomes._tickets))
            (session,) = service.instance.sessions()
            session.close()
            until(lambda: not service.instance.sessions())
            self.assertEqual(journal._outcomes._tickets, {})
            self.assertEqual(wire.read_to_end(), b"")
            gate.opened.set()
            until(lambda: journal.durable_step > 0)
            self.turn(service.loop)

    def test_while_the_disk_lags_behind_writers_wait_and_readers_do_not(self) -> None:
        congested = True
        with (
            running_server(data=Path(self.folder) / "data.sqlite") as service,
            mock.patch.object(
                Journal, "congested", mock.PropertyMock(side_effect=lambda: congested)
            ),
            mock.patch.object(Journal, "hurry") as hurry,
            Wire(service.server.port) as writer,
            Wire(service.server.port) as reader,
        ):
            writer.socket.sendall(b"SET k 1\r\n")
            self.assertEqual(writer.read(5), b"+OK\r\n", "one that knows nothing of it is answered")
            until(lambda: hurry.called)
            writer.socket.sendall(b"SET k 2\r\nGET k\r\n")
            for _ in range(5):
                self.assertEqual(reader.ask(b"GET k\r\n", 7), b"$1\r\n1\r\n")
            self.assert_silent(service, writer)
            congested = False
            self.assertEqual(writer.read(12), b"+OK\r\n$1\r\n2\r\n")
            hurry.assert_called_once()

    def test_where_there_is_a_longest_wait_a_writer_goes_on_then(self) -> None:
        clock = ManualClock()
        with (
            running_server(data=Path(self.folder) / "data.sqlite") as service,
            mock.patch.object(Journal, "congested", True),
            mock.patch.object(Journal, "longest_wait", 0.5),
            mock.patch.object(Journal, "hurry"),
            mock.patch.object(service.loop, "_monotonic", clock),
            Wire(service.server.port) as writer,
        ):
            self.assertEqual(writer.ask(b"SET k 1\r\n", 5), b"+OK\r\n")
            writer.socket.sendall(b"SET k 2\r\n")
            clock.now += 0.4
            self.assert_silent(service, writer)
            clock.now += 0.1
            self.assertEqual(writer.read(5), b"+OK\r\n")


class FinishTest(LoopCase):
    def test_what_has_arrived_is_answered_first(self) -> None:
        wire, connection, _ = self.connect()
        self.turn()
        gate = self.gate()
        self.loop.call(gate)  # the loop is busy elsewhere
        self.assertTrue(gate.reached.wait(10))
        connection.finish()
        wire.socket.sendall(b"a\nb\n")
        gate.opened.set()
        self.assertEqual(wire.read_to_end(), b"a\nb\n")
        until(lambda: self.ended == [connection])

    def test_replies_that_wait_for_the_client_are_sent_first(self) -> None:
        wire, connection, dialect = self.connect()
        dialect.on[b"large"] = lambda _: iter([b"x" * LARGE] * 2)
        wire.socket.sendall(b"large\nb\n")
        until(lambda: bool(connection._out._queue))
        connection.finish()
        self.turn()
        self.assertEqual(self.ended, [])
        self.assertEqual(wire.read_to_end(), b"x" * 2 * LARGE + b"b\n")

    def test_replies_that_are_held_back_are_not_waited_for(self) -> None:
        wire, connection, dialect = self.connect()

        dialect.on[b"guess"] = refused(5.0)
        wire.socket.sendall(b"guess\n")
        until(lambda: connection._held_back is not None)
        self.assert_served()
        connection.finish()
        self.assertEqual(wire.read_to_end(), b"no\n")

    def test_a_client_that_has_gone_is_no_error(self) -> None:
        for state in ("idle", "guess", "large"):
            wire, connection, dialect = self.connect()

            dialect.on = {b"guess": refused(5.0), b"large": lambda _: b"x" * LARGE}
            with self.subTest(state):
                wire.socket.sendall(state.encode() + b"\n")
                until(lambda dialect=dialect: bool(dialect.calls))  # type: ignore[misc]
                wire.socket.close()
                connection.finish()
                until(lambda connection=connection: connection in self.ended)  # type: ignore[misc]
                self.assertEqual(self.ended.count(connection), 1)
                self.assertEqual(dialect.ends, 1)


class StopTest(unittest.TestCase):
    def test_a_request_under_way_is_answered_and_a_thread_that_takes_too_long_is_not_waited_for(
        self,
    ) -> None:
        for patient in (True, False):
            with (
                self.subTest(patient=patient),
                running_server() as service,
                Wire(service.server.port) as wire,
            ):
                gate, real = Gate(), service.store.keys
                self.addCleanup(gate.opened.set)

                def keys(db: int, gate: Gate = gate, real: object = real) -> list[bytes]:
                    gate()
                    return [b"k"]

                with mock.patch.object(service.store, "keys", keys):
                    wire.socket.sendall(b"KEYS *\r\n")
                    self.assertTrue(gate.reached.wait(10))
                    stop = threading.Thread(
                        target=service.server.stop, args=(10 if patient else 0.02,)
                    )
                    stop.start()
                    if patient:
                        gate.opened.set()
                        self.assertEqual(wire.read_to_end(), b"*1\r\n$1\r\nk\r\n")
                    stop.join(5)
                    self.assertFalse(stop.is_alive())
                    gate.opened.set()
                    self.assertTrue(service.server.wait_until_empty(10))
                    self.assertEqual(service.instance.sessions(), [])


class TroubleTest(LoopCase):
    def test_a_bug_in_a_dialect_ends_that_connection_and_is_logged(self) -> None:
        for place in ("receive", "settle"):
            wire, connection, dialect = self.connect()

            def bug(*_: object) -> bytes:
                raise ZeroDivisionError

            def wait(dialect: Lines) -> bytes:
                waiting = dialect.undecided = Waiting(dialect, b"")
                waiting.settle, waiting.is_decided = bug, True  # type: ignore[method-assign]
                return b""

            dialect.on[b"bug"] = bug if place == "receive" else wait
            with self.subTest(place), self.assertLogs("kvdb.server", logging.ERROR) as logged:
                wire.socket.sendall(b"bug\n")
                self.assertEqual(wire.read_to_end(), b"")
                until(lambda connection=connection: connection in self.ended)  # type: ignore[misc]
                self.assertEqual(dialect.ends, 1)
                self.assertIn("ZeroDivisionError", logged.output[0])
            self.assert_served()

    def test_a_connection_that_cannot_be_waited_for_is_ended(self) -> None:
        with (
            self.assertLogs("kvdb.server", logging.ERROR),
            mock.patch.object(self.loop, "register", side_effect=MemoryError),
        ):
            _, connection, dialect = self.connect()
            until(lambda: self.ended == [connection])
        self.assertEqual((dialect.ends, self.instance.sessions()), (1, []))
        self.assert_served()

    def test_what_is_called_may_fail(self) -> None:
        done = threading.Event()
        with (
            self.assertLogs("kvdb.server", logging.ERROR) as logged,
            mock.patch("kvdb.server.loop.log.exception", side_effect=self.cannot_log),
        ):
            self.loop.call(lambda: 1 // 0)  # type: ignore[arg-type, return-value]
            self.loop.call(done.set)
            self.assertTrue(done.wait(10))
        self.assertEqual(len(logged.output), 1)
        self.assert_served()

    def cannot_log(self, text: str) -> None:
        """Log it, and fail as if there had been no memory for it."""
        logging.getLogger("kvdb.server.loop").error(text)
        raise MemoryError

    def test_a_lack_of_memory_is_survived_even_where_it_cannot_be_logged(self) -> None:
        selector = self.loop._selector
        real = selector.select
        for log in (contextlib.nullcontext(), mock.patch("kvdb.server.loop.log")):
            failures = iter([MemoryError(), OSError(), MemoryError()])

            def select(timeout: float | None, failures: Iterator[Exception] = failures) -> object:
                for failure in failures:
                    raise failure
                return real(timeout)

            logged = log.__enter__()
            if logged is None:
                context: contextlib.AbstractContextManager[object] = self.assertLogs(
                    "kvdb.server", logging.ERROR
                )
            else:
                logged.exception.side_effect = MemoryError
                context = contextlib.nullcontext()
            with context, mock.patch.object(selector, "select", select):
                self.loop.wake()
                self.assert_served()
                self.assertIsNone(next(failures, None))
            log.__exit__(None, None, None)
        self.assertTrue(self.loop.thread.is_alive())

    def test_who_waits_is_looked_at_though_another_one_fails_and_that_cannot_be_logged(
        self,
    ) -> None:
        def wait(dialect: Lines) -> bytes:
            dialect.undecided = Waiting(dialect, b"kept\n")
            return b""

        clients = [self.connect() for _ in range(6)]
        for wire, _, dialect in clients:
            dialect.on[b"wait"] = wait
            wire.socket.sendall(b"wait\n")
        until(lambda: all(dialect.undecided for _, _, dialect in clients))
        with mock.patch("kvdb.server.loop.log") as log:
            log.exception.side_effect = MemoryError

            def decide() -> None:
                for number, (_, _, dialect) in enumerate(clients):
                    assert dialect.undecided is not None
                    dialect.undecided.is_decided = True
                    if number % 2:
                        dialect.undecided.settle = lambda: 1 // 0  # type: ignore[assignment, method-assign, return-value]

            self.loop.call(decide)
            for number, (wire, _, _) in enumerate(clients):
                self.assertEqual(wire.read(5), b"" if number % 2 else b"kept\n")

    def test_a_client_that_resets_its_connection_is_no_error(self) -> None:
        with running_server() as service:
            service.store.set(b"k", b"x" * LARGE)
            for request in (b"GET k\r\n" * 10, b"KEYS *\r\n" * 10, b"PING\r\n", b"SET a"):
                for _ in range(5):
                    with Wire(service.server.port) as wire:
                        wire.socket.sendall(request)
                        linger = struct.pack("ii", 1, 0)
                        wire.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
            self.assertTrue(service.server.wait_until_empty(10))
            self.assertEqual(service.instance.sessions(), [])


class ManyTest(unittest.TestCase):
    def test_two_hundred_clients_at_once_are_all_answered_and_have_no_thread(self) -> None:
        with running_server() as service, contextlib.ExitStack() as stack:
            before = threading.active_count()
            wires = [stack.enter_context(Wire(service.server.port)) for _ in range(200)]
            for _ in range(3):
                for number, wire in enumerate(wires):
                    wire.socket.sendall(b"SET %d %03d\r\nGET %d\r\n" % ((number,) * 3))
                for number, wire in enumerate(wires):
                    self.assertEqual(wire.read(14), b"+OK\r\n$3\r\n%03d\r\n" % number)
            self.assertEqual(threading.active_count(), before)
            self.assertEqual(len(service.instance.sessions()), 200)
            self.assertTrue(re.search(rb"connected_clients:200\r", self.ask_info(wires[0])))

    def ask_info(self, wire: Wire) -> bytes:
        wire.socket.sendall(b"INFO clients\r\nQUIT\r\n")
        return wire.read_to_end()


if __name__ == "__main__":
    unittest.main()
