"""The server that other people's tests run: it comes, goes, tells the time and fails as it is told."""

from __future__ import annotations

import gc
import os
import tempfile
import threading
import time
import unittest
from pathlib import Path

import kvdb
from kvdb.testing import CannotStart, Server, running
from tests.support import Wire, ask_http, until

DESCRIPTORS = Path("/proc/self/fd")


def descriptors() -> int:
    return len(os.listdir(DESCRIPTORS)) if DESCRIPTORS.exists() else 0


class ServerTest(unittest.TestCase):
    """Tests that share a server; each finds it as it was at first."""

    server: Server

    @classmethod
    def setUpClass(cls) -> None:
        cls.server = cls.enterClassContext(running(http_port=0, memcached_port=0, haus_port=0))

    def setUp(self) -> None:
        self.server.reset()
        self.db = self.enterContext(self.server.client(patience=0))

    def wire(self, port: str = "main") -> Wire:
        return self.enterContext(Wire(self.server.ports[port]))

    def assert_answers(self, wire: Wire, *exchanges: tuple[str, str]) -> None:
        for request, reply in exchanges:
            with self.subTest(request):
                answer = wire.ask(f"{request}\r\n".encode(), len(reply) + 2)
                self.assertEqual(answer.decode(), f"{reply}\r\n")


class RunningTest(unittest.TestCase):
    def test_nothing_is_left_when_the_block_ends(self) -> None:
        threads, files = set(threading.enumerate()), descriptors()
        with running(http_port=0) as server:
            server.client().set("a", 1)
            ask_http(server.ports["http"], "/get?key=a")
            self.assertGreater(len(threading.enumerate()), len(threads))
        until(lambda: set(threading.enumerate()) <= threads)
        self.assertLessEqual(descriptors(), files)

    def test_nothing_is_left_when_the_block_raises(self) -> None:
        threads, files = set(threading.enumerate()), descriptors()
        with self.assertRaises(ZeroDivisionError), running():
            raise ZeroDivisionError
        self.assertLessEqual(set(threading.enumerate()), threads)
        self.assertLessEqual(descriptors(), files)

    def test_several_run_beside_each_other(self) -> None:
        with running() as one, running() as other:
            one.client().set("a", 1)
            self.assertIsNone(other.client().get("a"))
            other.fail_next("SET")
            one.client().set("a", 2)
            self.assertEqual(other.faults_left, 1)

    def test_it_says_where_it_is(self) -> None:
        with running() as server:
            self.assertEqual(server.host, "127.0.0.1")
            self.assertEqual(server.address, f"127.0.0.1:{server.port}")
            self.assertEqual(server.url, f"kvdb://127.0.0.1:{server.port}")
            self.assertEqual(str(server), server.url)
            self.assertEqual(server.ports, {"main": server.port})

    def test_its_clients_know_the_password(self) -> None:
        with running(password="p@ss") as server:
            self.assertTrue(server.client().ping())
            self.assertEqual(server.url, f"kvdb://:p%40ss@{server.address}")
            with self.assertLogs("kvdb", "WARNING"), self.assertRaises(kvdb.ServerError):
                server.client(password="wrong").ping()

    def test_an_unknown_setting_is_refused(self) -> None:
        with self.assertRaises(TypeError), running(colour="red"):
            pass

    def test_a_port_that_is_taken_is_refused(self) -> None:
        with running() as server, self.assertRaises(CannotStart), running(port=server.port):
            pass

    def test_the_garbage_of_this_process_is_collected_as_before(self) -> None:
        before = gc.get_freeze_count()
        with running():
            self.assertEqual(gc.get_freeze_count(), before)

    def test_a_data_file_stays(self) -> None:
        with tempfile.TemporaryDirectory() as folder:
            data = Path(folder, "kvdb.json")
            with running(data=data) as server:
                server.client().set("a", 1)
            self.assertEqual(os.listdir(folder), ["kvdb.json"])
            with running(data=data) as server:
                self.assertEqual(server.client().get("a"), 1)


class TimeTest(ServerTest):
    def test_a_key_expires_when_its_time_has_passed(self) -> None:
        self.server.clock.freeze()
        self.db.set("a", 1, ttl=60)
        self.server.advance(59)
        self.assertEqual(self.db.ttl("a"), 1)
        self.server.advance(1)
        self.assertIsNone(self.db.get("a"))

    def test_what_has_expired_is_gone_before_anybody_asks(self) -> None:
        with self.wire() as wire:
            self.assert_answers(wire, ("SET a 1 EX 3600", "+OK"), ("SET b 2", "+OK"))
            self.server.advance(3600)
            self.assert_answers(wire, ("DBSIZE", ":1"))

    def test_time_goes_on_by_itself(self) -> None:
        for prepare in (lambda: None, lambda: self.server.advance(1000)):
            prepare()
            self.db.set("a", 1, ttl=0.01)
            until(lambda: self.db.get("a") is None)

    def test_frozen_time_goes_on_from_where_it_stood(self) -> None:
        clock = self.server.clock
        clock.freeze()
        self.server.advance(100)
        frozen = clock()
        self.assertEqual(clock(), frozen)
        clock.unfreeze()
        until(lambda: clock() > frozen)
        self.assertLess(clock() - frozen, 50)

    def test_time_does_not_go_back(self) -> None:
        for seconds in (-1, float("nan")):
            with self.assertRaises(ValueError):
                self.server.advance(seconds)

    def test_a_planned_flush_is_carried_out(self) -> None:
        with self.wire("memcached") as wire:
            self.assert_answers(wire, ("set a 0 0 1\r\n1", "STORED"), ("flush_all 60", "OK"))
            self.server.advance(61)
            self.assert_answers(wire, ("get a", "END"))


class EmptyingTest(ServerTest):
    def test_a_flush_empties_every_database(self) -> None:
        with self.wire() as wire:
            self.assert_answers(wire, ("SET a 1", "+OK"), ("SELECT 3", "+OK"), ("SET b 2", "+OK"))
            self.server.flush()
            self.assert_answers(wire, ("DBSIZE", ":0"), ("SELECT 0", "+OK"), ("DBSIZE", ":0"))

    def test_a_flush_forgets_scripts_and_statistics(self) -> None:
        digest = "e0e1f9fabfc9d4800c877a703b823ac0578ff8db"
        with self.wire() as wire:
            self.assert_answers(
                wire,
                ('SCRIPT LOAD "return 1"', f"$40\r\n{digest}"),
                (f"SCRIPT EXISTS {digest}", "*1\r\n:1"),
                ("GET missing", "$-1"),
            )
            self.server.flush()
            self.assert_answers(wire, (f"SCRIPT EXISTS {digest}", "*1\r\n:0"))
            wire.socket.sendall(b"INFO stats\r\nPING\r\n")
            self.assertIn(b"keyspace_misses:0\r\n", wire.read_until(b"+PONG\r\n"))

    def test_a_reset_undoes_what_a_test_has_arranged(self) -> None:
        self.db.set("a", 1)
        self.server.fail_next("GET")
        self.server.advance(1e6)
        self.server.stop()
        self.server.reset()
        self.assertIsNone(self.db.get("a"))
        self.assertLess(abs(self.server.clock() - time.time()), 1000)
        self.assertEqual(self.server.faults_left, 0)


class FailingTest(ServerTest):
    def test_the_next_request_is_refused_and_not_carried_out(self) -> None:
        self.server.fail_next("SET", "READONLY not here")
        with self.assertRaisesRegex(kvdb.ServerError, "^READONLY not here$"):
            self.db.set("a", 1)
        self.assertIsNone(self.db.get("a"))
        self.db.set("a", 2)
        self.assertEqual(self.db.get("a"), 2)

    def test_so_many_requests_of_any_client_are_refused(self) -> None:
        self.server.fail_next("GET", times=3)
        answers = [self.wire().ask(b"GET a\r\n", 4) for _ in range(4)]
        self.assertEqual(answers, [b"-ERR", b"-ERR", b"-ERR", b"$-1\r"])
        self.assertEqual(self.server.faults_left, 0)

    def test_of_many_requests_at_once_the_first_is_refused(self) -> None:
        self.server.fail_next("SET", "READONLY no")
        with self.wire() as wire:
            request, replies = (
                b"*3\r\n$3\r\nSET\r\n$1\r\na\r\n$1\r\n1\r\n",
                b"-READONLY no\r\n+OK\r\n+OK\r\n",
            )
            self.assertEqual(wire.ask(request * 3, len(replies)), replies)

    def test_a_text_without_a_code_word_gets_one(self) -> None:
        self.server.fail_next("PING", "it is broken")
        self.assert_answers(self.wire(), ("PING", "-ERR it is broken"))

    def test_it_is_refused_within_a_transaction_and_a_script(self) -> None:
        self.server.fail_next("SET", "ERR no", times=2)
        self.assert_answers(
            self.wire(),
            ("MULTI", "+OK"),
            ("SET a 1", "+QUEUED"),
            ("INCR b", "+QUEUED"),
            ("EXEC", "*2\r\n-ERR no\r\n:1"),
            ("EVAL \"return redis.pcall('set', KEYS[1], 1)\" 1 a", "-ERR no"),
            ("EXISTS a", ":0"),
        )

    def test_a_transaction_that_is_refused_is_over(self) -> None:
        self.server.fail_next("EXEC")
        self.assert_answers(
            self.wire(),
            ("MULTI", "+OK"),
            ("SET a 1", "+QUEUED"),
            ("EXEC", "-ERR failed on purpose"),
            ("GET a", "$-1"),
        )

    def test_requests_of_every_port_count(self) -> None:
        self.enterContext(self.assertLogs("kvdb", "WARNING"))
        self.server.fail_next("SET", "OOM command not allowed", times=4)
        for port, request, reply in (
            (
                "main",
                '{"command": "SET", "args": {"key": "a", "value": "1"}}',
                '{"status": "ERROR", ',
            ),
            ("memcached", "set a 0 0 1\r\n1", "SERVER_ERROR "),
            ("haus", "PUT a 1", '{"status": "Error", '),
        ):
            with self.subTest(port):
                answer = self.wire(port).ask(f"{request}\r\n".encode(), len(reply))
                self.assertEqual(answer.decode(), reply)
        self.assertEqual(ask_http(self.server.ports["http"], "/keys/a", "PUT", b"1").status, 507)
        self.assertIsNone(self.db.get("a"))
        self.assertEqual(self.server.faults_left, 0)

    def test_other_names_of_a_command_are_meant_too(self) -> None:
        for name, request in (
            ("INCR", "INCRBY a 1"),
            ("DEL", "DELETE a"),
            ("config set", "CONFIG SET slowlog-max-len 1"),
            ("CLIENT", "CLIENT ID"),
        ):
            self.server.fail_next(name)
            self.assert_answers(self.wire(), (request, "-ERR failed on purpose"))

    def test_what_can_never_happen_is_refused(self) -> None:
        for order in (
            lambda: self.server.fail_next("NONSENSE"),
            lambda: self.server.fail_next("CONFIG NONSENSE"),
            lambda: self.server.fail_next("GET", "ERR two\r\nlines"),
            lambda: self.server.fail_next("GET", times=0),
            lambda: self.server.delay_next("GET", -1),
        ):
            with self.assertRaises(ValueError):
                order()
        self.assertEqual(self.server.faults_left, 0)

    def test_once_nothing_is_left_to_happen_nobody_looks_at_requests(self) -> None:
        # Without a slow log, which looks closely for a while when the computer was slow.
        with running(slow_log_threshold=-1) as server, Wire(server.port) as wire:
            service = server._service
            assert service
            server.fail_next("GET")
            self.assertTrue(service.instance.overseen)
            self.assert_answers(wire, ("GET a", "-ERR failed on purpose"))
            self.assertFalse(service.instance.overseen)
            server.fail_next("GET")
            server.forget_faults()
            self.assertFalse(service.instance.overseen)

    def test_what_takes_long_is_refused_once(self) -> None:
        many = "MGET" + " a" * 1000
        self.server.fail_next("MGET")
        self.assert_answers(self.wire(), (many, "-ERR failed on purpose"))
        self.assertEqual(self.server.faults_left, 0)


class DelayTest(ServerTest):
    def test_the_answer_comes_late(self) -> None:
        self.server.delay_next("GET", 0.05)
        begin = time.monotonic()
        self.db.get("a")
        self.assertGreaterEqual(time.monotonic() - begin, 0.05)

    def test_it_was_carried_out_and_nobody_else_waits(self) -> None:
        self.server.delay_next("INCR", 60)
        with self.wire() as late:
            late.socket.sendall(b"INCR a\r\n")
            until(lambda: self.db.get("a") == 1)
            self.assertEqual(self.server.faults_left, 0)

    def test_who_does_not_wait_so_long_gets_a_timeout(self) -> None:
        self.server.delay_next("SET", 60)
        with self.server.client(timeout=0.05) as db, self.assertRaises(kvdb.TimedOut):
            db.set("a", 1)
        self.assertEqual(self.db.get("a"), 1)

    def test_a_refusal_comes_late_too(self) -> None:
        self.db.set("a", "text")
        self.server.delay_next("INCR", 0.05)
        begin = time.monotonic()
        with self.assertRaises(kvdb.ServerError):
            self.db.incr("a")
        self.assertGreaterEqual(time.monotonic() - begin, 0.05)

    def test_http_answers_late(self) -> None:
        self.server.delay_next("GET", 0.05)
        begin = time.monotonic()
        self.assertEqual(ask_http(self.server.ports["http"], "/get?key=a").status, 404)
        self.assertGreaterEqual(time.monotonic() - begin, 0.05)

    def test_a_stop_does_not_wait_for_it(self) -> None:
        self.server.delay_next("GET", 60, times=2)
        wires = self.wire(), self.wire("http")
        wires[0].socket.sendall(b"GET a\r\n")
        wires[1].socket.sendall(b"GET /get?key=a HTTP/1.1\r\nHost: localhost\r\n\r\n")
        until(lambda: not self.server.faults_left)
        begin = time.monotonic()
        self.server.stop()
        self.assertLess(time.monotonic() - begin, 30)


class DisconnectTest(ServerTest):
    def test_the_request_is_not_answered_and_not_carried_out(self) -> None:
        self.server.disconnect_next("INCR")
        with self.assertRaises(kvdb.Disconnected):
            self.db.incr("a")
        self.assertIsNone(self.db.get("a"))
        self.assertEqual(self.db.incr("a"), 1)

    def test_it_may_have_been_carried_out(self) -> None:
        self.server.disconnect_next("INCR", after=True)
        with self.assertRaises(kvdb.Disconnected):
            self.db.incr("a")
        self.assertEqual(self.db.get("a"), 1)
        self.assertEqual(self.db.incr("a"), 2)

    def test_what_is_refused_is_not_answered_either(self) -> None:
        self.db.set("a", "text")
        self.server.disconnect_next("INCR", after=True)
        with self.wire() as wire:
            wire.socket.sendall(b"INCR a\r\n")
            self.assertEqual(wire.read_to_end(), b"")

    def test_requests_before_it_are_answered_those_behind_it_not_carried_out(self) -> None:
        self.server.disconnect_next("INCR")
        with self.wire() as wire:
            wire.socket.sendall(b"SET a 1\r\nINCR a\r\nSET a 3\r\n")
            self.assertEqual(wire.read_to_end(), b"+OK\r\n")
        self.assertEqual(self.db.get("a"), 1)

    def test_a_transaction_may_have_been_carried_out(self) -> None:
        for after, value in ((False, None), (True, 1)):
            self.server.disconnect_next("SET")  # queued, it is none of its own
            self.server.disconnect_next("EXEC", after=after)
            with self.wire() as wire:
                wire.socket.sendall(b"MULTI\r\nSET a 1\r\nEXEC\r\n")
                self.assertEqual(wire.read_to_end(), b"+OK\r\n+QUEUED\r\n")
            self.assertEqual(self.db.get("a"), value)

    def test_every_port_closes(self) -> None:
        http = "GET /get?key=a HTTP/1.1\r\nHost: localhost\r\n"
        for port, request in (
            ("main", '{"command": "GET", "args": {"key": "a"}}'),
            ("memcached", "get a"),
            ("haus", "GET a"),
            ("http", http),
        ):
            for after in (False, True):
                self.server.disconnect_next("GET", after=after)
                with self.subTest(port), self.wire(port) as wire:
                    wire.socket.sendall(f"{request}\r\n".encode())
                    self.assertEqual(wire.read_to_end(), b"")

    def test_what_takes_long_is_carried_out_before(self) -> None:
        self.server.disconnect_next("MSET", after=True)
        with self.wire() as wire:
            wire.socket.sendall(b"MSET" + b" a 1" * 1000 + b"\r\n")
            self.assertEqual(wire.read_to_end(), b"")
        self.assertEqual(self.db.get("a"), 1)


class RestartTest(ServerTest):
    def test_it_is_at_the_same_ports_with_the_same_data(self) -> None:
        ports = self.server.ports
        with self.wire() as wire, self.wire("memcached") as memcached:
            self.assert_answers(wire, ("SELECT 2", "+OK"), ("SET a 1 EX 60", "+OK"))
            self.assert_answers(memcached, ("set b 7 0 1\r\n2", "STORED"))
            self.server.restart()
            self.assertEqual((wire.read_to_end(), memcached.read_to_end()), (b"", b""))
        self.assertEqual(self.server.ports, ports)
        self.assert_answers(self.wire("memcached"), ("get b", "VALUE b 7 1\r\n2\r\nEND"))
        wire = self.wire()
        self.assert_answers(wire, ("SELECT 2", "+OK"), ("GET a", "$1\r\n1"))
        self.server.advance(60)
        self.assert_answers(wire, ("GET a", "$-1"))

    def test_it_may_lose_its_data(self) -> None:
        self.db.set("a", 1)
        self.server.restart(lose=True)
        self.assertIsNone(self.db.get("a"))

    def test_it_loses_what_was_not_saved(self) -> None:
        with (
            tempfile.TemporaryDirectory() as folder,
            running(data=Path(folder, "a.json")) as server,
        ):
            db = server.client()
            db.set("a", 1)
            server.restart()
            db.set("a", 2)
            server.restart(lose=True)
            self.assertEqual(db.get("a"), 1)

    def test_stopped_it_refuses_connections(self) -> None:
        self.db.set("a", 1)
        self.server.stop()
        self.server.stop()
        self.assertFalse(self.server.is_running)
        with self.assertRaises(kvdb.Disconnected):
            self.db.get("a")
        self.server.start()
        self.server.start()
        self.assertEqual(self.db.get("a"), 1)

    def test_time_passes_while_it_is_stopped(self) -> None:
        self.db.set("a", 1, ttl=60)
        self.server.stop()
        self.server.advance(60)
        self.server.start()
        self.assertIsNone(self.db.get("a"))

    def test_what_is_to_go_wrong_still_does(self) -> None:
        self.server.fail_next("GET")
        self.server.restart()
        with self.assertRaises(kvdb.ServerError):
            self.db.get("a")
