"""The log: whoever writes a line never waits, and strangers cannot fill it."""

from __future__ import annotations

import io
import json
import logging
import threading
import time
import unittest
from unittest import mock

from kvdb.logs import MINUTE, JsonLines, QueuedLog, SparseLog, TextLines
from tests.support import ManualClock, Wire, running_server, until


class Target(logging.Handler):
    """Where lines go to: it may be stuck until the test lets it go on."""

    def __init__(self, stuck: bool = False) -> None:
        super().__init__()
        self.lines: list[str] = []
        self.reached, self.opened = threading.Event(), threading.Event()
        if not stuck:
            self.opened.set()

    def emit(self, record: logging.LogRecord) -> None:
        self.reached.set()
        assert self.opened.wait(10)
        self.lines.append(record.getMessage())


class DebugTest(unittest.TestCase):
    """At level debug each connection is told, and each refusal, without what may be secret."""

    def test_connections_and_refusals_are_told_on_every_port(self) -> None:
        logger = logging.getLogger("kvdb")
        self.addCleanup(logger.setLevel, logger.level)
        with (
            self.assertLogs("kvdb", "DEBUG") as logged,
            running_server(memcached_port=0, haus_port=0, http_port=0) as service,
        ):
            ports = {name: each.port for name, each in service.listeners.items()}
            for name, request, answer in (
                ("main", b"SECRET hunter2\r\n", b"\n"),
                ("haus", b"NONSENSE\n", b"\n"),
                ("memcached", b"get k\r\n", b"\n"),
                ("http", b"GET /nonsense HTTP/1.0\r\n\r\n", b"\r\n\r\n"),
            ):
                with Wire(ports[name]) as wire:
                    wire.socket.sendall(request)
                    wire.read_until(answer)
            until(lambda: sum("connection ended" in line for line in logged.output) == 4)
        text = "\n".join(logged.output)
        for name, port in ports.items():
            self.assertRegex(text, rf"client [\d.:]+: connected to port {port}", name)
        self.assertRegex(text, r"DEBUG:.*client [\d.:]+: refused: ERR unknown command 'SECRET'\n")
        self.assertRegex(text, r"client [\d.:]+: refused: (?!ERR unknown)")
        self.assertRegex(text, r'client [\d.:]+: "GET /nonsense HTTP/1.0" 500')
        self.assertNotIn("hunter2", text)


class QueuedLogTest(unittest.TestCase):
    def start(self, stuck: bool = False) -> logging.Logger:
        self.target = Target(stuck)
        self.addCleanup(self.target.opened.set)
        self.queued = QueuedLog(self.target)
        self.queued.begin()
        logger = logging.Logger("test")
        logger.addHandler(self.queued)
        return logger

    def test_the_root_logger_adds_nothing_to_the_text(self) -> None:
        root = logging.RootLogger(logging.INFO)
        target = logging.StreamHandler(stream := io.StringIO())
        queued = QueuedLog(target)
        with mock.patch("logging.root", root):
            logging.basicConfig(handlers=[queued])  # gives a format to handlers that have none
        root.info("stopped")
        queued.finish()
        self.assertRegex(stream.getvalue(), r"^[-\d]+T[:\d]+\.\d\d\dZ INFO stopped\n$")

    def record(self, text: str) -> logging.LogRecord:
        record = logging.LogRecord("kvdb.cli", logging.WARNING, "", 0, text, (), None)
        record.created = 1_700_000_000.9996
        return record

    def test_a_line_of_text_gives_the_moment_in_utc(self) -> None:
        with mock.patch.dict("os.environ", TZ="Asia/Tokyo"):
            self.assertEqual(
                TextLines().format(self.record("full")), "2023-11-14T22:13:20.999Z WARNING full"
            )

    def test_a_line_of_json_is_one_object_on_one_line(self) -> None:
        line = JsonLines().format(self.record('a "b"\nc \u00e9'))
        self.assertNotIn("\n", line)
        self.assertEqual(
            json.loads(line),
            {
                "time": "2023-11-14T22:13:20.999Z", "level": "warning", "part": "kvdb.cli",
                "message": 'a "b"\nc \u00e9',
            },
        )  # fmt: skip

    def test_lines_are_held_back_until_it_is_known_how_to_write_them(self) -> None:
        queued = QueuedLog(logging.StreamHandler(stream := io.StringIO()))
        logger = logging.Logger("kvdb.cli")
        logger.addHandler(queued)
        logger.warning("early")
        queued.begin("json")
        logger.warning("late")
        queued.finish()
        lines = [json.loads(line)["message"] for line in stream.getvalue().splitlines()]
        self.assertEqual(lines, ["early", "late"])

    def test_lines_are_written_in_their_order_by_another_thread(self) -> None:
        logger = self.start()
        for number in range(100):
            logger.warning("line %d", number)
        self.queued.finish()
        self.assertEqual(self.target.lines, [f"line {number}" for number in range(100)])

    def test_a_line_says_what_held_when_it_was_logged(self) -> None:
        logger = self.start(stuck=True)
        changing = ["before"]
        logger.warning("%s", changing)
        changing[0] = "after"
        self.target.opened.set()
        self.queued.finish()
        self.assertEqual(self.target.lines, ["['before']"])

    def test_a_traceback_is_written_too(self) -> None:
        logger = self.start()
        try:
            raise ZeroDivisionError("by nought")
        except ZeroDivisionError:
            logger.exception("a bug")
        self.queued.finish()
        self.assertIn("ZeroDivisionError: by nought", self.target.lines[0])

    def test_nobody_waits_for_a_target_that_is_stuck_and_what_was_dropped_is_told(self) -> None:
        with mock.patch("kvdb.logs._MOST_WAITING", 10):
            logger = self.start(stuck=True)
        logger.warning("first")
        self.assertTrue(self.target.reached.wait(10))  # it is out of the queue, and stuck
        ended = threading.Event()

        def log_much() -> None:
            for number in range(1000):
                logger.warning("line %d", number)
            ended.set()

        threading.Thread(target=log_much).start()
        self.assertTrue(ended.wait(10))
        self.assertEqual(self.target.lines, [])
        self.target.opened.set()
        until(lambda: len(self.target.lines) >= 12)
        expected = [
            "first",
            *(f"line {number}" for number in range(10)),
            "990 lines of the log were dropped, because nobody read it",
        ]
        self.assertEqual(self.target.lines, expected)
        logger.warning("goes on")
        self.queued.finish()
        self.assertEqual(self.target.lines[12:], ["goes on"])

    def test_the_end_does_not_wait_for_ever(self) -> None:
        logger = self.start(stuck=True)
        logger.warning("never written")
        with mock.patch("kvdb.logs._AT_THE_END", 0.05):
            began = time.monotonic()
            self.queued.finish()
            self.assertLess(time.monotonic() - began, 5)
        self.assertEqual(self.target.lines, [])

    def test_without_a_line_there_is_nothing_to_wait_for(self) -> None:
        self.start()
        with mock.patch("kvdb.logs._AT_THE_END", 60):
            began = time.monotonic()
            self.queued.finish()
            self.assertLess(time.monotonic() - began, 30)


class SparseLogTest(unittest.TestCase):
    def setUp(self) -> None:
        self.clock = ManualClock()
        self.sparse = SparseLog(self.clock)
        self.log = logging.getLogger("kvdb.test")

    def lines(self, *kinds: str) -> list[str]:
        """Warn once of each kind; return what is logged."""
        with self.assertLogs("kvdb.test", logging.WARNING) as logged:
            self.log.warning("begin")
            for kind in kinds:
                self.sparse.warn(self.log, kind, f"about {kind}")
        return [record.getMessage() for record in logged.records[1:]]

    def test_the_first_of_a_kind_is_logged_and_the_rest_of_the_minute_counted(self) -> None:
        self.assertEqual(self.lines("a", "a", "b", "a"), ["about a", "about b"])
        self.clock.now += MINUTE - 0.1
        self.assertEqual(self.lines("a"), [])
        self.clock.now += 0.1
        more = "about a (3 more like this since the last line)"
        self.assertEqual(self.lines("a", "b"), [more, "about b"])
        self.clock.now += MINUTE
        self.assertEqual(self.lines("a"), ["about a"])

    def test_a_clock_that_begins_at_zero_hides_no_first_line(self) -> None:
        self.clock.now = 0.0
        self.assertEqual(self.lines("a", "a"), ["about a"])

    def test_many_kinds_do_not_fill_the_memory(self) -> None:
        with mock.patch.object(SparseLog, "_MOST_KINDS", 5):
            self.assertEqual(len(self.lines(*map(str, range(100)))), 100)
            self.assertLessEqual(len(self.sparse._kinds), 5)

    def test_a_percent_sign_in_a_text_is_no_placeholder(self) -> None:
        with self.assertLogs("kvdb.test") as logged:
            self.sparse.warn(self.log, "x", "100 %s sure")
        self.assertEqual(logged.records[0].getMessage(), "100 %s sure")


if __name__ == "__main__":
    unittest.main()
