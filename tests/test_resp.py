"""RESP: requests out of bytes, replies into bytes, and the client's side of both."""

from __future__ import annotations

import itertools
import math
import random
import unittest
from typing import Any

from kvdb.errors import CommandError, ProtocolError
from kvdb.replies import NIL_ARRAY, NO_REPLY, OK, SimpleString, Verbatim
from kvdb.resp.buffer import InputBuffer
from kvdb.resp.encoding import encode_error, encode_reply
from kvdb.resp.limits import MAX_BULK, MAX_LINE
from kvdb.resp.replies import NEED_DATA, ReplyParser, encode_request
from kvdb.resp.requests import RequestLimits, RequestParser


class Requests:
    """A request parser and its buffer: bytes in, the next request out."""

    def __init__(self, limits: RequestLimits | None = None) -> None:
        self.buffer = InputBuffer()
        self.parser = RequestParser(self.buffer, limits or RequestLimits())

    def __call__(self, data: bytes) -> list[bytes] | None:
        self.buffer.receive(data)
        return self.parser.next_request()


def pieces_of(data: bytes, next_start: bytes) -> list[list[bytes]]:
    """Return the three ways to send something: whole, byte by byte, with more behind it."""
    return [[data], [bytes([byte]) for byte in data], [data + next_start]]


class ReadingRequests(unittest.TestCase):
    def assert_parses(self, data: bytes, expected: list[bytes]) -> None:
        for *early, last in pieces_of(data, b"*1\r\n$4\r\nPI"):
            requests = Requests()
            for piece in early:
                self.assertIsNone(requests(piece))
            self.assertEqual(requests(last), expected)
            self.assertIsNone(requests(b""))

    def assert_refused(
        self, data: bytes, message: str, limits: RequestLimits | None = None
    ) -> None:
        for pieces in pieces_of(data, b"more"):
            requests = Requests(limits)
            with self.assertRaises(ProtocolError) as caught:
                for piece in pieces:
                    self.assertIsNone(requests(piece))
            self.assertEqual(str(caught.exception), message)

    def test_an_array_of_bulk_strings_is_a_request(self) -> None:
        self.assert_parses(b"*1\r\n$4\r\nPING\r\n", [b"PING"])
        self.assert_parses(b"*2\r\n$3\r\nGET\r\n$1\r\nk\r\n", [b"GET", b"k"])

    def test_arguments_may_be_empty_and_hold_any_byte(self) -> None:
        every = bytes(range(256))
        self.assert_parses(
            b"*4\r\n$0\r\n\r\n$256\r\n" + every + b"\r\n$2\r\n\r\n\r\n$4\r\n*1\r\n\r\n",
            [b"", every, b"\r\n", b"*1\r\n"],
        )

    def test_a_request_without_arguments_is_empty(self) -> None:
        for count in (b"0", b"-1", b"-10"):
            self.assert_parses(b"*" + count + b"\r\n", [])

    def test_requests_in_one_piece_come_out_one_by_one(self) -> None:
        requests = Requests()
        first = requests(b"*1\r\n$1\r\na\r\n*0\r\n*2\r\n$1\r\nb\r\n$1\r\nc\r\n*1\r\n")
        self.assertEqual([first, requests(b""), requests(b"")], [[b"a"], [], [b"b", b"c"]])
        self.assertIsNone(requests(b""))

    def test_a_returned_request_is_not_changed_by_the_next_one(self) -> None:
        requests = Requests()
        first = requests(b"*1\r\n$1\r\na\r\n*1\r\n$1\r\nb\r\n")
        requests(b"")
        self.assertEqual(first, [b"a"])

    def test_a_count_that_is_no_count_is_refused(self) -> None:
        for count in (b"abc", b"", b"-", b"+1", b" 1", b"1 ", b"01", b"1_0", b"1.0", b"--1",
                      b"\xb2", b"2147483648", b"99999999999999999999", b"-01"):  # fmt: skip
            with self.subTest(count=count):
                self.assert_refused(b"*%b\r\n" % count, "invalid multibulk length")

    def test_more_arguments_than_redis_allows_are_refused(self) -> None:
        self.assertIsNone(Requests()(b"*1048576\r\n"))
        self.assert_refused(b"*1048577\r\n", "invalid multibulk length")

    def test_a_smaller_limit_of_arguments_holds(self) -> None:
        limits = RequestLimits(max_arguments=2)
        self.assertIsNone(Requests(limits)(b"*2\r\n"))
        self.assert_refused(b"*3\r\n", "invalid multibulk length", limits)

    def test_a_bulk_length_that_is_no_length_is_refused(self) -> None:
        for length in (b"-1", b"-10", b"blabla", b"+4", b" 4", b"04", b"00", b"", b"4 ", b"1_0",
                       b"2000000000", b"99999999999999999999"):  # fmt: skip
            with self.subTest(length=length):
                self.assert_refused(b"*1\r\n$%b\r\n" % length, "invalid bulk length")

    def test_a_bulk_length_over_512_mb_is_refused_and_one_below_awaited(self) -> None:
        self.assertIsNone(Requests()(b"*1\r\n$%d\r\n" % MAX_BULK))
        self.assert_refused(b"*1\r\n$%d\r\n" % (MAX_BULK + 1), "invalid bulk length")

    def test_a_smaller_limit_of_bulk_length_holds(self) -> None:
        limits = RequestLimits(max_bulk=5)
        self.assertEqual(Requests(limits)(b"*1\r\n$5\r\n12345\r\n"), [b"12345"])
        self.assert_refused(b"*1\r\n$6\r\n", "invalid bulk length", limits)

    def test_an_announced_length_sets_no_memory_aside(self) -> None:
        requests = Requests()
        self.assertIsNone(requests(b"*1000000\r\n$16000000\r\n"))
        self.assertEqual(len(requests.buffer), 0)

    def test_an_argument_without_a_dollar_sign_is_refused(self) -> None:
        self.assert_refused(b"*1\r\nfoo\r\n", "expected '$', got 'f'")
        self.assert_refused(b"*1\r\n\r\n", r"expected '$', got '\x0d'")
        self.assert_refused(b"*1\r\n*1\r\n", "expected '$', got '*'")

    def test_a_length_that_lies_is_noticed(self) -> None:
        for data in (b"*1\r\n$3\r\nPING\r\n", b"*1\r\n$5\r\nPING\r\n*", b"*1\r\n$4\r\nPINGxx",
                     b"*1\r\n$0\r\nab", b"*1\r\n$4\r\nPING\n\r"):  # fmt: skip
            with self.subTest(data=data):
                self.assert_refused(data, "expected CRLF after an argument")

    def test_a_header_that_ends_in_lf_alone_is_refused(self) -> None:
        self.assert_refused(b"*1\n", "expected CRLF after a length")
        self.assert_refused(b"*1\r\n$4\n", "expected CRLF after a length")

    def test_a_header_line_over_64_kb_is_refused(self) -> None:
        digits = b"1" * MAX_LINE
        self.assertIsNone(Requests()(b"*" + digits[1:]))
        for start, message in [
            (b"*", "too big mbulk count string"),
            (b"*1\r\n$", "too big bulk count string"),
        ]:
            with self.assertRaises(ProtocolError) as caught:
                Requests()(start + digits)
            self.assertEqual(str(caught.exception), message)


class OversizeRequests(unittest.TestCase):
    LIMITS = RequestLimits(max_value=10, max_request=25)
    PING = b"*1\r\n$4\r\nPING\r\n"

    def assert_read_over(self, arguments: list[bytes], text: str) -> None:
        data = encode_request(arguments)
        for pieces in pieces_of(data, self.PING[:-1]):
            requests = Requests(self.LIMITS)
            with self.assertRaises(CommandError) as caught:
                for piece in pieces:
                    self.assertIsNone(requests(piece))
            self.assertIn(text, caught.exception.text)
            rest = self.PING[-1:] if pieces == [data + self.PING[:-1]] else self.PING
            self.assertEqual(requests(rest), [b"PING"])

    def test_an_argument_of_the_limit_is_taken(self) -> None:
        self.assertEqual(Requests(self.LIMITS)(encode_request([b"x" * 10])), [b"x" * 10])

    def test_an_argument_one_past_the_limit_is_read_over(self) -> None:
        self.assert_read_over([b"x" * 11], "10 bytes")
        self.assert_read_over([b"SET", b"k", b"x" * 11, b"EX", b"5"], "10 bytes")

    def test_what_is_read_over_may_look_like_requests(self) -> None:
        self.assert_read_over([b"SET", self.PING, b""], "10 bytes")

    def test_the_error_names_the_limit_that_was_passed_first(self) -> None:
        self.assert_read_over([b"SET", b"k", b"x" * 100, b"EX", b"5"], "10 bytes")

    def test_a_request_of_the_limit_in_all_is_taken(self) -> None:
        words = [b"x" * 10, b"y" * 10, b"z" * 5]
        self.assertEqual(Requests(self.LIMITS)(encode_request(words)), words)

    def test_a_request_one_past_the_limit_in_all_is_read_over(self) -> None:
        self.assert_read_over([b"x" * 10, b"y" * 10, b"z" * 6], "25 bytes")
        self.assert_read_over([b"x" * 10] * 7, "25 bytes")

    def test_the_sizes_of_two_requests_are_not_added_up(self) -> None:
        requests = Requests(self.LIMITS)
        for _ in range(5):
            self.assertEqual(requests(encode_request([b"x" * 10] * 2)), [b"x" * 10] * 2)

    def test_what_is_read_over_is_not_kept(self) -> None:
        requests = Requests(self.LIMITS)
        self.assertIsNone(requests(b"*1\r\n$1000000\r\n"))
        for _ in range(9):
            self.assertIsNone(requests(b"x" * 100_000))
            self.assertEqual(len(requests.buffer), 0)

    def test_a_lie_about_what_is_read_over_is_noticed(self) -> None:
        with self.assertRaises(ProtocolError):
            Requests(self.LIMITS)(b"*1\r\n$11\r\n" + b"x" * 12 + b"\r\n")


class StrangersRequests(unittest.TestCase):
    def refusal(self, data: bytes) -> str:
        with self.assertRaises(ProtocolError) as caught:
            Requests(RequestLimits.before_authentication())(data)
        return str(caught.exception)

    def test_ten_arguments_of_20_kb_together_are_taken(self) -> None:
        for sizes in ([16384, 4096], [2048] * 10, [16384, *[455] * 9], [4096] * 5):
            words = [b"x" * size for size in sizes]
            requests = Requests(RequestLimits.before_authentication())
            for _ in range(3):  # each request is counted for itself
                self.assertEqual(requests(encode_request(words)), words)

    def test_a_byte_more_together_is_refused_before_it_comes(self) -> None:
        for sizes in ([16384, 4097], [2048] * 9 + [2049], [4096] * 5 + [1]):
            *words, last = [b"x" * size for size in sizes]
            data = encode_request([*words, last])[: -len(last) - 2]
            self.assertEqual(self.refusal(data), "unauthenticated bulk length")

    def test_an_eleventh_argument_is_refused(self) -> None:
        self.assertEqual(self.refusal(b"*11\r\n"), "unauthenticated multibulk length")

    def test_an_argument_over_16_kb_is_refused(self) -> None:
        self.assertEqual(self.refusal(b"*1\r\n$16385\r\n"), "unauthenticated bulk length")

    def test_nonsense_is_called_nonsense_all_the_same(self) -> None:
        self.assertEqual(self.refusal(b"*1048577\r\n"), "invalid multibulk length")
        self.assertEqual(self.refusal(b"*1\r\n$-4\r\n"), "invalid bulk length")


class EncodingReplies(unittest.TestCase):
    CASES: tuple[tuple[Any, bytes, bytes], ...] = (
        (b"", b"$0\r\n\r\n", b"$0\r\n\r\n"),
        (b"a\r\nb\x00\xff", b"$6\r\na\r\nb\x00\xff\r\n", b"$6\r\na\r\nb\x00\xff\r\n"),
        (OK, b"+OK\r\n", b"+OK\r\n"),
        (0, b":0\r\n", b":0\r\n"),
        (-(2**63), b":-9223372036854775808\r\n", b":-9223372036854775808\r\n"),
        (None, b"$-1\r\n", b"_\r\n"),
        (NIL_ARRAY, b"*-1\r\n", b"_\r\n"),
        (NO_REPLY, b"", b""),
        (True, b":1\r\n", b"#t\r\n"),
        (False, b":0\r\n", b"#f\r\n"),
        (1.5, b"$3\r\n1.5\r\n", b",1.5\r\n"),
        (3.0, b"$1\r\n3\r\n", b",3\r\n"),
        (math.inf, b"$3\r\ninf\r\n", b",inf\r\n"),
        (-math.inf, b"$4\r\n-inf\r\n", b",-inf\r\n"),
        (math.nan, b"$3\r\nnan\r\n", b",nan\r\n"),
        (1e300, b"$6\r\n1e+300\r\n", b",1e+300\r\n"),
        ("zwölf", b"$6\r\nzw\xc3\xb6lf\r\n", b"$6\r\nzw\xc3\xb6lf\r\n"),
        (Verbatim("ö"), b"$2\r\n\xc3\xb6\r\n", b"=6\r\ntxt:\xc3\xb6\r\n"),
        ([], b"*0\r\n", b"*0\r\n"),
        ((1, b"a"), b"*2\r\n:1\r\n$1\r\na\r\n", b"*2\r\n:1\r\n$1\r\na\r\n"),
        ({b"a": 1}, b"*2\r\n$1\r\na\r\n:1\r\n", b"%1\r\n$1\r\na\r\n:1\r\n"),
        ({}, b"*0\r\n", b"%0\r\n"),
        (frozenset([b"b", b"a"]), b"*2\r\n$1\r\na\r\n$1\r\nb\r\n", b"~2\r\n$1\r\na\r\n$1\r\nb\r\n"),
        (CommandError("ERR no"), b"-ERR no\r\n", b"-ERR no\r\n"),
        (
            [None, [OK, True], {b"k": None}, NIL_ARRAY, CommandError("ERR x")],
            b"*5\r\n$-1\r\n*2\r\n+OK\r\n:1\r\n*2\r\n$1\r\nk\r\n$-1\r\n*-1\r\n-ERR x\r\n",
            b"*5\r\n_\r\n*2\r\n+OK\r\n#t\r\n%1\r\n$1\r\nk\r\n_\r\n_\r\n-ERR x\r\n",
        ),
    )  # fmt: skip

    def test_every_type_has_its_form_in_both_versions(self) -> None:
        for reply, version_2, version_3 in self.CASES:
            with self.subTest(reply=reply):
                self.assertEqual(encode_reply(reply), version_2)
                self.assertEqual(encode_reply(reply, 2), version_2)
                self.assertEqual(encode_reply(reply, 3), version_3)

    def test_what_has_no_form_is_our_own_mistake(self) -> None:
        with self.assertRaises(TypeError):
            encode_reply(object())

    def test_an_error_stays_on_one_line(self) -> None:
        forged = "ERR x\r\n+OK\r\n:1\n$-1\r"
        for data in (
            encode_error(forged),
            encode_reply(CommandError(forged), 2),
            encode_reply([CommandError(forged)], 3).removeprefix(b"*1\r\n"),
        ):
            self.assertEqual(data, b"-ERR x  +OK  :1 $-1 \r\n")

    def test_an_error_text_quotes_the_bytes_that_a_client_sent(self) -> None:
        text = "ERR " + b"\xff".decode("utf-8", "surrogateescape") + " ö"
        self.assertEqual(encode_error(text), b"-ERR \xff \xc3\xb6\r\n")


class ReadingReplies(unittest.TestCase):
    CASES: tuple[tuple[bytes, Any], ...] = (
        (b"+OK\r\n", b"OK"),
        (b"+\r\n", b""),
        (b":0\r\n", 0),
        (b":-9223372036854775808\r\n", -(2**63)),
        (b"$0\r\n\r\n", b""),
        (b"$6\r\na\r\n+b\n\r\n", b"a\r\n+b\n"),
        (b"$-1\r\n", None),
        (b"*-1\r\n", None),
        (b"*0\r\n", []),
        (b"*3\r\n:1\r\n$1\r\na\r\n$-1\r\n", [1, b"a", None]),
        (b"_\r\n", None),
        (b"#t\r\n", True),
        (b"#f\r\n", False),
        (b",1.5\r\n", 1.5),
        (b",10\r\n", 10.0),
        (b",inf\r\n", math.inf),
        (b",-inf\r\n", -math.inf),
        (b"(3492890328409238509324850943850943825024385\r\n",
         3492890328409238509324850943850943825024385),
        (b"=7\r\ntxt:a\r\n\r\n", b"a\r\n"),
        (b"%0\r\n", {}),
        (b"%2\r\n+a\r\n:1\r\n:2\r\n*1\r\n_\r\n", {b"a": 1, 2: [None]}),
        (b"~2\r\n+a\r\n+b\r\n", [b"a", b"b"]),
        (b">2\r\n+message\r\n$2\r\nhi\r\n", [b"message", b"hi"]),
        (b"*2\r\n*2\r\n*0\r\n*1\r\n:1\r\n%1\r\n+k\r\n~1\r\n#t\r\n",
         [[[], [1]], {b"k": [True]}]),
    )  # fmt: skip

    def assert_reads(self, data: bytes, check: Any) -> None:
        for *early, last in pieces_of(data, b"$5\r\nab"):
            parser = ReplyParser()
            for piece in early:
                parser.receive(piece)
                self.assertIs(parser.next_reply(), NEED_DATA)
            parser.receive(last)
            check(parser.next_reply())
            self.assertIs(parser.next_reply(), NEED_DATA)

    def test_every_type_is_read(self) -> None:
        for data, expected in self.CASES:
            with self.subTest(data=data):

                def check(reply: Any, expected: Any = expected) -> None:
                    self.assertEqual((reply, type(reply)), (expected, type(expected)))

                self.assert_reads(data, check)

    def test_an_error_is_returned_and_not_raised(self) -> None:
        def check(reply: Any) -> None:
            self.assertIsInstance(reply, CommandError)
            self.assertEqual(reply.text, "ERR no ö")

        self.assert_reads("-ERR no ö\r\n".encode(), check)
        self.assert_reads("!9\r\nERR no ö\r\n".encode(), check)
        self.assert_reads("*1\r\n-ERR no ö\r\n".encode(), lambda reply: check(reply[0]))

    def test_not_a_number_is_a_number(self) -> None:
        self.assert_reads(b",nan\r\n", lambda reply: self.assertTrue(math.isnan(reply)))

    def test_replies_in_one_piece_come_out_one_by_one(self) -> None:
        parser = ReplyParser()
        parser.receive(b"+a\r\n*1\r\n$1\r\nb\r\n$-1\r\n:4\r\n")
        self.assertEqual([parser.next_reply() for _ in range(4)], [b"a", [b"b"], None, 4])
        self.assertIs(parser.next_reply(), NEED_DATA)

    def test_nesting_of_any_depth_does_not_end_the_client(self) -> None:
        parser, depth = ReplyParser(), 20_000
        parser.receive(b"*1\r\n" * depth + b":1\r\n")
        reply = parser.next_reply()
        for _ in range(depth):
            (reply,) = reply
        self.assertEqual(reply, 1)

    def test_a_string_of_many_pieces_is_joined(self) -> None:
        parser = ReplyParser()
        parser.receive(b"$100000\r\n")
        for _ in range(10):
            self.assertIs(parser.next_reply(), NEED_DATA)
            parser.receive(b"x" * 10_000)
        self.assertIs(parser.next_reply(), NEED_DATA)
        parser.receive(b"\r\n")
        self.assertEqual(parser.next_reply(), b"x" * 100_000)

    def test_what_is_no_reply_is_refused(self) -> None:
        for data in (b"\r\n", b"hello\r\n", b"+OK\n", b":\r\n", b":1x\r\n", b"$x\r\n", b"$\r\n",
                     b"$-2\r\n", b"$+1\r\n", b"*-2\r\n", b"%-1\r\n", b"=-1\r\n", b"!-1\r\n",
                     b",x\r\n", b"(x\r\n", b"$1\r\nabc", b"*1\r\n?\r\n",
                     b"*99999999999\r\n"):  # fmt: skip
            with self.subTest(data=data):
                parser = ReplyParser()
                parser.receive(data)
                with self.assertRaises(ProtocolError):
                    parser.next_reply()

    def test_a_map_with_a_key_that_python_cannot_hash_is_a_protocol_error(self) -> None:
        for key in (b"*0\r\n", b"%0\r\n", b"~1\r\n:1\r\n"):
            parser = ReplyParser()
            parser.receive(b"%1\r\n" + key + b":1\r\n")
            with self.assertRaises(ProtocolError):
                parser.next_reply()

    def test_a_line_that_never_ends_is_refused(self) -> None:
        parser = ReplyParser()
        parser.receive(b"+" + b"x" * MAX_LINE)
        with self.assertRaises(ProtocolError):
            parser.next_reply()

    def test_a_large_announcement_sets_no_memory_aside(self) -> None:
        parser = ReplyParser()
        parser.receive(b"*9999999999\r\n$9999999999\r\n")
        self.assertIs(parser.next_reply(), NEED_DATA)


class RoundTrips(unittest.TestCase):
    def test_random_requests_come_back_as_they_were(self) -> None:
        randomness = random.Random(7)
        sent = [
            [
                bytes(randomness.choices(b"\r\n*$0129a\x00\xff", k=randomness.randrange(20)))
                for _ in range(randomness.randrange(1, 6))
            ]
            for _ in range(300)
        ]
        stream = b"".join(map(encode_request, sent))
        requests, received, position = Requests(), [], 0
        while position < len(stream):
            size = randomness.randrange(1, 40)
            request = requests(stream[position : position + size])
            position += size
            while request is not None:
                received.append(request)
                request = requests(b"")
        self.assertEqual(received, sent)

    def test_random_replies_come_back_as_they_were(self) -> None:
        randomness = random.Random(8)

        def reply(depth: int) -> Any:
            match randomness.randrange(7 if depth else 4):
                case 0:
                    return randomness.randbytes(randomness.randrange(12))
                case 1:
                    return randomness.randrange(-(2**63), 2**63)
                case 2:
                    return None
                case 3:
                    return randomness.random() < 0.5
                case 4 | 5:
                    return [reply(depth - 1) for _ in range(randomness.randrange(4))]
                case _:
                    return {number: reply(depth - 1) for number in range(randomness.randrange(3))}

        for _ in range(300):
            sent, parser = reply(4), ReplyParser()
            data = encode_reply(sent, 3)
            for start, end in itertools.pairwise([0, randomness.randrange(len(data)), len(data)]):
                self.assertIs(parser.next_reply(), NEED_DATA)
                parser.receive(data[start:end])
            self.assertEqual(parser.next_reply(), sent)

    def test_a_simple_string_comes_back_as_bytes(self) -> None:
        parser = ReplyParser()
        parser.receive(encode_reply(SimpleString(b"PONG")))
        self.assertEqual(parser.next_reply(), b"PONG")
