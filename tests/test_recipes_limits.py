from __future__ import annotations

import random
import unittest
from collections.abc import Callable
from typing import Any
from unittest import mock

import kvdb
from kvdb.client.recipes import Throttled
from tests.test_recipes import RecipeCase


class LimiterTest(RecipeCase):
    def test_so_many_hits_are_allowed_and_no_more(self) -> None:
        limiter = self.db.limiter("l", 3, per=10)
        self.assertEqual((limiter.left(), limiter.reset_in()), (3, 0))
        self.assertEqual([limiter.hit() for _ in range(5)], [True] * 3 + [False] * 2)
        self.assertEqual((limiter.left(), limiter.reset_in()), (0, 10))

    def test_each_hit_is_forgotten_after_the_window(self) -> None:
        limiter = self.db.limiter("l", 3, per=10)
        for _ in range(3):
            self.assertTrue(limiter.hit())
            self.clock.now += 2
        self.clock.now += 3.9999
        self.assertFalse(limiter.hit())
        self.clock.now += 0.0001
        self.assertTrue(limiter.hit())
        self.assertFalse(limiter.hit())
        self.clock.now += 2
        self.assertEqual(limiter.left(), 1)

    def test_no_window_ever_holds_more_hits_than_the_limit(self) -> None:
        random_numbers = random.Random(7)
        limiter = self.db.limiter("l", 50, per=10)
        hits: list[float] = []
        for _ in range(600):
            self.clock.now += random_numbers.choice((0, 0.001, 0.05, 0.3))
            now = self.clock.now
            window = sum(1 for at in hits if at > now - 10)
            if limiter.hit():
                hits.append(now)
                self.assertLess(window, 50)
            else:  # it would have been exact to count the hits of the last 32nd part, too
                self.assertGreaterEqual(sum(1 for at in hits if at > now - 10 - 10 / 32 - 1e-5), 50)
        self.assertGreater(len(hits), 100)
        self.assertLess(self.db.strlen("l"), 700)

    def test_many_hits_take_little_memory(self) -> None:
        limiter = self.db.limiter("l", 1000, per=10)
        for _ in range(200):
            self.clock.now += 0.05
            self.assertTrue(limiter.hit())
        self.assertLess(self.db.strlen("l"), 700)

    def test_a_hit_is_never_sent_twice(self) -> None:
        repeatable: list[bool] = []
        run = kvdb.Client._run

        def noting(client: Any, command: Any) -> Any:
            repeatable.append(command.repeatable)
            return run(client, command)

        limiter = self.db.limiter("l", 5, per=10)
        with mock.patch.object(kvdb.Client, "_run", noting):
            limiter.hit(), limiter.left()
        self.assertEqual(repeatable, [False, True])

    def test_a_hit_may_count_as_several(self) -> None:
        limiter = self.db.limiter("l", 10, per=60)
        self.assertTrue(limiter.hit(7))
        self.assertFalse(limiter.hit(4))
        self.assertTrue(limiter.hit(3))
        for cost in (0, -1, 11):
            with self.assertRaisesRegex(ValueError, "cost must be from 1 to the limit, 10"):
                limiter.hit(cost)

    def test_refused_hits_do_not_count(self) -> None:
        limiter = self.db.limiter("l", 1, per=10)
        limiter.hit()
        for _ in range(9):
            self.clock.now += 1
            self.assertFalse(limiter.hit())
        self.clock.now += 1
        self.assertTrue(limiter.hit())

    def test_a_clock_that_is_set_back_holds_nobody_up_for_longer_than_the_window(self) -> None:
        limiter = self.db.limiter("l", 1, per=10)
        limiter.hit()
        self.clock.now -= 3600
        self.assertFalse(limiter.hit())
        self.assertEqual(limiter.reset_in(), 10)
        self.clock.now += 10
        self.assertTrue(limiter.hit())

    def test_what_is_kept_expires_with_the_window(self) -> None:
        self.db.limiter("l", 5, per=10).hit()
        self.assertAlmostEqual(self.db.ttl("l") or 0, 10, delta=0.01)
        self.assertTrue(self.db.limiter("short", 1, per=1e-9).hit())

    def test_limits_and_windows_are_more_than_nothing(self) -> None:
        with self.assertRaisesRegex(ValueError, "limit"):
            self.db.limiter("l", 0, per=1)
        with self.assertRaisesRegex(ValueError, "per must be more than 0"):
            self.db.limiter("l", 1, per=0)

    def test_a_lower_limit_takes_effect_at_once(self) -> None:
        self.db.limiter("l", 10, per=10).hit(10)
        limiter = self.db.limiter("l", 3, per=10)
        self.assertEqual(limiter.left(), 0)
        self.assertFalse(limiter.hit())

    def test_many_threads_get_exactly_the_limit(self) -> None:
        limiter = self.client(max_connections=16).limiter("l", 100, per=60)
        allowed: list[bool] = []
        self.in_threads(16, lambda: allowed.extend([limiter.hit() for _ in range(10)]))
        self.assertEqual(allowed.count(True), 100)


class ThrottleTest(RecipeCase):
    def throttled(self, **options: Any) -> Callable[[int], int]:
        @self.db.throttle(limit=2, per=10, **options)
        def double(number: int) -> int:
            """Return twice as much."""
            return 2 * number

        return double

    def test_calls_above_the_limit_are_refused_and_told_when_to_come_again(self) -> None:
        double = self.throttled()
        self.assertEqual([double(1), double(2)], [2, 4])
        self.clock.now += 4
        with self.assertRaisesRegex(Throttled, "no more than 2 in 10 seconds") as caught:
            double(3)
        self.assertAlmostEqual(caught.exception.retry_after, 6)
        self.assertIsInstance(caught.exception, kvdb.Error)
        self.clock.now += caught.exception.retry_after
        self.assertEqual(double(3), 6)

    def test_it_keeps_the_functions_name_and_has_a_limit_by_it(self) -> None:
        double = self.throttled()
        self.assertEqual((double.__name__, double.__doc__), ("double", "Return twice as much."))
        double(1)
        (name,) = self.db.keys()
        self.assertEqual(name, f"throttle:{__name__}.ThrottleTest.throttled.<locals>.double")

    def test_functions_of_one_name_share_a_limit(self) -> None:
        first, second = (self.throttled(name="mail") for _ in range(2))
        first(1), second(1)
        for function in (first, second):
            with self.assertRaises(Throttled):
                function(1)

    def test_waiting_calls_come_as_soon_as_they_may(self) -> None:
        double = self.throttled(wait=True)
        for _ in range(6):
            double(1)
        self.assertAlmostEqual(sum(self.slept), 20, delta=1.1)

    def test_who_would_wait_in_vain_is_told_at_once(self) -> None:
        double = self.throttled(wait=5)
        double(1), double(1)
        with self.assertRaises(Throttled):
            double(1)
        self.assertEqual(self.slept, [])
        self.clock.now += 6
        double(1)
        self.assertAlmostEqual(sum(self.slept), 4, delta=0.3)

    def test_a_coroutine_function_needs_the_other_client(self) -> None:
        async def double(number: int) -> int:
            return 2 * number

        with self.assertRaisesRegex(TypeError, "use an AsyncClient"):
            self.db.throttle(limit=1, per=1)(double)


if __name__ == "__main__":
    unittest.main()
