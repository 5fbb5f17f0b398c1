from __future__ import annotations

import random
from collections.abc import Callable
from unittest import mock

from kvdb.errors import CommandError
from kvdb.store import Store
from kvdb.store.entry import Key, key_in
from tests.store_case import StoreCase


def scan_all(
    store: Store, count: int = 10, db: int = 0, between: Callable[[], object] = lambda: None
) -> list[bytes]:
    """Return what a whole scan returns, doing something between its calls."""
    cursor, keys = store.scan(0, count, db)
    while cursor:
        between()
        cursor, more = store.scan(cursor, count, db)
        keys += more
    return keys


class ScansTest(StoreCase):
    def fill_numbers(self, count: int, db: int = 0) -> list[bytes]:
        names = [b"%d" % number for number in range(count)]
        self.fill(*(key_in(db, name) for name in names))
        return names

    def test_a_scan_returns_every_key_exactly_once(self) -> None:
        names = self.fill_numbers(25)
        for count in (1, 7, 25, 26):
            with self.subTest(count=count):
                self.assertCountEqual(scan_all(self.store, count), names)

    def test_a_call_returns_no_more_keys_than_asked_for(self) -> None:
        self.fill_numbers(25)
        cursor, keys = self.store.scan(0, 7)
        self.assertNotEqual(cursor, 0)
        self.assertEqual(len(keys), 7)

    def test_an_empty_database_is_scanned_in_one_call(self) -> None:
        self.fill((1, b"elsewhere"))
        self.assertEqual(self.store.scan(0, 10), (0, []))

    def test_a_scan_sees_only_its_own_database(self) -> None:
        self.fill_numbers(5)
        self.fill((3, b"a"), (3, b"b"))
        self.store.scan(0, 1)
        self.assertCountEqual(scan_all(self.store, 1, db=3), [b"a", b"b"])

    def test_a_cursor_returns_no_keys_of_another_database(self) -> None:
        self.fill_numbers(5)
        self.fill((3, b"a"))
        cursor, _ = self.store.scan(0, 2)
        try:
            _, keys = self.store.scan(cursor, 2, db=3)
        except CommandError:
            return
        self.assertLessEqual(set(keys), {b"a"})

    def test_what_stays_is_returned_once_whatever_happens_to_the_rest(self) -> None:
        seed = random.randrange(2**32)
        chance = random.Random(seed)
        stays = {b"stays%d" % number for number in range(60)}
        changing: list[Key] = [b"%d" % number for number in range(60)]

        def disturb() -> None:
            for key in chance.sample(changing, 6):
                match chance.randrange(4):
                    case 0:
                        self.store.delete(key)
                    case 1:
                        self.store.rename(key, chance.choice(changing))
                    case 2:
                        self.store.set(key, b"2", expires_at=self.soon(chance.random() * 3))
                    case _:
                        self.fill(b"new%d" % chance.randrange(100))
            for name in chance.sample(sorted(stays), 10):
                chance.choice((self.store.get, self.store.touch, self.fill))(name)
            self.clock.now += 1
            self.store.scan(0, 3)  # somebody begins a scan and leaves it
            if chance.random() < 0.1:
                self.store.flush(1)

        with self.subTest(seed=seed):
            for _ in range(20):
                self.fill(*stays, *changing, (1, b"elsewhere"))
                keys = scan_all(self.store, chance.randrange(1, 20), between=disturb)
                self.assertEqual(len(keys), len(set(keys)))
                self.assertLessEqual(stays, set(keys))

    def test_a_deleted_or_expired_key_is_not_returned_any_more(self) -> None:
        names = self.fill_numbers(4)
        cursor, first = self.store.scan(0, 1)
        deleted, expired, rest = set(names) - set(first)
        self.store.delete(deleted)
        self.store.set_deadline(expired, self.soon())
        self.clock.now = self.soon()
        self.assertEqual(self.store.scan(cursor, 10), (0, [rest]))

    def test_a_scan_that_begins_after_a_write_sees_it(self) -> None:
        names = self.fill_numbers(5)
        self.store.scan(0, 1)
        self.fill(b"new")
        self.store.scan(0, 1)
        self.store.rename(b"new", b"renamed")
        self.assertCountEqual(scan_all(self.store, 2), [*names, b"renamed"])

    def test_a_call_may_be_repeated_with_the_same_cursor(self) -> None:
        self.fill_numbers(25)
        cursor, _ = self.store.scan(0, 10)
        self.assertEqual(self.store.scan(cursor, 10), self.store.scan(cursor, 10))

    def test_a_scan_that_has_ended_keeps_nothing(self) -> None:
        self.fill_numbers(15)
        cursor, _ = self.store.scan(0, 10)
        last = self.store.scan(cursor, 10)
        self.assertEqual((last[0], len(last[1])), (0, 5))
        with self.assertRaises(CommandError):
            self.store.scan(cursor, 10)

    def test_scans_do_not_disturb_each_other(self) -> None:
        names = self.fill_numbers(20)
        inner: list[list[bytes]] = []
        outer = scan_all(self.store, 5, between=lambda: inner.append(scan_all(self.store, 3)))
        for keys in (outer, *inner):
            self.assertCountEqual(keys, names)

    def test_a_scan_from_before_a_flush_ends(self) -> None:
        for db in (None, 0):
            with self.subTest(flushed=db):
                self.fill_numbers(15)
                self.fill((1, b"elsewhere"))
                cursor, _ = self.store.scan(0, 5)
                self.store.flush(db)
                self.assertEqual(self.store.scan(cursor, 50), (0, []))

    def test_a_scan_from_before_a_flush_sees_nothing_that_came_after_it(self) -> None:
        self.fill_numbers(15)
        cursor, _ = self.store.scan(0, 5)
        self.store.flush()
        self.fill_numbers(15)
        self.assertEqual(self.store.scan(cursor, 5), (0, []))

    def test_a_cursor_of_no_scan_is_refused(self) -> None:
        self.fill_numbers(15)
        cursor, _ = self.store.scan(0, 5)
        one_scan = 1 << 32
        for name, unknown in {
            "small": 1,
            "first number": one_scan,
            "the one before": cursor - one_scan,
            "the one after": cursor + one_scan,
            "huge": 1 << 80,
        }.items():
            with self.subTest(name), self.assertRaisesRegex(CommandError, "^ERR invalid cursor$"):
                self.store.scan(unknown, 5)

    def test_when_there_are_very_many_scans_the_oldest_is_forgotten(self) -> None:
        self.fill_numbers(15)
        with mock.patch("kvdb.store.scans.MAX_SCANS", 3):
            oldest, *others = (self.store.scan(0, 5)[0] for _ in range(4))
        with self.assertRaises(CommandError):
            self.store.scan(oldest, 5)
        for cursor in others:
            self.assertEqual(len(self.store.scan(cursor, 5)[1]), 5)

    def test_scans_of_very_many_keys_forget_the_oldest_but_not_themselves(self) -> None:
        self.fill_numbers(15)
        with mock.patch("kvdb.store.scans.MAX_BYTES", 10 * 12):
            oldest, _ = self.store.scan(0, 5)
            self.fill(b"new")  # so that the scans need a list each
            newest, _ = self.store.scan(0, 5)
        with self.assertRaises(CommandError):
            self.store.scan(oldest, 5)
        self.assertEqual(len(self.store.scan(newest, 5)[1]), 5)

    def test_scans_that_share_a_list_are_not_forgotten_for_its_length(self) -> None:
        self.fill_numbers(15)
        with mock.patch("kvdb.store.scans.MAX_BYTES", 20 * 12):
            first, _ = self.store.scan(0, 5)
            for _ in range(5):
                self.store.scan(0, 5)
        self.assertEqual(len(self.store.scan(first, 5)[1]), 5)
