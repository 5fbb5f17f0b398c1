from __future__ import annotations

import asyncio
import gc
import inspect
import pickle
import tempfile
import unittest
import warnings
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any
from unittest import mock

import kvdb
from kvdb.client.async_client import AsyncClient
from kvdb.client.async_connection import AsyncConnection
from kvdb.client.async_pipeline import AsyncPipeline, AsyncTransaction
from kvdb.client.command import method
from kvdb.client.commands import Commands
from kvdb.client.transactions import Transaction
from kvdb.service import Service
from tests.certificates import client_context, write_certificates
from tests.support import running_server

Act = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


class Scripted:
    """A server that gives each connection to the next function of a script."""

    def __init__(self, *script: Act) -> None:
        self._script = list(script)
        self._tasks: set[asyncio.Task[Any]] = set()
        self.accepted = 0

    async def __aenter__(self) -> Scripted:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        self.port: int = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(self, *error: object) -> None:
        self._server.close()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await turns()  # so that the transports close

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        self.accepted += 1
        try:
            with suppress(ConnectionError, EOFError, asyncio.CancelledError):
                await self._script.pop(0)(reader, writer)
        finally:
            writer.transport.abort()


async def request_of(reader: asyncio.StreamReader) -> list[bytes]:
    """Read one request."""
    words = []
    for _ in range(int((await reader.readuntil(b"\n"))[1:])):
        length = int((await reader.readuntil(b"\n"))[1:])
        words.append((await reader.readexactly(length + 2))[:-2])
    return words


def answering(*replies: bytes, then_wait: bool = True) -> Act:
    """Answer the first requests with these, and then hear no more, or close the connection."""

    async def act(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        for reply in replies:
            await request_of(reader)
            writer.write(reply)
        await writer.drain()
        if then_wait:
            await reader.read()

    return act


async def silent(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Read all, and say nothing."""
    while await reader.read(65536):
        pass


class Echo:
    """Answers each GET with the name of its key, once `may_answer` is set."""

    def __init__(self) -> None:
        self.may_answer = asyncio.Event()
        self.asked: list[str] = []
        self.heard = asyncio.Semaphore(0)

    async def __call__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while True:
            name = (await request_of(reader))[1]
            self.asked.append(name.decode())
            self.heard.release()
            await self.may_answer.wait()
            writer.write(b"$%d\r\n%b\r\n" % (len(name), name))


async def turns(number: int = 3) -> None:
    """Let the event loop go round."""
    for _ in range(number):
        await asyncio.sleep(0)


def connection_of(db: AsyncClient[Any]) -> AsyncConnection:
    """Return the connection that all calls share."""
    connection = db._loops[asyncio.get_running_loop()]._shared
    assert connection is not None
    return connection


class AsyncCase(unittest.IsolatedAsyncioTestCase):
    async def client(self, port: int, **options: Any) -> AsyncClient[Any]:
        options = {"timeout": 10, "patience": 0, "serializer": kvdb.TEXT, **options}
        return await self.enterAsyncContext(AsyncClient("127.0.0.1", port, **options))


class WithServer(AsyncCase):
    async def asyncSetUp(self) -> None:
        self.service = self.enterContext(running_server())
        self.port = self.service.server.port
        self.db = await self.client(self.port, serializer=kvdb.JSON)


EVERY_COMMAND: list[tuple[str, tuple[Any, ...], dict[str, Any]]] = [
    ("set", ("a", {"x": 1}), {}),
    ("set", ("a", 2), {"if_absent": True}),
    ("get", ("a",), {}),
    ("get", ("missing", 7), {}),
    ("set_if_equal", ("a", {"x": 1}, 3), {}),
    ("get_and_set", ("a", 4), {"keep_ttl": True}),
    ("get_and_expire", ("a", 100), {}),
    ("persist", ("a",), {}),
    ("expire", ("a", 100), {}),
    ("get_and_expire", ("a", None), {}),
    ("ttl", ("a",), {}),
    ("get_and_delete", ("a",), {}),
    ("mset", ({"b": 1, "c": "two"},), {}),
    ("mset", ({},), {}),
    ("mget", (["c", "missing", "b"],), {}),
    ("mget", ([],), {}),
    ("get_many", (["c", "missing", "b"],), {}),
    ("compare_and_delete", ("c", "three"), {}),
    ("incr", ("n",), {}),
    ("decr", ("n", 5), {}),
    ("get_int", ("n",), {}),
    ("incr_float", ("f", 0.5), {}),
    ("append", ("s", b"abc"), {}),
    ("strlen", ("s",), {}),
    ("getrange", ("s", 0, 1), {}),
    ("setrange", ("s", 1, b"x"), {}),
    ("getbit", ("s", 1), {}),
    ("setbit", ("s", 1, 1), {}),
    ("bitcount", ("s",), {}),
    ("bitop", ("NOT", "t", "s"), {}),
    ("delete", ("t", "missing"), {}),
    ("exists", ("s",), {}),
    ("touch", ("s", "missing"), {}),
    ("rename", ("s", "u"), {}),
    ("copy", ("u", "v"), {}),
    ("dump", ("n",), {}),
    ("restore", ("w", b"\x00\xc0\x05\x0b\x00x\x91\xd5\x15\x7f4\xdaA"), {}),
    ("size", (), {}),
    ("ping", (), {}),
    ("publish", ("channel", "hello"), {}),
    ("eval", ("return {KEYS[1], ARGV[1]}", ["k"], [5]), {}),
    ("command", ("GET", "n"), {}),
    ("execute", ("INCRBY", "n", 2), {}),
    ("keys", ("[bn]*",), {}),
    ("delete_matching", ("[bn]*", 1), {}),
    ("update", ("z", lambda value: [value]), {}),
    ("incr", ("z",), {}),
    ("clear", (), {}),
    ("size", (), {}),
]


ONLY_FOR_THREADS = {
    "cached",
    "evict",
    "limiter",
    "lock",
    "semaphore",
    "stats",
    "subscribe",
    "throttle",
}
"""Methods of Client that AsyncClient does not have, nor the option `near_cache`."""


class SameAsClientTest(WithServer):
    async def test_every_command_has_the_result_that_client_has(self) -> None:
        def outcome_of(call: tuple[str, tuple[Any, ...], dict[str, Any]]) -> object:
            name, arguments, options = call
            try:
                return getattr(plain, name)(*arguments, **options)
            except kvdb.Error as error:
                return repr(error)

        with kvdb.Client(port=self.port, db=1) as plain:
            for call in EVERY_COMMAND:
                name, arguments, options = call
                try:
                    result = await getattr(self.db, name)(*arguments, **options)
                except kvdb.Error as error:
                    result = repr(error)
                self.assertEqual(result, outcome_of(call), name)

    def test_no_command_is_left_out_above(self) -> None:
        declared = {name for name, each in vars(Commands).items() if isinstance(each, method)}
        self.assertEqual(declared - {name for name, _, _ in EVERY_COMMAND}, set())

    def test_the_public_methods_and_their_parameters_are_the_same(self) -> None:
        def shape(cls: type) -> dict[str, list[tuple[str, object, object]]]:
            return {
                name: [
                    (each.name, each.kind, each.default)
                    for each in inspect.signature(member).parameters.values()
                ]
                for name, member in inspect.getmembers(cls, callable)
                if not name.startswith("_") or name == "__init__"
            }

        ours, theirs = shape(AsyncClient), shape(kvdb.Client)
        self.assertLessEqual(theirs.keys() - ours.keys(), ONLY_FOR_THREADS)
        theirs["__init__"] = [each for each in theirs["__init__"] if each[0] != "near_cache"]
        self.assertEqual(ours, {name: theirs.get(name) for name in ours})
        self.assertEqual(shape(AsyncPipeline), shape(kvdb.Pipeline))
        without_init = [shape(cls) for cls in (AsyncTransaction, Transaction)]
        for each in without_init:
            del each["__init__"]
        self.assertEqual(*without_init)


class AsyncClientTest(WithServer):
    async def test_a_hundred_coroutines_at_once_share_a_connection(self) -> None:
        async def count(number: int) -> None:
            for _ in range(10):
                await self.db.incr("hits")
                await self.db.set(f"k{number}", number)
                self.assertEqual(await self.db.get(f"k{number}"), number)

        await asyncio.gather(*map(count, range(100)))
        self.assertEqual(await self.db.get("hits"), 1000)
        self.assertEqual(self.service.instance.connections_received, 1)

    async def test_what_is_asked_in_one_turn_of_the_loop_is_sent_together(self) -> None:
        await asyncio.gather(*(self.db.set(f"k{number}", number) for number in range(100)))
        connection = connection_of(self.db)
        with mock.patch.object(
            connection, "_transport", mock.Mock(wraps=connection._transport)
        ) as transport:
            values = await asyncio.gather(*(self.db.get(f"k{number}") for number in range(100)))
        self.assertEqual(values, list(range(100)))
        self.assertEqual(transport.write.call_count, 1)

    async def test_a_refusal_is_raised_and_the_connection_goes_on(self) -> None:
        await self.db.set("k", "text")
        with self.assertRaises(kvdb.ServerError) as caught:
            await self.db.incr("k")
        self.assertEqual(caught.exception.code, "ERR")
        self.assertTrue(await self.db.ping())
        self.assertEqual(self.service.instance.connections_received, 1)

    async def test_what_cannot_be_written_or_read_is_an_error_and_the_connection_goes_on(
        self,
    ) -> None:
        with self.assertRaises(kvdb.SerializationError):
            await self.db.set("k", object())
        await self.db.execute("SET", "k", "no JSON")
        with self.assertRaises(kvdb.SerializationError):
            await self.db.get("k")
        self.assertTrue(await self.db.ping())

    async def test_scan_yields_every_key_once_and_binary_names_as_bytes(self) -> None:
        names = {f"user:{number}" for number in range(2500)}
        await self.db.mset(dict.fromkeys(names, 0))
        await self.db.set(b"\xff", 0)
        found = [name async for name in self.db.scan("user:*")]
        self.assertEqual(len(found), 2500)
        self.assertEqual(set(found), names)
        self.assertEqual(set(await self.db.keys()), names | {b"\xff"})
        self.assertEqual(await self.db.delete_matching("user:*", 100), 2500)

    async def test_a_namespace_shares_the_connection(self) -> None:
        users = self.db.namespace("user:").namespace("x:")
        await users.set("k", 1)
        self.assertEqual(await self.db.get("user:x:k"), 1)
        self.assertEqual(await users.keys(), ["k"])
        starred = self.db.namespace("u*")
        await starred.set("k", 1)
        self.assertEqual(await starred.keys(), ["k"])
        self.assertEqual(await users.update("k", lambda value: value + 1), 2)
        async with users.pipeline() as pipe:
            pipe.incr("k")
        self.assertEqual(await self.db.get("user:x:k"), 3)

    async def test_databases_and_passwords_are_taken_care_of_on_connecting(self) -> None:
        third = await self.client(self.port, db=3, name="worker")
        await third.set("k", "3")
        self.assertIsNone(await self.db.get("k"))
        self.assertEqual(await third.execute("CLIENT", "GETNAME"), b"worker")
        with running_server(password="secret") as service:
            good = await self.client(service.server.port, password="secret")
            self.assertTrue(await good.ping())
            for options in ({}, {"password": "wrong"}):
                db = await self.client(service.server.port, **options)
                results = await asyncio.gather(db.ping(), db.ping(), return_exceptions=True)
                for error in results:
                    assert isinstance(error, kvdb.ServerError)
                    self.assertIn(error.code, ("NOAUTH", "WRONGPASS"))

    async def test_a_client_can_be_made_of_a_url_and_sent_to_another_process(self) -> None:
        client = AsyncClient.from_url(f"kvdb://127.0.0.1:{self.port}/2?timeout=3")
        copy = pickle.loads(pickle.dumps(client.namespace("x:")))
        async with client, copy:
            await copy.set("k", 1)
            self.assertEqual(await client.get("x:k"), 1)
            self.assertEqual(copy._timeout, 3)

    async def test_over_tls_it_is_the_same(self) -> None:
        folder = Path(self.enterContext(tempfile.TemporaryDirectory()))
        write_certificates(folder)
        port = self.enterContext(running_server(tls_cert=folder / "server.pem")).server.port
        db = await self.client(port, tls=client_context(folder))
        await asyncio.gather(*(db.set(f"k{number}", "v" * 10_000) for number in range(100)))
        self.assertEqual(await db.get("k99"), "v" * 10_000)
        stranger = await self.client(port, tls=True)
        with self.assertRaisesRegex(kvdb.Disconnected, "certificate"):
            await stranger.ping()


class PipelineTest(WithServer):
    async def test_results_come_in_the_order_of_the_commands(self) -> None:
        async with self.db.pipeline() as pipe:
            hits, nothing = pipe.incr("hits"), pipe.mget([])
            pipe.set("k", "v")
            value = pipe.get("k")
            self.assertEqual(len(pipe), 4)
            with self.assertRaises(RuntimeError):
                _ = hits.value
        self.assertEqual((hits.value, nothing.value, value.value), (1, [], "v"))
        self.assertEqual(await pipe.execute(), [])

    async def test_an_error_inside_the_block_sends_nothing(self) -> None:
        with self.assertRaises(ZeroDivisionError):
            async with self.db.pipeline() as pipe:
                pipe.set("k", 1)
                _ = 1 / 0
        self.assertFalse(await self.db.exists("k"))

    async def test_an_error_keeps_its_place_or_is_raised_after_the_rest_was_done(self) -> None:
        await self.db.set("text", "x")
        for atomic in (False, True):
            pipe = self.db.pipeline(atomic=atomic)
            pipe.incr("text")
            pipe.set("k", atomic)
            error, done = await pipe.execute(return_errors=True)
            self.assertIsInstance(error, kvdb.ServerError)
            self.assertTrue(done)
            pipe.incr("text")
            pipe.get("k")
            with self.assertRaises(kvdb.ServerError) as caught:
                await pipe.execute()
            self.assertEqual((caught.exception.results or [])[1], atomic)

    async def test_pipelines_and_single_calls_do_not_get_each_others_replies(self) -> None:
        async def by_pipeline(number: int) -> None:
            async with self.db.pipeline(atomic=number % 2 == 0) as pipe:
                results = [pipe.eval(f"return {number}") for _ in range(20)]
            self.assertEqual([each.value for each in results], [number] * 20)

        async def one_by_one(number: int) -> None:
            self.assertEqual(await self.db.eval(f"return {number}"), number)

        await asyncio.gather(*(f(i) for i in range(30) for f in (by_pipeline, one_by_one)))

    async def test_a_pipeline_larger_than_every_buffer_does_not_block(self) -> None:
        value = "x" * 300_000
        pipe = self.db.pipeline()
        for _ in range(20):
            pipe.set("big", value)
            pipe.get("big")
        self.assertEqual(await pipe.execute(), [True, value] * 20)

    async def test_what_could_not_be_sent_stays_collected(self) -> None:
        with running_server() as service:
            port = service.server.port
        db = await self.client(port)
        pipe = db.pipeline()
        later = pipe.incr("n")
        with self.assertRaises(kvdb.Disconnected) as caught:
            await pipe.execute()
        self.assertFalse(caught.exception.sent)
        self.assertEqual(len(pipe), 1)
        with running_server(port=port):
            self.assertEqual(await pipe.execute(), [1])
        self.assertEqual(later.value, 1)


class TransactionTest(WithServer):
    async def test_it_is_repeated_until_nobody_else_changes_the_key(self) -> None:
        calls = []

        async def add(tx: AsyncTransaction[Any]) -> int:
            left = await tx.get("account", 0)
            calls.append(left)
            if len(calls) < 3:
                await self.db.incr("account", 10)  # somebody else comes between
            tx.queued.set("account", left + 1)
            return left + 1

        self.assertEqual(await self.db.transaction(add, "account"), 21)
        self.assertEqual(calls, [0, 10, 20])
        self.assertEqual(await self.db.get("account"), 21)
        self.assertEqual(self.service.instance.connections_received, 2)

    async def test_too_many_conflicts_are_an_error(self) -> None:
        async def disturbed(tx: AsyncTransaction[Any]) -> None:
            await self.db.incr("k")
            tx.queued.set("k", 0)

        with self.assertRaises(kvdb.Conflict):
            await self.db.transaction(disturbed, "k", tries=2)
        self.assertEqual(await self.db.get("k"), 2)

    async def test_updates_at_the_same_time_are_not_lost(self) -> None:
        db = await self.client(self.port, serializer=kvdb.JSON, max_connections=4)

        async def slowly(value: int | None) -> int:
            await asyncio.sleep(0)
            return (value or 0) + 1

        async def add(number: int) -> None:
            function = slowly if number % 2 else lambda value: (value or 0) + 1
            while True:
                with suppress(kvdb.Conflict):
                    return await db.update("n", function)

        await asyncio.gather(*map(add, range(20)))
        self.assertEqual(await db.get("n"), 20)
        self.assertLessEqual(self.service.instance.connections_received, 4)

    async def test_an_update_keeps_the_deadline_or_sets_one(self) -> None:
        await self.db.update("k", lambda value: 1, ttl=100)
        await self.db.update("k", lambda value: value + 1)
        self.assertGreater(await self.db.ttl("k") or 0, 50)

    async def test_a_function_that_queues_nothing_leaves_the_connection_as_it_was(self) -> None:
        async def read(tx: AsyncTransaction[Any]) -> Any:
            return await tx.get("k", "default")

        self.assertEqual(await self.db.transaction(read, "k"), "default")
        self.assertEqual(await self.db.transaction(read), "default")
        self.assertEqual(self.service.instance.connections_received, 1)

    async def test_an_error_in_the_function_closes_its_connection_and_writes_nothing(self) -> None:
        async def fail(tx: AsyncTransaction[Any]) -> None:
            tx.queued.set("k", 1)
            await tx.get("k")
            raise ZeroDivisionError

        with self.assertRaises(ZeroDivisionError):
            await self.db.transaction(fail, "k")
        self.assertFalse(await self.db.exists("k"))

    async def test_who_finds_no_free_connection_times_out(self) -> None:
        db = await self.client(self.port, max_connections=2)
        has_begun, may_end = asyncio.Event(), asyncio.Event()

        async def wait(tx: AsyncTransaction[Any]) -> None:
            has_begun.set()
            await may_end.wait()

        first = asyncio.create_task(db.transaction(wait))
        await has_begun.wait()
        db._timeout = 0.02
        with self.assertRaisesRegex(kvdb.TimedOut, "in use") as caught:
            await db.transaction(wait)
        db._timeout = 10
        self.assertFalse(caught.exception.sent)
        may_end.set()
        await first
        await db.transaction(wait)


class CancellationTest(AsyncCase):
    """A call that is cancelled, whenever it is, does not shift the replies to others."""

    async def asyncSetUp(self) -> None:
        self.echo = Echo()
        self.server = await self.enterAsyncContext(Scripted(self.echo))
        self.db = await self.client(self.server.port)

    def get(self, name: str) -> asyncio.Task[str | None]:
        return asyncio.create_task(self.db.get(name))

    async def assert_in_step(self, *running: asyncio.Task[str | None]) -> None:
        self.echo.may_answer.set()
        for name, task in zip("bcd", running, strict=False):
            self.assertEqual(await task, name)
        for name in ("x", "y"):
            self.assertEqual(await self.db.get(name), name)
        self.assertEqual(self.server.accepted, 1)

    async def connect(self) -> None:
        self.echo.may_answer.set()
        await self.db.get("first")
        self.echo.may_answer.clear()
        await self.echo.heard.acquire()
        self.echo.asked.clear()

    async def test_while_it_connects(self) -> None:
        cancelled, other = self.get("a"), self.get("b")
        await asyncio.sleep(0)
        cancelled.cancel()
        await self.assert_in_step(other)
        self.assertNotIn("a", self.echo.asked)

    async def test_before_it_was_written(self) -> None:
        await self.connect()
        other, cancelled, third = self.get("b"), self.get("a"), self.get("c")
        asyncio.get_running_loop().call_soon(cancelled.cancel)  # before the loop's next turn
        await self.assert_in_step(other, third)
        self.assertNotIn("a", self.echo.asked)

    async def test_while_it_waits_for_the_reply(self) -> None:
        await self.connect()
        cancelled, other = self.get("a"), self.get("b")
        await self.echo.heard.acquire()
        cancelled.cancel()
        with self.assertRaises(asyncio.CancelledError):
            await cancelled
        await self.assert_in_step(other)
        self.assertIn("a", self.echo.asked)

    async def test_when_the_reply_is_here_already(self) -> None:
        await self.connect()
        cancelled, other = self.get("a"), self.get("b")
        await self.echo.heard.acquire()
        connection = connection_of(self.db)
        self.echo.may_answer.set()
        while len(connection._waiting) == 2:
            await asyncio.sleep(0)
        cancelled.cancel()
        await self.assert_in_step(other)

    async def test_a_pipeline(self) -> None:
        await self.connect()
        pipe = self.db.pipeline()
        for _ in range(3):
            pipe.get("a")
        cancelled, other = asyncio.create_task(pipe.execute()), self.get("b")
        await self.echo.heard.acquire()
        cancelled.cancel()
        await self.assert_in_step(other)

    async def test_the_only_call_while_it_connects(self) -> None:
        cancelled = self.get("a")
        await asyncio.sleep(0)
        cancelled.cancel()
        await self.assert_in_step()


class TimeoutTest(AsyncCase):
    async def connect(self, server: Scripted) -> AsyncClient[Any]:
        """Return a client that has a connection, and waits no longer than 0.05 s from now on."""
        db = await self.client(server.port, timeout=0.05)
        db._timeout = 10
        self.assertTrue(await db.ping())
        db._timeout = 0.05
        return db

    async def test_a_silent_server_is_left(self) -> None:
        async with Scripted(answering(b"+PONG\r\n"), answering(b"$1\r\nx\r\n")) as server:
            db = await self.connect(server)
            with self.assertRaises(kvdb.TimedOut) as caught:
                await db.incr("n")
            self.assertTrue(caught.exception.sent)
            await connection_of(db).gone
            db._timeout = 10
            self.assertEqual(await db.get("k"), "x")
            self.assertEqual(server.accepted, 2)

    async def test_so_it_is_when_the_callers_have_given_up_before(self) -> None:
        async with Scripted(answering(b"+PONG\r\n"), answering(b"$1\r\nx\r\n")) as server:
            db = await self.connect(server)
            call = asyncio.create_task(db.get("k"))
            await asyncio.sleep(0)  # now it is written
            call.cancel()
            await connection_of(db).gone
            db._timeout = 10
            self.assertEqual(await db.get("k"), "x")

    async def test_a_call_that_is_late_leaves_its_place_while_others_are_answered(self) -> None:
        is_late = asyncio.Event()

        async def slow(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await request_of(reader)
            await request_of(reader)
            writer.write(b"$1\r\na\r\n")
            await is_late.wait()
            writer.write(b"$1\r\nb\r\n")
            await request_of(reader)
            writer.write(b"$1\r\nc\r\n")
            await reader.read()

        async with Scripted(slow) as server:
            db = await self.client(server.port, timeout=10)
            answered, late = asyncio.create_task(db.get("a")), asyncio.create_task(db.get("b"))
            self.assertEqual(await answered, "a")
            connection, loop = connection_of(db), asyncio.get_running_loop()
            with mock.patch.object(loop, "time", return_value=loop.time() + 10):
                connection.heard_at += 1  # another reply came meanwhile
                connection._check_deadlines()
            with self.assertRaises(kvdb.TimedOut):
                await late
            is_late.set()
            self.assertEqual(await db.get("c"), "c")
            self.assertEqual(server.accepted, 1)

    async def test_a_server_that_does_not_greet_is_an_unsent_request(self) -> None:
        async with Scripted(silent) as server:
            db = await self.client(server.port, timeout=0.05, password="secret")
            with self.assertRaisesRegex(kvdb.TimedOut, "does not answer") as caught:
                await db.incr("n")
            self.assertFalse(caught.exception.sent)

    async def test_a_tls_server_that_does_not_speak_is_left_without_a_trace(self) -> None:
        async with Scripted(silent) as server:
            db = await self.client(server.port, timeout=0.05, tls=True)
            with self.assertRaises(kvdb.TimedOut):
                await db.ping()

    async def test_without_a_timeout_there_is_no_timer(self) -> None:
        async with Scripted(answering(b"+PONG\r\n")) as server:
            db = await self.client(server.port, timeout=None)
            self.assertTrue(await db.ping())
            self.assertIsNone(connection_of(db)._timer)

    async def test_one_timer_is_enough_for_many_calls(self) -> None:
        with running_server() as service:
            db = await self.client(service.server.port)
            await db.ping()
            loop = asyncio.get_running_loop()
            with mock.patch.object(loop, "call_at", wraps=loop.call_at) as call_at:
                for _ in range(50):
                    await db.ping()
            self.assertEqual(call_at.call_count, 0)


class BrokenConnectionTest(AsyncCase):
    async def test_a_read_is_repeated_and_a_counter_is_not(self) -> None:
        script = answering(b"", then_wait=False), answering(b"$5\r\nhello\r\n")
        async with Scripted(*script) as server:
            db = await self.client(server.port)
            self.assertEqual(await db.get("k"), "hello")
        async with Scripted(*script) as server:
            db = await self.client(server.port)
            with self.assertRaises(kvdb.Disconnected) as caught:
                await db.incr("n")
            self.assertTrue(caught.exception.sent)
            self.assertEqual(server.accepted, 1)

    async def test_all_waiting_calls_fail_each_with_an_error_of_its_own(self) -> None:
        async with Scripted(answering(b":1\r\n", then_wait=False)) as server:
            db = await self.client(server.port)
            one, *errors = await asyncio.gather(
                *(db.incr("n") for _ in range(3)), return_exceptions=True
            )
            self.assertEqual(one, 1)
            self.assertEqual([type(error) for error in errors], [kvdb.Disconnected] * 2)
            self.assertIsNot(errors[0], errors[1])

    async def test_calls_that_were_not_written_are_tried_again_even_counters(self) -> None:
        blocked = asyncio.Event()

        async def deaf(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await blocked.wait()
            writer.transport.abort()

        counting = answering(*(b":%d\r\n" % number for number in range(1, 6)))
        async with Scripted(deaf, counting) as server:
            db = await self.client(server.port, patience=10)
            huge = asyncio.create_task(db.append("k", b"x" * 20_000_000))
            while not huge.done() and not (db._loops and connection_of(db)._waiting):
                await asyncio.sleep(0)
            counters = [asyncio.create_task(db.incr("n")) for _ in range(5)]
            await turns()
            self.assertEqual(len(connection_of(db)._unwritten), 5)  # the transport is full
            blocked.set()
            self.assertEqual(await asyncio.gather(*counters), [1, 2, 3, 4, 5])
            with self.assertRaises(kvdb.Disconnected):
                await huge

    async def test_what_the_transport_has_no_room_for_is_written_later(self) -> None:
        may_read = asyncio.Event()

        async def late(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await may_read.wait()
            while True:
                await request_of(reader)
                writer.write(b"+OK\r\n")

        async with Scripted(late) as server:
            db = await self.client(server.port)
            calls = [asyncio.create_task(db.set("k", "x" * 1_000_000)) for _ in range(30)]
            while not (db._loops and connection_of(db)._waiting):
                await asyncio.sleep(0)
            transport = connection_of(db)._transport
            assert transport is not None
            self.assertLess(transport.get_write_buffer_size(), 3_000_000)
            self.assertTrue(connection_of(db)._unwritten)
            may_read.set()
            self.assertEqual(await asyncio.gather(*calls), [True] * 30)

    async def test_a_transaction_whose_connection_broke_goes_no_further(self) -> None:
        async def stubborn(tx: AsyncTransaction[Any]) -> None:
            tx.queued.set("k", 1)
            with self.assertRaises(kvdb.Disconnected) as caught:
                await tx.get("k")
            self.assertTrue(caught.exception.sent)

        async with Scripted(answering(b"+OK\r\n", then_wait=False)) as server:
            db = await self.client(server.port, timeout=None)
            with self.assertRaises(kvdb.Disconnected) as caught:
                await db.transaction(stubborn, "k")
            self.assertFalse(caught.exception.sent)

    async def test_nonsense_from_the_server_is_a_broken_connection(self) -> None:
        async with Scripted(answering(b"HTTP/1.1 200 OK\r\n")) as server:
            db = await self.client(server.port)
            with self.assertRaisesRegex(kvdb.Disconnected, "not a reply"):
                await db.incr("n")

    async def test_a_reply_that_nobody_waits_for_ends_the_connection(self) -> None:
        async with Scripted(answering(b":1\r\n:7\r\n"), answering(b":2\r\n")) as server:
            db = await self.client(server.port)
            self.assertEqual(await db.incr("n"), 1)
            self.assertEqual(await db.incr("n"), 2)
            self.assertEqual(server.accepted, 2)

    async def test_a_server_that_loads_is_asked_again(self) -> None:
        loading = b"-LOADING it reads its data\r\n"
        async with Scripted(answering(loading, loading, b":1\r\n", loading, loading)) as server:
            db = await self.client(server.port, patience=5)
            self.assertEqual(await db.incr("n"), 1)
            db._patience = 0
            with self.assertRaises(kvdb.ServerError):
                await db.incr("n")

    async def test_nobody_listening_is_disconnected_and_tried_seldom(self) -> None:
        with running_server() as service:
            port = service.server.port
        db = await self.client(port, patience=0.1)
        loop = asyncio.get_running_loop()
        with mock.patch.object(loop, "create_connection", wraps=loop.create_connection) as connect:
            errors = await asyncio.gather(
                *(db.incr("n") for _ in range(100)), return_exceptions=True
            )
        self.assertEqual({type(error) for error in errors}, {kvdb.Disconnected})
        self.assertLess(connect.call_count, 20)


class RestartTest(AsyncCase):
    """The server is stopped and started again on its port."""

    async def asyncSetUp(self) -> None:
        data = Path(self.enterContext(tempfile.TemporaryDirectory())) / "data.json"
        self.config: dict[str, Any] = {"data": data, "port": 0}

    @contextmanager
    def server(self) -> Iterator[Service]:
        with running_server(**self.config) as service:
            self.config["port"] = service.server.port
            yield service

    async def connect(self) -> None:
        options = {"patience": 5, "serializer": kvdb.JSON}
        self.db = await self.client(self.config["port"], **options)
        self.assertEqual(await self.db.incr("n"), 1)

    async def test_calls_meanwhile_wait_for_the_server(self) -> None:
        with self.server():
            await self.connect()
        await connection_of(self.db).gone
        calls = [asyncio.create_task(self.db.incr("n")) for _ in range(10)]
        await asyncio.sleep(0.02)
        with self.server() as service:
            self.assertEqual(sorted(await asyncio.gather(*calls)), list(range(2, 12)))
            self.assertEqual(service.instance.connections_received, 1)

    async def test_a_counter_is_not_lost_on_a_connection_that_the_server_has_closed(self) -> None:
        with self.server():
            await self.connect()
        with self.server():
            # The event loop has not been round since the server was stopped.
            self.assertFalse(connection_of(self.db).closed)
            self.assertEqual(await self.db.incr("n"), 2)

    async def test_nor_is_a_pipeline_or_a_transaction(self) -> None:
        with self.server():
            await self.connect()
            self.assertEqual(await self.db.update("n", lambda value: value + 1), 2)
        with self.server():
            async with self.db.pipeline() as pipe:
                result = pipe.incr("n")
        self.assertEqual(result.value, 3)
        with self.server():
            self.assertEqual(await self.db.update("n", lambda value: value + 1), 4)


class ClosingTest(AsyncCase):
    async def test_calls_that_wait_fail_and_later_ones_are_refused(self) -> None:
        async with Scripted(silent, silent) as server:
            db = AsyncClient(port=server.port, patience=10)
            waiting = db.get("k"), db.incr("n"), db.update("k", lambda value: 1)
            calls = [asyncio.create_task(call) for call in waiting]
            while server.accepted < 2:
                await asyncio.sleep(0)
            await db.close()
            errors = await asyncio.gather(*calls, return_exceptions=True)
            for error in errors:
                self.assertIsInstance(error, kvdb.Disconnected)
                self.assertIn("the client has been closed", str(error))
            for call in (db.get("k"), db.update("k", lambda value: 1)):
                with self.assertRaises(kvdb.Disconnected) as caught:
                    await call
                self.assertFalse(caught.exception.sent)
            self.assertEqual(server.accepted, 2)

    async def test_it_may_be_closed_twice_at_once_and_without_having_been_used(self) -> None:
        async with Scripted(answering(b"+PONG\r\n")) as server:
            db = AsyncClient(port=server.port)
            await db.ping()
            await asyncio.gather(db.close(), db.close())
            await db.close()
        await AsyncClient().close()

    async def test_no_task_is_left_whenever_it_is_closed(self) -> None:
        before = asyncio.all_tasks()
        with running_server(password="secret") as service:
            for number in range(8):  # before, while and after it connects
                db = AsyncClient(port=service.server.port, password="secret")
                call = asyncio.create_task(db.get("k"))
                await turns(number)
                await db.close()
                await asyncio.gather(call, return_exceptions=True)
                self.assertEqual(asyncio.all_tasks(), before)

    async def test_a_client_that_is_forgotten_closes_its_connection(self) -> None:
        with warnings.catch_warnings(record=True) as caught:
            async with Scripted(answering(b"+PONG\r\n")) as server:
                db = AsyncClient(port=server.port)
                await db.ping()
                connection = connection_of(db)
                del db
                gc.collect()
                await connection.gone
        self.assertEqual(caught, [])


class SignatureTest(unittest.IsolatedAsyncioTestCase):
    """What help(), mocks and other tools are told of the methods."""

    def test_a_method_returns_what_its_signature_says(self) -> None:
        for cls, shown in (
            (kvdb.Client, "int"), (kvdb.AsyncClient, "int"), (kvdb.Transaction, "int"),
            (kvdb.Pipeline, "Later[int]"), (kvdb.AsyncPipeline, "Later[int]"),
        ):  # fmt: skip
            signature = inspect.signature(cls.incr)
            self.assertEqual((list(signature.parameters), signature.return_annotation),
                             (["self", "name", "amount"], shown))  # fmt: skip

    async def test_a_mock_of_the_client_can_be_awaited(self) -> None:
        self.assertTrue(asyncio.iscoroutinefunction(kvdb.AsyncClient.get))
        self.assertFalse(asyncio.iscoroutinefunction(kvdb.Client.get))
        for double in (
            mock.AsyncMock(spec=kvdb.AsyncClient),
            mock.create_autospec(kvdb.AsyncClient, instance=True),
        ):
            double.get.return_value = 5
            self.assertEqual(await double.get("a"), 5)


class EventLoopsTest(unittest.TestCase):
    def test_a_client_works_in_one_loop_after_the_other_and_leaves_nothing_open(self) -> None:
        for is_closed in (True, False):
            with (
                self.subTest(is_closed=is_closed),
                warnings.catch_warnings(record=True) as caught,
                running_server() as service,
            ):
                warnings.simplefilter("always")
                db = AsyncClient(port=service.server.port)

                async def count(db: AsyncClient[Any], is_closed: bool) -> int:
                    await db.update("k", lambda value: 1)
                    result: int = await db.incr("n")
                    if is_closed:
                        await db.close()
                    return result

                self.assertEqual([asyncio.run(count(db, is_closed)) for _ in range(3)], [1, 2, 3])
                self.assertEqual(len(db._loops), 1)
                del db
                gc.collect()
                self.assertEqual([str(each.message) for each in caught], [])

    def test_two_loops_in_two_threads_do_not_disturb_each_other(self) -> None:
        with running_server() as service:
            db = AsyncClient(port=service.server.port)

            async def count() -> None:
                for _ in range(100):
                    await db.incr("n")

            async def both() -> Any:
                await asyncio.gather(count(), asyncio.to_thread(asyncio.run, count()))
                return await db.get("n")

            self.assertEqual(asyncio.run(both()), 200)


if __name__ == "__main__":
    unittest.main()
