"""The buffer between a connection and its parser."""

from __future__ import annotations

import random
import unittest

from kvdb.resp.buffer import InputBuffer, LineTooLong


def buffer_of(*chunks: bytes) -> InputBuffer:
    buffer = InputBuffer()
    for chunk in chunks:
        buffer.receive(chunk)
    return buffer


class TakingLines(unittest.TestCase):
    def test_a_line_is_returned_with_its_end(self) -> None:
        buffer = buffer_of(b"one\r\ntwo\nthree")
        self.assertEqual(buffer.take_line(100), b"one\r\n")
        self.assertEqual(buffer.take_line(100), b"two\n")
        self.assertIsNone(buffer.take_line(100))
        self.assertEqual(len(buffer), 5)

    def test_a_line_in_many_chunks_is_joined(self) -> None:
        buffer = InputBuffer()
        for byte in b"hello\r":
            buffer.receive(bytes([byte]))
            self.assertIsNone(buffer.take_line(100))
        buffer.receive(b"\nrest")
        self.assertEqual(buffer.take_line(100), b"hello\r\n")
        self.assertEqual(buffer.take(4), b"rest")

    def test_a_line_end_hidden_behind_searched_chunks_is_found(self) -> None:
        buffer = buffer_of(b"a", b"b")
        self.assertIsNone(buffer.take_line(100))
        buffer.receive(b"c\nd\n")
        self.assertEqual([buffer.take_line(100), buffer.take_line(100)], [b"abc\n", b"d\n"])

    def test_a_line_end_skipped_by_take_does_not_count(self) -> None:
        buffer = buffer_of(b"xx\n", b"yy", b"\n")
        self.assertEqual(buffer.take(4), b"xx\ny")
        self.assertEqual(buffer.take_line(100), b"y\n")

    def test_a_line_of_exactly_the_limit_is_allowed(self) -> None:
        self.assertEqual(buffer_of(b"12345\n").take_line(5), b"12345\n")
        self.assertIsNone(buffer_of(b"12345").take_line(5))

    def test_a_line_one_past_the_limit_is_refused(self) -> None:
        for chunks in ([b"123456\n"], [b"123456"], [b"12345", b"6"], [b"12345", b"6\n"]):
            with self.subTest(chunks=chunks), self.assertRaises(LineTooLong):
                buffer_of(*chunks).take_line(5)

    def test_the_limit_counts_from_the_unused_byte_on(self) -> None:
        buffer = buffer_of(b"used up\n12345")
        buffer.take_line(10)
        self.assertIsNone(buffer.take_line(5))
        buffer.receive(b"\n")
        self.assertEqual(buffer.take_line(5), b"12345\n")


class TakingLengths(unittest.TestCase):
    def test_nothing_is_taken_until_so_much_has_arrived(self) -> None:
        buffer = buffer_of(b"abc")
        self.assertIsNone(buffer.take(4))
        self.assertEqual(len(buffer), 3)
        buffer.receive(b"de")
        self.assertEqual(buffer.take(4), b"abcd")
        self.assertEqual(buffer.take(1), b"e")
        self.assertIsNone(buffer.take(1))

    def test_taking_nothing_gives_nothing_at_any_moment(self) -> None:
        self.assertEqual(InputBuffer().take(0), b"")
        buffer = buffer_of(b"ab", b"cd")
        self.assertEqual(buffer.take(0), b"")
        self.assertEqual(buffer.take(4), b"abcd")

    def test_skip_throws_away_what_there_is_and_tells_how_much(self) -> None:
        buffer = buffer_of(b"abc", b"def")
        self.assertEqual(buffer.skip(2), 2)
        self.assertEqual(buffer.skip(100), 4)
        self.assertEqual((buffer.skip(100), len(buffer)), (0, 0))

    def test_the_first_byte_is_shown_and_not_used(self) -> None:
        buffer = InputBuffer()
        self.assertIsNone(buffer.first_byte())
        buffer.receive(b"")
        self.assertIsNone(buffer.first_byte())
        buffer.receive(b"x")
        buffer.receive(b"y")
        self.assertEqual([buffer.first_byte(), len(buffer)], [ord("x"), 2])
        buffer.take(1)
        self.assertEqual(buffer.first_byte(), ord("y"))


class AnyMixture(unittest.TestCase):
    def test_it_behaves_as_one_joined_string_would(self) -> None:
        randomness = random.Random(1)
        for _ in range(300):
            buffer, model = InputBuffer(), b""
            for _ in range(60):
                match randomness.randrange(5):
                    case 0 | 1:
                        data = bytes(randomness.choices(b"ab\r\n", k=randomness.randrange(6)))
                        buffer.receive(data)
                        model += data
                    case 2:
                        end = model.find(b"\n") + 1
                        line = model[:end] if end else None
                        self.assertEqual(buffer.take_line(10_000), line)
                        model = model[end:]
                    case 3:
                        length = randomness.randrange(8)
                        data_or_none = model[:length] if length <= len(model) else None
                        self.assertEqual(buffer.take(length), data_or_none)
                        model = model[length:] if data_or_none is not None else model
                    case 4:
                        first = model[0] if model else None
                        self.assertEqual(buffer.first_byte(), first)
                self.assertEqual(len(buffer), len(model))
