from __future__ import annotations

from kvdb.errors import EntryTooLarge
from kvdb.store.entry import entry_cost
from kvdb.writes import IDLE_LIMIT, PendingWrites, TransactionEnded
from tests.store_case import COST, Feed, StoreCase
from tests.support import ManualClock


class PendingWritesTest(StoreCase):
    def setUp(self) -> None:
        super().setUp()
        self.monotonic = ManualClock(0)
        self.writes = self.begin()

    def begin(self, max_bytes: int = 10_000) -> PendingWrites:
        return PendingWrites(max_bytes, self.monotonic)

    def assert_ended(self, reason: str, writes: PendingWrites | None = None) -> None:
        """Whatever is asked of it, it says why it is over."""
        writes = writes or self.writes
        for use in (
            lambda: writes.put(b"k", b"v"),
            lambda: writes.delete(self.store, b"k"),
            lambda: writes.get(self.store, b"k"),
            lambda: writes.commit(self.store),
        ):
            with self.assertRaisesRegex(TransactionEnded, f"was rolled back: {reason}"):
                use()

    def test_own_writes_are_seen_at_once_and_by_others_at_the_commit(self) -> None:
        self.fill(b"old", b"kept")
        self.writes.put(b"new", b"2")
        self.writes.put((3, b"new"), b"3")
        self.writes.delete(self.store, b"old")
        self.assertEqual(self.writes.get(self.store, b"new"), b"2")
        self.assertEqual(self.writes.get(self.store, b"kept"), b"1")
        self.assertIsNone(self.writes.get(self.store, b"old"))
        self.assertEqual(self.there(), {b"old", b"kept"})
        self.writes.commit(self.store)
        self.assertEqual(self.there(), {b"new", (3, b"new"), b"kept"})

    def test_the_last_write_to_a_key_counts(self) -> None:
        for value in (b"1", b"2"):
            self.writes.put(b"k", value)
            self.writes.delete(self.store, b"gone")
        self.writes.put(b"gone", b"v")
        self.writes.delete(self.store, b"gone")
        self.writes.commit(self.store)
        self.assertEqual((self.store.get(b"k"), self.store.get(b"gone")), (b"2", None))

    def test_delete_tells_whether_the_session_saw_the_key(self) -> None:
        self.fill(b"k")
        self.writes.put(b"own", b"v")
        for key in (b"k", b"own"):
            self.assertTrue(self.writes.delete(self.store, key))
            self.assertFalse(self.writes.delete(self.store, key))
        self.assertFalse(self.writes.delete(self.store, b"missing"))

    def test_a_commit_is_one_step_for_the_feed(self) -> None:
        self.fill(b"old")
        feed = Feed(self.store)
        self.writes.put(b"a", b"1")
        self.writes.delete(self.store, b"old")
        self.assertEqual(feed.steps, [])
        self.writes.commit(self.store)
        self.assertEqual(len(feed.steps), 1)

    def test_a_commit_of_nothing_is_no_step(self) -> None:
        feed = Feed(self.store)
        self.writes.delete(self.store, b"missing")
        self.writes.commit(self.store)
        self.assertEqual(feed.steps, [])

    def test_a_commit_that_does_not_fit_fails_whole_and_evicts_nobody(self) -> None:
        self.limit(3)
        self.fill(b"a", b"b", b"c")
        self.writes.delete(self.store, b"a")
        for number in range(4):
            self.writes.put(b"%d" % number, b"1")
        with self.assertRaises(EntryTooLarge):
            self.writes.commit(self.store)
        self.assertEqual(self.there(), {b"a", b"b", b"c"})

    def test_the_cap_counts_what_the_writes_would_cost(self) -> None:
        writes = self.begin(3 * COST)
        for _ in range(10):
            for key in (b"a", b"b", b"c"):
                writes.put(key, b"1")
        writes.delete(self.store, b"a")
        writes.put(b"a", b"1")
        with self.assertRaises(TransactionEnded):
            writes.put(b"d", b"1")
        self.assert_ended(f"it is larger than {3 * COST} bytes!", writes)
        self.assertEqual(self.there(), set())

    def test_deletions_count_for_the_cap_too(self) -> None:
        writes = self.begin(10 * entry_cost(b"key 0", b""))
        for number in range(10):
            writes.delete(self.store, b"key %d" % number)
        with self.assertRaises(TransactionEnded):
            writes.delete(self.store, b"key x")

    def test_who_does_nothing_for_too_long_is_rolled_back(self) -> None:
        self.writes.put(b"k", b"v")
        self.monotonic.now += IDLE_LIMIT
        self.writes.end_if_idle()
        self.assertEqual(self.writes.get(self.store, b"k"), b"v")
        self.monotonic.now += IDLE_LIMIT + 0.1
        self.writes.end_if_idle()
        self.assert_ended("nobody used it for 60 seconds!")
        self.assertEqual(self.there(), set())

    def test_every_use_counts_as_use(self) -> None:
        for use in (
            lambda: self.writes.put(b"k", b"v"),
            lambda: self.writes.get(self.store, b"k"),
            lambda: self.writes.delete(self.store, b"k"),
        ):
            self.monotonic.now += IDLE_LIMIT
            use()
            self.writes.end_if_idle()
        self.writes.commit(self.store)

    def test_the_first_reason_for_the_end_stays(self) -> None:
        writes = self.begin(1)
        with self.assertRaises(TransactionEnded):
            writes.put(b"k", b"v")
        self.monotonic.now += 2 * IDLE_LIMIT
        writes.end_if_idle()
        self.assert_ended("it is larger than 1 bytes!", writes)
