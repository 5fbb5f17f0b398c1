"""The journal on a healthy disk: what is in the file, when it is there, what comes back."""

from __future__ import annotations

import logging
import random
import shutil
import threading
from pathlib import Path
from unittest import mock

from kvdb.config import Config
from kvdb.persistence import PersistenceError, Seen
from kvdb.persistence.journal import Fsync, Journal
from kvdb.service import CannotStart, Service
from kvdb.store import Store
from kvdb.store.entry import Entry, key_in
from tests.journal_case import FULL, Disk, Gate, JournalCase, random_operations
from tests.store_case import COST, contents
from tests.support import until

EVERY_BYTE = bytes(range(256))


class ContentTest(JournalCase):
    def setUp(self) -> None:
        super().setUp()
        self.open()

    def test_what_is_set_comes_back_exactly(self) -> None:
        for byte in range(256):
            self.store.set(bytes([byte]), bytes([byte]))
        self.store.set(EVERY_BYTE, EVERY_BYTE * 100)
        self.store.set(b"", b"")
        self.store.set((3, "schlüssel".encode()), "世界".encode())
        self.store.set(b"flags", b"v", client_flags=2**32 - 1)
        self.store.set((15, b"both"), b"v", expires_at=self.clock.now + 0.123456, client_flags=7)
        before = contents(self.store)
        self.reopen()
        self.assertEqual((self.loaded, contents(self.store)), (261, before))

    def test_text_stands_there_as_text_and_the_rest_as_blobs(self) -> None:
        self.store.set(b"a", b"1")
        self.store.set("grüße".encode(), b"line\nline")
        self.store.set(b"\xff", b"\x80", client_flags=5, expires_at=self.clock.now + 1.5)
        self.store.set((2, b"nul"), b"a\0b")
        self.journal.save()
        self.assertEqual(
            self.rows(),
            [
                (0, "a", "1", None, 0),
                (0, "grüße", "line\nline", None, 0),
                (0, b"\xff", b"\x80", self.clock.now + 1.5, 5),
                (2, "nul", b"a\0b", None, 0),
            ],
        )

    def test_the_same_name_in_two_databases_is_two_keys(self) -> None:
        self.store.set(b"k", b"0")
        self.store.set((1, b"k"), b"1")
        self.store.delete(b"k")
        self.journal.save()
        self.assertEqual(self.rows(columns="db, key, value"), [(1, "k", "1")])

    def test_only_the_newest_state_of_a_key_is_there(self) -> None:
        for number in range(100):
            self.store.set(b"n", b"%d" % number, expires_at=self.clock.now + 10)
        self.store.set(b"n", b"last")
        self.store.set(b"gone", b"v")
        self.store.delete(b"gone")
        self.journal.save()
        self.assertEqual(self.rows(), [(0, "n", "last", None, 0)])

    def test_what_is_deleted_leaves_the_file(self) -> None:
        for key in (b"a", b"b", b"c", b"\xff"):
            self.store.set(key, b"v")
        self.journal.save()
        self.store.delete(b"a", b"\xff")
        self.store.rename(b"b", b"d")
        self.journal.save()
        self.assertEqual(self.rows(columns="key"), [("c",), ("d",)])

    def test_what_has_expired_leaves_the_file(self) -> None:
        for key in (b"read", b"reaped", b"kept"):
            self.store.set(key, b"v", expires_at=self.clock.now + 10)
        self.store.set_deadline(b"kept", None)
        self.journal.save()
        self.clock.now += 10
        self.store.get(b"read")
        self.store.expire_due()
        self.journal.save()
        self.assertEqual(self.rows(columns="key, expires_at"), [("kept", None)])

    def test_what_has_expired_while_nobody_served_leaves_the_file_at_the_start(self) -> None:
        self.store.set(b"a", b"v", expires_at=self.clock.now + 10)
        self.store.set(b"b", b"v", expires_at=self.clock.now + 11)
        self.journal.stop()
        self.clock.now += 10
        self.open()
        self.assertEqual(self.rows(columns="key"), [("b",)])

    def test_what_is_evicted_leaves_the_file(self) -> None:
        self.store.max_bytes = 2 * COST
        for key in (b"a", b"b", b"c"):
            self.store.set(key, b"1")
        self.journal.save()
        self.assertEqual(self.rows(columns="key"), [("b",), ("c",)])

    def test_a_flush_of_one_database_leaves_the_others(self) -> None:
        for saved_before in (True, False):
            for db in range(3):
                self.store.set(key_in(db, b"old"), b"v")
            if saved_before:
                self.journal.save()
            self.store.set((1, b"older"), b"v")
            self.store.flush(1)
            self.store.set((1, b"new"), b"v")
            self.journal.save()
            expected = [(0, "old"), (1, "new"), (2, "old")]
            self.assertEqual(self.rows(columns="db, key"), expected)

    def test_a_flush_of_everything_leaves_only_what_came_after(self) -> None:
        self.store.set(b"a", b"v")
        self.journal.save()
        self.store.set((1, b"b"), b"v")
        self.store.flush()
        self.store.set(b"c", b"v")
        self.journal.save()
        self.assertEqual(self.rows(columns="db, key"), [(0, "c")])

    def test_expiry_eviction_and_flush_come_back_right_after_a_restart(self) -> None:
        self.store.set(b"expiring", b"v", expires_at=self.clock.now + 10)
        self.reopen()
        self.assertEqual(contents(self.store)[b"expiring"].expires_at, self.clock.now + 10)
        self.clock.now += 10
        self.assertIsNone(self.store.get(b"expiring"))

    def test_stop_writes_everything_and_leaves_one_file(self) -> None:
        self.store.set(b"k", b"v")
        self.assertTrue(self.journal.stop())
        self.assertEqual([path.name for path in self.folder.iterdir()], ["data.sqlite"])
        self.assertEqual(self.rows(columns="key, value"), [("k", "v")])

    def test_a_smaller_budget_loads_what_fits_and_says_so(self) -> None:
        for key in (b"a", b"b", b"c"):
            self.store.set(key, b"1")
        self.journal.stop()
        with self.assertLogs("kvdb.persistence", logging.WARNING) as logged:
            self.open(max_bytes=2 * COST)
        self.assertIn("1 of 3 entries do not fit", logged.output[0])
        self.assertEqual(self.store.size(), 2)

    def test_whatever_happens_the_file_follows(self) -> None:
        dice = random.Random(4242)
        operations = random_operations(self.store, dice, self.clock)
        for number in range(1500):
            dice.choice(operations)()
            if dice.random() < 0.02:
                self.clock.now += 5
                while self.store.expire_due():
                    pass
            if number % 50 == 0:
                self.assert_on_disk()
        before = contents(self.store)
        self.reopen()
        self.assertEqual(contents(self.store), before)


class GroupTest(JournalCase):
    def test_many_steps_share_one_transaction(self) -> None:
        self.open()
        for number in range(1000):
            self.store.set(b"k%d" % number, b"v")
        self.assertEqual(self.journal.changes_since_save, 1000)
        self.journal.save()
        self.assertEqual((self.disk.commits, self.journal.saves), (1, 1))
        self.assertEqual(len(self.rows()), 1000)

    def test_the_thread_writes_down_what_is_waiting_again_and_again(self) -> None:
        for fsync in (Fsync.EVERYSEC, Fsync.NEVER):
            with self.subTest(fsync), mock.patch("kvdb.persistence.journal._INTERVAL", 0.001):
                self.open(fsync)
                for value in (b"1", b"2"):
                    self.store.set(b"k", value)
                    until(lambda: self.journal.changes_since_save == 0)
                    self.journal.save()  # waits for the commit under way
                    self.assertEqual(self.rows(columns="value"), [(value.decode(),)])
                self.journal.stop()

    def test_nothing_is_written_where_nothing_has_changed(self) -> None:
        self.open()
        self.journal.save()
        self.assertEqual(self.disk.commits, 0)

    def test_no_copy_of_the_file_ever_holds_half_of_a_step(self) -> None:
        self.open(Fsync.ALWAYS)
        copies: list[Path] = []

        def copy() -> None:
            """The crash of the machine, as it were: the files as they are at this moment."""
            copies.append(self.folder / f"copy{len(copies)}.sqlite")
            for suffix in ("", "-wal"):
                source = self.path.with_name(self.path.name + suffix)
                shutil.copy(source, copies[-1].with_name(copies[-1].name + suffix))

        self.disk.after_statement = copy
        value = b"x" * 5000  # so much that SQLite writes to the file before the commit
        for number in range(3):
            with self.store.atomic():
                for key in range(600):
                    self.store.set(b"%d" % key, value + b"%d" % number)
                self.store.delete(b"once %d" % (number - 1))
                self.store.set(b"once %d" % number, b"v")
            self.assertTrue(self.journal.wait_until_durable(Seen(self.store.step, 0, 0)))
        self.disk.after_statement = lambda: None
        seen = set()
        for path in copies:
            values = {value for _, key, value, *_ in self.rows(path) if "once" not in key}
            once = {key for _, key, *_ in self.rows(path) if "once" in key}
            self.assertLessEqual(len(values), 1)
            self.assertEqual(once, {f"once {value[-1]}" for value in values})
            seen |= values
        self.assertEqual(len(seen), 3)
        self.assertGreater(len(copies), 10)


class AlwaysTest(JournalCase):
    def setUp(self) -> None:
        super().setUp()
        self.open(Fsync.ALWAYS)

    def test_what_is_answered_is_on_disk(self) -> None:
        talk = self.talk()
        for number in range(20):
            self.assertEqual(talk.bytes(f"SET k {number}\r\n"), b"+OK\r\n")
            self.assertEqual(self.rows(columns="value"), [(str(number),)])

    def test_neither_a_write_nor_a_read_is_answered_before_what_it_tells_is_on_disk(self) -> None:
        gate = self.disk.before_commit = Gate()
        replies: list[bytes] = []

        def ask(request: str) -> None:
            replies.append(self.talk().bytes(request))

        writer = threading.Thread(target=ask, args=["SET k v\r\n"])
        writer.start()
        self.assertTrue(gate.reached.wait(10))
        reader = threading.Thread(target=ask, args=["GET k\r\n"])
        reader.start()
        until(lambda: len(self.journal._outcomes._tickets) == 2)
        reader.join(0.05)
        self.assertEqual((replies, self.rows()), ([], []))
        gate.opened.set()
        writer.join(10)
        reader.join(10)
        self.assertEqual(sorted(replies), [b"$1\r\nv\r\n", b"+OK\r\n"])
        self.assertEqual(len(self.rows()), 1)

    def test_a_reader_is_told_what_holds_after_a_refusal(self) -> None:
        self.store.set(b"k", b"before")
        self.journal.save()
        gate = self.disk.before_commit = Gate()
        replies: dict[str, bytes] = {}

        def ask(request: str) -> None:
            replies[request] = self.talk().bytes(f"{request}\r\n")

        threads = [threading.Thread(target=ask, args=[f"SET k new{n}"]) for n in range(2)]
        threads[0].start()
        self.assertTrue(gate.reached.wait(10))
        threads += [threading.Thread(target=ask, args=[each]) for each in ("GET k", "SETNX k x")]
        for thread in threads[1:]:
            thread.start()
        until(lambda: len(self.journal._outcomes._tickets) == 4)
        with self.assertLogs("kvdb.persistence", logging.INFO):
            self.disk.full = True
            gate.opened.set()
            for thread in threads:
                thread.join(10)
        self.assertIn(b"MISCONF", replies["SET k new0"])
        self.assertIn(b"MISCONF", replies["SET k new1"])
        self.assertEqual(replies["GET k"], b"$6\r\nbefore\r\n")
        self.assertEqual(replies["SETNX k x"], b":0\r\n")

    def test_many_threads_share_a_commit(self) -> None:
        gate = self.disk.before_commit = Gate()
        replies: list[bytes] = []

        def write(number: int) -> None:
            replies.append(self.talk().bytes(f"SET k{number} v\r\n"))

        threads = [threading.Thread(target=write, args=(number,)) for number in range(30)]
        threads[0].start()
        self.assertTrue(gate.reached.wait(10))
        for thread in threads[1:]:
            thread.start()
        until(lambda: self.journal.changes_since_save == 29)
        self.assertEqual(replies, [])
        gate.opened.set()
        for thread in threads:
            thread.join(10)
        self.assertEqual(replies, [b"+OK\r\n"] * 30)
        self.assertEqual((self.disk.commits, len(self.rows())), (2, 30))

    def test_the_replies_to_a_pipeline_wait_together(self) -> None:
        replies = self.talk().bytes("".join(f"SET k{n} v\r\nGET k{n}\r\n" for n in range(200)))
        self.assertEqual(replies, b"+OK\r\n$1\r\nv\r\n" * 200)
        self.assertEqual(len(self.rows()), 200)
        self.assertLess(self.disk.commits, 200)

    def test_a_transaction_is_one_step(self) -> None:
        replies = self.talk().bytes("MULTI\r\nSET a 1\r\nSET b 2\r\nDEL a\r\nEXEC\r\n")
        self.assertTrue(replies.endswith(b"*3\r\n+OK\r\n+OK\r\n:1\r\n"))
        self.assertEqual(self.rows(columns="key"), [("b",)])
        self.assertEqual(self.disk.commits, 1)

    def test_stop_ends_the_thread_at_once(self) -> None:
        self.assertTrue(self.journal.stop())
        self.assertFalse(self.journal.thread.is_alive())


class SavingTest(JournalCase):
    def setUp(self) -> None:
        super().setUp()
        self.open()

    def test_save_has_everything_written_before_it_answers(self) -> None:
        talk = self.talk()
        talk("SET", "k", "v")
        self.assertIn("rdb_changes_since_last_save:1\r\n", talk("INFO", "persistence"))
        self.assertEqual((talk("SAVE"), len(self.rows())), (b"OK", 1))
        info = talk("INFO", "persistence")
        for field in ("rdb_changes_since_last_save:0", "aof_enabled:1", "rdb_saves:1"):
            self.assertIn(field + "\r\n", info)

    def test_bgsave_has_the_thread_write_now(self) -> None:
        talk = self.talk()
        talk("SET", "k", "v")
        self.assertEqual(talk("BGSAVE"), b"Background saving started")
        until(lambda: self.journal.saves == 1)
        self.assertEqual(len(self.rows()), 1)

    def test_lastsave_is_when_all_was_on_disk_even_if_nothing_was_left_to_write(self) -> None:
        talk = self.talk()
        self.assertEqual(talk("LASTSAVE"), 1_000_000)
        for seconds, request in ((5, ("SET", "k", "v")), (7, ("GET", "k"))):
            self.clock.now = 1_000_000 + seconds
            talk(*request)
            talk("SAVE")
            self.assertEqual(talk("LASTSAVE"), 1_000_000 + seconds)

    def test_shutdown_save_saves(self) -> None:
        talk = self.talk()
        talk("SET", "k", "v")
        talk("SHUTDOWN", "SAVE")
        self.assertEqual(len(self.rows()), 1)


class ByHandTest(JournalCase):
    """What a person writes into the file with the sqlite3 program, while no server uses it."""

    def setUp(self) -> None:
        super().setUp()
        self.open()
        self.journal.stop()

    def test_rows_written_by_hand_are_loaded(self) -> None:
        self.by_hand(
            "INSERT INTO entries (db, key, value, expires_at, client_flags) VALUES (0, 'text', 'grüße', NULL, 0)",
            "INSERT INTO entries (db, key, value, expires_at, client_flags) VALUES (0, 'number', 5, NULL, 0)",
            "INSERT INTO entries (db, key, value, expires_at, client_flags) VALUES (0, 'real', 2.5, NULL, 0)",
            "INSERT INTO entries (db, key, value, expires_at, client_flags) VALUES (3, x'ff00', x'80', 2000000, 7)",
            "INSERT INTO entries (db, key, value, expires_at, client_flags) VALUES (0, 'past', 'v', 999999, 0)",
        )
        self.open()
        self.assertEqual(
            contents(self.store),
            {
                b"text": Entry("grüße".encode()),
                b"number": Entry(b"5"),
                b"real": Entry(b"2.5"),
                (3, b"\xff\0"): Entry(b"\x80", 2_000_000.0, 7),
            },
        )

    def test_a_key_in_another_form_than_ours_is_found_again(self) -> None:
        for fate in ("deleted", "overwritten", "left alone"):
            self.by_hand(
                "DELETE FROM entries",
                "INSERT INTO entries (db, key, value, expires_at, client_flags) VALUES (0, 5, 'v', NULL, 0)",
                "INSERT INTO entries (db, key, value, expires_at, client_flags) VALUES (0, x'61', 'v', NULL, 0)",
                "INSERT INTO entries (db, key, value, expires_at, client_flags) VALUES (0, 'a' || char(0), 'v', NULL, 0)",
            )
            self.open()
            for key in (b"5", b"a", b"a\0"):
                self.assertEqual(self.store.get(key), b"v")
                if fate == "deleted":
                    self.store.delete(key)
                elif fate == "overwritten":
                    self.store.set(key, b"w")
            expected = contents(self.store)
            self.reopen()
            self.assertEqual(contents(self.store), expected)
            self.assertEqual(len(self.rows()), len(expected))
            self.journal.stop()

    def test_a_row_that_cannot_be_is_refused_with_its_reason(self) -> None:
        for row, reason in (
            ("(16, 'k', 'v', NULL, 0)", "db is 16: it must be 0 to 15"),
            ("('x', 'k', 'v', NULL, 0)", "db is 'x'"),
            ("(0, 'k', 'v', 'soon', 0)", "expires_at is 'soon'"),
            ("(0, 'k', 'v', 9e999, 0)", "expires_at is inf"),
            ("(0, 'k', 'v', NULL, -1)", "client_flags is -1"),
            ("(0, 'k', 'v', NULL, 4294967296)", "client_flags is 4294967296"),
            ("(0, 'k', CAST(x'ff' AS TEXT), NULL, 0)", "UTF-8"),
        ):
            with self.subTest(row):
                self.by_hand(
                    "DELETE FROM entries",
                    f"INSERT INTO entries (db, key, value, expires_at, client_flags) VALUES {row}",
                )
                before = self.path.read_bytes()
                journal = Journal(Store(0, clock=self.clock), self.path, Fsync.EVERYSEC)
                with self.assertRaises(PersistenceError) as refused:
                    journal.load()
                self.assertIn(reason, str(refused.exception))
                self.assertIn("left untouched", str(refused.exception))
                self.assertEqual(self.path.read_bytes(), before)


class UnusableFileTest(JournalCase):
    """A file that cannot be used: the start is refused with a sentence, the file is left alone."""

    def refused(self) -> str:
        before = self.path.read_bytes()
        with self.assertRaises(CannotStart) as refused:
            Service(Config(data=self.path, port=0))
        self.assertEqual(self.path.read_bytes(), before)
        names = [path.name for path in self.folder.iterdir()]
        self.assertEqual(names, ["data.sqlite"])  # the lock is gone, too
        return str(refused.exception)

    def fill(self) -> bytes:
        self.open()
        for number in range(2000):
            self.store.set(b"key %d" % number, b"x" * 100)
        self.journal.stop()
        return self.path.read_bytes()

    def test_what_is_not_an_sqlite_file_is_refused(self) -> None:
        self.path.write_text("precious\n" * 100)
        self.assertIn(f"{self.path} cannot be used: file is not a database", self.refused())

    def test_a_file_that_was_cut_is_refused(self) -> None:
        whole = self.fill()
        for share in (0.9, 0.5, 0.1):
            self.path.write_bytes(whole[: int(len(whole) * share)])
            self.assertRegex(
                self.refused(), r"data\.sqlite (is damaged|cannot be used): .*left unt"
            )

    def test_damage_in_the_middle_is_refused(self) -> None:
        whole = self.fill()
        middle = len(whole) // 2 // 4096 * 4096
        self.path.write_bytes(whole[:middle] + b"\xff" * 4096 + whole[middle + 4096 :])
        self.assertIn("is damaged: database disk image is malformed", self.refused())

    def test_a_file_of_a_newer_kvdb_is_refused(self) -> None:
        self.fill()
        self.by_hand("PRAGMA user_version = 3")
        self.assertIn("was written by a newer kvdb", self.refused())

    def test_the_database_of_another_program_is_refused(self) -> None:
        for table in ("bookmarks (url)", "entries (db, key)"):
            self.path.unlink(missing_ok=True)
            self.by_hand(f"CREATE TABLE {table}")
            self.assertIn("holds the tables of another program", self.refused())
        self.by_hand("PRAGMA user_version = 1")
        self.assertIn("no such column", self.refused())

    def test_an_empty_file_is_a_new_one(self) -> None:
        self.path.touch()
        self.open()
        self.assertEqual(self.loaded, 0)

    def test_a_folder_instead_of_a_file_is_refused(self) -> None:
        self.path.mkdir()
        with self.assertRaisesRegex(CannotStart, "cannot be used: unable to open"):
            Service(Config(data=self.path, port=0))

    def test_a_full_disk_at_the_start_is_told_apart_from_damage(self) -> None:
        self.fill()
        journal = Journal(Store(0, clock=self.clock), self.path, Fsync.EVERYSEC)
        disk = Disk()
        disk.stand_before(journal._file)
        disk.full = True
        with self.assertRaisesRegex(PersistenceError, f"cannot write .*{FULL}"):
            journal.load()
