"""Where memory comes from: the process starts anew where that lets more of it go back."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import unittest
from pathlib import Path
from unittest import mock

import kvdb
from kvdb import allocator
from kvdb.allocator import can_be_kept, give_back, has_glibc, tune_allocator, use_system_allocator

ROOT = Path(kvdb.__file__).parent.parent
NO_GLIBC = (None, "", "uClibc 1.0")


class StartingAnew(Exception):
    """Stands for execve(), which does not come back."""


@contextlib.contextmanager
def glibc(version: str | type[Exception] | None):  # type: ignore[no-untyped-def]
    """Have the system say that this is its C library."""
    raises = isinstance(version, type)
    answer = {"side_effect": version} if raises else {"return_value": version}
    with mock.patch.object(allocator.os, "confstr", create=True, **answer):
        yield


def gil(enabled: bool):  # type: ignore[no-untyped-def]
    """Have the interpreter say whether it has a global lock."""
    return mock.patch.object(sys, "_is_gil_enabled", create=True, return_value=enabled)


class CanBeKeptTest(unittest.TestCase):
    def test_it_takes_glibc(self) -> None:
        with glibc("glibc 2.36"):
            self.assertTrue(has_glibc())
        for version in (*NO_GLIBC, ValueError, OSError, AttributeError):
            with self.subTest(version), glibc(version):
                self.assertFalse(has_glibc())
                self.assertFalse(can_be_kept())

    def test_it_takes_a_global_interpreter_lock(self) -> None:
        with glibc("glibc 2.36"):
            for enabled in (True, False):
                with gil(enabled):
                    self.assertEqual(can_be_kept(), enabled)

    def test_without_glibc_nothing_is_tuned_and_nothing_given_back(self) -> None:
        with glibc(None), mock.patch.dict(sys.modules, {"ctypes": None}):
            tune_allocator()  # importing ctypes would raise
            give_back()

    @unittest.skipUnless(has_glibc(), "needs glibc")
    def test_a_tuned_process_works_and_gives_back(self) -> None:
        code = """if True:
            from kvdb.allocator import give_back, tune_allocator
            from kvdb.memory import resident_bytes
            old = {number: b"%d" % number for number in range(100_000)}
            tune_allocator()
            empty = resident_bytes()
            new = {number: b"%d" % number * 30 for number in range(200_000)}
            for number in old:
                old[number] += new[number]  # resized and freed, whosever it was
            full = resident_bytes()
            new.clear()
            old.clear()
            give_back()
            left = resident_bytes()
            assert full - empty > 50e6, (empty, full)
            assert left - empty < 10e6, (empty, full, left)
        """
        environment = os.environ | {"PYTHONMALLOC": "malloc"}
        subprocess.run(
            [sys.executable, "-c", code], cwd=ROOT, env=environment, check=True, timeout=60
        )


class StartAnewTest(unittest.TestCase):
    """`use_system_allocator()` with an execve() that only remembers."""

    def setUp(self) -> None:
        self.enterContext(glibc("glibc 2.36"))
        self.enterContext(gil(True))
        self.enterContext(mock.patch.dict(os.environ))
        os.environ.pop("PYTHONMALLOC", None)
        self.execve = self.enterContext(mock.patch.object(allocator.os, "execve"))
        self.give_arguments("--in-memory", "--port", "0")

    def give_arguments(self, *arguments: str, before: tuple[str, ...] = ("-m", "kvdb")) -> None:
        """Have the process been started with these."""
        for name, words in (
            ("argv", ["/x/kvdb/__main__.py", *arguments]),
            ("orig_argv", ["python", *before, *arguments]),
        ):
            self.enterContext(mock.patch.object(sys, name, words))

    def give_flags(self, **flags: object) -> None:
        usual = {"ignore_environment": 0, "dev_mode": False}
        self.enterContext(mock.patch.object(sys, "flags", mock.Mock(**(usual | flags))))

    def assert_started_anew(self) -> None:
        use_system_allocator()
        self.execve.assert_called_once()

    def assert_left_alone(self) -> None:
        before = dict(os.environ)
        use_system_allocator()
        self.execve.assert_not_called()
        self.assertEqual(dict(os.environ), before)

    def test_the_process_starts_anew_with_the_same_words_and_one_variable_more(self) -> None:
        before = dict(os.environ)
        self.give_arguments("data.json", "--port", "0", before=("-X", "utf8", "-m", "kvdb"))
        self.assert_started_anew()
        ((path, words, environment), _) = self.execve.call_args
        self.assertEqual(path, sys.executable)
        expected = ["-X", "utf8", "-m", "kvdb", "data.json", "--port", "0"]
        self.assertEqual(words, [sys.executable, *expected])
        self.assertEqual(dict(environment), before | {"PYTHONMALLOC": "malloc"})

    def test_the_new_process_does_not_start_anew_again(self) -> None:
        self.execve.side_effect = StartingAnew
        with self.assertRaises(StartingAnew):
            use_system_allocator()
        self.execve.reset_mock(side_effect=True)
        self.assertEqual(os.environ["PYTHONMALLOC"], "malloc")  # as execve() hands it on
        self.assert_left_alone()

    def test_whoever_has_chosen_an_allocator_keeps_it(self) -> None:
        for chosen in ("pymalloc", "malloc_debug", "default", ""):
            with self.subTest(chosen):
                os.environ["PYTHONMALLOC"] = chosen
                self.assert_left_alone()

    def test_who_only_asks_something_is_answered_at_once(self) -> None:
        for flag in ("--version", "--help", "-h"):
            with self.subTest(flag):
                self.give_arguments("--port", "0", flag)
                self.assert_left_alone()

    def test_where_the_variable_is_not_looked_at_nothing_is_done(self) -> None:
        self.give_flags(ignore_environment=1)  # -E and -I
        self.assert_left_alone()

    def test_dev_mode_keeps_its_own_allocator(self) -> None:
        self.give_flags(dev_mode=True)
        self.assert_left_alone()
        self.give_flags()
        self.assert_started_anew()

    def test_where_it_is_of_no_use_nothing_is_done(self) -> None:
        for version in NO_GLIBC:
            with glibc(version):
                self.assert_left_alone()
        with gil(False):
            self.assert_left_alone()
        with mock.patch.object(sys.implementation, "name", "pypy"):
            self.assert_left_alone()

    def test_a_system_that_refuses_goes_on_with_the_process_as_it_is(self) -> None:
        self.execve.side_effect = PermissionError
        self.assert_started_anew()


class ProcessTest(unittest.TestCase):
    def start(self, *before: str, **environment: str) -> subprocess.Popen[str]:
        """Start a server in a process of its own; return it once it serves."""
        clean = {name: value for name, value in os.environ.items() if name != "PYTHONMALLOC"}
        process = subprocess.Popen(
            [sys.executable, *before, "-m", "kvdb", "--in-memory", "--port", "0"],
            cwd=ROOT,
            env=clean | environment,
            stderr=subprocess.PIPE,
            text=True,
        )
        self.addCleanup(process.wait)
        self.addCleanup(process.kill)
        assert process.stderr is not None
        self.addCleanup(process.stderr.close)
        for line in process.stderr:
            if "listening on" in line:
                return process
        raise AssertionError("it ended without a word")

    def allocator_of(self, process: subprocess.Popen[str]) -> str | None:
        variables = Path(f"/proc/{process.pid}/environ").read_bytes().split(b"\0")
        found = [each for each in variables if each.startswith(b"PYTHONMALLOC=")]
        return found[0].decode().partition("=")[2] if found else None

    def stop(self, process: subprocess.Popen[str]) -> None:
        process.send_signal(signal.SIGTERM)
        self.assertEqual(process.wait(30), 0)

    @unittest.skipUnless(sys.platform == "linux" and can_be_kept(), "needs Linux with glibc")
    def test_a_server_has_the_systems_allocator_and_the_process_id_it_was_given(self) -> None:
        process = self.start()
        self.assertEqual(self.allocator_of(process), "malloc")
        self.stop(process)

    @unittest.skipUnless(sys.platform == "linux" and can_be_kept(), "needs Linux with glibc")
    def test_a_choice_of_ones_own_is_kept(self) -> None:
        process = self.start(PYTHONMALLOC="pymalloc")
        self.assertEqual(self.allocator_of(process), "pymalloc")
        self.stop(process)


if __name__ == "__main__":
    unittest.main()
