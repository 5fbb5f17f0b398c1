"""What a server does while it reads its data: it answers, refuses, and can be stopped."""

from __future__ import annotations

import contextlib
import json
import logging
import os
import signal
import subprocess
import sys
import tempfile
import threading
import unittest
from collections.abc import Callable, Iterator
from pathlib import Path
from unittest import mock

from kvdb import errors
from kvdb.config import Config
from kvdb.persistence import LoadingInterrupted, Progress
from kvdb.persistence.journal import Journal
from kvdb.persistence.snapshot import Snapshots
from kvdb.persistence.snapshot_loading import load_snapshot
from kvdb.service import CannotStart, Service
from kvdb.store import Store
from tests.support import Conversation, ManualClock, Wire, ask_http, running_server, until

ROOT = Path(__file__).resolve().parent.parent

OPEN = {"port": 0, "memcached_port": 0, "haus_port": 0, "http_port": 0}

LOADING = b"-LOADING Redis is loading the dataset in memory\r\n"

KEYS = 5_000
"""Entries in the file: several pieces, so that a part of them is in the store meanwhile."""


class SlowLoader:
    """Holds whoever loads at each report, until the test lets it go or a stop is wanted."""

    def __init__(self) -> None:
        self.reached, self.opened = threading.Event(), threading.Event()
        self._report = Progress.report

    def report(self, progress: Progress, entries: int) -> None:
        self.reached.set()
        for _ in range(2000):
            if self.opened.wait(0.005) or progress._interrupted():
                break
        self._report(progress, entries)


class LoadingCase(unittest.TestCase):
    def setUp(self) -> None:
        # The ports open before the data is loaded only where that takes long.
        self.enterContext(mock.patch("kvdb.service._LARGE_FILE", 0))
        self.folder = Path(self.enterContext(tempfile.TemporaryDirectory()))
        self.enterContext(mock.patch("kvdb.server.listener._STOP_POLL", 0.01))
        self.loader = SlowLoader()
        self.addCleanup(self.loader.opened.set)

    def data(self, name: str) -> Path:
        """Return the path of a file with KEYS entries."""
        path = self.folder / name
        with running_server(data=path, max_bytes=0) as service:
            service.store.write_many({b"k%d" % n: b"value %d" % n for n in range(KEYS)})
        return path

    @contextlib.contextmanager
    def loading(self, path: Path, **config: object) -> Iterator[Service]:
        """Start a server that has read a part of its data, and goes no further by itself."""
        settings = {**OPEN, "max_bytes": 0, "data": path, **config}
        service = Service(Config(**settings), load=False)  # type: ignore[arg-type]
        outcome: list[BaseException | None] = []

        def start() -> None:
            try:
                service.start()
            except BaseException as error:
                outcome.append(error)
            else:
                outcome.append(None)

        thread = threading.Thread(target=start)
        report = mock.patch.object(
            Progress, "report", lambda progress, entries: self.loader.report(progress, entries)
        )
        with report:
            thread.start()
            try:
                self.assertTrue(self.loader.reached.wait(10))
                self.outcome = outcome
                self.thread = thread
                yield service
            finally:
                self.loader.opened.set()
                thread.join(10)
                service.stop(save=False)

    def wire(self, service: Service, port: str = "main") -> Wire:
        return self.enterContext(Wire(service.listeners[port].port))

    def ask_http(self, service: Service, method: str, path: str) -> tuple[int, bytes]:
        response = ask_http(service.listeners["http"].port, path, method)
        return response.status, response.content  # type: ignore[attr-defined]

    def info(self, wire: Wire) -> str:
        wire.socket.sendall(b"INFO persistence\r\n")
        header = b""
        while not header.endswith(b"\r\n"):
            header += wire.read(1)
        return wire.read(int(header[1:]) + 2).decode()

    def finished(self) -> BaseException | None:
        """Wait until the start is over; return what it raised."""
        self.thread.join(10)
        (error,) = self.outcome
        return error


class AnsweringTest(LoadingCase):
    """Clients are told that the server loads, in the words of their protocol."""

    def check_both(self, act: Callable[[Service], None]) -> None:
        for name in ("data.json", "data.sqlite"):
            self.loader = SlowLoader()
            self.addCleanup(self.loader.opened.set)
            with self.subTest(name), self.loading(self.data(name)) as service:
                act(service)

    def test_redis_clients_are_told_to_try_again(self) -> None:
        def act(service: Service) -> None:
            wire = self.wire(service)
            for request in (
                b"PING", b"GET k1", b"SET k1 v", b"FLUSHALL", b"DBSIZE", b"SAVE", b"BGSAVE",
                b"*2\r\n$3\r\nGET\r\n$2\r\nk1",
            ):  # fmt: skip
                self.assertEqual(wire.ask(request + b"\r\n", len(LOADING)), LOADING, request)
            gets = b"*2\r\n$3\r\nGET\r\n$2\r\nk1\r\n" * 20  # enough to be carried out together
            self.assertEqual(wire.ask(gets, 20 * len(LOADING)), 20 * LOADING)

        self.check_both(act)

    def test_a_transaction_cannot_be_queued_for_later(self) -> None:
        with self.loading(self.data("data.json")) as service:
            wire = self.wire(service)
            self.assertEqual(wire.ask(b"MULTI\r\n", 5), b"+OK\r\n")
            self.assertEqual(wire.ask(b"DEL k1\r\n", len(LOADING)), LOADING)
            self.loader.opened.set()
            self.assertIsNone(self.finished())
            refused = b"-EXECABORT Transaction discarded because of previous errors.\r\n"
            self.assertEqual(wire.ask(b"EXEC\r\n", len(refused)), refused)
            self.assertTrue(service.store.exists(b"k1"))

    def test_info_says_that_it_loads_and_what_needs_no_data_works(self) -> None:
        def act(service: Service) -> None:
            wire = self.wire(service)
            self.assertIn("\r\nloading:1\r\n", self.info(wire))
            self.assertEqual(wire.ask(b"ECHO hello\r\n", 11), b"$5\r\nhello\r\n")
            self.assertEqual(wire.ask(b"SELECT 1\r\n", 5), b"+OK\r\n")
            self.assertIn("\r\nloading:1\r\n", self.info(wire))

        self.check_both(act)

    def test_every_other_port_says_so_in_its_own_words(self) -> None:
        def act(service: Service) -> None:
            json_line = b'{"command": "%b", "args": %b}\n'
            error = b'{"status": "ERROR", "message": "' + LOADING[1:-2] + b'"}\n'
            for request in (
                json_line % (b"GET", b'{"key": "k1"}'),
                json_line % (b"PING", b"[]"),
                json_line % (b"START", b"{}"),
                json_line % (b"MGET", b'["k1"]'),
            ):
                self.assertEqual(self.wire(service).ask(request, len(error)), error, request)
            haus = self.wire(service, "haus")
            for line in (b"GET k1\n", b"PUT k1 v\n", b"START\n"):
                mesg = b'{"status": "Error", "mesg": "Loading the data; try again!"}\n'
                self.assertEqual(haus.ask(line, len(mesg)), mesg, line)
            for line in (b"get k1\r\n", b"set k1 0 0 9\r\nflush_all\r\n", b"mg k1 v\r\n"):
                memcached = self.wire(service, "memcached")
                memcached.socket.sendall(line)
                reply = memcached.read_to_end()  # the data block must not run as a command
                self.assertEqual(reply, b"SERVER_ERROR loading the data; try again\r\n", line)
            for method, path in (
                ("GET", "/keys/k1"), ("PUT", "/keys/k1"), ("GET", "/set?k1=v"), ("GET", "/"),
                ("GET", "/healthz"), ("GET", "/metrics"),
            ):  # fmt: skip
                status, body = self.ask_http(service, method, path)
                self.assertEqual((status, body), (503, b"loading the data; try again\n"), path)

        self.check_both(act)

    def test_afterwards_everything_works_on_the_same_connections(self) -> None:
        def act(service: Service) -> None:
            wire, haus = self.wire(service), self.wire(service, "haus")
            self.assertEqual(wire.ask(b"GET k1\r\n", len(LOADING)), LOADING)
            haus.ask(b"GET k1\n", 60)
            self.loader.opened.set()
            self.assertIsNone(self.finished())
            self.assertEqual(service.loaded, KEYS)
            self.assertEqual(service.store.total_keys, KEYS)
            self.assertIn("\r\nloading:0\r\n", self.info(wire))
            reply = b"$10\r\nvalue 4999\r\n"
            self.assertEqual(wire.ask(b"GET k4999\r\n", len(reply)), reply)
            gets = b"*2\r\n$3\r\nGET\r\n$5\r\nk4999\r\n"
            self.assertEqual(wire.ask(20 * gets, 20 * len(reply)), 20 * reply)
            self.assertEqual(wire.ask(b"SET k1 new\r\n", 5), b"+OK\r\n")
            reply = b'{"status": "Ok", "result": "new"}\n'
            self.assertEqual(haus.ask(b"GET k1\n", len(reply)), reply)
            reply = b"VALUE k1 0 3\r\nnew\r\nEND\r\n"
            self.assertEqual(self.wire(service, "memcached").ask(b"get k1\r\n", len(reply)), reply)
            self.assertEqual(self.ask_http(service, "GET", "/keys/k1"), (200, b"new"))
            self.assertEqual(self.ask_http(service, "GET", "/healthz")[0], 200)
            self.assertEqual(wire.ask(b"SAVE\r\n", 5), b"+OK\r\n")
            service.store.check()

        self.check_both(act)
        for name in ("data.json", "data.sqlite"):
            with running_server(data=self.folder / name, max_bytes=0) as service:
                self.assertEqual(service.store.get(b"k1"), b"new")
                self.assertEqual(service.store.total_keys, KEYS)

    def test_strangers_are_not_told_that_it_loads(self) -> None:
        with self.loading(self.data("data.json"), password="secret") as service:
            noauth = b"-NOAUTH Authentication required.\r\n"
            self.assertEqual(self.wire(service).ask(b"GET k\r\n", len(noauth)), noauth)
            self.assertEqual(self.ask_http(service, "GET", "/keys/k")[0], 401)
            wire = self.wire(service)
            self.assertEqual(wire.ask(b"AUTH secret\r\n", 5), b"+OK\r\n")
            self.assertEqual(wire.ask(b"GET k\r\n", len(LOADING)), LOADING)


class StoppingTest(LoadingCase):
    """Whoever stops a server that has read half of its data leaves the file as it was."""

    def check_stop(self, ask: Callable[[Service], None]) -> None:
        for name in ("data.json", "data.sqlite"):
            path = self.data(name)
            before, files = path.read_bytes(), sorted(os.listdir(self.folder))
            self.loader = SlowLoader()
            with self.subTest(name):
                with self.loading(path) as service:
                    until(lambda: 0 < service.store.total_keys < KEYS)
                    ask(service)
                    self.assertIsInstance(self.finished(), LoadingInterrupted)
                self.assertEqual(path.read_bytes(), before)
                self.assertEqual(sorted(os.listdir(self.folder)), files)
                with running_server(data=path, max_bytes=0) as service:
                    self.assertEqual(service.loaded, KEYS)

    # A thousand entries go into the store at a time: a piece of the file must hold more.
    def setUp(self) -> None:
        super().setUp()
        self.enterContext(mock.patch("kvdb.store.copies._RESTORED_TOGETHER", 100))

    def test_shutdown_while_loading_never_saves(self) -> None:
        for request in (b"SHUTDOWN\r\n", b"SHUTDOWN SAVE\r\n", b"SHUTDOWN NOSAVE\r\n"):

            def shutdown(service: Service, request: bytes = request) -> None:
                wire = self.wire(service)
                wire.socket.sendall(request)
                self.assertEqual(wire.read_to_end(), b"")

            with self.subTest(request):
                self.check_stop(shutdown)

    def test_a_stop_request_while_loading_never_saves(self) -> None:
        self.check_stop(lambda service: service.stop_requests.put(True))

    def test_damaged_data_is_found_and_left_alone(self) -> None:
        path = self.data("data.json")
        lines = path.read_bytes().splitlines(keepends=True)
        lines[-2] = b"not an entry\n"
        path.write_bytes(damaged := b"".join(lines))
        with self.loading(path) as service:
            wire = self.wire(service)
            self.assertEqual(wire.ask(b"GET k1\r\n", len(LOADING)), LOADING)
            self.loader.opened.set()
            error = self.finished()
            self.assertIsInstance(error, CannotStart)
            self.assertIn(f"line {KEYS + 1}", str(error))
        self.assertEqual(path.read_bytes(), damaged)

    @unittest.skipIf(os.name == "nt", "Windows has no such signals")
    def test_ctrl_c_while_loading_ends_without_a_word_of_python(self) -> None:
        path = self.data("data.json")
        before = path.read_bytes()
        program = (
            "import sys, time\n"
            "from kvdb.cli import main\n"
            "from kvdb.persistence import Progress\n"
            "report = Progress.report\n"
            "def slow(progress, entries):\n"
            "    print('loading', flush=True)\n"
            "    end = time.monotonic() + 10\n"
            "    while time.monotonic() < end and not progress._interrupted():\n"
            "        time.sleep(0.001)\n"
            "    report(progress, entries)\n"
            "Progress.report = slow\n"
            f"sys.exit(main([{str(path)!r}, '--port', '0']))\n"
        )
        process = subprocess.Popen(
            [sys.executable, "-c", program],
            cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        )  # fmt: skip
        try:
            assert process.stdout is not None
            self.assertEqual(process.stdout.readline(), "loading\n")
            process.send_signal(signal.SIGINT)
            _, log = process.communicate(timeout=10)
        finally:
            process.kill()
            process.communicate(timeout=10)
        self.assertEqual(process.returncode, 0, log)
        self.assertNotIn("Traceback", log)
        self.assertIn("stopped before the data was loaded", log)
        self.assertEqual(path.read_bytes(), before)
        self.assertEqual(os.listdir(self.folder), ["data.json"])


class ProgressTest(unittest.TestCase):
    def test_a_line_is_logged_every_five_seconds(self) -> None:
        clock = ManualClock()
        progress = Progress(Path("my.json"), monotonic=clock)
        with self.assertNoLogs("kvdb"):
            progress.report(1)
            clock.now += 4.9
            progress.report(1000)
        clock.now += 0.1
        with self.assertLogs("kvdb", logging.INFO) as logged:
            progress.report(1_234_567)
            clock.now += 4.9
            progress.report(1_300_000)
            clock.now += 0.1
            progress.report(2_000_000)
        self.assertEqual(
            [record.getMessage() for record in logged.records],
            [f"my.json: {n} entries loaded so far" for n in ("1,234,567", "2,000,000")],
        )

    def test_it_ends_the_loading_once_that_is_not_wanted(self) -> None:
        wanted = [True]
        progress = Progress(Path("my.json"), lambda: not wanted[0], ManualClock())
        progress.report(1)
        wanted.clear()
        wanted.append(False)
        with self.assertRaises(LoadingInterrupted):
            progress.report(2)

    def test_a_snapshot_reports_how_many_entries_it_has_read(self) -> None:
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "data.json"
            store = Store(0)
            store.write_many({b"k%d" % n: b"v" for n in range(KEYS)})
            Snapshots(store, path, lambda: 0).save()
            reported: list[int] = []
            with mock.patch.object(Progress, "report", lambda _, entries: reported.append(entries)):
                load_snapshot(path, Store(0))
        self.assertGreater(len(reported), 1)
        self.assertEqual(reported, sorted(reported))
        self.assertEqual(reported[-1], KEYS)


class RefusedWhileLoadingTest(LoadingCase):
    def test_what_a_crash_has_left_in_the_lock_file_is_there_for_the_next_start(self) -> None:
        path = self.data("data.sqlite")
        lock = path.with_name("data.sqlite.lock")
        note = '{"file": "another", "step": 7, "boot": ""}'
        lock.write_text(note)
        service = Service(Config(data=path, port=0, max_bytes=0), load=False)
        with (
            mock.patch.object(service, "_load", side_effect=CannotStart("is damaged")),
            self.assertRaises(CannotStart),
        ):
            try:
                service.start()
            finally:
                service.stop(save=False)
        self.assertEqual(lock.read_text().strip(), note)


class JournalListensFirstTest(LoadingCase):
    def test_nobody_may_write_before_the_journal_hears_of_it(self) -> None:
        path = self.data("data.sqlite")
        service = Service(Config(data=path, port=0, max_bytes=0), load=False)
        replies: list[object] = []

        def write() -> None:
            """In the moment between the loading and the start of the journal."""
            replies.append(Conversation(service.instance).error("SET", "early", "v"))

        journal = service.persistence
        assert isinstance(journal, Journal)
        start = journal.start

        def write_and_start() -> None:
            write()
            start()

        with mock.patch.object(journal, "start", write_and_start):
            service.start()
        self.addCleanup(service.stop)
        self.assertEqual(replies, [errors.LOADING])
        self.assertEqual(Conversation(service.instance)("SET", "k", "v"), b"OK")


class AtOnceTest(unittest.TestCase):
    def test_without_data_the_start_is_over_at_once(self) -> None:
        service = Service(Config(data=None, port=0), load=False)
        service.start()
        self.addCleanup(service.stop)
        self.assertEqual((service.loaded, service.instance.loading), (0, False))
        with Wire(service.server.port) as wire:
            self.assertEqual(json.loads(wire.ask(b'{"command": "PING"}\n', 34))["result"], "PONG")


if __name__ == "__main__":
    unittest.main()
