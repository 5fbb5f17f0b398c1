"""What memcached's tools and old clients do: list the keys, odd expiry times, other protocols."""

from __future__ import annotations

import logging
import unittest
import urllib.parse

from kvdb.protocols import BATCH_BYTES
from kvdb.protocols.memcached_values import parse_exptime
from kvdb.store.entry import key_in
from tests.support import Wire, running_server
from tests.test_memcached import Port


class ExptimeTest(unittest.TestCase):
    """An exptime is a signed number of 32 bits: some clients send -1 as 4294967295."""

    def setUp(self) -> None:
        self.port = Port()

    def test_numbers_wrap_at_32_bits(self) -> None:
        for text, expected in (
            (b"0", 0), (b"1", 1), (b"-1", -1), (b"4294967295", -1), (b"4294967296", 0),
            (b"4294967297", 1), (b"2147483647", 2**31 - 1), (b"2147483648", -(2**31)),
            (b"-2147483648", -(2**31)), (b"-4294967296", 0),
            (b"", None), (b"-", None), (b"x", None), (b"1.5", None), (b"+1", None),
            (b"1" * 19, None),
        ):  # fmt: skip
            self.assertEqual(parse_exptime(text), expected, text)

    def test_minus_one_in_either_form_is_gone_at_once(self) -> None:
        for exptime in ("-1", "4294967295", "2147483648"):
            self.port("set k 0 0 3|old")
            self.assertEqual(self.port(f"set k 0 {exptime} 1|v"), "STORED\r\n")
            self.assertEqual(self.port("get k"), "END\r\n", exptime)
            self.port("set k 0 0 1|v")
            self.assertEqual(self.port(f"touch k {exptime}"), "TOUCHED\r\n")
            self.assertEqual(self.port("get k"), "END\r\n", exptime)
            self.port("set k 0 0 1|v")
            self.assertIn("VALUE k", self.port(f"gat {exptime} k"))
            self.assertEqual(self.port("get k"), "END\r\n", exptime)

    def test_two_to_the_32nd_is_never(self) -> None:
        for request in ("set k 0 4294967296 1|v", "touch k 4294967296", "gat 4294967296 k"):
            self.port("set k 0 100 1|v")
            self.port(request)
            self.assertEqual(self.port("mg k t"), "HD t-1\r\n", request)

    def test_flush_all_of_minus_one_is_at_once(self) -> None:
        self.port("set k 0 0 1|v")
        self.assertEqual(self.port("flush_all 4294967295"), "OK\r\n")
        self.assertEqual(self.port("get k"), "END\r\n")


class ListingTest(unittest.TestCase):
    """What memcached-tool and its like ask for, to list or to copy all keys."""

    def setUp(self) -> None:
        self.port = Port()
        self.addCleanup(self.port.store.check)

    def test_metadump_lists_each_key_with_its_deadline_and_size(self) -> None:
        self.port("set plain 0 0 5|hello")
        self.port("set odd%\tkey= 0 100 1|v")
        lines = self.port("lru_crawler metadump all").split("\r\n")
        self.assertEqual(lines[-2:], ["END", ""])
        self.assertEqual(
            sorted(lines[:-2]),
            [
                "key=odd%25%09key%3D exp=1000100 la=0 cas=0 fetch=no cls=1 size=10",
                "key=plain exp=-1 la=0 cas=0 fetch=no cls=1 size=10",
            ],
        )
        self.assertEqual(self.port("lru_crawler metadump 1"), "\r\n".join(lines))

    def test_mgdump_gives_requests_that_get_the_keys(self) -> None:
        self.port("set a 0 0 1|1")
        self.port("set b 0 0 1|2")
        lines = self.port("lru_crawler mgdump all").splitlines()
        self.assertEqual(sorted(lines), ["EN", "mg a", "mg b"])
        self.assertEqual(lines[-1], "EN")
        self.assertEqual([self.port(line) for line in lines[:-1]], ["HD\r\n"] * 2)

    def test_an_empty_server_lists_nothing(self) -> None:
        self.assertEqual(self.port("lru_crawler metadump all"), "END\r\n")
        self.assertEqual(self.port("lru_crawler mgdump all"), "EN\r\n")
        self.assertEqual(self.port("stats cachedump 1 0"), "END\r\n")

    def test_a_long_list_comes_in_batches_and_lacks_nothing(self) -> None:
        names = {b"key:%d:" % n + b"x" * 200 for n in range(10_000)}
        self.port.store.write_many(dict.fromkeys(names, b"v"))
        data = self.port.dialect.receive(b"lru_crawler metadump all\r\n")
        self.assertTrue(self.port.dialect.more)
        self.assertLess(len(data), 3 * BATCH_BYTES)
        # Others go on meanwhile: what goes is not listed, and nothing stops.
        while self.port.dialect.more:
            data += self.port.dialect.receive(b"")
        *lines, end = data.splitlines()
        self.assertEqual(end, b"END")
        listed = [line.split()[0].removeprefix(b"key=") for line in lines]
        self.assertEqual(len(listed), len(names))
        self.assertEqual({urllib.parse.unquote_to_bytes(name) for name in listed}, names)
        self.assertEqual(self.port("get k"), "END\r\n")

    def test_expired_keys_are_not_listed(self) -> None:
        self.port("set k 0 10 1|v")
        self.port.clock.now += 10
        self.assertEqual(self.port("lru_crawler metadump all"), "END\r\n")
        self.assertEqual(self.port("lru_crawler mgdump all"), "EN\r\n")
        self.assertEqual(self.port("stats cachedump 1 100"), "END\r\n")

    def test_cachedump_lists_up_to_a_number_of_keys(self) -> None:
        self.port("set a 0 100 5|hello")
        self.assertEqual(self.port("stats cachedump 1 100"), "ITEM a [5 b; 1000100 s]\r\nEND\r\n")
        for n in range(50):
            self.port(f"set k{n} 0 0 1|v")
        lines = self.port("stats cachedump 1 10").splitlines()
        self.assertEqual(len(lines), 11)
        self.assertEqual(len(self.port("stats cachedump 1 0").splitlines()), 52)
        self.assertIn("ITEM k0 [1 b; 0 s]", self.port("stats cachedump 1 0").splitlines())
        for line in ("stats cachedump", "stats cachedump 1", "stats cachedump 1 x",
                     "stats cachedump 1 -1", "stats cachedump 1 2 3"):  # fmt: skip
            self.assertEqual(self.port(line), "CLIENT_ERROR bad command line format\r\n", line)

    def test_listing_counts_as_no_use_of_the_keys(self) -> None:
        self.port("set a 0 0 1|v")
        hits = self.port.store.hits
        for line in ("lru_crawler metadump all", "stats cachedump 1 0", "lru_crawler mgdump all"):
            self.port(line)
        self.assertEqual(self.port.store.hits, hits)

    def test_what_else_the_crawler_is_told_is_taken_and_nonsense_is_not(self) -> None:
        for line in ("enable", "disable", "sleep 100", "tocrawl 5", "crawl all"):
            self.assertEqual(self.port(f"lru_crawler {line}"), "OK\r\n", line)
        for line in ("", " x", " metadump", " metadump x", " metadump all 1", " mgdump"):
            self.assertEqual(self.port(f"lru_crawler{line}"), "ERROR\r\n", line)


class OtherProtocolsTest(unittest.TestCase):
    """The binary protocol and TLS are recognized by their first byte."""

    def test_they_are_closed_without_an_answer_and_a_line_is_logged(self) -> None:
        for first, said in ((b"\x80", "the binary protocol"), (b"\x16", "a TLS handshake")):
            # Behind it stands what must not be carried out.
            data = first + b"\x01\x00\x01\r\nset k 0 0 1\r\nv\r\n"
            with (
                self.subTest(said),
                running_server(memcached_port=0) as service,
                self.assertLogs("kvdb", logging.WARNING) as logged,
            ):
                for _ in range(3):
                    with Wire(service.listeners["memcached"].port) as wire:
                        wire.socket.sendall(data)
                        self.assertEqual(wire.read_to_end(), b"")
                self.assertEqual(len(logged.records), 1, "one line a minute")
                self.assertIn(said, logged.output[0])
                self.assertEqual(service.store.total_keys, 0)

    def test_the_byte_alone_is_enough(self) -> None:
        for first in (b"\x80", b"\x16"):
            port = Port()
            with self.assertLogs("kvdb", logging.WARNING):
                self.assertEqual(port.bytes(first), b"")
            self.assertTrue(port.dialect.closing)

    def test_within_a_value_they_are_bytes_like_others(self) -> None:
        port = Port()
        self.assertEqual(port.bytes(b"set k 0 0 2\r\n\x80\x16\r\n"), b"STORED\r\n")
        self.assertEqual(port.store.get(key_in(0, b"k")), b"\x80\x16")


if __name__ == "__main__":
    unittest.main()
