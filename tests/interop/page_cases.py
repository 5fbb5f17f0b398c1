"""The page at / in a real browser: what its scripts do with a mouse, with keys, on a telephone."""

from __future__ import annotations

import contextlib
import json
import os
import socket
import unittest
from pathlib import Path

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


class _OnePage(unittest.TestCase):
    """Each on a server and in a browser of its own; at the end nothing may have gone wrong in it."""

    more_flags: tuple[str, ...] = ()

    def setUp(self) -> None:
        port = _free_port()
        self.base = f"http://localhost:{port}/"
        self.flags = ("--in-memory", "--http-port", str(port), *self.more_flags)
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


class PageCases(_OnePage):
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
        self.page.wait_for("document.querySelector('#refresh')?.textContent.includes('Paused')")
        self.pass_time(1500)
        asked = len(self.page.requested)
        self.write(["SET", "c", "1"])
        self.pass_time(2500)
        self.assertEqual((self.page.ask(keys), len(self.page.requested)), ("2", asked))
        self.page.click("#automatic")
        self.page.wait_for(f"{keys} === '3'")
        self.assert_well()

    def test_nothing_is_asked_for_while_nobody_can_see_the_page(self) -> None:
        keys = "document.querySelector('#tile-keys strong').textContent"
        self.open()
        self.page.wait_for(f"{keys} === '0'")
        self.hide(True)
        self.write(["SET", "a", "1"])
        self.pass_time(300)
        asked = len(self.page.requested)
        self.pass_time(2500)
        self.assertEqual((self.page.ask(keys), len(self.page.requested)), ("0", asked))
        self.hide(False)
        self.page.wait_for(f"{keys} === '1'")
        self.assert_well()

    def hide(self, hidden: bool) -> None:
        """Have the page believe that its tab is hidden, or is not."""
        self.page.ask(
            f"Object.defineProperty(document, 'hidden', {{value: {json.dumps(hidden)}, "
            "configurable: true}); document.dispatchEvent(new Event('visibilitychange'))"
        )

    def pass_time(self, milliseconds: int) -> None:
        later = self.page.ask(f"performance.now() + {milliseconds}")
        self.page.wait_for(f"performance.now() > {later}")

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

    def test_keys_are_a_tree_if_asked_for(self) -> None:
        self.write(*(["SET", f"user:{n}:name", "v"] for n in range(3)), ["SET", "user:0:age", "v"])
        self.write(["SET", "alone:a:b", "v"], ["SET", "plain", "v"])
        self.open()
        self.page.click("#search-form + .bar .choice button:last-child")
        self.page.wait_for(f"{ROWS}.length === 3")
        self.assertEqual(
            self.page.ask(f"{ROWS}.map(row => row.textContent)"), ["user:", "alone:a:b", "plain"]
        )
        self.page.ask(f"{ROWS}[0].click()")
        self.assertEqual(
            self.page.ask(f"{ROWS}.map(row => row.textContent).slice(0, 4)"),
            ["user:", "0:", "user:1:name", "user:2:name"],
        )
        self.page.ask(f"{ROWS}[1].click()")
        self.page.ask(f"{ROWS}.find(row => row.textContent === 'user:0:age').click()")
        self.page.wait_for(f"{VALUE} === 'v'")
        self.assert_well()

    def test_json_is_shown_as_it_is_stored_but_for_white_space(self) -> None:
        stored = '{"id": 12345678901234567890, "f": 1.0, "a": [], "a": {"x": "y, {"}}'
        self.write(["SET", "k", stored])
        self.open()
        self.page.click(".row button")
        self.page.wait_for(f"{VALUE}?.length > 0")
        shown = self.page.ask(VALUE)
        self.assertEqual(shown.splitlines()[1:3], ['  "id": 12345678901234567890,', '  "f": 1.0,'])
        self.assertEqual(shown.replace("\n", "").replace(" ", ""), stored.replace(" ", ""))

    def test_panels_tell_of_the_disk_of_clients_and_of_slow_requests(self) -> None:
        self.write(["CONFIG", "SET", "slowlog-log-slower-than", "0"], ["SET", HOSTILE, "v"])
        self.open()
        self.page.ask(
            "document.querySelectorAll('.panel').forEach(panel => { panel.open = true; })"
        )
        texts = "[...document.querySelectorAll('.panel-body')].map(body => body.textContent)"
        self.page.wait_for(f"{texts}.every(text => text.length > 20)")
        disk, clients, slow = self.page.ask(texts)
        self.assertIn("Nothing is kept on disk", disk)
        self.assertRegex(clients, r"127\.0\.0\.1:\d+.*http")
        self.assertIn(HOSTILE, slow)
        self.assertEqual(self.page.ask("document.querySelectorAll('img').length"), 0)
        self.assert_well()

    def test_nothing_can_be_changed_unless_the_server_allows_it(self) -> None:
        self.write(["SET", "k", "v"])
        self.open()
        self.page.click(".row button")
        self.page.wait_for(f"{VALUE} === 'v'")
        self.assertEqual(self.page.ask("document.querySelectorAll('.edit, .row input').length"), 0)

    def test_a_hundred_thousand_keys_are_no_strain(self) -> None:
        with self.address.connect() as connection:
            for start in range(0, 100_000, 1000):
                numbers = range(start, start + 1000)
                connection.sendall(b"".join(b"SET key:%d v\r\n" % number for number in numbers))
                received = b""
                while received.count(b"\n") < 1000:
                    received += connection.recv(65536)
        self.open()  # once, so that what follows is not the time that the browser needs to start
        self.page.open("about:blank#")
        self.open()
        shown = self.page.ask("performance.now()")
        self.assertLess(shown, 2000)
        self.page.wait_for("document.querySelector('#tile-keys strong').textContent === '100,000'")
        self.page.click("#search")
        self.page.type("*9999")
        self.page.wait_for(f"{ROWS}.length === 10")
        self.assert_well()

    def test_axe_finds_nothing_serious(self) -> None:
        """Deque's checker of what people need who do not see, or do not use a mouse."""
        found = [
            Path(each, "axe-core/axe.min.js")
            for each in os.environ.get("NODE_PATH", "").split(os.pathsep)
        ]
        (script,) = [path for path in found if path.exists()][:1] or self.skipTest(
            "no axe-core in NODE_PATH"
        )
        self.write(
            ["SET", "user:1", '{"a": 1}'], ["SET", "user:2", "v"], ["EXPIRE", "user:2", "100"]
        )
        for scheme in ("light", "dark"):
            self.page.prefer(scheme)
            self.open()
            self.page.click(".row button")
            self.page.wait_for(f"{VALUE}.length > 0")
            self.page.ask(
                "document.querySelectorAll('.panel').forEach(panel => { panel.open = true; })"
            )
            self.page.wait_for("document.querySelectorAll('.panel table').length >= 1")
            self.page.ask(script.read_text(encoding="utf-8") + ";0")
            self.page.ask("axe.run().then(done => { globalThis.violations = done.violations; }); 0")
            self.page.wait_for("globalThis.violations !== undefined")
            serious = self.page.ask(
                "violations.map(each => `${each.impact} ${each.id}: ${each.nodes.map(n => n.html).join()}`)"
            )
            self.assertEqual(serious, [], scheme)


class WritablePageCases(_OnePage):
    """--http-writable: keys can be changed."""

    more_flags = ("--http-writable",)

    def press_button(self, text: str) -> None:
        """Click the last button that says this."""
        self.page.wait_for(
            f"!!(globalThis.found = [...document.querySelectorAll('button')].filter(each => "
            f"each.textContent === {json.dumps(text)}).at(-1))"
        )
        self.page.ask("found.click()")

    def ask_server(self, *words: str) -> object:
        with self.address.connect() as connection, connection.makefile("rb") as lines:
            line = json.dumps({"command": words[0], "args": words[1:]}) + "\n"
            connection.sendall(line.encode())
            return json.loads(lines.readline())["result"]

    def test_a_value_is_changed_and_keeps_its_ttl(self) -> None:
        self.write(["SET", "k", "before", "EX", "1000"])
        self.open()
        self.page.click(".row button")
        self.press_button("Edit")
        self.page.ask("document.querySelector('textarea').value = 'after é'; 0")
        self.press_button("Save")
        self.page.wait_for(f"{VALUE} === 'after é'")
        self.page.wait_for("document.querySelector('.edit small').textContent === 'Saved'")
        self.assertEqual(self.ask_server("GET", "k"), "after é")
        self.assertGreater(self.ask_server("TTL", "k"), 900)
        self.assert_well()

    def test_what_somebody_else_has_changed_meanwhile_is_not_overwritten(self) -> None:
        self.write(["SET", "k", "before"])
        self.open()
        self.page.click(".row button")
        self.press_button("Edit")
        self.write(["SET", "k", "theirs"])
        self.press_button("Save")
        self.page.wait_for(
            "document.querySelector('.value')?.textContent.includes('Somebody else')"
        )
        self.assertEqual(self.ask_server("GET", "k"), "theirs")

    def test_a_key_that_looks_like_a_path_is_deleted_and_no_other(self) -> None:
        self.write(["SET", ".", "dot"], ["SET", "", "empty"], ["SET", "..", "dots"])
        self.open()
        box = "document.querySelector('input[aria-label=\"Select .\"]').click()"
        self.page.ask(box)
        self.press_button("Delete 1 selected…")
        self.press_button("Delete")
        self.page.wait_for(f"{ROWS}.length === 2")
        self.assertEqual(self.ask_server("MGET", ".", "", ".."), [None, "empty", "dots"])
        self.assert_well()

    def test_what_somebody_has_changed_since_it_was_selected_is_not_deleted(self) -> None:
        self.write(["SET", "k", "before"])
        self.open()
        self.page.ask("document.querySelector('.row input').click()")
        self.press_button("Delete 1 selected…")
        self.write(["SET", "k", "theirs"])
        self.press_button("Delete")
        self.page.wait_for(f"{STATUS}.includes('somebody else')")
        self.assertEqual(self.ask_server("GET", "k"), "theirs")

    def test_a_value_with_carriage_returns_is_not_edited_in_a_field_that_drops_them(self) -> None:
        self.write(["SET", "k", "a\r\nb"])
        self.open()
        self.page.click(".row button")
        self.page.wait_for("!!document.querySelector('.edit .danger')")
        self.assertNotIn("Edit", self.page.ask("document.querySelector('.edit').textContent"))

    def test_a_ttl_is_set_and_taken_away(self) -> None:
        self.write(["SET", "k", "v"])
        self.open()
        self.page.click(".row button")
        self.page.wait_for("!!document.querySelector('.edit input')")
        self.page.ask("document.querySelector('.edit input').value = '500'; 0")
        self.press_button("Set TTL")
        self.page.wait_for(
            "document.querySelector('.row small')?.textContent.includes('expires in')"
        )
        self.assertGreater(self.ask_server("TTL", "k"), 400)
        self.press_button("Keep for ever")
        self.page.wait_for("document.querySelector('.edit small')?.textContent.includes('no TTL')")
        self.assertEqual(self.ask_server("TTL", "k"), -1)
        self.assert_well()

    def test_keys_are_deleted_once_that_is_confirmed(self) -> None:
        self.write(*(["SET", f"k{n}", "v"] for n in range(5)))
        self.open()
        self.page.ask(
            "[...document.querySelectorAll('.row input')].slice(0, 3).forEach(box => box.click())"
        )
        self.press_button("Delete 3 selected…")
        self.press_button("Cancel")
        self.assertEqual(self.ask_server("DBSIZE"), 5)
        self.press_button("Delete 3 selected…")
        self.page.wait_for("document.querySelector('dialog')?.textContent.includes('these 3 keys')")
        self.press_button("Delete")
        self.page.wait_for(f"{ROWS}.length === 2")
        self.assertEqual(self.ask_server("DBSIZE"), 2)
        self.page.click(".row button")
        self.page.wait_for("!!document.querySelector('.edit .danger')")
        self.page.ask("document.querySelector('.edit .danger').click()")
        self.page.wait_for("!!document.querySelector('dialog[open]')")
        self.press_button("Delete")
        self.page.wait_for(f"{ROWS}.length === 1")
        self.assertEqual(self.ask_server("DBSIZE"), 1)
        self.assert_well()
