"""The reply parser's short cuts answer as its plain way does, however the bytes arrive."""

from __future__ import annotations

import io
import itertools
import random
import unittest
from collections.abc import Iterator
from typing import Any
from unittest import mock

from kvdb.errors import CommandError, ProtocolError
from kvdb.resp import replies
from kvdb.resp.replies import NEED_DATA, ReplyParser

LENGTHS = (0, 1, 2, 9, 10, 32, 100, 1022, 1023, 1024, 1025, 5000)  # short cuts end at 1024
CONTENTS = (b"x", b"\r\n", b"\n", b"$1\r\na\r\n", b"\x00\xff")


def random_reply(randomness: random.Random, depth: int = 2) -> bytes:
    """Return the bytes of a reply; most are of a kind that has a short cut."""
    choose = randomness.choice
    match randomness.randrange(9 if depth else 5):
        case 0 | 1:
            content = (choose(CONTENTS) * 5000)[: choose(LENGTHS)]
            return b"%b%d\r\n%b\r\n" % (choose((b"$", b"$", b"!")), len(content), content)
        case 2:
            return choose(
                (b"+OK\r\n", b"+\rO\r\n", b"+OKAY\r\n", b"-ERR no\r\n", b"=5\r\ntxt:a\r\n")
            )
        case 3:
            return b":%d\r\n" % choose((0, 1, -1, 2, 10, 2**63))
        case 4:
            return choose((b"$-1\r\n", b"*-1\r\n", b"_\r\n", b"#t\r\n", b",1.5\r\n", b"*0\r\n"))
        case 5:
            pairs = [b":%d\r\n" % key + random_reply(randomness, 0) for key in range(3)]
            return b"%3\r\n" + b"".join(pairs)
        case _:
            items = [random_reply(randomness, depth - 1) for _ in range(randomness.randrange(1, 5))]
            return b"%b%d\r\n" % (choose((b"*", b"~", b">")), len(items)) + b"".join(items)


def read_plainly(stream: io.BytesIO) -> Any:
    """Read one whole and correct reply."""
    line = stream.readline()
    kind, text = line[:1], line[1:-2]
    match kind:
        case b"+":
            return text
        case b"-":
            return CommandError(text.decode())
        case b":":
            return int(text)
        case b",":
            return float(text)
        case b"#":
            return text == b"t"
        case b"%":
            return {read_plainly(stream): read_plainly(stream) for _ in range(int(text))}
    if kind == b"_" or text == b"-1":
        return None
    if kind in b"*~>":
        return [read_plainly(stream) for _ in range(int(text))]
    string = stream.read(int(text) + 2)[:-2]
    if kind == b"!":
        return CommandError(string.decode("utf-8", "replace"))
    return string[4:] if kind == b"=" else string


def pieces(data: bytes, randomness: random.Random, size: int) -> Iterator[bytes]:
    """Cut the data into pieces of up to `size` bytes."""
    cuts = [0]
    while cuts[-1] < len(data):
        cuts.append(cuts[-1] + randomness.randint(1, size))
    for start, end in itertools.pairwise(cuts):
        yield data[start:end]


def read(arriving: Iterator[bytes] | list[bytes]) -> list[str]:
    """Return the texts of all replies, errors included, and of what ended them if anything did."""
    parser, found = ReplyParser(), []
    try:
        for piece in arriving:
            parser.receive(piece)
            while (reply := parser.next_reply()) is not NEED_DATA:
                found.append(text_of(reply))
    except ProtocolError as error:
        found.append(f"refused: {error}")
    return found


def text_of(reply: Any) -> str:
    """Tell apart what is equal in Python: 1 and True, and errors with different texts."""
    match reply:
        case CommandError():
            return f"error {reply.text!r}"
        case list():
            return f"[{', '.join(map(text_of, reply))}]"
        case dict():
            return f"{{{', '.join(f'{key}: {text_of(value)}' for key, value in reply.items())}}}"
    return repr(reply)


def without_short_cuts() -> Any:
    return mock.patch.multiple(replies, _SHORT_STRINGS={}, _COMMON_LINES={})


class ReplyParserTest(unittest.TestCase):
    def setUp(self) -> None:
        self.randomness = random.Random(11)

    def test_random_replies_are_read_in_whatever_pieces_they_arrive(self) -> None:
        for _ in range(150):
            data = b"".join(random_reply(self.randomness) for _ in range(4))
            stream = io.BytesIO(data)
            expected = [text_of(read_plainly(stream)) for _ in range(4)]
            for size in (1, 7, 1500, len(data)):
                self.assertEqual(read(pieces(data, self.randomness, size)), expected)

    def test_what_is_left_over_is_the_beginning_of_the_next_reply(self) -> None:
        for _ in range(150):
            data = random_reply(self.randomness)
            following = random_reply(self.randomness)
            expected = [text_of(read_plainly(io.BytesIO(each))) for each in (data, following)]
            cut = self.randomness.randrange(len(following))
            self.assertEqual(read([data + following[:cut], following[cut:]]), expected)

    def test_nothing_is_given_out_before_it_is_whole(self) -> None:
        for _ in range(50):
            data = random_reply(self.randomness)
            for cut in range(len(data)):
                parser = ReplyParser()
                parser.receive(data[:cut])
                self.assertIs(parser.next_reply(), NEED_DATA)

    def test_short_cuts_refuse_what_the_plain_way_refuses(self) -> None:
        refused = 0
        for _ in range(3000):
            data = bytearray(b"".join(random_reply(self.randomness, 1) for _ in range(2)))
            for _ in range(self.randomness.randint(1, 2)):
                place = self.randomness.randrange(min(len(data), 40))
                data[place : place + self.randomness.randrange(3)] = self.randomness.choice(
                    (b"", b"\r", b"\n", b"0", b"1", b"-", b"$", b":", b"+", b" ", b"_")
                )
            for size in (3, len(data) + 1):
                cut = list(pieces(bytes(data), self.randomness, size))
                found = read(cut)
                with without_short_cuts():
                    self.assertEqual(found, read(cut), bytes(data))
            refused += "refused" in "".join(found)
        self.assertGreater(refused, 100)

    def test_numbers_that_are_no_lengths_have_no_short_cut(self) -> None:
        for header in (b"$01\r\n", b"$+1\r\n", b"$ 1\r\n", b"$1 \r\n", b"$1_0\r\n", b"$-0\r\n"):
            with self.assertRaises(ProtocolError):
                parser = ReplyParser()
                parser.receive(header + b"x" * 10 + b"\r\n")
                parser.next_reply()

    def test_a_long_string_is_joined_once(self) -> None:
        parser = ReplyParser()
        parser.receive(b"$1000000\r\n")
        with mock.patch.object(parser, "_join", wraps=parser._join) as join:
            for _ in range(1000):
                self.assertIs(parser.next_reply(), NEED_DATA)
                parser.receive(b"x" * 1000)
            self.assertIs(parser.next_reply(), NEED_DATA)
            parser.receive(b"\r\n+OK\r\n")
            self.assertEqual(parser.next_reply(), b"x" * 1_000_000)
            self.assertEqual(join.call_count, 1)
        self.assertEqual(parser.next_reply(), b"OK")
