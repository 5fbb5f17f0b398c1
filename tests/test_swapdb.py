"""SWAPDB: the keys of two databases change places, with all that belongs to them."""

from __future__ import annotations

import random
import tempfile
from pathlib import Path

from kvdb.config import Fsync
from kvdb.persistence.journal import Journal
from kvdb.replies import NIL_ARRAY
from kvdb.store import Store
from kvdb.store.budget import EvictionPolicy
from kvdb.store.entry import TUPLE_KEY_COST, Key, key_in
from kvdb.store.feed import Swap
from tests.command_case import CommandTest
from tests.store_case import Feed, Replica, StoreCase, contents
from tests.support import ManualClock


class SwapTest(StoreCase):
    def test_values_deadlines_and_flags_change_places(self) -> None:
        self.store.set(b"a", b"0", expires_at=self.soon(5))
        self.store.set(b"b", b"0", client_flags=7)
        self.store.set((3, b"a"), b"3")
        self.store.set((3, b"c"), b"3", expires_at=self.soon(9))
        self.store.set((5, b"a"), b"5", expires_at=self.soon(7))
        before = contents(self.store)
        self.store.swap(0, 3)
        self.store.check()
        place = {0: 3, 3: 0, 5: 5}

        def moved(key: Key) -> Key:
            db, name = key if type(key) is tuple else (0, key)
            return key_in(place[db], name)  # type: ignore[index, arg-type]

        self.assertEqual(contents(self.store), {moved(key): e for key, e in before.items()})
        self.store.swap(3, 0)
        self.assertEqual(contents(self.store), before)
        self.store.swap(3, 5)
        self.assertEqual(self.store.get((5, b"c")), b"3")
        self.assertEqual([self.store.size(db) for db in (0, 3, 5)], [2, 1, 2])

    def test_deadlines_are_kept_in_their_new_place(self) -> None:
        self.store.set(b"a", b"0", expires_at=self.soon(5))
        self.store.set((3, b"b"), b"3", expires_at=self.soon(9))
        self.store.swap(0, 3)
        self.clock.now += 5
        self.assertIsNone(self.store.get((3, b"a")))
        self.clock.now += 4
        self.store.expire_due()
        self.assertEqual(self.there(), set())

    def test_the_order_of_use_stays(self) -> None:
        for policy in (EvictionPolicy.ALLKEYS_LRU, EvictionPolicy.VOLATILE_LRU):
            self.store = Store(0, clock=self.clock)
            self.store.policy = policy
            for key in (b"a", (1, b"b"), (2, b"c"), b"d"):
                self.store.set(key, b"1", expires_at=self.soon())
            self.store.get((1, b"b"))
            self.store.swap(0, 1)
            self.assertEqual(self.evict_all(), [(1, b"a"), (2, b"c"), (1, b"d"), b"b"])

    def test_keys_that_take_more_in_another_database_keep_to_the_budget(self) -> None:
        self.limit(3)
        self.fill(b"a", b"b", b"c")
        self.store.swap(0, 1)
        self.store.check()
        self.assertEqual(self.there(), {(1, b"b"), (1, b"c")})
        self.store.swap(1, 0)
        self.assertEqual(self.store.used_bytes, 2 * self.store.max_bytes // 3)
        self.assertGreater(TUPLE_KEY_COST, 0)

    def test_versions_break_where_a_key_is_or_was(self) -> None:
        self.fill(b"a", (1, b"b"), (2, b"z"))
        watched = {key: self.store.watch(key) for key in
                   (b"a", b"b", b"missing", (1, b"a"), (1, b"b"), (2, b"z"))}  # fmt: skip
        self.store.set_note((1, b"b"), "note")
        self.store.swap(0, 1)
        unchanged = {key for key, version in watched.items() if self.store.unchanged(key, version)}
        self.assertEqual(unchanged, {b"missing", (2, b"z")})
        self.assertIsNone(self.store.note(b"b"))
        for key in watched:
            self.store.unwatch(key)

    def test_scans_go_on_among_the_keys_that_are_there_now(self) -> None:
        self.fill(*(b"a%d" % number for number in range(50)))
        self.fill(*((1, b"b%d" % number) for number in range(60)))
        self.store.scan(0, 10, 0)
        self.store.scan(0, 10, 1)
        self.store.swap(0, 1)
        self.store.check()
        found = [self.store.scan(0, 1_000, db)[1] for db in (0, 1)]
        self.assertEqual([len(names) for names in found], [60, 50])

    def test_the_feed_tells_one_fact(self) -> None:
        self.fill(b"a", (1, b"b"))
        feed, changes = Feed(self.store), self.store.changes
        self.store.swap(0, 1)
        self.store.swap(1, 1)
        self.assertEqual(feed.steps, [[Swap(0, 1)]])
        self.assertEqual(self.store.changes, changes + 2)

    def test_random_swaps_and_writes_leave_the_store_sound(self) -> None:
        seed = random.randrange(2**32)
        chance = random.Random(seed)
        plain: dict[Key, bytes] = {}
        replica = Replica(self.store)
        with self.subTest(seed=seed):
            for _ in range(400):
                db, name = chance.randrange(4), b"%d" % chance.randrange(20)
                match chance.randrange(8):
                    case 0:
                        other = chance.randrange(4)
                        place = {db: other, other: db}
                        self.store.swap(db, other)
                        split = [(k if type(k) is tuple else (0, k), v) for k, v in plain.items()]
                        plain = {key_in(place.get(d, d), n): v for (d, n), v in split}  # type: ignore
                    case 1:
                        self.store.delete(key_in(db, name))
                        plain.pop(key_in(db, name), None)
                    case 2:
                        self.store.scan(0, 5, db)
                    case _:
                        value = b"x" * chance.randrange(40)
                        late = chance.choice((None, self.soon()))
                        self.store.set(key_in(db, name), value, expires_at=late)
                        plain[key_in(db, name)] = value
                self.store.check()
                self.assertEqual(replica.entries, contents(self.store))
                self.assertEqual({k: e.value for k, e in contents(self.store).items()}, plain)


class SwapDbCommandTest(CommandTest):
    def test_every_client_sees_the_other_database_under_its_number(self) -> None:
        other = self.talk.another()
        other("SELECT", 1)
        self.assert_replies(("SET k zero", b"OK"), ("SWAPDB 0 1", b"OK"), ("GET k", None))
        self.assertEqual(other("GET", "k"), b"zero")
        self.assert_replies(("SWAPDB 1 1", b"OK"), ("SWAPDB 1 0", b"OK"), ("GET k", b"zero"))

    def test_numbers_that_are_none_are_refused(self) -> None:
        out_of_range = "ERR DB index is out of range"
        self.assert_replies(
            ("SWAPDB x 0", "ERR invalid first DB index"),
            ("SWAPDB 0 x", "ERR invalid second DB index"),
            ("SWAPDB 99999999999999999999 0", "ERR invalid first DB index"),
            ("SWAPDB 0 16", out_of_range),
            ("SWAPDB -1 0", out_of_range),
        )
        self.assert_arity("SWAPDB 0", "SWAPDB 0 1 2")

    def test_a_watched_key_has_changed(self) -> None:
        self.assert_replies(("SET k v", b"OK"), ("WATCH k", b"OK"))
        self.talk.another()("SWAPDB", 0, 1)
        self.assert_replies(("MULTI", b"OK"), ("PING", b"QUEUED"))
        self.assertIs(self.ask("EXEC"), NIL_ARRAY)


class SwapInJournalTest(StoreCase):
    def setUp(self) -> None:
        folder = self.enterContext(tempfile.TemporaryDirectory())
        self.path = Path(folder) / "data.sqlite"
        self.clock = ManualClock()
        self.store, self.journal = self.open()

    def open(self) -> tuple[Store, Journal]:
        store = Store(0, clock=self.clock)
        journal = Journal(store, self.path, Fsync.ALWAYS)
        journal.load()
        journal.start()
        return store, journal

    def after_a_restart(self) -> dict[Key, object]:
        self.assertTrue(self.journal.stop())
        store, journal = self.open()
        self.addCleanup(journal.stop)
        return dict(contents(store))

    def fill_both(self) -> None:
        self.store.set(b"a", b"zero", expires_at=self.soon(500))
        self.store.set((1, b"b"), b"one")
        self.store.set((2, b"c"), b"two")

    def test_a_restart_shows_what_was_swapped(self) -> None:
        self.fill_both()
        self.journal.save()
        self.store.swap(0, 1)
        expected = dict(contents(self.store))
        self.assertEqual(self.after_a_restart(), expected)
        self.assertEqual(expected.keys(), {(1, b"a"), b"b", (2, b"c")})

    def test_writes_around_a_swap_are_kept_in_their_order(self) -> None:
        with self.store.atomic():
            self.fill_both()
            self.store.swap(0, 1)
            self.store.set(b"b", b"later")
            self.store.delete((1, b"a"))
            self.store.swap(1, 2)
            self.store.flush(2)
            self.store.set((2, b"new"), b"two")
        expected = dict(contents(self.store))
        self.assertEqual(expected.keys(), {b"b", (1, b"c"), (2, b"new")})
        self.assertEqual(self.after_a_restart(), expected)
