"""The journal on a disk that is full: `always` refuses and undoes, the others catch up later."""

from __future__ import annotations

import http.client
import logging
import random
import sqlite3
import threading
from collections.abc import Iterable
from typing import Any
from unittest import mock

from kvdb.commands.session import Session
from kvdb.persistence import PersistenceError, Seen
from kvdb.persistence.journal import Fsync, Journal
from kvdb.protocols import RequestLoop
from kvdb.protocols.haus import Haus
from kvdb.protocols.main_port import MainPort
from kvdb.protocols.memcached import Memcached
from kvdb.store.entry import Key, key_in
from tests.journal_case import FULL, Disk, Gate, JournalCase, answers, random_operations
from tests.store_case import contents
from tests.support import running_server, until


class RefusalTest(JournalCase):
    """`--fsync always` on a disk that is full: refused, and nothing has happened."""

    def setUp(self) -> None:
        super().setUp()
        self.open(Fsync.ALWAYS)
        self.store.set(b"old", b"1", expires_at=self.clock.now + 100, client_flags=7)
        self.store.set(b"n", b"5")
        self.store.set((2, b"\xff"), b"\x80")
        self.journal.save()
        self.before = contents(self.store)

    def conversation(self, dialect: type[RequestLoop]) -> RequestLoop:
        session = Session(self.instance)
        self.instance.admit(session)
        return dialect(session)

    def fill_disk(self) -> None:
        """Let the disk be full for the rest of the test; swallow what is logged of it."""
        self.logged = self.enterContext(self.assertLogs("kvdb.persistence", logging.INFO))
        self.disk.full = True

    def assert_unchanged(self) -> None:
        self.assertEqual(contents(self.store), self.before)
        self.assertEqual(self.entries_on_disk(), self.before)
        self.store.check()

    def test_each_dialect_refuses_in_its_own_words(self) -> None:
        reason = f"cannot write {self.path}: {FULL}"
        undone = f"MISCONF The change was undone, because it cannot be saved: {reason}"
        resp = f"-{undone}\r\n"
        json = f'{{"status": "ERROR", "message": "{undone}"}}\n'
        memcached = f"SERVER_ERROR not saved: {reason}\r\n"
        haus = f'{{"status": "Error", "mesg": "Not saved: {reason}"}}\n'
        self.fill_disk()
        for dialect, request, refusal in (
            (MainPort, "*3\r\n$3\r\nSET\r\n$1\r\nk\r\n$1\r\nv\r\n", resp),
            (MainPort, "SET k v\r\n", resp),
            (MainPort, '{"command": "SET", "args": {"key": "k", "value": "v"}}\n', json),
            (MainPort, '{"command": "INCR", "args": ["n"]}\n', json),
            (Memcached, "set k 0 0 1\r\nv\r\n", memcached),
            (Memcached, "ms k 1\r\nv\r\n", memcached),
            (Memcached, "delete old\r\n", memcached),
            (Haus, "PUT k v\n", haus),
            (Haus, "DEL old\n", haus),
        ):
            with self.subTest(dialect=dialect.__name__, request=request):
                conversation = self.conversation(dialect)
                self.assertEqual(answers(conversation, request.encode()).decode(), refusal)
                self.assertFalse(conversation.closing)
                self.assert_unchanged()

    def test_http_answers_507(self) -> None:
        with running_server(
            data=self.folder / "http.sqlite", fsync="always", http_port=0
        ) as service:
            journal = service.persistence
            assert isinstance(journal, Journal)
            disk = Disk()
            disk.stand_before(journal._file)
            client = http.client.HTTPConnection("127.0.0.1", service.listeners["http"].port)
            self.addCleanup(client.close)

            def ask(method: str, path: str, body: bytes | None = None) -> tuple[int, bytes]:
                client.request(method, path, body)
                response = client.getresponse()
                return response.status, response.read()

            self.assertEqual(ask("PUT", "/keys/k", b"v"), (201, b""))
            disk.full = True
            with self.assertLogs("kvdb.persistence", logging.INFO):
                for method, path in (
                    ("PUT", "/keys/k"),
                    ("DELETE", "/keys/k"),
                    ("GET", "/set?k=w"),
                ):
                    status, text = ask(method, path, b"w" if method == "PUT" else None)
                    self.assertEqual((status, text.endswith(FULL.encode() + b"\n")), (507, True))
                    self.assertEqual(ask("GET", "/keys/k"), (200, b"v"))
                self.assertIn(b"saving fails", ask("GET", "/healthz")[1])
                disk.full = False
                self.assertEqual(ask("PUT", "/keys/k", b"w"), (204, b""))
            self.assertIn(b'"error": null', ask("GET", "/healthz")[1])

    def test_whatever_the_change_was_it_is_undone(self) -> None:
        self.fill_disk()
        talk = self.talk()
        for request in (
            "SET new v", "SET old v", "SET old v EX 5", "APPEND old x", "INCR n", "DEL old n new",
            "EXPIRE old 5", "PERSIST old", "EXPIRE n -1", "RENAME old n", "RENAME old new",
            "MSET a 1 old 2", "GETDEL old", "GETEX old EX 1", "MOVE n 3", "COPY old new",
            "FLUSHDB", "FLUSHALL", "SELECT 2\r\nFLUSHDB", "SELECT 0\r\nSETRANGE old 3 x",
            "MULTI\r\nSET a 1\r\nDEL old\r\nFLUSHALL\r\nSET b 2\r\nEXEC",
        ):  # fmt: skip
            with self.subTest(request):
                reply = talk.bytes(request + "\r\n")
                self.assertRegex(reply.splitlines()[-1], b"^-MISCONF .*" + FULL.encode())
                self.assert_unchanged()

    def test_a_refused_write_evicts_nobody(self) -> None:
        self.store.max_bytes = self.store.used_bytes
        self.fill_disk()
        self.assertIn(b"MISCONF", self.talk().bytes(f"SET big {'x' * 200}\r\n"))
        self.assert_unchanged()

    def test_reads_and_what_changes_nothing_go_on(self) -> None:
        self.fill_disk()
        replies = self.talk().bytes("SET k v\r\nGET old\r\nDEL missing\r\nTTL old\r\nPING\r\n")
        self.assertRegex(replies, rb"^-MISCONF [^\r]*\r\n\$1\r\n1\r\n:0\r\n:100\r\n\+PONG\r\n$")

    def test_reading_a_key_whose_time_has_come_is_not_refused(self) -> None:
        self.store.set(b"short", b"v", expires_at=self.clock.now + 5)
        self.journal.save()
        self.fill_disk()
        self.clock.now += 5
        self.assertEqual(self.talk().bytes("GET short\r\nEXISTS short\r\n"), b"$-1\r\n:0\r\n")

    def test_a_refused_commit_of_an_interactive_transaction_is_undone_whole(self) -> None:
        self.fill_disk()
        haus = self.conversation(Haus)
        replies = answers(haus, b"START\nPUT a 1\nPUT old 2\nDEL n\nCOMMIT\n").splitlines()
        self.assertEqual(replies[:4], [b'{"status": "Ok"}'] * 4)
        self.assertIn(FULL.encode(), replies[4])
        self.assert_unchanged()

    def test_a_watch_notices_that_something_was_written_and_taken_back(self) -> None:
        watcher = self.talk()
        watcher.bytes("WATCH n\r\n")
        self.fill_disk()
        self.talk().bytes("INCR n\r\n")
        self.disk.full = False
        reply = watcher.bytes("MULTI\r\nSET n 9\r\nEXEC\r\n")
        self.assertTrue(reply.endswith(b"*-1\r\n"), reply)

    def test_it_recovers_alone_and_is_logged_once_for_each_turn(self) -> None:
        self.fill_disk()
        talk = self.talk()
        for _ in range(5):
            self.assertIn(b"MISCONF", talk.bytes("SET k v\r\n"))
        self.assertIn("aof_last_write_status:err", talk("INFO", "persistence"))
        self.assertIn(f"persistence_last_error:cannot write {self.path}", talk("INFO"))
        self.disk.full = False
        self.assertEqual(talk.bytes("SET k v\r\n"), b"+OK\r\n")
        self.assertIn("aof_last_write_status:ok", talk("INFO", "persistence"))
        self.assertIsNone(self.journal.last_error)
        levels = [record.levelname for record in self.logged.records]
        self.assertEqual(levels, ["ERROR", "INFO"])
        self.assert_on_disk()

    def test_whichever_statement_fails_nothing_has_happened(self) -> None:
        talk = self.talk()
        request = "MULTI\r\nFLUSHDB\r\nSET a 1\r\nSET old 2\r\nDEL a\r\nEXEC\r\n"
        self.fill_disk()
        self.disk.full = False
        number = 0
        while True:
            with self.journal._writing:  # what the last failure led to is done
                self.disk.fails_at = number
            if b"-MISCONF" not in talk.bytes(request):
                break
            self.assert_unchanged()
            number += 1
        self.assertGreaterEqual(number, 6)  # BEGIN, flush, deletions, the rest, state, COMMIT
        self.disk.fails_at = None
        self.assert_on_disk()

    def test_a_bug_is_an_error_like_any_other_and_the_thread_lives_on(self) -> None:
        talk = self.talk()
        with (
            mock.patch.object(self.journal._file, "write", side_effect=MemoryError("no memory")),
            self.assertLogs("kvdb.persistence", logging.ERROR),
        ):
            self.assertIn(b"no memory", talk.bytes("SET k v\r\n"))
            self.assert_unchanged()
        self.assertEqual(talk.bytes("SET k v\r\n"), b"+OK\r\n")

    def test_what_cannot_be_undone_is_neither_lost_nor_answered(self) -> None:
        """Where even reading the file fails, the client waits until the disk is back."""
        tried = Gate()
        real = self.journal._file.read

        def read(keys: Iterable[Key]) -> Any:
            tried()
            self.disk.full = False
            raise sqlite3.OperationalError("disk I/O error")

        replies: list[bytes] = []
        writer = threading.Thread(target=lambda: replies.append(self.talk().bytes("SET k v\r\n")))
        self.fill_disk()
        with mock.patch.object(self.journal._file, "read", read):
            writer.start()
            self.assertTrue(tried.reached.wait(10))
            self.assertEqual(replies, [])
            tried.opened.set()
            writer.join(10)
        self.assertEqual(replies, [b"+OK\r\n"])
        self.assertEqual(self.journal._file.read, real)
        self.assert_on_disk()

    def test_many_threads_and_a_disk_that_comes_and_goes_agree_in_the_end(self) -> None:
        self.fill_disk()
        self.disk.full = False
        dice = random.Random(1)
        self.disk.before_commit = lambda: setattr(self.disk, "full", dice.random() < 0.3)
        acknowledged: dict[str, int] = {}

        def work(name: str) -> None:
            talk = self.talk()
            for number in range(40):
                reply = talk.bytes(f"MSET {name}1 {number} {name}2 {number}\r\n")
                if reply == b"+OK\r\n":
                    acknowledged[name] = number

        def lift() -> None:
            while not done.wait(0.0005):
                self.disk.full = False

        done = threading.Event()
        lifter = threading.Thread(target=lift)
        lifter.start()
        workers = [threading.Thread(target=work, args=(name,)) for name in "abcd"]
        for thread in workers:
            thread.start()
        for thread in workers:
            thread.join(30)
        done.set()
        lifter.join(10)
        self.disk.full = False
        self.disk.before_commit = lambda: None
        self.talk().bytes("SET end 1\r\n")
        self.assert_on_disk()
        for name, number in acknowledged.items():
            self.assertEqual(self.store.get(name.encode() + b"1"), b"%d" % number)
            self.assertEqual(self.store.get(name.encode() + b"2"), b"%d" % number)

    def test_whatever_happens_and_fails_store_and_file_agree(self) -> None:
        self.fill_disk()
        dice = random.Random(7)
        operations = random_operations(self.store, dice, self.clock)
        for _ in range(300):
            self.disk.full = dice.random() < 0.4
            before = contents(self.store)
            undos = self.journal.undos
            with self.store.atomic():
                dice.choice(operations)()
                step = self.store.step_under_way
            if step and not self.journal.wait_until_durable(Seen(step, undos, step)):
                self.assertEqual(contents(self.store), before)
            self.assertEqual(self.entries_on_disk(), contents(self.store))


class TroubleTest(JournalCase):
    """The other modes go on serving while the disk is full, and write later what they missed."""

    def setUp(self) -> None:
        super().setUp()
        self.open(Fsync.EVERYSEC)
        for db in range(3):
            self.store.set(key_in(db, b"old"), b"v", client_flags=db)
        self.journal.save()
        self.logged = self.enterContext(self.assertLogs("kvdb.persistence", logging.INFO))

    def fails(self) -> None:
        self.disk.full = True
        with self.assertRaisesRegex(PersistenceError, FULL):
            self.journal.save()
        self.disk.full = False

    def test_writes_are_answered_and_the_trouble_is_shown(self) -> None:
        self.disk.full = True
        talk = self.talk()
        self.assertEqual(talk.bytes("SET k v\r\nGET k\r\n"), b"+OK\r\n$1\r\nv\r\n")
        self.assertEqual(talk.error("SAVE"), f"ERR cannot write {self.path}: {FULL}")
        self.assertEqual(talk.error("SAVE"), f"ERR cannot write {self.path}: {FULL}")
        info = talk("INFO", "persistence")
        self.assertIn(f"persistence_last_error:cannot write {self.path}: {FULL}", info)
        self.assertIn("rdb_last_bgsave_status:err\r\n", info)
        self.assertIn("rdb_changes_since_last_save:1\r\n", info)
        self.disk.full = False
        self.assertEqual(talk("SAVE"), b"OK")
        self.assertNotIn("persistence_last_error", talk("INFO", "persistence"))
        levels = [record.levelname for record in self.logged.records]
        self.assertEqual(levels, ["ERROR", "INFO"])
        self.assert_on_disk()

    def test_the_newest_state_wins_deletions_included(self) -> None:
        self.store.set(b"a", b"1")
        self.store.set(b"b", b"1")
        self.store.delete(b"old")
        self.fails()
        self.store.set(b"a", b"2")
        self.store.delete(b"b")
        self.fails()
        self.store.set(b"old", b"again")
        self.journal.save()
        self.assertEqual(
            self.rows(columns="db, key, value"),
            [(0, "a", "2"), (0, "old", "again"), (1, "old", "v"), (2, "old", "v")],
        )

    def test_a_flush_that_was_missed_is_made_up_for_in_its_place(self) -> None:
        for first, second in ((1, 1), (1, None), (None, 1), (1, 2), (None, None)):
            with self.subTest(first=first, second=second):
                self.store.set((1, b"before"), b"v")
                self.store.flush(first)
                self.store.set((1, b"between"), b"v")
                self.store.set((2, b"between"), b"v")
                self.fails()
                self.store.set((1, b"later"), b"v")
                self.store.flush(second)
                self.store.set((2, b"after"), b"v")
                self.fails()
                self.assert_on_disk()

    def test_what_was_flushed_while_it_was_written_does_not_come_back(self) -> None:
        for db in (1, None):
            with self.subTest(db=db):
                self.store.set((1, b"before"), b"v")
                self.store.set((2, b"before"), b"v")

                def flush_and_go_on(db: int | None = db) -> None:
                    self.store.flush(db)
                    self.store.set((1, b"after"), b"v")

                self.fail_to_commit(flush_and_go_on)
                self.assert_on_disk()

    def test_whatever_happens_and_fails_the_file_catches_up(self) -> None:
        dice = random.Random(99)
        operations = random_operations(self.store, dice, self.clock)
        for _ in range(600):
            dice.choice(operations)()
            if dice.random() < 0.2 and self.journal.changes_since_save:
                self.fails()
            if dice.random() < 0.05:
                self.assert_on_disk()
        self.assert_on_disk()
        self.store.set(b"k", b"w")
        self.fails()

    def test_the_thread_tries_again_alone(self) -> None:
        self.disk.full = True
        with mock.patch("kvdb.persistence.journal._INTERVAL", 0.001):
            self.store.set(b"k", b"v")
            self.journal.save_soon()
            until(lambda: self.journal.last_error is not None)
            self.disk.full = False
            until(lambda: self.journal.last_error is None)
        self.assertIn((0, "k", "v"), self.rows(columns="db, key, value"))

    def test_a_stop_that_cannot_write_says_so(self) -> None:
        self.store.set(b"k", b"v")
        self.disk.full = True
        self.assertFalse(self.journal.stop())
