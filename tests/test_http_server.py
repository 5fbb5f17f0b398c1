from __future__ import annotations

import base64
import contextlib
import http.client
import json
import logging
import os
import random
import socket
import struct
import threading
import time
import unittest
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any
from unittest import mock

from kvdb.http.listener import HttpServer
from kvdb.persistence import Seen
from kvdb.persistence.journal import Journal
from kvdb.service import Service
from tests.journal_case import Disk, Gate
from tests.support import Wire, ask_http, running_server, until
from tests.test_main_port import FakeDisk

SECURITY_HEADERS = {
    "X-Content-Type-Options": "nosniff",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Referrer-Policy": "no-referrer",
    "Cache-Control": "no-store",
}


class _Answer:
    """One response, read from a stream as strictly as it can be."""

    def __init__(self, status: int, headers: dict[str, str], body: bytes) -> None:
        self.status, self.headers, self.body = status, headers, body


def read_answer(wire: Wire, to_head: bool = False) -> _Answer:
    """Read exactly one response, byte by byte up to its body, so that what follows stays."""
    head = b""
    while not head.endswith(b"\r\n\r\n"):
        byte = wire.read(1)
        assert byte, f"the connection ended within {head!r}"
        head += byte
    first, *lines = head.decode("latin-1").removesuffix("\r\n\r\n").split("\r\n")
    version, status, _ = first.split(" ", 2)
    assert version == "HTTP/1.1", first
    headers: dict[str, str] = {}
    for line in lines:
        name, _, value = line.partition(": ")
        assert name not in headers, f"{name} twice"
        headers[name] = value
    bodiless = to_head or status in ("100", "204")
    length = 0 if bodiless else int(headers["Content-Length"])
    body = wire.read(length)
    assert len(body) == length, f"{len(body)} bytes of {length}"
    return _Answer(int(status), headers, body)


class HttpServerTest(unittest.TestCase):
    def setUp(self) -> None:
        self.enterContext(self.assertNoLogs("kvdb", logging.ERROR))
        # Who guesses passwords has to wait for the answer: not here.
        self.enterContext(mock.patch("kvdb.guesses.Guesses.wrong", return_value=0.0))

    @contextlib.contextmanager
    def serving(self, **config: object) -> Iterator[Service]:
        with running_server(http_port=0, **config) as service:
            self.service, self.store = service, service.store
            self.port = service.listeners["http"].port
            yield service
            self.store.check()

    def wire(self, host: str = "127.0.0.1") -> Wire:
        return Wire(self.port, host)

    def ask(
        self,
        target: str,
        method: str = "GET",
        body: bytes | None = None,
        headers: dict[str, str] | None = None,
    ) -> http.client.HTTPResponse:
        return ask_http(self.port, target, method, body, headers)

    def status_of(self, data: bytes) -> int:
        """Send bytes on a connection of their own; return the status of the one answer.

        The server must end the connection behind it.
        """
        with self.wire() as wire:
            wire.socket.sendall(data)
            answer = read_answer(wire, to_head=data.startswith(b"HEAD"))
            self.assertEqual(wire.read_to_end(), b"", data[:100])
            self.assert_secure(answer.headers)
            self.assertEqual(answer.headers["Connection"], "close")
            return answer.status

    def assert_secure(self, headers: dict[str, str]) -> None:
        self.assertEqual({name: headers.get(name) for name in SECURITY_HEADERS}, SECURITY_HEADERS)
        policy = headers["Content-Security-Policy"]
        self.assertIn("default-src 'none'", policy)
        self.assertIn("frame-ancestors 'none'", policy)
        self.assertNotIn("unsafe", policy)
        self.assertFalse([name for name in headers if name.startswith("Access-Control")])


class EventsTest(unittest.TestCase):
    """/api/events: the figures, each second, until the server stops or a minute is over."""

    def events(self, wire: Wire, count: int) -> list[dict[str, Any]]:
        return [json.loads(wire.read_until(b"\n\n").removeprefix(b"data: ")) for _ in range(count)]

    def test_events_come_each_with_what_is_new_in_the_history(self) -> None:
        with running_server(http_port=0) as service, Wire(service.listeners["http"].port) as wire:
            wire.socket.sendall(b"GET /api/events HTTP/1.1\r\nHost: localhost\r\n\r\n")
            head = wire.read_until(b"\r\n\r\n")
            self.assertIn(b"Content-Type: text/event-stream", head)
            self.assertNotIn(b"Content-Length", head)
            with mock.patch.object(HttpServer, "hold_back", side_effect=lambda _: time.sleep(0.01)):
                first = self.events(wire, 1)[0]
                until(lambda: len(self.events(wire, 1)[0]["history"]["seconds"]) == 1)
                self.assertEqual(self.events(wire, 1)[0]["history"]["seconds"], [])
            self.assertEqual(first["verdict"]["level"], "fine")
            self.assertTrue(service.instance.overseen, "requests are timed while somebody looks")

    def test_who_may_not_see_it_any_more_sees_no_more(self) -> None:
        with running_server(http_port=0) as service, Wire(service.listeners["http"].port) as wire:
            wire.socket.sendall(b"GET /api/events HTTP/1.1\r\nHost: localhost\r\n\r\n")
            wire.read_until(b"\n\n")
            with Wire(service.server.port) as main:
                main.ask(b"ACL SETUSER default -info\r\n", 5)
            self.assertNotIn(b"data", wire.read_to_end().partition(b"\n\n")[2])

    def test_a_stop_does_not_wait_for_who_listens(self) -> None:
        with running_server(http_port=0) as service, Wire(service.listeners["http"].port) as wire:
            wire.socket.sendall(b"GET /api/events HTTP/1.1\r\nHost: localhost\r\n\r\n")
            wire.read_until(b"\n\n")
            began = time.monotonic()
        self.assertLess(time.monotonic() - began, 1.5)

    def test_a_stream_ends_after_a_while_and_who_may_not_see_it_gets_none(self) -> None:
        with running_server(http_port=0, password="secret") as service:
            port = service.listeners["http"].port
            self.assertEqual(ask_http(port, "/api/events").status, 401)
            with mock.patch("kvdb.http.handler._STREAM_SECONDS", 0.0):
                token = base64.b64encode(b":secret").decode()
                answer = ask_http(port, "/api/events", headers={"Authorization": f"Basic {token}"})
            self.assertEqual(answer.status, 200)
            self.assertEqual(answer.content, b"")  # type: ignore[attr-defined]


class ConversationTest(HttpServerTest):
    def test_a_program_sets_and_gets_on_one_connection(self) -> None:
        with self.serving() as service:
            connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=10)
            with contextlib.closing(connection):
                for number in range(50):
                    value = b"%d" % number * number
                    connection.request("PUT", "/keys/k", value)
                    self.assertIn(connection.getresponse().read(), (b"",))
                    connection.request("GET", "/keys/k")
                    self.assertEqual(connection.getresponse().read(), value)
            self.assertEqual(service.instance.connections_received, 1)

    def test_pipelined_requests_are_answered_in_order(self) -> None:
        with self.serving(), self.wire() as wire:
            for number in range(100):
                self.store.set(b"%d" % number, b"value %d" % number)
            requests = b"".join(
                b"GET /get?key=%d HTTP/1.1\r\nHost: localhost\r\n\r\n" % number
                if number % 2
                else b"PUT /keys/put%d HTTP/1.1\r\nHost: localhost\r\nContent-Length: 3\r\n\r\nabc"
                % number
                for number in range(100)
            )
            wire.socket.sendall(requests)
            for number in range(100):
                answer = read_answer(wire)
                expected = (200, b"value %d" % number) if number % 2 else (201, b"")
                self.assertEqual((answer.status, answer.body), expected)
            self.assertEqual(self.store.get(b"put98"), b"abc")

    def test_bytes_may_come_one_by_one(self) -> None:
        with self.serving(), self.wire() as wire:
            request = b"PUT /keys/k HTTP/1.1\r\nHost: localhost\r\nContent-Length: 2\r\n\r\nhi"
            for byte in request:
                wire.socket.sendall(bytes([byte]))
            self.assertEqual(read_answer(wire).status, 201)
            self.assertEqual(self.store.get(b"k"), b"hi")

    def test_the_connection_stays_after_a_refusal_that_was_read_to_its_end(self) -> None:
        with self.serving(), self.wire() as wire:
            for line, status in (
                (b"GET /get?key=missing", 404),
                (b"GET /malformed", 500),
                (b"POST /set?a=b", 405),
                (b"GET /keys?count=x", 400),
                (b"GET /keys?cursor=77", 200),
                (b"GET /keys?cursor=x", 400),
                (b"GET /healthz", 200),
            ):
                wire.socket.sendall(line + b" HTTP/1.1\r\nHost: localhost\r\n\r\n")
                self.assertEqual(read_answer(wire).status, status)

    def test_http_1_0_ends_after_one_answer_unless_asked_to_stay(self) -> None:
        with self.serving():
            self.store.set(b"k", b"v")
            self.assertEqual(self.status_of(b"GET /get?key=k HTTP/1.0\r\n\r\n"), 200)
            with self.wire() as wire:
                for _ in range(2):
                    wire.socket.sendall(
                        b"GET /get?key=k HTTP/1.0\r\nConnection: keep-alive\r\n\r\n"
                    )
                    self.assertEqual(read_answer(wire).body, b"v")

    def test_connection_close_is_obeyed(self) -> None:
        with self.serving():
            data = b"GET /get?key=k HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"
            self.assertEqual(self.status_of(data), 404)

    def test_head_has_the_headers_of_get_and_no_body(self) -> None:
        with self.serving(), self.wire() as wire:
            self.store.set(b"k", b"value")
            for target, length in ((b"/keys/k", 5), (b"/get?key=k", 5), (b"/keys/none", 12)):
                wire.socket.sendall(b"HEAD " + target + b" HTTP/1.1\r\nHost: localhost\r\n\r\n")
                answer = read_answer(wire, to_head=True)
                self.assertEqual(answer.headers["Content-Length"], str(length))
            wire.socket.sendall(b"GET /keys/k HTTP/1.1\r\nHost: localhost\r\n\r\n")
            self.assertEqual(read_answer(wire).body, b"value")

    def test_options_lists_the_methods_and_allows_no_other_site(self) -> None:
        with self.serving():
            response = self.ask("/keys/k", "OPTIONS")
            self.assertEqual((response.status, response.content), (204, b""))
            self.assertEqual(response.headers["Allow"], "GET, HEAD, PUT, PATCH, DELETE, OPTIONS")
            self.assertNotIn("Content-Length", response.headers)
            self.assert_secure(dict(response.headers))

    def test_text_that_is_not_encoded_is_taken_as_utf_8(self) -> None:
        with self.serving(), self.wire() as wire:
            for word in ("café", "à la carte".replace(" ", "%20"), "ключ", "\x85"):
                target = f"/set?{word}={word}"
                wire.socket.sendall(f"GET {target} HTTP/1.1\r\nHost: localhost\r\n\r\n".encode())
                self.assertEqual(read_answer(wire).status, 200, word)
                name = word.replace("%20", " ").encode()
                self.assertEqual(self.store.get(name), name)

    def test_a_target_may_be_a_whole_address(self) -> None:
        with self.serving(), self.wire() as wire:
            wire.socket.sendall(b"GET http://localhost/set?a=b HTTP/1.1\r\nHost: localhost\r\n\r\n")
            self.assertEqual(read_answer(wire).status, 200)
            self.assertEqual(self.store.get(b"a"), b"b")

    def test_traffic_is_counted_and_clients_are_listed(self) -> None:
        with self.serving() as service, self.wire() as wire:
            wire.socket.sendall(b"GET /keys/k HTTP/1.1\r\nHost: localhost\r\n\r\n" * 3)
            for _ in range(3):
                read_answer(wire)
            (session,) = service.instance.sessions()
            self.assertTrue(session.address.startswith("127.0.0.1:"))
            self.assertEqual(service.instance.counts()["commands"], 3)

    def test_what_must_be_durable_is_on_disk_before_the_answer(self) -> None:
        with TemporaryDirectory() as folder:
            data = Path(folder) / "data.sqlite"
            with self.serving(data=data, fsync="always") as service:
                self.assertEqual(self.ask("/keys/k", "PUT", b"v").status, 201)
                assert service.persistence is not None
                self.assertEqual(service.persistence.changes_since_save, 0)

    def test_it_listens_on_ipv6_too(self) -> None:
        try:
            socket.create_server(("::1", 0), family=socket.AF_INET6).close()
        except OSError:
            self.skipTest("this machine has no IPv6")
        with self.serving(host="::1"):
            for host in (f"[::1]:{self.port}", "[::1]", "localhost"):
                with self.wire("::1") as wire:
                    wire.socket.sendall(f"GET /set?a=b HTTP/1.1\r\nHost: {host}\r\n\r\n".encode())
                    self.assertEqual(read_answer(wire).status, 200)


class FramingTest(HttpServerTest):
    """What could make two readers see two different requests in the same bytes is refused."""

    def test_a_body_whose_length_is_unclear_is_refused_and_the_connection_ends(self) -> None:
        smuggled = b"\r\nGET /set?smuggled=1 HTTP/1.1\r\nHost: localhost\r\n\r\n"
        with self.serving():
            for headers, status in (
                (b"Content-Length: 3\r\nContent-Length: 3\r\n", 400),
                (b"Content-Length: 3\r\nContent-Length: 5\r\n", 400),
                (b"Content-Length: 3, 3\r\n", 400),
                (b"Content-Length: -1\r\n", 400),
                (b"Content-Length: +3\r\n", 400),
                (b"Content-Length: 0x3\r\n", 400),
                (b"Content-Length: 3.0\r\n", 400),
                (b"Content-Length: 1_0\r\n", 400),
                (b"Content-Length: \xb2\r\n", 400),
                (b"Content-Length:\r\n", 400),
                (b"Content-Length: 3\r\n 0\r\n", 400),
                (b"Content-Length: 3\r\nTransfer-Encoding: chunked\r\n", 400),
                (b"Transfer-Encoding: chunked\r\nContent-Length: 3\r\n", 400),
                (b"Transfer-Encoding:\r\nContent-Length: 3\r\n", 400),
                (b"Transfer-Encoding: chunked\r\n", 400),  # what follows is no chunk
                (b"Transfer-Encoding: gzip, chunked\r\n", 501),
                (b"Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n", 501),
                (b"transfer-encoding: identity\r\n", 501),
                (b"Content-Length : 3\r\n", 400),
                (b"Transfer-Encoding : chunked\r\n", 400),
                (b"nonsense\r\nContent-Length: 3\r\n", 400),
                (b"X: y\r\r\nContent-Length: 3\r\n", 400),
                (b"Content-Length: %d\r\n" % (16 * 1024 * 1024 + 1), 413),
                (b"Content-Length: 99999999999999999999999\r\n", 413),
                (b"Content-Length: " + b"9" * 16_000 + b"\r\n", 413),
                (b"Content-Length: " + b"9" * 60_000 + b"\r\n", 431),
            ):
                with self.subTest(headers[:60]):
                    data = b"PUT /keys/k HTTP/1.1\r\nHost: localhost\r\n" + headers + smuggled
                    self.assertEqual(self.status_of(data), status)
            self.assertEqual(self.store.size(), 0)

    def test_a_body_may_come_in_chunks(self) -> None:
        head = b"PUT /keys/k HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n"
        with self.serving(max_value_bytes=200_000), self.wire() as wire:
            for chunks, value in (
                (b"5\r\nhello\r\n0\r\n\r\n", b"hello"),
                (b"0\r\n\r\n", b""),
                (
                    b"1\r\na\r\n000A;x=y\r\n\r\n2345678\n\r\n0\r\nX: trailer\r\n\r\n",
                    b"a\r\n2345678\n",
                ),
                (b"30D40\r\n" + b"x" * 200_000 + b"\r\n0\r\n\r\n", b"x" * 200_000),
            ):
                with self.subTest(chunks[:20]):
                    for data in (head + chunks, head):
                        wire.socket.sendall(data)
                    for position in range(0, len(chunks), max(1, len(chunks) // 50)):
                        wire.socket.sendall(chunks[position:][: max(1, len(chunks) // 50)])
                    statuses = [read_answer(wire).status for _ in range(2)]
                    self.assertIn(statuses, ([201, 204], [204, 204]))
                    self.assertEqual(self.store.get(b"k"), value)
            self.assertEqual(self.service.instance.accounts.held, 0)

    def test_bad_chunks_are_refused_and_the_connection_ends(self) -> None:
        head = b"PUT /keys/k HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n"
        with self.serving(max_value_bytes=1000):
            for chunks, status in (
                (b"x\r\n", 400),
                (b"-1\r\n", 400),
                (b"+1\r\na\r\n0\r\n\r\n", 400),
                (b"0x1\r\na\r\n", 400),
                (b"1\na\r\n", 400),
                (b"1\r\nab\r\n0\r\n\r\n", 400),
                (b"fffffffffffff\r\n", 400),
                (b"3e9\r\n", 413),
                (b"3e8\r\n" + b"x" * 1000 + b"\r\n1\r\n", 413),
                (b"1;" + b"x" * 2000 + b"\r\n", 400),
                (b"0\r\nX: " + b"y" * 2000 + b"\r\n\r\n", 400),
                (b"0\r\n" + b"X: y\r\n" * 5000 + b"\r\n", 431),
            ):
                with self.subTest(chunks[:20]):
                    self.assertEqual(self.status_of(head + chunks), status)
            self.assertEqual(self.store.size(), 0)

    def test_a_body_that_was_cut_short_is_not_stored(self) -> None:
        with self.serving(), self.wire() as wire:
            head = b"PUT /keys/k HTTP/1.1\r\nHost: localhost\r\nContent-Length: 10\r\n\r\n"
            wire.socket.sendall(head + b"12345")
            wire.socket.shutdown(socket.SHUT_WR)
            self.assertEqual(read_answer(wire).status, 400)
            self.assertEqual(wire.read_to_end(), b"")
            self.assertFalse(self.store.exists(b"k"))

    def test_the_body_of_a_get_is_read_and_ignored(self) -> None:
        with self.serving(), self.wire() as wire:
            body = b"GET /set?a=b HTTP/1.1\r\nHost: localhost\r\n\r\n"
            wire.socket.sendall(
                b"GET /healthz HTTP/1.1\r\nHost: localhost\r\nContent-Length: %d\r\n\r\n"
                % len(body)
                + body
            )
            self.assertEqual(read_answer(wire).status, 200)
            wire.socket.sendall(b"GET /get?key=a HTTP/1.1\r\nHost: localhost\r\n\r\n")
            self.assertEqual(read_answer(wire).status, 404)

    def test_a_client_that_waits_for_100_continue_gets_it(self) -> None:
        head = b"PUT /keys/k HTTP/1.1\r\nHost: localhost\r\nExpect: 100-continue\r\n"
        with self.serving(), self.wire() as wire:
            for status in (201, 204):
                wire.socket.sendall(head + b"Content-Length: 5\r\n\r\n")
                self.assertEqual(read_answer(wire).status, 100)
                wire.socket.sendall(b"hello")
                self.assertEqual(read_answer(wire).status, status)
            self.assertEqual(self.store.get(b"k"), b"hello")

    def test_a_body_that_is_too_long_is_refused_before_it_is_sent(self) -> None:
        with self.serving(max_value_bytes=1000):
            data = b"PUT /keys/k HTTP/1.1\r\nHost: localhost\r\nExpect: 100-continue\r\n"
            self.assertEqual(self.status_of(data + b"Content-Length: 1001\r\n\r\n"), 413)

    def test_http_1_0_knows_of_no_100_continue(self) -> None:
        with self.serving():
            data = b"PUT /keys/k HTTP/1.0\r\nExpect: 100-continue\r\nContent-Length: 2\r\n\r\nhi"
            self.assertEqual(self.status_of(data), 201)


class GarbageTest(HttpServerTest):
    def test_an_oversized_request_line_is_414(self) -> None:
        with self.serving():
            for length in (65_537, 1_000_000):
                with self.wire() as wire, contextlib.suppress(ConnectionError):
                    wire.socket.sendall(b"GET /set?k=" + b"x" * length)
                    self.assertEqual(read_answer(wire).status, 414)
            self.assertEqual(self.status_of(b"GET /set?k=" + b"x" * 65_526), 414)

    def test_oversized_headers_are_431(self) -> None:
        with self.serving():
            head = b"GET /healthz HTTP/1.1\r\n"
            self.assertEqual(self.status_of(head + b"X: " + b"x" * 65_534), 431)
            self.assertEqual(self.status_of(head + b"X: y\r\n" * 101), 431)

    def test_all_headers_together_have_16_kb(self) -> None:
        with self.serving():
            head, end = b"GET /healthz HTTP/1.1\r\n", b"Host: x\r\nConnection: close\r\n\r\n"
            for lines in (1, 50):
                room = 16 * 1024 - len(end)
                headers = b"".join(
                    b"X-%03d: %b\r\n" % (number, b"x" * (room // lines - 9))
                    for number in range(lines)
                )
                padding = room - len(headers)
                headers = headers.replace(b"x", b"x" * (padding + 1), 1)
                self.assertEqual(len(headers + end), 16 * 1024)
                self.assertEqual(self.status_of(head + headers + end), 200)
                self.assertEqual(self.status_of(head + b"Y" + headers + end), 431)
            self.assertEqual(self.status_of(head + b"X: y\r\n" * 101 + end), 431)

    def test_a_stranger_is_not_allowed_to_send_a_longer_head_either(self) -> None:
        with self.serving(password="secret"):
            head = b"PUT /keys/k HTTP/1.1\r\nHost: localhost\r\nX: "
            self.assertEqual(self.status_of(head + b"x" * 16 * 1024), 431)

    def test_lines_that_are_no_http_are_400_and_the_connection_ends(self) -> None:
        with self.serving():
            for data in (
                b"hello\r\n\r\n",
                b"GET / x HTTP/1.1\r\n\r\n",
                b"GET / HTTP/x\r\n\r\n",
                b"GET / HTTP/1\r\n\r\n",
                b"GET / FOO/1.1\r\n\r\n",
                b"GET / HTTP/1.1\x00\r\n\r\n",
                b"PUT /keys/k\r\n\r\n",
                b"SET a 1\r\n",
                b"*1\r\n$4\r\nPING\r\n",
                b'{"command": "PING"}\r\n',
                b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n",
                b"\xff\xfe\xfd\r\n\r\n",
            ):
                with self.subTest(data):
                    self.assertEqual(self.status_of(data), 400)
            self.assertEqual(self.status_of(b"GET / HTTP/2.0\r\n\r\n"), 505)
            self.assertEqual(self.store.size(), 0)

    def test_an_unknown_method_is_501_and_a_known_one_in_the_wrong_place_405(self) -> None:
        with self.serving():
            for method in (b"BREW", b"TRACE", b"CONNECT", b"get", b"__init__", b"\xe9"):
                with self.subTest(method):
                    data = method + b" /keys/k HTTP/1.1\r\nHost: localhost\r\n\r\n"
                    self.assertEqual(self.status_of(data), 501)
            self.assertEqual(self.ask("/keys/k", "POST", b"v").status, 405)

    def test_a_target_that_is_no_address_is_400(self) -> None:
        with self.serving():
            for target in (b"http://[::1/", b"http://]/", b"//[x"):
                with self.subTest(target), self.wire() as wire:
                    wire.socket.sendall(b"GET " + target + b" HTTP/1.1\r\nHost: localhost\r\n\r\n")
                    self.assertIn(read_answer(wire).status, (400, 500))

    def test_paths_lead_to_no_file(self) -> None:
        with self.serving():
            for path in (
                "/../../../etc/passwd",
                "/..%2f..%2fetc/passwd",
                "/kvdb/cli.py",
                "/keys/..",
            ):
                response = self.ask(path)
                self.assertIn(response.status, (404, 500))
                self.assertNotIn(b"root:", response.content)

    def test_random_bytes_never_end_the_server_and_never_leave_a_traceback(self) -> None:
        randomness = random.Random(4)
        words = [
            b"GET ", b"PUT ", b"/keys/k", b"/set?a=b", b"http://[", b" HTTP/1.1\r\n", b"\r\n",
            b"Host: localhost\r\n", b"Host: [::1\r\n", b"Content-Length: 4\r\n", b"\r\n\r\n",
            b"Authorization: Basic \xff\xfe\r\n", b"Content-Type: multipart/x; boundary=b\r\n",
            b"Content-Type: message/rfc822\r\n", b"\x00", b"\xff", b"\r", b"Origin: http://x\r\n",
            b"Transfer-Encoding: chunked\r\n", b"Expect: 100-continue\r\n", b"--b\r\n", b" ", b":",
            b"Content-Type: message/partial; boundary*0*=a'b\r\n", b"From x\r\n",
        ]  # fmt: skip
        with self.serving(password="secret") as service:
            for number in range(300):
                data = os.urandom(1000) if number % 3 == 0 else b"GET / HTTP/1.1\r\n"
                data += b"".join(randomness.choices(words, k=randomness.randrange(30)))
                with self.wire() as wire, contextlib.suppress(OSError):
                    wire.socket.sendall(data)
                    if number % 5 == 0:
                        wire.socket.shutdown(socket.SHUT_WR)
                        wire.read_to_end()
            self.assertTrue(service.listeners["http"].wait_until_empty(10))
            self.assertEqual(self.ask("/healthz").status, 200)
            self.assertEqual(self.store.size(), 0)

    def test_clients_that_hang_up_at_any_moment_leave_no_traceback(self) -> None:
        with self.serving() as service:
            self.store.set(b"big", b"x" * 5_000_000)
            for data in (
                b"",
                b"GET",
                b"GET /keys/big HTTP/1.1\r\nHost: localhost\r\n\r\n",
                b"GET /keys/big HTTP/1.1\r\nHost: localhost\r\n\r\n" * 20,
                b"GET /keys/no HTTP/1.1\r\nHost: localhost\r\n\r\n" * 500,
                b"PUT /keys/k HTTP/1.1\r\nHost: localhost\r\nContent-Length: 10\r\n\r\n12345",
                b"nonsense\r\n",
            ):
                for _ in range(10):
                    with self.wire() as wire:
                        wire.socket.sendall(data)
                        linger = struct.pack("ii", 1, 0)  # a reset instead of an orderly end
                        wire.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
            self.assertTrue(service.listeners["http"].wait_until_empty(10))
            self.assertEqual(service.instance.sessions(), [])
            self.assertFalse(self.store.exists(b"k"))


FOREIGN: tuple[dict[str, str], ...] = (
    {"Host": "evil.example"},
    {"Host": "evil.example:4242"},
    {"Host": "localhost.evil.example"},
    {"Host": "127.0.0.1.evil.example"},
    {"Host": "evil.example#localhost"},
    {"Host": "localhost@evil.example"},
    {"Host": ""},
    {"Origin": "http://evil.example"},
    {"Origin": "null"},
    {"Origin": ""},
    {"Origin": "http://localhost"},  # on another port than ours
    {"Origin": "http://localhost:1"},
    {"Origin": "file://"},
    {"Sec-Fetch-Site": "cross-site"},
    {"Sec-Fetch-Site": "same-site"},
    {"Sec-Fetch-Site": "Cross-Site"},
    {"Sec-Fetch-Site": ""},
)


class OtherSitesTest(HttpServerTest):
    def test_what_another_site_has_sent_is_refused_and_nothing_is_read_or_stored(self) -> None:
        with self.serving():
            self.store.set(b"secret", b"hidden")
            for headers in FOREIGN:
                for method, target in (
                    ("GET", "/set?evil=1"),
                    ("GET", "/get?key=secret"),
                    ("GET", "/keys/secret"),
                    ("GET", "/keys"),
                    ("GET", "/"),
                    ("GET", "/metrics"),
                    ("PUT", "/keys/evil"),
                    ("POST", "/keys/evil"),
                    ("DELETE", "/keys/secret"),
                    ("OPTIONS", "/keys/evil"),
                    ("HEAD", "/keys/secret"),
                ):
                    with self.subTest(headers, request=f"{method} {target}"):
                        response = self.ask(target, method, b"1", headers)
                        # Prometheus asks by the name of a service, and is told nothing of keys.
                        any_host = target == "/metrics" and "Host" in headers
                        self.assertEqual(response.status, 200 if any_host else 403)
                        self.assertNotIn(b"hidden", response.content)
                        self.assert_secure(dict(response.headers))
            self.assertEqual(self.store.keys(), [b"secret"])

    def test_our_own_page_people_and_programs_are_served(self) -> None:
        with self.serving(http_hosts=("kvdb.example",)):
            own = f"localhost:{self.port}"
            for headers in (
                {"Host": own, "Origin": f"http://{own}", "Sec-Fetch-Site": "same-origin"},
                {"Host": own, "Origin": f"HTTP://{own}"},
                {"Host": own, "Sec-Fetch-Site": "none"},  # typed into the address bar
                {"Host": "LOCALHOST"},
                {"Host": "127.0.0.1"},
                {"Host": "192.0.2.77:8000"},
                {"Host": "[2001:db8::1]:8000"},
                {"Host": "[::1]"},
                {"Host": "kvdb.example"},
                {"Host": "KVDB.example:8000", "Origin": "http://kvdb.example:8000"},
                {"Host": "kvdb.example", "Origin": "https://kvdb.example"},  # behind a proxy
            ):
                with self.subTest(headers):
                    self.assertEqual(self.ask("/set?a=b", headers=headers).status, 200)
            self.assertEqual(self.ask("/", headers={"Host": "www.kvdb.example"}).status, 403)
            self.assertGreaterEqual(self.service.instance.counts()["error HTTP403"], 1)

    def test_a_browser_that_does_not_name_the_site_cannot_write_by_get(self) -> None:
        """To an address beyond loopback, over http, it names neither site nor origin."""
        browser = {"Host": "192.0.2.77", "User-Agent": "Mozilla/5.0 (X11; Linux x86_64)"}
        with self.serving():
            for target in ("/set?evil=1", "http://192.0.2.77/set?evil=1"):
                self.assertEqual(self.ask(target, headers=browser).status, 403)
            self.assertEqual(self.store.size(), 0)
            for headers in ({"Sec-Fetch-Site": "none"}, {"Sec-Fetch-Site": "same-origin"}):
                response = self.ask("/set?a=b", headers={**browser, **headers})
                self.assertEqual(response.status, 200)
            for method, target in (("GET", "/"), ("GET", "/get?key=a"), ("DELETE", "/keys/a")):
                self.assertIn(self.ask(target, method, headers=browser).status, (200, 204))

    def test_a_request_has_one_host(self) -> None:
        with self.serving():
            for hosts in (b"", b"Host: localhost\r\nHost: localhost\r\n"):
                data = b"GET /set?a=b HTTP/1.1\r\n" + hosts + b"\r\n"
                self.assertEqual(self.status_of(data), 400)
            self.assertEqual(self.store.size(), 0)

    def test_health_is_told_whatever_the_host(self) -> None:
        with self.serving():
            self.assertEqual(self.ask("/healthz", headers={"Host": "probe.internal"}).status, 200)


def basic(credentials: bytes) -> dict[str, str]:
    return {"Authorization": "Basic " + base64.b64encode(credentials).decode()}


class PasswordTest(HttpServerTest):
    def test_without_the_password_nothing_but_health_is_told(self) -> None:
        with self.serving(password="secret:ö"):
            self.store.set(b"k", b"hidden")
            for headers in (
                {},
                basic(b"x:wrong"),
                basic(b"x:"),
                basic("secret:ö".encode()),  # the user is "secret" then
                basic(b"no-colon"),
                {"Authorization": "Basic"},
                {"Authorization": "Basic ***"},
                {"Authorization": "Basic \xff\xfe"},
                {"Authorization": "Bearer " + base64.b64encode("x:secret:ö".encode()).decode()},
                {"Authorization": ""},
            ):
                for method, target in (
                    ("GET", "/keys/k"),
                    ("PUT", "/keys/k"),
                    ("GET", "/set?a=b"),
                    ("GET", "/"),
                    ("GET", "/metrics"),
                    ("GET", "/healthz/"),
                    ("GET", "/malformed"),
                ):
                    with self.subTest(headers, target=target):
                        response = self.ask(target, method, b"1", headers)
                        self.assertEqual(response.status, 401)
                        self.assertIn("Basic realm=", response.headers["WWW-Authenticate"])
                        self.assertNotIn(b"hidden", response.content)
            self.assertEqual(self.store.keys(), [b"k"])
            self.assertEqual(self.ask("/healthz").status, 200)

    def test_with_it_everything_is_open_whatever_the_user_name(self) -> None:
        with self.serving(password="secret:ö"):
            for user in ("", "default", "anybody"):
                for scheme in ("Basic", "basic"):
                    encoded = base64.b64encode(f"{user}:secret:ö".encode()).decode()
                    headers = {"Authorization": f"{scheme} {encoded}"}
                    self.assertEqual(self.ask("/set?a=b", headers=headers).status, 200)

    def test_a_right_password_does_not_outlive_its_request(self) -> None:
        with self.serving(password="secret"), self.wire() as wire:
            right = basic(b":secret")["Authorization"].encode()
            line = b"GET /keys HTTP/1.1\r\nHost: localhost\r\n"
            wire.socket.sendall(line + b"Authorization: " + right + b"\r\n\r\n" + line + b"\r\n")
            self.assertEqual([read_answer(wire).status for _ in range(2)], [200, 401])

    def test_a_strangers_body_is_not_read_and_the_connection_ends(self) -> None:
        line = b"PUT /keys/k HTTP/1.1\r\nHost: localhost\r\n"
        wrong = b"Authorization: " + basic(b":wrong")["Authorization"].encode() + b"\r\n"
        hidden = b"GET /keys/k HTTP/1.1\r\nHost: localhost\r\n\r\n"
        with self.serving(password="secret") as service:
            for headers in (
                b"Content-Length: 1000000\r\n",
                b"Content-Length: 46\r\n",
                b"Content-Length: 46\r\nExpect: 100-continue\r\n",
                b"Content-Length: x\r\n",
                b"Content-Length: 99999999999999999999\r\n",
                b"Transfer-Encoding: chunked\r\n",
            ):
                for credentials in (b"", wrong):
                    with self.subTest(headers):
                        data = line + credentials + headers + b"\r\n" + hidden
                        self.assertEqual(self.status_of(data), 401)
            self.assertEqual(service.instance.counts()["received"], 0)
            self.assertEqual(self.store.size(), 0)

    def test_after_401_without_a_body_the_connection_stays(self) -> None:
        right = basic(b":secret")["Authorization"].encode()
        line = b"GET /keys HTTP/1.1\r\nHost: localhost\r\n"
        with self.serving(password="secret"), self.wire() as wire:
            for headers, status in (
                (b"", 401),
                (b"Content-Length: 0\r\n", 401),
                (b"Authorization: " + right + b"\r\n", 200),
            ):
                wire.socket.sendall(line + headers + b"\r\n")
                answer = read_answer(wire)
                self.assertEqual(answer.status, status)
                self.assertNotIn("Connection", answer.headers)

    def test_other_refusals_that_leave_a_body_unread_end_the_connection_too(self) -> None:
        with self.serving():
            data = b"PUT /keys/k HTTP/1.1\r\nHost: evil.example\r\nContent-Length: 3\r\n\r\nabc"
            self.assertEqual(self.status_of(data), 403)
            with self.wire() as wire:
                data = b"POST /keys/k HTTP/1.1\r\nHost: localhost\r\nContent-Length: 3\r\n\r\nabc"
                for _ in range(2):  # read, so it stays
                    wire.socket.sendall(data)
                    self.assertEqual(read_answer(wire).status, 405)

    def test_another_site_is_refused_even_with_the_password(self) -> None:
        with self.serving(password="secret"):
            headers = {**basic(b":secret"), "Sec-Fetch-Site": "cross-site"}
            self.assertEqual(self.ask("/set?a=b", headers=headers).status, 403)
            self.assertEqual(self.store.size(), 0)


class LimitsTest(HttpServerTest):
    def test_more_than_max_clients_are_told_503(self) -> None:
        with self.serving(max_clients=1) as service, self.wire() as first:
            first.socket.sendall(b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n")
            self.assertEqual(read_answer(first).status, 200)
            with self.wire() as second:
                answer = read_answer(second)
                self.assertEqual(answer.status, 503)
                self.assertEqual(answer.headers["Connection"], "close")
                self.assertEqual(answer.headers["Content-Type"], "text/plain")
                self.assertEqual(answer.body, b"max number of clients reached\n")
                self.assertEqual(second.read_to_end(), b"")
            self.assertEqual(service.instance.connections_rejected, 1)
            self.assertEqual(len(service.instance.sessions()), 1)

    def test_a_value_longer_than_allowed_is_413(self) -> None:
        with self.serving(max_value_bytes=1000):
            self.assertEqual(self.ask("/keys/k", "PUT", b"x" * 1000).status, 201)
            self.assertEqual(self.ask("/keys/k", "PUT", b"y" * 1001).status, 413)
            self.assertEqual(self.ask("/set?k=" + "y" * 1001).status, 413)
            self.assertEqual(self.store.get(b"k"), b"x" * 1000)

    def test_an_entry_larger_than_the_whole_budget_is_413_and_evicts_nothing(self) -> None:
        with self.serving(max_bytes=10_000):
            self.store.set(b"k", b"v")
            self.assertEqual(self.ask("/keys/big", "PUT", b"y" * 10_000).status, 413)
            self.assertEqual(self.store.keys(), [b"k"])

    def test_no_room_where_nothing_may_be_evicted_is_507(self) -> None:
        with self.serving(max_bytes=10_000) as service:
            with Wire(service.server.port) as wire:
                wire.ask(b"CONFIG SET maxmemory-policy noeviction\r\n", 5)
            self.assertEqual(self.ask("/keys/a", "PUT", b"x" * 8000).status, 201)
            response = self.ask("/keys/b", "PUT", b"x" * 8000)
            self.assertEqual(response.status, 507)
            self.assertTrue(response.content.startswith(b"OOM "))
            self.assertEqual(self.store.keys(), [b"a"])

    def test_a_body_under_way_is_on_its_clients_account_until_it_is_whole(self) -> None:
        with self.serving() as service, self.wire() as wire:
            accounts = service.instance.accounts
            head = b"PUT /keys/k HTTP/1.1\r\nHost: localhost\r\nContent-Length: 300000\r\n\r\n"
            wire.socket.sendall(head + b"x" * 200_000)
            until(lambda: accounts.held == 200_000)
            (session,) = service.instance.sessions()
            self.assertEqual(session.held, 200_000)
            wire.socket.sendall(b"x" * 100_000)
            self.assertEqual(read_answer(wire).status, 201)
            self.assertEqual((accounts.held, session.held), (0, 0))
            wire.socket.sendall(head + b"x" * 200_000)
            until(lambda: accounts.held == 200_000)
            wire.socket.close()
            until(lambda: accounts.held == 0)
            self.assertEqual(self.store.get(b"k"), b"x" * 300_000)


class WaitingDisk(FakeDisk):
    """The same for those that wait on a thread of their own."""

    def wait_until_durable(self, seen: Seen) -> bool:
        return self.outcome(seen)


class DurabilityTest(HttpServerTest):
    """Under --fsync always no answer leaves before all that it tells of is on disk."""

    @contextlib.contextmanager
    def on(self, disk: WaitingDisk) -> Iterator[None]:
        with self.serving() as service, mock.patch.object(service.instance, "persistence", disk):
            self.store.add_listener(lambda step, facts: None)  # so that steps are counted
            yield
            self.assertEqual((disk.outcomes, disk.open_tickets), ([], 0))

    def test_what_cannot_be_saved_is_507(self) -> None:
        disk = WaitingDisk(False)
        with self.on(disk):
            response = self.ask("/keys/k", "PUT", b"v")
            self.assertEqual((response.status, response.content), (507, b"not saved: disk full\n"))
            self.assertEqual([seen.wrote for seen in disk.seen], [1])

    def test_a_set_by_get_is_not_repeated_but_refused(self) -> None:
        with self.on(WaitingDisk(False)):
            self.assertEqual(self.ask("/set?k=v").status, 507)

    def test_a_read_is_answered_anew_once_what_it_saw_was_undone(self) -> None:
        disk = WaitingDisk(False, True)
        with self.on(disk):
            with mock.patch.object(self.store, "get", side_effect=[b"undone", b"kept"]):
                response = self.ask("/get?key=k")
            self.assertEqual((response.status, response.content), (200, b"kept"))
            self.assertEqual([seen.wrote for seen in disk.seen], [0, 0])

    def test_reads_wait_too(self) -> None:
        with TemporaryDirectory() as folder:
            data = Path(folder) / "data.sqlite"
            with self.serving(data=data, fsync="always") as service:
                gate, journal = Gate(), service.persistence
                assert isinstance(journal, Journal)
                disk = Disk()
                disk.stand_before(journal._file)
                disk.before_commit = gate
                self.addCleanup(gate.opened.set)
                with self.wire() as writer, self.wire() as reader:
                    writer.socket.sendall(
                        b"PUT /keys/k HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1\r\n\r\nv"
                    )
                    self.assertTrue(gate.reached.wait(10))
                    reader.socket.sendall(b"GET /keys/k HTTP/1.1\r\nHost: localhost\r\n\r\n")
                    until(lambda: self.store.hits == 1)
                    for wire in (writer, reader):
                        wire.socket.settimeout(0.05)
                        self.assertRaises(TimeoutError, wire.socket.recv, 1)
                        wire.socket.settimeout(10)
                    gate.opened.set()
                    self.assertEqual(read_answer(writer).status, 201)
                    self.assertEqual(read_answer(reader).body, b"v")


class EndTest(HttpServerTest):
    def test_a_connection_that_is_over_is_not_touched_again(self) -> None:
        """Its number may belong to another one by then."""
        with self.serving() as service:
            http, over = service.listeners["http"], []
            remember = http.remember
            with mock.patch.object(
                http, "remember", lambda each: (over.append(each), remember(each))
            ):
                self.assertEqual(self.ask("/healthz").status, 200)
            self.assertTrue(http.wait_until_empty(10))
            with mock.patch.object(socket.socket, "shutdown") as shutdown:
                over[0].finish()
                over[0].end()
            shutdown.assert_not_called()

    def test_idle_connections_are_ended_at_once_when_the_server_stops(self) -> None:
        with self.serving() as service:
            fresh, used, halfway, in_body = (self.enterContext(self.wire()) for _ in range(4))
            used.socket.sendall(b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n")
            self.assertEqual(read_answer(used).status, 200)
            halfway.socket.sendall(b"GET /set?half=1 HT")
            in_body.socket.sendall(b"PUT /keys/cut HTTP/1.1\r\nHost: localhost\r\n")
            in_body.socket.sendall(b"Content-Length: 10\r\nExpect: 100-continue\r\n\r\n")
            self.assertEqual(read_answer(in_body).status, 100)
            service.listeners["http"].stop(grace=60)  # would be waited for if anybody held it up
            self.assertEqual(fresh.read_to_end() + used.read_to_end(), b"")
            for wire in (halfway, in_body):
                self.assertTrue(wire.read_to_end().startswith(b"HTTP/1.1 400 "))
            self.assertEqual(self.store.size(), 0)

    def test_a_request_under_way_is_answered_when_the_server_stops(self) -> None:
        asked, stopping = threading.Event(), threading.Event()

        def slow(key: bytes) -> bytes:
            asked.set()
            self.assertTrue(stopping.wait(10))
            return b"v"

        with self.serving() as service, self.wire() as wire:
            with mock.patch.object(service.store, "get", slow):
                wire.socket.sendall(b"GET /get?key=k HTTP/1.1\r\nHost: localhost\r\n\r\n")
                self.assertTrue(asked.wait(10))
                stop = threading.Thread(target=service.listeners["http"].stop, args=(60,))
                stop.start()
                stopping.set()
                self.assertEqual(read_answer(wire).body, b"v")
                stop.join(10)
            self.assertFalse(stop.is_alive())

    def test_a_client_can_be_ended_by_another(self) -> None:
        with self.serving() as service, self.wire() as wire:
            wire.socket.sendall(b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n")
            read_answer(wire)
            (session,) = service.instance.sessions()
            with Wire(service.server.port) as killer:
                killer.ask(b"CLIENT KILL ID %d\r\n" % session.id, 4)
            self.assertEqual(wire.read_to_end(), b"")

    def test_a_silent_client_is_ended(self) -> None:
        with self.serving(idle_timeout=0.001) as service, self.wire() as wire:
            wire.socket.sendall(b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n")
            read_answer(wire)
            service.instance.housekeeping()
            self.assertEqual(wire.read_to_end(), b"")


class HeadersTest(HttpServerTest):
    def test_every_response_carries_them(self) -> None:
        with self.serving():
            self.store.set(b"<script>", b"<script>alert(1)</script>")
            for method, target, status, kind in (
                ("GET", "/", 200, "text/html; charset=utf-8"),
                ("GET", "/static/style.css", 200, "text/css; charset=utf-8"),
                ("GET", "/get?key=%3Cscript%3E", 200, "text/plain; charset=utf-8"),
                ("GET", "/keys/%3Cscript%3E", 200, "application/octet-stream"),
                ("GET", "/keys", 200, "application/json"),
                ("GET", "/metrics", 200, "text/plain; version=0.0.4; charset=utf-8"),
                ("GET", "/healthz", 200, "application/json"),
                ("GET", "/<script>", 500, "text/plain; charset=utf-8"),
                ("GET", "/keys?cursor=<script>", 400, "text/plain; charset=utf-8"),
                ("DELETE", "/keys/none", 404, "text/plain; charset=utf-8"),
                ("POST", "/", 405, "text/plain; charset=utf-8"),
                ("<SCRIPT>", "/", 501, "text/plain; charset=utf-8"),
            ):
                with self.subTest(target, method=method):
                    response = self.ask(target, method)
                    self.assertEqual(response.status, status)
                    self.assertEqual(response.headers["Content-Type"], kind)
                    self.assert_secure(dict(response.headers))
                    self.assertNotIn("Python", response.headers["Server"])

    def test_no_stored_byte_and_no_request_gets_into_the_headers(self) -> None:
        with self.serving():
            self.store.set(b"a\r\nSet-Cookie: x=y", b"v")
            for target in ("/keys/a%0d%0aSet-Cookie:%20x=y", "/x%0d%0aSet-Cookie:%20x=y"):
                self.assertNotIn("Set-Cookie", self.ask(target).headers)
            response = self.ask("/", headers={"Host": "evil\xff<script>"})
            self.assertEqual(response.status, 403)


class BugTest(unittest.TestCase):
    def test_a_bug_is_answered_with_500_logged_and_survived(self) -> None:
        with running_server(http_port=0) as service, Wire(service.listeners["http"].port) as wire:
            request = b"GET /get?key=secret HTTP/1.1\r\nHost: localhost\r\n\r\n"
            with (
                mock.patch.object(service.store, "get", side_effect=ZeroDivisionError),
                self.assertLogs("kvdb", logging.ERROR) as logged,
            ):
                wire.socket.sendall(request)
                answer = read_answer(wire)
            self.assertEqual((answer.status, answer.body), (500, b"internal error\n"))
            self.assertNotIn("secret", logged.output[0])
            wire.socket.sendall(request)
            self.assertEqual(read_answer(wire).status, 404)


if __name__ == "__main__":
    unittest.main()
