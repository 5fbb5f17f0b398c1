from __future__ import annotations

import contextlib
import errno
import io
import logging
import os
import queue
import re
import signal
import socket
import subprocess
import sys
import tempfile
import unittest
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest import mock

import kvdb
from kvdb.cli import _stop_handler, _wait_for_stop, parse_config
from kvdb.config import MB, Config
from kvdb.server.listener import Listener, addresses_of
from kvdb.service import CannotStart, Service
from tests.support import Wire, running_server, until

ROOT = Path(__file__).resolve().parent.parent


class FlagsTest(unittest.TestCase):
    def parse(self, *arguments: str, **environment: str) -> Config:
        return parse_config(arguments, environment)

    def refused(self, *arguments: str, **environment: str) -> str:
        """Return the one line that goes to standard error."""
        with (
            contextlib.redirect_stderr(io.StringIO()) as stderr,
            self.assertRaises(SystemExit) as ended,
        ):
            self.parse(*arguments, **environment)
        self.assertEqual(ended.exception.code, 2)
        (line,) = stderr.getvalue().splitlines()
        return line

    def test_without_flags_everything_has_its_default(self) -> None:
        self.assertEqual(self.parse(), Config())

    def test_every_flag_counts(self) -> None:
        config = self.parse(
            "my.json", "--host", "localhost", "--port", "0", "--max-mb", "0.5",
            "--max-value-mb", "2", "--snapshot-interval", "1.5", "--max-clients", "7",
            "--idle-timeout", "30", "--log-level", "WARNING",
        )  # fmt: skip
        self.assertEqual(
            config,
            Config(
                data=Path("my.json"), host="localhost", port=0, max_bytes=MB // 2,
                max_value_bytes=2 * MB, snapshot_interval=1.5, max_clients=7,
                idle_timeout=30, log_level="warning",
            ),
        )  # fmt: skip
        self.assertIsNone(self.parse("--in-memory").data)

    def test_each_flag_may_be_an_environment_variable_and_the_flag_counts_more(self) -> None:
        config = self.parse(KVDB_MAX_MB="2", KVDB_PORT="5", KVDB_DATA="x.json")
        self.assertEqual((config.max_bytes, config.port), (2 * MB, 5))
        self.assertEqual(config.data, Path("x.json"))
        self.assertEqual(self.parse("--port", "6", KVDB_PORT="5").port, 6)
        self.assertIsNone(self.parse(KVDB_IN_MEMORY="1").data)
        self.assertEqual(self.parse(KVDB_IN_MEMORY="0"), Config())

    def test_bad_flags_get_one_line_and_exit_code_2(self) -> None:
        for arguments in (
            ("--port", "70000"),
            ("--port", "x"),
            ("--max-mb", "-1"),
            ("--max-mb", "nan"),
            ("--max-mb", "inf"),
            ("--max-clients", "0"),
            ("--snapshot-interval", "soon"),
            ("--log-level", "loud"),
            ("--nonsense",),
            ("--max", "5"),
            ("a.json", "b.json"),
            ("--fsync", "sometimes"),
        ):
            with self.subTest(arguments):
                self.assertTrue(self.refused(*arguments).startswith("kvdb: "))
        self.assertIn("PORT", self.refused(KVDB_PORT="seven"))

    def test_an_address_for_others_needs_a_password_or_consent(self) -> None:
        for host in ("0.0.0.0", "::", "192.0.2.1", "example.org"):
            with self.assertRaisesRegex(CannotStart, "--password-file.*--no-protection"):
                self.parse("--host", host)
            self.assertFalse(self.parse("--host", host, "--no-protection").protected)
        for host in ("127.0.0.2", "::1", "localhost"):
            self.assertTrue(self.parse("--host", host).protected)

    def test_the_password_is_the_first_line_of_its_file(self) -> None:
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "password"
            path.write_text("se cret\nremark\n")
            config = self.parse("--password-file", str(path), "--host", "0.0.0.0")
            self.assertEqual(config.password, "se cret")
            path.write_text("\n")
            self.assertIn("empty", self.refused("--password-file", str(path)))
            self.assertIn("cannot read", self.refused("--password-file", str(path) + "x"))


class ProcessTest(unittest.TestCase):
    """A real `python -m kvdb`, started, used and stopped as its user does."""

    def setUp(self) -> None:
        self.folder = Path(self.enterContext(tempfile.TemporaryDirectory()))
        self.data = self.folder / "data.json"

    @contextlib.contextmanager
    def server(self, *flags: str) -> Iterator[tuple[subprocess.Popen[str], int]]:
        data = [] if "--in-memory" in flags else [str(self.data)]
        process = subprocess.Popen(
            [sys.executable, "-m", "kvdb", *data, "--port", "0", *flags],
            cwd=ROOT, stderr=subprocess.PIPE, text=True,
        )  # fmt: skip
        assert process.stderr is not None
        self.greeting = ""
        try:
            for line in process.stderr:
                self.greeting += line
                if "main port" in line:
                    break
            listening = re.search(r"listening on \S+ port (\d+)", self.greeting)
            assert listening, self.greeting
            yield process, int(listening[1])
        finally:
            process.kill()
            process.communicate(timeout=10)

    def end(self, process: subprocess.Popen[str]) -> str:
        """Wait for a clean end; return what was logged meanwhile."""
        _, log = process.communicate(timeout=10)
        self.assertEqual(process.returncode, 0, log)
        return log

    def fails(self, *flags: str) -> str:
        """Return the one sentence of a server that does not start."""
        done = subprocess.run(
            [sys.executable, "-m", "kvdb", *flags],
            cwd=ROOT, capture_output=True, text=True, timeout=10,
        )  # fmt: skip
        self.assertEqual(done.returncode, 2, done.stderr)
        (line,) = done.stderr.splitlines()
        return line

    def test_a_stop_signal_keeps_the_last_write(self) -> None:
        for number in (signal.SIGTERM, signal.SIGINT):
            if os.name == "nt":
                self.skipTest("Windows has no such signals")
            with self.server() as (process, port):
                with kvdb.Client(port=port) as db:
                    self.assertEqual(db.incr("starts"), 1 if number is signal.SIGTERM else 2)
                process.send_signal(number)
                self.assertIn("stopped", self.end(process))
        self.assertEqual(sorted(os.listdir(self.folder)), ["data.json"])

    def test_shutdown_saves_and_shutdown_nosave_does_not(self) -> None:
        for value, command in ((b"1", b"SHUTDOWN\r\n"), (b"2", b"SHUTDOWN NOSAVE\r\n")):
            with self.server() as (process, port), Wire(port) as wire:
                wire.ask(b"SET k " + value + b"\r\n", 5)
                wire.socket.sendall(command)
                self.assertEqual(wire.read_to_end(), b"")
                self.end(process)
        with self.server() as (_, port), Wire(port) as wire:
            self.assertEqual(wire.ask(b"GET k\r\n", 7), b"$1\r\n1\r\n")

    def test_kill_loses_what_came_after_the_last_snapshot_and_nothing_else(self) -> None:
        every_byte = bytes(range(256))
        with (
            self.server("--snapshot-interval", "0") as (process, port),
            kvdb.Client(port=port, serializer=kvdb.BYTES) as db,
            Wire(port) as wire,
        ):
            db.set(every_byte, every_byte)
            db.set("expiring", b"v", ttl=1000)
            wire.ask(b"SAVE\r\n", 5)
            db.set("later", b"lost")
            process.kill()
        with (
            self.server() as (_, port),
            kvdb.Client(port=port, serializer=kvdb.BYTES) as db,
        ):
            self.assertEqual(db.get(every_byte), every_byte)
            self.assertIsNone(db.get("later"))
            ttl = db.ttl("expiring")
            assert ttl is not None
            self.assertTrue(900 < ttl < 1000)

    def test_a_snapshot_is_written_when_its_interval_has_passed(self) -> None:
        with (
            self.server("--snapshot-interval", "0.05") as (_, port),
            kvdb.Client(port=port) as db,
        ):
            db.set("k", 1)
            until(self.data.exists)
            self.assertIn('"key": "k"', self.data.read_text())

    def test_a_second_server_on_the_same_data_is_refused(self) -> None:
        with self.server():
            self.assertIn("in use by another kvdb", self.fails(str(self.data), "--port", "0"))

    def test_a_port_in_use_is_named(self) -> None:
        with self.server() as (_, port):
            line = self.fails(str(self.folder / "other.json"), "--port", str(port))
            self.assertIn(str(port), line)
        self.assertFalse((self.folder / "other.json.lock").exists())

    def test_damaged_data_is_refused_and_left_alone(self) -> None:
        self.data.write_text("precious\n")
        self.assertIn("line 1", self.fails(str(self.data), "--port", "0"))
        self.assertEqual(self.data.read_text(), "precious\n")
        self.assertEqual(os.listdir(self.folder), ["data.json"])

    def test_a_folder_that_does_not_exist_is_named(self) -> None:
        line = self.fails(str(self.folder / "no" / "data.json"), "--port", "0")
        self.assertIn("No such file", line)

    def test_in_memory_leaves_no_file(self) -> None:
        with self.server("--in-memory") as (process, port), Wire(port) as wire:
            wire.ask(b"SET k v\r\n", 5)
            self.assertIn(b"in memory", wire.ask(b"SAVE\r\n", 60))
            wire.socket.sendall(b"SHUTDOWN\r\n")
            self.end(process)
        self.assertEqual(os.listdir(self.folder), [])

    def test_the_start_tells_where_the_port_is_and_how_to_try_it(self) -> None:
        with self.server() as (_, port):
            self.assertIn(f"redis-cli -h 127.0.0.1 -p {port}", self.greeting)
            self.assertIn(f"telnet 127.0.0.1 {port}", self.greeting)

    @unittest.skipUnless(hasattr(signal, "SIGHUP"), "this system has no SIGHUP")
    def test_a_terminal_that_is_closed_loses_nothing(self) -> None:
        with self.server() as (process, port):
            with kvdb.Client(port=port) as db:
                db.set("k", "kept")
            process.send_signal(signal.SIGHUP)
            self.assertIn("stopped", self.end(process))
        self.assertIn('"kept', self.data.read_text())

    def test_an_older_python_is_told_what_is_needed(self) -> None:
        pythons = Path("~/.pyenv/versions").expanduser().glob("3.*/bin/python")
        found = 0
        for python in sorted(pythons):
            version = tuple(map(int, python.parts[-3].split(".")[:2]))
            if version >= (3, 11):
                continue
            found += 1
            done = subprocess.run(
                [str(python), "-B", "-m", "kvdb"],
                cwd=ROOT, capture_output=True, text=True, timeout=30,
            )  # fmt: skip
            said = f"kvdb needs Python 3.11 or newer; this is {version[0]}.{version[1]}\n"
            with self.subTest(python):
                self.assertEqual((done.returncode, done.stderr, done.stdout), (2, said, ""))
        if not found:
            self.skipTest("there is no older Python here")

    def test_version_and_help(self) -> None:
        python = ".".join(map(str, sys.version_info[:3]))
        version = f"kvdb {kvdb.__version__}, Python {python}"
        for flag, expected in (("--version", version), ("--help", "--max-mb")):
            done = subprocess.run(
                [sys.executable, "-m", "kvdb", flag], cwd=ROOT, capture_output=True, text=True
            )
            self.assertEqual(done.returncode, 0)
            self.assertIn(expected, done.stdout)


class StopHandlerTest(unittest.TestCase):
    """Ctrl-C asks once, warns of what would be lost, and ends at the third time."""

    def setUp(self) -> None:
        self.exited: list[int] = []
        self.enterContext(mock.patch("os._exit", self.exited.append))
        self.stderr = self.enterContext(contextlib.redirect_stderr(io.StringIO()))

    def listen(self, unsaved: int | None) -> None:
        persistence = None if unsaved is None else SimpleNamespace(changes_since_save=unsaved)
        self.service: Any = SimpleNamespace(
            stop_requests=queue.SimpleQueue(), persistence=persistence, stopping=False
        )
        self.handle = _stop_handler(self.service)

    def signal(self, number: int = signal.SIGINT) -> list[str]:
        """Have a signal arrive; return what is logged. Each asks for a stop with a save."""
        with self.assertLogs("kvdb", logging.WARNING) as logged:
            logging.getLogger("kvdb").warning("begin")
            self.handle(number, None)
        self.assertIs(self.service.stop_requests.get_nowait(), True)
        self.service.stopping = True  # as the main thread does when it sees that
        return [record.getMessage() for record in logged.records[1:]]

    def test_the_first_asks_the_second_warns_and_the_third_ends(self) -> None:
        self.listen(1234)
        self.assertEqual(self.signal(), [])
        (warning,) = self.signal()
        self.assertIn("1,234 changes would be lost", warning)
        self.assertEqual(self.exited, [])
        self.assertEqual(self.signal(), [])
        self.assertEqual(self.exited, [1])
        self.assertIn("what was not saved is lost", self.stderr.getvalue())

    def test_where_nothing_would_be_lost_the_second_ends(self) -> None:
        for unsaved in (0, None):
            self.exited.clear()
            self.listen(unsaved)
            self.signal()
            self.assertEqual(self.exited, [])
            self.assertEqual(self.signal(), [])
            self.assertEqual(self.exited, [1])

    def test_a_server_that_is_not_stopping_is_not_ended_by_force(self) -> None:
        self.listen(5)
        for _ in range(5):
            self.assertEqual(self.signal(), [], "nor is it saving")
            self.service.stopping = False  # the stop was refused: saving fails
            self.assertEqual(self.exited, [])

    def test_other_signals_only_ask(self) -> None:
        self.listen(5)
        for _ in range(5):
            self.assertEqual(self.signal(signal.SIGTERM), [])
        self.assertEqual(self.exited, [])
        self.assertEqual(self.signal(), [], "and count for no Ctrl-C")


class Requests:
    """Stands for Service.stop_requests: gives what a test lists; None: nothing for a second."""

    def __init__(self, *requests: bool | None) -> None:
        self._left = list(requests)

    def get(self, timeout: float) -> bool:
        request = self._left.pop(0)
        if request is None:
            raise queue.Empty
        return request


class WaitForStopTest(unittest.TestCase):
    """A stop that would lose what cannot be saved is refused once."""

    def wait(self, requests: list[bool | None], saves: list[bool]) -> tuple[bool, int]:
        """Return whether to save at the end, and how many errors were logged.

        `saves` are the outcomes of saving; without a request, saving works if it did last.
        """
        works = True

        def save() -> bool:
            nonlocal works
            works = saves.pop(0)
            return works

        service: Any = mock.Mock(stop_requests=Requests(*requests), save=save)
        type(service).saving_works = mock.PropertyMock(side_effect=lambda: works or self.mended)
        service.persistence.changes_since_save = 5
        service.store.total_keys = 7
        with self.assertLogs("kvdb", logging.INFO) as logged:
            save_at_end = _wait_for_stop(service)
        self.assertTrue(service.stopping)
        self.assertEqual((saves, service.stop_requests._left), ([], []))
        errors = [record for record in logged.records if record.levelno == logging.ERROR]
        return save_at_end, len(errors)

    def setUp(self) -> None:
        self.mended = False

    def test_what_can_be_saved_is_saved_before_anything_is_closed(self) -> None:
        self.assertEqual(self.wait([True], [True]), (True, 0))

    def test_without_saving_nothing_is_asked(self) -> None:
        self.assertEqual(self.wait([None, False], []), (False, 0))

    def test_where_saving_fails_the_first_request_is_refused_and_the_second_is_not(self) -> None:
        self.assertEqual(self.wait([True, True], [False]), (True, 1))
        self.assertEqual(self.wait([True, None, None, True], [False]), (True, 1))

    def test_once_saving_works_again_a_refusal_is_forgotten(self) -> None:
        self.mended = True
        self.assertEqual(self.wait([True, None, True, None, True], [False, False, True]), (True, 2))

    def test_a_stop_without_saving_is_never_refused(self) -> None:
        self.assertEqual(self.wait([True, False], [False]), (False, 1))


def has_address(address: str) -> bool:
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    try:
        with socket.socket(family) as each:
            each.bind((address, 0))
    except OSError:
        return False
    return True


ELSEWHERE = ("192.0.2.1", "192.0.2.2")
"""Addresses that this machine does not have."""


class AddressTest(unittest.TestCase):
    """A name listens on all the addresses that it has and this machine has."""

    def setUp(self) -> None:
        self.enterContext(mock.patch("kvdb.server.listener._STOP_POLL", 0.01))

    def resolve(self, *addresses: str) -> None:
        """Have the name of the host lead to these addresses."""
        self.enterContext(mock.patch("kvdb.service.addresses_of", return_value=list(addresses)))
        bind = Listener.server_bind

        def bind_unless_elsewhere(port: Listener) -> None:
            # Some systems let a program listen on any address.
            if str(port.server_address[0]) in ELSEWHERE:
                raise OSError(errno.EADDRNOTAVAIL, "Cannot assign requested address")
            bind(port)

        self.enterContext(mock.patch.object(Listener, "server_bind", bind_unless_elsewhere))

    def check_listens_on(self, *addresses: str) -> None:
        ports = {"memcached_port": 0, "haus_port": 0, "http_port": 0}
        with running_server(host="localhost", **ports) as service:
            for number, address in enumerate(addresses):
                with Wire(service.server.port, address) as wire:
                    self.assertEqual(wire.ask(b"INCR n\r\n", 4), b":%d\r\n" % (number + 1))
                with Wire(service.listeners["memcached"].port, address) as wire:
                    self.assertEqual(wire.ask(b"incr n 0\r\n", 3), b"%d\r\n" % (number + 1))
                for name in ("haus", "http"):
                    Wire(service.listeners[name].port, address).socket.close()
        for address in addresses:
            with self.assertRaises(ConnectionRefusedError):
                Wire(service.server.port, address)

    @unittest.skipUnless(has_address("127.0.0.2"), "this machine has one loopback address")
    def test_it_listens_on_all_of_them(self) -> None:
        self.resolve("127.0.0.1", "127.0.0.2")
        self.check_listens_on("127.0.0.1", "127.0.0.2")

    @unittest.skipUnless(has_address("::1"), "this machine has no IPv6")
    def test_of_both_families(self) -> None:
        self.resolve("::1", "127.0.0.1")
        self.check_listens_on("::1", "127.0.0.1")

    def test_an_address_that_the_machine_lacks_is_left_out(self) -> None:
        for addresses in ((ELSEWHERE[0], "127.0.0.1"), ("127.0.0.1", ELSEWHERE[1])):
            with self.subTest(addresses):
                self.resolve(*addresses)
                self.check_listens_on("127.0.0.1")

    def refused(self, **config: object) -> str:
        settings = {"data": None, "port": 0, **config}
        with self.assertRaises(CannotStart) as caught:
            Service(Config(**settings))  # type: ignore[arg-type]
        (line,) = str(caught.exception).splitlines()
        return line

    def test_a_name_whose_addresses_are_all_elsewhere_is_refused(self) -> None:
        self.resolve(*ELSEWHERE)
        line = self.refused(host="far.example")
        self.assertEqual(line, "this machine has no address of --host far.example")

    def test_a_name_without_an_address_is_refused(self) -> None:
        unknown = socket.gaierror(socket.EAI_NONAME, "Name or service not known")
        with mock.patch("socket.getaddrinfo", side_effect=unknown):
            line = self.refused(host="nowhere.example")
        self.assertIn("--host nowhere.example: Name or service not known", line)

    def test_a_port_in_use_on_any_of_them_is_refused_and_none_stays_open(self) -> None:
        self.resolve("127.0.0.1", "127.0.0.2")
        for address in ("127.0.0.1", "127.0.0.2"):
            if not has_address(address):
                continue
            with socket.create_server((address, 0)) as listener:
                port = listener.getsockname()[1]
                line = self.refused(host="localhost", port=port)
            self.assertIn(f"cannot listen on localhost port {port}: Address already in use", line)
            with running_server(host="localhost", port=port):
                pass

    def test_each_address_of_a_name_is_found_once(self) -> None:
        entry = (socket.AF_INET, socket.SOCK_STREAM, 6, "", ("127.0.0.1", 0))
        six = (socket.AF_INET6, socket.SOCK_STREAM, 6, "", ("::1", 0, 0, 0))
        with mock.patch("socket.getaddrinfo", return_value=[six, entry, entry, six]):
            self.assertEqual(addresses_of("localhost"), ["::1", "127.0.0.1"])


if __name__ == "__main__":
    unittest.main()
