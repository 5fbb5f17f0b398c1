from __future__ import annotations

import random
from unittest import mock

from kvdb.commands import bits
from kvdb.commands.session import TakesLong
from tests.command_case import NOT_AN_INTEGER, SYNTAX, CommandTest
from tests.support import Conversation

BIT_OFFSET = "ERR bit offset is not an integer or out of range"
NOT_A_BIT = "ERR bit is not an integer or out of range"


def bits_of(value: bytes) -> list[int]:
    """Return the bits of a value one by one, the plain way."""
    return [byte >> (7 - place) & 1 for byte in value for place in range(8)]


class SetBitTest(CommandTest):
    def test_the_first_bit_is_the_highest_of_the_first_byte(self) -> None:
        self.assert_replies(
            ("SETBIT k 0 1", 0),
            ("GET k", b"\x80"),
            ("SETBIT k 7 1", 0),
            ("SETBIT k 7 1", 1),
            ("GET k", b"\x81"),
            ("SETBIT k 0 0", 1),
            ("GET k", b"\x01"),
        )

    def test_a_value_grows_by_zeros(self) -> None:
        self.assert_replies(
            ("SETBIT k 23 0", 0),
            ("GET k", b"\0\0\0"),
            ("SETBIT k 9 1", 0),
            ("GET k", b"\0\x40\0"),
            ("GETBIT k 9", 1),
            ("GETBIT k 8", 0),
            ("GETBIT k 4294967295", 0),
            ("GETBIT missing 0", 0),
        )

    def test_the_deadline_stays(self) -> None:
        self.assert_replies(("SET k a EX 10", b"OK"), ("SETBIT k 6 1", 0), ("TTL k", 10))
        self.assertEqual(self.ask("GET k"), b"c")

    def test_wrong_numbers_are_refused(self) -> None:
        self.assert_replies(
            ("SETBIT k -1 1", BIT_OFFSET),
            ("SETBIT k x 1", BIT_OFFSET),
            ("SETBIT k 4294967296 1", BIT_OFFSET),
            ("SETBIT k 1 2", NOT_A_BIT),
            ("SETBIT k 1 x", NOT_A_BIT),
            ("SETBIT k x x", BIT_OFFSET),
            ("GETBIT k -1", BIT_OFFSET),
            ("GETBIT k 4294967296", BIT_OFFSET),
            ("EXISTS k", 0),
        )
        self.assert_arity("SETBIT k 1", "SETBIT k 1 1 1", "GETBIT k", "GETBIT k 1 1")

    def test_no_bit_makes_a_value_longer_than_one_may_be(self) -> None:
        self.talk = Conversation(max_value_bytes=10)
        self.assert_replies(
            ("SETBIT k 79 1", 0),
            ("SETBIT k 80 1", BIT_OFFSET),
            ("STRLEN k", 10),
            ("GETBIT k 80", 0),
        )

    def test_a_watched_key_has_changed_even_if_the_bit_is_as_before(self) -> None:
        self.assert_replies(("SETBIT k 1 1", 0), ("WATCH k", b"OK"))
        self.talk.another()("SETBIT", "k", 1, 1)
        self.assert_replies(("MULTI", b"OK"), ("PING", b"QUEUED"))
        self.assertNotEqual(self.ask("EXEC"), [b"PONG"])


class BitCountTest(CommandTest):
    def test_bytes_and_bits_of_a_part(self) -> None:
        self.ask("SET k foobar")
        self.assert_replies(
            ("BITCOUNT k", 26),
            ("BITCOUNT k 0 0", 4),
            ("BITCOUNT k 1 1 BYTE", 6),
            ("BITCOUNT k 5 30 bit", 17),
            ("BITCOUNT k -5 -1 BIT", 2),
            ("BITCOUNT k -1 -5", 0),
            ("BITCOUNT k 4 2", 0),
            ("BITCOUNT k 10 20", 0),
            ("BITCOUNT k -100 -50", 4),
            ("BITCOUNT k 0", SYNTAX),
            ("BITCOUNT k 0 0 FOO", SYNTAX),
            ("BITCOUNT k 0 0 BIT 1", SYNTAX),
            ("BITCOUNT k x 0", NOT_AN_INTEGER),
            ("BITCOUNT missing 0 x", NOT_AN_INTEGER),
            ("BITCOUNT missing", 0),
        )

    def test_random_ranges_are_counted_as_one_by_one(self) -> None:
        seed = random.randrange(2**32)
        chance = random.Random(seed)
        with self.subTest(seed=seed):
            for _ in range(300):
                value = chance.randbytes(chance.randrange(1, 8))
                self.talk("SET", "k", value)
                single = bits_of(value)
                first, last = sorted((chance.randrange(64), chance.randrange(64)))
                self.assertEqual(
                    self.talk("BITCOUNT", "k", first, last, "BIT"), sum(single[first : last + 1])
                )
                for bit in (0, 1):
                    part = single[first : last + 1]
                    place = first + part.index(bit) if bit in part else -1
                    self.assertEqual(self.talk("BITPOS", "k", bit, first, last, "BIT"), place)


class BitPosTest(CommandTest):
    def test_the_first_bit_of_a_kind(self) -> None:
        self.talk("SET", "k", b"\x00\x0f\xf0")
        self.assert_replies(
            ("BITPOS k 1", 12),
            ("BITPOS k 0", 0),
            ("BITPOS k 1 2", 16),
            ("BITPOS k 0 1", 8),
            ("BITPOS k 0 12 19 BIT", -1),
            ("BITPOS k 0 12 20 BIT", 20),
            ("BITPOS k 1 -100 100", 12),
            ("BITPOS k 1 5", -1),
            ("BITPOS k 1 2 1", -1),
        )

    def test_zeros_follow_a_value_unless_its_end_was_named(self) -> None:
        self.talk("SET", "k", b"\xff\xff")
        self.assert_replies(
            ("BITPOS k 0", 16),
            ("BITPOS k 0 1", 16),
            ("BITPOS k 0 2", -1),
            ("BITPOS k 0 0 -1", -1),
            ("BITPOS missing 0", 0),
            ("BITPOS missing 1", -1),
            ("SET empty ''", b"OK"),
            ("BITPOS empty 0", -1),
        )

    def test_what_is_no_bit_or_no_range_is_refused(self) -> None:
        self.assert_replies(
            ("BITPOS k 2", "ERR The bit argument must be 1 or 0."),
            ("BITPOS k x", NOT_AN_INTEGER),
            ("BITPOS k 1 x", NOT_AN_INTEGER),
            ("BITPOS k 1 0 x", NOT_AN_INTEGER),
            ("BITPOS k 1 0 1 FOO", SYNTAX),
            ("BITPOS k 1 0 1 BIT 3", SYNTAX),
        )


class BitOpTest(CommandTest):
    def setUp(self) -> None:
        super().setUp()
        for key, value in {"a": b"\xf0\x0f", "b": b"\xcc", "c": b"\xaa\xff\x01"}.items():
            self.talk("SET", key, value)

    def test_every_operation_follows_its_definition(self) -> None:
        sources = [
            bits_of(value.ljust(3, b"\0")) for value in (b"\xf0\x0f", b"\xcc", b"\xaa\xff\x01")
        ]
        definitions = {
            "AND": all,
            "OR": any,
            "XOR": lambda bits: sum(bits) % 2,
            "DIFF": lambda bits: bits[0] and not any(bits[1:]),
            "DIFF1": lambda bits: not bits[0] and any(bits[1:]),
            "ANDOR": lambda bits: bits[0] and any(bits[1:]),
            "ONE": lambda bits: sum(bits) == 1,
        }
        for name, definition in definitions.items():
            with self.subTest(name):
                self.assertEqual(self.talk("BITOP", name, "d", "a", "b", "c"), 3)
                expected = [int(bool(definition(each))) for each in zip(*sources, strict=True)]
                self.assertEqual(bits_of(self.talk("GET", "d")), expected)

    def test_not_turns_every_bit(self) -> None:
        self.assert_replies(("BITOP not d a", 2), ("GET d", b"\x0f\xf0"))

    def test_the_result_has_no_deadline_and_an_empty_one_no_key(self) -> None:
        self.assert_replies(
            ("SET d x EX 10", b"OK"),
            ("BITOP OR d a missing", 2),
            ("TTL d", -1),
            ("BITOP AND d missing nothing", 0),
            ("EXISTS d", 0),
            ("BITOP XOR a a a", 2),
            ("GET a", b"\0\0"),
        )

    def test_wrong_operations_and_numbers_of_sources_are_refused(self) -> None:
        few = "ERR BITOP {} must be called with at least two source keys."
        self.assert_replies(
            ("BITOP FOO d a", SYNTAX),
            ("BITOP NOT d a b", "ERR BITOP NOT must be called with a single source key."),
            ("BITOP diff d a", few.format("DIFF")),
            ("BITOP DIFF1 d a", few.format("DIFF1")),
            ("BITOP ANDOR d a", few.format("ANDOR")),
            ("BITOP ONE d a", 2),
            ("BITOP AND", "ERR wrong number of arguments for 'bitop' command"),
        )

    def test_all_keys_are_of_the_chosen_database(self) -> None:
        self.assert_replies(
            ("SELECT 3", b"OK"), ("SET a x", b"OK"), ("BITOP OR d a", 1), ("GET d", b"x"),
            ("SELECT 0", b"OK"), ("EXISTS d", 0),
        )  # fmt: skip

    def test_long_values_take_leisure_and_are_combined_while_others_go_on(self) -> None:
        long = bytes(range(256)) * 400
        self.talk("SET", "long", long)
        self.talk.session.at_leisure = False
        with self.assertRaises(TakesLong):
            self.talk("BITOP", "NOT", "d", "long")
        self.assertEqual(self.talk("EXISTS", "d"), 0)
        self.talk.session.at_leisure = True
        locked: list[bool] = []
        combine = bits._combined

        def combined(*arguments: object) -> bytes:
            locked.append(bool(self.talk.store._depth))
            return combine(*arguments)  # type: ignore[arg-type]

        with mock.patch.object(bits, "_combined", combined):
            self.assertEqual(self.talk("BITOP", "NOT", "d", "long"), len(long))
        self.assertEqual(locked, [False])
        self.assertEqual(self.talk("GET", "d"), bytes(255 - byte for byte in long))

    def test_what_changes_meanwhile_is_combined_anew(self) -> None:
        long = b"\x01" * 100_000
        self.talk("SET", "long", long)
        combine = bits._combined

        def combined(*arguments: object) -> bytes:
            if not self.talk.store._depth:
                self.talk.store.set(b"long", b"\x02" * 100_000)
            return combine(*arguments)  # type: ignore[arg-type]

        with mock.patch.object(bits, "_combined", combined):
            self.talk("BITOP", "OR", "d", "long")
        self.assertEqual(self.talk("GET", "d"), b"\x02" * 100_000)
