"""The table in order of use: the same as a plain list, however many segments it has."""

from __future__ import annotations

import random
import unittest
from collections import OrderedDict

from kvdb.store.recency import RecencyTable


def table(keys: str, capacity: int) -> RecencyTable:
    """Return a table that these keys (one letter each) were put into, one after the other."""
    entries = RecencyTable(capacity)
    for key in keys:
        entries.put(key.encode(), key.upper().encode())
    entries.check()
    return entries


def order(entries: RecencyTable) -> str:
    return b"".join(entries).decode()  # type: ignore[arg-type]


class RecencyTableTest(unittest.TestCase):
    def test_the_order_of_use_goes_through_all_segments(self) -> None:
        entries = table("abcdefgh", capacity=3)
        self.assertEqual(len(entries.segments()), 3)
        self.assertEqual((order(entries), len(entries)), ("abcdefgh", 8))

    def test_a_key_is_found_wherever_it_is(self) -> None:
        entries = table("abcdefgh", capacity=3)
        self.assertEqual([entries.get(key) for key in (b"a", b"e", b"h")], [b"A", b"E", b"H"])
        self.assertIn(b"b", entries)
        self.assertNotIn(b"x", entries)
        self.assertIsNone(entries.get(b"x"))

    def test_what_is_written_or_touched_becomes_the_youngest(self) -> None:
        entries = table("abcdefgh", capacity=3)
        entries.put(b"b", b"new")
        entries.touch(b"d")
        entries.touch(b"h")
        self.assertEqual(order(entries), "acefgbdh")
        self.assertEqual(entries.get(b"b"), b"new")
        entries.check()

    def test_what_is_replaced_keeps_its_place(self) -> None:
        entries = table("abcdefgh", capacity=3)
        for key in (b"a", b"e", b"h"):
            entries.replace(key, b"new")
            self.assertEqual(entries.get(key), b"new")
        self.assertEqual(order(entries), "abcdefgh")

    def test_what_is_taken_out_is_gone(self) -> None:
        entries = table("abcdefgh", capacity=3)
        self.assertEqual([entries.pop(key) for key in (b"a", b"h", b"b")], [b"A", b"H", b"B"])
        entries.pop(b"c")
        self.assertEqual(order(entries), "defg")
        self.assertEqual(len(entries.segments()), 2)
        with self.assertRaises(KeyError):
            entries.pop(b"a")
        entries.check()

    def test_the_oldest_key_is_known(self) -> None:
        entries = table("abcdefgh", capacity=3)
        self.assertEqual(entries.oldest(), b"a")
        entries.touch(b"a")
        self.assertEqual(entries.oldest(), b"b")
        self.assertEqual(table("xy", capacity=3).oldest(), b"x")
        self.assertIsNone(RecencyTable().oldest())

    def test_keys_and_values_correspond(self) -> None:
        entries = table("abcdefghabx", capacity=4)
        self.assertEqual([key.upper() for key in entries.all_keys()], entries.all_values())  # type: ignore[union-attr]
        self.assertEqual(sorted(entries.all_keys()), sorted(entries))  # type: ignore[type-var]

    def test_a_segment_takes_only_so_many_insertions_even_if_they_are_taken_out_again(self) -> None:
        entries = RecencyTable(10)
        for number in range(1_000):
            entries.put(b"%d" % number, b"")
            if number % 10:
                entries.pop(b"%d" % number)
        self.assertEqual(len(entries), 100)
        entries.check()

    def test_segments_that_use_has_emptied_are_joined(self) -> None:
        entries, generator = RecencyTable(1_000), random.Random(1)
        for number in range(8_000):
            entries.put(b"%d" % number, b"")
        for _ in range(100_000):
            entries.touch(b"%d" % generator.randrange(8_000))
        self.assertEqual(len(entries), 8_000)
        self.assertLess(len(entries.segments()), 2 * 8 + 3)
        entries.check()

    def test_a_large_table_has_larger_segments(self) -> None:
        entries = RecencyTable(100)
        for number in range(20_000):
            entries.put(b"%d" % number, b"")
        self.assertLess(len(entries.segments()), 35)
        entries.check()

    def test_it_behaves_like_one_ordered_dict(self) -> None:
        generator = random.Random(3)
        for capacity in (2, 10, 200):
            entries, plain = RecencyTable(capacity), OrderedDict[bytes, bytes]()
            for step in range(5_000):
                key, value = b"%d" % generator.randrange(300), b"%d" % step
                match generator.randrange(5 if len(plain) < 200 else 6):
                    case 0 | 1:
                        entries.put(key, value)
                        plain[key] = value
                        plain.move_to_end(key)
                    case 2 if key in plain:
                        entries.touch(key)
                        plain.move_to_end(key)
                    case 3 if key in plain:
                        entries.replace(key, value)
                        plain[key] = value
                    case 4 if key in plain:
                        self.assertEqual(entries.pop(key), plain.pop(key))
                    case 5:
                        oldest = next(iter(entries))
                        self.assertEqual((oldest, entries.pop(oldest)), plain.popitem(last=False))
                self.assertEqual(entries.get(key), plain.get(key))
                if step % 50 == 0:
                    entries.check()
                    self.assertEqual(list(entries), list(plain))
            self.assertEqual(
                dict(zip(entries.all_keys(), entries.all_values(), strict=True)), plain
            )


if __name__ == "__main__":
    unittest.main()
