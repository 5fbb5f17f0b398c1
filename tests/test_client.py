from __future__ import annotations

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
            with client._pool.borrow(), self.assertRaisesRegex(kvdb.TimedOut, "in use"):
                client.ping()
            client.close()
