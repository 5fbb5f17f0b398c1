from __future__ import annotations

from collections.abc import Callable

from kvdb.errors import EntryTooLarge
from kvdb.store import Store
from kvdb.store.entry import CLIENT_FLAGS_COST, DATABASES, DEADLINE_COST, Entry, Key, entry_cost
from kvdb.store.recency import RecencyTable
from tests.store_case import COST, Feed, StoreCase, contents
from tests.support import ManualClock, TickingClock


class ReadingAndWritingTest(StoreCase):
    def test_a_value_is_read_back_with_all_that_was_stored(self) -> None:
        self.store.set(b"k", b"v", expires_at=self.soon(), client_flags=7)
        self.assertEqual(self.store.get(b"k"), b"v")
        self.assertEqual(self.store.entry(b"k"), Entry(b"v", self.soon(), 7))
        self.assertIsNone(self.store.entry(b"other"))

    def test_an_empty_value_and_an_empty_key_are_there(self) -> None:
        self.store.set(b"", b"")
        self.assertEqual(self.store.get(b""), b"")
        self.assertTrue(self.store.exists(b""))
        self.assertTrue(self.store.touch(b""))
        self.assertEqual(self.store.delete(b""), 1)

    def test_set_forgets_the_old_deadline_and_flags(self) -> None:
        self.store.set(b"k", b"v", expires_at=self.soon(), client_flags=7)
        self.store.set(b"k", b"w")
        self.assertEqual(self.store.entry(b"k"), Entry(b"w"))

    def test_get_many_answers_in_order_with_none_for_a_miss(self) -> None:
        self.store.write_many({b"a": b"1", (3, b"b"): b"2"})
        self.assertEqual(
            self.store.get_many([(3, b"b"), b"b", b"a", b"a"]), [b"2", None, b"1", b"1"]
        )

    def test_delete_counts_each_key_that_was_there_once(self) -> None:
        self.fill(b"a", b"b", b"c")
        self.assertEqual(self.store.delete(b"a", b"a", b"b", b"missing"), 2)
        self.assertEqual(self.there(), {b"c"})

    def test_write_many_forgets_old_deadlines(self) -> None:
        self.store.set(b"a", b"1", expires_at=self.soon(), client_flags=1)
        self.store.write_many({b"a": b"2", b"b": b"3"})
        self.assertEqual(contents(self.store), {b"a": Entry(b"2"), b"b": Entry(b"3")})

    def test_update_sees_the_old_value_and_keeps_deadline_and_flags(self) -> None:
        self.store.set(b"k", b"v", expires_at=self.soon(), client_flags=7)
        self.assertEqual(self.store.update(b"k", lambda old: (old or b"") + b"w"), b"vw")
        self.assertEqual(self.store.entry(b"k"), Entry(b"vw", self.soon(), 7))

    def test_update_of_an_expired_key_begins_anew(self) -> None:
        self.store.set(b"k", b"v", expires_at=self.soon(), client_flags=7)
        self.clock.now = self.soon()
        self.store.update(b"k", lambda old: repr(old).encode())
        self.assertEqual(self.store.entry(b"k"), Entry(b"None"))

    def test_an_update_that_raises_changes_nothing(self) -> None:
        self.store.set(b"k", b"v", expires_at=self.soon())
        before = contents(self.store), self.store.changes
        with self.assertRaisesRegex(ValueError, "no"):
            self.store.update(b"k", self._refuse)
        self.assertEqual((contents(self.store), self.store.changes), before)

    @staticmethod
    def _refuse(old: bytes | None) -> bytes:
        raise ValueError("no")

    def test_every_write_counts_as_a_change_and_a_read_does_not(self) -> None:
        self.fill(b"a", b"b")
        self.assertEqual(self.store.changes, 2)
        self.store.get(b"a")
        self.store.touch(b"a")
        self.store.delete(b"missing")
        self.assertEqual(self.store.changes, 2)
        self.store.set_deadline(b"a", self.soon())
        self.store.delete(b"b")
        self.assertEqual(self.store.changes, 4)
        self.store.flush()
        self.assertEqual(self.store.changes, 5)


class RenameTest(StoreCase):
    def test_rename_takes_value_deadline_and_flags_along(self) -> None:
        self.store.set(b"old", b"v", expires_at=self.soon(), client_flags=7)
        self.store.set((2, b"new"), b"replaced", expires_at=self.soon(99))
        self.assertTrue(self.store.rename(b"old", (2, b"new")))
        self.assertEqual(contents(self.store), {(2, b"new"): Entry(b"v", self.soon(), 7)})

    def test_rename_leaves_nothing_of_the_destination(self) -> None:
        self.store.set(b"old", b"v")
        self.store.set(b"new", b"w", expires_at=self.soon(), client_flags=7)
        self.store.rename(b"old", b"new")
        self.assertEqual(contents(self.store), {b"new": Entry(b"v")})

    def test_rename_of_a_missing_or_expired_key_is_told(self) -> None:
        self.store.set(b"expired", b"v", expires_at=self.soon())
        self.fill(b"new")
        self.clock.now = self.soon()
        self.assertFalse(self.store.rename(b"expired", b"new"))
        self.assertFalse(self.store.rename(b"missing", b"new"))
        self.assertEqual(self.there(), {b"new"})

    def test_rename_to_itself_changes_nothing(self) -> None:
        self.store.set(b"k", b"v", expires_at=self.soon())
        self.assertTrue(self.store.rename(b"k", b"k"))
        self.assertEqual(contents(self.store), {b"k": Entry(b"v", self.soon())})
        self.assertEqual(self.store.changes, 1)


class ExpiryTest(StoreCase):
    def test_a_key_is_a_miss_from_its_expiry_on(self) -> None:
        self.store.set(b"k", b"v", expires_at=self.soon(10))
        self.clock.now += 9.999
        self.assertEqual(self.store.get(b"k"), b"v")
        self.clock.now = 1_000_010.0
        self.assertIsNone(self.store.get(b"k"))
        self.assertEqual((self.store.hits, self.store.misses, self.store.expired_keys), (1, 1, 1))

    def test_an_expired_key_is_invisible_to_everybody(self) -> None:
        looks = {
            "get": lambda: self.store.get(b"k"),
            "get_many": lambda: self.store.get_many([b"k"]) != [None],
            "entry": lambda: self.store.entry(b"k"),
            "exists": lambda: self.store.exists(b"k"),
            "touch": lambda: self.store.touch(b"k"),
            "delete": lambda: self.store.delete(b"k"),
            "set_deadline": lambda: self.store.set_deadline(b"k", None),
            "version": lambda: self.store.version(b"k"),
            "random_key": lambda: self.store.random_key(),
        }
        for name, look in looks.items():
            with self.subTest(name):
                self.store = Store(0, clock=self.clock)
                self.store.set(b"k", b"v", expires_at=self.soon())
                self.clock.now = self.soon()
                self.assertFalse(look())
                self.assertEqual(self.store.expired_keys, 1)
                self.assertEqual(self.store.used_bytes, 0)
                self.store.check()

    def test_who_counts_or_lists_leaves_what_is_due_to_others(self) -> None:
        looks = {
            "size": lambda: self.store.size(),
            "sizes": lambda: self.store.sizes(),
            "keys": lambda: self.store.keys(),
            "scan": lambda: self.store.scan(0, 10)[1],
        }
        self.store.set(b"k", b"v", expires_at=self.soon())
        self.clock.now = self.soon()
        for name, look in looks.items():
            with self.subTest(name):
                self.assertFalse(look())
                self.assertEqual(self.store.expired_keys, 0)
        self.assertEqual(self.store.dump().keys, [b"k"])

    def test_what_is_due_and_not_yet_gone_is_left_out_of_every_count(self) -> None:
        for number in range(6):
            at = self.soon(number % 3 + 1) if number else None
            self.store.set(b"%d" % number, b"v", expires_at=at)
            self.store.set((2, b"%d" % number), b"v", expires_at=self.soon(2.5))
        self.clock.now += 1.999
        self.assertEqual((self.store.size(), self.store.size(2)), (5, 6))
        self.clock.now = 1_000_002.0
        self.assertEqual((self.store.size(), self.store.size(2)), (3, 6))
        self.assertCountEqual(self.store.keys(), [b"0", b"2", b"5"])
        self.assertEqual(self.store.sizes(), {0: (3, 2, 1.0), 2: (6, 6, 0.5)})
        self.clock.now += 0.5
        self.assertEqual((self.store.size(), self.store.size(2)), (3, 0))
        self.assertEqual(self.store.sizes(), {0: (3, 2, 0.5)})
        self.assertEqual(self.store.expired_keys, 0)
        self.clock.now -= 1  # the clock is set back: nothing was lost
        self.assertEqual((self.store.size(), self.store.size(2)), (5, 6))

    def test_a_random_key_is_none_that_is_due(self) -> None:
        self.fill(b"stays")
        for number in range(500):  # more than RANDOMKEY tries to hit
            self.store.set(b"%d" % number, b"v", expires_at=self.soon())
        self.clock.now = self.soon()
        self.assertEqual({self.store.random_key() for _ in range(10)}, {b"stays"})
        self.store.delete(b"stays")
        self.assertIsNone(self.store.random_key())

    def test_a_pass_expires_what_is_due_and_tells_whether_more_is(self) -> None:
        for number in range(5):
            self.store.set(b"%d" % number, b"v", expires_at=self.soon(1 + number % 2))
        self.store.set(b"stays", b"v", expires_at=self.soon(3.5))
        self.assertFalse(self.store.expire_due())
        self.clock.now += 2.5
        self.assertTrue(self.store.expire_due(limit=2))
        self.assertLessEqual(self.store.expired_keys, 2)
        while self.store.expire_due(limit=2):
            pass
        self.assertEqual(self.store.expired_keys, 5)
        self.assertEqual(self.there(), {b"stays"})

    def test_a_new_deadline_replaces_the_old_one(self) -> None:
        self.store.set(b"later", b"v", expires_at=self.soon(1))
        self.store.set(b"never", b"v", expires_at=self.soon(1))
        self.assertTrue(self.store.set_deadline(b"later", self.soon(9)))
        self.assertTrue(self.store.set_deadline(b"never", None))
        self.clock.now += 5
        self.assertEqual(self.there(), {b"later", b"never"})
        self.clock.now += 5
        self.assertEqual(self.there(), {b"never"})

    def test_a_deadline_in_the_past_deletes_the_key(self) -> None:
        for name, write in {
            "set_deadline": lambda: self.store.set_deadline(b"k", self.clock.now),
            "set": lambda: self.store.set(b"k", b"new", expires_at=self.clock.now),
            "put_back": lambda: self.store.put_back([(b"k", Entry(b"old", self.clock.now))]),
        }.items():
            with self.subTest(name):
                self.fill(b"k")
                version = self.store.version(b"k")
                write()
                self.assertFalse(self.store.exists(b"k"))
                self.assertFalse(self.store.unchanged(b"k", version))
                self.assertEqual((self.store.used_bytes, self.store.expired_keys), (0, 0))

    def test_to_set_what_has_expired_already_makes_no_key_and_no_change(self) -> None:
        self.store.set(b"k", b"v", expires_at=self.clock.now)
        self.store.set(b"k", b"v", expires_at=-1.0)
        self.assertEqual((self.there(), self.store.changes), (set(), 0))

    def test_deadlines_are_kept_in_whole_milliseconds(self) -> None:
        for given, kept in ((10.1234, 10.123), (10.0006, 10.001), (10.25, 10.25)):
            at, rounded = self.clock.now + given, self.clock.now + kept
            for name, write in {
                "set": lambda at=at: self.store.set(b"k", b"v", expires_at=at),
                "set_deadline": lambda at=at: self.store.set_deadline(b"k", at),
                "put_back": lambda at=at: self.store.put_back([(b"k", Entry(b"v", at))]),
            }.items():
                with self.subTest(name, given=given):
                    self.fill(b"k")
                    write()
                    self.assertEqual(self.store.dump().expires_at, {b"k": rounded})

    def test_the_latest_deadline_stays_within_64_bits_of_milliseconds(self) -> None:
        for number, at in enumerate((2.0**53, 1e17, 1e300, float("inf"))):
            self.store.set(b"%d" % number, b"v", expires_at=at)
            entry = self.store.entry(b"%d" % number)
            assert entry is not None
            assert entry.expires_at is not None
            self.assertLessEqual(entry.expires_at, 2**63 / 1000)
            self.store.check()
            self.store.set_deadline(b"%d" % number, 1e18)
        self.assertEqual(self.store.delete(b"0", b"1", b"2", b"3"), 4)

    def test_a_missing_key_gets_no_deadline(self) -> None:
        self.assertFalse(self.store.set_deadline(b"missing", self.soon()))
        self.assertIsNone(self.store.seconds_to_next_deadline())

    def test_a_key_may_be_stored_again_after_its_expiry(self) -> None:
        self.store.set(b"k", b"v", expires_at=self.soon(1))
        self.clock.now += 2
        self.store.set(b"k", b"w")
        self.clock.now += 99
        self.assertEqual(self.store.get(b"k"), b"w")

    def test_the_wait_until_the_next_deadline_is_never_too_long(self) -> None:
        self.assertIsNone(self.store.seconds_to_next_deadline())
        self.store.set(b"a", b"v", expires_at=self.soon(20))
        self.store.set(b"b", b"v", expires_at=self.soon(10.5))
        wait = self.store.seconds_to_next_deadline()
        assert wait is not None
        self.assertGreater(wait, 9.4)
        self.assertLessEqual(wait, 10.5)
        self.clock.now += 30
        self.assertEqual(self.store.seconds_to_next_deadline(), 0)

    def test_only_a_deadline_before_the_one_that_was_told_wakes_the_reaper(self) -> None:
        woken: list[str] = []
        self.store.on_earlier_deadline = lambda: woken.append("woken")
        self.store.seconds_to_next_deadline()
        self.store.set(b"first", b"v", expires_at=self.soon(10))
        self.assertEqual(len(woken), 1)
        self.store.seconds_to_next_deadline()
        self.store.set(b"later", b"v", expires_at=self.soon(20))
        self.assertEqual(len(woken), 1)
        self.store.set_deadline(b"later", self.soon(5))
        self.assertEqual(len(woken), 2)
        self.store.delete(b"first", b"later")
        self.assertIsNone(self.store.seconds_to_next_deadline())
        self.store.set(b"much later", b"v", expires_at=self.soon(99))
        self.assertEqual(len(woken), 3)


class DatabasesTest(StoreCase):
    def test_databases_have_keys_of_their_own(self) -> None:
        self.store.set(b"k", b"zero")
        self.store.set((1, b"k"), b"one")
        self.assertEqual(self.store.get_many([b"k", (1, b"k"), (2, b"k")]), [b"zero", b"one", None])
        self.assertEqual([self.store.size(db) for db in range(3)], [1, 1, 0])
        self.assertEqual(self.store.keys(1), [b"k"])
        self.assertEqual(self.store.random_key(1), b"k")
        self.assertIsNone(self.store.random_key(2))

    def test_every_key_of_a_database_can_be_the_random_one(self) -> None:
        self.fill(b"a", (1, b"x"), b"b", (1, b"y"))
        self.assertEqual({self.store.random_key(1) for _ in range(200)}, {b"x", b"y"})

    def test_sizes_lists_the_databases_that_have_keys(self) -> None:
        self.fill(b"a", (5, b"a"), (5, b"b"))
        self.store.set((5, b"c"), b"v", expires_at=self.soon(10))
        self.store.set((5, b"d"), b"v", expires_at=self.soon(30))
        self.assertEqual(self.store.sizes(), {0: (1, 0, 0.0), 5: (4, 2, 20.0)})

    def test_flush_of_one_database_leaves_the_others(self) -> None:
        self.fill(b"a", (1, b"a"))
        self.store.set((1, b"b"), b"v", expires_at=self.soon(), client_flags=7)
        self.store.flush(1)
        self.assertEqual(self.there(), {b"a"})
        self.store.flush(2)
        self.assertEqual(self.there(), {b"a"})
        self.assertEqual(self.store.used_bytes, COST)

    def test_flush_of_all_databases_leaves_nothing(self) -> None:
        for db in range(1, DATABASES):
            self.store.set((db, b"k"), b"v", expires_at=self.soon(), client_flags=7)
        self.store.flush()
        self.assertEqual((self.there(), self.store.used_bytes), (set(), 0))
        self.assertIsNone(self.store.seconds_to_next_deadline())
        self.assertEqual(self.store.evicted_keys, 0)

    def test_freed_bytes_are_counted_over_a_flush(self) -> None:
        self.fill(b"a", (1, b"b"), b"c")
        self.store.delete(b"a")
        self.store.flush(1)
        used = self.store.used_bytes
        before = self.store.freed_bytes
        self.assertEqual(before, COST + entry_cost((1, b"b"), b"1"))
        self.store.flush()
        self.assertEqual(self.store.freed_bytes, before + used)

    def test_a_flushed_store_can_be_used_again(self) -> None:
        for number in range(1_200):  # more than is freed at a time
            self.store.set(b"%d" % number, b"v", expires_at=self.soon(1))
        self.store.flush()
        self.store.set(b"1", b"w", expires_at=self.soon(2))
        self.clock.now += 1
        self.assertEqual(contents(self.store), {b"1": Entry(b"w", self.soon(1))})


class VersionsTest(StoreCase):
    def test_a_version_stays_until_the_key_is_written(self) -> None:
        self.fill(b"k", b"other")
        version = self.store.version(b"k")
        self.store.get(b"k")
        self.fill(b"other")
        self.assertEqual(self.store.version(b"k"), version)
        self.assertTrue(self.store.unchanged(b"k", version))

    def test_every_kind_of_write_breaks_a_version(self) -> None:
        writes = {
            "set": lambda: self.store.set(b"k", b"1"),
            "write_many": lambda: self.store.write_many({b"k": b"1"}),
            "update": lambda: self.store.update(b"k", lambda old: old or b""),
            "set_deadline": lambda: self.store.set_deadline(b"k", self.soon()),
            "delete": lambda: self.store.delete(b"k"),
            "rename away": lambda: self.store.rename(b"k", b"x"),
            "rename onto": lambda: self.store.rename(b"other", b"k"),
            "flush": lambda: self.store.flush(),
            "flush of the database": lambda: self.store.flush(0),
            "eviction": self.evict_all,
        }
        for name, write in writes.items():
            with self.subTest(name):
                self.store = Store(0, clock=self.clock)
                self.fill(b"k", b"other", (1, b"k"))
                version = self.store.watch(b"k")
                write()
                self.assertFalse(self.store.unchanged(b"k", version))
                self.store.unwatch(b"k")
                self.store.check()

    def test_an_expiry_breaks_a_version(self) -> None:
        self.store.set(b"k", b"v", expires_at=self.soon())
        version = self.store.watch(b"k")
        self.clock.now = self.soon()
        self.assertFalse(self.store.unchanged(b"k", version))
        self.store.unwatch(b"k")

    def test_deleting_and_storing_the_same_again_is_a_change(self) -> None:
        self.fill(b"k")
        version = self.store.version(b"k")
        self.store.delete(b"k")
        self.fill(b"k")
        self.assertNotEqual(self.store.version(b"k"), version)

    def test_a_watched_key_that_is_missing_changes_when_it_comes(self) -> None:
        version = self.store.watch(b"k")
        self.store.flush()
        self.store.delete(b"k")
        self.assertTrue(self.store.unchanged(b"k", version))
        self.fill(b"k")
        self.store.delete(b"k")
        self.assertFalse(self.store.unchanged(b"k", version))
        self.store.unwatch(b"k")

    def test_a_deadline_may_leave_the_version_as_it_is(self) -> None:
        """memcached's touch changes no cas token."""
        self.fill(b"k")
        version = self.store.version(b"k")
        self.store.set_note(b"k", "note")
        for at in (self.soon(), self.soon(20), None):
            self.assertTrue(self.store.set_deadline(b"k", at, keep_version=True))
            self.assertTrue(self.store.unchanged(b"k", version))
            self.assertEqual(self.store.note(b"k"), "note")
        self.store.set_deadline(b"k", self.clock.now, keep_version=True)  # deletes it
        self.assertFalse(self.store.unchanged(b"k", version))

    def test_a_missing_key_that_nobody_watches_has_version_0(self) -> None:
        self.assertEqual(self.store.version(b"k"), 0)
        self.assertEqual(self.store.used_bytes, 0)

    def test_two_watchers_of_a_key_do_not_disturb_each_other(self) -> None:
        first = self.store.watch(b"k")
        second = self.store.watch(b"k")
        self.store.unwatch(b"k")
        self.assertTrue(self.store.unchanged(b"k", first))
        self.assertEqual(first, second)
        self.store.unwatch(b"k")

    def test_watching_leaves_nothing_behind(self) -> None:
        self.fill(b"deleted", b"flushed")
        keys = [b"missing", b"deleted", b"flushed", b"stored"]
        for key in keys:
            self.store.watch(key)
        self.store.delete(b"deleted")
        self.store.version(b"deleted")
        self.fill(b"stored")
        self.store.flush()
        for key in keys:
            self.store.unwatch(key)
        self.assertEqual(self.store.used_bytes, 0)


class DumpAndRestoreTest(StoreCase):
    def test_a_dump_is_restored_with_deadlines_flags_and_databases(self) -> None:
        self.fill(b"a", (3, b"a"))
        self.store.set((3, b"b"), b"v", expires_at=self.soon(), client_flags=7)
        copy = Store(0, clock=self.clock)
        self.assertEqual(copy.restore(contents(self.store).items()), 0)
        self.assertEqual(contents(copy), contents(self.store))
        self.assertEqual(copy.used_bytes, self.store.used_bytes)
        self.assertEqual(copy.changes, 0)
        copy.check()

    def test_a_dump_stays_as_it_was(self) -> None:
        self.store.set(b"k", b"v", expires_at=self.soon(), client_flags=7)
        dump = self.store.dump()
        self.store.flush()
        self.assertEqual(
            dump, ([b"k"], [b"v"], {b"k": self.soon()}, {b"k": 7}, self.store.changes - 1, 0)
        )

    def test_a_dump_knows_which_step_it_follows(self) -> None:
        feed = Feed(self.store)
        self.fill(b"a", b"b")
        dump = self.store.dump()
        self.fill(b"c")
        self.assertEqual((dump.step, feed.numbers), (2, [1, 2, 3]))

    def test_a_dump_holds_what_is_due_and_not_yet_gone(self) -> None:
        self.store.set(b"k", b"v", expires_at=self.soon())
        self.clock.now = self.soon()
        self.assertEqual(self.store.dump().keys, [b"k"])
        self.assertEqual(self.store.expired_keys, 0)

    def test_restore_leaves_out_what_has_expired_meanwhile(self) -> None:
        entries = [(b"gone", Entry(b"v", self.clock.now)), (b"here", Entry(b"v", self.soon()))]
        self.assertEqual(self.store.restore(entries), 0)
        self.assertEqual(self.there(), {b"here"})
        self.assertEqual(self.store.expired_keys, 0)

    def test_of_a_key_that_comes_twice_the_last_entry_is_restored(self) -> None:
        self.store._space.table = RecencyTable(8)  # so that what came first is in an older segment
        entries = [(b"%d" % (number % 400), Entry(b"%d" % number)) for number in range(1_000)]
        entries += [(b"0", Entry(b"last", self.soon(), 7)), (b"1", Entry(b"last"))]
        self.assertEqual(self.store.restore(entries), 0)
        self.assertEqual(contents(self.store), dict(entries))

    def test_restore_into_a_smaller_budget_keeps_the_last_entries_that_fit(self) -> None:
        self.limit(2)
        entries = [(name, Entry(b"1")) for name in (b"a", b"b", b"c")]
        self.assertEqual(self.store.restore([*entries, (b"large", Entry(b"x" * 999))]), 2)
        self.assertEqual(self.there(), {b"b", b"c"})
        self.assertEqual(self.store.evicted_keys, 0)

    def test_restored_deadlines_and_flags_are_part_of_the_budget(self) -> None:
        self.limit(2, more=DEADLINE_COST + CLIENT_FLAGS_COST)
        self.store.restore((b"%d" % n, Entry(b"1", self.soon(), 7)) for n in range(3))
        self.assertLessEqual(self.store.used_bytes, self.store.max_bytes)


class OneMomentTest(StoreCase):
    """The clock of these tests goes on whenever somebody looks at it."""

    def setUp(self) -> None:
        self.ticking = TickingClock()
        self.store = Store(0, clock=self.ticking)

    def expire_together(self, *keys: Key, ticks: float = 1) -> None:
        """Have these keys expire when the clock is looked at for the so-manieth time from now."""
        with self.store.atomic():
            at = self.store.now() + ticks * self.ticking.tick
            for key in keys:
                self.store.set(key, b"v", expires_at=at)

    def test_the_moment_stands_still_within_a_step_and_goes_on_after_it(self) -> None:
        with self.store.atomic():
            moment = self.store.now()
            with self.store.atomic():
                self.assertEqual(self.store.now(), moment)
            self.assertEqual(self.store.now(), moment)
            self.store.set(b"k", b"v", expires_at=moment + self.ticking.tick)
            for _ in range(5):
                self.assertEqual(self.store.get(b"k"), b"v")
            self.assertEqual(self.store.size(), 1)
            self.assertFalse(self.store.expire_due())
        self.assertGreater(self.store.now(), moment)
        self.assertIsNone(self.store.get(b"k"))

    def test_a_step_that_raises_ends_its_moment_too(self) -> None:
        with self.assertRaises(ValueError), self.store.atomic():
            moment = self.store.now()
            raise ValueError
        self.assertGreater(self.store.now(), moment)

    def test_a_step_that_asks_for_no_time_looks_at_no_clock(self) -> None:
        before = self.ticking.readings
        self.fill(b"k")
        with self.store.atomic():
            self.store.get(b"k")
            self.store.update(b"k", lambda old: b"2")
            self.store.delete(b"k")
        self.assertEqual(self.ticking.readings, before)

    def test_keys_with_one_deadline_are_there_or_gone_together(self) -> None:
        keys: list[Key] = [b"a", (1, b"b"), b"c", b"d"]
        for ticks in (1, 2, 3):
            for name, look in {
                "get_many": lambda: self.store.get_many(keys),
                "delete": lambda: [self.store.delete(*keys)],
                "sizes": lambda: [sum(size for size, _, _ in self.store.sizes().values())],
                "atomic": self._look_in_one_step,
            }.items():
                with self.subTest(name, ticks=ticks):
                    self.expire_together(*keys, ticks=ticks)
                    there = ticks > 1
                    expected = {
                        "get_many": [b"v" if there else None] * 4,
                        "delete": [4 * there],
                        "sizes": [4 * there],
                        "atomic": [there] * 4,
                    }
                    self.assertEqual(look(), expected[name])

    def _look_in_one_step(self) -> list[bool]:
        with self.store.atomic():
            return [self.store.exists(key) for key in (b"a", (1, b"b"), b"c", b"d")]

    def test_write_many_is_one_moment(self) -> None:
        self.expire_together(b"a", b"b", ticks=2)
        self.store.write_many({b"a": None, b"b": None, b"c": None})
        self.assertEqual((self.store.expired_keys, self.store.changes), (0, 4))
        self.expire_together(b"a", b"b", ticks=1)
        self.store.write_many({b"a": None, b"b": None, b"c": None})
        self.assertEqual((self.store.expired_keys, self.there()), (2, set()))

    def test_no_operation_looks_at_the_clock_twice(self) -> None:
        soon = self.ticking.now + 1_000_000
        operations: dict[str, Callable[[], object]] = {
            "get": lambda: self.store.get(b"k"),
            "get_entry": lambda: self.store.get_entry(b"k"),
            "get_many": lambda: self.store.get_many([b"k", b"l"]),
            "entry": lambda: self.store.entry(b"k"),
            "exists": lambda: self.store.exists(b"k"),
            "cost": lambda: self.store.cost(b"k"),
            "touch": lambda: self.store.touch(b"k"),
            "size": lambda: self.store.size(),
            "sizes": lambda: self.store.sizes(),
            "keys": lambda: self.store.keys(),
            "random_key": lambda: self.store.random_key(),
            "scan": lambda: self.store.scan(0, 10),
            "set": lambda: self.store.set(b"k", b"w", expires_at=soon),
            "write_many": lambda: self.store.write_many({b"k": b"w", b"l": None, b"m": b"1"}),
            "delete": lambda: self.store.delete(b"k", b"l"),
            "rename": lambda: self.store.rename(b"k", b"l"),
            "set_deadline": lambda: self.store.set_deadline(b"k", soon),
            "put_back": lambda: self.store.put_back([(b"k", Entry(b"1", soon)), (b"l", None)]),
            "version": lambda: self.store.version(b"k"),
            "watch": lambda: self.store.watch(b"k"),
            "unchanged": lambda: self.store.unchanged(b"k", 1),
            "note": lambda: self.store.note(b"k"),
            "set_note": lambda: self.store.set_note(b"k", "note"),
            "expire_due": lambda: self.store.expire_due(),
            "seconds_to_next_deadline": lambda: self.store.seconds_to_next_deadline(),
        }
        for name, operation in operations.items():
            with self.subTest(name):
                self.store.flush()
                for key in (b"k", b"l"):
                    self.store.set(key, b"v", expires_at=soon)
                before = self.ticking.readings
                operation()
                self.assertLessEqual(self.ticking.readings - before, 1)

    def test_a_write_looks_at_the_clock_once(self) -> None:
        soon = self.ticking.now + 1_000_000
        for key in (b"k", b"l", b"m"):
            self.store.set(key, b"v", expires_at=soon)
        self.store.max_bytes = self.store.used_bytes
        for name, write in {
            "update": lambda: self.store.update(b"k", lambda old: b"w"),
            "set that needs room": lambda: self.store.set(b"n", b"v", expires_at=soon),
        }.items():
            before = self.ticking.readings
            write()
            self.assertLessEqual(self.ticking.readings - before, 1, name)

    def test_a_key_does_not_expire_within_its_update(self) -> None:
        self.expire_together(b"k", ticks=2)
        self.store.update(b"k", lambda old: b"w")
        self.assertIn(b"k", self.store.dump().keys)


class StatisticsTest(StoreCase):
    def test_only_reading_a_value_counts_as_hit_or_miss(self) -> None:
        self.fill(b"a")
        self.store.get_many([b"a", b"missing", b"a"])
        self.store.get(b"missing")
        self.store.exists(b"a")
        self.store.touch(b"a")
        self.store.entry(b"missing")
        self.assertEqual((self.store.hits, self.store.misses), (2, 2))

    def test_statistics_can_be_reset(self) -> None:
        self.store.set(b"a", b"v", expires_at=self.soon())
        self.fill(b"b")
        self.store.get_many([b"a", b"missing"])
        self.clock.now = self.soon()
        self.store.expire_due()
        self.evict_all()
        figures = ("hits", "misses", "expired_keys", "evicted_keys")
        self.assertEqual([getattr(self.store, figure) for figure in figures], [1, 1, 1, 1])
        self.store.reset_statistics()
        self.assertEqual([getattr(self.store, figure) for figure in figures], [0, 0, 0, 0])
        self.assertEqual(self.store.changes, 4)

    def test_check_notices_a_wrong_figure(self) -> None:
        store = Store(0, clock=ManualClock())
        store.set(b"k", b"v")
        store.check()
        store._space.used += 1
        with self.assertRaises(AssertionError):
            store.check()

    def test_a_budget_of_0_means_no_limit(self) -> None:
        self.assertEqual(self.store.max_bytes, 0)
        self.store.max_bytes = 10 * COST
        self.assertEqual(self.store.max_bytes, 10 * COST)
        with self.assertRaises(EntryTooLarge):
            self.store.set(b"k", b"x" * 10 * COST)
        self.store.max_bytes = 0
        self.store.set(b"k", b"x" * 10 * COST)
        self.assertEqual(self.store.used_bytes, entry_cost(b"k", b"x" * 10 * COST))
