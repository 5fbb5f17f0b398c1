from __future__ import annotations

from unittest import mock

from kvdb.commands import pending_writes
from kvdb.commands.pending_writes import (
    IDLE_LIMIT,
    MAX_READ,
    Conflict,
    PendingWrites,
    TransactionEnded,
)
from kvdb.errors import CommandError, EntryTooLarge
from kvdb.store.entry import Key, entry_cost
from tests.store_case import COST, Feed, StoreCase
from tests.support import ManualClock


class WritesCase(StoreCase):
    def setUp(self) -> None:
        super().setUp()
        self.monotonic = ManualClock(0)
        self.writes = self.begin()

    def begin(self, max_bytes: int = 10_000) -> PendingWrites:
        return PendingWrites(self.store, max_bytes, self.monotonic)

    def watchers(self) -> dict[Key, int]:
        """Return how many watch each key."""
        return dict(self.store._versions._watchers)

    def assert_ended(self, reason: str, writes: PendingWrites | None = None) -> None:
        """Whatever is asked of it, it says why it is over."""
        writes = writes or self.writes
        for use in (
            lambda: writes.put(b"k", b"v"),
            lambda: writes.delete(b"k"),
            lambda: writes.get(b"k"),
            lambda: writes.commit(),
        ):
            with self.assertRaisesRegex(TransactionEnded, f"was rolled back: {reason}"):
                use()


class PendingWritesTest(WritesCase):
    def test_own_writes_are_seen_at_once_and_by_others_at_the_commit(self) -> None:
        self.fill(b"old", b"kept")
        self.writes.put(b"new", b"2")
        self.writes.put((3, b"new"), b"3")
        self.writes.delete(b"old")
        self.assertEqual(self.writes.get(b"new"), b"2")
        self.assertEqual(self.writes.get(b"kept"), b"1")
        self.assertIsNone(self.writes.get(b"old"))
        self.assertEqual(self.there(), {b"old", b"kept"})
        self.writes.commit()
        self.assertEqual(self.there(), {b"new", (3, b"new"), b"kept"})

    def test_the_last_write_to_a_key_counts(self) -> None:
        for value in (b"1", b"2"):
            self.writes.put(b"k", value)
            self.writes.delete(b"gone")
        self.writes.put(b"gone", b"v")
        self.writes.delete(b"gone")
        self.writes.commit()
        self.assertEqual((self.store.get(b"k"), self.store.get(b"gone")), (b"2", None))

    def test_delete_tells_whether_the_session_saw_the_key(self) -> None:
        self.fill(b"k")
        self.writes.put(b"own", b"v")
        for key in (b"k", b"own"):
            self.assertTrue(self.writes.delete(key))
            self.assertFalse(self.writes.delete(key))
        self.assertFalse(self.writes.delete(b"missing"))

    def test_a_commit_is_one_step_for_the_feed(self) -> None:
        self.fill(b"old")
        feed = Feed(self.store)
        self.writes.put(b"a", b"1")
        self.writes.delete(b"old")
        self.assertEqual(feed.steps, [])
        self.writes.commit()
        self.assertEqual(len(feed.steps), 1)

    def test_a_commit_of_nothing_is_no_step(self) -> None:
        feed = Feed(self.store)
        self.writes.delete(b"missing")
        self.writes.commit()
        self.assertEqual(feed.steps, [])

    def test_a_commit_that_does_not_fit_fails_whole_and_evicts_nobody(self) -> None:
        self.limit(3)
        self.fill(b"a", b"b", b"c")
        self.writes.delete(b"a")
        for number in range(4):
            self.writes.put(b"%d" % number, b"1")
        with self.assertRaises(EntryTooLarge):
            self.writes.commit()
        self.assertEqual(self.there(), {b"a", b"b", b"c"})

    def test_the_cap_counts_what_the_writes_would_cost(self) -> None:
        writes = self.begin(3 * COST)
        for _ in range(10):
            for key in (b"a", b"b", b"c"):
                writes.put(key, b"1")
        writes.delete(b"a")
        writes.put(b"a", b"1")
        with self.assertRaises(TransactionEnded):
            writes.put(b"d", b"1")
        self.assert_ended(f"it is larger than {3 * COST} bytes!", writes)
        self.assertEqual(self.there(), set())

    def test_deletions_count_for_the_cap_too(self) -> None:
        writes = self.begin(10 * entry_cost(b"key 0", b""))
        for number in range(10):
            writes.delete(b"key %d" % number)
        with self.assertRaises(TransactionEnded):
            writes.delete(b"key x")

    def test_who_does_nothing_for_too_long_is_rolled_back(self) -> None:
        self.writes.put(b"k", b"v")
        self.monotonic.now += IDLE_LIMIT
        self.writes.end_if_idle()
        self.assertEqual(self.writes.get(b"k"), b"v")
        self.monotonic.now += IDLE_LIMIT + 0.1
        self.writes.end_if_idle()
        self.assert_ended("nobody used it for 60 seconds!")
        self.assertEqual(self.there(), set())

    def test_every_use_counts_as_use(self) -> None:
        for use in (
            lambda: self.writes.put(b"k", b"v"),
            lambda: self.writes.get(b"k"),
            lambda: self.writes.delete(b"k"),
        ):
            self.monotonic.now += IDLE_LIMIT
            use()
            self.writes.end_if_idle()
        self.writes.commit()

    def test_the_first_reason_for_the_end_stays(self) -> None:
        writes = self.begin(1)
        with self.assertRaises(TransactionEnded):
            writes.put(b"k", b"v")
        self.monotonic.now += 2 * IDLE_LIMIT
        writes.end_if_idle()
        self.assert_ended("it is larger than 1 bytes!", writes)


class ConflictTest(WritesCase):
    """What was read is as it was at the COMMIT, or nothing is written."""

    def setUp(self) -> None:
        super().setUp()
        self.fill(b"n", b"other")

    def assert_conflict(self, pending: PendingWrites) -> None:
        before = self.there()
        feed = Feed(self.store)
        with self.assertRaisesRegex(Conflict, "was changed meanwhile; nothing was written"):
            pending.commit()
        self.assertEqual((self.there(), feed.steps), (before, []))
        self.store.remove_listener(feed)

    def test_of_two_that_read_and_write_the_same_key_the_second_is_refused(self) -> None:
        first, second = self.begin(), self.begin()
        for pending in (first, second):
            value = pending.get(b"n")
            pending.put(b"n", b"%d" % (int(value or b"") + 1))
        first.commit()
        self.assert_conflict(second)
        self.assertEqual(self.store.get(b"n"), b"2")

    def test_a_conflict_is_an_error_that_dialects_know(self) -> None:
        self.assertIsInstance(Conflict(), CommandError)
        self.assertTrue(Conflict().text.startswith("ERR "))

    def test_whatever_changes_what_was_read_is_a_conflict(self) -> None:
        for name, change in (
            ("set", lambda: self.store.set(b"n", b"9")),
            ("set to the same", lambda: self.store.set(b"n", b"1")),
            ("delete", lambda: self.store.delete(b"n")),
            ("update", lambda: self.store.update(b"n", lambda old: b"9")),
            ("deadline", lambda: self.store.set_deadline(b"n", self.soon())),
            ("rename", lambda: self.store.rename(b"n", b"m")),
            ("rename onto it", lambda: self.store.rename(b"other", b"n")),
            ("write many", lambda: self.store.write_many({b"n": b"9"})),
            ("flush", self.store.flush),
            ("flush of its database", lambda: self.store.flush(0)),
            ("gone and back", lambda: (self.store.delete(b"n"), self.fill(b"n"))),
        ):
            with self.subTest(name):
                self.fill(b"n", b"other")
                pending = self.begin()
                pending.get(b"n")
                pending.put(b"mine", b"v")
                change()
                self.assert_conflict(pending)

    def test_that_it_was_missing_is_read_too(self) -> None:
        self.assertIsNone(self.writes.get(b"new"))
        self.writes.put(b"new", b"mine")
        self.fill(b"new")
        self.assert_conflict(self.writes)
        self.assertEqual(self.store.get(b"new"), b"1")

    def test_that_came_and_went_again_is_a_conflict(self) -> None:
        self.writes.get(b"new")
        self.fill(b"new")
        self.store.delete(b"new")
        self.assert_conflict(self.writes)

    def test_an_expiry_is_a_change(self) -> None:
        self.store.set_deadline(b"n", self.soon(10))
        self.assertEqual(self.writes.get(b"n"), b"1")
        self.writes.put(b"x", b"1")
        self.clock.now += 10
        with self.assertRaises(Conflict):
            self.writes.commit()
        self.assertIsNone(self.store.get(b"x"))

    def test_a_deadline_that_has_not_come_is_none(self) -> None:
        self.store.set_deadline(b"n", self.soon(10))
        self.writes.get(b"n")
        self.writes.put(b"x", b"1")
        self.clock.now += 9
        self.writes.commit()
        self.assertEqual(self.store.get(b"x"), b"1")

    def test_an_eviction_is_a_change(self) -> None:
        self.writes.get(b"n")
        self.store.max_bytes = 1
        self.assert_conflict(self.writes)

    def test_the_first_reading_counts(self) -> None:
        self.writes.get(b"n")
        self.store.set(b"n", b"2")
        self.assertEqual(self.writes.get(b"n"), b"2")
        self.assert_conflict(self.writes)

    def test_whoever_only_reads_is_told_too(self) -> None:
        self.writes.get(b"n")
        self.store.set(b"n", b"2")
        self.assert_conflict(self.writes)

    def test_blind_writes_never_conflict(self) -> None:
        self.writes.put(b"n", b"mine")
        self.writes.delete(b"other")
        self.writes.delete(b"missing")
        self.store.set(b"n", b"theirs")
        self.fill(b"other", b"missing")
        self.writes.commit()
        self.assertEqual(self.there(), {b"n"})
        self.assertEqual(self.store.get(b"n"), b"mine")

    def test_to_read_ones_own_writes_does_not_count(self) -> None:
        self.writes.put(b"n", b"mine")
        self.writes.delete(b"other")
        self.writes.get(b"n")
        self.writes.get(b"other")
        self.store.set(b"n", b"theirs")
        self.store.set(b"other", b"theirs")
        self.assertEqual(self.watchers(), {})
        self.writes.commit()
        self.assertEqual(self.store.get(b"n"), b"mine")

    def test_reading_before_writing_counts_whatever_was_written_since(self) -> None:
        self.writes.get(b"n")
        self.writes.put(b"n", b"mine")
        self.store.set(b"n", b"theirs")
        self.assert_conflict(self.writes)

    def test_what_others_read_or_write_elsewhere_is_no_conflict(self) -> None:
        self.writes.get(b"n")
        self.writes.put(b"n", b"2")
        self.store.get(b"n")
        self.store.touch(b"n")
        self.store.set((3, b"n"), b"another database")
        self.store.set(b"other", b"2")
        self.store.flush(3)
        self.writes.commit()
        self.assertEqual(self.store.get(b"n"), b"2")

    def test_a_commit_that_does_not_fit_is_no_conflict_and_nothing_is_written(self) -> None:
        self.limit(3)
        self.writes.get(b"n")
        for number in range(4):
            self.writes.put(b"%d" % number, b"1")
        with self.assertRaises(EntryTooLarge):
            self.writes.commit()
        self.assertEqual(self.there(), {b"n", b"other"})

    # --- no watcher is left behind -------------------------------------------------------

    def read_some(self, pending: PendingWrites) -> None:
        for key in (b"n", b"other", b"missing", (5, b"n")):
            for _ in range(2):
                pending.get(key)
        self.assertEqual(self.watchers(), dict.fromkeys((b"n", b"other", b"missing", (5, b"n")), 1))

    def test_release_gives_every_watch_back_and_may_come_twice(self) -> None:
        self.read_some(self.writes)
        self.writes.release()
        self.assertEqual((self.watchers(), self.writes.held_bytes), ({}, 0))
        self.writes.release()
        self.assertEqual(self.watchers(), {})

    def test_every_end_by_the_server_gives_them_back(self) -> None:
        small = self.begin(COST)
        self.read_some(small)
        with self.assertRaises(TransactionEnded):
            small.put(b"k", b"too large" * 100)
        self.assertEqual((self.watchers(), small.held_bytes), ({}, 0))
        self.read_some(self.writes)
        self.monotonic.now += IDLE_LIMIT + 1
        self.writes.end_if_idle()
        self.assertEqual(self.watchers(), {})
        self.writes.release()
        self.assertEqual(self.watchers(), {})

    def test_two_that_read_the_same_key_watch_it_on_their_own(self) -> None:
        other = self.begin()
        for pending in (self.writes, other):
            pending.get(b"n")
        self.writes.release()
        self.assertEqual(self.watchers(), {b"n": 1})
        self.store.set(b"n", b"2")
        self.assert_conflict(other)

    def test_so_many_keys_may_be_read_and_not_one_more(self) -> None:
        with mock.patch.object(pending_writes, "MAX_READ", 10):
            for number in range(10):
                self.writes.get(b"%d" % number)
            self.writes.get(b"0")
            self.writes.put(b"own", b"v")
            self.writes.get(b"own")
            with self.assertRaises(TransactionEnded):
                self.writes.get(b"one more")
            self.assert_ended("it has read more than 10 keys!")
        self.assertEqual(self.watchers(), {})
        self.assertGreaterEqual(MAX_READ, 1_000)

    def test_what_is_read_is_held(self) -> None:
        self.writes.get(b"n")
        self.assertGreater(self.writes.held_bytes, 50)
