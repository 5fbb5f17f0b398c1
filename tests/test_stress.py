"""Several threads at once. Their interleaving differs from run to run, whatever the seed."""

from __future__ import annotations

import random
import sys
import threading
import unittest
from collections.abc import Callable
from contextlib import suppress

from kvdb.errors import CommandError
from kvdb.store import Store
from kvdb.store.budget import EvictionPolicy
from kvdb.store.entry import Key, key_in
from tests.store_case import COST, Replica, contents
from tests.support import ManualClock

WORKERS = 4
STEPS = 4_000  # of each worker
BUDGET = 12 * COST
DATABASES = (0, 1, 5)
KEYS = [key_in(db, b"%d" % number) for db in DATABASES for number in range(6)]
DEADLINE = 30.0  # seconds until a test that hangs is given up


class Worker:
    """One thread's random operations on a store that others use, too."""

    def __init__(self, store: Store, clock: ManualClock, seed: int) -> None:
        self.store, self.clock, self.chance = store, clock, random.Random(seed)
        self.watched: list[tuple[Key, int]] = []
        self.cursors = dict.fromkeys(DATABASES, 0)
        self.operations: list[Callable[[], object]] = [
            *[self.read, self.write] * 3,
            lambda: store.write_many({self.key(): self.value(), self.key(): b"1"}),
            lambda: store.update(self.key(), lambda old: (old or b"")[-200:] + b"x" * 20),
            lambda: store.set_deadline(self.key(), self.moment()),
            lambda: store.delete(self.key(), self.key()),
            lambda: store.rename(self.key(), self.key()),
            lambda: store.touch(self.key()),
            lambda: store.version(self.key()),
            self.watch,
            self.scan,
            self.transaction,
            self.seldom,
        ]

    def run(self) -> None:
        for _ in range(STEPS):
            self.clock.now += 0.1  # so that keys expire, whichever threads have a turn
            with suppress(CommandError):  # too large, out of memory
                self.chance.choice(self.operations)()
        for key, _ in self.watched:
            self.store.unwatch(key)

    def key(self) -> Key:
        return self.chance.choice(KEYS)

    def value(self) -> bytes:
        return b"x" * self.chance.randrange(400)

    def moment(self) -> float | None:
        return self.chance.choice((None, self.clock.now + self.chance.randrange(-8, 40) / 8))

    def read(self) -> None:
        self.store.get(self.key())
        self.store.get_many([self.key(), self.key()])
        self.store.entry(self.key())

    def write(self) -> None:
        flags = self.chance.choice((0, 7))
        self.store.set(self.key(), self.value(), expires_at=self.moment(), client_flags=flags)

    def watch(self) -> None:
        if len(self.watched) < 3:
            key = self.key()
            self.watched.append((key, self.store.watch(key)))
        else:
            key, version = self.watched.pop(0)
            self.store.unchanged(key, version)
            self.store.unwatch(key)

    def scan(self) -> None:
        db = self.chance.choice(DATABASES)
        cursor, self.cursors[db] = self.cursors[db], 0
        self.cursors[db], names = self.store.scan(cursor, 2, db)
        assert len(names) <= 2

    def transaction(self) -> None:
        with self.store.atomic():
            self.write()
            with self.store.atomic(touching=False):
                self.read()
            self.store.delete(self.key())

    def seldom(self) -> None:
        match self.chance.randrange(12):
            case 0:
                self.store.flush()
            case 1 | 2:
                self.store.flush(self.chance.choice(DATABASES))
            case 3:
                self.store.max_bytes = BUDGET // self.chance.choice((1, 2))
            case 4:
                self.store.policy = self.chance.choice(list(EvictionPolicy))
            case 5:
                self.store.sizes()
            case _:
                self.store.random_key(self.chance.choice(DATABASES))


class StressTest(unittest.TestCase):
    def setUp(self) -> None:
        self.addCleanup(sys.setswitchinterval, sys.getswitchinterval())
        sys.setswitchinterval(0.000_05)  # so that threads meet more often
        self.clock = ManualClock()
        self.failures: list[BaseException] = []
        self.done = threading.Event()

    def run_threads(self, *workers: Callable[[], None], beside: Callable[[], None]) -> None:
        """Run all workers to their end, one thread each, with `beside` repeated meanwhile."""

        def repeat() -> None:
            while not self.done.is_set():
                beside()

        threads = [
            threading.Thread(target=self.guard, args=(each,), daemon=True)
            for each in (*workers, repeat)
        ]
        for thread in threads:
            thread.start()
        for thread in threads[:-1]:
            thread.join(DEADLINE)
        self.done.set()
        threads[-1].join(DEADLINE)
        self.assertFalse([thread for thread in threads if thread.is_alive()], "a thread hangs")
        if self.failures:
            raise self.failures[0]

    def guard(self, work: Callable[[], None]) -> None:
        try:
            work()
        except BaseException as failure:
            self.failures.append(failure)
            self.done.set()

    def test_after_random_operations_every_figure_and_a_replica_are_right(self) -> None:
        seed = random.randrange(2**32)
        store = Store(BUDGET, clock=self.clock)
        replica = Replica(store)

        def reap() -> None:
            store.expire_due(limit=3)

        with self.subTest(seed=seed):
            workers = [Worker(store, self.clock, seed + number) for number in range(WORKERS)]
            self.run_threads(*(worker.run for worker in workers), beside=reap)
            self.assertGreater(store.evicted_keys, 0)
            self.assertGreater(store.expired_keys, 0)
            self.assertEqual(replica.entries, contents(store))
            store.policy = EvictionPolicy.ALLKEYS_LRU
            store.max_bytes = BUDGET
            self.assertEqual(replica.entries, contents(store))
            store.check()
            store.flush()
            self.assertEqual(store.used_bytes, 0)

    def test_readers_never_see_half_of_a_step(self) -> None:
        store = Store(0, clock=self.clock)
        pair: list[Key] = [b"a", (1, b"b")]
        store.write_many(dict.fromkeys(pair, b"0"))

        def write() -> None:
            for number in range(1, 4_000):
                value = b"%d" % number
                if number % 2:
                    store.write_many(dict.fromkeys(pair, value))
                    continue
                with store.atomic():
                    for key in pair:
                        store.delete(key)
                        store.set(key, value)

        def read() -> None:
            for _ in range(200):
                one, other = store.get_many(pair)
                assert one == other is not None, (one, other)
                one, other = store.dump().values
                assert one == other, (one, other)
                assert sum(keys for keys, _, _ in store.sizes().values()) == 2

        self.run_threads(write, beside=read)
        store.check()
