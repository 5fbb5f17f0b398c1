from __future__ import annotations

import random
import unittest

from kvdb.commands.lcs import common_length, common_subsequence
from kvdb.commands.session import TakesLong
from tests.command_case import NOT_AN_INTEGER, SYNTAX, CommandTest
from tests.support import Conversation

Ranges = list[tuple[tuple[int, int], tuple[int, int]]]


def plain_lcs(a: bytes, b: bytes) -> tuple[bytes, Ranges]:
    """As Redis does it: the whole table of lengths, and back from its end."""
    table = [[0] * (len(b) + 1) for _ in range(len(a) + 1)]
    for i, left in enumerate(a, 1):
        for j, right in enumerate(b, 1):
            table[i][j] = (
                table[i - 1][j - 1] + 1 if left == right else max(table[i - 1][j], table[i][j - 1])
            )
    found, pairs = bytearray(), []
    i, j = len(a), len(b)
    while i and j:
        if a[i - 1] == b[j - 1]:
            i, j = i - 1, j - 1
            found.append(a[i])
            pairs.append((i, j))
        elif table[i - 1][j] > table[i][j - 1]:
            i -= 1
        else:
            j -= 1
    ranges: Ranges = []
    for i, j in pairs:
        if ranges and ranges[-1][0][0] == i + 1 and ranges[-1][1][0] == j + 1:
            (_, first_end), (_, second_end) = ranges.pop()
            ranges.append(((i, first_end), (j, second_end)))
        else:
            ranges.append(((i, i), (j, j)))
    return bytes(found[::-1]), ranges


class AlgorithmTest(unittest.TestCase):
    def test_it_finds_what_the_whole_table_of_lengths_finds(self) -> None:
        seed = random.randrange(2**32)
        chance = random.Random(seed)
        with self.subTest(seed=seed):
            for _ in range(2_000):
                letters = bytes(range(97, 97 + chance.choice((1, 2, 3, 26))))
                a, b = (bytes(chance.choices(letters, k=chance.randrange(20))) for _ in "ab")
                sequence, matches = common_subsequence(a, b)
                expected, ranges = plain_lcs(a, b)
                self.assertEqual(sequence, expected, (a, b))
                self.assertEqual([(each.first, each.second) for each in matches], ranges, (a, b))
                self.assertEqual(common_length(a, b), len(expected))

    def test_all_bytes_count(self) -> None:
        everything = bytes(range(256))
        self.assertEqual(common_subsequence(everything, everything)[0], everything)
        self.assertEqual(common_length(everything, everything[::-1]), 1)

    def test_few_bytes_beside_many(self) -> None:
        self.assertEqual(common_subsequence(b"x" * 100_000 + b"yx", b"yx")[0], b"yx")
        self.assertEqual(common_subsequence(b"yx", b"yx" + b"x" * 100_000)[0], b"yx")


class LcsTest(CommandTest):
    def setUp(self) -> None:
        super().setUp()
        self.ask("MSET a ohmytext b mynewtext")

    def test_text_length_and_places(self) -> None:
        text, my = [[4, 7], [5, 8]], [[2, 3], [0, 1]]
        self.assert_replies(
            ("LCS a b", b"mytext"),
            ("LCS a b LEN", 6),
            ("LCS a b len len", 6),
            ("LCS a b IDX", {b"matches": [text, my], b"len": 6}),
            ("LCS a b IDX MINMATCHLEN 4", {b"matches": [text], b"len": 6}),
            ("LCS a b IDX MINMATCHLEN -4", {b"matches": [text, my], b"len": 6}),
            ("LCS a b idx withmatchlen", {b"matches": [[*text, 4], [*my, 2]], b"len": 6}),
            ("LCS a b WITHMATCHLEN MINMATCHLEN 4", b"mytext"),
        )

    def test_a_missing_key_is_an_empty_value(self) -> None:
        self.assert_replies(
            ("LCS a missing", b""),
            ("LCS missing nothing LEN", 0),
            ("LCS a missing IDX", {b"matches": [], b"len": 0}),
        )

    def test_wrong_options_are_refused(self) -> None:
        both = "ERR If you want both the length and indexes, please just use IDX."
        self.assert_replies(
            ("LCS a b FOO", SYNTAX),
            ("LCS a b MINMATCHLEN", SYNTAX),
            ("LCS a b MINMATCHLEN x", NOT_AN_INTEGER),
            ("LCS a b LEN IDX", both),
        )
        self.assert_arity("LCS a")

    def test_what_redis_has_no_memory_for_is_refused(self) -> None:
        self.talk = Conversation(max_value_bytes=4 * 11 * 11)
        refusal = "ERR Insufficient memory, transient memory for LCS exceeds proto-max-bulk-len"
        self.assert_replies(
            (f"MSET a {'x' * 10} b {'x' * 10} c {'x' * 11}", b"OK"),
            ("LCS a b LEN", 10),
            ("LCS a c LEN", refusal),
            ("LCS a c", refusal),
        )

    def test_long_values_take_leisure(self) -> None:
        self.talk("MSET", "a", "x" * 1_000, "b", "x" * 1_000, "c", "x")
        self.talk.session.at_leisure = False
        with self.assertRaises(TakesLong):
            self.talk("LCS", "a", "b")
        self.assertEqual(self.talk("LCS", "c", "c"), b"x")
