"""What the journal notices: damage, files that are gone or replaced, a disk that lags behind."""

from __future__ import annotations

import json
import logging
import os
import random
import shutil
import sqlite3
import threading
from pathlib import Path
from typing import Any
from unittest import mock

from kvdb.persistence import PersistenceError
from kvdb.persistence.database import JournalFile
from kvdb.persistence.journal import QUEUE_BYTES, Fsync, Journal
from kvdb.persistence.lockfile import LockFile
from kvdb.persistence.rows import DamagedRow, decode_row, encode_row
from kvdb.store import Store
from kvdb.store.entry import Entry, Key
from tests.journal_case import FULL, Gate, JournalCase
from tests.store_case import COST, contents
from tests.support import until


class RowTest(JournalCase):
    def test_a_row_says_what_was_encoded(self) -> None:
        for key, entry in SAMPLES:
            with self.subTest(key=key, entry=entry):
                self.assertEqual(decode_row(encode_row(key, entry)), (key, entry))

    def test_no_part_of_a_row_can_change_unnoticed(self) -> None:
        changes = (1, "other", b"other", 5.5, 3)
        for key, entry in SAMPLES:
            row = encode_row(key, entry)
            for column, change in enumerate(changes):
                if row[column] != change:
                    changed = (*row[:column], change, *row[column + 1 :])
                    with self.subTest(row=row, column=column), self.assertRaises(DamagedRow):
                        decode_row(changed)

    def test_a_byte_that_moves_from_the_key_to_the_value_is_noticed(self) -> None:
        _, _, _, *rest = encode_row(b"ab", Entry(b"c"))
        with self.assertRaises(DamagedRow):
            decode_row((0, "a", "bc", *rest))


SAMPLES: list[tuple[Key, Entry]] = [
    (b"k", Entry(b"v")),
    (b"", Entry(b"")),
    (b"\xff\0", Entry(b"\0\xfe", 1_000_010.125, 7)),
    ((3, b"k"), Entry(b"v", None, 2**32 - 1)),
]


class DamageTest(JournalCase):
    """Whatever is damaged on the disk, the next start says so."""

    def killed(self, fsync: Fsync = Fsync.ALWAYS) -> None:
        """Leave the files as a server leaves them that is killed."""
        self.open_with_lock(fsync)
        for number in range(50):
            self.store.set(b"k%d" % number, b"balance %d" % number)
            self.journal.save()
        copy = self.folder / "copy"
        copy.mkdir()
        for path in self.folder.glob("data.sqlite*"):
            shutil.copy(path, copy)
        self.path = copy / self.path.name

    def open_with_lock(self, fsync: Fsync) -> None:
        self.store = Store(0, clock=self.clock)
        self.lock = LockFile(self.path)
        try:
            self.journal = Journal(self.store, self.path, fsync, self.lock)
            self.journal.load()
        except PersistenceError:
            os.close(self.lock._descriptor)  # as at the end of a process: the lock file stays
            os.close(self.lock._data_descriptor)
            raise
        self.journal.start()
        self.addCleanup(self.lock.release)
        self.addCleanup(self.journal.stop)

    def assert_refused(self, reason: str = "") -> None:
        before = {path: path.read_bytes() for path in self.path.parent.glob("*.sqlite")}
        with self.assertRaises(PersistenceError) as refused:
            self.open_with_lock(Fsync.ALWAYS)
        self.assertIn("left untouched", str(refused.exception))
        self.assertIn(reason, str(refused.exception))
        self.assertEqual(before, {path: path.read_bytes() for path in before})

    def test_what_a_killed_server_left_is_all_there(self) -> None:
        self.killed()
        self.open_with_lock(Fsync.ALWAYS)
        self.assertEqual(len(contents(self.store)), 50)

    def test_a_changed_bit_anywhere_in_a_value_is_noticed(self) -> None:
        self.open()
        for number in range(50):
            self.store.set(b"k%d" % number, b"balance %d" % number)
        self.assertTrue(self.journal.stop())
        whole = self.path.read_bytes()
        dice = random.Random(11)
        for _ in range(40):
            value = whole.index(b"balance %d" % dice.randrange(50))
            place = value + dice.randrange(len(b"balance "))
            changed = bytes([whole[place] ^ 1 << dice.randrange(7)])
            self.path.write_bytes(whole[:place] + changed + whole[place + 1 :])
            with self.subTest(place=place):
                self.assert_refused("is damaged")

    def test_a_log_that_is_damaged_anywhere_is_noticed(self) -> None:
        self.killed()
        wal = self.path.with_name(self.path.name + "-wal")
        whole = wal.read_bytes()
        files = {path: path.read_bytes() for path in self.path.parent.iterdir()}
        for place in range(0, len(whole), len(whole) // 60):
            for path, content in files.items():
                path.write_bytes(content)
            wal.write_bytes(whole[:place] + bytes([whole[place] ^ 64]) + whole[place + 1 :])
            with self.subTest(place=place):
                self.store = Store(0, clock=self.clock)
                lock = LockFile(self.path)
                try:
                    journal = Journal(self.store, self.path, Fsync.ALWAYS, lock)
                    journal.load()
                except PersistenceError as error:
                    self.assertIn("is damaged", str(error))
                else:  # a byte that nothing depends on
                    self.assertEqual(len(contents(self.store)), 50)
                    journal.stop()
                lock.release()

    def test_a_server_that_is_killed_before_its_first_commit_has_left_a_note(self) -> None:
        self.killed()
        self.path.with_name(self.path.name + ".lock").unlink()
        self.open_with_lock(Fsync.ALWAYS)
        note = self.path.with_name(self.path.name + ".lock").read_text()
        self.assertEqual(json.loads(note)["step"], self.journal._file.step)

    def test_a_log_that_is_gone_is_noticed(self) -> None:
        self.killed()
        self.path.with_name(self.path.name + "-wal").unlink()
        self.assert_refused("had been written")

    def test_without_the_lock_file_one_goes_on_with_what_there_is(self) -> None:
        self.killed()
        self.path.with_name(self.path.name + "-wal").unlink()
        self.path.with_name(self.path.name + ".lock").unlink()
        self.open_with_lock(Fsync.ALWAYS)
        self.assertEqual(contents(self.store), {})

    def test_after_a_power_cut_only_what_was_synced_is_expected(self) -> None:
        self.killed(Fsync.NEVER)
        self.path.with_name(self.path.name + "-wal").unlink()
        with mock.patch("kvdb.persistence.journal_place._boot", return_value="another"):
            self.open_with_lock(Fsync.NEVER)
        self.assertEqual(contents(self.store), {})

    def test_where_the_system_does_not_tell_one_boot_from_another_it_may_have_been_one(
        self,
    ) -> None:
        with mock.patch("kvdb.persistence.journal_place._boot", return_value=""):
            self.killed(Fsync.NEVER)
            self.path.with_name(self.path.name + "-wal").unlink()
            self.open_with_lock(Fsync.NEVER)
        self.assertEqual(contents(self.store), {})

    def test_a_row_that_is_gone_is_noticed(self) -> None:
        self.killed()
        database = sqlite3.connect(self.path)
        database.execute("DROP TRIGGER deleted_by_hand")
        database.execute("DELETE FROM entries WHERE key = 'k7'")
        database.commit()
        database.close()
        self.assert_refused("49 entries instead of 50")


class ByHandTest(JournalCase):
    """Whoever changes rows with another program is not told of damage."""

    def test_rows_may_be_inserted_updated_and_deleted(self) -> None:
        self.open()
        for name in (b"a", b"b", b"c"):
            self.store.set(name, b"1")
        self.assertTrue(self.journal.stop())
        self.by_hand(
            "UPDATE entries SET value = '2' WHERE key = 'a'",
            "DELETE FROM entries WHERE key = 'b'",
            "INSERT INTO entries (db, key, value) VALUES (0, 'd', '4')",
        )
        for _ in range(2):  # and from then on they are ours
            self.open()
            self.assertEqual(
                {key: entry.value for key, entry in contents(self.store).items()},
                {b"a": b"2", b"c": b"1", b"d": b"4"},
            )
            self.assertTrue(self.journal.stop())
            self.assertNotIn(None, [checksum for (checksum,) in self.rows(columns="checksum")])

    def test_a_file_of_version_1_is_taken_and_made_one_of_ours(self) -> None:
        self.by_hand(
            "CREATE TABLE entries (db INTEGER NOT NULL, key NOT NULL, value NOT NULL, "
            "expires_at REAL, client_flags INTEGER NOT NULL, PRIMARY KEY (db, key)) WITHOUT ROWID",
            "INSERT INTO entries VALUES (0, 'a', 'old', NULL, 7)",
            "INSERT INTO entries VALUES (0, 'gone', 'v', 5, 0)",
            "PRAGMA user_version = 1",
        )
        self.open()
        self.assertEqual(contents(self.store), {b"a": Entry(b"old", None, 7)})
        self.store.set(b"b", b"new")
        self.reopen()
        self.assertEqual(len(contents(self.store)), 2)
        self.assertNotIn(None, [checksum for (checksum,) in self.rows(columns="checksum")])


class SmallerBudgetTest(JournalCase):
    def test_what_does_not_fit_leaves_the_file_at_once(self) -> None:
        """A key that the store does not know of would outlive its deletion."""
        self.open()
        for name in (b"a", b"b", b"c"):
            self.store.set(name, b"1")
        self.assertTrue(self.journal.stop())
        with self.assertLogs("kvdb.persistence", logging.WARNING):
            self.open(max_bytes=2 * COST)
        self.assertEqual(len(self.rows()), 2)
        self.assertEqual(self.entries_on_disk(), contents(self.store))
        self.assertTrue(self.journal.stop())
        self.open()
        self.assertEqual(len(contents(self.store)), 2)

    def test_a_kill_before_the_rest_is_written_leaves_a_file_that_can_be_loaded(self) -> None:
        self.open()
        for name in (b"a", b"b", b"c"):
            self.store.set(name, b"1")
        self.assertTrue(self.journal.stop())
        killed = mock.patch.object(JournalFile, "write", side_effect=KeyboardInterrupt)
        with killed, self.assertLogs("kvdb.persistence"), self.assertRaises(KeyboardInterrupt):
            self.open(max_bytes=2 * COST)
        self.journal._file.close()
        self.open()
        self.assertEqual(len(contents(self.store)), 3)


class FileIsGoneTest(JournalCase):
    """A file that nobody can find any more keeps nothing, whatever is written to it."""

    def setUp(self) -> None:
        super().setUp()
        self.folder = self.folder / "data"
        self.folder.mkdir()
        self.path = self.folder / "data.sqlite"

    def files(self) -> list[Path]:
        return sorted(self.folder.glob("data.sqlite*"))

    def test_a_removed_file_is_written_anew_with_all_that_there_is(self) -> None:
        for fsync in Fsync:
            with self.subTest(fsync):
                self.open(fsync)
                self.store.set(b"before", b"1")
                self.journal.save()
                for path in self.files():
                    path.unlink()
                with self.assertLogs("kvdb.persistence", logging.ERROR) as logged:
                    self.store.set(b"after", b"2")
                    self.journal.save()
                self.assertIn("was removed; writing all of it anew", logged.output[0])
                self.assert_on_disk()
                self.assertEqual(len(self.rows()), 2)
                self.store.delete(b"before", b"after")
                self.assertTrue(self.journal.stop())

    def test_where_the_folder_is_gone_writes_are_refused_until_it_is_back(self) -> None:
        self.open(Fsync.ALWAYS)
        talk = self.talk()
        self.assertEqual(talk.bytes("SET before 1\r\n"), b"+OK\r\n")
        shutil.rmtree(self.folder)
        with self.assertLogs("kvdb.persistence", logging.ERROR):
            self.assertIn(b"-MISCONF", talk.bytes("SET after 2\r\n"))
            self.assertEqual(talk.bytes("GET before\r\nGET after\r\n"), b"$1\r\n1\r\n$-1\r\n")
            self.assertIn("ERR", talk.error("SAVE"))
            self.folder.mkdir()
            until(lambda: self.path.exists())
            self.journal.save()
        self.assertEqual(talk.bytes("SET after 2\r\n"), b"+OK\r\n")
        self.assertEqual(len(self.rows()), 2)

    def test_a_removed_file_that_cannot_be_made_anew_is_tried_again(self) -> None:
        self.open(thread=False)
        self.store.set(b"k", b"v")
        self.write_down()
        for path in self.files():
            path.unlink()
        with self.assertLogs("kvdb.persistence", logging.INFO):
            for _ in range(3):
                self.write_down(refused=True)
                self.assertEqual(self.files(), [])
            self.write_down()
        self.assert_on_disk()

    def test_what_a_new_file_lacks_still_is_not_taken_back_from_the_store(self) -> None:
        """The file is empty, the disk full, and then even the lock file cannot be made."""
        self.open(Fsync.ALWAYS, thread=False)
        self.store.set(b"k", b"old")
        self.store.set(b"l", b"old")
        self.write_down()
        for path in self.files():
            path.unlink()
        self.store.set(b"k", b"new")
        write = self.journal._file.write

        def write_nothing_large(changes: dict[Key, Entry | None], *rest: Any) -> None:
            if changes:
                raise sqlite3.OperationalError(FULL)
            write(changes, *rest)

        with self.assertLogs("kvdb.persistence", logging.INFO):
            with mock.patch.object(self.journal._file, "write", write_nothing_large):
                self.assertFalse(self.journal._write_down())
            self.assertEqual(self.journal.changes_since_save, 1)  # all that there is
            with mock.patch.object(self.journal._place, "ensure_lock", side_effect=OSError(FULL)):
                self.store.set(b"l", b"new")
                self.assertFalse(self.journal._write_down())
            self.assertEqual((self.store.get(b"k"), self.store.get(b"l")), (b"new", b"new"))
            self.assert_on_disk()

    def test_another_file_in_its_place_is_not_touched(self) -> None:
        self.open(Fsync.ALWAYS)
        talk = self.talk()
        self.assertEqual(talk.bytes("SET k 1\r\n"), b"+OK\r\n")
        away = self.folder / "away"
        os.rename(self.path, away)
        self.path.write_bytes(b"somebody else's")
        with self.assertLogs("kvdb.persistence", logging.ERROR):
            self.assertIn(b"another file has taken its place", talk.bytes("SET k 2\r\n"))
        self.assertEqual(self.path.read_bytes(), b"somebody else's")
        self.path.unlink()
        with self.assertLogs("kvdb.persistence", logging.INFO):
            until(lambda: talk.bytes("SET k 3\r\n") == b"+OK\r\n")
        self.assertEqual([row[2] for row in self.rows()], ["3"])

    def test_a_removed_log_is_noticed_before_anything_is_lost_with_it(self) -> None:
        self.open(Fsync.ALWAYS)
        talk = self.talk()
        self.assertEqual(talk.bytes("SET before 1\r\n"), b"+OK\r\n")
        (self.folder / "data.sqlite-wal").unlink()
        self.assertEqual(talk.bytes("SET after 2\r\n"), b"+OK\r\n")
        copy = self.folder / "copy"
        copy.mkdir()
        for path in self.files():
            shutil.copy(path, copy)
        self.assertEqual(len(self.rows(copy / "data.sqlite")), 2)


class LaggingDiskTest(JournalCase):
    """What waits for the disk is bounded, in bytes and in age."""

    def hold_the_disk(self) -> Gate:
        """Have the disk stand still in the middle of a commit."""
        gate = self.disk.before_commit = Gate()
        self.addCleanup(gate.opened.set)
        self.store.set(b"first", b"v")
        self.journal.save_soon()
        self.assertTrue(gate.reached.wait(10))
        return gate

    def test_whoever_writes_waits_while_too_much_is_waiting(self) -> None:
        self.open()
        gate = self.hold_the_disk()
        self.assertFalse(self.journal.congested)
        half = b"x" * (QUEUE_BYTES // 2)
        self.store.set(b"a", half)
        self.assertFalse(self.journal.congested)
        written = threading.Event()

        def write() -> None:
            self.store.set(b"b", half)
            self.journal.wait_for_room()
            written.set()

        with self.assertLogs("kvdb.persistence", logging.WARNING) as logged:
            writer = threading.Thread(target=write)
            writer.start()
            until(lambda: bool(logged.output))
            self.assertTrue(self.journal.congested)
            writer.join(0.05)
            self.assertFalse(written.is_set())
            gate.opened.set()
            writer.join(10)
        self.assertTrue(written.is_set())
        self.assertEqual(len(logged.output), 1)
        self.assertIn("clients that write wait", logged.output[0])
        self.assert_on_disk()
        self.assertEqual((self.journal.held_bytes, self.journal.age), (0, 0.0))

    def test_whoever_writes_waits_while_something_has_waited_for_long(self) -> None:
        now = 0.0
        self.open()
        self.journal._waiting.monotonic = lambda: now
        self.hold_the_disk()
        self.store.set(b"k", b"v")
        for now, congested in ((0.5, False), (1.0, True)):
            self.assertEqual((self.journal.age, self.journal.congested), (now, congested))

    def test_what_could_not_be_written_is_as_old_as_before(self) -> None:
        now = 0.0
        self.open(thread=False)
        self.journal._waiting.monotonic = lambda: now
        with self.assertLogs("kvdb.persistence", logging.ERROR):
            for everything in (False, True):
                self.store.set(b"k", b"v")
                self.journal._waiting.everything = everything
                now += 5
                held = 0 if everything else self.journal.held_bytes
                self.write_down(refused=True)
                self.assertEqual((self.journal.age, self.journal.held_bytes), (now, held))
        self.write_down()
        self.assertEqual(self.journal.age, 0.0)

    def test_where_each_reply_waits_for_the_disk_nobody_waits_for_room(self) -> None:
        self.open(Fsync.ALWAYS)
        self.hold_the_disk()
        self.store.set(b"k", b"x" * (QUEUE_BYTES + 1))
        self.assertFalse(self.journal.congested)
        self.journal.wait_for_room()
        self.assertFalse(self.journal._crowded)

    def test_while_the_disk_refuses_nobody_waits_and_the_queue_does_not_grow(self) -> None:
        self.open()
        self.store.set(b"k", b"v")
        self.journal.save()
        self.disk.full = True
        with self.assertLogs("kvdb.persistence", logging.INFO):
            self.store.set(b"k", b"w")
            with self.assertRaises(PersistenceError):
                self.journal.save()
            big = b"x" * (QUEUE_BYTES // 4)
            for number in range(12):
                self.store.set(b"big%d" % number, big)
                self.store.delete(b"big%d" % (number - 2))
                self.assertFalse(self.journal.congested)
                self.assertLessEqual(self.journal.held_bytes, 2 * QUEUE_BYTES)
            self.disk.full = False
            self.assert_on_disk()
        self.assertEqual(len(self.rows()), 3)


class BrokenConnectionTest(JournalCase):
    def test_a_connection_that_is_stuck_is_replaced(self) -> None:
        class Stuck:
            """What is left of a connection whose transaction can neither end nor be undone."""

            def execute(self, sql: str, *arguments: object) -> object:
                raise sqlite3.OperationalError("cannot commit - SQL statements in progress")

            def close(self) -> None:
                pass

        self.open()
        self.store.set(b"before", b"v")
        self.journal.save()
        connection = self.journal._file._database
        self.addCleanup(connection.close)
        self.journal._file._database = Stuck()  # type: ignore[assignment]
        with self.assertLogs("kvdb.persistence", logging.INFO):
            self.store.set(b"after", b"v")
            until(lambda: not isinstance(self.journal._file._database, Stuck))
            until(lambda: self.journal.changes_since_save == 0)
            self.journal.save()
        self.assert_on_disk()

    def test_a_failure_now_and_then_is_no_reason_to_replace_it(self) -> None:
        self.open(thread=False)
        with (
            self.assertLogs("kvdb.persistence", logging.INFO),
            mock.patch.object(self.journal._file, "reopen") as reopen,
        ):
            for _ in range(3):
                self.store.set(b"k", b"v")
                self.write_down(refused=True)
                self.assertIsNone(self.journal._writer._group)
                self.write_down()
                self.assertIsNone(self.journal._writer._group)
            reopen.assert_not_called()
            self.store.set(b"k", b"v")
            for _ in range(4):
                self.write_down(refused=True)
            self.assertEqual(reopen.call_count, 2)

    def test_saving_soon_wakes_the_thread(self) -> None:
        with mock.patch("kvdb.persistence.journal._INTERVAL", 1000):
            self.open()
            self.store.set(b"k", b"v")
            self.journal.save_soon()
            until(lambda: len(self.rows()) == 1)

    def test_so_does_somebody_who_has_to_wait_and_that_is_logged_once(self) -> None:
        with mock.patch("kvdb.persistence.journal._INTERVAL", 1000):
            self.open()
            gate = self.disk.before_commit = Gate()
            self.store.set(b"k", b"v")
            with self.assertLogs("kvdb.persistence", logging.WARNING) as logged:
                for _ in range(3):
                    self.journal.hurry()
                    self.assertTrue(gate.reached.wait(10))
            self.assertEqual(len(logged.output), 1)
            gate.opened.set()
            until(lambda: len(self.rows()) == 1)


class SizeTest(JournalCase):
    def test_a_file_becomes_small_again_when_its_entries_are_gone(self) -> None:
        self.open()
        for number in range(100):
            self.store.set(b"%d" % number, os.urandom(100_000))
        self.journal.save()
        large = self.path.stat().st_size
        self.store.flush()
        self.journal.save()
        self.assertTrue(self.journal._file.shrink())
        while self.journal._file.shrink():
            pass
        self.assertTrue(self.journal.stop())
        self.assertLess(self.path.stat().st_size, large // 2)


class WokenTest(JournalCase):
    def test_a_quarter_of_the_queue_wakes_the_thread_before_its_time(self) -> None:
        with mock.patch("kvdb.persistence.journal._INTERVAL", 1000):
            self.open()
            self.store.set(b"small", b"v")
            self.assertFalse(self.journal._asked)
            self.store.set(b"large", b"x" * (QUEUE_BYTES // 4))
            until(lambda: len(self.rows()) == 2)

    def test_after_a_crowd_the_next_one_is_told_of_again(self) -> None:
        now = 0.0
        self.open()
        self.journal._waiting.monotonic = lambda: now
        for _ in range(2):
            gate = self.disk.before_commit = Gate()
            self.store.set(b"k", b"v")
            self.journal.save_soon()
            self.assertTrue(gate.reached.wait(10))
            self.store.set(b"k", b"w")
            now += 5
            with self.assertLogs("kvdb.persistence", logging.WARNING) as logged:
                writers = [threading.Thread(target=self.write_and_wait) for _ in range(2)]
                for writer in writers:
                    writer.start()
                until(lambda: bool(logged.output))
                gate.opened.set()
                self.disk.before_commit = lambda: None
                for writer in writers:
                    writer.join(10)
            self.assertEqual(len(logged.output), 1)
            self.journal.save()

    def write_and_wait(self) -> None:
        self.store.set(b"more", b"v")
        self.journal.wait_for_room()


class SyncTest(JournalCase):
    def test_each_mode_has_its_own_promise(self) -> None:
        # 2 is FULL: each commit is synced. 1 is NORMAL: old after a power cut, but never torn.
        for fsync, level in ((Fsync.ALWAYS, 2), (Fsync.EVERYSEC, 2), (Fsync.NEVER, 1)):
            with self.subTest(fsync):
                self.open(fsync)
                database = self.journal._file._database
                self.assertEqual(database.execute("PRAGMA synchronous").fetchone(), (level,))
                self.assertEqual(database.execute("PRAGMA journal_mode").fetchone(), ("wal",))
                self.assertTrue(self.journal.stop())

    def test_a_new_file_is_for_its_owner_only(self) -> None:
        self.open()
        self.assertEqual(self.path.stat().st_mode & 0o777, 0o600)
