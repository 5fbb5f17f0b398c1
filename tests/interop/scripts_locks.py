"""Libraries that are there for locks: each is acquired, extended and released by its own calls."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import Iterator
from typing import Any

import redis.asyncio

from tests.interop.scripts_case import DEADLINE, HOUR, KVDB, LibraryCase


class Pottery(LibraryCase):
    packages = ("pottery",)

    def lock(self, **options: Any) -> Any:
        from pottery import Redlock

        options = {"masters": {self.client()}, "raise_on_redis_errors": True, **options}
        return Redlock(key="printer", **options)

    def test_a_redlock(self) -> None:
        from pottery.exceptions import ExtendUnlockedLock, ReleaseUnlockedLock, TooManyExtensions

        lock, other = self.lock(auto_release_time=100, num_extensions=2), self.lock()
        self.assertTrue(lock.acquire())
        self.assertFalse(other.acquire(blocking=False))
        self.assertTrue(80 < lock.locked() < 100)
        self.assertEqual(other.locked(), 0)
        for _ in "12":
            self.db.expire("redlock:printer", 10)
            lock.extend()
            self.assertIn(self.db.ttl("redlock:printer"), range(90, 101))
        with self.assertRaises(TooManyExtensions):
            lock.extend()
        with self.assertRaises(ReleaseUnlockedLock):
            other.release()
        with self.assertRaises(ExtendUnlockedLock):
            other.extend()
        lock.release()
        self.assertEqual((lock.locked(), self.db.dbsize()), (0, 0))
        with self.assertRaises(ReleaseUnlockedLock):
            lock.release()

    def test_a_redlock_of_three_masters(self) -> None:
        lock = self.lock(masters={self.client(db=number) for number in range(3)})
        self.assertTrue(lock.acquire())
        self.assertTrue(0 < lock.locked() < 10)
        lock.release()
        self.assertEqual(lock.locked(), 0)

    def test_threads_take_turns(self) -> None:
        self.count_under(self.lock, threads=4)

    def test_ids_are_given_once(self) -> None:
        from pottery import NextID

        ids = [NextID(key="tweets", masters={self.client()}, num_tries=100) for _ in "12"]
        self.assertEqual([next(ids[number % 2]) for number in range(10)], list(range(1, 11)))
        self.db.set("nextid:tweets", 10**15)
        self.assertEqual(next(ids[0]), 10**15 + 1)

    def test_in_asyncio(self) -> None:
        from pottery import AIONextID, AIORedlock

        async def converse() -> None:
            async with redis.asyncio.Redis.from_url(self.url) as db:
                lock, other = (AIORedlock(key="printer", masters={db}) for _ in "12")
                self.assertTrue(await lock.acquire())
                self.assertFalse(await other.acquire(blocking=False))
                await lock.extend()
                self.assertTrue(0 < await lock.locked() < 10)
                await lock.release()
                self.assertEqual(await lock.locked(), 0)
                ids = AIONextID(key="tweets", masters={db})
                self.assertEqual([await anext(ids) for _ in "123"], [1, 2, 3])

        asyncio.run(asyncio.wait_for(converse(), 60))


class Walrus(LibraryCase):
    """Its release wakes those that wait, over a list: it works on Redis only."""

    packages = ("walrus",)

    def database(self) -> Any:
        from walrus import Database

        database = Database(self.address.host, self.address.port)
        self.addCleanup(database.close)
        return database

    def test_a_lock(self) -> None:
        lock, other = self.database().lock("name", ttl=60_000), self.database().lock("name")
        self.assertTrue(lock.acquire())
        self.assertFalse(other.acquire(block=False))
        self.assertIn(self.db.pttl("lock:name"), range(40_000, 60_001))
        self.assertFalse(other.release())
        with self.refused_by_kvdb("lpush"):
            self.assertTrue(lock.release())
        self.assertEqual(self.db.exists("lock:name"), self.server == KVDB)
        lock.clear()
        self.assertTrue(other.acquire())
        self.assertEqual(self.db.pttl("lock:name"), -1)

    def test_compare_and_swap(self) -> None:
        database = self.database()
        self.db.set("k", "1:value")
        self.assertEqual(database.cas("k", "1:", "2:new"), 1)
        self.assertEqual(database.cas("k", "1:", "3:late"), 0)
        self.assertEqual(self.db.get("k"), "2:new")

    def test_its_rate_limit_and_its_arrays_need_other_types(self) -> None:
        database = self.database()
        with self.refused_by_kvdb("LLEN"):
            limiter = database.rate_limit_lua("events", limit=2, per=HOUR)
            self.assertEqual([limiter.limit("a") for _ in "123"], [False, False, True])
        with self.refused_by_kvdb("HLEN"):
            array = database.Array("array")
            array.extend(["a", "b", "c"])
            self.assertEqual((array.pop(), len(array)), (b"c", 2))
        self.assertEqual(self.db.exists("array"), self.server != KVDB)


class RedlockPy(LibraryCase):
    packages = ("redlock",)

    def manager(self, masters: int = 3, **options: Any) -> Any:
        from redlock import Redlock

        clients = [self.client(db=number) for number in range(masters)]
        return Redlock(clients, **{"retry_delay": 0.005, **options})

    def test_a_lock_on_three_masters(self) -> None:
        from redlock import Lock

        manager, other = self.manager(), self.manager()
        lock = manager.lock("name", 60_000)
        self.assertTrue(30_000 < lock.validity < 60_000)
        self.assertIs(other.lock("name", 60_000), False)
        other.unlock(Lock(0, "name", b"not the key of it"))
        self.assertEqual(self.client(db=2).get("name"), lock.key)
        manager.unlock(lock)
        self.assertTrue(all(self.client(db=number).dbsize() == 0 for number in range(3)))
        self.assertTrue(other.lock("name", 60_000))

    def test_threads_take_turns(self) -> None:
        manager = self.manager(masters=1, retry_count=10_000)

        @contextlib.contextmanager
        def locked() -> Iterator[None]:
            lock = manager.lock("name", 60_000)
            self.assertTrue(lock)
            try:
                yield
            finally:
                manager.unlock(lock)

        self.count_under(locked)
        self.assertEqual(self.db.exists("name"), 0)


class PythonRedisLock(LibraryCase):
    """Its release wakes those that wait, over a list: it works on Redis only."""

    packages = ("redis_lock",)

    def lock(self, **options: Any) -> Any:
        from redis_lock import Lock

        return Lock(self.client(), "name", **options)

    def test_a_lock(self) -> None:
        from redis_lock import NotAcquired, NotExpirable

        lock, other = self.lock(expire=60), self.lock()
        self.assertTrue(lock.acquire())
        self.assertFalse(other.acquire(blocking=False))
        self.assertTrue(other.locked())
        lock.extend(200)
        self.assertIn(self.db.ttl("lock:name"), range(150, 201))
        with self.assertRaises(NotAcquired):
            other.extend(10)
        with self.assertRaises(NotAcquired):
            other.release()
        with self.refused_by_kvdb("lpush"):
            lock.release()
        self.assertEqual(self.db.exists("lock:name"), self.server == KVDB)
        self.db.flushall()
        self.assertTrue(other.acquire())
        with self.assertRaises(NotExpirable):
            other.extend(10)

    def test_resets_need_lists(self) -> None:
        from redis_lock import reset_all

        self.lock().acquire()
        with self.refused_by_kvdb("lpush"):
            self.lock().reset()
            self.assertEqual(self.db.exists("lock:name"), 0)
        self.db.flushall()
        reset_all(self.client())
        self.db.set("lock:name", "x")
        with self.refused_by_kvdb("lpush"):
            reset_all(self.client())
            self.assertEqual(self.db.exists("lock:name"), 0)

    def test_waiting_needs_lists(self) -> None:
        lock, other = self.lock(), self.lock()
        lock.acquire()
        if self.server == KVDB:
            with self.refused_by_kvdb("BLPOP"):
                other.acquire()
            return
        thread = threading.Thread(target=other.acquire)
        thread.start()
        lock.release()
        thread.join(DEADLINE)
        self.assertEqual(self.db.get("lock:name"), other.id)


class Sherlock(LibraryCase):
    packages = ("sherlock",)

    def lock(self, **options: Any) -> Any:
        from sherlock import RedisLock

        options = {"expire": 60, "timeout": DEADLINE, "retry_interval": 0.005, **options}
        return RedisLock("name", namespace="ns", client=self.client(), **options)

    def test_a_lock(self) -> None:
        from sherlock import LockException, LockTimeoutException

        lock, other = self.lock(), self.lock(timeout=0.02)
        self.assertTrue(lock.acquire())
        self.assertFalse(other.acquire(blocking=False))
        with self.assertRaises(LockTimeoutException):
            other.acquire()
        self.assertTrue(other.locked())
        self.db.expire("ns_name", 10)
        self.assertTrue(lock.renew())
        self.assertIn(self.db.ttl("ns_name"), range(50, 61))
        self.db.set("ns_name", "somebody else's")
        self.assertFalse(lock.renew())
        with self.assertRaisesRegex(LockException, "not acquired by this instance"):
            lock.release()
        self.db.delete("ns_name")
        lock.acquire()
        lock.release()
        self.assertFalse(other.locked())

    def test_without_expiry_it_is_gone_at_once(self) -> None:
        # Its script compares a string to a number and sets an expiry of -1.
        lock = self.lock(expire=None)
        self.assertTrue(lock.acquire())
        self.assertFalse(lock.locked())

    def test_threads_take_turns(self) -> None:
        self.count_under(self.lock)
