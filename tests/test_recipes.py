from __future__ import annotations

import contextlib
import gc
import os
import signal
import threading
import unittest
import warnings
from collections.abc import Callable, Iterator
from typing import Any
from unittest import mock

import kvdb
from kvdb.client.recipes import LockLost, steps
from kvdb.client.recipes.locks import Lock
from kvdb.client.recipes.scripts import TAKE
from kvdb.unsafe_pickle import PICKLE
from tests.support import ManualClock, running_server, until

A_LONG_TIME = 1e6  # seconds: the clock goes on quickly where many threads pause


class RecipeCase(unittest.TestCase):
    """A server and a client, in a time that goes on only while a recipe pauses."""

    def setUp(self) -> None:
        self.service = self.enterContext(running_server())
        self.clock = ManualClock()
        self.service.store._clock = self.clock
        self.db = self.client()
        self.slept: list[float] = []
        self.on_sleep: Callable[[], object] = lambda: None
        self.enterContext(mock.patch.object(steps, "_sleep", self.sleep))
        self.enterContext(mock.patch.object(steps, "_monotonic", self.clock))

    def client(self, **options: Any) -> kvdb.Client[Any]:
        return self.enterContext(kvdb.Client(port=self.service.server.port, **options))

    def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)
        self.clock.now += seconds
        self.on_sleep()

    def in_threads(self, number: int, function: Callable[[], object]) -> None:
        threads = [threading.Thread(target=function) for _ in range(number)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()

    @contextlib.contextmanager
    def in_child(self, function: Callable[[int], object]) -> Iterator[tuple[int, int]]:
        """Call a function in a child process; give its id, and where to read what it writes."""
        reading, writing = os.pipe()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)  # of fork beside threads
            child = os.fork()
        if not child:
            try:
                function(writing)
                os._exit(0)
            finally:
                os._exit(1)
        os.close(writing)
        try:
            yield child, reading
        finally:
            os.close(reading)


class Interrupted(kvdb.Client[Any]):
    """A client whose next request is carried out, and then interrupted."""

    interrupt = False

    def _run(self, command: Any) -> Any:
        result = super()._run(command)
        if self.interrupt:
            self.interrupt = False
            raise KeyboardInterrupt
        return result


needs_fork = unittest.skipUnless(hasattr(os, "fork"), "there is no fork here")


class LockTest(RecipeCase):
    def test_only_one_holds_it(self) -> None:
        with self.db.lock("x") as lock:
            self.assertTrue(lock.owned())
            other = self.db.lock("x", wait=0)
            self.assertTrue(other.is_locked())
            self.assertFalse(other.owned())
            with self.assertRaisesRegex(kvdb.TimedOut, "lock 'x' was not free within 0 seconds"):
                other.acquire()
            self.assertEqual(self.slept, [])
        self.assertFalse(lock.is_locked())
        with other:
            self.assertFalse(lock.owned())
            self.assertTrue(other.owned())

    def test_waiting_ends_after_the_time_that_was_given(self) -> None:
        self.db.lock("x", ttl=100).acquire()
        with self.assertRaises(kvdb.TimedOut):
            self.db.lock("x", wait=5).acquire()
        self.assertAlmostEqual(sum(self.slept), 5)

    def test_pauses_grow_and_vary_but_stay_short(self) -> None:
        self.db.lock("x", ttl=100).acquire()
        with self.assertRaises(kvdb.TimedOut):
            self.db.lock("x", wait=5).acquire()
        self.assertLess(self.slept[0], 0.01)
        self.assertLess(max(self.slept), 0.11)
        self.assertGreater(min(self.slept[5:-1]), 0.04)
        self.assertGreater(len(set(self.slept)), 10)

    def test_who_waits_gets_it_when_it_is_released(self) -> None:
        lock = self.db.lock("x", ttl=1000)
        lock.acquire()
        pauses = iter(range(20))
        self.on_sleep = lambda: next(pauses) == 19 and lock.release()
        with self.db.lock("x"):
            self.assertEqual(len(self.slept), 20)

    def test_a_holder_that_died_holds_it_for_the_ttl_and_no_longer(self) -> None:
        self.db.lock("x", ttl=3).acquire()
        with self.db.lock("x"):
            self.assertGreaterEqual(sum(self.slept), 3)
            self.assertLess(sum(self.slept), 3.11)

    def test_a_lost_lock_cannot_be_released_and_the_next_holder_keeps_it(self) -> None:
        late = self.db.lock("x", ttl=3)
        late.acquire()
        self.clock.now += 3
        with self.db.lock("x") as lock:
            self.assertFalse(late.owned())
            with self.assertRaisesRegex(LockLost, "lock 'x' was lost"):
                late.extend()
            with self.assertRaisesRegex(LockLost, "lock 'x' was lost"):
                late.release()
            self.assertTrue(lock.owned())

    def test_a_lock_that_was_lost_within_the_block_is_told_at_its_end(self) -> None:
        with self.assertRaises(LockLost), self.db.lock("x", ttl=3):
            self.clock.now += 3

    def test_a_lost_lock_does_not_hide_what_went_wrong_within_the_block(self) -> None:
        with self.assertRaises(ZeroDivisionError), self.db.lock("x", ttl=3):
            self.clock.now += 3
            raise ZeroDivisionError

    def test_an_error_within_the_block_releases_it(self) -> None:
        with self.assertRaises(ZeroDivisionError), self.db.lock("x"):
            raise ZeroDivisionError
        self.assertFalse(self.db.lock("x").is_locked())

    def test_extending_counts_from_now_and_never_shortens(self) -> None:
        with self.db.lock("x", ttl=3) as lock:
            self.clock.now += 2
            lock.extend()
            self.assertEqual(self.db.ttl("x"), 3)
            lock.extend(60)
            lock.extend(1)
            self.assertEqual(self.db.ttl("x"), 60)

    def test_it_is_not_re_entrant(self) -> None:
        with self.db.lock("x") as lock:
            with self.assertRaisesRegex(RuntimeError, "not re-entrant"):
                lock.acquire()
            self.assertTrue(lock.owned())

    def test_what_was_not_acquired_cannot_be_released_or_extended(self) -> None:
        lock = self.db.lock("x")
        for method in (lock.release, lock.extend):
            with self.assertRaisesRegex(RuntimeError, "not acquired"):
                method()
        with lock:
            pass
        with self.assertRaisesRegex(RuntimeError, "not acquired"):
            lock.release()

    def test_a_ttl_is_more_than_nothing(self) -> None:
        for ttl in (0, -1, float("nan")):
            with self.assertRaisesRegex(ValueError, "ttl must be more than 0"):
                self.db.lock("x", ttl=ttl)

    def test_namespaces_have_locks_of_their_own(self) -> None:
        with self.db.namespace("a:").lock("x"), self.db.namespace("b:").lock("x", wait=0):
            self.assertEqual(set(self.db.keys()), {"a:x", "b:x"})

    def test_recipes_work_with_every_serializer(self) -> None:
        for serializer in (kvdb.JSON, kvdb.TEXT, kvdb.BYTES, PICKLE, kvdb.JSON.compressed(0)):
            db = self.client(serializer=serializer)
            with db.lock("x", wait=0) as lock, db.semaphore(b"\xff", 1, wait=0) as semaphore:
                lock.extend()
                self.assertTrue(lock.owned() and semaphore.owned())
            self.assertTrue(db.limiter(serializer.name, 1, 60).hit())

    def test_an_interrupted_request_leaves_no_lock(self) -> None:
        with Interrupted(port=self.service.server.port) as db:
            lock = db.lock("x", wait=0)
            db.interrupt = True
            with self.assertRaises(KeyboardInterrupt):
                lock.acquire()
            self.assertFalse(self.db.lock("x").is_locked())
            with lock:
                self.assertTrue(lock.owned())

    def test_a_request_that_is_sent_twice_takes_one_place(self) -> None:
        for _ in range(2):
            self.assertEqual(self.db.eval(TAKE, ["s:1", "s:2"], ["token", 1000, 0]), 2)
        self.assertEqual(self.db.keys(), ["s:2"])

    def test_many_threads_exclude_each_other(self) -> None:
        db = self.client(max_connections=8)
        self.db.set("count", 0)

        def count() -> None:
            for _ in range(8):
                with db.lock("x", ttl=A_LONG_TIME):
                    db.set("count", db.get("count") + 1)

        self.in_threads(8, count)
        self.assertEqual(self.db.get("count"), 64)

    @needs_fork
    def test_processes_exclude_each_other(self) -> None:
        self.db.set("count", 0)

        def count(_: int) -> None:
            steps._sleep = threading.Event().wait  # type: ignore[assignment]  # in the child only
            for _ in range(10):
                with self.db.lock("x", ttl=A_LONG_TIME):
                    self.db.set("count", self.db.get("count") + 1)

        with contextlib.ExitStack() as stack:
            children = [stack.enter_context(self.in_child(count))[0] for _ in range(4)]
            for child in children:
                self.assertEqual(os.waitpid(child, 0)[1], 0)
        self.assertEqual(self.db.get("count"), 40)

    @needs_fork
    def test_the_lock_of_a_killed_process_is_free_after_its_ttl(self) -> None:
        def hold(ready: int) -> None:
            self.db.lock("x", ttl=30, extend=True).acquire()
            os.write(ready, b"!")
            threading.Event().wait(10)

        with self.in_child(hold) as (child, ready):
            self.assertEqual(os.read(ready, 1), b"!")
            os.kill(child, signal.SIGKILL)
            os.waitpid(child, 0)
        with self.assertRaises(kvdb.TimedOut):
            self.db.lock("x", wait=29.5).acquire()
        self.db.lock("x", wait=1).acquire()


class ExtendingTest(RecipeCase):
    """The thread that extends a lock. Real time goes on for it, but not for the server."""

    def threads(self) -> list[threading.Thread]:
        return [each for each in threading.enumerate() if each.name == "kvdb-extend-'x'"]

    def test_it_is_extended_for_as_long_as_it_is_held(self) -> None:
        with self.db.lock("x", ttl=0.03, extend=True) as lock:
            for _ in range(5):
                self.clock.now += 0.02
                until(lambda: (self.db.ttl("x") or 0) > 0.025)
            self.assertTrue(lock.owned())
            (thread,) = self.threads()
            self.assertTrue(thread.daemon)
        self.assertEqual(self.threads(), [])

    def test_the_thread_ends_when_the_lock_is_lost(self) -> None:
        lock = self.db.lock("x", ttl=0.03, extend=True)
        lock.acquire()
        self.db.delete("x")
        until(lambda: not self.threads())
        with self.assertRaises(LockLost):
            lock.release()

    def test_a_lock_that_nobody_has_any_more_is_not_extended(self) -> None:
        lock = self.db.lock("x", ttl=0.03, extend=True)
        lock.acquire()
        self.clock.now += 0.02
        until(lambda: (self.db.ttl("x") or 0) > 0.025)
        del lock
        gc.collect()
        until(lambda: not self.threads())

    def test_a_failure_does_not_end_the_thread(self) -> None:
        failing = iter([kvdb.Disconnected(), kvdb.TimedOut()])
        extend = Lock.extend
        succeeded = threading.Event()

        def failing_twice(lock: Lock, ttl: float | None = None) -> None:
            for error in failing:
                raise error
            extend(lock, ttl)
            succeeded.set()

        with (
            mock.patch.object(Lock, "extend", failing_twice),
            self.db.lock("x", ttl=0.03, extend=True),
        ):
            self.assertTrue(succeeded.wait(10))

    def test_releasing_does_not_wait_for_the_next_extension(self) -> None:
        with self.db.lock("x", ttl=3000, extend=True):
            self.assertEqual(len(self.threads()), 1)
        self.assertEqual(self.threads(), [])


class SemaphoreTest(RecipeCase):
    def test_as_many_hold_it_as_its_limit_says(self) -> None:
        held = [self.db.semaphore("s", 3, wait=0) for _ in range(3)]
        for semaphore in held:
            semaphore.acquire()
        self.assertEqual(set(self.db.keys()), {"s:1", "s:2", "s:3"})
        self.assertEqual(held[0].taken(), 3)
        another = self.db.semaphore("s", 3, wait=0)
        with self.assertRaisesRegex(kvdb.TimedOut, "semaphore 's'"):
            another.acquire()
        held[1].release()
        with another:
            self.assertTrue(all(each.owned() for each in (held[0], held[2], another)))
        self.assertEqual(another.taken(), 2)

    def test_the_place_of_a_holder_that_died_is_free_after_its_ttl(self) -> None:
        self.db.semaphore("s", 2, ttl=5).acquire()
        with self.db.semaphore("s", 2, ttl=100):
            self.clock.now += 5
            self.db.semaphore("s", 2, wait=0).acquire()

    def test_a_lost_place_cannot_be_released(self) -> None:
        late = self.db.semaphore("s", 1, ttl=5)
        late.acquire()
        self.clock.now += 5
        with self.db.semaphore("s", 1), self.assertRaisesRegex(LockLost, "semaphore 's'"):
            late.release()

    def test_a_limit_is_1_or_more(self) -> None:
        with self.assertRaisesRegex(ValueError, "limit must be 1 or more"):
            self.db.semaphore("s", 0)

    def test_never_more_than_the_limit_hold_it_at_once(self) -> None:
        db = self.client(max_connections=12)
        inside: list[int] = []
        most: list[int] = []

        def enter() -> None:
            for _ in range(5):
                with db.semaphore("s", 3, ttl=A_LONG_TIME):
                    inside.append(1)
                    most.append(len(inside))
                    db.ping()
                    inside.pop()

        self.in_threads(12, enter)
        self.assertLessEqual(max(most), 3)
        self.assertEqual(len(most), 60)


if __name__ == "__main__":
    unittest.main()
