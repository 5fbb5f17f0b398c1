"""memcached's `stats detail`: counts by the prefix of the key."""

from __future__ import annotations

import unittest
from unittest import mock

from kvdb.prefixes import Prefixes
from tests.test_memcached import Port


class PrefixesTest(unittest.TestCase):
    def setUp(self) -> None:
        self.prefixes = Prefixes()

    def test_keys_count_under_what_stands_before_their_first_colon(self) -> None:
        self.prefixes.count(b"user:1", set=1)
        self.prefixes.count(b"user:2:name", get=1, hit=1)
        self.prefixes.count(b"user:3", get=1)
        self.prefixes.count(b"page:", delete=1)
        self.prefixes.count(b":none", get=1)
        self.prefixes.count(b"plain", get=1, set=1)
        self.assertEqual(
            self.prefixes.dump(),
            b"PREFIX user get 2 hit 1 set 1 del 0\r\n"
            b"PREFIX page get 0 hit 0 set 0 del 1\r\n"
            b"PREFIX  get 1 hit 0 set 0 del 0\r\n"
            b"END\r\n",
        )

    def test_at_first_it_is_off_and_empty_and_a_reset_forgets_all(self) -> None:
        self.assertFalse(self.prefixes.enabled)
        self.assertEqual(self.prefixes.dump(), b"END\r\n")
        self.prefixes.count(b"a:1", get=1)
        self.prefixes.reset()
        self.assertEqual(self.prefixes.dump(), b"END\r\n")

    def test_so_many_prefixes_and_no_more_are_counted(self) -> None:
        with mock.patch("kvdb.prefixes._MOST", 3):
            for number in range(100):
                self.prefixes.count(b"%d:x" % number, get=1)
            self.prefixes.count(b"0:y", get=1)
        self.assertEqual(self.prefixes.dump().count(b"PREFIX"), 3)
        self.assertIn(b"PREFIX 0 get 2 ", self.prefixes.dump())


class StatsDetailTest(unittest.TestCase):
    def setUp(self) -> None:
        self.port = Port()

    def dump(self) -> list[str]:
        *lines, end = self.port("stats detail dump").splitlines()
        self.assertEqual(end, "END")
        return lines

    def use(self) -> None:
        for request in (
            "set a:1 0 0 1|x", "get a:1 a:2", "gets a:1", "gat 100 a:1", "delete a:1",
            "delete a:1", "set b:1 0 0 1|x", "add b:1 0 0 1|y", "append b:1 0 0 1|z",
        ):  # fmt: skip
            self.port(request)

    def test_nothing_is_counted_before_it_is_switched_on_and_after_it_is_switched_off(self) -> None:
        self.use()
        self.assertEqual(self.dump(), [])
        self.assertEqual(self.port("stats detail on"), "OK\r\n")
        self.use()
        counted = ["PREFIX a get 4 hit 3 set 1 del 2", "PREFIX b get 0 hit 0 set 3 del 0"]
        self.assertEqual(self.dump(), counted)
        self.assertEqual(self.port("stats detail off"), "OK\r\n")
        self.use()
        self.assertEqual(self.dump(), counted)

    def test_a_meta_set_counts_too(self) -> None:
        self.port("stats detail on")
        self.port("ms a:1 1|x")
        self.assertEqual(self.dump(), ["PREFIX a get 0 hit 0 set 1 del 0"])

    def test_stats_reset_forgets_the_counts_and_goes_on_counting(self) -> None:
        self.port("stats detail on")
        self.use()
        self.assertEqual(self.port("stats reset"), "RESET\r\n")
        self.assertEqual(self.dump(), [])
        self.port("get a:1")
        self.assertEqual(self.dump(), ["PREFIX a get 1 hit 0 set 0 del 0"])

    def test_anything_else_is_told_how_it_is_used(self) -> None:
        usage = "CLIENT_ERROR usage: stats detail on|off|dump\r\n"
        for line in ("stats detail", "stats detail x", "stats detail on off", "stats detail ON"):
            self.assertEqual(self.port(line), usage, line)


if __name__ == "__main__":
    unittest.main()
