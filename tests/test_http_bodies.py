"""The HTTP port: bodies in chunks, links from other sites, databases."""

from __future__ import annotations

import json
import re

from kvdb.config import MB
from kvdb.store.entry import key_in
from tests.support import Wire, until
from tests.test_http_server import HttpServerTest, read_answer

HEAD = b"PUT /keys/k HTTP/1.1\r\nHost: localhost\r\n"
CHUNKED = HEAD + b"Transfer-Encoding: chunked\r\n\r\n"
NEXT = b"GET /keys/k HTTP/1.1\r\nHost: localhost\r\n\r\n"


def chunk(data: bytes, extensions: bytes = b"") -> bytes:
    return b"%x%b\r\n%b\r\n" % (len(data), extensions, data)


class ChunkedBodyTest(HttpServerTest):
    """A client that does not know the length of a value sends it in chunks."""

    def check_stored(self, wire: Wire, body: bytes, value: bytes) -> None:
        """Send a body and the next request behind it; the value must be there."""
        wire.socket.sendall(CHUNKED + body + NEXT)
        with self.subTest(body=body[:60]):
            self.assertIn(read_answer(wire).status, (201, 204))
            answer = read_answer(wire)
            self.assertEqual((answer.status, answer.body), (200, value))

    def check_refused(self, data: bytes, status: int) -> None:
        """Send a request and another one: the first is refused, the other one not looked at."""
        smuggled = b"PUT /keys/smuggled HTTP/1.1\r\nHost: localhost\r\nContent-Length: 0\r\n\r\n"
        with self.subTest(data=data[-60:]):
            self.assertEqual(self.status_of(data + smuggled), status)
            self.assertEqual(self.store.size(), 0)

    def test_several_chunks_make_one_value_and_the_connection_stays(self) -> None:
        with self.serving(), self.wire() as wire:
            self.check_stored(wire, chunk(b"hello") + b"0\r\n\r\n", b"hello")
            pieces = [b"abc", b"\r\n0\r\n\r\n", b"x" * 300, bytes(range(256)), b"y"]
            body = b"".join(map(chunk, pieces)) + b"0\r\n\r\n"
            self.check_stored(wire, body, b"".join(pieces))
            long = b"z" * 200_000
            self.check_stored(wire, chunk(long) + chunk(long) + b"0\r\n\r\n", 2 * long)

    def test_lengths_are_hexadecimal_in_any_case(self) -> None:
        with self.serving(), self.wire() as wire:
            for digits in (b"a", b"A", b"0a", b"00000000000A"):
                self.check_stored(wire, digits + b"\r\n0123456789\r\n0\r\n\r\n", b"0123456789")
            self.check_stored(wire, b"1F\r\n" + b"v" * 31 + b"\r\n000\r\n\r\n", b"v" * 31)

    def test_extensions_and_trailers_are_read_over(self) -> None:
        with self.serving(), self.wire() as wire:
            body = chunk(b"a", b";name=value") + chunk(b"b", b' ; q="x y"') + b"0;last\r\n\r\n"
            self.check_stored(wire, body, b"ab")
            trailers = b"0\r\nExpires: never\r\nContent-Length: 99\r\n\r\n"
            self.check_stored(wire, chunk(b"c") + trailers, b"c")

    def test_a_body_may_be_empty(self) -> None:
        with self.serving(), self.wire() as wire:
            self.check_stored(wire, b"0\r\n\r\n", b"")

    def test_the_coding_is_known_in_any_case(self) -> None:
        with self.serving(), self.wire() as wire:
            head = HEAD + b"transfer-encoding:   Chunked \r\n\r\n"
            wire.socket.sendall(head + chunk(b"v") + b"0\r\n\r\n" + NEXT)
            self.assertEqual(read_answer(wire).status, 201)
            self.assertEqual(read_answer(wire).body, b"v")

    def test_bytes_may_come_one_by_one(self) -> None:
        with self.serving(), self.wire() as wire:
            body = chunk(b"hello", b";x") + chunk(b"world") + b"0\r\nA: b\r\n\r\n"
            for byte in CHUNKED + body + NEXT:
                wire.socket.sendall(bytes([byte]))
            self.assertEqual(read_answer(wire).status, 201)
            self.assertEqual(read_answer(wire).body, b"helloworld")

    def test_a_client_that_waits_for_100_continue_gets_it(self) -> None:
        with self.serving(), self.wire() as wire:
            wire.socket.sendall(CHUNKED[:-2] + b"Expect: 100-continue\r\n\r\n")
            self.assertEqual(read_answer(wire).status, 100)
            wire.socket.sendall(chunk(b"v") + b"0\r\n\r\n")
            self.assertEqual(read_answer(wire).status, 201)

    def test_the_body_of_a_refused_request_ends_the_connection(self) -> None:
        with self.serving(password="secret"):
            self.check_refused(CHUNKED + chunk(b"v") + b"0\r\n\r\n", 401)

    def test_what_is_larger_than_a_value_may_be_is_413_as_soon_as_it_is_known(self) -> None:
        with self.serving(max_value_bytes=100), self.wire() as wire:
            self.check_stored(wire, chunk(b"x" * 60) + chunk(b"y" * 40) + b"0\r\n\r\n",
                              b"x" * 60 + b"y" * 40)  # fmt: skip
            self.store.flush()
            for body in (b"65\r\n", chunk(b"x" * 60) + b"29\r\n", b"ffffffffffff\r\n"):
                self.check_refused(CHUNKED + body, 413)

    def test_a_bad_chunk_is_400(self) -> None:
        with self.serving():
            for body in (
                b"\r\n", b"x\r\n", b"-1\r\n", b"+1\r\na\r\n", b"0x1\r\na\r\n", b" 1\r\na\r\n",
                b"1\na\r\n0\r\n\r\n",  # a line end that others might not take for one
                b"1;a\rb\r\na\r\n0\r\n\r\n", b"1 2\r\na\r\n", b"1_0\r\n", b"fffffffffffff\r\n",
                b"1\r\nab\r\n0\r\n\r\n",  # longer than it says
                b"2\r\na\r\n0\r\n\r\n",  # shorter
                b"1\r\na\n\n0\r\n\r\n",
                b"1;" + b"e" * 2000 + b"\r\na\r\n0\r\n\r\n",
                b"0\r\nTrailer: x\n\r\n", b"0\r\n" + b"T" * 2000 + b"\r\n\r\n",
            ):  # fmt: skip
                self.check_refused(CHUNKED + body, 400)

    def test_a_body_that_was_cut_short_is_not_stored(self) -> None:
        with self.serving():
            whole = chunk(b"hello") + b"0\r\nTrailer: x\r\n\r\n"
            for end in range(len(whole)):
                with self.wire() as wire:
                    wire.socket.sendall(CHUNKED + whole[:end])
                    wire.socket.shutdown(1)
                    self.assertEqual(read_answer(wire).status, 400, whole[:end])
                    self.assertEqual(wire.read_to_end(), b"")
            self.assertEqual(self.store.size(), 0)

    def test_two_ways_to_tell_a_bodys_end_are_400(self) -> None:
        with self.serving():
            chunked, length = b"Transfer-Encoding: chunked\r\n", b"Content-Length: 1\r\n"
            body = b"\r\n" + chunk(b"v") + b"0\r\n\r\n"
            for headers in (chunked + length, length + chunked):
                self.check_refused(HEAD + headers + body, 400)
            old = HEAD.replace(b"HTTP/1.1", b"HTTP/1.0")
            self.check_refused(old + chunked + body, 400)

    def test_any_other_coding_is_501(self) -> None:
        with self.serving():
            for coding in (b"gzip", b"gzip, chunked", b"chunked, chunked", b"identity", b"",
                           b"chunked\r\nTransfer-Encoding: chunked", b"xchunked"):  # fmt: skip
                head = HEAD + b"Transfer-Encoding: " + coding + b"\r\n\r\n"
                self.check_refused(head + chunk(b"v") + b"0\r\n\r\n", 501)

    def test_trailers_together_are_limited(self) -> None:
        with self.serving():
            trailers = b"".join(b"T%d: %b\r\n" % (n, b"v" * 500) for n in range(40))
            self.check_refused(CHUNKED + chunk(b"v") + b"0\r\n" + trailers + b"\r\n", 431)

    def test_a_body_under_way_is_on_its_clients_account_until_it_is_whole(self) -> None:
        with self.serving() as service, self.wire() as wire:
            accounts = service.instance.accounts
            # One long chunk, and many short ones: each way the bytes are held here meanwhile.
            wire.socket.sendall(CHUNKED + b"493e0\r\n" + b"x" * 200_000)
            until(lambda: accounts.held >= 200_000)
            wire.socket.sendall(b"x" * 100_000 + b"\r\n0\r\n\r\n")
            self.assertEqual(read_answer(wire).status, 201)
            self.assertEqual(accounts.held, 0)
            wire.socket.sendall(CHUNKED + 1000 * chunk(b"x" * 1000))
            until(lambda: accounts.held >= MB // 2)
            wire.socket.sendall(b"0\r\n\r\n")
            self.assertEqual(read_answer(wire).status, 204)
            self.assertEqual(accounts.held, 0)


LINK = {"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "navigate", "Sec-Fetch-Dest": "document"}


class LinksTest(HttpServerTest):
    """Somebody follows a link to us on another site: a person may, a page may not."""

    def test_a_link_opens_what_only_reads(self) -> None:
        with self.serving():
            self.store.set(b"k", b"v")
            for site in ("cross-site", "same-site"):
                for target in ("/", "/?db=1", "/keys/k", "/get?key=k", "/keys", "/metrics"):
                    with self.subTest(site, target=target):
                        response = self.ask(target, headers={**LINK, "Sec-Fetch-Site": site})
                        self.assertEqual(response.status, 200)
                        self.assert_secure(dict(response.headers))
            upper = {name: value.upper() for name, value in LINK.items()}
            self.assertEqual(self.ask("/", headers=upper).status, 200)

    def test_a_link_writes_nothing(self) -> None:
        with self.serving():
            self.store.set(b"k", b"v")
            for method, target in (
                ("GET", "/set?evil=1"), ("PUT", "/keys/evil"), ("POST", "/keys/evil"),
                ("DELETE", "/keys/k"), ("HEAD", "/"), ("OPTIONS", "/keys/k"),
                ("GET", "http://localhost/set?evil=1"),
            ):  # fmt: skip
                with self.subTest(method, target=target):
                    self.assertEqual(self.ask(target, method, headers=LINK).status, 403)
            self.assertEqual(self.store.keys(), [b"k"])

    def test_what_a_page_asks_for_is_no_link(self) -> None:
        with self.serving():
            for change in (
                {"Sec-Fetch-Mode": "no-cors"}, {"Sec-Fetch-Mode": "cors"}, {"Sec-Fetch-Mode": ""},
                {"Sec-Fetch-Dest": "iframe"}, {"Sec-Fetch-Dest": "image"}, {"Sec-Fetch-Dest": ""},
                {"Origin": "http://evil.example"}, {"Host": "evil.example"},
            ):  # fmt: skip
                with self.subTest(change):
                    self.assertEqual(self.ask("/", headers={**LINK, **change}).status, 403)
            for missing in LINK:
                rest = {name: value for name, value in LINK.items() if name != missing}
                status = 200 if missing == "Sec-Fetch-Site" else 403
                self.assertEqual(self.ask("/", headers=rest).status, status, missing)

    def test_monitors_may_call_us_by_any_name(self) -> None:
        with self.serving():
            for target in ("/metrics", "/healthz"):
                for host in ("kvdb.monitoring.svc:8000", "evil.example", ""):
                    response = self.ask(target, headers={"Host": host})
                    self.assertEqual(response.status, 200, (target, host))
                evil = {"Origin": "http://evil.example"}
                self.assertEqual(self.ask(target, headers=evil).status, 403)
                self.assertEqual(
                    self.ask(target, headers={"Sec-Fetch-Site": "cross-site"}).status, 403
                )
            for target in ("/", "/keys", "/metrics/", "/healthz2", "/static/style.css"):
                self.assertEqual(self.ask(target, headers={"Host": "a.example"}).status, 403)

    def test_a_header_that_decides_comes_once(self) -> None:
        with self.serving():
            own = b"Origin: http://localhost\r\n"
            site = b"Sec-Fetch-Site: none\r\n"
            for twice in (own + own, own + b"Origin: http://evil.example\r\n", site + site,
                          site + b"Sec-Fetch-Site: cross-site\r\n"):  # fmt: skip
                request = b"GET /set?a=b HTTP/1.1\r\nHost: localhost\r\n" + twice + b"\r\n"
                self.assertEqual(self.status_of(request), 400, twice)
            self.assertEqual(self.store.size(), 0)

    def test_a_bare_cr_in_a_header_is_400(self) -> None:
        with self.serving():
            for header in (
                b"X: a\rOrigin: http://evil.example\r\n", b"X: a\r\r\n", b"\rX: a\r\n",
                b"X: a\rTransfer-Encoding: chunked\r\nContent-Length: 0\r\n", b"X\r: a\r\n",
            ):  # fmt: skip
                for request in (b"GET /set?a=b", b"GET /"):
                    head = request + b" HTTP/1.1\r\nHost: localhost\r\n"
                    with self.subTest(header=header, request=request):
                        self.assertEqual(self.status_of(head + header + b"\r\n"), 400)
            self.assertEqual(self.store.size(), 0)

    def test_what_browsers_ask_for_by_themselves_is_404_and_the_rest_500(self) -> None:
        with self.serving():
            for target in ("/favicon.ico", "/robots.txt", "/apple-touch-icon.png"):
                self.assertEqual(self.ask(target).status, 404)
            for target in ("/malformed", "/favicon", "/favicon.ico/", "/set", "/get?k=v"):
                self.assertEqual(self.ask(target).status, 500, target)


class DatabasesTest(HttpServerTest):
    """`?db=` names the database, on every path that can show more than the first."""

    def test_a_key_is_written_read_and_deleted_in_its_database(self) -> None:
        with self.serving():
            self.assertEqual(self.ask("/keys/k", "PUT", b"zero").status, 201)
            self.assertEqual(self.ask("/keys/k?db=15&ttl=100", "PUT", b"last").status, 201)
            self.assertEqual(self.ask("/keys/k?db=15", "PUT", b"last").status, 204)
            self.assertEqual(self.store.get(b"k"), b"zero")
            self.assertEqual(self.store.get(key_in(15, b"k")), b"last")
            for target, value in (("/keys/k?db=0", b"zero"), ("/keys/k?db=15", b"last"),
                                  ("/keys/k?db=00", b"zero"), ("/get?key=k", b"zero")):  # fmt: skip
                self.assertEqual(self.ask(target).content, value, target)
            self.assertEqual(self.ask("/keys/k?db=1").status, 404)
            self.assertEqual(self.ask("/keys/k?db=1", "DELETE").status, 404)
            self.assertEqual(self.ask("/keys/k?db=15", "HEAD").headers["Content-Length"], "4")
            self.assertEqual(self.ask("/keys/k?db=15", "DELETE").status, 204)
            self.assertEqual(self.ask("/keys/k?db=15").status, 404)
            self.assertEqual(self.ask("/keys/k").content, b"zero")

    def test_keys_are_listed_by_database(self) -> None:
        with self.serving():
            self.store.set(b"a", b"")
            for n in range(25):
                self.store.set(key_in(2, b"b%d" % n), b"")
            self.assertEqual(json.loads(self.ask("/keys").content)["keys"], ["a"])
            names, cursor = [], "0"
            while cursor != "0" or not names:
                listed = json.loads(self.ask(f"/keys?db=2&count=10&cursor={cursor}").content)
                names += listed["keys"]
                cursor = listed["cursor"]
            self.assertEqual(sorted(names), sorted(f"b{n}" for n in range(25)))
            listed = json.loads(self.ask("/keys?db=2&prefix=b2").content)
            self.assertEqual(len(listed["keys"]), 6)
            self.assertEqual(json.loads(self.ask("/keys?db=3").content)["keys"], [])

    def test_the_page_shows_a_database_and_leads_to_the_others(self) -> None:
        with self.serving():
            self.store.set(b"only-here", b"")
            first = self.ask("/").content.decode()
            self.assertNotIn("Database", first)
            for n in range(3):
                self.store.set(key_in(7, b"seven%d" % n), b"")
            first, seventh = (self.ask(f"/?db={db}").content.decode() for db in (0, 7))
            self.assertIn("only-here", first)
            self.assertNotIn("seven", first)
            self.assertIn('<a href="/?db=7">', first)
            self.assertIn("<p>1 key,", first)
            self.assertIn("seven0", seventh)
            self.assertNotIn("only-here", seventh)
            self.assertIn("<p>3 keys,", seventh)
            self.assertIn('<a href="/?db=0">', seventh)
            self.assertIn('<input type="hidden" name="db" value="7">', seventh)
            empty = self.ask("/?db=3").content.decode()
            self.assertIn("No keys.", empty)
            self.assertIn('<a href="/?db=0">', empty)

    def test_the_next_page_is_of_the_same_database(self) -> None:
        with self.serving():
            for n in range(5):
                self.store.set(key_in(7, b"seven%d" % n), b"")
            shown, target = 0, "/?db=7&count=2"
            for _ in range(10):
                page = self.ask(target).content.decode()
                shown += page.count("<details>")
                more = re.search(r'<a href="([^"]*)">More keys', page)
                if more is None:
                    break
                target = more[1].replace("&amp;", "&")
            self.assertEqual(shown, 5)

    def test_a_database_that_is_none_is_400(self) -> None:
        with self.serving():
            for text in ("16", "-1", "x", "100", "", "1.0", "%D9%A3", "+1", "0x1", "%201"):
                for method, path in (
                    ("GET", "/"), ("GET", "/keys"), ("GET", "/keys/k"), ("PUT", "/keys/k"),
                    ("DELETE", "/keys/k"),
                ):  # fmt: skip
                    with self.subTest(f"{method} {path}", db=text):
                        response = self.ask(f"{path}?db={text}", method)
                        self.assertEqual(response.status, 400)
                        self.assertIn(b"db must be a number from 0 to 15", response.content)
            self.assertEqual(self.store.sizes(), {})
