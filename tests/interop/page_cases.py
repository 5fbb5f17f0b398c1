"""The page at / in a real browser: what its scripts do with a mouse, with keys, on a telephone."""

from __future__ import annotations

import contextlib
import json
import socket
import unittest

from tests.interop.page_browser import Page, open_browser
from tests.interop.servers import running_kvdb

HOSTILE = "<img src=x onerror=\"document.title='owned'\">"

ROWS = "[...document.querySelectorAll('.row button')]"
NAMES = f"{ROWS}.map(row => row.textContent).sort()"
VALUE = "document.querySelector('.value pre')?.textContent"
STATUS = "(document.querySelector('.pages [role=status]')?.textContent ?? '')"


def _free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as probe:
        return int(probe.getsockname()[1])


class PageCases(unittest.TestCase):
    """Each on a server and in a browser of its own; at the end nothing may have gone wrong in it."""

    def setUp(self) -> None:
        port = _free_port()
        self.base = f"http://localhost:{port}/"
        self.flags = ("--in-memory", "--http-port", str(port))
        self.server = self.enterContext(contextlib.ExitStack())
        self.address = self.server.enter_context(running_kvdb(*self.flags))
        self.page: Page = self.enterContext(open_browser())

    def write(self, *requests: list[str]) -> None:
        """Carry out commands on the main port."""
        with self.address.connect() as connection, connection.makefile("rb") as lines:
            for name, *arguments in requests:
                line = json.dumps({"command": name, "args": arguments}) + "\n"
                connection.sendall(line.encode())
                self.assertIn(b"OK", lines.readline().upper())

    def open(self, query: str = "") -> None:
        self.page.open(self.base + query)
        self.page.wait_for(f"{STATUS}.includes('on page')")

    def assert_well(self) -> None:
        """Nothing has gone wrong, and nothing was asked for elsewhere."""
        self.assertEqual(self.page.errors, [])
        foreign = [url for url in self.page.requested if not url.startswith(self.base)]
        self.assertEqual(foreign, [])

    def test_a_value_is_fetched_when_it_is_toggled_open_by_mouse_or_keyboard(self) -> None:
        self.write(["SET", "user:1", '{"name": "Ada"}'])
        self.open()
        self.assertFalse([url for url in self.page.requested if "/api/value" in url])
        self.assertEqual(self.page.ask(f"{ROWS}[0].getAttribute('aria-expanded')"), "false")
        self.page.click(".row button")
        self.assertEqual(self.page.wait_for(VALUE), '{\n  "name": "Ada"\n}')
        self.assertEqual(self.page.ask(f"{ROWS}[0].getAttribute('aria-expanded')"), "true")
        self.page.click(".row button")
        self.page.wait_for("!document.querySelector('.value pre')")
        self.page.press("Enter", "\r")  # the button has the focus
        self.page.wait_for(VALUE)
        self.page.press(" ", " ")
        self.page.wait_for("!document.querySelector('.value pre')")
        self.assert_well()

    def test_a_search_takes_a_prefix_or_a_glob(self) -> None:
        self.write(*(["SET", name, "v"] for name in ("user:1", "user:2", "last:user", "x")))
        self.open()
        self.page.press("/", "/")
        self.assertEqual(self.page.ask("document.activeElement.id"), "search")
        for text, found in (
            ("user", ["user:1", "user:2"]),
            ("*user", ["last:user"]),
            ("*:*", ["last:user", "user:1", "user:2"]),
            ("nothing", []),
        ):
            self.page.ask("document.activeElement.select()")
            self.page.type(text)
            self.page.wait_for(
                f"JSON.stringify({NAMES}) === {json.dumps(json.dumps(found, separators=(',', ':')))}"
            )
        self.open("?search=user")
        self.assertEqual(self.page.ask(NAMES), ["user:1", "user:2"])
        self.assert_well()

    def test_keys_come_page_by_page_forwards_and_back(self) -> None:
        self.write(*(["SET", f"k{n:03}", "v"] for n in range(120)))
        self.open()
        first = self.page.ask(NAMES)
        pages = [first]
        for number in (2, 3):
            self.page.click(".pages button:last-child")
            self.page.wait_for(f"{STATUS}.includes('page {number};')")
            pages.append(self.page.ask(NAMES))
        self.assertEqual(
            sorted(name for page in pages for name in page), [f"k{n:03}" for n in range(120)]
        )
        self.assertTrue(
            self.page.ask("document.querySelector('.pages button:last-child').disabled")
        )
        for number in (2, 1):
            self.page.click(".pages button")
            self.page.wait_for(f"{STATUS}.includes('page {number};')")
        self.assertEqual(self.page.ask(NAMES), first)
        self.assert_well()

    def test_without_scripts_the_keys_can_be_toggled_open_and_searched(self) -> None:
        self.write(["SET", HOSTILE, HOSTILE], ["SET", "user:1", "Ada"])
        self.page.call("Emulation.setScriptExecutionDisabled", value=True)
        self.page.open(self.base)
        self.assertEqual(
            self.page.ask("document.querySelectorAll('details:not([open])').length"), 2
        )
        self.assertIn("Everything is fine", self.page.ask("document.body.innerText"))
        self.assertEqual(self.page.ask("document.querySelectorAll('main img').length"), 0)
        self.page.click("#search")
        self.page.type("user")
        self.page.press("Enter", "\r")
        self.page.wait_for("document.querySelectorAll('details').length === 1")
        self.page.click("summary")
        self.page.wait_for("document.querySelector('details[open] pre').innerText === 'Ada'")
        self.assertFalse([url for url in self.page.requested if "/api/" in url or ".js" in url])
        self.assert_well()

    def test_hostile_keys_and_values_stay_text(self) -> None:
        self.write(["SET", HOSTILE, HOSTILE])
        self.open()
        self.assertEqual(self.page.ask(NAMES), [HOSTILE])
        self.page.click(".row button")
        self.assertEqual(self.page.wait_for(VALUE), HOSTILE)
        self.assertEqual(self.page.ask("document.querySelectorAll('main img').length"), 0)
        self.assertEqual(self.page.ask("document.title"), "kvdb")
        self.assert_well()

    def test_a_long_value_is_cut_and_the_whole_is_a_click_away(self) -> None:
        self.write(["SET", "long", "x" * 30_000])
        self.open()
        self.page.click(".row button")
        self.assertEqual(len(self.page.wait_for(VALUE)), 10_000)
        self.page.click(".value p button")
        self.page.wait_for(f"{VALUE}.length === 30000")
        self.assert_well()

    def test_figures_and_charts_move_until_they_are_told_not_to(self) -> None:
        self.open()
        keys = "document.querySelector('#tile-keys strong').textContent"
        self.write(["SET", "a", "1"], ["SET", "b", "1"])
        self.page.wait_for(f"{keys} === '2'")
        self.page.wait_for("document.querySelectorAll('kv-chart polyline').length >= 9")
        self.page.click("#automatic")
        self.page.wait_for("document.querySelector('#refresh').textContent.includes('Paused')")
        self.page.wait_for("new Promise(done => setTimeout(done, 1500)) && true")
        asked = len(self.page.requested)
        self.write(["SET", "c", "1"])
        deadline = self.page.ask("performance.now() + 2500")
        self.page.wait_for(f"performance.now() > {deadline}")
        self.assertEqual((self.page.ask(keys), len(self.page.requested)), ("2", asked))
        self.page.click("#automatic")
        self.page.wait_for(f"{keys} === '3'")
        self.assert_well()

    def test_nothing_is_asked_for_while_nobody_can_see_the_page(self) -> None:
        self.open()
        for hidden in ("true", "false"):
            self.page.ask(
                f"Object.defineProperty(document, 'hidden', {{value: {hidden}, configurable: true}});"
                "document.dispatchEvent(new Event('visibilitychange'))"
            )
            asked = len(self.page.requested)
            later = self.page.ask("performance.now() + 2500")
            self.page.wait_for(f"performance.now() > {later}")
            # One answer may have been on its way.
            self.assertEqual(len(self.page.requested) - asked > 1, hidden == "false")
        self.assert_well()

    def test_it_finds_a_server_again_that_was_restarted(self) -> None:
        verdict = "document.querySelector('#verdict').textContent"
        self.open()
        self.server.close()
        self.page.wait_for(f"{verdict}.includes('No answer')")
        with running_kvdb(*self.flags):
            self.page.wait_for(f"{verdict} === 'Everything is fine'")

    def test_a_telephone_needs_no_scrolling_sideways(self) -> None:
        self.write(["SET", "k" * 300, "v" * 300], ["SET", "short", "v"])
        self.page.resize(390, 844, mobile=True)
        self.open()
        self.page.ask(f"{ROWS}.forEach(row => row.click())")
        self.page.wait_for("document.querySelectorAll('.value pre').length === 2")
        self.assertLessEqual(self.page.ask("document.documentElement.scrollWidth"), 390)
        self.assert_well()
