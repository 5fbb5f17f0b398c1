from __future__ import annotations

import random
import sys
import unittest
from collections.abc import Callable
from unittest import mock

from kvdb import memory
from kvdb.allocator import can_be_kept
from kvdb.commands.session import Session
from kvdb.config import MB
from kvdb.memory import LEAST_ALLOWED, Governor, resident_bytes
from kvdb.service import Service
from kvdb.store import Store
from kvdb.store.budget import EvictionPolicy
from tests.command_case import CommandTest
from tests.support import Config, ManualClock, running_server

EMPTY = 20 * MB
BUDGET = 10 * MB
VALUE = bytes(10_000)


class Process:
    """What a store's process takes: the entries, and free memory scattered between them."""

    def __init__(self, budget: int = BUDGET) -> None:
        self.store = Store(budget)
        self.clock = ManualClock()
        self.scattered = 0  # bytes that cannot be given back
        self.spare = 0  # bytes that can
        self.times_given_back = 0
        self.seconds_to_give_back = 0.0
        self.governor = Governor(
            self.store,
            EMPTY,
            resident=self.resident,
            give_back=self.give_back,
            monotonic=self.clock,
        )

    def resident(self) -> int:
        return EMPTY + self.store.used_bytes + self.scattered + self.spare

    def give_back(self) -> None:
        self.times_given_back += 1
        self.spare = 0
        self.clock.now += self.seconds_to_give_back

    def write(self, number: int) -> None:
        self.store.set(b"%d" % number, VALUE)

    def fill(self) -> None:
        for number in range(self.store.max_bytes * 9 // 10 // len(VALUE)):
            self.write(number)

    def free(self, size: int) -> None:
        """Have the newest entries free so many bytes, which may leave holes, and take new ones."""
        last = self.store.max_bytes * 9 // 10 // len(VALUE)
        for number in range(last - size // len(VALUE), last):
            self.write(number)

    @property
    def beyond(self) -> float:
        """What it takes beside the empty server, as a share of the budget."""
        return (self.resident() - EMPTY) / self.store.max_bytes


def anything(dice: random.Random, most: int) -> Callable[[], int]:
    """Return what says of the process whatever comes, up to `most` beside the empty server."""
    return lambda: EMPTY + dice.randrange(most)


class GovernorTest(unittest.TestCase):
    def setUp(self) -> None:
        exact = mock.patch.object(memory, "_UNCERTAIN", 0)  # the budget here is a small one
        exact.start()
        self.addCleanup(exact.stop)
        self.process = Process()
        self.store, self.governor = self.process.store, self.process.governor
        self.addCleanup(lambda: self.store.check())
        self.process.fill()
        # Scattered, it makes the process take more than is comfortable, but not too much.
        goal = int((memory._COMFORTABLE + memory._MOST) / 2 * BUDGET)
        self.some = goal - self.store.used_bytes

    def test_nothing_is_restricted_while_there_is_room(self) -> None:
        used = self.store.used_bytes
        self.governor.look()
        self.assertGreaterEqual(self.governor.allowance, BUDGET)
        self.assertEqual((self.store.used_bytes, self.process.times_given_back), (used, 0))

    def test_free_memory_is_given_back_before_anything_is_evicted(self) -> None:
        self.process.free(5 * MB)
        self.process.spare = 5 * MB
        self.governor.look()
        self.assertEqual((self.process.times_given_back, self.store.evicted_keys), (1, 0))

    def test_what_is_too_much_is_evicted_the_oldest_first(self) -> None:
        self.process.free(MB)
        self.process.scattered = 2 * MB
        for _ in range(10):
            self.governor.look()
        self.assertLess(self.process.beyond, 1.1)
        self.assertGreater(self.process.beyond, 0.85)
        self.assertFalse(self.store.exists(b"0"))
        self.assertTrue(self.store.exists(b"900"))
        self.assertLess(self.governor.allowance, BUDGET)

    def test_writes_keep_to_the_allowance(self) -> None:
        self.process.scattered = 2 * MB
        for number in range(2_000):
            self.process.write(number)
            self.governor.look()
        self.assertLess(self.process.beyond, 1.1)

    def test_entries_make_room_for_what_the_process_grows_by(self) -> None:
        self.governor.look()
        self.process.free(MB)
        before = self.store.used_bytes
        self.process.scattered = self.some
        grown = self.process.resident() - EMPTY - int(memory._COMFORTABLE * BUDGET)
        self.governor.look()
        self.assertAlmostEqual(self.store.used_bytes, before - grown, delta=2 * len(VALUE))

    def test_nothing_moves_between_comfortable_and_too_much(self) -> None:
        self.process.free(MB)
        self.process.scattered = self.some
        used, evicted = self.store.used_bytes, self.store.evicted_keys
        for _ in range(10):
            self.governor.look()
        self.assertEqual((self.store.used_bytes, self.store.evicted_keys), (used, evicted))
        self.assertEqual(self.governor.allowance, used)

    def test_the_allowance_rises_again_with_the_room_but_never_above_the_budget(self) -> None:
        self.process.free(5 * MB)
        self.process.scattered = 5 * MB
        for _ in range(10):
            self.governor.look()
        low = self.governor.allowance
        self.assertEqual(low, LEAST_ALLOWED * BUDGET)
        self.process.scattered = 2 * MB
        self.governor.look()
        self.assertLess(low, self.governor.allowance)
        self.assertLess(self.governor.allowance, BUDGET)
        self.process.scattered = 0
        for _ in range(20):
            for number in range(2_000):
                self.process.write(number)
            self.governor.look()
            self.assertLessEqual(self.store.used_bytes, BUDGET)
        self.assertGreater(self.store.used_bytes, 0.97 * BUDGET)

    def test_entries_keep_three_quarters_of_the_budget_whatever_else_takes_memory(self) -> None:
        self.process.free(9 * MB)
        self.process.scattered = 100 * MB
        for _ in range(50):
            self.governor.look()
            self.governor.look()
            self.assertGreater(self.store.used_bytes, 0.75 * BUDGET - 2 * len(VALUE))
        self.assertLess(self.store.used_bytes, 0.75 * BUDGET + 2 * len(VALUE))
        for number in range(2_000):
            self.process.write(number)
            self.governor.look()
            self.assertGreater(self.store.used_bytes, 0.75 * BUDGET - 2 * len(VALUE))

    def test_for_what_nobody_has_freed_no_entry_has_to_go(self) -> None:
        """Whatever the system says of the process, there are no holes to make room for."""
        for seed in range(10):
            dice = random.Random(seed)
            process = Process()
            process.governor._all_resident = anything(dice, 4 * BUDGET)
            entries = BUDGET * 9 // 10 // len(VALUE)
            for number in range(entries):
                process.write(number)
                if dice.random() < 0.3:
                    process.governor.look()
                    process.clock.now += dice.random()
            for _ in range(20):
                process.governor.look()
                process.governor.keep_pace(dice.randrange(10 * MB))
            self.assertEqual((process.store.evicted_keys, process.store.size()), (0, entries))
            process.store.check()

    def test_below_three_quarters_of_the_budget_no_entry_ever_has_to_go(self) -> None:
        for seed in range(10):
            dice = random.Random(seed)
            process = Process()
            process.governor._all_resident = anything(dice, 10 * BUDGET)
            most = int(LEAST_ALLOWED * BUDGET) - 2 * len(VALUE)
            for number in range(2_000):
                if process.store.used_bytes < most or dice.random() < 0.5:
                    process.store.delete(b"%d" % dice.randrange(number + 1))
                if process.store.used_bytes < most:
                    process.write(number)
                if dice.random() < 0.3:
                    process.governor.look()
                    process.clock.now += dice.random()
            self.assertEqual(process.store.evicted_keys, 0)
            self.assertGreater(process.store.freed_bytes, 5 * MB)
            process.store.check()

    def test_once_all_is_well_what_was_freed_before_counts_no_more(self) -> None:
        self.process.free(5 * MB)
        self.governor.look()  # there is room: all is well
        evicted = self.store.evicted_keys
        self.process.scattered = 5 * MB
        for _ in range(10):
            self.governor.look()
        self.assertEqual(self.store.evicted_keys, evicted)
        self.process.free(MB // 10)
        self.governor.look()
        gone = (self.store.evicted_keys - evicted) * len(VALUE)
        self.assertTrue(0 < gone <= MB // 10 + len(VALUE), gone)

    def test_holes_are_told(self) -> None:
        for scattered in (0, 3 * MB, MB):
            self.process.scattered = scattered
            self.governor.look()
            self.assertEqual(self.governor.holes, scattered)

    def test_it_settles_in_a_process_whose_pages_stay_pinned(self) -> None:
        self.process.store.flush()
        process, allowances = self.process, []
        for number in range(30_000):
            evicted = self.store.evicted_keys
            process.write(number)
            gone = self.store.evicted_keys - evicted
            # A tenth of what goes stays behind, up to 1.5 MB in all; half the rest is given back.
            process.scattered = min(process.scattered + gone * len(VALUE) // 10, 3 * MB // 2)
            process.spare = min(process.spare + gone * len(VALUE) // 2, MB)
            if number % 20 == 0:  # 200 kB: 20 ms at 10 MB/s
                self.governor.look()
                process.clock.now += self.governor.wait
                allowances.append(self.governor.allowance)
            self.assertLess(process.beyond, 1.3 if number < 2_000 else 1.1)
        settled = allowances[-500:]
        self.assertGreater(min(settled), 0.75 * BUDGET)
        self.assertLess(max(settled) - min(settled), 0.12 * BUDGET)

    def test_giving_back_takes_a_tenth_of_the_time_at_most(self) -> None:
        self.process.seconds_to_give_back = 0.02
        looks = 200
        for number in range(looks):
            self.process.write(number)
            self.process.scattered = BUDGET - self.store.used_bytes
            self.governor.look()
            self.process.clock.now += 0.01
        elapsed = looks * 0.01 + self.process.times_given_back * 0.02
        self.assertGreater(self.process.times_given_back, 5)
        self.assertLess(self.process.times_given_back * 0.02, 0.12 * elapsed)

    def test_memory_is_not_given_back_again_while_nothing_is_written(self) -> None:
        self.process.scattered = self.some
        for _ in range(10):
            self.governor.look()
            self.process.clock.now += 10
        self.assertLessEqual(self.process.times_given_back, 2)

    def test_clients_do_not_wait_for_long_while_entries_go(self) -> None:
        looked_at = self.process.clock.now

        def tick() -> float:
            self.process.clock.now += 0.005
            return self.process.clock.now

        self.process.free(8 * MB)
        self.process.scattered = 8 * MB
        self.governor._monotonic = tick
        evicted = self.store.evicted_keys
        self.governor.look()
        self.assertLess(self.process.clock.now - looked_at, 0.06)
        self.assertGreater(self.store.evicted_keys, evicted)
        self.assertGreater(self.store.used_bytes, 0.85 * BUDGET)  # the rest at the next look

    def test_a_policy_that_forbids_eviction_makes_writes_fail_and_nothing_spin(self) -> None:
        self.store.policy = EvictionPolicy.NOEVICTION
        self.process.free(8 * MB)
        self.process.scattered = 8 * MB
        for _ in range(10):
            self.governor.look()
        self.assertEqual(self.store.evicted_keys, 0)
        self.assertGreaterEqual(self.governor.wait, 0.05)
        with self.assertRaisesRegex(Exception, "OOM"):
            self.store.set(b"new", VALUE)

    def test_the_next_look_comes_the_sooner_the_less_room_there_is(self) -> None:
        waits = []
        for scattered in (0, self.some):
            self.process.scattered = scattered
            self.process.free(MB)
            self.governor.look()
            waits.append(self.governor.wait)
        self.assertLessEqual(max(waits), 0.05)
        self.governor.look()  # sees what the last one has evicted
        self.governor.look()  # nothing was written meanwhile
        self.assertEqual(self.governor.wait, 0.05)
        large = Process(1024 * MB)
        large.governor.look()
        self.assertEqual(large.governor.wait, 1.0)

    def test_without_a_budget_nothing_is_done(self) -> None:
        self.process.scattered = 5 * MB
        self.governor.look()
        self.store.max_bytes = 0
        self.governor.look()
        evicted = self.store.evicted_keys
        self.process.fill()
        for number in range(2_000):
            self.process.write(number)
        self.governor.look()
        self.assertEqual((self.store.evicted_keys, self.governor.wait), (evicted, 1.0))

    def test_a_budget_that_changes_counts_from_the_next_look_on(self) -> None:
        self.process.scattered = MB
        self.store.max_bytes = 5 * MB
        for _ in range(10):
            self.governor.look()
        self.assertLess(self.process.beyond, 1.1)
        self.store.max_bytes = 20 * MB
        for _ in range(10):
            self.process.fill()
            self.governor.look()
        self.assertGreater(self.store.used_bytes, 14 * MB)
        self.assertLess(self.process.beyond, 1.1)

    def test_what_connections_and_a_save_take_is_not_held_against_the_entries(self) -> None:
        self.process.free(MB)
        self.process.scattered = BUDGET
        used = self.store.used_bytes
        for borrowed in (BUDGET, BUDGET // 2):
            governor = Governor(
                self.store,
                EMPTY,
                resident=self.process.resident,
                borrowed=mock.Mock(return_value=borrowed),
            )
            governor.look()
            self.assertEqual(self.store.used_bytes == used, borrowed == BUDGET)

    def test_a_small_budget_is_not_taken_to_the_byte(self) -> None:
        self.process.free(MB)
        self.process.scattered = 6 * MB
        used = self.store.used_bytes
        with mock.patch.object(memory, "_UNCERTAIN", 8 * MB):
            self.governor.look()
        self.assertEqual(self.store.used_bytes, used)

    def test_whoever_brings_in_much_looks_at_once(self) -> None:
        self.process.free(MB)
        self.process.scattered = BUDGET
        used = self.store.used_bytes
        self.governor.keep_pace(3 * MB)
        self.assertEqual(self.store.used_bytes, used)
        self.governor.keep_pace(2 * MB)
        self.assertLess(self.store.used_bytes, used)

    def test_where_the_system_does_not_tell_nothing_is_done(self) -> None:
        for empty, resident in ((None, 100 * MB), (EMPTY, None)):
            with self.subTest(empty=empty, resident=resident):
                governor = Governor(self.store, empty, resident=lambda r=resident: r)  # type: ignore[misc]
                governor.look()
                self.assertEqual((self.store.evicted_keys, governor.wait), (0, 1.0))


class ResidentTest(unittest.TestCase):
    @unittest.skipUnless(sys.platform == "linux", "only Linux tells")
    def test_resident_bytes_are_those_of_this_process(self) -> None:
        self.assertGreater(resident_bytes() or 0, 5 * MB)

    def test_where_there_is_no_proc_it_is_not_known(self) -> None:
        with mock.patch("builtins.open", side_effect=FileNotFoundError):
            self.assertIsNone(resident_bytes())


class InfoTest(CommandTest):
    def test_startup_and_fragmentation_are_told(self) -> None:
        self.talk.instance.governor = Governor(self.talk.store, EMPTY)
        self.talk("SET", "k", bytes(2 * MB))
        with mock.patch("kvdb.commands.info.resident_bytes", return_value=EMPTY + 3 * MB):
            memory = self.info("memory")
        self.assertEqual(memory["used_memory_startup"], str(EMPTY))
        self.assertEqual(memory["used_memory_rss"], str(EMPTY + 3 * MB))
        self.assertEqual(memory["mem_fragmentation_ratio"], "1.50")

    def test_an_allowance_below_the_budget_is_told(self) -> None:
        governor = self.talk.instance.governor = Governor(self.talk.store, EMPTY)
        self.assertEqual(
            self.info("memory")["maxmemory_allowed_now"], self.info("memory")["maxmemory"]
        )
        governor.allowance, governor.holes = 1234, 567
        self.assertEqual(self.info("memory")["maxmemory_allowed_now"], "1234")
        self.assertEqual(self.info("memory")["mem_fragmentation_bytes"], "567")

    def test_the_overhead_per_key_is_what_an_entry_costs_beside_its_bytes(self) -> None:
        overhead = int(self.info("memory")["used_memory_overhead_per_key"])
        self.talk("SET", "k" * 15, "v" * 16)
        cost = int(self.info("memory")["used_memory"]) - 31
        self.assertAlmostEqual(cost, overhead, delta=31)

    def test_where_the_system_does_not_tell_the_fields_are_left_out(self) -> None:
        with mock.patch("kvdb.commands.info.resident_bytes", return_value=None):
            memory = self.info("memory")
        self.assertNotIn("used_memory_rss", memory)
        self.assertNotIn("used_memory_startup", memory)


class ServiceTest(unittest.TestCase):
    def test_a_server_that_has_the_process_to_itself_looks_after_it(self) -> None:
        service = Service(Config(data=None, port=0), own_process=True)
        self.addCleanup(service.stop)
        service.start()
        governor = service.governor
        self.assertIs(service.instance.governor, governor)
        self.assertEqual(governor is not None, can_be_kept())
        if governor is not None:
            self.assertEqual(governor.empty is None, resident_bytes() is None)
            service.instance.accounts.report(Session(service.instance), 50_000)
            self.assertEqual(governor._borrowed(), 50_000)

    def test_where_the_allocator_keeps_what_it_has_entries_are_only_counted(self) -> None:
        with mock.patch("kvdb.service.can_be_kept", return_value=False):
            service = Service(Config(data=None, port=0), own_process=True)
        self.addCleanup(service.stop)
        service.start()
        self.assertIsNone(service.governor)
        self.assertGreater(service.store.max_bytes, 0)

    def test_without_a_budget_nobody_looks_after_it(self) -> None:
        service = Service(Config(data=None, port=0, max_bytes=0), own_process=True)
        self.addCleanup(service.stop)
        service.start()
        self.assertIsNone(service.governor)

    def test_a_server_within_another_program_does_not(self) -> None:
        with running_server() as service:
            self.assertIsNone(service.governor)
