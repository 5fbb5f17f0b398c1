from __future__ import annotations

import random
import tracemalloc
import unittest

from kvdb.store.deadlines import Deadlines


def take_all(deadlines: Deadlines[bytes], now: float, limit: int = 100) -> list[bytes]:
    """Take what is due as the store does: ask until the earliest deadline lies ahead."""
    taken = deadlines.take_due(now, limit)
    while (earliest := deadlines.earliest()) is not None and earliest <= now:
        taken += deadlines.take_due(now, limit)
    return taken


class DeadlinesTest(unittest.TestCase):
    def setUp(self) -> None:
        self.deadlines: Deadlines[bytes] = Deadlines()

    def tearDown(self) -> None:
        self.deadlines.check()

    def set(self, **deadlines: float) -> None:
        for key, expires_at in deadlines.items():
            self.deadlines.set(key.encode(), expires_at)

    def take(self, now: float) -> list[bytes]:
        return take_all(self.deadlines, now)

    def test_without_deadlines_nothing_is_due_ever(self) -> None:
        self.assertIsNone(self.deadlines.earliest())
        self.assertEqual(self.take(1e12), [])

    def test_a_key_is_due_from_its_deadline_on_and_only_once(self) -> None:
        self.set(k=10.5)
        self.assertEqual(self.take(10.499), [])
        self.assertEqual(len(self.deadlines), 1)
        self.assertEqual(self.take(10.5), [b"k"])
        self.assertEqual(self.take(99), [])
        self.assertEqual(len(self.deadlines), 0)

    def test_due_keys_come_earliest_first(self) -> None:
        self.set(c=10.9, a=10.1, d=12, b=10.5)
        self.assertEqual(self.take(10.6), [b"a", b"b"])
        self.assertEqual(self.take(12), [b"c", b"d"])

    def test_a_new_deadline_takes_the_place_of_the_old_one(self) -> None:
        self.set(later=10, sooner=20)
        self.set(later=20, sooner=10)
        self.assertEqual(self.take(15), [b"sooner"])
        self.assertEqual(self.take(20), [b"later"])

    def test_a_deadline_can_be_replaced_within_the_second_that_has_begun(self) -> None:
        self.set(a=10.5, b=10.6, same=10.7)
        self.assertEqual(self.take(10.1), [])
        self.set(a=10.8, b=10.2, same=10.7)
        self.assertEqual(self.take(10.5), [b"b"])
        self.assertEqual(self.take(10.7), [b"same"])
        self.assertEqual(self.take(10.8), [b"a"])

    def test_a_discarded_deadline_never_comes(self) -> None:
        self.set(waiting=20, begun=10.5)
        self.take(10.1)
        for key in (b"waiting", b"begun", b"unknown"):
            self.deadlines.discard(key)
        self.assertEqual(self.take(99), [])

    def test_a_deadline_that_has_passed_already_is_due_at_once(self) -> None:
        self.set(k=20)
        self.take(20)
        self.set(late=3.5)
        self.assertEqual(self.deadlines.earliest(), 3.5)
        self.assertEqual(self.take(20), [b"late"])

    def test_a_clock_that_is_set_back_is_followed(self) -> None:
        self.set(k=1000)
        self.take(1000)
        self.set(k=10.5)
        self.assertEqual(self.take(10), [])
        self.assertEqual(self.take(11), [b"k"])

    def test_a_pass_takes_no_more_than_its_limit_and_the_next_one_the_rest(self) -> None:
        keys = {f"k{number}": 10 + number / 32 for number in range(30)}
        for begun in (False, True):
            with self.subTest(begun=begun):
                self.set(**keys)
                if begun:
                    self.assertEqual(self.take(10), [b"k0"])
                first = self.deadlines.take_due(99, 7)
                self.assertEqual(len(first), 7)
                self.assertCountEqual(first + self.take(99), [key.encode() for key in keys][begun:])

    def test_keys_of_different_kinds_may_share_a_deadline(self) -> None:
        deadlines: Deadlines[object] = Deadlines()
        keys = [b"k", (1, b"k"), (2, b"k"), "text"]
        for key in keys:
            deadlines.set(key, 10.5)
        self.assertCountEqual(deadlines.take_due(11, 10), keys)

    def test_the_earliest_deadline_is_never_told_too_late(self) -> None:
        self.set(a=20.7, b=30)
        earliest = self.deadlines.earliest()
        assert earliest is not None
        self.assertLessEqual(earliest, 20.7)
        self.assertGreater(earliest, 19.7)
        self.take(20)  # second 20 begins: now it is known exactly
        self.assertEqual(self.deadlines.earliest(), 20.7)
        self.deadlines.discard(b"b")
        self.take(21)
        self.assertIsNone(self.deadlines.earliest())

    def test_turning_recency_on_and_off_loses_no_deadline(self) -> None:
        self.set(a=10, b=20)
        self.deadlines.keep_recency(True)
        self.set(c=15)
        self.deadlines.expires_at.move_to_end(b"a")  # type: ignore[attr-defined]
        self.assertEqual(list(self.deadlines.expires_at), [b"b", b"c", b"a"])
        self.deadlines.keep_recency(False)
        self.assertEqual(self.take(15), [b"a", b"c"])
        self.assertEqual(self.take(20), [b"b"])

    def test_replaced_deadlines_leave_nothing_behind(self) -> None:
        tracemalloc.start()
        self.addCleanup(tracemalloc.stop)
        for expires_at in range(10_000, 40_000):
            self.deadlines.set(b"k", expires_at)
        self.assertLess(tracemalloc.get_traced_memory()[0], 1_000_000)

    def test_check_notices_a_deadline_that_waits_nowhere(self) -> None:
        self.deadlines.expires_at[b"k"] = 10
        with self.assertRaises(AssertionError):
            self.deadlines.check()
        del self.deadlines.expires_at[b"k"]

    def test_it_behaves_as_a_plain_dict_of_deadlines_would(self) -> None:
        seed = random.randrange(2**32)
        chance = random.Random(seed)
        plain: dict[bytes, float] = {}
        now = 100.0
        with self.subTest(seed=seed):
            for _ in range(5_000):
                key = b"%d" % chance.randrange(20)
                match chance.randrange(4):
                    case 0 | 1:
                        plain[key] = now + chance.randrange(-20, 40) / 8
                        self.deadlines.set(key, plain[key])
                    case 2:
                        plain.pop(key, None)
                        self.deadlines.discard(key)
                    case _:
                        now += chance.randrange(-4, 12) / 8
                        due = {key for key, at in plain.items() if at <= now}
                        taken = take_all(self.deadlines, now, limit=chance.randrange(1, 5))
                        self.assertEqual((len(taken), set(taken)), (len(due), due))
                        plain = {key: at for key, at in plain.items() if key not in due}
                earliest = self.deadlines.earliest()
                if plain:
                    assert earliest is not None
                    self.assertLessEqual(earliest, min(plain.values()))
                self.assertEqual(self.deadlines.expires_at, plain)
                self.deadlines.check()
