from __future__ import annotations

import contextlib
import errno
import logging
import os
import socket
import struct
import threading
import unittest
from unittest import mock

from kvdb.commands.session import Instance, Session
from kvdb.config import Config
from kvdb.server import Server
from kvdb.store import Store
from tests.support import ManualClock, Wire, running_server

PING = b"PING\r\n"
PONG = b"+PONG\r\n"


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
            nodelay = connection.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)
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
                self.wait_for_clients(service.instance, 1)
                with Wire(port) as fourth:
                    self.assertEqual(fourth.ask(PING, 7), PONG)

    def wait_for_clients(self, instance: Instance, count: int) -> None:
        """Wait until so many sessions are left: a client sees its end a moment earlier."""
        deadline = threading.Event()
        for _ in range(1000):
            if len(instance.sessions()) == count:
                return
            deadline.wait(0.01)
        self.fail(f"{len(instance.sessions())} clients instead of {count}")

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
            for thread in threading.enumerate():
                if "process_request_thread" in thread.name:
                    thread.join(10)
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
            self.assertEqual(counts, {"commands": 3, "received": 18, "sent": 21})


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

    def test_an_address_in_use_is_refused_when_the_door_opens(self) -> None:
        with running_server() as service, self.assertRaises(OSError):
            Server("127.0.0.1", service.server.port, service.instance, mock.Mock(), b"")


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
                self.assertLogs("kvdb.server", logging.ERROR) as logged,
                Wire(service.server.port) as wire,
            ):
                self.assertEqual(wire.ask(PING, 7), PONG)
            self.assertIn("Too many files", logged.output[0])

    def test_a_thread_that_cannot_start_costs_one_client_only(self) -> None:
        with running_server() as service:
            with (
                mock.patch.object(
                    threading.Thread, "start", side_effect=RuntimeError("no threads")
                ),
                self.assertLogs("kvdb.server", logging.ERROR),
                Wire(service.server.port) as wire,
            ):
                self.assertEqual(wire.read_to_end(), b"")
            with Wire(service.server.port) as wire:
                self.assertEqual(wire.ask(PING, 7), PONG)

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
