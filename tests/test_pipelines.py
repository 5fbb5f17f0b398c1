"""Requests answered together: the same answers as one by one, however they arrive."""

from __future__ import annotations

import random
import unittest
from collections.abc import Iterator
from unittest import mock

from kvdb.buffer import InputBuffer
from kvdb.errors import ProtocolError
from kvdb.pipelines import (
    LONGEST_PLAIN,
    Run,
    find_run,
    join_plain,
    next_request,
    split_plain,
)
from kvdb.protocols.main_port import MainPort
from kvdb.resp import RequestLimits, RequestParser, encode_request
from tests.support import Conversation


def plain_requests(data: bytes) -> tuple[list[list[bytes]], bytes]:
    """Return the plain requests that `data` begins with, and what is left."""
    parts, start, requests = split_plain(data), 0, []
    while request := next_request(parts, start):
        requests.append(request)
        start += 2 * len(request) + 1
    return requests, join_plain(parts[start:])


def parsed_requests(data: bytes) -> Iterator[list[bytes]]:
    """Yield what the plain parser makes of `data`, up to the first error."""
    buffer = InputBuffer()
    buffer.receive(data)
    parser = RequestParser(buffer, RequestLimits())
    try:
        while (request := parser.next_request()) is not None:
            yield request
    except ProtocolError:
        return


class SplitTest(unittest.TestCase):
    def test_whole_requests_come_out_and_the_rest_is_left(self) -> None:
        first, second = [b"SET", b"k", b""], [b"GET", b"k"]
        cut = encode_request([b"GET", b"another"])[:-3]
        requests, rest = plain_requests(encode_request(first) + encode_request(second) + cut)
        self.assertEqual((requests, rest), ([first, second], cut))

    def test_it_stops_at_what_is_not_plain(self) -> None:
        plain = encode_request([b"PING", b"x"])
        for other in (
            b"GET inline\r\n",
            b'{"command": "PING"}\r\n',
            b"*0\r\n",
            b"*-1\r\n",
            b"*01\r\n$4\r\nPING\r\n",
            b"*1\r\n$04\r\nPING\r\n",
            b"*1\r\n$5\r\nPING\r\n",
            b"*1\r\n$3\r\nPING\r\n",
            b"*1\r\n+4\r\nPING\r\n",
            b"\r\n",
            encode_request([b"SET", b"k", b"a\r\nb"]),
            encode_request([b"SET", b"k", b"\r\n"]),
            encode_request([b"SET", b"k", b"v" * (LONGEST_PLAIN + 1)]),
        ):
            with self.subTest(other=other[:40]):
                requests, rest = plain_requests(plain + other + plain)
                self.assertEqual((requests, rest), ([[b"PING", b"x"]], other + plain))

    def test_a_long_value_is_not_searched_for_line_ends(self) -> None:
        data = encode_request([b"SET", b"k", b"\r\n" + b"v" * 60_000])
        self.assertEqual(split_plain(data), [data])

    def test_a_run_has_one_column_for_each_argument(self) -> None:
        data = b"".join(encode_request([b"SET", b"k%d" % i, b"v" * i]) for i in range(5))
        parts = split_plain(data + b"*3\r\n$3\r\nSET")
        run, end = find_run(parts) or self.fail()
        self.assertEqual(run.name, b"SET")
        self.assertEqual(run.columns[0], [b"k0", b"k1", b"k2", b"k3", b"k4"])
        self.assertEqual(run.columns[1], [b"", b"v", b"vv", b"vvv", b"vvvv"])
        self.assertEqual(join_plain(parts[end:]), b"*3\r\n$3\r\nSET")

    def test_what_differs_is_no_run(self) -> None:
        get = encode_request([b"GET", b"k"])
        for other in (
            encode_request([b"DEL", b"k"]),
            encode_request([b"GET", b"k", b"more"]),
            encode_request([b"GET", b"a\r\n$1\r\nb"]),
            encode_request([b"GET", b"k" * (LONGEST_PLAIN + 1)]),
            b"*2\r\n$3\r\nGET\r\n$2\r\nk\r\n",
            b"*2\r\n$03\r\nGET\r\n$1\r\nk\r\n",
            b"PING\r\n",
        ):
            with self.subTest(other=other[:40]):
                self.assertIsNone(find_run(split_plain(get * 4 + other + get * 4)))

    def test_both_find_what_the_plain_parser_finds_in_any_bytes(self) -> None:
        generator = random.Random(4)
        for _ in range(2_000):
            data = damaged_stream(generator)
            expected = list(parsed_requests(data))
            requests, rest = plain_requests(data)
            self.assertEqual(requests, expected[: len(requests)], data)
            self.assertEqual(b"".join(map(encode_request, requests)) + rest, data)
            parts = split_plain(data)
            if found := find_run(parts):
                run, end = found
                together = requests_of(run)
                self.assertEqual(together, expected[: len(together)], data)
                self.assertEqual(
                    b"".join(map(encode_request, together)) + join_plain(parts[end:]), data
                )


def requests_of(run: Run) -> list[list[bytes]]:
    return [[run.name, *arguments] for arguments in zip(*run.columns, strict=True)]


ARGUMENTS = (
    b"",
    b"a",
    b"b",
    b"1",
    b"10",
    b"9" * 18,
    b"9" * 19,
    b"x" * 30,
    b"a\r\nb",
    b"\r\n",
    b"$1",
)


def some_request(generator: random.Random) -> list[bytes]:
    key, value = generator.choice(ARGUMENTS), generator.choice(ARGUMENTS)
    return generator.choice(
        (
            [b"GET", key], [b"SET", key, value], [b"INCR", key], [b"get", key], [b"SET", key],
            [b"SET", key, value, b"EX", b"100"], [b"MGET", key, value], [b"EXPIRE", key, b"5"],
            [b"DEL", key], [b"MULTI"], [b"EXEC"], [b"SELECT", b"1"], [b"SELECT", b"0"],
            [b"HELLO", b"3"], [b"CLIENT", b"REPLY", b"SKIP"], [b"NOPE", key], [b"WATCH", key],
            [b"SET", key, b"v" * 3000], [b"RESET"],
        )
    )  # fmt: skip


def some_stream(generator: random.Random) -> bytes:
    """Return requests of all kinds, with runs of the same one among them."""
    data = b""
    for _ in range(generator.randrange(1, 8)):
        request = encode_request(some_request(generator))
        if request.startswith(b"*2") and generator.random() < 0.1:
            request = b"PING inline\r\n"
        data += request * generator.choice((1, 1, 2, 30))
    return data


def damaged_stream(generator: random.Random) -> bytes:
    data = bytearray(some_stream(generator))
    if generator.random() < 0.7:
        place = generator.randrange(len(data))
        data[place : place + generator.randrange(3)] = generator.choice(
            (b"", b"\r", b"\n", b"\r\n", b"0", b"-", b"$", b"*", b"\x00")
        )
    return bytes(data)


def one_by_one() -> mock._patch[mock.MagicMock]:
    """Have the main port answer every request by the plain way."""
    return mock.patch.object(MainPort, "_may_answer_together", return_value=False)


class SameAnswersTest(unittest.TestCase):
    def answers(self, pieces: list[bytes], **config: object) -> tuple[bytes, object, int]:
        client = Conversation(**config)
        replies = b"".join(client.bytes(piece) for piece in pieces if not client.dialect.closing)
        client.store.check()
        return replies, client.store.dump()[:3], client.session.commands

    def assert_same_answers(self, data: bytes, generator: random.Random, **config: object) -> None:
        middle = generator.randrange(len(data))
        for pieces in ([data], [data[:middle], data[middle:]], [bytes([byte]) for byte in data]):
            with one_by_one():
                expected = self.answers(pieces, **config)
            self.assertEqual(self.answers(pieces, **config), expected, data)

    def test_any_stream_is_answered_as_one_by_one(self) -> None:
        generator = random.Random(5)
        for _ in range(60):
            self.assert_same_answers(some_stream(generator), generator)

    def test_a_damaged_stream_too(self) -> None:
        generator = random.Random(6)
        for _ in range(60):
            self.assert_same_answers(damaged_stream(generator), generator)

    def test_with_a_budget_that_is_used_up_too(self) -> None:
        generator = random.Random(7)
        for _ in range(40):
            self.assert_same_answers(some_stream(generator), generator, max_bytes=1_000)

    def test_with_small_values_allowed_only_too(self) -> None:
        generator = random.Random(8)
        for _ in range(25):
            self.assert_same_answers(some_stream(generator), generator, max_value_bytes=20)

    def test_a_password_is_asked_for_first(self) -> None:
        generator = random.Random(9)
        for _ in range(25):
            data = some_stream(generator) + encode_request([b"AUTH", b"secret"])
            self.assert_same_answers(data * 2, generator, password="secret")


class TogetherTest(unittest.TestCase):
    def test_a_run_of_reads_takes_the_lock_once(self) -> None:
        client = Conversation()
        client("SET", "k", "v")
        with mock.patch.object(client.store, "get_many", wraps=client.store.get_many) as get_many:
            replies = client.bytes(encode_request([b"GET", b"k"]) * 50)
        self.assertEqual(replies, b"$1\r\nv\r\n" * 50)
        self.assertEqual(get_many.call_count, 1)

    def test_an_error_in_a_run_takes_its_own_place_only(self) -> None:
        client = Conversation(max_bytes=4_000)
        client("SET", "word", "x")
        keys = [b"n", b"word", b"n", b"n", b"n", b"n"]
        replies = client.bytes(b"".join(encode_request([b"INCR", key]) for key in keys))
        self.assertEqual(
            replies,
            b":1\r\n-ERR value is not an integer or out of range\r\n:2\r\n:3\r\n:4\r\n:5\r\n",
        )
        values = [b"a", b"b" * 2000, b"b" * 1999, b"c", b"d", b"e"]
        client("CONFIG", "SET", "maxmemory", "1500")
        sets = b"".join(encode_request([b"SET", b"k", value]) for value in values)
        replies = client.bytes(sets)
        self.assertEqual(replies.count(b"+OK\r\n"), 4)
        self.assertEqual(replies.count(b"-ERR entry of "), 2)

    def test_big_replies_are_not_copied_all_at_once(self) -> None:
        client = Conversation()
        client("SET", "big", b"x" * 300_000)
        first = client.dialect.receive(encode_request([b"GET", b"big"]) * 100)
        self.assertLess(len(first), 2 * 1024 * 1024)
        self.assertTrue(client.dialect.more)

    def test_nothing_is_answered_behind_quit(self) -> None:
        client = Conversation()
        quit_, get = encode_request([b"QUIT"]), encode_request([b"GET", b"k"])
        self.assertEqual(client.bytes(get + quit_ + get), b"$-1\r\n+OK\r\n")
        self.assertTrue(client.dialect.closing)

    def test_hits_and_misses_are_counted_in_a_run(self) -> None:
        client = Conversation()
        client("SET", "k", "v")
        client.bytes(encode_request([b"GET", b"k"]) * 30)
        client.bytes(encode_request([b"GET", b"none"]) * 20)
        self.assertEqual((client.store.hits, client.store.misses), (30, 20))


if __name__ == "__main__":
    unittest.main()
