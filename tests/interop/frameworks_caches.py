"""Libraries for caching that belong to no framework; their locks are tested in scripts_caches."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

from tests.interop.frameworks_case import FrameworkCase, run_async
from tests.interop.scripts_case import in_threads


class _DogpileCache(FrameworkCase):
    distribution = "dogpile.cache"

    def region(self) -> Any:
        from dogpile.cache import make_region

        return make_region().configure(**self.configured())

    def test_values_of_any_type(self) -> None:
        from dogpile.cache.api import NO_VALUE

        region = self.region()
        for value in ("grüß", b"\x00\xff", 5, {"a": [1, None]}):
            region.set("k", value)
            self.assertEqual(region.get("k"), value)
        self.assertIs(region.get("missing"), NO_VALUE)
        region.delete("k")
        self.assertIs(region.get("k"), NO_VALUE)
        self.assertEqual(self.db.dbsize(), 0)

    def test_many_at_once(self) -> None:
        from dogpile.cache.api import NO_VALUE

        region = self.region()
        region.set_multi({"a": 1, "b": 2})
        self.assertEqual(region.get_multi(["a", "missing", "b"]), [1, NO_VALUE, 2])
        values = region.get_or_create_multi(["b", "c"], lambda *keys: [ord(key) for key in keys])
        self.assertEqual(values, [2, ord("c")])
        region.delete_multi(["a", "b", "c"])
        self.assertEqual(self.db.dbsize(), 0)

    def test_cached_functions(self) -> None:
        region, calls = self.region(), []

        @region.cache_on_arguments()
        def double(number: int) -> int:
            calls.append(number)
            return 2 * number

        self.assertEqual([double(1), double(2), double(1)], [2, 4, 2])
        double.invalidate(1)
        self.assertEqual([double(1), double(2)], [2, 4])
        self.assertEqual(calls, [1, 2, 1])

    def test_expiry(self) -> None:
        self.region().set("k", "v")
        self.assert_ttl("k", 1000)

    def test_one_of_many_creates_the_value(self) -> None:
        regions = [self.region() for _ in range(8)]
        created = []

        def create() -> str:
            created.append("value")
            return "value"

        values = in_threads(lambda: regions.pop().get_or_create("key", create), 8)
        self.assertEqual((values, created), (["value"] * 8, ["value"]))

    def test_locks(self) -> None:
        mutex, other = (self.region().backend.get_mutex("key") for _ in "12")
        self.assertTrue(mutex.acquire())
        self.assertFalse(other.acquire(wait=False))
        self.assert_ttl("_lockkey", 1000)
        mutex.release()
        self.assertTrue(other.acquire(wait=False))


class DogpileRedis(_DogpileCache):
    library = "dogpile.cache, redis"
    packages = ("dogpile.cache", "redis")
    setting = (
        "{'backend': 'dogpile.cache.redis', 'arguments': {'url': 'redis://127.0.0.1:4242',"
        " 'redis_expiration_time': 1000, 'distributed_lock': True, 'lock_timeout': 1000,"
        " 'thread_local_lock': False}}"
    )


class DogpilePymemcache(_DogpileCache):
    protocol = "memcached"
    library = "dogpile.cache, pymemcache"
    packages = ("dogpile.cache", "pymemcache")
    setting = (
        "{'backend': 'dogpile.cache.pymemcache', 'arguments': {'url': '127.0.0.1:11211',"
        " 'memcached_expire_time': 1000, 'distributed_lock': True, 'lock_timeout': 1000}}"
    )


class DogpilePylibmc(_DogpileCache):
    protocol = "memcached"
    library = "dogpile.cache, pylibmc"
    packages = ("dogpile.cache", "pylibmc")
    setting = (
        "{'backend': 'dogpile.cache.pylibmc', 'arguments': {'url': '127.0.0.1:11211',"
        " 'memcached_expire_time': 1000, 'distributed_lock': True, 'lock_timeout': 1000}}"
    )


class _AsyncCache(FrameworkCase):
    def run_with_cache(self, talk: Callable[[Any], Awaitable[None]]) -> None:
        async def run() -> None:
            async with self.configured() as cache:
                await talk(cache)

        run_async(run())


class _Aiocache(_AsyncCache):
    distribution = "aiocache"

    def test_values_of_any_type(self) -> None:
        async def talk(cache: Any) -> None:
            for value in ("grüß", 5, 2.5, {"a": [1, None]}):
                self.assertTrue(await cache.set("k", value))
                self.assertEqual(await cache.get("k"), value)
            self.assertIsNone(await cache.get("missing"))
            self.assertTrue(await cache.add("new", 1))
            with self.assertRaisesRegex(ValueError, "already exists"):
                await cache.add("k", 1)
            self.assertEqual([bool(await cache.exists(key)) for key in ("k", "x")], [True, False])
            self.assertEqual([await cache.delete("k") for _ in "12"], [1, 0])

        self.run_with_cache(talk)

    def test_many_at_once(self) -> None:
        async def talk(cache: Any) -> None:
            self.assertTrue(await cache.multi_set([("a", 1), ("b", "x")], ttl=1000))
            self.assertEqual(await cache.multi_get(["a", "missing", "b"]), [1, None, "x"])
            self.assert_ttl("a", 1000)

        self.run_with_cache(talk)

    def test_counters(self) -> None:
        async def talk(cache: Any) -> None:
            await cache.set("n", 5)
            self.assertEqual(await cache.increment("n", 10), 15)
            self.assertEqual(await cache.increment("n", -3), 12)
            self.assertEqual(await cache.increment("new", 4), 4)

        self.run_with_cache(talk)

    def test_expiry(self) -> None:
        async def talk(cache: Any) -> None:
            await cache.set("k", "v", ttl=1000)
            self.assert_ttl("k", 1000)
            self.assertTrue(await cache.expire("k", 2000))
            self.assert_ttl("k", 2000)

        self.run_with_cache(talk)

    def test_locks(self) -> None:
        from aiocache.lock import RedLock

        async def talk(cache: Any) -> None:
            async with RedLock(cache, "key", lease=60):
                self.assertIn(self.db.ttl("key-lock"), range(1, 61))
            self.assertEqual(self.db.exists("key-lock"), 0)

        self.run_with_cache(talk)

    def test_clear(self) -> None:
        async def talk(cache: Any) -> None:
            await cache.set("k", 1)
            self.assertTrue(await cache.clear())
            self.assertIsNone(await cache.get("k"))

        self.run_with_cache(talk)


class AiocacheRedis(_Aiocache):
    library = "aiocache, redis"
    packages = ("aiocache", "redis")
    setting = "aiocache.Cache(aiocache.Cache.REDIS, port=4242)"


class AiocacheMemcached(_Aiocache):
    library = "aiocache, memcached"
    protocol = "memcached"
    packages = ("aiocache", "aiomcache")
    setting = "aiocache.Cache(aiocache.Cache.MEMCACHED, port=11211)"


class Cashews(_AsyncCache):
    library = "cashews"
    distribution = "cashews"
    packages = ("cashews", "redis")
    setting = "{'settings_url': 'redis://127.0.0.1:4242', 'suppress': False}"

    def run_with_cache(self, talk: Callable[[Any], Awaitable[None]]) -> None:
        from cashews import Cache

        async def run() -> None:
            cache = Cache()
            cache.setup(**self.configured(), socket_timeout=20)
            try:
                await talk(cache)
            finally:
                await cache.close()

        run_async(run())

    def test_values_of_any_type(self) -> None:
        async def talk(cache: Any) -> None:
            for value in ("grüß", b"\x00\xff", 5, {"a": [1, None]}):
                self.assertTrue(await cache.set("k", value))
                self.assertEqual(await cache.get("k"), value)
            self.assertEqual(await cache.get("missing", "default"), "default")
            self.assertFalse(await cache.set("k", 1, exist=False))
            await cache.set_many({"a": 1, "b": "x"}, expire=1000)
            self.assertEqual(await cache.get_many("a", "missing", "b"), (1, None, "x"))
            self.assert_ttl("a", 1000)
            self.assertEqual({key async for key in cache.scan("[ab]")}, {"a", "b"})
            await cache.delete_match("[ab]*")
            self.assertEqual([await cache.exists(key) for key in "ak"], [False, True])
            self.assertEqual([await cache.delete("k") for _ in "12"], [True, False])

        self.run_with_cache(talk)

    def test_counters_and_expiry(self) -> None:
        async def talk(cache: Any) -> None:
            self.assertEqual([await cache.incr("n"), await cache.incr("n", 9)], [1, 10])
            await cache.expire("n", 1000)
            self.assertIn(await cache.get_expire("n"), range(990, 1001))

        self.run_with_cache(talk)

    def test_cached_functions(self) -> None:
        calls: list[int] = []

        async def talk(cache: Any) -> None:
            @cache(ttl="1h", key="double:{number}")
            async def double(number: int) -> int:
                calls.append(number)
                return 2 * number

            self.assertEqual([await double(number) for number in (1, 2, 1)], [2, 4, 2])
            self.assertEqual(calls, [1, 2])
            self.assert_ttl("double:1", 3600)

        self.run_with_cache(talk)
