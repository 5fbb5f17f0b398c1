"""Writes of many keys at once, forward and backward; notes on keys; flushes that are planned."""

from __future__ import annotations

from kvdb.errors import EntryTooLarge, OutOfMemory
from kvdb.reaper import PlannedFlush
from kvdb.store.budget import EvictionPolicy
from kvdb.store.entry import NOTE_COST, Entry
from kvdb.store.feed import Cause, Change, Flush
from tests.store_case import COST, Feed, StoreCase, contents


class WriteManyTest(StoreCase):
    def test_values_and_deletions_are_one_step(self) -> None:
        self.fill(b"a", b"b", (1, b"a"))
        feed = Feed(self.store)
        self.store.write_many({b"a": None, b"c": b"1", (1, b"a"): None, b"missing": None})
        self.assertEqual(self.there(), {b"b", b"c"})
        self.assertEqual(
            feed.steps,
            [
                [
                    Change(b"a", None, cause=Cause.DELETED),
                    Change(b"c", b"1", cause=Cause.SET),
                    Change((1, b"a"), None, cause=Cause.DELETED),
                ]
            ],
        )

    def test_what_is_deleted_makes_room_for_what_is_written(self) -> None:
        self.limit(3)
        self.fill(b"a", b"b", b"c")
        self.store.write_many({b"d": b"1", b"c": None})
        self.assertEqual(self.there(), {b"a", b"b", b"d"})
        self.assertEqual(self.store.evicted_keys, 0)

    def test_deletions_go_through_where_nothing_may_be_evicted(self) -> None:
        self.fill(b"a", b"b")
        self.store.policy = EvictionPolicy.NOEVICTION
        self.limit(2)
        with self.assertRaises(OutOfMemory):
            self.store.write_many({b"c": b"1", b"d": b"1", b"a": None})
        self.assertEqual(self.there(), {b"a", b"b"})
        self.store.write_many({b"c": b"1", b"a": None})
        self.assertEqual(self.there(), {b"b", b"c"})

    def test_what_is_too_large_changes_nothing(self) -> None:
        self.limit(2)
        self.fill(b"a", b"b")
        feed = Feed(self.store)
        with self.assertRaises(EntryTooLarge):
            self.store.write_many({b"a": None, b"c": b"1", b"d": b"1", b"e": b"1"})
        self.assertEqual((self.there(), feed.steps), ({b"a", b"b"}, []))

    def test_deleting_what_has_expired_is_an_expiry(self) -> None:
        self.store.set(b"a", b"1", expires_at=self.soon())
        self.clock.now = self.soon()
        self.store.write_many({b"a": None, b"b": b"1"})
        self.assertEqual((self.store.expired_keys, self.there()), (1, {b"b"}))

    def test_flags_and_deadlines_are_forgotten(self) -> None:
        self.store.set(b"a", b"1", expires_at=self.soon(), client_flags=7)
        self.store.write_many({b"a": b"2"})
        self.assertEqual(self.store.entry(b"a"), Entry(b"2"))


class PutBackTest(StoreCase):
    def test_keys_hold_again_what_they_held(self) -> None:
        self.store.set(b"a", b"old", expires_at=self.soon(), client_flags=7)
        self.fill((2, b"b"))
        before = contents(self.store)
        self.store.set(b"a", b"new")
        self.store.delete((2, b"b"))
        self.fill(b"c")
        self.store.put_back([*before.items(), (b"c", None), (b"missing", None)])
        self.assertEqual(contents(self.store), before)

    def test_it_evicts_nobody(self) -> None:
        self.limit(2)
        self.fill(b"a", b"b")
        self.store.delete(b"a")
        self.store.put_back([(b"a", Entry(b"1"))])
        self.assertEqual(self.there(), {b"a", b"b"})

    def test_it_breaks_versions_as_every_write_does(self) -> None:
        self.fill(b"a", b"b")
        versions = {key: self.store.version(key) for key in (b"a", b"b")}
        self.store.put_back([(b"a", Entry(b"1")), (b"b", None)])
        for key, version in versions.items():
            self.assertFalse(self.store.unchanged(key, version))

    def test_the_reaper_hears_of_a_deadline_that_comes_back(self) -> None:
        woken: list[bool] = []
        self.store.on_earlier_deadline = lambda: woken.append(True)
        self.assertIsNone(self.store.seconds_to_next_deadline())
        self.store.put_back([(b"a", Entry(b"1", self.soon()))])
        self.assertEqual((woken, self.store.seconds_to_next_deadline()), ([True], 10))

    def test_it_is_one_step_for_the_feed(self) -> None:
        self.fill(b"a")
        feed = Feed(self.store)
        self.store.put_back([(b"a", None), (b"b", Entry(b"1", self.soon(), 7))])
        self.assertEqual(
            feed.steps,
            [
                [
                    Change(b"a", None, cause=Cause.TAKEN_BACK),
                    Change(b"b", b"1", self.soon(), 7, Cause.TAKEN_BACK),
                ]
            ],
        )

    def test_with_everything_no_other_key_is_left_in_any_database(self) -> None:
        self.fill(b"a", b"b", (2, b"c"))
        versions = {key: self.store.version(key) for key in (b"a", b"b")}
        feed = Feed(self.store)
        self.store.put_back([(b"a", Entry(b"old")), ((3, b"d"), Entry(b"1"))], everything=True)
        self.assertEqual(contents(self.store), {b"a": Entry(b"old"), (3, b"d"): Entry(b"1")})
        for key, version in versions.items():
            self.assertFalse(self.store.unchanged(key, version))
        self.assertEqual(
            feed.steps,
            [
                [
                    Flush(None, Cause.TAKEN_BACK),
                    Change(b"a", b"old", cause=Cause.TAKEN_BACK),
                    Change((3, b"d"), b"1", cause=Cause.TAKEN_BACK),
                ]
            ],
        )

    def test_what_has_expired_meanwhile_does_not_come_back(self) -> None:
        self.fill(b"a")
        feed = Feed(self.store)
        past = Entry(b"old", self.clock.now - 1)
        self.store.put_back([(b"a", past), (b"b", past)])
        self.assertEqual(self.there(), set())
        self.assertEqual(feed.steps, [[Change(b"a", None, cause=Cause.DELETED)]])


class NoteTest(StoreCase):
    def test_a_note_stays_until_the_key_is_written(self) -> None:
        for write in (
            lambda: self.store.set(b"k", b"2"),
            lambda: self.store.update(b"k", lambda old: b"2"),
            lambda: self.store.set_deadline(b"k", self.soon()),
            lambda: self.store.rename(b"k", b"other"),
            lambda: self.store.delete(b"k"),
            lambda: self.store.flush(0),
            lambda: self.store.flush(),
            lambda: self.store.write_many({b"k": b"2"}),
            lambda: self.store.put_back([(b"k", Entry(b"1"))]),
        ):
            self.fill(b"k", (1, b"k"))
            note = object()
            self.store.set_note(b"k", note)
            self.store.get(b"k")
            self.store.touch(b"k")
            self.assertIs(self.store.note(b"k"), note)
            write()
            self.assertIsNone(self.store.note(b"k"))
            self.store.check()

    def test_a_note_can_be_replaced_and_taken_away(self) -> None:
        self.fill(b"k")
        for note in ("first", "second", None):
            self.store.set_note(b"k", note)
            self.assertEqual(self.store.note(b"k"), note)

    def test_a_missing_or_expired_key_takes_no_note(self) -> None:
        self.store.set_note(b"missing", "note")
        self.store.set(b"k", b"1", expires_at=self.soon())
        self.store.set_note(b"k", "note")
        self.clock.now = self.soon()
        self.assertIsNone(self.store.note(b"k"))
        self.store.set_note(b"k", "note")
        self.fill(b"missing", b"k")
        self.assertIsNone(self.store.note(b"missing"))
        self.assertIsNone(self.store.note(b"k"))

    def test_a_note_counts_for_the_budget(self) -> None:
        self.fill(b"a", b"b")
        self.store.set_note(b"b", "note")
        self.assertEqual(self.store.used_bytes, 2 * COST + NOTE_COST)
        self.limit(3)
        self.fill(b"c")
        self.assertEqual(self.there(), {b"b", b"c"})

    def test_attaching_a_note_is_no_change(self) -> None:
        self.fill(b"k")
        feed, before = Feed(self.store), self.store.changes
        self.store.set_note(b"k", "note")
        self.assertEqual((feed.steps, self.store.changes), ([], before))


class PlannedFlushTest(StoreCase):
    def setUp(self) -> None:
        super().setUp()
        self.flush = PlannedFlush(self.store)

    def test_a_database_is_flushed_at_that_moment_and_not_again(self) -> None:
        self.fill(b"a", (1, b"a"))
        self.flush.plan(self.soon())
        self.clock.now = self.soon() - 0.001
        self.flush.run_if_due()
        self.fill(b"b")
        self.assertEqual(self.there(), {b"a", b"b", (1, b"a")})
        self.clock.now += 0.001
        feed = Feed(self.store)
        self.flush.run_if_due()
        self.assertEqual((self.there(), feed.steps), ({(1, b"a")}, [[Flush(0)]]))
        self.fill(b"c")
        self.flush.run_if_due()
        self.assertEqual(self.there(), {b"c", (1, b"a")})

    def test_it_may_be_another_database(self) -> None:
        self.fill(b"a", (1, b"a"))
        self.flush.plan(self.soon(), 1)
        self.clock.now = self.soon()
        self.flush.run_if_due()
        self.assertEqual(self.there(), {b"a"})

    def test_the_reaper_is_told_when_to_wake(self) -> None:
        woken: list[bool] = []
        self.flush.on_new_plan = lambda: woken.append(True)
        self.assertIsNone(self.flush.seconds_left())
        self.flush.plan(self.soon(10))
        self.assertEqual((woken, self.flush.seconds_left()), ([True], 10))
        self.clock.now += 20
        self.assertEqual(self.flush.seconds_left(), 0)

    def test_a_later_plan_replaces_the_earlier_and_none_gives_it_up(self) -> None:
        self.fill(b"k")
        self.flush.plan(self.soon(5))
        self.flush.plan(self.soon(10))
        self.clock.now += 5
        self.flush.run_if_due()
        self.assertEqual(self.there(), {b"k"})
        self.flush.plan(None)
        self.clock.now += 50
        self.flush.run_if_due()
        self.assertEqual(self.there(), {b"k"})
        self.assertIsNone(self.flush.seconds_left())
