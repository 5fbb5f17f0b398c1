from __future__ import annotations

import contextlib
import io
import os
import re
import signal
import subprocess
import sys
import tempfile
import threading
import unittest
from collections.abc import Iterator
from pathlib import Path

import kvdb
from kvdb.cli import parse_config
from kvdb.config import MB, Config
from kvdb.service import CannotStart
from tests.support import Wire

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
                if "main door" in line:
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
            never = threading.Event()
            for _ in range(1000):
                if self.data.exists():
                    break
                never.wait(0.01)
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

    def test_the_start_tells_where_the_door_is_and_how_to_try_it(self) -> None:
        with self.server() as (_, port):
            self.assertIn(f"redis-cli -h 127.0.0.1 -p {port}", self.greeting)
            self.assertIn(f"telnet 127.0.0.1 {port}", self.greeting)

    def test_version_and_help(self) -> None:
        for flag, expected in (("--version", kvdb.__version__), ("--help", "--max-mb")):
            done = subprocess.run(
                [sys.executable, "-m", "kvdb", flag], cwd=ROOT, capture_output=True, text=True
            )
            self.assertEqual(done.returncode, 0)
            self.assertIn(expected, done.stdout)
