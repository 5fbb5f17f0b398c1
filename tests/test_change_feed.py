from __future__ import annotations

import contextlib
from collections.abc import Callable, Sequence

from kvdb.errors import EntryTooLarge, OutOfMemory
from kvdb.store.budget import EvictionPolicy
from kvdb.store.entry import Entry, Key
from kvdb.store.feed import Cause, Change, Flush
from tests.store_case import Feed, Replica, StoreCase, contents


def stored(key: Key, value: bytes = b"1", cause: Cause = Cause.SET) -> Change:
    return Change(key, value, cause=cause)


def gone(key: Key, cause: Cause = Cause.DELETED) -> Change:
    return Change(key, None, cause=cause)


def evicted(key: Key) -> Change:
    return gone(key, Cause.EVICTED)


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
            [Change((2, b"k"), b"v", self.soon(), 7, Cause.SET)],
            [Change((2, b"k"), b"w", self.soon(), 7, Cause.CHANGED)],
            [Change((2, b"k"), b"w", None, 7, Cause.DEADLINE)],
        )

    def test_a_change_tells_the_entry_or_that_it_is_gone(self) -> None:
        self.assertEqual(Change(b"k", b"v", 10.5, 7).entry, Entry(b"v", 10.5, 7))
        self.assertEqual(Change(b"k", b"").entry, Entry(b""))
        self.assertIsNone(gone(b"k").entry)

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
            [stored(b"a"), stored(b"b")],
            [gone(b"a", Cause.RENAMED), stored(b"c", cause=Cause.RENAMED)],
            [gone(b"c"), gone(b"b")],
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
        self.assert_told([evicted(b"a"), evicted(b"b"), stored(b"c"), stored(b"d")])

    def test_evictions_are_told_even_if_the_write_was_refused_after_them(self) -> None:
        self.store.policy = EvictionPolicy.VOLATILE_LRU
        self.fill(b"a", b"b")
        self.store.set(b"c", b"1", expires_at=self.soon())
        self.store.max_bytes = self.store.used_bytes
        self.listen()
        with self.assertRaises(OutOfMemory):
            self.store.set(b"d", b"x" * 400)
        self.assert_told([evicted(b"c")])

    def test_evictions_by_a_smaller_budget_are_told(self) -> None:
        self.fill(b"a", b"b", b"c")
        self.listen()
        self.limit(1)
        self.assertEqual(self.feed.facts(), [evicted(b"a"), evicted(b"b")])

    def test_an_eviction_by_a_deadline_is_told(self) -> None:
        self.limit(3)
        self.fill(b"a", b"b", b"c")
        self.listen()
        self.store.set_deadline(b"c", self.soon())
        self.assert_told([Change(b"c", b"1", self.soon(), 0, Cause.DEADLINE), evicted(b"a")])

    def test_an_expiry_is_told_whoever_notices_it(self) -> None:
        for key in (b"lazy", b"active"):
            self.store.set(key, b"v", expires_at=self.soon())
        self.listen()
        self.clock.now = self.soon()
        self.store.get(b"lazy")
        self.assert_told([gone(b"lazy", Cause.EXPIRED)])
        self.store.expire_due()
        self.assert_told([gone(b"lazy", Cause.EXPIRED)], [gone(b"active", Cause.EXPIRED)])

    def test_an_expiry_is_told_even_if_what_noticed_it_is_refused(self) -> None:
        def refuse(old: bytes | None) -> bytes:
            raise ValueError

        self.limit(3)
        for name, write in {
            "update": lambda: self.store.update(b"k", refuse),
            "update_each": lambda: self.store.update_each([b"k"], refuse),
            "write_many": lambda: self.store.write_many({b"k": b"x" * 999}),
            "too large for it": lambda: self.store.update(b"k", lambda old: b"x" * 999),
        }.items():
            with self.subTest(name):
                self.store.set(b"k", b"v", expires_at=self.soon())
                self.clock.now = self.soon()
                self.listen()
                with self.assertRaises((ValueError, EntryTooLarge)):
                    write()
                self.assert_told([gone(b"k", Cause.EXPIRED)])

    def test_a_deadline_in_the_past_is_told_as_a_deletion(self) -> None:
        for name, write in {
            "set_deadline": lambda: self.store.set_deadline(b"a", self.clock.now),
            "set": lambda: self.store.set(b"a", b"2", expires_at=self.clock.now),
            "put_back": lambda: self.store.put_back([(b"a", Entry(b"2", self.clock.now))]),
        }.items():
            with self.subTest(name):
                self.fill(b"a")
                self.listen()
                write()
                write()  # nothing is there any more
                self.assert_told([gone(b"a")])

    def test_each_fact_has_its_cause(self) -> None:
        self.limit(3)
        past = self.clock.now - 1
        told = [
            Cause.APPENDED, Cause.OVERWRITTEN, Cause.BITS_SET, Cause.INCREMENTED,
            Cause.INCREMENTED_BY_FLOAT, Cause.COPIED, Cause.RESTORED,
        ]  # fmt: skip
        causes: dict[Cause, list[Callable[[], object]]] = {
            Cause.SET: [
                lambda: self.store.set(b"a", b"2"),
                lambda: self.store.set_each([b"a"], [b"2"]),
                lambda: self.store.write_many({b"a": b"2"}),
            ],
            Cause.CHANGED: [
                lambda: self.store.update(b"a", lambda old: b"2"),
                lambda: self.store.update_each([b"a"], lambda old: b"2"),
            ],
            **{cause: self._writes_that_say_so(cause) for cause in told},
            Cause.DEADLINE: [
                lambda: self.store.set_deadline(b"a", self.soon()),
                lambda: self.store.set_deadline(b"a", None, keep_version=True),
            ],
            Cause.DELETED: [
                lambda: self.store.delete(b"a"),
                lambda: self.store.write_many({b"a": None}),
                lambda: self.store.set_deadline(b"a", past),
                lambda: self.store.set(b"a", b"2", expires_at=past),
            ],
            Cause.EXPIRED: [self._let_expire],
            Cause.EVICTED: [lambda: self.limit(1)],
            Cause.RENAMED: [lambda: self.store.rename(b"a", b"b")],
            Cause.SWAPPED: [lambda: self.store.swap(0, 1)],
            Cause.FLUSHED: [self.store.flush, lambda: self.store.flush(0)],
            Cause.TAKEN_BACK: [
                lambda: self.store.put_back([(b"a", Entry(b"2")), (b"b", None)]),
            ],
        }
        self.assertEqual(set(causes), set(Cause))
        for cause, writes in causes.items():
            for number, write in enumerate(writes):
                with self.subTest(cause, number=number):
                    self.limit(3)
                    self.store.flush()
                    self.fill((1, b"other"), b"b", b"a")
                    self.listen()
                    write()
                    self.assertEqual({fact.cause for fact in self.feed.facts()}, {cause})

    def _writes_that_say_so(self, cause: Cause) -> list[Callable[[], object]]:
        return [
            lambda: self.store.set(b"a", b"2", cause=cause),
            lambda: self.store.update(b"a", lambda old: b"2", cause),
            lambda: self.store.update_each([b"a"], lambda old: b"2", cause),
        ]

    def _let_expire(self) -> None:
        self.store.remove_listener(self.feed)
        self.store.set_deadline(b"a", self.soon())
        self.clock.now = self.soon()
        self.listen()
        self.store.exists(b"a")

    def test_steps_are_numbered_from_1_on_without_gaps(self) -> None:
        numbers: list[int] = []

        def listen(step: int, facts: Sequence[Change | Flush]) -> None:
            self.assertTrue(facts, "a step without facts")
            numbers.append(step)

        self.fill(b"before")  # nobody listens: nothing is numbered
        self.store.add_listener(listen)
        self.assertEqual(self.store.step, 0)
        self.fill(b"a", b"b")
        self.store.get(b"a")
        self.store.delete(b"missing")
        self.store.write_many({b"c": b"1", b"d": b"1"})
        self.store.set_each([b"e", b"f"], [b"1", b"1"])
        self.store.flush()
        self.assertEqual((numbers, self.store.step), ([1, 2, 3, 4, 5, 6], 6))
        other = Feed(self.store)
        self.fill(b"a")
        self.assertEqual((numbers[-1], len(other.steps)), (7, 1))

    def test_who_follows_gets_a_copy_and_hears_of_everything_after_it(self) -> None:
        self.listen()
        self.store.set(b"a", b"1", expires_at=self.soon(), client_flags=7)
        self.fill((3, b"b"))
        follower = Feed()
        with self.store.atomic():
            self.store.add_listener(follower)
            dump = self.store.dump()
        self.assertCountEqual(dump.keys, [b"a", (3, b"b")])
        self.assertEqual((dump.expires_at, dump.client_flags), ({b"a": self.soon()}, {b"a": 7}))
        self.assertEqual((dump.step, dump.changes), (2, 2))
        self.store.delete(b"a")
        self.assertEqual((follower.steps, follower.numbers), ([[gone(b"a")]], [3]))

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
