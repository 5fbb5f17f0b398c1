"""Clients of Redis for Python; redis-py without asyncio is in interop_redis_py."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

from tests.interop.frameworks_case import FrameworkCase, run_async
from tests.interop.scripts_case import DEADLINE


class _SyncClient(FrameworkCase):
    """redis-py's calls, which valkey-py has, too."""

    def setUp(self) -> None:
        super().setUp()
        self.library_client = self.configured()
        self.addCleanup(self.library_client.close)

    def test_strings(self) -> None:
        client = self.library_client
        self.assertIs(client.set("k", b"\x00\xff"), True)
        self.assertEqual((client.get("k"), client.get("missing")), (b"\x00\xff", None))
        self.assertIsNone(client.set("k", "w", nx=True))
        client.mset({"a": 1, "b": 2})
        self.assertEqual(client.mget("a", "missing", "b"), [b"1", None, b"2"])
        self.assertEqual(sorted(client.scan_iter(match="[ab]")), [b"a", b"b"])
        self.assertEqual((client.delete("a", "b", "c"), client.exists("a", "k")), (2, 1))

    def test_expiry(self) -> None:
        client = self.library_client
        client.set("k", "v", ex=100)
        self.assertIn(client.ttl("k"), (99, 100))
        self.assertTrue(client.persist("k"))
        self.assertEqual((client.ttl("k"), client.ttl("missing")), (-1, -2))

    def test_counters(self) -> None:
        client = self.library_client
        self.assertEqual([client.incr("n"), client.incr("n", 9), client.decr("n", 3)], [1, 10, 7])
        self.assertEqual(client.incrbyfloat("f", 1.5), 1.5)

    def test_transactions(self) -> None:
        client = self.library_client

        def double(pipe: Any) -> None:
            number = int(pipe.get("n"))
            if number == 1:
                client.set("n", 5)  # somebody else's change: the transaction starts again
            pipe.multi()
            pipe.set("n", 2 * number)

        client.set("n", 1)
        self.assertEqual(client.transaction(double, "n"), [True])
        with client.pipeline() as pipe:
            self.assertEqual(pipe.incr("n").get("n").execute(), [11, b"11"])

    def test_locks(self) -> None:
        client = self.library_client
        with client.lock("l", timeout=100):
            self.assertFalse(client.lock("l", timeout=100).acquire(blocking=False))
            self.assertIn(client.ttl("l"), range(50, 101))
        self.assertEqual(client.exists("l"), 0)

    def test_publish_and_subscribe(self) -> None:
        client = self.library_client
        with client.pubsub() as subscriber:
            subscriber.subscribe("news")
            subscriber.psubscribe("n*")
            for kind in ("subscribe", "psubscribe"):
                self.assertEqual(subscriber.get_message(timeout=DEADLINE)["type"], kind)
            self.assertEqual(client.publish("news", "hello"), 2)
            messages = [subscriber.get_message(timeout=DEADLINE) for _ in "12"]
            self.assertEqual([each["data"] for each in messages], [b"hello"] * 2)
            self.assertEqual([each["type"] for each in messages], ["message", "pmessage"])

    def test_scripts(self) -> None:
        add = self.library_client.register_script("return redis.call('incrby', KEYS[1], ARGV[1])")
        self.assertEqual([add(["n"], [5]), add(["n"], [6])], [5, 11])


class ValkeyPy(_SyncClient):
    library = "valkey-py"
    distribution = "valkey"
    packages = ("valkey",)
    setting = "valkey.Valkey(port=4242)"


class ValkeyPyOverRESP3(_SyncClient):
    library = "valkey-py, RESP3"
    distribution = "valkey"
    packages = ("valkey",)
    setting = "valkey.Valkey(port=4242, protocol=3)"


class _AsyncClient(FrameworkCase):
    """The same calls of the asyncio clients."""

    def run_with_client(self, talk: Callable[[Any], Awaitable[None]]) -> None:
        async def run() -> None:
            async with self.configured() as client:
                await talk(client)

        run_async(run())

    def test_strings(self) -> None:
        async def talk(client: Any) -> None:
            self.assertIs(await client.set("k", b"\x00\xff"), True)
            self.assertEqual(await client.get("k"), b"\x00\xff")
            self.assertIsNone(await client.get("missing"))
            await client.mset({"a": 1, "b": 2})
            self.assertEqual(await client.mget(["a", "missing"]), [b"1", None])
            found = [key async for key in client.scan_iter(match="[ab]")]
            self.assertEqual(sorted(found), [b"a", b"b"])
            self.assertEqual(await client.delete("a", "b", "c"), 2)

        self.run_with_client(talk)

    def test_expiry(self) -> None:
        async def talk(client: Any) -> None:
            await client.set("k", "v", ex=100)
            self.assertIn(await client.ttl("k"), (99, 100))
            self.assertTrue(await client.persist("k"))
            self.assertEqual(await client.ttl("k"), -1)

        self.run_with_client(talk)

    def test_counters(self) -> None:
        async def talk(client: Any) -> None:
            counts = await asyncio.gather(*(client.incr("n") for _ in range(50)))
            self.assertEqual(sorted(counts), list(range(1, 51)))
            self.assertEqual(await client.decr("n", 8), 42)

        self.run_with_client(talk)

    def test_transactions(self) -> None:
        async def talk(client: Any) -> None:
            async with client.pipeline(transaction=True) as pipe:
                self.assertEqual(await pipe.set("n", 1).incr("n").execute(), [True, 2])
                await pipe.watch("n")
                await client.set("n", 5)
                pipe.multi()
                pipe.incr("n")
                with self.assertRaisesRegex(Exception, "(?i)watched variable changed"):
                    await pipe.execute()
            self.assertEqual(await client.get("n"), b"5")

        self.run_with_client(talk)

    def test_locks(self) -> None:
        async def talk(client: Any) -> None:
            async with client.lock("l", timeout=100):
                other = client.lock("l", timeout=100)
                self.assertFalse(await other.acquire(blocking=False))
                self.assertIn(await client.ttl("l"), range(50, 101))
            self.assertEqual(await client.exists("l"), 0)

        self.run_with_client(talk)

    def test_publish_and_subscribe(self) -> None:
        async def talk(client: Any) -> None:
            async with client.pubsub() as subscriber:
                await subscriber.subscribe("news")
                await subscriber.psubscribe("n*")
                messages = subscriber.listen()
                kinds = [(await anext(messages))["type"] for _ in "12"]
                self.assertEqual(kinds, ["subscribe", "psubscribe"])
                self.assertEqual(await client.publish("news", "hello"), 2)
                received = [await anext(messages) for _ in "12"]
                self.assertEqual([each["data"] for each in received], [b"hello"] * 2)

        self.run_with_client(talk)

    def test_scripts(self) -> None:
        async def talk(client: Any) -> None:
            add = client.register_script("return redis.call('incrby', KEYS[1], ARGV[1])")
            self.assertEqual([await add(["n"], [5]), await add(["n"], [6])], [5, 11])

        self.run_with_client(talk)


class RedisPyAsyncio(_AsyncClient):
    library = "redis-py, asyncio"
    distribution = "redis"
    packages = ("redis.asyncio", "redis.cluster", "redis.sentinel")
    setting = "redis.asyncio.Redis(port=4242, protocol=2)"

    def test_refused_cluster(self) -> None:
        from redis.asyncio.cluster import RedisCluster as AsyncCluster
        from redis.cluster import RedisCluster
        from redis.exceptions import RedisClusterException

        async def talk() -> None:
            async with AsyncCluster("127.0.0.1", self.address.port):
                self.fail("it believes to talk to a cluster")

        expected = "Cluster mode is not enabled on this node"
        with self.assertRaisesRegex(RedisClusterException, expected):
            RedisCluster("127.0.0.1", self.address.port)
        with self.assertRaisesRegex(RedisClusterException, expected):
            run_async(talk())
        self.note_refusal("RedisCluster", "a cluster")

    def test_refused_sentinel(self) -> None:
        from redis.sentinel import Sentinel

        sentinel = Sentinel([("127.0.0.1", self.address.port)])
        with self.refused("SENTINEL", "Sentinel"):
            sentinel.discover_master("name")


class RedisPyAsyncioOverRESP3(_AsyncClient):
    library = "redis-py, asyncio, RESP3"
    distribution = "redis"
    packages = ("redis.asyncio",)
    setting = "redis.asyncio.Redis(port=4242, protocol=3)"


class ValkeyPyAsyncio(_AsyncClient):
    library = "valkey-py, asyncio"
    distribution = "valkey"
    packages = ("valkey.asyncio",)
    setting = "valkey.asyncio.Valkey(port=4242)"


class Coredis(FrameworkCase):
    library = "coredis"
    distribution = "coredis"
    packages = ("coredis",)
    setting = "coredis.Redis(port=4242, decode_responses=True)"

    def run_with_client(self, talk: Callable[[Any], Awaitable[None]]) -> None:
        async def run() -> None:
            async with self.configured() as client:
                await talk(client)

        run_async(run())

    def test_strings(self) -> None:
        async def talk(client: Any) -> None:
            self.assertTrue(await client.set("k", "v"))
            self.assertEqual([await client.get("k"), await client.get("missing")], ["v", None])
            await client.mset({"a": 1, "b": 2})
            self.assertEqual(tuple(await client.mget(["a", "missing"])), ("1", None))
            self.assertEqual({key async for key in client.scan_iter(match="[ab]")}, {"a", "b"})
            self.assertEqual(await client.delete(["a", "b", "c"]), 2)

        self.run_with_client(talk)

    def test_expiry(self) -> None:
        async def talk(client: Any) -> None:
            await client.set("k", "v", ex=100)
            self.assertIn(await client.ttl("k"), (99, 100))
            self.assertTrue(await client.persist("k"))
            self.assertEqual(await client.ttl("k"), -1)

        self.run_with_client(talk)

    def test_counters(self) -> None:
        async def talk(client: Any) -> None:
            self.assertEqual([await client.incr("n"), await client.incrby("n", 9)], [1, 10])
            self.assertEqual(await client.decrby("n", 3), 7)

        self.run_with_client(talk)

    def test_transactions(self) -> None:
        async def talk(client: Any) -> None:
            async with client.pipeline(transaction=True) as pipe:
                stored, count = pipe.set("n", "1"), pipe.incr("n")
            self.assertEqual((await stored, await count), (True, 2))

        self.run_with_client(talk)

    def test_locks(self) -> None:
        async def talk(client: Any) -> None:
            async with client.lock("l", timeout=100):
                self.assertIn(await client.ttl("l"), range(50, 101))
            self.assertEqual(await client.exists(["l"]), 0)

        self.run_with_client(talk)

    def test_publish_and_subscribe(self) -> None:
        async def talk(client: Any) -> None:
            async with client.pubsub(channels=["news"]) as subscriber:
                messages = aiter(subscriber)
                self.assertEqual((await anext(messages))["type"], "subscribe")
                await client.publish("news", "hello")
                self.assertEqual((await anext(messages))["data"], "hello")

        self.run_with_client(talk)

    def test_scripts(self) -> None:
        async def talk(client: Any) -> None:
            add = client.register_script("return redis.call('incrby', KEYS[1], ARGV[1])")
            replies = [await add(keys=["n"], args=[number]) for number in (5, 6)]
            self.assertEqual(replies, [5, 11])

        self.run_with_client(talk)
