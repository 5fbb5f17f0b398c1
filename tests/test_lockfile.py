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

    # --- the data file itself ------------------------------------------------------------

    @unittest.skipIf(sys.platform == "win32", "there only the name is locked")
    def test_the_same_file_by_another_name_is_refused(self) -> None:
        self.data.write_bytes(b"data")
        self.lock()
        other = self.data.with_name("other.kvdb")
        os.link(self.data, other)
        for _ in range(2):
            with self.assertRaises(AlreadyLocked):
                LockFile(other)
        self.assertFalse(other.with_name("other.kvdb.lock").exists(), "it was left behind")
        self.assertEqual(self.data.read_bytes(), b"data")

    @unittest.skipIf(sys.platform == "win32", "a second process cannot remove the file there")
    def test_a_second_one_is_refused_after_the_lock_file_was_removed(self) -> None:
        self.data.write_bytes(b"data")
        self.lock()
        self.file.unlink()
        self.assert_locked()

    @unittest.skipIf(sys.platform == "win32", "there only the name is locked")
    def test_a_data_file_that_appears_is_locked_at_the_next_look(self) -> None:
        lock = self.lock()
        self.data.write_bytes(b"data")
        lock.ensure()
        self.file.unlink()
        self.assert_locked()

    @unittest.skipIf(sys.platform == "win32", "there only the name is locked")
    def test_a_data_file_put_in_its_place_is_locked_at_the_next_look(self) -> None:
        self.data.write_bytes(b"old")
        lock = self.lock()
        new = self.data.with_name("new")
        new.write_bytes(b"new")
        new.replace(self.data)
        lock.ensure()
        self.file.unlink()
        self.assert_locked()

    @unittest.skipIf(sys.platform == "win32", "there only the name is locked")
    def test_a_data_file_that_another_one_has_locked_meanwhile_is_lost(self) -> None:
        lock = self.lock()
        other = self.data.with_name("other.kvdb")
        other.write_bytes(b"theirs")
        theirs = LockFile(other)
        self.addCleanup(theirs.release)
        os.link(other, self.data)
        with self.assertRaises(AlreadyLocked):
            lock.ensure()

    @unittest.skipIf(sys.platform == "win32", "there only the name is locked")
    def test_the_lock_goes_over_to_a_file_that_takes_the_data_files_place(self) -> None:
        self.data.write_bytes(b"old")
        lock = self.lock()
        for _ in range(2):
            new = self.data.with_name("new")
            with open(new, "wb") as file:
                lock.adopt(file.fileno())
            new.replace(self.data)
            self.file.unlink(missing_ok=True)
            self.assert_locked()  # with the file closed and the old one gone
        lock.release()
        self.lock()

    @unittest.skipIf(sys.platform == "win32", "there only the name is locked")
    def test_release_frees_the_data_file_too(self) -> None:
        self.data.write_bytes(b"data")
        for name in ("a", "b"):
            LockFile(self.data).release()
            other = self.data.with_name(name)
            os.link(self.data, other)
            LockFile(other).release()

    # --- the note ------------------------------------------------------------------------

    def test_a_note_is_read_by_who_finds_it_after_a_crash(self) -> None:
        process = self.start(HOLD_THE_LOCK.replace("print(", "lock.write_note('step 17'); print("))
        process.kill()
        process.wait()
        lock = self.lock()
        self.assertEqual(lock.note, "step 17")

    def test_without_a_crash_there_is_none(self) -> None:
        lock = LockFile(self.data)
        self.assertEqual(lock.note, "")
        lock.write_note("step 17")
        lock.release()
        self.assertFalse(self.file.exists())
        self.assertEqual(self.lock().note, "")

    def test_the_last_note_counts_however_long_the_one_before_was(self) -> None:
        process = self.start(
            HOLD_THE_LOCK.replace(
                "print(", "lock.write_note('x' * 1000); lock.write_note('short'); print("
            )
        )
        process.kill()
        process.wait()
        self.assertEqual(self.file.stat().st_size, 256)
        self.assertEqual(self.lock().note, "short")

    def test_what_was_left_there_in_no_encoding_is_no_obstacle(self) -> None:
        self.file.write_bytes(b"\xff\xfe" * 1000)
        self.assertTrue(self.lock().note)
        self.assert_locked()

    # --- nothing is left behind ----------------------------------------------------------

    @unittest.skipUnless(Path("/proc/self/fd").exists(), "counts open files as Linux lists them")
    def test_refused_and_released_locks_leave_no_open_file(self) -> None:
        before = len(os.listdir("/proc/self/fd"))
        self.data.write_bytes(b"data")
        lock = LockFile(self.data)
        other = self.data.with_name("other.kvdb")
        os.link(self.data, other)
        for _ in range(5):
            self.assert_locked()
            with self.assertRaises(AlreadyLocked):
                LockFile(other)
            lock.ensure()
            new = self.data.with_name("new.kvdb")
            with open(new, "wb") as file:
                lock.adopt(file.fileno())
            with open(new, "rb") as file, self.assertRaises(AlreadyLocked):
                lock.adopt(file.fileno())  # opened anew, it is somebody else's
            new.replace(self.data)
            other.unlink()
            os.link(self.data, other)
        lock.release()
        self.assertEqual(len(os.listdir("/proc/self/fd")), before)

    def test_the_lock_of_another_process_ends_with_it_even_if_it_is_killed(self) -> None:
        self.data.write_bytes(b"data")
        process = self.start(HOLD_THE_LOCK)
        self.assert_locked()
        process.kill()
        process.wait()
        self.assertTrue(self.file.exists())
        self.lock()
        self.assert_locked()

    def start(self, code: str) -> subprocess.Popen[bytes]:
        """Run this in another process; return once it holds the lock."""
        process = subprocess.Popen(
            [sys.executable, "-c", code, str(self.data)],
            cwd=Path(kvdb.__file__).parent.parent,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )
        self.addCleanup(process.__exit__, None, None, None)
        self.addCleanup(process.kill)
        assert process.stdout is not None
        self.assertEqual(process.stdout.readline().strip(), b"locked")
        return process
