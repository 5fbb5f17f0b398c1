"""Deadlines: the same as a plain dict of them, whatever the clock does."""

from __future__ import annotations

import math
import random
import tracemalloc
import unittest
from unittest import mock

from kvdb.store.deadlines import LARGE, Deadlines
from kvdb.store.entry import has_come, milliseconds


class DeadlinesTest(unittest.TestCase):
    """All moments are milliseconds; the dict beside the deadlines is what the keyspace keeps."""

    def setUp(self) -> None:
        self.deadlines: Deadlines[object] = Deadlines()
        self.deadline_of: dict[object, float] = {}  # in seconds

    def tearDown(self) -> None:
        self.deadlines.check(self.deadline_of)

    def set(self, **deadlines: int) -> None:
        for name, deadline in deadlines.items():
            self.put(name.encode(), deadline)

    def put(self, key: object, deadline: int) -> None:
        self.discard(key)
        self.deadline_of[key] = deadline / 1000
        self.deadlines.add(key, deadline, self.deadline_of)

    def discard(self, key: object) -> None:
        if key in self.deadline_of:
            self.deadlines.remove(key, round(self.deadline_of.pop(key) * 1000))

    def due(self, now: int) -> int:
        return self.deadlines.count_due(now, self.deadline_of)

    def find(self, now: int, limit: int = 100) -> list[object]:
        return self.deadlines.find_due(now, limit, self.deadline_of)

    def take(self, now: int, limit: int = 100) -> list[object]:
        """Take out all that is due, as the store does it: in passes."""
        taken: list[object] = []
        while found := self.find(now, limit):
            self.assertLessEqual(len(found), limit)
            for key in found:
                self.discard(key)
            taken += found
        self.assertEqual(self.due(now), 0)
        return taken

    def test_without_deadlines_nothing_is_due_ever(self) -> None:
        self.assertIsNone(self.deadlines.earliest())
        self.assertEqual((self.due(10**15), self.find(10**15)), (0, []))

    def test_a_key_is_due_from_its_deadline_on_and_only_once(self) -> None:
        self.set(k=10_500)
        self.assertEqual(self.take(10_499), [])
        self.assertEqual(self.take(10_500), [b"k"])
        self.assertEqual(self.take(99_000), [])

    def test_what_is_due_is_counted_exactly_at_every_millisecond(self) -> None:
        chance = random.Random(1)
        moments = [10_000, 10_999, 11_000, *(chance.randrange(9_990, 12_010) for _ in range(200))]
        for number, moment in enumerate(moments):
            self.put(number, moment)
        for now in range(9_980, 12_020):
            expected = [number for number, moment in enumerate(moments) if moment <= now]
            self.assertEqual(self.due(now), len(expected), now)
            if now % 7 == 0:
                self.assertCountEqual(self.find(now, 500), expected)

    def test_to_count_and_to_find_takes_nothing_out(self) -> None:
        self.set(a=10_100, b=10_900, c=12_000)
        for now in (10_500, 11_000, 10_500, 13_000, 9_000, 10_500):
            before = dict(self.deadline_of)
            self.due(now), self.find(now)
            self.deadlines.check(before)
        self.assertEqual(self.due(10_500), 1)

    def test_due_keys_come_earliest_first(self) -> None:
        self.set(c=10_900, a=10_100, d=12_000, b=10_500)
        self.assertEqual(self.take(10_600), [b"a", b"b"])
        self.assertEqual(self.take(12_000), [b"c", b"d"])
        for second in random.Random(3).sample(range(20, 120), 100):
            self.put(second, 1000 * second)
        self.assertEqual(self.take(119_000, 30), list(range(20, 120)))

    def test_a_new_deadline_takes_the_place_of_the_old_one(self) -> None:
        self.set(later=10_000, sooner=20_000)
        self.set(later=20_000, sooner=10_000)
        self.assertEqual(self.take(15_000), [b"sooner"])
        self.assertEqual(self.take(20_000), [b"later"])

    def test_a_deadline_can_be_replaced_within_the_second_that_has_begun(self) -> None:
        self.set(a=10_500, b=10_600, same=10_700)
        self.assertEqual(self.take(10_100), [])
        self.set(a=10_800, b=10_200, same=10_700, new=10_300)
        self.assertEqual(self.take(10_500), [b"b", b"new"])
        self.assertEqual(self.take(10_700), [b"same"])
        self.assertEqual(self.take(10_800), [b"a"])

    def test_a_deadline_that_is_taken_away_never_comes(self) -> None:
        self.set(waiting=20_000, begun=10_500)
        self.due(10_100)
        for key in (b"waiting", b"begun"):
            self.discard(key)
        self.assertEqual(self.take(99_000), [])

    def test_a_deadline_that_has_passed_already_is_due_at_once(self) -> None:
        self.set(k=20_000)
        self.take(20_000)
        self.set(late=3_500)
        self.assertEqual(self.due(20_000), 1)
        self.assertEqual(self.take(20_000), [b"late"])

    def test_a_pass_finds_no_more_than_its_limit_and_the_next_one_the_rest(self) -> None:
        for begun in (False, True):
            with self.subTest(begun=begun):
                self.set(**{f"k{number}": 10_000 + 40 * number for number in range(30)})
                if begun:
                    self.assertEqual(self.take(10_000), [b"k0"])
                self.assertEqual(len(self.find(99_000, 7)), 7)
                self.assertEqual(self.find(99_000, 0), [])
                self.assertEqual(len(self.take(99_000, 7)), 30 - begun)

    def test_keys_of_different_kinds_may_share_a_deadline(self) -> None:
        keys = [b"k", (1, b"k"), (2, b"k"), "text"]
        for key in keys:
            self.put(key, 10_500)
        self.assertCountEqual(self.find(11_000), keys)

    def test_the_earliest_deadline_is_never_told_too_late(self) -> None:
        self.set(a=20_700, b=30_000)
        earliest = self.deadlines.earliest()
        assert earliest is not None
        self.assertLessEqual(earliest, 20_700)
        self.assertGreater(earliest, 19_700)
        self.due(20_000)  # second 20 begins: now it is known exactly
        self.assertEqual(self.deadlines.earliest(), 20_700)
        self.discard(b"b")
        self.take(21_000)
        self.assertIsNone(self.deadlines.earliest())

    def is_split(self, second: int) -> bool:
        """Tell whether the milliseconds of a second are kept apart."""
        return isinstance(self.deadlines._seconds[second], dict)

    def test_a_second_that_holds_many_keys_is_split_before_it_comes(self) -> None:
        for number in range(LARGE):
            self.put(number, 10_000 + number % 1000)
        self.assertFalse(self.is_split(10))
        self.put("one more", 10_999)
        self.assertTrue(self.is_split(10))
        self.assertEqual((self.due(10_000), self.due(10_998)), (2, 1998))
        self.put("another", 10_000)  # joins its millisecond
        self.assertEqual((self.due(10_000), self.due(10_999)), (3, LARGE + 2))

    def test_a_large_second_is_split_again_after_it_was_empty(self) -> None:
        with mock.patch("kvdb.store.deadlines.LARGE", 2):
            for _ in range(3):
                self.set(a=10_100, b=10_200)
                self.assertFalse(self.is_split(10))
                self.set(c=10_300)
                self.assertTrue(self.is_split(10))
                self.assertEqual(len(self.take(10_300)), 3)
                self.assertEqual(self.deadlines._seconds, {})

    def test_a_clock_that_is_set_back_is_followed_and_leaves_nothing_behind(self) -> None:
        self.set(far=1_000_300, near=1_000_100)
        self.assertEqual(self.take(1_000_200), [b"near"])
        self.set(k=10_500, other=1_000_250)
        self.assertEqual((self.due(10_000), self.due(10_500)), (0, 1))
        self.assertEqual(self.take(11_000), [b"k"])
        self.assertEqual(self.due(1_000_249), 0)
        self.assertEqual(self.take(1_000_300), [b"other", b"far"])
        self.assertEqual(self.deadlines._seconds, {})
        self.assertIsNone(self.deadlines.earliest())
        self.assertEqual(self.deadlines._order, [])

    def test_replaced_deadlines_leave_nothing_behind(self) -> None:
        tracemalloc.start()
        self.addCleanup(tracemalloc.stop)
        for second in range(10_000, 40_000):
            self.put(b"k", second * 1000)
        for _ in range(10_000):  # the same second comes and goes
            self.discard(b"k")
            self.put(b"k", 50_000_000)
        self.assertLess(tracemalloc.get_traced_memory()[0], 100_000)

    def test_it_behaves_as_a_plain_dict_of_deadlines_would(self) -> None:
        for large in (LARGE, 3):
            seed = random.randrange(2**32)
            with self.subTest(seed=seed), mock.patch("kvdb.store.deadlines.LARGE", large):
                self.compare_with_a_dict(random.Random(seed))

    def compare_with_a_dict(self, chance: random.Random) -> None:
        now = 100_000
        for step in range(4_000):
            key = b"%d" % chance.randrange(30)
            match chance.randrange(6):
                case 0 | 1 | 2:
                    self.put(key, now + chance.choice((-2_000, 0, 5_000)) + chance.randrange(2_000))
                case 3:
                    self.discard(key)
                case 4:
                    limit = chance.randrange(1, 5)
                    due = {key for key, at in self.deadline_of.items() if at * 1000 <= now}
                    taken = self.take(now, limit)
                    self.assertEqual((len(taken), set(taken)), (len(due), due))
                case _:
                    now += chance.choice((1, 10, 300, 1_000, 8_000, -1, -700, -6_000))
            expected = sum(has_come(at, now / 1000) for at in self.deadline_of.values())
            self.assertEqual(self.due(now), expected)
            earliest = self.deadlines.earliest()
            if self.deadline_of:
                assert earliest is not None
                first = round(min(self.deadline_of.values()) * 1000)
                self.assertTrue(first - 1000 < earliest <= first, (earliest, first))
            else:
                self.assertIsNone(earliest)
            if step % 10 == 0:
                self.deadlines.check(self.deadline_of)

    def test_check_notices_a_deadline_in_a_wrong_place(self) -> None:
        def nowhere(deadlines: Deadlines[object]) -> None:
            del deadlines._seconds[20]

        def unknown(deadlines: Deadlines[object]) -> None:
            deadlines.add(b"unknown", 10_100, {})

        def twice(deadlines: Deadlines[object]) -> None:
            deadlines.add(b"later", 10_100, {})

        def another_second(deadlines: Deadlines[object]) -> None:
            deadlines._seconds[21] = deadlines._seconds.pop(20)
            deadlines._order.append(21)

        def another_millisecond(deadlines: Deadlines[object]) -> None:
            moments = deadlines._seconds[10]
            assert isinstance(moments, dict)
            moments[10_501] = moments.pop(10_500)

        def millisecond_of_another_second(deadlines: Deadlines[object]) -> None:
            moments = deadlines._seconds[10]
            assert isinstance(moments, dict)
            moments[20_500] = {b"later"}
            del deadlines._seconds[20]

        def empty_second(deadlines: Deadlines[object]) -> None:
            deadlines._seconds[30] = set()
            deadlines._order.append(30)

        def empty_millisecond(deadlines: Deadlines[object]) -> None:
            deadlines._seconds[10][10_700] = set()  # type: ignore[index]

        def never_looked_at(deadlines: Deadlines[object]) -> None:
            deadlines._order.remove(20)

        for damage in (
            nowhere, unknown, twice, another_second, another_millisecond,
            millisecond_of_another_second, empty_second, empty_millisecond, never_looked_at,
        ):  # fmt: skip
            with self.subTest(damage.__name__):
                deadlines: Deadlines[object] = Deadlines()
                deadline_of: dict[object, float] = {b"begun": 10.5, b"later": 20.5}
                for key, at in deadline_of.items():
                    deadlines.add(key, round(at * 1000), deadline_of)
                deadlines.count_due(10_000, deadline_of)  # splits second 10
                deadlines.check(deadline_of)
                damage(deadlines)
                with self.assertRaises(AssertionError):
                    deadlines.check(deadline_of)


class MillisecondsTest(unittest.TestCase):
    def test_a_moment_in_milliseconds_is_the_last_that_has_come(self) -> None:
        chance = random.Random(2)
        for _ in range(20_000):
            deadline = chance.randrange(10 ** chance.randrange(1, 14))
            moment = deadline / 1000
            for now in (moment, math.nextafter(moment, 0), math.nextafter(moment, math.inf)):
                for each in (deadline - 1, deadline, deadline + 1):
                    self.assertEqual(each <= milliseconds(now), has_come(each / 1000, now))
