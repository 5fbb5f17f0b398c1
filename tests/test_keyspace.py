"""The keyspace: entries, what they cost, and the indexes that follow them. It knows no time."""

from __future__ import annotations

import random
import sys
import unittest
from collections import OrderedDict
from unittest import mock

from kvdb.store.entry import (
    CLIENT_FLAGS_COST,
    DEADLINE_COST,
    Entry,
    Key,
    entry_cost,
    key_in,
    split_key,
)
from kvdb.store.keyspace import Keyspace
from kvdb.store.recency import RecencyTable
from kvdb.store.scans import ScanIndex


class KeyspaceCase(unittest.TestCase):
    def setUp(self) -> None:
        self.space = Keyspace()

    def tearDown(self) -> None:
        self.space.check()

    def fill(self, *keys: Key) -> None:
        for key in keys:
            self.space.put(key, b"1")

    def order(self) -> list[Key]:
        return list(self.space.table)


class EntriesTest(KeyspaceCase):
    def test_an_entry_is_kept_with_all_that_belongs_to_it(self) -> None:
        self.space.put((2, b"k"), b"v", 10.5, 7)
        self.assertEqual(self.space.entry((2, b"k")), Entry(b"v", 10.5, 7))
        self.assertIsNone(self.space.entry(b"k"))
        self.space.put((2, b"k"), b"w")
        self.assertEqual(self.space.entry((2, b"k")), Entry(b"w"))
        self.space.remove((2, b"k"))
        self.assertIsNone(self.space.entry((2, b"k")))
        self.assertEqual((len(self.space), self.space.used), (0, 0))

    def test_every_part_of_an_entry_has_its_cost(self) -> None:
        cost = entry_cost(b"k", b"value")
        for expires_at, flags, side_cost in (
            (None, 0, 0),
            (10.0, 0, DEADLINE_COST),
            (None, 7, CLIENT_FLAGS_COST),
            (20.0, 9, DEADLINE_COST + CLIENT_FLAGS_COST),
            (None, 0, 0),
        ):
            self.space.put(b"k", b"value", expires_at, flags)
            self.assertEqual(self.space.used, cost + side_cost)
            self.assertEqual(self.space.cost(b"k"), cost + side_cost)
            shown = Keyspace.cost_of(b"k", b"value", expires_at, flags)
            self.assertEqual(shown, cost + side_cost)
        self.assertEqual(self.space.cost(b"missing"), 0)

    def test_an_entry_that_needs_more_than_there_is_changes_nothing(self) -> None:
        self.space.put(b"k", b"v")
        cost = self.space.used
        for expires_at, flags, value in ((10.0, 0, b"v"), (None, 7, b"v"), (None, 0, b"v" * 99)):
            self.assertFalse(self.space.put(b"k", value, expires_at, flags, cost))
            self.assertFalse(self.space.put(b"new", value, expires_at, flags, cost))
            self.assertEqual(self.space.entry(b"k"), Entry(b"v"))
            self.space.check()
        self.assertTrue(self.space.put(b"k", b"v" * 99, 10.0, 7, 999))
        self.assertFalse(self.space.put(b"new", b"", None, 0, self.space.used + 1))

    def test_what_needs_no_more_than_before_is_written_even_beyond_the_limit(self) -> None:
        self.space.put(b"k", b"v" * 99, 10.0, 7)
        for value, expires_at in ((b"w" * 99, 20.0), (b"w", 20.0), (b"x", None)):
            self.assertTrue(self.space.put(b"k", value, expires_at, 0, 1))
            self.assertEqual(self.space.entry(b"k"), Entry(value, expires_at))

    def test_a_room_of_exactly_what_is_needed_is_enough(self) -> None:
        needed = entry_cost(b"k", b"v") + DEADLINE_COST
        self.assertFalse(self.space.put(b"k", b"v", 10.0, 0, needed - 1))
        self.assertTrue(self.space.put(b"k", b"v", 10.0, 0, needed))

    def test_freed_bytes_are_counted(self) -> None:
        self.space.put(b"k", b"v" * 100)
        self.space.put(b"k", b"w" * 100)
        self.assertEqual(self.space.freed, 100)
        self.space.put(b"k", b"w")
        self.assertEqual(self.space.freed, 200)
        self.space.remove(b"k")
        self.assertEqual(self.space.freed, 200 + entry_cost(b"k", b"w"))

    def test_keys_are_counted_by_database(self) -> None:
        self.fill(b"a", b"b", (1, b"a"), (15, b"a"))
        self.space.put((15, b"b"), b"1", 10.0)
        self.space.put((15, b"a"), b"1", 10.0)
        self.space.put(b"a", b"1", 10.0)
        self.space.put(b"a", b"1")
        counted = {db: count for db, count in enumerate(self.space.key_counts) if count}
        self.assertEqual(counted, {0: 2, 1: 1, 15: 2})
        self.assertEqual((self.space.deadline_counts[0], self.space.deadline_counts[15]), (0, 2))
        self.assertCountEqual(self.space.keys(15), [(15, b"a"), (15, b"b")])
        self.assertEqual(self.space.keys(3), [])

    def test_a_random_key_is_of_its_database(self) -> None:
        self.assertIsNone(self.space.random_key(0))
        self.space.table = RecencyTable(2)  # several segments
        self.fill(b"a", b"b", b"c", b"d", b"e")
        self.assertEqual({self.space.random_key(0) for _ in range(300)}, set(self.order()))
        self.fill((1, b"a"))
        self.assertEqual({self.space.random_key(1) for _ in range(5)}, {(1, b"a")})
        self.assertEqual({self.space.random_key(0) for _ in range(300)}, set(self.order()[:-1]))

    def test_what_was_cleared_leaves_nothing_behind_but_what_it_freed(self) -> None:
        for ordered in (False, True):
            self.space = Keyspace()
            self.space.order_deadlines(ordered)
            self.space.put(b"a", b"v", 10.0, 7)
            self.space.put((1, b"a"), b"v")
            used = self.space.used
            segments = self.space.clear()
            self.assertEqual(sum(map(len, segments)), 2)
            self.assertEqual((len(self.space), self.space.used, self.space.freed), (0, 0, used))
            self.assertEqual((self.space.entry(b"a"), self.space.earliest_deadline()), (None, None))
            self.assertEqual(isinstance(self.space.expires_at, OrderedDict), ordered)
            self.space.check()

    def test_whether_none_of_some_keys_is_there_is_told(self) -> None:
        self.space.table = RecencyTable(2)
        self.fill(b"a", b"b", b"c", b"d", b"e")
        self.assertTrue(self.space.lacks([b"x", (1, b"a"), b"y"]))
        for key in self.order():
            self.assertFalse(self.space.lacks([b"x", key]))


class OrderOfUseTest(KeyspaceCase):
    def setUp(self) -> None:
        super().setUp()
        self.space.table = RecencyTable(2)
        self.fill(b"a", b"b", b"c", b"d", b"e")

    def test_what_is_used_or_written_is_the_youngest(self) -> None:
        self.assertEqual(self.space.use(b"a"), b"1")
        self.space.put(b"b", b"1")
        self.space.put(b"c", b"longer", 10.0)
        self.space.touch(b"d")
        self.assertEqual(self.order(), [b"e", b"a", b"b", b"c", b"d"])
        self.assertIsNone(self.space.use(b"missing"))

    def test_what_is_written_without_a_touch_keeps_its_place(self) -> None:
        for key in (b"a", b"e", b"c"):
            self.space.put(key, b"2", touch=False)
            self.space.put(key, b"longer", 10.0, touch=False)
        self.space.put(b"new", b"1", touch=False)
        self.assertEqual(self.order(), [b"a", b"b", b"c", b"d", b"e", b"new"])
        self.space.touch(b"a")
        self.assertEqual(self.order()[-1], b"a")

    def test_to_look_is_no_use(self) -> None:
        before = self.order()
        self.space.entry(b"a"), self.space.cost(b"a"), self.space.random_key(0)
        self.space.keys(0), self.space.lacks([b"a"])
        self.assertEqual(self.order(), before)

    def test_the_order_of_deadlines_is_kept_where_it_is_wanted(self) -> None:
        for key in (b"e", b"b", b"c"):
            self.space.put(key, b"1", 10.0, touch=False)
        self.space.order_deadlines(True)
        self.assertEqual(list(self.space.expires_at), [b"b", b"c", b"e"])
        self.space.put(b"b", b"2", 20.0)
        self.space.put(b"a", b"2", 5.0)
        self.assertEqual(list(self.space.expires_at), [b"c", b"e", b"b", b"a"])
        ordered = self.space.expires_at
        self.space.order_deadlines(True)
        self.assertIs(self.space.expires_at, ordered)
        self.space.order_deadlines(False)
        self.assertNotIsInstance(self.space.expires_at, OrderedDict)
        self.assertEqual(self.space.expires_at, {b"c": 10.0, b"e": 10.0, b"b": 20.0, b"a": 5.0})


class DeadlinesTest(KeyspaceCase):
    def test_deadlines_are_kept_in_whole_milliseconds(self) -> None:
        for given, kept in (
            (10.0004, 10.0),
            (10.0006, 10.001),
            (0.0001, 0.0),
            (1e300, 2**63 / 1000),
        ):
            self.space.put(b"k", b"v", given)
            self.assertEqual(self.space.expires_at[b"k"], kept)
            self.space.check()

    def test_a_deadline_that_was_kept_is_kept_as_it_is(self) -> None:
        """What a snapshot or a replica is told must not drift."""
        chance = random.Random(1)
        for bits in range(20, 64):
            for _ in range(200):
                self.space.put(b"k", b"v", chance.randrange(1 << bits) / 1000)
                kept = self.space.expires_at[b"k"]
                self.space.put(b"k", b"v", kept)
                self.assertEqual(self.space.expires_at[b"k"], kept)
        self.space.remove(b"k")
        self.assertIsNone(self.space.earliest_deadline())

    def test_what_is_due_is_counted_by_database_and_found_in_all(self) -> None:
        for db in range(3):
            for number in range(4):
                self.space.put(key_in(db, b"%d" % number), b"v", number + db / 2)
        self.assertEqual([self.space.count_due(2_000, db) for db in range(4)], [3, 2, 2, 0])
        self.assertEqual([self.space.count_due(1_499, db) for db in range(3)], [2, 1, 1])
        self.assertEqual(len(self.space.find_due(2_000, 100)), 7)
        for limit in range(8):
            self.assertEqual(len(set(self.space.find_due(2_000, limit))), limit)
        self.assertEqual(self.space.earliest_deadline(), 0.0)

    def test_a_second_in_which_many_keys_expire_is_split_before_it_comes(self) -> None:
        with mock.patch("kvdb.store.deadlines.LARGE", 2):
            for number in range(3):
                self.space.put(b"%d" % number, b"v", 20.5)
        self.assertEqual(self.space.earliest_deadline(), 20.5)  # else the second's beginning

    def test_the_earliest_deadline_of_all_databases_is_told(self) -> None:
        self.assertIsNone(self.space.earliest_deadline())
        self.space.put((3, b"k"), b"v", 20.5)
        self.space.put(b"k", b"v", 30.0)
        earliest = self.space.earliest_deadline()
        assert earliest is not None
        self.assertTrue(19.5 < earliest <= 20.5)
        self.space.remove((3, b"k"))
        self.assertEqual(self.space.earliest_deadline(), 30.0)
        self.space.put(b"k", b"v")
        self.assertIsNone(self.space.earliest_deadline())


class IndexesTest(KeyspaceCase):
    def scanned(self, db: int = 0) -> list[bytes]:
        index = self.space.indexes.get(db)
        assert index is not None
        return [split_key(key)[1] for key in index.page(0, sys.maxsize, lambda key: True)[1]]

    def begin(self, db: int = 0) -> tuple[ScanIndex, list[Key]]:
        keys = self.space.keys(db)
        return self.space.indexes.begin(db, len(keys)), keys

    def build(self, db: int = 0) -> None:
        index, keys = self.begin(db)
        index.build(keys)
        self.space.indexes.end(db, index)

    def test_keys_that_come_and_go_during_the_build_are_right_in_the_index(self) -> None:
        self.fill(b"stays", b"goes", b"returns", (1, b"elsewhere"))
        index, keys = self.begin()
        self.space.remove(b"goes")
        self.space.remove(b"returns")
        self.fill(b"comes", b"returns", b"visits", b"stays", (1, b"other"))
        self.space.remove(b"visits")
        index.build(keys)
        self.space.put(b"late", b"v", 10.0)
        self.space.remove(b"comes")
        self.assertIsNone(self.space.indexes.get(0))
        self.space.indexes.end(0, index)
        self.assertCountEqual(self.scanned(), [b"stays", b"returns", b"late"])
        self.fill(b"after")
        self.space.remove(b"stays")
        self.assertCountEqual(self.scanned(), [b"returns", b"late", b"after"])

    def test_an_index_of_keys_that_were_flushed_meanwhile_is_not_used(self) -> None:
        self.fill(b"a")
        index, keys = self.begin()
        self.space.clear()
        index.build(keys)
        self.space.indexes.end(0, index)
        self.assertIsNone(self.space.indexes.get(0))

    def test_the_indexes_of_two_databases_know_nothing_of_each_other(self) -> None:
        self.fill(b"a", (1, b"a"), (1, b"b"))
        self.build(1)
        one, keys = self.begin()
        self.space.remove((1, b"a"))
        self.fill(b"c", (1, b"d"))
        one.build(keys)
        self.space.indexes.end(0, one)
        self.assertCountEqual(self.scanned(0), [b"a", b"c"])
        self.assertCountEqual(self.scanned(1), [b"b", b"d"])

    def test_random_comings_and_goings_between_begin_and_end_are_followed(self) -> None:
        seed = random.randrange(2**32)
        chance = random.Random(seed)
        with self.subTest(seed=seed):
            for _ in range(200):
                self.change(chance)
                index, keys = self.begin()
                self.change(chance)
                index.build(keys)
                self.change(chance)
                self.space.indexes.end(0, index)
                self.change(chance)
                self.space.check()
                self.space.indexes.drop_idle(0)

    def change(self, chance: random.Random) -> None:
        for _ in range(chance.randrange(20)):
            key = key_in(chance.randrange(2), b"%d" % chance.randrange(10))
            if self.space.entry(key) is None or chance.random() < 0.5:
                self.space.put(key, b"v", chance.choice((None, 10.0)))
            else:
                self.space.remove(key)

    def test_what_is_noted_during_a_build_is_counted_and_given_back(self) -> None:
        self.fill(b"a")
        index, _ = self.begin()
        before = self.space.indexes.bytes
        self.fill(b"b", b"c")
        self.assertGreater(self.space.indexes.bytes, before)
        index.build([b"a"])
        self.space.indexes.end(0, index)
        self.assertEqual(self.space.indexes.bytes, index.bytes)

    def test_an_index_that_nobody_uses_is_dropped(self) -> None:
        self.fill(b"a")
        self.build()
        for _ in range(3):
            self.space.indexes.drop_idle(3)
        self.scanned()
        for _ in range(3):
            self.space.indexes.drop_idle(3)
        self.assertIsNotNone(self.space.indexes.get(0))
        self.space.indexes.drop_idle(3)
        self.assertIsNone(self.space.indexes.get(0))


class CheckTest(unittest.TestCase):
    def test_check_notices_every_figure_that_is_wrong(self) -> None:
        def used(space: Keyspace) -> None:
            space.used += 1

        def key_count(space: Keyspace) -> None:
            space.key_counts[0] += 1

        def key_of_another_database(space: Keyspace) -> None:
            space.key_counts[0] += 1
            space.key_counts[1] -= 1

        def deadline_count(space: Keyspace) -> None:
            space.deadline_counts[0] -= 1

        def deadline_without_a_key(space: Keyspace) -> None:
            space.expires_at[b"missing"] = 10.0
            space.used += DEADLINE_COST

        def deadline_that_waits_elsewhere(space: Keyspace) -> None:
            space.expires_at[b"a"] = 99.0

        def deadline_that_waits_nowhere(space: Keyspace) -> None:
            space._deadlines.clear()

        def flags_without_a_key(space: Keyspace) -> None:
            space.client_flags[b"missing"] = 7
            space.used += CLIENT_FLAGS_COST

        def flags_of_0(space: Keyspace) -> None:
            space.client_flags[b"a"] = 0

        def index(space: Keyspace) -> None:
            space.indexes._indexes[0].add(b"missing")

        def index_that_nobody_follows(space: Keyspace) -> None:
            space.indexes.followed = False

        def order_that_nobody_keeps(space: Keyspace) -> None:
            space._deadlines_used = OrderedDict(space.expires_at)

        for damage in (
            used, key_count, key_of_another_database, deadline_count, deadline_without_a_key,
            deadline_that_waits_elsewhere, deadline_that_waits_nowhere, flags_without_a_key,
            flags_of_0, index,
            index_that_nobody_follows, order_that_nobody_keeps,
        ):  # fmt: skip
            with self.subTest(damage.__name__):
                space = Keyspace()
                space.put(b"a", b"v", 10.0, 7)
                space.put((1, b"a"), b"v")
                built = space.indexes.begin(0, 1)
                built.build(space.keys(0))
                space.indexes.end(0, built)
                space.check()
                damage(space)
                with self.assertRaises(AssertionError):
                    space.check()
