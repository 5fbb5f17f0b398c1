from __future__ import annotations

import asyncio
import contextlib
import itertools
import socket
import tempfile
import time
import unittest
from collections.abc import Awaitable, Callable
from contextlib import closing
from pathlib import Path
from typing import Any
from unittest import mock

import kvdb
from kvdb.client.address import Address
from kvdb.client.async_subscription import AsyncSubscription
from kvdb.client.messages import Message
from kvdb.client.serializers import JSON
from tests.certificates import client_context, write_certificates
from tests.support import running_server


async def until(is_so: Callable[[], Awaitable[bool]]) -> None:
    """Wait until something is so; fail after ten seconds."""
    deadline = time.monotonic() + 10
    while not await is_so():
        if time.monotonic() > deadline:
            raise AssertionError("it did not come about in time")
        await asyncio.sleep(0.001)


class AsyncSubscriptionTest(unittest.IsolatedAsyncioTestCase):
    async def asyncSetUp(self) -> None:
        self.port = self.enterContext(running_server()).server.port
        self.db = await self.enterAsyncContext(kvdb.AsyncClient(port=self.port))

    async def subscribe(self, *channels: str, **options: Any) -> AsyncSubscription[Any]:
        return await self.enterAsyncContext(self.db.subscribe(*channels, **options))

    async def reach(self, channel: str, value: object) -> None:
        """Publish until one subscriber gets it."""

        async def has_arrived() -> bool:
            return await self.db.publish(channel, value) == 1

        await until(has_arrived)

    async def break_connection(self, subscription: AsyncSubscription[Any]) -> None:
        """Have the server end it, and wait until the subscription has noticed."""
        before = subscription.reconnects
        await self.db.command("CLIENT", "KILL", "TYPE", "pubsub")

        async def is_back() -> bool:
            await subscription._receive(0.01)
            return subscription.reconnects > before

        await until(is_back)

    async def test_what_is_published_after_subscribing_comes_in_its_order(self) -> None:
        subscription = await self.subscribe("a", patterns=["user:*"])
        self.assertEqual(await self.db.publish("a", {"n": 1}), 1)
        self.assertEqual(await self.db.publish("user:1", "two"), 1)
        self.assertEqual(await subscription.get(5), Message("a", {"n": 1}))
        async for message in subscription:
            self.assertEqual(message, Message("user:1", "two", pattern="user:*"))
            break

    async def test_get_returns_none_when_nothing_comes_in_time(self) -> None:
        subscription = await self.subscribe("a")
        self.assertIsNone(await subscription.get(0))
        self.assertIsNone(await subscription.get(0.01))

    async def test_a_namespace_adds_its_prefix_and_takes_it_off(self) -> None:
        space = self.db.namespace("sp[a]ce*:")
        async with space.subscribe("news", patterns=["user:?"]) as subscription:
            await space.publish("news", 1)
            await space.publish("user:7", 2)
            await self.db.publish("news", 3)
            await self.db.publish("space:user:8", 4)
            await self.db.publish("sp[a]ce*:news", 5)
            received = [await subscription.get(5) for _ in range(3)]
        self.assertEqual(
            received, [Message("news", 1), Message("user:7", 2, "user:?"), Message("news", 5)]
        )

    async def test_channels_are_added_while_another_task_waits_and_taken_away(self) -> None:
        subscription = await self.subscribe()
        waiting = asyncio.create_task(subscription.get())
        await asyncio.sleep(0)
        await subscription.subscribe("a", patterns=["b*"])
        self.assertEqual(await self.db.publish("a", 1), 1)
        self.assertEqual(await waiting, Message("a", 1))
        await subscription.unsubscribe("a")
        self.assertEqual([await self.db.publish(name, 0) for name in ("a", "bb")], [0, 1])
        await subscription.unsubscribe()
        self.assertEqual(await self.db.publish("bb", 0), 0)
        self.assertEqual(await subscription.get(5), ("bb", 0, "b*", False))

    async def test_a_cancelled_task_takes_no_message_away(self) -> None:
        subscription = await self.subscribe("a")
        received: list[Any] = []

        async def take() -> None:
            while True:
                received.append((await subscription.get()).value)  # type: ignore[union-attr]

        async def cancel_often() -> None:
            turns = itertools.cycle(range(6))
            while len(received) < 200:
                task = asyncio.create_task(take())
                for _ in range(next(turns)):
                    await asyncio.sleep(0)
                task.cancel()
                await asyncio.wait([task])

        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(cancel_often())
            for number in range(200):
                await self.db.publish("a", number)
        self.assertEqual(received, list(range(200)))

    async def test_closing_ends_all_waiting_iterators_and_what_was_received(self) -> None:
        subscription = await self.subscribe("a")

        async def count() -> int:
            return len([message async for message in subscription])

        tasks = [asyncio.create_task(count()) for _ in range(3)]
        await asyncio.sleep(0)
        await subscription.close()
        self.assertEqual([await task for task in tasks], [0, 0, 0])
        self.assertIsNone(await subscription.get())

        async def nobody_listens() -> bool:
            return await self.db.publish("a", 1) == 0

        await until(nobody_listens)

    async def test_after_a_broken_connection_it_subscribes_again_and_says_so(self) -> None:
        subscription = await self.subscribe("a", patterns=["b*"])
        await self.db.publish("a", 1)
        self.assertEqual(await subscription.get(5), Message("a", 1))
        await self.break_connection(subscription)
        await self.db.publish("bb", 2)
        await self.db.publish("a", 3)
        self.assertEqual(await subscription.get(5), Message("bb", 2, "b*", after_gap=True))
        self.assertEqual(await subscription.get(5), Message("a", 3))
        self.assertEqual(subscription.reconnects, 1)

    async def test_an_unreadable_message_hands_its_gap_on(self) -> None:
        subscription = await self.subscribe("a")
        await self.break_connection(subscription)
        await self.db.command("PUBLISH", "a", "{")
        await self.db.publish("a", 1)
        with self.assertRaises(kvdb.SerializationError):
            await subscription.get(5)
        self.assertEqual(await subscription.get(5), Message("a", 1, after_gap=True))

    async def test_patience_ends_and_the_next_call_tries_again(self) -> None:
        with closing(socket.create_server(("127.0.0.1", 0))) as listener:
            port = listener.getsockname()[1]
        began = time.monotonic()
        with self.assertRaises(kvdb.Disconnected):
            await kvdb.AsyncClient(port=port).subscribe("a", patience=0.05).__aenter__()
        self.assertLess(time.monotonic() - began, 2)
        subscription = await self.subscribe("a", patience=0.05)
        with mock.patch.object(subscription, "_address", Address(port=port)):
            await self.db.command("CLIENT", "KILL", "TYPE", "pubsub")
            with self.assertRaises(kvdb.Disconnected):
                await subscription.get(5)
        await self.break_connection(subscription)
        await self.reach("a", 1)
        self.assertEqual(await subscription.get(5), Message("a", 1, after_gap=True))

    async def test_a_refused_subscription_raises_and_the_others_go_on(self) -> None:
        await self.db.command(
            "ACL", "SETUSER", "ann", "on", ">pw", "resetchannels", "&open", "+@all"
        )
        ann = await self.enterAsyncContext(
            kvdb.AsyncClient(port=self.port, user="ann", password="pw")
        )
        with self.assertRaises(kvdb.ServerError):
            await ann.subscribe("secret").__aenter__()
        async with ann.subscribe("open") as subscription:
            with self.assertRaises(kvdb.ServerError):
                await subscription.subscribe("secret")
            await self.db.publish("open", 1)
            self.assertEqual(await subscription.get(5), Message("open", 1))

    async def test_a_refusal_is_for_who_has_asked_and_does_not_last(self) -> None:
        await self.db.command(
            "ACL", "SETUSER", "ann", "on", ">pw", "resetchannels", "&ok*", "+@all"
        )
        ann = await self.enterAsyncContext(
            kvdb.AsyncClient(port=self.port, user="ann", password="pw")
        )
        async with ann.subscribe("ok") as subscription:
            results = await asyncio.gather(
                subscription.subscribe("ok2"), subscription.subscribe("secret"),
                subscription.subscribe("ok3"), subscription.unsubscribe("ok"),
                return_exceptions=True,
            )  # fmt: skip
            self.assertEqual(
                [type(each) for each in results], [type(None), kvdb.ServerError, *[type(None)] * 2]
            )
            given_up = asyncio.create_task(subscription.subscribe("secret2"))
            await asyncio.sleep(0)
            given_up.cancel()
            await self.break_connection(subscription)
            await self.reach("ok3", 1)
            self.assertEqual(await subscription.get(5), Message("ok3", 1, after_gap=True))

    async def test_who_polls_and_gives_up_each_time_has_a_connection_in_the_end(self) -> None:
        opened = asyncio.open_connection

        async def open_slowly(*arguments: Any, **options: Any) -> Any:
            await asyncio.sleep(0.1)
            return await opened(*arguments, **options)

        subscription = await self.subscribe("a")
        with mock.patch("asyncio.open_connection", open_slowly):
            await self.db.command("CLIENT", "KILL", "TYPE", "pubsub")

            async def is_back() -> bool:
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(subscription.get(), 0.01)
                return subscription.reconnects == 1

            await until(is_back)

    async def test_a_loop_that_was_busy_loses_nothing(self) -> None:
        async with kvdb.AsyncClient(port=self.port, timeout=0.2) as db:
            subscription = await self.enterAsyncContext(db.subscribe("a", ping_interval=0.05))
            self.assertIsNone(await subscription.get(0.06))  # it has asked for a sign
            with kvdb.Client(port=self.port) as other:
                other.publish("a", 1)
            time.sleep(0.3)  # the event loop looks at nothing
            self.assertEqual(await subscription.get(5), Message("a", 1))
            self.assertEqual(subscription.reconnects, 0)

    async def test_who_waits_while_it_connects_is_let_go_when_it_is_closed(self) -> None:
        subscription = await self.subscribe("a", patience=0.1)

        async def never(*arguments: Any, **options: Any) -> Any:
            await asyncio.sleep(60)

        with mock.patch("asyncio.open_connection", never):
            await self.db.command("CLIENT", "KILL", "TYPE", "pubsub")
            self.assertIsNone(await subscription.get(0.05))
            waiting = asyncio.create_task(subscription.get())
            await asyncio.sleep(0.01)
            await subscription.close()
            self.assertIsNone(await asyncio.wait_for(waiting, 5))

    async def test_it_subscribes_and_receives_through_tls(self) -> None:
        folder = Path(self.enterContext(tempfile.TemporaryDirectory()))
        write_certificates(folder)
        port = self.enterContext(running_server(tls_cert=folder / "server.pem")).server.port
        context = client_context(folder)
        async with (
            kvdb.AsyncClient("localhost", port, tls=context) as db,
            db.subscribe("a") as subscription,
        ):
            for number in range(10):
                await db.publish("a", [number, "x" * 20_000])
                await subscription.subscribe(str(number))
            numbers = [(await anext(subscription)).value[0] for _ in range(10)]
        self.assertEqual(numbers, list(range(10)))


class SilentServerTest(unittest.IsolatedAsyncioTestCase):
    """A peer that is there and says nothing, as after the loss of a network cable."""

    async def test_a_silent_server_is_asked_for_a_sign_and_then_given_up(self) -> None:
        heard: list[bytes] = []

        async def listen(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            heard.append(await reader.read(100))
            await reader.read(100)
            heard.append(b"closed")
            writer.close()

        async with await asyncio.start_server(listen, "127.0.0.1", 0) as server:
            address = Address(port=server.sockets[0].getsockname()[1], timeout=0.03)
            async with AsyncSubscription(address, JSON, ping_interval=0.02) as subscription:
                while subscription.reconnects == 0:
                    self.assertIsNone(await subscription.get(0.01))
        self.assertEqual(heard[:2], [b"*1\r\n$4\r\nPING\r\n", b"closed"])

    async def test_an_answer_to_the_ping_keeps_the_connection(self) -> None:
        async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            while await reader.read(100):
                writer.write(b"*2\r\n$4\r\npong\r\n$0\r\n\r\n")
            writer.close()

        async with await asyncio.start_server(answer, "127.0.0.1", 0) as server:
            address = Address(port=server.sockets[0].getsockname()[1], timeout=2)
            async with AsyncSubscription(address, JSON, ping_interval=0.01) as subscription:
                self.assertIsNone(await subscription.get(0.1))
                self.assertEqual(subscription.reconnects, 0)


if __name__ == "__main__":
    unittest.main()
