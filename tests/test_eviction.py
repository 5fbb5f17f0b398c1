from __future__ import annotations

import contextlib
import random
from collections import Counter
from collections.abc import Callable
from unittest import mock

from kvdb.errors import EntryTooLarge, OutOfMemory
from kvdb.store import Store
from kvdb.store.budget import EvictionPolicy
from kvdb.store.entry import (
    CLIENT_FLAGS_COST,
    DEADLINE_COST,
    NOTE_COST,
    Entry,
    Key,
    entry_cost,
    key_in,
)
from kvdb.store.keyspace import Keyspace
from tests.store_case import COST, StoreCase, contents

LARGE = b"x" * 100  # more than `1` costs


class LeastRecentlyUsedTest(StoreCase):
    def test_exactly_as_many_entries_stay_as_the_budget_holds(self) -> None:
        self.limit(3)
        self.fill(b"a", b"b", b"c")
        self.assertEqual((self.store.used_bytes, self.store.evicted_keys), (3 * COST, 0))
        self.fill(b"d")
        self.assertEqual(self.there(), {b"b", b"c", b"d"})
        self.assertEqual(self.store.evicted_keys, 1)

    def test_one_byte_less_than_needed_evicts_one_more(self) -> None:
        self.limit(3, more=-1)
        self.fill(b"a", b"b", b"c")
        self.assertEqual(self.there(), {b"b", b"c"})

    def test_a_large_entry_evicts_as_many_old_ones_as_it_needs(self) -> None:
        self.limit(6)
        self.fill(b"a", b"b", b"c", b"d", b"e", b"f")
        large = b"x" * COST  # costs more than one entry and less than two more
        self.assertGreater(entry_cost(b"x", large), COST)
        self.assertLessEqual(entry_cost(b"x", large), 2 * COST)
        self.store.set(b"x", large)
        self.assertEqual(self.there(), {b"c", b"d", b"e", b"f", b"x"})

    def test_what_counts_as_use_and_what_does_not(self) -> None:
        uses: dict[str, Callable[[], object]] = {
            "get": lambda: self.store.get(b"a"),
            "get_many": lambda: self.store.get_many([b"a"]),
            "get_entry": lambda: self.store.get_entry(b"a"),
            "touch": lambda: self.store.touch(b"a"),
            "set": lambda: self.fill(b"a"),
            "write_many": lambda: self.store.write_many({b"a": b"1"}),
            "update": lambda: self.store.update(b"a", lambda old: b"1"),
            "set_each": lambda: self.store.set_each([b"a"], [b"1"]),
            "update_each": lambda: self.store.update_each([b"a"], lambda old: b"1"),
            "set_deadline": lambda: self.store.set_deadline(b"a", self.soon()),
            "put_back": lambda: self.store.put_back([(b"a", Entry(b"2"))]),
        }
        looks: dict[str, Callable[[], object]] = {
            "entry": lambda: self.store.entry(b"a"),
            "exists": lambda: self.store.exists(b"a"),
            "keys": lambda: self.store.keys(),
            "scan": lambda: self.store.scan(0, 10),
            "dump": lambda: self.store.dump(),
            "sizes": lambda: self.store.sizes(),
            "random_key": lambda: self.store.random_key(),
            "version": lambda: self.store.version(b"a"),
            "watch": lambda: self.store.watch(b"a"),
            "set_note": lambda: self.store.set_note(b"a", "note"),
            "note": lambda: self.store.note(b"a"),
            "cost": lambda: self.store.cost(b"a"),
            "size": lambda: self.store.size(),
        }
        for name, operation in (uses | looks).items():
            with self.subTest(name):
                self.store = Store(0, clock=self.clock)
                self.fill(b"a", b"b", b"c")
                operation()
                first = b"b" if name in uses else b"a"
                self.assertEqual(self.evict_all()[0], first)

    def test_without_touching_reads_and_writes_keep_the_order(self) -> None:
        self.fill(b"a", b"b", b"c")
        with self.store.atomic(touching=False):
            self.store.get(b"a")
            self.fill(b"a")
            self.store.update(b"b", lambda old: b"1")
            self.fill(b"new")
        self.assertEqual(self.evict_all(), [b"a", b"b", b"c", b"new"])

    def test_without_touching_a_touch_counts_nevertheless(self) -> None:
        self.fill(b"a", b"b")
        with self.store.atomic(touching=False):
            self.store.touch(b"a")
        self.assertEqual(self.evict_all(), [b"b", b"a"])

    def test_touching_goes_on_after_the_block_even_if_it_raises(self) -> None:
        self.fill(b"a", b"b")
        with contextlib.suppress(ValueError), self.store.atomic(touching=False):
            raise ValueError
        self.store.get(b"a")
        self.assertEqual(self.evict_all(), [b"b", b"a"])

    def test_blocks_without_touching_may_be_nested(self) -> None:
        self.fill(b"a", b"b")
        with self.store.atomic(touching=False):
            with self.store.atomic(touching=False):
                self.store.get(b"a")
            self.store.get(b"a")
        self.assertEqual(self.evict_all(), [b"a", b"b"])

    def test_a_flush_ends_no_block_without_touching(self) -> None:
        with self.store.atomic(touching=False):
            self.fill(b"old")
            self.store.flush()
            self.fill(b"a", b"b")
            self.store.get(b"a")
        self.assertEqual(self.evict_all(), [b"a", b"b"])

    def test_all_databases_share_one_order_of_use(self) -> None:
        keys: list[Key] = [b"a", (1, b"a"), (15, b"a"), b"b"]
        self.fill(*keys)
        self.store.get((1, b"a"))
        self.assertEqual(self.evict_all(), [b"a", (15, b"a"), b"b", (1, b"a")])

    def test_a_renamed_key_is_the_youngest(self) -> None:
        self.fill(b"a", b"b", b"c")
        self.store.rename(b"a", b"b")
        self.assertEqual(self.evict_all(), [b"c", b"b"])

    def test_eviction_follows_a_plain_list_in_order_of_use(self) -> None:
        seed = random.randrange(2**32)
        chance = random.Random(seed)
        self.limit(40)
        order: list[bytes] = []
        sizes: dict[bytes, int] = {}
        with self.subTest(seed=seed):
            for _ in range(3_000):
                key = b"%d" % chance.randrange(60)
                if chance.random() < 0.5:
                    used = self.store.get(key) is not None
                    self.assertEqual(used, key in order)
                else:
                    value = b"x" * chance.randrange(500)
                    self.store.set(key, value)
                    used, sizes[key] = True, entry_cost(key, value)
                if used:
                    order = [each for each in order if each != key] + [key]
                while sum(sizes[each] for each in order) > 40 * COST:
                    order.pop(0)
                self.assertEqual(self.store.used_bytes, sum(sizes[each] for each in order))
            self.assertEqual(self.evict_all(), order)


class BudgetTest(StoreCase):
    def test_an_entry_larger_than_the_budget_is_refused_and_nothing_evicted(self) -> None:
        self.limit(3)
        self.fill(b"a", b"b", b"c")
        before = contents(self.store), self.store.changes
        too_large = b"x" * 3 * COST
        for name, write in {
            "set": lambda: self.store.set(b"a", too_large),
            "write_many": lambda: self.store.write_many({b"d": b"1", b"e": too_large}),
            "update": lambda: self.store.update(b"a", lambda old: too_large),
            "rename": lambda: self.store.rename(b"a", too_large),
        }.items():
            with self.subTest(name):
                with self.assertRaises(EntryTooLarge):
                    write()
                self.assertEqual((contents(self.store), self.store.changes), before)

    def test_an_entry_of_exactly_the_budget_is_stored(self) -> None:
        self.fill(b"a", b"b")
        self.store.max_bytes = entry_cost(b"k", LARGE) + DEADLINE_COST + CLIENT_FLAGS_COST
        self.store.set(b"k", LARGE, expires_at=self.soon(), client_flags=7)
        self.assertEqual(self.there(), {b"k"})
        self.assertEqual(self.store.used_bytes, self.store.max_bytes)
        with self.assertRaises(EntryTooLarge):
            self.store.set(b"kk", LARGE + b"x" * 16, expires_at=self.soon(), client_flags=7)
        self.assertEqual(self.there(), {b"k"})

    def test_what_surely_fits_fits_when_it_is_counted(self) -> None:
        generator = random.Random(3)
        answers = set()
        for _ in range(2_000):
            values: dict[Key, bytes | None] = {
                key_in(generator.choice((0, 0, 7)), b"k" * generator.randrange(1, 40)): (
                    generator.choice((None, b"v" * generator.randrange(60)))
                )
                for _ in range(generator.randrange(1, 6))
            }
            budget = Store(generator.randrange(1, 2_500))._budget
            costs = sum(Keyspace.cost_of(k, v) for k, v in values.items() if v is not None)
            answers.add(budget.surely_fit(values))
            if budget.surely_fit(values):
                self.assertLessEqual(costs, budget.limit, values)
        self.assertEqual(answers, {True, False})

    def test_write_many_that_do_not_fit_together_are_all_refused(self) -> None:
        self.limit(3)
        self.fill(b"a")
        with self.assertRaises(EntryTooLarge):
            self.store.write_many({b"%d" % number: b"1" for number in range(4)})
        self.assertEqual(self.there(), {b"a"})
        self.store.write_many({b"%d" % number: b"1" for number in range(3)})
        self.assertEqual(self.there(), {b"0", b"1", b"2"})

    def test_write_many_does_not_evict_what_it_writes(self) -> None:
        self.limit(3)
        self.fill(b"a", b"b", b"c")
        self.store.write_many({b"a": b"2", b"d": b"2"})
        self.assertEqual(self.there(), {b"a", b"c", b"d"})

    def test_deadlines_flags_and_notes_are_part_of_the_budget(self) -> None:
        self.fill(b"a")
        self.store.set(b"a", b"1", expires_at=self.soon())
        self.assertEqual(self.store.used_bytes, COST + DEADLINE_COST)
        self.store.set(b"a", b"1", client_flags=7)
        self.assertEqual(self.store.used_bytes, COST + CLIENT_FLAGS_COST)
        self.fill(b"a")
        self.store.set_note(b"a", "note")
        self.assertEqual(self.store.used_bytes, COST + NOTE_COST)
        self.assertEqual(self.store.cost(b"a"), COST + NOTE_COST)
        self.fill(b"a")
        self.assertEqual(self.store.used_bytes, COST)

    def test_reading_evicts_nobody_whatever_is_remembered_of_it(self) -> None:
        """A version is what memcached's gets asks for: readers of a cache must not cost entries."""
        self.limit(3)
        self.fill(b"a", b"b", b"c")
        for key in (b"a", b"b", b"c"):
            self.store.get(key)
            self.assertNotEqual(self.store.version(key), 0)
            self.store.watch(key)
            self.store.set_note(key, "note")
            self.assertEqual(self.store.note(key), "note")
        for number in range(100):
            self.store.watch(b"missing%d" % number)
        self.assertEqual(self.there(), {b"a", b"b", b"c"})
        self.assertEqual(self.store.evicted_keys, 0)

    def test_versions_cost_nothing_of_the_budget(self) -> None:
        self.limit(3)
        self.fill(b"a", b"b")
        for key in (b"a", b"b", b"missing"):
            self.store.watch(key)
        self.assertEqual(self.store.used_bytes, 2 * COST)
        self.fill(b"c")
        self.assertEqual(self.there(), {b"a", b"b", b"c"})

    def test_the_write_after_a_note_makes_the_room_for_it(self) -> None:
        self.limit(4)
        self.fill(b"a", b"b", b"c", b"d")
        self.store.set_note(b"d", "note")
        self.assertEqual(self.store.evicted_keys, 0)
        self.fill(b"e")
        self.assertEqual(self.there(), {b"c", b"d", b"e"})
        self.assertLessEqual(self.store.used_bytes, self.store.max_bytes)

    def test_side_costs_evict_the_oldest_others(self) -> None:
        for name, write in {
            "set": lambda: self.store.set(b"a", b"1", expires_at=self.soon()),
            "set with flags": lambda: self.store.set(b"a", b"1", client_flags=7),
            "set_deadline": lambda: self.store.set_deadline(b"a", self.soon()),
        }.items():
            with self.subTest(name):
                self.store = Store(3 * COST, clock=self.clock)
                self.fill(b"a", b"b", b"c")
                write()
                self.assertEqual(self.there(), {b"a", b"c"})
                self.store.check()

    def test_what_needs_no_more_bytes_evicts_nobody(self) -> None:
        for name, write in {
            "set": lambda: self.store.set(b"a", b"2", expires_at=self.soon(), client_flags=8),
            "set without them": lambda: self.store.set(b"a", LARGE),
            "write_many": lambda: self.store.write_many({b"a": LARGE}),
            "update": lambda: self.store.update(b"a", lambda old: b"2"),
            "set_deadline": lambda: self.store.set_deadline(b"a", self.soon(20)),
            "rename": lambda: self.store.rename(b"a", b"d"),
        }.items():
            with self.subTest(name):
                self.store = Store(0, clock=self.clock)
                self.store.set(b"a", b"1", expires_at=self.soon(), client_flags=7)
                self.fill(b"b", b"c")
                self.store.max_bytes = self.store.used_bytes
                write()
                self.assertEqual(self.store.evicted_keys, 0)
                self.store.check()

    def test_an_entry_that_its_side_costs_make_too_large_is_refused(self) -> None:
        """Whatever is asked of a key that fills the budget, the budget holds and others stay."""
        value = b"x" * 3 * COST
        longer = value + b"x" * 32
        for name, write in {
            "update": lambda: self.store.update(b"a", lambda old: longer),
            "rename": lambda: self.store.rename(b"a", b"k" * 40),
        }.items():
            with self.subTest(name):
                self.store = Store(0, clock=self.clock)
                self.store.set(b"a", value, expires_at=self.soon())
                self.store.max_bytes = self.store.used_bytes
                with self.assertRaises(EntryTooLarge):
                    write()
                self.assertEqual(self.there(), {b"a"})
                self.store.check()

    def test_a_lone_entry_may_get_a_deadline_or_a_note_beyond_the_budget(self) -> None:
        self.store = Store(COST, clock=self.clock)
        self.fill(b"a")
        self.assertTrue(self.store.set_deadline(b"a", self.soon()))
        self.store.set_note(b"a", "note")
        self.assertEqual(self.there(), {b"a"})

    def test_a_smaller_budget_evicts_at_once(self) -> None:
        keys = [b"%04d" % number for number in range(1_000)]
        self.fill(*keys)
        self.store.max_bytes = 100 * entry_cost(keys[0], b"1")
        self.assertEqual(self.there(), set(keys[900:]))
        self.assertEqual(self.store.evicted_keys, 900)

    def test_a_deadline_that_has_passed_evicts_nobody(self) -> None:
        self.fill(b"a", b"b", b"c")
        self.limit(3)
        self.store.put_back([(b"d", Entry(b"1")), (b"e", Entry(b"1"))])  # asks nobody for room
        self.assertTrue(self.store.set_deadline(b"d", self.soon(-1)))
        self.assertEqual(self.there(), {b"a", b"b", b"c", b"e"})
        self.limit(4)


class AllowanceTest(StoreCase):
    def test_an_allowance_below_the_budget_evicts_the_oldest(self) -> None:
        self.limit(6)
        self.fill(b"a", b"b", b"c", b"d", b"e", b"f")
        self.store.allow(2 * COST)
        self.assertEqual(self.there(), {b"e", b"f"})
        self.fill(b"g")
        self.assertEqual(self.there(), {b"f", b"g"})
        self.assertEqual(self.store.max_bytes, 6 * COST)

    def test_an_allowance_above_the_budget_allows_no_more_than_that(self) -> None:
        self.limit(2)
        self.store.allow(100 * COST)
        self.fill(b"a", b"b", b"c")
        self.assertEqual(self.there(), {b"b", b"c"})

    def test_what_fits_into_the_budget_is_stored_beyond_the_allowance(self) -> None:
        self.limit(4)
        self.fill(b"old")
        self.store.allow(0)
        self.assertEqual(self.there(), set())
        self.store.write_many({b"a": b"v", b"b": b"v"})
        self.assertEqual(self.there(), {b"a", b"b"})
        with self.assertRaises(EntryTooLarge):
            self.store.set(b"huge", bytes(4 * COST))
        self.store.check()

    def test_a_new_budget_keeps_to_the_allowance(self) -> None:
        self.limit(4)
        self.store.allow(2 * COST)
        self.store.max_bytes = 8 * COST
        self.fill(b"a", b"b", b"c")
        self.assertEqual(self.there(), {b"b", b"c"})
        self.store.allow(3 * COST)
        self.fill(b"d", b"e")
        self.assertEqual(self.there(), {b"c", b"d", b"e"})


class PolicyTest(StoreCase):
    def set_policy(self, policy: EvictionPolicy) -> None:
        self.store.policy = policy
        self.assertIs(self.store.policy, policy)

    def fill_volatile(self, *keys: bytes) -> None:
        for key in keys:
            self.store.set(key, b"1", expires_at=self.soon())

    def test_noeviction_refuses_what_does_not_fit(self) -> None:
        self.set_policy(EvictionPolicy.NOEVICTION)
        self.limit(2)
        self.fill(b"a", b"b")
        before = contents(self.store)
        for write in (
            lambda: self.fill(b"c"),
            lambda: self.store.write_many({b"a": b"2", b"c": b"2"}),
            lambda: self.store.update(b"a", lambda old: LARGE),
        ):
            with self.assertRaises(OutOfMemory):
                write()
            self.assertEqual(contents(self.store), before)
        self.store.set(b"a", b"2")  # no larger than before
        self.store.delete(b"b")
        self.fill(b"c")
        self.assertEqual(self.there(), {b"a", b"c"})

    def test_noeviction_allows_to_write_again_what_is_as_large_as_before(self) -> None:
        self.set_policy(EvictionPolicy.NOEVICTION)
        self.fill_volatile(b"a")
        self.store.max_bytes = self.store.used_bytes
        self.store.set(b"a", b"2", expires_at=self.soon(20))
        self.assertEqual(self.store.get(b"a"), b"2")

    def test_a_smaller_budget_evicts_nothing_under_noeviction(self) -> None:
        self.set_policy(EvictionPolicy.NOEVICTION)
        self.fill(b"a", b"b", b"c")
        self.limit(1)
        self.assertEqual(self.there(), {b"a", b"b", b"c"})
        with self.assertRaises(OutOfMemory):
            self.fill(b"d")

    def test_a_policy_that_may_evict_brings_the_store_within_its_budget(self) -> None:
        self.set_policy(EvictionPolicy.NOEVICTION)
        self.fill(b"a", b"b", b"c")
        self.limit(1)
        self.set_policy(EvictionPolicy.ALLKEYS_LRU)
        self.assertEqual(self.there(), {b"c"})

    def test_volatile_lru_evicts_only_keys_with_a_deadline(self) -> None:
        self.set_policy(EvictionPolicy.VOLATILE_LRU)
        self.limit(4, more=2 * DEADLINE_COST)
        self.fill(b"a", b"b")
        self.fill_volatile(b"c", b"d")
        self.store.get(b"c")
        self.fill(b"e")
        self.assertEqual(self.there(), {b"a", b"b", b"c", b"e"})
        self.fill(b"f")
        self.assertEqual(self.there(), {b"a", b"b", b"e", b"f"})
        self.fill(b"g")  # in the room of the deadlines
        with self.assertRaises(OutOfMemory):
            self.fill(b"h")

    def test_volatile_lru_knows_the_order_of_use_from_before_it_was_chosen(self) -> None:
        self.fill_volatile(b"a", b"b", b"c")
        self.fill(b"never")
        self.store.get(b"a")
        self.set_policy(EvictionPolicy.VOLATILE_LRU)
        self.store.touch(b"b")
        self.assertEqual(self.evict_all(), [b"c", b"a", b"b"])
        self.assertEqual(self.there(), {b"never"})
        self.set_policy(EvictionPolicy.ALLKEYS_LRU)
        self.store.max_bytes = 0

    def test_volatile_lru_evicts_no_more_than_it_has_to(self) -> None:
        """What is known of a victim, its note included, is free once it is gone."""
        self.set_policy(EvictionPolicy.VOLATILE_LRU)
        self.fill_volatile(b"a", b"b", b"c")
        self.store.set_note(b"a", "note")
        self.store.max_bytes = self.store.used_bytes
        self.store.set(b"d", b"x" * (DEADLINE_COST + NOTE_COST))  # as large as `a` and its note
        self.assertEqual(self.there(), {b"b", b"c", b"d"})

    def test_volatile_lru_keeps_the_order_of_use_after_a_flush(self) -> None:
        self.set_policy(EvictionPolicy.VOLATILE_LRU)
        self.fill(b"old")
        self.store.flush()
        self.fill_volatile(b"a", b"b", b"c")
        self.store.get(b"a")
        self.assertEqual(self.evict_all(), [b"b", b"c", b"a"])

    def test_both_lru_policies_agree_on_the_order_of_use(self) -> None:
        uses: dict[str, Callable[[], object]] = {
            "get": lambda: self.store.get(b"a"),
            "touch": lambda: self.store.touch(b"a"),
            "set": lambda: self.fill_volatile(b"a"),
            "update": lambda: self.store.update(b"a", lambda old: b"2"),
            "set_deadline": lambda: self.store.set_deadline(b"a", self.soon(20)),
            "flush": lambda: (self.store.flush(), self.fill_volatile(b"c", b"a")),
            "rename": lambda: self.store.rename(b"a", b"d"),
        }
        for touching in (True, False):
            for name, use in uses.items():
                orders = []
                for policy in (EvictionPolicy.ALLKEYS_LRU, EvictionPolicy.VOLATILE_LRU):
                    self.store = Store(0, clock=self.clock)
                    self.set_policy(policy)
                    self.fill(b"plain")
                    self.fill_volatile(b"a", b"b", b"c")
                    with contextlib.ExitStack() as stack:
                        if not touching:
                            stack.enter_context(self.store.atomic(touching=False))
                        use()
                    volatile = self.store.dump().expires_at
                    orders.append([key for key in self.evict_all() if key in volatile])
                with self.subTest(name, touching=touching):
                    self.assertEqual(*orders)

    def test_volatile_ttl_evicts_the_earliest_deadline_first(self) -> None:
        seed = random.randrange(2**32)
        chance = random.Random(seed)
        self.set_policy(EvictionPolicy.VOLATILE_TTL)
        self.fill(b"never")
        deadlines: dict[Key, float] = {}
        with self.subTest(seed=seed):
            for number in range(6_000):
                key: Key = key_in(chance.choice((0, 0, 3)), b"%d" % (number % 4_000))
                # Many in one second, of which some are split already; some a day apart.
                later = chance.choice((1, 1, 1, chance.randrange(90_000)))
                deadlines[key] = self.clock.now + later + chance.randrange(1_000) / 1_000
                self.store.set(key, b"1", expires_at=deadlines[key])
                if not number % 10:
                    gone = chance.choice(list(deadlines))
                    self.store.delete(gone)
                    del deadlines[gone]
            self.store.check()
            evicted = self.evict_all()
            self.assertEqual(set(evicted), set(deadlines))
            order = [round(deadlines[key] * 1_000) for key in evicted]
            self.assertEqual(order, sorted(order))
        self.assertEqual(self.there(), {b"never"})

    def test_volatile_ttl_makes_room_one_by_one_and_spares_what_is_written(self) -> None:
        self.set_policy(EvictionPolicy.VOLATILE_TTL)
        self.limit(3, more=3 * DEADLINE_COST)
        for number, key in enumerate((b"c", b"a", b"b")):
            self.store.set(key, b"1", expires_at=self.soon(100 - number))
        self.store.set(b"d", b"1", expires_at=self.soon(1))
        self.assertEqual(self.there(), {b"c", b"a", b"d"})
        self.store.set(b"e", b"1", expires_at=self.soon(500))
        self.assertEqual(self.there(), {b"c", b"a", b"e"})
        self.store.set(b"a", LARGE, expires_at=self.soon(99))  # the earliest itself stays
        self.assertEqual(self.there(), {b"a", b"e"})

    def test_random_policies_evict_any_key_as_often_as_any_other(self) -> None:
        keys = [b"%03d" % number for number in range(300)]
        seed = random.randrange(2**32)
        random.seed(seed)
        self.addCleanup(random.seed)
        for policy in (EvictionPolicy.ALLKEYS_RANDOM, EvictionPolicy.VOLATILE_RANDOM):
            first: Counter[int] = Counter()  # by the part of the table that the key is in
            for _ in range(400):
                self.store = Store(0, clock=self.clock)
                self.store.policy = policy
                self.fill_volatile(*keys)
                self.store.max_bytes = self.store.used_bytes
                self.fill_volatile(b"new")
                (gone,) = {*keys, b"new"} - self.there()
                first[int(gone) // 100] += 1
            with self.subTest(policy, seed=seed):
                # 133 on average; these bounds are 6 times the standard deviation away.
                self.assertGreater(min(first[part] for part in range(3)), 76)
                self.assertLess(max(first.values()), 190)

    def test_volatile_random_evicts_only_keys_with_a_deadline(self) -> None:
        """Also where these are few among many, or the other way round."""
        for plain, volatile in ((500, 3), (3, 500), (0, 5), (5, 0)):
            with self.subTest(plain=plain, volatile=volatile):
                self.store = Store(0, clock=self.clock)
                self.set_policy(EvictionPolicy.VOLATILE_RANDOM)
                stays = [b"p%03d" % number for number in range(plain)]
                goes = [b"v%03d" % number for number in range(volatile)]
                self.fill(*stays)
                self.fill_volatile(*goes)
                self.assertEqual(set(self.evict_all()), set(goes))
                self.assertEqual(self.there(), set(stays))
                with self.assertRaises((OutOfMemory, EntryTooLarge)):
                    self.fill(b"x")

    def test_allkeys_random_evicts_everything_but_what_is_written(self) -> None:
        self.set_policy(EvictionPolicy.ALLKEYS_RANDOM)
        self.fill(*(b"%d" % number for number in range(2_000)))
        self.store.delete(*(b"%d" % number for number in range(1_000)))
        self.limit(1)
        self.assertEqual(len(self.there()), 1)
        for number in range(50):
            self.fill(b"a%d" % (number % 3))
            self.assertEqual(self.there(), {b"a%d" % (number % 3)})
        self.store.flush()
        self.fill(b"b")
        self.assertEqual(self.there(), {b"b"})

    def test_under_random_policies_many_keys_may_be_written_at_once(self) -> None:
        for policy in (EvictionPolicy.ALLKEYS_RANDOM, EvictionPolicy.VOLATILE_RANDOM):
            self.store = Store(0, clock=self.clock)
            self.set_policy(policy)
            self.fill_volatile(b"a", b"b", b"c", b"d")
            self.store.max_bytes = self.store.used_bytes
            kept = {b"a": LARGE, b"b": LARGE, b"c": LARGE}
            self.store.write_many(kept, dict.fromkeys(kept, self.soon()))
            self.assertLessEqual(set(kept), self.there())
            self.store.check()

    def test_a_full_store_is_one_that_takes_no_new_key(self) -> None:
        for policy in EvictionPolicy:
            with self.subTest(policy):
                self.store = Store(0, clock=self.clock)
                self.set_policy(policy)
                self.assertFalse(self.store.is_full)
                self.fill(b"a", b"b")
                self.limit(2)
                evicts_any = policy.value.startswith("allkeys")
                self.assertEqual(self.store.is_full, not evicts_any)
                self.store.put_back([(b"c", Entry(b"1", self.soon(5)))])
                noeviction = policy is EvictionPolicy.NOEVICTION
                self.assertEqual(self.store.is_full, noeviction)
                self.clock.now += 5  # what has expired goes under every policy
                self.assertFalse(self.store.is_full)


class BoundedWorkTest(StoreCase):
    def test_with_a_random_policy_a_smaller_budget_lists_all_keys_only_where_it_must(self) -> None:
        self.store.policy = EvictionPolicy.ALLKEYS_RANDOM
        self.fill(*(b"%d" % number for number in range(5_000)))
        with mock.patch.object(
            self.store._budget, "_candidates", wraps=self.store._budget._candidates
        ) as candidates:
            self.store.max_bytes = self.store.used_bytes // 2
        self.assertLessEqual(self.store.used_bytes, self.store.max_bytes)
        candidates.assert_not_called()

    def test_rewriting_many_old_keys_in_one_step_takes_time_in_proportion(self) -> None:
        """Once each of N victims was looked for among all N keys that have to stay."""
        old = [b"%05d" % number for number in range(20_000)]
        self.fill(*old, b"young")
        self.store.max_bytes = self.store.used_bytes + 20_000 * 96 - 1
        self.store.write_many(dict.fromkeys(old, b"v" * 100))
        self.assertEqual(self.there(), set(old))

    def test_while_the_budget_is_lowered_a_write_evicts_only_for_itself(self) -> None:
        self.fill(*(b"%05d" % number for number in range(6_000)))
        evicted: list[int] = []

        def write_between(seconds: float) -> None:
            before = self.store.evicted_keys
            self.fill(b"new%05d" % len(evicted))
            evicted.append(self.store.evicted_keys - before)

        with mock.patch("kvdb.store.core.time.sleep", write_between):
            self.store.max_bytes = 100 * COST
        self.assertGreater(len(evicted), 3)
        self.assertLessEqual(max(evicted), 2)
        self.assertLessEqual(self.store.used_bytes, 100 * COST)
