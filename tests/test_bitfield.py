from __future__ import annotations

import random

from tests.command_case import NOT_AN_INTEGER, SYNTAX, CommandTest
from tests.support import Conversation
from tests.test_bits import BIT_OFFSET

INVALID_TYPE = (
    "ERR Invalid bitfield type. Use something like i16 u8. "
    "Note that u64 is not supported but i64 is."
)


class BitFieldTest(CommandTest):
    def test_what_was_set_is_read_again(self) -> None:
        self.assert_replies(
            ("BITFIELD k SET u8 0 255 GET u8 0 GET i8 0 GET u4 4", [0, 255, -1, 15]),
            ("BITFIELD k SET i5 3 -7 GET i5 3", [-1, -7]),
            ("GET k", b"\xf9"),
            ("BITFIELD k get u8 #1 set u8 #1 97 get u8 #1 get u16 0", [0, 0, 97, 0xF961]),
            ("BITFIELD k", []),
            ("BITFIELD k OVERFLOW SAT", []),
            ("BITFIELD missing GET u8 100", [0]),
            ("EXISTS missing", 0),
        )

    def test_a_field_of_one_bit_may_be_counted_too(self) -> None:
        self.assert_replies(("BITFIELD k SET u1 #9 1 GET u1 9", [0, 1]), ("GET k", b"\0\x40"))

    def test_a_number_that_does_not_fit_wraps_around_unless_told_otherwise(self) -> None:
        self.assert_replies(
            ("BITFIELD k SET u8 0 257 GET u8 0", [0, 1]),
            ("BITFIELD k INCRBY u8 0 255", [0]),
            ("BITFIELD k SET i8 0 200 GET i8 0", [0, -56]),
            ("BITFIELD k OVERFLOW WRAP INCRBY i8 0 -100", [100]),
        )

    def test_sat_stops_at_the_bounds(self) -> None:
        self.assert_replies(
            ("BITFIELD k OVERFLOW SAT SET u8 0 256 INCRBY u8 0 1 INCRBY u8 0 -300", [0, 255, 0]),
            ("BITFIELD k OVERFLOW SAT SET i8 0 200 SET i8 0 -200 GET i8 0", [0, 127, -128]),
            ("BITFIELD k OVERFLOW SAT SET u8 0 -1 GET u8 0", [128, 255]),
        )

    def test_fail_leaves_the_number_and_answers_nil(self) -> None:
        self.assert_replies(
            ("BITFIELD k OVERFLOW FAIL SET u8 0 256 SET u8 0 7 INCRBY u8 0 -8", [None, 0, None]),
            ("BITFIELD k GET u8 0", [7]),
            ("BITFIELD new OVERFLOW FAIL SET u8 8 256", [None]),
            ("GET new", b"\0\0"),  # as in Redis
        )

    def test_overflow_counts_from_where_it_stands(self) -> None:
        self.assert_replies(
            ("BITFIELD k INCRBY u2 0 4 OVERFLOW SAT INCRBY u2 0 4 OVERFLOW FAIL INCRBY u2 0 1",
             [0, 3, None]),
        )  # fmt: skip

    def test_the_largest_fields(self) -> None:
        most = 2**63 - 1
        self.assert_replies(
            (f"BITFIELD k SET i64 3 {most} INCRBY i64 3 1", [0, -most - 1]),
            (f"BITFIELD k OVERFLOW SAT INCRBY i64 3 -{most}", [-most - 1]),
            (f"BITFIELD n SET u63 0 {most} INCRBY u63 0 1", [0, 0]),
            ("BITFIELD n SET u63 0 -1 GET u63 0", [0, most]),
        )

    def test_errors_change_nothing(self) -> None:
        self.assert_replies(
            ("BITFIELD k SET u8 0 1 GET u64 0", INVALID_TYPE),
            ("BITFIELD k SET u8 0 1 GET u0 0", INVALID_TYPE),
            ("BITFIELD k SET u8 0 1 GET i65 0", INVALID_TYPE),
            ("BITFIELD k SET u8 0 1 GET x8 0", INVALID_TYPE),
            ("BITFIELD k SET u8 0 1 GET u08 0", INVALID_TYPE),
            ("BITFIELD k SET u8 0 1 GET u8 -1", BIT_OFFSET),
            ("BITFIELD k SET u8 0 1 GET u8 #-1", BIT_OFFSET),
            ("BITFIELD k SET u8 0 1 GET u8 #536870912", BIT_OFFSET),
            ("BITFIELD k SET u8 0 1 GET u8", SYNTAX),
            ("BITFIELD k SET u8 0", SYNTAX),
            ("BITFIELD k SET u8 0 x", NOT_AN_INTEGER),
            ("BITFIELD k SET u8 0 1 FOO u8 0", SYNTAX),
            ("BITFIELD k SET u8 0 1 OVERFLOW", SYNTAX),
            ("BITFIELD k SET u8 0 1 OVERFLOW FOO", "ERR Invalid OVERFLOW type specified"),
            ("EXISTS k", 0),
        )

    def test_no_field_makes_a_value_longer_than_one_may_be(self) -> None:
        self.talk = Conversation(max_value_bytes=10)
        self.assert_replies(
            ("BITFIELD k SET u8 72 1", [0]),
            ("BITFIELD k SET u8 73 1", BIT_OFFSET),
            ("BITFIELD k INCRBY u8 #10 1", BIT_OFFSET),
            ("BITFIELD k GET u8 #10", [0]),
            ("STRLEN k", 10),
        )

    def test_without_a_write_the_version_stays(self) -> None:
        self.assert_replies(("SET k a", b"OK"), ("WATCH k", b"OK"))
        self.talk.another()("BITFIELD", "k", "GET", "u8", 0)
        self.assert_replies(("MULTI", b"OK"), ("PING", b"QUEUED"), ("EXEC", [b"PONG"]))

    def test_random_fields_follow_a_plain_row_of_bits(self) -> None:
        seed = random.randrange(2**32)
        chance = random.Random(seed)
        row = [0] * 400
        with self.subTest(seed=seed):
            for _ in range(500):
                width, offset = chance.randrange(1, 64), chance.randrange(300)
                number = chance.randrange(2**width)
                before = int("".join(map(str, row[offset : offset + width])), 2)
                self.assertEqual(
                    self.talk("BITFIELD", "k", "SET", f"u{width}", offset, number), [before]
                )
                row[offset : offset + width] = map(int, f"{number:0{width}b}")
                value = self.talk("GET", "k")
                assert isinstance(value, bytes)
                held = int.from_bytes(value, "big")
                self.assertEqual(
                    f"{held:0{len(value) * 8}b}".ljust(400, "0"), "".join(map(str, row))
                )


class BitFieldReadOnlyTest(CommandTest):
    def test_it_reads(self) -> None:
        self.ask("SET k ab")
        self.assert_replies(
            ("BITFIELD_RO k GET u8 0 GET i8 #1", [97, 98]),
            ("BITFIELD_RO k", []),
            ("BITFIELD_RO missing GET u8 0", [0]),
            ("EXISTS missing", 0),
        )

    def test_it_writes_nothing(self) -> None:
        only = "ERR BITFIELD_RO only supports the GET subcommand"
        self.assert_replies(
            ("BITFIELD_RO k SET u8 0 1", only),
            ("BITFIELD_RO k GET u8 0 INCRBY u8 0 1", only),
            ("BITFIELD_RO k SET u8 0", SYNTAX),
            ("EXISTS k", 0),
        )
        self.assert_arity("BITFIELD_RO", "BITFIELD")
