from __future__ import annotations

import threading
import time
import unittest
from collections.abc import Callable, Sequence

from kvdb.reaper import PlannedFlush, Reaper
from kvdb.store import Store
from kvdb.store.entry import Key
from kvdb.store.feed import Cause, Change, Flush
from tests.support import ManualClock

DEADLINE = 10.0  # seconds within which what is waited for happens, or the test fails
FAR = 3600.0
NEAR = 0.01


class WatchedStore(Store):
    """Tells when the reaper has asked how long it may sleep, and when keys are gone."""

    def __init__(self, clock: Callable[[], float]) -> None:
        super().__init__(0, clock=clock)
        self.asked = threading.Event()
        self.gone: list[Key] = []
        self.expected = 1
        self.all_gone = threading.Event()
        self.add_listener(self.listen)

    def seconds_to_next_deadline(self) -> float | None:
        wait = super().seconds_to_next_deadline()
        self.asked.set()
        return wait

    def listen(self, step: int, facts: Sequence[Change | Flush]) -> None:
        self.gone += [
            fact.key for fact in facts if isinstance(fact, Change) and fact.cause is Cause.EXPIRED
        ]
        if len(self.gone) >= self.expected:
            self.all_gone.set()


class WaitTest(unittest.TestCase):
    """How long the reaper sleeps."""

    def setUp(self) -> None:
        self.clock = ManualClock()
        self.store = Store(0, clock=self.clock)
        self.flush = PlannedFlush(self.store)
        self.reaper = Reaper(self.store, self.flush)

    def test_it_sleeps_a_second_at_most_while_anything_can_expire(self) -> None:
        """The wall clock may jump forward, and nobody would tell it."""
        self.store.set(b"far", b"v", expires_at=self.clock.now + FAR)
        self.assertEqual(self.reaper._seconds_to_next_pass(), 1.0)
        self.clock.now += FAR - 5
        self.assertEqual(self.reaper._seconds_to_next_pass(), 1.0)

    def test_it_sleeps_until_the_next_deadline_if_that_is_sooner(self) -> None:
        self.store.set(b"near", b"v", expires_at=self.clock.now + 0.25)
        wait = self.reaper._seconds_to_next_pass()
        assert wait is not None
        self.assertLessEqual(wait, 0.25)
        self.clock.now += 1
        self.assertEqual(self.reaper._seconds_to_next_pass(), 0)

    def test_it_sleeps_until_it_is_woken_while_nothing_can_expire(self) -> None:
        self.store.set(b"k", b"v")
        self.assertIsNone(self.reaper._seconds_to_next_pass())
        self.flush.plan(self.clock.now + FAR)
        self.assertEqual(self.reaper._seconds_to_next_pass(), 1.0)
        self.flush.plan(None)
        self.assertIsNone(self.reaper._seconds_to_next_pass())

    def test_a_clock_that_is_set_back_and_forth_is_followed(self) -> None:
        self.store.set(b"k", b"v", expires_at=self.clock.now + 10)
        self.clock.now -= FAR
        self.assertEqual(self.reaper._seconds_to_next_pass(), 1.0)
        self.store.expire_due()
        self.clock.now += FAR + 10
        self.assertEqual(self.reaper._seconds_to_next_pass(), 0)
        self.store.expire_due()
        self.assertIsNone(self.reaper._seconds_to_next_pass())
        self.assertEqual(self.store.expired_keys, 1)
        self.store.check()


class HeldReaperTest(unittest.TestCase):
    def test_while_nothing_may_expire_it_sleeps_and_neither_reaps_nor_flushes(self) -> None:
        clock = ManualClock()
        store = Store(0, clock=clock)
        store.set(b"due", b"v", expires_at=clock.now + NEAR)
        store.set(b"stays", b"v")
        flush = PlannedFlush(store)
        flush.plan(clock.now + NEAR)
        reaper = Reaper(store, flush)
        clock.now += 2 * NEAR
        reaper.may_expire = lambda: False
        self.assertEqual(reaper._seconds_to_next_pass(), 1.0)
        reaper._reap()
        self.assertEqual((store.total_keys, store.get(b"stays")), (2, b"v"))
        reaper.may_expire = lambda: True
        self.assertEqual(reaper._seconds_to_next_pass(), 0.0)
        reaper._reap()
        self.assertEqual(store.total_keys, 0)


class ReaperTest(unittest.TestCase):
    def start(self, clock: Callable[[], float]) -> WatchedStore:
        """Return a store whose reaper sleeps, because a first key expires in an hour."""
        store = WatchedStore(clock)
        store.set(b"far", b"v", expires_at=clock() + FAR)
        self.flush = PlannedFlush(store)
        self.reaper = Reaper(store, self.flush)
        self.addCleanup(self.reaper.stop)
        self.reaper.start()
        self.assertTrue(store.asked.wait(DEADLINE))
        return store

    def assert_reaped(self, store: WatchedStore, *keys: Key) -> None:
        self.assertTrue(store.all_gone.wait(DEADLINE), "nobody was reaped")
        self.assertCountEqual(store.gone, keys)
        self.assertEqual(store.expired_keys, len(keys))
        store.check()

    def test_a_key_that_nobody_asks_for_goes_when_its_time_has_come(self) -> None:
        store = self.start(time.time)
        expires_at = round(time.time() + 0.02, 3)  # deadlines are kept in milliseconds
        store.set(b"near", b"v", expires_at=expires_at)
        self.assert_reaped(store, b"near")
        self.assertGreaterEqual(time.time(), expires_at)

    def test_an_earlier_deadline_wakes_the_reaper(self) -> None:
        clock = ManualClock()
        store = self.start(clock)
        with store.atomic():  # the clock moves before the reaper can look at it
            store.set(b"near", b"v", expires_at=clock.now + NEAR)
            clock.now += NEAR
        self.assert_reaped(store, b"near")

    def test_a_planned_flush_wakes_the_reaper_and_comes_when_it_is_due(self) -> None:
        clock = ManualClock()
        store = self.start(clock)
        flushed: list[Change | Flush] = []

        def listen(step: int, facts: Sequence[Change | Flush]) -> None:
            flushed.extend(facts)
            store.all_gone.set()

        store.add_listener(listen)
        with store.atomic():  # the clock moves before the reaper can look at it
            self.flush.plan(clock.now + NEAR)
            clock.now += NEAR
        self.assertTrue(store.all_gone.wait(DEADLINE), "nothing was flushed")
        self.assertEqual((flushed, store.total_keys), ([Flush(0)], 0))

    def test_the_first_deadline_wakes_a_reaper_that_had_none(self) -> None:
        clock = ManualClock()
        store = WatchedStore(clock)
        reaper = Reaper(store, PlannedFlush(store))
        self.addCleanup(reaper.stop)
        reaper.start()
        self.assertTrue(store.asked.wait(DEADLINE))
        store.set((3, b"k"), b"v")
        with store.atomic():  # the clock moves before the reaper can look at it
            store.set_deadline((3, b"k"), clock.now + FAR)
            clock.now += FAR
        self.assert_reaped(store, (3, b"k"))

    def test_one_wake_reaps_all_that_is_due(self) -> None:
        clock = ManualClock()
        store = self.start(clock)
        keys = [b"%d" % number for number in range(1_000)]
        store.expected = len(keys)
        with store.atomic():
            for key in keys:
                store.set(key, b"v", expires_at=clock.now + NEAR)
            clock.now += NEAR
        self.assert_reaped(store, *keys)

    def test_stop_does_not_wait_until_all_that_is_due_is_gone(self) -> None:
        clock = ManualClock()
        store = self.start(clock)
        began = threading.Event()

        def hold_up(step: int, facts: Sequence[Change | Flush]) -> None:
            if isinstance(facts[0], Change) and facts[0].cause is Cause.EXPIRED:
                began.set()
                while not self.reaper.stopping:
                    time.sleep(0)

        store.add_listener(hold_up)
        with store.atomic():
            for number in range(5_000):  # more than a few passes of expire_due()
                store.set(b"%d" % number, b"v", expires_at=clock.now + NEAR)
            clock.now += NEAR
        self.assertTrue(began.wait(DEADLINE))
        self.reaper.stop()
        self.assertGreater(len(store.gone), 0)
        self.assertLess(len(store.gone), 5_000)
