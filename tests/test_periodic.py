from __future__ import annotations

import threading
import time
import unittest
from collections.abc import Callable
from unittest import mock

from kvdb.periodic import Periodic

DEADLINE = 10.0  # seconds within which what is waited for happens, or the test fails
LONG = 3600.0


class PeriodicTest(unittest.TestCase):
    def start(
        self, run_pass: Callable[[], object], seconds_to_next: Callable[[], float | None]
    ) -> Periodic:
        periodic = Periodic("test pass", run_pass, seconds_to_next)
        self.addCleanup(periodic.stop)
        periodic.start()
        return periodic

    def assert_happens(self, event: threading.Event) -> None:
        self.assertTrue(event.wait(DEADLINE), "waited in vain")
        event.clear()

    def assert_returns(self, call: Callable[[], object]) -> None:
        thread = threading.Thread(target=call, daemon=True)
        thread.start()
        thread.join(DEADLINE)
        self.assertFalse(thread.is_alive(), "it does not return")

    def test_passes_are_repeated_on_a_thread_of_the_given_name(self) -> None:
        names: list[str] = []
        third = threading.Event()

        def run_pass() -> None:
            names.append(threading.current_thread().name)
            if len(names) == 3:
                third.set()

        periodic = Periodic.every("test pass", 0.001, run_pass)
        self.addCleanup(periodic.stop)
        self.assertEqual(names, [])  # not before start()
        periodic.start()
        self.assert_happens(third)
        self.assertEqual(set(names), {"test pass"})

    def test_the_wait_is_asked_for_before_each_pass(self) -> None:
        waits = iter([0.0, 0.001])
        passes: list[str] = []
        waiting_for_ever = threading.Event()

        def seconds_to_next() -> float | None:
            wait = next(waits, None)
            if wait is None:
                waiting_for_ever.set()
            return wait

        self.start(lambda: passes.append("pass"), seconds_to_next)
        self.assert_happens(waiting_for_ever)
        self.assertEqual(len(passes), 2)

    def test_wake_ends_the_wait(self) -> None:
        for wait in (LONG, None):
            with self.subTest(wait=wait):
                ran = threading.Event()
                periodic = self.start(ran.set, lambda wait=wait: wait)  # type: ignore[misc]
                for _ in range(3):
                    periodic.wake()
                    self.assert_happens(ran)

    def test_a_wake_during_a_pass_is_not_lost(self) -> None:
        began, go_on = threading.Event(), threading.Event()

        def run_pass() -> None:
            began.set()
            go_on.wait(DEADLINE)

        periodic = self.start(run_pass, lambda: None)
        periodic.wake()
        self.assert_happens(began)
        periodic.wake()
        go_on.set()
        self.assert_happens(began)

    def test_stop_returns_at_once_while_the_thread_waits(self) -> None:
        waiting = threading.Event()

        def seconds_to_next() -> float:
            waiting.set()
            return LONG

        passes: list[str] = []
        periodic = self.start(lambda: passes.append("pass"), seconds_to_next)
        self.assert_happens(waiting)
        self.assert_returns(periodic.stop)
        self.assertEqual(passes, [])

    def test_stop_waits_until_the_current_pass_has_ended(self) -> None:
        began, ended = threading.Event(), threading.Event()

        def run_pass() -> None:
            began.set()
            while not periodic.stopping:
                time.sleep(0)
            for _ in range(1_000):  # so that a stop() that does not wait is sure to be first
                time.sleep(0)
            ended.set()

        periodic = self.start(run_pass, lambda: None)
        periodic.wake()
        self.assert_happens(began)
        periodic.stop()
        self.assertTrue(ended.is_set())

    def test_stop_is_allowed_before_start_and_twice(self) -> None:
        periodic = Periodic.every("test pass", LONG, lambda: None)
        self.assert_returns(periodic.stop)
        started = self.start(lambda: None, lambda: LONG)
        self.assert_returns(started.stop)
        self.assert_returns(started.stop)

    def test_a_failure_is_logged_and_the_next_pass_runs(self) -> None:
        ran = threading.Event()
        passes = iter([ValueError("bad pass"), None])

        def run_pass() -> None:
            if failure := next(passes):
                raise failure
            ran.set()

        bad_wait = mock.Mock(side_effect=[0.0, ValueError("bad wait"), 0.0, None])
        # The pause after a failure is a second; it shall not be one here.
        periodic = Periodic("test pass", run_pass, bad_wait)
        self.addCleanup(periodic.stop)
        with (
            mock.patch.object(periodic._stopping, "wait", return_value=False) as pause,
            self.assertLogs("kvdb.periodic", "ERROR") as logged,
        ):
            periodic.start()
            self.assert_happens(ran)
        self.assertEqual(len(logged.records), 2)
        self.assertIn("test pass: this pass failed", logged.output[0])
        self.assertIn("bad pass", logged.output[0])
        self.assertIn("bad wait", logged.output[1])
        self.assertEqual(pause.call_count, 2)

    def test_a_failure_that_cannot_even_be_logged_does_not_end_the_thread(self) -> None:
        ran = threading.Event()
        passes = iter([MemoryError(), None])

        def run_pass() -> None:
            if failure := next(passes):
                raise failure
            ran.set()

        waits = mock.Mock(side_effect=[0.0, 0.0, None])
        periodic = Periodic("test pass", run_pass, waits)
        self.addCleanup(periodic.stop)
        with (
            mock.patch.object(periodic._stopping, "wait", return_value=False),
            mock.patch("kvdb.periodic.log.exception", side_effect=MemoryError) as logged,
        ):
            periodic.start()
            self.assert_happens(ran)
        self.assertEqual(logged.call_count, 1)
        self.assertTrue(periodic.thread.is_alive())

    def test_its_thread_can_be_asked_whether_it_lives(self) -> None:
        periodic = Periodic.every("test pass", LONG, lambda: None)
        self.assertFalse(periodic.thread.is_alive())
        periodic.start()
        self.assertEqual((periodic.thread.name, periodic.thread.is_alive()), ("test pass", True))
        periodic.stop()
        self.assertFalse(periodic.thread.is_alive())

    def test_stop_does_not_wait_for_the_pause_after_a_failure(self) -> None:
        failed = threading.Event()

        def run_pass() -> None:
            failed.set()
            raise ValueError

        with self.assertLogs("kvdb.periodic", "ERROR"):
            periodic = self.start(run_pass, lambda: 0.0)
            self.assert_happens(failed)
            self.assert_returns(periodic.stop)
