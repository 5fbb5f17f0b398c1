from __future__ import annotations

import _thread
import contextlib
import errno
import gc
import json
import logging
import os
import socket
import socketserver
import struct
import threading
import tracemalloc
import unittest
import weakref
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any
from unittest import mock

from kvdb.commands.instance import Instance
from kvdb.commands.session import Session
from kvdb.config import Config
from kvdb.http.handler import Handler
from kvdb.persistence.journal import Journal
from kvdb.protocols import Dialect
from kvdb.resp.replies import encode_request
from kvdb.server.listener import Port, raise_descriptor_limit
from kvdb.service import Service
from kvdb.store import Store
from tests.journal_case import Disk, Gate
from tests.support import ManualClock, Wire, running_server, until

PING = b"PING\r\n"
PONG = b"+PONG\r\n"


def ports() -> dict[str, object]:
    """Return the settings of a server with all its ports open."""
    return {"memcached_port": 0, "haus_port": 0, "http_port": 0}


class ServerTest(unittest.TestCase):
    def test_clients_are_served_at_the_same_time(self) -> None:
        with running_server() as service:
            port = service.server.port
            with Wire(port) as first, Wire(port) as second:
                self.assertEqual(first.ask(PING, 7), PONG)
                self.assertEqual(second.ask(b"SET a 1\r\n", 5), b"+OK\r\n")
                self.assertEqual(first.ask(b"GET a\r\n", 7), b"$1\r\n1\r\n")

    def test_a_pipeline_is_answered_in_order(self) -> None:
        with running_server() as service, Wire(service.server.port) as wire:
            pings = b"".join(b"ECHO %05d\r\n" % i for i in range(5000))
            echoes = b"".join(b"$5\r\n%05d\r\n" % i for i in range(5000))
            self.assertEqual(wire.ask(pings, len(echoes)), echoes)

    def test_a_connection_ends_after_quit_and_after_a_protocol_error(self) -> None:
        with running_server() as service:
            for request, answer in (
                (b"QUIT\r\nPING\r\n", b"+OK\r\n"),
                (b"*1\r\n+PING\r\nPING\r\n", b"-ERR Protocol error: expected '$', got '+'\r\n"),
                (b"POST / HTTP/1.1\r\nHost: x\r\n\r\n", b""),
            ):
                with Wire(service.server.port) as wire, self.assertNoLogs(level="ERROR"):
                    wire.socket.sendall(request)
                    self.assertEqual(wire.read_to_end(), answer)

    def test_it_listens_on_ipv6_too(self) -> None:
        try:
            socket.create_server(("::1", 0), family=socket.AF_INET6).close()
        except OSError:
            self.skipTest("this machine has no IPv6")
        with running_server(host="::1") as service:
            with Wire(service.server.port, "::1") as wire:
                self.assertEqual(wire.ask(PING, 7), PONG)
            with Wire(service.server.port, "::1") as wire:
                wire.socket.sendall(b"CLIENT INFO\r\nQUIT\r\n")
                self.assertIn(b"addr=[::1]:", wire.read_to_end())
        with running_server(host="::", protected=False) as service:
            for host in ("127.0.0.1", "::1"):
                with Wire(service.server.port, host) as wire:
                    self.assertEqual(wire.ask(PING, 7), PONG)

    def test_replies_are_not_held_back_to_be_sent_together(self) -> None:
        with running_server() as service, Wire(service.server.port) as wire:
            wire.ask(PING, 7)
            (connection,) = service.server._connections
            nodelay = connection._socket.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)
            self.assertTrue(nodelay)

    def test_more_than_max_clients_are_refused_until_one_leaves(self) -> None:
        with running_server(max_clients=2) as service:
            port = service.server.port
            with Wire(port) as first, Wire(port) as second:
                for wire in (first, second):
                    self.assertEqual(wire.ask(PING, 7), PONG)
                with Wire(port) as third:
                    self.assertEqual(third.read_to_end(), b"-ERR max number of clients reached\r\n")
                self.assertEqual(service.instance.connections_rejected, 1)
                first.socket.sendall(b"QUIT\r\n")
                first.read_to_end()
                until(lambda: service.instance._connections == 1)
                with Wire(port) as fourth:
                    self.assertEqual(fourth.ask(PING, 7), PONG)

    def test_each_port_refuses_in_its_own_words_without_a_thread(self) -> None:
        with (
            running_server(max_clients=1, **ports()) as service,
            Wire(service.server.port) as first,
        ):
            self.assertEqual(first.ask(PING, 7), PONG)
            with mock.patch.object(_thread, "start_new_thread") as start:
                for port, words in (
                    ("main", b"-ERR max number of clients reached\r\n"),
                    ("memcached", b"ERROR Too many open connections\r\n"),
                    ("haus", b'{"status": "Error", "mesg": "Too many clients!"}\n'),
                    ("http", b"HTTP/1.1 503 Service Unavailable\r\n"),
                ):
                    with self.subTest(port), Wire(service.listeners[port].port) as wire:
                        answer = wire.read_to_end()
                        self.assertEqual(answer[: len(words)], words)
                        self.assertTrue(answer == words or port == "http")
                start.assert_not_called()
            self.assertEqual(len(service.instance.sessions()), 1)
            self.assertEqual(service.instance.connections_rejected, 4)
            self.assertEqual(service.instance.connections_received, 1)
            self.assertEqual(first.ask(PING, 7), PONG)

    def test_who_is_refused_and_does_not_read_holds_up_nobody(self) -> None:
        with running_server(max_clients=1) as service, contextlib.ExitStack() as stack:
            first = stack.enter_context(Wire(service.server.port))
            self.assertEqual(first.ask(PING, 7), PONG)
            for _ in range(50):
                wire = stack.enter_context(Wire(service.server.port))
                with contextlib.suppress(OSError):
                    wire.socket.sendall(b"x" * 10_000)
            until(lambda: service.instance.connections_rejected == 50)
            self.assertEqual(first.ask(PING, 7), PONG)

    def wait_for_clients(self, instance: Instance, count: int) -> None:
        """Wait until so many sessions are left: a client sees its end a moment earlier."""
        until(lambda: len(instance.sessions()) == count)

    def test_nothing_is_left_of_clients_that_are_gone(self) -> None:
        with running_server() as service:
            before = threading.active_count()
            for number in range(100):
                wire = Wire(service.server.port)
                wire.ask(PING, 7)
                if number % 2:  # a reset instead of an orderly end
                    linger = struct.pack("ii", 1, 0)
                    wire.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
                wire.socket.sendall(b"WATCH k\r\nMULTI\r\nSET a")
                wire.socket.close()
            self.assertTrue(service.server.wait_until_empty(10))
            self.assertEqual(service.instance.sessions(), [])
            service.store.check()
            self.assertEqual(service.instance.connections_received, 100)
            self.assertLessEqual(threading.active_count(), before)

    def test_a_client_that_never_reads_holds_up_nobody_else(self) -> None:
        with running_server() as service:
            port = service.server.port
            with Wire(port) as greedy, Wire(port) as other:
                service.store.set(b"big", b"x" * 1_000_000)
                greedy.socket.sendall(b"GET big\r\n" * 2000)
                self.assertEqual(other.ask(PING, 7), PONG)

    def test_traffic_is_counted(self) -> None:
        with running_server() as service:
            with Wire(service.server.port) as wire:
                wire.ask(PING * 3, 21)
            self.wait_for_clients(service.instance, 0)
            counts = service.instance.counts()
            self.assertEqual(
                counts, {"commands": 3, "commands main": 3, "received": 18, "sent": 21}
            )


class IdleTimeoutTest(unittest.TestCase):
    def test_the_housekeeping_ends_who_is_silent_for_too_long(self) -> None:
        monotonic = ManualClock(0)
        config = Config(port=0, idle_timeout=10)
        instance = Instance(Store(0), config, monotonic=monotonic)
        closed: list[str] = []
        for name in ("silent", "busy"):
            session = Session(instance, name, close=lambda name=name: closed.append(name))
            instance.admit(session)
        with self.assertLogs("kvdb", logging.INFO):
            monotonic.now = 5
            session.last_active = monotonic()
            instance.housekeeping()
            self.assertEqual(closed, [])
            monotonic.now = 11
            instance.housekeeping()
        self.assertEqual(closed, ["silent"])

    def test_the_connection_is_really_ended(self) -> None:
        with running_server(idle_timeout=0.001) as service, Wire(service.server.port) as wire:
            wire.ask(PING, 7)
            threading.Event().wait(0.002)
            service.instance.housekeeping()
            self.assertEqual(wire.read_to_end(), b"")


class StopTest(unittest.TestCase):
    def test_idle_clients_are_ended_at_once(self) -> None:
        with running_server() as service:
            wires = [Wire(service.server.port) for _ in range(5)]
            for wire in wires:
                wire.ask(PING, 7)
            service.server.stop(grace=60)  # would be waited for if anybody held it up
            for wire in wires:
                self.assertEqual(wire.read_to_end(), b"")
                wire.socket.close()

    def test_a_client_that_does_not_read_is_ended_after_the_grace(self) -> None:
        with running_server() as service, Wire(service.server.port) as wire:
            service.store.set(b"big", b"x" * 1_000_000)
            wire.ask(PING, 7)
            wire.socket.sendall(b"GET big\r\n" * 100)
            service.server.stop(grace=0.05)
            self.assertTrue(service.server.wait_until_empty(0))

    def test_the_port_is_free_afterwards(self) -> None:
        with running_server() as service:
            port = service.server.port
        with running_server(port=port), Wire(port) as wire:
            self.assertEqual(wire.ask(PING, 7), PONG)

    def test_an_address_in_use_is_refused_when_the_port_opens(self) -> None:
        with running_server() as service, self.assertRaises(OSError):
            Port("127.0.0.1", service.server.port, service.instance, service.loop, mock.Mock(), b"")


class EndOfConnectionTest(unittest.TestCase):
    """What a connection took is free as soon as it ends: nothing waits for the garbage collector."""

    HALF: tuple[tuple[str, bytes], ...] = (
        ("main", b"*3\r\n$3\r\nSET\r\n$1\r\nk\r\n$1000000\r\n" + bytes(500_000)),
        ("main", b'{"command": "SET", "args": {"key": "k", "value": "' + b"x" * 500_000),
        ("main", b"SET k " + b"x" * 50_000),
        ("main", b"MULTI\r\nSET k v\r\nWATCH a\r\nSET half"),
        ("main", b'{"command": "START"}\n{"command": "GET", "args": {"key": "a"}}\n{"comm'),
        ("memcached", b"set k 0 0 1000000\r\n" + bytes(500_000)),
        ("memcached", b"ms k 1000000\r\n" + bytes(500_000)),
        ("memcached", b"get " + b"k" * 50_000),
        ("haus", b"START\nGET a\nPUT b 1\nPUT k " + b"x" * 500_000),
        ("http", b"PUT /keys/k HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1000000\r\n\r\n"
         + bytes(500_000)),
        ("http", b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\nGET /keys HTTP/1.1\r\nHo"),
    )  # fmt: skip

    def setUp(self) -> None:
        gc.collect()
        gc.disable()
        self.addCleanup(gc.enable)

    def followed(self, service: Service) -> list[weakref.ref[object]]:
        """Return a list that will refer to all that new connections are made of, weakly."""
        parts: list[weakref.ref[object]] = []
        for port in service.listeners.values():
            if isinstance(port, Port):

                def new_dialect(session: Session, new: Any = port._new_dialect) -> Dialect:
                    dialect = new(session)
                    parts.extend(map(weakref.ref, (session, dialect, dialect._buffer)))
                    return dialect

                port._new_dialect = new_dialect

            def remember(connection: Any, real: Any = port.remember) -> None:
                parts.append(weakref.ref(connection))
                real(connection)

            port.remember = remember  # type: ignore[method-assign]

        def setup(handler: Any) -> None:
            parts.append(weakref.ref(handler))
            socketserver.StreamRequestHandler.setup(handler)

        self.enterContext(mock.patch.object(Handler, "setup", setup))
        return parts

    def assert_freed(self, end: Callable[[Service, Wire], object]) -> None:
        """Whatever a client is in the middle of, nothing is left of it after this end."""
        for name, data in self.HALF:
            with self.subTest(name, data=data[:40]), running_server(**ports()) as service:
                parts = self.followed(service)
                with Wire(service.listeners[name].port) as wire:
                    wire.socket.sendall(data)
                    self.wait_until_received(service, len(data) if name != "http" else 0, data)
                    end(service, wire)
                    until(lambda: not service.instance.sessions())
                    self.wait_until_freed(parts)
                self.assertEqual(len(parts), 2 if name == "http" else 4)
                self.assertEqual(service.instance.accounts.held, 0)
                self.assertEqual(service.store._versions._watchers, {})

    def wait_until_freed(self, parts: list[weakref.ref[object]]) -> None:
        until(lambda: bool(parts) and not any(part() for part in parts))

    def wait_until_received(self, service: Service, length: int, data: bytes) -> None:
        if length:
            until(lambda: service.instance.counts()["received"] == length)
        elif data.startswith(b"PUT"):
            until(lambda: service.instance.accounts.held == 500_000)
        else:
            until(lambda: service.instance.counts()["commands"] == 1)

    def leave(self, service: Service, wire: Wire) -> None:
        wire.socket.close()

    def reset(self, service: Service, wire: Wire) -> None:
        wire.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        wire.socket.close()

    def kill(self, service: Service, wire: Wire) -> None:
        for session in service.instance.sessions():
            session.close()
        del session

    def test_the_client_leaves(self) -> None:
        self.assert_freed(self.leave)

    def test_the_client_resets_the_connection(self) -> None:
        self.assert_freed(self.reset)

    def test_another_client_ends_it(self) -> None:
        self.assert_freed(self.kill)

    def test_a_thread_works_for_it(self) -> None:
        for name, request in (
            ("main", b"KEYS *\r\nWATCH k\r\nMULTI\r\n"),
            ("main", b'{"command": "KEYS", "args": ["*"]}\n{"command": "START"}\n'),
        ):
            for end in (self.leave, self.reset, self.kill):
                with self.subTest(name, end=end), running_server(**ports()) as service:
                    gate, real = Gate(), service.store.keys
                    self.addCleanup(gate.opened.set)

                    def keys(db: int, gate: Gate = gate, real: Any = real) -> list[bytes]:
                        gate()
                        return real(db)

                    parts = self.followed(service)
                    with (
                        mock.patch.object(service.store, "keys", keys),
                        Wire(service.listeners[name].port) as wire,
                    ):
                        wire.socket.sendall(request)
                        self.assertTrue(gate.reached.wait(10))
                        end(service, wire)
                        gate.opened.set()
                        self.wait_until_freed(parts)
                    self.assertEqual(service.instance.sessions(), [])
                    self.assertEqual(service.store._versions._watchers, {})

    def test_replies_wait_for_the_disk(self) -> None:
        for end in (self.leave, self.reset, self.kill):
            with (
                self.subTest(end=end),
                TemporaryDirectory() as folder,
                running_server(data=Path(folder) / "data.sqlite", fsync="always") as service,
            ):
                journal, gate, disk = service.persistence, Gate(), Disk()
                assert isinstance(journal, Journal)
                disk.stand_before(journal._file)
                disk.before_commit = gate
                self.addCleanup(gate.opened.set)
                parts = self.followed(service)
                with Wire(service.server.port) as wire:
                    wire.socket.sendall(b"SET k v\r\nGET k\r\nWATCH k\r\n")
                    self.assertTrue(gate.reached.wait(10))
                    end(service, wire)
                    if end == self.kill:
                        until(lambda journal=journal: not journal._outcomes._tickets)  # type: ignore[misc]
                    gate.opened.set()
                    self.wait_until_freed(parts)
                self.assertEqual(journal._outcomes._tickets, {})

    def test_a_reply_that_is_not_read(self) -> None:
        for name, request in (
            ("main", b"GET big\r\n"),
            ("main", encode_request([b"MGET", *[b"big"] * 10])),
            ("main", b'{"command": "MGET", "args": ["big", "big", "big"]}\n'),
            ("memcached", b"get big big big\r\n"),
            ("haus", b"GET big\n" * 3),
        ):
            with self.subTest(request[:30]), running_server(**ports()) as service:
                service.store.set(b"big", b"x" * 8_000_000)
                parts = self.followed(service)
                with Wire(service.listeners[name].port) as wire:
                    wire.socket.sendall(request)
                    self.assertEqual(len(wire.read(10)), 10)
                self.wait_until_freed(parts)
                self.assertEqual(service.instance.accounts.held, 0)


class StrangersTest(unittest.TestCase):
    """Before a password, what a client sends without an end never comes to be in memory."""

    HEAD = b"PUT /keys/k HTTP/1.1\r\nHost: localhost\r\n"
    ENDLESS: tuple[tuple[str, bytes, bytes], ...] = (
        ("main", b"", b"x"),
        ("main", b"GET ", b"k"),
        ("main", b'{"command": "', b"x"),
        ("main", b"*", b"1"),
        ("main", b"*2\r\n$", b"1"),
        ("main", b"*2\r\n$4\r\nAUTH\r\n$10000000\r\n", b"x"),
        ("main", b"*10\r\n", b"$16384\r\n" + b"x" * 16384 + b"\r\n"),
        ("main", b"*1000000\r\n", b"$1\r\nx\r\n"),
        ("memcached", b"", b"x"),
        ("memcached", b"get ", b"k "),
        ("memcached", b"set auth 0 0 5000\r\n", b"x"),
        ("memcached", b"set auth 0 0 10000000\r\n", b"x"),
        ("memcached", b"ms k 10000000\r\n", b"x"),
        ("haus", b"", b"x"),
        ("haus", b"AUTH ", b"x"),
        ("haus", b"PUT k ", b"x"),
        ("http", b"GET /", b"x"),
        ("http", HEAD, b"X: y\r\n"),
        ("http", HEAD + b"X: ", b"x"),
        ("http", HEAD + b"Content-Length: 10000000\r\n\r\n", b"x"),
        ("http", HEAD + b"Transfer-Encoding: chunked\r\n\r\n", b"x"),
        ("http", HEAD + b"Expect: 100-continue\r\nContent-Length: 10000000\r\n\r\n", b"x"),
    )

    def test_what_never_ends_is_given_up_early(self) -> None:
        with running_server(password="secret", **ports()) as service:
            for name, beginning, more in self.ENDLESS:
                data = beginning + more * (4_000_000 // len(more))
                with (
                    self.subTest(name, beginning=beginning[-40:], more=more[:5]),
                    Wire(service.listeners[name].port) as wire,
                ):
                    gc.collect()
                    tracemalloc.start()
                    try:
                        with contextlib.suppress(ConnectionError):
                            wire.socket.sendall(data)
                        wire.read_to_end()
                        until(lambda: not service.instance.sessions())
                        _, peak = tracemalloc.get_traced_memory()
                    finally:
                        tracemalloc.stop()
                    self.assertLess(peak, 1_000_000)
            self.assertEqual(service.store.size(), 0)

    def test_what_many_of_them_leave_unfinished_takes_little(self) -> None:
        half = {
            "main": b"*2\r\n$4\r\nAUTH\r\n$16384\r\n" + b"x" * 16383,
            "memcached": b"set auth 0 0 4096\r\n" + b"x" * 4095,
            "haus": b"AUTH " + b"x" * 4000,
            "http": self.HEAD + b"X: " + b"x" * 16_000,
        }
        with running_server(password="secret", **ports()) as service:
            for name, data in half.items():
                with self.subTest(name), contextlib.ExitStack() as stack:
                    gc.collect()
                    tracemalloc.start()
                    stack.callback(tracemalloc.stop)
                    for _ in range(20):
                        wire = stack.enter_context(Wire(service.listeners[name].port))
                        wire.socket.sendall(data)
                    until(lambda: len(service.instance.sessions()) == 20)
                    if name != "http":
                        until(
                            lambda: min(each.received for each in service.instance.sessions()) > 0
                        )
                    current, _ = tracemalloc.get_traced_memory()
                    # 64 kB of it are what recv() fills, and have no pages until it does.
                    self.assertLess(current, 20 * 110_000)
                until(lambda: not service.instance.sessions())


class DescriptorsTest(unittest.TestCase):
    @unittest.skipIf(os.name == "nt", "Windows has no such limit")
    def test_all_that_the_system_allows_are_taken_and_counted(self) -> None:
        import resource

        with (
            mock.patch("resource.getrlimit", return_value=(1024, 5000)),
            mock.patch("resource.setrlimit") as raised,
        ):
            self.assertEqual(raise_descriptor_limit(), 5000)
            raised.assert_called_once_with(resource.RLIMIT_NOFILE, (5000, 5000))
            raised.side_effect = OSError
            self.assertEqual(raise_descriptor_limit(), 1024)
        unlimited = (resource.RLIM_INFINITY, resource.RLIM_INFINITY)
        with (
            mock.patch("resource.getrlimit", return_value=unlimited),
            mock.patch("resource.setrlimit"),
        ):
            self.assertIsNone(raise_descriptor_limit())


class IdleClientTest(unittest.TestCase):
    def test_nothing_is_kept_of_what_an_idle_client_has_sent_and_got(self) -> None:
        value = b"x" * 5_000_000
        put = json.dumps({"command": "SET", "args": {"key": "k", "value": value.decode()}})
        host = b" HTTP/1.1\r\nHost: localhost\r\n"
        with running_server(**ports()) as service:
            for name, request, least in (
                ("main", encode_request([b"SET", b"k", value]), 5),
                ("main", encode_request([b"GET", b"big"]), len(value)),
                ("main", encode_request([b"MGET", b"big", b"big"]), 2 * len(value)),
                ("main", b"GET big\r\n", len(value)),
                ("main", put.encode() + b"\n", 17),
                ("main", b'{"command": "GET", "args": ["big"]}\n', len(value)),
                ("memcached", b"set k 0 0 %d\r\n%b\r\n" % (len(value), value), 8),
                ("memcached", b"get big\r\n", len(value)),
                ("haus", b"PUT k " + value + b"\n", 17),
                ("haus", b"GET big\n", len(value)),
                ("http", b"PUT /keys/k%bContent-Length: %d\r\n\r\n%b"
                 % (host, len(value), value), 100),
                ("http", b"GET /keys/big" + host + b"\r\n", len(value)),
            ):  # fmt: skip
                with (
                    self.subTest(name, request=request[:40]),
                    Wire(service.listeners[name].port) as wire,
                ):
                    service.store.set(b"big", value)
                    tracemalloc.start()
                    try:
                        wire.socket.sendall(request)
                        got = 0
                        while got < least:
                            got += len(wire.socket.recv(65536))
                        service.store.flush()
                        gc.collect()
                        until(lambda: tracemalloc.get_traced_memory()[0] < 1_000_000)
                    finally:
                        tracemalloc.stop()


class TroubleTest(unittest.TestCase):
    def test_accepting_goes_on_after_running_out_of_descriptors(self) -> None:
        with running_server() as service:
            real, failures = socket.socket.accept, iter([OSError(errno.EMFILE, "Too many files")])

            def accept(listener: socket.socket) -> tuple[socket.socket, object]:
                for failure in failures:
                    raise failure
                return real(listener)

            with (
                mock.patch.object(socket.socket, "accept", accept),
                self.assertLogs("kvdb", logging.ERROR) as logged,
                Wire(service.server.port) as wire,
            ):
                self.assertEqual(wire.ask(PING, 7), PONG)
            self.assertIn("Too many files", logged.output[0])

    def test_a_thread_that_cannot_start_costs_one_client_only(self) -> None:
        for trouble, words in (
            (RuntimeError("can't start new thread"), "can't start new thread"),
            (MemoryError(), "not enough memory"),
        ):
            with self.subTest(words), running_server(max_clients=3, http_port=0) as service:
                before = self.enterContext(Wire(service.server.port))
                self.assertEqual(before.ask(PING, 7), PONG)
                http = service.listeners["http"]
                with (
                    mock.patch("_thread.start_new_thread", side_effect=trouble),
                    self.assertLogs("kvdb", logging.ERROR) as logged,
                ):
                    for _ in range(3):
                        with Wire(http.port) as wire:
                            self.assertEqual(wire.read_to_end(), b"")
                    # Only the HTTP port needs one for each client.
                    with Wire(service.server.port) as wire:
                        self.assertEqual(wire.ask(PING, 7), PONG)
                self.assertEqual(len(logged.output), 1, "once")
                self.assertIn(words, logged.output[0])
                self.assertTrue(http.wait_until_empty(0))
                self.assertEqual(before.ask(PING, 7), PONG)
                until(lambda: service.instance._connections == 1)
                for _ in range(2):  # none of them counts as a client any more
                    after = self.enterContext(Wire(http.port))
                    after.socket.sendall(b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n")
                    self.assertEqual(after.read(12), b"HTTP/1.1 200")

    def test_accepting_goes_on_after_a_lack_of_memory(self) -> None:
        with running_server() as service:
            for place in ("get_request", "process_request", "service_actions"):
                real, failures = getattr(service.server, place), iter([MemoryError()] * 2)

                def fail(*arguments: object, real: Any = real, failures: Any = failures) -> Any:
                    for failure in failures:
                        raise failure
                    return real(*arguments)

                with (
                    self.subTest(place),
                    mock.patch.object(service.server, place, fail),
                    self.assertLogs("kvdb", logging.ERROR) as logged,
                ):
                    until(lambda: self.is_served(service) and bool(logged.output))
            self.assertEqual(service.instance.dead_threads(), [])

    def is_served(self, service: Service) -> bool:
        with Wire(service.server.port) as wire, contextlib.suppress(ConnectionError):
            return wire.ask(PING, 7) == PONG
        return False

    def test_a_thread_that_has_died_is_told(self) -> None:
        with running_server() as service:
            self.assertEqual(service.instance.dead_threads(), [])
            names = {thread.name for thread in service.instance.background}
            self.assertLessEqual({f"accept-{service.server.port}", "reaper"}, names)
            service.server.stopping = True
            service.server.shutdown()
            until(lambda: not service.server._accepting.is_alive())  # type: ignore[union-attr]
            self.assertEqual(service.instance.dead_threads(), [f"accept-{service.server.port}"])

    def test_a_bug_in_a_command_is_answered_logged_and_survived(self) -> None:
        with running_server() as service, Wire(service.server.port) as wire:
            with (
                mock.patch.object(service.store, "get", side_effect=ZeroDivisionError),
                self.assertLogs("kvdb", logging.ERROR) as logged,
            ):
                self.assertEqual(wire.ask(b"GET secret\r\n", 21), b"-ERR internal error\r\n")
            self.assertNotIn("secret", logged.output[0].splitlines()[0])
            self.assertEqual(wire.ask(PING, 7), PONG)

    def test_random_bytes_never_end_the_server_and_never_grow_it(self) -> None:
        with running_server() as service, self.assertNoLogs("kvdb", logging.ERROR):
            for _ in range(200):
                with Wire(service.server.port) as wire:
                    wire.socket.sendall(os.urandom(2000))
            for garbage in (
                b"x" * 1_000_000,
                b"*1\r\n$1000000000\r\n" + b"y" * 1_000_000,
                b"*1000000\r\n" + b"$1\r\nz\r\n" * 1000,
                b'{"command": "' + b"a" * 1_000_000,
            ):
                # It may hang up on us before it has taken everything.
                with Wire(service.server.port) as wire, contextlib.suppress(OSError):
                    wire.socket.sendall(garbage)
            self.assertTrue(service.server.wait_until_empty(10))
            with Wire(service.server.port) as wire:
                self.assertEqual(wire.ask(PING, 7), PONG)
            service.store.check()
