from __future__ import annotations

import random
import unittest

from kvdb import rdb
from kvdb.commands.session import TakesLong
from kvdb.errors import ValueTooLarge
from kvdb.store.feed import Cause
from tests.command_case import NOT_AN_INTEGER, SYNTAX, CommandTest
from tests.store_case import Feed
from tests.support import Conversation

WRONG = "ERR DUMP payload version or checksum are wrong"
BAD_FORMAT = "ERR Bad data format"

THEIRS = {
    # What Redis 7.0.15, Redis 8.0.6 and Valkey 9.1.2 have dumped.
    b"\x00\x05hello\n\x00cr\xdfve4 \n": b"hello",
    b"\x00\x05hello\x0c\x00\xa8\x04\xeb\xb6\x9f\x1e\xbeC": b"hello",
    b"\x00\x05helloP\x00\xacX\x16\xe7\xfbfG\xfe": b"hello",
    b"\x00\x00\n\x00]\x9b\\@\x0f\x7f\xa2\xda": b"",
    b"\x00\xc0\x0c\n\x00<*\xf8Q\\\x04\xbc\xd5": b"12",
    b"\x00\xc1\xd4\xfe\x0c\x00\r\xb2\xb2\xe3\x04\x94@g": b"-300",
    b"\x00\xc2p\x11\x01\x00P\x00\xce\x8e\xc1o\x0bb\xf2Q": b"70000",
    b"\x00\n2147483648\n\x00\xe7\xb1)\xa3L\x1dv\xee": b"2147483648",
    b"\x00\xc3\t?\x01aa\xe02\x00\x01aa\n\x00\xc7\xb4T\xc1k\x88f\xcb": b"a" * 63,
}
A_LIST = (
    b"\x12\x01\x02\x0b\x0b\x00\x00\x00\x02\x00\x01\x01\x02\x01\xff\n\x00\xdd\xe7\x1a(\xae9\x1b\x98"
)


def payload(body: bytes, version: int = 9) -> bytes:
    """Return a payload with a right checksum, whatever is in it."""
    head = body + version.to_bytes(2, "little")
    return head + rdb.crc64(head).to_bytes(8, "little")


class PayloadTest(unittest.TestCase):
    def test_the_checksum_is_the_one_of_redis(self) -> None:
        self.assertEqual(rdb.crc64(b""), 0)
        self.assertEqual(rdb.crc64(b"123456789"), 0xE9C6D914C4B8D9CA)
        long = bytes(range(256)) * 3
        for cut in (1, 7, 8, 9, 500):
            self.assertEqual(rdb.crc64(long[cut:], rdb.crc64(long[:cut])), rdb.crc64(long))

    def test_what_other_servers_have_dumped_is_read(self) -> None:
        for theirs, value in THEIRS.items():
            self.assertEqual(rdb.load(theirs, 100), value)

    def test_strings_of_every_length_come_back(self) -> None:
        for length in (0, 1, 63, 64, 16_383, 16_384, 100_000):
            value = random.randbytes(length)
            dumped = rdb.dump(value)
            self.assertEqual(rdb.load(dumped, length), value)
            if length:
                with self.assertRaises(rdb.TooLong):
                    rdb.load(dumped, length - 1)

    def test_lengths_stand_as_in_redis(self) -> None:
        for length, text in {
            63: b"\x3f", 64: b"\x40\x40", 16_383: b"\x7f\xff", 16_384: b"\x80\x00\x00\x40\x00",
            2**32: b"\x81\x00\x00\x00\x01\x00\x00\x00\x00",
        }.items():  # fmt: skip
            self.assertEqual(rdb.encode_length(length), text)

    def test_a_byte_that_is_another_one_is_noticed(self) -> None:
        dumped = rdb.dump(b"hello")
        for place in range(len(dumped)):
            broken = bytearray(dumped)
            broken[place] ^= 1
            with self.assertRaises(rdb.WrongChecksum):
                rdb.load(bytes(broken), 100)
            with self.assertRaises(rdb.WrongChecksum):
                rdb.load(dumped[:place], 100)

    def test_bodies_that_hold_no_string_are_refused(self) -> None:
        for body in (
            b"", b"\x00", b"\x01\x00", b"\x00\x05hell", b"\x00\x40", b"\x00\x80\x00", b"\x00\xc0",
            b"\x00\xc2\x00\x00\x00", b"\x00\xc4\x00", b"\x00\x82\x00", b"\x00\xc3", b"\x00\xc3\x01",
            b"\x00\xc3\x02\x01\x00", b"\x00\x81\x00\x00\x00\x00\x00\x00\x00\x05hell",
        ):  # fmt: skip
            with self.subTest(body), self.assertRaises(rdb.BadFormat):
                rdb.load(payload(body), 100)

    def test_a_length_beyond_the_limit_is_refused_before_it_is_believed(self) -> None:
        for body in (b"\x00\x81" + b"\xff" * 8, b"\x00\xc3\x02\x80\x7f\xff\xff\xff\x20\x00"):
            with self.assertRaises(rdb.TooLong):
                rdb.load(payload(body), 1_000_000)


class CompressionTest(unittest.TestCase):
    def test_runs_and_references(self) -> None:
        for data, expected in {
            b"": b"",
            b"\x02abc": b"abc",
            b"\x02abc\x20\x02": b"abcabc",
            b"\x00a\xe0\x05\x00": b"a" * 15,  # a reference to what it makes
            b"\x01ab\xe0\x00\x01": b"ab" * 5 + b"a",
            b"\x1f" + b"x" * 32: b"x" * 32,
        }.items():
            self.assertEqual(rdb.decompress(data, len(expected)), expected)

    def test_what_leads_nowhere_is_refused(self) -> None:
        for data, length in (
            (b"\x02ab", 3), (b"\x20\x00", 3), (b"\x00a\x20\x05", 4), (b"\x00a\xe0", 10),
            (b"\x00a\x20", 4), (b"\x02abc", 2), (b"\x02abc", 4), (b"\x00a\xe0\xff\x00", 10),
        ):  # fmt: skip
            with self.subTest(data), self.assertRaises(rdb.BadFormat):
                rdb.decompress(data, length)

    def test_random_bytes_are_refused_or_of_the_length_they_state(self) -> None:
        seed = random.randrange(2**32)
        chance = random.Random(seed)
        with self.subTest(seed=seed):
            for _ in range(5_000):
                length = chance.randrange(100)
                try:
                    value = rdb.decompress(chance.randbytes(chance.randrange(30)), length)
                except rdb.BadFormat:
                    continue
                self.assertEqual(len(value), length)


class DumpTest(CommandTest):
    def test_a_value_comes_back_by_restore(self) -> None:
        for value in (b"", b"12", b"\x00\xff\r\n", b"x" * 1000):
            self.talk("SET", "k", value, "EX", 10)
            dumped = self.talk("DUMP", "k")
            self.talk("DEL", "k")
            self.assertEqual(self.talk("RESTORE", "k", 0, dumped), b"OK")
            self.assertEqual((self.talk("GET", "k"), self.talk("TTL", "k")), (value, -1))
        self.assert_replies(("DUMP missing", None))
        self.assert_arity("DUMP", "DUMP a b")

    def test_what_other_servers_have_dumped_is_restored(self) -> None:
        for theirs, value in THEIRS.items():
            self.assertEqual(self.talk("RESTORE", "k", 0, theirs, "REPLACE"), b"OK")
            self.assertEqual(self.talk("GET", "k"), value)

    def test_a_long_value_takes_leisure(self) -> None:
        self.talk("SET", "k", "x" * 100_000)
        dumped = self.talk("DUMP", "k")
        self.talk.session.at_leisure = False
        for request in (("DUMP", "k"), ("RESTORE", "other", 0, dumped)):
            with self.assertRaises(TakesLong):
                self.talk(*request)
        self.assertEqual(self.talk("EXISTS", "other"), 0)


class RestoreTest(CommandTest):
    def restore(self, *arguments: bytes | str | int, data: bytes | None = None) -> object:
        key, ttl, *options = arguments
        reply = self.talk("RESTORE", key, ttl, rdb.dump(b"v") if data is None else data, *options)
        return getattr(reply, "text", reply)

    def test_an_existing_key_stays_unless_told_otherwise(self) -> None:
        self.ask("SET k old EX 10")
        self.assertEqual(self.restore("k", 0), "BUSYKEY Target key name already exists.")
        self.assertEqual(self.ask("GET k"), b"old")
        self.assertEqual(self.restore("k", 0, "replace"), b"OK")
        self.assert_replies(("GET k", b"v"), ("TTL k", -1))

    def test_the_deadline(self) -> None:
        self.assertEqual(self.restore("a", 5000), b"OK")
        self.assertEqual(self.ask("PTTL a"), 5000)
        moment = int(self.talk.clock.now * 1000) + 7000
        self.assertEqual(self.restore("b", moment, "ABSTTL"), b"OK")
        self.assertEqual(self.ask("PTTL b"), 7000)
        self.assertEqual(self.restore("b", 1000, "ABSTTL", "REPLACE"), b"OK")
        self.assertEqual(self.restore("c", 1000, "ABSTTL"), b"OK")
        self.assertEqual(self.ask("EXISTS b c"), 0)
        self.assertEqual(self.restore("a", -1), "BUSYKEY Target key name already exists.")
        self.assertEqual(self.restore("d", -1), "ERR Invalid TTL value, must be >= 0")
        self.assertEqual(self.restore("d", "x"), NOT_AN_INTEGER)
        self.assertEqual(self.restore("d", 2**63 - 1), b"OK")
        self.assertGreater(self.ask("TTL d"), 10**12)

    def test_options_that_tell_of_use_are_read_and_do_nothing(self) -> None:
        self.assertEqual(self.restore("a", 0, "IDLETIME", 100), b"OK")
        self.assertEqual(self.restore("b", 0, "FREQ", 255), b"OK")
        idle, freq = ("ERR Invalid IDLETIME value, must be >= 0",
                      "ERR Invalid FREQ value, must be >= 0 and <= 255")  # fmt: skip
        for options, error in {
            ("IDLETIME", -1): idle, ("FREQ", -1): freq, ("FREQ", 256): freq, ("FREQ",): SYNTAX,
            ("IDLETIME", "x"): NOT_AN_INTEGER, ("IDLETIME", 1, "FREQ", 1): SYNTAX,
            ("FREQ", 1, "IDLETIME", 1): SYNTAX, ("FOO",): SYNTAX,
        }.items():  # fmt: skip
            self.assertEqual(self.restore("c", 0, *options), error, options)

    def test_a_payload_that_is_none_or_no_string_is_refused(self) -> None:
        for data in (b"", b"x", b"x" * 20, THEIRS.copy().popitem()[0][:-1]):
            self.assertEqual(self.restore("k", 0, data=data), WRONG)
        self.assertEqual(self.restore("k", 0, data=A_LIST), BAD_FORMAT)
        self.ask("SET k old")
        self.assertEqual(self.restore("k", 0, "REPLACE", data=A_LIST), BAD_FORMAT)
        self.assertEqual(self.ask("GET k"), b"old")
        self.assert_arity("RESTORE k 0")

    def test_a_value_longer_than_one_may_be_is_refused(self) -> None:
        self.talk = Conversation(max_value_bytes=10)
        self.assertEqual(self.restore("k", 0, data=rdb.dump(b"x" * 11)), ValueTooLarge(10).text)
        self.assertEqual(self.restore("k", 0, data=rdb.dump(b"x" * 10)), b"OK")

    def test_the_feed_says_that_it_was_restored(self) -> None:
        feed = Feed(self.talk.store)
        self.restore("k", 0)
        self.assertEqual([fact.cause for fact in feed.facts()], [Cause.RESTORED])


class ObjectTest(CommandTest):
    def test_what_is_not_known_is_refused_in_words(self) -> None:
        self.ask("SET k v")
        self.assertRegex(str(self.ask("OBJECT FREQ k")), "^ERR An LFU maxmemory policy is not sel")
        self.assertRegex(str(self.ask("OBJECT IDLETIME k")), "^ERR idle time not tracked")
        self.assert_replies(("OBJECT FREQ missing", None), ("OBJECT IDLETIME missing", None))
