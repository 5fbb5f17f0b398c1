from __future__ import annotations

import asyncio
import gc
import inspect
import unittest
from typing import Any

import kvdb
from kvdb.client.async_client import AsyncClient
from kvdb.client.recipes import AsyncRecipes, LockLost, Throttled
from tests.support import ManualClock, running_server

DEADLINE = 10.0  # seconds within which what is waited for happens, or the test fails

Client: Any = AsyncClient
if not issubclass(AsyncClient, AsyncRecipes):
    Client = type("Client", (AsyncRecipes, AsyncClient), {})


class AsyncRecipeCase(unittest.IsolatedAsyncioTestCase):
    """A server whose time stands still until a test moves it."""

    async def asyncSetUp(self) -> None:
        service = self.enterContext(running_server())
        self.clock = ManualClock()
        service.store._clock = self.clock
        self.db = await self.enterAsyncContext(Client(port=service.server.port))

    async def until_locked(self, name: str) -> None:
        while not await self.db.exists(name):
            await asyncio.sleep(0)


class AsyncLockTest(AsyncRecipeCase):
    async def test_only_one_holds_it(self) -> None:
        async with self.db.lock("x") as lock:
            other = self.db.lock("x", wait=0.02)
            self.assertTrue(await lock.owned() and await other.is_locked())
            with self.assertRaisesRegex(kvdb.TimedOut, "^lock 'x' was not free within 0.02"):
                await other.acquire()
            with self.assertRaisesRegex(RuntimeError, "not re-entrant"):
                await lock.acquire()
        self.assertFalse(await lock.is_locked())

    async def test_tasks_exclude_each_other(self) -> None:
        await self.db.set("count", 0)

        async def count() -> None:
            async with self.db.lock("x"):
                await self.db.set("count", await self.db.get("count") + 1)

        await asyncio.wait_for(asyncio.gather(*(count() for _ in range(8))), DEADLINE)
        self.assertEqual(await self.db.get("count"), 8)

    async def test_a_lost_lock_is_told(self) -> None:
        with self.assertRaises(LockLost):
            async with self.db.lock("x", ttl=3):
                self.clock.now += 3
        with self.assertRaises(ZeroDivisionError):
            async with self.db.lock("x", ttl=3):
                self.clock.now += 3
                raise ZeroDivisionError

    async def test_who_is_cancelled_holds_nothing(self) -> None:
        async def hold() -> None:
            async with self.db.lock("x"):
                await asyncio.sleep(DEADLINE)

        for tries in range(8):  # before the request, after it, within the block
            task = asyncio.create_task(hold())
            for _ in range(tries):
                await asyncio.sleep(0)
            if tries == 7:
                await self.until_locked("x")
            task.cancel()
            with self.assertRaises(asyncio.CancelledError):
                await task
            self.assertFalse(await self.db.exists("x"), tries)

    async def test_a_task_extends_it_while_it_is_held(self) -> None:
        async with self.db.lock("x", ttl=0.03, extend=True) as lock:
            for _ in range(3):
                self.clock.now += 0.02
                async with asyncio.timeout(DEADLINE):
                    while (await self.db.ttl("x") or 0) < 0.025:
                        await asyncio.sleep(0.002)
            self.assertTrue(await lock.owned())
        self.assertEqual(self.extenders(), [])

    async def test_a_lock_that_is_lost_or_that_nobody_has_any_more_is_not_extended(self) -> None:
        await self.db.lock("x", ttl=0.03, extend=True).acquire()
        lock = self.db.lock("y", ttl=0.03, extend=True)
        await lock.acquire()
        await self.db.delete("y")
        gc.collect()
        async with asyncio.timeout(DEADLINE):
            while self.extenders():
                await asyncio.sleep(0.002)

    def extenders(self) -> list[str]:
        names = [task.get_name() for task in asyncio.all_tasks()]
        return [name for name in names if name.startswith("kvdb-extend")]

    async def test_a_semaphore_has_so_many_places(self) -> None:
        async with self.db.semaphore("s", 2) as first, self.db.semaphore("s", 2):
            self.assertEqual(await first.taken(), 2)
            with self.assertRaises(kvdb.TimedOut):
                await self.db.semaphore("s", 2, wait=0).acquire()
            await first.extend(100)


class AsyncLimitTest(AsyncRecipeCase):
    async def test_a_limiter_allows_exactly_its_limit(self) -> None:
        limiter = self.db.limiter("l", 10, per=60)
        hits = await asyncio.gather(*(limiter.hit() for _ in range(30)))
        self.assertEqual(hits.count(True), 10)
        self.assertEqual((await limiter.left(), await limiter.reset_in()), (0, 60))

    async def test_a_throttled_coroutine_is_refused_or_waits(self) -> None:
        async def double(number: int) -> int:
            return 2 * number

        refused = self.db.throttle("a", limit=1, per=60)(double)
        self.assertEqual(await refused(1), 2)
        with self.assertRaises(Throttled) as caught:
            await refused(1)
        self.assertEqual(caught.exception.retry_after, 60)
        waiting = self.db.throttle("b", limit=1, per=0.02, wait=True)(double)
        self.assertEqual(await waiting(1), 2)
        task = asyncio.create_task(waiting(2))
        while not task.done():
            self.clock.now += 0.01
            await asyncio.sleep(0.005)
        self.assertEqual(await task, 4)

    async def test_a_plain_function_needs_the_other_client(self) -> None:
        for decorate in (self.db.throttle(limit=1, per=1), self.db.cached(ttl=1)):
            with self.assertRaisesRegex(TypeError, "use a Client"):
                decorate(print)


class AsyncCachedTest(AsyncRecipeCase):
    async def asyncSetUp(self) -> None:
        await super().asyncSetUp()
        self.calls: list[int] = []
        self.computing = asyncio.Event()
        self.go_on = asyncio.Event()
        self.go_on.set()

    def cached(self, **options: Any) -> Any:
        @self.db.cached(**({"ttl": 60} | options))
        async def load(id: int) -> list[int]:
            self.calls.append(id)
            called = len(self.calls)
            self.computing.set()
            await self.go_on.wait()
            return [id, called]

        return load

    async def test_it_computes_once_until_the_ttl_has_passed(self) -> None:
        load = self.cached()
        self.assertTrue(inspect.iscoroutinefunction(load))
        self.assertEqual([await load(1), await load(1), await load(2)], [[1, 1], [1, 1], [2, 2]])
        self.clock.now += 60
        self.assertEqual(await load(1), [1, 3])

    async def test_of_many_tasks_one_computes(self) -> None:
        load = self.cached()
        self.go_on.clear()
        tasks = [asyncio.create_task(load(1)) for _ in range(20)]
        await self.computing.wait()
        self.go_on.set()
        results = await asyncio.wait_for(asyncio.gather(*tasks), DEADLINE)
        self.assertEqual(results, [[1, 1]] * 20)

    async def test_a_cancelled_computation_holds_nobody_up(self) -> None:
        load = self.cached()
        self.go_on.clear()
        task = asyncio.create_task(load(1))
        await self.computing.wait()
        task.cancel()
        with self.assertRaises(asyncio.CancelledError):
            await task
        self.go_on.set()
        self.assertFalse(await self.db.exists(load.key_of(1).replace("cached:", "cached-guard:")))
        self.assertEqual(await asyncio.wait_for(load(1), DEADLINE), [1, 2])

    async def test_the_old_value_is_served_while_one_computes(self) -> None:
        load = self.cached(stale=30)
        await load(1)
        self.clock.now += 60
        self.computing.clear()
        self.go_on.clear()
        task = asyncio.create_task(load(1))
        await self.computing.wait()
        self.assertEqual(await load(1), [1, 1])
        self.go_on.set()
        self.assertEqual([await task, await load(1)], [[1, 2], [1, 2]])

    async def test_values_are_refreshed_and_evicted_by_call_and_by_tag(self) -> None:
        load = self.cached(key="u:{id}", tags=("users", "user:{id}"))
        await load(1)
        self.assertEqual([await load.refresh(1), await load(1)], [[1, 2], [1, 2]])
        self.assertTrue(await load.evict(1))
        self.assertEqual(await load(1), [1, 3])
        await self.db.evict("user:1")
        self.assertEqual(await load(1), [1, 4])
        self.assertEqual(await load.__wrapped__(1), [1, 5])

    async def test_both_clients_share_locks_limits_and_values(self) -> None:
        # Only the names matter, so that a program may have coroutines here and threads there.
        load = self.cached(key="u:{id}", tags="t")
        await load(1)
        with kvdb.Client(port=self.db._options["port"]) as db:
            self.assertEqual(
                await asyncio.to_thread(db.cached(ttl=60, key="u:1", tags="t")(list)), [1, 1]
            )


if __name__ == "__main__":
    unittest.main()
