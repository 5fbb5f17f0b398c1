from __future__ import annotations

import json
import math
import os
import socket
import threading
import unittest
import warnings
from collections.abc import Callable
from unittest import mock

import kvdb
from kvdb.client import connection as client_connection
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
        with kvdb.Client(port=self.port, serializer=kvdb.PICKLE) as pickled:
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
            self.assertEqual(pipe.execute(), [None, 1, {"x": 1}, [{"x": 1}, None]])
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
        client = kvdb.Client(port=server.port, timeout=timeout, serializer=kvdb.TEXT)
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
            client._pool.address = kvdb.client.connection.Address("127.0.0.1", server.port, 10)
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
        with kvdb.Client(port=port) as client, self.assertRaises(kvdb.Disconnected):
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
        address = client_connection.Address("127.0.0.1", service.server.port, 10)
        self.pool = client_connection.Pool(address, 1)
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

        wait_for = self.pool._changed.wait_for

        def tell_and_wait(*arguments: object) -> bool:
            waiting.set()
            return wait_for(*arguments)  # type: ignore[arg-type]

        with mock.patch.object(self.pool._changed, "wait_for", tell_and_wait):
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
