"""Inline commands: lines of words, with Redis's quoting rules."""

from __future__ import annotations

import unittest

from kvdb.errors import NotOurProtocol, ProtocolError
from kvdb.protocols.inline import next_inline_request, split_words
from kvdb.resp.buffer import InputBuffer
from kvdb.resp.limits import MAX_LINE


def requests_in(*chunks: bytes) -> list[list[bytes] | None]:
    """Return the requests in a stream; None stands for "not whole yet" after a chunk."""
    buffer, requests = InputBuffer(), []
    for chunk in chunks:
        buffer.receive(chunk)
        while True:
            requests.append(next_inline_request(buffer))
            if requests[-1] is None:
                break
    return requests


class SplittingWords(unittest.TestCase):
    """The expected words were compared with what redis-server 7.0.15 answers."""

    def assert_words(self, cases: dict[bytes, list[bytes]]) -> None:
        for line, words in cases.items():
            with self.subTest(line=line):
                self.assertEqual(split_words(line), words)

    def test_white_space_separates_words(self) -> None:
        self.assert_words(
            {
                b"": [],
                b" \t ": [],
                b"PING": [b"PING"],
                b"  SET \t k   v ": [b"SET", b"k", b"v"],
                b"a\rb": [b"a", b"b"],
                b"\xc3\xb6 \xff": [b"\xc3\xb6", b"\xff"],
            }
        )

    def test_vertical_tab_and_form_feed_do_not_end_a_word(self) -> None:
        self.assert_words({b"a\vb c\fd": [b"a\vb", b"c\fd"], b"\va": [b"a"]})

    def test_quotes_hold_a_word_together(self) -> None:
        self.assert_words(
            {
                b"SET \"a b\" 'c  d'": [b"SET", b"a b", b"c  d"],
                b"\"\" ''": [b"", b""],
                b'"it\'s"': [b"it's"],
                b"'say \"hi\"'": [b'say "hi"'],
            }
        )

    def test_a_quoted_part_may_follow_a_plain_one(self) -> None:
        self.assert_words({b'foo"bar baz" x': [b"foobar baz", b"x"], b"a'b'": [b"ab"]})

    def test_double_quotes_know_escapes(self) -> None:
        self.assert_words(
            {
                rb'"\n\r\t\b\a"': [b"\n\r\t\b\a"],
                rb'"\"\\"': [b'"\\'],
                rb'"\x00\xfF\x41"': [b"\x00\xffA"],
                rb'"\q\xzz\x4"': [b"qxzzx4"],
                rb'"\\n"': [b"\\n"],
            }
        )

    def test_every_byte_can_be_written_in_hexadecimal(self) -> None:
        line = b'"%b"' % b"".join(b"\\x%02x" % byte for byte in range(256))
        self.assertEqual(split_words(line), [bytes(range(256))])

    def test_single_quotes_know_one_escape(self) -> None:
        self.assert_words({rb"'it\'s'": [b"it's"], rb"'\n\x41\\n'": [rb"\n\x41\\n"]})

    def test_a_backslash_in_single_quotes_does_not_hide_another(self) -> None:
        self.assert_words({rb"'\\'x'": [rb"\'x"]})
        with self.assertRaises(ProtocolError):
            split_words(rb"'a\\'")  # the second one escapes the quote

    def test_outside_of_quotes_a_backslash_is_itself(self) -> None:
        self.assert_words({rb"a\nb \x41": [rb"a\nb", rb"\x41"]})

    def test_unbalanced_quotes_are_refused(self) -> None:
        for line in (b'"', b"'", b'SET k "v', b"SET k 'v", b'a"', b'"a"b', b"'a'b", b'"a""b"',
                     b"'it''s'", b'"a\\"', b'"a\\', b"'a\\'"):  # fmt: skip
            with self.subTest(line=line):
                with self.assertRaises(ProtocolError) as caught:
                    split_words(line)
                self.assertEqual(str(caught.exception), "unbalanced quotes in request")


class ReadingLines(unittest.TestCase):
    def test_a_line_ends_with_crlf_or_lf(self) -> None:
        self.assertEqual(
            requests_in(b"GET a\r\nGET b\nGET c"), [[b"GET", b"a"], [b"GET", b"b"], None]
        )

    def test_a_line_byte_by_byte_is_the_same_request(self) -> None:
        line = b'SET k "a b"\r\n'
        requests = requests_in(*(bytes([byte]) for byte in line))
        self.assertEqual(requests, [None] * (len(line) - 1) + [[b"SET", b"k", b"a b"], None])

    def test_an_empty_line_is_an_empty_request(self) -> None:
        self.assertEqual(requests_in(b"\n\r\n \t\r\n"), [[], [], [], None])

    def test_a_line_of_64_kb_is_taken(self) -> None:
        self.assertEqual(requests_in(b"x" * MAX_LINE + b"\n"), [[b"x" * MAX_LINE], None])

    def test_a_line_one_byte_longer_is_refused_finished_or_not(self) -> None:
        for end in (b"", b"\n"):
            with self.assertRaises(ProtocolError) as caught:
                requests_in(b"x" * (MAX_LINE + 1) + end)
            self.assertEqual(str(caught.exception), "too big inline request")

    def test_a_line_that_is_hard_to_split_takes_no_time(self) -> None:
        for part in (b'"\\', b"'\\", b'a""', b"a''", b'"', b"' ", b'"" '):
            line = (part * MAX_LINE)[:MAX_LINE]
            with self.subTest(part=part):
                try:
                    words = split_words(line)
                except ProtocolError:
                    continue
                self.assertLess(len(b"".join(words)), MAX_LINE)

    def test_http_requests_are_refused(self) -> None:
        for line in (b"GET / HTTP/1.1", b"GET / HTTP/1.0", b"PUT /k HTTP/1.1",
                     b"OPTIONS * HTTP/1.1", b"POST / HTTP/1.1", b"POST /", b"post x",
                     b"POST", b"Host: localhost:4242", b"host:"):  # fmt: skip
            for end in (b"\r\n", b"\n"):
                with self.subTest(line=line), self.assertRaises(NotOurProtocol):
                    requests_in(line + end)

    def test_a_key_that_only_looks_like_http_is_a_key(self) -> None:
        self.assertEqual(
            requests_in(b"GET HTTP\nGET Host:\n")[:2], [[b"GET", b"HTTP"], [b"GET", b"Host:"]]
        )
        self.assertEqual(requests_in(b"GET POST\r\n")[0], [b"GET", b"POST"])
