from __future__ import annotations

import contextlib

from kvdb.errors import EntryTooLarge, OutOfMemory
from kvdb.store.entry import Change, Entry, EvictionPolicy, Flush, Key
from tests.store_case import Feed, Replica, StoreCase, contents


def stored(key: Key, value: bytes = b"1") -> Change:
    return Change(key, Entry(value))


def gone(key: Key) -> Change:
    return Change(key, None)


class ChangeFeedTest(StoreCase):
    def listen(self) -> Feed:
        """Have told only what happens from now on."""
        self.feed = Feed(self.store)
        return self.feed

    def assert_told(self, *steps: list[Change | Flush]) -> None:
        self.assertEqual(self.feed.steps, list(steps))

    def test_a_write_is_told_with_all_that_the_key_holds_now(self) -> None:
        self.listen()
        self.store.set((2, b"k"), b"v", expires_at=self.soon(), client_flags=7)
        self.store.update((2, b"k"), lambda old: b"w")
        self.store.set_deadline((2, b"k"), None)
        self.assert_told(
            [Change((2, b"k"), Entry(b"v", self.soon(), 7))],
            [Change((2, b"k"), Entry(b"w", self.soon(), 7))],
            [Change((2, b"k"), Entry(b"w", None, 7))],
        )

    def test_steps_are_told_in_the_order_in_which_they_happened(self) -> None:
        self.listen()
        self.fill(b"a", b"b")
        self.store.delete(b"a")
        self.fill(b"a")
        self.assert_told([stored(b"a")], [stored(b"b")], [gone(b"a")], [stored(b"a")])

    def test_an_operation_on_several_keys_is_one_step(self) -> None:
        self.listen()
        self.store.write_many({b"a": b"1", b"b": b"1"})
        self.store.rename(b"a", b"c")
        self.store.delete(b"c", b"missing", b"b")
        self.assert_told(
            [stored(b"a"), stored(b"b")], [gone(b"a"), stored(b"c")], [gone(b"c"), gone(b"b")]
        )

    def test_an_atomic_block_is_one_step_however_deep_it_nests(self) -> None:
        self.listen()
        with self.store.atomic():
            self.fill(b"a")
            with self.store.atomic():
                self.fill(b"b")
            self.assert_told()
            self.store.delete(b"a")
        self.assert_told([stored(b"a"), stored(b"b"), gone(b"a")])

    def test_an_atomic_block_that_raises_tells_what_it_did(self) -> None:
        self.listen()
        with contextlib.suppress(ValueError), self.store.atomic():
            self.fill(b"a")
            raise ValueError
        self.fill(b"b")
        self.assert_told([stored(b"a")], [stored(b"b")])

    def test_what_changes_nothing_tells_nothing(self) -> None:
        self.fill(b"a")
        self.store.max_bytes = self.store.used_bytes
        self.listen()
        with self.store.atomic():
            self.store.get(b"a")
            self.store.touch(b"a")
            self.store.delete(b"missing")
            self.store.rename(b"missing", b"b")
            self.store.rename(b"a", b"a")
            self.store.expire_due()
        with self.assertRaises(EntryTooLarge):
            self.store.set(b"a", b"x" * 999)
        self.assert_told()

    def test_an_eviction_belongs_to_the_step_that_needed_the_room(self) -> None:
        self.limit(2)
        self.fill(b"a", b"b")
        self.listen()
        self.store.write_many({b"c": b"1", b"d": b"1"})
        self.assert_told([gone(b"a"), gone(b"b"), stored(b"c"), stored(b"d")])

    def test_evictions_are_told_even_if_the_write_was_refused_after_them(self) -> None:
        self.store.policy = EvictionPolicy.VOLATILE_LRU
        self.fill(b"a", b"b")
        self.store.set(b"c", b"1", expires_at=self.soon())
        self.store.max_bytes = self.store.used_bytes
        self.listen()
        with self.assertRaises(OutOfMemory):
            self.store.set(b"d", b"x" * 400)
        self.assert_told([gone(b"c")])

    def test_evictions_by_a_smaller_budget_are_told(self) -> None:
        self.fill(b"a", b"b", b"c")
        self.listen()
        self.limit(1)
        self.assertEqual(self.feed.facts(), [gone(b"a"), gone(b"b")])

    def test_an_eviction_by_a_version_or_a_deadline_is_told(self) -> None:
        self.limit(3)
        self.fill(b"a", b"b", b"c")
        self.listen()
        self.store.version(b"b")
        self.assert_told([gone(b"a")])
        self.store.set_deadline(b"c", self.soon())
        self.assertEqual(self.feed.steps[-1], [Change(b"c", Entry(b"1", self.soon())), gone(b"b")])

    def test_an_expiry_is_told_whoever_notices_it(self) -> None:
        for key in (b"lazy", b"active"):
            self.store.set(key, b"v", expires_at=self.soon())
        self.listen()
        self.clock.now = self.soon()
        self.store.get(b"lazy")
        self.assert_told([gone(b"lazy")])
        self.store.expire_due()
        self.assert_told([gone(b"lazy")], [gone(b"active")])

    def test_a_deadline_in_the_past_is_told_as_a_deletion(self) -> None:
        self.fill(b"a")
        self.listen()
        self.store.set_deadline(b"a", self.clock.now)
        self.assert_told([gone(b"a")])

    def test_a_flush_is_one_fact(self) -> None:
        self.fill(b"a", (1, b"a"), (1, b"b"))
        self.listen()
        self.store.flush(1)
        self.store.flush()
        self.assert_told([Flush(1)], [Flush(None)])

    def test_a_flush_within_a_step_keeps_its_place(self) -> None:
        self.listen()
        with self.store.atomic():
            self.fill(b"a")
            self.store.flush()
            self.fill(b"b")
        self.assert_told([stored(b"a"), Flush(None), stored(b"b")])

    def test_each_listener_is_told_until_it_is_removed(self) -> None:
        first, second = self.listen(), self.listen()
        self.fill(b"a")
        self.store.remove_listener(first)
        self.fill(b"b")
        self.assertEqual(first.facts(), [stored(b"a")])
        self.assertEqual(second.facts(), [stored(b"a"), stored(b"b")])

    def test_a_replica_follows_by_the_feed_alone(self) -> None:
        replica = Replica(self.store)
        self.limit(4)
        self.fill(b"a", (1, b"a"), b"b")
        self.store.set(b"c", b"1", expires_at=self.soon(), client_flags=7)
        self.store.rename(b"b", (2, b"b"))
        self.store.flush(1)
        self.fill(b"d", b"e", b"f")
        self.assertGreater(self.store.evicted_keys, 0)
        self.assertEqual(replica.entries, contents(self.store))
