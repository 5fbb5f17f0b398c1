from __future__ import annotations

import os
import tempfile
import unittest
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import kvdb.testing
from kvdb.client.address import Address
from kvdb.client.errors import ServerError
from kvdb.commands.hints import explanation, hint
from kvdb.tools import editing
from kvdb.tools.editing import History, candidates, may_be_kept, set_up
from kvdb.tools.shell import Shell
from kvdb.tools.showing import raw, readable
from tests.test_tools import run_tool


class ShowingTest(unittest.TestCase):
    def test_for_people(self) -> None:
        for reply, text in (
            (None, "(nil)"),
            (5, "(integer) 5"),
            (1.5, "(double) 1.5"),
            (True, "(true)"),
            (b"hello\r\nworld\r\n", "hello\nworld"),
            ("grün".encode(), "grün"),
            (b"", '""'),
            (b" a", '" a"'),
            (b"(nil)", '"(nil)"'),
            (ServerError("ERR no"), "(error) ERR no"),
            ([], "(empty list)"),
            ({}, "(empty map)"),
            ([1, [b"a", None], b"b"], "1) (integer) 1\n2) 1) a\n   2) (nil)\n3) b"),
            ({b"a": 1, b"b": [b"x"]}, "a: (integer) 1\nb:\n  1) x"),
            (b'{"a":[1]}', '{\n  "a": [\n    1\n  ]\n}'),
            (b"[not json", "[not json"),
            (b"[" * 5000, "[" * 5000),
        ):
            with self.subTest(reply):
                self.assertEqual(readable(reply), text)

    def test_the_numbers_of_a_long_list_stand_below_each_other(self) -> None:
        lines = readable([b"v"] * 10).splitlines()
        self.assertEqual((lines[0], lines[-1]), (" 1) v", "10) v"))

    def test_what_is_binary_is_shown_in_hex_and_cut(self) -> None:
        self.assertEqual(
            readable(b"\x00\xffhi").splitlines(),
            ["(binary, 4 bytes)", f"000000  {'00 ff 68 69':<47}  ..hi"],
        )
        self.assertIn("... and 976 bytes more", readable(bytes(2_000)))

    def test_nothing_can_control_the_terminal(self) -> None:
        for reply in (
            b"\x1b[2J",
            b"a\rb",
            "\u202eevil".encode(),
            "\x9b2J".encode(),
            '["\u202e"]'.encode(),
            b'["\\u001b"]',
            ServerError("ERR \x1b[2J"),
            {b"\x1b": b"\x07"},
        ):
            text = readable(reply)
            with self.subTest(text):
                self.assertTrue(all(line.isprintable() for line in text.split("\n")))

    def test_for_scripts(self) -> None:
        for reply, data in (
            (None, b""),
            (5, b"5"),
            (True, b"1"),
            (b"\x00\n", b"\x00\n"),
            ([1, [b"a"], None], b"1\na\n"),
            ({b"k": 1}, b"k\n1"),
        ):
            self.assertEqual(raw(reply), data)


class HintTest(unittest.TestCase):
    def test_what_was_meant_is_proposed(self) -> None:
        for request, refusal, expected in (
            ("GTE a", "ERR unknown command 'GTE'", "GET"),
            ("LPUSH a b", "ERR unknown command 'LPUSH'", "kvdb has no lists."),
            ("zadd a b", "ERR unknown command 'zadd'", "kvdb has no sorted sets."),
            ("CLIENT LSIT", "ERR unknown subcommand", "Did you mean CLIENT LIST?"),
            ("SETEX a", "ERR wrong number of arguments", "Usage: SETEX key seconds value"),
            ("client setname", "ERR wrong number of arguments", "Usage: CLIENT SETNAME"),
        ):
            with self.subTest(request):
                self.assertIn(expected, hint(request.encode().split(), refusal) or "")

    def test_where_nothing_helps_nothing_is_said(self) -> None:
        for request, refusal in (
            ("XYZZY", "ERR unknown command 'XYZZY'"),
            ("MODULE.X", "ERR something else"),
            ("GET a", "WRONGTYPE Operation"),
            ("CLIENT \xff", "ERR unknown subcommand"),
        ):
            self.assertIsNone(hint(request.encode("latin-1").split(), refusal))

    def test_commands_can_be_explained_without_a_server(self) -> None:
        self.assertIn("MGET", explanation([]))
        self.assertIn("GET key\n  Return", explanation([b"get"]))
        self.assertIn("CLIENT SETNAME", explanation([b"CLIENT"]))
        self.assertIn("no lists", explanation([b"LPUSH"]))


class EditingTest(unittest.TestCase):
    def setUp(self) -> None:
        self.path = Path(self.enterContext(tempfile.TemporaryDirectory())) / "history"

    def test_lines_with_passwords_are_not_kept(self) -> None:
        for line in (
            "AUTH secret",
            "  auth bob secret",
            "HELLO 3 AUTH bob secret",
            "ACL SETUSER bob >secret",
            "CONFIG SET requirepass secret",
            "config set masterauth x",
            "MIGRATE h 1 k 0 1 AUTH2 u p",
            "'AUTH' secret",
            "",
        ):
            self.assertFalse(may_be_kept(line), line)
        for line in ("GET author", "SET a 1", "ACL LIST"):
            self.assertTrue(may_be_kept(line), line)

    def test_the_history_is_a_private_file(self) -> None:
        history = History(self.path)
        self.assertEqual(history.load(), [])
        self.path.touch(0o644)
        for line in ("GET ä", "GET ä", "AUTH x", "GET b"):
            history.add(line)
        self.assertEqual(self.path.read_text("utf-8"), "GET ä\nGET b\n")
        if os.name == "posix":
            self.assertEqual(self.path.stat().st_mode & 0o777, 0o600)
        self.assertEqual(History(self.path).load(), ["GET ä", "GET b"])

    def test_a_long_history_is_cut(self) -> None:
        self.path.write_text("".join(f"GET {number}\n" for number in range(1_500)))
        lines = History(self.path).load()
        self.assertEqual((len(lines), lines[-1]), (editing.LONGEST_HISTORY, "GET 1499"))
        self.assertEqual(self.path.read_text().splitlines(), lines)
        self.assertEqual([each.name for each in self.path.parent.iterdir()], ["history"])

    def test_a_history_that_cannot_be_written_is_done_without(self) -> None:
        history = History(self.path / "no" / "file")
        self.assertEqual(history.load(), [])
        self.assertTrue(history.add("GET a"))

    def test_what_is_begun_is_completed(self) -> None:
        def keys(begun: str) -> list[str]:
            return [begun + ":1"]

        for before, begun, expected in (
            ([], "getra", ["getrange"]),
            ([], "GETRA", ["GETRANGE"]),
            (["help"], "Getra", ["GETRANGE"]),
            (["client"], "setn", ["setname"]),
            (["GET"], "k", ["k:1"]),
            (["GET"], "", []),
            (["GET", "a"], "k", []),
            (["PING"], "k", []),
            (["NONSENSE"], "k", []),
        ):
            self.assertEqual(candidates(before, begun, keys), expected, (before, begun))

    def test_readline_is_given_completion_and_history(self) -> None:
        self.path.write_text("GET old\n")
        added: list[str] = []
        completers: list[Callable[[str, int], str | None]] = []
        readline = SimpleNamespace(
            __doc__="", set_auto_history=lambda on: None, add_history=added.append,
            set_completer_delims=lambda text: None, set_completer=completers.append,
            parse_and_bind=lambda text: None, get_line_buffer=lambda: "client setn",
            get_begidx=lambda: 7,
        )  # fmt: skip
        set_up(readline, History(self.path), lambda begun: [])  # type: ignore[arg-type]
        self.assertEqual(added, ["GET old"])
        (complete,) = completers
        self.assertEqual([complete("setn", 0), complete("setn", 1)], ["setname ", None])


Typed = str | type[BaseException] | Callable[[], None]


class Terminal:
    """Types lines into a shell, and keeps what is shown.

    An exception is typed as itself: Ctrl-C. What can be called is called before the next line.
    """

    def __init__(self, url_port: int, *typed: Typed, **address: object) -> None:
        self.prompts: list[str] = []
        self.shown: list[str] = []
        self._typed = list(typed)
        shell = Shell(
            Address("127.0.0.1", url_port, **address),  # type: ignore[arg-type]
            None, self._read, lambda text: self.shown.append(str(text)),
        )  # fmt: skip
        self.code = shell.run()

    def _read(self, prompt: str) -> str:
        self.prompts.append(prompt)
        line = self._typed.pop(0) if self._typed else EOFError
        while not isinstance(line, str):
            if isinstance(line, type):
                raise line
            line()
            line = self._typed.pop(0)
        return line


class ShellTest(unittest.TestCase):
    server: kvdb.testing.Server

    def setUp(self) -> None:
        self.server = self.enterContext(kvdb.testing.running())

    def type(self, *lines: Typed, **address: object) -> Terminal:
        terminal = Terminal(self.server.port, *lines, **address)
        self.assertEqual(terminal.code, 0)
        return terminal

    def test_requests_are_answered_until_the_end(self) -> None:
        shown = self.type(
            'SET k "a\\nb"', "GET k", "", "INCR n", KeyboardInterrupt, "exit", "PING"
        ).shown
        self.assertEqual(shown, ["OK", "a\nb", "(integer) 1", ""])

    def test_an_error_is_followed_by_what_helps(self) -> None:
        with self.assertLogs("kvdb"):  # what a client asked for that there is not
            shown = self.type("SETEX a", "LPUSH a b", 'GET "a').shown
        self.assertIn("(error) ERR wrong number", shown[0])
        self.assertEqual(shown[1], "Usage: SETEX key seconds value")
        self.assertEqual(shown[3], "kvdb has no lists.")
        self.assertIn("quotation mark", shown[4])

    def test_help_asks_the_server(self) -> None:
        shown = self.type("help get", "help", "? nonsense").shown
        self.assertIn("GET key\n  Return", shown[0])
        self.assertIn("Strings and counters", shown[1])
        self.assertIn("no such command", shown[2])

    def test_the_prompt_shows_database_and_transaction(self) -> None:
        terminal = self.type(
            "SELECT 1", "SELECT 99", "MULTI", "SELECT 2", "EXEC", "MULTI", "DISCARD", db=3
        )
        place = f"127.0.0.1:{self.server.port}"
        ends = ["[3]> ", "[1]> ", "[1]> ", "[1](TX)> ", "[1](TX)> ", "[2]> ", "[2](TX)> ", "[2]> "]
        self.assertEqual(terminal.prompts, [place + end for end in ends])

    def test_it_connects_again_and_goes_back_to_the_database(self) -> None:
        shown = self.type("SELECT 2", "SET k v", self.server.restart, "GET k").shown
        self.assertEqual(shown[:3], ["OK", "OK", "v"])

    def test_a_request_whose_fate_is_unknown_is_not_repeated(self) -> None:
        self.server.disconnect_next("INCR", after=True)
        shown = self.type("INCR n", "GET n").shown
        self.assertIn("the connection broke", shown[0])
        self.assertEqual(shown[1], "1")

    def test_a_transaction_that_was_lost_is_not_gone_on_with(self) -> None:
        shown = self.type("WATCH k", self.server.restart, "SET k v", "GET k").shown
        self.assertIn("with it the transaction", shown[1])
        self.assertEqual(shown[2], "(nil)")
        self.server.disconnect_next("GET")
        terminal = self.type("WATCH k", "GET k", "GET k")
        self.assertIn("and the transaction is lost", terminal.shown[1])
        self.assertEqual(terminal.shown[2], "(nil)")

    def test_a_password_may_be_typed_and_is_used_again(self) -> None:
        with kvdb.testing.running(password="secret") as server:
            typed = ("GET k", "AUTH secret", "SET k v", server.restart, "GET k", "HELLO")
            terminal = Terminal(server.port, *typed, db=1)
        self.assertIn("NOAUTH", terminal.shown[0])
        self.assertEqual(terminal.shown[-3], "v")
        self.assertIn("proto: (integer) 3", terminal.shown[-2])
        self.assertIn("[1]> ", terminal.prompts[-1])

    def test_maps_and_what_is_sent_unasked(self) -> None:
        shown = self.type("CLIENT TRACKING ON", "GET k", "SET k v", "PING").shown
        self.assertIn("Sent unasked:", " ".join(shown))
        self.assertIn("invalidate", " ".join(shown))
        self.assertEqual(
            [text for text in shown if "Sent" not in text], ["OK", "(nil)", "OK", "PONG", ""]
        )

    def test_messages_are_shown_until_ctrl_c_and_then_it_goes_on(self) -> None:
        shown: list[str] = []
        lines = ["SUBSCRIBE news", "PING"]
        with self.server.client() as db:

            def write(text: object) -> None:
                shown.append(str(text))
                if text == "subscribed to news":
                    db.publish("news", "hello")
                elif "hello" in str(text):
                    raise KeyboardInterrupt

            def read(prompt: str) -> str:
                if lines:
                    return lines.pop(0)
                raise EOFError

            Shell(Address("127.0.0.1", self.server.port), None, read, write).run()
        self.assertEqual(shown[1], "subscribed to news")
        self.assertRegex(shown[2], "^news: .*hello")
        self.assertEqual(shown[-2:], ["PONG", ""])

    def test_without_a_server_it_says_so_and_waits(self) -> None:
        port = self.server.port
        self.server.stop()
        terminal = Terminal(port, "GET a", "SUBSCRIBE a", "help get")
        self.assertIn("cannot connect", terminal.shown[0])
        self.assertEqual((terminal.code, len(terminal.prompts)), (0, 4))


class ScriptTest(unittest.TestCase):
    def setUp(self) -> None:
        self.server = self.enterContext(kvdb.testing.running())

    def test_one_request(self) -> None:
        url = self.server.url
        self.assertEqual(run_tool("shell", url, "SET", "a", "x y\n").out, b"OK\n")
        self.assertEqual(run_tool("shell", url, "GET", "a"), (0, b"x y\n\n", ""))
        port = str(self.server.port)
        self.assertEqual(run_tool("shell", "--port", port, "--db", "1", "GET", "a").out, b"\n")
        self.assertEqual(run_tool("shell", "--port", port, "MGET", "a", "--db").out, b"x y\n\n\n")

    def test_a_refusal_goes_to_standard_error(self) -> None:
        with self.assertLogs("kvdb"):  # what a client asked for that there is not
            done = run_tool("shell", self.server.url, "LPUSH", "a", "b")
        self.assertEqual((done.code, done.out), (1, b""))
        self.assertIn("ERR unknown command", done.err)
        self.assertIn("kvdb has no lists", done.err)

    def test_lines_from_a_pipe(self) -> None:
        lines = b'SET a "\\x00\\xff"\n\nGTE a\nGET "\r\nSELECT 1\nSET a 2\r\nGET a'
        done = run_tool("shell", self.server.url, stdin=lines)
        self.assertEqual((done.code, done.out), (1, b"OK\nOK\nOK\n2\n"))
        self.assertRegex(done.err, "line 3: ERR unknown command .*\n.*line 4: unbalanced quotes")
        self.assertEqual(run_tool("shell", self.server.url, stdin=b"PING\n"), (0, b"PONG\n", ""))

    def test_a_server_that_stops_when_told_to_has_answered(self) -> None:
        self.server.disconnect_next("SHUTDOWN")
        self.assertEqual(run_tool("shell", self.server.url, "SHUTDOWN"), (0, b"OK\n", ""))

    def test_a_broken_connection_ends_the_lines(self) -> None:
        self.server.disconnect_next("INCR")
        done = run_tool("shell", self.server.url, stdin=b"PING\nINCR a\nSET b 1\n")
        self.assertEqual((done.code, done.out), (1, b"PONG\n"))
        self.assertIn("line 2: the connection broke", done.err)
        self.assertIn("no line after it was sent", done.err)
