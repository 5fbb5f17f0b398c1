from __future__ import annotations

import contextlib
import dis
import json
import linecache
import math
import os
import socket
import sys
import tempfile
import threading
import time
import unittest
import warnings
from collections.abc import Callable
from pathlib import Path
from types import FrameType
from typing import Any
from unittest import mock

import kvdb
from kvdb.client import connection as client_connection
from kvdb.client.address import Address
from kvdb.client.pool import Pool
from kvdb.unsafe_pickle import PICKLE
from tests.support import running_server


class ClientTest(unittest.TestCase):
    def setUp(self) -> None:
        self.service = self.enterContext(running_server())
        self.port = self.service.server.port
        self.db = self.enterContext(kvdb.Client(port=self.port))

    def test_a_value_reads_back_as_it_was_set(self) -> None:
        for value in ({"name": "Ada", "tags": [1, 2.5, None, True]}, "text", 7, [], "ü€😀"):
            self.db.set("k", value)
            self.assertEqual(self.db.get("k"), value)

    def test_a_missing_key_reads_as_none_or_the_default(self) -> None:
        self.assertIsNone(self.db.get("missing"))
        self.assertEqual(self.db.get("missing", 5), 5)

    def test_a_stored_null_is_not_a_missing_key(self) -> None:
        self.db.set("k", None)
        self.assertIsNone(self.db.get("k", "default"))
        self.assertTrue(self.db.exists("k"))

    def test_delete_returns_how_many_there_were(self) -> None:
        self.db.mset({"a": 1, "b": 2})
        self.assertEqual(self.db.delete("a", "b", "c"), 2)
        self.assertFalse(self.db.exists("a"))

    def test_counters_read_back_as_ints(self) -> None:
        self.assertEqual(self.db.incr("hits"), 1)
        self.assertEqual(self.db.incr("hits", 10), 11)
        self.assertEqual(self.db.decr("hits"), 10)
        self.assertEqual(self.db.get("hits"), 10)

    def test_ttls_are_in_seconds_and_may_have_fractions(self) -> None:
        self.db.set("k", 1, ttl=100)
        self.assertAlmostEqual(self.db.ttl("k"), 100, delta=5)
        self.assertTrue(self.db.expire("k", 0.5))
        self.assertLessEqual(self.db.ttl("k") or 0, 0.5)
        self.assertFalse(self.db.expire("missing", 5))
        self.assertIsNone(self.db.ttl("missing"))
        self.db.set("k", 1)
        self.assertIsNone(self.db.ttl("k"))

    def test_many_values_are_set_and_got_in_their_order(self) -> None:
        self.db.mset({"a": 1, "b": "two"})
        self.assertEqual(self.db.mget(["b", "x", "a"]), ["two", None, 1])

    def test_scan_yields_every_key_once_and_binary_names_as_bytes(self) -> None:
        names = {f"user:{i}" for i in range(2500)}
        self.db.mset(dict.fromkeys(names, 0))
        self.db.set(b"\xff", 0)
        found = list(self.db.scan("user:*"))
        self.assertEqual(len(found), 2500)
        self.assertEqual(set(found), names)
        self.assertEqual(set(self.db.keys()), names | {b"\xff"})

    def test_a_refusal_is_raised_and_the_connection_goes_on(self) -> None:
        self.db.set("k", "text")
        with self.assertRaises(kvdb.ServerError) as caught:
            self.db.incr("k")
        self.assertEqual(caught.exception.code, "ERR")
        self.assertIn("not an integer", str(caught.exception))
        self.assertTrue(self.db.ping())
        self.assertEqual(self.service.instance.connections_received, 1)

    def test_serializers_are_chosen_not_guessed(self) -> None:
        with kvdb.Client(port=self.port, serializer=kvdb.TEXT) as text:
            text.set("k", "hello")
            self.assertEqual(text.get("k"), "hello")
        with kvdb.Client(port=self.port, serializer=kvdb.BYTES) as raw:
            raw.set("b", b"\x00\xff")
            self.assertEqual(raw.get("b"), b"\x00\xff")
            self.assertEqual(raw.get("k"), b"hello")
            with self.assertRaises(kvdb.SerializationError):
                raw.set("b", "text")
        with kvdb.Client(port=self.port, serializer=PICKLE) as pickled:
            pickled.set("p", {1, 2})
            self.assertEqual(pickled.get("p"), {1, 2})

    def test_what_is_not_json_is_an_error_and_the_connection_goes_on(self) -> None:
        with kvdb.Client(port=self.port, serializer=kvdb.TEXT) as text:
            text.set("k", "hello")
        with self.assertRaisesRegex(kvdb.SerializationError, "hello"):
            self.db.get("k")
        for value in (b"bytes", float("nan"), object()):
            with self.assertRaises(kvdb.SerializationError):
                self.db.set("k", value)
        self.assertTrue(self.db.ping())

    def test_bytes_like_values_are_stored_as_bytes(self) -> None:
        with kvdb.Client(port=self.port, serializer=kvdb.BYTES) as raw:
            for value in (b"abc", bytearray(b"abc"), memoryview(b"abc")):
                raw.set("b", value)
                self.assertEqual(raw.get("b"), b"abc")

    def test_databases_and_passwords_are_taken_care_of_on_connecting(self) -> None:
        with kvdb.Client(port=self.port, db=3) as third:
            third.set("k", 3)
        self.assertIsNone(self.db.get("k"))
        with running_server(password="secret") as service:
            port = service.server.port
            with kvdb.Client(port=port, password="secret") as good:
                self.assertTrue(good.ping())
            for client in (kvdb.Client(port=port), kvdb.Client(port=port, password="wrong")):
                with client, self.assertRaises(kvdb.ServerError) as caught:
                    client.ping()
                self.assertIn(caught.exception.code, ("NOAUTH", "WRONGPASS"))

    def test_threads_share_a_bounded_pool(self) -> None:
        with kvdb.Client(port=self.port, max_connections=3) as db:

            def count() -> None:
                for _ in range(50):
                    db.incr("hits")

            threads = [threading.Thread(target=count) for _ in range(10)]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()
            self.assertEqual(db.get("hits"), 500)
        self.assertLessEqual(self.service.instance.connections_received, 3 + 1)

    def test_a_counter_takes_whole_numbers_only(self) -> None:
        with self.assertRaises(TypeError):
            self.db.incr("hits", 1.5)  # type: ignore[arg-type]

    @unittest.skipUnless(hasattr(os, "fork"), "there is no fork here")
    def test_a_forked_child_does_not_read_its_parents_answers(self) -> None:
        self.db.set("k", "parent")
        children = []
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)  # of fork beside threads
            for number in range(3):
                child = os.fork()
                if not child:
                    ok = all(
                        self.db.set(f"k{number}", i) or self.db.get(f"k{number}") == i
                        for i in range(100)
                    )
                    os._exit(0 if ok else 1)
                children.append(child)
        for _ in range(100):
            self.assertEqual(self.db.get("k"), "parent")
        for child in children:
            self.assertEqual(os.waitpid(child, 0)[1], 0)

    def test_a_closed_client_refuses(self) -> None:
        self.db.close()
        with self.assertRaises(kvdb.Disconnected):
            self.db.ping()


class JSONTest(unittest.TestCase):
    """The serializer's short cuts give what json.dumps() and json.loads() give."""

    def outcome(self, function: Callable[..., object], *arguments: object) -> object:
        """Return the result and its type, or the text of the error."""
        try:
            result = function(*arguments)
        except (ValueError, TypeError, RecursionError) as error:
            return type(error), str(error)
        return repr(result), type(result)

    def test_values_become_the_bytes_that_dumps_gives(self) -> None:
        def dumps(value: object) -> bytes:
            return json.dumps(value, ensure_ascii=False, allow_nan=False).encode()

        circular: list[object] = []
        circular.append(circular)
        values = ("", "a", 'q"\\\n\x00\x7f', "ü€😀", "\u2028", "\ud800", 0, -7, 2**70, -(2**70),
                  10**5000, True, False, None, 1.5, -0.0, 1e300, math.nan, math.inf, [], {},
                  [1, "a", None], {"a": {"b": [1.0]}}, {1: 2, None: 3, False: 4}, (1, 2), b"a",
                  {1}, object, circular, type("Number", (int,), {})(5))  # fmt: skip
        for value in values:
            with self.subTest(value=repr(type(value))):
                self.assertEqual(self.outcome(kvdb.JSON.dump, value), self.outcome(dumps, value))

    def test_bytes_become_the_values_that_loads_gives(self) -> None:
        texts = ("7", "-7", "07", "-", "1.5", "1e3", "true", "null", "NaN", "Infinity", "-Infinity",
                 '"a"', '"ü€😀"', '"\\ud83d\\ude00"', '"\n"', '"\x00"', '"a', '""', "", " ", "{}",
                 "[]", ' {"a": [1, 2.0]} ', "7 ", " 7", "7\n", "7 8", "[1,]", "[1] ]", '{"a": 1, "a": 2}',
                 "hello", "\ufeff7", "7\x00", "\x007", "1" * 5000, "[" * 100_000)  # fmt: skip
        encoded = [
            text.encode(encoding)
            for text in texts
            for encoding in ("utf-8", "utf-8-sig", "utf-16", "utf-16-le", "utf-16-be", "utf-32-le")
        ]
        for data in (*encoded, b"\xff", b'"\xed\xa0\x80"', b'"\xc3"', b'"\x00a\x00"'):
            with self.subTest(data=data[:40]):
                self.assertEqual(self.outcome(kvdb.JSON.load, data), self.outcome(json.loads, data))


class PipelineTest(unittest.TestCase):
    def setUp(self) -> None:
        service = self.enterContext(running_server())
        self.db = self.enterContext(kvdb.Client(port=service.server.port))

    def test_results_come_in_the_order_of_the_commands(self) -> None:
        with self.db.pipeline() as pipe:
            pipe.set("a", {"x": 1})
            pipe.incr("n")
            pipe.get("a")
            pipe.mget(["a", "missing"])
            self.assertEqual(len(pipe), 4)
            self.assertEqual(pipe.execute(), [True, 1, {"x": 1}, [{"x": 1}, None]])
        self.assertEqual(len(pipe), 0)

    def test_leaving_the_block_executes_and_an_error_inside_does_not(self) -> None:
        with self.db.pipeline() as pipe:
            pipe.set("a", 1)
        self.assertEqual(self.db.get("a"), 1)
        with self.assertRaises(ZeroDivisionError), self.db.pipeline() as pipe:
            pipe.set("a", 2)
            raise ZeroDivisionError
        self.assertEqual(self.db.get("a"), 1)

    def test_an_error_keeps_its_place_or_is_raised_after_everything_was_read(self) -> None:
        self.db.set("text", "x")
        pipe = self.db.pipeline()

        def collect() -> None:
            for name in ("n", "text", "n"):
                pipe.incr(name)

        collect()
        with self.assertRaises(kvdb.ServerError):
            pipe.execute()
        collect()
        first, error, last = pipe.execute(return_errors=True)
        self.assertEqual((first, last), (3, 4))
        self.assertIsInstance(error, kvdb.ServerError)

    def test_a_pipeline_larger_than_every_buffer_does_not_block(self) -> None:
        value = "x" * 1000
        with self.db.pipeline() as pipe:
            for i in range(5000):
                pipe.set(f"k{i}", value)
                pipe.get(f"k{i}")
            self.assertEqual(pipe.execute()[1::2], [value] * 5000)

    def test_a_long_request_after_long_replies_does_not_block(self) -> None:
        value = "x" * 1_000_000
        self.db.set("big", value)
        with self.db.pipeline() as pipe:
            for _ in range(30):
                pipe.get("big")
            pipe.set("bigger", "y" * 15_000_000)
            self.assertEqual(pipe.execute()[:30], [value] * 30)


class ScriptedServer:
    """Accepts connections and gives each to the next function of a script."""

    def __init__(self, *script: Callable[[socket.socket], None]) -> None:
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._listener.settimeout(10)
        self.port: int = self._listener.getsockname()[1]
        self.accepted = 0
        self.ended = threading.Semaphore(0)  # released for each connection that was closed
        self._thread = threading.Thread(target=self._serve, args=(script,))
        self._thread.start()

    def _serve(self, script: tuple[Callable[[socket.socket], None], ...]) -> None:
        for act in script:
            connection, _ = self._listener.accept()
            self.accepted += 1
            with connection:
                act(connection)
            self.ended.release()

    def __enter__(self) -> ScriptedServer:
        return self

    def __exit__(self, *error: object) -> None:
        self._listener.close()
        self._thread.join(10)


def answering(reply: bytes, then_wait: bool = False) -> Callable[[socket.socket], None]:
    def act(connection: socket.socket) -> None:
        connection.recv(65536)
        connection.sendall(reply)
        if then_wait:
            connection.recv(65536)

    return act


class BrokenConnectionTest(unittest.TestCase):
    def client(self, server: ScriptedServer, timeout: float = 10) -> kvdb.Client:
        client = kvdb.Client(port=server.port, timeout=timeout, patience=0, serializer=kvdb.TEXT)
        self.addCleanup(client.close)
        return client

    def test_a_read_is_repeated_once_when_the_connection_breaks(self) -> None:
        with ScriptedServer(answering(b"$5\r\nhel"), answering(b"$5\r\nhello\r\n")) as server:
            self.assertEqual(self.client(server).get("k"), "hello")
            self.assertEqual(server.accepted, 2)

    def test_a_counter_is_never_repeated(self) -> None:
        with ScriptedServer(answering(b"")) as server:
            with self.assertRaises(kvdb.Disconnected):
                self.client(server).incr("k")
            self.assertEqual(server.accepted, 1)

    def test_a_second_failure_is_raised(self) -> None:
        with (
            ScriptedServer(answering(b""), answering(b"")) as server,
            self.assertRaises(kvdb.Disconnected),
        ):
            self.client(server).get("k")

    def test_a_late_answer_is_never_taken_for_another_one(self) -> None:
        late = threading.Event()

        def too_late(connection: socket.socket) -> None:
            connection.recv(65536)
            late.wait(10)
            connection.sendall(b"$5\r\nfirst\r\n")

        with ScriptedServer(too_late, answering(b"$6\r\nsecond\r\n")) as server:
            client = self.client(server, timeout=0.05)
            with self.assertRaises(kvdb.TimedOut):
                client.get("a")
            late.set()
            client._pool.address = Address("127.0.0.1", server.port, 10)
            self.assertEqual(client.get("b"), "second")

    def test_an_interrupt_in_the_middle_of_a_reply_closes_the_connection(self) -> None:
        with ScriptedServer(
            answering(b"$5\r\nfirst\r\n"), answering(b"$6\r\nsecond\r\n")
        ) as server:
            client = self.client(server)
            with (
                mock.patch.object(
                    client_connection.ReplyParser, "receive", side_effect=KeyboardInterrupt
                ),
                self.assertRaises(KeyboardInterrupt),
            ):
                client.get("a")
            self.assertEqual(client.get("b"), "second")

    def test_nonsense_from_the_server_is_a_broken_connection(self) -> None:
        with (
            ScriptedServer(answering(b"HTTP/1.1 400\r\n")) as server,
            self.assertRaises(kvdb.Disconnected),
        ):
            self.client(server).incr("k")

    def test_a_connection_that_the_server_closed_meanwhile_is_not_used_again(self) -> None:
        with ScriptedServer(answering(b":1\r\n"), answering(b":2\r\n")) as server:
            client = self.client(server)
            self.assertEqual(client.incr("k"), 1)
            self.assertTrue(server.ended.acquire(timeout=10))
            with mock.patch.object(client_connection, "_TRUSTED_IDLE", -1.0):
                self.assertEqual(client.incr("k"), 2)

    def test_nobody_listening_is_disconnected(self) -> None:
        with socket.create_server(("127.0.0.1", 0)) as listener:
            port = listener.getsockname()[1]
        with (
            kvdb.Client(port=port, patience=0) as client,
            self.assertRaises(kvdb.Disconnected),
        ):
            client.ping()

    def test_waiting_for_a_free_connection_times_out(self) -> None:
        with ScriptedServer(answering(b"", then_wait=True)) as server:
            client = kvdb.Client(port=server.port, timeout=0.05, max_connections=1)
            connection = client._pool.take()
            with self.assertRaisesRegex(kvdb.TimedOut, "in use"):
                client.ping()
            client._pool.give_back(connection)
            client.close()

    def test_a_request_for_which_there_is_no_room_arrives_whole(self) -> None:
        value, received = "x" * 20_000_000, bytearray()
        full = threading.Event()
        sendall = socket.socket.sendall

        def tell_and_send(of: socket.socket, data: bytes) -> None:
            full.set()
            sendall(of, data)

        def slow_to_read(connection: socket.socket) -> None:
            full.wait(10)
            while not received.endswith(b"x\r\n") and (data := connection.recv(1_000_000)):
                received.extend(data)
            connection.sendall(b"+OK\r\n")

        for sockets_are_files in (client_connection._SOCKETS_ARE_FILES, False):
            received.clear()
            full.clear()
            with (
                self.subTest(sockets_are_files=sockets_are_files),
                mock.patch.object(client_connection, "_SOCKETS_ARE_FILES", sockets_are_files),
                mock.patch.object(socket.socket, "sendall", tell_and_send),
                ScriptedServer(slow_to_read) as server,
            ):
                self.client(server).set("k", value)
                self.assertEqual(received[-20_000_002:], value.encode() + b"\r\n")

    def test_a_server_that_does_not_read_does_not_answer_in_time(self) -> None:
        timed_out = threading.Event()
        with ScriptedServer(lambda connection: bool(timed_out.wait(10))) as server:
            client = self.client(server, timeout=0.1)
            with self.assertRaises(kvdb.TimedOut):
                client._ask([[b"SET", b"k", b"x" * 50_000_000]], repeatable=False)
            timed_out.set()

    def test_without_a_timeout_requests_are_answered_too(self) -> None:
        with (
            ScriptedServer(answering(b"$5\r\nhello\r\n")) as server,
            kvdb.Client(port=server.port, timeout=None, serializer=kvdb.TEXT) as client,
        ):
            self.assertEqual(client.get("k"), "hello")


class PoolTest(unittest.TestCase):
    def setUp(self) -> None:
        service = self.enterContext(running_server())
        address = Address("127.0.0.1", service.server.port, 10)
        self.pool = Pool(address, 1)
        self.addCleanup(self.pool.close)

    def while_one_waits(self, act: Callable[[], None]) -> object:
        """Have a thread wait for a connection, then act; return what the thread got."""
        got: list[object] = []
        waiting = threading.Event()

        def take() -> None:
            try:
                got.append(self.pool.take())
            except kvdb.Error as error:
                got.append(error)

        wait = self.pool._changed.wait

        def tell_and_wait(timeout: float) -> bool:
            waiting.set()
            return wait(timeout)

        with mock.patch.object(self.pool._changed, "wait", tell_and_wait):
            thread = threading.Thread(target=take)
            thread.start()
            self.assertTrue(waiting.wait(10))
            act()  # takes the lock, which the other lets go of when it waits
            thread.join(10)
        return got.pop()

    def test_who_waits_gets_the_connection_that_is_given_back(self) -> None:
        connection = self.pool.take()
        got = self.while_one_waits(lambda: self.pool.give_back(connection))
        self.assertIs(got, connection)
        self.pool.give_back(connection)

    def test_who_waits_gets_a_new_one_when_a_broken_one_is_given_back(self) -> None:
        connection = self.pool.take()
        connection.close()
        got = self.while_one_waits(lambda: self.pool.give_back(connection))
        assert isinstance(got, client_connection.Connection)
        self.assertEqual(got.ask([[b"PING"]]), [b"PONG"])
        self.pool.give_back(got)

    def test_who_waits_is_refused_when_the_client_is_closed(self) -> None:
        connection = self.pool.take()
        self.assertIsInstance(self.while_one_waits(self.pool.close), kvdb.Disconnected)
        self.pool.give_back(connection)
        self.assertTrue(connection.closed)

    def test_a_fresh_one_takes_the_place_of_an_idle_one(self) -> None:
        idle = self.pool.take()
        self.pool.give_back(idle)
        fresh = self.pool.take(fresh=True)
        self.assertIsNot(fresh, idle)
        self.assertTrue(idle.closed)
        self.pool.give_back(fresh)
        self.assertIs(self.pool.take(), fresh)
        self.pool.give_back(fresh)


def silent_port() -> int:
    """Return a port on which nobody listens."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return int(listener.getsockname()[1])


class NothingToAskTest(unittest.TestCase):
    def test_nothing_to_get_set_or_delete_needs_no_server(self) -> None:
        with kvdb.Client(port=silent_port()) as client:
            self.assertEqual(client.mget([]), [])
            self.assertIs(client.mset({}), True)
            self.assertEqual(client.delete(), 0)
            self.assertEqual(client.pipeline().execute(), [])

    def test_in_a_pipeline_each_has_its_place_among_the_results(self) -> None:
        service = self.enterContext(running_server())
        with kvdb.Client(port=service.server.port) as client:
            pipe = client.pipeline()
            pipe.incr("n")
            pipe.mget(iter([]))
            pipe.mset({})
            pipe.delete()
            pipe.incr("n")
            self.assertEqual(pipe.execute(), [1, [], True, 0, 2])


class WhoAmITest(unittest.TestCase):
    def test_a_user_who_needs_no_password_is_not_the_default_one(self) -> None:
        port = self.enterContext(running_server()).server.port
        with kvdb.Client(port=port) as db:
            db.execute("ACL", "SETUSER", "bob", "on", "nopass", "+@all", "~*")
            db.execute("ACL", "SETUSER", "ann", "on", ">pw", "+@all", "~*")
        for client in (
            kvdb.Client(port=port, user="bob"), kvdb.Client.from_url(f"kvdb://bob@127.0.0.1:{port}"),
            kvdb.Client.from_url(f"redis://bob@127.0.0.1:{port}"),
        ):  # fmt: skip
            with client as db:
                self.assertEqual(db.execute("ACL", "WHOAMI"), b"bob")
        with (
            kvdb.Client(port=port, user="ann") as db,
            self.assertRaisesRegex(kvdb.ServerError, "WRONGPASS"),
        ):
            db.ping()

    def test_a_namespace_does_not_empty_the_whole_database(self) -> None:
        port = self.enterContext(running_server()).server.port
        with kvdb.Client(port=port) as db:
            db.set("k", 1)
            with self.assertRaises(ValueError):
                db.namespace("user:").clear()
            self.assertEqual(db.get("k"), 1)
            db.clear()
            self.assertEqual(db.size(), 0)

    def test_many_who_update_a_key_all_get_their_turn(self) -> None:
        port = self.enterContext(running_server()).server.port
        with kvdb.Client(port=port, max_connections=8) as db:
            threads = [
                threading.Thread(
                    target=lambda: [db.update("n", lambda old: (old or 0) + 1) for _ in range(15)]
                )
                for _ in range(8)
            ]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join(30)
            self.assertEqual(db.get("n"), 120)


class RestartTest(unittest.TestCase):
    """The server is stopped and started again while a client has idle connections."""

    def setUp(self) -> None:
        self.data = Path(self.enterContext(tempfile.TemporaryDirectory())) / "data.json"
        with running_server(data=self.data) as service:
            self.port = service.server.port
            self.db = kvdb.Client(port=self.port, max_connections=4)
            self.addCleanup(self.db.close)
            self.assertEqual(self.db.incr("n"), 1)
            pool = self.db._pool
            for connection in [pool.take() for _ in range(4)]:
                pool.give_back(connection)
            self.assertEqual(len(pool._idle), 4)
        self.service = self.enterContext(running_server(data=self.data, port=self.port))

    def test_a_counter_neither_fails_nor_counts_twice(self) -> None:
        self.assertEqual([self.db.incr("n"), self.db.decr("n"), self.db.incr("n")], [2, 1, 2])
        self.assertEqual(self.service.instance.connections_received, 1)

    def test_a_pipeline_does_not_fail_either(self) -> None:
        with self.db.pipeline() as pipe:
            pipe.incr("n")
            pipe.get("n")
            self.assertEqual(pipe.execute(), [2, 2])

    def test_a_read_finds_one_connection_broken_and_drops_the_idle_ones(self) -> None:
        idle = list(self.db._pool._idle)
        self.assertEqual(self.db.get("n"), 1)
        self.assertTrue(all(connection.closed for connection in idle))
        self.assertEqual(len(self.db._pool._idle), 1)
        self.assertEqual(self.service.instance.connections_received, 1)

    def test_all_places_of_the_pool_are_free_afterwards(self) -> None:
        self.assertEqual(self.db.get("n"), 1)
        pool = self.db._pool
        taken = [pool.take() for _ in range(4)]
        for connection in taken:
            self.assertEqual(connection.ask([[b"PING"]]), [b"PONG"])
            pool.give_back(connection)


class TimeoutTest(unittest.TestCase):
    """`timeout` is for the whole answer, however it comes."""

    def setUp(self) -> None:
        self.gone = threading.Event()
        self.addCleanup(self.gone.set)

    def dripping(self, reply: bytes, pause: float) -> Callable[[socket.socket], None]:
        def act(connection: socket.socket) -> None:
            connection.recv(65536)
            for byte in reply:
                try:
                    connection.sendall(bytes([byte]))
                except OSError:
                    return
                self.gone.wait(pause)

        return act

    def test_an_answer_that_drips_ends_at_the_timeout(self) -> None:
        reply = b"$100\r\n" + b"x" * 100 + b"\r\n"
        with (
            ScriptedServer(self.dripping(reply, 0.05), answering(b"$5\r\nhello\r\n")) as server,
            kvdb.Client(port=server.port, timeout=0.3, serializer=kvdb.TEXT) as client,
        ):
            began = time.monotonic()
            with self.assertRaises(kvdb.TimedOut):
                client.get("k")
            self.assertLess(time.monotonic() - began, 3)
            self.gone.set()
            self.assertEqual(client.get("k"), "hello")  # on another connection
            self.assertEqual(server.accepted, 2)

    def test_all_the_answers_to_a_pipeline_come_within_it(self) -> None:
        with (
            ScriptedServer(self.dripping(b":1\r\n" * 25, 0.05)) as server,
            kvdb.Client(port=server.port, timeout=0.3) as client,
        ):
            pipe = client.pipeline()
            for _ in range(25):
                pipe.incr("n")
            with self.assertRaises(kvdb.TimedOut):
                pipe.execute()
            self.gone.set()

    def test_a_slow_answer_within_it_is_taken_and_the_connection_goes_on(self) -> None:
        with running_server() as service, kvdb.Client(port=service.server.port) as client:
            client.set("k", "v" * 200_000)
            with mock.patch.object(client_connection, "_NOTICED", -1.0):
                self.assertEqual(client.get("k"), "v" * 200_000)
                with client.pipeline() as pipe:
                    pipe.get("k")
                    pipe.incr("k")
                    pipe.incr("n")
                    value, error, one = pipe.execute(return_errors=True)
            self.assertEqual((value, one), ("v" * 200_000, 1))
            self.assertIsInstance(error, kvdb.ServerError)
            (connection,) = client._pool._idle
            self.assertEqual(connection._socket.gettimeout(), 5.0)
            self.assertEqual(service.instance.connections_received, 1)


class PipelineTroubleTest(unittest.TestCase):
    def test_a_value_that_cannot_be_read_keeps_all_results(self) -> None:
        service = self.enterContext(running_server())
        service.store.set(b"text", b"no JSON")
        with kvdb.Client(port=service.server.port) as client:
            pipe = client.pipeline()

            def collect() -> None:
                for act in (pipe.incr, pipe.get, pipe.incr):
                    act("text" if act == pipe.get else "n")

            collect()
            with self.assertRaises(kvdb.SerializationError) as caught:
                pipe.execute()
            results = caught.exception.results
            assert results is not None
            self.assertEqual(results, [1, caught.exception, 2])
            self.assertEqual(len(pipe), 0)
            collect()
            first, error, last = pipe.execute(return_errors=True)
            self.assertEqual((first, last), (3, 4))
            self.assertIsInstance(error, kvdb.SerializationError)

    def test_the_first_of_several_errors_is_raised_with_all_results(self) -> None:
        service = self.enterContext(running_server())
        service.store.set(b"text", b"no JSON")
        with kvdb.Client(port=service.server.port) as client:
            pipe = client.pipeline()
            pipe.incr("text")
            pipe.mget(["text"])
            pipe.exists("text")
            with self.assertRaises(kvdb.ServerError) as caught:
                pipe.execute()
            results = caught.exception.results
            assert results is not None
            self.assertIs(results[0], caught.exception)
            self.assertIsInstance(results[1], kvdb.SerializationError)
            self.assertIs(results[2], True)

    def test_what_could_not_be_sent_stays_collected(self) -> None:
        service = self.enterContext(running_server())
        address = Address("127.0.0.1", service.server.port, 10)
        nowhere = Address("127.0.0.1", silent_port(), 10)
        with kvdb.Client(port=nowhere.port, patience=0) as client:
            pipe = client.pipeline()
            pipe.incr("n")
            pipe.incr("n", 10)
            with self.assertRaises(kvdb.Disconnected) as caught:
                pipe.execute()
            self.assertFalse(caught.exception.sent)
            self.assertEqual(len(pipe), 2)
            pipe.incr("n", 100)
            client._pool.address = address
            self.assertEqual(pipe.execute(), [1, 11, 111])

    def test_a_pipeline_for_which_no_connection_is_free_stays_collected(self) -> None:
        service = self.enterContext(running_server())
        with kvdb.Client(port=service.server.port, timeout=0.05, max_connections=1) as client:
            pipe = client.pipeline()
            pipe.incr("n")
            connection = client._pool.take()
            with self.assertRaises(kvdb.TimedOut) as caught:
                pipe.execute()
            self.assertEqual((caught.exception.sent, len(pipe)), (False, 1))
            client._pool.give_back(connection)
            client._pool.address = Address("127.0.0.1", service.server.port, 10)
            self.assertEqual(pipe.execute(), [1])

    def test_what_was_sent_is_not_sent_again(self) -> None:
        with (
            ScriptedServer(answering(b":1\r\n")) as server,
            kvdb.Client(port=server.port, timeout=10) as client,
        ):
            pipe = client.pipeline()
            pipe.incr("n")
            pipe.incr("n")
            with self.assertRaises(kvdb.Disconnected) as caught:
                pipe.execute()
            self.assertEqual((caught.exception.sent, len(pipe)), (True, 0))


class InterruptTest(unittest.TestCase):
    """Ctrl-C, or whatever a signal handler raises, may come at any line of the client."""

    FILES = tuple(
        str(path)
        for path in Path(kvdb.client.__file__).parent.glob("*.py")
        if "async" not in path.name
    )

    def setUp(self) -> None:
        self.enterContext(warnings.catch_warnings())
        warnings.simplefilter("ignore", ResourceWarning)  # of sockets that are just dropped
        self.service = self.enterContext(running_server())
        self.service.store.set(b"n", b"1")
        self.service.store.set(b"k", b"2")

    def interrupt(self, act: Callable[[], object], line: int | None) -> int:
        """Carry it out, interrupted at the line of that number; return how many it went through."""
        passed = 0

        def trace(frame: FrameType, event: str, argument: object) -> Any:
            nonlocal passed
            if frame.f_code.co_filename not in self.FILES:
                return None
            # A `with` is a line at its end, too, and so is the end of an `except`: there Python
            # lets no signal come between.
            code, line_number = frame.f_code, frame.f_lineno
            at_end = dis.opname[code.co_code[frame.f_lasti]] == "POP_EXCEPT"
            source = linecache.getline(code.co_filename, line_number).strip()
            if event == "line" and not at_end and not source.startswith("with "):
                passed += 1
                if passed == line:
                    raise KeyboardInterrupt
            return trace

        before = sys.gettrace()
        sys.settrace(trace)
        try:
            act()
        except KeyboardInterrupt:
            pass
        finally:
            sys.settrace(before)
        return passed

    def client(self) -> kvdb.Client:
        """Return a client whose pool has one place."""
        return kvdb.Client(port=self.service.server.port, timeout=2, max_connections=1)

    def check(
        self,
        prepare: Callable[[kvdb.Client], object],
        act: Callable[[kvdb.Client], object],
    ) -> None:
        """Interrupt `act` at each of its lines; the place must be free for another thread."""
        with self.client() as client:
            prepare(client)
            lines = self.interrupt(lambda: act(client), None)
        self.assertGreater(lines, 20)
        for line in range(1, lines + 1):
            with self.client() as client:
                prepare(client)
                self.interrupt(lambda: act(client), line)
                got: list[object] = []
                thread = threading.Thread(target=lambda: got.append(client.get("k")))  # noqa: B023
                thread.start()
                thread.join(10)
                self.assertEqual(got, [2], f"interrupted at line {line} of {lines}")

    def test_a_place_of_the_pool_is_never_lost_with_a_new_connection(self) -> None:
        self.check(lambda client: None, lambda client: client.get("n"))

    def test_nor_with_an_idle_one(self) -> None:
        self.check(lambda client: client.ping(), lambda client: client.get("n"))

    def test_nor_with_one_that_is_looked_at(self) -> None:
        self.check(lambda client: client.ping(), lambda client: client.incr("counter"))

    def test_nor_within_a_transaction(self) -> None:
        def change(client: kvdb.Client) -> None:
            client.transaction(lambda tx: tx.queued.set("other", tx.get("k")), "k")

        self.check(lambda client: client.ping(), change)

    def test_nor_within_a_pipeline(self) -> None:
        def change(client: kvdb.Client) -> None:
            with client.pipeline(atomic=True) as pipe:
                pipe.get("k")
                pipe.set("other", 1)

        self.check(lambda client: client.ping(), change)

    def test_nor_with_one_that_the_server_has_closed(self) -> None:
        def close(client: kvdb.Client) -> None:
            client.ping()
            (connection,) = client._pool._idle
            connection._socket.shutdown(socket.SHUT_RDWR)

        self.check(close, lambda client: client.incr("counter"))
        self.check(close, lambda client: client.get("n"))

    def test_nor_in_a_pipeline(self) -> None:
        def run(client: kvdb.Client) -> None:
            pipe = client.pipeline()
            pipe.get("n")
            pipe.get("k")
            self.assertEqual(pipe.execute(), [1, 2])

        self.check(lambda client: client.ping(), run)

    def test_an_interrupt_within_a_system_call_does_not_lose_one_either(self) -> None:

        def interrupt(*arguments: object, **named: object) -> None:
            raise KeyboardInterrupt

        for target, name in (
            (socket, "create_connection"),
            (client_connection, "encode_request"),
            (client_connection.os, "write"),
            (client_connection.ReplyParser, "receive"),
            (client_connection.ReplyParser, "next_reply"),
            (client_connection.Connection, "is_stale"),
            (Pool, "give_back"),
            (Pool, "_reserve"),
        ):
            for idle in (False, True):
                with self.subTest(name, idle=idle), self.client() as client:
                    if idle:
                        client.ping()
                    with (
                        mock.patch.object(target, name, interrupt),
                        contextlib.suppress(KeyboardInterrupt),
                    ):
                        client.get("n")
                    self.assertEqual(client.get("k"), 2)


if __name__ == "__main__":
    unittest.main()
