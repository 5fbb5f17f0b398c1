from __future__ import annotations

import contextlib
import os
import subprocess
import sys
import tempfile
import unittest
from pathlib import Path
from unittest import mock

import kvdb
from kvdb.persistence import lockfile
from kvdb.persistence.lockfile import AlreadyLocked, LockFile

HOLD_THE_LOCK = """
import sys
from pathlib import Path
from kvdb.persistence.lockfile import LockFile
lock = LockFile(Path(sys.argv[1]))
print("locked", flush=True)
sys.stdin.read()
"""


class LockFileTest(unittest.TestCase):
    def setUp(self) -> None:
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.data = Path(folder.name) / "data.kvdb"
        self.file = Path(folder.name) / "data.kvdb.lock"

    def lock(self) -> LockFile:
        lock = LockFile(self.data)
        self.addCleanup(self.release, lock)
        return lock

    def release(self, lock: LockFile) -> None:
        with contextlib.suppress(OSError):  # a test may have released it
            lock.release()

    def assert_locked(self) -> None:
        with self.assertRaises(AlreadyLocked):
            LockFile(self.data)

    def test_a_second_lock_on_the_same_data_is_refused(self) -> None:
        self.lock()
        self.assertTrue(self.file.exists())
        self.assert_locked()
        self.assert_locked()  # the refused one has broken nothing
        self.assertFalse(self.data.exists())

    def test_release_frees_the_lock_and_removes_the_file(self) -> None:
        LockFile(self.data).release()
        self.assertFalse(self.file.exists())
        self.lock()
        self.assert_locked()

    def test_a_lock_whose_file_was_removed_is_taken_again(self) -> None:
        lock = self.lock()
        self.file.unlink()
        lock.ensure()
        self.assertTrue(self.file.exists())
        self.assert_locked()

    def test_a_lock_that_somebody_else_has_taken_meanwhile_is_lost(self) -> None:
        first = self.lock()
        self.file.unlink()
        self.lock()
        with self.assertRaises(AlreadyLocked):
            first.ensure()
        first.release()
        self.assertTrue(self.file.exists(), "it is the second one's")
        self.assert_locked()

    def test_other_data_in_the_same_folder_has_a_lock_of_its_own(self) -> None:
        self.lock()
        LockFile(self.data.with_name("other.kvdb")).release()
        self.assert_locked()

    def test_a_file_that_nobody_holds_is_no_obstacle(self) -> None:
        self.file.write_bytes(b"left behind")
        self.lock()
        self.assert_locked()

    def test_a_folder_that_is_missing_is_an_error_of_its_own(self) -> None:
        with self.assertRaises(FileNotFoundError):
            LockFile(self.data / "missing" / "data.kvdb")

    def test_a_lock_on_a_file_just_removed_is_taken_again_on_the_new_one(self) -> None:
        real, calls = lockfile._lock, []

        def after_its_holder_left(descriptor: int) -> None:
            calls.append(descriptor)
            if len(calls) == 1:
                self.file.unlink()
            elif len(calls) == 2:  # and somebody else has made a new one
                self.file.rename(self.file.with_name("removed"))
                self.file.touch()
            real(descriptor)

        with mock.patch.object(lockfile, "_lock", after_its_holder_left):
            self.lock()
        self.assertEqual(len(calls), 3)
        self.assertTrue(self.file.exists())
        self.assert_locked()

    @unittest.skipUnless(Path("/proc/self/fd").exists(), "counts open files as Linux lists them")
    def test_refused_and_released_locks_leave_no_open_file(self) -> None:
        before = len(os.listdir("/proc/self/fd"))
        lock = LockFile(self.data)
        for _ in range(5):
            self.assert_locked()
        lock.release()
        self.assertEqual(len(os.listdir("/proc/self/fd")), before)

    def test_the_lock_of_another_process_ends_with_it_even_if_it_is_killed(self) -> None:
        with subprocess.Popen(
            [sys.executable, "-c", HOLD_THE_LOCK, str(self.data)],
            cwd=Path(kvdb.__file__).parent.parent,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        ) as process:
            self.addCleanup(process.kill)
            assert process.stdout is not None
            self.assertEqual(process.stdout.readline().strip(), b"locked")
            self.assert_locked()
            process.kill()
        self.lock()
        self.assert_locked()
