from __future__ import annotations

import random
import tracemalloc
from collections import Counter
from collections.abc import Callable
from unittest import mock
from zlib import crc32

from kvdb.store import Store
from kvdb.store.entry import Key, key_in
from kvdb.store.scans import HASHES, ScanIndex, hash_of
from tests.store_case import StoreCase

IDLE_PASSES = 10  # of drop_idle_indexes() that an index survives


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


def names_of_one_hash() -> tuple[bytes, bytes]:
    """Return two names that CRC-32 does not tell apart."""
    return b"plumless", b"buckeroo"


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

    def test_many_keys_are_returned_exactly_once_however_the_index_is_divided(self) -> None:
        for size in (0, 1, 31, 32, 33, 1_000, 5_000):
            self.store = Store(0, clock=self.clock)
            names = self.fill_numbers(size)
            for count in (1, 10, 1_000):
                with self.subTest(size=size, count=count):
                    if size / count <= 1_000:
                        self.assertCountEqual(scan_all(self.store, count), names)
            self.store.check()

    def test_an_index_is_right_however_many_keys_come_and_go_after_it_was_built(self) -> None:
        self.store.scan(0, 1)  # built for nobody
        names = self.fill_numbers(2_000)
        self.assertCountEqual(scan_all(self.store, 100), names)
        self.store.delete(*names[:1_990])
        self.assertCountEqual(scan_all(self.store, 3), names[1_990:])

    def test_keys_come_in_the_order_of_a_hash_that_is_the_same_everywhere(self) -> None:
        names = self.fill_numbers(25)
        self.assertEqual(scan_all(self.store, 7), sorted(names, key=crc32))
        self.assertEqual(hash_of(b"k"), hash_of((3, b"k")))
        self.assertEqual(hash_of(b"123456789"), 0xCBF43926 >> 1)  # the check value of CRC-32

    def test_a_call_returns_no_more_keys_than_asked_for(self) -> None:
        self.fill_numbers(25)
        cursor, keys = self.store.scan(0, 7)
        self.assertNotEqual(cursor, 0)
        self.assertEqual(len(keys), 7)

    def test_one_call_looks_at_10000_keys_at_most(self) -> None:
        with mock.patch("kvdb.store.listing._MOST_SCANNED", 10):
            names = self.fill_numbers(25)
            cursor, keys = self.store.scan(0, 10**9)
            self.assertEqual(len(keys), 10)
            self.assertCountEqual(keys + scan_all_from(self.store, cursor), names)

    def test_keys_of_one_hash_come_together(self) -> None:
        """A cursor cannot tell them apart."""
        one, other = names_of_one_hash()
        self.assertEqual(hash_of(one), hash_of(other))
        names = [*self.fill_numbers(20), one, other]
        self.fill(one, other)
        self.assertCountEqual(scan_all(self.store, 1), names)
        cursor, found = self.store.scan(hash_of(one), 1)
        self.assertCountEqual(found, [one, other])
        self.assertGreater(cursor, hash_of(one))

    def test_the_key_whose_hash_is_0_is_returned_too(self) -> None:
        self.assertEqual(hash_of(b""), 0)
        self.fill(b"", *self.fill_numbers(5))
        self.assertCountEqual(scan_all(self.store, 1), [b"", b"0", b"1", b"2", b"3", b"4"])

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
        self.assertLessEqual(set(self.store.scan(cursor, 2, db=3)[1]), {b"a"})

    def test_what_stays_is_returned_whatever_happens_to_the_rest(self) -> None:
        for _ in range(3):
            seed = random.randrange(2**32)
            with self.subTest(seed=seed):
                self._scan_while_all_else_changes(random.Random(seed))

    def _scan_while_all_else_changes(self, chance: random.Random) -> None:
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
            match chance.randrange(20):
                case 0:
                    self.store.flush(1)
                case 1:
                    self._drop_indexes()
                case 2:  # gone, and back at once
                    self.store.delete(*stays)
                    self.fill(*stays)

        for _ in range(20):
            self.fill(*stays, *changing, (1, b"elsewhere"))
            found = Counter(scan_all(self.store, chance.randrange(1, 20), between=disturb))
            self.assertLessEqual(stays, set(found))
            self.assertEqual({found[name] for name in stays}, {1})
        self.store.check()

    def _drop_indexes(self) -> None:
        for _ in range(IDLE_PASSES + 1):
            self.store.drop_idle_indexes()

    def test_a_deleted_or_expired_key_is_not_returned_any_more(self) -> None:
        names = self.fill_numbers(4)
        cursor, first = self.store.scan(0, 1)
        deleted, expired, rest = set(names) - set(first)
        self.store.delete(deleted)
        self.store.set_deadline(expired, self.soon())
        self.clock.now = self.soon()
        self.assertEqual(self.store.scan(cursor, 10), (0, [rest]))
        self.assertEqual(self.store.expired_keys, 0)

    def test_keys_that_are_due_are_looked_at_and_left_out(self) -> None:
        for name in self.fill_numbers(30):
            self.store.set_deadline(name, self.soon())
        self.fill(b"stays")
        self.clock.now = self.soon()
        self.assertEqual(scan_all(self.store, 4), [b"stays"])
        pages = []
        scan_all(self.store, 4, between=lambda: pages.append(1))
        self.assertEqual(len(pages), 7)  # 31 keys, 4 at a time

    def test_a_scan_that_begins_after_a_write_sees_it(self) -> None:
        names = self.fill_numbers(5)
        self.store.scan(0, 1)
        self.fill(b"new")
        self.store.scan(0, 1)
        self.store.rename(b"new", b"renamed")
        self.assertCountEqual(scan_all(self.store, 2), [*names, b"renamed"])

    def test_what_comes_and_goes_in_every_way_is_followed_by_the_index(self) -> None:
        self.fill_numbers(5)
        self.store.scan(0, 1)
        self.limit_to_what_is_used()
        for write in (
            lambda: self.store.write_many({b"0": None, b"a": b"1"}),
            lambda: self.store.rename(b"a", b"1"),
            lambda: self.store.put_back([(b"1", None), (b"a", None)]),
            lambda: self.store.update(b"b", lambda old: b"1"),
            lambda: self.store.set_each([b"b", b"c", b"d"], [b"1", b"1", b"1"]),  # evicts
            lambda: self.store.set_deadline(b"b", self.clock.now),
            lambda: self.store.flush(3),
            lambda: self.store.rename(b"c", (3, b"c")),
            lambda: self.store.flush(0),
        ):
            write()
            self.store.check()
            self.assertCountEqual(scan_all(self.store, 1), self.store.keys())

    def limit_to_what_is_used(self) -> None:
        self.store.max_bytes = self.store.used_bytes

    def test_a_call_may_be_repeated_with_the_same_cursor(self) -> None:
        self.fill_numbers(25)
        cursor, _ = self.store.scan(0, 10)
        self.assertEqual(self.store.scan(cursor, 10), self.store.scan(cursor, 10))

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

    def test_a_scan_from_before_a_flush_goes_on_with_what_came_after_it(self) -> None:
        names = self.fill_numbers(15)
        cursor, first = self.store.scan(0, 5)
        self.store.flush()
        self.fill_numbers(15)
        self.assertCountEqual(first + scan_all_from(self.store, cursor), names)


def scan_all_from(store: Store, cursor: int, count: int = 10) -> list[bytes]:
    """Return what is left of a scan."""
    names: list[bytes] = []
    while cursor:
        cursor, more = store.scan(cursor, count)
        names += more
    return names


class CursorTest(StoreCase):
    """A cursor is a place in the order of a hash: nothing is kept for its scan."""

    def setUp(self) -> None:
        super().setUp()
        self.names = [b"%d" % number for number in range(50)]
        self.fill(*self.names)

    def test_a_cursor_is_below_2_to_the_31(self) -> None:
        cursor = 0
        while True:
            cursor, _ = self.store.scan(cursor, 3)
            self.assertLess(cursor, 2**31)
            if not cursor:
                break
        self.assertEqual(HASHES, 2**31)  # redis-cli --cluster import keeps it in an int

    def test_every_number_below_2_to_the_31_is_a_good_cursor(self) -> None:
        chance = random.Random(1)
        for cursor in (1, 2**30, 2**31 - 1, *(chance.randrange(2**31) for _ in range(50))):
            _, names = self.store.scan(cursor, 1_000)
            self.assertCountEqual(
                names, [name for name in self.names if crc32(name) >> 1 >= cursor]
            )

    def test_from_2_to_the_31_on_the_scan_has_ended(self) -> None:
        for cursor in (2**31, 2**32, 2**63, 2**64 - 1, 2**80):
            self.assertEqual(self.store.scan(cursor, 10), (0, []))
        self.assertEqual(self.store.index_bytes, 0)

    def test_a_cursor_survives_a_restart(self) -> None:
        cursor, first = self.store.scan(0, 20)
        copy = Store(0, clock=self.clock)
        for name in reversed(self.names):  # in another order
            copy.set(name, b"1")
        self.assertCountEqual(first + scan_all_from(copy, cursor), self.names)
        self.assertEqual(copy.scan(cursor, 7), self.store.scan(cursor, 7))

    def test_a_cursor_survives_that_the_index_is_dropped(self) -> None:
        cursor, first = self.store.scan(0, 20)
        self.assertGreater(self.store.index_bytes, 0)
        for _ in range(IDLE_PASSES + 1):
            self.store.drop_idle_indexes()
        self.assertEqual(self.store.index_bytes, 0)
        self.assertCountEqual(first + scan_all_from(self.store, cursor), self.names)

    def test_a_scan_takes_no_memory_however_many_there_are(self) -> None:
        self.store.scan(0, 1)
        before = self.store.index_bytes
        tracemalloc.start()
        self.addCleanup(tracemalloc.stop)
        for count in range(1, 41):
            for _ in range(50):  # begun, and left
                self.store.scan(0, count)
        self.assertLess(tracemalloc.get_traced_memory()[0], 20_000)
        self.assertEqual(self.store.index_bytes, before)


class IndexTest(StoreCase):
    """The index is there while somebody scans."""

    def test_nobody_who_does_not_scan_pays_for_an_index(self) -> None:
        self.fill(b"a", b"b")
        self.assertEqual(self.store.index_bytes, 0)

    def test_an_index_survives_ten_passes_without_use_and_not_eleven(self) -> None:
        self.fill(b"a", (1, b"b"))
        self.store.scan(0, 10)
        self.store.scan(0, 10, db=1)
        both = self.store.index_bytes
        for _ in range(IDLE_PASSES):
            self.store.drop_idle_indexes()
        self.assertEqual(self.store.index_bytes, both)
        self.store.scan(0, 10)  # used again
        self.store.drop_idle_indexes()
        self.assertEqual(self.store.index_bytes, both / 2)
        for _ in range(IDLE_PASSES):
            self.store.drop_idle_indexes()
        self.assertEqual(self.store.index_bytes, 0)
        self.fill(b"c")
        self.assertCountEqual(scan_all(self.store, 1), [b"a", b"c"])

    def test_a_flush_drops_the_index(self) -> None:
        self.fill(b"a")
        self.store.scan(0, 10)
        self.store.flush()
        self.assertEqual(self.store.index_bytes, 0)

    def test_a_flush_while_the_index_is_built_begins_it_anew(self) -> None:
        for db in (None, 0):
            for elsewhere in (False, True):
                with self.subTest(db=db, elsewhere=elsewhere):
                    self.store = Store(0, clock=self.clock)
                    self.fill(b"a", b"b", *[(1, b"c")] * elsewhere)
                    self.during_the_build(lambda db=db: (self.store.flush(db), self.fill(b"d")))
                    self.assertEqual(scan_all(self.store, 1), [b"d"])
                    self.store.check()

    def test_keys_that_come_and_go_while_the_index_is_built_are_right_in_it(self) -> None:
        self.fill(b"stays", b"goes", b"goes and comes")

        def write() -> None:
            self.fill(b"comes", b"comes and goes", (1, b"elsewhere"))
            self.store.delete(b"goes", b"comes and goes", b"goes and comes")
            self.fill(b"goes and comes", b"stays")
            self.assertGreater(self.store.index_bytes, 0)  # of what is noted meanwhile

        self.during_the_build(write)
        self.assertCountEqual(scan_all(self.store, 1), [b"stays", b"comes", b"goes and comes"])

    def during_the_build(self, write: Callable[[], object]) -> None:
        """Have this done once while the next index is built, after its keys were listed."""
        build = ScanIndex.build
        done: list[bool] = []

        def build_and_write(index: ScanIndex, keys: list[Key]) -> None:
            if not done:
                done.append(True)
                write()
            build(index, keys)

        patch = mock.patch.object(ScanIndex, "build", build_and_write)
        patch.start()
        self.addCleanup(patch.stop)
        self.store.scan(0, 1)
        patch.stop()
        self.assertTrue(done)

    def test_an_index_that_was_built_for_few_keys_is_no_slower_when_there_are_many(self) -> None:
        self.store.scan(0, 1)
        self.fill(*(b"%d" % number for number in range(20_000)))
        self.store.scan(0, 10)  # builds another one
        with mock.patch("kvdb.store.scans.hash_of", side_effect=hash_of) as looked_at:
            self.store.scan(0, 10)
            self.store.scan(2**31, 10)
        self.assertLess(looked_at.call_count, 2_000)

    def test_check_notices_an_index_that_differs_from_the_keys(self) -> None:
        for damage in ("lost", "foreign", "twice", "in a wrong bucket"):
            with self.subTest(damage):
                index = ScanIndex(1_000)
                keys: set[Key] = {b"%d" % number for number in range(100)}
                index.build(list(keys))
                index.check(keys)
                key: Key = b"0"
                match damage:
                    case "lost":
                        index.discard(key)
                    case "foreign":
                        index.add(b"foreign")
                    case "twice":
                        index.add(key)
                    case _:
                        index.discard(key)
                        index._buckets[0].append(key)
                        self.assertNotEqual(hash_of(key) >> index._shift, 0)
                with self.assertRaises(AssertionError):
                    index.check(keys)
