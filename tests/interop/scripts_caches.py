"""Libraries that are there for caches: their counters, and the locks against a stampede."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Awaitable, Callable
from typing import Any

from redis.exceptions import LockError

from tests.interop.scripts_case import HOUR, LibraryCase, in_threads


class DjangoRedis(LibraryCase):
    packages = ("django_redis",)

    def setUp(self) -> None:
        from django.conf import settings

        super().setUp()
        if not settings.configured:
            settings.configure()
        from django_redis.cache import RedisCache

        self.cache: Any = RedisCache(self.url, {"TIMEOUT": HOUR})
        self.addCleanup(self.cache.close)

    def test_counters(self) -> None:
        cache = self.cache
        with self.assertRaisesRegex(ValueError, "not found"):
            cache.incr("n")
        cache.set("n", 1)
        self.assertEqual([cache.incr("n"), cache.incr("n", 10), cache.decr("n", 3)], [2, 12, 9])
        self.assertEqual((cache.get("n"), self.db.get(":1:n")), (9, "9"))
        self.assertIn(cache.ttl("n"), range(HOUR - 60, HOUR + 1))
        self.assertEqual(cache.incr("new", 5, ignore_key_check=True), 5)
        self.assertIsNone(cache.ttl("new"))
        self.assertEqual(cache.incr("n", version=1), 10)
        self.assertEqual(cache.incr_version("n"), 2)
        self.assertEqual(cache.decr("n", version=2), 9)

    def test_numbers_beyond_64_bits_and_other_values(self) -> None:
        cache = self.cache
        cache.set("big", 2**63 - 1, timeout=100)
        self.assertEqual(cache.incr("big"), 2**63)  # the script is refused: it reads and writes
        self.assertEqual((cache.incr("big"), cache.get("big")), (2**63 + 1, 2**63 + 1))
        self.assertIn(cache.ttl("big"), range(50, 101))
        cache.set("f", 1.5)
        self.assertEqual(cache.incr("f", 2), 3.5)

    def test_counters_add_up(self) -> None:
        self.cache.set("n", 0)
        counts = in_threads(lambda: [self.cache.incr("n") for _ in range(10)])
        self.assertEqual(sorted(number for each in counts for number in each), list(range(1, 161)))

    def test_a_lock(self) -> None:
        lock, other = (self.cache.lock("name", timeout=60, sleep=0.01) for _ in "12")
        with lock:
            self.assertFalse(other.acquire(blocking=False))
            self.assertEqual(self.cache.keys("*"), ["name"])
            lock.extend(60)
            self.assertIn(self.db.ttl(":1:name"), range(100, 121))
        with other, self.assertRaises(LockError):
            lock.release()
        self.count_under(lambda: self.cache.lock("name", timeout=60, sleep=0.005))


class DogpileCache(LibraryCase):
    packages = ("dogpile.cache",)

    def region(self) -> Any:
        from dogpile.cache import make_region

        arguments = {"url": self.url, "distributed_lock": True, "thread_local_lock": False}
        arguments |= {"lock_sleep": 0.01, "lock_timeout": 60}
        region = make_region().configure(
            "dogpile.cache.redis", expiration_time=HOUR, arguments=arguments
        )
        self.addCleanup(region.backend.writer_client.close)
        return region

    def test_one_of_many_creates_the_value(self) -> None:
        regions = [self.region() for _ in range(16)]
        created = []

        def create() -> str:
            created.append(threading.get_ident())
            time.sleep(0.05)  # so that the others come meanwhile
            return "value"

        values = in_threads(lambda: regions.pop().get_or_create("key", create))
        self.assertEqual((values, len(created)), (["value"] * 16, 1))
        self.assertEqual(self.db.keys(), ["key"])

    def test_its_mutex(self) -> None:
        mutex, other = (self.region().backend.get_mutex("key") for _ in "12")
        self.assertTrue(mutex.acquire())
        self.assertFalse(other.acquire(wait=False))
        self.assertTrue(other.locked())
        self.assertIn(self.db.ttl("_lockkey"), range(50, 61))
        mutex.release()
        self.assertTrue(other.acquire(wait=False))
        with self.assertRaises(LockError):
            mutex.release()
        other.release()


class Aiocache(LibraryCase):
    packages = ("aiocache",)

    def run_with_cache(self, talk: Callable[[Any], Awaitable[None]]) -> None:
        from aiocache import Cache

        async def run() -> None:
            async with Cache(
                Cache.REDIS, endpoint=self.address.host, port=self.address.port, namespace="ns"
            ) as cache:
                await talk(cache)

        asyncio.run(asyncio.wait_for(run(), 60))

    def test_a_lock_lets_one_of_many_create_the_value(self) -> None:
        from aiocache.lock import RedLock

        created = []

        async def talk(cache: Any) -> None:
            inside = asyncio.Event()

            async def get_or_create() -> Any:
                async with RedLock(cache, "key", lease=5):
                    value = await cache.get("key")
                    if value is None:
                        created.append(await cache.exists("key-lock"))
                        inside.set()
                        await asyncio.sleep(0.1)  # so that the others come meanwhile
                        value = "value"
                        await cache.set("key", value)
                    return value

            # Who comes while the first one is about to get the lock, or is releasing it, may
            # find out too little about it: it is let in at once, or has to wait for the lease.
            first = asyncio.create_task(get_or_create())
            await inside.wait()
            others = await asyncio.gather(*(get_or_create() for _ in range(15)))
            self.assertEqual([await first, *others], ["value"] * 16)
            self.assertEqual(created, [True])
            self.assertFalse(await cache.exists("key-lock"))
            async with RedLock(cache, "key", lease=60):
                self.db.set("ns:key-lock", "somebody else's")
            self.assertEqual(self.db.get("ns:key-lock"), "somebody else's")

        self.run_with_cache(talk)

    def test_an_optimistic_lock_notices_a_change(self) -> None:
        from aiocache.lock import OptimisticLock, OptimisticLockError

        async def talk(cache: Any) -> None:
            await cache.set("key", "a")
            async with OptimisticLock(cache, "key") as lock:
                self.assertTrue(await lock.cas("b"))
            self.assertEqual((await cache.get("key"), self.db.ttl("ns:key")), ("b", -1))
            async with OptimisticLock(cache, "key") as lock:
                self.assertTrue(await lock.cas("c", ttl=60))
            self.assertIn(self.db.ttl("ns:key"), range(50, 61))
            async with OptimisticLock(cache, "key") as lock:
                self.assertTrue(await lock.cas("d", ttl=0.5))
            self.assertIn(self.db.pttl("ns:key"), range(-2, 501))
            await cache.set("key", "e")
            async with OptimisticLock(cache, "key") as lock:
                await cache.set("key", "changed")
                with self.assertRaises(OptimisticLockError):
                    await lock.cas("f")
            self.assertEqual(await cache.get("key"), "changed")

        self.run_with_cache(talk)


class Cashews(LibraryCase):
    packages = ("cashews",)

    def run_with_cache(self, talk: Callable[[Any], Awaitable[None]]) -> None:
        from cashews import Cache

        async def run() -> None:
            cache = Cache()
            cache.setup(self.url, suppress=False, socket_timeout=20)  # suppress hides errors
            try:
                await talk(cache)
            finally:
                await cache.close()

        asyncio.run(asyncio.wait_for(run(), 60))

    def test_a_lock(self) -> None:
        inside = []

        async def talk(cache: Any) -> None:
            @cache.locked(key="name", ttl=60, check_interval=0.002)
            async def work() -> None:
                inside.append(1)
                self.assertEqual(len(inside), 1)
                number = int(await cache.get("counter") or 0)
                await cache.set("counter", number + 1)
                inside.pop()

            await asyncio.gather(*(work() for _ in range(16)))
            self.assertEqual(await cache.get("counter"), 16)
            async with cache.lock("name", expire=60):
                self.assertTrue(await cache.is_locked("name"))
                self.assertIn(self.db.ttl("name"), range(50, 61))
                self.assertFalse(await cache.unlock("name", "not the key of it"))
            self.assertFalse(await cache.is_locked("name"))

        self.run_with_cache(talk)

    def test_one_of_many_creates_the_value(self) -> None:
        calls: list[str] = []

        async def talk(cache: Any) -> None:
            @cache(ttl="1h", key="locked", lock=True)
            async def locked() -> int:
                calls.append("locked")
                await asyncio.sleep(0.02)  # so that the others come meanwhile
                return 1

            @cache.early(ttl="1h", early_ttl="30m", key="early")
            async def early() -> int:
                calls.append("early")
                return 2

            self.assertEqual(await asyncio.gather(*(locked() for _ in range(16))), [1] * 16)
            self.assertEqual([await early() for _ in "123"], [2] * 3)
            self.assertEqual(calls, ["locked", "early"])

        self.run_with_cache(talk)

    def test_rate_limits(self) -> None:
        from cashews.exceptions import RateLimitError

        async def talk(cache: Any) -> None:
            @cache.rate_limit(limit=20, period="1h", key="fixed")
            async def fixed() -> int:
                return 1

            @cache.slice_rate_limit(limit=2, period="1h", key="sliding")
            async def sliding() -> int:
                return 1

            calls = (fixed() for _ in range(50))
            replies = await asyncio.gather(*calls, return_exceptions=True)
            self.assertEqual(replies.count(1), 20)
            self.assertEqual(sum(isinstance(each, RateLimitError) for each in replies), 30)
            self.assertEqual(len(self.db.keys()), 1)
            self.assertIn(self.db.ttl(self.db.keys()[0]), range(HOUR - 60, HOUR + 1))
            with self.refused_by_kvdb("ZREMRANGEBYSCORE"):
                self.assertEqual([await sliding() for _ in "12"], [1, 1])
                with self.assertRaises(RateLimitError):
                    await sliding()

        self.run_with_cache(talk)
