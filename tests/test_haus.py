from __future__ import annotations

import json
import logging
import unittest
from unittest import mock

from kvdb.commands.instance import Instance
from kvdb.commands.pending_writes import IDLE_LIMIT
from kvdb.config import Config
from kvdb.logs import MINUTE
from kvdb.resp.limits import MAX_LINE, STRANGERS_LINE
from kvdb.store import Store
from tests.ports import ALL_PORTS, HausLines
from tests.store_case import COST
from tests.support import ManualClock
from tests.test_main_port import FakeDisk

OK = '{"status": "Ok"}'
NOT_FOUND = '{"status": "Error", "mesg": "Key not found!"}'
ARITY = '{"status": "Error", "mesg": "Wrong number of arguments!"}'
UNKNOWN = '{"status": "Error", "mesg": "Unknown command!"}'
OK_MISSING = '{"status": "Ok", "mesg": "Key not found!"}'
CONFLICT = (
    '{"status": "Error", "mesg": '
    '"a key that the transaction has read was changed meanwhile; nothing was written"}'
)
NOT_OPEN = '{"status": "Error", "mesg": "No transaction is open!"}'


def result(text: str) -> str:
    return json.dumps({"status": "Ok", "result": text}, ensure_ascii=False)


def error(text: str) -> str:
    return json.dumps({"status": "Error", "mesg": text})


class HausCase(unittest.TestCase):
    def setUp(self) -> None:
        self.start()

    def start(self, **config: object) -> None:
        """Have a new server with one client, `self.port`."""
        self.config = Config(**{"max_bytes": 0, **config})  # type: ignore[arg-type]
        self.clock, self.monotonic = ManualClock(), ManualClock(0)
        self.store = Store(self.config.max_bytes, clock=self.clock)
        self.instance = Instance(self.store, self.config, monotonic=self.monotonic)
        self.port = self.connect()
        self.addCleanup(self.store.check)

    def connect(self) -> HausLines:
        return HausLines(self.instance)

    def ask(self, line: str | bytes, port: HausLines | None = None) -> str:
        """Send one line; return the one line that answers it."""
        data = line.encode() if isinstance(line, str) else line
        reply = (port or self.port).send(data + b"\n").decode()
        self.assertEqual((reply.count("\n"), reply[-1:]), (1, "\n"))
        return reply[:-1]

    def assert_answers(self, *table: tuple[str, str], port: HausLines | None = None) -> None:
        """Send lines one after the other, and compare their answers."""
        for number, (line, expected) in enumerate(table, 1):
            with self.subTest(number=number, line=line):
                self.assertEqual(self.ask(line, port), expected)


class LinesTest(HausCase):
    TRANSCRIPT = (
        ("PUT a 1", OK),
        ("GET a", '{"status": "Ok", "result": "1"}'),
        ("GET missing", NOT_FOUND),
        ("DEL missing", '{"status": "Ok", "mesg": "Key not found!"}'),
        ("START", OK),
        ("PUT b 2", OK),
        ("COMMIT", OK),
        ("GET b", '{"status": "Ok", "result": "2"}'),
        ("START", OK),
        ("DEL b", OK),
        ("ROLLBACK", OK),
        ("GET b", '{"status": "Ok", "result": "2"}'),
        ("COMMIT", NOT_OPEN),
        ("ROLLBACK", NOT_OPEN),
        ("START", OK),
        ("START", '{"status": "Error", "mesg": "A transaction is open already!"}'),
    )

    def test_the_transcript_is_answered_word_for_word(self) -> None:
        self.assert_answers(*self.TRANSCRIPT)

    def test_it_makes_no_difference_how_the_bytes_arrive(self) -> None:
        sent = "".join(line + "\r\n" for line, _ in self.TRANSCRIPT).encode()
        expected = "".join(answer + "\n" for _, answer in self.TRANSCRIPT).encode()
        for size in (len(sent), 1, 7):
            self.start()
            pieces = [sent[at : at + size] for at in range(0, len(sent), size)]
            self.assertEqual(b"".join(map(self.port.send, pieces)), expected)

    def test_an_unfinished_line_is_not_answered(self) -> None:
        self.assertEqual(self.port.send(b"PUT a 1\nGET"), OK.encode() + b"\n")
        self.assertEqual(self.port.send(b" a"), b"")
        self.assertEqual(self.port.send(b"\nGE"), result("1").encode() + b"\n")

    def test_commands_are_known_in_any_case(self) -> None:
        self.assert_answers(("put k v", OK), ("Get k", result("v")), ("dEL k", OK))
        self.assert_answers(("start", OK), ("Rollback", OK), ("START", OK), ("commit", OK))
        self.assert_answers(("DELETE k", '{"status": "Ok", "mesg": "Key not found!"}'))

    def test_spaces_count_only_inside_the_value(self) -> None:
        for line, value in (
            ("PUT   a    3 * 3 = 9 ", "3 * 3 = 9"),
            ("  PUT a v", "v"),
            ("\tPUT\ta\tb\tc\t", "b\tc"),
            ("PUT a one  two   three", "one  two   three"),
            ("PUT a v\r", "v"),
        ):
            self.assert_answers((line, OK), (" GET   a ", result(value)))

    def test_a_line_of_many_spaces_is_no_more_work_than_any_other(self) -> None:
        value = "a" + " " * 1_000_000 + "b"
        self.assert_answers((f"PUT k {value}", OK), ("GET k", result(value)))

    def test_keys_and_values_of_any_language(self) -> None:
        for text in ("grüße", "世界", "🌍", "e\u0301", "no\u00a0break", '"quoted"', "back\\slash"):
            self.assert_answers((f"PUT {text} {text}", OK), (f"GET {text}", result(text)))

    def test_what_json_must_escape_is_escaped(self) -> None:
        self.store.set(b"k", b'line\nline\r\n"\\\0\x1f')
        self.assertEqual(json.loads(self.ask("GET k"))["result"], 'line\nline\r\n"\\\0\x1f')

    def test_what_is_not_utf_8_comes_in_base64_and_says_so(self) -> None:
        self.assertEqual(self.ask(b"PUT \xff \x80\xff"), OK)
        expected = {"status": "Ok", "result": "gP8=", "encoding": "base64"}
        self.assertEqual(json.loads(self.ask(b"GET \xff")), expected)

    def test_blank_lines_are_not_answered(self) -> None:
        self.assertEqual(self.port.send(b"\n\r\n   \n\t\n"), b"")
        self.assert_answers(("GET k", NOT_FOUND))

    def test_what_is_no_command_is_an_error_and_the_connection_goes_on(self) -> None:
        for line, expected in (
            ("FOO", UNKNOWN),
            ("FOO a b c", UNKNOWN),
            ("*1", UNKNOWN),
            ('{"command": "GET"}', UNKNOWN),
            ("\0", UNKNOWN),
            ("PUT", ARITY),
            ("PUT a", ARITY),
            ("PUT a  ", ARITY),
            ("GET", ARITY),
            ("GET a b", ARITY),
            ("GET a b c", ARITY),
            ("DEL", ARITY),
            ("DEL a b", ARITY),
            ("START x", ARITY),
            ("COMMIT x", ARITY),
            ("ROLLBACK now please", ARITY),
            ("AUTH", ARITY),
            ("QUIT x", ARITY),
        ):
            self.assert_answers((line, expected), ("PUT k v", OK))
        self.assertEqual(self.ask(b"\xff\xfe \xfd"), UNKNOWN)
        self.assertEqual(self.store.size(), 1)

    def test_a_value_over_the_limit_is_refused_and_the_old_one_kept(self) -> None:
        self.start(max_value_bytes=100)
        self.assert_answers(
            (f"PUT k {'x' * 100}", OK),
            (f"PUT k {'y' * 101}", error("The value is longer than 100 bytes (--max-value-mb)!")),
            ("GET k", result("x" * 100)),
        )

    def test_an_entry_over_the_whole_budget_is_refused(self) -> None:
        self.start(max_bytes=COST)
        self.assert_answers(("PUT a 1", OK))
        self.assertIn("larger than the whole budget", self.ask(f"PUT b {'x' * 500}"))
        self.assert_answers(("GET a", result("1")))

    def test_too_long_a_line_gets_one_error_and_the_connection_closes(self) -> None:
        self.start(max_value_bytes=100)
        limit = 200 + MAX_LINE
        for data in (b"x" * (limit + 1), b"x" * (limit + 2) + b"\nGET a\n"):
            port = self.connect()
            expected = error("The line is too long!").encode() + b"\n"
            self.assertEqual(port.send(data), expected)
            self.assertTrue(port.conversation.closing)
        self.assertEqual(self.connect().send(b"x" * limit), b"")

    def test_quit_answers_and_closes(self) -> None:
        self.assertEqual(self.port.send(b"QUIT\nPUT k v\n"), OK.encode() + b"\n")
        self.assertTrue(self.port.conversation.closing)
        self.assertEqual(self.store.size(), 0)

    def test_an_http_request_closes_and_nothing_behind_it_is_carried_out(self) -> None:
        for line in (
            "GET / HTTP/1.1",
            "POST /x HTTP/1.0",
            "put http://h/ HTTP/1.1",
            "OPTIONS * HTTP/1.1",
        ):
            self.monotonic.now += MINUTE  # each kind is told once a minute
            port = self.connect()
            with self.assertLogs("kvdb", logging.WARNING):
                reply = port.send(f"PUT a 1\n{line}\r\nHost: x\r\n\r\nPUT b 2\n".encode())
            self.assertEqual((reply, port.conversation.closing), (OK.encode() + b"\n", True))
        self.assertIsNone(self.store.get(b"b"))
        self.assert_answers(("PUT version HTTP/1.1", OK), ("GET version", result("HTTP/1.1")))

    def test_a_bug_is_answered_logged_and_survived(self) -> None:
        with (
            mock.patch.object(self.store, "set", side_effect=ZeroDivisionError),
            self.assertLogs("kvdb", logging.ERROR),
        ):
            self.assert_answers(("PUT k v", error("Internal error!")))
        self.assert_answers(("PUT k v", OK))

    def test_requests_are_counted(self) -> None:
        for line in ("PUT a 1", "GET a", "FOO"):
            self.ask(line)
        self.assertEqual(self.instance.counts()["commands"], 2)  # as in Redis, FOO is none
        self.assertEqual(self.port.session.last_command, "get")


class PasswordTest(HausCase):
    def setUp(self) -> None:
        self.start(password="se cret")

    def test_before_the_password_nothing_else_is_answered(self) -> None:
        required = error("Authentication required: AUTH password, or AUTH user password")
        for line in ("PUT a 1", "GET a", "START", "COMMIT", "FOO"):
            self.assert_answers((line, required))
        self.assert_answers(("AUTH wrong", error("Wrong password!")), ("GET a", required))
        self.assert_answers(("auth  se cret ", OK), ("PUT a 1", OK), ("GET a", result("1")))
        self.assertEqual(self.store.size(), 1)

    def test_a_wrong_password_later_on_does_not_log_out(self) -> None:
        self.assert_answers(("AUTH se cret", OK), ("AUTH se", error("Wrong password!")))
        self.assert_answers(("PUT a 1", OK))

    def test_strangers_are_held_to_short_lines(self) -> None:
        self.assertEqual(self.connect().send(b"x" * STRANGERS_LINE), b"")
        for data in (b"x" * (STRANGERS_LINE + 1), b"AUTH " + b"x" * STRANGERS_LINE + b"\n"):
            port = self.connect()
            self.assertIn(b"too long", port.send(data))
            self.assertTrue(port.conversation.closing)
        self.assertLessEqual(STRANGERS_LINE, 4096)

    def test_longer_lines_are_allowed_as_soon_as_the_password_was_given(self) -> None:
        value = "x" * 2 * STRANGERS_LINE
        self.assert_answers(("AUTH se cret", OK), (f"PUT k {value}", OK), ("GET k", result(value)))

    def test_strangers_may_leave(self) -> None:
        self.assert_answers(("QUIT", OK))
        self.assertTrue(self.port.conversation.closing)


class DurableReplies(HausCase):
    """Under --fsync always no reply leaves before all that it tells of is on disk."""

    def use(self, disk: FakeDisk) -> None:
        self.instance.persistence = disk  # type: ignore[assignment]
        self.port = self.connect()

    def test_a_write_that_was_undone_is_an_error(self) -> None:
        self.store.add_listener(lambda step, facts: None)  # so that steps are counted
        for line in ("PUT k v", "DEL k"):
            self.store.set(b"k", b"old")
            self.use(FakeDisk(False))
            self.assert_answers((line, error("Not saved: disk full")))

    def test_what_has_changed_nothing_is_not_refused_but_answered_anew(self) -> None:
        self.store.add_listener(lambda step, facts: None)
        disk = FakeDisk(False, True)
        self.use(disk)
        self.assert_answers(("DEL k", OK_MISSING))
        self.assertEqual([seen.wrote for seen in disk.seen], [0, 0])

    def test_a_commit_that_was_undone_is_an_error_and_over(self) -> None:
        self.use(FakeDisk(True, True, False))
        self.assert_answers(
            ("START", OK), ("PUT k v", OK), ("COMMIT", error("Not saved: disk full"))
        )
        self.assert_answers(("COMMIT", NOT_OPEN))

    def test_a_read_is_answered_anew_once_what_it_saw_was_undone(self) -> None:
        disk = FakeDisk(False, True)
        self.use(disk)
        self.store.set(b"k", b"new")
        disk.on_undo = lambda: self.store.set(b"k", b"old")
        self.assert_answers(("GET k", result("old")))

    def test_what_has_nothing_to_do_with_keys_is_not_refused(self) -> None:
        for line, answer in (("START", OK), ("ROLLBACK", NOT_OPEN), ("FOO", UNKNOWN)):
            self.use(FakeDisk(False))
            self.assert_answers((line, answer))


class TransactionTest(HausCase):
    def test_own_writes_are_seen_at_once_and_by_every_dialect_at_the_commit(self) -> None:
        others = [kind(self.instance) for kind in ALL_PORTS]
        self.assert_answers(("PUT old 1", OK), ("START", OK), ("PUT new 2", OK), ("DEL old", OK))
        self.assert_answers(("GET new", result("2")), ("GET old", NOT_FOUND))
        for other in others:
            self.assertEqual((other.get(b"old"), other.get(b"new")), (b"1", None))
        self.assert_answers(("COMMIT", OK))
        for other in others:
            self.assertEqual((other.get(b"old"), other.get(b"new")), (None, b"2"))

    def test_what_others_write_is_seen_until_it_was_written_over(self) -> None:
        other = self.connect()
        self.assert_answers(("PUT k theirs", OK), port=other)
        self.assert_answers(("START", OK), ("GET k", result("theirs")))
        self.assert_answers(("PUT k theirs again", OK), port=other)
        self.assert_answers(("GET k", result("theirs again")), ("PUT k mine", OK))
        self.assert_answers(("GET k", result("mine")), ("COMMIT", CONFLICT))
        self.assert_answers(("GET k", result("theirs again")), ("COMMIT", NOT_OPEN), port=other)

    def test_of_two_that_read_and_write_the_same_key_the_second_is_refused(self) -> None:
        self.assert_answers(("PUT n 1", OK))
        first, second = self.connect(), self.connect()
        for port in (first, second):
            self.assert_answers(("START", OK), ("GET n", result("1")), ("PUT n 2", OK), port=port)
            self.assert_answers(("PUT also v", OK), port=port)
        self.assert_answers(("COMMIT", OK), ("GET n", result("2")), ("DEL also", OK), port=first)
        self.assert_answers(
            ("COMMIT", CONFLICT), ("COMMIT", NOT_OPEN), ("GET also", NOT_FOUND), port=second
        )
        self.assert_answers(
            ("START", OK), ("GET n", result("2")), ("PUT n 3", OK), ("COMMIT", OK), port=second
        )
        self.assert_answers(("GET n", result("3")))

    def test_what_was_read_may_change_through_any_dialect(self) -> None:
        for kind in ALL_PORTS:
            with self.subTest(kind.__name__):
                self.assert_answers(("PUT k 1", OK), ("START", OK), ("GET k", result("1")))
                kind(self.instance).set(b"k", b"2")
                self.assert_answers(("COMMIT", CONFLICT))

    def test_an_expiry_of_what_was_read_is_a_conflict(self) -> None:
        self.store.set(b"k", b"v", expires_at=self.clock.now + 10)
        self.assert_answers(("START", OK), ("GET k", result("v")), ("PUT x 1", OK))
        self.clock.now += 10
        self.assert_answers(("COMMIT", CONFLICT), ("GET x", NOT_FOUND))

    def test_blind_writes_do_not_see_each_other_and_the_later_commit_wins(self) -> None:
        first, second = self.connect(), self.connect()
        for port, value in ((first, "1"), (second, "2")):
            self.assert_answers(("START", OK), (f"PUT k {value}", OK), port=port)
            self.assert_answers((f"PUT own{value} v", OK), ("DEL both", OK_MISSING), port=port)
            self.assert_answers(("GET k", result(value)), port=port)  # its own: not a read of ours
        self.assert_answers(("COMMIT", OK), port=second)
        self.assert_answers(("PUT both v", OK), port=second)
        self.assert_answers(("COMMIT", OK), port=first)
        for line, value in (("GET k", "1"), ("GET own1", "v"), ("GET own2", "v")):
            self.assert_answers((line, result(value)))
        self.assert_answers(("GET both", NOT_FOUND))

    def test_no_end_of_a_transaction_leaves_a_watcher_behind(self) -> None:
        self.start(max_value_bytes=300_000)
        value = "x" * 300_000

        def too_large() -> None:
            for number in range(4):
                self.ask(f"PUT {number} {value}")
            self.assertEqual(self.watched(), set())

        def idle() -> None:
            self.monotonic.now += IDLE_LIMIT + 1
            self.instance.housekeeping()
            self.assertEqual(self.watched(), set())

        def conflict() -> None:
            self.store.set(b"a", b"theirs")
            self.assert_answers(("COMMIT", CONFLICT))

        for end in (
            lambda: self.ask("COMMIT"),
            lambda: self.ask("ROLLBACK"),
            conflict,
            too_large,
            idle,
            lambda: self.port.close(),
        ):
            self.ask("ROLLBACK")
            self.assert_answers(("START", OK))
            for key in "aabc":
                self.ask(f"GET {key}")
            self.assertEqual(self.watched(), {b"a", b"b", b"c"})
            self.assertGreater(self.port.session.queued_bytes, 0)
            end()
            self.assertEqual(self.watched(), set())
            self.assertEqual(self.port.session.queued_bytes, 0)

    def watched(self) -> set[object]:
        """Return the keys that somebody watches."""
        return set(self.store._versions._watchers)

    def test_a_rollback_leaves_nothing(self) -> None:
        self.assert_answers(("PUT a 1", OK), ("START", OK), ("PUT a 2", OK), ("PUT b 2", OK))
        self.assert_answers(("ROLLBACK", OK), ("GET a", result("1")), ("GET b", NOT_FOUND))

    def test_a_connection_that_ends_rolls_back(self) -> None:
        self.assert_answers(("START", OK), ("PUT a 1", OK))
        self.port.close()
        self.assertIsNone(self.port.session.writes)
        self.assertEqual(self.store.size(), 0)

    def test_an_open_transaction_holds_up_nobody(self) -> None:
        self.assert_answers(("START", OK), ("PUT a 1", OK))
        self.assert_answers(("PUT a 2", OK), ("DEL a", OK), port=self.connect())

    def test_a_commit_takes_the_ttl_away_as_every_put_does(self) -> None:
        self.store.set(b"k", b"v", expires_at=self.clock.now + 10)
        self.assert_answers(("START", OK), ("PUT k w", OK), ("COMMIT", OK))
        self.clock.now += 10
        self.assert_answers(("GET k", result("w")))

    def test_an_error_inside_leaves_the_transaction_open(self) -> None:
        self.assert_answers(("START", OK), ("FOO", UNKNOWN), ("PUT a", ARITY), ("COMMIT x", ARITY))
        self.assert_answers(("PUT a 1", OK), ("COMMIT", OK), ("GET a", result("1")))

    def test_a_commit_that_does_not_fit_fails_whole(self) -> None:
        self.start(max_bytes=3 * COST)
        self.assert_answers(("PUT a 1", OK), ("START", OK))
        for key in "bcde":
            self.assert_answers((f"PUT {key} 1", OK))
        self.assertRegex(self.ask("COMMIT"), '"Error".*larger than the whole budget')
        self.assert_answers(("GET a", result("1")), ("GET b", NOT_FOUND), ("COMMIT", NOT_OPEN))

    def test_too_large_a_transaction_is_rolled_back_and_what_follows_is_not_carried_out(
        self,
    ) -> None:
        self.start(max_value_bytes=300_000)
        limit, value = self.config.max_request_bytes, "x" * 300_000
        ended = error(f"The transaction was rolled back: it is larger than {limit} bytes!")
        for ending, answer in (("COMMIT", ended), ("ROLLBACK", OK)):
            self.assert_answers(("START", OK))
            for number in range(3):
                self.assert_answers((f"PUT k{number} {value}", OK))
            for line in (f"PUT k3 {value}", "PUT small 1", "GET k0", "DEL k0"):
                self.assert_answers((line, ended))
            self.assert_answers((ending, answer), ("COMMIT", NOT_OPEN))
            self.assertEqual(self.store.size(), 0)
        self.assert_answers(("PUT small 1", OK), ("GET small", result("1")))

    def test_the_housekeeping_rolls_back_what_nobody_uses(self) -> None:
        busy = self.connect()
        for port in (self.port, busy):
            self.assert_answers(("START", OK), ("PUT a 1", OK), port=port)
        self.monotonic.now += IDLE_LIMIT
        self.assert_answers(("GET a", result("1")), port=busy)
        self.monotonic.now += 1
        self.instance.housekeeping()
        ended = error("The transaction was rolled back: nobody used it for 60 seconds!")
        self.assert_answers(("PUT b 2", ended), ("COMMIT", ended), ("COMMIT", NOT_OPEN))
        self.assertEqual(self.store.size(), 0)
        self.assert_answers(("COMMIT", OK), port=busy)
        self.assertEqual(self.store.get(b"a"), b"1")
